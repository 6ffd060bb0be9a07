//! The kubelet: the pods of one node, from the API to the runtime and back.
//!
//! The core ([`worker`], [`status`], [`admission`], [`kubelet`] and what they use) reaches the machine only through
//! [`doors`], so that a simulation can run it in virtual time; [`host`] has the real doors, [`server`] what others ask of
//! the node. It knows nothing of other nodes, and starts no pod that the API does not bind to its own.
//!
//! Upstream: pkg/kubelet.

pub mod admission;
pub mod config;
pub mod containers;
mod core;
pub mod doors;
mod driver;
pub mod env;
pub mod eviction;
pub mod fields;
mod hooks;
pub mod host;
pub mod image_gc;
pub mod kubelet;
pub mod node;
pub mod objects;
mod probes;
pub mod refused;
pub mod resolver;
pub mod server;
pub mod status;
pub mod status_manager;
pub mod volumes;
pub mod worker;

pub use config::{Config, Reserved};
pub use doors::Doors;
pub use kubelet::Kubelet;
