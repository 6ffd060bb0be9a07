//! The netlink frame: messages with nested attributes out, replies in. Knows no family's commands.
//!
//! Upstream: Linux `include/uapi/linux/netlink.h`.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

use crate::Error;

/// The request flag every message carries.
pub const NLM_F_REQUEST: u16 = 1;
/// Asks for an acknowledgement.
pub const NLM_F_ACK: u16 = 4;
/// Asks for all objects.
pub const NLM_F_DUMP: u16 = 0x300;
/// Replaces an object that exists.
pub const NLM_F_REPLACE: u16 = 0x100;
/// Fails when the object exists.
pub const NLM_F_EXCL: u16 = 0x200;
/// Makes the object.
pub const NLM_F_CREATE: u16 = 0x400;
/// Adds to the end.
pub const NLM_F_APPEND: u16 = 0x800;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;
const NESTED: u16 = 0x8000;
/// The two flag bits of an attribute's type.
const TYPE_FLAGS: u16 = 0xc000;
/// The kernel fills dump replies up to 32 KiB; acknowledgements are capped by an option.
const RECEIVE_BYTES: usize = 128 * 1024;
/// One page of nftables objects makes at most this many replies before the socket would overflow.
const RECEIVE_QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// One or more messages, encoded.
#[derive(Clone, Debug, Default)]
pub struct Messages {
    bytes: Vec<u8>,
    start: usize,
}

impl Messages {
    /// Begins a message whose fixed header after netlink's own is `fixed`.
    pub fn begin(&mut self, kind: u16, flags: u16, seq: u32, fixed: &[u8]) {
        self.start = self.bytes.len();
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&seq.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(fixed);
        self.pad();
    }

    /// Ends the message begun last.
    pub fn end(&mut self) {
        let len = (self.bytes.len() - self.start) as u32;
        self.bytes[self.start..self.start + 4].copy_from_slice(&len.to_ne_bytes());
    }

    /// Adds flags to the message begun last.
    pub fn add_flags(&mut self, flags: u16) {
        let at = self.start + 6;
        let old = u16::from_ne_bytes([self.bytes[at], self.bytes[at + 1]]);
        self.bytes[at..at + 2].copy_from_slice(&(old | flags).to_ne_bytes());
    }

    /// How long the message begun last is so far, in bytes.
    pub fn message_len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// An attribute of raw bytes.
    pub fn attr(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(value.len() + 4).expect("attributes are chunked below 64 KiB");
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
    }

    /// A number in the machine's byte order, as rtnetlink has them.
    pub fn attr_u32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_ne_bytes());
    }

    /// A number in network byte order, as netfilter has them.
    pub fn attr_be32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// A wide number in network byte order.
    pub fn attr_be64(&mut self, kind: u16, value: u64) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// A text with its terminating zero.
    pub fn attr_str(&mut self, kind: u16, value: &str) {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.attr(kind, &bytes);
    }

    /// An attribute that contains what `f` writes.
    pub fn nest(&mut self, kind: u16, f: impl FnOnce(&mut Messages)) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&0u16.to_ne_bytes());
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        f(self);
        let len = u16::try_from(self.bytes.len() - at).expect("attributes are chunked below 64 KiB");
        self.bytes[at..at + 2].copy_from_slice(&len.to_ne_bytes());
    }

    /// Raw bytes inside a nest, such as the fixed header of a veth's peer.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    /// Everything written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// The attributes in `bytes`, flags stripped from their types. Ends at the first malformed one.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & !TYPE_FLAGS;
        let value = rest.get(4..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// The first attribute of type `kind` in `bytes`.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, _)| *k == kind).map(|(_, v)| v)
}

/// The text of an attribute, without its terminating zero.
pub fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

/// One message from the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Netlink's message type.
    pub kind: u16,
    /// The sequence number of the request it answers.
    pub seq: u32,
    /// Fixed header and attributes.
    pub body: Vec<u8>,
}

/// Splits one datagram into its messages.
fn split(mut bytes: &[u8], out: &mut Vec<Reply>) {
    while bytes.len() >= HEADER {
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let len = word(0) as usize;
        let Some(body) = bytes.get(HEADER..len) else { return };
        out.push(Reply { kind: word(4) as u16, seq: word(8), body: body.to_vec() });
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    }
}

/// The errno an error message carries: 0 for an acknowledgement; none for other messages.
fn error_of(reply: &Reply) -> Option<i32> {
    let code = reply.body.get(..4)?;
    (reply.kind == NLMSG_ERROR).then(|| -i32::from_ne_bytes([code[0], code[1], code[2], code[3]]))
}

/// A netlink socket; it belongs to the namespace of the thread that opened it, and works from any thread.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    seq: u32,
}

impl Socket {
    /// A socket for links, addresses and routes.
    pub fn route() -> Result<Socket, Error> {
        Self::open(None)
    }

    /// A socket for nftables and connection tracking.
    pub fn netfilter() -> Result<Socket, Error> {
        Self::open(Some(netlink::NETFILTER))
    }

