//! The last step of every request: a [`Reply`] as an HTTP response. Lists and watches leave in pieces; nothing
//! that is stored as JSON is parsed again.

use apimachinery::call::{List, Media, Raw, RawBody, Stored, Watch, WatchEvent};
use apimachinery::codec::{json, yaml};
use apimachinery::stored::FETCHED;
use apimachinery::{Doc, Reply, Status, doc, k};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;

use super::protobuf;
use super::request::{ACCEPTED, ACCEPTED_STREAMS};
use super::upgrade::Pending;
use crate::registry::render::bookmark;

/// The body of every response.
pub type ReplyBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// How much of a list leaves at a time, in bytes.
const PIECE_BYTES: usize = 64 * 1024;
/// What the last object of a piece usually adds.
const PIECE_MORE: usize = 4 * 1024;
const JSON: &str = "application/json";

pub(super) fn empty() -> ReplyBody {
    whole(Bytes::new())
}

pub(super) fn whole(bytes: Bytes) -> ReplyBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Form {
    /// A person reads it.
    pub(super) pretty: bool,
    /// What is wanted.
    pub(super) media: Media,
    /// JSON is fine too, where there is no such form.
    pub(super) json: bool,
}

pub(super) fn reply(reply: Reply, form: Form, upgrade: Option<Pending>) -> Response<ReplyBody> {
    let pretty = form.pretty && form.media == Media::Json;
    let made = match form.media {
        Media::Json => return as_json(reply, pretty, upgrade),
        Media::Yaml => yaml(reply),
        Media::Protobuf => protobuf::reply(reply),
    };
    let reply = match made.map_err(|other| *other) {
        Ok(response) => return response,
        Err(Reply::Watch(_)) if !form.json => Reply::Status(Status::not_acceptable(ACCEPTED_STREAMS)),
        Err(Reply::Object { .. } | Reply::Doc { .. } | Reply::List(_)) if !form.json => {
            Reply::Status(Status::not_acceptable(ACCEPTED))
        }
        Err(other) => other,
    };
    as_json(reply, pretty, upgrade)
}

fn as_json(reply: Reply, pretty: bool, upgrade: Option<Pending>) -> Response<ReplyBody> {
    match reply {
        Reply::Object { code, object, warnings } if pretty => document(code, &object.doc(), true, &warnings),
        Reply::Object { code, object, warnings } => with(code, JSON, whole(object.json.clone()), &warnings),
        Reply::Doc { code, doc, warnings } => document(code, &doc, pretty, &warnings),
        Reply::Status(status) => failure(&status, pretty),
        Reply::List(list) => list_response(list, pretty),
        Reply::Watch(watch) => watch_response(watch),
        Reply::Raw(raw) => raw_response(raw),
        Reply::Upgrade(taker) => match upgrade {
            Some(pending) => pending.accept(taker).map(|()| empty()),
            None => {
                failure(&Status::bad_request("unable to upgrade: missing upgrade headers in request"), pretty)
            }
        },
    }
}

pub(super) fn with(
    code: u16,
    content_type: &str,
    body: ReplyBody,
    warnings: &[String],
) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let content_type = match content_type {
        JSON => Ok(HeaderValue::from_static(JSON)),
        other => HeaderValue::try_from(other),
    };
    let headers = response.headers_mut();
    if let Ok(content_type) = content_type {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    add_headers(headers, warnings.iter().map(|text| ("warning".to_owned(), warning(text))).collect());
    response
}

pub(super) fn add_headers(to: &mut HeaderMap, headers: Vec<(String, String)>) {
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            to.append(name, value);
        }
    }
}

/// Source: RFC 7234 section 5.5, as clients of the API read it: code 299, no agent, quoted text.
fn warning(text: &str) -> String {
    let clean: String = text.chars().filter(|c| !c.is_control()).collect();
    format!("299 - \"{}\"", clean.replace('\\', "\\\\").replace('"', "\\\""))
}

fn document(code: u16, doc: &Doc, pretty: bool, warnings: &[String]) -> Response<ReplyBody> {
    let mut out = Vec::with_capacity(1024);
    if pretty {
        json::write_pretty(doc.root(), 0, &mut out)
    } else {
        json::write(doc.root(), &mut out)
    }
    out.push(b'\n');
    with(code, JSON, whole(out.into()), warnings)
}

