//! Connections that do little work per request: HTTP/1.1 by hand, or streams of HTTP/2.
//!
//! Bodies of good answers are counted and dropped; those of others are kept, to be shown.

use std::io;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use client::{Dialer, Kubeconfig, Stream};
use h2::client::SendRequest;
use http::{HeaderValue, header};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};

/// How much of an answer that is a failure is kept, in bytes.
const FAILURE_BYTES_MAX: usize = 4096;

/// A request of the API.
pub struct Request {
    /// `GET`, …
    pub method: &'static str,
    /// Path and query.
    pub path: String,
    /// The body's type; empty without one.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// A request without a body.
    pub fn get(path: String) -> Request {
        Request { method: "GET", path, content_type: "", body: Vec::new() }
    }
}

/// An answer.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// How long its body was.
    pub bytes: u64,
    /// The beginning of a failure's body, or what was asked to be kept.
    pub body: Vec<u8>,
}

/// Makes connections.
pub struct Links {
    dialer: Dialer,
    authority: String,
    token: Option<String>,
    /// Streams of HTTP/2 on each connection; 0 for HTTP/1.1.
    streams: usize,
}

impl Links {
    /// To the server of a kubeconfig, by its credentials.
    ///
    /// # Errors
    /// When the kubeconfig cannot be used.
    pub fn new(config: &Kubeconfig, streams: usize) -> anyhow::Result<Links> {
        let dialer = Dialer::new(config)?;
        let token = config.token.as_ref().map(|t| t.read()).transpose().context("read the token")?;
        let authority = dialer.base().trim_start_matches("https://").to_owned();
        Ok(Links { dialer, authority, token, streams })
    }

    /// `n` links: as many connections, or as many streams on fewer connections.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn open(&self, n: usize) -> anyhow::Result<Vec<Link>> {
        let mut out = Vec::with_capacity(n);
        while out.len() < n {
            let stream = self.dialer.dial(self.streams > 0).await?;
            if self.streams == 0 {
                let mut head =
                    format!(" HTTP/1.1\r\nhost: {}\r\naccept: application/json\r\n", self.authority);
                if let Some(token) = &self.token {
                    head.push_str(&format!("authorization: Bearer {token}\r\n"));
                }
                out.push(Link::One(Box::new(Http1 { stream, head, out: Vec::new(), input: Vec::new() })));
                continue;
            }
            if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                bail!("the server does not speak HTTP/2");
            }
            let mut builder = h2::client::Builder::new();
            builder.initial_window_size(1 << 20).initial_connection_window_size(16 << 20);
            let (sender, connection) = builder.handshake(stream).await?;
            base::task::spawn(async { drop(connection.await) }).detach();
            let authority = http::uri::Authority::try_from(self.authority.as_str())?;
            let token = self.token.as_ref().map(|token| HeaderValue::try_from(format!("Bearer {token}")));
            let token = token.transpose()?;
            let link =
                || Http2 { sender: sender.clone(), authority: authority.clone(), token: token.clone() };
            out.extend((out.len()..n).take(self.streams).map(|_| Link::Two(Box::new(link()))));
        }
        Ok(out)
    }
}

/// A way to send one request after the other.
pub enum Link {
    /// A connection of HTTP/1.1.
    One(Box<Http1>),
    /// A stream of HTTP/2 at a time.
    Two(Box<Http2>),
}

impl Link {
    /// Sends a request and takes in the whole answer.
    ///
    /// # Errors
    /// When the connection breaks; it is of no further use.
    pub async fn exchange(&mut self, request: &Request) -> anyhow::Result<Answer> {
        let mut bytes = 0;
        let mut body = Vec::new();
        let mut take = |status: u16, part: &[u8]| {
            bytes += part.len() as u64;
            if status >= 300 && body.len() < FAILURE_BYTES_MAX {
                body.extend_from_slice(part);
            }
            true
        };
        let status = self.stream(request, &mut take).await?;
        Ok(Answer { status, bytes, body })
    }

