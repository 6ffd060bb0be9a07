//! Service-account tokens: believed while their account, and the pod they are bound to, exist.
//!
//! Upstream: pkg/serviceaccount/{jwt.go,claims.go,legacy.go}.

use std::sync::{Arc, Mutex};

use apimachinery::call::{BoxFuture, User, Who};
use apimachinery::gvk::GroupResource;
use apimachinery::{Call, Status, k};
use base::hash::Map;
use sha2::{Digest, Sha256};

use super::Authenticator;
use crate::cacher::Lister;
use crate::tokens::{Bound, Claims, TokenError, Tokens};

const ACCOUNTS: GroupResource = GroupResource::new("", "serviceaccounts");
const PODS: GroupResource = GroupResource::new("", "pods");
/// How many tokens whose signature was checked are remembered: a check costs 80 µs.
const REMEMBERED_MAX: usize = 8192;
/// How long a token of a pod that is being deleted still works after the pod's grace has ended, in seconds.
const LEEWAY_SECONDS: i64 = 60;

/// Believes tokens that this cluster signed.
pub struct ServiceAccounts {
    tokens: Arc<Tokens>,
    lister: Arc<dyn Lister>,
    // Invariant: keys are digests of tokens whose signature and audience are good; dates and objects are checked
    // at every use.
    known: Mutex<Map<[u8; 32], Known>>,
}

/// What a token says, and whom it stands for.
#[derive(Clone)]
struct Known {
    claims: Arc<Claims>,
    user: Arc<User>,
}

impl ServiceAccounts {
    /// Judges with `tokens`, against what `lister` shows.
    pub fn new(tokens: Arc<Tokens>, lister: Arc<dyn Lister>) -> ServiceAccounts {
        ServiceAccounts { tokens, lister, known: Mutex::default() }
    }

    /// Who a token stands for; `None` when it is none of ours. With no audiences the API server's own count.
    ///
    /// # Errors
    /// 401 when it is ours and not good.
    pub fn user(&self, token: &str, audiences: &[String]) -> Result<Option<Arc<User>>, Status> {
        let Known { claims, user } = match self.known(token, audiences) {
            Ok(known) => known,
            Err(TokenError::Foreign) => return Ok(None),
            Err(err) => {
                tracing::debug!(%err, "service account token refused");
                return Err(Status::unauthorized());
            }
        };
        let now = base::time::now().as_second();
        if now >= claims.expires || !self.lives(&claims, now) {
            return Err(Status::unauthorized());
        }
        Ok(Some(user))
    }

    fn known(&self, token: &str, audiences: &[String]) -> Result<Known, TokenError> {
        let read = |audiences: &[String]| -> Result<Known, TokenError> {
            let claims = Arc::new(self.tokens.verify(token, audiences)?);
            Ok(Known { user: Arc::new(user(&claims)), claims })
        };
        if !audiences.is_empty() {
            return read(audiences);
        }
        let id: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(found) = self.known.lock().expect("nobody panics holding it").get(&id) {
            return Ok(found.clone());
        }
        let found = read(&[])?;
        let mut known = self.known.lock().expect("nobody panics holding it");
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        known.insert(id, found.clone());
        Ok(found)
    }

    /// Whether account and pod are those that the token was made for.
    fn lives(&self, claims: &Claims, now: i64) -> bool {
        let is = |resource: &GroupResource, bound: &Bound| {
            self.lister.get(resource, &claims.namespace, &bound.name).is_some_and(|item| {
                let meta = item.kept().get(k::METADATA);
                let ended = meta.get(k::DELETION_TIMESTAMP).str().parse::<base::time::Timestamp>();
                let gone = ended.is_ok_and(|at| at.as_second() + LEEWAY_SECONDS < now);
                meta.get(k::UID).str() == bound.uid && !gone
            })
        };
        is(&ACCOUNTS, &claims.account) && claims.pod.as_ref().is_none_or(|pod| is(&PODS, pod))
    }
}

fn user(claims: &Claims) -> User {
    let name = format!("system:serviceaccount:{}:{}", claims.namespace, claims.account.name);
    let namespace_group = format!("system:serviceaccounts:{}", claims.namespace);
    let mut user = User::new(&name, &["system:serviceaccounts", &namespace_group]);
    user.uid.clone_from(&claims.account.uid);
    let mut extra = |key: &str, value: String| {
        user.extra.push((format!("authentication.kubernetes.io/{key}"), vec![value]))
    };
    if !claims.id.is_empty() {
        extra("credential-id", format!("JTI={}", claims.id));
    }
    for (kind, bound) in [("pod", &claims.pod), ("node", &claims.node)] {
        if let Some(bound) = bound {
            extra(&format!("{kind}-name"), bound.name.clone());
            extra(&format!("{kind}-uid"), bound.uid.clone());
        }
    }
    user
}

impl Authenticator for ServiceAccounts {
    fn authenticate<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Option<Arc<User>>, Status>> {
        Box::pin(async move {
            match &call.who {
                Who::Presented { bearer: Some(token), .. } => self.user(&token.0, &[]),
                _ => Ok(None),
            }
        })
    }
}

impl Authenticator for Arc<ServiceAccounts> {
    fn authenticate<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Option<Arc<User>>, Status>> {
        self.as_ref().authenticate(call)
    }
}
