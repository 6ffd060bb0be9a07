//! What changes or refuses an object on its way in: an ordered list of plugins, first all that change, then all that
//! only look, and last what must be written along with the object (a quota's charge).
//!
//! Plugins read the cacher's state, which was brought up to date when the request began; they are no clients.
//! Upstream: k8s.io/apiserver/pkg/admission, plugin/pkg/admission.

mod default_ingress_class;
mod default_toleration_seconds;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod priority;
mod rbac_escalation;
mod resource_quota;
mod runtime_class;
mod service_account;
mod taint_nodes_by_condition;

use api::SubKind;
use apimachinery::call::{BoxFuture, User, Verb};
use apimachinery::gvk::GroupResource;
use apimachinery::{Doc, Status, doc};

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
    Connect,
}

/// What is to be admitted. Documents are of the stored version.
pub struct Attributes<'a> {
    /// The request.
    pub request: &'a Request,
    /// What is being done; patches are updates.
    pub operation: Operation,
    /// The object as it is to be; as it is, for deletes; the options, for what connects.
    pub object: Doc,
    /// The object as it is; `None` on create.
    pub old: Option<&'a Doc>,
    /// The object's name; may be empty for a collection's deletes.
    pub name: &'a str,
    /// Warnings for the client.
    pub warnings: Vec<String>,
}

impl<'a> Attributes<'a> {
    /// What is to be admitted, without warnings yet.
    pub fn new(
        request: &'a Request,
        operation: Operation,
        object: Doc,
        old: Option<&'a Doc>,
        name: &'a str,
    ) -> Attributes<'a> {
        Attributes { request, operation, object, old, name, warnings: Vec::new() }
    }

    /// The part of the object that is addressed; empty for the object itself.
    pub fn subresource(&self) -> &'a str {
        &self.request.target.subresource
    }

    /// Who asks.
    pub fn user(&self) -> &'a User {
        &self.request.user
    }

    /// Tells audit something under the plugin's own name: `<plugin>/<key>`.
    pub fn note(&self, key: String, value: String) {
        self.request.annotations.note(key, value);
    }

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
        Box::new(taint_nodes_by_condition::TaintNodesByCondition),
        Box::new(priority::Priority),
        Box::new(rbac_escalation::RbacEscalation),
        Box::new(default_toleration_seconds::DefaultTolerationSeconds),
        Box::new(runtime_class::RuntimeClass),
        Box::new(default_ingress_class::DefaultIngressClass),
        Box::new(resource_quota::ResourceQuota),
    ]
}

/// Lets every plugin change and look at what is not stored: what was created to ask something.
///
/// # Errors
/// The first refusal.
pub async fn asked(request: &Request, object: Doc) -> Result<Doc, Status> {
    request.api.cacher.catch_up().await?;
    let mut attributes = Attributes::new(request, Operation::Create, object, None, &request.target.name);
    admit(&request.api, &mut attributes).await?;
    validate(&request.api, &attributes).await?;
    Ok(attributes.object)
}

/// Lets every plugin look at what connects. Reading a log is a read and passes none, as upstream.
///
/// # Errors
/// The first refusal.
pub async fn connect(request: &Request) -> Result<(), Status> {
    use SubKind::{Attach, Exec, PortForward, Proxy};
    let Some(sub) = request.sub().filter(|s| matches!(s.does, Attach | Exec | PortForward | Proxy)) else {
        return Ok(());
    };
    debug_assert_eq!(request.verb, Verb::Connect, "only what connects addresses these");
    request.api.cacher.catch_up().await?;
    let mut options = doc!({ "kind": sub.kind, "apiVersion": sub.group_version(request.gv()).to_string() });
    for (name, value) in &request.options.query {
        // A command is a list of its words.
        match name.as_str() {
            "command" => {
                options.edit().list(name).push(value);
            }
            "stdin" | "stdout" | "stderr" | "tty" => {
                options.edit().set(name, !matches!(value.as_str(), "false" | "0"));
            }
            _ => {
                options.edit().set(name, value);
            }
        }
    }
    let mut attributes = Attributes::new(request, Operation::Connect, options, None, &request.target.name);
    admit(&request.api, &mut attributes).await?;
    validate(&request.api, &attributes).await
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
