//! The demo's view of the cluster: caches kept fresh by watches, and waiting on them with limits.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use apimachinery::{Doc, Ref, k};
use base::task::Task;
use client::reflector::{self, Selection};
use client::{Client, SharedCache, gvr};

use super::NAMESPACE;

/// The longest wait for the first lists.
const SYNC_MAX: Duration = Duration::from_secs(10);
/// Pods of the demo's Deployment carry this.
const APP: &str = "helloworld";

/// What there is in the demo's namespace.
pub struct Seen {
    /// Its pods.
    pub pods: SharedCache,
    /// Its Deployments.
    pub deployments: SharedCache,
    /// Its events.
    pub events: SharedCache,
    /// Its quotas.
    pub quotas: SharedCache,
    /// Its EndpointSlices.
    pub slices: SharedCache,
    /// Its service accounts.
    pub accounts: SharedCache,
    /// The namespace itself, by name.
    pub namespaces: SharedCache,
    _tasks: Vec<Task<()>>,
}

impl Seen {
    /// Starts watching, and waits for the first lists.
    ///
    /// # Errors
    /// When they do not come.
    pub async fn start(client: &Client) -> anyhow::Result<Seen> {
        let mut tasks = Vec::new();
        let mut inside = |gvr| {
            let resource = client.namespaced(gvr, NAMESPACE);
            let (cache, task) = reflector::start(resource, Selection::default(), Vec::new());
            tasks.push(task);
            cache
        };
        let [pods, deployments, events, quotas, slices, accounts] = [
            gvr::PODS,
            gvr::DEPLOYMENTS,
            gvr::EVENTS,
            gvr::RESOURCE_QUOTAS,
            gvr::ENDPOINT_SLICES,
            gvr::SERVICE_ACCOUNTS,
        ]
        .map(&mut inside);
        let only = Selection { fields: format!("metadata.name={NAMESPACE}"), ..Selection::default() };
        let (namespaces, task) = reflector::start(client.resource(gvr::NAMESPACES), only, Vec::new());
        tasks.push(task);
        let seen = Seen { pods, deployments, events, quotas, slices, accounts, namespaces, _tasks: tasks };
        let caches = [
            &seen.pods,
            &seen.deployments,
            &seen.events,
            &seen.quotas,
            &seen.slices,
            &seen.accounts,
            &seen.namespaces,
        ];
        base::time::timeout(SYNC_MAX, async {
            for cache in caches {
                cache.wait_synced().await;
            }
        })
        .await
        .map_err(|_| anyhow::anyhow!("the API server does not list what the demo looks at"))?;
        Ok(seen)
    }

    /// The Deployment's pods that are there and not on their way out.
    pub fn app_pods(&self) -> Vec<Doc> {
        let mut pods = docs(&self.pods);
        pods.retain(|p| p.root().find("metadata.labels.app").str() == APP && !leaving(p));
        pods
    }

    /// The addresses of the Service's endpoints that take requests.
    pub fn ready_endpoints(&self) -> usize {
        let slices = docs(&self.slices);
        let ready = |e: &Ref<'_>| e.get(k::CONDITIONS).get(k::READY).opt_bool().unwrap_or(true);
        slices.iter().map(|s| s.get(k::ENDPOINTS).items().filter(ready).count()).sum()
    }

    /// The events of one reason, as message and how often.
    pub fn events_of(&self, reason: &str) -> Vec<(String, i64)> {
        let events = docs(&self.events);
        let of_reason = events.iter().filter(|e| e.get(k::REASON).str() == reason);
        of_reason.map(|e| (e.get(k::MESSAGE).str().to_owned(), times(e))).collect()
    }

    /// Events in order, those of one kind and reason together in one line.
    pub fn story(&self) -> Vec<String> {
        let mut events = docs(&self.events);
        events.sort_by_key(|e| {
            (first_seen(e), e.root().find("metadata.resourceVersion").str().parse().unwrap_or(0u64))
        });
        let mut order: Vec<(String, String)> = Vec::new();
        let mut groups: BTreeMap<(String, String), (i64, String)> = BTreeMap::new();
        for event in &events {
            let kind = event.get(k::INVOLVED_OBJECT).get(k::KIND).str().to_owned();
            let key = (kind, event.get(k::REASON).str().to_owned());
            let group = groups.entry(key.clone()).or_insert_with(|| {
                order.push(key);
                (0, event.get(k::MESSAGE).str().to_owned())
            });
            group.0 += times(event);
        }
        let line = |key: &(String, String)| {
            let (count, message) = &groups[key];
            format!("{:<11} {:<20} ×{count:<3} {message}", key.0, key.1)
        };
        order.iter().map(line).collect()
    }

