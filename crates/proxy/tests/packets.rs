//! Services with real packets. Needs root; the test makes its own network namespaces.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use network::link::Links;
use network::nft::Nft;
use network::{PodNetwork, PodNetworkConfig, create_netns, in_netns, remove_netns};
use proxy::apply::Applier;
use proxy::model::{Endpoint, Local, Protocol, ServicePort};
use proxy::render::render;

mod script;

const WAIT: Duration = Duration::from_secs(60);
/// How long the answer of a Service that drops is waited for.
const SHORT: Duration = Duration::from_millis(300);

struct World {
    dir: tempfile::TempDir,
    made: Vec<PathBuf>,
    net: PodNetwork,
    applier: Applier,
    services: Vec<ServicePort>,
    local: Local,
}

fn inside<T: Send>(netns: &Path, f: impl FnOnce() -> T + Send) -> T {
    in_netns(Some(netns), f).unwrap()
}

impl World {
    fn new(cidrs: &[&str]) -> World {
        let dir = tempfile::tempdir().unwrap();
        let node = dir.path().join("node");
        create_netns(&node).unwrap();
        let pod_cidrs: Vec<network::IpNet> = cidrs.iter().map(|c| c.parse().unwrap()).collect();
        let net = PodNetwork::open(PodNetworkConfig {
            bridge: "keelson0".into(),
            pod_cidrs: pod_cidrs.clone(),
            cluster_cidrs: Vec::new(),
            service_cidrs: vec!["10.96.0.0/12".parse().unwrap(), "fd00:96::/112".parse().unwrap()],
            mtu: 1450,
            netns: Some(node.clone()),
            state_dir: dir.path().join("state"),
            prefix: "keelson".into(),
        })
        .unwrap();
        net.setup().unwrap();
        let applier = Applier::open(Some(&node)).unwrap();
        let local = Local { prefix: "keelson".into(), pod_cidrs };
        World { dir, made: vec![node], net, applier, services: Vec::new(), local }
    }

    fn node(&self) -> PathBuf {
        self.made[0].clone()
    }

    fn netns(&mut self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        create_netns(&path).unwrap();
        self.made.push(path.clone());
        path
    }

    /// A pod that answers TCP and UDP on port 8080 with its name and the client's address.
    fn pod(&mut self, name: &'static str) -> (PathBuf, Vec<IpAddr>) {
        let netns = self.netns(name);
        let addresses = self.net.attach(&netns, name).unwrap();
        serve(&netns, name, 8080);
        (netns, addresses)
    }

    fn apply(&mut self) {
        self.applier.apply(render(&self.services, &self.local)).unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for path in &self.made {
            remove_netns(path).unwrap();
        }
    }
}

fn serve(netns: &Path, name: &'static str, port: u16) {
    let (tcp, udp) = inside(netns, || {
        let at: SocketAddr = format!("[::]:{port}").parse().unwrap();
        (TcpListener::bind(at).unwrap(), UdpSocket::bind(at).unwrap())
    });
    // The threads end with the test's process.
    std::thread::Builder::new()
        .spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.unwrap();
                let peer = stream.peer_addr().unwrap().ip().to_canonical();
                write!(stream, "{name} {peer}").unwrap();
            }
        })
        .unwrap();
    std::thread::Builder::new()
        .spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                udp.send_to(name.as_bytes(), peer).unwrap();
            }
        })
        .unwrap();
}

/// Name of the pod that answers, and the client's address as it saw it.
fn ask(from: &Path, to: &str) -> std::io::Result<(String, String)> {
    ask_for(from, to, WAIT)
}

fn ask_for(from: &Path, to: &str, wait: Duration) -> std::io::Result<(String, String)> {
    let to: SocketAddr = to.parse().unwrap();
    let mut stream = inside(from, || TcpStream::connect_timeout(&to, wait))?;
    stream.set_read_timeout(Some(WAIT))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (name, peer) = text.split_once(' ').expect("name and peer");
    Ok((name.to_owned(), peer.to_owned()))
}

