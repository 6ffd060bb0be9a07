//! The Service proxy of one node: Services and their endpoints become nftables rules.
//!
//! The line: [`observe`] reads API objects, [`model`] says what is wanted, [`render`](render::render) turns it
//! into tables (these three pure), [`apply`] sends the kernel what changed; [`Proxy`] drives them from caches. Deliberately unknown here: how packets are encoded for the kernel (crate `network`).
//!
//! Upstream: pkg/proxy and pkg/proxy/nftables. Where upstream has a chain for every Service and for every
//! endpoint, here all Services share one map from front, port and a random number to an endpoint.

pub mod apply;
pub mod model;
pub mod observe;
mod proxy;
pub mod render;

pub use proxy::{Config, Proxy};
