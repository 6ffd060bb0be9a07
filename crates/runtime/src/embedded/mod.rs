//! The embedded engine: CRI's calls over shims and the image store.
//!
//! It starts a shim per pod and forgets nothing by being restarted: the truth about containers is in the shims
//! and their state files, and opening the engine again on the same directories finds all of it. It never forks
//! in this process and holds no mount namespace of its own.
//!
//! ```text
//! <root>/images/…                              the image store
//! <root>/sandboxes/<id>/state.json, shim.log   what is known of a sandbox
//! <root>/sandboxes/<id>/containers/<id>/…      writable layers
//! <run>/<first 16 digits of id>/               shim.sock; mounts: netns, shm
//! ```
//! Upstream: containerd's `internal/cri`.

mod client;
mod sandbox;
mod streams;
mod validate;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::oneshot;

use self::sandbox::Sandbox;
use crate::image::store::Store;
use crate::linux::cgroups::{Cgroups, Scope};
use crate::linux::namespaces;
use crate::shim::protocol::{
    Call, ContainerSpec, LogRotation, Reply, STATE_FILE, SandboxSpec, State, VERSION, now,
};
use crate::{
    BoxFuture, ContainerConfig, ContainerEventType, ContainerId, ContainerStats, ContainerStatus, Error,
    EventSender, Events, ExecSyncResponse, ImageStore, LinuxContainerResources, NamespaceMode,
    PodSandboxConfig, PodSandboxStatus, Registries, Result, Runtime, SandboxId, SecurityProfile,
    StreamOptions, Streams, VersionResponse,
};

/// The memory that a pod's containers share as /dev/shm. Source: containerd.
const SHM_BYTES: u64 = 64 << 20;
/// How long a shim may take to answer when the engine is opened, before it counts as dead.
const ATTACH_TIME_MAX: Duration = Duration::from_secs(10);

/// What can be chosen.
#[derive(Clone, Debug)]
pub struct Options {
    /// The executable that is a shim when started with `shim_args`.
    pub shim_exe: PathBuf,
    /// What it is started with; a directory follows.
    pub shim_args: Vec<OsString>,
    /// A prefix of all control groups, so that several nodes fit on one machine.
    pub cgroup_root: String,
    /// Another place for images than `<root>/images`, perhaps shared.
    pub image_dir: Option<PathBuf>,
    /// When logs are rotated.
    pub log_rotation: LogRotation,
    /// Where images are pulled from; nowhere if not given.
    pub registries: Option<Registries>,
}

impl Default for Options {
    /// This executable with the one argument `shim`, no prefix.
    fn default() -> Self {
        Options {
            shim_exe: "/proc/self/exe".into(),
            shim_args: vec!["shim".into()],
            cgroup_root: "/".to_owned(),
            image_dir: None,
            log_rotation: LogRotation::default(),
            registries: None,
        }
    }
}

/// The embedded engine. Cheap to clone; dropping it leaves all containers running.
#[derive(Clone)]
pub struct Embedded(Arc<Inner>);

/// What all parts of the engine share.
pub struct Inner {
    root: PathBuf,
    run: PathBuf,
    options: Options,
    store: Arc<Store>,
    /// Control groups below the prefix.
    pub cgroups: Cgroups,
    sandboxes: Mutex<BTreeMap<SandboxId, Arc<Sandbox>>>,
    /// Who is told of changes.
    pub events: EventSender,
}

impl Embedded {
    /// Opens the engine on its directories, and finds every sandbox that an earlier one left, running or not.
    ///
    /// # Errors
    /// When the directories cannot be made or the machine has no control groups.
    pub async fn open(
        root: impl Into<PathBuf>,
        run: impl Into<PathBuf>,
        options: Options,
    ) -> Result<Embedded> {
        let (root, run) = (root.into(), run.into());
        for dir in [&root.join("sandboxes"), &run] {
            make_private(dir)?;
        }
        let images = options.image_dir.clone().unwrap_or_else(|| root.join("images"));
        let mut store = Store::open(images)?;
        if let Some(registries) = &options.registries {
            store = store.with_registries(registries.clone());
        }
        let inner = Arc::new(Inner {
            store: Arc::new(store),
            cgroups: Cgroups::detect(&options.cgroup_root).map_err(Error::io("find control groups"))?,
            root,
            run,
            options,
            sandboxes: Mutex::default(),
            events: EventSender::default(),
        });
        inner.recover().await?;
        Ok(Embedded(inner))
    }

