//! The scheduler's one task: it learns of changes by key, places one pod after another, and starts a task for each
//! pod that is to be bound. Upstream: pkg/scheduler/{scheduler,eventhandlers,schedule_one}.go.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use apimachinery::call::{Stored, User};
use apimachinery::{Doc, k};
use base::task::Task;
use client::gvr::{NODES, PODS};
use client::reflector::{self, Selection};
use client::{Client, EventRecorder, EventType, ObjectKey, SharedCache, WorkQueue};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::cache::Cache;
use crate::framework::{Assumed, Code, CycleState, Event, Handle, Member, Pod, Rejection};
use crate::info::{Node, PodInfo};
use crate::plugins::PLUGINS;
use crate::queue::{Queue, QueuedPod};
use crate::report;
use crate::schedule_one::{self, Failure, Rotation};

/// The scheduler's identity.
pub const USER: &str = "system:kube-scheduler";

/// What the scheduler must be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which pods are its business: those with this `spec.schedulerName`.
    pub scheduler_name: String,
    /// The share of nodes, in percent, to find fit before the best is chosen; 0 for upstream's rule.
    pub percentage_of_nodes_to_score: usize,
}

/// A change, by key: what has changed is read from the caches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    Node(ObjectKey),
    Pod(ObjectKey),
}

/// What came of a binding.
struct Bound {
    assumed: Assumed,
    verdict: Result<(), Rejection>,
}

/// What the task waits for.
enum Step {
    Seen(Seen),
    Bound(Box<Bound>),
    Place,
    Flush,
}

struct Scheduler {
    config: Config,
    plugins: &'static [Member],
    handle: Handle,
    events: EventRecorder,
    pods: SharedCache,
    nodes: SharedCache,
    inbox: WorkQueue<Seen>,
    cache: Cache,
    queue: Queue,
    rotation: Rotation,
    // Popped from the queue and not yet settled, by key.
    binding: BTreeMap<ObjectKey, QueuedPod>,
    tasks: FuturesUnordered<Task<Bound>>,
    reports: FuturesUnordered<Task<()>>,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Config { scheduler_name: "default-scheduler".to_owned(), percentage_of_nodes_to_score: 0 }
    }
}

/// The scheduler's identity.
pub fn user() -> User {
    User::new(USER, &[])
}

/// Places pods for ever; dropping the future ends it. `client` shows [`user`].
pub async fn run(client: Client, config: Config) -> Infallible {
    // Pods that have ended take no room.
    let live =
        Selection { fields: "status.phase!=Succeeded,status.phase!=Failed".into(), ..Selection::default() };
    let (pods, _pods_task) = reflector::start(client.resource(PODS), live, vec![]);
    let (nodes, _nodes_task) = reflector::start(client.resource(NODES), Selection::default(), vec![]);
    let inbox = WorkQueue::new();
    let (to_nodes, to_pods) = (inbox.clone(), inbox.clone());
    nodes.subscribe(move |change| to_nodes.add(Seen::Node(change.key.clone())));
    pods.subscribe(move |change| to_pods.add(Seen::Pod(change.key.clone())));
    nodes.wait_synced().await;
    pods.wait_synced().await;
    let scheduler = Scheduler {
        events: EventRecorder::start(&client, &config.scheduler_name, ""),
        config,
        plugins: PLUGINS,
        handle: Handle { client },
        pods,
        nodes,
        inbox,
        cache: Cache::default(),
        queue: Queue::new(PLUGINS),
        rotation: Rotation::default(),
        binding: BTreeMap::new(),
        tasks: FuturesUnordered::new(),
        reports: FuturesUnordered::new(),
    };
    scheduler.run().await
}

impl Scheduler {
    async fn run(mut self) -> Infallible {
        loop {
            match self.next().await {
                Step::Seen(seen) => {
                    self.inbox.done(&seen);
                    match seen {
                        Seen::Node(key) => self.see_node(&key),
                        Seen::Pod(key) => self.see_pod(&key),
                    }
                }
                Step::Bound(bound) => self.bound(*bound),
                Step::Place => {
                    self.schedule_one();
                    // Bindings and watches go on between two pods.
                    base::task::yield_now().await;
                }
                Step::Flush => self.queue.flush(),
            }
        }
    }

