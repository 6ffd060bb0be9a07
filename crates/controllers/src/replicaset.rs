//! ReplicaSet and ReplicationController: as many pods as the spec says. Where we differ on purpose: the own-write fence in place of
//! expectations, and the pods of a batch are created at once and in order. Upstream: pkg/controller/{replicaset,replication}.

use std::time::Duration;

use apimachinery::schema::views::apps_v1::ReplicaSet;
use apimachinery::{Doc, Gvr, Ref, doc, gotime, k};
use base::time::Timestamp;
use client::cache::IndexFn;
use client::gvr::{PODS, REPLICA_SETS, REPLICATION_CONTROLLERS};
use client::{DeleteOptions, Error, ObjectKey, ObjectRef};
use futures_util::future::join_all;

use crate::manager::{Action, Controller, Ctx, Read, Rule, Wakes, nothing};
use crate::objects::{self, Claim, Seen};

/// Pods created or deleted in one reconcile. Upstream: BurstReplicas.
const BURST_MAX: usize = 500;

/// What differs between the kinds that this controller keeps. Upstream: pkg/controller/replication/conversion.go.
struct Of {
    gvr: Gvr,
    api_version: &'static str,
    kind: &'static str,
    /// Whether its status counts the pods that are on their way out.
    terminating: bool,
}

const SETS: Of = Of { gvr: REPLICA_SETS, api_version: "apps/v1", kind: "ReplicaSet", terminating: true };
const CONTROLLERS: Of =
    Of { gvr: REPLICATION_CONTROLLERS, api_version: "v1", kind: "ReplicationController", terminating: false };
const INDEXES: &[(&str, IndexFn)] =
    &[("controller", objects::by_controller), ("wakes", objects::by_owner_or_labels)];
const PODS_RULE: Rule =
    Rule { group: "", resources: &["pods"], verbs: &["create", "delete", "list", "patch", "watch"] };

/// The declaration for ReplicaSets.
pub const REPLICA_SET: Controller = Controller {
    name: "replicaset-controller",
    component: "replicaset-controller",
    workers: 5,
    reads: &[
        Read { gvr: REPLICA_SETS, indexes: INDEXES, wakes: Wakes::Itself },
        Read {
            gvr: PODS,
            indexes: INDEXES,
            wakes: Wakes::Through {
                index: "wakes",
                map: |ctx, namespace, value| {
                    objects::owners_to_wake(ctx, &SETS.gvr, SETS.kind, namespace, value)
                },
            },
        },
    ],
    writes: &[
        Rule { group: "apps", resources: &["replicasets"], verbs: &["get", "list", "update", "watch"] },
        Rule {
            group: "apps",
            resources: &["replicasets/status", "replicasets/finalizers"],
            verbs: &["update"],
        },
        PODS_RULE,
    ],
    every_kind: None,
    reconcile: |ctx, key| Box::pin(async move { reconcile(&ctx, &key, &SETS).await }),
    begin: nothing,
};

/// The declaration for ReplicationControllers.
pub const REPLICATION_CONTROLLER: Controller = Controller {
    name: "replication-controller",
    component: "replication-controller",
    workers: 5,
    reads: &[
        Read { gvr: REPLICATION_CONTROLLERS, indexes: INDEXES, wakes: Wakes::Itself },
        Read {
            gvr: PODS,
            indexes: INDEXES,
            wakes: Wakes::Through {
                index: "wakes",
                map: |ctx, namespace, value| {
                    objects::owners_to_wake(ctx, &CONTROLLERS.gvr, CONTROLLERS.kind, namespace, value)
                },
            },
        },
    ],
    writes: &[
        Rule {
            group: "",
            resources: &["replicationcontrollers"],
            verbs: &["get", "list", "update", "watch"],
        },
        Rule {
            group: "",
            resources: &["replicationcontrollers/status", "replicationcontrollers/finalizers"],
            verbs: &["update"],
        },
        PODS_RULE,
    ],
    every_kind: None,
    reconcile: |ctx, key| Box::pin(async move { reconcile(&ctx, &key, &CONTROLLERS).await }),
    begin: nothing,
};

