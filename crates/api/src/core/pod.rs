//! Pod: containers that live and die together on one node. What the kubelet cannot do of a valid pod it refuses
//! itself. Upstream: pkg/registry/core/pod.

use std::borrow::Cow;

use apimachinery::call::Verb;
use apimachinery::field::{ErrorList, Path};
use apimachinery::quantity::Quantity;
use apimachinery::{Doc, Edit, GroupVersion, Ref, doc, k};

use crate::core::pod_defaults::{self, each};
use crate::core::{pod_print, pod_update, pod_validation, pod_warnings, resources};
use crate::kind::*;

/// Pods.
pub(crate) fn kind() -> Kind {
    const CONNECT: &[Verb] = &[Verb::Create, Verb::Get];
    const PROXY: &[Verb] = &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update];
    Kind {
        short: names(&["po"]),
        categories: names(&["all"]),
        subresources: vec![
            Sub::new("attach", SubKind::Attach, "PodAttachOptions", CONNECT),
            Sub::new("binding", SubKind::Binding, "Binding", CREATE_ONLY),
            Sub {
                gv: Some(GroupVersion::new("policy", "v1")),
                ..Sub::new("eviction", SubKind::Eviction, "Eviction", CREATE_ONLY)
            },
            Sub::new("ephemeralcontainers", SubKind::EphemeralContainers, "", GET_PATCH_UPDATE),
            Sub::new("exec", SubKind::Exec, "PodExecOptions", CONNECT),
            Sub::new("log", SubKind::Log, "", &[Verb::Get]),
            Sub::new("portforward", SubKind::PortForward, "PodPortForwardOptions", CONNECT),
            Sub::new("proxy", SubKind::Proxy, "PodProxyOptions", PROXY),
            Sub::new("resize", SubKind::Resize, "", GET_PATCH_UPDATE),
            Sub::STATUS,
        ],
        columns: Cow::Borrowed(pod_print::COLUMNS),
        fields: Cow::Borrowed(FIELDS),
        strategy: &Pod,
        ..Kind::new("", "v1", "pods", "Pod").defaults(pod_defaults::pod)
    }
}

const FIELDS: &[SelectableField] = &[
    SelectableField::path("spec.nodeName"),
    SelectableField::path("spec.restartPolicy"),
    SelectableField::path("spec.schedulerName"),
    SelectableField::path("spec.serviceAccountName"),
    SelectableField::code("spec.hostNetwork", |pod| {
        Cow::Borrowed(if pod.get(k::SPEC).get(k::HOST_NETWORK).bool() { "true" } else { "false" })
    }),
    SelectableField::path("status.phase"),
    SelectableField::path("status.podIP"),
    SelectableField::code("status.podIPs", |pod| {
        let all: Vec<&str> =
            pod.get(k::STATUS).get(k::POD_IPS).items().map(|ip| ip.get(k::IP).str()).collect();
        Cow::Owned(all.join(","))
    }),
    SelectableField::path("status.nominatedNodeName"),
];

struct Pod;

impl Strategy for Pod {
    fn prepare(&self, op: &Op<'_>, new: &mut Doc, old: Option<&Doc>) {
        let qos = match old {
            None => qos_class(new.get(k::SPEC)),
            Some(old) if op.subresource == "status" => return keep_of_status(new, old),
            Some(old) => {
                if ["ephemeralcontainers", "resize"].contains(&op.subresource) {
                    pod_update::keep_but(new, old, op.subresource);
                }
                return;
            }
        };
        let gated = !new.get(k::SPEC).get(k::SCHEDULING_GATES).is_empty();
        let mut status = doc!({ "phase": "Pending", "qosClass": qos });
        if gated {
            status
                .edit()
                .list(k::CONDITIONS)
                .push(doc!({ "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates" }));
        }
        new.edit().set(k::STATUS, status);
    }

    /// Only of new pods, as upstream: people do not change pods.
    fn warnings(&self, _op: &Op<'_>, new: &Doc, old: Option<&Doc>) -> Vec<String> {
        if old.is_some() {
            return Vec::new();
        }
        let name = pod_warnings::name(new.get(k::METADATA).get(k::NAME).str(), "the Pod's hostname");
        name.into_iter().chain(pod_warnings::pod(new.root(), None)).collect()
    }

