//! Doors to a machine that does not exist.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kubelet::doors::{
    Files, GrpcRequest, HostPort, HttpAnswer, HttpRequest, Machine, MachineInfo, Payload, PodNetwork, Prober,
    Result, Short,
};
use runtime::*;
use tokio::sync::watch;

#[derive(Default)]
pub struct FakeRuntime {
    state: Mutex<State>,
    events: EventSender,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    next: u32,
    starts: u32,
    short: u32,
    sandboxes: BTreeMap<SandboxId, PodSandboxStatus>,
    containers: BTreeMap<ContainerId, ContainerStatus>,
}

impl FakeRuntime {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let out = f(&mut self.state.lock().unwrap());
        self.changed.send_modify(|n| *n += 1);
        out
    }

    pub fn starts(&self) -> u32 {
        self.state.lock().unwrap().starts
    }

    /// The next so many containers end, with an error, before their start is answered.
    pub fn end_early(&self, count: u32) {
        self.state.lock().unwrap().short = count;
    }

    /// Sandboxes and containers that exist.
    pub fn left(&self) -> usize {
        let state = self.state.lock().unwrap();
        state.sandboxes.len() + state.containers.len()
    }

    pub async fn until_empty(&self) {
        let mut changes = self.changed.subscribe();
        while self.left() > 0 {
            changes.changed().await.unwrap();
        }
    }

    /// The running container of this name ends.
    pub fn exit(&self, name: &str, code: i32) {
        let state = self.state.lock().unwrap();
        let id = state
            .containers
            .values()
            .find(|c| c.name == name && c.state == ContainerState::Running)
            .unwrap()
            .id
            .clone();
        drop(state);
        self.end(&id, code);
    }

    fn end(&self, id: &ContainerId, code: i32) {
        let event = self.with(|s| {
            let uids: BTreeMap<SandboxId, String> =
                s.sandboxes.values().map(|p| (p.id.clone(), p.metadata.uid.clone())).collect();
            let c = s.containers.get_mut(id)?;
            if c.state != ContainerState::Running {
                return None;
            }
            c.state = ContainerState::Exited;
            c.exit_code = code;
            c.finished_at = Some(base::time::now());
            Some(ContainerEvent {
                container_id: id.clone(),
                sandbox_id: c.sandbox_id.clone(),
                event_type: ContainerEventType::Stopped,
                created_at: base::time::now(),
                pod_uid: uids.get(&c.sandbox_id).cloned().unwrap_or_default(),
            })
        });
        if let Some(event) = event {
            self.events.send(RuntimeEvent::Container(event));
        }
    }
}

fn not_found(kind: &'static str, id: &str) -> Error {
    Error::NotFound { kind, id: id.to_owned() }
}

/// What does not run has no streams.
fn not_streamed(field: &'static str) -> Error {
    Error::Unsupported { field, value: "a stream".to_owned() }
}

