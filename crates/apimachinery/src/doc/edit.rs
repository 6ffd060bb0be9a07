//! Writing a document.

use super::*;

/// A value to be written.
pub enum Val<'v> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A string.
    Str(std::borrow::Cow<'v, str>),
    /// A number as text, which must be valid JSON.
    Number(std::borrow::Cow<'v, str>),
    /// A copy of a value, of this or another document. An absent one is null.
    Ref(Ref<'v>),
    /// An owned document.
    Doc(Box<Doc>),
    /// `[]`
    Array,
    /// `{}`
    Object,
}

macro_rules! val_from {
    ($($from:ty => |$v:ident| $to:expr;)*) => { $(
        impl<'v> From<$from> for Val<'v> { fn from($v: $from) -> Val<'v> { $to } }
    )* };
}

val_from! {
    bool => |v| Val::Bool(v);
    i64 => |v| Val::Int(v);
    i32 => |v| Val::Int(i64::from(v));
    u32 => |v| Val::Int(i64::from(v));
    u16 => |v| Val::Int(i64::from(v));
    &'v str => |v| Val::Str(v.into());
    &'v String => |v| Val::Str(v.as_str().into());
    String => |v| Val::Str(v.into());
    std::borrow::Cow<'v, str> => |v| Val::Str(v);
    Ref<'v> => |v| Val::Ref(v);
    &'v Doc => |v| Val::Ref(v.root());
    Doc => |v| Val::Doc(Box::new(v));
    f64 => |v| Val::Number(serde_json::Number::from_f64(v).map_or_else(|| "0".into(), |n| n.to_string().into()));
}

impl<'v> From<u64> for Val<'v> {
    fn from(v: u64) -> Val<'v> {
        Val::Number(v.to_string().into())
    }
}

impl<'v> From<usize> for Val<'v> {
    fn from(v: usize) -> Val<'v> {
        Val::Number(v.to_string().into())
    }
}

impl<'v, T: Into<Val<'v>>> From<Vec<T>> for Val<'v> {
    fn from(items: Vec<T>) -> Val<'v> {
        let mut doc = Doc::array();
        for item in items {
            doc.edit().push(item);
        }
        Val::Doc(Box::new(doc))
    }
}

/// A value in a document that can be changed.
pub struct Edit<'a> {
    doc: &'a mut Doc,
    id: u32,
}

impl<'a> Edit<'a> {
    pub(super) fn new(doc: &'a mut Doc, id: u32) -> Edit<'a> {
        Edit { doc, id }
    }

    /// The value, for reading.
    pub fn read(&self) -> Ref<'_> {
        Ref::new(self.doc, self.id)
    }

