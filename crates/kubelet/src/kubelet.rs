//! The main loop: pods of this node from the API, changes from the runtime, each to the worker that it is for.
//!
//! Upstream: pkg/kubelet/kubelet.go (`syncLoop`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apimachinery::call::Stored;
use apimachinery::schema::views::Pod;
use apimachinery::{Doc, Ref, k};
use base::backoff::Backoff;
use base::task::Task;
use client::reflector::{self, Selection};
use client::{Client, EventRecorder, SharedCache};
use runtime::{ContainerStatus, Error as RuntimeError, PodSandboxState, PodSandboxStatus, RuntimeEvent};
use tokio::sync::{mpsc, watch};

use crate::admission;
use crate::config::Config;
use crate::core::{Core, SharedCore};
use crate::doors::Doors;
use crate::driver::{self, Driver, Mailbox, Message, Routed};
use crate::eviction;
use crate::image_gc::{self, Images};
use crate::node::{self, Health, Network};
use crate::objects::ObjectManager;
use crate::refused;
use crate::status::NodeFacts;
use crate::volumes::pod_dir;
use crate::worker::{Event, Exit, Found, Resize, Stage, State};

/// The waits between attempts at what must succeed before anything else can.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MOST: Duration = Duration::from_secs(10);

/// The kubelet of one node.
pub struct Kubelet {
    core: SharedCore,
    workers: Workers,
    health: watch::Sender<Health>,
    network: base::watch::Sender<bool>,
    node: SharedCache,
    tasks: Vec<Task<()>>,
}

/// One pod's worker.
struct Worker {
    mailbox: Mailbox,
    view: watch::Receiver<Arc<State>>,
    _task: Task<()>,
}

/// The workers by the pods' uids.
#[derive(Clone, Default)]
pub(crate) struct Workers(Arc<Mutex<BTreeMap<String, Worker>>>);

/// What the main loop waits for.
enum Incoming {
    Pod { old: Option<Arc<Stored>>, new: Option<Arc<Stored>> },
    Ended(String),
}

impl Workers {
    /// Every pod's state as of now.
    pub fn states(&self) -> Vec<Arc<State>> {
        self.lock().values().map(|w| w.view.borrow().clone()).collect()
    }

