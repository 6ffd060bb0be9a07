//! Names to addresses, as `/etc/hosts` and `/etc/resolv.conf` say: search domains, `ndots`, A queries over UDP.
//!
//! A static binary cannot use the C library's resolver. No cache, no TCP, no AAAA: the answers asked for here are small.
//! Source: resolv.conf(5), RFC 1035.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail};
use domain::base::iana::Rcode;
use domain::base::{Message, MessageBuilder, Name, Rtype};
use domain::rdata::A;
use tokio::net::UdpSocket;

/// How long one name server may take.
const SERVER_MAX: Duration = Duration::from_secs(1);
/// How often all name servers are asked the same question.
const ROUNDS_MAX: usize = 4;
/// The largest answer over UDP without EDNS is 512 bytes; some servers send more all the same.
const UDP_BYTES_MAX: usize = 4096;
/// `ndots` where nothing is said, and its largest value.
const NDOTS_DEFAULT: usize = 1;
const NDOTS_MAX: usize = 15;

/// What `/etc/resolv.conf` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf {
    /// Name servers, in the order to ask them.
    pub servers: Vec<SocketAddr>,
    /// Domains to try names in.
    pub search: Vec<String>,
    /// A name with at least so many dots is tried as it is first.
    pub ndots: usize,
}

/// What the name servers said about one name.
enum Said {
    Address(IpAddr),
    Nothing,
}

impl ResolvConf {
    /// Reads the file's text. What is not understood is ignored, as the C library does.
    pub fn parse(text: &str) -> ResolvConf {
        let mut out = ResolvConf { servers: Vec::new(), search: Vec::new(), ndots: NDOTS_DEFAULT };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|w| w.parse::<IpAddr>().ok());
                    out.servers.extend(address.map(|a| SocketAddr::new(a, 53)));
                }
                // The last of them counts.
                Some("search" | "domain") => {
                    out.search = words.map(|w| w.trim_end_matches('.').to_owned()).collect();
                }
                Some("options") => {
                    let ndots =
                        words.filter_map(|w| w.strip_prefix("ndots:")?.parse::<usize>().ok()).next_back();
                    out.ndots = ndots.map_or(out.ndots, |n| n.min(NDOTS_MAX));
                }
                _ => {}
            }
        }
        out
    }

    /// The full names to try for `name`, in order.
    pub fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(full) = name.strip_suffix('.') {
            return vec![full.to_owned()];
        }
        let mut out: Vec<String> = self.search.iter().map(|domain| format!("{name}.{domain}")).collect();
        let at = if name.matches('.').count() >= self.ndots { 0 } else { out.len() };
        out.insert(at, name.to_owned());
        out
    }

    /// The full name that exists, and its first address. An address in text is its own answer.
    ///
    /// # Errors
    /// When no candidate has an address, or no name server answers.
    pub async fn look_up(&self, name: &str) -> anyhow::Result<(String, IpAddr)> {
        if let Ok(address) = name.trim_matches(['[', ']']).parse() {
            return Ok((name.to_owned(), address));
        }
        let candidates = self.candidates(name);
        for full in &candidates {
            if let Said::Address(address) = self.ask(full).await? {
                return Ok((full.clone(), address));
            }
        }
        bail!("no such name: {name} (tried {})", candidates.join(", "))
    }

    async fn ask(&self, name: &str) -> anyhow::Result<Said> {
        let mut last = anyhow::anyhow!("/etc/resolv.conf names no server");
        for _ in 0..ROUNDS_MAX {
            for server in &self.servers {
                match base::time::timeout(SERVER_MAX, ask(*server, name)).await {
                    Ok(Ok(said)) => return Ok(said),
                    Ok(Err(err)) => last = err.context(format!("ask {server}")),
                    Err(_) => last = anyhow::anyhow!("{server} does not answer"),
                }
            }
        }
        Err(last.context(format!("look up {name}")))
    }
}

/// All addresses of a host: its own text, those of `/etc/hosts`, or the first that a name server gives.
///
/// # Errors
/// When nobody knows the name.
pub async fn addresses(host: String) -> std::io::Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let known = in_hosts(&read("/etc/hosts").await, &host);
    if !known.is_empty() {
        return Ok(known);
    }
    let conf = ResolvConf::parse(&read("/etc/resolv.conf").await);
    let found = conf.look_up(&host).await.map_err(|err| std::io::Error::other(format!("{err:#}")))?;
    Ok(vec![found.1])
}

/// A file's text; nothing if there is none, as the C library has it.
async fn read(path: &'static str) -> String {
    base::task::blocking(move || std::fs::read_to_string(path).unwrap_or_default()).await
}

fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let named = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    });
    named.collect()
}

async fn ask(server: SocketAddr, name: &str) -> anyhow::Result<Said> {
    let any: SocketAddr = if server.is_ipv4() { ([0u8; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await.context("bind")?;
    socket.connect(server).await.context("connect")?;
    let id = (base::rand::u64() & 0xffff) as u16;
    let mut question = MessageBuilder::new_vec();
    question.header_mut().set_id(id);
    question.header_mut().set_rd(true);
    let mut question = question.question();
    question.push((Name::vec_from_str(name)?, Rtype::A))?;
    socket.send(&question.finish()).await.context("send")?;
    let mut buffer = vec![0; UDP_BYTES_MAX];
    loop {
        let n = socket.recv(&mut buffer).await.context("receive")?;
        // Only the answer to this very question; anything else is a stray.
        let Ok(reply) = Message::from_octets(&buffer[..n]) else { continue };
        let header = reply.header();
        if header.id() != id || !header.qr() {
            continue;
        }
        return match header.rcode() {
            Rcode::NOERROR => first_address(&reply).context("its answer"),
            Rcode::NXDOMAIN => Ok(Said::Nothing),
            code => bail!("it answers {code}"),
        };
    }
}

fn first_address(reply: &Message<&[u8]>) -> anyhow::Result<Said> {
    let first = reply.answer()?.limit_to_in::<A>().next().transpose()?;
    Ok(first.map_or(Said::Nothing, |record| Said::Address(record.data().addr().into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "search myspace.svc.cluster.local svc.cluster.local cluster.local\n\
        nameserver 10.96.0.10\nnameserver fd00::a # second\n; a comment\noptions edns0 ndots:5\n";

    #[test]
    fn a_pods_file_is_understood() {
        let conf = ResolvConf::parse(POD);
        let servers: Vec<String> = conf.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.96.0.10:53", "[fd00::a]:53"]);
        assert_eq!(conf.ndots, 5);
        assert_eq!(
            conf.candidates("hello"),
            ["hello.myspace.svc.cluster.local", "hello.svc.cluster.local", "hello.cluster.local", "hello"]
        );
        assert_eq!(conf.candidates("a.b.c.d.e.f")[0], "a.b.c.d.e.f");
        assert_eq!(conf.candidates("example.org."), ["example.org"]);
        assert_eq!(ResolvConf::parse("domain x.\nsearch y z.\n").search, ["y", "z"]);
        assert_eq!(ResolvConf::parse("").candidates("a.b"), ["a.b"]);
    }

    #[test]
    fn hosts_files_are_read() {
        let text =
            "127.0.0.1 localhost\n::1 localhost ip6-localhost # two\n# 10.0.0.1 web\n10.0.0.2\tweb WWW\n";
        assert_eq!(in_hosts(text, "localhost").len(), 2);
        assert_eq!(in_hosts(text, "www"), [IpAddr::from([10, 0, 0, 2])]);
        assert!(in_hosts(text, "two").is_empty());
    }

    #[tokio::test]
    async fn the_first_candidate_with_an_address_is_taken() {
        let server = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
        let conf = ResolvConf {
            servers: vec![server.local_addr().expect("address")],
            search: vec!["ns.svc.x".into(), "svc.x".into()],
            ndots: 5,
        };
        let answering = base::task::spawn(async move {
            let mut buffer = vec![0; 512];
            // The first question is lost on the way.
            server.recv_from(&mut buffer).await.expect("receive");
            loop {
                let (n, peer) = server.recv_from(&mut buffer).await.expect("receive");
                let asked = Message::from_octets(&buffer[..n]).expect("a message");
                let name = asked.sole_question().expect("a question").into_qname();
                let known = name.to_string() == "web.svc.x";
                let code = if known { Rcode::NOERROR } else { Rcode::NXDOMAIN };
                let mut reply = MessageBuilder::new_vec().start_error(&asked, code);
                if known {
                    reply.push((name, 30, A::from_octets(10, 1, 2, 3))).expect("room");
                }
                server.send_to(&reply.finish(), peer).await.expect("send");
            }
        });
        let (name, address) = conf.look_up("web").await.expect("found");
        assert_eq!((name.as_str(), address), ("web.svc.x", [10, 1, 2, 3].into()));
        let refused = conf.look_up("other").await.expect_err("nobody has that name").to_string();
        assert_eq!(refused, "no such name: other (tried other.ns.svc.x, other.svc.x, other)");
        drop(answering);
    }
}
