//! The expressions rules are made of, and their encoding.

use super::Verdict;
use crate::netlink::Messages;

/// One of sixteen four-byte registers. Longer values take several in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg(pub u8);

/// Keys of [`Expr::Meta`].
pub mod meta {
    /// The name of the interface a packet came in by, 16 bytes.
    pub const IIFNAME: u32 = 6;
    /// The name of the interface a packet leaves by, 16 bytes.
    pub const OIFNAME: u32 = 7;
    /// The transport protocol's number, one byte.
    pub const L4PROTO: u32 = 16;
}

/// Keys and bits of [`Expr::Ct`].
pub mod ct {
    /// A connection's state bits, four bytes in the machine's order.
    pub const STATE: u32 = 0;
    /// A connection's status bits, four bytes in the machine's order.
    pub const STATUS: u32 = 2;
    /// In [`STATUS`]: the destination was translated.
    pub const STATUS_DNAT: u32 = 1 << 5;
}

/// Where the offset of [`Expr::Payload`] counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadBase {
    /// The IP header.
    Network,
    /// The header after it.
    Transport,
}

/// How a packet is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectWith {
    /// With a TCP reset.
    TcpReset,
    /// With an ICMP (or, in `ip6`, ICMPv6) "unreachable" of this code.
    Unreachable(u8),
}

/// One step of a rule. A step that does not match ends its rule, and the next rule is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// Loads bytes of the packet.
    Payload {
        /// Where to.
        to: Reg,
        /// Where `offset` counts from.
        base: PayloadBase,
        /// The first byte.
        offset: u32,
        /// How many.
        len: u32,
    },
    /// Loads what the kernel knows of the packet.
    Meta {
        /// Where to.
        to: Reg,
        /// One of [`meta`].
        key: u32,
    },
    /// Loads what the kernel knows of the connection.
    Ct {
        /// Where to.
        to: Reg,
        /// One of [`ct`].
        key: u32,
    },
    /// Matches when a register holds `value`, or anything else.
    Compare {
        /// What is looked at.
        from: Reg,
        /// Whether to match on difference.
        not: bool,
        /// The bytes.
        value: Vec<u8>,
    },
    /// Keeps the bits in `mask`.
    Mask {
        /// The register, changed in place.
        reg: Reg,
        /// As long as the value.
        mask: Vec<u8>,
    },
    /// Matches when a set holds the key, or, with `not`, when it does not.
    InSet {
        /// Where the key begins.
        key: Reg,
        /// The set.
        set: String,
        /// Whether to match on absence.
        not: bool,
    },
    /// Loads what a map holds for the key; no match when it has none.
    Map {
        /// Where the key begins.
        key: Reg,
        /// The map.
        map: String,
        /// Where its value goes.
        to: Reg,
    },
    /// Follows the verdict a map holds for the key, if it has one.
    VerdictMap {
        /// Where the key begins.
        key: Reg,
        /// The map.
        map: String,
    },
    /// Loads fixed bytes.
    Load {
        /// Where to.
        to: Reg,
        /// The bytes.
        value: Vec<u8>,
    },
    /// Decides.
    Verdict(Verdict),
    /// Loads a number from `offset` to `offset + modulus - 1` at random.
    Random {
        /// Where to.
        to: Reg,
        /// How many numbers there are.
        modulus: u32,
        /// The lowest.
        offset: u32,
    },
    /// Adds an element to a dynamic map or refreshes it.
    Update {
        /// The map.
        map: String,
        /// Where the key begins.
        key: Reg,
        /// Where the value begins.
        value: Reg,
        /// After how many milliseconds it goes.
        timeout_ms: u64,
    },
    /// Removes an element from a dynamic map, if it is there. (Updating refreshes an element but keeps its value.)
    Forget {
        /// The map.
        map: String,
        /// Where the key begins.
        key: Reg,
        /// A register that the kernel wants named, though it is not read.
        value: Reg,
    },
    /// Sends the connection to another destination. The family is the address's, as the table's.
    Dnat {
        /// Whether the address is IPv6.
        ipv6: bool,
        /// Where the address begins.
        address: Reg,
        /// Where the port is.
        port: Reg,
    },
    /// Gives the connection the leaving interface's own address as source, and a random port.
    Masquerade,
    /// Refuses the packet.
    Reject(RejectWith),
    /// Counts packets and bytes.
    Counter,
    /// Loads the kind of the destination address as a route type: 2 is one of this machine's own.
    DestinationKind {
        /// Where to.
        to: Reg,
    },
    /// Matches at most `rate` packets a second, after a first `burst`.
    Limit {
        /// Packets a second.
        rate: u64,
        /// Packets at once.
        burst: u32,
    },
}

