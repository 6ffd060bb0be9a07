//! The way of one pod to its node: filter, score, select. Upstream: pkg/scheduler/schedule_one.go.

use std::collections::{BTreeMap, BTreeSet};

use crate::cache::Snapshot;
use crate::framework::{Code, CycleState, Member, Pod, PreFiltered, Rejection};
use crate::info::{Node, NodeInfo};

/// Fewer nodes than this are always all looked at. Upstream: `minFeasibleNodesToFind`.
const FEASIBLE_MIN: usize = 100;
/// The least share of nodes to find, in percent. Upstream: `minFeasibleNodesPercentageToFind`.
const PERCENTAGE_MIN: usize = 5;

/// The node chosen for a pod.
pub struct Placement {
    /// Its name.
    pub node: String,
    /// What plugins remembered.
    pub state: CycleState,
}

/// No node fits; [`std::fmt::Display`] words it as upstream.
#[derive(Debug, Default)]
pub struct FitError {
    /// How many nodes there are.
    pub nodes: usize,
    /// Why the pod itself was rejected before any node was looked at; empty if it was not.
    pub pre_filter: String,
    /// Why each node was rejected.
    pub rejected: BTreeMap<String, Rejection>,
    /// Why the nodes were rejected that were not looked at.
    pub absent: String,
    /// What PostFilter said.
    pub post_filter: String,
    /// Who rejected.
    pub plugins: BTreeSet<&'static str>,
}

/// Why a pod got no node.
#[derive(Debug)]
pub enum Failure {
    /// Nowhere is room.
    Fit(Box<FitError>),
    /// A plugin failed.
    Plugin(Rejection),
}

/// Where the next search begins, so that all nodes get their turn when not all are looked at.
#[derive(Debug, Default)]
pub struct Rotation(usize);

type Feasible<'a> = Vec<(&'a NodeInfo, &'a Node)>;

impl std::fmt::Display for FitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available:", self.nodes)?;
        if self.pre_filter.is_empty() {
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for reason in self.rejected.values().flat_map(|r| &r.reasons) {
                *counts.entry(reason).or_insert(0) += 1;
            }
            if !self.absent.is_empty() && self.rejected.len() < self.nodes {
                *counts.entry(&self.absent).or_insert(0) += self.nodes - self.rejected.len();
            }
            let mut parts: Vec<String> = counts.into_iter().map(|(why, n)| format!("{n} {why}")).collect();
            parts.sort();
            if !parts.is_empty() {
                write!(f, " {}.", parts.join(", "))?;
            }
        } else {
            write!(f, " {}.", self.pre_filter)?;
        }
        if self.post_filter.is_empty() { Ok(()) } else { write!(f, " {}", self.post_filter) }
    }
}

/// Finds the best node for a pod. `percentage` of nodes to find before choosing; 0 for upstream's rule.
///
/// # Errors
/// That no node fits, or that a plugin failed.
pub fn place(
    plugins: &'static [Member],
    pod: Pod<'_>,
    nodes: Snapshot<'_>,
    percentage: usize,
    rotation: &mut Rotation,
) -> Result<Placement, Failure> {
    let mut state = CycleState::default();
    let mut error = FitError { nodes: nodes.len(), ..FitError::default() };
    let feasible = if error.nodes == 0 {
        Vec::new()
    } else {
        feasible(plugins, &mut state, pod, nodes, percentage, rotation, &mut error)?
    };
    if feasible.is_empty() {
        if error.nodes > 0 {
            let said = plugins.iter().filter_map(|p| p.post_filter);
            let said = said.map(|p| p.post_filter(&mut state, pod, nodes, &error.rejected));
            error.post_filter = said.collect::<Vec<_>>().join(", ");
        }
        return Err(Failure::Fit(Box::new(error)));
    }
    let node = select(plugins, &mut state, pod, &feasible, nodes);
    Ok(Placement { node: node.name.clone(), state })
}

