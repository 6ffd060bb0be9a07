//! The listener: TLS, HTTP/1.1 and HTTP/2, one [`Call`] a request, one encoded [`Reply`] an answer, and a drain
//! that lets requests end.
//!
//! It knows nothing of kinds, users or storage: what it serves is a function from `Call` to `Reply`.

mod encode;
mod gather;
mod heads;
mod protobuf;
pub mod request;
mod tls;
mod upgrade;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use apimachinery::call::{Body, BoxFuture, Media, Secret, Who};
use apimachinery::{Call, Reply, Status};
use base::io::{AsyncRead, AsyncWrite};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http::{HeaderName, HeaderValue};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

pub use encode::ReplyBody;
pub use tls::{TlsError, TlsFiles, server_config};

/// The largest request body, in bytes (upstream's limit).
pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
/// How much of a body that is refused over HTTP/2 is read all the same, in bytes.
const UNREAD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// All request bodies that are being read, in bytes.
const BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// All request headers together, in bytes: groups and impersonation make them long.
const HEADERS_BYTES_MAX: u32 = 256 * 1024;
/// How long a client may take for its TLS handshake, and for its headers.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
const HEADERS_MAX: Duration = Duration::from_secs(32);
/// How long a client may take for its request's body; upstream's limit for a whole request.
const BODY_MAX: Duration = Duration::from_secs(60);
/// What a client is told to wait when too many bodies are being read, in seconds.
const RETRY_AFTER_SECONDS: u32 = 1;
/// How much is buffered for a client that reads slowly, in bytes, per stream.
const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Streams that one HTTP/2 connection may have open.
const STREAMS_MAX: u32 = 1_000;
/// The header that names a request and its answer.
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// What is served.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle(&self, call: Box<Call>) -> BoxFuture<'_, Reply>;
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

impl Shared {
    fn new(handler: Arc<dyn Handler>, drain: watch::Receiver<bool>) -> Shared {
        Shared {
            handler,
            bodies: Semaphore::new(BODIES_BYTES_MAX),
            connections: AtomicUsize::new(0),
            drain,
            idle: watch::channel(0).0,
        }
    }
}

impl Server {
    /// Serves `handler` on a listener that is bound already; `drain` turning true begins the end.
    pub fn new(
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        handler: Arc<dyn Handler>,
        drain: watch::Receiver<bool>,
    ) -> Server {
        let shared = Arc::new(Shared::new(handler, drain));
        Server { listener, tls: TlsAcceptor::from(tls), shared }
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
        let open = Open::new(&shared);
        base::task::spawn(async move {
            if let Err(err) = serve(stream, peer, tls, &shared).await {
                tracing::debug!(%peer, %err, "connection ended");
            }
            drop(open);
        })
        .detach();
    }
}

/// Something open that a drain waits for.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: &Arc<Shared>) -> Open {
        shared.idle.send_replace(shared.connections.fetch_add(1, Ordering::Relaxed) + 1);
        Open(Arc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.idle.send_replace(self.0.connections.fetch_sub(1, Ordering::Relaxed) - 1);
    }
}

/// Until the drain begins; a server that nobody can drain any more drains too.
async fn begun(drain: &mut watch::Receiver<bool>) {
    drop(drain.wait_for(|begun| *begun).await);
}

/// Watches end where the drain begins: their clients go on elsewhere, or here after a restart.
fn until_drain(reply: Reply, drain: &watch::Receiver<bool>) -> Reply {
    match reply {
        Reply::Watch(mut watch) => {
            let (mut events, mut drain) = (watch.events, drain.clone());
            let mut ends = Box::pin(async move { begun(&mut drain).await });
            // Asked only where nothing is to be told: there are moments between any two events.
            watch.events = Box::pin(stream::poll_fn(move |cx| match events.poll_next_unpin(cx) {
                Poll::Pending => ends.as_mut().poll(cx).map(|()| None),
                told => told,
            }));
            Reply::Watch(watch)
        }
        other => other,
    }
}

