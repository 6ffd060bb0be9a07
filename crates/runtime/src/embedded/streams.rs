//! Streams of commands and containers: descriptors that a shim hands over, each on a connection of its own, so that
//! the kernel's pipes do all the holding back, and a command ends with the connection that asked for it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base::task;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::sync::watch;

use super::Inner;
use super::client::CallError;
use crate::linux::{descriptors, terminal};
use crate::shim::protocol::{Call, Descriptor, Message, Reply, Request, encode, lengths};
use crate::{BoxFuture, ContainerId, Error, Result, SandboxId, StreamOptions, Streams};

/// How much is read of a shim's connection at once.
const READ_BYTES: usize = 4096;
/// How long a terminal's last words may be on their way when its program has ended: the kernel brings them with a
/// task of its own. Usually the terminal's end comes first.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// When the program at the other end has ended.
type Ended = watch::Receiver<bool>;

impl Inner {
    /// See [`Runtime::exec`](crate::Runtime::exec).
    pub(super) async fn exec_stream(
        self: Arc<Self>,
        id: ContainerId,
        cmd: Vec<String>,
        wants: StreamOptions,
    ) -> Result<Streams> {
        let (mut line, fds) = self.ask(&id, Call::ExecStream { id: id.clone(), cmd, wants }).await?;
        let (ending, ended) = watch::channel(false);
        let code = task::spawn(async move {
            let answer = line.receive(&mut Vec::new()).await;
            // Its streams may have been given up.
            ending.send_replace(true);
            match answer {
                Ok(Reply::Exec { exit_code, .. }) => Ok(exit_code),
                Ok(_) => Err(nonsense()),
                Err(CallError::Failed(failure)) => Err(Error::Shim { message: format!("{failure:?}") }),
                Err(CallError::Gone) => Err(Error::Shim { message: "the command's shim is gone".to_owned() }),
            }
        });
        streams(fds, wants, Some(&ended), Box::pin(code))
    }

    /// See [`Runtime::attach`](crate::Runtime::attach).
    pub(super) async fn attach(self: Arc<Self>, id: ContainerId, wants: StreamOptions) -> Result<Streams> {
        let (_, fds) = self.ask(&id, Call::Attach { id: id.clone(), wants }).await?;
        streams(fds, wants, None, Box::pin(std::future::ready(Ok(0))))
    }

    /// See [`Runtime::connect`](crate::Runtime::connect).
    pub(super) async fn connect(
        self: Arc<Self>,
        id: SandboxId,
        addresses: Vec<SocketAddr>,
    ) -> Result<TcpStream> {
        let sandbox = self.sandbox(&id)?;
        let mut last = Error::Invalid { field: "addresses", message: "there are none".to_owned() };
        for address in addresses {
            let mut line = Line::open(&sandbox.state().sandbox.socket, &id).await?;
            let answer = line.ask(Call::Socket { v6: address.is_ipv6() }).await;
            let (_, mut fds) = answer.map_err(|e| sandbox.error(e, None))?;
            let (_, socket) = fds.pop().ok_or_else(nonsense)?;
            match TcpSocket::from_std_stream(socket.into()).connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(e) => last = Error::io(format!("dial {address}"))(e),
            }
        }
        Err(last)
    }

    async fn ask(&self, id: &ContainerId, call: Call) -> Result<(Line, Vec<(Descriptor, OwnedFd)>)> {
        let sandbox = self.sandbox_of(id)?;
        let mut line = Line::open(&sandbox.state().sandbox.socket, &sandbox.id).await?;
        let (reply, fds) = line.ask(call).await.map_err(|e| sandbox.error(e, Some(id)))?;
        if matches!(reply, Reply::Streams(_)) { Ok((line, fds)) } else { Err(nonsense()) }
    }
}

fn nonsense() -> Error {
    Error::Shim { message: "it answered something else than was asked".to_owned() }
}

/// A connection to a shim for one call.
struct Line {
    stream: UnixStream,
    read: Vec<u8>,
}

impl Line {
    async fn open(socket: &Path, id: &SandboxId) -> Result<Line> {
        let gone = |e: io::Error| Error::ShimGone { id: id.to_string(), message: e.to_string() };
        Ok(Line { stream: UnixStream::connect(socket).await.map_err(gone)?, read: Vec::new() })
    }

    async fn ask(&mut self, call: Call) -> Result<(Reply, Vec<(Descriptor, OwnedFd)>), CallError> {
        let mut frame = Vec::new();
        encode(&Request { id: 1, call }, &[], &mut frame);
        self.stream.write_all(&frame).await.map_err(|_| CallError::Gone)?;
        let mut fds = Vec::new();
        let reply = self.receive(&mut fds).await?;
        let kinds = if let Reply::Streams(kinds) = &reply { kinds.clone() } else { Vec::new() };
        if kinds.len() != fds.len() {
            return Err(CallError::Gone);
        }
        Ok((reply, kinds.into_iter().zip(fds).collect()))
    }

