//! What callers must not reach: rights that they do not have, and others' identities.

use std::sync::Arc;

use apimachinery::call::User;
use apimachinery::{Doc, doc};
use apiserver::authentication::service_account::ServiceAccounts;
use apiserver::authorization::{node::Node, rbac::Rbac};
use apiserver::registry::allocate::Pools;
use apiserver::tokens::Tokens;
use apiserver::{Api, Kinds, Lister, admission, connect, filters, tunnel};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use bytes::Bytes;

use harness::{Answer, Server};

/// A signer of tokens with a key of its own.
pub fn tokens() -> Arc<Tokens> {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap().to_pkcs8v1().unwrap();
    let key = base64::engine::general_purpose::STANDARD.encode(key.as_ref());
    let key = format!("-----BEGIN PRIVATE KEY-----\n{key}\n-----END PRIVATE KEY-----\n");
    Arc::new(Tokens::new(&key, "https://issuer").unwrap())
}

/// The usual server, with authorizers and everything that connects.
pub async fn guarded() -> Server {
    let Server { api, disk } = Server::start().await;
    let tokens = tokens();
    let lister: Arc<dyn Lister> = api.cacher.clone();
    let accounts = Arc::new(ServiceAccounts::new(tokens.clone(), lister.clone()));
    let rbac = Arc::new(Rbac::new(lister.clone()));
    let api = Arc::new(Api {
        kinds: Kinds::new(api::kinds()),
        store: api.store.clone(),
        cacher: api.cacher.clone(),
        authentication: Vec::new(),
        authorization: vec![Box::new(Node::new(lister)), Box::new(rbac.clone())],
        admission: admission::plugins(),
        audit: Vec::new(),
        metrics: Default::default(),
        flow: filters::flow::Flow::default(),
        paths: Vec::new(),
        connect: connect::connectors(tokens, accounts, rbac, tunnel::Tunnels::default()),
        pools: Pools::default(),
    });
    Server { api, disk }
}

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const IN_DEFAULT: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";

fn role(name: &str, verbs: &[&str], groups: &[&str], resources: &[&str]) -> Doc {
    let verbs: Vec<String> = verbs.iter().map(|v| (*v).to_owned()).collect();
    let groups: Vec<String> = groups.iter().map(|v| (*v).to_owned()).collect();
    let resources: Vec<String> = resources.iter().map(|v| (*v).to_owned()).collect();
    doc!({ "metadata": { "name": name }, "rules": [{ "verbs": verbs, "apiGroups": groups, "resources": resources }] })
}

fn binding(name: &str, kind: &str, role: &str, user: &str) -> Doc {
    doc!({ "metadata": { "name": name }, "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role },
        "subjects": [{ "kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io" }] })
}

async fn send(server: &Server, user: &Arc<User>, method: &str, uri: &str, body: &Doc) -> Answer {
    server.send_as(user.clone(), method, uri, &[], body.to_json().into()).await
}

