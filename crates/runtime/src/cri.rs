//! The container runtime as its callers see it: CRI v1 as Rust traits and plain structs.
//!
//! Names are those of CRI's `RuntimeService` and `ImageService`, so that a gRPC client of another engine can be
//! one more implementation. This room knows no Kubernetes API object and nothing of how containers are made.
//! Two things CRI leaves to an engine's private info are said openly: the path of a sandbox's network
//! namespace (networks are wired by the caller, after the sandbox exists) and import from an archive.
//!
//! Upstream: staging/src/k8s.io/cri-api/pkg/apis/runtime/v1/api.proto.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base::time::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::broadcast;

use crate::Credential;
use crate::Error;

/// A boxed future, so that the traits are object safe.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// A connection into a sandbox's network.
pub type Connection = TcpStream;
/// What every call gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Containers and pod sandboxes (CRI `RuntimeService`).
///
/// Calls that stop or remove are idempotent: what is already stopped or gone is a success, as CRI demands.
/// Dropping a returned future never leaves anything half done that a later `remove_*` cannot remove.
pub trait Runtime: Send + Sync {
    /// Name and version, as shown in a Node's `containerRuntimeVersion` (`name://version`).
    fn version(&self) -> BoxFuture<'_, Result<VersionResponse>>;

    /// Makes a sandbox: namespaces, loopback, sysctls and the process that owns the pod's containers. Its
    /// network namespace ([`PodSandboxStatus::network_namespace`]) has only `lo`, up.
    fn run_pod_sandbox(&self, config: PodSandboxConfig) -> BoxFuture<'_, Result<SandboxId>>;
    /// Kills every container in the sandbox and makes it not ready. The network namespace stays until removal.
    fn stop_pod_sandbox<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<()>>;
    /// Stops the sandbox if need be, removes its containers, mounts, cgroup and files. Logs stay.
    fn remove_pod_sandbox<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<()>>;
    /// What is known of a sandbox.
    fn pod_sandbox_status<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<PodSandboxStatus>>;
    /// All sandboxes, those of earlier runs of this process too, ordered by creation.
    fn list_pod_sandboxes(&self) -> BoxFuture<'_, Result<Vec<PodSandboxStatus>>>;

    /// Makes a container that can be started. The image must be in the store.
    ///
    /// # Errors
    /// [`Error::Unsupported`] names a field that is not built; [`Error::NotFound`] for sandbox or image.
    fn create_container<'a>(
        &'a self,
        sandbox: &'a SandboxId,
        config: ContainerConfig,
    ) -> BoxFuture<'a, Result<ContainerId>>;
    /// Starts a created container and returns once its program has been executed.
    ///
    /// # Errors
    /// [`Error::Start`] when it could not be; the container is then Exited with code 128 and reason `StartError`.
    fn start_container<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<()>>;
    /// Sends the image's stop signal (SIGTERM if it has none), kills after `grace`, and returns when the
    /// container has exited. Zero kills at once. A second call may shorten the grace, never lengthen it.
    fn stop_container<'a>(&'a self, id: &'a ContainerId, grace: Duration) -> BoxFuture<'a, Result<()>>;
    /// Removes a container and its writable layer; a running one is killed first. Its log stays.
    fn remove_container<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<()>>;
    /// Changes a container's limits while it runs; members that are 0 stay as they are, -1 is no limit.
    fn update_container_resources<'a>(
        &'a self,
        id: &'a ContainerId,
        resources: LinuxContainerResources,
    ) -> BoxFuture<'a, Result<()>>;
    /// Changes the limits that a sandbox's containers have together, as [`Runtime::update_container_resources`] does.
    fn update_pod_sandbox_resources<'a>(
        &'a self,
        id: &'a SandboxId,
        resources: LinuxContainerResources,
    ) -> BoxFuture<'a, Result<()>>;
    /// What a container uses now. Walks its writable layer, which takes time.
    fn container_stats<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<ContainerStats>>;
    /// What is known of a container.
    fn container_status<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<ContainerStatus>>;
    /// All containers of all sandboxes, ordered by creation.
    fn list_containers(&self) -> BoxFuture<'_, Result<Vec<ContainerStatus>>>;

    /// Runs a command in a running container and waits for its end. Output beyond 16 MiB is cut.
    ///
    /// # Errors
    /// [`Error::Timeout`] when `timeout` (zero: none) passed first, the process having been killed;
    /// [`Error::Start`] when the command could not be executed.
    fn exec_sync<'a>(
        &'a self,
        id: &'a ContainerId,
        cmd: Vec<String>,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<ExecSyncResponse>>;

    /// Starts a command in a running container and gives its streams (CRI `Exec`, without the detour of a URL). The
    /// command ends with the returned [`Streams::exit`], if that is dropped before it has ended by itself.
    ///
    /// # Errors
    /// [`Error::Start`] when the command could not be executed.
    fn exec<'a>(
        &'a self,
        id: &'a ContainerId,
        cmd: Vec<String>,
        wants: StreamOptions,
    ) -> BoxFuture<'a, Result<Streams>>;

    /// Gives the streams of a running container's first process (CRI `Attach`), output from now on. What is not
    /// read holds the container up once the pipe is full.
    fn attach<'a>(&'a self, id: &'a ContainerId, wants: StreamOptions) -> BoxFuture<'a, Result<Streams>>;

    /// A TCP connection made inside a sandbox's network (CRI `PortForward`), to the first of `addresses` that
    /// takes it.
    fn connect<'a>(
        &'a self,
        sandbox: &'a SandboxId,
        addresses: Vec<SocketAddr>,
    ) -> BoxFuture<'a, Result<Connection>>;

    /// State changes from now on (CRI `GetContainerEvents`). List after subscribing and nothing is missed.
    fn events(&self) -> Events;

    /// The images that containers are made from.
    fn images(&self) -> Arc<dyn ImageStore>;
}

