//! `Doc`: one object for the length of one request or one reconcile.
//!
//! A flat arena over the object's text: 16-byte nodes linked as siblings, field names known to the schema as
//! static ids, everything else as ranges of the text. Two or three allocations an object; a clone copies
//! memory. [`Ref`] reads (absent values read as Go's zero values), [`Edit`] writes. What is removed stays in
//! the arena until the document is written out.
//!
//! It knows JSON's data model and nothing of Kubernetes.

mod edit;
mod read;

pub use edit::{Edit, Val};
pub use read::{Entries, Items, Ref};

use crate::schema::keys;

/// A field name known to the schema, as an id; the names are in `schema::keys`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key(pub u16);

impl Key {
    /// The name.
    pub fn name(self) -> &'static str {
        keys::NAMES[usize::from(self.0)]
    }
}

/// The largest text a document can hold, in bytes: 256 MiB (node payloads have 28 bits).
pub const TEXT_BYTES_MAX: usize = (1 << 28) - 1;

/// What a value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number, kept as it was written.
    Number,
    /// A string.
    String,
    /// A list.
    Array,
    /// A map with names as keys, in the order written.
    Object,
}

impl Kind {
    /// What complaints call it, in the words of Go's decoder.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Null => "null",
            Kind::Bool => "bool",
            Kind::Number => "number",
            Kind::String => "string",
            Kind::Array => "array",
            Kind::Object => "object",
        }
    }
}

pub(crate) const TAG_NULL: u32 = 0;
pub(crate) const TAG_FALSE: u32 = 1;
pub(crate) const TAG_TRUE: u32 = 2;
pub(crate) const TAG_NUMBER: u32 = 3;
/// A string that is its own JSON form.
pub(crate) const TAG_CLEAN: u32 = 4;
/// A string with characters that JSON escapes.
pub(crate) const TAG_STRING: u32 = 5;
pub(crate) const TAG_ARRAY: u32 = 6;
pub(crate) const TAG_OBJECT: u32 = 7;

const PAYLOAD: u32 = (1 << 28) - 1;
const STATIC: u32 = 1 << 31;
const NO_KEY: u32 = STATIC - 1;
/// "No sibling" and "no child": the root is nobody's child, so its index is free for that.
const NONE: u32 = 0;

#[derive(Clone, Copy, Debug)]
struct Node {
    /// Static id with the top bit set, index into `names`, or NO_KEY for list items and the root.
    key: u32,
    next: u32,
    /// First child, or start of the text range.
    a: u32,
    /// Tag (4 bits) and last child, or length of the text range.
    b: u32,
}

impl Node {
    fn tag(self) -> u32 {
        self.b >> 28
    }
    fn payload(self) -> u32 {
        self.b & PAYLOAD
    }
    fn is_container(self) -> bool {
        self.tag() >= TAG_ARRAY
    }
}

/// A document: see the module's text.
#[derive(Clone, Debug)]
pub struct Doc {
    // Invariant: every range in `nodes` and `names` lies on character borders.
    text: String,
    // Invariant: nodes[0] is the root; child links never form a cycle.
    nodes: Vec<Node>,
    names: Vec<(u32, u32)>,
}

impl Default for Doc {
    fn default() -> Self {
        Doc::object()
    }
}

impl Doc {
    fn with_root(tag: u32) -> Doc {
        Doc {
            text: String::new(),
            nodes: vec![Node { key: NO_KEY, next: NONE, a: NONE, b: tag << 28 }],
            names: Vec::new(),
        }
    }

    /// An empty object.
    pub fn object() -> Doc {
        Doc::with_root(TAG_OBJECT)
    }

    /// An empty list.
    pub fn array() -> Doc {
        Doc::with_root(TAG_ARRAY)
    }

