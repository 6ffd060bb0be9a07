//! common/node/podtemplates.go

use apimachinery::{Doc, doc, k};

use crate::cluster::{play, text};

fn template(name: &str) -> Doc {
    doc!({ "metadata": { "name": name, "labels": { "set": "true" } }, "template": {
        "spec": { "containers": [{ "name": "nginx", "image": "nginx" }] } } })
}

#[test]
fn a_pod_template_lives() {
    play(|c| async move {
        let at = c.at("/api/v1", "podtemplates");
        let one = format!("{at}/template");
        c.post(&at, &template("template")).await.ok();
        let patch = doc!({ "metadata": { "labels": { "podtemplate": "patched" } } });
        c.patch(&one, "strategic-merge", &patch).await.ok();
        assert_eq!(text(&c.get(&one).await.ok(), "metadata.labels.podtemplate"), "patched");
        let all = "/api/v1/podtemplates?labelSelector=set%3Dtrue,podtemplate%3Dpatched";
        let found = c.list(all).await;
        assert!(found.len() == 1 && text(&found[0], "metadata.name") == "template");
        assert_eq!(found[0].root().find("template.spec.containers").item(0).get(k::IMAGE).str(), "nginx");
        c.delete(&one).await.ok();
        c.get(&one).await.fails(404);
        assert!(c.list(all).await.is_empty());
    });
}

#[test]
fn pod_templates_are_deleted_together() {
    play(|c| async move {
        let at = c.at("/api/v1", "podtemplates");
        let selected = format!("{at}?labelSelector=set%3Dtrue");
        for name in ["test-1", "test-2", "test-3"] {
            c.post(&at, &template(name)).await.ok();
        }
        assert_eq!(c.names(&selected).await, ["test-1", "test-2", "test-3"]);
        c.delete(&selected).await.ok();
        assert!(c.list(&selected).await.is_empty());
    });
}

#[test]
fn a_pod_template_is_replaced() {
    play(|c| async move {
        let at = c.at("/api/v1", "podtemplates");
        c.post(&at, &template("template")).await.ok();
        let annotate = |t: apimachinery::Edit<'_>| {
            t.at(k::METADATA).at(k::ANNOTATIONS).set("updated", "true");
        };
        c.update(&format!("{at}/template"), annotate).await;
        assert_eq!(
            text(&c.get(&format!("{at}/template")).await.ok(), "metadata.annotations.updated"),
            "true"
        );
    });
}
