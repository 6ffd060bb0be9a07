//! Runs the controllers: shared caches, a queue and workers each, identities and RBAC, all from the declarations.
//! Upstream: cmd/kube-controller-manager, pkg/controller.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::call::{BoxFuture, Stored, Transport, User};
use apimachinery::{Doc, Gvr, doc};
use base::task::Task;
use base::time::Timestamp;
use client::cache::IndexFn;
use client::reflector::{self, Selection};
use client::{Client, Deleted, Error, EventRecorder, Fence, ObjectKey, SharedCache, WorkQueue};

/// The identity under which the shared caches read. Upstream: kube-controller-manager's informers.
pub const INFORMERS: &str = "system:kube-controller-manager";

/// A controller, declared. Its caches, its RBAC role and its place in the graph follow from this.
#[derive(Clone, Copy)]
pub struct Controller {
    /// Upstream's name: also its service account and the suffix of its role.
    pub name: &'static str,
    /// The event source; empty for one that writes no events.
    pub component: &'static str,
    /// How many keys are worked on at once.
    pub workers: usize,
    /// What it reads from caches, and which keys a change wakes.
    pub reads: &'static [Read],
    /// What it may do through the API.
    pub writes: &'static [Rule],
    /// For one that handles every kind of [`Settings::kinds`]: which keys a change of such a kind wakes.
    pub every_kind: Option<fn(&SharedCache, &Named, WorkQueue<ObjectKey>)>,
    /// Makes one key's world as it should be.
    pub reconcile: fn(Arc<Ctx>, ObjectKey) -> BoxFuture<'static, Result<Action, Error>>,
    /// Keys to begin with, such as those of work that no object stands for.
    pub begin: fn(&Ctx) -> Vec<ObjectKey>,
}

/// A cache that a controller reads.
pub struct Read {
    /// Of which kind.
    pub gvr: Gvr,
    /// Named indexes; controllers that use one name mean one function.
    pub indexes: &'static [(&'static str, IndexFn)],
    /// What a change wakes.
    pub wakes: Wakes,
}

/// Which keys a change wakes.
pub enum Wakes {
    /// None.
    Nothing,
    /// The object's own.
    Itself,
    /// Those that `map` finds for each value that the object has or had in `index`. It runs outside the cache.
    Through {
        /// The index.
        index: &'static str,
        /// From namespace and value to keys.
        map: fn(&Ctx, &str, &str) -> Vec<ObjectKey>,
    },
}

/// What a controller may do, in RBAC's words.
pub struct Rule {
    /// API group.
    pub group: &'static str,
    /// Resources, with subresources as `pods/status`.
    pub resources: &'static [&'static str],
    /// Verbs.
    pub verbs: &'static [&'static str],
}

/// What is to happen with a key after its reconcile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing until something changes.
    Done,
    /// Once more after this time.
    After(Duration),
}

/// A kind with what clients call it.
#[derive(Clone, Debug)]
pub struct Named {
    /// Its resource.
    pub gvr: Gvr,
    /// Its kind.
    pub kind: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

/// What the controllers must be told.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// PEM of the cluster's authority, published in every namespace.
    pub root_ca: String,
    /// Pod ranges, one per family.
    pub cluster_cidrs: Vec<String>,
    /// The ranges of Services' addresses, the cluster's first family first.
    pub service_cidrs: Vec<String>,
    /// Where the API servers are reached from pods.
    pub api_addresses: Vec<IpAddr>,
    /// The API servers' port.
    pub api_port: u16,
    /// The addresses of the Service `kubernetes`: the first of each service range.
    pub service_ips: Vec<IpAddr>,
    /// All kinds whose objects can be owned or lie in namespaces: what namespace deletion and garbage collection cover.
    pub kinds: Vec<Named>,
}

/// What a reconcile works with.
pub struct Ctx {
    /// Under the controller's own identity.
    pub client: Client,
    /// Under the controller's component name.
    pub events: EventRecorder,
    /// What the controllers were told.
    pub settings: Arc<Settings>,
    /// When the controller started: what was not seen to happen before is not held against anyone.
    pub started: Timestamp,
    caches: BTreeMap<Gvr, SharedCache>,
    fence: Fence,
    queue: WorkQueue<ObjectKey>,
}

/// The running controllers; dropping it ends them.
#[must_use = "dropping the manager ends the controllers"]
pub struct Manager {
    caches: BTreeMap<Gvr, SharedCache>,
    // Never read: they live as long as this.
    _tasks: Vec<Task<()>>,
}

// === impl Ctx ===

