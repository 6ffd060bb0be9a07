//! The words in which a kind is described: names, versions, subresources, columns, selectable fields, and the
//! code hooks of its [`Strategy`]. Built-in kinds and, at run time, custom ones are the same struct.
//!
//! It does not know how objects are stored or served.
//! Upstream: pkg/registry/*/*/strategy.go, k8s.io/apiserver/pkg/registry/rest.

use std::borrow::Cow;

use apimachinery::call::{User, Verb};
use apimachinery::field::ErrorList;
use apimachinery::schema::TypeId;
use apimachinery::{Doc, GroupResource, GroupVersion, Ref, Val};
use base::time::Timestamp;

/// A name that a built-in kind has from the binary and a custom one from its definition.
pub type Name = Cow<'static, str>;

/// What a kind is.
pub struct Kind {
    /// Group and plural under which its objects are stored; also the resource's name in every served version.
    pub storage: GroupResource,
    /// `Pod`.
    pub kind: Name,
    /// `PodList`.
    pub list_kind: Name,
    /// `pod`.
    pub singular: Name,
    /// `po`.
    pub short: Vec<Name>,
    /// `all`.
    pub categories: Vec<Name>,
    /// Whether objects live in namespaces.
    pub scope: Scope,
    /// Where objects are kept: `/registry/pods`; the key is this, the namespace if any, and the name.
    pub key_prefix: Name,
    /// Served versions, the preferred one first; [`Kind::storage_version`] is the one that is stored.
    pub versions: Vec<Version>,
    /// Index into `versions` of what is stored.
    pub stored: usize,
    /// Parts with a path of their own, in the order of discovery.
    pub subresources: Vec<Sub>,
    /// What can be done with the resource itself, in the order of discovery.
    pub verbs: &'static [Verb],
    /// How `kubectl get` shows it, after NAME, which is the first column here too.
    pub columns: Cow<'static, [Column]>,
    /// Fields that a field selector may name besides `metadata.name` and `metadata.namespace`.
    pub fields: Cow<'static, [SelectableField]>,
    /// How much a write is worth.
    pub class: Class,
    /// Seconds after which an object expires; 0 for never.
    pub ttl_seconds: u64,
    /// What names may look like.
    pub name_rule: NameRule,
    /// The code hooks.
    pub strategy: &'static dyn Strategy,
}

/// Whether objects live in namespaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "upstream's words")]
pub enum Scope {
    Namespaced,
    Cluster,
}

/// How a kind's objects are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Synced before it is acknowledged.
    Durable,
    /// Written at once, synced within a second: events and node heartbeats.
    Lazy,
    /// Answered, never stored: reviews, bindings, token requests.
    Virtual,
}

/// Which rule names follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NameRule {
    /// RFC 1123 subdomain, at most 253 characters: most kinds.
    Subdomain,
    /// RFC 1123 label, at most 63 characters: namespaces.
    Label,
    /// RFC 1035 label: services of old; today services take [`NameRule::Label`] where relaxed.
    Label1035,
    /// Any path segment: the RBAC kinds.
    PathSegment,
    /// An address in its canonical form: IPAddress.
    Ip,
}

/// A served version.
pub struct Version {
    /// Its group, which may differ from the storage group, and version.
    pub gv: GroupVersion,
    /// What its documents look like.
    pub schema: TypeId,
    /// Fills in what was not said, after decoding and before conversion. Must not change what was said.
    pub defaults: fn(&mut Doc),
    /// Turns a defaulted document of this version into the stored one; `None` where they are the same but for
    /// `apiVersion`, which the caller sets in either direction.
    pub to_storage: Option<fn(&mut Doc)>,
    /// The other way.
    pub from_storage: Option<fn(&mut Doc)>,
    /// The warning that every use of this version gets.
    pub deprecated: Option<Name>,
    /// Names of fields in this version's selectors that differ from the stored ones: (here, stored).
    pub field_aliases: &'static [(&'static str, &'static str)],
}

/// A part of a resource with a path of its own.
#[derive(Clone)]
pub struct Sub {
    /// The last element of the path: `status`.
    pub name: &'static str,
    /// What it does.
    pub does: SubKind,
    /// Group and version of the objects it takes and gives, where not the resource's own.
    pub gv: Option<GroupVersion>,
    /// Kind of the objects that it takes and gives; empty for the resource's own.
    pub kind: &'static str,
    /// What can be done with it.
    pub verbs: &'static [Verb],
}

/// What a subresource does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "upstream's words")]
pub enum SubKind {
    Status,
    Scale(ScalePaths),
    Finalize,
    Approval,
    Binding,
    Eviction,
    Token,
    Log,
    Exec,
    Attach,
    PortForward,
    Proxy,
    EphemeralContainers,
    Resize,
}

