//! apps/replica_set.go

use apimachinery::doc;

use crate::cluster::{Cluster, int, play, text, workload};

const GROUP: &str = "/apis/apps/v1";

async fn make(c: &Cluster, name: &str, replicas: u32) -> String {
    let at = c.at(GROUP, "replicasets");
    c.post(&at, &workload(name, replicas, "pause")).await.ok();
    c.runs(name, replicas as usize).await;
    at
}

#[test]
fn a_replica_set_adopts_and_releases() {
    play(|c| async move {
        let at = c.at(GROUP, "replicasets");
        let uid = c.adopts(&at, "pod-adoption-release", &workload("pod-adoption-release", 1, "pause")).await;
        c.releases("pod-adoption-release", &uid).await;
    });
}

#[test]
fn a_replica_set_is_scaled() {
    play(|c| async move {
        let at = make(&c, "test-rs", 1).await;
        c.scales(&at, "test-rs").await;
    });
}

#[test]
fn a_replica_set_is_replaced_and_patched() {
    play(|c| async move {
        let at = make(&c, "test-rs", 1).await;
        let one = format!("{at}/test-rs");
        c.update(&one, |rs| _ = rs.at("spec").set("replicas", 2)).await;
        c.runs("test-rs", 2).await;
        let scaled = |rs: &apimachinery::Doc| int(rs, "status.readyReplicas") == 2;
        c.until_one(&at, "test-rs", "two are counted", scaled).await;
        let patch = doc!({ "metadata": { "labels": { "test-rs": "patched" } }, "spec": { "replicas": 3, "template": {
            "spec": { "terminationGracePeriodSeconds": 0, "containers": [{ "name": "c", "image": "pause:2" }] } } } });
        c.patch(&one, "strategic-merge", &patch).await.ok();
        let patched = |rs: &apimachinery::Doc| {
            text(rs, "metadata.labels.test-rs") == "patched" && int(rs, "status.readyReplicas") == 3
        };
        let rs = c.until_one(&at, "test-rs", "it is patched", patched).await;
        assert_eq!(int(&rs, "spec.template.spec.terminationGracePeriodSeconds"), 0);
        let containers = rs.root().find("spec.template.spec.containers");
        assert_eq!((containers.len(), containers.item(0).get("image").str()), (1, "pause:2"));
        c.runs("test-rs", 3).await;
    });
}

#[test]
fn replica_sets_are_listed_and_deleted_together() {
    play(|c| async move {
        let at = make(&c, "test-rs", 3).await;
        let selected = format!("{at}?labelSelector=name%3Dtest-rs");
        assert_eq!(c.names(&selected).await, ["test-rs"]);
        c.delete(&selected).await.ok();
        c.until_none(&selected, "they are deleted").await;
    });
}

#[test]
fn a_replica_set_has_a_status_that_can_be_written() {
    play(|c| async move {
        let at = make(&c, "test-rs", 1).await;
        c.has_status(&at, "test-rs").await;
    });
}
