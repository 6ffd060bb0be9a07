//! OpenAPI, versions 2 and 3, made from the schema table and the list of kinds when first asked for.
//!
//! Clients validate, explain and patch by it. [`paths`] says what can be done, [`definitions`] what objects look
//! like, [`v2`] and [`v3`] write both down, [`protobuf`] encodes version 2 once more. What was made is kept
//! compressed, as most clients take it, until the kinds change. Upstream: k8s.io/kube-openapi/pkg/{handler,handler3}.

mod definitions;
mod descriptions;
mod paths;
mod protobuf;
#[cfg(test)]
mod tests;
mod v2;
mod v3;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use apimachinery::call::{BoxFuture, Raw, RawBody};
use apimachinery::codec::json;
use apimachinery::gvk::GroupVersion;
use apimachinery::{Call, Doc, Reply, Status, doc};
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use self::descriptions::Descriptions;
use crate::kinds::Table;
use crate::{Api, PathHandler};

const V2: &str = "/openapi/v2";
const V3: &str = "/openapi/v3";
const TITLE: &str = "Kubernetes";
const JSON: &str = "application/json";
/// Clients ask for it with an `@` before the version, which no media type may have in an answer.
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const PROTOBUF_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// Answers `/openapi/v2`, `/openapi/v3` and one document per group and version below it.
#[derive(Default)]
pub struct OpenApi {
    made: Mutex<Option<Made>>,
}

/// What was made from a table of kinds so far.
struct Made {
    // Invariant: everything else is of this table.
    table: Arc<Table>,
    /// Version 2 by media type.
    second: BTreeMap<&'static str, Document>,
    /// Version 3 by path: `apis/apps/v1`. Empty until it is made as a whole.
    third: BTreeMap<String, Document>,
}

/// A document, compressed.
struct Document {
    gzip: Bytes,
    hash: String,
}

impl PathHandler for OpenApi {
    fn serves(&self, path: &str) -> bool {
        path == V2 || path == V3 || path.starts_with("/openapi/v3/")
    }

    fn answer<'a>(&'a self, api: &'a Arc<Api>, path: &'a str, call: &'a Call) -> BoxFuture<'a, Reply> {
        Box::pin(async move { self.respond(&api.kinds.table(), path, call) })
    }
}

impl OpenApi {
    fn respond(&self, table: &Arc<Table>, path: &str, call: &Call) -> Reply {
        let mut made = self.made.lock().expect("nobody panics holding it");
        if made.as_ref().is_none_or(|made| !Arc::ptr_eq(&made.table, table)) {
            *made = Some(Made::new(table));
        }
        let made = made.as_mut().expect("made just now");
        if path == V2 {
            return match accepted(call, &[JSON, PROTOBUF, PROTOBUF_ASKED]) {
                Some(JSON) => made.second(JSON).answer(JSON, call),
                Some(_) => made.second(PROTOBUF).answer(PROTOBUF, call),
                None => Reply::Status(Status::not_acceptable(&format!("{JSON}, {PROTOBUF}"))),
            };
        }
        if accepted(call, &[JSON]).is_none() {
            return Reply::Status(Status::not_acceptable(JSON));
        }
        let rest = path.trim_start_matches(V3).trim_matches('/');
        let third = made.third();
        if rest.is_empty() {
            return index(third);
        }
        let Some(document) = third.get(rest) else { return Reply::Status(Status::unknown_path()) };
        // A client that names the hash has an address that never changes its content.
        match call.options.query.iter().find(|(name, _)| name == "hash") {
            Some((_, hash)) if *hash != document.hash => {
                let headers = vec![("location".to_owned(), address(rest, document))];
                let body = RawBody::Bytes(Bytes::new());
                Reply::Raw(Raw { code: 301, content_type: JSON.into(), headers, body })
            }
            _ => document.answer(JSON, call),
        }
    }
}

impl Made {
    fn new(table: &Arc<Table>) -> Made {
        Made { table: Arc::clone(table), second: BTreeMap::new(), third: BTreeMap::new() }
    }

    /// Every group and version, in order.
    fn served(&self) -> Vec<GroupVersion> {
        let all: BTreeSet<_> =
            self.table.all().iter().flat_map(|kind| kind.versions.iter().map(|v| v.gv.clone())).collect();
        all.into_iter().collect()
    }

