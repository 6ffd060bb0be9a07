//! The pod network as the kubelet wants it, and its end.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::Context as _;
use apimachinery::call::BoxFuture;
use base::task::blocking;
use kubelet::doors;
use network::{HostPort, IpNet, PodNetwork, PodNetworkConfig, forward_obstacles};
use tokio::sync::watch;

use crate::cli::Cluster;
use crate::layout::Layout;

/// The bridge's name, and the beginning of all other names on the host.
const BRIDGE: &str = "keelson0";
const PREFIX: &str = "keelson";
/// Bytes of the largest packet: what an overlay leaves of an Ethernet frame.
const MTU: u32 = 1450;

/// What becomes known once the node has its pod ranges.
#[derive(Clone, Debug, Default)]
pub struct Ready {
    /// The bridge's addresses.
    pub gateways: Vec<IpAddr>,
    /// The node's pod ranges.
    pub pod_cidrs: Vec<IpNet>,
}

/// The kubelet's door to `network`.
pub struct Door {
    settings: Settings,
    open: Mutex<Option<PodNetwork>>,
    ready: watch::Sender<Option<Ready>>,
}

#[derive(Clone)]
struct Settings {
    state_dir: PathBuf,
    cluster_cidrs: Vec<IpNet>,
    service_cidrs: Vec<IpNet>,
}

impl Settings {
    fn config(&self, pod_cidrs: Vec<IpNet>) -> PodNetworkConfig {
        PodNetworkConfig {
            bridge: BRIDGE.to_owned(),
            pod_cidrs,
            cluster_cidrs: self.cluster_cidrs.clone(),
            service_cidrs: self.service_cidrs.clone(),
            mtu: MTU,
            netns: None,
            state_dir: self.state_dir.clone(),
            prefix: PREFIX.to_owned(),
        }
    }

    /// The ranges the network was last made for: what `down` needs to take it away.
    fn ranges_file(&self) -> PathBuf {
        self.state_dir.join("ranges")
    }
}

impl Door {
    /// Not made yet: [`doors::PodNetwork::setup`] makes it.
    ///
    /// # Errors
    /// When a range of the cluster is no CIDR.
    pub fn new(layout: &Layout, cluster: &Cluster) -> anyhow::Result<Door> {
        let settings = Settings {
            state_dir: layout.network(),
            cluster_cidrs: parse(&cluster.cluster_cidr).context("--cluster-cidr")?,
            service_cidrs: parse(&cluster.service_cidr).context("--service-cidr")?,
        };
        Ok(Door { settings, open: Mutex::default(), ready: watch::Sender::new(None) })
    }

    /// Tells when the network is there.
    pub fn ready(&self) -> watch::Receiver<Option<Ready>> {
        self.ready.subscribe()
    }

    fn network(&self) -> doors::Result<PodNetwork> {
        let open = self.open.lock().expect("nobody panics holding it").clone();
        open.ok_or_else(|| "the node has no pod range yet".into())
    }
}

fn parse(cidrs: &[String]) -> anyhow::Result<Vec<IpNet>> {
    cidrs.iter().map(|c| c.parse().with_context(|| format!("{c:?} is no CIDR"))).collect()
}

impl doors::PodNetwork for Door {
    fn setup(&self, pod_cidrs: Vec<String>) -> BoxFuture<'_, doors::Result<()>> {
        Box::pin(async move {
            let pod_cidrs = parse(&pod_cidrs)?;
            let settings = self.settings.clone();
            let ranges = pod_cidrs.clone();
            let (network, obstacles) = blocking(move || {
                let network = PodNetwork::open(settings.config(ranges.clone()))?;
                let text: Vec<String> = [&ranges, &settings.cluster_cidrs, &settings.service_cidrs]
                    .map(|list| join(list))
                    .to_vec();
                fs::write(settings.ranges_file(), text.join("\n"))?;
                network.setup()?;
                Ok::<_, doors::Failure>((network, forward_obstacles(None, BRIDGE)?))
            })
            .await?;
            for obstacle in obstacles {
                tracing::warn!("in the pods' way: {obstacle}");
            }
            let ready = Ready { gateways: network.gateways(), pod_cidrs };
            *self.open.lock().expect("nobody panics holding it") = Some(network);
            self.ready.send_replace(Some(ready));
            Ok(())
        })
    }

    fn attach(
        &self,
        netns: PathBuf,
        key: String,
        ports: Vec<doors::HostPort>,
    ) -> BoxFuture<'_, doors::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let network = self.network()?;
            let ports: Vec<HostPort> = ports.iter().map(host_port).collect();
            let attach = move || {
                let addresses = network.attach(&netns, &key)?;
                network.set_host_ports(&key, &ports).map(|()| addresses)
            };
            Ok(blocking(attach).await?)
        })
    }

    fn detach(&self, key: String) -> BoxFuture<'_, doors::Result<()>> {
        Box::pin(async move {
            let network = self.network()?;
            Ok(blocking(move || network.detach(&key)).await?)
        })
    }

    fn keys(&self) -> BoxFuture<'_, doors::Result<Vec<String>>> {
        Box::pin(async move {
            let network = self.network()?;
            let all = blocking(move || network.list()).await?;
            Ok(all.into_iter().map(|attachment| attachment.key).collect())
        })
    }
}

fn host_port(port: &doors::HostPort) -> HostPort {
    let protocol = match port.protocol.as_str() {
        "UDP" => 17,
        "SCTP" => 132,
        _ => 6,
    };
    HostPort { address: port.address, protocol, port: port.port, pod_port: port.pod_port }
}

fn join(list: &[IpNet]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Takes the pod network and the Services' rules away, as they were made by the last start.
///
/// # Errors
/// When the kernel refuses, or a state file is damaged.
pub async fn take_away(layout: &Layout) -> anyhow::Result<()> {
    let state_dir = layout.network();
    blocking(move || take_away_now(&state_dir)).await
}

fn take_away_now(state_dir: &Path) -> anyhow::Result<()> {
    let mut settings =
        Settings { state_dir: state_dir.to_owned(), cluster_cidrs: Vec::new(), service_cidrs: Vec::new() };
    let Ok(text) = fs::read_to_string(settings.ranges_file()) else { return Ok(()) };
    let lists: Vec<Vec<IpNet>> = text
        .split('\n')
        .map(|line| parse(&line.split(',').filter(|c| !c.is_empty()).map(str::to_owned).collect::<Vec<_>>()))
        .collect::<anyhow::Result<_>>()
        .with_context(|| format!("read {}", settings.ranges_file().display()))?;
    let [pods, clusters, services] = lists.as_slice() else {
        anyhow::bail!("{} has {} lines, not 3", settings.ranges_file().display(), lists.len());
    };
    settings.cluster_cidrs.clone_from(clusters);
    settings.service_cidrs.clone_from(services);
    proxy::apply::Applier::open(None)?.teardown(PREFIX).context("remove the Services' rules")?;
    PodNetwork::open(settings.config(pods.clone()))?.teardown().context("remove the pod network")?;
    fs::remove_file(settings.ranges_file())
        .with_context(|| format!("remove {}", settings.ranges_file().display()))
}

/// The prefix of the Services' rules.
pub fn prefix() -> String {
    PREFIX.to_owned()
}
