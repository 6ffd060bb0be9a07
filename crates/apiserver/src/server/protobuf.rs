//! Replies in protobuf. What has no form in it (kinds without a schema, logs, upgrades) goes back to be sent otherwise.
//!
//! Upstream: k8s.io/apimachinery/pkg/runtime/serializer/protobuf, k8s.io/apiserver/pkg/endpoints/handlers/watch.go.

use std::borrow::Cow;

use apimachinery::call::{List, Watch, WatchEvent};
use apimachinery::codec::protobuf::{self, MEDIA_TYPE, watch_frame};
use apimachinery::gvk::GroupVersion;
use apimachinery::{Doc, Reply, Status, schema};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use super::encode::{ReplyBody, failed, list_metadata, whole, with};
use crate::registry::render::bookmark;

/// What a watch's answer calls itself.
const STREAM: &str = "application/vnd.kubernetes.protobuf;stream=watch";

/// The reply in protobuf, or the reply itself where there is none.
pub(super) fn reply(reply: Reply) -> Result<Response<ReplyBody>, Box<Reply>> {
    let document = |code, doc: &Doc, warnings: &[String]| {
        let bytes = protobuf::object(doc.root())?;
        Some(with(code, MEDIA_TYPE, whole(bytes.into()), warnings))
    };
    let made = match &reply {
        Reply::Object { code, object, warnings } => document(*code, &object.doc(), warnings),
        Reply::Doc { code, doc, warnings } => document(*code, doc, warnings),
        Reply::Status(status) => {
            document(status.code, &status.to_doc(), &[]).map(|response| failed(status, response))
        }
        Reply::List(list) => {
            encoded(list).map(|bytes| with(200, MEDIA_TYPE, whole(bytes.into()), &list.warnings))
        }
        Reply::Watch(_) | Reply::Raw(_) | Reply::Upgrade(_) => None,
    };
    match (made, reply) {
        (Some(response), _) => Ok(response),
        (None, Reply::Watch(watch)) if is_known(&watch) => Ok(watch_response(watch)),
        (None, reply) => Err(Box::new(reply)),
    }
}

/// A message says how long it is before it begins, so a list leaves whole.
fn encoded(list: &List) -> Option<Vec<u8>> {
    let items = list.items.iter().map(|item| Cow::Owned(item.doc()));
    protobuf::list(&list.api_version, &list.kind, list_metadata(list).root(), items)
}

fn is_known(watch: &Watch) -> bool {
    GroupVersion::parse(&watch.api_version)
        .is_some_and(|gv| schema::kind(&gv.group, &gv.version, &watch.kind).is_some())
}

fn watch_response(watch: Watch) -> Response<ReplyBody> {
    let Watch { api_version, kind, events } = watch;
    let frames = events.map(move |events| {
        let mut out = BytesMut::new();
        for event in &events {
            out.extend_from_slice(&frame(event, &api_version, &kind));
        }
        Ok(Frame::data(Bytes::from(out)))
    });
    with(200, STREAM, StreamBody::new(frames).boxed_unsync(), &[])
}

