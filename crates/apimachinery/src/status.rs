//! The one error of the API: `Status`. Made by the constructors here only, so that reason, code and words
//! always belong together. Upstream: k8s.io/apimachinery/pkg/api/errors.

use crate::doc::{Doc, Ref, Val};
use crate::field::ErrorList;
use crate::gvk::GroupResource;
use crate::{doc, k};

/// What went wrong with a request, as clients see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// The machine's word for it, such as `NotFound`.
    pub reason: &'static str,
    /// The person's.
    pub message: String,
    /// What it concerns, and causes; boxed since most answers are no errors.
    pub details: Box<Details>,
}

/// The details of a [`Status`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    /// The object's name.
    pub name: String,
    /// The resource's group.
    pub group: String,
    /// The resource (or kind, for validation errors).
    pub kind: String,
    /// The object's uid, where it matters.
    pub uid: String,
    /// Each cause.
    pub causes: Vec<Cause>,
    /// How long to wait before asking again; 0 is unsaid.
    pub retry_after_seconds: u32,
    /// Where a list that cannot go on as it began may go on all the same; in the status's own metadata.
    pub continue_: String,
}

/// One cause of a [`Status`].
#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    /// `FieldValueInvalid` and the like.
    pub reason: String,
    /// What is wrong.
    pub message: String,
    /// Which field.
    pub field: String,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

impl Status {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Status {
        Status { code, reason, message: message.into(), details: Box::default() }
    }

    fn about(mut self, resource: &GroupResource, name: &str) -> Status {
        self.details.group = resource.group.to_string();
        self.details.kind = resource.resource.to_string();
        self.details.name = name.to_owned();
        self
    }

    /// 404: no such object.
    pub fn not_found(resource: &GroupResource, name: &str) -> Status {
        Status::new(404, "NotFound", format!("{resource} {name:?} not found")).about(resource, name)
    }

    /// 404: no such path or resource.
    pub fn unknown_path() -> Status {
        Status::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// 409: an object of that name exists.
    pub fn already_exists(resource: &GroupResource, name: &str) -> Status {
        Status::new(409, "AlreadyExists", format!("{resource} {name:?} already exists")).about(resource, name)
    }

    /// 409: the object changed since it was read, or does not fit a precondition.
    pub fn conflict(resource: &GroupResource, name: &str, why: &str) -> Status {
        Status::new(409, "Conflict", format!("Operation cannot be fulfilled on {resource} {name:?}: {why}"))
            .about(resource, name)
    }

    /// 409 with the words that clients retry on.
    pub fn modified(resource: &GroupResource, name: &str) -> Status {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Status::conflict(resource, name, why)
    }

    /// 422: the object breaks the rules of its kind.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: ErrorList) -> Status {
        let message = format!("{} {name:?} is invalid: {}", qualified(kind, group), errors.summary());
        let mut status = Status::new(422, "Invalid", message);
        status.details.group = group.to_owned();
        status.details.kind = kind.to_owned();
        status.details.name = name.to_owned();
        status.details.causes = errors.causes();
        status
    }

    /// 403: not allowed.
    pub fn forbidden(resource: &GroupResource, name: &str, why: &str) -> Status {
        let message = if name.is_empty() {
            format!("{resource} is forbidden: {why}")
        } else {
            format!("{resource} {name:?} is forbidden: {why}")
        };
        Status::new(403, "Forbidden", message).about(resource, name)
    }

    /// 401: who are you?
    pub fn unauthorized() -> Status {
        Status::new(401, "Unauthorized", "Unauthorized")
    }

    /// 400: the request makes no sense.
    pub fn bad_request(why: impl Into<String>) -> Status {
        Status::new(400, "BadRequest", why)
    }

    /// 405: not for this resource.
    pub fn method_not_supported(resource: &GroupResource, verb: &str) -> Status {
        Status::new(
            405,
            "MethodNotAllowed",
            format!("{verb} is not supported on resources of kind {:?}", resource.to_string()),
        )
        .about(resource, "")
    }

    /// 405: no route takes this method.
    pub fn method_not_allowed() -> Status {
        Status::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    /// 406: no answer in a form that the client takes.
    pub fn not_acceptable(accepted: &str) -> Status {
        Status::new(406, "NotAcceptable", format!("only the following media types are accepted: {accepted}"))
    }

    /// 415: a body in a form that is not understood.
    pub fn unsupported_media_type(accepted: &str) -> Status {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        );
        Status::new(415, "UnsupportedMediaType", message)
    }

    /// 410: that revision is gone.
    pub fn expired(why: impl Into<String>) -> Status {
        Status::new(410, "Expired", why)
    }

    /// 413: too large.
    pub fn too_large(why: impl Into<String>) -> Status {
        Status::new(413, "RequestEntityTooLarge", format!("Request entity too large: {}", why.into()))
    }

    /// 429: later, please.
    pub fn too_many_requests(why: impl Into<String>, retry_after_seconds: u32) -> Status {
        let mut status = Status::new(429, "TooManyRequests", why);
        status.details.retry_after_seconds = retry_after_seconds;
        status
    }

    /// 500: our fault.
    pub fn internal(why: impl std::fmt::Display) -> Status {
        Status::new(500, "InternalError", format!("Internal error occurred: {why}"))
    }

