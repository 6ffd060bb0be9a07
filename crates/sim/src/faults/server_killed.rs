//! The server is killed: all that it wrote is on the disk, perhaps half a write more.

use apimachinery::call::BoxFuture;

use super::{Fault, last};
use crate::world::World;

/// See the module's text.
pub struct ServerKilled;

impl Fault for ServerKilled {
    fn name(&self) -> &'static str {
        "server killed"
    }

    fn strike<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if world.end_server(false) {
                last().await;
                world.start_server();
            }
        })
    }
}
