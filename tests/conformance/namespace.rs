//! apimachinery/namespace.go

use apimachinery::{Doc, doc, k};

use crate::cluster::{condition, play};

const NAMESPACES: &str = "/api/v1/namespaces";

fn pod(name: &str) -> Doc {
    doc!({ "metadata": { "name": name }, "spec": { "containers": [{ "name": "c", "image": "pause" }] } })
}

fn service(name: &str) -> Doc {
    doc!({ "metadata": { "name": name }, "spec": { "selector": { "a": "b" }, "ports": [{ "port": 80 }] } })
}

#[test]
fn a_namespace_takes_its_pods_along() {
    play(|c| async move {
        c.namespace("short-lived").await;
        let pods = format!("{NAMESPACES}/short-lived/pods");
        c.post(&pods, &pod("one")).await.ok();
        c.until_one(&pods, "one", "the pod runs", |pod| condition(pod, "Ready") == "True").await;
        c.delete(&format!("{NAMESPACES}/short-lived")).await.ok();
        c.until_none(&format!("{NAMESPACES}?fieldSelector=metadata.name%3Dshort-lived"), "it is gone").await;
        c.namespace("short-lived").await;
        c.get(&format!("{pods}/one")).await.fails(404);
        assert!(c.get(&pods).await.ok().get(k::ITEMS).is_empty());
    });
}

#[test]
fn a_namespace_takes_its_services_along() {
    play(|c| async move {
        c.namespace("short-lived").await;
        let services = format!("{NAMESPACES}/short-lived/services");
        c.post(&services, &service("one")).await.ok();
        c.delete(&format!("{NAMESPACES}/short-lived")).await.ok();
        c.until_none(&format!("{NAMESPACES}?fieldSelector=metadata.name%3Dshort-lived"), "it is gone").await;
        c.namespace("short-lived").await;
        c.get(&format!("{services}/one")).await.fails(404);
        assert!(c.get(&services).await.ok().get(k::ITEMS).is_empty());
    });
}
