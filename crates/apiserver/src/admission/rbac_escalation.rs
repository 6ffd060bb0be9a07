//! Nobody grants what he does not have: roles hold only rights of whoever writes them, and bindings name only roles
//! whose rights whoever binds has. The verbs `escalate` and `bind` on a role lift that.
//!
//! A name, a label or any other field counts as much as the rules do, since bindings and aggregation go by them.
//! Upstream: pkg/registry/rbac/{escalation_check.go,*/policybased}, component-helpers/auth/rbac/validation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use apimachinery::call::BoxFuture;
use apimachinery::gvk::GroupResource;
use apimachinery::{Doc, Status, k};

use super::{Attributes, Operation, Plugin};
use crate::authorization::rbac::{Rbac, Rule, read_rule};
use crate::authorization::{self, Decision, decide};
use crate::cacher::Lister;

const GROUP: &str = "rbac.authorization.k8s.io";
/// How many single rights one object may grant that have to be looked at one by one: a rule's lists multiply.
const PARTS_MAX: usize = 20_000;

/// The plugin.
pub struct RbacEscalation;

impl Plugin for RbacEscalation {
    fn name(&self) -> &'static str {
        "RBACEscalation"
    }

    fn validate<'a>(&'a self, attributes: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move { check(attributes) })
    }
}

fn check(attributes: &Attributes<'_>) -> Result<(), Status> {
    let resource = attributes.resource();
    let user = &attributes.request.user;
    if resource.group != GROUP
        || attributes.operation == Operation::Delete
        || user.groups.iter().any(|g| g == "system:masters")
        || attributes.old.is_some_and(|old| only_collectors_fields_differ(old, &attributes.object))
    {
        return Ok(());
    }
    match &*resource.resource {
        "roles" | "clusterroles" => role(attributes),
        "rolebindings" | "clusterrolebindings" => binding(attributes),
        _ => Ok(()),
    }
}

fn role(attributes: &Attributes<'_>) -> Result<(), Status> {
    if may(attributes, "escalate", &attributes.resource().resource, attributes.name) {
        return Ok(());
    }
    let new = &attributes.object;
    let aggregates = |doc: &Doc| doc.get(k::AGGREGATION_RULE).is_set();
    if aggregates(new) || attributes.old.is_some_and(aggregates) {
        let everything = |groups: &[&str], resources: &[&str], paths: &[&str]| {
            let list = |of: &[&str]| of.iter().map(|s| (*s).to_owned()).collect();
            Rule {
                verbs: list(&["*"]),
                groups: list(groups),
                resources: list(resources),
                paths: list(paths),
                names: vec![],
            }
        };
        let all = [everything(&["*"], &["*"], &[]), everything(&[], &[], &["*"])];
        if confirm(attributes, &all).is_err() {
            return Err(attributes.forbidden("must have cluster-admin privileges to use the aggregationRule"));
        }
    }
    let rules: Vec<Rule> = new.get(k::RULES).items().map(read_rule).collect();
    confirm(attributes, &rules)
}

fn binding(attributes: &Attributes<'_>) -> Result<(), Status> {
    let role = attributes.object.get(k::ROLE_REF);
    let name = role.get(k::NAME).str();
    let (resource, namespace) = match role.get(k::KIND).str() {
        "Role" => ("roles", attributes.namespace()),
        _ => ("clusterroles", ""),
    };
    if may(attributes, "bind", resource, name) {
        return Ok(());
    }
    let resource = GroupResource::new(GROUP, if resource == "roles" { "roles" } else { "clusterroles" });
    let item = attributes
        .request
        .api
        .cacher
        .get(&resource, namespace, name)
        .ok_or_else(|| Status::not_found(&resource, name))?;
    let rules: Vec<Rule> = item.kept().get(k::RULES).items().map(read_rule).collect();
    confirm(attributes, &rules)
}

fn may(attributes: &Attributes<'_>, verb: &str, resource: &str, name: &str) -> bool {
    let user = &attributes.request.user;
    let asked = authorization::Attributes {
        group: GROUP,
        version: "v1",
        resource,
        namespace: attributes.namespace(),
        name,
        ..authorization::Attributes::of(user, verb)
    };
    matches!(decide(&attributes.request.api.authorization, &asked), Decision::Allow(_))
}

/// Refuses rules that the caller's own do not cover.
fn confirm(attributes: &Attributes<'_>, rules: &[Rule]) -> Result<(), Status> {
    let user = &attributes.request.user;
    if rules.iter().map(size).fold(0, usize::saturating_add) > PARTS_MAX {
        let why = format!(
            "rules that grant more than {PARTS_MAX} single rights are granted only by cluster admins"
        );
        return Err(attributes.forbidden(&why));
    }
    let lister: Arc<dyn Lister> = attributes.request.api.cacher.clone();
    let own = Rbac::new(lister).rules_for(user, attributes.namespace());
    let missing = missing(&own, rules);
    if missing.is_empty() {
        return Ok(());
    }
    Err(attributes.forbidden(&format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        quoted(&user.groups),
        missing.join("\n")
    )))
}

/// What garbage collection changes in any object grants nothing.
fn only_collectors_fields_differ(old: &Doc, new: &Doc) -> bool {
    let rest = |doc: &Doc| {
        let mut doc = doc.clone();
        let mut meta = doc.edit().at(k::METADATA);
        for key in [k::OWNER_REFERENCES, k::FINALIZERS, k::MANAGED_FIELDS, k::RESOURCE_VERSION, k::GENERATION]
        {
            meta.remove(key);
        }
        doc
    };
    rest(old).root().same(rest(new).root())
}

