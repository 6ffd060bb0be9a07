//! What a pod may say about where it wants to run: tolerations, affinity, spreading.
//! Upstream: pkg/apis/core/validation ValidateTolerations, validateAffinity, validateTopologySpreadConstraints.

use apimachinery::field::{ErrorList, Path};
use apimachinery::{Ref, k, validation};

use crate::rules::{self, complain, none_or_one_of, required};

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Tolerations.
pub(crate) fn tolerations(errs: &mut ErrorList, list: Ref<'_>, at: &Path) {
    for (i, t) in list.items().enumerate() {
        let at = at.index(i);
        let (key, operator, value) = (t.get(k::KEY).str(), t.get(k::OPERATOR).str(), t.get(k::VALUE).str());
        if !key.is_empty() {
            complain(errs, &at.child("key"), key, validation::qualified_name(key));
        } else if operator != "Exists" {
            let detail =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errs.invalid(&at.child("operator"), operator, detail);
        }
        let effect = t.get(k::EFFECT).str();
        if t.get(k::TOLERATION_SECONDS).is_set() && effect != "NoExecute" {
            errs.invalid(
                &at.child("effect"),
                effect,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            );
        }
        match operator {
            "" | "Equal" => complain(errs, &at.child("operator"), value, validation::label_value(value)),
            "Exists" if !value.is_empty() => {
                errs.invalid(&at.child("operator"), t, "value must be empty when `operator` is 'Exists'");
            }
            "Exists" => {}
            other => errs.not_supported(&at.child("operator"), other, &["Equal", "Exists"]),
        }
        none_or_one_of(errs, t.get(k::EFFECT), &at.child("effect"), EFFECTS);
    }
}

/// Node and pod affinity.
pub(crate) fn affinity(errs: &mut ErrorList, affinity: Ref<'_>, at: &Path) {
    let (node, here) = (affinity.get(k::NODE_AFFINITY), at.child("nodeAffinity"));
    let must = node.get(k::REQUIRED_DURING_SCHEDULING_IGNORED_DURING_EXECUTION);
    if must.is_set() {
        let at = here.child("requiredDuringSchedulingIgnoredDuringExecution").child("nodeSelectorTerms");
        if must.get(k::NODE_SELECTOR_TERMS).is_empty() {
            errs.required(&at, "must have at least one node selector term");
        }
        for (i, term) in must.get(k::NODE_SELECTOR_TERMS).items().enumerate() {
            node_term(errs, term, &at.index(i));
        }
    }
    let wish = node.get(k::PREFERRED_DURING_SCHEDULING_IGNORED_DURING_EXECUTION);
    for (i, term) in wish.items().enumerate() {
        let at = here.child("preferredDuringSchedulingIgnoredDuringExecution").index(i);
        weight(errs, term, &at);
        node_term(errs, term.get(k::PREFERENCE), &at.child("preference"));
    }
    for side in ["podAffinity", "podAntiAffinity"] {
        let (pods, at) = (affinity.get(side), at.child(side));
        for (i, term) in pods.get(k::REQUIRED_DURING_SCHEDULING_IGNORED_DURING_EXECUTION).items().enumerate()
        {
            pod_term(errs, term, &at.child("requiredDuringSchedulingIgnoredDuringExecution").index(i));
        }
        for (i, term) in pods.get(k::PREFERRED_DURING_SCHEDULING_IGNORED_DURING_EXECUTION).items().enumerate()
        {
            let at = at.child("preferredDuringSchedulingIgnoredDuringExecution").index(i);
            weight(errs, term, &at);
            pod_term(errs, term.get(k::POD_AFFINITY_TERM), &at.child("podAffinityTerm"));
        }
    }
}

fn weight(errs: &mut ErrorList, term: Ref<'_>, at: &Path) {
    let weight = term.get(k::WEIGHT).i64();
    if !(1..=100).contains(&weight) {
        errs.invalid(&at.child("weight"), weight, "must be in the range 1-100");
    }
}

