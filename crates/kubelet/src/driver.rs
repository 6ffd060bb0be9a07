//! Drives one pod's worker: carries its actions out as tasks, brings results back, keeps status and probes up with it.

mod pull;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use apimachinery::call::Stored;
use apimachinery::schema::views::{Container, Pod};
use apimachinery::{Doc, k};
use base::task::Task;
use runtime::{ContainerId, ContainerState, Image, RuntimeEvent, SandboxId};
use tokio::sync::{mpsc, watch};

use crate::containers::{self, Inputs};
use crate::core::SharedCore;
use crate::hooks;
use crate::probes;
use crate::refused;
use crate::resolver;
use crate::status;
use crate::status_manager::StatusWriter;
use crate::volumes;
use crate::worker::{Action, Event, Exit, Phase, ProbeKind, Stage, State, container_specs, since};

/// The waits between attempts to stop a container that the runtime could not stop.
const STOP_RETRY: Duration = Duration::from_secs(1);
/// What is read of a termination message, as upstream.
const LAST_WORDS_MAX: usize = 4096;
/// What stands in for one from the log: bytes and lines.
const LOG_WORDS_MAX: usize = 2048;
const LOG_LINES_MAX: usize = 80;

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// Something for the state machine.
    Event(Event),
    /// The API's object as a watch shows it.
    Object(Arc<Stored>),
    /// A container is said to have changed.
    Look(ContainerId),
    /// What the volumes show may have changed.
    Refresh,
}

pub(crate) type Mailbox = mpsc::UnboundedSender<Message>;

/// One pod's driver.
pub(crate) struct Driver {
    core: SharedCore,
    me: Mailbox,
    view: watch::Sender<Arc<State>>,
    writer: StatusWriter,
    status: Arc<Doc>,
    tasks: Vec<Task<()>>,
    refresh: Option<Task<()>>,
    turns: Arc<Turns>,
    /// Something changed while the volumes were being made.
    stale: bool,
    probes: BTreeMap<(ContainerId, ProbeKind), Task<()>>,
}

/// What a task needs: the shared things, and the pod as it was when the task began.
#[derive(Clone)]
struct Context {
    core: SharedCore,
    me: Mailbox,
    state: Arc<State>,
    turns: Arc<Turns>,
}

/// Who may write a pod's volumes. Work on files goes on when its task is dropped: of two that overlap, the one that read
/// its sources later must have the last word, and none may write what is being taken away.
#[derive(Default)]
struct Turns {
    taken: AtomicU64,
    /// The last turn whose work is done.
    done: Mutex<u64>,
}

impl Turns {
    /// A turn, to be taken before the sources are read.
    fn take(&self) -> u64 {
        self.taken.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Does the work of a turn, unless a later one is done.
    fn work<T>(&self, turn: u64, work: impl FnOnce() -> T) -> Option<T> {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        (turn > *done).then(|| {
            *done = turn;
            work()
        })
    }
}

impl Driver {
    pub fn new(core: SharedCore, me: Mailbox, view: watch::Sender<Arc<State>>, state: &State) -> Driver {
        let writer = StatusWriter::start(&core.client, state.pod.root());
        let status = Arc::new(state.pod.get(k::STATUS).to_doc());
        Driver {
            core,
            me,
            view,
            writer,
            status,
            tasks: Vec::new(),
            refresh: None,
            turns: Arc::default(),
            stale: false,
            probes: BTreeMap::new(),
        }
    }

