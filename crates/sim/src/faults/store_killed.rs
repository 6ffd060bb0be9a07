//! The store is killed: all that it wrote is on the disk, perhaps half a write more.

use apimachinery::call::BoxFuture;

use super::{Fault, last};
use crate::history::End;
use crate::world::World;

/// See the module's text.
pub struct StoreKilled;

impl Fault for StoreKilled {
    fn name(&self) -> &'static str {
        "store killed"
    }

    fn strike<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if world.end_store(End::Killed) {
                last().await;
                world.start_all();
            }
        })
    }
}
