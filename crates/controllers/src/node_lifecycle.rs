//! Node lifecycle: a Node whose Lease is stale becomes Unknown; conditions become taints; pods leave nodes whose NoExecute
//! taints they do not tolerate. Upstream: pkg/controller/nodelifecycle, pkg/controller/tainteviction.

use std::time::Duration;

use apimachinery::call::BoxFuture;
use apimachinery::{Doc, Ref, doc, gotime, k};
use base::time::Timestamp;
use client::gvr::{LEASES, NODES, PODS};
use client::{DeleteOptions, Error, ObjectKey, ObjectRef};

use crate::manager::{Action, Controller, Ctx, Read, Rule, Wakes, nothing};
use crate::objects::{self, Seen};

/// How old a Lease may be. Upstream: `--node-monitor-grace-period`.
const GRACE: Duration = Duration::from_secs(50);
/// What admission writes into pods that say nothing of the two taints below; pods without it are treated as if they had it.
const DEFAULT_TOLERATION_SECONDS: i64 = 300;
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Conditions whose loss of contact is told, with the status at which each taints and the taint.
const PRESSURES: [(&str, &str, &str); 4] = [
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// The declaration. Keys are nodes.
pub const NODE_LIFECYCLE: Controller = Controller {
    name: "node-controller",
    component: "node-controller",
    workers: 4,
    reads: &[
        Read { gvr: NODES, indexes: &[], wakes: Wakes::Itself },
        Read {
            gvr: LEASES,
            indexes: &[("name", objects::by_name)],
            wakes: Wakes::Through {
                index: "name",
                map: |_, namespace, name| match namespace {
                    LEASE_NAMESPACE => vec![ObjectKey::new("", name)],
                    _ => Vec::new(),
                },
            },
        },
        Read {
            gvr: PODS,
            indexes: &[("node", objects::by_node)],
            wakes: Wakes::Through {
                index: "node",
                map: |_, _, node| if node.is_empty() { Vec::new() } else { vec![ObjectKey::new("", node)] },
            },
        },
    ],
    writes: &[
        Rule { group: "", resources: &["nodes"], verbs: &["get", "list", "update", "patch"] },
        Rule { group: "", resources: &["nodes/status", "pods/status"], verbs: &["update", "patch"] },
        Rule { group: "", resources: &["pods"], verbs: &["list", "delete", "get"] },
    ],
    every_kind: None,
    reconcile: |ctx, key| -> BoxFuture<'static, _> { Box::pin(async move { reconcile(&ctx, &key).await }) },
    begin: nothing,
};

async fn reconcile(ctx: &Ctx, key: &ObjectKey) -> Result<Action, Error> {
    let Some(stored) = ctx.cache(&NODES).get_key(key) else { return Ok(Action::Done) };
    let mut node = stored.doc();
    let now = base::time::now();
    let lease = ctx.cache(&LEASES).get(LEASE_NAMESPACE, &key.name).map(|s| s.doc());
    let heard = last_heard(node.root(), lease.as_ref()).max(ctx.started);
    let deadline = heard.checked_add(GRACE).unwrap_or(Timestamp::MAX);
    if deadline <= now && status_of(node.root(), "Ready") != "Unknown" {
        let conditions = unknown(node.root(), now);
        node.edit().at(k::STATUS).set(k::CONDITIONS, conditions);
        let about = ObjectRef::of(node.root(), "v1", "Node");
        ctx.events.normal(about, "NodeNotReady", format!("Node {} status is now: NodeNotReady", key.name));
        let written = ctx.client.resource(NODES).update_status(node).await?;
        ctx.wrote(key, &NODES, &written);
        node = written.doc();
    }
    let taints = taints(node.root(), now);
    let before = node.get(k::SPEC).get(k::TAINTS);
    let same = taints.root().same(before) || (taints.root().is_empty() && before.is_empty());
    if !same {
        node.edit().at(k::SPEC).set(k::TAINTS, taints);
        let written = ctx.client.resource(NODES).update(node).await?;
        ctx.wrote(key, &NODES, &written);
        node = written.doc();
    }
    let mut next = (deadline > now).then_some(deadline);
    for pod in ctx.cache(&PODS).by_index("node", &key.name) {
        let pod = Seen::new(pod);
        if status_of(node.root(), "Ready") != "True" {
            mark_not_ready(ctx, key, &pod, now).await?;
        }
        let Some(at) = evict_at(pod.root(), node.get(k::SPEC).get(k::TAINTS), now) else { continue };
        if at <= now {
            evict(ctx, key, &pod).await?;
        } else {
            next = Some(next.map_or(at, |n| n.min(at)));
        }
    }
    Ok(next.map_or(Action::Done, |at| Action::After(objects::until(at, now))))
}

fn status_of<'a>(node: Ref<'a>, condition: &str) -> &'a str {
    objects::condition(node, condition).map_or("", |c| c.get(k::STATUS).str())
}

