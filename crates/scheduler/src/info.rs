//! What the scheduler keeps of pods and nodes: numbers and names, read once from the documents.
//! Upstream: pkg/scheduler/framework/types.go.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::quantity::{Format, Quantity};
use apimachinery::quota_usage::{self, Usage};
use apimachinery::schema::views::{self, Container};
use apimachinery::{Doc, k};
use client::ObjectKey;

/// What a container without a request counts as when nodes are compared. Upstream: `DefaultMilliCPURequest`.
const DEFAULT_MILLI_CPU: i64 = 100;
/// Upstream: `DefaultMemoryRequest`, 200 MiB.
const DEFAULT_MEMORY: i64 = 200 << 20;

/// Amounts of resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    /// How many pods; only nodes have this.
    pub pods: i64,
    /// Extended resources and huge pages, by name.
    pub scalar: BTreeMap<String, i64>,
}

/// A port of the host that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// The number.
    pub port: i64,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// `0.0.0.0` for all addresses.
    pub ip: String,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodInfo {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: String,
    /// Where it is bound; empty while it is pending.
    pub node_name: String,
    /// Which scheduler is to place it.
    pub scheduler_name: String,
    /// `spec.priority`.
    pub priority: i64,
    /// Its deletion has been asked for.
    pub is_being_deleted: bool,
    /// It has ended.
    pub is_terminal: bool,
    /// What it requests.
    pub requests: Resources,
    /// The same with defaults for containers without requests, to compare nodes.
    pub weighed: Resources,
    /// The host's ports it takes.
    pub ports: Vec<HostPort>,
}

/// A taint of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value; may be empty.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

/// A node as its object says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// `spec.taints`.
    pub taints: Vec<Taint>,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// `status.allocatable`.
    pub allocatable: Resources,
    /// The images it has, by each of their names, with their sizes in bytes.
    pub images: BTreeMap<String, i64>,
}

/// A node with the pods on it.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    /// The node's name.
    pub name: String,
    /// None while only pods are known of the node.
    pub node: Option<Node>,
    /// The pods on it, assumed ones among them.
    pub pods: BTreeMap<ObjectKey, Arc<PodInfo>>,
    /// The sum of their requests.
    pub requested: Resources,
    /// The sum of what they are weighed as.
    pub weighed: Resources,
}

// === impl Resources ===

impl Resources {
    /// From amounts by name.
    pub fn of(amounts: &Usage) -> Resources {
        let mut out = Resources::default();
        for (name, amount) in amounts {
            match name.as_str() {
                "cpu" => out.milli_cpu = amount.milli_value(),
                "memory" => out.memory = amount.value(),
                "ephemeral-storage" => out.ephemeral_storage = amount.value(),
                "pods" => out.pods = amount.value(),
                _ => {
                    out.scalar.insert(name.clone(), amount.value());
                }
            }
        }
        out
    }

    /// Adds `more`.
    pub fn add(&mut self, more: &Resources) {
        self.combine(more, i64::saturating_add);
    }

    /// Takes `less` away.
    pub fn sub(&mut self, less: &Resources) {
        self.combine(less, i64::saturating_sub);
    }

    fn combine(&mut self, other: &Resources, op: fn(i64, i64) -> i64) {
        self.milli_cpu = op(self.milli_cpu, other.milli_cpu);
        self.memory = op(self.memory, other.memory);
        self.ephemeral_storage = op(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.scalar {
            let entry = self.scalar.entry(name.clone()).or_insert(0);
            *entry = op(*entry, *amount);
        }
        self.scalar.retain(|_, amount| *amount != 0);
    }

    /// An extended resource or huge pages.
    pub fn scalar(&self, name: &str) -> i64 {
        self.scalar.get(name).copied().unwrap_or(0)
    }
}

// === impl HostPort ===

impl HostPort {
    /// Whether two pods cannot have both on one host.
    pub fn conflicts(&self, other: &HostPort) -> bool {
        let any = |ip: &str| ip == "0.0.0.0" || ip == "::";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || any(&self.ip) || any(&other.ip))
    }
}

