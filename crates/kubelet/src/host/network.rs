//! The pod network of this host, over `crates/network`, whose calls block.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::OnceLock;

use apimachinery::call::BoxFuture;
use network::{PodNetwork as Links, PodNetworkConfig};

use crate::doors::{Failure, PodNetwork, Result};

/// The host's pod network.
#[derive(Debug)]
pub struct HostPodNetwork {
    config: PodNetworkConfig,
    links: OnceLock<Links>,
}

/// Something was asked of the network before it was made.
#[derive(Debug, thiserror::Error)]
#[error("the pod network is not set up yet")]
struct NotSetUp;

impl HostPodNetwork {
    /// A network like `config`, whose pod ranges are filled in once the Node has them.
    pub fn new(config: PodNetworkConfig) -> HostPodNetwork {
        HostPodNetwork { config, links: OnceLock::new() }
    }

    fn links(&self) -> Result<Links> {
        self.links.get().cloned().ok_or_else(|| Box::new(NotSetUp) as Failure)
    }
}

impl PodNetwork for HostPodNetwork {
    fn setup(&self, pod_cidrs: Vec<String>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let mut config = self.config.clone();
            config.pod_cidrs = Vec::new();
            for cidr in &pod_cidrs {
                config
                    .pod_cidrs
                    .push(cidr.parse().map_err(|err| format!("the node's podCIDR {cidr:?}: {err:?}"))?);
            }
            let links = base::task::blocking(move || {
                let links = Links::open(config)?;
                links.setup()?;
                Ok::<_, network::Error>(links)
            })
            .await?;
            // A second set-up repairs the same network.
            drop(self.links.set(links));
            Ok(())
        })
    }

    fn attach(&self, netns: PathBuf, key: String) -> BoxFuture<'_, Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let links = self.links()?;
            Ok(base::task::blocking(move || links.attach(&netns, &key)).await?)
        })
    }

    fn detach(&self, key: String) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            // Pods on the host's network may end before there is any other.
            let Ok(links) = self.links() else { return Ok(()) };
            Ok(base::task::blocking(move || links.detach(&key)).await?)
        })
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(async move {
            let Ok(links) = self.links() else { return Ok(Vec::new()) };
            let found = base::task::blocking(move || links.list()).await?;
            Ok(found.into_iter().map(|a| a.key).collect())
        })
    }
}
