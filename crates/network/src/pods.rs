//! The pod network of one node: a bridge, a link and addresses for every pod, and the way out.
//!
//! Knows nothing of Services. Upstream: CNI's bridge and host-local plugins, flannel's masquerading.

use std::fs::{self, File};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::host_ports::HostPorts;
use crate::ipam::Ipam;
use crate::link::{Links, LocalRule, MAIN_TABLE, Mac, Route, octets};
use crate::nft::Nft;
use crate::sysctl::{self, Settings};
use crate::{Error, HostPort, IpNet, in_netns, pod_rules};

/// The name of a pod's own end.
const POD_INTERFACE: &str = "eth0";
/// Never the index of the node's own end, as `lo` and the bridge were there before: for a veth whose ends have
/// one index the kernel reports a carrier up to a second late.
const POD_INDEX: u32 = 2;
/// Before the main table's rule, 32766.
const RULE_PRIORITY: u32 = 32_000;
const INTERFACE_NAME_MAX: usize = 15;
/// The smallest MTU every IPv4 host must take; less is a mistake in the configuration.
const MTU_MIN: u32 = 576;
const MTU_MIN_IPV6: u32 = 1280;

/// How a node's pod network is built.
#[derive(Clone, Debug)]
pub struct PodNetworkConfig {
    /// The bridge that pods hang on, at most 15 bytes: `keelson0` unless several nodes share a namespace.
    pub bridge: String,
    /// The ranges pods of this node get addresses from, at most one of each family.
    pub pod_cidrs: Vec<IpNet>,
    /// The ranges of all pods of the cluster: traffic to them is not masqueraded. Empty: only `pod_cidrs`.
    pub cluster_cidrs: Vec<IpNet>,
    /// Ranges of Services: what no rule translates is unreachable, and never leaves the node.
    pub service_cidrs: Vec<IpNet>,
    /// The largest packet, in bytes, of bridge and pods.
    pub mtu: u32,
    /// The node's own network namespace; none is the one this process runs in.
    pub netns: Option<PathBuf>,
    /// Where addresses given out and settings changed are remembered; made when missing.
    pub state_dir: PathBuf,
    /// Begins the names of nftables tables and host ends of links: `keelson` unless several nodes share a namespace.
    pub prefix: String,
}

/// One pod's place in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The caller's key, such as a sandbox id or pod UID.
    pub key: String,
    /// One address of each family configured, in the order of `pod_cidrs`.
    pub addresses: Vec<IpAddr>,
}

/// The pod network of one node: a bridge with the gateway's addresses, one port and address per pod.
///
/// All methods block for milliseconds, may be called from any thread, and may be repeated.
///
/// Pods hang on one bridge, but each has its address alone (a prefix of full length) and reaches everything
/// through the gateway: so packets between two pods of a node pass this machine's IP layer, where Services and
/// policies act, whether the kernel can filter bridged frames or not.
#[derive(Clone, Debug)]
pub struct PodNetwork {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: PodNetworkConfig,
    /// Held through every change: the kernel's objects and the files change together.
    ipam: Mutex<Ipam>,
    /// Taken after `ipam`.
    host_ports: Mutex<HostPorts>,
}

impl PodNetwork {
    /// Checks `config` and reads the addresses given out before. Changes nothing in the kernel.
    ///
    /// # Errors
    /// [`Error::Config`] names a field that cannot be honoured; [`Error::State`] a damaged state file.
    pub fn open(config: PodNetworkConfig) -> Result<PodNetwork, Error> {
        check(&config)?;
        fs::create_dir_all(&config.state_dir)
            .map_err(|e| Error::system(format!("create {}", config.state_dir.display()), e))?;
        let ipam = Ipam::load(config.state_dir.join("addresses"), config.pod_cidrs.clone())?;
        let host_ports = Mutex::new(HostPorts::load(config.state_dir.join("host-ports"))?);
        Ok(PodNetwork { shared: Arc::new(Shared { config, ipam: Mutex::new(ipam), host_ports }) })
    }

