//! Probes over the host's network. Upstream: pkg/probe/{http,tcp,grpc}.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::call::BoxFuture;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::doors::{GrpcRequest, HttpAnswer, HttpRequest, Prober};

/// How much of an answer is read.
const BODY_MAX: usize = 10 << 10;
/// `Unimplemented`. Source: gRPC's status codes.
const GRPC_UNIMPLEMENTED: &str = "12";
/// What a health service says of a service; its number is the place. Source: grpc.health.v1.
const HEALTH: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

/// Asks over TCP from the host.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostProber;

impl Prober for HostProber {
    fn http_get(&self, request: HttpRequest, timeout: Duration) -> BoxFuture<'_, Result<HttpAnswer, String>> {
        Box::pin(async move {
            let scheme = if request.tls { "https" } else { "http" };
            let url = format!("{scheme}://{}{}", request.address, request.path);
            match base::time::timeout(timeout, get(request)).await {
                Ok(answer) => answer.map_err(|why| format!("Get {url:?}: {why}")),
                Err(_) => Err(format!(
                    "Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
                )),
            }
        })
    }

    fn tcp(&self, address: SocketAddr, timeout: Duration) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            match base::time::timeout(timeout, connect(address)).await {
                Ok(done) => done.map(drop),
                Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
            }
        })
    }

    fn grpc(&self, request: GrpcRequest, timeout: Duration) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let after = format!("{}s", timeout.as_secs());
            let end = base::time::instant() + timeout;
            let address = request.address;
            let unreached = |why: String| {
                format!("timeout: failed to connect service {:?} within {after}: {why}", address.to_string())
            };
            let stream = match base::time::timeout(timeout, open(address, request.tls, Some(b"h2"))).await {
                Ok(opened) => opened.map_err(unreached)?,
                Err(_) => return Err(unreached("context deadline exceeded".to_owned())),
            };
            let left = end.saturating_duration_since(base::time::instant());
            match base::time::timeout(left, check(stream, &request)).await {
                Ok(answer) => answer,
                Err(_) => Err(format!("timeout: health rpc did not complete within {after}")),
            }
        })
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    TcpStream::connect(address).await.map_err(|err| {
        let why = if err.kind() == std::io::ErrorKind::ConnectionRefused {
            "connect: connection refused".to_owned()
        } else {
            err.to_string()
        };
        format!("dial tcp {address}: {why}")
    })
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection, perhaps with TLS.
async fn open(
    address: SocketAddr,
    tls: bool,
    protocol: Option<&[u8]>,
) -> Result<TokioIo<Box<dyn Stream>>, String> {
    let stream = connect(address).await?;
    if !tls {
        return Ok(TokioIo::new(Box::new(stream)));
    }
    let mut config = client::https::trusting();
    if let Some(protocol) = protocol {
        let own = Arc::make_mut(&mut config);
        own.alpn_protocols = vec![protocol.to_owned()];
    }
    let connector = tokio_rustls::TlsConnector::from(config);
    let stream =
        connector.connect(ServerName::from(address.ip()), stream).await.map_err(|err| err.to_string())?;
    Ok(TokioIo::new(Box::new(stream)))
}

async fn get(request: HttpRequest) -> Result<HttpAnswer, String> {
    let stream = open(request.address, request.tls, None).await?;
    let shake = hyper::client::conn::http1::handshake(stream).await;
    let (mut sender, connection) = shake.map_err(|err| err.to_string())?;
    let _connection = base::task::spawn(async move { drop(connection.await) });
    let mut ask = http::Request::get(&request.path);
    for (name, value) in &request.headers {
        ask = ask.header(name, value);
    }
    let ask = ask.header("Connection", "close").body(Empty::<Bytes>::new()).map_err(|err| err.to_string())?;
    let answer = sender.send_request(ask).await.map_err(|err| err.to_string())?;
    let code = answer.status().as_u16();
    let location = header(answer.headers(), "location");
    Ok(HttpAnswer { code, location, body: start_of(answer.into_body()).await })
}

