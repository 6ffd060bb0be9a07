//! Pods that take more of the disk than they may are ended. What they take is measured only while some pod has a limit.
//!
//! Upstream: pkg/kubelet/eviction/eviction_manager.go (`localStorageEviction`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::quantity::Quantity;
use apimachinery::{Ref, k};

use crate::admission::pod_limits;
use crate::containers;
use crate::core::SharedCore;
use crate::volumes;
use crate::worker::{EVICTED, End, Phase, Role, Stage, State, container_specs};

/// How often pods with limits are measured.
pub(crate) const MEASURE_EVERY: Duration = Duration::from_secs(10);
const STORAGE: &str = "ephemeral-storage";

/// What a pod takes of the disk, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Each `emptyDir` that lies on the disk.
    pub volumes: BTreeMap<String, u64>,
    /// Each container's writable layer and logs.
    pub containers: BTreeMap<String, u64>,
}

/// Whether anything of the pod's is limited.
pub fn is_limited(pod: Ref<'_>) -> bool {
    volume_limits(pod).next().is_some()
        || container_specs(pod).any(|(_, c)| storage_limit(c).is_some())
        || pod_limits(pod).contains_key(STORAGE)
}

/// Why a pod with this usage is ended, if it is.
pub fn over(pod: Ref<'_>, usage: &Usage) -> Option<End> {
    let end = |message: String| Some(End { reason: EVICTED.into(), message });
    let more = |used: u64, limit: Quantity| i64::try_from(used).unwrap_or(i64::MAX) > limit.value();
    for (name, limit) in volume_limits(pod) {
        if usage.volumes.get(name).is_some_and(|used| more(*used, limit)) {
            return end(format!("Usage of EmptyDir volume {name:?} exceeds the limit \"{limit}\". "));
        }
    }
    let all = usage.volumes.values().chain(usage.containers.values()).sum::<u64>();
    if let Some(limit) = pod_limits(pod).get(STORAGE).filter(|limit| more(all, **limit)) {
        return end(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "
        ));
    }
    for (_, c) in container_specs(pod) {
        let name = c.get(k::NAME).str();
        let used = usage.containers.get(name).copied().unwrap_or(0);
        if let Some(limit) = storage_limit(c).filter(|limit| more(used, *limit)) {
            return end(format!("Container {name} exceeded its local ephemeral storage limit \"{limit}\". "));
        }
    }
    None
}

fn volume_limits(pod: Ref<'_>) -> impl Iterator<Item = (&str, Quantity)> {
    pod.get(k::SPEC).get(k::VOLUMES).items().filter_map(|volume| {
        let source = volume.get(k::EMPTY_DIR);
        // In memory the limit is the file system's size.
        let limit = Quantity::parse(source.get(k::SIZE_LIMIT).str()).ok().filter(|q| !q.is_zero())?;
        source.get(k::MEDIUM).str().is_empty().then(|| (volume.get(k::NAME).str(), limit))
    })
}

fn storage_limit(container: Ref<'_>) -> Option<Quantity> {
    let limit = container.get(k::RESOURCES).get(k::LIMITS).get(STORAGE).str();
    Quantity::parse(limit).ok().filter(|q| !q.is_zero())
}

/// Measures the pods that have limits; gives those that are over, by uid.
pub(crate) async fn look(core: &SharedCore, states: Vec<Arc<State>>) -> Vec<(String, End)> {
    let mut out = Vec::new();
    for state in states {
        if state.stage == Stage::Running && state.end.is_none() && is_limited(state.pod.root()) {
            let usage = measure(core, &state).await;
            if let Some(end) = over(state.pod.root(), &usage) {
                out.push((state.object().metadata().uid().to_owned(), end));
            }
        }
    }
    out
}

async fn measure(core: &SharedCore, state: &Arc<State>) -> Usage {
    let mut layers = BTreeMap::new();
    for container in state.containers.iter().filter(|c| c.role != Role::Ephemeral) {
        if let Phase::Running { id, .. } = &container.phase
            && let Ok(stats) = core.doors.runtime.container_stats(id).await
        {
            layers.insert(container.name.clone(), stats.writable_layer_bytes);
        }
    }
    let (core, state) = (core.clone(), state.clone());
    base::task::blocking(move || {
        let (files, pod) = (&core.doors.files, state.pod.root());
        let logs = containers::log_dir(&core.config, state.object());
        for (name, bytes) in &mut layers {
            *bytes += files.usage(&logs.join(name));
        }
        let paths = volumes::paths(&core.config.root_dir, pod);
        let on_disk =
            |v: &Ref<'_>| v.get(k::EMPTY_DIR).is_set() && v.get(k::EMPTY_DIR).get(k::MEDIUM).str().is_empty();
        let all = pod.get(k::SPEC).get(k::VOLUMES);
        let mine = paths.into_iter().zip(all.items()).filter(|(_, v)| on_disk(v));
        let volumes = mine.map(|((name, at), _)| (name, files.usage(&at.path))).collect();
        Usage { volumes, containers: layers }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::doc;

    #[test]
    fn what_is_too_much() {
        let pod = doc!({ "spec": { "volumes": [{ "name": "v", "emptyDir": { "sizeLimit": "1Ki" } },
            { "name": "m", "emptyDir": { "medium": "Memory", "sizeLimit": "1Ki" } }],
            "containers": [{ "name": "a", "resources": { "limits": { "ephemeral-storage": "4Ki" } } },
                { "name": "b", "resources": { "limits": { "ephemeral-storage": "8Ki" } } }] } });
        for (volume, a, b, want) in [
            (1024, 4096, 0, None),
            (1025, 0, 0, Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Ki\". ")),
            (0, 4097, 0, Some("Container a exceeded its local ephemeral storage limit \"4Ki\". ")),
            (
                100,
                4096,
                8192,
                Some("Pod ephemeral local storage usage exceeds the total limit of containers 12Ki. "),
            ),
        ] {
            let usage = Usage {
                volumes: [("v".to_owned(), volume)].into(),
                containers: [("a".to_owned(), a), ("b".to_owned(), b)].into(),
            };
            assert_eq!(over(pod.root(), &usage).map(|end| end.message).as_deref(), want);
        }
        assert!(is_limited(pod.root()));
        assert!(!is_limited(
            doc!({ "spec": { "volumes": [{ "name": "v", "emptyDir": {} }], "containers": [{}] } }).root()
        ));
    }
}
