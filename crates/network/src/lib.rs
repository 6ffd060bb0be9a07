//! Links, addresses, routes, packet filter rules and connection tracking of one node, over raw netlink.
//!
//! Plain structs in, system calls out: nothing here knows a Kubernetes object. Every function blocks for as
//! long as the kernel takes (milliseconds), so async callers go through [`base::task::blocking`]; a simulation
//! replaces this room as a whole.
//!
//! Upstream: what CNI's bridge, host-local and portmap plugins do, and knftables' place under kube-proxy.

pub mod conntrack;
mod error;
mod foreign;
mod host_ports;
mod ipam;
mod ipnet;
pub mod link;
pub mod netlink;
mod netns;
pub mod nft;
mod pod_rules;
mod pods;
mod sysctl;

pub use error::Error;
pub use foreign::forward_obstacles;
pub use host_ports::HostPort;
pub use ipnet::IpNet;
pub use netns::{create_netns, in_netns, remove_netns};
pub use pods::{Attachment, PodNetwork, PodNetworkConfig};
