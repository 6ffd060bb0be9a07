//! One sandbox as the engine sees it: what its shim last said, and the connection to it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use base::time::Timestamp;

use super::Inner;
use super::client::{CallError, Client, Listener};
use crate::linux::{namespaces, write_atomically};
use crate::shim::protocol::{Call, ContainerRecord, Failure, Reply, STATE_FILE, State, now};
use crate::{
    ContainerEvent, ContainerEventType, ContainerId, ContainerState, ContainerStatus, Error, NamespaceMode,
    PodSandboxState, PodSandboxStatus, Result, RuntimeEvent, SandboxId,
};

/// The exit code of a container whose shim died with it. Source: containerd's `unknownExitCode`.
const EXIT_CODE_UNKNOWN: i32 = 255;

/// A sandbox.
pub struct Sandbox {
    /// Its id.
    pub id: SandboxId,
    /// Its directory on disk.
    pub dir: PathBuf,
    /// Its directory of sockets and mounts.
    pub run_dir: PathBuf,
    view: Mutex<View>,
    client: OnceLock<Client>,
    engine: Weak<Inner>,
}

struct View {
    state: State,
    alive: bool,
    removing: bool,
}

impl Sandbox {
    /// A sandbox whose state file says `state`, not yet connected.
    pub fn new(engine: &Arc<Inner>, state: State) -> Arc<Sandbox> {
        let id = state.sandbox.id.clone();
        Arc::new(Sandbox {
            dir: engine.sandbox_dir(&id),
            run_dir: engine.run_dir(&id),
            id,
            view: Mutex::new(View { state, alive: false, removing: false }),
            client: OnceLock::new(),
            engine: Arc::downgrade(engine),
        })
    }

    /// Connects to the shim and learns all it knows. Makes sure that its network namespace is pinned: the
    /// engine that started it may have died before, or lived among other mounts.
    ///
    /// # Errors
    /// When no shim listens, it speaks another version, or the namespace cannot be pinned.
    pub async fn attach(self: &Arc<Self>) -> Result<()> {
        let socket = self.state().sandbox.socket;
        let listener = Arc::new(Ears(Arc::downgrade(self)));
        let client = Client::connect(&socket, listener)
            .await
            .map_err(|e| Error::ShimGone { id: self.id.to_string(), message: e.to_string() })?;
        let version = crate::shim::protocol::VERSION;
        let (reply, _) = client.call(Call::Hello { version }).await.map_err(|e| self.error(e, None))?;
        let Reply::Hello { pid, state } = reply else {
            return Err(Error::Shim { message: "it answered something else than was asked".to_owned() });
        };
        if state.sandbox.config.linux.namespace_options.network == NamespaceMode::Pod {
            let path = self.run_dir.join("netns");
            let pinned = base::task::blocking(move || namespaces::pin_network(pid, &path)).await;
            pinned.map_err(Error::io("pin the network namespace"))?;
        }
        // Only one attach ever runs for a sandbox.
        assert!(self.client.set(client).is_ok(), "a sandbox is attached once");
        Ok(())
    }

    /// Asks the shim.
    ///
    /// # Errors
    /// The shim's, in the engine's words.
    pub async fn call(&self, call: Call, container: Option<&ContainerId>) -> Result<(Reply, Vec<u8>)> {
        match self.client.get() {
            Some(client) => client.call(call).await.map_err(|e| self.error(e, container)),
            None => Err(self.error(CallError::Gone, container)),
        }
    }

    /// Why a call failed, in the engine's words.
    pub fn error(&self, e: CallError, container: Option<&ContainerId>) -> Error {
        let (kind, id) = match container {
            Some(c) => ("container", c.to_string()),
            None => ("sandbox", self.id.to_string()),
        };
        match e {
            CallError::Gone => {
                Error::ShimGone { id: self.id.to_string(), message: "the connection has ended".to_owned() }
            }
            CallError::Failed(Failure::NotFound) => Error::NotFound { kind, id },
            CallError::Failed(Failure::State(state)) => Error::State { kind, id, state },
            CallError::Failed(Failure::Start(message)) => Error::Start { message },
            CallError::Failed(Failure::Timeout) => Error::Timeout { after: std::time::Duration::ZERO },
            CallError::Failed(Failure::Other(message)) => Error::Shim { message },
        }
    }

