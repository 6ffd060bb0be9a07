//! The RBAC kinds: who may do what. That nobody grants what he does not have is the authorizer's to check.
//! Upstream: pkg/registry/rbac, pkg/apis/rbac/validation.

use std::borrow::Cow;

use apimachinery::field::{ErrorList, Path};
use apimachinery::{Doc, Ref, k, validation};

use crate::core::pod_defaults::each;
use crate::kind::*;
use crate::print::{AGE, CREATED_AT, NAME};
use crate::rules::{complain, label_selector, one_of, required};

const GROUP: &str = "rbac.authorization.k8s.io";

/// The group's kinds.
pub(crate) fn kinds() -> Vec<Kind> {
    let role = |o: Ref<'_>, _| {
        let role = o.get(k::ROLE_REF);
        Cell::from(format!("{}/{}", role.get(k::KIND).str(), role.get(k::NAME).str()))
    };
    let subjects = |kind: &'static str| -> fn(Ref<'_>, base::time::Timestamp) -> Cell {
        match kind {
            "User" => |o, _| named(o, "User"),
            "Group" => |o, _| named(o, "Group"),
            _ => |o, _| named(o, "ServiceAccount"),
        }
    };
    let rules = || Cow::Owned(vec![NAME, CREATED_AT]);
    let bindings = || {
        Cow::Owned(vec![
            NAME,
            Column::code("Role", "string", "What it grants.", role),
            AGE,
            Column::code("Users", "string", "Users it grants it to.", subjects("User")).wide(),
            Column::code("Groups", "string", "Groups it grants it to.", subjects("Group")).wide(),
            Column::code(
                "ServiceAccounts",
                "string",
                "Service accounts it grants it to.",
                subjects("ServiceAccount"),
            )
            .wide(),
        ])
    };
    let kind = |resource, name, scope, columns, strategy| Kind {
        scope,
        columns,
        strategy,
        name_rule: NameRule::PathSegment,
        ..Kind::new(GROUP, "v1", resource, name)
    };
    vec![
        kind("clusterrolebindings", "ClusterRoleBinding", Scope::Cluster, bindings(), &Binding)
            .defaults(defaults),
        kind("clusterroles", "ClusterRole", Scope::Cluster, rules(), &Role),
        kind("rolebindings", "RoleBinding", Scope::Namespaced, bindings(), &Binding).defaults(defaults),
        kind("roles", "Role", Scope::Namespaced, rules(), &Role),
    ]
}

fn named(binding: Ref<'_>, kind: &str) -> Cell {
    let of = binding.get(k::SUBJECTS).items().filter(|s| s.get(k::KIND).str() == kind);
    let all: Vec<String> = of
        .map(|s| match kind {
            "ServiceAccount" => format!("{}/{}", s.get(k::NAMESPACE).str(), s.get(k::NAME).str()),
            _ => s.get(k::NAME).str().to_owned(),
        })
        .collect();
    Cell::from(all.join(", "))
}

fn defaults(doc: &mut Doc) {
    if doc.get(k::ROLE_REF).get(k::API_GROUP).str().is_empty() {
        doc.edit().at(k::ROLE_REF).set(k::API_GROUP, GROUP);
    }
    each(&mut doc.edit(), k::SUBJECTS, |mut subject| {
        let group = ["User", "Group"].contains(&subject.read().get(k::KIND).str());
        if group && subject.read().get(k::API_GROUP).str().is_empty() {
            subject.set(k::API_GROUP, GROUP);
        }
    });
}

struct Role;

