//! What must hold, in two ordered lists: of the store at every moment ([`all`]), and of what clients
//! saw in the end ([`JUDGES`]), by the names of etcd's watch guarantees. What must hold once all is healed is asked by
//! the stories themselves; that nothing acknowledged is lost, by [`crate::history`].

mod atomic;
#[cfg(test)]
mod judged;
mod linearizable;
mod no_double_bind;
mod quota_never_exceeded;
mod unique_pod_ips;
mod unique_service_addresses;
mod watches;

use apimachinery::call::WatchEvent;
use apimachinery::{Doc, codec};

use crate::history::Write;
use crate::ledger::{Ledger, Says};
use crate::record::{Evidence, Watched, revision};

/// Looks at every change of the store, in order.
pub trait Checker: Send {
    /// What it is called in accusations.
    fn name(&self) -> &'static str;
    /// A key changed; gives what is wrong with that.
    fn wrote(&mut self, write: &Write<'_>) -> Vec<String>;
}

/// All checkers.
pub fn all() -> Vec<Box<dyn Checker>> {
    vec![
        Box::new(no_double_bind::NoDoubleBind::default()),
        Box::new(quota_never_exceeded::QuotaNeverExceeded::default()),
        Box::new(unique_pod_ips::UniquePodIps::default()),
        Box::new(unique_service_addresses::UniqueServiceAddresses::default()),
    ]
}

/// Holds what clients saw against what was committed; gives what is wrong.
pub type Judge = fn(&Evidence) -> Vec<String>;

/// All judges, by what they are called in accusations.
pub const JUDGES: &[(&str, Judge)] = &[
    ("ordered", watches::ordered),
    ("unique", watches::unique),
    ("atomic", atomic::atomic),
    ("reliable", watches::reliable),
    ("resumable", watches::resumable),
    ("bookmarkable", watches::bookmarkable),
    ("linearizable", linearizable::linearizable),
];

/// Where a stretch of a watch differs from what was committed after `from` and up to its last word.
fn differs(ledger: &Ledger, watch: &Watched, from: u64, stretch: &[WatchEvent]) -> Option<String> {
    let last = stretch.last()?;
    let to = revision(last);
    let mut due = ledger.says(&watch.selection, from, to).into_iter();
    for heard in stretch {
        let (says, seen) = match heard {
            WatchEvent::Added(seen) => (Says::Added, seen),
            WatchEvent::Modified(seen) => (Says::Modified, seen),
            WatchEvent::Deleted(seen) => (Says::Deleted, seen),
            WatchEvent::Error(_) | WatchEvent::Rendered { .. } => continue,
            WatchEvent::Bookmark { revision, .. } => {
                let missed = due.as_slice().first().filter(|(_, step)| step.revision <= *revision);
                if let Some((says, step)) = missed {
                    return Some(format!(
                        "missed {says:?} {} of {}: {}",
                        step.key,
                        step.revision,
                        watch.at(*revision)
                    ));
                }
                continue;
            }
        };
        let Some((due, step)) = due.next() else {
            return Some(format!(
                "{says:?} {} of {} never was: {}",
                seen.name(),
                seen.revision,
                watch.at(from)
            ));
        };
        let shown = if due == Says::Deleted { ledger.before(step) } else { Some(step) };
        let same = says == due
            && watch.selection.key_of(seen) == step.key
            && shown.is_some_and(|shown| shown.is(seen, step.revision));
        if !same {
            return Some(format!(
                "{says:?} {} of {} in place of {due:?} {} of {}: {}",
                seen.name(),
                seen.revision,
                step.key,
                step.revision,
                watch.at(from)
            ));
        }
    }
    // Others of the last one's revision may be still to come.
    let missed = due.find(|(_, step)| step.revision < to);
    missed.map(|(says, step)| format!("missed {says:?} {} of {}: {}", step.key, step.revision, watch.at(to)))
}

/// The object that was written, if the key is one of this resource (`pods`).
fn object(write: &Write<'_>, resource: &str) -> Option<Option<Doc>> {
    let rest = write.key.strip_prefix("/registry/")?.strip_prefix(resource)?;
    if !rest.starts_with('/') {
        return None;
    }
    Some(write.value.and_then(|value| Some(codec::json::parse(value.to_vec()).ok()?.doc)))
}

#[cfg(test)]
mod tests {
    use apimachinery::doc;
    use bytes::Bytes;

    use super::*;

    /// What all checkers say of these values, written one after another.
    fn accused(writes: &[(&str, Doc)]) -> Vec<String> {
        let mut checkers = all();
        let mut found = Vec::new();
        for (at, (key, value)) in writes.iter().enumerate() {
            let value = Bytes::from(value.to_json());
            let write = Write {
                revision: at as u64,
                key,
                value: Some(&value),
                at: base::time::Timestamp::UNIX_EPOCH,
            };
            found.extend(checkers.iter_mut().flat_map(|c| c.wrote(&write)));
        }
        found
    }

    fn pod(name: &str, node: &str, ip: &str) -> Doc {
        doc!({ "metadata": { "name": name, "namespace": "a", "uid": name }, "status": { "podIP": ip }, "spec": {
            "nodeName": node, "containers": [{ "name": "c", "resources": { "requests": { "cpu": "600m" } } }] } })
    }

    fn service(name: &str, ip: &str, port: i64) -> Doc {
        doc!({ "metadata": { "name": name }, "spec": { "clusterIPs": [ip], "ports": [{ "nodePort": port }] } })
    }

    #[test]
    fn each_checker_accuses_what_it_is_for() {
        let one = "/registry/pods/a/one";
        let two = "/registry/pods/a/two";
        assert!(accused(&[(one, pod("one", "", "")), (one, pod("one", "n1", "10.0.0.1"))]).is_empty());
        let rebound = accused(&[(one, pod("one", "n1", "")), (one, pod("one", "n2", ""))]);
        assert_eq!(rebound, ["/registry/pods/a/one went from n1 to \"n2\" at revision 1"]);
        let shared = accused(&[(one, pod("one", "n1", "10.0.0.1")), (two, pod("two", "n1", "10.0.0.1"))]);
        assert_eq!(shared, ["/registry/pods/a/two and /registry/pods/a/one both have 10.0.0.1"]);
        let (one_service, two_services) =
            ("/registry/services/specs/a/one", "/registry/services/specs/a/two");
        let shared = accused(&[
            (one_service, service("one", "10.96.0.9", 30_001)),
            (two_services, service("two", "10.96.0.8", 30_001)),
        ]);
        assert_eq!(shared, [format!("{two_services} and {one_service} both have node port 30001")]);
        let quota = doc!({ "metadata": { "name": "q", "namespace": "a" }, "spec": { "hard": { "requests.cpu": "1" } } });
        let exceeded = accused(&[
            ("/registry/resourcequotas/a/q", quota),
            (one, pod("one", "", "")),
            (two, pod("two", "", "")),
        ]);
        assert_eq!(exceeded, ["requests.cpu is 1200m of 1 with /registry/pods/a/two at revision 2"]);
    }
}
