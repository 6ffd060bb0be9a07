//! What an object uses of a resource quota, and which quotas count it: pure functions that admission and the
//! quota controller share, so that both always come to the same sum.
//!
//! It knows no cache and no request. Where we differ on purpose: none.
//! Upstream: k8s.io/apiserver/pkg/quota/v1, pkg/quota/v1/evaluator/core, k8s.io/component-helpers/resource.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::doc::Ref;
use crate::gvk::GroupResource;
use crate::k;
use crate::quantity::{Format, Quantity};
use crate::schema::views::core_v1::{Container, Pod, ResourceQuota, Service};

/// Amounts by resource name, in the order of the names.
pub type Usage = BTreeMap<String, Quantity>;

const ONE: i64 = 1;
/// What a pod must state for each container when a quota limits it. Upstream: `validationSet`.
const STATED: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
const POD_NAMES: [&str; 10] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
];
/// Core resources that are counted by their plain name too, not only as `count/<resource>`.
const PLAIN_NAMES: [&str; 6] = [
    "configmaps",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];
const STORAGE_CLASS_SUFFIX: &str = ".storageclass.storage.k8s.io/";

/// What `object`, of kind `resource`, uses at the moment `now`.
pub fn usage(resource: &GroupResource, object: Ref<'_>, now: Timestamp) -> Usage {
    let mut out = Usage::from([(count_name(resource), whole(ONE))]);
    match (resource.group.as_ref(), resource.resource.as_ref()) {
        ("", "pods") if !is_counted(Pod(object), now) => {}
        ("", "pods") => {
            add_all(&mut out, &compute_usage(&pod_requests(Pod(object)), &pod_limits(Pod(object))));
            out.insert("pods".to_owned(), whole(ONE));
        }
        ("", "services") => add_all(&mut out, &service_usage(Service(object))),
        ("", "persistentvolumeclaims") => add_all(&mut out, &claim_usage(object)),
        ("", name) if PLAIN_NAMES.contains(&name) => {
            out.insert(name.to_owned(), whole(ONE));
        }
        _ => {}
    }
    out
}

/// Whether `resource`'s objects can be counted by a limit of this name.
pub fn counts(resource: &GroupResource, name: &str) -> bool {
    if name == count_name(resource) {
        return true;
    }
    match (resource.group.as_ref(), resource.resource.as_ref()) {
        ("", "pods") => {
            POD_NAMES.contains(&name)
                || name.strip_prefix("requests.").unwrap_or(name).starts_with("hugepages-")
                || name
                    .strip_prefix("requests.")
                    .is_some_and(|n| is_extended(n) && !n.contains(STORAGE_CLASS_SUFFIX))
        }
        ("", "services") => matches!(name, "services" | "services.nodeports" | "services.loadbalancers"),
        ("", "persistentvolumeclaims") => {
            matches!(name, "persistentvolumeclaims" | "requests.storage")
                || name.contains(STORAGE_CLASS_SUFFIX)
        }
        ("", plain) => PLAIN_NAMES.contains(&plain) && name == plain,
        _ => false,
    }
}

/// Whether `quota` counts `object` at all: it limits something that the kind is counted by, and all its scopes fit.
pub fn matches(quota: ResourceQuota<'_>, resource: &GroupResource, object: Ref<'_>) -> bool {
    let limits = quota.spec().0.get(k::HARD).fields().any(|f| counts(resource, f.name()));
    limits && scopes(quota).all(|scope| in_scope(&scope, resource, object))
}

/// What a pod fails to state although a quota limits it, in upstream's words (`must specify limits.cpu for: web`);
/// `limited` are the names in the quotas' `hard` that count pods.
///
/// # Errors
/// The reason why the pod must be refused.
pub fn check_stated<'n>(pod: Pod<'_>, limited: impl Iterator<Item = &'n str>) -> Result<(), String> {
    let required: BTreeSet<&str> = limited.filter(|name| STATED.contains(name)).collect();
    let at_pod = resource_names(pod.spec().0.get(k::RESOURCES));
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in pod.spec().containers().iter().chain(pod.spec().init_containers().iter()) {
        let stated = resource_names(container.0.get(k::RESOURCES));
        for name in required.iter().filter(|name| !stated.contains(**name) && !at_pod.contains(**name)) {
            missing.entry(name).or_default().insert(container.name());
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let join = |names: &BTreeSet<&str>| names.iter().copied().collect::<Vec<_>>().join(",");
    let parts: Vec<String> = missing.iter().map(|(name, of)| format!("{name} for: {}", join(of))).collect();
    Err(format!("must specify {}", parts.join("; ")))
}

/// The names in `quota.spec.hard`.
pub fn hard_names<'a>(quota: ResourceQuota<'a>) -> impl Iterator<Item = &'a str> {
    quota.spec().0.get(k::HARD).fields().map(Ref::name)
}

