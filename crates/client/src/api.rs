//! The client: verbs on resources over any [`Transport`]. Upstream: client-go rest and dynamic.

use std::sync::Arc;

use apimachinery::call::{
    Accept, Body, BoxStream, Call, List, Options, Raw, Reply, Stored, Target, Transport, TransportError,
    User, Verb, WatchEvent, Who, Wire,
};
use apimachinery::{Doc, Gvr, Status, doc, k};
use futures_util::{StreamExt as _, stream};

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server refused, and says why.
    #[error("{0}")]
    Status(Status),
    /// There was no answer.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// A way to the API server and the credentials used on it. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    who: Who,
}

/// One resource, in one namespace or all (or none, for cluster-scoped ones).
#[derive(Clone)]
pub struct Resource {
    client: Client,
    gvr: Gvr,
    namespace: String,
}

/// What a patch is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' own, by the schema's merge keys.
    Strategic,
}

/// What becomes of the objects that the deleted one owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// How to delete. Unset fields leave the choice to the server.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Grace period in seconds.
    pub grace: Option<i64>,
    /// Only if the object has this uid.
    pub uid: Option<String>,
    /// Only if the object has this resource version.
    pub resource_version: Option<String>,
    /// What becomes of owned objects.
    pub propagation: Option<Propagation>,
}

/// What a deletion led to.
#[derive(Clone, Debug)]
pub enum Deleted {
    /// The object waits for its grace period or finalizers; this is its state now.
    Marked(Arc<Stored>),
    /// It is gone.
    Gone,
}

/// The request names its target without a name for what is sent: verb, name, subresource.
struct Ask<'a> {
    verb: Verb,
    name: &'a str,
    subresource: &'a str,
    options: Options,
    body: Body,
}

// === impl Error ===

impl Error {
    /// The server's answer, if there was one.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Error::Status(status) => Some(status),
            Error::Transport(_) => None,
        }
    }

    fn is(&self, test: impl Fn(&Status) -> bool) -> bool {
        self.status().is_some_and(test)
    }

    /// The object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.is(Status::is_not_found)
    }

    /// The object changed meanwhile, or a precondition does not hold.
    pub fn is_conflict(&self) -> bool {
        self.is(Status::is_conflict)
    }

    /// The object exists already.
    pub fn is_already_exists(&self) -> bool {
        self.is(Status::is_already_exists)
    }

    /// The revision asked for is gone.
    pub fn is_expired(&self) -> bool {
        self.is(Status::is_expired)
    }

    /// The object breaks the rules of its kind.
    pub fn is_invalid(&self) -> bool {
        self.is(|s| s.code == 422)
    }

    /// Creation in a namespace that is being deleted.
    pub fn is_namespace_terminating(&self) -> bool {
        self.is(|s| s.code == 403 && s.details.causes.iter().any(|c| c.reason == "NamespaceTerminating"))
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Error {
        Error::Status(status)
    }
}

// === impl Client ===

impl Client {
    /// A client that shows `who` with each call. Over HTTPS the transport's own credentials count, and `who` is
    /// not sent.
    pub fn new(transport: Arc<dyn Transport>, who: Who) -> Client {
        Client { transport, who }
    }

    /// A client of a component in the server's own process.
    pub fn component(transport: Arc<dyn Transport>, user: User) -> Client {
        Client::new(transport, Who::Component(Arc::new(user)))
    }

    /// A resource in all namespaces, or one without namespaces.
    pub fn resource(&self, gvr: Gvr) -> Resource {
        self.namespaced(gvr, "")
    }

    /// A resource in one namespace.
    pub fn namespaced(&self, gvr: Gvr, namespace: &str) -> Resource {
        Resource { client: self.clone(), gvr, namespace: namespace.to_owned() }
    }

    /// Any call; credentials are filled in. A [`Reply::Status`] becomes an error.
    ///
    /// # Errors
    /// The server's refusal, or that there was no answer.
    pub async fn call(&self, mut call: Call) -> Result<Reply, Error> {
        call.who = self.who.clone();
        match self.transport.call(call).await? {
            Reply::Status(status) => Err(Error::Status(status)),
            reply => Ok(reply),
        }
    }

