//! A node's machine that does not exist: what the kubelet reaches through its doors. It outlives kubelets.

mod files;
mod machine;
mod network;
mod prober;
mod runtime;

use std::sync::Arc;

pub use files::SimFiles;
pub use machine::SimMachine;
pub use network::SimNetwork;
pub use prober::SimProber;
pub use runtime::{Counts, SimRuntime};

use kubelet::Doors;

/// One node's machine.
#[derive(Clone)]
pub struct NodeMachine {
    /// Containers and images.
    pub runtime: Arc<SimRuntime>,
    /// Addresses.
    pub network: Arc<SimNetwork>,
    /// Files.
    pub files: Arc<SimFiles>,
    /// Facts.
    pub machine: Arc<SimMachine>,
}

impl NodeMachine {
    /// The `index`th node's.
    pub fn new(index: u8) -> NodeMachine {
        NodeMachine {
            runtime: Arc::new(SimRuntime::new(index)),
            network: Arc::default(),
            files: Arc::default(),
            machine: Arc::new(SimMachine::new(index)),
        }
    }

    /// As the kubelet wants them.
    pub fn doors(&self) -> Doors {
        Doors {
            runtime: self.runtime.clone(),
            images: self.runtime.clone(),
            network: self.network.clone(),
            files: self.files.clone(),
            machine: self.machine.clone(),
            prober: Arc::new(SimProber { runtime: self.runtime.clone(), network: self.network.clone() }),
        }
    }

    /// What pods left behind, in words.
    pub fn leftovers(&self) -> Vec<String> {
        let mut out = self.runtime.leftovers();
        out.extend(self.network.keys_now().into_iter().map(|key| format!("address of sandbox {key}")));
        out.extend(self.files.pod_files().into_iter().map(|path| format!("file {}", path.display())));
        out
    }
}

/// Waits up to `most_ms` milliseconds: how long machines take.
async fn pause(most_ms: u64) {
    base::time::sleep(std::time::Duration::from_millis(base::rand::below(most_ms))).await;
}
