//! Ordered: a watch tells changes, and its progress, in the order of their revisions.

use super::Judge;
use crate::record::{Evidence, revision};

/// See the module's text.
pub struct Ordered;

impl Judge for Ordered {
    fn name(&self) -> &'static str {
        "ordered"
    }

    fn judge(&self, evidence: &Evidence) -> Vec<String> {
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
}