    /// A copy of all that is known.
    pub fn state(&self) -> State {
        self.lock().state.clone()
    }

    /// Remembers that the sandbox is stopped, which the shim has confirmed.
    pub fn set_stopped(&self) {
        self.lock().state.stopped = true;
    }

    /// From now on the shim's end is what was asked for.
    pub fn set_removing(&self) {
        self.lock().removing = true;
    }

    /// Forgets a container; its record, if it was known.
    pub fn forget(&self, id: &ContainerId) -> Option<ContainerRecord> {
        let mut view = self.lock();
        let record = view.state.containers.remove(id);
        if record.is_some() && !view.alive {
            // Nobody else keeps the file now.
            if let Err(e) = save(&self.dir, &view.state) {
                tracing::warn!(sandbox = %self.id, error = %e, "state not written");
            }
        }
        record
    }

    /// Whether a container of this id is here.
    pub fn has(&self, id: &ContainerId) -> bool {
        self.lock().state.containers.contains_key(id)
    }

    /// The sandbox's status.
    pub fn status(&self) -> PodSandboxStatus {
        let view = self.lock();
        let spec = &view.state.sandbox;
        let own_network = spec.config.linux.namespace_options.network == NamespaceMode::Pod;
        PodSandboxStatus {
            id: self.id.clone(),
            metadata: spec.config.metadata.clone(),
            state: if view.alive && !view.state.stopped {
                PodSandboxState::Ready
            } else {
                PodSandboxState::NotReady
            },
            created_at: timestamp(spec.created_at),
            network_namespace: own_network.then(|| self.run_dir.join("netns")),
            labels: spec.config.labels.clone(),
            annotations: spec.config.annotations.clone(),
        }
    }

    /// The status of one container.
    pub fn container(&self, id: &ContainerId) -> Option<ContainerStatus> {
        self.lock().state.containers.get(id).map(|r| self.container_status(r))
    }

    /// The status of all containers.
    pub fn containers(&self) -> Vec<ContainerStatus> {
        self.lock().state.containers.values().map(|r| self.container_status(r)).collect()
    }

    fn container_status(&self, record: &ContainerRecord) -> ContainerStatus {
        let (spec, config) = (&record.spec, &record.spec.config);
        ContainerStatus {
            id: spec.id.clone(),
            sandbox_id: self.id.clone(),
            name: config.name.clone(),
            attempt: config.attempt,
            state: record.state,
            created_at: timestamp(spec.created_at),
            started_at: record.started_at.map(timestamp),
            finished_at: record.finished_at.map(timestamp),
            exit_code: record.exit_code,
            reason: record.reason.clone(),
            message: record.message.clone(),
            image: config.image.clone(),
            image_ref: spec.image_ref.clone(),
            log_path: spec.log_path.clone().unwrap_or_default(),
            mounts: config.mounts.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            user: record.user.clone(),
        }
    }

    /// A container's group and writable layer.
    pub fn places(&self, id: &ContainerId) -> Option<(String, PathBuf)> {
        let view = self.lock();
        let spec = &view.state.containers.get(id)?.spec;
        Some((spec.cgroup.clone(), spec.dir.join("upper")))
    }