    /// Stops and removes every sandbox, and the groups below the prefix: what `down` must do to leave the
    /// host as it was.
    ///
    /// # Errors
    /// The first failure; the rest has been tried.
    pub async fn tear_down(&self) -> Result<()> {
        let mut result = Ok(());
        for id in self.0.ids() {
            result = result.and(self.remove_pod_sandbox(&id).await);
        }
        let inner = Arc::clone(&self.0);
        let removed = base::task::blocking(move || inner.cgroups.remove_root()).await;
        result.and(removed.map_err(Error::io("remove control groups")))
    }
}

impl Inner {
    fn sandbox_dir(&self, id: &SandboxId) -> PathBuf {
        self.root.join("sandboxes").join(id.as_str())
    }

    /// Short, because the path of a socket must be.
    fn run_dir(&self, id: &SandboxId) -> PathBuf {
        self.run.join(id.as_str().get(..16).unwrap_or(id.as_str()))
    }

    fn ids(&self) -> Vec<SandboxId> {
        self.lock().keys().cloned().collect()
    }

    fn sandbox(&self, id: &SandboxId) -> Result<Arc<Sandbox>> {
        self.lock().get(id).cloned().ok_or_else(|| Error::NotFound { kind: "sandbox", id: id.to_string() })
    }

    fn sandbox_of(&self, id: &ContainerId) -> Result<Arc<Sandbox>> {
        let found = self.lock().values().find(|s| s.has(id)).cloned();
        found.ok_or_else(|| Error::NotFound { kind: "container", id: id.to_string() })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<SandboxId, Arc<Sandbox>>> {
        self.sandboxes.lock().expect("nothing panics while it holds this lock")
    }

    async fn recover(self: &Arc<Self>) -> Result<()> {
        let dir = self.root.join("sandboxes");
        let entries = fs::read_dir(&dir).map_err(Error::io(format!("list {}", dir.display())))?;
        for entry in entries {
            let entry = entry.map_err(Error::io(format!("list {}", dir.display())))?;
            let id = SandboxId::from(entry.file_name().to_string_lossy().into_owned());
            let state = match sandbox::load(&entry.path()) {
                Ok(state) => state,
                Err(e) => {
                    tracing::warn!(sandbox = %id, error = %e, "removing what is left of a sandbox");
                    self.destroy(&id, None)?;
                    continue;
                }
            };
            let sandbox = Sandbox::new(self, state);
            match base::time::timeout(ATTACH_TIME_MAX, sandbox.attach()).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => {
                    tracing::warn!(sandbox = %id, error = %e, "its shim is gone");
                    sandbox.bury();
                }
                Err(_) => {
                    tracing::warn!(sandbox = %id, "its shim does not answer");
                    sandbox.bury();
                }
            }
            self.drop_strangers(&sandbox);
            self.lock().insert(id, sandbox);
        }
        Ok(())
    }

    /// Removes directories of containers that the shim never heard of: a create that was cut off.
    fn drop_strangers(&self, sandbox: &Sandbox) {
        let Ok(entries) = fs::read_dir(sandbox.dir.join("containers")) else { return };
        for entry in entries.flatten() {
            let id = ContainerId::from(entry.file_name().to_string_lossy().into_owned());
            if !sandbox.has(&id)
                && let Err(e) = self.remove_container_files(&entry.path(), &id)
            {
                tracing::warn!(container = %id, error = %e, "left-over files not removed");
            }
        }
    }

    // === sandboxes ===

    async fn run_sandbox(self: Arc<Self>, config: PodSandboxConfig) -> Result<SandboxId> {
        validate::sandbox(&config)?;
        let id = SandboxId::random();
        let made = self.make_sandbox(&id, config).await;
        if made.is_err() {
            let (inner, id) = (Arc::clone(&self), id.clone());
            let cleaned = base::task::blocking(move || inner.destroy(&id, None)).await;
            if let Err(e) = cleaned {
                tracing::warn!(error = %e, "a sandbox that failed to start left something behind");
            }
        }
        made.map(|()| id)
    }

