//! apps/deployment.go

use std::collections::BTreeMap;

use apimachinery::{Doc, doc, k};

use crate::cluster::{Cluster, int, is_controlled_by, play, ready, text, with, workload};

const GROUP: &str = "/apis/apps/v1";
const REVISION: &str = "deployment.kubernetes.io/revision";

fn image(object: &Doc) -> &str {
    object.root().find("spec.template.spec.containers").item(0).get(k::IMAGE).str()
}

fn revision(object: &Doc) -> &str {
    object.root().find("metadata.annotations").get(REVISION).str()
}

/// Waits until the deployment has rolled out `revision` with `image`, and nothing older runs.
async fn is_complete(c: &Cluster, name: &str, revision_is: &str, image_is: &str) -> Doc {
    let what = format!("{name} is complete at revision {revision_is}");
    let complete = |d: &Doc| {
        let replicas = int(d, "spec.replicas");
        let counts = ["updatedReplicas", "replicas", "availableReplicas"];
        revision(d) == revision_is
            && image(d) == image_is
            && int(d, "status.observedGeneration") == int(d, "metadata.generation")
            && counts.iter().all(|count| int(d, &format!("status.{count}")) == replicas)
    };
    c.until_one(&c.at(GROUP, "deployments"), name, &what, complete).await
}

/// The deployment's replica sets, by their image.
async fn sets(c: &Cluster, deployment: &Doc) -> BTreeMap<String, Doc> {
    let all = c.list(&c.at(GROUP, "replicasets")).await;
    let uid = text(deployment, "metadata.uid");
    let own = all.into_iter().filter(|set| is_controlled_by(set, uid));
    own.map(|set| (image(&set).to_owned(), set)).collect()
}

/// A replica set to be adopted: of the deployment's label, one more of its own, and the image `old`.
async fn make_old_set(c: &Cluster, name: &str, label: &str) -> Doc {
    let mut set = workload(name, 1, "old");
    for path in ["metadata.labels", "spec.selector.matchLabels", "spec.template.metadata.labels"] {
        set = with(set, path, doc!({ "name": label, "pod": "old" }));
    }
    let set = with(set, "metadata.annotations", doc!({ REVISION: "3546343826724305832" }));
    let made = c.post(&c.at(GROUP, "replicasets"), &set).await.ok();
    c.runs(label, 1).await;
    made
}

#[test]
fn a_deployment_is_scaled() {
    play(|c| async move {
        let at = c.at(GROUP, "deployments");
        c.post(&at, &workload("test-scale", 1, "pause")).await.ok();
        is_complete(&c, "test-scale", "1", "pause").await;
        c.scales(&at, "test-scale").await;
    });
}

#[test]
fn a_rolling_update_replaces_the_pods() {
    play(|c| async move {
        let old = make_old_set(&c, "test-rolling-update-controller", "sample-pod").await;
        let at = c.at(GROUP, "deployments");
        c.post(&at, &with(workload("sample-pod", 1, "new"), "spec.strategy.type", "RollingUpdate"))
            .await
            .ok();
        let done = is_complete(&c, "sample-pod", "3546343826724305833", "new").await;
        let sets = sets(&c, &done).await;
        assert_eq!(sets.keys().collect::<Vec<_>>(), ["new", "old"]);
        assert_eq!(text(&sets["old"], "metadata.uid"), text(&old, "metadata.uid"));
        assert_eq!((int(&sets["old"], "spec.replicas"), int(&sets["new"], "spec.replicas")), (0, 1));
        let pods = c.runs("sample-pod", 1).await;
        assert!(pods.values().all(|pod| is_controlled_by(pod, text(&sets["new"], "metadata.uid"))));
    });
}

