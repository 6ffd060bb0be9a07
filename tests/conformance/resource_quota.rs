//! apimachinery/resource_quota.go

use apimachinery::{Doc, Edit, doc, k};

use crate::cluster::{Cluster, assert_same, play, pod, text, with};

/// The quota of most of these tests.
async fn make_quota(c: &Cluster) {
    let hard = doc!({
        "pods": "5", "services": "10", "services.nodeports": "1", "services.loadbalancers": "1",
        "replicationcontrollers": "10", "resourcequotas": "1", "configmaps": "10", "secrets": "10",
        "persistentvolumeclaims": "10", "requests.storage": "10Gi",
        "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "10",
        "gold.storageclass.storage.k8s.io/requests.storage": "10Gi",
        "cpu": "1", "memory": "500Mi", "ephemeral-storage": "50Gi",
        "requests.example.com/dongle": "3", "count/replicasets.apps": "5",
    });
    let quota = with(doc!({ "metadata": { "name": "quota" } }), "spec.hard", &hard);
    let made = c.post(&c.at("/api/v1", "resourcequotas"), &quota).await.ok();
    assert_same(made.root().find("spec.hard"), hard.root());
    let found = used(c, "quota", &doc!({ "resourcequotas": "1", "pods": "0", "secrets": "0" })).await;
    assert_same(found.root().find("status.hard"), hard.root());
}

/// Waits until that much of a quota is used.
async fn used(c: &Cluster, quota: &str, want: &Doc) -> Doc {
    let what = format!("{quota} has used {want:?}");
    let is = |quota: &Doc| {
        let used = quota.root().find("status.used");
        want.root().entries().all(|(name, amount)| used.get(name).same(amount))
    };
    c.until_one(&c.at("/api/v1", "resourcequotas"), quota, &what, is).await
}

/// What is used of a quota now, after a while in which it could have changed.
async fn still_used(c: &Cluster, quota: &str, want: &Doc) {
    base::time::sleep(std::time::Duration::from_secs(30)).await;
    let quota = c.get(&format!("{}/{quota}", c.at("/api/v1", "resourcequotas"))).await.ok();
    for (name, amount) in want.root().entries() {
        assert_same(quota.root().find("status.used").get(name), amount);
    }
}

fn pod_with(name: &str, requests: &Doc, limits: &Doc) -> Doc {
    let mut pod = pod(name, name);
    let mut containers = pod.edit().at(k::SPEC).list(k::CONTAINERS);
    containers.for_each(|c| _ = c.at(k::RESOURCES).set(k::REQUESTS, requests).set(k::LIMITS, limits));
    pod
}

#[test]
fn a_quotas_status_is_calculated_at_once() {
    play(|c| async move {
        make_quota(&c).await;
    });
}

#[test]
fn a_quota_captures_the_life_of_a_service() {
    play(|c| async move {
        make_quota(&c).await;
        let at = c.at("/api/v1", "services");
        let service = |name: &str, kind: &str| doc!({ "metadata": { "name": name }, "spec": { "type": kind, "ports": [{ "port": 80 }] } });
        c.post(&at, &service("plain", "ClusterIP")).await.ok();
        c.post(&at, &service("node-port", "NodePort")).await.ok();
        let refused = c.post(&at, &service("balanced", "LoadBalancer")).await.fails(403);
        assert!(refused.contains("exceeded quota: quota, requested: services.nodeports=1"), "{refused}");
        let counts = doc!({ "services": "2", "services.nodeports": "1", "services.loadbalancers": "0" });
        used(&c, "quota", &counts).await;
        c.delete(&format!("{at}/plain")).await.ok();
        c.delete(&format!("{at}/node-port")).await.ok();
        let none = doc!({ "services": "0", "services.nodeports": "0", "services.loadbalancers": "0" });
        used(&c, "quota", &none).await;
    });
}

