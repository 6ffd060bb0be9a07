//! A directory for the pod's life, on disk or in memory. Upstream: pkg/volume/emptydir.

use std::path::Path;

use apimachinery::quantity::Quantity;
use apimachinery::{Ref, k};

use crate::doors::Files;
use crate::fields::Facts;

pub(super) fn set_up(
    source: Ref<'_>,
    path: &Path,
    gid: Option<u32>,
    facts: Facts<'_>,
    files: &dyn Files,
) -> Result<(), String> {
    let done = if source.get(k::MEDIUM).str() == "Memory" {
        files.make_tmpfs(path, 0o777, gid, memory_size(source, facts))
    } else {
        files.make_dir(path, 0o777, gid)
    };
    done.map_err(|err| err.to_string())
}

/// The least of the volume's own limit, what the pod may use of memory, and the node's memory.
fn memory_size(source: Ref<'_>, facts: Facts<'_>) -> Option<u64> {
    let own = Quantity::parse(source.get(k::SIZE_LIMIT).str()).ok();
    let limit = |c: Ref<'_>| Quantity::parse(c.get(k::RESOURCES).get(k::LIMITS).get("memory").str()).ok();
    let containers = facts.pod.get(k::SPEC).get(k::CONTAINERS);
    let pod = containers.items().map(limit).try_fold(0, |sum, q| Some(sum + q?.value()));
    let node = facts.allocatable.get("memory").map(|q| q.value());
    let all = [own.map(Quantity::value), pod, node];
    all.into_iter().flatten().filter(|bytes| *bytes > 0).min().and_then(|bytes| u64::try_from(bytes).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::doc;

    #[test]
    fn memory_is_never_more_than_the_pods() {
        let allocatable = [("memory".to_owned(), Quantity::parse("1Gi").unwrap())].into();
        let with = doc!({ "spec": { "containers": [{ "resources": { "limits": { "memory": "2Mi" } } },
            { "resources": { "limits": { "memory": "3Mi" } } }] } });
        let without =
            doc!({ "spec": { "containers": [{ "resources": { "limits": { "memory": "2Mi" } } }, {}] } });
        for (pod, limit, want) in [
            (&with, "1Mi", 1 << 20),
            (&with, "0", 5 << 20),
            (&without, "8Mi", 8 << 20),
            (&without, "", 1 << 30),
        ] {
            let facts = Facts { pod: pod.root(), ips: &[], host_ips: &[], allocatable: &allocatable };
            assert_eq!(memory_size(doc!({ "sizeLimit": limit }).root(), facts), Some(want), "{limit}");
        }
    }
}
