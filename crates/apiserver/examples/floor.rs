//! What HTTP, TLS and the kernel cost by themselves: a server that gives every request the same answer of about 1 KB,
//! with the libraries and the TLS configuration of the API server and nothing of its way. No API server on the same
//! libraries gives more answers on the same machine.
//!
//! With the keys that a `keelson server --data-dir DIR` made, in its place: `cargo run --release -p apiserver --example
//! floor -- DIR/pki/apiserver.crt DIR/pki/apiserver.key 127.0.0.1:6443`, then `keelson bench api get --data-dir DIR`.

use std::convert::Infallible;

use apiserver::server::{TlsFiles, server_config};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// What an object of 1 KB is answered with, metadata and all.
const ANSWER_BYTES: usize = 1170;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [certificate, key, address] = arguments.as_slice() else {
        return Err("usage: floor CERTIFICATE KEY ADDRESS".into());
    };
    let files = TlsFiles { certificate: certificate.into(), key: key.into() };
    let tls = TlsAcceptor::from(server_config(&files)?);
    let padding = "x".repeat(ANSWER_BYTES - r#"{"data":""}"#.len());
    let answer = Bytes::from(format!(r#"{{"data":"{padding}"}}"#));
    let listener = TcpListener::bind(address).await?;
    println!("answering at {address}");
    loop {
        let (stream, _) = listener.accept().await?;
        let (tls, answer) = (tls.clone(), answer.clone());
        base::task::spawn(async move {
            if let Err(error) = serve(stream, tls, answer).await {
                eprintln!("{error}");
            }
        })
        .detach();
    }
}

async fn serve(stream: TcpStream, tls: TlsAcceptor, answer: Bytes) -> Result<(), Error> {
    stream.set_nodelay(true)?;
    let stream = tls.accept(stream).await?;
    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        let answer = answer.clone();
        async move {
            // A body is read to its end, whatever it is.
            drop(request.into_body().collect().await);
            let mut response = http::Response::new(Full::new(answer));
            let json = http::HeaderValue::from_static("application/json");
            response.headers_mut().insert(http::header::CONTENT_TYPE, json);
            Ok::<_, Infallible>(response)
        }
    });
    Ok(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await?)
}
