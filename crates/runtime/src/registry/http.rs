//! HTTP to registries: one connection a request, over TLS but to this machine itself, perhaps through a proxy.
//!
//! Proxies are those of `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, in capitals or not. Authorities are the system's
//! (`SSL_CERT_FILE`, or where distributions have them) and, for a registry of its own, the `*.crt` files of
//! `/etc/docker/certs.d/<host>` and `/etc/containerd/certs.d/<host>`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HOST, LOCATION, USER_AGENT};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::BoxFuture;

/// How long connecting may take, TLS included, and how long a server may say nothing.
const CONNECT_MAX: Duration = Duration::from_secs(30);
const SILENCE_MAX: Duration = Duration::from_secs(60);
const REDIRECTS_MAX: usize = 10;
/// The largest answer of a proxy to CONNECT.
const PROXY_HEAD_MAX: usize = 8 << 10;
const AUTHORITIES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Looks a host's name up; a static binary has no resolver of the C library's.
pub type Resolve = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Makes requests.
pub struct Http {
    resolve: Resolve,
}

/// An answer's body, piece by piece.
pub struct Body(Incoming);

impl Body {
    /// The next piece; none at the end.
    ///
    /// # Errors
    /// When the connection breaks or the server says nothing for a minute.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            match timely("reading", self.0.frame()).await? {
                None => return Ok(None),
                Some(frame) => match frame.map_err(io::Error::other)?.into_data() {
                    Ok(data) => return Ok(Some(data)),
                    Err(_trailers) => {}
                },
            }
        }
    }

    /// All of it.
    ///
    /// # Errors
    /// As [`Body::next`]; when there is more than `limit`.
    pub async fn all(mut self, limit: u64) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        while let Some(data) = self.next().await? {
            out.extend_from_slice(&data);
            if out.len() as u64 > limit {
                return Err(io::Error::other("the answer is too large"));
            }
        }
        Ok(out)
    }
}

impl Http {
    /// A client.
    pub fn new(resolve: Resolve) -> Http {
        Http { resolve }
    }

    /// Asks for `url`, following redirects; what authorizes goes to its host only.
    ///
    /// # Errors
    /// When the server cannot be reached or is not the one that was meant.
    pub async fn get(
        &self,
        url: &str,
        accept: &str,
        authorization: Option<&str>,
    ) -> io::Result<(hyper::http::response::Parts, Body)> {
        let mut uri: Uri =
            url.parse().map_err(|e| io::Error::other(format!("{url:?} is no address: {e}")))?;
        let first = uri.authority().cloned();
        for _ in 0..REDIRECTS_MAX {
            let own = uri.authority() == first.as_ref();
            let answer = self.once(&uri, accept, authorization.filter(|_| own)).await?;
            if !answer.status().is_redirection() {
                let (parts, body) = answer.into_parts();
                return Ok((parts, Body(body)));
            }
            let to = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            uri = redirected(&uri, to.ok_or_else(|| io::Error::other("a redirect to nowhere"))?)?;
        }
        Err(io::Error::other("too many redirects"))
    }

    async fn once(
        &self,
        uri: &Uri,
        accept: &str,
        authorization: Option<&str>,
    ) -> io::Result<Response<Incoming>> {
        let host = uri.host().ok_or_else(|| io::Error::other(format!("{uri} names no host")))?;
        let tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let proxy = proxy_for(host, tls, |name| std::env::var(name).ok());
        let connecting = self.connect(host, port, tls, proxy.as_ref());
        let stream =
            base::time::timeout(CONNECT_MAX, connecting).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // It ends with its request: the body holds what it needs.
        base::task::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a registry's connection ended");
            }
        })
        .detach();
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let target = if proxy.is_some() && !tls { uri.to_string() } else { path.to_owned() };
        let mut request = Request::get(target)
            .header(HOST, uri.authority().map_or(host, |a| a.as_str()))
            .header(USER_AGENT, concat!("keelson/", env!("CARGO_PKG_VERSION")))
            .header("accept", accept);
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
        timely("waiting for the answer", sender.send_request(request)).await?.map_err(io::Error::other)
    }

    async fn connect(
        &self,
        host: &str,
        port: u16,
        tls: bool,
        proxy: Option<&Uri>,
    ) -> io::Result<Box<dyn Stream>> {
        let tcp = match proxy {
            None => self.tcp(host, port).await?,
            Some(proxy) => {
                let name =
                    proxy.host().ok_or_else(|| io::Error::other(format!("proxy {proxy} names no host")))?;
                let mut tcp = self.tcp(name, proxy.port_u16().unwrap_or(80)).await?;
                if tls {
                    tunnel(&mut tcp, host, port).await?;
                }
                tcp
            }
        };
        if !tls {
            return Ok(Box::new(tcp));
        }
        let bare = host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(bare).map_err(io::Error::other)?;
        let config = client_config(host, port)?;
        Ok(Box::new(tokio_rustls::TlsConnector::from(config).connect(name, tcp).await?))
    }

    async fn tcp(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let mut last = io::Error::other(format!("{host} has no address"));
        for address in (self.resolve)(host.trim_matches(['[', ']']).to_owned()).await? {
            match TcpStream::connect(SocketAddr::new(address, port)).await {
                Ok(stream) => return Ok(stream),
                Err(err) => {
                    last = io::Error::new(err.kind(), format!("connect to {host} ({address}:{port}): {err}"))
                }
            }
        }
        Err(last)
    }
}

