//! Every call of the store's disk takes up to a quarter of a second.

use std::time::Duration;

use apimachinery::call::BoxFuture;

use super::{Fault, last};
use crate::world::{DISK_DELAY, World};

const SLOW: Duration = Duration::from_millis(250);

/// See the module's text.
pub struct SlowDisk;

impl Fault for SlowDisk {
    fn name(&self) -> &'static str {
        "slow disk"
    }

    fn strike<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            world.disk_takes(SLOW);
            last().await;
            world.disk_takes(DISK_DELAY);
        })
    }
}
