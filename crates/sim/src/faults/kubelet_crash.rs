//! A kubelet ends; its node's containers go on.

use apimachinery::call::BoxFuture;

use super::{Fault, last};
use crate::world::World;

/// See the module's text.
pub struct KubeletCrash;

impl Fault for KubeletCrash {
    fn name(&self) -> &'static str {
        "kubelet crash"
    }

    fn strike<'a>(&'a self, world: &'a World) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let node = usize::try_from(base::rand::below(world.machines.len() as u64)).unwrap_or(0);
            if world.end_kubelet(node) {
                last().await;
                world.start_kubelet(node);
            }
        })
    }
}
