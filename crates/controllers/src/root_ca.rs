//! Every active namespace has the cluster's authority in the ConfigMap `kube-root-ca.crt`, and nothing else in it.
//! Upstream: pkg/controller/certificates/rootcacertpublisher.

use apimachinery::call::BoxFuture;
use apimachinery::{doc, k};
use client::cache::Entering;
use client::gvr::{CONFIG_MAPS, NAMESPACES};
use client::{Error, ObjectKey};

use crate::manager::{Action, Controller, Ctx, Read, Rule, Wakes, nothing};
use crate::objects;

const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const DESCRIBED: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints \
    such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of \
    Kubernetes clusters.";

/// The declaration. Keys are namespaces.
pub const ROOT_CA: Controller = Controller {
    name: "root-ca-cert-publisher",
    component: "",
    workers: 1,
    reads: &[
        Read { gvr: NAMESPACES, indexes: &[], wakes: Wakes::Itself },
        Read {
            gvr: CONFIG_MAPS,
            indexes: &[("root-ca", ours)],
            wakes: Wakes::Through {
                index: "root-ca",
                map: |_, namespace, _| vec![ObjectKey::new("", namespace)],
            },
        },
    ],
    writes: &[Rule { group: "", resources: &["configmaps"], verbs: &["create", "update"] }],
    every_kind: None,
    reconcile: |ctx, key| -> BoxFuture<'static, _> { Box::pin(async move { reconcile(&ctx, &key).await }) },
    begin: nothing,
};

/// Index: one value for the ConfigMap that is kept here, none for all the others.
fn ours(object: &Entering<'_>) -> Vec<String> {
    if object.name() == NAME { vec![String::new()] } else { Vec::new() }
}

async fn reconcile(ctx: &Ctx, key: &ObjectKey) -> Result<Action, Error> {
    let Some(namespace) = ctx.cache(&NAMESPACES).get_key(key) else { return Ok(Action::Done) };
    if namespace.doc().get(k::STATUS).get(k::PHASE).str() == "Terminating" {
        return Ok(Action::Done);
    }
    let wanted = doc!({ "ca.crt": ctx.settings.root_ca });
    let maps = objects::resource(&ctx.client, &CONFIG_MAPS, &key.name);
    let written = match ctx.cache(&CONFIG_MAPS).get(&key.name, NAME).map(|s| s.doc()) {
        Some(map)
            if map.get(k::DATA).same(wanted.root())
                && objects::annotation(map.root(), DESCRIPTION) == DESCRIBED =>
        {
            return Ok(Action::Done);
        }
        Some(mut map) => {
            map.edit().set(k::DATA, wanted);
            map.edit().at(k::METADATA).at(k::ANNOTATIONS).set(DESCRIPTION, DESCRIBED);
            maps.update(map).await
        }
        None => {
            let mut map = doc!({ "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "name": NAME, "namespace": key.name, "annotations": { DESCRIPTION: DESCRIBED } } });
            map.edit().set(k::DATA, wanted);
            maps.create(map).await
        }
    };
    match written {
        Ok(written) => ctx.wrote(key, &CONFIG_MAPS, &written),
        Err(err) if err.is_already_exists() || err.is_namespace_terminating() || err.is_not_found() => {}
        Err(err) => return Err(err),
    }
    Ok(Action::Done)
}
