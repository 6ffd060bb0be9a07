//! HTTP/1.1 as bytes: a request in its right forms and in many wrong ones, on a connection of its own, and what comes
//! back over it.

use std::sync::Arc;
use std::time::Duration;

use apiserver::server::{Handler, serve_plain};
use base::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex, split};

use crate::dice::Dice;
use crate::make;

/// What the connection holds in either direction before its writer waits.
const PIPE_BYTES: usize = 64 * 1024;
/// How long a client listens; longer than any watch lasts.
const PATIENCE: Duration = Duration::from_secs(7200);
/// Headers that change what happens, or that are hard to read.
const HEADERS: [(&str, &[u8]); 14] = [
    ("user-agent", b"curl/8"),
    ("accept-encoding", b"gzip"),
    ("expect", b"100-continue"),
    ("audit-id", b"\xe9\xff"),
    ("authorization", b"Bearer x"),
    ("authorization", b"Basic \xff"),
    ("impersonate-user", b"somebody"),
    ("impersonate-group", b"g"),
    ("impersonate-extra-%zz", b"\x80"),
    ("connection", b"upgrade"),
    ("upgrade", b"SPDY/3.1"),
    ("content-type", b"application/json"),
    ("x-empty", b""),
    ("content-encoding", b"gzip"),
];

/// What is sent over one connection.
pub struct Sent {
    pub bytes: Vec<u8>,
    /// Where the bytes are cut, so that the pieces arrive one by one.
    cuts: Vec<usize>,
    /// The client says that it will send no more.
    half: bool,
    /// It is a request in HTTP/1.1, to which there is exactly one answer.
    pub right: bool,
}

/// One answer.
#[derive(Debug)]
pub struct Response {
    pub code: u16,
    pub media: String,
    pub body: Vec<u8>,
}

