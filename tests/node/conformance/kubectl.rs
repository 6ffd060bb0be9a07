//! `kubectl/kubectl.go` and `kubectl/logs.go`: stock kubectl against real pods.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::cluster::{Row, Space, carry_out, once, row, shell};
use crate::images::BUSYBOX;
use crate::node::{TIMEOUT, line, text};

/// The same image under another name.
const OTHER: &str = "busybox:2";

/// kubectl in the row's namespace; it must succeed.
fn kubectl(space: &Space<'_>, arguments: &[&str]) -> String {
    space.cluster.node.kubectl_ok(&[&["--namespace", &space.name], arguments].concat())
}

/// Writes a manifest and gives its path.
fn manifest(space: &Space<'_>, name: &str, object: &Value) -> String {
    let path = space.cluster.node.path(&format!("{}-{name}.json", space.name));
    std::fs::write(&path, object.to_string()).expect("write");
    path.to_string_lossy().into_owned()
}

/// A replication controller of two pods that listen on port 6379.
fn controller(space: &Space<'_>) -> String {
    let labels = json!({ "app": "agnhost", "role": "primary" });
    let mut container = shell("primary", "exec httpd -f -p 6379");
    container["ports"] = json!([{ "name": "server", "containerPort": 6379 }]);
    let rc = json!({ "apiVersion": "v1", "kind": "ReplicationController", "metadata": { "name": "primary", "labels": labels },
        "spec": { "replicas": 2, "selector": labels, "template": { "metadata": { "labels": labels },
        "spec": { "terminationGracePeriodSeconds": 1, "containers": [container] } } } });
    let file = manifest(space, "rc", &rc);
    kubectl(space, &["create", "-f", &file]);
    running(space, 2);
    file
}

/// Waits until so many pods of the controller run, and no other is left.
fn running(space: &Space<'_>, count: usize) -> Vec<String> {
    space.wait("replicationcontrollers", "primary", "to have its pods", |rc| {
        rc["status"]["readyReplicas"].as_u64().unwrap_or(0) == count as u64
            && rc["status"]["replicas"] == count
    });
    let template = "{{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}} {{.status.phase}}\n{{end}}{{end}}";
    let said =
        kubectl(space, &["get", "pods", "-l", "role=primary", "-o", &format!("go-template={template}")]);
    let pods: Vec<String> =
        said.lines().map(|l| l.strip_suffix(" Running").expect("it runs").to_owned()).collect();
    assert_eq!(pods.len(), count, "{said}");
    pods
}

fn create_scale_and_stop(space: &Space<'_>) {
    let file = controller(space);
    for count in [1, 2] {
        kubectl(space, &["scale", "rc", "primary", &format!("--replicas={count}"), TIMEOUT]);
        running(space, count);
    }
    kubectl(space, &["delete", "--grace-period=0", "--force", "-f", &file]);
    assert_eq!(kubectl(space, &["get", "rc,svc", "-l", "app=agnhost", "--no-headers"]), "");
}

fn describe(space: &Space<'_>) {
    controller(space);
    kubectl(space, &["expose", "rc", "primary", "--port=6379"]);
    let pods = running(space, 2);
    let shows = |arguments: &[&str], parts: &[&str]| {
        let said = kubectl(space, &[&["describe"], arguments].concat());
        for part in parts {
            assert!(said.contains(part), "{part:?} in {arguments:?}: {said}");
        }
    };
    let of_pod = [
        "Name:",
        "Namespace:",
        "Node:",
        "Labels:",
        "role=primary",
        "Status:",
        "Running",
        "IP:",
        "Controlled By:",
        "ReplicationController/primary",
        "Image:",
        "State:",
        "QoS Class:",
    ];
    shows(&["pod", &pods[0]], &of_pod);
    let of_rc = [
        "Name:",
        "Namespace:",
        "Labels:",
        "app=agnhost",
        "Selector:",
        "role=primary",
        "Replicas:",
        "2 current",
        "2 desired",
        "Pods Status:",
        "2 Running",
        "Pod Template:",
        "Image:",
        "Events:",
        "SuccessfulCreate",
    ];
    shows(&["rc", "primary"], &of_rc);
    shows(
        &["service", "primary"],
        &["Name:", "Labels:", "Selector:", "Type:", "ClusterIP", "IP:", "Port:", "6379/TCP", "Endpoints:"],
    );
    let of_node = [
        "Name:",
        "Labels:",
        "Annotations:",
        "CreationTimestamp",
        "Conditions:",
        "MemoryPressure",
        "DiskPressure",
        "PIDPressure",
        "Ready",
        "Addresses",
        "Capacity",
        "OS Image",
        "Container Runtime Version",
        "Kubelet Version",
    ];
    shows(&["node", "n1"], &of_node);
    shows(&["namespace", &space.name], &["Name:", &space.name, "Labels:", "Status:", "Active"]);
}

