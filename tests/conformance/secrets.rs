//! common/node/secrets.go

use apimachinery::{doc, k};

use crate::cluster::{play, text};

#[test]
fn a_secret_needs_keys() {
    play(|c| async move {
        let at = c.at("/api/v1", "secrets");
        let secret = doc!({ "metadata": { "name": "empty-key" }, "data": { "": "dmFsdWU=" } });
        let refused = c.post(&at, &secret).await.fails(422);
        assert!(refused.contains("data[]: Invalid value: \"\""), "{refused}");
        c.get(&format!("{at}/empty-key")).await.fails(404);
    });
}

#[test]
fn a_secret_is_patched() {
    play(|c| async move {
        let at = c.at("/api/v1", "secrets");
        let all = "/api/v1/secrets?labelSelector=constant%3Dtrue";
        assert!(c.list(all).await.is_empty());
        let secret = doc!({ "metadata": { "name": "secret", "labels": { "constant": "true" } },
            "data": { "key": "dmFsdWU=" }, "type": "Opaque" });
        c.post(&at, &secret).await.ok();
        assert_eq!(c.names(all).await, ["secret"]);
        let patch = doc!({ "metadata": { "labels": { "test": "true" } }, "data": { "key": "dmFsdWUx" } });
        c.patch(&format!("{at}/secret"), "strategic-merge", &patch).await.ok();
        let got = c.get(&format!("{at}/secret")).await.ok();
        assert_eq!((text(&got, "metadata.labels.test"), text(&got, "data.key")), ("true", "dmFsdWUx"));
        c.delete(&format!("{at}?labelSelector=constant%3Dtrue")).await.ok();
        let left = c.get("/api/v1/secrets").await.ok();
        assert!(left.get(k::ITEMS).items().all(|s| s.find("metadata.name").str() != "secret"));
    });
}
