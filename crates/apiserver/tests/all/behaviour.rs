//! One suite over every stored kind: what holds for all of them whatever they are.

use api::{Class, Kind};
use apimachinery::codec::protobuf;
use apimachinery::{Doc, doc, k};
use bytes::Bytes;

use harness::{Server, name, sample};

fn paths(kind: &Kind) -> Vec<String> {
    let path = |v: &api::Version| {
        let root =
            if v.gv.group.is_empty() { format!("/api/{}", v.gv.version) } else { format!("/apis/{}", v.gv) };
        let namespace = if kind.is_namespaced() { "/namespaces/default" } else { "" };
        format!("{root}{namespace}/{}", kind.storage.resource)
    };
    kind.versions.iter().map(path).collect()
}

#[test]
fn every_kind_behaves() {
    for kind in api::kinds().iter().filter(|k| k.class != Class::Virtual) {
        for path in paths(kind) {
            base::sim::run(1, one_kind(kind, &path));
        }
    }
}

async fn one_kind(kind: &Kind, path: &str) {
    let server = Server::start().await;
    let (first, second) = (name(kind, 1), name(kind, 2));
    let at = format!("{path}/{first}");
    let begin = revision(&server.get(path).await.ok());

    // Dry runs leave nothing behind.
    let dry = server.post(&format!("{path}?dryRun=All"), &sample(kind, path, &first)).await.ok();
    assert!(!dry.root().find("metadata.uid").str().is_empty(), "{path}");
    server.get(&at).await.fails(404);

    let made = server.post(path, &sample(kind, path, &first)).await;
    assert_eq!(made.code, 201, "{path}: {}", made.pretty());
    let made = made.ok();
    assert_eq!(made, server.get(&at).await.ok(), "{path}: what was created is what is read");
    assert!(made.root().find("metadata.creationTimestamp").str().ends_with('Z'), "{path}");
    assert_eq!(server.post(path, &sample(kind, path, &first)).await.code, 409, "{path}");

    // What is served says the same in protobuf, except that an empty list (of endpoints) is no list there.
    if kind.kind != "EndpointSlice" {
        let bytes = protobuf::object(made.root()).expect("built-in kinds have a schema");
        let media = [("content-type", protobuf::MEDIA_TYPE)];
        let same = server.send("PUT", &at, &media, bytes.into()).await.ok();
        assert_eq!(same.to_json(), made.to_json(), "{path}: a PUT in protobuf of what was read is no change");
    }

    // An update that changes nothing writes nothing.
    let same = server.put(&at, &made).await.ok();
    assert_eq!(same.to_json(), made.to_json(), "{path}: a PUT of what was read is no change");

    if kind.name_rule == api::NameRule::Subdomain {
        let mut unnamed = sample(kind, path, "");
        unnamed.edit().at(k::METADATA).remove(k::NAME);
        unnamed.edit().at(k::METADATA).set(k::GENERATE_NAME, "made-");
        let drawn = server.post(path, &unnamed).await.ok();
        let drawn = drawn.root().find("metadata.name").str();
        assert!(drawn.starts_with("made-") && drawn.len() == 10, "{path}: {drawn}");
        server.delete(&format!("{path}/{drawn}?gracePeriodSeconds=0")).await.ok();
    }

    patches(&server, kind, path, &at).await;
    views(&server, path, &first).await;
    finalizers(&server, kind, path, &second).await;

    let gone = server.delete(&format!("{at}?gracePeriodSeconds=0&propagationPolicy=Background")).await;
    assert_eq!(gone.code, 200, "{path}: {}", gone.pretty());
    if kind.kind != "Namespace" {
        server.get(&at).await.fails(404);
        server.delete(&at).await.fails(404);
        let watch = format!(
            "{path}?watch=true&resourceVersion={begin}&timeoutSeconds=1&fieldSelector=metadata.name={first}"
        );
        let events = server.get(&watch).await.ok();
        let kinds: Vec<String> = events.root().items().map(|e| e.get(k::TYPE).str().to_owned()).collect();
        assert_eq!(kinds, ["ADDED", "MODIFIED", "MODIFIED", "MODIFIED", "DELETED"], "{path}");
    }
}

