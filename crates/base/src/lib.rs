//! The doors to the world: clock, randomness, hashing, tasks, selection, back-off, keys in files.
//!
//! Everything that could differ between two runs of the same program comes through here, so that a whole
//! control plane can run in one thread, in virtual time, from a seed ([`sim`]). Not a Kubernetes word in it.

pub mod backoff;
pub mod hash;
pub mod io;
pub mod metrics;
pub mod pem;
pub mod rand;
pub mod sim;
pub mod task;
pub mod time;
pub mod watch;

/// Waits for the first of several futures, polled in the order written.
///
/// `tokio::select!` picks a random order unless told otherwise; here the order is always that of the text,
/// which makes simulations repeatable. Write the branch that must not starve first.
#[macro_export]
macro_rules! select {
    ($($body:tt)*) => {{
        $crate::__tokio::select! { biased; $($body)* }
    }};
}

#[doc(hidden)]
pub use tokio as __tokio;
