//! IPAddress and ServiceCIDR: the cluster's pool of service addresses, as objects.
//! Upstream: pkg/registry/networking/{ipaddress,servicecidr}.

use std::borrow::Cow;

use apimachinery::field::{ErrorList, Path};
use apimachinery::{Doc, Ref, k, validation};

use crate::kind::*;
use crate::print::{AGE, NAME};
use crate::rules::{complain, required, unchanged};

/// The group's kinds.
pub(crate) fn kinds() -> Vec<Kind> {
    let parent = |o: Ref<'_>, _| {
        let p = o.get(k::SPEC).get(k::PARENT_REF);
        let parts = [
            p.get(k::GROUP).str(),
            p.get(k::RESOURCE).str(),
            p.get(k::NAMESPACE).str(),
            p.get(k::NAME).str(),
        ];
        let given: Vec<&str> = parts.into_iter().filter(|p| !p.is_empty()).collect();
        Cell::from(given.join("/"))
    };
    let cidrs = |o: Ref<'_>, _| {
        let all: Vec<&str> = o.get(k::SPEC).get(k::CIDRS).items().map(Ref::str).collect();
        Cell::from(all.join(","))
    };
    vec![
        Kind {
            short: names(&["ip"]),
            scope: Scope::Cluster,
            name_rule: NameRule::Ip,
            columns: Cow::Owned(vec![
                NAME,
                Column::code("ParentRef", "string", "What has the address.", parent),
                AGE,
            ]),
            strategy: &IpAddress,
            ..Kind::new("networking.k8s.io", "v1", "ipaddresses", "IPAddress")
        },
        Kind {
            scope: Scope::Cluster,
            subresources: vec![Sub::STATUS],
            columns: Cow::Owned(vec![NAME, Column::code("CIDRs", "string", "Its networks.", cidrs), AGE]),
            strategy: &ServiceCidr,
            ..Kind::new("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR")
        },
    ]
}

struct IpAddress;

impl Strategy for IpAddress {
    fn validate(&self, _op: &Op<'_>, new: &Doc, old: Option<&Doc>, errs: &mut ErrorList) {
        let (parent, at) = (new.get(k::SPEC).get(k::PARENT_REF), Path::new("spec").child("parentRef"));
        if !parent.is_set() {
            return errs.required(&at, "");
        }
        required(errs, parent.get(k::RESOURCE), &at.child("resource"));
        required(errs, parent.get(k::NAME), &at.child("name"));
        if let Some(old) = old {
            unchanged(errs, parent, old.get(k::SPEC).get(k::PARENT_REF), &at);
        }
    }
}

struct ServiceCidr;

impl Strategy for ServiceCidr {
    fn validate(&self, _op: &Op<'_>, new: &Doc, old: Option<&Doc>, errs: &mut ErrorList) {
        let (cidrs, at) = (new.get(k::SPEC).get(k::CIDRS), Path::new("spec").child("cidrs"));
        if cidrs.is_empty() {
            errs.required(&at, "at least one CIDR required");
        }
        if cidrs.len() > 2 {
            errs.invalid(&at, cidrs, "must have at most two cidrs, one for each IP family");
        }
        let mut families: Vec<bool> = Vec::new();
        for (i, cidr) in cidrs.items().enumerate() {
            complain(errs, &at.index(i), cidr.str(), validation::cidr(cidr.str()));
            families.extend(validation::parse_cidr(cidr.str()).map(|(ip, _)| ip.is_ipv4()));
        }
        if families.len() == 2 && families[0] == families[1] {
            errs.invalid(
                &at,
                cidrs,
                "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
            );
        }
        if let Some(old) = old {
            unchanged(errs, cidrs, old.get(k::SPEC).get(k::CIDRS), &at);
        }
    }
}