fn header(headers: &http::HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// As much of a body as is shown.
async fn start_of(mut body: Incoming) -> String {
    let mut out = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        out.extend_from_slice(frame.data_ref().map_or(&[][..], |bytes| bytes));
        if out.len() >= BODY_MAX {
            out.truncate(BODY_MAX);
            break;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// One call of `grpc.health.v1.Health/Check`.
async fn check(stream: TokioIo<Box<dyn Stream>>, request: &GrpcRequest) -> Result<(), String> {
    let failed = |why: String| format!("error: health rpc failed: {why}");
    let shake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await;
    let (mut sender, connection) = shake.map_err(|err| failed(err.to_string()))?;
    let _connection = base::task::spawn(async move { drop(connection.await) });
    let scheme = if request.tls { "https" } else { "http" };
    let ask = http::Request::post(format!("{scheme}://{}/grpc.health.v1.Health/Check", request.address))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.37")
        .body(Full::new(Bytes::from(question(&request.service))))
        .map_err(|err| failed(err.to_string()))?;
    let answer = sender.send_request(ask).await.map_err(|err| failed(err.to_string()))?;
    let mut headers = answer.headers().clone();
    let body = Limited::new(answer.into_body(), BODY_MAX).collect().await;
    let body = body.map_err(|err| failed(err.to_string()))?;
    headers.extend(body.trailers().cloned().unwrap_or_default());
    let (code, message) = (header(&headers, "grpc-status"), header(&headers, "grpc-message"));
    match code.as_str() {
        "0" => {}
        GRPC_UNIMPLEMENTED => {
            return Err(format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
            ));
        }
        _ => return Err(failed(format!("rpc error: code = {code} desc = {message}"))),
    }
    match health(&body.to_bytes()) {
        1 => Ok(()),
        other => {
            let word = HEALTH.get(other).map_or_else(|| other.to_string(), |word| (*word).to_owned());
            Err(format!("service unhealthy (responded with {word:?})"))
        }
    }
}

/// A `HealthCheckRequest` in a frame of gRPC: its one field, number 1, is a text.
fn question(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut left = service.len();
        while left >= 0x80 {
            message.push((left & 0x7f) as u8 | 0x80);
            left >>= 7;
        }
        message.push(left as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).expect("a service's name is short");
    [&[0], &length.to_be_bytes()[..], &message].concat()
}

/// The status in a frame with a `HealthCheckResponse`: its one field, number 1, is a number below 4.
fn health(frame: &[u8]) -> usize {
    match frame.get(5..) {
        Some([0x08, status, ..]) => usize::from(*status),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// What answers does so in this time on any machine.
    const PATIENCE: Duration = Duration::from_secs(60);

    async fn ask(answer: &'static str, limit: Duration) -> Result<HttpAnswer, String> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let _server = base::task::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut seen = [0; 1024];
            let n = stream.read(&mut seen).await.unwrap();
            assert!(seen[..n].starts_with(b"GET /ready HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
            if answer.is_empty() {
                std::future::pending::<()>().await;
            }
        });
        let headers = vec![("Host".to_owned(), "h".to_owned())];
        let request = HttpRequest { tls: false, address, path: "/ready".into(), headers };
        HostProber.http_get(request, limit).await
    }

    #[tokio::test]
    async fn answers() {
        let answer =
            ask("HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 3\r\n\r\nabc", PATIENCE).await;
        let want = HttpAnswer { code: 302, location: "/x".into(), body: "abc".into() };
        assert_eq!(answer, Ok(want));
        assert!(ask("", Duration::from_millis(300)).await.unwrap_err().contains("context deadline exceeded"));
        let refused = HostProber.tcp("127.0.0.1:1".parse().unwrap(), PATIENCE).await;
        assert_eq!(refused.unwrap_err(), "dial tcp 127.0.0.1:1: connect: connection refused");
    }

    /// A server that says of `web` that it serves, and of others what `code` and `status` are.
    async fn health_of(service: &str, status: u8, code: &'static str) -> Result<(), String> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let _server = base::task::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = move |request: http::Request<Incoming>| async move {
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                let asked = request.into_body().collect().await.unwrap().to_bytes();
                let status = if asked.ends_with(b"\0\x05\x0a\x03web") { 1 } else { status };
                let body = Full::new(Bytes::from(vec![0, 0, 0, 0, 2, 8, status]));
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", code.parse().unwrap());
                Ok::<_, Infallible>(http::Response::new(body.with_trailers(async { Some(Ok(trailers)) })))
            };
            let service = hyper::service::service_fn(answer);
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            drop(server.serve_connection(TokioIo::new(stream), service).await);
        });
        let request = GrpcRequest { tls: false, address, service: service.into() };
        HostProber.grpc(request, PATIENCE).await
    }

    #[tokio::test]
    async fn health_services() {
        assert_eq!(health_of("web", 2, "0").await, Ok(()));
        let sick = health_of("", 2, "0").await.unwrap_err();
        assert_eq!(sick, "service unhealthy (responded with \"NOT_SERVING\")");
        let other = health_of("", 0, "12").await.unwrap_err();
        assert!(other.starts_with("error: this server does not implement the grpc health protocol"));
        let nobody =
            GrpcRequest { tls: false, address: "127.0.0.1:1".parse().unwrap(), service: String::new() };
        let nobody = HostProber.grpc(nobody, PATIENCE).await.unwrap_err();
        assert!(
            nobody.starts_with("timeout: failed to connect service \"127.0.0.1:1\" within 60s: "),
            "{nobody}"
        );
    }
}
