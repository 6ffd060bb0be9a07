//! An object as it is stored, cached and served: one allocation for all that is asked of it, and one for its text.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::codec::json;
use crate::doc::Doc;

/// JSON in the storage version with its `resourceVersion`, and beside it what selectors ask for, so that reads never
/// parse.
#[derive(Debug)]
pub struct Stored {
    /// The JSON text.
    pub json: Bytes,
    /// The revision at which it was written.
    pub revision: u64,
    key: Arc<str>,
    selectable: Option<Box<Selectable>>,
    parsed: OnceLock<Box<Doc>>,
}

/// How many objects are fetched at once; see [`Stored::fetch`].
pub const FETCHED: usize = 16;

/// Labels and selectable fields.
#[derive(Debug)]
struct Selectable {
    /// One after the other.
    text: Box<str>,
    /// Where each ends: key and value of every label, then the fields.
    ends: Box<[u32]>,
    labels: usize,
}

impl Selectable {
    fn part(&self, index: usize) -> Option<&str> {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        let end = self.ends.get(index)?;
        Some(&self.text[start as usize..*end as usize])
    }
}

impl Stored {
    /// An object of a namespace, which is empty for cluster-scoped kinds.
    pub fn new(json: Bytes, revision: u64, namespace: &str, name: &str) -> Stored {
        Stored::at(json, revision, key(namespace, name).into())
    }

    /// The object of a [`key`].
    pub fn at(json: Bytes, revision: u64, key: Arc<str>) -> Stored {
        Stored { json, revision, key, selectable: None, parsed: OnceLock::new() }
    }

    /// The same object with the same key, held by others too.
    pub fn keyed(self, key: Arc<str>) -> Stored {
        Stored { key, ..self }
    }

    /// The same object with labels and selectable fields, the fields in their kind's order. Without this it has none.
    pub fn selectable<'d>(
        self,
        labels: impl Iterator<Item = (&'d str, &'d str)>,
        fields: impl Iterator<Item = impl AsRef<str>>,
    ) -> Stored {
        let (mut text, mut ends) = (String::new(), Vec::new());
        let mut put = |part: &str| {
            text.push_str(part);
            ends.push(text.len() as u32);
            ends.len()
        };
        let labels = labels.map(|(key, value)| (put(key), put(value)).1).last().unwrap_or(0);
        for field in fields {
            put(field.as_ref());
        }
        let known = Selectable { text: text.into(), ends: ends.into(), labels };
        Stored { selectable: (!known.ends.is_empty()).then(|| Box::new(known)), ..self }
    }

    /// Namespace and name as they stand in keys: `namespace/name`, or the name alone.
    pub fn key(&self) -> &Arc<str> {
        &self.key
    }

    /// Empty for cluster-scoped kinds.
    pub fn namespace(&self) -> &str {
        self.key.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// Whether it is in this namespace, which is not empty.
    pub fn is_in(&self, namespace: &str) -> bool {
        self.key.strip_prefix(namespace).is_some_and(|name| name.starts_with('/'))
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        self.key.split_once('/').map_or(&*self.key, |(_, name)| name)
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        let known = self.selectable.as_ref()?;
        let at = (0..known.labels).step_by(2).find(|at| known.part(*at) == Some(key))?;
        known.part(at + 1)
    }

    /// The value of the selectable field at `index` of its kind's; empty where there is none.
    pub fn field(&self, index: usize) -> &str {
        self.selectable.as_ref().and_then(|known| known.part(known.labels + index)).unwrap_or("")
    }

    /// The object as a document of its own.
    ///
    /// # Panics
    /// Never for what the API server stored: it only stores JSON that it has written itself.
    pub fn doc(&self) -> Doc {
        json::parse(self.json.to_vec()).expect("stored objects are JSON written by us").doc
    }

    /// The object as a document that stays with it: for small objects that are read again and again (roles, quotas,
    /// namespaces). For all others see [`Stored::doc`].
    pub fn kept(&self) -> &Doc {
        self.parsed.get_or_init(|| Box::new(self.doc()))
    }

    /// Has the memory of a few objects fetched at once, but for their texts. Whoever reads many waits for each of them
    /// otherwise, which is much of the time that a long list takes.
    pub fn fetch(few: &[&Arc<Stored>]) {
        std::hint::black_box(few.iter().fold(0, |all, object| all ^ object.revision));
    }

    /// Has their texts fetched too, of which the beginning is enough: the processor sees what goes on from there.
    pub fn fetch_texts(few: &[Arc<Stored>]) {
        let first = |object: &Arc<Stored>| object.json.first().copied().unwrap_or_default();
        std::hint::black_box(few.iter().fold(0, |all, object| all ^ object.revision));
        std::hint::black_box(few.iter().fold(0, |all, object| all ^ first(object)));
    }

    /// Adds a few objects to others.
    pub fn hold(few: &[&Arc<Stored>], to: &mut Vec<Arc<Stored>>) {
        Stored::fetch(few);
        to.extend(few.iter().map(|object| Arc::clone(object)));
    }

    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        let known = self.selectable.as_ref().map_or(0, |known| known.text.len() + known.ends.len() * 4 + 64);
        self.json.len() + self.key.len() + known + 160
    }
}

/// What objects are ordered by: `namespace/name`, or the name alone where there is no namespace.
pub fn key(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { [namespace, "/", name].concat() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_selectors_ask_for_is_at_hand() {
        let plain = || Stored::new(Bytes::new(), 1, "ns", "name");
        let labels = [("app", "web"), ("tier", "")];
        let stored = plain().selectable(labels.into_iter(), ["n1", "", "Running"].iter());
        let label = |key| stored.label(key);
        assert_eq!((label("app"), label("tier"), label("web")), (Some("web"), Some(""), None));
        assert_eq!([0, 1, 2, 3].map(|at| stored.field(at)), ["n1", "", "Running", ""]);
        let fields = plain().selectable([].into_iter(), ["n1"].iter());
        assert_eq!((fields.label("n1"), fields.field(0)), (None, "n1"));
        assert_eq!((plain().label("app"), plain().field(0)), (None, ""));
        for (namespace, name) in [("ns", "name"), ("", "system:node")] {
            let stored = Stored::new(Bytes::new(), 1, namespace, name);
            assert_eq!((stored.namespace(), stored.name()), (namespace, name));
            assert_eq!([stored.is_in("ns"), stored.is_in("n")], [namespace == "ns", false]);
        }
    }
}
