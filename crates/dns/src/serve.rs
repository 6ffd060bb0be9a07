//! The sockets: UDP and TCP on one address.

use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use domain::base::Message;
use domain::base::iana::Rcode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use crate::answer::{Outcome, answer, failed};
use crate::forward::Forwarder;
use crate::zone::Zone;

/// The largest question that is read, in bytes.
pub(crate) const QUESTION_BYTES_MAX: usize = 4096;
/// What fits an answer over UDP unless the client says otherwise, in bytes. Source: RFC 1035.
const PLAIN_UDP_BYTES: usize = 512;
/// Questions being forwarded and connections open at once; more are dropped, and asked again by their clients.
const TOGETHER_MAX: usize = 1024;
/// How long a TCP client may be silent.
const TCP_IDLE_MAX: Duration = Duration::from_secs(10);

/// What all sockets share.
pub(crate) struct Shared {
    pub(crate) zone: RwLock<Zone>,
    pub(crate) forwarder: Forwarder,
    together: Semaphore,
}

impl Shared {
    pub(crate) fn new(zone: Zone, forwarder: Forwarder) -> Shared {
        Shared { zone: RwLock::new(zone), forwarder, together: Semaphore::new(TOGETHER_MAX) }
    }

    /// The answer at once, in at most `room` bytes, if the zone has it; else the question must be passed on.
    fn local(&self, request: Message<&[u8]>, room: usize) -> Outcome {
        answer(&self.zone.read().expect("nobody panics holding it"), request, room)
    }

    async fn forwarded(&self, request: &[u8], tcp: bool) -> Option<Vec<u8>> {
        match self.forwarder.ask(request, tcp).await {
            Some(reply) => Some(reply),
            None => Some(failed(question(request)?, Rcode::SERVFAIL)),
        }
    }
}

pub(crate) async fn udp(socket: UdpSocket, shared: Arc<Shared>) -> std::io::Result<()> {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; QUESTION_BYTES_MAX];
    loop {
        let (n, from) = match socket.recv_from(&mut buffer).await {
            Ok(got) => got,
            // An ICMP error of an earlier answer; nothing is wrong with the socket.
            Err(err) if err.kind() == std::io::ErrorKind::ConnectionRefused => continue,
            Err(err) => return Err(err),
        };
        let Some(request) = question(&buffer[..n]) else { continue };
        match shared.local(request, room(request)) {
            Outcome::Reply(reply) => send(&socket, from, Some(reply)).await,
            Outcome::Forward => {
                let (socket, shared, bytes) =
                    (Arc::clone(&socket), Arc::clone(&shared), buffer[..n].to_vec());
                base::task::spawn(async move {
                    let Ok(_place) = shared.together.try_acquire() else { return };
                    send(&socket, from, shared.forwarded(&bytes, false).await).await;
                })
                .detach();
            }
        }
    }
}

/// The question in a packet. Answers are none: two servers, or one and itself, would answer each other for ever once
/// somebody sent one in the other's name.
fn question(bytes: &[u8]) -> Option<Message<&[u8]>> {
    Message::from_octets(bytes).ok().filter(|m| !m.header().qr())
}

/// How many bytes the client takes over UDP.
fn room(request: Message<&[u8]>) -> usize {
    request.opt().map_or(PLAIN_UDP_BYTES, |opt| usize::from(opt.udp_payload_size()).max(PLAIN_UDP_BYTES))
}

async fn send(socket: &UdpSocket, to: SocketAddr, reply: Option<Vec<u8>>) {
    if let Some(reply) = reply
        && let Err(err) = socket.send_to(&reply, to).await
    {
        tracing::debug!(%to, %err, "send DNS answer");
    }
}

pub(crate) async fn tcp(listener: TcpListener, shared: Arc<Shared>) -> std::io::Result<()> {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            // A client that was gone already ends nothing but its own connection.
            Err(err) if err.kind() == std::io::ErrorKind::ConnectionAborted => continue,
            Err(err) => return Err(err),
        };
        let shared = Arc::clone(&shared);
        base::task::spawn(async move {
            let Ok(_place) = shared.together.try_acquire() else { return };
            if let Err(err) = connection(stream, &shared).await {
                tracing::debug!(%peer, %err, "DNS connection ended");
            }
        })
        .detach();
    }
}

async fn connection(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    loop {
        let Ok(length) = base::time::timeout(TCP_IDLE_MAX, stream.read_u16()).await else { return Ok(()) };
        let length = usize::from(match length {
            Ok(length) => length,
            Err(err) if err.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(err) => return Err(err),
        });
        if length > QUESTION_BYTES_MAX {
            return Ok(());
        }
        let mut bytes = vec![0; length];
        let Ok(read) = base::time::timeout(TCP_IDLE_MAX, stream.read_exact(&mut bytes)).await else {
            return Ok(());
        };
        read?;
        let Some(request) = question(&bytes) else { return Ok(()) };
        let reply = match shared.local(request, usize::from(u16::MAX)) {
            Outcome::Reply(reply) => Some(reply),
            Outcome::Forward => shared.forwarded(&bytes, true).await,
        };
        let Some(reply) = reply else { return Ok(()) };
        let length = u16::try_from(reply.len()).map_err(|_| std::io::ErrorKind::InvalidData)?;
        let bytes = [&length.to_be_bytes()[..], &reply].concat();
        let Ok(written) = base::time::timeout(TCP_IDLE_MAX, stream.write_all(&bytes)).await else {
            return Ok(());
        };
        written?;
    }
}

#[cfg(test)]
mod tests {
    use domain::base::MessageBuilder;

    use super::*;

    #[test]
    fn answers_are_no_questions() {
        let mut message = MessageBuilder::new_vec();
        assert!(question(message.as_slice()).is_some());
        message.header_mut().set_qr(true);
        assert!(question(message.as_slice()).is_none());
        assert!(question(&message.as_slice()[..5]).is_none());
    }
}
