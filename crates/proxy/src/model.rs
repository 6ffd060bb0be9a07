//! What is wanted, as plain data: Services by port, and this node's own facts.

use std::net::IpAddr;

use network::IpNet;

/// One port of one Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePort {
    /// The addresses it has inside the cluster, of one or both families.
    pub cluster_ips: Vec<IpAddr>,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port at those addresses.
    pub port: u16,
    /// The port at every address of every node.
    pub node_port: Option<u16>,
    /// Further addresses, from outside: external ones and those of load balancers.
    pub external_ips: Vec<IpAddr>,
    /// For how many seconds a client keeps its endpoint; none picks one anew for each connection.
    pub affinity_seconds: Option<u32>,
    /// Clients inside the cluster get endpoints of this node only.
    pub internal_local: bool,
    /// Clients outside get endpoints of this node only, and are seen with their own address.
    pub external_local: bool,
    /// Who answers, of both families.
    pub endpoints: Vec<Endpoint>,
}

/// Who answers for a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Whether it is on this node.
    pub local: bool,
    /// Whether it is on its way out but still answers: chosen only where no other is left.
    pub terminating: bool,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    /// The protocol that the API names so.
    pub fn from_name(name: &str) -> Option<Protocol> {
        match name {
            "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }
}

/// This node's own facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Begins the table's name: `keelson` unless several nodes share a network namespace.
    pub prefix: String,
    /// The ranges this node's pods have addresses from.
    pub pod_cidrs: Vec<IpNet>,
}