/// Of a kind that is counted by one name: makes an object beside the `before` that exist, then deletes it.
async fn captures(c: &Cluster, group: &str, resource: &str, counted: &str, before: u32, object: &Doc) {
    make_quota(c).await;
    used(c, "quota", &doc!({ counted: before.to_string() })).await;
    let at = c.at(group, resource);
    c.post(&at, object).await.ok();
    used(c, "quota", &doc!({ counted: (before + 1).to_string(), "resourcequotas": "1" })).await;
    c.delete(&format!("{at}/{}", text(object, "metadata.name"))).await.ok();
    used(c, "quota", &doc!({ counted: before.to_string() })).await;
}

#[test]
fn a_quota_captures_the_life_of_a_secret() {
    play(|c| async move {
        let secret = doc!({ "metadata": { "name": "test" }, "stringData": { "a": "b" } });
        captures(&c, "/api/v1", "secrets", "secrets", 0, &secret).await;
    });
}

#[test]
fn a_quota_captures_the_life_of_a_config_map() {
    play(|c| async move {
        // The root certificate is one already.
        let map = doc!({ "metadata": { "name": "test" }, "data": { "a": "b" } });
        captures(&c, "/api/v1", "configmaps", "configmaps", 1, &map).await;
    });
}

#[test]
fn a_quota_captures_the_life_of_a_replica_set() {
    play(|c| async move {
        let set = doc!({ "metadata": { "name": "test" }, "spec": { "replicas": 0,
            "selector": { "matchLabels": { "name": "test" } },
            "template": { "metadata": { "labels": { "name": "test" } },
                "spec": { "containers": [{ "name": "c", "image": "pause" }] } } } });
        captures(&c, "/apis/apps/v1", "replicasets", "count/replicasets.apps", 0, &set).await;
    });
}

#[test]
fn a_quota_captures_the_life_of_a_pod() {
    play(|c| async move {
        make_quota(&c).await;
        let at = c.at("/api/v1", "pods");
        let dongles = doc!({ "example.com/dongle": "2" });
        let requests = doc!({ "cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi" });
        c.post(&at, &pod_with("first", &requests, &dongles)).await.ok();
        let counts = doc!({ "pods": "1", "cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi",
            "requests.example.com/dongle": "2" });
        used(&c, "quota", &counts).await;

        let requests = doc!({ "cpu": "600m", "memory": "100Mi", "ephemeral-storage": "1Gi" });
        let refused = c.post(&at, &pod_with("second", &requests, &Doc::object())).await.fails(403);
        assert!(refused.contains("exceeded quota: quota, requested: cpu=600m, used: cpu=500m"), "{refused}");
        let requests = doc!({ "cpu": "100m", "memory": "100Mi", "ephemeral-storage": "1Gi" });
        let refused = c.post(&at, &pod_with("third", &requests, &dongles)).await.fails(403);
        assert!(refused.contains("requested: requests.example.com/dongle=2"), "{refused}");

        let mut changed = c.get(&format!("{at}/first")).await.ok();
        let mut containers = changed.edit().at(k::SPEC).list(k::CONTAINERS);
        containers
            .for_each(|c| _ = c.at(k::RESOURCES).at(k::REQUESTS).set("cpu", "100m").set("memory", "100Mi"));
        let refused = c.put(&format!("{at}/first"), &changed).await.fails(422);
        assert!(refused.contains("pod updates may not change fields other than"), "{refused}");
        still_used(&c, "quota", &counts).await;

        c.delete_with(&format!("{at}/first"), &doc!({ "gracePeriodSeconds": 0 })).await.ok();
        let none = doc!({ "pods": "0", "cpu": "0", "memory": "0", "ephemeral-storage": "0",
            "requests.example.com/dongle": "0" });
        used(&c, "quota", &none).await;
    });
}

