//! Creating and changing an object: the part of the way that every write shares, from a document of the stored version
//! to the transaction. Upstream: k8s.io/apiserver/pkg/registry/generic/registry/store.go.

use std::sync::Arc;

use api::{Action, Kind, generic};
use apimachinery::call::{Stored, Verb};
use apimachinery::{Doc, Status, k};
use base::hash::Set;

use super::store::{self, Current, Outcome, Write};
use super::{allocate, remove};
use crate::admission::{self, Attributes, Operation};
use crate::cacher::json::with_revision;
use crate::endpoints::Request;

/// How often a generated name is drawn anew when it is taken; upstream's number.
const NAMES_MAX: usize = 8;
/// How often a write begins anew because something else was quicker: what was to be written along, or the object
/// itself where the client named no revision.
const TRIES_MAX: usize = 64;
/// Letters and digits without those that make words or look alike; upstream's.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// How long the drawn part of a name is, and how long the base may be so that the name fits.
const DRAWN: usize = 5;
const BASE_MAX: usize = 63 - DRAWN;

/// What a write did.
pub struct Changed {
    /// The object afterwards.
    pub stored: Arc<Stored>,
    /// For the client.
    pub warnings: Vec<String>,
}

/// A name from `generateName`.
pub fn draw_name(base: &str) -> String {
    let mut end = base.len().min(BASE_MAX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let drawn: String =
        (0..DRAWN).map(|_| char::from(ALPHABET[base::rand::below(ALPHABET.len() as u64) as usize])).collect();
    format!("{}{drawn}", &base[..end])
}

/// Makes a new object of `doc` (stored version, defaulted).
///
/// # Errors
/// 409 when the name is taken, 422 for what validation finds, and admission's refusals.
pub async fn create(request: &Request, mut doc: Doc) -> Result<Changed, Status> {
    let api = &request.api;
    let generate = place(request, &mut doc)?;
    // Upstream's store refuses numbers alone, and has no word for the reason.
    if doc.get(k::METADATA).get(k::RESOURCE_VERSION).str().parse::<u64>().is_ok_and(|revision| revision > 0) {
        return Err(Status::unexplained("resourceVersion should not be set on objects to be created"));
    }
    let doubled = distinct_owners(request, &mut doc);
    api.cacher.catch_up().await?;
    let mut name = doc.get(k::METADATA).get(k::NAME).str().to_owned();
    let named = name.clone();
    let mut attributes = Attributes::new(request, Operation::Create, doc, None, &named);
    attributes.warnings.extend(doubled);
    admission::admit(api, &mut attributes).await?;
    let op = request.op(Action::Create);
    generic::before_create(&request.kind, &op, &mut attributes.object, &base::rand::uuid());
    for attempt in 1.. {
        invalid(request, &name, generic::validate(&request.kind, &op, &attributes.object, None))?;
        if attempt == 1 {
            attributes.warnings.extend(request.kind.strategy.warnings(&op, &attributes.object, None));
        }
        admission::validate(api, &attributes).await?;
        match write_new(request, &attributes, &name).await {
            Err(status) if status.is_already_exists() && generate.is_some() && attempt < NAMES_MAX => {
                let base = generate.as_deref().unwrap_or_default();
                name = draw_name(base);
                attributes.object.edit().at(k::METADATA).set(k::NAME, &name);
            }
            Err(status) if status.is_already_exists() && generate.is_some() => {
                let mut status = Status::already_exists(&request.kind.storage, &name);
                status.message.push_str(", the server was not able to generate a unique name for the object");
                status.details.retry_after_seconds = 1;
                return Err(status);
            }
            done => return done.map(|stored| Changed { stored, warnings: attributes.warnings }),
        }
    }
    unreachable!("the loop ends by returning")
}

/// Puts namespace and name into the metadata; gives the base of a generated name.
fn place(request: &Request, doc: &mut Doc) -> Result<Option<String>, Status> {
    let meta = doc.get(k::METADATA);
    let (given, name) = (meta.get(k::NAMESPACE).str().to_owned(), meta.get(k::NAME).str().to_owned());
    let base = meta.get(k::GENERATE_NAME).str().to_owned();
    let namespace = &request.target.namespace;
    if !given.is_empty() && given != *namespace {
        return Err(if request.kind.is_namespaced() {
            Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            )
        } else {
            Status::bad_request("namespace must not be set for an object that has none")
        });
    }
    let mut meta = doc.edit().at(k::METADATA);
    if request.kind.is_namespaced() {
        meta.set(k::NAMESPACE, namespace);
    }
    if name.is_empty() && !base.is_empty() {
        meta.set(k::NAME, draw_name(&base));
        return Ok(Some(base));
    }
    Ok(None)
}

