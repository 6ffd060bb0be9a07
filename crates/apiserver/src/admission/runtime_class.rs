//! What a pod's runtime class says of it: its overhead, and where it may be placed.
//! Upstream: plugin/pkg/admission/runtimeclass.

use std::sync::Arc;

use apimachinery::call::BoxFuture;
use apimachinery::call::Stored;
use apimachinery::gvk::GroupResource;
use apimachinery::{Doc, Ref, Status, k};

use super::{Attributes, Operation, Plugin};
use crate::cacher::Lister;

const CLASSES: GroupResource = GroupResource::new("node.k8s.io", "runtimeclasses");
const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
const NO_CLASS: &str = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";

/// The plugin.
pub struct RuntimeClass;

impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn admit<'a>(&'a self, attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            let Some(class) = class(attributes)? else { return Ok(()) };
            let changed = change(&mut attributes.object, class.kept().root());
            changed.map_err(|why| attributes.forbidden(&why))
        })
    }

    fn validate<'a>(&'a self, attributes: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            if !is_new_pod(attributes) {
                return Ok(());
            }
            let class = class(attributes)?;
            let defined = class.as_ref().map_or(Ref::absent(), |item| overhead(item.kept().root()));
            let own = attributes.object.get(k::SPEC).get(k::OVERHEAD);
            match (defined.is_empty(), own.is_empty()) {
                (true, false) => Err(attributes.forbidden(NO_CLASS)),
                (false, _) if !own.same(defined) => Err(attributes.forbidden(MISMATCH)),
                _ => Ok(()),
            }
        })
    }
}

fn is_new_pod(attributes: &Attributes<'_>) -> bool {
    attributes.operation == Operation::Create && attributes.is_core("pods", "")
}

/// The class that a new pod names.
fn class(attributes: &Attributes<'_>) -> Result<Option<Arc<Stored>>, Status> {
    let name = attributes.object.get(k::SPEC).get(k::RUNTIME_CLASS_NAME);
    if !is_new_pod(attributes) || !name.is_set() {
        return Ok(None);
    }
    let missing = || attributes.forbidden(&format!("pod rejected: RuntimeClass {:?} not found", name.str()));
    attributes.request.api.cacher.get(&CLASSES, "", name.str()).map(Some).ok_or_else(missing)
}

fn overhead(class: Ref<'_>) -> Ref<'_> {
    class.get(k::OVERHEAD).get(k::POD_FIXED)
}

/// Writes into the pod what its class says.
fn change(pod: &mut Doc, class: Ref<'_>) -> Result<(), String> {
    let mut spec = pod.edit().at(k::SPEC);
    let defined = overhead(class);
    if !defined.is_empty() {
        let own = spec.read().get(k::OVERHEAD);
        if !own.is_empty() && !own.same(defined) {
            return Err(MISMATCH.to_owned());
        }
        spec.set(k::OVERHEAD, defined);
    }
    let scheduling = class.get(k::SCHEDULING);
    for (key, value) in scheduling.get(k::NODE_SELECTOR).entries() {
        let own = spec.read().get(k::NODE_SELECTOR).get(key);
        if own.exists() && !own.same(value) {
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                value.str(),
                own.str()
            ));
        }
        spec.reborrow().at(k::NODE_SELECTOR).set(key, value);
    }
    for toleration in scheduling.get(k::TOLERATIONS).items() {
        if !spec.read().get(k::TOLERATIONS).items().any(|own| own.same(toleration)) {
            spec.reborrow().list(k::TOLERATIONS).push(toleration);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::doc;

    #[test]
    fn a_class_places_its_pods_and_says_what_they_cost() {
        let class = doc!({ "overhead": { "podFixed": { "cpu": "10m" } }, "scheduling": {
            "nodeSelector": { "a": "b" }, "tolerations": [{ "key": "t", "operator": "Exists" }] } });
        let mut pod = doc!({ "spec": { "nodeSelector": { "c": "d" } } });
        assert_eq!(change(&mut pod, class.root()), Ok(()));
        let wanted = doc!({ "spec": { "nodeSelector": { "c": "d", "a": "b" }, "overhead": { "cpu": "10m" },
            "tolerations": [{ "key": "t", "operator": "Exists" }] } });
        assert_eq!(pod, wanted);
        assert_eq!(change(&mut pod, class.root()), Ok(()));
        assert_eq!(pod, wanted, "once more is the same");
        let mut other = doc!({ "spec": { "nodeSelector": { "a": "x" } } });
        let conflict = "conflict: runtimeClass.scheduling.nodeSelector[a] = b; pod.spec.nodeSelector[a] = x";
        assert_eq!(change(&mut other, class.root()), Err(conflict.to_owned()));
        let mut dear = doc!({ "spec": { "overhead": { "cpu": "1" } } });
        assert_eq!(change(&mut dear, class.root()), Err(MISMATCH.to_owned()));
    }
}