    /// A document that is one value.
    pub fn scalar<'v>(value: impl Into<Val<'v>>) -> Doc {
        let mut doc = Doc::with_root(TAG_NULL);
        doc.write(0, value.into());
        doc
    }

    /// The root, for reading.
    pub fn root(&self) -> Ref<'_> {
        Ref::new(self, 0)
    }

    /// The root, for writing.
    pub fn edit(&mut self) -> Edit<'_> {
        Edit::new(self, 0)
    }

    /// Shorthand for `root().get(key)`.
    pub fn get(&self, key: impl AsKey) -> Ref<'_> {
        self.root().get(key)
    }

    /// Compact JSON.
    pub fn to_json(&self) -> Vec<u8> {
        self.root().to_json()
    }

    /// Frees what was removed or replaced; worth it before keeping a much edited document for long.
    pub fn compact(&self) -> Doc {
        self.root().to_doc()
    }

    fn name_of(&self, id: u32) -> &str {
        let key = self.nodes[id as usize].key;
        if key & STATIC != 0 {
            Key((key & 0xffff) as u16).name()
        } else if key == NO_KEY {
            ""
        } else {
            let (start, len) = self.names[key as usize];
            self.slice(start, len)
        }
    }

    fn slice(&self, start: u32, len: u32) -> &str {
        &self.text[start as usize..(start + len) as usize]
    }

    fn push_text(&mut self, s: &str) -> (u32, u32) {
        assert!(self.text.len() + s.len() <= TEXT_BYTES_MAX, "a document's text is bounded");
        let start = self.text.len() as u32;
        self.text.push_str(s);
        (start, s.len() as u32)
    }

    fn push_node(&mut self, key: u32, tag: u32, a: u32, payload: u32) -> u32 {
        let id = self.nodes.len() as u32;
        assert!(id < PAYLOAD, "a document's nodes are bounded by its text");
        self.nodes.push(Node { key, next: NONE, a, b: (tag << 28) | payload });
        id
    }

    fn link(&mut self, parent: u32, child: u32) {
        let last = self.nodes[parent as usize].payload();
        if self.nodes[parent as usize].a == NONE {
            self.nodes[parent as usize].a = child;
        } else {
            self.nodes[last as usize].next = child;
        }
        let tag = self.nodes[parent as usize].tag();
        self.nodes[parent as usize].b = (tag << 28) | child;
    }

    /// The internal form of a name: its static id where the schema knows it, else a new or the given range.
    fn intern(&mut self, name: KeyRef<'_>) -> u32 {
        match name {
            KeyRef::Static(key) => STATIC | u32::from(key.0),
            KeyRef::Text(text) => {
                let range = self.push_text(text);
                self.names.push(range);
                (self.names.len() - 1) as u32
            }
        }
    }

    fn child(&self, parent: u32, key: KeyRef<'_>) -> Option<u32> {
        let node = self.nodes[parent as usize];
        if node.tag() != TAG_OBJECT {
            return None;
        }
        let mut at = node.a;
        while at != NONE {
            let found = match key {
                KeyRef::Static(k) => self.nodes[at as usize].key == STATIC | u32::from(k.0),
                KeyRef::Text(t) => self.nodes[at as usize].key & STATIC == 0 && self.name_of(at) == t,
            };
            if found {
                return Some(at);
            }
            at = self.nodes[at as usize].next;
        }
        None
    }
}

impl PartialEq for Doc {
    /// The same value: the order of an object's entries does not matter, that of a list's items does.
    fn eq(&self, other: &Doc) -> bool {
        self.root().same(other.root())
    }
}

/// A name ready for look-up: an id where the schema knows it, else text. Made by [`AsKey`] only, so that a
/// known name is never carried as text.
#[derive(Clone, Copy)]
pub enum KeyRef<'k> {
    /// Known to the schema.
    Static(Key),
    /// Any other name.
    Text(&'k str),
}

/// What can name an entry: a [`Key`] or a string.
pub trait AsKey {
    /// The name in the form that look-ups use.
    fn as_key(&self) -> KeyRef<'_>;
}

impl AsKey for Key {
    fn as_key(&self) -> KeyRef<'_> {
        KeyRef::Static(*self)
    }
}

