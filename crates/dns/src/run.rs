//! The component: caches into the zone, sockets out of it, and the Service's endpoints, which are our own
//! addresses.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use apimachinery::schema::views::core_v1::Service as ServiceView;
use apimachinery::schema::views::discovery_v1::EndpointSlice;
use apimachinery::{Doc, doc, k};
use base::task::{Task, spawn};
use client::cache::Change;
use client::{Client, Error, gvr, reflector};
use tokio::net::{TcpListener, UdpSocket};

use crate::forward::Forwarder;
use crate::serve::{self, Shared};
use crate::zone::{Service, Zone, read_slice};

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Where and for what to answer.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's domain.
    pub domain: String,
    /// Addresses to listen on, port 53: the pod network's gateways on this node.
    pub addresses: Vec<IpAddr>,
    /// This node's name, for the slice of `kube-dns` that announces it.
    pub node: String,
    /// The machine's own resolver configuration, for questions about the rest of the world.
    pub resolv_conf: PathBuf,
}

/// Why the DNS cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// A socket could not be had, or failed.
    #[error("serve DNS on {address}")]
    Socket {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The Service's endpoints could not be written.
    #[error("announce the DNS server")]
    Announce(#[source] Error),
}

/// Serves until a socket fails. Calls `ready` once the zone is complete and every socket is open.
///
/// # Errors
/// [`DnsError`]; it never returns otherwise.
pub async fn run(client: Client, config: Config, ready: impl FnOnce()) -> Result<(), DnsError> {
    let text = std::fs::read_to_string(&config.resolv_conf).unwrap_or_else(|err| {
        tracing::warn!(path = %config.resolv_conf.display(), %err, "no name servers to forward to");
        String::new()
    });
    let forwarder = Forwarder::from_resolv_conf(&text, &config.addresses);
    let shared = Arc::new(Shared::new(Zone::new(&config.domain), forwarder));
    let _caches = fill(&client, &shared).await;
    let (failed, mut failures) = tokio::sync::mpsc::channel(1);
    let mut servers: Vec<Task<()>> = Vec::new();
    for address in &config.addresses {
        let address = SocketAddr::new(*address, 53);
        let socket_error = move |source| DnsError::Socket { address, source };
        let udp = UdpSocket::bind(address).await.map_err(socket_error)?;
        let tcp = TcpListener::bind(address).await.map_err(socket_error)?;
        let (udp, tcp) = (serve::udp(udp, Arc::clone(&shared)), serve::tcp(tcp, Arc::clone(&shared)));
        let failed = failed.clone();
        servers.push(spawn(async move {
            let ended = base::select! { ended = udp => ended, ended = tcp => ended };
            if let Err(source) = ended {
                // A full channel means that another failure ends us already.
                failed.try_send(DnsError::Socket { address, source }).ok();
            }
        }));
    }
    announce(&client, &config).await.map_err(DnsError::Announce)?;
    ready();
    let failure = failures.recv().await.expect("this function holds a sender");
    Err(failure)
}

/// Starts the caches that keep the zone, and waits until it is complete.
async fn fill(client: &Client, shared: &Arc<Shared>) -> [Task<()>; 2] {
    let all = reflector::Selection::default;
    let (services, keep_services) = reflector::start(client.resource(gvr::SERVICES), all(), Vec::new());
    let (slices, keep_slices) = reflector::start(client.resource(gvr::ENDPOINT_SLICES), all(), Vec::new());
    let zone = Arc::clone(shared);
    services.subscribe(move |change| {
        let service = change.new.map(|stored| Service::read(ServiceView(stored.doc().root())));
        let mut zone = zone.zone.write().expect("nobody panics holding it");
        zone.set_service(&change.key.namespace, &change.key.name, service);
    });
    let zone = Arc::clone(shared);
    slices.subscribe(move |change| apply_slice(&zone, change));
    services.wait_synced().await;
    slices.wait_synced().await;
    [keep_services, keep_slices]
}

fn apply_slice(shared: &Shared, change: &Change<'_>) {
    let service_of = |doc: &Doc| doc.get(k::METADATA).get(k::LABELS).get(SERVICE_NAME).str().to_owned();
    let old = change.old.map(|stored| service_of(&stored.doc()));
    let new = change.new.map(|stored| stored.doc());
    let mut zone = shared.zone.write().expect("nobody panics holding it");
    let (namespace, name) = (&change.key.namespace, &change.key.name);
    if let Some(service) = old {
        zone.set_slice(namespace, &service, name, Vec::new());
    }
    if let Some(doc) = new {
        zone.set_slice(namespace, &service_of(&doc), name, read_slice(EndpointSlice(doc.root())));
    }
}

/// Writes this node's slice of the Service `kube-dns`.
async fn announce(client: &Client, config: &Config) -> Result<(), Error> {
    for v6 in [false, true] {
        let mine: Vec<String> =
            config.addresses.iter().filter(|a| a.is_ipv6() == v6).map(ToString::to_string).collect();
        if mine.is_empty() {
            continue;
        }
        let family = if v6 { "IPv6" } else { "IPv4" };
        let name = format!("kube-dns-{}-{}", config.node, family.to_ascii_lowercase());
        let slice = doc!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": name, "namespace": "kube-system",
                "labels": { SERVICE_NAME: "kube-dns", "endpointslice.kubernetes.io/managed-by": "keelson-dns" } },
            "addressType": family,
            "endpoints": [{ "addresses": mine, "conditions": { "ready": true }, "nodeName": config.node }],
            "ports": [{ "name": "dns", "port": 53, "protocol": "UDP" }, { "name": "dns-tcp", "port": 53, "protocol": "TCP" }] });
        let resource = client.namespaced(gvr::ENDPOINT_SLICES, "kube-system");
        match resource.get(&name).await {
            Err(err) if err.is_not_found() => {
                resource.create(slice).await?;
            }
            Err(err) => return Err(err),
            Ok(stored) => {
                let mut current = stored.doc();
                for key in [k::ENDPOINTS, k::PORTS] {
                    current.edit().set(key, slice.get(key));
                }
                resource.update(current).await?;
            }
        }
    }
    Ok(())
}
