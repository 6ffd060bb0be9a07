//! Pod garbage collector: force-deletes the pods that no kubelet will ever end, and the oldest of too many that have ended.
//! Upstream: pkg/controller/podgc.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::call::{BoxFuture, Stored};
use apimachinery::{Doc, Ref, doc, gotime, k};
use base::time::Timestamp;
use client::gvr::{NODES, PODS};
use client::{DeleteOptions, Error, ObjectKey, PatchType};

use crate::manager::{Action, Controller, Ctx, Read, Rule, Wakes, nothing};
use crate::objects::{self, Seen};

/// How many ended pods may stay. Upstream: `--terminated-pod-gc-threshold`.
const ENDED_MAX: usize = 12_500;
/// How long a node may be missing from the cache before the server is asked for it.
const QUARANTINE: Duration = Duration::from_secs(40);
/// How often ended pods are counted: they are read one and all where they are too many. Upstream: for everything it does.
const PERIOD: Duration = Duration::from_secs(20);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// In place of a namespace: the key of a node whose quarantine is over, and the one key of all ended pods.
const QUARANTINED: &str = "quarantined";
const ENDED: &str = "ended";

/// The declaration. Keys are nodes, the one without a name for pods without a node, and those of the two words above.
pub const POD_GC: Controller = Controller {
    name: "pod-garbage-collector",
    component: "",
    workers: 4,
    reads: &[
        Read { gvr: NODES, indexes: &[], wakes: Wakes::Itself },
        Read {
            gvr: PODS,
            indexes: &[
                ("node", objects::by_node),
                (
                    "going",
                    |pod| if objects::is_deleting(pod.root()) { objects::by_node(pod) } else { Vec::new() },
                ),
            ],
            wakes: Wakes::Through { index: "node", map: |_, _, node| vec![ObjectKey::new("", node)] },
        },
        Read {
            gvr: PODS,
            indexes: &[(ENDED, |pod| {
                match objects::has_ended(pod.root()) && !objects::is_deleting(pod.root()) {
                    true => vec![String::new()],
                    false => Vec::new(),
                }
            })],
            wakes: Wakes::Through {
                index: ENDED,
                map: |ctx, _, _| {
                    ctx.wake_after(ObjectKey::new(ENDED, ""), PERIOD);
                    Vec::new()
                },
            },
        },
    ],
    writes: &[
        Rule { group: "", resources: &["pods"], verbs: &["list", "watch", "delete"] },
        Rule { group: "", resources: &["nodes"], verbs: &["get", "list"] },
        Rule { group: "", resources: &["pods/status"], verbs: &["patch"] },
    ],
    every_kind: None,
    reconcile: |ctx, key| -> BoxFuture<'static, _> { Box::pin(async move { reconcile(&ctx, &key).await }) },
    begin: nothing,
};

async fn reconcile(ctx: &Ctx, key: &ObjectKey) -> Result<Action, Error> {
    let pods = ctx.cache(&PODS);
    let node = ctx.cache(&NODES).get("", &key.name);
    let lost = match (&node, &*key.namespace) {
        (_, ENDED) => surplus(pods.by_index(ENDED, ""), ENDED_MAX),
        // What is not bound is nobody's, and what lies on a node that is out of service has lost its kubelet.
        (None, "") if key.name.is_empty() => pods.by_index("going", ""),
        (Some(node), "") => match pods.by_index("going", &key.name) {
            going if !going.is_empty() && is_out_of_service(node.doc().root()) => going,
            _ => Vec::new(),
        },
        (None, "") => {
            if pods.by_index("node", &key.name).into_iter().any(|pod| !is_done(pod.doc().root())) {
                ctx.wake_after(ObjectKey::new(QUARANTINED, &key.name), QUARANTINE);
            }
            Vec::new()
        }
        (None, _) => match ctx.client.resource(NODES).get(&key.name).await {
            Err(err) if err.is_not_found() => pods.by_index("node", &key.name),
            answer => answer.map(|_| Vec::new())?,
        },
        (Some(_), _) => Vec::new(),
    };
    let why = (key.namespace == QUARANTINED).then_some("PodGC: node no longer exists");
    // One that cannot go keeps no other.
    let mut result = Ok(Action::Done);
    for pod in lost {
        if let Err(err) = end(ctx, key, &Seen::new(pod), why).await {
            result = Err(err);
        }
    }
    result
}

