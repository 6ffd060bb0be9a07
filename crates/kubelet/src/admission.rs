//! Whether this node takes a pod: what the scheduler promised is checked again, and pods bound past it too. Pure.
//!
//! Upstream: pkg/kubelet/lifecycle/predicate.go.

use std::collections::BTreeMap;

use apimachinery::quantity::Quantity;
use apimachinery::quota_usage;
use apimachinery::schema::views::{NodeSelectorRequirement, NodeSelectorTerm, Pod};
use apimachinery::{Doc, Ref, doc, k};

use crate::containers;
use crate::refused;
use crate::worker::{EVICTED, End, Resize, Role, container_specs};

/// The least priority of those critical to a cluster. Source: pkg/apis/scheduling.
const CRITICAL_PRIORITY: i64 = 2_000_000_000;

/// Resources by name.
pub type Resources = BTreeMap<String, Quantity>;

/// Checks `pod` against the node and the other pods that hold its resources.
///
/// # Errors
/// Why the pod is refused: reason and message of its Failed status.
pub fn admit(pod: Ref<'_>, node: Ref<'_>, allocatable: &Resources, others: &[Ref<'_>]) -> Result<(), End> {
    let refuse = |reason: &str, message: String| {
        Err(End { reason: reason.into(), message: format!("Pod was rejected: {message}") })
    };
    let unbuilt = refused::fields(pod);
    if !unbuilt.is_empty() {
        let (reason, message) = refused::words(&unbuilt);
        return refuse(reason, message);
    }
    let spec = Pod(pod).spec();
    if !matches_node(pod, node) {
        return refuse(
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector".into(),
        );
    }
    if let Err(why) = safe_sysctls(pod) {
        // Upstream's own checks come without the words of the others.
        return Err(End { reason: "SysctlForbidden".into(), message: why });
    }
    if let Some(condition) = pressed(pod, node) {
        let message = format!("The node had condition: [{condition}]. ");
        return Err(End { reason: EVICTED.into(), message });
    }
    let wanted = host_ports(pod);
    let taken: Vec<(String, String, i64)> = others.iter().flat_map(|p| host_ports(*p)).collect();
    if wanted.iter().any(|w| taken.iter().any(|t| ports_clash(w, t))) {
        return refuse(
            "NodePorts",
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports".into(),
        );
    }
    let no_execute =
        node.get(k::SPEC).get(k::TAINTS).items().filter(|t| t.get(k::EFFECT).str() == "NoExecute");
    for taint in no_execute {
        if !spec.tolerations().iter().any(|t| tolerates(t.0, taint)) {
            let message = "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate";
            return refuse("TaintToleration", message.into());
        }
    }
    let limit = allocatable.get("pods").map_or(i64::MAX, |q| q.value());
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    if count + 1 > limit {
        return refuse(
            "OutOfpods",
            format!("Node didn't have enough resource: pods, requested: 1, used: {count}, capacity: {limit}"),
        );
    }
    if let Some((name, message)) = lacks(&pod_requests(pod), allocatable, others) {
        return refuse(&format!("OutOf{name}"), message);
    }
    Ok(())
}

/// The condition of a node that is short of something for which it takes no such pod.
fn pressed(pod: Ref<'_>, node: Ref<'_>) -> Option<&'static str> {
    let has = |kind: &str| {
        let mut all = node.get(k::STATUS).get(k::CONDITIONS).items();
        all.any(|c| c.get(k::TYPE).str() == kind && c.get(k::STATUS).str() == "True")
    };
    if is_critical(pod) {
        return None;
    }
    if let Some(other) = ["DiskPressure", "PIDPressure"].into_iter().find(|kind| has(kind)) {
        return Some(other);
    }
    let taint = doc!({ "key": "node.kubernetes.io/memory-pressure", "effect": "NoSchedule" });
    let tolerated = Pod(pod).spec().tolerations().iter().any(|t| tolerates(t.0, taint.root()));
    (has("MemoryPressure") && containers::qos(pod) == "BestEffort" && !tolerated).then_some("MemoryPressure")
}

/// Whether a pod is one that the node keeps whatever it is short of.
pub fn is_critical(pod: Ref<'_>) -> bool {
    pod.get(k::SPEC).get(k::PRIORITY).i64() >= CRITICAL_PRIORITY
}