#[test]
fn nobody_grants_what_he_does_not_have() {
    base::sim::run(31, async {
        let server = guarded().await;
        let all = &["*"];
        server.post(&format!("{RBAC}/clusterroles"), &role("everything", all, all, all)).await.ok();
        let own = doc!({ "metadata": { "name": "own" }, "rules": [
            { "verbs": ["*"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"] },
            { "verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"] }] });
        // Without the two verbs that lift the rule.
        let own = Doc::clone(&own);
        let mut narrow = own.clone();
        narrow
            .edit()
            .list("rules")
            .item(0)
            .unwrap()
            .set("verbs", vec!["get".to_owned(), "create".into(), "update".into(), "patch".into()]);
        server.post(&format!("{IN_DEFAULT}/roles"), &narrow).await.ok();
        server
            .post(&format!("{IN_DEFAULT}/rolebindings"), &binding("jane", "Role", "own", "jane"))
            .await
            .ok();
        let jane = Arc::new(User::new("jane", &["dev"]));
        let roles = format!("{IN_DEFAULT}/roles");
        let bindings = format!("{IN_DEFAULT}/rolebindings");

        let why =
            send(&server, &jane, "POST", &roles, &role("r", &["get", "list"], &[""], &["secrets", "pods"]))
                .await;
        assert_eq!(
            why.fails(403),
            "roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"jane\" (groups=[\"dev\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"list\"]}"
        );
        let mut made =
            send(&server, &jane, "POST", &roles, &role("r", &["get"], &[""], &["pods"])).await.ok();
        made.edit().set("rules", role("r", all, all, all).get("rules").to_doc());
        send(&server, &jane, "PUT", &format!("{roles}/r"), &made).await.fails(403);
        let patch = doc!({ "rules": [{ "verbs": ["*"], "apiGroups": [""], "resources": ["*"] }] });
        let merge = [("content-type", "application/merge-patch+json")];
        let patched = server
            .send_as(jane.clone(), "PATCH", &format!("{roles}/r"), &merge, patch.to_json().into())
            .await;
        patched.fails(403);

        let grab = binding("grab", "ClusterRole", "everything", "jane");
        let why = send(&server, &jane, "POST", &bindings, &grab).await.fails(403);
        assert!(why.contains("{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}"), "{why}");
        send(&server, &jane, "POST", &bindings, &binding("none", "Role", "none", "jane")).await.fails(404);
        send(&server, &jane, "POST", &bindings, &binding("fine", "Role", "r", "joe")).await.ok();
        let huge: Vec<String> = (0..200).map(|i| format!("v{i}")).collect();
        let names: Vec<&str> = huge.iter().map(String::as_str).collect();
        let why =
            send(&server, &jane, "POST", &roles, &role("huge", &names, &names, &names)).await.fails(403);
        assert!(why.contains("single rights"), "{why}");

        // The verbs lift it.
        server.put(&format!("{roles}/own"), &own).await.ok();
        send(&server, &jane, "POST", &roles, &role("s", &["get"], &[""], &["secrets"])).await.ok();
    });
}

#[test]
fn reading_a_token_subresource_makes_no_token() {
    base::sim::run(32, async {
        let server = guarded().await;
        server
            .post(&format!("{RBAC}/clusterroles"), &role("reader", &["get", "list", "watch"], &["*"], &["*"]))
            .await
            .ok();
        let all = binding("reader", "ClusterRole", "reader", "eve");
        server.post(&format!("{RBAC}/clusterrolebindings"), &all).await.ok();
        let eve = Arc::new(User::new("eve", &[]));
        let token = "/api/v1/namespaces/default/serviceaccounts/default/token";
        let ask = doc!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {} });
        send(&server, &eve, "POST", token, &ask).await.fails(403);
        for method in ["GET", "HEAD"] {
            send(&server, &eve, method, token, &ask).await.fails(405);
        }
        let review = doc!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": { "token": "x" } });
        send(&server, &eve, "GET", "/apis/authentication.k8s.io/v1/tokenreviews", &review).await.fails(405);
        let made = server.post(token, &ask).await.ok();
        assert!(!made.root().find("status.token").str().is_empty());
    });
}

