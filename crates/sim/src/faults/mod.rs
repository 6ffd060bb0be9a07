//! What can go wrong, one fault per file, one ordered list for each story. A fault mends what it broke before it ends.

mod controllers_crash;
mod kubelet_crash;
mod lossy_network;
mod partition;
mod power_cut;
mod scheduler_crash;
mod server_killed;
mod slow_disk;
mod slow_network;
mod store_killed;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use apimachinery::call::BoxFuture;
use base::time::Instant;

use crate::world::World;

/// The longest that a fault lasts, in milliseconds.
const LASTS_MS: u64 = 8_000;

/// How a calm network is.
pub const CALM: (Duration, u64) = (Duration::from_millis(3), 0);

/// Something that goes wrong and is mended again.
pub trait Fault: Sync {
    /// What it is called in reports.
    fn name(&self) -> &'static str;
    /// From the blow to the mending.
    fn strike<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()>;
}

/// What strikes the demo's cluster.
pub const DEMO: &[&dyn Fault] = &[
    &server_killed::ServerKilled,
    &power_cut::PowerCut,
    &controllers_crash::ControllersCrash,
    &scheduler_crash::SchedulerCrash,
    &kubelet_crash::KubeletCrash,
    &slow_network::SlowNetwork,
    &lossy_network::LossyNetwork,
];

/// What strikes API servers over one store.
pub const API: &[&dyn Fault] = &[
    &server_killed::ServerKilled,
    &store_killed::StoreKilled,
    &power_cut::PowerCut,
    &partition::Partition,
    &slow_disk::SlowDisk,
    &controllers_crash::ControllersCrash,
    &slow_network::SlowNetwork,
    &lossy_network::LossyNetwork,
];

/// How often each fault struck. Handles are clones.
#[derive(Clone)]
pub struct Tally(Arc<Mutex<Vec<(&'static str, u32)>>>);

impl Tally {
    /// None of `faults` has struck yet.
    pub fn new(faults: &[&dyn Fault]) -> Tally {
        Tally(Arc::new(Mutex::new(faults.iter().map(|f| (f.name(), 0)).collect())))
    }

    /// In the order of the faults' list.
    pub fn counts(&self) -> Vec<(&'static str, u32)> {
        self.0.lock().expect("nobody panics holding it").clone()
    }

    fn struck(&self, fault: usize) {
        self.0.lock().expect("nobody panics holding it")[fault].1 += 1;
    }
}

/// When which faults strike.
#[derive(Clone, Copy)]
pub struct Storm {
    /// The faults to pick from, those that the tally counts.
    pub faults: &'static [&'static dyn Fault],
    /// The longest wait between two of them.
    pub peace_most: Duration,
    /// When they cease.
    pub end: Instant,
}

impl Storm {
    /// Lets faults strike at random; the last one is mended when this returns.
    pub async fn rage(self, world: Arc<World>, tally: Tally) {
        loop {
            let wait = Duration::from_millis(base::rand::below(self.peace_most.as_millis() as u64));
            if base::time::instant() + wait >= self.end {
                return;
            }
            base::time::sleep(wait).await;
            let pick = usize::try_from(base::rand::below(self.faults.len() as u64)).unwrap_or(0);
            tally.struck(pick);
            self.faults[pick].strike(&world).await;
        }
    }
}

/// Lets a fault last; short ones are more frequent than long ones.
async fn last() {
    let most = 1 << base::rand::below(14);
    base::time::sleep(Duration::from_millis(base::rand::below(most.min(LASTS_MS)))).await;
}

/// One of the servers.
fn any_server(world: &World) -> usize {
    usize::try_from(base::rand::below(world.shape.servers as u64)).unwrap_or(0)
}
