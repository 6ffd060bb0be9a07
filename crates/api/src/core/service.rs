//! Service: one name and address for pods that change. Addresses and node ports come from the cluster's pools,
//! which the server keeps; here is said what a Service needs of them.
//! Upstream: pkg/registry/core/service/strategy.go, pkg/apis/core/v1/defaults.go.

use std::borrow::Cow;

use apimachinery::call::Verb;
use apimachinery::field::ErrorList;
use apimachinery::{Doc, Edit, Key, Ref, doc, k};

use crate::core::pod_defaults::each;
use crate::core::service_ports;
use crate::kind::*;
use crate::print::{AGE, NAME, or_none};
use crate::rules::same_or_empty;

/// How long `sessionAffinity: ClientIP` binds a client: three hours.
pub const DEFAULT_AFFINITY_SECONDS: i64 = 10_800;

/// Services.
pub(crate) fn kind() -> Kind {
    const PROXY: &[Verb] = &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update];
    Kind {
        short: names(&["svc"]),
        categories: names(&["all"]),
        key_prefix: "/registry/services/specs".into(),
        name_rule: NameRule::Label1035,
        subresources: vec![Sub::new("proxy", SubKind::Proxy, "ServiceProxyOptions", PROXY), Sub::STATUS],
        columns: Cow::Borrowed(COLUMNS),
        fields: Cow::Owned(vec![SelectableField::path("spec.clusterIP"), SelectableField::path("spec.type")]),
        strategy: &Service,
        ..Kind::new("", "v1", "services", "Service").defaults(defaults)
    }
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::path("Type", "string", "How it is reached.", "spec.type"),
    Column::code("Cluster-IP", "string", "Its address inside the cluster.", |svc, _| {
        or_none(svc.get(k::SPEC).get(k::CLUSTER_IP).str())
    }),
    Column::code("External-IP", "string", "Its addresses outside.", |svc, _| Cell::from(external(svc))),
    Column::code("Port(s)", "string", "Its ports.", |svc, _| ports(svc)),
    AGE,
    Column::code("Selector", "string", "The labels of its pods.", |svc, _| {
        crate::print::label_map(svc.get(k::SPEC).get(k::SELECTOR))
    })
    .wide(),
];

fn external(svc: Ref<'_>) -> String {
    let spec = svc.get(k::SPEC);
    let own: Vec<&str> = spec.get(k::EXTERNAL_IPS).items().map(Ref::str).collect();
    match spec.get(k::TYPE).str() {
        "ExternalName" => spec.get(k::EXTERNAL_NAME).str().to_owned(),
        "LoadBalancer" => {
            let ingress = svc.get(k::STATUS).get(k::LOAD_BALANCER).get(k::INGRESS);
            let given = |i: Ref<'_>| {
                [i.get(k::IP).str(), i.get(k::HOSTNAME).str()]
                    .into_iter()
                    .find(|t| !t.is_empty())
                    .map(str::to_owned)
            };
            let mut all: Vec<String> = ingress.items().filter_map(given).collect();
            all.extend(own.iter().map(|ip| (*ip).to_owned()));
            if all.is_empty() { "<pending>".into() } else { all.join(",") }
        }
        _ if own.is_empty() => "<none>".into(),
        _ => own.join(","),
    }
}

fn ports(svc: Ref<'_>) -> Cell {
    let one = |p: Ref<'_>| {
        let (port, node, protocol) =
            (p.get(k::PORT).i64(), p.get(k::NODE_PORT).i64(), p.get(k::PROTOCOL).str());
        if node > 0 { format!("{port}:{node}/{protocol}") } else { format!("{port}/{protocol}") }
    };
    let all: Vec<String> = svc.get(k::SPEC).get(k::PORTS).items().map(one).collect();
    or_none(&all.join(","))
}

fn defaults(doc: &mut Doc) {
    let mut spec = doc.edit().at(k::SPEC);
    default_affinity(&mut spec);
    empty_default(&mut spec, k::TYPE, "ClusterIP");
    each(&mut spec, k::PORTS, |mut port| {
        empty_default(&mut port, k::PROTOCOL, "TCP");
        let target = port.read().get(k::TARGET_PORT);
        if !target.is_set() || target.opt_str() == Some("") || target.opt_i64() == Some(0) {
            let number = port.read().get(k::PORT).i64();
            port.set(k::TARGET_PORT, number);
        }
    });
    let ty = spec.read().get(k::TYPE).str().to_owned();
    if needs_external_policy(spec.read()) {
        empty_default(&mut spec, k::EXTERNAL_TRAFFIC_POLICY, "Cluster");
    }
    if ["ClusterIP", "NodePort", "LoadBalancer"].contains(&ty.as_str()) {
        spec.set_default(k::INTERNAL_TRAFFIC_POLICY, "Cluster");
    }
    if ty == "LoadBalancer" {
        spec.set_default(k::ALLOCATE_LOAD_BALANCER_NODE_PORTS, true);
    }
    let mut ingress = doc.edit();
    if ty == "LoadBalancer" && ingress.read().get(k::STATUS).get(k::LOAD_BALANCER).get(k::INGRESS).is_array()
    {
        each(&mut ingress.reborrow().at(k::STATUS).at(k::LOAD_BALANCER), k::INGRESS, |mut one| {
            if !one.read().get(k::IP).str().is_empty() {
                one.set_default(k::IP_MODE, "VIP");
            }
        });
    }
}

