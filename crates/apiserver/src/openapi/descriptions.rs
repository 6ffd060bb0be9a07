//! What types and fields mean, in our own words: `apimachinery/schema/descriptions/*.txt`, resolved and compressed by
//! `cargo xtask codegen`. Unpacked only while a document is made.

use std::collections::BTreeMap;
use std::io::Read;

/// Unpacked text; see [`Descriptions`].
pub(super) fn unpack() -> String {
    let mut out = String::new();
    flate2::read::GzDecoder::new(&include_bytes!("descriptions.txt.gz")[..])
        .read_to_string(&mut out)
        .expect("codegen packs text");
    out
}

/// Descriptions by type (`core/v1.PodSpec`) and field; the type's own is under the empty field.
pub(super) struct Descriptions<'t>(BTreeMap<(&'t str, &'t str), &'t str>);

impl<'t> Descriptions<'t> {
    /// Those of an unpacked text.
    pub(super) fn of(text: &'t str) -> Descriptions<'t> {
        let (mut all, mut ty) = (BTreeMap::new(), "");
        for line in text.lines() {
            let (name, rest) = line.split_once('\t').expect("codegen writes tabs");
            match (name, rest.split_once('\t')) {
                ("", Some((field, about))) => _ = all.insert((ty, field), about),
                _ => {
                    ty = name;
                    all.insert((ty, ""), rest);
                }
            }
        }
        Descriptions(all)
    }

    /// What a field means; of the type itself when `field` is empty. Empty where nothing is said.
    pub(super) fn get(&self, ty: &str, field: &str) -> &'t str {
        self.0.get(&(ty, field)).copied().unwrap_or("")
    }
}