    /// What there is now, for those who must find out why something did not happen.
    pub fn state(&self) -> Vec<String> {
        let mut out: Vec<String> = docs(&self.deployments).iter().map(deployment_line).collect();
        out.extend(docs(&self.pods).iter().map(pod_line));
        out.extend(docs(&self.quotas).iter().map(quota_line));
        out.push(format!("{} endpoints are ready", self.ready_endpoints()));
        if let Some(namespace) = self.namespaces.get("", NAMESPACE) {
            let namespace = namespace.doc();
            let conditions = namespace.get(k::STATUS).get(k::CONDITIONS);
            let held = conditions.items().filter(|c| c.get(k::STATUS).str() == "True");
            out.extend(held.map(|c| format!("namespace {NAMESPACE}: {}", c.get(k::MESSAGE).str())));
        }
        out
    }
}

/// Waits until `test` finds in `cache` what it looks for.
///
/// # Errors
/// When `limit` passes first; `what` says for what.
pub async fn until<T>(
    cache: &SharedCache,
    what: &str,
    limit: Duration,
    mut test: impl FnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let mut found = None;
    let waiting = cache.wait_until(|_| {
        found = test();
        found.is_some()
    });
    let waited = base::time::timeout(limit, waiting).await;
    waited.ok().and(found).with_context(|| format!("waited {} s in vain for {what}", limit.as_secs()))
}

/// All objects of a cache.
pub fn docs(cache: &SharedCache) -> Vec<Doc> {
    cache.list().iter().map(|stored| stored.doc()).collect()
}

/// Its name.
pub fn name(object: &Doc) -> &str {
    object.get(k::METADATA).get(k::NAME).str()
}

/// Whether the object is being deleted.
pub fn leaving(object: &Doc) -> bool {
    object.get(k::METADATA).get(k::DELETION_TIMESTAMP).is_set()
}

/// The condition of that type, absent if there is none.
pub fn condition<'a>(object: &'a Doc, kind: &str) -> Ref<'a> {
    let conditions = object.get(k::STATUS).get(k::CONDITIONS);
    conditions.items().find(|c| c.get(k::TYPE).str() == kind).unwrap_or_default()
}

/// Whether the condition of that type holds.
pub fn holds(object: &Doc, kind: &str) -> bool {
    condition(object, kind).get(k::STATUS).str() == "True"
}

/// One line on a pod.
pub fn pod_line(pod: &Doc) -> String {
    let status = pod.get(k::STATUS);
    let mut out = format!("{}  {}", name(pod), status.get(k::PHASE).str());
    if holds(pod, "Ready") {
        out += ", ready";
    }
    if leaving(pod) {
        out += ", terminating";
    }
    let ip = status.get(k::POD_IP).str();
    if !ip.is_empty() {
        out += &format!(", {ip}");
    }
    for container in status.get(k::CONTAINER_STATUSES).items() {
        let state = container.get("state");
        for (what, detail) in state.entries().filter(|(what, _)| *what != "running") {
            out += &format!("; {what}: {} {}", detail.get(k::REASON).str(), detail.get(k::MESSAGE).str());
        }
    }
    let scheduled = condition(pod, "PodScheduled");
    if scheduled.get(k::STATUS).str() == "False" {
        out += &format!("; {}", scheduled.get(k::MESSAGE).str());
    }
    out
}

/// One line on a Deployment.
pub fn deployment_line(deployment: &Doc) -> String {
    let status = deployment.get(k::STATUS);
    format!(
        "{}  {} wanted, {} there, {} updated, {} available",
        name(deployment),
        deployment.get(k::SPEC).get(k::REPLICAS).i64(),
        status.get(k::REPLICAS).i64(),
        status.get(k::UPDATED_REPLICAS).i64(),
        status.get(k::AVAILABLE_REPLICAS).i64(),
    )
}

/// One line on a quota: what is used of what.
pub fn quota_line(quota: &Doc) -> String {
    let status = quota.get(k::STATUS);
    let part = |(what, hard): (&str, Ref<'_>)| {
        format!("{what} {} of {}", status.get("used").get(what).str(), hard.str())
    };
    let parts: Vec<String> = status.get("hard").entries().map(part).collect();
    format!("{}  {}", name(quota), parts.join(", "))
}

fn times(event: &Doc) -> i64 {
    event.get(k::COUNT).i64().max(event.get("series").get(k::COUNT).i64()).max(1)
}

fn first_seen(event: &Doc) -> String {
    let first = event.get("firstTimestamp").str();
    if first.is_empty() { event.get("eventTime").str() } else { first }.to_owned()
}
