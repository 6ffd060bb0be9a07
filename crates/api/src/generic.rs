//! The rules that hold for every kind, written once: metadata, generation, status.
//! Upstream: k8s.io/apiserver/pkg/registry/rest/{create,update}.go.

use apimachinery::field::{ErrorList, Path};
use apimachinery::{Doc, Key, Ref, k, meta, validation};

use crate::kind::{Generation, Kind, NameRule, Op, Scope, SubKind};
use crate::rules::{self, complain, same_or_empty};

/// The most that an object's annotations may weigh, keys and values together, in bytes.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
/// Finalizers that need no domain.
const STANDARD_FINALIZERS: &[&str] = &["kubernetes", meta::FINALIZER_ORPHAN, meta::FINALIZER_FOREGROUND];

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
    as_go_writes(kind, new);
}

/// What hooks and defaults left in another order or form than Go would write it.
fn as_go_writes(kind: &Kind, doc: &mut Doc) {
    *doc = apimachinery::schema::normalise::normalise(doc.root(), kind.storage_version().schema);
}

/// Shapes the new state of an object (both of the stored version): system metadata as it was, `/status` writes
/// change nothing but status and metadata, other writes never status, and the generation grows by the kind's rule.
pub fn before_update(kind: &Kind, op: &Op<'_>, new: &mut Doc, old: &Doc) {
    let does = kind.sub(op.subresource).map(|s| s.does);
    match does {
        Some(SubKind::Status) => keep_all_but_status(new, old, !kind.strategy.labels_change_with_status()),
        // A binding writes both: the node, and the condition that says so.
        Some(SubKind::Binding) => {}
        _ if kind.has_status() => keep(new, old, &[], k::STATUS),
        _ => {}
    }
    let old_meta = old.get(k::METADATA);
    let mut meta = new.edit().at(k::METADATA);
    // What clients send of these does not count.
    for key in [
        k::SELF_LINK,
        k::GENERATION,
        k::CREATION_TIMESTAMP,
        k::DELETION_TIMESTAMP,
        k::DELETION_GRACE_PERIOD_SECONDS,
    ] {
        meta.set_opt(key, old_meta.get(key).is_set().then(|| old_meta.get(key)));
    }
    for key in [k::UID, k::NAME, k::NAMESPACE] {
        if meta.read().get(key).str().is_empty() && old_meta.get(key).is_set() {
            meta.set(key, old_meta.get(key));
        }
    }
    kind.strategy.prepare(op, new, Some(old));
    // What a controller notes beside the status is no new wish.
    if does != Some(SubKind::Status) && grows(kind.strategy.generation(), new, old) {
        let next = old_meta.get(k::GENERATION).i64() + 1;
        new.edit().at(k::METADATA).set(k::GENERATION, next);
    }
    as_go_writes(kind, new);
}

/// All errors of an object: its metadata's and the kind's own.
pub fn validate(kind: &Kind, op: &Op<'_>, new: &Doc, old: Option<&Doc>) -> ErrorList {
    let mut errs = ErrorList::new();
    let (meta, at) = (new.get(k::METADATA), Path::new("metadata"));
    match old {
        None => object_meta(&mut errs, kind, meta, &at),
        Some(old) => object_meta_update(&mut errs, meta, old.get(k::METADATA), &at),
    }
    kind.strategy.validate(op, new, old, &mut errs);
    errs
}

/// Complaints about a name under a kind's rule; also of the prefix that `generateName` is.
pub fn name(rule: NameRule, name: &str) -> Vec<String> {
    match rule {
        NameRule::Subdomain => validation::dns1123_subdomain(name),
        NameRule::Label => validation::dns1123_label(name),
        NameRule::Label1035 => validation::dns1035_label(name),
        NameRule::PathSegment => validation::path_segment(name),
        NameRule::Ip => match name.parse::<std::net::IpAddr>() {
            Ok(ip) if ip.to_string() != name => {
                vec![format!("must be in canonical form ({:?})", ip.to_string())]
            }
            _ => validation::ip(name),
        },
    }
}

fn object_meta(errs: &mut ErrorList, kind: &Kind, meta: Ref<'_>, at: &Path) {
    let given = meta.get(k::NAME).str();
    let prefix = meta.get(k::GENERATE_NAME).str();
    if !prefix.is_empty() {
        // A prefix may end in a dash or dot: what follows makes it whole.
        let whole = format!("{}a", prefix.strip_suffix('-').map_or(prefix.to_owned(), |p| format!("{p}a")));
        complain(errs, &at.child("generateName"), prefix, name(kind.name_rule, &whole));
    }
    if given.is_empty() {
        errs.required(&at.child("name"), "name or generateName is required");
    } else {
        complain(errs, &at.child("name"), given, name(kind.name_rule, given));
    }
    let space = meta.get(k::NAMESPACE).str();
    match (kind.scope, space.is_empty()) {
        (Scope::Namespaced, true) => errs.required(&at.child("namespace"), ""),
        (Scope::Namespaced, false) => {
            complain(errs, &at.child("namespace"), space, validation::dns1123_label(space))
        }
        (Scope::Cluster, false) => errs.forbidden(&at.child("namespace"), "not allowed on this type"),
        _ => {}
    }
    common_meta(errs, meta, at);
}

