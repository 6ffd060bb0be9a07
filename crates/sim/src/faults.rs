//! What can go wrong, and one ordered list for each story. A fault mends what it broke before it ends.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::time::Instant;

use crate::history::End;
use crate::world::{DISK_DELAY, World};

/// The longest that a fault lasts, in milliseconds.
const LASTS_MS: u64 = 8_000;

/// How a calm network is.
pub const CALM: (Duration, u64) = (Duration::from_millis(3), 0);

/// Something that goes wrong and is mended again.
pub struct Fault {
    /// What it is called in reports.
    name: &'static str,
    /// Deals the blow. Gives what mends it; nothing where what would be struck is down already.
    blow: fn(&World) -> Option<Mend>,
}

type Mend = Box<dyn FnOnce(&World) + Send>;

fn mend(how: impl FnOnce(&World) + Send + 'static) -> Mend {
    Box::new(how)
}

/// An API server is killed; with the store, if that lives in its process: what was written is on the disk, perhaps half
/// a write more.
const SERVER_KILLED: Fault = Fault {
    name: "server killed",
    blow: |world| world.end_server(any_server(world)).then(|| mend(World::start_all)),
};

/// The store is killed: all that it wrote is on the disk, perhaps half a write more.
const STORE_KILLED: Fault = Fault {
    name: "store killed",
    blow: |world| world.end_store(End::Killed).then(|| mend(World::start_all)),
};

/// The power of the store and the servers fails: what was not synced is gone, or torn.
const POWER_CUT: Fault =
    Fault { name: "power cut", blow: |world| world.end_store(End::PowerCut).then(|| mend(World::start_all)) };

/// An API server does not reach the store: its calls fail, done or not, and its watch breaks off or is late.
const PARTITION: Fault = Fault {
    name: "partition",
    blow: |world| {
        let server = any_server(world);
        world.cut(server, true);
        Some(mend(move |world| world.cut(server, false)))
    },
};

/// Every call of the store's disk takes up to a quarter of a second.
const SLOW_DISK: Fault = Fault {
    name: "slow disk",
    blow: |world| {
        world.disk_takes(Duration::from_millis(250));
        Some(mend(|world| world.disk_takes(DISK_DELAY)))
    },
};

/// The controllers end at any moment, between any two of their writes.
const CONTROLLERS_CRASH: Fault = Fault {
    name: "controllers crash",
    blow: |world| world.end_controllers().then(|| mend(World::start_controllers)),
};

/// The scheduler ends, perhaps with bindings under way.
const SCHEDULER_CRASH: Fault = Fault {
    name: "scheduler crash",
    blow: |world| world.end_scheduler().then(|| mend(World::start_scheduler)),
};

/// A kubelet ends; its node's containers go on.
const KUBELET_CRASH: Fault = Fault {
    name: "kubelet crash",
    blow: |world| {
        let node = any(world.machines.len());
        world.end_kubelet(node).then(|| mend(move |world| world.start_kubelet(node)))
    },
};

/// Calls and events take up to half a second each way.
const SLOW_NETWORK: Fault =
    Fault { name: "slow network", blow: |world| Some(network_is(world, Duration::from_millis(500), 0)) };

/// One of twenty calls or answers gets lost; a lost event breaks its watch off.
const LOSSY_NETWORK: Fault =
    Fault { name: "lossy network", blow: |world| Some(network_is(world, Duration::from_millis(50), 50)) };

/// What strikes the demo's cluster.
pub const DEMO: &[Fault] = &[
    SERVER_KILLED,
    POWER_CUT,
    CONTROLLERS_CRASH,
    SCHEDULER_CRASH,
    KUBELET_CRASH,
    SLOW_NETWORK,
    LOSSY_NETWORK,
];

/// What strikes API servers over one store.
pub const API: &[Fault] = &[
    SERVER_KILLED,
    STORE_KILLED,
    POWER_CUT,
    PARTITION,
    SLOW_DISK,
    CONTROLLERS_CRASH,
    SLOW_NETWORK,
    LOSSY_NETWORK,
];

/// How often each fault struck. Handles are clones.
#[derive(Clone)]
pub struct Tally(Arc<Mutex<Vec<(&'static str, u32)>>>);

impl Tally {
    /// None of `faults` has struck yet.
    pub fn new(faults: &[Fault]) -> Tally {
        Tally(Arc::new(Mutex::new(faults.iter().map(|f| (f.name, 0)).collect())))
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
    pub faults: &'static [Fault],
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
            let pick = any(self.faults.len());
            tally.struck(pick);
            if let Some(mend) = (self.faults[pick].blow)(&world) {
                last().await;
                mend(&world);
            }
        }
    }
}

/// Lets a fault last; short ones are more frequent than long ones.
async fn last() {
    let most = 1 << base::rand::below(14);
    base::time::sleep(Duration::from_millis(base::rand::below(most.min(LASTS_MS)))).await;
}

/// One of so many.
fn any(count: usize) -> usize {
    usize::try_from(base::rand::below(count as u64)).unwrap_or(0)
}

fn any_server(world: &World) -> usize {
    any(world.shape.servers)
}

fn network_is(world: &World, delay_most: Duration, lost_per_mille: u64) -> Mend {
    world.net.set(delay_most, lost_per_mille);
    mend(|world| world.net.set(CALM.0, CALM.1))
}
