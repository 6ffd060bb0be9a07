//! Containers: the CRI surface as traits ([`Runtime`], [`ImageStore`]), and the embedded engine.
//!
//! Knows no Kubernetes API object, no network beyond loopback, and no volume beyond a bind mount: its callers
//! bring those. Upstream: the kubelet's side of CRI (`cri-api`), containerd and runc on the other.

mod cri;
mod error;

pub use cri::*;
pub use error::Error;
