//! Events: what components tell people about objects. Recording never waits: events go through a bounded queue to one
//! task, which counts repetitions up by patches and folds floods together.
//! Upstream: client-go tools/record (EventBroadcaster, EventCorrelator).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Doc, Ref, doc, gotime, k};
use base::time::{Instant, Timestamp};
use tokio::sync::mpsc;

use crate::api::{Client, PatchType};
use crate::gvr::EVENTS;

/// Events that may wait to be written; further ones are dropped. Upstream: 1000.
const QUEUE_MAX: usize = 1000;
/// Remembered events and groups. Upstream: 4096.
const REMEMBERED_MAX: usize = 4096;
/// Different messages of one reason about one object within [`SIMILAR_WINDOW`] before they are folded together.
const SIMILAR_MAX: usize = 10;
const SIMILAR_WINDOW: Duration = Duration::from_secs(600);
/// Events about one object at once, and how long it takes for one more to be allowed. Upstream: the spam filter.
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);

/// How serious an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// As it should be.
    Normal,
    /// Something is wrong.
    Warning,
}

/// What an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub struct ObjectRef {
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    /// Such as `spec.containers{web}`; may be empty.
    pub field_path: String,
}

/// Records events under a component's name. Clones share the queue; when the last is dropped, the writer ends.
#[derive(Clone)]
pub struct EventRecorder {
    component: Arc<str>,
    host: Arc<str>,
    queue: mpsc::Sender<Event>,
}

#[derive(Clone, Debug)]
struct Event {
    component: Arc<str>,
    host: Arc<str>,
    about: ObjectRef,
    kind: EventType,
    reason: String,
    message: String,
    at: Timestamp,
}

/// What to do about an event.
#[derive(Debug)]
enum Verdict {
    Create { group: String, message: String },
    Count { name: String, count: i64, message: String, group: String },
    Drop,
}

/// Recognises repetitions.
#[derive(Default)]
struct Correlator {
    // By source, object, type and reason: the messages of late.
    groups: BTreeMap<String, Group>,
    // By group and message: the object in the API that counts it.
    written: BTreeMap<String, Written>,
    order: VecDeque<String>,
    budgets: BTreeMap<String, (f64, Instant)>,
}

struct Group {
    messages: std::collections::BTreeSet<String>,
    last: Instant,
}

struct Written {
    name: String,
    count: i64,
}

// === impl ObjectRef ===

impl ObjectRef {
    /// A reference to an object. Items of lists carry no `apiVersion` and `kind`, so these are given.
    pub fn of(object: Ref<'_>, api_version: &str, kind: &str) -> ObjectRef {
        let meta = object.get(k::METADATA);
        ObjectRef {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: meta.get(k::NAMESPACE).str().to_owned(),
            name: meta.get(k::NAME).str().to_owned(),
            uid: meta.get(k::UID).str().to_owned(),
            resource_version: meta.get(k::RESOURCE_VERSION).str().to_owned(),
            field_path: String::new(),
        }
    }

    /// The same, about a part of it.
    #[must_use]
    pub fn field(mut self, path: &str) -> ObjectRef {
        path.clone_into(&mut self.field_path);
        self
    }

    fn to_doc(&self) -> Doc {
        let mut out = Doc::object();
        let mut edit = out.edit();
        for (key, value) in [
            (k::KIND, &self.kind),
            (k::NAMESPACE, &self.namespace),
            (k::NAME, &self.name),
            (k::UID, &self.uid),
            (k::API_VERSION, &self.api_version),
            (k::RESOURCE_VERSION, &self.resource_version),
            (k::FIELD_PATH, &self.field_path),
        ] {
            edit.set_opt(key, (!value.is_empty()).then_some(value));
        }
        out
    }
}

// === impl EventRecorder ===

impl EventRecorder {
    /// Starts a writer; `component` is the event's source, `host` the node it runs on (may be empty).
    pub fn start(client: &Client, component: &str, host: &str) -> EventRecorder {
        let (queue, events) = mpsc::channel(QUEUE_MAX);
        base::task::spawn(write_all(client.clone(), events)).detach();
        EventRecorder { component: component.into(), host: host.into(), queue }
    }

    /// Records an event. When the queue is full the event is lost, as upstream's are.
    pub fn event(&self, about: ObjectRef, kind: EventType, reason: &str, message: impl Into<String>) {
        let event = Event {
            component: self.component.clone(),
            host: self.host.clone(),
            about,
            kind,
            reason: reason.to_owned(),
            message: message.into(),
            at: base::time::now(),
        };
        if self.queue.try_send(event).is_err() {
            tracing::debug!(component = %self.component, reason, "event lost: the queue is full");
        }
    }

    /// Records that all is well.
    pub fn normal(&self, about: ObjectRef, reason: &str, message: impl Into<String>) {
        self.event(about, EventType::Normal, reason, message);
    }

    /// Records that something is wrong.
    pub fn warning(&self, about: ObjectRef, reason: &str, message: impl Into<String>) {
        self.event(about, EventType::Warning, reason, message);
    }
}

async fn write_all(client: Client, mut events: mpsc::Receiver<Event>) {
    let mut correlator = Correlator::default();
    let mut last_nanos = 0;
    while let Some(event) = events.recv().await {
        // Two events of one moment need two names.
        last_nanos = event.at.as_nanosecond().max(last_nanos + 1);
        if let Err(err) = write(&client, &mut correlator, &event, last_nanos).await {
            tracing::debug!(reason = %event.reason, object = %event.about.name, error = %err, "event not written");
        }
    }
}

