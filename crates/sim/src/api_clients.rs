//! Clients that write, read and watch at random, and note what they see.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::call::{Options, Stored, WatchEvent};
use apimachinery::{Doc, Gvr, doc, k};
use base::time::Instant;
use client::gvr::{CONFIG_MAPS, LEASES, PODS, SERVICES};
use client::{Client, DeleteOptions, Deleted, Error, PatchType, Resource};
use futures_util::StreamExt;

use crate::api_story::{HEARTBEATS, SPACES};
use crate::ledger::{Pick, Selection};
use crate::record::{Attempt, End, How, Read, Record, Seen, What, revision};

/// The longest wait between two calls of one client, and of a watcher that was refused or broken off.
const THINKS: Duration = Duration::from_secs(12);
const AGAIN: Duration = Duration::from_secs(5);
/// How many names there are in each namespace.
const NAMES: usize = 5;
const COLORS: [&str; 3] = ["red", "green", "blue"];
const NODES: [&str; 2] = ["n1", "n2"];
const KINDS: [Gvr; 4] = [CONFIG_MAPS, LEASES, SERVICES, PODS];

/// One of so many.
fn one_in(n: u64) -> bool {
    base::rand::below(n) == 0
}

fn pick<T>(from: &[T]) -> &T {
    &from[usize::try_from(base::rand::below(from.len() as u64)).unwrap_or(0)]
}

async fn pause(most: Duration) {
    base::time::sleep(most.mul_f64(base::rand::fraction())).await;
}

/// A kind and a namespace that has such objects.
fn any_place() -> (Gvr, &'static str) {
    let gvr = pick(&KINDS).clone();
    let space = if gvr == LEASES && one_in(2) { HEARTBEATS } else { *pick(&SPACES) };
    (gvr, space)
}

fn any_selection() -> Selection {
    let (gvr, space) = any_place();
    let pick = match base::rand::below(6) {
        0 => Pick::Color((*pick(&COLORS)).to_owned()),
        1 => Pick::Name(any_name()),
        2 if gvr == PODS => Pick::Node(["", NODES[0], NODES[1]][base::rand::below(3) as usize].to_owned()),
        _ => Pick::All,
    };
    let namespace = if one_in(3) { "" } else { space };
    Selection::new(&gvr, namespace, pick)
}

fn any_name() -> String {
    format!("x{}", base::rand::below(NAMES as u64))
}

/// Lists the present state of all pages at once.
///
/// # Errors
/// As the server's answer.
pub async fn list_fresh(client: &Client, record: &Record, selection: &Selection) -> Result<u64, Error> {
    list(client, record, selection, How::Fresh, 0).await
}

/// Lists, page by page where there is a limit; gives the revision.
async fn list(
    client: &Client,
    record: &Record,
    selection: &Selection,
    how: How,
    limit: u64,
) -> Result<u64, Error> {
    let resource = client.namespaced(selection.gvr.clone(), &selection.namespace);
    let floor = record.floor();
    let (asked, matching) = match how {
        How::Fresh => (None, None),
        How::Cached => (Some(0), None),
        How::NotOlder(revision) => (Some(revision), Some("NotOlderThan")),
        How::Exact(revision) => (Some(revision), Some("Exact")),
    };
    let mut options = Options {
        resource_version: asked.map(|r| r.to_string()),
        resource_version_match: matching.map(str::to_owned),
        limit,
        ..selection.options()
    };
    let (mut revisions, mut items) = (Vec::new(), Vec::new());
    loop {
        let page = resource.list(options.clone()).await?;
        revisions.push(page.revision);
        items.extend(page.items);
        if page.continue_.is_empty() {
            break;
        }
        options = Options { limit, continue_: page.continue_, ..selection.options() };
        if one_in(3) {
            pause(THINKS).await;
        }
    }
    let revision = revisions[0];
    record.read(Read { floor, how, seen: Seen::List(selection.clone(), revisions, items) });
    Ok(revision)
}

/// Who writes and reads.
pub struct Person {
    number: usize,
    client: Client,
    record: Arc<Record>,
    /// How many writes there were.
    attempts: u64,
    /// What was seen last of each object.
    known: BTreeMap<String, Arc<Stored>>,
}

impl Person {
    /// The `number`th.
    pub fn new(number: usize, client: Client, record: Arc<Record>) -> Person {
        Person { number, client, record, attempts: 0, known: BTreeMap::new() }
    }

