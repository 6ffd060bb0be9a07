//! A running node for tests that need real pods: rows side by side, each in a namespace of its own.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::api::Proxy;
use crate::images;
use crate::node::{Node, PATIENCE};

/// How many rows are carried out at one time.
const AT_ONCE: usize = 8;

/// A node that is Ready, with the busybox image.
pub struct Cluster {
    // Dropped before the node, whose server it asks.
    proxy: Proxy,
    /// The node.
    pub node: Node,
}

/// One row's namespace.
pub struct Space<'a> {
    /// Where it is.
    pub cluster: &'a Cluster,
    /// Its name.
    pub name: String,
}

/// A row: its name in the output of a failure, and its steps.
pub type Row<'a> = (&'a str, Box<dyn Fn(&Space<'_>) + Sync + 'a>);

/// A row of a table of rows.
pub fn row<'a>(name: &'a str, steps: impl Fn(&Space<'_>) + Sync + 'a) -> Row<'a> {
    (name, Box::new(steps))
}

/// Brings up a node and carries out all rows; fails with the names of those that fail. Without what nodes need, it says
/// so and passes.
pub fn carry_out(rows: &[Row<'_>]) {
    if let Some(cluster) = Cluster::up(None) {
        cluster.carry_out(rows);
    }
}

/// As [`carry_out`], with the image of Python.
pub fn carry_out_with_python(rows: &[Row<'_>]) {
    if let Some(cluster) = Cluster::up(Some(None)) {
        cluster.carry_out(rows);
    }
}

/// As [`carry_out_with_python`], with Python's client.
pub fn carry_out_with_client(rows: &[Row<'_>]) {
    let Some(modules) = images::python_client() else {
        eprintln!("SKIPPED: Python's client cannot be installed from PyPI");
        return;
    };
    if let Some(cluster) = Cluster::up(Some(Some(&modules))) {
        cluster.carry_out(rows);
    }
}

impl Cluster {
    /// Brings it up, perhaps with Python, perhaps with modules of it; `None` where nodes cannot run.
    pub fn up(python: Option<Option<&Path>>) -> Option<Cluster> {
        let mut node = Node::new()?;
        if !std::path::Path::new(images::BUSYBOX_PROGRAM).exists() {
            eprintln!("SKIPPED: no {}: install busybox-static", images::BUSYBOX_PROGRAM);
            return None;
        }
        let dir = node.path("images");
        std::fs::create_dir(&dir).expect("a directory");
        let mut archives = vec![images::busybox(&dir)];
        if let Some(modules) = python {
            let Some(archive) = images::python(&dir, modules) else {
                eprintln!(
                    "SKIPPED: no Python of Debian's: install python3.11-minimal and libpython3.11-stdlib"
                );
                return None;
            };
            archives.push(archive);
        }
        for archive in archives {
            node.keelson_ok(&["image", "import", &archive.to_string_lossy()]);
        }
        // The same under a second name, for what changes images.
        let archive = dir.join("busybox-1.tar");
        node.keelson_ok(&["image", "import", &archive.to_string_lossy(), "--name", "busybox:2"]);
        std::fs::remove_dir_all(&dir).expect("remove the archives");
        // What ends again and again is to be started again often, not late.
        node.flags = vec!["--max-container-restart-period=1"];
        node.up();
        Some(Cluster { proxy: Proxy::start(&node), node })
    }

    fn carry_out(&self, rows: &[Row<'_>]) {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut failed = Vec::new();
            while let Some((index, (name, steps))) =
                rows.iter().enumerate().nth(next.fetch_add(1, Ordering::Relaxed))
            {
                let steps = AssertUnwindSafe(|| steps(&self.space(&format!("row-{index}"))));
                if catch_unwind(steps).is_err() {
                    failed.push(format!("row-{index}: {name}"));
                }
            }
            failed
        };
        let failed: Vec<String> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..AT_ONCE.min(rows.len())).map(|_| scope.spawn(work)).collect();
            workers.into_iter().flat_map(|w| w.join().expect("rows' panics are caught")).collect()
        });
        assert!(failed.is_empty(), "{} of {} rows failed:\n{}", failed.len(), rows.len(), failed.join("\n"));
    }

    /// Makes a namespace and waits until pods can be made in it.
    pub fn space(&self, name: &str) -> Space<'_> {
        self.create("/api/v1/namespaces", &json!({ "metadata": { "name": name } }));
        let space = Space { cluster: self, name: name.to_owned() };
        space.wait("serviceaccounts", "default", "to be made", |_| true);
        space
    }

    /// Any request; the status and the answer.
    pub fn request(&self, method: &str, path: &str, body: Option<(&str, &Value)>) -> (u16, Value) {
        self.proxy.request(method, path, body).unwrap_or_else(|| panic!("{method} {path}: no answer"))
    }

    /// Reads what is no JSON; the status and the answer.
    pub fn text(&self, path: &str) -> (u16, String) {
        self.proxy.text(path).unwrap_or_else(|| panic!("{path}: no answer"))
    }

    /// All messages of a WebSocket.
    pub fn websocket(&self, path: &str, protocol: &str) -> Vec<Vec<u8>> {
        self.proxy.websocket(path, protocol).unwrap_or_else(|| panic!("{path}: no answer"))
    }

    /// A request that must succeed.
    pub fn ask(&self, method: &str, path: &str, body: Option<(&str, &Value)>) -> Value {
        let (status, answer) = self.request(method, path, body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// Whether what is streamed from a path has a line with `part`.
    pub fn says(&self, path: &str, part: &str) -> bool {
        self.proxy.lines(path, PATIENCE, |line| line.contains(part))
    }

    fn create(&self, path: &str, object: &Value) -> Value {
        self.ask("POST", path, Some(("application/json", object)))
    }
}

impl Space<'_> {
    /// The path of a resource in this namespace: `pods`, or with its group `apps/v1/deployments`.
    pub fn path(&self, resource: &str) -> String {
        match resource.rsplit_once('/') {
            Some((version, plural)) => format!("/apis/{version}/namespaces/{}/{plural}", self.name),
            None => format!("/api/v1/namespaces/{}/{resource}", self.name),
        }
    }

    /// Makes an object.
    pub fn create(&self, resource: &str, name: &str, mut object: Value) -> Value {
        object["metadata"]["name"] = name.into();
        self.cluster.create(&self.path(resource), &object)
    }

    /// Makes a pod of this specification.
    pub fn pod(&self, name: &str, spec: Value) -> Value {
        self.create("pods", name, json!({ "metadata": { "labels": { "name": name } }, "spec": spec }))
    }

    /// Reads an object.
    pub fn get(&self, resource: &str, name: &str) -> Value {
        self.cluster.ask("GET", &format!("{}/{name}", self.path(resource)), None)
    }

    /// Changes an object by a merge patch.
    pub fn patch(&self, resource: &str, name: &str, patch: Value) -> Value {
        let path = format!("{}/{name}", self.path(resource));
        self.cluster.ask("PATCH", &path, Some(("application/merge-patch+json", &patch)))
    }

    /// Deletes an object, with these seconds of grace.
    pub fn delete(&self, resource: &str, name: &str, grace: Option<u64>) {
        let options = json!({ "gracePeriodSeconds": grace });
        self.cluster.ask(
            "DELETE",
            &format!("{}/{name}", self.path(resource)),
            Some(("application/json", &options)),
        );
    }

    /// Watches an object until `test` holds; `what` says what is waited for.
    pub fn wait(&self, resource: &str, name: &str, what: &str, test: impl Fn(&Value) -> bool) -> Value {
        let path = format!("{}?watch=true&fieldSelector=metadata.name%3D{name}", self.path(resource));
        let mut last = Value::Null;
        let found = self.cluster.proxy.lines(&path, PATIENCE, |line| {
            let event: Value = serde_json::from_str(line).expect("a watch event");
            let deleted = event["type"] == "DELETED";
            last = event["object"].clone();
            if deleted {
                last = Value::Null
            }
            test(&last)
        });
        assert!(found, "waited for {resource} {name} {what}; last seen: {last:#}");
        last
    }

    /// Watches a list until `test` holds for an object of it.
    pub fn wait_list(&self, path: &str, what: &str, test: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = self.cluster.proxy.lines(&format!("{path}&watch=true"), PATIENCE, |line| {
            let event: Value = serde_json::from_str(line).expect("a watch event");
            last = event["object"].clone();
            test(&last)
        });
        assert!(found, "waited for one of {path} {what}; last seen: {last:#}");
        last
    }

    /// Reads what is no JSON.
    pub fn text(&self, path: &str) -> (u16, String) {
        self.cluster.proxy.text(path).unwrap_or_else(|| panic!("{path}: no answer"))
    }

    /// Waits until an object is gone.
    pub fn wait_gone(&self, resource: &str, name: &str) {
        let (status, _) = self.cluster.request("GET", &format!("{}/{name}", self.path(resource)), None);
        if status != 404 {
            let path = format!("{}?watch=true&fieldSelector=metadata.name%3D{name}", self.path(resource));
            let found = self.cluster.proxy.lines(&path, PATIENCE, |line| {
                line.contains("\"type\":\"DELETED\"")
                    || self.cluster.request("GET", &format!("{}/{name}", self.path(resource)), None).0 == 404
            });
            assert!(found, "{resource} {name} stays");
        }
    }

    /// Waits until a pod's containers are ready.
    pub fn ready(&self, pod: &str) -> Value {
        self.wait("pods", pod, "to be ready", is_ready)
    }

    /// Waits until a pod has ended, in whichever way.
    pub fn ended(&self, pod: &str) -> Value {
        self.wait("pods", pod, "to end", |p| {
            matches!(p["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
        })
    }

    /// A container's log so far.
    pub fn log(&self, pod: &str, container: &str) -> String {
        let path = format!("{}/{pod}/log?container={container}", self.path("pods"));
        let (status, text) = self.cluster.proxy.text(&path).expect("an answer");
        assert_eq!(status, 200, "{path}: {text}");
        text
    }

    /// Follows a container's log until a line has `part`.
    pub fn log_until(&self, pod: &str, container: &str, part: &str) {
        self.log_until_line(pod, container, &format!("to say {part:?}"), |line| line.contains(part));
    }

    /// Follows a container's log until `test` holds for a line; `what` says what is waited for.
    pub fn log_until_line(&self, pod: &str, container: &str, what: &str, mut test: impl FnMut(&str) -> bool) {
        let started = |p: &Value| {
            let statuses = p["status"]["containerStatuses"].as_array();
            statuses.is_some_and(|all| {
                all.iter().any(|s| s["name"] == container && s["state"].get("waiting").is_none())
            })
        };
        self.wait("pods", pod, "to start", started);
        let path = format!("{}/{pod}/log?follow=true&container={container}", self.path("pods"));
        let mut said = String::new();
        let found = self.cluster.proxy.lines(&path, PATIENCE, |line| {
            said.push_str(line);
            said.push('\n');
            test(line)
        });
        assert!(found, "waited for {pod} {what}: {said}");
    }

    /// Runs a pod to its end, which must be a success; what its first container said.
    pub fn output(&self, pod: &str, spec: Value) -> String {
        let container = spec["containers"][0]["name"].as_str().expect("a name").to_owned();
        self.pod(pod, spec);
        let ended = self.ended(pod);
        let log = self.log(pod, &container);
        assert_eq!(ended["status"]["phase"], "Succeeded", "{log}\n{:#}", ended["status"]);
        log
    }

    /// Runs a shell script in a pod with these volumes, mounted below `/v`, and gives what it says.
    pub fn script(&self, pod: &str, volumes: &[Value], script: &str) -> String {
        self.output(pod, with_volumes(once(vec![shell("c", script)]), volumes))
    }
}

/// The same in the image of Python.
pub fn with_python(name: &str, script: &str) -> Value {
    let mut container = shell(name, script);
    container["image"] = images::PYTHON.into();
    container
}

/// A container that runs a shell script.
pub fn shell(name: &str, script: &str) -> Value {
    json!({ "name": name, "image": images::BUSYBOX, "command": ["sh", "-c", script] })
}

/// A pod of these containers that is not started again.
pub fn once(containers: Vec<Value>) -> Value {
    json!({ "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": containers })
}

/// The pod's containers mount each volume at `/v/` and its name.
pub fn with_volumes(mut spec: Value, volumes: &[Value]) -> Value {
    let mounts: Vec<Value> = volumes
        .iter()
        .map(|v| v["name"].as_str().expect("a name"))
        .map(|name| json!({ "name": name, "mountPath": format!("/v/{name}") }))
        .collect();
    spec["volumes"] = volumes.into();
    for container in spec["containers"].as_array_mut().expect("containers") {
        container["volumeMounts"] = mounts.clone().into();
    }
    spec
}

/// Whether a pod is Ready.
pub fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready") == Some("True")
}

/// A condition's status.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a str> {
    let all = object["status"]["conditions"].as_array()?;
    all.iter().find(|c| c["type"] == kind)?["status"].as_str()
}

/// `NAME=value` lines as a map.
pub fn variables(output: &str) -> BTreeMap<&str, &str> {
    output.lines().filter_map(|line| line.split_once('=')).collect()
}
