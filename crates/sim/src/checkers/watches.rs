//! What a watch promises, by the names of etcd's guarantees.

use std::collections::BTreeSet;

use apimachinery::call::WatchEvent;

use super::differs;
use crate::record::{Evidence, revision};

/// A watch tells changes, and its progress, in the order of their revisions.
pub fn ordered(evidence: &Evidence) -> Vec<String> {
    let mut found = Vec::new();
    for watch in &evidence.watches {
        let Some((_, _, changes)) = watch.parts() else { continue };
        for pair in changes.windows(2) {
            let (before, after) = (revision(&pair[0]), revision(&pair[1]));
            if after < before {
                found.push(format!("{after} after {before}: {}", watch.at(after)));
            }
        }
    }
    found
}

/// A watch tells no change twice, nor one that its beginning showed.
pub fn unique(evidence: &Evidence) -> Vec<String> {
    let mut found = Vec::new();
    for watch in &evidence.watches {
        let mut told = BTreeSet::new();
        for heard in &watch.heard {
            let (WatchEvent::Added(seen) | WatchEvent::Modified(seen) | WatchEvent::Deleted(seen)) = heard
            else {
                continue;
            };
            if !told.insert((watch.selection.key_of(seen), seen.revision)) {
                found.push(format!("{} twice: {}", seen.name(), watch.at(seen.revision)));
            }
        }
    }
    found
}

/// Between what a watch tells first and what it tells last it leaves nothing out and adds nothing, and each
/// change is told as it was committed.
pub fn reliable(evidence: &Evidence) -> Vec<String> {
    let mut found = Vec::new();
    for watch in &evidence.watches {
        let Some((from, _, changes)) = watch.parts() else { continue };
        // Where the stretch begins that this one answers for; what lies before is another's: `resumable`.
        let (from, changes) = match (watch.from, changes) {
            (Some(_), [first, rest @ ..]) => (revision(first), rest),
            _ => (from, changes),
        };
        found.extend(differs(&evidence.ledger, watch, from, changes));
    }
    found
}

/// A watch from a revision tells all that came later from the first change on, and nothing from before; one
/// from a revision that a power cut undid is refused.
pub fn resumable(evidence: &Evidence) -> Vec<String> {
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

/// After a bookmark nothing comes that is not newer.
pub fn bookmarkable(evidence: &Evidence) -> Vec<String> {
    let mut found = Vec::new();
    for watch in &evidence.watches {
        let mut marked = None;
        for heard in &watch.heard {
            let revision = revision(heard);
            match heard {
                WatchEvent::Bookmark { .. } => marked = marked.max(Some(revision)),
                _ if Some(revision) <= marked => {
                    found.push(format!("after the bookmark {marked:?}: {}", watch.at(revision)));
                }
                _ => {}
            }
        }
    }
    found
}
