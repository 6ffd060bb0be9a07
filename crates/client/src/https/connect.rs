//! Connections: TCP, TLS, HTTP/2 or a few HTTP/1.1 ones; made on demand, used again, replaced when they die.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apimachinery::call::TransportError;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::OutBody;
use super::ahead::Ahead;
use super::kubeconfig::{Kubeconfig, KubeconfigError};

/// A connection.
pub type Stream = TlsStream<Ahead<TcpStream>>;

/// How long connecting may take, TLS included.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How often a silent HTTP/2 connection is asked whether it lives, and how long it may take to answer.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_MAX: Duration = Duration::from_secs(15);
/// Unused HTTP/1.1 connections that are kept.
const IDLE_MAX: usize = 4;

/// Makes TLS connections to one server, for whoever speaks HTTP on them itself.
pub struct Dialer {
    address: SocketAddr,
    name: ServerName<'static>,
    base: String,
    any: Arc<rustls::ClientConfig>,
    http1: Arc<rustls::ClientConfig>,
}

/// Makes and keeps connections to one server.
pub struct Connector {
    dialer: Dialer,
    multiplexed: tokio::sync::Mutex<Option<http2::SendRequest<OutBody>>>,
    idle: Mutex<Vec<http1::SendRequest<OutBody>>>,
}

enum Connection {
    Http2(http2::SendRequest<OutBody>),
    Http1(http1::SendRequest<OutBody>),
}

impl Dialer {
    /// Reads address and certificates.
    ///
    /// # Errors
    /// When they make no sense.
    pub fn new(config: &Kubeconfig) -> Result<Dialer, KubeconfigError> {
        let (address, name) = address(&config.server)?;
        let name = match &config.tls_server_name {
            Some(name) => ServerName::try_from(name.clone()).map_err(|e| tls("tls-server-name", e))?,
            None => name,
        };
        let http1 = client_config(config)?;
        let mut any = http1.clone();
        any.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let base = config.server.trim_end_matches('/').to_owned();
        Ok(Dialer { address, name, base, any: Arc::new(any), http1: Arc::new(http1) })
    }

    /// `https://host:port`
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A connection on which HTTP/2 was agreed upon if `http2` is wanted and the server speaks it, else HTTP/1.1.
    ///
    /// # Errors
    /// When the server cannot be reached in time, or is not the one that was meant.
    pub async fn dial(&self, http2: bool) -> Result<Stream, TransportError> {
        let failed = |source| TransportError::Io { context: format!("connecting to {}", self.base), source };
        let config = if http2 { self.any.clone() } else { self.http1.clone() };
        let connect = async {
            let tcp = TcpStream::connect(self.address).await?;
            tcp.set_nodelay(true)?;
            tokio_rustls::TlsConnector::from(config).connect(self.name.clone(), Ahead::new(tcp)).await
        };
        match base::time::timeout(CONNECT_MAX, connect).await {
            Ok(stream) => stream.map_err(failed),
            Err(_) => Err(failed(std::io::ErrorKind::TimedOut.into())),
        }
    }
}

impl Connector {
    /// Reads address and certificates.
    pub fn new(config: &Kubeconfig) -> Result<Connector, KubeconfigError> {
        Ok(Connector {
            dialer: Dialer::new(config)?,
            multiplexed: tokio::sync::Mutex::new(None),
            idle: Mutex::new(Vec::new()),
        })
    }

    /// `https://host:port`
    pub fn base(&self) -> &str {
        self.dialer.base()
    }

    /// Sends a request, on a new connection when the one at hand turns out to be dead before the request left.
    pub async fn send(&self, request: Request<OutBody>) -> Result<Response<Incoming>, TransportError> {
        let mut request = request;
        for last in [false, true] {
            let (unsent, err) = match self.connection().await? {
                Connection::Http2(mut sender) => {
                    match sender.try_send_request(self.absolute(request)).await {
                        Ok(response) => return Ok(response),
                        Err(mut err) => (err.take_message(), err.into_error()),
                    }
                }
                Connection::Http1(mut sender) => match sender.try_send_request(origin_form(request)).await {
                    Ok(response) => {
                        self.keep(sender);
                        return Ok(response);
                    }
                    Err(mut err) => (err.take_message(), err.into_error()),
                },
            };
            match unsent {
                Some(back) if !last => request = back,
                _ => return Err(broken("sending the request", err)),
            }
        }
        unreachable!("the second round returns")
    }

    /// Sends a request on an HTTP/1.1 connection of its own, which it may take over.
    pub async fn send_alone(&self, request: Request<OutBody>) -> Result<Response<Incoming>, TransportError> {
        let mut sender = handshake1(self.dialer.dial(false).await?).await?;
        sender.send_request(origin_form(request)).await.map_err(|err| broken("sending the request", err))
    }

    /// HTTP/2 wants scheme and authority, which a request that was meant for HTTP/1.1 has lost.
    fn absolute(&self, mut request: Request<OutBody>) -> Request<OutBody> {
        if request.uri().scheme().is_none()
            && let Ok(uri) = format!("{}{}", self.base(), request.uri()).parse()
        {
            *request.uri_mut() = uri;
            request.headers_mut().remove(http::header::HOST);
        }
        request
    }

