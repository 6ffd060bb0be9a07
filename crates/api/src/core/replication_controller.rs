//! ReplicationController: what ReplicaSets were before they had expressions; its selector is a map of labels.
//! Upstream: pkg/registry/core/replicationcontroller, ValidateReplicationController.

use std::borrow::Cow;

use apimachinery::field::{ErrorList, Path};
use apimachinery::{Doc, GroupVersion, k};

use crate::apps::REPLICA_PARTS;
use crate::kind::*;
use crate::rules::not_negative;
use crate::workload::{self, SelectorForm, selector_and_template};

/// Replication controllers.
pub(crate) fn kind() -> Kind {
    Kind {
        short: names(&["rc"]),
        categories: names(&["all"]),
        key_prefix: "/registry/controllers".into(),
        subresources: vec![Sub::SCALE, Sub::STATUS],
        columns: Cow::Borrowed(workload::COUNT_COLUMNS),
        fields: Cow::Owned(vec![SelectableField::path("status.replicas")]),
        strategy: &ReplicationController,
        ..Kind::new("", "v1", "replicationcontrollers", "ReplicationController").defaults(defaults)
    }
}

fn defaults(doc: &mut Doc) {
    workload::selector_from_template(doc, SelectorForm::Map);
    if doc.get(k::SPEC).get(k::TEMPLATE).is_set() {
        workload::defaults(doc);
    } else {
        doc.edit().at(k::SPEC).set_default(k::REPLICAS, 1);
    }
}

struct ReplicationController;

impl Strategy for ReplicationController {
    fn validate(&self, op: &Op<'_>, new: &Doc, _old: Option<&Doc>, errs: &mut ErrorList) {
        if op.subresource == "status" {
            return workload::counts(errs, new.get(k::STATUS), REPLICA_PARTS, &["observedGeneration"]);
        }
        let (spec, at) = (new.get(k::SPEC), Path::new("spec"));
        not_negative(errs, spec.get(k::MIN_READY_SECONDS), &at.child("minReadySeconds"));
        not_negative(errs, spec.get(k::REPLICAS), &at.child("replicas"));
        selector_and_template(errs, spec, &at, SelectorForm::Map, "ReplicationController");
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
