//! Files from a ConfigMap. Upstream: pkg/volume/configmap.

use apimachinery::{Ref, k};

use super::{MODE, Sources, mode_of, project};
use crate::doors::Payload;
use crate::objects::ObjectKind;

pub(super) fn payload(source: Ref<'_>, sources: Sources<'_>) -> Result<Payload, String> {
    let mode = mode_of(source.get(k::DEFAULT_MODE), MODE);
    project(ObjectKind::ConfigMap, source, source.get(k::NAME).str(), mode, sources)
}
