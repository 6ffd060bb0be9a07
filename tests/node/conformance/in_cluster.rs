//! What pods find of the cluster: their tokens, the API by its name, each other.

use serde_json::{Value, json};

use crate::cluster::{Row, Space, carry_out_with_client, once, row, shell, with_python};
use crate::node::{PATIENCE, TIMEOUT, text};

const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The default mount: token, root CA and namespace, each read by a container of its own; and a projected token.
fn tokens(space: &Space<'_>) {
    let read = |name: &str, file: &str| shell(name, &format!("cat {MOUNT}/{file}"));
    space.pod(
        "p",
        once(vec![read("token", "token"), read("root-ca", "ca.crt"), read("namespace", "namespace")]),
    );
    space.ended("p");
    let token = space.log("p", "token");
    let review = json!({ "spec": { "token": token.trim() } });
    let review = space.cluster.ask(
        "POST",
        "/apis/authentication.k8s.io/v1/tokenreviews",
        Some(("application/json", &review)),
    );
    let user = format!("system:serviceaccount:{}:default", space.name);
    assert_eq!(
        (&review["status"]["authenticated"], &review["status"]["user"]["username"]),
        (&json!(true), &json!(user))
    );
    let ca = space.get("configmaps", "kube-root-ca.crt");
    assert_eq!(Some(space.log("p", "root-ca").trim()), ca["data"]["ca.crt"].as_str().map(str::trim));
    assert_eq!(space.log("p", "namespace").trim(), space.name);

    let volume = json!({ "name": "a", "projected": { "sources": [{ "serviceAccountToken": { "path": "token", "expirationSeconds": 3600 } }] } });
    let said = space.script("projected", &[volume], "stat -L -c %a /v/a/token; cut -d. -f2 /v/a/token");
    assert!(said.lines().nth(1).is_some_and(|claims| claims.len() > 20), "{said}");
}

/// A pod checks its own token by what the issuer publishes, asking as anybody in the cluster may.
fn issuer(space: &Space<'_>) {
    let script = format!(
        r#"python3 - <<'END'
import base64, json, ssl, urllib.request
token = open("{MOUNT}/token").read()
context = ssl.create_default_context(cafile="{MOUNT}/ca.crt")
def get(path):
    request = urllib.request.Request("https://kubernetes.default.svc" + path, headers={{"Authorization": "Bearer " + token}})
    return json.load(urllib.request.urlopen(request, context=context, timeout=60))
def part(text):
    return json.loads(base64.urlsafe_b64decode(text + "=="))
head, claims = (part(text) for text in token.split(".")[:2])
about = get("/.well-known/openid-configuration")
assert about["issuer"] == claims["iss"], about
assert about["jwks_uri"].endswith("/openid/v1/jwks"), about
keys = get("/openid/v1/jwks")["keys"]
assert head["kid"] in [key["kid"] for key in keys], keys
assert head["alg"] in about["id_token_signing_alg_values_supported"], about
print("the issuer is", claims["iss"])
END"#
    );
    let said = space.output("p", once(vec![with_python("c", &script)]));
    assert!(said.starts_with("the issuer is https://"), "{said}");
}

/// The Python client in a pod, with what is mounted there, allowed what a role allows.
fn python_client(space: &Space<'_>) {
    let role = json!({ "rules": [{ "apiGroups": [""], "resources": ["pods"], "verbs": ["list", "create", "watch"] }] });
    space.create("rbac.authorization.k8s.io/v1/roles", "pods", role);
    let binding = json!({ "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "pods" },
        "subjects": [{ "kind": "ServiceAccount", "name": "default", "namespace": space.name }] });
    space.create("rbac.authorization.k8s.io/v1/rolebindings", "pods", binding);
    let script = format!(
        r#"python3 - <<'END'
from kubernetes import client, config, watch
config.load_incluster_config()
api = client.CoreV1Api()
namespace = open("{MOUNT}/namespace").read()
print([pod.metadata.name for pod in api.list_namespaced_pod(namespace).items])
container = client.V1Container(name="c", image="busybox:1", command=["true"])
spec = client.V1PodSpec(restart_policy="Never", containers=[container])
api.create_namespaced_pod(namespace, client.V1Pod(metadata=client.V1ObjectMeta(name="made"), spec=spec))
for event in watch.Watch().stream(api.list_namespaced_pod, namespace, field_selector="metadata.name=made", timeout_seconds=180):
    if event["object"].status.phase == "Succeeded":
        break
try:
    api.list_namespaced_secret(namespace)
except client.ApiException as error:
    print(error.status, event["object"].status.phase)
END"#
    );
    assert_eq!(space.output("p", once(vec![with_python("c", &script)])), "['p']\n403 Succeeded\n");
}

