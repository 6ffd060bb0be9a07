//! PriorityClass: how much pods matter. Upstream: pkg/registry/scheduling/priorityclass.

use std::borrow::Cow;

use apimachinery::field::{ErrorList, Path};
use apimachinery::{Doc, k};

use crate::kind::*;
use crate::print::{AGE, NAME};
use crate::rules::one_of;

/// The highest value that is not the system's.
const VALUE_MAX: i64 = 1_000_000_000;
/// The system's own.
const SYSTEM: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// Priority classes.
pub(crate) fn priority_class() -> Kind {
    Kind {
        short: names(&["pc"]),
        scope: Scope::Cluster,
        columns: Cow::Owned(vec![
            NAME,
            Column::code("Value", "integer", "The priority.", |pc, _| Cell::Int(pc.get(k::VALUE).i64())),
            Column::code("Global-Default", "boolean", "Whether pods without a class get it.", |pc, _| {
                Cell::Bool(pc.get(k::GLOBAL_DEFAULT).bool())
            }),
            AGE,
            Column::path(
                "PreemptionPolicy",
                "string",
                "Whether its pods may displace others.",
                "preemptionPolicy",
            ),
        ]),
        strategy: &PriorityClass,
        ..Kind::new("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass").defaults(|doc| {
            doc.edit().set_default(k::PREEMPTION_POLICY, "PreemptLowerPriority");
        })
    }
}

struct PriorityClass;

impl Strategy for PriorityClass {
    fn validate(&self, _op: &Op<'_>, new: &Doc, old: Option<&Doc>, errs: &mut ErrorList) {
        let (name, value) = (new.get(k::METADATA).get(k::NAME).str(), new.get(k::VALUE).i64());
        if name.starts_with("system-") {
            let why = match SYSTEM.iter().find(|(system, _)| *system == name) {
                None => Some(format!("{name} is not a known system priority class")),
                Some((_, known)) if *known != value => {
                    Some(format!("value of {name} PriorityClass must be {known}"))
                }
                Some(_) if new.get(k::GLOBAL_DEFAULT).bool() => {
                    Some(format!("globalDefault of {name} PriorityClass must be false"))
                }
                Some(_) => None,
            };
            if let Some(why) = why {
                let reserved = "priority class names with 'system-' prefix are reserved for system use only";
                let at = Path::new("metadata").child("name");
                errs.forbidden(&at, &format!("{reserved}. error: {why}"));
            }
        } else if value > VALUE_MAX {
            let detail = format!("maximum allowed value of a user defined priority is {VALUE_MAX}");
            errs.forbidden(&Path::new("value"), &detail);
        }
        one_of(
            errs,
            new.get(k::PREEMPTION_POLICY),
            &Path::new("preemptionPolicy"),
            &["PreemptLowerPriority", "Never"],
        );
        if let Some(old) = old {
            if old.get(k::VALUE).i64() != value {
                errs.forbidden(&Path::new("value"), "may not be changed in an update.");
            }
            if !old.get(k::PREEMPTION_POLICY).same(new.get(k::PREEMPTION_POLICY)) {
                errs.invalid(
                    &Path::new("preemptionPolicy"),
                    new.get(k::PREEMPTION_POLICY).str(),
                    "field is immutable",
                );
            }
        }
    }
}
