//! Requests of any kind, byte by byte at a whole API server in virtual time: every answer is one that upstream has, a
//! refusal changes nothing, what is stored can be read in every form, and one seed gives the same answers twice.

use std::sync::Arc;
use std::time::Duration;

use api::{Class, Kind};
use apimachinery::call::{BoxFuture, Reply, User, Who};
use apimachinery::codec::{json, protobuf, yaml};
use apimachinery::schema::{decode, normalise::normalise};
use apimachinery::{Call, Doc, k};
use apiserver::server::Handler;
use apiserver::{Api, handle};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde_json::Value;

use super::shown;
use crate::dice::Dice;
use harness::{Server, shown as event_shown};

use crate::{Verdict, check, make, play, wire};

const CODES: [u16; 15] = [200, 201, 202, 400, 401, 403, 404, 405, 406, 409, 410, 413, 415, 422, 504];
/// What upstream calls a fault of its own, though it is the client's.
const FAULT: &str = "resourceVersion should not be set on objects to be created";
/// What is answered, without a body, to what is no request.
const NO_REQUEST: [u16; 3] = [400, 414, 431];
const MEDIA: [&str; 9] = [
    "application/json",
    "application/yaml",
    protobuf::MEDIA_TYPE,
    "application/merge-patch+json",
    "application/json-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "text/plain",
    "",
];
const ACCEPTS: [&str; 5] = [
    "application/json",
    protobuf::MEDIA_TYPE,
    "application/json;as=Table;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "image/png",
];
const QUERIES: [(&str, &[&str]); 12] = [
    ("dryRun", &["All", "Some", ""]),
    ("fieldValidation", &["Strict", "Warn", "Ignore", "x"]),
    ("fieldManager", &["me", "%00"]),
    ("limit", &["1", "0", "-1", "x"]),
    ("labelSelector", &["a=b", "a+in+(", "!a"]),
    ("fieldSelector", &["metadata.name=x1", "a=b", "x"]),
    ("resourceVersion", &["0", "1", "99999999", "x"]),
    ("resourceVersionMatch", &["Exact", "NotOlderThan", "x"]),
    ("continue", &["*", "e30", ""]),
    ("propagationPolicy", &["Foreground", "Orphan", "x"]),
    ("gracePeriodSeconds", &["0", "5", "-1", "x"]),
    ("pretty", &["1"]),
];

/// What paths end with that should not.
const ENDS: [&str; 12] =
    ["/", "/x", "/%2f", "/%zz", "//", "/status/x", "/%00", "/%ff", "/..", "%", "/\u{e9};a=b", "/a b"];
/// Paths of no object.
const PATHS: [&str; 14] = [
    "/",
    "",
    "*",
    "/api",
    "/apis",
    "/api/v1",
    "/apis/apps",
    "/apis/apps/v1",
    "//api//v1//pods",
    "/openapi/v2",
    "/api/v1/watch/pods?timeoutSeconds=1",
    "/api/v1/watch",
    "/api/v1/namespaces/default/pods/x/exec",
    "/readyz/x",
];

/// One request.
struct Request {
    method: &'static str,
    uri: String,
    sent: wire::Sent,
    /// The collection it is about.
    base: String,
    kind: Arc<Kind>,
    version: usize,
}