const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const VERDICT_REGISTER: u32 = 0;
/// `NFT_REG32_00`.
const FIRST_REGISTER: u32 = 8;
const MASQUERADE_RANDOM_FULLY: u32 = 1 << 4;
const FIB_RESULT_ADDRTYPE: u32 = 3;
const FIB_FLAG_DADDR: u32 = 2;

impl Reg {
    fn number(self) -> u32 {
        assert!(self.0 < 16, "there are 16 registers");
        FIRST_REGISTER + u32::from(self.0)
    }
}

impl Expr {
    /// Writes the expression: its name and nested data.
    pub(crate) fn encode(&self, m: &mut Messages) {
        m.attr_str(NFTA_EXPR_NAME, self.name());
        m.nest(NFTA_EXPR_DATA, |m| self.encode_data(m));
    }

    /// The kernel's name for the expression.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Expr::Payload { .. } => "payload",
            Expr::Meta { .. } => "meta",
            Expr::Ct { .. } => "ct",
            Expr::Compare { .. } => "cmp",
            Expr::Mask { .. } => "bitwise",
            Expr::InSet { .. } | Expr::Map { .. } | Expr::VerdictMap { .. } => "lookup",
            Expr::Load { .. } | Expr::Verdict(_) => "immediate",
            Expr::Random { .. } => "numgen",
            Expr::Update { .. } | Expr::Forget { .. } => "dynset",
            Expr::Dnat { .. } => "nat",
            Expr::Masquerade => "masq",
            Expr::Reject(_) => "reject",
            Expr::Counter => "counter",
            Expr::DestinationKind { .. } => "fib",
            Expr::Limit { .. } => "limit",
        }
    }

    fn encode_data(&self, m: &mut Messages) {
        let numbers = |m: &mut Messages, values: &[u32]| {
            for (kind, value) in (1..).zip(values) {
                m.attr_be32(kind, *value);
            }
        };
        match self {
            Expr::Payload { to, base, offset, len } => {
                let base = if *base == PayloadBase::Network { 1 } else { 2 };
                numbers(m, &[to.number(), base, *offset, *len]);
            }
            Expr::Meta { to, key } | Expr::Ct { to, key } => numbers(m, &[to.number(), *key]),
            Expr::Compare { from, not, value } => {
                numbers(m, &[from.number(), u32::from(*not)]);
                m.nest(3, |m| m.attr(NFTA_DATA_VALUE, value));
            }
            Expr::Mask { reg, mask } => {
                numbers(m, &[reg.number(), reg.number(), mask.len() as u32]);
                m.nest(4, |m| m.attr(NFTA_DATA_VALUE, mask));
                m.nest(5, |m| m.attr(NFTA_DATA_VALUE, &vec![0; mask.len()]));
            }
            Expr::InSet { key, set, not } => lookup(m, set, *key, None, *not),
            Expr::Map { key, map, to } => lookup(m, map, *key, Some(to.number()), false),
            Expr::VerdictMap { key, map } => lookup(m, map, *key, Some(VERDICT_REGISTER), false),
            Expr::Load { to, value } => {
                m.attr_be32(1, to.number());
                m.nest(2, |m| m.attr(NFTA_DATA_VALUE, value));
            }
            Expr::Verdict(verdict) => {
                m.attr_be32(1, VERDICT_REGISTER);
                m.nest(2, |m| encode_verdict(m, verdict));
            }
            Expr::Random { to, modulus, offset } => numbers(m, &[to.number(), *modulus, 1, *offset]),
            Expr::Update { map, key, value, timeout_ms } => {
                dynset(m, map, 1, *key, *value);
                m.attr_be64(6, *timeout_ms);
            }
            Expr::Forget { map, key, value } => dynset(m, map, 2, *key, *value),
            Expr::Dnat { ipv6, address, port } => {
                numbers(m, &[1, if *ipv6 { 10 } else { 2 }, address.number()]);
                m.attr_be32(5, port.number());
            }
            Expr::Masquerade => m.attr_be32(1, MASQUERADE_RANDOM_FULLY),
            Expr::Reject(RejectWith::TcpReset) => m.attr_be32(1, 1),
            Expr::Reject(RejectWith::Unreachable(code)) => {
                m.attr_be32(1, 0);
                m.attr(2, &[*code]);
            }
            Expr::Counter => {
                m.attr_be64(1, 0);
                m.attr_be64(2, 0);
            }
            Expr::DestinationKind { to } => {
                numbers(m, &[to.number(), FIB_RESULT_ADDRTYPE, FIB_FLAG_DADDR]);
            }
            Expr::Limit { rate, burst } => {
                m.attr_be64(1, *rate);
                m.attr_be64(2, 1);
                m.attr_be32(3, *burst);
                m.attr_be32(4, 0);
            }
        }
    }
}

