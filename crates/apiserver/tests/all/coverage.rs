//! Every route that discovery offers, by every verb that it offers: nobody unknown, nobody powerless, nothing that
//! audit does not hear of, and no write or connection that admission does not see.

use std::sync::{Arc, Mutex};

use apimachinery::call::{BoxFuture, Reply, Secret, User, Who};
use apimachinery::{Call, Doc, Status, doc, k};
use apiserver::admission::{Attributes, Operation, Plugin};
use apiserver::authentication::Authenticator;
use apiserver::filters::audit::{Event, Sink, Stage};
use apiserver::{Api, admission, handle, paths, tunnel};
use bytes::Bytes;

use crate::security::{guarded, tokens};
use harness::{Server, call};

/// Knows nobody.
struct Nobody;

impl Authenticator for Nobody {
    fn authenticate<'a>(&'a self, _: &'a Call) -> BoxFuture<'a, Result<Option<Arc<User>>, Status>> {
        Box::pin(async { Ok(None) })
    }
}

/// How requests ended: verb, resource, subresource, code, the authorizers' decision.
type Ends = Vec<(String, String, String, u16, String)>;

#[derive(Clone, Default)]
struct Recorder {
    seen: Arc<Mutex<Vec<(Operation, String)>>>,
    ends: Arc<Mutex<Ends>>,
}

impl Plugin for Recorder {
    fn name(&self) -> &'static str {
        "Recorder"
    }

    fn admit<'a>(&'a self, a: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        self.seen.lock().unwrap().push((a.operation, a.subresource().to_owned()));
        Box::pin(async { Ok(()) })
    }
}

impl Sink for Recorder {
    fn told(&self, event: &Event<'_>) {
        if event.stage != Stage::ResponseComplete {
            return;
        }
        let a = event.request;
        let decision = event.annotations.iter().find(|(n, _)| n == "authorization.k8s.io/decision");
        let decision = decision.map_or(String::new(), |(_, v)| v.clone());
        let end = (a.verb.to_owned(), a.resource.to_owned(), a.subresource.to_owned(), event.code, decision);
        self.ends.lock().unwrap().push(end);
    }
}

async fn server(recorder: &Recorder) -> Server {
    let Server { api, disk } = guarded().await;
    let (store, cacher) = (api.store.clone(), api.cacher.clone());
    let mut plugins = admission::plugins();
    plugins.push(Box::new(recorder.clone()));
    let rest = Arc::into_inner(api).expect("nobody else has it");
    let api = Api {
        store,
        cacher,
        authentication: vec![Box::new(Nobody)],
        admission: plugins,
        audit: vec![Box::new(recorder.clone())],
        paths: paths::handlers(tokens(), tunnel::Tunnels::default(), "https://x".into()),
        ..rest
    };
    Server { api: Arc::new(api), disk }
}

struct Route {
    /// Of the collection.
    base: String,
    resource: String,
    sub: String,
    verb: String,
    api: String,
}

async fn routes(server: &Server) -> Vec<Route> {
    let mut lists = vec!["/api/v1".to_owned()];
    for group in server.get("/apis").await.ok().get("groups").items() {
        lists
            .extend(group.get(k::VERSIONS).items().map(|v| format!("/apis/{}", v.get("groupVersion").str())));
    }
    let mut out = Vec::new();
    for list in lists {
        for entry in server.get(&list).await.ok().get(k::RESOURCES).items() {
            let name = entry.get(k::NAME).str();
            let (resource, sub) = name.split_once('/').unwrap_or((name, ""));
            let place = if entry.get("namespaced").bool() { "/namespaces/default" } else { "" };
            for verb in entry.get(k::VERBS).items() {
                out.push(Route {
                    base: format!("{list}{place}/{resource}"),
                    resource: resource.to_owned(),
                    sub: sub.to_owned(),
                    verb: verb.str().to_owned(),
                    api: list.clone(),
                });
            }
        }
    }
    out
}

impl Route {
    /// Method and path of a request for an object of that name.
    fn request(&self, name: &str) -> (&'static str, String) {
        let base = &self.base;
        let item = match self.sub.as_str() {
            "" => format!("{base}/{name}"),
            sub => format!("{base}/{name}/{sub}"),
        };
        match self.verb.as_str() {
            "create" if self.sub.is_empty() => ("POST", base.clone()),
            "create" => ("POST", item),
            "get" => ("GET", item),
            "list" => ("GET", base.clone()),
            "watch" => ("GET", format!("{base}?watch=true&timeoutSeconds=1")),
            "update" => ("PUT", item),
            "patch" => ("PATCH", item),
            "delete" => ("DELETE", item),
            "deletecollection" => ("DELETE", base.clone()),
            other => panic!("{base}: what is {other}?"),
        }
    }

    fn connects(&self) -> bool {
        matches!(self.sub.as_str(), "exec" | "attach" | "portforward" | "proxy")
    }