/// Images (CRI `ImageService`). Names are normalised as Docker does: `busybox` is
/// `docker.io/library/busybox:latest`.
pub trait ImageStore: Send + Sync {
    /// All images, ordered by id.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Image>>>;
    /// The file system that holds the images (CRI `ImageFsInfo`).
    fn disk(&self) -> BoxFuture<'_, Result<Disk>>;
    /// The image that `name` (a reference, a `name@digest`, or an id) stands for, if the store has it.
    fn status<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Image>>>;
    /// Makes sure that the store has what the registry has under `name` now, asking with those of `credentials` that are
    /// meant for it, and gives it. For images that were imported under that name no registry is asked.
    ///
    /// # Errors
    /// [`Error::Pull`] when it cannot be had.
    fn pull<'a>(&'a self, name: &'a str, credentials: &'a [Credential]) -> BoxFuture<'a, Result<Image>>;
    /// Imports an OCI layout or `docker save` archive (tar, perhaps gzip or zstd) under the names it holds, or
    /// under `name` if given. Gives the images.
    ///
    /// # Errors
    /// [`Error::Archive`] names what is wrong with the archive; the store is then unchanged.
    fn import<'a>(&'a self, archive: &'a Path, name: Option<&'a str>) -> BoxFuture<'a, Result<Vec<Image>>>;
    /// Takes a name away, or (for an id) all names; layers that no image uses any more go too.
    fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>>;
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// A new random id: 64 hexadecimal digits, as other engines make them.
            pub fn random() -> Self {
                let mut bytes = [0u8; 32];
                base::rand::fill(&mut bytes);
                $name(bytes.iter().map(|b| format!("{b:02x}")).collect())
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(s: &str) -> Self {
                $name(s.to_owned())
            }
        }

        impl From<String> for $name {
            fn from(s: String) -> Self {
                $name(s)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id_type!(
    /// The id of a pod sandbox.
    SandboxId
);
id_type!(
    /// The id of a container.
    ContainerId
);

/// Who the engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionResponse {
    /// The engine's name.
    pub runtime_name: String,
    /// The engine's version.
    pub runtime_version: String,
}

/// Which pod a sandbox is of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodSandboxMetadata {
    /// The pod's name.
    pub name: String,
    /// The pod's UID.
    pub uid: String,
    /// The pod's namespace.
    pub namespace: String,
    /// How many sandboxes the pod had before.
    pub attempt: u32,
}

