//! Types as schemas: one definition for each type that is reached, in the words of either version of OpenAPI.
//!
//! Structure comes from the schema table, prose from [`Descriptions`].
//! Upstream: k8s.io/kube-openapi/pkg/generators, which makes its definitions from the same Go structs.

use std::collections::BTreeMap;

use apimachinery::gvk::GroupVersion;
use apimachinery::schema::{Field, Go, Kind as GoKind, ListType, TypeId, kinds};
use apimachinery::{Doc, Val, doc};

use super::descriptions::Descriptions;

/// A version of OpenAPI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dialect {
    /// 2.0: no alternatives, and by upstream's choice no defaults and enums. Keywords may stand beside `$ref`.
    V2,
    /// 3.0: a `$ref` stands alone, so that what is said beside it needs `allOf`.
    V3,
}

impl Dialect {
    fn place(self) -> &'static str {
        match self {
            Dialect::V2 => "#/definitions/",
            Dialect::V3 => "#/components/schemas/",
        }
    }
}

/// Definitions by name, made as they are referred to.
pub(super) struct Definitions<'a> {
    dialect: Dialect,
    about: &'a Descriptions<'a>,
    served: &'a [GroupVersion],
    wanted: Vec<TypeId>,
    done: BTreeMap<String, Doc>,
}

impl<'a> Definitions<'a> {
    /// None so far. `served` are the groups and versions in which the kinds that stand in all of them are listed.
    pub(super) fn new(
        dialect: Dialect,
        about: &'a Descriptions<'a>,
        served: &'a [GroupVersion],
    ) -> Definitions<'a> {
        Definitions { dialect, about, served, wanted: Vec::new(), done: BTreeMap::new() }
    }

    /// A reference to a type, which gets a definition.
    pub(super) fn reference(&mut self, ty: TypeId) -> Doc {
        self.wanted.push(ty);
        doc!({ "$ref": format!("{}{}", self.dialect.place(), name(ty)) })
    }

    /// All that were referred to, and what they refer to.
    pub(super) fn finish(mut self) -> BTreeMap<String, Doc> {
        while let Some(ty) = self.wanted.pop() {
            let name = name(ty);
            if !self.done.contains_key(&name) {
                let schema = self.object(ty);
                self.done.insert(name, schema);
            }
        }
        self.done
    }

    fn object(&mut self, ty: TypeId) -> Doc {
        let mut out = doc!({ "type": "object" });
        describe(&mut out, self.about.get(ty.name(), ""));
        let mut required: Vec<&str> = Vec::new();
        for field in ty.fields() {
            out.edit().at("properties").set(field.name(), self.property(ty, field));
            if is_required(field) {
                required.push(field.name());
            }
        }
        if !required.is_empty() {
            out.edit().set("required", required);
        }
        if ty.is_atomic() {
            out.edit().set("x-kubernetes-map-type", "atomic");
        }
        let gvks = self.gvks(ty);
        if !gvks.is_empty() {
            out.edit().set("x-kubernetes-group-version-kind", gvks);
        }
        out
    }

    fn property(&mut self, ty: TypeId, field: Field) -> Doc {
        let schema = self.of(field.ty());
        let mut beside = Doc::object();
        describe(&mut beside, self.about.get(ty.name(), field.name()));
        extend(&mut beside, field);
        if self.dialect == Dialect::V3
            && let Some(default) = default(field)
        {
            beside.edit().set("default", default);
        }
        self.join(schema, beside)
    }

    /// A schema with further keywords.
    fn join(&self, mut schema: Doc, beside: Doc) -> Doc {
        if self.dialect == Dialect::V3 && schema.get("$ref").exists() && !beside.root().is_empty() {
            let mut outer = Doc::object();
            outer.edit().set("allOf", vec![schema]);
            schema = outer;
        }
        for entry in beside.root().fields() {
            schema.edit().set(entry.name(), entry);
        }
        schema
    }

    fn of(&mut self, go: Go) -> Doc {
        match go.kind() {
            GoKind::Pointer => self.of(go.elem()),
            GoKind::Struct => self.reference(go.struct_type().expect("a struct has its type")),
            GoKind::Slice => self.holder("array", "items", go),
            GoKind::Map => self.holder("object", "additionalProperties", go),
            GoKind::String => {
                let mut out = doc!({ "type": "string" });
                if go.is_enum() && self.dialect == Dialect::V3 {
                    let mut values: Vec<_> = go.values().collect();
                    values.sort_unstable();
                    out.edit().set("enum", values);
                }
                out
            }
            GoKind::Bool => doc!({ "type": "boolean" }),
            GoKind::Bytes => doc!({ "type": "string", "format": "byte" }),
            GoKind::Float32 | GoKind::Float64 => doc!({ "type": "number", "format": "double" }),
            GoKind::Int32 | GoKind::Uint32 => doc!({ "type": "integer", "format": "int32" }),
            GoKind::Int | GoKind::Int64 | GoKind::Uint | GoKind::Uint64 => {
                doc!({ "type": "integer", "format": "int64" })
            }
            GoKind::Any => doc!({ "type": "object" }),
            special => self.special(special),
        }
    }

    fn holder(&mut self, ty: &str, of: &str, go: Go) -> Doc {
        let mut inner = self.of(go.elem());
        if self.dialect == Dialect::V3
            && let Some(zero) = zero(go.elem())
        {
            let mut beside = Doc::object();
            beside.edit().set("default", zero);
            inner = self.join(inner, beside);
        }
        let mut out = doc!({ "type": ty });
        out.edit().set(of, inner);
        out
    }

    /// Go types that write themselves as something else than their fields.
    fn special(&mut self, kind: GoKind) -> Doc {
        let (name, about, format, alternatives): (_, _, _, &[&str]) = match kind {
            GoKind::Quantity => (
                "api.resource.Quantity",
                "A number with a unit, such as 100m, 1.5 or 2Gi",
                "",
                &["string", "number"],
            ),
            GoKind::IntOrString => (
                "util.intstr.IntOrString",
                "A whole number or a text",
                "int-or-string",
                &["integer", "string"],
            ),
            GoKind::Time => ("apis.meta.v1.Time", "A time of RFC 3339, to the second", "date-time", &[]),
            GoKind::MicroTime => {
                ("apis.meta.v1.MicroTime", "A time of RFC 3339, to the microsecond", "date-time", &[])
            }
            GoKind::Duration => ("apis.meta.v1.Duration", "A length of time, such as 1h30m", "", &[]),
            GoKind::FieldsV1 => {
                ("apis.meta.v1.FieldsV1", "A set of fields as a tree of their names", "", &[])
            }
            _ => ("runtime.RawExtension", "Any object", "", &[]),
        };
        let name = format!("io.k8s.apimachinery.pkg.{name}");
        let reference = doc!({ "$ref": format!("{}{name}", self.dialect.place()) });
        let mut schema = Doc::object();
        if self.dialect == Dialect::V3 && !alternatives.is_empty() {
            let all: Vec<Doc> = alternatives.iter().map(|ty| doc!({ "type": ty })).collect();
            schema.edit().set("oneOf", all);
        } else {
            let object = matches!(kind, GoKind::FieldsV1 | GoKind::Raw);
            schema.edit().set("type", if object { "object" } else { "string" });
        }
        if !format.is_empty() {
            schema.edit().set("format", format);
        }
        describe(&mut schema, about);
        self.done.insert(name, schema);
        reference
    }

    fn gvks(&self, ty: TypeId) -> Vec<Doc> {
        let gvk = |group: &str, version: &str, kind: &str| doc!({ "group": group, "version": version, "kind": kind });
        if matches!(ty.name(), "meta/v1.DeleteOptions" | "meta/v1.WatchEvent") {
            return self.served.iter().map(|gv| gvk(&gv.group, &gv.version, ty.short_name())).collect();
        }
        kinds().filter(|(.., of)| *of == ty).map(|(g, v, k, _)| gvk(g, v, k)).collect()
    }
}

