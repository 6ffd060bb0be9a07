//! What all kinds that make pods of a template share: the template's defaults and rules, the counts of their
//! statuses, their columns. Upstream: pkg/apis/{apps,core}/validation, whose copies of these differ in words only.

use apimachinery::field::{ErrorList, Path, Shown};
use apimachinery::selector::Selector;
use apimachinery::{Doc, GroupVersion, Ref, k};

use crate::core::{pod_defaults, pod_validation, pod_warnings};
use crate::generic;
use crate::kind::*;
use crate::print::{self, AGE, NAME};
use crate::rules::{self, Text, not_negative};

/// NAME, the three counts of kinds that only count, AGE, and what their pods are.
pub(crate) const COUNT_COLUMNS: &[Column] = &[
    NAME,
    Column::code("Desired", "integer", "How many pods there should be.", |o, _| {
        Cell::Int(o.get(k::SPEC).get(k::REPLICAS).i64())
    }),
    Column::code("Current", "integer", "How many there are.", |o, _| {
        Cell::Int(o.get(k::STATUS).get(k::REPLICAS).i64())
    }),
    Column::code("Ready", "integer", "How many of them are ready.", |o, _| {
        Cell::Int(o.get(k::STATUS).get(k::READY_REPLICAS).i64())
    }),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];
/// The template's containers, with `-o wide`.
pub(crate) const CONTAINERS: Column =
    Column::code("Containers", "string", "The template's containers.", |o, _| {
        print::container_names(o.get(k::SPEC).get(k::TEMPLATE))
    })
    .wide();
/// Their images, with `-o wide`.
pub(crate) const IMAGES: Column = Column::code("Images", "string", "Their images.", |o, _| {
    print::container_images(o.get(k::SPEC).get(k::TEMPLATE))
})
.wide();
/// The selector as text, with `-o wide`.
pub(crate) const SELECTOR: Column = Column::code("Selector", "string", "The labels of its pods.", |o, _| {
    print::selector(o.get(k::SPEC).get(k::SELECTOR))
})
.wide();

/// One replica unless said, and the template's own defaults.
pub(crate) fn defaults(doc: &mut Doc) {
    let mut spec = doc.edit().at(k::SPEC);
    spec.set_default(k::REPLICAS, 1);
    pod_defaults::template(spec);
}

/// What is told of a new template: of every new object's, and where the spec changed.
pub(crate) fn warnings(op: &Op<'_>, new: &Doc, old: Option<&Doc>) -> Vec<String> {
    let generation = |o: &Doc| o.get(k::METADATA).get(k::GENERATION).i64();
    if !op.subresource.is_empty() || old.is_some_and(|old| generation(old) == generation(new)) {
        return Vec::new();
    }
    let mut out = Vec::new();
    if old.is_none() {
        out.extend(pod_warnings::name(new.get(k::METADATA).get(k::NAME).str(), "Pod names and hostnames"));
    }
    let template = new.get(k::SPEC).get(k::TEMPLATE);
    out.extend(pod_warnings::pod(template, Some(&Path::new("spec").child("template"))));
    out
}

/// How a kind's `spec.selector` looks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SelectorForm {
    /// `matchLabels` and `matchExpressions`.
    Expressions,
    /// A plain map of labels: the oldest kinds.
    Map,
}

/// The old groups took the template's labels for a missing selector, and for missing labels of their own.
pub(crate) fn selector_from_template(doc: &mut Doc, form: SelectorForm) {
    let labels = doc.get(k::SPEC).get(k::TEMPLATE).get(k::METADATA).get(k::LABELS).to_doc();
    if labels.root().is_empty() {
        return;
    }
    let selector = doc.get(k::SPEC).get(k::SELECTOR);
    match form {
        SelectorForm::Expressions if !selector.is_set() => {
            doc.edit().at(k::SPEC).at(k::SELECTOR).set(k::MATCH_LABELS, &labels);
        }
        SelectorForm::Map if selector.is_empty() => {
            doc.edit().at(k::SPEC).set(k::SELECTOR, &labels);
        }
        _ => {}
    }
    if doc.get(k::METADATA).get(k::LABELS).is_empty() {
        doc.edit().at(k::METADATA).set(k::LABELS, &labels);
    }
}

