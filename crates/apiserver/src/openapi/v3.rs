//! Version 3: a document for each group and version, for kubectl from 1.27 on.
//!
//! Source: OpenAPI 3.0, KEP-2896.

use apimachinery::gvk::GroupVersion;
use apimachinery::{Doc, doc};

use super::definitions::{Definitions, Dialect};
use super::descriptions::Descriptions;
use super::paths::{Answer, Operation, Parameter, Path};
use super::{TITLE, write_object};

/// The text of the document of these paths.
pub(super) fn document(paths: &[Path], served: &[GroupVersion], about: &Descriptions<'_>) -> Vec<u8> {
    let mut definitions = Definitions::new(Dialect::V3, about, served);
    let items = paths.iter().map(|path| (path.path.clone(), item(path, &mut definitions))).collect();
    let head =
        doc!({ "openapi": "3.0.0", "info": { "title": TITLE, "version": crate::version::GIT_VERSION } });
    let mut out = head.to_json();
    out.pop();
    out.extend_from_slice(b",\"paths\":");
    write_object(&items, &mut out);
    out.extend_from_slice(b",\"components\":{\"schemas\":");
    write_object(&definitions.finish(), &mut out);
    out.extend_from_slice(
        b",\"securitySchemes\":{\"BearerToken\":{\"type\":\"apiKey\",\"name\":\"authorization\",\"in\":\"header\",\
        \"description\":\"Bearer token\"}}}}",
    );
    out
}

fn item(path: &Path, definitions: &mut Definitions<'_>) -> Doc {
    let mut out = Doc::object();
    for operation in &path.operations {
        out.edit().set(operation.method, self::operation(operation, definitions));
    }
    if !path.parameters.is_empty() {
        out.edit().set("parameters", path.parameters.iter().map(parameter).collect::<Vec<_>>());
    }
    out
}

fn operation(of: &Operation, definitions: &mut Definitions<'_>) -> Doc {
    let mut out = doc!({ "description": of.about, "operationId": of.id, "tags": [of.tag] });
    if !of.parameters.is_empty() {
        out.edit().set("parameters", of.parameters.iter().map(parameter).collect::<Vec<_>>());
    }
    if let Some((ty, required)) = of.body {
        let mut body = Doc::object();
        for media in of.consumes {
            let schema = definitions.reference(ty);
            body.edit().at("content").at(*media).set("schema", schema);
        }
        if required {
            body.edit().set("required", true);
        }
        out.edit().set("requestBody", body);
    }
    for (code, text) in of.answers {
        let mut answer = doc!({ "description": text });
        for media in of.produces {
            let schema = match of.answer {
                Answer::Object(ty) => definitions.reference(ty),
                Answer::Text => doc!({ "type": "string" }),
            };
            answer.edit().at("content").at(*media).set("schema", schema);
        }
        out.edit().at("responses").set(code.to_string(), answer);
    }
    out.edit().at("responses").set("401", doc!({ "description": "Unauthorized" }));
    super::mark(&mut out, of);
    out
}

fn parameter(of: &Parameter) -> Doc {
    let mut out = doc!({ "name": of.name, "in": of.place, "schema": { "type": of.ty, "uniqueItems": true } });
    if !of.about.is_empty() {
        out.edit().set("description", &of.about);
    }
    if of.place == "path" {
        out.edit().set("required", true);
    }
    out
}
