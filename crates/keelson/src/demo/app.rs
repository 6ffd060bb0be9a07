//! What runs in the demo's containers, which hold nothing but this binary: a tiny HTTP server that names its pod, and a
//! client for it. Hidden verbs: `demo-app serve [PORT]`, `demo-app fetch URL [COUNT [MILLISECONDS]]`.
//!
//! It knows nothing of Kubernetes but what every container sees: its environment, its resolv.conf, and SIGTERM.

use std::convert::Infallible;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use super::http::get;
use crate::resolve::ResolvConf;

/// Where the server listens unless told otherwise; the seeds' container port.
pub const PORT: u16 = 3000;
/// How long it goes on answering after SIGTERM, so that those who have not heard of its end yet are served.
const LEAVING: Duration = Duration::from_secs(1);
/// How long a client may take to say what it wants.
const HEADER_MAX: Duration = Duration::from_secs(10);
/// How long one request of the client may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long to wait when no connection can be accepted, as when all files are in use.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const USAGE: &str = "usage: keelson demo-app serve [PORT] | fetch URL [COUNT [MILLISECONDS]]";

/// Who answers.
struct Server {
    hello: String,
    leaving: AtomicBool,
}

/// Runs the verb in `arguments`.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().filter_map(|a| a.to_str()).collect();
    let number =
        |at: usize, default: u64| words.get(at).map_or(Ok(default), |w| w.parse::<u64>().context(USAGE));
    let done = match words.first().copied() {
        Some("serve") => number(1, u64::from(PORT))
            .and_then(|port| u16::try_from(port).context("a port is below 65536"))
            .and_then(serve),
        Some("fetch") if words.len() > 1 => number(2, 1).and_then(|count| {
            let interval = Duration::from_millis(number(3, 0)?);
            fetch(words[1], count, interval)
        }),
        _ => Err(anyhow::anyhow!(USAGE)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("demo-app: {err:#}");
            ExitCode::FAILURE
        }
    }
}

