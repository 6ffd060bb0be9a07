//! The pod worker: one pod's life on this node as a pure state machine.
//!
//! [`State::step`] takes what happened and gives what to do next; it does no IO and reads no clock. The
//! driver (`crate::driver`) carries actions out as tasks and brings results back as events. It decides from the whole
//! state every time, so an event that comes late, twice or for a container of long ago changes nothing.
//!
//! Upstream: pkg/kubelet/pod_workers.go, pkg/kubelet/kuberuntime/kuberuntime_manager.go (`computePodActions`). On
//! purpose different: one machine per pod in place of three sync functions that observe the runtime anew.

mod adopt;
mod apply;
mod plan;
mod resize;
#[cfg(test)]
mod tests;

pub use adopt::Found;
pub use plan::pod_words;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::schema::views::{Container as ContainerSpec, Pod, PodSpec};
use apimachinery::{Doc, Ref, k};
use base::time::Timestamp;
use runtime::{ContainerId, LinuxContainerUser, SandboxId};

/// The first wait of a container that keeps ending, and of an image that cannot be pulled.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(10);
/// The longest such wait, where nothing else is configured. A container that ran twice as long without ending begins anew.
pub const BACKOFF_MOST: Duration = Duration::from_secs(300);
/// How long to wait before a volume, sandbox or container configuration that failed is tried again: doubling from the
/// first to the second.
pub const RETRY_FIRST: Duration = Duration::from_millis(500);
/// See [`RETRY_FIRST`].
pub const RETRY_MOST: Duration = Duration::from_secs(60);
/// How long a failed pull shows its own reason before `ImagePullBackOff`.
const PULL_ERROR_SHOWN: Duration = Duration::from_secs(2);
/// Every container gets at least this long between SIGTERM and SIGKILL, as upstream gives it.
pub const GRACE_LEAST: Duration = Duration::from_secs(2);

/// The reason of pods that the node ends for what they use.
pub const EVICTED: &str = "Evicted";

/// One pod's state on this node.
#[derive(Clone, Debug)]
pub struct State {
    /// The API's object as last seen.
    pub pod: Arc<Doc>,
    /// How far the pod's life is.
    pub stage: Stage,
    /// When this node took the pod.
    pub start_time: Timestamp,
    /// Whether the volumes are there.
    pub volumes: Volumes,
    /// The pod's sandbox.
    pub sandbox: Sandbox,
    /// The number of the next sandbox.
    pub sandbox_attempt: u32,
    /// The longest wait of a container that keeps ending.
    pub restart_wait_most: Duration,
    /// The pod's addresses; empty with the host's network until the driver says the node's.
    pub ips: Vec<IpAddr>,
    /// Init containers, then containers, then ephemeral ones, each in the order of the spec.
    pub containers: Vec<Container>,
    /// Why the node ends or refuses the pod, if it does.
    pub end: Option<End>,
    /// Until when containers may go on once the pod is stopping.
    pub stop_by: Option<Timestamp>,
    /// The API's object no longer exists.
    pub gone: bool,
    /// The final delete was asked for, or the pod's files are going.
    pub leaving: bool,
    /// The API has a final status from an earlier run of this process, which is not written again.
    pub frozen: bool,
    /// What became of the wish for other resources, if there is one.
    pub resize: Option<Resize>,
    retry: Retry,
}

/// A wish for other resources than the pod has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resize {
    /// Nobody was asked yet.
    Wanted,
    /// [`Action::AskForRoom`] is under way.
    Asked,
    /// There is no room now, and why.
    Deferred(String),
    /// There never will be, and why.
    Infeasible(String),
}

/// How far a pod's life is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It runs, or is on the way there.
    Running,
    /// Its containers are being stopped; none is started any more.
    Stopping,
    /// No container runs; sandbox, network and volumes are being taken away.
    Cleaning,
    /// Nothing is left but logs and the status.
    Done,
}

/// Whether the pod's volumes are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Volumes {
    /// Not yet, or not any more.
    Absent,
    /// Being made.
    Mounting,
    /// There.
    Mounted,
    /// To be tried again then.
    Failed(Timestamp),
    /// Being taken away.
    Unmounting,
}

/// The pod's sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sandbox {
    /// There is none; not before the time, if one is given.
    None(Option<Timestamp>),
    /// Being made.
    Making,
    /// Made or found, not wired yet.
    Made(SandboxId),
    /// Being wired.
    Attaching(SandboxId),
    /// It can hold containers.
    Ready(SandboxId),
    /// Being stopped, unwired and removed.
    Removing(SandboxId),
    /// Removal failed and is tried again then.
    Broken(SandboxId, Timestamp),
}

