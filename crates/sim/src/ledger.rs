//! What was committed, for those who judge what clients saw: any key's or selection's state at any revision, and the
//! changes in between. A power cut may undo lazy writes: they were there until then, and afterwards never had been.

use std::collections::BTreeMap;

use apimachinery::call::{Options, Stored};
use apimachinery::{Doc, Gvr, Ref, codec, k};
use bytes::Bytes;

use crate::history::Commit;

/// One change of one key.
pub struct Step {
    /// At which revision.
    pub revision: u64,
    /// Of which key.
    pub key: String,
    /// The stored bytes; none when it was deleted.
    pub value: Option<Bytes>,
    /// The revision from which on it has never been.
    pub undone: Option<u64>,
    doc: Option<Doc>,
}

/// All changes, by key and revision.
#[derive(Default)]
pub struct Ledger {
    steps: Vec<Step>,
    by_key: BTreeMap<String, Vec<usize>>,
}

/// Objects of one kind that a client asks for.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The kind.
    pub gvr: Gvr,
    /// Empty for all.
    pub namespace: String,
    /// Which of those.
    pub pick: Pick,
    prefix: String,
}

/// What selectors pick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pick {
    /// Everything.
    All,
    /// Those with this value of the label `color`.
    Color(String),
    /// The one of this name.
    Name(String),
    /// Pods with this `spec.nodeName`.
    Node(String),
}

/// What a watch should say of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Says {
    Added,
    Modified,
    Deleted,
}

// === impl Step ===

impl Step {
    fn meta(&self) -> Ref<'_> {
        self.doc.as_ref().map_or_else(Ref::default, |doc| doc.get(k::METADATA))
    }

    /// The annotation that says which attempt of a client wrote it; empty without one.
    pub fn token(&self) -> &str {
        self.meta().get(k::ANNOTATIONS).get("token").str()
    }

    /// All annotations.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let all = self.meta().get(k::ANNOTATIONS);
        all.entries().map(|(key, value)| (key.to_owned(), value.str().to_owned())).collect()
    }

    /// The object's uid.
    pub fn uid(&self) -> &str {
        self.meta().get(k::UID).str()
    }

    /// Whether an answer is this object as written, or as it was when it went at `revision`.
    pub fn is(&self, seen: &Stored, revision: u64) -> bool {
        let value = self.value.as_deref().unwrap_or_default();
        seen.revision == revision && without_revision(&seen.json, revision) == value
    }
}

/// The JSON of an answer as it is stored: without its resource version.
fn without_revision(json: &[u8], revision: u64) -> Vec<u8> {
    let field = format!("\"resourceVersion\":\"{revision}\"").into_bytes();
    let Some(at) = json.windows(field.len()).position(|w| w == field) else { return json.to_vec() };
    let (mut from, mut to) = (at, at + field.len());
    if json.get(to) == Some(&b',') {
        to += 1;
    } else if from > 0 && json[from - 1] == b',' {
        from -= 1;
    }
    [&json[..from], &json[to..]].concat()
}

// === impl Selection ===

impl Selection {
    /// Those of a kind in a namespace (empty for all) that `pick` picks.
    ///
    /// # Panics
    /// When there is no such kind.
    pub fn new(gvr: &Gvr, namespace: &str, pick: Pick) -> Selection {
        let kinds = api::kinds();
        let same = |kind: &&std::sync::Arc<api::Kind>| {
            kind.storage.resource == gvr.resource && kind.storage.group == gvr.group
        };
        let kind = kinds.iter().find(same).expect("clients ask for kinds that exist");
        Selection { gvr: gvr.clone(), namespace: namespace.to_owned(), pick, prefix: kind.keys("") }
    }

