//! A cluster for one test: requests as text, and waiting for conditions by watches.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::Duration;

use apimachinery::call::{BoxStream, Reply, User, WatchEvent};
use apimachinery::{Doc, Edit, Ref, Val, doc, k};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use sim::world::World;

use harness::{Answer, Server, shown};

/// How long a test waits for a condition, in virtual time; upstream's own limit for most of its waits.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// A control plane with two nodes that are ready, and a namespace of the test's own. Requests as [`Server`] has them,
/// with all rights.
pub struct Cluster {
    // Never read: its components live as long as this.
    _world: World,
    server: Server,
    /// The test's namespace.
    pub ns: String,
}

impl Deref for Cluster {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

/// Plays `test` in virtual time. What the checkers of the simulation accuse fails it, too.
pub fn play<F: Future<Output = ()>>(test: impl FnOnce(Cluster) -> F) {
    base::sim::run(1, async {
        let world = World::new(2);
        let server = Server { api: world.api().await, disk: world.disk() };
        let history = world.history.clone();
        let cluster = Cluster { _world: world, server, ns: "conformance".to_owned() };
        cluster.namespace("conformance").await;
        cluster
            .until("/api/v1/nodes", "both nodes are ready", |nodes| {
                nodes.len() == 2
                    && nodes
                        .values()
                        .all(|n| condition(n, "Ready") == "True" && n.root().find("spec.taints").is_empty())
            })
            .await;
        test(cluster).await;
        assert_eq!(history.broken(), Vec::<String>::new());
    });
}

impl Cluster {
    /// Makes a namespace and waits for what every namespace has: its service account and root certificate.
    pub async fn namespace(&self, name: &str) {
        self.post("/api/v1/namespaces", &doc!({ "metadata": { "name": name } })).await.ok();
        for (resource, object) in [("serviceaccounts", "default"), ("configmaps", "kube-root-ca.crt")] {
            self.until(&format!("/api/v1/namespaces/{name}/{resource}"), object, |all| {
                all.contains_key(&format!("{name}/{object}"))
            })
            .await;
        }
    }

