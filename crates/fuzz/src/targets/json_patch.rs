//! JSON patches against a plain model of upstream's library on another crate's values.

use apimachinery::patch::json as patches;
use serde_json::{Value, json};

use super::{agree, doc, shown};
use crate::dice::Dice;
use crate::{Verdict, check, make};

/// A place in a list; below zero it is counted from the end.
fn index(step: &str, len: usize) -> Option<usize> {
    let at: i64 = step.parse().ok()?;
    let place = usize::try_from(if at < 0 { at + len as i64 } else { at }).ok()?;
    (place < len).then_some(place)
}

/// What a pointer's last step is in, and that step.
fn parent<'v>(root: &'v mut Value, path: &str) -> Option<(&'v mut Value, String)> {
    let steps: Vec<String> =
        path.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
    let (last, before) = steps.split_last()?;
    let mut at = root;
    for step in before {
        at = match at {
            Value::Array(items) => {
                let place = index(step, items.len())?;
                &mut items[place]
            }
            Value::Object(entries) => entries.get_mut(step)?,
            _ => return None,
        };
    }
    (at.is_array() || at.is_object()).then(|| (at, last.clone()))
}

fn get(root: &mut Value, path: &str) -> Option<Value> {
    match parent(root, path)? {
        (Value::Array(items), last) => index(&last, items.len()).map(|place| items[place].clone()),
        // What an object does not have is null, for upstream.
        (at, last) => Some(at.get(&last).cloned().unwrap_or_default()),
    }
}

fn add(root: &mut Value, path: &str, value: Value) -> Option<()> {
    match parent(root, path)? {
        (Value::Object(entries), last) => drop(entries.insert(last, value)),
        (Value::Array(items), last) => {
            let place = if last == "-" { items.len() } else { index(&last, items.len() + 1)? };
            items.insert(place, value);
        }
        _ => return None,
    }
    Some(())
}

fn remove(root: &mut Value, path: &str) -> Option<Value> {
    match parent(root, path)? {
        (Value::Object(entries), last) => entries.shift_remove(&last),
        (Value::Array(items), last) => Some(items.remove(index(&last, items.len())?)),
        _ => None,
    }
}

fn replace(root: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        *root = value;
        return Some(());
    }
    match parent(root, path)? {
        (Value::Object(entries), last) => drop(entries.insert(last, value)),
        (Value::Array(items), last) => {
            let place = index(&last, items.len())?;
            items[place] = value;
        }
        _ => return None,
    }
    Some(())
}

fn model(root: &mut Value, operation: &Value) -> Option<()> {
    let (op, path) = (operation["op"].as_str()?, operation["path"].as_str()?);
    let value = &operation["value"];
    let from = operation["from"].as_str().unwrap_or_default();
    match op {
        "add" => add(root, path, value.clone()),
        "remove" => remove(root, path).map(drop),
        "replace" => replace(root, path, value.clone()),
        "test" => {
            let have = if path.is_empty() { root.clone() } else { get(root, path)? };
            (have == *value).then_some(())
        }
        "move" => {
            let taken = remove(root, from)?;
            add(root, path, taken)
        }
        "copy" => {
            let taken = get(root, from)?;
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
            "/-1",
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