/// Where the fields of a Scale are in the object, as dotted paths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScalePaths {
    /// The wanted number.
    pub spec_replicas: &'static str,
    /// The number there is.
    pub status_replicas: &'static str,
    /// A label selector object; the Scale has it as text. Empty for none.
    pub selector: &'static str,
}

/// A column of a table.
#[derive(Clone)]
pub struct Column {
    /// The heading, as upstream writes it: `Ready`.
    pub name: Name,
    /// `string`, `integer`, `number`, `boolean`, `date`.
    pub ty: &'static str,
    /// `name` for the name, else empty.
    pub format: &'static str,
    /// For people.
    pub description: Name,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
    /// The value.
    pub show: Show,
}

/// Where a column's value comes from.
#[derive(Clone)]
pub enum Show {
    /// The value at a dotted path; times as ages in columns of type `date`.
    Path(Name),
    /// Code: the object and the present time.
    Code(fn(Ref<'_>, Timestamp) -> Cell),
}

/// A value in a table.
#[derive(Clone, PartialEq, Debug)]
pub enum Cell {
    /// Nothing to show.
    Null,
    /// Text.
    Text(Name),
    /// A whole number.
    Int(i64),
    /// A truth value.
    Bool(bool),
}

/// A field that selectors may name.
#[derive(Clone)]
pub struct SelectableField {
    /// `spec.nodeName`.
    pub name: Name,
    /// How its value is found.
    pub pick: Pick,
}

/// How a selectable field's value is found.
#[derive(Clone, Copy)]
pub enum Pick {
    /// The name is the path.
    Path,
    /// By code.
    Code(for<'a> fn(Ref<'a>) -> Cow<'a, str>),
}

/// What is being done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "upstream's words")]
pub enum Action {
    Create,
    Update,
    Delete,
}

/// The request that a hook is called for.
pub struct Op<'a> {
    /// What is being done; patches are updates.
    pub action: Action,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// The version in which the client speaks. Documents given to hooks are of the stored version all the same.
    pub gv: &'a GroupVersion,
    /// Whether nothing will be written.
    pub dry_run: bool,
    /// Who asks.
    pub user: &'a User,
    /// The present.
    pub now: Timestamp,
}

/// When `metadata.generation` grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Generation {
    /// The kind has none.
    Never,
    /// When the spec changes.
    Spec,
    /// When anything but metadata and status changes: kinds without a spec.
    Body,
    /// When annotations change, too: deployments.
    SpecAndAnnotations,
}

/// What an object needs from the cluster's pools; see [`Strategy::allocates`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocations {
    /// One entry per IP family in the order of `spec.ipFamilies`: the address asked for, or empty for any.
    /// Empty list: no cluster address (headless, ExternalName).
    pub cluster_ips: Vec<(Name, String)>,
    /// One entry per port in the order of `spec.ports` that needs a node port: index, protocol, number (0 for any).
    pub node_ports: Vec<(usize, String, u16)>,
    /// `spec.healthCheckNodePort`: `None` when not needed, 0 for any.
    pub health_check_node_port: Option<u16>,
}

