//! An API server of a few lines: lists, watches, and what was created, from objects that a test puts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use apimachinery::Doc;
use apimachinery::call::{
    Body, BoxFuture, Call, List, Reply, Stored, Target, Transport, TransportError, User, Verb, Watch,
    WatchEvent,
};
use futures_util::StreamExt;
use tokio::sync::{Mutex as AsyncMutex, broadcast, mpsc};

#[derive(Clone)]
pub struct Api(Arc<Shared>);

/// The last revision, and the objects by resource and name.
type State = (u64, BTreeMap<(String, String), Arc<Stored>>);

struct Shared {
    state: Mutex<State>,
    events: broadcast::Sender<(String, WatchEvent)>,
    created: mpsc::UnboundedSender<Doc>,
    creations: AsyncMutex<mpsc::UnboundedReceiver<Doc>>,
}

impl Default for Api {
    fn default() -> Api {
        let (created, creations) = mpsc::unbounded_channel();
        let (events, _) = broadcast::channel(100);
        Api(Arc::new(Shared {
            state: Mutex::default(),
            events,
            created,
            creations: AsyncMutex::new(creations),
        }))
    }
}

impl Api {
    pub fn client(&self) -> client::Client {
        client::Client::component(Arc::new(self.clone()), User::default())
    }

    pub fn put(&self, resource: &str, object: &Doc) {
        let (stored, mut state) = self.store(object);
        state.1.insert((resource.to_owned(), stored.name().to_owned()), stored.clone());
        // Nobody may be watching yet.
        drop(self.0.events.send((resource.to_owned(), WatchEvent::Added(stored))));
    }

    pub fn remove(&self, resource: &str, object: &Doc) {
        let (stored, mut state) = self.store(object);
        state.1.remove(&(resource.to_owned(), stored.name().to_owned()));
        drop(self.0.events.send((resource.to_owned(), WatchEvent::Deleted(stored))));
    }

    pub async fn created(&self) -> Doc {
        self.0.creations.lock().await.recv().await.unwrap()
    }

    fn store(&self, object: &Doc) -> (Arc<Stored>, std::sync::MutexGuard<'_, State>) {
        let mut state = self.0.state.lock().unwrap();
        state.0 += 1;
        let text = |path| object.root().find(path).str().to_owned();
        let json = object.root().to_json().into();
        let stored = Stored::new(json, state.0, &text("metadata.namespace"), &text("metadata.name"));
        (Arc::new(stored), state)
    }

    fn answer(&self, call: Call) -> Reply {
        let resource = match &call.target {
            Target::Resource(target) => target.gvr.resource.to_string(),
            _ => panic!("only resources are asked for"),
        };
        let state = self.0.state.lock().unwrap();
        match call.verb {
            Verb::List => Reply::List(List {
                api_version: "v1".into(),
                kind: "List".into(),
                revision: state.0,
                continue_: String::new(),
                remaining: None,
                items: state.1.iter().filter(|((r, _), _)| *r == resource).map(|(_, s)| s.clone()).collect(),
                warnings: Vec::new(),
            }),
            Verb::Watch => {
                let from: u64 = call.options.resource_version.unwrap().parse().unwrap();
                let missed: Vec<WatchEvent> = state
                    .1
                    .iter()
                    .filter(|((r, _), s)| *r == resource && s.revision > from)
                    .map(|(_, s)| WatchEvent::Added(s.clone()))
                    .collect();
                let stream = futures_util::stream::unfold(self.0.events.subscribe(), |mut events| async {
                    let event = events.recv().await.ok()?;
                    Some((event, events))
                });
                let live = stream.filter_map(move |(r, event)| {
                    let ours = r == resource;
                    async move { ours.then_some(event) }
                });
                let events =
                    Box::pin(futures_util::stream::iter(missed).chain(live).map(|event| vec![event]));
                Reply::Watch(Watch { api_version: "v1".into(), kind: String::new(), events })
            }
            Verb::Create => {
                let Body::Doc { doc, .. } = call.body else { panic!("creations carry documents") };
                self.0.created.send((*doc).clone()).unwrap();
                Reply::Doc { code: 201, doc, warnings: Vec::new() }
            }
            verb => panic!("unexpected {verb:?}"),
        }
    }
}

impl Transport for Api {
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Reply, TransportError>> {
        Box::pin(async move { Ok(self.answer(call)) })
    }
}
