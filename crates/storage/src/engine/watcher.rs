//! Watches: a place in the history that its watcher moves on by pulling, so that no watcher needs a queue.

use std::sync::Arc;

use base::watch;
use bytes::Bytes;

use super::Shared;
use super::index::{Held, Source, State};
use super::log;
use crate::{Batch, BoxFuture, Event, EventKind, KeyValue, Result, StoreError, WatchSource};

/// A batch takes no further revision once it has this many events.
const EVENTS_MAX: usize = 1024;
/// A batch takes no further revision once its values have this many bytes.
const BYTES_MAX: usize = 4 << 20;
/// A batch takes no further revision once it has passed this many changes, wanted or not.
const WALK_MAX: usize = 16_384;

/// One watch.
pub struct Cursor {
    shared: Arc<Shared>,
    prefix: Bytes,
    /// The first revision not delivered yet.
    next: u64,
    visible: watch::Receiver<u64>,
}

/// Changes whose values are still to be read.
struct Found {
    revision: u64,
    /// Of a put the new version, of a delete the one before with the delete's revision.
    events: Vec<(Held, Option<u64>)>,
}

impl Cursor {
    /// A watch of keys under `prefix` that begins with revision `next`.
    pub fn new(shared: Arc<Shared>, prefix: Bytes, next: u64, visible: watch::Receiver<u64>) -> Cursor {
        Cursor { shared, prefix, next, visible }
    }

    async fn pull(&mut self) -> Result<Batch> {
        let found = loop {
            let found = find(&self.shared.state(), &self.prefix, self.next)?;
            if let Some(found) = found {
                break found;
            }
            self.visible.changed().await.map_err(|_| StoreError::Closed)?;
        };
        let (held, deletes): (Vec<_>, Vec<_>) = found.events.into_iter().unzip();
        let read = log::read(held).await?;
        let events = read.into_iter().zip(deletes).map(|(kv, deleted)| event(kv, deleted)).collect();
        self.next = found.revision + 1;
        Ok(Batch { revision: found.revision, events })
    }
}

fn event(kv: KeyValue, deleted: Option<u64>) -> Event {
    match deleted {
        None => Event { kind: EventKind::Put, kv, prev: None },
        Some(revision) => {
            let gone = KeyValue { key: kv.key.clone(), mod_revision: revision, ..KeyValue::default() };
            Event { kind: EventKind::Delete, kv: gone, prev: Some(kv) }
        }
    }
}

/// What happened from revision `next` on; `None` when nothing did yet.
fn find(state: &State, prefix: &Bytes, next: u64) -> Result<Option<Found>> {
    if state.visible < next {
        return Ok(None);
    }
    state.check_watch(next)?;
    let begin = state.changes.partition_point(|c| c.revision < next);
    let mut found = Found { revision: state.visible, events: Vec::new() };
    let (mut bytes, mut last) = (0, 0);
    for (walked, change) in state.changes.range(begin..).enumerate() {
        let full = found.events.len() >= EVENTS_MAX || bytes >= BYTES_MAX || walked >= WALK_MAX;
        if full && change.revision != last {
            found.revision = last;
            break;
        }
        last = change.revision;
        if !change.key.starts_with(prefix) {
            continue;
        }
        let history = state.keys.get(&change.key).expect("what is not compacted is in the index");
        let version = *history.at(change.revision).expect("a change is a version");
        bytes += version.place.len as usize;
        if version.lives() {
            let held = match state.recent(begin + walked) {
                Some(value) => Held {
                    key: Bytes::copy_from_slice(&change.key),
                    version,
                    source: Source::Memory(value.clone()),
                },
                None => state.held(&change.key, version),
            };
            found.events.push((held, None));
        } else {
            let before = *history.at(change.revision - 1).expect("only what exists is deleted");
            found.events.push((state.held(&change.key, before), Some(change.revision)));
        }
    }
    Ok(Some(found))
}

impl WatchSource for Cursor {
    fn next(&mut self) -> BoxFuture<'_, Result<Batch>> {
        Box::pin(self.pull())
    }
}
