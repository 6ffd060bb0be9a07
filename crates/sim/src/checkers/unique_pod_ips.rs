//! No two pods that run show one address.

use std::collections::BTreeMap;

use apimachinery::k;

use super::{Checker, object};
use crate::history::Write;

/// The address of each pod that runs, by key.
#[derive(Default)]
pub struct UniquePodIps(BTreeMap<String, String>);

impl Checker for UniquePodIps {
    fn name(&self) -> &'static str {
        "unique pod addresses"
    }

    fn wrote(&mut self, write: &Write<'_>) -> Vec<String> {
        let Some(pod) = object(write, "pods") else { return Vec::new() };
        self.0.remove(write.key);
        let Some(pod) = pod else { return Vec::new() };
        let status = pod.get(k::STATUS);
        let over = matches!(status.get(k::PHASE).str(), "Succeeded" | "Failed");
        let leaves = pod.get(k::METADATA).get(k::DELETION_TIMESTAMP).is_set();
        let ip = status.get(k::POD_IP).str();
        if over || leaves || ip.is_empty() {
            return Vec::new();
        }
        let same = self.0.iter().find(|(_, other)| *other == ip).map(|(key, _)| key.clone());
        self.0.insert(write.key.to_owned(), ip.to_owned());
        same.map(|other| format!("{} and {other} both have {ip}", write.key)).into_iter().collect()
    }
}