async fn timely<T>(what: &str, work: impl Future<Output = T>) -> io::Result<T> {
    let late =
        |_| io::Error::new(io::ErrorKind::TimedOut, format!("{what} took longer than {SILENCE_MAX:?}"));
    base::time::timeout(SILENCE_MAX, work).await.map_err(late)
}

/// Asks an HTTP proxy for a way through (RFC 9110 section 9.3.6).
async fn tunnel(tcp: &mut TcpStream, host: &str, port: u16) -> io::Result<()> {
    let ask = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
    tcp.write_all(ask.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > PROXY_HEAD_MAX {
            return Err(io::Error::other("the proxy's answer does not end"));
        }
        head.push(tcp.read_u8().await?);
    }
    let line = String::from_utf8_lossy(&head);
    match line.split(' ').nth(1) {
        Some("200") => Ok(()),
        _ => Err(io::Error::other(format!("the proxy refuses: {}", line.lines().next().unwrap_or_default()))),
    }
}

/// The proxy that the environment names for this host.
fn proxy_for(host: &str, tls: bool, variable: impl Fn(&str) -> Option<String>) -> Option<Uri> {
    let either =
        |name: &str| variable(name).or_else(|| variable(&name.to_lowercase())).filter(|v| !v.is_empty());
    let direct = either("NO_PROXY").unwrap_or_default();
    let is_direct = |entry: &str| {
        let entry = entry.trim().trim_start_matches('.');
        entry == "*" || (!entry.is_empty() && (host == entry || host.ends_with(&format!(".{entry}"))))
    };
    if is_local(host) || direct.split(',').any(is_direct) {
        return None;
    }
    let given = either(if tls { "HTTPS_PROXY" } else { "HTTP_PROXY" })?;
    let full = if given.contains("://") { given } else { format!("http://{given}") };
    full.parse().ok()
}

/// Whether the host is this machine: its registries speak plain HTTP, as other engines hold it.
pub fn is_local(host: &str) -> bool {
    let bare = host.trim_matches(['[', ']']);
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn redirected(from: &Uri, to: &str) -> io::Result<Uri> {
    let full = if to.starts_with('/') {
        let authority = from.authority().map_or("", |a| a.as_str());
        format!("{}://{authority}{to}", from.scheme_str().unwrap_or("https"))
    } else {
        to.to_owned()
    };
    let uri: Uri = full.parse().map_err(|e| io::Error::other(format!("a redirect to {to:?}: {e}")))?;
    if from.scheme_str() == Some("https") && uri.scheme_str() != Some("https") {
        return Err(io::Error::other(format!("a redirect from https to {to:?}")));
    }
    Ok(uri)
}

fn client_config(host: &str, port: u16) -> io::Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    let given = std::env::var("SSL_CERT_FILE").ok();
    let system =
        given.as_deref().or_else(|| AUTHORITIES.iter().copied().find(|p| std::path::Path::new(p).exists()));
    let mut files: Vec<std::path::PathBuf> = system.map(Into::into).into_iter().collect();
    for dir in ["/etc/docker/certs.d", "/etc/containerd/certs.d"] {
        for name in [format!("{host}:{port}"), host.to_owned()] {
            let Ok(entries) = std::fs::read_dir(format!("{dir}/{name}")) else { continue };
            let certificates = entries.flatten().map(|e| e.path());
            files.extend(certificates.filter(|p| p.extension().is_some_and(|e| e == "crt")));
        }
    }
    for file in files {
        let fail = |e: &dyn std::fmt::Display| io::Error::other(format!("{}: {e}", file.display()));
        for certificate in CertificateDer::pem_file_iter(&file).map_err(|e| fail(&e))? {
            // Systems carry authorities that are malformed by today's rules; those are not believed.
            drop(roots.add(certificate.map_err(|e| fail(&e))?));
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_as_the_environment_says() {
        let environment = |name: &str| match name {
            "https_proxy" => Some("proxy:3128".to_owned()),
            "NO_PROXY" => Some("localhost,.corp.example, 10.0.0.1".to_owned()),
            _ => None,
        };
        let proxy = |host, tls| proxy_for(host, tls, environment).map(|p| p.to_string());
        assert_eq!(proxy("registry.example", true).as_deref(), Some("http://proxy:3128/"));
        for (host, tls) in [
            ("registry.example", false),
            ("a.corp.example", true),
            ("corp.example", true),
            ("10.0.0.1", true),
            ("127.0.0.1", true),
        ] {
            assert_eq!(proxy(host, tls), None, "{host}");
        }
    }

    #[test]
    fn redirects_stay_safe() {
        let from: Uri = "https://a.example/v2/x".parse().expect("an address");
        let to = |to: &str| redirected(&from, to).map(|uri| uri.to_string()).map_err(|e| e.to_string());
        assert_eq!(to("/y?z").as_deref(), Ok("https://a.example/y?z"));
        assert_eq!(to("https://cdn.example/y").as_deref(), Ok("https://cdn.example/y"));
        assert!(to("http://a.example/y").is_err());
        assert!(is_local("[::1]") && is_local("127.3.2.1") && !is_local("localhost.example"));
    }
}