    async fn make_sandbox(self: &Arc<Self>, id: &SandboxId, config: PodSandboxConfig) -> Result<()> {
        let (inner, id_) = (Arc::clone(self), id.clone());
        let state = base::task::blocking(move || inner.launch(&id_, config)).await?;
        let sandbox = Sandbox::new(self, state);
        sandbox.attach().await?;
        self.lock().insert(id.clone(), sandbox);
        Ok(())
    }

    /// Makes a sandbox's directories and mounts and starts its shim. Blocking.
    fn launch(&self, id: &SandboxId, config: PodSandboxConfig) -> Result<State> {
        let (dir, run_dir) = (self.sandbox_dir(id), self.run_dir(id));
        make_private(&dir)?;
        make_private(&run_dir)?;
        make_all(&dir.join("containers"))?;
        make_all(&config.log_directory)?;
        let linux = &config.linux;
        self.cgroups
            .create(&linux.cgroup_parent, &linux.resources, Scope::Container)
            .map_err(Error::io("make the pod's control group"))?;
        let options = config.linux.namespace_options.clone();
        let shm = match options.ipc {
            NamespaceMode::Node => PathBuf::from("/dev/shm"),
            _ => {
                let shm = run_dir.join("shm");
                namespaces::mount_shm(&shm, SHM_BYTES).map_err(Error::io("mount shared memory"))?;
                shm
            }
        };
        let own_network = options.network == NamespaceMode::Pod;
        let hostname_file = own_network.then(|| dir.join("hostname"));
        if let Some(file) = &hostname_file {
            let text = format!("{}\n", config.hostname);
            fs::write(file, text)
                .and_then(|()| fs::set_permissions(file, fs::Permissions::from_mode(0o644)))
                .map_err(Error::io("write the host name"))?;
        }
        let sandbox = SandboxSpec {
            id: id.clone(),
            config,
            created_at: now(),
            socket: run_dir.join("shim.sock"),
            shm,
            hostname_file,
            cgroup_root: self.options.cgroup_root.clone(),
            shim_cgroup: shim_group(id),
            rotation: self.options.log_rotation,
        };
        let state = State { version: VERSION, sandbox, stopped: false, containers: BTreeMap::new() };
        sandbox::save(&dir, &state)?;
        crate::shim::launch(&self.options.shim_exe, &self.options.shim_args, &dir)?;
        Ok(state)
    }

