//! The resource version within stored JSON: storage does not have it, clients must.
//!
//! Works on bytes that the generic store wrote: `{"kind":…,"apiVersion":…,"metadata":{…`, in which the first fields
//! of `metadata` are names, so that nothing needs parsing.

use std::sync::LazyLock;

use bytes::Bytes;
use memchr::memmem::Finder;

const METADATA: &[u8] = b"\"metadata\":{";
static FIND_METADATA: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(METADATA));
const FIELD: &[u8] = b"\"resourceVersion\":\"";
/// The fields that stand before `resourceVersion`, as upstream writes them.
const BEFORE: [&[u8]; 5] =
    [b"\"name\":\"", b"\"generateName\":\"", b"\"namespace\":\"", b"\"selfLink\":\"", b"\"uid\":\""];

/// Behind the quote that ends the string in which `at` lies: names of some kinds may hold quotes, which are escaped.
fn string_end(json: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr::memchr2(b'"', b'\\', json.get(at..)?)?;
        if json[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Where `resourceVersion` stands or belongs within `metadata`, and whether something stands before it.
fn place(json: &[u8]) -> Option<(usize, bool)> {
    if !json.starts_with(b"{") || !json.trim_ascii_end().ends_with(b"}") {
        return None;
    }
    let mut at = FIND_METADATA.find(json)? + METADATA.len();
    let mut after = false;
    for field in BEFORE {
        if json[at..].starts_with(field) {
            let end = string_end(json, at + field.len())?;
            after = true;
            if json.get(end) != Some(&b',') {
                return Some((end, after));
            }
            at = end + 1;
        }
    }
    Some((at, after))
}

/// The same text with `revision` as its resource version, in place of another if it had one. `None` for what the
/// generic store cannot have written: no object, or one without metadata.
pub fn with_revision(json: &[u8], revision: u64) -> Option<Bytes> {
    let (at, after) = place(json)?;
    let number = revision.to_string();
    if json[at..].starts_with(FIELD) {
        let value = at + FIELD.len();
        let end = memchr::memchr(b'"', &json[value..]).map_or(json.len(), |n| value + n);
        return Some([&json[..value], number.as_bytes(), &json[end..]].concat().into());
    }
    // At the end of metadata the comma comes before, else after. No byte is allocated in vain: this is kept for long.
    let last = json.get(at) == Some(&b'}');
    let before: &[u8] = if last && after { b"," } else { b"" };
    let behind: &[u8] = if last { b"\"" } else { b"\"," };
    Some([&json[..at], before, FIELD, number.as_bytes(), behind, &json[at..]].concat().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_is_inserted_and_replaced() {
        let cases = [
            (
                r#"{"kind":"A","apiVersion":"v1","metadata":{"name":"a","uid":"u","labels":{}},"spec":{}}"#,
                r#"{"kind":"A","apiVersion":"v1","metadata":{"name":"a","uid":"u","resourceVersion":"7","labels":{}},"spec":{}}"#,
            ),
            (r#"{"metadata":{"name":"a"}}"#, r#"{"metadata":{"name":"a","resourceVersion":"7"}}"#),
            (
                r#"{"metadata":{"name":"\\","generateName":"a\"b\\\"","uid":"u"}}"#,
                r#"{"metadata":{"name":"\\","generateName":"a\"b\\\"","uid":"u","resourceVersion":"7"}}"#,
            ),
            (r#"{"metadata":{}}"#, r#"{"metadata":{"resourceVersion":"7"}}"#),
            (
                r#"{"metadata":{"labels":{"a":"b"}}}"#,
                r#"{"metadata":{"resourceVersion":"7","labels":{"a":"b"}}}"#,
            ),
        ];
        for (before, after) in cases {
            let set = |json: &[u8], revision| with_revision(json, revision).expect("an object");
            assert_eq!(String::from_utf8_lossy(&set(before.as_bytes(), 7)), after);
            assert_eq!(String::from_utf8_lossy(&set(&set(before.as_bytes(), 123_456), 7)), after);
        }
        for broken in ["", "k8s\0\"metadata\":{}", "{\"metadata\":{", "{\"data\":{}}"] {
            assert_eq!(with_revision(broken.as_bytes(), 7), None, "{broken}");
        }
    }
}