impl AsKey for str {
    fn as_key(&self) -> KeyRef<'_> {
        match keys::lookup(self.as_bytes()) {
            Some(key) => KeyRef::Static(key),
            None => KeyRef::Text(self),
        }
    }
}

impl AsKey for String {
    fn as_key(&self) -> KeyRef<'_> {
        self.as_str().as_key()
    }
}

impl<T: AsKey + ?Sized> AsKey for &T {
    fn as_key(&self) -> KeyRef<'_> {
        (*self).as_key()
    }
}

/// What [`crate::codec`] builds documents with: no look-ups, values in the order they come.
pub(crate) struct Builder {
    doc: Doc,
}

impl Builder {
    pub(crate) fn new(text: String) -> Builder {
        assert!(text.len() <= TEXT_BYTES_MAX, "the decoder bounds its input");
        let nodes = Vec::with_capacity(text.len() / 20 + 4);
        Builder { doc: Doc { text, nodes, names: Vec::new() } }
    }

    /// For a document that becomes much like `from`.
    pub(crate) fn like(from: Ref<'_>) -> Builder {
        let (text, nodes) = from.size();
        let doc = Doc {
            text: String::with_capacity(text),
            nodes: Vec::with_capacity(nodes + 8),
            names: Vec::new(),
        };
        Builder { doc }
    }

    pub(crate) fn text(&self) -> &[u8] {
        self.doc.text.as_bytes()
    }

    pub(crate) fn push_text(&mut self, s: &str) -> (u32, u32) {
        self.doc.push_text(s)
    }

    /// A name that lies in the text already.
    pub(crate) fn name(&mut self, start: u32, len: u32) -> u32 {
        match keys::lookup(&self.doc.text.as_bytes()[start as usize..(start + len) as usize]) {
            Some(key) => STATIC | u32::from(key.0),
            None => {
                self.doc.names.push((start, len));
                (self.doc.names.len() - 1) as u32
            }
        }
    }

    pub(crate) const NO_KEY: u32 = NO_KEY;

    /// The internal form of a known name.
    pub(crate) fn static_key(key: Key) -> u32 {
        STATIC | u32::from(key.0)
    }

    /// The internal form of any name, which is copied into the text unless the schema knows it.
    pub(crate) fn key(&mut self, name: &str) -> u32 {
        self.doc.intern(name.as_key())
    }

    /// A copy of a value of another document.
    pub(crate) fn copy(&mut self, key: u32, from: Ref<'_>) -> u32 {
        let id = self.doc.push_node(key, TAG_NULL, 0, 0);
        self.doc.write(id, Val::Ref(from));
        id
    }

    pub(crate) fn node(&mut self, key: u32, tag: u32, start: u32, len: u32) -> u32 {
        self.doc.push_node(key, tag, start, len)
    }

    pub(crate) fn link(&mut self, parent: u32, child: u32) {
        self.doc.link(parent, child);
    }

    /// Takes the most recent earlier entry of the same name out of `parent`, if there is one.
    pub(crate) fn unlink_same(&mut self, parent: u32, key: u32) -> bool {
        let found = if key & STATIC != 0 {
            self.doc.child(parent, KeyRef::Static(Key((key & 0xffff) as u16)))
        } else {
            let (start, len) = self.doc.names[key as usize];
            let name = self.doc.slice(start, len).to_owned();
            self.doc.child(parent, KeyRef::Text(&name))
        };
        match found {
            Some(id) => {
                self.doc.unlink(parent, id);
                true
            }
            None => false,
        }
    }

    pub(crate) fn name_text(&self, key: u32) -> &str {
        if key & STATIC != 0 {
            Key((key & 0xffff) as u16).name()
        } else {
            let (start, len) = self.doc.names[key as usize];
            self.doc.slice(start, len)
        }
    }

    /// # Panics
    /// When no node was made.
    pub(crate) fn finish(self) -> Doc {
        assert!(!self.doc.nodes.is_empty(), "a document has a root");
        self.doc
    }
}
