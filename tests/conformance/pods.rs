//! common/node/pods.go and node/pods.go

use apimachinery::{Doc, Edit, doc, k};

use crate::cluster::{condition, int, play, pod, text, with};

#[test]
fn a_pods_class_of_service_is_set() {
    play(|c| async move {
        let mut pod = pod("qos", "qos");
        let amounts = doc!({ "cpu": "100m", "memory": "100Mi" });
        pod.edit().at(k::SPEC).list(k::CONTAINERS).for_each(|c| {
            c.at(k::RESOURCES).set(k::REQUESTS, &amounts).set(k::LIMITS, &amounts);
        });
        let at = c.at("/api/v1", "pods");
        c.post(&at, &pod).await.ok();
        assert_eq!(text(&c.get(&format!("{at}/qos")).await.ok(), "status.qosClass"), "Guaranteed");
    });
}

#[test]
fn pods_are_deleted_together() {
    play(|c| async move {
        let at = c.at("/api/v1", "pods");
        let selected = format!("{at}?labelSelector=name%3Dset");
        for name in ["test-pod-1", "test-pod-2", "test-pod-3"] {
            c.post(&at, &pod(name, "set")).await.ok();
        }
        assert_eq!(c.names(&selected).await, ["test-pod-1", "test-pod-2", "test-pod-3"]);
        c.runs("set", 3).await;
        c.delete(&selected).await.ok();
        c.until_none(&selected, "they are deleted").await;
    });
}

#[test]
fn a_pods_status_is_patched() {
    play(|c| async move {
        let at = c.at("/api/v1", "pods");
        c.post(&at, &pod("patched", "patched")).await.ok();
        c.runs("patched", 1).await;
        let patch = doc!({ "status": { "message": "Patched by e2e test", "reason": "E2E" } });
        let patched = c.patch(&format!("{at}/patched/status"), "strategic-merge", &patch).await.ok();
        let said = (text(&patched, "status.message"), text(&patched, "status.reason"));
        assert_eq!(said, ("Patched by e2e test", "E2E"));
        assert_eq!(text(&patched, "status.phase"), "Running");
    });
}

#[test]
fn a_pod_lives() {
    play(|c| async move {
        let at = c.at("/api/v1", "pods");
        let (one, status) = (format!("{at}/pod"), format!("{at}/pod/status"));
        let mut events = c.watch(&format!("{at}?labelSelector=static%3Dtrue")).await;
        c.post(&at, &with(pod("pod", "pod"), "metadata.labels.static", "true")).await.ok();
        c.sees(&mut events, "ADDED", |pod| text(pod, "metadata.name") == "pod").await;
        c.sees(&mut events, "MODIFIED", |pod| condition(pod, "Ready") == "True").await;

        let patch = doc!({ "metadata": { "labels": { "test-pod": "patched" } },
            "spec": { "containers": [{ "name": "c", "image": "pause:2" }] } });
        c.patch(&one, "strategic-merge", &patch).await.ok();
        let is_patched = |pod: &Doc| {
            let container = pod.root().find("spec.containers").item(0);
            text(pod, "metadata.labels.test-pod") == "patched" && container.get(k::IMAGE).str() == "pause:2"
        };
        c.sees(&mut events, "MODIFIED", is_patched).await;
        assert!(is_patched(&c.get(&one).await.ok()));

        assert_eq!(text(&c.get(&status).await.ok(), "kind"), "Pod");
        let falsify = |pod: Edit<'_>| {
            pod.at(k::STATUS).list(k::CONDITIONS).for_each(|mut condition| {
                if condition.read().get(k::TYPE).str() == "Ready" {
                    condition.set(k::STATUS, "False").set(k::MESSAGE, "replaced by a test");
                }
            });
        };
        let replaced = c.update(&status, falsify).await;
        assert_eq!(condition(&replaced, "Ready"), "False");
        c.sees(&mut events, "MODIFIED", |pod| condition(pod, "Ready") == "False").await;
        // The kubelet knows better.
        c.sees(&mut events, "MODIFIED", |pod| condition(pod, "Ready") == "True").await;

        c.delete(&format!("{at}?labelSelector=static%3Dtrue")).await.ok();
        c.sees(&mut events, "DELETED", |pod| text(pod, "metadata.name") == "pod").await;
        c.get(&one).await.fails(404);
    });
}

