//! Atomic: what is shown at a revision is the whole state of that revision, on all pages of a list and in the objects
//! that a watch begins with; no part of a transaction is seen without the rest.

use std::sync::Arc;

use apimachinery::call::{Stored, WatchEvent};

use crate::ledger::{Ledger, Selection};
use crate::record::{Evidence, Seen};

/// See the module's text.
pub fn atomic(evidence: &Evidence) -> Vec<String> {
    let ledger = &evidence.ledger;
    let mut found = Vec::new();
    for read in &evidence.reads {
        let Seen::List(selection, revisions, items) = &read.seen else { continue };
        let Some(first) = revisions.first() else { continue };
        if revisions.iter().any(|r| r != first) {
            found.push(format!("the pages of one list are of {revisions:?}"));
        }
        found.extend(
            differs(ledger, selection, *first, items).map(|what| format!("list {:?}: {what}", read.how)),
        );
    }
    for watch in evidence.watches.iter().filter(|w| w.from.is_none()) {
        let Some((revision, initial, _)) = watch.parts() else { continue };
        let added = |heard: &WatchEvent| match heard {
            WatchEvent::Added(seen) => Some(seen.clone()),
            _ => None,
        };
        let items: Vec<_> = initial.iter().filter_map(added).collect();
        if items.len() != initial.len() {
            found.push(format!("more than objects at first: {}", watch.at(revision)));
        }
        found.extend(
            differs(ledger, &watch.selection, revision, &items)
                .map(|what| format!("{}: {what}", watch.at(revision))),
        );
    }
    found
}

/// What is shown that should not be, or the reverse.
fn differs(ledger: &Ledger, selection: &Selection, revision: u64, items: &[Arc<Stored>]) -> Option<String> {
    let state = ledger.state(selection, revision);
    let same = |(i, step): (usize, &&crate::ledger::Step)| {
        items.get(i).is_some_and(|item| selection.key_of(item) == step.key && step.is(item, step.revision))
    };
    if items.len() == state.len() && state.iter().enumerate().all(same) {
        return None;
    }
    let shown: Vec<_> = items.iter().map(|i| (selection.key_of(i), i.revision)).collect();
    let was: Vec<_> = state.iter().map(|s| (&s.key, s.revision)).collect();
    Some(format!("at {revision} of {:?} is shown {shown:?}, but there was {was:?}", selection.pick))
}