    /// Reads the object at `uri`, changes it and writes it back; gives what was written. Again after a conflict: the
    /// cluster's own components write, too.
    pub async fn update(&self, uri: &str, change: impl Fn(Edit<'_>)) -> Doc {
        loop {
            let mut object = self.get(uri).await.ok();
            change(object.edit());
            let answer = self.put(uri, &object).await;
            if answer.code != 409 {
                return answer.ok();
            }
        }
    }

    /// Deletes with options.
    pub async fn delete_with(&self, uri: &str, options: &Doc) -> Answer {
        self.send("DELETE", uri, &[], options.to_json().into()).await
    }

    /// The objects of a collection.
    pub async fn list(&self, uri: &str) -> Vec<Doc> {
        self.get(uri).await.ok().get(k::ITEMS).items().map(Ref::to_doc).collect()
    }

    /// The names of the objects of a collection.
    pub async fn names(&self, uri: &str) -> Vec<String> {
        self.list(uri).await.iter().map(|o| text(o, "metadata.name").to_owned()).collect()
    }

    /// Waits until so many pods of a label `name=<name>` are ready, and no others are there.
    pub async fn runs(&self, name: &str, count: usize) -> BTreeMap<String, Doc> {
        let uri = format!("{}?labelSelector=name%3D{name}", self.at("/api/v1", "pods"));
        let what = format!("{count} pods of {name} run");
        self.until(&uri, &what, |pods| pods.len() == count && ready(pods) == count).await
    }

    /// A status that can be read, updated and patched, with conditions in it: what is written is seen by readers.
    pub async fn has_status(&self, collection: &str, name: &str) {
        let status = format!("{collection}/{name}/status");
        let uri = format!("{collection}?fieldSelector=metadata.name%3D{name}");
        let read = self.get(&status).await.ok();
        assert_same(read.get(k::STATUS), self.get(&format!("{collection}/{name}")).await.ok().get(k::STATUS));
        let condition = |kind: &str| doc!({ "type": kind, "status": "True", "reason": "E2E", "message": "Set from a test" });
        let has = |object: &Doc, kind: &str| {
            let found =
                object.root().find("status.conditions").items().find(|c| c.get(k::TYPE).str() == kind);
            found.is_some_and(|c| condition(kind).root().fields().all(|f| c.get(f.name()).same(f)))
        };
        let mut events = self.watch(&uri).await;
        let append =
            |object: Edit<'_>| _ = object.at(k::STATUS).list(k::CONDITIONS).push(condition("StatusUpdate"));
        assert!(has(&self.update(&status, append).await, "StatusUpdate"));
        self.sees(&mut events, "MODIFIED", |object| has(object, "StatusUpdate")).await;
        let mut patch = Doc::object();
        patch.edit().at(k::STATUS).list(k::CONDITIONS).push(condition("StatusPatched"));
        assert!(has(&self.patch(&status, "merge", &patch).await.ok(), "StatusPatched"));
        self.sees(&mut events, "MODIFIED", |object| has(object, "StatusPatched")).await;
        assert!(has(&self.get(&status).await.ok(), "StatusPatched"));
    }

    /// A scale that can be read, updated and patched: the object follows, and its pods.
    pub async fn scales(&self, collection: &str, name: &str) {
        let (one, scale) = (format!("{collection}/{name}"), format!("{collection}/{name}/scale"));
        let read = self.get(&scale).await.ok();
        assert_eq!(
            (text(&read, "kind"), int(&read, "spec.replicas"), int(&read, "status.replicas")),
            ("Scale", 1, 1)
        );
        let updated = self.update(&scale, |scale| _ = scale.at(k::SPEC).set(k::REPLICAS, 2)).await;
        assert_eq!(int(&updated, "spec.replicas"), 2);
        assert_eq!(int(&self.get(&one).await.ok(), "spec.replicas"), 2);
        self.runs(name, 2).await;
        let patched = self.patch(&scale, "merge", &doc!({ "spec": { "replicas": 4 } })).await.ok();
        assert_eq!(int(&patched, "spec.replicas"), 4);
        assert_eq!(int(&self.get(&one).await.ok(), "spec.replicas"), 4);
        self.runs(name, 4).await;
    }

    /// An owner made of `workload` adopts a pod that it selects, and lets go one that it no longer does.
    pub async fn adopts(&self, collection: &str, name: &str, workload: &Doc) -> String {
        let pods = self.at("/api/v1", "pods");
        self.post(&pods, &pod("orphan", name)).await.ok();
        let owner = self.post(collection, workload).await.ok();
        let uid = text(&owner, "metadata.uid");
        self.until_one(&pods, "orphan", "the pod is adopted", |pod| is_controlled_by(pod, uid)).await;
        let status = |owner: &Doc| int(owner, "status.replicas") == 1;
        self.until_one(collection, name, "no more than the one is made", status).await;
        assert_eq!(self.names(&format!("{pods}?labelSelector=name%3D{name}")).await, ["orphan"]);
        uid.to_owned()
    }

    /// A pod of the owner `uid` leaves it when its label says so; another takes its place.
    pub async fn releases(&self, name: &str, uid: &str) {
        let pods = self.at("/api/v1", "pods");
        let one = self.names(&format!("{pods}?labelSelector=name%3D{name}")).await.remove(0);
        let patch = doc!({ "metadata": { "labels": { "name": "not-matching-name" } } });
        self.patch(&format!("{pods}/{one}"), "strategic-merge", &patch).await.ok();
        let free = |pod: &Doc| pod.root().find("metadata.ownerReferences").is_empty();
        self.until_one(&pods, &one, "the pod is let go", free).await;
        let uri = format!("{pods}?labelSelector=name%3D{name}");
        self.until(&uri, "another takes its place", |pods| {
            pods.len() == 1 && pods.values().all(|pod| is_controlled_by(pod, uid))
        })
        .await;
    }

    /// The next event of `kind` that the watch has; whatever comes before is passed over.
    pub async fn sees(&self, events: &mut Events, kind: &str, test: impl Fn(&Doc) -> bool) -> Doc {
        loop {
            let event = events.next().await;
            let object = event.get(k::OBJECT).to_doc();
            if event.get(k::TYPE).str() == kind && test(&object) {
                return object;
            }
        }
    }

    /// That discovery shows a group's version and resource: in the list of all groups, in the group's own document and
    /// in the version's.
    pub async fn is_discovered(&self, group: &str, version: &str, resource: &str) {
        let has = |group: Ref<'_>| group.get(k::VERSIONS).items().any(|v| v.get(k::VERSION).str() == version);
        let all = self.get("/apis").await.ok();
        let mut groups = all.get("groups").items().filter(|g| g.get(k::NAME).str() == group);
        assert!(groups.any(has), "{group} in /apis");
        assert!(has(self.get(&format!("/apis/{group}")).await.ok().root()), "{version} in {group}");
        let resources = self.get(&format!("/apis/{group}/{version}")).await.ok();
        let mut names = resources.get("resources").items().map(|r| r.get(k::NAME).str());
        assert!(names.any(|name| name == resource), "{resource} in {group}/{version}");
    }

    /// Every operation of a kind, as the rows named `API operations` have it: `object` has a `generateName`.
    pub async fn operates(&self, group: &str, resource: &str, namespaced: bool, object: &Doc) {
        let prefix = format!("/apis/{group}/v1");
        self.is_discovered(group, "v1", resource).await;
        let object = with(object.clone(), "metadata.labels.special", "label");
        let all = format!("{prefix}/{resource}?labelSelector=special%3Dlabel");
        let at = if namespaced { self.at(&prefix, resource) } else { format!("{prefix}/{resource}") };
        let selected = format!("{at}?labelSelector=special%3Dlabel");
        for _ in 0..2 {
            self.post(&at, &object).await.ok();
        }
        let made = self.post(&at, &object).await.ok();
        let one = format!("{at}/{}", text(&made, "metadata.name"));
        assert_same(self.get(&one).await.ok().root(), made.root());
        let list = self.get(&selected).await.ok();
        assert_eq!(list.get(k::ITEMS).len(), 3);
        assert_eq!(self.list(&all).await.len(), 3);
        let from = text(&list, "metadata.resourceVersion");
        let mut here = self.watch(&format!("{selected}&resourceVersion={from}")).await;
        let mut everywhere = self.watch(&format!("{all}&resourceVersion={from}")).await;

        let patch = doc!({ "metadata": { "annotations": { "patched": "true" } } });
        let patched = self.patch(&one, "merge", &patch).await.ok();
        assert_eq!(text(&patched, "metadata.annotations.patched"), "true");
        let annotate = |object: Edit<'_>| {
            object.at(k::METADATA).at(k::ANNOTATIONS).set("updated", "true");
        };
        let updated = self.update(&one, annotate).await;
        assert_eq!(text(&updated, "metadata.annotations.updated"), "true");
        for events in [&mut here, &mut everywhere] {
            for what in [&patched, &updated] {
                let event = events.next().await;
                assert_eq!(event.get(k::TYPE).str(), "MODIFIED");
                assert_same(event.get(k::OBJECT), what.root());
            }
        }

        self.delete(&one).await.ok();
        self.get(&one).await.fails(404);
        assert_eq!(self.list(&selected).await.len(), 2);
        self.delete(&selected).await.ok();
        assert_eq!(self.list(&selected).await.len(), 0);
        for events in [&mut here, &mut everywhere] {
            for _ in 0..3 {
                assert_eq!(events.next().await.get(k::TYPE).str(), "DELETED");
            }
        }
    }

