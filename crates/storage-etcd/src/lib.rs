//! etcd v3 as a [`Store`]: for several API servers over one state, which etcd replicates.
//!
//! Calls are etcd's own, one each: a transaction is one Txn, a read one linearizable Range. [`storage::Class::Lazy`]
//! does not exist here. Knows no kind. Its user needs rights to all keys (`watch` says why). Works with etcd 3.4 on.
//! Upstream: k8s.io/apiserver/pkg/storage/etcd3.

mod compact;
mod connection;
mod lease;
mod proto;
mod watch;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use base::task::Task;
use bytes::Bytes;
use storage::{
    BoxFuture, End, KeyValue, Op, Range, RangeReply, Result, Store, StoreError, TXN_BYTES_MAX, Txn, TxnReply,
    Want, Watch,
};
use tokio::sync::oneshot;
use tonic::Code;

pub use connection::{Config, ConfigError};
use connection::{Connections, Failure};
use proto::{
    CompactionRequest, CompactionResponse, Compare, DeleteRangeRequest, PutRequest, RangeRequest,
    RangeResponse, Request, RequestOp, Response, ResponseHeader, TxnRequest, TxnResponse,
};

/// The first key there can be, and as the end of a range: none.
const NO_END: Bytes = Bytes::from_static(&[0]);
/// How long history is kept; upstream's interval.
const HISTORY: Duration = Duration::from_secs(300);
/// How long to look for etcd at the start; upstream's patience.
const START_MAX: Duration = Duration::from_secs(60);

/// A store in etcd.
pub struct Etcd {
    connections: Arc<Connections>,
    leases: Arc<lease::Leases>,
    /// Counts those who ask for the revision.
    asked: AtomicU64,
    /// How many of them the last answer was for, and the answer.
    answered: tokio::sync::Mutex<(u64, u64)>,
    compactor: OnceLock<Task<()>>,
}

/// Why etcd cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Nobody answers, or not as etcd does.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Etcd {
    /// Opens the store, waiting up to a minute for etcd; keeps at least five minutes of history.
    ///
    /// # Errors
    /// [`OpenError`]; when no member answers, with the failure of each.
    pub async fn open(config: &Config) -> std::result::Result<Arc<Etcd>, OpenError> {
        Etcd::open_within(config, START_MAX, HISTORY).await
    }

    /// The same with other limits: for how long etcd is waited for, and how old history gets.
    ///
    /// # Errors
    /// See [`Etcd::open`].
    pub async fn open_within(
        config: &Config,
        patience: Duration,
        history: Duration,
    ) -> std::result::Result<Arc<Etcd>, OpenError> {
        let etcd = Arc::new(Etcd {
            connections: Arc::new(Connections::new(config)?),
            leases: Arc::default(),
            asked: AtomicU64::new(0),
            answered: Default::default(),
            compactor: OnceLock::new(),
        });
        etcd.connections.wait(patience).await.map_err(|err| io("reach etcd", err))?;
        etcd.read_revision().await?;
        let store: Weak<Etcd> = Arc::downgrade(&etcd);
        etcd.compactor.get_or_init(|| base::task::spawn(compact::run(store, history)));
        Ok(etcd)
    }

    async fn read(&self, question: RangeRequest, at: u64) -> Result<RangeResponse> {
        let answer = self.connections.unary("/etcdserverpb.KV/Range", &question, true).await;
        match answer {
            Ok(answer) => Ok(answer),
            Err(failure) => Err(self.explain("read etcd", failure, at).await),
        }
    }

    async fn read_revision(&self) -> Result<u64> {
        let question = RangeRequest { key: NO_END, count_only: true, ..RangeRequest::default() };
        let answer = self.connections.unary("/etcdserverpb.KV/Range", &question, true).await;
        let answer: RangeResponse = answer.map_err(|failure| failed("read etcd", failure))?;
        Ok(revision(answer.header))
    }

    /// A failure of a call that names the revision `at`.
    async fn explain(&self, what: &'static str, failure: Failure, at: u64) -> StoreError {
        let message = match &failure {
            Failure::Refused(status) if status.code() == Code::OutOfRange => status.message(),
            _ => return failed(what, failure),
        };
        if message.ends_with("has been compacted") {
            // etcd does not say how far.
            return StoreError::Compacted { requested: at, compacted: at };
        }
        match self.read_revision().await {
            Ok(current) => StoreError::FutureRevision { requested: at, current },
            Err(error) => error,
        }
    }
}

