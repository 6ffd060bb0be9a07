//! The kubelet's core in virtual time: a pod's whole life over a small API and a runtime that only pretends.
#![allow(clippy::unwrap_used)]

mod api;
mod fakes;

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Doc, doc, k};
use kubelet::{Config, Doors, Kubelet};

use api::Api;
use fakes::{FakeFiles, FakeMachine, FakeNetwork, FakeProber, FakeRuntime};

/// Nothing here takes longer, in virtual time.
const LIMIT: Duration = Duration::from_secs(3600);

struct World {
    api: Arc<Api>,
    runtime: Arc<FakeRuntime>,
    doors: Doors,
}

impl World {
    fn new() -> World {
        let runtime = Arc::new(FakeRuntime::default());
        let doors = Doors {
            runtime: runtime.clone(),
            images: runtime.clone(),
            network: Arc::new(FakeNetwork::default()),
            files: Arc::new(FakeFiles),
            machine: Arc::new(FakeMachine),
            prober: Arc::new(FakeProber),
        };
        World { api: Arc::new(Api::default()), runtime, doors }
    }

    fn kubelet(&self) -> base::task::Task<()> {
        let client = client::Client::new(self.api.clone(), Default::default());
        base::task::spawn(Kubelet::run(Config::new("n1"), client, self.doors.clone()))
    }

    /// Registers the node and gives it a range of pod addresses, as the controllers would.
    async fn node(&self) {
        self.api.until("nodes", "", "n1", |node| node.is_some()).await;
        self.api.edit("nodes", "", "n1", |node| {
            node.edit().at(k::SPEC).list(k::POD_CIDRS).push("10.1.0.0/24");
        });
        let ready = |node: Option<&Doc>| condition(node, "Ready") == "True";
        self.api.until("nodes", "", "n1", ready).await;
    }

    async fn pod(&self, name: &str, spec: Doc) {
        let mut pod = doc!({ "metadata": { "name": name, "namespace": "ns" }, "status": { "phase": "Pending", "qosClass": "Burstable" } });
        pod.edit().set(k::SPEC, spec);
        pod.edit().at(k::SPEC).set(k::NODE_NAME, "n1");
        self.api.add("pods", "ns", name, pod);
    }

    async fn until(&self, name: &str, test: impl Fn(&Doc) -> bool) -> Doc {
        self.api.until("pods", "ns", name, |pod| pod.is_some_and(&test)).await.expect("the test has seen it")
    }
}

fn condition(object: Option<&Doc>, kind: &str) -> String {
    let conditions = object.map(|o| o.get(k::STATUS).get(k::CONDITIONS));
    let found = conditions.and_then(|c| c.items().find(|c| c.get(k::TYPE).str() == kind));
    found.map_or_else(String::new, |c| c.get(k::STATUS).str().to_owned())
}

fn phase(pod: &Doc) -> &str {
    pod.get(k::STATUS).get(k::PHASE).str()
}

fn in_virtual_time<T>(seed: u64, story: impl Future<Output = T>) -> T {
    base::sim::run(seed, async { base::time::timeout(LIMIT, story).await.expect("the story ends in time") })
}

fn web() -> Doc {
    doc!({ "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "serviceAccountName": "default", "containers": [{ "name": "web", "image": "demo",
        "imagePullPolicy": "Always", "resources": { "requests": { "cpu": "100m" } }, "terminationMessagePath": "/dev/termination-log",
        "readinessProbe": { "httpGet": { "port": 3000 }, "periodSeconds": 10 } }],
        "volumes": [{ "name": "c", "configMap": { "name": "settings" } }] })
}

