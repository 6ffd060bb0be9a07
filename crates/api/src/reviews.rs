//! Kinds that are questions: created, answered, never stored. What they answer is the server's matter.
//! Upstream: pkg/registry/{authentication,authorization}.

use apimachinery::{Doc, k};

use crate::kind::{Kind, Scope};

/// The kinds of both groups.
pub(crate) fn kinds() -> Vec<Kind> {
    let (who, may) = ("authentication.k8s.io", "authorization.k8s.io");
    let cluster = |group, resource, name| Kind {
        scope: Scope::Cluster,
        ..Kind::new_virtual(group, "v1", resource, name)
    };
    vec![
        cluster(who, "selfsubjectreviews", "SelfSubjectReview"),
        cluster(who, "tokenreviews", "TokenReview"),
        Kind::new_virtual(may, "v1", "localsubjectaccessreviews", "LocalSubjectAccessReview"),
        cluster(may, "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
        cluster(may, "selfsubjectrulesreviews", "SelfSubjectRulesReview"),
        cluster(may, "subjectaccessreviews", "SubjectAccessReview"),
    ]
}

/// The defaults of a `TokenRequest`, which has no resource of its own but `serviceaccounts/token`: one hour.
pub fn token_request_defaults(doc: &mut Doc) {
    doc.edit().at(k::SPEC).set_default(k::EXPIRATION_SECONDS, 3600);
}
