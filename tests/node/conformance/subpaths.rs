//! `storage/subpath.go`, `common/node/expansion.go`: containers that see a part of a volume.

use serde_json::{Value, json};

use crate::cluster::{Row, Space, carry_out, once, row, shell};

/// A file of a volume that the kubelet writes, by a mount of that file alone.
fn of_files(kind: &str, at: &str, space: &Space<'_>) {
    space.create("configmaps", "m", json!({ "data": { "key": "text\n" } }));
    space.create("secrets", "s", json!({ "data": { "key": "dGV4dAo=" } }));
    let downward = json!({ "items": [{ "path": "key", "fieldRef": { "fieldPath": "metadata.name" } }] });
    let source = match kind {
        "configMap" => json!({ "name": "m" }),
        "secret" => json!({ "secretName": "s" }),
        "downwardAPI" => downward,
        _ => json!({ "sources": [{ "configMap": { "name": "m" } }] }),
    };
    let mut container = shell("c", &format!("cat {at}; touch {at} 2>/dev/null || echo read-only"));
    container["volumeMounts"] = json!([{ "name": "v", "mountPath": at, "subPath": "key" }]);
    let mut spec = once(vec![container]);
    spec["volumes"] = json!([{ "name": "v", kind: source }]);
    let want = if kind == "downwardAPI" { "p" } else { "text\n" };
    assert_eq!(space.output("p", spec), format!("{want}read-only\n"));
}

/// A pod whose container sees the part of a volume that its variable names.
fn expanded(script: &str, variable: Value) -> Value {
    let mut container = shell("c", script);
    container["env"] = json!([variable]);
    container["volumeMounts"] = json!([{ "name": "v", "mountPath": "/part", "subPathExpr": "$(PART)" }, { "name": "v", "mountPath": "/all" }]);
    let mut spec = once(vec![container]);
    spec["volumes"] = json!([{ "name": "v", "emptyDir": {} }]);
    spec
}

fn names(space: &Space<'_>) {
    let variable = json!({ "name": "PART", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } });
    let script = "echo one > /part/file; cat /all/p/file; ls -d /all/*";
    assert_eq!(space.output("p", expanded(script, variable)), "one\n/all/p\n");
}

fn waits_in_vain(value: &str, space: &Space<'_>) {
    space.pod("p", expanded("true", json!({ "name": "PART", "value": value })));
    space.wait("pods", "p", "to say why it waits", is_misconfigured);
}

fn is_misconfigured(pod: &Value) -> bool {
    pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CreateContainerConfigError"
}

/// What the variable is taken from comes later: the container starts then.
fn mended(space: &Space<'_>) {
    let field = json!({ "name": "PART", "valueFrom": { "fieldRef": { "fieldPath": "metadata.annotations['part']" } } });
    space.pod("p", expanded("echo one > /part/file; cat /all/mine/file", field));
    space.wait("pods", "p", "to say why it waits", is_misconfigured);
    space.patch("pods", "p", json!({ "metadata": { "annotations": { "part": "mine" } } }));
    space.ended("p");
    assert_eq!(space.log("p", "c"), "one\n");
}

#[test]
fn parts_of_volumes() {
    let mut rows: Vec<Row<'_>> = vec![
        row("a part by the pod's name", names),
        row("an absolute path", |space| waits_in_vain("/tmp", space)),
        row("a path upwards", |space| waits_in_vain("..", space)),
        row("a variable that comes later", mended),
    ];
    for (kind, at) in [
        ("configMap", "/test/file"),
        ("configMap", "/etc/resolv.conf"),
        ("secret", "/test/file"),
        ("downwardAPI", "/test/file"),
        ("projected", "/test/file"),
    ] {
        rows.push(row(kind, move |space: &Space<'_>| of_files(kind, at, space)));
    }
    carry_out(&rows);
}
