//! Containers that pretend to run: they start after a while, become ready after a while, end some time after SIGTERM,
//! and crash now and then while [`SimRuntime::set_crashes`] says so.
//!
//! Every call waits before and after it takes effect, so that a kubelet's end falls on either side.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base::time::{Instant, instant};
use runtime::*;

use super::pause;

/// One of so many starts ends in a crash, where crashes are on.
const CRASH_ONE_IN: u64 = 6;
/// One of so many containers does not heed SIGTERM.
const STUBBORN_ONE_IN: u64 = 10;
/// How long it takes at most to be ready, to heed SIGTERM, and to crash, in milliseconds.
const READY_MS: u64 = 3000;
const TERM_MS: u64 = 2000;
const CRASH_MS: u64 = 20_000;

/// How often something happened to a container of a pod.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// It was started.
    pub starts: u32,
    /// It ended of its own.
    pub crashes: u32,
}

/// See the module's text. Handles are clones.
#[derive(Clone)]
pub struct SimRuntime(Arc<Shared>);

struct Shared {
    node: u8,
    state: Mutex<State>,
    events: EventSender,
    // How often something ended or went.
    exits: base::watch::Sender<u64>,
    crashes: AtomicBool,
    early: AtomicU32,
}

#[derive(Default)]
struct State {
    next: u32,
    sandboxes: BTreeMap<SandboxId, PodSandboxStatus>,
    containers: BTreeMap<ContainerId, Container>,
    // By pod uid and container name.
    counts: BTreeMap<(String, String), Counts>,
}

struct Container {
    status: ContainerStatus,
    ready_at: Option<Instant>,
    // When it will have heeded the first SIGTERM.
    heeds_at: Option<Instant>,
}

fn not_found(kind: &'static str, id: &str) -> Error {
    Error::NotFound { kind, id: id.to_owned() }
}

impl SimRuntime {
    /// The `node`th node's.
    pub fn new(node: u8) -> SimRuntime {
        SimRuntime(Arc::new(Shared {
            node,
            state: Mutex::default(),
            events: EventSender::default(),
            exits: base::watch::Sender::new(0),
            crashes: AtomicBool::new(false),
            early: AtomicU32::new(0),
        }))
    }

    /// Whether containers that are started from now on may crash.
    pub fn set_crashes(&self, on: bool) {
        self.0.crashes.store(on, Ordering::Relaxed);
    }

    /// The next so many containers end, with an error, before their start is answered.
    pub fn end_early(&self, count: u32) {
        self.0.early.store(count, Ordering::Relaxed);
    }

    /// The running container of this name ends.
    pub fn exit(&self, name: &str, code: i32) {
        let running = |c: &&Container| c.status.name == name && c.status.state == ContainerState::Running;
        let id = self.lock().containers.values().find(running).map(|c| c.status.id.clone());
        self.end(&id.expect("it runs"), code, true);
    }

    /// Waits until neither sandbox nor container exists.
    pub async fn until_empty(&self) {
        let mut exits = self.0.exits.subscribe();
        while !self.leftovers().is_empty() {
            exits.changed().await.expect("the sender is ours");
        }
    }

    /// What happened so far, by pod uid and container name.
    pub fn counts(&self) -> Vec<((String, String), Counts)> {
        self.lock().counts.iter().map(|(key, counts)| (key.clone(), *counts)).collect()
    }

    /// Whether a sandbox's running containers answer.
    pub fn is_ready(&self, sandbox: &str) -> bool {
        let state = self.lock();
        let mine = state.containers.values().filter(|c| c.status.sandbox_id.as_str() == sandbox);
        // What has ended has a successor, or is to have one.
        let mut alive = mine.filter(|c| c.status.state == ContainerState::Running).peekable();
        alive.peek().is_some() && alive.all(|c| c.ready_at.is_some_and(|at| at <= instant()))
    }

    /// What exists, in words.
    pub fn leftovers(&self) -> Vec<String> {
        let state = self.lock();
        let sandboxes = state.sandboxes.values().map(|s| format!("sandbox {} of {}", s.id, s.metadata.name));
        let containers = state.containers.keys().map(|id| format!("container {id}"));
        sandboxes.chain(containers).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("nobody panics holding it")
    }

