//! Deleting an object: at once, after a grace that the kind knows, or when its last finalizer is gone.
//! Upstream: k8s.io/apiserver/pkg/registry/rest/delete.go, pkg/registry/generic/registry/store.go.

use std::time::Duration;

use api::{Action, Kind, SubKind};
use apimachinery::call::{Body, Reply};
use apimachinery::codec::json::Parsed;
use apimachinery::gvk::GroupVersion;
use apimachinery::meta::{FINALIZER_FOREGROUND, FINALIZER_ORPHAN};
use apimachinery::{Doc, Ref, Status, gotime, k};
use base::time::Timestamp;

use super::store::{self, Current, Outcome, Write};
use super::{allocate, render};
use crate::admission::{self, Attributes, Operation};
use crate::cacher::json::with_revision;
use crate::endpoints::{Request, decode, options};

/// How often a deletion begins anew because the object changed meanwhile.
const TRIES_MAX: usize = 64;
/// Where options have their home.
const META: GroupVersion = GroupVersion::new("meta.k8s.io", "v1");
/// The longest grace, in seconds: ten years.
const GRACE_MAX: i64 = 315_360_000;
/// Kinds whose deletion answers with the object, as upstream.
const ANSWERS_WITH_OBJECT: [&str; 7] = [
    "persistentvolumeclaims",
    "persistentvolumes",
    "pods",
    "podtemplates",
    "resourcequotas",
    "serviceaccounts",
    "services",
];

/// How to delete; from the body, or else from the query.
#[derive(Clone, Debug, Default)]
pub struct Options {
    grace: Option<i64>,
    policy: Option<String>,
    uid: Option<String>,
    revision: Option<String>,
    /// The old way to say `policy`, which changes the answer's code.
    orphan: Option<bool>,
}

impl Options {
    /// Reads what the request says; `dry_run` in the body counts as well.
    ///
    /// # Errors
    /// 400 for a body that is no `DeleteOptions`, 422 for a policy that does not exist.
    pub fn read(request: &mut Request) -> Result<Options, Status> {
        let query = &request.options;
        let mut out = Options {
            grace: query.grace_period_seconds,
            policy: query.propagation_policy.clone(),
            orphan: query.orphan_dependents,
            ..Options::default()
        };
        let mut dry_run: Vec<String> = Vec::new();
        let empty = match &request.body {
            Body::Empty => true,
            Body::Bytes { bytes, .. } => bytes.is_empty(),
            Body::Doc { .. } => false,
        };
        if !empty {
            let doc = Options::decode(request)?;
            out = Options::said(doc.root());
            dry_run = doc.get(k::DRY_RUN).items().map(|d| d.str().to_owned()).collect();
            // Who asked for it in either place wants nothing written.
            request.options.dry_run |= !dry_run.is_empty();
        }
        out.check(&dry_run)?;
        Ok(out)
    }

    /// What a `DeleteOptions` within another document says.
    ///
    /// # Errors
    /// 422 for a policy that does not exist.
    pub fn of(doc: Ref<'_>) -> Result<Options, Status> {
        let mut out = Options::said(doc);
        let dry_run: Vec<String> = doc.get(k::DRY_RUN).items().map(|d| d.str().to_owned()).collect();
        out.check(&dry_run)?;
        Ok(out)
    }

    fn said(doc: Ref<'_>) -> Options {
        let text = |at: Ref<'_>| at.opt_str().map(str::to_owned);
        Options {
            grace: doc.get(k::GRACE_PERIOD_SECONDS).opt_i64(),
            policy: text(doc.get(k::PROPAGATION_POLICY)),
            uid: text(doc.get(k::PRECONDITIONS).get(k::UID)),
            revision: text(doc.get(k::PRECONDITIONS).get(k::RESOURCE_VERSION)),
            orphan: doc.get(k::ORPHAN_DEPENDENTS).opt_bool(),
        }
    }

