//! Files from a Secret. Upstream: pkg/volume/secret.

use apimachinery::{Ref, k};

use super::{MODE, Sources, mode_of, project};
use crate::doors::Payload;
use crate::objects::ObjectKind;

pub(super) fn payload(source: Ref<'_>, sources: Sources<'_>) -> Result<Payload, String> {
    let mode = mode_of(source.get(k::DEFAULT_MODE), MODE);
    project(ObjectKind::Secret, source, source.get(k::SECRET_NAME).str(), mode, sources)
}