async fn reconcile(ctx: &Ctx, key: &ObjectKey, of: &Of) -> Result<Action, Error> {
    let Some(stored) = ctx.cache(&of.gvr).get_key(key) else { return Ok(Action::Done) };
    let set = Seen::new(stored);
    let claim = Claim {
        ctx,
        key,
        owner: set.root(),
        owner_kind: (of.api_version, of.kind, of.gvr.clone()),
        claimed: PODS,
    };
    let pods = claim.all().await?;
    let plan = plan(set.root(), &pods);
    let outcome = execute(&Work { ctx, key, of, set: &set }, &pods, &plan).await;
    let status = status(of, set.root(), &pods, outcome.as_ref().err(), base::time::now());
    if !status.root().same(set.root().get(k::STATUS)) {
        let mut new = set.doc.clone();
        new.edit().set(k::STATUS, status);
        let sets = objects::resource(&ctx.client, &of.gvr, &key.namespace);
        ctx.wrote(key, &of.gvr, &*sets.update_status(new).await?);
    }
    outcome.map_err(|failure| failure.error)?;
    Ok(next_check(set.root(), &pods, base::time::now()).map_or(Action::Done, Action::After))
}

/// What is to be done about the pods.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Nothing,
    Create(usize),
    /// Indexes into the pods.
    Delete(Vec<usize>),
}

/// Why not all was done.
#[derive(Debug)]
struct Failure {
    reason: &'static str,
    error: Error,
}

fn plan(set: Ref<'_>, pods: &[Seen]) -> Plan {
    if objects::is_deleting(set) {
        return Plan::Nothing;
    }
    let wanted = usize::try_from(ReplicaSet(set).spec().replicas().unwrap_or(1)).unwrap_or(0);
    let mut active: Vec<usize> = (0..pods.len()).filter(|i| objects::is_active(pods[*i].root())).collect();
    if active.len() < wanted {
        return Plan::Create((wanted - active.len()).min(BURST_MAX));
    }
    let excess = (active.len() - wanted).min(BURST_MAX);
    if excess == 0 {
        return Plan::Nothing;
    }
    let node = |i: usize| pods[i].root().get(k::SPEC).get(k::NODE_NAME).str();
    let crowded = |i: usize| active.iter().filter(|o| node(**o) == node(i)).count();
    let mut ranked: Vec<_> = active.iter().map(|i| (rank(pods[*i].root(), crowded(*i)), *i)).collect();
    ranked.sort();
    active = ranked.into_iter().take(excess).map(|(_, i)| i).collect();
    Plan::Delete(active)
}

/// Pods with the smallest rank go first. Upstream: `ActivePodsWithRanks`.
fn rank(pod: Ref<'_>, on_its_node: usize) -> impl Ord + use<> {
    let status = pod.get(k::STATUS);
    let assigned = !pod.get(k::SPEC).get(k::NODE_NAME).str().is_empty();
    let phase = match status.get(k::PHASE).str() {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let ready = objects::is_ready(pod);
    let cost: i64 =
        objects::annotation(pod, "controller.kubernetes.io/pod-deletion-cost").parse().unwrap_or(0);
    let crowd = std::cmp::Reverse(if assigned { on_its_node } else { 0 });
    let since = objects::condition(pod, "Ready").and_then(|c| objects::time(c.get(k::LAST_TRANSITION_TIME)));
    let ready_since = std::cmp::Reverse(since.filter(|_| ready));
    let restarts = status.get(k::CONTAINER_STATUSES).items().map(|c| c.get(k::RESTART_COUNT).i64()).max();
    let created = objects::time(pod.get(k::METADATA).get(k::CREATION_TIMESTAMP));
    let age = std::cmp::Reverse(created);
    (
        assigned,
        phase,
        ready,
        cost,
        crowd,
        ready_since,
        std::cmp::Reverse(restarts),
        age,
        objects::name(pod).to_owned(),
    )
}

/// What the steps of one reconcile work on.
struct Work<'a> {
    ctx: &'a Ctx,
    key: &'a ObjectKey,
    of: &'a Of,
    set: &'a Seen,
}

async fn execute(work: &Work<'_>, pods: &[Seen], plan: &Plan) -> Result<(), Failure> {
    match plan {
        Plan::Nothing => Ok(()),
        Plan::Create(count) => {
            let created = work.create(*count).await;
            created.map_err(|error| Failure { reason: "FailedCreate", error })
        }
        Plan::Delete(which) => {
            let gone = join_all(which.iter().map(|i| work.delete(&pods[*i]))).await;
            let failed = gone.into_iter().find_map(Result::err);
            failed.map_or(Ok(()), |error| Err(Failure { reason: "FailedDelete", error }))
        }
    }
}