    fn decode(request: &Request) -> Result<Doc, Status> {
        let Parsed { mut doc, duplicates } = decode::parse(&request.body, "DeleteOptions")?;
        let v1 = GroupVersion::new("", "v1");
        // Any group's DeleteOptions will do; clients send their own group's.
        let schema = apimachinery::schema::kind("", "v1", "DeleteOptions")
            .ok_or_else(|| Status::internal("no schema of DeleteOptions"))?;
        let given = GroupVersion::parse(doc.get(k::API_VERSION).str());
        let table = request.api.kinds.table();
        let mut versions = table.all().iter().flat_map(|kind| &kind.versions).map(|version| &version.gv);
        let known = given.is_some_and(|gv| gv == META || versions.any(|served| *served == gv));
        if known && doc.get(k::KIND).str() == "DeleteOptions" {
            doc.edit().set(k::API_VERSION, "v1");
        }
        let expected = decode::Expected { kind: "DeleteOptions", gv: &v1, schema };
        decode::normal(
            Parsed { doc, duplicates },
            &expected,
            request.options.field_validation,
            &mut Vec::new(),
        )
    }

    fn check(&mut self, dry_run: &[String]) -> Result<(), Status> {
        // Less than nothing is as soon as can be.
        self.grace = self.grace.map(|grace| if grace < 0 { 1 } else { grace });
        let mut errors = apimachinery::field::ErrorList::new();
        let at = apimachinery::field::Path::new("propagationPolicy");
        match (self.policy.as_deref(), self.orphan) {
            (Some(_), Some(_)) => errors.invalid(
                &at,
                self.policy.as_deref().unwrap_or_default(),
                "orphanDependents and deletionPropagation cannot be both set",
            ),
            (Some("Foreground" | "Background" | "Orphan") | None, _) => {}
            (Some(other), _) => {
                errors.not_supported(&at, other, &["Foreground", "Background", "Orphan", "nil"])
            }
        }
        let dry_run: Vec<&str> = dry_run.iter().map(String::as_str).collect();
        options::dry_run(&dry_run, &mut errors);
        if let (None, Some(orphan)) = (&self.policy, self.orphan) {
            self.policy = Some(if orphan { "Orphan" } else { "Background" }.to_owned());
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", errors))
        }
    }
}

/// Whether nothing keeps an object any more whose deletion was asked for.
pub fn is_due(kind: &Kind, object: &Doc) -> bool {
    let meta = object.get(k::METADATA);
    meta.get(k::DELETION_TIMESTAMP).is_set()
        && meta.get(k::DELETION_GRACE_PERIOD_SECONDS).i64() == 0
        && !is_held(kind, object.root())
}

/// Whether finalizers keep it: those of its metadata, and of namespaces those of its spec.
fn is_held(kind: &Kind, object: Ref<'_>) -> bool {
    !object.get(k::METADATA).get(k::FINALIZERS).is_empty()
        || (has_finalize(kind) && !object.get(k::SPEC).get(k::FINALIZERS).is_empty())
}

fn has_finalize(kind: &Kind) -> bool {
    kind.subresources.iter().any(|s| s.does == SubKind::Finalize)
}

/// Deletes one object and answers as upstream.
///
/// # Errors
/// 404, 409 for preconditions that do not hold, admission's refusals.
pub async fn delete(request: &Request, name: &str, options: &Options) -> Result<Reply, Status> {
    let (api, kind, namespace) = (&request.api, &*request.kind, &request.target.namespace);
    let mut current = store::current(request, namespace, name).await?;
    for _ in 0..TRIES_MAX {
        check(request, name, options, &current.doc)?;
        let object = current.doc.clone();
        let mut attributes = Attributes::new(request, Operation::Delete, object, Some(&current.doc), name);
        admission::admit(api, &mut attributes).await?;
        admission::validate(api, &attributes).await?;
        match step(request, name, options, &current).await? {
            Step::Answer(reply) => return Ok(reply),
            Step::Again(Outcome::Changed(Some(now))) => current = now,
            Step::Again(Outcome::Changed(None)) => return Err(Status::not_found(&kind.storage, name)),
            Step::Again(Outcome::AlongChanged(revision)) => {
                api.cacher.wait(revision).await?;
            }
            Step::Again(Outcome::Done(_)) => return Err(Status::internal("a finished deletion began anew")),
        }
    }
    Err(Status::modified(&kind.storage, name))
}

