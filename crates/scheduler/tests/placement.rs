//! The scheduler over the real API server, in process and in virtual time, with nothing but its own rights.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use apimachinery::call::{Options, Transport, User};
use apimachinery::{Doc, Gvr, doc, k};
use apiserver::LocalTransport;
use apiserver::authorization::rbac::Rbac;
use client::gvr::{EVENTS, NODES, PODS, SERVICE_ACCOUNTS};
use client::reflector::{self, Selection};
use client::{Client, DeleteOptions};
use storage::sim::SimDisk;

/// Virtual time within which whatever is waited for must come.
const SOON: Duration = Duration::from_secs(30);

struct World {
    client: Client,
    _scheduler: base::task::Task<std::convert::Infallible>,
}

async fn start() -> World {
    let disk = SimDisk::new(Duration::from_millis(1));
    let api = harness::api(&disk, |cacher| vec![Box::new(Rbac::new(cacher))]).await;
    let transport: Arc<dyn Transport> = Arc::new(LocalTransport::new(api));
    let client = Client::component(transport.clone(), User::new("admin", &["system:masters"]));
    bootstrap::objects::ensure(&client, Vec::new(), None).await.unwrap();
    let account = doc!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" } });
    client.namespaced(SERVICE_ACCOUNTS, "default").create(account).await.unwrap();
    let scheduler = Client::component(transport, scheduler::user());
    let scheduler = base::task::spawn(scheduler::run(scheduler, scheduler::Config::default()));
    World { client, _scheduler: scheduler }
}

impl World {
    async fn node(&self, name: &str, memory: &str) {
        let amounts = doc!({ "cpu": "2", "memory": memory, "pods": "110" });
        let mut node = doc!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name } });
        node.edit().at(k::STATUS).set(k::CAPACITY, &amounts).set(k::ALLOCATABLE, &amounts);
        self.client.resource(NODES).create(node).await.unwrap();
    }

    async fn pod(&self, name: &str, memory: &str, more: Doc) {
        let mut pod = doc!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
            "spec": { "containers": [{ "name": "c", "image": "demo:1",
                "resources": { "requests": { "cpu": "100m", "memory": memory } } }] } });
        for (key, value) in more.root().entries() {
            pod.edit().at(k::SPEC).set(key, value);
        }
        self.client.namespaced(PODS, "default").create(pod).await.unwrap();
    }

    async fn until(&self, gvr: Gvr, test: impl Fn(&[Doc]) -> bool) {
        let resource = self.client.namespaced(gvr, "default");
        let (cache, _fresh) = reflector::start(resource, Selection::default(), vec![]);
        let docs = |c: &client::SharedCache| c.list().iter().map(|s| s.doc()).collect::<Vec<_>>();
        let held = cache.wait_until(|c| c.is_synced() && test(&docs(c)));
        if base::time::timeout(SOON, held).await.is_err() {
            panic!(
                "not in time: {:#?}",
                docs(&cache).iter().map(|d| format!("{:?}", d.root())).collect::<Vec<_>>()
            );
        }
    }

    async fn until_on(&self, pod: &str, node: &str) {
        self.until(PODS, |all| {
            let pod = all.iter().find(|p| p.root().find("metadata.name").str() == pod).unwrap();
            let condition = condition(pod);
            pod.root().find("spec.nodeName").str() == node && condition.starts_with("True")
        })
        .await;
    }

    async fn until_pending(&self, pod: &str, why: &str) {
        self.until(PODS, |all| {
            let pod = all.iter().find(|p| p.root().find("metadata.name").str() == pod).unwrap();
            condition(pod) == format!("False Unschedulable: {why}")
        })
        .await;
        self.until_event(pod, "FailedScheduling", why).await;
    }

    async fn until_event(&self, pod: &str, reason: &str, message: &str) {
        self.until(EVENTS, |all| {
            all.iter().any(|e| {
                e.root().find("involvedObject.name").str() == pod
                    && e.root().find("source.component").str() == "default-scheduler"
                    && e.get(k::REASON).str() == reason
                    && e.get(k::MESSAGE).str() == message
            })
        })
        .await;
    }
}

fn condition(pod: &Doc) -> String {
    let conditions = pod.root().find("status.conditions");
    let c = conditions.items().find(|c| c.get(k::TYPE).str() == "PodScheduled").unwrap_or_default();
    format!("{} {}: {}", c.get(k::STATUS).str(), c.get(k::REASON).str(), c.get(k::MESSAGE).str())
}

async fn story() -> u64 {
    let w = start().await;
    w.pod("a", "1Gi", doc!({})).await;
    w.until_pending("a", "no nodes available to schedule pods").await;
    w.node("small", "512Mi").await;
    w.until_pending("a", "0/1 nodes are available: 1 Insufficient memory.").await;
    w.node("big", "2Gi").await;
    w.until_on("a", "big").await;
    w.until_event("a", "Scheduled", "Successfully assigned default/a to big").await;
    // A pod that finds its room only when another goes.
    w.pod("b", "1Gi", doc!({})).await;
    w.until_on("b", "big").await;
    w.pod("c", "1Gi", doc!({})).await;
    w.until_pending("c", "0/2 nodes are available: 2 Insufficient memory.").await;
    let now = DeleteOptions { grace: Some(0), ..DeleteOptions::default() };
    w.client.namespaced(PODS, "default").delete("a", now).await.unwrap();
    w.until_on("c", "big").await;
    // What is not understood is refused by name; what is another scheduler's is left alone.
    w.pod("d", "1Mi", doc!({ "schedulerName": "mine" })).await;
    let spread = doc!({ "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
        { "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { "a": "b" } } },
    ] } } });
    w.pod("e", "1Mi", spread).await;
    let why = "0/2 nodes are available: this scheduler does not support spec.affinity.podAntiAffinity.";
    w.until_pending("e", why).await;
    let d = w.client.namespaced(PODS, "default").get("d").await.unwrap().doc();
    assert_eq!((d.root().find("spec.nodeName").str(), condition(&d).as_str()), ("", " : "));
    w.client.resource(EVENTS).list(Options::default()).await.unwrap().revision
}

#[test]
fn pods_get_their_nodes_and_the_same_ones_each_time() {
    for seed in 1..4 {
        let first = base::sim::run(seed, story());
        assert_eq!(first, base::sim::run(seed, story()), "seed {seed}");
    }
}
