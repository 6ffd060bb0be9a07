//! The Service `default/kubernetes`, its Endpoints and its EndpointSlice, through which pods reach the API servers.
//! Upstream: pkg/controlplane/controller/kubernetesservice, pkg/controlplane/reconcilers.

use std::net::IpAddr;

use apimachinery::call::BoxFuture;
use apimachinery::{Doc, Gvr, doc, k};
use client::gvr::{ENDPOINT_SLICES, ENDPOINTS, SERVICES};
use client::{Error, ObjectKey};

use crate::manager::{Action, Controller, Ctx, Read, Rule, Settings, Wakes};
use crate::objects;

const NAME: &str = "kubernetes";

/// The declaration. One key: the Service's.
pub const APISERVER_ENDPOINTS: Controller = Controller {
    name: "apiserver-endpoints-controller",
    component: "",
    workers: 1,
    reads: &[
        Read {
            gvr: SERVICES,
            indexes: &[("name", objects::by_name)],
            wakes: Wakes::Through { index: "name", map: ours },
        },
        Read {
            gvr: ENDPOINTS,
            indexes: &[("name", objects::by_name)],
            wakes: Wakes::Through { index: "name", map: ours },
        },
        Read {
            gvr: ENDPOINT_SLICES,
            indexes: &[("name", objects::by_name)],
            wakes: Wakes::Through { index: "name", map: ours },
        },
    ],
    writes: &[
        Rule { group: "", resources: &["services", "endpoints"], verbs: &["create", "update"] },
        Rule { group: "discovery.k8s.io", resources: &["endpointslices"], verbs: &["create", "update"] },
    ],
    every_kind: None,
    reconcile: |ctx, key| -> BoxFuture<'static, _> { Box::pin(async move { reconcile(&ctx, &key).await }) },
    begin: |_| vec![ObjectKey::new("default", NAME)],
};

fn ours(_: &Ctx, namespace: &str, name: &str) -> Vec<ObjectKey> {
    if (namespace, name) == ("default", NAME) { vec![ObjectKey::new(namespace, name)] } else { Vec::new() }
}

async fn reconcile(ctx: &Ctx, key: &ObjectKey) -> Result<Action, Error> {
    if ctx.settings.service_ips.is_empty() {
        return Ok(Action::Done);
    }
    write(ctx, key, &SERVICES, service(&ctx.settings), &["spec.ports"]).await?;
    if !reachable(&ctx.settings).is_empty() {
        write(ctx, key, &ENDPOINTS, endpoints(&ctx.settings), &["subsets"]).await?;
        write(ctx, key, &ENDPOINT_SLICES, slice(&ctx.settings), &["endpoints", "ports"]).await?;
    }
    Ok(Action::Done)
}

/// Creates the object, or sets `fields` in the one that is there to what they should be.
async fn write(ctx: &Ctx, key: &ObjectKey, gvr: &Gvr, wanted: Doc, fields: &[&str]) -> Result<(), Error> {
    let resource = objects::resource(&ctx.client, gvr, &key.namespace);
    let Some(stored) = ctx.cache(gvr).get_key(key) else {
        let written = resource.create(wanted).await?;
        ctx.wrote(key, gvr, &written);
        return Ok(());
    };
    let mut now = stored.doc();
    let right = |f: &&str| covers(now.root().find(f), wanted.root().find(f));
    if fields.iter().all(right) {
        return Ok(());
    }
    for field in fields {
        let mut at = now.edit();
        for name in field.split('.') {
            at = at.at(name);
        }
        at.put(wanted.root().find(field));
    }
    let written = resource.update(now).await?;
    ctx.wrote(key, gvr, &written);
    Ok(())
}

/// Whether `have` says what `wanted` says; it may say more, such as defaults.
fn covers(have: apimachinery::Ref<'_>, wanted: apimachinery::Ref<'_>) -> bool {
    if wanted.is_object() {
        return wanted.entries().all(|(name, value)| covers(have.get(name), value));
    }
    if wanted.is_array() {
        return have.len() == wanted.len() && have.items().zip(wanted.items()).all(|(h, w)| covers(h, w));
    }
    have.same(wanted)
}

/// The servers' addresses of one family that lead there from elsewhere.
fn reachable(settings: &Settings) -> Vec<IpAddr> {
    let mut out: Vec<IpAddr> = settings.api_addresses.iter().copied().filter(|a| !a.is_loopback()).collect();
    let family = out.first().map(IpAddr::is_ipv4);
    out.retain(|address| Some(address.is_ipv4()) == family);
    out
}

fn service(settings: &Settings) -> Doc {
    let ips: Vec<String> = settings.service_ips.iter().map(ToString::to_string).collect();
    let families: Vec<&str> =
        settings.service_ips.iter().map(|ip| if ip.is_ipv4() { "IPv4" } else { "IPv6" }).collect();
    doc!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": NAME, "namespace": "default",
            "labels": { "component": "apiserver", "provider": "kubernetes" } },
        "spec": { "type": "ClusterIP", "clusterIP": ips[0], "clusterIPs": ips, "ipFamilies": families,
            "ipFamilyPolicy": if ips.len() > 1 { "RequireDualStack" } else { "SingleStack" }, "sessionAffinity": "None",
            "ports": [{ "name": "https", "port": 443, "protocol": "TCP", "targetPort": settings.api_port }] },
    })
}

fn endpoints(settings: &Settings) -> Doc {
    // Its slice is ours, too: no mirror is needed.
    let labels = doc!({ "endpointslice.kubernetes.io/skip-mirror": "true" });
    let mut out = doc!({ "apiVersion": "v1", "kind": "Endpoints", "metadata": { "name": NAME, "namespace": "default" } });
    out.edit().at(k::METADATA).set(k::LABELS, labels);
    let mut subset = doc!({ "addresses": [], "ports": [{ "name": "https", "port": settings.api_port, "protocol": "TCP" }] });
    for address in reachable(settings) {
        subset.edit().list(k::ADDRESSES).push(doc!({ "ip": address.to_string() }));
    }
    out.edit().list(k::SUBSETS).push(subset);
    out
}

fn slice(settings: &Settings) -> Doc {
    let addresses = reachable(settings);
    let mut out = doc!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": NAME, "namespace": "default", "labels": { "kubernetes.io/service-name": NAME } },
        "addressType": if addresses[0].is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [], "ports": [{ "name": "https", "port": settings.api_port, "protocol": "TCP" }],
    });
    let mut endpoints = out.edit().list(k::ENDPOINTS);
    for address in addresses {
        endpoints.push(doc!({ "addresses": [address.to_string()], "conditions": { "ready": true } }));
    }
    out
}
