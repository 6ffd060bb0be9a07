//! Bookmarkable: after a bookmark nothing comes that is not newer.

use apimachinery::call::WatchEvent;

use super::Judge;
use crate::record::{Evidence, revision};

/// See the module's text.
pub struct Bookmarkable;

impl Judge for Bookmarkable {
    fn name(&self) -> &'static str {
        "bookmarkable"
    }

    fn judge(&self, evidence: &Evidence) -> Vec<String> {
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
}