fn names(from: &Path, to: &str, times: usize) -> BTreeSet<String> {
    (0..times).map(|_| ask(from, to).unwrap().0).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

/// A wire from the node (192.0.2.1) to another machine (192.0.2.9).
fn wire(node: &Path, outside: &Path) {
    let other = File::open(outside).unwrap();
    let prepare = |name: &'static str, address: &str| {
        let mut links = Links::open().unwrap();
        let index = links.find(name).unwrap().unwrap().index;
        links.add_address(index, address.parse().unwrap(), 24).unwrap();
        links.set_up(name).unwrap();
    };
    inside(node, || {
        Links::open()
            .unwrap()
            .add_veth("wire", 0, 1500, "eth0", [2, 0, 0, 0, 0, 9], 77, other.as_fd())
            .unwrap();
        prepare("wire", "192.0.2.1");
    });
    inside(outside, || prepare("eth0", "192.0.2.9"));
}

fn endpoint(address: IpAddr, local: bool) -> Endpoint {
    Endpoint { address, port: 8080, local, terminating: false }
}

#[test]
fn cluster_ip_node_port_hairpin_reject_policies_and_affinity() {
    let mut world = World::new(&["10.42.3.0/24"]);
    let node = world.node();
    let ((a, ip_a), (b, ip_b)) = (world.pod("a"), world.pod("b"));
    let outside = world.netns("outside");
    wire(&node, &outside);
    serve(&outside, "far", 8080);
    let both = vec![endpoint(ip_a[0], true), endpoint(ip_b[0], true)];
    let web = ServicePort {
        cluster_ips: vec!["10.96.0.10".parse().unwrap()],
        port: 80,
        node_port: Some(30080),
        endpoints: both.clone(),
        ..ServicePort::default()
    };
    let empty = ServicePort {
        cluster_ips: vec!["10.96.0.11".parse().unwrap()],
        node_port: Some(30081),
        endpoints: Vec::new(),
        ..web.clone()
    };
    world.services = vec![web.clone(), empty];
    world.apply();

    // From pods, from the node, from outside, by localhost: every endpoint has its turn.
    for from in [&a, &node] {
        assert_eq!(names(from, "10.96.0.10:80", 40), set(&["a", "b"]), "{from:?}");
    }
    assert_eq!(names(&outside, "192.0.2.1:30080", 40), set(&["a", "b"]));
    assert_eq!(names(&node, "127.0.0.1:30080", 40), set(&["a", "b"]));
    assert_eq!(names(&node, "192.0.2.1:30080", 40), set(&["a", "b"]));
    assert_eq!(names(&b, "10.42.3.1:30080", 40), set(&["a", "b"]));
    assert_eq!(ask(&outside, "192.0.2.1:30080").unwrap().1, "192.0.2.9", "answers come back this way");
    assert_eq!(ask(&node, "127.0.0.1:30080").unwrap().1, "10.42.3.1");
    // The same where the kernel cannot filter bridged frames (its setting is this namespace's own).
    let bridged = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    if Path::new(bridged).exists() {
        inside(&node, || std::fs::write(bridged, "0")).unwrap();
        assert_eq!(names(&a, "10.96.0.10:80", 40), set(&["a", "b"]));
        inside(&node, || std::fs::write(bridged, "1")).unwrap();
    }
    // The other pod sees the client; the pod itself sees the gateway.
    for _ in 0..20 {
        let (name, peer) = ask(&a, "10.96.0.10:80").unwrap();
        assert_eq!(peer, if name == "a" { "10.42.3.1".to_owned() } else { ip_a[0].to_string() });
    }

    for (from, to) in [
        (&a, "10.96.0.11:80"),
        (&node, "10.96.0.11:80"),
        (&outside, "192.0.2.1:30081"),
        (&a, "10.42.3.1:30081"),
    ] {
        assert_eq!(ask(from, to).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{from:?} {to}");
    }

    // An endpoint elsewhere: sources from outside are translated, or answers would not come back.
    let far = Endpoint { local: false, ..endpoint("192.0.2.9".parse().unwrap(), false) };
    world.services = vec![ServicePort { endpoints: vec![far], ..web.clone() }];
    world.apply();
    assert_eq!(ask(&a, "10.96.0.10:80").unwrap(), ("far".into(), "192.0.2.1".into()));
    assert_eq!(ask(&node, "10.96.0.10:80").unwrap(), ("far".into(), "192.0.2.1".into()));
    assert_eq!(ask(&outside, "192.0.2.1:30080").unwrap(), ("far".into(), "192.0.2.1".into()));

    // Local policies: outside and inside clients differ; without a local endpoint outside ones are dropped.
    let local = ServicePort { external_local: true, endpoints: vec![both[1], far], ..web.clone() };
    world.services = vec![local.clone()];
    world.apply();
    assert_eq!(names(&outside, "192.0.2.1:30080", 20), set(&["b"]));
    assert_eq!(names(&a, "10.42.3.1:30080", 40), set(&["b", "far"]));
    world.services = vec![ServicePort { endpoints: vec![far], internal_local: true, ..local }];
    world.apply();
    assert_eq!(ask_for(&outside, "192.0.2.1:30080", SHORT).unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(ask_for(&a, "10.96.0.10:80", SHORT).unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(names(&a, "10.42.3.1:30080", 3), set(&["far"]));

    // Affinity: one client stays, until its endpoint goes; then it stays with another, although the rest changes.
    let sticky =
        ServicePort { affinity_seconds: Some(60), endpoints: vec![both[0], both[1], far], ..web.clone() };
    world.services = vec![sticky.clone()];
    world.apply();
    let chosen = names(&outside, "192.0.2.1:30080", 20);
    assert_eq!(chosen.len(), 1);
    assert_eq!(names(&a, "10.96.0.10:80", 20).len(), 1);
    let name = |e: &Endpoint| {
        if e == &far {
            "far"
        } else if e == &both[0] {
            "a"
        } else {
            "b"
        }
    };
    let left: Vec<_> = sticky.endpoints.iter().filter(|e| !chosen.contains(name(e))).copied().collect();
    world.services = vec![ServicePort { endpoints: left, ..sticky.clone() }];
    world.apply();
    let after = names(&outside, "192.0.2.1:30080", 20);
    assert!(after.len() == 1 && after != chosen, "{after:?}");
    world.services = vec![sticky];
    world.apply();
    assert_eq!(names(&outside, "192.0.2.1:30080", 20), after);

    // Somebody flushes everything: the next change brings all of it back.
    let mut wipe = network::nft::Batch::new();
    wipe.delete_table(network::nft::Family::Ip, "keelson-proxy");
    inside(&node, || Nft::open().unwrap().commit(&wipe)).unwrap();
    world.services = vec![web];
    world.apply();
    assert_eq!(names(&a, "10.96.0.10:80", 40), set(&["a", "b"]));

    world.applier.teardown("keelson").unwrap();
    world.net.teardown().unwrap();
    assert!(inside(&node, || Nft::open().unwrap().tables().unwrap()).is_empty());
    assert!(b.exists());
}

#[test]
fn a_udp_client_follows_when_its_endpoint_goes() {
    let mut world = World::new(&["10.42.3.0/24"]);
    let ((client, _), (_, ip_b), (_, ip_c)) = (world.pod("client"), world.pod("b"), world.pod("c"));
    let dns = ServicePort {
        cluster_ips: vec!["10.96.0.10".parse().unwrap()],
        protocol: Protocol::Udp,
        port: 53,
        endpoints: vec![endpoint(ip_b[0], true)],
        ..ServicePort::default()
    };
    world.services = vec![dns.clone()];
    world.apply();
    // One socket all the time: the kernel keeps its translation.
    let socket = inside(&client, || UdpSocket::bind("0.0.0.0:0")).unwrap();
    socket.set_read_timeout(Some(WAIT)).unwrap();
    socket.connect("10.96.0.10:53").unwrap();
    let ask = || -> std::io::Result<String> {
        let mut buffer = [0; 64];
        socket.send(b"?")?;
        let len = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
    };
    assert_eq!(ask().unwrap(), "b");
    world.services = vec![ServicePort { endpoints: vec![endpoint(ip_c[0], true)], ..dns.clone() }];
    let applied = world.applier.apply(render(&world.services, &world.local)).unwrap();
    assert_eq!(applied.connections, 1);
    assert_eq!(ask().unwrap(), "c");
    world.services = vec![ServicePort { endpoints: Vec::new(), ..dns }];
    world.apply();
    assert_eq!(ask().unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let unchanged = world.applier.apply(render(&world.services, &world.local)).unwrap();
    assert_eq!((unchanged.messages, unchanged.connections), (0, 0));
}

#[test]
fn ipv6_services() {
    let mut world = World::new(&["10.42.3.0/24", "fd00:42:3::/64"]);
    let ((a, ip_a), (_, ip_b)) = (world.pod("a"), world.pod("b"));
    let web = ServicePort {
        cluster_ips: vec!["10.96.0.10".parse().unwrap(), "fd00:96::10".parse().unwrap()],
        port: 80,
        node_port: Some(30080),
        endpoints: [&ip_a, &ip_b].iter().flat_map(|ips| ips.iter().map(|ip| endpoint(*ip, true))).collect(),
        ..ServicePort::default()
    };
    let sticky = ServicePort {
        cluster_ips: vec!["fd00:96::11".parse().unwrap()],
        affinity_seconds: Some(60),
        node_port: None,
        ..web.clone()
    };
    let empty = ServicePort {
        cluster_ips: vec!["fd00:96::12".parse().unwrap()],
        endpoints: vec![],
        node_port: None,
        ..web.clone()
    };
    world.services = vec![web, sticky, empty];
    world.apply();
    let node = world.node();
    for from in [&a, &node] {
        assert_eq!(names(from, "[fd00:96::10]:80", 40), set(&["a", "b"]));
        assert_eq!(names(from, "10.96.0.10:80", 40), set(&["a", "b"]));
        assert_eq!(names(from, "[fd00:42:3::1]:30080", 40), set(&["a", "b"]));
        assert_eq!(names(from, "[fd00:96::11]:80", 20).len(), 1);
        assert_eq!(ask(from, "[fd00:96::12]:80").unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}

#[test]
fn the_proxy_follows_what_the_api_says() {
    use apimachinery::doc;
    let mut world = World::new(&["10.42.3.0/24"]);
    let ((a, ip_a), (b, _)) = (world.pod("a"), world.pod("b"));
    let api = script::Api::default();
    let service = doc!({
        "metadata": { "name": "web", "namespace": "myspace" },
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.10", "loadBalancerSourceRanges": ["192.0.2.0/24"],
            "ports": [{ "protocol": "TCP", "port": 80, "nodePort": 30080 }]
        }
    });
    let slice = doc!({
        "metadata": { "name": "web-1", "namespace": "myspace", "labels": { "kubernetes.io/service-name": "web" } },
        "addressType": "IPv4",
        "ports": [{ "name": "", "protocol": "TCP", "port": 8080 }],
        "endpoints": [{ "addresses": [ip_a[0].to_string()], "nodeName": "n1" }]
    });
    api.put("services", &service);
    let config =
        proxy::Config { node_name: "n1".into(), local: world.local.clone(), netns: Some(world.node()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = api.client();
        let proxy = proxy::Proxy::new(&client, config);
        let mut applied = proxy.applied();
        let _running = base::task::spawn(proxy.run());
        // An apply may be of what was known before the last change; then another follows.
        let mut until = async |done: &dyn Fn() -> bool| {
            while applied.borrow_and_update().eq(&0) || !done() {
                let next = base::time::timeout(WAIT, applied.changed());
                next.await.expect("an apply in time").unwrap();
            }
        };
        until(&|| true).await;
        assert_eq!(ask(&b, "10.96.0.10:80").unwrap_err().kind(), ErrorKind::ConnectionRefused);
        api.put("endpointslices", &slice);
        until(&|| ask(&b, "10.96.0.10:80").is_ok()).await;
        assert_eq!(ask(&b, "10.96.0.10:80").unwrap().0, "a");
        assert_eq!(ask(&b, "10.42.3.1:30080").unwrap().0, "a");
        api.remove("services", &service);
        until(&|| ask_for(&a, "10.96.0.10:80", SHORT).is_err()).await;
        let refused = base::time::timeout(WAIT, api.created()).await.unwrap();
        assert_eq!(refused.root().find("reason").str(), "UnsupportedField");
        assert!(refused.root().find("message").str().starts_with("spec.loadBalancerSourceRanges"));
    });
}
