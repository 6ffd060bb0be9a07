//! What a plugin is: the extension points as traits, and what passes through them.
//!
//! Until a pod has its node everything is synchronous and sees one snapshot; from Permit on a pod has a task of its own
//! and plugins may wait. Upstream: pkg/scheduler/framework, k8s.io/kube-scheduler/framework.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use apimachinery::Doc;
use apimachinery::call::BoxFuture;
use apimachinery::schema::views;
use client::Client;

use crate::cache::Snapshot;
use crate::info::{Node, NodeInfo, PodInfo};

/// The best score that a plugin gives a node.
pub const MAX_NODE_SCORE: i64 = 100;

/// A pod that is being placed.
#[derive(Clone, Copy)]
pub struct Pod<'a> {
    /// What the scheduler reckons with.
    pub info: &'a PodInfo,
    /// All of it.
    pub doc: &'a Doc,
}

impl<'a> Pod<'a> {
    /// Its specification.
    pub fn spec(self) -> views::PodSpec<'a> {
        views::Pod(self.doc.root()).spec()
    }
}

/// How final a rejection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Other pods going could help.
    Unschedulable,
    /// Only a change of the node or of the pod itself helps.
    Unresolvable,
    /// Something failed; it is tried again.
    Error,
}

/// Why a plugin does not let a pod pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Filled in by the framework.
    pub plugin: &'static str,
    /// How final it is.
    pub code: Code,
    /// In upstream's words.
    pub reasons: Vec<String>,
}

impl Rejection {
    /// For one reason.
    pub fn new(code: Code, reason: impl Into<String>) -> Rejection {
        Rejection { plugin: "", code, reasons: vec![reason.into()] }
    }

    /// The same, by this plugin.
    #[must_use]
    pub fn by(mut self, plugin: &'static str) -> Rejection {
        self.plugin = plugin;
        self
    }
}

/// Whether a pod passes.
pub type Verdict = Result<(), Rejection>;

/// What plugins remember from one point to another while one pod is placed: one value per type.
#[derive(Default)]
pub struct CycleState(BTreeMap<TypeId, Box<dyn Any + Send + Sync>>);

impl CycleState {
    /// Remembers a value.
    pub fn put<T: Any + Send + Sync>(&mut self, value: T) {
        self.0.insert(TypeId::of::<T>(), Box::new(value));
    }

    /// A remembered value.
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.get(&TypeId::of::<T>())?.downcast_ref()
    }
}

