//! Ingress: HTTP from outside, by host and path, to Services. Upstream: pkg/registry/networking/ingress,
//! pkg/apis/networking/validation.

use std::borrow::Cow;

use apimachinery::field::{ErrorList, Path};
use apimachinery::{Doc, Ref, k, validation};

use crate::kind::*;
use crate::print::{AGE, NAME, or_none};
use crate::rules::{Text, complain, required};

/// Before there were classes, they were named so.
pub const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];
/// Hosts that a table shows, and the width of its addresses.
const HOSTS_MAX: usize = 3;
const ADDRESSES_WIDTH: usize = 16;

/// Ingresses.
pub(crate) fn kind() -> Kind {
    Kind {
        short: names(&["ing"]),
        key_prefix: "/registry/ingress".into(),
        subresources: vec![Sub::STATUS],
        columns: Cow::Owned(vec![
            NAME,
            Column::code("Class", "string", "The class that serves it.", |i, _| {
                or_none(i.get(k::SPEC).get(k::INGRESS_CLASS_NAME).str())
            }),
            Column::code("Hosts", "string", "The hosts it is for.", |i, _| Cell::from(hosts(i))),
            Column::code("Address", "string", "Where it is reached.", |i, _| Cell::from(addresses(i))),
            Column::code("Ports", "string", "The ports that serve it.", |i, _| {
                Cell::from(if i.get(k::SPEC).get(k::TLS).is_empty() { "80" } else { "80, 443" })
            }),
            AGE,
        ]),
        strategy: &Ingress,
        ..Kind::new("networking.k8s.io", "v1", "ingresses", "Ingress")
    }
}

fn hosts(ingress: Ref<'_>) -> String {
    let rules = ingress.get(k::SPEC).get(k::RULES).items();
    let mut all: Vec<&str> = rules.map(|r| r.get(k::HOST).str()).filter(|h| !h.is_empty()).collect();
    let more = all.len().saturating_sub(HOSTS_MAX);
    all.truncate(HOSTS_MAX);
    match (all.join(","), more) {
        (none, _) if none.is_empty() => "*".to_owned(),
        (some, 0) => some,
        (some, more) => format!("{some} + {more} more..."),
    }
}

fn addresses(ingress: Ref<'_>) -> String {
    let all = ingress.get(k::STATUS).get(k::LOAD_BALANCER).get(k::INGRESS).items();
    let one = |i: Ref<'_>| match i.get(k::IP).str() {
        "" => i.get(k::HOSTNAME).str().to_owned(),
        ip => ip.to_owned(),
    };
    let text = all.map(one).collect::<Vec<_>>().join(",");
    match text.get(..ADDRESSES_WIDTH - 3) {
        Some(start) if text.len() > ADDRESSES_WIDTH => format!("{start}..."),
        _ => text,
    }
}

struct Ingress;

impl Strategy for Ingress {
    fn validate(&self, op: &Op<'_>, new: &Doc, old: Option<&Doc>, errs: &mut ErrorList) {
        if op.subresource == "status" {
            return status(errs, new.get(k::STATUS));
        }
        let (spec, at) = (new.get(k::SPEC), Path::new("spec"));
        let old_way = new.get(k::METADATA).get(k::ANNOTATIONS).get(CLASS_ANNOTATION);
        if old.is_none() && old_way.exists() && spec.get(k::INGRESS_CLASS_NAME).is_set() {
            let at = Path::new("metadata").child("annotations").key(CLASS_ANNOTATION);
            errs.invalid(&at, old_way.str(), "can not be set when the class field is also set");
        }
        let (rules, backend) = (spec.get(k::RULES), spec.get(k::DEFAULT_BACKEND));
        if rules.is_empty() && !backend.is_set() {
            errs.invalid(
                &at,
                Text("null".to_owned()),
                "either `defaultBackend` or `rules` must be specified",
            );
        }
        if backend.is_set() {
            self::backend(errs, backend, &at.child("defaultBackend"));
        }
        for (i, rule) in rules.items().enumerate() {
            self::rule(errs, rule, &at.child("rules").index(i));
        }
        for (i, tls) in spec.get(k::TLS).items().enumerate() {
            let at = at.child("tls").index(i);
            for (j, name) in tls.get(k::HOSTS).items().enumerate() {
                complain(errs, &at.child("hosts").index(j), name.str(), host(name.str()));
            }
            let secret = tls.get(k::SECRET_NAME).str();
            if !secret.is_empty() {
                complain(errs, &at.child("secretName"), secret, validation::dns1123_subdomain(secret));
            }
        }
        let class = spec.get(k::INGRESS_CLASS_NAME);
        if class.is_set() {
            let complaints = validation::dns1123_subdomain(class.str());
            complain(errs, &at.child("ingressClassName"), class.str(), complaints);
        }
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }
}

