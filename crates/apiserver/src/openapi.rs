//! OpenAPI v3, made from the schema table and the list of kinds when first asked for.
//!
//! Structure only: types, list and map semantics, merge keys, and which verbs a resource has; clients validate,
//! explain and patch by it. Version 2 has no paths and no definitions: kubectl to 1.28 must have it, and, finding
//! nothing in it, leaves validation to the server, which does the same to all. Source: OpenAPI 3.0, KEP-2896.
//! Upstream: k8s.io/kube-openapi.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use api::{Kind, Scope, Sub, SubKind};
use apimachinery::call::{BoxFuture, Raw, RawBody, Verb};
use apimachinery::gvk::GroupVersion;
use apimachinery::schema::{Field, Go, Kind as GoKind, ListType, TypeId};
use apimachinery::{Call, Doc, Reply, Status, doc};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::kinds::Table;
use crate::{Api, PathHandler};

/// Where version 2 is.
const V2: &str = "/openapi/v2";
const TITLE: &str = "Kubernetes";

/// Answers `/openapi/v2`, `/openapi/v3` and one document per group and version below it.
#[derive(Default)]
pub struct OpenApi {
    // Invariant: made from the table that it holds.
    made: Mutex<Option<(Arc<Table>, Documents)>>,
}

type Documents = BTreeMap<String, (Bytes, String)>;

impl PathHandler for OpenApi {
    fn serves(&self, path: &str) -> bool {
        path == V2 || path == "/openapi/v3" || path.starts_with("/openapi/v3/")
    }

    fn answer<'a>(&'a self, api: &'a Arc<Api>, path: &'a str, call: &'a Call) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            if path == V2 {
                return second(call);
            }
            let rest = path.trim_end_matches('/').trim_start_matches("/openapi/v3").trim_start_matches('/');
            self.with(&api.kinds.table(), |documents| {
                if rest.is_empty() {
                    return index(documents);
                }
                match documents.get(rest) {
                    Some((bytes, hash)) => document(bytes, hash, call),
                    None => Reply::Status(Status::unknown_path()),
                }
            })
        })
    }
}

impl OpenApi {
    fn with(&self, table: &Arc<Table>, answer: impl FnOnce(&Documents) -> Reply) -> Reply {
        let mut made = self.made.lock().expect("nobody panics holding it");
        if !made.as_ref().is_some_and(|(of, _)| Arc::ptr_eq(of, table)) {
            *made = Some((Arc::clone(table), make(table)));
        }
        let (_, documents) = made.as_ref().expect("made just now");
        answer(documents)
    }
}

fn index(documents: &Documents) -> Reply {
    let mut out = doc!({ "paths": {} });
    for (path, (_, hash)) in documents {
        let url = doc!({ "serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}") });
        out.edit().at("paths").set(path, url);
    }
    Reply::Doc { code: 200, doc: Box::new(out), warnings: Vec::new() }
}

fn document(bytes: &Bytes, hash: &str, call: &Call) -> Reply {
    let etag = format!("\"{hash}\"");
    let known = call.wire.headers.iter().any(|(name, value)| name == "if-none-match" && *value == etag);
    // A client that names the hash has an address that never changes its content.
    let fixed = call.options.query.iter().any(|(name, value)| name == "hash" && value == hash);
    let mut headers = vec![("etag".to_owned(), etag)];
    if fixed {
        headers.push(("cache-control".into(), "public, immutable".into()));
    }
    let (code, body) = if known { (304, Bytes::new()) } else { (200, bytes.clone()) };
    Reply::Raw(Raw { code, content_type: "application/json".into(), headers, body: RawBody::Bytes(body) })
}

/// Version 2, in JSON or in gnostic's protobuf. Source: github.com/google/gnostic/openapiv2/OpenAPIv2.proto.
fn second(call: &Call) -> Reply {
    // Clients ask for it with an `@` before the version, which no media type may have in an answer.
    const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    let version = crate::version::GIT_VERSION;
    let binary = call.wire.headers.iter().any(|(n, v)| n == "accept" && v.contains("proto-openapi"));
    if !binary {
        let doc = doc!({ "swagger": "2.0", "info": { "title": TITLE, "version": version }, "paths": {} });
        return Reply::Doc { code: 200, doc: Box::new(doc), warnings: Vec::new() };
    }
    // Document: 1 swagger, 2 info, 8 paths; Info: 1 title, 2 version.
    let info = [member(1, TITLE.as_bytes()), member(2, version.as_bytes())].concat();
    let body = [member(1, b"2.0"), member(2, &info), member(8, b"")].concat();
    let body = RawBody::Bytes(body.into());
    Reply::Raw(Raw { code: 200, content_type: PROTOBUF.into(), headers: Vec::new(), body })
}

