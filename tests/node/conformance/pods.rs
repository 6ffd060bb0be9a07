//! `common/node`: how containers start, end, are started again and say why; init containers; logs; /etc/hosts.

use serde_json::{Value, json};

use crate::cluster::{Row, Space, carry_out, condition, once, row, shell, with_volumes};

fn terminated<'a>(pod: &'a Value, list: &str) -> &'a Value {
    &pod["status"][list][0]["state"]["terminated"]
}

/// Where a container's last words come from, and that there are none.
fn termination_messages(space: &Space<'_>) {
    let message = |pod: &str, script: &str, more: Value| {
        let mut container = shell("c", script);
        for (key, value) in more.as_object().expect("an object") {
            container[key] = value.clone();
        }
        space.pod(pod, once(vec![container]));
        let ended = space.ended(pod);
        let said = terminated(&ended, "containerStatuses")["message"].as_str().unwrap_or_default().to_owned();
        (ended["status"]["phase"].as_str().expect("a phase").to_owned(), said)
    };
    let fallback = json!({ "terminationMessagePolicy": "FallbackToLogsOnError" });
    let got = |phase: &str, said: &str| (phase.to_owned(), said.to_owned());
    assert_eq!(message("log", "echo -n DONE; exit 1", fallback.clone()), got("Failed", "DONE"));
    assert_eq!(message("none", "echo -n DONE", fallback.clone()), got("Succeeded", ""));
    assert_eq!(message("file", "echo -n OK > /dev/termination-log", fallback), got("Succeeded", "OK"));
    let elsewhere = json!({ "terminationMessagePath": "/dev/termination-custom-log", "securityContext": { "runAsUser": 1000 } });
    assert_eq!(
        message("path", "echo -n DONE > /dev/termination-custom-log", elsewhere),
        got("Succeeded", "DONE")
    );
}

/// How often a container that exits is started, by policy: the first two runs fail, the third succeeds.
fn restart_policies(policy: &str, space: &Space<'_>) {
    let script = "echo x >> /v/a/runs; [ $(wc -l < /v/a/runs) -ge 3 ]";
    let volume = json!({ "name": "a", "emptyDir": {} });
    let mut spec = with_volumes(once(vec![shell("c", script)]), &[volume]);
    spec["restartPolicy"] = policy.into();
    space.pod("p", spec);
    let restarts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
    match policy {
        // One that succeeds is started again, too.
        "Always" => {
            let pod = space.wait("pods", "p", "to be started three times", |p| restarts(p) >= Some(2));
            assert!(matches!(pod["status"]["phase"].as_str(), Some("Running" | "Pending")), "{pod:#}");
        }
        "OnFailure" => {
            let pod = space.ended("p");
            assert_eq!((&pod["status"]["phase"], restarts(&pod)), (&json!("Succeeded"), Some(2)));
        }
        _ => {
            let pod = space.ended("p");
            assert_eq!((&pod["status"]["phase"], restarts(&pod)), (&json!("Failed"), Some(0)));
            assert_eq!(condition(&pod, "Ready"), Some("False"));
        }
    }
    space.delete("pods", "p", Some(0));
}

/// Output in the log; a reason for what always fails, which can be deleted; a root that cannot be written.
fn busybox_commands(space: &Space<'_>) {
    let said = space.output("log", once(vec![shell("c", "echo 'Hello World'; echo and more >&2")]));
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["Hello World", "and more"]);

    let fails = json!({ "restartPolicy": "Never", "containers": [shell("c", "false")] });
    let made = space.pod("false", fails);
    let ended = space.ended("false");
    assert_eq!(terminated(&ended, "containerStatuses")["reason"], "Error");
    assert_eq!(terminated(&ended, "containerStatuses")["exitCode"], 1);
    space.delete("pods", "false", None);
    space.wait_gone("pods", "false");
    assert_eq!(made["metadata"]["name"], "false");

    let mut read_only = shell("c", "echo test > /file; sleep 0; ls /file 2>&1");
    read_only["securityContext"] = json!({ "readOnlyRootFilesystem": true });
    space.pod("read-only", once(vec![read_only]));
    assert_eq!(space.ended("read-only")["status"]["phase"], "Failed");
    let said = space.log("read-only", "c");
    assert!(said.contains("Read-only file system") && said.contains("No such file"), "{said}");
}

