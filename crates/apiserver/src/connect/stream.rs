//! `pods/exec`, `pods/attach`, `pods/portforward`: the connection goes to the kubelet of the pod's node as it comes.
//!
//! What flows is the client's and the kubelet's: nothing of it is read here.
//! Upstream: pkg/registry/core/pod/{rest/subresources.go,strategy.go}.

use api::{Kind, SubKind};
use apimachinery::call::{BoxFuture, ByteStream, Raw, RawBody, UpgradeReply};
use apimachinery::{Reply, Status, k};
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::{escape, log};
use crate::endpoints::options;
use crate::tunnel::Tunnels;
use crate::{Connect, Lister, Request};

/// The kubelet's own words are passed on up to this length, in bytes.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Headers that the two ends agree by.
const AGREE: [&str; 4] =
    ["x-stream-protocol-version", "sec-websocket-key", "sec-websocket-version", "sec-websocket-protocol"];

/// Serves streams through the nodes' tunnels.
pub struct Stream {
    /// The ways to the nodes.
    pub tunnels: Tunnels,
}

impl Connect for Stream {
    fn serves(&self, kind: &Kind, subresource: &str) -> bool {
        let does = kind.sub(subresource).map(|sub| sub.does);
        matches!(does, Some(SubKind::Exec | SubKind::Attach | SubKind::PortForward))
    }

    fn answer(&self, request: Request) -> BoxFuture<'static, Reply> {
        let tunnels = self.tunnels.clone();
        Box::pin(async move { stream(&request, &tunnels).await.unwrap_or_else(Reply::Status) })
    }
}

async fn stream(request: &Request, tunnels: &Tunnels) -> Result<Reply, Status> {
    options::ports(&request.options)?;
    let (node, path) = location(request).await?;
    if request.wire.upgrade.is_none() {
        return Err(Status::bad_request("Upgrade request required"));
    }
    relay(request, tunnels, &node, &path).await
}

/// Hands a connection on to a node's kubelet, or its refusal back.
pub(super) async fn relay(
    request: &Request,
    tunnels: &Tunnels,
    node: &str,
    path: &str,
) -> Result<Reply, Status> {
    let asked = request.wire.upgrade.as_ref().map(|u| u.protocol().to_owned()).unwrap_or_default();
    let protocol = match asked.to_ascii_lowercase().as_str() {
        "spdy/3.1" => Protocol::from_static("SPDY/3.1"),
        "websocket" => Protocol::from_static("websocket"),
        _ => return Err(Status::bad_request(format!("unable to upgrade: unsupported protocol {asked:?}"))),
    };
    let mut ask = http::Request::builder().method(Method::CONNECT).uri(format!("http://{node}{path}"));
    for (name, value) in request.wire.headers.iter().filter(|(name, _)| AGREE.contains(&name.as_str())) {
        ask = ask.header(name, value);
    }
    let ask = ask.extension(protocol).body(Full::new(Bytes::new())).map_err(Status::internal)?;
    let response = tunnels.request(node, ask).await.map_err(|err| Status::internal(super::words(&err)))?;
    if response.status() != StatusCode::OK {
        return refused(response).await;
    }
    let headers = response.headers().iter();
    let headers = headers
        .filter(|(name, _)| name.as_str() != "date" && name.as_str() != "content-length")
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
        .collect();
    Ok(Reply::Upgrade(Box::new(Relay { headers, on: hyper::upgrade::on(response) })))
}

/// Whose kubelet is asked for what.
async fn location(request: &Request) -> Result<(String, String), Status> {
    request.api.cacher.catch_up().await?;
    let target = &request.target;
    let item = request.api.cacher.get(&request.kind.storage, &target.namespace, &target.name);
    let item = item.ok_or_else(|| request.not_found())?;
    let pod = item.doc();
    let does = request.sub().map(|sub| sub.does);
    let kubelets = match does {
        Some(SubKind::Exec) => "exec",
        Some(SubKind::Attach) => "attach",
        _ => "portForward",
    };
    let mut path = format!("/{kubelets}/{}/{}", target.namespace, target.name);
    if does != Some(SubKind::PortForward) {
        path.push('/');
        path.push_str(&log::container(request, pod.get(k::SPEC))?);
    }
    let node = pod.get(k::SPEC).get(k::NODE_NAME).str();
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", target.name)));
    }
    let mut separator = '?';
    let mut add = |name: &str, value: &str| {
        path.push(separator);
        separator = '&';
        path.push_str(&format!("{name}={}", escape(value)));
    };
    // The kubelet has other names for them.
    for (name, value) in &request.options.query {
        let truth = !matches!(value.as_str(), "false" | "0");
        match name.as_str() {
            "command" => add("command", value),
            "ports" => add("port", value),
            "stdin" if truth => add("input", "1"),
            "stdout" if truth => add("output", "1"),
            "stderr" if truth => add("error", "1"),
            "tty" if truth => add("tty", "1"),
            _ => {}
        }
    }
    Ok((node.to_owned(), path))
}

/// The kubelet's refusal as it is.
async fn refused(response: http::Response<Incoming>) -> Result<Reply, Status> {
    let (parts, body) = response.into_parts();
    let said = Limited::new(body, MESSAGE_BYTES_MAX).collect().await;
    let said = said.map(|b| b.to_bytes()).map_err(Status::internal)?;
    let header = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let accepted = "x-accepted-stream-protocol-versions";
    let headers = parts.headers.get_all(accepted).iter().filter_map(|v| v.to_str().ok());
    Ok(Reply::Raw(Raw {
        code: parts.status.as_u16(),
        content_type: header("content-type").to_owned(),
        headers: headers.map(|v| (accepted.to_owned(), v.to_owned())).collect(),
        body: RawBody::Bytes(said),
    }))
}

/// A connection that is carried on, both ways, until both ends have said all.
pub(super) struct Relay {
    /// What the answer says.
    pub headers: Vec<(String, String)>,
    /// The other connection.
    pub on: OnUpgrade,
}

impl UpgradeReply for Relay {
    fn headers(&self) -> Vec<(String, String)> {
        self.headers.clone()
    }

    fn run(self: Box<Self>, mut stream: Box<dyn ByteStream>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            match self.on.await {
                Ok(other) => {
                    let carried = tokio::io::copy_bidirectional(&mut stream, &mut TokioIo::new(other)).await;
                    if let Err(err) = carried {
                        tracing::debug!(%err, "a stream broke");
                    }
                }
                Err(err) => tracing::debug!(%err, "a stream did not begin"),
            }
        })
    }
}