    fn id(&self, state: &mut State, kind: char) -> String {
        state.next += 1;
        format!("{kind}{}-{:06}", self.0.node, state.next)
    }

    /// A container ends, unless it has.
    fn end(&self, id: &ContainerId, code: i32, crash: bool) {
        let event = {
            let mut state = self.lock();
            let Some(container) = state.containers.get_mut(id) else { return };
            if container.status.state != ContainerState::Running {
                return;
            }
            let status = &mut container.status;
            status.state = ContainerState::Exited;
            status.exit_code = code;
            status.reason = if code == 0 { "Completed" } else { "Error" }.into();
            status.finished_at = Some(base::time::now());
            let (sandbox_id, name) = (status.sandbox_id.clone(), status.name.clone());
            let pod_uid =
                state.sandboxes.get(&sandbox_id).map_or_else(String::new, |s| s.metadata.uid.clone());
            if crash {
                state.counts.entry((pod_uid.clone(), name)).or_default().crashes += 1;
            }
            ContainerEvent {
                container_id: id.clone(),
                sandbox_id,
                event_type: ContainerEventType::Stopped,
                created_at: base::time::now(),
                pod_uid,
            }
        };
        self.0.events.send(RuntimeEvent::Container(event));
        self.went();
    }

    fn went(&self) {
        self.0.exits.send(self.0.exits.get() + 1);
    }

    fn end_later(&self, id: &ContainerId, at: Instant, code: i32, crash: bool) {
        let (me, id) = (self.clone(), id.clone());
        base::task::spawn(async move {
            base::time::sleep_until(at).await;
            me.end(&id, code, crash);
        })
        .detach();
    }

    fn begin(&self, id: &ContainerId) -> Result<()> {
        let mut state = self.lock();
        let container = state.containers.get_mut(id).ok_or_else(|| not_found("container", id.as_str()))?;
        if container.status.state != ContainerState::Created {
            let state = format!("{:?}", container.status.state);
            return Err(Error::State { kind: "container", id: id.to_string(), state });
        }
        let sandbox_id = container.status.sandbox_id.clone();
        let name = container.status.name.clone();
        let sandbox = state.sandboxes.get(&sandbox_id).filter(|s| s.state == PodSandboxState::Ready);
        let uid = sandbox.map(|s| s.metadata.uid.clone());
        let uid = uid.ok_or_else(|| not_found("sandbox", sandbox_id.as_str()))?;
        state.counts.entry((uid, name)).or_default().starts += 1;
        let container = state.containers.get_mut(id).expect("it was there");
        container.status.state = ContainerState::Running;
        container.status.started_at = Some(base::time::now());
        container.ready_at = Some(instant() + Duration::from_millis(base::rand::below(READY_MS)));
        drop(state);
        if self.0.crashes.load(Ordering::Relaxed) && base::rand::below(CRASH_ONE_IN) == 0 {
            let at = instant() + Duration::from_millis(base::rand::below(CRASH_MS));
            self.end_later(id, at, 1, true);
        }
        Ok(())
    }

    /// SIGTERM now, SIGKILL after `grace`.
    fn terminate(&self, id: &ContainerId, grace: Duration) {
        let now = instant();
        let heeds_at = {
            let mut state = self.lock();
            let Some(container) = state.containers.get_mut(id) else { return };
            *container.heeds_at.get_or_insert_with(|| {
                let stubborn = base::rand::below(STUBBORN_ONE_IN) == 0;
                now + Duration::from_millis(if stubborn { 86_400_000 } else { base::rand::below(TERM_MS) })
            })
        };
        let killed_at = now + grace;
        let (at, code) = if heeds_at < killed_at { (heeds_at, 143) } else { (killed_at, 137) };
        if at <= now { self.end(id, code, false) } else { self.end_later(id, at, code, false) }
    }

