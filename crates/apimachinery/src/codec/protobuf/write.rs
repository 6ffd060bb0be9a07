//! Documents to messages.

use super::PREFIX;
use super::wire::{put_bytes, put_message, put_number, put_varint};
use crate::doc::{self, Ref};
use crate::gvk::GroupVersion;
use crate::schema::{self, Field, Go, Kind, TypeId};
use crate::{gotime, k, quantity};
use base64::Engine as _;

/// The message of a document in normal form. What is of the wrong type is written as its zero value.
pub fn from_doc(from: Ref<'_>, ty: TypeId) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    message(from, ty, &mut out);
    out
}

/// The envelope around a message of `len` bytes: what goes before it, and what after it.
pub fn envelope(api_version: &str, kind: &str, len: usize) -> (Vec<u8>, Vec<u8>) {
    let mut head = PREFIX.to_vec();
    put_message(1, &mut head, |out| {
        put_bytes(1, api_version.as_bytes(), out);
        put_bytes(2, kind.as_bytes(), out);
    });
    put_varint(2 << 3 | 2, &mut head);
    put_varint(len as u64, &mut head);
    let mut tail = Vec::new();
    put_bytes(3, b"", &mut tail);
    put_bytes(4, b"", &mut tail);
    (head, tail)
}

/// A document in its envelope, by the type that its `apiVersion` and `kind` name; nothing where the schema table does
/// not know them.
pub fn object(from: Ref<'_>) -> Option<Vec<u8>> {
    let (api_version, kind) = (from.get(k::API_VERSION).str(), from.get(k::KIND).str());
    let raw = from_doc(from, type_of(api_version, kind)?);
    let (mut out, tail) = envelope(api_version, kind, raw.len());
    out.extend_from_slice(&raw);
    out.extend_from_slice(&tail);
    Some(out)
}

/// A list in its envelope, in pieces: its items need not be in one document. Nothing where the schema table does not
/// know the list's kind or an item's.
pub fn list<'i>(
    api_version: &str,
    kind: &str,
    metadata: Ref<'_>,
    items: impl Iterator<Item = std::borrow::Cow<'i, doc::Doc>>,
) -> Option<Vec<u8>> {
    let ty = type_of(api_version, kind)?;
    let field = ty.field(k::ITEMS).filter(|f| f.ty().kind() == Kind::Slice)?;
    let item = field.ty().elem().struct_type()?;
    let mut head = doc::Doc::object();
    head.edit().set(k::METADATA, metadata);
    // The items have the highest number of a list's two fields, so they may follow.
    let mut raw = from_doc(head.root(), ty);
    for doc in items {
        put_message(field.proto(), &mut raw, |out| message(doc.root(), item, out));
    }
    let (mut out, tail) = envelope(api_version, kind, raw.len());
    out.extend_from_slice(&raw);
    out.extend_from_slice(&tail);
    Some(out)
}

/// One event of a watch: four bytes of length, then a bare `WatchEvent` with an enveloped object in it.
pub fn watch_frame(type_: &str, object: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 4];
    put_bytes(1, type_.as_bytes(), &mut out);
    put_message(2, &mut out, |out| put_bytes(1, object, out));
    let len = u32::try_from(out.len() - 4).expect("an object is far smaller than 4 GiB");
    out[..4].copy_from_slice(&len.to_be_bytes());
    out
}

/// The type of a kind, by its `apiVersion`.
pub(super) fn type_of(api_version: &str, kind: &str) -> Option<TypeId> {
    let gv = GroupVersion::parse(api_version)?;
    schema::kind(&gv.group, &gv.version, kind)
}

fn message(from: Ref<'_>, ty: TypeId, out: &mut Vec<u8>) {
    let mut members: Vec<Field> = ty.members().filter(|m| m.proto() > 0).collect();
    members.sort_by_key(|m| m.proto());
    for member in members {
        if !member.inline() {
            field(member.proto(), from.get(member.key()), member.ty(), out);
        } else if let Some(inner) = member.ty().struct_type() {
            put_message(member.proto(), out, |out| message(from, inner, out));
        }
    }
}

