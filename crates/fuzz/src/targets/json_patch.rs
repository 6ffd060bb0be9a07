//! JSON patches against a plain model of RFC 6902 on another crate's values.

use apimachinery::patch::json as patches;
use serde_json::{Value, json};

use super::{agree, doc, shown};
use crate::dice::Dice;
use crate::{Verdict, check, make};

/// An index as RFC 6901 writes it.
fn index(step: &str) -> Option<usize> {
    let leading = step.len() > 1 && step.starts_with('0');
    (!leading && step.bytes().all(|b| b.is_ascii_digit())).then(|| step.parse().ok())?
}

fn parent<'v>(root: &'v mut Value, path: &str) -> Option<(&'v mut Value, String)> {
    let (before, last) = path.rsplit_once('/')?;
    Some((root.pointer_mut(before)?, last.replace("~1", "/").replace("~0", "~")))
}

fn add(root: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        *root = value;
        return Some(());
    }
    match parent(root, path)? {
        (Value::Object(entries), last) => drop(entries.insert(last, value)),
        (Value::Array(items), last) => {
            let at = if last == "-" { items.len() } else { index(&last)? };
            (at <= items.len()).then(|| items.insert(at, value))?;
        }
        _ => return None,
    }
    Some(())
}

fn remove(root: &mut Value, path: &str) -> Option<Value> {
    match parent(root, path)? {
        (Value::Object(entries), last) => entries.shift_remove(&last),
        (Value::Array(items), last) => {
            let at = index(&last)?;
            (at < items.len()).then(|| items.remove(at))
        }
        _ => None,
    }
}

fn model(root: &mut Value, operation: &Value) -> Option<()> {
    let (op, path) = (operation["op"].as_str()?, operation["path"].as_str()?);
    let value = &operation["value"];
    let from = operation["from"].as_str().unwrap_or_default();
    match op {
        "add" => add(root, path, value.clone()),
        "remove" => remove(root, path).map(drop),
        "replace" => root.pointer_mut(path).map(|at| *at = value.clone()),
        "test" => match (root.pointer(path), parent(&mut root.clone(), path)) {
            (Some(have), _) => (have == value).then_some(()),
            // What an object does not have is null, for upstream.
            (None, Some((Value::Object(_), _))) => value.is_null().then_some(()),
            (None, _) => None,
        },
        "move" if path.strip_prefix(from).is_some_and(|rest| rest.starts_with('/')) => None,
        "move" => {
            let taken = remove(root, from)?;
            add(root, path, taken)
        }
        "copy" => {
            let taken = root.pointer(from)?.clone();
            add(root, path, taken)
        }
        _ => None,
    }
}

/// A pointer: mostly to something that is there.
fn pointer(dice: &mut Dice, root: &Value) -> String {
    let (mut out, mut at) = (String::new(), root);
    while !dice.rarely(4) {
        let (step, next) = match at {
            Value::Object(entries) if !entries.is_empty() => {
                let name = entries.keys().nth(dice.upto(entries.len())).expect("in range");
                (name.replace('~', "~0").replace('/', "~1"), &at[name])
            }
            Value::Array(items) if !items.is_empty() => {
                let i = dice.upto(items.len());
                (i.to_string(), &at[i])
            }
            _ => break,
        };
        out = format!("{out}/{step}");
        at = next;
    }
    if dice.rarely(3) {
        out.push_str(dice.pick(&[
            "/a",
            "/-",
            "/0",
            "/1",
            "/00",
            "/",
            "/~01",
            "/+1",
            "x",
            "//a",
            "/99999999999999999999",
        ]));
    }
    out
}

pub fn run(dice: &mut Dice) -> Verdict {
    let target = make::value(dice, 4);
    dice.say("target", target.to_string().as_bytes());
    let mut operations = Vec::new();
    let mut want = Some(target.clone());
    for _ in 0..1 + dice.upto(4) {
        let root = want.clone().unwrap_or_default();
        let op = dice.pick(&["add", "remove", "replace", "move", "copy", "test", "frob"]);
        let mut operation = json!({ "op": op, "path": pointer(dice, &root), "from": pointer(dice, &root) });
        operation["value"] = if op == "test" && dice.rarely(2) {
            root.pointer(operation["path"].as_str().unwrap_or_default()).cloned().unwrap_or_default()
        } else {
            make::value(dice, 2)
        };
        want = want.and_then(|mut root| model(&mut root, &operation).map(|()| root));
        operations.push(operation);
    }
    let patch = Value::from(operations);
    dice.say("patch", patch.to_string().as_bytes());
    match (patches::apply(&doc(&target), doc(&patch).root()), want) {
        (Ok(got), Some(want)) => check(agree(got.root(), &want), || format!("{}, not {want}", shown(&got))),
        (Err(_), None) => Ok(()),
        (Ok(got), None) => Err(format!("{}, not a refusal", shown(&got))),
        (Err(why), Some(want)) => Err(format!("{why:?}, not {want}")),
    }
}