    /// A path of a resource in the test's namespace: `/api/v1` and `pods`, or `/apis/apps/v1` and `deployments`.
    pub fn at(&self, group: &str, resource: &str) -> String {
        format!("{group}/namespaces/{}/{resource}", self.ns)
    }

    /// Watches the collection at `uri` until `test` holds of its objects, by `namespace/name` (or name); gives them.
    ///
    /// # Panics
    /// When it does not come to hold.
    #[track_caller]
    pub fn until(
        &self,
        uri: &str,
        what: &str,
        test: impl Fn(&BTreeMap<String, Doc>) -> bool,
    ) -> impl Future<Output = BTreeMap<String, Doc>> {
        let at = std::panic::Location::caller();
        async move {
            let list = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
            let mut events = self.watch(&format!("{uri}{}{list}", separator(uri))).await;
            let mut all = BTreeMap::new();
            let end = base::time::instant() + WAIT_MAX;
            let mut settled = false;
            loop {
                if settled && test(&all) {
                    return all;
                }
                let Some(event) = events.next_before(end).await else {
                    let all: Vec<_> =
                        all.values().map(|o| String::from_utf8_lossy(&o.to_json()).into_owned()).collect();
                    panic!("{at}: {what}: not within {WAIT_MAX:?}; there is {}", all.join("\n"));
                };
                if event.get(k::TYPE).str() == "BOOKMARK" {
                    settled = true;
                    continue;
                }
                let object = event.get(k::OBJECT).to_doc();
                let meta = object.get(k::METADATA);
                let parts = [meta.get(k::NAMESPACE).str(), meta.get(k::NAME).str()];
                let key = parts.iter().copied().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("/");
                match event.get(k::TYPE).str() {
                    "DELETED" => all.remove(&key),
                    _ => all.insert(key, object),
                };
            }
        }
    }

