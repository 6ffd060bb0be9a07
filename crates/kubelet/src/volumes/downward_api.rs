//! Files that tell of the pod itself. Upstream: pkg/volume/downwardapi.

use apimachinery::{Ref, k};

use super::{MODE, Sources, mode_of, safe_path};
use crate::doors::{FileData, Payload};
use crate::fields;

pub(super) fn payload(source: Ref<'_>, sources: Sources<'_>) -> Result<Payload, String> {
    files(source.get(k::ITEMS), mode_of(source.get(k::DEFAULT_MODE), MODE), sources)
}

pub(super) fn files(items: Ref<'_>, mode: u32, sources: Sources<'_>) -> Result<Payload, String> {
    let mut out = Payload::new();
    for item in items.items() {
        let field = item.get(k::FIELD_REF);
        let text = if field.is_set() {
            fields::field(sources.facts, field.get(k::FIELD_PATH).str())?
        } else {
            fields::resource(sources.facts, item.get(k::RESOURCE_FIELD_REF), "")?
        };
        let mode = mode_of(item.get(k::MODE), mode);
        out.insert(
            safe_path(item.get(k::PATH).str())?,
            FileData { bytes: text.into_bytes(), mode, uid: None },
        );
    }
    Ok(out)
}
