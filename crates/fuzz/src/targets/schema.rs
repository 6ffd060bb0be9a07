//! Typed decoding: what is taken is in normal form, which has nothing more to normalise and breaks no strict rule.

use apimachinery::Doc;
use apimachinery::codec::json::{self, Parsed};
use apimachinery::schema::decode;
use serde_json::Value;

use super::{doc, shown};
use crate::dice::Dice;
use crate::{Verdict, check, make};

/// Puts values of any shape where they do not belong.
fn spoil(dice: &mut Dice, value: &mut Value) {
    if dice.rarely(12) {
        *value = make::value(dice, 1);
        return;
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| spoil(dice, item)),
        Value::Object(entries) => {
            entries.iter_mut().for_each(|(_, entry)| spoil(dice, entry));
            if dice.rarely(8) {
                entries.insert(make::text(dice), make::value(dice, 1));
            }
        }
        _ => {}
    }
}

pub fn run(dice: &mut Dice) -> Verdict {
    let (group, version, kind, ty) = make::kind(dice);
    dice.say("kind", format!("{group}/{version} {kind}").as_bytes());
    let made = make::object(dice, ty, 4).to_json();
    let mut value: Value = serde_json::from_slice(&made).map_err(|e| format!("our own writing: {e}"))?;
    let spoilt = dice.rarely(2);
    if spoilt {
        spoil(dice, &mut value);
    }
    let parsed = Parsed { doc: doc(&value), duplicates: Vec::new() };
    dice.say("object", &parsed.doc.to_json());
    let decoded = match decode::decode(&parsed, ty) {
        Ok(decoded) => decoded,
        Err(_) if spoilt => return Ok(()),
        Err(why) => return Err(format!("an object of its type is refused: {why}")),
    };
    check(spoilt || decoded.strict.is_empty(), || format!("strict: {:?}", decoded.strict))?;
    settled(&decoded.doc, ty)
}

/// Decoding what was decoded changes nothing and complains of nothing.
fn settled(doc: &Doc, ty: apimachinery::schema::TypeId) -> Verdict {
    let parsed = json::parse(doc.to_json()).map_err(|e| format!("as JSON: {e}"))?;
    let again = decode::decode(&parsed, ty).map_err(|e| format!("once more: {e}"))?;
    check(again.strict.is_empty(), || format!("once more: {:?}", again.strict))?;
    check(again.doc.to_json() == doc.to_json(), || {
        format!("{} became {} once more", shown(doc), shown(&again.doc))
    })
}
