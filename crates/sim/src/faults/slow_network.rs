//! Calls and events take up to half a second each way.

use std::time::Duration;

use apimachinery::call::BoxFuture;

use super::{CALM, Fault, last};
use crate::world::World;

/// See the module's text.
pub struct SlowNetwork;

impl Fault for SlowNetwork {
    fn name(&self) -> &'static str {
        "slow network"
    }

    fn strike<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            world.net.set(Duration::from_millis(500), 0);
            last().await;
            world.net.set(CALM.0, CALM.1);
        })
    }
}
