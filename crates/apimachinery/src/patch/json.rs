//! JSON patch: a list of operations at JSON pointers. Source: RFC 6902 and RFC 6901; words as upstream's library
//! (github.com/evanphx/json-patch), which refuses a missing parent instead of making it.

use crate::codec::json::DEPTH_MAX;
use crate::doc::{AsKey, Doc, Edit, Ref, Val};
use crate::k;

/// The most operations in one patch; upstream's limit.
pub const OPERATIONS_MAX: usize = 10_000;
/// What all copies of one patch may add together, in bytes: each may double the document. Upstream's limit.
const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;
/// What all moves of one patch may carry together, in bytes: what was moved is freed only with the document.
const MOVED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why a patch could not be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonPatchError {
    /// The patch itself is malformed.
    #[error("{0}")]
    Malformed(String),
    /// More than [`OPERATIONS_MAX`] operations.
    #[error("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {0}")]
    TooMany(usize),
    /// The patch does not fit the document.
    #[error("{0}")]
    Failed(String),
}

/// Applies `patch` to `target`, all operations or none.
///
/// # Errors
/// [`JsonPatchError`] for a malformed patch, a path that leads nowhere, or a `test` that does not hold.
pub fn apply(target: &Doc, patch: Ref<'_>) -> Result<Doc, JsonPatchError> {
    if !patch.is_array() {
        return Err(JsonPatchError::Malformed(
            "json: cannot unmarshal object into Go value of type jsonpatch.Patch".into(),
        ));
    }
    if patch.len() > OPERATIONS_MAX {
        return Err(JsonPatchError::TooMany(patch.len()));
    }
    let mut doc = target.clone();
    let mut carried = Carried::default();
    for operation in patch.items() {
        apply_one(&mut doc, operation, &mut carried)?;
    }
    Ok(doc)
}

/// What copies and moves have carried so far, in bytes.
#[derive(Default)]
struct Carried {
    copied: usize,
    moved: usize,
}

impl Carried {
    fn count(&mut self, op: &str, value: &Doc) -> Result<(), JsonPatchError> {
        let (sum, limit) = match op {
            "copy" => (&mut self.copied, COPIED_BYTES_MAX),
            _ => (&mut self.moved, MOVED_BYTES_MAX),
        };
        *sum += value.to_json().len();
        if *sum <= limit {
            return Ok(());
        }
        Err(JsonPatchError::Failed(format!(
            "Unable to complete the copy, the accumulated size increase of copy is {sum}, exceeding the limit {limit}"
        )))
    }
}

/// A value may not end up deeper than what can be read from a request: who writes a document goes down into it.
fn check_depth(path: &str, value: Ref<'_>) -> Result<(), JsonPatchError> {
    fn depth(value: Ref<'_>) -> usize {
        let within = if value.is_array() { value.items() } else { value.fields() };
        if value.is_array() || value.is_object() { 1 + within.map(depth).max().unwrap_or(0) } else { 0 }
    }
    // It goes no deeper than the limit: neither the document nor the patch ever does.
    if path.matches('/').count() + depth(value) > DEPTH_MAX {
        return Err(JsonPatchError::Failed("exceeded max depth".into()));
    }
    Ok(())
}

fn apply_one(doc: &mut Doc, operation: Ref<'_>, carried: &mut Carried) -> Result<(), JsonPatchError> {
    let op = operation.get("op").str();
    let Some(path) = operation.get(k::PATH).opt_str() else {
        return Err(JsonPatchError::Failed(format!("{op} operation does not apply: missing path")));
    };
    let value = operation.get(k::VALUE);
    match op {
        "add" => add(doc, path, value),
        "remove" => remove(doc, path),
        "replace" => {
            find(doc.root(), path).ok_or_else(|| missing("replace", path))?;
            replace(doc, path, value)
        }
        "test" => {
            // What an object does not have is null; what no object could have is missing.
            let absent = || {
                let (parent, _) = split(path)?;
                find(doc.root(), parent).filter(|at| at.is_object()).map(|_| Ref::default())
            };
            let have = find(doc.root(), path).or_else(absent).ok_or_else(|| missing("test", path))?;
            if have.same(value) {
                Ok(())
            } else {
                Err(JsonPatchError::Failed(format!("testing value {path} failed")))
            }
        }
        "move" | "copy" => {
            let from = operation.get(k::FROM).str();
            let Some(value) = find(doc.root(), from).map(Ref::to_doc) else { return Err(missing(op, from)) };
            carried.count(op, &value)?;
            if op == "move" {
                if path.strip_prefix(from).is_some_and(|rest| rest.starts_with('/')) {
                    return Err(JsonPatchError::Failed(format!(
                        "move operation does not apply: {path} lies within {from}"
                    )));
                }
                remove(doc, from)?;
            }
            add(doc, path, value.root())
        }
        other => Err(JsonPatchError::Failed(format!("Unexpected kind: {other}"))),
    }
}

