//! JSON merge patch. Source: RFC 7386.

use crate::doc::{Doc, Edit, Ref, Val};

/// Applies `patch` to `target`: objects are merged, null removes, everything else replaces.
pub fn apply(target: &Doc, patch: Ref<'_>) -> Doc {
    let mut out = target.clone();
    merge(out.edit(), patch);
    out
}

fn merge(mut at: Edit<'_>, patch: Ref<'_>) {
    if !patch.is_object() {
        return at.put(patch);
    }
    if !at.read().is_object() {
        at.put(Val::Object);
    }
    for (name, value) in patch.entries() {
        if !value.is_set() {
            at.remove(name);
        } else if value.is_object() {
            // Also where nothing was: nulls within an object that is new are not kept.
            merge(at.reborrow().at(name), value);
        } else {
            at.set(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::json;

    #[test]
    fn the_examples_of_the_rfc() {
        let cases = [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
            (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            (r#"[1,2]"#, r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            (r#"{}"#, r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
            (r#"{"a":"x"}"#, r#"{"a":{"b":1}}"#, r#"{"a":{"b":1}}"#),
        ];
        for (target, patch, expected) in cases {
            let doc = |text: &str| json::parse(text).expect("test JSON").doc;
            let out = apply(&doc(target), doc(patch).root());
            assert_eq!(String::from_utf8_lossy(&out.to_json()), expected, "{target} + {patch}");
        }
    }
}
