//! Deployment: moves from one ReplicaSet to the next. The plan ([`rollout`]) is pure and makes one kind of step at a time,
//! as upstream does; the fence brings the key back when the step is visible. Upstream: pkg/controller/deployment.

mod rollout;
mod status;

use std::time::Duration;

use apimachinery::call::BoxFuture;
use apimachinery::{Doc, Ref, k};
use client::gvr::{DEPLOYMENTS, PODS, REPLICA_SETS};
use client::{DeleteOptions, Error, ObjectKey, ObjectRef};

use crate::manager::{Action, Controller, Ctx, Read, Rule, Wakes, nothing};
use crate::objects::{self, Claim, Seen};
use rollout::{Step, World};

const API_VERSION: &str = "apps/v1";

/// The declaration.
pub const DEPLOYMENT: Controller = Controller {
    name: "deployment-controller",
    component: "deployment-controller",
    workers: 5,
    reads: &[
        Read { gvr: DEPLOYMENTS, indexes: &[], wakes: Wakes::Itself },
        Read {
            gvr: REPLICA_SETS,
            indexes: &[("controller", objects::by_controller), ("wakes", objects::by_owner_or_labels)],
            wakes: Wakes::Through {
                index: "wakes",
                map: |ctx, namespace, value| {
                    objects::owners_to_wake(ctx, &DEPLOYMENTS, "Deployment", namespace, value)
                },
            },
        },
        Read {
            gvr: PODS,
            indexes: &[("controller", objects::by_controller), ("wakes", objects::by_owner_or_labels)],
            wakes: Wakes::Through { index: "wakes", map: deployment_of_pod },
        },
    ],
    writes: &[
        Rule { group: "apps", resources: &["deployments"], verbs: &["get", "list", "update", "watch"] },
        Rule {
            group: "apps",
            resources: &["deployments/status", "deployments/finalizers"],
            verbs: &["update"],
        },
        Rule {
            group: "apps",
            resources: &["replicasets"],
            verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
        },
        Rule { group: "", resources: &["pods"], verbs: &["get", "list", "update", "watch"] },
    ],
    every_kind: None,
    reconcile: |ctx, key| -> BoxFuture<'static, _> { Box::pin(async move { reconcile(&ctx, &key).await }) },
    begin: nothing,
};

/// With `Recreate`, the last old pod's end lets the new ones begin.
fn deployment_of_pod(ctx: &Ctx, namespace: &str, value: &str) -> Vec<ObjectKey> {
    let Some(set) = value.strip_prefix("=ReplicaSet/") else { return Vec::new() };
    let set = ctx.cache(&REPLICA_SETS).get(namespace, set).map(|s| s.doc());
    let owner = set.as_ref().and_then(|s| objects::controller_of(s.root()));
    let owner = owner.filter(|o| o.get(k::KIND).str() == "Deployment");
    let name = owner.map(|o| o.get(k::NAME).str().to_owned());
    let recreates = |name: &String| {
        let found = ctx.cache(&DEPLOYMENTS).get(namespace, name).map(|s| s.doc());
        found.is_some_and(|d| d.get(k::SPEC).get(k::STRATEGY).get(k::TYPE).str() == "Recreate")
    };
    name.filter(recreates).map(|name| ObjectKey::new(namespace, &name)).into_iter().collect()
}

async fn reconcile(ctx: &Ctx, key: &ObjectKey) -> Result<Action, Error> {
    let Some(stored) = ctx.cache(&DEPLOYMENTS).get_key(key) else { return Ok(Action::Done) };
    let deployment = Seen::new(stored);
    if objects::selector(deployment.root()).is_everything() {
        let about = ObjectRef::of(deployment.root(), API_VERSION, "Deployment");
        let message = "This deployment is selecting all pods. A non-empty selector is required.";
        ctx.events.warning(about, "SelectingAll", message);
        return Ok(Action::Done);
    }
    let claim = Claim {
        ctx,
        key,
        owner: deployment.root(),
        owner_kind: (API_VERSION, "Deployment", DEPLOYMENTS),
        claimed: REPLICA_SETS,
    };
    let sets = claim.all().await?;
    let pods = ctx.cache(&PODS);
    let world = World {
        deployment: deployment.root(),
        sets: sets.iter().map(Seen::root).collect(),
        running: sets.iter().map(|s| running(&pods.by_index("controller", objects::uid(s.root())))).collect(),
        now: base::time::now(),
    };
    let plan = rollout::plan(&world);
    for step in plan.steps {
        execute(ctx, key, &deployment, &sets, step).await?;
    }
    let mut new = deployment.doc.clone();
    new.edit().set(k::STATUS, &plan.status);
    if let Some(revision) = &plan.revision {
        new.edit().at(k::METADATA).at(k::ANNOTATIONS).set(rollout::REVISION, revision);
    }
    if new != deployment.doc {
        let written = objects::resource(&ctx.client, &DEPLOYMENTS, &key.namespace).update_status(new).await?;
        ctx.wrote(key, &DEPLOYMENTS, &written);
    }
    Ok(plan.again.map_or(Action::Done, Action::After))
}