/// A protobuf member of up to 127 bytes.
fn member(number: u8, value: &[u8]) -> Vec<u8> {
    let len = u8::try_from(value.len()).ok().filter(|n| *n < 128).expect("names and versions are short");
    [&[number << 3 | 2, len], value].concat()
}

fn make(table: &Table) -> Documents {
    let mut versions: BTreeSet<GroupVersion> = BTreeSet::new();
    for kind in table.all() {
        versions.extend(kind.versions.iter().map(|v| v.gv.clone()));
    }
    versions.into_iter().map(|gv| one(table, &gv)).collect()
}

fn one(table: &Table, gv: &GroupVersion) -> (String, (Bytes, String)) {
    let root = if gv.group.is_empty() {
        format!("api/{}", gv.version)
    } else {
        format!("apis/{}/{}", gv.group, gv.version)
    };
    let mut out = doc!({ "openapi": "3.0.0", "info": { "title": TITLE, "version": crate::version::GIT_VERSION }, "paths": {}, "components": { "schemas": {} } });
    let mut types = Types::default();
    for kind in table.all() {
        let Some(version) = kind.versions.iter().find(|v| v.gv == *gv) else { continue };
        types.want_kind(version.schema, gv, &kind.kind);
        for (path, item) in paths(kind, gv, &root, version.schema, &mut types) {
            out.edit().at("paths").set(path, item);
        }
    }
    let schemas = types.finish();
    for (name, schema) in schemas {
        out.edit().at("components").at("schemas").set(name, schema);
    }
    let bytes = Bytes::from(out.to_json());
    let hash: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02X}")).collect();
    (root, (bytes, hash))
}

// === schemas ===

#[derive(Default)]
struct Types {
    wanted: Vec<TypeId>,
    done: BTreeMap<String, Doc>,
    kinds: BTreeMap<u16, Vec<Doc>>,
}

impl Types {
    fn want_kind(&mut self, ty: TypeId, gv: &GroupVersion, kind: &str) {
        let gvk = doc!({ "group": gv.group, "version": gv.version, "kind": kind });
        self.kinds.entry(ty.0).or_default().push(gvk);
        self.wanted.push(ty);
    }

    fn reference(&mut self, ty: TypeId) -> Doc {
        self.wanted.push(ty);
        doc!({ "$ref": format!("#/components/schemas/{}", name(ty)) })
    }

    fn finish(mut self) -> BTreeMap<String, Doc> {
        while let Some(ty) = self.wanted.pop() {
            let name = name(ty);
            if self.done.contains_key(&name) {
                continue;
            }
            self.done.insert(name.clone(), Doc::object());
            let schema = self.object(ty);
            self.done.insert(name, schema);
        }
        self.done
    }

    fn object(&mut self, ty: TypeId) -> Doc {
        let mut out = doc!({ "type": "object" });
        let mut required: Vec<&str> = Vec::new();
        for field in ty.fields() {
            let mut schema = self.of(field.ty());
            decorate(&mut schema, field);
            out.edit().at("properties").set(field.name(), schema);
            if field.required() {
                required.push(field.name());
            }
        }
        if !required.is_empty() {
            out.edit().set("required", required);
        }
        if let Some(gvks) = self.kinds.get(&ty.0) {
            out.edit().set("x-kubernetes-group-version-kind", gvks.clone());
        }
        out
    }

