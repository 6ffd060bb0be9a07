//! Probes over the host's network. Redirects are not followed: 3xx counts as a success, as upstream has it for redirects
//! that leave the host. Upstream: pkg/probe/{http,tcp}.

use std::net::SocketAddr;
use std::time::Duration;

use apimachinery::call::BoxFuture;
use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::doors::{HttpRequest, Prober};

/// Asks over TCP from the host.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostProber;

impl Prober for HostProber {
    fn http_get(&self, request: HttpRequest, timeout: Duration) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let url = format!("http://{}{}", request.address, request.path);
            let code = match base::time::timeout(timeout, get(request)).await {
                Ok(answer) => answer.map_err(|why| format!("Get {url:?}: {why}"))?,
                Err(_) => {
                    return Err(format!(
                        "Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
                    ));
                }
            };
            if (200..400).contains(&code) {
                Ok(())
            } else {
                Err(format!("HTTP probe failed with statuscode: {code}"))
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

async fn get(request: HttpRequest) -> Result<u16, String> {
    let stream = connect(request.address).await?;
    let shake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shake.map_err(|err| err.to_string())?;
    let connection = base::task::spawn(async move { drop(connection.await) });
    let mut ask = http::Request::get(&request.path);
    for (name, value) in &request.headers {
        ask = ask.header(name, value);
    }
    let ask = ask.header("Connection", "close").body(Empty::<Bytes>::new()).map_err(|err| err.to_string())?;
    let answer = sender.send_request(ask).await.map_err(|err| err.to_string())?;
    drop(connection);
    Ok(answer.status().as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn ask(answer: &'static str) -> Result<(), String> {
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
        HostProber
            .http_get(HttpRequest { address, path: "/ready".into(), headers }, Duration::from_millis(300))
            .await
    }

    #[tokio::test]
    async fn answers() {
        assert_eq!(ask("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await, Ok(()));
        assert_eq!(ask("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n").await, Ok(()));
        let failed = ask("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(failed.unwrap_err(), "HTTP probe failed with statuscode: 503");
        assert!(ask("").await.unwrap_err().contains("context deadline exceeded"));
        let refused = HostProber.tcp("127.0.0.1:1".parse().unwrap(), Duration::from_secs(1)).await;
        assert_eq!(refused.unwrap_err(), "dial tcp 127.0.0.1:1: connect: connection refused");
    }
}
