//! Ports of this machine that lead to pods: which there are, in a file that survives restarts, and their rules.
//!
//! The rules are a table of their own, which is made anew whenever a pod with such ports comes or goes. A port
//! without an address is every address of this machine, 127.0.0.1 too. Upstream: CNI's portmap plugin.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;

use crate::conntrack::Conntrack;
use crate::nft::{
    Base, Batch, Chain, ChainKind, Expr, Family, Hook, Key, Nft, PayloadBase, Reg, Set, Table, Type, Value,
    ValueType, ct, meta,
};
use crate::pods::PodNetworkConfig;
use crate::sysctl::{read_or_empty, remove_if_there, replace_file};
use crate::{Error, IpNet};

/// Before the Services' rules, which have -100: who asks for a port of this machine by name gets it.
const DESTINATION_NAT: i32 = -101;
const SOURCE_NAT: i32 = 100;
const ROUTE_LOCAL: u32 = 2;
const UDP: u8 = 17;
const BY_ADDRESS: &str = "by-address";
const ANY_ADDRESS: &str = "any-address";
const HAIRPIN: &str = "hairpin";

/// A port of this machine that leads to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// The only address it is reached at; none: all of this machine's. Unspecified: all of one family.
    pub address: Option<IpAddr>,
    /// The transport protocol's number.
    pub protocol: u8,
    /// The machine's port.
    pub port: u16,
    /// The pod's port.
    pub pod_port: u16,
}

/// One way: from a port of this machine to a pod's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    port: HostPort,
    pod: IpAddr,
}

/// All ports of this machine that lead to pods, by the pods' keys.
#[derive(Debug)]
pub(crate) struct HostPorts {
    file: PathBuf,
    pods: BTreeMap<String, Vec<Way>>,
}

impl HostPorts {
    /// Reads what was there before.
    pub fn load(file: PathBuf) -> Result<HostPorts, Error> {
        let mut pods: BTreeMap<String, Vec<Way>> = BTreeMap::new();
        for (n, line) in read_or_empty(&file)?.lines().enumerate() {
            let (key, way) = parse(line).ok_or_else(|| Error::State { path: file.clone(), line: n + 1 })?;
            pods.entry(key.to_owned()).or_default().push(way);
        }
        Ok(HostPorts { file, pods })
    }

    /// Makes these a pod's ports; whether that changed anything. On disk before this returns.
    pub fn set(&mut self, key: &str, addresses: &[IpAddr], ports: &[HostPort]) -> Result<bool, Error> {
        let fits = |port: &HostPort, pod: IpAddr| port.address.is_none_or(|a| a.is_ipv6() == pod.is_ipv6());
        let ways: Vec<Way> = ports
            .iter()
            .flat_map(|p| addresses.iter().filter(|a| fits(p, **a)).map(|a| Way { port: *p, pod: *a }))
            .collect();
        if self.pods.get(key).map_or(ways.is_empty(), |old| *old == ways) {
            return Ok(false);
        }
        self.pods.remove(key);
        if !ways.is_empty() {
            self.pods.insert(key.to_owned(), ways);
        }
        let line = |key: &str, way: &Way| {
            let address = way.port.address.map_or_else(|| "-".to_owned(), |a| a.to_string());
            let HostPort { protocol, port, pod_port, .. } = way.port;
            format!("{key}\t{address}\t{protocol}\t{port}\t{}\t{pod_port}\n", way.pod)
        };
        let text: String =
            self.pods.iter().flat_map(|(key, ways)| ways.iter().map(move |way| line(key, way))).collect();
        replace_file(&self.file, &text)?;
        Ok(true)
    }

    /// Forgets everything, on disk too.
    pub fn clear(&mut self) -> Result<(), Error> {
        self.pods.clear();
        remove_if_there(&self.file)
    }

    /// Puts the rules in place, in the calling thread's namespace. Connections of UDP that took another way are
    /// forgotten: their next packet finds the new one.
    pub fn apply(&self, config: &PodNetworkConfig) -> Result<(), Error> {
        let mut batch = Batch::new();
        for ipv6 in [false, true] {
            let table = self.table(config, ipv6);
            if table.chains.is_empty() { table.delete(&mut batch) } else { table.replace(&mut batch) }
        }
        Nft::open()?.commit(&batch)?;
        for ipv6 in [false, true] {
            let ways = self.pods.values().flatten();
            let udp: Vec<&Way> = ways.filter(|w| w.port.protocol == UDP && w.pod.is_ipv6() == ipv6).collect();
            if udp.is_empty() {
                continue;
            }
            Conntrack::open()?.delete_where(ipv6, |c| {
                let mut mine = udp.iter().filter(|w| w.port.port == c.destination.port()).peekable();
                c.protocol == UDP
                    && mine.peek().is_some()
                    && mine.all(|w| c.answerer != SocketAddr::new(w.pod, w.port.pod_port))
                    && (config.pod_cidrs.iter().any(|cidr| cidr.contains(c.answerer.ip()))
                        // Only an address of this machine can be bound.
                        || UdpSocket::bind((c.destination.ip(), 0)).is_ok())
            })?;
        }
        Ok(())
    }

    /// The tables' names alone, for teardown.
    pub fn empty(config: &PodNetworkConfig, ipv6: bool) -> Table {
        Table::new(if ipv6 { Family::Ip6 } else { Family::Ip }, format!("{}-host-ports", config.prefix))
    }

