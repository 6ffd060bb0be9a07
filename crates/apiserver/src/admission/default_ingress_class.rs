//! An Ingress that names no class gets the default one: the newest that says it is.
//! Upstream: plugin/pkg/admission/network/defaultingressclass.

use std::cmp::Reverse;

use apimachinery::call::BoxFuture;
use apimachinery::gvk::GroupResource;
use apimachinery::{Ref, Status, k};

use super::{Attributes, Operation, Plugin};
use crate::cacher::Lister;

const CLASSES: GroupResource = GroupResource::new("networking.k8s.io", "ingressclasses");
const INGRESSES: GroupResource = GroupResource::new("networking.k8s.io", "ingresses");
const IS_DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";

/// The plugin.
pub struct DefaultIngressClass;

impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn admit<'a>(&'a self, attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            let annotation = |object: Ref<'_>, name: &str| {
                object.get(k::METADATA).get(k::ANNOTATIONS).get(name).opt_str().map(str::to_owned)
            };
            let object = &attributes.object;
            if attributes.operation != Operation::Create
                || *attributes.resource() != INGRESSES
                || !attributes.request.target.subresource.is_empty()
                || object.get(k::SPEC).get(k::INGRESS_CLASS_NAME).is_set()
                || annotation(object.root(), api::INGRESS_CLASS_ANNOTATION).is_some()
            {
                return Ok(());
            }
            let all = attributes.request.api.cacher.list(&CLASSES, "");
            let default =
                all.iter().filter(|c| annotation(c.kept().root(), IS_DEFAULT).as_deref() == Some("true"));
            let newest = default.min_by_key(|class| {
                let created = class.kept().get(k::METADATA).get(k::CREATION_TIMESTAMP).str().to_owned();
                (Reverse(created), class.name().to_owned())
            });
            if let Some(class) = newest {
                attributes.object.edit().at(k::SPEC).set(k::INGRESS_CLASS_NAME, class.name());
            }
            Ok(())
        })
    }
}
