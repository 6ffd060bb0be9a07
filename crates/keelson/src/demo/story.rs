//! The story, step by step. Each step does one thing and shows what came of it; a step that does not see what it must
//! fails.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use apimachinery::call::{Options, RawBody, Reply};
use apimachinery::codec::yaml;
use apimachinery::{Doc, Gvr, doc, k};
use client::{DeleteOptions, Deleted, PatchType, gvr};
use futures_util::StreamExt as _;

use super::say::Say;
use super::seen::{Seen, deployment_line, docs, holds, leaving, name, pod_line, quota_line, until};
use super::traffic::{Tally, Traffic, first_answer};
use super::{Cluster, IMAGE, NAMESPACE, write_image};

/// The seeds' manifests, as they are.
const QUOTAS: &str = include_str!("../../../../examples/seeds/resourcequota.yml");
const DEPLOYMENT: &str = include_str!("../../../../examples/seeds/helloworld-with-quotas.yaml");
/// The version that the seed's Deployment is written in.
const OLD_DEPLOYMENTS: Gvr = Gvr::new("extensions", "v1beta1", "deployments");

/// Names in the seeds, and ours in their style.
const NAME: &str = "helloworld-deployment";
const SERVICE: &str = "helloworld-service";
const CLIENT: &str = "helloworld-client";
const QUOTA: &str = "compute-quota";
const PORT: u16 = 3000;

/// The longest wait for something that only the API and its controllers do.
const API_MAX: Duration = Duration::from_secs(15);
/// The longest wait for pods to come, change or go.
const PODS_MAX: Duration = Duration::from_secs(90);
/// The longest wait for packet rules to follow what the API says.
const RULES_MAX: Duration = Duration::from_secs(15);
/// Requests for a sample.
const SAMPLE: usize = 30;

/// The Service's ways in.
#[derive(Clone, Copy)]
struct Ways {
    cluster: SocketAddr,
    node: SocketAddr,
}

/// Tells it.
///
/// # Errors
/// When a step does not see what it must.
pub async fn tell(cluster: &Cluster, seen: &Seen, say: &mut Say) -> anyhow::Result<()> {
    import_image(cluster, say).await?;
    quotas(cluster, seen, say).await?;
    two_of_three(cluster, seen, say).await?;
    raise_quota(cluster, seen, say).await?;
    let ways = service(cluster, seen, say).await?;
    requests("requests from this machine through the ClusterIP", ways.cluster, say).await?;
    from_a_pod(cluster, seen, say).await?;
    requests("requests through the NodePort", ways.node, say).await?;
    scale(cluster, seen, say, 4).await?;
    scale(cluster, seen, say, 3).await?;
    rolling_update(cluster, seen, say, ways).await?;
    say.begin("the events that tell it");
    seen.story().into_iter().for_each(|line| say.saw(line));
    say.done();
    Ok(())
}

/// Takes the namespace away, if it is there, and waits until it is gone.
///
/// # Errors
/// When it does not go.
pub async fn clean_up(cluster: &Cluster, seen: &Seen, say: &mut Say) -> anyhow::Result<()> {
    say.begin(format!("clean-up: namespace {NAMESPACE} and all in it are gone"));
    match cluster.client.resource(gvr::NAMESPACES).delete(NAMESPACE, DeleteOptions::default()).await {
        Err(err) if err.is_not_found() => {}
        Err(err) => return Err(err).context("delete the namespace"),
        Ok(Deleted::Marked(_) | Deleted::Gone) => {
            let gone = || seen.namespaces.get("", NAMESPACE).is_none().then_some(());
            until(&seen.namespaces, "the namespace to be gone", PODS_MAX, gone).await?;
        }
    }
    say.done();
    Ok(())
}

async fn import_image(cluster: &Cluster, say: &mut Say) -> anyhow::Result<()> {
    say.begin(format!("image {IMAGE}: this program as an OCI archive, imported"));
    let scratch = Scratch::new()?;
    let (archive, exe) = (scratch.0.join("image.tar"), cluster.exe.clone());
    let out = archive.clone();
    base::task::blocking(move || write_image(&out, &exe, IMAGE)).await?;
    let bytes = std::fs::metadata(&archive).context("look at the archive")?.len();
    let images = cluster.images.import(&archive, None).await.context("import the archive")?;
    for image in images {
        say.saw(format!("{} ({:.1} MB), {}", image.repo_tags.join(", "), bytes as f64 / 1e6, image.id));
    }
    say.done();
    Ok(())
}

