//! Which watchers are to be woken, and when: at once where few are concerned. Where very many are, changes that come
//! one soon after the other are told together, so that the cost of telling grows with time and not with changes.

use std::task::Waker;
use std::time::Duration;

use base::time::Instant;

/// From how many watchers of the same objects on changes are told together.
const MANY: usize = 64;
/// How long nobody of many is woken again, for each that was woken: about what telling one costs server and client.
const PAUSE_EACH: Duration = Duration::from_micros(20);
/// The same at most, however many there are.
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// Watchers to be woken.
#[derive(Default)]
pub struct Wakes {
    soon: Vec<Waker>,
    later: Vec<Waker>,
    /// Until when `later` is not woken.
    pause: Option<Instant>,
}

impl Wakes {
    /// Adds a watcher, if it waits, that is one of `many`.
    pub fn add(&mut self, waiting: Option<Waker>, many: usize) {
        if many < MANY { &mut self.soon } else { &mut self.later }.extend(waiting);
    }

    /// Wakes all whose time has come.
    pub fn wake(&mut self) {
        self.soon.drain(..).for_each(Waker::wake);
        if self.pause.is_none_or(|until| until <= base::time::instant()) {
            self.wake_later();
        }
    }

    /// When [`Wakes::wake_later`] is due; never while there is nobody to wake.
    pub async fn due(&self) {
        match self.pause {
            Some(until) if !self.later.is_empty() => base::time::sleep_until(until).await,
            _ => std::future::pending().await,
        }
    }

    /// Wakes those of many.
    pub fn wake_later(&mut self) {
        let pause = PAUSE_EACH * u32::try_from(self.later.len()).unwrap_or(u32::MAX);
        self.pause = Some(base::time::instant() + pause.min(PAUSE_MAX));
        self.later.drain(..).for_each(Waker::wake);
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
    fn many_are_woken_at_once_and_then_not_before_the_pause_is_over() {
        base::sim::run(1, async {
            let (few, many) = (Arc::new(Count::default()), Arc::new(Count::default()));
            let seen = || [&few, &many].map(|count| count.0.load(Ordering::Relaxed));
            let mut wakes = Wakes::default();
            let change = |wakes: &mut Wakes| {
                wakes.add(Some(few.clone().into()), MANY - 1);
                (0..MANY).for_each(|_| wakes.add(Some(many.clone().into()), MANY));
                wakes.wake();
            };
            change(&mut wakes);
            assert_eq!(seen(), [1, MANY]);
            change(&mut wakes);
            assert_eq!(seen(), [2, MANY]);
            let begun = base::time::instant();
            wakes.due().await;
            let waited = begun.elapsed();
            assert!(waited > Duration::ZERO && waited <= PAUSE_MAX + Duration::from_millis(1), "{waited:?}");
            wakes.wake_later();
            assert_eq!(seen(), [2, 2 * MANY]);
            change(&mut wakes);
            drop(wakes);
            assert_eq!(seen(), [3, 3 * MANY]);
        });
    }
}