/// Which of a pod's containers one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Runs to its end before the next.
    Init,
    /// An init container with `restartPolicy: Always`: runs beside all that follow.
    Sidecar,
    /// An ordinary one.
    Main,
    /// Added later, never restarted.
    Ephemeral,
}

/// One container's state.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its name in the pod.
    pub name: String,
    /// Which of the pod's containers.
    pub role: Role,
    /// Its state now.
    pub phase: Phase,
    /// How its last run ended, if this is not the first.
    pub last: Option<Exit>,
    /// The number of its run now or of the last one; the API's `restartCount`.
    pub attempt: u32,
    /// The number of its next run.
    pub next_attempt: u32,
    /// The image of the next run, once it is in the store.
    pub image: Option<String>,
    /// The name of the image that its run, or its next one, was made of.
    pub made_of: String,
    /// Its run ends because the pod names another image now: it is started again whatever the policy.
    again: bool,
    /// What went wrong on the way to the next run: `CrashLoopBackOff` and the like, with words.
    pub trouble: Option<(String, String)>,
    /// Its startup probe has passed, or it has none and runs.
    pub started: bool,
    /// Its readiness probe passes, or it has none and is started.
    pub ready: bool,
    /// Who its last run was at its start, where that is known.
    pub user: Option<LinuxContainerUser>,
    /// The resources that the node has given it.
    pub allocated: Doc,
    /// The resources that its run has.
    pub actual: Doc,
    /// Why its run could not be given what is allocated.
    pub resize_error: Option<String>,
    /// What its run is being given.
    resizing: Option<Doc>,
    /// When that is tried again.
    resize_at: Option<Timestamp>,
    backoff: CrashBackoff,
    /// When a failed pull's own reason gives way to `ImagePullBackOff`.
    flip_at: Option<Timestamp>,
    pull: Retry,
    config: Retry,
}

/// A container's state now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing runs, and nothing will before the time, if one is given; else it waits for its turn.
    Waiting(Option<Timestamp>),
    /// Its image is being looked for.
    Pulling,
    /// Being made and started.
    Starting,
    /// Its program runs.
    Running {
        /// The container.
        id: ContainerId,
        /// What it was made from.
        image_ref: String,
        /// Since when.
        since: Timestamp,
        /// Its `postStart` hook has not passed: it does not count as running yet.
        post_start: bool,
        /// How far its end is, if it is being stopped.
        stopping: Option<Stopping>,
    },
    /// It ended and is not (yet) to be started again.
    Exited(Exit),
}

/// A run that is being ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopping {
    /// Until when it may go on.
    pub by: Timestamp,
    /// Its `preStop` hook is under way: it has not been asked to end yet.
    pub pre_stop: bool,
    /// The deadline that the runtime was given, once it has been.
    pub told: Option<Timestamp>,
}

/// Which hook of a container's lifecycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    /// Right after its program was started.
    PostStart,
    /// Before it is asked to end.
    PreStop,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The container; empty where that is not known.
    pub id: String,
    /// What it was made from.
    pub image_ref: String,
    /// 128 plus the signal if one killed it.
    pub code: i32,
    /// `Completed`, `Error`, `OOMKilled`, …
    pub reason: String,
    /// The termination message.
    pub message: String,
    /// When it was started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
}

/// Why the node ends a pod, or never took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// `OutOfcpu`, `DeadlineExceeded`, …
    pub reason: String,
    /// Human words.
    pub message: String,
}