fn describe(schema: &mut Doc, about: &str) {
    if !about.is_empty() {
        schema.edit().set("description", about);
    }
}

/// `core/v1.PodSpec` as upstream names its definitions.
pub(super) fn name(ty: TypeId) -> String {
    let (package, short) = ty.name().rsplit_once('.').unwrap_or(("", ty.name()));
    match package.strip_prefix("meta/") {
        Some(version) => format!("io.k8s.apimachinery.pkg.apis.meta.{version}.{short}"),
        None => format!("io.k8s.api.{}.{short}", package.replace('/', ".")),
    }
}

/// Upstream: `hasOptionalTag` of the generator.
fn is_required(field: Field) -> bool {
    field.required() || !field.optional() && !field.omitempty() && !field.omitzero()
}

/// The stated default, or what Go fills in where nothing is said. Upstream: `generateDefault` of the generator.
fn default(field: Field) -> Option<Doc> {
    if let Some(text) = field.default() {
        let text = match text.strip_prefix("ref(") {
            // Constants that defaults refer to: AzureDataDiskCachingReadWrite, AzureSharedBlobDisk.
            Some(constant) if constant.starts_with("AzureDataDisk") => "\"ReadWrite\"",
            Some(_) => "\"Shared\"",
            None => text,
        };
        return apimachinery::codec::json::parse(text).ok().map(|parsed| parsed.doc);
    }
    match field.ty().kind() {
        GoKind::Struct => Some(Doc::object()),
        _ if field.omitempty() || field.omitzero() => None,
        _ => zero(field.ty()),
    }
}

/// What Go has where nothing was set; nothing for types that are absent then.
fn zero(go: Go) -> Option<Doc> {
    match go.kind() {
        GoKind::Struct => Some(Doc::object()),
        GoKind::String => Some(Doc::scalar("")),
        GoKind::Bool => Some(Doc::scalar(false)),
        GoKind::Int | GoKind::Int32 | GoKind::Int64 | GoKind::Uint | GoKind::Uint32 | GoKind::Uint64 => {
            Some(Doc::scalar(0))
        }
        GoKind::Float32 | GoKind::Float64 => Some(Doc::scalar(0)),
        _ => None,
    }
}

fn extend(schema: &mut Doc, field: Field) {
    let list_type = match field.list_type() {
        ListType::Unset => None,
        ListType::Atomic => Some("atomic"),
        ListType::Set => Some("set"),
        ListType::Map => Some("map"),
    };
    let keys: Vec<&str> = field.list_keys().collect();
    let strategies = [
        (field.patch_merge(), "merge"),
        (field.patch_replace(), "replace"),
        (field.patch_retain_keys(), "retainKeys"),
    ];
    let strategies: Vec<&str> = strategies.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
    let mut edit = schema.edit();
    edit.set_opt("x-kubernetes-list-type", list_type);
    edit.set_opt("x-kubernetes-list-map-keys", Some(keys).filter(|k| !k.is_empty()).map(Val::from));
    edit.set_opt("x-kubernetes-map-type", field.is_atomic().then_some("atomic"));
    edit.set_opt("x-kubernetes-patch-strategy", Some(strategies.join(",")).filter(|s| !s.is_empty()));
    edit.set_opt("x-kubernetes-patch-merge-key", field.merge_key().map(|key| key.name()));
}
