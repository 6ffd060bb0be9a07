//! apimachinery/namespace.go

use apimachinery::{Doc, Edit, doc, k};

use crate::cluster::{condition, play, pod, text};

const NAMESPACES: &str = "/api/v1/namespaces";

fn service(name: &str) -> Doc {
    doc!({ "metadata": { "name": name }, "spec": { "selector": { "a": "b" }, "ports": [{ "port": 80 }] } })
}

#[test]
fn a_namespace_takes_its_pods_along() {
    play(|c| async move {
        c.namespace("short-lived").await;
        let pods = format!("{NAMESPACES}/short-lived/pods");
        c.post(&pods, &pod("one", "one")).await.ok();
        c.until_one(&pods, "one", "the pod runs", |pod| condition(pod, "Ready") == "True").await;
        c.delete(&format!("{NAMESPACES}/short-lived")).await.ok();
        c.until_none(&format!("{NAMESPACES}?fieldSelector=metadata.name%3Dshort-lived"), "it is gone").await;
        c.namespace("short-lived").await;
        c.get(&format!("{pods}/one")).await.fails(404);
        assert!(c.get(&pods).await.ok().get(k::ITEMS).is_empty());
    });
}

#[test]
fn a_namespace_takes_its_services_along() {
    play(|c| async move {
        c.namespace("short-lived").await;
        let services = format!("{NAMESPACES}/short-lived/services");
        c.post(&services, &service("one")).await.ok();
        c.delete(&format!("{NAMESPACES}/short-lived")).await.ok();
        c.until_none(&format!("{NAMESPACES}?fieldSelector=metadata.name%3Dshort-lived"), "it is gone").await;
        c.namespace("short-lived").await;
        c.get(&format!("{services}/one")).await.fails(404);
        assert!(c.get(&services).await.ok().get(k::ITEMS).is_empty());
    });
}

#[test]
fn a_namespace_is_patched() {
    play(|c| async move {
        c.namespace("patched").await;
        let at = format!("{NAMESPACES}/patched");
        c.patch(&at, "merge", &doc!({ "metadata": { "labels": { "test": "value" } } })).await.ok();
        assert_eq!(text(&c.get(&at).await.ok(), "metadata.labels.test"), "value");
    });
}

#[test]
fn a_namespace_is_updated() {
    play(|c| async move {
        let at = format!("{NAMESPACES}/{}", c.ns);
        let set = |namespace: Edit<'_>| _ = namespace.at(k::METADATA).at(k::LABELS).set("test", "value");
        assert_eq!(text(&c.update(&at, set).await, "metadata.labels.test"), "value");
        assert_eq!(text(&c.get(&at).await.ok(), "metadata.labels.test"), "value");
    });
}

#[test]
fn a_namespace_has_a_status_that_can_be_written() {
    play(|c| async move {
        let at = format!("{NAMESPACES}/{}/status", c.ns);
        assert_eq!(text(&c.get(&at).await.ok(), "status.phase"), "Active");
        let condition_of = |kind| doc!({ "type": kind, "status": "True", "reason": "Test", "message": kind });
        let mut patch = doc!({ "metadata": { "annotations": { "patched": "yes" } } });
        patch.edit().at(k::STATUS).list(k::CONDITIONS).push(condition_of("Patched"));
        let patched = c.patch(&at, "merge", &patch).await.ok();
        assert_eq!(text(&patched, "metadata.annotations.patched"), "yes");
        let conditions = patched.root().find("status.conditions");
        assert_eq!(conditions.len(), 1);
        assert!(condition_of("Patched").root().fields().all(|f| f.same(conditions.item(0).get(f.name()))));

        let append = |namespace: Edit<'_>| {
            namespace.at(k::STATUS).list(k::CONDITIONS).push(condition_of("Updated"));
        };
        let updated = c.update(&at, append).await;
        let conditions = updated.root().find("status.conditions");
        assert_eq!(conditions.len(), 2);
        assert!(condition_of("Updated").root().fields().all(|f| f.same(conditions.item(1).get(f.name()))));
        assert_eq!(text(&updated, "status.phase"), "Active");
    });
}

#[test]
fn a_namespace_takes_finalizers() {
    play(|c| async move {
        const FAKE: &str = "conformance.example.com/fake";
        c.namespace("finalized").await;
        let at = format!("{NAMESPACES}/finalized");
        let finalizers = |namespace: &Doc| -> Vec<String> {
            namespace.root().find("spec.finalizers").items().map(|f| f.str().to_owned()).collect()
        };
        let mut namespace = c.get(&at).await.ok();
        namespace.edit().at(k::SPEC).list(k::FINALIZERS).push(FAKE);
        c.put(&format!("{at}/finalize"), &namespace).await.ok();
        let mut namespace = c.get(&at).await.ok();
        assert_eq!(finalizers(&namespace), ["kubernetes", FAKE]);
        namespace.edit().at(k::SPEC).list(k::FINALIZERS).retain(|f| f.str() != FAKE);
        c.put(&format!("{at}/finalize"), &namespace).await.ok();
        assert_eq!(finalizers(&c.get(&at).await.ok()), ["kubernetes"]);
    });
}