/// Complaints about a host, which may begin with a wildcard.
fn host(text: &str) -> Vec<String> {
    match text.strip_prefix("*.") {
        Some(rest) if !rest.contains('*') => validation::dns1123_subdomain(rest),
        _ if text.contains('*') => vec![
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of \
             lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', \
             regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
                .to_owned(),
        ],
        _ => validation::dns1123_subdomain(text),
    }
}

fn rule(errs: &mut ErrorList, rule: Ref<'_>, at: &Path) {
    let name = rule.get(k::HOST).str();
    if name.parse::<std::net::IpAddr>().is_ok() {
        errs.invalid(&at.child("host"), name, "must be a DNS name, not an IP address");
    } else if !name.is_empty() {
        complain(errs, &at.child("host"), name, host(name));
    }
    let (http, at) = (rule.get(k::HTTP), at.child("http").child("paths"));
    if http.is_set() && http.get(k::PATHS).is_empty() {
        errs.required(&at, "");
    }
    for (i, path) in http.get(k::PATHS).items().enumerate() {
        self::path(errs, path, &at.index(i));
    }
}

fn path(errs: &mut ErrorList, path: Ref<'_>, at: &Path) {
    let (ty, text) = (path.get(k::PATH_TYPE), path.get(k::PATH).str());
    if !ty.is_set() {
        return errs.required(&at.child("pathType"), "pathType must be specified");
    }
    let exact = ["Exact", "Prefix"].contains(&ty.str());
    if !PATH_TYPES.contains(&ty.str()) {
        errs.not_supported(&at.child("pathType"), ty.str(), &PATH_TYPES);
    } else if !text.starts_with('/') && (exact || !text.is_empty()) {
        errs.invalid(&at.child("path"), text, "must be an absolute path");
    }
    if exact {
        for wrong in ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|wrong| text.contains(**wrong)) {
            errs.invalid(&at.child("path"), text, &format!("must not contain '{wrong}'"));
        }
        for wrong in ["/..", "/."].iter().filter(|wrong| text.ends_with(**wrong)) {
            errs.invalid(&at.child("path"), text, &format!("cannot end with '{wrong}'"));
        }
    }
    backend(errs, path.get(k::BACKEND), &at.child("backend"));
}

fn backend(errs: &mut ErrorList, backend: Ref<'_>, at: &Path) {
    let (resource, service) = (backend.get(k::RESOURCE), backend.get(k::SERVICE));
    match (resource.is_set(), service.is_set()) {
        (true, true) => return errs.invalid(at, "", "cannot set both resource and service backends"),
        (false, false) => return errs.invalid(at, "", "resource or service backend is required"),
        (true, false) => {
            required(errs, resource.get(k::KIND), &at.child("resource").child("kind"));
            required(errs, resource.get(k::NAME), &at.child("resource").child("name"));
            return;
        }
        (false, true) => {}
    }
    let service_at = at.child("service");
    if required(errs, service.get(k::NAME), &service_at.child("name")) {
        let name = service.get(k::NAME).str();
        complain(errs, &service_at.child("name"), name, validation::dns1035_label(name));
    }
    let (name, number) = (service.get(k::PORT).get(k::NAME).str(), service.get(k::PORT).get(k::NUMBER).i64());
    match (name, number) {
        ("", 0) => errs.required(at, "port name or number is required"),
        ("", number) => {
            for complaint in validation::port_number(number) {
                errs.invalid(&service_at.child("port").child("number"), number, &complaint);
            }
        }
        (name, 0) => {
            complain(errs, &service_at.child("port").child("name"), name, validation::port_name(name));
        }
        _ => errs.invalid(at, "", "cannot set both port name & port number"),
    }
}

fn status(errs: &mut ErrorList, status: Ref<'_>) {
    let at = Path::new("status").child("loadBalancer").child("ingress");
    for (i, one) in status.get(k::LOAD_BALANCER).get(k::INGRESS).items().enumerate() {
        let (ip, name) = (one.get(k::IP).str(), one.get(k::HOSTNAME).str());
        if !ip.is_empty() {
            complain(errs, &at.index(i).child("ip"), ip, validation::ip(ip));
        }
        if name.parse::<std::net::IpAddr>().is_ok() {
            errs.invalid(&at.index(i).child("hostname"), name, "must be a DNS name, not an IP address");
        } else if !name.is_empty() {
            complain(errs, &at.index(i).child("hostname"), name, validation::dns1123_subdomain(name));
        }
    }
}
