//! YAML text: JSON means in it what it means as JSON; the rest is read or refused in bounded time and space.

use apimachinery::Ref;
use apimachinery::codec::{json, yaml};
use serde_json::Value;

use super::{agree, doc, shown};
use crate::dice::Dice;
use crate::{Verdict, check, make};

/// How much JSON a text may become, in bytes: the reader's own bound, with room for the last value.
const JSON_BYTES_MAX: usize = 20 << 20;
const TOKENS: [&str; 40] = [
    "a",
    ": ",
    "\n",
    "- ",
    "  ",
    "b",
    "1",
    "\"",
    "'",
    "{",
    "}",
    "[",
    "]",
    ",",
    "&a ",
    "*a",
    "<<",
    "<<: *a\n",
    "|\n",
    ">-\n",
    "#",
    "---\n",
    "...\n",
    "? ",
    "!!binary ",
    "!!str ",
    "!x ",
    "~",
    "yes",
    "0644",
    "0o7",
    ".inf",
    "1e3",
    "2026-01-01",
    "\t",
    "%YAML 1.1\n",
    "\\",
    "\u{85}",
    "ä",
    "\r\n",
];

fn input(dice: &mut Dice) -> Vec<u8> {
    let mut out = Vec::new();
    match dice.below(8) {
        0..4 => {
            for _ in 0..dice.upto(30) {
                out.extend_from_slice(dice.pick(&TOKENS).as_bytes());
            }
        }
        4 => make::json(dice, 3, &mut out),
        5 => out = make::noise(dice),
        6 => out = dice.pick(&TOKENS).repeat(dice.upto(3_000)).into_bytes(),
        _ => {
            out = make::filled(dice, "json");
            out.truncate(4_000);
        }
    }
    if dice.rarely(3) {
        make::damage(dice, &mut out);
    }
    out
}

pub fn run(dice: &mut Dice) -> Verdict {
    if dice.rarely(4) {
        return of_json(dice);
    }
    let text = input(dice);
    dice.say("text", &text);
    if let Ok(parsed) = yaml::parse(&text) {
        let out = parsed.doc.to_json();
        check(out.len() <= JSON_BYTES_MAX, || format!("{} bytes became {}", text.len(), out.len()))?;
        let again = json::parse(out).map_err(|e| format!("its own writing: {e}"))?;
        check(again.doc == parsed.doc, || format!("{} became {}", shown(&parsed.doc), shown(&again.doc)))?;
    }
    Ok(())
}

/// Without characters that YAML forbids.
fn plain(value: &mut Value) {
    let bad = |c: char| {
        c.is_control() || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}')
    };
    match value {
        Value::String(text) => text.retain(|c| !bad(c)),
        Value::Array(items) => items.iter_mut().for_each(plain),
        Value::Object(entries) => {
            *entries = std::mem::take(entries)
                .into_iter()
                .map(|(name, mut value)| {
                    plain(&mut value);
                    (name, value)
                })
                // A merge key is YAML's own.
                .filter(|(name, _)| name != "<<")
                .collect();
        }
        _ => {}
    }
}

fn of_json(dice: &mut Dice) -> Verdict {
    let mut value = make::value(dice, 4);
    plain(&mut value);
    let text = if dice.rarely(2) {
        doc(&value).to_json()
    } else {
        let mut out = Vec::new();
        json::write_pretty(doc(&value).root(), 0, &mut out);
        out
    };
    dice.say("text", &text);
    let read = yaml::parse(&text).map_err(|e| e.to_string())?;
    let same = |ours: Ref<'_>| agree(ours, &value);
    check(same(read.doc.root()), || format!("{} is not {value}", shown(&read.doc)))
}