impl Request {
    fn throw(dice: &mut Dice, kinds: &[Arc<Kind>]) -> Request {
        let kind = kinds[dice.upto(kinds.len())].clone();
        let version = dice.upto(kind.versions.len());
        let gv = &kind.versions[version].gv;
        let root = if gv.group.is_empty() { format!("/api/{}", gv.version) } else { format!("/apis/{gv}") };
        let namespace = if kind.is_namespaced() { "/namespaces/default" } else { "" };
        let base = format!("{root}{namespace}/{}", kind.storage.resource);
        let name = harness::name(&kind, 1 + dice.below(2) as u8);
        let method = match dice.rarely(20) {
            true => dice.pick(&["BREW", "OPTIONS", "TRACE", "CONNECT", "get", "", "P\u{e9}"]),
            false => dice.pick(&["POST", "POST", "PUT", "PATCH", "PATCH", "GET", "DELETE", "HEAD"]),
        };
        let mut uri =
            if method == "POST" || dice.rarely(8) { base.clone() } else { format!("{base}/{name}") };
        if dice.rarely(5) && !kind.subresources.is_empty() {
            let sub = kind.subresources[dice.upto(kind.subresources.len())].name;
            uri = format!("{base}/{name}/{sub}");
        }
        if dice.rarely(20) {
            uri.push_str(dice.pick(&ENDS));
        }
        if dice.rarely(20) {
            uri = dice.pick(&PATHS).to_owned();
        }
        for i in 0..dice.upto(3) {
            let (key, values) = dice.pick(&QUERIES);
            uri.push_str(&format!("{}{key}={}", if i == 0 { "?" } else { "&" }, dice.pick(values)));
        }
        let media = match method {
            _ if dice.rarely(10) => dice.pick(&MEDIA),
            "PATCH" => dice.pick(&MEDIA[3..6]),
            _ => dice.pick(&MEDIA[..3]),
        };
        let mut headers = if media.is_empty() { Vec::new() } else { vec![("content-type", media)] };
        if dice.rarely(6) {
            headers.push(("accept", dice.pick(&ACCEPTS)));
        }
        let sample = harness::sample(&kind, &base, &name);
        let body = body(dice, &kind, version, sample, media);
        let sent = wire::write(dice, method, &uri, &headers, &body);
        Request { method, uri, sent, base, kind, version }
    }
}

fn body(dice: &mut Dice, kind: &Kind, version: usize, mut sample: Doc, media: &str) -> Vec<u8> {
    let version = &kind.versions[version];
    if dice.rarely(3) {
        // Random fields over the least that is accepted.
        let more = make::object(dice, version.schema, 4);
        sample = apimachinery::patch::merge::apply(&more, sample.root());
    }
    let mut out = match media {
        "application/json-patch+json" => {
            let path =
                dice.pick(&["/metadata/labels", "/spec", "/metadata/annotations/a", "/data", "/x", ""]);
            let op = dice.pick(&["add", "remove", "replace", "test"]);
            serde_json::json!([{ "op": op, "path": path, "value": make::value(dice, 2) }]).to_string().into()
        }
        protobuf::MEDIA_TYPE => {
            sample.edit().set(k::API_VERSION, version.gv.to_string()).set(k::KIND, &*kind.kind);
            let normal = normalise(sample.root(), version.schema);
            protobuf::object(normal.root()).unwrap_or_default()
        }
        _ => sample.to_json(),
    };
    if dice.rarely(5) {
        make::damage(dice, &mut out);
    }
    if dice.rarely(20) {
        out.clear();
        make::json(dice, 3, &mut out);
    }
    out
}

pub fn run(dice: &mut Dice) -> Verdict {
    let kinds = api::kinds();
    let requests: Vec<Request> = (0..1 + dice.upto(8)).map(|_| Request::throw(dice, &kinds)).collect();
    for request in &requests {
        dice.say("request", &request.sent.bytes);
    }
    let seed = dice.below(1 << 32);
    let first = base::sim::run(seed, all(&requests))?;
    let second = base::sim::run(seed, all(&requests))?;
    check(first == second, || format!("{first:?} became {second:?}"))
}

/// The answers to all of them.
async fn all(requests: &[Request]) -> Result<Vec<String>, String> {
    let server = Server::start().await;
    let mut answers = Vec::new();
    for request in requests {
        let what = format!("{} {}", request.method, request.uri);
        answers.push(one(&server, request).await.map_err(|why| format!("{what}: {why}"))?);
    }
    Ok(answers)
}

async fn revision(server: &Server) -> Result<u64, String> {
    server.api.store.revision().await.map_err(|e| e.to_string())
}

/// The whole line behind the listener, for whoever shows no credentials as the one who may do everything.
struct Admin(Arc<Api>);

