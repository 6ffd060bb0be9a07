//! From API objects to the model, pure: what a Service and its EndpointSlices say, and what this proxy refuses.
//!
//! Upstream: pkg/proxy/{serviceport,endpointslicecache,topology}.go.

use std::collections::BTreeMap;
use std::net::IpAddr;

use apimachinery::{Ref, k};

use crate::model::{Endpoint, Protocol, ServicePort};

/// The label that names a slice's Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Which objects are this proxy's business: neither headless Services nor those of another proxy.
pub const SELECTOR: &str = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name";
/// Upstream's default of `timeoutSeconds`.
const AFFINITY_SECONDS: u32 = 10_800;

/// What one Service says: its ports by name, without endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceSeen {
    /// Each port's name and facts.
    pub ports: Vec<(String, ServicePort)>,
    /// Fields that are not honoured, and what follows.
    pub refused: Vec<&'static str>,
}

/// What one EndpointSlice says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SliceSeen {
    /// Its Service's name, in its own namespace.
    pub service: String,
    /// Endpoints by the name of the Service's port.
    pub endpoints: BTreeMap<String, Vec<Endpoint>>,
}

/// Reads a Service. Headless ones and external names have no ports here.
pub fn service(object: Ref<'_>) -> ServiceSeen {
    let spec = object.get(k::SPEC);
    let mut seen = ServiceSeen::default();
    let kind = spec.get(k::TYPE).str();
    let mut cluster_ips = addresses(spec.get(k::CLUSTER_IPS));
    if cluster_ips.is_empty() {
        cluster_ips.extend(spec.get(k::CLUSTER_IP).str().parse::<IpAddr>().ok());
    }
    if kind == "ExternalName" || cluster_ips.is_empty() {
        return seen;
    }
    let mut external_ips = addresses(spec.get(k::EXTERNAL_IPS));
    if kind == "LoadBalancer" {
        if spec.get(k::LOAD_BALANCER_SOURCE_RANGES).is_empty() {
            external_ips.extend(load_balancer_ips(object));
        } else {
            seen.refused.push(
                "spec.loadBalancerSourceRanges is not supported by this proxy: the load balancer's addresses are not served",
            );
        }
        if spec.get(k::HEALTH_CHECK_NODE_PORT).i64() != 0 {
            seen.refused.push(
                "spec.healthCheckNodePort is not supported by this proxy: no health check answers there",
            );
        }
    }
    let affinity = spec.get(k::SESSION_AFFINITY).str() == "ClientIP";
    let timeout = spec.get(k::SESSION_AFFINITY_CONFIG).get(k::CLIENT_IP).get(k::TIMEOUT_SECONDS);
    let seconds = timeout.opt_i64().and_then(|s| u32::try_from(s).ok()).unwrap_or(AFFINITY_SECONDS);
    for port in spec.get(k::PORTS).items() {
        let Some(protocol) = protocol(port) else { continue };
        let Some(number) = port_number(port.get(k::PORT)) else { continue };
        let service_port = ServicePort {
            cluster_ips: cluster_ips.clone(),
            protocol,
            port: number,
            node_port: port_number(port.get(k::NODE_PORT)),
            external_ips: external_ips.clone(),
            affinity_seconds: affinity.then_some(seconds),
            internal_local: spec.get(k::INTERNAL_TRAFFIC_POLICY).str() == "Local",
            external_local: spec.get(k::EXTERNAL_TRAFFIC_POLICY).str() == "Local",
            endpoints: Vec::new(),
        };
        seen.ports.push((port.get(k::NAME).str().to_owned(), service_port));
    }
    seen
}

/// Reads an EndpointSlice; `node` is this node's name.
pub fn slice(object: Ref<'_>, node: &str) -> SliceSeen {
    let labels = object.get(k::METADATA).get(k::LABELS);
    let mut seen = SliceSeen { service: labels.get(SERVICE_NAME).str().to_owned(), ..SliceSeen::default() };
    let ipv6 = match object.get(k::ADDRESS_TYPE).str() {
        "IPv4" => false,
        "IPv6" => true,
        // Names are not for proxies.
        _ => return seen,
    };
    for port in object.get(k::PORTS).items() {
        // A port without a number means all ports, which only other consumers understand.
        let Some(number) = port_number(port.get(k::PORT)) else { continue };
        let endpoints = seen.endpoints.entry(port.get(k::NAME).str().to_owned()).or_default();
        for endpoint in object.get(k::ENDPOINTS).items() {
            let conditions = endpoint.get(k::CONDITIONS);
            let ready = conditions.get(k::READY).opt_bool().unwrap_or(true);
            let terminating = conditions.get(k::TERMINATING).bool();
            let serving = conditions.get(k::SERVING).opt_bool().unwrap_or(ready);
            let answers = ready || (serving && terminating);
            if !answers {
                continue;
            }
            // All addresses of an endpoint lead to the same place; as upstream, the first serves.
            let address = endpoint.get(k::ADDRESSES).item(0).str().parse::<IpAddr>();
            let Some(address) = address.ok().filter(|a| a.is_ipv6() == ipv6) else { continue };
            let local = endpoint.get(k::NODE_NAME).str() == node;
            endpoints.push(Endpoint { address, port: number, local, terminating: !ready });
        }
    }
    seen
}

