//! common/node/configmap.go

use apimachinery::{doc, k};

use crate::cluster::{play, text};

#[test]
fn a_config_map_needs_keys() {
    play(|c| async move {
        let map = doc!({ "metadata": { "name": "empty-key" }, "data": { "": "value" } });
        let refused = c.post(&c.at("/api/v1", "configmaps"), &map).await.fails(422);
        assert!(refused.contains("data[]: Invalid value: \"\""), "{refused}");
        c.get(&format!("{}/empty-key", c.at("/api/v1", "configmaps"))).await.fails(404);
    });
}

#[test]
fn a_config_map_lives() {
    play(|c| async move {
        let at = c.at("/api/v1", "configmaps");
        let selected = "labelSelector=static%3Dtrue";
        let mut events = c.watch(&format!("{at}?{selected}")).await;
        let map = doc!({ "metadata": { "name": "map", "labels": { "static": "true" } }, "data": { "name": "value" } });
        c.post(&at, &map).await.ok();
        c.sees(&mut events, "ADDED", |_| true).await;
        let patch = doc!({ "metadata": { "labels": { "test": "patched" } }, "data": { "name": "value1" } });
        c.patch(&format!("{at}/map"), "strategic-merge", &patch).await.ok();
        c.sees(&mut events, "MODIFIED", |_| true).await;
        let got = c.get(&format!("{at}/map")).await.ok();
        assert_eq!((text(&got, "data.name"), text(&got, "metadata.labels.test")), ("value1", "patched"));

        let found = c.list(&format!("/api/v1/configmaps?{selected}")).await;
        let [found] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((text(found, "metadata.name"), text(found, "metadata.namespace")), ("map", &*c.ns));
        assert_eq!((text(found, "data.name"), text(found, "metadata.labels.test")), ("value1", "patched"));

        c.delete(&format!("{at}?{selected}")).await.ok();
        c.sees(&mut events, "DELETED", |_| true).await;
        assert!(c.get(&format!("{at}?{selected}")).await.ok().get(k::ITEMS).is_empty());
    });
}
