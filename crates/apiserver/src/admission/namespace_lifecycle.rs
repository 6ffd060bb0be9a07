//! Nothing is made in a namespace that does not exist or is going away, and the system's namespaces stay.
//! Upstream: k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle.

use apimachinery::call::BoxFuture;
use apimachinery::gvk::GroupResource;
use apimachinery::{Status, k};

use super::{Attributes, Operation, Plugin};
use crate::cacher::Lister;

const NAMESPACES: GroupResource = GroupResource::new("", "namespaces");
/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// The plugin.
pub struct NamespaceLifecycle;

impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn admit<'a>(&'a self, attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move { check(attributes) })
    }

    fn validate<'a>(&'a self, attributes: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            let deletes = attributes.operation == Operation::Delete && attributes.is_core("namespaces", "");
            if deletes && IMMORTAL.contains(&attributes.name) {
                return Err(attributes.forbidden("this namespace may not be deleted"));
            }
            Ok(())
        })
    }
}

fn check(attributes: &Attributes<'_>) -> Result<(), Status> {
    let namespace = attributes.namespace();
    // Whoever may ask what is allowed may ask it of any namespace.
    let review = attributes.resource().group == "authorization.k8s.io";
    if namespace.is_empty() || attributes.operation == Operation::Delete || review {
        return Ok(());
    }
    let Some(found) = attributes.request.api.cacher.get(&NAMESPACES, "", namespace) else {
        return Err(Status::not_found(&NAMESPACES, namespace));
    };
    let going = || {
        found.kept().get(k::METADATA).get(k::DELETION_TIMESTAMP).is_set()
            || found.kept().get(k::STATUS).get(k::PHASE).str() == "Terminating"
    };
    if attributes.operation == Operation::Create && going() {
        let why =
            format!("unable to create new content in namespace {namespace} because it is being terminated");
        let cause = format!("namespace {namespace} is being terminated");
        return Err(attributes.forbidden(&why).cause("NamespaceTerminating", &cause, "metadata.namespace"));
    }
    Ok(())
}
