//! The pod network's own nftables table, as data.

use std::net::IpAddr;

use crate::IpNet;
use crate::host_ports::HostPorts;
use crate::nft::{Base, Batch, Chain, ChainKind, Expr, Family, Hook, Reg, RejectWith, Table, Verdict, meta};
use crate::pods::PodNetworkConfig;

const RAW: i32 = -300;
const FILTER: i32 = 0;
const SOURCE_NAT: i32 = 100;
const LOOPBACK: IpNet = net4([127, 0, 0, 0], 8);
const MULTICAST: IpNet = net4([224, 0, 0, 0], 4);
const MULTICAST6: IpNet = net6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8);

const fn net4([a, b, c, d]: [u8; 4], prefix: u8) -> IpNet {
    IpNet::literal(IpAddr::V4(std::net::Ipv4Addr::new(a, b, c, d)), prefix)
}

const fn net6([a, b, c, d, e, f, g, h]: [u16; 8], prefix: u8) -> IpNet {
    IpNet::literal(IpAddr::V6(std::net::Ipv6Addr::new(a, b, c, d, e, f, g, h)), prefix)
}

/// The batch that makes the tables of all families configured, and removes those of the others.
pub(crate) fn setup(config: &PodNetworkConfig) -> Batch {
    let mut batch = Batch::new();
    for ipv6 in [false, true] {
        match config.pod_cidrs.iter().find(|c| c.is_ipv6() == ipv6) {
            Some(cidr) => table(config, *cidr).replace(&mut batch),
            None => empty(config, ipv6).delete(&mut batch),
        }
    }
    batch
}

/// The batch that removes them.
pub(crate) fn teardown(config: &PodNetworkConfig) -> Batch {
    let mut batch = Batch::new();
    for ipv6 in [false, true] {
        empty(config, ipv6).delete(&mut batch);
        HostPorts::empty(config, ipv6).delete(&mut batch);
    }
    batch
}

fn empty(config: &PodNetworkConfig, ipv6: bool) -> Table {
    Table::new(if ipv6 { Family::Ip6 } else { Family::Ip }, format!("{}-pods", config.prefix))
}

fn table(config: &PodNetworkConfig, cidr: IpNet) -> Table {
    let ipv6 = cidr.is_ipv6();
    let mut table = empty(config, ipv6);
    let mut base = |name: &str, kind, hook, priority, rules| {
        let base = Base { kind, hook, priority, drop: false };
        table.chains.insert(name.to_owned(), Chain { base: Some(base), rules });
    };
    if !ipv6 {
        // `route_localnet` lets NodePorts answer on localhost; this keeps the wire away from localhost.
        let guard = [interface(meta::IIFNAME, "lo", true), destination(LOOPBACK, false), drop()].concat();
        base("prerouting", ChainKind::Filter, Hook::Prerouting, RAW, vec![guard]);
    }
    base("forward", ChainKind::Filter, Hook::Forward, FILTER, Vec::new());

    let own = |net: &&IpNet| net.is_ipv6() == ipv6;
    let to_bridge = interface(meta::OIFNAME, &config.bridge, false);
    let mut output = Vec::new();
    for range in config.service_cidrs.iter().filter(own) {
        let code = if ipv6 { 4 } else { 3 };
        let reject = vec![Expr::Reject(RejectWith::Unreachable(code))];
        output.push([to_bridge.clone(), destination(*range, false), reject].concat());
    }
    base("output", ChainKind::Filter, Hook::Output, FILTER, output);

    let mut masquerade = [source(cidr), interface(meta::OIFNAME, &config.bridge, true)].concat();
    let multicast = if ipv6 { MULTICAST6 } else { MULTICAST };
    for inside in config.cluster_cidrs.iter().filter(own).chain([&cidr, &multicast]) {
        masquerade.extend(destination(*inside, true));
    }
    masquerade.push(Expr::Masquerade);
    base("postrouting", ChainKind::Nat, Hook::Postrouting, SOURCE_NAT, vec![masquerade]);
    table
}

fn drop() -> Vec<Expr> {
    vec![Expr::Verdict(Verdict::Drop)]
}

fn interface(key: u32, name: &str, not: bool) -> Vec<Expr> {
    let mut value = name.as_bytes().to_vec();
    value.resize(16, 0);
    vec![Expr::Meta { to: Reg(0), key }, Expr::Compare { from: Reg(0), not, value }]
}

fn source(net: IpNet) -> Vec<Expr> {
    Expr::source_in(net, false)
}

fn destination(net: IpNet, not: bool) -> Vec<Expr> {
    Expr::destination_in(net, not)
}
