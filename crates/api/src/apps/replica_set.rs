//! ReplicaSet: a number of pods of one template. Upstream: pkg/registry/apps/replicaset, pkg/apis/{apps,extensions}.

use std::borrow::Cow;

use apimachinery::field::{ErrorList, Path};
use apimachinery::{Doc, GroupVersion, k};

use crate::kind::*;
use crate::rules::not_negative;
use crate::workload::{self, SelectorForm, selector_and_template};

/// The counts that are parts of the whole, of replica sets and replication controllers.
pub(crate) const PARTS: &[&str] = &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];

/// Replica sets.
pub(crate) fn kind() -> Kind {
    let old = |group, version, since, defaults| {
        workload::old_version(group, version, "ReplicaSet", since, defaults)
    };
    Kind {
        short: names(&["rs"]),
        categories: names(&["all"]),
        subresources: vec![Sub::SCALE, Sub::STATUS],
        columns: Cow::Borrowed(workload::COUNT_COLUMNS),
        fields: Cow::Owned(vec![SelectableField::path("status.replicas")]),
        strategy: &ReplicaSet,
        versions: vec![
            Version { defaults: workload::defaults, ..v("apps", "v1", "ReplicaSet") },
            old("apps", "v1beta2", "v1.9", workload::defaults),
            old("extensions", "v1beta1", "v1.8", extensions),
        ],
        ..Kind::new("apps", "v1", "replicasets", "ReplicaSet")
    }
}

fn extensions(doc: &mut Doc) {
    workload::selector_from_template(doc, SelectorForm::Expressions);
    workload::defaults(doc);
}

struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn validate(&self, op: &Op<'_>, new: &Doc, old: Option<&Doc>, errs: &mut ErrorList) {
        if op.subresource == "status" {
            let others = &["observedGeneration", "terminatingReplicas"];
            return workload::counts(errs, new.get(k::STATUS), PARTS, others);
        }
        let (spec, at) = (new.get(k::SPEC), Path::new("spec"));
        not_negative(errs, spec.get(k::REPLICAS), &at.child("replicas"));
        not_negative(errs, spec.get(k::MIN_READY_SECONDS), &at.child("minReadySeconds"));
        selector_and_template(errs, spec, &at, SelectorForm::Expressions, "ReplicaSet");
        if let Some(old) = old {
            workload::selector_unchanged(errs, op.gv, spec, old);
        }
    }

    fn warnings(&self, op: &Op<'_>, new: &Doc, old: Option<&Doc>) -> Vec<String> {
        workload::warnings(op, new, old)
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }

    fn default_propagation(&self, gv: &GroupVersion) -> &'static str {
        workload::default_propagation(gv)
    }
}
