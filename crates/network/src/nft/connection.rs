//! The socket: applies batches, and reads back what the kernel holds.

use std::collections::BTreeMap;
use std::io;

use super::batch::SUBSYSTEM;
use super::expr::decode_value;
use super::{Batch, Family, Value, Verdict};
use crate::Error;
use crate::netlink::{Reply, Socket, attribute, attributes, text};

const GET_TABLE: u16 = SUBSYSTEM | 1;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const GET_RULE: u16 = SUBSYSTEM | 7;
const GET_ELEMENT: u16 = SUBSYSTEM | 13;

/// nftables of one network namespace.
#[derive(Debug)]
pub struct Nft {
    socket: Socket,
}

/// A chain as the kernel tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainInfo {
    /// Its table's family.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// For a base chain, the hook's number (0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting).
    pub hook: Option<u32>,
    /// Whether a packet that no rule decides is dropped.
    pub drop: bool,
}

/// A rule as the kernel tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleInfo {
    /// Its table's family.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// The kernel's names of its expressions, in order.
    pub expressions: Vec<String>,
    /// The verdict, where the last expression is one.
    pub verdict: Option<Verdict>,
}

impl Nft {
    /// Opens a socket in the calling thread's network namespace; it stays there whatever thread uses it.
    pub fn open() -> Result<Nft, Error> {
        Ok(Nft { socket: Socket::netfilter()? })
    }

    /// Applies all of a batch, or, on error, nothing of it.
    ///
    /// # Errors
    /// [`Error::Nft`] names the first object the kernel refused.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let (messages, last) = batch.finish();
        let replies = self.socket.transact(&messages, "apply nftables batch")?;
        if let Some((seq, errno)) = replies.iter().find(|(_, errno)| *errno != 0) {
            let source = io::Error::from_raw_os_error(*errno);
            return Err(Error::Nft { object: batch.object(*seq).to_owned(), source });
        }
        if replies.iter().any(|(seq, _)| *seq == last) {
            return Ok(());
        }
        Err(Error::MalformedReply { action: "apply nftables batch".to_owned() })
    }

    /// Family and name of all tables (of the families known here).
    pub fn tables(&mut self) -> Result<Vec<(Family, String)>, Error> {
        let replies = self.dump(GET_TABLE, 0, "list tables", &[])?;
        Ok(replies.iter().filter_map(|r| Some((family_of(r)?, name_of(r, 1)?))).collect())
    }

    /// All chains of all tables.
    pub fn chains(&mut self) -> Result<Vec<ChainInfo>, Error> {
        let replies = self.dump(GET_CHAIN, 0, "list chains", &[])?;
        let parse = |r: &Reply| {
            let attrs = r.body.get(4..)?;
            let word = |bytes: &[u8]| Some(u32::from_be_bytes(bytes.try_into().ok()?));
            Some(ChainInfo {
                family: family_of(r)?,
                table: name_of(r, 1)?,
                name: name_of(r, 3)?,
                hook: attribute(attrs, 4).and_then(|h| word(attribute(h, 1)?)),
                drop: attribute(attrs, 5).and_then(word) == Some(0),
            })
        };
        Ok(replies.iter().filter_map(parse).collect())
    }

    /// All rules of all tables, in order.
    pub fn rules(&mut self) -> Result<Vec<RuleInfo>, Error> {
        let replies = self.dump(GET_RULE, 0, "list rules", &[])?;
        Ok(replies.iter().filter_map(parse_rule).collect())
    }

    /// The elements of a set or map.
    pub fn elements(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
    ) -> Result<BTreeMap<Vec<u8>, Value>, Error> {
        let names = [(1, table), (2, set)];
        let replies = self.dump(GET_ELEMENT, family.number(), &format!("list elements of {set}"), &names)?;
        let mut out = BTreeMap::new();
        for list in replies.iter().filter_map(|r| attribute(r.body.get(4..)?, 3)) {
            for (_, element) in attributes(list) {
                let Some(key) = attribute(element, 1).and_then(|k| attribute(k, 1)) else { continue };
                let value = attribute(element, 2).and_then(decode_value).unwrap_or(Value::Nothing);
                out.insert(key.to_vec(), value);
            }
        }
        Ok(out)
    }

    fn dump(
        &mut self,
        kind: u16,
        family: u8,
        action: &str,
        names: &[(u16, &str)],
    ) -> Result<Vec<Reply>, Error> {
        self.socket.dump(action, |m, seq| {
            m.begin(kind, 0, seq, &[family, 0, 0, 0]);
            for (kind, name) in names {
                m.attr_str(*kind, name);
            }
            m.end();
        })
    }
}

fn family_of(reply: &Reply) -> Option<Family> {
    Family::from_number(*reply.body.first()?)
}

fn name_of(reply: &Reply, kind: u16) -> Option<String> {
    Some(text(attribute(reply.body.get(4..)?, kind)?))
}

fn parse_rule(reply: &Reply) -> Option<RuleInfo> {
    let list = attribute(reply.body.get(4..)?, 4).unwrap_or(&[]);
    let mut rule = RuleInfo {
        family: family_of(reply)?,
        table: name_of(reply, 1)?,
        chain: name_of(reply, 2)?,
        expressions: Vec::new(),
        verdict: None,
    };
    for (_, expr) in attributes(list) {
        rule.expressions.push(text(attribute(expr, 1)?));
        let data = attribute(expr, 2).and_then(|d| attribute(d, 2)).and_then(decode_value);
        rule.verdict = match data {
            Some(Value::Verdict(verdict)) if rule.expressions.last()? == "immediate" => Some(verdict),
            _ => None,
        };
    }
    Some(rule)
}
