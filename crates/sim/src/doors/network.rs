//! Pod addresses on a network that does not exist: given in turn, as host-local IPAM does.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use apimachinery::call::BoxFuture;
use kubelet::doors::{HostPort, PodNetwork, Result};

use super::pause;

/// Addresses that a range of 24 bits leaves to pods: neither its own, the node's nor broadcast.
const FIRST: u8 = 2;
const LAST: u8 = 254;

/// See the module's text.
#[derive(Default)]
pub struct SimNetwork(Mutex<State>);

#[derive(Default)]
struct State {
    range: Option<[u8; 3]>,
    last: u8,
    given: BTreeMap<String, IpAddr>,
}

impl SimNetwork {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics holding it")
    }

    /// The sandbox that has an address.
    pub fn owner(&self, ip: IpAddr) -> Option<String> {
        self.lock().given.iter().find(|(_, given)| **given == ip).map(|(key, _)| key.clone())
    }

    /// The sandboxes that have addresses.
    pub fn keys_now(&self) -> Vec<String> {
        self.lock().given.keys().cloned().collect()
    }
}

impl State {
    fn give(&mut self, key: &str) -> Result<IpAddr> {
        if let Some(ip) = self.given.get(key) {
            return Ok(*ip);
        }
        let [a, b, c] = self.range.ok_or("the pod network is not set up")?;
        for _ in FIRST..=LAST {
            self.last = if self.last < FIRST || self.last >= LAST { FIRST } else { self.last + 1 };
            let ip = IpAddr::V4(Ipv4Addr::new(a, b, c, self.last));
            if !self.given.values().any(|given| *given == ip) {
                self.given.insert(key.to_owned(), ip);
                return Ok(ip);
            }
        }
        Err("no address is free".into())
    }
}

impl PodNetwork for SimNetwork {
    fn setup(&self, pod_cidrs: Vec<String>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            pause(100).await;
            let address =
                pod_cidrs.first().and_then(|cidr| cidr.strip_suffix("/24")).ok_or("a /24 is expected")?;
            let [a, b, c, _] = address.parse::<Ipv4Addr>()?.octets();
            let mut state = self.lock();
            if state.range.is_some_and(|range| range != [a, b, c]) {
                return Err("a node's range never changes".into());
            }
            state.range = Some([a, b, c]);
            Ok(())
        })
    }

    fn attach(&self, _: PathBuf, key: String, _: Vec<HostPort>) -> BoxFuture<'_, Result<Vec<IpAddr>>> {
        Box::pin(async move {
            pause(30).await;
            let ip = self.lock().give(&key)?;
            pause(10).await;
            Ok(vec![ip])
        })
    }

    fn detach(&self, key: String) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            pause(30).await;
            self.lock().given.remove(&key);
            pause(10).await;
            Ok(())
        })
    }

    fn keys(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(async { Ok(self.keys_now()) })
    }
}
