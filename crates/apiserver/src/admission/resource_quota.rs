//! No more in a namespace than its quotas allow. The charge is written in the transaction that makes the object, so
//! that a quota is never exceeded and never charged for nothing.
//! Upstream: k8s.io/apiserver/pkg/admission/plugin/resourcequota, whose charge is a write of its own before the object.

use apimachinery::gvk::GroupResource;
use apimachinery::quota_usage::{self, Usage};
use apimachinery::schema::views::core_v1::{Pod, ResourceQuota as Quota};
use apimachinery::{Doc, Status, k};
use storage::Op;

use super::{Attributes, Operation, Plugin};
use crate::cacher::Lister;
use crate::registry::store::{self, Writes};

const QUOTAS: GroupResource = GroupResource::new("", "resourcequotas");

/// The plugin.
pub struct ResourceQuota;

impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn reserve(&self, attributes: &Attributes<'_>, along: &mut Writes) -> Result<(), Status> {
        let request = attributes.request;
        if attributes.namespace().is_empty()
            || attributes.operation == Operation::Delete
            || !(request.target.subresource.is_empty() || attributes.is_core("pods", "resize"))
        {
            return Ok(());
        }
        let quotas = request.api.cacher.list(&QUOTAS, attributes.namespace());
        if quotas.is_empty() {
            return Ok(());
        }
        let Some(kind) = request.api.kinds.stored(&QUOTAS) else { return Ok(()) };
        let (resource, object) = (attributes.resource(), attributes.object.root());
        let mut delta = quota_usage::usage(resource, object, request.now);
        if let Some(old) = attributes.old {
            delta = quota_usage::difference(&delta, &quota_usage::usage(resource, old.root(), request.now));
        }
        for item in quotas {
            let quota = item.kept();
            if !quota_usage::matches(Quota(quota.root()), resource, object) {
                continue;
            }
            if let Some(used) = charge(attributes, quota, &delta)? {
                let key = kind.key(item.namespace(), item.name());
                along.add(item.revision, Op::put(key, store::encode(&kind, &used)));
            }
        }
        Ok(())
    }
}

/// The quota with the charge on it; `None` when it is not touched.
fn charge(attributes: &Attributes<'_>, quota: &Doc, delta: &Usage) -> Result<Option<Doc>, Status> {
    let name = quota.get(k::METADATA).get(k::NAME).str();
    let status = quota.get(k::STATUS);
    let (hard, used) = (quota_usage::amounts(status.get(k::HARD)), quota_usage::amounts(status.get(k::USED)));
    if attributes.operation == Operation::Create && attributes.is_core("pods", "") {
        let limited = quota_usage::hard_names(Quota(quota.root()));
        quota_usage::check_stated(Pod(attributes.object.root()), limited)
            .map_err(|why| attributes.forbidden(&format!("failed quota: {name}: {why}")))?;
    }
    let zero = |q: &apimachinery::quantity::Quantity| q.sub(*q);
    let asked: Usage = delta
        .iter()
        .filter(|(what, amount)| {
            quota.get(k::SPEC).get(k::HARD).get(what.as_str()).exists() && **amount > zero(amount)
        })
        .map(|(what, amount)| (what.clone(), *amount))
        .collect();
    if asked.is_empty() {
        return Ok(None);
    }
    let unknown: Vec<&str> = asked
        .keys()
        .filter(|what| !used.contains_key(*what) || !hard.contains_key(*what))
        .map(String::as_str)
        .collect();
    if !unknown.is_empty() {
        let why = format!("status unknown for quota: {name}, resources: {}", unknown.join(","));
        return Err(attributes.forbidden(&why));
    }
    let mut sum = used.clone();
    quota_usage::add_all(&mut sum, &asked);
    let exceeded: Vec<&String> = asked.keys().filter(|what| sum[*what] > hard[*what]).collect();
    if !exceeded.is_empty() {
        let show = |from: &Usage| {
            exceeded.iter().map(|what| format!("{what}={}", from[*what])).collect::<Vec<_>>().join(",")
        };
        let why = format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            show(&asked),
            show(&used),
            show(&hard)
        );
        return Err(attributes.forbidden(&why));
    }
    let mut charged = quota.clone();
    for what in asked.keys() {
        charged.edit().at(k::STATUS).at(k::USED).set(what, sum[what].to_string());
    }
    Ok(Some(charged))
}