fn feasible<'n>(
    plugins: &'static [Member],
    state: &mut CycleState,
    pod: Pod<'_>,
    nodes: Snapshot<'n>,
    percentage: usize,
    rotation: &mut Rotation,
    error: &mut FitError,
) -> Result<Feasible<'n>, Failure> {
    let mut skipped = BTreeSet::new();
    let mut only: Option<BTreeSet<String>> = None;
    for plugin in plugins {
        let Some(pre_filter) = plugin.pre_filter else { continue };
        match pre_filter.pre_filter(state, pod, nodes) {
            Ok(PreFiltered::All) => {}
            Ok(PreFiltered::Skip) => {
                skipped.insert(plugin.name);
            }
            Ok(PreFiltered::Only(names)) => {
                error.plugins.insert(plugin.name);
                only = Some(only.map_or(names.clone(), |o| o.intersection(&names).cloned().collect()));
            }
            Err(rejection) if rejection.code == Code::Error => {
                return Err(Failure::Plugin(rejection.by(plugin.name)));
            }
            Err(rejection) => {
                error.plugins.insert(plugin.name);
                error.pre_filter = rejection.reasons.join(", ");
                return Ok(Vec::new());
            }
        }
    }
    if only.is_some() {
        let named: Vec<&str> = error.plugins.iter().copied().collect();
        error.absent = format!("node(s) didn't satisfy plugin(s) [{}]", named.join(" "));
    }
    let filters: Vec<&Member> =
        plugins.iter().filter(|p| p.filter.is_some() && !skipped.contains(p.name)).collect();
    let wanted = to_find(error.nodes, percentage);
    let mut found = Vec::new();
    let mut looked_at = 0;
    for (info, node) in nodes.iter_from(rotation.0) {
        looked_at += 1;
        if only.as_ref().is_some_and(|only| !only.contains(&info.name)) {
            continue;
        }
        match ask(&filters, state, pod, info, node) {
            Ok(()) => found.push((info, node)),
            Err(rejection) if rejection.code == Code::Error => return Err(Failure::Plugin(rejection)),
            Err(rejection) => {
                error.plugins.insert(rejection.plugin);
                error.rejected.insert(info.name.clone(), rejection);
            }
        }
        if found.len() >= wanted {
            break;
        }
    }
    rotation.0 = (rotation.0 + looked_at) % error.nodes;
    Ok(found)
}

fn ask(
    filters: &[&Member],
    state: &CycleState,
    pod: Pod<'_>,
    info: &NodeInfo,
    node: &Node,
) -> Result<(), Rejection> {
    for plugin in filters {
        if let Some(filter) = plugin.filter {
            filter.filter(state, pod, info, node).map_err(|r| r.by(plugin.name))?;
        }
    }
    Ok(())
}

/// How many feasible nodes suffice: of a large cluster only a part is looked at.
fn to_find(nodes: usize, percentage: usize) -> usize {
    if nodes < FEASIBLE_MIN || percentage >= 100 {
        return nodes;
    }
    let percentage = if percentage == 0 { 50usize.saturating_sub(nodes / 125) } else { percentage };
    (nodes * percentage.max(PERCENTAGE_MIN) / 100).max(FEASIBLE_MIN)
}