/// A pod's requests: containers and sidecars together, or the largest init container beside the sidecars started before
/// it, whichever is more; pod-level amounts win; with overhead.
pub fn pod_requests(pod: Pod<'_>) -> Usage {
    pod_requests_or(pod, &Usage::new())
}

/// The same, where a container that requests nothing of a resource in `missing` counts as if it asked for that much:
/// how a scheduler weighs pods without requests.
pub fn pod_requests_or(pod: Pod<'_>, missing: &Usage) -> Usage {
    let mut out = pod_total(pod, k::REQUESTS, missing);
    add_all(&mut out, &amounts(pod.spec().0.get(k::OVERHEAD)));
    out
}

/// A pod's limits, reckoned as [`pod_requests`]; overhead only raises limits that exist.
pub fn pod_limits(pod: Pod<'_>) -> Usage {
    let mut out = pod_total(pod, k::LIMITS, &Usage::new());
    for (name, more) in amounts(pod.spec().0.get(k::OVERHEAD)) {
        if let Some(limit) = out.get_mut(&name) {
            *limit = limit.add(more);
        }
    }
    out
}

/// Adds every amount of `more` to `sum`.
pub fn add_all(sum: &mut Usage, more: &Usage) {
    for (name, amount) in more {
        let entry = sum.entry(name.clone()).or_insert(Quantity::ZERO);
        *entry = entry.add(*amount);
    }
}

/// The amounts that are in `new` beyond those in `old`: what an update asks of a quota. Names only in `old` come out
/// negative.
pub fn difference(new: &Usage, old: &Usage) -> Usage {
    let mut out = new.clone();
    for (name, amount) in old {
        let entry = out.entry(name.clone()).or_insert(Quantity::ZERO);
        *entry = entry.sub(*amount);
    }
    out
}

/// A map of quantities in a document, such as `spec.hard`; what is no quantity is left out.
pub fn amounts(map: Ref<'_>) -> Usage {
    map.entries()
        .filter_map(|(name, value)| {
            let text = value.opt_str().or_else(|| value.number())?;
            Some((name.to_owned(), Quantity::parse(text).ok()?))
        })
        .collect()
}

/// `count/pods`, `count/deployments.apps`.
pub fn count_name(resource: &GroupResource) -> String {
    format!("count/{resource}")
}

fn whole(value: i64) -> Quantity {
    Quantity::from_value(value, Format::DecimalSi)
}

/// Pods that have ended, or should have ended by now, use nothing but their place in storage.
fn is_counted(pod: Pod<'_>, now: Timestamp) -> bool {
    if matches!(pod.status().phase(), "Failed" | "Succeeded") {
        return false;
    }
    let meta = pod.0.get(k::METADATA);
    let deadline = meta.get(k::DELETION_TIMESTAMP).opt_str().and_then(|t| t.parse::<Timestamp>().ok());
    match (deadline, meta.get(k::DELETION_GRACE_PERIOD_SECONDS).opt_i64()) {
        (Some(at), Some(grace)) => {
            at.checked_add(SignedDuration::from_secs(grace)).is_ok_and(|gone_by| now <= gone_by)
        }
        _ => true,
    }
}

/// What a running container has been given, by its pod's status: while that is more than it wants, it still has it.
fn given(pod: Pod<'_>, container: Container<'_>) -> Usage {
    let status = pod.0.get(k::STATUS);
    let mut all = [k::CONTAINER_STATUSES, k::INIT_CONTAINER_STATUSES]
        .into_iter()
        .flat_map(|list| status.get(list).items());
    let Some(found) = all.find(|c| c.get(k::NAME).str() == container.name()) else { return Usage::new() };
    let mut out = amounts(found.get(k::RESOURCES).get(k::REQUESTS));
    for (name, amount) in amounts(found.get(k::ALLOCATED_RESOURCES)) {
        let entry = out.entry(name).or_insert(amount);
        *entry = (*entry).max(amount);
    }
    out
}

/// Whether the pod's node has said that it never will have what the pod wants.
fn is_infeasible(pod: Pod<'_>) -> bool {
    pod.0
        .get(k::STATUS)
        .get(k::CONDITIONS)
        .items()
        .any(|c| c.get(k::TYPE).str() == "PodResizePending" && c.get(k::REASON).str() == "Infeasible")
}

