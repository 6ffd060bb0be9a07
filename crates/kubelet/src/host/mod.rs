//! The real doors: files, machine and probes of a Linux host; the pod network is the caller's.

mod files;
mod machine;
mod prober;

use std::sync::Arc;

use runtime::{ImageStore, Runtime};

use crate::doors::{Doors, PodNetwork};

pub use files::HostFiles;
pub use machine::HostMachine;
pub use prober::HostProber;

/// The doors of this host.
pub fn doors(
    runtime: Arc<dyn Runtime>,
    images: Arc<dyn ImageStore>,
    network: Arc<dyn PodNetwork>,
    machine: HostMachine,
) -> Doors {
    let (files, prober) = (Arc::new(HostFiles), Arc::new(HostProber));
    Doors { runtime, images, network, files, machine: Arc::new(machine), prober }
}
