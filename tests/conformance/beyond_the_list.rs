//! What no row of the list asks for, and clusters need.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Doc, doc, k};
use apiserver::LocalTransport;
use controllers::{ALL, Manager, Settings};

use crate::cluster::{Cluster, condition, play, pod, text, with};

const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";

#[test]
fn a_cluster_role_that_sums_up_others_follows_them() {
    play(|c| async move {
        let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
        let of = |label: &str| doc!([{ "matchLabels": { label: "true" } }]);
        let sum = |name: &str, label: &str, selectors: Doc| {
            let mut role = doc!({ "metadata": { "name": name, "labels": { label: "true" } } });
            role.edit().at("aggregationRule").set("clusterRoleSelectors", selectors);
            role
        };
        let rule = |name: &str, resource: &str| {
            doc!({ "metadata": { "name": name, "labels": { "in": "true" } },
                "rules": [{ "apiGroups": [""], "resources": [resource], "verbs": ["get"] }] })
        };
        for role in [
            sum("sum", "none", of("up")),
            sum("inner", "up", of("in")),
            rule("a", "pods"),
            rule("b", "secrets"),
        ] {
            c.post(roles, &role).await.ok();
        }
        c.until_one(roles, "sum", "it has what a sum in it has", |sum| sum.get(k::RULES).len() == 2).await;
    });
}

#[test]
fn a_range_of_service_addresses_stays_until_they_are_given_back() {
    play(|c| async move {
        let is = |all: &BTreeMap<String, Doc>, name: &str, status: &str| {
            all.get(name).is_some_and(|range| {
                range.root().find("status.conditions").item(0).get(k::STATUS).str() == status
                    && range.root().find("metadata.finalizers").len() == 1
            })
        };
        let more = doc!({ "metadata": { "name": "more" }, "spec": { "cidrs": ["10.97.0.0/24"] } });
        c.post(RANGES, &more).await.ok();
        c.until(RANGES, "both are ready", |all| is(all, "kubernetes", "True") && is(all, "more", "True"))
            .await;
        let services = c.at("/api/v1", "services");
        let there = doc!({ "metadata": { "name": "there" }, "spec": { "clusterIP": "10.97.0.7", "ports": [{ "port": 80 }] } });
        c.post(&services, &there).await.ok();
        c.delete(&format!("{RANGES}/more")).await.ok();
        c.until(RANGES, "it waits for its address", |all| is(all, "more", "False")).await;
        c.delete(&format!("{services}/there")).await.ok();
        c.until(RANGES, "it is gone", |all| all.len() == 1).await;
    });
}

#[test]
fn the_default_range_gets_the_family_that_the_flags_have_gained() {
    play(|c| async move {
        let range = |what, families: usize| {
            c.until_one(RANGES, "kubernetes", what, move |range| {
                range.root().find("spec.cidrs").len() == families
            })
        };
        range("it has one family", 1).await;
        // The controllers of a server that was started with two.
        let service_cidrs = vec!["10.96.0.0/16".to_owned(), "fd00:96::/112".to_owned()];
        let settings = Settings { service_cidrs, ..sim::server::settings() };
        let this = ALL.iter().position(|c| c.name == "service-cidrs-controller").expect("it is one of them");
        let _lives =
            Manager::start(Arc::new(LocalTransport::new(c.api.clone())), settings, &ALL[this..=this]);
        range("it has both", 2).await;
        let events = "/api/v1/events?fieldSelector=reason%3DKubernetesDefaultServiceCIDRInconsistent";
        c.until(events, "those with one family say that they do not agree", |all| !all.is_empty()).await;
    });
}

/// Waits until the pod's condition says why it has no node, and the scheduler's event, too.
async fn waits(c: &Cluster, name: &str, why: &str) {
    let told = |pod: &Doc| {
        let mut conditions = pod.root().find("status.conditions").items();
        conditions.any(|c| c.get(k::REASON).str() == "Unschedulable" && c.get(k::MESSAGE).str() == why)
    };
    c.until_one(&c.at("/api/v1", "pods"), name, why, told).await;
    says(c, name, "FailedScheduling", why).await;
}

async fn says(c: &Cluster, name: &str, reason: &str, message: &str) {
    let query =
        format!("?fieldSelector=involvedObject.name%3D{name},reason%3D{reason},source%3Ddefault-scheduler");
    let said = |all: &BTreeMap<String, Doc>| all.values().any(|e| e.get(k::MESSAGE).str() == message);
    c.until(&format!("{}{query}", c.at("/api/v1", "events")), message, said).await;
}

