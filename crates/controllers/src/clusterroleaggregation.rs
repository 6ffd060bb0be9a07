//! ClusterRoles that are sums: those with an `aggregationRule` hold the rules of all roles that it selects.
//! Upstream: pkg/controller/clusterroleaggregation.

use apimachinery::call::BoxFuture;
use apimachinery::selector::Selector;
use apimachinery::{Doc, Ref, k};
use client::cache::Entering;
use client::gvr::CLUSTER_ROLES;
use client::{Error, ObjectKey};

use crate::manager::{Action, Controller, Ctx, Read, Rule, Wakes, nothing};
use crate::objects::{self, Seen};

/// The declaration. Keys are roles with a rule; any role's change wakes them all, since there are few.
pub const CLUSTER_ROLE_AGGREGATION: Controller = Controller {
    name: "clusterrole-aggregation-controller",
    component: "",
    workers: 1,
    reads: &[Read {
        gvr: CLUSTER_ROLES,
        indexes: &[("every", |_| vec![String::new()]), ("sums", sums)],
        wakes: Wakes::Through {
            index: "every",
            map: |ctx, _, _| {
                ctx.cache(&CLUSTER_ROLES)
                    .by_index("sums", "")
                    .iter()
                    .map(|role| ObjectKey::of(role))
                    .collect()
            },
        },
    }],
    writes: &[Rule {
        group: "rbac.authorization.k8s.io",
        resources: &["clusterroles"],
        verbs: &["escalate", "get", "list", "patch", "update", "watch"],
    }],
    every_kind: None,
    reconcile: |ctx, key| -> BoxFuture<'static, _> { Box::pin(async move { reconcile(&ctx, &key).await }) },
    begin: nothing,
};

fn sums(role: &Entering<'_>) -> Vec<String> {
    if role.root().get(k::AGGREGATION_RULE).is_set() { vec![String::new()] } else { Vec::new() }
}

async fn reconcile(ctx: &Ctx, key: &ObjectKey) -> Result<Action, Error> {
    let cache = ctx.cache(&CLUSTER_ROLES);
    let Some(mut role) = cache.get_key(key).map(|stored| stored.doc()) else { return Ok(Action::Done) };
    if !role.get(k::AGGREGATION_RULE).is_set() {
        return Ok(Action::Done);
    }
    let all: Vec<Seen> = cache.list().into_iter().map(Seen::new).collect();
    let rules = sum(&role, &all);
    let now = role.get(k::RULES);
    if now.len() == rules.len() && now.items().zip(&rules).all(|(is, wanted)| is.same(*wanted)) {
        return Ok(Action::Done);
    }
    let rules: Vec<Doc> = rules.into_iter().map(|rule| rule.to_doc()).collect();
    role.edit().set(k::RULES, rules);
    let written = ctx.client.resource(CLUSTER_ROLES).update(role).await?;
    ctx.wrote(key, &CLUSTER_ROLES, &written);
    Ok(Action::Done)
}

/// The rules of the selected roles, each once: by selector, then by the roles' names.
fn sum<'a>(role: &Doc, all: &'a [Seen]) -> Vec<Ref<'a>> {
    let mut out: Vec<Ref<'a>> = Vec::new();
    let own = objects::name(role.root());
    for selector in role.get(k::AGGREGATION_RULE).get(k::CLUSTER_ROLE_SELECTORS).items() {
        // Validation refuses what cannot be read.
        let Ok(selector) = Selector::from_label_selector(selector) else { continue };
        let selected = all.iter().filter(|other| {
            other.stored.name() != own && objects::selects(&selector, objects::labels(other.root()))
        });
        for rule in selected.flat_map(|other| other.root().get(k::RULES).items()) {
            if !out.iter().any(|known| known.same(rule)) {
                out.push(rule);
            }
        }
    }
    out
}
