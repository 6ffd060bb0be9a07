//! What is served, as clients ask for it: `/api`, `/apis` and below, classic and aggregated.
//!
//! Upstream: k8s.io/apiserver/pkg/endpoints/discovery.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{Kind, Scope, Sub};
use apimachinery::call::{BoxFuture, Media, Raw, RawBody};
use apimachinery::gvk::GroupVersion;
use apimachinery::{Call, Doc, Reply, Status, doc, k};

use crate::kinds::Table;
use crate::paths::gets;
use crate::{Api, PathHandler};

/// Answers `/api`, `/apis` and the groups and versions below.
pub struct Discovery;

impl PathHandler for Discovery {
    fn serves(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        path == "/api" || path == "/apis" || path.starts_with("/api/") || path.starts_with("/apis/")
    }

    fn answer<'a>(&'a self, api: &'a Arc<Api>, path: &'a str, call: &'a Call) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            let reply = answer(&api.kinds.table(), path, call);
            let segments = path.split('/').filter(|s| !s.is_empty()).count();
            // The groups are told by upstream's aggregator, which asks for no method.
            let groups = path.starts_with("/apis") && segments < 3;
            if groups || matches!(reply, Reply::Status(_)) { reply } else { gets(call, reply) }
        })
    }
}

fn answer(table: &Table, path: &str, call: &Call) -> Reply {
    let words: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    let doc = match words.as_slice() {
        ["api"] | ["apis"] if let Some(version) = wants_aggregated(call) => {
            return aggregated(table, words[0] == "api", version);
        }
        ["api"] => {
            let mut out = doc!({ "kind": "APIVersions", "versions": ["v1"],
                "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": "" }] });
            // Only protobuf needs a version to be made in.
            let version = (call.accept.media == Media::Protobuf).then_some("v1");
            out.edit().set_opt(k::API_VERSION, version);
            out
        }
        ["apis"] => {
            let all: Vec<Doc> = groups(table)
                .into_iter()
                .filter(|(g, _)| !g.is_empty())
                .map(|(g, v)| group(&g, &v))
                .collect();
            let mut out = doc!({ "kind": "APIGroupList", "apiVersion": "v1" });
            out.edit().set("groups", all);
            out
        }
        ["apis", name] => match groups(table).into_iter().find(|(g, _)| g == name && !g.is_empty()) {
            Some((name, versions)) => {
                let mut out = doc!({ "kind": "APIGroup", "apiVersion": "v1" });
                let group = group(&name, &versions);
                for field in group.root().fields() {
                    out.edit().set(field.name(), field);
                }
                out
            }
            None => return Reply::Status(Status::unknown_path()),
        },
        ["api", version] => return resources(table, "", version),
        ["apis", group, version] => return resources(table, group, version),
        _ => return Reply::Status(Status::unknown_path()),
    };
    Reply::Doc { code: 200, doc: Box::new(doc), warnings: Vec::new() }
}

/// Groups in the order of the kinds, each with its versions, the newest first.
pub(crate) fn groups(table: &Table) -> Vec<(String, Vec<String>)> {
    let mut out: Vec<(String, Vec<String>)> = Vec::new();
    for GroupVersion { group, version } in
        table.all().iter().flat_map(|kind| kind.versions.iter().map(|v| v.gv.clone()))
    {
        let at = match out.iter().position(|(g, _)| *g == group) {
            Some(at) => at,
            None => {
                out.push((group.into_owned(), Vec::new()));
                out.len() - 1
            }
        };
        if !out[at].1.iter().any(|v| *v == version) {
            out[at].1.push(version.into_owned());
        }
    }
    for (_, versions) in &mut out {
        versions.sort_by_key(|v| std::cmp::Reverse(rank(v)));
    }
    // The oldest groups are offered last, so that nobody prefers them.
    out.sort_by_key(|(group, _)| group == "extensions");
    out
}

/// `v2` before `v1` before `v1beta2` before `v1alpha1`. Upstream: apimachinery/pkg/version.
fn rank(version: &str) -> (u8, u32, u32) {
    let number = |text: &str| text.parse::<u32>().ok();
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    for (word, class) in [("alpha", 1), ("beta", 2)] {
        if let Some((major, minor)) = rest.split_once(word) {
            return number(major).zip(number(minor)).map_or((0, 0, 0), |(a, b)| (class, a, b));
        }
    }
    number(rest).map_or((0, 0, 0), |major| (3, major, 0))
}

