//! The changes that wait for the watchers of one bucket: one log for all of them, in which each has its place, so that a
//! change costs the same however many watch. Putting one in and waking the watchers are two steps: where very many watch
//! the same objects, waking all of them for every change would be most of the work, and little of it would be theirs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use super::Change;

/// How many changes may wait for one watcher before it is cut off.
const PENDING_MAX: usize = 4096;
/// Up to so many watchers, what all have taken is forgotten at once; of more, when so many changes have gathered.
const FEW: usize = 8;
const GATHERED: usize = 64;

#[derive(Default)]
struct Log {
    changes: VecDeque<Arc<Change>>,
    /// The number of the first of them.
    first: u64,
    /// By a number of their own. Invariant: no place is before `first` or behind the last change.
    watchers: BTreeMap<u64, Place>,
    /// Who waits, in the order in which they began to.
    waiting: Vec<u64>,
    registered: u64,
    /// Nothing more will be put in.
    ended: bool,
}

struct Place {
    /// The number of the change that is next.
    next: u64,
    waiting: Option<Waker>,
}

type Shared = Arc<Mutex<Log>>;

fn lock(shared: &Shared) -> MutexGuard<'_, Log> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where changes are put in. Dropping it ends the watches once they have taken what is there.
#[derive(Default)]
pub struct Sender(Shared);

/// Where a watcher takes changes out.
pub struct Receiver {
    log: Shared,
    number: u64,
}

impl Log {
    fn end(&self) -> u64 {
        self.first + self.changes.len() as u64
    }

    /// Forgets what all have taken.
    fn trim(&mut self) {
        let least = self.watchers.values().map(|place| place.next).min().unwrap_or(self.end());
        let taken = usize::try_from(least - self.first).unwrap_or(usize::MAX);
        self.changes.drain(..taken.min(self.changes.len()));
        self.first = least;
    }

    /// Cuts off whoever has left too much undone.
    fn cut_off(&mut self) {
        let least = self.end().saturating_sub(PENDING_MAX as u64);
        self.watchers.retain(|_, place| place.next >= least);
        self.trim();
    }
}

impl Sender {
    /// One more watcher, of the changes from now on.
    pub fn watcher(&self) -> Receiver {
        let mut log = lock(&self.0);
        log.registered += 1;
        let (number, next) = (log.registered, log.end());
        log.watchers.insert(number, Place { next, waiting: None });
        Receiver { log: self.0.clone(), number }
    }

    /// How many watchers there are that have neither gone away nor been cut off.
    pub fn watchers(&self) -> usize {
        lock(&self.0).watchers.len()
    }

    /// Puts a change in. Whoever waits is given to `wake` and is to be woken, soon. Who is too slow to keep up is cut off.
    pub fn put(&self, change: &Arc<Change>, mut wake: impl FnMut(Waker)) {
        let mut log = lock(&self.0);
        log.changes.push_back(change.clone());
        if log.changes.len() > PENDING_MAX {
            log.cut_off();
        } else if log.changes.len().is_multiple_of(GATHERED) {
            log.trim();
        }
        for number in std::mem::take(&mut log.waiting) {
            log.watchers
                .get_mut(&number)
                .and_then(|place| place.waiting.take())
                .into_iter()
                .for_each(&mut wake);
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let gone: Vec<Waker> = {
            let mut log = lock(&self.0);
            log.ended = true;
            log.watchers.values_mut().filter_map(|place| place.waiting.take()).collect()
        };
        gone.into_iter().for_each(Waker::wake);
    }
}

impl Receiver {
    /// The next change; `None` at the end. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Arc<Change>> {
        std::future::poll_fn(|cx| {
            let log = &mut *lock(&self.log);
            let Some(place) = log.watchers.get_mut(&self.number) else { return Poll::Ready(None) };
            if place.next < log.first + log.changes.len() as u64 {
                let at = (place.next - log.first) as usize;
                place.next += 1;
                let change = log.changes[at].clone();
                if log.watchers.len() <= FEW {
                    log.trim();
                }
                return Poll::Ready(Some(change));
            }
            if log.ended {
                return Poll::Ready(None);
            }
            if place.waiting.replace(cx.waker().clone()).is_none() {
                log.waiting.push(self.number);
            }
            Poll::Pending
        })
        .await
    }

