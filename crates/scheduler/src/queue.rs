//! Pods that have no node yet: those to be tried now (active), those to be tried soon (backing off), and those that wait
//! for a change that could help them.
//!
//! Events wake a waiting pod when one of the plugins that rejected it says that they could help; after
//! [`WAITING_MAX`] it is tried in any case. While nothing else is to do, backing off after a rejection is cut short;
//! after an error it is not. Upstream: pkg/scheduler/backend/queue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::Doc;
use apimachinery::call::Stored;
use base::time::{Instant, instant, now};
use client::ObjectKey;

use crate::framework::{Event, Member, Pod};
use crate::info::PodInfo;

/// How long a pod waits for an event at most. Upstream: `podMaxInUnschedulablePodsDuration`.
pub const WAITING_MAX: Duration = Duration::from_secs(300);
/// The wait after the first failure, and the longest. Upstream: `podInitialBackoffSeconds`, `podMaxBackoffSeconds`.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// See [`BACKOFF_FIRST`].
pub const BACKOFF_MOST: Duration = Duration::from_secs(10);

/// A pending pod.
#[derive(Clone, Debug)]
pub struct QueuedPod {
    /// What the scheduler reckons with.
    pub info: Arc<PodInfo>,
    /// All of it.
    pub stored: Arc<Stored>,
    /// How often it was rejected since it last changed hands, and how often in a row something failed.
    rejections: u32,
    errors: u32,
    failed_at: Option<Instant>,
    rejected_by: BTreeSet<&'static str>,
}

/// Position among the active: the rank that QueueSort gives, then the order of arrival.
type ActiveAt = ((i64, i128), u64);
/// Position among those that wait for a moment.
type TimedAt = (Instant, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Active(ActiveAt),
    BackingOff(TimedAt),
    Waiting(TimedAt),
    Gated,
}

/// The queue.
pub struct Queue {
    plugins: &'static [Member],
    // Invariant: each entry's place is in exactly the one index that it names.
    pods: BTreeMap<ObjectKey, (QueuedPod, Place)>,
    active: BTreeMap<ActiveAt, ObjectKey>,
    backing_off: BTreeMap<TimedAt, ObjectKey>,
    waiting: BTreeMap<TimedAt, ObjectKey>,
    sequence: u64,
}

// === impl QueuedPod ===

impl QueuedPod {
    fn new(stored: Arc<Stored>, info: Arc<PodInfo>) -> QueuedPod {
        QueuedPod { info, stored, rejections: 0, errors: 0, failed_at: None, rejected_by: BTreeSet::new() }
    }

    /// When it may be tried again.
    fn backoff_ends(&self) -> Option<Instant> {
        let failures = if self.errors > 0 { self.errors } else { self.rejections };
        let doubled = BACKOFF_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16));
        (failures > 0).then_some(self.failed_at? + doubled.min(BACKOFF_MOST))
    }
}

// === impl Queue ===

