//! Every pod runs as a service account of its namespace and finds its token, unless it declines.
//! Upstream: plugin/pkg/admission/serviceaccount.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::call::BoxFuture;
use apimachinery::call::Stored;
use apimachinery::gvk::GroupResource;
use apimachinery::{Doc, Ref, Status, doc, k};

use super::{Attributes, Operation, Plugin};
use crate::cacher::{Lister, Selection};

const ACCOUNTS: GroupResource = GroupResource::new("", "serviceaccounts");
/// Where the token is found in a container.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// An hour, and a little so that it can be told from a number that someone chose.
const TOKEN_SECONDS: i64 = 3607;
const MIRROR: &str = "kubernetes.io/config.mirror";
/// How long a pod in a new namespace waits for the `default` account.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// The plugin.
pub struct ServiceAccount;

impl Plugin for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn admit<'a>(&'a self, attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            if attributes.operation != Operation::Create || !attributes.is_core("pods", "") {
                return Ok(());
            }
            // A mirror pod shows what a node runs already; it gets nothing from the cluster.
            if attributes.object.get(k::METADATA).get(k::ANNOTATIONS).get(MIRROR).exists() {
                return check_mirror(attributes);
            }
            complete(attributes).await
        })
    }
}

fn check_mirror(attributes: &Attributes<'_>) -> Result<(), Status> {
    let spec = attributes.object.get(k::SPEC);
    if !spec.get(k::SERVICE_ACCOUNT_NAME).str().is_empty() {
        return Err(attributes.forbidden("a mirror pod may not reference service accounts"));
    }
    let sources = |v: Ref<'_>| {
        v.get(k::PROJECTED).get(k::SOURCES).items().any(|s| s.get(k::SERVICE_ACCOUNT_TOKEN).is_set())
    };
    if spec.get(k::VOLUMES).items().any(sources) {
        return Err(attributes.forbidden("a mirror pod may not use ServiceAccountToken volume projections"));
    }
    Ok(())
}

async fn complete(attributes: &mut Attributes<'_>) -> Result<(), Status> {
    let mut spec = attributes.object.edit().at(k::SPEC);
    let name = match spec.read().get(k::SERVICE_ACCOUNT_NAME).str() {
        "" => "default".to_owned(),
        name => name.to_owned(),
    };
    spec.set(k::SERVICE_ACCOUNT_NAME, &name).set(k::SERVICE_ACCOUNT, &name);
    let Some(account) = find(attributes, &name).await else {
        let namespace = attributes.namespace();
        let why =
            format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
        return Err(attributes.forbidden(&why));
    };
    let account = account.kept();
    let spec = attributes.object.get(k::SPEC);
    let own = spec.get(k::AUTOMOUNT_SERVICE_ACCOUNT_TOKEN).opt_bool();
    if own.or(account.get(k::AUTOMOUNT_SERVICE_ACCOUNT_TOKEN).opt_bool()).unwrap_or(true) {
        mount(&mut attributes.object);
    }
    let secrets = account.get(k::IMAGE_PULL_SECRETS);
    if attributes.object.get(k::SPEC).get(k::IMAGE_PULL_SECRETS).is_empty() && !secrets.is_empty() {
        attributes.object.edit().at(k::SPEC).set(k::IMAGE_PULL_SECRETS, secrets);
    }
    Ok(())
}

/// The account; the `default` one of a new namespace is waited for.
async fn find(attributes: &Attributes<'_>, name: &str) -> Option<Arc<Stored>> {
    let (cacher, namespace) = (&attributes.request.api.cacher, attributes.namespace());
    let found = cacher.get(&ACCOUNTS, namespace, name);
    if found.is_some() || name != "default" {
        return found;
    }
    let collection = cacher.collection(&ACCOUNTS)?;
    let selection =
        Selection::new(&collection.kind, collection.kind.stored, namespace, "", "metadata.name=default")
            .ok()?;
    let (items, mut registration, _) = collection.list_and_watch(&selection, || cacher.reached());
    if let Some(item) = items.into_iter().next() {
        return Some(item);
    }
    let change = base::time::timeout(WAIT_MAX, registration.changes.next()).await.ok()??;
    change.new.clone()
}

/// Adds the volume with the token and mounts it wherever nothing else is mounted.
fn mount(pod: &mut Doc) {
    let bare =
        |c: Ref<'_>| !c.get(k::VOLUME_MOUNTS).items().any(|m| m.get(k::MOUNT_PATH).str() == MOUNT_PATH);
    let spec = pod.get(k::SPEC);
    let lists = [k::INIT_CONTAINERS, k::CONTAINERS];
    if !lists.iter().any(|list| spec.get(*list).items().any(bare)) {
        return;
    }
    let has_token = |v: Ref<'_>| {
        v.get(k::PROJECTED).get(k::SOURCES).items().any(|s| s.get(k::SERVICE_ACCOUNT_TOKEN).is_set())
    };
    let given = spec
        .get(k::VOLUMES)
        .items()
        .find(|v| v.get(k::NAME).str().starts_with(VOLUME_PREFIX) && has_token(*v));
    let name = match given {
        Some(volume) => volume.get(k::NAME).str().to_owned(),
        None => crate::registry::change::draw_name(VOLUME_PREFIX),
    };
    if given.is_none() {
        pod.edit().at(k::SPEC).list(k::VOLUMES).push(volume(&name));
    }
    for list in lists {
        let Some(containers) = pod.edit().at(k::SPEC).existing(list) else { continue };
        let mut containers = containers;
        containers.for_each(|container| {
            if bare(container.read()) {
                container
                    .list(k::VOLUME_MOUNTS)
                    .push(doc!({ "name": name, "readOnly": true, "mountPath": MOUNT_PATH }));
            }
        });
    }
}

fn volume(name: &str) -> Doc {
    doc!({ "name": name, "projected": { "sources": [
        { "serviceAccountToken": { "expirationSeconds": TOKEN_SECONDS, "path": "token" } },
        { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
        { "downwardAPI": { "items": [{ "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } }] } } ],
        "defaultMode": 420 } })
}