    async fn stop_sandbox(self: Arc<Self>, id: SandboxId) -> Result<()> {
        let sandbox = match self.sandbox(&id) {
            Err(Error::NotFound { .. }) => return Ok(()),
            other => other?,
        };
        match sandbox.call(Call::StopSandbox, None).await {
            Ok(_) => sandbox.set_stopped(),
            // Its containers are dead with it.
            Err(Error::ShimGone { .. }) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    async fn remove_sandbox(self: Arc<Self>, id: SandboxId) -> Result<()> {
        let sandbox = match self.sandbox(&id) {
            Err(Error::NotFound { .. }) => return Ok(()),
            other => other?,
        };
        Arc::clone(&self).stop_sandbox(id.clone()).await?;
        sandbox.set_removing();
        match sandbox.call(Call::Shutdown, None).await {
            Ok(_) | Err(Error::ShimGone { .. }) => {}
            Err(e) => return Err(e),
        }
        let inner = Arc::clone(&self);
        let state = sandbox.state();
        let state =
            base::task::blocking(move || inner.destroy(&state.sandbox.id, Some(&state)).map(|()| state))
                .await?;
        self.lock().remove(&id);
        for container in state.containers.values() {
            sandbox.tell(container, ContainerEventType::Deleted);
        }
        Ok(())
    }

    /// Takes away everything of a sandbox whose shim is gone or never was. Blocking.
    fn destroy(&self, id: &SandboxId, state: Option<&State>) -> Result<()> {
        let (dir, run_dir) = (self.sandbox_dir(id), self.run_dir(id));
        let mut groups = vec![shim_group(id)];
        if let Some(state) = state {
            groups.extend(state.containers.values().map(|r| r.spec.cgroup.clone()));
            // A pod's next sandbox, if it has one by now, is in the same group.
            let group = &state.sandbox.config.linux.cgroup_parent;
            if !self
                .lock()
                .values()
                .any(|s| s.id != *id && s.state().sandbox.config.linux.cgroup_parent == *group)
            {
                groups.push(group.clone());
            }
        }
        for group in groups {
            self.cgroups.kill(&group).map_err(Error::io(format!("kill control group {group}")))?;
            self.cgroups.remove(&group).map_err(Error::io(format!("remove control group {group}")))?;
        }
        for mount in ["netns", "shm"] {
            namespaces::unmount_all(&run_dir.join(mount)).map_err(Error::io(format!("unmount {mount}")))?;
        }
        remove_all(&run_dir)?;
        if let Ok(entries) = fs::read_dir(dir.join("containers")) {
            for entry in entries.flatten() {
                self.store.unpin(&ContainerId::from(entry.file_name().to_string_lossy().into_owned()))?;
            }
        }
        // First of all the state: without it the rest is recognised as left over.
        remove_file(&dir.join(STATE_FILE))?;
        remove_all(&dir)
    }

    // === containers ===

    async fn create(self: Arc<Self>, sandbox: SandboxId, config: ContainerConfig) -> Result<ContainerId> {
        validate::container(&config)?;
        let sandbox = self.sandbox(&sandbox)?;
        let id = ContainerId::random();
        let dir = sandbox.dir.join("containers").join(id.as_str());
        let (inner, sandbox_, id_, dir_) = (Arc::clone(&self), Arc::clone(&sandbox), id.clone(), dir.clone());
        let made = base::task::blocking(move || inner.container_spec(&sandbox_, id_, dir_, config)).await;
        let created = match made {
            Ok(spec) => sandbox.call(Call::Create(Box::new(spec)), None).await.map(|_| ()),
            Err(e) => Err(e),
        };
        if created.is_err() {
            let id = id.clone();
            let cleaned = base::task::blocking(move || self.remove_container_files(&dir, &id)).await;
            if let Err(e) = cleaned {
                tracing::warn!(error = %e, "a container that was not made left something behind");
            }
        }
        created.map(|()| id)
    }

    /// Brings a container's configuration and its image together. Blocking.
    fn container_spec(
        &self,
        sandbox: &Sandbox,
        id: ContainerId,
        dir: PathBuf,
        config: ContainerConfig,
    ) -> Result<ContainerSpec> {
        make_all(&dir)?;
        let (image, mut layers) = self.store.pin(&config.image, &id)?;
        if layers.is_empty() {
            // An overlay needs something below.
            let empty = dir.join("empty");
            make_all(&empty)?;
            layers.push(empty);
        }
        let seccomp = match &config.linux.security_context.seccomp {
            SecurityProfile::Localhost(path) => Some(own_filter(path)?),
            _ => None,
        };
        let sandbox = sandbox.state().sandbox.config;
        let log_path =
            (!config.log_path.as_os_str().is_empty()).then(|| sandbox.log_directory.join(&config.log_path));
        Ok(ContainerSpec {
            cgroup: format!("{}/{id}", sandbox.linux.cgroup_parent.trim_end_matches('/')),
            image_ref: image.digests.first().cloned().unwrap_or_else(|| image.id.clone()),
            image: image.config.config,
            layers,
            dir,
            log_path,
            seccomp,
            created_at: now(),
            config,
            id,
        })
    }

    async fn stop(self: Arc<Self>, id: ContainerId, grace: Duration) -> Result<()> {
        let sandbox = match self.sandbox_of(&id) {
            Err(Error::NotFound { .. }) => return Ok(()),
            other => other?,
        };
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        match sandbox.call(Call::Stop { id: id.clone(), grace_ms }, Some(&id)).await {
            Ok(_) | Err(Error::NotFound { .. } | Error::ShimGone { .. }) => Ok(()),
            Err(e) => Err(e),
        }
    }

    async fn remove(self: Arc<Self>, id: ContainerId) -> Result<()> {
        let sandbox = match self.sandbox_of(&id) {
            Err(Error::NotFound { .. }) => return Ok(()),
            other => other?,
        };
        match sandbox.call(Call::Remove(id.clone()), Some(&id)).await {
            Ok(_) | Err(Error::NotFound { .. } | Error::ShimGone { .. }) => {}
            Err(e) => return Err(e),
        }
        let record = sandbox.forget(&id);
        let dir = sandbox.dir.join("containers").join(id.as_str());
        base::task::blocking(move || self.remove_container_files(&dir, &id)).await?;
        if let Some(record) = record {
            sandbox.tell(&record, ContainerEventType::Deleted);
        }
        Ok(())
    }

    async fn update(self: Arc<Self>, group: String, resources: LinuxContainerResources) -> Result<()> {
        let what = format!("change the limits of {group}");
        let done = base::task::blocking(move || self.cgroups.update(&group, &resources)).await;
        done.map_err(Error::io(what))
    }

    async fn stats(self: Arc<Self>, id: ContainerId) -> Result<ContainerStats> {
        let places = self.sandbox_of(&id)?.places(&id);
        let (group, layer) =
            places.ok_or_else(|| Error::NotFound { kind: "container", id: id.to_string() })?;
        Ok(base::task::blocking(move || ContainerStats {
            writable_layer_bytes: disk_usage(&layer),
            memory_working_set_bytes: self.cgroups.working_set(&group),
        })
        .await)
    }

    /// Removes a container's own directory, then gives up its hold on the image. Blocking.
    fn remove_container_files(&self, dir: &Path, id: &ContainerId) -> Result<()> {
        remove_all(dir)?;
        self.store.unpin(id)
    }

    async fn exec(
        self: Arc<Self>,
        id: ContainerId,
        cmd: Vec<String>,
        timeout: Duration,
    ) -> Result<ExecSyncResponse> {
        let sandbox = self.sandbox_of(&id)?;
        let timeout_ms = match timeout {
            Duration::ZERO => 0,
            t => u64::try_from(t.as_millis()).unwrap_or(u64::MAX).max(1),
        };
        match sandbox.call(Call::Exec { id: id.clone(), cmd, timeout_ms }, Some(&id)).await {
            Ok((Reply::Exec { exit_code, stdout_len }, mut stdout)) if stdout_len <= stdout.len() => {
                let stderr = stdout.split_off(stdout_len);
                Ok(ExecSyncResponse { stdout, stderr, exit_code })
            }
            Ok(_) => Err(Error::Shim { message: "it answered something else than was asked".to_owned() }),
            Err(Error::Timeout { .. }) => Err(Error::Timeout { after: timeout }),
            Err(e) => Err(e),
        }
    }
}

impl Runtime for Embedded {
    fn version(&self) -> BoxFuture<'_, Result<VersionResponse>> {
        let version = VersionResponse {
            runtime_name: "keelson".to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        Box::pin(std::future::ready(Ok(version)))
    }

    fn run_pod_sandbox(&self, config: PodSandboxConfig) -> BoxFuture<'_, Result<SandboxId>> {
        Box::pin(to_the_end(Arc::clone(&self.0).run_sandbox(config)))
    }

    fn stop_pod_sandbox<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<()>> {
        Box::pin(to_the_end(Arc::clone(&self.0).stop_sandbox(id.clone())))
    }

    fn remove_pod_sandbox<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<()>> {
        Box::pin(to_the_end(Arc::clone(&self.0).remove_sandbox(id.clone())))
    }

    fn pod_sandbox_status<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<PodSandboxStatus>> {
        Box::pin(std::future::ready(self.0.sandbox(id).map(|s| s.status())))
    }

    fn list_pod_sandboxes(&self) -> BoxFuture<'_, Result<Vec<PodSandboxStatus>>> {
        let mut all: Vec<_> = self.0.lock().values().map(|s| s.status()).collect();
        all.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        Box::pin(std::future::ready(Ok(all)))
    }