impl Work<'_> {
    fn about(&self) -> ObjectRef {
        ObjectRef::of(self.set.root(), self.of.api_version, self.of.kind)
    }

    /// Batches of 1, 2, 4, …: when pods cannot be created, few requests fail in vain.
    async fn create(&self, count: usize) -> Result<(), Error> {
        let events = &self.ctx.events;
        let pods = objects::resource(&self.ctx.client, &PODS, &self.key.namespace);
        let (mut left, mut batch) = (count, 1);
        while left > 0 {
            let now = batch.min(left);
            let mut failed = None;
            for outcome in join_all((0..now).map(|_| pods.create(pod_of(self.of, self.set.root())))).await {
                match outcome {
                    Ok(pod) => {
                        self.ctx.wrote(self.key, &PODS, &pod);
                        events.normal(
                            self.about(),
                            "SuccessfulCreate",
                            format!("Created pod: {}", pod.name()),
                        );
                    }
                    // Nothing is to be created here any more.
                    Err(err) if err.is_namespace_terminating() => return Ok(()),
                    Err(err) => {
                        events.warning(self.about(), "FailedCreate", format!("Error creating: {err}"));
                        failed = failed.or(Some(err));
                    }
                }
            }
            if let Some(err) = failed {
                return Err(err);
            }
            left -= now;
            batch *= 2;
        }
        Ok(())
    }

    async fn delete(&self, pod: &Seen) -> Result<(), Error> {
        let (ctx, name) = (self.ctx, pod.stored.name());
        let pods = objects::resource(&ctx.client, &PODS, &self.key.namespace);
        match pods.delete(name, DeleteOptions::uid(objects::uid(pod.root()))).await {
            Ok(outcome) => {
                ctx.deleted(self.key, &PODS, &pod.stored, &outcome);
                ctx.events.normal(self.about(), "SuccessfulDelete", format!("Deleted pod: {name}"));
                Ok(())
            }
            // Gone already, or another pod of that name.
            Err(err) if err.is_not_found() || err.is_conflict() => Ok(()),
            Err(err) => {
                ctx.events.warning(self.about(), "FailedDelete", format!("Error deleting: {err}"));
                Err(err)
            }
        }
    }
}

fn pod_of(of: &Of, set: Ref<'_>) -> Doc {
    let template = set.get(k::SPEC).get(k::TEMPLATE);
    let mut pod = doc!({ "apiVersion": "v1", "kind": "Pod" });
    let mut meta = pod.edit().at(k::METADATA);
    meta.set(k::GENERATE_NAME, format!("{}-", objects::name(set))).set(k::NAMESPACE, objects::namespace(set));
    for field in [k::LABELS, k::ANNOTATIONS, k::FINALIZERS] {
        let value = template.get(k::METADATA).get(field);
        meta.set_opt(field, value.is_set().then_some(value));
    }
    meta.list(k::OWNER_REFERENCES).push(objects::owner_reference(set, of.api_version, of.kind));
    pod.edit().set(k::SPEC, template.get(k::SPEC));
    pod
}