async fn story() -> Vec<String> {
    let world = World::new();
    let kubelet = world.kubelet();
    world.node().await;
    // The pod waits for its ConfigMap, then runs.
    world.pod("web", web()).await;
    world.api.event("FailedMount").await;
    world.api.add(
        "configmaps",
        "ns",
        "settings",
        doc!({ "metadata": { "name": "settings", "namespace": "ns" }, "data": { "a": "1" } }),
    );
    let pod = world.until("web", |pod| condition(Some(pod), "Ready") == "True").await;
    assert_eq!(phase(&pod), "Running");
    assert_eq!(pod.root().find("status.podIP").str(), "10.1.0.2");
    // A restart of the kubelet touches nothing that runs.
    let before = world.runtime.starts();
    let writes = world.api.writes().len();
    drop(kubelet);
    let kubelet = world.kubelet();
    base::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.runtime.starts(), before);
    let written = world.api.writes();
    let pod_writes = written[writes..].iter().filter(|w| w.contains("pods")).count();
    assert_eq!(pod_writes, 0, "a restart writes nothing about pods that go on: {:?}", &written[writes..]);
    assert!(!written[writes..].iter().any(|w| w.contains("nodes/status")), "nor about the node");
    // What ends is started again, at once the first time.
    world.runtime.exit("web", 1);
    let restarted =
        |pod: &Doc| pod.root().find("status.containerStatuses").item(0).get(k::RESTART_COUNT).i64() == 1;
    world.until("web", |pod| restarted(pod) && condition(Some(pod), "Ready") == "True").await;
    // What comes to a pod that runs and is not built is told, and the pod goes on.
    world.api.edit("pods", "ns", "web", |pod| {
        let debug = doc!({ "name": "debug", "image": "demo", "securityContext": { "seLinuxOptions": { "level": "s0" } } });
        pod.edit().at(k::SPEC).list(k::EPHEMERAL_CONTAINERS).push(debug);
    });
    world.api.event("UnsupportedPodField").await;
    // Too large for the node.
    let mut large = web();
    large.edit().at(k::CONTAINERS).item(0).expect("one").at(k::RESOURCES).at(k::REQUESTS).set("cpu", "64");
    world.pod("large", large).await;
    let refused = world.until("large", |pod| phase(pod) == "Failed").await;
    assert_eq!(refused.root().find("status.reason").str(), "OutOfcpu");
    // Deleted: it goes once its containers have, and its name is free again.
    world.api.edit("pods", "ns", "web", |pod| {
        let mut meta = pod.edit().at(k::METADATA);
        meta.set(k::DELETION_TIMESTAMP, "2026-01-01T01:00:00Z").set(k::DELETION_GRACE_PERIOD_SECONDS, 30i64);
    });
    world.api.until("pods", "ns", "web", |pod| pod.is_none()).await;
    assert_eq!(world.runtime.left(), 0, "nothing is left behind");
    // A pod that vanishes while nobody looks leaves an orphan, which the next start removes.
    world.pod("other", web()).await;
    world.until("other", |pod| condition(Some(pod), "Ready") == "True").await;
    drop(kubelet);
    world.api.remove("pods", "ns", "other");
    let _kubelet = world.kubelet();
    world.runtime.until_empty().await;
    world.api.writes()
}

#[test]
fn a_pods_whole_life() {
    let first = in_virtual_time(7, story());
    let second = in_virtual_time(7, story());
    assert_eq!(first, second, "one seed gives one history");
    assert!(first.iter().any(|w| w == "delete pods ns/web"), "{first:#?}");
}

async fn short_lives() {
    let world = World::new();
    let _kubelet = world.kubelet();
    world.node().await;
    world.api.add(
        "configmaps",
        "ns",
        "settings",
        doc!({ "metadata": { "name": "settings", "namespace": "ns" } }),
    );
    world.runtime.end_early(2);
    world.pod("web", web()).await;
    // Both ends are seen: the second restart waits its turn, then it runs.
    let count = |pod: &Doc| pod.root().find("status.containerStatuses").item(0).get(k::RESTART_COUNT).i64();
    world.until("web", |pod| count(pod) == 2 && condition(Some(pod), "Ready") == "True").await;
    world.api.event("BackOff").await;
}

#[test]
fn a_container_that_ends_before_it_is_known_to_run() {
    in_virtual_time(3, short_lives());
}

/// The kubelet dies at any moment, again and again; what it began comes to its end all the same.
async fn crashes() -> Vec<String> {
    let world = World::new();
    let first = world.kubelet();
    world.node().await;
    world.api.add(
        "configmaps",
        "ns",
        "settings",
        doc!({ "metadata": { "name": "settings", "namespace": "ns" } }),
    );
    world.pod("a", web()).await;
    world.pod("b", web()).await;
    let mut kubelet = first;
    for _ in 0..8 {
        base::time::sleep(Duration::from_millis(base::rand::below(60))).await;
        drop(kubelet);
        kubelet = world.kubelet();
    }
    for name in ["a", "b"] {
        world.until(name, |pod| condition(Some(pod), "Ready") == "True").await;
    }
    for name in ["a", "b"] {
        world.api.edit("pods", "ns", name, |pod| {
            let mut meta = pod.edit().at(k::METADATA);
            meta.set(k::DELETION_TIMESTAMP, "2026-01-01T01:00:00Z")
                .set(k::DELETION_GRACE_PERIOD_SECONDS, 30i64);
        });
    }
    for _ in 0..8 {
        base::time::sleep(Duration::from_millis(base::rand::below(400))).await;
        drop(kubelet);
        kubelet = world.kubelet();
    }
    for name in ["a", "b"] {
        world.api.until("pods", "ns", name, |pod| pod.is_none()).await;
    }
    world.runtime.until_empty().await;
    world.api.writes()
}

#[test]
fn crashes_at_any_moment() {
    for seed in 0..40 {
        let first = in_virtual_time(seed, crashes());
        if seed % 20 == 0 {
            assert_eq!(first, in_virtual_time(seed, crashes()), "seed {seed} gives one history");
        }
    }
}