    /// Goes on until `end`.
    pub async fn live(mut self, end: Instant) {
        while base::time::instant() < end {
            pause(THINKS).await;
            let (gvr, space) = any_place();
            match base::rand::below(10) {
                0..6 => self.write(&gvr, space, &any_name()).await,
                6..8 => self.get(&gvr, space, &any_name()).await,
                _ => self.list().await,
            }
        }
    }

    async fn get(&mut self, gvr: &Gvr, space: &str, name: &str) {
        let key = Selection::new(gvr, space, Pick::All).key(space, name);
        let floor = self.record.floor();
        let seen = match self.client.namespaced(gvr.clone(), space).get(name).await {
            Ok(object) => {
                self.known.insert(key.clone(), object.clone());
                Some(object)
            }
            Err(err) if err.is_not_found() => {
                self.known.remove(&key);
                None
            }
            Err(_) => return,
        };
        self.record.read(Read { floor, how: How::Fresh, seen: Seen::One(key, seen) });
    }

    async fn list(&self) {
        let old = self.record.any_revision();
        let how = match (base::rand::below(5), old) {
            (0, _) => How::Cached,
            (1, Some(revision)) => How::NotOlder(revision),
            (2, Some(revision)) => How::Exact(revision),
            _ => How::Fresh,
        };
        let limit = if one_in(2) { 1 + base::rand::below(3) } else { 0 };
        // Refusals are of revisions that are gone, and of servers that are; what is answered is judged.
        list(&self.client, &self.record, &any_selection(), how, limit).await.ok();
    }

    async fn write(&mut self, gvr: &Gvr, space: &str, name: &str) {
        let resource = self.client.namespaced(gvr.clone(), space);
        let key = Selection::new(gvr, space, Pick::All).key(space, name);
        self.attempts += 1;
        let token = format!("{}-{}", self.number, self.attempts);
        let floor = self.record.floor();
        let known = self.known.get(&key).cloned();
        let (what, end) = match (base::rand::below(10), known) {
            (0..2, Some(known)) => delete(&resource, &known).await,
            (2..5, Some(known)) => update(&resource, &known, &token).await,
            (5, Some(_)) if *gvr == PODS => return bind(&resource, name).await,
            (5, _) if *gvr == CONFIG_MAPS => {
                (What::Update { over: 0 }, ended(resource.update(object(gvr, name, &token)).await))
            }
            (5..8, Some(_)) => {
                let annotation = format!("by-{}", self.number);
                (
                    What::Patch { annotation: annotation.clone() },
                    patch(&resource, name, &annotation, &token).await,
                )
            }
            _ => (What::Create, ended(resource.create(object(gvr, name, &token)).await)),
        };
        match &end {
            End::Done(object) => drop(self.known.insert(key.clone(), object.clone())),
            End::Gone => drop(self.known.remove(&key)),
            // Look again, as clients do after a conflict.
            End::Refused(_) => self.get(gvr, space, name).await,
            End::Unknown => {}
        }
        self.record.attempt(Attempt { floor, key, token, what, end });
    }
}

fn ended(answer: Result<Arc<Stored>, Error>) -> End {
    match answer {
        Ok(object) => End::Done(object),
        Err(err) => failed(&err),
    }
}

/// Only a refusal says that nothing was done.
fn failed(err: &Error) -> End {
    match err.status() {
        Some(status) if status.code < 500 => End::Refused(status.reason.to_owned()),
        _ => End::Unknown,
    }
}

/// A new object of a kind, with the token that tells whose it is.
fn object(gvr: &Gvr, name: &str, token: &str) -> Doc {
    let mut out = match &*gvr.resource {
        "configmaps" => doc!({ "apiVersion": "v1", "kind": "ConfigMap", "data": { "token": token } }),
        "leases" => doc!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "spec": { "holderIdentity": token, "leaseDurationSeconds": 40 } }),
        "services" => doc!({ "apiVersion": "v1", "kind": "Service",
            "spec": { "type": "NodePort", "ports": [{ "port": 80 }] } }),
        _ => doc!({ "apiVersion": "v1", "kind": "Pod", "spec": { "containers": [{ "name": "c", "image": "i",
            "resources": { "requests": { "cpu": "100m" } } }] } }),
    };
    out.edit().at(k::METADATA).set(k::NAME, name);
    mark(&mut out, token);
    out
}

