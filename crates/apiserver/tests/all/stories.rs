//! What single kinds do beyond what all do: pods' deletion, quotas, addresses, watches, and what crashes leave.

use std::sync::Arc;

use apimachinery::call::{Accept, Body, Options, Reply, Secret, Target, Transport, User, Verb, Who, Wire};
use apimachinery::{Call, Gvr, doc, k};
use apiserver::LocalTransport;
use bytes::Bytes;
use futures_util::StreamExt;

use harness::{Server, shown};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> apimachinery::Doc {
    doc!({ "metadata": { "name": name }, "spec": { "containers": [{ "name": "c", "image": "i",
        "resources": { "requests": { "memory": "1Gi" }, "limits": { "memory": "1Gi" } } }] } })
}

#[test]
fn a_quota_is_never_exceeded_whoever_is_first() {
    base::sim::run(3, async {
        let server = Arc::new(Server::start().await);
        let quotas = "/api/v1/namespaces/default/resourcequotas";
        let quota = doc!({ "metadata": { "name": "q" }, "spec": { "hard": { "requests.memory": "2Gi" } } });
        let mut made = server.post(quotas, &quota).await.ok();
        let why = server.post(PODS, &pod("early")).await.fails(403);
        assert_eq!(
            why,
            "pods \"early\" is forbidden: status unknown for quota: q, resources: requests.memory"
        );
        made.edit().set(
            k::STATUS,
            doc!({ "hard": { "requests.memory": "2Gi" }, "used": { "requests.memory": "0" } }),
        );
        server.put(&format!("{quotas}/q/status"), &made).await.ok();
        let mut tasks = Vec::new();
        for i in 0..6 {
            let server = server.clone();
            tasks.push(base::task::spawn(async move { server.post(PODS, &pod(&format!("p{i}"))).await }));
        }
        let mut refused = Vec::new();
        for task in tasks {
            let answer = task.await;
            if answer.code != 201 {
                refused.push(answer.fails(403));
            }
        }
        assert_eq!(refused.len(), 4);
        assert!(refused.iter().all(|w| w.ends_with("is forbidden: exceeded quota: q, requested: requests.memory=1Gi, used: requests.memory=2Gi, limited: requests.memory=2Gi")), "{refused:?}");
        let used = server.get(&format!("{quotas}/q")).await.ok().root().find("status.used").to_doc();
        assert_eq!(used.get("requests.memory").str(), "2Gi");
        let bare = doc!({ "metadata": { "name": "bare" }, "spec": { "containers": [{ "name": "c", "image": "i" }] } });
        let why = server.post(PODS, &bare).await.fails(403);
        assert_eq!(why, "pods \"bare\" is forbidden: failed quota: q: must specify requests.memory for: c");
    });
}