    /// Sends a request and gives each part of the answer's body to `take`, until that says to stop. An empty part
    /// comes first, when the answer begins.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn stream(
        &mut self,
        request: &Request,
        take: &mut (dyn FnMut(u16, &[u8]) -> bool + Send),
    ) -> anyhow::Result<u16> {
        match self {
            Link::One(link) => link.stream(request, take).await,
            Link::Two(link) => link.stream(request, take).await,
        }
    }
}

/// A connection of HTTP/1.1.
pub struct Http1 {
    stream: Stream,
    /// What follows the path in every request's head.
    head: String,
    out: Vec<u8>,
    /// The beginning of a head that has not come as a whole yet.
    input: Vec<u8>,
}

impl Http1 {
    async fn stream(
        &mut self,
        request: &Request,
        take: &mut (dyn FnMut(u16, &[u8]) -> bool + Send),
    ) -> anyhow::Result<u16> {
        self.out.clear();
        for part in [request.method, " ", &request.path, &self.head] {
            self.out.extend_from_slice(part.as_bytes());
        }
        if !request.content_type.is_empty() {
            let (kind, len) = (request.content_type, request.body.len());
            self.out
                .extend_from_slice(format!("content-type: {kind}\r\ncontent-length: {len}\r\n").as_bytes());
        }
        self.out.extend_from_slice(b"\r\n");
        self.out.extend_from_slice(&request.body);
        self.stream.write_all(&self.out).await?;
        self.stream.flush().await?;
        let (status, mut framing) = self.head().await?;
        let mut more = take(status, &[]);
        loop {
            // What TLS has decrypted is looked at where it lies.
            let part = if framing.is_over() { &[] } else { at_hand(&mut self.stream).await? };
            let (read, done) = framing.advance(part, &mut |part| more &= take(status, part))?;
            self.stream.consume(read);
            if done || !more {
                return Ok(status);
            }
        }
    }

    /// Takes in an answer's head, which usually comes in one piece.
    async fn head(&mut self) -> anyhow::Result<(u16, Framing)> {
        self.input.clear();
        loop {
            let part = at_hand(&mut self.stream).await?;
            let known = self.input.len();
            let text = if known == 0 {
                part
            } else {
                self.input.extend_from_slice(part);
                &self.input
            };
            let Some(end) = memchr::memmem::find(text, b"\r\n\r\n") else {
                if known == 0 {
                    self.input.extend_from_slice(part);
                }
                let read = part.len();
                self.stream.consume(read);
                continue;
            };
            let out = head(&text[..end])?;
            self.stream.consume(end + 4 - known);
            return Ok(out);
        }
    }
}

/// What has come and is not consumed yet, of which there is some.
async fn at_hand(stream: &mut Stream) -> io::Result<&[u8]> {
    match stream.fill_buf().await? {
        [] => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")),
        part => Ok(part),
    }
}

/// Status and framing of an answer, from its head.
fn head(head: &[u8]) -> anyhow::Result<(u16, Framing)> {
    let text = std::str::from_utf8(head).context("an answer's head is no text")?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status = status.context("the answer is not HTTP/1.1")?;
    let mut framing = Framing::Length(0);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            framing = Framing::Length(value.trim().parse().context("content-length")?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            framing = Framing::Size(0);
        }
    }
    Ok((status, framing))
}

/// What of a body is to come.
#[derive(Debug, PartialEq, Eq)]
enum Framing {
    /// This many bytes, and then the end.
    Length(u64),
    /// A chunk's size, of which this has been read.
    Size(u64),
    /// The rest of the line with a chunk's size.
    Line(u64),
    /// This many bytes of a chunk.
    Chunk(u64),
    /// This many bytes behind a chunk.
    Behind(u8),
    /// This many bytes behind the last chunk.
    Last(u8),
}

impl Framing {
    /// Whether nothing of the body is to come.
    fn is_over(&self) -> bool {
        matches!(self, Framing::Length(0) | Framing::Last(0))
    }

