//! nftables: a table as plain data, its encoding as one atomic batch, and the socket that applies it.
//!
//! A [`Table`] says what should be there; [`Table::replace`] and [`Table::change_from`] (pure) write the batch
//! that makes it so, and [`Nft::commit`] applies the batch wholly or not at all.
//!
//! Upstream: Linux `include/uapi/linux/netfilter/nf_tables.h`; knftables.

mod batch;
mod connection;
mod expr;

use std::collections::BTreeMap;

use crate::IpNet;

pub use batch::Batch;
pub use connection::{ChainInfo, Nft, RuleInfo};
pub use expr::{Expr, PayloadBase, Reg, RejectWith, ct, meta};

/// Which packets a table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
}

impl Family {
    /// The kernel's number for it.
    pub(crate) fn number(self) -> u8 {
        match self {
            Family::Inet => 1,
            Family::Ip => 2,
            Family::Ip6 => 10,
        }
    }

    fn from_number(number: u8) -> Option<Family> {
        [Family::Inet, Family::Ip, Family::Ip6].into_iter().find(|f| f.number() == number)
    }

    /// The name that the `nft` program uses.
    pub fn name(self) -> &'static str {
        match self {
            Family::Inet => "inet",
            Family::Ip => "ip",
            Family::Ip6 => "ip6",
        }
    }
}

/// A table: what it should hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Which packets it sees.
    pub family: Family,
    /// Its name.
    pub name: String,
    /// Sets and maps by name.
    pub sets: BTreeMap<String, Set>,
    /// Chains by name.
    pub chains: BTreeMap<String, Chain>,
}

/// A chain of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where packets enter it from the kernel; none for a chain that is only jumped to.
    pub base: Option<Base>,
    /// Its rules, in order.
    pub rules: Vec<Vec<Expr>>,
}

/// Where and when a base chain is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// What its rules may do.
    pub kind: ChainKind,
    /// At which point of a packet's way.
    pub hook: Hook,
    /// Lower is asked earlier: connection tracking is at -200, destination NAT -100, filters 0, source NAT 100.
    pub priority: i32,
    /// Whether a packet that no rule decides is dropped.
    pub drop: bool,
}

/// What the rules of a base chain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    /// Accept, drop, reject.
    Filter,
    /// Translate; asked for the first packet of a connection only.
    Nat,
}

/// A point of a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Come in, not yet routed.
    Prerouting,
    /// For this machine.
    Input,
    /// Passing through.
    Forward,
    /// Made by this machine.
    Output,
    /// About to leave.
    Postrouting,
}

/// A set, or a map when its elements carry a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// The parts of a key. Each takes a multiple of four bytes, padded with zeros at its end.
    pub key: Vec<Type>,
    /// What an element carries.
    pub value: ValueType,
    /// Rules add elements, which expire. Such a set's elements are the kernel's and never compared.
    pub dynamic: Option<Dynamic>,
    /// The elements: keys in the form that [`Key`] builds.
    pub elements: BTreeMap<Vec<u8>, Value>,
}

/// Limits of a set that rules add elements to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dynamic {
    /// The most elements; a full set makes the rule that would add not match.
    pub size: u32,
    /// After how many milliseconds an element goes, unless the rule says otherwise.
    pub timeout_ms: u64,
}

/// The type of a part of a key or value. It decides the length and what the `nft` program prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// A transport protocol's number, one byte.
    Protocol,
    /// A transport port, two bytes in network order.
    Port,
    /// Four bytes in the machine's order.
    Mark,
}

impl Type {
    /// The length in bytes without padding.
    pub fn size(self) -> usize {
        match self {
            Type::Protocol => 1,
            Type::Port => 2,
            Type::Ipv4 | Type::Mark => 4,
            Type::Ipv6 => 16,
        }
    }

    /// The `nft` program's number for it. Source: nftables `include/datatype.h`.
    fn number(self) -> u32 {
        match self {
            Type::Ipv4 => 7,
            Type::Ipv6 => 8,
            Type::Protocol => 12,
            Type::Port => 13,
            Type::Mark => 19,
        }
    }
}

/// What a map's elements carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// Nothing: a set.
    Nothing,
    /// A verdict.
    Verdict,
    /// Data with these parts.
    Data(Vec<Type>),
}

/// What one element carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    Nothing,
    /// A verdict.
    Verdict(Verdict),
    /// Data in the form that [`Key`] builds.
    Data(Vec<u8>),
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes this hook's chain of this table.
    Accept,
    /// It is gone.
    Drop,
    /// Back to the rule after the jump.
    Return,
    /// On in that chain, and back here.
    Jump(String),
    /// On in that chain for good.
    Goto(String),
}

/// Builds keys and values: parts one after the other, each padded to four bytes.
#[derive(Clone, Debug, Default)]
pub struct Key(Vec<u8>);

impl Key {
    /// Adds an address.
    pub fn address(self, address: std::net::IpAddr) -> Key {
        self.bytes(&crate::link::octets(address))
    }

    /// Adds a transport protocol's number.
    pub fn protocol(self, number: u8) -> Key {
        self.bytes(&[number])
    }

    /// Adds a transport port.
    pub fn port(self, port: u16) -> Key {
        self.bytes(&port.to_be_bytes())
    }

    /// Adds four bytes in the machine's order.
    pub fn mark(self, value: u32) -> Key {
        self.bytes(&value.to_ne_bytes())
    }

    /// The key.
    pub fn build(self) -> Vec<u8> {
        self.0
    }