/// What a pod asks for of `which`, requests or limits, as [`pod_requests_or`] reckons it, without overhead. Of requests
/// that are being changed it is what was given or what is wanted, whichever is more.
pub fn pod_total(pod: Pod<'_>, which: crate::doc::Key, missing: &Usage) -> Usage {
    let infeasible = is_infeasible(pod);
    let of = |c: Container<'_>| {
        let mut own = missing.clone();
        own.extend(amounts(c.0.get(k::RESOURCES).get(which)));
        if which == k::REQUESTS {
            for (name, amount) in given(pod, c) {
                let entry = own.entry(name).or_insert(amount);
                *entry = if infeasible { amount } else { (*entry).max(amount) };
            }
        }
        own
    };
    let mut total = Usage::new();
    for container in pod.spec().containers().iter() {
        add_all(&mut total, &of(container));
    }
    let (mut sidecars, mut starting) = (Usage::new(), Usage::new());
    for container in pod.spec().init_containers().iter() {
        let mut own = of(container);
        if container.0.get(k::RESTART_POLICY).str() == "Always" {
            add_all(&mut total, &own);
            add_all(&mut sidecars, &own);
            own = sidecars.clone();
        } else {
            add_all(&mut own, &sidecars);
        }
        raise(&mut starting, own);
    }
    raise(&mut total, starting);
    for (name, amount) in amounts(pod.spec().0.get(k::RESOURCES).get(which)) {
        total.insert(name, amount);
    }
    total
}

fn raise(to: &mut Usage, least: Usage) {
    for (name, amount) in least {
        let entry = to.entry(name).or_insert(amount);
        if *entry < amount {
            *entry = amount;
        }
    }
}

/// The names under which requests and limits are counted.
fn compute_usage(requests: &Usage, limits: &Usage) -> Usage {
    let mut out = Usage::new();
    for (name, amount) in requests {
        let standard = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
        if standard || name.starts_with("hugepages-") {
            out.insert(name.clone(), *amount);
        }
        if standard || name.starts_with("hugepages-") || is_extended(name) {
            out.insert(format!("requests.{name}"), *amount);
        }
    }
    for (name, amount) in
        limits.iter().filter(|(n, _)| matches!(n.as_str(), "cpu" | "memory" | "ephemeral-storage"))
    {
        out.insert(format!("limits.{name}"), *amount);
    }
    out
}

fn resource_names(resources: Ref<'_>) -> BTreeSet<String> {
    compute_usage(&amounts(resources.get(k::REQUESTS)), &amounts(resources.get(k::LIMITS)))
        .into_keys()
        .collect()
}

/// Resources of vendors: a domain that is not Kubernetes' own, and no `requests.` of its own.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

fn service_usage(service: Service<'_>) -> Usage {
    let ports = service.spec().ports();
    let some = |n: usize| whole(i64::try_from(n).unwrap_or(i64::MAX));
    let (node_ports, balancers) = match service.spec().type_() {
        "NodePort" => (some(ports.len()), whole(0)),
        "LoadBalancer"
            if service.spec().0.get(k::ALLOCATE_LOAD_BALANCER_NODE_PORTS).opt_bool() == Some(false) =>
        {
            (some(ports.iter().filter(|p| p.0.get(k::NODE_PORT).i64() != 0).count()), whole(ONE))
        }
        "LoadBalancer" => (some(ports.len()), whole(ONE)),
        _ => (whole(0), whole(0)),
    };
    Usage::from([
        ("services".to_owned(), whole(ONE)),
        ("services.nodeports".to_owned(), node_ports),
        ("services.loadbalancers".to_owned(), balancers),
    ])
}

fn claim_usage(claim: Ref<'_>) -> Usage {
    let spec = claim.get(k::SPEC);
    let mut out = Usage::from([("persistentvolumeclaims".to_owned(), whole(ONE))]);
    let class = match spec.get(k::STORAGE_CLASS_NAME).str() {
        "" => claim.get(k::METADATA).get(k::ANNOTATIONS).get("volume.beta.kubernetes.io/storage-class").str(),
        class => class,
    };
    let storage = amounts(spec.get(k::RESOURCES).get(k::REQUESTS)).remove("storage");
    if !class.is_empty() {
        out.insert(format!("{class}{STORAGE_CLASS_SUFFIX}persistentvolumeclaims"), whole(ONE));
    }
    if let Some(storage) = storage {
        out.insert("requests.storage".to_owned(), storage);
        if !class.is_empty() {
            out.insert(format!("{class}{STORAGE_CLASS_SUFFIX}requests.storage"), storage);
        }
    }
    out
}