/// Which probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// Holds back the other two until it has passed once.
    Startup,
    /// Restarts the container when it fails.
    Liveness,
    /// Takes the pod out of its Services while it fails.
    Readiness,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The API's object changed.
    Pod(Arc<Doc>),
    /// The API's object no longer exists.
    Gone,
    /// Time has passed, or something that an earlier failure may have missed is there now.
    Tick,
    /// A ConfigMap or Secret that the pod refers to has changed: what failed for want of it is tried again at once.
    Retry,
    /// [`Action::MountVolumes`] is done.
    VolumesMounted,
    /// [`Action::MountVolumes`] failed; the words are an event's.
    VolumesFailed(String),
    /// [`Action::UnmountVolumes`] is done.
    VolumesUnmounted,
    /// [`Action::RunSandbox`] is done.
    SandboxMade(SandboxId),
    /// [`Action::RunSandbox`] failed.
    SandboxFailed(String),
    /// [`Action::AttachNetwork`] is done.
    NetworkAttached(SandboxId, Vec<IpAddr>),
    /// [`Action::AttachNetwork`] failed.
    NetworkFailed(SandboxId, String),
    /// The sandbox's process died.
    SandboxLost(SandboxId),
    /// [`Action::RemoveSandbox`] is done.
    SandboxRemoved(SandboxId),
    /// [`Action::RemoveSandbox`] failed.
    SandboxRemovalFailed(SandboxId, String),
    /// [`Action::PullImage`] is done: the image to make the container from.
    ImageReady(usize, String),
    /// [`Action::PullImage`] failed: reason (`ErrImagePull`, `ErrImageNeverPull`, `InvalidImageName`) and words.
    ImageFailed(usize, &'static str, String),
    /// [`Action::StartContainer`] is done.
    Started {
        /// Which.
        index: usize,
        /// The container.
        id: ContainerId,
        /// What it was made from.
        image_ref: String,
        /// When.
        at: Timestamp,
        /// As whom.
        user: Option<LinuxContainerUser>,
    },
    /// [`Action::AskForRoom`] is done: nothing when there is.
    Room(Option<Resize>),
    /// Room may have come.
    RoomFreed,
    /// [`Action::ResizeContainer`] is done.
    Resized(ContainerId, Result<(), String>),
    /// [`Action::StartContainer`] failed.
    StartFailed {
        /// Which.
        index: usize,
        /// `CreateContainerConfigError`, `CreateContainerError` or `RunContainerError`.
        reason: &'static str,
        /// Human words.
        message: String,
        /// What became of the container, where one was made.
        exit: Option<Exit>,
    },
    /// A container ended.
    Exited(ContainerId, Exit),
    /// [`Action::RunHook`] is done.
    Hook {
        /// Of which container.
        id: ContainerId,
        /// Which hook.
        kind: HookKind,
        /// What went wrong, in words.
        outcome: Result<(), String>,
    },
    /// A probe's verdict changed.
    Probe {
        /// Of which container.
        id: ContainerId,
        /// Which probe.
        kind: ProbeKind,
        /// The verdict.
        passed: bool,
    },
    /// The node ends the pod.
    End(End),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the pod's directories and volumes. Repeatable.
    MountVolumes,
    /// Take the volumes away.
    UnmountVolumes,
    /// Make a sandbox with this number.
    RunSandbox(u32),
    /// Wire a sandbox, or find out its addresses again.
    AttachNetwork(SandboxId),
    /// Stop, unwire and remove a sandbox with all in it.
    RemoveSandbox(SandboxId),
    /// Make sure that the image of a container is in the store, by its pull policy.
    PullImage(usize),
    /// Make and start a container.
    StartContainer {
        /// Which.
        index: usize,
        /// The number of this run.
        attempt: u32,
        /// The image that [`Event::ImageReady`] named.
        image: String,
    },
    /// Find out whether the node has room for what the pod wants.
    AskForRoom,
    /// Give a container's run the resources that are allocated to it.
    ResizeContainer {
        /// Which.
        index: usize,
        /// The container.
        id: ContainerId,
    },
    /// Run a hook of a container.
    RunHook {
        /// Which.
        index: usize,
        /// The container.
        id: ContainerId,
        /// Which hook.
        kind: HookKind,
    },
    /// Ask a container to end, and kill it after `grace`.
    StopContainer {
        /// Which.
        index: usize,
        /// The container.
        id: ContainerId,
        /// How long it may take.
        grace: Duration,
    },
    /// Take a container and its log away that ended before the last one did.
    RemoveContainer {
        /// Which.
        index: usize,
        /// The container.
        id: ContainerId,
        /// The number of that run.
        attempt: u32,
    },
    /// Tell people.
    Record {
        /// `Normal`, or `Warning`.
        warning: bool,
        /// The event's reason.
        reason: &'static str,
        /// The event's message.
        message: String,
        /// The container that it is about, if one.
        index: Option<usize>,
    },
    /// Write the final status, then take the pod out of the API.
    DeletePod,
    /// Take away the pod's files; then the worker is done.
    Forget,
}

/// A wait that doubles with each failure.
#[derive(Clone, Copy, Debug, Default)]
struct Retry(Duration);

