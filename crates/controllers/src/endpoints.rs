//! Endpoints: for every Service with a selector, its pods' addresses in the old form: one object a Service, one family.
//! Those that somebody keeps by hand, with a Service or without, are left alone.
//! Upstream: pkg/controller/endpoint, pkg/api/v1/endpoints.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::call::BoxFuture;
use apimachinery::schema::views::core_v1::Pod;
use apimachinery::{Doc, Ref, doc, k};
use client::gvr::{ENDPOINTS as RESOURCE, SERVICES};
use client::{DeleteOptions, Error, ObjectKey};

use crate::endpointslice::{self, HEADLESS};
use crate::manager::{Action, Controller, Ctx, Read, Rule, Wakes};
use crate::objects::{self, Seen};

/// Addresses in one object. Upstream: maxCapacity.
const ADDRESSES_MAX: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpoint-controller";

/// The declaration. Keys are Services.
pub const ENDPOINTS: Controller = Controller {
    name: CONTROLLER,
    component: "",
    workers: 5,
    reads: &[
        endpointslice::SELECTING,
        Read { gvr: RESOURCE, indexes: &[], wakes: Wakes::Itself },
        endpointslice::SELECTED,
    ],
    writes: &[
        Rule { group: "", resources: &["services", "pods"], verbs: &["get", "list", "watch"] },
        Rule { group: "", resources: &["endpoints"], verbs: &["create", "delete", "get", "list", "update"] },
        Rule { group: "", resources: &["endpoints/restricted"], verbs: &["create"] },
    ],
    every_kind: None,
    reconcile: |ctx, key| -> BoxFuture<'static, _> { Box::pin(async move { reconcile(&ctx, &key).await }) },
    begin: crate::manager::nothing,
};

async fn reconcile(ctx: &Ctx, key: &ObjectKey) -> Result<Action, Error> {
    let resource = objects::resource(&ctx.client, &RESOURCE, &key.namespace);
    let old = ctx.cache(&RESOURCE).get_key(key).map(Seen::new);
    let Some(service) = ctx.cache(&SERVICES).get_key(key).map(|s| s.doc()) else {
        let Some(left) = old.filter(|s| objects::labels(s.root()).get(MANAGED_BY).str() == CONTROLLER) else {
            return Ok(Action::Done);
        };
        match resource.delete(&key.name, DeleteOptions::uid(objects::uid(left.root()))).await {
            Ok(outcome) => ctx.deleted(key, &RESOURCE, &left.stored, &outcome),
            Err(err) if err.is_not_found() => {}
            Err(err) => return Err(err),
        }
        return Ok(Action::Done);
    };
    let service = service.root();
    if !endpointslice::selects_pods(service) {
        return Ok(Action::Done);
    }
    let pods = endpointslice::pods(ctx, service);
    let Some(new) = plan(service, &pods, old.as_ref().map(|s| &s.doc)) else { return Ok(Action::Done) };
    let written = if old.is_some() { resource.update(new).await } else { resource.create(new).await };
    match written {
        Ok(written) => ctx.wrote(key, &RESOURCE, &written),
        Err(err) if err.is_namespace_terminating() => {}
        Err(err) => return Err(err),
    }
    Ok(Action::Done)
}