enum Step {
    Answer(Reply),
    Again(Outcome),
}

fn check(request: &Request, name: &str, options: &Options, object: &Doc) -> Result<(), Status> {
    let meta = object.get(k::METADATA);
    let differs = |asked: &Option<String>, is: &str, what: &str| match asked {
        Some(asked) if asked != is => Err(Status::conflict(
            &request.kind.storage,
            name,
            &format!(
                "the {what} in the precondition ({asked}) does not match the {what} in record ({is}). The object might have been deleted and then recreated"
            ),
        )),
        _ => Ok(()),
    };
    differs(&options.uid, meta.get(k::UID).str(), "UID")?;
    differs(&options.revision, meta.get(k::RESOURCE_VERSION).str(), "ResourceVersion")
}

async fn step(request: &Request, name: &str, options: &Options, current: &Current) -> Result<Step, Status> {
    let kind = &*request.kind;
    let mut doc = current.doc.clone();
    let marked = mark(request, options, &mut doc);
    finalizers(request, options, &mut doc);
    if matches!(marked, Marked::Waiting) && finalizers_of(&doc) == finalizers_of(&current.doc) {
        return Ok(Step::Answer(answer(request, &doc, options)?));
    }
    // Nothing holds it and nothing is waited for: gone.
    let waits = matches!(marked, Marked::Graceful)
        && doc.get(k::METADATA).get(k::DELETION_GRACE_PERIOD_SECONDS).i64() > 0
        || matches!(marked, Marked::Waiting);
    if !waits && !is_held(kind, doc.root()) {
        return gone(request, name, current).await;
    }
    if !matches!(marked, Marked::Graceful | Marked::Waiting) {
        begin_deletion(request, &mut doc);
    }
    change(request, name, options, current, doc).await
}

fn finalizers_of(doc: &Doc) -> Vec<&str> {
    doc.get(k::METADATA).get(k::FINALIZERS).items().map(Ref::str).collect()
}

#[derive(Clone, Copy)]
enum Marked {
    /// The kind knows no grace, or it is over.
    No,
    /// The deletion has been given a time.
    Graceful,
    /// It has one already that is no later.
    Waiting,
}

/// Gives a graceful deletion its time. It only ever shrinks.
fn mark(request: &Request, options: &Options, doc: &mut Doc) -> Marked {
    let op = request.op(Action::Delete);
    let strategy = request.kind.strategy;
    let meta = doc.get(k::METADATA);
    let generation = meta.get(k::GENERATION).i64();
    if let Some(time) = meta.get(k::DELETION_TIMESTAMP).opt_str().map(str::to_owned) {
        let before = meta.get(k::DELETION_GRACE_PERIOD_SECONDS).i64();
        // Nothing to wait for, or a client that does not ask for less.
        if before == 0 {
            return Marked::No;
        }
        if strategy.graceful_delete(&op, options.grace, doc.root()).is_none() {
            return Marked::No;
        }
        let Some(asked) = options.grace.map(|g| if g < 0 { 1 } else { g }).filter(|g| *g < before) else {
            return Marked::Waiting;
        };
        let begun = gotime::parse(&time).unwrap_or(request.now);
        let until = later(begun, asked - before);
        let mut meta = doc.edit().at(k::METADATA);
        meta.set(k::DELETION_TIMESTAMP, gotime::format(until)).set(k::DELETION_GRACE_PERIOD_SECONDS, asked);
        return Marked::Graceful;
    }
    let Some(grace) = strategy.graceful_delete(&op, options.grace, doc.root()) else { return Marked::No };
    let mut meta = doc.edit().at(k::METADATA);
    meta.set(k::DELETION_TIMESTAMP, gotime::format(later(request.now, grace)))
        .set(k::DELETION_GRACE_PERIOD_SECONDS, grace);
    if generation > 0 {
        meta.set(k::GENERATION, generation + 1);
    }
    Marked::Graceful
}

/// A time some seconds away; a grace without end ends after ten years.
fn later(time: Timestamp, seconds: i64) -> Timestamp {
    let seconds = seconds.clamp(-GRACE_MAX, GRACE_MAX);
    let span = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { time - span } else { time + span }
}

