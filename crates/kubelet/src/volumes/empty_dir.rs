//! A directory for the pod's life, on disk or in memory. Upstream: pkg/volume/emptydir.

use std::path::Path;

use apimachinery::quantity::Quantity;
use apimachinery::{Ref, k};

use crate::doors::Files;

pub(super) fn set_up(
    source: Ref<'_>,
    path: &Path,
    gid: Option<u32>,
    files: &dyn Files,
) -> Result<(), String> {
    let done = if source.get(k::MEDIUM).str() == "Memory" {
        let limit = Quantity::parse(source.get(k::SIZE_LIMIT).str()).ok().filter(|q| !q.is_zero());
        files.make_tmpfs(path, 0o777, gid, limit.and_then(|q| u64::try_from(q.value()).ok()))
    } else {
        files.make_dir(path, 0o777, gid)
    };
    done.map_err(|err| err.to_string())
}
