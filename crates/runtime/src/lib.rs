//! Containers: the CRI surface as traits ([`Runtime`], [`ImageStore`]), and the embedded engine.
//!
//! Knows no Kubernetes API object, no network beyond loopback but registries, and no volume beyond a bind mount: its callers
//! bring those. Upstream: the kubelet's side of CRI (`cri-api`), containerd and runc on the other.

mod cri;
mod embedded;
mod error;
mod image;
mod linux;
mod registry;
mod shim;

pub use cri::*;
pub use embedded::{Embedded, Options, disk_usage};
pub use error::Error;
pub use image::reference::Reference;
pub use image::store::Store;
pub use image::unpack::Limits as UnpackLimits;
pub use linux::cgroups::{Cgroups, Scope};
pub use linux::mounts::beneath;
pub use registry::{Credential, Progress, Registries, Resolve};
pub use shim::protocol::LogRotation;
pub use shim::shim_main;