/// Runs a command in a pod's container by kubectl.
fn exec(space: &Space<'_>, pod: &str, container: &str, command: &str) -> String {
    let all = ["--namespace", &space.name, "exec", pod, "-c", container, "--", "sh", "-c", command];
    let out = space.cluster.node.kubectl(&all);
    assert!(out.status.success(), "{command}: {}{}", text(&out.stdout), text(&out.stderr));
    text(&out.stdout)
}

/// Pods reach pods over HTTP and UDP, from pods and from the node.
fn pods_reach_each_other(space: &Space<'_>) {
    const UDP: &str = "import os, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 8081)); name = socket.gethostname().encode()
os.system('httpd -p 8080 -h /www')
while True: s.sendto(name, s.recvfrom(64)[1])";
    const ASK_UDP: &str = "import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(60); s.connect((sys.argv[1], 8081)); s.send(b'hostname'); print(s.recv(64).decode())";
    let script = "mkdir /www; hostname > /www/index.html; exec python3 -c \"$0\"";
    let mut server = with_python("c", script);
    server["command"] = json!(["sh", "-c", script, UDP]);
    server["readinessProbe"] = json!({ "tcpSocket": { "port": 8080 }, "periodSeconds": 1 });
    space.pod("netserver-0", once(vec![server]));
    space.pod("test-container", once(vec![with_python("c", "exec sleep 1000")]));
    let mut host = once(vec![with_python("c", "exec sleep 1000")]);
    host["hostNetwork"] = true.into();
    space.pod("host-test-container", host);
    let ip = space.ready("netserver-0")["status"]["podIP"].as_str().expect("an address").to_owned();
    for from in ["test-container", "host-test-container"] {
        space.ready(from);
        assert_eq!(exec(space, from, "c", &format!("fetch http://{ip}:8080/")), "netserver-0\n");
        assert_eq!(exec(space, from, "c", &format!("python3 -c \"{ASK_UDP}\" {ip}")), "netserver-0\n");
    }
    for pod in ["netserver-0", "test-container", "host-test-container"] {
        space.delete("pods", pod, Some(0));
    }
}

/// One image on each replica, each answering with its own name over HTTP, TCP and UDP.
fn replicas_serve(resource: &'static str, space: &Space<'_>) {
    const SERVER: &str = "import os, socket, socketserver, threading
name = socket.gethostname().encode()
class Tcp(socketserver.BaseRequestHandler):
    def handle(self): self.request.sendall(name)
class Udp(socketserver.BaseRequestHandler):
    def handle(self): self.request[1].sendto(name, self.client_address)
for server in socketserver.ThreadingTCPServer(('', 8081), Tcp), socketserver.UDPServer(('', 8082), Udp):
    threading.Thread(target=server.serve_forever).start()
os.system('httpd -f -p 8080 -h /www')";
    const ASK: &str = "import socket, sys
for at in sys.argv[1:]:
    tcp = socket.create_connection((at, 8081), 60); print(tcp.recv(64).decode())
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.settimeout(60); udp.connect((at, 8082)); udp.send(b'?'); print(udp.recv(64).decode())";
    let labels = json!({ "name": "web" });
    let mut container = with_python("c", "");
    let script = "mkdir /www; hostname > /www/index.html; exec python3 -c \"$0\"";
    container["command"] = json!(["sh", "-c", script, SERVER]);
    container["readinessProbe"] = json!({ "tcpSocket": { "port": 8080 }, "periodSeconds": 1 });
    let selector = if resource.contains('/') { json!({ "matchLabels": labels }) } else { labels.clone() };
    let spec = json!({ "replicas": 2, "selector": selector, "template": { "metadata": { "labels": labels },
        "spec": { "terminationGracePeriodSeconds": 1, "containers": [container] } } });
    space.create(resource, "web", json!({ "spec": spec }));
    space.wait(resource, "web", "to be ready", |o| o["status"]["readyReplicas"] == 2);
    let pods = space.cluster.ask("GET", &format!("{}?labelSelector=name%3Dweb", space.path("pods")), None);
    let (mut ask, mut want) = (vec![json!("python3"), json!("-c"), json!(ASK)], String::new());
    for pod in pods["items"].as_array().expect("pods") {
        let name = pod["metadata"]["name"].as_str().expect("a name");
        let (status, answer) = space.text(&format!("{}/{name}:8080/proxy/", space.path("pods")));
        assert_eq!((status, answer.trim()), (200, name));
        ask.push(pod["status"]["podIP"].clone());
        want.push_str(&format!("{name}\n{name}\n"));
    }
    let mut client = with_python("c", "");
    client["command"] = ask.into();
    assert_eq!(space.output("client", once(vec![client])), want);
}

