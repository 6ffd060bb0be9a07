//! Who asks: an ordered list of authenticators, of which the first that knows the caller wins.
//!
//! Upstream: k8s.io/apiserver/pkg/authentication/request/{union,anonymous}.

pub mod service_account;
pub mod x509;

use std::sync::{Arc, LazyLock};

use apimachinery::call::{BoxFuture, User, Who};
use apimachinery::{Call, Status};

/// One way to know a caller.
pub trait Authenticator: Send + Sync {
    /// The caller, if the credentials are of this authenticator's kind and good; `None` when they are of another.
    ///
    /// # Errors
    /// When they are of this kind and not good; another authenticator may still know the caller.
    fn authenticate<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Option<Arc<User>>, Status>>;
}

/// Asks all in order. Our own components are believed; who shows nothing is `system:anonymous`.
///
/// # Errors
/// 401 when credentials were shown and nobody vouches for them.
pub async fn authenticate(all: &[Box<dyn Authenticator>], call: &Call) -> Result<Arc<User>, Status> {
    let shown = match &call.who {
        Who::Component(user) => return Ok(user.clone()),
        Who::Anonymous => false,
        Who::Presented { certificates, bearer } => !certificates.is_empty() || bearer.is_some(),
    };
    if !shown {
        return Ok(anonymous());
    }
    for authenticator in all {
        match authenticator.authenticate(call).await {
            Ok(Some(user)) => return Ok(user),
            Ok(None) => {}
            Err(status) => tracing::debug!(reason = %status, "credentials refused"),
        }
    }
    Err(Status::unauthorized())
}

/// Who shows no credentials.
pub fn anonymous() -> Arc<User> {
    static ANONYMOUS: LazyLock<Arc<User>> = LazyLock::new(|| {
        let (name, groups) = ("system:anonymous".into(), vec!["system:unauthenticated".into()]);
        Arc::new(User { name, groups, ..User::default() })
    });
    ANONYMOUS.clone()
}
