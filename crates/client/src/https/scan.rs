//! Finds objects in JSON text without making documents of them: a list's items and a frame's object are cut out as bytes.
//!
//! The text comes from an API server, so it is taken for valid JSON; whatever is not where it should be makes the scan
//! give up, never panic.

use apimachinery::call::{List, Stored};
use apimachinery::codec::json;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

/// The entries of the object that starts at `at`: name and value as ranges.
pub struct Fields<'a> {
    text: &'a [u8],
    at: usize,
}

/// The fields of the object at the beginning of `text`.
pub fn fields(text: &[u8]) -> Option<Fields<'_>> {
    let at = space(text, 0);
    (text.get(at) == Some(&b'{')).then_some(Fields { text, at: at + 1 })
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], Range<usize>);
    fn next(&mut self) -> Option<Self::Item> {
        let name_at = space(self.text, self.at);
        if self.text.get(name_at) != Some(&b'"') {
            return None;
        }
        let name_end = value_end(self.text, name_at)?;
        let colon = space(self.text, name_end);
        if self.text.get(colon) != Some(&b':') {
            return None;
        }
        let start = space(self.text, colon + 1);
        let end = value_end(self.text, start)?;
        self.at = comma(self.text, end);
        Some((&self.text[name_at + 1..name_end - 1], start..end))
    }
}

/// The items of the list that `text` is.
pub fn items(text: &[u8]) -> Vec<Range<usize>> {
    let mut out = Vec::new();
    if text.first() != Some(&b'[') {
        return out;
    }
    let mut at = space(text, 1);
    while at < text.len() && text[at] != b']' {
        let Some(end) = value_end(text, at) else { break };
        out.push(at..end);
        at = space(text, comma(text, end));
    }
    out
}

/// An object as the cacher would hold it.
pub fn stored(text: Bytes) -> Option<Stored> {
    let metadata = fields(&text)?.find(|(name, _)| *name == b"metadata")?.1;
    let (mut namespace, mut name, mut revision) = (String::new(), String::new(), 0);
    for (field, value) in fields(&text[metadata.clone()])? {
        let value = &text[metadata.start + value.start..metadata.start + value.end];
        match field {
            b"name" => name = string(value)?,
            b"namespace" => namespace = string(value)?,
            b"resourceVersion" => revision = string(value)?.parse().ok()?,
            _ => {}
        }
    }
    Some(Stored::new(text, revision, &namespace, &name))
}

/// A list, each item with the `apiVersion` and `kind` that lists leave out.
pub fn list(text: &[u8]) -> Option<List> {
    let mut out = List {
        api_version: String::new(),
        kind: String::new(),
        revision: 0,
        continue_: String::new(),
        remaining: None,
        items: Vec::new(),
        warnings: Vec::new(),
    };
    let mut all = &text[..0];
    for (field, value) in fields(text)? {
        let value = &text[value];
        match field {
            b"apiVersion" => out.api_version = string(value)?,
            b"kind" => out.kind = string(value)?,
            b"items" => all = value,
            b"metadata" => {
                for (field, at) in fields(value)? {
                    match field {
                        b"resourceVersion" => out.revision = string(&value[at])?.parse().ok()?,
                        b"continue" => out.continue_ = string(&value[at])?,
                        b"remainingItemCount" => {
                            out.remaining = std::str::from_utf8(&value[at]).ok()?.parse().ok()
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let head = type_meta(&out.api_version, out.kind.strip_suffix("List")?);
    for range in items(all) {
        out.items.push(Arc::new(stored(with_type_meta(&head, &all[range])?)?));
    }
    Some(out)
}

fn type_meta(api_version: &str, kind: &str) -> Vec<u8> {
    let mut head = br#"{"kind":"#.to_vec();
    json::write_string(kind, &mut head);
    head.extend_from_slice(br#","apiVersion":"#);
    json::write_string(api_version, &mut head);
    head
}

/// A copy, so that one item kept does not keep the whole list's bytes.
fn with_type_meta(head: &[u8], item: &[u8]) -> Option<Bytes> {
    let mut fields = fields(item)?.peekable();
    let empty = fields.peek().is_none();
    if fields.any(|(name, _)| name == b"kind") {
        return Some(Bytes::copy_from_slice(item));
    }
    let mut out = Vec::with_capacity(head.len() + item.len());
    out.extend_from_slice(head);
    if !empty {
        out.push(b',');
    }
    out.extend_from_slice(&item[1..]);
    Some(out.into())
}

/// The string that `text` is.
pub fn string(text: &[u8]) -> Option<String> {
    let inner = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if inner.contains(&b'\\') {
        return json::parse(text.to_vec()).ok()?.doc.root().opt_str().map(str::to_owned);
    }
    String::from_utf8(inner.to_vec()).ok()
}

fn space(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

fn comma(text: &[u8], at: usize) -> usize {
    let at = space(text, at);
    if text.get(at) == Some(&b',') { at + 1 } else { at }
}

/// One past the value that starts at `at`.
fn value_end(text: &[u8], at: usize) -> Option<usize> {
    match text.get(at)? {
        b'"' => string_end(text, at),
        b'{' | b'[' => {
            let (mut depth, mut at) = (0usize, at);
            loop {
                match text.get(at)? {
                    b'"' => at = string_end(text, at)? - 1,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
        _ => {
            let len = text[at..].iter().position(|c| b",]} \n\r\t".contains(c)).unwrap_or(text.len() - at);
            (len > 0).then_some(at + len)
        }
    }
}

fn string_end(text: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_cut_into_items_with_their_type() {
        let text = br#" {"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7","continue":"x"},
            "items":[{"metadata":{"name":"a","namespace":"n","resourceVersion":"3","labels":{"name":"]}\"x"}},"spec":{"a":[1,{}]}},
                     {}, {"kind":"Pod","metadata":{"name":"b"}}] }"#;
        assert!(list(text).is_none(), "an item without metadata is no object");
        let text = String::from_utf8(text.to_vec()).expect("text").replace("{}, {\"kind\"", "{\"kind\"");
        let list = list(text.as_bytes()).expect("a list");
        assert_eq!((list.revision, list.continue_.as_str(), list.items.len()), (7, "x", 2));
        let first = &list.items[0];
        assert_eq!((first.name(), first.namespace(), first.revision), ("a", "n", 3));
        assert_eq!(first.doc().root().find("metadata.labels.name").str(), "]}\"x");
        assert_eq!((first.doc().get("kind").str(), list.items[1].name()), ("Pod", "b"));
    }

    #[test]
    fn broken_text_is_no_object() {
        for text in
            ["", "{", "{\"metadata\":", "[]", "{\"metadata\":{\"name\":\"a}", "{\"metadata\":\"\\", "nul"]
        {
            assert!(stored(Bytes::copy_from_slice(text.as_bytes())).is_none(), "{text}");
        }
    }
}
