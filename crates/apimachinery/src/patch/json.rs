//! JSON patch: a list of operations at JSON pointers. Source: RFC 6902 and RFC 6901; words as upstream's library
//! (github.com/evanphx/json-patch), which refuses a missing parent instead of making it.

use crate::codec::json::DEPTH_MAX;
use crate::doc::{Doc, Edit, Ref, Val};
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
    let fail = |why: String| Err(JsonPatchError::Failed(why));
    let Some(path) = operation.get(k::PATH).opt_str() else {
        return fail(format!("{op} operation failed to decode path: missing value"));
    };
    let value = operation.get(k::VALUE);
    match op {
        "add" | "remove" => {
            check_depth(path, value)?;
            let Some((at, key)) = open(doc, path) else {
                let why =
                    format!("{op} operation does not apply: doc is missing path: \"{path}\": missing value");
                return fail(why);
            };
            let done = if op == "add" { add(at, &key, value) } else { remove(at, &key) };
            done.or_else(|why| fail(format!("error in {op} for path: '{path}': {why}")))
        }
        "replace" => {
            check_depth(path, value)?;
            if path.is_empty() {
                doc.edit().put(value);
                return Ok(());
            }
            let Some((mut at, key)) = open(doc, path) else {
                let why =
                    format!("replace operation does not apply: doc is missing path: {path}: missing value");
                return fail(why);
            };
            let value = if value.exists() { Val::Ref(value) } else { Val::Null };
            if at.read().is_object() {
                at.set(&key, value);
                return Ok(());
            }
            match index(&key, at.read().len()).ok().and_then(|i| at.item(i)) {
                Some(mut at) => at.put(value),
                None => {
                    let why = format!(
                        "replace operation does not apply: doc is missing key: {path}: missing value"
                    );
                    return fail(why);
                }
            };
            Ok(())
        }
        "test" => {
            let have = if path.is_empty() {
                doc.clone()
            } else {
                let Some((at, key)) = open(doc, path) else {
                    let why =
                        format!("test operation does not apply: is missing path: {path}: missing value");
                    return fail(why);
                };
                get(at.read(), &key).map_err(|why| {
                    JsonPatchError::Failed(format!("error in test for path: '{path}': {why}"))
                })?
            };
            match have.root().same(value) {
                true => Ok(()),
                false => fail(format!("testing value {path} failed: test failed")),
            }
        }
        "move" | "copy" => carry(doc, op, operation.get(k::FROM).str(), path, carried).or_else(fail),
        other => fail(format!("Unexpected kind: {other}")),
    }
}

fn carry(doc: &mut Doc, op: &str, from: &str, path: &str, carried: &mut Carried) -> Result<(), String> {
    let nowhere = |what: &str, path: &str| {
        format!("{op} operation does not apply: doc is missing {what} path: {path}: missing value")
    };
    let (at, key) = open(doc, from).ok_or_else(|| nowhere("from", from))?;
    let moves = op == "move";
    let untaken = |why: String| match moves {
        true => format!("error in move for path: '{key}': {why}"),
        false => format!("error in copy for from: '{from}': {why}"),
    };
    let value = get(at.read(), &key).map_err(untaken)?;
    carried.count(op, &value).map_err(|e| e.to_string())?;
    if moves {
        remove(at, &key).map_err(untaken)?;
    }
    check_depth(path, value.root()).map_err(|e| e.to_string())?;
    let (at, key) = open(doc, path).ok_or_else(|| nowhere("destination", path))?;
    add(at, &key, value.root()).map_err(|why| match moves {
        true => format!("error in move for path: '{path}': {why}"),
        false => format!("error while adding value during copy: {why}"),
    })
}

/// The list or object that a pointer's last step is in, and that step. What stands before the first slash is ignored,
/// as upstream.
fn open<'a>(doc: &'a mut Doc, path: &str) -> Option<(Edit<'a>, String)> {
    let unescape = |step: &str| step.replace("~1", "/").replace("~0", "~");
    let mut steps = path.split('/').skip(1).map(unescape);
    let mut last = steps.next()?;
    let mut at = doc.edit();
    for step in steps {
        at = if at.read().is_array() {
            let i = index(&last, at.read().len()).ok()?;
            at.item(i)?
        } else {
            at.existing(&last)?
        };
        last = step;
    }
    (at.read().is_array() || at.read().is_object()).then_some((at, last))
}

/// A place in a list; below zero it is counted from the end.
fn index(step: &str, len: usize) -> Result<usize, String> {
    let at: i64 = step.parse().map_err(|_| format!("strconv.Atoi: parsing {step:?}: invalid syntax"))?;
    let place = if at < 0 { usize::try_from(at + len as i64) } else { usize::try_from(at) };
    place
        .ok()
        .filter(|place| *place < len)
        .ok_or_else(|| format!("Unable to access invalid index: {at}: invalid index referenced"))
}

