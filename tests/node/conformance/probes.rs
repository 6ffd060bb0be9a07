//! `common/node/container_probe.go`. What is probed counts: a row that waits for nothing to happen waits for probes.

use std::cell::Cell;

use serde_json::{Value, json};

use crate::cluster::{Row, Space, carry_out_with_python, is_ready, once, row, with_python};

/// A server whose /cgi-bin/healthz says "probed" each time, and fails once it has been asked so often.
fn server(healthy_times: &str) -> String {
    format!(
        "mkdir -p /www/cgi-bin; touch /www/index.html
cat > /www/cgi-bin/healthz <<'EOF'
#!/bin/sh
echo probed > /proc/1/fd/1
echo probed >> /probes
[ $(wc -l < /probes) -le {healthy_times} ] && echo 'Status: 200 OK' || echo 'Status: 500 no'
echo
EOF
chmod +x /www/cgi-bin/healthz; exec httpd -f -p 8080 -h /www"
    )
}

/// Answers gRPC's health checks.
const HEALTH: &str = "exec health 5000";

fn pod(space: &Space<'_>, script: &str, kind: &str, probe: Value) {
    let mut container = with_python("c", script);
    container[kind] = probe;
    let mut spec = once(vec![container]);
    spec["restartPolicy"] = "Always".into();
    space.pod("p", spec);
}

/// Each time its program has turned sick, the container is started again, and the count only grows.
fn restarted_again_and_again(space: &Space<'_>) {
    watched(space, &server("1"), get("/cgi-bin/healthz", json!({ "failureThreshold": 1 })));
    let last = Cell::new(0);
    space.wait("pods", "p", "to be started again five times", |p| {
        let now = restarts(p).unwrap_or(0);
        assert!(now >= last.replace(now), "{now} restarts after more: {p:#}");
        now >= 5
    });
    space.delete("pods", "p", Some(0));
}

/// Nobody answers on the port that is asked.
fn restarted_for_a_wrong_port(space: &Space<'_>) {
    let probe = json!({ "grpc": { "port": 2333 }, "periodSeconds": 1, "failureThreshold": 1 });
    pod(space, HEALTH, "livenessProbe", probe);
    space.wait("pods", "p", "to be started again", |p| restarts(p) >= Some(1));
    space.delete("pods", "p", Some(0));
}

fn restarts(pod: &Value) -> Option<u64> {
    pod["status"]["containerStatuses"][0]["restartCount"].as_u64()
}

/// Waits for this many probes, as the container counts them.
fn probed(space: &Space<'_>, times: usize) {
    let mut seen = 0;
    space.log_until_line("p", "c", "to be probed", |line| {
        seen += usize::from(line.contains("probed"));
        seen >= times
    });
}

fn is_restarted(space: &Space<'_>, script: &str, probe: Value) {
    watched(space, script, probe);
    space.wait("pods", "p", "to be started again", |p| restarts(p) >= Some(1));
    space.delete("pods", "p", Some(0));
}

/// The list's own pods give their programs 15 s before one failed probe counts; a probe of the same kind that waits for the
/// program says when that time is over, however slow the machine is.
fn watched(space: &Space<'_>, script: &str, mut probe: Value) {
    probe["timeoutSeconds"] = 30.into();
    let mut container = with_python("c", script);
    container["livenessProbe"] = probe.clone();
    probe["failureThreshold"] = 60.into();
    container["startupProbe"] = probe;
    let mut spec = once(vec![container]);
    spec["restartPolicy"] = "Always".into();
    space.pod("p", spec);
}

fn is_left_alone(space: &Space<'_>, script: &str, probe: Value) {
    watched(space, script, probe);
    probed(space, 7);
    let pod = space.get("pods", "p");
    assert_eq!(restarts(&pod), Some(0), "{pod:#}");
    space.delete("pods", "p", Some(0));
}

fn get(path: &str, more: Value) -> Value {
    let mut probe = json!({ "httpGet": { "path": path, "port": 8080 }, "periodSeconds": 1 });
    for (key, value) in more.as_object().expect("an object") {
        probe[key] = value.clone();
    }
    probe
}

fn cat(then: &str) -> Value {
    json!({ "exec": { "command": ["sh", "-c", format!("cat /tmp/health && {then}")] }, "periodSeconds": 1, "failureThreshold": 1 })
}

fn ready_only_after_the_delay(space: &Space<'_>) {
    pod(space, &server("1000000"), "readinessProbe", get("/", json!({ "initialDelaySeconds": 5 })));
    let ready = space.ready("p");
    let time =
        |value: &Value| value.as_str().expect("a time").parse::<base::time::Timestamp>().expect("a time");
    let conditions = ready["status"]["conditions"].as_array().expect("conditions");
    let at = conditions.iter().find(|c| c["type"] == "Ready").expect("the condition");
    let began = time(&ready["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]);
    let waited = time(&at["lastTransitionTime"]).duration_since(began);
    // Times in the status are whole seconds.
    assert!(waited.as_secs() >= 4, "ready after {waited}");
    assert_eq!(restarts(&ready), Some(0));
    space.delete("pods", "p", Some(0));
}

fn never_ready(space: &Space<'_>) {
    let probe = json!({ "exec": { "command": ["sh", "-c", "echo probed > /proc/1/fd/1; false"] }, "periodSeconds": 1 });
    pod(space, "exec sleep 1000", "readinessProbe", probe);
    probed(space, 6);
    let pod = space.get("pods", "p");
    assert!(!is_ready(&pod) && restarts(&pod) == Some(0), "{pod:#}");
    space.delete("pods", "p", Some(0));
}

#[test]
fn probes() {
    let restarted = |name, script: String, probe: Value| {
        row(name, move |space: &Space<'_>| is_restarted(space, &script, probe.clone()))
    };
    let alone = |name, script: String, probe: Value| {
        row(name, move |space: &Space<'_>| is_left_alone(space, &script, probe.clone()))
    };
    let file = |then: &str| format!("echo ok > /tmp/health; {then}");
    let healthz = |failures: u64| get("/cgi-bin/healthz", json!({ "failureThreshold": failures }));
    let tcp = json!({ "tcpSocket": { "port": 8080 }, "periodSeconds": 1, "failureThreshold": 1 });
    let rows: Vec<Row<'_>> = vec![
        restarted(
            "exec fails",
            file("until [ -s /probes ]; do sleep 0.1; done; rm /tmp/health; exec sleep 1000"),
            cat("echo probed >> /probes"),
        ),
        alone("exec", file("exec sleep 1000"), cat("echo probed > /proc/1/fd/1")),
        restarted("http fails", server("3"), healthz(1)),
        alone("http", server("1000000"), healthz(5)),
        alone("tcp", "exec nc -ll -p 8080 -e sh -c 'echo probed > /proc/1/fd/1'".to_owned(), tcp),
        alone(
            "grpc",
            HEALTH.to_owned(),
            json!({ "grpc": { "port": 5000 }, "periodSeconds": 1, "failureThreshold": 1 }),
        ),
        row("grpc at a wrong port", restarted_for_a_wrong_port),
        row("restarted again and again", restarted_again_and_again),
        row("ready only after the delay", ready_only_after_the_delay),
        row("never ready", never_ready),
    ];
    carry_out_with_python(&rows);
}