impl Ctx {
    /// A cache that the controller declared to read.
    ///
    /// # Panics
    /// When it did not.
    pub fn cache(&self, gvr: &Gvr) -> &SharedCache {
        self.caches.get(gvr).expect("a controller reads what it declares")
    }

    /// Notes a write for the fence.
    pub fn wrote(&self, key: &ObjectKey, gvr: &Gvr, written: &Stored) {
        self.fence.wrote(key, gvr, written);
    }

    /// Notes a deletion for the fence.
    pub fn deleted(&self, key: &ObjectKey, gvr: &Gvr, object: &Stored, outcome: &Deleted) {
        self.fence.deleted(key, gvr, object, outcome);
    }

    /// Wakes a key of the same controller.
    pub fn wake(&self, key: ObjectKey) {
        self.queue.add(key);
    }

    /// Wakes a key of the same controller after `wait`, or when it was to wake anyway, if that is earlier.
    pub fn wake_after(&self, key: ObjectKey, wait: Duration) {
        self.queue.add_after(key, wait);
    }
}

// === impl Manager ===

impl Manager {
    /// Starts all `controllers` over `transport`.
    pub fn start(
        transport: Arc<dyn Transport>,
        settings: Settings,
        controllers: &'static [Controller],
    ) -> Manager {
        let informers = Client::component(transport.clone(), User::new(INFORMERS, &[]));
        let every =
            if controllers.iter().any(|c| c.every_kind.is_some()) { &settings.kinds[..] } else { &[] };
        let caches: BTreeMap<Gvr, SharedCache> =
            indexes(controllers, every).into_iter().map(|(gvr, ix)| (gvr, SharedCache::new(ix))).collect();
        let settings = Arc::new(settings);
        let mut tasks = Vec::new();
        for controller in controllers {
            start(controller, &transport, &settings, &caches, &mut tasks);
        }
        // After the handlers are in place, so that the first lists reach them.
        for (gvr, cache) in &caches {
            let resource = informers.resource(gvr.clone());
            tasks.push(base::task::spawn(reflector::run(resource, Selection::default(), cache.clone())));
        }
        Manager { caches, _tasks: tasks }
    }

    /// A shared cache, for those who watch the controllers.
    pub fn cache(&self, gvr: &Gvr) -> Option<&SharedCache> {
        self.caches.get(gvr)
    }
}

/// The identity of a controller.
pub fn user(name: &str) -> User {
    let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
    User::new(&format!("system:serviceaccount:kube-system:{name}"), &groups)
}

