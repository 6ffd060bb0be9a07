//! The controllers over the real API server, in process and in virtual time: the seeds' story, with a kubelet that only
//! says what a kubelet would.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use apimachinery::call::{Options, Transport, User};
use apimachinery::{Doc, Gvr, Ref, doc, k};
use apiserver::LocalTransport;
use apiserver::authorization::rbac::Rbac;
use client::gvr::{
    CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, CONFIG_MAPS, DEPLOYMENTS, ENDPOINT_SLICES, EVENTS, NAMESPACES,
    NODES, PODS, REPLICA_SETS, REPLICATION_CONTROLLERS, RESOURCE_QUOTAS, SERVICE_ACCOUNTS, SERVICE_CIDRS,
    SERVICES,
};
use client::reflector::{self, Selection};
use client::{Client, DeleteOptions, PatchType, WorkQueue};
use controllers::manager::Named;
use controllers::{ALL, Manager, Settings, roles};
use storage::sim::SimDisk;

const NS: &str = "myspace";
/// Virtual time within which whatever is waited for must come.
const SOON: Duration = Duration::from_secs(120);

struct World {
    client: Client,
    manager: Manager,
    _kubelet: base::task::Task<()>,
}

fn kinds() -> Vec<Named> {
    let all = api::kinds();
    let stored = all.iter().filter(|k| k.class != api::Class::Virtual && k.kind != "Event");
    stored
        .map(|kind| {
            let gv = &kind.storage_version().gv;
            let gvr = Gvr {
                group: gv.group.clone(),
                version: gv.version.clone(),
                resource: kind.storage.resource.clone(),
            };
            Named { gvr, kind: kind.kind.to_string(), namespaced: kind.is_namespaced() }
        })
        .collect()
}

async fn start() -> World {
    let disk = SimDisk::new(Duration::from_millis(1));
    let api = harness::api(&disk, |cacher| vec![Box::new(Rbac::new(cacher))]).await;
    let transport: Arc<dyn Transport> = Arc::new(LocalTransport::new(api));
    let client = Client::component(transport.clone(), User::new("admin", &["system:masters"]));
    for role in roles(ALL, &kinds()) {
        let gvr =
            if role.get(k::KIND).str() == "ClusterRole" { CLUSTER_ROLES } else { CLUSTER_ROLE_BINDINGS };
        client.resource(gvr).create(role).await.unwrap();
    }
    for name in ["default", "kube-system", "kube-node-lease"] {
        let namespace = doc!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        client.resource(NAMESPACES).create(namespace).await.unwrap();
    }
    // As it was made when the cluster had one family.
    let range = doc!({ "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": { "name": "kubernetes" },
        "spec": { "cidrs": ["10.96.0.0/16"] } });
    client.resource(SERVICE_CIDRS).create(range).await.unwrap();
    let settings = Settings {
        root_ca: "-----BEGIN CERTIFICATE-----".into(),
        cluster_cidrs: vec!["10.244.0.0/16".into()],
        service_cidrs: vec!["10.96.0.0/16".into(), "fd00:96::/112".into()],
        api_addresses: vec!["192.0.2.1".parse().unwrap()],
        api_port: 6443,
        service_ips: vec!["10.96.0.1".parse().unwrap()],
        kinds: kinds(),
    };
    let manager = Manager::start(transport, settings, ALL);
    let kubelet = base::task::spawn(kubelet(client.clone()));
    World { client, manager, _kubelet: kubelet }
}

