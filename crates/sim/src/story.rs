//! The demo's story: a namespace with quotas, a Deployment of three of which two run, a larger quota and the third, a
//! Service, a rolling update, and the end of it all, while faults strike. Once they have ceased, everything must be as it
//! should be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::call::Options;
use apimachinery::{Doc, Gvr, Ref, doc, k};
use client::gvr::{
    DEPLOYMENTS, ENDPOINT_SLICES, EVENTS, NAMESPACES, NODES, PODS, REPLICA_SETS, RESOURCE_QUOTAS, SERVICES,
};
use client::reflector::{self, Selection};
use client::{Client, DeleteOptions, Error, PatchType};

use crate::Outcome;
use crate::faults::{self, Storm, Tally};
use crate::world::World;

const NS: &str = "myspace";
/// Which Service has which cluster address.
pub const IP_ADDRESSES: Gvr = Gvr::new("networking.k8s.io", "v1", "ipaddresses");
/// Virtual time within which whatever is waited for must come, faults or not: the longest back-offs are minutes.
const SOON: Duration = Duration::from_secs(1800);
/// The wait before a person tries again.
const AGAIN: Duration = Duration::from_millis(700);
/// The longest time that faults strike, in milliseconds.
const STORM_MS: u64 = 180_000;
/// The longest wait between two faults.
const PEACE: Duration = Duration::from_secs(20);

/// How a part of a story went, or what went wrong.
pub type Told<T = ()> = Result<T, String>;

struct Story {
    world: Arc<World>,
    client: Client,
    tally: Tally,
}

/// Plays the story once.
pub async fn play() -> Outcome {
    let nodes = 1 + u8::try_from(base::rand::below(3)).unwrap_or(0);
    let world = Arc::new(World::new(nodes));
    world.net.set(faults::CALM.0, faults::CALM.1);
    let tally = Tally::new(faults::DEMO);
    let story = Story { client: world.admin(), world: world.clone(), tally: tally.clone() };
    if let Err(what) = story.told().await {
        world.history.accuse(what);
    }
    Outcome {
        lines: world.history.lines(),
        faults: tally.counts(),
        saw: Vec::new(),
        broken: world.history.broken(),
    }
}

fn deployment() -> Doc {
    doc!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" }, "spec": {
        "replicas": 3, "selector": { "matchLabels": { "app": "web" } }, "template": {
            "metadata": { "labels": { "app": "web" } },
            "spec": { "containers": [{ "name": "k8s-demo", "image": "demo:1",
                "ports": [{ "name": "nodejs-port", "containerPort": 3000 }],
                "readinessProbe": { "httpGet": { "port": 3000, "path": "/" }, "periodSeconds": 1 },
                "resources": { "requests": { "cpu": "200m", "memory": "0.5Gi" },
                    "limits": { "cpu": "400m", "memory": "1Gi" } } }] } } } })
}

impl Story {
    async fn told(&self) -> Told {
        let storms = self.storms(STORM_MS);
        self.rising().await?;
        for storm in storms {
            storm.await;
        }
        self.heal();
        self.all_is_well().await?;
        let storms = self.storms(STORM_MS / 4);
        self.falling().await?;
        for storm in storms {
            storm.await;
        }
        self.heal();
        self.nothing_is_left().await
    }

    /// Two storms at once, each up to so long; a seventh of all stories is calm.
    fn storms(&self, most_ms: u64) -> Vec<base::task::Task<()>> {
        let calm = base::rand::below(7) == 0;
        for machine in &self.world.machines {
            machine.runtime.set_crashes(!calm);
        }
        let storm = || {
            let ms = if calm { 0 } else { base::rand::below(most_ms) };
            let end = base::time::instant() + Duration::from_millis(ms);
            let storm = Storm { faults: faults::DEMO, peace_most: PEACE, end };
            base::task::spawn(storm.rage(self.world.clone(), self.tally.clone()))
        };
        vec![storm(), storm()]
    }