    /// Runs until the pod is forgotten.
    pub async fn run(mut self, mut state: State, mut inbox: mpsc::UnboundedReceiver<Message>) {
        let mut event = Some(Event::Tick);
        loop {
            if let Some(event) = event.take() {
                let (next, actions) = state.step(event, base::time::now());
                state = next;
                let shared = Arc::new(state.clone());
                self.view.send_replace(shared.clone());
                self.report(&state);
                let context = self.context_of(shared);
                for action in actions {
                    if action == Action::Forget {
                        return context.forget().await;
                    }
                    self.act(&context, action);
                }
                self.sync_probes(&context);
                if state.volumes == crate::worker::Volumes::Mounted && std::mem::take(&mut self.stale) {
                    drop(self.me.send(Message::Refresh));
                }
                self.tasks.retain(|t| !t.is_finished());
            }
            let now = base::time::now();
            let wake = state.next_wake().map(|at| base::time::instant() + since(now, at));
            let alarm = async {
                match wake {
                    Some(at) => base::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let message = base::select! {
                message = inbox.recv() => message,
                () = alarm => Some(Message::Event(Event::Tick)),
            };
            let Some(message) = message else { return };
            event = self.receive(&state, message);
        }
    }

    fn receive(&mut self, state: &State, message: Message) -> Option<Event> {
        match message {
            Message::Event(event) => return Some(event),
            Message::Object(stored) => {
                let pod = Arc::new(stored.doc());
                self.writer.seen(stored);
                if told_differently(&state.pod, &pod) {
                    drop(self.me.send(Message::Refresh));
                }
                return Some(Event::Pod(pod));
            }
            Message::Look(id) => {
                if state.running(&id).is_some() {
                    let context = self.context(state);
                    self.tasks.push(base::task::spawn(async move { context.look(id).await }));
                }
            }
            Message::Refresh if state.volumes == crate::worker::Volumes::Mounting => self.stale = true,
            Message::Refresh => {
                let failed = matches!(state.volumes, crate::worker::Volumes::Failed(_));
                if failed || state.containers.iter().any(|c| c.trouble.is_some()) {
                    // Both: what failed is tried again, and what is mounted is brought up to date below.
                    drop(self.me.send(Message::Event(Event::Retry)));
                }
                if state.volumes == crate::worker::Volumes::Mounted && state.stage == Stage::Running {
                    let context = self.context(state);
                    self.refresh = Some(base::task::spawn(async move { context.refresh().await }));
                }
            }
        }
        None
    }

    fn context(&self, state: &State) -> Context {
        self.context_of(Arc::new(state.clone()))
    }

    fn context_of(&self, state: Arc<State>) -> Context {
        Context { core: self.core.clone(), me: self.me.clone(), state, turns: self.turns.clone() }
    }

    fn report(&mut self, state: &State) {
        if state.frozen {
            return;
        }
        let new = status::compute(state, &self.core.node, self.status.root(), base::time::now());
        if *self.status != new {
            self.status = Arc::new(new);
        }
        self.writer.set(self.status.clone());
    }

    fn act(&mut self, context: &Context, action: Action) {
        let c = context.clone();
        let task = match action {
            Action::MountVolumes => {
                let refresh = base::task::spawn(async move { c.mount().await });
                self.refresh = Some(refresh);
                return;
            }
            Action::UnmountVolumes => {
                self.refresh = None;
                base::task::spawn(async move { c.unmount().await })
            }
            Action::RunSandbox(attempt) => base::task::spawn(async move { c.run_sandbox(attempt).await }),
            Action::AttachNetwork(id) => base::task::spawn(async move { c.attach(id).await }),
            Action::RemoveSandbox(id) => base::task::spawn(async move { c.remove_sandbox(id).await }),
            Action::PullImage(index) => base::task::spawn(async move { c.pull(index).await }),
            Action::StartContainer { index, attempt, image } => {
                base::task::spawn(async move { c.start(index, attempt, &image).await })
            }
            Action::AskForRoom => {
                let answer = self.core.room(&context.state);
                return context.tell(Event::Room(answer));
            }
            Action::ResizeContainer { index, id } => base::task::spawn(async move {
                let outcome = c.resize(index, &id).await;
                c.tell(Event::Resized(id, outcome));
            }),
            Action::RunHook { index, id, kind } => base::task::spawn(async move {
                let outcome = hooks::run(&c.core, &c.state, index, &id, kind).await;
                c.tell(Event::Hook { id, kind, outcome });
            }),
            Action::StopContainer { id, grace, .. } => {
                base::task::spawn(async move { c.stop(id, grace).await })
            }
            Action::RemoveContainer { index, id, attempt } => {
                base::task::spawn(async move { c.remove_container(index, id, attempt).await })
            }
            Action::Record { warning, reason, message, index } => {
                let name = index.map(|i| context.state.containers[i].name.as_str());
                return self.core.record(context.state.pod.root(), name, warning, reason, message);
            }
            Action::DeletePod => return self.writer.delete(),
            Action::Forget => unreachable!("the loop ends with it"),
        };
        self.tasks.push(task);
    }

    /// A task for each probe of each running container, and none for any other.
    fn sync_probes(&mut self, context: &Context) {
        let state = &context.state;
        let mut wanted = Vec::new();
        for (index, container) in state.containers.iter().enumerate() {
            let Phase::Running { id, since, post_start: false, stopping, .. } = &container.phase else {
                continue;
            };
            let ending = stopping.is_some();
            let spec = state.container_spec(index);
            let kinds = [
                (ProbeKind::Startup, spec.startup_probe(), !container.started && !ending),
                (ProbeKind::Liveness, spec.liveness_probe(), container.started && !ending),
                // Until the end: a Service may still send what nobody else serves.
                (ProbeKind::Readiness, spec.readiness_probe(), container.started),
            ];
            for (kind, probe, now) in kinds {
                if now && probe.exists() {
                    wanted.push((id.clone(), kind, index, *since));
                }
            }
        }
        self.probes.retain(|(id, kind), _| wanted.iter().any(|w| w.0 == *id && w.1 == *kind));
        for (id, kind, index, since) in wanted {
            let key = (id.clone(), kind);
            if !self.probes.contains_key(&key) {
                let (core, me, state) = (self.core.clone(), self.me.clone(), context.state.clone());
                let task = probes::start(core, me, state, index, id, kind, since);
                self.probes.insert(key, task);
            }
        }
    }
}

/// Whether what the downward API tells has changed.
fn told_differently(old: &Doc, new: &Doc) -> bool {
    let (old, new) = (old.get(k::METADATA), new.get(k::METADATA));
    [k::LABELS, k::ANNOTATIONS].into_iter().any(|key| !old.get(key).same(new.get(key)))
}

/// A door's error with all its causes.
fn words(err: &dyn std::error::Error) -> String {
    let mut out = err.to_string();
    let mut source = err.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !out.ends_with(&text) {
            out = format!("{out}: {text}");
        }
        source = cause.source();
    }
    out
}

impl Context {
    fn tell(&self, event: Event) {
        // A worker that is gone needs no answer.
        drop(self.me.send(Message::Event(event)));
    }

