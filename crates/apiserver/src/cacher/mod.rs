//! The watch cache: one storage watch over the whole prefix feeds every kind's collection, so that any revision is
//! progress for every kind. Reads are answered from here and never parse; a consistent read waits until the cache
//! has reached the store's own revision.
//!
//! It knows keys and the kinds' prefixes, and nothing of requests. Bodies of events are kept in memory like those of
//! other kinds, bounded by their hour of life.
//! Upstream: k8s.io/apiserver/pkg/storage/cacher, which has one watch per kind.

mod collection;
pub mod item;
pub mod json;
mod queue;
mod wakes;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use api::{Class, Kind};
use apimachinery::Status;
use apimachinery::call::Stored;
use apimachinery::gvk::GroupResource;
use base::hash::Map;
use base::task::Task;
use base::watch;
use storage::{Batch, EventKind, Range, Store, StoreError};

use wakes::Wakes;

pub use collection::{Change, Collection, Registration, TooOld, WINDOW_AGE_MAX};
pub use item::Selection;
pub use queue::Receiver;

/// The prefix of everything.
pub const PREFIX: &str = "/registry/";
/// How many keys are read at once while filling.
const PAGE: usize = 1000;
/// How long a read waits for the cache to reach a revision; upstream's number.
const WAIT_MAX: Duration = Duration::from_secs(3);

/// The cache of all kinds.
pub struct Cacher {
    collections: Arc<Collections>,
    reached: watch::Receiver<u64>,
    store: Arc<dyn Store>,
    _feed: Task<()>,
}

#[derive(Default)]
struct Collections {
    by_prefix: RwLock<BTreeMap<String, Arc<Collection>>>,
    by_resource: RwLock<Map<GroupResource, Arc<Collection>>>,
}

/// What authorizers, admission and our own reckoning read: the cache's state, without waiting.
pub trait Lister: Send + Sync {
    /// One object.
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Stored>>;

    /// The objects of a namespace, of all when it is empty, in key order.
    fn list(&self, resource: &GroupResource, namespace: &str) -> Vec<Arc<Stored>>;

    /// The objects whose selectable field has this value, such as `spec.nodeName`; none for unknown fields.
    fn list_by(&self, resource: &GroupResource, field: &str, value: &str) -> Vec<Arc<Stored>>;

    /// The revision of the kind's last change: what was reckoned from its objects holds until this changes.
    fn last_change(&self, resource: &GroupResource) -> u64;
}

impl Cacher {
    /// Fills the cache from `store` and keeps it up to date until dropped.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn start(store: Arc<dyn Store>, kinds: &[Arc<Kind>]) -> Result<Cacher, StoreError> {
        let collections = Arc::new(Collections::default());
        for kind in kinds.iter().filter(|k| k.class != Class::Virtual) {
            collections.add(Arc::new(Collection::new(kind.clone())));
        }
        let revision = fill(&collections, &store).await?;
        let (progress, reached) = watch::channel(revision);
        let feed = base::task::spawn(feed(collections.clone(), store.clone(), progress));
        Ok(Cacher { collections, reached, store, _feed: feed })
    }

    /// The collection of a kind.
    pub fn collection(&self, resource: &GroupResource) -> Option<Arc<Collection>> {
        read(&self.collections.by_resource).get(resource).cloned()
    }

    /// The revision up to which everything has been taken in.
    pub fn reached(&self) -> u64 {
        self.reached.get()
    }

    /// Waits until everything up to `revision` has been taken in.
    ///
    /// # Errors
    /// 504 when that takes too long, as for a revision of the future.
    pub async fn wait(&self, revision: u64) -> Result<(), Status> {
        if self.reached() >= revision {
            return Ok(());
        }
        let mut reached = self.reached.clone();
        // Mostly there is nothing to wait for.
        match Box::pin(base::time::timeout(WAIT_MAX, reached.wait_for(|r| *r >= revision))).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(Status::unavailable("the server is shutting down")),
            Err(_) => Err(Status::too_large_revision(revision, self.reached())),
        }
    }

    /// Waits until the cache shows every write that was acknowledged before the call.
    ///
    /// # Errors
    /// When the store cannot be reached or the cache does not catch up.
    pub async fn catch_up(&self) -> Result<u64, Status> {
        let revision = self.store.revision().await.map_err(|e| crate::registry::store::unreachable(&e))?;
        self.wait(revision).await?;
        Ok(revision)
    }
}

impl Lister for Cacher {
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Stored>> {
        self.collection(resource)?.get(namespace, name)
    }

    fn list(&self, resource: &GroupResource, namespace: &str) -> Vec<Arc<Stored>> {
        self.collection(resource).map(|c| c.list(&Selection::all(namespace), "").0).unwrap_or_default()
    }

