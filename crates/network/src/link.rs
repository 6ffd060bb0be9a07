//! Links, addresses, routes and routing rules over rtnetlink.
//!
//! Upstream: Linux `include/uapi/linux/{rtnetlink,if_link,if_addr,fib_rules}.h`.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::netlink::{
    Messages, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Socket, attribute, attributes, text,
};
use crate::{Error, IpNet};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTM_GETRULE: u16 = 34;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_PROTINFO: u16 = 12;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFF_UP: u32 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 2;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RTA_TABLE: u16 = 15;
const RTN_UNICAST: u8 = 1;
const RTN_UNREACHABLE: u8 = 7;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_LINK: u8 = 253;
const RTNH_F_ONLINK: u32 = 4;

const FRA_DST: u16 = 1;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_TABLE: u16 = 15;
const FR_ACT_TO_TBL: u8 = 1;

/// The main routing table.
pub const MAIN_TABLE: u32 = 254;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// One network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it, unique in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is administratively up.
    pub up: bool,
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// Its Ethernet address, if it has one.
    pub mac: Option<Mac>,
    /// The bridge it is a port of.
    pub master: Option<u32>,
    /// For a veth, the peer's index in the peer's namespace.
    pub peer: Option<u32>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub destination: IpNet,
    /// The next hop, taken to be on the link whatever its address.
    pub via: Option<IpAddr>,
    /// The interface's index; none makes the destination unreachable.
    pub device: Option<u32>,
    /// The source address of packets from this machine.
    pub source: Option<IpAddr>,
    /// The table it lies in.
    pub table: u32,
}

/// A routing rule for packets of this machine itself: those to `destination` are looked up in `table`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalRule {
    /// Where the packets go.
    pub destination: IpNet,
    /// The table asked.
    pub table: u32,
    /// Rules are asked from the lowest number up; the main table has 32766.
    pub priority: u32,
}

/// A route socket of one namespace.
#[derive(Debug)]
pub struct Links {
    socket: Socket,
}

impl Links {
    /// Opens a socket in the calling thread's namespace.
    pub fn open() -> Result<Links, Error> {
        Ok(Links { socket: Socket::route()? })
    }