fn missing(op: &str, path: &str) -> JsonPatchError {
    JsonPatchError::Failed(format!(
        "{op} operation does not apply: doc is missing path: {path}: missing value"
    ))
}

/// Splits a pointer into its parent and its last step, unescaped.
fn split(path: &str) -> Option<(&str, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((parent, unescape(last)))
}

fn unescape(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

fn index(step: &str) -> Option<usize> {
    let plain = step == "0"
        || (!step.starts_with('0') && !step.is_empty() && step.bytes().all(|b| b.is_ascii_digit()));
    if plain { step.parse().ok() } else { None }
}

fn child<'a>(at: Ref<'a>, step: &str) -> Option<Ref<'a>> {
    let found = if at.is_array() { at.item(index(step)?) } else { at.get(step) };
    found.exists().then_some(found)
}

fn find<'a>(root: Ref<'a>, path: &str) -> Option<Ref<'a>> {
    if path.is_empty() {
        return Some(root);
    }
    path.strip_prefix('/')?.split('/').try_fold(root, |at, step| child(at, &unescape(step)))
}

fn edit<'a>(doc: &'a mut Doc, path: &str) -> Option<Edit<'a>> {
    if path.is_empty() {
        return Some(doc.edit());
    }
    path.strip_prefix('/')?.split('/').try_fold(doc.edit(), |at, step| {
        let step = unescape(step);
        if at.read().is_array() { at.item(index(&step)?) } else { at.existing(&step) }
    })
}

fn add(doc: &mut Doc, path: &str, value: Ref<'_>) -> Result<(), JsonPatchError> {
    check_depth(path, value)?;
    if path.is_empty() {
        doc.edit().put(value);
        return Ok(());
    }
    let (parent, last) = split(path).ok_or_else(|| missing("add", path))?;
    let mut at = edit(doc, parent).ok_or_else(|| missing("add", path))?;
    if at.read().is_object() {
        at.set(&last, value);
        return Ok(());
    }
    if !at.read().is_array() {
        return Err(missing("add", path));
    }
    let len = at.read().len();
    match if last == "-" { Some(len) } else { index(&last) } {
        Some(i) if i <= len => {
            at.insert(i, value);
            Ok(())
        }
        _ => Err(JsonPatchError::Failed(format!(
            "add operation does not apply: doc is missing path: {path}: invalid index referenced"
        ))),
    }
}

fn replace(doc: &mut Doc, path: &str, value: Ref<'_>) -> Result<(), JsonPatchError> {
    check_depth(path, value)?;
    let mut at = edit(doc, path).ok_or_else(|| missing("replace", path))?;
    at.put(if value.exists() { Val::Ref(value) } else { Val::Null });
    Ok(())
}