    /// A path that is no resource, such as `/healthz`.
    ///
    /// # Errors
    /// The server's refusal, or that there was no answer.
    pub async fn get_path(&self, path: &str) -> Result<Raw, Error> {
        let call = empty_call(Verb::Get, Target::Path(path.to_owned()));
        match self.call(call).await? {
            Reply::Raw(raw) => Ok(raw),
            _ => Err(TransportError::Protocol("an object in place of bytes").into()),
        }
    }
}

// === impl Resource ===

impl Resource {
    /// Group, version and plural.
    pub fn gvr(&self) -> &Gvr {
        &self.gvr
    }

    /// The namespace; empty for all.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// One object, as the server has it now.
    ///
    /// # Errors
    /// [`Error`]; so for all verbs.
    pub async fn get(&self, name: &str) -> Result<Arc<Stored>, Error> {
        self.object(Ask::new(Verb::Get, name)).await
    }

    /// The objects that `options` select.
    pub async fn list(&self, options: Options) -> Result<List, Error> {
        match self.ask(Ask { options, ..Ask::new(Verb::List, "") }).await? {
            Reply::List(list) => Ok(list),
            _ => Err(TransportError::Protocol("no list").into()),
        }
    }

    /// Changes as they happen. An error event becomes an error, after which the stream ends.
    pub async fn watch(&self, options: Options) -> Result<BoxStream<Result<WatchEvent, Error>>, Error> {
        match self.ask(Ask { options, ..Ask::new(Verb::Watch, "") }).await? {
            Reply::Watch(watch) => {
                Ok(Box::pin(watch.events.flat_map(stream::iter).map(|event| match event {
                    WatchEvent::Error(status) => Err(Error::Status(status)),
                    event => Ok(event),
                })))
            }
            _ => Err(TransportError::Protocol("no watch").into()),
        }
    }

    /// Creates an object; its `metadata` may have a `name` or a `generateName`.
    pub async fn create(&self, object: Doc) -> Result<Arc<Stored>, Error> {
        self.object(Ask { body: json(object), ..Ask::new(Verb::Create, "") }).await
    }

    /// Replaces the object that `object` names. With a `resourceVersion` in it, only that version.
    pub async fn update(&self, object: Doc) -> Result<Arc<Stored>, Error> {
        self.update_subresource(object, "").await
    }

    /// Replaces the object's `status` and nothing else.
    pub async fn update_status(&self, object: Doc) -> Result<Arc<Stored>, Error> {
        self.update_subresource(object, "status").await
    }

    /// Replaces through a subresource.
    pub async fn update_subresource(&self, object: Doc, subresource: &str) -> Result<Arc<Stored>, Error> {
        let name = object.root().get(k::METADATA).get(k::NAME).str().to_owned();
        self.object(Ask { subresource, body: json(object), ..Ask::new(Verb::Update, &name) }).await
    }

    /// Patches an object (`subresource` empty) or a part of it.
    pub async fn patch(
        &self,
        name: &str,
        patch_type: PatchType,
        patch: Doc,
        subresource: &str,
    ) -> Result<Arc<Stored>, Error> {
        let body = Body::Doc { content_type: patch_type.content_type(), doc: Box::new(patch) };
        self.object(Ask { subresource, body, ..Ask::new(Verb::Patch, name) }).await
    }

    /// Deletes an object.
    pub async fn delete(&self, name: &str, options: DeleteOptions) -> Result<Deleted, Error> {
        let ask = Ask { body: json(options.to_doc()), ..Ask::new(Verb::Delete, name) };
        let object = match self.ask(ask).await? {
            Reply::Object { object, .. } => object,
            Reply::Doc { doc, .. } if doc.get(k::KIND).str() == "Status" => return Ok(Deleted::Gone),
            Reply::Doc { doc, .. } => Arc::new(stored(&doc)),
            _ => return Err(TransportError::Protocol("no object").into()),
        };
        // The last state of an object that is gone is not one that waits: only grace and finalizers make it wait.
        let doc = object.doc();
        let meta = doc.get(k::METADATA);
        let waits = meta.get(k::DELETION_TIMESTAMP).is_set()
            && (meta.get(k::DELETION_GRACE_PERIOD_SECONDS).i64() > 0 || !meta.get(k::FINALIZERS).is_empty());
        Ok(if waits { Deleted::Marked(object) } else { Deleted::Gone })
    }

