//! Exponential back-off with jitter.

use std::time::Duration;

/// Grows from `first` by `factor` at every failure up to `most`; each wait is lengthened by up to `jitter`
/// (a fraction) so that many waiters do not return together.
#[derive(Clone, Debug)]
pub struct Backoff {
    /// The first wait.
    pub first: Duration,
    /// The longest wait, before jitter.
    pub most: Duration,
    /// By how much each wait exceeds the one before.
    pub factor: f64,
    /// The largest fraction added at random.
    pub jitter: f64,
    current: Option<Duration>,
}

impl Backoff {
    /// A back-off that starts at `first`, doubles up to `most`, and adds no jitter.
    pub const fn new(first: Duration, most: Duration) -> Self {
        Backoff { first, most, factor: 2.0, jitter: 0.0, current: None }
    }

    /// The same with up to `jitter` (a fraction of the wait) added at random.
    pub const fn with_jitter(mut self, jitter: f64) -> Self {
        self.jitter = jitter;
        self
    }

    /// The wait after one more failure.
    pub fn next_wait(&mut self) -> Duration {
        let wait = match self.current {
            None => self.first,
            Some(last) => last.mul_f64(self.factor).min(self.most),
        };
        self.current = Some(wait);
        if self.jitter > 0.0 { wait.mul_f64(1.0 + self.jitter * crate::rand::fraction()) } else { wait }
    }

    /// Begins anew after a success.
    pub fn reset(&mut self) {
        self.current = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_the_limit_and_begins_anew() {
        let mut b = Backoff::new(Duration::from_millis(10), Duration::from_millis(35));
        let waits: Vec<_> = (0..4).map(|_| b.next_wait().as_millis()).collect();
        assert_eq!(waits, [10, 20, 35, 35]);
        b.reset();
        assert_eq!(b.next_wait().as_millis(), 10);
    }
}
