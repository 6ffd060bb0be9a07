//! Lease: who leads, and which nodes are alive. Upstream: pkg/registry/coordination/lease.

use std::borrow::Cow;

use apimachinery::field::{ErrorList, Path};
use apimachinery::{Doc, k};

use crate::kind::*;
use crate::print::{AGE, NAME};

/// Leases.
pub(crate) fn lease() -> Kind {
    Kind {
        columns: Cow::Owned(vec![
            NAME,
            Column::path("Holder", "string", "Who has it.", "spec.holderIdentity"),
            AGE,
        ]),
        strategy: &Lease,
        ..Kind::new("coordination.k8s.io", "v1", "leases", "Lease")
    }
}

struct Lease;

impl Strategy for Lease {
    fn validate(&self, _op: &Op<'_>, new: &Doc, _old: Option<&Doc>, errs: &mut ErrorList) {
        let (spec, at) = (new.get(k::SPEC), Path::new("spec"));
        let seconds = spec.get(k::LEASE_DURATION_SECONDS);
        if seconds.is_set() && seconds.i64() <= 0 {
            errs.invalid(&at.child("leaseDurationSeconds"), seconds.i64(), "must be greater than 0");
        }
        let transitions = spec.get(k::LEASE_TRANSITIONS);
        if transitions.i64() < 0 {
            errs.invalid(
                &at.child("leaseTransitions"),
                transitions.i64(),
                "must be greater than or equal to 0",
            );
        }
        let holder = spec.get(k::HOLDER_IDENTITY);
        if holder.is_set() && holder.str().is_empty() {
            errs.invalid(&at.child("holderIdentity"), "", "must not be empty");
        }
    }

    /// A node's heartbeat may be lost in a power cut: the next one comes in seconds.
    fn class(&self, namespace: &str) -> Option<Class> {
        (namespace == "kube-node-lease").then_some(Class::Lazy)
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }
}
