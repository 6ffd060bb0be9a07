//! One of twenty calls or answers gets lost; a lost event breaks its watch off.

use std::time::Duration;

use apimachinery::call::BoxFuture;

use super::{CALM, Fault, last};
use crate::world::World;

/// See the module's text.
pub struct LossyNetwork;

impl Fault for LossyNetwork {
    fn name(&self) -> &'static str {
        "lossy network"
    }

    fn strike<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            world.net.set(Duration::from_millis(50), 50);
            last().await;
            world.net.set(CALM.0, CALM.1);
        })
    }
}