    fn pod(&self) -> Pod<'_> {
        self.state.object()
    }

    fn uid(&self) -> &str {
        self.pod().metadata().uid()
    }

    fn record(&self, index: usize, warning: bool, reason: &str, message: String) {
        let name = self.state.containers[index].name.as_str();
        self.core.record(self.state.pod.root(), Some(name), warning, reason, message);
    }

    async fn forget(self) {
        let uid = self.uid().to_owned();
        self.core.forget(&uid);
        let files = self.core.doors.files.clone();
        let dirs = [
            volumes::pod_dir(&self.core.config.root_dir, &uid),
            containers::log_dir(&self.core.config, self.pod()),
        ];
        let links = self.log_links();
        let done =
            base::task::blocking(move || dirs.iter().chain(&links).try_for_each(|path| files.remove(path)))
                .await;
        if let Err(err) = done {
            tracing::warn!(pod = %uid, error = %err, "the pod's files could not be removed");
        }
    }

    fn log_links(&self) -> Vec<std::path::PathBuf> {
        let runs = self.state.containers.iter().flat_map(|c| {
            let now = match &c.phase {
                Phase::Running { id, .. } => Some(id.to_string()),
                Phase::Exited(exit) => Some(exit.id.clone()),
                _ => None,
            };
            now.into_iter()
                .chain(c.last.as_ref().map(|e| e.id.clone()))
                .map(|id| self.log_link(&c.name, &id))
                .collect::<Vec<_>>()
        });
        runs.collect()
    }

    fn log_link(&self, container: &str, id: &str) -> std::path::PathBuf {
        let meta = self.pod().metadata();
        self.core.config.container_logs_dir.join(format!(
            "{}_{}_{container}-{id}.log",
            meta.name(),
            meta.namespace()
        ))
    }

    // --- volumes ---