    /// All links.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let replies = self.socket.dump("list links", |m, seq| {
            m.begin(RTM_GETLINK, 0, seq, &link_header(0, 0, 0, 0));
            m.end();
        })?;
        Ok(replies.iter().filter(|r| r.kind == RTM_NEWLINK).filter_map(|r| parse_link(&r.body)).collect())
    }

    /// The link of that name.
    pub fn find(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let action = format!("find link {name}");
        let reply = self.socket.get(&action, |m, seq| {
            m.begin(RTM_GETLINK, 0, seq, &link_header(0, 0, 0, 0));
            m.attr_str(IFLA_IFNAME, name);
            m.end();
        });
        match reply {
            Ok(reply) => parse_link(&reply.body).map(Some).ok_or(Error::MalformedReply { action }),
            Err(e) if e.errno() == Some(libc::ENODEV) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Makes a bridge that is down, with an address of its own: without one it would follow its ports, and pods
    /// would lose the gateway for seconds whenever one leaves.
    pub fn add_bridge(&mut self, name: &str, mac: Mac, mtu: u32) -> Result<(), Error> {
        self.socket.request(&format!("create bridge {name}"), |m, seq| {
            m.begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, seq, &link_header(0, 0, 0, 0));
            m.attr_str(IFLA_IFNAME, name);
            m.attr_u32(IFLA_MTU, mtu);
            m.attr(IFLA_ADDRESS, &mac);
            m.nest(IFLA_LINKINFO, |m| m.attr(IFLA_INFO_KIND, b"bridge"));
            m.end();
        })
    }

    /// Makes a veth pair: `name` here, up, a port of `master`; `peer` with address `peer_mac` in the namespace
    /// `netns`, still down. The peer gets `peer_index`, 0 meaning any.
    pub fn add_veth(
        &mut self,
        name: &str,
        master: u32,
        mtu: u32,
        peer: &str,
        peer_mac: Mac,
        peer_index: u32,
        netns: BorrowedFd<'_>,
    ) -> Result<(), Error> {
        self.socket.request(&format!("create veth {name}"), |m, seq| {
            m.begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, seq, &link_header(0, 0, IFF_UP, IFF_UP));
            m.attr_str(IFLA_IFNAME, name);
            m.attr_u32(IFLA_MTU, mtu);
            m.attr_u32(IFLA_MASTER, master);
            m.nest(IFLA_LINKINFO, |m| {
                m.attr(IFLA_INFO_KIND, b"veth");
                m.nest(IFLA_INFO_DATA, |m| {
                    m.nest(VETH_INFO_PEER, |m| {
                        m.raw(&link_header(0, peer_index, 0, 0));
                        m.attr_str(IFLA_IFNAME, peer);
                        m.attr_u32(IFLA_MTU, mtu);
                        m.attr(IFLA_ADDRESS, &peer_mac);
                        m.attr_u32(IFLA_NET_NS_FD, netns.as_raw_fd() as u32);
                    });
                });
            });
            m.end();
        })
    }

    /// Lets a bridge port send a frame back to where it came from: a pod that reaches itself through a Service.
    pub fn set_hairpin(&mut self, index: u32) -> Result<(), Error> {
        self.socket.request(&format!("set hairpin on link {index}"), |m, seq| {
            m.begin(RTM_SETLINK, 0, seq, &link_header(libc::AF_BRIDGE as u8, index, 0, 0));
            m.nest(IFLA_PROTINFO, |m| m.attr(IFLA_BRPORT_MODE, &[1]));
            m.end();
        })
    }

    /// Brings a link up.
    pub fn set_up(&mut self, name: &str) -> Result<(), Error> {
        self.socket.request(&format!("bring up {name}"), |m, seq| {
            m.begin(RTM_NEWLINK, 0, seq, &link_header(0, 0, IFF_UP, IFF_UP));
            m.attr_str(IFLA_IFNAME, name);
            m.end();
        })
    }

    /// Removes a link; a missing one is no error.
    pub fn delete(&mut self, name: &str) -> Result<(), Error> {
        let done = self.socket.request(&format!("delete link {name}"), |m, seq| {
            m.begin(RTM_DELLINK, 0, seq, &link_header(0, 0, 0, 0));
            m.attr_str(IFLA_IFNAME, name);
            m.end();
        });
        ignore(done, &[libc::ENODEV])
    }

    /// Gives a link an address; one it has already is no error. Duplicate address detection is skipped: the
    /// range has one owner.
    pub fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> Result<(), Error> {
        let [a, b, c, d] = index.to_ne_bytes();
        let header = [family(address), prefix, 0, 0, a, b, c, d];
        let done = self.socket.request(&format!("add address {address}/{prefix}"), |m, seq| {
            m.begin(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, seq, &header);
            m.attr(IFA_LOCAL, &octets(address));
            m.attr(IFA_ADDRESS, &octets(address));
            if address.is_ipv6() {
                m.attr_u32(IFA_FLAGS, IFA_F_NODAD);
            }
            m.end();
        });
        ignore(done, &[libc::EEXIST])
    }

    /// All addresses of a link, with their prefix lengths.
    pub fn addresses(&mut self, index: u32) -> Result<Vec<(IpAddr, u8)>, Error> {
        let replies = self.socket.dump("list addresses", |m, seq| {
            m.begin(RTM_GETADDR, 0, seq, &[0; 8]);
            m.end();
        })?;
        Ok(replies
            .iter()
            .filter(|r| r.kind == RTM_NEWADDR && r.body.get(4..8) == Some(&index.to_ne_bytes()[..]))
            .filter_map(|r| Some((address(attribute(r.body.get(8..)?, IFA_ADDRESS)?)?, r.body[1])))
            .collect())
    }

    /// Adds a route, or replaces the one with the same destination in that table.
    pub fn set_route(&mut self, route: &Route) -> Result<(), Error> {
        self.socket.request(&format!("set route to {}", route.destination), |m, seq| {
            m.begin(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, seq, &route_header(route));
            route_attributes(m, route);
            m.end();
        })
    }

    /// Removes a route; a missing one is no error.
    pub fn delete_route(&mut self, route: &Route) -> Result<(), Error> {
        let done = self.socket.request(&format!("delete route to {}", route.destination), |m, seq| {
            m.begin(RTM_DELROUTE, 0, seq, &route_header(route));
            route_attributes(m, route);
            m.end();
        });
        ignore(done, &[libc::ESRCH, libc::ENODEV, libc::ENOENT])
    }

    /// All routes of one table and family, unicast and unreachable ones.
    pub fn routes(&mut self, table: u32, ipv6: bool) -> Result<Vec<Route>, Error> {
        let mut header = [0u8; 12];
        header[0] = if ipv6 { libc::AF_INET6 as u8 } else { libc::AF_INET as u8 };
        let replies = self.socket.dump("list routes", |m, seq| {
            m.begin(RTM_GETROUTE, 0, seq, &header);
            m.end();
        })?;
        Ok(replies.iter().filter_map(|r| parse_route(&r.body)).filter(|r| r.table == table).collect())
    }

    /// Adds a rule for this machine's own packets; one that is there already is no error.
    pub fn add_local_rule(&mut self, rule: &LocalRule) -> Result<(), Error> {
        let done = self.rule(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, "add routing rule", rule);
        ignore(done, &[libc::EEXIST])
    }

    /// Removes a rule; a missing one is no error.
    pub fn delete_local_rule(&mut self, rule: &LocalRule) -> Result<(), Error> {
        ignore(self.rule(RTM_DELRULE, 0, "delete routing rule", rule), &[libc::ENOENT])
    }

    /// How many routing rules there are, of both families.
    pub fn rule_count(&mut self) -> Result<usize, Error> {
        let replies = self.socket.dump("list routing rules", |m, seq| {
            m.begin(RTM_GETRULE, 0, seq, &[0; 12]);
            m.end();
        })?;
        Ok(replies.len())
    }

    fn rule(&mut self, kind: u16, flags: u16, action: &str, rule: &LocalRule) -> Result<(), Error> {
        let net = rule.destination;
        let header = [family(net.address()), net.prefix(), 0, 0, 0, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0];
        self.socket.request(&format!("{action} for {net}"), |m, seq| {
            m.begin(kind, flags, seq, &header);
            m.attr(FRA_DST, &octets(net.address()));
            // Packets that this machine makes count as coming in by lo.
            m.attr_str(FRA_IIFNAME, "lo");
            m.attr_u32(FRA_PRIORITY, rule.priority);
            m.attr_u32(FRA_TABLE, rule.table);
            m.end();
        })
    }
}