fn indexes(controllers: &[Controller], every: &[Named]) -> BTreeMap<Gvr, Vec<(&'static str, IndexFn)>> {
    let mut all: BTreeMap<Gvr, Vec<(&'static str, IndexFn)>> = BTreeMap::new();
    for kind in every {
        all.insert(kind.gvr.clone(), crate::garbage_collector::INDEXES.to_vec());
    }
    for read in controllers.iter().flat_map(|c| c.reads) {
        let here = all.entry(read.gvr.clone()).or_default();
        for index in read.indexes {
            if !here.iter().any(|(name, _)| name == &index.0) {
                here.push(*index);
            }
        }
    }
    all
}

fn start(
    controller: &'static Controller,
    transport: &Arc<dyn Transport>,
    settings: &Arc<Settings>,
    caches: &BTreeMap<Gvr, SharedCache>,
    tasks: &mut Vec<Task<()>>,
) {
    let client = Client::component(transport.clone(), user(controller.name));
    let mut mine: BTreeMap<Gvr, SharedCache> =
        controller.reads.iter().map(|r| (r.gvr.clone(), caches[&r.gvr].clone())).collect();
    if controller.every_kind.is_some() {
        mine.extend(settings.kinds.iter().map(|kind| (kind.gvr.clone(), caches[&kind.gvr].clone())));
    }
    let ctx = Arc::new(Ctx {
        events: EventRecorder::start(&client, controller.component, ""),
        client,
        settings: settings.clone(),
        started: base::time::now(),
        fence: Fence::new(mine.clone().into_iter().collect()),
        caches: mine,
        queue: WorkQueue::new(),
    });
    let mapped = WorkQueue::<(usize, String, String)>::new();
    for (at, read) in controller.reads.iter().enumerate() {
        subscribe(at, read, &ctx, &mapped);
    }
    if let Some(subscribe) = controller.every_kind {
        for kind in &settings.kinds {
            subscribe(&ctx.caches[&kind.gvr], kind, ctx.queue.clone());
        }
    }
    tasks.push(base::task::spawn(map(controller, ctx.clone(), mapped)));
    tasks.extend((0..controller.workers).map(|_| base::task::spawn(work(controller, ctx.clone()))));
}

fn subscribe(at: usize, read: &'static Read, ctx: &Arc<Ctx>, mapped: &WorkQueue<(usize, String, String)>) {
    let (queue, mapped) = (ctx.queue.clone(), mapped.clone());
    match read.wakes {
        Wakes::Nothing => {}
        Wakes::Itself => ctx.caches[&read.gvr].subscribe(move |change| queue.add(change.key.clone())),
        Wakes::Through { index, .. } => ctx.caches[&read.gvr].subscribe(move |change| {
            for value in change.values(index) {
                mapped.add((at, change.key.namespace.clone(), value.to_owned()));
            }
        }),
    }
}

async fn synced(ctx: &Ctx) {
    for cache in ctx.caches.values() {
        cache.wait_synced().await;
    }
}

async fn map(controller: &'static Controller, ctx: Arc<Ctx>, mapped: WorkQueue<(usize, String, String)>) {
    synced(&ctx).await;
    (controller.begin)(&ctx).into_iter().for_each(|key| ctx.queue.add(key));
    while let Some(item) = mapped.get().await {
        if let Wakes::Through { map, .. } = controller.reads[item.0].wakes {
            map(&ctx, &item.1, &item.2).into_iter().for_each(|key| ctx.queue.add(key));
        }
        mapped.done(&item);
    }
}

async fn work(controller: &'static Controller, ctx: Arc<Ctx>) {
    synced(&ctx).await;
    while let Some(key) = ctx.queue.get().await {
        ctx.fence.wait(&key).await;
        match (controller.reconcile)(ctx.clone(), key.clone()).await {
            Ok(action) => {
                ctx.queue.forget(&key);
                if let Action::After(wait) = action {
                    ctx.queue.add_after(key.clone(), wait);
                }
            }
            Err(err) => {
                // Conflicts are the way of the world, not news.
                if err.is_conflict() {
                    tracing::debug!(controller = controller.name, %key, error = %err, "trying again");
                } else {
                    tracing::info!(controller = controller.name, %key, error = %err, "reconcile failed; trying again");
                }
                ctx.queue.add_rate_limited(key.clone());
            }
        }
        ctx.queue.done(&key);
    }
}

/// For controllers that need no first keys.
pub(crate) fn nothing(_: &Ctx) -> Vec<ObjectKey> {
    Vec::new()
}

// === RBAC ===

/// The ClusterRoles and ClusterRoleBindings of the controllers and of their shared caches.
pub fn roles(controllers: &[Controller], kinds: &[Named]) -> Vec<Doc> {
    let mut out = Vec::new();
    let every = if controllers.iter().any(|c| c.every_kind.is_some()) { kinds } else { &[] };
    let mut reads = doc!([]);
    for gvr in indexes(controllers, every).keys() {
        reads.edit().push(rule(&gvr.group, &[&gvr.resource], &["get", "list", "watch"]));
    }
    push_role(
        &mut out,
        INFORMERS,
        reads,
        doc!({ "kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": INFORMERS }),
    );
    for controller in controllers {
        let mut rules = doc!([]);
        for r in controller.writes {
            rules.edit().push(rule(r.group, r.resources, r.verbs));
        }
        if controller.every_kind.is_some() {
            for kind in kinds {
                let verbs = ["get", "list", "watch", "patch", "update", "delete"];
                rules.edit().push(rule(&kind.gvr.group, &[&kind.gvr.resource], &verbs));
            }
        }
        if !controller.component.is_empty() {
            for group in ["", "events.k8s.io"] {
                rules.edit().push(rule(group, &["events"], &["create", "patch", "update"]));
            }
        }
        let subject = doc!({ "kind": "ServiceAccount", "name": controller.name, "namespace": "kube-system" });
        push_role(&mut out, &format!("system:controller:{}", controller.name), rules, subject);
    }
    out
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Doc {
    doc!({ "verbs": verbs, "apiGroups": [group], "resources": resources })
}

fn push_role(out: &mut Vec<Doc>, name: &str, rules: Doc, subject: Doc) {
    let mut role = doc!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": { "name": name, "labels": { "kubernetes.io/bootstrapping": "rbac-defaults" } },
    });
    role.edit().set("rules", rules);
    let mut binding = doc!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": { "name": name, "labels": { "kubernetes.io/bootstrapping": "rbac-defaults" } },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
    });
    binding.edit().list("subjects").push(subject);
    out.extend([role, binding]);
}
