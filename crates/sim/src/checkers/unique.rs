//! Unique: a watch tells no change twice, nor one that its beginning showed.

use std::collections::BTreeSet;

use apimachinery::call::WatchEvent;

use super::Judge;
use crate::record::Evidence;

/// See the module's text.
pub struct Unique;

impl Judge for Unique {
    fn name(&self) -> &'static str {
        "unique"
    }

    fn judge(&self, evidence: &Evidence) -> Vec<String> {
        let mut found = Vec::new();
        for watch in &evidence.watches {
            let mut told = BTreeSet::new();
            for heard in &watch.heard {
                let (WatchEvent::Added(seen) | WatchEvent::Modified(seen) | WatchEvent::Deleted(seen)) =
                    heard
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
}
