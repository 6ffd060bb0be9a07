//! What the request line takes and gives, whatever carried it: HTTPS or the same process.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::doc::Doc;
use crate::gvk::Gvr;
use crate::status::Status;
pub use crate::stored::Stored;

/// A future that can be sent and stored.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// A stream that can be sent and stored.
pub type BoxStream<T> = Pin<Box<dyn futures_util::Stream<Item = T> + Send>>;

/// A request.
#[derive(Debug)]
pub struct Call {
    /// The credentials, not yet believed.
    pub who: Who,
    /// What to do.
    pub verb: Verb,
    /// To what.
    pub target: Target,
    /// How.
    pub options: Options,
    /// In which form the answer is wanted.
    pub accept: Accept,
    /// What was sent along.
    pub body: Body,
    /// The request's own facts, for audit and proxies; empty in process.
    pub wire: Wire,
}

/// Credentials.
#[derive(Clone, Debug, Default)]
pub enum Who {
    /// None given.
    #[default]
    Anonymous,
    /// What a TLS client showed: certificates (DER, leaf first) and an `Authorization: Bearer` token.
    Presented {
        /// DER, leaf first; the handshake has proven possession of the leaf's key and nothing else.
        certificates: Arc<[Bytes]>,
        /// The token, never logged.
        bearer: Option<Secret>,
    },
    /// One of our own components in the same process: its identity needs no proof.
    Component(Arc<User>),
}

/// Text that must not reach a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// Who a caller turned out to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The user's name, `system:anonymous` when unknown.
    pub name: String,
    /// Stable id; may be empty.
    pub uid: String,
    /// Groups, `system:authenticated` among them once authenticated.
    pub groups: Vec<String>,
    /// Further facts, such as the bound pod of a token.
    pub extra: Vec<(String, Vec<String>)>,
}

impl User {
    /// A component's identity: a user in `system:authenticated` and `groups`.
    pub fn new(name: &str, groups: &[&str]) -> User {
        let mut groups: Vec<String> = groups.iter().map(|g| (*g).to_owned()).collect();
        groups.push("system:authenticated".to_owned());
        User { name: name.to_owned(), groups, ..User::default() }
    }
}

/// What to do, in RBAC's words.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    /// Any method on `proxy`, `exec`, `log` and the like: the HTTP method is in [`Wire::method`].
    Connect,
}

impl Verb {
    /// RBAC's word. A connect is authorised as `get` or `create` by its method; see the request info filter.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Connect => "connect",
        }
    }

    /// Whether it can change something.
    pub fn is_mutating(self) -> bool {
        !matches!(self, Verb::Get | Verb::List | Verb::Watch | Verb::Connect)
    }
}

/// What a call is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// A resource.
    Resource(ResourceTarget),
    /// Any other path, such as `/healthz` or `/openapi/v3`.
    Path(String),
}

/// A resource, one object of it, or a part of one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResourceTarget {
    /// Group, version and plural.
    pub gvr: Gvr,
    /// Empty for cluster-scoped resources and for all namespaces.
    pub namespace: String,
    /// Empty for collections.
    pub name: String,
    /// `status`, `scale`, `log`, …; empty for the object itself.
    pub subresource: String,
    /// What follows a `proxy` subresource, with its leading slash.
    pub rest: String,
}

impl Target {
    /// A whole collection (`namespace` may be empty), or one object of it (`name` not empty).
    pub fn resource(gvr: Gvr, namespace: &str, name: &str, subresource: &str) -> Target {
        Target::Resource(ResourceTarget {
            gvr,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
            rest: String::new(),
        })
    }
}

/// The query parameters of all verbs; unset ones are empty. Upstream: the option kinds of `meta/v1`.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Options {
    pub label_selector: String,
    pub field_selector: String,
    pub resource_version: Option<String>,
    pub resource_version_match: Option<String>,
    pub limit: u64,
    pub continue_: String,
    pub allow_watch_bookmarks: bool,
    pub send_initial_events: Option<bool>,
    pub timeout_seconds: Option<u64>,
    pub dry_run: bool,
    pub field_manager: String,
    pub field_validation: FieldValidation,
    pub force: Option<bool>,
    pub pretty: bool,
    /// `PATCH`'s content type is in the body; delete's options may come in the body, which wins.
    pub grace_period_seconds: Option<i64>,
    pub propagation_policy: Option<String>,
    pub orphan_dependents: Option<bool>,
    /// Everything as it was sent, decoded, for `log`, `exec` and proxies.
    pub query: Vec<(String, String)>,
}

