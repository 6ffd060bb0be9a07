//! `common/node/pods.go`, `network/proxy.go`: what comes over WebSockets, and through proxies.

use serde_json::{Value, json};

use crate::cluster::{Row, Space, carry_out_with_python, row, shell, with_python};

/// Answers every method with its name and path.
const ECHO: &str = r#"exec python3 -c '
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.dumps({"method": self.command, "path": self.path.split("?")[0]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer
http.server.HTTPServer(("", 8080), Handler).serve_forever()
'"#;

fn says(space: &Space<'_>) {
    let script = "echo container is alive; exec sleep 600";
    space.pod("main", json!({ "terminationGracePeriodSeconds": 0, "containers": [shell("main", script)] }));
    space.ready("main");
    space.log_until("main", "main", "container is alive");
}

fn commands_over_websockets(space: &Space<'_>) {
    says(space);
    let at = format!("{}/main/exec", space.path("pods"));
    let query = "command=echo&command=remote+execution+test&stdout=1&stderr=1&container=main";
    let binary = space.cluster.websocket(&format!("{at}?{query}"), "channel.k8s.io");
    // The first, empty one says that it has begun.
    assert_eq!(binary, [&b"\x01"[..], b"\x01remote execution test\n"]);
    let text = space.cluster.websocket(&format!("{at}?{query}"), "base64.channel.k8s.io");
    assert_eq!(text, [&b"1"[..], b"1cmVtb3RlIGV4ZWN1dGlvbiB0ZXN0Cg=="]);
    for version in ["v4.channel.k8s.io", "v5.channel.k8s.io"] {
        let messages = space.cluster.websocket(&format!("{at}?command=false&stdout=1"), version);
        let last = messages.last().expect("a status");
        assert_eq!(last[0], 3);
        let status: Value = serde_json::from_slice(&last[1..]).expect("JSON");
        assert_eq!(status["reason"], "NonZeroExitCode", "{version}: {status}");
        assert_eq!(status["details"]["causes"], json!([{ "reason": "ExitCode", "message": "1" }]));
    }
}

fn logs_over_websockets(space: &Space<'_>) {
    says(space);
    let at = format!("{}/main/log?container=main", space.path("pods"));
    assert_eq!(space.cluster.websocket(&at, "binary.k8s.io").concat(), b"container is alive\n");
    let text = space.cluster.websocket(&at, "base64.binary.k8s.io");
    assert_eq!(text, [b"Y29udGFpbmVyIGlzIGFsaXZlCg=="]);
}

fn proxied(space: &Space<'_>) {
    let mut spec =
        json!({ "terminationGracePeriodSeconds": 0, "containers": [with_python("agnhost", ECHO)] });
    spec["containers"][0]["ports"] = json!([{ "containerPort": 8080 }]);
    spec["containers"][0]["readinessProbe"] =
        json!({ "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 1 });
    let pod = json!({ "metadata": { "labels": { "test": "response" } }, "spec": spec });
    space.create("pods", "agnhost", pod);
    let ports = json!([{ "name": "portname", "port": 80, "targetPort": 8080 }]);
    space.create(
        "services",
        "service",
        json!({ "spec": { "selector": { "test": "response" }, "ports": ports } }),
    );
    space.ready("agnhost");
    space.wait("endpoints", "service", "to have an address", |e| e["subsets"][0]["addresses"].is_array());
}

fn ask(space: &Space<'_>, method: &str, path: &str) -> (u16, Value) {
    space.cluster.request(method, path, None)
}

fn both(space: &Space<'_>) -> [String; 2] {
    [
        format!("{}/agnhost/proxy", space.path("pods")),
        format!("{}/service:portname/proxy", space.path("services")),
    ]
}

fn every_method_without_a_path(space: &Space<'_>) {
    proxied(space);
    for proxy in both(space) {
        for method in ["DELETE", "OPTIONS", "PATCH", "POST", "PUT"] {
            let answer = ask(space, method, &format!("{proxy}?method={method}"));
            assert_eq!(answer, (200, json!({ "method": method, "path": "/" })), "{proxy}");
        }
        for method in ["GET", "HEAD"] {
            assert_eq!(ask(space, method, &format!("{proxy}?method={method}")).0, 301, "{method} {proxy}");
        }
    }
}

fn every_method_with_a_path(space: &Space<'_>) {
    proxied(space);
    for proxy in both(space) {
        for method in ["DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT"] {
            let answer = ask(space, method, &format!("{proxy}/some/path/with/{method}?method={method}"));
            let path = format!("/some/path/with/{method}");
            assert_eq!(answer, (200, json!({ "method": method, "path": path })), "{proxy}");
        }
        assert_eq!(ask(space, "HEAD", &format!("{proxy}/some/path/with/HEAD")).0, 200, "{proxy}");
    }
}

fn the_kubelets_logs(space: &Space<'_>) {
    says(space);
    let nodes = space.cluster.ask("GET", "/api/v1/nodes", None);
    let name = nodes["items"][0]["metadata"]["name"].as_str().expect("a name").to_owned();
    for at in [format!("/api/v1/nodes/{name}:10250/proxy/logs/"), format!("/api/v1/nodes/{name}/proxy/logs/")]
    {
        let (status, page) = space.cluster.text(&at);
        assert_eq!(status, 200, "{page}");
        assert!(page.contains("<a href=\"pods/\">pods/</a>"), "{page}");
    }
    let pods = space.cluster.text(&format!("/api/v1/nodes/{name}/proxy/logs/pods/")).1;
    let own =
        pods.split('"').find(|d| d.starts_with(&format!("{}_main_", space.name))).expect("the pod's logs");
    let log = space.cluster.text(&format!("/api/v1/nodes/{name}/proxy/logs/pods/{own}main/0.log")).1;
    assert!(log.contains("container is alive"), "{log}");
}

/// Two rows on WebSockets, three on proxies.
#[test]
fn websockets_and_proxies() {
    let rows: [Row<'_>; 5] = [
        row("commands over websockets", commands_over_websockets),
        row("logs over websockets", logs_over_websockets),
        row("every method without a path", every_method_without_a_path),
        row("every method with a path", every_method_with_a_path),
        row("the kubelet's logs", the_kubelets_logs),
    ];
    carry_out_with_python(&rows);
}
