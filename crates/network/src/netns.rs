//! Network namespaces: made, pinned to a path, entered, removed.
//!
//! Namespaces belong to threads, so each is made or entered in a thread that lives for one closure only.

use std::path::Path;

use crate::Error;

/// Makes a network namespace with `lo` up and pins it at `path` (an empty file is made there, parents must exist).
pub fn create_netns(path: &Path) -> Result<(), Error> {
    unimplemented!("{path:?}")
}

/// Unpins the namespace at `path`; it ends with its last process. A path that is gone is no error.
pub fn remove_netns(path: &Path) -> Result<(), Error> {
    unimplemented!("{path:?}")
}

/// Runs `f` in the namespace at `netns` (none: the caller's) on a thread of its own, and waits for it.
pub fn in_netns<T: Send>(netns: Option<&Path>, f: impl FnOnce() -> T + Send) -> Result<T, Error> {
    unimplemented!("{netns:?}")
}
