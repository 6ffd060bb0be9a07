//! common/node/runtimeclass.go

use apimachinery::{Doc, doc};

use crate::cluster::{Cluster, assert_same, play, pod, text, with};

const CLASSES: &str = "/apis/node.k8s.io/v1/runtimeclasses";

fn pod_of(class: &str) -> Doc {
    with(pod("pod", "pod"), "spec.runtimeClassName", class)
}

async fn refused(c: &Cluster, class: &str) {
    let why = c.post(&c.at("/api/v1", "pods"), &pod_of(class)).await.fails(403);
    assert!(why.contains(&format!("pod rejected: RuntimeClass {class:?} not found")), "{why}");
    assert!(c.list(&c.at("/api/v1", "pods")).await.is_empty());
}

/// Waits until a pod of the class is placed; gives it. Whether it runs is for nodes that have such a runtime.
async fn placed(c: &Cluster, class: &Doc) -> Doc {
    c.post(CLASSES, class).await.ok();
    let at = c.at("/api/v1", "pods");
    c.post(&at, &pod_of(text(class, "metadata.name"))).await.ok();
    c.until_one(&at, "pod", "it is placed", |pod| !text(pod, "spec.nodeName").is_empty()).await
}

#[test]
fn a_class_that_never_was_is_refused() {
    play(|c| async move {
        refused(&c, "nonexistent").await;
    });
}

#[test]
fn a_class_that_is_deleted_is_refused() {
    play(|c| async move {
        c.post(CLASSES, &doc!({ "metadata": { "name": "delete-me" }, "handler": "delete-me" })).await.ok();
        c.delete(&format!("{CLASSES}/delete-me")).await.ok();
        c.until_none(&format!("{CLASSES}?fieldSelector=metadata.name%3Ddelete-me"), "it is deleted").await;
        refused(&c, "delete-me").await;
    });
}

#[test]
fn a_pod_of_a_class_is_placed() {
    play(|c| async move {
        let pod = placed(&c, &doc!({ "metadata": { "name": "plain" }, "handler": "test-handler" })).await;
        assert!(!pod.root().find("spec.overhead").exists());
        assert_eq!(text(&pod, "spec.runtimeClassName"), "plain");
    });
}

#[test]
fn a_pod_of_a_class_has_its_overhead() {
    play(|c| async move {
        let amounts = doc!({ "cpu": "10m", "memory": "1Mi" });
        let class = doc!({ "metadata": { "name": "dear" }, "handler": "test-handler" });
        let pod = placed(&c, &with(class, "overhead.podFixed", &amounts)).await;
        assert_same(pod.root().find("spec.overhead"), amounts.root());
    });
}

#[test]
fn runtime_classes_are_operated() {
    play(|c| async move {
        let class = doc!({ "metadata": { "generateName": "class-" }, "handler": "test-handler" });
        c.operates("node.k8s.io", "runtimeclasses", false, &class).await;
    });
}