fn common_meta(errs: &mut ErrorList, meta: Ref<'_>, at: &Path) {
    rules::not_negative(errs, meta.get(k::GENERATION), &at.child("generation"));
    rules::labels(errs, meta.get(k::LABELS), &at.child("labels"));
    annotations(errs, meta.get(k::ANNOTATIONS), &at.child("annotations"));
    owners(errs, meta.get(k::OWNER_REFERENCES), &at.child("ownerReferences"));
    let finalizers: Vec<&str> = meta.get(k::FINALIZERS).items().map(Ref::str).collect();
    let at = at.child("finalizers");
    for finalizer in &finalizers {
        complain(errs, &at, finalizer, validation::qualified_name(finalizer));
    }
    for (i, finalizer) in finalizers.iter().enumerate() {
        if !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(finalizer) {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            errs.invalid(&at.index(i), *finalizer, why);
        }
    }
    if [meta::FINALIZER_ORPHAN, meta::FINALIZER_FOREGROUND].iter().all(|f| finalizers.contains(f)) {
        let detail = format!(
            "finalizer {} and {} cannot be both set",
            meta::FINALIZER_ORPHAN,
            meta::FINALIZER_FOREGROUND
        );
        errs.invalid(&at, meta.get(k::FINALIZERS), &detail);
    }
}

/// Annotations: keys as labels have them, in any case, and a bound on their size.
pub(crate) fn annotations(errs: &mut ErrorList, map: Ref<'_>, at: &Path) {
    let mut size = 0;
    for (key, value) in map.entries() {
        complain(errs, at, key, validation::qualified_name(&key.to_lowercase()));
        size += key.len() + value.str().len();
    }
    if size > ANNOTATIONS_BYTES_MAX {
        errs.too_long(at, ANNOTATIONS_BYTES_MAX);
    }
}

fn owners(errs: &mut ErrorList, list: Ref<'_>, at: &Path) {
    let mut manager: Option<String> = None;
    for owner in list.items() {
        let version = owner.get(k::API_VERSION).str();
        if version.is_empty() || apimachinery::GroupVersion::parse(version).is_none() {
            errs.invalid(&at.child("apiVersion"), version, "version must not be empty");
        }
        for field in ["kind", "name", "uid"] {
            if owner.get(field).str().is_empty() {
                errs.invalid(&at.child(field), "", "must not be empty");
            }
        }
        if (version, owner.get(k::KIND).str()) == ("v1", "Event") {
            errs.invalid(at, owner, "/v1, Kind=Event is disallowed from being an owner");
        }
        if !owner.get(k::CONTROLLER).bool() {
            continue;
        }
        let this = format!("{}/{}", owner.get(k::KIND).str(), owner.get(k::NAME).str());
        if let Some(first) = &manager {
            let detail =
                "Only one reference can have Controller set to true. Found \"true\" in references for";
            errs.invalid(at, list, &format!("{detail} {first} and {this}"));
        } else {
            manager = Some(this);
        }
    }
}

fn object_meta_update(errs: &mut ErrorList, new: Ref<'_>, old: Ref<'_>, at: &Path) {
    if old.get(k::DELETION_TIMESTAMP).is_set() {
        let was: Vec<&str> = old.get(k::FINALIZERS).items().map(Ref::str).collect();
        let extra: Vec<&str> =
            new.get(k::FINALIZERS).items().map(Ref::str).filter(|f| !was.contains(f)).collect();
        if !extra.is_empty() {
            let list: Vec<String> = extra.iter().map(|f| format!("{f:?}")).collect();
            let detail = "no new finalizers can be added if the object is being deleted, found new finalizers []string";
            errs.forbidden(&at.child("finalizers"), &format!("{detail}{{{}}}", list.join(", ")));
        }
    }
    if new.get(k::GENERATION).i64() < old.get(k::GENERATION).i64() {
        errs.invalid(&at.child("generation"), new.get(k::GENERATION).i64(), "must not be decremented");
    }
    for field in
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        rules::unchanged(errs, new.get(field), old.get(field), &at.child(field));
    }
    common_meta(errs, new, at);
}

fn grows(rule: Generation, new: &Doc, old: &Doc) -> bool {
    let differs = |key: Key| !same_or_empty(new.get(key), old.get(key));
    let body = |doc: &Doc| {
        let mut doc = doc.clone();
        for key in [k::METADATA, k::STATUS, k::API_VERSION, k::KIND] {
            doc.edit().remove(key);
        }
        doc
    };
    match rule {
        Generation::Body => body(new) != body(old),
        Generation::Never => false,
        Generation::Spec => differs(k::SPEC),
        Generation::SpecAndAnnotations => {
            let (a, b) = (new.get(k::METADATA).get(k::ANNOTATIONS), old.get(k::METADATA).get(k::ANNOTATIONS));
            differs(k::SPEC) || !same_or_empty(a, b)
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