    fn validate(&self, op: &Op<'_>, new: &Doc, old: Option<&Doc>, errs: &mut ErrorList) {
        let (spec, at) = (new.get(k::SPEC), Path::new("spec"));
        if op.subresource.is_empty() {
            let given = new.get(k::METADATA).get(k::ANNOTATIONS);
            let at = Path::new("metadata").child("annotations");
            pod_validation::annotations(errs, given, spec, &at);
            if let Some(old) = old {
                pod_update::mirror(errs, new, old, &at);
            }
        }
        match old {
            Some(old) if ["status", "binding"].contains(&op.subresource) => {
                pod_update::status(errs, new, old);
            }
            None => {
                pod_validation::pod_spec(errs, spec, &at);
                if !spec.get(k::EPHEMERAL_CONTAINERS).is_empty() {
                    errs.forbidden(&at.child("ephemeralContainers"), "cannot be set on create");
                }
                if !spec.get(k::NODE_NAME).str().is_empty() && !spec.get(k::SCHEDULING_GATES).is_empty() {
                    errs.forbidden(
                        &at.child("nodeName"),
                        "cannot be set until all schedulingGates have been cleared",
                    );
                }
            }
            Some(old) => {
                pod_validation::pod_spec(errs, spec, &at);
                match op.subresource {
                    "ephemeralcontainers" => pod_update::ephemeral(errs, new, old),
                    "resize" => pod_update::resize(errs, new, old),
                    _ => pod_update::spec(errs, spec, old.get(k::SPEC), &at),
                }
            }
        }
    }

    fn graceful_delete(&self, _op: &Op<'_>, asked: Option<i64>, pod: Ref<'_>) -> Option<i64> {
        let spec = pod.get(k::SPEC);
        let seconds = asked.or(spec.get(k::TERMINATION_GRACE_PERIOD_SECONDS).opt_i64()).unwrap_or(0);
        let unscheduled = spec.get(k::NODE_NAME).str().is_empty();
        let terminal = ["Failed", "Succeeded"].contains(&pod.get(k::STATUS).get(k::PHASE).str());
        Some(match seconds {
            _ if unscheduled || terminal => 0,
            n if n < 0 => 1,
            n => n,
        })
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }
}

/// What a status keeps that its writer left out, and owners, which old kubelets spoiled.
fn keep_of_status(new: &mut Doc, old: &Doc) {
    let was = old.get(k::STATUS);
    let conditions = was.get(k::CONDITIONS);
    let mut status = new.edit().at(k::STATUS);
    if status.read().get(k::QOS_CLASS).str().is_empty() && was.get(k::QOS_CLASS).is_set() {
        status.set(k::QOS_CLASS, was.get(k::QOS_CLASS));
    }
    observed(&mut status, was);
    each(&mut status, k::CONDITIONS, |mut condition| {
        let name = condition.read().get(k::TYPE).str();
        let before = conditions.items().find(|c| c.get(k::TYPE).str() == name);
        observed(&mut condition, before.unwrap_or_default());
    });
    let owners = old.get(k::METADATA).get(k::OWNER_REFERENCES);
    new.edit().at(k::METADATA).set_opt(k::OWNER_REFERENCES, owners.exists().then_some(owners));
}

/// A generation that was seen stays seen.
fn observed(to: &mut Edit<'_>, was: Ref<'_>) {
    let generation = was.get(k::OBSERVED_GENERATION).i64();
    if generation != 0 && to.read().get(k::OBSERVED_GENERATION).i64() == 0 {
        to.set(k::OBSERVED_GENERATION, generation);
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`, by the containers' requests and limits of cpu and memory.
pub fn qos_class(spec: Ref<'_>) -> &'static str {
    let positive = |map: Ref<'_>, name: &str| {
        let text = resources::text(map.get(name));
        Quantity::parse(&text).ok().filter(|q| q.signum() > 0)
    };
    let (mut any, mut guaranteed) = (false, true);
    for list in [k::CONTAINERS, k::INIT_CONTAINERS] {
        for container in spec.get(list).items() {
            let asked = container.get(k::RESOURCES);
            for name in ["cpu", "memory"] {
                let (request, limit) =
                    (positive(asked.get(k::REQUESTS), name), positive(asked.get(k::LIMITS), name));
                any |= request.is_some() || limit.is_some();
                guaranteed &= match (request, limit) {
                    (Some(r), Some(l)) => r.sub(l).is_zero(),
                    (None, Some(_)) => true,
                    _ => false,
                };
            }
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