/// The node with the most points; among equals one at random.
fn select<'n>(
    plugins: &'static [Member],
    state: &mut CycleState,
    pod: Pod<'_>,
    feasible: &Feasible<'n>,
    nodes: Snapshot<'n>,
) -> &'n Node {
    if let [(_, only)] = feasible[..] {
        return only;
    }
    let mut totals = vec![0i64; feasible.len()];
    for plugin in plugins {
        let Some(score) = plugin.score else { continue };
        if plugin.pre_score.is_some_and(|p| !p.pre_score(state, pod, feasible, nodes)) {
            continue;
        }
        let mut scores: Vec<i64> =
            feasible.iter().map(|(info, node)| score.score(state, pod, info, node)).collect();
        score.normalize(&mut scores);
        totals.iter_mut().zip(scores).for_each(|(total, score)| *total += plugin.weight * score);
    }
    let most = totals.iter().max().copied().unwrap_or(0);
    let best: Vec<usize> = (0..totals.len()).filter(|i| totals[*i] == most).collect();
    let pick = usize::try_from(base::rand::below(best.len() as u64)).unwrap_or(0);
    feasible[best[pick]].1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use crate::info::PodInfo;
    use crate::plugins::PLUGINS;
    use apimachinery::{Doc, doc};

    fn node(name: &str, memory: &str) -> Doc {
        doc!({ "metadata": { "name": name }, "status": { "allocatable": { "cpu": "1", "memory": memory, "pods": "9" } } })
    }

    fn try_place(spec: &str, nodes: &[Doc]) -> Result<String, String> {
        let mut pod = doc!({ "metadata": { "name": "p" } });
        pod.edit().set("spec", apimachinery::codec::json::parse(spec).expect("test").doc);
        let mut cache = Cache::default();
        nodes.iter().for_each(|n| drop(cache.set_node(Node::of(n))));
        let info = PodInfo::of(&pod);
        let asked = Pod { info: &info, doc: &pod };
        match place(PLUGINS, asked, cache.snapshot(), 0, &mut Rotation::default()) {
            Ok(placement) => Ok(placement.node),
            Err(Failure::Fit(fit)) => Err(fit.to_string()),
            Err(Failure::Plugin(rejection)) => panic!("{rejection:?}"),
        }
    }

    #[test]
    fn errors_are_upstreams_words() {
        let big = r#"{"containers":[{"name":"c","resources":{"requests":{"memory":"2Gi"}}}]}"#;
        let mut cordoned = node("c", "4Gi");
        cordoned.edit().at("spec").set("unschedulable", true);
        let nodes = [node("a", "1Gi"), node("b", "1Gi"), cordoned];
        let why = "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient memory.";
        assert_eq!(try_place(big, &nodes), Err(why.into()));
        assert_eq!(
            try_place(big, &nodes[..1]),
            Err("0/1 nodes are available: 1 Insufficient memory.".into())
        );
        assert_eq!(try_place(big, &[]), Err("no nodes available to schedule pods".into()));
        let claims = r#"{"resourceClaims":[{"name":"gpu"}]}"#;
        let why = "0/1 nodes are available: this scheduler does not support spec.resourceClaims.";
        assert_eq!(try_place(claims, &nodes[..1]), Err(why.into()));
        let elsewhere = r#"{"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[
            {"matchFields":[{"key":"metadata.name","operator":"In","values":["z"]}]}]}}}}"#;
        let why = "0/3 nodes are available: 3 node(s) didn't satisfy plugin(s) [NodeAffinity].";
        assert_eq!(try_place(elsewhere, &nodes), Err(why.into()));
    }

    #[test]
    fn the_best_node_wins_and_equals_share() {
        let small =
            r#"{"containers":[{"name":"c","resources":{"requests":{"memory":"100Mi","cpu":"100m"}}}]}"#;
        assert_eq!(try_place(small, &[node("a", "200Mi"), node("b", "4Gi")]), Ok("b".into()));
        base::sim::run(3, async {
            let picks: BTreeSet<_> =
                (0..50).map(|_| try_place(small, &[node("a", "1Gi"), node("b", "1Gi")])).collect();
            assert_eq!(picks.len(), 2);
        });
    }

    #[test]
    fn of_many_nodes_only_some_are_looked_at() {
        let table = [(50, 0, 50), (1000, 0, 420), (6000, 0, 300), (1000, 100, 1000), (1000, 1, 100)];
        for (nodes, percentage, want) in table {
            assert_eq!(to_find(nodes, percentage), want, "{nodes} {percentage}");
        }
    }
}