async fn patches(server: &Server, kind: &Kind, path: &str, at: &str) {
    for (form, patch) in [
        ("merge", doc!({ "metadata": { "labels": { "one": "1" } } })),
        ("strategic-merge", doc!({ "metadata": { "labels": { "two": "2" } } })),
        ("json", doc!([{ "op": "add", "path": "/metadata/labels/three", "value": "3" }])),
    ] {
        let patched = server.patch(at, form, &patch).await;
        assert_eq!(patched.code, 200, "{path} {form}: {}", patched.pretty());
        // Kinds with a generation of their own do not count metadata.
        let generation = patched.doc.root().find("metadata.generation").opt_i64();
        assert!(generation.is_none_or(|g| g == 1), "{path}");
    }
    let labels = server.get(at).await.ok().root().find("metadata.labels").to_doc();
    for n in ["one", "two", "three"] {
        assert!(labels.get(n).exists(), "{path}: {labels:?}");
    }
    // A stale revision is refused with the words that clients retry on.
    let mut stale = server.get(at).await.ok();
    stale.edit().at(k::METADATA).set(k::RESOURCE_VERSION, "1");
    let why = server.put(at, &stale).await.fails(409);
    assert!(why.contains("the object has been modified"), "{path}: {why}");
    stale.edit().at(k::METADATA).set(k::RESOURCE_VERSION, "x");
    let why = server.put(at, &stale).await.fails(500);
    assert_eq!(why, "strconv.ParseUint: parsing \"x\": invalid syntax", "{path}");
    let apply = server
        .send("PATCH", at, &[("content-type", "application/apply-patch+yaml")], Bytes::from("a: b"))
        .await;
    assert_eq!(apply.code, 415, "{path}");
    assert!(kind.verbs.contains(&apimachinery::call::Verb::Patch));
}

async fn views(server: &Server, path: &str, first: &str) {
    let table = server
        .send("GET", path, &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")], Bytes::new())
        .await
        .ok();
    let columns = table.get("columnDefinitions").len();
    assert!(table.get("columnDefinitions").items().any(|c| c.get(k::NAME).str() == "Name"), "{path}");
    for row in table.get("rows").items() {
        assert_eq!(row.get("cells").len(), columns, "{path}");
        assert_eq!(row.get(k::OBJECT).get(k::KIND).str(), "PartialObjectMetadata", "{path}");
    }
    let metadata = server
        .send(
            "GET",
            path,
            &[("accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")],
            Bytes::new(),
        )
        .await
        .ok();
    assert!(metadata.get(k::ITEMS).items().all(|i| i.len() == 3), "{path}");
    let watch = format!(
        "{path}?watch=1&timeoutSeconds=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    for form in ["PartialObjectMetadata", "Table"] {
        let accept = format!("application/json;as={form};v=v1;g=meta.k8s.io");
        let events = server.send("GET", &watch, &[("accept", &accept)], Bytes::new()).await.ok();
        assert!(events.root().items().any(|event| event.get(k::TYPE).str() == "BOOKMARK"), "{path}");
        assert!(events.root().items().all(|e| e.get(k::OBJECT).get(k::KIND).str() == form), "{path} {form}");
        if form == "PartialObjectMetadata" {
            server.send("GET", path, &[("accept", &accept)], Bytes::new()).await.fails(406);
        }
    }
    for (selector, found) in [("one%3D1,two", 1), ("one%21%3D1,two", 0), ("one+in+(1,2),!four", 1)] {
        let list = server.get(&format!("{path}?labelSelector={selector}")).await.ok();
        assert_eq!(list.get(k::ITEMS).len(), found, "{path} {selector}");
    }
    let list = server.get(&format!("{path}?fieldSelector=metadata.name%3D{first}")).await.ok();
    assert_eq!(list.get(k::ITEMS).len(), 1, "{path}");
    server.get(&format!("{path}?fieldSelector=no.such%3Dx")).await.fails(400);
}

async fn finalizers(server: &Server, kind: &Kind, path: &str, name: &str) {
    let at = format!("{path}/{name}");
    let mut held = sample(kind, path, name);
    held.edit().at(k::METADATA).set(k::FINALIZERS, vec!["example.com/hold"]);
    let made = server.post(path, &held).await.ok();
    let begun = server.delete(&format!("{at}?gracePeriodSeconds=0")).await.ok();
    assert!(begun.root().find("metadata.deletionTimestamp").exists(), "{path}: {begun:?}");
    assert_eq!(made.root().find("metadata.uid").str(), begun.root().find("metadata.uid").str(), "{path}");
    let remove = doc!({ "metadata": { "finalizers": null } });
    server.patch(&at, "merge", &remove).await.ok();
    if kind.kind != "Namespace" {
        server.get(&at).await.fails(404);
    }
}

fn revision(doc: &Doc) -> u64 {
    doc.root().find("metadata.resourceVersion").str().parse().unwrap()
}
