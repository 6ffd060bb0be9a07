//! The clock: the machine's in production, the runtime's paused clock inside [`crate::sim`].

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

pub use jiff::Timestamp;
pub use tokio::time::Instant;
pub use tokio::time::error::Elapsed;

thread_local! {
    static ORIGIN: Cell<Option<(Timestamp, Instant)>> = const { Cell::new(None) };
}

/// Makes this thread's wall clock start at `at` and follow the runtime's (paused) clock.
pub(crate) fn install(at: Timestamp) {
    ORIGIN.with(|o| o.set(Some((at, Instant::now()))));
}

/// Gives this thread the machine's clock again.
pub(crate) fn uninstall() {
    ORIGIN.with(|o| o.set(None));
}

/// The wall clock.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Timestamp {
    match ORIGIN.with(Cell::get) {
        None => Timestamp::now(),
        Some((at, start)) => at + start.elapsed(),
    }
}

/// The monotonic clock.
pub fn instant() -> Instant {
    Instant::now()
}

/// Waits for `d` to pass. For time-outs, back-off and deadlines; never to wait for something that could be
/// observed.
#[allow(clippy::disallowed_methods)]
pub async fn sleep(d: Duration) {
    tokio::time::sleep(d).await;
}

/// Waits until `at`.
pub async fn sleep_until(at: Instant) {
    tokio::time::sleep_until(at).await;
}

/// [`sleep_until`] as a value that is kept while other things happen, and set anew: for loops that wait often and
/// rarely to the end, where a new timer each time would be most of the work.
#[derive(Debug)]
pub struct Alarm(Pin<Box<tokio::time::Sleep>>);

impl Alarm {
    /// Rings at `at`.
    pub fn at(at: Instant) -> Alarm {
        Alarm(Box::pin(tokio::time::sleep_until(at)))
    }

    /// Rings at `at` and not when it was set to.
    pub fn set(&mut self, at: Instant) {
        if self.0.deadline() != at {
            self.0.as_mut().reset(at);
        }
    }

    /// When it rings, or rang.
    pub fn due(&self) -> Instant {
        self.0.deadline()
    }

    /// Whether it has rung; wakes the task when it does.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }

    /// Waits until it rings.
    pub async fn rings(&mut self) {
        self.0.as_mut().await;
    }
}

/// Runs `future`, giving up after `d`.
///
/// # Errors
/// [`Elapsed`] when `d` passed first.
pub async fn timeout<F: Future>(d: Duration, future: F) -> Result<F::Output, Elapsed> {
    tokio::time::timeout(d, future).await
}
