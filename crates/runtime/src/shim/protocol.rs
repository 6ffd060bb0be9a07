//! What the engine and a shim say to each other, and what of it is kept on disk.
//!
//! A frame is the length of its JSON, the length of the raw bytes that follow it (both 32 bits, little endian),
//! the JSON, the bytes. The version is checked in the first exchange: a shim outlives the process that started
//! it, so another version may speak to it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::image::config::RunConfig;
use crate::{
    ContainerConfig, ContainerId, ContainerState, LinuxContainerUser, PodSandboxConfig, SandboxId,
    StreamOptions,
};

/// The version of everything in this file.
pub const VERSION: u32 = 1;
/// The largest frame; what sends a larger one is cut off.
pub const FRAME_BYTES_MAX: usize = 64 << 20;
/// The most that is kept of each output stream of a command.
pub const EXEC_OUTPUT_BYTES_MAX: usize = 16 << 20;
/// The name of the state file in a sandbox's directory.
pub const STATE_FILE: &str = "state.json";

/// A call.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// Comes back with the reply.
    pub id: u64,
    /// What is asked.
    pub call: Call,
}

/// What can be asked of a shim.
#[derive(Debug, Serialize, Deserialize)]
pub enum Call {
    /// First of all.
    Hello {
        /// The caller's [`VERSION`].
        version: u32,
    },
    /// Takes note of a container.
    Create(Box<ContainerSpec>),
    /// Starts it.
    Start(ContainerId),
    /// Ends it; answered when it has ended.
    Stop {
        /// Which.
        id: ContainerId,
        /// How long it may take before it is killed.
        grace_ms: u64,
    },
    /// Forgets it, killing it first if need be.
    Remove(ContainerId),
    /// Runs a command in it.
    Exec {
        /// In which.
        id: ContainerId,
        /// Program and arguments.
        cmd: Vec<String>,
        /// After how long it is killed; 0: never.
        timeout_ms: u64,
    },
    /// Runs a command in it and gives its streams: answered by [`Reply::Streams`], and by [`Reply::Exec`] when it
    /// has ended. Wants a connection of its own, with which the command ends.
    ExecStream {
        /// In which.
        id: ContainerId,
        /// Program and arguments.
        cmd: Vec<String>,
        /// Which streams.
        wants: StreamOptions,
    },
    /// Gives the streams of its first process, by [`Reply::Streams`]. Wants a connection of its own.
    Attach {
        /// Of which.
        id: ContainerId,
        /// Which streams.
        wants: StreamOptions,
    },
    /// Makes a TCP socket in the pod's network and gives it, not connected, by [`Reply::Streams`]. Wants a
    /// connection of its own.
    Socket {
        /// Whether it is for IPv6.
        v6: bool,
    },
    /// Kills all containers and takes no more.
    StopSandbox,
    /// Ends the shim. Containers must have ended.
    Shutdown,
}

/// What a shim says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Message {
    /// The answer to a request.
    Reply {
        /// The request's.
        id: u64,
        /// What came of it.
        result: Result<Reply, Failure>,
    },
    /// A container changed. Said to everybody, before any reply that follows from it.
    Changed(Box<ContainerRecord>),
}

/// What came of a request.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// To `Hello`.
    Hello {
        /// The shim's process.
        pid: i32,
        /// All it knows.
        state: Box<State>,
    },
    /// It is done.
    Done,
    /// Descriptors come with this answer's first byte, in this order.
    Streams(Vec<Descriptor>),
    /// A command has ended; the frame's raw bytes are its output.
    Exec {
        /// 128 plus the signal if one killed it.
        exit_code: i32,
        /// How many of the bytes are standard output; the rest is standard error.
        stdout_len: usize,
    },
}

/// What a descriptor is that comes with an answer. Reads and writes do not block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Descriptor {
    /// To be written: a program's standard input.
    Stdin,
    /// To be read: its standard output.
    Stdout,
    /// To be read: its standard error.
    Stderr,
    /// The master of its terminal.
    Terminal,
    /// A socket.
    Socket,
}