/// Puts a request into bytes.
pub fn write(dice: &mut Dice, method: &str, uri: &str, headers: &[(&str, &str)], body: &[u8]) -> Sent {
    let mut right = uri.starts_with('/')
        && uri.parse::<http::Uri>().is_ok()
        && method != "CONNECT"
        && method.parse::<http::Method>().is_ok();
    let version = match dice.rarely(30) {
        true => dice.pick(&["HTTP/1.0", "HTTP/2.0", "HTTP/1.1 ", "http/1.1", "HTTP/9", ""]),
        false => "HTTP/1.1",
    };
    right &= ["HTTP/1.0", "HTTP/1.1"].contains(&version);
    let authority = if dice.rarely(30) { "https://else.where:1" } else { "" };
    let mut head = format!("{method} {authority}{uri} {version}\r\nhost: localhost\r\nconnection: close\r\n")
        .into_bytes();
    for (name, value) in headers {
        head.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    while dice.rarely(6) {
        let (name, value) = dice.pick(&HEADERS);
        head.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    if dice.rarely(40) {
        right = false;
        odd_header(dice, &mut head);
    }
    let mut bytes = framed(dice, head, body, version == "HTTP/1.0", &mut right);
    if dice.rarely(12) {
        right = false;
        let end = bytes.len().min(200);
        let mut start = bytes[..end].to_vec();
        make::damage(dice, &mut start);
        bytes.splice(..end, start);
    }
    let half = dice.rarely(12);
    let mut cuts: Vec<usize> = (0..dice.upto(5)).map(|_| dice.upto(bytes.len() + 1)).collect();
    cuts.sort_unstable();
    Sent { bytes, cuts, half, right: right && !half }
}

fn odd_header(dice: &mut Dice, head: &mut Vec<u8>) {
    match dice.below(7) {
        0 => head.extend_from_slice(b"x-folded: a\r\n b\r\n"),
        1 => head.extend_from_slice(b"host: other\r\n"),
        2 => (0..150).for_each(|i| head.extend_from_slice(format!("x-{i}: 1\r\n").as_bytes())),
        3 => head.extend_from_slice(&[b"x-long: ", &b"a".repeat(300 << 10)[..], b"\r\n"].concat()),
        4 => head.extend_from_slice(b"no colon\r\n"),
        5 => head.extend_from_slice(b": no name\r\n"),
        _ => head.extend_from_slice(b"x-zero: \0\n"),
    }
}

/// The head with the body behind it, whose end is told in one of many ways.
fn framed(dice: &mut Dice, mut out: Vec<u8>, body: &[u8], old: bool, right: &mut bool) -> Vec<u8> {
    let length = body.len();
    let way = if dice.rarely(3) { 1 + dice.below(9) } else { 0 };
    // HTTP/1.0 has no pieces.
    *right &= way == 0 || (way < 4 && !old);
    let mut end = |text: &str, body: &[u8]| {
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(body);
    };
    match way {
        0 if length == 0 && dice.rarely(2) => end("\r\n", b""),
        0 => end(&format!("content-length: {length}\r\n\r\n"), body),
        1..4 => end("transfer-encoding: chunked\r\n\r\n", &pieces(dice, body)),
        4 => {
            let mut pieces = pieces(dice, body);
            make::damage(dice, &mut pieces);
            end("transfer-encoding: chunked\r\n\r\n", &pieces);
        }
        5 => end(&format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n"), body),
        6 => end(
            &format!(
                "content-length: {}\r\n\r\n",
                dice.pick(&["-1", "x", "1e3", "99999999999999999999", "4000000", "1, 2"])
            ),
            body,
        ),
        7 => end(&format!("content-length: {}\r\n\r\n", dice.upto(length + 1)), body),
        8 => end(&format!("content-length: {}\r\n\r\n", length + 1 + dice.upto(9)), body),
        _ => end(
            dice.pick(&["transfer-encoding: gzip\r\n\r\n", "transfer-encoding: chunked, x\r\n\r\n", "\r\n"]),
            body,
        ),
    }
    out
}

/// The body in chunks.
fn pieces(dice: &mut Dice, mut body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while !body.is_empty() {
        let (piece, rest) = body.split_at(1 + dice.upto(body.len()));
        let more = if dice.rarely(4) { ";a=\"b\"" } else { "" };
        let line = if dice.rarely(2) {
            format!("{:04X}{more}\r\n", piece.len())
        } else {
            format!("{:x}{more}\r\n", piece.len())
        };
        out.extend_from_slice(&[line.as_bytes(), piece, b"\r\n"].concat());
        body = rest;
    }
    out.extend_from_slice(dice.pick(&[&b"0\r\n\r\n"[..], b"0\r\nx-trailer: 1\r\n\r\n"]));
    out
}

/// What comes back when `sent` goes to a connection of its own; whether the server ended it.
pub async fn exchange(handler: Arc<dyn Handler>, sent: &Sent) -> (Vec<u8>, bool) {
    let (client, server) = duplex(PIPE_BYTES);
    let _serving = base::task::spawn(async move {
        // What is no HTTP is told over the connection.
        drop(serve_plain(server, handler).await);
    });
    let (mut read, mut write) = split(client);
    let sending = async {
        let mut at = 0;
        for cut in sent.cuts.iter().copied().chain([sent.bytes.len()]) {
            // The server may have answered and gone before it has read all.
            if write.write_all(&sent.bytes[at..cut]).await.is_err() {
                return write;
            }
            at = cut;
            base::time::sleep(Duration::from_millis(1)).await;
        }
        if sent.half {
            drop(write.shutdown().await);
        }
        write
    };
    let mut got = Vec::new();
    let reading = async {
        let all = async {
            let mut piece = vec![0; PIPE_BYTES];
            while let Ok(n @ 1..) = read.read(&mut piece).await {
                got.extend_from_slice(&piece[..n]);
            }
        };
        base::time::timeout(PATIENCE, all).await.is_ok()
    };
    let (_write, ended) = futures_util::future::join(sending, reading).await;
    (got, ended)
}

/// The answers in what came back to requests of which the first was a HEAD or not. The last one's body may be cut off
/// if the connection was not `ended` by the server.
///
/// # Errors
/// When it is no HTTP/1.1.
pub fn responses(mut bytes: &[u8], head: bool, ended: bool) -> Result<Vec<Response>, String> {
    let mut out: Vec<Response> = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").ok_or("an answer's head has no end")?;
        let text = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let code = first.strip_prefix("http/1.").and_then(|l| l.get(2..5)).and_then(|c| c.parse().ok());
        let code = code.ok_or_else(|| format!("an answer begins with {first:?}"))?;
        let header = |name| {
            text.split("\r\n").filter_map(|l| l.split_once(": ")).find(|(n, _)| *n == name).map(|(_, v)| v)
        };
        bytes = &bytes[end + 4..];
        if code == 100 {
            continue;
        }
        let whole = |n: usize, bytes: &mut &[u8]| match bytes.split_at_checked(n) {
            Some((body, rest)) => {
                *bytes = rest;
                Ok(body.to_vec())
            }
            None if ended => Err(format!("{code}: an answer of {n} bytes has only {}", bytes.len())),
            None => Ok(std::mem::take(bytes).to_vec()),
        };
        let body = match (header("content-length"), header("transfer-encoding")) {
            _ if head && out.is_empty() => Vec::new(),
            (Some(length), None) => whole(length.parse().map_err(|_| "no length")?, &mut bytes)?,
            (None, Some("chunked")) => {
                let mut body = Vec::new();
                while let Some(line) = bytes.windows(2).position(|w| w == b"\r\n") {
                    let size = std::str::from_utf8(&bytes[..line])
                        .ok()
                        .and_then(|s| usize::from_str_radix(s, 16).ok());
                    let size = size.ok_or("an answer's piece has no size")?;
                    bytes = &bytes[line + 2..];
                    let piece = whole(size + 2, &mut bytes)?;
                    body.extend_from_slice(piece.get(..size).unwrap_or(&piece));
                    if size == 0 {
                        break;
                    }
                }
                body
            }
            // To the end of the connection: what was taken over, and answers in HTTP/1.0.
            (None, None) => std::mem::take(&mut bytes).to_vec(),
            (length, coding) => return Err(format!("{code}: length {length:?}, coding {coding:?}")),
        };
        out.push(Response { code, media: header("content-type").unwrap_or_default().to_owned(), body });
    }
    Ok(out)
}
