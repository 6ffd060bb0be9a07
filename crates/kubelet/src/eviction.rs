//! Pods that take more of the disk than they may are ended, and when the node is short of something, one at a time, those
//! that take most beyond what they asked for. What pods take is measured only while that is so, or some pod has a limit.
//! Where the disk is short, images that nobody uses go first.
//!
//! Upstream: pkg/kubelet/eviction.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::quantity::{Format, Quantity};
use apimachinery::{Ref, k};

use crate::admission::{is_critical, pod_limits, pod_requests};
use crate::containers;
use crate::core::SharedCore;
use crate::doors::Short;
use crate::image_gc::Images;
use crate::volumes;
use crate::worker::{EVICTED, End, Phase, Role, Stage, State, container_specs};

/// How often pods with limits are measured.
pub(crate) const MEASURE_EVERY: Duration = Duration::from_secs(10);
const STORAGE: &str = "ephemeral-storage";

/// What a pod takes, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Each `emptyDir` that lies on the disk.
    pub volumes: BTreeMap<String, u64>,
    /// Each container's writable layer and logs.
    pub containers: BTreeMap<String, u64>,
    /// What each container has of memory.
    pub memory: BTreeMap<String, u64>,
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

/// Measures the pods that have limits, or all when the node is short; gives those to be ended, by uid.
pub(crate) async fn look(
    core: &SharedCore,
    images: &mut Images,
    states: Vec<Arc<State>>,
) -> Vec<(String, End)> {
    let short = async || {
        let machine = core.doors.machine.clone();
        base::task::blocking(move || machine.short()).await.into_iter().next()
    };
    let mut first = short().await;
    if first.as_ref().is_some_and(|s| s.resource == STORAGE) {
        match images.free(core, u64::MAX).await {
            Ok(0) => {}
            Ok(_) => first = short().await,
            Err(error) => tracing::warn!(%error, "no images were removed from a disk that is nearly full"),
        }
    }
    let short = first;
    // One that is on its way out already makes room.
    let leaving =
        |s: &Arc<State>| s.stage != Stage::Done && s.end.as_ref().is_some_and(|e| e.reason == EVICTED);
    let short = short.filter(|_| !states.iter().any(leaving));
    let (mut out, mut all) = (Vec::new(), Vec::new());
    for state in states {
        if state.stage != Stage::Running || state.end.is_some() {
            continue;
        }
        if short.is_none() && !is_limited(state.pod.root()) {
            continue;
        }
        let usage = measure(core, &state).await;
        match over(state.pod.root(), &usage) {
            Some(end) => out.push((state.object().metadata().uid().to_owned(), end)),
            None => all.push((state, usage)),
        }
    }
    if let (true, Some(short)) = (out.is_empty(), short) {
        let pods: Vec<(Ref<'_>, &Usage)> = all.iter().map(|(s, usage)| (s.pod.root(), usage)).collect();
        out.extend(first_to_go(&pods, &short));
    }
    out
}

/// Which pod goes first when the node is short of something, by uid: one that takes more than it asked for, of those
/// the least important, of those the one that takes most beyond.
pub fn first_to_go(pods: &[(Ref<'_>, &Usage)], short: &Short) -> Option<(String, End)> {
    let in_memory = short.resource == "memory";
    let asked = |pod: Ref<'_>| pod_requests(pod).get(short.resource).map_or(0, |q| q.value());
    let taken = |usage: &Usage| {
        let bytes = if in_memory {
            usage.memory.values().sum::<u64>()
        } else {
            usage.volumes.values().chain(usage.containers.values()).sum()
        };
        i64::try_from(bytes).unwrap_or(i64::MAX)
    };
    let rank = |(pod, usage): &(Ref<'_>, &Usage)| {
        let beyond = taken(usage).saturating_sub(asked(*pod));
        (beyond <= 0, pod.get(k::SPEC).get(k::PRIORITY).i64(), std::cmp::Reverse(beyond))
    };
    let mortal = pods.iter().filter(|(pod, _)| !is_critical(*pod));
    let (pod, usage) = mortal.min_by_key(|p| rank(p))?;
    let bytes = |n: i64| Quantity::from_value(n, Format::BinarySi).to_string();
    let Short { resource, threshold, available } = short;
    let mut message = format!(
        "The node was low on resource: {resource}. Threshold quantity: {threshold}, available: {available}. "
    );
    for (name, used) in if in_memory { &usage.memory } else { &usage.containers } {
        let own = container_specs(*pod).find(|(_, c)| c.get(k::NAME).str() == name);
        let request = own.and_then(|(_, c)| {
            Quantity::parse(c.get(k::RESOURCES).get(k::REQUESTS).get(resource).str()).ok()
        });
        let (used, request) = (i64::try_from(*used).unwrap_or(i64::MAX), request.map_or(0, |q| q.value()));
        if used > request {
            let (used, request) = (bytes(used), bytes(request));
            message.push_str(&format!(
                "Container {name} was using {used}, request is {request}, has larger consumption of {resource}. "
            ));
        }
    }
    let uid = pod.get(k::METADATA).get(k::UID).str().to_owned();
    Some((uid, End { reason: EVICTED.into(), message }))
}

async fn measure(core: &SharedCore, state: &Arc<State>) -> Usage {
    let (mut layers, mut memory) = (BTreeMap::new(), BTreeMap::new());
    for container in state.containers.iter().filter(|c| c.role != Role::Ephemeral) {
        if let Phase::Running { id, .. } = &container.phase
            && let Ok(stats) = core.doors.runtime.container_stats(id).await
        {
            layers.insert(container.name.clone(), stats.writable_layer_bytes);
            memory.insert(container.name.clone(), stats.memory_working_set_bytes);
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
        Usage { volumes, containers: layers, memory }
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
                ..Usage::default()
            };
            assert_eq!(over(pod.root(), &usage).map(|end| end.message).as_deref(), want);
        }
        assert!(is_limited(pod.root()));
        assert!(!is_limited(
            doc!({ "spec": { "volumes": [{ "name": "v", "emptyDir": {} }], "containers": [{}] } }).root()
        ));
    }

    #[test]
    fn who_goes_first() {
        let pod = |uid: &str, priority: i64, memory: &str| {
            let requests = doc!({ "requests": { "memory": memory } });
            let mut pod = doc!({ "metadata": { "uid": uid }, "spec": { "priority": priority, "containers": [{ "name": "a" }] } });
            let c = pod.edit().at(k::SPEC).at(k::CONTAINERS).item(0);
            c.expect("one").set(k::RESOURCES, requests);
            pod
        };
        let uses = |bytes: u64| Usage { memory: [("a".to_owned(), bytes)].into(), ..Usage::default() };
        let short = Short { resource: "memory", threshold: "100Mi".into(), available: "9Mi".into() };
        let first = |pods: &[(apimachinery::Doc, Usage)]| {
            let pods: Vec<_> = pods.iter().map(|(pod, usage)| (pod.root(), usage)).collect();
            first_to_go(&pods, &short)
        };
        let within = || (pod("within", -5, "8Mi"), uses(7 << 20));
        let little = || (pod("little", 0, "1Mi"), uses(2 << 20));
        let much = || (pod("much", 0, "1Mi"), uses(3 << 20));
        let important = || (pod("important", 9, "0"), uses(9 << 20));
        let critical = || (pod("critical", 2_000_000_000, "0"), uses(99 << 20));
        let all = [within(), little(), important(), much(), critical()];
        let (uid, end) = first(&all).expect("one goes");
        assert_eq!(uid, "much");
        let words = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 9Mi. \
                     Container a was using 3Mi, request is 1Mi, has larger consumption of memory. ";
        assert_eq!(end.message, words);
        assert_eq!(first(&[within(), important(), critical()]).expect("one").0, "important");
        assert_eq!(first(&[critical()]), None);
    }
}
