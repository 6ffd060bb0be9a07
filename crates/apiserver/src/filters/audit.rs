//! What is told of every request: who asked for what, and how it ended. Bodies are not among it.
//! Upstream: k8s.io/apiserver/pkg/audit.

use apimachinery::call::Reply;

use crate::authorization::Attributes;

/// Somewhere that requests are told to.
pub trait Sink: Send + Sync {
    /// A request is over; of a watch, it has begun.
    fn done(&self, request: &Attributes<'_>, code: u16);
}

/// Tells the process's own log, at its debug level.
pub struct Log;

impl Sink for Log {
    fn done(&self, request: &Attributes<'_>, code: u16) {
        tracing::debug!(
            user = request.user.name,
            verb = request.verb,
            resource = request.resource,
            subresource = request.subresource,
            namespace = request.namespace,
            name = request.name,
            path = request.path,
            code,
            "request"
        );
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