/// The reply in YAML, or the reply itself where there is none.
fn yaml(reply: Reply) -> Result<Response<ReplyBody>, Box<Reply>> {
    let document = |code, doc: &Doc, warnings: &[String]| {
        with(code, yaml::MEDIA_TYPE, whole(yaml::write(doc.root()).into()), warnings)
    };
    Ok(match reply {
        Reply::Object { code, object, warnings } => document(code, &object.doc(), &warnings),
        Reply::Doc { code, doc, warnings } => document(code, &doc, &warnings),
        Reply::Status(status) => failed(&status, document(status.code, &status.to_doc(), &[])),
        Reply::List(list) => match json::parse(list_text(&list)) {
            Ok(parsed) => document(200, &parsed.doc, &list.warnings),
            Err(_) => return Err(Box::new(Reply::List(list))),
        },
        other => return Err(Box::new(other)),
    })
}

fn failure(status: &Status, pretty: bool) -> Response<ReplyBody> {
    failed(status, document(status.code, &status.to_doc(), pretty, &[]))
}

/// What a failure says in headers.
pub(super) fn failed(status: &Status, mut response: Response<ReplyBody>) -> Response<ReplyBody> {
    if status.details.retry_after_seconds > 0 {
        let value = status.details.retry_after_seconds.to_string();
        add_headers(response.headers_mut(), vec![("retry-after".into(), value)]);
    }
    if status.code == 401 {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// What stands before the metadata of a list's objects, which usually is the same in all: `kind` and `apiVersion`.
fn type_meta(list: &List) -> Vec<u8> {
    let first = list.items.first().map_or(&b""[..], |item| &item.json);
    first[..first.len() - without_type_meta(first).len()].to_vec()
}

/// An object's text after `kind` and `apiVersion`, with which stored objects begin and which list items lack.
fn without_type_meta(json: &[u8]) -> &[u8] {
    let mut rest = match json.strip_prefix(b"{") {
        Some(rest) => rest,
        None => return json,
    };
    for _ in 0..2 {
        let Some(value) =
            [&b"\"kind\":\""[..], b"\"apiVersion\":\""].iter().find_map(|p| rest.strip_prefix(*p))
        else {
            break;
        };
        let Some(end) = value.iter().position(|c| *c == b'"') else { break };
        rest = value[end + 1..].strip_prefix(b",").unwrap_or(&value[end + 1..]);
    }
    rest
}

pub(super) fn list_metadata(list: &List) -> Doc {
    let mut meta = doc!({ "resourceVersion": list.revision.to_string() });
    if !list.continue_.is_empty() {
        meta.edit().set(k::CONTINUE, &list.continue_);
        meta.edit().set_opt(k::REMAINING_ITEM_COUNT, list.remaining);
    }
    meta
}

fn list_head(list: &List) -> Vec<u8> {
    let head = doc!({ "kind": list.kind, "apiVersion": list.api_version });
    let mut out = head.to_json();
    out.pop();
    out.extend_from_slice(b",\"metadata\":");
    json::write(list_metadata(list).root(), &mut out);
    out.extend_from_slice(b",\"items\":[");
    out
}

fn list_text(list: &List) -> Vec<u8> {
    let (mut text, usual) = (list_head(list), type_meta(list));
    for (i, item) in list.items.iter().enumerate() {
        push_item(item, &usual, i > 0, &mut text);
    }
    text.extend_from_slice(b"]}");
    text
}

fn list_response(list: List, pretty: bool) -> Response<ReplyBody> {
    let warnings = list.warnings.clone();
    if pretty {
        // A list too long to be read again, or one level too deep, is sent as it is.
        if let Ok(parsed) = json::parse(list_text(&list)) {
            return document(200, &parsed.doc, true, &warnings);
        }
    }
    let mut start = Some(list_head(&list));
    let usual = type_meta(&list);
    let mut items = list.items.into_iter();
    let (mut fetched, mut comma, mut done) = (0, false, false);
    let pieces = std::iter::from_fn(move || {
        if done {
            return None;
        }
        let mut piece = Vec::with_capacity(PIECE_BYTES + PIECE_MORE);
        piece.extend_from_slice(&start.take().unwrap_or_default());
        while piece.len() < PIECE_BYTES {
            if fetched == 0 {
                let next = items.as_slice();
                Stored::fetch_texts(&next[..next.len().min(FETCHED)]);
                fetched = FETCHED;
            }
            let Some(item) = items.next() else {
                piece.extend_from_slice(b"]}\n");
                done = true;
                break;
            };
            push_item(&item, &usual, comma, &mut piece);
            (comma, fetched) = (true, fetched - 1);
        }
        Some(Ok(Frame::data(Bytes::from(piece))))
    });
    with(200, JSON, StreamBody::new(stream::iter(pieces)).boxed_unsync(), &warnings)
}

fn push_item(item: &Stored, usual: &[u8], comma: bool, out: &mut Vec<u8>) {
    if comma {
        out.push(b',');
    }
    out.push(b'{');
    out.extend_from_slice(item.json.strip_prefix(usual).unwrap_or_else(|| without_type_meta(&item.json)));
}

fn watch_response(watch: Watch) -> Response<ReplyBody> {
    let Watch { api_version, kind, events } = watch;
    let frames = events.map(move |events| {
        let mut out = BytesMut::with_capacity(events.iter().map(size).sum());
        for event in &events {
            frame(event, &api_version, &kind, &mut out);
        }
        Ok(Frame::data(out.freeze()))
    });
    with(200, JSON, StreamBody::new(frames).boxed_unsync(), &[])
}

/// About how long an event's frame becomes, in bytes.
fn size(event: &WatchEvent) -> usize {
    match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
            object.json.len() + 64
        }
        WatchEvent::Bookmark { .. } => 256,
        WatchEvent::Error(_) | WatchEvent::Rendered { .. } => 1024,
    }
}

