//! This node's Node object and Lease: registration, status, heartbeats.
//!
//! Upstream: pkg/kubelet/kubelet_node_status.go, pkg/kubelet/nodestatus/setters.go,
//! staging/src/k8s.io/component-helpers/apimachinery/lease.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::quantity::{Format, Quantity};
use apimachinery::{Doc, Ref, doc, gotime, k};
use base::backoff::Backoff;
use base::time::Timestamp;
use client::{Client, PatchType, SharedCache};
use tokio::sync::watch;

use crate::admission::Resources;
use crate::config::Config;
use crate::doors::{Machine, MachineInfo, Pressure};

/// How often the Lease is renewed and how long it counts, as upstream's defaults.
const LEASE_EVERY: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i64 = 40;
/// How often the status is written when nothing changes, and looked at for changes.
const STATUS_EVERY: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The waits after failed writes.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(7);

const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Resources that the kubelet itself announces; others on the Node are somebody else's and stay.
const OWN: [&str; 5] = ["cpu", "memory", "ephemeral-storage", "hugepages-1Gi", "hugepages-2Mi"];

/// What the node's status says besides the machine's facts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// `name://version` of the runtime.
    pub runtime: String,
    /// Whether pods' networks can be made.
    pub network: Network,
    /// What is short.
    pub pressure: Pressure,
}

/// Whether pods' networks can be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Not known yet: the Node stays as ready as it was before this process began.
    #[default]
    Unknown,
    /// They can.
    Ready,
    /// They cannot, and why.
    Down(String),
}

/// What the machine has, and what pods may use of it.
pub fn resources(config: &Config, info: &MachineInfo) -> (Resources, Resources) {
    let all = |cpu: i64, memory: i64| -> Resources {
        [
            ("cpu", Quantity::from_milli(cpu, Format::DecimalSi)),
            ("ephemeral-storage", Quantity::from_value(info.storage, Format::BinarySi)),
            ("memory", Quantity::from_value(memory, Format::BinarySi)),
            ("pods", Quantity::from_value(i64::from(config.max_pods), Format::DecimalSi)),
        ]
        .map(|(name, q)| (name.to_owned(), q))
        .into()
    };
    let reserved = config.reserved;
    let free = |have: i64, kept: i64| have.saturating_sub(kept).max(0);
    (
        all(info.cpu_milli, info.memory),
        all(free(info.cpu_milli, reserved.cpu_milli), free(info.memory, reserved.memory)),
    )
}

/// The labels that the kubelet keeps on its Node.
fn labels(config: &Config, info: &MachineInfo) -> Vec<(String, String)> {
    let hostname = config.node_name.to_lowercase();
    let mut out: Vec<(String, String)> = ["beta.kubernetes.io/arch", "kubernetes.io/arch"]
        .map(|name| (name.to_owned(), info.architecture.clone()))
        .into_iter()
        .chain(
            ["beta.kubernetes.io/os", "kubernetes.io/os"].map(|name| (name.to_owned(), "linux".to_owned())),
        )
        .collect();
    out.push(("kubernetes.io/hostname".to_owned(), hostname));
    out.extend(config.node_labels.iter().cloned());
    out
}

/// The Node to register.
pub fn new_node(config: &Config, info: &MachineInfo, health: &Health, now: Timestamp) -> Doc {
    let mut out =
        doc!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": &config.node_name }, "spec": {} });
    let mut at = out.edit().at(k::METADATA).at(k::LABELS);
    for (name, value) in labels(config, info) {
        at.set(name, value);
    }
    let status = status(config, info, health, Ref::absent(), now);
    out.edit().set(k::STATUS, status);
    out
}

