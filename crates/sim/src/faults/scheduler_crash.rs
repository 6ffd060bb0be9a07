//! The scheduler ends, perhaps with bindings under way.

use apimachinery::call::BoxFuture;

use super::{Fault, last};
use crate::world::World;

/// See the module's text.
pub struct SchedulerCrash;

impl Fault for SchedulerCrash {
    fn name(&self) -> &'static str {
        "scheduler crash"
    }

    fn strike<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if world.end_scheduler() {
                last().await;
                world.start_scheduler();
            }
        })
    }
}