/// The parts of `rules` that no rule of `own` covers, described. A rule is taken apart so that several rules may
/// cover it together.
fn missing(own: &[Rule], rules: &[Rule]) -> Vec<String> {
    let mut verbs: BTreeMap<(String, String, String, String), Vec<String>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for part in rules.iter().flat_map(parts) {
        if own.iter().any(|rule| rule.covers(&part)) {
            continue;
        }
        let text = |list: &[String]| list.first().cloned().unwrap_or_default();
        let of = (text(&part.groups), text(&part.resources), text(&part.paths), text(&part.names));
        if seen.insert((of.clone(), text(&part.verbs))) {
            verbs.entry(of).or_default().extend(part.verbs);
        }
    }
    let mut out: Vec<String> = verbs.into_iter().map(|(of, verbs)| describe(&of, &verbs)).collect();
    out.sort_unstable();
    out
}

fn describe((group, resource, path, name): &(String, String, String, String), verbs: &[String]) -> String {
    let mut fields = Vec::new();
    if path.is_empty() {
        fields.push(format!("APIGroups:[{group:?}]"));
        fields.push(format!("Resources:[{resource:?}]"));
        if !name.is_empty() {
            fields.push(format!("ResourceNames:[{name:?}]"));
        }
    } else {
        fields.push(format!("NonResourceURLs:[{path:?}]"));
    }
    fields.push(format!("Verbs:{}", quoted(verbs)));
    format!("{{{}}}", fields.join(", "))
}

/// As Go prints a list of strings with `%q`.
fn quoted(list: &[String]) -> String {
    let all: Vec<String> = list.iter().map(|s| format!("{s:?}")).collect();
    format!("[{}]", all.join(" "))
}

/// How many parts a rule has.
fn size(rule: &Rule) -> usize {
    let objects =
        rule.groups.len().saturating_mul(rule.resources.len()).saturating_mul(rule.names.len().max(1));
    rule.verbs.len().saturating_mul(objects.saturating_add(rule.paths.len()))
}

/// One rule for each verb of each resource, or path, that a rule names.
fn parts(rule: &Rule) -> Vec<Rule> {
    let mut out = Vec::new();
    let one = |text: &String| vec![text.clone()];
    for verb in &rule.verbs {
        for path in &rule.paths {
            out.push(Rule { verbs: one(verb), paths: one(path), ..Rule::default() });
        }
        for group in &rule.groups {
            for resource in &rule.resources {
                let part = Rule {
                    verbs: one(verb),
                    groups: one(group),
                    resources: one(resource),
                    ..Rule::default()
                };
                if rule.names.is_empty() {
                    out.push(part.clone());
                }
                out.extend(rule.names.iter().map(|name| Rule { names: one(name), ..part.clone() }));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &str, groups: &str, resources: &str, names: &str, paths: &str) -> Rule {
        let list = |text: &str| text.split_whitespace().map(|w| w.replace("core", "")).collect();
        Rule {
            verbs: list(verbs),
            groups: list(groups),
            resources: list(resources),
            names: list(names),
            paths: list(paths),
        }
    }

    #[test]
    fn rights_are_covered_part_by_part() {
        let all = rule("*", "*", "*", "", "");
        let get_pods = rule("get", "core", "pods", "", "");
        let both = [get_pods.clone(), rule("list", "core", "pods services", "", "")];
        let get_x = rule("get", "core", "pods", "x", "");
        for (own, granted, expected) in [
            (std::slice::from_ref(&all), rule("* get", "core apps", "pods/log *", "x", ""), vec![]),
            (
                std::slice::from_ref(&all),
                rule("get", "", "", "", "/x"),
                vec![r#"{NonResourceURLs:["/x"], Verbs:["get"]}"#],
            ),
            (&both[..], rule("get list", "core", "pods", "", ""), vec![]),
            (
                &both[..],
                rule("get list", "core", "services", "", ""),
                vec![r#"{APIGroups:[""], Resources:["services"], Verbs:["get"]}"#],
            ),
            (
                &both[..],
                rule("*", "core", "pods", "", ""),
                vec![r#"{APIGroups:[""], Resources:["pods"], Verbs:["*"]}"#],
            ),
            (
                &both[..],
                rule("get", "core", "pods/log", "", ""),
                vec![r#"{APIGroups:[""], Resources:["pods/log"], Verbs:["get"]}"#],
            ),
            (&both[..], get_x.clone(), vec![]),
            (
                std::slice::from_ref(&get_x),
                get_pods,
                vec![r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#],
            ),
            (
                std::slice::from_ref(&get_x),
                rule("get delete update", "core", "pods", "x y", ""),
                vec![
                    r#"{APIGroups:[""], Resources:["pods"], ResourceNames:["x"], Verbs:["delete" "update"]}"#,
                    r#"{APIGroups:[""], Resources:["pods"], ResourceNames:["y"], Verbs:["get" "delete" "update"]}"#,
                ],
            ),
            (&[rule("get", "", "", "", "/api/*")][..], rule("get", "", "", "", "/api/v1"), vec![]),
            (
                &[rule("get", "apps", "*/scale", "", "")][..],
                rule("get", "apps", "deployments/scale", "", ""),
                vec![],
            ),
        ] {
            assert_eq!(missing(own, std::slice::from_ref(&granted)), expected, "{own:?} {granted:?}");
        }
    }
}
