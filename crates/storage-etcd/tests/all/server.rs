//! Real etcd servers, started by the tests on ports and in directories of their own.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use storage_etcd::{Config, Etcd};

/// How long etcd may take to start.
pub const START_MAX: Duration = Duration::from_secs(30);
const HISTORY: Duration = Duration::from_secs(300);

/// The program; says loudly when there is none.
pub fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join("etcd")).find(|p| p.exists());
    if found.is_none() {
        eprintln!("SKIPPED, since there is no etcd: install Debian's etcd-server");
    }
    found
}

/// An address that nobody else is given for a minute: the end of a connection holds it, which is no bar to a server that
/// asks for it by its number.
fn free() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let _client = TcpStream::connect(at).unwrap();
    // The side that ends first holds the port.
    drop(listener.accept().unwrap());
    at.to_string()
}

/// One member.
pub struct Server {
    pub clients: String,
    command: Command,
    child: Child,
}

impl Server {
    /// Starts a cluster of one, with these further arguments.
    pub fn start(program: &Path, dir: &Path, scheme: &str, more: &[&str]) -> Server {
        let peers = format!("http://{}", free());
        let cluster = format!("m0={peers}");
        Server::member(program, dir, "m0", scheme, &peers, &cluster, more)
    }

    /// Starts a cluster of three.
    pub fn three(program: &Path, dir: &Path) -> Vec<Server> {
        let peers: Vec<String> = (0..3).map(|_| format!("http://{}", free())).collect();
        let cluster: Vec<String> = peers.iter().enumerate().map(|(i, p)| format!("m{i}={p}")).collect();
        let cluster = cluster.join(",");
        let one = |(i, peer): (usize, &String)| {
            let name = format!("m{i}");
            Server::member(program, &dir.join(&name), &name, "http", peer, &cluster, &[])
        };
        peers.iter().enumerate().map(one).collect()
    }

    fn member(
        program: &Path,
        dir: &Path,
        name: &str,
        scheme: &str,
        peers: &str,
        cluster: &str,
        more: &[&str],
    ) -> Server {
        let clients = format!("{scheme}://{}", free());
        let mut command = Command::new(program);
        command
            .args(["--name", name, "--data-dir"])
            .arg(dir.join("etcd"))
            .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
            .args(["--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers])
            .args(["--initial-cluster", cluster, "--log-level", "error"])
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().unwrap();
        Server { clients, command, child }
    }

    /// A counter of the member's.
    pub fn metric(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect(self.clients.trim_start_matches("http://")).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse().unwrap()
    }

    /// As a power switch would, but for the disk.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again after [`Server::kill`].
    pub fn start_again(&mut self) {
        self.child = self.command.spawn().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Connects to these servers.
pub async fn open(servers: &[Server]) -> Arc<Etcd> {
    let endpoints = servers.iter().map(|s| s.clients.clone()).collect();
    open_with(Config { endpoints, ..Config::default() }).await
}

/// Connects.
pub async fn open_with(config: Config) -> Arc<Etcd> {
    Etcd::open_within(&config, START_MAX, HISTORY).await.expect("etcd starts")
}

/// Runs a test as the product runs.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test);
}
