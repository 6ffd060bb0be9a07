//! Strategic merge patch: a merge patch that knows from the schema which lists are merged, and by which key.
//!
//! Directives: `$patch` (replace, delete; merge is the default), `$deleteFromPrimitiveList/x`, `$setElementOrder/x`,
//! `$retainKeys`. The result is a document in no particular order: it is decoded again afterwards, as upstream does,
//! which also finds directives in places where they mean nothing. Custom resources do not take these patches.
//! Upstream: apimachinery pkg/util/strategicpatch.
use base::hash::Map;

use crate::doc::{self, Builder, Doc, Kind, Ref};
use crate::schema::{self, Field, Go, TypeId};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PREFIX: &str = "$deleteFromPrimitiveList/";
const ORDER_PREFIX: &str = "$setElementOrder/";
/// From how many entries on a map is looked up by an index.
const LONG: usize = 32;

/// Why a patch cannot be applied; worded as upstream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum StrategicError {
    #[error("invalid JSON document")]
    NoObject,
    #[error("lists of lists are not supported")]
    ListOfLists,
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    #[error("invalid patch format of setElementOrder list")]
    ElementOrder,
    #[error("The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{order}\n")]
    OrderMismatch { patch: String, order: String },
    #[error("map: {map} does not contain declared merge key: {key}")]
    NoMergeKey { map: String, key: &'static str },
    #[error("expected a {expected}, but received a {found}")]
    WrongType { expected: &'static str, found: &'static str },
    #[error("unknown patch type: {directive} in map: {map}")]
    UnknownDirective { directive: String, map: String },
    #[error("merging lists cannot yet be specified in the patch")]
    MergeDirectiveInList,
    #[error("list element types are not identical: {lists}")]
    MixedList { lists: String },
    #[error("cannot merge lists without merge key for struct")]
    ListWithoutKey,
    #[error("unable to find api field in struct {ty} for the json field {field:?}")]
    UnknownField { ty: &'static str, field: String },
    #[error("merging an object in json but data type is not struct, instead is: {found}")]
    NoStruct { found: String },
}

impl StrategicError {
    /// The code that upstream answers with: 400 and 422 for what is wrong with the patch as such, else 500.
    pub fn code(&self) -> u16 {
        match self {
            StrategicError::NoObject | StrategicError::RetainKeys | StrategicError::ElementOrder => 400,
            StrategicError::ListOfLists => 422,
            _ => 500,
        }
    }
}

/// Applies a patch to an object of a built-in type.
pub fn apply(original: Ref<'_>, patch: Ref<'_>, ty: TypeId) -> Result<Doc, StrategicError> {
    if !patch.is_object() {
        return Err(StrategicError::NoObject);
    }
    let merged = merge_map(Node::Ref(original), patch, Meta::Struct(ty))?;
    let mut out = Builder::new(String::new());
    write(&mut out, Builder::NO_KEY, &merged);
    Ok(out.finish())
}

/// A value of the result: whole from the original or the patch, or put together.
#[derive(Clone)]
enum Node<'a> {
    Ref(Ref<'a>),
    Map(Vec<(&'a str, Node<'a>)>),
    List(Vec<Node<'a>>),
}

/// What the schema says of the place.
#[derive(Clone, Copy)]
enum Meta {
    Struct(TypeId),
    Map(Go),
    Other(Go),
}

// === impl Node ===

impl<'a> Node<'a> {
    fn kind(&self) -> Kind {
        match self {
            Node::Ref(r) => r.kind(),
            Node::Map(_) => Kind::Object,
            Node::List(_) => Kind::Array,
        }
    }

    fn into_map(self) -> Vec<(&'a str, Node<'a>)> {
        match self {
            Node::Map(entries) => entries,
            Node::Ref(r) => r.entries().map(|(name, value)| (name, Node::Ref(value))).collect(),
            Node::List(_) => Vec::new(),
        }
    }

    fn into_list(self) -> Vec<Node<'a>> {
        match self {
            Node::List(items) => items,
            Node::Ref(r) => r.items().map(Node::Ref).collect(),
            Node::Map(_) => Vec::new(),
        }
    }

    /// A scalar entry of a map.
    fn entry(&self, name: &str) -> Option<Ref<'a>> {
        match self {
            Node::Ref(r) => Some(r.get(name)).filter(|v| v.exists()),
            Node::Map(entries) => entries.iter().find(|(n, _)| *n == name).and_then(|(_, v)| match v {
                Node::Ref(r) => Some(*r),
                _ => None,
            }),
            Node::List(_) => None,
        }
    }

    /// What tells the item apart in its list: its merge key's value, or itself.
    fn identity(&self, merge_key: Option<&'static str>) -> Result<Ref<'a>, StrategicError> {
        match (merge_key, self) {
            (Some(_), _) if self.kind() != Kind::Object => Err(wrong_type(Kind::Object, self.kind())),
            (Some(key), _) => self.entry(key).ok_or_else(|| no_merge_key(self, key)),
            (None, Node::Ref(r)) => Ok(*r),
            (None, _) => Err(StrategicError::ListWithoutKey),
        }
    }
}

fn write(out: &mut Builder, key: u32, node: &Node<'_>) -> u32 {
    match node {
        Node::Ref(r) => out.copy(key, *r),
        Node::Map(entries) => {
            let id = out.node(key, doc::TAG_OBJECT, 0, 0);
            for (name, value) in entries {
                let name = out.key(name);
                let child = write(out, name, value);
                out.link(id, child);
            }
            id
        }
        Node::List(items) => {
            let id = out.node(key, doc::TAG_ARRAY, 0, 0);
            for item in items {
                let child = write(out, Builder::NO_KEY, item);
                out.link(id, child);
            }
            id
        }
    }
}

// === impl Meta ===

impl Meta {
    fn of(ty: Go) -> Meta {
        let ty = ty.pointee();
        match (ty.kind(), ty.struct_type()) {
            (schema::Kind::Struct, Some(inner)) => Meta::Struct(inner),
            (schema::Kind::Map, _) => Meta::Map(ty.elem()),
            _ => Meta::Other(ty),
        }
    }

    /// Type and patch tags of an entry.
    fn entry(self, name: &str) -> Result<(Go, Option<Field>), StrategicError> {
        match self {
            Meta::Struct(ty) => {
                let field = schema::keys::lookup(name.as_bytes()).and_then(|k| ty.field(k));
                let missing = || StrategicError::UnknownField { ty: ty.short_name(), field: name.to_owned() };
                field.map(|f| (f.ty(), Some(f))).ok_or_else(missing)
            }
            Meta::Map(elem) => Ok((elem, None)),
            Meta::Other(ty) => Err(StrategicError::NoStruct { found: ty.go_name() }),
        }
    }

    fn list(self, name: &str) -> Result<ListMeta, StrategicError> {
        let (ty, field) = self.entry(name)?;
        let ty = ty.pointee();
        if ty.kind() != schema::Kind::Slice {
            return Err(StrategicError::WrongType { expected: type_name(Kind::Array), found: "struct" });
        }
        let merge_key = field.and_then(Field::merge_key).map(|k| k.name());
        Ok(ListMeta { item: Meta::of(ty.elem()), merge: field.is_some_and(Field::patch_merge), merge_key })
    }
}

/// What the schema says of a list.
#[derive(Clone, Copy)]
struct ListMeta {
    item: Meta,
    merge: bool,
    merge_key: Option<&'static str>,
}

fn merge_map<'a>(original: Node<'a>, patch: Ref<'a>, meta: Meta) -> Result<Node<'a>, StrategicError> {
    let directive = patch.get(PATCH);
    if directive.exists() {
        return match directive.str() {
            "replace" => Ok(without(patch, PATCH)),
            "delete" => Ok(Node::Map(Vec::new())),
            _ => Err(unknown_directive(directive, patch)),
        };
    }
    let mut map = original.into_map();
    retain_keys(&mut map, patch)?;
    let ordered = set_element_order(&mut map, patch, meta)?;
    let mut map = Slots::of(map, patch);
    for (name, value) in patch.entries() {
        if name == RETAIN_KEYS || name.starts_with(ORDER_PREFIX) || ordered.contains(&name) {
            continue;
        }
        let (name, deletes) = match name.strip_prefix(DELETE_PREFIX) {
            Some(name) => (name, true),
            None => (name, false),
        };
        merge_entry(&mut map, name, value, deletes, meta)?;
    }
    Ok(Node::Map(map.into_map()))
}

/// A map's entries while a patch changes them: found by name, and never moved.
struct Slots<'a> {
    entries: Vec<(&'a str, Option<Node<'a>>)>,
    /// Where each name stands, of long maps.
    index: Option<Map<&'a str, usize>>,
}

