//! What the scheduler tells about pods: the `PodScheduled` condition and events. Upstream: `handleSchedulingFailure` of
//! pkg/scheduler/schedule_one.go.

use apimachinery::call::Stored;
use apimachinery::{Doc, doc, gotime, k};
use client::gvr::PODS;
use client::{Client, ObjectRef, PatchType};

/// The pod as events name it.
pub fn about(pod: &Doc) -> ObjectRef {
    ObjectRef::of(pod.root(), "v1", "Pod")
}

/// The patch that makes `PodScheduled` false for this reason; none when the pod says so already.
pub fn not_scheduled(pod: &Doc, reason: &str, message: &str) -> Option<Doc> {
    let conditions = pod.get(k::STATUS).get(k::CONDITIONS);
    let old = conditions.items().find(|c| c.get(k::TYPE).str() == "PodScheduled").unwrap_or_default();
    let is_false = old.get(k::STATUS).str() == "False";
    let generation = pod.get(k::METADATA).get(k::GENERATION).opt_i64().filter(|g| *g > 0);
    if is_false
        && old.get(k::REASON).str() == reason
        && old.get(k::MESSAGE).str() == message
        && old.get(k::OBSERVED_GENERATION).opt_i64() == generation
    {
        return None;
    }
    let since = match old.get(k::LAST_TRANSITION_TIME).opt_str().filter(|_| is_false) {
        Some(since) => since.to_owned(),
        None => gotime::format(base::time::now()),
    };
    let mut condition = doc!({
        "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
        "lastProbeTime": null, "lastTransitionTime": since,
    });
    condition.edit().set_opt(k::OBSERVED_GENERATION, generation);
    let mut patch = doc!({ "metadata": { "uid": pod.get(k::METADATA).get(k::UID).str() } });
    patch.edit().at(k::STATUS).list(k::CONDITIONS).push(condition);
    Some(patch)
}

/// Writes the condition. A pod that is gone needs none.
pub async fn write(client: Client, stored: std::sync::Arc<Stored>, patch: Doc) {
    let pods = client.namespaced(PODS, stored.namespace());
    match pods.patch(stored.name(), PatchType::Strategic, patch, "status").await {
        Ok(_) => {}
        Err(err) if err.is_not_found() || err.is_conflict() => {}
        Err(err) => {
            tracing::warn!(namespace = %stored.namespace(), pod = %stored.name(), error = %err, "condition not written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_condition_is_written_once() {
        base::sim::run(1, async {
            let mut pod = doc!({ "metadata": { "name": "p", "uid": "u", "generation": 2 } });
            let patch = not_scheduled(&pod, "Unschedulable", "0/1 nodes").expect("it says nothing yet");
            let condition = patch.get(k::STATUS).get(k::CONDITIONS).item(0).to_doc();
            assert_eq!(condition.get(k::LAST_TRANSITION_TIME).str(), "2026-01-01T00:00:00Z");
            assert_eq!(condition.get(k::OBSERVED_GENERATION).i64(), 2);
            pod.edit().at(k::STATUS).list(k::CONDITIONS).push(condition);
            assert!(not_scheduled(&pod, "Unschedulable", "0/1 nodes").is_none());
            base::time::sleep(std::time::Duration::from_secs(60)).await;
            let patch = not_scheduled(&pod, "Unschedulable", "0/2 nodes").expect("it says something else");
            let since = patch.get(k::STATUS).get(k::CONDITIONS).item(0).get(k::LAST_TRANSITION_TIME).to_doc();
            assert_eq!(since.root().str(), "2026-01-01T00:00:00Z");
        });
    }
}
