//! The component: caches of Services and EndpointSlices, and one apply after the other.
//!
//! Changes mark keys; the loop reads the marked objects anew, renders everything and applies the difference.
//! While an apply runs, changes gather for the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::backoff::Backoff;
use base::task::{Task, blocking};
use client::reflector::{self, Selection};
use client::{Client, EventRecorder, ObjectKey, ObjectRef, SharedCache, gvr};
use tokio::sync::{Notify, watch};

use crate::apply::Applier;
use crate::model::{Local, ServicePort};
use crate::observe::{self, SELECTOR, ServiceSeen, SliceSeen};
use crate::render::render;

/// Between two applies, so that a burst of changes costs a few of them only.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(30);

/// What the proxy has to know of its node.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's name, by which local endpoints are known.
    pub node_name: String,
    /// Name prefix and pod ranges.
    pub local: Local,
    /// The node's network namespace; none is the one this process runs in.
    pub netns: Option<PathBuf>,
}

/// A proxy whose caches are being filled.
pub struct Proxy {
    config: Config,
    services: SharedCache,
    slices: SharedCache,
    recorder: EventRecorder,
    applied: watch::Sender<u64>,
    _reflectors: [Task<()>; 2],
}

/// Keys of objects that changed since they were read.
#[derive(Default)]
struct Changed {
    keys: Mutex<(BTreeSet<ObjectKey>, BTreeSet<ObjectKey>)>,
    wake: Notify,
}

/// What all objects say.
#[derive(Default)]
struct Seen {
    services: BTreeMap<ObjectKey, ServiceSeen>,
    slices: BTreeMap<ObjectKey, SliceSeen>,
}

impl Proxy {
    /// Starts the caches. It reads Services and EndpointSlices of all namespaces and writes Events.
    pub fn new(client: &Client, config: Config) -> Proxy {
        let start = |gvr| {
            let selection = Selection { labels: SELECTOR.to_owned(), ..Selection::default() };
            reflector::start(client.resource(gvr), selection, Vec::new())
        };
        let (services, services_task) = start(gvr::SERVICES);
        let (slices, slices_task) = start(gvr::ENDPOINT_SLICES);
        let recorder = EventRecorder::start(client, "kube-proxy", &config.node_name);
        let applied = watch::Sender::new(0);
        Proxy { config, services, slices, recorder, applied, _reflectors: [services_task, slices_task] }
    }

    /// Counts applies; the first means that all Services known at the start are served.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Keeps the node's rules what the Services say, for ever.
    ///
    /// # Errors
    /// When netlink sockets cannot be opened. What the kernel refuses later is logged and tried again.
    pub async fn run(self) -> Result<Infallible, network::Error> {
        let netns = self.config.netns.clone();
        let mut applier = blocking(move || Applier::open(netns.as_deref())).await?;
        let changed = self.subscribe();
        self.services.wait_synced().await;
        self.slices.wait_synced().await;
        let mut seen = Seen::default();
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST).with_jitter(0.2);
        loop {
            self.read(&changed, &mut seen);
            let rules = render(&seen.ports(), &self.config.local);
            let result;
            (applier, result) = blocking(move || {
                let result = applier.apply(rules);
                (applier, result)
            })
            .await;
            match result {
                Ok(done) => {
                    backoff.reset();
                    self.applied.send_modify(|n| *n += 1);
                    if done.messages > 0 {
                        let (messages, connections) = (done.messages, done.connections);
                        tracing::debug!(messages, connections, "service rules applied");
                    }
                    base::time::sleep(INTERVAL_MIN).await;
                    changed.wake.notified().await;
                }
                Err(error) => {
                    tracing::error!(%error, "service rules not applied");
                    base::time::sleep(backoff.next_wait()).await;
                }
            }
        }
    }

    fn subscribe(&self) -> Arc<Changed> {
        let changed = Arc::new(Changed::default());
        let mark = changed.clone();
        self.services.subscribe(move |change| {
            mark.lock().0.insert(change.key.clone());
            mark.wake.notify_one();
        });
        let mark = changed.clone();
        self.slices.subscribe(move |change| {
            mark.lock().1.insert(change.key.clone());
            mark.wake.notify_one();
        });
        changed
    }

    /// Reads what changed. The keys are taken before the caches are asked, so that nothing is missed.
    fn read(&self, changed: &Changed, seen: &mut Seen) {
        let (services, slices) = std::mem::take(&mut *changed.lock());
        for key in services {
            match self.services.get_key(&key) {
                Some(stored) => {
                    let doc = stored.doc();
                    let service = observe::service(doc.root());
                    for message in &service.refused {
                        let about = ObjectRef::of(doc.root(), "v1", "Service");
                        self.recorder.warning(about, "UnsupportedField", *message);
                    }
                    seen.services.insert(key, service);
                }
                None => drop(seen.services.remove(&key)),
            }
        }
        for key in slices {
            match self.slices.get_key(&key) {
                Some(stored) => {
                    let slice = observe::slice(stored.doc().root(), &self.config.node_name);
                    seen.slices.insert(key, slice);
                }
                None => drop(seen.slices.remove(&key)),
            }
        }
    }
}

impl Changed {
    fn lock(&self) -> MutexGuard<'_, (BTreeSet<ObjectKey>, BTreeSet<ObjectKey>)> {
        // Two sets of keys cannot be left half changed.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn ports(&self) -> Vec<ServicePort> {
        let mut slices: BTreeMap<(&str, &str), Vec<&SliceSeen>> = BTreeMap::new();
        for (key, slice) in &self.slices {
            slices.entry((&key.namespace, &slice.service)).or_default().push(slice);
        }
        let mut out = Vec::new();
        for (key, service) in &self.services {
            let mine = slices.get(&(key.namespace.as_str(), key.name.as_str()));
            out.extend(observe::join(service, mine.into_iter().flatten().copied()));
        }
        out
    }
}