    /// The key of one of these.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if namespace.is_empty() {
            format!("{}{name}", self.prefix)
        } else {
            format!("{}{namespace}/{name}", self.prefix)
        }
    }

    /// The key of an answer.
    pub fn key_of(&self, seen: &Stored) -> String {
        self.key(seen.namespace(), seen.name())
    }

    /// As the query says it.
    pub fn options(&self) -> Options {
        let (mut labels, mut fields) = (String::new(), String::new());
        match &self.pick {
            Pick::All => {}
            Pick::Color(color) => labels = format!("color={color}"),
            Pick::Name(name) => fields = format!("metadata.name={name}"),
            Pick::Node(node) => fields = format!("spec.nodeName={node}"),
        }
        Options { label_selector: labels, field_selector: fields, ..Options::default() }
    }

    fn start(&self) -> String {
        if self.namespace.is_empty() {
            self.prefix.clone()
        } else {
            format!("{}{}/", self.prefix, self.namespace)
        }
    }

    fn matches(&self, step: Option<&Step>) -> bool {
        let Some(step) = step.filter(|s| s.value.is_some() && s.key.starts_with(&self.start())) else {
            return false;
        };
        match &self.pick {
            Pick::All => true,
            Pick::Color(color) => step.meta().get(k::LABELS).get("color").str() == color,
            Pick::Name(name) => step.key.rsplit('/').next() == Some(name),
            Pick::Node(node) => {
                step.doc.as_ref().is_some_and(|doc| doc.get(k::SPEC).get(k::NODE_NAME).str() == node)
            }
        }
    }
}

// === impl Ledger ===

impl Ledger {
    /// Of all that was ever visible.
    pub fn new(commits: BTreeMap<(u64, String), Commit>) -> Ledger {
        let mut ledger = Ledger::default();
        for ((revision, key), Commit { value, undone, .. }) in commits {
            ledger.by_key.entry(key.clone()).or_default().push(ledger.steps.len());
            let doc =
                value.as_ref().and_then(|v| codec::json::parse(v.to_vec()).ok()).map(|parsed| parsed.doc);
            ledger.steps.push(Step { revision, key, value, undone, doc });
        }
        ledger
    }

    /// All steps in the order of their revisions.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// All steps of a key.
    pub fn of<'a>(&'a self, key: &str) -> impl DoubleEndedIterator<Item = &'a Step> {
        self.by_key.get(key).into_iter().flatten().map(|i| &self.steps[*i])
    }

    /// The object of a key as it was at a revision.
    pub fn at(&self, key: &str, revision: u64) -> Option<&Step> {
        let last =
            self.of(key).rev().find(|s| s.revision <= revision && s.undone.is_none_or(|u| revision < u));
        last.filter(|s| s.value.is_some())
    }

    /// What a key was at any moment from a revision on.
    pub fn from(&self, key: &str, revision: u64) -> Vec<Option<&Step>> {
        let mut out = vec![self.at(key, revision)];
        for step in self.of(key) {
            if step.revision > revision {
                out.push(Some(step).filter(|s| s.value.is_some()));
            }
            if let Some(undone) = step.undone.filter(|u| *u > revision) {
                out.push(self.at(key, undone));
            }
        }
        out
    }

    /// The change of a key at a revision.
    pub fn step(&self, key: &str, revision: u64) -> Option<&Step> {
        self.of(key).find(|s| s.revision == revision)
    }

    /// What a step took the place of.
    pub fn before(&self, step: &Step) -> Option<&Step> {
        self.at(&step.key, step.revision - 1)
    }

    /// The selected objects at a revision, in key order.
    pub fn state(&self, selection: &Selection, revision: u64) -> Vec<&Step> {
        let start = selection.start();
        let keys =
            self.by_key.range(start.clone()..).map(|(key, _)| key).take_while(|key| key.starts_with(&start));
        keys.filter_map(|key| self.at(key, revision)).filter(|step| selection.matches(Some(step))).collect()
    }

    /// What a watch of `selection` must say after revision `from` up to `to`.
    pub fn says(&self, selection: &Selection, from: u64, to: u64) -> Vec<(Says, &Step)> {
        let begin = self.steps.partition_point(|s| s.revision <= from);
        let end = self.steps.partition_point(|s| s.revision <= to);
        let start = selection.start();
        let mut out = Vec::new();
        for step in self.steps.get(begin..end).unwrap_or_default() {
            if !step.key.starts_with(&start) || step.undone.is_some_and(|u| u <= to) {
                continue;
            }
            match (selection.matches(self.before(step)), selection.matches(Some(step))) {
                (false, true) => out.push((Says::Added, step)),
                (true, true) => out.push((Says::Modified, step)),
                (true, false) => out.push((Says::Deleted, step)),
                (false, false) => {}
            }
        }
        out
    }

    /// Up to which revision a power cut undid what came at `revision`, if it did.
    pub fn undone(&self, revision: u64) -> Option<u64> {
        let undone = self.steps.iter().filter_map(|s| Some((s.revision, s.undone?)));
        undone.filter(|(at, until)| *at <= revision && revision < *until).map(|(_, until)| until).next()
    }
}