fn expose(space: &Space<'_>) {
    controller(space);
    for (arguments, name, port) in [(["rc", "primary"], "rm2", 1234), (["service", "rm2"], "rm3", 2345)] {
        let (named, at) = (format!("--name={name}"), format!("--port={port}"));
        kubectl(space, &["expose", arguments[0], arguments[1], &named, &at, "--target-port=6379"]);
        let service = space.get("services", name);
        assert_eq!(service["spec"]["ports"][0]["port"], port);
        assert_eq!(service["spec"]["ports"][0]["targetPort"], 6379);
        let slices = format!(
            "{}?labelSelector=kubernetes.io%2Fservice-name%3D{name}",
            space.path("discovery.k8s.io/v1/endpointslices")
        );
        let endpoints = space.wait_list(&slices, "to have two endpoints", |slice| {
            slice["endpoints"].as_array().map_or(0, Vec::len) == 2
        });
        assert_eq!(endpoints["ports"][0]["port"], 6379);
    }
}

fn labels_and_annotations(space: &Space<'_>) {
    controller(space);
    let pods = running(space, 2);
    kubectl(space, &["label", "pod", &pods[0], "testing-label=testing-label-value"]);
    let with_label = || kubectl(space, &["get", "pod", &pods[0], "-L", "testing-label"]);
    assert!(with_label().contains("testing-label-value"));
    kubectl(space, &["label", "pod", &pods[0], "testing-label-"]);
    assert!(!with_label().contains("testing-label-value"));
    for pod in &pods {
        kubectl(space, &["patch", "pod", pod, "-p", r#"{"metadata":{"annotations":{"x":"y"}}}"#]);
        assert_eq!(space.get("pods", pod)["metadata"]["annotations"]["x"], "y");
    }
}

fn diff(space: &Space<'_>) {
    let labels = json!({ "app": "httpd" });
    let deployment = |image: &str| {
        let mut container = shell("c", "exec sleep 1000");
        container["image"] = image.into();
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "httpd" }, "spec": { "replicas": 1,
            "selector": { "matchLabels": labels }, "template": { "metadata": { "labels": labels },
            "spec": { "terminationGracePeriodSeconds": 1, "containers": [container] } } } })
    };
    kubectl(space, &["create", "-f", &manifest(space, "live", &deployment(OTHER))]);
    let declared = manifest(space, "declared", &deployment(BUSYBOX));
    let said = space.cluster.node.kubectl(&["--namespace", &space.name, "diff", "-f", &declared]);
    let shown = text(&said.stdout);
    assert_eq!(said.status.code(), Some(1), "{shown}{}", text(&said.stderr));
    let line = |sign: char, image: &str| {
        shown.lines().any(|l| l.starts_with(sign) && l.contains(&format!("image: {image}")))
    };
    assert!(line('-', OTHER) && line('+', BUSYBOX), "{shown}");
}

