//! ReplicaSet: a number of pods of one template. Upstream: pkg/registry/apps/replicaset.

use std::borrow::Cow;

use apimachinery::field::{ErrorList, Path};
use apimachinery::selector::Selector;
use apimachinery::{Doc, Ref, k};

use crate::core::{pod_defaults, pod_validation};
use crate::kind::*;
use crate::print::{AGE, NAME, images, label_selector, template_names};
use crate::rules::{self, not_negative};

/// Replica sets.
pub(crate) fn kind() -> Kind {
    Kind {
        short: names(&["rs"]),
        categories: names(&["all"]),
        subresources: vec![Sub::SCALE, Sub::STATUS],
        columns: Cow::Borrowed(COLUMNS),
        fields: Cow::Owned(vec![SelectableField::path("status.replicas")]),
        strategy: &ReplicaSet,
        ..Kind::new("apps", "v1", "replicasets", "ReplicaSet").defaults(defaults)
    }
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::code("Desired", "integer", "How many pods there should be.", |rs, _| {
        Cell::Int(rs.get(k::SPEC).get(k::REPLICAS).i64())
    }),
    Column::code("Current", "integer", "How many there are.", |rs, _| {
        Cell::Int(rs.get(k::STATUS).get(k::REPLICAS).i64())
    }),
    Column::code("Ready", "integer", "How many of them are ready.", |rs, _| {
        Cell::Int(rs.get(k::STATUS).get(k::READY_REPLICAS).i64())
    }),
    AGE,
    Column::code("Containers", "string", "The template's containers.", |rs, _| template_names(rs)).wide(),
    Column::code("Images", "string", "Their images.", |rs, _| images(rs)).wide(),
    Column::code("Selector", "string", "The labels of its pods.", |rs, _| {
        label_selector(rs.get(k::SPEC).get(k::SELECTOR))
    })
    .wide(),
];

fn defaults(doc: &mut Doc) {
    let mut spec = doc.edit().at(k::SPEC);
    spec.set_default(k::REPLICAS, 1);
    pod_defaults::template(spec);
}

struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn validate(&self, op: &Op<'_>, new: &Doc, old: Option<&Doc>, errs: &mut ErrorList) {
        if op.subresource == "status" {
            return counts(errs, new.get(k::STATUS));
        }
        let (spec, at) = (new.get(k::SPEC), Path::new("spec"));
        not_negative(errs, spec.get(k::REPLICAS), &at.child("replicas"));
        not_negative(errs, spec.get(k::MIN_READY_SECONDS), &at.child("minReadySeconds"));
        selector_and_template(errs, spec, &at);
        if let Some(old) = old {
            rules::unchanged(
                errs,
                spec.get(k::SELECTOR),
                old.get(k::SPEC).get(k::SELECTOR),
                &at.child("selector"),
            );
        }
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }
}

fn counts(errs: &mut ErrorList, status: Ref<'_>) {
    let at = Path::new("status");
    let all = status.get(k::REPLICAS).i64();
    for field in
        ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"]
    {
        not_negative(errs, status.get(field), &at.child(field));
    }
    for field in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
        if status.get(field).i64() > all {
            errs.invalid(&at.child(field), status.get(field).i64(), "cannot be greater than status.replicas");
        }
    }
    if status.get(k::AVAILABLE_REPLICAS).i64() > status.get(k::READY_REPLICAS).i64() {
        errs.invalid(
            &at.child("availableReplicas"),
            status.get(k::AVAILABLE_REPLICAS).i64(),
            "cannot be greater than readyReplicas",
        );
    }
}

/// A selector that selects something, and a template that it selects and that runs for ever.
pub(crate) fn selector_and_template(errs: &mut ErrorList, spec: Ref<'_>, at: &Path) {
    let selector = spec.get(k::SELECTOR);
    let empty = selector.get(k::MATCH_LABELS).is_empty() && selector.get(k::MATCH_EXPRESSIONS).is_empty();
    if !selector.is_set() {
        errs.required(&at.child("selector"), "");
    } else {
        rules::label_selector(errs, selector, &at.child("selector"));
        if empty {
            errs.invalid(&at.child("selector"), selector, "empty selector is invalid for deployment");
        }
    }
    let (template, at) = (spec.get(k::TEMPLATE), at.child("template"));
    let labels = template.get(k::METADATA).get(k::LABELS);
    let selects = !empty && Selector::from_label_selector(selector).is_ok_and(|s| s.matches(labels));
    if selector.is_set() && !empty && !selects {
        errs.invalid(
            &at.child("metadata").child("labels"),
            labels,
            "`selector` does not match template `labels`",
        );
    }
    rules::labels(errs, labels, &at.child("labels"));
    crate::generic::annotations(
        errs,
        template.get(k::METADATA).get(k::ANNOTATIONS),
        &at.child("annotations"),
    );
    let (pod, at) = (template.get(k::SPEC), at.child("spec"));
    pod_validation::pod_spec(errs, pod, &at);
    let policy = pod.get(k::RESTART_POLICY).str();
    if policy != "Always" && !policy.is_empty() {
        errs.not_supported(&at.child("restartPolicy"), policy, &["Always"]);
    }
    if pod.get(k::ACTIVE_DEADLINE_SECONDS).is_set() {
        errs.forbidden(
            &at.child("activeDeadlineSeconds"),
            "activeDeadlineSeconds in ReplicaSet is not Supported",
        );
    }
}
