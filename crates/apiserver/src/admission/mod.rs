//! What changes or refuses an object on its way in: an ordered list of plugins, first all that change, then all that
//! only look, and last what must be written along with the object (a quota's charge).
//!
//! Plugins read the cacher's state, which was brought up to date when the request began; they are no clients.
//! Upstream: k8s.io/apiserver/pkg/admission, plugin/pkg/admission.

mod default_toleration_seconds;
mod limit_ranger;
mod namespace_lifecycle;
pub mod node_restriction;
mod priority;
mod rbac_escalation;
mod resource_quota;
mod service_account;

use apimachinery::call::BoxFuture;
use apimachinery::gvk::GroupResource;
use apimachinery::{Doc, Status};

use crate::Api;
use crate::endpoints::Request;
use crate::registry::store::Writes;

/// What is being done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "upstream's words")]
pub enum Operation {
    Create,
    Update,
    Delete,
}

/// What is to be admitted. Documents are of the stored version.
pub struct Attributes<'a> {
    /// The request.
    pub request: &'a Request,
    /// What is being done; patches are updates.
    pub operation: Operation,
    /// The object as it is to be; as it is, for deletes.
    pub object: Doc,
    /// The object as it is; `None` on create.
    pub old: Option<&'a Doc>,
    /// The object's name; may be empty for a collection's deletes.
    pub name: &'a str,
    /// Warnings for the client.
    pub warnings: Vec<String>,
}

impl Attributes<'_> {
    /// The resource.
    pub fn resource(&self) -> &GroupResource {
        &self.request.kind.storage
    }

    /// Whether it is this resource of the core group, itself or its subresource.
    pub fn is_core(&self, resource: &str, subresource: &str) -> bool {
        let storage = self.resource();
        storage.group.is_empty()
            && storage.resource == resource
            && self.request.target.subresource == subresource
    }

    /// The namespace; empty for kinds without.
    pub fn namespace(&self) -> &str {
        &self.request.target.namespace
    }

    /// 403 in this plugin's words.
    pub fn forbidden(&self, why: &str) -> Status {
        Status::forbidden(self.resource(), self.name, why)
    }
}

/// One admission plugin. Each method is optional.
pub trait Plugin: Send + Sync {
    /// As upstream names it: `ResourceQuota`.
    fn name(&self) -> &'static str;

    /// Changes the object, or refuses it.
    fn admit<'a>(&'a self, _attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async { Ok(()) })
    }

    /// Refuses the object as it will be stored.
    fn validate<'a>(&'a self, _attributes: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async { Ok(()) })
    }

    /// Adds what must be written along, or refuses. Called again, with the cache brought up to date, when something
    /// of that had changed meanwhile.
    fn reserve(&self, _attributes: &Attributes<'_>, _along: &mut Writes) -> Result<(), Status> {
        Ok(())
    }
}

/// The usual plugins, in order.
pub fn plugins() -> Vec<Box<dyn Plugin>> {
    vec![
        Box::new(namespace_lifecycle::NamespaceLifecycle),
        Box::new(limit_ranger::LimitRanger),
        Box::new(service_account::ServiceAccount),
        Box::new(node_restriction::NodeRestriction),
        Box::new(priority::Priority),
        Box::new(rbac_escalation::RbacEscalation),
        Box::new(default_toleration_seconds::DefaultTolerationSeconds),
        Box::new(resource_quota::ResourceQuota),
    ]
}

/// Lets every plugin change the object.
///
/// # Errors
/// The first refusal.
pub async fn admit(api: &Api, attributes: &mut Attributes<'_>) -> Result<(), Status> {
    for plugin in &api.admission {
        plugin.admit(attributes).await?;
    }
    Ok(())
}

/// Lets every plugin look at the object as it will be stored.
///
/// # Errors
/// The first refusal.
pub async fn validate(api: &Api, attributes: &Attributes<'_>) -> Result<(), Status> {
    for plugin in &api.admission {
        plugin.validate(attributes).await?;
    }
    Ok(())
}

/// Collects what must be written along with the object.
///
/// # Errors
/// The first refusal.
pub fn reserve(api: &Api, attributes: &Attributes<'_>) -> Result<Writes, Status> {
    let mut along = Writes::default();
    for plugin in &api.admission {
        plugin.reserve(attributes, &mut along)?;
    }
    Ok(along)
}
