//! What the engine keeps in memory: for each key its versions with their places in the log, and the changes since
//! the compaction point in their order. Pure; reads no file and asks no clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::frame::record_size;
use crate::disk::File;
use crate::{End, KeyValue, Range, Result, StoreError, Want};

/// A key as the index has it: its own small copy, which does not pin the buffer that it came in.
pub type Key = Arc<[u8]>;

/// Set in the id of a segment that is a base, so that it differs from the segment whose number it bears.
pub const BASE: u32 = 1 << 31;

/// Where a value lies: `[crc32][value]` from `offset` of the segment on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Place {
    pub segment: u32,
    pub offset: u64,
    pub len: u32,
}

/// One state of a key; `version` 0 means deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    pub revision: u64,
    pub create: u64,
    pub version: u64,
    pub expiry_ms: u64,
    pub place: Place,
}

impl Version {
    /// Whether the key exists in this state.
    pub fn lives(&self) -> bool {
        self.version > 0
    }

    /// The key and this state of it, with `value`.
    pub fn key_value(&self, key: Bytes, value: Bytes) -> KeyValue {
        KeyValue {
            key,
            value,
            create_revision: self.create,
            mod_revision: self.revision,
            version: self.version,
            expires: self.expiry_ms > 0,
        }
    }
}

/// The versions of a key that are not forgotten, in order; most keys have just one.
#[derive(Debug)]
pub struct History {
    pub latest: Version,
    #[expect(
        clippy::box_collection,
        reason = "a third of the bytes of each of the many keys that have none"
    )]
    older: Option<Box<Vec<Version>>>,
}

impl History {
    /// The state at `revision`, which may be a delete.
    pub fn at(&self, revision: u64) -> Option<&Version> {
        if self.latest.revision <= revision {
            return Some(&self.latest);
        }
        self.older().iter().rev().find(|v| v.revision <= revision)
    }

    /// All versions but the latest, in order.
    pub fn older(&self) -> &[Version] {
        self.older.as_ref().map_or(&[], |older| older)
    }

    /// All versions in order.
    pub fn all(&mut self) -> impl Iterator<Item = &mut Version> {
        self.older.iter_mut().flat_map(|older| older.iter_mut()).chain(std::iter::once(&mut self.latest))
    }
}

/// One change of one key, for watchers.
#[derive(Debug)]
pub struct Change {
    pub revision: u64,
    pub key: Key,
    /// How long the value is.
    len: u32,
}

impl Change {
    /// What it takes of the log.
    fn size(&self) -> u64 {
        record_size(self.key.len(), self.len as usize)
    }
}

/// One file of the log.
pub struct Segment {
    pub file: Arc<dyn File>,
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// What those records take that the index names.
    pub live: u64,
}

/// A version whose value is still to be read.
#[derive(Clone)]
pub struct Held {
    pub key: Bytes,
    pub version: Version,
    pub source: Source,
}

/// Where a [`Held`] value comes from.
#[derive(Clone)]
pub enum Source {
    Memory(Bytes),
    File(Arc<dyn File>, Arc<str>),
}

/// The whole state. Invariant: `visible` never decreases, `compacted <= visible`.
pub struct State {
    pub keys: BTreeMap<Key, History>,
    pub changes: VecDeque<Change>,
    pub visible: u64,
    pub compacted: u64,
    /// Up to which revisions may be handed out.
    pub reserved: u64,
    /// Lost revisions: between the two numbers, both exclusive.
    pub gaps: Vec<(u64, u64)>,
    /// By number, that of the base with [`BASE`] set.
    pub segments: BTreeMap<u32, Segment>,
    /// (when, revision, key) of what expires.
    pub expiries: BTreeSet<(u64, u64, Key)>,
    /// What the records behind `changes` take of the log.
    pub history_bytes: u64,
    /// The values of the latest changes; those of others are read from the log.
    recent: VecDeque<Bytes>,
    recent_bytes: usize,
    recent_bytes_max: usize,
}

/// How many keys are walked before the lock is given to others.
pub const WALK_MAX: usize = 8192;

