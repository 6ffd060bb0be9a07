//! Resource names and quantities, in containers, quotas and limit ranges.
//! Upstream: pkg/apis/core/validation ValidateResourceRequirements, pkg/apis/core/helper.

use apimachinery::field::{ErrorList, Path};
use apimachinery::quantity::Quantity;
use apimachinery::{Ref, k, validation};

use crate::rules::complain;

/// Resources that containers can ask for by a plain name.
const CONTAINER: &[&str] = &["cpu", "memory", "ephemeral-storage"];

/// Names without a domain that mean something, to containers or quotas.
const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "storage",
    "pods",
    "services",
    "services.nodeports",
    "services.loadbalancers",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];

/// A name that a quantity can stand under: qualified, and known if it has no domain.
pub(crate) fn name(errs: &mut ErrorList, name: &str, at: &Path) {
    let complaints = validation::qualified_name(name);
    if !complaints.is_empty() {
        return complain(errs, at, name, complaints);
    }
    let pages = name.starts_with("hugepages-") || name.starts_with("requests.hugepages-");
    if !name.contains('/') && !pages && !STANDARD.contains(&name) {
        errs.invalid(at, name, "must be a standard resource type or fully qualified");
    }
}

/// The same for what a container can ask for.
pub(crate) fn container_name(errs: &mut ErrorList, resource: &str, at: &Path) {
    name(errs, resource, at);
    if !resource.contains('/') {
        if !CONTAINER.contains(&resource) && !resource.starts_with("hugepages-") {
            errs.invalid(at, resource, "must be a standard resource for containers");
        }
    } else if !resource.contains("kubernetes.io/")
        && (resource.starts_with("requests.")
            || !validation::qualified_name(&format!("requests.{resource}")).is_empty())
    {
        errs.invalid(at, resource, "doesn't follow extended resource name standard");
    }
}

/// Whether more of it may be promised than there is.
pub(crate) fn is_overcommitted(resource: &str) -> bool {
    !resource.starts_with("hugepages-") && (!resource.contains('/') || resource.contains("kubernetes.io/"))
}

/// A quantity that is not below zero, and whole for everything that comes in pieces.
pub(crate) fn amount(errs: &mut ErrorList, resource: &str, value: Ref<'_>, at: &Path) {
    let Ok(quantity) = Quantity::parse(&text(value)) else {
        return errs.invalid(
            at,
            value,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        );
    };
    if quantity.signum() < 0 {
        errs.invalid(at, &*text(value), "must be greater than or equal to 0");
    }
    if is_whole(resource) && quantity.milli_value() % 1000 != 0 {
        errs.invalid(at, &*text(value), "must be an integer");
    }
}

/// Extended resources and counts of objects come whole.
fn is_whole(resource: &str) -> bool {
    let native = !resource.contains('/') || resource.contains("kubernetes.io/");
    let counted = ["pods", "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps"];
    !native
        || counted.contains(&resource)
        || resource.starts_with("count/")
        || resource.starts_with("services.")
}

/// A quantity's text; numbers count as written.
pub(crate) fn text(value: Ref<'_>) -> String {
    value.opt_str().or(value.number()).unwrap_or("").to_owned()
}

/// A container's `resources`.
pub(crate) fn requirements(errs: &mut ErrorList, resources: Ref<'_>, at: &Path) {
    let (limits, requests) = (resources.get(k::LIMITS), resources.get(k::REQUESTS));
    for (which, map) in [("limits", limits), ("requests", requests)] {
        for (resource, value) in map.entries() {
            let here = at.child(which).key(resource);
            container_name(errs, resource, &here);
            amount(errs, resource, value, &here);
        }
    }
    for (resource, request) in requests.entries() {
        let limit = limits.get(resource);
        let shared = CONTAINER.contains(&resource);
        if !limit.is_set() {
            if !shared {
                errs.required(&at.child("limits"), "Limit must be set for non overcommitable resources");
            }
            continue;
        }
        let (Ok(r), Ok(l)) = (Quantity::parse(&text(request)), Quantity::parse(&text(limit))) else {
            continue;
        };
        let over = r.sub(l).signum();
        if !shared && over != 0 {
            let detail = format!("must be equal to {resource} limit of {}", text(limit));
            errs.invalid(&at.child("requests"), &*text(request), &detail);
        } else if over > 0 {
            let detail = format!("must be less than or equal to {resource} limit of {}", text(limit));
            errs.invalid(&at.child("requests"), &*text(request), &detail);
        }
    }
    let any = |name: &str| [limits, requests].iter().any(|map| map.get(name).exists());
    let pages = |map: Ref<'_>| map.entries().any(|(name, _)| name.starts_with("hugepages-"));
    if (pages(limits) || pages(requests)) && !any("cpu") && !any("memory") {
        errs.forbidden(at, "HugePages require cpu or memory");
    }
}
