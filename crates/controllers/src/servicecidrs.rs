//! ServiceCIDRs: the default one, made of the cluster's flags, the finalizer that keeps each as long as addresses need
//! it, and the condition that lets the API server hand out its addresses.
//! Upstream: pkg/controller/servicecidrs, pkg/controlplane/controller/defaultservicecidr.

use std::net::IpAddr;
use std::time::Duration;

use apimachinery::call::BoxFuture;
use apimachinery::validation::{cidr_contains, parse_cidr};
use apimachinery::{Doc, Ref, doc, gotime, k};
use client::gvr::{IP_ADDRESSES, SERVICE_CIDRS};
use client::{Error, ObjectKey, ObjectRef};

use crate::manager::{Action, Controller, Ctx, Read, Rule, Wakes};
use crate::objects::{self, Seen};

/// The default one.
const DEFAULT: &str = "kubernetes";
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// How long every API server has to learn that a range is going before it is gone.
const GRACE: Duration = Duration::from_secs(10);
/// Who hands out the addresses that count.
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");

/// The declaration. Keys are ServiceCIDRs; any one's change wakes all, since one may hold what another must not lose.
pub const SERVICE_CIDRS_CONTROLLER: Controller = Controller {
    name: "service-cidrs-controller",
    component: "kubernetes-service-cidr-controller",
    workers: 1,
    reads: &[
        Read {
            gvr: SERVICE_CIDRS,
            indexes: &[("every", |_| vec![String::new()])],
            wakes: Wakes::Through { index: "every", map: |ctx, _, _| all(ctx) },
        },
        Read {
            gvr: IP_ADDRESSES,
            indexes: &[("name", objects::by_name)],
            wakes: Wakes::Through { index: "name", map: |ctx, _, name| going_with(ctx, name) },
        },
    ],
    writes: &[
        Rule {
            group: "networking.k8s.io",
            resources: &["servicecidrs"],
            verbs: &["create", "get", "list", "patch", "update", "watch"],
        },
        Rule {
            group: "networking.k8s.io",
            resources: &["servicecidrs/finalizers", "servicecidrs/status"],
            verbs: &["patch", "update"],
        },
        Rule { group: "networking.k8s.io", resources: &["ipaddresses"], verbs: &["get", "list", "watch"] },
    ],
    every_kind: None,
    reconcile: |ctx, key| -> BoxFuture<'static, _> { Box::pin(async move { reconcile(&ctx, &key).await }) },
    begin: |_| vec![ObjectKey::new("", DEFAULT)],
};

fn all(ctx: &Ctx) -> Vec<ObjectKey> {
    let known = ctx.cache(&SERVICE_CIDRS).list();
    known.iter().map(|o| ObjectKey::of(o)).chain([ObjectKey::new("", DEFAULT)]).collect()
}

/// The ranges on their way out that an address that came or went belongs to.
fn going_with(ctx: &Ctx, address: &str) -> Vec<ObjectKey> {
    let Ok(address) = address.parse() else { return Vec::new() };
    let seen = ctx.cache(&SERVICE_CIDRS).list().into_iter().map(Seen::new);
    seen.filter(|s| objects::is_deleting(s.root()) && holds(s.root(), address))
        .map(|s| ObjectKey::of(&s.stored))
        .collect()
}