struct Scope<'a> {
    name: &'a str,
    operator: &'a str,
    values: Vec<&'a str>,
}

fn scopes<'a>(quota: ResourceQuota<'a>) -> impl Iterator<Item = Scope<'a>> {
    let plain = quota.spec().0.get(k::SCOPES).items();
    let plain = plain.map(|s| Scope { name: s.str(), operator: "Exists", values: Vec::new() });
    let chosen = quota.spec().0.get(k::SCOPE_SELECTOR).get(k::MATCH_EXPRESSIONS).items();
    plain.chain(chosen.map(|e| Scope {
        name: e.get(k::SCOPE_NAME).str(),
        operator: e.get(k::OPERATOR).str(),
        values: e.get(k::VALUES).items().map(Ref::str).collect(),
    }))
}

fn in_scope(scope: &Scope<'_>, resource: &GroupResource, object: Ref<'_>) -> bool {
    let spec = object.get(k::SPEC);
    match (resource.group.as_ref(), resource.resource.as_ref()) {
        ("", "pods") => match scope.name {
            "Terminating" => is_terminating(spec),
            "NotTerminating" => !is_terminating(spec),
            "BestEffort" => is_best_effort(Pod(object)),
            "NotBestEffort" => !is_best_effort(Pod(object)),
            "PriorityClass" => selects(scope, spec.get(k::PRIORITY_CLASS_NAME).str()),
            "CrossNamespacePodAffinity" => crosses_namespaces(spec.get(k::AFFINITY)),
            _ => false,
        },
        ("", "persistentvolumeclaims") if scope.name == "VolumeAttributesClass" => {
            selects(scope, spec.get(k::VOLUME_ATTRIBUTES_CLASS_NAME).str())
        }
        _ => false,
    }
}

fn selects(scope: &Scope<'_>, value: &str) -> bool {
    match scope.operator {
        "Exists" => !value.is_empty(),
        "DoesNotExist" => value.is_empty(),
        "In" => scope.values.contains(&value),
        "NotIn" => !scope.values.contains(&value),
        _ => false,
    }
}

fn is_terminating(spec: Ref<'_>) -> bool {
    spec.get(k::ACTIVE_DEADLINE_SECONDS).opt_i64().is_some_and(|s| s >= 0)
}

fn is_best_effort(pod: Pod<'_>) -> bool {
    let none = |resources: Ref<'_>| {
        let all = [k::REQUESTS, k::LIMITS].map(|which| amounts(resources.get(which)));
        !all.iter().flatten().any(|(name, q)| matches!(name.as_str(), "cpu" | "memory") && !q.is_zero())
    };
    none(pod.spec().0.get(k::RESOURCES))
        && pod
            .spec()
            .containers()
            .iter()
            .chain(pod.spec().init_containers().iter())
            .all(|c| none(c.0.get(k::RESOURCES)))
}

