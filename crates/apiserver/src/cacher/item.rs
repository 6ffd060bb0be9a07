//! What is cached of an object, and what is selected of many.

use std::sync::LazyLock;

use api::Kind;
use apimachinery::call::Stored;
use apimachinery::codec::json;
use apimachinery::selector::{FieldSelector, Selector};
use apimachinery::{Status, k};
use memchr::memmem::Finder;

use super::json::with_revision;

const LABELS: &[u8] = b"\"labels\":{";
static FIND_LABELS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(LABELS));

/// A stored object as it is cached, by its key without the kind's prefix: what selectors ask for is read out of the
/// text, if they can ask for anything. `None` for bytes that are no object. Those of a store that is shared with other
/// programs are read as a whole: whoever serves them later takes them for JSON written by us.
pub fn cached(kind: &Kind, key: &str, value: &[u8], revision: u64, shared: bool) -> Option<Stored> {
    let stored = Stored::at(with_revision(value, revision)?, revision, key.into());
    if !shared && kind.fields.is_empty() && FIND_LABELS.find(value).is_none() {
        return Some(stored);
    }
    let doc = json::parse(stored.json.to_vec()).ok()?.doc;
    // Found in a text that is ours, and in one of others perhaps within something else.
    if doc.get(k::METADATA).get(k::RESOURCE_VERSION).str().parse() != Ok(revision) {
        return None;
    }
    let labels = doc.get(k::METADATA).get(k::LABELS).entries().map(|(key, value)| (key, value.str()));
    Some(stored.selectable(labels, kind.fields.iter().map(|field| field.value(doc.root()))))
}

/// The last state of a deleted object, or of one that left a selection, at the revision of that.
///
/// # Panics
/// Never for what the generic store wrote.
pub fn at(stored: &Stored, revision: u64) -> Stored {
    let json = with_revision(&stored.json, revision).expect("the generic store writes metadata");
    Stored::at(json, revision, stored.key().clone())
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
    pub fn matches(&self, item: &Stored) -> bool {
        (self.namespace.is_empty() || item.is_in(&self.namespace))
            && self.fields.iter().all(|(at, equal, value)| {
                let have = match at {
                    At::Name => item.name(),
                    At::Namespace => item.namespace(),
                    At::Field(i) => item.field(*i),
                };
                (have == value.as_str()) == *equal
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_read_before_it_is_served() {
        let kinds = api::kinds();
        let plain = kinds.iter().find(|kind| kind.fields.is_empty()).expect("most kinds have none");
        let taken = |text: &str, shared| cached(plain, "ns/a", text.as_bytes(), 7, shared).is_some();
        let good = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"data":{"k":"v"}}"#;
        assert!(taken(good, false) && taken(good, true));
        for broken in [
            r#"{"metadata":{"name":"a"},"data":}"#,
            r#"{"metadata":{"name":"a"}} {}"#,
            r#"{"data":{"metadata":{"name":"b"}},"metadata":{"name":"a"}}"#,
            r#"{"metadata":{"name":"a","labels":{},"resourceVersion":"5"}}"#,
        ] {
            assert!(!taken(broken, true), "{broken}");
        }
    }
}