fn default_affinity(spec: &mut Edit<'_>) {
    empty_default(spec, k::SESSION_AFFINITY, "None");
    match spec.read().get(k::SESSION_AFFINITY).str() {
        "None" => {
            spec.remove(k::SESSION_AFFINITY_CONFIG);
        }
        "ClientIP" => {
            let seconds =
                spec.read().get(k::SESSION_AFFINITY_CONFIG).get(k::CLIENT_IP).get(k::TIMEOUT_SECONDS);
            if !seconds.is_set() {
                spec.set(
                    k::SESSION_AFFINITY_CONFIG,
                    doc!({ "clientIP": { "timeoutSeconds": DEFAULT_AFFINITY_SECONDS } }),
                );
            }
        }
        _ => {}
    }
}

fn empty_default(at: &mut Edit<'_>, key: Key, value: &str) {
    if at.read().get(key).str().is_empty() {
        at.set(key, value);
    }
}

fn ty(spec: Ref<'_>) -> &str {
    spec.get(k::TYPE).str()
}

/// Whether the Service has an address of its own: not when headless or only a name.
pub fn needs_cluster_ip(spec: Ref<'_>) -> bool {
    takes_cluster_ip(spec) && spec.get(k::CLUSTER_IP).str() != "None"
}

/// Whether its type has the field at all; headless Services have it as `None`.
pub(crate) fn takes_cluster_ip(spec: Ref<'_>) -> bool {
    ["ClusterIP", "NodePort", "LoadBalancer"].contains(&ty(spec))
}

pub(crate) fn needs_node_port(spec: Ref<'_>) -> bool {
    match ty(spec) {
        "NodePort" => true,
        "LoadBalancer" => spec.get(k::ALLOCATE_LOAD_BALANCER_NODE_PORTS).opt_bool() != Some(false),
        _ => false,
    }
}

fn needs_health_check(spec: Ref<'_>) -> bool {
    ty(spec) == "LoadBalancer" && spec.get(k::EXTERNAL_TRAFFIC_POLICY).str() == "Local"
}

pub(crate) fn needs_external_policy(spec: Ref<'_>) -> bool {
    ["NodePort", "LoadBalancer"].contains(&ty(spec))
        || (ty(spec) == "ClusterIP" && !spec.get(k::EXTERNAL_IPS).is_empty())
}

struct Service;

impl Strategy for Service {
    fn prepare(&self, op: &Op<'_>, new: &mut Doc, old: Option<&Doc>) {
        if op.subresource == "status" {
            return;
        }
        if let Some(old) = old {
            let before = old.get(k::SPEC);
            keep_allocated(new, before);
            drop_by_type(new, before);
        }
        normalise_addresses(new);
    }

    fn validate(&self, op: &Op<'_>, new: &Doc, old: Option<&Doc>, errs: &mut ErrorList) {
        if op.subresource == "status" {
            return;
        }
        service_ports::service(errs, new.get(k::SPEC));
        if let Some(old) = old {
            service_ports::update(errs, new.get(k::SPEC), old.get(k::SPEC));
        }
    }

