//! TaintToleration: nodes repel pods that do not tolerate their taints. Upstream: plugins/tainttoleration.

use apimachinery::schema::views::Toleration;

use crate::framework::{
    Code, CycleState, Event, Filter, Member, Pod, Rejection, Requeue, Score, Verdict, default_normalize,
};
use crate::info::{Node, NodeInfo, Taint};

/// The plugin.
pub const MEMBER: Member = Member {
    weight: 3,
    filter: Some(&TaintToleration),
    score: Some(&TaintToleration),
    requeue: Some(&TaintToleration),
    ..Member::new("TaintToleration")
};

struct TaintToleration;

/// Whether one of the pod's tolerations covers the taint.
pub fn tolerates(pod: Pod<'_>, taint: &Taint) -> bool {
    pod.spec().tolerations().iter().any(|t| covers(t, taint))
}

fn covers(t: Toleration<'_>, taint: &Taint) -> bool {
    let value_fits = match t.operator() {
        "Exists" => true,
        "" | "Equal" => t.value() == taint.value,
        _ => false,
    };
    (t.effect().is_empty() || t.effect() == taint.effect)
        && (t.key().is_empty() || t.key() == taint.key)
        && value_fits
}

fn passes(pod: Pod<'_>, node: &Node) -> bool {
    let repels = |t: &&Taint| matches!(t.effect.as_str(), "NoSchedule" | "NoExecute");
    node.taints.iter().filter(repels).all(|taint| tolerates(pod, taint))
}

impl Filter for TaintToleration {
    fn filter(&self, _: &CycleState, pod: Pod<'_>, _: &NodeInfo, node: &Node) -> Verdict {
        match passes(pod, node) {
            true => Ok(()),
            false => Err(Rejection::new(Code::Unresolvable, "node(s) had untolerated taint(s)")),
        }
    }
}

impl Score for TaintToleration {
    fn score(&self, _: &CycleState, pod: Pod<'_>, _: &NodeInfo, node: &Node) -> i64 {
        let covered = |taint: &Taint| {
            let soft = |t: &Toleration<'_>| matches!(t.effect(), "" | "PreferNoSchedule");
            pod.spec().tolerations().iter().filter(soft).any(|t| covers(t, taint))
        };
        let disliked = |t: &&Taint| t.effect == "PreferNoSchedule" && !covered(t);
        i64::try_from(node.taints.iter().filter(disliked).count()).unwrap_or(i64::MAX)
    }

    fn normalize(&self, scores: &mut [i64]) {
        default_normalize(scores, true);
    }
}

impl Requeue for TaintToleration {
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
    use crate::plugins::testing::{filter, scores};
    use apimachinery::doc;

    #[test]
    fn taints_repel_unless_tolerated() {
        let node = doc!({ "metadata": { "name": "n" }, "spec": { "taints": [
            { "key": "dedicated", "value": "db", "effect": "NoSchedule" },
            { "key": "soft", "effect": "PreferNoSchedule" },
        ] } });
        let no = "Unresolvable: node(s) had untolerated taint(s)";
        for (toleration, want) in [
            (r#"{"key":"dedicated","operator":"Equal","value":"db","effect":"NoSchedule"}"#, "ok"),
            (r#"{"key":"dedicated","value":"db"}"#, "ok"),
            (r#"{"key":"dedicated","value":"web"}"#, no),
            (r#"{"key":"dedicated","operator":"Exists"}"#, "ok"),
            (r#"{"key":"other","operator":"Exists"}"#, no),
            (r#"{"operator":"Exists","effect":"NoExecute"}"#, no),
            (r#"{"key":"dedicated","operator":"Gt","value":"db"}"#, no),
        ] {
            let mut pod = doc!({ "spec": {} });
            let toleration = apimachinery::codec::json::parse(toleration).unwrap().doc;
            pod.edit().at("spec").list("tolerations").push(toleration);
            assert_eq!(filter(&MEMBER, &pod, &node, &[]), want, "{pod:?}");
        }
    }

    #[test]
    fn soft_taints_weigh() {
        let node = |name: &str, taints: &[&str]| {
            let mut doc = doc!({ "metadata": { "name": name } });
            for key in taints {
                let taint = doc!({ "key": *key, "effect": "PreferNoSchedule" });
                doc.edit().at("spec").list("taints").push(taint);
            }
            (doc, vec![])
        };
        let pod = doc!({ "spec": { "tolerations": [{ "key": "b", "operator": "Exists" }] } });
        let nodes = [node("n1", &[]), node("n2", &["a"]), node("n3", &["a", "b", "c"])];
        assert_eq!(scores(&MEMBER, &pod, &nodes), [100, 50, 0]);
    }
}
