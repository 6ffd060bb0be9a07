//! A new user's first hour with stock kubectl, as one table: the command, what it reads, and what it must say. A
//! Node is only an object here, so pods are bound and stay Pending.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::servers::Server;

/// What is expected: a part of what is said, and whether the command succeeds.
enum Outcome {
    Says(&'static str),
    Refused(&'static str),
}
use Outcome::{Refused, Says};

const NODE: &str = r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "n1"}},
    "status": {"capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"}, "conditions": [{"type": "Ready", "status": "True"}]}}"#;
const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: 'web:1', ports: [{containerPort: 80}]}]}}";
const CHANGED: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: 'web:1', ports: [{containerPort: 80}]}]}}";
const OLD: &str = "
apiVersion: extensions/v1beta1
kind: Deployment
metadata: {name: old, namespace: trial}
spec: {template: {metadata: {labels: {app: old}}, spec: {containers: [{name: c, image: 'old:1'}]}}}";
const TYPO: &str = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "typo"}, "dta": {}}"#;
const QUOTA: &str = r#"{"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
    "spec": {"hard": {"persistentvolumesclaim": "1"}}}"#;
const OBJECT_QUOTA: &str = r#"{"apiVersion": "v1", "kind": "ObjectQuota", "metadata": {"name": "q"}}"#;

