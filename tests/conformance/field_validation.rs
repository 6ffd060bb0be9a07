//! apimachinery/field_validation.go

use apimachinery::doc;

use crate::cluster::{Cluster, play};

/// A deployment as text, since documents do not hold a name twice.
fn deployment(meta: &str, spec: &str) -> String {
    format!(
        r#"{{ "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {{ "name": "my-dep", {meta} "labels": {{ "app": "nginx" }} }},
            "spec": {{ {spec} "selector": {{ "matchLabels": {{ "app": "nginx" }} }}, "template": {{
                "metadata": {{ "labels": {{ "app": "nginx" }} }},
                "spec": {{ "containers": [{{ "name": "nginx", "image": "nginx:latest" }}] }} }} }} }}"#
    )
}

async fn refused(c: &Cluster, body: String, why: &str) {
    let at = c.at("/apis/apps/v1", "deployments");
    let uri = format!("{at}?fieldManager=field_validation_mgr&fieldValidation=Strict");
    let message = c.send("POST", &uri, &[], body.into()).await.fails(400);
    assert!(message.contains(why), "{message}");
    assert!(c.list(&at).await.is_empty());
}

#[test]
fn unknown_and_repeated_fields_are_found() {
    play(|c| async move {
        let body = deployment("", r#""unknownField": "foo", "replicas": 2, "replicas": 3,"#);
        let why =
            r#"strict decoding error: unknown field "spec.unknownField", duplicate field "spec.replicas""#;
        refused(&c, body, why).await;
    });
}

#[test]
fn unknown_metadata_is_found() {
    play(|c| async move {
        let body = deployment(r#""unknownMeta": "foo","#, "");
        refused(&c, body, r#"strict decoding error: unknown field "metadata.unknownMeta""#).await;
        // The same without it is taken.
        let at = c.at("/apis/apps/v1", "deployments");
        let taken =
            c.send("POST", &format!("{at}?fieldValidation=Strict"), &[], deployment("", "").into()).await;
        assert_eq!(taken.ok().root().find("metadata.labels").to_doc(), doc!({ "app": "nginx" }));
    });
}
