//! Reading a document.

use base::hash::Map;

use super::*;

/// A value in a document, or nothing: reading what is not there gives Go's zero value (`""`, 0, false, no
/// items), and [`Ref::exists`] tells the difference.
#[derive(Clone, Copy)]
pub struct Ref<'a> {
    pub(super) doc: &'a Doc,
    pub(super) id: u32,
}

const ABSENT: u32 = u32::MAX;
static NOTHING: Doc = Doc { text: String::new(), nodes: Vec::new(), names: Vec::new() };

impl std::fmt::Debug for Ref<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.exists() {
            return f.write_str("absent");
        }
        f.write_str(&String::from_utf8_lossy(&self.to_json()))
    }
}

impl Default for Ref<'_> {
    fn default() -> Self {
        Ref::absent()
    }
}

impl<'a> Ref<'a> {
    pub(super) fn new(doc: &'a Doc, id: u32) -> Ref<'a> {
        Ref { doc, id }
    }

    /// A value that is not there.
    pub fn absent() -> Ref<'a> {
        Ref { doc: &NOTHING, id: ABSENT }
    }

    fn node(self) -> Option<Node> {
        if self.id == ABSENT { None } else { Some(self.doc.nodes[self.id as usize]) }
    }

    pub(crate) fn tag(self) -> u32 {
        self.node().map_or(TAG_NULL, Node::tag)
    }

    /// Bytes of text and number of nodes of the whole document.
    pub(super) fn size(self) -> (usize, usize) {
        (self.doc.text.len(), self.doc.nodes.len())
    }

    /// Whether there is a value, be it null.
    pub fn exists(self) -> bool {
        self.id != ABSENT
    }

    /// Whether there is a value other than null.
    pub fn is_set(self) -> bool {
        self.tag() != TAG_NULL
    }

    /// What the value is; nothing counts as null.
    pub fn kind(self) -> Kind {
        match self.tag() {
            TAG_NULL => Kind::Null,
            TAG_FALSE | TAG_TRUE => Kind::Bool,
            TAG_NUMBER => Kind::Number,
            TAG_CLEAN | TAG_STRING => Kind::String,
            TAG_ARRAY => Kind::Array,
            _ => Kind::Object,
        }
    }

    /// Whether it is an object.
    pub fn is_object(self) -> bool {
        self.tag() == TAG_OBJECT
    }

    /// Whether it is a list.
    pub fn is_array(self) -> bool {
        self.tag() == TAG_ARRAY
    }

