//! instrumentation/events.go

use apimachinery::{Doc, doc, k};

use crate::cluster::{Cluster, assert_same, play, text, with};

const GROUP: &str = "/apis/events.k8s.io/v1";

fn event(c: &Cluster, name: &str, label: &str) -> Doc {
    doc!({ "metadata": { "name": name, "labels": { "test": label } }, "note": "some note", "action": "Do",
        "reason": "Test", "type": "Normal", "eventTime": "2026-01-02T03:04:05.006000Z",
        "reportingController": "test-controller", "reportingInstance": "test-node",
        "regarding": { "kind": "Pod", "name": "pod", "namespace": c.ns } })
}

#[test]
fn an_event_is_fetched_patched_listed_and_deleted() {
    play(|c| async move {
        let at = c.at(GROUP, "events");
        let one = format!("{at}/event");
        let lists = [
            format!("{GROUP}/events"),
            at.clone(),
            format!("{at}?fieldSelector=reportingController%3Dtest-controller"),
            format!("{}?fieldSelector=source%3Dtest-controller", c.at("/api/v1", "events")),
        ];
        c.post(&at, &event(&c, "event", "one")).await.ok();
        for list in &lists {
            assert!(c.names(list).await.contains(&"event".to_owned()), "{list}");
        }
        let fetched = c.get(&one).await.ok();
        for field in event(&c, "event", "one").root().fields().filter(|f| f.name() != "metadata") {
            assert_same(fetched.get(field.name()), field);
        }

        c.patch(&one, "strategic-merge", &doc!({ "note": "patched note" })).await.ok();
        let patched = c.get(&one).await.ok();
        assert_eq!(text(&patched, "note"), "patched note");

        let series = doc!({ "count": 2, "lastObservedTime": "2026-01-02T03:05:05.000000Z" });
        c.put(&one, &with(patched, "series", &series)).await.ok();
        assert_same(c.get(&one).await.ok().get(k::SERIES), series.root());

        c.delete(&one).await.ok();
        for list in &lists {
            assert!(!c.names(list).await.contains(&"event".to_owned()), "{list}");
        }
    });
}

#[test]
fn events_are_deleted_together() {
    play(|c| async move {
        let at = c.at(GROUP, "events");
        let selected = format!("{at}?labelSelector=test%3Dset");
        for name in ["event-1", "event-2", "event-3"] {
            c.post(&at, &event(&c, name, "set")).await.ok();
        }
        assert_eq!(c.names(&selected).await, ["event-1", "event-2", "event-3"]);
        c.delete(&selected).await.ok();
        assert!(c.list(&selected).await.is_empty());
        assert!(!c.names(&at).await.iter().any(|name| name.starts_with("event-")));
    });
}
