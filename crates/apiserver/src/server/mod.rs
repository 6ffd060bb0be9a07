//! The listener: TLS, HTTP/1.1 and HTTP/2, one [`Call`] a request, one encoded [`Reply`] an answer, and a drain
//! that lets requests end.
//!
//! It knows nothing of kinds, users or storage: what it serves is a function from `Call` to `Reply`.

mod encode;
mod protobuf;
pub mod request;
mod tls;
mod upgrade;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use apimachinery::call::{Body, BoxFuture, Media, Secret, Who};
use apimachinery::{Call, Reply, Status};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

pub use encode::ReplyBody;
pub use tls::{TlsError, TlsFiles, server_config};

/// The largest request body, in bytes (upstream's limit).
pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// All request bodies that are being read, in bytes.
const BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// All request headers together, in bytes: groups and impersonation make them long.
const HEADERS_BYTES_MAX: u32 = 256 * 1024;
/// How long a client may take for its TLS handshake, and for its headers.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
const HEADERS_MAX: Duration = Duration::from_secs(32);
/// How much is buffered for a client that reads slowly, in bytes, per stream.
const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Streams that one HTTP/2 connection may have open.
const STREAMS_MAX: u32 = 1_000;

/// What is served.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle(&self, call: Call) -> BoxFuture<'_, Reply>;
}

/// A listener with its connections.
pub struct Server {
    listener: TcpListener,
    tls: TlsAcceptor,
    shared: Arc<Shared>,
}

struct Shared {
    handler: Arc<dyn Handler>,
    bodies: Semaphore,
    connections: AtomicUsize,
    drain: watch::Receiver<bool>,
    idle: watch::Sender<usize>,
}

impl Server {
    /// Serves `handler` on a listener that is bound already; `drain` turning true begins the end.
    pub fn new(
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        handler: Arc<dyn Handler>,
        drain: watch::Receiver<bool>,
    ) -> Server {
        let shared = Shared {
            handler,
            bodies: Semaphore::new(BODIES_BYTES_MAX),
            connections: AtomicUsize::new(0),
            drain,
            idle: watch::channel(0).0,
        };
        Server { listener, tls: TlsAcceptor::from(tls), shared: Arc::new(shared) }
    }

    /// Accepts until the drain begins, then waits up to `patience` for open connections.
    ///
    /// # Errors
    /// When the listener fails for good.
    pub async fn run(self, patience: Duration) -> std::io::Result<()> {
        let mut drain = self.shared.drain.clone();
        loop {
            base::select! {
                () = begun(&mut drain) => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => self.connection(stream, peer),
                    // One connection's trouble, or no descriptors left: the next may fare better.
                    Err(err) if passing(&err) => {
                        tracing::warn!(%err, "accept connection");
                        base::time::sleep(Duration::from_millis(100)).await;
                    }
                    Err(err) => return Err(err),
                },
            }
        }
        drop(self.listener);
        let mut idle = self.shared.idle.subscribe();
        if base::time::timeout(patience, idle.wait_for(|open| *open == 0)).await.is_err() {
            tracing::warn!(
                open = self.shared.connections.load(Ordering::Relaxed),
                "connections cut off at shutdown"
            );
        }
        Ok(())
    }

    fn connection(&self, stream: TcpStream, peer: SocketAddr) {
        let (tls, shared) = (self.tls.clone(), Arc::clone(&self.shared));
        let open = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
        shared.idle.send_replace(open);
        base::task::spawn(async move {
            if let Err(err) = serve(stream, peer, tls, &shared).await {
                tracing::debug!(%peer, %err, "connection ended");
            }
            let open = shared.connections.fetch_sub(1, Ordering::Relaxed) - 1;
            shared.idle.send_replace(open);
        })
        .detach();
    }
}

/// Until the drain begins; a server that nobody can drain any more drains too.
async fn begun(drain: &mut watch::Receiver<bool>) {
    drop(drain.wait_for(|begun| *begun).await);
}

fn passing(err: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(err.kind(), ConnectionAborted | ConnectionReset | Interrupted)
        || matches!(err.raw_os_error(), Some(23 | 24)) // ENFILE, EMFILE
}