impl State {
    /// An empty state that keeps the values of the latest `recent_bytes_max` bytes of changes.
    pub fn new(recent_bytes_max: usize) -> State {
        State {
            keys: BTreeMap::new(),
            changes: VecDeque::new(),
            visible: 0,
            compacted: 0,
            reserved: 0,
            gaps: Vec::new(),
            segments: BTreeMap::new(),
            expiries: BTreeSet::new(),
            history_bytes: 0,
            recent: VecDeque::new(),
            recent_bytes: 0,
            recent_bytes_max,
        }
    }

    /// Makes `version` the latest of `key`, as one of the history's changes. `value` is kept while it is recent.
    pub fn apply(&mut self, key: &Bytes, version: Version, value: Option<Bytes>) {
        let size = record_size(key.len(), version.place.len as usize);
        self.live(version.place.segment, size as i64);
        let key = match self.keys.get_key_value(&**key) {
            Some((known, _)) => known.clone(),
            None => Key::from(&**key),
        };
        match self.keys.get_mut(&key) {
            Some(history) => {
                assert!(history.latest.revision < version.revision, "revisions of a key only grow");
                let before = std::mem::replace(&mut history.latest, version);
                history.older.get_or_insert_default().push(before);
                if before.expiry_ms > 0 {
                    self.expiries.remove(&(before.expiry_ms, before.revision, key.clone()));
                }
            }
            None => {
                self.keys.insert(key.clone(), History { latest: version, older: None });
            }
        }
        if version.expiry_ms > 0 {
            self.expiries.insert((version.expiry_ms, version.revision, key.clone()));
        }
        self.history_bytes += size;
        self.changes.push_back(Change { revision: version.revision, key, len: version.place.len });
        self.recent_bytes += value.as_ref().map_or(0, Bytes::len);
        match value {
            Some(value) => self.recent.push_back(value),
            None => (self.recent, self.recent_bytes) = (VecDeque::new(), 0),
        }
        while self.recent_bytes > self.recent_bytes_max {
            self.recent_bytes -= self.recent.pop_front().map_or(0, |v| v.len());
        }
    }

    /// The value of the change at `index` of `changes`, while it is in memory.
    pub fn recent(&self, index: usize) -> Option<&Bytes> {
        self.recent.get((index + self.recent.len()).checked_sub(self.changes.len())?)
    }

    /// Takes a version from a rewritten segment, which has a key's versions in order and no place in `changes` for
    /// those before the compaction point.
    pub fn load(&mut self, key: &[u8], version: Version) {
        if version.revision > self.compacted {
            return self.apply(&Bytes::copy_from_slice(key), version, None);
        }
        if let Some(old) = self.keys.remove(key) {
            self.forget(key, &old.latest);
        }
        if version.lives() {
            self.live(version.place.segment, record_size(key.len(), version.place.len as usize) as i64);
            let key = Key::from(key);
            if version.expiry_ms > 0 {
                self.expiries.insert((version.expiry_ms, version.revision, key.clone()));
            }
            self.keys.insert(key, History { latest: version, older: None });
        }
    }

    /// Notes that a value was copied to `place`.
    pub fn moved(&mut self, key: &[u8], revision: u64, place: Place) {
        let Some(history) = self.keys.get_mut(key) else { return };
        let Some(version) = history.all().find(|v| v.revision == revision) else { return };
        let from = std::mem::replace(&mut version.place, place).segment;
        let size = record_size(key.len(), place.len as usize) as i64;
        self.live(from, -size);
        self.live(place.segment, size);
    }

    /// Puts the changes in the order of revisions after a rewritten segment, which is in the order of keys.
    pub fn sort_changes(&mut self) {
        self.changes.make_contiguous().sort_by_key(|c| c.revision);
    }

    fn live(&mut self, segment: u32, by: i64) {
        if let Some(segment) = self.segments.get_mut(&segment) {
            segment.live = segment.live.saturating_add_signed(by);
        }
    }

    fn forget(&mut self, key: &[u8], version: &Version) {
        self.live(version.place.segment, -(record_size(key.len(), version.place.len as usize) as i64));
        if version.expiry_ms > 0 {
            self.expiries.remove(&(version.expiry_ms, version.revision, Key::from(key)));
        }
    }