fn frame(event: &WatchEvent, api_version: &str, kind: &str) -> Vec<u8> {
    let (type_, doc) = match event {
        WatchEvent::Added(object) => ("ADDED", Cow::Owned(object.doc())),
        WatchEvent::Modified(object) => ("MODIFIED", Cow::Owned(object.doc())),
        WatchEvent::Deleted(object) => ("DELETED", Cow::Owned(object.doc())),
        WatchEvent::Error(status) => ("ERROR", Cow::Owned(status.to_doc())),
        WatchEvent::Rendered { kind, doc } => (*kind, Cow::Borrowed(&**doc)),
        WatchEvent::Bookmark { revision, initial } => {
            ("BOOKMARK", Cow::Owned(bookmark(*revision, *initial, api_version, kind)))
        }
    };
    match protobuf::object(doc.root()) {
        Some(object) => watch_frame(type_, &object),
        None => {
            let status = Status::internal("an object of a watch has no form in protobuf").to_doc();
            watch_frame("ERROR", &protobuf::object(status.root()).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::call::{Raw, RawBody, Stored};
    use apimachinery::codec::json;
    use apimachinery::doc;
    use std::sync::Arc;

    fn stored(doc: &Doc) -> Arc<Stored> {
        let json = doc.to_json().into();
        Arc::new(Stored::new(json, 7, "n", "a"))
    }

    async fn body(response: Response<ReplyBody>) -> (u16, String, Bytes) {
        let (code, kind) = (response.status().as_u16(), response.headers()["content-type"].clone());
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        (code, kind.to_str().expect("text").to_owned(), bytes)
    }

    fn read(bytes: &[u8]) -> String {
        let parsed = protobuf::read(bytes).expect("an envelope");
        let ty = schema::kind("", "v1", parsed.doc.get("kind").str()).expect("a known kind");
        let doc = schema::decode::decode(&parsed, ty).expect("valid").doc;
        String::from_utf8(doc.to_json()).expect("text")
    }

    #[tokio::test]
    async fn objects_lists_and_failures_have_a_form() {
        let map = doc!({ "kind": "ConfigMap", "apiVersion": "v1", "metadata": { "name": "a" }, "data": { "x": "y" } });
        let list = List {
            api_version: "v1".into(),
            kind: "ConfigMapList".into(),
            revision: 7,
            continue_: "more".into(),
            remaining: Some(3),
            items: vec![stored(&map), stored(&map)],
            warnings: Vec::new(),
        };
        let one = r#""metadata":{"name":"a"},"data":{"x":"y"}}"#;
        let meta = r#""metadata":{"resourceVersion":"7","continue":"more","remainingItemCount":3}"#;
        let head = r#"{"kind":"ConfigMap","apiVersion":"v1","#;
        let whole =
            format!(r#"{{"kind":"ConfigMapList","apiVersion":"v1",{meta},"items":[{{{one},{{{one}]}}"#);
        for (given, code, want) in [
            (
                Reply::Object { code: 201, object: stored(&map), warnings: Vec::new() },
                201,
                format!("{head}{one}"),
            ),
            (
                Reply::Doc { code: 200, doc: Box::new(map.clone()), warnings: Vec::new() },
                200,
                format!("{head}{one}"),
            ),
            (Reply::List(list), 200, whole),
        ] {
            let (found, kind, bytes) = body(reply(given).expect("protobuf")).await;
            assert_eq!((found, kind.as_str(), read(&bytes)), (code, MEDIA_TYPE, want));
        }
        let failure = reply(Reply::Status(Status::too_many_requests("later", 2))).expect("protobuf");
        assert_eq!(failure.headers()["retry-after"], "2");
        assert!(read(&body(failure).await.2).contains(r#""reason":"TooManyRequests""#));
    }

    #[tokio::test]
    async fn a_watch_is_frames_of_enveloped_objects() {
        let map = doc!({ "kind": "ConfigMap", "apiVersion": "v1", "metadata": { "name": "a" } });
        let events =
            vec![WatchEvent::Added(stored(&map)), WatchEvent::Bookmark { revision: 9, initial: true }];
        let events = Box::pin(futures_util::stream::iter([events]));
        let watch = Watch { api_version: "v1".into(), kind: "ConfigMap".into(), events };
        let (code, kind, mut bytes) = body(reply(Reply::Watch(watch)).expect("protobuf")).await;
        assert_eq!((code, kind.as_str()), (200, STREAM));
        let mut seen = Vec::new();
        while !bytes.is_empty() {
            let len = u32::from_be_bytes(bytes.split_to(4)[..].try_into().expect("four bytes")) as usize;
            let event =
                protobuf::to_doc(&bytes.split_to(len), schema::kind("", "v1", "WatchEvent").expect("known"));
            seen.push(String::from_utf8(event.expect("an event").to_json()).expect("text"));
        }
        let start = r#""object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"#;
        assert_eq!(
            seen,
            [
                format!(r#"{{"type":"ADDED",{start}"name":"a"}}}}}}"#),
                format!(
                    r#"{{"type":"BOOKMARK",{start}"resourceVersion":"9","annotations":{{"k8s.io/initial-events-end":"true"}}}}}}}}"#
                ),
            ]
        );
    }

    #[test]
    fn what_has_no_form_comes_back() {
        let foreign = json::parse(r#"{"kind":"Thing","apiVersion":"example.com/v1"}"#).expect("JSON").doc;
        assert!(reply(Reply::Doc { code: 200, doc: Box::new(foreign), warnings: Vec::new() }).is_err());
        let raw = Raw {
            code: 200,
            content_type: "text/plain".into(),
            headers: Vec::new(),
            body: RawBody::Bytes(Bytes::new()),
        };
        assert!(reply(Reply::Raw(raw)).is_err());
    }
}
