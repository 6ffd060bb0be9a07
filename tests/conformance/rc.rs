//! apps/rc.go

use apimachinery::{Doc, doc, k};

use crate::cluster::{Cluster, condition, int, play, text, with, workload};

/// A replication controller, whose selector is a plain map.
pub fn controller(name: &str, replicas: u32) -> Doc {
    with(workload(name, replicas, "pause"), "spec.selector", doc!({ "name": name }))
}

async fn make(c: &Cluster, name: &str, replicas: u32) -> String {
    let at = c.at("/api/v1", "replicationcontrollers");
    c.post(&at, &controller(name, replicas)).await.ok();
    c.runs(name, replicas as usize).await;
    at
}

#[test]
fn a_controller_adopts() {
    play(|c| async move {
        let at = c.at("/api/v1", "replicationcontrollers");
        c.adopts(&at, "pod-adoption", &controller("pod-adoption", 1)).await;
    });
}

#[test]
fn a_controller_releases() {
    play(|c| async move {
        let at = make(&c, "pod-release", 1).await;
        let controller = c.get(&format!("{at}/pod-release")).await.ok();
        c.releases("pod-release", text(&controller, "metadata.uid")).await;
    });
}

#[test]
fn a_controller_is_scaled() {
    play(|c| async move {
        let at = make(&c, "test-rc", 1).await;
        c.scales(&at, "test-rc").await;
    });
}

#[test]
fn a_controller_says_that_a_quota_stops_it() {
    play(|c| async move {
        let quotas = c.at("/api/v1", "resourcequotas");
        let quota = doc!({ "metadata": { "name": "condition-test" }, "spec": { "hard": { "pods": "2" } } });
        c.post(&quotas, &quota).await.ok();
        c.until_one(&quotas, "condition-test", "it is counted", |q| text(q, "status.hard.pods") == "2").await;
        let at = c.at("/api/v1", "replicationcontrollers");
        c.post(&at, &controller("condition-test", 3)).await.ok();
        let fails = |rc: &Doc| condition(rc, "ReplicaFailure") == "True";
        let rc = c.until_one(&at, "condition-test", "it says that it fails", fails).await;
        let said = rc.root().find("status.conditions").item(0);
        assert_eq!(said.get(k::REASON).str(), "FailedCreate");
        assert!(said.get(k::MESSAGE).str().contains("exceeded quota: condition-test"), "{said:?}");
        c.runs("condition-test", 2).await;
        c.update(&format!("{at}/condition-test"), |rc| _ = rc.at(k::SPEC).set(k::REPLICAS, 2)).await;
        let rights = |rc: &Doc| condition(rc, "ReplicaFailure").is_empty() && int(rc, "status.replicas") == 2;
        c.until_one(&at, "condition-test", "it says so no more", rights).await;
    });
}

#[test]
fn a_controller_lives() {
    play(|c| async move {
        let at = c.at("/api/v1", "replicationcontrollers");
        let (one, status) = (format!("{at}/rc-test"), format!("{at}/rc-test/status"));
        let mut events = c.watch(&format!("{at}?labelSelector=name%3Drc-test")).await;
        c.post(&at, &controller("rc-test", 1)).await.ok();
        c.sees(&mut events, "ADDED", |rc| text(rc, "metadata.name") == "rc-test").await;
        c.sees(&mut events, "MODIFIED", |rc| int(rc, "status.readyReplicas") == 1).await;

        let patch = doc!({ "metadata": { "labels": { "test-rc": "patched" } } });
        let patched = c.patch(&one, "strategic-merge", &patch).await.ok();
        assert_eq!(text(&patched, "metadata.labels.test-rc"), "patched");
        c.sees(&mut events, "MODIFIED", |rc| text(rc, "metadata.labels.test-rc") == "patched").await;

        let patch = doc!({ "status": { "readyReplicas": 0, "availableReplicas": 0 } });
        let patched = c.patch(&status, "strategic-merge", &patch).await.ok();
        assert_eq!(int(&patched, "status.readyReplicas"), 0);
        c.sees(&mut events, "MODIFIED", |rc| int(rc, "status.readyReplicas") == 0).await;
        assert_eq!(int(&c.get(&status).await.ok(), "spec.replicas"), 1);
        c.sees(&mut events, "MODIFIED", |rc| int(rc, "status.readyReplicas") == 1).await;

        c.patch(&format!("{one}/scale"), "strategic-merge", &doc!({ "spec": { "replicas": 2 } })).await.ok();
        c.sees(&mut events, "MODIFIED", |rc| int(rc, "spec.replicas") == 2).await;
        c.sees(&mut events, "MODIFIED", |rc| int(rc, "status.readyReplicas") == 2).await;

        let found = c.list("/api/v1/replicationcontrollers?labelSelector=test-rc%3Dpatched").await;
        assert!(found.len() == 1 && text(&found[0], "metadata.name") == "rc-test");
        c.update(&one, |rc| _ = rc.at(k::METADATA).at(k::ANNOTATIONS).set("updated", "true")).await;
        let read = c.get(&one).await.ok();
        assert_eq!((text(&read, "metadata.annotations.updated"), int(&read, "spec.replicas")), ("true", 2));

        c.delete(&format!("{at}?labelSelector=name%3Drc-test")).await.ok();
        c.sees(&mut events, "DELETED", |rc| text(rc, "metadata.name") == "rc-test").await;
        c.get(&one).await.fails(404);
    });
}
