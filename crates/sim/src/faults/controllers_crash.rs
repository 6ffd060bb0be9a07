//! The controllers end at any moment, between any two of their writes.

use apimachinery::call::BoxFuture;

use super::{Fault, last};
use crate::world::World;

/// See the module's text.
pub struct ControllersCrash;

impl Fault for ControllersCrash {
    fn name(&self) -> &'static str {
        "controllers crash"
    }

    fn strike<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if world.end_controllers() {
                last().await;
                world.start_controllers();
            }
        })
    }
}
