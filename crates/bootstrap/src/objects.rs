//! The objects that every cluster has: namespaces, roles, priority classes, the DNS Service.

use apimachinery::{Doc, Gvr, Status, doc, k};
use client::gvr::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, NAMESPACES, ROLE_BINDINGS, ROLES, SERVICES};
use client::{Client, Error};
use futures_util::future::try_join_all;

use crate::policy;

const PRIORITY_CLASSES: Gvr = Gvr::new("scheduling.k8s.io", "v1", "priorityclasses");

/// The four standard namespaces.
pub const STANDARD_NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// Makes what is missing, and brings the default roles back to what they should be unless their
/// `rbac.authorization.kubernetes.io/autoupdate` annotation says `false`. `controller_roles` are those of the
/// controllers' declarations.
///
/// # Errors
/// The first failure other than "exists already".
pub async fn ensure(
    client: &Client,
    controller_roles: Vec<Doc>,
    dns_address: Option<std::net::IpAddr>,
) -> Result<(), Error> {
    // All at once within each step: the store makes durable together what comes together.
    try_join_all(STANDARD_NAMESPACES.iter().map(|name| {
        let namespace = doc!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        create_missing(client, NAMESPACES, "", namespace)
    }))
    .await?;
    let (mut roles, mut bindings) = (policy::cluster_roles(), policy::cluster_role_bindings());
    for object in controller_roles {
        if object.get(k::KIND).str() == "ClusterRole" { roles.push(object) } else { bindings.push(object) }
    }
    let [role, binding] = policy::dns_announcer();
    let (to_roles, to_bindings) = (CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS);
    let mut all: Vec<_> = roles.into_iter().map(|role| (to_roles.clone(), role, k::RULES)).collect();
    all.extend(bindings.into_iter().map(|binding| (to_bindings.clone(), binding, k::SUBJECTS)));
    all.extend([(ROLES, role, k::RULES), (ROLE_BINDINGS, binding, k::SUBJECTS)]);
    try_join_all(all.into_iter().map(|(gvr, object, list)| reconcile(client, gvr, object, list))).await?;
    let classes = [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];
    try_join_all(classes.iter().map(|(name, value)| {
        let class = doc!({ "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": { "name": name },
            "value": value, "description": "Reserved for the cluster's own pods." });
        create_missing(client, PRIORITY_CLASSES, "", class)
    }))
    .await?;
    if let Some(address) = dns_address {
        create_missing(client, SERVICES, "kube-system", dns_service(address)).await?;
    }
    Ok(())
}

/// The cluster DNS as a Service; its endpoints are the nodes' own servers, written by them.
fn dns_service(address: std::net::IpAddr) -> Doc {
    doc!({ "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "kube-dns", "namespace": "kube-system",
            "labels": { "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS" } },
        "spec": { "clusterIP": address.to_string(), "ports": [
            { "name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53 },
            { "name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53 } ] } })
}

async fn create_missing(client: &Client, gvr: Gvr, namespace: &str, object: Doc) -> Result<(), Error> {
    let resource = client.namespaced(gvr, namespace);
    match resource.get(object.get(k::METADATA).get(k::NAME).str()).await {
        Ok(_) => return Ok(()),
        Err(err) if err.is_not_found() => {}
        Err(err) => return Err(err),
    }
    match resource.create(object).await {
        Err(Error::Status(status)) if Status::is_already_exists(&status) => Ok(()),
        other => other.map(|_| ()),
    }
}

/// Creates, or adds what a default object has and the stored one lacks: permissions that an administrator
/// added stay.
async fn reconcile(client: &Client, gvr: Gvr, wanted: Doc, list: apimachinery::Key) -> Result<(), Error> {
    let namespace = wanted.get(k::METADATA).get(k::NAMESPACE).str().to_owned();
    let resource = client.namespaced(gvr.clone(), &namespace);
    let stored = match resource.get(wanted.get(k::METADATA).get(k::NAME).str()).await {
        Ok(stored) => stored,
        Err(err) if err.is_not_found() => return create_missing(client, gvr, &namespace, wanted).await,
        Err(err) => return Err(err),
    };
    let mut object = stored.doc();
    let automatic =
        object.get(k::METADATA).get(k::ANNOTATIONS).get("rbac.authorization.kubernetes.io/autoupdate").str();
    if automatic == "false" {
        return Ok(());
    }
    let missing: Vec<Doc> = wanted
        .get(list)
        .items()
        .filter(|want| !object.get(list).items().any(|have| have.same(*want)))
        .map(|want| want.to_doc())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    for item in missing {
        object.edit().list(list).push(item);
    }
    resource.update(object).await.map(|_| ())
}