#[test]
fn a_recreation_ends_the_old_pods_first() {
    play(|c| async move {
        let at = c.at(GROUP, "deployments");
        c.post(&at, &with(workload("sample-pod-3", 1, "one"), "spec.strategy.type", "Recreate")).await.ok();
        is_complete(&c, "sample-pod-3", "1", "one").await;
        let mut events =
            c.watch(&format!("{}?labelSelector=name%3Dsample-pod-3", c.at("/api/v1", "pods"))).await;
        let set = |d: apimachinery::Edit<'_>| {
            d.at(k::SPEC)
                .at(k::TEMPLATE)
                .at(k::SPEC)
                .list(k::CONTAINERS)
                .for_each(|mut c| _ = c.set(k::IMAGE, "two"));
        };
        c.update(&format!("{at}/sample-pod-3"), set).await;
        // Never do pods of both run: the old one is gone before the new one is made.
        let of = |pod: &Doc| pod.root().find("spec.containers").item(0).get(k::IMAGE).str().to_owned();
        let mut seen = Vec::new();
        while seen.last() != Some(&("ADDED".to_owned(), "two".to_owned())) {
            let event = events.next().await;
            seen.push((event.get(k::TYPE).str().to_owned(), of(&event.get(k::OBJECT).to_doc())));
        }
        assert!(seen.contains(&("DELETED".to_owned(), "one".to_owned())), "{seen:?}");
        is_complete(&c, "sample-pod-3", "2", "two").await;
    });
}

#[test]
fn old_replica_sets_are_cleaned_up() {
    play(|c| async move {
        make_old_set(&c, "test-cleanup-controller", "cleanup-pod").await;
        let mut events = c.watch(&c.at("/api/v1", "pods")).await;
        c.sees(&mut events, "ADDED", |_| true).await;
        let at = c.at(GROUP, "deployments");
        let made =
            c.post(&at, &with(workload("cleanup-pod", 1, "new"), "spec.revisionHistoryLimit", 0)).await.ok();
        let uri = c.at(GROUP, "replicasets");
        let uid = text(&made, "metadata.uid");
        c.until(&uri, "the history is cleaned up", |sets| {
            sets.len() == 1 && sets.values().all(|set| image(set) == "new" && is_controlled_by(set, uid))
        })
        .await;
        is_complete(&c, "cleanup-pod", "3546343826724305833", "new").await;
        // One pod was made, of the new template.
        let end = base::time::instant() + std::time::Duration::from_secs(60);
        let mut made = Vec::new();
        while let Some(event) = events.next_before(end).await {
            if event.get(k::TYPE).str() == "ADDED" {
                made.push(event.root().find("object.spec.containers").item(0).get(k::IMAGE).str().to_owned());
            }
        }
        assert_eq!(made, ["new"]);
    });
}

#[test]
fn a_rollout_is_rolled_over() {
    play(|c| async move {
        let old = make_old_set(&c, "test-rollover-controller", "rollover-pod").await;
        let at = c.at(GROUP, "deployments");
        let strategy =
            doc!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 } });
        // Pods that are never placed keep the first rollout from ending.
        let stuck = with(workload("rollover-pod", 1, "stuck"), "spec.strategy", &strategy);
        let stuck = with(stuck, "spec.minReadySeconds", 10);
        let stuck = with(stuck, "spec.template.spec.nodeSelector", doc!({ "nowhere": "to-be-found" }));
        let made = c.post(&at, &stuck).await.ok();
        let uri = c.at(GROUP, "replicasets");
        c.until(&uri, "both replica sets have a pod", |sets| {
            sets.len() == 2 && sets.values().all(|set| int(set, "status.replicas") == 1)
        })
        .await;

        let change = |d: apimachinery::Edit<'_>| {
            let mut pod = d.at(k::SPEC).at(k::TEMPLATE).at(k::SPEC);
            pod.remove(k::NODE_SELECTOR);
            pod.list(k::CONTAINERS).for_each(|mut c| _ = c.set(k::IMAGE, "new"));
        };
        c.update(&format!("{at}/rollover-pod"), change).await;
        is_complete(&c, "rollover-pod", "3546343826724305834", "new").await;
        let sets = sets(&c, &made).await;
        assert_eq!(sets.keys().collect::<Vec<_>>(), ["new", "old", "stuck"]);
        assert_eq!(text(&sets["old"], "metadata.uid"), text(&old, "metadata.uid"));
        for (image, replicas) in [("old", 0), ("stuck", 0), ("new", 1)] {
            assert_eq!(int(&sets[image], "spec.replicas"), replicas, "{image}");
        }
    });
}

