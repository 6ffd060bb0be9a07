//! Inputs: text and values of any shape, objects that the schema table allows, and damage to either.

use std::path::Path;
use std::sync::OnceLock;

use apimachinery::Doc;
use apimachinery::schema::{self, Go, Kind, TypeId};
use serde_json::Value;

use crate::dice::Dice;

/// Where upstream's filled objects lie, in a folder above this one.
const GOLDEN: &str = "shared/upstream/api-golden";
/// Names that meet each other often.
const NAMES: [&str; 8] = ["a", "b", "name", "metadata", "x/y", "~", "", "ä"];
/// Texts that readers are known to stumble over.
const TEXTS: [&str; 24] = [
    "", "a", "b", "c-1", "1", "true", "null", "~", "0x1f", "1e3", "- a", "a: b", "#", "\"", "\\", "\n",
    "\t\u{1}", "é", "\u{2028}", "\u{7f}", "\u{feff}", "😀", "25%", "<<",
];

/// A text.
pub fn text(dice: &mut Dice) -> String {
    match dice.below(8) {
        0..5 => (dice.pick(&TEXTS)).to_owned(),
        5 => (dice.pick(&NAMES)).to_owned(),
        6 => {
            let n = dice.upto(6);
            (0..n).map(|_| char::from_u32(dice.below(0x11_0000) as u32).unwrap_or('?')).collect()
        }
        _ => {
            let n = dice.upto(40);
            (0..n).map(|_| char::from(b' ' + dice.below(95) as u8)).collect()
        }
    }
}

/// A JSON value.
pub fn value(dice: &mut Dice, depth: usize) -> Value {
    match dice.below(if depth == 0 { 5 } else { 8 }) {
        0 => Value::Null,
        1 => Value::from(dice.below(4)),
        2 => Value::from(dice.rarely(2)),
        3 => Value::from(text(dice)),
        4 => Value::from(dice.below(1 << 62) as i64 - (1 << 61)),
        5 => {
            let n = dice.upto(4);
            (0..n).map(|_| value(dice, depth - 1)).collect()
        }
        _ => {
            let n = dice.upto(5);
            (0..n).map(|_| ((dice.pick(&NAMES)).to_owned(), value(dice, depth - 1))).collect()
        }
    }
}

/// JSON text in any of its forms: repeated names, escapes, numbers, white space.
pub fn json(dice: &mut Dice, depth: usize, out: &mut Vec<u8>) {
    let space = |dice: &mut Dice, out: &mut Vec<u8>| {
        if dice.rarely(6) {
            out.push(dice.pick(b" \n\t\r"));
        }
    };
    space(dice, out);
    match dice.below(if depth == 0 { 5 } else { 8 }) {
        0 => out.extend_from_slice(b"null"),
        1 => out.extend_from_slice(dice.pick(&[&b"true"[..], b"false"])),
        2 => {
            let numbers = [
                "0",
                "1",
                "-0",
                "1.0",
                "0.1",
                "1e3",
                "1E-2",
                "-1.5e+10",
                "9007199254740993",
                "1e999",
                "-1e-999",
                "18446744073709551616",
                "9223372036854775807",
                "-9223372036854775808",
                "123456789012345678901234567890.5",
            ];
            out.extend_from_slice(dice.pick(&numbers).as_bytes());
        }
        3 | 4 => json_string(dice, out),
        5 => {
            out.push(b'[');
            for i in 0..dice.upto(4) {
                if i > 0 {
                    out.push(b',');
                }
                json(dice, depth - 1, out);
            }
            out.push(b']');
        }
        _ => {
            out.push(b'{');
            let most = if dice.rarely(20) { 40 } else { 5 };
            for i in 0..dice.upto(most) {
                if i > 0 {
                    out.push(b',');
                }
                space(dice, out);
                json_string(dice, out);
                space(dice, out);
                out.push(b':');
                json(dice, depth - 1, out);
            }
            out.push(b'}');
        }
    }
    space(dice, out);
}