impl<'a> Slots<'a> {
    fn of(map: Vec<(&'a str, Node<'a>)>, patch: Ref<'a>) -> Slots<'a> {
        let long = map.len() > LONG || patch.entries().nth(LONG).is_some();
        let index = long.then(|| map.iter().enumerate().map(|(at, (name, _))| (*name, at)).collect());
        Slots { entries: map.into_iter().map(|(name, node)| (name, Some(node))).collect(), index }
    }

    fn at(&self, name: &str) -> Option<usize> {
        let at = match &self.index {
            Some(index) => index.get(name).copied(),
            None => self.entries.iter().rposition(|(n, _)| *n == name),
        };
        at.filter(|at| self.entries[*at].1.is_some())
    }

    fn push(&mut self, name: &'a str, node: Node<'a>) {
        if let Some(index) = &mut self.index {
            index.insert(name, self.entries.len());
        }
        self.entries.push((name, Some(node)));
    }

    fn into_map(self) -> Vec<(&'a str, Node<'a>)> {
        self.entries.into_iter().filter_map(|(name, node)| Some((name, node?))).collect()
    }
}

/// Where each identity stands first in a list.
#[derive(Default)]
struct Places<'a> {
    texts: Map<&'a str, usize>,
    numbers: Map<i64, usize>,
    /// Fractions, truth values and what cannot be an identity.
    others: Vec<(Ref<'a>, usize)>,
}

impl<'a> Places<'a> {
    fn of(keys: &[Ref<'a>]) -> Places<'a> {
        let mut out = Places::default();
        for (at, key) in keys.iter().enumerate() {
            out.add(*key, at);
        }
        out
    }

    fn add(&mut self, key: Ref<'a>, at: usize) {
        match (key.opt_str(), key.opt_i64()) {
            (Some(text), _) => {
                self.texts.entry(text).or_insert(at);
            }
            (None, Some(number)) => {
                self.numbers.entry(number).or_insert(at);
            }
            (None, None) => self.others.push((key, at)),
        }
    }

    fn get(&self, key: Ref<'_>) -> Option<usize> {
        match (key.opt_str(), key.opt_i64()) {
            (Some(text), _) => self.texts.get(text).copied(),
            (None, Some(number)) => self.numbers.get(&number).copied(),
            (None, None) => self.others.iter().find(|(k, _)| k.same(key)).map(|(_, at)| *at),
        }
    }
}

fn merge_entry<'a>(
    map: &mut Slots<'a>,
    name: &'a str,
    value: Ref<'a>,
    deletes: bool,
    meta: Meta,
) -> Result<(), StrategicError> {
    let at = map.at(name);
    if !value.is_set() {
        if let Some(at) = at {
            map.entries[at].1 = None;
        }
        return Ok(());
    }
    let merged = match at.and_then(|at| map.entries[at].1.as_ref()) {
        Some(old) if old.kind() == value.kind() => match value.kind() {
            Kind::Object => {
                let (ty, field) = meta.entry(name)?;
                if field.is_some_and(Field::patch_replace) {
                    Some(Node::Ref(value))
                } else {
                    Some(merge_map(old.clone(), value, Meta::of(ty))?)
                }
            }
            Kind::Array => {
                let list = meta.list(name)?;
                Some(Node::List(merge_list_field(old.clone().into_list(), value, list, deletes)?))
            }
            _ => Some(Node::Ref(value)),
        },
        // Deleting from a list that is not there, or that is no list, changes nothing.
        _ if deletes => return Ok(()),
        _ => clean(value, true),
    };
    match (at, merged) {
        (Some(at), node) => map.entries[at].1 = node,
        (None, Some(node)) => map.push(name, node),
        (None, None) => {}
    }
    Ok(())
}

/// What of a patch's value becomes part of the object when it merges with nothing: no maps with directives, no nulls.
fn clean(value: Ref<'_>, drop_nulls: bool) -> Option<Node<'_>> {
    match value.kind() {
        Kind::Object if value.get(PATCH).exists() => None,
        Kind::Object => {
            let entries = value.entries().filter(|(_, v)| v.is_set() || !drop_nulls);
            Some(Node::Map(entries.filter_map(|(n, v)| Some((n, clean(v, drop_nulls)?))).collect()))
        }
        Kind::Array => Some(Node::List(value.items().filter_map(|v| clean(v, drop_nulls)).collect())),
        _ => Some(Node::Ref(value)),
    }
}

fn without<'a>(map: Ref<'a>, name: &str) -> Node<'a> {
    Node::Map(map.entries().filter(|(n, _)| *n != name).map(|(n, v)| (n, Node::Ref(v))).collect())
}

/// `$retainKeys`: entries that it does not name go.
fn retain_keys<'a>(map: &mut Vec<(&'a str, Node<'a>)>, patch: Ref<'a>) -> Result<(), StrategicError> {
    let keep = patch.get(RETAIN_KEYS);
    if !keep.exists() {
        return Ok(());
    }
    let kept = |name: &str| keep.items().any(|k| k.opt_str() == Some(name));
    let is_directive =
        |n: &str| n == RETAIN_KEYS || n.starts_with(DELETE_PREFIX) || n.starts_with(ORDER_PREFIX);
    let stray = patch.entries().any(|(n, v)| v.is_set() && !is_directive(n) && !kept(n));
    if !keep.is_array() || stray {
        return Err(StrategicError::RetainKeys);
    }
    map.retain(|(name, _)| kept(name));
    Ok(())
}

