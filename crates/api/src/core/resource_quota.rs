//! ResourceQuota: how much a namespace may have. Enforced by admission, counted by its controller.
//! Upstream: pkg/registry/core/resourcequota, ValidateResourceQuota.

use std::borrow::Cow;

use apimachinery::field::{ErrorList, Path};
use apimachinery::{Doc, Ref, k, validation};

use crate::core::resources;
use crate::kind::*;
use crate::print::{AGE, NAME};
use crate::rules::{complain, same_or_empty};
use crate::suggest::closest;

/// Quotas.
pub(crate) fn kind() -> Kind {
    Kind {
        short: names(&["quota"]),
        subresources: vec![Sub::STATUS],
        columns: Cow::Borrowed(COLUMNS),
        strategy: &ResourceQuota,
        ..Kind::new("", "v1", "resourcequotas", "ResourceQuota")
    }
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::code("Request", "string", "Used and granted, of requests and counts.", |q, _| {
        Cell::from(used_of_hard(q, false))
    }),
    Column::code("Limit", "string", "Used and granted, of limits.", |q, _| Cell::from(used_of_hard(q, true))),
    AGE,
];

fn used_of_hard(quota: Ref<'_>, limits: bool) -> String {
    let status = quota.get(k::STATUS);
    let mut names: Vec<&str> = status.get(k::HARD).entries().map(|(n, _)| n).collect();
    names.sort_unstable();
    let show = |name: &&str| {
        let (used, hard) = (status.get(k::USED).get(name), status.get(k::HARD).get(name));
        let used = if used.is_set() { resources::text(used) } else { "0".to_owned() };
        format!("{name}: {used}/{}", resources::text(hard))
    };
    let all: Vec<String> = names.iter().filter(|n| n.starts_with("limits.") == limits).map(show).collect();
    all.join(", ")
}

/// What a quota can count without a domain before the name.
const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
/// What a quota of pods of a scope can count; `BestEffort` pods can only be counted.
const POD_RESOURCES: &[&str] = &[
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

struct ResourceQuota;

impl Strategy for ResourceQuota {
    fn validate(&self, op: &Op<'_>, new: &Doc, old: Option<&Doc>, errs: &mut ErrorList) {
        if op.subresource == "status" {
            for field in ["hard", "used"] {
                amounts(errs, new.get(k::STATUS).get(field), &Path::new("status").child(field));
            }
            return;
        }
        let (spec, at) = (new.get(k::SPEC), Path::new("spec"));
        amounts(errs, spec.get(k::HARD), &at.child("hard"));
        scopes(errs, spec, &at);
        if let Some(old) = old
            && !same_or_empty(spec.get(k::SCOPES), old.get(k::SPEC).get(k::SCOPES))
        {
            errs.invalid(&at.child("scopes"), spec.get(k::SCOPES), "field is immutable");
        }
    }
}

fn amounts(errs: &mut ErrorList, map: Ref<'_>, at: &Path) {
    for (name, amount) in map.entries() {
        let here = at.key(name);
        quota_name(errs, name, &here);
        resources::amount(errs, name, amount, &here);
    }
}

fn quota_name(errs: &mut ErrorList, name: &str, at: &Path) {
    let complaints = validation::qualified_name(name);
    if !complaints.is_empty() {
        return complain(errs, at, name, complaints);
    }
    let pages = name.starts_with("hugepages-")
        || name.starts_with("requests.hugepages-")
        || name.starts_with("limits.hugepages-");
    if name.contains('/') || pages || STANDARD.contains(&name) {
        return;
    }
    let hint = closest(name, STANDARD).map_or_else(String::new, |meant| format!("; did you mean {meant:?}?"));
    errs.invalid(at, name, &format!("must be a standard resource for quotas{hint}"));
}

fn scopes(errs: &mut ErrorList, spec: Ref<'_>, at: &Path) {
    let at = at.child("scopes");
    let all: Vec<&str> = spec.get(k::SCOPES).items().map(Ref::str).collect();
    for scope in &all {
        if !SCOPES.contains(scope) {
            errs.invalid(&at, spec.get(k::SCOPES), "unsupported scope");
        }
        for (name, _) in spec.get(k::HARD).entries() {
            let fits = match *scope {
                "BestEffort" => name == "pods",
                "NotBestEffort"
                | "Terminating"
                | "NotTerminating"
                | "PriorityClass"
                | "CrossNamespacePodAffinity" => POD_RESOURCES.contains(&name),
                _ => true,
            };
            if !fits && STANDARD.contains(&name) {
                errs.invalid(&at, spec.get(k::SCOPES), "unsupported scope applied to resource");
            }
        }
    }
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|s| all.contains(s)) {
            errs.invalid(&at, spec.get(k::SCOPES), "conflicting scopes");
        }
    }
    selector(errs, spec, &Path::new("spec").child("scopeSelector").child("matchExpressions"));
}

fn selector(errs: &mut ErrorList, spec: Ref<'_>, at: &Path) {
    for term in spec.get(k::SCOPE_SELECTOR).get(k::MATCH_EXPRESSIONS).items() {
        let (scope, operator) = (term.get(k::SCOPE_NAME).str(), term.get(k::OPERATOR).str());
        if !SCOPES.contains(&scope) {
            errs.invalid(&at.child("scopeName"), scope, "unsupported scope");
        }
        let valued = ["PriorityClass", "VolumeAttributesClass"].contains(&scope);
        if !valued && operator != "Exists" {
            let detail = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
                          ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            errs.invalid(&at.child("operator"), operator, detail);
        }
        match operator {
            "In" | "NotIn" if term.get(k::VALUES).is_empty() => {
                errs.required(
                    &at.child("values"),
                    "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
                );
            }
            "Exists" | "DoesNotExist" if !term.get(k::VALUES).is_empty() => {
                errs.invalid(
                    &at.child("values"),
                    term.get(k::VALUES),
                    "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
                );
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errs.invalid(&at.child("operator"), other, "not a valid selector operator"),
        }
    }
}
