//! Tasks that end with their owner.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::task::JoinHandle;

/// A running task. Dropping it ends the task at its next suspension; [`Task::detach`] lets it run on.
#[must_use = "a dropped task is cancelled; keep it, await it, or detach it"]
#[derive(Debug)]
pub struct Task<T>(Option<JoinHandle<T>>);

/// Starts a task. `future` runs until it is done or the returned [`Task`] is dropped.
#[allow(clippy::disallowed_methods)]
pub fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Task<T> {
    Task(Some(tokio::task::spawn(future)))
}

impl<T> Task<T> {
    /// Lets the task run to its end on its own.
    pub fn detach(mut self) {
        self.0 = None;
    }

    /// Whether the task has ended.
    pub fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends the task at its next suspension.
    pub fn cancel(&self) {
        if let Some(handle) = &self.0 {
            handle.abort();
        }
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// Awaiting a task gives its value.
///
/// # Panics
/// With the task's own panic, if it had one, or if it was cancelled.
impl<T> Future for Task<T> {
    type Output = T;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let handle = self.0.as_mut().expect("a detached task cannot be awaited: detach consumes it");
        match Pin::new(handle).poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(value)) => Poll::Ready(value),
            Poll::Ready(Err(err)) if err.is_panic() => std::panic::resume_unwind(err.into_panic()),
            Poll::Ready(Err(_)) => panic!("awaited a task that was cancelled"),
        }
    }
}

thread_local! {
    static CONTAINED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// The future panicked; the message has been printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panicked;

pin_project_lite::pin_project! {
    /// See [`contain`]. An `async fn` would keep a second place for the future, and requests are long futures.
    #[derive(Debug)]
    #[must_use = "a future does nothing until it is awaited"]
    pub struct Contain<F> {
        #[pin]
        future: F,
    }
}

/// Runs `future` so that its panic is its own end and nobody else's, and gives [`Panicked`]: for work on behalf of one
/// client.
pub fn contain<F: Future + Send>(future: F) -> Contain<F> {
    Contain { future }
}

impl<F: Future> Future for Contain<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.project().future;
        match contain_now(|| future.poll(cx)) {
            Ok(polled) => polled.map(Ok),
            Err(panicked) => Poll::Ready(Err(panicked)),
        }
    }
}

/// The same for what is done at once. Whatever `work` left half done must not be used again.
///
/// # Errors
/// [`Panicked`] when it did.
pub fn contain_now<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    let outer = CONTAINED.replace(true);
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    CONTAINED.set(outer);
    done.map_err(|_| Panicked)
}

/// How much stack [`deep`] has, in bytes; only what is used becomes memory.
const DEEP_BYTES: usize = 64 << 20;

/// Runs `work`, which recurses deeper than a task's stack allows, on a stack of its own, while the caller waits. It
/// must not read base's clock or randomness, which a simulation keeps per thread.
///
/// # Panics
/// With `work`'s own panic, or when no thread can be had.
pub fn deep<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let contained = CONTAINED.get();
    let work = move || {
        CONTAINED.set(contained);
        work()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("deep".into()).stack_size(DEEP_BYTES);
        let thread = thread.spawn_scoped(scope, work).expect("a thread can be had for a moment");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// From here on every panic outside of [`contain`] ends the process: a component that dies must not leave the rest
/// going on without it.
pub fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        if !CONTAINED.get() {
            std::process::abort();
        }
    }));
}

/// Runs blocking system calls (files, mounts, fsync) on a thread meant for them.
///
/// Only for code that a simulation replaces by a door of its own; inside [`crate::sim`] it runs at once, on
/// the one thread there is.
#[allow(clippy::disallowed_methods)]
pub async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    if crate::sim::active() {
        return f();
    }
    match tokio::task::spawn_blocking(f).await {
        Ok(value) => value,
        Err(err) => std::panic::resume_unwind(err.into_panic()),
    }
}

/// How many threads run this runtime's tasks; one in a simulation.
///
/// # Panics
/// Outside of a runtime.
pub fn threads() -> u32 {
    u32::try_from(tokio::runtime::Handle::current().metrics().num_workers()).unwrap_or(u32::MAX)
}

/// Lets other tasks run before going on. For loops that work long without waiting.
pub async fn yield_now() {
    tokio::task::yield_now().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_work_has_room() {
        fn depth(n: u32) -> u32 {
            let room = std::hint::black_box([n; 1024]);
            if n == 0 { 0 } else { 1 + depth(n - 1).min(room[1023]) }
        }
        assert_eq!(deep(|| depth(2000)), 2000);
        let bad = contain_now(|| deep(|| -> u32 { panic!("on purpose") }));
        assert_eq!(bad, Err(Panicked));
    }

    #[test]
    fn a_contained_panic_ends_its_future_only() {
        crate::sim::run(1, async {
            let bad = contain(async {
                yield_now().await;
                panic!("on purpose")
            });
            assert_eq!(bad.await, Err::<(), _>(Panicked));
            assert_eq!(contain(async { 1 }).await, Ok(1));
            assert!(!CONTAINED.get());
        });
    }
}
