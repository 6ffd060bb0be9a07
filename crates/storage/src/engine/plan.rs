//! The core of group commit, without IO: takes transactions one after the other, decides each against the state and
//! those before it in the batch, and gathers the bytes to be written and the changes to be applied once they are safe.

use base::hash::Map;
use bytes::Bytes;

use super::frame::{self, NewRecord, Payload};
use super::index::{Held, Place, Source, State, Version};
use crate::{Class, Op, Txn};

/// Transactions that will be written as one.
pub struct Batch {
    /// What to append to the segment.
    pub buffer: Vec<u8>,
    /// Whether it must be safe before it is applied.
    pub sync: bool,
    /// The revision after the batch.
    pub revision: u64,
    /// Up to which revisions may be handed out, after the batch.
    pub reserved: u64,
    /// The compaction point after the batch, if it moves it.
    pub compact: Option<u64>,
    segment: u32,
    offset: u64,
    synced: u64,
    changes: Vec<(Bytes, Version, Bytes)>,
    latest: Map<Bytes, usize>,
}

/// How a transaction was decided; becomes true when the batch is applied.
pub enum Decision {
    Done { revision: u64, prev: Vec<Option<Held>> },
    Conflict { revision: u64, current: Vec<Option<Held>> },
}

/// Where and after what a batch will be written.
#[derive(Clone, Copy)]
pub struct Position {
    pub segment: u32,
    /// The segment's length.
    pub offset: u64,
    /// Up to where it is safe.
    pub synced: u64,
    /// Up to which revisions may be handed out.
    pub reserved: u64,
}

impl Batch {
    /// An empty batch.
    pub fn new(at: Position, visible: u64) -> Batch {
        Batch {
            buffer: Vec::new(),
            sync: false,
            revision: visible,
            reserved: at.reserved,
            compact: None,
            segment: at.segment,
            offset: at.offset,
            synced: at.synced,
            changes: Vec::new(),
            latest: Map::default(),
        }
    }

    fn current(&self, state: &State, key: &Bytes) -> Option<Held> {
        if let Some(&at) = self.latest.get(key) {
            let (key, version, value) = &self.changes[at];
            let held = Held { key: key.clone(), version: *version, source: Source::Memory(value.clone()) };
            return version.lives().then_some(held);
        }
        let version = state.keys.get(&**key)?.latest;
        version.lives().then(|| state.held(key, version))
    }

    fn current_version(&self, state: &State, key: &Bytes) -> Option<Version> {
        let version = match self.latest.get(key) {
            Some(&at) => self.changes[at].1,
            None => state.keys.get(&**key)?.latest,
        };
        version.lives().then_some(version)
    }

    /// Decides `txn`, whose form has been checked; `now_ms` is the wall clock.
    pub fn decide(&mut self, state: &State, txn: &Txn, now_ms: u64) -> Decision {
        let holds = txn
            .compare
            .iter()
            .all(|(key, revision)| self.current_version(state, key).map_or(0, |v| v.revision) == *revision);
        if !holds {
            let current = txn.compare.iter().map(|(key, _)| self.current(state, key)).collect();
            return Decision::Conflict { revision: self.revision, current };
        }
        let prev = match txn.want_prev {
            true => txn.then.iter().map(|op| self.current(state, op.key())).collect(),
            false => Vec::new(),
        };
        let mut records = Vec::with_capacity(txn.then.len());
        for op in &txn.then {
            let before = self.current_version(state, op.key());
            match op {
                Op::Put { key, value, ttl } => {
                    let expiry_ms = ttl.map_or(0, |ttl| now_ms.saturating_add(ttl.as_millis() as u64).max(1));
                    let create = before.map_or(self.revision + 1, |v| v.create);
                    let version = before.map_or(1, |v| v.version + 1);
                    records.push((key.clone(), create, version, expiry_ms, value.clone()));
                }
                Op::Delete { key } if before.is_some() => records.push((key.clone(), 0, 0, 0, Bytes::new())),
                Op::Delete { .. } => {}
            }
        }
        if !records.is_empty() {
            self.append(records);
            self.sync |= txn.class == Class::Durable;
        }
        Decision::Done { revision: self.revision, prev }
    }

    /// Deletes those of `due` that are still at the revision given with them, in one revision.
    pub fn expire(&mut self, state: &State, due: &[(Bytes, u64)]) {
        let still = |(key, revision): &&(Bytes, u64)| {
            self.current_version(state, key).is_some_and(|v| v.revision == *revision)
        };
        let records: Vec<_> =
            due.iter().filter(still).map(|(key, _)| (key.clone(), 0, 0, 0, Bytes::new())).collect();
        if !records.is_empty() {
            // Not urgent: what a power cut brings back expires again.
            self.append(records);
        }
    }

    /// Moves the compaction point, safely: it takes effect when all revisions up to it are synced. For a rewrite leaves
    /// out of the sealed segments what a later version has replaced; if that one was lazy and a power cut took it, the
    /// key would have neither, and history would begin after its end.
    pub fn compact(&mut self, revision: u64) {
        frame::other(&mut self.buffer, self.synced, &Payload::Compact { revision });
        self.compact = Some(revision);
        self.sync = true;
    }

    fn append(&mut self, records: Vec<(Bytes, u64, u64, u64, Bytes)>) {
        self.revision += 1;
        let new: Vec<_> = records
            .iter()
            .map(|(key, create, version, expiry_ms, value)| NewRecord {
                key,
                create: *create,
                version: *version,
                expiry_ms: *expiry_ms,
                value,
            })
            .collect();
        let places = frame::txn(&mut self.buffer, self.synced, self.revision, &new);
        for ((key, create, version, expiry_ms, value), at) in records.into_iter().zip(places) {
            let place =
                Place { segment: self.segment, offset: self.offset + at as u64, len: value.len() as u32 };
            let version = Version { revision: self.revision, create, version, expiry_ms, place };
            self.latest.insert(key.clone(), self.changes.len());
            self.changes.push((key, version, value));
        }
    }

    /// Ends the batch: reserves the next `block` revisions if the batch used up those that were.
    pub fn finish(&mut self, block: u64) {
        if self.revision > self.reserved {
            self.reserved = self.revision + block;
            frame::other(&mut self.buffer, self.synced, &Payload::Reserve { to: self.reserved });
            self.sync = true;
        }
    }

    /// Makes the batch part of the state, after it was written.
    pub fn apply(self, state: &mut State) {
        for (key, version, value) in self.changes {
            state.apply(&key, version, Some(value));
        }
        assert!(self.revision >= state.visible, "the revision never decreases");
        state.visible = self.revision;
        state.reserved = self.reserved;
        if let Some(compact) = self.compact {
            state.compacted = state.compacted.max(compact);
        }
    }
}
