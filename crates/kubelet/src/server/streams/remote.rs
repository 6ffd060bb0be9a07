//! Commands in containers, and containers' own programs, with their streams.
//!
//! Upstream: pkg/kubelet/server/server.go (`getExec`, `getAttach`), staging/src/k8s.io/kubelet/pkg/cri/streaming/remotecommand.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::codec::spdy::Headers;
use apimachinery::{Status, doc};
use base::task;
use bytes::{Bytes, BytesMut};
use runtime::{
    ContainerId, Error as RuntimeError, Input, Output as Readable, Runtime, StreamOptions, Streams,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::upgrade::Offer;
use super::{Connection, Output, PIECE_BYTES, Stream};
use crate::server::logs::decode;

/// How long a client may take to open its streams. Source: `DefaultStreamCreationTimeout`.
const OPENING_MAX: Duration = Duration::from_secs(30);
/// The longest size of a terminal that is read.
const RESIZE_BYTES_MAX: usize = 4096;

/// Versions on SPDY, best first.
const SPDY: &[&str] = &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
/// Versions on WebSocket.
const WEBSOCKET: &[(&str, bool)] = &[
    ("v5.channel.k8s.io", false),
    ("v4.channel.k8s.io", false),
    ("v4.base64.channel.k8s.io", true),
    ("channel.k8s.io", false),
    ("base64.channel.k8s.io", true),
];
/// The channels on WebSocket, by number.
const CHANNELS: [&str; 5] = ["stdin", "stdout", "stderr", "error", "resize"];

/// What is wanted of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Which streams.
    pub streams: StreamOptions,
}

impl Options {
    /// From a request's query.
    ///
    /// # Errors
    /// Upstream's words when no stream is wanted.
    pub fn parse(query: &str) -> Result<Options, String> {
        let mut out = Options::default();
        for (name, value) in query.split('&').filter_map(|p| p.split_once('=')) {
            let value = decode(value);
            let truth = matches!(value.as_str(), "1" | "true");
            match name {
                "command" => out.command.push(value),
                "input" => out.streams.stdin = truth,
                "output" => out.streams.stdout = truth,
                "error" => out.streams.stderr = truth,
                "tty" => out.streams.tty = truth,
                _ => {}
            }
        }
        // A terminal has one output.
        out.streams.stderr &= !out.streams.tty;
        if !out.streams.stdin && !out.streams.stdout && !out.streams.stderr {
            return Err("you must specify at least 1 of stdin, stdout, stderr".to_owned());
        }
        Ok(out)
    }

    /// What a client is offered.
    pub fn offer(&self) -> Offer<'static> {
        let channel = |kind: &&str| -> Headers { vec![("streamtype".to_owned(), (*kind).to_owned())] };
        Offer { spdy: SPDY, websocket: WEBSOCKET, channels: CHANNELS.iter().map(channel).collect() }
    }
}

/// What is to be done in a container.
pub enum Action {
    /// Runs the command.
    Exec,
    /// Takes part in what runs.
    Attach,
}

/// The streams that a client has opened.
#[derive(Default)]
struct Opened {
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    error: Option<Stream>,
    resize: Option<Stream>,
}

impl Opened {
    fn take(&mut self, stream: Stream) {
        let place = match stream.header("streamtype") {
            "stdin" => &mut self.stdin,
            "stdout" => &mut self.stdout,
            "stderr" => &mut self.stderr,
            "error" => &mut self.error,
            "resize" => &mut self.resize,
            _ => return,
        };
        *place = Some(stream);
    }

    fn has(&self, wants: StreamOptions, resize: bool) -> bool {
        self.error.is_some()
            && (self.stdin.is_some() || !wants.stdin)
            && (self.stdout.is_some() || !wants.stdout)
            && (self.stderr.is_some() || !wants.stderr)
            && (self.resize.is_some() || !resize)
    }
}

