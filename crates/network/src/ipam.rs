//! Which pod has which addresses: in memory, and in a file that survives restarts.
//!
//! Addresses are given out in turn, so that one freed a moment ago is used last: connections and caches that
//! remember it have time to forget. Upstream: CNI's host-local plugin.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use crate::sysctl::{read_or_empty, remove_if_there, replace_file};
use crate::{Error, IpNet};

/// At most this many addresses of one range are looked at (a node has a few hundred pods).
const RANGE_MAX: u64 = 1 << 16;

/// The addresses of one node.
#[derive(Debug)]
pub(crate) struct Ipam {
    file: PathBuf,
    ranges: Vec<IpNet>,
    pods: BTreeMap<String, Vec<IpAddr>>,
    /// Per range, the place after the one given out last.
    next: Vec<u64>,
}

impl Ipam {
    /// Reads what was given out before. Addresses outside `ranges` (a node that got another range) are dropped.
    pub fn load(file: PathBuf, ranges: Vec<IpNet>) -> Result<Ipam, Error> {
        let text = read_or_empty(&file)?;
        let mut ipam = Ipam { next: vec![FIRST; ranges.len()], file, ranges, pods: BTreeMap::new() };
        for (n, line) in text.lines().enumerate() {
            let bad = || Error::State { path: ipam.file.clone(), line: n + 1 };
            let (key, rest) = line.split_once('\t').ok_or_else(bad)?;
            if key.is_empty() {
                let places: Result<Vec<u64>, _> = rest.split(',').map(str::parse).collect();
                let places = places.map_err(|_| bad())?;
                if places.len() == ipam.next.len() {
                    ipam.next = places;
                }
                continue;
            }
            let addresses: Result<Vec<IpAddr>, _> = rest.split(',').map(str::parse).collect();
            let addresses = addresses.map_err(|_| bad())?;
            let fits = addresses.len() == ipam.ranges.len()
                && addresses.iter().zip(&ipam.ranges).all(|(a, r)| r.contains(*a));
            if fits {
                ipam.pods.insert(key.to_owned(), addresses);
            }
        }
        Ok(ipam)
    }

    /// The pod's addresses, one of each range: those it has, or new ones, on disk before this returns.
    pub fn acquire(&mut self, key: &str) -> Result<Vec<IpAddr>, Error> {
        if let Some(addresses) = self.pods.get(key) {
            return Ok(addresses.clone());
        }
        let used: BTreeSet<IpAddr> = self.pods.values().flatten().copied().collect();
        let mut addresses = Vec::with_capacity(self.ranges.len());
        let mut next = self.next.clone();
        for (range, next) in self.ranges.iter().zip(&mut next) {
            let (address, place) =
                free_address(range, *next, &used).ok_or(Error::NoFreeAddress { cidr: *range })?;
            addresses.push(address);
            *next = place + 1;
        }
        self.next = next;
        self.pods.insert(key.to_owned(), addresses.clone());
        if let Err(e) = self.save() {
            self.pods.remove(key);
            return Err(e);
        }
        Ok(addresses)
    }

    /// Takes the pod's addresses back.
    pub fn release(&mut self, key: &str) -> Result<(), Error> {
        if self.pods.remove(key).is_some() { self.save() } else { Ok(()) }
    }

    /// All pods, by key.
    pub fn pods(&self) -> &BTreeMap<String, Vec<IpAddr>> {
        &self.pods
    }

    /// Forgets everything, on disk too.
    pub fn clear(&mut self) -> Result<(), Error> {
        self.pods.clear();
        remove_if_there(&self.file)
    }

    fn save(&self) -> Result<(), Error> {
        let join = |words: &mut dyn Iterator<Item = String>| words.collect::<Vec<_>>().join(",");
        let mut text = format!("\t{}\n", join(&mut self.next.iter().map(u64::to_string)));
        for (key, addresses) in &self.pods {
            text += &format!("{key}\t{}\n", join(&mut addresses.iter().map(IpAddr::to_string)));
        }
        replace_file(&self.file, &text)
    }
}

/// The lowest place given to a pod: 0 names the network, 1 is the gateway.
const FIRST: u64 = 2;

fn free_address(range: &IpNet, next: u64, used: &BTreeSet<IpAddr>) -> Option<(IpAddr, u64)> {
    let size = if range.host_bits() >= 16 { RANGE_MAX } else { 1 << range.host_bits() };
    // IPv4's highest address is the broadcast address.
    let end = if range.is_ipv6() { size } else { size.saturating_sub(1) };
    let from = next.clamp(FIRST, end.max(FIRST));
    (from..end)
        .chain(FIRST..from)
        .filter_map(|n| Some((range.nth(n)?, n)))
        .find(|(address, n)| *n < end && !used.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    #[test]
    fn gives_in_turn_keeps_across_restarts_and_ends() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Ipam::load(dir.path().join("addresses"), ranges(&["10.1.0.0/29"])).unwrap();
        let mut ipam = open();
        let last = |a: Vec<IpAddr>| a[0].to_string();
        assert_eq!(last(ipam.acquire("a").unwrap()), "10.1.0.2");
        assert_eq!(last(ipam.acquire("b").unwrap()), "10.1.0.3");
        ipam.release("a").unwrap();
        let mut ipam = open();
        assert_eq!(last(ipam.acquire("b").unwrap()), "10.1.0.3");
        // The one freed last comes last.
        for (key, want) in [("c", "10.1.0.4"), ("d", "10.1.0.5"), ("e", "10.1.0.6"), ("f", "10.1.0.2")] {
            assert_eq!(last(ipam.acquire(key).unwrap()), want);
        }
        assert!(matches!(ipam.acquire("g"), Err(Error::NoFreeAddress { .. })));
        assert_eq!(open().pods().len(), 5);
    }

    #[test]
    fn one_address_of_each_family_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("addresses");
        let mut ipam = Ipam::load(file.clone(), ranges(&["10.1.0.0/24", "fd00:1::/64"])).unwrap();
        let got: Vec<_> = ipam.acquire("a").unwrap().iter().map(IpAddr::to_string).collect();
        assert_eq!(got, ["10.1.0.2", "fd00:1::2"]);
        // Another range: what does not fit is forgotten.
        assert!(Ipam::load(file.clone(), ranges(&["10.2.0.0/24"])).unwrap().pods().is_empty());
        std::fs::write(&file, "a\t10.1.0.2\nb\tx\n").unwrap();
        let err = Ipam::load(file, ranges(&["10.1.0.0/24"])).unwrap_err();
        assert!(err.to_string().ends_with("line 2: not an address record"), "{err}");
    }
}
