//! `serviceaccounts/token`: tokens for pods and people.
//!
//! Upstream: pkg/registry/core/serviceaccount/storage/token.go, KEP-1205.

use std::sync::Arc;

use api::{Kind, SubKind};
use apimachinery::call::BoxFuture;
use apimachinery::field::{ErrorList, Path};
use apimachinery::gvk::GroupResource;
use apimachinery::{Doc, Ref, Reply, Status, k};
use base::time::Timestamp;

use super::{asked, created};
use crate::tokens::{Bound, Claims, Tokens};
use crate::{Connect, Lister, Request};

const PODS: GroupResource = GroupResource::new("", "pods");
const NODES: GroupResource = GroupResource::new("", "nodes");
/// Limits of a token's life, in seconds. Upstream: authentication validation.
const SECONDS_MIN: i64 = 600;
const SECONDS_MAX: i64 = 1 << 32;
const SECONDS_DEFAULT: i64 = 3600;
/// Tokens of one hour that pods mount live a year, so that clients that never read them again go on working; the
/// kubelet renews them all the same.
const POD_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 86_400;

/// Issues tokens.
pub struct Token {
    /// The signer.
    pub tokens: Arc<Tokens>,
}

impl Connect for Token {
    fn serves(&self, kind: &Kind, subresource: &str) -> bool {
        kind.sub(subresource).is_some_and(|sub| sub.does == SubKind::Token)
    }

    fn answer(&self, request: Request) -> BoxFuture<'static, Reply> {
        let tokens = Arc::clone(&self.tokens);
        Box::pin(async move { issue(&request, &tokens).await.unwrap_or_else(Reply::Status) })
    }
}

async fn issue(request: &Request, tokens: &Tokens) -> Result<Reply, Status> {
    let mut review = asked(request, "authentication.k8s.io", "v1", "TokenRequest").await?;
    let target = &request.target;
    let account = request
        .api
        .cacher
        .get(&request.kind.storage, &target.namespace, &target.name)
        .ok_or_else(|| request.not_found())?;
    let seconds = review.get(k::SPEC).get(k::EXPIRATION_SECONDS).opt_i64().unwrap_or(SECONDS_DEFAULT);
    let at = Path::new("spec").child("expirationSeconds");
    let mut errors = ErrorList::new();
    if seconds < SECONDS_MIN {
        errors.invalid(&at, seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > SECONDS_MAX {
        errors.invalid(&at, seconds, "may not specify a duration larger than 2^32 seconds");
    }
    if !errors.is_empty() {
        return Err(Status::invalid("authentication.k8s.io", "TokenRequest", "", errors));
    }
    let (pod, node) = bound(request, review.get(k::SPEC).get("boundObjectRef"))?;
    let now = base::time::now().as_second();
    let own = review.get(k::SPEC).get("audiences").is_empty();
    let lives = if seconds == POD_SECONDS && own && pod.is_some() { EXTENDED_SECONDS } else { seconds };
    let audiences: Vec<String> =
        review.get(k::SPEC).get("audiences").items().map(|a| a.str().to_owned()).collect();
    let claims = Claims {
        namespace: target.namespace.clone(),
        account: identity(account.kept().root()),
        pod,
        node,
        audiences: if own { tokens.audiences.clone() } else { audiences },
        issued: now,
        expires: now + lives,
        id: base::rand::uuid(),
    };
    let token = tokens.sign(&claims).map_err(Status::internal)?;
    let expires = Timestamp::from_second(now + seconds).map_err(Status::internal)?;
    let mut edit = review.edit();
    edit.set(k::KIND, "TokenRequest").set(k::API_VERSION, "authentication.k8s.io/v1");
    edit.reborrow().at(k::METADATA).set(k::NAME, &target.name).set(k::NAMESPACE, &target.namespace);
    edit.reborrow()
        .at(k::SPEC)
        .set(k::EXPIRATION_SECONDS, seconds)
        .set("audiences", claims.audiences.clone());
    edit.at(k::STATUS).set("token", token).set("expirationTimestamp", expires.to_string());
    Ok(created(review))
}

fn identity(object: Ref<'_>) -> Bound {
    let meta = object.get(k::METADATA);
    Bound { name: meta.get(k::NAME).str().to_owned(), uid: meta.get(k::UID).str().to_owned() }
}

/// The pod that the token is to be bound to, and its node.
fn bound(request: &Request, reference: Ref<'_>) -> Result<(Option<Bound>, Option<Bound>), Status> {
    if !reference.is_set() {
        return Ok((None, None));
    }
    let (kind, name) = (reference.get(k::KIND).str(), reference.get(k::NAME).str());
    if kind != "Pod" || !matches!(reference.get(k::API_VERSION).str(), "" | "v1") {
        return Err(Status::bad_request(format!(
            "cannot bind token to a {kind:?} object: only pods are supported"
        )));
    }
    let lister = &request.api.cacher;
    let pod =
        lister.get(&PODS, &request.target.namespace, name).ok_or_else(|| Status::not_found(&PODS, name))?;
    let pod: &Doc = pod.kept();
    let account = pod.get(k::SPEC).get(k::SERVICE_ACCOUNT_NAME).str();
    if account != request.target.name {
        return Err(Status::bad_request(format!(
            "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
            request.target.name
        )));
    }
    let id = identity(pod.root());
    let wanted = reference.get(k::UID).str();
    if !wanted.is_empty() && wanted != id.uid {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict(&PODS, name, &why));
    }
    let node =
        lister.get(&NODES, "", pod.get(k::SPEC).get(k::NODE_NAME).str()).map(|n| identity(n.kept().root()));
    Ok((Some(id), node))
}
