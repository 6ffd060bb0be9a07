//! scheduling/limit_range.go

use apimachinery::{Doc, Edit, doc, k};

use crate::cluster::{Cluster, assert_same, play, pod, text};

fn limits(name: &str) -> Doc {
    doc!({ "metadata": { "name": name, "labels": { "e2e": "limits" } }, "spec": { "limits": [{ "type": "Container",
        "min": { "cpu": "50m", "memory": "100Mi", "ephemeral-storage": "100Gi" },
        "max": { "cpu": "500m", "memory": "500Mi", "ephemeral-storage": "500Gi" },
        "default": { "cpu": "500m", "memory": "500Mi", "ephemeral-storage": "500Gi" },
        "defaultRequest": { "cpu": "100m", "memory": "200Mi", "ephemeral-storage": "200Gi" } }] } })
}

#[test]
fn limit_ranges_are_listed_patched_and_deleted_together() {
    play(|c| async move {
        c.namespace("another").await;
        let (here, there) = (c.at("/api/v1", "limitranges"), "/api/v1/namespaces/another/limitranges");
        c.post(&here, &limits("one")).await.ok();
        c.post(there, &limits("one")).await.ok();
        let selected = "labelSelector=e2e%3Dlimits";
        assert_eq!(c.list(&format!("/api/v1/limitranges?{selected}")).await.len(), 2);

        let min = doc!({ "cpu": "40m", "memory": "90Mi", "ephemeral-storage": "90Gi" });
        let mut limit = limits("one").root().find("spec.limits").item(0).to_doc();
        limit.edit().set("min", &min);
        let mut patch = doc!({ "metadata": { "labels": { "one": "patched" } } });
        patch.edit().at(k::SPEC).list(k::LIMITS).push(&limit);
        let patched = c.patch(&format!("{here}/one"), "strategic-merge", &patch).await.ok();
        assert_eq!(text(&patched, "metadata.labels.one"), "patched");
        assert_same(patched.root().find("spec.limits").item(0), limit.root());

        c.delete(&format!("{here}?labelSelector=one%3Dpatched")).await.ok();
        let left = c.list(&format!("/api/v1/limitranges?{selected}")).await;
        assert!(left.len() == 1 && text(&left[0], "metadata.namespace") == "another");
    });
}

fn pod_asking(name: &str, requests: &Doc, limits: &Doc) -> Doc {
    let mut pod = pod(name, name);
    pod.edit().at(k::SPEC).list(k::CONTAINERS).for_each(|c| {
        c.at(k::RESOURCES).set(k::REQUESTS, requests).set(k::LIMITS, limits);
    });
    pod
}

fn amounts(cpu: &str, memory: &str, storage: &str) -> Doc {
    let mut out = Doc::object();
    for (name, amount) in [("cpu", cpu), ("memory", memory), ("ephemeral-storage", storage)] {
        out.edit().set_opt(name, (!amount.is_empty()).then_some(amount));
    }
    out
}

/// What the one container of a new pod comes to ask for: requests and limits.
async fn comes_to_ask(c: &Cluster, name: &str, requests: &Doc, limits: &Doc) -> (Doc, Doc) {
    let made = c.post(&c.at("/api/v1", "pods"), &pod_asking(name, requests, limits)).await.ok();
    let resources = made.root().find("spec.containers").item(0).get(k::RESOURCES);
    (resources.get(k::REQUESTS).to_doc(), resources.get(k::LIMITS).to_doc())
}

#[test]
fn a_limit_range_fills_and_bounds_what_pods_ask_for() {
    play(|c| async move {
        let at = c.at("/api/v1", "limitranges");
        let one = format!("{at}/one");
        let mut events = c.watch(&format!("{at}?labelSelector=e2e%3Dlimits")).await;
        c.post(&at, &limits("one")).await.ok();
        c.sees(&mut events, "ADDED", |range| text(range, "metadata.name") == "one").await;
        assert_same(c.get(&one).await.ok().get(k::SPEC), limits("one").get(k::SPEC));

        let nothing = Doc::object();
        let filled = comes_to_ask(&c, "pod-no-resources", &nothing, &nothing).await;
        assert_eq!(filled, (amounts("100m", "200Mi", "200Gi"), amounts("500m", "500Mi", "500Gi")));
        let (requests, limit) = (amounts("", "150Mi", "150Gi"), amounts("300m", "", ""));
        let filled = comes_to_ask(&c, "pod-partial-resources", &requests, &limit).await;
        assert_same(filled.0.root(), amounts("300m", "150Mi", "150Gi").root());
        assert_same(filled.1.root(), amounts("300m", "500Mi", "500Gi").root());

        let pods = c.at("/api/v1", "pods");
        let little = pod_asking("pfpod", &amounts("10m", "50Mi", "50Gi"), &nothing);
        let refused = c.post(&pods, &little).await.fails(403);
        assert!(refused.contains("minimum cpu usage per Container is 50m, but request is 10m"), "{refused}");
        let much =
            pod_asking("pfpod", &amounts("600m", "600Mi", "600Gi"), &amounts("600m", "600Mi", "600Gi"));
        let refused = c.post(&pods, &much).await.fails(403);
        assert!(refused.contains("maximum cpu usage per Container is 500m, but limit is 600m"), "{refused}");

        let lower = amounts("9m", "49Mi", "49Gi");
        let update = |range: Edit<'_>| {
            range.at(k::SPEC).list(k::LIMITS).for_each(|mut limit| _ = limit.set("min", &lower));
        };
        c.update(&one, update).await;
        assert_same(c.get(&one).await.ok().root().find("spec.limits").item(0).get("min"), lower.root());
        let (requests, limit) = (amounts("10m", "50Mi", "50Gi"), amounts("", "", ""));
        let filled = comes_to_ask(&c, "pfpod2", &requests, &limit).await;
        assert_same(filled.0.root(), requests.root());
        c.post(&pods, &much).await.fails(403);

        c.delete(&one).await.ok();
        c.sees(&mut events, "DELETED", |range| text(range, "metadata.name") == "one").await;
        assert!(c.list(&at).await.is_empty());
        let (requests, limit) = (amounts("600m", "600Mi", "600Gi"), amounts("600m", "600Mi", "600Gi"));
        let asked = comes_to_ask(&c, "pfpod3", &requests, &limit).await;
        assert_same(asked.1.root(), limit.root());
    });
}
