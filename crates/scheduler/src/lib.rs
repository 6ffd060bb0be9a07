//! The scheduler: gives every pending pod a node.
//!
//! One task owns all state and learns of changes by key, so that nothing changes while a pod is placed; binding runs as
//! a task of its own. It knows nothing of how pods run, and writes only bindings, the `PodScheduled` condition and
//! events. What no plugin understands is refused ([`plugins::supported_fields`]).
//! Upstream: pkg/scheduler.

pub mod cache;
pub mod framework;
pub mod info;
pub mod plugins;
pub mod queue;
pub mod report;
pub mod schedule_one;
mod scheduler;

pub use scheduler::{Config, USER, run, user};