    fn second(&mut self, media: &'static str) -> &Document {
        if !self.second.contains_key(media) {
            let text = descriptions::unpack();
            let document = v2::document(&self.table, &self.served(), &Descriptions::of(&text));
            let bytes = if media == JSON { document.to_json() } else { protobuf::encode(&document) };
            self.second.insert(media, Document::new(&bytes));
        }
        &self.second[media]
    }

    fn third(&mut self) -> &BTreeMap<String, Document> {
        if self.third.is_empty() {
            let text = descriptions::unpack();
            let (about, served) = (Descriptions::of(&text), self.served());
            for (name, paths) in paths::all(&self.table, &about) {
                self.third.insert(name, Document::new(&v3::document(&paths, &served, &about)));
            }
        }
        &self.third
    }
}

impl Document {
    fn new(bytes: &[u8]) -> Document {
        let hash = Sha256::digest(bytes).iter().map(|b| format!("{b:02X}")).collect();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(bytes).expect("memory takes it");
        let mut gzip = gzip.finish().expect("memory takes it");
        gzip.shrink_to_fit();
        Document { gzip: gzip.into(), hash }
    }

    fn plain(&self) -> Bytes {
        let mut out = Vec::new();
        GzDecoder::new(&self.gzip[..]).read_to_end(&mut out).expect("it was packed above");
        out.into()
    }

    fn answer(&self, content_type: &str, call: &Call) -> Reply {
        let etag = format!("\"{}\"", self.hash);
        let header = |name| call.wire.headers.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str());
        let known = header("if-none-match").any(|v| v == "*" || v.split(',').any(|tag| tag.trim() == etag));
        let gzip = header("accept-encoding").any(|v| v.split(',').any(takes_gzip));
        let mut headers = vec![("etag".to_owned(), etag), ("vary".into(), "Accept, Accept-Encoding".into())];
        if call.options.query.iter().any(|(name, _)| name == "hash") {
            headers.push(("cache-control".into(), "public, immutable, max-age=31536000".into()));
        }
        let (code, body) = match (known, gzip) {
            (true, _) => (304, Bytes::new()),
            (false, true) => {
                headers.push(("content-encoding".into(), "gzip".into()));
                (200, self.gzip.clone())
            }
            (false, false) => (200, self.plain()),
        };
        let content_type = content_type.to_owned();
        Reply::Raw(Raw { code, content_type, headers, body: RawBody::Bytes(body) })
    }
}

fn takes_gzip(form: &str) -> bool {
    let mut parts = form.split(';').map(str::trim);
    parts.next() == Some("gzip") && parts.next().is_none_or(|q| !matches!(q, "q=0" | "q=0.0"))
}

/// The first of the offered media types in the order in which the client names them; the first of all where it
/// takes anything.
fn accepted<'m>(call: &Call, offered: &[&'m str]) -> Option<&'m str> {
    let accept = call.wire.headers.iter().find(|(name, _)| name == "accept").map_or("", |(_, v)| v.as_str());
    if accept.trim().is_empty() {
        return offered.first().copied();
    }
    accept.split(',').find_map(|form| {
        let media = form.split(';').next().unwrap_or_default().trim();
        if matches!(media, "*/*" | "application/*") {
            return offered.first().copied();
        }
        offered.iter().find(|offer| **offer == media).copied()
    })
}

fn index(documents: &BTreeMap<String, Document>) -> Reply {
    let mut out = doc!({ "paths": {} });
    for (path, document) in documents {
        out.edit().at("paths").set(path, doc!({ "serverRelativeURL": address(path, document) }));
    }
    Reply::Doc { code: 200, doc: Box::new(out), warnings: Vec::new() }
}

fn address(path: &str, document: &Document) -> String {
    format!("{V3}/{path}?hash={}", document.hash)
}

/// What clients of Kubernetes look for in an operation.
fn mark(operation: &mut Doc, of: &paths::Operation) {
    if let Some((action, gv, kind)) = &of.action {
        let gvk = doc!({ "group": gv.group, "version": gv.version, "kind": kind });
        operation.edit().set("x-kubernetes-action", *action).set("x-kubernetes-group-version-kind", gvk);
    }
}

/// An object of parts that are never put into one document.
fn write_object(parts: &BTreeMap<String, Doc>, out: &mut Vec<u8>) {
    out.push(b'{');
    for (i, (name, part)) in parts.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        json::write_string(name, out);
        out.push(b':');
        json::write(part.root(), out);
    }
    out.push(b'}');
}
