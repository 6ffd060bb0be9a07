//! What others ask of this node: `/healthz`, `/pods`, `/containerLogs/…`. One handler, whatever carried the request; who may
//! ask was decided before. Upstream: pkg/kubelet/server.

pub mod logs;
pub mod tunnel;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use apimachinery::{Doc, doc, k};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use tokio::sync::mpsc;

use crate::config::Config;
use crate::containers;
use crate::doors::Doors;
use crate::kubelet::Workers;
use crate::worker::{Container, Phase, State};

/// An answer's body.
pub type Body = BoxBody<Bytes, io::Error>;

/// How many pieces of a stream wait for a slow reader.
const PIECES_MAX: usize = 16;

/// Answers requests about this node.
#[derive(Clone)]
pub struct Server {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    workers: Workers,
    changes: logs::Changes,
}

impl Server {
    pub(crate) fn new(config: Config, _doors: Doors, workers: Workers) -> Server {
        Server { inner: Arc::new(Inner { config, workers, changes: logs::Changes::default() }) }
    }

    /// Answers one request.
    pub async fn handle<B>(&self, request: Request<B>) -> Result<Response<Body>, Infallible> {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or("").to_owned();
        let mut parts = path.trim_matches('/').split('/');
        let answer = match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("healthz"), None, ..) => text(StatusCode::OK, "ok"),
            (Some("pods"), None, ..) => self.pods(),
            (Some("containerLogs"), Some(namespace), Some(pod), Some(container), None) => {
                self.logs(namespace, pod, container, &query).await
            }
            _ => text(StatusCode::NOT_FOUND, "404 page not found"),
        };
        Ok(answer)
    }

    fn pods(&self) -> Response<Body> {
        let mut list = doc!({ "kind": "PodList", "apiVersion": "v1", "metadata": {} });
        let states = self.inner.workers.states();
        list.edit().set(k::ITEMS, states.iter().map(|s| Doc::clone(&s.pod)).collect::<Vec<_>>());
        let mut answer = Response::new(full(list.to_json()));
        answer.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
        answer
    }

    async fn logs(&self, namespace: &str, pod: &str, container: &str, query: &str) -> Response<Body> {
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
        let (sender, receiver) = mpsc::channel(PIECES_MAX);
        let changes = self.inner.changes.clone();
        let name = container.to_owned();
        base::task::spawn(
            async move { logs::send(path, options, name, attempt, view, changes, sender).await },
        )
        .detach();
        let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|piece: io::Result<Bytes>| (piece.map(Frame::data), receiver))
        });
        let mut answer = Response::new(BodyExt::boxed(StreamBody::new(stream)));
        answer.headers_mut().insert("content-type", http::HeaderValue::from_static("text/plain"));
        answer
    }
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