/// What happens to unknown and repeated fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Dropped silently.
    Ignore,
    /// Dropped with a warning; what the API server does when nothing is said.
    #[default]
    Warn,
    /// Refused.
    Strict,
}

/// In which form an answer is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    /// Encoding.
    pub media: Media,
    /// `as=`: a rendering in place of the object itself.
    pub rendering: Rendering,
    /// The object itself is taken, too, of kinds that have no such rendering.
    pub object_too: bool,
}

/// Encodings of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Media {
    #[default]
    Json,
    Yaml,
    Protobuf,
}

/// Renderings of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Rendering {
    /// The object itself.
    #[default]
    Object,
    /// `meta.k8s.io` `Table`; `include` is `includeObject`: `None`, `Metadata` (the default) or `Object`.
    Table {
        /// `v1` or `v1beta1`.
        version: String,
        /// `None`, `Metadata` or `Object`.
        include: String,
    },
    /// `PartialObjectMetadata` or its list.
    Metadata {
        /// `v1` or `v1beta1`.
        version: String,
        /// Whether the list is asked for.
        list: bool,
    },
}

/// What was sent along.
#[derive(Debug, Default)]
pub enum Body {
    /// Nothing.
    #[default]
    Empty,
    /// Bytes as received.
    Bytes {
        /// The `Content-Type` header, whole.
        content_type: String,
        /// The bytes.
        bytes: Bytes,
    },
    /// A document, from a client in the same process; `content_type` as above (a patch's kind).
    Doc {
        /// `application/json` or a patch's type.
        content_type: &'static str,
        /// The document.
        doc: Box<Doc>,
    },
}

/// Facts of the HTTP request, for audit, proxies and connect subresources.
#[derive(Debug, Default)]
pub struct Wire {
    /// `GET`, …; empty in process.
    pub method: String,
    /// Path and query as sent; empty in process.
    pub uri: String,
    /// Where the request came from.
    pub peer: Option<IpAddr>,
    /// The client's name for itself.
    pub user_agent: String,
    /// What the request is called in audit; empty in process.
    pub audit_id: String,
    /// Headers, names in lower case, without credentials: those that impersonation reads; all that proxies pass on
    /// where something connects or the path is no resource.
    pub headers: Vec<(String, String)>,
    /// What is wrong with the request's head or body. Told once the caller is known and allowed: strangers learn
    /// nothing, and audit hears of it.
    pub fault: Option<Status>,
    /// The connection, for protocols that take it over (exec, port-forward, a node's tunnel).
    pub upgrade: Option<Box<dyn Upgrade>>,
}

/// A connection that can be taken over once the answer has said so (HTTP/1.1 `Upgrade`).
pub trait Upgrade: Send + Sync + std::fmt::Debug {
    /// The protocol the client asked for, such as `SPDY/3.1` or `websocket`.
    fn protocol(&self) -> &str;
}

/// An answer.
pub enum Reply {
    /// An object as stored.
    Object {
        /// 200 or 201.
        code: u16,
        /// The object.
        object: Arc<Stored>,
        /// For the client, as `Warning` headers.
        warnings: Vec<String>,
    },
    /// A document made for this answer.
    Doc {
        /// 200, 201 or 202.
        code: u16,
        /// The document.
        doc: Box<Doc>,
        /// For the client, as `Warning` headers.
        warnings: Vec<String>,
    },
    /// A list.
    List(List),
    /// A watch.
    Watch(Watch),
    /// A failure.
    Status(Status),
    /// Bytes that are no object: logs, metrics, OpenAPI.
    Raw(Raw),
    /// The connection is to be taken over: 101 with these headers, then the closure runs with the stream.
    Upgrade(Box<dyn UpgradeReply>),
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reply::Object { code, object, .. } => {
                write!(f, "Object({code}, {}/{})", object.namespace(), object.name())
            }
            Reply::Doc { code, doc, .. } => write!(f, "Doc({code}, {:?})", doc.root()),
            Reply::List(list) => write!(f, "List({} items at {})", list.items.len(), list.revision),
            Reply::Watch(_) => f.write_str("Watch"),
            Reply::Status(status) => write!(f, "{status:?}"),
            Reply::Raw(raw) => write!(f, "Raw({})", raw.code),
            Reply::Upgrade(_) => f.write_str("Upgrade"),
        }
    }
}

