//! After `down` the host is as it was before: after a good run, after everything was killed, and after a start that
//! failed.

use std::net::TcpListener;

use crate::host::Host;
use crate::node::{Node, TIMEOUT, text};

const PODS: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: wardviaene/k8s-demo, ports: [{containerPort: 3000}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 3000}]}
"#;

#[test]
fn down_leaves_the_host_as_it_was() {
    let Some(mut node) = Node::new() else { return };
    node.import_image();
    // A setting that the node changes, and has to find again.
    node.ok("sh", &["-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"]);
    let before = Host::count(&node);

    a_failed_start(&node);
    Host::count(&node).assert_as(&before, "after a start that failed");

    node.up();
    run_pods(&node);
    let during = Host::count(&node);
    for kind in ["interfaces", "addresses", "routes", "nftables", "mounts", "control groups", "processes"] {
        assert!(during.len(kind) > before.len(kind), "no {kind} were counted");
    }
    node.down();
    Host::count(&node).assert_as(&before, "after `down`");
    gone(&node);

    // The pods come back from the API, and go without the help of what is dead.
    node.up();
    node.kubectl_ok(&["wait", "deployment/web", "--for=jsonpath={.status.readyReplicas}=3", TIMEOUT]);
    node.kill();
    node.down();
    Host::count(&node).assert_as(&before, "after `kill -9` and `down`");
    gone(&node);

    node.down();
    Host::count(&node).assert_as(&before, "after a second `down`");
}

fn a_failed_start(node: &Node) {
    std::thread::scope(|scope| {
        let failing = || {
            node.enter_network();
            let _taken = TcpListener::bind("0.0.0.0:6443").expect("the port is free");
            let out = node.keelson(&["up", "--node-name", "n1"]).output().expect("keelson up");
            let said = text(&out.stderr);
            assert!(!out.status.success(), "it starts although its port is taken: {}", text(&out.stdout));
            assert!(said.contains("6443") && said.contains("in use"), "{said}");
        };
        scope.spawn(failing).join().expect("it fails as it should");
    });
}

fn run_pods(node: &Node) {
    node.create(PODS);
    node.kubectl_ok(&["rollout", "status", "deployment/web", TIMEOUT]);
}

/// Files go too: what is left are the data and nobody else's.
fn gone(node: &Node) {
    for sub in ["run", "kubelet/pods", "log/pods", "log/containers"] {
        assert!(!node.path(sub).exists(), "{sub} stays");
    }
}
