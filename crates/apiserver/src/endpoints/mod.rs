//! From an allowed request to its answer: the route to the verb's file.
//!
//! Upstream: k8s.io/apiserver/pkg/endpoints/{installer.go,handlers}.

pub mod create;
pub mod decode;
pub mod delete;
pub mod delete_collection;
mod get;
pub mod list;
pub(crate) mod options;
pub mod patch;
pub mod update;
pub mod watch;

use std::sync::Arc;

use api::{Action, Class, Kind, Op, Sub, SubKind, Version};
use apimachinery::call::{Accept, Body, Options, Rendering, Reply, ResourceTarget, Target, User, Verb, Wire};
use apimachinery::gvk::GroupVersion;
use apimachinery::{Call, Status};
use base::time::Timestamp;

use crate::filters::audit::Annotations;
use crate::registry::subresources;
use crate::server::request::ACCEPTED;
use crate::{Api, admission};

/// A request for a resource, once it is known who asks and what for.
pub struct Request {
    /// The server.
    pub api: Arc<Api>,
    /// Who asks.
    pub user: Arc<User>,
    /// Of which kind.
    pub kind: Arc<Kind>,
    /// In which version the client speaks: index into [`Kind::versions`].
    pub version: usize,
    /// What is asked for.
    pub target: ResourceTarget,
    /// What to do.
    pub verb: Verb,
    /// How.
    pub options: Options,
    /// In which form the answer is wanted.
    pub accept: Accept,
    /// What was sent along.
    pub body: Body,
    /// Facts of the connection.
    pub wire: Wire,
    /// What audit is told besides.
    pub annotations: Annotations,
    /// When the request came.
    pub now: Timestamp,
}

impl Request {
    /// Finds what the call addresses.
    ///
    /// # Errors
    /// 404 for resources that are not served.
    pub fn new(
        api: &Arc<Api>,
        call: Call,
        user: Arc<User>,
        annotations: Annotations,
    ) -> Result<Box<Request>, Status> {
        let Target::Resource(target) = call.target else { return Err(Status::unknown_path()) };
        let (kind, version) = api.kinds.served(&target.gvr).ok_or_else(Status::unknown_path)?;
        let unplaced = kind.is_namespaced() && target.namespace.is_empty() && !target.name.is_empty();
        let misplaced = !kind.is_namespaced() && !target.namespace.is_empty();
        let beyond = target.subresource != "proxy" && !target.rest.trim_matches('/').is_empty();
        if misplaced || unplaced || beyond {
            return Err(Status::unknown_path());
        }
        Ok(Box::new(Request {
            api: api.clone(),
            user,
            kind,
            version,
            target,
            verb: call.verb,
            options: call.options,
            accept: call.accept,
            body: call.body,
            wire: call.wire,
            annotations,
            now: base::time::now(),
        }))
    }

    /// The version in which the client speaks.
    pub fn served(&self) -> &Version {
        &self.kind.versions[self.version]
    }

    /// The group and version in which the client speaks.
    pub fn gv(&self) -> &GroupVersion {
        &self.served().gv
    }

    /// What the kind's hooks are told.
    pub fn op(&self, action: Action) -> Op<'_> {
        Op {
            action,
            subresource: &self.target.subresource,
            gv: self.gv(),
            dry_run: self.options.dry_run,
            user: &self.user,
            now: self.now,
        }
    }

    /// The subresource that is asked for.
    pub fn sub(&self) -> Option<&Sub> {
        self.kind.sub(&self.target.subresource)
    }

    /// 404 for the object itself.
    pub fn not_found(&self) -> Status {
        Status::not_found(&self.kind.storage, &self.target.name)
    }

    /// What every use of this version is warned of.
    pub fn deprecation(&self) -> Vec<String> {
        self.served().deprecated.iter().map(ToString::to_string).collect()
    }
}