    async fn mount(self) {
        match self.publish().await {
            Ok(next) => {
                self.tell(Event::VolumesMounted);
                self.sleep_until_refresh(next).await;
            }
            Err(message) => self.tell(Event::VolumesFailed(message)),
        }
    }

    async fn refresh(self) {
        match self.publish().await {
            Ok(next) => self.sleep_until_refresh(next).await,
            Err(message) => {
                self.core.record(self.state.pod.root(), None, true, "FailedMount", message);
                self.sleep_until_refresh(Some(base::time::now() + crate::worker::RETRY_MOST)).await;
            }
        }
    }

    async fn sleep_until_refresh(&self, next: Option<base::time::Timestamp>) {
        if let Some(at) = next {
            base::time::sleep(since(base::time::now(), at)).await;
            drop(self.me.send(Message::Refresh));
        }
    }

    /// Makes the volumes show what they should, and tells when to do so again by time alone.
    async fn publish(&self) -> Result<Option<base::time::Timestamp>, String> {
        let turn = self.turns.take();
        let pod = self.state.pod.clone();
        let namespace = self.pod().metadata().namespace().to_owned();
        let wrap = |why: String| format!("MountVolume.SetUp failed for volume : {why}");
        let references = volumes::references(pod.root());
        let objects = self.core.objects.fetch(self.uid(), &namespace, &references).await.map_err(wrap)?;
        let requests = volumes::token_requests(pod.root());
        let (tokens, next) = self.core.tokens(pod.root(), requests).await.map_err(wrap)?;
        let c = self.clone();
        base::task::blocking(move || {
            let write = || {
                let dir = volumes::pod_dir(&c.core.config.root_dir, c.uid());
                c.core.doors.files.make_dir(&dir, 0o750, None).map_err(|err| err.to_string())?;
                let facts = c.core.facts(&c.state.pod, &c.state.ips);
                let sources = volumes::Sources { facts, objects: &objects, tokens: &tokens };
                volumes::mount_all(&c.core.config.root_dir, sources, &*c.core.doors.files)
            };
            c.turns.work(turn, write).unwrap_or(Ok(()))
        })
        .await?;
        Ok(next)
    }

    async fn unmount(self) {
        let dir = volumes::pod_dir(&self.core.config.root_dir, self.uid()).join("volumes");
        let (files, turns) = (self.core.doors.files.clone(), self.turns.clone());
        let remove = move || turns.work(turns.take(), || files.remove(&dir)).unwrap_or(Ok(()));
        if let Err(err) = base::task::blocking(remove).await {
            tracing::warn!(pod = %self.uid(), error = %err, "volumes could not be removed");
        }
        self.core.objects.release(self.uid());
        self.tell(Event::VolumesUnmounted);
    }

    // --- sandbox ---

    async fn run_sandbox(self, attempt: u32) {
        if !self.pod().spec().host_network() {
            self.core.network_ready().await;
        }
        if let Err(message) = self.core.runtime_class(self.pod()).await {
            return self.tell(Event::SandboxFailed(message));
        }
        let pod = self.state.allocated_pod();
        let config = containers::sandbox(&self.core.config, Pod(pod.root()), attempt);
        self.tell(match self.core.doors.runtime.run_pod_sandbox(config).await {
            Ok(id) => Event::SandboxMade(id),
            Err(err) => Event::SandboxFailed(words(&err)),
        });
    }

    async fn attach(self, id: SandboxId) {
        let status = match self.core.doors.runtime.pod_sandbox_status(&id).await {
            Ok(status) => status,
            Err(err) => return self.tell(Event::NetworkFailed(id, words(&err))),
        };
        let Some(netns) = status.network_namespace else {
            return self.tell(Event::NetworkAttached(id, Vec::new()));
        };
        self.core.network_ready().await;
        let ports = containers::host_ports(self.pod());
        self.tell(match self.core.doors.network.attach(netns, id.to_string(), ports).await {
            Ok(ips) => Event::NetworkAttached(id, ips),
            Err(err) => Event::NetworkFailed(id, words(&*err)),
        });
    }

