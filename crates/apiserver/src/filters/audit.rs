//! What is told of every request: who asked for what, how it ended, and what filters and plugins noted of it. Bodies
//! are not among it.
//! Upstream: k8s.io/apiserver/pkg/audit, pkg/endpoints/filters/audit.go.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use apimachinery::call::User;
use apimachinery::{Call, Reply};
use base::time::Timestamp;

use crate::authorization::Attributes;

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "upstream's words")]
pub enum Stage {
    /// The caller is known.
    RequestReceived,
    /// The answer has begun; of what lasts, such as a watch.
    ResponseStarted,
    /// The answer is made; of what lasts, it has ended.
    ResponseComplete,
    Panic,
}

/// What is noted of a request: a name, such as `authorization.k8s.io/decision`, and what is to be said.
pub type Note = (Cow<'static, str>, String);

/// One thing that happened to a request.
pub struct Event<'e> {
    /// The same for all events of one request.
    pub id: &'e str,
    /// What happened.
    pub stage: Stage,
    /// What was asked for, by the user whose rights counted.
    pub request: &'e Attributes<'e>,
    /// Who acts as that user, if it is another.
    pub impersonator: Option<&'e User>,
    /// Path and query; empty in process.
    pub uri: &'e str,
    /// The client's name for itself.
    pub user_agent: &'e str,
    /// Where the request came from.
    pub peer: Option<IpAddr>,
    /// When it came.
    pub received: Timestamp,
    /// The answer's HTTP status; 0 as long as there is none.
    pub code: u16,
    /// What filters and plugins noted.
    pub annotations: &'e [Note],
}

/// Somewhere that requests are told to.
pub trait Sink: Send + Sync {
    /// Whether it listens now; who does not is spared a request that begins meanwhile.
    fn listens(&self) -> bool {
        true
    }

    /// Something happened to a request. Must not block.
    fn told(&self, event: &Event<'_>);
}

/// Tells the process's own log, at its debug level, how requests end.
pub struct Log;

impl Sink for Log {
    fn listens(&self) -> bool {
        tracing::enabled!(tracing::Level::DEBUG)
    }

    fn told(&self, event: &Event<'_>) {
        if event.stage == Stage::RequestReceived {
            return;
        }
        let request = event.request;
        tracing::debug!(
            stage = ?event.stage,
            user = request.user.name,
            verb = request.verb,
            resource = request.resource,
            subresource = request.subresource,
            namespace = request.namespace,
            name = request.name,
            path = request.path,
            code = event.code,
            "request"
        );
    }
}

/// What is noted of one request on its way.
#[derive(Clone, Debug, Default)]
pub struct Annotations(Arc<Mutex<Vec<Note>>>);

impl Annotations {
    /// Notes something. What was noted first under a name stays, as upstream.
    pub fn note(&self, name: impl Into<Cow<'static, str>>, value: String) {
        let name = name.into();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.iter().all(|(n, _)| *n != name) {
            all.push((name, value));
        }
    }

    /// What has been noted so far.
    pub fn all(&self) -> Vec<Note> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The id that the client gave its request, or a new one.
pub fn id(call: &Call) -> String {
    match call.wire.audit_id.as_str() {
        "" => base::rand::uuid(),
        given => given.to_owned(),
    }
}

/// The HTTP status of an answer.
pub fn code(reply: &Reply) -> u16 {
    match reply {
        Reply::Object { code, .. } | Reply::Doc { code, .. } => *code,
        Reply::List(_) | Reply::Watch(_) => 200,
        Reply::Status(status) => status.code,
        Reply::Raw(raw) => raw.code,
        Reply::Upgrade(_) => 101,
    }
}