fn is_out_of_service(node: Ref<'_>) -> bool {
    !objects::is_ready(node)
        && node.get(k::SPEC).get(k::TAINTS).items().any(|t| t.get(k::KEY).str() == OUT_OF_SERVICE)
}

/// Of the ended pods those that are more than `max`: first evicted ones, then the oldest, then by name.
fn surplus(mut ended: Vec<Arc<Stored>>, max: usize) -> Vec<Arc<Stored>> {
    let count = ended.len().saturating_sub(max);
    if count > 0 {
        ended.sort_by_cached_key(|pod| {
            let doc = pod.doc();
            let kept = doc.get(k::STATUS).get(k::REASON).str() != "Evicted";
            (kept, objects::time(doc.get(k::METADATA).get(k::CREATION_TIMESTAMP)), pod.name().to_owned())
        });
    }
    ended.truncate(count);
    ended
}

/// Whether only finalizers keep the pod, which nobody may hurry.
fn is_done(pod: Ref<'_>) -> bool {
    let grace = pod.get(k::METADATA).get(k::DELETION_GRACE_PERIOD_SECONDS).i64();
    objects::has_ended(pod) && objects::is_deleting(pod) && grace == 0
}

/// Fails the pod if it has not ended (nobody else will say so), then deletes it without grace; `why` is the disruption.
async fn end(ctx: &Ctx, key: &ObjectKey, pod: &Seen, why: Option<&str>) -> Result<(), Error> {
    if is_done(pod.root()) {
        return Ok(());
    }
    let pods = objects::resource(&ctx.client, &PODS, pod.stored.namespace());
    let name = pod.stored.name();
    let uid = objects::uid(pod.root());
    if !objects::has_ended(pod.root()) {
        match pods
            .patch(name, PatchType::Strategic, failed(pod.root(), why, base::time::now()), "status")
            .await
        {
            Ok(written) => ctx.wrote(key, &PODS, &written),
            Err(err) if err.is_not_found() || err.is_conflict() => return Ok(()),
            Err(err) => return Err(err),
        }
    }
    match pods.delete(name, DeleteOptions { grace: Some(0), ..DeleteOptions::uid(uid) }).await {
        Ok(outcome) => ctx.deleted(key, &PODS, &pod.stored, &outcome),
        Err(err) if err.is_not_found() || err.is_conflict() => {}
        Err(err) => return Err(err),
    }
    tracing::info!(pod = %ObjectKey::of(&pod.stored), "force-deleted");
    Ok(())
}

/// What makes the pod a failed one.
fn failed(pod: Ref<'_>, why: Option<&str>, now: Timestamp) -> Doc {
    let generation = pod.get(k::METADATA).get(k::GENERATION).opt_i64();
    let mut patch = doc!({ "metadata": { "uid": objects::uid(pod) }, "status": { "phase": "Failed" } });
    let mut status = patch.edit().at(k::STATUS);
    status.set_opt(k::OBSERVED_GENERATION, generation);
    if let Some(message) = why {
        let before = objects::condition(pod, "DisruptionTarget").filter(|c| c.get(k::STATUS).str() == "True");
        let since =
            before.map_or_else(|| gotime::format(now), |c| c.get(k::LAST_TRANSITION_TIME).str().to_owned());
        let mut condition = doc!({ "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
            "message": message, "lastTransitionTime": since });
        condition.edit().set_opt(k::OBSERVED_GENERATION, generation);
        status.list(k::CONDITIONS).push(condition);
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evicted_pods_go_first_and_then_the_oldest() {
        let pod = |name: &str, day: u8, reason: &str| {
            let pod = doc!({ "metadata": { "name": name, "creationTimestamp": format!("2026-01-0{day}T00:00:00Z") },
                "status": { "phase": "Failed", "reason": reason } });
            Arc::new(Stored::new(pod.to_json().into(), 1, "ns", name))
        };
        let all = || vec![pod("b", 1, ""), pod("new", 3, ""), pod("evicted", 4, "Evicted"), pod("a", 1, "")];
        let names = |max| surplus(all(), max).iter().map(|pod| pod.name().to_owned()).collect::<Vec<_>>();
        assert_eq!(names(4), [""; 0]);
        assert_eq!(names(1), ["evicted", "a", "b"]);
    }
}
