//! common/node/lease.go

use apimachinery::{Doc, doc, k};

use crate::cluster::{assert_same, play, with};

fn lease(name: &str, holder: &str, at: &str, transitions: i64) -> Doc {
    doc!({ "metadata": { "name": name }, "spec": { "holderIdentity": holder, "leaseDurationSeconds": 30 + transitions,
        "acquireTime": at, "renewTime": at, "leaseTransitions": transitions } })
}

#[test]
fn leases_are_served() {
    play(|c| async move {
        let at = c.at("/apis/coordination.k8s.io/v1", "leases");
        let one = format!("{at}/lease");
        let original = lease("lease", "holder", "2026-01-02T03:04:05.000006Z", 0);
        c.post(&at, &original).await.ok();
        let read = c.get(&one).await.ok();
        assert_same(read.get(k::SPEC), original.get(k::SPEC));

        let other = lease("lease", "holder2", "2026-01-02T04:04:05.600000Z", 1);
        c.put(&one, &with(read, "spec", other.get(k::SPEC))).await.ok();
        assert_same(c.get(&one).await.ok().get(k::SPEC), other.get(k::SPEC));

        let third = lease("lease", "holder3", "2026-01-02T05:04:05.000000Z", 2);
        let patch = with(Doc::object(), "spec", third.get(k::SPEC));
        c.patch(&one, "strategic-merge", &patch).await.ok();
        assert_same(c.get(&one).await.ok().get(k::SPEC), third.get(k::SPEC));

        let labelled = with(
            lease("labelled", "holder", "2026-01-02T03:04:05.000006Z", 0),
            "metadata.labels.deletecollection",
            "true",
        );
        c.post(&at, &labelled).await.ok();
        assert_eq!(c.names(&at).await, ["labelled", "lease"]);
        c.delete(&format!("{at}?labelSelector=deletecollection%3Dtrue")).await.ok();
        assert_eq!(c.names(&at).await, ["lease"]);
        c.delete(&one).await.ok();
        c.get(&one).await.fails(404);
    });
}
