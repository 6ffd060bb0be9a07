//! The pod network with real packets. Needs root; every test makes its own network namespaces and leaves the
//! machine's own alone.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use network::link::{Links, MAIN_TABLE};
use network::nft::Nft;
use network::{
    HostPort, IpNet, PodNetwork, PodNetworkConfig, create_netns, forward_obstacles, in_netns, remove_netns,
};

const WAIT: Duration = Duration::from_secs(60);

/// Namespaces of one test, removed at its end.
struct World {
    dir: tempfile::TempDir,
    made: Vec<PathBuf>,
}

impl World {
    fn new() -> World {
        World { dir: tempfile::tempdir().unwrap(), made: Vec::new() }
    }

    fn netns(&mut self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        create_netns(&path).unwrap();
        create_netns(&path).unwrap();
        self.made.push(path.clone());
        path
    }

    fn config(&mut self, cidrs: &[&str]) -> PodNetworkConfig {
        PodNetworkConfig {
            bridge: "keelson0".into(),
            pod_cidrs: cidrs.iter().map(|c| c.parse().unwrap()).collect(),
            cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap()],
            service_cidrs: vec!["10.96.0.0/12".parse().unwrap()],
            mtu: 1450,
            netns: Some(self.netns("node")),
            state_dir: self.dir.path().join("state"),
            prefix: "keelson".into(),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for path in &self.made {
            remove_netns(path).unwrap();
            assert!(!path.exists());
        }
    }
}

fn inside<T: Send>(netns: &Path, f: impl FnOnce() -> T + Send) -> T {
    in_netns(Some(netns), f).unwrap()
}

/// Listens in `netns`, connects from `from`, and gives the client's address as the server saw it.
fn connect(from: &Path, netns: &Path, at: SocketAddr) -> std::io::Result<IpAddr> {
    let listener = inside(netns, || TcpListener::bind(at)).unwrap();
    let client = inside(from, || TcpStream::connect_timeout(&at, WAIT));
    let mut client = client?;
    let (mut server, peer) = listener.accept()?;
    client.write_all(b"hello")?;
    drop(client);
    let mut text = String::new();
    server.read_to_string(&mut text)?;
    assert_eq!(text, "hello");
    Ok(peer.ip())
}

/// What a machine's network looks like: links, rules, routing rules, routes, settings.
fn snapshot(netns: &Path) -> Vec<String> {
    inside(netns, || {
        let mut links = Links::open().unwrap();
        let mut out: Vec<String> =
            links.links().unwrap().iter().map(|l| format!("{} {}", l.name, l.up)).collect();
        out.push(format!("rules {}", links.rule_count().unwrap()));
        for ipv6 in [false, true] {
            let routes = links.routes(MAIN_TABLE, ipv6).unwrap();
            // The kernel's own routes for the link-local range come and go with the links.
            out.push(format!(
                "{:?}",
                routes.iter().filter(|r| !ipv6 || r.device.is_none()).collect::<Vec<_>>()
            ));
        }
        out.push(format!("{:?}", Nft::open().unwrap().tables().unwrap()));
        for name in ["ipv4", "ipv6", "bridge"] {
            settings(&PathBuf::from("/proc/sys/net").join(name), &mut out);
        }
        out
    })
}

fn settings(dir: &Path, out: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let mut paths: Vec<_> = entries.flatten().map(|e| e.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            settings(&path, out);
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            // Random keys and counters of the whole machine.
            let name = path.display().to_string();
            if !["secret", "random", "mem", "max", "entries", "route/"].iter().any(|w| name.contains(w)) {
                out.push(format!("{name} {}", text.trim()));
            }
        }
    }
}

