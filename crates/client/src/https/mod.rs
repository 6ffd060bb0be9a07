//! The API over HTTPS: HTTP/2 where the server speaks it (one connection for everything), else HTTP/1.1, over TLS with a
//! client certificate or a bearer token.
//!
//! It looks up no names: servers are named by address, or `localhost`. It does not retry refusals; a request that could
//! not be sent on a connection that had died is sent once more on a new one.
//! Upstream: client-go rest and transport.

mod ahead;
mod connect;
mod encode;
mod kubeconfig;
mod reply;
mod scan;
mod trusting;

use std::sync::Arc;
use std::time::Duration;

use apimachinery::Transport;
use apimachinery::call::{BoxFuture, ByteStream, Call, Reply, TransportError};
use http_body_util::Full;
use hyper::Request;

pub use connect::{Dialer, Stream};
pub use kubeconfig::{Kubeconfig, KubeconfigError, TokenSource};
pub use trusting::trusting;

use connect::Connector;

/// How long a pod's token is used before its file is read again.
const TOKEN_AGE_MAX: Duration = Duration::from_secs(60);
const USER_AGENT: &str = concat!("keelson/", env!("CARGO_PKG_VERSION"));

/// The API over HTTPS. Clones share connections.
#[derive(Clone)]
pub struct HttpsTransport {
    inner: Arc<Inner>,
}

struct Inner {
    connector: Connector,
    token: Option<TokenSource>,
    // A file's token and when it was read.
    read: std::sync::Mutex<Option<(String, base::time::Instant)>>,
}

type OutBody = Full<bytes::Bytes>;

impl HttpsTransport {
    /// A transport that connects on first use.
    ///
    /// # Errors
    /// When the address or the certificates make no sense.
    pub fn new(config: &Kubeconfig) -> Result<HttpsTransport, KubeconfigError> {
        let inner = Inner {
            connector: Connector::new(config)?,
            token: config.token.clone(),
            read: std::sync::Mutex::new(None),
        };
        Ok(HttpsTransport { inner: Arc::new(inner) })
    }

    /// Sends a call that takes the connection over (HTTP/1.1 `Upgrade` to `protocol`), on a connection of its own.
    ///
    /// # Errors
    /// When there is no answer; `Ok(Err(reply))` when the server answers something other than 101.
    pub async fn upgrade(
        &self,
        call: Call,
        protocol: &str,
    ) -> Result<Result<Box<dyn ByteStream>, Reply>, TransportError> {
        let mut request = self.request(call)?;
        let upgrade =
            http::HeaderValue::from_str(protocol).map_err(|_| TransportError::Protocol("upgrade"))?;
        request.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("Upgrade"));
        request.headers_mut().insert(http::header::UPGRADE, upgrade);
        let response = self.inner.connector.send_alone(request).await?;
        if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
            return reply::read(response, reply::Want::Object).await.map(Err);
        }
        let stream = hyper::upgrade::on(response).await.map_err(|err| connect::broken("upgrading", err))?;
        Ok(Ok(Box::new(hyper_util::rt::TokioIo::new(stream))))
    }

    fn request(&self, call: Call) -> Result<Request<OutBody>, TransportError> {
        let uri = format!("{}{}", self.inner.connector.base(), encode::uri(&call));
        let mut request = Request::builder()
            .method(encode::method(&call))
            .uri(uri)
            .header(http::header::ACCEPT, encode::accept(&call))
            .header(http::header::USER_AGENT, USER_AGENT);
        for (name, value) in &call.wire.headers {
            request = request.header(name, value);
        }
        if let Some(token) = self.bearer()? {
            request = request.header(http::header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let (content_type, bytes) = encode::body(call.body);
        if let Some(content_type) = content_type {
            request = request.header(http::header::CONTENT_TYPE, content_type);
        }
        request.body(Full::new(bytes)).map_err(|_| TransportError::Protocol("the request cannot be written"))
    }

    fn bearer(&self) -> Result<Option<String>, TransportError> {
        let source = match &self.inner.token {
            None => return Ok(None),
            Some(TokenSource::Fixed(token)) => return Ok(Some(token.0.clone())),
            Some(file) => file,
        };
        let now = base::time::instant();
        let mut read = self.inner.read.lock().expect("no code panics while it holds the token");
        if let Some((token, at)) = &*read
            && now.duration_since(*at) < TOKEN_AGE_MAX
        {
            return Ok(Some(token.clone()));
        }
        let unread = |err| TransportError::Io { context: "reading the token's file".to_owned(), source: err };
        let token = source.read().map_err(unread)?;
        *read = Some((token.clone(), now));
        Ok(Some(token))
    }
}

impl Transport for HttpsTransport {
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Reply, TransportError>> {
        Box::pin(async move {
            let want = reply::Want::of(&call);
            let response = self.inner.connector.send(self.request(call)?).await?;
            reply::read(response, want).await
        })
    }
}
