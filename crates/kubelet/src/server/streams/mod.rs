//! Streams of commands, containers and ports, whatever protocol carries them: one connection, many streams, bounded
//! queues. Who reads slowly holds up who writes; a stream that nobody reads any more is read away.

pub mod channels;
pub mod forward;
pub mod remote;
pub mod upgrade;

use std::collections::BTreeMap;
use std::time::Duration;

use apimachinery::codec::spdy::Headers;
use base::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use base::task::{self, Task};
use bytes::Bytes;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};

use channels::{Codec, Decode, Encode, Event, Out};

/// How many pieces wait for a stream's reader, and for the connection's writer.
const PIECES_MAX: usize = 16;
/// How much is read from, or written to, a connection at once.
const PIECE_BYTES: usize = 32 << 10;
/// How many streams a connection may have.
const STREAMS_MAX: usize = 1000;
/// How long the other side may go on sending after the end: whoever closes on it would cut its last answer off.
const LINGER: Duration = Duration::from_secs(10);

/// One stream of a connection.
pub struct Stream {
    /// Its number.
    pub id: u32,
    /// What it is for.
    pub headers: Headers,
    /// What the other side sends, until it ends the stream.
    pub input: mpsc::Receiver<Bytes>,
    /// What the other side is sent.
    pub output: Output,
    /// The other side wants no more of it.
    pub reset: oneshot::Receiver<()>,
}

impl Stream {
    /// One of its headers, empty if it has none of that name (in lower case).
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }
}

/// The way to the other side of one stream.
#[derive(Clone)]
pub struct Output {
    id: u32,
    out: mpsc::Sender<Out>,
}

impl Output {
    /// Sends bytes; `false` when the connection is gone.
    pub async fn send(&self, bytes: impl Into<Bytes>) -> bool {
        self.out.send(Out::Data(self.id, bytes.into())).await.is_ok()
    }

    /// Sends no more.
    pub async fn end(&self) {
        // A connection that is gone has ended all of them.
        drop(self.out.send(Out::End(self.id)).await);
    }
}

/// A connection with streams.
pub struct Connection {
    /// Those that the other side opens; ends with the connection.
    pub streams: mpsc::Receiver<Stream>,
    out: mpsc::Sender<Out>,
    reader: Task<()>,
    writer: Task<()>,
}

impl Connection {
    /// Begins to read and write.
    pub fn start(io: impl AsyncRead + AsyncWrite + Send + 'static, (decode, encode): Codec) -> Connection {
        let (read, write) = tokio::io::split(io);
        let (opened, streams) = mpsc::channel(PIECES_MAX);
        let (out, queue) = mpsc::channel(PIECES_MAX);
        let reader = Reader { decode, out: out.clone(), opened, inputs: BTreeMap::new() };
        Connection {
            streams,
            out,
            reader: task::spawn(reader.run(read)),
            writer: task::spawn(write_all(write, encode, queue)),
        }
    }

    /// Waits for the other side's end.
    pub async fn lost(&mut self) {
        while self.streams.recv().await.is_some() {}
    }

    /// Says goodbye and waits until everything is sent, and for a while until the other side goes too.
    pub async fn finish(self) {
        let Connection { streams, out, reader, writer } = self;
        drop(streams);
        // It fails when the other side has gone first.
        drop(out.send(Out::Close).await);
        drop(out);
        writer.await;
        drop(base::time::timeout(LINGER, reader).await);
    }
}

/// What is known of an open stream: where its bytes go, and whom its reset concerns.
type Open = (Option<mpsc::Sender<Bytes>>, oneshot::Sender<()>);

struct Reader {
    decode: Box<dyn Decode>,
    out: mpsc::Sender<Out>,
    opened: mpsc::Sender<Stream>,
    inputs: BTreeMap<u32, Open>,
}

impl Reader {
    async fn run(mut self, mut from: ReadHalf<impl AsyncRead>) {
        let mut buffer = vec![0; PIECE_BYTES];
        loop {
            loop {
                match self.decode.next() {
                    Ok(Some(Event::Close)) => {
                        drop(self.out.send(Out::Close).await);
                        return;
                    }
                    Ok(Some(event)) => {
                        if !self.take(event).await {
                            return;
                        }
                    }
                    Ok(None) => break,
                    Err(why) => return tracing::debug!(%why, "stream connection broke"),
                }
            }
            match from.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(n) => self.decode.feed(&buffer[..n]),
            }
        }
    }

    /// `false` when there are too many streams.
    async fn take(&mut self, event: Event) -> bool {
        match event {
            Event::Open(id, headers) => {
                self.inputs.retain(|_, (input, reset)| input.is_some() || !reset.is_closed());
                if self.inputs.len() >= STREAMS_MAX {
                    return false;
                }
                let (sender, input) = mpsc::channel(PIECES_MAX);
                let (resets, reset) = oneshot::channel();
                let output = Output { id, out: self.out.clone() };
                self.inputs.insert(id, (Some(sender), resets));
                // Who takes no more streams is about to end the connection.
                drop(self.opened.send(Stream { id, headers, input, output, reset }).await);
            }
            Event::Data(id, bytes) => {
                if let Some((Some(input), _)) = self.inputs.get(&id)
                    && input.send(bytes).await.is_err()
                    && let Some((input, _)) = self.inputs.get_mut(&id)
                {
                    *input = None;
                }
            }
            Event::End(id) => {
                if let Some((input, _)) = self.inputs.get_mut(&id) {
                    *input = None;
                }
            }
            Event::Reset(id) => {
                if let Some((_, reset)) = self.inputs.remove(&id) {
                    // Nobody listens when it has ended on this side.
                    reset.send(()).ok();
                }
            }
            Event::Answer(out) => drop(self.out.send(out).await),
            Event::Close => {}
        }
        true
    }
}

async fn write_all(
    mut to: WriteHalf<impl AsyncWrite>,
    mut encode: Box<dyn Encode>,
    mut queue: mpsc::Receiver<Out>,
) {
    let mut bytes = Vec::new();
    let mut closing = false;
    while let (false, Some(first)) = (closing, queue.recv().await) {
        let mut next = Some(first);
        while let Some(out) = next {
            closing = out == Out::Close;
            encode.encode(&out, &mut bytes);
            next = if closing || bytes.len() >= PIECE_BYTES { None } else { queue.try_recv().ok() };
        }
        if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
            return;
        }
        bytes.clear();
    }
    // The reader sees the same end.
    drop(to.shutdown().await);
}