    fn is_running(&self, id: &ContainerId) -> bool {
        self.lock().containers.get(id).is_some_and(|c| c.status.state == ContainerState::Running)
    }

    fn make_container(&self, sandbox: &SandboxId, config: ContainerConfig) -> Result<ContainerId> {
        let mut state = self.lock();
        if !state.sandboxes.contains_key(sandbox) {
            return Err(not_found("sandbox", sandbox.as_str()));
        }
        let id: ContainerId = self.id(&mut state, 'c').into();
        let status = ContainerStatus {
            id: id.clone(),
            sandbox_id: sandbox.clone(),
            name: config.name,
            attempt: config.attempt,
            state: ContainerState::Created,
            created_at: base::time::now(),
            started_at: None,
            finished_at: None,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: config.image.clone(),
            image_ref: config.image,
            log_path: config.log_path,
            mounts: config.mounts,
            labels: config.labels,
            annotations: config.annotations,
            user: None,
        };
        state.containers.insert(id.clone(), Container { status, ready_at: None, heeds_at: None });
        Ok(id)
    }

    fn kill_all(&self, sandbox: &SandboxId) {
        let mine: Vec<ContainerId> = {
            let mut state = self.lock();
            if let Some(status) = state.sandboxes.get_mut(sandbox) {
                status.state = PodSandboxState::NotReady;
            }
            let all = state.containers.values().filter(|c| c.status.sandbox_id == *sandbox);
            all.map(|c| c.status.id.clone()).collect()
        };
        mine.iter().for_each(|id| self.end(id, 137, false));
    }
}

/// What does not run has no streams.
fn not_streamed(field: &'static str) -> Error {
    Error::Unsupported { field, value: "a stream".to_owned() }
}