/// Answers on `port`, over IPv6 and IPv4, until a second after SIGTERM. `HOSTNAME` and `VERSION` of the environment are in
/// the answer.
///
/// # Errors
/// When it cannot listen.
pub fn serve(port: u16) -> anyhow::Result<()> {
    let name = |key: &str| std::env::var(key).ok().filter(|v| !v.is_empty());
    let host = name("HOSTNAME").unwrap_or_else(host_name);
    let version = name("VERSION").unwrap_or_else(|| "latest".into());
    let hello = format!("Hello World! from pod {host}, version {version}\n");
    runtime()?.block_on(async {
        // The first process of a container has no default actions: without a handler SIGTERM would do nothing.
        let mut terminate = signal(SignalKind::terminate()).context("handle SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("handle SIGINT")?;
        let any = [SocketAddr::from(([0u16; 8], port)), SocketAddr::from(([0u8; 4], port))];
        let listener = TcpListener::bind(&any[..]).await.with_context(|| format!("listen on port {port}"))?;
        println!("listening on port {port}");
        let asked_to_end = async move {
            base::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        };
        answer(listener, hello, asked_to_end).await;
        Ok(())
    })
}

/// Gets `url` `count` times, `interval` apart, and prints a line for each answer.
///
/// # Errors
/// When any of them did not answer with 200; all are tried nevertheless.
pub fn fetch(url: &str, count: u64, interval: Duration) -> anyhow::Result<()> {
    let url: http::Uri = url.parse().with_context(|| format!("{url:?} is no URL"))?;
    if url.scheme_str().is_some_and(|s| s != "http") {
        bail!("only http:// is spoken here");
    }
    let failed = runtime()?.block_on(async {
        let mut failed = 0u64;
        for n in 0..count {
            if n > 0 {
                base::time::sleep(interval).await;
            }
            match fetch_once(&url).await {
                Ok(line) => println!("{line}"),
                Err(err) => {
                    failed += 1;
                    println!("failed: {err:#}");
                }
            }
        }
        failed
    });
    if failed > 0 {
        bail!("{failed} of {count} requests failed");
    }
    Ok(())
}

async fn fetch_once(url: &http::Uri) -> anyhow::Result<String> {
    let authority = url.authority().context("the URL names no host")?;
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let (name, address) = ResolvConf::parse(&text).look_up(authority.host()).await?;
    let to = SocketAddr::new(address, authority.port_u16().unwrap_or(80));
    let path = url.path_and_query().map_or("/", |p| p.as_str());
    let answer = get(to, authority.as_str(), path, ANSWER_MAX).await?;
    let body = answer.body.trim_end();
    if answer.code != 200 {
        bail!("{name} ({to}) answers {}: {body}", answer.code);
    }
    Ok(format!("{name} ({to}) in {:.1} ms: {body}", answer.took.as_secs_f64() * 1000.0))
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Answers on `listener` until [`LEAVING`] after `asked_to_end`.
async fn answer(listener: TcpListener, hello: String, asked_to_end: impl Future<Output = ()>) {
    let server = Arc::new(Server { hello, leaving: AtomicBool::new(false) });
    let accepting = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => base::task::spawn(converse(stream, server.clone())).detach(),
                Err(err) => {
                    eprintln!("accept: {err}");
                    base::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    let end = async {
        asked_to_end.await;
        server.leaving.store(true, Ordering::Relaxed);
        base::time::sleep(LEAVING).await;
    };
    base::select! { () = end => {}, () = accepting => {} }
}

async fn converse(stream: TcpStream, server: Arc<Server>) {
    let service = hyper::service::service_fn(|request: Request<Incoming>| {
        let response = server.respond(request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(response) }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // A client that goes away in the middle is its own affair.
    serving.await.unwrap_or_default();
}

impl Server {
    fn respond(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let (code, body) = match path {
            _ if method != Method::GET && method != Method::HEAD => {
                (StatusCode::METHOD_NOT_ALLOWED, "only GET\n")
            }
            "/" => (StatusCode::OK, self.hello.as_str()),
            "/healthz" => (StatusCode::OK, "ok\n"),
            _ => (StatusCode::NOT_FOUND, "nothing here\n"),
        };
        let mut response = Response::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
        *response.status_mut() = code;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
        if self.leaving.load(Ordering::Relaxed) {
            headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::oneshot;

    use super::*;

    async fn ask(stream: &mut TcpStream, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("send");
        let mut buffer = vec![0; 4096];
        let n = stream.read(&mut buffer).await.expect("receive");
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    }

    #[tokio::test]
    async fn it_answers_keeps_connections_and_leaves_politely() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("address");
        let (end, asked) = oneshot::channel::<()>();
        let asked = async move { asked.await.expect("the test asks") };
        let serving =
            base::task::spawn(answer(listener, "Hello World! from pod x, version 1\n".into(), asked));

        let mut kept = TcpStream::connect(address).await.expect("connect");
        let hello = ask(&mut kept, "/").await;
        assert!(
            hello.starts_with("HTTP/1.1 200 OK\r\n") && hello.contains("content-length: 35\r\n"),
            "{hello}"
        );
        assert!(hello.ends_with("\r\n\r\nHello World! from pod x, version 1\n"), "{hello}");
        assert!(ask(&mut kept, "/healthz").await.ends_with("ok\n"));
        assert!(ask(&mut kept, "/other").await.starts_with("HTTP/1.1 404 "));

        let begun = base::time::instant();
        end.send(()).expect("it waits");
        base::task::yield_now().await;
        let last = ask(&mut kept, "/").await;
        assert!(last.contains("connection: close\r\n") && last.contains("Hello"), "{last}");
        assert_eq!(kept.read(&mut [0; 8]).await.expect("closed"), 0);
        let fresh = get(address, "x", "/", ANSWER_MAX).await.expect("new connections are still answered");
        assert_eq!((fresh.code, fresh.body.as_str()), (200, "Hello World! from pod x, version 1\n"));
        serving.await;
        assert!(begun.elapsed() >= LEAVING);
        get(address, "x", "/", ANSWER_MAX).await.expect_err("nobody listens any more");
    }
}