/// A frontend, a primary and its replicas, all behind Services: what is filled in by the one can be read from the others.
fn guestbook(space: &Space<'_>) {
    let mut manifest = Vec::new();
    for (name, role, replicas) in
        [("agnhost-primary", "primary", 1), ("agnhost-replica", "replica", 2), ("frontend", "frontend", 3)]
    {
        let labels = json!({ "app": "guestbook", "tier": role });
        let mut container = with_python("c", &format!("exec guestbook {role}"));
        container["ports"] = json!([{ "containerPort": 8080 }]);
        container["env"] =
            json!([{ "name": "POD_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } }]);
        manifest.push(
            json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "labels": labels },
            "spec": { "selector": labels, "ports": [{ "port": 8080 }] } }),
        );
        manifest.push(json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
            "spec": { "replicas": replicas, "selector": { "matchLabels": labels }, "template": { "metadata": { "labels": labels },
            "spec": { "terminationGracePeriodSeconds": 1, "containers": [container] } } } }));
    }
    let file = space.cluster.node.path(&format!("{}-guestbook.json", space.name));
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": manifest });
    std::fs::write(&file, list.to_string()).expect("write");
    let (file, node) = (file.to_string_lossy(), &space.cluster.node);
    let kubectl = |arguments: &[&str]| node.kubectl_ok(&[&["--namespace", &space.name], arguments].concat());
    kubectl(&["create", "-f", &file]);
    kubectl(&["wait", "deployment", "--all", "--for=condition=Available", TIMEOUT]);
    let frontend = format!("{}/frontend/proxy/guestbook", space.path("services"));
    // Until the programs listen, and the book is where it is read.
    let until = |query: &str, want: Value| {
        let until = base::time::instant() + PATIENCE;
        loop {
            let (_, said) = space.text(&format!("{frontend}?{query}"));
            if serde_json::from_str::<Value>(&said).is_ok_and(|said| said == want) {
                return;
            }
            assert!(base::time::instant() < until, "{query} says {said}");
            std::thread::yield_now();
        }
    };
    until("cmd=get&key=messages", json!({ "data": "" }));
    until("cmd=set&key=messages&value=TestEntry", json!({ "message": "Updated" }));
    until("cmd=get&key=messages", json!({ "data": "TestEntry" }));
    kubectl(&["delete", "--grace-period=0", "--force", "-f", &file]);
    assert_eq!(kubectl(&["get", "deployments,services", "-l", "app=guestbook", "--no-headers"]), "");
}

#[test]
fn pods_and_their_cluster() {
    let rows: [Row<'_>; 7] = [
        row("tokens", tokens),
        row("issuer", issuer),
        row("python client", python_client),
        row("pods reach each other", pods_reach_each_other),
        row("guestbook", guestbook),
        row("a ReplicationController serves", |space| replicas_serve("replicationcontrollers", space)),
        row("a ReplicaSet serves", |space| replicas_serve("apps/v1/replicasets", space)),
    ];
    carry_out_with_client(&rows);
}
