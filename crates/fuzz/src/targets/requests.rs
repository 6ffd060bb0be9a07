//! Requests of any kind at a whole API server in virtual time: every answer is one that upstream has, a refusal changes
//! nothing, what is stored can be read in every form, and one seed gives the same answers twice.

use std::sync::Arc;
use std::time::Duration;

use api::{Class, Kind};
use apimachinery::call::{Reply, User};
use apimachinery::codec::{json, protobuf, yaml};
use apimachinery::schema::{decode, normalise::normalise};
use apimachinery::{Doc, k};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde_json::Value;

use super::shown;
use crate::dice::Dice;
use crate::harness::{Answer, Server, shown as event_shown};
use crate::{Verdict, behaviour, check, make, play};

const CODES: [u16; 17] =
    [101, 200, 201, 202, 400, 403, 404, 405, 406, 409, 410, 413, 415, 422, 429, 500, 504];
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

/// One request.
struct Request {
    method: &'static str,
    uri: String,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
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
        let name = behaviour::name(&kind, 1 + dice.below(2) as u8);
        let method = dice.pick(&["POST", "POST", "PUT", "PATCH", "PATCH", "GET", "DELETE", "HEAD", "BREW"]);
        let mut uri =
            if method == "POST" || dice.rarely(8) { base.clone() } else { format!("{base}/{name}") };
        if dice.rarely(5) && !kind.subresources.is_empty() {
            let sub = kind.subresources[dice.upto(kind.subresources.len())].name;
            uri = format!("{base}/{name}/{sub}");
        }
        if dice.rarely(20) {
            uri.push_str(dice.pick(&["/", "/x", "/%2f", "/%zz", "//", "/status/x"]));
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
        let mut headers = vec![("content-type", media)];
        if dice.rarely(6) {
            headers.push(("accept", dice.pick(&ACCEPTS)));
        }
        let sample = behaviour::sample(&kind, &base, &name);
        let body = body(dice, &kind, version, sample, media);
        Request { method, uri, headers, body, base, kind, version }
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
        dice.say(&format!("{} {} {:?}", request.method, request.uri, request.headers), &request.body);
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
        // What is no URI never becomes a request.
        if request.uri.parse::<http::Uri>().is_err() {
            continue;
        }
        let what = format!("{} {}", request.method, request.uri);
        answers.push(one(&server, request).await.map_err(|why| format!("{what}: {why}"))?);
    }
    Ok(answers)
}

async fn revision(server: &Server) -> Result<u64, String> {
    server.api.store.revision().await.map_err(|e| e.to_string())
}

async fn send(
    server: &Server,
    method: &str,
    uri: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Option<Answer> {
    // Streams end when their time is over, in virtual time.
    let sent = server.send(method, uri, headers, Bytes::copy_from_slice(body));
    base::time::timeout(Duration::from_secs(7200), sent).await.ok()
}

async fn one(server: &Server, request: &Request) -> Result<String, String> {
    let before = revision(server).await?;
    let sent = send(server, request.method, &request.uri, &request.headers, &request.body).await;
    let Some(answer) = sent else { return Ok("a stream".to_owned()) };
    if let Some(panic) = play::last_panic() {
        return Err(format!("panic: {panic}"));
    }
    let after = revision(server).await?;
    let (code, doc) = (answer.code, &answer.doc);
    check(CODES.contains(&code), || format!("code {code}: {}", shown(doc)))?;
    let reads = ["GET", "HEAD"].contains(&request.method);
    check(after == before || code < 400 && !reads && !request.uri.contains("dryRun=All"), || {
        format!("{code}, and the store went from {before} to {after}")
    })?;
    if code >= 400 {
        let told = (doc.get(k::KIND).str(), doc.get(k::CODE).i64(), doc.get("status").str());
        check(told == ("Status", i64::from(code), "Failure"), || format!("{code}: {}", shown(doc)))?;
        check(!doc.get(k::REASON).str().is_empty(), || format!("no reason: {}", shown(doc)))?;
    } else if after > before && request.method != "DELETE" {
        stored(server, request, doc, before).await?;
    }
    Ok(format!("{code} {}", shown(doc)))
}

/// What was stored can be read in every way, and writing what was read changes nothing.
async fn stored(server: &Server, request: &Request, answer: &Doc, before: u64) -> Verdict {
    let kind = &request.kind;
    if kind.class == Class::Virtual || answer.get(k::KIND).str() != &*kind.kind {
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
    let user = Arc::new(User::new("admin", &["system:masters"]));
    let reply = server.reply(user, "GET", &uri, &[], Bytes::new()).await;
    let Reply::Watch(mut watch) = reply else { return Err(format!("no watch: {reply:?}")) };
    let event = base::time::timeout(Duration::from_secs(5), watch.events.next()).await;
    let event = event.ok().flatten().map(event_shown).ok_or("no event of it")?;
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