async fn reconcile(ctx: &Ctx, key: &ObjectKey) -> Result<Action, Error> {
    let resource = ctx.client.resource(SERVICE_CIDRS);
    let Some(stored) = ctx.cache(&SERVICE_CIDRS).get_key(key) else {
        let cidrs = &ctx.settings.service_cidrs;
        if key.name == DEFAULT && !cidrs.is_empty() {
            let object = doc!({ "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
                "metadata": { "name": DEFAULT }, "spec": { "cidrs": cidrs } });
            let written = resource.create(object).await?;
            ctx.wrote(key, &SERVICE_CIDRS, &written);
        }
        return Ok(Action::Done);
    };
    let mut object = stored.doc();
    let cidrs = &ctx.settings.service_cidrs;
    let configured = if key.name == DEFAULT { cidrs.as_slice() } else { &[] };
    let adds = match_flags(ctx, &object, configured);
    let protected =
        object.get(k::METADATA).get(k::FINALIZERS).items().any(|finalizer| finalizer.str() == FINALIZER);
    let written = if !objects::is_deleting(object.root()) {
        if adds {
            object.edit().at(k::SPEC).set(k::CIDRS, cidrs.clone());
            resource.update(object).await?
        } else if !protected {
            object.edit().at(k::METADATA).list(k::FINALIZERS).push(FINALIZER);
            resource.update(object).await?
        } else if tell(&mut object, "True", "", "Kubernetes Service CIDR is ready") {
            resource.update_status(object).await?
        } else {
            return Ok(Action::Done);
        }
    } else if !protected {
        return Ok(Action::Done);
    } else if is_needed(ctx, &object) {
        let why = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
        if !tell(&mut object, "False", "Terminating", why) {
            return Ok(Action::Done);
        }
        resource.update_status(object).await?
    } else {
        let since = objects::time(object.get(k::METADATA).get(k::DELETION_TIMESTAMP));
        let gone_at = since.and_then(|since| since.checked_add(GRACE).ok());
        let now = base::time::now();
        if let Some(at) = gone_at.filter(|at| *at > now) {
            return Ok(Action::After(objects::until(at, now)));
        }
        object.edit().at(k::METADATA).list(k::FINALIZERS).retain(|finalizer| finalizer.str() != FINALIZER);
        resource.update(object).await?
    };
    ctx.wrote(key, &SERVICE_CIDRS, &written);
    Ok(Action::Done)
}

/// Whether the default object lacks the second family that the cluster's flags have by now; whatever else differs is
/// the administrator's to mend, who is told.
fn match_flags(ctx: &Ctx, object: &Doc, configured: &[String]) -> bool {
    let has: Vec<&str> = object.get(k::SPEC).get(k::CIDRS).items().map(Ref::str).collect();
    if configured.is_empty() || configured == has {
        return false;
    }
    if configured.len() == 2 && has == configured[..1] {
        return true;
    }
    let shown = |cidrs: &[&str]| format!("[{}]", cidrs.join(" "));
    let flags: Vec<&str> = configured.iter().map(String::as_str).collect();
    ctx.events.warning(
        ObjectRef::of(object.root(), "networking.k8s.io/v1", "ServiceCIDR"),
        "KubernetesDefaultServiceCIDRInconsistent",
        format!(
            "The default ServiceCIDR {} does not match the controller flag configurations {}",
            shown(&has),
            shown(&flags)
        ),
    );
    false
}

/// Sets the condition `Ready`; whether that changes anything.
fn tell(object: &mut Doc, value: &str, reason: &str, message: &str) -> bool {
    if objects::condition(object.root(), "Ready").is_some_and(|c| c.get(k::STATUS).str() == value) {
        return false;
    }
    let at = gotime::format(base::time::now());
    let condition = doc!({ "type": "Ready", "status": value, "lastTransitionTime": at, "reason": reason, "message": message });
    let mut status = object.get(k::STATUS).to_doc();
    objects::set_condition(&mut status, condition);
    object.edit().set(k::STATUS, status);
    true
}

fn ranges(object: Ref<'_>) -> impl Iterator<Item = (IpAddr, u8)> {
    object.get(k::SPEC).get(k::CIDRS).items().filter_map(|cidr| parse_cidr(cidr.str()))
}

fn holds(object: Ref<'_>, address: IpAddr) -> bool {
    ranges(object).any(|range| cidr_contains(range, address))
}

/// Whether an address in use would be in no range if this one went.
fn is_needed(ctx: &Ctx, object: &Doc) -> bool {
    let own = objects::name(object.root());
    let others: Vec<Seen> = ctx.cache(&SERVICE_CIDRS).list().into_iter().map(Seen::new).collect();
    let others: Vec<&Seen> =
        others.iter().filter(|o| o.stored.name() != own && !objects::is_deleting(o.root())).collect();
    let left: Vec<(IpAddr, u8)> = ranges(object.root())
        .filter(|(start, length)| {
            let whole = |other: &(IpAddr, u8)| other.1 <= *length && cidr_contains(*other, *start);
            !others.iter().any(|o| ranges(o.root()).any(|range| whole(&range)))
        })
        .collect();
    ctx.cache(&IP_ADDRESSES).list().into_iter().map(Seen::new).any(|held| {
        let ours = objects::labels(held.root()).get(MANAGED_BY.0).str() == MANAGED_BY.1;
        let Ok(address) = held.stored.name().parse() else { return false };
        ours && left.iter().any(|range| cidr_contains(*range, address))
            && !others.iter().any(|o| holds(o.root(), address))
    })
}