/// Commands without their first word; `{}` stands for what the last one said. They act in the namespace `trial`.
const TRIAL: &[(&str, &str, Outcome)] = &[
    ("version", "", Says("+keelson")),
    ("cluster-info", "", Says("control plane")),
    ("api-resources --namespaced=false", "", Says("rbac.authorization.k8s.io/v1")),
    ("auth whoami", "", Says("kubernetes-admin")),
    ("create namespace trial", "", Says("namespace/trial created")),
    ("create namespace trial", "", Refused("(AlreadyExists)")),
    ("create -f -", NODE, Says("node/n1 created")),
    ("create configmap m --from-literal=a=1", "", Says("configmap/m created")),
    ("create secret generic s --from-literal=a=1", "", Says("secret/s created")),
    ("create serviceaccount bob", "", Says("serviceaccount/bob created")),
    ("create role reader --verb=get,list --resource=pods", "", Says("reader created")),
    ("create rolebinding bob --role=reader --serviceaccount=trial:bob", "", Says("bob created")),
    ("create quota q --hard=pods=9", "", Says("resourcequota/q created")),
    ("create priorityclass high --value=7", "", Says("high created")),
    ("create service nodeport np --tcp=80 --node-port=31000", "", Says("service/np created")),
    (
        "create service nodeport np2 --tcp=80 --node-port=31000",
        "",
        Refused("provided port is already allocated"),
    ),
    ("create -f -", TYPO, Refused("strict decoding error: unknown field \"dta\"")),
    ("create -f -", QUOTA, Refused("did you mean \"persistentvolumeclaims\"")),
    (
        "create --raw /api/v1/namespaces/trial/resourcequotas -f -",
        OBJECT_QUOTA,
        Refused("kind \"ResourceQuota\"?"),
    ),
    ("apply -f -", OLD, Says("deployment.extensions/old created")),
    ("apply -f -", DEPLOYMENT, Says("deployment.apps/web created")),
    ("apply -f -", DEPLOYMENT, Says("deployment.apps/web unchanged")),
    ("diff -f -", CHANGED, Refused("+  replicas: 2")),
    ("apply -f -", CHANGED, Says("deployment.apps/web configured")),
    ("apply --server-side -f -", CHANGED, Refused("kubectl apply --server-side=false")),
    ("wait --for=jsonpath={.status.replicas}=2 deployment/web --timeout=120s", "", Says("condition met")),
    ("wait --for=condition=PodScheduled pod -l app=web --timeout=120s", "", Says("condition met")),
    ("get pods -l app=web -o wide", "", Says("n1")),
    ("get pods --field-selector=spec.nodeName=n1,status.phase=Pending -o name", "", Says("pod/web-")),
    ("get deployments -o custom-columns=N:.metadata.name,R:.spec.replicas --no-headers", "", Says("web   2")),
    (
        "get pods -A --sort-by=.metadata.name --chunk-size=1 --show-labels",
        "",
        Says("app=web,pod-template-hash="),
    ),
    ("get deployment web --subresource=scale", "", Says("DESIRED   AVAILABLE")),
    ("get deployment nope", "", Refused("deployments.apps \"nope\" not found")),
    ("expose deployment web --port=80", "", Says("service/web exposed")),
    ("describe service web", "", Says("app=web")),
    ("describe node n1", "", Says("Non-terminated Pods:")),
    ("describe deployment web", "", Says("NewReplicaSet:   web-")),
    ("describe quota q", "", Says("pods        3     9")),
    ("explain deployment.spec.strategy.type", "", Says("RollingUpdate")),
    ("label deployment web a=b", "", Says("labeled")),
    ("annotate deployment web a=b", "", Says("annotate")),
    ("set image deployment/web c=web:2", "", Says("image updated")),
    (
        "wait --for=jsonpath={.status.updatedReplicas}=1 deployment/web --timeout=120s",
        "",
        Says("condition met"),
    ),
    ("rollout history deployment/web", "", Says("\n2 ")),
    ("rollout undo deployment/web", "", Says("rolled back")),
    ("scale deployment web --replicas=1", "", Says("scaled")),
    (
        "patch deployment web -p {\"spec\":{\"replicas\":\"x\"}}",
        "",
        Refused("cannot unmarshal string into Go struct field"),
    ),
    (
        "patch deployment web --type=json -p [{\"op\":\"remove\",\"path\":\"/spec/x\"}]",
        "",
        Refused("Unable to remove nonexistent key: x: missing value"),
    ),
    ("edit configmap m", "", Says("configmap/m edited")),
    ("get configmap m -o jsonpath={.data.a}", "", Says("edited")),
    ("run bare --image=x --dry-run=server", "", Says("created (server dry run)")),
    ("run bare --image=x", "", Says("pod/bare created")),
    ("cordon n1", "", Says("cordoned")),
    ("drain n1 --force --grace-period=0", "", Says("node/n1 drained")),
    ("auth can-i list pods --as=system:serviceaccount:trial:bob", "", Says("yes")),
    (
        "get secrets --as=carol",
        "",
        Refused(
            "User \"carol\" cannot list resource \"secrets\" in API group \"\" in the namespace \"trial\"",
        ),
    ),
    ("create token bob", "", Says("ey")),
    ("config set-credentials bob --token={}", "", Says("set")),
    ("config set-context bob --cluster=keelson --user=bob", "", Says("Context")),
    ("--context=bob get pods", "", Says("web-")),
    ("--context=bob delete pod bare", "", Refused("cannot delete resource \"pods\"")),
    ("get events", "", Says("SuccessfulCreate")),
    ("top pod", "", Refused("Metrics API not available")),
    ("delete deployment web --cascade=orphan", "", Says("\"web\" deleted")),
    ("get replicaset -l app=web -o name", "", Says("replicaset.apps/web-")),
    ("delete namespace trial --timeout=120s", "", Says("\"trial\" deleted")),
    ("get namespace trial", "", Refused("(NotFound)")),
];

#[test]
fn a_new_users_first_hour_with_stock_kubectl() {
    if Command::new("kubectl").arg("--help").stdout(Stdio::null()).status().is_err() {
        eprintln!("SKIPPED, since there is no kubectl on the PATH");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start("server", &dir.path().join("data"), &[]);
    let mut last = String::new();
    for (line, input, expected) in TRIAL {
        let line = line.replace("{}", last.trim());
        let mut child = Command::new("kubectl")
            .args(["--request-timeout=120s", "--namespace=trial"])
            .args(line.split_whitespace())
            .env("KUBECONFIG", server.data.join("admin.kubeconfig"))
            .env("KUBE_EDITOR", "sed -i s/^..a:.*/\\ \\ a:\\ edited/")
            .env("HOME", dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        last = String::from_utf8(out.stdout).unwrap();
        let said = format!("{last}{}", String::from_utf8(out.stderr).unwrap());
        let (right, part) = match expected {
            Says(part) => (out.status.success(), part),
            Refused(part) => (!out.status.success(), part),
        };
        assert!(right && said.contains(part), "kubectl {line}\n  should say {part:?}, and said:\n{said}");
    }
}