/// Answers a request for a resource.
///
/// # Errors
/// Whatever the verb has to say; 404 and 405 for what is not there to be asked.
pub async fn serve(request: Box<Request>) -> Result<Reply, Status> {
    // What is never stored has no columns.
    let table = matches!(request.accept.rendering, Rendering::Table { .. }) && !request.accept.object_too;
    if request.kind.class == Class::Virtual && table {
        return Err(Status::not_acceptable(ACCEPTED));
    }
    let own = request.api.clone();
    let connect = own.connect.iter().find(|c| c.serves(&request.kind, &request.target.subresource));
    if connect.is_some() || request.verb == Verb::Connect {
        // What was allowed is one verb: who may get a token's subresource may not have a token made by asking so.
        if !connects(&request) {
            return Err(Status::method_not_allowed());
        }
        options::check(&request)?;
        Box::pin(admission::connect(&request)).await?;
        return match connect {
            Some(connect) => Ok(connect.answer(*request).await),
            None => Err(Status::method_not_allowed()),
        };
    }
    options::check(&request)?;
    if request.target.subresource.is_empty() {
        let collection =
            matches!(request.verb, Verb::List | Verb::Watch | Verb::Create | Verb::DeleteCollection);
        let placed = !request.kind.is_namespaced()
            || !request.target.namespace.is_empty()
            || matches!(request.verb, Verb::List | Verb::Watch);
        if !request.kind.verbs.contains(&request.verb)
            || !placed
            || (collection != request.target.name.is_empty() && request.verb != Verb::Watch)
        {
            return Err(Status::method_not_allowed());
        }
        if request.kind.class == Class::Virtual {
            return Box::pin(subresources::binding::create_for(*request)).await;
        }
        // What is asked most is not made to carry the room that the others need.
        return match request.verb {
            Verb::Get => get::get(&request).await,
            Verb::List => Box::pin(list::list(&request)).await,
            Verb::Watch => Box::pin(watch::watch(&request)).await,
            Verb::Create => Box::pin(create::create(*request)).await,
            Verb::Update => Box::pin(update::update(*request)).await,
            Verb::Patch => Box::pin(patch::patch(*request)).await,
            Verb::Delete => Box::pin(delete::delete(*request)).await,
            Verb::DeleteCollection => Box::pin(delete_collection::delete_collection(*request)).await,
            Verb::Connect => Err(Status::method_not_allowed()),
        };
    }
    Box::pin(part(request)).await
}

/// Answers a request for a subresource without code of its own.
async fn part(request: Box<Request>) -> Result<Reply, Status> {
    let Some(sub) = request.sub().cloned() else { return Err(Status::unknown_path()) };
    if !sub.verbs.contains(&request.verb) {
        return Err(Status::method_not_allowed());
    }
    match (sub.does, request.verb) {
        (SubKind::Scale(paths), verb) => subresources::scale::serve(*request, verb, paths).await,
        (SubKind::Binding, _) => subresources::binding::create(*request).await,
        (SubKind::Eviction, _) => subresources::eviction::create(*request).await,
        (SubKind::Finalize, _) => subresources::finalize::update(*request).await,
        (SubKind::Status | SubKind::Approval | SubKind::Resize | SubKind::EphemeralContainers, verb) => {
            match verb {
                Verb::Get => get::get(&request).await,
                Verb::Update => update::update(*request).await,
                Verb::Patch => patch::patch(*request).await,
                _ => Err(Status::method_not_allowed()),
            }
        }
        _ => Err(Status::method_not_allowed()),
    }
}

/// Whether a kind or subresource with code of its own knows the verb. What connects is asked by its method.
fn connects(request: &Request) -> bool {
    let verb = match (request.verb, request.wire.method.as_str()) {
        (Verb::Connect, "" | "GET") => Verb::Get,
        (Verb::Connect, "POST") => Verb::Create,
        (verb, _) => verb,
    };
    match request.sub() {
        Some(sub) if sub.does == SubKind::Proxy => true,
        Some(sub) => {
            let taken = matches!(verb, Verb::Get | Verb::Create) && sub.verbs.contains(&Verb::Connect);
            taken || sub.verbs.contains(&verb)
        }
        None => request.kind.verbs.contains(&verb),
    }
}
