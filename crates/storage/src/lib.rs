//! Bytes and revisions: the [`Store`] trait with etcd's meaning, and the rooms that give or test it.
//!
//! Knows keys, values and one global revision; deliberately not what a key names, what a value says, or who asks.
//! Upstream: etcd's api/v3 `kv.proto` and `rpc.proto`; staging/src/k8s.io/apiserver/pkg/storage/etcd3 is its user.

// Clippy heeds this lint's allowance only at the root, so that the one inside base::select! does not reach.

pub mod disk;
pub mod engine;
pub mod sim;
pub mod suite;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

pub use bytes::Bytes;
pub use engine::{Engine, Options};

/// What every store operation gives.
pub type Result<T> = std::result::Result<T, StoreError>;

/// A future behind a pointer, so that [`Store`] can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The most bytes of keys and values in one transaction: etcd's own limit, so that state can move there.
pub const TXN_BYTES_MAX: usize = 3 << 19;
/// The most compares and the most changes in one transaction; etcd's own limit.
pub const TXN_OPS_MAX: usize = 128;

/// A map from keys to values with one revision that grows by one with every transaction that changes something.
///
/// An empty store is at revision 1; the first change makes revision 2. Every change that a call acknowledged is
/// visible to every call that begins later (linearizable), on every handle.
pub trait Store: Send + Sync {
    /// Performs `txn.then` in one revision if all of `txn.compare` hold, else changes nothing. Once started, the
    /// transaction runs to its end even if the future is dropped.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for an empty key or a key named twice in `then`, [`StoreError::TooLarge`],
    /// [`StoreError::Uncertain`].
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnReply>>;

    /// Reads keys in byte order from one consistent state.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when `range.revision` is below the compaction point or was lost in a crash,
    /// [`StoreError::FutureRevision`] when it has not come yet.
    fn range(&self, range: Range) -> BoxFuture<'_, Result<RangeReply>>;

    /// Watches all keys that begin with `prefix`, from `from_revision` on (inclusive; 0 = from now on). A revision
    /// in the future is waited for.
    ///
    /// # Errors
    /// [`StoreError::Compacted`], here or from [`Watch::next`], when changes from `from_revision` on are gone.
    fn watch(&self, prefix: Bytes, from_revision: u64) -> BoxFuture<'_, Result<Watch>>;

    /// The current revision: not below that of any transaction acknowledged before the call.
    ///
    /// # Errors
    /// When the store cannot be reached.
    fn revision(&self) -> BoxFuture<'_, Result<u64>>;

    /// Forgets history, which each backend also does by itself after some minutes: afterwards reads below `revision` and watches from `revision` or below are refused.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when it is already forgotten, [`StoreError::FutureRevision`] when it has not come.
    fn compact(&self, revision: u64) -> BoxFuture<'_, Result<()>>;

    /// Whether other programs may write to it, so that what it holds is to be looked at before it is trusted.
    fn is_shared(&self) -> bool;
}

/// A key with its value and history.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value; empty where a range asked for keys only and in a delete event.
    pub value: Bytes,
    /// The revision in which the key came into being.
    pub create_revision: u64,
    /// The revision of the last change.
    pub mod_revision: u64,
    /// How often the key was written since it came into being, from 1; 0 in a delete event.
    pub version: u64,
    /// Whether the key was last written with a time to live, after which it is deleted.
    pub expires: bool,
}

/// One change asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a value.
    Put {
        /// The key, not empty.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// After which the key is deleted unless it was written again; a put without it makes the key stay.
        ttl: Option<Duration>,
    },
    /// Removes a key; of no effect when it is absent.
    Delete {
        /// The key, not empty.
        key: Bytes,
    },
}

impl Op {
    /// A put without a time to live.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Op {
        Op::Put { key: key.into(), value: value.into(), ttl: None }
    }

    /// A delete.
    pub fn delete(key: impl Into<Bytes>) -> Op {
        Op::Delete { key: key.into() }
    }

    /// The key to be changed.
    pub fn key(&self) -> &Bytes {
        match self {
            Op::Put { key, .. } | Op::Delete { key } => key,
        }
    }
}

