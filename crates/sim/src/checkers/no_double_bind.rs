//! A pod that has a node keeps it.

use std::collections::BTreeMap;

use apimachinery::k;

use super::{Checker, object};
use crate::history::Write;

/// By key, the uid and node of each bound pod.
#[derive(Default)]
pub struct NoDoubleBind(BTreeMap<String, (String, String)>);

impl Checker for NoDoubleBind {
    fn name(&self) -> &'static str {
        "no double bind"
    }

    fn wrote(&mut self, write: &Write<'_>) -> Vec<String> {
        let Some(pod) = object(write, "pods") else { return Vec::new() };
        let Some(pod) = pod else {
            self.0.remove(write.key);
            return Vec::new();
        };
        let uid = pod.get(k::METADATA).get(k::UID).str().to_owned();
        let node = pod.get(k::SPEC).get(k::NODE_NAME).str().to_owned();
        let before = self.0.insert(write.key.to_owned(), (uid.clone(), node.clone()));
        match before {
            Some((old, was)) if old == uid && !was.is_empty() && was != node => {
                vec![format!("{} went from {was} to {node:?} at revision {}", write.key, write.revision)]
            }
            _ => Vec::new(),
        }
    }
}
