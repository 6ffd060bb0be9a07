//! Connection tracking: entries listed and deleted.
//!
//! A UDP client that keeps its socket keeps its translation for minutes, even to an endpoint that is gone; so
//! who removes an endpoint deletes the entries that lead to it.
//!
//! Upstream: Linux `include/uapi/linux/netfilter/nfnetlink_conntrack.h`; kube-proxy's pkg/proxy/conntrack.

use std::net::{IpAddr, SocketAddr};

use crate::Error;
use crate::link::address;
use crate::netlink::{Messages, Socket, attribute};

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// One tracked connection of a protocol with ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The transport protocol's number.
    pub protocol: u8,
    /// Who began it.
    pub source: SocketAddr,
    /// Whom it was meant for.
    pub destination: SocketAddr,
    /// Who answers: differs from `destination` when that was translated.
    pub answerer: SocketAddr,
    /// The original direction as the kernel encoded it, for the deletion.
    tuple: Vec<u8>,
    id: Option<Vec<u8>>,
}

/// A socket for connection tracking of one network namespace.
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
}

impl Conntrack {
    /// Opens a socket in the calling thread's namespace.
    pub fn open() -> Result<Conntrack, Error> {
        Ok(Conntrack { socket: Socket::netfilter()? })
    }

    /// All connections of one address family.
    pub fn list(&mut self, ipv6: bool) -> Result<Vec<Connection>, Error> {
        let replies = self.socket.dump("list tracked connections", |m, seq| {
            m.begin(GET, 0, seq, &[family(ipv6), 0, 0, 0]);
            m.end();
        })?;
        Ok(replies.iter().filter_map(|r| parse(r.body.get(4..)?)).collect())
    }

    /// Deletes the connections of one family that `stale` picks, and tells how many. One that ended meanwhile
    /// is not counted and no error.
    pub fn delete_where(&mut self, ipv6: bool, stale: impl Fn(&Connection) -> bool) -> Result<usize, Error> {
        let mut deleted = 0;
        for connection in self.list(ipv6)?.iter().filter(|c| stale(c)) {
            let done = self.socket.request("delete tracked connection", |m, seq| {
                encode_delete(m, seq, ipv6, connection);
            });
            match done {
                Ok(()) => deleted += 1,
                Err(e) if e.errno() == Some(libc::ENOENT) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(deleted)
    }
}

fn encode_delete(m: &mut Messages, seq: u32, ipv6: bool, connection: &Connection) {
    m.begin(DELETE, 0, seq, &[family(ipv6), 0, 0, 0]);
    m.nest(CTA_TUPLE_ORIG, |m| m.raw(&connection.tuple));
    if let Some(id) = &connection.id {
        m.attr(CTA_ID, id);
    }
    m.end();
}

fn family(ipv6: bool) -> u8 {
    if ipv6 { libc::AF_INET6 as u8 } else { libc::AF_INET as u8 }
}

fn parse(attrs: &[u8]) -> Option<Connection> {
    let original = attribute(attrs, CTA_TUPLE_ORIG)?;
    let (protocol, source, destination) = parse_tuple(original)?;
    let (_, answerer, _) = parse_tuple(attribute(attrs, CTA_TUPLE_REPLY)?)?;
    let id = attribute(attrs, CTA_ID).map(<[u8]>::to_vec);
    Some(Connection { protocol, source, destination, answerer, tuple: original.to_vec(), id })
}

/// Protocol, source and destination; none for protocols without ports.
fn parse_tuple(tuple: &[u8]) -> Option<(u8, SocketAddr, SocketAddr)> {
    let ip = attribute(tuple, CTA_TUPLE_IP)?;
    // IPv4 source and destination have the types 1 and 2, IPv6 ones 3 and 4.
    let end = |v4, v6| -> Option<IpAddr> { address(attribute(ip, v4).or_else(|| attribute(ip, v6))?) };
    let proto = attribute(tuple, CTA_TUPLE_PROTO)?;
    let port = |kind| Some(u16::from_be_bytes(attribute(proto, kind)?.try_into().ok()?));
    Some((
        *attribute(proto, CTA_PROTO_NUM)?.first()?,
        SocketAddr::new(end(1, 3)?, port(CTA_PROTO_SRC_PORT)?),
        SocketAddr::new(end(2, 4)?, port(CTA_PROTO_DST_PORT)?),
    ))
}