async fn quotas(cluster: &Cluster, seen: &Seen, say: &mut Say) -> anyhow::Result<()> {
    say.begin(format!("namespace {NAMESPACE} with the seeds' quotas"));
    for text in QUOTAS.split("\n---\n") {
        let object = yaml::parse(text.as_bytes()).context("read resourcequota.yml")?.doc;
        let resource = match object.get(k::KIND).str() {
            "Namespace" => cluster.client.resource(gvr::NAMESPACES),
            "ResourceQuota" => cluster.client.namespaced(gvr::RESOURCE_QUOTAS, NAMESPACE),
            other => bail!("resourcequota.yml has a {other}"),
        };
        let what = format!("create {} {}", object.get(k::KIND).str(), name(&object));
        resource.create(object).await.context(what)?;
    }
    // Pods are refused before the account exists, and before a quota has been counted for the first time.
    let account = || seen.accounts.get(NAMESPACE, "default");
    until(&seen.accounts, "the default service account", API_MAX, account).await?;
    let counted = || {
        let quotas = docs(&seen.quotas);
        (quotas.len() == 2 && quotas.iter().all(|q| q.get(k::STATUS).get(k::HARD).is_set())).then_some(quotas)
    };
    for quota in until(&seen.quotas, "the quotas to be counted", API_MAX, counted).await? {
        say.saw(quota_line(&quota));
    }
    say.done();
    Ok(())
}

async fn two_of_three(cluster: &Cluster, seen: &Seen, say: &mut Say) -> anyhow::Result<()> {
    say.begin("a Deployment of three (extensions/v1beta1, as written): two run");
    let deployments = cluster.client.namespaced(OLD_DEPLOYMENTS, NAMESPACE);
    deployments.create(deployment()?).await.context("create the Deployment")?;
    let two = || ready_pods(seen, 2);
    for pod in until(&seen.pods, "two ready pods", PODS_MAX, two).await? {
        say.saw(pod_line(&pod));
    }
    say.done();

    say.begin("the third is refused (403 Forbidden), for memory");
    let refusal = || {
        let refused = seen.events_of("FailedCreate").into_iter().map(|(message, _)| message);
        refused
            .filter(|m| m.contains("is forbidden") && m.contains("exceeded quota"))
            .find(|m| m.contains("memory"))
    };
    let message = until(&seen.events, "the event that refuses the third pod", API_MAX, refusal).await?;
    say.saw(format!("FailedCreate: {message}"));
    let failing =
        || find(&seen.deployments, NAME).filter(|d| holds(d, "ReplicaFailure") && available(d) == 2);
    let now = until(&seen.deployments, "the Deployment to say ReplicaFailure", API_MAX, failing).await?;
    say.saw(format!("{}; ReplicaFailure", deployment_line(&now)));
    let full = || {
        find(&seen.quotas, QUOTA).filter(|q| q.root().find("status.used").get("limits.memory").str() == "2Gi")
    };
    say.saw(quota_line(&until(&seen.quotas, "the quota to be used up", API_MAX, full).await?));
    ensure!(seen.app_pods().len() == 2, "there are {} pods where two have room", seen.app_pods().len());
    say.done();
    Ok(())
}

