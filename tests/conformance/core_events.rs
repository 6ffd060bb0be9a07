//! instrumentation/core_events.go

use apimachinery::{Doc, doc, k};

use crate::cluster::{Cluster, assert_same, int, play, text, with};

fn event(c: &Cluster, name: &str) -> Doc {
    doc!({ "metadata": { "name": name, "labels": { "constant": "true" } }, "message": "This is a test event",
        "reason": "Test", "type": "Normal", "count": 1, "involvedObject": { "namespace": c.ns } })
}

#[test]
fn an_event_lives() {
    play(|c| async move {
        let at = c.at("/api/v1", "events");
        let one = format!("{at}/event");
        let all = "/api/v1/events?labelSelector=constant%3Dtrue";
        c.post(&at, &event(&c, "event")).await.ok();
        assert_eq!(c.names(all).await, ["event"]);

        let patch = doc!({ "message": "This is a test event - patched" });
        c.patch(&one, "strategic-merge", &patch).await.ok();
        let patched = c.get(&one).await.ok();
        assert_eq!(text(&patched, "message"), "This is a test event - patched");

        let series = doc!({ "count": 100, "lastObservedTime": "2026-01-02T03:04:05.006000Z" });
        c.put(&one, &with(patched, "series", &series)).await.ok();
        let updated = c.get(&one).await.ok();
        assert_same(updated.get(k::SERIES), series.root());
        assert_eq!(int(&updated, "count"), 1);

        c.delete(&one).await.ok();
        assert!(c.list(all).await.is_empty());
        assert!(!c.names("/api/v1/events").await.contains(&"event".to_owned()));
    });
}

#[test]
fn events_are_deleted_by_their_label() {
    play(|c| async move {
        let at = c.at("/api/v1", "events");
        let selected = format!("{at}?labelSelector=constant%3Dtrue");
        for name in ["event-1", "event-2", "event-3"] {
            c.post(&at, &event(&c, name)).await.ok();
        }
        c.post(&at, &with(event(&c, "other"), "metadata.labels.constant", "false")).await.ok();
        assert_eq!(c.names(&selected).await, ["event-1", "event-2", "event-3"]);
        c.delete(&selected).await.ok();
        assert!(c.list(&selected).await.is_empty());
        c.get(&format!("{at}/other")).await.ok();
    });
}
