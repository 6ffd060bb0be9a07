//! `common/node`: variables, from where they come and how they are expanded; commands and arguments.

use serde_json::{Value, json};

use crate::cluster::{Row, Space, carry_out, once, row, shell, variables};
use crate::images::BUSYBOX as IMAGE;

/// Single keys of a ConfigMap and of a Secret, and all keys of them with a prefix.
fn from_objects(space: &Space<'_>) {
    space.create(
        "configmaps",
        "c",
        json!({ "data": { "data_1": "value-1", "data_2": "value-2", "data-3": "value-3" } }),
    );
    space.create(
        "secrets",
        "s",
        json!({ "stringData": { "data_1": "secret-1", "data_2": "secret-2", "data-3": "secret-3" } }),
    );
    // Not by a shell, which would keep names with a dash from its children.
    let mut show = json!({ "name": "c", "image": IMAGE, "command": ["env"] });
    show["env"] = json!([
        { "name": "FROM_CONFIG_MAP", "valueFrom": { "configMapKeyRef": { "name": "c", "key": "data_1" } } },
        { "name": "FROM_SECRET", "valueFrom": { "secretKeyRef": { "name": "s", "key": "data_1" } } },
    ]);
    show["envFrom"] = json!([
        { "configMapRef": { "name": "c" } },
        { "prefix": "c_", "configMapRef": { "name": "c" } },
        { "prefix": "s_", "secretRef": { "name": "s" } },
    ]);
    let said = space.output("p", once(vec![show]));
    let seen = variables(&said);
    for (name, value) in [
        ("FROM_CONFIG_MAP", "value-1"),
        ("FROM_SECRET", "secret-1"),
        ("data_1", "value-1"),
        ("data_2", "value-2"),
        ("data-3", "value-3"),
        ("c_data_1", "value-1"),
        ("c_data-3", "value-3"),
        ("s_data_2", "secret-2"),
        ("s_data-3", "secret-3"),
    ] {
        assert_eq!(seen.get(name), Some(&value), "{name} in {said}");
    }
}

/// Variables made of others, in variables, commands and arguments; and what is no variable, or escaped.
fn expansion(space: &Space<'_>) {
    let mut show = shell("c", "env");
    show["env"] = json!([
        { "name": "FOO", "value": "foo-value" },
        { "name": "BAR", "value": "bar-value" },
        { "name": "FOOBAR", "value": "$(FOO);;$(BAR)" },
        { "name": "KEPT", "value": "$$(FOO) $(NONE)" },
    ]);
    let said = space.output("variables", once(vec![show]));
    let seen = variables(&said);
    assert_eq!(seen["FOOBAR"], "foo-value;;bar-value");
    assert_eq!(seen["KEPT"], "$(FOO) $(NONE)");
    let env = json!([{ "name": "TEST_VAR", "value": "test-value" }]);
    let command = "TEST_VAR=wrong echo \"$(TEST_VAR)\"";
    let in_command = json!({ "name": "c", "image": IMAGE, "command": ["sh", "-c", command], "env": env });
    assert_eq!(space.output("command", once(vec![in_command])), "test-value\n");
    let in_args =
        json!({ "name": "c", "image": IMAGE, "command": ["sh", "-c"], "args": [command], "env": env });
    assert_eq!(space.output("args", once(vec![in_args])), "test-value\n");
}

/// The image's entrypoint and command, and what takes their place.
fn commands_and_arguments(space: &Space<'_>) {
    let run = |pod: &str, more: Value| {
        let mut container = json!({ "name": "c", "image": IMAGE });
        for (key, value) in more.as_object().expect("an object") {
            container[key] = value.clone();
        }
        space.output(pod, once(vec![container]))
    };
    assert_eq!(run("image", json!({})), "entrypoint and command\n");
    assert_eq!(
        run("arguments", json!({ "args": ["override", "arguments"] })),
        "entrypoint override arguments\n"
    );
    assert_eq!(run("command", json!({ "command": ["echo", "override"] })), "override\n");
    let both = json!({ "command": ["echo", "override"], "args": ["both", "of them"] });
    assert_eq!(run("both", both), "override both of them\n");
}

/// A Service that is there before the pod is in its environment.
fn services(space: &Space<'_>) {
    space.pod("server", json!({ "containers": [shell("c", "httpd -f -p 8080")] }));
    space.ready("server");
    let service = json!({ "spec": { "selector": { "name": "server" }, "ports": [{ "port": 8765, "targetPort": 8080 }] } });
    let service = space.create("services", "fooservice", service);
    let ip = service["spec"]["clusterIP"].as_str().expect("an address");
    // The kubelet may learn of the Service after the pod: then the pod is made anew, as upstream's test does.
    let said = (0..10)
        .map(|n| space.output(&format!("client-{n}"), once(vec![shell("c", "env")])))
        .find(|said| said.contains("FOOSERVICE"))
        .expect("the Service's variables");
    let seen = variables(&said);
    assert_eq!(seen["FOOSERVICE_SERVICE_HOST"], ip);
    assert_eq!(seen["FOOSERVICE_SERVICE_PORT"], "8765");
    assert_eq!(seen["FOOSERVICE_PORT"], format!("tcp://{ip}:8765"));
    assert_eq!(seen["FOOSERVICE_PORT_8765_TCP"], format!("tcp://{ip}:8765"));
    assert_eq!(seen["FOOSERVICE_PORT_8765_TCP_PORT"], "8765");
    assert_eq!(seen["FOOSERVICE_PORT_8765_TCP_PROTO"], "tcp");
    assert_eq!(seen["FOOSERVICE_PORT_8765_TCP_ADDR"], ip);
    space.delete("pods", "server", Some(0));
}

#[test]
fn variables_and_commands() {
    let rows: [Row<'_>; 4] = [
        row("from objects", from_objects),
        row("expansion", expansion),
        row("commands and arguments", commands_and_arguments),
        row("services", services),
    ];
    carry_out(&rows);
}
