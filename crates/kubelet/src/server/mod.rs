//! What others ask of this node: `/healthz`, `/pods`, `/containerLogs/…`, `/exec/…`, `/attach/…`, `/portForward/…`,
//! `/run/…`. One handler, whatever carried the request; who may ask was decided before. Upstream: pkg/kubelet/server.

mod files;
pub mod logs;
pub mod streams;
pub mod tunnel;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Doc, doc, k};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;

use crate::config::Config;
use crate::containers;
use crate::doors::Doors;
use crate::kubelet::Workers;
use crate::worker::{Container, Phase, State};
use runtime::{ContainerId, Runtime};
use streams::upgrade::{Agreed, Asked, Offer};
use streams::{Connection, forward, remote};

/// An answer's body.
pub type Body = BoxBody<Bytes, io::Error>;

/// An answer in place of what was wanted.
type Refusal = Box<Response<Body>>;

/// How many pieces of a stream wait for a slow reader.
const PIECES_MAX: usize = 16;

/// Logs on WebSocket. Upstream: `wsstream.NewDefaultReaderProtocols`.
const LOGS: Offer<'static> = Offer {
    spdy: &[],
    websocket: &[("binary.k8s.io", false), ("base64.binary.k8s.io", true)],
    channels: Vec::new(),
};

/// Answers requests about this node.
#[derive(Clone)]
pub struct Server {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    runtime: Arc<dyn Runtime>,
    workers: Workers,
    changes: logs::Changes,
}

impl Server {
    pub(crate) fn new(config: Config, doors: Doors, workers: Workers) -> Server {
        let (runtime, changes) = (doors.runtime, logs::Changes::default());
        Server { inner: Arc::new(Inner { config, runtime, workers, changes }) }
    }