    fn list_by(&self, resource: &GroupResource, field: &str, value: &str) -> Vec<Arc<Stored>> {
        let Some(collection) = self.collection(resource) else { return Vec::new() };
        match Selection::by_field(&collection.kind, field, value) {
            Some(selection) => collection.list(&selection, "").0,
            None => Vec::new(),
        }
    }

    fn last_change(&self, resource: &GroupResource) -> u64 {
        self.collection(resource).map_or(0, |c| c.last())
    }
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Collections {
    fn add(&self, collection: Arc<Collection>) {
        let resource = collection.kind.storage.clone();
        let write = |e: std::sync::PoisonError<_>| e.into_inner();
        self.by_prefix.write().unwrap_or_else(write).insert(collection.prefix.clone(), collection.clone());
        self.by_resource
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert(resource, collection);
    }

    /// The collection that a key belongs to, and what follows its prefix.
    fn of<'k>(&self, key: &'k str) -> Option<(Arc<Collection>, &'k str)> {
        let all = read(&self.by_prefix);
        let (prefix, collection) =
            all.range::<str, _>((Bound::Unbounded, Bound::Included(key))).next_back()?;
        Some((collection.clone(), key.strip_prefix(prefix.as_str())?))
    }
}

/// Reads everything, page by page at one revision, which is returned.
async fn fill(collections: &Collections, store: &Arc<dyn Store>) -> Result<u64, StoreError> {
    let mut pages: BTreeMap<String, Vec<Stored>> = BTreeMap::new();
    let mut range = Range::prefix(PREFIX).limit(PAGE);
    let mut revision = 0;
    let shared = store.is_shared();
    loop {
        let page = store.range(range.clone()).await?;
        if revision == 0 {
            revision = page.revision;
            range = range.at(revision);
        }
        for kv in &page.kvs {
            let Ok(key) = std::str::from_utf8(&kv.key) else { continue };
            let Some((collection, rest)) = collections.of(key) else { continue };
            match item::cached(&collection.kind, rest, &kv.value, kv.mod_revision, shared) {
                Some(item) => pages.entry(collection.prefix.clone()).or_default().push(item),
                None => tracing::error!(key, "a stored object cannot be read; it is not served"),
            }
        }
        match page.kvs.last() {
            Some(last) if page.more => range = range.after(&last.key),
            _ => break,
        }
    }
    let all: Vec<Arc<Collection>> = read(&collections.by_prefix).values().cloned().collect();
    for collection in all {
        collection.fill(pages.remove(&collection.prefix).unwrap_or_default(), revision);
    }
    Ok(revision)
}

/// Follows the store; begins anew when it has fallen out of the store's history.
async fn feed(collections: Arc<Collections>, store: Arc<dyn Store>, progress: watch::Sender<u64>) {
    let mut back_off = base::backoff::Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    loop {
        let from = progress.get() + 1;
        let end = match store.watch(PREFIX.into(), from).await {
            Ok(watch) => follow(&collections, watch, store.is_shared(), &progress).await,
            Err(end) => end,
        };
        match end {
            StoreError::Closed => return,
            StoreError::Compacted { .. } => match fill(&collections, &store).await {
                Ok(revision) => {
                    progress.send(revision);
                    continue;
                }
                Err(error) => tracing::warn!(%error, "the watch cache cannot be filled"),
            },
            error => tracing::warn!(%error, "the watch of the store ended"),
        }
        base::time::sleep(back_off.next_wait()).await;
    }
}

async fn follow(
    collections: &Collections,
    mut watch: storage::Watch,
    shared: bool,
    progress: &watch::Sender<u64>,
) -> StoreError {
    let mut wakes = Wakes::new(base::task::threads());
    loop {
        let batch = {
            let mut next = std::pin::pin!(watch.next());
            loop {
                base::select! {
                    batch = next.as_mut() => break batch,
                    () = wakes.due() => wakes.wake(),
                }
            }
        };
        match batch {
            Ok(batch) => {
                take_in(collections, &batch, shared, &mut wakes);
                wakes.wake();
                progress.send(batch.revision);
            }
            Err(end) => return end,
        }
    }
}

fn take_in(collections: &Collections, batch: &Batch, shared: bool, wakes: &mut Wakes) {
    let now = base::time::instant();
    for event in &batch.events {
        let Ok(key) = std::str::from_utf8(&event.kv.key) else { continue };
        let Some((collection, rest)) = collections.of(key) else { continue };
        let revision = event.kv.mod_revision;
        let item = match event.kind {
            EventKind::Delete => None,
            EventKind::Put => match item::cached(&collection.kind, rest, &event.kv.value, revision, shared) {
                Some(item) => Some(item),
                None => {
                    tracing::error!(key, "a stored object cannot be read; it is not served");
                    continue;
                }
            },
        };
        collection.apply(rest, item, revision, now, wakes);
    }
}
