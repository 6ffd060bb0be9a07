//! `schema.bin`: the schema as flat little-endian tables that are read in place.
//!
//! Layout (`src/schema/mod.rs` is its reader): a header of `u32` pairs (offset, count), one per section, then the
//! sections. Strings, lists, Go types, types, fields and key indexes are referred to by `u16` number; `0xFFFF` is none.
use crate::schema_text::{Body, Field, Go, Schema, WORDS};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;

const NONE: u16 = u16::MAX;
/// Numbers of the composed kinds; the words of the schema text come first.
const POINTER: u8 = 32;
const SLICE: u8 = 33;
const MAP: u8 = 34;
const STRUCT: u8 = 35;

#[derive(Default)]
struct Blob<'a> {
    names: BTreeMap<&'a str, u16>,
    type_ids: BTreeMap<String, u16>,
    strings: Vec<u8>,
    string_ends: Vec<u8>,
    string_ids: BTreeMap<String, u16>,
    lists: Vec<u8>,
    nodes: Vec<u8>,
    node_ids: BTreeMap<Vec<u8>, u16>,
    types: Vec<u8>,
    fields: Vec<u8>,
    by_key: Vec<u8>,
    kinds: Vec<u8>,
}

/// The blob's bytes.
pub fn generate(schema: &Schema, names: &[String]) -> Result<Vec<u8>> {
    let mut b = Blob::default();
    for (id, name) in names.iter().enumerate() {
        b.names.insert(name, u16::try_from(id)?);
    }
    b.type_ids = type_numbers(schema)?;
    for name in schema.types.keys() {
        b.define(schema, name).with_context(|| name.clone())?;
    }
    b.define_kinds(schema)?;
    b.assemble()
}

/// The numbers of the struct types in the table.
pub fn type_numbers(schema: &Schema) -> Result<BTreeMap<String, u16>> {
    let mut numbers = BTreeMap::new();
    for name in schema.types.keys() {
        if structure(schema, name)?.is_some() {
            numbers.insert(name.clone(), u16::try_from(numbers.len())?);
        }
    }
    Ok(numbers)
}

/// The fields of a struct type, through aliases; nothing for other types.
pub fn structure<'a>(schema: &'a Schema, name: &str) -> Result<Option<&'a [Field]>> {
    match &schema.types.get(name).with_context(|| format!("type {name}"))?.body {
        Body::Struct(fields) => Ok(Some(fields)),
        Body::Alias { ty: Go::Named(other), .. } => structure(schema, other),
        Body::Alias { .. } => Ok(None),
    }
}

/// JSON fields in Go's order: inlined structs expanded in place, with the member they come through.
pub fn flatten(schema: &Schema, name: &str) -> Result<Vec<Field>> {
    let mut out = Vec::new();
    for field in structure(schema, name)?.context("a struct")? {
        match (&field.ty, field.name.is_empty()) {
            (_, false) => out.push(field.clone()),
            (Go::Named(inner), true) => {
                for mut inner in flatten(schema, inner)? {
                    inner.proto = 0;
                    out.push(inner);
                }
            }
            _ => bail!("only a struct can be inlined"),
        }
    }
    Ok(out)
}

