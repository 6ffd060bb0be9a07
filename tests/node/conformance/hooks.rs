//! `common/node/lifecycle_hook.go`, `container_probe`'s neighbours: what runs after a start and before an end.

use serde_json::{Value, json};

use crate::cluster::{Row, Space, carry_out, carry_out_with_python, once, row, shell, with_python};

/// A pod that says which requests it gets.
fn listener(space: &Space<'_>) -> String {
    let server = "exec python3 -u -m http.server 8080 --directory /tmp";
    let mut container = with_python("c", server);
    container["readinessProbe"] = json!({ "tcpSocket": { "port": 8080 }, "periodSeconds": 1 });
    space.pod("listener", once(vec![container]));
    space.ready("listener")["status"]["podIP"].as_str().expect("an address").to_owned()
}

/// A hook of each kind tells a server, over HTTP, that it was run, from within the container and from the node.
fn hook(which: &str, exec: bool, space: &Space<'_>) {
    let ip = listener(space);
    let path = format!("/echo?msg={which}");
    let handler = if exec {
        let get = format!("wget -q -O - 'http://{ip}:8080{path}' || true");
        json!({ "exec": { "command": ["sh", "-c", get] } })
    } else {
        json!({ "httpGet": { "path": path, "host": ip, "port": 8080 } })
    };
    let mut container = shell("c", "trap exit TERM; while :; do sleep 0.1; done");
    container["lifecycle"] = json!({ which: handler });
    space.pod("hooked", json!({ "terminationGracePeriodSeconds": 15, "containers": [container] }));
    space.ready("hooked");
    if which == "preStop" {
        assert!(!space.log("listener", "c").contains(&path), "not before its end");
        space.delete("pods", "hooked", Some(15));
    }
    space.log_until("listener", "c", &format!("GET {path}"));
    if which == "preStop" {
        space.wait_gone("pods", "hooked");
    }
}

/// The order of things: the hook after the start holds readiness back, the one before the end comes before SIGTERM.
fn order(space: &Space<'_>) {
    let main = "trap 'echo term; exit 0' TERM; echo start; touch /started; while :; do sleep 0.05; done";
    let mut container = shell("c", main);
    let say = |word: &str| {
        let script =
            format!("until [ -e /started ]; do sleep 0.05; done; sleep 1; echo {word} > /proc/1/fd/1");
        json!({ "exec": { "command": ["sh", "-c", script] } })
    };
    container["lifecycle"] = json!({ "postStart": say("post"), "preStop": say("pre") });
    space.pod("p", json!({ "restartPolicy": "Never", "containers": [container] }));
    space.ready("p");
    assert_eq!(space.log("p", "c"), "start\npost\n");
    // Its time is over, and it stays to be read.
    space.patch("pods", "p", json!({ "spec": { "activeDeadlineSeconds": 1 } }));
    space.ended("p");
    assert_eq!(space.log("p", "c"), "start\npost\npre\nterm\n");
}

/// A hook that fails after the start ends the container.
fn failure(space: &Space<'_>) {
    let mut container = shell("c", "exec sleep 1000");
    container["lifecycle"] = json!({ "postStart": { "exec": { "command": ["false"] } } });
    space.pod("p", once(vec![container]));
    let pod = space.ended("p");
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 137);
}

/// What a pod's end says to a server is there when the pod is gone.
fn pre_stop_when_killed(space: &Space<'_>) {
    const SERVER: &str = r#"exec python3 -c '
import http.server, json
received = {}
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, said):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(said).encode())
    def do_POST(self):
        source = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["Source"]
        if self.path == "/write":
            received[source] = received.get(source, 0) + 1
        self.answer({})
    def do_GET(self):
        self.answer({"Received": received})
http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
'"#;
    let mut server = with_python("agnhost-container", SERVER);
    server["ports"] = json!([{ "containerPort": 8080 }]);
    server["readinessProbe"] = json!({ "tcpSocket": { "port": 8080 }, "periodSeconds": 1 });
    space.pod("server", once(vec![server]));
    let ip = space.ready("server")["status"]["podIP"].as_str().expect("an address").to_owned();
    let mut tester = shell("tester", "exec sleep 600");
    let tell = format!("wget -O- --post-data '{{\"Source\": \"prestop\"}}' http://{ip}:8080/write");
    tester["lifecycle"] = json!({ "preStop": { "exec": { "command": ["sh", "-c", tell] } } });
    space.pod("tester", json!({ "terminationGracePeriodSeconds": 30, "containers": [tester] }));
    space.ready("tester");
    let received = || {
        let (status, said) = space.text(&format!("{}/server/proxy/read", space.path("pods")));
        assert_eq!(status, 200, "{said}");
        serde_json::from_str::<Value>(&said).expect("JSON")["Received"].clone()
    };
    assert_eq!(received(), json!({}));
    space.delete("pods", "tester", None);
    space.wait_gone("pods", "tester");
    assert_eq!(received(), json!({ "prestop": 1 }));
    space.delete("pods", "server", Some(0));
    space.wait_gone("pods", "server");
}

