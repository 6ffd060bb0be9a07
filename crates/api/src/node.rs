//! RuntimeClass: which of a node's runtimes runs a pod, and what that costs. Upstream: pkg/registry/node/runtimeclass,
//! pkg/apis/node/validation.

use std::borrow::Cow;

use apimachinery::field::{ErrorList, Path};
use apimachinery::{Doc, k, validation};

use crate::core::{resources, scheduling_rules};
use crate::kind::*;
use crate::print::{AGE, NAME};
use crate::rules::{complain, labels, unchanged};

/// Runtime classes.
pub(crate) fn runtime_class() -> Kind {
    Kind {
        scope: Scope::Cluster,
        columns: Cow::Owned(vec![
            NAME,
            Column::path("Handler", "string", "The runtime's name.", "handler"),
            AGE,
        ]),
        strategy: &RuntimeClass,
        ..Kind::new("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass")
    }
}

struct RuntimeClass;

impl Strategy for RuntimeClass {
    fn validate(&self, _op: &Op<'_>, new: &Doc, old: Option<&Doc>, errs: &mut ErrorList) {
        let (handler, at) = (new.get(k::HANDLER), Path::new("handler"));
        complain(errs, &at, handler.str(), validation::dns1123_label(handler.str()));
        if let Some(old) = old {
            unchanged(errs, handler, old.get(k::HANDLER), &at);
        }
        let at = Path::new("overhead").child("podFixed");
        for (name, amount) in new.get(k::OVERHEAD).get(k::POD_FIXED).entries() {
            resources::amount(errs, name, amount, &at.key(name));
        }
        let (scheduling, at) = (new.get(k::SCHEDULING), Path::new("scheduling"));
        labels(errs, scheduling.get(k::NODE_SELECTOR), &at.child("nodeSelector"));
        scheduling_rules::tolerations(errs, scheduling.get(k::TOLERATIONS), &at.child("tolerations"));
    }
}