#[test]
fn a_pod_waits_for_room_and_is_told_why() {
    play(|c| async move {
        let pods = c.at("/api/v1", "pods");
        let asking = |name: &str, memory: &str| {
            let mut pod = with(pod(name, name), "spec.tolerations", doc!([{ "operator": "Exists" }]));
            let asked = doc!({ "requests": { "memory": memory } });
            pod.edit().at(k::SPEC).list(k::CONTAINERS).for_each(|mut c| _ = c.set(k::RESOURCES, &asked));
            pod
        };
        let placed = async |name: &str| {
            let pod =
                c.until_one(&pods, name, "it has a node", |p| !text(p, "spec.nodeName").is_empty()).await;
            let node = text(&pod, "spec.nodeName").to_owned();
            says(&c, name, "Scheduled", &format!("Successfully assigned {}/{name} to {node}", c.ns)).await;
            node
        };
        for name in ["a", "b", "c"] {
            c.post(&pods, &asking(name, "6Gi")).await.ok();
            if name != "c" {
                placed(name).await;
            }
        }
        waits(&c, "c", "0/2 nodes are available: 2 Insufficient memory.").await;
        // It finds its room when another goes.
        let first = text(&c.get(&format!("{pods}/a")).await.ok(), "spec.nodeName").to_owned();
        c.delete(&format!("{pods}/a?gracePeriodSeconds=0")).await.ok();
        assert_eq!(placed("c").await, first);
        // Or when a node comes.
        c.post(&pods, &asking("large", "16Gi")).await.ok();
        waits(&c, "large", "0/2 nodes are available: 2 Insufficient memory.").await;
        let amounts = doc!({ "cpu": "2", "memory": "32Gi", "pods": "110" });
        let mut big = doc!({ "metadata": { "name": "big" } });
        big.edit().at(k::STATUS).set(k::CAPACITY, &amounts).set(k::ALLOCATABLE, &amounts);
        c.post("/api/v1/nodes", &big).await.ok();
        assert_eq!(placed("large").await, "big");
        // What is not understood is refused by name; what is another scheduler's is left alone.
        let other = with(asking("other", "1Mi"), "spec.schedulerName", "mine");
        c.post(&pods, &other).await.ok();
        let apart = doc!({ "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
            { "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { "a": "b" } } }] } });
        c.post(&pods, &with(asking("apart", "1Mi"), "spec.affinity", apart)).await.ok();
        let why = "this scheduler does not support spec.affinity.podAntiAffinity.";
        waits(&c, "apart", &format!("0/3 nodes are available: {why}")).await;
        let other = c.get(&format!("{pods}/other")).await.ok();
        assert_eq!(text(&other, "spec.nodeName"), "");
        assert!(!other.root().find("status.conditions").exists());
    });
}

const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// A pod that somebody still wants to see after its end, on a node.
fn held(name: &str, node: &str) -> Doc {
    let held = with(pod(name, name), "metadata.finalizers", doc!(["example.com/see"]));
    with(held, "spec.nodeName", node)
}

/// Waits until the pod has failed and is deleted without grace; lets it go and gives it with the time that took.
async fn ends(c: &Cluster, name: &str) -> (Doc, Duration) {
    let (pods, since) = (c.at("/api/v1", "pods"), base::time::instant());
    let gone = |pod: &Doc| {
        let grace = pod.root().find("metadata.deletionGracePeriodSeconds");
        text(pod, "status.phase") == "Failed" && grace.opt_i64() == Some(0)
    };
    let pod = c.until_one(&pods, name, "it is forced to end", gone).await;
    let took = since.elapsed();
    c.patch(&format!("{pods}/{name}"), "merge", &doc!({ "metadata": { "finalizers": [] } })).await.ok();
    c.until_none(&format!("{pods}?fieldSelector=metadata.name%3D{name}"), "it is gone").await;
    (pod, took)
}

#[test]
fn pods_of_a_node_that_is_not_there_end_after_a_while() {
    play(|c| async move {
        let pods = c.at("/api/v1", "pods");
        c.post(&pods, &held("orphan", "never")).await.ok();
        c.post(&pods, &held("patient", "late")).await.ok();
        base::time::sleep(Duration::from_secs(30)).await;
        c.post("/api/v1/nodes", &doc!({ "metadata": { "name": "late" } })).await.ok();
        let (orphan, took) = ends(&c, "orphan").await;
        assert!(took.abs_diff(Duration::from_secs(10)) < Duration::from_secs(1), "{took:?}");
        let found = orphan
            .root()
            .find("status.conditions")
            .items()
            .find(|c| c.get(k::TYPE).str() == "DisruptionTarget");
        let why = found.map(|c| (c.get(k::STATUS).str(), c.get(k::REASON).str(), c.get(k::MESSAGE).str()));
        assert_eq!(why, Some(("True", "DeletionByPodGC", "PodGC: node no longer exists")));
        base::time::sleep(Duration::from_secs(60)).await;
        let patient = c.get(&format!("{pods}/patient")).await.ok();
        assert!(
            text(&patient, "status.phase") == "Pending"
                && text(&patient, "metadata.deletionTimestamp").is_empty()
        );
        // Nor is it hurried when it is to go, until somebody says that its node does not serve.
        c.delete(&format!("{pods}/patient")).await.ok();
        base::time::sleep(Duration::from_secs(60)).await;
        let taint = doc!({ "key": OUT_OF_SERVICE, "value": "nodeshutdown", "effect": "NoExecute" });
        for node in ["n1", "late"] {
            assert_eq!(text(&c.get(&format!("{pods}/patient")).await.ok(), "status.phase"), "Pending");
            c.update(&format!("/api/v1/nodes/{node}"), |n| _ = n.at(k::SPEC).list(k::TAINTS).push(&taint))
                .await;
        }
        let (patient, took) = ends(&c, "patient").await;
        assert!(took < Duration::from_secs(1), "{took:?}");
        assert_eq!(condition(&patient, "DisruptionTarget"), "");
    });
}

#[test]
fn a_pod_that_never_had_a_node_ends_at_once() {
    play(|c| async move {
        let pods = c.at("/api/v1", "pods");
        c.post(&pods, &with(held("free", ""), "spec.schedulerName", "mine")).await.ok();
        c.delete(&format!("{pods}/free")).await.ok();
        let (_, took) = ends(&c, "free").await;
        assert!(took < Duration::from_secs(1), "{took:?}");
    });
}