#[test]
fn a_deployment_scales_its_replica_sets_in_proportion() {
    play(|c| async move {
        let at = c.at(GROUP, "deployments");
        let strategy =
            doc!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 2, "maxSurge": 3 } });
        c.post(&at, &with(workload("webserver", 10, "one"), "spec.strategy", &strategy)).await.ok();
        let made = is_complete(&c, "webserver", "1", "one").await;

        let change = |d: apimachinery::Edit<'_>| {
            let mut pod = d.at(k::SPEC).at(k::TEMPLATE).at(k::SPEC);
            pod.set(k::NODE_SELECTOR, doc!({ "nowhere": "to-be-found" }));
            pod.list(k::CONTAINERS).for_each(|mut c| _ = c.set(k::IMAGE, "two"));
        };
        c.update(&format!("{at}/webserver"), change).await;
        let uri = c.at(GROUP, "replicasets");
        let counts = |one: i64, two: i64, available: i64| {
            move |sets: &BTreeMap<String, Doc>| {
                let is = |of: &str, replicas: i64, available: i64| {
                    sets.values().any(|set| {
                        image(set) == of
                            && int(set, "spec.replicas") == replicas
                            && int(set, "status.replicas") == replicas
                            && int(set, "status.availableReplicas") == available
                    })
                };
                sets.len() == 2 && is("one", one, available) && is("two", two, 0)
            }
        };
        c.until(&uri, "the rollout is stuck", counts(8, 5, 8)).await;
        c.update(&format!("{at}/webserver"), |d| _ = d.at(k::SPEC).set(k::REPLICAS, 30)).await;
        c.until(&uri, "both are scaled", counts(20, 13, 20)).await;
        assert_eq!(sets(&c, &made).await.len(), 2);
    });
}

#[test]
fn a_deployment_has_a_status_that_can_be_written() {
    play(|c| async move {
        let at = c.at(GROUP, "deployments");
        c.post(&at, &workload("test-status", 1, "pause")).await.ok();
        is_complete(&c, "test-status", "1", "pause").await;
        c.has_status(&at, "test-status").await;
    });
}

#[test]
fn a_deployment_lives() {
    play(|c| async move {
        let at = c.at(GROUP, "deployments");
        let (one, status) = (format!("{at}/test-deployment"), format!("{at}/test-deployment/status"));
        let mut events = c.watch(&format!("{at}?labelSelector=name%3Dtest-deployment")).await;
        c.post(&at, &workload("test-deployment", 2, "one")).await.ok();
        c.sees(&mut events, "ADDED", |d| text(d, "metadata.name") == "test-deployment").await;
        c.sees(&mut events, "MODIFIED", |d| int(d, "status.readyReplicas") == 2).await;

        let patch = doc!({ "metadata": { "labels": { "test-deployment": "patched" } }, "spec": { "replicas": 1,
            "template": { "spec": { "terminationGracePeriodSeconds": 0, "containers": [{ "name": "c", "image": "two" }] } } } });
        c.patch(&one, "strategic-merge", &patch).await.ok();
        c.sees(&mut events, "MODIFIED", |d| text(d, "metadata.labels.test-deployment") == "patched").await;
        let patched = is_complete(&c, "test-deployment", "2", "two").await;
        assert_eq!((int(&patched, "spec.replicas"), int(&patched, "status.readyReplicas")), (1, 1));
        let found = c.list("/apis/apps/v1/deployments?labelSelector=test-deployment%3Dpatched").await;
        assert!(found.len() == 1 && text(&found[0], "metadata.name") == "test-deployment");

        c.patch(&format!("{one}/scale"), "merge", &doc!({ "spec": { "replicas": 2 } })).await.ok();
        let pods = c.runs("test-deployment", 2).await;
        assert_eq!(ready(&pods), 2);
        is_complete(&c, "test-deployment", "2", "two").await;

        let read = c.get(&status).await.ok();
        assert_eq!((text(&read, "kind"), int(&read, "status.readyReplicas")), ("Deployment", 2));
        let mut events = c.watch(&format!("{at}?labelSelector=name%3Dtest-deployment")).await;
        let patch = doc!({ "metadata": { "annotations": { "status": "patched" } },
            "status": { "readyReplicas": 0, "availableReplicas": 0 } });
        let patched = c.patch(&status, "merge", &patch).await.ok();
        assert_eq!(int(&patched, "status.readyReplicas"), 0);
        c.sees(&mut events, "MODIFIED", |d| text(d, "metadata.annotations.status") == "patched").await;
        c.sees(&mut events, "MODIFIED", |d| int(d, "status.readyReplicas") == 2).await;

        c.delete(&format!("{at}?labelSelector=name%3Dtest-deployment")).await.ok();
        c.sees(&mut events, "DELETED", |d| text(d, "metadata.name") == "test-deployment").await;
        c.get(&one).await.fails(404);
    });
}
