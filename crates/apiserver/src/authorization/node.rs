//! What kubelets may do: their own Node and Lease, the pods bound to them, and what those pods refer to.
//!
//! Upstream: plugin/pkg/auth/authorizer/node. There a graph is kept; here the pods of one node are few and found by
//! index, so the question is answered from them.

use std::sync::Arc;

use apimachinery::gvk::GroupResource;
use apimachinery::{Ref, k};

use super::{Attributes, Authorizer, Decision};
use crate::cacher::Lister;

const PODS: GroupResource = GroupResource::new("", "pods");

/// Decides for users `system:node:<name>` in the group `system:nodes`.
pub struct Node {
    lister: Arc<dyn Lister>,
}

impl Node {
    /// Finds pods through `lister`.
    pub fn new(lister: Arc<dyn Lister>) -> Node {
        Node { lister }
    }

    fn decide(&self, node: &str, a: &Attributes<'_>) -> bool {
        if !a.is_resource() {
            return a.verb == "get" && a.path == format!("/keelson/v1/nodes/{node}/tunnel");
        }
        let read = matches!(a.verb, "get" | "list" | "watch");
        match (a.group, a.resource, a.subresource) {
            // Which names and fields a node may write is NodeRestriction's to check.
            // A list or watch has the name that its selector demands.
            ("", "nodes", "") => {
                a.verb == "create" || (read || matches!(a.verb, "update" | "patch")) && a.name == node
            }
            ("", "nodes", "status") => matches!(a.verb, "update" | "patch") && a.name == node,
            ("", "pods", "") => match a.verb {
                "create" | "delete" => true,
                "get" => self.is_own(node, a),
                "list" | "watch" => a.demands("spec.nodeName", node),
                _ => false,
            },
            ("", "pods", "status") => matches!(a.verb, "update" | "patch"),
            ("", "pods", "eviction") => a.verb == "create",
            ("", "services", "") | ("node.k8s.io", "runtimeclasses", "") => read,
            ("", "events", "") | ("events.k8s.io", "events", "") => {
                matches!(a.verb, "create" | "update" | "patch")
            }
            ("coordination.k8s.io", "leases", "") => {
                let own = a.namespace == "kube-node-lease" && (a.name == node || a.name.is_empty());
                own && matches!(a.verb, "get" | "create" | "update" | "patch" | "delete")
            }
            ("", "configmaps" | "secrets", "") => {
                read && !a.name.is_empty() && self.refers(node, a, refers_to)
            }
            ("", "serviceaccounts", "token") => {
                a.verb == "create" && self.refers(node, a, |pod, a| account(pod) == a.name)
            }
            ("", "serviceaccounts", "") => {
                a.verb == "get" && self.refers(node, a, |pod, a| account(pod) == a.name)
            }
            ("authentication.k8s.io", "tokenreviews", "")
            | ("authorization.k8s.io", "subjectaccessreviews", "") => a.verb == "create",
            _ => false,
        }
    }

    fn is_own(&self, node: &str, a: &Attributes<'_>) -> bool {
        let pod = self.lister.get(&PODS, a.namespace, a.name);
        pod.is_some_and(|item| item.kept().get(k::SPEC).get(k::NODE_NAME).str() == node)
    }

    fn refers(
        &self,
        node: &str,
        a: &Attributes<'_>,
        test: impl Fn(Ref<'_>, &Attributes<'_>) -> bool,
    ) -> bool {
        let pods = self.lister.list_by(&PODS, "spec.nodeName", node);
        pods.iter().any(|item| {
            let pod = item.kept();
            pod.get(k::METADATA).get(k::NAMESPACE).str() == a.namespace && test(pod.get(k::SPEC), a)
        })
    }
}

fn account<'a>(spec: Ref<'a>) -> &'a str {
    spec.get(k::SERVICE_ACCOUNT_NAME).str()
}

/// Whether a pod's spec names the ConfigMap or Secret that is asked for.
fn refers_to(spec: Ref<'_>, a: &Attributes<'_>) -> bool {
    let secret = a.resource == "secrets";
    let named = |at: Ref<'_>, key| at.get(key).str() == a.name;
    let (volume, reference, env) = if secret {
        (k::SECRET, k::SECRET_REF, k::SECRET_KEY_REF)
    } else {
        (k::CONFIG_MAP, k::CONFIG_MAP_REF, k::CONFIG_MAP_KEY_REF)
    };
    let in_volume = |v: Ref<'_>| {
        let direct = v.get(volume);
        named(direct, if secret { k::SECRET_NAME } else { k::NAME })
            || v.get(k::PROJECTED).get(k::SOURCES).items().any(|s| named(s.get(volume), k::NAME))
    };
    let in_container = |c: Ref<'_>| {
        c.get(k::ENV_FROM).items().any(|e| named(e.get(reference), k::NAME))
            || c.get(k::ENV).items().any(|e| named(e.get(k::VALUE_FROM).get(env), k::NAME))
    };
    let containers = [k::CONTAINERS, k::INIT_CONTAINERS, k::EPHEMERAL_CONTAINERS];
    spec.get(k::VOLUMES).items().any(in_volume)
        || containers.iter().any(|list| spec.get(*list).items().any(in_container))
        || (secret && spec.get(k::IMAGE_PULL_SECRETS).items().any(|s| named(s, k::NAME)))
}

impl Authorizer for Node {
    fn authorize(&self, a: &Attributes<'_>) -> Decision {
        let Some(node) = a.user.name.strip_prefix("system:node:") else {
            return Decision::NoOpinion(String::new());
        };
        if !a.user.groups.iter().any(|g| g == "system:nodes") {
            return Decision::NoOpinion(String::new());
        }
        if self.decide(node, a) {
            return Decision::Allow(format!("node {node:?}"));
        }
        Decision::NoOpinion(format!("no relationship found between node {node:?} and this object"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::call::User;
    use apimachinery::doc;

    #[test]
    fn pods_name_their_secrets_in_many_places() {
        let user = User::new("system:node:n", &["system:nodes"]);
        let ask = |resource, name| Attributes {
            version: "v1",
            resource,
            namespace: "a",
            name,
            ..Attributes::of(&user, "get")
        };
        let spec = doc!({
            "volumes": [{ "name": "v", "secret": { "secretName": "in-volume" } }, { "name": "p", "projected": { "sources": [{ "configMap": { "name": "kube-root-ca.crt" } }] } }],
            "containers": [{ "name": "c", "env": [{ "name": "E", "valueFrom": { "secretKeyRef": { "name": "in-env", "key": "k" } } }], "envFrom": [{ "configMapRef": { "name": "all" } }] }],
            "imagePullSecrets": [{ "name": "pull" }] });
        for (resource, name, expected) in [
            ("secrets", "in-volume", true),
            ("secrets", "in-env", true),
            ("secrets", "pull", true),
            ("secrets", "all", false),
            ("configmaps", "all", true),
            ("configmaps", "kube-root-ca.crt", true),
            ("configmaps", "pull", false),
        ] {
            assert_eq!(refers_to(spec.root(), &ask(resource, name)), expected, "{resource} {name}");
        }
    }
}
