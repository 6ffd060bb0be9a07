//! JSON. Source: RFC 8259. Untrusted input is bounded in depth and size; a repeated name keeps its last value,
//! as Go's decoder does, and is reported.

use crate::doc::{
    Builder, Doc, Kind, Ref, TAG_ARRAY, TAG_CLEAN, TAG_FALSE, TAG_NULL, TAG_NUMBER, TAG_OBJECT, TAG_STRING,
    TAG_TRUE, TEXT_BYTES_MAX,
};

/// How deep lists and objects may lie in each other.
pub const DEPTH_MAX: usize = 512;
/// How many repeated names are reported.
const DUPLICATES_MAX: usize = 64;
/// Objects with more entries than this look for repeated names in a set.
const SCAN_MAX: usize = 24;

/// A document and what strict decoding has to say of its text.
#[derive(Debug)]
pub struct Parsed {
    /// The document.
    pub doc: Doc,
    /// Paths (`spec.containers[0].name`) of names that an object repeats, in the order met.
    pub duplicates: Vec<String>,
}

/// Why text is no document.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JsonError {
    /// Not JSON.
    #[error("{what} at offset {offset}")]
    Syntax {
        /// What was wrong, in the words of Go's decoder where clients know them.
        what: String,
        /// Where, in bytes.
        offset: usize,
    },
    /// Lists and objects nested deeper than [`DEPTH_MAX`].
    #[error("exceeded max depth")]
    TooDeep,
    /// More text than a document holds.
    #[error("document is too large")]
    TooLarge,
}

/// Reads one JSON value; white space may stand around it, nothing else.
///
/// # Errors
/// [`JsonError`] when the text is not JSON or beyond the limits.
pub fn parse(text: impl Into<Vec<u8>>) -> Result<Parsed, JsonError> {
    let text = text.into();
    // Escaped strings are decoded into the same buffer, which can at most double it.
    if text.len() > TEXT_BYTES_MAX / 2 {
        return Err(JsonError::TooLarge);
    }
    let text = String::from_utf8(text).map_err(|err| {
        let offset = err.utf8_error().valid_up_to();
        JsonError::Syntax { what: "invalid UTF-8".into(), offset }
    })?;
    let (end, plain) = (text.len(), first(text.as_bytes(), |c| c < 0x20).is_none());
    let mut p = Parser { b: Builder::new(text), at: 0, end, plain, path: Vec::new(), duplicates: Vec::new() };
    p.space();
    p.value(Builder::NO_KEY, 0)?;
    p.space();
    if p.at != p.end {
        return Err(p.unexpected("after top-level value"));
    }
    Ok(Parsed { doc: p.b.finish(), duplicates: p.duplicates })
}

enum Step {
    Name(u32),
    Index(usize),
}

struct Parser {
    b: Builder,
    at: usize,
    end: usize,
    /// There is no control character anywhere, which no string may hold.
    plain: bool,
    path: Vec<Step>,
    duplicates: Vec<String>,
}

