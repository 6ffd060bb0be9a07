//! Reliable: between what a watch tells first and what it tells last it leaves nothing out and adds nothing, and each
//! change is told as it was committed.

use super::{Judge, differs};
use crate::record::{Evidence, revision};

/// See the module's text.
pub struct Reliable;

impl Judge for Reliable {
    fn name(&self) -> &'static str {
        "reliable"
    }

    fn judge(&self, evidence: &Evidence) -> Vec<String> {
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
}