    /// Makes bridge, routes, rules and settings; repairs what is missing and leaves attached pods alone.
    pub fn setup(&self) -> Result<(), Error> {
        let _changing = self.lock();
        self.in_node(|config| {
            change_settings(config)?;
            let mut links = Links::open()?;
            if links.find(&config.bridge)?.is_none() {
                links.add_bridge(&config.bridge, mac(self.gateways()[0]), config.mtu)?;
            }
            if config.pod_cidrs.iter().any(|c| !c.is_ipv6()) {
                // Goes with the bridge, so there is nothing to restore.
                sysctl::write(&format!("ipv4/conf/{}/send_redirects", config.bridge), "0")?;
            }
            if config.pod_cidrs.iter().any(IpNet::is_ipv6) {
                // The range has one owner: looking for duplicates would keep the gateway silent for seconds.
                sysctl::write(&format!("ipv6/conf/{}/accept_dad", config.bridge), "0")?;
            }
            links.set_up(&config.bridge)?;
            let bridge = find(&mut links, &config.bridge)?;
            for (cidr, gateway) in config.pod_cidrs.iter().zip(self.gateways()) {
                links.add_address(bridge, gateway, cidr.prefix())?;
            }
            let (routes, rules) = service_routes(config, Some(bridge));
            routes.iter().try_for_each(|route| links.set_route(route))?;
            rules.iter().try_for_each(|rule| links.add_local_rule(rule))?;
            Nft::open()?.commit(&pod_rules::setup(config))?;
            self.host_ports().apply(config)
        })
    }

    /// Makes these ports of the machine lead to an attached pod, and no others. Gone with [`detach`](Self::detach).
    pub fn set_host_ports(&self, key: &str, ports: &[HostPort]) -> Result<(), Error> {
        let ipam = self.lock();
        let addresses = ipam.pods().get(key).cloned().unwrap_or_default();
        let mut all = self.host_ports();
        if all.set(key, &addresses, ports)? {
            self.in_node(|config| all.apply(config))?;
        }
        Ok(())
    }

    /// The bridge's own addresses, one of each range: the pods' gateways.
    pub fn gateways(&self) -> Vec<IpAddr> {
        gateways(&self.shared.config)
    }

    /// Gives the namespace at `netns` an `eth0`, addresses and a default route. A key that was attached before
    /// keeps its addresses, also across restarts.
    pub fn attach(&self, netns: &Path, key: &str) -> Result<Vec<IpAddr>, Error> {
        if key.is_empty() || key.contains(char::is_whitespace) {
            let reason = format!("{key:?} must be a word");
            return Err(Error::Config { field: "key", reason });
        }
        let mut ipam = self.lock();
        let addresses = ipam.acquire(key)?;
        let host = self.host_interface(key);
        let pod = File::open(netns).map_err(|e| Error::system(format!("open {}", netns.display()), e))?;
        let inside = || in_netns(Some(netns), || Links::open()?.find(POD_INTERFACE))?;
        let existing = inside()?;
        self.in_node(|config| {
            let mut links = Links::open()?;
            let bridge = find(&mut links, &config.bridge)?;
            let ours = links.find(&host)?.is_some_and(|h| {
                h.master == Some(bridge)
                    && existing.as_ref().is_some_and(|e| e.peer == Some(h.index) && h.peer == Some(e.index))
            });
            if !ours {
                // One left over from a namespace that is going, or the pod's earlier one.
                links.delete(&host)?;
                let pod_mac = mac(addresses[0]);
                links.add_veth(&host, bridge, config.mtu, POD_INTERFACE, pod_mac, POD_INDEX, pod.as_fd())?;
            }
            let port = find(&mut links, &host)?;
            links.set_hairpin(port)
        })?;
        let gateways = self.gateways();
        in_netns(Some(netns), || configure_pod(&addresses, &gateways))??;
        // Asking for the link makes the kernel (from 6.8 on) take note of its carrier at once, on which the
        // bridge lets packets through. Older ones do so a moment later, and the first packet may be lost.
        self.in_node(|_| Links::open()?.find(&host))?;
        Ok(addresses)
    }

    /// Takes the pod's link away and its addresses back. Unknown keys are no error.
    pub fn detach(&self, key: &str) -> Result<(), Error> {
        let mut ipam = self.lock();
        let host = self.host_interface(key);
        let mut ports = self.host_ports();
        if ports.set(key, &[], &[])? {
            self.in_node(|config| ports.apply(config))?;
        }
        self.in_node(|_| Links::open()?.delete(&host))?;
        ipam.release(key)
    }

    /// All pods that hold addresses, by key.
    pub fn list(&self) -> Result<Vec<Attachment>, Error> {
        let ipam = self.lock();
        let attachment = |(key, addresses): (&String, &Vec<IpAddr>)| Attachment {
            key: key.clone(),
            addresses: addresses.clone(),
        };
        Ok(ipam.pods().iter().map(attachment).collect())
    }