fn ignore(done: Result<(), Error>, harmless: &[i32]) -> Result<(), Error> {
    match done {
        Err(e) if e.errno().is_some_and(|n| harmless.contains(&n)) => Ok(()),
        other => other,
    }
}

fn link_header(family: u8, index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut h = [0; 16];
    h[0] = family;
    h[4..8].copy_from_slice(&index.to_ne_bytes());
    h[8..12].copy_from_slice(&flags.to_ne_bytes());
    h[12..16].copy_from_slice(&change.to_ne_bytes());
    h
}

fn route_header(route: &Route) -> [u8; 12] {
    let net = route.destination;
    let scope =
        if route.via.is_none() && route.device.is_some() && !net.is_ipv6() { RT_SCOPE_LINK } else { 0 };
    let kind = if route.device.is_some() { RTN_UNICAST } else { RTN_UNREACHABLE };
    let flags = if route.via.is_some() { RTNH_F_ONLINK } else { 0 };
    let [a, b, c, d] = flags.to_ne_bytes();
    [family(net.address()), net.prefix(), 0, 0, 0, RTPROT_STATIC, scope, kind, a, b, c, d]
}

fn route_attributes(m: &mut Messages, route: &Route) {
    m.attr(RTA_DST, &octets(route.destination.address()));
    if let Some(via) = route.via {
        m.attr(RTA_GATEWAY, &octets(via));
    }
    if let Some(device) = route.device {
        m.attr_u32(RTA_OIF, device);
    }
    if let Some(source) = route.source {
        m.attr(RTA_PREFSRC, &octets(source));
    }
    m.attr_u32(RTA_TABLE, route.table);
}

fn parse_link(body: &[u8]) -> Option<Link> {
    let attrs = body.get(16..)?;
    let word = |kind| Some(u32::from_ne_bytes(attribute(attrs, kind)?.try_into().ok()?));
    Some(Link {
        index: u32::from_ne_bytes(body[4..8].try_into().ok()?),
        name: text(attribute(attrs, IFLA_IFNAME)?),
        up: u32::from_ne_bytes(body[8..12].try_into().ok()?) & IFF_UP != 0,
        mtu: word(IFLA_MTU).unwrap_or(0),
        mac: attribute(attrs, IFLA_ADDRESS).and_then(|v| v.try_into().ok()),
        master: word(IFLA_MASTER),
        peer: word(IFLA_LINK),
    })
}

fn parse_route(body: &[u8]) -> Option<Route> {
    let attrs = body.get(12..)?;
    let (prefix, kind) = (body[1], body[7]);
    let ipv6 = i32::from(body[0]) == libc::AF_INET6;
    if kind != RTN_UNICAST && kind != RTN_UNREACHABLE {
        return None;
    }
    let any: IpAddr = if ipv6 { [0u8; 16].into() } else { [0u8; 4].into() };
    let mut route = Route {
        destination: IpNet::new(any, prefix)?,
        via: None,
        device: None,
        source: None,
        table: u32::from(body[4]),
    };
    for (key, value) in attributes(attrs) {
        match key {
            RTA_DST => route.destination = IpNet::new(address(value)?, prefix)?,
            RTA_GATEWAY => route.via = address(value),
            RTA_OIF if kind == RTN_UNICAST => route.device = Some(u32::from_ne_bytes(value.try_into().ok()?)),
            RTA_PREFSRC => route.source = address(value),
            RTA_TABLE => route.table = u32::from_ne_bytes(value.try_into().ok()?),
            _ => {}
        }
    }
    Some(route)
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv6() { libc::AF_INET6 as u8 } else { libc::AF_INET as u8 }
}

/// An address's bytes in network order.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// The address whose bytes in network order these are.
pub(crate) fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}
