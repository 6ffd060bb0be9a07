//! Questions about who somebody is and what they may do.
//!
//! Upstream: pkg/registry/{authentication,authorization}.

use std::sync::Arc;

use api::Kind;
use apimachinery::call::{BoxFuture, User};
use apimachinery::doc::Val;
use apimachinery::field::{ErrorList, Path};
use apimachinery::{Doc, Ref, Reply, Status, doc, k};

use super::{asked, created};
use crate::authentication::service_account::ServiceAccounts;
use crate::authorization::rbac::{Rbac, Rule};
use crate::authorization::{Attributes, Decision, decide};
use crate::{Connect, Request};

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

/// Answers TokenReviews, the access reviews, rules reviews and SelfSubjectReviews.
pub struct Reviews {
    /// Judges tokens.
    pub accounts: Arc<ServiceAccounts>,
    /// Lists rules.
    pub rbac: Arc<Rbac>,
}

impl Connect for Reviews {
    fn serves(&self, kind: &Kind, subresource: &str) -> bool {
        let group = kind.storage.group.as_ref();
        subresource.is_empty() && matches!(group, AUTHENTICATION | AUTHORIZATION)
    }

    fn answer(&self, request: Request) -> BoxFuture<'static, Reply> {
        let (accounts, rbac) = (Arc::clone(&self.accounts), Arc::clone(&self.rbac));
        Box::pin(async move {
            let answered = match request.kind.kind.as_ref() {
                "TokenReview" => token(&request, &accounts).await,
                "SelfSubjectReview" => self_subject(&request).await,
                "SelfSubjectRulesReview" => rules(&request, &rbac).await,
                "SelfSubjectAccessReview" => access(&request, true).await,
                "SubjectAccessReview" | "LocalSubjectAccessReview" => access(&request, false).await,
                _ => Err(Status::unknown_path()),
            };
            answered.map_or_else(Reply::Status, created)
        })
    }
}

async fn review(request: &Request, group: &'static str) -> Result<Doc, Status> {
    let mut out = asked(request, group, &request.gv().version, &request.kind.kind).await?;
    out.edit().set(k::KIND, request.kind.kind.as_ref()).set(k::API_VERSION, request.gv().to_string());
    Ok(out)
}

fn describe(user: &User) -> Doc {
    let mut out = doc!({ "username": user.name });
    if !user.uid.is_empty() {
        out.edit().set(k::UID, &user.uid);
    }
    if !user.groups.is_empty() {
        out.edit().set("groups", user.groups.clone());
    }
    for (key, values) in &user.extra {
        out.edit().at("extra").set(key, values.clone());
    }
    out
}

async fn token(request: &Request, accounts: &ServiceAccounts) -> Result<Doc, Status> {
    let mut out = review(request, AUTHENTICATION).await?;
    let spec = out.get(k::SPEC);
    if spec.get("token").str().is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences: Vec<String> = spec.get("audiences").items().map(|a| a.str().to_owned()).collect();
    let status = match accounts.user(spec.get("token").str(), &audiences) {
        Ok(Some(user)) => {
            let mut status = doc!({ "authenticated": true });
            status.edit().set("user", describe(&user));
            if !audiences.is_empty() {
                status.edit().set("audiences", audiences);
            }
            status
        }
        Ok(None) => doc!({ "user": {} }),
        Err(_) => doc!({ "user": {}, "error": "[invalid bearer token, service account token is not valid]" }),
    };
    out.edit().set(k::STATUS, status);
    Ok(out)
}

async fn self_subject(request: &Request) -> Result<Doc, Status> {
    let mut out = review(request, AUTHENTICATION).await?;
    out.edit().set(k::METADATA, doc!({ "creationTimestamp": apimachinery::gotime::format(request.now) }));
    out.edit().at(k::STATUS).set("userInfo", describe(&request.user));
    Ok(out)
}

async fn access(request: &Request, own: bool) -> Result<Doc, Status> {
    let mut out = review(request, AUTHORIZATION).await?;
    check(request, &out, own)?;
    let spec = out.get(k::SPEC);
    let user = if own { User::clone(&request.user) } else { subject(spec) };
    let resource = spec.get("resourceAttributes");
    let selectors = (selector(resource.get("labelSelector"))?, selector(resource.get("fieldSelector"))?);
    let status = match decide(&request.api.authorization, &attributes(spec, &user, &selectors)) {
        Decision::Allow(why) => doc!({ "allowed": true, "reason": why }),
        Decision::Deny(why) => doc!({ "allowed": false, "denied": true, "reason": why }),
        Decision::NoOpinion(why) if why.is_empty() => doc!({ "allowed": false }),
        Decision::NoOpinion(why) => doc!({ "allowed": false, "reason": why }),
    };
    out.edit().set(k::STATUS, status);
    Ok(out)
}