/// Serves a connection until the program has ended or the client is gone.
pub async fn serve(
    runtime: Arc<dyn Runtime>,
    container: ContainerId,
    options: Options,
    action: Action,
    mut connection: Connection,
    version: String,
    channels: bool,
) {
    let wants = options.streams;
    // The first two versions had no sizes.
    let resize = wants.tty && !matches!(version.as_str(), "" | "channel.k8s.io" | "v2.channel.k8s.io");
    let mut opened = Opened::default();
    let opening = async {
        while !opened.has(wants, channels || resize) {
            match connection.streams.recv().await {
                Some(stream) => opened.take(stream),
                None => return false,
            }
        }
        true
    };
    if !base::time::timeout(OPENING_MAX, opening).await.unwrap_or(false) {
        return tracing::debug!("a client did not open its streams");
    }
    let error = opened.error.take().expect("all are there").output;
    if channels && version != "v5.channel.k8s.io" {
        greet(&opened, wants, &error).await;
    }
    let result = base::select! {
        result = run(&*runtime, &container, &options, action, opened) => result,
        // The program's streams end with the future above.
        () = connection.lost() => return,
    };
    if let Some(bytes) =
        status(&result, &options.command, version.starts_with("v4") || version.starts_with("v5"))
    {
        error.send(bytes).await;
    }
    error.end().await;
    drop(error);
    connection.finish().await;
}

/// The first message of older versions is empty: so clients see that it has begun.
async fn greet(opened: &Opened, wants: StreamOptions, error: &Output) {
    let first = [(wants.stdout, &opened.stdout), (wants.stderr, &opened.stderr)];
    let first = first.into_iter().find_map(|(wanted, stream)| stream.as_ref().filter(|_| wanted));
    first.map_or(error, |stream| &stream.output).send(Bytes::new()).await;
}

/// Runs the command, or stays attached, to the end; gives the exit code.
async fn run(
    runtime: &dyn Runtime,
    container: &ContainerId,
    options: &Options,
    action: Action,
    opened: Opened,
) -> Result<i32, String> {
    let wants = options.streams;
    let (streams, what) = match action {
        // A program has its outputs whether somebody wants them or not.
        Action::Exec => {
            let all = StreamOptions { stdout: true, stderr: !wants.tty, ..wants };
            (runtime.exec(container, options.command.clone(), all).await, "executing command in")
        }
        Action::Attach => (runtime.attach(container, wants).await, "attaching to"),
    };
    let failed = |e: RuntimeError| format!("error {what} container: {e}");
    let Streams { stdin, stdout, stderr, resize, exit } = streams.map_err(failed)?;
    // Who gives the streams up leaves the program alone: it is waited for all the same.
    let exit = Waited(Some(exit));
    let _input = stdin.zip(opened.stdin).map(|(to, from)| task::spawn(feed(from.input, to)));
    let _sizes = resize.zip(opened.resize).map(|(set, sizes)| task::spawn(set_sizes(sizes.input, set)));
    let out = |wanted: bool, stream: Option<Stream>| stream.filter(|_| wanted).map(|s| s.output);
    tokio::join!(
        drain(stdout, out(wants.stdout, opened.stdout)),
        drain(stderr, out(wants.stderr, opened.stderr))
    );
    exit.end().await.map_err(failed)
}

/// A command's end: dropped before it has come, it is waited for in the background.
struct Waited(Option<runtime::BoxFuture<'static, Result<i32, RuntimeError>>>);

impl Waited {
    async fn end(mut self) -> Result<i32, RuntimeError> {
        let exit = self.0.as_mut().expect("taken only by drop");
        let result = exit.await;
        self.0 = None;
        result
    }
}

impl Drop for Waited {
    fn drop(&mut self) {
        if let Some(exit) = self.0.take() {
            task::spawn(async move { drop(exit.await) }).detach();
        }
    }
}

async fn feed(mut from: mpsc::Receiver<Bytes>, mut to: Input) {
    while let Some(bytes) = from.recv().await {
        // Whoever reads no more lets the rest go.
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Sends what a program says until it says no more; with nobody there it goes nowhere.
async fn drain(from: Option<Readable>, to: Option<Output>) {
    let Some(mut from) = from else { return };
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIECE_BYTES);
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {
                let piece = buffer.split().freeze();
                if let Some(to) = &to {
                    to.send(piece).await;
                }
            }
        }
    }
    if let Some(to) = to {
        to.end().await;
    }
}