async fn raise_quota(cluster: &Cluster, seen: &Seen, say: &mut Say) -> anyhow::Result<()> {
    say.begin("the quota raised (2.5Gi requests, 5Gi limits): the third comes");
    // Five pods' worth: three, one more during an update, and one that is still ending.
    let patch = doc!({ "spec": { "hard": { "requests.memory": "2.5Gi", "limits.memory": "5Gi" } } });
    let quotas = cluster.client.namespaced(gvr::RESOURCE_QUOTAS, NAMESPACE);
    quotas.patch(QUOTA, PatchType::Merge, patch, "").await.context("raise the quota")?;
    let three = || ready_pods(seen, 3);
    for pod in until(&seen.pods, "three ready pods", PODS_MAX, three).await? {
        say.saw(pod_line(&pod));
    }
    let whole = || find(&seen.deployments, NAME).filter(|d| available(d) == 3 && !holds(d, "ReplicaFailure"));
    say.saw(deployment_line(&until(&seen.deployments, "the Deployment to be whole", API_MAX, whole).await?));
    let counted = || {
        find(&seen.quotas, QUOTA).filter(|q| q.root().find("status.used").get("limits.memory").str() == "3Gi")
    };
    say.saw(quota_line(&until(&seen.quotas, "the quota to count three pods", API_MAX, counted).await?));
    say.done();
    Ok(())
}

async fn service(cluster: &Cluster, seen: &Seen, say: &mut Say) -> anyhow::Result<Ways> {
    say.begin(format!("a Service of type NodePort on port {PORT}"));
    let services = cluster.client.namespaced(gvr::SERVICES, NAMESPACE);
    let service = doc!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": SERVICE },
        "spec": {
            "type": "NodePort", "selector": { "app": "helloworld" },
            "ports": [{ "name": "http", "port": PORT, "targetPort": "nodejs-port", "protocol": "TCP" }],
        },
    });
    let made = services.create(service).await.context("create the Service")?.doc();
    let spec = made.get(k::SPEC);
    let address: IpAddr = spec.get(k::CLUSTER_IP).str().parse().context("the Service has no ClusterIP")?;
    let port = u16::try_from(spec.get(k::PORTS).item(0).get(k::NODE_PORT).i64()).unwrap_or(0);
    ensure!(port != 0, "the Service has no node port");
    let ways =
        Ways { cluster: SocketAddr::new(address, PORT), node: SocketAddr::new(cluster.node_address, port) };
    let three = || (seen.ready_endpoints() == 3).then_some(());
    until(&seen.slices, "three ready endpoints", API_MAX, three).await?;
    say.saw(format!("ClusterIP {}, node port {port}, 3 endpoints ready", ways.cluster));
    let first = first_answer(ways.cluster, RULES_MAX).await?;
    say.saw(format!("first answer: {}", first.body.trim_end()));
    say.done();
    Ok(ways)
}

async fn requests(title: &str, to: SocketAddr, say: &mut Say) -> anyhow::Result<()> {
    say.begin(format!("{title}: http://{to}"));
    first_answer(to, RULES_MAX).await?;
    let mut tally = Tally::default();
    for _ in 0..SAMPLE {
        tally.ask(to).await;
    }
    say.saw(format!(
        "{} requests, {} failed, slowest {:.1} ms",
        tally.requests,
        tally.failed,
        millis(tally.slowest)
    ));
    say.saw(Tally::shares(&tally.pods));
    ensure!(tally.failed == 0, "{}", tally.reasons.join("; "));
    say.done();
    Ok(())
}

async fn from_a_pod(cluster: &Cluster, seen: &Seen, say: &mut Say) -> anyhow::Result<()> {
    let url = format!("http://{SERVICE}:{PORT}/");
    say.begin(format!("a client pod asks {url} by DNS; its log"));
    let pods = cluster.client.namespaced(gvr::PODS, NAMESPACE);
    let pod = doc!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": CLIENT },
        "spec": {
            "restartPolicy": "Never",
            "containers": [{
                "name": "client", "image": IMAGE,
                "command": ["/keelson", "demo-app", "fetch", url, "3"],
                "resources": {
                    "requests": { "cpu": "10m", "memory": "16Mi" },
                    "limits": { "cpu": "200m", "memory": "64Mi" },
                },
            }],
        },
    });
    pods.create(pod).await.context("create the client pod")?;
    let ended = || find(&seen.pods, CLIENT).filter(|p| ["Succeeded", "Failed"].contains(&phase(p)));
    let pod = until(&seen.pods, "the client pod to end", PODS_MAX, ended).await?;
    let log = log(cluster, CLIENT).await?;
    log.lines().for_each(|line| say.saw(line));
    ensure!(phase(&pod) == "Succeeded", "the client pod failed: {}", pod_line(&pod));
    ensure!(log.matches("Hello World! from pod").count() == 3, "its log does not have three answers");
    pods.delete(CLIENT, DeleteOptions::default()).await.context("delete the client pod")?;
    let gone = || find(&seen.pods, CLIENT).is_none().then_some(());
    until(&seen.pods, "the client pod to be gone", PODS_MAX, gone).await?;
    say.done();
    Ok(())
}

