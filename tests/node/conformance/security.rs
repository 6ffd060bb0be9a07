//! `common/node/security_context.go`, `node/security_context.go`, `common/node/sysctl.go`: who a container is.

use serde_json::{Value, json};

use crate::cluster::{Row, Space, carry_out, once, row, shell};

fn said(space: &Space<'_>, pod: &str, script: &str, of_pod: Value, of_container: Value) -> String {
    let mut container = shell("c", script);
    container["securityContext"] = of_container;
    let mut spec = once(vec![container]);
    spec["securityContext"] = of_pod;
    space.output(pod, spec)
}

fn users_and_groups(space: &Space<'_>) {
    let ids = "id -u; id -g";
    assert_eq!(said(space, "nobody", ids, json!({}), json!({ "runAsUser": 65534 })), "65534\n0\n");
    let both = json!({ "runAsUser": 1001, "runAsGroup": 2002 });
    assert_eq!(said(space, "pod", ids, both.clone(), json!({})), "1001\n2002\n");
    assert_eq!(said(space, "container", ids, json!({}), both), "1001\n2002\n");
}

/// Without privileges an interface cannot be made, and none can be gained.
fn privileges(space: &Space<'_>) {
    let script = "ip link add dummy0 type bridge 2>&1 || true";
    let out = said(space, "unprivileged", script, json!({}), json!({ "privileged": false }));
    assert!(out.contains("Operation not permitted"), "{out}");
    let ids = "id -u; grep NoNewPrivs /proc/self/status";
    let bounded = json!({ "runAsUser": 1000, "allowPrivilegeEscalation": false });
    assert_eq!(said(space, "escalation", ids, json!({}), bounded), "1000\nNoNewPrivs:\t1\n");
}

fn writable_root(space: &Space<'_>) {
    let writable = json!({ "readOnlyRootFilesystem": false });
    assert_eq!(said(space, "p", "echo x > /file && cat /file", json!({}), writable), "x\n");
}

fn sysctls(space: &Space<'_>) {
    let safe = json!({ "sysctls": [{ "name": "kernel.shm_rmid_forced", "value": "1" }] });
    assert_eq!(said(space, "p", "cat /proc/sys/kernel/shm_rmid_forced", safe, json!({})), "1\n");
}

#[test]
fn security_contexts() {
    let rows: [Row<'_>; 4] = [
        row("users and groups", users_and_groups),
        row("privileges", privileges),
        row("writable root", writable_root),
        row("sysctls", sysctls),
    ];
    carry_out(&rows);
}