/// Says of every pod that it runs, and of every pod that is to go that it went.
async fn kubelet(client: Client) {
    let (pods, _fresh) = reflector::start(client.resource(PODS), Selection::default(), vec![]);
    let queue = WorkQueue::new();
    let keys = queue.clone();
    pods.subscribe(move |change| keys.add(change.key.clone()));
    let mut address = 0;
    while let Some(key) = queue.get().await {
        queue.done(&key);
        let Some(stored) = pods.get_key(&key) else { continue };
        let mut pod = stored.doc();
        let resource = client.namespaced(PODS, &key.namespace);
        let uid = pod.get(k::METADATA).get(k::UID).str().to_owned();
        if pod.get(k::METADATA).get(k::DELETION_TIMESTAMP).is_set() {
            drop(
                resource
                    .delete(&key.name, DeleteOptions { grace: Some(0), ..DeleteOptions::uid(&uid) })
                    .await,
            );
        } else if pod.get(k::STATUS).get(k::PHASE).str() != "Running" {
            address += 1;
            let ip = format!("10.244.0.{address}");
            let at = apimachinery::gotime::format(base::time::now());
            pod.edit().set(
                k::STATUS,
                doc!({ "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }], "conditions": [
                    { "type": "Ready", "status": "True", "lastTransitionTime": at }] }),
            );
            drop(resource.update_status(pod).await);
        }
    }
}

impl World {
    async fn create(&self, gvr: Gvr, object: Doc) {
        self.client.namespaced(gvr, NS).create(object).await.unwrap();
    }

    async fn get(&self, gvr: Gvr, name: &str) -> Option<Doc> {
        self.client.namespaced(gvr, NS).get(name).await.ok().map(|s| s.doc())
    }

    async fn list(&self, gvr: Gvr) -> Vec<Doc> {
        let list = self.client.namespaced(gvr, NS).list(Options::default()).await.unwrap();
        list.items.iter().map(|s| s.doc()).collect()
    }

    async fn patch(&self, gvr: Gvr, name: &str, patch: Doc) {
        self.client.namespaced(gvr, NS).patch(name, PatchType::Strategic, patch, "").await.unwrap();
    }

    /// Waits until the objects of a kind are as `test` says.
    async fn until(&self, what: &str, gvr: Gvr, test: impl Fn(&[Doc]) -> bool) {
        let namespaced = kinds().iter().any(|kind| kind.gvr == gvr && kind.namespaced);
        let resource = self.client.namespaced(gvr, if namespaced { NS } else { "" });
        let (cache, _fresh) = reflector::start(resource, Selection::default(), vec![]);
        let docs = |c: &client::SharedCache| c.list().iter().map(|s| s.doc()).collect::<Vec<_>>();
        let held = cache.wait_until(|c| c.is_synced() && test(&docs(c)));
        if base::time::timeout(SOON, held).await.is_err() {
            for kind in kinds() {
                let synced = self.manager.cache(&kind.gvr).map(|c| c.is_synced());
                if synced != Some(true) {
                    eprintln!("{} is not synced: {synced:?}", kind.gvr);
                    eprintln!("{:?}", self.client.resource(kind.gvr).list(Options::default()).await.err());
                }
            }
            panic!("not in time: {what}\n{:#?}\n{:#?}", docs(&cache), self.messages().await);
        }
    }

    async fn messages(&self) -> Vec<String> {
        let events = self.list(EVENTS).await;
        let text = |e: &Doc| {
            let (reason, message) = (e.get(k::REASON).str(), e.get(k::MESSAGE).str());
            format!(
                "{} {reason}: {message} x{}",
                e.root().find("involvedObject.name").str(),
                e.get(k::COUNT).i64()
            )
        };
        events.iter().map(text).collect()
    }
}

fn deployment() -> Doc {
    doc!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "namespace": NS },
        "spec": { "replicas": 3, "selector": { "matchLabels": { "app": "web" } }, "template": {
            "metadata": { "labels": { "app": "web" } },
            "spec": { "containers": [{ "name": "k8s-demo", "image": "demo:1",
                "ports": [{ "name": "nodejs-port", "containerPort": 3000 }],
                "resources": { "requests": { "cpu": "200m", "memory": "0.5Gi" },
                    "limits": { "cpu": "400m", "memory": "1Gi" } } }] } } } })
}

fn number(object: &Doc, path: &str) -> i64 {
    object.root().find(path).i64()
}

