//! ConfigMap: configuration as files or values. Upstream: pkg/registry/core/configmap.

use std::borrow::Cow;

use apimachinery::field::{ErrorList, Path};
use apimachinery::{Doc, k, validation};

use crate::kind::*;
use crate::print::{AGE, NAME};
use crate::rules::complain;

/// The most that all values may weigh together, in bytes; of secrets too.
pub(crate) const BYTES_MAX: usize = 1024 * 1024;

/// ConfigMaps.
pub(crate) fn kind() -> Kind {
    let count =
        |o: apimachinery::Ref<'_>, _| Cell::Int((o.get(k::DATA).len() + o.get(k::BINARY_DATA).len()) as i64);
    Kind {
        short: names(&["cm"]),
        columns: Cow::Owned(vec![
            NAME,
            Column::code("Data", "integer", "How many entries it has.", count),
            AGE,
        ]),
        strategy: &ConfigMap,
        ..Kind::new("", "v1", "configmaps", "ConfigMap")
    }
}

struct ConfigMap;

impl Strategy for ConfigMap {
    fn validate(&self, _op: &Op<'_>, new: &Doc, old: Option<&Doc>, errs: &mut ErrorList) {
        let (text, binary) = (new.get(k::DATA), new.get(k::BINARY_DATA));
        let mut size = 0;
        for (field, map) in [("data", text), ("binaryData", binary)] {
            for (key, value) in map.entries() {
                let at = Path::new(field).key(key);
                complain(errs, &at, key, validation::config_map_key(key));
                if field == "data" && binary.get(key).exists() {
                    errs.invalid(&at, key, "duplicate of key present in binaryData");
                }
                let len = value.str().len();
                size += if field == "data" { len } else { len / 4 * 3 };
            }
        }
        if size > BYTES_MAX {
            // Upstream names no field here, which its paths print so.
            errs.too_long(&Path::new("[]"), BYTES_MAX);
        }
        if let Some(old) = old {
            immutable(errs, new, old, &["data", "binaryData"]);
        }
    }
}

/// What is immutable stays so, with its entries.
pub(crate) fn immutable(errs: &mut ErrorList, new: &Doc, old: &Doc, fields: &[&str]) {
    if !old.get(k::IMMUTABLE).bool() {
        return;
    }
    if !new.get(k::IMMUTABLE).bool() {
        errs.forbidden(&Path::new("immutable"), "field is immutable when `immutable` is set");
    }
    for field in fields {
        if !crate::rules::same_or_empty(new.get(field), old.get(field)) {
            errs.forbidden(&Path::new(field), "field is immutable when `immutable` is set");
        }
    }
}
