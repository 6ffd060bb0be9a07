//! A queue of keys to reconcile: a key waits at most once, is worked on by one worker at a time, and comes back after
//! failures ever later. Upstream: client-go util/workqueue, with its default rate limiter per item.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base::time::Instant;
use tokio::sync::Notify;

/// The wait after a key's first failure.
pub const FIRST_WAIT: Duration = Duration::from_millis(5);
/// The longest wait after failures.
pub const LONGEST_WAIT: Duration = Duration::from_secs(1000);

/// A queue of keys. Clones share it.
pub struct WorkQueue<K> {
    shared: Arc<Shared<K>>,
}

struct Shared<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    // Invariant: everything in `ready` is in `dirty`; what is in `processing` and `dirty` is not in `ready`.
    dirty: BTreeSet<K>,
    processing: BTreeSet<K>,
    delayed: BTreeMap<(Instant, u64), K>,
    delayed_at: BTreeMap<K, (Instant, u64)>,
    sequence: u64,
    failures: BTreeMap<K, u32>,
    closed: bool,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        WorkQueue { shared: self.shared.clone() }
    }
}

impl<K: Ord + Clone> Default for WorkQueue<K> {
    fn default() -> Self {
        WorkQueue::new()
    }
}

impl<K: Ord + Clone> WorkQueue<K> {
    /// An empty queue.
    pub fn new() -> WorkQueue<K> {
        let state = State {
            ready: VecDeque::new(),
            dirty: BTreeSet::new(),
            processing: BTreeSet::new(),
            delayed: BTreeMap::new(),
            delayed_at: BTreeMap::new(),
            sequence: 0,
            failures: BTreeMap::new(),
            closed: false,
        };
        WorkQueue { shared: Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }) }
    }

    /// Asks for `key` to be worked on. While it is being worked on, it comes again afterwards.
    pub fn add(&self, key: K) {
        if self.lock().add(key) {
            self.shared.changed.notify_one();
        }
    }

    /// Adds `key` once `wait` has passed; of several such waits the shortest counts.
    pub fn add_after(&self, key: K, wait: Duration) {
        if wait.is_zero() {
            return self.add(key);
        }
        let mut state = self.lock();
        let at = base::time::instant() + wait;
        match state.delayed_at.get(&key).copied() {
            Some(earlier) if earlier.0 <= at => return,
            Some(later) => {
                state.delayed.remove(&later);
            }
            None => {}
        }
        state.sequence += 1;
        let place = (at, state.sequence);
        state.delayed.insert(place, key.clone());
        state.delayed_at.insert(key, place);
        drop(state);
        self.shared.changed.notify_one();
    }

    /// Adds `key` after a wait that doubles with each failure since [`WorkQueue::forget`]. A failure while an
    /// earlier retry is still to come does not count: many changes of what a key reads must not make it wait long.
    /// (Upstream counts it.)
    pub fn add_rate_limited(&self, key: K) {
        let wait = {
            let mut state = self.lock();
            let failed = state.failures.get(&key).copied().unwrap_or(0);
            let wait =
                FIRST_WAIT.saturating_mul(1u32.checked_shl(failed).unwrap_or(u32::MAX)).min(LONGEST_WAIT);
            let next = base::time::instant() + wait;
            if failed > 0 && state.delayed_at.get(&key).is_some_and(|(at, _)| *at <= next) {
                return;
            }
            state.failures.insert(key.clone(), (failed + 1).min(31));
            wait
        };
        self.add_after(key, wait);
    }

    /// Begins the key's waits anew, after a success.
    pub fn forget(&self, key: &K) {
        self.lock().failures.remove(key);
    }

    /// How often the key failed since it was last forgotten.
    pub fn failures(&self, key: &K) -> u32 {
        self.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// The next key, which is the caller's until [`WorkQueue::done`]; `None` once the queue is closed.
    pub async fn get(&self) -> Option<K> {
        loop {
            let deadline = {
                let mut state = self.lock();
                if state.closed {
                    self.shared.changed.notify_one();
                    return None;
                }
                state.release(base::time::instant());
                if let Some(key) = state.take() {
                    // Whoever waits next looks after what is left, be it ready or delayed.
                    if !state.ready.is_empty() || !state.delayed.is_empty() {
                        self.shared.changed.notify_one();
                    }
                    return Some(key);
                }
                state.delayed.keys().next().map(|(at, _)| *at)
            };
            match deadline {
                None => self.shared.changed.notified().await,
                Some(at) => {
                    let wait = at.saturating_duration_since(base::time::instant());
                    // Either way the queue is looked at again.
                    base::time::timeout(wait, self.shared.changed.notified()).await.ok();
                }
            }
        }
    }

    /// Gives the key back; if it was added meanwhile, it is ready again.
    pub fn done(&self, key: &K) {
        let mut state = self.lock();
        state.processing.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.shared.changed.notify_one();
        }
    }

    /// Lets all workers end.
    pub fn close(&self) {
        self.lock().closed = true;
        self.shared.changed.notify_waiters();
        self.shared.changed.notify_one();
    }

    /// How many keys are ready.
    pub fn len(&self) -> usize {
        self.lock().ready.len()
    }

    /// Whether no key is ready.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.shared.state.lock().expect("no code panics while it holds the queue")
    }
}

