//! Protobuf: any object of any kind comes back as it was, and any bytes are read or refused.

use apimachinery::codec::json::Parsed;
use apimachinery::codec::{json, protobuf};
use apimachinery::schema::normalise::normalise;
use apimachinery::schema::{TypeId, decode};
use apimachinery::{Doc, Ref, k};

use super::shown;
use crate::dice::Dice;
use crate::{Verdict, check, make};

pub fn run(dice: &mut Dice) -> Verdict {
    let (group, version, kind, ty) = make::kind(dice);
    dice.say("kind", format!("{group}/{version} {kind}").as_bytes());
    match dice.below(4) {
        0 | 1 => comes_back(dice, (group, version, kind), ty),
        2 => {
            let mut bytes = match dice.below(2) {
                0 => protobuf::from_doc(normalise(make::object(dice, ty, 4).root(), ty).root(), ty),
                _ => make::noise(dice),
            };
            make::damage(dice, &mut bytes);
            dice.say("message", &bytes);
            message(&bytes, ty)
        }
        _ => {
            let mut bytes = make::filled(dice, "pb");
            make::damage(dice, &mut bytes);
            dice.say("enveloped", &bytes);
            match protobuf::read(&bytes) {
                Ok(parsed) => written(&parsed.doc),
                Err(_) => Ok(()),
            }
        }
    }
}

fn comes_back(dice: &mut Dice, (group, version, kind): (&str, &str, &str), ty: TypeId) -> Verdict {
    let want = normalise(make::object(dice, ty, 5).root(), ty);
    dice.say("object", &want.to_json());
    let back = protobuf::to_doc(&protobuf::from_doc(want.root(), ty), ty).map_err(|e| e.to_string())?;
    let back = normalise(back.root(), ty);
    check(same(back.root(), want.root()), || format!("{} became {}", shown(&want), shown(&back)))?;
    let mut whole = want.clone();
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    whole.edit().set(k::API_VERSION, &*api_version).set(k::KIND, kind);
    let Some(bytes) = protobuf::object(whole.root()) else { return Ok(()) };
    let read = protobuf::read(&bytes).map_err(|e| format!("in its envelope: {e}"))?;
    let back = decode::decode(&read, ty).map_err(|e| format!("in its envelope: {e}"))?;
    let whole = normalise(whole.root(), ty);
    check(same(back.doc.root(), whole.root()), || format!("{} became {}", shown(&whole), shown(&back.doc)))
}

/// Whether they say the same, in the same order. An empty list or map that JSON must not omit is null when it comes
/// back: protobuf has no word for either, upstream's neither.
pub(super) fn same(back: Ref<'_>, want: Ref<'_>) -> bool {
    if back.exists() && !back.is_set() {
        return want.exists() && want.is_empty();
    }
    fn children(of: Ref<'_>) -> impl Iterator<Item = Ref<'_>> {
        if of.is_array() { of.items() } else { of.fields() }
    }
    match want.is_array() || want.is_object() {
        true => {
            back.kind() == want.kind()
                && back.len() == want.len()
                && children(back).zip(children(want)).all(|(b, w)| b.name() == w.name() && same(b, w))
        }
        false => back.to_json() == want.to_json(),
    }
}

/// What is read of a message can be written, and is read from that again.
fn message(bytes: &[u8], ty: TypeId) -> Verdict {
    let Ok(doc) = protobuf::to_doc(bytes, ty) else { return Ok(()) };
    written(&doc)?;
    let once = normalise(doc.root(), ty);
    let again = protobuf::to_doc(&protobuf::from_doc(once.root(), ty), ty).map_err(|e| e.to_string())?;
    let again = normalise(again.root(), ty);
    check(same(again.root(), once.root()), || format!("{} became {}", shown(&once), shown(&again)))?;
    drop(decode::decode(&Parsed { doc, duplicates: Vec::new() }, ty));
    Ok(())
}

/// What was read can be stored.
fn written(doc: &Doc) -> Verdict {
    let again = json::parse(doc.to_json()).map_err(|e| format!("as JSON: {e}"))?;
    check(again.doc == *doc, || format!("{} became {}", shown(doc), shown(&again.doc)))
}