    /// Removes everything [`setup`](Self::setup) and [`attach`](Self::attach) made, restores settings, and
    /// forgets all addresses.
    pub fn teardown(&self) -> Result<(), Error> {
        let mut ipam = self.lock();
        self.in_node(|config| {
            let mut links = Links::open()?;
            let all = links.links()?;
            let bridge = all.iter().find(|l| l.name == config.bridge).map(|l| l.index);
            let ports: Vec<String> = ipam.pods().keys().map(|key| self.host_interface(key)).collect();
            for link in &all {
                if ports.contains(&link.name) || (bridge.is_some() && link.master == bridge) {
                    links.delete(&link.name)?;
                }
            }
            let (routes, rules) = service_routes(config, bridge);
            rules.iter().try_for_each(|rule| links.delete_local_rule(rule))?;
            routes.iter().try_for_each(|route| links.delete_route(route))?;
            links.delete(&config.bridge)?;
            Nft::open()?.commit(&pod_rules::teardown(config))?;
            settings(config)?.restore()
        })?;
        self.host_ports().clear()?;
        ipam.clear()
    }

    fn lock(&self) -> MutexGuard<'_, Ipam> {
        // Every change leaves the maps whole, so a panic elsewhere does not spoil them.
        self.shared.ipam.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn host_ports(&self) -> MutexGuard<'_, HostPorts> {
        self.shared.host_ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_node<T: Send>(
        &self,
        f: impl FnOnce(&PodNetworkConfig) -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        let config = &self.shared.config;
        in_netns(config.netns.as_deref(), || f(config))?
    }

    /// The name of a pod's end on the node. Fixed for a key, so that a restart finds it again.
    fn host_interface(&self, key: &str) -> String {
        let hash = fnv(&[self.shared.config.prefix.as_bytes(), b"/", key.as_bytes()].concat());
        format!("kp{:012x}", hash & 0xffff_ffff_ffff)
    }
}

fn check(config: &PodNetworkConfig) -> Result<(), Error> {
    let refuse = |field, reason: String| Err(Error::Config { field, reason });
    let name = &config.bridge;
    if name.is_empty() || name.len() > INTERFACE_NAME_MAX || name.contains(['/', ' ', ':']) {
        return refuse(
            "bridge",
            format!("{name:?} is not an interface name of 1 to {INTERFACE_NAME_MAX} bytes"),
        );
    }
    if config.prefix.is_empty() || config.prefix.len() > 64 {
        return refuse("prefix", "must have 1 to 64 bytes".to_owned());
    }
    if config.pod_cidrs.is_empty() {
        return refuse("pod_cidrs", "at least one range is needed".to_owned());
    }
    for cidr in &config.pod_cidrs {
        if config.pod_cidrs.iter().filter(|c| c.is_ipv6() == cidr.is_ipv6()).count() > 1 {
            return refuse("pod_cidrs", "at most one range of each family".to_owned());
        }
        if cidr.host_bits() < 2 {
            return refuse("pod_cidrs", format!("{cidr} has no room for a gateway and a pod"));
        }
    }
    let least = if config.pod_cidrs.iter().any(IpNet::is_ipv6) { MTU_MIN_IPV6 } else { MTU_MIN };
    if !(least..=65_535).contains(&config.mtu) {
        return refuse("mtu", format!("{} is not between {least} and 65535", config.mtu));
    }
    Ok(())
}

fn gateways(config: &PodNetworkConfig) -> Vec<IpAddr> {
    config.pod_cidrs.iter().filter_map(|cidr| cidr.nth(1)).collect()
}

fn find(links: &mut Links, name: &str) -> Result<u32, Error> {
    let missing =
        || Error::system(format!("find link {name}"), std::io::Error::from_raw_os_error(libc::ENODEV));
    links.find(name)?.map(|l| l.index).ok_or_else(missing)
}

fn settings(config: &PodNetworkConfig) -> Result<Settings, Error> {
    Settings::load(config.state_dir.join("settings"))
}

