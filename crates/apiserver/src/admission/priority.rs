//! A pod's priority follows from its class. Upstream: plugin/pkg/admission/priority.

use std::sync::Arc;

use apimachinery::call::BoxFuture;
use apimachinery::call::Stored;
use apimachinery::gvk::GroupResource;
use apimachinery::{Status, k};

use super::{Attributes, Operation, Plugin};
use crate::cacher::Lister;

const CLASSES: GroupResource = GroupResource::new("scheduling.k8s.io", "priorityclasses");
/// The classes that every cluster has.
const SYSTEM: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];
const PREEMPTS: &str = "PreemptLowerPriority";

/// The plugin.
pub struct Priority;

impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn admit<'a>(&'a self, attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            if !attributes.is_core("pods", "") {
                return Ok(());
            }
            match (attributes.operation, attributes.old) {
                (Operation::Create, _) => resolve(attributes),
                (Operation::Update, Some(old)) => {
                    // Clients that never read the computed fields may leave them out.
                    for key in [k::PRIORITY, k::PREEMPTION_POLICY] {
                        let was = old.get(k::SPEC).get(key);
                        if was.is_set() {
                            attributes.object.edit().at(k::SPEC).set_default(key, was);
                        }
                    }
                    Ok(())
                }
                _ => Ok(()),
            }
        })
    }

    fn validate<'a>(&'a self, attributes: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move { one_default(attributes) })
    }
}

/// There is one default class at most.
fn one_default(attributes: &Attributes<'_>) -> Result<(), Status> {
    let concerns = *attributes.resource() == CLASSES && attributes.operation != Operation::Delete;
    if !concerns || !attributes.object.get(k::GLOBAL_DEFAULT).bool() {
        return Ok(());
    }
    match default_class(attributes).filter(|class| class.name() != attributes.name) {
        None => Ok(()),
        Some(other) => {
            let name = other.name();
            let why =
                format!("PriorityClass {name} is already marked as default. Only one default can exist");
            Err(attributes.forbidden(&why))
        }
    }
}

/// The class of pods that name none: of several the lowest.
fn default_class(attributes: &Attributes<'_>) -> Option<Arc<Stored>> {
    let all = attributes.request.api.cacher.list(&CLASSES, "");
    all.into_iter()
        .filter(|class| class.kept().get(k::GLOBAL_DEFAULT).bool())
        .min_by_key(|class| class.kept().get(k::VALUE).i64())
}

fn resolve(attributes: &mut Attributes<'_>) -> Result<(), Status> {
    let spec = attributes.object.get(k::SPEC);
    let mut class = spec.get(k::PRIORITY_CLASS_NAME).str().to_owned();
    let given = spec.get(k::PRIORITY).opt_i64();
    let lister = &attributes.request.api.cacher;
    let mut policy = PREEMPTS.to_owned();
    let value = if class.is_empty() {
        match default_class(attributes) {
            None => 0,
            Some(found) => {
                class = found.name().to_owned();
                policy = policy_of(found.kept().get(k::PREEMPTION_POLICY).str());
                found.kept().get(k::VALUE).i64()
            }
        }
    } else if let Some(found) = lister.get(&CLASSES, "", &class) {
        policy = policy_of(found.kept().get(k::PREEMPTION_POLICY).str());
        found.kept().get(k::VALUE).i64()
    } else if let Some((_, value)) = SYSTEM.iter().find(|(name, _)| *name == class) {
        *value
    } else {
        return Err(attributes.forbidden(&format!("no PriorityClass with name {class} was found")));
    };
    if let Some(given) = given.filter(|g| *g != value) {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
        );
        return Err(attributes.forbidden(&why));
    }
    let mut spec = attributes.object.edit().at(k::SPEC);
    spec.set_opt(k::PRIORITY_CLASS_NAME, (!class.is_empty()).then_some(class));
    spec.set(k::PRIORITY, value).set_default(k::PREEMPTION_POLICY, policy);
    Ok(())
}

fn policy_of(text: &str) -> String {
    if text.is_empty() { PREEMPTS.to_owned() } else { text.to_owned() }
}