fn last_heard(node: Ref<'_>, lease: Option<&Doc>) -> Timestamp {
    let renewed = lease.and_then(|l| gotime::parse(l.get(k::SPEC).get(k::RENEW_TIME).str()).ok());
    let posted = objects::condition(node, "Ready").and_then(|c| objects::time(c.get(k::LAST_HEARTBEAT_TIME)));
    let created = objects::time(node.get(k::METADATA).get(k::CREATION_TIMESTAMP));
    [renewed, posted, created].into_iter().flatten().max().unwrap_or(Timestamp::MIN)
}

fn unknown(node: Ref<'_>, now: Timestamp) -> Doc {
    let mut out = doc!({});
    out.edit().set(k::CONDITIONS, node.get(k::STATUS).get(k::CONDITIONS));
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        let before = objects::condition(node, kind);
        let (reason, message) = match before {
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
        };
        let at = gotime::format(now);
        let heartbeat = before.map_or(at.as_str(), |c| c.get(k::LAST_HEARTBEAT_TIME).str());
        let condition = doc!({ "type": kind, "status": "Unknown", "lastHeartbeatTime": heartbeat,
            "lastTransitionTime": at, "reason": reason, "message": message });
        objects::set_condition(&mut out, condition);
    }
    out.get(k::CONDITIONS).to_doc()
}

/// The node's taints: foreign ones as they are, ours as its conditions say. Those that evict say since when, so that
/// pods' seconds of toleration have a beginning; upstream remembers it in the process.
fn taints(node: Ref<'_>, now: Timestamp) -> Doc {
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    match status_of(node, "Ready") {
        "True" => {}
        "False" => wanted.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
        "Unknown" => wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
        // Not posted yet: no pod may come, none is there.
        _ => wanted.push((NOT_READY, "NoSchedule")),
    }
    let pressed = PRESSURES.iter().filter(|(kind, at, _)| status_of(node, kind) == *at);
    wanted.extend(pressed.map(|(_, _, taint)| (*taint, "NoSchedule")));
    if node.get(k::SPEC).get(k::UNSCHEDULABLE).bool() {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let ours = |key: &str| {
        [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key)
            || PRESSURES.iter().any(|(_, _, taint)| *taint == key)
    };
    let mut out = Doc::array();
    for taint in node.get(k::SPEC).get(k::TAINTS).items() {
        let is = |w: &(&str, &str)| *w == (taint.get(k::KEY).str(), taint.get(k::EFFECT).str());
        match wanted.iter().position(is) {
            Some(at) => {
                wanted.remove(at);
                out.edit().push(taint);
            }
            None if ours(taint.get(k::KEY).str()) => {}
            None => {
                let mut taint = taint.to_doc();
                if taint.get(k::EFFECT).str() == "NoExecute" {
                    taint.edit().set_default(k::TIME_ADDED, gotime::format(now));
                }
                out.edit().push(taint);
            }
        }
    }
    for (key, effect) in wanted {
        out.edit().push(doc!({ "key": key, "effect": effect, "timeAdded": gotime::format(now) }));
    }
    out
}

/// When the pod must leave for the sake of the node's NoExecute taints; `None` when it may stay.
fn evict_at(pod: Ref<'_>, taints: Ref<'_>, now: Timestamp) -> Option<Timestamp> {
    if !objects::is_active(pod) {
        return None;
    }
    taints
        .items()
        .filter(|t| t.get(k::EFFECT).str() == "NoExecute")
        .filter_map(|taint| {
            let since = objects::time(taint.get(k::TIME_ADDED)).unwrap_or(now);
            let wait = tolerated(pod, taint)?;
            since.checked_add(Duration::from_secs(wait.unsigned_abs())).ok()
        })
        .min()
}

/// For how many seconds the pod tolerates the taint; `None` is for ever.
fn tolerated(pod: Ref<'_>, taint: Ref<'_>) -> Option<i64> {
    let fits = |t: &Ref<'_>| {
        let (key, effect) = (t.get(k::KEY).str(), t.get(k::EFFECT).str());
        (effect.is_empty() || effect == taint.get(k::EFFECT).str())
            && (key.is_empty() || key == taint.get(k::KEY).str())
            && match t.get(k::OPERATOR).str() {
                "Exists" => true,
                _ => t.get(k::VALUE).str() == taint.get(k::VALUE).str(),
            }
    };
    let mut fitting = pod.get(k::SPEC).get(k::TOLERATIONS).items().filter(fits).peekable();
    if fitting.peek().is_none() {
        let known = [NOT_READY, UNREACHABLE].contains(&taint.get(k::KEY).str());
        return Some(if known { DEFAULT_TOLERATION_SECONDS } else { 0 });
    }
    fitting.filter_map(|t| t.get(k::TOLERATION_SECONDS).opt_i64()).map(|s| s.max(0)).min()
}

