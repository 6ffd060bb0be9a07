//! Go value rules: a document as upstream would write it after reading it into its structs.
//!
//! Fields in the order of the struct, maps sorted by key, unknown fields gone; nulls and empties dropped where
//! `omitempty` drops them and written where it does not; bytes, times and quantities in canonical form. What is of the
//! wrong type reads as nothing: [`super::decode`] has refused it before. Only built-in types are normalised.
//! Upstream: encoding/json on the structs of k8s.io/api.
use super::{Field, Go, Kind, TypeId};
use crate::doc::{self, Builder, Doc, Ref};
use crate::{gotime, quantity};
use base64::Engine as _;
use std::borrow::Cow;

/// The most fields a type has; codegen refuses more.
const FIELDS_MAX: usize = 64;

/// The document as upstream would write it.
pub fn normalise(from: Ref<'_>, ty: TypeId) -> Doc {
    let mut writer = Writer { out: Builder::like(from) };
    writer.structure(Builder::NO_KEY, from, ty);
    writer.out.finish()
}

struct Writer {
    out: Builder,
}

impl Writer {
    fn structure(&mut self, key: u32, from: Ref<'_>, ty: TypeId) -> u32 {
        let id = self.out.node(key, doc::TAG_OBJECT, 0, 0);
        let mut slots = [None; FIELDS_MAX];
        for child in from.fields() {
            if let Some(field) = child.key().and_then(|k| ty.field(k)) {
                slots[ty.position(field)] = Some(child);
            }
        }
        for (field, slot) in ty.fields().zip(slots) {
            let value = slot.unwrap_or_default();
            if !omitted(field, value) {
                let child = self.value(Builder::static_key(field.key()), value, field.ty());
                self.out.link(id, child);
            }
        }
        id
    }

    fn value(&mut self, key: u32, from: Ref<'_>, ty: Go) -> u32 {
        match ty.kind() {
            Kind::Pointer if !from.is_set() => self.null(key),
            Kind::Pointer => self.value(key, from, ty.elem()),
            Kind::Struct => match ty.struct_type() {
                Some(inner) => self.structure(key, from, inner),
                None => self.null(key),
            },
            Kind::Slice if from.is_array() => {
                let id = self.out.node(key, doc::TAG_ARRAY, 0, 0);
                for item in from.items() {
                    let child = self.value(Builder::NO_KEY, item, ty.elem());
                    self.out.link(id, child);
                }
                id
            }
            Kind::Map if from.is_object() => self.map(key, from, ty.elem()),
            Kind::Slice | Kind::Map => self.null(key),
            Kind::String | Kind::Duration => self.string(key, from),
            Kind::Bool => {
                let tag = if from.bool() { doc::TAG_TRUE } else { doc::TAG_FALSE };
                self.out.node(key, tag, 0, 0)
            }
            kind => self.scalar(key, from, kind),
        }
    }

    fn scalar(&mut self, key: u32, from: Ref<'_>, kind: Kind) -> u32 {
        match kind {
            Kind::Bytes => match from.opt_str() {
                Some(text) => self.text(key, &bytes(text)),
                None => self.null(key),
            },
            Kind::Quantity => self.text(key, &quantity_text(from)),
            Kind::IntOrString if from.kind() == doc::Kind::String => self.string(key, from),
            Kind::Time | Kind::MicroTime => match time(from.str(), kind) {
                Some(text) => self.text(key, &text),
                None => self.null(key),
            },
            Kind::Raw | Kind::FieldsV1 | Kind::Any => self.out.copy(key, from),
            _ => self.number(key, from.number().unwrap_or("0")),
        }
    }

    /// Maps are written in byte order of their keys.
    fn map(&mut self, key: u32, from: Ref<'_>, elem: Go) -> u32 {
        let id = self.out.node(key, doc::TAG_OBJECT, 0, 0);
        let mut entries: Vec<(&str, Ref<'_>)> = from.entries().collect();
        if !entries.is_sorted_by_key(|(name, _)| *name) {
            entries.sort_by_key(|(name, _)| *name);
        }
        for (name, value) in entries {
            let name = self.out.key(name);
            let child = self.value(name, value, elem);
            self.out.link(id, child);
        }
        id
    }

    fn null(&mut self, key: u32) -> u32 {
        self.out.node(key, doc::TAG_NULL, 0, 0)
    }

    /// A copy of a string; empty for what is none.
    fn string(&mut self, key: u32, from: Ref<'_>) -> u32 {
        let (start, len) = self.out.push_text(from.str());
        let tag = if from.tag() == doc::TAG_STRING { doc::TAG_STRING } else { doc::TAG_CLEAN };
        self.out.node(key, tag, start, len)
    }

    fn text(&mut self, key: u32, text: &str) -> u32 {
        let (start, len) = self.out.push_text(text);
        self.out.node(key, crate::codec::json::string_tag(text), start, len)
    }

    fn number(&mut self, key: u32, text: &str) -> u32 {
        let (start, len) = self.out.push_text(text);
        self.out.node(key, doc::TAG_NUMBER, start, len)
    }
}

/// Whether `omitempty` or `omitzero` leave the field out.
fn omitted(field: Field, value: Ref<'_>) -> bool {
    if field.omitzero() && field.ty().kind() == Kind::Time && time(value.str(), Kind::Time).is_none() {
        return true;
    }
    if !field.omitempty() {
        return false;
    }
    match field.ty().kind() {
        Kind::Pointer | Kind::Any => !value.is_set(),
        Kind::Slice => !value.is_array() || value.is_empty(),
        Kind::Map => !value.is_object() || value.is_empty(),
        Kind::String | Kind::Bytes => value.str().is_empty(),
        Kind::Bool => !value.bool(),
        // Structs are never empty, and these are structs in Go.
        Kind::Struct | Kind::Quantity | Kind::IntOrString | Kind::Time | Kind::MicroTime | Kind::Duration => {
            false
        }
        Kind::Raw | Kind::FieldsV1 => false,
        _ => value.number().is_none_or(|n| n.parse() == Ok(0i64)),
    }
}

/// Go reads base64 with line breaks in it and writes it without.
fn bytes(text: &str) -> Cow<'_, str> {
    let decoded = super::decode::base64_bytes(text);
    let encoded = decoded.map(|b| base64::engine::general_purpose::STANDARD.encode(b)).unwrap_or_default();
    if encoded == text { Cow::Borrowed(text) } else { Cow::Owned(encoded) }
}

/// A quantity is a string or a number in JSON, and a string once read.
fn quantity_text(from: Ref<'_>) -> Cow<'_, str> {
    let text = from.opt_str().or(from.number()).unwrap_or("0").trim();
    quantity::canonical(text).unwrap_or(Cow::Borrowed("0"))
}

fn time(text: &str, kind: Kind) -> Option<Cow<'_, str>> {
    let (parsed, format, form): (_, fn(jiff::Timestamp) -> String, &str) = match kind {
        Kind::MicroTime => (gotime::parse_micro(text), gotime::format_micro, "0000-00-00T00:00:00.000000Z"),
        _ => (gotime::parse(text), gotime::format, "0000-00-00T00:00:00Z"),
    };
    let time = parsed.ok().filter(|t| !gotime::is_zero(*t))?;
    let formed = |(at, form): (u8, u8)| if form == b'0' { at.is_ascii_digit() } else { at == form };
    if text.len() == form.len() && text.bytes().zip(form.bytes()).all(formed) {
        return Some(Cow::Borrowed(text));
    }
    Some(Cow::Owned(format(time)))
}