    /// Answers one request.
    pub async fn handle<B>(&self, mut request: Request<B>) -> Result<Response<Body>, Infallible> {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or("").to_owned();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let answer = match *parts.as_slice() {
            ["healthz"] => text(StatusCode::OK, "ok"),
            ["pods"] => self.pods(),
            ["containerLogs", namespace, pod, container] => {
                self.logs(&mut request, (namespace, pod, container), &query)
            }
            ["logs", ..] => {
                let root = self.inner.config.pod_logs_dir.parent().map(std::path::Path::to_owned);
                files::serve(root.unwrap_or_default(), path.trim_start_matches("/logs")).await
            }
            ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container] => {
                self.remote(&mut request, (namespace, pod, container), &query, remote::Action::Exec)
            }
            ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container] => {
                self.remote(&mut request, (namespace, pod, container), &query, remote::Action::Attach)
            }
            ["connect", namespace, pod, port] => self.connect(&mut request, namespace, pod, port).await,
            ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
                self.forward(&mut request, namespace, pod, &query)
            }
            ["run", namespace, pod, container] | ["run", namespace, pod, _, container]
                if request.method() == http::Method::POST =>
            {
                self.run(namespace, pod, container, &query).await
            }
            _ => text(StatusCode::NOT_FOUND, "404 page not found"),
        };
        Ok(answer)
    }

    /// A running container.
    fn running(&self, (namespace, pod, container): (&str, &str, &str)) -> Result<ContainerId, Refusal> {
        let state = self.inner.workers.find(namespace, pod);
        let state = state.ok_or_else(|| Refusal::from(text(StatusCode::NOT_FOUND, "pod does not exist")))?;
        let found = state.containers.iter().find(|c| c.name == container);
        match found.map(|c| &c.phase) {
            Some(Phase::Running { id, .. }) => Ok(id.clone()),
            _ => {
                let why = format!("container not found ({container:?})");
                Err(text(StatusCode::INTERNAL_SERVER_ERROR, &why).into())
            }
        }
    }

    fn remote<B>(
        &self,
        request: &mut Request<B>,
        which: (&str, &str, &str),
        query: &str,
        action: remote::Action,
    ) -> Response<Body> {
        let options = match remote::Options::parse(query) {
            Ok(options) => options,
            Err(why) => return text(StatusCode::BAD_REQUEST, &why),
        };
        let container = match self.running(which) {
            Ok(container) => container,
            Err(answer) => return *answer,
        };
        let runtime = self.inner.runtime.clone();
        upgrade(request, options.offer(), move |connection, version, channels| {
            remote::serve(runtime, container, options, action, connection, version, channels)
        })
    }

    fn forward<B>(
        &self,
        request: &mut Request<B>,
        namespace: &str,
        pod: &str,
        query: &str,
    ) -> Response<Body> {
        let ports = match forward::ports(query) {
            Ok(ports) => ports,
            Err(why) => return text(StatusCode::BAD_REQUEST, &why),
        };
        let Some(state) = self.inner.workers.find(namespace, pod) else {
            return text(StatusCode::NOT_FOUND, "pod does not exist");
        };
        let Some(sandbox) = state.sandbox_id() else {
            return text(StatusCode::INTERNAL_SERVER_ERROR, "pod is not running");
        };
        let target = forward::Target {
            runtime: self.inner.runtime.clone(),
            sandbox: sandbox.clone(),
            pod: pod.to_owned(),
            uid: state.object().metadata().uid().to_owned(),
        };
        upgrade(request, forward::offer(&ports), move |connection, _, channels| {
            forward::serve(target, connection, channels)
        })
    }

    /// A plain connection to a port of a pod's own address: the way of the API server's proxies, by the tunnel only.
    async fn connect<B>(
        &self,
        request: &mut Request<B>,
        namespace: &str,
        pod: &str,
        port: &str,
    ) -> Response<Body> {
        let Some(on) = Asked::raw(request) else {
            return text(StatusCode::NOT_FOUND, "404 page not found");
        };
        let Some(state) = self.inner.workers.find(namespace, pod) else {
            return text(StatusCode::NOT_FOUND, "pod does not exist");
        };
        let (Some(sandbox), Ok(port)) = (state.sandbox_id(), port.parse::<u16>()) else {
            return text(StatusCode::BAD_GATEWAY, "no such port of a running pod");
        };
        let addresses = state.ips.iter().map(|ip| (*ip, port).into()).collect();
        match self.inner.runtime.connect(sandbox, addresses).await {
            Ok(mut stream) => {
                base::task::spawn(async move {
                    let Ok(io) = on.await else { return };
                    // Either end may go at any time.
                    drop(tokio::io::copy_bidirectional(&mut stream, &mut TokioIo::new(io)).await);
                })
                .detach();
                Response::new(full(""))
            }
            Err(err) => text(StatusCode::BAD_GATEWAY, &err.to_string()),
        }
    }

    /// Runs a command to its end; the answer is what it said, as upstream labels it.
    async fn run(&self, namespace: &str, pod: &str, container: &str, query: &str) -> Response<Body> {
        let container = match self.running((namespace, pod, container)) {
            Ok(container) => container,
            Err(answer) => return *answer,
        };
        let command = query.split('&').find_map(|p| p.strip_prefix("cmd=")).map(logs::decode);
        let command = command.unwrap_or_default().split(' ').map(str::to_owned).collect();
        match self.inner.runtime.exec_sync(&container, command, Duration::ZERO).await {
            Ok(done) if done.exit_code == 0 => {
                let mut answer = Response::new(full([done.stdout, done.stderr].concat()));
                let json = http::HeaderValue::from_static("application/json");
                answer.headers_mut().insert("content-type", json);
                answer
            }
            Ok(done) => {
                let why = format!("command exited with {}", done.exit_code);
                text(StatusCode::INTERNAL_SERVER_ERROR, &why)
            }
            Err(err) => text(StatusCode::INTERNAL_SERVER_ERROR, &err.to_string()),
        }
    }

    fn pods(&self) -> Response<Body> {
        let mut list = doc!({ "kind": "PodList", "apiVersion": "v1", "metadata": {} });
        let states = self.inner.workers.states();
        list.edit().set(k::ITEMS, states.iter().map(|s| Doc::clone(&s.pod)).collect::<Vec<_>>());
        let mut answer = Response::new(full(list.to_json()));
        answer.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
        answer
    }

    fn logs<B>(
        &self,
        request: &mut Request<B>,
        (namespace, pod, container): (&str, &str, &str),
        query: &str,
    ) -> Response<Body> {
        let options = match logs::Options::parse(query) {
            Ok(options) => options,
            Err(why) => return text(StatusCode::BAD_REQUEST, &why),
        };
        let Some(view) = self.inner.workers.watch(namespace, pod) else {
            return text(StatusCode::NOT_FOUND, &format!("pod {pod:?} not found"));
        };
        let state = view.borrow().clone();
        let Some(found) = state.containers.iter().find(|c| c.name == container) else {
            return text(StatusCode::NOT_FOUND, &format!("container {container:?} not found in pod {pod:?}"));
        };
        let attempt = match which_run(&state, found, options.previous) {
            Ok(attempt) => attempt,
            Err(why) => return text(StatusCode::BAD_REQUEST, &why),
        };
        let path = containers::log_dir(&self.inner.config, state.object())
            .join(containers::log_path(container, attempt));
        let (sender, mut receiver) = mpsc::channel(PIECES_MAX);
        let changes = self.inner.changes.clone();
        let name = container.to_owned();
        base::task::spawn(
            async move { logs::send(path, options, name, attempt, view, changes, sender).await },
        )
        .detach();
        if request.headers().contains_key(http::header::SEC_WEBSOCKET_KEY) {
            return upgrade(request, LOGS, |mut connection, _, _| async move {
                if let Some(stream) = connection.streams.recv().await {
                    while let Some(Ok(piece)) = receiver.recv().await {
                        if !stream.output.send(piece).await {
                            return;
                        }
                    }
                }
                connection.finish().await;
            });
        }
        let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|piece: io::Result<Bytes>| (piece.map(Frame::data), receiver))
        });
        let mut answer = Response::new(BodyExt::boxed(StreamBody::new(stream)));
        answer.headers_mut().insert("content-type", http::HeaderValue::from_static("text/plain"));
        answer
    }
}