/// What a sandbox is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodSandboxConfig {
    /// Which pod it is of.
    pub metadata: PodSandboxMetadata,
    /// The host name inside; empty with the host's network, whose name it then has.
    pub hostname: String,
    /// The directory below which the containers' logs are written; made if missing. Absolute.
    pub log_directory: PathBuf,
    /// Given back by status and list.
    pub labels: BTreeMap<String, String>,
    /// Given back by status.
    pub annotations: BTreeMap<String, String>,
    /// Linux things.
    pub linux: LinuxPodSandboxConfig,
}

/// A sandbox's Linux side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxPodSandboxConfig {
    /// The pod's cgroup, such as `/kubepods/burstable/pod<uid>`, below the runtime's cgroup root. Made if
    /// missing; removed with the sandbox.
    pub cgroup_parent: String,
    /// Which namespaces are the pod's own.
    pub namespace_options: NamespaceOption,
    /// Namespaced sysctls, dotted names.
    pub sysctls: BTreeMap<String, String>,
    /// What all containers together may use.
    pub resources: LinuxContainerResources,
}

/// Where each namespace comes from. Default: network and IPC are the pod's, PID the container's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceOption {
    /// `Pod` or `Node`.
    pub network: NamespaceMode,
    /// `Container`, `Pod` (with a process of the sandbox's as the first) or `Node`.
    pub pid: NamespaceMode,
    /// `Pod` or `Node`.
    pub ipc: NamespaceMode,
}

impl Default for NamespaceOption {
    fn default() -> Self {
        NamespaceOption {
            network: NamespaceMode::Pod,
            pid: NamespaceMode::Container,
            ipc: NamespaceMode::Pod,
        }
    }
}

/// Whose a namespace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// One for the pod.
    Pod,
    /// One for each container.
    Container,
    /// The host's.
    Node,
}

/// Whether a sandbox can hold containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodSandboxState {
    /// It can.
    Ready,
    /// It was stopped, or its process has died.
    NotReady,
}

/// What is known of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSandboxStatus {
    /// Its id.
    pub id: SandboxId,
    /// Which pod it is of.
    pub metadata: PodSandboxMetadata,
    /// Whether it can hold containers.
    pub state: PodSandboxState,
    /// When it was made.
    pub created_at: Timestamp,
    /// A path to open for `setns`; `None` with the host's network.
    pub network_namespace: Option<PathBuf>,
    /// As configured.
    pub labels: BTreeMap<String, String>,
    /// As configured.
    pub annotations: BTreeMap<String, String>,
}

/// What a container is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerConfig {
    /// Its name in the pod.
    pub name: String,
    /// How many containers of that name the pod had before.
    pub attempt: u32,
    /// The image: a reference, or an id that [`ImageStore::pull`] or `status` gave.
    pub image: String,
    /// Replaces the image's Entrypoint (and drops its Cmd) if not empty.
    pub command: Vec<String>,
    /// Replaces the image's Cmd if not empty.
    pub args: Vec<String>,
    /// Replaces the image's working directory if not empty. Made if missing.
    pub working_dir: String,
    /// Names and values, over the image's.
    pub envs: Vec<KeyValue>,
    /// Mounts from the host, in order.
    pub mounts: Vec<Mount>,
    /// Given back by status and list.
    pub labels: BTreeMap<String, String>,
    /// Given back by status.
    pub annotations: BTreeMap<String, String>,
    /// The log file, below the sandbox's log directory. Empty: output is dropped.
    pub log_path: PathBuf,
    /// Has a standard input that stays open, for those who attach. Else it is empty.
    #[serde(default)]
    pub stdin: bool,
    /// The standard input ends when the first who attached to it leaves.
    #[serde(default)]
    pub stdin_once: bool,
    /// Has a terminal: one stream both ways.
    #[serde(default)]
    pub tty: bool,
    /// The signal that asks it to end, over the image's; empty: the image's.
    pub stop_signal: String,
    /// Linux things.
    pub linux: LinuxContainerConfig,
}

/// A name and its value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    /// The name.
    pub key: String,
    /// The value.
    pub value: String,
}

