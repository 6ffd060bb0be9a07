//! A kind's objects as the server last told, by key and by named indexes.
//!
//! An object is the server's own `Arc` with its text; it is parsed once when it enters, and only if indexes or handlers
//! need that. Who reads gets `Arc`s and makes a `Doc` of what it works on. The [`crate::reflector`] keeps it fresh.
//! Upstream: client-go tools/cache (Indexer, SharedInformer).

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};

use apimachinery::Doc;
use apimachinery::call::Stored;
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
pub type IndexFn = fn(&Doc) -> Vec<String>;

/// A change of one object.
pub struct Change<'a> {
    /// Which object.
    pub key: &'a ObjectKey,
    /// What was there before.
    pub old: Option<&'a Arc<Stored>>,
    /// What is there now.
    pub new: Option<&'a Arc<Stored>>,
    names: &'a [(&'static str, IndexFn)],
    old_values: &'a [Vec<String>],
    new_values: &'a [Vec<String>],
}

/// Called for every change while the cache is locked: it may push keys to queues and wake tasks, and must not call the
/// cache.
pub type Handler = Box<dyn Fn(&Change<'_>) + Send + Sync>;

/// A kind's objects. Clones share them.
#[derive(Clone)]
pub struct SharedCache {
    shared: Arc<Shared>,
}

struct Shared {
    indexers: Vec<(&'static str, IndexFn)>,
    state: Mutex<State>,
    progress: Mutex<Progress>,
    // Not tokio's watch channel: it wakes in random order, which a simulation could not repeat.
    changed: Notify,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<ObjectKey, Entry>,
    // One per indexer, in their order.
    indexes: Vec<BTreeMap<String, BTreeSet<ObjectKey>>>,
    handlers: Vec<Handler>,
}

struct Entry {
    stored: Arc<Stored>,
    // One list per indexer.
    values: Vec<Vec<String>>,
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
        ObjectKey::new(&stored.namespace, &stored.name)
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

// === impl Change ===

impl Change<'_> {
    /// The values that the object has or had in an index, each once.
    ///
    /// # Panics
    /// When the cache has no such index.
    pub fn values(&self, index: &str) -> BTreeSet<&str> {
        let at = position(self.names, index);
        let values = [self.old_values, self.new_values].into_iter().filter_map(|v| v.get(at));
        values.flatten().map(String::as_str).collect()
    }
}

fn position(indexers: &[(&'static str, IndexFn)], index: &str) -> usize {
    indexers
        .iter()
        .position(|(name, _)| *name == index)
        .expect("an index is declared where its cache is made")
}

// === impl SharedCache ===

impl SharedCache {
    /// An empty cache with these indexes.
    pub fn new(indexers: Vec<(&'static str, IndexFn)>) -> SharedCache {
        let indexes = indexers.iter().map(|_| BTreeMap::new()).collect();
        let state = State { indexes, ..State::default() };
        let progress = Mutex::new(Progress::default());
        SharedCache {
            shared: Arc::new(Shared { indexers, state: Mutex::new(state), progress, changed: Notify::new() }),
        }
    }

    /// Calls `handler` for every change from now on, and at once for every object that is there.
    pub fn subscribe(&self, handler: impl Fn(&Change<'_>) + Send + Sync + 'static) {
        let mut state = self.lock();
        for (key, entry) in &state.objects {
            handler(&self.change(key, None, Some(entry)));
        }
        state.handlers.push(Box::new(handler));
    }

    /// An object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Stored>> {
        self.get_key(&ObjectKey::new(namespace, name))
    }

    /// An object.
    pub fn get_key(&self, key: &ObjectKey) -> Option<Arc<Stored>> {
        self.lock().objects.get(key).map(|e| e.stored.clone())
    }

    /// All objects, in the order of their keys.
    pub fn list(&self) -> Vec<Arc<Stored>> {
        self.lock().objects.values().map(|e| e.stored.clone()).collect()
    }

    /// A namespace's objects, in the order of their names.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<Stored>> {
        let from = ObjectKey::new(namespace, "");
        let state = self.lock();
        let inside = state.objects.range(from..).take_while(|(key, _)| key.namespace == namespace);
        inside.map(|(_, e)| e.stored.clone()).collect()
    }

    /// The objects with `value` in `index`, in the order of their keys.
    ///
    /// # Panics
    /// When the cache has no such index.
    pub fn by_index(&self, index: &str, value: &str) -> Vec<Arc<Stored>> {
        let state = self.lock();
        let keys = state.indexes[position(&self.shared.indexers, index)].get(value);
        keys.into_iter()
            .flatten()
            .filter_map(|key| state.objects.get(key))
            .map(|e| e.stored.clone())
            .collect()
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
            let kept: BTreeSet<ObjectKey> = items.iter().map(|s| ObjectKey::of(s)).collect();
            let gone: Vec<ObjectKey> = state.objects.keys().filter(|k| !kept.contains(k)).cloned().collect();
            for key in gone {
                self.swap(&mut state, key, None);
            }
            for stored in items {
                let key = ObjectKey::of(&stored);
                if state.objects.get(&key).is_none_or(|e| e.stored.revision != stored.revision) {
                    self.swap(&mut state, key, Some(stored));
                }
            }
        }
        self.progressed(revision, true);
    }

    pub(crate) fn upsert(&self, stored: Arc<Stored>) {
        let revision = stored.revision;
        {
            let mut state = self.lock();
            self.swap(&mut state, ObjectKey::of(&stored), Some(stored));
        }
        self.progressed(revision, false);
    }

    pub(crate) fn remove(&self, stored: &Stored) {
        {
            let mut state = self.lock();
            self.swap(&mut state, ObjectKey::of(stored), None);
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

    fn swap(&self, state: &mut State, key: ObjectKey, new: Option<Arc<Stored>>) {
        let old = match new {
            Some(stored) => {
                let values = self.index(&stored);
                for (index, values) in state.indexes.iter_mut().zip(&values) {
                    for value in values {
                        index.entry(value.clone()).or_default().insert(key.clone());
                    }
                }
                state.objects.insert(key.clone(), Entry { stored, values })
            }
            None => state.objects.remove(&key),
        };
        let new = state.objects.get(&key);
        if let Some(old) = &old {
            for (i, values) in old.values.iter().enumerate() {
                for value in values.iter().filter(|v| !new.is_some_and(|n| n.values[i].contains(v))) {
                    forget(&mut state.indexes[i], value, &key);
                }
            }
        }
        let new = state.objects.get(&key);
        if old.is_some() || new.is_some() {
            let change = self.change(&key, old.as_ref(), new);
            state.handlers.iter().for_each(|handler| handler(&change));
        }
    }

    fn index(&self, stored: &Stored) -> Vec<Vec<String>> {
        if self.shared.indexers.is_empty() {
            return Vec::new();
        }
        let doc = stored.doc();
        self.shared.indexers.iter().map(|(_, values)| values(&doc)).collect()
    }

    fn change<'a>(
        &'a self,
        key: &'a ObjectKey,
        old: Option<&'a Entry>,
        new: Option<&'a Entry>,
    ) -> Change<'a> {
        Change {
            key,
            old: old.map(|e| &e.stored),
            new: new.map(|e| &e.stored),
            names: &self.shared.indexers,
            old_values: old.map_or(&[], |e| &e.values),
            new_values: new.map_or(&[], |e| &e.values),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("handlers and index functions do not panic")
    }
}

fn forget(index: &mut BTreeMap<String, BTreeSet<ObjectKey>>, value: &str, key: &ObjectKey) {
    if let Some(keys) = index.get_mut(value) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::{doc, k};

    fn stored(name: &str, node: &str, revision: u64) -> Arc<Stored> {
        let doc = doc!({ "metadata": { "name": name, "namespace": "ns" }, "spec": { "nodeName": node } });
        let json = doc.to_json().into();
        Arc::new(Stored { json, revision, namespace: "ns".into(), name: name.into() })
    }

    fn names(found: Vec<Arc<Stored>>) -> Vec<String> {
        found.iter().map(|s| s.name.clone()).collect()
    }

    #[test]
    fn indexes_and_handlers_follow_the_objects() {
        let by_node: IndexFn = |doc| vec![doc.get(k::SPEC).get(k::NODE_NAME).str().to_owned()];
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