fn group(name: &str, versions: &[String]) -> Doc {
    let version = |v: &String| doc!({ "groupVersion": format!("{name}/{v}"), "version": v });
    let all: Vec<Doc> = versions.iter().map(version).collect();
    let mut out = doc!({ "name": name });
    out.edit().set(k::VERSIONS, all);
    out.edit().set("preferredVersion", version(&versions[0]));
    out
}

/// The kinds that a group and version serve, with the index of that version in each.
fn served<'t>(table: &'t Table, gv: &'t GroupVersion) -> impl Iterator<Item = &'t Arc<Kind>> {
    table.all().iter().filter(move |kind| kind.versions.iter().any(|v| v.gv == *gv))
}

fn resources(table: &Table, group: &str, version: &str) -> Reply {
    let gv = GroupVersion { group: group.to_owned().into(), version: version.to_owned().into() };
    let mut all: BTreeMap<String, Doc> = BTreeMap::new();
    for kind in served(table, &gv) {
        let name = &kind.storage.resource;
        all.insert(name.to_string(), resource(kind, &gv));
        for sub in &kind.subresources {
            all.insert(format!("{name}/{}", sub.name), subresource(kind, sub, &gv));
        }
    }
    if all.is_empty() {
        return Reply::Status(Status::unknown_path());
    }
    let mut out = doc!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": gv.to_string() });
    out.edit().set(k::RESOURCES, all.into_values().collect::<Vec<_>>());
    Reply::Doc { code: 200, doc: Box::new(out), warnings: Vec::new() }
}

fn verbs(all: &[apimachinery::call::Verb]) -> Vec<&'static str> {
    let mut out: Vec<&'static str> = all.iter().map(|v| v.as_str()).filter(|v| *v != "connect").collect();
    if out.len() < all.len() {
        out.extend(["create", "get"]);
    }
    out.sort_unstable();
    out.dedup();
    out
}

fn texts<'n>(names: &'n [std::borrow::Cow<'static, str>]) -> Vec<&'n str> {
    names.iter().map(AsRef::as_ref).collect()
}

fn resource(kind: &Kind, gv: &GroupVersion) -> Doc {
    let mut out = doc!({ "name": kind.storage.resource, "singularName": kind.singular,
        "namespaced": kind.scope == Scope::Namespaced, "kind": kind.kind, "verbs": verbs(kind.verbs) });
    if has_short_names(kind, gv) {
        out.edit().set("shortNames", texts(&kind.short));
    }
    if has_categories(kind, gv) {
        out.edit().set("categories", texts(&kind.categories));
    }
    out
}

/// So that `kubectl get all` shows each object once.
fn has_categories(kind: &Kind, gv: &GroupVersion) -> bool {
    !kind.categories.is_empty() && gv.group == kind.storage.group
}

/// Short names stand for the kind's own group only: old groups that serve it too would make them ambiguous.
fn has_short_names(kind: &Kind, gv: &GroupVersion) -> bool {
    !kind.short.is_empty() && gv.group == kind.storage.group
}

fn subresource(kind: &Kind, sub: &Sub, served: &GroupVersion) -> Doc {
    let shown = if sub.kind.is_empty() { kind.kind.as_ref() } else { sub.kind };
    let mut out = doc!({ "name": format!("{}/{}", kind.storage.resource, sub.name), "singularName": "",
        "namespaced": kind.scope == Scope::Namespaced });
    // Those of the resource's own group say no more.
    if sub.gv.is_some() {
        let gv = sub.group_version(served);
        out.edit().set(k::GROUP, gv.group.as_ref()).set(k::VERSION, gv.version.as_ref());
    }
    out.edit().set(k::KIND, shown).set(k::VERBS, verbs(sub.verbs));
    out
}

/// The version of `APIGroupDiscoveryList` that the client takes first, if it does.
fn wants_aggregated(call: &Call) -> Option<&'static str> {
    let accept =
        call.wire.headers.iter().find(|(name, _)| name == "accept").map_or("", |(_, value)| value.as_str());
    accept.split(',').find_map(|form| {
        let has = |parameter: &str| form.split(';').any(|p| p.trim() == parameter);
        if !has("as=APIGroupDiscoveryList") || !form.trim_start().starts_with("application/json") {
            return None;
        }
        ["v2", "v2beta1"].into_iter().find(|v| has(&format!("v={v}")))
    })
}

