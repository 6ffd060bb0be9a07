//! Controllers of pods.

mod deployment;
mod replica_set;

pub(crate) use replica_set::PARTS as REPLICA_PARTS;

use crate::kind::Kind;

/// The group's kinds, in the order of discovery.
pub(crate) fn kinds() -> Vec<Kind> {
    vec![deployment::kind(), replica_set::kind()]
}
