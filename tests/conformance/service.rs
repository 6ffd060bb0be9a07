//! network/service.go

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::{Doc, Edit, doc, k};

use crate::cluster::{Cluster, assert_same, play, pod, text};

#[test]
fn there_is_the_master_service() {
    play(|c| async move {
        let service = c.get("/api/v1/namespaces/default/services/kubernetes").await.ok();
        assert_eq!(service.root().find("spec.ports").item(0).get(k::PORT).i64(), 443);
        assert_eq!(text(&service, "spec.clusterIP"), "10.96.0.1");
    });
}

#[test]
fn services_of_all_namespaces_are_listed() {
    play(|c| async move {
        let all = c.list("/api/v1/services").await;
        let is =
            |s: &&Doc| text(s, "metadata.name") == "kubernetes" && text(s, "metadata.namespace") == "default";
        assert_eq!(all.iter().filter(is).count(), 1);
    });
}

#[test]
fn services_are_deleted_together() {
    play(|c| async move {
        let at = c.at("/api/v1", "services");
        for (name, label) in [("one", "some"), ("two", "other"), ("three", "some")] {
            let service = doc!({ "metadata": { "name": name, "labels": { "e2e": label } },
                "spec": { "ports": [{ "name": "http", "protocol": "TCP", "port": 80, "targetPort": 80 }] } });
            c.post(&at, &service).await.ok();
        }
        assert_eq!(c.list(&at).await.len(), 3);
        c.delete(&format!("{at}?labelSelector=e2e%3Dsome")).await.ok();
        assert_eq!(c.names(&at).await, ["two"]);
    });
}

#[test]
fn a_service_has_a_status_that_can_be_written() {
    play(|c| async move {
        let at = c.at("/api/v1", "services");
        let (one, status) = (format!("{at}/service"), format!("{at}/service/status"));
        let mut events = c.watch(&format!("{at}?labelSelector=static%3Dtrue")).await;
        let service = doc!({ "metadata": { "name": "service", "labels": { "static": "true" } }, "spec": {
            "type": "LoadBalancer", "ports": [{ "name": "http", "protocol": "TCP", "port": 80, "targetPort": 80 }] } });
        c.post(&at, &service).await.ok();
        c.sees(&mut events, "ADDED", |s| text(s, "metadata.name") == "service").await;

        let read = c.get(&status).await.ok();
        assert_eq!(text(&read, "kind"), "Service");
        assert!(read.root().find("status.loadBalancer").is_object());

        let patch = doc!({ "metadata": { "annotations": { "patchedstatus": "true" } },
            "status": { "loadBalancer": { "ingress": [{ "ip": "203.0.113.1" }] } } });
        let patched = c.patch(&status, "merge", &patch).await.ok();
        assert_eq!(text(&patched, "metadata.annotations.patchedstatus"), "true");
        c.sees(&mut events, "MODIFIED", |s| {
            text(s, "metadata.annotations.patchedstatus") == "true"
                && s.root().find("status.loadBalancer.ingress").item(0).get(k::IP).str() == "203.0.113.1"
        })
        .await;

        let condition = doc!({ "type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from a test",
            "lastTransitionTime": "2026-01-02T03:04:05Z" });
        let append = |service: Edit<'_>| _ = service.at(k::STATUS).list(k::CONDITIONS).push(&condition);
        let updated = c.update(&status, append).await;
        assert_same(updated.root().find("status.conditions").item(0), condition.root());
        c.sees(&mut events, "MODIFIED", |s| {
            s.root().find("status.conditions").item(0).same(condition.root())
        })
        .await;

        let patch = doc!({ "metadata": { "labels": { "service": "patched" } } });
        let patched = c.patch(&one, "strategic-merge", &patch).await.ok();
        assert_eq!(text(&patched, "metadata.labels.service"), "patched");
        assert_same(patched.get(k::STATUS), updated.get(k::STATUS));
        c.sees(&mut events, "MODIFIED", |s| text(s, "metadata.labels.service") == "patched").await;

        c.delete(&one).await.ok();
        c.sees(&mut events, "DELETED", |s| text(s, "metadata.name") == "service").await;
    });
}

