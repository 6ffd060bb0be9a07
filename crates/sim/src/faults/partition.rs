//! An API server does not reach the store: its calls fail, done or not, and its watch breaks off or is late.

use apimachinery::call::BoxFuture;

use super::{Fault, any_server, last};
use crate::world::World;

/// See the module's text.
pub struct Partition;

impl Fault for Partition {
    fn name(&self) -> &'static str {
        "partition"
    }

    fn strike<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let server = any_server(world);
            world.cut(server, true);
            last().await;
            world.cut(server, false);
        })
    }
}
