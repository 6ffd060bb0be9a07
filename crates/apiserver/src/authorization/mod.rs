//! Who may do what: an ordered list of authorizers, of which the first with an opinion decides.
//!
//! Authorizers answer at once from the cacher's snapshots, which they were given as a [`crate::cacher::Lister`].
//! Upstream: k8s.io/apiserver/pkg/authorization/{authorizer,union}, pkg/endpoints/filters/authorization.go.

pub mod node;
pub mod rbac;

use apimachinery::Status;
use apimachinery::call::User;
use apimachinery::gvk::GroupResource;
use apimachinery::selector::FieldSelector;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// Who asks.
    pub user: &'a User,
    /// RBAC's word; for paths the HTTP method in lower case.
    pub verb: &'a str,
    /// Empty for the core group.
    pub group: &'a str,
    /// Such as `v1`.
    pub version: &'a str,
    /// The plural; empty for paths.
    pub resource: &'a str,
    /// Such as `status`; may be empty.
    pub subresource: &'a str,
    /// Empty for cluster-scoped resources and all namespaces.
    pub namespace: &'a str,
    /// Empty for collections.
    pub name: &'a str,
    /// The path, where it is no resource; else empty.
    pub path: &'a str,
    /// What a collection's labels are narrowed to, as it was sent; it may make no sense.
    pub label_selector: &'a str,
    /// The same of fields.
    pub field_selector: &'a str,
}

impl<'a> Attributes<'a> {
    /// Nothing but who asks and what for.
    pub fn of(user: &'a User, verb: &'a str) -> Attributes<'a> {
        Attributes {
            user,
            verb,
            group: "",
            version: "",
            resource: "",
            subresource: "",
            namespace: "",
            name: "",
            path: "",
            label_selector: "",
            field_selector: "",
        }
    }

    /// Whether only objects whose field has this value are asked for.
    pub fn demands(&self, field: &str, value: &str) -> bool {
        FieldSelector::parse(self.field_selector).is_ok_and(|s| s.requires(field) == Some(value))
    }

    /// Whether a resource is asked for, and not another path.
    pub fn is_resource(&self) -> bool {
        !self.resource.is_empty()
    }
}

/// An authorizer's opinion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes, and why (for audit).
    Allow(String),
    /// No, whatever others say, and why.
    Deny(String),
    /// Others decide; why there is no opinion, which may be empty.
    NoOpinion(String),
}

/// One source of permissions.
pub trait Authorizer: Send + Sync {
    /// The opinion, from what is known now.
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision;
}

/// Asks all in order. `system:masters` may do everything.
pub fn decide(all: &[Box<dyn Authorizer>], attributes: &Attributes<'_>) -> Decision {
    if attributes.user.groups.iter().any(|g| g == "system:masters") {
        return Decision::Allow("system:masters".into());
    }
    let mut reasons = Vec::new();
    for authorizer in all {
        match authorizer.authorize(attributes) {
            Decision::NoOpinion(reason) if reason.is_empty() => {}
            Decision::NoOpinion(reason) => reasons.push(reason),
            decided => return decided,
        }
    }
    Decision::NoOpinion(reasons.join(", "))
}

/// Asks all in order.
///
/// # Errors
/// 403 in upstream's words unless one allows it.
pub fn authorize(all: &[Box<dyn Authorizer>], attributes: &Attributes<'_>) -> Result<(), Status> {
    match decide(all, attributes) {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(why) | Decision::NoOpinion(why) => Err(forbidden(attributes, &why)),
    }
}

/// 403 in upstream's words. Upstream: pkg/endpoints/handlers/responsewriters/errors.go.
pub fn forbidden(attributes: &Attributes<'_>, why: &str) -> Status {
    let user = &attributes.user.name;
    let because = if why.is_empty() { String::new() } else { format!(": {why}") };
    if !attributes.is_resource() {
        let message = format!("User {user:?} cannot {} path {:?}{because}", attributes.verb, attributes.path);
        return Status::forbidden(&GroupResource::new("", ""), "", &message)
            .message_only(format!("forbidden: {message}"));
    }
    let resource = GroupResource {
        group: attributes.group.to_owned().into(),
        resource: attributes.resource.to_owned().into(),
    };
    let shown = match attributes.subresource {
        "" => attributes.resource.to_owned(),
        sub => format!("{}/{sub}", attributes.resource),
    };
    let group = attributes.group;
    let place = match attributes.namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let why = format!(
        "User {user:?} cannot {} resource {shown:?} in API group {group:?} {place}{because}",
        attributes.verb
    );
    Status::forbidden(&resource, attributes.name, &why)
}