fn passing(err: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(err.kind(), ConnectionAborted | ConnectionReset | Interrupted)
        || matches!(err.raw_os_error(), Some(23 | 24)) // ENFILE, EMFILE
}

/// Why a connection ended.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

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
    let certificates: Arc<[Bytes]> = certificates.iter().map(|c| Bytes::copy_from_slice(c)).collect();
    let http2 = session.alpn_protocol() == Some(b"h2");
    let from = Arc::new(Peer { address: peer.ip(), certificates });
    speak(stream, http2, from, shared).await
}

/// Serves `handler` on one connection in the clear, as the listener does behind TLS: for whoever throws bytes at it
/// in virtual time, where there are no sockets.
///
/// # Errors
/// When the connection breaks, or what comes over it is no HTTP/1.1.
pub async fn serve_plain(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    handler: Arc<dyn Handler>,
) -> Result<(), Error> {
    let (_never, drain) = watch::channel(false);
    let certificates = Arc::default();
    let from = Arc::new(Peer { address: IpAddr::from([127, 0, 0, 1]), certificates });
    speak(stream, false, from, &Arc::new(Shared::new(handler, drain))).await
}

/// HTTP on one connection, until it ends.
async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    http2: bool,
    from: Arc<Peer>,
    shared: &Arc<Shared>,
) -> Result<(), Error> {
    let service = {
        let shared = Arc::clone(shared);
        hyper::service::service_fn(move |request| {
            // A panic while the request is read is as much its own end as one while it is answered.
            let answer = base::task::contain_now(|| answer(request, &from, &shared));
            async move {
                let answer = match answer {
                    Ok(answer) => answer.await,
                    Err(panicked) => Err(panicked),
                };
                answer.or_else(|_| {
                    let fault = Reply::Status(crate::filters::record::faulty());
                    Ok::<_, Infallible>(encode::reply(fault, encode::Form::default(), None))
                })
            }
        })
    };
    let mut drain = shared.drain.clone();
    if http2 {
        let stream = gather::Gather::new(stream);
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
        let connection = builder.serve_connection(TokioIo::new(stream.clone()), service);
        let mut connection = std::pin::pin!(connection);
        base::select! {
            done = driven(connection.as_mut(), &stream) => return done,
            () = begun(&mut drain) => connection.as_mut().graceful_shutdown(),
        }
        return driven(connection, &stream).await;
    }
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(heads::Heads::new(HEADERS_MAX))
        .header_read_timeout(HEADERS_MAX)
        .max_buf_size(HEADERS_BYTES_MAX as usize);
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    base::select! {
        done = connection.as_mut() => return Ok(done?),
        () = begun(&mut drain) => connection.as_mut().graceful_shutdown(),
    }
    Ok(connection.await?)
}

/// Lets a connection do what it can and then sends what it has written, until it ends.
async fn driven<E: Into<Error>>(
    mut connection: Pin<&mut impl Future<Output = Result<(), E>>>,
    stream: &gather::Gather<impl AsyncWrite + Unpin>,
) -> Result<(), Error> {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if let Poll::Ready(done) = connection.as_mut().poll(cx) {
            return Poll::Ready(done.map_err(Into::into));
        }
        // Others that answer over this connection are perhaps about to write: they have a turn first.
        yielded = !yielded && stream.has_room();
        if yielded {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match stream.send(cx) {
            Poll::Ready(Err(broken)) => Poll::Ready(Err(broken.into())),
            _ => Poll::Pending,
        }
    })
    .await
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
    certificates: Arc<[Bytes]>,
}

