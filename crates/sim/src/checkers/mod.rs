//! What must hold at every moment, one checker per file, one ordered list. What must hold once all is healed is asked by
//! the story itself; that nothing acknowledged is lost, by [`crate::history`].

mod no_double_bind;
mod quota_never_exceeded;
mod unique_pod_ips;

use apimachinery::{Doc, codec};

use crate::history::Write;

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
    ]
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

    #[test]
    fn each_checker_accuses_what_it_is_for() {
        let one = "/registry/pods/a/one";
        let two = "/registry/pods/a/two";
        assert!(accused(&[(one, pod("one", "", "")), (one, pod("one", "n1", "10.0.0.1"))]).is_empty());
        let rebound = accused(&[(one, pod("one", "n1", "")), (one, pod("one", "n2", ""))]);
        assert_eq!(rebound, ["/registry/pods/a/one went from n1 to \"n2\" at revision 1"]);
        let shared = accused(&[(one, pod("one", "n1", "10.0.0.1")), (two, pod("two", "n1", "10.0.0.1"))]);
        assert_eq!(shared, ["/registry/pods/a/two and /registry/pods/a/one both have 10.0.0.1"]);
        let quota = doc!({ "metadata": { "name": "q", "namespace": "a" }, "spec": { "hard": { "requests.cpu": "1" } } });
        let exceeded = accused(&[
            ("/registry/resourcequotas/a/q", quota),
            (one, pod("one", "", "")),
            (two, pod("two", "", "")),
        ]);
        assert_eq!(exceeded, ["requests.cpu is 1200m of 1 with /registry/pods/a/two at revision 2"]);
    }
}
