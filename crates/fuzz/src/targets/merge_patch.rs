//! Merge patches against RFC 7386's own few lines.

use apimachinery::patch::merge;
use serde_json::{Map, Value};

use super::{agree, doc, shown};
use crate::dice::Dice;
use crate::{Verdict, check, make};

/// Source: RFC 7386, section 2.
fn model(target: Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut out = if let Value::Object(entries) = target { entries } else { Map::new() };
    for (name, value) in patch {
        let was = out.shift_remove(name);
        if !value.is_null() {
            out.insert(name.clone(), model(was.unwrap_or_default(), value));
        }
    }
    Value::Object(out)
}

pub fn run(dice: &mut Dice) -> Verdict {
    let (target, patch) = (make::value(dice, 4), make::value(dice, 4));
    dice.say("target", target.to_string().as_bytes());
    dice.say("patch", patch.to_string().as_bytes());
    let got = merge::apply(&doc(&target), doc(&patch).root());
    let want = model(target, &patch);
    check(agree(got.root(), &want), || format!("{}, not {want}", shown(&got)))
}