    fn mutates(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}

/// Something that the route takes: an object as it is, or the least of its kind.
async fn body(server: &Server, route: &Route, path: &str) -> Doc {
    match (route.verb.as_str(), route.sub.as_str()) {
        ("patch", _) => doc!({ "metadata": { "labels": { "a": "b" } } }),
        ("update", _) if route.sub == "scale" || route.sub == "status" => server.get(path).await.doc,
        ("update", _) => {
            let item = path.strip_suffix(&format!("/{}", route.sub)).unwrap_or(path);
            server.get(item).await.ok()
        }
        ("create", "") if route.resource == "bindings" => {
            let pods = route.base.replace("bindings", "pods");
            let pod = doc!({ "metadata": { "name": "bound" }, "spec": { "containers": [{ "name": "c", "image": "i" }] } });
            server.post(&pods, &pod).await.ok();
            doc!({ "metadata": { "name": "bound" }, "target": { "kind": "Node", "name": "n" } })
        }
        ("create", "eviction") => {
            let name = path.rsplit('/').nth(1).unwrap();
            doc!({ "metadata": { "name": name } })
        }
        ("create", "binding") => doc!({ "target": { "kind": "Node", "name": "n" } }),
        _ => Doc::object(),
    }
}

#[test]
fn every_route_is_guarded_told_and_admitted() {
    let kinds = api::kinds();
    let recorder = Recorder::default();
    let walked = base::sim::run(41, {
        let recorder = recorder.clone();
        async move {
            let server = server(&recorder).await;
            let routes = routes(&server).await;
            let powerless = Arc::new(User::new("powerless", &[]));
            for (n, route) in routes.iter().enumerate() {
                let kind = kinds.iter().find(|kind| {
                    let of = |v: &api::Version| route.api.ends_with(&format!("/{}", v.gv));
                    *kind.storage.resource == route.resource && kind.versions.iter().any(of)
                });
                let kind = kind.unwrap_or_else(|| panic!("{} is served by no kind", route.base));
                let name = harness::name(kind, u8::try_from(n % 200).unwrap());
                let (method, uri) = route.request(&name);
                let at = format!("{method} {uri}");
                let media =
                    if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
                let headers = [("content-type", media)];

                let mut unknown = call(method, &uri, &headers, Bytes::from("{}"));
                unknown.who = Who::Presented {
                    certificates: Default::default(),
                    bearer: Some(Secret("nonsense".into())),
                };
                let refused = handle(&server.api, unknown).await;
                assert!(matches!(&refused, Reply::Status(s) if s.code == 401), "{at}: {refused:?}");
                assert_eq!(recorder.ends.lock().unwrap().pop().expect("told").3, 401, "{at}");

                let answer = server.reply(powerless.clone(), method, &uri, &headers, Bytes::from("{}")).await;
                // Everybody may ask about himself, of the roles that a cluster begins with; there are none here.
                assert!(matches!(&answer, Reply::Status(s) if s.code == 403), "{at}: {answer:?}");
                let end = recorder.ends.lock().unwrap().pop().expect("told");
                assert_eq!((end.3, end.4.as_str()), (403, "forbid"), "{at}");
                assert_eq!((end.1.as_str(), end.2.as_str()), (route.resource.as_str(), route.sub.as_str()));
                let verb =
                    if route.verb == "deletecollection" || !route.connects() { &route.verb } else { &end.0 };
                assert_eq!(end.0, *verb, "{at}");

                let virtual_ = kind.class == api::Class::Virtual;
                if !virtual_ && (route.verb != "create" || !route.sub.is_empty()) {
                    let sample = harness::sample(kind, &route.base, &name);
                    let made = server.post(&route.base, &sample).await;
                    assert_eq!(made.code, 201, "{at}: {}", made.pretty());
                }
                let sent = match !virtual_ && route.verb == "create" && route.sub.is_empty() {
                    true => harness::sample(kind, &route.base, &name),
                    false => body(&server, route, &uri).await,
                };
                recorder.seen.lock().unwrap().clear();
                recorder.ends.lock().unwrap().clear();
                let admin = Arc::new(User::new("admin", &["system:masters"]));
                let reply = server.reply(admin, method, &uri, &headers, sent.to_json().into()).await;
                let shown = format!("{at}: {reply:?}");
                // What lasts is told when it ends.
                drop(reply);
                let end = recorder.ends.lock().unwrap().pop().expect("told");
                assert_eq!(end.4, "allow", "{shown}");
                let wanted = match route.verb.as_str() {
                    _ if route.connects() => Operation::Connect,
                    "delete" | "deletecollection" => Operation::Delete,
                    "create" if route.sub != "binding" && route.resource != "bindings" => Operation::Create,
                    _ => Operation::Update,
                };
                if route.mutates() || route.connects() {
                    let seen = recorder.seen.lock().unwrap().clone();
                    assert!(seen.iter().any(|(operation, _)| *operation == wanted), "{shown}: {seen:?}");
                }
                if !virtual_ && route.verb != "deletecollection" && kind.kind != "Namespace" {
                    let item = format!("{}/{name}?gracePeriodSeconds=0", route.base);
                    server.delete(&item).await;
                }
            }
            routes.len()
        }
    });
    assert!(walked > 200, "only {walked} routes were walked");
}
