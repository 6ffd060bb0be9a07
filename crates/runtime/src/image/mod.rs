//! Images: names, archives, unpacking, and the store that containers are made from.
//!
//! Nothing here knows containers. All of it is blocking; [`store::Store`] runs it on threads meant for that.
//! Upstream: containerd's content store, snapshotters and `pkg/archive`; the OCI image specification.

pub mod archive;
pub mod config;
pub mod reference;
pub mod store;
pub mod unpack;
