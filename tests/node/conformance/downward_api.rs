//! `common/node/downwardapi.go` and `common/storage`: what pods are told of themselves, as variables and as files.

use serde_json::{Value, json};

use crate::cluster::{Row, Space, carry_out, once, row, shell, variables, with_volumes};

const NODE: &str = "n1";

/// A volume of these items, mounted as it is or projected.
fn volume(projected: bool, items: &Value, mode: Option<u32>) -> Value {
    let mut out = if projected {
        json!({ "sources": [{ "downwardAPI": { "items": items } }] })
    } else {
        json!({ "items": items })
    };
    if let Some(mode) = mode {
        out["defaultMode"] = mode.into();
    }
    json!({ "name": "a", if projected { "projected" } else { "downwardAPI" }: out })
}

fn field(path: &str, field: &str) -> Value {
    json!({ "path": path, "fieldRef": { "fieldPath": field } })
}

fn resource(path: &str, resource: &str, divisor: &str) -> Value {
    json!({ "path": path, "resourceFieldRef": { "containerName": "c", "resource": resource, "divisor": divisor } })
}

fn sized(mut container: Value) -> Value {
    container["resources"] = json!({
        "requests": { "cpu": "250m", "memory": "32Mi" }, "limits": { "cpu": "1250m", "memory": "64Mi" } });
    container
}

/// What the node has to give: whole cores and bytes.
fn allocatable(space: &Space<'_>) -> (String, String) {
    let node = space.cluster.ask("GET", &format!("/api/v1/nodes/{NODE}"), None);
    let text = |name: &str| node["status"]["allocatable"][name].as_str().expect("a quantity").to_owned();
    let cpu = text("cpu");
    let cores = match cpu.strip_suffix('m') {
        Some(milli) => milli.parse::<u64>().expect("a number").div_ceil(1000),
        None => cpu.parse().expect("a number"),
    };
    let memory = text("memory");
    let bytes = match memory.strip_suffix("Ki") {
        Some(kilo) => kilo.parse::<u64>().expect("a number") * 1024,
        None => memory.parse().expect("bytes"),
    };
    (cores.to_string(), bytes.to_string())
}

fn name(projected: bool, space: &Space<'_>) {
    let items = json!([field("podname", "metadata.name")]);
    assert_eq!(space.script("p", &[volume(projected, &items, None)], "cat /v/a/podname"), "p");
}

fn modes(projected: bool, space: &Space<'_>) {
    let plain = json!([field("podname", "metadata.name")]);
    let mut with_mode = plain.clone();
    with_mode[0]["mode"] = 0o400.into();
    let show = "stat -L -c %a /v/a/podname";
    assert_eq!(space.script("volume", &[volume(projected, &plain, Some(0o400))], show), "400\n");
    assert_eq!(space.script("item", &[volume(projected, &with_mode, None)], show), "400\n");
}

fn limits_and_requests(projected: bool, space: &Space<'_>) {
    let items = json!([
        resource("a", "limits.cpu", "1m"),
        resource("b", "limits.memory", "1"),
        resource("c", "requests.cpu", "1m"),
        resource("d", "requests.memory", "1")
    ]);
    let show = shell("c", "for f in a b c d; do cat /v/a/$f; echo; done");
    let spec = with_volumes(once(vec![sized(show.clone())]), &[volume(projected, &items, None)]);
    assert_eq!(space.output("sized", spec), "1250\n67108864\n250\n33554432\n");
    let items = json!([resource("a", "limits.cpu", "1"), resource("b", "limits.memory", "1")]);
    let show = shell("c", "for f in a b; do cat /v/a/$f; echo; done");
    let spec = with_volumes(once(vec![show]), &[volume(projected, &items, None)]);
    let (cpu, memory) = allocatable(space);
    assert_eq!(space.output("unsized", spec), format!("{cpu}\n{memory}\n"));
}

/// Labels and annotations follow the pod's.
fn changes(projected: bool, key: &str, space: &Space<'_>) {
    let items = json!([field("file", &format!("metadata.{key}"))]);
    let script = "while true; do cat /v/a/file; echo; sleep 0.1; done";
    let spec = with_volumes(once(vec![shell("c", script)]), &[volume(projected, &items, None)]);
    let metadata = json!({ key: { "key1": "value1", "key2": "value2" } });
    space.create("pods", "p", json!({ "metadata": metadata, "spec": spec }));
    space.log_until("p", "c", "key1=\"value1\"");
    space.patch("pods", "p", json!({ "metadata": { key: { "key3": "value3" } } }));
    space.log_until("p", "c", "key3=\"value3\"");
    space.delete("pods", "p", Some(0));
}

/// As variables: names, addresses, ids, sizes.
fn as_variables(space: &Space<'_>) {
    let from = |name: &str, field: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": field } } });
    let of = |name: &str, field: &str| json!({ "name": name, "valueFrom": { "resourceFieldRef": { "resource": field } } });
    let mut show = sized(shell("c", "env"));
    show["env"] = json!([
        from("POD_NAME", "metadata.name"),
        from("POD_NAMESPACE", "metadata.namespace"),
        from("POD_IP", "status.podIP"),
        from("HOST_IP", "status.hostIP"),
        from("POD_UID", "metadata.uid"),
        of("CPU_LIMIT", "limits.cpu"),
        of("MEMORY_LIMIT", "limits.memory"),
        of("CPU_REQUEST", "requests.cpu"),
        of("MEMORY_REQUEST", "requests.memory"),
    ]);
    let said = space.output("p", once(vec![show]));
    let (seen, pod) = (variables(&said), space.get("pods", "p"));
    assert_eq!([seen["POD_NAME"], seen["POD_NAMESPACE"]], ["p", space.name.as_str()]);
    assert_eq!(seen["POD_IP"], pod["status"]["podIP"]);
    assert_eq!(seen["HOST_IP"], pod["status"]["hostIP"]);
    assert_eq!(seen["POD_UID"], pod["metadata"]["uid"]);
    // Rounded up to whole cores.
    assert_eq!([seen["CPU_LIMIT"], seen["CPU_REQUEST"]], ["2", "1"]);
    assert_eq!([seen["MEMORY_LIMIT"], seen["MEMORY_REQUEST"]], ["67108864", "33554432"]);

    let mut show = shell("c", "env");
    show["env"] = json!([of("CPU_LIMIT", "limits.cpu"), of("MEMORY_LIMIT", "limits.memory")]);
    let said = space.output("unsized", once(vec![show]));
    let (seen, (cpu, memory)) = (variables(&said), allocatable(space));
    assert_eq!([seen["CPU_LIMIT"], seen["MEMORY_LIMIT"]], [cpu, memory]);
}

#[test]
fn downward_api() {
    let mut rows: Vec<Row<'_>> = vec![row("as variables", as_variables)];
    for projected in [false, true] {
        rows.push(row("name", move |space| name(projected, space)));
        rows.push(row("modes", move |space| modes(projected, space)));
        rows.push(row("limits and requests", move |space| limits_and_requests(projected, space)));
        for key in ["labels", "annotations"] {
            rows.push(row("changes", move |space| changes(projected, key, space)));
        }
    }
    carry_out(&rows);
}