#[test]
fn endpoints_live() {
    play(|c| async move {
        let at = c.at("/api/v1", "endpoints");
        let one = format!("{at}/endpoint");
        let mut events = c.watch(&format!("{at}?labelSelector=static%3Dtrue")).await;
        let made = doc!({ "metadata": { "name": "endpoint", "labels": { "static": "true" } }, "subsets": [{
            "addresses": [{ "ip": "10.0.0.24" }], "ports": [{ "name": "http", "port": 80, "protocol": "TCP" }] }] });
        c.post(&at, &made).await.ok();
        c.sees(&mut events, "ADDED", |e| text(e, "metadata.name") == "endpoint").await;
        let found = c.list("/api/v1/endpoints?labelSelector=static%3Dtrue").await;
        assert!(found.len() == 1 && text(&found[0], "metadata.name") == "endpoint");
        assert_same(found[0].get("subsets"), made.get("subsets"));

        c.update(&one, |e| _ = e.at(k::METADATA).at(k::LABELS).set("test-service", "updated")).await;
        c.sees(&mut events, "MODIFIED", |e| text(e, "metadata.labels.test-service") == "updated").await;
        assert_eq!(text(&c.get(&one).await.ok(), "metadata.labels.test-service"), "updated");

        let subsets = doc!([{ "addresses": [{ "ip": "10.0.0.25" }],
            "ports": [{ "name": "http-test", "port": 8080, "protocol": "TCP" }] }]);
        let mut patch = doc!({ "metadata": { "labels": { "test-service": "patched" } } });
        patch.edit().set("subsets", &subsets);
        c.patch(&one, "strategic-merge", &patch).await.ok();
        let patched =
            c.sees(&mut events, "MODIFIED", |e| text(e, "metadata.labels.test-service") == "patched").await;
        assert_same(patched.get("subsets"), subsets.root());
        assert_same(c.get(&one).await.ok().get("subsets"), subsets.root());

        c.delete(&format!("{at}?labelSelector=static%3Dtrue")).await.ok();
        c.sees(&mut events, "DELETED", |e| text(e, "metadata.name") == "endpoint").await;
        c.get(&one).await.fails(404);
    });
}

/// Waits until the Endpoints of a Service are these ports by pod, and no others.
async fn endpoints_are(c: &Cluster, service: &str, wanted: &[(&str, &[i64])]) {
    let wanted: BTreeMap<String, BTreeSet<i64>> =
        wanted.iter().map(|(pod, ports)| ((*pod).to_owned(), ports.iter().copied().collect())).collect();
    let found = |endpoints: &Doc| -> BTreeMap<String, BTreeSet<i64>> {
        let mut out: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
        for subset in endpoints.get("subsets").items() {
            for address in subset.get(k::ADDRESSES).items() {
                let ports = subset.get(k::PORTS).items().map(|p| p.get(k::PORT).i64());
                out.entry(address.find("targetRef.name").str().to_owned()).or_default().extend(ports);
            }
        }
        out
    };
    let what = format!("endpoints are {wanted:?}");
    c.until_one(&c.at("/api/v1", "endpoints"), service, &what, |e| found(e) == wanted).await;
}

async fn make_pod(c: &Cluster, name: &str, label: &str, ports: &Doc) {
    let mut pod = pod(name, label);
    pod.edit().at(k::SPEC).list(k::CONTAINERS).for_each(|mut c| _ = c.set(k::PORTS, ports));
    c.post(&c.at("/api/v1", "pods"), &pod).await.ok();
}

#[test]
fn the_endpoints_of_a_service_follow_its_pods() {
    play(|c| async move {
        let service = doc!({ "metadata": { "name": "endpoint-test2" }, "spec": { "selector": { "name": "endpoint-test2" },
            "ports": [{ "port": 80, "targetPort": 80 }] } });
        c.post(&c.at("/api/v1", "services"), &service).await.ok();
        endpoints_are(&c, "endpoint-test2", &[]).await;
        let port = doc!([{ "containerPort": 80 }]);
        make_pod(&c, "pod1", "endpoint-test2", &port).await;
        endpoints_are(&c, "endpoint-test2", &[("pod1", &[80])]).await;
        make_pod(&c, "pod2", "endpoint-test2", &port).await;
        endpoints_are(&c, "endpoint-test2", &[("pod1", &[80]), ("pod2", &[80])]).await;
        let pods = c.at("/api/v1", "pods");
        c.delete(&format!("{pods}/pod2")).await.ok();
        endpoints_are(&c, "endpoint-test2", &[("pod1", &[80])]).await;
        c.delete(&format!("{pods}/pod1")).await.ok();
        endpoints_are(&c, "endpoint-test2", &[]).await;
    });
}

#[test]
fn the_endpoints_of_a_service_follow_the_ports_of_its_pods() {
    play(|c| async move {
        let service = doc!({ "metadata": { "name": "multi-endpoint-test" }, "spec": {
            "selector": { "name": "multi-endpoint-test" },
            "ports": [{ "name": "portname1", "port": 80, "targetPort": "svc1" },
                { "name": "portname2", "port": 81, "targetPort": "svc2" }] } });
        c.post(&c.at("/api/v1", "services"), &service).await.ok();
        endpoints_are(&c, "multi-endpoint-test", &[]).await;
        make_pod(&c, "pod1", "multi-endpoint-test", &doc!([{ "name": "svc1", "containerPort": 100 }])).await;
        endpoints_are(&c, "multi-endpoint-test", &[("pod1", &[100])]).await;
        make_pod(&c, "pod2", "multi-endpoint-test", &doc!([{ "name": "svc2", "containerPort": 101 }])).await;
        endpoints_are(&c, "multi-endpoint-test", &[("pod1", &[100]), ("pod2", &[101])]).await;
        let pods = c.at("/api/v1", "pods");
        c.delete(&format!("{pods}/pod1")).await.ok();
        endpoints_are(&c, "multi-endpoint-test", &[("pod2", &[101])]).await;
        c.delete(&format!("{pods}/pod2")).await.ok();
        endpoints_are(&c, "multi-endpoint-test", &[]).await;
    });
}
