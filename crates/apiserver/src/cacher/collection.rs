//! One kind's objects: the present state, the window of recent changes, and the watchers by bucket.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use api::Kind;
use apimachinery::stored::{FETCHED, Stored, key};
use base::time::Instant;

use super::item::{self, Selection};
use super::queue::{Receiver, Sender};
use super::wakes::Wakes;

/// How long a change stays in the window.
pub const WINDOW_AGE_MAX: Duration = Duration::from_secs(300);
/// How many bytes of changes stay in one kind's window.
const WINDOW_BYTES_MAX: usize = 32 << 20;
/// After how many new watchers those that went away without an event to tell are looked for.
const SWEEP_EVERY: usize = 64;

/// One change of one object.
#[derive(Debug)]
pub struct Change {
    /// When.
    pub revision: u64,
    /// The state before; `None` when it is new.
    pub old: Option<Arc<Stored>>,
    /// The state after; `None` when it is gone.
    pub new: Option<Arc<Stored>>,
    gone: OnceLock<Arc<Stored>>,
    at: Instant,
}

impl Change {
    #[cfg(test)]
    pub(super) fn of(revision: u64) -> Arc<Change> {
        Arc::new(Change { revision, old: None, new: None, gone: OnceLock::new(), at: base::time::instant() })
    }

    /// The state before at the revision of the change: what a watcher sees of an object that leaves its view.
    pub fn gone(&self) -> Option<Arc<Stored>> {
        let old = self.old.as_ref()?;
        Some(self.gone.get_or_init(|| Arc::new(item::at(old, self.revision))).clone())
    }

    fn size(&self) -> usize {
        // The old state is in the window already, or was small change.
        self.new.as_ref().map_or(0, |i| i.size()) + 128
    }
}

/// Which changes concern a watcher.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bucket {
    All,
    Namespace(String),
    Name(String, String),
    Field(usize, String),
}

/// One kind's objects.
pub struct Collection {
    /// The kind.
    pub kind: Arc<Kind>,
    /// The prefix of its keys, with the slash.
    pub prefix: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    items: BTreeMap<Arc<str>, Arc<Stored>>,
    /// Keys by the value of each selectable field that has one.
    by_field: BTreeMap<(usize, Box<str>), BTreeSet<Arc<str>>>,
    window: VecDeque<Arc<Change>>,
    window_bytes: usize,
    /// The window holds every change after this revision.
    floor: u64,
    /// The revision of the last change.
    last: u64,
    watchers: BTreeMap<Bucket, Sender>,
    /// How many watchers there have been.
    registered: usize,
}

/// What a new watcher gets.
pub struct Registration {
    /// Changes from the window, after the revision asked for.
    pub backlog: Vec<Arc<Change>>,
    /// Changes to come; ends when the watcher is cut off.
    pub changes: Receiver,
}

/// The window does not reach back that far.
#[derive(Debug)]
pub struct TooOld {
    /// How far it reaches.
    pub floor: u64,
}

