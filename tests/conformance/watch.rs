//! apimachinery/watch.go

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