impl Runtime for FakeRuntime {
    fn version(&self) -> BoxFuture<'_, runtime::Result<VersionResponse>> {
        Box::pin(async { Ok(VersionResponse { runtime_name: "fake".into(), runtime_version: "1".into() }) })
    }
    fn run_pod_sandbox(&self, config: PodSandboxConfig) -> BoxFuture<'_, runtime::Result<SandboxId>> {
        Box::pin(async move {
            Ok(self.with(|s| {
                s.next += 1;
                let id: SandboxId = format!("s{}", s.next).into();
                let status = PodSandboxStatus {
                    id: id.clone(),
                    metadata: config.metadata,
                    state: PodSandboxState::Ready,
                    created_at: base::time::now(),
                    network_namespace: Some("/netns".into()),
                    labels: config.labels,
                    annotations: config.annotations,
                };
                s.sandboxes.insert(id.clone(), status);
                id
            }))
        })
    }
    fn stop_pod_sandbox<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, runtime::Result<()>> {
        Box::pin(async move {
            self.with(|s| s.sandboxes.get_mut(id).map(|p| p.state = PodSandboxState::NotReady));
            Ok(())
        })
    }
    fn remove_pod_sandbox<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, runtime::Result<()>> {
        Box::pin(async move {
            self.with(|s| {
                s.sandboxes.remove(id);
                s.containers.retain(|_, c| c.sandbox_id != *id);
            });
            Ok(())
        })
    }
    fn pod_sandbox_status<'a>(
        &'a self,
        id: &'a SandboxId,
    ) -> BoxFuture<'a, runtime::Result<PodSandboxStatus>> {
        Box::pin(async move {
            self.with(|s| s.sandboxes.get(id).cloned()).ok_or_else(|| not_found("sandbox", id.as_str()))
        })
    }
    fn list_pod_sandboxes(&self) -> BoxFuture<'_, runtime::Result<Vec<PodSandboxStatus>>> {
        Box::pin(async move { Ok(self.with(|s| s.sandboxes.values().cloned().collect())) })
    }
    fn create_container<'a>(
        &'a self,
        sandbox: &'a SandboxId,
        config: ContainerConfig,
    ) -> BoxFuture<'a, runtime::Result<ContainerId>> {
        Box::pin(async move {
            Ok(self.with(|s| {
                s.next += 1;
                let id: ContainerId = format!("c{}", s.next).into();
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
                s.containers.insert(id.clone(), status);
                id
            }))
        })
    }
    fn start_container<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, runtime::Result<()>> {
        Box::pin(async move {
            base::time::sleep(Duration::from_millis(20)).await;
            self.with(|s| {
                s.starts += 1;
                let c = s.containers.get_mut(id).ok_or_else(|| not_found("container", id.as_str()))?;
                (c.state, c.started_at) = (ContainerState::Running, Some(base::time::now()));
                Ok(())
            })?;
            let short = self.with(|s| {
                let short = s.short > 0;
                s.short -= u32::from(short);
                short
            });
            if short {
                self.end(id, 3);
                // The word of its end is heard before the answer to its start.
                base::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        })
    }
    fn stop_container<'a>(
        &'a self,
        id: &'a ContainerId,
        grace: Duration,
    ) -> BoxFuture<'a, runtime::Result<()>> {
        Box::pin(async move {
            base::time::sleep(grace.min(Duration::from_secs(1))).await;
            self.end(id, 143);
            Ok(())
        })
    }
    fn remove_container<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, runtime::Result<()>> {
        Box::pin(async move {
            self.with(|s| s.containers.remove(id));
            Ok(())
        })
    }
    fn update_container_resources<'a>(
        &'a self,
        _: &'a ContainerId,
        _: LinuxContainerResources,
    ) -> BoxFuture<'a, runtime::Result<()>> {
        Box::pin(async { Ok(()) })
    }
    fn update_pod_sandbox_resources<'a>(
        &'a self,
        _: &'a SandboxId,
        _: LinuxContainerResources,
    ) -> BoxFuture<'a, runtime::Result<()>> {
        Box::pin(async { Ok(()) })
    }
    fn container_stats<'a>(&'a self, _: &'a ContainerId) -> BoxFuture<'a, runtime::Result<ContainerStats>> {
        Box::pin(async { Ok(ContainerStats::default()) })
    }
    fn container_status<'a>(
        &'a self,
        id: &'a ContainerId,
    ) -> BoxFuture<'a, runtime::Result<ContainerStatus>> {
        Box::pin(async move {
            self.with(|s| s.containers.get(id).cloned()).ok_or_else(|| not_found("container", id.as_str()))
        })
    }
    fn list_containers(&self) -> BoxFuture<'_, runtime::Result<Vec<ContainerStatus>>> {
        Box::pin(async move { Ok(self.with(|s| s.containers.values().cloned().collect())) })
    }
    fn exec_sync<'a>(
        &'a self,
        _: &'a ContainerId,
        _: Vec<String>,
        _: Duration,
    ) -> BoxFuture<'a, runtime::Result<ExecSyncResponse>> {
        Box::pin(async { Ok(ExecSyncResponse { stdout: Vec::new(), stderr: Vec::new(), exit_code: 0 }) })
    }
    fn exec<'a>(
        &'a self,
        _: &'a ContainerId,
        _: Vec<String>,
        _: StreamOptions,
    ) -> BoxFuture<'a, runtime::Result<Streams>> {
        Box::pin(async { Err(not_streamed("exec")) })
    }
    fn attach<'a>(&'a self, _: &'a ContainerId, _: StreamOptions) -> BoxFuture<'a, runtime::Result<Streams>> {
        Box::pin(async { Err(not_streamed("attach")) })
    }
    fn connect<'a>(
        &'a self,
        _: &'a SandboxId,
        _: Vec<SocketAddr>,
    ) -> BoxFuture<'a, runtime::Result<Connection>> {
        Box::pin(async { Err(not_streamed("connect")) })
    }
    fn events(&self) -> Events {
        self.events.subscribe()
    }
    fn images(&self) -> Arc<dyn ImageStore> {
        Arc::new(FakeRuntime::default())
    }
}