impl Runtime for SimRuntime {
    fn version(&self) -> BoxFuture<'_, Result<VersionResponse>> {
        Box::pin(async { Ok(VersionResponse { runtime_name: "sim".into(), runtime_version: "1".into() }) })
    }

    fn run_pod_sandbox(&self, config: PodSandboxConfig) -> BoxFuture<'_, Result<SandboxId>> {
        Box::pin(async move {
            pause(150).await;
            let id: SandboxId = {
                let mut state = self.lock();
                let id: SandboxId = self.id(&mut state, 's').into();
                let status = PodSandboxStatus {
                    id: id.clone(),
                    metadata: config.metadata,
                    state: PodSandboxState::Ready,
                    created_at: base::time::now(),
                    network_namespace: Some(format!("/run/netns/{id}").into()),
                    labels: config.labels,
                    annotations: config.annotations,
                };
                state.sandboxes.insert(id.clone(), status);
                id
            };
            pause(20).await;
            Ok(id)
        })
    }

    fn stop_pod_sandbox<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            pause(50).await;
            self.kill_all(id);
            pause(20).await;
            Ok(())
        })
    }

    fn remove_pod_sandbox<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            pause(50).await;
            self.kill_all(id);
            {
                let mut state = self.lock();
                state.sandboxes.remove(id);
                state.containers.retain(|_, c| c.status.sandbox_id != *id);
            }
            self.went();
            pause(20).await;
            Ok(())
        })
    }

    fn pod_sandbox_status<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<PodSandboxStatus>> {
        Box::pin(async move {
            self.lock().sandboxes.get(id).cloned().ok_or_else(|| not_found("sandbox", id.as_str()))
        })
    }

    fn list_pod_sandboxes(&self) -> BoxFuture<'_, Result<Vec<PodSandboxStatus>>> {
        Box::pin(async move { Ok(self.lock().sandboxes.values().cloned().collect()) })
    }

    fn create_container<'a>(
        &'a self,
        sandbox: &'a SandboxId,
        config: ContainerConfig,
    ) -> BoxFuture<'a, Result<ContainerId>> {
        Box::pin(async move {
            pause(50).await;
            let id = self.make_container(sandbox, config)?;
            pause(20).await;
            Ok(id)
        })
    }

    fn start_container<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            pause(500).await;
            self.begin(id)?;
            let early = |left: u32| left.checked_sub(1);
            if self.0.early.fetch_update(Ordering::Relaxed, Ordering::Relaxed, early).is_ok() {
                self.end(id, 3, true);
            }
            pause(20).await;
            Ok(())
        })
    }

    fn stop_container<'a>(&'a self, id: &'a ContainerId, grace: Duration) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            pause(10).await;
            let mut exits = self.0.exits.subscribe();
            self.terminate(id, grace);
            while self.is_running(id) {
                if exits.changed().await.is_err() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn remove_container<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            pause(30).await;
            self.end(id, 137, false);
            self.lock().containers.remove(id);
            self.went();
            Ok(())
        })
    }

    fn update_container_resources<'a>(
        &'a self,
        _: &'a ContainerId,
        _: LinuxContainerResources,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
    fn update_pod_sandbox_resources<'a>(
        &'a self,
        _: &'a SandboxId,
        _: LinuxContainerResources,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
    fn container_stats<'a>(&'a self, _: &'a ContainerId) -> BoxFuture<'a, Result<ContainerStats>> {
        Box::pin(async { Ok(ContainerStats::default()) })
    }
    fn container_status<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<ContainerStatus>> {
        Box::pin(async move {
            let found = self.lock().containers.get(id).map(|c| c.status.clone());
            found.ok_or_else(|| not_found("container", id.as_str()))
        })
    }

    fn list_containers(&self) -> BoxFuture<'_, Result<Vec<ContainerStatus>>> {
        Box::pin(async move { Ok(self.lock().containers.values().map(|c| c.status.clone()).collect()) })
    }

    fn exec_sync<'a>(
        &'a self,
        id: &'a ContainerId,
        _: Vec<String>,
        _: Duration,
    ) -> BoxFuture<'a, Result<ExecSyncResponse>> {
        Box::pin(async move {
            pause(50).await;
            let exit_code = if self.is_running(id) { 0 } else { 137 };
            Ok(ExecSyncResponse { stdout: Vec::new(), stderr: Vec::new(), exit_code })
        })
    }

    fn exec<'a>(
        &'a self,
        _: &'a ContainerId,
        _: Vec<String>,
        _: StreamOptions,
    ) -> BoxFuture<'a, Result<Streams>> {
        Box::pin(async { Err(not_streamed("exec")) })
    }

    fn attach<'a>(&'a self, _: &'a ContainerId, _: StreamOptions) -> BoxFuture<'a, Result<Streams>> {
        Box::pin(async { Err(not_streamed("attach")) })
    }

    fn connect<'a>(&'a self, _: &'a SandboxId, _: Vec<SocketAddr>) -> BoxFuture<'a, Result<Connection>> {
        Box::pin(async { Err(not_streamed("connect")) })
    }

    fn events(&self) -> Events {
        self.0.events.subscribe()
    }

    fn images(&self) -> Arc<dyn ImageStore> {
        Arc::new(self.clone())
    }
}

fn image(name: &str) -> Image {
    Image {
        id: format!("sha256:{name}"),
        repo_tags: vec![name.to_owned()],
        repo_digests: Vec::new(),
        size: 1 << 20,
        uid: None,
        username: String::new(),
        pinned: false,
    }
}

/// Every image is there.
impl ImageStore for SimRuntime {
    fn list(&self) -> BoxFuture<'_, Result<Vec<Image>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn disk(&self) -> BoxFuture<'_, Result<Disk>> {
        Box::pin(async { Ok(Disk::default()) })
    }
    fn status<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Image>>> {
        Box::pin(async move { Ok(Some(image(name.trim_start_matches("sha256:")))) })
    }
    fn pull<'a>(&'a self, name: &'a str, _: &'a [Credential]) -> BoxFuture<'a, Result<Image>> {
        Box::pin(async move {
            pause(1000).await;
            Ok(image(name))
        })
    }
    fn import<'a>(&'a self, _: &'a Path, _: Option<&'a str>) -> BoxFuture<'a, Result<Vec<Image>>> {
        Box::pin(async { Err(Error::Archive { message: "nothing is imported here".into() }) })
    }
    fn remove<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}
