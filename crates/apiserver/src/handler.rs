//! The way of every request, in order. Reads like the list in ARCHITECTURE.md.
//!
//! A mutating request runs to its end on a task of its own whatever the connection does; dropping the future of a
//! read ends the read.

use std::sync::Arc;

use apimachinery::call::{Reply, Target, User, Verb};
use apimachinery::{Call, Status};
use tokio::sync::oneshot;

use crate::endpoints::{self, Request};
use crate::filters::{audit, impersonation, request_info};
use crate::{Api, authentication, authorization};

/// Answers a call.
pub async fn handle(api: &Arc<Api>, call: Call) -> Reply {
    // A panic is one request's end, not the server's.
    match base::task::contain(line(api, call)).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(status)) => Reply::Status(status),
        Err(_) => Reply::Status(panicked()),
    }
}

fn panicked() -> Status {
    Status::internal("the request could not be served because of a fault in the server")
}

async fn line(api: &Arc<Api>, call: Call) -> Result<Reply, Status> {
    let user = authentication::authenticate(&api.authentication, &call).await?;
    let user = impersonation::effective(user, &call.wire, &api.authorization)?;
    let asked = Asked::of(&call);
    let reply = allowed(api, call, &user).await;
    let reply = reply.unwrap_or_else(Reply::Status);
    for sink in &api.audit {
        sink.done(&asked.attributes(&user), audit::code(&reply));
    }
    Ok(reply)
}

async fn allowed(api: &Arc<Api>, call: Call, user: &User) -> Result<Reply, Status> {
    let place = api.flow.admit(&call, user)?;
    authorization::authorize(&api.authorization, &request_info::attributes(&call, user))?;
    let reply = match &call.target {
        Target::Path(path) => at_path(api, path, &call).await?,
        Target::Resource(_) if call.verb.is_mutating() => {
            let request = Request::new(api, call, user)?;
            to_its_end(async move {
                let reply = endpoints::serve(request).await;
                drop(place);
                reply
            })
            .await?
        }
        Target::Resource(_) => endpoints::serve(Request::new(api, call, user)?).await?,
    };
    Ok(reply)
}

async fn at_path(api: &Arc<Api>, path: &str, call: &Call) -> Result<Reply, Status> {
    match api.paths.iter().find(|p| p.serves(path)) {
        Some(handler) => Ok(handler.answer(api, path, call).await),
        None => Err(Status::unknown_path()),
    }
}

/// Runs `work` on a task of its own, which goes on when the returned future is dropped.
async fn to_its_end(
    work: impl Future<Output = Result<Reply, Status>> + Send + 'static,
) -> Result<Reply, Status> {
    let (done, result) = oneshot::channel();
    base::task::spawn(async move {
        if let Ok(out) = base::task::contain(work).await {
            // Whoever asked may be gone: the work was to be done all the same.
            drop(done.send(out));
        }
    })
    .detach();
    result.await.unwrap_or_else(|_| Err(panicked()))
}

/// What audit says of a call, which is used up by then.
struct Asked {
    verb: &'static str,
    target: Target,
}

impl Asked {
    fn of(call: &Call) -> Asked {
        let nobody = User::default();
        Asked { verb: static_verb(request_info::attributes(call, &nobody).verb), target: call.target.clone() }
    }

    fn attributes<'a>(&'a self, user: &'a User) -> authorization::Attributes<'a> {
        let empty = authorization::Attributes {
            user,
            verb: self.verb,
            group: "",
            version: "",
            resource: "",
            subresource: "",
            namespace: "",
            name: "",
            path: "",
        };
        match &self.target {
            Target::Path(path) => authorization::Attributes { path, ..empty },
            Target::Resource(t) => authorization::Attributes {
                group: &t.gvr.group,
                version: &t.gvr.version,
                resource: &t.gvr.resource,
                subresource: &t.subresource,
                namespace: &t.namespace,
                name: &t.name,
                ..empty
            },
        }
    }
}

fn static_verb(verb: &str) -> &'static str {
    const ALL: [Verb; 8] = [
        Verb::Get,
        Verb::List,
        Verb::Watch,
        Verb::Create,
        Verb::Update,
        Verb::Patch,
        Verb::Delete,
        Verb::DeleteCollection,
    ];
    ALL.iter()
        .map(|v| v.as_str())
        .chain(["post", "put", "head", "options"])
        .find(|v| *v == verb)
        .unwrap_or("get")
}