// === impl PodInfo ===

impl PodInfo {
    /// Reads a pod.
    pub fn of(doc: &Doc) -> PodInfo {
        let pod = views::Pod(doc.root());
        let meta = apimachinery::meta::of(doc.root());
        let missing = Usage::from([
            ("cpu".to_owned(), Quantity::from_milli(DEFAULT_MILLI_CPU, Format::DecimalSi)),
            ("memory".to_owned(), Quantity::from_value(DEFAULT_MEMORY, Format::BinarySi)),
        ]);
        PodInfo {
            key: ObjectKey::new(meta.namespace(), meta.name()),
            uid: meta.uid().to_owned(),
            node_name: pod.spec().node_name().to_owned(),
            scheduler_name: pod.spec().scheduler_name().to_owned(),
            priority: pod.spec().priority().unwrap_or(0),
            is_being_deleted: meta.is_being_deleted(),
            is_terminal: matches!(pod.status().phase(), "Succeeded" | "Failed"),
            requests: Resources::of(&quota_usage::pod_requests(pod)),
            weighed: Resources::of(&quota_usage::pod_requests_or(pod, &missing)),
            ports: host_ports(pod),
        }
    }
}

fn host_ports(pod: views::Pod<'_>) -> Vec<HostPort> {
    let sidecar = |c: &Container<'_>| c.0.get(k::RESTART_POLICY).str() == "Always";
    let containers = pod.spec().containers().iter();
    let all = containers.chain(pod.spec().init_containers().iter().filter(sidecar));
    let or = |text: &str, default: &str| if text.is_empty() { default } else { text }.to_owned();
    all.flat_map(|c| c.ports().iter())
        .filter(|p| p.0.get(k::HOST_PORT).i64() > 0)
        .map(|p| HostPort {
            port: p.0.get(k::HOST_PORT).i64(),
            protocol: or(p.0.get(k::PROTOCOL).str(), "TCP"),
            ip: or(p.0.get(k::HOST_IP).str(), "0.0.0.0"),
        })
        .collect()
}

// === impl Node ===

impl Node {
    /// Reads a node.
    pub fn of(doc: &Doc) -> Node {
        let node = views::Node(doc.root());
        let status = doc.get(k::STATUS);
        Node {
            name: node.metadata().name().to_owned(),
            labels: node.metadata().labels().iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            taints: node
                .spec()
                .taints()
                .iter()
                .map(|t| Taint {
                    key: t.key().to_owned(),
                    value: t.value().to_owned(),
                    effect: t.effect().to_owned(),
                })
                .collect(),
            unschedulable: node.spec().unschedulable(),
            allocatable: Resources::of(&quota_usage::amounts(status.get(k::ALLOCATABLE))),
            images: status
                .get(k::IMAGES)
                .items()
                .flat_map(|image| {
                    let size = image.get(k::SIZE_BYTES).i64();
                    image.get(k::NAMES).items().map(move |name| (name.str().to_owned(), size))
                })
                .collect(),
        }
    }
}

// === impl NodeInfo ===

impl NodeInfo {
    /// A node without pods.
    pub fn new(name: &str) -> NodeInfo {
        NodeInfo {
            name: name.to_owned(),
            node: None,
            pods: BTreeMap::new(),
            requested: Resources::default(),
            weighed: Resources::default(),
        }
    }

    /// Puts a pod on the node.
    ///
    /// # Panics
    /// When a pod of this key is on it already.
    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.weighed.add(&pod.weighed);
        let old = self.pods.insert(pod.key.clone(), pod);
        assert!(old.is_none(), "a pod is on a node once");
    }

    /// Takes a pod off.
    ///
    /// # Panics
    /// When it is not there.
    pub fn remove(&mut self, key: &ObjectKey) {
        let pod = self.pods.remove(key).expect("a pod is taken off the node it is on");
        self.requested.sub(&pod.requests);
        self.weighed.sub(&pod.weighed);
    }
}