/// A bind mount from the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// Where, in the container. Absolute; missing files and directories are made.
    pub container_path: PathBuf,
    /// What, on the host. Must exist; a link is followed.
    pub host_path: PathBuf,
    /// What of it, if not all: a path that stays below it whatever links it meets. Directories that are missing are made.
    pub sub_path: PathBuf,
    /// Whether it can only be read.
    pub readonly: bool,
    /// Whether what is mounted below it can only be read either.
    pub recursive_read_only: bool,
    /// Whether later mounts cross.
    pub propagation: MountPropagation,
}

/// Whether mounts made later on one side appear on the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountPropagation {
    /// Neither way.
    #[default]
    Private,
    /// From the host into the container.
    HostToContainer,
    /// Both ways.
    Bidirectional,
}

/// A container's Linux side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxContainerConfig {
    /// Limits.
    pub resources: LinuxContainerResources,
    /// Identity and confinement.
    pub security_context: LinuxContainerSecurityContext,
}

/// Limits of one container. Zero means unset, as in CRI, except `oom_score_adj`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxContainerResources {
    /// Relative weight, 2 to 262144.
    pub cpu_shares: u64,
    /// Microseconds of CPU in each period; -1 or 0: no limit.
    pub cpu_quota: i64,
    /// Microseconds.
    pub cpu_period: u64,
    /// Bytes.
    pub memory_limit_in_bytes: i64,
    /// Tasks.
    pub pids_limit: i64,
    /// Clamped to what the host allows.
    pub oom_score_adj: i32,
}

/// A container's identity and confinement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinuxContainerSecurityContext {
    /// The container whose PID namespace it shares, where each has its own; it must run.
    pub pid_target: Option<ContainerId>,
    /// Capabilities besides, or without, the default set. Names without `CAP_`; `ALL` is understood.
    pub capabilities: Capability,
    /// All capabilities, all devices, no masks, no seccomp.
    pub privileged: bool,
    /// Over the image's user.
    pub run_as_user: Option<i64>,
    /// Over the image's or passwd's group; needs a user in CRI, not here.
    pub run_as_group: Option<i64>,
    /// A user name, looked up in the image's `/etc/passwd`; not together with `run_as_user`.
    pub run_as_username: String,
    /// Further groups.
    pub supplemental_groups: Vec<i64>,
    /// Whether groups that the image's `/etc/group` gives the user do not count.
    pub strict_supplemental_groups: bool,
    /// Whether the root file system can only be read.
    pub readonly_rootfs: bool,
    /// Whether executed files cannot give privileges.
    pub no_new_privs: bool,
    /// Replaces the default list of hidden paths if `Some`.
    pub masked_paths: Option<Vec<String>>,
    /// Replaces the default list of read-only paths if `Some`.
    pub readonly_paths: Option<Vec<String>>,
    /// System call filter.
    pub seccomp: SecurityProfile,
}

/// Changes to the default capability set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    /// Added.
    pub add_capabilities: Vec<String>,
    /// Dropped.
    pub drop_capabilities: Vec<String>,
}

/// A system call filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecurityProfile {
    /// None.
    #[default]
    Unconfined,
    /// The engine's own.
    RuntimeDefault,
    /// A file on the host, in the OCI runtime specification's form.
    Localhost(String),
}

/// A container's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Its program runs.
    Running,
    /// It has ended.
    Exited,
    /// The engine cannot tell. The embedded one always can: a container whose sandbox's process died is killed
    /// and Exited, with code 255 and reason `Unknown`.
    Unknown,
}

