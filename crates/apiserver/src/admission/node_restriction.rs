//! A node changes only itself, its own pods and its own heartbeat. Upstream: plugin/pkg/admission/noderestriction.

use apimachinery::call::BoxFuture;
use apimachinery::gvk::GroupResource;
use apimachinery::{Doc, Ref, Status, k};

use super::{Attributes, Operation, Plugin};
use crate::cacher::Lister;

const PODS: GroupResource = GroupResource::new("", "pods");

const MIRROR: &str = "kubernetes.io/config.mirror";
/// Labels with these prefixes are the cluster's to set, not a node's.
const RESERVED: &str = "node-restriction.kubernetes.io";
/// Of `kubernetes.io` and `k8s.io` labels a node sets these only.
const OWN_LABELS: [&str; 9] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
const OWN_DOMAINS: [&str; 4] = [
    "kubelet.kubernetes.io",
    "node.kubernetes.io",
    "failure-domain.beta.kubernetes.io",
    "feature.node.kubernetes.io",
];

/// The plugin.
pub struct NodeRestriction;

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn admit<'a>(&'a self, attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move { check(attributes) })
    }
}

/// The node that asks, if it is one; a node without a name has no rights at all.
fn node_of<'a>(attributes: &'a Attributes<'_>) -> Option<&'a str> {
    let user = &attributes.request.user;
    let is_node = user.groups.iter().any(|g| g == "system:nodes");
    is_node.then(|| user.name.strip_prefix("system:node:").unwrap_or(""))
}

fn check(attributes: &Attributes<'_>) -> Result<(), Status> {
    let Some(node) = node_of(attributes) else { return Ok(()) };
    if node.is_empty() {
        let why = format!("could not determine node from user {:?}", attributes.request.user.name);
        return Err(attributes.forbidden(&why));
    }
    let resource = attributes.resource();
    let subresource = attributes.request.target.subresource.as_str();
    match (&*resource.group, &*resource.resource, subresource) {
        ("", "pods", "") => pod(attributes, node),
        ("", "pods", "status") => {
            own_pod(attributes, node, "can only update pod status for pods with spec.nodeName set to itself")
        }
        ("", "pods", "eviction") => {
            own_pod(attributes, node, "can only evict pods with spec.nodeName set to itself")
        }
        ("", "nodes", _) => own_node(attributes, node),
        ("", "serviceaccounts", "token") => token(attributes, node),
        ("coordination.k8s.io", "leases", _) => lease(attributes, node),
        _ => Ok(()),
    }
}

/// A node asks for tokens of its own pods only, bound to them, and for the audiences that their volumes name.
fn token(attributes: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let (request, spec) = (attributes.request, attributes.object.get(k::SPEC));
    let reference = spec.get("boundObjectRef");
    let refuse = |why: String| Err(attributes.forbidden(&why));
    let (name, uid) = (reference.get(k::NAME).str(), reference.get(k::UID).str());
    if reference.get(k::KIND).str() != "Pod" || name.is_empty() {
        return refuse("node requested token not bound to a pod".into());
    }
    if uid.is_empty() {
        return refuse("node requested token with a pod binding without a uid".into());
    }
    let Some(pod) = request.api.cacher.get(&PODS, &request.target.namespace, name) else {
        return Err(Status::not_found(&PODS, name));
    };
    let pod = pod.doc();
    if pod.get(k::METADATA).get(k::UID).str() != uid {
        return refuse(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        ));
    }
    if node_name(&pod) != node {
        return refuse("node requested token bound to a pod scheduled on a different node".into());
    }
    let audiences = spec.get(k::AUDIENCES);
    if audiences.len() > 1 {
        return refuse("node may only request 0 or 1 audiences".into());
    }
    let audience = audiences.item(0).str();
    let sources = |volume: Ref<'_>| {
        volume.get(k::PROJECTED).get(k::SOURCES).items().any(|source| {
            let token = source.get(k::SERVICE_ACCOUNT_TOKEN);
            token.is_set() && token.get(k::AUDIENCE).str() == audience
        })
    };
    if !pod.get(k::SPEC).get(k::VOLUMES).items().any(sources) {
        return refuse(format!(
            "audience {audience:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
            request.user.name
        ));
    }
    Ok(())
}

fn refuse(attributes: &Attributes<'_>, why: &str) -> Status {
    attributes.forbidden(why)
}

fn node_name(pod: &Doc) -> &str {
    pod.get(k::SPEC).get(k::NODE_NAME).str()
}

