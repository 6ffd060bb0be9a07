//! The way from the API server to its nodes' kubelets: connections that the nodes open themselves.
//!
//! A node upgrades `GET /keelson/v1/nodes/<name>/tunnel`; from then on the API server is an HTTP/2 client on that
//! connection, and the kubelet serves. So nodes need no open port, and logs and exec work through any NAT.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use apimachinery::call::{BoxFuture, ByteStream, UpgradeReply};
use base::hash::Map;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::server::Spawn;

/// The protocol's name in the upgrade.
pub const PROTOCOL: &str = "keelson-tunnel";
/// A tunnel that has not answered a ping for this long is dropped.
const PING_EVERY: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

type Sender = SendRequest<Full<Bytes>>;

/// Why a kubelet could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The node has no open tunnel.
    #[error("node {0:?} is not connected to this API server")]
    NotConnected(String),
    /// The request did not get through.
    #[error("ask the kubelet of node {node:?}")]
    Request {
        /// Which node.
        node: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
}

/// The open tunnels, by node.
#[derive(Clone, Default)]
pub struct Tunnels {
    open: Arc<Mutex<Map<String, Sender>>>,
}

impl Tunnels {
    /// Takes a connection over for `node`, whose identity the caller has checked. A newer tunnel replaces an
    /// older one.
    pub fn accept(&self, node: &str) -> Box<dyn UpgradeReply> {
        Box::new(Accepted { tunnels: self.clone(), node: node.to_owned() })
    }

    /// Asks the node's kubelet. The URI needs path and query only.
    ///
    /// # Errors
    /// [`TunnelError`] when there is no tunnel or it breaks.
    pub async fn request(
        &self,
        node: &str,
        request: http::Request<Full<Bytes>>,
    ) -> Result<http::Response<Incoming>, TunnelError> {
        let sender = self.open.lock().expect("nobody panics holding it").get(node).cloned();
        let mut sender = sender.ok_or_else(|| TunnelError::NotConnected(node.to_owned()))?;
        let failed = |source| TunnelError::Request { node: node.to_owned(), source };
        sender.ready().await.map_err(failed)?;
        sender.send_request(request).await.map_err(failed)
    }

    async fn serve(self, node: String, stream: Box<dyn ByteStream>) {
        let handshake = http2::Builder::new(Spawn)
            .timer(TokioTimer::new())
            .keep_alive_interval(Some(PING_EVERY))
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await;
        let (sender, connection) = match handshake {
            Ok(both) => both,
            Err(err) => {
                tracing::warn!(%node, %err, "open tunnel");
                return;
            }
        };
        self.open.lock().expect("nobody panics holding it").insert(node.clone(), sender.clone());
        tracing::debug!(%node, "tunnel open");
        if let Err(err) = connection.await {
            tracing::debug!(%node, %err, "tunnel broke");
        }
        let mut open = self.open.lock().expect("nobody panics holding it");
        // A newer tunnel of the same node may have taken the place meanwhile.
        if open.get(&node).is_some_and(SendRequest::is_closed) {
            open.remove(&node);
        }
    }
}

struct Accepted {
    tunnels: Tunnels,
    node: String,
}

impl UpgradeReply for Accepted {
    fn headers(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// What travels on it ends; the node keeps it open for ever.
    fn ends(&self) -> bool {
        false
    }

    fn run(self: Box<Self>, stream: Box<dyn ByteStream>) -> BoxFuture<'static, ()> {
        Box::pin(self.tunnels.serve(self.node, stream))
    }
}
