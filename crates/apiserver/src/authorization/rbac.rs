//! Roles and bindings.
//!
//! What they say is reckoned once and again only when one of them changes; a decision then looks up the caller's
//! name and groups. Upstream: plugin/pkg/auth/authorizer/rbac, pkg/registry/rbac/validation.

use std::sync::Arc;

use apimachinery::call::User;
use apimachinery::gvk::GroupResource;
use apimachinery::{Ref, k};
use arc_swap::ArcSwapOption;
use base::hash::Map;

use super::{Attributes, Authorizer, Decision};
use crate::cacher::Lister;

const GROUP: &str = "rbac.authorization.k8s.io";
const ROLES: GroupResource = GroupResource::new(GROUP, "roles");
const CLUSTER_ROLES: GroupResource = GroupResource::new(GROUP, "clusterroles");
const ROLE_BINDINGS: GroupResource = GroupResource::new(GROUP, "rolebindings");
const CLUSTER_ROLE_BINDINGS: GroupResource = GroupResource::new(GROUP, "clusterrolebindings");

/// Decides by the cluster's roles and bindings.
pub struct Rbac {
    lister: Arc<dyn Lister>,
    // Invariant: reckoned from the objects at the revision it names.
    policy: ArcSwapOption<Policy>,
}

/// One rule of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// What may be done.
    pub verbs: Vec<String>,
    /// In which groups.
    pub groups: Vec<String>,
    /// To which resources, with `/` before a subresource.
    pub resources: Vec<String>,
    /// To which objects; empty for all.
    pub names: Vec<String>,
    /// To which paths.
    pub paths: Vec<String>,
}

/// A binding's rules, and where they hold.
struct Grant {
    /// `None` in the whole cluster.
    namespace: Option<String>,
    rules: Arc<[Rule]>,
    why: String,
}

#[derive(Default)]
struct Policy {
    revision: [u64; 4],
    grants: Vec<Grant>,
    users: Map<String, Vec<usize>>,
    groups: Map<String, Vec<usize>>,
}

impl Rbac {
    /// Reads roles and bindings from `lister`.
    pub fn new(lister: Arc<dyn Lister>) -> Rbac {
        Rbac { lister, policy: ArcSwapOption::empty() }
    }

    /// Everything that `user` may do in `namespace`, for rules reviews and escalation checks.
    pub fn rules_for(&self, user: &User, namespace: &str) -> Vec<Rule> {
        let policy = self.policy();
        let grants = policy.grants_of(user).filter(|g| g.namespace.as_deref().is_none_or(|n| n == namespace));
        grants.flat_map(|g| g.rules.iter().cloned()).collect()
    }

    fn policy(&self) -> Arc<Policy> {
        let revision = [&ROLES, &CLUSTER_ROLES, &ROLE_BINDINGS, &CLUSTER_ROLE_BINDINGS]
            .map(|r| self.lister.last_change(r));
        if let Some(policy) = self.policy.load_full().filter(|p| p.revision == revision) {
            return policy;
        }
        let policy = Arc::new(Policy::reckon(&*self.lister, revision));
        self.policy.store(Some(Arc::clone(&policy)));
        policy
    }
}

impl Policy {
    fn reckon(lister: &dyn Lister, revision: [u64; 4]) -> Policy {
        let mut policy = Policy { revision, ..Policy::default() };
        let mut roles: Map<(String, String), Arc<[Rule]>> = Map::default();
        for resource in [&ROLES, &CLUSTER_ROLES] {
            for item in lister.list(resource, "") {
                let doc = item.kept();
                let meta = doc.get(k::METADATA);
                let key = (meta.get(k::NAMESPACE).str().to_owned(), meta.get(k::NAME).str().to_owned());
                roles.insert(key, doc.get(k::RULES).items().map(read_rule).collect());
            }
        }
        for (resource, kind) in
            [(&CLUSTER_ROLE_BINDINGS, "ClusterRoleBinding"), (&ROLE_BINDINGS, "RoleBinding")]
        {
            for item in lister.list(resource, "") {
                policy.add_binding(item.kept().root(), kind, &roles);
            }
        }
        policy
    }

    fn add_binding(&mut self, binding: Ref<'_>, kind: &str, roles: &Map<(String, String), Arc<[Rule]>>) {
        let meta = binding.get(k::METADATA);
        let namespace = meta.get(k::NAMESPACE).str();
        let role = binding.get(k::ROLE_REF);
        let (role_kind, role_name) = (role.get(k::KIND).str(), role.get(k::NAME).str());
        let home = if role_kind == "Role" { namespace } else { "" };
        let Some(rules) = roles.get(&(home.to_owned(), role_name.to_owned())) else { return };
        let at = self.grants.len();
        self.grants.push(Grant {
            namespace: (kind == "RoleBinding").then(|| namespace.to_owned()),
            rules: Arc::clone(rules),
            why: format!("{kind} {:?} of {role_kind} {role_name:?}", meta.get(k::NAME).str()),
        });
        for subject in binding.get(k::SUBJECTS).items() {
            let name = subject.get(k::NAME).str();
            match subject.get(k::KIND).str() {
                "User" => self.users.entry(name.to_owned()).or_default().push(at),
                "Group" => self.groups.entry(name.to_owned()).or_default().push(at),
                "ServiceAccount" => {
                    let of = subject.get(k::NAMESPACE).str();
                    let of = if of.is_empty() { namespace } else { of };
                    self.users.entry(format!("system:serviceaccount:{of}:{name}")).or_default().push(at);
                }
                _ => {}
            }
        }
    }