    fn heal(&self) {
        self.world.net.set(faults::CALM.0, faults::CALM.1);
        for machine in &self.world.machines {
            machine.runtime.set_crashes(false);
        }
    }

    async fn rising(&self) -> Told {
        let namespace = doc!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NS } });
        self.create(self.client.resource(NAMESPACES), namespace).await?;
        let quota = doc!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "compute-quota" }, "spec": {
            "hard": { "requests.cpu": "1", "requests.memory": "1Gi", "limits.cpu": "2", "limits.memory": "2Gi" } } });
        self.create(self.here(RESOURCE_QUOTAS), quota).await?;
        self.until("the quota's status", RESOURCE_QUOTAS, |all| {
            all.iter().any(|q| at(q, "status.hard").len() == 4)
        })
        .await?;
        self.create(self.here(DEPLOYMENTS), deployment()).await?;
        self.until("two of three run", DEPLOYMENTS, |all| {
            let refused =
                |c: Ref<'_>| c.get(k::TYPE).str() == "ReplicaFailure" && c.get(k::STATUS).str() == "True";
            all.iter().any(|d| {
                at(d, "status.conditions").items().any(refused)
                    && at(d, "status.availableReplicas").i64() == 2
            })
        })
        .await?;
        // The condition keeps the words of the first failure, which a fault may have been.
        self.until("the third is refused for the quota", EVENTS, |all| {
            let told = |e: &Doc| {
                let message = e.get(k::MESSAGE).str();
                e.get(k::REASON).str() == "FailedCreate"
                    && message.starts_with("Error creating: pods \"web-")
                    && message.contains("exceeded quota: compute-quota")
            };
            all.iter().any(told)
        })
        .await?;
        let more = doc!({ "spec": { "hard": {
            "requests.cpu": "2", "requests.memory": "2.5Gi", "limits.cpu": "4", "limits.memory": "5Gi" } } });
        self.patch(RESOURCE_QUOTAS, "compute-quota", more).await?;
        self.until("three run", DEPLOYMENTS, |all| {
            all.iter().any(|d| at(d, "status.availableReplicas").i64() == 3)
        })
        .await?;
        let service = doc!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" }, "spec": {
            "type": "NodePort", "selector": { "app": "web" }, "ports": [{ "port": 3000, "targetPort": "nodejs-port" }] } });
        self.create(self.here(SERVICES), service).await?;
        let image = doc!({ "spec": { "template": { "spec": { "containers": [{ "name": "k8s-demo", "image": "demo:2" }] } } } });
        self.patch(DEPLOYMENTS, "web", image).await?;
        self.until("the update is complete", DEPLOYMENTS, |all| all.iter().any(is_updated)).await
    }

    async fn all_is_well(&self) -> Told {
        let up = |n: &Doc| condition(n, "Ready") == "True" && at(n, "spec.taints").is_empty();
        let count = self.world.machines.len();
        self.until_of(self.client.resource(NODES), "all nodes are ready", |all| {
            all.len() == count && all.iter().all(up)
        })
        .await?;
        self.until("the deployment is available", DEPLOYMENTS, |all| {
            let conditions = |d| at(d, "status.conditions").items();
            let is_whole = |d| {
                let complete = |c: Ref<'_>| c.get(k::REASON).str() == "NewReplicaSetAvailable";
                conditions(d).any(complete) && conditions(d).all(|c| c.get(k::STATUS).str() == "True")
            };
            all.len() == 1
                && is_updated(&all[0])
                && is_whole(&all[0])
                && condition(&all[0], "ReplicaFailure").is_empty()
        })
        .await?;
        self.until("three pods run, and only those", PODS, |all| {
            all.len() == 3 && all.iter().all(|p| condition(p, "Ready") == "True" && image_of(p) == "demo:2")
        })
        .await?;
        let mut pods = self.list(PODS).await?;
        pods.sort_by_key(|p| at(p, "status.podIP").str().to_owned());
        let ips: Vec<String> = pods.iter().map(|p| at(p, "status.podIP").str().to_owned()).collect();
        self.until("the endpoints are the ready pods", ENDPOINT_SLICES, |all| ready_addresses(all) == ips)
            .await?;
        self.until("the quota counts three", RESOURCE_QUOTAS, |all| {
            let used = at(&all[0], "status.used");
            used.get("requests.memory").str() == "1536Mi" && used.get("limits.cpu").str() == "1200m"
        })
        .await?;
        self.restarts_have_causes(&pods);
        Ok(())
    }

    /// A container starts once, and once more for each time it crashed: never because a component did.
    fn restarts_have_causes(&self, pods: &[Doc]) {
        let mut crashes: BTreeMap<String, u32> = BTreeMap::new();
        for ((uid, name), counts) in self.world.machines.iter().flat_map(|m| m.runtime.counts()) {
            if counts.starts > 1 + counts.crashes {
                let (starts, of) = (counts.starts, counts.crashes);
                self.world
                    .history
                    .accuse(format!("{name} of pod {uid} started {starts} times, crashed {of} times"));
            }
            crashes.insert(uid, counts.crashes);
        }
        for pod in pods {
            let uid = at(pod, "metadata.uid").str();
            let told = at(pod, "status.containerStatuses").item(0).get(k::RESTART_COUNT).i64();
            let was = i64::from(crashes.get(uid).copied().unwrap_or(0));
            if told > was {
                self.world.history.accuse(format!("pod {uid} tells of {told} restarts after {was} crashes"));
            }
        }
    }

    async fn falling(&self) -> Told {
        let deployments = self.here(DEPLOYMENTS);
        insist("delete the deployment", || deployments.delete("web", DeleteOptions::default())).await?;
        self.until("the sets are collected", REPLICA_SETS, <[Doc]>::is_empty).await?;
        self.until("the pods are collected", PODS, <[Doc]>::is_empty).await?;
        let namespaces = self.client.resource(NAMESPACES);
        insist("delete the namespace", || namespaces.delete(NS, DeleteOptions::default())).await
    }

    async fn nothing_is_left(&self) -> Told {
        let spaces = self.client.resource(NAMESPACES);
        self.until_of(spaces, "the namespace is gone", |all| !all.iter().any(|n| name(n) == NS)).await?;
        for gvr in [PODS, REPLICA_SETS, DEPLOYMENTS, SERVICES, ENDPOINT_SLICES, EVENTS, RESOURCE_QUOTAS] {
            let left = self.list(gvr.clone()).await?;
            if !left.is_empty() {
                return Err(format!("left in the namespace that is gone: {} {gvr}", left.len()));
            }
        }
        self.until_of(self.client.resource(IP_ADDRESSES), "one service address is taken", |all| {
            all.len() == 1
        })
        .await?;
        let mut waited = Duration::ZERO;
        while self.world.machines.iter().any(|m| !m.leftovers().is_empty()) {
            if waited > SOON {
                let left: Vec<String> = self.world.machines.iter().flat_map(|m| m.leftovers()).collect();
                return Err(format!("left on the nodes: {left:?}"));
            }
            base::time::sleep(AGAIN).await;
            waited += AGAIN;
        }
        self.restarts_have_causes(&[]);
        Ok(())
    }

    fn here(&self, gvr: Gvr) -> client::Resource {
        self.client.namespaced(gvr, NS)
    }

    async fn create(&self, resource: client::Resource, object: Doc) -> Told {
        let what = format!("create {}", resource.gvr());
        insist(&what, || {
            let (resource, object) = (resource.clone(), object.clone());
            async move { resource.create(object).await }
        })
        .await
    }

    async fn patch(&self, gvr: Gvr, name: &str, patch: Doc) -> Told {
        let resource = self.here(gvr);
        insist(&format!("patch {name}"), || resource.patch(name, PatchType::Strategic, patch.clone(), ""))
            .await
    }

    async fn list(&self, gvr: Gvr) -> Told<Vec<Doc>> {
        let list = self.here(gvr).list(Options::default()).await.map_err(|err| err.to_string())?;
        Ok(list.items.iter().map(|s| s.doc()).collect())
    }

    async fn until(&self, what: &str, gvr: Gvr, test: impl Fn(&[Doc]) -> bool) -> Told {
        self.until_of(self.here(gvr), what, test).await
    }

    /// Waits until the objects of a kind are as `test` says.
    async fn until_of(&self, resource: client::Resource, what: &str, test: impl Fn(&[Doc]) -> bool) -> Told {
        let Err(seen) = wait_for(resource, what, test).await else { return Ok(()) };
        let events = self.list(EVENTS).await.unwrap_or_default();
        let told: Vec<String> = events.iter().map(message).collect();
        Err(format!("{seen}\nevents:\n{}", told.join("\n")))
    }
}

