//! The seeds' story with stock kubectl: what their quotas refuse, and what runs.

use crate::node::{Node, TIMEOUT, text};

const DEPLOYMENT: &str = "deployment.apps/helloworld-deployment";

fn seed(name: &str) -> String {
    format!("{}/../../examples/seeds/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_seeds_work_with_stock_kubectl() {
    let Some(mut node) = Node::new() else { return };
    node.import_image();
    node.up();
    node.kubectl_ok(&["apply", "-f", &seed("resourcequota.yml")]);
    node.kubectl_ok(&["config", "set-context", "--current", "--namespace", "myspace"]);
    without_requests_nothing_comes(&node);
    typos_are_refused(&node);
    two_of_three_run(&node);
    they_can_be_looked_at(&node);
    they_can_be_scaled(&node);
    everything_goes(&node);
    node.keelson_ok(&["reset", "--yes"]);
    assert!(!node.path("data").exists(), "data stays");
}

/// The quota wants requests and limits; the event says which.
fn without_requests_nothing_comes(node: &Node) {
    let file = seed("helloworld-no-quotas.yaml");
    node.kubectl_ok(&["create", "-f", &file]);
    let event = node.watch(&["events", "--field-selector", "reason=FailedCreate"], |_| true);
    for part in [
        "replicaset/helloworld-deployment-",
        "is forbidden: failed quota: compute-quota: must specify limits.cpu for: k8s-demo; limits.memory for: \
         k8s-demo; requests.cpu for: k8s-demo; requests.memory for: k8s-demo",
    ] {
        assert!(event.contains(part), "{event}");
    }
    let described = node.kubectl_ok(&["describe", "replicaset"]);
    assert!(described.contains("must specify limits.cpu"), "{described}");
    assert_eq!(node.get(&["pods"])["items"].as_array().map(Vec::len), Some(0));
    node.kubectl_ok(&["delete", "-f", &file]);
    node.kubectl_ok(&["wait", "--for=delete", "replicaset", "--all", TIMEOUT]);
}

/// As written: `apiVersion: 1`, and a resource that does not exist.
fn typos_are_refused(node: &Node) {
    let file = seed("object-counts-with-typos.yaml");
    let refused = node.kubectl_refused(&["apply", "-f", &file]);
    assert!(refused.contains("apiVersion isn't string type"), "{refused}");
    let refused = node.kubectl_refused(&["create", "--validate=false", "-f", &file]);
    assert!(refused.contains("apiVersion"), "{refused}");
    // With the version mended, and no help from the client, the server says what was meant.
    let mended = node.path("mended.yaml");
    let yaml = std::fs::read_to_string(file).expect("the seed");
    std::fs::write(&mended, yaml.replace("apiVersion: 1", "apiVersion: v1")).expect("write");
    let refused = node.kubectl_refused(&["create", "--validate=false", "-f", &mended.to_string_lossy()]);
    for part in ["spec.hard[persistentvolumesclaim]", "did you mean \"persistentvolumeclaims\"?"] {
        assert!(refused.contains(part), "{refused}");
    }
}

fn two_of_three_run(node: &Node) {
    node.kubectl_ok(&["create", "-f", &seed("helloworld-with-quotas.yaml")]);
    node.kubectl_ok(&["wait", DEPLOYMENT, "--for=jsonpath={.status.readyReplicas}=2", TIMEOUT]);
    let exceeded = |line: &str| line.contains("exceeded quota: compute-quota, requested: ");
    let event = node.watch(&["events", "--field-selector", "reason=FailedCreate"], exceeded);
    for part in ["requests.memory=512Mi", "used: limits.memory=2Gi,requests.memory=1Gi"] {
        assert!(event.contains(part), "{event}");
    }
    let deployment = node.get(&[DEPLOYMENT]);
    assert_eq!(deployment["apiVersion"], "apps/v1");
    assert_eq!(
        (&deployment["spec"]["replicas"], &deployment["status"]["readyReplicas"]),
        (&3.into(), &2.into())
    );
    let pods = node.get(&["pods"]);
    let pods = pods["items"].as_array().expect("pods");
    assert_eq!(pods.len(), 2, "{pods:?}");
    for pod in pods {
        assert_eq!(pod["status"]["phase"], "Running");
        assert_eq!(pod["status"]["qosClass"], "Burstable");
    }
    let quota = node.get(&["resourcequota", "compute-quota"]);
    assert_eq!(quota["status"]["used"]["requests.memory"], "1Gi");
}

fn they_can_be_looked_at(node: &Node) {
    let table = node.kubectl_ok(&["get", "pods", "-o", "wide"]);
    assert!(table.lines().skip(1).all(|l| l.contains("1/1") && l.contains("10.244.0.")), "{table}");
    for resource in [DEPLOYMENT, "pods", "resourcequota", "node", "namespace"] {
        let described = node.kubectl_ok(&["describe", resource]);
        assert!(described.contains("Name:"), "{described}");
    }
    // That they run does not say that they have got that far.
    let listens = |line: &str| line.contains("listening on port 3000");
    node.follow(&["logs", "--follow", DEPLOYMENT], listens);
    let first = std::cell::RefCell::new(String::new());
    node.follow(&["logs", "--follow", "--selector", "app=helloworld", "--prefix"], |line| {
        let pod = line.split(' ').next().unwrap_or_default();
        let other = !first.borrow().is_empty() && *first.borrow() != pod;
        if listens(line) {
            first.replace(pod.to_owned());
        }
        listens(line) && other
    });
    let logs =
        node.kubectl_ok(&["logs", "--selector", "app=helloworld", "--prefix", "--timestamps", "--tail=1"]);
    assert_eq!(logs.lines().count(), 2, "{logs}");
    let status = node.keelson_ok(&["status"]);
    assert!(status.contains("2 Running"), "{status}");
}

fn they_can_be_scaled(node: &Node) {
    node.kubectl_ok(&["scale", DEPLOYMENT, "--replicas=1"]);
    let said = node.kubectl_ok(&["rollout", "status", DEPLOYMENT, TIMEOUT]);
    assert!(said.contains("successfully rolled out"), "{said}");
    // Applied as it was written, it is three again.
    let applied = node.kubectl(&["apply", "-f", &seed("helloworld-with-quotas.yaml")]);
    assert!(applied.status.success(), "{}", text(&applied.stderr));
    node.kubectl_ok(&["wait", DEPLOYMENT, "--for=jsonpath={.status.readyReplicas}=2", TIMEOUT]);
    assert_eq!(node.get(&[DEPLOYMENT])["spec"]["replicas"], 3);
    // Once more is no change, although the manifest says 0.5Gi and the server 512Mi.
    let generation = || node.get(&[DEPLOYMENT])["metadata"]["generation"].clone();
    let before = generation();
    node.kubectl_ok(&["apply", "-f", &seed("helloworld-with-quotas.yaml")]);
    assert_eq!(generation(), before);
}

fn everything_goes(node: &Node) {
    node.kubectl_ok(&["delete", "-f", &seed("helloworld-with-quotas.yaml")]);
    node.kubectl_ok(&["wait", "--for=delete", "pods", "--all", TIMEOUT]);
    let used = ["--for=jsonpath={.status.used.requests\\.memory}=0", TIMEOUT];
    node.kubectl_ok(&[&["wait", "resourcequota", "compute-quota"], &used[..]].concat());
    node.kubectl_ok(&["delete", "namespace", "myspace", TIMEOUT]);
}
