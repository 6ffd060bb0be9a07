//! One HTTP request on a connection of its own, so that each one is balanced anew.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The largest body that is read, in bytes.
const BODY_BYTES_MAX: usize = 64 << 10;

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub code: u16,
    /// The body.
    pub body: String,
    /// From the first packet to the last byte.
    pub took: Duration,
}

/// Gets `path` from `address`, saying that it wants `host`.
///
/// # Errors
/// When there is no complete answer within `limit`.
pub async fn get(address: SocketAddr, host: &str, path: &str, limit: Duration) -> anyhow::Result<Answer> {
    match base::time::timeout(limit, exchange(address, host, path)).await {
        Ok(answer) => answer.with_context(|| format!("GET http://{address}{path}")),
        Err(_) => anyhow::bail!("GET http://{address}{path}: no answer in {limit:?}"),
    }
}

async fn exchange(address: SocketAddr, host: &str, path: &str) -> anyhow::Result<Answer> {
    let begun = base::time::instant();
    let stream = TcpStream::connect(address).await.context("connect")?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.context("begin HTTP")?;
    let driving = base::task::spawn(connection);
    let request = http::Request::get(path)
        .header(http::header::HOST, host)
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await.context("send")?;
    let code = response.status().as_u16();
    let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
    let body = body.map_err(|err| anyhow::anyhow!("read the body: {err}"))?.to_bytes();
    drop(driving);
    Ok(Answer { code, body: String::from_utf8_lossy(&body).into_owned(), took: begun.elapsed() })
}