async fn scale(cluster: &Cluster, seen: &Seen, say: &mut Say, replicas: usize) -> anyhow::Result<()> {
    say.begin(format!("scaled to {replicas}"));
    let deployments = cluster.client.namespaced(gvr::DEPLOYMENTS, NAMESPACE);
    let patch = doc!({ "spec": { "replicas": replicas } });
    deployments.patch(NAME, PatchType::Merge, patch, "scale").await.context("scale the Deployment")?;
    let right = || ready_pods(seen, replicas).filter(|_| find_all(seen).len() == replicas);
    let what = format!("{replicas} ready pods and no others");
    for pod in until(&seen.pods, &what, PODS_MAX, right).await? {
        say.saw(pod_line(&pod));
    }
    let endpoints = || (seen.ready_endpoints() == replicas).then_some(());
    until(&seen.slices, &format!("{replicas} ready endpoints"), API_MAX, endpoints).await?;
    say.saw(format!("{replicas} endpoints ready"));
    say.done();
    Ok(())
}

async fn rolling_update(cluster: &Cluster, seen: &Seen, say: &mut Say, ways: Ways) -> anyhow::Result<()> {
    say.begin("a rolling update to version 2 under continuous requests");
    let traffic = Traffic::start(ways.cluster);
    let deployments = cluster.client.namespaced(gvr::DEPLOYMENTS, NAMESPACE);
    let patch = doc!({ "spec": { "template": { "spec": {
        "containers": [{ "name": "k8s-demo", "env": [{ "name": "VERSION", "value": "2" }] }],
    } } } });
    let patched =
        deployments.patch(NAME, PatchType::Strategic, patch, "").await.context("patch the Deployment")?;
    let generation = patched.doc().root().find("metadata.generation").i64();
    let complete = || {
        find(&seen.deployments, NAME).filter(|d| {
            let status = d.get(k::STATUS);
            status.get(k::OBSERVED_GENERATION).i64() >= generation
                && status.get(k::UPDATED_REPLICAS).i64() == 3
                && status.get(k::REPLICAS).i64() == 3
                && available(d) == 3
        })
    };
    let now = until(&seen.deployments, "the new version to be rolled out", PODS_MAX, complete).await?;
    say.saw(deployment_line(&now));
    let only_new =
        || (find_all(seen).len() == 3 && find_all(seen).iter().all(|p| version(p) == "2")).then_some(());
    until(&seen.pods, "the old pods to be gone", PODS_MAX, only_new).await?;
    let tally = traffic.stop().await;
    say.saw(format!(
        "{} requests, {} failed, slowest {:.1} ms",
        tally.requests,
        tally.failed,
        millis(tally.slowest)
    ));
    say.saw(format!("answers by version: {}", Tally::shares(&tally.versions)));
    ensure!(
        tally.failed == 0,
        "{} of {} requests failed: {}",
        tally.failed,
        tally.requests,
        tally.reasons.join("; ")
    );
    ensure!(tally.versions.len() == 2, "both versions should have answered during the update");
    let mut after = Tally::default();
    for _ in 0..SAMPLE {
        after.ask(ways.cluster).await;
    }
    say.saw(format!("afterwards: {}", Tally::shares(&after.pods)));
    ensure!(after.versions.keys().eq(["2"]) && after.failed == 0, "the old version still answers");
    say.done();
    Ok(())
}