async fn mark_not_ready(ctx: &Ctx, key: &ObjectKey, pod: &Seen, now: Timestamp) -> Result<(), Error> {
    if !objects::is_ready(pod.root()) {
        return Ok(());
    }
    let mut new = pod.doc.clone();
    let mut status = new.get(k::STATUS).to_doc();
    let mut condition = objects::condition(pod.root(), "Ready").map_or_else(Doc::object, Ref::to_doc);
    condition.edit().set(k::STATUS, "False").set(k::LAST_TRANSITION_TIME, gotime::format(now));
    objects::set_condition(&mut status, condition);
    new.edit().set(k::STATUS, status);
    let pods = objects::resource(&ctx.client, &PODS, pod.stored.namespace());
    match pods.update_status(new).await {
        Ok(written) => {
            ctx.wrote(key, &PODS, &written);
            Ok(())
        }
        Err(err) if err.is_not_found() => Ok(()),
        Err(err) => Err(err),
    }
}

async fn evict(ctx: &Ctx, key: &ObjectKey, pod: &Seen) -> Result<(), Error> {
    let message = format!("Marking for deletion Pod {}/{}", pod.stored.namespace(), pod.stored.name());
    ctx.events.normal(ObjectRef::of(pod.root(), "v1", "Pod"), "TaintManagerEviction", message);
    let pods = objects::resource(&ctx.client, &PODS, pod.stored.namespace());
    match pods.delete(pod.stored.name(), DeleteOptions::uid(objects::uid(pod.root()))).await {
        Ok(outcome) => ctx.deleted(key, &PODS, &pod.stored, &outcome),
        Err(err) if err.is_not_found() || err.is_conflict() => {}
        Err(err) => return Err(err),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_become_taints_and_foreign_taints_stay() {
        let now = "2026-01-01T00:00:00Z".parse().expect("a time");
        let node = |ready: &str| {
            doc!({ "spec": { "unschedulable": true, "taints": [
                { "key": "mine", "effect": "NoSchedule" }, { "key": NOT_READY, "effect": "NoSchedule" }] },
                "status": { "conditions": [{ "type": "Ready", "status": ready }] } })
        };
        let keys = |ready: &str| {
            let all = taints(node(ready).root(), now);
            all.root()
                .items()
                .map(|t| format!("{}:{}", t.get(k::KEY).str(), t.get(k::EFFECT).str()))
                .collect::<Vec<_>>()
        };
        let cordoned = "node.kubernetes.io/unschedulable:NoSchedule";
        assert_eq!(keys("True"), ["mine:NoSchedule", cordoned]);
        assert_eq!(
            keys("False"),
            [
                "mine:NoSchedule",
                "node.kubernetes.io/not-ready:NoSchedule",
                "node.kubernetes.io/not-ready:NoExecute",
                cordoned
            ]
        );
    }

    #[test]
    fn foreign_taints_that_evict_say_since_when() {
        let (now, later) = ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z");
        let node = |taints: Doc| {
            let mut node = doc!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
            node.edit().at(k::SPEC).set(k::TAINTS, taints);
            node
        };
        let bare = doc!([{ "key": "a", "effect": "NoExecute" }, { "key": "b", "effect": "NoSchedule" }]);
        let first = taints(node(bare).root(), now.parse().expect("a time"));
        let wanted = doc!([{ "key": "a", "effect": "NoExecute", "timeAdded": now }, { "key": "b", "effect": "NoSchedule" }]);
        assert_eq!(first, wanted);
        assert_eq!(taints(node(first).root(), later.parse().expect("a time")), wanted, "once is enough");
    }

    #[test]
    fn pods_leave_when_they_no_longer_tolerate_the_taint() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let taint =
            |key: &str| doc!([{ "key": key, "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z" }]);
        let bare = doc!({});
        let seconds = |pod: &Doc, key: &str| {
            evict_at(pod.root(), taint(key).root(), now).map(|at| at.duration_since(now).as_secs())
        };
        assert_eq!(seconds(&bare, UNREACHABLE), Some(300));
        assert_eq!(seconds(&bare, "other"), Some(0));
        let tolerant = doc!({ "spec": { "tolerations": [{ "operator": "Exists" }] } });
        assert_eq!(seconds(&tolerant, UNREACHABLE), None);
        let brief = doc!({ "spec": { "tolerations": [{ "key": UNREACHABLE, "operator": "Exists", "tolerationSeconds": 9 }] } });
        assert_eq!(seconds(&brief, UNREACHABLE), Some(9));
    }
}
