//! Tables, as `kubectl get` shows them: cells made by the server from the kind's columns.
//! Upstream: k8s.io/apiserver/pkg/registry/rest/table.go, pkg/printers.

use api::{Kind, Version};
use apimachinery::{Doc, Val, doc, k};
use base::time::Timestamp;

use super::render;

/// A table of these objects. `include` is what the rows carry of the object: `None`, `Object`, or else its metadata.
pub fn table(
    kind: &Kind,
    served: &Version,
    version: &str,
    include: &str,
    objects: impl Iterator<Item = Doc>,
    now: Timestamp,
    columns: bool,
) -> Doc {
    let mut out = doc!({ "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": {}, "columnDefinitions": [], "rows": [] });
    for column in kind.columns.iter().filter(|_| columns) {
        let definition = doc!({ "name": column.name, "type": column.ty, "format": column.format,
            "description": column.description, "priority": column.priority });
        out.edit().list(k::COLUMN_DEFINITIONS).push(definition);
    }
    for object in objects {
        let mut row = Doc::object();
        let mut edit = row.edit();
        edit.set(k::CELLS, Val::Array);
        for column in kind.columns.iter() {
            edit.reborrow().list(k::CELLS).push(column.cell(object.root(), now));
        }
        match include {
            "None" => {}
            "Object" => {
                edit.set(k::OBJECT, render::convert(kind, served, object));
            }
            _ => {
                edit.set(k::OBJECT, render::metadata(object.root(), version));
            }
        }
        out.edit().list(k::ROWS).push(row);
    }
    out
}