/// Makes a pod that the quota `counting` counts as `counts`, and `other` does not; then deletes it.
async fn is_counted_by_one(c: &Cluster, pod: &Doc, counting: &str, other: &str, counts: &Doc, none: &Doc) {
    let at = c.at("/api/v1", "pods");
    c.post(&at, pod).await.ok();
    used(c, counting, counts).await;
    still_used(c, other, none).await;
    c.delete_with(&format!("{at}/{}", text(pod, "metadata.name")), &doc!({ "gracePeriodSeconds": 0 }))
        .await
        .ok();
    used(c, counting, none).await;
}

async fn make_scoped(c: &Cluster, name: &str, scope: &str, hard: &Doc, none: &Doc) {
    let mut quota = with(doc!({ "metadata": { "name": name } }), "spec.hard", hard);
    quota.edit().at(k::SPEC).list(k::SCOPES).push(scope);
    c.post(&c.at("/api/v1", "resourcequotas"), &quota).await.ok();
    let found = used(c, name, none).await;
    assert_same(found.root().find("status.hard"), hard.root());
}

#[test]
fn a_quota_counts_pods_that_terminate_or_those_that_do_not() {
    play(|c| async move {
        let hard = doc!({ "pods": "5", "requests.cpu": "1", "requests.memory": "500Mi", "limits.cpu": "2",
            "limits.memory": "1Gi" });
        let none = doc!({ "pods": "0", "requests.cpu": "0", "requests.memory": "0", "limits.cpu": "0",
            "limits.memory": "0" });
        make_scoped(&c, "terminating", "Terminating", &hard, &none).await;
        make_scoped(&c, "not-terminating", "NotTerminating", &hard, &none).await;
        let requests = doc!({ "cpu": "500m", "memory": "200Mi" });
        let limits = doc!({ "cpu": "1", "memory": "400Mi" });
        let counts = doc!({ "pods": "1", "requests.cpu": "500m", "requests.memory": "200Mi", "limits.cpu": "1",
            "limits.memory": "400Mi" });
        let long = pod_with("long", &requests, &limits);
        is_counted_by_one(&c, &long, "not-terminating", "terminating", &counts, &none).await;
        let short = with(pod_with("short", &requests, &limits), "spec.activeDeadlineSeconds", 3600);
        is_counted_by_one(&c, &short, "terminating", "not-terminating", &counts, &none).await;
    });
}

#[test]
fn a_quota_counts_pods_of_best_effort_or_the_others() {
    play(|c| async move {
        let (hard, none) = (doc!({ "pods": "5" }), doc!({ "pods": "0" }));
        make_scoped(&c, "best-effort", "BestEffort", &hard, &none).await;
        make_scoped(&c, "not-best-effort", "NotBestEffort", &hard, &none).await;
        let one = doc!({ "pods": "1" });
        is_counted_by_one(&c, &pod("best", "best"), "best-effort", "not-best-effort", &one, &none).await;
        let requests = doc!({ "cpu": "500m", "memory": "200Mi" });
        let limits = doc!({ "cpu": "1", "memory": "400Mi" });
        let other = pod_with("other", &requests, &limits);
        is_counted_by_one(&c, &other, "not-best-effort", "best-effort", &one, &none).await;
    });
}

fn quota_of(cpu: &str, memory: &str) -> Doc {
    doc!({ "metadata": { "name": "quota", "labels": { "test": "quota" } },
        "spec": { "hard": { "cpu": cpu, "memory": memory } } })
}

fn hard(quota: &Doc, of: &str) -> (String, String) {
    let hard = quota.get(of).get(k::HARD);
    (hard.get("cpu").str().to_owned(), hard.get("memory").str().to_owned())
}

fn both(cpu: &str, memory: &str) -> (String, String) {
    (cpu.to_owned(), memory.to_owned())
}