    async fn remove_sandbox(self, id: SandboxId) {
        let done = remove_sandbox(&self.core, &id).await;
        self.tell(match done {
            Ok(()) => Event::SandboxRemoved(id),
            Err(message) => Event::SandboxRemovalFailed(id, message),
        });
    }

    // --- containers ---

    /// Gives a run the resources that are allocated to it. The pod as a whole is asked first and last: growing, it must
    /// have room for its containers; shrinking, they must have left it.
    async fn resize(&self, index: usize, id: &ContainerId) -> Result<(), String> {
        let pod = self.state.allocated_pod();
        let sandbox = self.state.sandbox_id().expect("containers run in a sandbox");
        let name = &self.state.containers[index].name;
        let spec = container_specs(pod.root()).find(|(_, c)| c.get(k::NAME).str() == name);
        let spec = spec.expect("containers are fixed").1;
        let whole = containers::changed(containers::pod_resources(pod.root()));
        let own = containers::changed(containers::resources(pod.root(), spec, self.core.memory));
        let runtime = &self.core.doors.runtime;
        let first = runtime.update_pod_sandbox_resources(sandbox, whole.clone()).await;
        runtime.update_container_resources(id, own).await.map_err(|err| words(&err))?;
        if first.is_err() {
            runtime.update_pod_sandbox_resources(sandbox, whole).await.map_err(|err| words(&err))?;
        }
        Ok(())
    }

    async fn start(self, index: usize, attempt: u32, image: &str) {
        let event = match self.start_inner(index, attempt, image).await {
            Ok(event) => event,
            Err((reason, message)) => Event::StartFailed { index, reason, message, exit: None },
        };
        let started = match &event {
            Event::Started { id, .. } => Some(id.clone()),
            _ => None,
        };
        self.tell(event);
        if let Some(id) = started {
            // It may have ended before it was known to run, when the runtime's word of its end meant nothing here.
            self.look(id).await;
        }
    }

    async fn start_inner(
        &self,
        index: usize,
        attempt: u32,
        image: &str,
    ) -> Result<Event, (&'static str, String)> {
        const CONFIG: &str = "CreateContainerConfigError";
        let images = &self.core.doors.images;
        let found = images.status(image).await.map_err(|err| (CONFIG, words(&err)))?;
        let found = found.ok_or_else(|| (CONFIG, format!("image {image} has left the store")))?;
        let sandbox = self.state.sandbox_id().expect("containers start in a sandbox").clone();
        let config = self.configure(index, attempt, &found).await.map_err(|message| (CONFIG, message))?;
        let runtime = &self.core.doors.runtime;
        let id = runtime
            .create_container(&sandbox, config)
            .await
            .map_err(|err| ("CreateContainerError", words(&err)))?;
        self.record(index, false, "Created", "Container created".into());
        if let Err(err) = runtime.start_container(&id).await {
            let status = runtime.container_status(&id).await;
            let exit = status
                .map(|found| Exit { message: found.message.clone(), ..Exit::of(&found, base::time::now()) })
                .ok();
            return Ok(Event::StartFailed { index, reason: "RunContainerError", message: words(&err), exit });
        }
        let status = runtime.container_status(&id).await.ok();
        let at = status.as_ref().and_then(|s| s.started_at).unwrap_or_else(base::time::now);
        self.link_log(index, attempt, &id).await;
        Ok(Event::Started { index, id, image_ref: found.id, at, user: status.and_then(|s| s.user) })
    }

    async fn configure(
        &self,
        index: usize,
        attempt: u32,
        image: &Image,
    ) -> Result<runtime::ContainerConfig, String> {
        let pod = self.state.allocated_pod();
        let name = self.state.containers[index].name.as_str();
        let spec = container_specs(pod.root()).find(|(_, c)| c.get(k::NAME).str() == name);
        let spec = Container(spec.expect("containers are fixed").1);
        let unbuilt = refused::of_ephemeral(pod.root(), name);
        if !unbuilt.is_empty() {
            return Err(refused::words(&unbuilt).1);
        }
        let namespace = self.pod().metadata().namespace();
        let objects = self.core.objects.fetch(self.uid(), namespace, &crate::env::references(spec.0)).await?;
        let services = self.core.service_variables(self.pod()).await;
        let inputs = Inputs {
            config: &self.core.config,
            facts: self.core.facts(&pod, &self.state.ips),
            objects: &objects,
            services: &services,
            image,
            memory: self.core.memory,
            target: self.state.run_of(spec.0.get(k::TARGET_CONTAINER_NAME).str()),
        };
        let config = containers::container(&inputs, spec, attempt)?;
        self.make_sub_paths(&config).await?;
        self.write_files(spec, attempt).await?;
        Ok(config)
    }

