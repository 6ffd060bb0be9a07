//! Connections to etcd's members: one at a time, the next one when it fails, and what each failure says about whether
//! the request was carried out.
//!
//! It knows gRPC and TLS, and no message.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base::pem;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};
use http::uri::{PathAndQuery, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tonic::client::{Grpc, GrpcService};
use tonic::{Code, Status};

/// How long connecting to one member may take, TLS included.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// How long a member may take to answer; its own limit is 7 seconds.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long to look for a member that can answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often a silent connection is asked whether it lives, and how long it may take to answer: upstream's.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_MAX: Duration = Duration::from_secs(10);
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Without a leader, members refuse what says this, instead of letting it wait.
const REQUIRE_LEADER: (&str, &str) = ("hasleader", "true");

/// Where etcd is and how to speak to it.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The members' client addresses, such as `https://10.0.0.1:2379`; asked in this order.
    pub endpoints: Vec<String>,
    /// The authority that signed the members' certificates, PEM; needed for https.
    pub ca: Option<PathBuf>,
    /// Our certificate, PEM.
    pub certificate: Option<PathBuf>,
    /// Its key, PEM.
    pub key: Option<PathBuf>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is nobody to ask.
    #[error("no etcd server is given")]
    NoEndpoints,
    /// An address is none.
    #[error("etcd server {0:?} is not like https://10.0.0.1:2379")]
    Endpoint(String),
    /// TLS without an authority would trust anyone.
    #[error("etcd server {0:?} speaks TLS: the file of its certificate authority is needed")]
    NoAuthority(String),
    /// One half of a pair.
    #[error("etcd's client certificate and its key go together: give both files or none")]
    HalfPair,
    /// A file gives no certificate or key.
    #[error(transparent)]
    Pem(#[from] pem::PemError),
    /// Certificate and key do not fit, or the like.
    #[error("TLS to etcd")]
    Tls(#[from] rustls::Error),
}

struct Endpoint {
    uri: Uri,
    host: String,
    port: u16,
    tls: Option<ServerName<'static>>,
}

/// The way to the members.
pub struct Connections {
    endpoints: Vec<Endpoint>,
    tls: Option<Arc<rustls::ClientConfig>>,
    current: tokio::sync::Mutex<Current>,
}

#[derive(Default)]
struct Current {
    /// Which endpoint, counted on over the list's end.
    turn: usize,
    sender: Option<http2::SendRequest<tonic::body::Body>>,
}

/// A connection to one member.
#[derive(Clone)]
pub struct Connection {
    turn: usize,
    sender: http2::SendRequest<tonic::body::Body>,
    grpc: Uri,
}

/// Why a request failed.
#[derive(Debug)]
pub enum Failure {
    /// A member refused it.
    Refused(Status),
    /// It was certainly not carried out, and no member could be reached.
    Unreachable(io::Error),
    /// Nobody can tell whether it was carried out.
    Uncertain(io::Error),
}

/// The request never left this process.
#[derive(Debug, thiserror::Error)]
#[error("the connection had ended")]
struct Unsent;

impl GrpcService<tonic::body::Body> for Connection {
    type ResponseBody = Incoming;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<http::Response<Incoming>, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(cx).map_err(|_| Unsent.into())
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let sent = self.sender.try_send_request(request);
        Box::pin(async move {
            sent.await.map_err(|mut err| match err.take_message() {
                Some(_) => Unsent.into(),
                None => err.into_error().into(),
            })
        })
    }
}

impl Connections {
    /// Reads the configuration; connects to nobody yet.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn new(config: &Config) -> Result<Connections, ConfigError> {
        let endpoints: Vec<Endpoint> = config
            .endpoints
            .iter()
            .map(|text| endpoint(text, config.ca.is_some()))
            .collect::<Result<_, _>>()?;
        if endpoints.is_empty() {
            return Err(ConfigError::NoEndpoints);
        }
        let tls = match (&config.ca, endpoints.iter().find(|e| e.tls.is_some())) {
            (_, None) => None,
            (None, Some(e)) => return Err(ConfigError::NoAuthority(e.uri.to_string())),
            (Some(ca), Some(_)) => Some(Arc::new(tls(ca, config)?)),
        };
        Ok(Connections { endpoints, tls, current: Default::default() })
    }

    /// Waits until a member can be spoken to, for as long as `patience`.
    ///
    /// # Errors
    /// The failure of each member.
    pub async fn wait(&self, patience: Duration) -> io::Result<()> {
        let deadline = base::time::instant() + patience;
        let mut back_off = back_off();
        while let Err(error) = self.get().await {
            if base::time::instant() >= deadline {
                return Err(error);
            }
            tracing::warn!(%error, "waiting for etcd");
            base::time::sleep(back_off.next_wait()).await;
        }
        Ok(())
    }

    /// Asks one question. `repeatable` says that it does no harm to ask it twice.
    ///
    /// # Errors
    /// [`Failure`]; of what is repeatable never [`Failure::Uncertain`].
    pub async fn unary<Q, A>(&self, path: &'static str, question: &Q, repeatable: bool) -> Result<A, Failure>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Default + 'static,
    {
        let deadline = base::time::instant() + PATIENCE;
        let mut back_off = back_off();
        loop {
            let connection = self.get().await.map_err(Failure::Unreachable);
            let failure = match connection {
                Err(failure) => failure,
                Ok(connection) => {
                    let codec = tonic_prost::ProstCodec::<Q, A>::default();
                    let mut grpc = grpc(&connection);
                    let answer = async {
                        grpc.ready().await.map_err(Status::from_error)?;
                        grpc.unary(request(question.clone()), PathAndQuery::from_static(path), codec).await
                    };
                    let answer = base::time::timeout(ANSWER_MAX, answer).await;
                    match answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer came"))) {
                        Ok(answer) => return Ok(answer.into_inner()),
                        Err(status) => match judge(status, repeatable) {
                            refused @ Failure::Refused(_) => return Err(refused),
                            failure => {
                                self.failed(connection.turn).await;
                                failure
                            }
                        },
                    }
                }
            };
            if matches!(failure, Failure::Uncertain(_)) || base::time::instant() >= deadline {
                return Err(failure);
            }
            base::time::sleep(back_off.next_wait()).await;
        }
    }

    /// Asks a question that has many answers.
    ///
    /// # Errors
    /// [`Failure`]; never [`Failure::Uncertain`].
    pub async fn stream<Q, A>(
        &self,
        path: &'static str,
        question: Q,
    ) -> Result<(usize, tonic::Streaming<A>), Failure>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let connection = self.get().await.map_err(Failure::Unreachable)?;
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        let mut grpc = grpc(&connection);
        // It ends when we drop the answers.
        let questions = stream::iter([question]).chain(stream::pending());
        let answer = async {
            grpc.ready().await.map_err(Status::from_error)?;
            grpc.streaming(request(questions), PathAndQuery::from_static(path), codec).await
        };
        let answer = base::time::timeout(ANSWER_MAX, answer).await;
        match answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer came"))) {
            Ok(answers) => Ok((connection.turn, answers.into_inner())),
            Err(status) => {
                self.failed(connection.turn).await;
                Err(judge(status, true))
            }
        }
    }

    /// Gives up the connection of this turn: the next question goes to the next member.
    pub async fn failed(&self, turn: usize) {
        let mut current = self.current.lock().await;
        if current.turn == turn {
            *current = Current { turn: turn + 1, sender: None };
        }
    }

    async fn get(&self) -> io::Result<Connection> {
        let mut current = self.current.lock().await;
        if let Some(sender) = current.sender.as_ref().filter(|s| !s.is_closed()) {
            let grpc = self.endpoints[current.turn % self.endpoints.len()].uri.clone();
            return Ok(Connection { turn: current.turn, sender: sender.clone(), grpc });
        }
        let mut failures = String::new();
        for _ in 0..self.endpoints.len() {
            let endpoint = &self.endpoints[current.turn % self.endpoints.len()];
            match self.connect(endpoint).await {
                Ok(sender) => {
                    current.sender = Some(sender.clone());
                    return Ok(Connection { turn: current.turn, sender, grpc: endpoint.uri.clone() });
                }
                Err(err) => failures += &format!("; {}: {err}", endpoint.uri),
            }
            *current = Current { turn: current.turn + 1, sender: None };
        }
        Err(io::Error::other(failures.trim_start_matches("; ").to_owned()))
    }

    async fn connect(&self, endpoint: &Endpoint) -> io::Result<http2::SendRequest<tonic::body::Body>> {
        let connect = async {
            let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
            tcp.set_nodelay(true)?;
            match (&endpoint.tls, &self.tls) {
                (Some(name), Some(config)) => {
                    let tls = tokio_rustls::TlsConnector::from(config.clone());
                    greet(tls.connect(name.clone(), tcp).await?).await
                }
                _ => greet(tcp).await,
            }
        };
        base::time::timeout(CONNECT_MAX, connect)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// The waits between attempts.
pub fn back_off() -> base::backoff::Backoff {
    base::backoff::Backoff::new(Duration::from_millis(20), Duration::from_secs(1)).with_jitter(0.5)
}

fn grpc(connection: &Connection) -> Grpc<Connection> {
    Grpc::with_origin(connection.clone(), connection.grpc.clone())
        .max_decoding_message_size(i32::MAX as usize)
}

fn request<T>(content: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(content);
    let (key, value) = REQUIRE_LEADER;
    request.metadata_mut().insert(key, tonic::metadata::MetadataValue::from_static(value));
    request
}

/// What a failure says of the request's fate.
fn judge(status: Status, repeatable: bool) -> Failure {
    let unsent = std::error::Error::source(&status).is_some_and(|source| source.is::<Unsent>());
    // Members say so before they take a request up.
    let untouched = unsent || status.message() == "etcdserver: no leader";
    let passing = matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal
    );
    match (untouched, passing) {
        (false, false) => Failure::Refused(status),
        (false, true) if !repeatable => Failure::Uncertain(io::Error::other(status)),
        _ => Failure::Unreachable(io::Error::other(status)),
    }
}

