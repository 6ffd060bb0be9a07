//! NodeAffinity: `spec.nodeSelector` and `spec.affinity.nodeAffinity`. Upstream: plugins/nodeaffinity and
//! k8s.io/component-helpers/scheduling/corev1/nodeaffinity.

use std::collections::BTreeSet;

use apimachinery::{Ref, k};

use crate::cache::Snapshot;
use crate::framework::{
    Code, CycleState, Event, Filter, Member, Pod, PreFilter, PreFiltered, PreScore, Rejection, Requeue,
    Score, Verdict, default_normalize,
};
use crate::info::{Node, NodeInfo};

/// The plugin.
pub const MEMBER: Member = Member {
    weight: 2,
    pre_filter: Some(&NodeAffinity),
    filter: Some(&NodeAffinity),
    pre_score: Some(&NodeAffinity),
    score: Some(&NodeAffinity),
    requeue: Some(&NodeAffinity),
    ..Member::new("NodeAffinity")
};

struct NodeAffinity;

fn required<'a>(pod: Pod<'a>) -> Ref<'a> {
    let affinity = pod.spec().0.get(k::AFFINITY).get(k::NODE_AFFINITY);
    affinity.get(k::REQUIRED_DURING_SCHEDULING_IGNORED_DURING_EXECUTION)
}

fn preferred<'a>(pod: Pod<'a>) -> Ref<'a> {
    let affinity = pod.spec().0.get(k::AFFINITY).get(k::NODE_AFFINITY);
    affinity.get(k::PREFERRED_DURING_SCHEDULING_IGNORED_DURING_EXECUTION)
}

/// Whether the pod's selector and required affinity, both, take the node.
pub fn matches(pod: Pod<'_>, node: &Node) -> bool {
    let mut selector = pod.spec().node_selector().iter();
    let labels_fit = selector.all(|(key, value)| node.labels.get(key).is_some_and(|v| v == value));
    let required = required(pod);
    labels_fit
        && (!required.is_set() || required.get(k::NODE_SELECTOR_TERMS).items().any(|t| term_matches(t, node)))
}

/// A term without conditions matches nothing.
fn term_matches(term: Ref<'_>, node: &Node) -> bool {
    let (expressions, fields) = (term.get(k::MATCH_EXPRESSIONS), term.get(k::MATCH_FIELDS));
    let label = |key: &str| node.labels.get(key).map(String::as_str);
    let field = |key: &str| (key == "metadata.name").then_some(node.name.as_str());
    (!expressions.is_empty() || !fields.is_empty())
        && expressions.items().all(|r| requirement_matches(r, label(r.get(k::KEY).str())))
        && fields.items().all(|r| requirement_matches(r, field(r.get(k::KEY).str())))
}

fn requirement_matches(requirement: Ref<'_>, value: Option<&str>) -> bool {
    let values = requirement.get(k::VALUES);
    let one_of = |value: &str| values.items().any(|v| v.str() == value);
    let number = |text: &str| text.parse::<i64>().ok();
    let compared = || Some((number(value?)?, number(values.item(0).str())?));
    match requirement.get(k::OPERATOR).str() {
        "In" => value.is_some_and(one_of),
        "NotIn" => !value.is_some_and(one_of),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared().is_some_and(|(have, than)| have > than),
        "Lt" => compared().is_some_and(|(have, than)| have < than),
        _ => false,
    }
}

/// The nodes that the terms name, when each term names some.
fn named(terms: Ref<'_>) -> Option<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for term in terms.items() {
        let mut here: Option<BTreeSet<String>> = None;
        for r in term.get(k::MATCH_FIELDS).items() {
            if r.get(k::KEY).str() == "metadata.name" && r.get(k::OPERATOR).str() == "In" {
                let names: BTreeSet<String> = r.get(k::VALUES).items().map(|v| v.str().to_owned()).collect();
                here = Some(match here {
                    None => names,
                    Some(others) => others.intersection(&names).cloned().collect(),
                });
            }
        }
        all.extend(here?);
    }
    Some(all)
}

impl PreFilter for NodeAffinity {
    fn pre_filter(
        &self,
        _: &mut CycleState,
        pod: Pod<'_>,
        _: Snapshot<'_>,
    ) -> Result<PreFiltered, Rejection> {
        let required = required(pod);
        if !required.is_set() && pod.spec().node_selector().is_empty() {
            return Ok(PreFiltered::Skip);
        }
        let terms = required.get(k::NODE_SELECTOR_TERMS);
        match named(terms) {
            _ if terms.is_empty() => Ok(PreFiltered::All),
            None => Ok(PreFiltered::All),
            Some(names) if names.is_empty() => {
                Err(Rejection::new(Code::Unresolvable, "pod affinity terms conflict"))
            }
            Some(names) => Ok(PreFiltered::Only(names)),
        }
    }
}