/// A selector that selects something, and a template that it selects and that runs for ever. `kind` is whose it is,
/// in the words of a refusal.
pub(crate) fn selector_and_template(
    errs: &mut ErrorList,
    spec: Ref<'_>,
    at: &Path,
    form: SelectorForm,
    kind: &str,
) {
    let (given, here) = (spec.get(k::SELECTOR), at.child("selector"));
    let read = match form {
        SelectorForm::Map => {
            if given.is_empty() {
                errs.required(&here, "");
            }
            Selector::from_map(given)
        }
        SelectorForm::Expressions => {
            if !given.is_set() {
                errs.required(&here, "");
            } else {
                rules::label_selector(errs, given, &here);
                if given.get(k::MATCH_LABELS).is_empty() && given.get(k::MATCH_EXPRESSIONS).is_empty() {
                    errs.invalid(&here, given, "empty selector is invalid for deployment");
                }
            }
            Selector::from_label_selector(given)
        }
    };
    let (template, at) = (spec.get(k::TEMPLATE), at.child("template"));
    let Ok(selector) = read else {
        return errs.invalid(&here, given, "invalid label selector");
    };
    if form == SelectorForm::Map && !template.is_set() {
        return errs.required(&at, "");
    }
    let labels = template.get(k::METADATA).get(k::LABELS);
    if !selector.matches(labels) {
        errs.invalid(
            &at.child("metadata").child("labels"),
            Text(if labels.is_set() { labels.shown() } else { "null".to_owned() }),
            "`selector` does not match template `labels`",
        );
    }
    self::template(errs, template, &at);
    let (pod, at) = (template.get(k::SPEC), at.child("spec"));
    let policy = pod.get(k::RESTART_POLICY).str();
    if policy != "Always" {
        errs.not_supported(&at.child("restartPolicy"), policy, &["Always"]);
    }
    if pod.get(k::ACTIVE_DEADLINE_SECONDS).is_set() {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errs.forbidden(&at.child("activeDeadlineSeconds"), &detail);
    }
}

/// A template of pods at `at`. Upstream: ValidatePodTemplateSpec.
pub(crate) fn template(errs: &mut ErrorList, template: Ref<'_>, at: &Path) {
    let meta = template.get(k::METADATA);
    rules::labels(errs, meta.get(k::LABELS), &at.child("labels"));
    generic::annotations(errs, meta.get(k::ANNOTATIONS), &at.child("annotations"));
    pod_validation::annotations(
        errs,
        meta.get(k::ANNOTATIONS),
        template.get(k::SPEC),
        &at.child("annotations"),
    );
    let (pod, at) = (template.get(k::SPEC), at.child("spec"));
    pod_validation::pod_spec(errs, pod, &at);
    if !pod.get(k::EPHEMERAL_CONTAINERS).is_empty() {
        errs.forbidden(&at.child("ephemeralContainers"), "ephemeral containers not allowed in pod template");
    }
}

/// Versions in which a selector may still change. Upstream: ValidateUpdate of the kinds' strategies.
const SELECTOR_CHANGES: &[(&str, &str)] = &[("apps", "v1beta1"), ("extensions", "v1beta1")];

/// The selector stays as it was made, except through the oldest versions.
pub(crate) fn selector_unchanged(errs: &mut ErrorList, gv: &GroupVersion, new: Ref<'_>, old: &Doc) {
    if !SELECTOR_CHANGES.contains(&(&*gv.group, &*gv.version)) {
        let was = old.get(k::SPEC).get(k::SELECTOR);
        rules::unchanged(errs, new.get(k::SELECTOR), was, &Path::new("spec").child("selector"));
    }
}

/// What becomes of pods when their owner is deleted without a word about them: the versions before `apps/v1` leave them.
pub(crate) fn default_propagation(gv: &GroupVersion) -> &'static str {
    if gv.group.is_empty() || gv.version.starts_with("v1beta") { "Orphan" } else { "Background" }
}

/// A version before `apps/v1`, deprecated in `since` and no longer served by upstream.
pub(crate) fn old_version(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    since: &str,
    defaults: fn(&mut Doc),
) -> Version {
    let warning = format!(
        "{group}/{version} {kind} is deprecated in {since}+, unavailable in v1.16+; use apps/v1 {kind}"
    );
    Version { defaults, deprecated: Some(warning.into()), ..v(group, version, kind) }
}

/// The counts of a status: none below zero, and none of the `parts` above the whole.
pub(crate) fn counts(errs: &mut ErrorList, status: Ref<'_>, parts: &[&str], others: &[&str]) {
    let at = Path::new("status");
    let all = status.get(k::REPLICAS).i64();
    for field in ["replicas"].iter().chain(parts).chain(others) {
        not_negative(errs, status.get(*field), &at.child(field));
    }
    for field in parts {
        let count = status.get(*field).i64();
        if count > all {
            errs.invalid(&at.child(field), count, "cannot be greater than status.replicas");
        }
    }
    let available = status.get(k::AVAILABLE_REPLICAS).i64();
    if available > status.get(k::READY_REPLICAS).i64() {
        errs.invalid(&at.child("availableReplicas"), available, "cannot be greater than readyReplicas");
    }
}
