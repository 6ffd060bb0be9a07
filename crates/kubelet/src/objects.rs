//! ConfigMaps and Secrets that pods of this node refer to: one watch each for as long as a pod uses it.
//!
//! Upstream: pkg/kubelet/util/manager/watch_based_manager.go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apimachinery::{Doc, Gvr, k};
use base::task::Task;
use base64::Engine;
use client::reflector::{self, Selection};
use client::{Client, SharedCache};

/// How long a pod waits for the first look at an object, as upstream's.
const SYNC_MAX: Duration = Duration::from_secs(10);

/// What a reference is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

/// Objects as fetched; what does not exist is not in it.
#[derive(Clone, Debug, Default)]
pub struct Objects(BTreeMap<(ObjectKind, String, String), Arc<Doc>>);

/// Called with a pod's uid when something that it refers to has changed.
pub type Notify = Arc<dyn Fn(&str) + Send + Sync>;

/// The watches.
pub struct ObjectManager {
    client: Client,
    notify: Notify,
    watched: Mutex<BTreeMap<(ObjectKind, String, String), Watched>>,
}

struct Watched {
    cache: SharedCache,
    _task: Task<()>,
    /// The first look is over.
    live: Arc<AtomicBool>,
    users: Arc<Mutex<BTreeSet<String>>>,
}

// === impl ObjectKind ===

impl ObjectKind {
    fn gvr(self) -> Gvr {
        match self {
            ObjectKind::ConfigMap => Gvr::new("", "v1", "configmaps"),
            ObjectKind::Secret => Gvr::new("", "v1", "secrets"),
        }
    }

    /// The kind's name in messages, as upstream's are.
    pub fn word(self) -> &'static str {
        match self {
            ObjectKind::ConfigMap => "ConfigMap",
            ObjectKind::Secret => "Secret",
        }
    }

    /// That there is no such object.
    pub fn missing(self, name: &str) -> String {
        format!("{} {name:?} not found", self.word().to_lowercase())
    }

    /// Keys and values, in the order of the keys.
    pub fn data(self, object: &Doc) -> BTreeMap<String, Vec<u8>> {
        let mut out = BTreeMap::new();
        for (name, value) in object.get(k::DATA).entries() {
            let bytes = match self {
                ObjectKind::ConfigMap => value.str().as_bytes().to_vec(),
                ObjectKind::Secret => base64_decode(value.str()),
            };
            out.insert(name.to_owned(), bytes);
        }
        if self == ObjectKind::ConfigMap {
            for (name, value) in object.get(k::BINARY_DATA).entries() {
                out.insert(name.to_owned(), base64_decode(value.str()));
            }
        }
        out
    }
}

/// Bytes as the API server writes them; it has checked them on the way in.
fn base64_decode(text: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default()
}

// === impl Objects ===

impl Objects {
    /// An object, if it exists.
    pub fn get(&self, kind: ObjectKind, namespace: &str, name: &str) -> Option<Arc<Doc>> {
        self.0.get(&(kind, namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Adds an object.
    pub fn put(&mut self, kind: ObjectKind, namespace: &str, name: &str, object: Doc) {
        self.0.insert((kind, namespace.to_owned(), name.to_owned()), Arc::new(object));
    }
}

// === impl ObjectManager ===

impl ObjectManager {
    /// No watches yet.
    pub fn new(client: Client, notify: Notify) -> ObjectManager {
        ObjectManager { client, notify, watched: Mutex::default() }
    }

    /// Fetches what a pod refers to, and watches it from now on in the pod's name.
    ///
    /// # Errors
    /// A message when the API server gave no answer in time.
    pub async fn fetch(
        &self,
        uid: &str,
        namespace: &str,
        names: &[(ObjectKind, String)],
    ) -> Result<Objects, String> {
        let mut out = Objects::default();
        for (kind, name) in names {
            let (cache, live) = self.watch(uid, *kind, namespace, name);
            if base::time::timeout(SYNC_MAX, cache.wait_synced()).await.is_err() {
                let word = kind.word().to_lowercase();
                return Err(format!("failed to sync {word} cache: timed out waiting for the condition"));
            }
            live.store(true, Ordering::Release);
            if let Some(stored) = cache.get(namespace, name) {
                out.put(*kind, namespace, name, stored.doc());
            }
        }
        Ok(out)
    }

    fn watch(
        &self,
        uid: &str,
        kind: ObjectKind,
        namespace: &str,
        name: &str,
    ) -> (SharedCache, Arc<AtomicBool>) {
        let mut watched = self.watched.lock().expect("nobody panics holding it");
        let key = (kind, namespace.to_owned(), name.to_owned());
        let entry = watched.entry(key).or_insert_with(|| {
            let fields = format!("metadata.name={name}");
            let selection = Selection { fields, ..Selection::default() };
            let (cache, task) =
                reflector::start(self.client.namespaced(kind.gvr(), namespace), selection, Vec::new());
            let users = Arc::new(Mutex::new(BTreeSet::<String>::new()));
            let (notify, who) = (self.notify.clone(), users.clone());
            let live = Arc::new(AtomicBool::new(false));
            let synced = live.clone();
            cache.subscribe(move |_| {
                // The first look is what `fetch` waits for.
                if !synced.load(Ordering::Acquire) {
                    return;
                }
                let users = who.lock().expect("nobody panics holding it").clone();
                users.iter().for_each(|uid| notify(uid));
            });
            Watched { cache, _task: task, users, live }
        });
        entry.users.lock().expect("nobody panics holding it").insert(uid.to_owned());
        (entry.cache.clone(), entry.live.clone())
    }

    /// Ends the watches that only this pod used.
    pub fn release(&self, uid: &str) {
        let mut watched = self.watched.lock().expect("nobody panics holding it");
        watched.retain(|_, entry| {
            let mut users = entry.users.lock().expect("nobody panics holding it");
            users.remove(uid);
            !users.is_empty()
        });
    }
}
