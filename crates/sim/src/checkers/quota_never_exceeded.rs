//! The pods of a namespace never use more than its quotas' `spec.hard`.

use std::collections::BTreeMap;

use apimachinery::gvk::GroupResource;
use apimachinery::quota_usage::{self, Usage};
use apimachinery::schema::views::ResourceQuota;
use apimachinery::{Doc, k};

use super::{Checker, object};
use crate::history::Write;

/// Pods and quotas by key.
#[derive(Default)]
pub struct QuotaNeverExceeded {
    pods: BTreeMap<String, Doc>,
    quotas: BTreeMap<String, Doc>,
}

impl Checker for QuotaNeverExceeded {
    fn name(&self) -> &'static str {
        "quota never exceeded"
    }

    fn wrote(&mut self, write: &Write<'_>) -> Vec<String> {
        if let Some(quota) = object(write, "resourcequotas") {
            put(&mut self.quotas, write.key, quota);
            return Vec::new();
        }
        let Some(pod) = object(write, "pods") else { return Vec::new() };
        put(&mut self.pods, write.key, pod);
        let namespace = |doc: &Doc| doc.get(k::METADATA).get(k::NAMESPACE).str().to_owned();
        let pods = GroupResource::new("", "pods");
        let mut found = Vec::new();
        for quota in self.quotas.values() {
            let mut used = Usage::new();
            let here = self.pods.values().filter(|pod| namespace(pod) == namespace(quota));
            for pod in here.filter(|p| quota_usage::matches(ResourceQuota(quota.root()), &pods, p.root())) {
                quota_usage::add_all(&mut used, &quota_usage::usage(&pods, pod.root(), write.at));
            }
            for (name, hard) in quota_usage::amounts(quota.get(k::SPEC).get(k::HARD)) {
                if let Some(used) = used.get(&name).filter(|used| **used > hard) {
                    let revision = write.revision;
                    found.push(format!(
                        "{name} is {used} of {hard} with {} at revision {revision}",
                        write.key
                    ));
                }
            }
        }
        found
    }
}

fn put(all: &mut BTreeMap<String, Doc>, key: &str, doc: Option<Doc>) {
    match doc {
        Some(doc) => all.insert(key.to_owned(), doc),
        None => all.remove(key),
    };
}
