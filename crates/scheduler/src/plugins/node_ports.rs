//! NodePorts: two pods cannot have one port of a host. Upstream: plugins/nodeports.

use crate::cache::Snapshot;
use crate::framework::{
    Code, CycleState, Event, Filter, Member, Pod, PreFilter, PreFiltered, Rejection, Requeue, Verdict,
};
use crate::info::{Node, NodeInfo, PodInfo};

/// The plugin.
pub const MEMBER: Member = Member {
    pre_filter: Some(&NodePorts),
    filter: Some(&NodePorts),
    requeue: Some(&NodePorts),
    ..Member::new("NodePorts")
};

struct NodePorts;

fn conflict(a: &PodInfo, b: &PodInfo) -> bool {
    a.ports.iter().any(|port| b.ports.iter().any(|other| port.conflicts(other)))
}

impl PreFilter for NodePorts {
    fn pre_filter(
        &self,
        _: &mut CycleState,
        pod: Pod<'_>,
        _: Snapshot<'_>,
    ) -> Result<PreFiltered, Rejection> {
        Ok(if pod.info.ports.is_empty() { PreFiltered::Skip } else { PreFiltered::All })
    }
}

impl Filter for NodePorts {
    fn filter(&self, _: &CycleState, pod: Pod<'_>, info: &NodeInfo, _: &Node) -> Verdict {
        if !info.pods.values().any(|other| conflict(pod.info, other)) {
            return Ok(());
        }
        let why = "node(s) didn't have free ports for the requested pod ports";
        Err(Rejection::new(Code::Unschedulable, why))
    }
}

impl Requeue for NodePorts {
    fn is_worth(&self, pod: Pod<'_>, event: Event<'_>) -> bool {
        match event {
            Event::NodeAdded(_) => true,
            Event::NodeUpdated { .. } => false,
            Event::AssignedPodGone(gone) => conflict(pod.info, gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::filter;
    use apimachinery::{Doc, doc};

    fn pod(name: &str, ip: &str, protocol: &str, port: i64) -> Doc {
        doc!({ "metadata": { "name": name }, "spec": { "containers": [
            { "name": "c", "ports": [{ "hostPort": port, "protocol": protocol, "hostIP": ip }] },
        ] } })
    }

    #[test]
    fn ports_clash_by_address_protocol_and_number() {
        let node = doc!({ "metadata": { "name": "n" } });
        let no = "node(s) didn't have free ports for the requested pod ports";
        for (other, want) in [
            (pod("o", "", "TCP", 80), no),
            (pod("o", "", "UDP", 80), "ok"),
            (pod("o", "", "TCP", 81), "ok"),
            (pod("o", "10.0.0.2", "TCP", 80), "ok"),
            (pod("o", "10.0.0.1", "TCP", 80), no),
        ] {
            assert_eq!(filter(&MEMBER, &pod("p", "10.0.0.1", "TCP", 80), &node, &[other]), want);
        }
        assert_eq!(filter(&MEMBER, &pod("p", "", "TCP", 0), &node, &[]), "skip");
    }
}
