//! JSON merge patch. Source: RFC 7386.

use base::hash::Map;

use crate::doc::{self, Builder, Doc, Ref};

/// From how many entries on an object is looked up by an index.
const LONG: usize = 32;

/// Applies `patch` to `target`: objects are merged, null removes, everything else replaces.
pub fn apply(target: &Doc, patch: Ref<'_>) -> Doc {
    let mut out = Builder::new(String::new());
    merge(&mut out, Builder::NO_KEY, target.root(), patch);
    out.finish()
}

/// Writes what becomes of `target`, which may be absent. In time linear in both.
fn merge(out: &mut Builder, key: u32, target: Ref<'_>, patch: Ref<'_>) -> u32 {
    if !patch.is_object() {
        return out.copy(key, patch);
    }
    let id = out.node(key, doc::TAG_OBJECT, 0, 0);
    let target = if target.is_object() { target } else { Ref::default() };
    let (old, new) = (Entries::of(target), Entries::of(patch));
    for (name, was) in target.entries() {
        let becomes = new.get(name);
        if becomes.exists() && !becomes.is_set() {
            continue;
        }
        let name = out.key(name);
        let child = match becomes.exists() {
            true => merge(out, name, was, becomes),
            false => out.copy(name, was),
        };
        out.link(id, child);
    }
    for (name, becomes) in patch.entries() {
        if becomes.is_set() && !old.get(name).exists() {
            // Also where nothing was: nulls within an object that is new are not kept.
            let name = out.key(name);
            let child = merge(out, name, Ref::default(), becomes);
            out.link(id, child);
        }
    }
    id
}

/// An object's entries by name.
enum Entries<'a> {
    Few(Ref<'a>),
    Many(Map<&'a str, Ref<'a>>),
}

impl<'a> Entries<'a> {
    fn of(object: Ref<'a>) -> Entries<'a> {
        if object.entries().nth(LONG).is_some() {
            Entries::Many(object.entries().collect())
        } else {
            Entries::Few(object)
        }
    }

    /// An absent one where there is none.
    fn get(&self, name: &str) -> Ref<'a> {
        match self {
            Entries::Few(object) => object.get(name),
            Entries::Many(all) => all.get(name).copied().unwrap_or_default(),
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

    #[test]
    fn long_objects_are_merged_by_an_index() {
        let object = |from: usize, value: &str| {
            let entries: Vec<String> = (from..from + 40).map(|i| format!("\"k{i}\":{value}")).collect();
            format!("{{{}}}", entries.join(","))
        };
        let doc = |text: &str| json::parse(text).expect("test JSON").doc;
        let (target, patch) = (object(0, "1"), object(20, "2"));
        let out = apply(&doc(&target), doc(&patch).root());
        let value = |i: usize| out.get(format!("k{i}").as_str()).i64();
        assert_eq!((out.root().len(), value(0), value(19), value(20), value(59)), (60, 1, 1, 2, 2));
        let gone = apply(&out, doc(&object(0, "null")).root());
        assert_eq!(gone.root().len(), 20);
    }
}