/// The code hooks of a kind. All are optional, synchronous and without IO; documents are of the stored version.
pub trait Strategy: Sync {
    /// Brings a new object into shape before it is validated: drops what clients may not set. The generic
    /// rules (status wiped or kept, generation) have run.
    fn prepare(&self, _op: &Op<'_>, _new: &mut Doc, _old: Option<&Doc>) {}

    /// Collects every error; metadata has been checked.
    fn validate(&self, _op: &Op<'_>, _new: &Doc, _old: Option<&Doc>, _errs: &mut ErrorList) {}

    /// What to tell the client though the object is accepted.
    fn warnings(&self, _op: &Op<'_>, _new: &Doc, _old: Option<&Doc>) -> Vec<String> {
        Vec::new()
    }

    /// For kinds whose deletion takes time: the seconds to wait, given what the client asked for. `None`: the
    /// kind knows no grace and goes at once.
    fn graceful_delete(&self, _op: &Op<'_>, _asked: Option<i64>, _object: Ref<'_>) -> Option<i64> {
        None
    }

    /// What the object needs from the cluster's pools of addresses and ports; `None` for kinds that need none.
    fn allocates(&self, _new: Ref<'_>, _old: Option<Ref<'_>>) -> Option<Allocations> {
        None
    }

    /// How much a write in this namespace is worth, where that differs from [`Kind::class`].
    fn class(&self, _namespace: &str) -> Option<Class> {
        None
    }

    /// Whether an update may leave out the resource version.
    fn allow_unconditional_update(&self) -> bool {
        true
    }

    /// Whether a PUT to a name that does not exist makes the object.
    fn allow_create_on_update(&self) -> bool {
        false
    }

    /// When the generation grows.
    fn generation(&self) -> Generation {
        Generation::Never
    }

    /// Whether a status given on create is kept, as with nodes.
    fn keeps_status_on_create(&self) -> bool {
        false
    }

    /// Whether labels change through `/status`.
    fn labels_change_with_status(&self) -> bool {
        true
    }

    /// What a deletion through this version without `propagationPolicy` means for dependents: old versions orphan them.
    fn default_propagation(&self, _gv: &GroupVersion) -> &'static str {
        "Background"
    }
}

/// The strategy of a kind that needs no code.
pub struct Plain;

impl Strategy for Plain {}

/// All that can be done with a stored resource.
pub const ALL_VERBS: &[Verb] = &[
    Verb::Create,
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Update,
    Verb::Watch,
];
/// Virtual kinds are asked, by creating them.
pub const CREATE_ONLY: &[Verb] = &[Verb::Create];
/// What can be done with a part of an object.
pub(crate) const GET_PATCH_UPDATE: &[Verb] = &[Verb::Get, Verb::Patch, Verb::Update];

/// A list of built-in names.
pub(crate) fn names(all: &[&'static str]) -> Vec<Name> {
    all.iter().map(|n| Name::Borrowed(*n)).collect()
}

/// A built-in version without defaults or conversion.
///
/// # Panics
/// When the schema table has no such kind: a mistake in the list of kinds, found by every test.
pub(crate) fn v(group: &'static str, version: &'static str, kind: &str) -> Version {
    let schema = apimachinery::schema::kind(group, version, kind);
    Version {
        gv: GroupVersion::new(group, version),
        schema: schema.expect("every built-in kind is in the schema table"),
        defaults: |_| {},
        to_storage: None,
        from_storage: None,
        deprecated: None,
        field_aliases: &[],
    }
}

// === impl Kind ===

impl Kind {
    /// A namespaced built-in kind of one version, with what follows from its names.
    pub(crate) fn new(
        group: &'static str,
        version: &'static str,
        resource: &'static str,
        kind: &'static str,
    ) -> Kind {
        Kind {
            storage: GroupResource::new(group, resource),
            kind: kind.into(),
            list_kind: format!("{kind}List").into(),
            singular: kind.to_lowercase().into(),
            short: Vec::new(),
            categories: Vec::new(),
            scope: Scope::Namespaced,
            key_prefix: format!("/registry/{resource}").into(),
            versions: vec![v(group, version, kind)],
            stored: 0,
            subresources: Vec::new(),
            verbs: ALL_VERBS,
            columns: Cow::Borrowed(crate::print::NAME_AGE),
            fields: Cow::Borrowed(&[]),
            class: Class::Durable,
            ttl_seconds: 0,
            name_rule: NameRule::Subdomain,
            strategy: &Plain,
        }
    }

    /// The same for a virtual kind: create only, never stored.
    pub(crate) fn new_virtual(
        group: &'static str,
        version: &'static str,
        resource: &'static str,
        kind: &'static str,
    ) -> Kind {
        Kind { class: Class::Virtual, verbs: CREATE_ONLY, ..Kind::new(group, version, resource, kind) }
    }

    /// The same with defaults for its (first) version.
    pub(crate) fn defaults(mut self, defaults: fn(&mut Doc)) -> Kind {
        self.versions[0].defaults = defaults;
        self
    }

    /// The same with a warning for every use of its (first) version.
    pub(crate) fn deprecated(mut self, warning: &'static str) -> Kind {
        self.versions[0].deprecated = Some(warning.into());
        self
    }

    /// The version that is stored.
    pub fn storage_version(&self) -> &Version {
        &self.versions[self.stored]
    }

    /// The served version of this group and name.
    pub fn version(&self, gv: &GroupVersion) -> Option<&Version> {
        self.versions.iter().find(|v| v.gv == *gv)
    }

    /// How much a write of an object of this namespace is worth.
    pub fn class_of(&self, namespace: &str) -> Class {
        self.strategy.class(namespace).unwrap_or(self.class)
    }

    /// Whether objects live in namespaces.
    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// The subresource of this name.
    pub fn sub(&self, name: &str) -> Option<&Sub> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Whether it has `/status`.
    pub fn has_status(&self) -> bool {
        self.subresources.iter().any(|s| s.does == SubKind::Status)
    }

    /// The key of one object; `namespace` is not looked at for kinds without namespaces.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        match self.scope {
            Scope::Namespaced => [&self.key_prefix, "/", namespace, "/", name].concat(),
            Scope::Cluster => [&self.key_prefix, "/", name].concat(),
        }
    }

    /// The prefix of the keys of one namespace, or of all when it is empty. Ends with a slash.
    pub fn keys(&self, namespace: &str) -> String {
        if namespace.is_empty() || self.scope == Scope::Cluster {
            format!("{}/", self.key_prefix)
        } else {
            format!("{}/{namespace}/", self.key_prefix)
        }
    }

