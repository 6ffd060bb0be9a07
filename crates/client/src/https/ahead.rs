//! Reading ahead: TLS asks for 4 KiB at a time, which would be a system call each.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use base::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use bytes::{Buf as _, BytesMut};

/// How much is read at once, in bytes: two of TLS's largest records.
const READ_BYTES: usize = 32 * 1024;

/// A stream that is read in larger pieces than is asked for. A connection that waits holds no memory for that, and where
/// there are many, one after the other reads into what the last has left in the processor's caches.
#[derive(Debug)]
pub struct Ahead<S> {
    stream: S,
    read: BytesMut,
}

impl<S> Ahead<S> {
    /// Nothing has been read yet.
    pub fn new(stream: S) -> Ahead<S> {
        Ahead { stream, read: BytesMut::new() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ahead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            let mut read = BytesMut::with_capacity(READ_BYTES);
            ready!(pin!(self.stream.read_buf(&mut read)).poll(cx))?;
            self.read = read;
        }
        let some = self.read.len().min(out.remaining());
        out.put_slice(&self.read[..some]);
        self.read.advance(some);
        if self.read.is_empty() {
            self.read = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ahead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use base::io::AsyncWriteExt as _;

    use super::*;

    #[test]
    fn all_that_comes_is_read_in_order_and_nothing_is_held_at_the_end() {
        base::sim::run(1, async {
            let (near, mut far) = base::io::duplex(3 * READ_BYTES);
            let sent: Vec<u8> = (0..2 * READ_BYTES + 777).map(|n| (n % 251) as u8).collect();
            far.write_all(&sent).await.expect("room");
            let mut ahead = Ahead::new(near);
            let (mut got, mut some) = (Vec::new(), [0; 4096]);
            while got.len() < sent.len() {
                let read = ahead.read(&mut some).await.expect("bytes");
                got.extend_from_slice(&some[..read]);
            }
            assert!(got == sent && ahead.read.is_empty());
            ahead.write_all(b"x").await.expect("room");
            assert_eq!(far.read_u8().await.expect("a byte"), b'x');
            drop(far);
            assert_eq!(ahead.read(&mut some).await.expect("the end"), 0);
        });
    }
}