fn remove(doc: &mut Doc, path: &str) -> Result<(), JsonPatchError> {
    let fail = || missing("remove", path);
    let (parent, last) = split(path).ok_or_else(fail)?;
    let mut at = edit(doc, parent).ok_or_else(fail)?;
    let removed = if at.read().is_array() {
        index(&last).is_some_and(|i| at.remove_item(i))
    } else {
        at.read().get_ref(last.as_key()).exists() && at.remove(&last)
    };
    if removed { Ok(()) } else { Err(fail()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::json;

    #[test]
    fn a_patch_makes_nothing_huge_or_bottomless() {
        let patched = |operations: Vec<String>| {
            let target =
                json::parse(format!(r#"{{"a":{{"s":"{}"}}}}"#, "x".repeat(100_000))).expect("JSON").doc;
            let patch = json::parse(format!("[{}]", operations.join(","))).expect("JSON").doc;
            apply(&target, patch.root()).map(|d| d.to_json().len())
        };
        let doubled = (0..40).map(|i| format!(r#"{{"op":"copy","from":"","path":"/c{i}"}}"#)).collect();
        let why = patched(doubled).expect_err("refused").to_string();
        assert!(why.starts_with("Unable to complete the copy"), "{why}");
        let hence = |i: usize| if i.is_multiple_of(2) { ("/a", "/b") } else { ("/b", "/a") };
        let moves = (0..200).map(hence).map(|(f, t)| format!(r#"{{"op":"move","from":"{f}","path":"{t}"}}"#));
        patched(moves.clone().collect()).expect_err("refused");
        patched(moves.take(20).collect()).expect("a few moves are fine");
        let nested = format!("{}1{}", r#"{"n":"#.repeat(400), "}".repeat(400));
        let deep =
            |i: usize| format!(r#"{{"op":"add","path":"/deep{}/n","value":{nested}}}"#, "/n".repeat(i * 400));
        let first = format!(r#"{{"op":"add","path":"/deep","value":{nested}}}"#);
        let why = patched(vec![first, deep(1), deep(2)]).expect_err("refused").to_string();
        assert_eq!(why, "exceeded max depth");
    }

    #[test]
    fn operations_apply_or_say_why_not() {
        let cases = [
            (
                r#"{"a":1}"#,
                r#"[{"op":"add","path":"/b","value":{"c":null}}]"#,
                Ok(r#"{"a":1,"b":{"c":null}}"#),
            ),
            (
                r#"{"a":[1,3]}"#,
                r#"[{"op":"add","path":"/a/1","value":2},{"op":"add","path":"/a/-","value":4}]"#,
                Ok(r#"{"a":[1,2,3,4]}"#),
            ),
            (r#"{"a":[1,2]}"#, r#"[{"op":"remove","path":"/a/0"}]"#, Ok(r#"{"a":[2]}"#)),
            (
                r#"{"a/b":{"m~n":1}}"#,
                r#"[{"op":"replace","path":"/a~1b/m~0n","value":2}]"#,
                Ok(r#"{"a/b":{"m~n":2}}"#),
            ),
            (r#"{"a":{"x":1}}"#, r#"[{"op":"move","from":"/a/x","path":"/y"}]"#, Ok(r#"{"a":{},"y":1}"#)),
            (
                r#"{"a":{"x":1}}"#,
                r#"[{"op":"copy","from":"/a","path":"/b"},{"op":"test","path":"/b/x","value":1.0}]"#,
                Ok(r#"{"a":{"x":1},"b":{"x":1}}"#),
            ),
            (r#"{"a":1}"#, r#"[{"op":"test","path":"/a","value":2}]"#, Err("testing value /a failed")),
            (
                r#"{"a":1}"#,
                r#"[{"op":"remove","path":"/b"}]"#,
                Err("remove operation does not apply: doc is missing path: /b: missing value"),
            ),
            (
                r#"{"a":1}"#,
                r#"[{"op":"add","path":"/b/c","value":1}]"#,
                Err("add operation does not apply: doc is missing path: /b/c: missing value"),
            ),
            (
                r#"{"a":[]}"#,
                r#"[{"op":"add","path":"/a/1","value":1}]"#,
                Err("add operation does not apply: doc is missing path: /a/1: invalid index referenced"),
            ),
            (r#"{"a":1}"#, r#"[{"op":"replace","path":"","value":{"b":1}}]"#, Ok(r#"{"b":1}"#)),
            (
                r#"{"a":{}}"#,
                r#"[{"op":"move","from":"/a","path":"/a/b"}]"#,
                Err("move operation does not apply: /a/b lies within /a"),
            ),
            (r#"{"a":1}"#, r#"[{"op":"frob","path":"/a"}]"#, Err("Unexpected kind: frob")),
            (
                r#"{"a":1}"#,
                r#"[{"op":"add","path":"x","value":2}]"#,
                Err("add operation does not apply: doc is missing path: x: missing value"),
            ),
            (r#"{"a":1}"#, r#"[{"op":"test","path":"/b","value":null}]"#, Ok(r#"{"a":1}"#)),
            (
                r#"{"a":1}"#,
                r#"[{"op":"test","path":"/b/c","value":null}]"#,
                Err("test operation does not apply: doc is missing path: /b/c: missing value"),
            ),
            (
                r#"{"a":[]}"#,
                r#"[{"op":"test","path":"/a/0","value":null}]"#,
                Err("test operation does not apply: doc is missing path: /a/0: missing value"),
            ),
        ];
        for (target, patch, expected) in cases {
            let doc = |text: &str| json::parse(text).expect("test JSON").doc;
            let out = apply(&doc(target), doc(patch).root())
                .map(|d| String::from_utf8(d.to_json()).expect("UTF-8"))
                .map_err(|e| e.to_string());
            assert_eq!(out.as_deref().map_err(String::as_str), expected, "{target} + {patch}");
        }
    }
}