    /// The value of the selectable field `name` (the stored version's name of it); `None` when selectors may
    /// not name it.
    pub fn field<'a>(&self, object: Ref<'a>, name: &str) -> Option<Cow<'a, str>> {
        if name == "metadata.name" || (name == "metadata.namespace" && self.is_namespaced()) {
            return Some(Cow::Borrowed(object.find(name).str()));
        }
        self.fields.iter().find(|f| f.name == name).map(|f| f.value(object))
    }
}

// === impl Sub ===

impl Sub {
    /// `/status`.
    pub const STATUS: Sub =
        Sub { name: "status", does: SubKind::Status, gv: None, kind: "", verbs: GET_PATCH_UPDATE };

    /// `/scale` of the kinds that have `spec.replicas`.
    pub const SCALE: Sub = Sub {
        name: "scale",
        does: SubKind::Scale(ScalePaths {
            spec_replicas: "spec.replicas",
            status_replicas: "status.replicas",
            selector: "spec.selector",
        }),
        gv: Some(GroupVersion::new("autoscaling", "v1")),
        kind: "Scale",
        verbs: GET_PATCH_UPDATE,
    };

    /// A subresource with a kind and verbs of its own.
    pub(crate) const fn new(
        name: &'static str,
        does: SubKind,
        kind: &'static str,
        verbs: &'static [Verb],
    ) -> Sub {
        Sub { name, does, gv: None, kind, verbs }
    }

    /// The group and version of what it takes and gives, for a resource that is served as `served`. The old
    /// groups have a Scale of their own.
    pub fn group_version<'s>(&'s self, served: &'s GroupVersion) -> &'s GroupVersion {
        let old = served.group == "extensions" || served.version.starts_with("v1beta");
        match &self.gv {
            Some(gv) if !(old && self.kind == "Scale") => gv,
            _ => served,
        }
    }
}

// === impl Column ===

impl Column {
    /// A column of code.
    pub(crate) const fn code(
        name: &'static str,
        ty: &'static str,
        about: &'static str,
        show: fn(Ref<'_>, Timestamp) -> Cell,
    ) -> Column {
        Column {
            name: Name::Borrowed(name),
            ty,
            format: "",
            description: Name::Borrowed(about),
            priority: 0,
            show: Show::Code(show),
        }
    }

    /// A column that shows a field.
    pub(crate) const fn path(
        name: &'static str,
        ty: &'static str,
        about: &'static str,
        path: &'static str,
    ) -> Column {
        Column {
            name: Name::Borrowed(name),
            ty,
            format: "",
            description: Name::Borrowed(about),
            priority: 0,
            show: Show::Path(Name::Borrowed(path)),
        }
    }

    /// Only with `-o wide`.
    pub(crate) const fn wide(mut self) -> Column {
        self.priority = 1;
        self
    }

    /// The value for one object.
    pub fn cell(&self, object: Ref<'_>, now: Timestamp) -> Cell {
        match &self.show {
            Show::Code(code) => code(object, now),
            Show::Path(path) if self.ty == "date" => crate::print::age_of(object.find(path).str(), now),
            Show::Path(path) => crate::print::plain(object.find(path)),
        }
    }
}

// === impl SelectableField ===

impl SelectableField {
    /// A field whose name is its path.
    pub(crate) const fn path(name: &'static str) -> SelectableField {
        SelectableField { name: Name::Borrowed(name), pick: Pick::Path }
    }

    /// A field found by code.
    pub(crate) const fn code(
        name: &'static str,
        code: for<'a> fn(Ref<'a>) -> Cow<'a, str>,
    ) -> SelectableField {
        SelectableField { name: Name::Borrowed(name), pick: Pick::Code(code) }
    }

    /// Its value as selectors compare it.
    pub fn value<'a>(&self, object: Ref<'a>) -> Cow<'a, str> {
        let at = match self.pick {
            Pick::Code(code) => return code(object),
            Pick::Path => object.find(&self.name),
        };
        match (at.opt_str(), at.number(), at.opt_bool()) {
            (Some(text), ..) | (_, Some(text), _) => Cow::Borrowed(text),
            (.., Some(truth)) => Cow::Borrowed(if truth { "true" } else { "false" }),
            _ => Cow::Borrowed(""),
        }
    }
}

// === impl Cell ===

impl From<Cell> for Val<'static> {
    fn from(cell: Cell) -> Val<'static> {
        match cell {
            Cell::Null => Val::Null,
            Cell::Text(text) => Val::Str(text),
            Cell::Int(n) => Val::Int(n),
            Cell::Bool(b) => Val::Bool(b),
        }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell::Text(text.into())
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell::Text(text.to_owned().into())
    }
}
