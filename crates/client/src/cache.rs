//! A kind's objects as the server last told, by key and by named indexes.
//!
//! An object is the server's own `Arc` with its text; it is parsed once when it enters, and only if an index needs that.
//! Who reads gets `Arc`s and makes a `Doc` of what it works on. The [`crate::reflector`] keeps it fresh.
//! Upstream: client-go tools/cache (Indexer, SharedInformer).

use std::borrow::Borrow;
use std::cell::OnceCell;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};

use apimachinery::stored::{self, Stored};
use apimachinery::{Doc, Ref};
use memchr::memmem;
use tokio::sync::Notify;

/// Namespace and name; the namespace is empty for cluster-scoped objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

/// Gives an object's values in an index; evaluated once, when the object enters.
pub type IndexFn = fn(&Entering<'_>) -> Vec<String>;

/// An object that enters, as index functions see it: parsed only if one of them looks into it.
pub struct Entering<'s> {
    stored: &'s Stored,
    doc: OnceCell<Doc>,
}

/// A change of one object.
pub struct Change<'a> {
    /// Which object.
    pub key: &'a ObjectKey,
    /// What was there before.
    pub old: Option<&'a Arc<Stored>>,
    /// What is there now.
    pub new: Option<&'a Arc<Stored>>,
    indexes: &'a [(&'static str, IndexFn)],
    old_values: &'a [Value],
    new_values: &'a [Value],
}

/// A value in the index of this number.
type Value = (u8, Arc<str>);

