//! The `proxy` of pods, services and nodes: a request goes on to a port of theirs and its answer comes back.
//!
//! Pods are reached inside their own network, by the node's tunnel; services by an endpoint that is a pod, whatever the
//! host's rules for Services do; a node's kubelet by the tunnel, its other ports directly.
//! Upstream: pkg/registry/core/{pod,service,node}/strategy.go, `storage.go`; k8s.io/apimachinery/pkg/util/proxy.

use std::net::IpAddr;
use std::sync::Arc;

use api::{Kind, SubKind};
use apimachinery::call::{Body, BoxFuture, ByteStream, Raw, RawBody, Stored};
use apimachinery::schema::views::core_v1::Endpoints;
use apimachinery::{GroupResource, Ref, Reply, Status, k};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Method, StatusCode, header};
use http_body_util::{BodyExt, BodyStream, Full, Limited};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;

use super::{html, stream, words};
use crate::tunnel::Tunnels;
use crate::{Connect, Lister, Request};

const PODS: GroupResource = GroupResource::new("", "pods");
const ENDPOINTS: GroupResource = GroupResource::new("", "endpoints");
/// The kubelet's own port.
const KUBELET_PORT: u16 = 10250;
/// The longest page whose links are rewritten.
const PAGE_BYTES_MAX: usize = 8 << 20;
/// Headers that belong to one connection.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Serves proxies through the nodes' tunnels.
pub struct Proxy {
    /// The ways to the nodes.
    pub tunnels: Tunnels,
}

impl Connect for Proxy {
    fn serves(&self, kind: &Kind, subresource: &str) -> bool {
        kind.sub(subresource).is_some_and(|sub| sub.does == SubKind::Proxy)
    }

    fn answer(&self, request: Request) -> BoxFuture<'static, Reply> {
        let tunnels = self.tunnels.clone();
        Box::pin(async move { proxy(request, &tunnels).await.unwrap_or_else(Reply::Status) })
    }
}

/// Where a request goes.
struct Place {
    https: bool,
    /// As the other side sees it.
    host: String,
    way: Way,
}

/// How to get there.
enum Way {
    /// Into a pod's network.
    Pod { node: String, namespace: String, name: String, port: u16 },
    /// The node's kubelet.
    Kubelet { node: String },
    /// Over the network.
    Direct { address: IpAddr, port: u16 },
}

/// `https:name:port`, `name:port` or `name`, with the scheme and the port as they were given.
fn parse(id: &str) -> Option<(bool, &str, &str)> {
    let parts: Vec<&str> = id.split(':').collect();
    let (scheme, name, port) = match *parts.as_slice() {
        [name] => ("", name, ""),
        [name, port] => ("", name, port),
        [scheme, name, port] => (scheme, name, port),
        _ => return None,
    };
    let https = match scheme {
        "" | "http" => false,
        "https" => true,
        _ => return None,
    };
    (!name.is_empty()).then_some((https, name, port))
}

async fn proxy(request: Request, tunnels: &Tunnels) -> Result<Reply, Status> {
    // A page's relative links need the slash. Source: UpgradeAwareHandler.
    let reads = matches!(request.wire.method.as_str(), "" | "GET" | "HEAD");
    if request.target.rest.is_empty() && request.wire.upgrade.is_none() && reads {
        let (path, query) =
            request.wire.uri.split_once('?').map_or((&*request.wire.uri, ""), |(p, q)| (p, q));
        let query = if query.is_empty() { String::new() } else { format!("?{query}") };
        let headers = vec![("location".to_owned(), format!("{path}/{query}"))];
        return Ok(Reply::Raw(Raw {
            code: 301,
            content_type: "text/plain".into(),
            headers,
            body: RawBody::Bytes(Bytes::new()),
        }));
    }
    request.api.cacher.catch_up().await?;
    let place = place(&request)?;
    let prefix = prefix(&request);
    let asked = request.wire.upgrade.as_ref().map(|u| u.protocol().to_owned());
    let ask = ask(&request, &place, asked.as_deref())?;
    let response = match &place.way {
        Way::Kubelet { node } => tunnels.request(node, ask).await.map_err(unreachable)?,
        _ => {
            let io = open(&place, tunnels).await?;
            let greeted = hyper::client::conn::http1::handshake(TokioIo::new(io)).await;
            let (mut sender, connection) = greeted.map_err(unreachable)?;
            base::task::spawn(async move {
                // What goes wrong shows in the answer.
                drop(connection.with_upgrades().await);
            })
            .detach();
            sender.send_request(ask).await.map_err(unreachable)?
        }
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let headers = headers(response.headers());
        return Ok(Reply::Upgrade(Box::new(stream::Relay { headers, on: hyper::upgrade::on(response) })));
    }
    answer(response, &place.host, &prefix).await
}

