//! Version 2: one document of everything, for clients that check, explain and patch by it (kubectl to 1.28).
//!
//! Source: OpenAPI 2.0; the same document in protobuf is in `protobuf`.

use std::collections::BTreeMap;

use apimachinery::gvk::GroupVersion;
use apimachinery::{Doc, doc};

use super::definitions::{Definitions, Dialect};
use super::descriptions::Descriptions;
use super::paths::{self, Answer, Operation, Parameter, Path};
use super::{TITLE, write_object};
use crate::kinds::Table;

/// The document in parts, none of which is large.
pub(super) struct Document {
    /// What stands before the rest.
    pub(super) head: Doc,
    /// By path.
    pub(super) paths: BTreeMap<String, Doc>,
    /// By name.
    pub(super) definitions: BTreeMap<String, Doc>,
    /// Parameters that operations share, by name.
    pub(super) parameters: BTreeMap<String, Doc>,
}

/// The document of these kinds.
pub(super) fn document(table: &Table, served: &[GroupVersion], about: &Descriptions<'_>) -> Document {
    let version = crate::version::GIT_VERSION;
    let head = doc!({ "swagger": "2.0", "info": { "title": TITLE, "version": version },
        "securityDefinitions": { "BearerToken": { "type": "apiKey", "name": "authorization", "in": "header",
            "description": "Bearer token" } },
        "security": [{ "BearerToken": [] }] });
    let mut out =
        Document { head, paths: BTreeMap::new(), definitions: BTreeMap::new(), parameters: BTreeMap::new() };
    let mut definitions = Definitions::new(Dialect::V2, about, served);
    for path in paths::all(table, about).into_values().flatten() {
        let item = item(&path, &mut definitions, &mut out.parameters);
        out.paths.insert(path.path, item);
    }
    out.definitions = definitions.finish();
    out
}

impl Document {
    /// The document's text.
    pub(super) fn to_json(&self) -> Vec<u8> {
        let mut out = self.head.to_json();
        out.pop();
        let parts =
            [("paths", &self.paths), ("definitions", &self.definitions), ("parameters", &self.parameters)];
        for (name, part) in parts {
            out.extend_from_slice(format!(",\"{name}\":").as_bytes());
            write_object(part, &mut out);
        }
        out.push(b'}');
        out
    }
}

fn item(path: &Path, definitions: &mut Definitions<'_>, shared: &mut BTreeMap<String, Doc>) -> Doc {
    let mut out = Doc::object();
    for operation in &path.operations {
        out.edit().set(operation.method, self::operation(operation, definitions, shared));
    }
    if !path.parameters.is_empty() {
        let all: Vec<Doc> = path.parameters.iter().map(|p| parameter(p, shared)).collect();
        out.edit().set("parameters", all);
    }
    out
}

fn operation(of: &Operation, definitions: &mut Definitions<'_>, shared: &mut BTreeMap<String, Doc>) -> Doc {
    let mut out = doc!({ "description": of.about, "operationId": of.id, "produces": of.produces,
        "schemes": ["https"], "tags": [of.tag] });
    if !of.consumes.is_empty() {
        out.edit().set("consumes", of.consumes.to_vec());
    }
    let mut parameters = Vec::new();
    if let Some((ty, required)) = of.body {
        let mut body = doc!({ "in": "body", "name": "body" });
        if required {
            body.edit().set("required", true);
        }
        body.edit().set("schema", definitions.reference(ty));
        parameters.push(body);
    }
    parameters.extend(of.parameters.iter().map(|p| parameter(p, shared)));
    if !parameters.is_empty() {
        out.edit().set("parameters", parameters);
    }
    for (code, text) in of.answers {
        let schema = match of.answer {
            Answer::Object(ty) => definitions.reference(ty),
            Answer::Text => doc!({ "type": "string" }),
        };
        let mut answer = doc!({ "description": text });
        answer.edit().set("schema", schema);
        out.edit().at("responses").set(code.to_string(), answer);
    }
    out.edit().at("responses").set("401", doc!({ "description": "Unauthorized" }));
    super::mark(&mut out, of);
    out
}

fn parameter(of: &Parameter, shared: &mut BTreeMap<String, Doc>) -> Doc {
    let mut out = doc!({ "name": of.name, "in": of.place, "type": of.ty, "uniqueItems": true });
    if !of.about.is_empty() {
        out.edit().set("description", &of.about);
    }
    if of.place == "path" {
        out.edit().set("required", true);
    }
    if !of.shared {
        return out;
    }
    shared.entry(of.name.clone()).or_insert(out);
    doc!({ "$ref": format!("#/parameters/{}", of.name) })
}
