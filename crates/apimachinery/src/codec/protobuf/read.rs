//! Messages to documents.

use super::wire::{Wire, scan, varint};
use super::write::type_of;
use super::{MEDIA_TYPE, MESSAGE_BYTES_MAX, NESTED_MAX, PREFIX, ProtoError, decode};
use crate::codec::json;
use crate::doc::{self, Builder, Doc, Ref};
use crate::schema::normalise::normalise;
use crate::schema::{Field, Go, Kind, TypeId};
use crate::{gotime, k};
use base64::Engine as _;

/// The document of a message, with Go's explicit zeros; `apiVersion` and `kind` are the envelope's, so it has none.
///
/// # Errors
/// [`ProtoError`] when the bytes are no message of the type.
pub fn to_doc(raw: &[u8], ty: TypeId) -> Result<Doc, ProtoError> {
    if raw.len() > MESSAGE_BYTES_MAX {
        return Err(ProtoError::TooLarge);
    }
    let mut reader = Reader { out: Builder::new(String::new()), nested: 0 };
    let root = reader.out.node(Builder::NO_KEY, doc::TAG_OBJECT, 0, 0);
    reader.message(root, &[raw], ty, 1)?;
    Ok(reader.out.finish())
}

/// An enveloped object that lies `depth` lists and objects and `nested` envelopes deep.
pub(super) fn enveloped(bytes: &[u8], depth: usize, nested: usize) -> Result<(Doc, TypeId), ProtoError> {
    if nested > NESTED_MAX {
        return Err(ProtoError::TooDeep);
    }
    let unknown = decode(bytes)?;
    for said in [unknown.content_encoding, unknown.content_type] {
        if !said.is_empty() && said != MEDIA_TYPE {
            return Err(ProtoError::Content(said.to_owned()));
        }
    }
    let ty = type_of(unknown.api_version, unknown.kind).ok_or_else(|| ProtoError::UnknownKind {
        api_version: unknown.api_version.to_owned(),
        kind: unknown.kind.to_owned(),
    })?;
    let mut reader = Reader { out: Builder::new(String::new()), nested };
    let root = reader.out.node(Builder::NO_KEY, doc::TAG_OBJECT, 0, 0);
    for (key, text) in [(k::KIND, unknown.kind), (k::API_VERSION, unknown.api_version)] {
        let child = reader.text(Builder::static_key(key), text);
        reader.out.link(root, child);
    }
    reader.message(root, &[unknown.raw], ty, depth + 1)?;
    Ok((reader.out.finish(), ty))
}

struct Reader {
    out: Builder,
    nested: usize,
}

