//! One cached object: the JSON that is served, and beside it what selectors ask for, so that reads never parse.

use std::sync::{Arc, OnceLock};

use api::Kind;
use apimachinery::call::Stored;
use apimachinery::codec::json;
use apimachinery::selector::{FieldSelector, Selector};
use apimachinery::{Doc, Status, k};
use bytes::Bytes;

use super::json::with_revision;

/// A cached object.
#[derive(Debug)]
pub struct Item {
    /// What is served.
    pub stored: Arc<Stored>,
    /// Labels and selectable fields, one after the other.
    text: Box<str>,
    /// Where each text ends: key and value of every label, then the fields in the order of [`Kind::fields`].
    ends: Box<[u32]>,
    labels: u32,
    parsed: OnceLock<Box<Doc>>,
}

impl Item {
    /// Reads what selectors ask for out of stored bytes. `None` for bytes that are no object.
    pub fn new(kind: &Kind, value: &[u8], revision: u64) -> Option<Item> {
        let doc = json::parse(value).ok()?.doc;
        let meta = doc.get(k::METADATA);
        let stored = Stored {
            json: with_revision(value, revision),
            revision,
            namespace: meta.get(k::NAMESPACE).str().to_owned(),
            name: meta.get(k::NAME).str().to_owned(),
        };
        let (mut text, mut ends, mut labels) = (String::new(), Vec::new(), 0);
        let mut put = |part: &str| {
            text.push_str(part);
            ends.push(text.len() as u32);
        };
        for (key, value) in meta.get(k::LABELS).entries() {
            put(key);
            put(value.str());
            labels += 1;
        }
        for field in kind.fields.iter() {
            put(&field.value(doc.root()));
        }
        let (text, ends) = (text.into_boxed_str(), ends.into_boxed_slice());
        Some(Item { stored: Arc::new(stored), text, ends, labels, parsed: OnceLock::new() })
    }

    fn part(&self, index: usize) -> &str {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.text[start as usize..self.ends[index] as usize]
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        (0..self.labels as usize).find(|i| self.part(i * 2) == key).map(|i| self.part(i * 2 + 1))
    }

    /// The value of the selectable field at `index` of [`Kind::fields`].
    pub fn field(&self, index: usize) -> &str {
        self.part(self.labels as usize * 2 + index)
    }

    /// The object as a document that stays with the item: for small objects that are read again and again (roles,
    /// quotas, namespaces). For all others see [`Item::parse`].
    pub fn doc(&self) -> &Doc {
        self.parsed.get_or_init(|| Box::new(self.parse()))
    }

    /// The object as a document of the caller's.
    pub fn parse(&self) -> Doc {
        self.stored.doc()
    }

    /// The last state of a deleted object, or of one that left a selection, at the revision of that.
    pub fn at(&self, revision: u64) -> Arc<Stored> {
        Arc::new(Stored {
            json: with_revision(&self.stored.json, revision),
            revision,
            namespace: self.stored.namespace.clone(),
            name: self.stored.name.clone(),
        })
    }

    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        self.stored.json.len() + self.text.len() + self.ends.len() * 4 + 160
    }
}

/// The object that a write made, without waiting for it to come back from storage.
pub fn stored(value: &[u8], revision: u64, namespace: &str, name: &str) -> Arc<Stored> {
    let json: Bytes = with_revision(value, revision);
    Arc::new(Stored { json, revision, namespace: namespace.to_owned(), name: name.to_owned() })
}

/// What a field condition looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Name,
    Namespace,
    Field(usize),
}

/// Which objects of a kind are meant.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Empty for all namespaces.
    pub namespace: String,
    labels: Selector,
    fields: Vec<(At, bool, String)>,
}

impl Selection {
    /// Every object of a namespace; of all when it is empty.
    pub fn all(namespace: &str) -> Selection {
        Selection { namespace: namespace.to_owned(), ..Selection::default() }
    }

    /// The objects whose selectable field has this value; `None` for a field that the kind does not offer.
    pub fn by_field(kind: &Kind, field: &str, value: &str) -> Option<Selection> {
        let at = match field {
            "metadata.name" => At::Name,
            "metadata.namespace" => At::Namespace,
            field => At::Field(kind.fields.iter().position(|f| f.name == field)?),
        };
        Some(Selection { fields: vec![(at, true, value.to_owned())], ..Selection::default() })
    }

    /// Reads selectors for objects of `kind` served in the version at `version`.
    ///
    /// # Errors
    /// 400 for a selector that cannot be read or names a field that the kind does not offer.
    pub fn new(
        kind: &Kind,
        version: usize,
        namespace: &str,
        labels: &str,
        fields: &str,
    ) -> Result<Selection, Status> {
        let labels = Selector::parse(labels)
            .map_err(|e| Status::bad_request(format!("unable to parse requirement: {e}")))?;
        let terms = FieldSelector::parse(fields).map_err(|e| Status::bad_request(e.to_string()))?;
        let mut out = Selection { namespace: namespace.to_owned(), labels, fields: Vec::new() };
        for term in terms.terms() {
            let aliases = kind.versions[version].field_aliases;
            let name = aliases
                .iter()
                .find(|(here, _)| *here == term.field)
                .map_or(term.field.as_str(), |(_, stored)| stored);
            let at = match name {
                "metadata.name" => At::Name,
                "metadata.namespace" => At::Namespace,
                name => match kind.fields.iter().position(|f| f.name == name) {
                    Some(i) => At::Field(i),
                    None => {
                        // kubectl puts it into its own sentence.
                        let message = match kind.fields.is_empty() {
                            true => format!(
                                "{:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
                                term.field
                            ),
                            false => format!("field label not supported: {}", term.field),
                        };
                        return Err(Status::bad_request(message));
                    }
                },
            };
            out.fields.push((at, term.equal, term.value.clone()));
        }
        Ok(out)
    }

    /// Whether every object of the namespace is meant.
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_empty()
    }

    /// Whether an object is meant.
    pub fn matches(&self, item: &Item) -> bool {
        (self.namespace.is_empty() || self.namespace == item.stored.namespace)
            && self.fields.iter().all(|(at, equal, value)| {
                let have = match at {
                    At::Name => &item.stored.name,
                    At::Namespace => &item.stored.namespace,
                    At::Field(i) => item.field(*i),
                };
                (have == value) == *equal
            })
            && self.labels.matches_by(|key| item.label(key))
    }

    /// The one name that objects must have, if the selection says so.
    pub fn name(&self) -> Option<&str> {
        self.fields
            .iter()
            .find(|(at, equal, _)| *at == At::Name && *equal)
            .map(|(_, _, value)| value.as_str())
    }

    /// A selectable field and the value it must have, if the selection says so.
    pub fn field(&self) -> Option<(usize, &str)> {
        self.fields.iter().find_map(|(at, equal, value)| match at {
            At::Field(i) if *equal => Some((*i, value.as_str())),
            _ => None,
        })
    }
}