/// `$setElementOrder/x`: merges the list it names and orders it. Returns the names that are done with.
fn set_element_order<'a>(
    map: &mut Vec<(&'a str, Node<'a>)>,
    patch: Ref<'a>,
    meta: Meta,
) -> Result<Vec<&'a str>, StrategicError> {
    let mut done = Vec::new();
    for (directive, order) in patch.entries() {
        let Some(name) = directive.strip_prefix(ORDER_PREFIX) else { continue };
        let order = list_of(order)?;
        let (at, new) = (map.iter().position(|(n, _)| *n == name), patch.get(name));
        let old = match at {
            Some(at) if map[at].1.kind() != Kind::Array => {
                return Err(wrong_type(Kind::Array, map[at].1.kind()));
            }
            Some(at) => Some(map[at].1.clone().into_list()),
            None => None,
        };
        let patched = if new.exists() { Some(list_of(new)?) } else { None };
        let list = meta.list(name)?;
        check_order(patched.as_deref().unwrap_or_default(), &order, list.merge_key)?;
        let server = keys(old.as_deref().unwrap_or_default(), list.merge_key)?;
        let merged = match (old, patched) {
            (Some(old), Some(_)) => merge_list_field(old, new, list, false)?,
            (Some(old), None) => old,
            (None, Some(_)) => clean(new, false).map(Node::into_list).unwrap_or_default(),
            (None, None) => continue,
        };
        let sorted = in_order(merged, &keys(&order, list.merge_key)?, &server, list.merge_key)?;
        match at {
            Some(at) => map[at].1 = Node::List(sorted),
            None => map.push((name, Node::List(sorted))),
        }
        done.push(name);
    }
    Ok(done)
}