#[test]
fn pods_reach_each_other_the_gateway_and_outside() {
    let mut world = World::new();
    let config = world.config(&["10.42.3.0/24"]);
    let node = config.netns.clone().unwrap();
    let net = PodNetwork::open(config).unwrap();
    net.setup().unwrap();
    net.setup().unwrap();
    let (a, b, outside) = (world.netns("a"), world.netns("b"), world.netns("outside"));
    let address_a = net.attach(&a, "pod-a").unwrap()[0];
    let address_b = net.attach(&b, "pod-b").unwrap()[0];
    assert_eq!(net.attach(&a, "pod-a").unwrap(), [address_a]);
    assert_eq!((address_a.to_string(), address_b.to_string()), ("10.42.3.2".into(), "10.42.3.3".into()));

    assert_eq!(connect(&a, &b, SocketAddr::new(address_b, 80)).unwrap(), address_a);
    let gateway = net.gateways()[0];
    assert_eq!(connect(&a, &node, SocketAddr::new(gateway, 80)).unwrap(), address_a);
    assert_eq!(connect(&node, &a, SocketAddr::new(address_a, 80)).unwrap(), gateway);
    assert_eq!(connect(&a, &a, "127.0.0.1:80".parse().unwrap()).unwrap().to_string(), "127.0.0.1");

    let outer = wire(&node, &outside);
    assert_eq!(connect(&a, &outside, SocketAddr::new(outer, 80)).unwrap().to_string(), "192.0.2.1");

    // A Service without a rule is unreachable at once, from pods and from the node itself.
    for from in [&a, &node] {
        let err =
            inside(from, || TcpStream::connect_timeout(&"10.96.0.9:80".parse().unwrap(), WAIT)).unwrap_err();
        let refused = [libc::EHOSTUNREACH, libc::ENETUNREACH, libc::ECONNREFUSED];
        assert!(err.raw_os_error().is_some_and(|e| refused.contains(&e)), "{err}");
    }
    assert!(forward_obstacles(Some(&node), "keelson0").unwrap().is_empty());
}

/// A wire from the node (192.0.2.1) to another machine, whose address is returned.
fn wire(node: &Path, outside: &Path) -> IpAddr {
    let other = std::fs::File::open(outside).unwrap();
    let prepare = |name: &'static str, address: &str| {
        let mut links = Links::open().unwrap();
        let index = links.find(name).unwrap().unwrap().index;
        links.add_address(index, address.parse().unwrap(), 24).unwrap();
        links.set_up(name).unwrap();
        index
    };
    inside(node, || {
        Links::open()
            .unwrap()
            .add_veth("wire", 0, 1500, "eth0", [2, 0, 0, 0, 0, 9], 0, other.as_fd())
            .unwrap();
        prepare("wire", "192.0.2.1")
    });
    inside(outside, || prepare("eth0", "192.0.2.9"));
    "192.0.2.9".parse().unwrap()
}

#[test]
fn a_restart_keeps_addresses_and_links_and_a_new_sandbox_gets_them_again() {
    let mut world = World::new();
    let config = world.config(&["10.42.3.0/24"]);
    let net = PodNetwork::open(config.clone()).unwrap();
    net.setup().unwrap();
    let (a, b) = (world.netns("a"), world.netns("b"));
    let first = net.attach(&a, "pod-a").unwrap();
    let index = || inside(&a, || Links::open().unwrap().find("eth0").unwrap().unwrap().index);
    let before = index();
    drop(net);

    let net = PodNetwork::open(config).unwrap();
    net.setup().unwrap();
    assert_eq!(net.attach(&a, "pod-a").unwrap(), first);
    assert_eq!(index(), before, "the link was kept");
    assert_eq!(net.attach(&b, "pod-a").unwrap(), first);
    assert_eq!(
        inside(&a, || Links::open().unwrap().find("eth0").unwrap()),
        None,
        "the old sandbox's is gone"
    );

    net.detach("pod-a").unwrap();
    net.detach("pod-a").unwrap();
    assert!(net.list().unwrap().is_empty());
    assert_eq!(inside(&b, || Links::open().unwrap().find("eth0").unwrap()), None);
}