/// The Node's status; `old` is the one it has, whose foreign parts stay.
pub fn status(config: &Config, info: &MachineInfo, health: &Health, old: Ref<'_>, now: Timestamp) -> Doc {
    let mut out = old.to_doc();
    if !out.root().is_object() {
        out = Doc::object();
    }
    let (capacity, allocatable) = resources(config, info);
    for (key, own) in [(k::CAPACITY, capacity), (k::ALLOCATABLE, allocatable)] {
        let mut at = out.edit().at(key);
        for name in OWN {
            if !own.contains_key(name) {
                at.remove(name);
            }
        }
        for (name, q) in own {
            at.set(name, q.to_string());
        }
    }
    let ips = if config.node_ips.is_empty() { &info.addresses } else { &config.node_ips };
    let mut addresses: Vec<Doc> =
        ips.iter().map(|ip| doc!({ "type": "InternalIP", "address": ip.to_string() })).collect();
    addresses.push(doc!({ "type": "Hostname", "address": &config.node_name }));
    let mut edit = out.edit();
    edit.set(k::ADDRESSES, addresses);
    if config.port != 0 {
        edit.set(k::DAEMON_ENDPOINTS, doc!({ "kubeletEndpoint": { "Port": config.port } }));
    }
    // The one engine has the empty name too, which pods without a class ask for.
    let handlers = ["", health.runtime.split("://").next().unwrap_or_default()];
    let handlers = handlers.map(|name| doc!({ "name": name, "features": { "recursiveReadOnlyMounts": true, "userNamespaces": false } }));
    edit.set(k::RUNTIME_HANDLERS, handlers.to_vec());
    edit.set(k::FEATURES, doc!({ "supplementalGroupsPolicy": true }));
    edit.set(k::NODE_INFO, doc!({
        "machineID": &info.machine_id, "systemUUID": &info.system_uuid, "bootID": &info.boot_id,
        "kernelVersion": &info.kernel_version, "osImage": &info.os_image, "containerRuntimeVersion": &health.runtime,
        "kubeletVersion": &config.version, "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": &info.architecture }));
    let conditions = conditions(health, old, now);
    let mut list = out.edit().list(k::CONDITIONS);
    for condition in conditions {
        let kind = condition.get(k::TYPE).str().to_owned();
        let at = list.read().items().position(|c| c.get(k::TYPE).str() == kind);
        match at.and_then(|i| list.reborrow().item(i)) {
            Some(mut item) => item.put(condition),
            None => {
                list.push(condition);
            }
        }
    }
    out
}

fn conditions(health: &Health, old: Ref<'_>, now: Timestamp) -> Vec<Doc> {
    let short = |yes: bool, has: (&'static str, &'static str), no: (&'static str, &'static str)| {
        if yes { ("True", has) } else { ("False", no) }
    };
    let was = old.get(k::CONDITIONS).items().find(|c| c.get(k::TYPE).str() == "Ready");
    let network = match (&health.network, was.map(|c| c.get(k::STATUS).str())) {
        (Network::Unknown, Some("True")) => &Network::Ready,
        (Network::Unknown, _) => &Network::Down("the node has no podCIDR yet".to_owned()),
        (known, _) => known,
    };
    let ready = match network {
        Network::Ready | Network::Unknown => {
            ("True", "KubeletReady", "kubelet is posting ready status".to_owned())
        }
        Network::Down(why) => (
            "False",
            "KubeletNotReady",
            format!(
                "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: {why}"
            ),
        ),
    };
    let p = health.pressure;
    let memory = short(
        p.memory,
        ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
        ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    );
    let disk = short(
        p.disk,
        ("KubeletHasDiskPressure", "kubelet has disk pressure"),
        ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    );
    let pid = short(
        p.pid,
        ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
        ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    );
    let all = [("MemoryPressure", memory), ("DiskPressure", disk), ("PIDPressure", pid)];
    let all = all.map(|(kind, (status, (reason, message)))| (kind, status, reason, message.to_owned()));
    all.into_iter().chain([("Ready", ready.0, ready.1, ready.2)]).map(|(kind, status, reason, message)| {
        let before = old.get(k::CONDITIONS).items().find(|c| c.get(k::TYPE).str() == kind);
        let kept = before.filter(|c| c.get(k::STATUS).str() == status).map(|c| c.get(k::LAST_TRANSITION_TIME).str().to_owned());
        doc!({ "type": kind, "status": status, "lastHeartbeatTime": gotime::format(now),
            "lastTransitionTime": kept.unwrap_or_else(|| gotime::format(now)), "reason": reason, "message": message })
    }).collect()
}