fn change_settings(config: &PodNetworkConfig) -> Result<(), Error> {
    let mut settings = settings(config)?;
    if config.pod_cidrs.iter().any(|c| !c.is_ipv6()) {
        // The kernel turns the acceptance of redirects over with forwarding.
        settings.set_noting("ipv4/ip_forward", "1", &["ipv4/conf/all/accept_redirects"])?;
        settings.set("ipv4/conf/all/route_localnet", "1")?;
        // Two pods share a link that neither uses directly: advice to do so is wrong, and using it up would
        // also use up the errors that the kernel sends a host in a while.
        settings.set("ipv4/conf/all/send_redirects", "0")?;
        settings.set("bridge/bridge-nf-call-iptables", "1")?;
    }
    if config.pod_cidrs.iter().any(IpNet::is_ipv6) {
        // A router ignores router advertisements, by which this machine may have its own address.
        let interfaces = fs::read_dir("/proc/sys/net/ipv6/conf")
            .map_err(|e| Error::system("list IPv6 interfaces (is IPv6 disabled?)", e))?;
        for name in interfaces.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            let setting = format!("ipv6/conf/{name}/accept_ra");
            if sysctl::read(&setting)?.as_deref() == Some("1") {
                settings.set(&setting, "2")?;
            }
        }
        settings.set("ipv6/conf/all/forwarding", "1")?;
        settings.set("bridge/bridge-nf-call-ip6tables", "1")?;
    }
    Ok(())
}

/// What keeps packets to Services without rules on this node. For packets that come in, the range is
/// unreachable. This machine's own packets need a route before the rules can translate them, so for those a
/// table of its own leads to the bridge, where nobody answers and our rules reject what was not translated.
fn service_routes(config: &PodNetworkConfig, bridge: Option<u32>) -> (Vec<Route>, Vec<LocalRule>) {
    // Any number will do that no other program uses; one per prefix, as several nodes may share a namespace.
    let table = 0x6b00_0000 | (fnv(config.prefix.as_bytes()) as u32 & 0x00ff_ffff);
    let (mut routes, mut rules) = (Vec::new(), Vec::new());
    for range in &config.service_cidrs {
        let Some(source) = gateways(config).into_iter().find(|g| g.is_ipv6() == range.is_ipv6()) else {
            continue;
        };
        let unreachable =
            Route { destination: *range, via: None, device: None, source: None, table: MAIN_TABLE };
        if let Some(bridge) = bridge {
            routes.push(Route { device: Some(bridge), source: Some(source), table, ..unreachable.clone() });
        }
        routes.push(unreachable);
        rules.push(LocalRule { destination: *range, table, priority: RULE_PRIORITY });
    }
    (routes, rules)
}

/// Runs in the pod's namespace.
fn configure_pod(addresses: &[IpAddr], gateways: &[IpAddr]) -> Result<(), Error> {
    let mut links = Links::open()?;
    links.set_up("lo")?;
    if addresses.iter().any(IpAddr::is_ipv6) {
        // The pod's address is ours to give; a neighbour's advertisement must not change it.
        sysctl::write(&format!("ipv6/conf/{POD_INTERFACE}/accept_ra"), "0")?;
        sysctl::write(&format!("ipv6/conf/{POD_INTERFACE}/accept_dad"), "0")?;
    }
    let device = find(&mut links, POD_INTERFACE)?;
    for address in addresses {
        links.add_address(device, *address, if address.is_ipv6() { 128 } else { 32 })?;
    }
    links.set_up(POD_INTERFACE)?;
    for gateway in gateways {
        let (width, any): (u8, IpAddr) =
            if gateway.is_ipv6() { (128, [0; 16].into()) } else { (32, [0; 4].into()) };
        let to_gateway = IpNet::new(*gateway, width).expect("the prefix is the family's width");
        let everywhere = IpNet::new(any, 0).expect("0 fits every family");
        let route = Route {
            destination: to_gateway,
            via: None,
            device: Some(device),
            source: None,
            table: MAIN_TABLE,
        };
        links.set_route(&route)?;
        links.set_route(&Route { destination: everywhere, via: Some(*gateway), ..route })?;
    }
    Ok(())
}

/// A locally administered Ethernet address that follows from an IP address, so that an address given to
/// another pod needs no neighbour to forget anything. CNI's convention.
fn mac(address: IpAddr) -> Mac {
    let bytes = octets(address);
    let mut mac = [0x0a, 0x58, 0, 0, 0, 0];
    mac[2..].copy_from_slice(&bytes[bytes.len() - 4..]);
    mac
}

/// FNV-1a with 64 bits: the same in every run, which base's seeded hasher is not.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}