    fn table(&self, config: &PodNetworkConfig, ipv6: bool) -> Table {
        let mut table = HostPorts::empty(config, ipv6);
        let ways: Vec<&Way> = self.pods.values().flatten().filter(|w| w.pod.is_ipv6() == ipv6).collect();
        if ways.is_empty() {
            return table;
        }
        let address = if ipv6 { Type::Ipv6 } else { Type::Ipv4 };
        let end = ValueType::Data(vec![address, Type::Port]);
        let mut any = Set::new(vec![Type::Protocol, Type::Port], end.clone());
        let mut one = Set::new(vec![address, Type::Protocol, Type::Port], end);
        let mut hairpin = Set::new(vec![address, address], ValueType::Nothing);
        for way in ways {
            let HostPort { address, protocol, port, pod_port } = way.port;
            let end = Value::Data(Key::default().address(way.pod).port(pod_port).build());
            match address.filter(|a| !a.is_unspecified()) {
                Some(at) => {
                    one.elements.insert(Key::default().address(at).protocol(protocol).port(port).build(), end)
                }
                None => any.elements.insert(Key::default().protocol(protocol).port(port).build(), end),
            };
            hairpin.elements.insert(Key::default().address(way.pod).address(way.pod).build(), Value::Nothing);
        }
        for (name, set) in [(ANY_ADDRESS, any), (BY_ADDRESS, one), (HAIRPIN, hairpin)] {
            table.sets.insert(name.to_owned(), set);
        }
        let mut base = |name: &str, hook, priority, rules| {
            let base = Base { kind: ChainKind::Nat, hook, priority, drop: false };
            table.chains.insert(name.to_owned(), Chain { base: Some(base), rules });
        };
        base("prerouting", Hook::Prerouting, DESTINATION_NAT, translate(ipv6));
        base("output", Hook::Output, DESTINATION_NAT, translate(ipv6));
        base("postrouting", Hook::Postrouting, SOURCE_NAT, masquerade(ipv6));
        table
    }
}

fn parse(line: &str) -> Option<(&str, Way)> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [key, address, protocol, port, pod, pod_port] = fields.as_slice() else { return None };
    let address = if *address == "-" { None } else { Some(address.parse().ok()?) };
    let port = HostPort {
        address,
        protocol: protocol.parse().ok()?,
        port: port.parse().ok()?,
        pod_port: pod_port.parse().ok()?,
    };
    Some((key, Way { port, pod: pod.parse().ok()? }))
}

/// How many registers an address takes.
fn words(ipv6: bool) -> u8 {
    if ipv6 { 4 } else { 1 }
}

fn translate(ipv6: bool) -> Vec<Vec<Expr>> {
    let words = words(ipv6);
    let lead = |at: u8, map: &str| {
        let key = Reg(at);
        let end = 8;
        vec![
            Expr::Meta { to: Reg(words), key: meta::L4PROTO },
            Expr::Payload { to: Reg(words + 1), base: PayloadBase::Transport, offset: 2, len: 2 },
            Expr::Map { key, map: map.to_owned(), to: Reg(end) },
            Expr::Dnat { ipv6, address: Reg(end), port: Reg(end + words) },
        ]
    };
    let by_address = [vec![Expr::destination(ipv6, Reg(0))], lead(0, BY_ADDRESS)].concat();
    let mut any = Vec::new();
    if ipv6 {
        // There is no way out of the machine for packets from ::1.
        any.extend(Expr::destination_in(IpNet::literal(std::net::Ipv6Addr::LOCALHOST.into(), 128), true));
    }
    any.push(Expr::DestinationKind { to: Reg(0) });
    any.push(Expr::Compare { from: Reg(0), not: false, value: ROUTE_LOCAL.to_ne_bytes().to_vec() });
    any.extend(lead(words, ANY_ADDRESS));
    vec![by_address, any]
}

/// The source is translated where the answer would not come back this way: from localhost, and to itself.
fn masquerade(ipv6: bool) -> Vec<Vec<Expr>> {
    let translated = || {
        vec![
            Expr::Ct { to: Reg(0), key: ct::STATUS },
            Expr::Mask { reg: Reg(0), mask: ct::STATUS_DNAT.to_ne_bytes().to_vec() },
            Expr::Compare { from: Reg(0), not: true, value: vec![0; 4] },
        ]
    };
    let mut itself = translated();
    itself.push(Expr::source(ipv6, Reg(0)));
    itself.push(Expr::destination(ipv6, Reg(words(ipv6))));
    itself.push(Expr::InSet { key: Reg(0), set: HAIRPIN.to_owned(), not: false });
    itself.push(Expr::Masquerade);
    let mut rules = vec![itself];
    if !ipv6 {
        let loopback = IpNet::literal(IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 0)), 8);
        let mut local = [translated(), Expr::source_in(loopback, false)].concat();
        local.push(Expr::Masquerade);
        rules.push(local);
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_kept_by_pod_and_family() {
        let dir = tempfile::tempdir().unwrap();
        let open = || HostPorts::load(dir.path().join("host-ports")).unwrap();
        let mut ports = open();
        let port = |address: Option<&str>, port| HostPort {
            address: address.map(|a| a.parse().unwrap()),
            protocol: 6,
            port,
            pod_port: 80,
        };
        let pod: [IpAddr; 2] = ["10.1.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let all = [port(None, 1), port(Some("127.0.0.1"), 2), port(Some("::"), 3)];
        assert!(ports.set("a", &pod, &all).unwrap());
        assert!(!ports.set("a", &pod, &all).unwrap(), "nothing new");
        assert!(!ports.set("b", &pod, &[]).unwrap());
        let ports = open();
        let ways: Vec<_> = ports.pods["a"].iter().map(|w| format!("{} {}", w.port.port, w.pod)).collect();
        assert_eq!(ways, ["1 10.1.0.2", "1 fd00::2", "2 10.1.0.2", "3 fd00::2"]);
        let mut ports = open();
        assert!(ports.set("a", &pod, &[]).unwrap());
        assert!(open().pods.is_empty());
    }
}