    fn create_container<'a>(
        &'a self,
        sandbox: &'a SandboxId,
        config: ContainerConfig,
    ) -> BoxFuture<'a, Result<ContainerId>> {
        Box::pin(to_the_end(Arc::clone(&self.0).create(sandbox.clone(), config)))
    }

    fn start_container<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<()>> {
        let (inner, id) = (Arc::clone(&self.0), id.clone());
        Box::pin(to_the_end(async move {
            inner.sandbox_of(&id)?.call(Call::Start(id.clone()), Some(&id)).await.map(|_| ())
        }))
    }

    fn stop_container<'a>(&'a self, id: &'a ContainerId, grace: Duration) -> BoxFuture<'a, Result<()>> {
        Box::pin(to_the_end(Arc::clone(&self.0).stop(id.clone(), grace)))
    }

    fn remove_container<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<()>> {
        Box::pin(to_the_end(Arc::clone(&self.0).remove(id.clone())))
    }

    fn update_container_resources<'a>(
        &'a self,
        id: &'a ContainerId,
        resources: LinuxContainerResources,
    ) -> BoxFuture<'a, Result<()>> {
        let places = self.0.sandbox_of(id).map(|s| s.places(id));
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            match places? {
                Some((group, _)) => inner.update(group, resources).await,
                None => Err(Error::NotFound { kind: "container", id: id.to_string() }),
            }
        })
    }

    fn update_pod_sandbox_resources<'a>(
        &'a self,
        id: &'a SandboxId,
        resources: LinuxContainerResources,
    ) -> BoxFuture<'a, Result<()>> {
        let sandbox = self.0.sandbox(id);
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            let group = sandbox?.state().sandbox.config.linux.cgroup_parent;
            inner.update(group, resources).await
        })
    }

    fn container_stats<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<ContainerStats>> {
        Box::pin(Arc::clone(&self.0).stats(id.clone()))
    }

    fn container_status<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<ContainerStatus>> {
        let found = self.0.sandbox_of(id).and_then(|s| {
            s.container(id).ok_or_else(|| Error::NotFound { kind: "container", id: id.to_string() })
        });
        Box::pin(std::future::ready(found))
    }

    fn list_containers(&self) -> BoxFuture<'_, Result<Vec<ContainerStatus>>> {
        let mut all: Vec<_> = self.0.lock().values().flat_map(|s| s.containers()).collect();
        all.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        Box::pin(std::future::ready(Ok(all)))
    }

    fn exec_sync<'a>(
        &'a self,
        id: &'a ContainerId,
        cmd: Vec<String>,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<ExecSyncResponse>> {
        Box::pin(to_the_end(Arc::clone(&self.0).exec(id.clone(), cmd, timeout)))
    }

    fn exec<'a>(
        &'a self,
        id: &'a ContainerId,
        cmd: Vec<String>,
        wants: StreamOptions,
    ) -> BoxFuture<'a, Result<Streams>> {
        Box::pin(Arc::clone(&self.0).exec_stream(id.clone(), cmd, wants))
    }

    fn attach<'a>(&'a self, id: &'a ContainerId, wants: StreamOptions) -> BoxFuture<'a, Result<Streams>> {
        Box::pin(Arc::clone(&self.0).attach(id.clone(), wants))
    }

    fn connect<'a>(
        &'a self,
        sandbox: &'a SandboxId,
        addresses: Vec<SocketAddr>,
    ) -> BoxFuture<'a, Result<TcpStream>> {
        Box::pin(Arc::clone(&self.0).connect(sandbox.clone(), addresses))
    }

    fn events(&self) -> Events {
        self.0.events.subscribe()
    }

    fn images(&self) -> Arc<dyn ImageStore> {
        Arc::clone(&self.0.store) as Arc<dyn ImageStore>
    }
}