async fn greet(
    io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
) -> io::Result<http2::SendRequest<tonic::body::Body>> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .handshake(TokioIo::new(io))
        .await
        .map_err(io::Error::other)?;
    base::task::spawn(async {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to etcd ended");
        }
    })
    .detach();
    Ok(sender)
}

fn endpoint(text: &str, tls: bool) -> Result<Endpoint, ConfigError> {
    let wrong = || ConfigError::Endpoint(text.to_owned());
    let scheme = if tls { "https" } else { "http" };
    let whole = if text.contains("://") { text.to_owned() } else { format!("{scheme}://{text}") };
    let uri: Uri = whole.trim_end_matches('/').parse().map_err(|_| wrong())?;
    let host = uri
        .host()
        .filter(|host| !host.is_empty())
        .ok_or_else(wrong)?
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let tls = match uri.scheme_str() {
        Some("https") => Some(ServerName::try_from(host.clone()).map_err(|_| wrong())?),
        Some("http") => None,
        _ => return Err(wrong()),
    };
    let plain = uri.path_and_query().is_none_or(|p| p == "/");
    let port = uri.port_u16().filter(|_| plain).ok_or_else(wrong)?;
    Ok(Endpoint { uri, host, port, tls })
}

fn tls(ca: &Path, config: &Config) -> Result<rustls::ClientConfig, ConfigError> {
    let mut roots = rustls::RootCertStore::empty();
    for authority in pem::certificates(ca)? {
        roots.add(authority)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut out = match (&config.certificate, &config.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(chain), Some(key)) => {
            builder.with_client_auth_cert(pem::certificates(chain)?, pem::key(key)?)?
        }
        _ => return Err(ConfigError::HalfPair),
    };
    out.alpn_protocols = vec![b"h2".to_vec()];
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls_or_host_and_port() {
        let read = |text, tls| endpoint(text, tls).map(|e| (e.uri.to_string(), e.port, e.tls.is_some()));
        assert_eq!(
            read("10.0.0.1:2379", false).expect("plain"),
            ("http://10.0.0.1:2379/".into(), 2379, false)
        );
        assert_eq!(read("etcd-0:2379", true).expect("with TLS"), ("https://etcd-0:2379/".into(), 2379, true));
        assert_eq!(
            read("https://[::1]:2379/", false).expect("a URL"),
            ("https://[::1]:2379/".into(), 2379, true)
        );
        for wrong in ["", "etcd", "unix:///run/etcd", "http://etcd:2379/path", "http://:2379"] {
            assert!(endpoint(wrong, false).is_err(), "{wrong}");
        }
    }
}
