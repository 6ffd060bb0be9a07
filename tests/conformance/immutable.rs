//! common/storage/configmap_volume.go and secrets_volume.go: their rows about `immutable`, which need no volume.

use apimachinery::{Doc, doc, k};

use crate::cluster::{Cluster, play, text, with};

/// Data of the object that cannot be changed once it says so; `values` are three in the form that the kind has.
async fn becomes_immutable(c: &Cluster, resource: &str, values: [&str; 3]) {
    let at = c.at("/api/v1", resource);
    let one = format!("{at}/immutable");
    let made = doc!({ "metadata": { "name": "immutable" }, "data": { "key": values[0] } });
    c.post(&at, &made).await.ok();

    let changed = with(c.get(&one).await.ok(), "data.key", values[1]);
    let changed = c.put(&one, &changed).await.ok();
    assert_eq!(text(&changed, "data.key"), values[1]);

    let marked = c.put(&one, &with(changed, "immutable", true)).await.ok();
    assert!(marked.get("immutable").bool());

    let refused = c.put(&one, &with(marked.clone(), "data.key", values[2])).await.fails(422);
    assert!(refused.contains("data: Forbidden: field is immutable when `immutable` is set"), "{refused}");
    let refused = c.put(&one, &with(marked.clone(), "immutable", false)).await.fails(422);
    assert!(
        refused.contains("immutable: Forbidden: field is immutable when `immutable` is set"),
        "{refused}"
    );
    let mut unmarked: Doc = marked.clone();
    unmarked.edit().remove("immutable");
    c.put(&one, &unmarked).await.fails(422);

    let labelled = c.put(&one, &with(marked, "metadata.labels.label1", "value1")).await.ok();
    assert_eq!(text(&labelled, "metadata.labels.label1"), "value1");
    assert_eq!(text(&c.get(&one).await.ok(), "data.key"), values[1]);
    c.delete(&one).await.ok();
    assert!(c.get(&one).await.fails(404).contains("not found"));
    assert_eq!(
        c.get(&at)
            .await
            .ok()
            .get(k::ITEMS)
            .items()
            .filter(|o| o.find("metadata.name").str() == "immutable")
            .count(),
        0
    );
}

#[test]
fn a_config_map_becomes_immutable() {
    play(|c| async move { becomes_immutable(&c, "configmaps", ["value-1", "value-2", "value-3"]).await });
}

#[test]
fn a_secret_becomes_immutable() {
    play(|c| async move {
        becomes_immutable(&c, "secrets", ["dmFsdWUtMQ==", "dmFsdWUtMg==", "dmFsdWUtMw=="]).await
    });
}
