//! Mirrored EndpointSlices: Endpoints that somebody keeps by hand for a Service without a selector, in the new form.
//! Upstream: pkg/controller/endpointslicemirroring.

use apimachinery::call::BoxFuture;
use apimachinery::{Doc, Ref, doc, k};
use client::gvr::{ENDPOINTS, SERVICES};
use client::{Error, ObjectKey};

use crate::endpointslice::{self, Owner, Wanted};
use crate::manager::{Action, Controller, Ctx, Read, Rule, Wakes};
use crate::objects;

/// Addresses that are mirrored of one subset, and in one slice. Upstream: `--mirroring-max-endpoints-per-subset`.
const ENDPOINTS_MAX: usize = 1000;
const CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that are of the Endpoints only.
const OWN_ANNOTATIONS: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];

/// The declaration. Keys are Endpoints.
pub const ENDPOINT_SLICE_MIRRORING: Controller = Controller {
    name: "endpointslicemirroring-controller",
    component: "",
    workers: 5,
    reads: &[
        Read { gvr: ENDPOINTS, indexes: &[], wakes: Wakes::Itself },
        Read { gvr: SERVICES, indexes: &[], wakes: Wakes::Itself },
        endpointslice::SLICES,
    ],
    writes: &[
        Rule { group: "", resources: &["services", "endpoints"], verbs: &["get", "list", "watch"] },
        Rule { group: "", resources: &["services/finalizers", "endpoints/finalizers"], verbs: &["update"] },
        Rule {
            group: "discovery.k8s.io",
            resources: &["endpointslices"],
            verbs: &["create", "delete", "get", "list", "update", "watch"],
        },
        Rule { group: "discovery.k8s.io", resources: &["endpointslices/restricted"], verbs: &["create"] },
    ],
    every_kind: None,
    reconcile: |ctx, key| -> BoxFuture<'static, _> { Box::pin(async move { reconcile(&ctx, &key).await }) },
    begin: crate::manager::nothing,
};

async fn reconcile(ctx: &Ctx, key: &ObjectKey) -> Result<Action, Error> {
    let slices = endpointslice::slices(ctx, key, CONTROLLER);
    let service = ctx.cache(&SERVICES).get_key(key).map(|s| s.doc());
    let by_hand = service.is_some_and(|s| s.get(k::SPEC).get(k::SELECTOR).is_empty());
    let endpoints = ctx.cache(&ENDPOINTS).get_key(key).map(|s| s.doc()).unwrap_or_default();
    let mirrored = by_hand && is_mirrored(endpoints.root());
    let owner = owner(endpoints.root());
    let wanted = if mirrored { wanted(endpoints.root()) } else { Wanted::new() };
    endpointslice::execute(ctx, key, &slices, endpointslice::plan(&owner, wanted, &slices)).await?;
    Ok(Action::Done)
}

fn is_mirrored(endpoints: Ref<'_>) -> bool {
    objects::labels(endpoints).get(SKIP).str() != "true"
        && !endpoints.get(k::METADATA).get(k::ANNOTATIONS).get(LEADER).exists()
        && !objects::is_deleting(endpoints)
}

fn owner(endpoints: Ref<'_>) -> Owner<'_> {
    let mut annotations = endpoints.get(k::METADATA).get(k::ANNOTATIONS).to_doc();
    for name in OWN_ANNOTATIONS {
        annotations.edit().remove(name);
    }
    Owner {
        object: endpoints,
        kind: "Endpoints",
        labels: endpointslice::slice_labels(endpoints, CONTROLLER),
        annotations: Some(annotations),
        endpoints_max: ENDPOINTS_MAX,
    }
}

fn wanted(endpoints: Ref<'_>) -> Wanted {
    let mut out = Wanted::new();
    for subset in endpoints.get(k::SUBSETS).items() {
        let ports = endpointslice::canonical(subset.get(k::PORTS));
        let each = |key, ready: bool| subset.get(key).items().map(move |address| (address, ready));
        let all = each(k::ADDRESSES, true).chain(each(k::NOT_READY_ADDRESSES, false));
        for (address, ready) in all.take(ENDPOINTS_MAX) {
            let endpoint = endpoint(address, ready);
            let family = if address.get(k::IP).str().contains(':') { "IPv6" } else { "IPv4" };
            let group = out.entry((family.to_owned(), ports.clone())).or_default();
            group.insert(endpointslice::identity(endpoint.root()), endpoint);
        }
    }
    out
}

fn endpoint(address: Ref<'_>, ready: bool) -> Doc {
    let mut out = doc!({ "addresses": [address.get(k::IP).str()], "conditions": { "ready": ready } });
    for key in [k::HOSTNAME, k::TARGET_REF, k::NODE_NAME] {
        let value = address.get(key);
        out.edit().set_opt(key, value.is_set().then_some(value));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_and_set_of_ports_has_its_endpoints() {
        let endpoints = doc!({ "metadata": { "name": "e", "labels": { "a": "b" } }, "subsets": [
            { "addresses": [{ "ip": "10.0.0.1", "hostname": "h" }, { "ip": "fd00::1" }], "notReadyAddresses": [{ "ip": "10.0.0.2" }],
                "ports": [{ "name": "p", "port": 1, "protocol": "TCP" }] },
            { "addresses": [{ "ip": "10.0.0.1" }], "ports": [{ "name": "q", "port": 2, "protocol": "TCP" }] }] });
        let wanted = wanted(endpoints.root());
        let shape: Vec<(&str, usize)> =
            wanted.iter().map(|((family, _), all)| (family.as_str(), all.len())).collect();
        assert_eq!(shape, [("IPv4", 2), ("IPv4", 1), ("IPv6", 1)]);
        let first = wanted.values().next().expect("there is one");
        let not_ready = doc!({ "addresses": ["10.0.0.2"], "conditions": { "ready": false } });
        assert_eq!(first["10.0.0.2"], not_ready);
        let named = doc!({ "addresses": ["10.0.0.1"], "conditions": { "ready": true }, "hostname": "h" });
        assert_eq!(first["10.0.0.1"], named);
    }

    #[test]
    fn what_says_so_is_not_mirrored() {
        let of = |meta: Doc| {
            let mut out = Doc::object();
            out.edit().set(k::METADATA, meta);
            is_mirrored(out.root())
        };
        assert!(of(doc!({ "name": "e" })));
        assert!(!of(doc!({ "labels": { SKIP: "true" } })));
        assert!(!of(doc!({ "annotations": { LEADER: "{}" } })));
    }
}
