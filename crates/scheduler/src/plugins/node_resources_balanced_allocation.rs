//! NodeResourcesBalancedAllocation: better is where CPU and memory are used in like measure.
//! Upstream: plugins/noderesources/balanced_allocation.go.

use crate::cache::Snapshot;
use crate::framework::{CycleState, MAX_NODE_SCORE, Member, Pod, PreScore, Score};
use crate::info::{Node, NodeInfo};

/// The plugin.
pub const MEMBER: Member = Member {
    pre_score: Some(&BalancedAllocation),
    score: Some(&BalancedAllocation),
    ..Member::new("NodeResourcesBalancedAllocation")
};

struct BalancedAllocation;

impl PreScore for BalancedAllocation {
    fn pre_score(&self, _: &mut CycleState, pod: Pod<'_>, _: &[(&NodeInfo, &Node)], _: Snapshot<'_>) -> bool {
        // Pods without requests would all go to one node.
        pod.info.requests.milli_cpu != 0 || pod.info.requests.memory != 0
    }
}

impl Score for BalancedAllocation {
    fn score(&self, _: &CycleState, pod: Pod<'_>, info: &NodeInfo, node: &Node) -> i64 {
        let (own, taken, all) = (&pod.info.requests, &info.requested, &node.allocatable);
        let part = |used: i64, all: i64| (all > 0).then(|| (used as f64 / all as f64).min(1.0));
        let cpu = part(own.milli_cpu + taken.milli_cpu, all.milli_cpu);
        let memory = part(own.memory + taken.memory, all.memory);
        let deviation = match (cpu, memory) {
            (Some(cpu), Some(memory)) => ((cpu - memory) / 2.0).abs(),
            _ => 0.0,
        };
        ((1.0 - deviation) * MAX_NODE_SCORE as f64) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::scores;
    use apimachinery::doc;

    #[test]
    fn balance_is_better() {
        let pod = |cpu: &str, memory: &str| doc!({ "spec": { "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpu, "memory": memory } } }] } });
        let node = |cpu: &str| {
            let name = format!("n{cpu}");
            (
                doc!({ "metadata": { "name": name }, "status": { "allocatable": { "cpu": cpu, "memory": "1000Mi" } } }),
                vec![],
            )
        };
        // 0.5 and 0.5; then 0.25 and 0.5.
        assert_eq!(scores(&MEMBER, &pod("500m", "500Mi"), &[node("1"), node("2")]), [100, 87]);
        assert!(scores(&MEMBER, &pod("0", "0"), &[node("1")]).is_empty());
    }
}
