//! YAML, as kubectl and the API server take it: one document, read as JSON's data model. Source: YAML 1.2, with the
//! 1.1 truth values (`yes`, `on`), octal numbers (`0644`) and merge keys that Go's reader takes.
//!
//! The text is read into JSON first, so that limits on depth, repeated names and their report are those of
//! [`super::json`].

use std::fmt;

use serde_saphyr::options::DuplicateKeyPolicy;

use super::json::{self, JsonError, Parsed};
use crate::doc::{Kind, Ref};

/// The media type of YAML, as the API server takes and gives it.
pub const MEDIA_TYPE: &str = "application/yaml";
/// The longest YAML text, in bytes: 3 MiB, as the API server's bodies.
pub const TEXT_BYTES_MAX: usize = 3 << 20;
/// How many values one text may hold.
const NODES_MAX: usize = 500_000;
/// How many values aliases may repeat.
const REPEATED_MAX: usize = 50_000;
/// How much JSON one text may become through its aliases, in bytes.
const JSON_BYTES_MAX: usize = 16 << 20;

/// Why text is no document.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum YamlError {
    /// Not YAML, or beyond the limits.
    #[error("error converting YAML to JSON: yaml: {0}")]
    Syntax(String),
    /// What it stands for is no document.
    #[error(transparent)]
    Json(#[from] JsonError),
}

/// Reads one YAML document.
///
/// # Errors
/// [`YamlError`] when the text is not YAML, has several documents, or is beyond the limits.
pub fn parse(text: &[u8]) -> Result<Parsed, YamlError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(JsonError::TooLarge.into());
    }
    let text = std::str::from_utf8(text)
        .map_err(|_| YamlError::Syntax("control characters are not allowed".into()))?;
    // The reader recurses, and takes kilobytes for each level.
    let Json(out) = base::task::deep(|| read(text))?;
    Ok(json::parse(out)?)
}

fn read(text: &str) -> Result<Json, YamlError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: json::DEPTH_MAX, max_nodes: NODES_MAX, max_documents: 1 },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: REPEATED_MAX },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        legacy_octal_numbers: true,
    };
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|e| YamlError::Syntax(first_line(&e.to_string())))
}

fn first_line(words: &str) -> String {
    words.lines().next().unwrap_or_default().to_owned()
}

/// JSON text made from any value that a serde reader offers.
struct Json(Vec<u8>);

impl<'de> serde::Deserialize<'de> for Json {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut out = Vec::new();
        serde::de::DeserializeSeed::deserialize(Writer { out: &mut out, key: false }, deserializer)?;
        Ok(Json(out))
    }
}

struct Writer<'w> {
    out: &'w mut Vec<u8>,
    /// A map's key: written as a string whatever it is.
    key: bool,
}

impl Writer<'_> {
    fn plain<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        if self.out.len() + text.len() > JSON_BYTES_MAX {
            return Err(E::custom("document contains excessive aliasing"));
        }
        if self.key {
            json::write_string(text, self.out);
        } else {
            self.out.extend_from_slice(text.as_bytes());
        }
        Ok(())
    }
}

impl<'de> serde::de::DeserializeSeed<'de> for Writer<'_> {
    type Value = ();
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> serde::de::Visitor<'de> for Writer<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON can say")
    }
    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.plain("null")
    }
    fn visit_none<E: serde::de::Error>(self) -> Result<(), E> {
        self.plain("null")
    }
    fn visit_bool<E: serde::de::Error>(self, v: bool) -> Result<(), E> {
        self.plain(if v { "true" } else { "false" })
    }
    fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<(), E> {
        self.plain(&v.to_string())
    }
    fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<(), E> {
        self.plain(&v.to_string())
    }
    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<(), E> {
        if v.fract() == 0.0 && v.abs() < 1e15 {
            return self.plain(&(v as i64).to_string());
        }
        match serde_json::Number::from_f64(v) {
            Some(number) => self.plain(&number.to_string()),
            None => Err(E::custom("json: unsupported value")),
        }
    }
    fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<(), E> {
        if self.out.len() + v.len() > JSON_BYTES_MAX {
            return Err(E::custom("document contains excessive aliasing"));
        }
        json::write_string(v, self.out);
        Ok(())
    }
    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        if self.key {
            return Err(serde::de::Error::custom("invalid map key"));
        }
        self.out.push(b'[');
        loop {
            let start = self.out.len();
            if start > 0 && self.out[start - 1] != b'[' {
                self.out.push(b',');
            }
            if items.next_element_seed(Writer { out: self.out, key: false })?.is_none() {
                self.out.truncate(start);
                break;
            }
        }
        self.out.push(b']');
        Ok(())
    }
    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        if self.key {
            return Err(serde::de::Error::custom("invalid map key"));
        }
        self.out.push(b'{');
        loop {
            let start = self.out.len();
            if self.out[start - 1] != b'{' {
                self.out.push(b',');
            }
            if entries.next_key_seed(Writer { out: self.out, key: true })?.is_none() {
                self.out.truncate(start);
                break;
            }
            self.out.push(b':');
            entries.next_value_seed(Writer { out: self.out, key: false })?;
        }
        self.out.push(b'}');
        Ok(())
    }
}

