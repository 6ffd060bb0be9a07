//! No two Services have one cluster address or one node port, whichever server gave it; what a Service has is taken in
//! the same transaction.

use std::collections::BTreeMap;

use apimachinery::{Doc, k};

use super::{Checker, object};
use crate::history::Write;

/// What each Service has, by key.
#[derive(Default)]
pub struct UniqueServiceAddresses(BTreeMap<String, Vec<String>>);

impl Checker for UniqueServiceAddresses {
    fn name(&self) -> &'static str {
        "unique service addresses"
    }

    fn wrote(&mut self, write: &Write<'_>) -> Vec<String> {
        let Some(service) = object(write, "services/specs") else { return Vec::new() };
        self.0.remove(write.key);
        let Some(service) = service else { return Vec::new() };
        let has = has(&service);
        let mut found = Vec::new();
        for (other, theirs) in &self.0 {
            for what in has.iter().filter(|what| theirs.contains(what)) {
                found.push(format!("{} and {other} both have {what}", write.key));
            }
        }
        self.0.insert(write.key.to_owned(), has);
        found
    }
}

fn has(service: &Doc) -> Vec<String> {
    let spec = service.get(k::SPEC);
    let addresses = spec.get(k::CLUSTER_IPS).items().map(|ip| ip.str().to_owned()).filter(|ip| ip != "None");
    let ports = spec.get(k::PORTS).items().map(|port| port.get(k::NODE_PORT).i64()).filter(|port| *port > 0);
    addresses.chain(ports.map(|port| format!("node port {port}"))).collect()
}