#[test]
fn a_quota_is_updated_and_deleted() {
    play(|c| async move {
        let at = c.at("/api/v1", "resourcequotas");
        c.post(&at, &quota_of("1", "500Mi")).await.ok();
        let one = format!("{at}/quota");
        assert_eq!(hard(&c.get(&one).await.ok(), "spec"), both("1", "500Mi"));
        let updated = c.put(&one, &quota_of("2", "1Gi")).await.ok();
        assert_eq!(hard(&updated, "spec"), both("2", "1Gi"));
        assert_eq!(hard(&c.get(&one).await.ok(), "spec"), both("2", "1Gi"));
        c.delete(&one).await.ok();
        c.get(&one).await.fails(404);
    });
}

#[test]
fn a_quota_lives() {
    play(|c| async move {
        let at = c.at("/api/v1", "resourcequotas");
        c.post(&at, &quota_of("1", "500Mi")).await.ok();
        let one = format!("{at}/quota");
        assert_eq!(hard(&c.get(&one).await.ok(), "spec"), both("1", "500Mi"));
        let found = c.list("/api/v1/resourcequotas?labelSelector=test%3Dquota").await;
        assert_eq!(found.len(), 1);
        let patch = doc!({ "metadata": { "labels": { "more": "patched" } }, "spec": { "hard": { "memory": "750Mi" } } });
        let patched = c.patch(&one, "strategic-merge", &patch).await.ok();
        assert_eq!(text(&patched, "metadata.labels.more"), "patched");
        assert_eq!(hard(&patched, "spec"), both("1", "750Mi"));
        c.delete(&format!("{at}?labelSelector=test%3Dquota")).await.ok();
        c.get(&one).await.fails(404);
    });
}

#[test]
fn a_quotas_status_is_written_and_put_right() {
    play(|c| async move {
        let at = c.at("/api/v1", "resourcequotas");
        let (one, status) = (format!("{at}/quota"), format!("{at}/quota/status"));
        c.post(&at, &quota_of("500m", "500Mi")).await.ok();
        let hard_is = |cpu: &'static str, memory: &'static str| {
            move |quota: &Doc| hard(quota, "status") == both(cpu, memory)
        };
        let set = |quota: Edit<'_>| {
            quota.at(k::STATUS).at(k::HARD).set("cpu", "500m").set("memory", "500Mi");
        };
        assert_eq!(hard(&c.update(&status, set).await, "status"), both("500m", "500Mi"));
        c.until_one(&at, "quota", "hard is the spec's", hard_is("500m", "500Mi")).await;

        let patch = doc!({ "spec": { "hard": { "cpu": "1", "memory": "1Gi" } } });
        let patched = c.patch(&one, "strategic-merge", &patch).await.ok();
        assert_eq!(hard(&patched, "spec"), both("1", "1Gi"));
        let patch = doc!({ "status": { "hard": { "cpu": "1", "memory": "1Gi" } } });
        c.patch(&status, "strategic-merge", &patch).await.ok();
        c.until_one(&at, "quota", "hard is the new spec's", hard_is("1", "1Gi")).await;
        assert_eq!(hard(&c.get(&status).await.ok(), "status"), both("1", "1Gi"));

        let mut events = c.watch(&format!("{at}?labelSelector=test%3Dquota")).await;
        let patch = doc!({ "spec": { "hard": { "cpu": "3" } }, "status": { "hard": { "cpu": "2", "memory": "2Gi" } } });
        let patched = c.patch(&status, "strategic-merge", &patch).await.ok();
        assert_eq!((hard(&patched, "status"), hard(&patched, "spec")), (both("2", "2Gi"), both("1", "1Gi")));
        while !hard_is("2", "2Gi")(&events.next().await.get(k::OBJECT).to_doc()) {}
        c.until_one(&at, "quota", "hard is the spec's again", hard_is("1", "1Gi")).await;
        assert_eq!(hard(&c.get(&one).await.ok(), "spec"), both("1", "1Gi"));
    });
}

#[test]
fn a_quota_captures_the_life_of_a_replication_controller() {
    play(|c| async move {
        let controller = crate::rc::controller("test", 0);
        captures(&c, "/api/v1", "replicationcontrollers", "replicationcontrollers", 0, &controller).await;
    });
}
