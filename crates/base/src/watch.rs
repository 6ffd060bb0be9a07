//! A value that many wait for: tokio's watch channel, but its receivers wake in the order in which they began to wait.
//! Tokio's wakes them in random order, which a simulation could not repeat.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

struct Shared<T> {
    // The value and how often it was sent.
    value: Mutex<(T, u64)>,
    changed: Notify,
    senders: AtomicUsize,
}

/// Sets the value. When the last one is gone, waiting ends with an error.
pub struct Sender<T>(Arc<Shared<T>>);

/// Sees the value.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// The sender is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

/// A channel that holds `value`.
pub fn channel<T: Clone>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, (T, u64)> {
        self.value.lock().expect("no code panics while it holds the value")
    }
}

impl<T: Clone> Sender<T> {
    /// A sender without receivers yet.
    pub fn new(value: T) -> Sender<T> {
        let shared =
            Shared { value: Mutex::new((value, 0)), changed: Notify::new(), senders: AtomicUsize::new(1) };
        Sender(Arc::new(shared))
    }

    /// A receiver that has seen the present value.
    pub fn subscribe(&self) -> Receiver<T> {
        Receiver { shared: self.0.clone(), seen: self.0.lock().1 }
    }

    /// The present value.
    pub fn get(&self) -> T {
        self.0.lock().0.clone()
    }

    /// Sets the value and wakes all who wait.
    pub fn send(&self, value: T) {
        {
            let mut held = self.0.lock();
            *held = (value, held.1 + 1);
        }
        self.0.changed.notify_waiters();
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::AcqRel);
        Sender(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.senders.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_waiters();
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Receiver { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T: Clone> Receiver<T> {
    /// The present value.
    pub fn get(&self) -> T {
        self.shared.lock().0.clone()
    }

    /// Waits for a value that this receiver has not seen.
    ///
    /// # Errors
    /// [`Closed`] when there is none and no sender is left.
    pub async fn changed(&mut self) -> Result<T, Closed> {
        let seen = self.seen;
        let (value, now) = self.until(|_, sent| sent != seen).await?;
        self.seen = now;
        Ok(value)
    }

    /// Waits until `test` holds for the value, which it may at once.
    ///
    /// # Errors
    /// [`Closed`] when it does not and no sender is left.
    pub async fn wait_for(&mut self, mut test: impl FnMut(&T) -> bool) -> Result<T, Closed> {
        let (value, now) = self.until(|value, _| test(value)).await?;
        self.seen = now;
        Ok(value)
    }

    async fn until(&self, mut test: impl FnMut(&T, u64) -> bool) -> Result<(T, u64), Closed> {
        loop {
            let mut changed = pin!(self.shared.changed.notified());
            // Asked to wake before the test, so that no change falls between the two.
            changed.as_mut().enable();
            let closed = self.shared.senders.load(Ordering::Acquire) == 0;
            {
                let held = self.shared.lock();
                if test(&held.0, held.1) {
                    return Ok(held.clone());
                }
            }
            if closed {
                return Err(Closed);
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_wake_in_order_and_learn_of_the_end() {
        crate::sim::run(1, async {
            let (sender, receiver) = channel(0);
            let order = Arc::new(Mutex::new(Vec::new()));
            let tasks: Vec<_> = (0..20)
                .map(|n| {
                    let (mut receiver, order) = (receiver.clone(), order.clone());
                    crate::task::spawn(async move {
                        assert_eq!(receiver.wait_for(|v| *v == 7).await, Ok(7));
                        order.lock().expect("test").push(n);
                        receiver.changed().await
                    })
                })
                .collect();
            crate::task::yield_now().await;
            sender.send(3);
            crate::task::yield_now().await;
            sender.send(7);
            crate::task::yield_now().await;
            assert_eq!(*order.lock().expect("test"), (0..20).collect::<Vec<_>>());
            drop(sender);
            for task in tasks {
                assert_eq!(task.await, Err(Closed));
            }
        });
    }
}