    /// The next answer, and the descriptors that came by its end.
    async fn receive(&mut self, fds: &mut Vec<OwnedFd>) -> Result<Reply, CallError> {
        loop {
            if let Some(head) = self.read.first_chunk::<8>() {
                let (json, raw) = lengths(*head).ok_or(CallError::Gone)?;
                if let Some(body) = self.read[8..].get(..json) {
                    let message = serde_json::from_slice(body).map_err(|_| CallError::Gone)?;
                    self.read.drain(..(8 + json + raw).min(self.read.len()));
                    return match message {
                        Message::Reply { result, .. } => result.map_err(CallError::Failed),
                        Message::Changed(_) => Err(CallError::Gone),
                    };
                }
            }
            let mut buffer = [0; READ_BYTES];
            let receive = || descriptors::receive_into(self.stream.as_fd(), &mut buffer, fds);
            match self.stream.async_io(Interest::READABLE, receive).await {
                Ok(0) | Err(_) => return Err(CallError::Gone),
                Ok(n) => self.read.extend_from_slice(&buffer[..n]),
            }
        }
    }
}

fn streams(
    fds: Vec<(Descriptor, OwnedFd)>,
    wants: StreamOptions,
    ended: Option<&Ended>,
    exit: BoxFuture<'static, Result<i32>>,
) -> Result<Streams> {
    let mut out = Streams { stdin: None, stdout: None, stderr: None, resize: None, exit };
    for (kind, fd) in fds {
        match kind {
            Descriptor::Stdin => out.stdin = Some(Box::new(Pipe::new(fd, None)?)),
            Descriptor::Stdout => out.stdout = Some(Box::new(Pipe::new(fd, ended.map(|e| after(e, false)))?)),
            Descriptor::Stderr => out.stderr = Some(Box::new(Pipe::new(fd, ended.map(|e| after(e, false)))?)),
            Descriptor::Terminal => {
                let copy = || fd.try_clone().map_err(Error::io("copy a descriptor"));
                if wants.stdin {
                    out.stdin = Some(Box::new(Pipe::new(copy()?, None)?));
                }
                // An attached container's output goes to its log too, so it comes by a pipe of its own.
                if let (Some(ended), true) = (ended, wants.stdout) {
                    out.stdout = Some(Box::new(Pipe::new(copy()?, Some(after(ended, true)))?));
                }
                out.resize = Some(Box::new(move |columns, rows| {
                    // A terminal that is gone has no size.
                    drop(terminal::resize(&fd, columns, rows));
                }));
            }
            Descriptor::Socket => return Err(nonsense()),
        }
    }
    if !wants.stdout && !wants.tty {
        out.stdout = None;
    }
    if !wants.stderr {
        out.stderr = None;
    }
    Ok(out)
}

/// When what can still be read is all that will come: others may hold the other end open for ever.
fn after(ended: &Ended, terminal: bool) -> BoxFuture<'static, ()> {
    let mut ended = ended.clone();
    Box::pin(async move {
        // Nobody is left to say it: it has ended.
        drop(ended.wait_for(|ended| *ended).await);
        if terminal {
            base::time::sleep(LAST_WORDS).await;
        }
    })
}

/// One end of a pipe, or a terminal's master.
struct Pipe {
    fd: AsyncFd<OwnedFd>,
    ended: Option<BoxFuture<'static, ()>>,
    over: bool,
}

impl Pipe {
    fn new(fd: OwnedFd, ended: Option<BoxFuture<'static, ()>>) -> Result<Pipe> {
        let fd = descriptors::watch(fd).map_err(Error::io("watch a descriptor"))?;
        Ok(Pipe { fd, ended, over: false })
    }

    /// Reads what is there: a terminal without a program says EIO at its end.
    fn read(&self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        loop {
            match rustix::io::read(self.fd.get_ref(), buf.initialize_unfilled()) {
                Ok(n) => buf.advance(n),
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::IO) => {}
                Err(e) => return Err(e.into()),
            }
            return Ok(());
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(ended) = &mut self.ended
            && ended.as_mut().poll(cx).is_ready()
        {
            (self.ended, self.over) = (None, true);
        }
        if self.over {
            return match self.read(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Poll::Ready(Ok(())),
                read => Poll::Ready(read),
            };
        }
        loop {
            let mut guard = ready!(self.fd.poll_read_ready(cx))?;
            if let Ok(read) = guard.try_io(|_| self.read(buf)) {
                return Poll::Ready(read);
            }
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.fd.poll_write_ready(cx))?;
            match guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(written) => return Poll::Ready(written),
                Err(_) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Only dropping it closes it.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