impl Handler for Admin {
    fn handle(&self, mut call: Box<Call>) -> BoxFuture<'_, Reply> {
        if matches!(&call.who, Who::Presented { bearer: None, .. }) {
            call.who = Who::Component(admin());
        }
        Box::pin(handle(&self.0, call))
    }
}

fn admin() -> Arc<User> {
    Arc::new(User::new("admin", &["system:masters"]))
}

async fn one(server: &Server, request: &Request) -> Result<String, String> {
    let before = revision(server).await?;
    let sent = &request.sent;
    let (got, ended) = wire::exchange(Arc::new(Admin(server.api.clone())), sent).await;
    // A write goes on when its connection is gone.
    base::time::sleep(Duration::from_secs(1)).await;
    if let Some(panic) = play::last_panic() {
        return Err(format!("panic: {panic}"));
    }
    let answers = wire::responses(&got, sent.bytes.starts_with(b"HEAD "), ended)?;
    check(!sent.right || answers.len() == 1, || format!("{} answers", answers.len()))?;
    let after = revision(server).await?;
    let done = answers.iter().any(|a| a.code < 400) || answers.is_empty();
    let reads = ["GET", "HEAD"].contains(&request.method) || request.uri.contains("dryRun=All");
    check(after == before || done && !(sent.right && reads), || {
        format!("{answers:?}, and the store went from {before} to {after}")
    })?;
    let mut told = Vec::new();
    for answer in &answers {
        let doc = judge(request, answer, ended)
            .map_err(|why| format!("{}: {why}: {}", answer.code, String::from_utf8_lossy(&answer.body)))?;
        if sent.right && answer.code < 400 && after > before && request.method != "DELETE" {
            stored(server, request, answer, &doc, before).await?;
        }
        told.push(format!("{} {}", answer.code, shown(&doc)));
    }
    Ok(told.join(", "))
}

/// What an answer says, if it is one that upstream has.
fn judge(request: &Request, answer: &wire::Response, ended: bool) -> Result<Doc, String> {
    let (code, right) = (answer.code, request.sent.right);
    if !right && answer.body.is_empty() && NO_REQUEST.contains(&code) {
        return Ok(Doc::default());
    }
    if request.sent.bytes.starts_with(b"HEAD ") {
        return check(CODES.contains(&code), || "no such code".to_owned()).map(|()| Doc::default());
    }
    let doc = match answer.media.split(';').next() {
        Some("application/json") => {
            // Of a watch, one event a line.
            let lines = answer.body.split_inclusive(|c| *c == b'\n').filter(|l| ended || l.ends_with(b"\n"));
            let parse = |text: &[u8]| json::parse(text.to_vec()).map(|parsed| parsed.doc);
            match (parse(&answer.body), code) {
                (Ok(doc), _) => Ok(doc),
                (Err(_), 200) => lines.map(parse).collect::<Result<Vec<_>, _>>().map(|_| Doc::default()),
                (Err(err), _) => Err(err),
            }
            .map_err(|e| e.to_string())?
        }
        Some("application/yaml") => yaml::parse(&answer.body).map_err(|e| e.to_string())?.doc,
        Some(protobuf::MEDIA_TYPE) if !answer.media.contains("stream") => {
            protobuf::read(&answer.body).map_err(|e| e.to_string())?.doc
        }
        _ => Doc::default(),
    };
    let fault = code == 500 && doc.get(k::MESSAGE).str() == FAULT;
    check(CODES.contains(&code) || fault, || "no such code".to_owned())?;
    if code >= 400 {
        let told = (doc.get(k::KIND).str(), doc.get(k::CODE).i64(), doc.get("status").str());
        check(told == ("Status", i64::from(code), "Failure"), || "no Status".to_owned())?;
        check(fault || !doc.get(k::REASON).str().is_empty(), || "no reason".to_owned())?;
    }
    Ok(doc)
}