/// How soon a write must be safe from a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Class {
    /// Before it is acknowledged or seen by anyone.
    #[default]
    Durable,
    /// Within a second; seen at once. Survives the end of the process. For records that are soon renewed or of
    /// passing interest. A backend without this class treats it as [`Class::Durable`].
    Lazy,
}

/// A transaction: compares, then changes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Txn {
    /// Keys with the mod revision each must have; 0 = must be absent.
    pub compare: Vec<(Bytes, u64)>,
    /// The changes, on distinct keys, performed in one revision.
    pub then: Vec<Op>,
    /// How soon the changes must be safe.
    pub class: Class,
    /// Whether the reply should carry the keys' previous values (which may have to be read from disk).
    pub want_prev: bool,
}

impl Txn {
    /// Changes without compares.
    pub fn of(then: Vec<Op>) -> Txn {
        Txn { then, ..Txn::default() }
    }

    /// One change if `op`'s key has mod revision `revision` (0 = is absent).
    pub fn guarded(revision: u64, op: Op) -> Txn {
        Txn { compare: vec![(op.key().clone(), revision)], then: vec![op], ..Txn::default() }
    }

    /// Refuses what no store performs, which is what etcd does not; gives the size in bytes.
    ///
    /// # Errors
    /// See [`Store::txn`].
    pub fn check(&self) -> Result<usize> {
        if self.then.len() > TXN_OPS_MAX || self.compare.len() > TXN_OPS_MAX {
            return Err(StoreError::Invalid("too many operations in one transaction"));
        }
        let mut size = self.compare.iter().map(|(key, _)| key.len()).sum::<usize>();
        let mut seen = BTreeSet::new();
        for op in &self.then {
            if !seen.insert(op.key()) {
                return Err(StoreError::Invalid("a key is changed twice"));
            }
            size += op.key().len() + if let Op::Put { value, .. } = op { value.len() } else { 0 };
        }
        if self.compare.iter().any(|(key, _)| key.is_empty()) || seen.contains(&Bytes::new()) {
            return Err(StoreError::Invalid("a key is empty"));
        }
        if size > TXN_BYTES_MAX {
            return Err(StoreError::TooLarge { size, limit: TXN_BYTES_MAX });
        }
        Ok(size)
    }
}

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxnReply {
    /// The compares held and the changes were made.
    Done {
        /// The revision of the changes; the current one if nothing changed (deletes of absent keys).
        revision: u64,
        /// With [`Txn::want_prev`], for each op its key before the transaction; else empty.
        prev: Vec<Option<KeyValue>>,
    },
    /// A compare failed and nothing was changed.
    Conflict {
        /// The current revision.
        revision: u64,
        /// For each compare its key as it is.
        current: Vec<Option<KeyValue>>,
    },
}

/// Where a range ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The range is the one key `start`.
    Key,
    /// The first key not in the range.
    Before(Bytes),
    /// No end: all keys from `start` on.
    Last,
}

/// What a range should carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Want {
    /// Keys and values.
    #[default]
    Values,
    /// Keys without values.
    Keys,
    /// Only [`RangeReply::count`].
    Count,
}

/// Which keys to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first key.
    pub start: Bytes,
    /// Where to end.
    pub end: End,
    /// At which revision; 0 = the current one.
    pub revision: u64,
    /// The most keys to return; 0 = all.
    pub limit: usize,
    /// What to return of each.
    pub want: Want,
}

impl Range {
    /// One key, now.
    pub fn key(key: impl Into<Bytes>) -> Range {
        Range { start: key.into(), end: End::Key, revision: 0, limit: 0, want: Want::Values }
    }

    /// All keys that begin with `prefix`, now.
    pub fn prefix(prefix: impl Into<Bytes>) -> Range {
        let start = prefix.into();
        let end = prefix_end(&start);
        Range { start, end, revision: 0, limit: 0, want: Want::Values }
    }

    /// The same at `revision` (0 = the current one).
    pub fn at(mut self, revision: u64) -> Range {
        self.revision = revision;
        self
    }