    /// Takes bytes in: how many were of this body, and whether that was its end.
    fn advance(&mut self, input: &[u8], take: &mut dyn FnMut(&[u8])) -> anyhow::Result<(usize, bool)> {
        let mut at = 0;
        loop {
            match *self {
                _ if self.is_over() => return Ok((at, true)),
                _ if at == input.len() => return Ok((at, false)),
                Framing::Length(left) | Framing::Chunk(left) => {
                    let n = (input.len() - at).min(usize::try_from(left).unwrap_or(usize::MAX));
                    take(&input[at..at + n]);
                    at += n;
                    let left = left - n as u64;
                    *self = match self {
                        Framing::Length(_) => Framing::Length(left),
                        _ if left == 0 => Framing::Behind(2),
                        _ => Framing::Chunk(left),
                    };
                }
                Framing::Size(size) => {
                    match char::from(input[at]).to_digit(16) {
                        Some(digit) => *self = Framing::Size(size * 16 + u64::from(digit)),
                        None => *self = Framing::Line(size),
                    }
                    at += usize::from(matches!(self, Framing::Size(_)));
                }
                Framing::Line(size) => {
                    at += 1;
                    if input[at - 1] == b'\n' {
                        *self = if size == 0 { Framing::Last(2) } else { Framing::Chunk(size) };
                    }
                }
                Framing::Behind(left) => {
                    at += 1;
                    *self = if left == 1 { Framing::Size(0) } else { Framing::Behind(left - 1) };
                }
                Framing::Last(left) => {
                    if input[at] != b"\n\r"[usize::from(left) - 1] {
                        bail!("a chunked body ends wrongly");
                    }
                    at += 1;
                    *self = Framing::Last(left - 1);
                }
            }
        }
    }
}

/// Streams of a connection of HTTP/2, one at a time.
pub struct Http2 {
    sender: SendRequest<Bytes>,
    authority: http::uri::Authority,
    token: Option<HeaderValue>,
}

impl Http2 {
    async fn stream(
        &mut self,
        request: &Request,
        take: &mut (dyn FnMut(u16, &[u8]) -> bool + Send),
    ) -> anyhow::Result<u16> {
        let uri = http::Uri::builder().scheme("https").authority(self.authority.clone());
        let mut head = http::Request::builder()
            .method(request.method)
            .uri(uri.path_and_query(request.path.as_str()).build()?)
            .header(header::ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(token) = &self.token {
            head = head.header(header::AUTHORIZATION, token);
        }
        if !request.content_type.is_empty() {
            head = head.header(header::CONTENT_TYPE, HeaderValue::from_static(request.content_type));
        }
        std::future::poll_fn(|cx| self.sender.poll_ready(cx)).await?;
        let bare = request.body.is_empty();
        let (response, mut sent) = self.sender.send_request(head.body(())?, bare)?;
        if !bare {
            sent.send_data(Bytes::copy_from_slice(&request.body), true)?;
        }
        let response = response.await?;
        let status = response.status().as_u16();
        let mut body = response.into_body();
        let mut more = take(status, &[]);
        while more && let Some(data) = body.data().await {
            let data = data?;
            more = take(status, &data);
            body.flow_control().release_capacity(data.len())?;
        }
        Ok(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_read_wherever_they_are_cut() {
        let chunked = b"5;x=y\r\nhello\r\n10\r\n, 16 bytes world\r\n0\r\n\r\nHTTP/1.1";
        let (head_chunked, head_long) = (
            &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked"[..],
            &b"HTTP/1.1 404 X\r\ncontent-length: 3"[..],
        );
        let cases =
            [(head_chunked, &chunked[..], 200, "hello, 16 bytes world"), (head_long, b"abcHTTP", 404, "abc")];
        for (top, body, code, text) in cases {
            for cut in 0..body.len() {
                let (status, mut framing) = head(top).expect("a head");
                let (mut got, mut used, mut end) = (Vec::new(), 0, false);
                for part in [&body[..cut], &body[cut..]] {
                    if !end {
                        let read =
                            framing.advance(part, &mut |p| got.extend_from_slice(p)).expect("well formed");
                        (used, end) = (used + read.0, read.1);
                    }
                }
                assert_eq!((status, got.as_slice(), end), (code, text.as_bytes(), true), "cut at {cut}");
                assert!(body[used..].starts_with(b"HTTP"), "cut at {cut}");
            }
        }
        assert!(head(b"SSH-2.0").is_err());
    }
}