/// What the object should be, unless it is that already.
fn plan(service: Ref<'_>, pods: &[Doc], old: Option<&Doc>) -> Option<Doc> {
    let mut subsets = subsets(service, pods);
    let truncated = truncate(&mut subsets);
    let mut new = old.cloned().unwrap_or_else(|| {
        doc!({ "apiVersion": "v1", "kind": "Endpoints",
            "metadata": { "name": objects::name(service), "namespace": objects::namespace(service) } })
    });
    let mut labels = objects::labels(service).to_doc();
    let headless = matches!(service.get(k::SPEC).get(k::CLUSTER_IP).str(), "" | "None");
    labels.edit().set_opt(HEADLESS, headless.then_some("")).set(MANAGED_BY, CONTROLLER);
    let mut meta = new.edit().at(k::METADATA);
    meta.set(k::LABELS, labels);
    if truncated || meta.read().get(k::ANNOTATIONS).get(OVER_CAPACITY).exists() {
        meta.at(k::ANNOTATIONS).set_opt(OVER_CAPACITY, truncated.then_some("truncated"));
    }
    let subsets: Vec<Doc> = subsets.iter().map(Subset::doc).collect();
    new.edit().set_opt(k::SUBSETS, (!subsets.is_empty()).then_some(subsets));
    let is_right = old.is_some_and(|old| {
        let annotation = |doc: &Doc| objects::annotation(doc.root(), OVER_CAPACITY).to_owned();
        old.get(k::SUBSETS).same(new.get(k::SUBSETS))
            && objects::labels(old.root()).same(objects::labels(new.root()))
            && annotation(old) == annotation(&new)
    });
    (!is_right).then_some(new)
}

/// Ports, and the addresses that all of them are open at. Documents as JSON, so that they have an order.
#[derive(Default)]
struct Subset {
    ready: Vec<String>,
    not_ready: Vec<String>,
    ports: Vec<String>,
}

impl Subset {
    fn doc(&self) -> Doc {
        let mut out = Doc::object();
        let all =
            [(k::ADDRESSES, &self.ready), (k::NOT_READY_ADDRESSES, &self.not_ready), (k::PORTS, &self.ports)];
        for (key, texts) in all {
            for text in texts {
                let value = apimachinery::codec::json::parse(text.as_str()).expect("it was a document");
                out.edit().list(key).push(value.doc);
            }
        }
        out
    }
}

/// Ports that are open at the same addresses are one subset.
fn subsets(service: Ref<'_>, pods: &[Doc]) -> Vec<Subset> {
    let spec = service.get(k::SPEC);
    let family = spec.get(k::IP_FAMILIES).item(0).opt_str().unwrap_or("IPv4");
    let always = spec.get(k::PUBLISH_NOT_READY_ADDRESSES).bool();
    let json = |doc: Ref<'_>| String::from_utf8(doc.to_json()).expect("documents hold valid UTF-8");
    let mut by_port: BTreeMap<String, BTreeSet<(String, bool)>> = BTreeMap::new();
    for pod in pods.iter().map(|p| Pod(p.root())).filter(|p| always || !objects::is_deleting(p.0)) {
        let Some(ip) = endpointslice::pod_ip(pod, family) else { continue };
        let mut address = doc!({ "ip": ip });
        endpointslice::place(&mut address, service, pod.0);
        let address = (json(address.root()), always || objects::is_ready(pod.0));
        for port in endpointslice::ports(service, pod.0).root().items() {
            let mut port = port.to_doc();
            if port.get(k::NAME).str().is_empty() {
                port.edit().remove(k::NAME);
            }
            by_port.entry(json(port.root())).or_default().insert(address.clone());
        }
        // Without ports there are addresses all the same, for DNS.
        if spec.get(k::PORTS).is_empty() && spec.get(k::CLUSTER_IP).str() == "None" {
            by_port.entry(String::new()).or_default().insert(address);
        }
    }
    let mut out: BTreeMap<BTreeSet<(String, bool)>, Subset> = BTreeMap::new();
    for (port, addresses) in by_port {
        let subset = out.entry(addresses.clone()).or_insert_with(|| {
            let (ready, not_ready): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|(_, ready)| *ready);
            let texts = |list: Vec<(String, bool)>| list.into_iter().map(|(text, _)| text).collect();
            Subset { ready: texts(ready), not_ready: texts(not_ready), ports: Vec::new() }
        });
        subset.ports.extend((!port.is_empty()).then_some(port));
    }
    out.into_values().collect()
}

