//! common/node/sysctl.go

use apimachinery::{Doc, doc, k};

use crate::cluster::{play, pod};

#[test]
fn sysctls_that_cannot_be_are_refused() {
    play(|c| async move {
        let at = c.at("/api/v1", "pods");
        let of = |names: &[&str]| -> Doc {
            let mut pod = pod("sysctl", "sysctl");
            let mut list = pod.edit().at(k::SPEC).at(k::SECURITY_CONTEXT).list("sysctls");
            for name in names {
                list.push(doc!({ "name": name, "value": "42" }));
            }
            pod
        };
        let refused = c.post(&at, &of(&["foo-", "kernel.shmmax", "bar.."])).await.fails(422);
        for invalid in ["foo-", "bar.."] {
            assert!(refused.contains(&format!("Invalid value: {invalid:?}")), "{refused}");
        }
        assert!(!refused.contains("kernel.shmmax"), "{refused}");
        assert!(c.list(&at).await.is_empty(), "nothing of it is applied");
        // It is the names that are wrong.
        c.post(&at, &of(&["kernel.shm_rmid_forced"])).await.ok();
    });
}