/// Why a request failed.
#[derive(Debug, Serialize, Deserialize)]
pub enum Failure {
    /// No such container.
    NotFound,
    /// The sandbox or container is in the wrong state.
    State(String),
    /// A program could not be started.
    Start(String),
    /// A command took too long and was killed.
    Timeout,
    /// Anything else.
    Other(String),
}

/// What a sandbox's process must know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Its id.
    pub id: SandboxId,
    /// As configured.
    pub config: PodSandboxConfig,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// Where the shim listens.
    pub socket: PathBuf,
    /// What containers have as /dev/shm.
    pub shm: PathBuf,
    /// What containers have as /etc/hostname; `None` with the host's network.
    pub hostname_file: Option<PathBuf>,
    /// The prefix of all groups.
    pub cgroup_root: String,
    /// The shim's own group.
    pub shim_cgroup: String,
    /// When logs are rotated.
    pub rotation: LogRotation,
}

/// When logs are rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRotation {
    /// At how many bytes.
    pub bytes_max: u64,
    /// How many files there are at most, with the one being written.
    pub files_max: usize,
}

impl Default for LogRotation {
    /// The kubelet's `containerLogMaxSize` and `containerLogMaxFiles`.
    fn default() -> Self {
        LogRotation { bytes_max: 10 << 20, files_max: 5 }
    }
}

/// A container, with everything that its image says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Its id.
    pub id: ContainerId,
    /// As configured.
    pub config: ContainerConfig,
    /// How the image is run.
    pub image: RunConfig,
    /// What status gives as the image's reference.
    pub image_ref: String,
    /// The image's layers, topmost first.
    pub layers: Vec<PathBuf>,
    /// Its own directory.
    pub dir: PathBuf,
    /// Its group.
    pub cgroup: String,
    /// Its log.
    pub log_path: Option<PathBuf>,
    /// The text of its own system call filter.
    #[serde(default)]
    pub seccomp: Option<String>,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
}

/// A container and what became of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// What it is.
    pub spec: ContainerSpec,
    /// Its state.
    pub state: ContainerState,
    /// Its first process, while it runs.
    pub pid: Option<i32>,
    /// Nanoseconds since the epoch.
    pub started_at: Option<i64>,
    /// Nanoseconds since the epoch.
    pub finished_at: Option<i64>,
    /// Meaningful when exited.
    pub exit_code: i32,
    /// One word.
    pub reason: String,
    /// More words.
    pub message: String,
    /// Who its first process was right after its start.
    #[serde(default)]
    pub user: Option<LinuxContainerUser>,
}

/// Everything that is known of a sandbox: the state file, and the shim's memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// The [`VERSION`] that wrote it.
    pub version: u32,
    /// The sandbox.
    pub sandbox: SandboxSpec,
    /// Whether it was stopped.
    pub stopped: bool,
    /// Its containers.
    pub containers: BTreeMap<ContainerId, ContainerRecord>,
}

/// The time now, as it is kept here.
pub fn now() -> i64 {
    i64::try_from(base::time::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// Appends a frame to `out`.
pub fn encode<T: Serialize>(message: &T, raw: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend([0; 8]);
    serde_json::to_writer(&mut *out, message).expect("messages have text keys and are written to memory");
    let json = out.len() - start - 8;
    out[start..start + 4].copy_from_slice(&(json as u32).to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&(raw.len() as u32).to_le_bytes());
    out.extend_from_slice(raw);
}

/// The lengths that a frame's first 8 bytes say; `None` for a frame that is too large.
pub fn lengths(head: [u8; 8]) -> Option<(usize, usize)> {
    let number = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize;
    let (json, raw) = (number(&head[..4]), number(&head[4..]));
    (json.checked_add(raw)? <= FRAME_BYTES_MAX).then_some((json, raw))
}
