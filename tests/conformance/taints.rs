//! node/taints.go

use std::time::Duration;

use apimachinery::{Doc, Edit, doc, k};

use crate::cluster::{Cluster, play, pod, text};

const KEY: &str = "kubernetes.io/e2e-evict-taint-key";
/// Upstream's wait for one deletion; its tests are told in multiples of it.
const STEP: Duration = Duration::from_secs(75);

/// Runs a pod on a node, which tolerates the taint for so long.
async fn run(c: &Cluster, name: &str, node: &str, tolerates: Duration) {
    let mut pod = pod(name, name);
    let toleration = doc!({ "key": KEY, "value": "evictTaintVal", "effect": "NoExecute",
        "tolerationSeconds": tolerates.as_secs() });
    let mut spec = pod.edit().at(k::SPEC);
    spec.reborrow().list(k::TOLERATIONS).push(toleration);
    spec.at(k::NODE_SELECTOR).set("kubernetes.io/hostname", node);
    c.post(&c.at("/api/v1", "pods"), &pod).await.ok();
    let pods = c.runs(name, 1).await;
    assert!(pods.values().all(|pod| text(pod, "spec.nodeName") == node));
}

async fn taint(c: &Cluster, node: &str) {
    let taint = doc!({ "key": KEY, "value": "evictTaintVal", "effect": "NoExecute" });
    let add = |node: Edit<'_>| _ = node.at(k::SPEC).list(k::TAINTS).push(&taint);
    c.update(&format!("/api/v1/nodes/{node}"), add).await;
}

/// How long after `since` the pod is told to go.
async fn evicted(c: &Cluster, name: &str, since: base::time::Instant) -> Duration {
    let going = |pod: &Doc| pod.root().find("metadata.deletionTimestamp").is_set();
    let at = c.at("/api/v1", "pods");
    let mut events = c.watch(&format!("{at}?fieldSelector=metadata.name%3D{name}")).await;
    loop {
        let event = events.next_before(since + 10 * STEP).await.expect("it is evicted");
        if going(&event.get(k::OBJECT).to_doc()) {
            return base::time::instant().duration_since(since);
        }
    }
}

#[test]
fn pods_stay_as_long_as_they_tolerate_the_taint() {
    play(|c| async move {
        run(&c, "taint-eviction-b1", "n1", STEP).await;
        run(&c, "taint-eviction-b2", "n1", 5 * STEP).await;
        taint(&c, "n1").await;
        let since = base::time::instant();
        for (name, tolerates) in [("taint-eviction-b1", STEP), ("taint-eviction-b2", 5 * STEP)] {
            let after = evicted(&c, name, since).await;
            assert!(tolerates.abs_diff(after) < Duration::from_secs(5), "{name}: {after:?}");
        }
        c.until_none(&c.at("/api/v1", "pods"), "both are gone").await;
    });
}

#[test]
fn a_taint_that_is_taken_away_evicts_nobody() {
    play(|c| async move {
        run(&c, "taint-eviction-4", "n1", 2 * STEP).await;
        taint(&c, "n1").await;
        base::time::sleep(STEP).await;
        let at = c.at("/api/v1", "pods");
        assert_eq!(c.names(&at).await, ["taint-eviction-4"]);
        c.update("/api/v1/nodes/n1", |node| {
            node.at(k::SPEC).list(k::TAINTS).retain(|t| t.get(k::KEY).str() != KEY)
        })
        .await;
        base::time::sleep(4 * STEP).await;
        let pod = c.get(&format!("{at}/taint-eviction-4")).await.ok();
        assert!(!pod.root().find("metadata.deletionTimestamp").is_set());
        c.runs("taint-eviction-4", 1).await;
    });
}