/// Tries until it is done, or turns out to have been done.
///
/// # Errors
/// What is refused, or does not work for too long.
pub async fn insist<T, F: Future<Output = Result<T, Error>>>(what: &str, ask: impl Fn() -> F) -> Told {
    let start = base::time::instant();
    let mut tried = false;
    loop {
        match ask().await {
            Ok(_) => return Ok(()),
            Err(err) if tried && (err.is_already_exists() || err.is_not_found()) => return Ok(()),
            Err(err) if start.elapsed() > SOON => return Err(format!("{what}: {err}")),
            Err(err) if err.status().is_some_and(|s| s.code < 500 && s.code != 429 && s.code != 409) => {
                return Err(format!("{what}: {err}"));
            }
            Err(_) => {}
        }
        tried = true;
        base::time::sleep(AGAIN).await;
    }
}

/// Waits until the objects of a resource are as `test` says.
///
/// # Errors
/// What was seen in its place, when it takes too long.
pub async fn wait_for(resource: client::Resource, what: &str, test: impl Fn(&[Doc]) -> bool) -> Told {
    let (cache, _fresh) = reflector::start(resource, Selection::default(), vec![]);
    let docs = |c: &client::SharedCache| c.list().iter().map(|s| s.doc()).collect::<Vec<_>>();
    let held = cache.wait_until(|c| c.is_synced() && test(&docs(c)));
    if base::time::timeout(SOON, held).await.is_ok() {
        return Ok(());
    }
    let seen: Vec<String> = docs(&cache).iter().map(|d| format!("{:?}", d.root())).collect();
    Err(format!("not in time: {what}\n{}", seen.join("\n")))
}