impl<K: Ord + Clone> State<K> {
    /// Whether a worker is to be woken.
    fn add(&mut self, key: K) -> bool {
        if self.closed || !self.dirty.insert(key.clone()) || self.processing.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    /// Moves what has waited long enough.
    fn release(&mut self, now: Instant) {
        while let Some((&place, _)) = self.delayed.iter().next().filter(|((at, _), _)| *at <= now) {
            if let Some(key) = self.delayed.remove(&place) {
                self.delayed_at.remove(&key);
                self.add(key);
            }
        }
    }

    fn take(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.processing.insert(key.clone());
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_waits_once_and_comes_again_if_added_during_work() {
        base::sim::run(1, async {
            let queue = WorkQueue::new();
            queue.add("a");
            queue.add("a");
            queue.add("b");
            assert_eq!((queue.len(), queue.get().await), (2, Some("a")));
            queue.add("a");
            assert_eq!(queue.len(), 1, "a is being worked on");
            queue.done(&"a");
            assert_eq!((queue.get().await, queue.get().await), (Some("b"), Some("a")));
        });
    }

    #[test]
    fn failures_double_the_wait_until_forgotten() {
        base::sim::run(1, async {
            let queue = WorkQueue::new();
            let mut waits = Vec::new();
            for round in 0..20 {
                let start = base::time::instant();
                queue.add_rate_limited("k");
                assert_eq!(queue.get().await, Some("k"));
                queue.done(&"k");
                waits.push(start.elapsed().as_millis());
                if round == 18 {
                    queue.forget(&"k");
                }
            }
            assert_eq!(waits[..4], [5, 10, 20, 40]);
            assert_eq!((waits[18], waits[19]), (1_000_000, 5));
        });
    }

    #[test]
    fn failures_between_retries_do_not_lengthen_the_wait() {
        base::sim::run(1, async {
            let queue = WorkQueue::new();
            let start = base::time::instant();
            queue.add_rate_limited("k");
            for _ in 0..10 {
                queue.add("k");
                assert_eq!(queue.get().await, Some("k"));
                queue.add_rate_limited("k");
                queue.done(&"k");
            }
            assert_eq!((queue.get().await, queue.failures(&"k")), (Some("k"), 1));
            assert_eq!(start.elapsed().as_millis(), 5);
        });
    }

    #[test]
    fn the_shortest_delay_counts_and_workers_share() {
        base::sim::run(1, async {
            let queue = WorkQueue::new();
            let start = base::time::instant();
            queue.add_after("slow", Duration::from_secs(100));
            let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel();
            let workers: Vec<_> = (0..2)
                .map(|_| {
                    let (queue, tx) = (queue.clone(), tx.clone());
                    base::task::spawn(async move {
                        while let Some(key) = queue.get().await {
                            tx.send((key, start.elapsed().as_secs())).expect("the test reads all");
                            queue.done(&key);
                        }
                    })
                })
                .collect();
            base::time::sleep(Duration::from_secs(1)).await;
            queue.add_after("slow", Duration::from_secs(200));
            queue.add_after("slow", Duration::from_secs(9));
            queue.add_after("other", Duration::from_secs(4));
            assert_eq!(rx.recv().await, Some(("other", 5)));
            assert_eq!(rx.recv().await, Some(("slow", 10)));
            queue.close();
            for worker in workers {
                worker.await;
            }
        });
    }
}