    /// Gives all changes that are there already to `take`, while nothing is put in.
    pub fn at_hand(&mut self, mut take: impl FnMut(&Change)) {
        let log = &mut *lock(&self.log);
        let Some(place) = log.watchers.get_mut(&self.number) else { return };
        let at = (place.next - log.first) as usize;
        place.next = log.first + log.changes.len() as u64;
        log.changes.range(at..).for_each(|change| take(change));
        if log.watchers.len() <= FEW {
            log.trim();
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let mut log = lock(&self.log);
        log.watchers.remove(&self.number);
        if log.watchers.len() <= FEW {
            log.trim();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(sender: &Sender, revision: u64) -> Vec<Waker> {
        let mut woken = Vec::new();
        sender.put(&Change::of(revision), |waker| woken.push(waker));
        woken
    }

    fn at_hand(receiver: &mut Receiver) -> Vec<u64> {
        let mut revisions = Vec::new();
        receiver.at_hand(|change| revisions.push(change.revision));
        revisions
    }

    #[test]
    fn what_waits_is_taken_in_order_and_before_the_end() {
        base::sim::run(1, async {
            let sender = Sender::default();
            let (mut receiver, mut slow) = (sender.watcher(), sender.watcher());
            for revision in 1..=PENDING_MAX as u64 {
                assert!(put(&sender, revision).is_empty(), "nobody waits");
            }
            assert_eq!(receiver.next().await.map(|c| c.revision), Some(1));
            assert_eq!(sender.watchers(), 2);
            put(&sender, PENDING_MAX as u64 + 1);
            assert_eq!(sender.watchers(), 1, "one is too slow");
            assert!(slow.next().await.is_none() && at_hand(&mut slow).is_empty());
            assert!(at_hand(&mut receiver).into_iter().eq(2..=PENDING_MAX as u64 + 1));
            let mut late = sender.watcher();
            put(&sender, 5000);
            drop(sender);
            assert_eq!(receiver.next().await.map(|c| c.revision), Some(5000));
            assert!(receiver.next().await.is_none());
            assert_eq!(at_hand(&mut late), [5000]);
        });
    }

    #[test]
    fn what_all_have_taken_is_forgotten() {
        let sender = Sender::default();
        let mut few: Vec<Receiver> = (0..2).map(|_| sender.watcher()).collect();
        let kept = || lock(&sender.0).changes.len();
        put(&sender, 1);
        assert_eq!((at_hand(&mut few[0]).len(), kept()), (1, 1));
        assert_eq!((at_hand(&mut few[1]).len(), kept()), (1, 0));
        put(&sender, 2);
        drop(few);
        assert_eq!(kept(), 0, "those who left need nothing");
        let mut many: Vec<Receiver> = (0..100).map(|_| sender.watcher()).collect();
        for revision in 0..1000 {
            put(&sender, revision);
            many.iter_mut().for_each(|one| assert_eq!(at_hand(one), [revision]));
            assert!(kept() <= GATHERED, "{}", kept());
        }
    }

    #[test]
    fn who_waits_is_woken_by_whoever_put_something_in() {
        base::sim::run(1, async {
            let sender = Sender::default();
            let mut receiver = sender.watcher();
            let waits = base::task::spawn(async move { receiver.next().await.map(|c| c.revision) });
            base::task::yield_now().await;
            let waiting = put(&sender, 7).pop().expect("it waits");
            assert!(put(&sender, 8).is_empty(), "told already");
            waiting.wake();
            assert_eq!(waits.await, Some(7));
        });
    }
}
