//! JSON text: what is taken here is taken by another reader and means the same there, and the other way round.

use apimachinery::codec::json::{self, JsonError};
use serde_json::Value;

use super::{agree, shown};
use crate::dice::Dice;
use crate::{Verdict, check, make};

fn input(dice: &mut Dice) -> Vec<u8> {
    let mut out = Vec::new();
    match dice.below(12) {
        0..6 => make::json(dice, 4, &mut out),
        6 => {
            let n = dice.upto(2_000);
            let (open, close) = dice.pick(&[("[", "]"), ("{\"a\":", "}"), ("[{\"\":", "}]")]);
            let inner = if dice.rarely(2) { "" } else { "1" };
            out = [&open.repeat(n), inner, &close.repeat(n)].concat().into_bytes();
        }
        7 => out = make::noise(dice),
        8 => {
            out = make::filled(dice, "json");
            make::damage(dice, &mut out);
        }
        _ => {
            make::json(dice, 4, &mut out);
            make::damage(dice, &mut out);
        }
    }
    out
}

pub fn run(dice: &mut Dice) -> Verdict {
    let text = input(dice);
    dice.say("text", &text);
    let theirs = serde_json::from_slice::<Value>(&text);
    // What this reader takes and the other does not: depth, lone surrogates, numbers beyond a double.
    let beyond = |why: &str| {
        ["recursion limit", "surrogate", "hex escape", "number out of range"].iter().any(|w| why.contains(w))
    };
    match (json::parse(text.clone()), theirs) {
        (Ok(ours), Ok(theirs)) => {
            check(agree(ours.doc.root(), &theirs), || format!("{} is not {theirs}", shown(&ours.doc)))?;
            rewritten(&ours.doc)
        }
        (Ok(ours), Err(why)) if beyond(&why.to_string()) => rewritten(&ours.doc),
        (Ok(_), Err(why)) => Err(format!("taken here, and elsewhere: {why}")),
        (Err(JsonError::Syntax { what, offset }), Ok(_)) => {
            Err(format!("taken elsewhere, and here: {what} at {offset}"))
        }
        (Err(JsonError::Syntax { offset, .. }), Err(_)) => {
            check(offset <= text.len(), || format!("an error at {offset}, behind the end"))
        }
        (Err(_), _) => Ok(()),
    }
}

/// What is written means what was read.
fn rewritten(doc: &apimachinery::Doc) -> Verdict {
    let mut pretty = Vec::new();
    json::write_pretty(doc.root(), 0, &mut pretty);
    for text in [doc.to_json(), pretty, doc.compact().to_json(), doc.root().to_doc().to_json()] {
        let again = json::parse(text).map_err(|e| format!("its own writing: {e}"))?;
        check(again.duplicates.is_empty(), || format!("repeats {:?}", again.duplicates))?;
        check(again.doc == *doc && again.doc.to_json() == doc.to_json(), || {
            format!("{} became {}", shown(doc), shown(&again.doc))
        })?;
    }
    Ok(())
}
