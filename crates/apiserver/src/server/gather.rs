//! Writes that leave together.
//!
//! HTTP/2 writes and flushes each frame of each stream by itself. What many streams of a connection have to tell then
//! costs a TLS record and a system call each, though it is made in one go.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use base::io::{AsyncRead, AsyncWrite, ReadBuf};

/// From how many bytes on they leave before more is taken: four of TLS's largest records.
const GATHERED_BYTES: usize = 64 * 1024;
/// How much room is always kept for the next writes.
const KEPT_BYTES: usize = 4 * 1024;

/// A connection whose writes wait for [`Gather::send`]; flushing does nothing. Clones are the same connection: one is
/// given to who writes, the other stays with who drives it and knows when it is done for the moment.
pub(super) struct Gather<S>(Arc<Mutex<Gathered<S>>>);

impl<S> Clone for Gather<S> {
    fn clone(&self) -> Self {
        Gather(Arc::clone(&self.0))
    }
}

struct Gathered<S> {
    stream: S,
    out: Vec<u8>,
    /// How much of `out` has left.
    left: usize,
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while self.left < self.out.len() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out[self.left..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.left += written,
            }
        }
        let sent = std::mem::take(&mut self.left);
        self.out.clear();
        // What was needed once is not kept for long: a connection says something now and then, be it a ping.
        if sent < self.out.capacity() / 4 {
            self.out.shrink_to(KEPT_BYTES.max(2 * sent));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    pub(super) fn new(stream: S) -> Gather<S> {
        Gather(Arc::new(Mutex::new(Gathered { stream, out: Vec::new(), left: 0 })))
    }

    fn lock(&self) -> MutexGuard<'_, Gathered<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something waits to be sent, and more would go with it.
    pub(super) fn has_room(&self) -> bool {
        (1..GATHERED_BYTES).contains(&self.lock().out.len())
    }

    /// Sends what has been written. While it is pending the task is woken when it can go on.
    ///
    /// # Errors
    /// When the connection breaks.
    pub(super) fn send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut own = self.lock();
        ready!(own.drain(cx))?;
        Pin::new(&mut own.stream).poll_flush(cx)
    }

    /// Takes what is written, once there is room for it.
    fn take(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut own = self.lock();
        if own.out.len() >= GATHERED_BYTES {
            ready!(own.drain(cx))?;
        }
        parts.iter().for_each(|part| own.out.extend_from_slice(part));
        Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gather<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.take(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.take(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send(cx))?;
        Pin::new(&mut self.lock().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use base::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn writes_leave_together_and_wait_for_a_slow_reader() {
        base::sim::run(1, async {
            let (stream, mut other) = base::io::duplex(GATHERED_BYTES);
            let driver = Gather::new(stream);
            let mut writer = driver.clone();
            writer.write_all(b"one").await.expect("taken");
            writer.flush().await.expect("nothing to do");
            let mut got = [0; 6];
            let unsent = futures_util::FutureExt::now_or_never(other.read(&mut got));
            assert!(unsent.is_none(), "it waits");
            writer.write_all(b"two").await.expect("taken");
            poll_fn(|cx| driver.send(cx)).await.expect("sent");
            assert_eq!(other.read(&mut got).await.expect("both"), 6);
            assert_eq!(&got, b"onetwo");

            for (some, room) in
                [(GATHERED_BYTES / 2, GATHERED_BYTES / 2), (0, GATHERED_BYTES / 2), (1, KEPT_BYTES)]
            {
                writer.write_all(&vec![0; some]).await.expect("taken");
                poll_fn(|cx| driver.send(cx)).await.expect("sent");
                other.read_exact(&mut vec![0; some]).await.expect("all");
                assert_eq!(driver.lock().out.capacity(), room, "after {some}");
            }

            let many: Vec<u8> = (0..5 * GATHERED_BYTES).map(|n| (n % 251) as u8).collect();
            let mut all = Vec::new();
            let write = async {
                writer.write_all(&many[..4 * GATHERED_BYTES]).await.expect("taken");
                for part in many[4 * GATHERED_BYTES..].chunks(1000) {
                    writer.write_all(part).await.expect("taken, as the other side reads");
                }
                writer.shutdown().await.expect("sent");
            };
            let read = async { other.read_to_end(&mut all).await.expect("the end") };
            futures_util::future::join(write, read).await;
            assert!(all == many, "{} bytes", all.len());
        });
    }
}
