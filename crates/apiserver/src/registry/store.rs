//! The generic store: from documents to transactions. One for all kinds.
//!
//! Stored bytes are JSON in normal form that begins with `kind` and `apiVersion` and has no resource version, as
//! upstream's. Storage's errors become a [`Status`] here and nowhere else ([`interpret`]).
//! Upstream: k8s.io/apiserver/pkg/registry/generic/registry/store.go, pkg/storage/etcd3/store.go.

use std::sync::Arc;
use std::time::Duration;

use api::{Class, Kind};
use apimachinery::call::Stored;
use apimachinery::gvk::GroupResource;
use apimachinery::schema::normalise::normalise;
use apimachinery::{Doc, Status, k};
use bytes::Bytes;
use storage::{KeyValue, Op, StoreError, Txn, TxnReply};

use crate::Api;
use crate::cacher::Collection;
use crate::cacher::json::with_revision;
use crate::endpoints::Request;

/// What must be written along with an object, in the same transaction: addresses, ports, the charge of a quota.
#[derive(Clone, Debug, Default)]
pub struct Writes {
    /// Keys and the revision that each must have (0 = absent).
    pub compare: Vec<(Bytes, u64)>,
    /// The changes.
    pub then: Vec<Op>,
}

impl Writes {
    /// Adds a change to a key that must be at `revision`.
    pub fn add(&mut self, revision: u64, op: Op) {
        self.compare.push((op.key().clone(), revision));
        self.then.push(op);
    }
}

/// An object as it is, for a change.
pub struct Current {
    /// The object.
    pub doc: Doc,
    /// As it is served.
    pub stored: Arc<Stored>,
}

/// How a write ended.
pub enum Outcome {
    /// It was done.
    Done(Arc<Stored>),
    /// The object is not at the revision that was expected; this is how it is, `None` when it is gone.
    Changed(Option<Current>),
    /// Something to be written along has changed meanwhile; up to this revision everything should be read again.
    AlongChanged(u64),
}

/// What to write.
pub struct Write<'a> {
    /// Of which kind.
    pub kind: &'a Kind,
    /// Empty for kinds without namespaces.
    pub namespace: &'a str,
    /// The object's name.
    pub name: &'a str,
    /// At which revision the object must be; 0 = absent.
    pub expected: u64,
    /// The new state in bytes, of [`encode`]; `None` removes the object.
    pub value: Option<Vec<u8>>,
    /// What is written along.
    pub along: Writes,
}

/// The one place where storage's errors are given words.
pub fn interpret(error: &StoreError, resource: &GroupResource, name: &str) -> Status {
    match error {
        StoreError::Compacted { requested, compacted } => Status::expired(format!(
            "The resourceVersion {requested} for the provided request is too old ({compacted})."
        )),
        StoreError::FutureRevision { requested, current } => Status::too_large_revision(*requested, *current),
        StoreError::TooLarge { size, limit } => Status::too_large(format!(
            "{resource} {name:?} is too large to be stored: {size} bytes exceed the limit of {limit}"
        )),
        error @ StoreError::Uncertain { source } => {
            tracing::error!(%resource, name, %source, "storage did not answer");
            Status::timeout(error.to_string())
        }
        StoreError::Closed => Status::unavailable("the server is shutting down"),
        error => {
            tracing::error!(%resource, name, %error, "storage failed");
            Status::internal(error)
        }
    }
}

/// [`interpret`] for what concerns no single object.
pub fn unreachable(error: &StoreError) -> Status {
    interpret(error, &GroupResource::new("", ""), "")
}

/// Reads a resource version as clients send it; `None` when unsaid.
///
/// # Errors
/// 400 for anything that is no number.
pub fn parse_revision(text: Option<&str>) -> Result<Option<u64>, Status> {
    match text {
        None | Some("") => Ok(None),
        Some(text) => number(text).map(Some).map_err(|why| {
            let why = format!("invalid resource version: resourceVersion: Invalid value: {text:?}: {why}");
            Status::bad_request(why)
        }),
    }
}