    async fn connection(&self) -> Result<Connection, TransportError> {
        while let Some(mut sender) = self.pop_idle() {
            if sender.ready().await.is_ok() {
                return Ok(Connection::Http1(sender));
            }
        }
        // Held while connecting, so that many callers at once share one connection.
        let mut multiplexed = self.multiplexed.lock().await;
        if let Some(sender) = multiplexed.as_ref().filter(|s| !s.is_closed()) {
            return Ok(Connection::Http2(sender.clone()));
        }
        let stream = self.dialer.dial(true).await?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return handshake1(stream).await.map(Connection::Http1);
        }
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|err| broken("greeting the server", err))?;
        run(connection);
        *multiplexed = Some(sender.clone());
        Ok(Connection::Http2(sender))
    }

    fn pop_idle(&self) -> Option<http1::SendRequest<OutBody>> {
        let mut idle = self.idle.lock().expect("no code panics while it holds the pool");
        idle.iter()
            .position(|s| s.is_ready() || s.is_closed())
            .map(|i| idle.swap_remove(i))
            .filter(|s| !s.is_closed())
    }

    fn keep(&self, sender: http1::SendRequest<OutBody>) {
        let mut idle = self.idle.lock().expect("no code panics while it holds the pool");
        idle.retain(|s| !s.is_closed());
        if idle.len() < IDLE_MAX {
            idle.push(sender);
        }
    }
}

async fn handshake1(stream: Stream) -> Result<http1::SendRequest<OutBody>, TransportError> {
    let greeted = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = greeted.map_err(|err| broken("greeting the server", err))?;
    run(connection.with_upgrades());
    Ok(sender)
}

fn run(connection: impl Future<Output = Result<(), hyper::Error>> + Send + 'static) {
    base::task::spawn(async {
        if let Err(err) = connection.await {
            tracing::debug!(error = %err, "connection to the API server ended");
        }
    })
    .detach();
}

/// HTTP/1.1 servers want a path, and the host beside it.
fn origin_form(mut request: Request<OutBody>) -> Request<OutBody> {
    let host = request.uri().authority().and_then(|a| http::HeaderValue::from_str(a.as_str()).ok());
    if let Some(host) = host {
        request.headers_mut().insert(http::header::HOST, host);
    }
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = path.into();
    }
    request
}

/// An HTTP failure as a transport's.
pub fn broken(doing: &str, err: hyper::Error) -> TransportError {
    TransportError::Io { context: doing.to_owned(), source: std::io::Error::other(err) }
}

fn tls(what: &'static str, err: impl std::fmt::Display) -> KubeconfigError {
    KubeconfigError::Tls { what, why: err.to_string() }
}

fn address(server: &str) -> Result<(SocketAddr, ServerName<'static>), KubeconfigError> {
    let wrong = || KubeconfigError::Server(server.to_owned());
    let uri: http::Uri = server.parse().map_err(|_| wrong())?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("https")).ok_or_else(wrong)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(443);
    if host == "localhost" {
        let name = ServerName::try_from("localhost").map_err(|_| wrong())?;
        return Ok((SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), name));
    }
    let ip: IpAddr = host.parse().map_err(|_| KubeconfigError::Tls {
        what: "server",
        why: format!(
            "{host:?} is a name; this client looks no names up: give the server's IP address, or localhost"
        ),
    })?;
    Ok((SocketAddr::new(ip, port), ServerName::IpAddress(ip.into())))
}

fn client_config(config: &Kubeconfig) -> Result<rustls::ClientConfig, KubeconfigError> {
    let mut roots = rustls::RootCertStore::empty();
    for authority in certificates("certificate-authority", &config.certificate_authority)? {
        roots.add(authority).map_err(|e| tls("certificate-authority", e))?;
    }
    if roots.is_empty() {
        return Err(tls("certificate-authority", "there is none, and the system's are not used"));
    }
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    // As Go's clients ask: of two that are safe, the one with less work.
    provider.cipher_suites.sort_by_key(|s| s.suite() != rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| tls("TLS versions", e))?
        .with_root_certificates(roots);
    match &config.client_certificate {
        None => Ok(builder.with_no_client_auth()),
        Some((chain, key)) => {
            let chain = certificates("client-certificate", chain)?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| tls("client-key", e))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| tls("client-certificate", e))
        }
    }
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, KubeconfigError> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|e| tls(what, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_addresses_or_localhost() {
        let of = |s: &str| address(s).map(|(a, _)| a.to_string()).map_err(|e| e.to_string());
        assert_eq!(of("https://10.0.0.1").as_deref(), Ok("10.0.0.1:443"));
        assert_eq!(of("https://[::1]:6443").as_deref(), Ok("[::1]:6443"));
        assert_eq!(of("https://localhost:6443").as_deref(), Ok("127.0.0.1:6443"));
        assert!(of("http://10.0.0.1").is_err());
        assert!(of("https://example.com").unwrap_err().contains("looks no names up"));
    }
}
