//! Deployment: declarative updates for ReplicaSets. The old groups differ in defaults and have `rollbackTo`, which
//! is kept as upstream's annotation; all are stored as `apps/v1`. Upstream: pkg/registry/apps/deployment, pkg/apis/{apps,extensions}/v1beta1.

use std::borrow::Cow;

use apimachinery::field::{ErrorList, Path};
use apimachinery::{Doc, Edit, GroupVersion, Ref, doc, k};

use crate::kind::*;
use crate::print::{AGE, NAME};
use crate::rules::{int_or_percent, int_or_percent_value, not_negative, one_of};
use crate::workload::{self, SelectorForm, selector_and_template};

/// Deployments.
pub(crate) fn kind() -> Kind {
    let old = |group, version, since, defaults| Version {
        to_storage: Some(keep_rollback),
        ..workload::old_version(group, version, "Deployment", since, defaults)
    };
    Kind {
        short: names(&["deploy"]),
        categories: names(&["all"]),
        subresources: vec![Sub::SCALE, Sub::STATUS],
        columns: Cow::Borrowed(COLUMNS),
        strategy: &Deployment,
        versions: vec![
            Version { defaults, ..v("apps", "v1", "Deployment") },
            old("apps", "v1beta2", "v1.9", defaults),
            old("apps", "v1beta1", "v1.8", beta1),
            old("extensions", "v1beta1", "v1.8", extensions),
        ],
        ..Kind::new("apps", "v1", "deployments", "Deployment")
    }
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::code("Ready", "string", "Pods that are ready, of those wanted.", |d, _| {
        Cell::from(format!(
            "{}/{}",
            d.get(k::STATUS).get(k::READY_REPLICAS).i64(),
            d.get(k::SPEC).get(k::REPLICAS).i64()
        ))
    }),
    Column::code("Up-to-date", "string", "Pods of the present template.", |d, _| {
        Cell::Int(d.get(k::STATUS).get(k::UPDATED_REPLICAS).i64())
    }),
    Column::code("Available", "string", "Pods that are ready for long enough.", |d, _| {
        Cell::Int(d.get(k::STATUS).get(k::AVAILABLE_REPLICAS).i64())
    }),
    AGE,
    workload::CONTAINERS,
    workload::IMAGES,
    workload::SELECTOR,
];

fn defaults(doc: &mut Doc) {
    common(doc, doc!("25%").root(), 600, 10);
}

fn beta1(doc: &mut Doc) {
    workload::selector_from_template(doc, SelectorForm::Expressions);
    common(doc, doc!("25%").root(), 600, 2);
}

fn extensions(doc: &mut Doc) {
    workload::selector_from_template(doc, SelectorForm::Expressions);
    common(doc, doc!(1).root(), i64::from(i32::MAX), i64::from(i32::MAX));
}

fn common(doc: &mut Doc, step: Ref<'_>, deadline: i64, history: i64) {
    workload::defaults(doc);
    let mut spec = doc.edit().at(k::SPEC);
    strategy(spec.reborrow().at(k::STRATEGY), step);
    spec.set_default(k::REVISION_HISTORY_LIMIT, history);
    spec.set_default(k::PROGRESS_DEADLINE_SECONDS, deadline);
}

fn strategy(mut strategy: Edit<'_>, step: Ref<'_>) {
    if strategy.read().get(k::TYPE).str().is_empty() {
        strategy.set(k::TYPE, "RollingUpdate");
    }
    if strategy.read().get(k::TYPE).str() == "RollingUpdate" {
        strategy.at(k::ROLLING_UPDATE).set_default(k::MAX_UNAVAILABLE, step).set_default(k::MAX_SURGE, step);
    }
}

/// Where `apps/v1`, which has no `rollbackTo`, keeps it for the controller.
const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";

fn keep_rollback(doc: &mut Doc) {
    let rollback = doc.get(k::SPEC).get(k::ROLLBACK_TO);
    if rollback.is_set() {
        let revision = rollback.get(k::REVISION).i64().to_string();
        doc.edit().at(k::METADATA).at(k::ANNOTATIONS).set(ROLLBACK_TO, revision);
        doc.edit().at(k::SPEC).remove(k::ROLLBACK_TO);
    }
}

struct Deployment;

impl Strategy for Deployment {
    fn validate(&self, op: &Op<'_>, new: &Doc, old: Option<&Doc>, errs: &mut ErrorList) {
        if op.subresource == "status" {
            return workload::counts(
                errs,
                new.get(k::STATUS),
                &["updatedReplicas", "readyReplicas", "availableReplicas"],
                &["observedGeneration", "unavailableReplicas", "collisionCount", "terminatingReplicas"],
            );
        }
        let (spec, at) = (new.get(k::SPEC), Path::new("spec"));
        not_negative(errs, spec.get(k::REPLICAS), &at.child("replicas"));
        selector_and_template(errs, spec, &at, SelectorForm::Expressions, "ReplicaSet");
        rollout(errs, spec.get(k::STRATEGY), &at.child("strategy"));
        not_negative(errs, spec.get(k::MIN_READY_SECONDS), &at.child("minReadySeconds"));
        not_negative(errs, spec.get(k::REVISION_HISTORY_LIMIT), &at.child("revisionHistoryLimit"));
        let deadline = spec.get(k::PROGRESS_DEADLINE_SECONDS);
        not_negative(errs, deadline, &at.child("progressDeadlineSeconds"));
        if deadline.is_set() && deadline.i64() <= spec.get(k::MIN_READY_SECONDS).i64() {
            errs.invalid(
                &at.child("progressDeadlineSeconds"),
                deadline.i64(),
                "must be greater than minReadySeconds",
            );
        }
        if let Some(old) = old {
            workload::selector_unchanged(errs, op.gv, spec, old);
        }
    }

    fn warnings(&self, op: &Op<'_>, new: &Doc, old: Option<&Doc>) -> Vec<String> {
        workload::warnings(op, new, old)
    }

    fn generation(&self) -> Generation {
        Generation::SpecAndAnnotations
    }

    fn labels_change_with_status(&self) -> bool {
        false
    }

    fn default_propagation(&self, gv: &GroupVersion) -> &'static str {
        workload::default_propagation(gv)
    }
}

fn rollout(errs: &mut ErrorList, strategy: Ref<'_>, at: &Path) {
    one_of(errs, strategy.get(k::TYPE), &at.child("type"), &["Recreate", "RollingUpdate"]);
    let (rolling, at) = (strategy.get(k::ROLLING_UPDATE), at.child("rollingUpdate"));
    if strategy.get(k::TYPE).str() == "Recreate" && rolling.is_set() {
        return errs.forbidden(&at, "may not be specified when strategy `type` is 'Recreate'");
    }
    if !rolling.is_set() {
        return;
    }
    let (surge, unavailable) = (rolling.get(k::MAX_SURGE), rolling.get(k::MAX_UNAVAILABLE));
    int_or_percent(errs, unavailable, &at.child("maxUnavailable"));
    int_or_percent(errs, surge, &at.child("maxSurge"));
    if int_or_percent_value(unavailable) == 0 && int_or_percent_value(surge) == 0 {
        errs.invalid(&at.child("maxUnavailable"), unavailable, "may not be 0 when `maxSurge` is 0");
    }
    if unavailable.opt_str().is_some() && int_or_percent_value(unavailable) > 100 {
        errs.invalid(&at.child("maxUnavailable"), unavailable, "must not be greater than 100%");
    }
}
