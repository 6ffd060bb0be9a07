//! NodeName: a pod that names its node goes there or nowhere. Upstream: plugins/nodename.

use crate::framework::{Code, CycleState, Filter, Member, Pod, Rejection, Verdict};
use crate::framework::{Event, Requeue};
use crate::info::{Node, NodeInfo};

/// The plugin.
pub const MEMBER: Member =
    Member { filter: Some(&NodeName), requeue: Some(&NodeName), ..Member::new("NodeName") };

struct NodeName;

fn passes(pod: Pod<'_>, node: &Node) -> bool {
    pod.info.node_name.is_empty() || pod.info.node_name == node.name
}

impl Filter for NodeName {
    fn filter(&self, _: &CycleState, pod: Pod<'_>, _: &NodeInfo, node: &Node) -> Verdict {
        match passes(pod, node) {
            true => Ok(()),
            false => Err(Rejection::new(Code::Unresolvable, "node(s) didn't match the requested node name")),
        }
    }
}

impl Requeue for NodeName {
    fn is_worth(&self, pod: Pod<'_>, event: Event<'_>) -> bool {
        matches!(event, Event::NodeAdded(node) if passes(pod, node))
    }
}
