//! The shim: one single-threaded process per pod that owns its containers, and outlives whoever started it.
//!
//! It knows no image store and no pod object: everything it needs comes in a [`protocol::ContainerSpec`].
//! Streams of commands and containers leave it as descriptors over its socket. Upstream: containerd-shim-runc-v2.

mod connection;
mod launch;
mod log;
mod pause;
pub mod protocol;
mod server;
mod spawn;
mod streams;

pub use launch::{shim_main, spawn as launch};
