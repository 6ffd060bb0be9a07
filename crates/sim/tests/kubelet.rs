//! A pod's whole life under a kubelet that dies now and then, with a whole control plane around it.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use apimachinery::{Doc, Gvr, doc, k};
use client::gvr::{CONFIG_MAPS, EVENTS, NODES, PODS, SERVICE_ACCOUNTS};
use client::reflector::{self, Selection};
use client::{DeleteOptions, PatchType, Resource};
use sim::history::Line;
use sim::world::World;

/// Virtual time within which whatever is waited for must come.
const SOON: Duration = Duration::from_secs(3600);

struct Node(World);

impl Node {
    /// A cluster of one node that is ready for pods, with the settings that they ask for if `settled`.
    async fn start(settled: bool) -> Node {
        let node = Node(World::new(1));
        node.until(NODES, |all| all.iter().any(|n| condition(n, "Ready"))).await;
        node.until(SERVICE_ACCOUNTS, |all| !all.is_empty()).await;
        if settled {
            node.settle().await;
        }
        node
    }

    async fn settle(&self) {
        let settings = doc!({ "metadata": { "name": "settings" }, "data": { "a": "1" } });
        self.all(CONFIG_MAPS).create(settings).await.unwrap();
    }

    fn all(&self, gvr: Gvr) -> Resource {
        let namespace = if gvr == NODES { "" } else { "default" };
        self.0.admin().namespaced(gvr, namespace)
    }

    fn restart(&self) {
        assert!(self.0.end_kubelet(0));
        self.0.start_kubelet(0);
    }

    async fn pod(&self, name: &str, cpu: &str) {
        let pod = doc!({ "metadata": { "name": name }, "spec": { "nodeName": "n1", "containers": [{ "name": "web", "image": "demo",
            "resources": { "requests": { "cpu": cpu } },
            "readinessProbe": { "httpGet": { "port": 3000 }, "periodSeconds": 10 } }],
            "volumes": [{ "name": "c", "configMap": { "name": "settings" } }] } });
        self.all(PODS).create(pod).await.unwrap();
    }

    async fn until(&self, gvr: Gvr, test: impl Fn(&[Doc]) -> bool) {
        let (cache, _fresh) = reflector::start(self.all(gvr.clone()), Selection::default(), vec![]);
        let docs = |c: &client::SharedCache| c.list().iter().map(|s| s.doc()).collect::<Vec<_>>();
        let held = cache.wait_until(|c| c.is_synced() && test(&docs(c)));
        let held = base::time::timeout(SOON, held).await;
        assert!(held.is_ok(), "not in time: {gvr} {:#?}", docs(&cache));
    }

    async fn until_pod(&self, name: &str, test: impl Fn(&Doc) -> bool) {
        let named = |pod: &&Doc| pod.root().find("metadata.name").str() == name;
        self.until(PODS, |all| all.iter().find(named).is_some_and(&test)).await;
    }

    async fn until_gone(&self, name: &str) {
        let named = |pod: &Doc| pod.root().find("metadata.name").str() == name;
        self.until(PODS, |all| !all.iter().any(named)).await;
    }

    async fn until_event(&self, reason: &str) {
        self.until(EVENTS, |all| all.iter().any(|e| e.get(k::REASON).str() == reason)).await;
    }

    /// What was written of pods and nodes.
    fn writes(&self) -> Vec<Line> {
        let of = |key: &str| key.starts_with("/registry/pods/") || key.starts_with("/registry/minions/");
        self.0.history.lines().into_iter().filter(|(_, key, _)| of(key)).collect()
    }

    async fn end(self) -> Vec<Line> {
        self.0.machines[0].runtime.until_empty().await;
        assert_eq!(self.0.history.broken(), [""; 0]);
        self.0.history.lines()
    }
}

fn condition(object: &Doc, kind: &str) -> bool {
    let conditions = object.get(k::STATUS).get(k::CONDITIONS);
    conditions.items().any(|c| c.get(k::TYPE).str() == kind && c.get(k::STATUS).str() == "True")
}

