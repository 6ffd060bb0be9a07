//! Endpoints: where a Service's traffic goes, in the old form. Upstream: pkg/registry/core/endpoint.

use std::borrow::Cow;

use apimachinery::field::{ErrorList, Path};
use apimachinery::{Doc, Ref, k, validation};

use crate::core::pod_defaults::each;
use crate::kind::*;
use crate::print::{AGE, NAME, or_none};
use crate::rules::{complain, one_of};

/// Endpoints.
pub(crate) fn kind() -> Kind {
    Kind {
        short: names(&["ep"]),
        singular: "endpoints".into(),
        key_prefix: "/registry/services/endpoints".into(),
        columns: Cow::Owned(vec![
            NAME,
            Column::code("Endpoints", "string", "Addresses that are ready.", |e, _| or_none(&shown(e))),
            AGE,
        ]),
        strategy: &Endpoints,
        ..Kind::new("", "v1", "endpoints", "Endpoints")
            .defaults(defaults)
            .deprecated("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
    }
}

/// The first three, and how many more there are.
fn shown(endpoints: Ref<'_>) -> String {
    let mut all: Vec<String> = Vec::new();
    for subset in endpoints.get(k::SUBSETS).items() {
        let addresses = subset.get(k::ADDRESSES).items().map(|a| a.get(k::IP).str());
        if subset.get(k::PORTS).is_empty() {
            all.extend(addresses.map(str::to_owned));
            continue;
        }
        let addresses: Vec<&str> = addresses.collect();
        for port in subset.get(k::PORTS).items() {
            let number = port.get(k::PORT).i64();
            let join =
                |a: &&str| if a.contains(':') { format!("[{a}]:{number}") } else { format!("{a}:{number}") };
            all.extend(addresses.iter().map(join));
        }
    }
    let more = all.len().saturating_sub(3);
    all.truncate(3);
    let text = all.join(",");
    if more > 0 { format!("{text} + {more} more...") } else { text }
}

fn defaults(doc: &mut Doc) {
    each(&mut doc.edit(), k::SUBSETS, |mut subset| {
        each(&mut subset, k::PORTS, |mut port| {
            if port.read().get(k::PROTOCOL).str().is_empty() {
                port.set(k::PROTOCOL, "TCP");
            }
        });
    });
}

struct Endpoints;

impl Strategy for Endpoints {
    fn validate(&self, _op: &Op<'_>, new: &Doc, _old: Option<&Doc>, errs: &mut ErrorList) {
        for (i, subset) in new.get(k::SUBSETS).items().enumerate() {
            let at = Path::new("subsets").index(i);
            if subset.get(k::ADDRESSES).is_empty() && subset.get(k::NOT_READY_ADDRESSES).is_empty() {
                errs.required(&at, "must specify `addresses` or `notReadyAddresses`");
            }
            for list in ["addresses", "notReadyAddresses"] {
                for (j, address) in subset.get(list).items().enumerate() {
                    let ip = address.get(k::IP).str();
                    complain(errs, &at.child(list).index(j).child("ip"), ip, validation::non_special_ip(ip));
                }
            }
            for (j, port) in subset.get(k::PORTS).items().enumerate() {
                let at = at.child("ports").index(j);
                let name = port.get(k::NAME).str();
                match name {
                    "" if subset.get(k::PORTS).len() > 1 => errs.required(&at.child("name"), ""),
                    "" => {}
                    _ => complain(errs, &at.child("name"), name, validation::dns1123_label(name)),
                }
                for complaint in validation::port_number(port.get(k::PORT).i64()) {
                    errs.invalid(&at.child("port"), port.get(k::PORT).i64(), &complaint);
                }
                one_of(errs, port.get(k::PROTOCOL), &at.child("protocol"), &["SCTP", "TCP", "UDP"]);
            }
        }
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}