#[test]
fn pods_go_with_grace_that_only_shrinks() {
    base::sim::run(4, async {
        let server = Server::start().await;
        // Unscheduled: at once.
        server.post(PODS, &pod("a")).await.ok();
        server.delete(&format!("{PODS}/a")).await.ok();
        server.get(&format!("{PODS}/a")).await.fails(404);
        // Bound: the kubelet has time to end it.
        server.post(PODS, &pod("b")).await.ok();
        let binding = doc!({ "metadata": { "name": "b" }, "target": { "kind": "Node", "name": "n1" } });
        assert_eq!(server.post(&format!("{PODS}/b/binding"), &binding).await.code, 201);
        let why = server.post(&format!("{PODS}/b/binding"), &binding).await.fails(409);
        assert!(why.ends_with("pod b is already assigned to node \"n1\""), "{why}");
        let bound = server.get(&format!("{PODS}/b")).await.ok();
        assert_eq!(bound.root().find("spec.nodeName").str(), "n1");
        assert!(
            bound
                .root()
                .find("status.conditions")
                .items()
                .any(|c| c.get(k::TYPE).str() == "PodScheduled" && c.get(k::STATUS).str() == "True")
        );
        let grace = |d: &apimachinery::Doc| d.root().find("metadata.deletionGracePeriodSeconds").i64();
        assert_eq!(grace(&server.delete(&format!("{PODS}/b")).await.ok()), 30);
        assert_eq!(grace(&server.delete(&format!("{PODS}/b?gracePeriodSeconds=60")).await.ok()), 30);
        assert_eq!(grace(&server.delete(&format!("{PODS}/b?gracePeriodSeconds=5")).await.ok()), 5);
        let uid = bound.root().find("metadata.uid").str().to_owned();
        let wrong = doc!({ "kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "preconditions": { "uid": "other" } });
        let last = doc!({ "kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "preconditions": { "uid": uid } });
        let at = format!("{PODS}/b");
        server.send("DELETE", &at, &[], wrong.to_json().into()).await.fails(409);
        server.send("DELETE", &at, &[], last.to_json().into()).await.ok();
        server.get(&at).await.fails(404);
    });
}

#[test]
fn addresses_and_ports_are_taken_and_given_back() {
    base::sim::run(5, async {
        let server = Server::start().await;
        let services = "/api/v1/namespaces/default/services";
        let service = |name: &str| doc!({ "metadata": { "name": name }, "spec": { "type": "NodePort", "selector": { "a": "b" }, "ports": [{ "port": 80 }] } });
        let made = server.post(services, &service("a")).await.ok();
        let (ip, port) = (
            made.root().find("spec.clusterIP").str().to_owned(),
            made.root().find("spec.ports").item(0).get("nodePort").i64(),
        );
        assert!(ip.starts_with("10.96."), "{ip}");
        assert!((30_000..=32_767).contains(&port), "{port}");
        let address = format!("/apis/networking.k8s.io/v1/ipaddresses/{ip}");
        assert_eq!(server.get(&address).await.ok().root().find("spec.parentRef.name").str(), "a");
        let mut taken = service("b");
        taken.edit().at(k::SPEC).set("clusterIP", &ip);
        let why = server.post(services, &taken).await.fails(422);
        assert!(
            why.contains(&format!("failed to allocate IP {ip}: provided IP is already allocated")),
            "{why}"
        );
        let mut taken = service("b");
        taken.edit().at(k::SPEC).list(k::PORTS).item(0).unwrap().set("nodePort", port);
        let why = server.post(services, &taken).await.fails(422);
        assert!(why.contains("provided port is already allocated"), "{why}");
        server.delete(&format!("{services}/a")).await.ok();
        server.get(&address).await.fails(404);
        assert_eq!(server.post(services, &taken).await.code, 201);
    });
}

#[test]
fn selectors_turn_changes_into_comings_and_goings() {
    base::sim::run(6, async {
        let server = Server::start().await;
        let maps = "/api/v1/namespaces/default/configmaps";
        let map = |labels: apimachinery::Doc| {
            let mut out = doc!({ "metadata": { "name": "m" } });
            out.edit().at(k::METADATA).set(k::LABELS, labels);
            out
        };
        let begin = server.get(maps).await.ok().root().find("metadata.resourceVersion").str().to_owned();
        server.post(maps, &map(doc!({ "a": "no" }))).await.ok();
        for value in ["yes", "yes", "no", "yes"] {
            let patch =
                doc!({ "metadata": { "labels": { "a": value, "n": base::rand::below(1000).to_string() } } });
            server.patch(&format!("{maps}/m"), "merge", &patch).await.ok();
        }
        server.delete(&format!("{maps}/m")).await.ok();
        let watch = format!("{maps}?watch=1&labelSelector=a%3Dyes&timeoutSeconds=2&resourceVersion={begin}");
        let events = server.get(&watch).await.ok();
        let kinds: Vec<&str> = events.root().items().map(|e| e.get(k::TYPE).str()).collect();
        assert_eq!(kinds, ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]);
        let revisions: Vec<u64> = events
            .root()
            .items()
            .map(|e| e.find("object.metadata.resourceVersion").str().parse().unwrap())
            .collect();
        assert!(revisions.is_sorted_by(|a, b| a < b), "{revisions:?}");
        // After five minutes the window has moved on.
        base::time::sleep(std::time::Duration::from_secs(301)).await;
        server.post(maps, &map(doc!({}))).await.ok();
        let events = server.get(&format!("{maps}?watch=1&resourceVersion={begin}")).await.ok();
        let gone = events.root().item(0);
        assert_eq!((gone.get(k::TYPE).str(), gone.find("object.code").i64()), ("ERROR", 410));
    });
}

#[test]
fn watches_tell_their_beginning_and_their_progress() {
    base::sim::run(7, async {
        let server = Server::start().await;
        let maps = "/api/v1/namespaces/default/configmaps";
        server.post(maps, &doc!({ "metadata": { "name": "m" } })).await.ok();
        let watch = format!(
            "{maps}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=90"
        );
        let events = server.get(&watch).await.ok();
        let kinds: Vec<&str> = events.root().items().map(|e| e.get(k::TYPE).str()).collect();
        assert_eq!(kinds, ["ADDED", "BOOKMARK"]);
        assert!(events.root().item(1).find("object.metadata.initial").bool());
    });
}

#[test]
fn a_list_continues_where_it_was() {
    base::sim::run(8, async {
        let server = Server::start().await;
        let maps = "/api/v1/namespaces/default/configmaps";
        for i in 0..5 {
            server.post(maps, &doc!({ "metadata": { "name": format!("m{i}") } })).await.ok();
        }
        let page = server.get(&format!("{maps}?limit=2")).await.ok();
        assert_eq!(page.root().find("metadata.remainingItemCount").i64(), 3);
        let token = page.root().find("metadata.continue").str().to_owned();
        server.delete(&format!("{maps}/m3")).await.ok();
        server.post(maps, &doc!({ "metadata": { "name": "m9" } })).await.ok();
        let rest = server.get(&format!("{maps}?limit=10&continue={token}")).await.ok();
        let names: Vec<&str> = rest.get(k::ITEMS).items().map(|i| i.find("metadata.name").str()).collect();
        assert_eq!(names, ["m2", "m3", "m4"], "the state of the first page");
        assert_eq!(
            rest.root().find("metadata.resourceVersion").str(),
            page.root().find("metadata.resourceVersion").str()
        );
        server.get(&format!("{maps}?continue=nonsense")).await.fails(400);
    });
}

#[test]
fn a_server_finds_what_another_acknowledged_before_the_power_was_cut() {
    base::sim::run(9, async {
        let server = Server::start().await;
        let maps = "/api/v1/namespaces/default/configmaps";
        for i in 0..20 {
            server.post(maps, &doc!({ "metadata": { "name": format!("m{i}") } })).await.ok();
        }
        let before = server.get(maps).await.ok();
        let disk = server.disk.clone();
        drop(server);
        disk.power_cut();
        let server = Server::on(disk).await;
        let after = server.get(maps).await.ok();
        assert_eq!(before.get(k::ITEMS).to_doc(), after.get(k::ITEMS).to_doc());
        let last = before.root().find("metadata.resourceVersion").str().parse::<u64>().unwrap();
        let made = server.post(maps, &doc!({ "metadata": { "name": "next" } })).await.ok();
        assert!(made.root().find("metadata.resourceVersion").str().parse::<u64>().unwrap() > last);
    });
}

#[test]
fn a_watcher_that_does_not_read_is_cut_off_and_holds_up_nobody() {
    base::sim::run(10, async {
        let server = Server::start().await;
        let maps = "/api/v1/namespaces/default/configmaps";
        let watch = format!("{maps}?watch=1");
        let admin = || Arc::new(User::new("admin", &["system:masters"]));
        let slow = server.reply(admin(), "GET", &watch, &[], Bytes::new()).await;
        let Reply::Watch(slow) = slow else { panic!("{slow:?}") };
        server.post(maps, &doc!({ "metadata": { "name": "m" } })).await.ok();
        for i in 0..5000 {
            let patch = doc!({ "data": { "n": i.to_string() } });
            server.patch(&format!("{maps}/m"), "merge", &patch).await.ok();
        }
        let told: Vec<_> = slow.events.flat_map(futures_util::stream::iter).map(shown).collect().await;
        let told =
            told.iter().map(|event| (event.get(k::TYPE).str(), event.get(k::OBJECT).get(k::CODE).i64()));
        assert_eq!(told.collect::<Vec<_>>(), [("ERROR", 410)]);
    });
}

#[test]
fn a_node_changes_only_what_is_its_own() {
    base::sim::run(11, async {
        let server = Server::start().await;
        let node = |name: &str| {
            Arc::new(User::new(&format!("system:node:{name}"), &["system:nodes", "system:masters"]))
        };
        let send = async |who: &str, method: &str, uri: &str, body: &apimachinery::Doc| {
            let headers: &[(&str, &str)] =
                if method == "PATCH" { &[("content-type", "application/merge-patch+json")] } else { &[] };
            server.send_as(node(who), method, uri, headers, body.to_json().into()).await
        };
        let n1 = doc!({ "metadata": { "name": "n1", "labels": { "kubernetes.io/hostname": "n1" } } });
        let made = send("n1", "POST", "/api/v1/nodes", &n1).await.ok();
        let taint = made.root().find("spec.taints").item(0);
        assert_eq!(taint.get("key").str(), "node.kubernetes.io/not-ready", "nobody places pods yet");
        let why = send("n2", "PATCH", "/api/v1/nodes/n1", &doc!({ "metadata": { "labels": { "a": "b" } } }))
            .await
            .fails(403);
        assert_eq!(why, "nodes \"n1\" is forbidden: node \"n2\" is not allowed to modify node \"n1\"");
        let label = doc!({ "metadata": { "labels": { "node-restriction.kubernetes.io/a": "b" } } });
        let why = send("n1", "PATCH", "/api/v1/nodes/n1", &label).await.fails(403);
        assert!(
            why.ends_with("is not allowed to modify the following labels: node-restriction.kubernetes.io/a"),
            "{why}"
        );
        let taint = doc!({ "spec": { "taints": [{ "key": "a", "effect": "NoSchedule" }] } });
        send("n1", "PATCH", "/api/v1/nodes/n1", &taint).await.fails(403);
        server.post(PODS, &pod("p")).await.ok();
        let binding = doc!({ "metadata": { "name": "p" }, "target": { "kind": "Node", "name": "n1" } });
        server.post(&format!("{PODS}/p/binding"), &binding).await.ok();
        let status = doc!({ "status": { "phase": "Running" } });
        send("n2", "PATCH", &format!("{PODS}/p/status"), &status).await.fails(403);
        send("n1", "PATCH", &format!("{PODS}/p/status"), &status).await.ok();
        send("n2", "DELETE", &format!("{PODS}/p"), &doc!({})).await.fails(403);
        send("n1", "POST", PODS, &pod("q")).await.fails(403);
    });
}

#[test]
fn a_write_whose_client_went_away_is_done_all_the_same() {
    base::sim::run(12, async {
        let server = Server::start().await;
        let maps = "/api/v1/namespaces/default/configmaps";
        let body = doc!({ "metadata": { "name": "m" } });
        {
            let write = server.post(maps, &body);
            // Long enough to begin, too short for the disk.
            assert!(base::time::timeout(std::time::Duration::from_nanos(1), write).await.is_err());
        }
        let watch = format!("{maps}?watch=1&timeoutSeconds=1");
        let events = server.get(&watch).await.ok();
        assert_eq!(
            events
                .root()
                .items()
                .map(|e| e.find("object.metadata.name").str().to_owned())
                .collect::<Vec<_>>(),
            ["m"]
        );
    });
}

#[test]
fn one_seed_gives_one_history() {
    let run = || {
        base::sim::run(13, async {
            let server = Server::start().await;
            for i in 0..5 {
                server.post(PODS, &doc!({ "metadata": { "generateName": "p-" }, "spec": { "containers": [{ "name": "c", "image": format!("i{i}") }] } })).await.ok();
            }
            server.get(PODS).await.pretty()
        })
    };
    assert_eq!(run(), run());
}

#[test]
fn callers_are_known_and_need_permission() {
    base::sim::run(14, async {
        let server = Server::start().await;
        let maps = "/api/v1/namespaces/default/configmaps";
        let jane = Arc::new(User::new("jane", &["dev"]));
        let why = server.send_as(jane.clone(), "GET", maps, &[], Bytes::new()).await.fails(403);
        assert_eq!(
            why,
            "configmaps is forbidden: User \"jane\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\""
        );
        let why = server
            .send_as(jane, "GET", maps, &[("impersonate-user", "admin")], Bytes::new())
            .await
            .fails(403);
        assert_eq!(
            why,
            "users \"admin\" is forbidden: User \"jane\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope"
        );
        let admin = Arc::new(User::new("admin", &["system:masters"]));
        let as_jane = server.send_as(admin, "GET", maps, &[("impersonate-user", "jane")], Bytes::new()).await;
        assert!(as_jane.fails(403).contains("User \"jane\" cannot list"));
        // Credentials that nobody vouches for are not the same as none.
        let mut call = maps_call(Verb::List);
        call.who =
            Who::Presented { certificates: Default::default(), bearer: Some(Secret("nonsense".into())) };
        let Reply::Status(status) = apiserver::handle(&server.api, call).await else { panic!("no status") };
        assert_eq!(status.code, 401);
        let Reply::Status(status) = apiserver::handle(&server.api, maps_call(Verb::List)).await else {
            panic!("no status")
        };
        assert!(
            status.code == 403 && status.message.contains("User \"system:anonymous\" cannot list"),
            "{status}"
        );
    });
}

fn maps_call(verb: Verb) -> Call {
    Call {
        who: Who::Anonymous,
        verb,
        target: Target::resource(Gvr::new("", "v1", "configmaps"), "default", "", ""),
        options: Options::default(),
        accept: Accept::default(),
        body: Body::Empty,
        wire: Wire::default(),
    }
}

#[test]
fn a_component_calls_in_process_and_reads_its_own_writes() {
    base::sim::run(15, async {
        let server = Server::start().await;
        let transport = LocalTransport::new(server.api.clone());
        let who =
            || Who::Component(Arc::new(User::new("system:kube-controller-manager", &["system:masters"])));
        let body = doc!({ "metadata": { "name": "m" }, "data": { "a": "b" } });
        let body = Body::Doc { content_type: "application/json", doc: Box::new(body) };
        let made = transport.call(Call { who: who(), body, ..maps_call(Verb::Create) }).await.unwrap();
        let Reply::Object { code: 201, object: made, .. } = made else { panic!("{made:?}") };
        let Reply::List(list) = transport.call(Call { who: who(), ..maps_call(Verb::List) }).await.unwrap()
        else {
            panic!("no list")
        };
        assert_eq!(list.items.len(), 1);
        assert_eq!(list.items[0].json, made.json);
        assert!(list.revision >= made.revision);
    });
}

#[test]
fn services_that_race_get_addresses_and_ports_of_their_own() {
    base::sim::run(16, async {
        let server = Arc::new(Server::start().await);
        let services = "/api/v1/namespaces/default/services";
        let tasks: Vec<_> = (0..12)
            .map(|i| {
                let server = server.clone();
                let service = doc!({ "metadata": { "name": format!("s{i}") }, "spec": { "type": "NodePort", "ports": [{ "port": 80 }] } });
                base::task::spawn(async move { server.post(services, &service).await.ok() })
            })
            .collect();
        let mut seen = std::collections::BTreeSet::new();
        for task in tasks {
            let made = task.await;
            assert!(seen.insert(made.root().find("spec.clusterIP").str().to_owned()));
            assert!(seen.insert(made.root().find("spec.ports").item(0).get("nodePort").i64().to_string()));
        }
        assert_eq!(server.get("/apis/networking.k8s.io/v1/ipaddresses").await.ok().get(k::ITEMS).len(), 12);
        // What nobody has any more goes back: all of them, at once.
        server.delete(services).await.ok();
        assert_eq!(server.get("/apis/networking.k8s.io/v1/ipaddresses").await.ok().get(k::ITEMS).len(), 0);
        let ports =
            server.api.store.range(storage::Range::key("/registry/ranges/servicenodeports")).await.unwrap();
        let record = apimachinery::codec::json::parse(ports.kvs[0].value.to_vec()).unwrap().doc;
        assert!(record.get(k::DATA).str().bytes().all(|b| matches!(b, b'A' | b'=')), "{record:?}");
    });
}

#[test]
fn propagation_becomes_finalizers() {
    base::sim::run(17, async {
        let server = Server::start().await;
        let sets = "/apis/apps/v1/namespaces/default/replicasets";
        let set = |name: &str| {
            doc!({ "metadata": { "name": name }, "spec": { "selector": { "matchLabels": { "a": "b" } },
                "template": { "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "c", "image": "i" }] } } } })
        };
        for (policy, finalizer) in [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")] {
            server.post(sets, &set("r")).await.ok();
            let held = server.delete(&format!("{sets}/r?propagationPolicy={policy}")).await.ok();
            assert_eq!(held.root().find("metadata.finalizers").item(0).str(), finalizer);
            assert_eq!(held.root().find("metadata.generation").i64(), 2);
            let added = server
                .patch(
                    &format!("{sets}/r"),
                    "merge",
                    &doc!({ "metadata": { "finalizers": [finalizer, "example.com/new"] } }),
                )
                .await;
            assert!(
                added.fails(422).contains("no new finalizers can be added if the object is being deleted")
            );
            // The garbage collector has done its part.
            server
                .patch(&format!("{sets}/r"), "merge", &doc!({ "metadata": { "finalizers": [] } }))
                .await
                .ok();
            server.get(&format!("{sets}/r")).await.fails(404);
        }
        server.post(sets, &set("r")).await.ok();
        server.delete(&format!("{sets}/r?propagationPolicy=Background")).await.ok();
        server.get(&format!("{sets}/r")).await.fails(404);
        server.delete(&format!("{sets}/r?propagationPolicy=Sideways")).await.fails(422);
    });
}

#[test]
fn an_ingress_gets_the_default_class() {
    base::sim::run(1, async {
        let s = Server::start().await;
        let at = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";
        let make = async |name: &str| {
            let ingress = doc!({ "metadata": { "name": name },
                "spec": { "defaultBackend": { "service": { "name": "web", "port": { "number": 80 } } } } });
            let made = s.post(at, &ingress).await.ok();
            made.root().find("spec.ingressClassName").str().to_owned()
        };
        assert_eq!(make("without").await, "");
        for (name, default) in [("main", "true"), ("other", "false")] {
            let class = doc!({ "metadata": { "name": name, "annotations": {
                "ingressclass.kubernetes.io/is-default-class": default } }, "spec": { "controller": "example.com/lb" } });
            s.post("/apis/networking.k8s.io/v1/ingressclasses", &class).await.ok();
        }
        assert_eq!(make("with").await, "main");
    });
}
