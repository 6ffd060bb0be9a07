//! An API server in process on a disk in memory, and requests to it as text: for the tests of whoever needs one.
//!
//! Whatever goes wrong panics, as in any test.

#![allow(clippy::unwrap_used)]

mod sample;

use std::sync::Arc;
use std::time::Duration;

use apimachinery::call::{Body, RawBody, Reply, User, WatchEvent, Who};
use apimachinery::codec::json;
use apimachinery::{Call, Doc, Status, doc, k};
use apiserver::authorization::Authorizer;
use apiserver::registry::allocate::Pools;
use apiserver::server::request;
use apiserver::{Api, Cacher, Kinds, admission, filters, handle};
use bytes::Bytes;
use futures_util::StreamExt;
use storage::sim::SimDisk;
use storage::{Engine, Options, Store};

pub use sample::{name, sample};

/// The server and its disk.
pub struct Server {
    /// The server.
    pub api: Arc<Api>,
    /// Where its store is.
    pub disk: SimDisk,
}

/// One answer.
pub struct Answer {
    /// HTTP status.
    pub code: u16,
    /// The body; of watches, the list of their events; of lists, what a client gets.
    pub doc: Doc,
    /// What the headers warn of.
    pub warnings: Vec<String>,
}

impl Answer {
    /// The body as JSON for people.
    pub fn pretty(&self) -> String {
        let mut out = Vec::new();
        json::write_pretty(self.doc.root(), 0, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// The body of what was accepted.
    #[track_caller]
    pub fn ok(self) -> Doc {
        assert!(self.code < 300, "{}: {}", self.code, self.pretty());
        self.doc
    }

    /// The message of what was refused with this code.
    #[track_caller]
    pub fn fails(self, code: u16) -> String {
        assert_eq!(self.code, code, "{}", self.pretty());
        self.doc.get(k::MESSAGE).str().to_owned()
    }
}

/// A server over what is on `disk`, without anything in it.
pub async fn api(
    disk: &SimDisk,
    authorization: impl FnOnce(Arc<Cacher>) -> Vec<Box<dyn Authorizer>>,
) -> Arc<Api> {
    let engine = Engine::open(Arc::new(disk.clone()), Options::default()).await.unwrap();
    let store: Arc<dyn Store> = Arc::new(engine);
    let kinds = api::kinds();
    let cacher = Arc::new(Cacher::start(store.clone(), &kinds).await.unwrap());
    Arc::new(Api {
        kinds: Kinds::new(kinds),
        store,
        authorization: authorization(cacher.clone()),
        cacher,
        authentication: Vec::new(),
        admission: admission::plugins(),
        audit: vec![Box::new(filters::audit::Log)],
        metrics: Default::default(),
        flow: filters::flow::Flow::default(),
        paths: Vec::new(),
        connect: Vec::new(),
        pools: Pools::default(),
    })
}

impl Server {
    /// A server with the namespace `default` and its service account.
    pub async fn start() -> Server {
        let disk = SimDisk::new(Duration::from_millis(1));
        let server = Server { api: api(&disk, |_| Vec::new()).await, disk };
        for (path, name) in
            [("/api/v1/namespaces", "default"), ("/api/v1/namespaces/default/serviceaccounts", "default")]
        {
            server.post(path, &doc!({ "metadata": { "name": name } })).await.ok();
        }
        server
    }

    /// A server on a disk that has been used before.
    pub async fn on(disk: SimDisk) -> Server {
        Server { api: api(&disk, |_| Vec::new()).await, disk }
    }

    /// What the cluster's administrator is answered.
    pub async fn send(&self, method: &str, uri: &str, headers: &[(&str, &str)], body: Bytes) -> Answer {
        let user = Arc::new(User::new("admin", &["system:masters"]));
        self.send_as(user, method, uri, headers, body).await
    }

    /// What a user is answered.
    pub async fn send_as(
        &self,
        user: Arc<User>,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Answer {
        answer(self.reply(user, method, uri, headers, body).await).await
    }

    /// The same before it is read.
    pub async fn reply(
        &self,
        user: Arc<User>,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Reply {
        let call = Call { who: Who::Component(user), ..call(method, uri, headers, body) };
        handle(&self.api, call).await
    }

    /// GET.
    pub async fn get(&self, uri: &str) -> Answer {
        self.send("GET", uri, &[], Bytes::new()).await
    }

    /// POST in JSON.
    pub async fn post(&self, uri: &str, doc: &Doc) -> Answer {
        self.send("POST", uri, &[], doc.to_json().into()).await
    }

    /// PUT in JSON.
    pub async fn put(&self, uri: &str, doc: &Doc) -> Answer {
        self.send("PUT", uri, &[], doc.to_json().into()).await
    }

    /// DELETE.
    pub async fn delete(&self, uri: &str) -> Answer {
        self.send("DELETE", uri, &[], Bytes::new()).await
    }

    /// PATCH in the form `json`, `merge` or `strategic-merge`.
    pub async fn patch(&self, uri: &str, form: &str, patch: &Doc) -> Answer {
        let media = format!("application/{form}-patch+json");
        self.send("PATCH", uri, &[("content-type", &media)], patch.to_json().into()).await
    }
}

async fn answer(reply: Reply) -> Answer {
    let plain = |code, doc| Answer { code, doc, warnings: Vec::new() };
    match reply {
        Reply::Object { code, object, warnings } => Answer { code, doc: object.doc(), warnings },
        Reply::Doc { code, doc, warnings } => Answer { code, doc: *doc, warnings },
        Reply::Status(status) => plain(status.code, status.to_doc()),
        Reply::List(list) => {
            let mut out = doc!({ "kind": list.kind, "apiVersion": list.api_version, "metadata": { "resourceVersion": list.revision.to_string() }, "items": [] });
            let mut meta = out.edit().at(k::METADATA);
            meta.set_opt(k::CONTINUE, (!list.continue_.is_empty()).then_some(&list.continue_));
            meta.set_opt(k::REMAINING_ITEM_COUNT, list.remaining);
            for item in &list.items {
                let mut item = item.doc();
                item.edit().remove(k::KIND);
                item.edit().remove(k::API_VERSION);
                out.edit().list(k::ITEMS).push(item);
            }
            Answer { code: 200, doc: out, warnings: list.warnings }
        }
        Reply::Watch(watch) => {
            let events: Vec<WatchEvent> = watch.events.flat_map(futures_util::stream::iter).collect().await;
            let mut out = Doc::array();
            for event in events {
                out.edit().push(shown(event));
            }
            plain(200, out)
        }
        Reply::Raw(raw) => match raw.body {
            RawBody::Bytes(bytes) => {
                plain(raw.code, Doc::scalar(String::from_utf8_lossy(&bytes).into_owned()))
            }
            RawBody::Stream(_) => plain(raw.code, Doc::scalar("(stream)")),
        },
        Reply::Upgrade(_) => plain(101, Doc::object()),
    }
}

/// The call that a request makes.
pub fn call(method: &str, uri: &str, headers: &[(&str, &str)], body: Bytes) -> Call {
    let mut head = http::Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        head = head.header(*name, *value);
    }
    let (parts, ()) = head.body(()).unwrap().into_parts();
    let mut call = request::call(&parts);
    if !body.is_empty() {
        let content_type = headers.iter().find(|(n, _)| n.eq_ignore_ascii_case("content-type"));
        call.body = Body::Bytes { content_type: content_type.map_or("", |(_, v)| v).to_owned(), bytes: body };
    }
    call
}

/// An event as a client sees it.
pub fn shown(event: WatchEvent) -> Doc {
    let (kind, object) = match event {
        WatchEvent::Added(o) => ("ADDED", o.doc()),
        WatchEvent::Modified(o) => ("MODIFIED", o.doc()),
        WatchEvent::Deleted(o) => ("DELETED", o.doc()),
        WatchEvent::Bookmark { revision, initial } => (
            "BOOKMARK",
            doc!({ "metadata": { "resourceVersion": revision.to_string(), "initial": initial } }),
        ),
        WatchEvent::Error(status) => ("ERROR", Status::to_doc(&status)),
        WatchEvent::Rendered { kind, doc } => (kind, (*doc).clone()),
    };
    let mut out = doc!({ "type": kind });
    out.edit().set(k::OBJECT, object);
    out
}