/// Takes a request's connection over for `serve`, which is told the version, and whether channels carry the streams.
fn upgrade<B, F>(
    request: &mut Request<B>,
    offer: Offer<'_>,
    serve: impl FnOnce(Connection, String, bool) -> F + Send + 'static,
) -> Response<Body>
where
    F: Future<Output = ()> + Send + 'static,
{
    let Some(asked) = Asked::of(request) else {
        return text(StatusCode::BAD_REQUEST, "Upgrade request required");
    };
    let Agreed { version, channels, codec, response, on } = match asked.agree(request.headers(), offer) {
        Ok(agreed) => agreed,
        Err(answer) => return *answer,
    };
    base::task::spawn(async move {
        match on.await {
            Ok(io) => serve(Connection::start(TokioIo::new(io), codec), version, channels).await,
            Err(err) => tracing::debug!(error = %err, "take over a connection"),
        }
    })
    .detach();
    response
}

/// Which run of a container is meant.
fn which_run(state: &State, container: &Container, previous: bool) -> Result<u32, String> {
    let (name, pod) = (&container.name, state.object().metadata().name());
    if previous {
        return match (&container.last, container.attempt) {
            (Some(_), n) if matches!(container.phase, Phase::Running { .. } | Phase::Exited(_)) && n > 0 => {
                Ok(n - 1)
            }
            (Some(_), n) => Ok(n),
            (None, _) => Err(format!("previous terminated container {name:?} in pod {pod:?} not found")),
        };
    }
    let ran = container.last.is_some() || matches!(container.phase, Phase::Running { .. } | Phase::Exited(_));
    if ran {
        return Ok(container.attempt);
    }
    let reason = container.trouble.as_ref().map_or("ContainerCreating", |(reason, _)| reason.as_str());
    if matches!(reason, "ErrImagePull" | "ImagePullBackOff") {
        return Err(format!(
            "container {name:?} in pod {pod:?} is waiting to start: trying and failing to pull image"
        ));
    }
    Err(format!("container {name:?} in pod {pod:?} is waiting to start: {reason}"))
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

fn text(code: StatusCode, words: &str) -> Response<Body> {
    let mut answer = Response::new(full(words.to_owned()));
    *answer.status_mut() = code;
    answer.headers_mut().insert("content-type", http::HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