impl Blob<'_> {
    fn string(&mut self, s: &str) -> Result<u16> {
        if let Some(id) = self.string_ids.get(s) {
            return Ok(*id);
        }
        let id = u16::try_from(self.string_ids.len())?;
        self.strings.extend_from_slice(s.as_bytes());
        self.string_ends.extend(u32::try_from(self.strings.len())?.to_le_bytes());
        self.string_ids.insert(s.to_owned(), id);
        Ok(id)
    }

    /// A list of strings: its length, then their numbers.
    fn list(&mut self, items: &[String]) -> Result<u16> {
        if items.is_empty() {
            return Ok(NONE);
        }
        let ids: Vec<u16> = items.iter().map(|i| self.string(i)).collect::<Result<_>>()?;
        let at = u16::try_from(self.lists.len() / 2)?;
        for id in std::iter::once(u16::try_from(items.len())?).chain(ids) {
            self.lists.extend(id.to_le_bytes());
        }
        Ok(at)
    }

    fn node(&mut self, schema: &Schema, ty: &Go) -> Result<u16> {
        let mut node = Node::new(0);
        match ty {
            Go::Word(word) => {
                node.kind = u8::try_from(WORDS.iter().position(|w| w == word).context("word")?)?
            }
            Go::Pointer(elem) => (node.kind, node.elem) = (POINTER, self.node(schema, elem)?),
            Go::Slice(elem) => (node.kind, node.elem) = (SLICE, self.node(schema, elem)?),
            Go::Map(key, elem) => {
                let key = self.node(schema, key)?;
                ensure!(self.nodes[usize::from(key) * 12] == 0, "a map's key is a string");
                (node.kind, node.elem) = (MAP, self.node(schema, elem)?);
            }
            Go::Named(name) => {
                let def = schema.types.get(name).with_context(|| format!("type {name}"))?;
                let package = def.package.rsplit('/').next().unwrap_or_default();
                node.name = self.string(&format!("{package}.{}", def.name))?;
                if let Some(id) = self.type_ids.get(name) {
                    (node.kind, node.ty) = (STRUCT, *id);
                } else if let Body::Alias { ty, values, closed } = &def.body {
                    let target = usize::from(self.node(schema, ty)?) * 12;
                    let u16_at = |at: usize| {
                        u16::from_le_bytes([self.nodes[target + at], self.nodes[target + at + 1]])
                    };
                    (node.kind, node.elem) = (self.nodes[target], u16_at(2));
                    (node.closed, node.values) = (u8::from(*closed), u16_at(8));
                    if !values.is_empty() {
                        node.values = self.list_once(values)?;
                    }
                }
            }
        }
        let bytes = node.bytes();
        if let Some(id) = self.node_ids.get(&bytes) {
            return Ok(*id);
        }
        let id = u16::try_from(self.node_ids.len())?;
        self.nodes.extend(&bytes);
        self.node_ids.insert(bytes, id);
        Ok(id)
    }

    /// The same list for the same values, so that equal Go types stay one node.
    fn list_once(&mut self, values: &[String]) -> Result<u16> {
        let ids: Vec<u16> = values.iter().map(|i| self.string(i)).collect::<Result<_>>()?;
        let mut wanted = u16::try_from(ids.len())?.to_le_bytes().to_vec();
        wanted.extend(ids.iter().flat_map(|i| i.to_le_bytes()));
        match (0..self.lists.len()).step_by(2).find(|at| self.lists[*at..].starts_with(&wanted)) {
            Some(at) => Ok(u16::try_from(at / 2)?),
            None => self.list(values),
        }
    }

    fn define(&mut self, schema: &Schema, name: &str) -> Result<()> {
        let Some(members) = structure(schema, name)? else { return Ok(()) };
        let def = &schema.types[name];
        let flat = flatten(schema, name)?;
        ensure!(flat.len() <= 64, "the reader of documents holds 64 fields of a struct");
        let inlines = members.iter().any(|m| m.name.is_empty() && m.proto != 0);
        let first = self.push_fields(schema, &flat)?;
        let (members_first, members_len) =
            if inlines { (self.push_fields(schema, members)?, members.len()) } else { (first, flat.len()) };
        let mut keys: Vec<(u16, u16)> = Vec::new();
        for (i, f) in flat.iter().enumerate() {
            keys.push((self.names[f.name.as_str()], u16::try_from(i)?));
        }
        keys.sort_unstable();
        ensure!(keys.windows(2).all(|w| w[0].0 != w[1].0), "a field name twice");
        for (key, index) in keys {
            self.by_key.extend(key.to_le_bytes());
            self.by_key.extend(index.to_le_bytes());
        }
        let flags = u16::from(def.atomic) | u16::from(def.kind) << 1;
        let package = def.package.rsplit('/').next().unwrap_or_default();
        let row = [
            self.string(name)?,
            self.string(&def.name)?,
            self.string(package)?,
            first,
            u16::try_from(flat.len())?,
            members_first,
            u16::try_from(members_len)?,
            u16::try_from(self.by_key.len() / 4 - flat.len())?,
            flags,
        ];
        self.types.extend(row.iter().flat_map(|v| v.to_le_bytes()));
        Ok(())
    }

    fn push_fields(&mut self, schema: &Schema, fields: &[Field]) -> Result<u16> {
        let first = u16::try_from(self.fields.len() / 16)?;
        for f in fields {
            let key = if f.name.is_empty() { NONE } else { self.names[f.name.as_str()] };
            let merge_key = match &f.merge_key {
                Some(name) => *self.names.get(name.as_str()).with_context(|| format!("merge key {name}"))?,
                None => NONE,
            };
            let default = match &f.default {
                Some(default) => self.string(default)?,
                None => NONE,
            };
            let list_keys = if f.list_keys.is_empty() { NONE } else { self.list_once(&f.list_keys)? };
            let ty = self.node(schema, &f.ty)?;
            let row = [key, ty, f.proto, flags(f)?, merge_key, list_keys, default, 0];
            self.fields.extend(row.iter().flat_map(|v| v.to_le_bytes()));
        }
        Ok(first)
    }

    fn define_kinds(&mut self, schema: &Schema) -> Result<()> {
        let mut kinds = BTreeMap::new();
        // Packages in order: core's List comes first and stays.
        for (full, def) in schema.types.iter().filter(|(_, d)| d.kind) {
            let group = def.group.as_deref().context("a kind belongs to a group")?;
            let version = def.package.rsplit('/').next().unwrap_or_default();
            kinds.entry((group, version, def.name.as_str())).or_insert(full.as_str());
        }
        for ((group, version, kind), full) in kinds {
            let row = [self.string(group)?, self.string(version)?, self.string(kind)?, self.type_ids[full]];
            self.kinds.extend(row.iter().flat_map(|v| v.to_le_bytes()));
        }
        Ok(())
    }

    fn assemble(self) -> Result<Vec<u8>> {
        let sections: [(&[u8], usize); 8] = [
            (&self.strings, 1),
            (&self.string_ends, 4),
            (&self.lists, 2),
            (&self.nodes, 12),
            (&self.types, 18),
            (&self.fields, 16),
            (&self.by_key, 4),
            (&self.kinds, 8),
        ];
        let mut out = Vec::new();
        let mut at = sections.len() * 8;
        for (bytes, row) in sections {
            out.extend(u32::try_from(at)?.to_le_bytes());
            out.extend(u32::try_from(bytes.len() / row)?.to_le_bytes());
            at += bytes.len();
        }
        for (bytes, _) in sections {
            out.extend_from_slice(bytes);
        }
        Ok(out)
    }
}

/// One row of the table of Go types.
struct Node {
    kind: u8,
    closed: u8,
    elem: u16,
    ty: u16,
    name: u16,
    values: u16,
}

impl Node {
    fn new(kind: u8) -> Node {
        Node { kind, closed: 0, elem: NONE, ty: NONE, name: NONE, values: NONE }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = vec![self.kind, self.closed];
        for v in [self.elem, self.ty, self.name, self.values, 0] {
            out.extend(v.to_le_bytes());
        }
        out
    }
}

fn flags(f: &Field) -> Result<u16> {
    let list = match f.list.as_deref() {
        None => 0,
        Some("atomic") => 1,
        Some("set") => 2,
        Some("map") => 3,
        Some(other) => bail!("list type {other}"),
    };
    let bits = [
        f.omitempty,
        f.omitzero,
        f.optional,
        f.required,
        f.proto_required,
        f.discriminator,
        f.map_atomic,
        f.patch.iter().any(|p| p == "merge"),
        f.patch.iter().any(|p| p == "replace"),
        f.patch.iter().any(|p| p == "retainKeys"),
        f.name.is_empty(),
    ];
    Ok(bits.iter().enumerate().fold(list << 12, |all, (i, on)| all | u16::from(*on) << i))
}
