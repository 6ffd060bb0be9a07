//! Which watchers are to be woken, and when: at once where few are concerned. Where very many are, they are woken one after
//! the other at the pace at which they can be told, in the order in which they began to wait: what comes until a
//! watcher's turn is told together, and no watcher waits for all others at every change.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use base::time::Instant;

/// From how many watchers of the same objects on they are woken one after the other.
const MANY: usize = 64;
/// About what telling one of a dozen changes costs server and client, in time of one core.
const COST: Duration = Duration::from_micros(80);
/// How much of the time in which nobody was woken counts: timers are no finer.
const BEHIND_MAX: Duration = Duration::from_millis(2);

/// Watchers to be woken.
pub struct Wakes {
    soon: Vec<Waker>,
    later: VecDeque<Waker>,
    /// When the first of `later` is woken.
    turn: Instant,
    /// How long after it the next is.
    pace: Duration,
}

impl Wakes {
    /// None yet, on a machine of so many cores.
    pub fn new(cores: u32) -> Wakes {
        let (soon, later) = (Vec::new(), VecDeque::new());
        Wakes { soon, later, turn: base::time::instant(), pace: COST / cores.max(1) }
    }

    /// Adds a watcher that waits and is one of `many`.
    pub fn add(&mut self, waiting: Waker, many: usize) {
        match many < MANY {
            true => self.soon.push(waiting),
            false => self.later.push_back(waiting),
        }
    }

    /// Wakes all whose time has come.
    pub fn wake(&mut self) {
        self.soon.drain(..).for_each(Waker::wake);
        let now = base::time::instant();
        self.turn = self.turn.max(now - BEHIND_MAX);
        while self.turn <= now
            && let Some(first) = self.later.pop_front()
        {
            first.wake();
            self.turn += self.pace;
        }
    }

    /// When [`Wakes::wake`] is due again; never while there is nobody to wake.
    pub async fn due(&self) {
        match self.later.is_empty() {
            false => base::time::sleep_until(self.turn).await,
            true => std::future::pending().await,
        }
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        self.soon.drain(..).chain(self.later.drain(..)).for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn many_are_woken_one_after_the_other() {
        base::sim::run(1, async {
            let (few, many) = (Arc::new(Count::default()), Arc::new(Count::default()));
            let seen = || [&few, &many].map(|count| count.0.load(Ordering::Relaxed));
            let mut wakes = Wakes::new(2);
            wakes.add(few.clone().into(), MANY - 1);
            (0..1000).for_each(|_| wakes.add(many.clone().into(), MANY));
            let begun = base::time::instant();
            wakes.wake();
            let [told, first] = seen();
            assert!(told == 1 && first > 0 && first <= 51, "{first} at once");
            while seen()[1] < 1000 {
                wakes.due().await;
                wakes.wake();
                let at_most = (begun.elapsed() + BEHIND_MAX).as_micros() / 40 + 1;
                assert!(seen()[1] as u128 <= at_most, "{:?} after {:?}", seen(), begun.elapsed());
            }
            let took = begun.elapsed();
            assert!(took >= Duration::from_millis(35) && took <= Duration::from_millis(45), "{took:?}");
            wakes.add(many.clone().into(), MANY);
            drop(wakes);
            assert_eq!(seen(), [1, 1001]);
        });
    }
}