/// What is there; what an object does not have is null.
fn get(at: Ref<'_>, key: &str) -> Result<Doc, String> {
    Ok(if at.is_array() { at.item(index(key, at.len())?).to_doc() } else { at.get(key).to_doc() })
}

fn add(mut at: Edit<'_>, key: &str, value: Ref<'_>) -> Result<(), String> {
    if at.read().is_object() {
        at.set(key, value);
        return Ok(());
    }
    let len = at.read().len();
    let place = match key {
        "-" => len,
        _ if key.parse::<i64>().is_err() => {
            let why = format!("strconv.Atoi: parsing {key:?}: invalid syntax");
            return Err(format!("value was not a proper array index: '{key}': {why}"));
        }
        _ => index(key, len + 1)?,
    };
    at.insert(place, value);
    Ok(())
}

fn remove(mut at: Edit<'_>, key: &str) -> Result<(), String> {
    if at.read().is_array() {
        let place = index(key, at.read().len())?;
        at.remove_item(place);
    } else if !at.remove(key) {
        return Err(format!("Unable to remove nonexistent key: {key}: missing value"));
    }
    Ok(())
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
        let doubled = (0..40).map(|i| format!(r#"{{"op":"copy","from":"/a","path":"/a/c{i}"}}"#)).collect();
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
            (
                r#"{"a":1}"#,
                r#"[{"op":"test","path":"/a","value":2}]"#,
                Err("testing value /a failed: test failed"),
            ),
            (
                r#"{"a":1}"#,
                r#"[{"op":"remove","path":"/b"}]"#,
                Err("error in remove for path: '/b': Unable to remove nonexistent key: b: missing value"),
            ),
            (
                r#"{"a":1}"#,
                r#"[{"op":"add","path":"/b/c","value":1}]"#,
                Err("add operation does not apply: doc is missing path: \"/b/c\": missing value"),
            ),
            (
                r#"{"a":[]}"#,
                r#"[{"op":"add","path":"/a/1","value":1}]"#,
                Err(
                    "error in add for path: '/a/1': Unable to access invalid index: 1: invalid index referenced",
                ),
            ),
            (r#"{"a":1}"#, r#"[{"op":"replace","path":"","value":{"b":1}}]"#, Ok(r#"{"b":1}"#)),
            (r#"{"a":1}"#, r#"[{"op":"replace","path":"/b","value":2}]"#, Ok(r#"{"a":1,"b":2}"#)),
            (
                r#"{"a":[1,2]}"#,
                r#"[{"op":"remove","path":"/a/-1"},{"op":"replace","path":"/a/-1","value":3}]"#,
                Ok(r#"{"a":[3]}"#),
            ),
            (
                r#"{"a":[]}"#,
                r#"[{"op":"add","path":"/a/x","value":1}]"#,
                Err(
                    "error in add for path: '/a/x': value was not a proper array index: 'x': strconv.Atoi: parsing \"x\": invalid syntax",
                ),
            ),
            (
                r#"{"a":[]}"#,
                r#"[{"op":"replace","path":"/a/0","value":1}]"#,
                Err("replace operation does not apply: doc is missing key: /a/0: missing value"),
            ),
            (
                r#"{"a":1}"#,
                r#"[{"op":"move","from":"/b","path":"/c"}]"#,
                Err("error in move for path: 'b': Unable to remove nonexistent key: b: missing value"),
            ),
            (r#"{"a":1}"#, r#"[{"op":"copy","from":"/b","path":"/c"}]"#, Ok(r#"{"a":1,"c":null}"#)),
            (
                r#"{"a":{}}"#,
                r#"[{"op":"move","from":"/a","path":"/a/b"}]"#,
                Err("move operation does not apply: doc is missing destination path: /a/b: missing value"),
            ),
            (r#"{"a":1}"#, r#"[{"op":"frob","path":"/a"}]"#, Err("Unexpected kind: frob")),
            (
                r#"{"a":1}"#,
                r#"[{"op":"add","path":"x","value":2}]"#,
                Err("add operation does not apply: doc is missing path: \"x\": missing value"),
            ),
            (r#"{"a":1}"#, r#"[{"op":"test","path":"/b","value":null}]"#, Ok(r#"{"a":1}"#)),
            (
                r#"{"a":1}"#,
                r#"[{"op":"test","path":"/b/c","value":null}]"#,
                Err("test operation does not apply: is missing path: /b/c: missing value"),
            ),
            (
                r#"{"a":[]}"#,
                r#"[{"op":"test","path":"/a/0","value":null}]"#,
                Err(
                    "error in test for path: '/a/0': Unable to access invalid index: 0: invalid index referenced",
                ),
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
