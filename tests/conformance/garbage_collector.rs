//! apimachinery/garbage_collector.go

use std::time::Duration;

use apimachinery::{Doc, doc, k};

use crate::cluster::{Cluster, int, is_controlled_by, play, pod, text, workload};
use crate::rc::controller;

/// Upstream makes between 10 and 100.
const PODS: u32 = 20;

fn policy(policy: &str) -> Doc {
    doc!({ "propagationPolicy": policy })
}

/// A replication controller whose pods are all there; its URI.
async fn make(c: &Cluster, name: &str, replicas: u32) -> String {
    let at = c.at("/api/v1", "replicationcontrollers");
    c.post(&at, &controller(name, replicas)).await.ok();
    let all = |rc: &Doc| int(rc, "status.replicas") == i64::from(replicas);
    c.until_one(&at, name, "all pods are made", all).await;
    format!("{at}/{name}")
}

/// The pods labelled with a name.
fn pods_of(c: &Cluster, name: &str) -> String {
    format!("{}?labelSelector=name%3D{name}", c.at("/api/v1", "pods"))
}

async fn settles() {
    base::time::sleep(Duration::from_secs(30)).await;
}

#[test]
fn the_pods_of_a_controller_go_with_it() {
    play(|c| async move {
        let rc = make(&c, "simpletest", 2).await;
        c.delete_with(&rc, &policy("Background")).await.ok();
        c.until_none(&pods_of(&c, "simpletest"), "its pods are deleted").await;
        c.get(&rc).await.fails(404);
    });
}

#[test]
fn the_pods_of_a_controller_are_orphaned() {
    play(|c| async move {
        let rc = make(&c, "simpletest", PODS).await;
        c.delete_with(&rc, &policy("Orphan")).await.ok();
        let uri =
            format!("{}?fieldSelector=metadata.name%3Dsimpletest", c.at("/api/v1", "replicationcontrollers"));
        c.until_none(&uri, "it is deleted").await;
        settles().await;
        let pods = c.list(&pods_of(&c, "simpletest")).await;
        assert_eq!(pods.len(), PODS as usize);
        for pod in &pods {
            assert!(pod.root().find("metadata.ownerReferences").is_empty());
            assert!(!pod.root().find("metadata.deletionTimestamp").is_set());
        }
    });
}

#[test]
fn a_controller_stays_until_its_pods_are_gone() {
    play(|c| async move {
        let rc = make(&c, "simpletest", PODS).await;
        let mut events = c.watch(&c.at("/api/v1", "replicationcontrollers")).await;
        c.sees(&mut events, "ADDED", |_| true).await;
        c.delete_with(&rc, &policy("Foreground")).await.ok();
        let waiting = c.get(&rc).await.ok();
        let finalizers = waiting.root().find("metadata.finalizers");
        assert_eq!(finalizers.item(0).str(), "foregroundDeletion");
        c.sees(&mut events, "DELETED", |_| true).await;
        assert!(c.list(&pods_of(&c, "simpletest")).await.is_empty(), "its pods went before it");
    });
}

#[test]
fn pods_with_another_owner_stay() {
    play(|c| async move {
        let doomed = make(&c, "to-be-deleted", PODS).await;
        let stays = make(&c, "to-stay", 0).await;
        let stays = c.get(&stays).await.ok();
        let at = c.at("/api/v1", "pods");
        let names = c.names(&pods_of(&c, "to-be-deleted")).await;
        let (kept, others) = names.split_at(names.len() / 2);
        let owner = doc!({ "apiVersion": "v1", "kind": "ReplicationController", "name": "to-stay",
            "uid": text(&stays, "metadata.uid") });
        for name in kept {
            let mut patch = Doc::object();
            patch.edit().at(k::METADATA).list(k::OWNER_REFERENCES).push(&owner);
            let patched = c.patch(&format!("{at}/{name}"), "strategic-merge", &patch).await.ok();
            assert_eq!(patched.root().find("metadata.ownerReferences").len(), 2);
        }
        c.delete_with(&doomed, &policy("Foreground")).await.ok();
        let uri = format!(
            "{}?fieldSelector=metadata.name%3Dto-be-deleted",
            c.at("/api/v1", "replicationcontrollers")
        );
        c.until_none(&uri, "it is deleted").await;
        settles().await;
        let left = c.list(&pods_of(&c, "to-be-deleted")).await;
        assert_eq!(left.iter().map(|pod| text(pod, "metadata.name")).collect::<Vec<_>>(), kept);
        for pod in &left {
            assert!(!pod.root().find("metadata.deletionTimestamp").is_set());
            let owners = pod.root().find("metadata.ownerReferences");
            assert_eq!((owners.len(), owners.item(0).get(k::NAME).str()), (1, "to-stay"));
        }
        assert_eq!(others.len(), PODS as usize / 2);
    });
}

#[test]
fn a_circle_of_owners_goes_whole() {
    play(|c| async move {
        let at = c.at("/api/v1", "pods");
        let mut made = Vec::new();
        for name in ["pod1", "pod2", "pod3"] {
            made.push(c.post(&at, &pod(name, "circle")).await.ok());
        }
        for (dependent, owner) in [(0, 2), (1, 0), (2, 1)] {
            let (name, uid) = (text(&made[owner], "metadata.name"), text(&made[owner], "metadata.uid"));
            let patch = doc!({ "metadata": { "ownerReferences": [{ "apiVersion": "v1", "kind": "Pod", "name": name,
                "uid": uid, "controller": true, "blockOwnerDeletion": true }] } });
            let one = format!("{at}/{}", text(&made[dependent], "metadata.name"));
            c.patch(&one, "strategic-merge", &patch).await.ok();
        }
        c.delete_with(&format!("{at}/pod1"), &policy("Foreground")).await.ok();
        c.until_none(&at, "all three are deleted").await;
    });
}

/// A deployment of two pods, which run; its uid.
async fn deploy(c: &Cluster) -> String {
    let made = c.post(&c.at("/apis/apps/v1", "deployments"), &workload("simpletest", 2, "pause")).await.ok();
    let uid = text(&made, "metadata.uid").to_owned();
    let sets = c.at("/apis/apps/v1", "replicasets");
    c.until(&sets, "a replica set is made", |sets| sets.values().any(|set| is_controlled_by(set, &uid)))
        .await;
    c.runs("simpletest", 2).await;
    uid
}

#[test]
fn the_replica_sets_of_a_deployment_go_with_it() {
    play(|c| async move {
        deploy(&c).await;
        let one = format!("{}/simpletest", c.at("/apis/apps/v1", "deployments"));
        c.delete_with(&one, &policy("Background")).await.ok();
        c.until_none(&c.at("/apis/apps/v1", "replicasets"), "its replica set is deleted").await;
        c.until_none(&pods_of(&c, "simpletest"), "and the pods").await;
        c.get(&one).await.fails(404);
    });
}

#[test]
fn the_replica_sets_of_a_deployment_are_orphaned() {
    play(|c| async move {
        deploy(&c).await;
        let at = c.at("/apis/apps/v1", "deployments");
        c.delete_with(&format!("{at}/simpletest"), &policy("Orphan")).await.ok();
        c.until_none(&at, "it is deleted").await;
        settles().await;
        let sets = c.list(&c.at("/apis/apps/v1", "replicasets")).await;
        let [set] = sets.as_slice() else { panic!("{sets:?}") };
        assert!(set.root().find("metadata.ownerReferences").is_empty());
        let pods = c.runs("simpletest", 2).await;
        assert!(pods.values().all(|pod| is_controlled_by(pod, text(set, "metadata.uid"))));
    });
}
