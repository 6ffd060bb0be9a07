//! Secret: configuration not for everyone's eyes. Upstream: pkg/registry/core/secret, ValidateSecret.

use std::borrow::Cow;

use apimachinery::codec::json;
use apimachinery::field::{ErrorList, Path};
use apimachinery::{Doc, k, meta, validation};
use base64::Engine as _;

use crate::core::config_map::{BYTES_MAX, immutable};
use crate::kind::*;
use crate::print::{AGE, NAME};
use crate::rules::complain;

/// Secrets.
pub(crate) fn kind() -> Kind {
    let count = |o: apimachinery::Ref<'_>, _| Cell::Int(o.get(k::DATA).len() as i64);
    Kind {
        columns: Cow::Owned(vec![
            NAME,
            Column::path("Type", "string", "What it is for.", "type"),
            Column::code("Data", "integer", "How many entries it has.", count),
            AGE,
        ]),
        fields: Cow::Owned(vec![SelectableField::path("type")]),
        strategy: &Secret,
        ..Kind::new("", "v1", "secrets", "Secret").defaults(defaults)
    }
}

fn defaults(doc: &mut Doc) {
    if doc.get(k::TYPE).str().is_empty() {
        doc.edit().set(k::TYPE, "Opaque");
    }
    // What is written in plain text wins over the same key in base64, and is never kept.
    let plain = doc.get(k::STRING_DATA).to_doc();
    for (key, value) in plain.root().entries() {
        doc.edit().at(k::DATA).set(key, base64::engine::general_purpose::STANDARD.encode(value.str()));
    }
    doc.edit().remove(k::STRING_DATA);
}

struct Secret;

impl Strategy for Secret {
    fn prepare(&self, _op: &Op<'_>, new: &mut Doc, old: Option<&Doc>) {
        // The type of an existing secret is kept by clients that know none.
        if let Some(old) = old
            && new.get(k::TYPE).str().is_empty()
        {
            let ty = old.get(k::TYPE);
            new.edit().set(k::TYPE, ty);
        }
    }

    fn validate(&self, _op: &Op<'_>, new: &Doc, old: Option<&Doc>, errs: &mut ErrorList) {
        let (data, at) = (new.get(k::DATA), Path::new("data"));
        let mut size = 0;
        for (key, value) in data.entries() {
            complain(errs, &at.key(key), key, validation::config_map_key(key));
            size += value.str().len() / 4 * 3;
        }
        if size > BYTES_MAX {
            errs.too_long(&at, BYTES_MAX);
        }
        required_keys(errs, new, &at);
        if let Some(old) = old {
            crate::rules::unchanged(errs, new.get(k::TYPE), old.get(k::TYPE), &Path::new("type"));
            immutable(errs, new, old, &["data"]);
        }
    }
}

fn required_keys(errs: &mut ErrorList, new: &Doc, at: &Path) {
    let data = new.get(k::DATA);
    let keys: &[&str] = match new.get(k::TYPE).str() {
        "kubernetes.io/service-account-token" => {
            if meta::of(new.root()).annotation("kubernetes.io/service-account.name").unwrap_or("").is_empty()
            {
                let at = Path::new("metadata").child("annotations").key("kubernetes.io/service-account.name");
                errs.required(&at, "");
            }
            &[]
        }
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/basic-auth" => {
            if !data.get("username").exists() && !data.get("password").exists() {
                errs.required(&at.key("username"), "");
                errs.required(&at.key("password"), "");
            }
            &[]
        }
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        _ => &[],
    };
    for key in keys {
        if !data.get(key).exists() {
            errs.required(&at.key(key), "");
        } else if key.starts_with(".docker") {
            let text =
                base64::engine::general_purpose::STANDARD.decode(data.get(key).str()).unwrap_or_default();
            let why = match json::parse(text) {
                Ok(parsed) if parsed.doc.root().is_object() => continue,
                Ok(_) => "json: cannot unmarshal it into Go value of type map[string]interface {}".to_owned(),
                Err(error) => error.to_string(),
            };
            errs.invalid(&at.key(key), "<secret contents redacted>", &why);
        }
    }
}