/// Leaves out owners that are said twice; what to warn of then. Upstream: rest.go of endpoints/handlers.
fn distinct_owners(request: &Request, doc: &mut Doc) -> Option<String> {
    let list = doc.get(k::METADATA).get(k::OWNER_REFERENCES);
    let (mut owners, mut doubled) = (Vec::new(), Vec::new());
    // By their text, which is in normal form: a request may name tens of thousands.
    let mut seen = Set::default();
    for owner in list.items() {
        match seen.insert(owner.to_json()) {
            false => doubled.push(owner.get(k::UID).str()),
            true => owners.push(owner.to_doc()),
        }
    }
    if doubled.is_empty() {
        return None;
    }
    // Of a patch it is known once it was applied, as after admission.
    let when = if request.verb == Verb::Patch { " after mutating admission happens" } else { "" };
    let warning = format!(
        ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and \
         may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
        doubled.join(", ")
    );
    doc.edit().at(k::METADATA).set(k::OWNER_REFERENCES, owners);
    Some(warning)
}

fn invalid(request: &Request, name: &str, errors: apimachinery::field::ErrorList) -> Result<(), Status> {
    if errors.is_empty() {
        return Ok(());
    }
    let kind = &request.kind;
    Err(Status::invalid(&kind.storage.group, &kind.kind, name, errors))
}

/// Allocates, reserves, writes; anew when what is written along has changed meanwhile.
async fn write_new(
    request: &Request,
    attributes: &Attributes<'_>,
    name: &str,
) -> Result<Arc<Stored>, Status> {
    let (api, kind) = (&request.api, &*request.kind);
    let namespace = &request.target.namespace;
    for _ in 0..TRIES_MAX {
        let mut doc = attributes.object.clone();
        let mut along = allocate::allocate(request, &mut doc, None).await?;
        if store::collection(request)?.get(namespace, name).is_some() {
            return Err(Status::already_exists(&kind.storage, name));
        }
        let charge = admission::reserve(api, attributes)?;
        let value = bytes(kind, doc, None);
        if request.options.dry_run {
            return Ok(unwritten(value, namespace, name));
        }
        along.compare.extend(charge.compare);
        along.then.extend(charge.then);
        let write = Write { kind, namespace, name, expected: 0, value: Some(value), along };
        match store::write(api, write).await? {
            Outcome::Done(stored) => return Ok(stored),
            Outcome::Changed(_) => return Err(Status::already_exists(&kind.storage, name)),
            Outcome::AlongChanged(revision) => api.cacher.wait(revision).await?,
        }
    }
    Err(Status::conflict(
        &kind.storage,
        name,
        "too many requests compete for the same quota or addresses; please try again",
    ))
}

/// The bytes of a document that is in normal form but for what was allocated to it.
fn bytes(kind: &Kind, doc: Doc, old: Option<&Doc>) -> Vec<u8> {
    match kind.strategy.allocates(doc.root(), old.map(Doc::root)) {
        Some(_) => store::encode(kind, &doc),
        None => store::encode_normal(doc),
    }
}

/// What a dry run answers with: the object as it would be, without a revision.
fn unwritten(value: Vec<u8>, namespace: &str, name: &str) -> Arc<Stored> {
    Arc::new(Stored::new(value.into(), 0, namespace, name))
}

/// What a change does with the object as it is.
pub type Transform<'t> = dyn FnMut(&Doc, &mut Vec<String>) -> Result<Doc, Status> + Send + 't;

/// How a change is made.
pub struct Change<'t> {
    /// The object's name.
    pub name: &'t str,
    /// How often the change begins anew when the object has changed meanwhile.
    pub tries: usize,
    /// From the object as it is to the object as it should be, both of the stored version. It must check the
    /// revision and UID that the client named, if any; see [`check_preconditions`].
    pub transform: Box<Transform<'t>>,
}

impl<'t> Change<'t> {
    /// A change that begins anew as often as needed.
    pub fn new(
        name: &'t str,
        transform: impl FnMut(&Doc, &mut Vec<String>) -> Result<Doc, Status> + Send + 't,
    ) -> Change<'t> {
        Change { name, tries: TRIES_MAX, transform: Box::new(transform) }
    }
}

