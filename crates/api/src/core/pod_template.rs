//! PodTemplate: a template of pods by itself. Upstream: pkg/registry/core/podtemplate.

use std::borrow::Cow;

use apimachinery::field::{ErrorList, Path};
use apimachinery::{Doc, k};

use crate::core::{pod_defaults, pod_warnings};
use crate::kind::*;
use crate::print::{NAME, container_images, container_names, label_map};
use crate::workload;

/// Pod templates.
pub(crate) fn kind() -> Kind {
    Kind {
        columns: Cow::Borrowed(COLUMNS),
        strategy: &PodTemplate,
        ..Kind::new("", "v1", "podtemplates", "PodTemplate")
            .defaults(|doc| pod_defaults::template(doc.edit()))
    }
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::code("Containers", "string", "The template's containers.", |o, _| {
        container_names(o.get(k::TEMPLATE))
    }),
    Column::code("Images", "string", "Their images.", |o, _| container_images(o.get(k::TEMPLATE))),
    Column::code("Pod Labels", "string", "The labels of its pods.", |o, _| {
        label_map(o.get(k::TEMPLATE).get(k::METADATA).get(k::LABELS))
    }),
];

struct PodTemplate;

impl Strategy for PodTemplate {
    fn validate(&self, _op: &Op<'_>, new: &Doc, _old: Option<&Doc>, errs: &mut ErrorList) {
        workload::template(errs, new.get(k::TEMPLATE), &Path::new("template"));
    }

    fn warnings(&self, _op: &Op<'_>, new: &Doc, old: Option<&Doc>) -> Vec<String> {
        let generation = |o: &Doc| o.get(k::METADATA).get(k::GENERATION).i64();
        match old {
            Some(old) if generation(old) == generation(new) => Vec::new(),
            _ => pod_warnings::pod(new.get(k::TEMPLATE), Some(&Path::new("template"))),
        }
    }

    fn generation(&self) -> Generation {
        Generation::Body
    }
}