impl Retry {
    fn next(&mut self, first: Duration, most: Duration) -> Duration {
        self.0 = if self.0.is_zero() { first } else { (self.0 * 2).min(most) };
        self.0
    }
    fn reset(&mut self) {
        self.0 = Duration::ZERO;
    }
}

/// The wait between runs. The first restart comes at once; the wait counts from the end of the run before it.
#[derive(Clone, Copy, Debug, Default)]
struct CrashBackoff {
    wait: Duration,
    /// When the wait was last lengthened.
    at: Option<Timestamp>,
}

impl CrashBackoff {
    /// How long to wait after an end at `finished`, at most `most`.
    fn after(&mut self, finished: Timestamp, most: Duration) -> Duration {
        let expired = self.at.is_none_or(|at| since(at, finished) > most * 2);
        let wait = if expired { Duration::ZERO } else { self.wait };
        self.wait = if expired { BACKOFF_FIRST } else { self.wait * 2 }.min(most);
        self.at = Some(finished + wait);
        wait
    }
}

/// The time from `a` to `b`, zero when `b` is earlier.
pub(crate) fn since(a: Timestamp, b: Timestamp) -> Duration {
    Duration::try_from(b.duration_since(a)).unwrap_or(Duration::ZERO)
}

// === impl State ===

impl State {
    /// A pod that this node has taken and nothing was done for yet.
    pub fn new(pod: Arc<Doc>, now: Timestamp) -> State {
        let containers = containers_of(&pod);
        State {
            pod,
            stage: Stage::Running,
            start_time: now,
            volumes: Volumes::Absent,
            sandbox: Sandbox::None(None),
            sandbox_attempt: 0,
            ips: Vec::new(),
            containers,
            end: None,
            stop_by: None,
            gone: false,
            leaving: false,
            frozen: false,
            resize: None,
            restart_wait_most: BACKOFF_MOST,
            retry: Retry::default(),
        }
    }

    /// A pod that this node does not take: it is Failed with this reason.
    pub fn refused(pod: Arc<Doc>, end: End, now: Timestamp) -> State {
        State { stage: Stage::Done, end: Some(end), ..State::new(pod, now) }
    }

    /// The API's object.
    pub fn object(&self) -> Pod<'_> {
        Pod(self.pod.root())
    }

    /// The pod's spec.
    pub fn spec(&self) -> PodSpec<'_> {
        self.object().spec()
    }

    /// A container's spec. Ephemeral containers have the same members.
    pub fn container_spec(&self, index: usize) -> ContainerSpec<'_> {
        let name = self.containers[index].name.as_str();
        ContainerSpec(
            container_specs(self.pod.root())
                .find(|(_, c)| c.get(k::NAME).str() == name)
                .map_or_else(Ref::absent, |(_, c)| c),
        )
    }

    /// Where a running container with this id is.
    pub fn running(&self, id: &ContainerId) -> Option<usize> {
        self.containers
            .iter()
            .position(|c| matches!(&c.phase, Phase::Running { id: running, .. } if running == id))
    }

    /// What runs of the container with this name.
    pub fn run_of(&self, name: &str) -> Option<ContainerId> {
        self.containers.iter().find(|c| c.name == name).and_then(|c| c.run()).map(|(id, _)| id.clone())
    }

    /// The sandbox, if there is one in any state.
    pub fn sandbox_id(&self) -> Option<&SandboxId> {
        match &self.sandbox {
            Sandbox::None(_) | Sandbox::Making => None,
            Sandbox::Made(id)
            | Sandbox::Attaching(id)
            | Sandbox::Ready(id)
            | Sandbox::Removing(id)
            | Sandbox::Broken(id, _) => Some(id),
        }
    }

    /// Whether the API wants the pod to go.
    pub fn deleting(&self) -> bool {
        self.gone || self.object().metadata().deletion_timestamp().is_some()
    }

    /// Takes in what happened and gives what to do.
    pub fn step(mut self, event: Event, now: Timestamp) -> (State, Vec<Action>) {
        let mut out = Vec::new();
        self.apply(event, now, &mut out);
        self.plan(now, &mut out);
        (self, out)
    }

    /// How long containers may take to end.
    pub fn grace(&self) -> Duration {
        let meta = self.object().metadata();
        let own = self.spec().termination_grace_period_seconds().unwrap_or(30);
        let grace = if meta.deletion_timestamp().is_some() {
            meta.deletion_grace_period_seconds().unwrap_or(own)
        } else {
            own
        };
        // Who is evicted for what it uses gets no time to use more.
        let evicted = self.end.as_ref().is_some_and(|end| end.reason == EVICTED);
        if evicted { GRACE_LEAST } else { seconds(grace).max(GRACE_LEAST) }
    }

    /// Whether a container runs or may come to run without a further action.
    pub fn alive(&self) -> bool {
        self.containers.iter().any(|c| matches!(c.phase, Phase::Running { .. } | Phase::Starting))
    }

    fn remove_sandbox(&mut self, id: SandboxId, out: &mut Vec<Action>) {
        self.sandbox = Sandbox::Removing(id.clone());
        out.push(Action::RemoveSandbox(id));
    }
}