    fn allocates(&self, new: Ref<'_>, _old: Option<Ref<'_>>) -> Option<Allocations> {
        let spec = new.get(k::SPEC);
        let mut wanted = Allocations::default();
        if needs_cluster_ip(spec) {
            let given = |i: usize| spec.get(k::CLUSTER_IPS).item(i).str().to_owned();
            let families: Vec<Name> =
                spec.get(k::IP_FAMILIES).items().map(|f| Name::Owned(f.str().to_owned())).collect();
            // Without a family it is the cluster's first.
            let families = if families.is_empty() { vec![Name::Borrowed("")] } else { families };
            wanted.cluster_ips =
                families.into_iter().enumerate().map(|(i, family)| (family, given(i))).collect();
        }
        let node_ports = needs_node_port(spec);
        for (i, port) in spec.get(k::PORTS).items().enumerate() {
            let number = u16::try_from(port.get(k::NODE_PORT).i64()).unwrap_or(0);
            if node_ports || (number > 0 && ty(spec) == "LoadBalancer") {
                wanted.node_ports.push((i, port.get(k::PROTOCOL).str().to_owned(), number));
            }
        }
        if needs_health_check(spec) {
            wanted.health_check_node_port =
                Some(u16::try_from(spec.get(k::HEALTH_CHECK_NODE_PORT).i64()).unwrap_or(0));
        }
        Some(wanted)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}

/// What a client leaves out that was allocated stays as it was.
fn keep_allocated(new: &mut Doc, before: Ref<'_>) {
    let after = new.get(k::SPEC);
    let (addresses, node_ports) = (
        takes_cluster_ip(before) && takes_cluster_ip(after),
        needs_node_port(before) && needs_node_port(after),
    );
    let health = needs_health_check(before) && needs_health_check(after);
    let mut spec = new.edit().at(k::SPEC);
    if addresses {
        empty_default(&mut spec, k::CLUSTER_IP, before.get(k::CLUSTER_IP).str());
        let same = spec.read().get(k::CLUSTER_IP).str() == before.get(k::CLUSTER_IP).str();
        for key in [k::CLUSTER_IPS, k::IP_FAMILIES] {
            if same && spec.read().get(key).is_empty() && before.get(key).is_set() {
                spec.set(key, before.get(key));
            }
        }
        empty_default(&mut spec, k::IP_FAMILY_POLICY, before.get(k::IP_FAMILY_POLICY).str());
    }
    if node_ports {
        let mut used: Vec<i64> =
            spec.read().get(k::PORTS).items().map(|p| p.get(k::NODE_PORT).i64()).collect();
        each(&mut spec, k::PORTS, |mut port| {
            let same = |p: &Ref<'_>| {
                p.get(k::PORT).same(port.read().get(k::PORT))
                    && p.get(k::PROTOCOL).same(port.read().get(k::PROTOCOL))
            };
            let was = before.get(k::PORTS).items().find(same).unwrap_or_default().get(k::NODE_PORT).i64();
            if port.read().get(k::NODE_PORT).i64() == 0 && was > 0 && !used.contains(&was) {
                port.set(k::NODE_PORT, was);
                used.push(was);
            }
        });
    }
    if health && spec.read().get(k::HEALTH_CHECK_NODE_PORT).i64() == 0 {
        let was = before.get(k::HEALTH_CHECK_NODE_PORT);
        spec.set_opt(k::HEALTH_CHECK_NODE_PORT, was.is_set().then_some(was));
    }
}

/// A change of type drops what only the old type had, unless the client changed it, too.
fn drop_by_type(new: &mut Doc, before: Ref<'_>) {
    let after = new.get(k::SPEC);
    let mut gone: Vec<Key> = Vec::new();
    let mut drop = |had: bool, has: bool, keys: &[Key]| {
        if had && !has {
            gone.extend(keys.iter().filter(|key| same_or_empty(after.get(**key), before.get(**key))));
        }
    };
    let addresses = [k::CLUSTER_IP, k::CLUSTER_IPS, k::IP_FAMILIES, k::IP_FAMILY_POLICY];
    drop(takes_cluster_ip(before), takes_cluster_ip(after), &addresses);
    drop(needs_health_check(before), needs_health_check(after), &[k::HEALTH_CHECK_NODE_PORT]);
    drop(needs_external_policy(before), needs_external_policy(after), &[k::EXTERNAL_TRAFFIC_POLICY]);
    let balancer = |spec: Ref<'_>| ty(spec) == "LoadBalancer";
    drop(balancer(before), balancer(after), &[k::ALLOCATE_LOAD_BALANCER_NODE_PORTS, k::LOAD_BALANCER_CLASS]);
    drop(takes_cluster_ip(before), takes_cluster_ip(after), &[k::INTERNAL_TRAFFIC_POLICY]);
    let numbers = |spec: Ref<'_>| -> Vec<i64> {
        spec.get(k::PORTS).items().map(|p| p.get(k::NODE_PORT).i64()).collect()
    };
    let node_ports = needs_node_port(before) && !needs_node_port(after) && numbers(before) == numbers(after);
    let mut spec = new.edit().at(k::SPEC);
    for key in gone {
        spec.remove(key);
    }
    if node_ports {
        each(&mut spec, k::PORTS, |mut port| {
            port.remove(k::NODE_PORT);
        });
    }
}

/// `clusterIP` and the first of `clusterIPs` are one; families follow the addresses given.
fn normalise_addresses(new: &mut Doc) {
    let mut spec = new.edit().at(k::SPEC);
    if !takes_cluster_ip(spec.read()) {
        return;
    }
    let first = spec.read().get(k::CLUSTER_IP).str().to_owned();
    if !first.is_empty() && spec.read().get(k::CLUSTER_IPS).is_empty() {
        spec.reborrow().list(k::CLUSTER_IPS).push(&first);
    }
    empty_default(&mut spec, k::IP_FAMILY_POLICY, "SingleStack");
    if spec.read().get(k::IP_FAMILIES).is_empty() {
        let parsed = spec
            .read()
            .get(k::CLUSTER_IPS)
            .items()
            .filter_map(|ip| ip.str().parse::<std::net::IpAddr>().ok());
        let families: Vec<&str> = parsed.map(|ip| if ip.is_ipv4() { "IPv4" } else { "IPv6" }).collect();
        if !families.is_empty() {
            spec.set(k::IP_FAMILIES, families);
        }
    }
}