    /// The shim has died: what it ran is killed, and what became of it is written down. Blocking.
    pub fn bury(&self) {
        let Some(engine) = self.engine.upgrade() else { return };
        let mut ended = Vec::new();
        let mut view = self.lock();
        if view.removing {
            return;
        }
        view.alive = false;
        // One that does not answer must not go on either.
        if let Err(e) = engine.cgroups.kill(&view.state.sandbox.shim_cgroup) {
            tracing::error!(sandbox = %self.id, error = %e, "shim not killed");
        }
        for record in view.state.containers.values_mut().filter(|r| r.state == ContainerState::Running) {
            let killed = engine.cgroups.kill(&record.spec.cgroup);
            if let Err(e) = killed.and_then(|()| engine.cgroups.remove(&record.spec.cgroup)) {
                tracing::error!(container = %record.spec.id, error = %e, "left-over processes not killed");
            }
            record.state = ContainerState::Exited;
            record.pid = None;
            record.finished_at = Some(now());
            record.exit_code = EXIT_CODE_UNKNOWN;
            record.reason = "Unknown".to_owned();
            record.message = "the process that ran the container died".to_owned();
            ended.push(record.clone());
        }
        if let Err(e) = save(&self.dir, &view.state) {
            tracing::warn!(sandbox = %self.id, error = %e, "state not written");
        }
        drop(view);
        for record in &ended {
            self.tell(record, ContainerEventType::Stopped);
        }
        engine.events.send(RuntimeEvent::SandboxLost(self.id.clone()));
    }

    /// Tells subscribers of a container's change.
    pub fn tell(&self, record: &ContainerRecord, event_type: ContainerEventType) {
        let Some(engine) = self.engine.upgrade() else { return };
        let at = match event_type {
            ContainerEventType::Created => Some(record.spec.created_at),
            ContainerEventType::Started => record.started_at,
            ContainerEventType::Stopped => record.finished_at,
            ContainerEventType::Deleted => None,
        };
        engine.events.send(RuntimeEvent::Container(ContainerEvent {
            container_id: record.spec.id.clone(),
            sandbox_id: self.id.clone(),
            event_type,
            created_at: timestamp(at.unwrap_or_else(now)),
            pod_uid: self.lock().state.sandbox.config.metadata.uid.clone(),
        }));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, View> {
        self.view.lock().expect("nothing panics while it holds this lock")
    }
}

/// Reads a sandbox's state file. Blocking.
///
/// # Errors
/// When it is missing or of another version.
pub fn load(dir: &Path) -> Result<State> {
    let path = dir.join(STATE_FILE);
    let bytes = std::fs::read(&path).map_err(Error::io(format!("read {}", path.display())))?;
    serde_json::from_slice(&bytes).map_err(Error::io(format!("parse {}", path.display())))
}

/// Writes a sandbox's state file. Blocking.
///
/// # Errors
/// When the disk refuses.
pub fn save(dir: &Path, state: &State) -> Result<()> {
    let text = serde_json::to_vec(state).expect("the state has text keys");
    write_atomically(&dir.join(STATE_FILE), &text, false)
}

/// A shim's connection must not keep its sandbox, nor the sandbox the engine.
struct Ears(Weak<Sandbox>);

impl Listener for Ears {
    fn attached(&self, state: State) {
        if let Some(sandbox) = self.0.upgrade() {
            let mut view = sandbox.lock();
            (view.state, view.alive) = (state, true);
        }
    }

    fn changed(&self, record: ContainerRecord) {
        let Some(sandbox) = self.0.upgrade() else { return };
        let event = match record.state {
            ContainerState::Created => ContainerEventType::Created,
            ContainerState::Running => ContainerEventType::Started,
            ContainerState::Exited | ContainerState::Unknown => ContainerEventType::Stopped,
        };
        sandbox.lock().state.containers.insert(record.spec.id.clone(), record.clone());
        sandbox.tell(&record, event);
    }

    fn lost(&self) {
        let Some(sandbox) = self.0.upgrade() else { return };
        base::task::spawn(base::task::blocking(move || sandbox.bury())).detach();
    }
}

fn timestamp(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).expect("64 bits of nanoseconds are within range")
}