/// Upstream answers so when the other end cannot be reached.
fn unreachable(err: impl std::error::Error) -> Status {
    Status::unavailable(format!("error trying to reach service: {}", words(&err)))
}

/// Everything of the path up to `proxy`.
fn prefix(request: &Request) -> String {
    let path = request.wire.uri.split('?').next().unwrap_or_default();
    path.strip_suffix(&request.target.rest).unwrap_or(path).to_owned()
}

fn ask(
    request: &Request,
    place: &Place,
    upgrade: Option<&str>,
) -> Result<http::Request<Full<Bytes>>, Status> {
    let query = request.wire.uri.split_once('?').map(|(_, query)| format!("?{query}")).unwrap_or_default();
    let path = if request.target.rest.is_empty() { "/" } else { &request.target.rest };
    // On the tunnel (HTTP/2) a request names its host; elsewhere a header does.
    let uri = match &place.way {
        Way::Kubelet { node } => format!("http://{node}{path}{query}"),
        _ => format!("{path}{query}"),
    };
    let method = if request.wire.method.is_empty() { "GET" } else { &request.wire.method };
    let mut ask = http::Request::builder().method(method).uri(uri);
    for (name, value) in &request.wire.headers {
        // A page that comes packed has no links to be seen.
        if !HOP_BY_HOP.contains(&name.as_str()) && name != "accept-encoding" {
            ask = ask.header(name, value);
        }
    }
    if !matches!(place.way, Way::Kubelet { .. }) {
        ask = ask.header(header::HOST, &place.host);
        if let Some(protocol) = upgrade {
            ask = ask.header(header::CONNECTION, "Upgrade").header(header::UPGRADE, protocol);
        }
    }
    if let Some(peer) = request.wire.peer {
        ask = ask.header("x-forwarded-for", peer.to_string());
    }
    ask = ask.header("x-forwarded-uri", request.wire.uri.split('?').next().unwrap_or_default());
    let body = match &request.body {
        Body::Bytes { bytes, .. } => bytes.clone(),
        _ => Bytes::new(),
    };
    ask.body(Full::new(body)).map_err(|err| Status::bad_request(err.to_string()))
}

/// A connection to the place, with TLS if it is wanted.
async fn open(place: &Place, tunnels: &Tunnels) -> Result<Box<dyn ByteStream>, Status> {
    let io: Box<dyn ByteStream> = match &place.way {
        Way::Pod { node, namespace, name, port } => {
            let ask = http::Request::builder()
                .method(Method::CONNECT)
                .uri(format!("http://{node}/connect/{namespace}/{name}/{port}"))
                .extension(Protocol::from_static("tcp"))
                .body(Full::new(Bytes::new()))
                .map_err(Status::internal)?;
            let response = tunnels.request(node, ask).await.map_err(unreachable)?;
            if response.status() != StatusCode::OK {
                let said = Limited::new(response.into_body(), 4096).collect().await;
                let said = said.map(|b| b.to_bytes()).unwrap_or_default();
                let said = String::from_utf8_lossy(&said).into_owned();
                return Err(Status::unavailable(format!("error trying to reach service: {said}")));
            }
            Box::new(TokioIo::new(hyper::upgrade::on(response).await.map_err(unreachable)?))
        }
        Way::Direct { address, port } => {
            Box::new(TcpStream::connect((*address, *port)).await.map_err(unreachable)?)
        }
        Way::Kubelet { .. } => return Err(Status::internal("the kubelet is asked by its tunnel")),
    };
    if !place.https {
        return Ok(io);
    }
    let host = place.host.rsplit_once(':').map_or(&*place.host, |(host, _)| host);
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(Status::internal)?;
    let connector = tokio_rustls::TlsConnector::from(client::https::trusting());
    Ok(Box::new(connector.connect(name, io).await.map_err(unreachable)?))
}