    /// The parts of volumes that mounts ask for.
    async fn make_sub_paths(&self, config: &runtime::ContainerConfig) -> Result<(), String> {
        let parts: Vec<runtime::Mount> =
            config.mounts.iter().filter(|m| !m.sub_path.as_os_str().is_empty()).cloned().collect();
        let (files, name) = (self.core.doors.files.clone(), config.name.clone());
        let make = move || {
            parts.iter().try_for_each(|m| {
                files.sub_path(&m.host_path, &m.sub_path).map_err(|err| {
                    let at = m.container_path.display();
                    format!(
                        "failed to prepare subPath for volumeMount \"{at}\" of container {name:?}: {}",
                        words(&*err)
                    )
                })
            })
        };
        base::task::blocking(make).await
    }

    /// The files that the kubelet puts into every container.
    async fn write_files(&self, spec: Container<'_>, attempt: u32) -> Result<(), String> {
        let (core, pod) = (&self.core, self.pod());
        let (config, machine) = (&core.config, &core.doors.machine);
        let ips = core.facts(&self.state.pod, &self.state.ips).ips;
        let hosts = resolver::hosts(pod, ips, &config.cluster_domain, &machine.hosts());
        let host_resolv = machine.resolv_conf();
        let namespace = pod.metadata().namespace();
        let resolv = resolver::resolv_conf(
            pod.spec(),
            namespace,
            &config.cluster_dns,
            &config.cluster_domain,
            &host_resolv,
        );
        let last_words = containers::termination_log(config, self.uid(), spec.name(), attempt);
        let at = |name| containers::etc_file(config, self.uid(), name);
        let all = [
            (at("etc-hosts"), hosts, 0o644),
            (at("resolv.conf"), resolv, 0o644),
            (last_words, String::new(), 0o666),
        ];
        let files = core.doors.files.clone();
        let write =
            move || all.iter().try_for_each(|(path, text, mode)| files.write(path, text.as_bytes(), *mode));
        base::task::blocking(write).await.map_err(|err| err.to_string())
    }

    async fn link_log(&self, index: usize, attempt: u32, id: &ContainerId) {
        let name = &self.state.containers[index].name;
        let link = self.log_link(name, id.as_str());
        let target =
            containers::log_dir(&self.core.config, self.pod()).join(containers::log_path(name, attempt));
        let files = self.core.doors.files.clone();
        if let Err(err) = base::task::blocking(move || files.link(&link, &target)).await {
            tracing::warn!(container = %id, error = %err, "the link to the container's log could not be made");
        }
    }

    async fn stop(self, id: ContainerId, grace: Duration) {
        let deadline = base::time::instant() + grace;
        loop {
            let left = deadline.saturating_duration_since(base::time::instant());
            match self.core.doors.runtime.stop_container(&id, left).await {
                Ok(()) => break,
                Err(runtime::Error::NotFound { .. }) => break,
                Err(err) => {
                    tracing::warn!(container = %id, error = %err, "the container could not be stopped, will be tried again");
                    base::time::sleep(STOP_RETRY).await;
                }
            }
        }
        self.look(id).await;
    }

    /// Finds out what has become of a container.
    async fn look(self, id: ContainerId) {
        let now = base::time::now();
        match self.core.doors.runtime.container_status(&id).await {
            Ok(found) if matches!(found.state, ContainerState::Exited | ContainerState::Unknown) => {
                let mut exit = Exit::of(&found, now);
                exit.message = self.last_words(&found.name, found.attempt, &exit).await;
                self.tell(Event::Exited(id, exit));
            }
            Ok(_) => {}
            Err(runtime::Error::NotFound { .. }) => {
                let exit = Exit {
                    id: id.to_string(),
                    image_ref: String::new(),
                    code: 137,
                    reason: "ContainerStatusUnknown".into(),
                    message: "The container could not be located when the pod was terminated".into(),
                    started_at: None,
                    finished_at: now,
                };
                self.tell(Event::Exited(id, exit));
            }
            Err(err) => {
                tracing::warn!(container = %id, error = %err, "the container's state could not be read")
            }
        }
    }