async fn story() -> (u64, Vec<String>) {
    let w = start().await;
    let namespace = doc!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NS } });
    w.client.resource(NAMESPACES).create(namespace).await.unwrap();
    w.until("service account", SERVICE_ACCOUNTS, |all| all.len() == 1).await;
    w.until("root certificate", CONFIG_MAPS, |all| all.len() == 1).await;
    quota_holds_and_lets_go(&w).await;
    update_rolls(&w).await;
    a_replication_controller_adopts_and_releases(&w).await;
    deletion_takes_everything(&w).await;
    let node = doc!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" } });
    w.client.resource(NODES).create(node).await.unwrap();
    let (nodes, _fresh) = reflector::start(w.client.resource(NODES), Selection::default(), vec![]);
    let range = |c: &client::SharedCache| {
        c.get("", "n1").is_some_and(|n| n.doc().root().find("spec.podCIDR").str() == "10.244.0.0/24")
    };
    base::time::timeout(SOON, nodes.wait_until(range)).await.expect("the node gets a range");
    let service = w.client.namespaced(SERVICES, "default").get("kubernetes").await.unwrap();
    assert_eq!(service.doc().root().find("spec.clusterIP").str(), "10.96.0.1");
    let rest = w.client.resource(EVENTS).list(Options::default()).await.unwrap();
    let names = rest.items.iter().map(|s| format!("{}@{}", s.name(), s.revision)).collect();
    (rest.revision, names)
}

async fn quota_holds_and_lets_go(w: &World) {
    let quota = doc!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "compute-quota" },
        "spec": { "hard": { "requests.cpu": "1", "requests.memory": "1Gi", "limits.cpu": "2", "limits.memory": "2Gi" } } });
    w.create(RESOURCE_QUOTAS, quota).await;
    w.until("quota status", RESOURCE_QUOTAS, |all| all[0].root().find("status.hard").len() == 4).await;
    w.create(DEPLOYMENTS, deployment()).await;
    w.until("two pods run", DEPLOYMENTS, |all| {
        let failed = all[0].root().find("status.conditions").items().any(|c| {
            c.get(k::TYPE).str() == "ReplicaFailure"
                && c.get(k::MESSAGE).str().contains("exceeded quota: compute-quota")
        });
        failed && number(&all[0], "status.availableReplicas") == 2
    })
    .await;
    assert_eq!(w.list(PODS).await.len(), 2);
    w.until("the event", EVENTS, |all| {
        let is = |e: &Doc| {
            e.get(k::REASON).str() == "FailedCreate"
                && e.get(k::MESSAGE).str().starts_with("Error creating: pods \"web-")
        };
        all.iter().any(is)
    })
    .await;
    let more = doc!({ "spec": { "hard": { "requests.memory": "2.5Gi", "limits.memory": "5Gi", "limits.cpu": "4", "requests.cpu": "2" } } });
    w.patch(RESOURCE_QUOTAS, "compute-quota", more).await;
    w.until("three pods run", DEPLOYMENTS, |all| {
        let conditions = || all[0].root().find("status.conditions").items();
        number(&all[0], "status.availableReplicas") == 3
            && conditions()
                .all(|c| c.get(k::STATUS).str() == "True" && c.get(k::TYPE).str() != "ReplicaFailure")
    })
    .await;
    let service = doc!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" }, "spec": {
        "selector": { "app": "web" }, "ports": [{ "port": 3000, "targetPort": "nodejs-port" }] } });
    w.create(SERVICES, service).await;
    w.until("endpoints", ENDPOINT_SLICES, |all| {
        let ready = |e: Ref<'_>| e.root_ready();
        all.len() == 1 && all[0].get(k::ENDPOINTS).items().filter(|e| ready(*e)).count() == 3
    })
    .await;
}

trait Ready {
    fn root_ready(&self) -> bool;
}

impl Ready for Ref<'_> {
    fn root_ready(&self) -> bool {
        self.get(k::CONDITIONS).get(k::READY).bool()
    }
}

