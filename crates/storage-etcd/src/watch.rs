//! A watch that outlives its connections.
//!
//! It watches all keys there are and leaves out the others itself: every revision has an event, so that any revision
//! is progress, on versions of etcd too that cannot tell progress reliably (before 3.4.31 and 3.5.13). Only a store
//! that others write to as well pays for that.

use std::sync::Arc;

use bytes::Bytes;
use storage::{Batch, BoxFuture, EventKind, Result, StoreError, WatchSource};

use crate::connection::{Connections, Failure, back_off};
use crate::proto::{EVENT_DELETE, Event, WatchCreateRequest, WatchRequest, WatchResponse};
use crate::{NO_END, io, key_value};

/// Where batches come from.
pub struct Source {
    connections: Arc<Connections>,
    prefix: Bytes,
    /// The first revision that is still to be delivered.
    next: u64,
    answers: Option<(usize, tonic::Streaming<WatchResponse>)>,
    /// Events of answers that are not whole yet.
    held: Vec<storage::Event>,
    back_off: base::backoff::Backoff,
}

impl Source {
    /// A watch of the keys with `prefix` from revision `next` on.
    pub fn new(connections: Arc<Connections>, prefix: Bytes, next: u64) -> Source {
        Source { connections, prefix, next, answers: None, held: Vec::new(), back_off: back_off() }
    }

    async fn open(&mut self) -> std::result::Result<(), Failure> {
        // From one revision earlier, because etcd lets the compacted revision itself be watched, whose deletes are
        // gone.
        let start = self.next.saturating_sub(1).max(1);
        let create = WatchCreateRequest {
            key: NO_END,
            range_end: NO_END,
            start_revision: start as i64,
            prev_kv: true,
            fragment: true,
        };
        let question = WatchRequest { create: Some(create) };
        self.answers = Some(self.connections.stream("/etcdserverpb.Watch/Watch", question).await?);
        self.held.clear();
        Ok(())
    }

    /// Takes in one answer; gives what is whole.
    fn take(&mut self, answer: WatchResponse) -> Result<Option<Batch>> {
        if answer.compact_revision > 0 {
            let compacted = answer.compact_revision as u64;
            return Err(StoreError::Compacted { requested: self.next, compacted });
        }
        if answer.canceled {
            return Err(io("watch etcd", answer.cancel_reason));
        }
        self.back_off.reset();
        let Some(last) = answer.events.last().and_then(|e| e.kv.as_ref()).map(|kv| kv.mod_revision as u64)
        else {
            return Ok(None);
        };
        let (prefix, next) = (self.prefix.clone(), self.next);
        let ours = answer.events.into_iter().filter_map(event);
        self.held.extend(ours.filter(|e| e.kv.mod_revision >= next && e.kv.key.starts_with(&prefix)));
        let whole = if answer.fragment { last - 1 } else { last };
        if whole < self.next {
            return Ok(None);
        }
        self.next = whole + 1;
        let rest = self.held.split_off(self.held.partition_point(|e| e.kv.mod_revision <= whole));
        Ok(Some(Batch { revision: whole, events: std::mem::replace(&mut self.held, rest) }))
    }

    /// The connection failed: the next member goes on from where this one stopped.
    async fn broken(&mut self, why: &(dyn std::fmt::Display + Sync)) {
        tracing::warn!(%why, from = self.next, "the watch of etcd is resumed");
        if let Some((turn, _)) = self.answers.take() {
            self.connections.failed(turn).await;
        }
        base::time::sleep(self.back_off.next_wait()).await;
    }
}

impl WatchSource for Source {
    fn next(&mut self) -> BoxFuture<'_, Result<Batch>> {
        Box::pin(async move {
            loop {
                let Some((_, answers)) = &mut self.answers else {
                    match self.open().await {
                        Ok(()) => {}
                        Err(Failure::Refused(status)) => return Err(io("watch etcd", status)),
                        Err(Failure::Unreachable(err) | Failure::Uncertain(err)) => self.broken(&err).await,
                    }
                    continue;
                };
                match answers.message().await {
                    Ok(Some(answer)) => match self.take(answer) {
                        Ok(None) => {}
                        Ok(Some(batch)) => return Ok(batch),
                        Err(end) => {
                            self.answers = None;
                            return Err(end);
                        }
                    },
                    Ok(None) => self.broken(&"the member ended it").await,
                    Err(status) => self.broken(&status).await,
                }
            }
        })
    }
}

fn event(event: Event) -> Option<storage::Event> {
    let kv = key_value(event.kv?);
    if event.kind == EVENT_DELETE {
        return Some(storage::Event { kind: EventKind::Delete, kv, prev: event.prev_kv.map(key_value) });
    }
    Some(storage::Event { kind: EventKind::Put, kv, prev: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Config;
    use crate::proto::KeyValue;

    fn answer(revisions: &[i64], fragment: bool) -> WatchResponse {
        let event = |r: &i64| {
            let kv = KeyValue { key: "/a".into(), mod_revision: *r, ..KeyValue::default() };
            Event { kv: Some(kv), ..Event::default() }
        };
        WatchResponse { fragment, events: revisions.iter().map(event).collect(), ..WatchResponse::default() }
    }

    #[test]
    fn fragments_are_put_together_by_revision() {
        let config = Config { endpoints: vec!["127.0.0.1:1".into()], ..Config::default() };
        let connections = Arc::new(Connections::new(&config).expect("an address"));
        let mut source = Source::new(connections, "/".into(), 5);
        let mut take = |revisions: &[i64], fragment| {
            let batch = source.take(answer(revisions, fragment)).expect("no end");
            batch.map(|b| (b.revision, b.events.iter().map(|e| e.kv.mod_revision).collect::<Vec<_>>()))
        };
        assert_eq!(take(&[], false), None, "that it began");
        assert_eq!(take(&[4], false), None, "before the first wanted");
        assert_eq!(take(&[5, 6], true), Some((5, vec![5])));
        assert_eq!(take(&[6, 6], true), None, "6 may go on");
        assert_eq!(take(&[6, 7], false), Some((7, vec![6, 6, 6, 6, 7])));
        assert_eq!(take(&[8, 9], false), Some((9, vec![8, 9])));
    }
}