/// The patch's items must follow the order that `$setElementOrder` gives.
fn check_order(
    patch: &[Node<'_>],
    order: &[Node<'_>],
    merge_key: Option<&'static str>,
) -> Result<(), StrategicError> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut expected = order.iter();
    for item in patch.iter().filter(|i| i.entry(PATCH).is_none()) {
        let identity = item.identity(merge_key)?;
        let found = loop {
            match expected.next() {
                Some(next) if next.identity(merge_key)?.same(identity) => break true,
                Some(_) => {}
                None => break false,
            }
        };
        if !found {
            return Err(StrategicError::OrderMismatch { patch: print_list(patch), order: print_list(order) });
        }
    }
    Ok(())
}

fn merge_list_field<'a>(
    old: Vec<Node<'a>>,
    patch: Ref<'a>,
    list: ListMeta,
    deletes: bool,
) -> Result<Vec<Node<'a>>, StrategicError> {
    let new = list_of(patch)?;
    if !list.merge && !deletes {
        return Ok(new);
    }
    if old.is_empty() && new.is_empty() {
        return Ok(old);
    }
    match element_kind(&old, &new)? {
        Kind::Object => merge_maps(old, new, list),
        _ if deletes => {
            let gone = Places::of(&keys(&new, None)?);
            let stays = |item: &Node<'_>| item.identity(None).is_ok_and(|i| gone.get(i).is_none());
            Ok(old.into_iter().filter(stays).collect())
        }
        _ => {
            let (server, order) = (keys(&old, None)?, keys(&new, None)?);
            let mut merged: Vec<Node<'a>> = Vec::new();
            let mut seen = Places::default();
            for item in old.into_iter().chain(new) {
                let identity = item.identity(None)?;
                if seen.get(identity).is_none() {
                    seen.add(identity, merged.len());
                    merged.push(item);
                }
            }
            in_order(merged, &order, &server, None)
        }
    }
}