#[test]
fn reviews_ask_one_thing_and_of_their_own_namespace() {
    base::sim::run(34, async {
        let server = guarded().await;
        let group = "/apis/authorization.k8s.io/v1";
        let local = format!("{group}/namespaces/default/localsubjectaccessreviews");
        let pods = |namespace: &str| doc!({ "namespace": namespace, "verb": "get", "resource": "pods" });
        let asks = |what: &str, of: Doc| {
            let mut out = doc!({ "spec": { "user": "jane" } });
            out.edit().at("spec").set(what, of);
            out
        };
        let (resource, path) = ("resourceAttributes", "nonResourceAttributes");
        server.post(&local, &asks(resource, pods("default"))).await.ok();
        for (uri, ask, why) in [
            (
                &*local,
                asks(resource, pods("kube-system")),
                "LocalSubjectAccessReview.authorization.k8s.io \"\" is invalid: spec.resourceAttributes.namespace: Invalid value: \"kube-system\": must match metadata.namespace",
            ),
            (&local, asks(path, doc!({ "path": "/" })), "disallowed on this kind of request"),
            (
                &format!("{group}/subjectaccessreviews"),
                doc!({ "spec": {} }),
                "[spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified, spec.user: Invalid value: \"\": at least one of user or group must be specified]",
            ),
        ] {
            let said = server.post(uri, &ask).await.fails(422);
            assert!(said.contains(why), "{said}");
        }
        let token = doc!({ "spec": { "audiences": ["x"] } });
        server.post("/apis/authentication.k8s.io/v1/tokenreviews", &token).await.fails(400);
    });
}

#[test]
fn a_node_has_tokens_made_for_its_own_pods_audiences_only() {
    base::sim::run(33, async {
        let server = guarded().await;
        let pods = "/api/v1/namespaces/default/pods";
        let pod = |name: &str, node: &str| {
            doc!({ "metadata": { "name": name }, "spec": { "nodeName": node, "containers": [{ "name": "c", "image": "i" }],
                "volumes": [{ "name": "t", "projected": { "sources": [{ "serviceAccountToken": { "path": "t", "audience": "vault" } }] } }] } })
        };
        let node = Arc::new(User::new("system:node:a", &["system:nodes"]));
        let mine = server.post(pods, &pod("mine", "a")).await.ok();
        let others = server.post(pods, &pod("others", "b")).await.ok();
        let ask = |pod: &Doc, audiences: Vec<String>| {
            let meta = pod.get("metadata");
            let (name, uid) = (meta.get("name").str(), meta.get("uid").str());
            doc!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": { "audiences": audiences,
                "boundObjectRef": { "kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid } } })
        };
        let token = "/api/v1/namespaces/default/serviceaccounts/default/token";
        for (pod, audiences, code) in [
            (&mine, vec![], 201),
            (&mine, vec!["vault"], 201),
            (&mine, vec!["https://elsewhere"], 403),
            (&mine, vec!["vault", "vault"], 403),
            (&others, vec!["vault"], 403),
        ] {
            let body = ask(pod, audiences.iter().map(|a| (*a).to_owned()).collect());
            let answer = send(&server, &node, "POST", token, &body).await;
            assert_eq!(answer.code, code, "{audiences:?}: {}", answer.pretty());
        }
        let unbound = doc!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {} });
        send(&server, &node, "POST", token, &unbound).await.fails(403);
        // The other node's pod, status and heartbeat.
        let path = format!("{pods}/others");
        server.send_as(node.clone(), "DELETE", &path, &[], Bytes::new()).await.fails(403);
        send(&server, &node, "PUT", &format!("{path}/status"), &others).await.fails(403);
        let lease = doc!({ "metadata": { "name": "b" }, "spec": {} });
        server.post("/api/v1/namespaces", &doc!({ "metadata": { "name": "kube-node-lease" } })).await.ok();
        let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        send(&server, &node, "POST", leases, &lease).await.fails(403);
        let labelled =
            doc!({ "metadata": { "name": "a", "labels": { "node-role.kubernetes.io/control-plane": "" } } });
        send(&server, &node, "POST", "/api/v1/nodes", &labelled).await.fails(403);
        // Nor secrets that no pod of its names, by whatever selector.
        let secrets = "/api/v1/namespaces/default/secrets";
        server.post(secrets, &doc!({ "metadata": { "name": "s" } })).await.ok();
        for query in
            ["/s", "", "?fieldSelector=metadata.name%3Ds", "?fieldSelector=type!%3Da%5C,metadata.name%3Ds"]
        {
            server
                .send_as(node.clone(), "GET", &format!("{secrets}{query}"), &[], Bytes::new())
                .await
                .fails(403);
        }
    });
}
