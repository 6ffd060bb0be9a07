//! Questions about the rest of the world: passed on as they are to the machine's own name servers.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base::hash::Set;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// How long one name server may take.
const SERVER_MAX: Duration = Duration::from_secs(2);
/// The largest answer over UDP, in bytes.
const UDP_BYTES_MAX: usize = 4096;

/// The name servers to ask, in order.
#[derive(Clone, Debug, Default)]
pub struct Forwarder {
    servers: Vec<SocketAddr>,
}

impl Forwarder {
    /// From the text of a `resolv.conf`. Addresses in `own` are left out, since asking ourselves would go round
    /// in circles.
    pub fn from_resolv_conf(text: &str, own: &[IpAddr]) -> Forwarder {
        let own: Set<IpAddr> = own.iter().copied().collect();
        let server = |line: &str| {
            let mut words = line.split_whitespace();
            let address: IpAddr = (words.next()? == "nameserver").then(|| words.next())??.parse().ok()?;
            (!own.contains(&address)).then_some(SocketAddr::new(address, 53))
        };
        Forwarder { servers: text.lines().filter_map(server).collect() }
    }

    /// The first answer that a name server gives; `None` when none does.
    pub async fn ask(&self, request: &[u8], tcp: bool) -> Option<Vec<u8>> {
        for server in &self.servers {
            let asked =
                async { if tcp { ask_tcp(*server, request).await } else { ask_udp(*server, request).await } };
            match base::time::timeout(SERVER_MAX, asked).await {
                Ok(Ok(reply)) => return Some(reply),
                Ok(Err(err)) => tracing::debug!(%server, %err, "ask name server"),
                Err(_) => tracing::debug!(%server, "name server does not answer"),
            }
        }
        None
    }
}

async fn ask_udp(server: SocketAddr, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(request).await?;
    let mut buffer = vec![0; UDP_BYTES_MAX];
    loop {
        let n = socket.recv(&mut buffer).await?;
        // Only the answer to this very question; anything else is a stray or a forgery.
        if n >= 2 && buffer[..2] == request[..2] {
            buffer.truncate(n);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(request.len()).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(request).await?;
    let length = stream.read_u16().await?;
    let mut reply = vec![0; usize::from(length)];
    stream.read_exact(&mut reply).await?;
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_not_asked() {
        let text = "# local\nnameserver 10.0.0.1\nsearch x\nnameserver 10.244.0.1\nnameserver fe80::1%eth0\n";
        let forwarder = Forwarder::from_resolv_conf(text, &["10.244.0.1".parse().expect("an address")]);
        assert_eq!(forwarder.servers, ["10.0.0.1:53".parse().expect("an address")]);
    }
}