async fn write(
    client: &Client,
    seen: &mut Correlator,
    event: &Event,
    nanos: i128,
) -> Result<(), crate::Error> {
    let namespace = if event.about.namespace.is_empty() { "default" } else { &event.about.namespace };
    let events = client.namespaced(EVENTS, namespace);
    let (group, message) = match seen.judge(event, base::time::instant()) {
        Verdict::Drop => return Ok(()),
        Verdict::Create { group, message } => (group, message),
        Verdict::Count { name, count, message, group } => {
            let patch =
                doc!({ "count": count, "lastTimestamp": gotime::format(event.at), "message": message });
            match events.patch(&name, PatchType::Merge, patch, "").await {
                // It expired: it is written anew.
                Err(err) if err.is_not_found() => (group, message),
                other => return other.map(drop),
            }
        }
    };
    let name = format!("{}.{nanos:x}", event.about.name);
    events.create(event.to_doc(&name, namespace, &message)).await?;
    seen.written(group, name);
    Ok(())
}

impl Event {
    fn to_doc(&self, name: &str, namespace: &str, message: &str) -> Doc {
        let at = gotime::format(self.at);
        let kind = if self.kind == EventType::Normal { "Normal" } else { "Warning" };
        let mut out = doc!({
            "apiVersion": "v1", "kind": "Event", "metadata": { "name": name, "namespace": namespace },
            "reason": self.reason, "message": message, "source": { "component": &*self.component },
            "firstTimestamp": at, "lastTimestamp": at, "count": 1, "type": kind,
            "reportingComponent": &*self.component, "reportingInstance": &*self.host,
        });
        if !self.host.is_empty() {
            out.edit().at(k::SOURCE).set(k::HOST, &*self.host);
        }
        out.edit().set(k::INVOLVED_OBJECT, self.about.to_doc());
        out
    }
}

// === impl Correlator ===

impl Correlator {
    fn judge(&mut self, event: &Event, now: Instant) -> Verdict {
        let about = &event.about;
        let object =
            format!("{}/{}/{}/{}/{}", event.component, about.kind, about.namespace, about.name, about.uid);
        if !self.allowed(&object, now) {
            return Verdict::Drop;
        }
        let group = format!("{object}/{}/{:?}/{}", about.field_path, event.kind, event.reason);
        let (key, message) = self.fold(&group, &event.message, now);
        match self.written.get_mut(&key) {
            Some(written) => {
                written.count += 1;
                Verdict::Count { name: written.name.clone(), count: written.count, message, group: key }
            }
            None => Verdict::Create { group: key, message },
        }
    }

    /// Many messages of one reason become one event.
    fn fold(&mut self, group: &str, message: &str, now: Instant) -> (String, String) {
        if self.groups.len() >= REMEMBERED_MAX && !self.groups.contains_key(group) {
            self.groups.pop_first();
        }
        let fresh = || Group { messages: Default::default(), last: now };
        let entry = self.groups.entry(group.to_owned()).or_insert_with(fresh);
        if now.duration_since(entry.last) > SIMILAR_WINDOW {
            *entry = fresh();
        }
        entry.last = now;
        entry.messages.insert(message.to_owned());
        if entry.messages.len() < SIMILAR_MAX {
            return (format!("{group}/{message}"), message.to_owned());
        }
        entry.messages.pop_first();
        (group.to_owned(), format!("(combined from similar events): {message}"))
    }

    fn allowed(&mut self, object: &str, now: Instant) -> bool {
        if self.budgets.len() >= REMEMBERED_MAX && !self.budgets.contains_key(object) {
            self.budgets.pop_first();
        }
        let (tokens, last) = self.budgets.entry(object.to_owned()).or_insert((BURST, now));
        let gained = now.duration_since(*last).as_secs_f64() / REFILL.as_secs_f64();
        *tokens = (*tokens + gained).min(BURST);
        *last = now;
        let allowed = *tokens >= 1.0;
        if allowed {
            *tokens -= 1.0;
        }
        allowed
    }

    fn written(&mut self, group: String, name: String) {
        if self.written.insert(group.clone(), Written { name, count: 1 }).is_none() {
            self.order.push_back(group);
        }
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.written.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(message: &str) -> Event {
        Event {
            component: "test".into(),
            host: "".into(),
            about: ObjectRef { name: "web".into(), ..ObjectRef::default() },
            kind: EventType::Warning,
            reason: "Failed".into(),
            message: message.into(),
            at: base::time::now(),
        }
    }

    #[test]
    fn repetitions_are_counted_floods_folded_and_spam_dropped() {
        base::sim::run(1, async {
            let mut c = Correlator::default();
            let mut told = Vec::new();
            for i in 0..26 {
                let message = if i < 3 { "same".to_owned() } else { format!("m{i}") };
                match c.judge(&event(&message), base::time::instant()) {
                    Verdict::Create { group, message } => {
                        told.push(format!("create {message}"));
                        c.written(group, format!("e{i}"));
                    }
                    Verdict::Count { name, count, message, .. } => {
                        told.push(format!("{name} x{count} {message}"))
                    }
                    Verdict::Drop => told.push("drop".to_owned()),
                }
            }
            assert_eq!(told[..4], ["create same", "e0 x2 same", "e0 x3 same", "create m3"]);
            assert_eq!(told[11], "create (combined from similar events): m11");
            assert_eq!(told[12], "e11 x2 (combined from similar events): m12");
            assert_eq!(told[25], "drop");
        });
    }
}
