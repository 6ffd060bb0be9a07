//! Strategic merge patches of any kind: applied or refused, and once more the same.

use apimachinery::Doc;
use apimachinery::codec::json::{self, Parsed};
use apimachinery::patch::strategic;
use apimachinery::schema::decode;
use serde_json::{Value, json};

use super::{doc, shown};
use crate::dice::Dice;
use crate::{Verdict, check, make};

/// Puts directives and nulls in.
fn direct(dice: &mut Dice, value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.iter_mut().for_each(|item| direct(dice, item));
            if dice.rarely(10) {
                let how = dice.pick(&["replace", "delete", "merge", "frob"]);
                items.push(json!({ "$patch": how, "name": "a" }));
            }
        }
        Value::Object(entries) => {
            for (_, entry) in entries.iter_mut() {
                if dice.rarely(12) {
                    *entry = Value::Null;
                } else {
                    direct(dice, entry);
                }
            }
            let name = entries.keys().next().map_or("a", String::as_str);
            let (name, value) = match dice.below(40) {
                36 => ("$patch".to_owned(), json!(dice.pick(&["replace", "delete", "merge", "frob"]))),
                37 => ("$retainKeys".to_owned(), json!([name, "name"])),
                38 => (format!("$deleteFromPrimitiveList/{name}"), json!(["a", "", 1])),
                39 => (format!("$setElementOrder/{name}"), json!([{ "name": "a" }, "b"])),
                _ => return,
            };
            entries.insert(name, value);
        }
        _ => {}
    }
}

/// Lists that are merged hold each item once, and each key: of those that do not, upstream keeps all where there was
/// nothing, and else one.
fn distinct(value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.iter_mut().for_each(distinct);
            let mut kept: Vec<Value> = Vec::new();
            for item in std::mem::take(items) {
                let alike = |other: &Value| match (other.as_object(), item.as_object()) {
                    (Some(a), Some(b)) => a.iter().any(|(name, value)| b.get(name) == Some(value)),
                    _ => *other == item,
                };
                if !kept.iter().any(alike) {
                    kept.push(item);
                }
            }
            *items = kept;
        }
        Value::Object(entries) => entries.iter_mut().for_each(|(_, entry)| distinct(entry)),
        _ => {}
    }
}

pub fn run(dice: &mut Dice) -> Verdict {
    let (group, version, kind, ty) = make::kind(dice);
    dice.say("kind", format!("{group}/{version} {kind}").as_bytes());
    let whole = |doc: Doc| decode::decode(&Parsed { doc, duplicates: Vec::new() }, ty).map(|d| d.doc);
    let original = whole(make::object(dice, ty, 5)).map_err(|e| e.to_string())?;
    let mut patch: Value = serde_json::from_slice(&make::object(dice, ty, 5).to_json())
        .map_err(|e| format!("our own writing: {e}"))?;
    distinct(&mut patch);
    let directed = dice.rarely(2);
    if directed {
        direct(dice, &mut patch);
    }
    dice.say("original", &original.to_json());
    dice.say("patch", patch.to_string().as_bytes());
    let patch = doc(&patch);
    let Ok(once) = strategic::apply(original.root(), patch.root(), ty) else { return Ok(()) };
    json::parse(once.to_json()).map_err(|e| format!("as JSON: {e}"))?;
    if directed {
        return Ok(());
    }
    let once = whole(once).map_err(|e| e.to_string())?;
    match strategic::apply(once.root(), patch.root(), ty) {
        Ok(twice) => {
            let twice = whole(twice).map_err(|e| format!("once more: {e}"))?;
            check(twice == once, || format!("{} became {} once more", shown(&once), shown(&twice)))
        }
        // Items without their key and free objects can be put where nothing was, and then not be merged.
        Err(why) if ["merge key", "not struct"].iter().any(|w| why.to_string().contains(w)) => Ok(()),
        Err(why) => Err(format!("once more: {why}")),
    }
}