/// A field with its tag, or nothing where Go's value would be nil.
fn field(number: u16, from: Ref<'_>, ty: Go, out: &mut Vec<u8>) {
    match ty.kind() {
        Kind::Pointer if from.is_set() => field(number, from, ty.elem(), out),
        Kind::Pointer => {}
        Kind::Slice if ty.named().is_none() => {
            for item in from.items() {
                value(number, item, ty.elem(), out);
            }
        }
        Kind::Slice | Kind::Bytes if !from.is_set() => {}
        Kind::Map => {
            let mut entries: Vec<(&str, Ref<'_>)> = from.entries().collect();
            entries.sort_by_key(|(name, _)| *name);
            for (name, of) in entries {
                put_message(number, out, |out| {
                    put_bytes(1, name.as_bytes(), out);
                    match ty.elem().kind() {
                        Kind::Bytes => field(2, of, ty.elem(), out),
                        _ => value(2, of, ty.elem(), out),
                    }
                });
            }
        }
        _ => value(number, from, ty, out),
    }
}

/// A value with its tag, be it zero.
fn value(number: u16, from: Ref<'_>, ty: Go, out: &mut Vec<u8>) {
    match ty.kind() {
        Kind::Pointer => value(number, from, ty.elem(), out),
        Kind::String => put_bytes(number, from.str().as_bytes(), out),
        Kind::Bool => put_number(number, u64::from(from.bool()), out),
        Kind::Int | Kind::Int32 | Kind::Int64 => put_number(number, from.i64() as u64, out),
        Kind::Uint | Kind::Uint32 | Kind::Uint64 => {
            put_number(number, from.number().and_then(|n| n.parse().ok()).unwrap_or(0), out);
        }
        Kind::Float64 => {
            put_varint(u64::from(number) << 3 | 1, out);
            out.extend_from_slice(&from.opt_f64().unwrap_or(0.0).to_le_bytes());
        }
        Kind::Float32 => {
            put_varint(u64::from(number) << 3 | 5, out);
            out.extend_from_slice(&(from.opt_f64().unwrap_or(0.0) as f32).to_le_bytes());
        }
        Kind::Bytes => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(from.str());
            put_bytes(number, &bytes.unwrap_or_default(), out);
        }
        // A slice with a name is a message of its own, with the items as field 1.
        Kind::Slice => put_message(number, out, |out| {
            for item in from.items() {
                value(1, item, ty.elem(), out);
            }
        }),
        Kind::Struct => {
            if let Some(inner) = ty.struct_type() {
                put_message(number, out, |out| message(from, inner, out));
            }
        }
        Kind::Map => field(number, from, ty, out),
        kind => put_message(number, out, |out| special(from, kind, out)),
    }
}

/// The body of a type that has a message of its own making.
fn special(from: Ref<'_>, kind: Kind, out: &mut Vec<u8>) {
    match kind {
        Kind::Quantity => {
            let text = from.opt_str().or(from.number()).unwrap_or("0");
            let text = quantity::canonical(text).unwrap_or("0".into());
            put_bytes(1, text.as_bytes(), out);
        }
        Kind::IntOrString => {
            put_number(1, u64::from(from.opt_str().is_some()), out);
            put_number(2, from.i64() as u64, out);
            put_bytes(3, from.str().as_bytes(), out);
        }
        Kind::Time => time(gotime::parse(from.str()).ok(), false, out),
        Kind::MicroTime => time(gotime::parse_micro(from.str()).ok(), true, out),
        Kind::Duration => put_number(1, gotime::parse_duration(from.str()).unwrap_or(0) as u64, out),
        // Raw JSON.
        _ if from.is_set() => put_bytes(1, &from.to_json(), out),
        _ => {}
    }
}

/// Nothing for the zero time; whole seconds, or microseconds too.
fn time(time: Option<jiff::Timestamp>, micro: bool, out: &mut Vec<u8>) {
    let Some(time) = time.filter(|t| !gotime::is_zero(*t)) else { return };
    // Go counts nanoseconds forward from the second before.
    let (seconds, nanos) = match (time.as_second(), time.subsec_nanosecond()) {
        (seconds, nanos) if nanos < 0 => (seconds - 1, nanos + 1_000_000_000),
        whole => whole,
    };
    put_number(1, seconds as u64, out);
    put_number(2, if micro { (nanos / 1000 * 1000) as u64 } else { 0 }, out);
}
