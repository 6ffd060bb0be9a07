//! Namespace: a scope for names, emptied by its controller before it goes.
//! Upstream: pkg/registry/core/namespace.

use std::borrow::Cow;

use apimachinery::call::Verb;
use apimachinery::field::{ErrorList, Path};
use apimachinery::{Doc, doc, k, validation};

use crate::kind::*;
use crate::print::{AGE, NAME};
use crate::rules::complain;

/// Namespaces.
pub(crate) fn kind() -> Kind {
    const VERBS: &[Verb] =
        &[Verb::Create, Verb::Delete, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch];
    Kind {
        short: names(&["ns"]),
        scope: Scope::Cluster,
        verbs: VERBS,
        name_rule: NameRule::Label,
        subresources: vec![Sub::new("finalize", SubKind::Finalize, "", &[Verb::Update]), Sub::STATUS],
        columns: Cow::Owned(vec![
            NAME,
            Column::path("Status", "string", "Active, or Terminating.", "status.phase"),
            AGE,
        ]),
        fields: Cow::Owned(vec![SelectableField::path("status.phase")]),
        strategy: &Namespace,
        ..Kind::new("", "v1", "namespaces", "Namespace").defaults(defaults)
    }
}

fn defaults(doc: &mut Doc) {
    name_label(doc);
    doc.edit().at(k::STATUS).set_default(k::PHASE, "Active");
}

/// Every namespace is found by its name's label.
fn name_label(doc: &mut Doc) {
    let meta = doc.edit().at(k::METADATA);
    let name = meta.read().get(k::NAME).str().to_owned();
    if !name.is_empty() {
        meta.at(k::LABELS).set("kubernetes.io/metadata.name", name);
    }
}

struct Namespace;

impl Strategy for Namespace {
    fn prepare(&self, op: &Op<'_>, new: &mut Doc, old: Option<&Doc>) {
        name_label(new);
        match old {
            None => {
                new.edit().set(k::STATUS, doc!({ "phase": "Active" }));
                let mut finalizers = new.edit().at(k::SPEC).list(k::FINALIZERS);
                if !finalizers.read().items().any(|f| f.str() == "kubernetes") {
                    finalizers.push("kubernetes");
                }
            }
            Some(old) if op.subresource == "finalize" => {
                let status = old.get(k::STATUS);
                new.edit().set(k::STATUS, status);
            }
            Some(old) => {
                let spec = old.get(k::SPEC);
                new.edit().set_opt(k::SPEC, spec.exists().then_some(spec));
            }
        }
    }

    fn validate(&self, op: &Op<'_>, new: &Doc, old: Option<&Doc>, errs: &mut ErrorList) {
        let at = Path::new("spec").child("finalizers");
        for finalizer in new.get(k::SPEC).get(k::FINALIZERS).items() {
            let name = finalizer.str();
            let mut complaints = validation::qualified_name(name);
            if complaints.is_empty() && !name.contains('/') && name != "kubernetes" {
                complaints.push("name is neither a standard finalizer name nor is it fully qualified".into());
            }
            complain(errs, &at, name, complaints);
        }
        if old.is_some() && op.subresource == "status" {
            let deleted = new.get(k::METADATA).get(k::DELETION_TIMESTAMP).is_set();
            let phase = new.get(k::STATUS).get(k::PHASE).str();
            let at = Path::new("status").child("Phase");
            if deleted && phase != "Terminating" {
                errs.invalid(&at, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty");
            } else if !deleted && phase != "Active" {
                errs.invalid(&at, phase, "may only be 'Active' if `deletionTimestamp` is empty");
            }
        }
    }
}
