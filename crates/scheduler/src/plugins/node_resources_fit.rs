//! NodeResourcesFit: what a pod requests must be left on the node; the emptier node is better (LeastAllocated).
//! Upstream: plugins/noderesources/{fit,least_allocated}.go.

use crate::framework::{
    Code, CycleState, Event, Filter, MAX_NODE_SCORE, Member, Pod, Rejection, Requeue, Score, Verdict,
};
use crate::info::{Node, NodeInfo, Resources};

/// The plugin.
pub const MEMBER: Member = Member {
    filter: Some(&NodeResourcesFit),
    score: Some(&NodeResourcesFit),
    requeue: Some(&NodeResourcesFit),
    ..Member::new("NodeResourcesFit")
};

struct NodeResourcesFit;

/// One resource of which there is not enough.
struct Lacking {
    reason: String,
    /// Even the empty node would not do.
    hopeless: bool,
}

fn lacking(wanted: &Resources, taken: &Resources, pods: usize, all: &Resources) -> Vec<Lacking> {
    let mut out = Vec::new();
    if i64::try_from(pods).unwrap_or(i64::MAX) >= all.pods {
        out.push(Lacking { reason: "Too many pods".into(), hopeless: all.pods == 0 });
    }
    let mut check = |name: &str, wanted: i64, taken: i64, all: i64| {
        if wanted > 0 && wanted > all.saturating_sub(taken) {
            out.push(Lacking { reason: format!("Insufficient {name}"), hopeless: wanted > all });
        }
    };
    check("cpu", wanted.milli_cpu, taken.milli_cpu, all.milli_cpu);
    check("memory", wanted.memory, taken.memory, all.memory);
    check("ephemeral-storage", wanted.ephemeral_storage, taken.ephemeral_storage, all.ephemeral_storage);
    for (name, wanted) in &wanted.scalar {
        check(name, *wanted, taken.scalar(name), all.scalar(name));
    }
    out
}

impl Filter for NodeResourcesFit {
    fn filter(&self, _: &CycleState, pod: Pod<'_>, info: &NodeInfo, node: &Node) -> Verdict {
        let lacking = lacking(&pod.info.requests, &info.requested, info.pods.len(), &node.allocatable);
        if lacking.is_empty() {
            return Ok(());
        }
        let hopeless = lacking.iter().any(|l| l.hopeless);
        let code = if hopeless { Code::Unresolvable } else { Code::Unschedulable };
        Err(Rejection { plugin: "", code, reasons: lacking.into_iter().map(|l| l.reason).collect() })
    }
}

impl Score for NodeResourcesFit {
    fn score(&self, _: &CycleState, pod: Pod<'_>, info: &NodeInfo, node: &Node) -> i64 {
        let (own, taken, all) = (&pod.info.weighed, &info.weighed, &node.allocatable);
        let both =
            [(own.milli_cpu + taken.milli_cpu, all.milli_cpu), (own.memory + taken.memory, all.memory)];
        let left = |(used, all): (i64, i64)| if used > all { 0 } else { (all - used) * MAX_NODE_SCORE / all };
        let scores: Vec<i64> = both.into_iter().filter(|(_, all)| *all > 0).map(left).collect();
        let count = i64::try_from(scores.len()).unwrap_or(i64::MAX).max(1);
        scores.iter().sum::<i64>() / count
    }
}

impl Requeue for NodeResourcesFit {
    fn is_worth(&self, pod: Pod<'_>, event: Event<'_>) -> bool {
        let fits =
            |node: &Node| lacking(&pod.info.requests, &Resources::default(), 0, &node.allocatable).is_empty();
        match event {
            Event::NodeAdded(node) => fits(node),
            Event::NodeUpdated { old, new } => {
                let (old, all) = (&old.allocatable, &new.allocatable);
                let more_scalars = all.scalar.iter().any(|(name, amount)| *amount > old.scalar(name));
                let more = all.milli_cpu > old.milli_cpu
                    || all.memory > old.memory
                    || all.ephemeral_storage > old.ephemeral_storage
                    || all.pods > old.pods
                    || more_scalars;
                more && fits(new)
            }
            Event::AssignedPodGone(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::info::PodInfo;
    use crate::plugins::testing::{filter, scores};
    use apimachinery::{Doc, doc};

    fn node(cpu: &str, memory: &str, pods: &str) -> Doc {
        doc!({ "metadata": { "name": "n" }, "status": { "allocatable": { "cpu": cpu, "memory": memory, "pods": pods } } })
    }

    fn pod(name: &str, cpu: &str, memory: &str) -> Doc {
        doc!({ "metadata": { "name": name }, "spec": { "containers": [
            { "name": "c", "resources": { "requests": { "cpu": cpu, "memory": memory } } },
        ] } })
    }

    #[test]
    fn what_is_left_must_suffice() {
        let others = [pod("a", "500m", "256Mi")];
        for (node, want) in [
            (node("1", "1Gi", "10"), "ok"),
            (node("700m", "1Gi", "10"), "Insufficient cpu"),
            (node("700m", "300Mi", "10"), "Insufficient cpu; Insufficient memory"),
            (node("1", "64Mi", "10"), "Unresolvable: Insufficient memory"),
            (node("1", "1Gi", "1"), "Too many pods"),
        ] {
            assert_eq!(filter(&MEMBER, &pod("p", "500m", "128Mi"), &node, &others), want, "{node:?}");
        }
        let gpu = doc!({ "spec": { "containers": [{ "name": "c", "resources": { "requests": { "a.b/gpu": "1" } } }] } });
        assert_eq!(filter(&MEMBER, &gpu, &node("1", "1Gi", "9"), &[]), "Unresolvable: Insufficient a.b/gpu");
    }

    #[test]
    fn init_containers_sidecars_and_overhead_count_as_upstream() {
        let doc = doc!({ "spec": {
            "initContainers": [
                { "name": "side", "restartPolicy": "Always", "resources": { "requests": { "cpu": "100m" } } },
                { "name": "init", "resources": { "requests": { "cpu": "700m" } } },
            ],
            "containers": [{ "name": "c", "resources": { "requests": { "cpu": "200m" } } }, { "name": "d" }],
            "overhead": { "cpu": "10m" },
        } });
        let info = PodInfo::of(&doc);
        // The init container beside its sidecar is more than the containers and the sidecar.
        assert_eq!(info.requests.milli_cpu, 810);
        // 200 MiB for each of the four.
        assert_eq!((info.requests.memory, info.weighed.memory), (0, 600 << 20));
    }

    #[test]
    fn the_emptier_node_is_better() {
        let nodes = [
            (node("1", "1000Mi", "10"), vec![pod("a", "500m", "500Mi")]),
            (
                doc!({ "metadata": { "name": "o" }, "status": { "allocatable": { "cpu": "1", "memory": "1000Mi" } } }),
                vec![],
            ),
        ];
        assert_eq!(scores(&MEMBER, &pod("p", "100m", "100Mi"), &nodes), [40, 90]);
    }
}