impl Parser {
    fn peek(&self) -> Option<u8> {
        if self.at < self.end { Some(self.b.text()[self.at]) } else { None }
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn unexpected(&self, place: &str) -> JsonError {
        let what = match self.peek() {
            None => "unexpected end of JSON input".to_owned(),
            Some(c) if c.is_ascii_graphic() || c == b' ' => {
                format!("invalid character '{}' {place}", char::from(c))
            }
            Some(c) => format!("invalid character '\\x{c:02x}' {place}"),
        };
        JsonError::Syntax { what, offset: self.at }
    }

    fn value(&mut self, key: u32, depth: usize) -> Result<u32, JsonError> {
        match self.peek() {
            Some(b'{') => self.object(key, depth + 1),
            Some(b'[') => self.array(key, depth + 1),
            Some(b'"') => {
                let (tag, start, len) = self.string()?;
                Ok(self.b.node(key, tag, start, len))
            }
            Some(b't') => self.word(key, "true", TAG_TRUE),
            Some(b'f') => self.word(key, "false", TAG_FALSE),
            Some(b'n') => self.word(key, "null", TAG_NULL),
            Some(b'-' | b'0'..=b'9') => self.number(key),
            _ => Err(self.unexpected("looking for beginning of value")),
        }
    }

    fn word(&mut self, key: u32, word: &str, tag: u32) -> Result<u32, JsonError> {
        for expected in word.bytes() {
            if self.peek() != Some(expected) {
                return Err(self.unexpected(&format!("in literal {word}")));
            }
            self.at += 1;
        }
        Ok(self.b.node(key, tag, 0, 0))
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.unexpected("in numeric literal"));
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self, key: u32) -> Result<u32, JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(self.b.node(key, TAG_NUMBER, start as u32, (self.at - start) as u32))
    }

    fn string(&mut self) -> Result<(u32, u32, u32), JsonError> {
        self.at += 1;
        let start = self.at;
        let text = &self.b.text()[start..self.end];
        // Most strings are their own JSON form; find the first byte that is not.
        let stop = match self.plain {
            true => memchr::memchr2(b'"', b'\\', text),
            false => text.iter().position(|&c| needs_escape(c)),
        };
        match stop.map(|n| (n, text[n])) {
            Some((n, b'"')) => {
                self.at = start + n + 1;
                Ok((TAG_CLEAN, start as u32, n as u32))
            }
            Some((_, b'\\')) => self.escaped(start),
            Some((n, _)) => {
                self.at = start + n;
                Err(self.unexpected("in string literal"))
            }
            None => {
                self.at = self.end;
                Err(self.unexpected("in string literal"))
            }
        }
    }

    fn escaped(&mut self, start: usize) -> Result<(u32, u32, u32), JsonError> {
        let mut out: Vec<u8> = Vec::new();
        self.at = start;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    self.at += 1;
                    self.escape(&mut out)?;
                }
                Some(c) if c >= 0x20 => {
                    out.push(c);
                    self.at += 1;
                }
                _ => return Err(self.unexpected("in string literal")),
            }
        }
        self.at += 1;
        let decoded = String::from_utf8(out).expect("copied characters and encoded ones are valid UTF-8");
        let (start, len) = self.b.push_text(&decoded);
        Ok((string_tag(&decoded), start, len))
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), JsonError> {
        let plain = match self.peek() {
            Some(c @ (b'"' | b'\\' | b'/')) => c,
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                self.at += 1;
                let ch = self.unicode()?;
                out.extend_from_slice(ch.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(self.unexpected("in string escape code")),
        };
        out.push(plain);
        self.at += 1;
        Ok(())
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let mut n = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|c| char::from(c).to_digit(16));
            let Some(digit) = digit else {
                return Err(self.unexpected("in \\u hexadecimal character escape"));
            };
            n = n * 16 + digit;
            self.at += 1;
        }
        Ok(n)
    }

    /// A lone surrogate becomes U+FFFD, as in Go.
    fn unicode(&mut self) -> Result<char, JsonError> {
        let first = self.hex4()?;
        if (0xd800..0xdc00).contains(&first)
            && self.peek() == Some(b'\\')
            && self.at + 1 < self.end
            && self.b.text()[self.at + 1] == b'u'
        {
            let back = self.at;
            self.at += 2;
            let second = self.hex4()?;
            if (0xdc00..0xe000).contains(&second) {
                let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or('\u{fffd}'));
            }
            self.at = back;
        }
        Ok(char::from_u32(first).unwrap_or('\u{fffd}'))
    }

    fn array(&mut self, key: u32, depth: usize) -> Result<u32, JsonError> {
        if depth > DEPTH_MAX {
            return Err(JsonError::TooDeep);
        }
        let id = self.b.node(key, TAG_ARRAY, 0, 0);
        self.at += 1;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(id);
        }
        let mut index = 0;
        loop {
            self.space();
            self.path.push(Step::Index(index));
            let child = self.value(Builder::NO_KEY, depth)?;
            self.path.pop();
            self.b.link(id, child);
            index += 1;
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(id);
                }
                _ => return Err(self.unexpected("after array element")),
            }
        }
    }

    fn object(&mut self, key: u32, depth: usize) -> Result<u32, JsonError> {
        if depth > DEPTH_MAX {
            return Err(JsonError::TooDeep);
        }
        let id = self.b.node(key, TAG_OBJECT, 0, 0);
        self.at += 1;
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(id);
        }
        let mut seen = Seen::default();
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("looking for beginning of object key string"));
            }
            let (_, start, len) = self.string()?;
            let name = self.b.name(start, len);
            self.space();
            if self.peek() != Some(b':') {
                return Err(self.unexpected("after object key"));
            }
            self.at += 1;
            self.space();
            if seen.repeats(&self.b, name) {
                self.report(name);
                self.b.unlink_same(id, name);
            }
            self.path.push(Step::Name(name));
            let child = self.value(name, depth)?;
            self.path.pop();
            self.b.link(id, child);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(id);
                }
                _ => return Err(self.unexpected("after object key:value pair")),
            }
        }
    }

    fn report(&mut self, name: u32) {
        if self.duplicates.len() == DUPLICATES_MAX {
            return;
        }
        let mut path = String::new();
        for step in self.path.iter().chain([&Step::Name(name)]) {
            match step {
                Step::Index(n) => path.push_str(&format!("[{n}]")),
                Step::Name(name) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(self.b.name_text(*name));
                }
            }
        }
        self.duplicates.push(path);
    }
}

/// The names of one object so far.
#[derive(Default)]
struct Seen {
    few: Vec<u32>,
    many: base::hash::Set<String>,
}

