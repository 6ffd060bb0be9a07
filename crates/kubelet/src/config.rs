//! What the kubelet is told at its start.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The kubelet's configuration. Directories are flags so that several nodes can share a machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// The Node's name.
    pub node_name: String,
    /// Addresses to announce; empty: the machine's.
    pub node_ips: Vec<IpAddr>,
    /// `/var/lib/kubelet`.
    pub root_dir: PathBuf,
    /// `/var/log/pods`.
    pub pod_logs_dir: PathBuf,
    /// `/var/log/containers`.
    pub container_logs_dir: PathBuf,
    /// The cluster's name servers.
    pub cluster_dns: Vec<IpAddr>,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// How many pods the node takes.
    pub max_pods: u32,
    /// Labels to register with, besides the kubelet's own.
    pub node_labels: Vec<(String, String)>,
    /// What is kept back from pods: thousandths of a CPU and bytes.
    pub reserved: Reserved,
    /// The version to announce, `v1.37.x+keelson.N`.
    pub version: String,
    /// The longest wait of a container that keeps ending: upstream's `crashLoopBackOff.maxContainerRestartPeriod`.
    pub restart_wait_most: Duration,
    /// The port of the kubelet's own HTTP server, announced on the Node; 0 where there is none.
    pub port: u16,
}

/// Resources that pods do not get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    /// Thousandths of a CPU.
    pub cpu_milli: i64,
    /// Bytes.
    pub memory: i64,
}

impl Config {
    /// Upstream's defaults for a node of this name.
    pub fn new(node_name: &str) -> Config {
        Config {
            node_name: node_name.to_owned(),
            node_ips: Vec::new(),
            root_dir: "/var/lib/kubelet".into(),
            pod_logs_dir: "/var/log/pods".into(),
            container_logs_dir: "/var/log/containers".into(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            max_pods: 110,
            node_labels: Vec::new(),
            reserved: Reserved::default(),
            version: "v1.37.0+keelson.1".to_owned(),
            restart_wait_most: crate::worker::BACKOFF_MOST,
            port: 0,
        }
    }
}