    /// 500 without a reason: what upstream's store says of errors that it has no word for.
    pub fn unexplained(why: impl Into<String>) -> Status {
        Status::new(500, "", why)
    }

    /// 503: not now.
    pub fn unavailable(why: impl Into<String>) -> Status {
        Status::new(503, "ServiceUnavailable", why)
    }

    /// 504: it took too long.
    pub fn timeout(why: impl Into<String>) -> Status {
        Status::new(504, "Timeout", format!("Timeout: {}", why.into()))
    }

    /// 504: that revision has not come; it may be asked for again soon.
    pub fn too_large_revision(revision: u64, current: u64) -> Status {
        let why = format!("Too large resource version: {revision}, current: {current}");
        let mut status =
            Status::timeout(why).cause("ResourceVersionTooLarge", "Too large resource version", "");
        status.details.retry_after_seconds = 1;
        status
    }

    /// The same in other words, with nothing said of what it concerns.
    #[must_use]
    pub fn message_only(mut self, message: impl Into<String>) -> Status {
        self.message = message.into();
        self.details = Box::default();
        self
    }

    /// The same with one more cause.
    #[must_use]
    pub fn cause(mut self, reason: &str, message: &str, field: &str) -> Status {
        self.details.causes.push(Cause {
            reason: reason.into(),
            message: message.into(),
            field: field.into(),
        });
        self
    }

    /// Whether it says that the object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code == 404 && self.reason == "NotFound"
    }

    /// Whether it says that the object changed meanwhile.
    pub fn is_conflict(&self) -> bool {
        self.reason == "Conflict"
    }

    /// Whether it says that the object exists already.
    pub fn is_already_exists(&self) -> bool {
        self.reason == "AlreadyExists"
    }

    /// Whether it says that a revision is gone.
    pub fn is_expired(&self) -> bool {
        self.code == 410
    }

    /// As `v1.Status`.
    pub fn to_doc(&self) -> Doc {
        let mut out = doc!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code });
        if self.reason.is_empty() {
            out.edit().remove(k::REASON);
        }
        let d = &*self.details;
        out.edit().at(k::METADATA).set_opt(k::CONTINUE, (!d.continue_.is_empty()).then_some(&d.continue_));
        // Of these upstream always says what it can, be it nothing.
        let always = matches!(self.code, 404 | 405 | 422);
        if always || (Details { continue_: String::new(), ..d.clone() }) != Details::default() {
            out.edit().set(k::DETAILS, Val::Object);
            let mut at = out.edit().at(k::DETAILS);
            for (key, value) in
                [(k::NAME, &d.name), (k::GROUP, &d.group), (k::KIND, &d.kind), (k::UID, &d.uid)]
            {
                at.set_opt(key, (!value.is_empty()).then_some(value));
            }
            for cause in &d.causes {
                let mut shown = doc!({ "reason": cause.reason, "message": cause.message });
                shown.edit().set_opt(k::FIELD, (!cause.field.is_empty()).then_some(&cause.field));
                at.reborrow().list(k::CAUSES).push(shown);
            }
            at.set_opt(k::RETRY_AFTER_SECONDS, (d.retry_after_seconds > 0).then_some(d.retry_after_seconds));
        }
        // Code last, as upstream writes it.
        out.edit().remove(k::CODE);
        out.edit().set(k::CODE, i64::from(self.code));
        out
    }

    /// From a `v1.Status` document that a server sent.
    pub fn from_doc(status: Ref<'_>) -> Status {
        const REASONS: &[&str] = &[
            "NotFound",
            "AlreadyExists",
            "Conflict",
            "Invalid",
            "Forbidden",
            "Unauthorized",
            "BadRequest",
            "MethodNotAllowed",
            "NotAcceptable",
            "UnsupportedMediaType",
            "Expired",
            "Gone",
            "RequestEntityTooLarge",
            "TooManyRequests",
            "InternalError",
            "ServiceUnavailable",
            "Timeout",
            "ServerTimeout",
        ];
        let given = status.get(k::REASON).str();
        let reason = REASONS.iter().find(|r| **r == given).copied().unwrap_or("");
        let code = u16::try_from(status.get(k::CODE).i64()).unwrap_or(500);
        let mut out = Status::new(code, reason, status.get(k::MESSAGE).str());
        let details = status.get(k::DETAILS);
        out.details.name = details.get(k::NAME).str().to_owned();
        out.details.group = details.get(k::GROUP).str().to_owned();
        out.details.kind = details.get(k::KIND).str().to_owned();
        out.details.uid = details.get(k::UID).str().to_owned();
        out.details.retry_after_seconds =
            u32::try_from(details.get(k::RETRY_AFTER_SECONDS).i64()).unwrap_or(0);
        out.details.continue_ = status.get(k::METADATA).get(k::CONTINUE).str().to_owned();
        for cause in details.get(k::CAUSES).items() {
            out =
                out.cause(cause.get(k::REASON).str(), cause.get(k::MESSAGE).str(), cause.get(k::FIELD).str());
        }
        out
    }
}

fn qualified(kind: &str, group: &str) -> String {
    if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") }
}
