//! Starting, asking and ending `keelson apiserver`, `keelson server` and etcd.

use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use apimachinery::call::Who;
use client::gvr::CONFIG_MAPS;
use client::{Client, HttpsTransport, Kubeconfig, Resource};

/// A port that nobody else is given for a minute: the end of a connection holds it, which is no bar to a server that
/// asks for it by its number.
pub fn free() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let _client = TcpStream::connect(at).unwrap();
    // The side that ends first holds the port.
    drop(listener.accept().unwrap());
    at.port()
}

/// A process that is killed when it is dropped.
pub struct Process {
    pub child: Child,
    command: Command,
}

impl Process {
    fn start(mut command: Command) -> Process {
        let child = command.spawn().unwrap();
        Process { child, command }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An API server with its data directory.
pub struct Server {
    pub process: Process,
    pub data: PathBuf,
    pub port: u16,
}

impl Server {
    /// Starts it and waits until it is ready.
    pub fn start(verb: &str, data: &Path, more: &[&str]) -> Server {
        let port = free();
        let mut command = command(verb, data, port);
        command.args(more).stdout(Stdio::piped());
        let mut server = Server { process: Process::start(command), data: data.to_owned(), port };
        server.wait_ready();
        server
    }

    /// Starts it again, at the same port.
    pub fn start_again(&mut self) {
        self.process.child = self.process.command.spawn().unwrap();
        self.wait_ready();
    }

    fn wait_ready(&mut self) {
        let out = self.process.child.stdout.take().unwrap();
        let mut lines = BufReader::new(out).lines().map(Result::unwrap);
        let config = format!("export KUBECONFIG={}", self.data.join("admin.kubeconfig").display());
        assert!(lines.any(|line| line.starts_with("Ready in ")), "it ended before it was ready");
        assert!(lines.any(|line| line.trim() == config));
    }

    /// The administrator's client, over HTTPS.
    pub fn client(&self) -> Client {
        let config = Kubeconfig::load(&self.data.join("admin.kubeconfig")).unwrap();
        Client::new(Arc::new(HttpsTransport::new(&config).unwrap()), Who::Anonymous)
    }

    /// ConfigMaps of the namespace `default`.
    pub fn config_maps(&self) -> Resource {
        self.client().namespaced(CONFIG_MAPS, "default")
    }
}

/// The command that serves on loopback.
pub fn command(verb: &str, data: &Path, port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keelson"));
    command
        .args([verb, "--node-ip", "127.0.0.1", "--bind-address", &format!("127.0.0.1:{port}"), "--data-dir"])
        .arg(data);
    command
}

/// Starts an etcd with its data in `dir`; gives its address. Says loudly when there is none to start.
pub fn etcd(dir: &Path) -> Option<(Process, String)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let Some(program) = std::env::split_paths(&path).map(|dir| dir.join("etcd")).find(|p| p.exists()) else {
        eprintln!("SKIPPED, since there is no etcd: install Debian's etcd-server");
        return None;
    };
    let url = |port| format!("http://127.0.0.1:{port}");
    let (clients, peers) = (url(free()), url(free()));
    let mut command = Command::new(program);
    command
        .args(["--name", "m", "--data-dir"])
        .arg(dir.join("etcd"))
        .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
        .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
        .args(["--initial-cluster", &format!("m={peers}"), "--log-level", "error"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Some((Process::start(command), clients))
}

/// Copies the keys of one server to another of the same cluster.
pub fn share_keys(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("pki")).unwrap();
    for file in ["ca.crt", "ca.key", "sa.key", "sa.pub"] {
        std::fs::copy(from.join("pki").join(file), to.join("pki").join(file)).unwrap();
    }
}

/// Runs a test as the product runs.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test);
}
