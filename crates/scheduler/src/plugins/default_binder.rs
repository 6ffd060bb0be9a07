//! DefaultBinder: binds through the pod's `binding` subresource. Upstream: plugins/defaultbinder.

use apimachinery::call::BoxFuture;
use apimachinery::doc;
use client::gvr::PODS;

use crate::framework::{Assumed, Bind, Code, Handle, Member, Rejection};

/// The plugin.
pub const MEMBER: Member = Member { bind: Some(&DefaultBinder), ..Member::new("DefaultBinder") };

struct DefaultBinder;

impl Bind for DefaultBinder {
    fn bind<'a>(&'a self, handle: &'a Handle, pod: &'a Assumed) -> BoxFuture<'a, Result<bool, Rejection>> {
        Box::pin(async move {
            let key = &pod.pod.key;
            let binding = doc!({
                "apiVersion": "v1", "kind": "Binding",
                "metadata": { "name": &key.name, "namespace": &key.namespace, "uid": &pod.pod.uid },
                "target": { "kind": "Node", "name": &pod.node },
            });
            let pods = handle.client.namespaced(PODS, &key.namespace);
            match pods.create_subresource(&key.name, "binding", binding).await {
                Ok(_) => Ok(true),
                Err(err) => Err(Rejection::new(Code::Error, err.to_string())),
            }
        })
    }
}