/// Whether two statuses differ in more than their heartbeats.
fn differs(old: Ref<'_>, new: Ref<'_>) -> bool {
    let strip = |conditions: Ref<'_>| {
        let mut out = conditions.to_doc();
        out.edit().for_each(|mut c| {
            c.remove(k::LAST_HEARTBEAT_TIME);
        });
        out
    };
    new.entries().any(|(name, value)| match name {
        "conditions" => strip(old.get(name)) != strip(value),
        _ => !old.get(name).same(value),
    })
}

/// Makes sure that the Node exists, and gives it.
pub async fn register(client: &Client, node: Doc) -> Doc {
    let nodes = client.resource(client::gvr::NODES);
    let name = node.get(k::METADATA).get(k::NAME).str().to_owned();
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
    loop {
        let done = match nodes.create(node.clone()).await {
            Err(err) if err.is_already_exists() => adopt_node(&nodes, &name, &node).await,
            other => other.map(|stored| stored.doc()),
        };
        match done {
            Ok(found) => return found,
            Err(err) => {
                tracing::warn!(node = %name, error = %err, "the node could not be registered, will be tried again");
                base::time::sleep(backoff.next_wait()).await;
            }
        }
    }
}

/// A Node from an earlier life keeps what others put on it; its own labels are brought up to date.
async fn adopt_node(nodes: &client::Resource, name: &str, node: &Doc) -> Result<Doc, client::Error> {
    let found = nodes.get(name).await?.doc();
    let have = found.get(k::METADATA).get(k::LABELS);
    let want = node.get(k::METADATA).get(k::LABELS);
    if want.entries().all(|(name, value)| have.get(name).same(value)) {
        return Ok(found);
    }
    let mut patch = Doc::object();
    patch.edit().at(k::METADATA).set(k::LABELS, want);
    nodes.patch(name, PatchType::Strategic, patch, "").await.map(|stored| stored.doc())
}

/// Keeps the Node's status up to date, for ever. Health changes are written at once.
pub async fn keep_status(
    client: Client,
    config: Config,
    machine: Arc<dyn Machine>,
    mut health: watch::Receiver<Health>,
    cache: SharedCache,
) {
    let nodes = client.resource(client::gvr::NODES);
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
    // Registration has written it just now, or an earlier process has lately.
    let mut written = base::time::instant();
    loop {
        let mut now_health = health.borrow_and_update().clone();
        let pressure_of = machine.clone();
        let (info, pressure) =
            base::task::blocking(move || (pressure_of.info(), Pressure::of(&pressure_of.short()))).await;
        now_health.pressure = pressure;
        let found = cache.get("", &config.node_name).map(|stored| stored.doc());
        let wait = match found {
            None => {
                // Deleted by somebody: a kubelet that runs registers again.
                let node = new_node(&config, &info, &now_health, base::time::now());
                register(&client, node).await;
                LOOK_EVERY
            }
            Some(node) => {
                let new = status(&config, &info, &now_health, node.get(k::STATUS), base::time::now());
                let due = written.elapsed() >= STATUS_EVERY;
                if !due && !differs(node.get(k::STATUS), new.root()) {
                    LOOK_EVERY
                } else {
                    let mut patch = Doc::object();
                    patch.edit().set(k::STATUS, changed(node.get(k::STATUS), new.root()));
                    match nodes.patch(&config.node_name, PatchType::Strategic, patch, "status").await {
                        Ok(stored) => {
                            written = base::time::instant();
                            backoff.reset();
                            cache.wait_for_revision(stored.revision).await;
                            LOOK_EVERY
                        }
                        Err(err) => {
                            tracing::debug!(error = %err, "node status not written, will be tried again");
                            backoff.next_wait()
                        }
                    }
                }
            }
        };
        // Waking to look at the machine costs no request; the API is asked only when something differs.
        base::select! {
            changed = health.changed() => if changed.is_err() { return },
            () = base::time::sleep(wait) => {}
        }
    }
}

/// The parts of `new` that `old` does not have. Addresses are a merge list: all are given, and those gone deleted.
fn changed(old: Ref<'_>, new: Ref<'_>) -> Doc {
    let mut out = Doc::object();
    for (name, value) in new.entries() {
        if old.get(name).same(value) {
            continue;
        }
        if name == "addresses" {
            let mut all = vec![doc!({ "$patch": "replace" })];
            all.extend(value.items().map(Ref::to_doc));
            out.edit().set(name, all);
        } else {
            out.edit().set(name, value);
        }
    }
    out
}

