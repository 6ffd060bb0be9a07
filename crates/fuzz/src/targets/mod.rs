//! One file per target.

pub mod frames;
pub mod json;
pub mod json_patch;
pub mod merge_patch;
pub mod protobuf;
pub mod quantity;
pub mod requests;
pub mod schema;
pub mod selector;
pub mod strategic;
pub mod yaml;

use apimachinery::codec::json as codec;
use apimachinery::{Doc, Ref};
use serde_json::Value;

/// A document of a value.
fn doc(value: &Value) -> Doc {
    codec::parse(value.to_string()).expect("a value is JSON").doc
}

/// Whether a document says what a value says; numbers are compared by what they mean.
fn agree(ours: Ref<'_>, theirs: &Value) -> bool {
    match theirs {
        Value::Null => ours.exists() && !ours.is_set(),
        Value::Bool(b) => ours.opt_bool() == Some(*b),
        Value::String(s) => ours.opt_str() == Some(s),
        Value::Number(n) => ours.number().is_some_and(|text| {
            // The other crate's doubles are off by a bit or two.
            let near = |a: f64, b: f64| a == b || (a / b - 1.0).abs() < 1e-14;
            n.as_i64().is_some_and(|n| text.parse() == Ok(n))
                || text.parse().ok().zip(n.as_f64()).is_some_and(|(a, b)| near(a, b))
        }),
        Value::Array(items) => {
            ours.is_array() && ours.len() == items.len() && ours.items().zip(items).all(|(a, b)| agree(a, b))
        }
        Value::Object(entries) => {
            ours.is_object()
                && ours.len() == entries.len()
                && entries.iter().all(|(name, value)| agree(ours.get(name), value))
        }
    }
}

fn shown(doc: &Doc) -> String {
    String::from_utf8_lossy(&doc.to_json()).into_owned()
}
