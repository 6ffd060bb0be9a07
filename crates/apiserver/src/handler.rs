//! The way of every request, in order. Reads like the list in ARCHITECTURE.md.
//!
//! A mutating request runs to its end on a task of its own whatever the connection does; dropping the future of a
//! read ends the read.

use std::sync::Arc;

use apimachinery::call::{Reply, Target, User};
use apimachinery::{Call, Status};
use tokio::sync::oneshot;

use crate::authorization::{self, Decision};
use crate::endpoints::{self, Request};
use crate::filters::flow::Place;
use crate::filters::record::{Record, faulty};
use crate::filters::{impersonation, request_info};
use crate::{Api, authentication};

/// Answers a call. The future is small, since futures are moved as a whole: what is large in it lies elsewhere.
pub fn handle(api: &Arc<Api>, call: impl Into<Box<Call>>) -> impl Future<Output = Reply> + Send {
    let call = call.into();
    async move {
        let mut record = Record::new(api, &call);
        // A panic is one request's end, not the server's.
        let reply = match base::task::contain(line(api, call, &mut record)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(status)) => Reply::Status(status),
            Err(_) => {
                record.panicked();
                Reply::Status(faulty())
            }
        };
        record.answered(reply)
    }
}

async fn line(api: &Arc<Api>, mut call: Box<Call>, record: &mut Record) -> Result<Reply, Status> {
    let user = authentication::authenticate(&api.authentication, &call).await?;
    record.known(&user);
    let (user, place) = allowed(api, &call, user, record)?;
    if let Some(fault) = call.wire.fault.take() {
        return Err(fault);
    }
    match &call.target {
        Target::Path(path) => Box::pin(at_path(api, path, &call)).await,
        Target::Resource(_) => {
            let mutating = call.verb.is_mutating();
            let request = Request::new(api, *call, user, record.annotations.clone())?;
            if !mutating {
                return endpoints::serve(request).await;
            }
            to_its_end(async move {
                let reply = endpoints::serve(request).await;
                drop(place);
                reply
            })
            .await
        }
    }
}

/// As whom the caller acts, and the place that the call takes among those under way.
fn allowed(
    api: &Arc<Api>,
    call: &Call,
    user: Arc<User>,
    record: &mut Record,
) -> Result<(Arc<User>, Place), Status> {
    let user = match impersonation::effective(&user, &call.wire, &api.authorization)? {
        Some(other) => {
            let other = Arc::new(other);
            record.acts_as(&other);
            other
        }
        None => user,
    };
    let place = api.flow.admit(call, &user)?;
    let asked = request_info::attributes(call, &user);
    let decision = authorization::decide(&api.authorization, &asked);
    record.decided(&decision);
    if let Decision::Deny(why) | Decision::NoOpinion(why) = &decision {
        return Err(authorization::forbidden(&asked, why));
    }
    Ok((user, place))
}

async fn at_path(api: &Arc<Api>, path: &str, call: &Call) -> Result<Reply, Status> {
    match api.paths.iter().find(|p| p.serves(path)) {
        Some(handler) => Ok(handler.answer(api, path, call).await),
        None => Err(Status::unknown_path()),
    }
}

/// Runs `work` on a task of its own, which goes on when the returned future is dropped.
fn to_its_end(
    work: impl Future<Output = Result<Reply, Status>> + Send + 'static,
) -> impl Future<Output = Result<Reply, Status>> + Send {
    let (done, result) = oneshot::channel();
    base::task::spawn(async move {
        if let Ok(out) = base::task::contain(work).await {
            // Whoever asked may be gone: the work was to be done all the same.
            drop(done.send(out));
        }
    })
    .detach();
    async { result.await.unwrap_or_else(|_| Err(faulty())) }
}