fn is_ready(pod: &Doc) -> bool {
    condition(pod, "Ready") && pod.root().find("status.phase").str() == "Running"
}

fn restarts(pod: &Doc) -> i64 {
    pod.root().find("status.containerStatuses").item(0).get(k::RESTART_COUNT).i64()
}

async fn life() -> Vec<Line> {
    let node = Node::start(false).await;
    let runtime = node.0.machines[0].runtime.clone();
    // The pod waits for its ConfigMap, then runs.
    node.pod("web", "100m").await;
    node.until_event("FailedMount").await;
    node.settle().await;
    node.until_pod("web", is_ready).await;
    // A restart of the kubelet touches nothing that runs, and writes nothing.
    base::time::sleep(Duration::from_secs(10)).await;
    let (starts, writes) = (runtime.counts()[0].1.starts, node.writes());
    node.restart();
    base::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((runtime.counts()[0].1.starts, node.writes()), (starts, writes));
    // What ends is started again.
    runtime.exit("web", 1);
    node.until_pod("web", |pod| restarts(pod) == 1 && is_ready(pod)).await;
    // What comes to a pod that runs and is not built is told, and the pod goes on.
    let debug = doc!({ "spec": { "ephemeralContainers": [{ "name": "debug", "image": "demo",
        "securityContext": { "seLinuxOptions": { "level": "s0" } } }] } });
    node.all(PODS).patch("web", PatchType::Strategic, debug, "ephemeralcontainers").await.unwrap();
    node.until_event("UnsupportedPodField").await;
    // Too large for the node.
    node.pod("large", "64").await;
    node.until_pod("large", |pod| {
        (pod.root().find("status.phase").str(), pod.root().find("status.reason").str())
            == ("Failed", "OutOfcpu")
    })
    .await;
    // Deleted: it goes once its containers have.
    node.all(PODS).delete("web", DeleteOptions::default()).await.unwrap();
    node.until_gone("web").await;
    assert_eq!(runtime.leftovers(), [""; 0]);
    // A pod that vanishes while nobody looks leaves an orphan, which the next start removes.
    node.pod("other", "100m").await;
    node.until_pod("other", is_ready).await;
    node.0.end_kubelet(0);
    let now = DeleteOptions { grace: Some(0), ..DeleteOptions::default() };
    node.all(PODS).delete("other", now).await.unwrap();
    node.until_gone("other").await;
    node.0.start_kubelet(0);
    node.end().await
}

#[test]
fn a_pods_whole_life() {
    assert_eq!(base::sim::run(7, life()), base::sim::run(7, life()), "one seed gives one history");
}

#[test]
fn a_container_that_ends_before_it_is_known_to_run() {
    base::sim::run(3, async {
        let node = Node::start(true).await;
        node.0.machines[0].runtime.end_early(2);
        node.pod("web", "100m").await;
        // Both ends are seen: the second restart waits its turn, then it runs.
        node.until_pod("web", |pod| restarts(pod) == 2 && is_ready(pod)).await;
        node.until_event("BackOff").await;
    });
}

/// The kubelet dies at any moment, again and again; what it began comes to its end all the same.
async fn crashes() {
    let node = Node::start(true).await;
    for name in ["a", "b"] {
        node.pod(name, "100m").await;
    }
    for _ in 0..8 {
        base::time::sleep(Duration::from_millis(base::rand::below(300))).await;
        node.restart();
    }
    for name in ["a", "b"] {
        node.until_pod(name, is_ready).await;
        node.all(PODS).delete(name, DeleteOptions::default()).await.unwrap();
    }
    for _ in 0..8 {
        base::time::sleep(Duration::from_millis(base::rand::below(400))).await;
        node.restart();
    }
    for name in ["a", "b"] {
        node.until_gone(name).await;
    }
    node.end().await;
}

#[test]
fn crashes_at_any_moment() {
    (0..10).for_each(|seed| base::sim::run(seed, crashes()));
}