/// The revision and UID in a new state, if any, must be those of the object.
///
/// # Errors
/// 409; 500 for a revision that is no number, as upstream.
pub fn check_preconditions(request: &Request, new: &Doc, old: &Doc) -> Result<(), Status> {
    let (new, old) = (new.get(k::METADATA), old.get(k::METADATA));
    let resource = &request.kind.storage;
    let name = old.get(k::NAME).str();
    let (asked, is) = (new.get(k::UID).str(), old.get(k::UID).str());
    if !asked.is_empty() && asked != is {
        let why = format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {is}");
        return Err(Status::conflict(resource, name, &why));
    }
    let asked = new.get(k::RESOURCE_VERSION).str();
    match store::number(asked).map_err(Status::unexplained)? {
        0 => Ok(()),
        asked if Ok(asked) == store::number(old.get(k::RESOURCE_VERSION).str()) => Ok(()),
        _ => Err(Status::modified(resource, name)),
    }
}

/// Changes an object.
///
/// # Errors
/// 404, 409 when the object changed meanwhile, 422 for what validation finds, admission's refusals, and what
/// `transform` says.
pub async fn update(request: &Request, mut change: Change<'_>) -> Result<Changed, Status> {
    let api = &request.api;
    let (kind, namespace, name) = (&*request.kind, &request.target.namespace, change.name);
    let mut current = store::current(request, namespace, name).await?;
    let mut conflicts = 0;
    for _ in 0..TRIES_MAX {
        let mut warnings = Vec::new();
        let new = (change.transform)(&current.doc, &mut warnings)?;
        match attempt(request, name, &current, new, &mut warnings).await? {
            Outcome::Done(stored) => return Ok(Changed { stored, warnings }),
            Outcome::Changed(Some(now)) => {
                conflicts += 1;
                if conflicts >= change.tries {
                    return Err(Status::modified(&kind.storage, name));
                }
                current = now;
            }
            Outcome::Changed(None) => return Err(Status::not_found(&kind.storage, name)),
            Outcome::AlongChanged(revision) => api.cacher.wait(revision).await?,
        }
    }
    Err(Status::modified(&kind.storage, name))
}

async fn attempt(
    request: &Request,
    name: &str,
    current: &Current,
    mut new: Doc,
    warnings: &mut Vec<String>,
) -> Result<Outcome, Status> {
    warnings.extend(distinct_owners(request, &mut new));
    let (api, kind) = (&request.api, &*request.kind);
    let namespace = &request.target.namespace;
    let old = &current.doc;
    let mut attributes = Attributes::new(request, Operation::Update, new, Some(old), name);
    if kind.is_namespaced() {
        attributes.object.edit().at(k::METADATA).set_default(k::NAMESPACE, namespace);
    }
    admission::admit(api, &mut attributes).await?;
    let op = request.op(Action::Update);
    generic::before_update(kind, &op, &mut attributes.object, old);
    invalid(request, name, generic::validate(kind, &op, &attributes.object, Some(old)))?;
    warnings.append(&mut attributes.warnings);
    warnings.extend(kind.strategy.warnings(&op, &attributes.object, Some(old)));
    admission::validate(api, &attributes).await?;
    let mut doc = attributes.object.clone();
    let mut along = allocate::allocate(request, &mut doc, Some(old)).await?;
    // The last finalizer is gone: so is the object.
    let last = match remove::is_due(kind, &doc) {
        true => Some(allocate::release(request, &doc).await?),
        false => None,
    };
    let value = bytes(kind, doc, Some(old));
    let revision = current.stored.revision;
    if with_revision(&value, revision).as_ref() == Some(&current.stored.json) {
        return Ok(Outcome::Done(current.stored.clone()));
    }
    let charge = admission::reserve(api, &attributes)?;
    if request.options.dry_run {
        return Ok(Outcome::Done(store::stored(&value, revision, namespace, name)));
    }
    if let Some(along) = last {
        let shown = store::stored(&value, revision, namespace, name);
        let write = Write { kind, namespace, name, expected: revision, value: None, along };
        return Ok(match store::write(api, write).await? {
            Outcome::Done(_) => Outcome::Done(shown),
            other => other,
        });
    }
    along.compare.extend(charge.compare);
    along.then.extend(charge.then);
    store::write(api, Write { kind, namespace, name, expected: revision, value: Some(value), along }).await
}