fn frame(event: &WatchEvent, api_version: &str, kind: &str, out: &mut BytesMut) {
    let mut push = |type_: &str, object: &[u8]| {
        for part in [b"{\"type\":\"", type_.as_bytes(), b"\",\"object\":", object, b"}\n"] {
            out.extend_from_slice(part);
        }
    };
    match event {
        WatchEvent::Added(object) => push("ADDED", &object.json),
        WatchEvent::Modified(object) => push("MODIFIED", &object.json),
        WatchEvent::Deleted(object) => push("DELETED", &object.json),
        WatchEvent::Error(status) => push("ERROR", &status.to_doc().to_json()),
        WatchEvent::Rendered { kind, doc } => push(kind, &doc.to_json()),
        WatchEvent::Bookmark { revision, initial } => {
            push("BOOKMARK", &bookmark(*revision, *initial, api_version, kind).to_json());
        }
    }
}

fn raw_response(raw: Raw) -> Response<ReplyBody> {
    let body = match raw.body {
        RawBody::Bytes(bytes) => whole(bytes),
        RawBody::Stream(pieces) => StreamBody::new(pieces.map(|piece| piece.map(Frame::data))).boxed_unsync(),
    };
    let mut response = with(raw.code, &raw.content_type, body, &[]);
    // What the answer says itself goes before what all answers say: OpenAPI may be cached.
    for (name, _) in &raw.headers {
        response.headers_mut().remove(name);
    }
    add_headers(response.headers_mut(), raw.headers);
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use apimachinery::call::Stored;
    use http_body_util::BodyExt as _;

    use super::*;

    #[test]
    fn raw_answers_say_themselves_how_long_they_keep() {
        let raw = |headers: &[(&str, &str)]| {
            let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            let body = RawBody::Bytes(Bytes::new());
            let response = raw_response(Raw { code: 200, content_type: "text/plain".into(), headers, body });
            let all = response.headers().get_all("cache-control").iter();
            all.map(|v| v.to_str().expect("text").to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(raw(&[]), ["no-cache, private"]);
        assert_eq!(raw(&[("cache-control", "public, immutable")]), ["public, immutable"]);
    }

    #[test]
    fn list_items_lack_their_type() {
        let cut = |text: &'static str| std::str::from_utf8(without_type_meta(text.as_bytes())).expect("text");
        assert_eq!(cut(r#"{"kind":"Pod","apiVersion":"v1","metadata":{}}"#), r#""metadata":{}}"#);
        assert_eq!(cut(r#"{"apiVersion":"v1","kind":"Pod"}"#), "}");
        assert_eq!(cut(r#"{"metadata":{}}"#), r#""metadata":{}}"#);
    }

    #[test]
    fn a_list_that_cannot_be_made_pretty_is_sent_as_it_is() {
        base::sim::run(1, async {
            let deep = format!(
                "{{\"metadata\":{}{}}}",
                "[".repeat(json::DEPTH_MAX - 1),
                "]".repeat(json::DEPTH_MAX - 1)
            );
            json::parse(deep.clone()).expect("an object by itself can be read");
            let item = Arc::new(Stored::new(deep.clone().into(), 1, "", "a"));
            let list = List {
                api_version: "v1".into(),
                kind: "ConfigMapList".into(),
                revision: 1,
                continue_: String::new(),
                remaining: None,
                items: vec![item],
                warnings: Vec::new(),
            };
            let sent = list_response(list, true).into_body().collect().await.expect("a body").to_bytes();
            assert!(String::from_utf8_lossy(&sent).contains(&deep[1..]));
        });
    }

    #[test]
    fn warnings_are_quoted() {
        assert_eq!(warning("a \"b\"\n"), "299 - \"a \\\"b\\\"\"");
    }
}