impl Queue {
    /// An empty queue, ordered and gated by `plugins`.
    pub fn new(plugins: &'static [Member]) -> Queue {
        Queue {
            plugins,
            pods: BTreeMap::new(),
            active: BTreeMap::new(),
            backing_off: BTreeMap::new(),
            waiting: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// A pod under this key.
    pub fn get(&self, key: &ObjectKey) -> Option<&QueuedPod> {
        self.pods.get(key).map(|(pod, _)| pod)
    }

    /// A pending pod has come.
    pub fn add(&mut self, stored: Arc<Stored>, info: Arc<PodInfo>) {
        self.remove(&info.key);
        self.activate(QueuedPod::new(stored, info));
    }

    /// A queued pod has changed; what it asks for, if `is_other`: then it is tried again.
    pub fn update(&mut self, stored: Arc<Stored>, info: Arc<PodInfo>, is_other: bool) {
        let Some((mut pod, place)) = self.take(&info.key) else { return };
        let other_rank = pod.info.priority != info.priority;
        (pod.stored, pod.info) = (stored, info);
        match place {
            Place::Active(_) if other_rank => self.activate(pod),
            Place::Waiting(_) | Place::Gated if is_other => self.retry(pod),
            place => self.put(pod, place),
        }
    }

    /// A pod is no longer pending.
    pub fn remove(&mut self, key: &ObjectKey) -> bool {
        self.take(key).is_some()
    }

    /// Whether [`Queue::pop`] would give a pod.
    pub fn is_ready(&self) -> bool {
        !self.active.is_empty() || self.next_backing_off().is_some()
    }

    /// The pod to try now.
    pub fn pop(&mut self) -> Option<QueuedPod> {
        let key = self.active.values().next().or(self.next_backing_off())?.clone();
        self.take(&key).map(|(pod, _)| pod)
    }

    fn next_backing_off(&self) -> Option<&ObjectKey> {
        self.backing_off.values().find(|key| self.pods[*key].0.errors == 0)
    }

    /// Puts a pod back that these plugins rejected: it waits for an event.
    pub fn rejected(&mut self, mut pod: QueuedPod, by: BTreeSet<&'static str>) {
        pod.rejections += 1;
        pod.errors = 0;
        pod.failed_at = Some(instant());
        pod.rejected_by = by;
        let place = Place::Waiting(self.at(instant() + WAITING_MAX));
        self.put(pod, place);
    }

    /// Puts a pod back for which something failed: it backs off.
    pub fn failed(&mut self, mut pod: QueuedPod) {
        pod.errors += 1;
        pod.failed_at = Some(instant());
        pod.rejected_by.clear();
        self.retry(pod);
    }

    /// Wakes the pods that the event could help.
    pub fn event(&mut self, event: Event<'_>) {
        let woken: Vec<ObjectKey> =
            self.waiting.values().filter(|key| self.is_worth(&self.pods[*key].0, event)).cloned().collect();
        self.retry_all(woken);
    }

    /// Moves what has waited long enough.
    pub fn flush(&mut self) {
        let now = instant();
        let due = |index: &BTreeMap<TimedAt, ObjectKey>| -> Vec<ObjectKey> {
            index.range(..=(now, u64::MAX)).map(|(_, key)| key.clone()).collect()
        };
        let due: Vec<ObjectKey> = due(&self.backing_off).into_iter().chain(due(&self.waiting)).collect();
        self.retry_all(due);
    }

    /// When [`Queue::flush`] next has something to do.
    pub fn next_flush(&self) -> Option<Instant> {
        let first = |index: &BTreeMap<TimedAt, ObjectKey>| index.keys().next().map(|(at, _)| *at);
        first(&self.backing_off).into_iter().chain(first(&self.waiting)).min()
    }

    /// Who was rejected by no plugin (there were no nodes) is helped by anything.
    fn is_worth(&self, pod: &QueuedPod, event: Event<'_>) -> bool {
        if pod.rejected_by.is_empty() {
            return true;
        }
        let doc: Doc = pod.stored.doc();
        let asked = Pod { info: &pod.info, doc: &doc };
        let rejecting = self.plugins.iter().filter(|p| pod.rejected_by.contains(p.name));
        rejecting.filter_map(|p| p.requeue).any(|r| r.is_worth(asked, event))
    }

    fn retry_all(&mut self, keys: Vec<ObjectKey>) {
        for key in keys {
            if let Some((pod, _)) = self.take(&key) {
                self.retry(pod);
            }
        }
    }

    fn retry(&mut self, pod: QueuedPod) {
        match pod.backoff_ends().filter(|at| *at > instant()) {
            Some(at) => {
                let place = Place::BackingOff(self.at(at));
                self.put(pod, place);
            }
            None => self.activate(pod),
        }
    }

    fn activate(&mut self, pod: QueuedPod) {
        let doc = pod.stored.doc();
        let asked = Pod { info: &pod.info, doc: &doc };
        let mut gates = self.plugins.iter().filter_map(|p| p.pre_enqueue);
        if gates.any(|gate| gate.pre_enqueue(asked).is_err()) {
            return self.put(pod, Place::Gated);
        }
        let since = now().as_nanosecond();
        let sort = self.plugins.iter().find_map(|p| p.queue_sort).expect("one plugin sorts the queue");
        self.sequence += 1;
        let place = Place::Active((sort.rank(&pod.info, since), self.sequence));
        self.put(pod, place);
    }

    fn at(&mut self, at: Instant) -> TimedAt {
        self.sequence += 1;
        (at, self.sequence)
    }

    fn put(&mut self, pod: QueuedPod, place: Place) {
        let key = pod.info.key.clone();
        match place {
            Place::Active(at) => self.active.insert(at, key.clone()),
            Place::BackingOff(at) => self.backing_off.insert(at, key.clone()),
            Place::Waiting(at) => self.waiting.insert(at, key.clone()),
            Place::Gated => None,
        };
        let old = self.pods.insert(key, (pod, place));
        assert!(old.is_none(), "a pod is queued once");
    }

    fn take(&mut self, key: &ObjectKey) -> Option<(QueuedPod, Place)> {
        let (pod, place) = self.pods.remove(key)?;
        match place {
            Place::Active(at) => self.active.remove(&at),
            Place::BackingOff(at) => self.backing_off.remove(&at),
            Place::Waiting(at) => self.waiting.remove(&at),
            Place::Gated => None,
        };
        Some((pod, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::info::Node;
    use crate::plugins::PLUGINS;
    use apimachinery::doc;
    use base::time::sleep;

    fn pod(name: &str, priority: i64) -> (Arc<Stored>, Arc<PodInfo>) {
        let doc = doc!({ "metadata": { "name": name, "namespace": "ns", "uid": name },
            "spec": { "priority": priority, "nodeSelector": { "disk": "ssd" } } });
        let json = doc.to_json().into();
        let stored = Stored::new(json, 1, "ns", name);
        (Arc::new(stored), Arc::new(PodInfo::of(&doc)))
    }

    fn queue(pods: &[(&str, i64)]) -> Queue {
        let mut queue = Queue::new(PLUGINS);
        for (name, priority) in pods {
            let (stored, info) = pod(name, *priority);
            queue.add(stored, info);
        }
        queue
    }

    fn name(queue: &mut Queue) -> String {
        queue.pop().map_or("none".into(), |p| p.info.key.name.clone())
    }

    #[test]
    fn the_highest_priority_first_then_the_longest_wait() {
        base::sim::run(1, async {
            let mut queue = queue(&[("b", 0), ("c", 5), ("a", 0)]);
            queue.remove(&ObjectKey::new("ns", "b"));
            sleep(Duration::from_secs(1)).await;
            let (stored, info) = pod("b", 0);
            queue.add(stored, info);
            let order: Vec<_> = (0..4).map(|_| name(&mut queue)).collect();
            assert_eq!(order, ["c", "a", "b", "none"]);
        });
    }

    #[test]
    fn a_rejected_pod_waits_for_an_event_that_helps_it() {
        base::sim::run(1, async {
            let mut queue = queue(&[("a", 0)]);
            let popped = queue.pop().expect("it is active");
            queue.rejected(popped, BTreeSet::from(["NodeAffinity"]));
            let node = |label: &str| Node {
                labels: BTreeMap::from([("disk".to_owned(), label.to_owned())]),
                ..Node::default()
            };
            queue.event(Event::NodeAdded(&node("hdd")));
            assert!(!queue.is_ready(), "the node's label does not fit");
            queue.event(Event::NodeUpdated { old: &node("hdd"), new: &node("ssd") });
            assert_eq!(name(&mut queue), "a", "backing off is cut short when nothing else is to do");
        });
    }

    #[test]
    fn a_rejected_pod_is_tried_again_after_five_minutes() {
        base::sim::run(1, async {
            let mut queue = queue(&[("a", 0)]);
            let popped = queue.pop().expect("it is active");
            queue.rejected(popped, BTreeSet::from(["NodeAffinity"]));
            let at = queue.next_flush().expect("it waits");
            assert_eq!(at - instant(), WAITING_MAX);
            sleep(WAITING_MAX - Duration::from_millis(1)).await;
            queue.flush();
            assert!(!queue.is_ready());
            sleep(Duration::from_millis(1)).await;
            queue.flush();
            assert_eq!(name(&mut queue), "a");
        });
    }

    #[test]
    fn errors_back_off_ever_longer() {
        base::sim::run(1, async {
            let mut queue = queue(&[("a", 0)]);
            let mut waits = Vec::new();
            for _ in 0..6 {
                let popped = queue.pop().expect("it is active");
                queue.failed(popped);
                assert!(!queue.is_ready());
                let at = queue.next_flush().expect("it backs off");
                waits.push((at - instant()).as_secs());
                base::time::sleep_until(at).await;
                queue.flush();
            }
            assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
        });
    }

    #[test]
    fn a_gated_pod_waits_until_it_is_changed() {
        base::sim::run(1, async {
            let mut queue = Queue::new(PLUGINS);
            let gated =
                doc!({ "metadata": { "name": "a" }, "spec": { "schedulingGates": [{ "name": "g" }] } });
            let open = doc!({ "metadata": { "name": "a" }, "spec": {} });
            let stored = |doc: &Doc| Arc::new(Stored::new(doc.to_json().into(), 1, "", "a"));
            queue.add(stored(&gated), Arc::new(PodInfo::of(&gated)));
            assert!(!queue.is_ready() && queue.next_flush().is_none());
            queue.update(stored(&open), Arc::new(PodInfo::of(&open)), true);
            assert_eq!(name(&mut queue), "a");
        });
    }
}