#[test]
fn a_pod_is_submitted_and_removed() {
    play(|c| async move {
        let at = c.at("/api/v1", "pods");
        let selected = format!("{at}?labelSelector=name%3Dsubmitted");
        assert!(c.list(&selected).await.is_empty());
        let mut events = c.watch(&selected).await;
        c.post(&at, &pod("submitted", "submitted")).await.ok();
        assert_eq!(c.names(&selected).await, ["submitted"]);
        c.sees(&mut events, "ADDED", |_| true).await;
        c.sees(&mut events, "MODIFIED", |pod| text(pod, "status.phase") == "Running").await;

        c.delete_with(&format!("{at}/submitted"), &doc!({ "gracePeriodSeconds": 30 })).await.ok();
        let going = |pod: &Doc| pod.root().find("metadata.deletionTimestamp").is_set();
        let marked = c.sees(&mut events, "MODIFIED", going).await;
        assert_eq!(int(&marked, "metadata.deletionGracePeriodSeconds"), 30);
        let gone = c.sees(&mut events, "DELETED", |_| true).await;
        assert!(going(&gone) && text(&gone, "metadata.name") == "submitted");
        assert!(c.list(&selected).await.is_empty());
    });
}

#[test]
fn a_pod_is_updated() {
    play(|c| async move {
        let at = c.at("/api/v1", "pods");
        c.post(&at, &pod("pod", "first")).await.ok();
        c.runs("first", 1).await;
        assert_eq!(c.names(&format!("{at}?labelSelector=name%3Dfirst")).await, ["pod"]);
        c.update(&format!("{at}/pod"), |pod| _ = pod.at(k::METADATA).at(k::LABELS).set("name", "second"))
            .await;
        assert_eq!(c.names(&format!("{at}?labelSelector=name%3Dsecond")).await, ["pod"]);
        assert!(c.list(&format!("{at}?labelSelector=name%3Dfirst")).await.is_empty());
    });
}

#[test]
fn a_pod_has_its_hosts_address() {
    play(|c| async move {
        c.post(&c.at("/api/v1", "pods"), &pod("hostip", "hostip")).await.ok();
        let pods = c.runs("hostip", 1).await;
        let pod = pods.values().next().expect("one runs");
        let ip = text(pod, "status.hostIP");
        assert!(ip.parse::<std::net::IpAddr>().is_ok(), "{ip:?}");
        let node = c.get(&format!("/api/v1/nodes/{}", text(pod, "spec.nodeName"))).await.ok();
        assert!(node.root().find("status.addresses").items().any(|a| a.get(k::ADDRESS).str() == ip));
    });
}

#[test]
fn a_pods_deadline_is_updated() {
    play(|c| async move {
        let at = c.at("/api/v1", "pods");
        c.post(&at, &pod("deadline", "deadline")).await.ok();
        c.runs("deadline", 1).await;
        assert_eq!(c.names(&format!("{at}?labelSelector=name%3Ddeadline")).await, ["deadline"]);
        c.update(&format!("{at}/deadline"), |pod| _ = pod.at(k::SPEC).set(k::ACTIVE_DEADLINE_SECONDS, 5))
            .await;
        let ended = |pod: &Doc| text(pod, "status.phase") == "Failed";
        let pod = c.until_one(&at, "deadline", "it ends", ended).await;
        assert_eq!(text(&pod, "status.reason"), "DeadlineExceeded");
    });
}