    /// The same with at most `limit` keys (0 = all).
    pub fn limit(mut self, limit: usize) -> Range {
        self.limit = limit;
        self
    }

    /// The same from the key that follows `last` on: the next page.
    pub fn after(mut self, last: &[u8]) -> Range {
        let mut start = Vec::with_capacity(last.len() + 1);
        start.extend_from_slice(last);
        start.push(0);
        self.start = start.into();
        self
    }

    /// The same with other content.
    pub fn want(mut self, want: Want) -> Range {
        self.want = want;
        self
    }
}

/// The end of the range of all keys that begin with `prefix`.
pub fn prefix_end(prefix: &[u8]) -> End {
    match prefix.iter().rposition(|&b| b != 0xff) {
        None => End::Last,
        Some(i) => {
            let mut end = prefix[..=i].to_vec();
            end[i] += 1;
            End::Before(end.into())
        }
    }
}

/// What a range read.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RangeReply {
    /// The keys, in byte order.
    pub kvs: Vec<KeyValue>,
    /// The store's current revision: with [`Range::revision`] 0, the state that was read.
    pub revision: u64,
    /// Whether `limit` cut the range short.
    pub more: bool,
    /// How many keys the whole range has, whatever `limit` says.
    pub count: u64,
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was written; created if `kv.create_revision == kv.mod_revision`.
    Put,
    /// It was deleted or expired.
    Delete,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The key after the change; of a delete only `key` and `mod_revision` (that of the delete) are set.
    pub kv: KeyValue,
    /// Of a delete, the key before it. Of a put `None`: a watcher from the beginning knows it.
    pub prev: Option<KeyValue>,
}

/// Changes in the order of their revisions.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Batch {
    /// Everything up to and including this revision has now been delivered; never splits a revision.
    pub revision: u64,
    /// The changes since the batch before; none when the batch only tells progress.
    pub events: Vec<Event>,
}

/// A running watch; ends when dropped.
pub struct Watch(Box<dyn WatchSource>);

/// Where a [`Watch`] takes its batches from: what a backend implements.
pub trait WatchSource: Send {
    /// See [`Watch::next`].
    fn next(&mut self) -> BoxFuture<'_, Result<Batch>>;
}

impl Watch {
    /// A watch over `source`.
    pub fn new(source: impl WatchSource + 'static) -> Watch {
        Watch(Box::new(source))
    }

    /// Waits for the next batch. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when the watcher was so slow that its place in history is gone,
    /// [`StoreError::Closed`] when the store was closed.
    pub async fn next(&mut self) -> Result<Batch> {
        self.0.next().await
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

/// Why a store operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The revision asked for is no longer (or, after a crash, never again) in the history.
    #[error("revision {requested} has been compacted (compacted up to {compacted})")]
    Compacted {
        /// The revision asked for.
        requested: u64,
        /// Revisions up to this one are gone.
        compacted: u64,
    },
    /// The revision asked for has not come yet.
    #[error("revision {requested} is in the future (current is {current})")]
    FutureRevision {
        /// The revision asked for.
        requested: u64,
        /// The current revision.
        current: u64,
    },
    /// The transaction is larger than the store takes.
    #[error("transaction of {size} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Keys and values, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The transaction cannot be performed as written.
    #[error("invalid transaction: {0}")]
    Invalid(&'static str),
    /// The connection to the store broke before it answered a transaction. Read before trying again.
    #[error("the store did not answer: the transaction may or may not have been performed")]
    Uncertain {
        /// What happened to the connection.
        #[source]
        source: std::io::Error,
    },
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
    /// Another process holds the data directory.
    #[error("the data directory {directory} is in use by process {holder}")]
    Locked {
        /// The directory.
        directory: String,
        /// The process id of the holder, as far as known.
        holder: String,
    },
    /// Stored bytes are not what was written.
    #[error("{file} is corrupt at offset {offset}: {what}")]
    Corrupt {
        /// The file's name within the data directory.
        file: String,
        /// The offset of the first bad byte's frame.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// The operating system or the connection failed.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The failure.
        #[source]
        source: std::io::Error,
    },
}
