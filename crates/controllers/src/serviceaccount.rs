//! Every active namespace has its ServiceAccount `default`. Upstream: pkg/controller/serviceaccount/serviceaccounts_controller.go.

use apimachinery::call::BoxFuture;
use apimachinery::{doc, k};
use client::gvr::{NAMESPACES, SERVICE_ACCOUNTS};
use client::{Error, ObjectKey};

use crate::manager::{Action, Controller, Ctx, Read, Rule, Wakes, nothing};
use crate::objects;

/// The declaration. Keys are namespaces.
pub const SERVICE_ACCOUNT: Controller = Controller {
    name: "service-account-controller",
    component: "",
    workers: 1,
    reads: &[
        Read { gvr: NAMESPACES, indexes: &[], wakes: Wakes::Itself },
        Read {
            gvr: SERVICE_ACCOUNTS,
            indexes: &[("name", objects::by_name)],
            wakes: Wakes::Through {
                index: "name",
                map: |_, namespace, name| match name {
                    "default" => vec![ObjectKey::new("", namespace)],
                    _ => Vec::new(),
                },
            },
        },
    ],
    writes: &[Rule { group: "", resources: &["serviceaccounts"], verbs: &["create"] }],
    every_kind: None,
    reconcile: |ctx, key| -> BoxFuture<'static, _> { Box::pin(async move { reconcile(&ctx, &key).await }) },
    begin: nothing,
};

async fn reconcile(ctx: &Ctx, key: &ObjectKey) -> Result<Action, Error> {
    let Some(namespace) = ctx.cache(&NAMESPACES).get_key(key) else { return Ok(Action::Done) };
    let there = ctx.cache(&SERVICE_ACCOUNTS).get(&key.name, "default").is_some();
    if there || namespace.doc().get(k::STATUS).get(k::PHASE).str() == "Terminating" {
        return Ok(Action::Done);
    }
    let account = doc!({ "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": { "name": "default", "namespace": key.name } });
    match objects::resource(&ctx.client, &SERVICE_ACCOUNTS, &key.name).create(account).await {
        Ok(written) => ctx.wrote(key, &SERVICE_ACCOUNTS, &written),
        Err(err) if err.is_already_exists() || err.is_namespace_terminating() || err.is_not_found() => {}
        Err(err) => return Err(err),
    }
    Ok(Action::Done)
}