/// Renews the node's Lease, for ever.
pub async fn keep_lease(client: Client, node: Doc) {
    let meta = node.get(k::METADATA);
    let (name, uid) = (meta.get(k::NAME).str().to_owned(), meta.get(k::UID).str().to_owned());
    let leases = client.namespaced(client::gvr::LEASES, LEASE_NAMESPACE);
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
    let mut held: Option<Doc> = None;
    loop {
        let renew = gotime::format_micro(base::time::now());
        let done = match held.take() {
            Some(mut lease) => {
                lease.edit().at(k::SPEC).set(k::RENEW_TIME, renew);
                leases.update(lease).await
            }
            None => match leases.get(&name).await {
                Ok(found) => {
                    let mut lease = found.doc();
                    let mut spec = lease.edit().at(k::SPEC);
                    spec.set(k::HOLDER_IDENTITY, &name)
                        .set(k::LEASE_DURATION_SECONDS, LEASE_SECONDS)
                        .set(k::RENEW_TIME, renew);
                    leases.update(lease).await
                }
                Err(err) if err.is_not_found() => {
                    let owner = doc!({ "apiVersion": "v1", "kind": "Node", "name": &name, "uid": &uid });
                    let mut lease = doc!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                        "metadata": { "name": &name, "namespace": LEASE_NAMESPACE },
                        "spec": { "holderIdentity": &name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": renew } });
                    lease.edit().at(k::METADATA).list(k::OWNER_REFERENCES).push(owner);
                    leases.create(lease).await
                }
                Err(err) => Err(err),
            },
        };
        let wait = match done {
            Ok(stored) => {
                held = Some(stored.doc());
                backoff.reset();
                LEASE_EVERY
            }
            Err(err) => {
                tracing::debug!(node = %name, error = %err, "lease not renewed, will be tried again");
                backoff.next_wait()
            }
        };
        base::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(s: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + s).expect("a valid date")
    }

    #[test]
    fn foreign_parts_stay_and_transitions_are_kept() {
        let (config, info) =
            (Config::new("N1"), MachineInfo { cpu_milli: 2000, memory: 1 << 30, ..MachineInfo::default() });
        let unready = Health { network: Network::Down("no podCIDR".into()), ..Health::default() };
        let up = Health { network: Network::Ready, ..Health::default() };
        let first = new_node(&config, &info, &unready, now(0));
        assert_eq!(first.root().find("metadata.labels").get("kubernetes.io/hostname").str(), "n1");
        let mut old = first.get(k::STATUS).to_doc();
        old.edit().at(k::CAPACITY).set("example.com/gpu", "4");
        old.edit().list(k::CONDITIONS).push(doc!({ "type": "NetworkUnavailable", "status": "False" }));
        let new = status(&config, &info, &up, old.root(), now(9));
        assert_eq!(new.get(k::CAPACITY).get("example.com/gpu").str(), "4");
        assert_eq!(new.get(k::ALLOCATABLE).get("memory").str(), "1Gi");
        let of = |kind: &str| new.get(k::CONDITIONS).items().find(|c| c.get(k::TYPE).str() == kind).unwrap();
        assert!(of("NetworkUnavailable").exists());
        assert_eq!(of("Ready").get(k::LAST_TRANSITION_TIME).str(), "2026-01-01T00:00:09Z");
        assert_eq!(of("Ready").get(k::MESSAGE).str(), "kubelet is posting ready status");
        assert_eq!(of("MemoryPressure").get(k::LAST_TRANSITION_TIME).str(), "2026-01-01T00:00:00Z");
        let later = status(&config, &info, &Health::default(), new.root(), now(20));
        assert!(!differs(new.root(), later.root()), "a heartbeat alone is no change");
        assert!(differs(old.root(), new.root()));
        let grown = status(
            &config,
            &MachineInfo { memory: 2 << 30, ..info },
            &Health::default(),
            new.root(),
            now(20),
        );
        assert!(differs(new.root(), grown.root()));
    }
}