    /// Forgets what `compacted` allows to forget, at most [`WALK_MAX`] changes; whether there is more.
    pub fn prune(&mut self) -> bool {
        for _ in 0..WALK_MAX {
            match self.changes.front() {
                Some(change) if change.revision <= self.compacted => {}
                _ => {
                    let compacted = self.compacted;
                    self.gaps.retain(|&(_, before)| before > compacted);
                    return false;
                }
            }
            let change = self.changes.pop_front().expect("there is a front");
            self.history_bytes -= change.size();
            if self.recent.len() > self.changes.len() {
                self.recent_bytes -= self.recent.pop_front().map_or(0, |v| v.len());
            }
            self.prune_key(&change.key);
        }
        true
    }

    fn prune_key(&mut self, key: &[u8]) {
        let Some(history) = self.keys.get_mut(key) else { return };
        let mut gone = Vec::new();
        // The newest state at the compaction point stays, unless it is a delete.
        let older = history.older.as_deref_mut();
        if history.latest.revision <= self.compacted {
            gone.extend(older.into_iter().flat_map(|older| older.drain(..)));
            history.older = None;
            if !history.latest.lives() {
                gone.push(history.latest);
                self.keys.remove(key);
            }
        } else if let Some(older) = older {
            let kept = older.partition_point(|v| v.revision <= self.compacted);
            if kept > 0 {
                let keep_last = older[kept - 1].lives();
                gone.extend(older.drain(..kept - usize::from(keep_last)));
            }
        }
        for version in gone {
            self.forget(key, &version);
        }
    }

    /// Which revision a read at `requested` (0 = now) reads.
    ///
    /// # Errors
    /// When it is forgotten, lost or still to come.
    pub fn read_revision(&self, requested: u64) -> Result<u64> {
        if requested == 0 {
            return Ok(self.visible);
        }
        if requested > self.visible {
            return Err(StoreError::FutureRevision { requested, current: self.visible });
        }
        if requested < self.compacted {
            return Err(StoreError::Compacted { requested, compacted: self.compacted });
        }
        self.check_gaps(requested, requested)?;
        Ok(requested)
    }

    /// Refuses a watch whose first revision is `from` if the history from there on is not whole.
    ///
    /// # Errors
    /// When `from` is forgotten, or the watcher has seen a revision that was lost.
    pub fn check_watch(&self, from: u64) -> Result<()> {
        if from <= self.compacted {
            return Err(StoreError::Compacted { requested: from, compacted: self.compacted });
        }
        self.check_gaps(from - 1, from)
    }

    fn check_gaps(&self, seen: u64, requested: u64) -> Result<()> {
        match self.gaps.iter().find(|&&(after, before)| after < seen && seen < before) {
            Some(&(_, before)) => Err(StoreError::Compacted { requested, compacted: before - 1 }),
            None => Ok(()),
        }
    }

    /// The version together with the means to read its value.
    pub fn held(&self, key: &[u8], version: Version) -> Held {
        let segment = &self.segments[&version.place.segment];
        let source = Source::File(segment.file.clone(), segment.name.as_str().into());
        Held { key: Bytes::copy_from_slice(key), version, source }
    }

    /// Walks at most [`WALK_MAX`] keys of `range` from `from` on in the state at `revision`, adding to `out` until it
    /// has `limit` and to `count` always.
    pub fn walk(
        &self,
        range: &Range,
        from: Bound<Bytes>,
        revision: u64,
        out: &mut Vec<Held>,
        count: &mut u64,
    ) -> Option<Bound<Bytes>> {
        let end = match &range.end {
            End::Key => Bound::Included(&*range.start),
            End::Before(end) => Bound::Excluded(&**end),
            End::Last => Bound::Unbounded,
        };
        let from = from.as_ref().map(|from| &**from);
        if let (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) =
            (&from, &end)
            && (a > b || (a == b && !matches!((&from, &end), (Bound::Included(_), Bound::Included(_)))))
        {
            return None;
        }
        for (walked, (key, history)) in self.keys.range::<[u8], _>((from, end)).enumerate() {
            if let Some(version) = history.at(revision).filter(|v| v.lives()) {
                *count += 1;
                if range.want != Want::Count && (range.limit == 0 || out.len() < range.limit) {
                    out.push(match range.want {
                        Want::Values => self.held(key, *version),
                        _ => {
                            let key = Bytes::copy_from_slice(key);
                            Held { key, version: *version, source: Source::Memory(Bytes::new()) }
                        }
                    });
                }
            }
            if walked + 1 == WALK_MAX {
                return Some(Bound::Excluded(Bytes::copy_from_slice(key)));
            }
        }
        None
    }
}
