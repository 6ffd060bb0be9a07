//! architecture/conformance.go

use apimachinery::k;

use crate::cluster::{condition, play};

#[test]
fn there_are_two_nodes_without_taints() {
    play(|c| async move {
        let nodes = c.list("/api/v1/nodes").await;
        let open = nodes.iter().filter(|node| {
            let taints = node.root().find("spec.taints");
            let repels = taints.items().any(|t| matches!(t.get(k::EFFECT).str(), "NoSchedule" | "NoExecute"));
            !repels && !node.root().find("spec.unschedulable").bool() && condition(node, "Ready") == "True"
        });
        assert!(open.count() >= 2);
    });
}
