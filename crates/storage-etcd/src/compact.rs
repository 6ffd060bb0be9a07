//! Forgetting history: every interval, one of all API servers on this etcd compacts to where it was an interval ago.
//!
//! They agree by a key whose version is their common clock: who moves it on compacts; the others follow it. Key and
//! meaning are upstream's (k8s.io/apiserver/pkg/storage/etcd3/compact.go), so that its servers take part.

use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use storage::{Op, Result, Store, StoreError, Txn, TxnReply};

/// Outside of every prefix; its value is the revision last compacted to.
const KEY: &str = "compact_rev_key";

/// Compacts every `interval` until the store is dropped.
pub async fn run(store: Weak<dyn Store>, interval: Duration) {
    let mut clock = Clock::default();
    loop {
        base::time::sleep(interval).await;
        let Some(store) = store.upgrade() else { return };
        if let Err(error) = clock.tick(&*store).await {
            tracing::warn!(%error, "etcd's history could not be compacted");
        }
    }
}

/// What one server knows of the common clock.
#[derive(Default)]
struct Clock {
    /// The key's mod revision when we saw it last.
    seen: u64,
    /// The store's revision at that time: an interval later it is old enough; 0 when nothing was seen yet.
    revision: u64,
}

impl Clock {
    async fn tick(&mut self, store: &dyn Store) -> Result<()> {
        let value = Bytes::from(self.revision.to_string());
        match store.txn(Txn::guarded(self.seen, Op::put(KEY, value))).await? {
            TxnReply::Conflict { revision, current } => {
                let seen = current.into_iter().next().flatten().map_or(0, |kv| kv.mod_revision);
                *self = Clock { seen, revision };
                Ok(())
            }
            TxnReply::Done { revision, .. } => {
                let target = self.revision;
                *self = Clock { seen: revision, revision };
                match target {
                    0 => Ok(()),
                    target => match store.compact(target).await {
                        // Somebody did it by hand.
                        Err(StoreError::Compacted { .. }) => Ok(()),
                        done => done,
                    },
                }
            }
        }
    }
}
