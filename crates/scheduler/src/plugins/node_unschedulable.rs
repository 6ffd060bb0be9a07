//! NodeUnschedulable: cordoned nodes take only pods that tolerate it. Upstream: plugins/nodeunschedulable.

use super::taint_toleration::tolerates;
use crate::framework::{Code, CycleState, Event, Filter, Member, Pod, Rejection, Requeue, Verdict};
use crate::info::{Node, NodeInfo, Taint};

/// The plugin.
pub const MEMBER: Member = Member {
    filter: Some(&NodeUnschedulable),
    requeue: Some(&NodeUnschedulable),
    ..Member::new("NodeUnschedulable")
};

struct NodeUnschedulable;

fn passes(pod: Pod<'_>, node: &Node) -> bool {
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        value: String::new(),
        effect: "NoSchedule".into(),
    };
    !node.unschedulable || tolerates(pod, &taint)
}

impl Filter for NodeUnschedulable {
    fn filter(&self, _: &CycleState, pod: Pod<'_>, _: &NodeInfo, node: &Node) -> Verdict {
        match passes(pod, node) {
            true => Ok(()),
            false => Err(Rejection::new(Code::Unresolvable, "node(s) were unschedulable")),
        }
    }
}

impl Requeue for NodeUnschedulable {
    fn is_worth(&self, pod: Pod<'_>, event: Event<'_>) -> bool {
        match event {
            Event::NodeAdded(node) => passes(pod, node),
            Event::NodeUpdated { old, new } => !passes(pod, old) && passes(pod, new),
            Event::AssignedPodGone(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::filter;
    use apimachinery::doc;

    #[test]
    fn cordoned_nodes_take_who_tolerates() {
        let plain = doc!({ "spec": {} });
        let tolerant = doc!({ "spec": { "tolerations": [{ "operator": "Exists" }] } });
        let cordoned = doc!({ "metadata": { "name": "n" }, "spec": { "unschedulable": true } });
        let open = doc!({ "metadata": { "name": "n" }, "spec": {} });
        assert_eq!(filter(&MEMBER, &plain, &cordoned, &[]), "Unresolvable: node(s) were unschedulable");
        assert_eq!(filter(&MEMBER, &tolerant, &cordoned, &[]), "ok");
        assert_eq!(filter(&MEMBER, &plain, &open, &[]), "ok");
    }
}