/// Begins to answer. What is returned is moved about by hyper: all that it needs is put together before it is boxed.
fn answer(
    request: http::Request<Incoming>,
    peer: &Peer,
    shared: &Arc<Shared>,
) -> BoxFuture<'static, Result<http::Response<ReplyBody>, base::task::Panicked>> {
    let (mut parts, body) = request.into_parts();
    let upgrade = upgrade::pending(&mut parts, shared);
    let mut form = encode::Form { pretty: request::wants_pretty(&parts), ..encode::Form::default() };
    let head = parts.method == http::Method::HEAD;
    let mut call = Box::new(request::call(&parts));
    form.media = call.accept.media;
    form.json = form.media == Media::Json || request::takes_json(&parts, &call.accept);
    call.who = Who::Presented { certificates: peer.certificates.clone(), bearer: bearer(&parts) };
    call.wire.peer = Some(peer.address);
    call.wire.audit_id = audit_id(&parts);
    let mut audit_id = HeaderValue::try_from(&call.wire.audit_id);
    // Met once only: HTTP/2 is not to remember it.
    audit_id.iter_mut().for_each(|id| id.set_sensitive(true));
    call.wire.upgrade = upgrade.as_ref().map(upgrade::Pending::asked);
    let body = (!body.is_end_stream()).then(|| Box::new((parts, body)));
    let shared = Arc::clone(shared);
    Box::pin(base::task::contain(async move {
        if let Some(body) = body {
            match Box::pin(read_body(&body.0, body.1, &shared.bodies)).await {
                Ok(body) => call.body = body,
                Err(status) => call.wire.fault = Some(status),
            }
        }
        let reply = until_drain(shared.handler.handle(call).await, &shared.drain);
        let mut response = encode::reply(reply, form, upgrade);
        if let Ok(audit_id) = audit_id {
            response.headers_mut().insert(AUDIT_ID, audit_id);
        }
        if head {
            *response.body_mut() = encode::empty();
        }
        // What has no size yet is still to be made.
        match response.body().size_hint().exact() {
            Some(_) => response,
            None => response.map(|body| Contained(Some(body)).boxed_unsync()),
        }
    }))
}

/// A body whose panic, while a piece of it is made, cuts off its own client and ends nothing else.
struct Contained(Option<ReplyBody>);

impl hyper::body::Body for Contained {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let Some(body) = self.0.as_mut() else { return Poll::Ready(None) };
        match base::task::contain_now(|| Pin::new(body).poll_frame(cx)) {
            Ok(polled) => polled,
            Err(_) => {
                self.0 = None;
                Poll::Ready(Some(Err(std::io::Error::other("a fault in the server ended the answer"))))
            }
        }
    }
}

/// What the request is called in audit: as the client says, else anew.
fn audit_id(parts: &http::request::Parts) -> String {
    let given = parts.headers.get(AUDIT_ID).and_then(|value| value.to_str().ok());
    given.filter(|id| !id.is_empty()).map_or_else(base::rand::uuid, str::to_owned)
}

fn bearer(parts: &http::request::Parts) -> Option<Secret> {
    let value = parts.headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty())
        .then(|| Secret(token.trim().to_owned()))
}

async fn read_body<B>(parts: &http::request::Parts, body: B, bodies: &Semaphore) -> Result<Body, Status>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let announced = body.size_hint().lower();
    let mut body = std::pin::pin!(body);
    let read = async {
        let bytes = match announced > BODY_BYTES_MAX as u64 {
            true => Err(too_large()),
            false => collect(body.as_mut(), bodies).await,
        };
        // There are clients that miss the answer when their stream is reset while they send.
        let mut more = if parts.version == http::Version::HTTP_2 { UNREAD_BYTES_MAX } else { 0 };
        while bytes.is_err() && more > 0 {
            let Some(Ok(frame)) = body.frame().await else { break };
            more = more.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        }
        bytes
    };
    let bytes = match base::time::timeout(BODY_MAX, read).await {
        Ok(bytes) => bytes?,
        Err(_) => return Err(Status::timeout("the request's body did not arrive in time")),
    };
    if bytes.is_empty() {
        return Ok(Body::Empty);
    }
    let content_type =
        parts.headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    Ok(Body::Bytes { content_type: content_type.to_owned(), bytes })
}

fn too_large() -> Status {
    Status::too_large(format!("limit is {BODY_BYTES_MAX}"))
}