/// The finalizers that the propagation policy asks for.
fn finalizers(request: &Request, options: &Options, doc: &mut Doc) {
    let has = |name| finalizers_of(doc).contains(&name);
    // Without a policy an object's own finalizers decide, then its kind.
    let policy = match options.policy.as_deref() {
        Some(policy) => policy.to_owned(),
        None if has(FINALIZER_ORPHAN) => "Orphan".to_owned(),
        None if has(FINALIZER_FOREGROUND) => "Foreground".to_owned(),
        None => request.kind.strategy.default_propagation(request.gv()).to_owned(),
    };
    let (orphan, foreground) = (policy == "Orphan", policy == "Foreground");
    if has(FINALIZER_ORPHAN) == orphan && has(FINALIZER_FOREGROUND) == foreground {
        return;
    }
    let mut list = doc.edit().at(k::METADATA).list(k::FINALIZERS);
    list.retain(|f| f.str() != FINALIZER_ORPHAN && f.str() != FINALIZER_FOREGROUND);
    if orphan {
        list.push(FINALIZER_ORPHAN);
    }
    if foreground {
        list.push(FINALIZER_FOREGROUND);
    }
}

/// Marks an object that finalizers keep.
fn begin_deletion(request: &Request, doc: &mut Doc) {
    let meta = doc.get(k::METADATA);
    let generation = meta.get(k::GENERATION).i64();
    let marked = meta.get(k::DELETION_TIMESTAMP).is_set();
    let mut meta = doc.edit().at(k::METADATA);
    meta.set_default(k::DELETION_TIMESTAMP, gotime::format(request.now))
        .set(k::DELETION_GRACE_PERIOD_SECONDS, 0);
    if generation > 0 && !marked {
        meta.set(k::GENERATION, generation + 1);
    }
    if has_finalize(&request.kind) {
        // A namespace on its way out says so; it has no grace.
        doc.edit().at(k::METADATA).remove(k::DELETION_GRACE_PERIOD_SECONDS);
        doc.edit().at(k::STATUS).set(k::PHASE, "Terminating");
    }
}

async fn change(
    request: &Request,
    name: &str,
    options: &Options,
    current: &Current,
    doc: Doc,
) -> Result<Step, Status> {
    let (kind, namespace) = (&*request.kind, &request.target.namespace);
    let expected = current.stored.revision;
    let value = store::encode(kind, &doc);
    if request.options.dry_run || with_revision(&value, expected).as_ref() == Some(&current.stored.json) {
        return Ok(Step::Answer(answer(request, &doc, options)?));
    }
    let write =
        Write { kind, namespace, name, expected, value: Some(value), along: store::Writes::default() };
    match store::write(&request.api, write).await? {
        Outcome::Done(stored) => Ok(Step::Answer(answer(request, &stored.doc(), options)?)),
        other => Ok(Step::Again(other)),
    }
}

fn answer(request: &Request, doc: &Doc, options: &Options) -> Result<Reply, Status> {
    let code = if options.orphan == Some(false) { 202 } else { 200 };
    let doc = render::convert(&request.kind, request.served(), doc.clone());
    Ok(Reply::Doc { code, doc: Box::new(doc), warnings: Vec::new() })
}

async fn gone(request: &Request, name: &str, current: &Current) -> Result<Step, Status> {
    let (kind, namespace) = (&*request.kind, &request.target.namespace);
    if !request.options.dry_run {
        let along = allocate::release(request, &current.doc).await?;
        let write = Write { kind, namespace, name, expected: current.stored.revision, value: None, along };
        match store::write(&request.api, write).await? {
            Outcome::Done(_) => {}
            other => return Ok(Step::Again(other)),
        }
    }
    if kind.storage.group.is_empty() && ANSWERS_WITH_OBJECT.contains(&&*kind.storage.resource) {
        return Ok(Step::Answer(answer(request, &current.doc, &Options::default())?));
    }
    Ok(Step::Answer(render::success(kind, name, current.doc.get(k::METADATA).get(k::UID).str())))
}
