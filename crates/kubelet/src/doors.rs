//! The kubelet's doors to the machine: what a simulation replaces. The real ones are in `host/`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::call::BoxFuture;
use runtime::{ImageStore, Runtime};

/// What went wrong behind a door. The kubelet does not branch on it: it tells people, and tries again.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
/// What a door gives.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// All doors.
#[derive(Clone)]
pub struct Doors {
    /// Containers.
    pub runtime: Arc<dyn Runtime>,
    /// Images.
    pub images: Arc<dyn ImageStore>,
    /// Pods' interfaces and addresses.
    pub network: Arc<dyn PodNetwork>,
    /// The node's file system.
    pub files: Arc<dyn Files>,
    /// Facts of the machine.
    pub machine: Arc<dyn Machine>,
    /// Requests to containers.
    pub prober: Arc<dyn Prober>,
}

/// The pod network of this node.
pub trait PodNetwork: Send + Sync {
    /// Makes the node's side, once the ranges of its pods are known (CIDR notation). Repeatable.
    fn setup(&self, pod_cidrs: Vec<String>) -> BoxFuture<'_, Result<()>>;
    /// Wires a network namespace, and makes ports of the machine lead there; the same key gets the same addresses again.
    fn attach(&self, netns: PathBuf, key: String, ports: Vec<HostPort>)
    -> BoxFuture<'_, Result<Vec<IpAddr>>>;
    /// Takes the wiring away; an unknown key is no error.
    fn detach(&self, key: String) -> BoxFuture<'_, Result<()>>;
    /// The keys of everything wired.
    fn keys(&self) -> BoxFuture<'_, Result<Vec<String>>>;
}

/// A port of the machine that leads to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The only address it is reached at; none: all of this machine's.
    pub address: Option<IpAddr>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The machine's port.
    pub port: u16,
    /// The pod's port.
    pub pod_port: u16,
}

/// One file of a published directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileData {
    /// The contents.
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// The owner, if not root.
    pub uid: Option<u32>,
}

/// The files of a published directory by relative path.
pub type Payload = BTreeMap<String, FileData>;

/// The node's file system. Calls block; the kubelet makes them off its own threads.
pub trait Files: Send + Sync {
    /// Makes a directory and those above it; the last gets this mode and, if given, group (then with the set-group bit).
    fn make_dir(&self, path: &Path, mode: u32, gid: Option<u32>) -> Result<()>;
    /// Makes a tmpfs directory, at most `size` bytes large if given. What is mounted stays.
    fn make_tmpfs(&self, path: &Path, mode: u32, gid: Option<u32>, size: Option<u64>) -> Result<()>;
    /// Replaces the contents of a file in place, so that bind mounts of it see them; makes it and what is above it.
    fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<()>;
    /// Makes `dir` show exactly these files, all at once (`..data` is a link that is swapped). Unchanged contents
    /// change nothing. Tells whether anything changed.
    fn publish(&self, dir: &Path, payload: &Payload, gid: Option<u32>) -> Result<bool>;
    /// Removes a file or tree, unmounting what is mounted on it. What is not there is no error.
    fn remove(&self, path: &Path) -> Result<()>;
    /// The last `most` bytes of a file; `None` when it is not there.
    fn read_end(&self, path: &Path, most: usize) -> Result<Option<Vec<u8>>>;
    /// Makes (or replaces) a symbolic link.
    fn link(&self, path: &Path, target: &Path) -> Result<()>;
    /// The names in a directory; none when it is not there.
    fn list(&self, path: &Path) -> Result<Vec<String>>;
    /// Bytes that a tree takes on the disk.
    fn usage(&self, path: &Path) -> u64;
    /// Makes the directories of `path` below `base` that are missing, and makes sure that it does not lead out.
    fn sub_path(&self, base: &Path, path: &Path) -> Result<()>;
    /// Makes sure that a path of the host is as `hostPath.type` demands.
    fn host_path(&self, path: &Path, kind: &str) -> Result<()>;
}

/// Facts of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineInfo {
    /// Thousandths of a CPU.
    pub cpu_milli: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes of the file system that holds the kubelet's directory.
    pub storage: i64,
    /// Addresses, the primary one first.
    pub addresses: Vec<IpAddr>,
    /// The host's name.
    pub hostname: String,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// The firmware's.
    pub system_uuid: String,
    /// New at every boot.
    pub boot_id: String,
    /// `uname -r`.
    pub kernel_version: String,
    /// `PRETTY_NAME` of os-release.
    pub os_image: String,
    /// Go's word: `amd64`, `arm64`.
    pub architecture: String,
}

/// What is short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Memory.
    pub memory: bool,
    /// Disk.
    pub disk: bool,
    /// Process ids.
    pub pid: bool,
}

/// A resource that the node is short of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Short {
    /// `memory`, or `ephemeral-storage`.
    pub resource: &'static str,
    /// How much there should be at least, as people write it.
    pub threshold: String,
    /// How much there is, as people write it.
    pub available: String,
}

impl Pressure {
    /// What is short, as conditions tell it. Upstream sets no threshold for process ids unless told to.
    pub fn of(short: &[Short]) -> Pressure {
        let has = |name| short.iter().any(|s| s.resource == name);
        Pressure { memory: has("memory"), disk: has("ephemeral-storage"), pid: false }
    }
}

/// The machine.
pub trait Machine: Send + Sync {
    /// Its facts.
    fn info(&self) -> MachineInfo;
    /// What it is short of now, the most pressing first.
    fn short(&self) -> Vec<Short>;
    /// The host's `/etc/resolv.conf`.
    fn resolv_conf(&self) -> String;
    /// The host's `/etc/hosts`.
    fn hosts(&self) -> String;
}

/// A request of a probe or hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// Over TLS; whoever answers is believed.
    pub tls: bool,
    /// Where to.
    pub address: SocketAddr,
    /// Path and query.
    pub path: String,
    /// Headers; `Host` and `User-Agent` among them.
    pub headers: Vec<(String, String)>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The status code.
    pub code: u16,
    /// Where a redirect leads to.
    pub location: String,
    /// The body's first 10 KiB.
    pub body: String,
}

/// A question to a gRPC health service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcRequest {
    /// Over TLS; whoever answers is believed.
    pub tls: bool,
    /// Where to.
    pub address: SocketAddr,
    /// The service that is asked about; empty: the server as a whole.
    pub service: String,
}

/// Asks containers. An error is the failing probe's message.
pub trait Prober: Send + Sync {
    /// One GET; redirects are the caller's.
    fn http_get(&self, request: HttpRequest, timeout: Duration) -> BoxFuture<'_, Result<HttpAnswer, String>>;
    /// A connection.
    fn tcp(&self, address: SocketAddr, timeout: Duration) -> BoxFuture<'_, Result<(), String>>;
    /// `grpc.health.v1.Health/Check`; fine is `SERVING`.
    fn grpc(&self, request: GrpcRequest, timeout: Duration) -> BoxFuture<'_, Result<(), String>>;
}