    fn of(&mut self, go: Go) -> Doc {
        let typed = |ty: &str| doc!({ "type": ty });
        let formatted = |ty: &str, format: &str| doc!({ "type": ty, "format": format });
        match go.kind() {
            GoKind::Pointer => self.of(go.pointee()),
            GoKind::String => {
                let mut out = typed("string");
                if go.is_enum() {
                    out.edit().set("enum", go.values().collect::<Vec<_>>());
                }
                out
            }
            GoKind::Bool => typed("boolean"),
            GoKind::Bytes => formatted("string", "byte"),
            GoKind::Quantity => doc!({ "oneOf": [{ "type": "string" }, { "type": "number" }] }),
            GoKind::IntOrString => {
                doc!({ "oneOf": [{ "type": "integer" }, { "type": "string" }], "format": "int-or-string" })
            }
            GoKind::Time | GoKind::MicroTime => formatted("string", "date-time"),
            GoKind::Duration => typed("string"),
            GoKind::Raw | GoKind::Any => typed("object"),
            GoKind::Slice => {
                let mut out = typed("array");
                let items = self.of(go.elem());
                out.edit().set("items", items);
                out
            }
            GoKind::Map => {
                let mut out = typed("object");
                let values = self.of(go.elem());
                out.edit().set("additionalProperties", values);
                out
            }
            GoKind::Struct => match go.struct_type() {
                Some(ty) => self.reference(ty),
                None => typed("object"),
            },
            GoKind::Float64 => formatted("number", "double"),
            GoKind::Int64 | GoKind::Int => formatted("integer", "int64"),
            GoKind::Int32 => formatted("integer", "int32"),
            _ => typed(if matches!(go.kind(), GoKind::FieldsV1) { "object" } else { "integer" }),
        }
    }
}

/// `core/v1.PodSpec` as upstream's definitions are named.
fn name(ty: TypeId) -> String {
    let (package, short) = ty.name().rsplit_once('.').unwrap_or(("", ty.name()));
    let package = package.replace('/', ".");
    match package.strip_prefix("meta.") {
        Some(version) => format!("io.k8s.apimachinery.pkg.apis.meta.{version}.{short}"),
        None => format!("io.k8s.api.{package}.{short}"),
    }
}

fn decorate(schema: &mut Doc, field: Field) {
    // Siblings of `$ref` are ignored by readers, so a decorated reference is wrapped.
    let extensions = extensions(field);
    if extensions.is_empty() {
        return;
    }
    if schema.get("$ref").exists() {
        let mut outer = Doc::object();
        outer.edit().set("allOf", vec![schema.clone()]);
        *schema = outer;
    }
    for (name, value) in extensions {
        schema.edit().set(name, value);
    }
}

fn extensions(field: Field) -> Vec<(&'static str, Doc)> {
    let mut out = Vec::new();
    let list_type = match field.list_type() {
        ListType::Unset => None,
        ListType::Atomic => Some("atomic"),
        ListType::Set => Some("set"),
        ListType::Map => Some("map"),
    };
    if let Some(list_type) = list_type {
        out.push(("x-kubernetes-list-type", Doc::scalar(list_type)));
    }
    let keys: Vec<&str> = field.list_keys().collect();
    if !keys.is_empty() {
        out.push(("x-kubernetes-list-map-keys", Doc::scalar(keys)));
    }
    let mut strategies = Vec::new();
    if field.patch_merge() {
        strategies.push("merge");
    }
    if field.patch_retain_keys() {
        strategies.push("retainKeys");
    }
    if !strategies.is_empty() {
        out.push(("x-kubernetes-patch-strategy", Doc::scalar(strategies.join(","))));
    }
    if let Some(key) = field.merge_key() {
        out.push(("x-kubernetes-patch-merge-key", Doc::scalar(key.name())));
    }
    out
}

// === paths ===

fn paths(
    kind: &Kind,
    gv: &GroupVersion,
    root: &str,
    schema: TypeId,
    types: &mut Types,
) -> Vec<(String, Doc)> {
    let resource = &kind.storage.resource;
    let base = match kind.scope {
        Scope::Namespaced => format!("/{root}/namespaces/{{namespace}}/{resource}"),
        Scope::Cluster => format!("/{root}/{resource}"),
    };
    let gvk = doc!({ "group": gv.group, "version": gv.version, "kind": kind.kind });
    let body = types.reference(schema);
    let mut out = Vec::new();
    let collection = [Verb::List, Verb::Create, Verb::DeleteCollection];
    out.extend(item(&base, kind.verbs, &collection, &gvk, &body));
    let one = [Verb::Get, Verb::Update, Verb::Patch, Verb::Delete];
    out.extend(item(&format!("{base}/{{name}}"), kind.verbs, &one, &gvk, &body));
    if kind.scope == Scope::Namespaced && kind.verbs.contains(&Verb::List) {
        out.extend(item(&format!("/{root}/{resource}"), kind.verbs, &[Verb::List], &gvk, &body));
    }
    for sub in &kind.subresources {
        out.extend(subresource(&base, sub, kind, gv, &body, types));
    }
    out
}