    /// A pod's state.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<State>> {
        let is = |s: &Arc<State>| {
            s.object().metadata().name() == name && s.object().metadata().namespace() == namespace
        };
        let mut found: Vec<Arc<State>> = self.states().into_iter().filter(is).collect();
        // Of two with one name, the one that is not leaving.
        found.sort_by_key(|s| s.gone);
        found.into_iter().next()
    }

    /// A pod's state and its changes.
    pub fn watch(&self, namespace: &str, name: &str) -> Option<watch::Receiver<Arc<State>>> {
        let found = self.find(namespace, name)?;
        self.lock().get(found.object().metadata().uid()).map(|w| w.view.clone())
    }

    fn tell(&self, uid: &str, message: Message) {
        if let Some(worker) = self.lock().get(uid) {
            // A worker that has just ended needs no news.
            drop(worker.mailbox.send(message));
        }
    }

    /// What waits for room asks again.
    fn tell_of_room(&self) {
        for worker in self.lock().values() {
            if matches!(worker.view.borrow().resize, Some(Resize::Deferred(_))) {
                drop(worker.mailbox.send(Message::Event(Event::RoomFreed)));
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Worker>> {
        self.0.lock().expect("nobody panics holding it")
    }
}

/// Workers know each other through what they share; without this they would keep each other alive.
impl Drop for Kubelet {
    fn drop(&mut self) {
        let workers = std::mem::take(&mut *self.workers.lock());
        drop(workers);
    }
}

impl Kubelet {
    /// Registers the node and starts what serves all pods. [`Kubelet::run`] does the rest.
    pub async fn start(config: Config, client: Client, doors: Doors) -> Kubelet {
        let machine = doors.machine.clone();
        let info = base::task::blocking(move || machine.info()).await;
        let version = retry("ask the runtime for its version", || doors.runtime.version()).await;
        let runtime = format!("{}://{}", version.runtime_name, version.runtime_version);
        let (health, health_seen) = watch::channel(Health { runtime, ..Health::default() });
        let (network, network_seen) = base::watch::channel(false);
        let first = node::new_node(&config, &info, &health.borrow(), base::time::now());
        let registered = node::register(&client, first).await;
        let by_name =
            Selection { fields: format!("metadata.name={}", config.node_name), ..Selection::default() };
        let (node_cache, node_task) =
            reflector::start(client.resource(client::gvr::NODES), by_name, Vec::new());
        let (services, services_task) =
            reflector::start(client.resource(client::gvr::SERVICES), Selection::default(), Vec::new());
        let workers = Workers::default();
        let told = workers.clone();
        let notify = Arc::new(move |uid: &str| told.tell(uid, Message::Refresh));
        let ips = if config.node_ips.is_empty() { info.addresses.clone() } else { config.node_ips.clone() };
        let core = Arc::new(Core {
            recorder: EventRecorder::start(&client, "kubelet", &config.node_name),
            objects: ObjectManager::new(client.clone(), notify),
            services,
            node: NodeFacts { ips, runtime: version.runtime_name },
            allocatable: node::resources(&config, &info).1,
            memory: info.memory,
            network: network_seen,
            tokens: Mutex::default(),
            workers: workers.clone(),
            client: client.clone(),
            doors: doors.clone(),
            config: config.clone(),
        });
        let lease = base::task::spawn(node::keep_lease(client.clone(), registered));
        let cache = node_cache.clone();
        let status = base::task::spawn(async move {
            cache.wait_synced().await;
            node::keep_status(client, config, doors.machine, health_seen, cache).await;
        });
        let tasks = vec![node_task, services_task, lease, status];
        Kubelet { core, workers, health, network, node: node_cache, tasks }
    }

    /// Registers the node and runs its pods, until dropped.
    pub async fn run(config: Config, client: Client, doors: Doors) {
        Kubelet::start(config, client, doors).await.run_pods().await;
    }

    /// Answers what the API server and others ask of this node: see [`crate::server`].
    pub fn server(&self) -> crate::server::Server {
        crate::server::Server::new(self.core.config.clone(), self.core.doors.clone(), self.workers.clone())
    }

    /// Runs the node's pods, until dropped.
    pub async fn run_pods(mut self) {
        let core = self.core.clone();
        let (sender, mut incoming) = mpsc::unbounded_channel();
        let mine =
            Selection { fields: format!("spec.nodeName={}", core.config.node_name), ..Selection::default() };
        let (pods, pods_task) = reflector::start(core.client.resource(client::gvr::PODS), mine, Vec::new());
        self.tasks.push(pods_task);
        let network = self.set_up_network();
        self.tasks.push(network);
        self.tasks.push(self.watch_usage());
        // Subscribed before listing: nothing that ends in between is missed.
        let mut events = core.doors.runtime.events();
        let sandboxes = retry("list sandboxes", || core.doors.runtime.list_pod_sandboxes()).await;
        let containers = retry("list containers", || core.doors.runtime.list_containers()).await;
        pods.wait_synced().await;
        self.node.wait_synced().await;
        self.take_first(&pods, sandboxes, containers, &sender).await;
        let to_loop = sender.clone();
        pods.subscribe(move |change| {
            let incoming = Incoming::Pod { old: change.old.cloned(), new: change.new.cloned() };
            drop(to_loop.send(incoming));
        });
        loop {
            base::select! {
                next = incoming.recv() => match next.expect("this loop holds a sender itself") {
                    Incoming::Pod { old, new } => {
                        self.pod_changed(old, new, &sender);
                        self.workers.tell_of_room();
                    }
                    Incoming::Ended(uid) => {
                        drop(self.workers.lock().remove(&uid));
                        self.workers.tell_of_room();
                    }
                },
                event = events.next() => match event {
                    Some(event) => self.runtime_changed(event).await,
                    // The runtime goes down with this process.
                    None => return,
                },
            }
        }
    }

    /// Ends pods that take more than they may, and removes images when their disk is nearly full.
    fn watch_usage(&self) -> Task<()> {
        let (core, workers) = (self.core.clone(), self.workers.clone());
        base::task::spawn(async move {
            let (mut images, mut next) = (Images::default(), base::time::instant());
            loop {
                if base::time::instant() >= next {
                    images.collect(&core).await;
                    next = base::time::instant() + image_gc::LOOK_EVERY;
                }
                base::time::sleep(eviction::MEASURE_EVERY).await;
                for (uid, end) in eviction::look(&core, &mut images, workers.states()).await {
                    workers.tell(&uid, Message::Event(Event::End(end)));
                }
            }
        })
    }

    /// Waits for the node's pod ranges, then makes the network.
    fn set_up_network(&self) -> Task<()> {
        let (core, node) = (self.core.clone(), self.node.clone());
        let (health, network) = (self.health.clone(), self.network.clone());
        base::task::spawn(async move {
            let name = core.config.node_name.clone();
            let ranges = |node: &SharedCache| -> Vec<String> {
                let found = node.get("", &name).map(|stored| stored.doc()).unwrap_or_default();
                found.get(k::SPEC).get(k::POD_CIDRS).items().map(|c| c.str().to_owned()).collect()
            };
            node.wait_until(|node| !ranges(node).is_empty()).await;
            let cidrs = ranges(&node);
            let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
            while let Err(err) = core.doors.network.setup(cidrs.clone()).await {
                tracing::warn!(error = %err, "the pod network could not be made, will be tried again");
                health.send_modify(|h| h.network = Network::Down(err.to_string()));
                base::time::sleep(backoff.next_wait()).await;
            }
            network.send(true);
            health.send_modify(|h| h.network = Network::Ready);
        })
    }

    /// Takes up the pods that the API has, with what already runs of them, and takes away what belongs to no pod.
    async fn take_first(
        &mut self,
        pods: &SharedCache,
        sandboxes: Vec<PodSandboxStatus>,
        containers: Vec<ContainerStatus>,
        sender: &mpsc::UnboundedSender<Incoming>,
    ) {
        let mut found: BTreeMap<String, Found> = BTreeMap::new();
        let mut orphans = Vec::new();
        let mut known: Vec<(Arc<Stored>, Doc)> =
            pods.list().into_iter().map(|s| (s.clone(), s.doc())).collect();
        // The oldest are admitted first, as upstream does.
        known.sort_by(|a, b| {
            let created = |d: &Doc| d.get(k::METADATA).get(k::CREATION_TIMESTAMP).str().to_owned();
            created(&a.1).cmp(&created(&b.1))
        });
        let mut newest: BTreeMap<&str, &PodSandboxStatus> = BTreeMap::new();
        for sandbox in &sandboxes {
            let uid = sandbox.metadata.uid.as_str();
            if !known.iter().any(|(_, pod)| pod.get(k::METADATA).get(k::UID).str() == uid) {
                orphans.push(sandbox.id.clone());
                continue;
            }
            if let Some(older) = newest.insert(uid, sandbox) {
                orphans.push(older.id.clone());
            }
        }
        for (uid, sandbox) in newest {
            let mut mine: Vec<ContainerStatus> =
                containers.iter().filter(|c| c.sandbox_id == sandbox.id).cloned().collect();
            let pod = known.iter().find(|(_, pod)| pod.get(k::METADATA).get(k::UID).str() == uid);
            let pod = Arc::new(pod.expect("looked up above").1.clone());
            for container in &mut mine {
                let exit = Exit::of(container, base::time::now());
                container.message =
                    driver::last_words(&self.core, &pod, &container.name, container.attempt, &exit).await;
            }
            let ready = sandbox.state == PodSandboxState::Ready;
            let attempt = sandbox.metadata.attempt;
            found.insert(
                uid.to_owned(),
                Found {
                    sandbox: Some((sandbox.id.clone(), ready)),
                    sandbox_attempt: attempt,
                    containers: mine,
                },
            );
        }
        let directories = self.orphaned_directories(&known).await;
        for (_, pod) in known {
            let uid = pod.get(k::METADATA).get(k::UID).str().to_owned();
            let was = found.remove(&uid);
            self.take(pod, was, sender);
        }
        self.remove_orphans(orphans, sandboxes, directories);
    }

    /// What pods that are gone left on the disk: the kubelet may have ended before it took that away.
    async fn orphaned_directories(&self, known: &[(Arc<Stored>, Doc)]) -> Vec<PathBuf> {
        let uids: BTreeSet<String> =
            known.iter().map(|(_, pod)| pod.get(k::METADATA).get(k::UID).str().to_owned()).collect();
        let (files, root) = (self.core.doors.files.clone(), self.core.config.root_dir.clone());
        let names =
            base::task::blocking(move || files.list(&root.join("pods"))).await.unwrap_or_else(|err| {
                tracing::warn!(error = %err, "the pods' directories could not be listed");
                Vec::new()
            });
        let orphaned = names.into_iter().filter(|uid| !uids.contains(uid));
        orphaned.map(|uid| pod_dir(&self.core.config.root_dir, &uid)).collect()
    }

    fn remove_orphans(
        &mut self,
        orphans: Vec<runtime::SandboxId>,
        sandboxes: Vec<PodSandboxStatus>,
        directories: Vec<PathBuf>,
    ) {
        let core = self.core.clone();
        self.tasks.push(base::task::spawn(async move {
            for id in orphans {
                let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
                while let Err(message) = driver::remove_sandbox(&core, &id).await {
                    tracing::warn!(sandbox = %id, %message, "a sandbox of no pod could not be removed, will be tried again");
                    base::time::sleep(backoff.next_wait()).await;
                }
            }
            // Addresses given to sandboxes that no longer exist at all.
            let keys = core.doors.network.keys().await.unwrap_or_default();
            for key in keys.into_iter().filter(|key| !sandboxes.iter().any(|s| s.id.as_str() == key)) {
                if core.doors.runtime.pod_sandbox_status(&key.as_str().into()).await.is_ok() {
                    continue;
                }
                if let Err(err) = core.doors.network.detach(key).await {
                    tracing::warn!(error = %err, "a left-over network could not be removed");
                }
            }
            let files = core.doors.files.clone();
            let removed =
                base::task::blocking(move || directories.iter().try_for_each(|path| files.remove(path))).await;
            if let Err(err) = removed {
                tracing::warn!(error = %err, "what pods left on the disk could not be removed");
            }
        }));
    }

    /// Gives a pod a worker: adopted, admitted or refused.
    fn take(&self, pod: Doc, found: Option<Found>, sender: &mpsc::UnboundedSender<Incoming>) {
        let pod = Arc::new(pod);
        let meta = Pod(pod.root()).metadata();
        let uid = meta.uid().to_owned();
        let now = base::time::now();
        let phase = pod.get(k::STATUS).get(k::PHASE).str();
        let over = matches!(phase, "Succeeded" | "Failed");
        let mut state = match found {
            Some(found) => State::adopt(pod.clone(), found, now),
            None if over => State::adopt(pod.clone(), Found::default(), now),
            None if meta.deletion_timestamp().is_some() => State::new(pod.clone(), now),
            None => match self.admit(pod.root()) {
                Ok(()) => State::adopt(pod.clone(), Found::default(), now),
                Err(end) => {
                    self.core.record(pod.root(), None, true, &end.reason, end.message.clone());
                    State::refused(pod.clone(), end, now)
                }
            },
        };
        state.restart_wait_most = self.core.config.restart_wait_most;
        let (mailbox, inbox) = mpsc::unbounded_channel();
        let (view_sender, view) = watch::channel(Arc::new(state.clone()));
        let driver = Driver::new(self.core.clone(), mailbox.clone(), view_sender, &state);
        let (ended, name) = (sender.clone(), uid.clone());
        let task = base::task::spawn(async move {
            driver.run(state, inbox).await;
            drop(ended.send(Incoming::Ended(name)));
        });
        self.workers.lock().insert(uid, Worker { mailbox, view, _task: task });
    }

    fn admit(&self, pod: Ref<'_>) -> Result<(), crate::worker::End> {
        let node =
            self.node.get("", &self.core.config.node_name).map(|stored| stored.doc()).unwrap_or_default();
        // What has ended holds nothing any more; what is ending still does.
        let others: Vec<Arc<Doc>> = self
            .workers
            .states()
            .into_iter()
            .filter(|s| s.stage != Stage::Done)
            .map(|s| s.allocated_pod())
            .collect();
        let others: Vec<Ref<'_>> = others.iter().map(|pod| pod.root()).collect();
        admission::admit(pod, node.root(), &self.core.allocatable, &others)
    }

    fn pod_changed(
        &self,
        old: Option<Arc<Stored>>,
        new: Option<Arc<Stored>>,
        sender: &mpsc::UnboundedSender<Incoming>,
    ) {
        let uid = |stored: &Stored| stored.doc().get(k::METADATA).get(k::UID).str().to_owned();
        let (old_uid, new_uid) = (old.as_deref().map(uid), new.as_deref().map(uid));
        if let Some(gone) = old_uid.filter(|o| new_uid.as_ref() != Some(o)) {
            self.workers.tell(&gone, Message::Event(Event::Gone));
        }
        if let (Some(uid), Some(stored)) = (new_uid, new) {
            if self.workers.lock().contains_key(&uid) {
                self.warn_of_unbuilt(old.as_deref(), &stored);
                self.workers.tell(&uid, Message::Object(stored));
            } else {
                self.take(stored.doc(), None, sender);
            }
        }
    }

    /// What came to a pod that runs and cannot be done, such as an ephemeral container, is told: the pod itself goes on.
    fn warn_of_unbuilt(&self, old: Option<&Stored>, new: &Stored) {
        let before = old.map(|old| refused::fields(old.doc().root())).unwrap_or_default();
        let pod = new.doc();
        let added: Vec<String> =
            refused::fields(pod.root()).into_iter().filter(|field| !before.contains(field)).collect();
        if !added.is_empty() {
            let (reason, message) = refused::words(&added);
            self.core.record(pod.root(), None, true, reason, message);
        }
    }

    async fn runtime_changed(&self, event: RuntimeEvent) {
        match driver::route(event) {
            Routed::Pod(uid, message) => self.workers.tell(&uid, message),
            Routed::All(id) => {
                for worker in self.workers.lock().values() {
                    drop(worker.mailbox.send(Message::Event(Event::SandboxLost(id.clone()))));
                }
            }
            Routed::List => {
                let core = &self.core;
                for container in retry("list containers", || core.doors.runtime.list_containers()).await {
                    for worker in self.workers.lock().values() {
                        drop(worker.mailbox.send(Message::Look(container.id.clone())));
                    }
                }
            }
            Routed::Nobody => {}
        }
    }
}

/// Asks the runtime until it answers.
async fn retry<'a, T>(what: &str, ask: impl Fn() -> runtime::BoxFuture<'a, Result<T, RuntimeError>>) -> T {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(err) => {
                tracing::warn!(error = %err, "{what}: will be tried again");
                base::time::sleep(backoff.next_wait()).await;
            }
        }
    }
}
