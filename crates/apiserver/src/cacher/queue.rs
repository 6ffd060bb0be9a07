//! The changes that wait for one watcher. Putting one in and waking the watcher are two steps: where very many watch
//! the same objects, waking all of them for every change would be most of the work, and little of it would be theirs.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use super::Change;

/// How many changes may wait for one watcher before it is cut off.
const PENDING_MAX: usize = 4096;

#[derive(Default)]
struct Queue {
    changes: VecDeque<Arc<Change>>,
    /// Nothing more will be put in.
    ended: bool,
    /// Nobody takes anything out any more.
    left: bool,
    waiting: Option<Waker>,
}

type Shared = Arc<Mutex<Queue>>;

fn lock(shared: &Shared) -> MutexGuard<'_, Queue> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where changes are put in. Dropping it ends the queue once it is empty.
pub struct Sender(Shared);

/// Where a watcher takes changes out.
pub struct Receiver(Shared);

/// The watcher has gone away, or is too slow to keep up.
pub struct Lost;

/// A queue without changes.
pub fn queue() -> (Sender, Receiver) {
    let shared = Shared::default();
    (Sender(shared.clone()), Receiver(shared))
}

impl Sender {
    /// Puts a change in. If the watcher waits, the caller is to wake it, soon.
    ///
    /// # Errors
    /// [`Lost`]; the change was not put in.
    pub fn put(&self, change: &Arc<Change>) -> Result<Option<Waker>, Lost> {
        let mut queue = lock(&self.0);
        if queue.left || queue.changes.len() >= PENDING_MAX {
            return Err(Lost);
        }
        queue.changes.push_back(change.clone());
        Ok(queue.waiting.take())
    }

    /// Whether the watcher has gone away.
    pub fn is_left(&self) -> bool {
        lock(&self.0).left
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let waiting = {
            let mut queue = lock(&self.0);
            queue.ended = true;
            queue.waiting.take()
        };
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}

impl Receiver {
    /// The next change; `None` at the end. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Arc<Change>> {
        std::future::poll_fn(|cx| {
            let mut queue = lock(&self.0);
            match queue.changes.pop_front() {
                Some(change) => Poll::Ready(Some(change)),
                None if queue.ended => Poll::Ready(None),
                None => {
                    queue.waiting = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// All changes that are there already.
    pub fn at_hand(&mut self) -> VecDeque<Arc<Change>> {
        std::mem::take(&mut lock(&self.0).changes)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let mut queue = lock(&self.0);
        queue.left = true;
        queue.waiting = None;
        queue.changes = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_taken_in_order_and_before_the_end() {
        base::sim::run(1, async {
            let (sender, mut receiver) = queue();
            for revision in 1..=PENDING_MAX as u64 {
                assert!(sender.put(&Change::of(revision)).is_ok_and(|waiting| waiting.is_none()));
            }
            assert!(sender.put(&Change::of(0)).is_err(), "too slow");
            assert_eq!(receiver.next().await.map(|c| c.revision), Some(1));
            let rest: Vec<u64> = receiver.at_hand().iter().map(|c| c.revision).collect();
            assert!(rest.into_iter().eq(2..=PENDING_MAX as u64));
            assert!(sender.put(&Change::of(PENDING_MAX as u64 + 1)).is_ok());
            drop(sender);
            assert_eq!(receiver.next().await.map(|c| c.revision), Some(PENDING_MAX as u64 + 1));
            assert!(receiver.next().await.is_none());
            let (sender, receiver) = queue();
            drop(receiver);
            assert!(sender.is_left() && sender.put(&Change::of(1)).is_err());
        });
    }

    #[test]
    fn who_waits_is_woken_by_whoever_put_something_in() {
        base::sim::run(1, async {
            let (sender, mut receiver) = queue();
            let waits = base::task::spawn(async move { receiver.next().await.map(|c| c.revision) });
            base::task::yield_now().await;
            let waiting = sender.put(&Change::of(7)).ok().flatten().expect("it waits");
            assert!(sender.put(&Change::of(8)).is_ok_and(|waiting| waiting.is_none()), "told already");
            waiting.wake();
            assert_eq!(waits.await, Some(7));
        });
    }
}
