//! Makes the kernel's tables what was rendered, by sending the difference as one atomic batch.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use network::conntrack::{Connection, Conntrack};
use network::nft::{Batch, Nft};
use network::{Error, in_netns};

use crate::model::Protocol;
use crate::render::{Front, Rules, empty_tables};

/// The tables of one node, and what was applied last. Its methods block for milliseconds.
#[derive(Debug)]
pub struct Applier {
    nft: Nft,
    conntrack: Conntrack,
    /// None until the first apply, which replaces whatever an earlier process left.
    last: Option<Rules>,
}

/// What an apply did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Messages to the kernel; 0 when nothing changed.
    pub messages: usize,
    /// Their size.
    pub bytes: usize,
    /// Tracked UDP connections that led to endpoints no longer there, deleted.
    pub connections: usize,
}

impl Applier {
    /// Opens sockets in the network namespace at `netns` (none: the caller's).
    pub fn open(netns: Option<&Path>) -> Result<Applier, Error> {
        let netns: Option<PathBuf> = netns.map(Path::to_owned);
        in_netns(netns.as_deref(), || {
            Ok(Applier { nft: Nft::open()?, conntrack: Conntrack::open()?, last: None })
        })?
    }

    /// Makes the kernel's tables `rules`. On error they are as they were.
    pub fn apply(&mut self, rules: Rules) -> Result<Applied, Error> {
        let batch = match &self.last {
            Some(last) => difference(last, &rules),
            None => whole(&rules),
        };
        let mut applied = Applied { messages: batch.size().0, bytes: batch.size().1, connections: 0 };
        match self.nft.commit(&batch) {
            Ok(()) => {}
            // Somebody flushed or changed our tables: then all of them are made anew.
            Err(error) if self.last.is_some() => {
                tracing::warn!(%error, "service rules were changed by somebody else; replacing them");
                let batch = whole(&rules);
                applied.messages += batch.size().0;
                self.nft.commit(&batch)?;
            }
            Err(error) => return Err(error),
        }
        let before = self.last.replace(rules);
        applied.connections = self.forget_connections(before.as_ref())?;
        Ok(applied)
    }

    /// Removes the tables of `prefix`, whoever made them.
    pub fn teardown(&mut self, prefix: &str) -> Result<(), Error> {
        let mut batch = Batch::new();
        for table in empty_tables(prefix) {
            table.delete(&mut batch);
        }
        self.last = None;
        self.nft.commit(&batch)
    }

    /// Deletes tracked UDP connections whose endpoint is gone, where anything changed: a client that keeps its
    /// socket would otherwise stay with it.
    fn forget_connections(&mut self, before: Option<&Rules>) -> Result<usize, Error> {
        let Some(now) = &self.last else { return Ok(0) };
        let none = Default::default();
        let old = before.map_or(&none, |r| &r.udp);
        let fronts = || old.keys().chain(now.udp.keys());
        let changed: BTreeSet<&Front> = fronts().filter(|f| old.get(f) != now.udp.get(f)).collect();
        let mut deleted = 0;
        for ipv6 in [false, true] {
            if changed.iter().any(|f| f.address.is_ipv6() == ipv6) {
                let stale = |c: &Connection| changed.iter().any(|f| is_stale(c, f, now));
                deleted += self.conntrack.delete_where(ipv6, stale)?;
            }
        }
        Ok(deleted)
    }
}

fn whole(rules: &Rules) -> Batch {
    let mut batch = Batch::new();
    rules.tables.iter().for_each(|table| table.replace(&mut batch));
    batch
}

fn difference(last: &Rules, rules: &Rules) -> Batch {
    let mut batch = Batch::new();
    for (old, new) in last.tables.iter().zip(&rules.tables) {
        new.change_from(old, &mut batch);
    }
    batch
}

fn is_stale(connection: &Connection, front: &Front, now: &Rules) -> bool {
    let to = connection.destination;
    let answerer: (IpAddr, u16) = (connection.answerer.ip(), connection.answerer.port());
    let at_front = if front.address.is_unspecified() {
        // A node port has any address; a connection that was not translated is none of ours.
        to.ip().is_ipv6() == front.address.is_ipv6() && connection.answerer != to
    } else {
        to.ip() == front.address
    };
    connection.protocol == Protocol::Udp.number()
        && at_front
        && to.port() == front.port
        && !now.udp.get(front).is_some_and(|endpoints| endpoints.contains(&answerer))
}
