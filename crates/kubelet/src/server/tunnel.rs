//! The way for the API server to this node: a connection that the node opens itself, on which it then serves HTTP/2.

use std::time::Duration;

use apimachinery::call::{ByteStream, Reply, Target, Verb};
use base::backoff::Backoff;
use client::HttpsTransport;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::Server;

/// The protocol's name in the upgrade.
const PROTOCOL: &str = "keelson-tunnel";
/// The waits between attempts to open it.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(10);
/// A tunnel that lasted this long was no failure.
const HEALTHY: Duration = Duration::from_secs(10);
/// How often a silent tunnel is asked whether it lives, and how long it may take to answer.
const PING_EVERY: Duration = Duration::from_secs(15);
const PING_MAX: Duration = Duration::from_secs(10);

/// Starts what hyper wants to run beside a connection.
#[derive(Clone, Copy)]
struct Spawn;

impl<F> hyper::rt::Executor<F> for Spawn
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        base::task::spawn(future).detach();
    }
}

/// Keeps a tunnel to the API server open, for ever.
pub async fn keep(transport: HttpsTransport, node: &str, server: Server) {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST).with_jitter(0.2);
    loop {
        let target = Target::Path(format!("/keelson/v1/nodes/{node}/tunnel"));
        let mut call = client::api::empty_call(Verb::Get, target);
        "GET".clone_into(&mut call.wire.method);
        let opened = base::time::instant();
        match transport.upgrade(call, PROTOCOL).await {
            Ok(Ok(stream)) => {
                tracing::debug!("tunnel to the API server open");
                serve(stream, server.clone()).await;
                if opened.elapsed() > HEALTHY {
                    backoff.reset();
                }
            }
            Ok(Err(Reply::Status(status))) => {
                tracing::warn!(error = %status, "the API server refused the tunnel")
            }
            Ok(Err(_)) => tracing::warn!("the API server answered the tunnel with something else"),
            Err(err) => tracing::debug!(error = %err, "tunnel to the API server not opened"),
        }
        base::time::sleep(backoff.next_wait()).await;
    }
}

async fn serve(stream: Box<dyn ByteStream>, server: Server) {
    let answer = service_fn(move |request| {
        let server = server.clone();
        async move { server.handle(request).await }
    });
    let served = http2::Builder::new(Spawn)
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(PING_EVERY))
        .keep_alive_timeout(PING_MAX)
        .enable_connect_protocol()
        .serve_connection(TokioIo::new(stream), answer)
        .await;
    if let Err(err) = served {
        tracing::debug!(error = %err, "tunnel to the API server broke");
    }
}
