//! Resumable: a watch from a revision tells all that came later from the first change on, and nothing from before; one
//! from a revision that a power cut undid is refused.

use super::{Judge, differs};
use crate::record::{Evidence, revision};

/// See the module's text.
pub struct Resumable;

impl Judge for Resumable {
    fn name(&self) -> &'static str {
        "resumable"
    }

    fn judge(&self, evidence: &Evidence) -> Vec<String> {
        let mut found = Vec::new();
        for watch in &evidence.watches {
            let (Some(from), [first, ..]) = (watch.from, &watch.heard[..]) else { continue };
            if revision(first) < from {
                found.push(format!("from before its place: {}", watch.at(revision(first))));
            }
            let undone = evidence.ledger.undone(from);
            if undone.is_some_and(|until| watch.heard.iter().any(|h| revision(h) >= until)) {
                found.push(format!("goes on from what was undone: {}", watch.at(from)));
            }
            found.extend(differs(&evidence.ledger, watch, from, &watch.heard[..1]));
        }
        found
    }
}
