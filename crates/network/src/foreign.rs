//! Other programs' rules that drop what pods send.

use std::path::Path;

use crate::Error;

/// What drops forwarded packets in the namespace at `netns` (none: the caller's), one sentence each with the
/// remedy: an accept rule of ours cannot override another chain's drop. Empty when nothing is in the way.
pub fn forward_obstacles(netns: Option<&Path>) -> Result<Vec<String>, Error> {
    unimplemented!("{netns:?}")
}