fn lookup(m: &mut Messages, set: &str, key: Reg, to: Option<u32>, not: bool) {
    m.attr_str(1, set);
    m.attr_be32(2, key.number());
    if let Some(to) = to {
        m.attr_be32(3, to);
    }
    if not {
        m.attr_be32(5, 1);
    }
}

fn dynset(m: &mut Messages, map: &str, operation: u32, key: Reg, value: Reg) {
    m.attr_str(1, map);
    m.attr_be32(3, operation);
    m.attr_be32(4, key.number());
    m.attr_be32(5, value.number());
}

/// Writes a verdict as the content of a data attribute.
pub(super) fn encode_verdict(m: &mut Messages, verdict: &Verdict) {
    let (code, chain) = match verdict {
        Verdict::Drop => (0i32, None),
        Verdict::Accept => (1, None),
        Verdict::Jump(chain) => (-3, Some(chain)),
        Verdict::Goto(chain) => (-4, Some(chain)),
        Verdict::Return => (-5, None),
    };
    m.nest(NFTA_DATA_VERDICT, |m| {
        m.attr_be32(NFTA_VERDICT_CODE, code as u32);
        if let Some(chain) = chain {
            m.attr_str(NFTA_VERDICT_CHAIN, chain);
        }
    });
}

/// Reads the content of a data attribute.
pub(super) fn decode_value(data: &[u8]) -> Option<super::Value> {
    use crate::netlink::{attribute, text};
    if let Some(bytes) = attribute(data, NFTA_DATA_VALUE) {
        return Some(super::Value::Data(bytes.to_vec()));
    }
    let verdict = attribute(data, NFTA_DATA_VERDICT)?;
    let code = i32::from_be_bytes(attribute(verdict, NFTA_VERDICT_CODE)?.try_into().ok()?);
    let chain = attribute(verdict, NFTA_VERDICT_CHAIN).map(text);
    Some(super::Value::Verdict(match (code, chain) {
        (0, _) => Verdict::Drop,
        (1, _) => Verdict::Accept,
        (-3, Some(chain)) => Verdict::Jump(chain),
        (-4, Some(chain)) => Verdict::Goto(chain),
        (-5, _) => Verdict::Return,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(expr: &Expr) -> Vec<u8> {
        let mut m = Messages::default();
        expr.encode_data(&mut m);
        m.as_bytes().to_vec()
    }

    /// Each row is the attribute list of the rule in its comment, in the kernel's documented form.
    #[test]
    #[rustfmt::skip]
    fn expressions_byte_by_byte() {
        // ip daddr
        assert_eq!(bytes(&Expr::Payload { to: Reg(0), base: PayloadBase::Network, offset: 16, len: 4 }), [
            8, 0, 1, 0, 0, 0, 0, 8,  8, 0, 2, 0, 0, 0, 0, 1,  8, 0, 3, 0, 0, 0, 0, 16,  8, 0, 4, 0, 0, 0, 0, 4]);
        // != 6
        assert_eq!(bytes(&Expr::Compare { from: Reg(1), not: true, value: vec![6] }), [
            8, 0, 1, 0, 0, 0, 0, 9,  8, 0, 2, 0, 0, 0, 0, 1,  12, 0, 3, 0x80, 5, 0, 1, 0, 6, 0, 0, 0]);
        // vmap @m
        assert_eq!(bytes(&Expr::VerdictMap { key: Reg(0), map: "m".into() }), [
            6, 0, 1, 0, b'm', 0, 0, 0,  8, 0, 2, 0, 0, 0, 0, 8,  8, 0, 3, 0, 0, 0, 0, 0]);
        // goto c
        assert_eq!(bytes(&Expr::Verdict(Verdict::Goto("c".into()))), [
            8, 0, 1, 0, 0, 0, 0, 0,  24, 0, 2, 0x80, 20, 0, 2, 0x80, 8, 0, 1, 0, 0xff, 0xff, 0xff, 0xfc,
            6, 0, 2, 0, b'c', 0, 0, 0]);
        // numgen random mod 3 offset 65536
        assert_eq!(bytes(&Expr::Random { to: Reg(3), modulus: 3, offset: 65536 }), [
            8, 0, 1, 0, 0, 0, 0, 11,  8, 0, 2, 0, 0, 0, 0, 3,  8, 0, 3, 0, 0, 0, 0, 1,  8, 0, 4, 0, 0, 1, 0, 0]);
        // dnat to (register 4) : (register 5)
        assert_eq!(bytes(&Expr::Dnat { ipv6: false, address: Reg(4), port: Reg(5) }), [
            8, 0, 1, 0, 0, 0, 0, 1,  8, 0, 2, 0, 0, 0, 0, 2,  8, 0, 3, 0, 0, 0, 0, 12,  8, 0, 5, 0, 0, 0, 0, 13]);
        // masquerade fully-random
        assert_eq!(bytes(&Expr::Masquerade), [8, 0, 1, 0, 0, 0, 0, 16]);
        // reject with icmp port-unreachable
        assert_eq!(bytes(&Expr::Reject(RejectWith::Unreachable(3))), [8, 0, 1, 0, 0, 0, 0, 0,  5, 0, 2, 0, 3, 0, 0, 0]);
        // fib daddr type
        assert_eq!(bytes(&Expr::DestinationKind { to: Reg(0) }), [
            8, 0, 1, 0, 0, 0, 0, 8,  8, 0, 2, 0, 0, 0, 0, 3,  8, 0, 3, 0, 0, 0, 0, 2]);
        // ct status & dnat
        assert_eq!(bytes(&Expr::Mask { reg: Reg(0), mask: vec![0x20, 0, 0, 0] }), [
            8, 0, 1, 0, 0, 0, 0, 8,  8, 0, 2, 0, 0, 0, 0, 8,  8, 0, 3, 0, 0, 0, 0, 4,
            12, 0, 4, 0x80, 8, 0, 1, 0, 0x20, 0, 0, 0,  12, 0, 5, 0x80, 8, 0, 1, 0, 0, 0, 0, 0]);
        // limit rate 5/second burst 10 packets
        assert_eq!(bytes(&Expr::Limit { rate: 5, burst: 10 }), [
            12, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 5,  12, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1,
            8, 0, 3, 0, 0, 0, 0, 10,  8, 0, 4, 0, 0, 0, 0, 0]);
        // update @a { key timeout 1s : value }
        assert_eq!(bytes(&Expr::Update { map: "a".into(), key: Reg(0), value: Reg(4), timeout_ms: 1000 }), [
            6, 0, 1, 0, b'a', 0, 0, 0,  8, 0, 3, 0, 0, 0, 0, 1,  8, 0, 4, 0, 0, 0, 0, 8,  8, 0, 5, 0, 0, 0, 0, 12,
            12, 0, 6, 0, 0, 0, 0, 0, 0, 0, 3, 0xe8]);
    }
}
