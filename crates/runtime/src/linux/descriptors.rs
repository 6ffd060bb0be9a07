//! Descriptors that go from one process to another over a Unix socket (`SCM_RIGHTS`), and are waited for.
#![allow(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use tokio::io::unix::AsyncFd;

/// The most descriptors that one message carries.
pub const DESCRIPTORS_MAX: usize = 4;

/// Two connected sockets.
///
/// # Errors
/// When there are no descriptors left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// Sends what of `bytes` (not empty) the socket takes, the descriptors with the first of them.
///
/// # Errors
/// As `sendmsg`.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    Ok(rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Receives what there is: how many bytes, and the descriptors that came with them, which close on exec.
///
/// # Errors
/// As `recvmsg`.
pub fn receive_into(socket: BorrowedFd<'_>, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    )?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(came) = message {
            fds.extend(came);
        }
    }
    Ok(got.bytes)
}

/// The one descriptor that has come.
///
/// # Errors
/// When none has.
pub fn receive(socket: BorrowedFd<'_>) -> Result<OwnedFd, String> {
    let mut fds = Vec::new();
    receive_into(socket, &mut [0], &mut fds).map_err(|e| format!("receive a descriptor: {e}"))?;
    fds.pop().ok_or_else(|| "no descriptor came".to_owned())
}

/// A descriptor that tells when it can be read and written.
///
/// # Errors
/// When it is of a kind that cannot be polled.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned, so it is open and its own number until it is dropped with its registration.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