/// What a pod asks for by its spec, whatever its status says it has.
pub fn pod_requests(pod: Ref<'_>) -> Resources {
    let mut spec = Doc::object();
    spec.edit().set(k::SPEC, pod.get(k::SPEC));
    quota_usage::pod_requests(Pod(spec.root()))
}

/// What a pod may use of those resources that all of its containers, or it as a whole, limit.
pub fn pod_limits(pod: Ref<'_>) -> Resources {
    let limits = |of: Ref<'_>| quota_usage::amounts(of.get(k::RESOURCES).get(k::LIMITS));
    let whole = limits(pod.get(k::SPEC));
    let lasting: Vec<Resources> =
        container_specs(pod).filter(|(role, _)| *role != Role::Ephemeral).map(|(_, c)| limits(c)).collect();
    let mut out = quota_usage::pod_limits(Pod(pod));
    out.retain(|name, q| {
        !q.is_zero() && (whole.contains_key(name) || lasting.iter().all(|c| c.contains_key(name)))
    });
    out
}

/// Whether the node has room for what a running pod wants to have.
pub fn room(pod: Ref<'_>, allocatable: &Resources, others: &[Ref<'_>]) -> Option<Resize> {
    let wants = pod_requests(pod);
    let n = |name: &str, q: Quantity| if name == "cpu" { q.milli_value() } else { q.value() };
    for (name, want) in &wants {
        let have = allocatable.get(name).copied().unwrap_or(Quantity::ZERO);
        if *want > have {
            let (want, have) = (n(name, *want), n(name, have));
            return Some(Resize::Infeasible(format!(
                "Node didn't have enough capacity: {name}, requested: {want}, capacity: {have}"
            )));
        }
    }
    lacks(&wants, allocatable, others).map(|(_, message)| Resize::Deferred(message))
}

/// The first resource that others leave too little of, with words.
fn lacks(wants: &Resources, allocatable: &Resources, others: &[Ref<'_>]) -> Option<(String, String)> {
    let mut used = Resources::new();
    others.iter().for_each(|p| quota_usage::add_all(&mut used, &pod_requests(*p)));
    wants.iter().find_map(|(name, want)| {
        let used = used.get(name).copied().unwrap_or(Quantity::ZERO);
        let have = allocatable.get(name).copied().unwrap_or(Quantity::ZERO);
        if want.is_zero() || used.add(*want) <= have {
            return None;
        }
        let n = |q: Quantity| if name == "cpu" { q.milli_value() } else { q.value() };
        let (want, used, have) = (n(*want), n(used), n(have));
        let message = format!(
            "Node didn't have enough resource: {name}, requested: {want}, used: {used}, capacity: {have}"
        );
        Some((name.clone(), message))
    })
}

/// Sysctls that harm nobody but the pod. Source: pkg/kubelet/sysctl/safe_sysctls.go.
const SAFE_SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

fn safe_sysctls(pod: Ref<'_>) -> Result<(), String> {
    let spec = Pod(pod).spec();
    for sysctl in spec.security_context().sysctls().iter() {
        let name = sysctl.name().replace('/', ".");
        if !SAFE_SYSCTLS.contains(&name.as_str()) {
            return Err(format!("forbidden sysctl: {name:?} not allowlisted"));
        }
        if name.starts_with("net.") && spec.host_network() {
            return Err(format!("forbidden sysctl: {name:?} not allowed with host net enabled"));
        }
        if name.starts_with("kernel.") && spec.host_ipc() {
            return Err(format!("forbidden sysctl: {name:?} not allowed with host ipc enabled"));
        }
    }
    Ok(())
}

fn host_ports(pod: Ref<'_>) -> Vec<(String, String, i64)> {
    let lasting = container_specs(pod).filter(|(role, _)| matches!(role, Role::Main | Role::Sidecar));
    lasting
        .flat_map(|(_, c)| c.get(k::PORTS).items())
        .filter(|p| p.get(k::HOST_PORT).i64() > 0)
        .map(|p| {
            let protocol = p.get(k::PROTOCOL).opt_str().unwrap_or("TCP");
            (p.get(k::HOST_IP).str().to_owned(), protocol.to_owned(), p.get(k::HOST_PORT).i64())
        })
        .collect()
}

fn ports_clash(a: &(String, String, i64), b: &(String, String, i64)) -> bool {
    let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
    a.1 == b.1 && a.2 == b.2 && (any(&a.0) || any(&b.0) || a.0 == b.0)
}

fn tolerates(toleration: Ref<'_>, taint: Ref<'_>) -> bool {
    let (key, effect) = (toleration.get(k::KEY).str(), toleration.get(k::EFFECT).str());
    let exists = toleration.get(k::OPERATOR).str() == "Exists";
    (effect.is_empty() || effect == taint.get(k::EFFECT).str())
        && (key == taint.get(k::KEY).str() || (key.is_empty() && exists))
        && (exists || toleration.get(k::VALUE).str() == taint.get(k::VALUE).str())
}

fn matches_node(pod: Ref<'_>, node: Ref<'_>) -> bool {
    let labels = node.get(k::METADATA).get(k::LABELS);
    let spec = Pod(pod).spec();
    if !spec.node_selector().iter().all(|(key, value)| labels.get(key).opt_str() == Some(value)) {
        return false;
    }
    let required = pod.find("spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution");
    !required.is_set()
        || required.get(k::NODE_SELECTOR_TERMS).items().any(|t| term_matches(NodeSelectorTerm(t), node))
}

fn term_matches(term: NodeSelectorTerm<'_>, node: Ref<'_>) -> bool {
    let meta = node.get(k::METADATA);
    let label = |r: NodeSelectorRequirement<'_>| requirement(r, meta.get(k::LABELS).get(r.key()).opt_str());
    let field = |r: NodeSelectorRequirement<'_>| {
        r.key() == "metadata.name" && requirement(r, Some(meta.get(k::NAME).str()))
    };
    let (labels, fields) = (term.match_expressions(), term.match_fields());
    // A term that asks for nothing matches nothing.
    !(labels.is_empty() && fields.is_empty()) && labels.iter().all(label) && fields.iter().all(field)
}