    /// Deletes all objects that `options` select.
    pub async fn delete_collection(&self, options: Options, how: DeleteOptions) -> Result<(), Error> {
        let ask = Ask { options, body: json(how.to_doc()), ..Ask::new(Verb::DeleteCollection, "") };
        self.ask(ask).await.map(drop)
    }

    /// Posts to a subresource: `binding`, `token`, `eviction`; gives what it answers.
    pub async fn create_subresource(&self, name: &str, subresource: &str, body: Doc) -> Result<Doc, Error> {
        match self.ask(Ask { subresource, body: json(body), ..Ask::new(Verb::Create, name) }).await? {
            Reply::Doc { doc, .. } => Ok(*doc),
            Reply::Object { object, .. } => Ok(object.doc()),
            _ => Err(TransportError::Protocol("no object").into()),
        }
    }

    /// Reads a subresource: `log`, `scale`, `status`.
    pub async fn get_subresource(
        &self,
        name: &str,
        subresource: &str,
        options: Options,
    ) -> Result<Reply, Error> {
        self.ask(Ask { subresource, options, ..Ask::new(Verb::Get, name) }).await
    }

    async fn object(&self, ask: Ask<'_>) -> Result<Arc<Stored>, Error> {
        match self.ask(ask).await? {
            Reply::Object { object, .. } => Ok(object),
            Reply::Doc { doc, .. } => Ok(Arc::new(stored(&doc))),
            _ => Err(TransportError::Protocol("no object").into()),
        }
    }

    async fn ask(&self, ask: Ask<'_>) -> Result<Reply, Error> {
        let target = Target::resource(self.gvr.clone(), &self.namespace, ask.name, ask.subresource);
        let call = Call { options: ask.options, body: ask.body, ..empty_call(ask.verb, target) };
        self.client.call(call).await
    }
}

impl<'a> Ask<'a> {
    fn new(verb: Verb, name: &'a str) -> Ask<'a> {
        Ask { verb, name, subresource: "", options: Options::default(), body: Body::Empty }
    }
}

// === impl PatchType, DeleteOptions ===

impl PatchType {
    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            PatchType::Json => "application/json-patch+json",
            PatchType::Merge => "application/merge-patch+json",
            PatchType::Strategic => "application/strategic-merge-patch+json",
        }
    }
}

impl Propagation {
    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
            Propagation::Orphan => "Orphan",
        }
    }
}

impl DeleteOptions {
    /// Only the object with this uid.
    pub fn uid(uid: &str) -> DeleteOptions {
        DeleteOptions { uid: Some(uid.to_owned()), ..DeleteOptions::default() }
    }

    /// As `v1.DeleteOptions`.
    pub fn to_doc(&self) -> Doc {
        let mut out = doc!({ "kind": "DeleteOptions", "apiVersion": "v1" });
        let mut edit = out.edit();
        edit.set_opt(k::GRACE_PERIOD_SECONDS, self.grace);
        if self.uid.is_some() || self.resource_version.is_some() {
            let mut at = edit.reborrow().at(k::PRECONDITIONS);
            at.set_opt(k::UID, self.uid.as_ref())
                .set_opt(k::RESOURCE_VERSION, self.resource_version.as_ref());
        }
        edit.set_opt(k::PROPAGATION_POLICY, self.propagation.map(Propagation::as_str));
        out
    }
}

/// A call without options, body or credentials.
pub fn empty_call(verb: Verb, target: Target) -> Call {
    Call {
        who: Who::Anonymous,
        verb,
        target,
        options: Options::default(),
        accept: Accept::default(),
        body: Body::Empty,
        wire: Wire::default(),
    }
}

fn json(doc: Doc) -> Body {
    Body::Doc { content_type: "application/json", doc: Box::new(doc) }
}

fn stored(doc: &Doc) -> Stored {
    let meta = doc.get(k::METADATA);
    let revision = meta.get(k::RESOURCE_VERSION).str().parse().unwrap_or(0);
    Stored::new(doc.to_json().into(), revision, meta.get(k::NAMESPACE).str(), meta.get(k::NAME).str())
}