fn merge_maps<'a>(
    mut old: Vec<Node<'a>>,
    new: Vec<Node<'a>>,
    list: ListMeta,
) -> Result<Vec<Node<'a>>, StrategicError> {
    let Some(merge_key) = list.merge_key else { return Err(StrategicError::ListWithoutKey) };
    let (mut plain, mut replace) = (Vec::new(), false);
    for item in new {
        let Node::Ref(map) = item else { continue };
        let directive = map.get(PATCH);
        match directive.str() {
            _ if !directive.exists() => plain.push(map),
            "delete" => {
                let gone = Node::Ref(map).identity(Some(merge_key))?;
                old.retain(|i| i.entry(merge_key).is_none_or(|k| !k.same(gone)));
            }
            "replace" => replace = true,
            "merge" => return Err(StrategicError::MergeDirectiveInList),
            _ => return Err(unknown_directive(directive, map)),
        }
    }
    if replace {
        return Ok(plain.into_iter().map(Node::Ref).collect());
    }
    let server = keys(&old, Some(merge_key))?;
    let mut order = Vec::new();
    let mut places = Places::of(&server);
    for item in plain {
        let identity = Node::Ref(item).identity(Some(merge_key))?;
        order.push(identity);
        match places.get(identity) {
            Some(at) => old[at] = merge_map(old[at].clone(), item, list.item)?,
            None => {
                places.add(identity, old.len());
                old.push(Node::Ref(item));
            }
        }
    }
    in_order(old, &order, &server, Some(merge_key))
}

/// Items that `order` names stand in its order, the others in the server's; where both sides meet, the server's order
/// decides if it knows both, else the patch's items come first.
fn in_order<'a>(
    items: Vec<Node<'a>>,
    order: &[Ref<'a>],
    server: &[Ref<'a>],
    merge_key: Option<&'static str>,
) -> Result<Vec<Node<'a>>, StrategicError> {
    let (order, server) = (Places::of(order), Places::of(server));
    let (mut patched, mut kept) = (Vec::new(), Vec::new());
    for item in items {
        let key = item.identity(merge_key)?;
        match order.get(key) {
            Some(at) => patched.push((at, key, item)),
            None => kept.push((server.get(key).unwrap_or(usize::MAX), key, item)),
        }
    }
    patched.sort_by_key(|(at, ..)| *at);
    kept.sort_by_key(|(at, ..)| *at);
    let mut out = Vec::with_capacity(patched.len() + kept.len());
    let (mut patched, mut kept) = (patched.into_iter().peekable(), kept.into_iter().peekable());
    loop {
        let kept_first = match (kept.peek(), patched.peek()) {
            (None, None) => return Ok(out),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some((at, ..)), Some((_, key, _))) => server.get(*key).is_some_and(|other| *at < other),
        };
        out.extend(if kept_first { kept.next() } else { patched.next() }.map(|(.., item)| item));
    }
}

fn keys<'a>(items: &[Node<'a>], merge_key: Option<&'static str>) -> Result<Vec<Ref<'a>>, StrategicError> {
    items.iter().map(|i| i.identity(merge_key)).collect()
}

fn list_of(value: Ref<'_>) -> Result<Vec<Node<'_>>, StrategicError> {
    if value.is_array() {
        Ok(value.items().map(Node::Ref).collect())
    } else {
        Err(wrong_type(Kind::Array, value.kind()))
    }
}

/// All items are of one kind, and none is a list.
fn element_kind(old: &[Node<'_>], new: &[Node<'_>]) -> Result<Kind, StrategicError> {
    let mut kinds = old.iter().chain(new).map(Node::kind);
    let first = kinds.next().unwrap_or(Kind::Null);
    if first == Kind::Array {
        return Err(StrategicError::ListOfLists);
    }
    if kinds.any(|k| k != first) {
        return Err(StrategicError::MixedList {
            lists: format!("[{} {}]", print_list(old), print_list(new)),
        });
    }
    Ok(first)
}

fn type_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Null => "<nil>",
        Kind::Bool => "bool",
        Kind::Number => "int64",
        Kind::String => "string",
        Kind::Array => "[]interface {}",
        Kind::Object => "map[string]interface {}",
    }
}