    /// The entry named `key`, absent when this is no object or has none.
    pub fn get(self, key: impl AsKey) -> Ref<'a> {
        self.get_ref(key.as_key())
    }

    /// [`Ref::get`] with a name in look-up form.
    pub fn get_ref(self, key: KeyRef<'_>) -> Ref<'a> {
        if !self.exists() {
            return self;
        }
        self.doc.child(self.id, key).map_or(Ref::absent(), |id| Ref::new(self.doc, id))
    }

    /// Follows several names.
    pub fn path(self, keys: &[Key]) -> Ref<'a> {
        keys.iter().fold(self, |at, key| at.get(*key))
    }

    /// Follows a path of plain names with dots between them, such as `spec.nodeName`. Names that contain
    /// dots cannot be reached so.
    pub fn find(self, dotted: &str) -> Ref<'a> {
        dotted.split('.').fold(self, |at, name| at.get(name))
    }

    /// The item at `index` of a list.
    pub fn item(self, index: usize) -> Ref<'a> {
        self.items().nth(index).unwrap_or_default()
    }

    /// The name under which an object holds this value; empty for list items and the root.
    pub fn name(self) -> &'a str {
        if self.exists() { self.doc.name_of(self.id) } else { "" }
    }

    /// The name as a static key, if the schema knows it.
    pub fn key(self) -> Option<Key> {
        let key = self.node()?.key;
        (key & STATIC != 0).then_some(Key((key & 0xffff) as u16))
    }

    /// The string, if it is one.
    pub fn opt_str(self) -> Option<&'a str> {
        let node = self.node()?;
        matches!(node.tag(), TAG_CLEAN | TAG_STRING).then(|| self.doc.slice(node.a, node.payload()))
    }

    /// The string, or `""`.
    pub fn str(self) -> &'a str {
        self.opt_str().unwrap_or("")
    }

    /// The number's text, if it is a number.
    pub fn number(self) -> Option<&'a str> {
        let node = self.node()?;
        (node.tag() == TAG_NUMBER).then(|| self.doc.slice(node.a, node.payload()))
    }

    /// The whole number, if it is one that fits.
    pub fn opt_i64(self) -> Option<i64> {
        let text = self.number()?;
        text.parse().ok().or_else(|| {
            // 1e3 and 2.0 are whole numbers too; floats above 2^53 are not exact.
            let f: f64 = text.parse().ok()?;
            (f.fract() == 0.0 && f.abs() < 9_007_199_254_740_992.0).then_some(f as i64)
        })
    }

    /// The whole number, or 0.
    pub fn i64(self) -> i64 {
        self.opt_i64().unwrap_or(0)
    }

    /// The number as a float, if it is a number.
    pub fn opt_f64(self) -> Option<f64> {
        self.number()?.parse().ok()
    }

    /// The truth value, if it is one.
    pub fn opt_bool(self) -> Option<bool> {
        match self.node()?.tag() {
            TAG_TRUE => Some(true),
            TAG_FALSE => Some(false),
            _ => None,
        }
    }

    /// The truth value, or false.
    pub fn bool(self) -> bool {
        self.opt_bool().unwrap_or(false)
    }

    fn first(self) -> u32 {
        self.node().filter(|n| n.is_container()).map_or(NONE, |n| n.a)
    }

    /// A list's items; none when this is no list.
    pub fn items(self) -> Items<'a> {
        Items { doc: self.doc, at: if self.is_array() { self.first() } else { NONE } }
    }

    /// An object's entries as name and value, in the order written; none when this is no object.
    pub fn entries(self) -> Entries<'a> {
        Entries(self.fields())
    }

    /// An object's values; [`Ref::name`] and [`Ref::key`] tell whose each is.
    pub fn fields(self) -> Items<'a> {
        Items { doc: self.doc, at: if self.is_object() { self.first() } else { NONE } }
    }

    /// How many items or entries there are.
    pub fn len(self) -> usize {
        Items { doc: self.doc, at: self.first() }.count()
    }

    /// Whether there are no items or entries.
    pub fn is_empty(self) -> bool {
        self.first() == NONE
    }

    /// A document of this value alone; null when absent.
    pub fn to_doc(self) -> Doc {
        let mut doc = Doc::with_root(TAG_NULL);
        doc.write(0, Val::Ref(self));
        doc
    }

    /// The same value: order matters in lists only; numbers are compared by value.
    pub fn same(self, other: Ref<'_>) -> bool {
        match (self.kind(), other.kind()) {
            (Kind::Null, Kind::Null) => true,
            (Kind::Bool, Kind::Bool) => self.bool() == other.bool(),
            (Kind::String, Kind::String) => self.str() == other.str(),
            (Kind::Number, Kind::Number) => {
                self.number() == other.number()
                    || match (self.opt_i64(), other.opt_i64()) {
                        (Some(a), Some(b)) => a == b,
                        (None, None) => self.opt_f64() == other.opt_f64(),
                        _ => false,
                    }
            }
            (Kind::Array, Kind::Array) => {
                self.len() == other.len() && self.items().zip(other.items()).all(|(a, b)| a.same(b))
            }
            (Kind::Object, Kind::Object) => self.len() == other.len() && self.same_entries(other),
            _ => false,
        }
    }

    /// Whether every entry has its twin: usually at the same place, else by name, in long objects by an index.
    fn same_entries(self, other: Ref<'_>) -> bool {
        const LONG: usize = 64;
        let (mut twins, mut index) = (other.entries(), None);
        self.entries().all(|(name, value)| {
            if index.is_none() {
                match twins.next() {
                    Some((twin, there)) if twin == name => return value.same(there),
                    _ if other.len() > LONG => index = Some(other.entries().collect::<Map<_, _>>()),
                    _ => {}
                }
            }
            let twin = match &index {
                Some(index) => index.get(name).copied().unwrap_or_default(),
                None => other.get(name),
            };
            twin.exists() && value.same(twin)
        })
    }

    /// Compact JSON; `null` when absent.
    pub fn to_json(self) -> Vec<u8> {
        // A whole document becomes about its text, with names and signs around each value.
        let usual = if self.id == 0 { self.doc.text.len() + self.doc.nodes.len() * 16 } else { 256 };
        let mut out = Vec::with_capacity(usual);
        crate::codec::json::write(self, &mut out);
        out
    }
}

/// The items of a list, or the values of an object.
#[derive(Clone)]
pub struct Items<'a> {
    doc: &'a Doc,
    at: u32,
}

impl<'a> Iterator for Items<'a> {
    type Item = Ref<'a>;
    fn next(&mut self) -> Option<Ref<'a>> {
        if self.at == NONE {
            return None;
        }
        let found = Ref::new(self.doc, self.at);
        self.at = self.doc.nodes[self.at as usize].next;
        Some(found)
    }
}

/// The entries of an object.
#[derive(Clone)]
pub struct Entries<'a>(Items<'a>);

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a str, Ref<'a>);
    fn next(&mut self) -> Option<(&'a str, Ref<'a>)> {
        self.0.next().map(|value| (value.name(), value))
    }
}
