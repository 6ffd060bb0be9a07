//! What a Service may say. Upstream: pkg/apis/core/validation ValidateService.

use apimachinery::field::{ErrorList, Path};
use apimachinery::{Ref, k, validation};

use crate::core::container_validation::port as int_or_name;
use crate::core::service::{needs_external_policy, takes_cluster_ip};
use crate::rules::{self, complain, none_or_one_of, one_of};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// The spec of a Service.
pub(crate) fn service(errs: &mut ErrorList, spec: Ref<'_>) {
    let at = Path::new("spec");
    let ty = spec.get(k::TYPE).str();
    let headless = spec.get(k::CLUSTER_IP).str() == "None";
    if spec.get(k::PORTS).is_empty() && !headless && ty != "ExternalName" {
        errs.required(&at.child("ports"), "");
    }
    if ty == "LoadBalancer" && headless {
        errs.invalid(
            &at.child("clusterIPs").index(0),
            "None",
            "may not be set to 'None' for LoadBalancer services",
        );
    }
    if ty == "NodePort" && headless {
        errs.invalid(
            &at.child("clusterIPs").index(0),
            "None",
            "may not be set to 'None' for NodePort services",
        );
    }
    if ty == "ExternalName" {
        external_name(errs, spec, &at);
    }
    ports(errs, spec, headless, &at.child("ports"));
    rules::labels(errs, spec.get(k::SELECTOR), &at.child("selector"));
    one_of(errs, spec.get(k::SESSION_AFFINITY), &at.child("sessionAffinity"), &["ClientIP", "None"]);
    let seconds = spec.get(k::SESSION_AFFINITY_CONFIG).get(k::CLIENT_IP).get(k::TIMEOUT_SECONDS);
    if seconds.is_set() && !(1..=86_400).contains(&seconds.i64()) {
        let at = at.child("sessionAffinityConfig").child("clientIP").child("timeoutSeconds");
        errs.invalid(&at, seconds.i64(), "must be greater than 0 and less than 86400");
    }
    one_of(errs, spec.get(k::TYPE), &at.child("type"), TYPES);
    addresses(errs, spec, &at);
    policies(errs, spec, &at);
}

fn external_name(errs: &mut ErrorList, spec: Ref<'_>, at: &Path) {
    for (i, ip) in spec.get(k::CLUSTER_IPS).items().enumerate() {
        errs.forbidden(&at.child("clusterIPs").index(i), "may not be set for ExternalName services");
        if ip.str().is_empty() {
            return;
        }
    }
    let name = spec.get(k::EXTERNAL_NAME).str().trim_end_matches('.');
    if name.is_empty() {
        errs.required(&at.child("externalName"), "");
    } else {
        complain(errs, &at.child("externalName"), name, validation::dns1123_subdomain(name));
    }
}

