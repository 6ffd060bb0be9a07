//! A path of the host. Upstream: pkg/volume/hostpath.

use std::path::Path;

use apimachinery::{Ref, k};

use crate::doors::Files;

pub(super) fn set_up(source: Ref<'_>, files: &dyn Files) -> Result<(), String> {
    let (path, kind) = (source.get(k::PATH).str(), source.get(k::TYPE).str());
    files.host_path(Path::new(path), kind).map_err(|err| err.to_string())
}
