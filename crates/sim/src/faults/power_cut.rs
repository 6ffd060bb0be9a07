//! The power of the store and the servers fails: what was not synced is gone, or torn.

use apimachinery::call::BoxFuture;

use super::{Fault, last};
use crate::history::End;
use crate::world::World;

/// See the module's text.
pub struct PowerCut;

impl Fault for PowerCut {
    fn name(&self) -> &'static str {
        "power cut"
    }

    fn strike<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if world.end_store(End::PowerCut) {
                last().await;
                world.start_all();
            }
        })
    }
}