/// Called for every change while the cache is locked: it may push keys to queues and wake tasks, and must not call the
/// cache.
pub type Handler = Box<dyn Fn(&Change<'_>) + Send + Sync>;

/// A kind's objects. Clones share them.
#[derive(Clone)]
pub struct SharedCache {
    shared: Arc<Shared>,
}

struct Shared {
    indexes: Vec<(&'static str, IndexFn)>,
    // The value of every entry that stands in no index.
    unnamed: Arc<str>,
    state: Mutex<State>,
    progress: Mutex<Progress>,
    // Not tokio's watch channel: it wakes in random order, which a simulation could not repeat.
    changed: Notify,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Entry, Box<[Value]>>,
    // One per indexer, in their order. Sets of all entries and not a set for each value: most values have one object.
    indexes: Vec<BTreeSet<Entry>>,
    handlers: Vec<Handler>,
}

/// An object under a value of an index; among all objects the value is empty. The object brings its own key, so that
/// there are no copies of names. Invariant: an entry's object is the one that the cache holds.
struct Entry {
    value: Arc<str>,
    stored: Arc<Stored>,
}

/// What entries are ordered and looked up by: value and key.
trait Place {
    fn place(&self) -> (&str, &str);
}

impl Place for Entry {
    fn place(&self) -> (&str, &str) {
        (&self.value, self.stored.key())
    }
}

impl Place for (&str, &str) {
    fn place(&self) -> (&str, &str) {
        *self
    }
}

impl PartialEq for dyn Place + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for dyn Place + '_ {}

impl PartialOrd for dyn Place + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Place + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl<'a> Borrow<dyn Place + 'a> for Entry {
    fn borrow(&self) -> &(dyn Place + 'a) {
        self
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    synced: bool,
    revision: u64,
}

// === impl ObjectKey ===

impl ObjectKey {
    /// A key.
    pub fn new(namespace: &str, name: &str) -> ObjectKey {
        ObjectKey { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The key of a stored object.
    pub fn of(stored: &Stored) -> ObjectKey {
        ObjectKey::new(stored.namespace(), stored.name())
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

// === impl Entering ===

impl Entering<'_> {
    /// Whether a word stands anywhere in the object's text: where it does not, there is no field of that name.
    pub fn mentions(&self, word: &str) -> bool {
        memmem::find(&self.stored.json, word.as_bytes()).is_some()
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        self.stored.name()
    }

    /// The object's fields.
    pub fn root(&self) -> Ref<'_> {
        self.doc.get_or_init(|| self.stored.doc()).root()
    }
}

// === impl Change ===

impl Change<'_> {
    /// The values that the object has or had in an index, each once.
    ///
    /// # Panics
    /// When the cache has no such index.
    pub fn values(&self, index: &str) -> BTreeSet<&str> {
        let at = position(self.indexes, index) as u8;
        let values = self.old_values.iter().chain(self.new_values);
        values.filter(|(index, _)| *index == at).map(|(_, value)| &**value).collect()
    }
}

fn position(indexes: &[(&'static str, IndexFn)], index: &str) -> usize {
    let found = indexes.iter().position(|(name, _)| *name == index);
    found.expect("an index is declared where its cache is made")
}

// === impl SharedCache ===

impl SharedCache {
    /// An empty cache with these indexes.
    pub fn new(indexes: Vec<(&'static str, IndexFn)>) -> SharedCache {
        let empty = indexes.iter().map(|_| BTreeSet::new()).collect();
        let state = State { indexes: empty, ..State::default() };
        let progress = Mutex::new(Progress::default());
        SharedCache {
            shared: Arc::new(Shared {
                indexes,
                unnamed: Arc::default(),
                state: Mutex::new(state),
                progress,
                changed: Notify::new(),
            }),
        }
    }

    /// Calls `handler` for every change from now on, and at once for every object that is there.
    pub fn subscribe(&self, handler: impl Fn(&Change<'_>) + Send + Sync + 'static) {
        let mut state = self.lock();
        for (entry, values) in &state.objects {
            handler(&self.change(&ObjectKey::of(&entry.stored), None, Some((&entry.stored, values))));
        }
        state.handlers.push(Box::new(handler));
    }

    /// An object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Stored>> {
        self.get_key(&ObjectKey::new(namespace, name))
    }

    /// An object.
    pub fn get_key(&self, key: &ObjectKey) -> Option<Arc<Stored>> {
        let key = stored::key(&key.namespace, &key.name);
        let place: &dyn Place = &("", &*key);
        self.lock().objects.get_key_value(place).map(|(e, _)| e.stored.clone())
    }

    /// All objects, in the order of their keys.
    pub fn list(&self) -> Vec<Arc<Stored>> {
        self.lock().objects.keys().map(|e| e.stored.clone()).collect()
    }

    /// A namespace's objects, in the order of their names.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<Stored>> {
        let first = stored::key(namespace, "");
        let from: &dyn Place = &("", &*first);
        let state = self.lock();
        let from = (Bound::Included(from), Bound::Unbounded);
        let inside =
            state.objects.range::<dyn Place, _>(from).take_while(|(e, _)| e.stored.namespace() == namespace);
        inside.map(|(e, _)| e.stored.clone()).collect()
    }

    /// The objects with `value` in `index`, in the order of their keys.
    ///
    /// # Panics
    /// When the cache has no such index.
    pub fn by_index(&self, index: &str, value: &str) -> Vec<Arc<Stored>> {
        let state = self.lock();
        let from: &dyn Place = &(value, "");
        let entries = state.indexes[position(&self.shared.indexes, index)]
            .range::<dyn Place, _>((Bound::Included(from), Bound::Unbounded));
        entries.take_while(|e| &*e.value == value).map(|e| e.stored.clone()).collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.lock().objects.len()
    }

    /// Whether there are no objects.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits for the first complete list.
    pub async fn wait_synced(&self) {
        self.wait(|p| p.synced).await;
    }

    /// Whether the first complete list has come.
    pub fn is_synced(&self) -> bool {
        self.progress().synced
    }

    /// The revision up to which all changes are here.
    pub fn revision(&self) -> u64 {
        self.progress().revision
    }

    /// Waits until all changes up to `revision` are here.
    pub async fn wait_for_revision(&self, revision: u64) {
        self.wait(|p| p.synced && p.revision >= revision).await;
    }

    /// Waits until `test` holds for the cache; it is asked again after every change.
    pub async fn wait_until(&self, mut test: impl FnMut(&SharedCache) -> bool) {
        loop {
            let mut changed = pin!(self.shared.changed.notified());
            // Asked to wake before the test, so that no change falls between the two.
            changed.as_mut().enable();
            if test(self) {
                return;
            }
            changed.await;
        }
    }

    async fn wait(&self, test: impl Fn(&Progress) -> bool) {
        self.wait_until(|cache| test(&cache.progress())).await;
    }

    fn progress(&self) -> Progress {
        *self.shared.progress.lock().expect("no code panics while it holds the progress")
    }

    /// The list that a watch begins with: what it does not contain is gone.
    pub(crate) fn replace(&self, items: Vec<Arc<Stored>>, revision: u64) {
        {
            let mut state = self.lock();
            let kept: BTreeSet<&str> = items.iter().map(|s| &**s.key()).collect();
            let all = state.objects.keys().map(|e| e.stored.clone());
            let gone: Vec<Arc<Stored>> = all.filter(|s| !kept.contains(&**s.key())).collect();
            for stored in gone {
                self.swap(&mut state, &stored, None);
            }
            for stored in items {
                let place: &dyn Place = &("", &**stored.key());
                let known = state.objects.get_key_value(place);
                if known.is_none_or(|(e, _)| e.stored.revision != stored.revision) {
                    self.swap(&mut state, &stored, Some(&stored));
                }
            }
        }
        self.progressed(revision, true);
    }

    pub(crate) fn upsert(&self, stored: Arc<Stored>) {
        let revision = stored.revision;
        {
            let mut state = self.lock();
            self.swap(&mut state, &stored, Some(&stored));
        }
        self.progressed(revision, false);
    }

    pub(crate) fn remove(&self, stored: &Stored) {
        {
            let mut state = self.lock();
            self.swap(&mut state, stored, None);
        }
        self.progressed(stored.revision, false);
    }

    /// Notes that all changes up to `revision` are here.
    pub(crate) fn progressed(&self, revision: u64, listed: bool) {
        {
            let mut progress =
                self.shared.progress.lock().expect("no code panics while it holds the progress");
            progress.synced |= listed;
            progress.revision = progress.revision.max(revision);
        }
        self.shared.changed.notify_waiters();
    }

    /// Puts `new` in the place of the object that has the key of `of`, if there is one.
    fn swap(&self, state: &mut State, of: &Stored, new: Option<&Arc<Stored>>) {
        let key: &str = of.key();
        let place: &dyn Place = &("", key);
        let old = state.objects.remove_entry(place).map(|(entry, values)| (entry.stored, values));
        for (index, value) in old.iter().flat_map(|(_, values)| values) {
            let place: &dyn Place = &(&**value, key);
            state.indexes[usize::from(*index)].remove(place);
        }
        let new = new.map(|stored| {
            let values = self.index(stored);
            for (index, value) in &values {
                let entry = Entry { value: value.clone(), stored: stored.clone() };
                state.indexes[usize::from(*index)].insert(entry);
            }
            (stored.clone(), values)
        });
        if old.is_some() || new.is_some() {
            let [old, new] =
                [&old, &new].map(|side| side.as_ref().map(|(stored, values)| (stored, &**values)));
            let key = ObjectKey::of(of);
            let change = self.change(&key, old, new);
            state.handlers.iter().for_each(|handler| handler(&change));
        }
        if let Some((stored, values)) = new {
            state.objects.insert(Entry { value: self.shared.unnamed.clone(), stored }, values);
        }
    }

    fn index(&self, stored: &Stored) -> Box<[Value]> {
        let object = Entering { stored, doc: OnceCell::new() };
        let indexes = (0..).zip(&self.shared.indexes);
        indexes.flat_map(|(at, (_, of))| of(&object).into_iter().map(move |v| (at, Arc::from(v)))).collect()
    }

    fn change<'a>(
        &'a self,
        key: &'a ObjectKey,
        old: Option<(&'a Arc<Stored>, &'a [Value])>,
        new: Option<(&'a Arc<Stored>, &'a [Value])>,
    ) -> Change<'a> {
        Change {
            key,
            old: old.map(|(stored, _)| stored),
            new: new.map(|(stored, _)| stored),
            indexes: &self.shared.indexes,
            old_values: old.map_or(&[], |(_, values)| values),
            new_values: new.map_or(&[], |(_, values)| values),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("handlers and index functions do not panic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::{doc, k};

    fn stored(name: &str, node: &str, revision: u64) -> Arc<Stored> {
        let doc = doc!({ "metadata": { "name": name, "namespace": "ns" }, "spec": { "nodeName": node } });
        let json = doc.to_json().into();
        Arc::new(Stored::new(json, revision, "ns", name))
    }

    fn names(found: Vec<Arc<Stored>>) -> Vec<String> {
        found.iter().map(|s| s.name().to_owned()).collect()
    }

    #[test]
    fn indexes_and_handlers_follow_the_objects() {
        let by_node: IndexFn = |object| vec![object.root().get(k::SPEC).get(k::NODE_NAME).str().to_owned()];
        let cache = SharedCache::new(vec![("node", by_node)]);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        cache.subscribe(move |c| {
            let nodes: Vec<&str> = c.values("node").into_iter().collect();
            log.lock().expect("test").push(format!("{} {nodes:?} {}", c.key, c.new.is_some()));
        });
        cache.replace(vec![stored("a", "n1", 3), stored("b", "n1", 4)], 5);
        cache.upsert(stored("a", "n2", 6));
        assert_eq!(names(cache.by_index("node", "n1")), ["b"]);
        assert_eq!(names(cache.by_index("node", "n2")), ["a"]);
        cache.replace(vec![stored("a", "n2", 6)], 8);
        assert_eq!(names(cache.list_namespace("ns")), ["a"]);
        assert!(cache.by_index("node", "n1").is_empty());
        assert_eq!(cache.revision(), 8);
        let want =
            ["ns/a [\"n1\"] true", "ns/b [\"n1\"] true", "ns/a [\"n1\", \"n2\"] true", "ns/b [\"n1\"] false"];
        assert_eq!(*seen.lock().expect("test"), want);
    }
}