impl Seen {
    fn repeats(&mut self, b: &Builder, name: u32) -> bool {
        if self.many.is_empty() {
            let text = b.name_text(name);
            if self.few.iter().any(|&n| n == name || b.name_text(n) == text) {
                return true;
            }
            self.few.push(name);
            if self.few.len() > SCAN_MAX {
                self.many = self.few.iter().map(|&n| b.name_text(n).to_owned()).collect();
            }
            return false;
        }
        !self.many.insert(b.name_text(name).to_owned())
    }
}

fn needs_escape(c: u8) -> bool {
    c < 0x20 || c == b'"' || c == b'\\'
}

/// How a string is kept: as its own JSON form, or to be escaped when written.
pub(crate) fn string_tag(s: &str) -> u32 {
    if first(s.as_bytes(), needs_escape).is_some() { TAG_STRING } else { TAG_CLEAN }
}

/// The place of the first byte that is `wanted`. Whole blocks are looked at first, which compilers make one step of.
fn first(text: &[u8], wanted: impl Fn(u8) -> bool) -> Option<usize> {
    const BLOCK: usize = 32;
    let without = |block: &&[u8]| !block.iter().fold(false, |any, &c| any | wanted(c));
    let from = text.chunks_exact(BLOCK).take_while(without).count() * BLOCK;
    text[from..].iter().position(|&c| wanted(c)).map(|n| from + n)
}

/// Appends compact JSON.
pub fn write(value: Ref<'_>, out: &mut Vec<u8>) {
    match value.tag() {
        TAG_FALSE => out.extend_from_slice(b"false"),
        TAG_TRUE => out.extend_from_slice(b"true"),
        TAG_NUMBER => out.extend_from_slice(value.number().unwrap_or("0").as_bytes()),
        TAG_CLEAN => {
            out.push(b'"');
            out.extend_from_slice(value.str().as_bytes());
            out.push(b'"');
        }
        TAG_STRING => write_string(value.str(), out),
        TAG_ARRAY => {
            out.push(b'[');
            for (i, item) in value.items().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write(item, out);
            }
            out.push(b']');
        }
        TAG_OBJECT => {
            out.push(b'{');
            for (i, item) in value.fields().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                match item.key() {
                    // The schema's names are their own form.
                    Some(key) => {
                        out.push(b'"');
                        out.extend_from_slice(key.name().as_bytes());
                        out.push(b'"');
                    }
                    None => write_string(item.name(), out),
                }
                out.push(b':');
                write(item, out);
            }
            out.push(b'}');
        }
        _ => out.extend_from_slice(b"null"),
    }
}

/// Appends indented JSON (four spaces, as upstream's `pretty=true`).
pub fn write_pretty(value: Ref<'_>, indent: usize, out: &mut Vec<u8>) {
    let line = |n: usize, out: &mut Vec<u8>| {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b' ', n * 2));
    };
    let object = value.kind() == Kind::Object;
    if value.is_empty() || !(object || value.is_array()) {
        return write(value, out);
    }
    out.push(if object { b'{' } else { b'[' });
    for (i, child) in if object { value.fields() } else { value.items() }.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        line(indent + 1, out);
        if object {
            write_string(child.name(), out);
            out.extend_from_slice(b": ");
        }
        write_pretty(child, indent + 1, out);
    }
    line(indent, out);
    out.push(if object { b'}' } else { b']' });
}

/// Appends a JSON string.
pub fn write_string(s: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = s.as_bytes();
    while let Some(n) = first(rest, needs_escape) {
        out.extend_from_slice(&rest[..n]);
        match rest[n] {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            c => out.extend_from_slice(format!("\\u{c:04x}").as_bytes()),
        }
        rest = &rest[n + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Makes a document of a `serde_json` value, for the edges that have one.
pub fn from_value(value: &serde_json::Value) -> Doc {
    let mut doc = Doc::scalar(crate::doc::Val::Null);
    fill(doc.edit(), value);
    doc
}

fn fill(mut at: crate::doc::Edit<'_>, value: &serde_json::Value) {
    use crate::doc::Val;
    use serde_json::Value;
    match value {
        Value::Null => at.put(Val::Null),
        Value::Bool(b) => at.put(*b),
        Value::Number(n) => at.put(Val::Number(n.to_string().into())),
        Value::String(s) => at.put(s.as_str()),
        Value::Array(items) => {
            at.put(Val::Array);
            for (i, item) in items.iter().enumerate() {
                at.push(Val::Null);
                fill(at.reborrow().item(i).expect("pushed just now"), item);
            }
        }
        Value::Object(map) => {
            at.put(Val::Object);
            for (name, item) in map {
                at.set(name, Val::Null);
                fill(at.reborrow().existing(name).expect("set just now"), item);
            }
        }
    }
}

/// A document written like JSON, with Rust expressions as values; see `serde_json::json!`.
#[macro_export]
macro_rules! doc {
    ($($json:tt)+) => { $crate::codec::json::from_value(&$crate::__serde_json::json!($($json)+)) };
}
