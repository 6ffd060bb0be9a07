//! apimachinery/watch.go

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Doc, doc, k};

use crate::cluster::{Cluster, Events, play};

const LABEL: &str = "watch-this-configmap";

fn config_map(name: &str, label: &str) -> Doc {
    doc!({ "metadata": { "name": name, "labels": { LABEL: label } } })
}

/// What a test of these changes its objects by.
fn mutation(n: u32) -> Doc {
    doc!({ "data": { "mutation": n.to_string() } })
}

fn selecting(cluster: &Cluster, values: &str) -> String {
    format!("{}?labelSelector={LABEL}%20in%20({values})", cluster.at("/api/v1", "configmaps"))
}

async fn expect(events: &mut Events, kind: &str, object: &Doc) {
    let event = events.next().await;
    assert_eq!(event.get(k::TYPE).str(), kind);
    assert_eq!(event.get(k::OBJECT).to_doc().to_json(), object.to_json());
}

/// A deleted object comes as it was, at the revision of its deletion.
async fn expect_gone(events: &mut Events, before: &Doc) {
    let event = events.next().await;
    assert_eq!(event.get(k::TYPE).str(), "DELETED");
    let mut gone = event.get(k::OBJECT).to_doc();
    assert!(revision(&gone) > revision(before));
    gone.edit().at(k::METADATA).set(k::RESOURCE_VERSION, revision(before).to_string());
    assert_eq!(gone.to_json(), before.to_json());
}

fn revision(doc: &Doc) -> u64 {
    doc.root().find("metadata.resourceVersion").str().parse().expect("a revision")
}

#[test]
fn add_update_and_delete_are_notified() {
    play(|c| async move {
        let at = c.at("/api/v1", "configmaps");
        let mut a = c.watch(&selecting(&c, "a")).await;
        let mut b = c.watch(&selecting(&c, "b")).await;
        let mut both = c.watch(&selecting(&c, "a,b")).await;

        let made = c.post(&at, &config_map("map-a", "a")).await.ok();
        let first = c.patch(&format!("{at}/map-a"), "merge", &mutation(1)).await.ok();
        let second = c.patch(&format!("{at}/map-a"), "merge", &mutation(2)).await.ok();
        c.delete(&format!("{at}/map-a")).await.ok();
        for events in [&mut a, &mut both] {
            expect(events, "ADDED", &made).await;
            expect(events, "MODIFIED", &first).await;
            expect(events, "MODIFIED", &second).await;
            expect_gone(events, &second).await;
        }
        b.is_quiet_for(Duration::from_secs(10)).await;

        let made = c.post(&at, &config_map("map-b", "b")).await.ok();
        c.delete(&format!("{at}/map-b")).await.ok();
        for events in [&mut b, &mut both] {
            expect(events, "ADDED", &made).await;
            expect_gone(events, &made).await;
        }
        a.is_quiet_for(Duration::from_secs(10)).await;
    });
}

#[test]
fn a_watch_starts_from_a_revision() {
    play(|c| async move {
        let at = c.at("/api/v1", "configmaps");
        c.post(&at, &config_map("map", "from")).await.ok();
        let first = c.patch(&format!("{at}/map"), "merge", &mutation(1)).await.ok();
        let second = c.patch(&format!("{at}/map"), "merge", &mutation(2)).await.ok();
        c.delete(&format!("{at}/map")).await.ok();
        let uri = format!("{}&resourceVersion={}", selecting(&c, "from"), revision(&first));
        let mut events = c.watch(&uri).await;
        expect(&mut events, "MODIFIED", &second).await;
        expect_gone(&mut events, &second).await;
    });
}

#[test]
fn a_watch_goes_on_where_another_ended() {
    play(|c| async move {
        let at = c.at("/api/v1", "configmaps");
        let mut events = c.watch(&selecting(&c, "restarted")).await;
        let made = c.post(&at, &config_map("map", "restarted")).await.ok();
        let first = c.patch(&format!("{at}/map"), "merge", &mutation(1)).await.ok();
        expect(&mut events, "ADDED", &made).await;
        expect(&mut events, "MODIFIED", &first).await;
        drop(events);
        let second = c.patch(&format!("{at}/map"), "merge", &mutation(2)).await.ok();
        let uri = format!("{}&resourceVersion={}", selecting(&c, "restarted"), revision(&first));
        let mut events = c.watch(&uri).await;
        c.delete(&format!("{at}/map")).await.ok();
        expect(&mut events, "MODIFIED", &second).await;
        expect_gone(&mut events, &second).await;
    });
}

#[test]
fn an_object_that_is_no_longer_selected_is_deleted_to_the_watch() {
    play(|c| async move {
        let at = c.at("/api/v1", "configmaps");
        let label = |value: &str| doc!({ "metadata": { "labels": { LABEL: value } } });
        let mut events = c.watch(&selecting(&c, "changed")).await;
        let made = c.post(&at, &config_map("map", "changed")).await.ok();
        let first = c.patch(&format!("{at}/map"), "merge", &mutation(1)).await.ok();
        c.patch(&format!("{at}/map"), "merge", &label("wrong")).await.ok();
        expect(&mut events, "ADDED", &made).await;
        expect(&mut events, "MODIFIED", &first).await;
        expect_gone(&mut events, &first).await;

        c.patch(&format!("{at}/map"), "merge", &mutation(2)).await.ok();
        events.is_quiet_for(Duration::from_secs(10)).await;

        let back = c.patch(&format!("{at}/map"), "merge", &label("changed")).await.ok();
        expect(&mut events, "ADDED", &back).await;
        let third = c.patch(&format!("{at}/map"), "merge", &mutation(3)).await.ok();
        expect(&mut events, "MODIFIED", &third).await;
        c.delete(&format!("{at}/map")).await.ok();
        expect_gone(&mut events, &third).await;
    });
}

/// Creates, changes and deletes config maps in no certain order, without end.
async fn produce(c: Arc<Cluster>) {
    let at = c.at("/api/v1", "configmaps");
    let mut existing: Vec<u32> = Vec::new();
    for i in 0.. {
        let which = base::rand::below(existing.len().max(1) as u64) as usize;
        match base::rand::below(3) {
            1 if !existing.is_empty() => {
                c.patch(&format!("{at}/m-{}", existing[which]), "merge", &mutation(i)).await.ok();
            }
            2 if !existing.is_empty() => {
                c.delete(&format!("{at}/m-{}", existing.swap_remove(which))).await.ok();
            }
            _ => {
                c.post(&at, &config_map(&format!("m-{i}"), "ordered")).await.ok();
                existing.push(i);
            }
        }
        base::time::sleep(Duration::from_millis(base::rand::below(100))).await;
    }
}

#[test]
fn watches_at_the_same_time_see_the_same_order() {
    play(|c| async move {
        let c = Arc::new(c);
        let producer = base::task::spawn(produce(c.clone()));
        let from = c.get(&selecting(&c, "ordered")).await.ok();
        let at = |revision: u64| format!("{}&resourceVersion={revision}", selecting(&c, "ordered"));
        let mut watches = vec![c.watch(&at(revision(&from))).await];
        for _ in 0..100 {
            let first = watches[0].next().await.get(k::OBJECT).to_doc();
            for other in &mut watches[1..] {
                assert_eq!(revision(&other.next().await.get(k::OBJECT).to_doc()), revision(&first));
            }
            watches.push(c.watch(&at(revision(&first))).await);
        }
        drop(producer);
    });
}
