//! What clients asked and what they were answered: the evidence that [`crate::checkers::judges`] hold against what was
//! committed.

use std::sync::{Arc, Mutex, MutexGuard};

use apimachinery::call::{Stored, WatchEvent};

use crate::ledger::{Ledger, Selection};

/// A write that a client asked for. Each carries a token of its own in the object.
pub struct Attempt {
    /// The newest revision that any client knew before.
    pub floor: u64,
    /// Of which key.
    pub key: String,
    /// What tells it from all others.
    pub token: String,
    /// What was asked for.
    pub what: What,
    /// How it ended.
    pub end: End,
}

/// Kinds of writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A new object.
    Create,
    /// Another state in place of that of revision `over`; of whichever when 0.
    Update {
        /// The revision named.
        over: u64,
    },
    /// A change of the token and this annotation alone.
    Patch {
        /// The annotation.
        annotation: String,
    },
    /// The end of the object of this uid.
    Delete {
        /// The uid named.
        uid: String,
    },
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub enum End {
    /// It was done, and this is the object.
    Done(Arc<Stored>),
    /// The object is gone.
    Gone,
    /// Nothing was done, for this reason.
    Refused(String),
    /// Nobody knows.
    Unknown,
}

/// A read that was answered.
pub struct Read {
    /// The newest revision that any client knew before.
    pub floor: u64,
    /// What was asked for.
    pub how: How,
    /// What was seen.
    pub seen: Seen,
}

/// What a read asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The present.
    Fresh,
    /// Whatever is at hand.
    Cached,
    /// A state not older than this.
    NotOlder(u64),
    /// The state of this revision.
    Exact(u64),
}

/// What a read gave.
pub enum Seen {
    /// One object, or that there is none.
    One(String, Option<Arc<Stored>>),
    /// A list, with the revision of each of its pages.
    List(Selection, Vec<u64>, Vec<Arc<Stored>>),
}

/// A watch, until it ended.
pub struct Watched {
    /// Of what.
    pub selection: Selection,
    /// After which revision; none when it began with all objects as they are.
    pub from: Option<u64>,
    /// What it said, in order.
    pub heard: Vec<WatchEvent>,
}

/// All of it.
#[derive(Default)]
pub struct Evidence {
    /// Writes.
    pub attempts: Vec<Attempt>,
    /// Reads.
    pub reads: Vec<Read>,
    /// Watches.
    pub watches: Vec<Watched>,
    /// What was committed.
    pub ledger: Ledger,
}

/// Where clients note what they see.
#[derive(Default)]
pub struct Record(Mutex<Held>);

#[derive(Default)]
struct Held {
    floor: u64,
    revisions: Vec<u64>,
    evidence: Evidence,
}

// === impl Watched ===

/// The revision that an event tells; of those that tell none, 0.
pub fn revision(event: &WatchEvent) -> u64 {
    match event {
        WatchEvent::Added(seen) | WatchEvent::Modified(seen) | WatchEvent::Deleted(seen) => seen.revision,
        WatchEvent::Bookmark { revision, .. } => *revision,
        WatchEvent::Error(_) | WatchEvent::Rendered { .. } => 0,
    }
}

impl Watched {
    /// The objects that the watch began with, with the revision of that state, and what came after.
    pub fn parts(&self) -> Option<(u64, &[WatchEvent], &[WatchEvent])> {
        match self.from {
            Some(from) => Some((from, &[], &self.heard)),
            None => {
                let is_end = |heard: &WatchEvent| matches!(heard, WatchEvent::Bookmark { initial: true, .. });
                let at = self.heard.iter().position(is_end)?;
                Some((revision(&self.heard[at]), &self.heard[..at], &self.heard[at + 1..]))
            }
        }
    }

    /// The watch and a place in it, in words.
    pub fn at(&self, revision: u64) -> String {
        let Selection { gvr, namespace, pick, .. } = &self.selection;
        format!("watch of {gvr} in {namespace:?} ({pick:?}) from {:?}, at {revision}", self.from)
    }
}

// === impl Record ===

impl Record {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().expect("nobody panics holding it")
    }

    /// The newest revision that any client knows.
    pub fn floor(&self) -> u64 {
        self.lock().floor
    }

    /// Some revision that a client knew at some time; none before the first.
    pub fn any_revision(&self) -> Option<u64> {
        let held = self.lock();
        let at = base::rand::below(held.revisions.len().max(1) as u64);
        held.revisions.get(usize::try_from(at).unwrap_or(0)).copied()
    }

    /// A write ended.
    pub fn attempt(&self, attempt: Attempt) {
        let mut held = self.lock();
        if let End::Done(object) = &attempt.end {
            held.knows(object.revision);
        }
        held.evidence.attempts.push(attempt);
    }

    /// A read ended.
    pub fn read(&self, read: Read) {
        let mut held = self.lock();
        match &read.seen {
            Seen::One(_, object) => object.iter().for_each(|o| held.knows(o.revision)),
            Seen::List(_, revisions, _) => revisions.iter().for_each(|r| held.knows(*r)),
        }
        held.evidence.reads.push(read);
    }

    /// A watch began; gives its number.
    pub fn watch(&self, selection: Selection, from: Option<u64>) -> usize {
        let mut held = self.lock();
        held.evidence.watches.push(Watched { selection, from, heard: Vec::new() });
        held.evidence.watches.len() - 1
    }

    /// A watch said something.
    pub fn heard(&self, watch: usize, heard: WatchEvent) {
        let mut held = self.lock();
        held.knows(revision(&heard));
        held.evidence.watches[watch].heard.push(heard);
    }

    /// All of it, with what was committed.
    pub fn evidence(&self, ledger: Ledger) -> Evidence {
        Evidence { ledger, ..std::mem::take(&mut self.lock().evidence) }
    }
}

impl Held {
    fn knows(&mut self, revision: u64) {
        self.floor = self.floor.max(revision);
        self.revisions.push(revision);
    }
}

impl Evidence {
    /// How much there is of what.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let done = self.attempts.iter().filter(|a| matches!(a.end, End::Done(_) | End::Gone)).count();
        let unknown = self.attempts.iter().filter(|a| matches!(a.end, End::Unknown)).count();
        let heard: usize = self.watches.iter().map(|w| w.heard.len()).sum();
        let undone = self.ledger.steps().iter().filter(|s| s.undone.is_some()).count();
        let count = |n: usize| n as u64;
        vec![
            ("attempts", count(self.attempts.len())),
            ("done", count(done)),
            ("unknown", count(unknown)),
            ("undone", count(undone)),
            ("reads", count(self.reads.len())),
            ("watches", count(self.watches.len())),
            ("heard", count(heard)),
        ]
    }
}