/// What lies at a path in an object.
pub fn at<'a>(object: &'a Doc, path: &str) -> Ref<'a> {
    object.root().find(path)
}

fn name(object: &Doc) -> &str {
    at(object, "metadata.name").str()
}

fn message(event: &Doc) -> String {
    let object = at(event, "involvedObject.name").str();
    format!("{object} {}: {}", event.get(k::REASON).str(), event.get(k::MESSAGE).str())
}

fn condition<'a>(object: &'a Doc, kind: &str) -> &'a str {
    let conditions = at(object, "status.conditions");
    conditions.items().find(|c| c.get(k::TYPE).str() == kind).map_or("", |c| c.get(k::STATUS).str())
}

fn image_of(pod: &Doc) -> &str {
    at(pod, "spec.containers").item(0).get(k::IMAGE).str()
}

fn is_updated(d: &Doc) -> bool {
    let count = |path| at(d, path).i64();
    count("status.observedGeneration") == count("metadata.generation")
        && ["status.replicas", "status.updatedReplicas", "status.availableReplicas"]
            .iter()
            .all(|p| count(p) == 3)
        && condition(d, "Available") == "True"
}

fn ready_addresses(slices: &[Doc]) -> Vec<String> {
    let endpoints = slices.iter().flat_map(|s| s.get(k::ENDPOINTS).items());
    let ready = endpoints.filter(|e| e.get(k::CONDITIONS).get(k::READY).bool());
    let mut all: Vec<String> =
        ready.flat_map(|e| e.get(k::ADDRESSES).items()).map(|a| a.str().to_owned()).collect();
    all.sort();
    all
}