async fn update_rolls(w: &World) {
    let image = doc!({ "spec": { "template": { "spec": { "containers": [{ "name": "k8s-demo", "image": "demo:2" }] } } } });
    w.patch(DEPLOYMENTS, "web", image).await;
    w.until("the update is complete", DEPLOYMENTS, |all| {
        let progressing =
            all[0].root().find("status.conditions").items().find(|c| c.get(k::TYPE).str() == "Progressing");
        number(&all[0], "status.observedGeneration") == number(&all[0], "metadata.generation")
            && number(&all[0], "status.updatedReplicas") == 3
            && number(&all[0], "status.replicas") == 3
            && number(&all[0], "status.availableReplicas") == 3
            && progressing.is_some_and(|c| c.get(k::REASON).str() == "NewReplicaSetAvailable")
    })
    .await;
    let d = w.get(DEPLOYMENTS, "web").await.unwrap();
    let revision =
        d.get(k::METADATA).get(k::ANNOTATIONS).get("deployment.kubernetes.io/revision").str().to_owned();
    assert_eq!(revision, "2");
    let sizes: Vec<i64> = w.list(REPLICA_SETS).await.iter().map(|s| number(s, "spec.replicas")).collect();
    assert_eq!(sizes.iter().sum::<i64>(), 3, "{sizes:?}");
    assert_eq!(sizes.len(), 2);
    w.until("only new pods", PODS, |all| {
        all.len() == 3
            && all.iter().all(|p| p.root().find("spec.containers").item(0).get(k::IMAGE).str() == "demo:2")
    })
    .await;
    w.until("quota counts three", RESOURCE_QUOTAS, |all| {
        all[0].get(k::STATUS).get(k::USED).get("requests.memory").str() == "1536Mi"
    })
    .await;
}