// === impl Phase, Container ===

impl Phase {
    /// Waiting for its turn.
    fn turn() -> Phase {
        Phase::Waiting(None)
    }

    fn is_turn(&self) -> bool {
        matches!(self, Phase::Waiting(None))
    }
}

impl Container {
    fn new(name: &str, role: Role, resources: Doc) -> Container {
        Container {
            name: name.to_owned(),
            role,
            phase: Phase::turn(),
            last: None,
            attempt: 0,
            next_attempt: 0,
            image: None,
            trouble: None,
            started: false,
            ready: false,
            user: None,
            allocated: resources,
            actual: Doc::object(),
            resize_error: None,
            resizing: None,
            resize_at: None,
            made_of: String::new(),
            again: false,
            backoff: CrashBackoff::default(),
            flip_at: None,
            pull: Retry::default(),
            config: Retry::default(),
        }
    }

    fn end(&mut self, exit: Exit) {
        self.started = false;
        self.ready = false;
        self.phase = Phase::Exited(exit);
    }

    /// Whether its program runs and its `postStart` hook has passed.
    pub fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running { post_start: false, .. })
    }

    /// The id and image of the run now, if its program runs.
    pub fn run(&self) -> Option<(&ContainerId, &str)> {
        match &self.phase {
            Phase::Running { id, image_ref, .. } => Some((id, image_ref)),
            _ => None,
        }
    }
}

/// Whether a container that ended so is started again: by the first of its own rules that fits, its own policy, or
/// the pod's.
pub(crate) fn restarts(role: Role, spec: ContainerSpec<'_>, exit: &Exit, policy: &str) -> bool {
    let fits = |rule: Ref<'_>| {
        let codes = rule.get(k::EXIT_CODES);
        let listed = codes.get(k::VALUES).items().any(|code| code.i64() == i64::from(exit.code));
        listed == (codes.get(k::OPERATOR).str() == "In")
    };
    let own = spec.restart_policy();
    match role {
        Role::Sidecar => true,
        Role::Ephemeral => false,
        _ if spec.0.get(k::RESTART_POLICY_RULES).items().any(fits) => true,
        _ => match own.unwrap_or(policy) {
            "Never" => false,
            "OnFailure" => exit.code != 0,
            _ => role == Role::Main || exit.code != 0,
        },
    }
}

/// All containers of a pod with their roles, in order.
pub fn container_specs(pod: Ref<'_>) -> impl Iterator<Item = (Role, Ref<'_>)> {
    let spec = pod.get(k::SPEC);
    let init = spec
        .get(k::INIT_CONTAINERS)
        .items()
        .map(|c| (if c.get(k::RESTART_POLICY).str() == "Always" { Role::Sidecar } else { Role::Init }, c));
    let main = spec.get(k::CONTAINERS).items().map(|c| (Role::Main, c));
    init.chain(main).chain(spec.get(k::EPHEMERAL_CONTAINERS).items().map(|c| (Role::Ephemeral, c)))
}

/// What a container asks for and may use.
fn resources_of(container: Ref<'_>) -> Doc {
    let found = container.get(k::RESOURCES);
    if found.is_set() { found.to_doc() } else { Doc::object() }
}

fn containers_of(pod: &Doc) -> Vec<Container> {
    let new = |(role, c): (Role, Ref<'_>)| Container::new(c.get(k::NAME).str(), role, resources_of(c));
    container_specs(pod.root()).map(new).collect()
}

fn seconds(n: i64) -> Duration {
    Duration::from_secs(u64::try_from(n).unwrap_or(0))
}

fn normal(reason: &'static str, message: String, index: Option<usize>) -> Action {
    Action::Record { warning: false, reason, message, index }
}

fn warn(reason: &'static str, message: String, index: Option<usize>) -> Action {
    Action::Record { warning: true, reason, message, index }
}