fn node_term(errs: &mut ErrorList, term: Ref<'_>, at: &Path) {
    for (i, e) in term.get(k::MATCH_EXPRESSIONS).items().enumerate() {
        let at = at.child("matchExpressions").index(i);
        let count = e.get(k::VALUES).len();
        match e.get(k::OPERATOR).str() {
            "In" | "NotIn" if count == 0 => {
                errs.required(&at.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if count > 0 => {
                errs.forbidden(
                    &at.child("values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
            "Gt" | "Lt" if count != 1 => {
                errs.required(
                    &at.child("values"),
                    "must be specified single value when `operator` is 'Lt' or 'Gt'",
                );
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => errs.invalid(&at.child("operator"), other, "not a valid selector operator"),
        }
        let key = e.get(k::KEY).str();
        complain(errs, &at.child("key"), key, validation::qualified_name(key));
    }
    for (i, e) in term.get(k::MATCH_FIELDS).items().enumerate() {
        let at = at.child("matchFields").index(i);
        if !["In", "NotIn"].contains(&e.get(k::OPERATOR).str()) {
            errs.invalid(&at.child("operator"), e.get(k::OPERATOR).str(), "not a valid selector operator");
        } else if e.get(k::VALUES).len() != 1 {
            let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errs.required(&at.child("values"), detail);
        }
        if e.get(k::KEY).str() != "metadata.name" {
            errs.invalid(&at.child("key"), e.get(k::KEY).str(), "not a valid field selector key");
        }
    }
}

fn pod_term(errs: &mut ErrorList, term: Ref<'_>, at: &Path) {
    rules::label_selector(errs, term.get(k::LABEL_SELECTOR), &at.child("labelSelector"));
    rules::label_selector(errs, term.get(k::NAMESPACE_SELECTOR), &at.child("namespaceSelector"));
    for (i, name) in term.get(k::NAMESPACES).items().enumerate() {
        complain(errs, &at.child("namespaces").index(i), name.str(), validation::dns1123_label(name.str()));
    }
    let key = term.get(k::TOPOLOGY_KEY).str();
    if key.is_empty() {
        errs.required(&at.child("topologyKey"), "can not be empty");
    } else {
        complain(errs, &at.child("topologyKey"), key, validation::qualified_name(key));
    }
}

/// Topology spread constraints.
pub(crate) fn spread(errs: &mut ErrorList, list: Ref<'_>, at: &Path) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (i, c) in list.items().enumerate() {
        let at = at.index(i);
        if c.get(k::MAX_SKEW).i64() <= 0 {
            errs.invalid(&at.child("maxSkew"), c.get(k::MAX_SKEW).i64(), "must be greater than zero");
        }
        let key = c.get(k::TOPOLOGY_KEY).str();
        if key.is_empty() {
            errs.required(&at.child("topologyKey"), "can not be empty");
        }
        let action = c.get(k::WHEN_UNSATISFIABLE);
        if required(errs, action, &at.child("whenUnsatisfiable")) {
            rules::one_of(errs, action, &at.child("whenUnsatisfiable"), &["DoNotSchedule", "ScheduleAnyway"]);
        }
        if seen.contains(&(key, action.str())) {
            let pair = format!("{{{key}, {}}}", action.str());
            errs.duplicate(&at.child("{topologyKey, whenUnsatisfiable}"), &*pair);
        }
        seen.push((key, action.str()));
        let domains = c.get(k::MIN_DOMAINS);
        if domains.is_set() && domains.i64() <= 0 {
            errs.invalid(&at.child("minDomains"), domains.i64(), "must be greater than zero");
        }
        if domains.is_set() && action.str() != "DoNotSchedule" {
            let detail =
                format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}", action.str());
            errs.invalid(&at.child("minDomains"), domains.i64(), &detail);
        }
        label_keys(errs, c, &at);
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            none_or_one_of(errs, c.get(policy), &at.child(policy), &["Honor", "Ignore"]);
        }
        rules::label_selector(errs, c.get(k::LABEL_SELECTOR), &at.child("labelSelector"));
    }
}

/// Labels whose values a constraint takes from the pod: each is a label, and none that the selector names itself.
fn label_keys(errs: &mut ErrorList, constraint: Ref<'_>, at: &Path) {
    let (keys, at) = (constraint.get(k::MATCH_LABEL_KEYS), at.child("matchLabelKeys"));
    let selector = constraint.get(k::LABEL_SELECTOR);
    if !keys.is_empty() && !selector.is_set() {
        errs.forbidden(&at, "must not be specified when labelSelector is not set");
    }
    for (i, key) in keys.items().enumerate() {
        let (name, at) = (key.str(), at.index(i));
        complain(errs, &at, name, validation::qualified_name(name));
        let named = selector.get(k::MATCH_LABELS).get(name).exists()
            || selector.get(k::MATCH_EXPRESSIONS).items().any(|e| e.get(k::KEY).str() == name);
        if named {
            errs.invalid(&at, name, "exists in both matchLabelKeys and labelSelector");
        }
    }
}