impl Collection {
    pub(super) fn new(kind: Arc<Kind>) -> Collection {
        Collection { prefix: kind.keys(""), kind, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces everything by what storage held at `revision`; watchers are cut off.
    pub(super) fn fill(&self, items: Vec<Stored>, revision: u64) {
        let mut state = self.lock();
        *state = State { floor: revision, last: revision, ..State::default() };
        for item in items {
            state.index(&self.kind, &item, true);
            state.items.insert(item.key().clone(), Arc::new(item));
        }
    }

    /// Takes a change from storage in: `key` is what follows the prefix, `item` `None` for a delete. Whom it concerns
    /// is added to `wakes`.
    pub(super) fn apply(
        &self,
        key: &str,
        item: Option<Stored>,
        revision: u64,
        now: Instant,
        wakes: &mut Wakes,
    ) {
        let mut state = self.lock();
        let (old, new) = match item {
            None => (state.items.remove(key), None),
            Some(item) => state.put(item),
        };
        state.last = revision;
        if let Some(old) = &old {
            state.index(&self.kind, old, false);
        }
        if let Some(new) = &new {
            state.index(&self.kind, new, true);
        }
        if old.is_none() && new.is_none() {
            return;
        }
        let change = Arc::new(Change { revision, old, new, gone: OnceLock::new(), at: now });
        state.dispatch(&self.kind, &change, wakes);
        state.remember(change, now);
    }

    /// The object, as of the last change taken in.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Stored>> {
        self.lock().items.get(key(namespace, name).as_str()).cloned()
    }

    /// The selected objects in key order, from the key after `after` on, and the revision of the last change.
    pub fn list(&self, selection: &Selection, after: &str) -> (Vec<Arc<Stored>>, u64) {
        let mut out = Vec::new();
        let last = self.each(selection, after, |few| Stored::hold(few, &mut out));
        (out, last)
    }

    /// Calls `found` for a few of them at a time while the collection is locked; gives the revision of the last change.
    pub fn each(&self, selection: &Selection, after: &str, mut found: impl FnMut(&[&Arc<Stored>])) -> u64 {
        let state = self.lock();
        let mut take = |item: &Arc<Stored>| {
            if selection.matches(item) {
                found(&[item]);
            }
        };
        if let (Some(name), false) =
            (selection.name(), selection.namespace.is_empty() && self.kind.is_namespaced())
        {
            let key = key(&selection.namespace, name);
            if key.as_str() > after {
                state.items.get(key.as_str()).into_iter().for_each(&mut take);
            }
        } else if let Some((field, value)) = selection.field().filter(|(_, value)| !value.is_empty()) {
            let keys = state.by_field.get(&(field, value.into())).into_iter().flatten();
            keys.filter(|key| &***key > after).filter_map(|key| state.items.get(key)).for_each(&mut take);
        } else {
            let (start, end) = match selection.namespace.as_str() {
                "" => (String::new(), Bound::Unbounded),
                namespace => (format!("{namespace}/"), Bound::Excluded(format!("{namespace}0"))),
            };
            let start = Bound::Excluded(if after > start.as_str() { after } else { start.as_str() });
            let end = match &end {
                Bound::Excluded(end) => Bound::Excluded(end.as_str()),
                _ => Bound::Unbounded,
            };
            let mut range = state.items.range::<str, _>((start, end)).map(|(_, item)| item);
            let mut few = Vec::with_capacity(FETCHED);
            while let Some(first) = range.next() {
                few.push(first);
                few.extend(range.by_ref().take(FETCHED - 1));
                // Where keys say it all, objects are not looked into.
                if !selection.is_everything() {
                    Stored::fetch(&few);
                    few.retain(|item| selection.matches(item));
                }
                found(&few);
                few.clear();
            }
        }
        state.last
    }

    /// The revision of the last change.
    pub fn last(&self) -> u64 {
        self.lock().last
    }

    /// Begins a watch of the changes after `revision`.
    ///
    /// # Errors
    /// When the window does not reach back that far.
    pub fn watch(&self, selection: &Selection, revision: u64) -> Result<Registration, TooOld> {
        let mut state = self.lock();
        if revision < state.floor {
            return Err(TooOld { floor: state.floor });
        }
        Ok(state.register(&self.kind, selection, revision))
    }

    /// The selected objects together with a watch of all later changes, and the revision of that state.
    pub fn list_and_watch(
        &self,
        selection: &Selection,
        reached: impl Fn() -> u64,
    ) -> (Vec<Arc<Stored>>, Registration, u64) {
        let mut state = self.lock();
        // No change after this one can be in the state: they are taken in under the same lock.
        let revision = reached().max(state.last);
        let items = state.items.values().filter(|i| selection.matches(i)).cloned().collect();
        let registration = state.register(&self.kind, selection, revision);
        (items, registration, revision)
    }

    /// How many objects there are.
    pub fn count(&self) -> usize {
        self.lock().items.len()
    }

    /// How many watches have not ended.
    pub fn watchers(&self) -> usize {
        self.lock().watchers.values().map(Sender::watchers).sum()
    }

    /// How many bytes the present objects take, about, and how many there are.
    pub fn size(&self) -> (usize, usize) {
        let state = self.lock();
        (state.items.values().map(|i| i.size()).sum(), state.items.len())
    }
}

impl State {
    /// What was there before, and what is there now.
    fn put(&mut self, item: Stored) -> (Option<Arc<Stored>>, Option<Arc<Stored>>) {
        match self.items.entry(item.key().clone()) {
            Entry::Vacant(place) => (None, Some(place.insert(Arc::new(item)).clone())),
            Entry::Occupied(mut place) => {
                // All states of an object share one key.
                let new = Arc::new(item.keyed(place.key().clone()));
                (Some(place.insert(new.clone())), Some(new))
            }
        }
    }