fn mark(object: &mut Doc, token: &str) {
    let mut edit = object.edit();
    let mut meta = edit.reborrow().at(k::METADATA);
    meta.reborrow().at(k::LABELS).set("color", *pick(&COLORS));
    meta.at(k::ANNOTATIONS).set("token", token);
}

/// Replaces the object that the client knows, which may not be the present one.
async fn update(resource: &Resource, known: &Stored, token: &str) -> (What, End) {
    let mut new = known.doc();
    mark(&mut new, token);
    (What::Update { over: known.revision }, ended(resource.update(new).await))
}

async fn patch(resource: &Resource, name: &str, annotation: &str, token: &str) -> End {
    let mut patch = doc!({ "metadata": {} });
    mark(&mut patch, token);
    patch.edit().at(k::METADATA).at(k::ANNOTATIONS).set(annotation, token);
    let kind = if one_in(2) { PatchType::Merge } else { PatchType::Strategic };
    ended(resource.patch(name, kind, patch, "").await)
}

async fn delete(resource: &Resource, known: &Stored) -> (What, End) {
    let uid = known.doc().get(k::METADATA).get(k::UID).str().to_owned();
    let options = DeleteOptions { grace: Some(0), ..DeleteOptions::uid(&uid) };
    let end = match resource.delete(known.name(), options).await {
        Ok(Deleted::Gone) => End::Gone,
        Ok(Deleted::Marked(_)) => End::Unknown,
        Err(err) => failed(&err),
    };
    (What::Delete { uid }, end)
}

/// Its answer shows no object; what it did, watches show.
async fn bind(pods: &Resource, name: &str) {
    let binding = doc!({ "apiVersion": "v1", "kind": "Binding", "metadata": { "name": name },
        "target": { "kind": "Node", "name": *pick(&NODES) } });
    pods.create_subresource(name, "binding", binding).await.ok();
}

/// Who watches.
pub struct Watcher {
    client: Client,
    record: Arc<Record>,
    selection: Selection,
    /// The revision up to which all was heard.
    last: Option<u64>,
}

impl Watcher {
    /// A watcher that has heard nothing yet.
    pub fn new(client: Client, record: Arc<Record>) -> Watcher {
        Watcher { client, record, selection: any_selection(), last: None }
    }

    /// Goes on until `end`: from where it left off, from some old place, or anew.
    pub async fn live(mut self, end: Instant) {
        while base::time::instant() < end {
            let left = end.saturating_duration_since(base::time::instant());
            let lasts = left.min(Duration::from_millis(base::rand::below(600_000)));
            // Clients end watches, too.
            drop(base::time::timeout(lasts, self.watch()).await);
            if one_in(5) {
                (self.selection, self.last) = (any_selection(), None);
            }
            pause(AGAIN).await;
        }
    }

    async fn watch(&mut self) {
        let from = match (self.last, base::rand::below(3)) {
            (Some(last), _) => Some(last),
            (None, 0) => list_fresh(&self.client, &self.record, &self.selection).await.ok(),
            (None, 1) => self.record.any_revision(),
            _ => None,
        };
        let mut options = Options {
            allow_watch_bookmarks: from.is_none() || !one_in(5),
            timeout_seconds: one_in(2).then(|| 1 + base::rand::below(300)),
            ..self.selection.options()
        };
        match from {
            Some(revision) => options.resource_version = Some(revision.to_string()),
            None => {
                options.resource_version = one_in(2).then(|| "0".to_owned());
                options.resource_version_match = Some("NotOlderThan".to_owned());
                options.send_initial_events = Some(true);
            }
        }
        let resource = self.client.namespaced(self.selection.gvr.clone(), &self.selection.namespace);
        let mut events = match resource.watch(options).await {
            Ok(events) => events,
            Err(err) => return self.refused(&err),
        };
        let watch = self.record.watch(self.selection.clone(), from);
        // With the first objects still to come there is no place to go on from.
        let mut whole = from.is_some();
        self.last = from;
        while let Some(event) = events.next().await {
            let heard = match event {
                Ok(WatchEvent::Error(_) | WatchEvent::Rendered { .. }) => return,
                Ok(heard) => heard,
                Err(err) => return self.refused(&err),
            };
            whole |= matches!(heard, WatchEvent::Bookmark { initial: true, .. });
            if whole {
                self.last = self.last.max(Some(revision(&heard)));
            }
            self.record.heard(watch, heard);
        }
    }

    fn refused(&mut self, err: &Error) {
        if err.is_expired() {
            self.last = None;
        }
    }
}