/// Upstream: pkg/apis/authorization/validation. Who may ask about one namespace is told of no other.
fn check(request: &Request, review: &Doc, own: bool) -> Result<(), Status> {
    let mut errs = ErrorList::new();
    let (spec, at) = (review.get(k::SPEC), Path::new("spec"));
    let (resource, path) = (spec.get("resourceAttributes"), spec.get("nonResourceAttributes"));
    let at_path = at.child("nonResourceAttributes");
    if resource.is_set() && path.is_set() {
        errs.invalid(&at_path, path, "cannot be specified in combination with resourceAttributes");
    }
    if !resource.is_set() && !path.is_set() {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errs.invalid(&at.child("resourceAttributes"), Doc::scalar(Val::Null).root(), why);
    }
    if !own && spec.get(k::USER).str().is_empty() && spec.get("groups").is_empty() {
        errs.invalid(&at.child("user"), "", "at least one of user or group must be specified");
    }
    let namespace = &request.target.namespace;
    let said = resource.get(k::NAMESPACE).str();
    if request.kind.is_namespaced() && resource.is_set() && said != namespace {
        let at = at.child("resourceAttributes").child("namespace");
        errs.invalid(&at, said, "must match metadata.namespace");
    }
    if request.kind.is_namespaced() && path.is_set() {
        errs.invalid(&at_path, path, "disallowed on this kind of request");
    }
    if errs.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(AUTHORIZATION, &request.kind.kind, "", errs))
}

fn subject(spec: Ref<'_>) -> User {
    let groups: Vec<String> = spec.get("groups").items().map(|g| g.str().to_owned()).collect();
    let name = spec.get(k::USER).str();
    let extra = spec
        .get("extra")
        .entries()
        .map(|(key, values)| (key.to_owned(), values.items().map(|v| v.str().to_owned()).collect()));
    User { name: name.to_owned(), uid: spec.get(k::UID).str().to_owned(), groups, extra: extra.collect() }
}

/// A review's selector as text: sent so, or as requirements. Both say what the other cannot.
fn selector(of: Ref<'_>) -> Result<String, Status> {
    let raw = of.get("rawSelector").str();
    let requirements = of.get("requirements");
    if !raw.is_empty() && !requirements.is_empty() {
        return Err(Status::bad_request("rawSelector and requirements must not both be specified"));
    }
    if !raw.is_empty() {
        return Ok(raw.to_owned());
    }
    let one = |r: Ref<'_>| {
        let (key, values) = (r.get(k::KEY).str(), r.get(k::VALUES));
        let all = || values.items().map(Ref::str).collect::<Vec<_>>().join(",");
        match (r.get(k::OPERATOR).str(), values.len()) {
            ("In", 1) => Ok(format!("{key}={}", values.item(0).str())),
            ("NotIn", 1) => Ok(format!("{key}!={}", values.item(0).str())),
            ("In", 2..) => Ok(format!("{key} in ({})", all())),
            ("NotIn", 2..) => Ok(format!("{key} notin ({})", all())),
            ("Exists", 0) => Ok(key.to_owned()),
            ("DoesNotExist", 0) => Ok(format!("!{key}")),
            (other, _) => {
                Err(Status::bad_request(format!("operator {other:?} does not fit its number of values")))
            }
        }
    };
    Ok(requirements.items().map(one).collect::<Result<Vec<_>, _>>()?.join(","))
}

fn attributes<'a>(spec: Ref<'a>, user: &'a User, selectors: &'a (String, String)) -> Attributes<'a> {
    let (resource, path) = (spec.get("resourceAttributes"), spec.get("nonResourceAttributes"));
    if path.is_set() {
        let (verb, path) = (path.get("verb").str(), path.get(k::PATH).str());
        return Attributes { path, ..Attributes::of(user, verb) };
    }
    Attributes {
        group: resource.get(k::GROUP).str(),
        version: resource.get(k::VERSION).str(),
        resource: resource.get(k::RESOURCE).str(),
        subresource: resource.get("subresource").str(),
        namespace: resource.get(k::NAMESPACE).str(),
        name: resource.get(k::NAME).str(),
        label_selector: &selectors.0,
        field_selector: &selectors.1,
        ..Attributes::of(user, resource.get("verb").str())
    }
}

async fn rules(request: &Request, rbac: &Rbac) -> Result<Doc, Status> {
    let mut out = review(request, AUTHORIZATION).await?;
    let namespace = out.get(k::SPEC).get(k::NAMESPACE).str().to_owned();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let all = rbac.rules_for(&request.user, &namespace);
    let mut status = doc!({ "resourceRules": [], "nonResourceRules": [], "incomplete": false });
    for Rule { verbs, groups, resources, names, paths } in all {
        if paths.is_empty() {
            let mut rule = doc!({ "verbs": verbs, "apiGroups": groups, "resources": resources });
            if !names.is_empty() {
                rule.edit().set("resourceNames", names);
            }
            status.edit().list("resourceRules").push(rule);
        } else {
            status.edit().list("nonResourceRules").push(doc!({ "verbs": verbs, "nonResourceURLs": paths }));
        }
    }
    out.edit().set(k::STATUS, status);
    Ok(out)
}