#[test]
fn teardown_leaves_nothing() {
    let mut world = World::new();
    let config = world.config(&["10.42.3.0/24", "fd00:42:3::/64"]);
    let (node, state) = (config.netns.clone().unwrap(), config.state_dir.clone());
    let before = snapshot(&node);
    let net = PodNetwork::open(config.clone()).unwrap();
    net.setup().unwrap();
    let a = world.netns("a");
    net.attach(&a, "pod-a").unwrap();
    assert_ne!(snapshot(&node), before);
    // By another process than the one that made it.
    drop(net);
    let net = PodNetwork::open(config).unwrap();
    net.teardown().unwrap();
    net.teardown().unwrap();
    assert_eq!(snapshot(&node), before);
    assert_eq!(std::fs::read_dir(state).unwrap().count(), 0);
}

#[test]
fn ports_of_the_machine_lead_to_pods() {
    let mut world = World::new();
    let config = world.config(&["10.42.3.0/24"]);
    let node = config.netns.clone().unwrap();
    let net = PodNetwork::open(config).unwrap();
    net.setup().unwrap();
    let gateway = net.gateways()[0];
    let (a, b) = (world.netns("a"), world.netns("b"));
    let pods = [net.attach(&a, "pod-a").unwrap()[0], net.attach(&b, "pod-b").unwrap()[0]];
    let port = |address: Option<&str>, protocol, port, pod_port| HostPort {
        address: address.map(|a| a.parse().unwrap()),
        protocol,
        port,
        pod_port,
    };
    let local = Some("127.0.0.1");
    net.set_host_ports("pod-a", &[port(None, 6, 8080, 80), port(None, 17, 5353, 53)]).unwrap();
    net.set_host_ports("pod-b", &[port(local, 6, 8081, 80), port(local, 17, 5354, 53)]).unwrap();
    // Who asks, where, and who answers.
    for (from, at, pod) in [
        (&node, "127.0.0.1:8080".parse().unwrap(), 0),
        (&node, SocketAddr::new(gateway, 8080), 0),
        (&b, SocketAddr::new(gateway, 8080), 0),
        (&a, SocketAddr::new(gateway, 8080), 0),
        (&node, "127.0.0.1:8081".parse().unwrap(), 1),
    ] {
        let listener = inside([&a, &b][pod], || TcpListener::bind(SocketAddr::new(pods[pod], 80))).unwrap();
        let client = inside(from, || TcpStream::connect_timeout(&at, WAIT));
        assert!(client.is_ok(), "{from:?} {at}: {client:?}");
        listener.accept().unwrap();
    }
    let elsewhere = SocketAddr::new(gateway, 8081);
    assert!(inside(&b, || TcpStream::connect_timeout(&elsewhere, WAIT)).is_err(), "only at its address");
    let ask = |to: &str, pod: usize| {
        let netns = [&a, &b][pod];
        let server = inside(netns, || UdpSocket::bind(SocketAddr::new(pods[pod], 53))).unwrap();
        server.set_read_timeout(Some(WAIT)).unwrap();
        let client = inside(&node, || UdpSocket::bind("127.0.0.1:7777")).unwrap();
        client.set_read_timeout(Some(WAIT)).unwrap();
        client.send_to(b"q", to).unwrap();
        let (_, peer) = server.recv_from(&mut [0; 8]).unwrap();
        server.send_to(b"a", peer).unwrap();
        client.recv_from(&mut [0; 8]).unwrap();
    };
    ask("127.0.0.1:5353", 0);
    ask("127.0.0.1:5354", 1);
    // Another pod takes the port over: a client that keeps its socket finds it.
    net.detach("pod-a").unwrap();
    net.set_host_ports("pod-b", &[port(None, 17, 5353, 53)]).unwrap();
    ask("127.0.0.1:5353", 1);
    net.detach("pod-b").unwrap();
    let gone = inside(&node, || TcpStream::connect_timeout(&"127.0.0.1:8080".parse().unwrap(), WAIT));
    assert_eq!(gone.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn ipv6_beside_ipv4() {
    let mut world = World::new();
    let config = world.config(&["10.42.3.0/24", "fd00:42:3::/64"]);
    let net = PodNetwork::open(config).unwrap();
    net.setup().unwrap();
    let (a, b) = (world.netns("a"), world.netns("b"));
    let address_a = net.attach(&a, "pod-a").unwrap();
    let address_b = net.attach(&b, "pod-b").unwrap();
    for (from, to) in address_a.iter().zip(&address_b) {
        assert_eq!(connect(&a, &b, SocketAddr::new(*to, 80)).unwrap(), *from);
    }
}

#[test]
fn another_programs_drop_is_seen_and_connections_are_tracked_and_deleted() {
    use network::conntrack::Conntrack;
    use network::nft::{Base, Batch, Chain, ChainKind, Family, Hook, Table};
    let mut world = World::new();
    let config = world.config(&["10.42.3.0/24"]);
    let node = config.netns.clone().unwrap();
    let net = PodNetwork::open(config).unwrap();
    net.setup().unwrap();
    let (a, b) = (world.netns("a"), world.netns("b"));
    net.attach(&a, "pod-a").unwrap();
    let to = SocketAddr::new(net.attach(&b, "pod-b").unwrap()[0], 53);

    let server = inside(&b, || UdpSocket::bind(to)).unwrap();
    let client = inside(&a, || UdpSocket::bind("0.0.0.0:0")).unwrap();
    client.send_to(b"x", to).unwrap();
    server.set_read_timeout(Some(WAIT)).unwrap();
    server.recv_from(&mut [0; 8]).unwrap();
    inside(&node, || {
        let mut tracked = Conntrack::open().unwrap();
        let udp =
            |c: &network::conntrack::Connection| c.protocol == 17 && c.destination == to && c.answerer == to;
        assert_eq!(tracked.delete_where(false, udp).unwrap(), 1);
        assert!(!tracked.list(false).unwrap().iter().any(udp));
    });

    let mut foreign = Table::new(Family::Ip, "filter");
    let base = Base { kind: ChainKind::Filter, hook: Hook::Forward, priority: 0, drop: true };
    foreign.chains.insert("FORWARD".into(), Chain { base: Some(base), rules: Vec::new() });
    let mut batch = Batch::new();
    foreign.replace(&mut batch);
    inside(&node, || Nft::open().unwrap().commit(&batch)).unwrap();
    let found = forward_obstacles(Some(&node), "keelson0").unwrap();
    assert!(found.len() == 1 && found[0].contains("iptables -I FORWARD -i keelson0"), "{found:?}");

    // The kernel's refusal comes back to the object it is about, and nothing of the batch is done.
    let mut batch = Batch::new();
    batch.add_table(Family::Ip, "half");
    batch.add_rule(&Table::new(Family::Ip, "half"), "missing", &[]);
    let err = inside(&node, || Nft::open().unwrap().commit(&batch)).unwrap_err();
    assert_eq!(err.errno(), Some(libc::ENOENT));
    assert!(err.to_string().contains("chain ip half missing"), "{err}");
    assert!(!inside(&node, || Nft::open().unwrap().tables().unwrap()).iter().any(|(_, name)| name == "half"));
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let mut world = World::new();
    let good = world.config(&["10.42.3.0/24"]);
    let net = |s: &str| -> IpNet { s.parse().unwrap() };
    let cases: [(&str, PodNetworkConfig); 4] = [
        ("bridge", PodNetworkConfig { bridge: "a-name-that-is-too-long".into(), ..good.clone() }),
        ("pod_cidrs", PodNetworkConfig { pod_cidrs: vec![], ..good.clone() }),
        (
            "pod_cidrs",
            PodNetworkConfig { pod_cidrs: vec![net("10.0.0.0/24"), net("10.1.0.0/24")], ..good.clone() },
        ),
        ("mtu", PodNetworkConfig { mtu: 100, ..good.clone() }),
    ];
    for (field, config) in cases {
        let err = PodNetwork::open(config).unwrap_err();
        assert!(matches!(&err, network::Error::Config { field: f, .. } if *f == field), "{field}: {err}");
    }
}