/// A shim's own group, so that one that does not answer can be ended without knowing its process.
fn shim_group(id: &SandboxId) -> String {
    format!("/shims/{id}")
}

/// Runs a call to its end even if its caller stops waiting: half a sandbox would be nobody's.
async fn to_the_end<T: Send + 'static>(call: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let (tx, rx) = oneshot::channel();
    base::task::spawn(async move {
        // The caller may have stopped waiting.
        tx.send(call.await).ok();
    })
    .detach();
    rx.await.unwrap_or_else(|_| Err(Error::Shim { message: "the call was cut off".to_owned() }))
}

/// A system call filter of the node's owner, which makes sense.
fn own_filter(path: &str) -> Result<String> {
    let text = fs::read_to_string(path).map_err(Error::io(format!("load seccomp profile {path}")))?;
    let made = crate::linux::seccomp_profile::compile(&text);
    made.map_err(Error::io(format!("load seccomp profile {path}"))).map(|_| text)
}

/// Bytes that a tree takes on its file system, without what is mounted in it.
pub fn disk_usage(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(top) = fs::symlink_metadata(path) else { return 0 };
    let (mut sum, mut open) = (top.blocks(), vec![path.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() == top.dev() {
                sum += meta.blocks();
                if meta.is_dir() {
                    open.push(entry.path());
                }
            }
        }
    }
    sum * 512
}

fn make_all(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(Error::io(format!("create {}", dir.display())))
}

fn make_private(dir: &Path) -> Result<()> {
    make_all(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
        .map_err(Error::io(format!("change permissions of {}", dir.display())))
}

fn remove_all(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", dir.display()))(e))
        }
        _ => Ok(()),
    }
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()))(e))
        }
        _ => Ok(()),
    }
}