/// Pods that have not ended.
fn running(pods: &[std::sync::Arc<apimachinery::call::Stored>]) -> usize {
    pods.iter().filter(|p| !objects::has_ended(p.doc().root())).count()
}

async fn execute(
    ctx: &Ctx,
    key: &ObjectKey,
    deployment: &Seen,
    sets: &[Seen],
    step: Step,
) -> Result<(), Error> {
    let resource = objects::resource(&ctx.client, &REPLICA_SETS, &key.namespace);
    let about = ObjectRef::of(deployment.root(), API_VERSION, "Deployment");
    match step {
        Step::Create(set) => {
            let (name, replicas) =
                (objects::name(set.root()).to_owned(), set.get(k::SPEC).get(k::REPLICAS).i64());
            match resource.create(set.clone()).await {
                Ok(written) => ctx.wrote(key, &REPLICA_SETS, &written),
                Err(err) if err.is_already_exists() => return collide(ctx, key, deployment, &set).await,
                Err(err) if err.is_namespace_terminating() => return Ok(()),
                Err(err) => {
                    let message = format!("Failed to create new replica set {name:?}: {err}");
                    ctx.events.warning(about, "ReplicaSetCreateError", message);
                    return Err(err);
                }
            }
            if replicas > 0 {
                let message = format!("Scaled up replica set {name} from 0 to {replicas}");
                ctx.events.normal(about, "ScalingReplicaSet", message);
            }
        }
        Step::Update { at, set } => {
            let size = |s: Ref<'_>| s.get(k::SPEC).get(k::REPLICAS).i64();
            let (from, to) = (size(sets[at].root()), size(set.root()));
            ctx.wrote(key, &REPLICA_SETS, &*resource.update(set).await?);
            if from != to {
                let way = if to > from { "up" } else { "down" };
                let message =
                    format!("Scaled {way} replica set {} from {from} to {to}", sets[at].stored.name());
                ctx.events.normal(about, "ScalingReplicaSet", message);
            }
        }
        Step::Delete(at) => {
            let set = &sets[at];
            match resource.delete(set.stored.name(), DeleteOptions::uid(objects::uid(set.root()))).await {
                Ok(outcome) => ctx.deleted(key, &REPLICA_SETS, &set.stored, &outcome),
                Err(err) if err.is_not_found() => {}
                Err(err) => return Err(err),
            }
        }
    }
    Ok(())
}

/// A ReplicaSet of the name exists: ours, not yet seen; or another's, so that the next name must differ.
async fn collide(ctx: &Ctx, key: &ObjectKey, deployment: &Seen, set: &Doc) -> Result<(), Error> {
    let resource = objects::resource(&ctx.client, &REPLICA_SETS, &key.namespace);
    let found = resource.get(objects::name(set.root())).await?;
    let doc = found.doc();
    let ours = objects::controller_of(doc.root())
        .is_some_and(|o| o.get(k::UID).str() == objects::uid(deployment.root()));
    if ours && rollout::same_template(doc.root(), deployment.root()) {
        ctx.wrote(key, &REPLICA_SETS, &found);
        return Ok(());
    }
    let mut new = deployment.doc.clone();
    let count = new.get(k::STATUS).get(k::COLLISION_COUNT).i64() + 1;
    new.edit().at(k::STATUS).set(k::COLLISION_COUNT, count);
    let written = objects::resource(&ctx.client, &DEPLOYMENTS, &key.namespace).update_status(new).await?;
    ctx.wrote(key, &DEPLOYMENTS, &written);
    // The status that this reconcile planned is of before: let it begin anew.
    let resource = apimachinery::GroupResource::new("apps", "replicasets");
    Err(apimachinery::Status::already_exists(&resource, objects::name(set.root())).into())
}

/// A wait for the progress deadline.
fn wait(seconds: i64) -> Duration {
    Duration::from_secs(seconds.max(0).unsigned_abs())
}