fn run_dry_run_and_replace(space: &Space<'_>) {
    let image = |of: &Value| of["spec"]["containers"][0]["image"].as_str().expect("an image").to_owned();
    let of = format!("--image={OTHER}");
    kubectl(
        space,
        &["run", "p", "--restart=Never", &of, "--labels=run=p", "--command", "--", "sleep", "1000"],
    );
    let pod = space.ready("p");
    assert_eq!((image(&pod).as_str(), &pod["spec"]["restartPolicy"]), (OTHER, &json!("Never")));
    assert_eq!(pod["spec"]["containers"].as_array().map(Vec::len), Some(1));
    let patch = json!({ "spec": { "containers": [{ "name": "p", "image": BUSYBOX }] } }).to_string();
    kubectl(space, &["patch", "pod", "p", "-p", &patch, "--dry-run=server"]);
    assert_eq!(image(&space.get("pods", "p")), OTHER);
    let mut pod: Value =
        serde_json::from_str(&kubectl(space, &["get", "pod", "p", "-o", "json"])).expect("JSON");
    pod["spec"]["containers"][0]["image"] = BUSYBOX.into();
    kubectl(space, &["replace", "-f", &manifest(space, "pod", &pod)]);
    assert_eq!(image(&space.get("pods", "p")), BUSYBOX);
    let restarted = |pod: &Value| {
        let status = &pod["status"]["containerStatuses"][0];
        status["restartCount"] == 1 && status["state"].get("running").is_some()
    };
    space.wait("pods", "p", "to run its new image", restarted);
    space.delete("pods", "p", Some(0));
}

fn facts(space: &Space<'_>) {
    assert!(kubectl(space, &["api-versions"]).lines().any(|l| l == "v1"));
    let said = kubectl(space, &["cluster-info"]);
    assert!(said.contains("Kubernetes control plane") && said.contains("is running at"), "{said}");
    let said: Value = serde_json::from_str(&kubectl(space, &["version", "-o", "json"])).expect("JSON");
    for side in ["clientVersion", "serverVersion"] {
        for fact in [
            "major",
            "minor",
            "gitVersion",
            "gitCommit",
            "gitTreeState",
            "buildDate",
            "goVersion",
            "compiler",
            "platform",
        ] {
            assert!(said[side][fact].as_str().is_some_and(|f| !f.is_empty()), "{side} {fact}: {said}");
        }
    }
}

/// By a socket, which all rows' requests go through, and by a port that the system chooses.
fn proxies(space: &Space<'_>) {
    let (status, versions) = space.cluster.request("GET", "/api/", None);
    assert_eq!((status, &versions["versions"][0]), (200, &json!("v1")));
    let mut child = space
        .cluster
        .node
        .command("kubectl")
        .args(["proxy", "--port=0"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("kubectl");
    let said = line(child.stdout.as_mut().expect("it is piped"), &mut String::new()).expect("a line");
    let port = said.rsplit(':').next().expect("a port").trim();
    // In the node's network, where that port is.
    let script = format!("busybox wget -q -O - http://127.0.0.1:{port}/api/");
    let answer = space.cluster.node.ok("sh", &["-c", &script]);
    child.kill().and_then(|()| child.wait()).expect("it ends");
    assert!(answer.contains("\"v1\""), "{answer}");
}

fn logs(space: &Space<'_>) {
    let script = "for n in $(seq 20); do echo line $n; done; sleep 2; echo last; exec sleep 1000";
    space.pod("p", once(vec![shell("c", script)]));
    space.log_until("p", "c", "last");
    let logs = |arguments: &[&str]| kubectl(space, &[&["logs", "p"], arguments].concat());
    assert_eq!(logs(&[]).lines().count(), 21);
    assert_eq!(logs(&["--tail=1"]), "last\n");
    assert_eq!(logs(&["--limit-bytes=1"]), "l");
    let stamped = logs(&["--tail=1", "--timestamps"]);
    let (time, rest) = stamped.split_once(' ').expect("a time and a line");
    assert_eq!(rest, "last\n");
    time.parse::<base::time::Timestamp>().expect("RFC 3339");
    // Nothing is said any more: of a second's logs there is less than of a day's.
    let recent = (0..50).map(|_| logs(&["--since=1s"])).find(|said| said.lines().count() < 21).expect("less");
    assert!(recent.lines().count() < logs(&["--since=24h"]).lines().count());
    space.delete("pods", "p", Some(0));
}

#[test]
fn stock_kubectl() {
    let rows: [Row<'_>; 9] = [
        row("create, scale and stop", create_scale_and_stop),
        row("describe", describe),
        row("expose", expose),
        row("labels and annotations", labels_and_annotations),
        row("diff", diff),
        row("run, dry-run and replace", run_dry_run_and_replace),
        row("facts", facts),
        row("proxies", proxies),
        row("logs", logs),
    ];
    carry_out(&rows);
}