fn wrong_type(expected: Kind, found: Kind) -> StrategicError {
    StrategicError::WrongType { expected: type_name(expected), found: type_name(found) }
}

fn no_merge_key(map: &Node<'_>, key: &'static str) -> StrategicError {
    StrategicError::NoMergeKey { map: print(map), key }
}

fn unknown_directive(directive: Ref<'_>, map: Ref<'_>) -> StrategicError {
    StrategicError::UnknownDirective { directive: print(&Node::Ref(directive)), map: print(&Node::Ref(map)) }
}

/// As Go prints values: `map[a:1 b:[2 3]]`, maps by key.
fn print(node: &Node<'_>) -> String {
    match node.kind() {
        Kind::Object => {
            let mut entries = node.clone().into_map();
            entries.sort_by_key(|(name, _)| *name);
            let entries: Vec<String> = entries.iter().map(|(n, v)| format!("{n}:{}", print(v))).collect();
            format!("map[{}]", entries.join(" "))
        }
        Kind::Array => print_list(&node.clone().into_list()),
        Kind::Null => "<nil>".to_owned(),
        _ => match node {
            Node::Ref(r) => r.opt_str().or(r.number()).map_or_else(|| r.bool().to_string(), str::to_owned),
            _ => String::new(),
        },
    }
}

