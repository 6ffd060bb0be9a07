//! The plugins, in the order in which they are asked. Upstream: pkg/scheduler/apis/config/v1/default_plugins.go.

pub mod default_binder;
pub mod image_locality;
pub mod node_affinity;
pub mod node_name;
pub mod node_ports;
pub mod node_resources_balanced_allocation;
pub mod node_resources_fit;
pub mod node_unschedulable;
pub mod priority_sort;
pub mod scheduling_gates;
pub mod supported_fields;
pub mod taint_toleration;

use crate::framework::Member;

/// All plugins.
pub static PLUGINS: &[Member] = &[
    scheduling_gates::MEMBER,
    priority_sort::MEMBER,
    supported_fields::MEMBER,
    node_unschedulable::MEMBER,
    node_name::MEMBER,
    taint_toleration::MEMBER,
    node_affinity::MEMBER,
    node_ports::MEMBER,
    node_resources_fit::MEMBER,
    node_resources_balanced_allocation::MEMBER,
    image_locality::MEMBER,
    default_binder::MEMBER,
];

#[cfg(test)]
pub(crate) mod testing {
    //! Asks one plugin about one pod and one node.

    use std::sync::Arc;

    use apimachinery::Doc;

    use crate::cache::Cache;
    use crate::framework::{Code, CycleState, Member, Pod, PreFiltered};
    use crate::info::{Node, PodInfo};

    /// What a plugin says about `pod` on `node`, on which `others` are: `ok`, `skip`, or code and reasons.
    pub fn filter(member: &Member, pod: &Doc, node: &Doc, others: &[Doc]) -> String {
        let mut cache = Cache::default();
        let node = Node::of(node);
        let name = node.name.clone();
        cache.set_node(node);
        for other in others {
            cache.assume(Arc::new(PodInfo::of(other)), &name);
        }
        let info = PodInfo::of(pod);
        let pod = Pod { info: &info, doc: pod };
        let mut state = CycleState::default();
        let snapshot = cache.snapshot();
        let told = |r: crate::framework::Rejection| match r.code {
            Code::Unschedulable => r.reasons.join("; "),
            other => format!("{other:?}: {}", r.reasons.join("; ")),
        };
        match member.pre_filter.map(|p| p.pre_filter(&mut state, pod, snapshot)) {
            Some(Err(rejection)) => return told(rejection),
            Some(Ok(PreFiltered::Skip)) => return "skip".into(),
            Some(Ok(PreFiltered::Only(names))) if !names.contains(&name) => {
                return "not among the names".into();
            }
            _ => {}
        }
        let (info, node) = snapshot.iter().next().expect("there is one node");
        match member.filter.expect("the plugin filters").filter(&state, pod, info, node) {
            Ok(()) => "ok".into(),
            Err(rejection) => told(rejection),
        }
    }

    /// The normalized scores of nodes with the pods on them; empty when the plugin has nothing to say.
    pub fn scores(member: &Member, pod: &Doc, nodes: &[(Doc, Vec<Doc>)]) -> Vec<i64> {
        let mut cache = Cache::default();
        for (node, pods) in nodes {
            let node = Node::of(node);
            let name = node.name.clone();
            cache.set_node(node);
            pods.iter().for_each(|pod| cache.assume(Arc::new(PodInfo::of(pod)), &name));
        }
        let info = PodInfo::of(pod);
        let pod = Pod { info: &info, doc: pod };
        let mut state = CycleState::default();
        let all: Vec<_> = cache.snapshot().iter().collect();
        if member.pre_score.is_some_and(|p| !p.pre_score(&mut state, pod, &all, cache.snapshot())) {
            return Vec::new();
        }
        let score = member.score.expect("the plugin scores");
        let mut out: Vec<i64> = all.iter().map(|(info, node)| score.score(&state, pod, info, node)).collect();
        score.normalize(&mut out);
        out
    }
}
