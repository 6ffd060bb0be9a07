//! What no row of the list asks for, and clusters need.

use std::collections::BTreeMap;

use apimachinery::{Doc, doc, k};

use crate::cluster::play;

#[test]
fn a_cluster_role_that_sums_up_others_follows_them() {
    play(|c| async move {
        let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
        let of = |label: &str| doc!([{ "matchLabels": { label: "true" } }]);
        let sum = |name: &str, label: &str, selectors: Doc| {
            let mut role = doc!({ "metadata": { "name": name, "labels": { label: "true" } } });
            role.edit().at("aggregationRule").set("clusterRoleSelectors", selectors);
            role
        };
        let rule = |name: &str, resource: &str| {
            doc!({ "metadata": { "name": name, "labels": { "in": "true" } },
                "rules": [{ "apiGroups": [""], "resources": [resource], "verbs": ["get"] }] })
        };
        for role in [
            sum("sum", "none", of("up")),
            sum("inner", "up", of("in")),
            rule("a", "pods"),
            rule("b", "secrets"),
        ] {
            c.post(roles, &role).await.ok();
        }
        c.until_one(roles, "sum", "it has what a sum in it has", |sum| sum.get(k::RULES).len() == 2).await;
    });
}

#[test]
fn a_range_of_service_addresses_stays_until_they_are_given_back() {
    play(|c| async move {
        let ranges = "/apis/networking.k8s.io/v1/servicecidrs";
        let is = |all: &BTreeMap<String, Doc>, name: &str, status: &str| {
            all.get(name).is_some_and(|range| {
                range.root().find("status.conditions").item(0).get(k::STATUS).str() == status
                    && range.root().find("metadata.finalizers").len() == 1
            })
        };
        let more = doc!({ "metadata": { "name": "more" }, "spec": { "cidrs": ["10.97.0.0/24"] } });
        c.post(ranges, &more).await.ok();
        c.until(ranges, "both are ready", |all| is(all, "kubernetes", "True") && is(all, "more", "True"))
            .await;
        let services = c.at("/api/v1", "services");
        let there = doc!({ "metadata": { "name": "there" }, "spec": { "clusterIP": "10.97.0.7", "ports": [{ "port": 80 }] } });
        c.post(&services, &there).await.ok();
        c.delete(&format!("{ranges}/more")).await.ok();
        c.until(ranges, "it waits for its address", |all| is(all, "more", "False")).await;
        c.delete(&format!("{services}/there")).await.ok();
        c.until(ranges, "it is gone", |all| all.len() == 1).await;
    });
}
