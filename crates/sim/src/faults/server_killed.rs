//! An API server is killed; with the store, if that lives in its process: what was written is on the disk, perhaps half
//! a write more.

use apimachinery::call::BoxFuture;

use super::{Fault, any_server, last};
use crate::world::World;

/// See the module's text.
pub struct ServerKilled;

impl Fault for ServerKilled {
    fn name(&self) -> &'static str {
        "server killed"
    }

    fn strike<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if world.end_server(any_server(world)) {
                last().await;
                world.start_all();
            }
        })
    }
}
