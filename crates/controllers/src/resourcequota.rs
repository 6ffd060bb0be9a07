//! ResourceQuota: recalculates `status.used`. Admission adds what it lets in; what went away, and what was there before,
//! is found here. Upstream: pkg/controller/resourcequota.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::call::{BoxFuture, Options, Stored};
use apimachinery::quota_usage::{self, Usage};
use apimachinery::schema::views::core_v1::ResourceQuota;
use apimachinery::{Doc, Gvr, Ref, k};
use base::time::Timestamp;
use client::gvr::RESOURCE_QUOTAS;
use client::{Error, ObjectKey, SharedCache, WorkQueue};

use crate::manager::{Action, Controller, Ctx, Named, Read, Rule, Wakes, nothing};
use crate::objects;

/// The declaration. A key without a name stands for all quotas of its namespace: what changed there.
pub const RESOURCE_QUOTA: Controller = Controller {
    name: "resourcequota-controller",
    component: "",
    workers: 5,
    reads: &[Read { gvr: RESOURCE_QUOTAS, indexes: &[], wakes: Wakes::Itself }],
    writes: &[Rule { group: "", resources: &["resourcequotas/status"], verbs: &["update"] }],
    every_kind: Some(subscribe),
    reconcile: |ctx, key| -> BoxFuture<'static, _> { Box::pin(async move { reconcile(&ctx, &key).await }) },
    begin: nothing,
};

/// Usage shrinks when objects go and, for pods and services, when they change; growth was counted by admission, but an
/// object may also come while its quota is being made.
fn subscribe(cache: &SharedCache, kind: &Named, queue: WorkQueue<ObjectKey>) {
    if kind.namespaced && kind.gvr != RESOURCE_QUOTAS && kind.gvr.resource != "events" {
        let pods = kind.gvr == client::gvr::PODS;
        cache.subscribe(move |change| {
            // Most updates change no usage: only pods that end or begin to go, and services, do.
            if change.new.is_none() || change.old.is_none() || pods {
                queue.add(ObjectKey::new(&change.key.namespace, ""));
            }
        });
    }
}

async fn reconcile(ctx: &Ctx, key: &ObjectKey) -> Result<Action, Error> {
    if key.name.is_empty() {
        for quota in ctx.cache(&RESOURCE_QUOTAS).list_namespace(&key.namespace) {
            ctx.wake(ObjectKey::of(&quota));
        }
        return Ok(Action::Done);
    }
    let Some(stored) = ctx.cache(&RESOURCE_QUOTAS).get_key(key) else { return Ok(Action::Done) };
    let quota = stored.doc();
    let counted =
        || ctx.settings.kinds.iter().filter(|kind| kind.namespaced && is_counted(&quota, &kind.gvr));
    let mut used = Usage::new();
    for kind in counted() {
        add(&mut used, &quota, &kind.gvr, &ctx.cache(&kind.gvr).list_namespace(&key.namespace));
    }
    if status(quota.root(), &used).root().same(quota.get(k::STATUS)) {
        return Ok(Action::Done);
    }
    // Admission charges a quota in the transaction that makes the object, but the cache of the one may show it before the
    // cache of the other: what is written is counted from lists no older than the quota.
    let mut used = Usage::new();
    for kind in counted() {
        let not_older = Options { resource_version: Some(stored.revision.to_string()), ..Options::default() };
        let list = objects::resource(&ctx.client, &kind.gvr, &key.namespace).list(not_older).await?;
        add(&mut used, &quota, &kind.gvr, &list.items);
    }
    let status = status(quota.root(), &used);
    if status.root().same(quota.get(k::STATUS)) {
        return Ok(Action::Done);
    }
    let mut new = quota;
    new.edit().set(k::STATUS, status);
    // A conflict means that admission counted meanwhile: that is the newer truth to start from.
    let quotas = objects::resource(&ctx.client, &RESOURCE_QUOTAS, &key.namespace);
    let written = quotas.update_status(new).await?;
    ctx.wrote(key, &RESOURCE_QUOTAS, &written);
    Ok(Action::Done)
}

/// Adds what these objects of one kind use.
fn add(used: &mut Usage, quota: &Doc, gvr: &Gvr, objects: &[Arc<Stored>]) {
    let docs: Vec<Doc> = objects.iter().map(|s| s.doc()).collect();
    quota_usage::add_all(used, &usage(quota.root(), gvr, docs.iter().map(Doc::root), base::time::now()));
}

fn is_counted(quota: &Doc, gvr: &Gvr) -> bool {
    let resource = gvr.group_resource();
    quota_usage::hard_names(ResourceQuota(quota.root())).any(|name| quota_usage::counts(&resource, name))
}

fn usage<'a>(quota: Ref<'_>, gvr: &Gvr, objects: impl Iterator<Item = Ref<'a>>, now: Timestamp) -> Usage {
    let resource = gvr.group_resource();
    let mut sum = Usage::new();
    for object in objects.filter(|o| quota_usage::matches(ResourceQuota(quota), &resource, *o)) {
        quota_usage::add_all(&mut sum, &quota_usage::usage(&resource, object, now));
    }
    sum
}

/// `hard` as the spec says, and what is used of each of its names, 0 included.
fn status(quota: Ref<'_>, used: &Usage) -> Doc {
    let hard = quota.get(k::SPEC).get(k::HARD);
    let mut out = Doc::object();
    out.edit().set(k::HARD, hard);
    let mut edit = out.edit().at(k::USED);
    let limited: BTreeMap<&str, Ref<'_>> = hard.entries().collect();
    for name in limited.keys() {
        let amount = used.get(*name).map_or_else(|| "0".to_owned(), ToString::to_string);
        edit.set(*name, amount);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::doc;
    use client::gvr::PODS;

    #[test]
    fn used_is_the_sum_over_what_the_quota_counts() {
        let quota = doc!({ "spec": { "hard": { "requests.cpu": "1", "pods": "3", "configmaps": "10" } } });
        let pod = |cpu: &str, phase: &str| {
            doc!({ "status": { "phase": phase },
                "spec": { "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpu } } }] } })
        };
        let pods = [pod("200m", "Running"), pod("300m", "Pending"), pod("1", "Succeeded")];
        let now = "2026-01-01T00:00:00Z".parse().expect("a time");
        let used = usage(quota.root(), &PODS, pods.iter().map(Doc::root), now);
        let want = doc!({ "hard": { "requests.cpu": "1", "pods": "3", "configmaps": "10" },
            "used": { "configmaps": "0", "pods": "2", "requests.cpu": "500m" } });
        assert_eq!(status(quota.root(), &used), want);
        assert!(is_counted(&quota, &PODS) && !is_counted(&quota, &client::gvr::SECRETS));
    }
}