/// Joins a Service with its slices.
pub fn join<'a>(
    service: &ServiceSeen,
    slices: impl Iterator<Item = &'a SliceSeen> + Clone,
) -> impl Iterator<Item = ServicePort> {
    service.ports.iter().map(move |(name, port)| {
        let endpoints = slices.clone().filter_map(|s| s.endpoints.get(name)).flatten();
        ServicePort { endpoints: endpoints.copied().collect(), ..port.clone() }
    })
}

fn addresses(list: Ref<'_>) -> Vec<IpAddr> {
    list.items().filter_map(|item| item.str().parse().ok()).collect()
}

/// The addresses a load balancer has that this node stands in for.
fn load_balancer_ips(object: Ref<'_>) -> Vec<IpAddr> {
    let ingress = object.get(k::STATUS).get(k::LOAD_BALANCER).get(k::INGRESS);
    let ours = ingress.items().filter(|i| i.get("ipMode").str() != "Proxy");
    ours.filter_map(|i| i.get(k::IP).str().parse().ok()).collect()
}

fn protocol(port: Ref<'_>) -> Option<Protocol> {
    match port.get(k::PROTOCOL).str() {
        "" => Some(Protocol::Tcp),
        name => Protocol::from_name(name),
    }
}

fn port_number(value: Ref<'_>) -> Option<u16> {
    value.opt_i64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n != 0)
}

#[cfg(test)]
mod tests {
    use apimachinery::doc;

    use super::*;

    #[test]
    fn a_service_and_its_slices_become_ports_with_endpoints() {
        let object = doc!({
            "metadata": { "name": "web", "namespace": "myspace" },
            "spec": {
                "type": "NodePort", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"],
                "sessionAffinity": "ClientIP", "externalTrafficPolicy": "Local",
                "ports": [
                    { "name": "http", "protocol": "TCP", "port": 3000, "nodePort": 30080 },
                    { "name": "dns", "protocol": "UDP", "port": 53 }
                ]
            }
        });
        let seen = service(object.root());
        let slices = [doc!({
            "metadata": { "name": "web-x", "labels": { "kubernetes.io/service-name": "web" } },
            "addressType": "IPv4",
            "ports": [{ "name": "http", "protocol": "TCP", "port": 8080 }],
            "endpoints": [
                { "addresses": ["10.42.0.2"], "nodeName": "here", "conditions": { "ready": true } },
                { "addresses": ["10.42.1.3"], "nodeName": "there" },
                { "addresses": ["10.42.0.4"], "conditions": { "ready": false, "serving": true, "terminating": true } },
                { "addresses": ["10.42.0.5"], "conditions": { "ready": false } }
            ]
        })]
        .map(|s| slice(s.root(), "here"));
        assert_eq!(slices[0].service, "web");
        let ports: Vec<ServicePort> = join(&seen, slices.iter()).collect();
        let endpoint = |address: [u8; 4], local, terminating| Endpoint {
            address: address.into(),
            port: 8080,
            local,
            terminating,
        };
        let want = [
            endpoint([10, 42, 0, 2], true, false),
            endpoint([10, 42, 1, 3], false, false),
            endpoint([10, 42, 0, 4], false, true),
        ];
        assert_eq!(ports[0].endpoints, want);
        assert_eq!((ports[0].port, ports[0].node_port), (3000, Some(30080)));
        assert_eq!((ports[0].affinity_seconds, ports[0].external_local), (Some(10_800), true));
        assert_eq!((ports[1].protocol, ports[1].port, ports[1].endpoints.len()), (Protocol::Udp, 53, 0));
    }

    #[test]
    fn headless_and_external_names_are_not_served_and_what_is_refused_is_named() {
        let headless =
            doc!({ "spec": { "clusterIP": "None", "clusterIPs": ["None"], "ports": [{ "port": 80 }] } });
        assert_eq!(service(headless.root()), ServiceSeen::default());
        let name = doc!({ "spec": { "type": "ExternalName", "externalName": "example.org" } });
        assert_eq!(service(name.root()), ServiceSeen::default());
        let guarded = doc!({
            "spec": {
                "type": "LoadBalancer", "clusterIP": "10.96.0.9", "ports": [{ "port": 80 }],
                "loadBalancerSourceRanges": ["192.0.2.0/24"]
            },
            "status": { "loadBalancer": { "ingress": [{ "ip": "198.51.100.1" }] } }
        });
        let seen = service(guarded.root());
        assert!(seen.refused[0].starts_with("spec.loadBalancerSourceRanges"));
        assert!(seen.ports[0].1.external_ips.is_empty());
    }
}