impl Strategy for Role {
    fn validate(&self, _op: &Op<'_>, new: &Doc, _old: Option<&Doc>, errs: &mut ErrorList) {
        let namespaced = !new.get(k::METADATA).get(k::NAMESPACE).str().is_empty();
        for (i, rule) in new.get(k::RULES).items().enumerate() {
            let at = Path::new("rules").index(i);
            if rule.get(k::VERBS).is_empty() {
                errs.required(&at.child("verbs"), "verbs must contain at least one value");
            }
            let urls = rule.get(k::NON_RESOURCE_URLS);
            if !urls.is_empty() {
                if namespaced {
                    errs.invalid(
                        &at.child("nonResourceURLs"),
                        urls,
                        "namespaced rules cannot apply to non-resource URLs",
                    );
                }
                let names = [k::API_GROUPS, k::RESOURCES, k::RESOURCE_NAMES];
                if names.iter().any(|key| !rule.get(*key).is_empty()) {
                    let detail = "rules cannot apply to both regular resources and non-resource URLs";
                    errs.invalid(&at.child("nonResourceURLs"), urls, detail);
                }
                continue;
            }
            if rule.get(k::API_GROUPS).is_empty() {
                errs.required(&at.child("apiGroups"), "resource rules must supply at least one api group");
            }
            if rule.get(k::RESOURCES).is_empty() {
                errs.required(&at.child("resources"), "resource rules must supply at least one resource");
            }
        }
        let aggregate = new.get(k::AGGREGATION_RULE);
        let at = Path::new("aggregationRule").child("clusterRoleSelectors");
        if aggregate.is_set() && aggregate.get(k::CLUSTER_ROLE_SELECTORS).is_empty() {
            errs.required(&at, "at least one clusterRoleSelector required if aggregationRule is non-nil");
        }
        for (i, selector) in aggregate.get(k::CLUSTER_ROLE_SELECTORS).items().enumerate() {
            label_selector(errs, selector, &at.index(i));
        }
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}

struct Binding;

impl Strategy for Binding {
    fn validate(&self, _op: &Op<'_>, new: &Doc, old: Option<&Doc>, errs: &mut ErrorList) {
        let (role, at) = (new.get(k::ROLE_REF), Path::new("roleRef"));
        let namespaced = !new.get(k::METADATA).get(k::NAMESPACE).str().is_empty();
        let group = role.get(k::API_GROUP).str();
        if group != GROUP {
            errs.not_supported(&at.child("apiGroup"), group, &[GROUP]);
        }
        let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
        if !kinds.contains(&role.get(k::KIND).str()) {
            errs.not_supported(&at.child("kind"), role.get(k::KIND).str(), kinds);
        }
        let name = role.get(k::NAME).str();
        if required(errs, role.get(k::NAME), &at.child("name")) {
            complain(errs, &at.child("name"), name, validation::path_segment(name));
        }
        for (i, subject) in new.get(k::SUBJECTS).items().enumerate() {
            subject_rules(errs, subject, namespaced, &Path::new("subjects").index(i));
        }
        if let Some(old) = old {
            let was = old.get(k::ROLE_REF);
            if !role.same(was) {
                errs.invalid(&at, role, "cannot change roleRef");
            }
        }
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}

fn subject_rules(errs: &mut ErrorList, subject: Ref<'_>, namespaced: bool, at: &Path) {
    let name = subject.get(k::NAME).str();
    required(errs, subject.get(k::NAME), &at.child("name"));
    let group = subject.get(k::API_GROUP).str();
    match subject.get(k::KIND).str() {
        "ServiceAccount" => {
            if !name.is_empty() {
                complain(errs, &at.child("name"), name, validation::dns1123_subdomain(name));
            }
            if !group.is_empty() {
                errs.not_supported(&at.child("apiGroup"), group, &[""]);
            }
            if !namespaced && subject.get(k::NAMESPACE).str().is_empty() {
                errs.required(&at.child("namespace"), "");
            }
        }
        "User" | "Group" if group != GROUP => errs.not_supported(&at.child("apiGroup"), group, &[GROUP]),
        _ => one_of(errs, subject.get(k::KIND), &at.child("kind"), &["ServiceAccount", "User", "Group"]),
    }
}
