//! Pod: containers that live and die together on one node. What the kubelet cannot do of a valid pod it refuses
//! itself. Upstream: pkg/registry/core/pod.

use std::borrow::Cow;

use apimachinery::call::Verb;
use apimachinery::field::{ErrorList, Path};
use apimachinery::quantity::Quantity;
use apimachinery::{Doc, Key, Ref, doc, k};

use crate::core::{pod_defaults, pod_print, pod_validation, resources};
use crate::kind::*;
use crate::rules;

/// Pods.
pub(crate) fn kind() -> Kind {
    const CONNECT: &[Verb] = &[Verb::Create, Verb::Get];
    Kind {
        short: names(&["po"]),
        categories: names(&["all"]),
        subresources: vec![
            Sub::new("attach", SubKind::Attach, "PodAttachOptions", CONNECT),
            Sub::new("binding", SubKind::Binding, "Binding", CREATE_ONLY),
            Sub::new("exec", SubKind::Exec, "PodExecOptions", CONNECT),
            Sub::new("log", SubKind::Log, "", &[Verb::Get]),
            Sub::new("portforward", SubKind::PortForward, "PodPortForwardOptions", CONNECT),
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
            Some(old) if op.subresource == "status" => {
                let was = old.get(k::STATUS).get(k::QOS_CLASS).str().to_owned();
                let mut status = new.edit().at(k::STATUS);
                if status.read().get(k::QOS_CLASS).str().is_empty() && !was.is_empty() {
                    status.set(k::QOS_CLASS, was);
                }
                let owners = old.get(k::METADATA).get(k::OWNER_REFERENCES);
                new.edit().at(k::METADATA).set_opt(k::OWNER_REFERENCES, owners.exists().then_some(owners));
                return;
            }
            Some(_) => return,
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

    fn validate(&self, op: &Op<'_>, new: &Doc, old: Option<&Doc>, errs: &mut ErrorList) {
        let (spec, at) = (new.get(k::SPEC), Path::new("spec"));
        match old {
            Some(_) if !op.subresource.is_empty() => validate_status(errs, new, &Path::new("status")),
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
                validate_update(errs, spec, old.get(k::SPEC), &at);
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

fn validate_status(errs: &mut ErrorList, new: &Doc, at: &Path) {
    for (i, condition) in new.get(k::STATUS).get(k::CONDITIONS).items().enumerate() {
        let at = at.child("conditions").index(i).child("status");
        rules::one_of(errs, condition.get(k::STATUS), &at, &["True", "False", "Unknown"]);
    }
}

/// The few things of a pod's spec that may change.
fn validate_update(errs: &mut ErrorList, new: Ref<'_>, old: Ref<'_>, at: &Path) {
    for list in ["containers", "initContainers"] {
        if new.get(list).len() != old.get(list).len() {
            return errs.forbidden(&at.child(list), "pod updates may not add or remove containers");
        }
    }
    deadline(
        errs,
        new.get(k::ACTIVE_DEADLINE_SECONDS),
        old.get(k::ACTIVE_DEADLINE_SECONDS),
        &at.child("activeDeadlineSeconds"),
    );
    added_only(errs, new.get(k::TOLERATIONS), old.get(k::TOLERATIONS), &at.child("tolerations"));
    let gates = |spec: Ref<'_>| -> Vec<String> {
        spec.get(k::SCHEDULING_GATES).items().map(|g| g.get(k::NAME).str().to_owned()).collect()
    };
    let was = gates(old);
    for gate in gates(new).iter().filter(|g| !was.contains(g)) {
        let detail = format!("only deletion is allowed, but found new scheduling gate '{gate}'");
        errs.forbidden(&at.child("schedulingGates"), &detail);
    }
    let mut munged = new.to_doc();
    for key in [k::ACTIVE_DEADLINE_SECONDS, k::TOLERATIONS, k::SCHEDULING_GATES] {
        restore(&mut munged, old, key);
    }
    if old.get(k::TERMINATION_GRACE_PERIOD_SECONDS).i64() < 0
        && new.get(k::TERMINATION_GRACE_PERIOD_SECONDS).i64() == 1
    {
        restore(&mut munged, old, k::TERMINATION_GRACE_PERIOD_SECONDS);
    }
    if !was.is_empty() {
        restore(&mut munged, old, k::NODE_SELECTOR);
        restore(&mut munged, old, k::AFFINITY);
    }
    for list in [k::CONTAINERS, k::INIT_CONTAINERS] {
        for (i, container) in old.get(list).items().enumerate() {
            if let Some(mut item) = munged.edit().existing(list).and_then(|l| l.item(i)) {
                item.set(k::IMAGE, container.get(k::IMAGE));
            }
        }
    }
    if !munged.root().same(old) {
        let changed: Vec<&str> =
            munged.root().entries().filter(|(name, v)| !v.same(old.get(name))).map(|(n, _)| n).collect();
        let detail = format!(
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
             `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
             `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\nchanged: {}",
            changed.join(", ")
        );
        errs.forbidden(at, &detail);
    }
}

fn restore(munged: &mut Doc, old: Ref<'_>, key: Key) {
    let was = old.get(key);
    munged.edit().set_opt(key, was.exists().then_some(was));
}

fn deadline(errs: &mut ErrorList, new: Ref<'_>, old: Ref<'_>, at: &Path) {
    match (new.opt_i64(), old.opt_i64()) {
        (Some(new), Some(old)) if new > old => {
            errs.invalid(at, new, "must be less than or equal to previous value")
        }
        (None, Some(_)) => errs.invalid(at, new, "must not update from a positive integer to nil value"),
        _ => {}
    }
}

fn added_only(errs: &mut ErrorList, new: Ref<'_>, old: Ref<'_>, at: &Path) {
    let bare = |t: Ref<'_>| {
        let mut t = t.to_doc();
        t.edit().remove(k::TOLERATION_SECONDS);
        t
    };
    let kept = old.items().all(|o| new.items().any(|n| bare(n) == bare(o)));
    if !kept {
        errs.forbidden(at, "existing toleration can not be modified except its tolerationSeconds");
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