type Error = Box<dyn std::error::Error + Send + Sync>;

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    tls: TlsAcceptor,
    shared: &Arc<Shared>,
) -> Result<(), Error> {
    stream.set_nodelay(true)?;
    let stream = base::time::timeout(HANDSHAKE_MAX, tls.accept(stream)).await??;
    let (_, session) = stream.get_ref();
    let certificates = session.peer_certificates().unwrap_or_default();
    let certificates: Vec<Bytes> = certificates.iter().map(|c| Bytes::copy_from_slice(c)).collect();
    let http2 = session.alpn_protocol() == Some(b"h2");
    let from = Arc::new(Peer { address: peer.ip(), certificates });
    let service = {
        let shared = Arc::clone(shared);
        hyper::service::service_fn(move |request| answer(request, Arc::clone(&from), Arc::clone(&shared)))
    };
    let io = TokioIo::new(stream);
    let mut drain = shared.drain.clone();
    if http2 {
        let mut builder = hyper::server::conn::http2::Builder::new(Spawn);
        builder
            .timer(TokioTimer::new())
            .max_header_list_size(HEADERS_BYTES_MAX)
            .max_send_buf_size(SEND_BUFFER_BYTES_MAX)
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .keep_alive_interval(Some(Duration::from_secs(30)))
            .keep_alive_timeout(Duration::from_secs(20));
        let connection = builder.serve_connection(io, service);
        let mut connection = std::pin::pin!(connection);
        base::select! {
            done = connection.as_mut() => return Ok(done?),
            () = begun(&mut drain) => connection.as_mut().graceful_shutdown(),
        }
        return Ok(connection.await?);
    }
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_MAX)
        .max_buf_size(HEADERS_BYTES_MAX as usize);
    let connection = builder.serve_connection(io, service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    base::select! {
        done = connection.as_mut() => return Ok(done?),
        () = begun(&mut drain) => connection.as_mut().graceful_shutdown(),
    }
    Ok(connection.await?)
}

/// Runs hyper's own tasks through base.
#[derive(Clone)]
pub(crate) struct Spawn;

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawn {
    fn execute(&self, future: F) {
        base::task::spawn(future).detach();
    }
}

/// What is known of the other side of a connection.
struct Peer {
    address: IpAddr,
    certificates: Vec<Bytes>,
}

async fn answer(
    request: http::Request<Incoming>,
    peer: Arc<Peer>,
    shared: Arc<Shared>,
) -> Result<http::Response<ReplyBody>, Infallible> {
    let (mut parts, body) = request.into_parts();
    let upgrade = upgrade::pending(&mut parts);
    let mut form = encode::Form { pretty: request::wants_pretty(&parts), ..encode::Form::default() };
    let head = parts.method == http::Method::HEAD;
    let mut call = match request::call(&parts) {
        Ok(call) => call,
        Err(status) => return Ok(encode::reply(Reply::Status(status), form, None)),
    };
    form.protobuf = call.accept.media == Media::Protobuf;
    form.json = !form.protobuf || request::takes_json(&parts, &call.accept);
    call.who = Who::Presented { certificates: peer.certificates.clone(), bearer: bearer(&parts) };
    call.wire.peer = Some(peer.address);
    call.wire.upgrade = upgrade.as_ref().map(upgrade::Pending::asked);
    call.body = match read_body(&parts, body, &shared).await {
        Ok(body) => body,
        Err(status) => return Ok(encode::reply(Reply::Status(status), form, None)),
    };
    let reply = shared.handler.handle(call).await;
    let mut response = encode::reply(reply, form, upgrade);
    if head {
        *response.body_mut() = encode::empty();
    }
    Ok(response)
}

fn bearer(parts: &http::request::Parts) -> Option<Secret> {
    let value = parts.headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty())
        .then(|| Secret(token.trim().to_owned()))
}

async fn read_body(parts: &http::request::Parts, body: Incoming, shared: &Shared) -> Result<Body, Status> {
    use hyper::body::Body as _;
    if body.is_end_stream() {
        return Ok(Body::Empty);
    }
    let too_large = || Status::too_large(format!("limit is {BODY_BYTES_MAX}"));
    let announced =
        body.size_hint().upper().map_or(BODY_BYTES_MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let share = u32::try_from(announced.min(BODY_BYTES_MAX)).unwrap_or(u32::MAX);
    let _share = shared
        .bodies
        .acquire_many(share)
        .await
        .map_err(|_| Status::unavailable("the server is shutting down"))?;
    let collected = Limited::new(body, BODY_BYTES_MAX).collect().await;
    let bytes = match collected {
        Ok(collected) => collected.to_bytes(),
        Err(err) if err.is::<http_body_util::LengthLimitError>() => return Err(too_large()),
        Err(err) => return Err(Status::bad_request(format!("unable to read the request body: {err}"))),
    };
    if bytes.is_empty() {
        return Ok(Body::Empty);
    }
    let content_type =
        parts.headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    Ok(Body::Bytes { content_type: content_type.to_owned(), bytes })
}