/// A value as one YAML document, as upstream's answers are: names sorted, lists at the column of their name.
pub fn write(value: Ref<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    block(value, 0, &mut out);
    out
}

fn pad(column: usize, out: &mut Vec<u8>) {
    out.extend(std::iter::repeat_n(b' ', column));
}

/// Writes `value` from here on, where `column` is that of the lines that follow.
fn block(value: Ref<'_>, column: usize, out: &mut Vec<u8>) {
    match value.kind() {
        Kind::Object if !value.is_empty() => {
            let mut entries: Vec<_> = value.entries().collect();
            entries.sort_by_key(|(name, _)| *name);
            for (i, (name, item)) in entries.into_iter().enumerate() {
                if i > 0 {
                    pad(column, out);
                }
                text(name, None, out);
                out.push(b':');
                let inner = column + if item.is_array() { 0 } else { 2 };
                if item.is_empty() || !(item.is_array() || item.is_object()) {
                    out.push(b' ');
                } else {
                    out.push(b'\n');
                    pad(inner, out);
                }
                block(item, inner, out);
            }
        }
        Kind::Array if !value.is_empty() => {
            for (i, item) in value.items().enumerate() {
                if i > 0 {
                    pad(column, out);
                }
                out.extend_from_slice(b"- ");
                block(item, column + 2, out);
            }
        }
        Kind::String => {
            text(value.str(), Some(column), out);
            out.push(b'\n');
        }
        _ => {
            json::write(value, out);
            out.push(b'\n');
        }
    }
}

/// Writes a string: bare where it reads back as itself, lines as lines where they may stand at `column`, else as JSON.
fn text(s: &str, column: Option<usize>, out: &mut Vec<u8>) {
    let printable =
        |c: char| c == '\n' || !(c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}'));
    if is_bare(s) && s.chars().all(printable) {
        return out.extend_from_slice(s.as_bytes());
    }
    let lines = s.contains('\n') && !s.starts_with([' ', '\n']) && s.chars().all(printable);
    let Some(column) = column.filter(|_| lines) else {
        json::write_string(s, out);
        return;
    };
    let body = s.trim_end_matches('\n');
    out.extend_from_slice(match s.len() - body.len() {
        0 => b"|-",
        1 => b"|",
        _ => b"|+",
    });
    for line in s.strip_suffix('\n').unwrap_or(s).split('\n') {
        out.push(b'\n');
        if !line.is_empty() {
            pad(column, out);
            out.extend_from_slice(line.as_bytes());
        }
    }
}

/// Whether a string needs no quotes: no sign of YAML's own in it, and no other type's value.
fn is_bare(s: &str) -> bool {
    let first = s.chars().next().unwrap_or(' ');
    if !(first.is_alphanumeric() || "/._($<-+".contains(first)) || s.ends_with([' ', ':']) {
        return false;
    }
    if s.contains(['\n'])
        || s.contains(": ")
        || s.contains(" #")
        || s.starts_with("- ")
        || matches!(s, "-" | "---")
    {
        return false;
    }
    let words = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "<<"];
    if words.iter().any(|word| s.eq_ignore_ascii_case(word)) {
        return false;
    }
    !is_number(s)
}

