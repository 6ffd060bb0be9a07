//! ServiceAccount: who a pod is to the API. Upstream: pkg/registry/core/serviceaccount.

use std::borrow::Cow;

use apimachinery::{GroupVersion, Ref, k};

use crate::kind::*;
use crate::print::{AGE, NAME};

/// Service accounts.
pub(crate) fn kind() -> Kind {
    let secrets = |o: Ref<'_>, _| Cell::Int(o.get(k::SECRETS).len() as i64);
    Kind {
        short: names(&["sa"]),
        subresources: vec![Sub {
            gv: Some(GroupVersion::new("authentication.k8s.io", "v1")),
            ..Sub::new("token", SubKind::Token, "TokenRequest", CREATE_ONLY)
        }],
        columns: Cow::Owned(vec![
            NAME,
            Column::code("Secrets", "string", "How many secrets it names.", secrets),
            AGE,
        ]),
        ..Kind::new("", "v1", "serviceaccounts", "ServiceAccount")
    }
}
