//! What a stream of bytes is; the streams themselves are made where the world begins.

pub use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, duplex, split};