/// Reads sizes, JSON after JSON, and sets them.
async fn set_sizes(mut from: mpsc::Receiver<Bytes>, set: Box<dyn Fn(u16, u16) + Send + Sync>) {
    let mut text = Vec::new();
    while let Some(bytes) = from.recv().await {
        text.extend_from_slice(&bytes);
        while let Some(end) = text.iter().position(|b| *b == b'}') {
            let one: Vec<u8> = text.drain(..=end).collect();
            if let Ok(size) = apimachinery::codec::json::parse(one) {
                let number = |name| u16::try_from(size.doc.root().get(name).i64()).unwrap_or(0);
                set(number("Width"), number("Height"));
            }
        }
        if text.len() > RESIZE_BYTES_MAX {
            return;
        }
    }
}

/// What the error stream says of the end: a Status, in older versions its words, and nothing where all went well.
fn status(result: &Result<i32, String>, command: &[String], structured: bool) -> Option<Vec<u8>> {
    let (words, status) = match result {
        Ok(0) => (None, doc!({ "metadata": {}, "status": "Success" })),
        Ok(code) => {
            let command = command.join(" ");
            let message = format!(
                "command terminated with non-zero exit code: error executing command [{command}], exit code {code}"
            );
            let status = doc!({ "metadata": {}, "status": "Failure", "message": message, "reason": "NonZeroExitCode",
                "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] } });
            (Some(message), status)
        }
        Err(why) => {
            let status = Status::internal(why).cause("", why, "");
            (Some(status.message.clone()), status.to_doc())
        }
    };
    if structured { Some(status.to_json()) } else { words.map(String::into_bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_say_which_streams() {
        let of = |query: &str| Options::parse(query);
        let streams = |stdin, stdout, stderr, tty| StreamOptions { stdin, stdout, stderr, tty };
        let command = vec!["sh".to_owned(), "-c".to_owned(), "a b&c".to_owned()];
        let want = Options { command, streams: streams(false, true, true, false) };
        assert_eq!(of("command=sh&command=-c&command=a+b%26c&output=1&error=1"), Ok(want));
        assert_eq!(
            of("input=1&output=true&error=1&tty=1").expect("streams").streams,
            streams(true, true, false, true)
        );
        assert!(of("command=x&error=1&tty=true").is_err());
        assert!(of("command=x").is_err());
    }

    #[test]
    fn the_end_is_told_in_each_versions_way() {
        let command = ["sh".to_owned(), "-c".to_owned()];
        let say = |result: Result<i32, String>, structured| {
            status(&result, &command, structured).map(|b| String::from_utf8(b).expect("text"))
        };
        assert_eq!(say(Ok(0), false), None);
        assert_eq!(say(Ok(0), true).as_deref(), Some(r#"{"metadata":{},"status":"Success"}"#));
        let failed =
            "command terminated with non-zero exit code: error executing command [sh -c], exit code 3";
        assert_eq!(say(Ok(3), false).as_deref(), Some(failed));
        assert_eq!(
            say(Ok(3), true),
            Some(format!(
                r#"{{"metadata":{{}},"status":"Failure","message":"{failed}","reason":"NonZeroExitCode","details":{{"causes":[{{"reason":"ExitCode","message":"3"}}]}}}}"#
            ))
        );
        assert_eq!(say(Err("why".into()), false).as_deref(), Some("Internal error occurred: why"));
        let status = say(Err("why".into()), true).expect("a status");
        assert!(
            status.contains(r#""reason":"InternalError""#) && status.contains(r#""code":500"#),
            "{status}"
        );
    }
}