    /// First everything that is known, then the next pod.
    async fn next(&mut self) -> Step {
        let flush = self.queue.next_flush();
        let ready = self.queue.is_ready();
        let timer = async {
            match flush {
                Some(at) => base::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        base::select! {
            Some(seen) = self.inbox.get() => Step::Seen(seen),
            Some(bound) = self.tasks.next() => Step::Bound(Box::new(bound)),
            Some(()) = self.reports.next() => Step::Flush,
            () = std::future::ready(()), if ready => Step::Place,
            () = timer => Step::Flush,
        }
    }

    fn see_node(&mut self, key: &ObjectKey) {
        let Some(stored) = self.nodes.get_key(key) else { return self.cache.remove_node(&key.name) };
        let new = Node::of(&stored.doc());
        match self.cache.set_node(new.clone()) {
            None => self.queue.event(Event::NodeAdded(&new)),
            Some(old) if old != new => self.queue.event(Event::NodeUpdated { old: &old, new: &new }),
            Some(_) => {}
        }
    }

    fn see_pod(&mut self, key: &ObjectKey) {
        let now = self.pods.get_key(key).map(|stored| (PodInfo::of(&stored.doc()), stored));
        let now = now.filter(|(info, _)| !info.is_terminal).map(|(info, stored)| (Arc::new(info), stored));
        let is_same = |info: &PodInfo| now.as_ref().is_some_and(|(now, _)| now.uid == info.uid);
        // What was on a node and is gone, or is another pod by now.
        if self.cache.pod(key).is_some_and(|known| !is_same(known)) {
            self.forget(key);
        }
        match now {
            None => {
                self.queue.remove(key);
            }
            Some((info, _)) if !info.node_name.is_empty() => self.see_assigned(info),
            Some((info, stored)) => self.see_pending(info, stored),
        }
    }

    fn see_assigned(&mut self, new: Arc<PodInfo>) {
        self.queue.remove(&new.key);
        let old = self.cache.pod(&new.key).cloned();
        if old.as_ref() == Some(&new) {
            return;
        }
        self.cache.set_pod(new.clone());
        // Less than before is room for others, and so is a node that was assumed in vain.
        if let Some(old) = old
            && (old.requests != new.requests || old.ports != new.ports)
        {
            self.queue.event(Event::AssignedPodGone(&old));
        }
    }

    fn see_pending(&mut self, info: Arc<PodInfo>, stored: Arc<Stored>) {
        let key = &info.key;
        if info.scheduler_name != self.config.scheduler_name || info.is_being_deleted {
            self.queue.remove(key);
            return;
        }
        // It has its node, and the binding has not been seen yet; or its fate is decided by the binding's answer.
        if self.cache.is_assumed(key) || self.binding.contains_key(key) {
            return;
        }
        match self.queue.get(key) {
            Some(queued) if queued.info.uid == info.uid => {
                let is_other = asks_differently(&queued.stored.doc(), &stored.doc());
                self.queue.update(stored, info, is_other);
            }
            _ => self.queue.add(stored, info),
        }
    }

    fn forget(&mut self, key: &ObjectKey) {
        if let Some(gone) = self.cache.remove_pod(key) {
            self.queue.event(Event::AssignedPodGone(&gone));
        }
    }

    fn schedule_one(&mut self) {
        let Some(queued) = self.queue.pop() else { return };
        let doc = queued.stored.doc();
        let pod = Pod { info: &queued.info, doc: &doc };
        let percentage = self.config.percentage_of_nodes_to_score;
        let placed =
            schedule_one::place(self.plugins, pod, self.cache.snapshot(), percentage, &mut self.rotation);
        match placed {
            Ok(mut placement) => match self.reserve(&mut placement.state, pod, &placement.node) {
                Ok(()) => self.bind(queued, placement.node, placement.state),
                Err(rejection) => self.turned_away(queued, &rejection),
            },
            Err(Failure::Fit(fit)) => {
                self.tell_failure(&queued, "Unschedulable", &fit.to_string());
                self.queue.rejected(queued, fit.plugins);
            }
            Err(Failure::Plugin(rejection)) => self.turned_away(queued, &rejection),
        }
    }

    fn reserve(&self, state: &mut CycleState, pod: Pod<'_>, node: &str) -> Result<(), Rejection> {
        let reserving: Vec<_> = self.plugins.iter().filter_map(|p| Some((p.name, p.reserve?))).collect();
        for (name, plugin) in &reserving {
            if let Err(rejection) = plugin.reserve(state, pod, node) {
                reserving.iter().rev().for_each(|(_, p)| p.unreserve(state, pod.info, node));
                return Err(rejection.by(name));
            }
        }
        Ok(())
    }

    fn bind(&mut self, queued: QueuedPod, node: String, state: CycleState) {
        self.cache.assume(queued.info.clone(), &node);
        let assumed = Assumed { pod: queued.info.clone(), node, state };
        let (plugins, handle) = (self.plugins, self.handle.clone());
        self.tasks.push(base::task::spawn(async move {
            let verdict = bind(plugins, &handle, &assumed).await;
            Bound { assumed, verdict }
        }));
        self.binding.insert(queued.info.key.clone(), queued);
    }

    fn bound(&mut self, bound: Bound) {
        let Bound { mut assumed, verdict } = bound;
        let key = assumed.pod.key.clone();
        let queued = self.binding.remove(&key).expect("a pod that is bound was popped");
        match verdict {
            Ok(()) => {
                self.plugins.iter().filter_map(|p| p.post_bind).for_each(|p| p.post_bind(&assumed));
                let message = format!("Successfully assigned {key} to {}", assumed.node);
                self.events.normal(report::about(&queued.stored.doc()), "Scheduled", message);
            }
            Err(rejection) => {
                for plugin in self.plugins.iter().rev().filter_map(|p| p.reserve) {
                    plugin.unreserve(&mut assumed.state, &assumed.pod, &assumed.node);
                }
                if self.cache.is_assumed(&key) {
                    self.forget(&key);
                }
                // Who is gone or has a node after all is not told of the failure.
                let current = self.pods.get_key(&key).filter(|stored| {
                    let info = PodInfo::of(&stored.doc());
                    info.uid == assumed.pod.uid && info.node_name.is_empty() && !info.is_being_deleted
                });
                if current.is_some() {
                    self.turned_away(queued, &rejection);
                }
            }
        }
        // What changed meanwhile was left for now.
        self.see_pod(&key);
    }

    /// A plugin other than a filter said no, or failed.
    fn turned_away(&mut self, queued: QueuedPod, rejection: &Rejection) {
        let reasons = rejection.reasons.join(", ");
        if rejection.code == Code::Error {
            let message = format!("running plugin {:?}: {reasons}", rejection.plugin);
            tracing::info!(pod = %queued.info.key, message, "scheduling failed; trying again");
            self.tell_failure(&queued, "SchedulerError", &message);
            self.queue.failed(queued);
        } else {
            self.tell_failure(&queued, "Unschedulable", &reasons);
            self.queue.rejected(queued, [rejection.plugin].into());
        }
    }

    fn tell_failure(&mut self, queued: &QueuedPod, reason: &str, message: &str) {
        let doc = queued.stored.doc();
        self.events.event(report::about(&doc), EventType::Warning, "FailedScheduling", message);
        if let Some(patch) = report::not_scheduled(&doc, reason, message) {
            let write = report::write(self.handle.client.clone(), queued.stored.clone(), patch);
            self.reports.push(base::task::spawn(write));
        }
    }
}

/// Whether the scheduler must look at a changed pod anew.
fn asks_differently(old: &Doc, new: &Doc) -> bool {
    let labels = |doc: &Doc| doc.get(k::METADATA).get(k::LABELS).to_doc();
    !old.get(k::SPEC).same(new.get(k::SPEC)) || labels(old) != labels(new)
}

async fn bind(plugins: &'static [Member], handle: &Handle, pod: &Assumed) -> Result<(), Rejection> {
    for plugin in plugins {
        if let Some(permit) = plugin.permit {
            permit.permit(handle, pod).await.map_err(|r| r.by(plugin.name))?;
        }
    }
    for plugin in plugins {
        if let Some(pre_bind) = plugin.pre_bind {
            pre_bind.pre_bind(handle, pod).await.map_err(|r| r.by(plugin.name))?;
        }
    }
    for plugin in plugins {
        if let Some(bind) = plugin.bind
            && bind.bind(handle, pod).await.map_err(|r| r.by(plugin.name))?
        {
            return Ok(());
        }
    }
    Err(Rejection::new(Code::Error, "no plugin bound the pod"))
}