    fn grants_of<'a>(&'a self, user: &'a User) -> impl Iterator<Item = &'a Grant> {
        let by_name = self.users.get(&user.name).into_iter().flatten();
        let by_group = user.groups.iter().filter_map(|g| self.groups.get(g)).flatten();
        by_name.chain(by_group).map(|at| &self.grants[*at])
    }
}

/// A rule as the API has it.
pub fn read_rule(rule: Ref<'_>) -> Rule {
    let list = |key| rule.get(key).items().map(|i: Ref<'_>| i.str().to_owned()).collect();
    Rule {
        verbs: list(k::VERBS),
        groups: list(k::API_GROUPS),
        resources: list(k::RESOURCES),
        names: list(k::RESOURCE_NAMES),
        paths: list(k::NON_RESOURCE_URLS),
    }
}

impl Rule {
    /// Whether it allows what is asked.
    pub fn allows(&self, a: &Attributes<'_>) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|item| item == "*" || item == wanted);
        if !has(&self.verbs, a.verb) {
            return false;
        }
        if !a.is_resource() {
            return self.paths.iter().any(|path| covers(path, a.path));
        }
        let named = self.names.is_empty() || self.names.iter().any(|n| n == a.name);
        named && has(&self.groups, a.group) && self.resources.iter().any(|r| resource_fits(r, a))
    }

    /// Whether it allows everything that `part` does, a rule with at most one item a list.
    pub fn covers(&self, part: &Rule) -> bool {
        let has = |list: &[String], wanted: &[String]| {
            list.iter().any(|item| item == "*") || wanted.iter().all(|w| list.contains(w))
        };
        let resource = |wanted: &String| {
            let sub = wanted.split_once('/').map(|(_, sub)| format!("*/{sub}"));
            self.resources.iter().any(|r| r == "*" || r == wanted || Some(r) == sub.as_ref())
        };
        let named = self.names.is_empty()
            || (!part.names.is_empty() && part.names.iter().all(|name| self.names.contains(name)));
        named
            && has(&self.verbs, &part.verbs)
            && has(&self.groups, &part.groups)
            && part.resources.iter().all(resource)
            && part.paths.iter().all(|path| self.paths.iter().any(|own| covers(own, path)))
    }
}

fn resource_fits(rule: &str, a: &Attributes<'_>) -> bool {
    if rule == "*" {
        return true;
    }
    match rule.split_once('/') {
        None => a.subresource.is_empty() && rule == a.resource,
        Some(("*", sub)) => sub == a.subresource,
        Some((resource, sub)) => resource == a.resource && sub == a.subresource,
    }
}

fn covers(rule: &str, path: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None => rule == path,
    }
}

impl Authorizer for Rbac {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let policy = self.policy();
        for grant in policy.grants_of(attributes.user) {
            let here = grant
                .namespace
                .as_deref()
                .is_none_or(|n| !attributes.namespace.is_empty() && n == attributes.namespace);
            if here && grant.rules.iter().any(|rule| rule.allows(attributes)) {
                return Decision::Allow(format!("RBAC: allowed by {}", grant.why));
            }
        }
        Decision::NoOpinion(String::new())
    }
}

impl Authorizer for Arc<Rbac> {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        self.as_ref().authorize(attributes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask<'a>(user: &'a User, verb: &'a str, resource: &'a str, name: &'a str) -> Attributes<'a> {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let (resource, path) = if resource.is_empty() { ("", name) } else { (resource, "") };
        Attributes {
            version: "v1",
            resource,
            subresource,
            namespace: "a",
            name,
            path,
            ..Attributes::of(user, verb)
        }
    }

    fn rule(verbs: &str, resources: &str, names: &str, paths: &str) -> Rule {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        Rule {
            verbs: list(verbs),
            groups: vec![String::new()],
            resources: list(resources),
            names: list(names),
            paths: list(paths),
        }
    }

    #[test]
    fn a_rule_allows_what_it_names() {
        let user = User::new("u", &[]);
        let table = [
            (rule("get", "pods", "", ""), "get", "pods", "x", true),
            (rule("get", "pods", "", ""), "get", "pods/log", "x", false),
            (rule("get", "*", "", ""), "get", "pods/log", "x", true),
            (rule("get", "*/log", "", ""), "get", "pods/log", "x", true),
            (rule("*", "pods/log", "", ""), "delete", "pods/log", "x", true),
            (rule("get", "pods", "y", ""), "get", "pods", "x", false),
            (rule("get", "pods", "x y", ""), "get", "pods", "x", true),
            (rule("get", "pods", "x", ""), "list", "pods", "", false),
            (rule("get", "", "", "/api/*"), "get", "", "/api/v1", true),
            (rule("get", "", "", "/api"), "get", "", "/api/v1", false),
        ];
        for (rule, verb, resource, name, expected) in table {
            assert_eq!(
                rule.allows(&ask(&user, verb, resource, name)),
                expected,
                "{rule:?} {verb} {resource} {name}"
            );
        }
    }
}