fn own_pod(attributes: &Attributes<'_>, node: &str, why: &str) -> Result<(), Status> {
    let pod = attributes.old.unwrap_or(&attributes.object);
    if node_name(pod) != node {
        return Err(refuse(attributes, &format!("node {node:?} {why}")));
    }
    let labels = |d: &Doc| d.get(k::METADATA).get(k::LABELS).to_doc();
    if attributes.operation == Operation::Update && labels(pod) != labels(&attributes.object) {
        return Err(refuse(attributes, &format!("node {node:?} cannot update labels through pod status")));
    }
    Ok(())
}

fn pod(attributes: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let new = &attributes.object;
    match attributes.operation {
        Operation::Delete => {
            own_pod(attributes, node, "can only delete pods with spec.nodeName set to itself")
        }
        Operation::Update | Operation::Connect => {
            Err(refuse(attributes, &format!("node {node:?} cannot update pods")))
        }
        Operation::Create => {
            if !new.get(k::METADATA).get(k::ANNOTATIONS).get(MIRROR).exists() {
                return Err(refuse(
                    attributes,
                    &format!(
                        "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
                    ),
                ));
            }
            if node_name(new) != node {
                return Err(refuse(
                    attributes,
                    &format!("node {node:?} can only create pods with spec.nodeName set to itself"),
                ));
            }
            let owners = new.get(k::METADATA).get(k::OWNER_REFERENCES);
            let by_node = |o: Ref<'_>| {
                o.get(k::KIND).str() == "Node" && o.get(k::NAME).str() == node && o.get(k::CONTROLLER).bool()
            };
            if owners.len() > 1 || owners.items().any(|o| !by_node(o)) {
                return Err(refuse(
                    attributes,
                    &format!("node {node:?} can only create pods with an owner reference set to itself"),
                ));
            }
            Ok(())
        }
    }
}

fn own_node(attributes: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let requested = if attributes.name.is_empty() {
        attributes.object.get(k::METADATA).get(k::NAME).str()
    } else {
        attributes.name
    };
    if requested != node {
        return Err(refuse(
            attributes,
            &format!("node {node:?} is not allowed to modify node {requested:?}"),
        ));
    }
    let new = &attributes.object;
    match (attributes.operation, attributes.old) {
        (Operation::Create, _) => {
            if new.get(k::SPEC).get(k::CONFIG_SOURCE).is_set() {
                return Err(refuse(
                    attributes,
                    &format!("node {node:?} is not allowed to create pods with a non-nil configSource"),
                ));
            }
            labels(attributes, node, Ref::absent())
        }
        (Operation::Update, Some(old)) => {
            let taints = |d: &Doc| d.get(k::SPEC).get(k::TAINTS).to_doc();
            if taints(old) != taints(new) {
                return Err(refuse(attributes, &format!("node {node:?} is not allowed to modify taints")));
            }
            let owners = |d: &Doc| d.get(k::METADATA).get(k::OWNER_REFERENCES).to_doc();
            if owners(old) != owners(new) {
                return Err(refuse(
                    attributes,
                    &format!("node {node:?} is not allowed to modify ownerReferences"),
                ));
            }
            labels(attributes, node, old.get(k::METADATA).get(k::LABELS))
        }
        _ => Err(refuse(attributes, &format!("node {node:?} is not allowed to delete itself"))),
    }
}

fn labels(attributes: &Attributes<'_>, node: &str, old: Ref<'_>) -> Result<(), Status> {
    let new = attributes.object.get(k::METADATA).get(k::LABELS);
    let changed = |name: &str| old.get(name).opt_str() != new.get(name).opt_str();
    let names = old.fields().chain(new.fields()).map(Ref::name);
    let mut refused: Vec<&str> = names.filter(|name| changed(name) && is_reserved(name)).collect();
    refused.sort_unstable();
    refused.dedup();
    if refused.is_empty() {
        return Ok(());
    }
    let verb = if attributes.operation == Operation::Create { "set" } else { "modify" };
    Err(refuse(attributes, &format!("is not allowed to {verb} the following labels: {}", refused.join(", ")))
        .cause("", node, "metadata.labels"))
}

fn is_reserved(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let within = |parent: &str| domain == parent || domain.ends_with(&format!(".{parent}"));
    if within(RESERVED) {
        return true;
    }
    (within("kubernetes.io") || within("k8s.io"))
        && !OWN_LABELS.contains(&label)
        && !OWN_DOMAINS.iter().any(|d| within(d))
}

fn lease(attributes: &Attributes<'_>, node: &str) -> Result<(), Status> {
    if attributes.namespace() != "kube-node-lease" {
        return Err(refuse(attributes, "can only access leases in the \"kube-node-lease\" system namespace"));
    }
    let name = if attributes.name.is_empty() {
        attributes.object.get(k::METADATA).get(k::NAME).str()
    } else {
        attributes.name
    };
    if name != node {
        return Err(refuse(
            attributes,
            "can only access node lease with the same name as the requesting node",
        ));
    }
    Ok(())
}
