//! Requests to the API as fast as a test likes: over a `kubectl proxy` on a Unix socket, so that TLS is kubectl's matter.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::node::{Node, PATIENCE};

/// How long an answer may take before the request counts as unanswered.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// A running `kubectl proxy`.
pub struct Proxy {
    child: Child,
    socket: PathBuf,
}

impl Proxy {
    /// Starts it; the cluster must have written its kubeconfig.
    pub fn start(node: &Node) -> Proxy {
        let socket = node.path("proxy.sock");
        let mut child = node
            .command("kubectl")
            // By itself it lets no commands through.
            .args(["proxy", "--reject-paths", "^$", "--unix-socket"])
            .arg(&socket)
            .stdout(Stdio::piped())
            // It complains of every request while the server is dead.
            .stderr(Stdio::null())
            .spawn()
            .expect("kubectl proxy");
        let mut out = child.stdout.take().expect("it is piped");
        let said = crate::node::line(&mut out, &mut String::new());
        assert!(said.is_some_and(|l| l.starts_with("Starting to serve")), "kubectl proxy does not start");
        Proxy { child, socket }
    }

    /// Sends a request; the status and the answer, or none if the connection broke.
    pub fn request(&self, method: &str, path: &str, body: Option<(&str, &Value)>) -> Option<(u16, Value)> {
        let (status, body) = self.exchange(method, path, body)?;
        // What was cut off, or is kubectl's own complaint, is no object.
        Some((status, serde_json::from_str(&body).unwrap_or(Value::Null)))
    }

    /// Reads what is no JSON, such as a log.
    pub fn text(&self, path: &str) -> Option<(u16, String)> {
        self.exchange("GET", path, None)
    }

    /// Reads all messages of a WebSocket that speaks `protocol`, to its end.
    pub fn websocket(&self, path: &str, protocol: &str) -> Option<Vec<Vec<u8>>> {
        let mut stream = UnixStream::connect(&self.socket).expect("kubectl proxy listens");
        stream.set_read_timeout(Some(ANSWER_MAX)).expect("a limit");
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).ok()?;
        let mut stream = BufReader::new(stream);
        let (mut head, mut line) = (String::new(), String::new());
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).ok().filter(|n| *n > 0)?;
            head.push_str(&line.to_ascii_lowercase());
        }
        // The answer to that key, as RFC 6455 has it.
        let accepted = "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=";
        let agreed = format!("sec-websocket-protocol: {protocol}\r\n");
        assert!(
            head.starts_with("http/1.1 101") && head.contains(accepted) && head.contains(&agreed),
            "{head}"
        );
        let mut messages = Vec::new();
        loop {
            let mut start = [0; 2];
            stream.read_exact(&mut start).ok()?;
            let mut length = usize::from(start[1]);
            if length == 126 {
                let mut long = [0; 2];
                stream.read_exact(&mut long).ok()?;
                length = usize::from(u16::from_be_bytes(long));
            }
            let mut message = vec![0; length];
            stream.read_exact(&mut message).ok()?;
            match start[0] {
                0x81 | 0x82 => messages.push(message),
                0x88 => return Some(messages),
                other => panic!("a frame of kind {other:#x}"),
            }
        }
    }

    /// Reads an answer that does not end, line by line, until `test` holds; whether it did, within the limit.
    pub fn lines(&self, path: &str, limit: Duration, mut test: impl FnMut(&str) -> bool) -> bool {
        let until = base::time::instant() + limit;
        // A watch may end by itself; the next one begins with what is there.
        while let Some(mut stream) = self.send("GET", path, None).map(BufReader::new) {
            let (mut line, mut in_head) = (String::new(), true);
            loop {
                let left = until.saturating_duration_since(base::time::instant());
                if left.is_zero() {
                    return false;
                }
                stream.get_ref().set_read_timeout(Some(left)).expect("a limit");
                line.clear();
                if !stream.read_line(&mut line).is_ok_and(|len| len > 0) {
                    break;
                }
                if in_head {
                    in_head = line != "\r\n";
                } else if test(line.trim_end()) {
                    return true;
                }
            }
        }
        false
    }

    fn send(&self, method: &str, path: &str, body: Option<(&str, &Value)>) -> Option<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket).expect("kubectl proxy listens");
        stream.set_read_timeout(Some(ANSWER_MAX)).expect("a limit");
        let (kind, body) = body.map_or((String::new(), String::new()), |(kind, body)| {
            (format!("Content-Type: {kind}\r\n"), body.to_string())
        });
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\n{kind}Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).ok()?;
        Some(stream)
    }

    fn exchange(&self, method: &str, path: &str, body: Option<(&str, &Value)>) -> Option<(u16, String)> {
        let mut answer = Vec::new();
        self.send(method, path, body)?.read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8(answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// Waits until the API answers.
    pub fn wait_ready(&self) {
        let until = base::time::instant() + PATIENCE;
        while !matches!(self.request("GET", "/readyz", None), Some((200, _))) {
            assert!(base::time::instant() < until, "the API does not answer");
            std::thread::yield_now();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Err(err) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("kubectl proxy stays: {err}");
        }
    }
}