/// Upstream: KEP-3352.
fn aggregated(table: &Table, core: bool, version: &str) -> Reply {
    let mut out = doc!({ "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": [] });
    for (name, versions) in groups(table).into_iter().filter(|(g, _)| g.is_empty() == core) {
        let mut item = doc!({ "metadata": {} });
        if !name.is_empty() {
            item.edit().at(k::METADATA).set(k::NAME, &name);
        }
        for version in versions {
            let gv = GroupVersion { group: name.clone().into(), version: version.clone().into() };
            let mut all = doc!({ "version": version, "resources": [], "freshness": "Current" });
            let mut kinds: Vec<&Arc<Kind>> = served(table, &gv).collect();
            kinds.sort_by(|a, b| a.storage.resource.cmp(&b.storage.resource));
            for kind in kinds {
                all.edit().list(k::RESOURCES).push(aggregated_resource(kind, &gv));
            }
            item.edit().list(k::VERSIONS).push(all);
        }
        out.edit().list(k::ITEMS).push(item);
    }
    let content_type = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    let headers = vec![("vary".to_owned(), "Accept".to_owned())];
    Reply::Raw(Raw { code: 200, content_type, headers, body: RawBody::Bytes(out.to_json().into()) })
}

fn aggregated_resource(kind: &Kind, gv: &GroupVersion) -> Doc {
    let response =
        |gv: &GroupVersion, kind: &str| doc!({ "group": gv.group, "version": gv.version, "kind": kind });
    let scope = if kind.scope == Scope::Namespaced { "Namespaced" } else { "Cluster" };
    let mut out = doc!({ "resource": kind.storage.resource, "scope": scope, "singularResource": kind.singular, "verbs": verbs(kind.verbs) });
    out.edit().set("responseKind", response(gv, &kind.kind));
    if has_short_names(kind, gv) {
        out.edit().set("shortNames", texts(&kind.short));
    }
    if has_categories(kind, gv) {
        out.edit().set("categories", texts(&kind.categories));
    }
    for sub in &kind.subresources {
        let shown = if sub.kind.is_empty() { kind.kind.as_ref() } else { sub.kind };
        let mut part = doc!({ "subresource": sub.name, "verbs": verbs(sub.verbs) });
        part.edit().set("responseKind", response(sub.group_version(gv), shown));
        out.edit().list("subresources").push(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_and_more_stable_versions_come_first() {
        let mut versions = ["v1alpha1", "v1", "v1beta2", "v2", "v1beta1"];
        versions.sort_by_key(|v| std::cmp::Reverse(rank(v)));
        assert_eq!(versions, ["v2", "v1", "v1beta2", "v1beta1", "v1alpha1"]);
    }

    #[test]
    fn the_old_groups_have_a_scale_of_their_own() {
        let kinds = api::kinds();
        let deployments = kinds.iter().find(|k| k.storage.resource == "deployments").expect("a kind");
        let scale = deployments.sub("scale").expect("a part");
        for (served, expected) in [
            (GroupVersion::new("apps", "v1"), ("autoscaling", "v1")),
            (GroupVersion::new("apps", "v1beta1"), ("apps", "v1beta1")),
            (GroupVersion::new("extensions", "v1beta1"), ("extensions", "v1beta1")),
        ] {
            let classic = subresource(deployments, scale, &served);
            assert_eq!((classic.get(k::GROUP).str(), classic.get(k::VERSION).str()), expected);
            let aggregated = aggregated_resource(deployments, &served);
            let parts = aggregated.root().get("subresources");
            let found = parts.items().find(|p| p.get("subresource").str() == "scale").expect("a part");
            let kind = found.get("responseKind");
            assert_eq!((kind.get(k::GROUP).str(), kind.get(k::VERSION).str()), expected);
        }
    }
}