    fn bytes(mut self, bytes: &[u8]) -> Key {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
}

impl Table {
    /// An empty table.
    pub fn new(family: Family, name: impl Into<String>) -> Table {
        Table { family, name: name.into(), sets: BTreeMap::new(), chains: BTreeMap::new() }
    }

    /// Writes the batch that makes this table, whatever was there under its name.
    pub fn replace(&self, batch: &mut Batch) {
        self.delete(batch);
        batch.add_table(self.family, &self.name);
        self.change(&Table::new(self.family, &self.name), batch);
    }

    /// Writes the batch that removes the table, whether it is there or not.
    pub fn delete(&self, batch: &mut Batch) {
        batch.add_table(self.family, &self.name);
        batch.delete_table(self.family, &self.name);
    }

    /// Writes the changes that turn `old` into this table.
    ///
    /// # Panics
    /// When the two are not of one family and name.
    pub fn change_from(&self, old: &Table, batch: &mut Batch) {
        assert!(self.family == old.family && self.name == old.name, "two different tables");
        self.change(old, batch);
    }

    /// New things first, then elements, which may name them; what nothing names any more goes last.
    fn change(&self, old: &Table, batch: &mut Batch) {
        let kept = |name: &str, set: &Set| old.sets.get(name).is_some_and(|o| set.same_shape(o));
        // A set of another shape under the same name must be gone first, and with it all rules that name it:
        // shapes belong to names in our tables, so this is a mistake of the program.
        for (name, set) in &self.sets {
            let clash = old.sets.contains_key(name) && !kept(name, set);
            assert!(!clash, "set {name} changed its shape: replace the table");
            if !old.sets.contains_key(name) {
                batch.add_set(self, name, set);
            }
        }
        for (name, chain) in &self.chains {
            if old.chains.get(name).is_none_or(|o| o.base != chain.base) {
                batch.add_chain(self, name, chain.base);
            }
        }
        for (name, chain) in &self.chains {
            match old.chains.get(name) {
                Some(o) if o.rules == chain.rules => continue,
                Some(_) => batch.flush_chain(self, name),
                None => {}
            }
            for rule in &chain.rules {
                batch.add_rule(self, name, rule);
            }
        }
        for (name, set) in &self.sets {
            self.change_elements(name, set, old.sets.get(name), batch);
        }
        let gone = || old.chains.keys().filter(|name| !self.chains.contains_key(*name));
        gone().for_each(|name| batch.flush_chain(self, name));
        gone().for_each(|name| batch.delete_chain(self, name));
        for name in old.sets.keys().filter(|name| !self.sets.contains_key(*name)) {
            batch.delete_set(self, name);
        }
    }

    fn change_elements(&self, name: &str, set: &Set, old: Option<&Set>, batch: &mut Batch) {
        let none = BTreeMap::new();
        let old = old.map_or(&none, |o| &o.elements);
        let gone = old.iter().filter(|(key, value)| set.elements.get(*key) != Some(*value));
        batch.delete_elements(self, name, gone.map(|(key, _)| key.as_slice()));
        let new = set.elements.iter().filter(|(key, value)| old.get(*key) != Some(*value));
        batch.add_elements(self, name, new);
    }
}

impl Set {
    /// A set or map that only this program fills.
    pub fn new(key: Vec<Type>, value: ValueType) -> Set {
        Set { key, value, dynamic: None, elements: BTreeMap::new() }
    }

    fn same_shape(&self, other: &Set) -> bool {
        (&self.key, &self.value, self.dynamic) == (&other.key, &other.value, other.dynamic)
    }
}

/// The length of a key or value with these parts, padded.
fn padded_len(parts: &[Type]) -> u32 {
    parts.iter().map(|t| t.size().next_multiple_of(4) as u32).sum()
}

/// The `nft` program's number for a concatenation.
fn type_number(parts: &[Type]) -> u32 {
    parts.iter().fold(0, |n, t| n << 6 | t.number())
}

/// Whole phrases that rules of several rooms say.
impl Expr {
    /// Loads a packet's source address.
    pub fn source(ipv6: bool, to: Reg) -> Expr {
        let (offset, len) = if ipv6 { (8, 16) } else { (12, 4) };
        Expr::Payload { to, base: PayloadBase::Network, offset, len }
    }

    /// Loads a packet's destination address.
    pub fn destination(ipv6: bool, to: Reg) -> Expr {
        let (offset, len) = if ipv6 { (24, 16) } else { (16, 4) };
        Expr::Payload { to, base: PayloadBase::Network, offset, len }
    }

    /// Matches packets whose source is in `net`, or, with `not`, outside. Uses the first registers.
    pub fn source_in(net: IpNet, not: bool) -> Vec<Expr> {
        Self::address_in(Expr::source(net.is_ipv6(), Reg(0)), net, not)
    }

    /// Matches packets whose destination is in `net`, or, with `not`, outside. Uses the first registers.
    pub fn destination_in(net: IpNet, not: bool) -> Vec<Expr> {
        Self::address_in(Expr::destination(net.is_ipv6(), Reg(0)), net, not)
    }

    fn address_in(load: Expr, net: IpNet, not: bool) -> Vec<Expr> {
        let width = if net.is_ipv6() { 128 } else { 32 };
        let ones = u128::MAX.checked_shl(width - u32::from(net.prefix())).unwrap_or(0);
        let mask = ones.to_be_bytes()[16 - width as usize / 8..].to_vec();
        let value = crate::link::octets(net.address());
        vec![load, Expr::Mask { reg: Reg(0), mask }, Expr::Compare { from: Reg(0), not, value }]
    }
}
