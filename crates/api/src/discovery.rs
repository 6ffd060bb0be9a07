//! EndpointSlice: where a Service's traffic goes. Upstream: pkg/registry/discovery/endpointslice.

use std::borrow::Cow;

use apimachinery::field::{ErrorList, Path};
use apimachinery::{Doc, Ref, k, validation};

use crate::core::pod_defaults::each;
use crate::kind::*;
use crate::print::{AGE, NAME};
use crate::rules::{complain, one_of, unchanged};

/// The most endpoints and ports that one slice may have.
const ENDPOINTS_MAX: usize = 1000;
const PORTS_MAX: usize = 100;

/// Endpoint slices.
pub(crate) fn endpoint_slice() -> Kind {
    Kind {
        columns: Cow::Owned(vec![
            NAME,
            Column::path("AddressType", "string", "Which sort of addresses it has.", "addressType"),
            Column::code("Ports", "string", "The ports of all its endpoints.", |slice, _| {
                let ports = slice.get(k::PORTS);
                if !ports.is_set() {
                    Cell::from("<unset>")
                } else {
                    Cell::from(shown(ports.items().map(port)))
                }
            }),
            Column::code("Endpoints", "string", "Its endpoints' addresses.", |slice, _| {
                let all = slice.get(k::ENDPOINTS);
                let shown = shown(all.items().map(|e| e.get(k::ADDRESSES).item(0).str().to_owned()));
                Cell::from(if all.is_set() { shown } else { "<unset>".into() })
            }),
            AGE,
        ]),
        strategy: &EndpointSlice,
        ..Kind::new("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice").defaults(defaults)
    }
}

fn port(port: Ref<'_>) -> String {
    match port.get(k::PORT).opt_i64() {
        Some(number) => number.to_string(),
        None => "*".into(),
    }
}

fn shown(all: impl Iterator<Item = String>) -> String {
    let mut all: Vec<String> = all.collect();
    let more = all.len().saturating_sub(3);
    all.truncate(3);
    let text = all.join(",");
    if more > 0 { format!("{text} + {more} more...") } else { text }
}

fn defaults(doc: &mut Doc) {
    each(&mut doc.edit(), k::PORTS, |mut port| {
        port.set_default(k::NAME, "").set_default(k::PROTOCOL, "TCP");
    });
}

struct EndpointSlice;

impl Strategy for EndpointSlice {
    fn validate(&self, _op: &Op<'_>, new: &Doc, old: Option<&Doc>, errs: &mut ErrorList) {
        let at = Path::new("addressType");
        one_of(errs, new.get(k::ADDRESS_TYPE), &at, &["FQDN", "IPv4", "IPv6"]);
        if let Some(old) = old {
            unchanged(errs, new.get(k::ADDRESS_TYPE), old.get(k::ADDRESS_TYPE), &at);
        }
        endpoints(errs, new);
        let ports = new.get(k::PORTS);
        if ports.len() > PORTS_MAX {
            errs.too_many(&Path::new("ports"), ports.len(), PORTS_MAX);
        }
        let mut seen: Vec<&str> = Vec::new();
        for (i, port) in ports.items().enumerate() {
            let (name, at) = (port.get(k::NAME).str(), Path::new("ports").index(i));
            if !name.is_empty() {
                complain(errs, &at.child("name"), name, validation::dns1123_label(name));
            }
            if seen.contains(&name) {
                errs.duplicate(&at.child("name"), name);
            }
            seen.push(name);
            one_of(errs, port.get(k::PROTOCOL), &at.child("protocol"), &["SCTP", "TCP", "UDP"]);
        }
    }

    fn generation(&self) -> Generation {
        Generation::Body
    }
}

fn endpoints(errs: &mut ErrorList, new: &Doc) {
    let (all, kind) = (new.get(k::ENDPOINTS), new.get(k::ADDRESS_TYPE).str());
    if all.len() > ENDPOINTS_MAX {
        errs.too_many(&Path::new("endpoints"), all.len(), ENDPOINTS_MAX);
    }
    for (i, endpoint) in all.items().enumerate() {
        let at = Path::new("endpoints").index(i);
        if endpoint.get(k::ADDRESSES).is_empty() {
            errs.required(&at.child("addresses"), "must contain at least 1 address");
        }
        for (j, address) in endpoint.get(k::ADDRESSES).items().enumerate() {
            let (text, at) = (address.str(), at.child("addresses").index(j));
            match (kind, text.parse::<std::net::IpAddr>()) {
                ("FQDN", _) => complain(errs, &at, text, validation::dns1123_subdomain(text)),
                ("IPv4" | "IPv6", Err(_)) => complain(errs, &at, text, validation::ip(text)),
                ("IPv4", Ok(ip)) if !ip.is_ipv4() => errs.invalid(&at, text, "must be an IPv4 address"),
                ("IPv6", Ok(ip)) if !ip.is_ipv6() => errs.invalid(&at, text, "must be an IPv6 address"),
                _ => complain(errs, &at, text, validation::non_special_ip(text)),
            }
        }
        let node = endpoint.get(k::NODE_NAME).str();
        if !node.is_empty() {
            complain(errs, &at.child("nodeName"), node, validation::dns1123_subdomain(node));
        }
        let host = endpoint.get(k::HOSTNAME).str();
        if !host.is_empty() {
            complain(errs, &at.child("hostname"), host, validation::dns1123_label(host));
        }
    }
}