/// Keeps what fits: ready addresses before others, from every subset its share. Whether something was left out.
fn truncate(subsets: &mut [Subset]) -> bool {
    let ready: usize = subsets.iter().map(|s| s.ready.len()).sum();
    let not_ready: usize = subsets.iter().map(|s| s.not_ready.len()).sum();
    if ready + not_ready <= ADDRESSES_MAX {
        return false;
    }
    let cut_ready = ready > ADDRESSES_MAX;
    let (room, of) = if cut_ready { (ADDRESSES_MAX, ready) } else { (ADDRESSES_MAX - ready, not_ready) };
    let mut left = room;
    for subset in subsets {
        if cut_ready {
            subset.not_ready.clear();
        }
        let list = if cut_ready { &mut subset.ready } else { &mut subset.not_ready };
        list.truncate((list.len() * room).div_ceil(of).min(left));
        left -= list.len();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Doc {
        doc!({ "metadata": { "name": "web", "namespace": "ns", "labels": { "x": "y" } },
            "spec": { "clusterIP": "10.0.0.9", "selector": { "app": "web" }, "ipFamilies": ["IPv4"],
                "ports": [{ "name": "a", "port": 80, "protocol": "TCP", "targetPort": "one" },
                    { "name": "b", "port": 81, "protocol": "TCP", "targetPort": "two" }] } })
    }

    fn pod(index: u32, ready: bool, ports: &[&str]) -> Doc {
        let mut pod = doc!({ "metadata": { "name": format!("p{index}"), "namespace": "ns", "uid": format!("u{index}") },
            "spec": { "nodeName": "n" }, "status": { "phase": "Running",
                "podIPs": [{ "ip": format!("10.1.{}.{}", index / 200, index % 200) }],
                "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }] } });
        let mut container = doc!({ "name": "c" });
        for (at, name) in ports.iter().enumerate() {
            container.edit().list(k::PORTS).push(doc!({ "name": name, "containerPort": 3000 + at }));
        }
        pod.edit().at(k::SPEC).list(k::CONTAINERS).push(container);
        pod
    }

    /// Of each subset: how many are ready, how many not, and its ports' names.
    fn shape(endpoints: &Doc) -> Vec<(usize, usize, Vec<String>)> {
        let subsets = endpoints.get(k::SUBSETS).items();
        let names = |s: Ref<'_>| s.get(k::PORTS).items().map(|p| p.get(k::NAME).str().to_owned()).collect();
        subsets.map(|s| (s.get(k::ADDRESSES).len(), s.get(k::NOT_READY_ADDRESSES).len(), names(s))).collect()
    }

    #[test]
    fn ports_open_at_the_same_addresses_are_one_subset() {
        let both = [pod(1, true, &["one", "two"]), pod(2, false, &["one", "two"])];
        let made = plan(service().root(), &both, None).expect("it is made");
        assert_eq!(shape(&made), [(1, 1, vec!["a".to_owned(), "b".to_owned()])]);
        let labels = doc!({ "x": "y", MANAGED_BY: CONTROLLER });
        assert_eq!(objects::labels(made.root()).to_doc(), labels);
        assert!(plan(service().root(), &both, Some(&made)).is_none(), "what is right is left alone");

        let each = [pod(1, true, &["one"]), pod(2, true, &["two"])];
        let changed = plan(service().root(), &each, Some(&made)).expect("it changes");
        assert_eq!(shape(&changed), [(1, 0, vec!["a".to_owned()]), (1, 0, vec!["b".to_owned()])]);
    }

    #[test]
    fn a_thousand_addresses_fit_and_those_that_are_ready_first() {
        let mut pods: Vec<Doc> = (0..990).map(|i| pod(i, true, &["one"])).collect();
        pods.extend((990..1020).map(|i| pod(i, false, &["one"])));
        let made = plan(service().root(), &pods, None).expect("it is made");
        assert_eq!(shape(&made), [(990, 10, vec!["a".to_owned()])]);
        assert_eq!(objects::annotation(made.root(), OVER_CAPACITY), "truncated");
        let fewer = plan(service().root(), &pods[..10], Some(&made)).expect("it changes");
        assert_eq!(objects::annotation(fewer.root(), OVER_CAPACITY), "");
    }
}
