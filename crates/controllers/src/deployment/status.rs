//! A Deployment's status and conditions; pure. Upstream: pkg/controller/deployment/{sync,progress}.go.

use std::time::Duration;

use apimachinery::{Doc, Ref, doc, gotime, k};
use base::time::Timestamp;

use super::rollout::{World, available, size};
use super::wait;
use crate::objects;

const NO_DEADLINE: i64 = i32::MAX as i64;

/// The counts that conditions speak of.
#[derive(Default, PartialEq, Clone, Copy, Debug)]
struct Counts {
    replicas: i64,
    updated: i64,
    ready: i64,
    available: i64,
    unavailable: i64,
    terminating: i64,
}

impl Counts {
    fn of(world: &World<'_>) -> Counts {
        let sum = |key| world.sets.iter().map(|s| s.get(k::STATUS).get(key).i64()).sum::<i64>();
        let wanted: i64 = world.sets.iter().map(|s| size(*s)).sum();
        let all: i64 = world.sets.iter().map(|s| available(*s)).sum();
        Counts {
            replicas: sum(k::REPLICAS),
            updated: world.new_set().map_or(0, |n| world.sets[n].get(k::STATUS).get(k::REPLICAS).i64()),
            ready: sum(k::READY_REPLICAS),
            available: all,
            unavailable: (wanted - all).max(0),
            terminating: sum(k::TERMINATING_REPLICAS),
        }
    }

    fn read(status: Ref<'_>) -> Counts {
        Counts {
            replicas: status.get(k::REPLICAS).i64(),
            updated: status.get(k::UPDATED_REPLICAS).i64(),
            ready: status.get(k::READY_REPLICAS).i64(),
            available: status.get(k::AVAILABLE_REPLICAS).i64(),
            ..Counts::default()
        }
    }

    fn complete(self, wanted: i64) -> bool {
        self.updated == wanted && self.replicas == wanted && self.available == wanted
    }

    fn progressed(self, before: Counts) -> bool {
        self.updated > before.updated
            || self.replicas - self.updated < before.replicas - before.updated
            || self.ready > before.ready
            || self.available > before.available
    }
}

/// Every pod is new and available, and no old one is left.
pub fn is_complete(world: &World<'_>) -> bool {
    Counts::of(world).complete(world.replicas())
}

/// The status, and when to look at it again; `created` is the ReplicaSet that this plan creates.
pub fn status(world: &World<'_>, created: Option<&str>) -> (Doc, Option<Duration>) {
    let counts = Counts::of(world);
    let before = world.deployment.get(k::STATUS);
    let mut out = before.to_doc();
    let mut edit = out.edit();
    let some = |n: i64| (n != 0).then_some(n);
    edit.set(k::OBSERVED_GENERATION, world.deployment.get(k::METADATA).get(k::GENERATION).i64());
    edit.set_opt(k::REPLICAS, some(counts.replicas)).set_opt(k::UPDATED_REPLICAS, some(counts.updated));
    edit.set_opt(k::READY_REPLICAS, some(counts.ready))
        .set_opt(k::AVAILABLE_REPLICAS, some(counts.available));
    edit.set_opt(k::UNAVAILABLE_REPLICAS, some(counts.unavailable))
        .set(k::TERMINATING_REPLICAS, counts.terminating);
    let mut now = Conditions { world, status: out };
    now.available(counts);
    let again = now.progressing(counts, Counts::read(before), created);
    now.failure();
    (now.status, again)
}

struct Conditions<'w, 'a> {
    world: &'w World<'a>,
    status: Doc,
}