    /// Without a protocol, the kernel's default, which is rtnetlink.
    fn open(protocol: Option<rustix::net::Protocol>) -> Result<Socket, Error> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
            .map_err(|e| Error::system("open netlink socket", e.into()))?;
        // Without the privilege the default size serves all but very large batches.
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&fd, RECEIVE_QUEUE_BYTES).is_err() {
            tracing::debug!("netlink receive buffer keeps its default size");
        }
        Ok(Socket { fd, seq: 0 })
    }

    /// The next sequence number.
    pub fn next_seq(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1).max(1);
        self.seq
    }

    /// Sends `f`'s message and waits for its acknowledgement. `action` names it in errors.
    pub fn request(&mut self, action: &str, f: impl FnOnce(&mut Messages, u32)) -> Result<(), Error> {
        let seq = self.next_seq();
        let mut messages = Messages::default();
        f(&mut messages, seq);
        messages.add_flags(NLM_F_ACK);
        self.send(&messages, action)?;
        loop {
            for reply in self.receive(action, RecvFlags::empty())? {
                match error_of(&reply) {
                    Some(0) if reply.seq == seq => return Ok(()),
                    Some(errno) if reply.seq == seq => return Err(refused(action, errno)),
                    _ => {}
                }
            }
        }
    }

    /// Sends `f`'s message and waits for the one object it asks for.
    pub fn get(&mut self, action: &str, f: impl FnOnce(&mut Messages, u32)) -> Result<Reply, Error> {
        let seq = self.next_seq();
        let mut messages = Messages::default();
        f(&mut messages, seq);
        self.send(&messages, action)?;
        loop {
            let answer = self.receive(action, RecvFlags::empty())?.into_iter().find(|r| r.seq == seq);
            match answer.as_ref().map(error_of) {
                None => {}
                Some(Some(errno)) => return Err(refused(action, errno)),
                Some(None) => return Ok(answer.expect("it was just looked at")),
            }
        }
    }

    /// Sends `f`'s message and collects all replies up to the end of the dump.
    pub fn dump(&mut self, action: &str, f: impl FnOnce(&mut Messages, u32)) -> Result<Vec<Reply>, Error> {
        let seq = self.next_seq();
        let mut messages = Messages::default();
        f(&mut messages, seq);
        messages.add_flags(NLM_F_DUMP);
        self.send(&messages, action)?;
        let mut out = Vec::new();
        loop {
            for reply in self.receive(action, RecvFlags::empty())? {
                if reply.seq != seq {
                    continue;
                }
                match error_of(&reply) {
                    Some(0) => return Ok(out),
                    Some(errno) => return Err(refused(action, errno)),
                    None if reply.kind == NLMSG_DONE => return Ok(out),
                    None => out.push(reply),
                }
            }
        }
    }

    /// Sends a batch and gives the errors and acknowledgements (errno 0) the kernel left, by sequence number.
    /// The kernel works through a batch before `send` returns, so nothing is waited for.
    pub(crate) fn transact(&mut self, messages: &Messages, action: &str) -> Result<Vec<(u32, i32)>, Error> {
        let room = messages.as_bytes().len() + RECEIVE_BYTES;
        // A batch is one datagram: it must fit into the send buffer as a whole.
        if rustix::net::sockopt::set_socket_send_buffer_size_force(&self.fd, room).is_err() {
            tracing::debug!("netlink send buffer keeps its default size");
        }
        let sent = self.send(messages, action);
        let mut out = Vec::new();
        loop {
            match self.receive(action, RecvFlags::DONTWAIT) {
                Ok(replies) => out.extend(replies.iter().filter_map(|r| Some((r.seq, error_of(r)?)))),
                Err(e) if e.errno() == Some(libc::EAGAIN) => break,
                // Too many errors for the queue: those that came say enough.
                Err(e) if e.errno() == Some(libc::ENOBUFS) => {}
                Err(e) => return Err(e),
            }
        }
        sent.map(|()| out)
    }

    fn send(&self, messages: &Messages, action: &str) -> Result<(), Error> {
        loop {
            match send(&self.fd, messages.as_bytes(), SendFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Error::system(action, e.into())),
            }
        }
    }

    fn receive(&self, action: &str, flags: RecvFlags) -> Result<Vec<Reply>, Error> {
        let mut buffer = vec![0u8; RECEIVE_BYTES];
        loop {
            match recv(&self.fd, &mut buffer[..], flags | RecvFlags::TRUNC) {
                Ok((_, len)) if len > RECEIVE_BYTES => {
                    return Err(Error::MalformedReply { action: action.to_owned() });
                }
                Ok((_, len)) => {
                    let mut out = Vec::new();
                    split(&buffer[..len], &mut out);
                    return Ok(out);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Error::system(action, e.into())),
            }
        }
    }
}

fn refused(action: &str, errno: i32) -> Error {
    Error::system(action, io::Error::from_raw_os_error(errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_nests_and_pads() {
        let mut m = Messages::default();
        m.begin(0x10, NLM_F_CREATE, 7, &[1, 2, 3, 4]);
        m.attr_str(3, "lo");
        m.nest(18, |m| m.attr(1, &[9]));
        m.end();
        #[rustfmt::skip]
        let want = [
            40, 0, 0, 0, 0x10, 0, 1, 4, 7, 0, 0, 0, 0, 0, 0, 0, // header
            1, 2, 3, 4,
            7, 0, 3, 0, b'l', b'o', 0, 0,
            12, 0, 18, 0x80, 5, 0, 1, 0, 9, 0, 0, 0,
        ];
        assert_eq!(m.as_bytes(), want);
        let inner = attribute(&want[20..], 18).unwrap();
        assert_eq!(attribute(inner, 1), Some(&[9u8][..]));
        assert_eq!(text(attribute(&want[20..], 3).unwrap()), "lo");
        let mut replies = Vec::new();
        split(&want, &mut replies);
        assert_eq!((replies.len(), replies[0].seq, replies[0].kind), (1, 7, 0x10));
    }

    #[test]
    fn malformed_attributes_end_the_walk() {
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[200, 0, 1, 0, 1, 1]).count(), 0);
        assert_eq!(attributes(&[4, 0, 1, 0, 9]).count(), 1);
    }
}
