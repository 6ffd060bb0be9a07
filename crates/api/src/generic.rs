//! The rules that hold for every kind, written once: metadata, generation, status.
//! Upstream: k8s.io/apiserver/pkg/registry/rest/{create,update}.go.

use apimachinery::field::ErrorList;
use apimachinery::{Doc, Key, k};

use crate::kind::{Generation, Kind, Op, SubKind};

/// Shapes a new object (stored version, defaulted): system metadata, no status from clients, generation 1, then
/// the kind's own [`crate::Strategy::prepare`]. `uid` is what the object will be called for ever.
pub fn before_create(kind: &Kind, op: &Op<'_>, new: &mut Doc, uid: &str) {
    let mut root = new.edit();
    if kind.has_status() && !kind.strategy.keeps_status_on_create() {
        root.remove(k::STATUS);
    }
    let mut meta = root.at(k::METADATA);
    for key in [
        k::DELETION_TIMESTAMP,
        k::DELETION_GRACE_PERIOD_SECONDS,
        k::RESOURCE_VERSION,
        k::SELF_LINK,
        k::GENERATION,
    ] {
        meta.remove(key);
    }
    meta.set(k::UID, uid);
    meta.set(k::CREATION_TIMESTAMP, apimachinery::gotime::format(op.now));
    if kind.strategy.generation() != Generation::Never {
        meta.set(k::GENERATION, 1);
    }
    kind.strategy.prepare(op, new, None);
}

/// Shapes the new state of an object (both of the stored version): system metadata as it was, `/status` writes
/// change nothing but status and metadata, other writes never status, and the generation grows by the kind's rule.
pub fn before_update(kind: &Kind, op: &Op<'_>, new: &mut Doc, old: &Doc) {
    match kind.sub(op.subresource).map(|s| s.does) {
        Some(SubKind::Status) => keep_all_but_status(new, old, !kind.strategy.labels_change_with_status()),
        _ if kind.has_status() => keep(new, old, &[], k::STATUS),
        _ => {}
    }
    let old_meta = old.get(k::METADATA);
    let mut meta = new.edit().at(k::METADATA);
    for key in [k::SELF_LINK, k::GENERATION, k::DELETION_TIMESTAMP, k::DELETION_GRACE_PERIOD_SECONDS] {
        meta.set_opt(key, old_meta.get(key).is_set().then(|| old_meta.get(key)));
    }
    for key in [k::UID, k::CREATION_TIMESTAMP, k::NAME, k::NAMESPACE, k::GENERATE_NAME] {
        if meta.read().get(key).str().is_empty() && old_meta.get(key).is_set() {
            meta.set(key, old_meta.get(key));
        }
    }
    kind.strategy.prepare(op, new, Some(old));
    if grows(kind.strategy.generation(), new, old) {
        let next = old_meta.get(k::GENERATION).i64() + 1;
        new.edit().at(k::METADATA).set(k::GENERATION, next);
    }
}

/// All errors of an object: its metadata's and the kind's own.
pub fn validate(kind: &Kind, op: &Op<'_>, new: &Doc, old: Option<&Doc>) -> ErrorList {
    let mut errs = ErrorList::new();
    kind.strategy.validate(op, new, old, &mut errs);
    errs
}

fn grows(rule: Generation, new: &Doc, old: &Doc) -> bool {
    let differs = |key: Key| !new.get(key).same(old.get(key));
    match rule {
        Generation::Never => false,
        Generation::Spec => differs(k::SPEC),
        Generation::SpecAndAnnotations => {
            let (a, b) = (new.get(k::METADATA).get(k::ANNOTATIONS), old.get(k::METADATA).get(k::ANNOTATIONS));
            differs(k::SPEC) || !(a.same(b) || (a.is_empty() && b.is_empty()))
        }
    }
}

/// Puts the old value of one entry of the object at `path` into the new document.
fn keep(new: &mut Doc, old: &Doc, path: &[Key], key: Key) {
    let was = old.root().path(path).get(key);
    let at = path.iter().fold(new.edit(), |at, key| at.at(*key));
    let mut at = at;
    at.set_opt(key, was.exists().then_some(was));
}

fn keep_all_but_status(new: &mut Doc, old: &Doc, labels_too: bool) {
    let mut out = old.clone();
    let status = new.get(k::STATUS);
    out.edit().set_opt(k::STATUS, status.exists().then_some(status));
    let meta = new.get(k::METADATA);
    out.edit().set(k::METADATA, meta);
    *new = out;
    if labels_too {
        keep(new, old, &[k::METADATA], k::LABELS);
    }
}