/// The kubelet's /etc/hosts, with aliases; not with a mount in its place, nor with the host's network.
fn etc_hosts(space: &Space<'_>) {
    let mut aliased = once(vec![shell("c", "cat /etc/hosts")]);
    aliased["hostAliases"] = json!([{ "ip": "123.45.67.89", "hostnames": ["foo", "bar"] }]);
    let said = space.output("aliases", aliased);
    assert!(said.contains("123.45.67.89\tfoo\tbar"), "{said}");

    const MANAGED: &str = "# Kubernetes-managed hosts file.";
    let mut own = shell("own", "cat /etc/hosts");
    own["volumeMounts"] = json!([{ "name": "hosts", "mountPath": "/etc/hosts" }]);
    let mut spec = once(vec![shell("managed", "cat /etc/hosts"), own]);
    spec["volumes"] = json!([{ "name": "hosts", "hostPath": { "path": "/etc/hosts", "type": "File" } }]);
    assert!(space.output("pod-network", spec).starts_with(MANAGED));
    assert!(!space.log("pod-network", "own").contains(MANAGED));
    let mut spec = once(vec![shell("c", "cat /etc/hosts")]);
    spec["hostNetwork"] = true.into();
    assert!(!space.output("host-network", spec).contains(MANAGED));
}

fn with_init(policy: &str, init: &[(&str, &str)], main: &str) -> Value {
    let mut spec = once(vec![shell("run1", main)]);
    spec["restartPolicy"] = policy.into();
    spec["initContainers"] = init.iter().map(|(name, script)| shell(name, script)).collect();
    spec
}

fn init_containers_run_first(policy: &str, space: &Space<'_>) {
    let main = if policy == "Never" { "true" } else { "sleep 1000" };
    space.pod("p", with_init(policy, &[("init1", "true"), ("init2", "true")], main));
    let pod = if policy == "Never" { space.ended("p") } else { space.ready("p") };
    assert_eq!(pod["status"]["phase"], if policy == "Never" { "Succeeded" } else { "Running" });
    assert_eq!(condition(&pod, "Initialized"), Some("True"));
    let init = pod["status"]["initContainerStatuses"].as_array().expect("statuses");
    assert_eq!(init.len(), 2);
    for status in init {
        assert_eq!(
            (&status["ready"], &status["state"]["terminated"]["exitCode"]),
            (&json!(true), &json!(0)),
            "{status}"
        );
    }
    space.delete("pods", "p", Some(0));
}

fn init_containers_that_fail(policy: &str, space: &Space<'_>) {
    space.pod("p", with_init(policy, &[("init1", "false"), ("init2", "true")], "true"));
    let pod = match policy {
        "Never" => space.ended("p"),
        _ => space.wait("pods", "p", "to try three times", |p| {
            p["status"]["initContainerStatuses"][0]["restartCount"].as_u64() >= Some(3)
        }),
    };
    assert_eq!(pod["status"]["phase"], if policy == "Never" { "Failed" } else { "Pending" });
    assert_eq!(condition(&pod, "Initialized"), Some("False"));
    let waiting = &pod["status"]["containerStatuses"][0];
    assert_eq!(
        (&waiting["state"]["waiting"]["reason"], &waiting["restartCount"]),
        (&json!("PodInitializing"), &json!(0))
    );
    let second = &pod["status"]["initContainerStatuses"][1];
    assert_eq!(second["state"]["waiting"]["reason"], "PodInitializing", "{second}");
    space.delete("pods", "p", Some(0));
}

#[test]
fn containers_start_and_end() {
    let mut rows: Vec<Row<'_>> = vec![
        row("termination messages", termination_messages),
        row("busybox commands", busybox_commands),
        row("etc hosts", etc_hosts),
    ];
    for policy in ["Always", "OnFailure", "Never"] {
        rows.push(row("restart policies", move |space| restart_policies(policy, space)));
    }
    for policy in ["Always", "Never"] {
        rows.push(row("init containers run first", move |space| init_containers_run_first(policy, space)));
        rows.push(row("init containers that fail", move |space| init_containers_that_fail(policy, space)));
    }
    carry_out(&rows);
}