async fn a_replication_controller_adopts_and_releases(w: &World) {
    let small =
        doc!({ "requests": { "cpu": "10m", "memory": "1Mi" }, "limits": { "cpu": "10m", "memory": "1Mi" } });
    let mut template = doc!({ "metadata": { "labels": { "app": "old" } }, "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    template.edit().at(k::SPEC).list(k::CONTAINERS).item(0).unwrap().set(k::RESOURCES, &small);
    let mut orphan = template.clone();
    orphan.edit().at(k::METADATA).set(k::NAME, "orphan");
    orphan.edit().set(k::API_VERSION, "v1").set(k::KIND, "Pod");
    w.create(PODS, orphan).await;
    let mut controller = doc!({ "apiVersion": "v1", "kind": "ReplicationController", "metadata": { "name": "old" }, "spec": { "replicas": 2 } });
    controller.edit().at(k::SPEC).set(k::TEMPLATE, template);
    w.create(REPLICATION_CONTROLLERS, controller).await;
    let counted = |n: i64| {
        move |all: &[Doc]| {
            all.len() == 1
                && number(&all[0], "status.replicas") == n
                && number(&all[0], "status.availableReplicas") == n
                && number(&all[0], "status.observedGeneration") == number(&all[0], "metadata.generation")
        }
    };
    w.until("two pods of the controller", REPLICATION_CONTROLLERS, counted(2)).await;
    let owners = |all: &[Doc]| -> Vec<String> {
        let of = |pod: &Doc| {
            let owner = pod.root().find("metadata.ownerReferences").item(0);
            format!("{}/{}", owner.get(k::API_VERSION).str(), owner.get(k::KIND).str())
        };
        all.iter().filter(|p| p.root().find("metadata.labels.app").str() == "old").map(of).collect()
    };
    assert_eq!(owners(&w.list(PODS).await), vec!["v1/ReplicationController"; 2], "the orphan is adopted");
    let other = doc!({ "metadata": { "labels": { "app": "free" } } });
    w.patch(PODS, "orphan", other).await;
    w.until("another in its place", PODS, |all| {
        let free = all.iter().find(|p| p.root().find("metadata.name").str() == "orphan");
        owners(all).len() == 2 && free.is_some_and(|p| !p.root().find("metadata.ownerReferences").exists())
    })
    .await;
    w.patch(REPLICATION_CONTROLLERS, "old", doc!({ "spec": { "replicas": 0 } })).await;
    w.until("none", REPLICATION_CONTROLLERS, counted(0)).await;
    w.client.namespaced(REPLICATION_CONTROLLERS, NS).delete("old", DeleteOptions::default()).await.unwrap();
    w.client.namespaced(PODS, NS).delete("orphan", DeleteOptions::default()).await.unwrap();
}

async fn deletion_takes_everything(w: &World) {
    let deployments = w.client.namespaced(DEPLOYMENTS, NS);
    deployments.delete("web", DeleteOptions::default()).await.unwrap();
    w.until("sets are collected", REPLICA_SETS, <[Doc]>::is_empty).await;
    w.until("pods are collected", PODS, <[Doc]>::is_empty).await;
    w.create(DEPLOYMENTS, deployment()).await;
    w.until("two sets of pods", PODS, |all| all.len() == 3).await;
    w.client.resource(NAMESPACES).delete(NS, DeleteOptions::default()).await.unwrap();
    let (spaces, _fresh) = reflector::start(w.client.resource(NAMESPACES), Selection::default(), vec![]);
    let gone = spaces.wait_until(|c| c.is_synced() && c.get("", NS).is_none());
    if base::time::timeout(SOON, gone).await.is_err() {
        panic!("the namespace stays: {:?}", spaces.get("", NS).map(|s| s.doc()));
    }
    assert!(w.list(PODS).await.is_empty());
    assert!(w.list(ENDPOINT_SLICES).await.is_empty());
}

#[test]
fn sums_of_roles_and_ranges_of_services_are_kept() {
    base::sim::run(5, async {
        let w = start().await;
        let role = |name: &str, label: &str, rest: Doc| {
            let mut role = doc!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": { "name": name, "labels": { label: "true" } } });
            for (key, value) in rest.root().entries() {
                role.edit().set(key, value);
            }
            role
        };
        let of = |label: &str| doc!({ "aggregationRule": { "clusterRoleSelectors": [{ "matchLabels": { label: "true" } }] } });
        let rule = |resource: &str| doc!({ "rules": [{ "apiGroups": [""], "resources": [resource], "verbs": ["get"] }] });
        for role in [
            role("sum", "none", of("up")),
            role("inner", "up", of("in")),
            role("a", "in", rule("pods")),
            role("b", "in", rule("secrets")),
        ] {
            w.client.resource(CLUSTER_ROLES).create(role).await.unwrap();
        }
        w.until("the sum of a sum", CLUSTER_ROLES, |all| {
            let sum = all.iter().find(|role| role.root().find("metadata.name").str() == "sum");
            sum.is_some_and(|sum| sum.get(k::RULES).len() == 2)
        })
        .await;
        let is = |all: &[Doc], name: &str, status: &str| {
            let found = all.iter().find(|range| range.root().find("metadata.name").str() == name);
            found.is_some_and(|range| {
                range.root().find("status.conditions").item(0).get(k::STATUS).str() == status
                    && range.root().find("metadata.finalizers").len() == 1
            })
        };
        let more = doc!({ "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": { "name": "more" },
            "spec": { "cidrs": ["10.97.0.0/24"] } });
        w.client.resource(SERVICE_CIDRS).create(more).await.unwrap();
        w.until("both ready", SERVICE_CIDRS, |all| is(all, "kubernetes", "True") && is(all, "more", "True"))
            .await;
        w.until("the second family is added", SERVICE_CIDRS, |all| {
            all.iter().any(|range| range.root().find("spec.cidrs").len() == 2)
        })
        .await;
        let service = doc!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "there" },
            "spec": { "clusterIP": "10.97.0.7", "ports": [{ "port": 80 }] } });
        w.client.namespaced(SERVICES, "default").create(service).await.unwrap();
        w.client.resource(SERVICE_CIDRS).delete("more", DeleteOptions::default()).await.unwrap();
        w.until("it waits for its address", SERVICE_CIDRS, |all| is(all, "more", "False")).await;
        w.client.namespaced(SERVICES, "default").delete("there", DeleteOptions::default()).await.unwrap();
        w.until("it is gone", SERVICE_CIDRS, |all| all.len() == 1).await;
    });
}

#[test]
fn the_seeds_story_comes_out_the_same_each_time() {
    for seed in 1..4 {
        let first = base::sim::run(seed, story());
        assert_eq!(first, base::sim::run(seed, story()), "seed {seed}: one seed, one story");
    }
}
