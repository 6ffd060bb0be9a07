//! auth/subjectreviews.go

use apimachinery::{Doc, doc};
use bytes::Bytes;

use crate::cluster::{Cluster, play, with};

/// That both reviews say what is so: whether the account may list config maps.
async fn reviews_agree(c: &Cluster, allowed: bool) {
    let account = format!("system:serviceaccount:{}:reviewed", c.ns);
    let spec = doc!({ "user": account, "groups": ["system:authenticated"],
        "resourceAttributes": { "verb": "list", "resource": "configmaps", "namespace": c.ns, "version": "v1" } });
    let review = with(Doc::object(), "spec", &spec);
    let local = with(review.clone(), "metadata.namespace", &c.ns);
    for (uri, review) in [
        ("/apis/authorization.k8s.io/v1/subjectaccessreviews".to_owned(), review),
        (c.at("/apis/authorization.k8s.io/v1", "localsubjectaccessreviews"), local),
    ] {
        let answer = c.post(&uri, &review).await.ok();
        assert_eq!(answer.root().find("status.allowed").bool(), allowed, "{uri}: {answer:?}");
    }
    let maps = c.at("/api/v1", "configmaps");
    let headers = [("impersonate-user", account.as_str()), ("impersonate-group", "system:authenticated")];
    let listed = c.send("GET", &maps, &headers, Bytes::new()).await;
    assert_eq!(listed.code, if allowed { 200 } else { 403 }, "{}", listed.pretty());
}

#[test]
fn reviews_say_what_an_account_may_do() {
    play(|c| async move {
        c.post(&c.at("/api/v1", "serviceaccounts"), &doc!({ "metadata": { "name": "reviewed" } })).await.ok();
        reviews_agree(&c, false).await;
        let group = "rbac.authorization.k8s.io";
        let binding = doc!({ "metadata": { "name": "reviewed" },
            "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": "view" },
            "subjects": [{ "kind": "ServiceAccount", "name": "reviewed", "namespace": c.ns }] });
        c.post(&c.at("/apis/rbac.authorization.k8s.io/v1", "rolebindings"), &binding).await.ok();
        reviews_agree(&c, true).await;
    });
}