fn crosses_namespaces(affinity: Ref<'_>) -> bool {
    let crosses =
        |term: Ref<'_>| !term.get(k::NAMESPACES).is_empty() || term.get(k::NAMESPACE_SELECTOR).is_set();
    [affinity.get(k::POD_AFFINITY), affinity.get(k::POD_ANTI_AFFINITY)].into_iter().any(|a| {
        a.get(k::REQUIRED_DURING_SCHEDULING_IGNORED_DURING_EXECUTION).items().any(crosses)
            || a.get(k::PREFERRED_DURING_SCHEDULING_IGNORED_DURING_EXECUTION)
                .items()
                .any(|w| crosses(w.get(k::POD_AFFINITY_TERM)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::__serde_json::{Value, json};
    use crate::{Doc, doc};

    const PODS: GroupResource = GroupResource::new("", "pods");

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().expect("a time")
    }

    fn show(usage: &Usage) -> String {
        usage.iter().map(|(n, q)| format!("{n}={q}")).collect::<Vec<_>>().join(" ")
    }

    fn pod(init: Vec<Value>, containers: Vec<Value>) -> Doc {
        doc!({ "spec": { "initContainers": init, "containers": containers } })
    }

    fn container(cpu: &str, memory_limit: &str) -> Value {
        json!({ "name": "c", "resources": { "requests": { "cpu": cpu }, "limits": { "memory": memory_limit } } })
    }

    fn sidecar(cpu: &str) -> Value {
        let mut c = container(cpu, "1Mi");
        c["restartPolicy"] = json!("Always");
        c
    }

    #[test]
    fn pods_use_the_larger_of_running_and_starting() {
        let cases = [
            (
                pod(vec![], vec![container("100m", "64Mi"), container("100m", "64Mi")]),
                "count/pods=1 cpu=200m limits.memory=128Mi pods=1 requests.cpu=200m",
            ),
            (
                pod(vec![container("1", "1Gi")], vec![container("100m", "64Mi")]),
                "count/pods=1 cpu=1 limits.memory=1Gi pods=1 requests.cpu=1",
            ),
            (
                pod(vec![sidecar("300m"), container("1", "3Mi")], vec![container("100m", "1Mi")]),
                "count/pods=1 cpu=1300m limits.memory=4Mi pods=1 requests.cpu=1300m",
            ),
        ];
        for (pod, want) in cases {
            assert_eq!(show(&usage(&PODS, pod.root(), now())), want);
        }
    }

    #[test]
    fn pods_that_ended_or_are_overdue_use_only_their_place() {
        let mut done = pod(vec![], vec![container("1", "1Gi")]);
        done.edit().at("status").set("phase", "Succeeded");
        assert_eq!(show(&usage(&PODS, done.root(), now())), "count/pods=1");
        let mut ending = pod(vec![], vec![container("1", "1Gi")]);
        for (at, counted) in [("2025-12-31T23:59:50Z", true), ("2025-12-31T23:59:20Z", false)] {
            ending
                .edit()
                .at("metadata")
                .set("deletionTimestamp", at)
                .set("deletionGracePeriodSeconds", 30i64);
            assert_eq!(usage(&PODS, ending.root(), now()).contains_key("pods"), counted, "{at}");
        }
    }

    #[test]
    fn services_count_ports_by_type() {
        let services = GroupResource::new("", "services");
        let ports = vec![doc!({ "port": 1 }), doc!({ "port": 2, "nodePort": 30000 })];
        for (spec, want) in [
            (json!({ "type": "ClusterIP" }), (0, 0)),
            (json!({ "type": "NodePort" }), (2, 0)),
            (json!({ "type": "LoadBalancer" }), (2, 1)),
            (json!({ "type": "LoadBalancer", "allocateLoadBalancerNodePorts": false }), (1, 1)),
        ] {
            let mut service = doc!({ "spec": spec });
            service.edit().at("spec").set("ports", ports.clone());
            let used = usage(&services, service.root(), now());
            assert_eq!((used["services.nodeports"].value(), used["services.loadbalancers"].value()), want);
        }
    }

    #[test]
    fn what_is_limited_must_be_stated() {
        let bare = doc!({ "spec": { "containers": [{ "name": "k8s-demo" }] } });
        let names = ["requests.cpu", "requests.memory", "limits.cpu", "limits.memory", "pods"];
        assert_eq!(
            check_stated(Pod(bare.root()), names.into_iter()).unwrap_err(),
            "must specify limits.cpu for: k8s-demo; limits.memory for: k8s-demo; requests.cpu for: k8s-demo; requests.memory for: k8s-demo"
        );
        assert!(check_stated(Pod(bare.root()), ["pods"].into_iter()).is_ok());
    }

    #[test]
    fn quotas_match_by_limit_and_scope() {
        let mut pod = pod(vec![], vec![json!({ "name": "c" })]);
        pod.edit().at("spec").set("priorityClassName", "high");
        for (spec, want) in [
            (json!({ "hard": { "pods": "1" } }), true),
            (json!({ "hard": { "services": "1" } }), false),
            (json!({ "hard": { "requests.example.com/gpu": "1" } }), true),
            (json!({ "hard": { "count/pods": "1" }, "scopes": ["BestEffort", "NotTerminating"] }), true),
            (json!({ "hard": { "pods": "1" }, "scopes": ["NotBestEffort"] }), false),
            (
                json!({ "hard": { "pods": "1" }, "scopeSelector": { "matchExpressions": [{ "scopeName": "PriorityClass", "operator": "In", "values": ["high"] }] } }),
                true,
            ),
            (
                json!({ "hard": { "pods": "1" }, "scopeSelector": { "matchExpressions": [{ "scopeName": "PriorityClass", "operator": "DoesNotExist" }] } }),
                false,
            ),
        ] {
            let quota = doc!({ "spec": spec });
            assert_eq!(matches(ResourceQuota(quota.root()), &PODS, pod.root()), want, "{quota:?}");
        }
    }
}
