//! An API of a few resources in memory: enough of list, watch, create, update, patch and delete for a kubelet.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use apimachinery::call::{
    Body, BoxFuture, Call, List, Reply, Stored, Target, Transport, TransportError, Verb, Watch, WatchEvent,
};
use apimachinery::{Doc, GroupResource, Status, doc, k};
use tokio::sync::{mpsc, watch};

type Key = (String, String, String);

#[derive(Default)]
pub struct Api {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<Key, Arc<Stored>>,
    watchers: Vec<(String, String, String, mpsc::UnboundedSender<WatchEvent>)>,
    writes: Vec<String>,
}

fn selected(stored: &Stored, namespace: &str, fields: &str) -> bool {
    let doc = stored.doc();
    (namespace.is_empty() || stored.namespace == namespace)
        && fields.split(',').filter(|f| !f.is_empty()).all(|f| {
            let (path, value) = f.split_once('=').expect("equality only");
            doc.root().find(path).str() == value
        })
}

impl State {
    fn put(&mut self, key: Key, mut doc: Doc) -> Arc<Stored> {
        self.revision += 1;
        let uid = format!("uid-{}", self.revision);
        let mut meta = doc.edit().at(k::METADATA);
        meta.set(k::RESOURCE_VERSION, self.revision.to_string()).set_default(k::UID, uid);
        let stored = Arc::new(Stored {
            json: doc.to_json().into(),
            revision: self.revision,
            namespace: key.1.clone(),
            name: key.2.clone(),
        });
        let old = self.objects.insert(key.clone(), stored.clone());
        self.tell(
            &key.0,
            |_| {
                if old.is_some() {
                    WatchEvent::Modified(stored.clone())
                } else {
                    WatchEvent::Added(stored.clone())
                }
            },
            &stored,
        );
        stored
    }

    fn remove(&mut self, key: &Key) -> bool {
        let Some(old) = self.objects.remove(key) else { return false };
        self.revision += 1;
        let gone = Arc::new(Stored {
            json: old.json.clone(),
            revision: self.revision,
            namespace: key.1.clone(),
            name: key.2.clone(),
        });
        self.tell(&key.0, |_| WatchEvent::Deleted(gone.clone()), &old);
        true
    }

    fn tell(&mut self, resource: &str, event: impl Fn(()) -> WatchEvent, about: &Stored) {
        self.watchers.retain(|(r, namespace, fields, sender)| {
            r != resource || !selected(about, namespace, fields) || sender.send(event(())).is_ok()
        });
    }
}