async fn perform(connections: &Connections, leases: &lease::Leases, txn: &Txn) -> Result<TxnReply> {
    let size = txn.check()?;
    let mut success = Vec::with_capacity(txn.then.len());
    for op in &txn.then {
        let lease = match op {
            Op::Put { ttl: Some(ttl), .. } => leases.get(connections, *ttl).await,
            _ => Ok(0),
        };
        let lease = lease.map_err(|failure| failed("get a lease from etcd", failure))?;
        success.push(change(op, lease, txn.want_prev));
    }
    let compare = |(key, revision): &(Bytes, u64)| Compare {
        target: proto::TARGET_MOD,
        key: key.clone(),
        mod_revision: Some(*revision as i64),
    };
    let current = |(key, _): &(Bytes, u64)| {
        let range = RangeRequest { key: key.clone(), ..RangeRequest::default() };
        RequestOp { request: Some(Request::Range(range)) }
    };
    let question = TxnRequest {
        compare: txn.compare.iter().map(compare).collect(),
        success,
        failure: txn.compare.iter().map(current).collect(),
    };
    match connections.unary("/etcdserverpb.KV/Txn", &question, false).await {
        Ok(answer) => Ok(reply(answer, txn.want_prev)),
        // Its own bookkeeping counts too.
        Err(Failure::Refused(status)) if status.message().ends_with("request is too large") => {
            Err(StoreError::TooLarge { size, limit: TXN_BYTES_MAX.min(size.saturating_sub(1)) })
        }
        Err(failure) => Err(failed("write to etcd", failure)),
    }
}

fn change(op: &Op, lease: i64, prev_kv: bool) -> RequestOp {
    let request = match op.clone() {
        Op::Put { key, value, .. } => Request::Put(PutRequest { key, value, lease, prev_kv }),
        Op::Delete { key } => Request::Delete(DeleteRangeRequest { key, prev_kv }),
    };
    RequestOp { request: Some(request) }
}

fn reply(answer: TxnResponse, want_prev: bool) -> TxnReply {
    let revision = revision(answer.header);
    let keys = answer.responses.into_iter().map(|op| {
        let kv = match op.response? {
            Response::Range(range) => range.kvs.into_iter().next(),
            Response::Put(put) => put.prev_kv,
            Response::Delete(delete) => delete.prev_kvs.into_iter().next(),
        };
        kv.map(key_value)
    });
    match (answer.succeeded, want_prev) {
        (true, true) => TxnReply::Done { revision, prev: keys.collect() },
        (true, false) => TxnReply::Done { revision, prev: Vec::new() },
        (false, _) => TxnReply::Conflict { revision, current: keys.collect() },
    }
}

fn key_value(kv: proto::KeyValue) -> KeyValue {
    KeyValue {
        key: kv.key,
        value: kv.value,
        create_revision: kv.create_revision as u64,
        mod_revision: kv.mod_revision as u64,
        version: kv.version as u64,
        expires: kv.lease != 0,
    }
}

fn revision(header: Option<ResponseHeader>) -> u64 {
    header.map_or(0, |h| h.revision as u64)
}

fn io(what: &'static str, err: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Io { what, source: io::Error::other(err) }
}

fn failed(what: &'static str, failure: Failure) -> StoreError {
    match failure {
        Failure::Refused(status) => io(what, status),
        Failure::Unreachable(err) => io(what, err),
        Failure::Uncertain(source) => StoreError::Uncertain { source },
    }
}

impl Store for Etcd {
    fn is_shared(&self) -> bool {
        true
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnReply>> {
        Box::pin(async move {
            let (connections, leases) = (self.connections.clone(), self.leases.clone());
            let (done, answer) = oneshot::channel();
            // A task of its own, since a dropped call would be cancelled at the member.
            base::task::spawn(async move {
                // Whoever does not listen any more does not want to know.
                drop(done.send(perform(&connections, &leases, &txn).await));
            })
            .detach();
            answer.await.unwrap_or(Err(StoreError::Closed))
        })
    }

    fn range(&self, range: Range) -> BoxFuture<'_, Result<RangeReply>> {
        Box::pin(async move {
            let question = RangeRequest {
                key: if range.start.is_empty() { NO_END } else { range.start },
                range_end: match range.end {
                    End::Key => Bytes::new(),
                    End::Before(end) => end,
                    End::Last => NO_END,
                },
                limit: range.limit as i64,
                revision: range.revision as i64,
                keys_only: range.want == Want::Keys,
                count_only: range.want == Want::Count,
            };
            let answer = self.read(question, range.revision).await?;
            Ok(RangeReply {
                revision: revision(answer.header),
                more: answer.more,
                count: answer.count as u64,
                kvs: answer.kvs.into_iter().map(key_value).collect(),
            })
        })
    }

    fn watch(&self, prefix: Bytes, from_revision: u64) -> BoxFuture<'_, Result<Watch>> {
        Box::pin(async move {
            let next = match from_revision {
                0 => self.revision().await? + 1,
                from => from,
            };
            Ok(Watch::new(watch::Source::new(self.connections.clone(), prefix, next)))
        })
    }

    fn revision(&self) -> BoxFuture<'_, Result<u64>> {
        Box::pin(async move {
            // One question answers all who came before it was put.
            let me = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
            let mut answered = self.answered.lock().await;
            if answered.0 < me {
                let asked = self.asked.load(Ordering::SeqCst);
                *answered = (asked, self.read_revision().await?);
            }
            Ok(answered.1)
        })
    }

    fn compact(&self, revision: u64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let question = CompactionRequest { revision: revision as i64 };
            // Asked twice it says that it is done, which the other answer would have hidden.
            match self.connections.unary("/etcdserverpb.KV/Compact", &question, false).await {
                Ok(CompactionResponse {}) => Ok(()),
                Err(failure) => Err(self.explain("compact etcd", failure, revision).await),
            }
        })
    }
}