    /// Waits until `test` holds of the one object at `collection` named `name`; gives it.
    pub async fn until_one(
        &self,
        collection: &str,
        name: &str,
        what: &str,
        test: impl Fn(&Doc) -> bool,
    ) -> Doc {
        let uri = format!("{collection}?fieldSelector=metadata.name%3D{name}");
        let mut all = self.until(&uri, what, |all| all.values().any(&test)).await;
        all.pop_first().expect("the condition held of one").1
    }

    /// Waits until nothing is left at `uri`.
    pub async fn until_none(&self, uri: &str, what: &str) {
        self.until(uri, what, BTreeMap::is_empty).await;
    }

    /// Begins a watch; `uri` is a collection's, with or without a query.
    pub async fn watch(&self, uri: &str) -> Events {
        let uri = format!("{uri}{}watch=true", separator(uri));
        let admin = User::new("admin", &["system:masters"]);
        match self.reply(admin.into(), "GET", &uri, &[], Bytes::new()).await {
            Reply::Watch(watch) => Events(Box::pin(watch.events.flat_map(stream::iter))),
            other => panic!("{uri}: {other:?}"),
        }
    }
}

/// What parts one more parameter from a URI.
fn separator(uri: &str) -> char {
    if uri.contains('?') { '&' } else { '?' }
}

/// The events of a watch.
pub struct Events(BoxStream<WatchEvent>);

impl Events {
    /// The next event as the client sees it: `type` and `object`.
    pub async fn next(&mut self) -> Doc {
        let end = base::time::instant() + WAIT_MAX;
        self.next_before(end).await.expect("an event comes")
    }

    /// The next event, if one comes before `end`.
    pub async fn next_before(&mut self, end: base::time::Instant) -> Option<Doc> {
        base::select! {
            event = self.0.next() => event.map(shown),
            () = base::time::sleep_until(end) => None,
        }
    }

    /// That nothing comes for so long.
    pub async fn is_quiet_for(&mut self, time: Duration) {
        let event = self.next_before(base::time::instant() + time).await;
        assert!(event.is_none(), "{event:?}");
    }
}

/// The status of a condition; empty without it.
pub fn condition<'a>(object: &'a Doc, kind: &str) -> &'a str {
    let found = object.root().find("status.conditions").items().find(|c| c.get(k::TYPE).str() == kind);
    found.map_or("", |c| c.get(k::STATUS).str())
}

/// The text at a dotted path; empty without it.
pub fn text<'a>(object: &'a Doc, path: &str) -> &'a str {
    object.root().find(path).str()
}

/// The number at a dotted path; 0 without it.
pub fn int(object: &Doc, path: &str) -> i64 {
    object.root().find(path).i64()
}

/// The object with a value at a dotted path.
pub fn with<'v>(mut object: Doc, path: &str, value: impl Into<Val<'v>>) -> Doc {
    let (parents, last) = path.rsplit_once('.').unwrap_or(("", path));
    let parents = parents.split('.').filter(|p| !p.is_empty());
    parents.fold(object.edit(), Edit::at).set(last, value);
    object
}

/// Of the same value, field by field.
#[track_caller]
pub fn assert_same(a: Ref<'_>, b: Ref<'_>) {
    assert!(a.same(b), "{:?}\n{:?}", a.to_doc(), b.to_doc());
}

/// How many of the pods are ready.
pub fn ready(pods: &BTreeMap<String, Doc>) -> usize {
    pods.values().filter(|pod| condition(pod, "Ready") == "True").count()
}

/// Whether the object's controlling owner is the one of this uid.
pub fn is_controlled_by(object: &Doc, uid: &str) -> bool {
    let mut owners = object.root().find("metadata.ownerReferences").items();
    owners.any(|owner| owner.get(k::UID).str() == uid && owner.get(k::CONTROLLER).bool())
}

/// A workload of pods labelled `name=<name>`, of the container `c`: a ReplicaSet's, Deployment's or, with a plain
/// selector, ReplicationController's body.
pub fn workload(name: &str, replicas: u32, image: &str) -> Doc {
    doc!({ "metadata": { "name": name, "labels": { "name": name } }, "spec": { "replicas": replicas,
        "selector": { "matchLabels": { "name": name } },
        "template": { "metadata": { "labels": { "name": name } },
            "spec": { "containers": [{ "name": "c", "image": image }] } } } })
}

/// A pod of one container, for a label.
pub fn pod(name: &str, label: &str) -> Doc {
    doc!({ "metadata": { "name": name, "labels": { "name": label } },
        "spec": { "containers": [{ "name": "c", "image": "pause" }] } })
}