/// What was stored can be read in every way, and writing what was read changes nothing.
async fn stored(
    server: &Server,
    request: &Request,
    response: &wire::Response,
    answer: &Doc,
    before: u64,
) -> Verdict {
    let kind = &request.kind;
    let json = response.media == "application/json";
    if kind.class == Class::Virtual || !json || answer.get(k::KIND).str() != &*kind.kind {
        return Ok(());
    }
    let name = answer.root().find("metadata.name").str();
    let at = format!("{}/{name}", request.base);
    let got = server.get(&at).await;
    check(got.code == 200, || format!("stored, and read: {}", got.pretty()))?;
    let read = got.doc;
    check(read == *answer, || format!("answered {}, read {}", shown(answer), shown(&read)))?;
    let list = server.get(&request.base).await;
    let within = |item: &&Doc| item.root().find("metadata.uid").same(read.root().find("metadata.uid"));
    let items: Vec<Doc> = list.doc.get(k::ITEMS).items().map(|i| i.to_doc()).collect();
    check(items.iter().any(|i| within(&i)), || format!("{name} is not in the list"))?;
    watched(server, &request.base, &read, before).await?;
    let whole = forms(request, &read)?;
    if !read.root().find("status.addresses").is_empty() && &*kind.kind == "Node" {
        // Upstream looks for repeated ones when a node is changed, not when it is made.
        return Ok(());
    }
    let now = revision(server).await?;
    let encoded = protobuf::object(read.root()).unwrap_or_default();
    let mut bodies = vec![("application/json", read.to_json())];
    if whole {
        bodies.push((protobuf::MEDIA_TYPE, encoded));
    }
    if yaml::parse(&read.to_json()).is_ok() {
        bodies.push(("application/yaml", read.to_json()));
    }
    for (media, body) in bodies {
        let put = server.send("PUT", &at, &[("content-type", media)], body.into()).await;
        check(put.code == 200, || format!("PUT of what was read in {media}: {}", put.pretty()))?;
        check(put.doc == read, || format!("PUT in {media} made {} of {}", shown(&put.doc), shown(&read)))?;
    }
    check(revision(server).await? == now, || "PUT of what was read is a change".to_owned())
}

async fn watched(server: &Server, base: &str, read: &Doc, from: u64) -> Verdict {
    let uri = format!("{base}?watch=1&resourceVersion={from}");
    let reply = server.reply(admin(), "GET", &uri, &[], Bytes::new()).await;
    let Reply::Watch(mut watch) = reply else { return Err(format!("no watch: {reply:?}")) };
    let event = base::time::timeout(Duration::from_secs(5), watch.events.next()).await;
    let event = event.ok().flatten().and_then(|events| events.into_iter().next());
    let event = event.map(event_shown).ok_or("no event of it")?;
    check(event.get(k::OBJECT).same(read.root()), || {
        format!("watched {}, read {}", shown(&event), shown(read))
    })
}

/// The same object in YAML and protobuf; whether protobuf has a word for all of it, which it has not for empty lists.
fn forms(request: &Request, read: &Doc) -> Result<bool, String> {
    let text = read.to_json();
    let again = json::parse(text.clone()).map_err(|e| format!("as JSON: {e}"))?;
    check(again.doc == *read, || format!("as JSON: {}", shown(&again.doc)))?;
    serde_json::from_slice::<Value>(&text).map_err(|e| format!("as JSON elsewhere: {e}"))?;
    // Characters that YAML has no place for make it refuse the text.
    if let Ok(parsed) = yaml::parse(&text) {
        check(parsed.doc == *read, || format!("as YAML: {}", shown(&parsed.doc)))?;
    }
    let bytes = protobuf::object(read.root()).ok_or("it has no form in protobuf")?;
    let back = protobuf::read(&bytes).map_err(|e| format!("as protobuf: {e}"))?;
    let schema = request.kind.versions[request.version].schema;
    let back = decode::decode(&back, schema).map_err(|e| format!("as protobuf: {e}"))?;
    check(super::protobuf::same(back.doc.root(), read.root()), || {
        format!("as protobuf: {}, was {}", shown(&back.doc), shown(read))
    })?;
    Ok(back.doc == *read)
}
