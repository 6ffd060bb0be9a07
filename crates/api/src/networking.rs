//! IngressClass: which controller serves an Ingress. IPAddress and ServiceCIDR: the cluster's pool of service addresses,
//! as objects. Upstream: pkg/registry/networking/{ingressclass,ipaddress,servicecidr}, ValidateIngressClass.

use std::borrow::Cow;

use apimachinery::field::{ErrorList, Path};
use apimachinery::{Doc, Ref, k, validation};

use crate::kind::*;
use crate::print::{AGE, NAME, or_none};
use crate::rules::{complain, one_of, required, unchanged};

/// The longest name of an ingress controller.
const CONTROLLER_BYTES_MAX: usize = 250;
/// What may be in the path of a controller's name. Upstream: httpPathFmt.
const PATH_SIGNS: &str = r"/-._~%!$&'()*+,;=:";

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
            scope: Scope::Cluster,
            columns: Cow::Owned(vec![
                NAME,
                Column::path("Controller", "string", "Who serves it.", "spec.controller"),
                Column::code("Parameters", "string", "Its controller's settings.", |class, _| {
                    or_none(&settings(class.get(k::SPEC).get(k::PARAMETERS)))
                }),
                AGE,
            ]),
            strategy: &IngressClass,
            ..Kind::new("networking.k8s.io", "v1", "ingressclasses", "IngressClass").defaults(|doc| {
                if doc.get(k::SPEC).get(k::PARAMETERS).is_set() {
                    doc.edit().at(k::SPEC).at(k::PARAMETERS).set_default(k::SCOPE, "Cluster");
                }
            })
        },
        crate::ingress::kind(),
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

/// `LB.example.com/settings`
fn settings(parameters: Ref<'_>) -> String {
    if !parameters.is_set() {
        return String::new();
    }
    let kind = [parameters.get(k::KIND).str(), parameters.get(k::API_GROUP).str()];
    let kind: Vec<&str> = kind.into_iter().filter(|part| !part.is_empty()).collect();
    format!("{}/{}", kind.join("."), parameters.get(k::NAME).str())
}

struct IngressClass;

impl Strategy for IngressClass {
    fn validate(&self, _op: &Op<'_>, new: &Doc, old: Option<&Doc>, errs: &mut ErrorList) {
        let (spec, at) = (new.get(k::SPEC), Path::new("spec"));
        controller(errs, spec.get(k::CONTROLLER), &at.child("controller"));
        parameters(errs, spec.get(k::PARAMETERS), &at.child("parameters"));
        if let Some(old) = old {
            let was = old.get(k::SPEC).get(k::CONTROLLER);
            unchanged(errs, spec.get(k::CONTROLLER), was, &at.child("controller"));
        }
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }
}

/// A name under a domain, such as `example.com/lb`. Upstream: IsDomainPrefixedPath.
fn controller(errs: &mut ErrorList, name: Ref<'_>, at: &Path) {
    if !required(errs, name, at) {
        return;
    }
    let name = name.str();
    if name.len() > CONTROLLER_BYTES_MAX {
        errs.too_long(at, CONTROLLER_BYTES_MAX);
    }
    match name.split_once('/') {
        Some((host, path)) if !host.is_empty() && !path.is_empty() => {
            complain(errs, at, host, validation::dns1123_subdomain(host));
            if !path.chars().all(|c| c.is_ascii_alphanumeric() || PATH_SIGNS.contains(c)) {
                let why = r"Invalid path (regex used for validation is '[A-Za-z0-9/\-._~%!$&'()*+,;=:]+')";
                errs.invalid(at, path, why);
            }
        }
        _ => errs.invalid(at, name, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
}

fn parameters(errs: &mut ErrorList, parameters: Ref<'_>, at: &Path) {
    if !parameters.is_set() {
        return;
    }
    let group = parameters.get(k::API_GROUP).str();
    if !group.is_empty() {
        complain(errs, &at.child("apiGroup"), group, validation::dns1123_subdomain(group));
    }
    for field in ["kind", "name"] {
        let value = parameters.get(field);
        if required(errs, value, &at.child(field)) {
            complain(errs, &at.child(field), value.str(), validation::path_segment(value.str()));
        }
    }
    let (scope, namespace) = (parameters.get(k::SCOPE), parameters.get(k::NAMESPACE));
    one_of(errs, scope, &at.child("scope"), &["Cluster", "Namespace"]);
    match scope.str() {
        "Namespace" if namespace.str().is_empty() => {
            errs.required(&at.child("namespace"), "`parameters.scope` is set to 'Namespace'");
        }
        "Namespace" => {
            complain(
                errs,
                &at.child("namespace"),
                namespace.str(),
                validation::dns1123_label(namespace.str()),
            );
        }
        "Cluster" if namespace.is_set() => {
            errs.forbidden(&at.child("namespace"), "`parameters.scope` is set to 'Cluster'");
        }
        _ => {}
    }
}

struct IpAddress;

impl Strategy for IpAddress {
    fn validate(&self, _op: &Op<'_>, new: &Doc, old: Option<&Doc>, errs: &mut ErrorList) {
        let (parent, at) = (new.get(k::SPEC).get(k::PARENT_REF), Path::new("spec").child("parentRef"));
        if !parent.is_set() {
            return errs.required(&at, "");
        }
        let group = parent.get(k::GROUP).str();
        if !group.is_empty() {
            complain(errs, &at.child("group"), group, validation::dns1123_subdomain(group));
        }
        required(errs, parent.get(k::RESOURCE), &at.child("resource"));
        required(errs, parent.get(k::NAME), &at.child("name"));
        for field in ["resource", "name", "namespace"] {
            let value = parent.get(field).str();
            complain(errs, &at.child(field), value, validation::path_segment(value));
        }
        if let Some(old) = old {
            unchanged(errs, parent, old.get(k::SPEC).get(k::PARENT_REF), &at);
        }
    }
}

struct ServiceCidr;

impl Strategy for ServiceCidr {
    fn validate(&self, _op: &Op<'_>, new: &Doc, old: Option<&Doc>, errs: &mut ErrorList) {
        let (cidrs, at) = (new.get(k::SPEC).get(k::CIDRS), Path::new("spec").child("cidrs"));
        if let Some(old) = old {
            let was = old.get(k::SPEC).get(k::CIDRS);
            // A range of the other family may be added; nothing else changes.
            if cidrs.len() < was.len() || (cidrs.len() > was.len() && was.len() != 1) {
                return unchanged(errs, cidrs, was, &at);
            }
            for (i, was) in was.items().enumerate() {
                unchanged(errs, cidrs.item(i), was, &at.index(i));
            }
            if cidrs.len() == was.len() {
                return;
            }
        }
        match cidrs.len() {
            0 => return errs.required(&at, "at least one CIDR required"),
            1 | 2 => {}
            _ => return errs.invalid(&at, new.get(k::SPEC), "may only hold up to 2 values"),
        }
        let mut families: Vec<bool> = Vec::new();
        for (i, cidr) in cidrs.items().enumerate() {
            complain(errs, &at.index(i), cidr.str(), validation::cidr(cidr.str()));
            families.extend(validation::parse_cidr(cidr.str()).map(|(ip, _)| ip.is_ipv4()));
        }
        if families.len() == 2 && families[0] == families[1] {
            let why =
                "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
            errs.invalid(&at, cidrs, why);
        }
    }
}