    fn index(&mut self, kind: &Kind, item: &Stored, add: bool) {
        for field in 0..kind.fields.len() {
            let value = item.field(field);
            if value.is_empty() {
                continue;
            }
            let entry = (field, Box::from(value));
            if add {
                self.by_field.entry(entry).or_default().insert(item.key().clone());
            } else if let Some(keys) = self.by_field.get_mut(&entry) {
                keys.remove(item.key());
                if keys.is_empty() {
                    self.by_field.remove(&entry);
                }
            }
        }
    }

    fn remember(&mut self, change: Arc<Change>, now: Instant) {
        self.window_bytes += change.size();
        self.window.push_back(change);
        while let Some(first) = self.window.front() {
            let fresh = now.saturating_duration_since(first.at) <= WINDOW_AGE_MAX;
            if fresh && self.window_bytes <= WINDOW_BYTES_MAX {
                break;
            }
            self.window_bytes -= first.size();
            self.floor = first.revision;
            self.window.pop_front();
        }
    }

    fn register(&mut self, kind: &Kind, selection: &Selection, revision: u64) -> Registration {
        let bucket = match (selection.name(), selection.field(), selection.namespace.as_str()) {
            (Some(name), _, "") if !kind.is_namespaced() => Bucket::Name(String::new(), name.to_owned()),
            (Some(name), _, namespace) if !namespace.is_empty() => {
                Bucket::Name(namespace.to_owned(), name.to_owned())
            }
            (_, Some((field, value)), _) => Bucket::Field(field, value.to_owned()),
            (_, _, "") => Bucket::All,
            (_, _, namespace) => Bucket::Namespace(namespace.to_owned()),
        };
        let from = self.window.partition_point(|c| c.revision <= revision);
        let backlog = self.window.iter().skip(from).cloned().collect();
        self.registered += 1;
        if self.registered.is_multiple_of(SWEEP_EVERY) {
            self.watchers.retain(|_, log| log.watchers() > 0);
        }
        let changes = self.watchers.entry(bucket).or_default().watcher();
        Registration { backlog, changes }
    }

    fn dispatch(&mut self, kind: &Kind, change: &Arc<Change>, wakes: &mut Wakes) {
        if self.watchers.is_empty() {
            return;
        }
        let Some(item) = change.new.as_ref().or(change.old.as_ref()) else { return };
        let (namespace, name) = (item.namespace().to_owned(), item.name().to_owned());
        let mut touched = vec![Bucket::All, Bucket::Name(namespace.clone(), name)];
        if !namespace.is_empty() {
            touched.push(Bucket::Namespace(namespace));
        }
        for field in 0..kind.fields.len() {
            let old = change.old.as_ref().map(|i| i.field(field));
            let new = change.new.as_ref().map(|i| i.field(field));
            touched.extend(old.map(|v| Bucket::Field(field, v.to_owned())));
            touched.extend(new.filter(|_| new != old).map(|v| Bucket::Field(field, v.to_owned())));
        }
        for bucket in touched {
            let Some(log) = self.watchers.get(&bucket) else { continue };
            match log.watchers() {
                0 => drop(self.watchers.remove(&bucket)),
                many => log.put(change, |waiting| wakes.add(waiting, many)),
            }
        }
    }
}