impl Api {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let out = f(&mut self.state.lock().unwrap());
        self.changed.send_modify(|n| *n += 1);
        out
    }

    pub fn add(&self, resource: &str, namespace: &str, name: &str, doc: Doc) {
        self.with(|s| s.put((resource.into(), namespace.into(), name.into()), doc));
    }

    pub fn edit(&self, resource: &str, namespace: &str, name: &str, f: impl FnOnce(&mut Doc)) {
        self.with(|s| {
            let key = (resource.to_owned(), namespace.to_owned(), name.to_owned());
            let mut doc = s.objects[&key].doc();
            f(&mut doc);
            s.put(key, doc);
        });
    }

    pub fn remove(&self, resource: &str, namespace: &str, name: &str) {
        self.with(|s| s.remove(&(resource.into(), namespace.into(), name.into())));
    }

    pub fn writes(&self) -> Vec<String> {
        self.state.lock().unwrap().writes.clone()
    }

    /// Waits until the object (or its absence) passes.
    pub async fn until(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        test: impl Fn(Option<&Doc>) -> bool,
    ) -> Option<Doc> {
        let key = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        let mut changes = self.changed.subscribe();
        loop {
            let found = self.state.lock().unwrap().objects.get(&key).map(|s| s.doc());
            if test(found.as_ref()) {
                return found;
            }
            changes.changed().await.unwrap();
        }
    }

    /// Waits for an event with this reason.
    pub async fn event(&self, reason: &str) {
        let mut changes = self.changed.subscribe();
        loop {
            let seen = self
                .state
                .lock()
                .unwrap()
                .objects
                .iter()
                .any(|(key, s)| key.0 == "events" && s.doc().get(k::REASON).str() == reason);
            if seen {
                return;
            }
            changes.changed().await.unwrap();
        }
    }

    fn answer(&self, call: Call) -> Reply {
        let Target::Resource(target) = call.target else { return Reply::Status(Status::unknown_path()) };
        let resource = target.gvr.resource.to_string();
        let about = GroupResource::new("", "things");
        let missing = || Reply::Status(Status::not_found(&about, &target.name));
        let body = match call.body {
            Body::Doc { doc, content_type } => Some((*doc, content_type)),
            _ => None,
        };
        let fields = call.options.field_selector;
        let key = |name: &str| (resource.clone(), target.namespace.clone(), name.to_owned());
        self.with(|s| {
            if call.verb.is_mutating() {
                let part = if target.subresource.is_empty() {
                    String::new()
                } else {
                    format!("/{}", target.subresource)
                };
                let name = body.as_ref().map_or("", |(d, _)| d.get(k::METADATA).get(k::NAME).str());
                let name = if target.name.is_empty() { name } else { &target.name };
                s.writes.push(format!("{} {resource}{part} {}/{name}", call.verb.as_str(), target.namespace));
            }
            match call.verb {
                Verb::Get => match s.objects.get(&key(&target.name)) {
                    Some(found) => Reply::Object { code: 200, object: found.clone(), warnings: Vec::new() },
                    None => missing(),
                },
                Verb::List => {
                    let all = s.objects.iter().filter(|(key, _)| key.0 == resource).map(|(_, s)| s.clone());
                    let items = all.filter(|s| selected(s, &target.namespace, &fields)).collect();
                    Reply::List(List {
                        api_version: "v1".into(),
                        kind: "List".into(),
                        revision: s.revision,
                        continue_: String::new(),
                        remaining: None,
                        items,
                        warnings: Vec::new(),
                    })
                }
                Verb::Watch => {
                    let (sender, receiver) = mpsc::unbounded_channel();
                    s.watchers.push((resource.clone(), target.namespace.clone(), fields, sender));
                    let events = futures_util::stream::unfold(receiver, |mut r| async move {
                        r.recv().await.map(|e| (e, r))
                    });
                    Reply::Watch(Watch {
                        api_version: "v1".into(),
                        kind: "Thing".into(),
                        events: Box::pin(events),
                    })
                }
                Verb::Create if target.subresource == "token" => Reply::Doc {
                    code: 201,
                    doc: Box::new(doc!({ "status": { "token": "t" } })),
                    warnings: Vec::new(),
                },
                Verb::Create => {
                    let (doc, _) = body.expect("a body");
                    let name = doc.get(k::METADATA).get(k::NAME).str().to_owned();
                    if s.objects.contains_key(&key(&name)) {
                        return Reply::Status(Status::already_exists(&about, &name));
                    }
                    Reply::Object { code: 201, object: s.put(key(&name), doc), warnings: Vec::new() }
                }
                Verb::Update | Verb::Patch => {
                    let Some(old) = s.objects.get(&key(&target.name)).map(|s| s.doc()) else {
                        return missing();
                    };
                    let (doc, kind) = body.expect("a body");
                    let new = if call.verb == Verb::Update { doc } else { patched(old, &doc, kind) };
                    Reply::Object { code: 200, object: s.put(key(&target.name), new), warnings: Vec::new() }
                }
                Verb::Delete => {
                    if !s.remove(&key(&target.name)) {
                        return missing();
                    }
                    Reply::Doc {
                        code: 200,
                        doc: Box::new(doc!({ "kind": "Status", "status": "Success" })),
                        warnings: Vec::new(),
                    }
                }
                _ => missing(),
            }
        })
    }
}

/// Good for the kubelet's own patches: objects merge, conditions by type, other lists are replaced.
fn patched(mut old: Doc, patch: &Doc, _kind: &str) -> Doc {
    for (section, value) in patch.root().entries() {
        let mut at = old.edit().at(section);
        for (name, value) in value.entries() {
            if name == "conditions" {
                let mut list = at.reborrow().list(name);
                for c in value.items() {
                    list.retain(|o| o.get(k::TYPE).str() != c.get(k::TYPE).str());
                    list.push(c);
                }
            } else if value.is_set() {
                at.set(name, value);
            } else {
                at.remove(name);
            }
        }
    }
    old
}

impl Transport for Api {
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Reply, TransportError>> {
        Box::pin(async move { Ok(self.answer(call)) })
    }
}