impl Filter for NodeAffinity {
    fn filter(&self, _: &CycleState, pod: Pod<'_>, _: &NodeInfo, node: &Node) -> Verdict {
        match matches(pod, node) {
            true => Ok(()),
            false => {
                let why = "node(s) didn't match Pod's node affinity/selector";
                Err(Rejection::new(Code::Unresolvable, why))
            }
        }
    }
}

impl PreScore for NodeAffinity {
    fn pre_score(&self, _: &mut CycleState, pod: Pod<'_>, _: &[(&NodeInfo, &Node)], _: Snapshot<'_>) -> bool {
        !preferred(pod).is_empty()
    }
}

impl Score for NodeAffinity {
    fn score(&self, _: &CycleState, pod: Pod<'_>, _: &NodeInfo, node: &Node) -> i64 {
        let fits = preferred(pod).items().filter(|p| {
            let term = p.get(k::PREFERENCE);
            // Here, unlike in a required term, no conditions match every node.
            term.is_empty() || term_matches(term, node)
        });
        fits.map(|p| p.get(k::WEIGHT).i64()).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        default_normalize(scores, false);
    }
}

impl Requeue for NodeAffinity {
    fn is_worth(&self, pod: Pod<'_>, event: Event<'_>) -> bool {
        match event {
            Event::NodeAdded(node) => matches(pod, node),
            Event::NodeUpdated { old, new } => !matches(pod, old) && matches(pod, new),
            Event::AssignedPodGone(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::{filter, scores};
    use apimachinery::{Doc, doc};

    fn node() -> Doc {
        doc!({ "metadata": { "name": "n1", "labels": { "disk": "ssd", "cores": "8" } } })
    }

    fn pod(spec: &str) -> Doc {
        let mut pod = doc!({ "metadata": { "name": "p" } });
        pod.edit().set("spec", apimachinery::codec::json::parse(spec).unwrap().doc);
        pod
    }

    fn terms(terms: &str) -> Doc {
        pod(&format!(
            r#"{{"affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":{terms}}}}}}}}}"#
        ))
    }

    #[test]
    fn selectors_and_terms() {
        let no = "Unresolvable: node(s) didn't match Pod's node affinity/selector";
        for (pod, want) in [
            (pod("{}"), "skip"),
            (pod(r#"{"nodeSelector":{"disk":"ssd"}}"#), "ok"),
            (pod(r#"{"nodeSelector":{"disk":"ssd","zone":"a"}}"#), no),
            (
                terms(r#"[{"matchExpressions":[{"key":"disk","operator":"In","values":["hdd","ssd"]}]}]"#),
                "ok",
            ),
            (terms(r#"[{"matchExpressions":[{"key":"cores","operator":"Gt","values":["7"]}]}]"#), "ok"),
            (terms(r#"[{"matchExpressions":[{"key":"cores","operator":"Lt","values":["8"]}]}]"#), no),
            (terms(r#"[{"matchExpressions":[{"key":"zone","operator":"NotIn","values":["a"]}]}]"#), "ok"),
            (
                terms(
                    r#"[{"matchExpressions":[{"key":"zone","operator":"Exists"}]},{"matchExpressions":[{"key":"disk","operator":"Exists"}]}]"#,
                ),
                "ok",
            ),
            (terms(r#"[{"matchExpressions":[{"key":"disk","operator":"DoesNotExist"}]}]"#), no),
            (terms("[{}]"), no),
            (terms(r#"[{"matchFields":[{"key":"metadata.name","operator":"In","values":["n1"]}]}]"#), "ok"),
            (
                terms(r#"[{"matchFields":[{"key":"metadata.name","operator":"In","values":["n2"]}]}]"#),
                "not among the names",
            ),
            (
                terms(
                    r#"[{"matchFields":[{"key":"metadata.name","operator":"In","values":["a"]},{"key":"metadata.name","operator":"In","values":["b"]}]}]"#,
                ),
                "Unresolvable: pod affinity terms conflict",
            ),
        ] {
            assert_eq!(filter(&MEMBER, &pod, &node(), &[]), want, "{pod:?}");
        }
    }

    #[test]
    fn preferences_add_up() {
        let preferring =
            pod(r#"{"affinity":{"nodeAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[
            {"weight":10,"preference":{"matchExpressions":[{"key":"disk","operator":"Exists"}]}},
            {"weight":30,"preference":{"matchExpressions":[{"key":"zone","operator":"Exists"}]}}]}}}"#);
        let other = doc!({ "metadata": { "name": "n2", "labels": { "disk": "x", "zone": "a" } } });
        assert_eq!(scores(&MEMBER, &preferring, &[(node(), vec![]), (other, vec![])]), [25, 100]);
        assert!(scores(&MEMBER, &pod("{}"), &[(node(), vec![])]).is_empty());
    }
}