fn requirement(r: NodeSelectorRequirement<'_>, value: Option<&str>) -> bool {
    let compared =
        || -> Option<(i64, i64)> { Some((value?.parse().ok()?, r.values().first()?.parse().ok()?)) };
    match r.operator() {
        "In" => value.is_some_and(|v| r.values().contains(v)),
        "NotIn" => !value.is_some_and(|v| r.values().contains(v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared().is_some_and(|(a, b)| a > b),
        "Lt" => compared().is_some_and(|(a, b)| a < b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(cpu: &str) -> Doc {
        doc!({ "spec": { "containers": [{ "name": "a", "resources": { "requests": { "cpu": cpu } } }] } })
    }

    fn reason(pod: &Doc, others: &[&Doc]) -> String {
        let node = doc!({ "metadata": { "name": "n", "labels": { "disk": "ssd", "zone": "a" } },
            "spec": { "taints": [{ "key": "k", "effect": "NoExecute" }] } });
        let allocatable: Resources =
            [("cpu", "1"), ("pods", "3")].map(|(n, q)| (n.to_owned(), Quantity::parse(q).unwrap())).into();
        let mut pod = pod.clone();
        pod.edit().at(k::SPEC).list(k::TOLERATIONS).push(doc!({ "key": "k", "operator": "Exists" }));
        let others: Vec<Ref<'_>> = others.iter().map(|d| d.root()).collect();
        admit(pod.root(), node.root(), &allocatable, &others).map_or_else(|e| e.reason, |()| String::new())
    }

    #[test]
    fn resources_and_number() {
        assert_eq!(reason(&pod("500m"), &[&pod("500m")]), "");
        assert_eq!(reason(&pod("501m"), &[&pod("500m")]), "OutOfcpu");
        assert_eq!(reason(&pod("0"), &[&pod("0"), &pod("0"), &pod("0")]), "OutOfpods");
    }

    #[test]
    fn what_a_pod_wants_and_may_use() {
        let text = |r: Resources| r.iter().map(|(n, q)| format!("{n}={q}")).collect::<Vec<_>>().join(" ");
        let pod = doc!({ "spec": { "overhead": { "cpu": "10m" },
            "initContainers": [{ "resources": { "requests": { "memory": "1Gi" }, "limits": { "cpu": "1" } } }],
            "containers": [{ "resources": { "requests": { "cpu": "1" }, "limits": { "cpu": "2", "memory": "1Mi" } } },
                { "resources": { "limits": { "cpu": "1" } } }] } });
        assert_eq!(text(pod_requests(pod.root())), "cpu=1010m memory=1Gi");
        assert_eq!(text(pod_limits(pod.root())), "cpu=3010m", "not all limit memory");
        let mut whole = pod.clone();
        let own = doc!({ "requests": { "cpu": "2" }, "limits": { "memory": "8Mi" } });
        whole.edit().at(k::SPEC).set(k::RESOURCES, own);
        assert_eq!(text(pod_requests(whole.root())), "cpu=2010m memory=1Gi");
        assert_eq!(text(pod_limits(whole.root())), "cpu=3010m memory=8Mi");
        let node: Resources = [
            ("cpu".to_owned(), Quantity::parse("2").unwrap()),
            ("memory".to_owned(), Quantity::parse("4Gi").unwrap()),
        ]
        .into();
        let asks = |cpu: &str, others: &[Ref<'_>]| {
            let mut pod = pod.clone();
            let c = pod.edit().at(k::SPEC).at(k::CONTAINERS).item(0).expect("one");
            c.at(k::RESOURCES).at(k::REQUESTS).set("cpu", cpu);
            room(pod.root(), &node, others)
        };
        assert_eq!(asks("1", &[]), None);
        let words = "Node didn't have enough resource: cpu, requested: 1010, used: 1010, capacity: 2000";
        assert_eq!(asks("1", &[pod.root()]), Some(Resize::Deferred(words.into())));
        let words = "Node didn't have enough capacity: cpu, requested: 3010, capacity: 2000";
        assert_eq!(asks("3", &[]), Some(Resize::Infeasible(words.into())));
    }

    #[test]
    fn a_node_that_is_short_takes_less() {
        let node = |kind: &str| doc!({ "status": { "conditions": [{ "type": kind, "status": "True" }] } });
        let critical = doc!({ "spec": { "priority": 2_000_001_000i64, "containers": [{}] } });
        for (kind, pod, want) in [
            ("MemoryPressure", pod("1"), None),
            ("MemoryPressure", doc!({ "spec": { "containers": [{}] } }), Some("MemoryPressure")),
            ("DiskPressure", pod("1"), Some("DiskPressure")),
            ("DiskPressure", critical, None),
            ("Ready", doc!({ "spec": { "containers": [{}] } }), None),
        ] {
            assert_eq!(pressed(pod.root(), node(kind).root()), want, "{kind}");
        }
    }

    #[test]
    fn selectors_and_ports() {
        let with = |spec: Doc| {
            let mut pod = Doc::object();
            pod.edit().set(k::SPEC, spec);
            pod
        };
        for (spec, want) in [
            (doc!({ "nodeSelector": { "disk": "ssd" } }), ""),
            (doc!({ "nodeSelector": { "disk": "hdd" } }), "NodeAffinity"),
            (affinity("In", "a"), ""),
            (affinity("NotIn", "a"), "NodeAffinity"),
            (affinity("Exists", "x"), ""),
            (
                doc!({ "securityContext": { "sysctls": [{ "name": "net/ipv4/tcp_syncookies", "value": "1" }] } }),
                "",
            ),
            (
                doc!({ "securityContext": { "sysctls": [{ "name": "kernel.msgmax", "value": "1" }] } }),
                "SysctlForbidden",
            ),
            (
                doc!({ "hostIPC": true, "securityContext": { "sysctls": [{ "name": "kernel.shm_rmid_forced", "value": "1" }] } }),
                "SysctlForbidden",
            ),
            (doc!({ "hostNetwork": true, "containers": [{ "ports": [{ "hostPort": 80 }] }] }), "NodePorts"),
            (doc!({ "hostNetwork": true, "containers": [{ "ports": [{ "hostPort": 81 }] }] }), ""),
            (
                doc!({ "hostNetwork": true, "containers": [{ "ports": [{ "hostPort": 80, "protocol": "UDP" }] }] }),
                "",
            ),
        ] {
            let other = doc!({ "spec": { "containers": [{ "ports": [{ "hostPort": 80, "hostIP": "127.0.0.1" }] }] } });
            assert_eq!(reason(&with(spec.clone()), &[&other]), want, "{:?}", spec.root());
        }
    }

    fn affinity(operator: &str, value: &str) -> Doc {
        doc!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
            { "matchExpressions": [{ "key": "zone", "operator": operator, "values": [value] }] }] } } } })
    }
}