fn json_string(dice: &mut Dice, out: &mut Vec<u8>) {
    let text = text(dice);
    if dice.rarely(4) {
        out.push(b'"');
        let escapes = [
            r"\n",
            r"\u0041",
            r"\/",
            r"\ud83d\ude00",
            r"\ud800",
            r"\udc00x",
            r"\u0000",
            r"\b",
            r"\x",
            r"\u12",
        ];
        out.extend_from_slice(text.replace(['"', '\\'], "").as_bytes());
        out.extend_from_slice(dice.pick(&escapes).as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(Value::from(text).to_string().as_bytes());
    }
}

/// Changes some bytes: flips, cuts, repeats, puts in.
pub fn damage(dice: &mut Dice, bytes: &mut Vec<u8>) {
    for _ in 0..dice.upto(5) {
        let at = dice.upto(bytes.len() + 1);
        let end = (at + dice.upto(16)).min(bytes.len());
        match dice.below(6) {
            0 if at < bytes.len() => bytes[at] = dice.below(256) as u8,
            1 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = bytes[at..end].to_vec();
                let to = dice.upto(bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
            4 => bytes.insert(at, dice.pick(b"{}[]\",:\\0-\xff\x00\x80 \n")),
            _ => bytes.truncate(at),
        }
    }
}

/// Bytes of no form at all.
pub fn noise(dice: &mut Dice) -> Vec<u8> {
    let n = dice.upto(64);
    (0..n).map(|_| dice.below(256) as u8).collect()
}

/// Any kind: group, version, kind, type.
pub fn kind(dice: &mut Dice) -> (&'static str, &'static str, &'static str, TypeId) {
    let kinds: Vec<_> = schema::kinds().collect();
    dice.pick(&kinds)
}

/// An object of a type, with some of its fields.
pub fn object(dice: &mut Dice, ty: TypeId, depth: usize) -> Doc {
    let mut doc = Doc::object();
    // Few fields of large types, so that objects stay of a size that is looked at.
    let one_in = 1 + dice.below(4);
    for member in ty.members().filter(|m| m.proto() > 0) {
        match member.ty().struct_type().filter(|_| member.inline()) {
            Some(inner) => {
                for (name, value) in object(dice, inner, depth).root().entries() {
                    doc.edit().set(name, value);
                }
            }
            None if dice.rarely(one_in + 1) => {
                let value = of(dice, member.ty(), depth);
                doc.edit().set(member.key(), value);
            }
            None => {}
        }
    }
    doc
}

/// A value of a Go type.
fn of(dice: &mut Dice, ty: Go, depth: usize) -> Doc {
    let n = dice.upto(3);
    match ty.kind() {
        Kind::Pointer => of(dice, ty.elem(), depth),
        Kind::Struct => match ty.struct_type().filter(|_| depth > 0) {
            Some(inner) => object(dice, inner, depth - 1),
            None => Doc::object(),
        },
        Kind::Slice => {
            let mut out = Doc::array();
            for _ in 0..n {
                let item = of(dice, ty.elem(), depth);
                out.edit().push(item);
            }
            out
        }
        Kind::Map => {
            let mut out = Doc::object();
            for _ in 0..n {
                let item = of(dice, ty.elem(), depth);
                out.edit().set(dice.pick(&NAMES), item);
            }
            out
        }
        Kind::Raw | Kind::FieldsV1 | Kind::Any => {
            let mut out = Doc::object();
            out.edit().set(dice.pick(&NAMES), Doc::object());
            out
        }
        Kind::String if ty.values().len() > 0 => {
            let values: Vec<&str> = ty.values().collect();
            Doc::scalar(dice.pick(&values))
        }
        kind => scalar(dice, kind),
    }
}

fn scalar(dice: &mut Dice, kind: Kind) -> Doc {
    match kind {
        Kind::Bool => Doc::scalar(dice.rarely(2)),
        Kind::Bytes => Doc::scalar(dice.pick(&["", "AAEC/w==", "YQ=="])),
        Kind::Quantity => Doc::scalar(dice.pick(&["0", "1", "1500m", "0.5Gi", "1e3", "12Ki", "-1"])),
        Kind::IntOrString if dice.rarely(2) => Doc::scalar(dice.below(70_000) as i64),
        Kind::IntOrString => Doc::scalar(dice.pick(&["http", "25%", ""])),
        Kind::Time => Doc::scalar(dice.pick(&["2026-01-01T00:00:00Z", "1969-12-31T23:59:59Z"])),
        Kind::MicroTime => {
            Doc::scalar(dice.pick(&["2026-01-01T00:00:00.000000Z", "1969-12-31T23:59:59.999999Z"]))
        }
        Kind::Duration => Doc::scalar(dice.pick(&["0s", "1m30s", "1ns", "-2h0m0s"])),
        Kind::Float32 | Kind::Float64 => Doc::scalar(dice.pick(&[0.0, 0.5, -1.25])),
        Kind::Uint | Kind::Uint32 | Kind::Uint64 => Doc::scalar(dice.below(1 << 31)),
        Kind::Int32 => Doc::scalar(dice.below(1 << 31) as i64 - dice.below(3) as i64),
        Kind::Int | Kind::Int64 => Doc::scalar(dice.below(1 << 62) as i64 - dice.below(3) as i64),
        _ => Doc::scalar(text(dice)),
    }
}

/// Upstream's filled objects, in JSON (`json`) or protobuf (`pb`); none, loudly, where they are not at hand.
pub fn golden(extension: &str) -> Vec<&'static [u8]> {
    static ALL: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let mut above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        let found = above.find_map(|dir| std::fs::read_dir(dir.join(GOLDEN)).ok());
        let Some(files) = found else {
            eprintln!("NOT PLAYED: {GOLDEN} is nowhere above, no filled object is damaged");
            return Vec::new();
        };
        let mut paths: Vec<_> = files.filter_map(|f| Some(f.ok()?.path())).collect();
        paths.sort();
        let read = |path: &std::path::PathBuf| {
            Some((path.extension()?.to_str()?.to_owned(), std::fs::read(path).ok()?))
        };
        paths.iter().filter_map(read).collect()
    });
    all.iter().filter(|(e, _)| e == extension).map(|(_, bytes)| &bytes[..]).collect()
}

/// One of upstream's filled objects, or noise where there are none.
pub fn filled(dice: &mut Dice, extension: &str) -> Vec<u8> {
    let all = golden(extension);
    if all.is_empty() { noise(dice) } else { dice.pick(&all).to_vec() }
}