/// The answer to a list: items are encoded when sent, never collected into one document.
#[derive(Debug, Clone)]
pub struct List {
    /// `v1`, `apps/v1`, …
    pub api_version: String,
    /// `PodList`, …
    pub kind: String,
    /// The revision that the list shows.
    pub revision: u64,
    /// For the next page; empty on the last.
    pub continue_: String,
    /// How many items follow after this page, where that is known.
    pub remaining: Option<u64>,
    /// The objects, in key order.
    pub items: Vec<Arc<Stored>>,
    /// For the client, as `Warning` headers.
    pub warnings: Vec<String>,
}

/// The answer to a watch.
pub struct Watch {
    /// `v1`, `apps/v1`, … of the objects; bookmarks are made with it.
    pub api_version: String,
    /// `Pod`, …
    pub kind: String,
    /// The events, until the watch ends: what is there to be told comes together.
    pub events: BoxStream<Vec<WatchEvent>>,
}

/// One event of a watch.
#[derive(Debug, Clone)]
pub enum WatchEvent {
    /// An object came into view.
    Added(Arc<Stored>),
    /// It changed.
    Modified(Arc<Stored>),
    /// It left the view; the last state, with the revision of its leaving.
    Deleted(Arc<Stored>),
    /// Everything up to this revision has been sent. `initial` ends the initial events.
    Bookmark {
        /// The revision.
        revision: u64,
        /// `k8s.io/initial-events-end`.
        initial: bool,
    },
    /// The watch ends with this.
    Error(Status),
    /// A rendering of an event (`Table`, other versions): type and object.
    Rendered {
        /// `ADDED`, …
        kind: &'static str,
        /// The object as the client wants it.
        doc: Arc<Doc>,
    },
}

/// Bytes for the client.
pub struct Raw {
    /// HTTP status.
    pub code: u16,
    /// `Content-Type`.
    pub content_type: String,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: RawBody,
}

/// A body: at once, or as it comes.
pub enum RawBody {
    /// All of it.
    Bytes(Bytes),
    /// As it comes; an error ends the connection so that the client notices.
    Stream(BoxStream<std::io::Result<Bytes>>),
}

/// What happens with a connection that is taken over.
pub trait UpgradeReply: Send {
    /// Headers of the 101 answer.
    fn headers(&self) -> Vec<(String, String)>;
    /// Whether it comes to its end by itself, so that a server that goes waits for it.
    fn ends(&self) -> bool {
        true
    }
    /// Runs until the stream is done.
    fn run(self: Box<Self>, stream: Box<dyn ByteStream>) -> BoxFuture<'static, ()>;
}

/// A connection's bytes in both directions.
pub trait ByteStream: base::io::AsyncRead + base::io::AsyncWrite + Send + Unpin {}

impl<T: base::io::AsyncRead + base::io::AsyncWrite + Send + Unpin> ByteStream for T {}

/// Why a call got no answer at all.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The server could not be reached or the connection broke.
    #[error("{context}")]
    Io {
        /// What was being done, and with whom.
        context: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The answer made no sense.
    #[error("the server's answer makes no sense: {0}")]
    Protocol(&'static str),
    /// The server is going away.
    #[error("the server is shutting down")]
    Closed,
}

/// The way to an API server: HTTPS, or the same process.
pub trait Transport: Send + Sync {
    /// Carries a call out.
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Reply, TransportError>>;
}