impl Reader {
    /// Adds a message's fields to the object `node`. `depth` counts lists and objects, the message's own among them.
    fn message(&mut self, node: u32, parts: &[&[u8]], ty: TypeId, depth: usize) -> Result<(), ProtoError> {
        if depth > json::DEPTH_MAX {
            return Err(ProtoError::TooDeep);
        }
        let members: Vec<(u32, Field)> = ty.members().map(|m| (u32::from(m.proto()), m)).collect();
        let mut found: Vec<(usize, Wire<'_>)> = Vec::new();
        scan(parts, |number, value| {
            // Members without a number are not in protobuf, and no field has number 0.
            let member = members.iter().position(|(proto, _)| *proto == number);
            found.extend(member.map(|m| (m, value)));
            Ok(())
        })?;
        // Stable: a list's items keep their order, and the last of a scalar's values counts.
        found.sort_by_key(|(member, _)| *member);
        for same in found.chunk_by(|a, b| a.0 == b.0) {
            let member = members[same[0].0].1;
            let values: Vec<Wire<'_>> = same.iter().map(|(_, value)| *value).collect();
            match member.ty().struct_type().filter(|_| member.inline()) {
                Some(inner) => self.message(node, &parts_of(&values, inner.short_name())?, inner, depth)?,
                None => {
                    let key = Builder::static_key(member.key());
                    let child = self.value(key, &values, member.ty(), member.name(), depth)?;
                    self.out.link(node, child);
                }
            }
        }
        Ok(())
    }

    /// All values of one field as one value of the document.
    fn value(
        &mut self,
        key: u32,
        values: &[Wire<'_>],
        ty: Go,
        name: &'static str,
        depth: usize,
    ) -> Result<u32, ProtoError> {
        match ty.kind() {
            Kind::Pointer => self.value(key, values, ty.elem(), name, depth),
            Kind::Slice if ty.named().is_some() => {
                let mut items = Vec::new();
                scan(&parts_of(values, name)?, |number, value| {
                    if number == 1 {
                        items.push(value);
                    }
                    Ok(())
                })?;
                self.list(key, &items, ty.elem(), name, depth + 1)
            }
            Kind::Slice => self.list(key, values, ty.elem(), name, depth + 1),
            Kind::Map => self.map(key, values, ty.elem(), name, depth + 1),
            Kind::Struct => {
                let id = self.out.node(key, doc::TAG_OBJECT, 0, 0);
                if let Some(inner) = ty.struct_type() {
                    self.message(id, &parts_of(values, name)?, inner, depth + 1)?;
                }
                Ok(id)
            }
            Kind::String | Kind::Bytes | Kind::Bool => self.scalar(key, values, ty.kind(), name),
            Kind::Int | Kind::Int32 | Kind::Int64 | Kind::Uint | Kind::Uint32 | Kind::Uint64 => {
                let n = values.last().map_or(Ok(0), |v| v.varint(name))?;
                let text = match ty.kind() {
                    Kind::Int32 => (n as i32).to_string(),
                    Kind::Uint32 => (n as u32).to_string(),
                    Kind::Uint | Kind::Uint64 => n.to_string(),
                    _ => (n as i64).to_string(),
                };
                Ok(self.number(key, &text))
            }
            Kind::Float32 | Kind::Float64 => {
                let text = float(values, name)?;
                Ok(self.number(key, &text))
            }
            kind => self.special(key, &parts_of(values, name)?, kind, name, depth),
        }
    }

    fn list(
        &mut self,
        key: u32,
        values: &[Wire<'_>],
        elem: Go,
        name: &'static str,
        depth: usize,
    ) -> Result<u32, ProtoError> {
        if depth > json::DEPTH_MAX {
            return Err(ProtoError::TooDeep);
        }
        let id = self.out.node(key, doc::TAG_ARRAY, 0, 0);
        let numbers = matches!(
            elem.kind(),
            Kind::Bool | Kind::Int | Kind::Int32 | Kind::Int64 | Kind::Uint | Kind::Uint32 | Kind::Uint64
        );
        for value in values {
            match value {
                Wire::Bytes(packed) if numbers => {
                    let mut rest = *packed;
                    while !rest.is_empty() {
                        let item = Wire::Varint(varint(&mut rest)?);
                        let child = self.value(Builder::NO_KEY, &[item], elem, name, depth)?;
                        self.out.link(id, child);
                    }
                }
                value => {
                    let child = self.value(Builder::NO_KEY, &[*value], elem, name, depth)?;
                    self.out.link(id, child);
                }
            }
        }
        Ok(id)
    }

    /// Of entries with the same key the last counts.
    fn map(
        &mut self,
        key: u32,
        values: &[Wire<'_>],
        elem: Go,
        name: &'static str,
        depth: usize,
    ) -> Result<u32, ProtoError> {
        if depth > json::DEPTH_MAX {
            return Err(ProtoError::TooDeep);
        }
        let mut entries: Vec<(&str, Option<Wire<'_>>)> = Vec::with_capacity(values.len());
        for entry in values {
            let mut pair = ("", None);
            scan(&[entry.bytes(name)?], |number, value| {
                match number {
                    1 => pair.0 = value.text(name)?,
                    2 => pair.1 = Some(value),
                    _ => {}
                }
                Ok(())
            })?;
            entries.push(pair);
        }
        entries.sort_by_key(|(name, _)| *name);
        let id = self.out.node(key, doc::TAG_OBJECT, 0, 0);
        for same in entries.chunk_by(|a, b| a.0 == b.0) {
            if let Some((entry, value)) = same.last() {
                let entry = self.out.key(entry);
                let child = self.value(entry, value.as_slice(), elem, name, depth)?;
                self.out.link(id, child);
            }
        }
        Ok(id)
    }

    fn scalar(
        &mut self,
        key: u32,
        values: &[Wire<'_>],
        kind: Kind,
        name: &'static str,
    ) -> Result<u32, ProtoError> {
        let last = values.last();
        Ok(match kind {
            Kind::Bool => {
                let set = last.map_or(Ok(0), |v| v.varint(name))? != 0;
                self.out.node(key, if set { doc::TAG_TRUE } else { doc::TAG_FALSE }, 0, 0)
            }
            Kind::Bytes => {
                let bytes = last.map_or(Ok(&b""[..]), |v| v.bytes(name))?;
                self.text(key, &base64::engine::general_purpose::STANDARD.encode(bytes))
            }
            _ => {
                let text = last.map_or(Ok(""), |v| v.text(name))?;
                self.text(key, text)
            }
        })
    }

    /// Types with a message of their own making.
    fn special(
        &mut self,
        key: u32,
        parts: &[&[u8]],
        kind: Kind,
        name: &'static str,
        depth: usize,
    ) -> Result<u32, ProtoError> {
        let mut fields: [Option<Wire<'_>>; 4] = [None; 4];
        scan(parts, |number, value| {
            if let Some(slot) = fields.get_mut(number as usize) {
                *slot = Some(value);
            }
            Ok(())
        })?;
        let number = |at: usize| fields[at].map_or(Ok(0), |v| v.varint(name));
        let impossible = || ProtoError::Value(name);
        match kind {
            Kind::Quantity => {
                let text = fields[1].map_or(Ok("0"), |v| v.text(name))?;
                Ok(self.text(key, text))
            }
            Kind::IntOrString => match number(1)? {
                0 => Ok(self.number(key, &(number(2)? as i32).to_string())),
                1 => Ok(self.text(key, fields[3].map_or(Ok(""), |v| v.text(name))?)),
                _ => Err(impossible()),
            },
            Kind::Time | Kind::MicroTime if fields.iter().all(Option::is_none) => Ok(self.null(key)),
            Kind::Time => {
                let at = gotime::from_unix(number(1)? as i64, 0).ok_or_else(impossible)?;
                Ok(self.text(key, &gotime::format(at)))
            }
            Kind::MicroTime => {
                let at = gotime::from_unix(number(1)? as i64, number(2)? as i32).ok_or_else(impossible)?;
                Ok(self.text(key, &gotime::format_micro(at)))
            }
            Kind::Duration => Ok(self.text(key, &gotime::format_duration(number(1)? as i64))),
            _ => match fields[1].map_or(Ok(&b""[..]), |v| v.bytes(name))? {
                b"" => Ok(self.null(key)),
                raw => self.raw(key, raw, name, depth),
            },
        }
    }

    /// JSON, or an object in an envelope of its own.
    fn raw(&mut self, key: u32, raw: &[u8], name: &'static str, depth: usize) -> Result<u32, ProtoError> {
        let doc = if raw.starts_with(PREFIX) {
            let (doc, ty) = enveloped(raw, depth, self.nested + 1)?;
            normalise(doc.root(), ty)
        } else {
            json::parse(raw).map_err(|source| ProtoError::Json { field: name, source })?.doc
        };
        // What is stored is read again as JSON, which has this limit for the whole.
        if depth + deepest(doc.root()) > json::DEPTH_MAX {
            return Err(ProtoError::TooDeep);
        }
        Ok(self.out.copy(key, doc.root()))
    }

    fn text(&mut self, key: u32, text: &str) -> u32 {
        let (start, len) = self.out.push_text(text);
        self.out.node(key, json::string_tag(text), start, len)
    }

    fn number(&mut self, key: u32, text: &str) -> u32 {
        let (start, len) = self.out.push_text(text);
        self.out.node(key, doc::TAG_NUMBER, start, len)
    }

    fn null(&mut self, key: u32) -> u32 {
        self.out.node(key, doc::TAG_NULL, 0, 0)
    }
}

fn parts_of<'a>(values: &[Wire<'a>], name: &'static str) -> Result<Vec<&'a [u8]>, ProtoError> {
    values.iter().map(|v| v.bytes(name)).collect()
}

fn float(values: &[Wire<'_>], name: &'static str) -> Result<String, ProtoError> {
    let value = match values.last() {
        None => 0.0,
        Some(Wire::Fixed64(bits)) => f64::from_bits(*bits),
        Some(Wire::Fixed32(bits)) => f64::from(f32::from_bits(*bits)),
        Some(_) => return Err(ProtoError::Form(name)),
    };
    match value.is_finite() {
        true if value == 0.0 || (1e-6..1e21).contains(&value.abs()) => Ok(value.to_string()),
        true => Ok(format!("{value:e}")),
        false => Err(ProtoError::Value(name)),
    }
}

/// How many lists and objects lie in each other. Bounded by what the JSON decoder lets through.
fn deepest(of: Ref<'_>) -> usize {
    let children = if of.is_array() { of.items() } else { of.fields() };
    let inner = children.map(deepest).max().unwrap_or(0);
    inner + usize::from(of.is_array() || of.is_object())
}