    async fn last_words(&self, name: &str, attempt: u32, exit: &Exit) -> String {
        last_words(&self.core, &self.state.pod, name, attempt, exit).await
    }

    async fn remove_container(self, index: usize, id: ContainerId, attempt: u32) {
        if let Err(err) = self.core.doors.runtime.remove_container(&id).await {
            tracing::warn!(container = %id, error = %err, "an old container could not be removed");
        }
        let name = &self.state.containers[index].name;
        let log =
            containers::log_dir(&self.core.config, self.pod()).join(containers::log_path(name, attempt));
        let paths = [
            log,
            self.log_link(name, id.as_str()),
            containers::termination_log(&self.core.config, self.uid(), name, attempt),
        ];
        let files = self.core.doors.files.clone();
        if let Err(err) =
            base::task::blocking(move || paths.iter().try_for_each(|path| files.remove(path))).await
        {
            tracing::warn!(container = %id, error = %err, "an old container's files could not be removed");
        }
    }
}

/// What a container said at its end: its termination message, or the end of its log where the pod wants that.
pub(crate) async fn last_words(
    core: &SharedCore,
    pod: &Arc<Doc>,
    name: &str,
    attempt: u32,
    exit: &Exit,
) -> String {
    let fallback = container_specs(pod.root())
        .map(|(_, c)| Container(c))
        .find(|c| c.name() == name)
        .is_some_and(|c| c.termination_message_policy() == "FallbackToLogsOnError");
    let pod = Pod(pod.root());
    let path = containers::termination_log(&core.config, pod.metadata().uid(), name, attempt);
    let log = containers::log_dir(&core.config, pod).join(containers::log_path(name, attempt));
    let (files, failed) = (core.doors.files.clone(), exit.code != 0);
    let read = base::task::blocking(move || -> crate::doors::Result<String> {
        let own = files.read_end(&path, LAST_WORDS_MAX)?.unwrap_or_default();
        if !own.is_empty() || !fallback || !failed {
            return Ok(String::from_utf8_lossy(&own).into_owned());
        }
        // A log's lines carry a time and a stream; twice the size holds enough of them.
        let text = files.read_end(&log, LOG_WORDS_MAX * 4)?.unwrap_or_default();
        Ok(crate::server::logs::tail_text(&text, LOG_LINES_MAX, LOG_WORDS_MAX))
    });
    match read.await {
        Ok(text) => text,
        Err(err) => format!("Error on reading termination log: {err}"),
    }
}

/// Stops, unwires and removes a sandbox.
pub(crate) async fn remove_sandbox(core: &SharedCore, id: &SandboxId) -> Result<(), String> {
    let runtime = &core.doors.runtime;
    runtime.stop_pod_sandbox(id).await.map_err(|err| words(&err))?;
    core.doors.network.detach(id.to_string()).await.map_err(|err| words(&*err))?;
    runtime.remove_pod_sandbox(id).await.map_err(|err| words(&err))
}

/// Which worker an event of the runtime is for, and what it is told.
pub(crate) fn route(event: RuntimeEvent) -> Routed {
    match event {
        RuntimeEvent::Container(e) if e.event_type == runtime::ContainerEventType::Stopped => {
            Routed::Pod(e.pod_uid, Message::Look(e.container_id))
        }
        RuntimeEvent::Container(_) => Routed::Nobody,
        RuntimeEvent::SandboxLost(id) => Routed::All(id),
        RuntimeEvent::Missed => Routed::List,
    }
}

/// See [`route`].
pub(crate) enum Routed {
    /// One worker.
    Pod(String, Message),
    /// Whoever has the sandbox.
    All(SandboxId),
    /// Changes were missed: everything is looked at.
    List,
    /// No worker waits for it.
    Nobody,
}