fn headers(from: &http::HeaderMap) -> Vec<(String, String)> {
    let all = from.iter().filter(|(name, _)| !HOP_BY_HOP.contains(&name.as_str()));
    all.filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
        .collect()
}

async fn answer(response: http::Response<Incoming>, host: &str, prefix: &str) -> Result<Reply, Status> {
    let (parts, body) = response.into_parts();
    let mut headers = headers(&parts.headers);
    let rewrite = |link: &str| html::rewrite(link, &[host], prefix);
    if let Some((_, location)) = headers.iter_mut().find(|(name, _)| name == "location") {
        *location = rewrite(location);
    }
    let header = |name| parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let content_type = header(header::CONTENT_TYPE).to_owned();
    let page = content_type.split(';').next().is_some_and(|t| t.trim().eq_ignore_ascii_case("text/html"));
    let short = header(header::CONTENT_LENGTH).parse::<usize>().is_ok_and(|n| n <= PAGE_BYTES_MAX);
    headers.retain(|(name, _)| name != "content-type");
    let body = if page && short && header(header::CONTENT_ENCODING).is_empty() {
        let bytes = body.collect().await.map_err(unreachable)?.to_bytes();
        headers.retain(|(name, _)| name != "content-length");
        RawBody::Bytes(match std::str::from_utf8(&bytes) {
            Ok(text) => html::page(text, rewrite).into(),
            Err(_) => bytes,
        })
    } else {
        let pieces = BodyStream::new(body).map(|frame| match frame {
            Ok(frame) => Ok(frame.into_data().unwrap_or_default()),
            Err(err) => Err(std::io::Error::other(err)),
        });
        RawBody::Stream(Box::pin(pieces))
    };
    // A proxy adds nothing of its own: not even what the answer may be kept for.
    if !headers.iter().any(|(name, _)| name == "cache-control") {
        headers.push(("cache-control".to_owned(), "no-cache, private".to_owned()));
    }
    Ok(Reply::Raw(Raw { code: parts.status.as_u16(), content_type, headers, body }))
}

// === places ===

fn place(request: &Request) -> Result<Place, Status> {
    let (kind, id) = (&*request.kind.storage.resource, &*request.target.name);
    let what = kind.trim_end_matches('s');
    let parsed = parse(id).ok_or_else(|| Status::bad_request(format!("invalid {what} request {id:?}")))?;
    match kind {
        "pods" => pod(request, parsed),
        "services" => service(request, parsed),
        _ => node(request, parsed),
    }
}

fn found(request: &Request, name: &str) -> Result<Arc<Stored>, Status> {
    let (storage, namespace) = (&request.kind.storage, &request.target.namespace);
    let item = request.api.cacher.get(storage, namespace, name);
    item.ok_or_else(|| Status::not_found(storage, name))
}