    /// A shorter-lived handle to the same value.
    pub fn reborrow(&mut self) -> Edit<'_> {
        Edit { doc: self.doc, id: self.id }
    }

    /// Replaces the value itself.
    pub fn put<'v>(&mut self, value: impl Into<Val<'v>>) {
        self.doc.write(self.id, value.into());
    }

    /// Descends to the entry `key`; it is made an empty object where it is missing or null. Anything that is
    /// no object becomes one.
    pub fn at(self, key: impl AsKey) -> Edit<'a> {
        let key = key.as_key();
        self.doc.make(self.id, TAG_OBJECT);
        let id = match self.doc.child(self.id, key) {
            Some(id) => id,
            None => self.doc.add(self.id, key),
        };
        if self.doc.nodes[id as usize].tag() == TAG_NULL {
            self.doc.make(id, TAG_OBJECT);
        }
        Edit { doc: self.doc, id }
    }

    /// Descends to the entry `key`, which is made an empty list where it is no list.
    pub fn list(self, key: impl AsKey) -> Edit<'a> {
        let at = self.at(key);
        at.doc.make(at.id, TAG_ARRAY);
        at
    }

    /// Descends to the entry `key` if there is one.
    pub fn existing(self, key: impl AsKey) -> Option<Edit<'a>> {
        let id = self.doc.child(self.id, key.as_key())?;
        Some(Edit { doc: self.doc, id })
    }

    /// Descends to a list's item.
    pub fn item(self, index: usize) -> Option<Edit<'a>> {
        let id = Ref::new(self.doc, self.id).items().nth(index)?.id;
        Some(Edit { doc: self.doc, id })
    }

    /// Sets the entry `key`, in its old place if there was one, else last.
    pub fn set<'v>(&mut self, key: impl AsKey, value: impl Into<Val<'v>>) -> &mut Self {
        let key = key.as_key();
        self.doc.make(self.id, TAG_OBJECT);
        let id = match self.doc.child(self.id, key) {
            Some(id) => id,
            None => self.doc.add(self.id, key),
        };
        self.doc.write(id, value.into());
        self
    }

    /// Sets the entry `key`, or removes it when there is no value.
    pub fn set_opt<'v>(&mut self, key: impl AsKey, value: Option<impl Into<Val<'v>>>) -> &mut Self {
        match value {
            Some(value) => self.set(key, value),
            None => {
                self.remove(key);
                self
            }
        }
    }

    /// Sets the entry `key` unless it has a value other than null.
    pub fn set_default<'v>(&mut self, key: impl AsKey, value: impl Into<Val<'v>>) -> &mut Self {
        if !self.read().get(&key).is_set() {
            self.set(key, value);
        }
        self
    }

    /// Removes the entry `key`; tells whether there was one.
    pub fn remove(&mut self, key: impl AsKey) -> bool {
        match self.doc.child(self.id, key.as_key()) {
            Some(id) => {
                self.doc.unlink(self.id, id);
                true
            }
            None => false,
        }
    }

    /// Appends an item to a list. Anything that is no list becomes one.
    pub fn push<'v>(&mut self, value: impl Into<Val<'v>>) -> &mut Self {
        self.doc.make(self.id, TAG_ARRAY);
        let id = self.doc.push_node(NO_KEY, TAG_NULL, 0, 0);
        self.doc.link(self.id, id);
        self.doc.write(id, value.into());
        self
    }

    /// Inserts an item before the one at `index`, or last.
    pub fn insert<'v>(&mut self, index: usize, value: impl Into<Val<'v>>) {
        self.push(value);
        let (doc, parent) = (&mut *self.doc, self.id);
        let len = Ref::new(doc, parent).len();
        if index + 1 >= len {
            return;
        }
        let ids: Vec<u32> = Ref::new(doc, parent).items().map(|r| r.id).collect();
        let new = ids[len - 1];
        let mut order = ids[..len - 1].to_vec();
        order.insert(index, new);
        doc.relink(parent, &order);
    }

    /// Removes the item at `index`; tells whether there was one.
    pub fn remove_item(&mut self, index: usize) -> bool {
        match Ref::new(self.doc, self.id).items().nth(index).map(|r| r.id) {
            Some(id) => {
                self.doc.unlink(self.id, id);
                true
            }
            None => false,
        }
    }

    /// Keeps the items or entries for which `keep` holds, in their order.
    pub fn retain(&mut self, mut keep: impl FnMut(Ref<'_>) -> bool) {
        let here = Ref::new(self.doc, self.id);
        let all = if here.is_array() { here.items() } else { here.fields() };
        let kept: Vec<u32> = all.filter(|r| keep(*r)).map(|r| r.id).collect();
        self.doc.relink(self.id, &kept);
    }

    /// Puts items or entries into the order that `less` defines (stable).
    pub fn sort_by(&mut self, mut compare: impl FnMut(Ref<'_>, Ref<'_>) -> std::cmp::Ordering) {
        let here = Ref::new(self.doc, self.id);
        let all = if here.is_array() { here.items() } else { here.fields() };
        let mut refs: Vec<Ref<'_>> = all.collect();
        refs.sort_by(|a, b| compare(*a, *b));
        let ids: Vec<u32> = refs.iter().map(|r| r.id).collect();
        self.doc.relink(self.id, &ids);
    }

    /// Calls `change` for every item of a list or value of an object.
    pub fn for_each(&mut self, mut change: impl FnMut(Edit<'_>)) {
        let here = Ref::new(self.doc, self.id);
        let all = if here.is_array() { here.items() } else { here.fields() };
        let ids: Vec<u32> = all.map(|r| r.id).collect();
        for id in ids {
            change(Edit { doc: self.doc, id });
        }
    }
}

impl Doc {
    fn add(&mut self, parent: u32, key: KeyRef<'_>) -> u32 {
        let key = self.intern(key);
        let id = self.push_node(key, TAG_NULL, 0, 0);
        self.link(parent, id);
        id
    }

    /// Makes the node an empty container of kind `tag` unless it is one already.
    fn make(&mut self, id: u32, tag: u32) {
        let node = &mut self.nodes[id as usize];
        if node.tag() != tag {
            node.a = NONE;
            node.b = tag << 28;
        }
    }

    /// `child` must be one of the children of `parent`.
    pub(super) fn unlink(&mut self, parent: u32, child: u32) {
        let (mut before, mut at) = (NONE, self.nodes[parent as usize].a);
        while at != child {
            (before, at) = (at, self.nodes[at as usize].next);
        }
        let after = self.nodes[child as usize].next;
        let node = match before {
            NONE => &mut self.nodes[parent as usize].a,
            before => &mut self.nodes[before as usize].next,
        };
        *node = after;
        if after == NONE {
            let tag = self.nodes[parent as usize].tag();
            self.nodes[parent as usize].b = (tag << 28) | before;
        }
    }

    fn relink(&mut self, parent: u32, children: &[u32]) {
        let tag = self.nodes[parent as usize].tag();
        self.nodes[parent as usize].a = NONE;
        self.nodes[parent as usize].b = tag << 28;
        for &child in children {
            self.nodes[child as usize].next = NONE;
            self.link(parent, child);
        }
    }

    pub(super) fn write(&mut self, id: u32, value: Val<'_>) {
        let (tag, a, payload) = match value {
            Val::Null => (TAG_NULL, 0, 0),
            Val::Bool(false) => (TAG_FALSE, 0, 0),
            Val::Bool(true) => (TAG_TRUE, 0, 0),
            Val::Array => (TAG_ARRAY, 0, 0),
            Val::Object => (TAG_OBJECT, 0, 0),
            Val::Int(n) => {
                let (start, len) = self.push_text(&n.to_string());
                (TAG_NUMBER, start, len)
            }
            Val::Number(n) => {
                let (start, len) = self.push_text(&n);
                (TAG_NUMBER, start, len)
            }
            Val::Str(s) => {
                let (start, len) = self.push_text(&s);
                (crate::codec::json::string_tag(&s), start, len)
            }
            Val::Doc(doc) => return self.copy(id, doc.root()),
            Val::Ref(from) => return self.copy(id, from),
        };
        let node = &mut self.nodes[id as usize];
        node.a = a;
        node.b = (tag << 28) | payload;
    }

    fn copy(&mut self, id: u32, from: Ref<'_>) {
        match from.tag() {
            TAG_ARRAY | TAG_OBJECT => {
                let object = from.tag() == TAG_OBJECT;
                self.write(id, if object { Val::Object } else { Val::Array });
                for child in if object { from.fields() } else { from.items() } {
                    let key = match (object, child.key()) {
                        (false, _) => NO_KEY,
                        (true, Some(key)) => STATIC | u32::from(key.0),
                        (true, None) => self.intern(KeyRef::Text(child.name())),
                    };
                    let new = self.push_node(key, TAG_NULL, 0, 0);
                    self.link(id, new);
                    self.copy(new, child);
                }
            }
            TAG_NUMBER => self.write(id, Val::Number(from.number().unwrap_or("0").into())),
            tag @ (TAG_CLEAN | TAG_STRING) => {
                let (start, len) = self.push_text(from.str());
                let node = &mut self.nodes[id as usize];
                node.a = start;
                node.b = (tag << 28) | len;
            }
            TAG_TRUE => self.write(id, Val::Bool(true)),
            TAG_FALSE => self.write(id, Val::Bool(false)),
            _ => self.write(id, Val::Null),
        }
    }
}