/// What is known of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStatus {
    /// Its id.
    pub id: ContainerId,
    /// Its sandbox.
    pub sandbox_id: SandboxId,
    /// Its name in the pod.
    pub name: String,
    /// As configured.
    pub attempt: u32,
    /// Its state.
    pub state: ContainerState,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its program was started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Its exit code, 128 plus the signal if one killed it. Meaningful when Exited.
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError` or `Unknown` once ended, else empty.
    pub reason: String,
    /// Human words on the reason; may be empty.
    pub message: String,
    /// The image as configured.
    pub image: String,
    /// The image's id (`sha256:…`), or `name@digest` where the store knows one.
    pub image_ref: String,
    /// The log file, absolute.
    pub log_path: PathBuf,
    /// As configured.
    pub mounts: Vec<Mount>,
    /// As configured.
    pub labels: BTreeMap<String, String>,
    /// As configured.
    pub annotations: BTreeMap<String, String>,
    /// Who its first process was right after its start.
    pub user: Option<LinuxContainerUser>,
}

/// Who a process is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxContainerUser {
    /// User.
    pub uid: i64,
    /// Group.
    pub gid: i64,
    /// Further groups.
    pub supplemental_groups: Vec<i64>,
}

/// What a container uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerStats {
    /// Bytes of its writable layer.
    pub writable_layer_bytes: u64,
    /// Bytes of memory that could not be had back at once.
    pub memory_working_set_bytes: u64,
}

/// What a command gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecSyncResponse {
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// Its exit code, 128 plus the signal if one killed it.
    pub exit_code: i32,
}

/// Which of a program's streams are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOptions {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error; with a terminal there is none.
    pub stderr: bool,
    /// A terminal; to attach, the container's own setting counts.
    pub tty: bool,
}

/// A stream to be written. Dropping it ends it.
pub type Input = Box<dyn AsyncWrite + Send + Unpin>;
/// A stream to be read.
pub type Output = Box<dyn AsyncRead + Send + Unpin>;

/// A program's streams: those that were wanted and that it has.
pub struct Streams {
    /// Its standard input.
    pub stdin: Option<Input>,
    /// Its standard output, or its terminal.
    pub stdout: Option<Output>,
    /// Its standard error.
    pub stderr: Option<Output>,
    /// Sets its terminal's size: columns and rows.
    pub resize: Option<Box<dyn Fn(u16, u16) + Send + Sync>>,
    /// A command's exit code, 128 plus the signal if one killed it. Of an attached container: when its output has
    /// been given up, 0.
    pub exit: BoxFuture<'static, Result<i32>>,
}

/// An image in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The digest of its configuration, `sha256:…`.
    pub id: String,
    /// Its names, normalised, with tags.
    pub repo_tags: Vec<String>,
    /// Its names with the manifest's digest.
    pub repo_digests: Vec<String>,
    /// Bytes of its layers as stored in the archive, uncompressed.
    pub size: u64,
    /// The numeric user it runs as, if it names one by number.
    pub uid: Option<i64>,
    /// The user name it runs as, if it names one by name.
    pub username: String,
    /// It is not to be taken away to make room: no registry could give it back.
    pub pinned: bool,
}

/// A file system's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// All of them.
    pub capacity: u64,
    /// Those that can still be written.
    pub available: u64,
}

/// What happened to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerEventType {
    /// It was made.
    Created,
    /// Its program runs.
    Started,
    /// It has ended; its status says how.
    Stopped,
    /// It was removed.
    Deleted,
}

/// One change (CRI `ContainerEventResponse`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerEvent {
    /// The container.
    pub container_id: ContainerId,
    /// Its sandbox.
    pub sandbox_id: SandboxId,
    /// What happened.
    pub event_type: ContainerEventType,
    /// When.
    pub created_at: Timestamp,
    /// The pod's UID, to find the pod without another call.
    pub pod_uid: String,
}

/// What [`Events::next`] gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeEvent {
    /// A container changed.
    Container(ContainerEvent),
    /// A sandbox's process died without being asked; its containers have been killed.
    SandboxLost(SandboxId),
    /// The listener was too slow and changes were dropped: list again.
    Missed,
}

/// How many changes wait for a slow listener before it gets [`RuntimeEvent::Missed`].
const EVENTS_WAITING_MAX: usize = 1024;

/// A subscription to changes.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<RuntimeEvent>);

impl Events {
    /// The next change; `None` when the runtime is gone.
    pub async fn next(&mut self) -> Option<RuntimeEvent> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(RuntimeEvent::Missed),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// The sending side of [`Events`], for implementations of [`Runtime`].
#[derive(Clone, Debug)]
pub struct EventSender(broadcast::Sender<RuntimeEvent>);

impl Default for EventSender {
    fn default() -> Self {
        EventSender(broadcast::Sender::new(EVENTS_WAITING_MAX))
    }
}

impl EventSender {
    /// A new subscription.
    pub fn subscribe(&self) -> Events {
        Events(self.0.subscribe())
    }

    /// Tells every subscriber; with none, nobody.
    pub fn send(&self, event: RuntimeEvent) {
        // An error says only that nobody listens.
        drop(self.0.send(event));
    }
}