/// A change that may let a rejected pod pass.
#[derive(Clone, Copy)]
pub enum Event<'a> {
    /// A node came.
    NodeAdded(&'a Node),
    /// A node changed in what the scheduler looks at.
    NodeUpdated {
        /// As it was.
        old: &'a Node,
        /// As it is.
        new: &'a Node,
    },
    /// A pod on a node is gone, has ended, or asks for less.
    AssignedPodGone(&'a PodInfo),
}

/// A pod on its way to its node.
pub struct Assumed {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// The node chosen for it.
    pub node: String,
    /// What plugins remembered.
    pub state: CycleState,
}

/// What plugins work with that may wait.
#[derive(Clone)]
pub struct Handle {
    /// Under the scheduler's identity.
    pub client: Client,
}

/// Whether a pod may be queued at all.
pub trait PreEnqueue: Sync {
    /// A rejected pod waits until it is changed.
    fn pre_enqueue(&self, pod: Pod<'_>) -> Verdict;
}

/// The order of the queue: the least rank comes first.
pub trait QueueSort: Sync {
    /// The pod's rank; `since` is when it was queued, in nanoseconds.
    fn rank(&self, pod: &PodInfo, since: i128) -> (i64, i128);
}

/// What PreFilter found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PreFiltered {
    /// Every node is to be looked at.
    All,
    /// The plugin's Filter has nothing to say about this pod.
    Skip,
    /// Only these nodes are.
    Only(BTreeSet<String>),
}

/// Looks at the pod once before the nodes are looked at.
pub trait PreFilter: Sync {
    /// Rejects the pod, or tells which nodes to look at.
    fn pre_filter(
        &self,
        state: &mut CycleState,
        pod: Pod<'_>,
        nodes: Snapshot<'_>,
    ) -> Result<PreFiltered, Rejection>;
}

/// Whether a node can take the pod.
pub trait Filter: Sync {
    /// Rejects the node; `node` is its object.
    fn filter(&self, state: &CycleState, pod: Pod<'_>, info: &NodeInfo, node: &Node) -> Verdict;
}

/// Tries to make room when no node fits.
pub trait PostFilter: Sync {
    /// What came of it, for the pod's event; `rejected` has the rejection of each node.
    fn post_filter(
        &self,
        state: &mut CycleState,
        pod: Pod<'_>,
        nodes: Snapshot<'_>,
        rejected: &BTreeMap<String, Rejection>,
    ) -> String;
}

/// Looks at the pod once before the nodes are compared.
pub trait PreScore: Sync {
    /// Whether the plugin's Score has anything to say about this pod; `feasible` are the nodes to compare.
    fn pre_score(
        &self,
        state: &mut CycleState,
        pod: Pod<'_>,
        feasible: &[(&NodeInfo, &Node)],
        nodes: Snapshot<'_>,
    ) -> bool;
}

/// How well a node suits the pod.
pub trait Score: Sync {
    /// Any number, to be normalized; or 0 to [`MAX_NODE_SCORE`].
    fn score(&self, state: &CycleState, pod: Pod<'_>, info: &NodeInfo, node: &Node) -> i64;

    /// NormalizeScore: brings all nodes' scores into 0 to [`MAX_NODE_SCORE`].
    fn normalize(&self, _scores: &mut [i64]) {}
}

/// Keeps something beside the node's resources for the pod.
pub trait Reserve: Sync {
    /// Takes it.
    fn reserve(&self, state: &mut CycleState, pod: Pod<'_>, node: &str) -> Verdict;
    /// Gives it back, whether or not it was taken.
    fn unreserve(&self, state: &mut CycleState, pod: &PodInfo, node: &str);
}

/// Holds the pod up, or turns it away, before it is bound.
pub trait Permit: Sync {
    /// Waits for as long as it takes.
    fn permit<'a>(&'a self, handle: &'a Handle, pod: &'a Assumed) -> BoxFuture<'a, Verdict>;
}

/// Prepares the node for the pod.
pub trait PreBind: Sync {
    /// Waits until all is ready.
    fn pre_bind<'a>(&'a self, handle: &'a Handle, pod: &'a Assumed) -> BoxFuture<'a, Verdict>;
}

/// Binds the pod to its node.
pub trait Bind: Sync {
    /// Whether it did; a plugin that leaves it to the next gives false.
    fn bind<'a>(&'a self, handle: &'a Handle, pod: &'a Assumed) -> BoxFuture<'a, Result<bool, Rejection>>;
}

/// Is told of pods that were bound.
pub trait PostBind: Sync {
    /// For tidying up.
    fn post_bind(&self, pod: &Assumed);
}

/// Which events could let a pod pass that this plugin rejected. Upstream: queueing hints.
pub trait Requeue: Sync {
    /// Whether the pod is to be tried again.
    fn is_worth(&self, pod: Pod<'_>, event: Event<'_>) -> bool;
}

/// A plugin: its name and the points it takes part in.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub struct Member {
    /// Upstream's name.
    pub name: &'static str,
    /// What its scores count.
    pub weight: i64,
    pub pre_enqueue: Option<&'static dyn PreEnqueue>,
    pub queue_sort: Option<&'static dyn QueueSort>,
    pub pre_filter: Option<&'static dyn PreFilter>,
    pub filter: Option<&'static dyn Filter>,
    pub post_filter: Option<&'static dyn PostFilter>,
    pub pre_score: Option<&'static dyn PreScore>,
    pub score: Option<&'static dyn Score>,
    pub reserve: Option<&'static dyn Reserve>,
    pub permit: Option<&'static dyn Permit>,
    pub pre_bind: Option<&'static dyn PreBind>,
    pub bind: Option<&'static dyn Bind>,
    pub post_bind: Option<&'static dyn PostBind>,
    pub requeue: Option<&'static dyn Requeue>,
}

impl Member {
    /// A plugin that takes part in nothing yet.
    pub const fn new(name: &'static str) -> Member {
        Member {
            name,
            weight: 1,
            pre_enqueue: None,
            queue_sort: None,
            pre_filter: None,
            filter: None,
            post_filter: None,
            pre_score: None,
            score: None,
            reserve: None,
            permit: None,
            pre_bind: None,
            bind: None,
            post_bind: None,
            requeue: None,
        }
    }
}

/// Scales scores so that the highest becomes [`MAX_NODE_SCORE`]; `reverse` makes the lowest the best.
pub fn default_normalize(scores: &mut [i64], reverse: bool) {
    let most = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        *score = if most == 0 { 0 } else { *score * MAX_NODE_SCORE / most };
        if reverse {
            *score = MAX_NODE_SCORE - *score;
        }
    }
}
