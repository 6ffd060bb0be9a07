//! What can go wrong, one fault per file, one ordered list. A fault mends what it broke before it ends.

mod controllers_crash;
mod kubelet_crash;
mod lossy_network;
mod power_cut;
mod scheduler_crash;
mod server_killed;
mod slow_network;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use apimachinery::call::BoxFuture;
use base::time::Instant;

use crate::world::World;

/// The longest wait between two faults, and the longest that one lasts, in milliseconds.
const PEACE_MS: u64 = 20_000;
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

/// All faults.
pub const ALL: &[&dyn Fault] = &[
    &server_killed::ServerKilled,
    &power_cut::PowerCut,
    &controllers_crash::ControllersCrash,
    &scheduler_crash::SchedulerCrash,
    &kubelet_crash::KubeletCrash,
    &slow_network::SlowNetwork,
    &lossy_network::LossyNetwork,
];

/// How often each fault struck.
pub type Tally = Arc<Mutex<Vec<(&'static str, u32)>>>;

/// Lets faults strike at random until `end`; the last one is mended when this returns.
pub async fn storm(world: Arc<World>, tally: Tally, end: Instant) {
    loop {
        let wait = Duration::from_millis(base::rand::below(PEACE_MS));
        if base::time::instant() + wait >= end {
            return;
        }
        base::time::sleep(wait).await;
        let pick = usize::try_from(base::rand::below(ALL.len() as u64)).unwrap_or(0);
        tally.lock().expect("nobody panics holding it")[pick].1 += 1;
        ALL[pick].strike(&world).await;
    }
}

/// Lets a fault last; short ones are more frequent than long ones.
async fn last() {
    let most = 1 << base::rand::below(14);
    base::time::sleep(Duration::from_millis(base::rand::below(most.min(LASTS_MS)))).await;
}