fn subresource(
    base: &str,
    sub: &Sub,
    kind: &Kind,
    gv: &GroupVersion,
    own: &Doc,
    types: &mut Types,
) -> Option<(String, Doc)> {
    if matches!(
        sub.does,
        SubKind::Log | SubKind::Exec | SubKind::Attach | SubKind::PortForward | SubKind::Proxy
    ) {
        return None;
    }
    let sub_gv = sub.gv.as_ref().unwrap_or(gv);
    let shown = if sub.kind.is_empty() { kind.kind.as_ref() } else { sub.kind };
    let body = match apimachinery::schema::kind(&sub_gv.group, &sub_gv.version, shown) {
        Some(ty) if !sub.kind.is_empty() => {
            types.want_kind(ty, sub_gv, shown);
            types.reference(ty)
        }
        _ => own.clone(),
    };
    let gvk = doc!({ "group": sub_gv.group, "version": sub_gv.version, "kind": shown });
    let all = [Verb::Get, Verb::Create, Verb::Update, Verb::Patch];
    item(&format!("{base}/{{name}}/{}", sub.name), sub.verbs, &all, &gvk, &body)
}

fn item(path: &str, has: &[Verb], of: &[Verb], gvk: &Doc, body: &Doc) -> Option<(String, Doc)> {
    let mut out = Doc::object();
    for verb in of.iter().filter(|v| has.contains(v)) {
        let (method, action) = match verb {
            Verb::Get => ("get", "get"),
            Verb::List => ("get", "list"),
            Verb::Create => ("post", "post"),
            Verb::Update => ("put", "put"),
            Verb::Patch => ("patch", "patch"),
            Verb::Delete => ("delete", "delete"),
            Verb::DeleteCollection => ("delete", "deletecollection"),
            Verb::Watch | Verb::Connect => continue,
        };
        out.edit().set(method, operation(*verb, action, gvk, body));
    }
    if out.root().is_empty() {
        return None;
    }
    let parameter = |name: &str| doc!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "uniqueItems": true } });
    for name in ["name", "namespace"].iter().filter(|n| path.contains(&format!("{{{n}}}"))) {
        out.edit().list("parameters").push(parameter(name));
    }
    out.edit()
        .list("parameters")
        .push(doc!({ "name": "pretty", "in": "query", "schema": { "type": "string", "uniqueItems": true } }));
    Some((path.to_owned(), out))
}

fn operation(verb: Verb, action: &str, gvk: &Doc, body: &Doc) -> Doc {
    let mut content = Doc::object();
    content.edit().at("application/json").set("schema", body);
    let mut out =
        doc!({ "responses": { "200": { "description": "OK" }, "401": { "description": "Unauthorized" } } });
    out.edit().at("responses").at("200").set("content", &content);
    out.edit().set("x-kubernetes-action", action).set("x-kubernetes-group-version-kind", gvk);
    if verb.is_mutating() {
        let mut query = vec!["dryRun"];
        if matches!(verb, Verb::Create | Verb::Update | Verb::Patch) {
            query.extend(["fieldManager", "fieldValidation"]);
            let media: &[&str] = match verb {
                Verb::Patch => &[
                    "application/json-patch+json",
                    "application/merge-patch+json",
                    "application/strategic-merge-patch+json",
                ],
                _ => &["*/*"],
            };
            for media in media {
                let schema = if verb == Verb::Patch { doc!({ "type": "object" }) } else { body.clone() };
                out.edit().at("requestBody").at("content").at(*media).set("schema", schema);
            }
        }
        for name in query {
            out.edit().list("parameters").push(
                doc!({ "name": name, "in": "query", "schema": { "type": "string", "uniqueItems": true } }),
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use apimachinery::call::{Accept, Body, Options, Target, Who, Wire};

    use super::*;

    #[test]
    fn the_second_version_is_there_for_old_clients() {
        let mut call = Call {
            who: Who::Anonymous,
            verb: Verb::Get,
            target: Target::Path(V2.into()),
            options: Options::default(),
            accept: Accept::default(),
            body: Body::Empty,
            wire: Wire::default(),
        };
        assert!(matches!(second(&call), Reply::Doc { code: 200, .. }));
        let asked = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
        call.wire.headers.push(("accept".into(), asked.into()));
        let Reply::Raw(Raw { content_type, body: RawBody::Bytes(body), .. }) = second(&call) else {
            panic!("not bytes")
        };
        assert!(!content_type.contains('@'), "kubectl cannot read {content_type}");
        assert!(body.starts_with(b"\x0a\x032.0\x12"), "{body:?}");
        assert!(body.ends_with(b"\x42\x00"), "{body:?}");
    }
}