/// The seed's Deployment, with what an update without a failed request needs besides: a version to tell apart, a probe
/// that says when a pod can answer, and no pod taken away before its successor is ready.
fn deployment() -> anyhow::Result<Doc> {
    let mut out = yaml::parse(DEPLOYMENT.as_bytes()).context("read helloworld-with-quotas.yaml")?.doc;
    let mut spec = out.edit().at(k::SPEC);
    let strategy = doc!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } });
    spec.set("strategy", strategy);
    let containers = spec.at(k::TEMPLATE).at(k::SPEC).list(k::CONTAINERS);
    let mut container = containers.item(0).context("helloworld-with-quotas.yaml has no container")?;
    container.set(k::ENV, doc!([{ "name": "VERSION", "value": "1" }]));
    let probe = doc!({ "httpGet": { "path": "/healthz", "port": "nodejs-port" }, "periodSeconds": 1 });
    container.set("readinessProbe", probe);
    Ok(out)
}

async fn log(cluster: &Cluster, pod: &str) -> anyhow::Result<String> {
    let pods = cluster.client.namespaced(gvr::PODS, NAMESPACE);
    let reply = pods.get_subresource(pod, "log", Options::default()).await.context("read the log")?;
    let Reply::Raw(raw) = reply else { bail!("the log is no text") };
    let bytes = match raw.body {
        RawBody::Bytes(bytes) => bytes.to_vec(),
        RawBody::Stream(mut stream) => {
            let mut all = Vec::new();
            while let Some(chunk) = stream.next().await {
                all.extend_from_slice(&chunk.context("read the log")?);
            }
            all
        }
    };
    ensure!(raw.code == 200, "the log: {} {}", raw.code, String::from_utf8_lossy(&bytes));
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The app's pods if exactly so many are ready.
fn ready_pods(seen: &Seen, count: usize) -> Option<Vec<Doc>> {
    let mut pods = seen.app_pods();
    pods.retain(|p| holds(p, "Ready"));
    (pods.len() == count).then_some(pods)
}

/// The app's pods, those on their way out too.
fn find_all(seen: &Seen) -> Vec<Doc> {
    let mut pods = docs(&seen.pods);
    pods.retain(|p| p.root().find("metadata.labels.app").is_set());
    pods
}

fn find(cache: &client::SharedCache, name: &str) -> Option<Doc> {
    cache.get(NAMESPACE, name).map(|stored| stored.doc())
}

fn available(deployment: &Doc) -> i64 {
    deployment.get(k::STATUS).get(k::AVAILABLE_REPLICAS).i64()
}

fn phase(pod: &Doc) -> &str {
    if leaving(pod) { "" } else { pod.get(k::STATUS).get(k::PHASE).str() }
}

fn version(pod: &Doc) -> String {
    let env = pod.get(k::SPEC).get(k::CONTAINERS).item(0).get(k::ENV);
    let found = env.items().find(|e| e.get(k::NAME).str() == "VERSION");
    found.map(|e| e.get("value").str().to_owned()).unwrap_or_default()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// A directory of our own, gone with its owner.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Scratch> {
        // The name cannot be foreseen, and one that exists is refused: nobody can have laid a link there.
        let path = std::env::temp_dir().join(format!("keelson-demo-{}", base::rand::uuid()));
        std::fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(err) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(path = %self.0.display(), %err, "remove the demo's scratch directory");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_what_the_story_needs() {
        let kinds: Vec<String> = QUOTAS
            .split("\n---\n")
            .map(|text| yaml::parse(text.as_bytes()).expect("YAML").doc)
            .map(|object| format!("{} {}", object.get(k::KIND).str(), name(&object)))
            .collect();
        assert_eq!(kinds, ["Namespace myspace", "ResourceQuota compute-quota", "ResourceQuota object-quota"]);
        let deployment = deployment().expect("a Deployment");
        assert_eq!(deployment.get("apiVersion").str(), "extensions/v1beta1");
        assert_eq!((name(&deployment), deployment.root().find("spec.replicas").i64()), (NAME, 3));
        let container = deployment.root().find("spec.template.spec.containers").item(0);
        assert_eq!(container.get("image").str(), IMAGE);
        assert_eq!(container.get("name").str(), "k8s-demo");
        assert_eq!(container.find("resources.limits.memory").str(), "1Gi");
        assert_eq!(container.find("readinessProbe.httpGet.port").str(), "nodejs-port");
        assert_eq!(container.get(k::PORTS).item(0).get("containerPort").i64(), i64::from(PORT));
    }
}