fn print_list(items: &[Node<'_>]) -> String {
    format!("[{}]", items.iter().map(print).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::json;

    fn patched(kind: (&str, &str, &str), original: &str, patch: &str) -> Result<String, String> {
        let parse = |text: &str| json::parse(text).expect("test JSON").doc;
        let ty = schema::kind(kind.0, kind.1, kind.2).expect("a known kind");
        let merged = apply(parse(original).root(), parse(patch).root(), ty).map_err(|e| e.to_string())?;
        Ok(String::from_utf8(merged.to_json()).expect("JSON is UTF-8"))
    }

    fn pod_spec(original: &str, patch: &str) -> Result<String, String> {
        let wrap = |text: &str| format!(r#"{{"spec":{text}}}"#);
        let out = patched(("", "v1", "Pod"), &wrap(original), &wrap(patch))?;
        let inner = out.strip_prefix(r#"{"spec":"#).and_then(|s| s.strip_suffix('}'));
        Ok(inner.expect("a spec alone").to_owned())
    }

    #[test]
    fn lists_merge_by_their_keys() {
        let cases = [
            // Items merge by name; new ones come first, as upstream orders them.
            (
                r#"{"containers":[{"name":"a","image":"1"}]}"#,
                r#"{"containers":[{"name":"a","image":"2"},{"name":"b"}]}"#,
                r#"{"containers":[{"name":"a","image":"2"},{"name":"b"}]}"#,
            ),
            (
                r#"{"containers":[{"name":"a"}]}"#,
                r#"{"containers":[{"name":"b"}]}"#,
                r#"{"containers":[{"name":"b"},{"name":"a"}]}"#,
            ),
            (
                r#"{"containers":[{"name":"a"},{"name":"b"}]}"#,
                r#"{"containers":[{"name":"a","$patch":"delete"}]}"#,
                r#"{"containers":[{"name":"b"}]}"#,
            ),
            (
                r#"{"containers":[{"name":"a"},{"name":"b"}]}"#,
                r#"{"containers":[{"$patch":"replace"},{"name":"c"}]}"#,
                r#"{"containers":[{"name":"c"}]}"#,
            ),
            (
                r#"{"containers":[{"name":"a"},{"name":"b"}]}"#,
                r#"{"$setElementOrder/containers":[{"name":"b"},{"name":"a"}],"containers":[{"name":"b","image":"2"}]}"#,
                r#"{"containers":[{"name":"b","image":"2"},{"name":"a"}]}"#,
            ),
            (
                r#"{"containers":[{"name":"a"},{"name":"b"}]}"#,
                r#"{"$setElementOrder/containers":[{"name":"b"},{"name":"c"}],"containers":[{"name":"c"}]}"#,
                r#"{"containers":[{"name":"a"},{"name":"b"},{"name":"c"}]}"#,
            ),
            // Lists without a strategy are replaced.
            (
                r#"{"tolerations":[{"key":"a"}]}"#,
                r#"{"tolerations":[{"key":"b"}]}"#,
                r#"{"tolerations":[{"key":"b"}]}"#,
            ),
            (
                r#"{"volumes":[{"name":"a","emptyDir":{}}]}"#,
                r#"{"volumes":[{"name":"a","$retainKeys":["name","hostPath"],"hostPath":{"path":"/"}}]}"#,
                r#"{"volumes":[{"name":"a","hostPath":{"path":"/"}}]}"#,
            ),
            (
                r#"{"nodeName":"n","hostNetwork":true}"#,
                r#"{"nodeName":null,"subdomain":null,"securityContext":{"runAsUser":null,"runAsGroup":1}}"#,
                r#"{"hostNetwork":true,"securityContext":{"runAsGroup":1}}"#,
            ),
            (
                r#"{"securityContext":{"runAsUser":1}}"#,
                r#"{"securityContext":{"$patch":"replace","runAsGroup":1}}"#,
                r#"{"securityContext":{"runAsGroup":1}}"#,
            ),
            (
                r#"{"securityContext":{"runAsUser":1}}"#,
                r#"{"securityContext":{"$patch":"delete"}}"#,
                r#"{"securityContext":{}}"#,
            ),
        ];
        for (original, patch, want) in cases {
            assert_eq!(pod_spec(original, patch).as_deref(), Ok(want), "{original} + {patch}");
        }
    }

    #[test]
    fn primitive_lists_merge_and_delete() {
        let meta = |text: &str| format!(r#"{{"metadata":{text}}}"#);
        let cases = [
            (r#"{"finalizers":["a","b"]}"#, r#"{"finalizers":["c","a"]}"#, r#"{"finalizers":["c","a","b"]}"#),
            (
                r#"{"finalizers":["a","b"]}"#,
                r#"{"$deleteFromPrimitiveList/finalizers":["a"]}"#,
                r#"{"finalizers":["b"]}"#,
            ),
            (
                r#"{"finalizers":["a","b"]}"#,
                r#"{"$deleteFromPrimitiveList/finalizers":["a"],"$setElementOrder/finalizers":["c","b"],"finalizers":["c"]}"#,
                r#"{"finalizers":["c","b"]}"#,
            ),
            (
                r#"{"labels":{"a":"1","b":"2"}}"#,
                r#"{"labels":{"a":null,"c":"3"}}"#,
                r#"{"labels":{"b":"2","c":"3"}}"#,
            ),
        ];
        for (original, patch, want) in cases {
            assert_eq!(
                patched(("", "v1", "Node"), &meta(original), &meta(patch)),
                Ok(meta(want)),
                "{original} + {patch}"
            );
        }
    }

    #[test]
    fn what_cannot_be_merged_is_refused_as_upstream_words_it() {
        let cases = [
            (
                r#"{"containers":[{"name":"a"}]}"#,
                r#"{"containers":[{"image":"x"}]}"#,
                "map: map[image:x] does not contain declared merge key: name",
            ),
            (
                r#"{"containers":[{"name":"a"}]}"#,
                r#"{"containers":[{"name":"a","$patch":"x"}]}"#,
                "unknown patch type: x in map: map[$patch:x name:a]",
            ),
            (
                r#"{"containers":[{"name":"a"}]}"#,
                r#"{"containers":["a"]}"#,
                "list element types are not identical: [[map[name:a]] [a]]",
            ),
            (
                r#"{"containers":[{"name":"a"}]}"#,
                r#"{"$setElementOrder/containers":"a"}"#,
                "expected a []interface {}, but received a string",
            ),
            (
                r#"{"containers":[{"name":"a"}]}"#,
                r#"{"$retainKeys":["volumes"],"nodeName":"a"}"#,
                "invalid patch format of retainKeys",
            ),
            (
                r#"{"foo":{}}"#,
                r#"{"foo":{"a":1}}"#,
                "unable to find api field in struct PodSpec for the json field \"foo\"",
            ),
        ];
        for (original, patch, want) in cases {
            assert_eq!(pod_spec(original, patch), Err(want.to_owned()), "{original} + {patch}");
        }
    }
}