impl Conditions<'_, '_> {
    fn before(&self, kind: &str) -> Option<Ref<'_>> {
        objects::condition(self.world.deployment, kind)
    }

    /// Upstream's `SetDeploymentCondition`: nothing changes while status and reason stay.
    fn set(&mut self, kind: &str, value: &str, reason: &str, message: &str) {
        let before = self.before(kind);
        if before.is_some_and(|c| c.get(k::STATUS).str() == value && c.get(k::REASON).str() == reason) {
            return;
        }
        self.replace(kind, value, reason, message);
    }

    fn replace(&mut self, kind: &str, value: &str, reason: &str, message: &str) {
        let at = gotime::format(self.world.now);
        let before = self.before(kind).filter(|c| c.get(k::STATUS).str() == value);
        let since = before.map_or(at.clone(), |c| c.get(k::LAST_TRANSITION_TIME).str().to_owned());
        let condition = doc!({ "type": kind, "status": value, "lastUpdateTime": at, "lastTransitionTime": since,
            "reason": reason, "message": message });
        objects::set_condition(&mut self.status, condition);
    }

    fn available(&mut self, counts: Counts) {
        let least = self.world.replicas() - self.world.bounds().1;
        let least = if self.world.bounds() == (0, 0) { self.world.replicas() } else { least };
        if counts.available >= least {
            self.set("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.");
        } else {
            let message = "Deployment does not have minimum availability.";
            self.set("Available", "False", "MinimumReplicasUnavailable", message);
        }
    }

    fn progressing(&mut self, counts: Counts, before: Counts, created: Option<&str>) -> Option<Duration> {
        let spec = self.world.deployment.get(k::SPEC);
        let deadline = spec.get(k::PROGRESS_DEADLINE_SECONDS).opt_i64().filter(|s| *s != NO_DEADLINE);
        let Some(deadline) = deadline else {
            objects::remove_condition(&mut self.status, "Progressing");
            return None;
        };
        let current = self.before("Progressing");
        let reason = current.map_or("", |c| c.get(k::REASON).str()).to_owned();
        let name = match self.world.new_set() {
            Some(new) => format!("ReplicaSet {:?}", objects::name(self.world.sets[new])),
            None => format!("Deployment {:?}", objects::name(self.world.deployment)),
        };
        if spec.get(k::PAUSED).bool() {
            if reason != "DeploymentPaused" {
                self.set("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused");
            }
            return None;
        }
        if reason == "DeploymentPaused" {
            self.set("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed");
            return Some(wait(deadline + 1));
        }
        if let Some(created) = created {
            self.set(
                "Progressing",
                "True",
                "NewReplicaSetCreated",
                &format!("Created new replica set {created:?}"),
            );
            return Some(wait(deadline + 1));
        }
        // A rollout that was complete stays so while pods come and go.
        if counts.replicas == counts.updated
            && reason == "NewReplicaSetAvailable"
            && self.world.new_set().is_some()
        {
            return None;
        }
        if counts.complete(self.world.replicas()) && self.world.new_set().is_some() {
            let message = format!("{name} has successfully progressed.");
            self.set("Progressing", "True", "NewReplicaSetAvailable", &message);
            return None;
        }
        if counts.progressed(before) {
            self.replace("Progressing", "True", "ReplicaSetUpdated", &format!("{name} is progressing."));
            return Some(wait(deadline + 1));
        }
        if current.is_none() {
            if let Some(new) = self.world.new_set() {
                let message = format!("Found new replica set {:?}", objects::name(self.world.sets[new]));
                self.set("Progressing", "True", "FoundNewReplicaSet", &message);
            }
            return Some(wait(deadline + 1));
        }
        self.deadline(deadline, &name)
    }

    fn deadline(&mut self, deadline: i64, name: &str) -> Option<Duration> {
        let current = self.before("Progressing")?;
        if matches!(current.get(k::REASON).str(), "NewReplicaSetAvailable" | "ProgressDeadlineExceeded") {
            return None;
        }
        let since: Timestamp = objects::time(current.get(k::LAST_UPDATE_TIME)).unwrap_or(self.world.now);
        let until = since.checked_add(wait(deadline)).unwrap_or(Timestamp::MAX);
        if until > self.world.now {
            return Some(objects::until(until, self.world.now) + Duration::from_secs(1));
        }
        let message = format!("{name} has timed out progressing.");
        self.set("Progressing", "False", "ProgressDeadlineExceeded", &message);
        None
    }

    /// The new set's failure, or an old one's.
    fn failure(&mut self) {
        let new = self.world.new_set();
        let others = (0..self.world.sets.len()).filter(|i| Some(*i) != new);
        let found = new
            .into_iter()
            .chain(others)
            .find_map(|i| objects::condition(self.world.sets[i], "ReplicaFailure"));
        match found.map(|c| (c.get(k::STATUS).str(), c.get(k::REASON).str(), c.get(k::MESSAGE).str())) {
            Some((value, reason, message)) => self.set("ReplicaFailure", value, reason, message),
            None => objects::remove_condition(&mut self.status, "ReplicaFailure"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(replicas: i64, available: i64) -> Doc {
        doc!({ "metadata": { "name": "web-x" }, "spec": { "replicas": replicas, "template": { "spec": {} } },
            "status": { "replicas": replicas, "availableReplicas": available, "readyReplicas": available } })
    }

    fn told(deployment: &Doc, sets: &[Doc], second: i64) -> (Doc, String, Option<u64>) {
        let now = Timestamp::from_second(1_767_225_600 + second).expect("a time");
        let sets: Vec<_> = sets.iter().map(Doc::root).collect();
        let world = World { deployment: deployment.root(), running: vec![0; sets.len()], sets, now };
        let (status, again) = status(&world, None);
        let conditions = status.get(k::CONDITIONS).items();
        let text = conditions.map(|c| {
            format!("{}={} {}", c.get(k::TYPE).str(), c.get(k::STATUS).str(), c.get(k::REASON).str())
        });
        let text = text.collect::<Vec<_>>().join("; ");
        (status, text, again.map(|d| d.as_secs()))
    }

    #[test]
    fn conditions_follow_a_rollout_to_its_end_or_its_deadline() {
        let mut d = doc!({ "metadata": { "name": "web" },
            "spec": { "replicas": 2, "progressDeadlineSeconds": 60, "template": { "spec": {} } } });
        let (status, text, again) = told(&d, &[set(2, 0)], 0);
        assert_eq!(text, "Available=False MinimumReplicasUnavailable; Progressing=True ReplicaSetUpdated");
        assert_eq!(again, Some(61));
        d.edit().set(k::STATUS, status);
        let (late, text, _) = told(&d, &[set(2, 0)], 61);
        assert_eq!(
            text,
            "Available=False MinimumReplicasUnavailable; Progressing=False ProgressDeadlineExceeded"
        );
        d.edit().set(k::STATUS, late);
        let (done, text, _) = told(&d, &[set(2, 2)], 70);
        assert_eq!(text, "Available=True MinimumReplicasAvailable; Progressing=True NewReplicaSetAvailable");
        d.edit().set(k::STATUS, done.clone());
        assert_eq!(told(&d, &[set(2, 2)], 80).0, done, "nothing new, nothing written");
    }

    #[test]
    fn a_sets_failure_is_the_deployments() {
        let d = doc!({ "spec": { "replicas": 3, "template": { "spec": {} } } });
        let mut failing = set(3, 2);
        failing.edit().at(k::STATUS).set(
            k::CONDITIONS,
            doc!([{ "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota" }]),
        );
        assert!(told(&d, &[failing], 0).1.ends_with("ReplicaFailure=True FailedCreate"));
    }
}