/// Whether bare text would be a number, in any of YAML's ways to write one, or a date.
fn is_number(s: &str) -> bool {
    let digits = s.trim_start_matches(['-', '+']);
    let sixty = digits.contains(':') && digits.chars().all(|c| c.is_ascii_digit() || ":.".contains(c));
    let date =
        digits.get(..5).is_some_and(|d| d.ends_with('-') && d[..4].bytes().all(|c| c.is_ascii_digit()));
    let based = ["0x", "0o", "0b"].iter().any(|base| digits.starts_with(base));
    sixty
        || date
        || based
        || s.replace('_', "").trim_start_matches('.').parse::<f64>().is_ok()
        || digits.replace('_', "").parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Result<String, YamlError> {
        parse(text.as_bytes()).map(|p| String::from_utf8(p.doc.to_json()).expect("UTF-8"))
    }

    #[test]
    fn reads_as_gos_reader() {
        let cases = [
            ("a: 1\nb: [x, 2.5, true, ~, 'no', 1.0]\n", r#"{"a":1,"b":["x",2.5,true,null,"no",1]}"#),
            ("mode: 0644\nyes: on\n", r#"{"mode":420,"true":true}"#),
            ("1: a\ntrue: b\n", r#"{"1":"a","true":"b"}"#),
            ("a: |\n  x\n  y\nb: >-\n  c\n  d\n", r#"{"a":"x\ny\n","b":"c d"}"#),
            ("base: &b {x: 1}\nc:\n  <<: *b\n  z: 2\n", r#"{"base":{"x":1},"c":{"z":2,"x":1}}"#),
            ("{\"a\": [{}, []]}", r#"{"a":[{},[]]}"#),
            (
                "a: 10Gi\nb: 2026-01-01T00:00:00Z\nc: \"1\"\nd: 1e3\n",
                r#"{"a":"10Gi","b":"2026-01-01T00:00:00Z","c":"1","d":1000}"#,
            ),
            ("---\na: b\n", r#"{"a":"b"}"#),
            ("a: -5\nb: 9007199254740993\nc:\n", r#"{"a":-5,"b":9007199254740993,"c":null}"#),
        ];
        for (text, expected) in cases {
            assert_eq!(json(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn repeated_names_are_reported_and_the_last_wins() {
        let parsed = parse(b"spec:\n  a: 1\n  a: 2\n").expect("YAML");
        assert_eq!(parsed.duplicates, ["spec.a"]);
        assert_eq!(parsed.doc.to_json(), br#"{"spec":{"a":2}}"#);
    }

    #[test]
    fn bombs_and_broken_text_are_refused() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..9 {
            bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(",")));
        }
        assert!(json(&bomb).is_err());
        assert!(json(&"[".repeat(5000)).is_err());
        assert!(json("a: b: c\n").is_err());
        assert!(json("a: b\n---\nc: d\n").is_err());
    }

    #[test]
    fn what_is_written_is_sorted_and_reads_back_the_same() {
        let doc = crate::doc!({ "spec": { "b": [], "a": {}, "list": [{ "y": 1, "x": "1" }, ["z"], null] }, "kind": "Pod",
            "metadata": { "name": "10.0.0.1", "uid": "9c442a5c-3c97", "labels": { "yes": "true", "a/b": "2024-01-01", "c": "1e3", "d": "0x1f" } },
            "data": { "script": "#!/bin/sh\n  echo 'a: b'\n\n", "one": "a\nb", "colon": "a: b", "plain": "it's (fine), really",
                "tab": "a\tb", "space": " x", "dash": "- x", "empty": "", "bell": "\u{7}", "time": "12:30:45" } });
        let text = write(doc.root());
        let shown = String::from_utf8(text.clone()).expect("text");
        assert!(parse(&text).expect("YAML").doc == doc, "{shown}");
        for line in [
            "  one: |-\n    a\n    b\n",
            "  plain: it's (fine), really\n",
            "  name: 10.0.0.1\n",
            "  a: {}\n",
            "  - x: \"1\"\n    \"y\": 1\n",
            "  uid: 9c442a5c-3c97\n",
            "kind: Pod\n",
        ] {
            assert!(shown.contains(line), "{line} in {shown}");
        }
        assert!(shown.starts_with("data:\n  bell: "));
    }
}