fn status(of: &Of, set: Ref<'_>, pods: &[Seen], failure: Option<&Failure>, now: Timestamp) -> Doc {
    let view = ReplicaSet(set);
    let active: Vec<Ref<'_>> = pods.iter().map(Seen::root).filter(|p| objects::is_active(*p)).collect();
    let count = |test: &dyn Fn(Ref<'_>) -> bool| active.iter().filter(|p| test(**p)).count();
    let template = objects::labels(set.get(k::SPEC).get(k::TEMPLATE));
    let min_ready = view.spec().min_ready_seconds();
    let terminating = pods.iter().filter(|p| is_terminating(p.root())).count();
    let mut out = set.get(k::STATUS).to_doc();
    let mut edit = out.edit();
    let some = |n: usize| (n > 0).then_some(n);
    edit.set(k::REPLICAS, active.len());
    let labeled = count(&|p| template.fields().all(|l| objects::labels(p).get(l.name()).same(l)));
    edit.set_opt(k::FULLY_LABELED_REPLICAS, some(labeled));
    edit.set_opt(k::READY_REPLICAS, some(count(&objects::is_ready)));
    let available = count(&|p| objects::available_at(p, min_ready).is_some_and(|at| at <= now));
    edit.set_opt(k::AVAILABLE_REPLICAS, some(available));
    if of.terminating {
        edit.set(k::TERMINATING_REPLICAS, terminating);
    }
    edit.set(k::OBSERVED_GENERATION, set.get(k::METADATA).get(k::GENERATION).i64());
    let before = objects::condition(set, "ReplicaFailure");
    match failure {
        None => objects::remove_condition(&mut out, "ReplicaFailure"),
        // The first failure's words stand until it is over.
        Some(_) if before.is_some() => {}
        Some(Failure { reason, error }) => objects::set_condition(
            &mut out,
            doc!({ "type": "ReplicaFailure", "status": "True", "lastTransitionTime": gotime::format(now),
                "reason": reason, "message": error.to_string() }),
        ),
    }
    out
}

fn is_terminating(pod: Ref<'_>) -> bool {
    !objects::has_ended(pod) && objects::is_deleting(pod)
}

/// When the next ready pod becomes available.
fn next_check(set: Ref<'_>, pods: &[Seen], now: Timestamp) -> Option<Duration> {
    let min_ready = ReplicaSet(set).spec().min_ready_seconds();
    let active = pods.iter().map(Seen::root).filter(|p| objects::is_active(*p));
    let soon = active.filter_map(|p| objects::available_at(p, min_ready)).filter(|at| *at > now).min();
    soon.map(|at| objects::until(at, now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::call::Stored;
    use std::sync::Arc;

    fn pod(name: &str, extra: Doc) -> Seen {
        let mut doc = extra;
        doc.edit().at(k::METADATA).set(k::NAME, name).set("creationTimestamp", "2026-01-01T00:00:00Z");
        let json = doc.to_json().into();
        Seen::new(Arc::new(Stored::new(json, 1, "ns", name)))
    }

    fn set(replicas: i64) -> Doc {
        doc!({ "metadata": { "name": "web", "namespace": "ns", "uid": "u", "generation": 2 },
            "spec": { "replicas": replicas, "template": { "metadata": { "labels": { "a": "b" } }, "spec": {} } } })
    }

    fn running(node: &str, ready: &str) -> Doc {
        doc!({ "spec": { "nodeName": node }, "metadata": { "labels": { "a": "b" } }, "status": { "phase": "Running",
            "conditions": [{ "type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:05Z" }] } })
    }

    #[test]
    fn plans_by_the_number_of_active_pods() {
        let pods = [
            pod("a", running("n1", "True")),
            pod("b", running("n1", "True")),
            pod("c", running("n2", "True")),
            pod("d", doc!({ "status": { "phase": "Failed" } })),
            pod("e", doc!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } })),
        ];
        assert_eq!(plan(set(5).root(), &pods), Plan::Create(2));
        assert_eq!(plan(set(3).root(), &pods), Plan::Nothing);
        assert_eq!(plan(set(2).root(), &pods), Plan::Delete(vec![0]), "n1 holds two");
        let mut gone = set(9);
        gone.edit().at(k::METADATA).set(k::DELETION_TIMESTAMP, "2026-01-01T00:00:00Z");
        assert_eq!(plan(gone.root(), &pods), Plan::Nothing);
    }

    #[test]
    fn the_least_useful_pods_go_first() {
        let pods = [
            pod("ready", running("n1", "True")),
            pod("unready", running("n2", "False")),
            pod("pending", doc!({ "spec": { "nodeName": "n3" }, "status": { "phase": "Pending" } })),
            pod("unassigned", doc!({ "status": { "phase": "Pending" } })),
        ];
        assert_eq!(plan(set(0).root(), &pods), Plan::Delete(vec![3, 2, 1, 0]));
    }

    #[test]
    fn the_status_counts_and_keeps_a_failures_first_words() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().expect("a time");
        let pods = [pod("a", running("n", "True")), pod("b", running("n", "False"))];
        let quota = apimachinery::Status::forbidden(
            &apimachinery::GroupResource::new("", "pods"),
            "web-",
            "exceeded quota: compute-quota",
        );
        let failure = Failure { reason: "FailedCreate", error: quota.into() };
        let mut object = set(3);
        let made = status(&SETS, object.root(), &pods, Some(&failure), now);
        assert_eq!(
            made,
            doc!({ "replicas": 2, "fullyLabeledReplicas": 2, "readyReplicas": 1, "availableReplicas": 1,
                "terminatingReplicas": 0, "observedGeneration": 2, "conditions": [{ "type": "ReplicaFailure",
                "status": "True", "lastTransitionTime": "2026-01-01T00:01:00Z", "reason": "FailedCreate",
                "message": "pods \"web-\" is forbidden: exceeded quota: compute-quota" }] })
        );
        object.edit().set(k::STATUS, made);
        let over = status(&SETS, object.root(), &pods, None, now);
        assert!(!over.get(k::CONDITIONS).exists());
    }
}