/// A revision as text; 0 when unsaid.
///
/// # Errors
/// In Go's words.
pub fn number(text: &str) -> Result<u64, String> {
    use std::num::IntErrorKind::{Empty, PosOverflow};
    // Go takes no sign here.
    let parsed = text.parse::<u64>().map_err(|e| *e.kind());
    match parsed {
        Ok(number) if !text.starts_with('+') => Ok(number),
        Err(Empty) => Ok(0),
        Err(PosOverflow) => Err(format!("strconv.ParseUint: parsing {text:?}: value out of range")),
        _ => Err(format!("strconv.ParseUint: parsing {text:?}: invalid syntax")),
    }
}

/// The collection of the request's kind.
///
/// # Errors
/// 404 for kinds that are not stored.
pub fn collection(request: &Request) -> Result<Arc<Collection>, Status> {
    request.api.cacher.collection(&request.kind.storage).ok_or_else(Status::unknown_path)
}

/// An object as the cache has it.
///
/// # Errors
/// 404.
pub fn cached(request: &Request, namespace: &str, name: &str) -> Result<Arc<Stored>, Status> {
    collection(request)?.get(namespace, name).ok_or_else(|| Status::not_found(&request.kind.storage, name))
}

/// An object as it is now, not older than the call.
///
/// # Errors
/// 404, or when storage cannot be reached.
pub async fn current(request: &Request, namespace: &str, name: &str) -> Result<Current, Status> {
    request.api.cacher.catch_up().await?;
    let stored = cached(request, namespace, name)?;
    Ok(Current { doc: stored.doc(), stored })
}

/// A document (of the stored version) in the bytes that are stored: normal form, without a resource version.
pub fn encode(kind: &Kind, doc: &Doc) -> Vec<u8> {
    encode_normal(normalise(doc.root(), kind.storage_version().schema))
}

/// The same for a document that is in normal form, as [`api::generic`] leaves it.
pub fn encode_normal(mut out: Doc) -> Vec<u8> {
    let mut meta = out.edit().at(k::METADATA);
    meta.remove(k::RESOURCE_VERSION);
    // Who owns which field is not recorded; what clients send of it would only grow old.
    meta.remove(k::MANAGED_FIELDS);
    out.to_json()
}

/// The transaction of a write.
///
/// # Errors
/// When storage fails.
pub async fn write(api: &Api, write: Write<'_>) -> Result<Outcome, Status> {
    let Write { kind, namespace, name, expected, value, along } = write;
    let value = value.map(Bytes::from);
    let key = Bytes::from(kind.key(namespace, name));
    let ttl = (kind.ttl_seconds > 0).then(|| Duration::from_secs(kind.ttl_seconds));
    let lazy = kind.class_of(namespace) == Class::Lazy;
    let op = match &value {
        Some(value) => Op::Put { key: key.clone(), value: value.clone(), ttl },
        None => Op::delete(key.clone()),
    };
    let mut txn = Txn::guarded(expected, op);
    txn.compare.extend(along.compare);
    txn.then.extend(along.then);
    txn.class = if lazy { storage::Class::Lazy } else { storage::Class::Durable };
    let reply = api.store.txn(txn).await.map_err(|e| interpret(&e, &kind.storage, name))?;
    match reply {
        TxnReply::Done { revision, .. } => Ok(Outcome::Done(match value {
            Some(value) => stored(&value, revision, namespace, name),
            None => Arc::new(Stored::new(Bytes::new(), revision, namespace, name)),
        })),
        TxnReply::Conflict { revision, current } => {
            let now = current.into_iter().next().flatten();
            if now.as_ref().map_or(0, |kv| kv.mod_revision) == expected {
                return Ok(Outcome::AlongChanged(revision));
            }
            Ok(Outcome::Changed(now.map(|kv| read(&kv, namespace, name))))
        }
    }
}

/// The object that a write made, without waiting for it to come back from storage.
///
/// # Panics
/// Never for what [`encode`] gives.
pub fn stored(value: &[u8], revision: u64, namespace: &str, name: &str) -> Arc<Stored> {
    let json = with_revision(value, revision).expect("the generic store writes metadata");
    Arc::new(Stored::new(json, revision, namespace, name))
}

fn read(kv: &KeyValue, namespace: &str, name: &str) -> Current {
    let stored = stored(&kv.value, kv.mod_revision, namespace, name);
    Current { doc: stored.doc(), stored }
}
