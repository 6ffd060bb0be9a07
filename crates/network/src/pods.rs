//! The pod network of one node.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::{Error, IpNet};

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
#[derive(Clone, Debug)]
pub struct PodNetwork {
    config: PodNetworkConfig,
}

impl PodNetwork {
    /// Checks `config` and reads the addresses given out before. Changes nothing in the kernel.
    ///
    /// # Errors
    /// [`Error::Config`] names a field that cannot be honoured; [`Error::State`] a damaged state file.
    pub fn open(config: PodNetworkConfig) -> Result<PodNetwork, Error> {
        Ok(PodNetwork { config })
    }

    /// Makes bridge, routes, rules and settings; repairs what is missing and leaves attached pods alone.
    pub fn setup(&self) -> Result<(), Error> {
        unimplemented!()
    }

    /// The bridge's own addresses, one of each range: the pods' gateways.
    pub fn gateways(&self) -> Vec<IpAddr> {
        self.config.pod_cidrs.iter().filter_map(|c| c.nth(1)).collect()
    }

    /// Gives the namespace at `netns` an `eth0`, addresses and a default route. A key that was attached before
    /// keeps its addresses, also across restarts.
    pub fn attach(&self, netns: &Path, key: &str) -> Result<Vec<IpAddr>, Error> {
        unimplemented!("{netns:?} {key}")
    }

    /// Takes the pod's link away and its addresses back. Unknown keys are no error.
    pub fn detach(&self, key: &str) -> Result<(), Error> {
        unimplemented!("{key}")
    }

    /// All pods that hold addresses, by key.
    pub fn list(&self) -> Result<Vec<Attachment>, Error> {
        unimplemented!()
    }

    /// Removes everything [`setup`](Self::setup) and [`attach`](Self::attach) made, restores settings, and
    /// forgets all addresses.
    pub fn teardown(&self) -> Result<(), Error> {
        unimplemented!()
    }
}