fn host(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

fn pod(request: &Request, (https, name, port): (bool, &str, &str)) -> Result<Place, Status> {
    let item = found(request, name)?;
    let pod = item.doc();
    let port = match port {
        "" => {
            let ports =
                pod.get(k::SPEC).get(k::CONTAINERS).items().flat_map(|c: Ref<'_>| c.get(k::PORTS).items());
            let first = ports.map(|p| p.get(k::CONTAINER_PORT).i64()).next();
            first.and_then(|p| u16::try_from(p).ok()).unwrap_or(if https { 443 } else { 80 })
        }
        given => given.parse().map_err(|_| Status::bad_request(format!("invalid port {given:?}")))?,
    };
    into_pod(pod.root(), https, port)
}

/// The way to a port of a pod.
fn into_pod(pod: Ref<'_>, https: bool, port: u16) -> Result<Place, Status> {
    let address = pod.get(k::STATUS).get(k::POD_IP).str();
    let node = pod.get(k::SPEC).get(k::NODE_NAME).str();
    if address.is_empty() || node.is_empty() {
        return Err(Status::bad_request("address not allowed"));
    }
    let meta = pod.get(k::METADATA);
    let way = Way::Pod {
        node: node.to_owned(),
        namespace: meta.get(k::NAMESPACE).str().to_owned(),
        name: meta.get(k::NAME).str().to_owned(),
        port,
    };
    Ok(Place { https, host: host(address, port), way })
}

fn service(request: &Request, (https, name, port): (bool, &str, &str)) -> Result<Place, Status> {
    let item = found(request, name)?;
    let service = item.doc();
    let mut port_name = port.to_owned();
    if let Ok(number) = port.parse::<i64>() {
        let mut ports = service.get(k::SPEC).get(k::PORTS).items();
        let same = ports.find(|p| p.get(k::PORT).i64() == number);
        let none = || Status::unavailable(format!("no service port {number} found for service {name:?}"));
        same.ok_or_else(none)?.get(k::NAME).str().clone_into(&mut port_name);
    }
    let cacher = &request.api.cacher;
    let namespace = &request.target.namespace;
    let none =
        || Status::unavailable(format!("no endpoints available for service {:?}", request.target.name));
    let endpoints = cacher.get(&ENDPOINTS, namespace, name).ok_or_else(none)?;
    let mut places = Vec::new();
    for subset in Endpoints(endpoints.doc().root()).subsets().iter() {
        let Some(port) = subset.ports().iter().find(|p| p.name() == port_name) else { continue };
        let Ok(number) = u16::try_from(port.port()) else { continue };
        for address in subset.addresses().iter() {
            let target = address.target_ref();
            if target.kind() == "Pod"
                && let Some(pod) = cacher.get(&PODS, target.namespace(), target.name())
                && let Ok(place) = into_pod(pod.doc().root(), https, number)
            {
                places.push(place);
            }
        }
    }
    if places.is_empty() {
        return Err(none());
    }
    let chosen = base::rand::u64() as usize % places.len();
    Ok(places.swap_remove(chosen))
}

fn node(request: &Request, (https, name, port): (bool, &str, &str)) -> Result<Place, Status> {
    let item = found(request, name)?;
    let port = match port {
        "" => KUBELET_PORT,
        given => given.parse().map_err(|_| Status::bad_request(format!("invalid port {given:?}")))?,
    };
    if port == KUBELET_PORT {
        let way = Way::Kubelet { node: name.to_owned() };
        return Ok(Place { https: false, host: name.to_owned(), way });
    }
    let node = item.doc();
    let mut addresses = node.get(k::STATUS).get(k::ADDRESSES).items();
    let internal = addresses.find(|a| a.get(k::TYPE).str() == "InternalIP");
    let address = internal.and_then(|a| a.get(k::ADDRESS).str().parse::<IpAddr>().ok());
    let none =
        || Status::internal(format!("no preferred addresses found; known addresses: [] of node {name}"));
    let address = address.ok_or_else(none)?;
    Ok(Place { https, host: host(&address.to_string(), port), way: Way::Direct { address, port } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_a_scheme_and_a_port() {
        for (id, want) in [
            ("web", Some((false, "web", ""))),
            ("web:80", Some((false, "web", "80"))),
            ("http:web:", Some((false, "web", ""))),
            ("https:web:http", Some((true, "web", "http"))),
            ("ftp:web:21", None),
            ("a:b:c:d", None),
            (":80", None),
        ] {
            assert_eq!(parse(id), want, "{id}");
        }
    }
}
