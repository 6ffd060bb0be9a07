//! Tables, as `kubectl get` shows them: cells made by the server from the kind's columns.
//! Upstream: k8s.io/apiserver/pkg/registry/rest/table.go, pkg/printers.

use api::Column;
use apimachinery::{Doc, Val, doc, k};
use base::time::Timestamp;

use super::render;

/// A table of these objects. `include` is what the rows carry of the object: `None`, `Object`, which `whole` makes,
/// or else its metadata. `head` is whether it says what the columns are.
pub fn table(
    columns: &[Column],
    version: &str,
    include: &str,
    objects: impl Iterator<Item = Doc>,
    whole: impl Fn(Doc) -> Doc,
    now: Timestamp,
    head: bool,
) -> Doc {
    let mut out = doc!({ "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": {}, "columnDefinitions": [], "rows": [] });
    for column in columns.iter().filter(|_| head) {
        let definition = doc!({ "name": column.name, "type": column.ty, "format": column.format,
            "description": column.description, "priority": column.priority });
        out.edit().list(k::COLUMN_DEFINITIONS).push(definition);
    }
    for object in objects {
        let mut row = Doc::object();
        let mut edit = row.edit();
        edit.set(k::CELLS, Val::Array);
        for column in columns {
            edit.reborrow().list(k::CELLS).push(column.cell(object.root(), now));
        }
        match include {
            "None" => {}
            "Object" => {
                edit.set(k::OBJECT, whole(object));
            }
            _ => {
                edit.set(k::OBJECT, render::metadata(object.root(), version));
            }
        }
        out.edit().list(k::ROWS).push(row);
    }
    out
}
