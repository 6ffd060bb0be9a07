//! What the cluster's names mean, from its Services and EndpointSlices; pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use apimachinery::schema::views::core_v1::Service as ServiceView;
use apimachinery::schema::views::discovery_v1::EndpointSlice;
use base::hash::Map;

/// A port with a name, for SRV records.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// The port's name.
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// The number.
    pub port: u16,
}

/// One address of a headless Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The address.
    pub address: IpAddr,
    /// Its name below the Service's: the pod's hostname, or the address with dashes.
    pub hostname: String,
    /// Ports of the slice it is in.
    pub ports: Vec<Port>,
}

/// What is known of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its virtual addresses; none for headless Services.
    pub addresses: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<Port>,
    /// The target of an `ExternalName`.
    pub external_name: String,
    /// Whether endpoints answer in place of a virtual address.
    pub headless: bool,
    /// Whether endpoints that are not ready answer too.
    pub publish_not_ready: bool,
}

/// A Service's slices by name, with their endpoints and whether each is ready.
type Slices = BTreeMap<String, Vec<(Endpoint, bool)>>;

/// The cluster's names.
pub struct Zone {
    /// The cluster's domain in lower case, without a dot at the end: `cluster.local`.
    pub domain: String,
    /// Grows with every change.
    pub serial: u32,
    services: BTreeMap<(String, String), Service>,
    // Endpoints by Service, then by slice, since slices come and go one by one.
    slices: BTreeMap<(String, String), Slices>,
    reverse: Map<IpAddr, (String, String)>,
}

impl Zone {
    /// A zone without Services.
    pub fn new(domain: &str) -> Zone {
        Zone {
            domain: domain.trim_end_matches('.').to_ascii_lowercase(),
            serial: 1,
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            reverse: Map::default(),
        }
    }

    /// A Service as it is now; `None` when it is gone.
    pub fn set_service(&mut self, namespace: &str, name: &str, service: Option<Service>) {
        self.serial = self.serial.wrapping_add(1);
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(old) = self.services.remove(&key) {
            for address in old.addresses {
                self.reverse.remove(&address);
            }
        }
        if let Some(service) = service {
            for address in &service.addresses {
                self.reverse.insert(*address, key.clone());
            }
            self.services.insert(key, service);
        }
    }

    /// A slice of a Service as it is now: endpoints, and whether each is ready. Empty when it is gone.
    pub fn set_slice(
        &mut self,
        namespace: &str,
        service: &str,
        slice: &str,
        endpoints: Vec<(Endpoint, bool)>,
    ) {
        self.serial = self.serial.wrapping_add(1);
        let key = (namespace.to_owned(), service.to_owned());
        let slices = self.slices.entry(key.clone()).or_default();
        if endpoints.is_empty() {
            slices.remove(slice);
        } else {
            slices.insert(slice.to_owned(), endpoints);
        }
        if slices.is_empty() {
            self.slices.remove(&key);
        }
    }

    /// The Service of that name.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.services.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// Whether a namespace has Services.
    pub fn has_namespace(&self, namespace: &str) -> bool {
        let from = (namespace.to_owned(), String::new());
        self.services.range(from..).next().is_some_and(|((ns, _), _)| ns == namespace)
    }

    /// The endpoints that answer for a headless Service.
    pub fn endpoints(&self, namespace: &str, name: &str, service: &Service) -> Vec<&Endpoint> {
        let slices = self.slices.get(&(namespace.to_owned(), name.to_owned()));
        let all = slices.into_iter().flat_map(BTreeMap::values).flatten();
        all.filter(|(_, ready)| *ready || service.publish_not_ready).map(|(endpoint, _)| endpoint).collect()
    }

    /// Whose address it is, as a full name.
    pub fn name_of(&self, address: IpAddr) -> Option<String> {
        if let Some((namespace, name)) = self.reverse.get(&address) {
            return Some(format!("{name}.{namespace}.svc.{}", self.domain));
        }
        self.slices.iter().find_map(|((namespace, name), slices)| {
            self.service(namespace, name).filter(|s| s.headless)?;
            let endpoint = slices.values().flatten().find(|(e, _)| e.address == address)?;
            Some(format!("{}.{name}.{namespace}.svc.{}", endpoint.0.hostname, self.domain))
        })
    }
}

impl Service {
    /// From the API's object.
    pub fn read(service: ServiceView<'_>) -> Service {
        let spec = service.spec();
        let parse = |text: &str| text.parse().ok();
        let headless = spec.cluster_ip() == "None";
        let external = spec.type_() == "ExternalName";
        let ports = spec.ports().iter().filter_map(|p| port(p.name(), p.protocol(), p.port()));
        Service {
            addresses: spec.cluster_ips().iter().filter_map(parse).collect(),
            ports: ports.collect(),
            external_name: if external { spec.external_name().to_owned() } else { String::new() },
            headless,
            publish_not_ready: spec.publish_not_ready_addresses(),
        }
    }
}

fn port(name: &str, protocol: &str, port: i64) -> Option<Port> {
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_ascii_lowercase() };
    Some(Port { name: name.to_owned(), protocol, port: u16::try_from(port).ok()? })
}

/// The endpoints of a slice, and whether each is ready.
pub fn read_slice(slice: EndpointSlice<'_>) -> Vec<(Endpoint, bool)> {
    let ports: Vec<Port> = slice
        .ports()
        .iter()
        .filter_map(|p| port(p.name().unwrap_or(""), p.protocol().unwrap_or(""), p.port().unwrap_or(0)))
        .collect();
    let mut out = Vec::new();
    for endpoint in slice.endpoints().iter() {
        let ready = endpoint.conditions().ready().unwrap_or(true);
        for address in endpoint.addresses().iter() {
            let Ok(address) = address.parse::<IpAddr>() else { continue };
            let hostname = match endpoint.hostname() {
                Some(name) if !name.is_empty() => name.to_owned(),
                _ => address.to_string().replace(['.', ':'], "-"),
            };
            out.push((Endpoint { address, hostname, ports: ports.clone() }, ready));
        }
    }
    out
}