/// A body's bytes. What has arrived counts, not what was announced: who sends nothing keeps nobody waiting.
async fn collect<B>(mut body: Pin<&mut B>, bodies: &Semaphore) -> Result<Bytes, Status>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let mut shares = Vec::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let unread = |err| Status::bad_request(format!("unable to read the request body: {err}"));
        let Ok(data) = frame.map_err(unread)?.into_data() else { continue };
        if all.len() + data.len() > BODY_BYTES_MAX {
            return Err(too_large());
        }
        let share = u32::try_from(data.len()).map_err(|_| too_large())?;
        let share = bodies.try_acquire_many(share).map_err(|_| {
            Status::too_many_requests("Too many requests, please try again later.", RETRY_AFTER_SECONDS)
        })?;
        shares.push(share);
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use http_body_util::StreamBody;

    use super::*;

    #[test]
    fn a_body_that_never_comes_holds_nothing_and_ends() {
        base::sim::run(1, async {
            let bodies = Semaphore::new(10);
            let parts = http::Request::builder().body(()).expect("a request").into_parts().0;
            let body = |pieces: &[&'static str], ends: bool| {
                let pieces: Vec<_> = pieces
                    .iter()
                    .map(|p| Ok::<_, Infallible>(Frame::data(Bytes::from_static(p.as_bytes()))))
                    .collect();
                let rest = if ends {
                    futures_util::stream::empty().left_stream()
                } else {
                    futures_util::stream::pending().right_stream()
                };
                StreamBody::new(futures_util::stream::iter(pieces).chain(rest))
            };
            let stuck = read_body(&parts, body(&["abc"], false), &bodies);
            let mut stuck = std::pin::pin!(stuck);
            base::select! {
                _ = stuck.as_mut() => panic!("it never ends"),
                read = read_body(&parts, body(&["1234567"], true), &bodies) => {
                    assert!(matches!(read, Ok(Body::Bytes { bytes, .. }) if bytes == "1234567"));
                },
            }
            let much = read_body(&parts, body(&["1234", "5678"], true), &bodies).await;
            assert_eq!(much.expect_err("no room").code, 429);
            assert_eq!(stuck.await.expect_err("too slow").code, 504);
            assert_eq!(bodies.available_permits(), 10);
        });
    }

    #[test]
    fn what_is_refused_over_http2_is_read_on_up_to_a_bound() {
        base::sim::run(3, async {
            let bodies = Semaphore::new(BODIES_BYTES_MAX);
            let piece = Bytes::from(vec![b' '; 1 << 20]);
            for (version, pieces, read_to) in [
                (http::Version::HTTP_11, 5, 4),
                (http::Version::HTTP_2, 5, 5),
                (http::Version::HTTP_2, 99, 20),
            ] {
                let parts =
                    http::Request::builder().version(version).body(()).expect("a request").into_parts().0;
                let taken = AtomicUsize::new(0);
                let body = futures_util::stream::iter(0..pieces).map(|_| {
                    taken.fetch_add(1, Ordering::Relaxed);
                    Ok::<_, Infallible>(Frame::data(piece.clone()))
                });
                let refused = read_body(&parts, StreamBody::new(body), &bodies).await.expect_err("too long");
                assert_eq!((refused.code, taken.into_inner()), (413, read_to), "{version:?} {pieces}");
            }
        });
    }

    #[test]
    fn a_panic_in_a_stream_ends_that_stream() {
        base::sim::run(2, async {
            let pieces = futures_util::stream::iter(0..3).map(|i| {
                assert!(i < 1, "on purpose");
                Ok(Frame::data(Bytes::from_static(b"piece")))
            });
            let mut body = Contained(Some(StreamBody::new(pieces).boxed_unsync()));
            let first = body.frame().await.expect("a piece").expect("no fault");
            assert_eq!(first.into_data().expect("data"), "piece");
            body.frame().await.expect("the fault").expect_err("the fault");
            assert!(body.frame().await.is_none());
        });
    }
}