fn ports(errs: &mut ErrorList, spec: Ref<'_>, headless: bool, at: &Path) {
    let all = spec.get(k::PORTS);
    let (mut names, mut numbers, mut node_ports) = (Vec::new(), Vec::new(), Vec::new());
    for (i, port) in all.items().enumerate() {
        let at = at.index(i);
        let (name, number) = (port.get(k::NAME).str(), port.get(k::PORT).i64());
        if name.is_empty() {
            if all.len() > 1 {
                errs.required(&at.child("name"), "");
            }
        } else {
            complain(errs, &at.child("name"), name, validation::dns1123_label(name));
            if names.contains(&name) {
                errs.duplicate(&at.child("name"), name);
            }
            names.push(name);
        }
        for complaint in validation::port_number(number) {
            errs.invalid(&at.child("port"), number, &complaint);
        }
        one_of(errs, port.get(k::PROTOCOL), &at.child("protocol"), PROTOCOLS);
        int_or_name(errs, port.get(k::TARGET_PORT), &at.child("targetPort"));
        let app = port.get(k::APP_PROTOCOL).str();
        if !app.is_empty() {
            complain(errs, &at.child("appProtocol"), app, validation::qualified_name(app));
        }
        let protocol = port.get(k::PROTOCOL).str();
        if numbers.contains(&(number, protocol)) && !headless {
            errs.duplicate(&at, rules::Text(format!("{{\"port\":{number},\"protocol\":{protocol:?}}}")));
        }
        numbers.push((number, protocol));
        let node = port.get(k::NODE_PORT).i64();
        if node == 0 {
            continue;
        }
        if spec.get(k::TYPE).str() == "ClusterIP" {
            errs.forbidden(&at.child("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
        if node_ports.contains(&(node, protocol)) {
            errs.duplicate(&at.child("nodePort"), node);
        }
        node_ports.push((node, protocol));
    }
}

fn addresses(errs: &mut ErrorList, spec: Ref<'_>, at: &Path) {
    for (i, ip) in spec.get(k::EXTERNAL_IPS).items().enumerate() {
        let at = at.child("externalIPs").index(i);
        complain(errs, &at, ip.str(), validation::non_special_ip(ip.str()));
    }
    for (i, ip) in spec.get(k::CLUSTER_IPS).items().enumerate() {
        if ip.str() != "None" || i > 0 {
            complain(errs, &at.child("clusterIPs").index(i), ip.str(), validation::ip(ip.str()));
        }
    }
    let first = spec.get(k::CLUSTER_IPS).item(0).str();
    if takes_cluster_ip(spec) && !first.is_empty() && spec.get(k::CLUSTER_IP).str() != first {
        errs.invalid(&at.child("clusterIP"), spec.get(k::CLUSTER_IP).str(), "must match clusterIPs[0]");
    }
    let mut seen: Vec<&str> = Vec::new();
    for (i, family) in spec.get(k::IP_FAMILIES).items().enumerate() {
        let at = at.child("ipFamilies").index(i);
        one_of(errs, family, &at, &["IPv4", "IPv6"]);
        if seen.contains(&family.str()) {
            errs.duplicate(&at, family.str());
        }
        seen.push(family.str());
    }
    let policies = &["PreferDualStack", "RequireDualStack", "SingleStack"];
    none_or_one_of(errs, spec.get(k::IP_FAMILY_POLICY), &at.child("ipFamilyPolicy"), policies);
}

fn policies(errs: &mut ErrorList, spec: Ref<'_>, at: &Path) {
    let balancer = spec.get(k::TYPE).str() == "LoadBalancer";
    let ranges = spec.get(k::LOAD_BALANCER_SOURCE_RANGES);
    if !ranges.is_empty() && !balancer {
        errs.forbidden(
            &at.child("LoadBalancerSourceRanges"),
            "may only be used when `type` is 'LoadBalancer'",
        );
    }
    for (i, range) in ranges.items().enumerate() {
        complain(
            errs,
            &at.child("loadBalancerSourceRanges").index(i),
            range.str(),
            validation::cidr(range.str().trim()),
        );
    }
    if balancer && !spec.get(k::ALLOCATE_LOAD_BALANCER_NODE_PORTS).is_set() {
        errs.required(&at.child("allocateLoadBalancerNodePorts"), "");
    }
    if !balancer && spec.get(k::ALLOCATE_LOAD_BALANCER_NODE_PORTS).is_set() {
        errs.forbidden(
            &at.child("allocateLoadBalancerNodePorts"),
            "may only be used when `type` is 'LoadBalancer'",
        );
    }
    if !balancer && spec.get(k::LOAD_BALANCER_CLASS).is_set() {
        errs.forbidden(&at.child("loadBalancerClass"), "may only be used when `type` is 'LoadBalancer'");
    }
    let external = spec.get(k::EXTERNAL_TRAFFIC_POLICY);
    if needs_external_policy(spec) {
        one_of(errs, external, &at.child("externalTrafficPolicy"), &["Cluster", "Local"]);
    } else if !external.str().is_empty() {
        errs.invalid(
            &at.child("externalTrafficPolicy"),
            external.str(),
            "may only be set for externally-accessible services",
        );
    }
    let health = spec.get(k::HEALTH_CHECK_NODE_PORT).i64();
    if health != 0 && !(balancer && external.str() == "Local") {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errs.invalid(&at.child("healthCheckNodePort"), health, detail);
    }
    none_or_one_of(
        errs,
        spec.get(k::INTERNAL_TRAFFIC_POLICY),
        &at.child("internalTrafficPolicy"),
        &["Cluster", "Local"],
    );
    none_or_one_of(
        errs,
        spec.get(k::TRAFFIC_DISTRIBUTION),
        &at.child("trafficDistribution"),
        &["PreferClose", "PreferSameNode", "PreferSameZone"],
    );
}

/// Addresses stay while the type has one.
pub(crate) fn update(errs: &mut ErrorList, new: Ref<'_>, old: Ref<'_>) {
    if !takes_cluster_ip(new) || !takes_cluster_ip(old) {
        return;
    }
    let (was, is, at) =
        (old.get(k::CLUSTER_IPS), new.get(k::CLUSTER_IPS), Path::new("spec").child("clusterIPs"));
    for (i, old_ip) in was.items().enumerate() {
        let ip = is.item(i).str();
        if ip.is_empty() && i == 0 {
            errs.invalid(&at.index(0), is, "primary clusterIP can not be unset");
        } else if !ip.is_empty() && ip != old_ip.str() {
            errs.invalid(&at.index(i), is, "may not change once set");
        }
    }
}