#[test]
fn lifecycle_hooks() {
    let mut rows: Vec<Row<'_>> =
        vec![row("order", order), row("failure", failure), row("preStop when killed", pre_stop_when_killed)];
    for which in ["postStart", "preStop"] {
        for exec in [true, false] {
            rows.push(row(which, move |space: &Space<'_>| hook(which, exec, space)));
        }
    }
    carry_out_with_python(&rows);
}

/// Pods with one port of the node at different addresses and protocols get their own; one that clashes waits.
fn host_ports(space: &Space<'_>) {
    let node = "192.0.2.2";
    let serve = |name: &str, address: &str, protocol: &str| {
        let udp = "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('', 8080))\nwhile True:\n  _, who = s.recvfrom(9)\n  s.sendto(b'udp', who)";
        let mut container = match protocol {
            "UDP" => with_python("c", &format!("exec python3 -c \"{udp}\"")),
            _ => shell("c", &format!("mkdir /www; echo {name} > /www/name; exec httpd -f -p 8080 -h /www")),
        };
        container["ports"] =
            json!([{ "containerPort": 8080, "hostPort": 54323, "hostIP": address, "protocol": protocol }]);
        space.pod(name, once(vec![container]));
    };
    serve("pod1", "127.0.0.1", "TCP");
    serve("pod2", node, "TCP");
    serve("pod3", node, "UDP");
    for pod in ["pod1", "pod2", "pod3"] {
        space.ready(pod);
    }
    let ask = format!(
        "until wget -q -O - http://127.0.0.1:54323/name; do sleep 0.1; done; until wget -q -O - http://{node}:54323/name; do sleep 0.1; done"
    );
    let mut client = once(vec![shell("c", &ask)]);
    client["hostNetwork"] = true.into();
    assert_eq!(space.output("tcp", client), "pod1\npod2\n");
    let ask = format!(
        "python3 -c \"import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.settimeout(0.5)\nwhile True:\n  s.sendto(b'x', ('{node}', 54323))\n  try:\n    print(s.recv(9).decode())\n    break\n  except OSError: pass\""
    );
    let mut client = once(vec![with_python("c", &ask)]);
    client["hostNetwork"] = true.into();
    assert_eq!(space.output("udp", client), "udp\n");
    serve("pod4", "0.0.0.0", "TCP");
    let waiting = |pod: &Value| {
        let all = pod["status"]["conditions"].as_array();
        all.is_some_and(|all| all.iter().any(|c| c["reason"] == "Unschedulable"))
    };
    space.wait("pods", "pod4", "to find no node", waiting);
}

#[test]
fn ports_of_the_node() {
    carry_out_with_python(&[row("host ports", host_ports)]);
}

/// A container that is added to a running pod with an input and a terminal runs, and so does the next.
fn ephemeral(space: &Space<'_>) {
    space.pod("p", once(vec![shell("c", "exec sleep 1000")]));
    space.ready("p");
    let path = format!("{}/p/ephemeralcontainers", space.path("pods"));
    let added = |name: &str| {
        let mut container = shell(name, "while :; do echo polo; sleep 0.2; done");
        (container["stdin"], container["tty"]) = (true.into(), true.into());
        container
    };
    let runs = |pod: &Value, name: &str| {
        let all = pod["status"]["ephemeralContainerStatuses"].as_array();
        all.is_some_and(|all| all.iter().any(|c| c["name"] == name && c["state"].get("running").is_some()))
    };
    let patch = json!({ "spec": { "ephemeralContainers": [added("debugger")] } });
    let kind = "application/strategic-merge-patch+json";
    space.cluster.ask("PATCH", &path, Some((kind, &patch)));
    let mut pod = space.wait("pods", "p", "to have a debugger", |p| runs(p, "debugger"));
    let follow = format!("{}/p/log?follow=true&container=debugger", space.path("pods"));
    assert!(space.cluster.says(&follow, "polo"));
    let list = pod["spec"]["ephemeralContainers"].as_array_mut().expect("one");
    assert_eq!(list.len(), 1);
    list.push(added("debugger2"));
    space.cluster.ask("PUT", &path, Some(("application/json", &pod)));
    let pod = space.wait("pods", "p", "to have two", |p| runs(p, "debugger2"));
    assert_eq!(pod["spec"]["ephemeralContainers"].as_array().map(Vec::len), Some(2));
}

#[test]
fn ephemeral_containers() {
    carry_out(&[row("ephemeral containers", ephemeral)]);
}