fn image(name: &str) -> Image {
    Image {
        id: format!("sha256:{name}"),
        repo_tags: Vec::new(),
        repo_digests: Vec::new(),
        size: 1,
        uid: None,
        username: String::new(),
        pinned: false,
    }
}

impl ImageStore for FakeRuntime {
    fn list(&self) -> BoxFuture<'_, runtime::Result<Vec<Image>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn disk(&self) -> BoxFuture<'_, runtime::Result<Disk>> {
        Box::pin(async { Ok(Disk::default()) })
    }
    fn status<'a>(&'a self, name: &'a str) -> BoxFuture<'a, runtime::Result<Option<Image>>> {
        Box::pin(async move { Ok(Some(image(name.trim_start_matches("sha256:")))) })
    }
    fn pull<'a>(&'a self, name: &'a str, _: &'a [Credential]) -> BoxFuture<'a, runtime::Result<Image>> {
        Box::pin(async move { Ok(image(name)) })
    }
    fn import<'a>(&'a self, _: &'a Path, _: Option<&'a str>) -> BoxFuture<'a, runtime::Result<Vec<Image>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn remove<'a>(&'a self, _: &'a str) -> BoxFuture<'a, runtime::Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

#[derive(Default)]
pub struct FakeNetwork(Mutex<BTreeMap<String, IpAddr>>);

impl PodNetwork for FakeNetwork {
    fn setup(&self, cidrs: Vec<String>) -> BoxFuture<'_, Result<()>> {
        assert_eq!(cidrs, ["10.1.0.0/24"]);
        Box::pin(async { Ok(()) })
    }
    fn attach(&self, _: PathBuf, key: String, _: Vec<HostPort>) -> BoxFuture<'_, Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let mut all = self.0.lock().unwrap();
            let next = IpAddr::from([10, 1, 0, u8::try_from(all.len()).unwrap() + 2]);
            Ok(vec![*all.entry(key).or_insert(next)])
        })
    }
    fn detach(&self, key: String) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.0.lock().unwrap().remove(&key);
            Ok(())
        })
    }
    fn keys(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        Box::pin(async { Ok(self.0.lock().unwrap().keys().cloned().collect()) })
    }
}

pub struct FakeFiles;

impl Files for FakeFiles {
    fn make_dir(&self, _: &Path, _: u32, _: Option<u32>) -> Result<()> {
        Ok(())
    }
    fn make_tmpfs(&self, _: &Path, _: u32, _: Option<u32>, _: Option<u64>) -> Result<()> {
        Ok(())
    }
    fn write(&self, _: &Path, _: &[u8], _: u32) -> Result<()> {
        Ok(())
    }
    fn publish(&self, _: &Path, _: &Payload, _: Option<u32>) -> Result<bool> {
        Ok(true)
    }
    fn remove(&self, _: &Path) -> Result<()> {
        Ok(())
    }
    fn read_end(&self, _: &Path, _: usize) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }
    fn link(&self, _: &Path, _: &Path) -> Result<()> {
        Ok(())
    }
    fn list(&self, _: &Path) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
    fn usage(&self, _: &Path) -> u64 {
        0
    }
    fn sub_path(&self, _: &Path, _: &Path) -> Result<()> {
        Ok(())
    }
    fn host_path(&self, _: &Path, _: &str) -> Result<()> {
        Ok(())
    }
}

pub struct FakeMachine;

impl Machine for FakeMachine {
    fn info(&self) -> MachineInfo {
        let addresses = vec!["192.0.2.1".parse().unwrap()];
        MachineInfo {
            cpu_milli: 4000,
            memory: 8 << 30,
            storage: 100 << 30,
            addresses,
            architecture: "amd64".into(),
            ..MachineInfo::default()
        }
    }
    fn short(&self) -> Vec<Short> {
        Vec::new()
    }
    fn resolv_conf(&self) -> String {
        String::new()
    }
    fn hosts(&self) -> String {
        String::new()
    }
}

pub struct FakeProber;

impl Prober for FakeProber {
    fn http_get(&self, _: HttpRequest, _: Duration) -> BoxFuture<'_, Result<HttpAnswer, String>> {
        Box::pin(async { Ok(HttpAnswer { code: 200, ..HttpAnswer::default() }) })
    }
    fn grpc(&self, _: GrpcRequest, _: Duration) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
    fn tcp(&self, _: SocketAddr, _: Duration) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
}
