//! Node: a machine that runs pods. Upstream: pkg/registry/core/node.

use std::borrow::Cow;

use apimachinery::call::Verb;
use apimachinery::field::{ErrorList, Path};
use apimachinery::{Doc, Ref, k, validation};

use crate::core::resources;
use crate::kind::*;
use crate::print::{AGE, NAME, or_none};
use crate::rules::{self, complain, one_of};

/// Nodes.
pub(crate) fn kind() -> Kind {
    const PROXY: &[Verb] = &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update];
    Kind {
        short: names(&["no"]),
        scope: Scope::Cluster,
        key_prefix: "/registry/minions".into(),
        subresources: vec![Sub::new("proxy", SubKind::Proxy, "NodeProxyOptions", PROXY), Sub::STATUS],
        columns: Cow::Borrowed(COLUMNS),
        fields: Cow::Owned(vec![SelectableField::code("spec.unschedulable", |node| {
            Cow::Borrowed(if node.get(k::SPEC).get(k::UNSCHEDULABLE).bool() { "true" } else { "false" })
        })]),
        strategy: &Node,
        ..Kind::new("", "v1", "nodes", "Node").defaults(defaults)
    }
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::code("Status", "string", "Whether it is ready and takes pods.", |node, _| {
        Cell::from(status(node))
    }),
    Column::code("Roles", "string", "The roles that its labels name.", |node, _| roles(node)),
    AGE,
    Column::path("Version", "string", "The version of its kubelet.", "status.nodeInfo.kubeletVersion"),
    Column::code("Internal-IP", "string", "Its address inside the cluster.", |node, _| {
        address(node, "InternalIP")
    })
    .wide(),
    Column::code("External-IP", "string", "Its address outside.", |node, _| address(node, "ExternalIP"))
        .wide(),
    Column::code("OS-Image", "string", "Its operating system.", |node, _| info(node, "osImage")).wide(),
    Column::code("Kernel-Version", "string", "Its kernel.", |node, _| info(node, "kernelVersion")).wide(),
    Column::code("Container-Runtime", "string", "What runs its containers.", |node, _| {
        info(node, "containerRuntimeVersion")
    })
    .wide(),
];

fn status(node: Ref<'_>) -> String {
    let ready = node.get(k::STATUS).get(k::CONDITIONS).items().find(|c| c.get(k::TYPE).str() == "Ready");
    let mut text = match ready.map(|c| c.get(k::STATUS).str()) {
        None => "Unknown",
        Some("True") => "Ready",
        Some(_) => "NotReady",
    }
    .to_owned();
    if node.get(k::SPEC).get(k::UNSCHEDULABLE).bool() {
        text.push_str(",SchedulingDisabled");
    }
    text
}

fn roles(node: Ref<'_>) -> Cell {
    let mut all: Vec<&str> = Vec::new();
    for (label, value) in node.get(k::METADATA).get(k::LABELS).entries() {
        match label.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => all.push(role),
            _ if label == "kubernetes.io/role" && !value.str().is_empty() => all.push(value.str()),
            _ => {}
        }
    }
    all.sort_unstable();
    all.dedup();
    or_none(&all.join(","))
}

fn address(node: Ref<'_>, which: &str) -> Cell {
    let found = node.get(k::STATUS).get(k::ADDRESSES).items().find(|a| a.get(k::TYPE).str() == which);
    or_none(found.unwrap_or_default().get(k::ADDRESS).str())
}

fn info(node: Ref<'_>, field: &str) -> Cell {
    let text = node.get(k::STATUS).get(k::NODE_INFO).get(field).str();
    Cell::from(if text.is_empty() { "<unknown>" } else { text })
}

fn defaults(doc: &mut Doc) {
    rules::first_of(&mut doc.edit(), (k::SPEC, k::POD_CIDR, k::POD_CIDRS), None);
    let status = doc.get(k::STATUS);
    if status.get(k::CAPACITY).is_object() && !status.get(k::ALLOCATABLE).is_set() {
        let capacity = status.get(k::CAPACITY).to_doc();
        doc.edit().at(k::STATUS).set(k::ALLOCATABLE, capacity);
    }
}

struct Node;

impl Strategy for Node {
    fn validate(&self, _op: &Op<'_>, new: &Doc, old: Option<&Doc>, errs: &mut ErrorList) {
        let (spec, at) = (new.get(k::SPEC), Path::new("spec"));
        taints(errs, spec.get(k::TAINTS), &at.child("taints"));
        let families: Vec<bool> = spec.get(k::POD_CIDRS).items().map(|c| c.str().contains(':')).collect();
        if families.len() > 2 || (families.len() == 2 && families[0] == families[1]) {
            let detail = "may specify no more than one CIDR for each IP family";
            errs.invalid(&at.child("podCIDRs"), spec.get(k::POD_CIDRS), detail);
        }
        for (i, cidr) in spec.get(k::POD_CIDRS).items().enumerate() {
            complain(errs, &at.child("podCIDRs").index(i), cidr.str(), validation::cidr(cidr.str()));
        }
        for which in ["capacity", "allocatable"] {
            for (name, amount) in new.get(k::STATUS).get(which).entries() {
                resources::amount(errs, name, amount, &Path::new("status").child(which).child(name));
            }
        }
        let Some(old) = old else { return };
        let addresses = new.get(k::STATUS).get(k::ADDRESSES);
        for (i, address) in addresses.items().enumerate() {
            if addresses.items().take(i).any(|other| other.same(address)) {
                errs.duplicate(&Path::new("status").child("addresses").index(i), address);
            }
        }
        let was = old.get(k::SPEC);
        if !was.get(k::POD_CIDRS).is_empty()
            && !rules::same_or_empty(spec.get(k::POD_CIDRS), was.get(k::POD_CIDRS))
        {
            errs.forbidden(
                &at.child("podCIDRs"),
                "node updates may not change podCIDR except from \"\" to valid",
            );
        }
        let (id, old_id) = (spec.get(k::PROVIDER_ID).str(), was.get(k::PROVIDER_ID).str());
        if !old_id.is_empty() && id != old_id {
            errs.forbidden(
                &at.child("providerID"),
                "node updates may not change providerID except from \"\" to valid",
            );
        }
    }

    fn keeps_status_on_create(&self) -> bool {
        true
    }
}

fn taints(errs: &mut ErrorList, list: Ref<'_>, at: &Path) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (i, taint) in list.items().enumerate() {
        let at = at.index(i);
        let (key, value, effect) = (taint.get(k::KEY).str(), taint.get(k::VALUE).str(), taint.get(k::EFFECT));
        complain(errs, &at.child("key"), key, validation::qualified_name(key));
        complain(errs, &at.child("value"), value, validation::label_value(value));
        one_of(errs, effect, &at.child("effect"), &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        if seen.contains(&(key, effect.str())) {
            errs.duplicate(&at, taint);
        }
        seen.push((key, effect.str()));
    }
}
