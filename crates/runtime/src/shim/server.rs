//! The shim's loop: requests, output, exits, deadlines; one thread, one poll.
//!
//! Invariant: the state file is written before anybody is told of a change, so whoever attaches later knows at
//! least what others were told.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFlags, Timespec};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use super::connection::Connection;
use super::log::{Log, Stream};
use super::pause;
use super::protocol::{
    Call, ContainerRecord, ContainerSpec, Descriptor, EXEC_OUTPUT_BYTES_MAX, Failure, Message, Reply,
    Request, STATE_FILE, State, VERSION, encode, now,
};
use super::spawn::{self, Context, Started, poll_fd};
use super::streams::Tap;
use crate::linux::cgroups::{Cgroups, Scope};
use crate::linux::{namespaces, process, write_atomically};
use crate::{ContainerId, ContainerState, LinuxContainerResources, NamespaceMode, StreamOptions};

/// How much is read from a pipe at once.
const READ_BYTES: usize = 64 << 10;
/// How many reads from one pipe follow each other before others get their turn.
const READS_MAX: usize = 16;
/// The exit code of a container whose program could not be started. Source: containerd.
const EXIT_CODE_NOT_STARTED: i32 = 128;

/// Runs the shim for the sandbox in `dir`; `ready` is called once it listens. Returns after `Shutdown`.
///
/// # Errors
/// When the sandbox cannot be made. Afterwards errors end single requests, never the shim.
pub fn run(dir: &Path, ready: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let mut shim = Shim::start(dir)?;
    ready()?;
    while !(shim.shutdown && shim.connections.values().all(|c| c.output.is_empty())) {
        shim.turn()?;
    }
    Ok(())
}

pub(super) struct Shim {
    pub(super) context: Context,
    pub(super) state: State,
    state_path: PathBuf,
    listener: UnixListener,
    signals: SignalFd,
    connections: BTreeMap<u64, Connection>,
    connections_made: u64,
    pub(super) running: BTreeMap<ContainerId, Running>,
    commands: BTreeMap<i32, Command>,
    /// Who listens to containers' output.
    pub(super) taps: Vec<Tap>,
    shutdown: bool,
}

/// Who waits for an answer: connection and request.
pub(super) type Waiter = (u64, u64);

pub(super) struct Running {
    pub(super) pid: i32,
    /// What a standard input that stays open takes.
    pub(super) stdin: Option<OwnedFd>,
    /// The first is the master of its terminal, if it has one.
    pub(super) outputs: [Option<OwnedFd>; 2],
    log: Option<Log>,
    /// When it is killed, in milliseconds of the monotonic clock.
    deadline: Option<u64>,
    waiters: Vec<Waiter>,
}

struct Command {
    outputs: [Option<OwnedFd>; 2],
    collected: [Vec<u8>; 2],
    deadline: Option<u64>,
    timed_out: bool,
    waiter: Waiter,
}

/// What a descriptor that poll reports belongs to.
enum Source {
    Signals,
    Listener,
    Connection(u64),
    Output(ContainerId, usize),
    CommandOutput(i32, usize),
    Tap(usize),
}

const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

impl Shim {
    fn start(dir: &Path) -> io::Result<Shim> {
        let state_path = dir.join(STATE_FILE);
        let state: State = serde_json::from_slice(&fs::read(&state_path)?)?;
        let sandbox = state.sandbox.clone();
        let cgroups = Cgroups::detect(&sandbox.cgroup_root)?;
        cgroups.create(&sandbox.shim_cgroup, &LinuxContainerResources::default(), Scope::Everything)?;
        cgroups.add(&sandbox.shim_cgroup, Scope::Everything, 0)?;
        process::reset_signals();
        let mut blocked = SigSet::empty();
        for signal in
            [NixSignal::SIGCHLD, NixSignal::SIGPIPE, NixSignal::SIGHUP, NixSignal::SIGINT, NixSignal::SIGTERM]
        {
            // Blocked for good; only children's ends are asked for. A pod ends when its kubelet says so.
            blocked.add(signal);
        }
        blocked.thread_block()?;
        let mut watched = SigSet::empty();
        watched.add(NixSignal::SIGCHLD);
        let signals = SignalFd::with_flags(&watched, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        process::raise_limits()?;
        // What it makes for containers is not only for root, whatever the engine was started with.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        // The last to go when memory is short, where the host allows it.
        process::set_oom_score_adj(-998)?;
        rustix::thread::set_name(c"keelson-shim")?;
        namespaces::enter_new(&sandbox.config.linux, &sandbox.config.hostname)?;
        let own_pid_namespace = namespaces::open(rustix::process::getpid().as_raw_nonzero().get(), "pid")?;
        let pod_pids = match sandbox.config.linux.namespace_options.pid {
            NamespaceMode::Pod => Some(pause::start(&own_pid_namespace, dir)?),
            _ => None,
        };
        let context = Context {
            cgroups,
            own_pid_namespace,
            pod_pids,
            null: fs::File::options().read(true).write(true).open("/dev/null")?.into(),
            sandbox,
        };
        let listener = UnixListener::bind(&context.sandbox.socket)?;
        fs::set_permissions(&context.sandbox.socket, fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Shim {
            context,
            state,
            state_path,
            listener,
            signals,
            connections: BTreeMap::new(),
            connections_made: 0,
            running: BTreeMap::new(),
            commands: BTreeMap::new(),
            taps: Vec::new(),
            shutdown: false,
        })
    }

    /// Waits for something to happen and deals with it.
    fn turn(&mut self) -> io::Result<()> {
        let timeout = self.next_deadline().map(|at| {
            let wait = at.saturating_sub(clock());
            Timespec { tv_sec: (wait / 1000) as i64, tv_nsec: (wait % 1000 * 1_000_000) as _ }
        });
        let mut sources = vec![Source::Signals, Source::Listener];
        let mut fds = vec![poll_fd(&self.signals, PollFlags::IN), poll_fd(&self.listener, PollFlags::IN)];
        for (id, c) in &self.connections {
            sources.push(Source::Connection(*id));
            fds.push(c.poll_fd());
        }
        for (i, tap) in self.taps.iter().enumerate() {
            sources.push(Source::Tap(i));
            fds.push(poll_fd(&tap.fd, if tap.is_behind() { PollFlags::OUT } else { PollFlags::empty() }));
        }
        for (id, r) in &self.running {
            for (i, fd) in r.outputs.iter().enumerate().rev().filter_map(|(i, o)| Some((i, o.as_ref()?))) {
                // Who listens and does not read holds the container up, and nobody's memory fills.
                if self.taps.iter().any(|t| t.is_behind() && t.of(id, i)) {
                    continue;
                }
                sources.push(Source::Output(id.clone(), i));
                fds.push(poll_fd(fd, PollFlags::IN));
            }
        }
        for (pid, c) in &self.commands {
            for (i, fd) in c.outputs.iter().enumerate().rev().filter_map(|(i, o)| Some((i, o.as_ref()?))) {
                sources.push(Source::CommandOutput(*pid, i));
                fds.push(poll_fd(fd, PollFlags::IN));
            }
        }
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let happened: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        // From the last: what a program wrote, standard output first, is in its log before its end is known.
        for (source, _) in sources.into_iter().zip(happened).rev().filter(|(_, h)| *h) {
            match source {
                Source::Signals => self.reap(),
                Source::Listener => self.accept(),
                Source::Connection(id) => self.serve(id),
                Source::Output(id, i) => self.read_output(&id, i, READS_MAX),
                Source::CommandOutput(pid, i) => self.read_command(pid, i, READS_MAX),
                Source::Tap(i) => self.taps[i].woken(),
            }
        }
        self.enforce_deadlines();
        self.taps.retain(|t| !t.is_done());
        self.flush();
        Ok(())
    }

    fn next_deadline(&self) -> Option<u64> {
        let stops = self.running.values().filter_map(|r| r.deadline);
        let commands = self.commands.values().filter_map(|c| c.deadline);
        stops.chain(commands).min()
    }

    fn enforce_deadlines(&mut self) {
        let now = clock();
        let due: Vec<_> = self
            .running
            .iter()
            .filter(|(_, r)| r.deadline.is_some_and(|d| d <= now))
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            self.kill(&id);
        }
        for (pid, command) in &mut self.commands {
            if command.deadline.is_some_and(|d| d <= now) {
                (command.deadline, command.timed_out) = (None, true);
                signal(*pid, Signal::KILL);
            }
        }
    }

    // === connections ===

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if stream.set_nonblocking(true).is_ok() {
                self.connections_made += 1;
                self.connections.insert(self.connections_made, Connection::new(stream));
            }
        }
    }

    fn serve(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let requests = connection.receive();
        for request in requests {
            self.handle(id, request);
        }
    }

    fn flush(&mut self) {
        for connection in self.connections.values_mut() {
            connection.send();
        }
        let commands = &self.commands;
        self.connections.retain(|id, c| {
            if c.broken {
                // Whoever started them has gone, and with them what they read and write.
                let orphans = commands.iter().filter(|(_, command)| command.waiter.0 == *id);
                orphans.for_each(|(pid, _)| kill_group(*pid));
            }
            !c.broken
        });
    }

    /// Answers with descriptors.
    pub(super) fn give(&mut self, waiter: Waiter, all: Vec<(Descriptor, OwnedFd)>) {
        let (kinds, fds): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        self.reply(waiter, Ok(Reply::Streams(kinds)), &[]);
        if let Some(c) = self.connections.get_mut(&waiter.0) {
            c.descriptors = fds;
        }
    }

    fn reply(&mut self, (connection, id): Waiter, result: Result<Reply, Failure>, raw: &[u8]) {
        if let Some(c) = self.connections.get_mut(&connection) {
            encode(&Message::Reply { id, result }, raw, &mut c.output);
        }
    }

    // === requests ===

    fn handle(&mut self, connection: u64, request: Request) {
        let waiter = (connection, request.id);
        let result = match request.call {
            Call::Hello { version } if version != VERSION => {
                Err(Failure::Other(format!("this shim speaks version {VERSION}, not {version}")))
            }
            Call::Hello { .. } => {
                if let Some(c) = self.connections.get_mut(&connection) {
                    c.follows = true;
                }
                let pid = rustix::process::getpid().as_raw_nonzero().get();
                Ok(Reply::Hello { pid, state: Box::new(self.state.clone()) })
            }
            Call::Create(spec) => self.create(*spec),
            Call::Start(id) => self.start_container(&id),
            Call::Stop { id, grace_ms } => match self.stop(&id, grace_ms, waiter) {
                Some(result) => result,
                None => return,
            },
            Call::Remove(id) => self.remove(&id),
            Call::Exec { id, cmd, timeout_ms } => match self.exec(&id, &cmd, timeout_ms, waiter) {
                Ok(()) => return,
                Err(failure) => Err(failure),
            },
            Call::ExecStream { id, cmd, wants } => match self.exec_stream(&id, &cmd, wants, waiter) {
                Ok(()) => return,
                Err(failure) => Err(failure),
            },
            Call::Attach { id, wants } => match self.attach(&id, wants, waiter) {
                Ok(()) => return,
                Err(failure) => Err(failure),
            },
            Call::Socket { v6 } => match self.socket(v6, waiter) {
                Ok(()) => return,
                Err(failure) => Err(failure),
            },
            Call::StopSandbox => self.stop_sandbox(),
            Call::Shutdown if !self.running.is_empty() => Err(Failure::State("not stopped".to_owned())),
            Call::Shutdown => {
                self.shutdown = true;
                Ok(Reply::Done)
            }
        };
        self.reply(waiter, result, &[]);
    }

    fn create(&mut self, spec: ContainerSpec) -> Result<Reply, Failure> {
        if self.state.stopped {
            return Err(Failure::State("stopped".to_owned()));
        }
        let id = spec.id.clone();
        let record = ContainerRecord {
            spec,
            state: ContainerState::Created,
            pid: None,
            started_at: None,
            finished_at: None,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            user: None,
        };
        self.state.containers.insert(id.clone(), record);
        self.changed(&id).map_err(|e| Failure::Other(e.to_string()))?;
        Ok(Reply::Done)
    }

    fn start_container(&mut self, id: &ContainerId) -> Result<Reply, Failure> {
        let target = self.target(id)?;
        let record = self.state.containers.get_mut(id).ok_or(Failure::NotFound)?;
        if record.state != ContainerState::Created || self.state.stopped {
            return Err(Failure::State(format!("{:?}", record.state).to_lowercase()));
        }
        let log = match &record.spec.log_path {
            Some(path) => Log::open(path, self.context.sandbox.rotation)
                .map(Some)
                .map_err(|e| format!("open the log {}: {e}", path.display())),
            None => Ok(None),
        };
        let spec = record.spec.clone();
        let started = log.and_then(|log| Ok((spawn::container(&self.context, &spec, target)?, log)));
        let result = match started {
            Ok((Started { pid, stdin, stdout, stderr }, log)) => {
                record.state = ContainerState::Running;
                record.pid = Some(pid);
                record.started_at = Some(now());
                record.user = process::user_of(pid);
                let outputs = [Some(stdout), stderr];
                let running = Running { pid, stdin, outputs, log, deadline: None, waiters: Vec::new() };
                self.running.insert(id.clone(), running);
                Ok(Reply::Done)
            }
            Err(message) => {
                record.state = ContainerState::Exited;
                record.finished_at = Some(now());
                record.exit_code = EXIT_CODE_NOT_STARTED;
                record.reason = "StartError".to_owned();
                record.message.clone_from(&message);
                Err(Failure::Start(message))
            }
        };
        if result.is_err() {
            self.remove_cgroup(&spec.cgroup);
        }
        self.changed(id).map_err(|e| Failure::Other(e.to_string()))?;
        result
    }

    /// The first process of the container whose PID namespace another is to share.
    fn target(&self, id: &ContainerId) -> Result<Option<i32>, Failure> {
        let spec = &self.state.containers.get(id).ok_or(Failure::NotFound)?.spec;
        let Some(target) = &spec.config.linux.security_context.pid_target else { return Ok(None) };
        match self.running.get(target) {
            Some(running) => Ok(Some(running.pid)),
            None => Err(Failure::State(format!("without its target {target}, which does not run"))),
        }
    }

    /// Whether all processes of the container go with its first.
    fn owns_pids(&self, id: &ContainerId) -> bool {
        let own = self.context.sandbox.config.linux.namespace_options.pid == NamespaceMode::Container;
        let spec = self.state.containers.get(id).map(|record| &record.spec.config.linux.security_context);
        own && spec.is_none_or(|context| context.pid_target.is_none())
    }

    /// `None`: the answer comes when the container has ended.
    fn stop(&mut self, id: &ContainerId, grace_ms: u64, waiter: Waiter) -> Option<Result<Reply, Failure>> {
        let Some(record) = self.state.containers.get(id) else { return Some(Err(Failure::NotFound)) };
        let Some(running) = self.running.get_mut(id) else { return Some(Ok(Reply::Done)) };
        running.waiters.push(waiter);
        if grace_ms == 0 {
            self.kill(id);
            return None;
        }
        if running.deadline.is_none() {
            let (own, image) = (&record.spec.config.stop_signal, &record.spec.image.stop_signal);
            signal(running.pid, stop_signal(if own.is_empty() { image } else { own }));
        }
        let at = clock().saturating_add(grace_ms);
        running.deadline = Some(running.deadline.map_or(at, |d| d.min(at)));
        None
    }

    fn stop_sandbox(&mut self) -> Result<Reply, Failure> {
        self.state.stopped = true;
        self.save().map_err(|e| Failure::Other(e.to_string()))?;
        let ids: Vec<_> = self.running.keys().cloned().collect();
        // All at once first, so that none waits for another's end.
        ids.iter().for_each(|id| self.kill(id));
        for id in ids {
            self.kill_and_wait(&id);
        }
        Ok(Reply::Done)
    }

    fn remove(&mut self, id: &ContainerId) -> Result<Reply, Failure> {
        if self.running.contains_key(id) {
            self.kill_and_wait(id);
        }
        if let Some(record) = self.state.containers.remove(id) {
            self.save().map_err(|e| Failure::Other(e.to_string()))?;
            self.remove_cgroup(&record.spec.cgroup);
        }
        Ok(Reply::Done)
    }

    fn exec(
        &mut self,
        id: &ContainerId,
        cmd: &[String],
        timeout_ms: u64,
        waiter: Waiter,
    ) -> Result<(), Failure> {
        let started = self.start_command(id, cmd, StreamOptions::default())?;
        let command = Command {
            outputs: [Some(started.stdout), started.stderr],
            collected: Default::default(),
            deadline: (timeout_ms > 0).then(|| clock().saturating_add(timeout_ms)),
            timed_out: false,
            waiter,
        };
        self.commands.insert(started.pid, command);
        Ok(())
    }

    /// A command whose streams are its waiter's.
    fn exec_stream(
        &mut self,
        id: &ContainerId,
        cmd: &[String],
        wants: StreamOptions,
        waiter: Waiter,
    ) -> Result<(), Failure> {
        let started = self.start_command(id, cmd, wants)?;
        let (outputs, collected) = Default::default();
        let command = Command { outputs, collected, deadline: None, timed_out: false, waiter };
        self.commands.insert(started.pid, command);
        let out = if wants.tty { Descriptor::Terminal } else { Descriptor::Stdout };
        let input = started.stdin.map(|fd| (Descriptor::Stdin, fd));
        let all = input.into_iter().chain([(out, started.stdout)]);
        self.give(waiter, all.chain(started.stderr.map(|fd| (Descriptor::Stderr, fd))).collect());
        Ok(())
    }

    fn start_command(
        &self,
        id: &ContainerId,
        cmd: &[String],
        wants: StreamOptions,
    ) -> Result<Started, Failure> {
        let record = self.state.containers.get(id).ok_or(Failure::NotFound)?;
        let Some(running) = self.running.get(id) else {
            return Err(Failure::State(format!("{:?}", record.state).to_lowercase()));
        };
        if cmd.is_empty() {
            return Err(Failure::Start("no command specified".to_owned()));
        }
        spawn::command(&self.context, &record.spec, running.pid, cmd, wants.stdin, wants.tty)
            .map_err(Failure::Start)
    }

    // === processes ===

    /// Kills a running container. The first process takes its PID namespace with it; with a shared one, only the control
    /// group knows all of them.
    fn kill(&mut self, id: &ContainerId) {
        let Some(running) = self.running.get_mut(id) else { return };
        running.deadline = None;
        signal(running.pid, Signal::KILL);
        let shared = !self.owns_pids(id);
        if let (true, Some(record)) = (shared, self.state.containers.get(id))
            && let Err(e) = self.context.cgroups.kill(&record.spec.cgroup)
        {
            eprintln!("container {id}: kill its group: {e}");
        }
    }

    fn kill_and_wait(&mut self, id: &ContainerId) {
        self.kill(id);
        while self.running.contains_key(id) {
            match rustix::process::wait(WaitOptions::empty()) {
                Ok(Some((pid, status))) => self.exited(pid.as_raw_nonzero().get(), status),
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                // No children at all: it was reaped without being known, which `exited` never lets happen.
                Err(e) => {
                    eprintln!("container {id}: wait: {e}");
                    return;
                }
            }
        }
    }

    fn reap(&mut self) {
        // The signals say only that there is something to reap; several may have become one.
        while let Ok(Some(_)) = self.signals.read_signal() {}
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            self.exited(pid.as_raw_nonzero().get(), status);
        }
    }

    fn exited(&mut self, pid: i32, status: WaitStatus) {
        let code = status.exit_status().or_else(|| Some(128 + status.terminating_signal()?)).unwrap_or(255);
        if self.context.pod_pids.as_ref().is_some_and(|(first, _)| *first == pid) && !self.state.stopped {
            // The kernel has killed all containers with it, and no other can start: the sandbox is lost.
            eprintln!("the pod's first process has ended");
            std::process::exit(1);
        }
        if self.commands.contains_key(&pid) {
            self.command_exited(pid, code);
        } else if let Some(id) = self.running.iter().find(|(_, r)| r.pid == pid).map(|(id, _)| id.clone()) {
            self.container_exited(&id, code);
        }
    }

    fn container_exited(&mut self, id: &ContainerId, code: i32) {
        for i in 0..2 {
            self.read_output(id, i, usize::MAX);
        }
        let Some(mut running) = self.running.remove(id) else { return };
        self.taps.iter_mut().filter(|t| t.container == *id).for_each(Tap::end);
        if let Some(log) = &mut running.log {
            for stream in STREAMS {
                report(id, log.finish(stream));
            }
        }
        let Some(record) = self.state.containers.get_mut(id) else { return };
        let cgroup = record.spec.cgroup.clone();
        // Before the group goes, and the count with it.
        let out_of_memory = self.context.cgroups.oom_kills(&cgroup) > 0;
        record.state = ContainerState::Exited;
        record.pid = None;
        record.finished_at = Some(now());
        record.exit_code = code;
        record.reason = match code {
            0 => "Completed",
            _ if out_of_memory => "OOMKilled",
            _ => "Error",
        }
        .to_owned();
        if !self.owns_pids(id) {
            report(id, self.context.cgroups.kill(&cgroup));
        }
        self.remove_cgroup(&cgroup);
        report(id, self.changed(id));
        for waiter in running.waiters {
            self.reply(waiter, Ok(Reply::Done), &[]);
        }
    }

    fn command_exited(&mut self, pid: i32, code: i32) {
        for i in 0..2 {
            self.read_command(pid, i, usize::MAX);
        }
        let Some(command) = self.commands.remove(&pid) else { return };
        let [mut out, err] = command.collected;
        let stdout_len = out.len();
        out.extend(err);
        let result = if command.timed_out {
            out.clear();
            Err(Failure::Timeout)
        } else {
            Ok(Reply::Exec { exit_code: code, stdout_len })
        };
        self.reply(command.waiter, result, &out);
    }

    // === output ===

    fn read_output(&mut self, id: &ContainerId, i: usize, reads_max: usize) {
        let Some(running) = self.running.get_mut(id) else { return };
        let Some(fd) = &running.outputs[i] else { return };
        let (log, taps) = (&mut running.log, &mut self.taps);
        let open = drain(fd.as_fd(), reads_max, |bytes| {
            if let Some(log) = log {
                report(id, log.write(STREAMS[i], bytes));
            }
            taps.iter_mut().filter(|t| t.of(id, i)).for_each(|t| t.push(bytes));
        });
        if !open {
            running.outputs[i] = None;
            taps.iter_mut().filter(|t| t.of(id, i)).for_each(Tap::end);
        }
    }

    fn read_command(&mut self, pid: i32, i: usize, reads_max: usize) {
        let Some(command) = self.commands.get_mut(&pid) else { return };
        let Some(fd) = &command.outputs[i] else { return };
        let collected = &mut command.collected[i];
        let open = drain(fd.as_fd(), reads_max, |bytes| {
            let room = EXEC_OUTPUT_BYTES_MAX.saturating_sub(collected.len());
            collected.extend_from_slice(&bytes[..bytes.len().min(room)]);
        });
        if !open {
            command.outputs[i] = None;
        }
    }

    // === state ===

    /// Writes the state down, then tells everybody of one container.
    fn changed(&mut self, id: &ContainerId) -> io::Result<()> {
        let saved = self.save();
        if let Some(record) = self.state.containers.get(id) {
            let message = Message::Changed(Box::new(record.clone()));
            for connection in self.connections.values_mut().filter(|c| c.follows) {
                encode(&message, &[], &mut connection.output);
            }
        }
        saved
    }

    fn save(&self) -> io::Result<()> {
        let text = serde_json::to_vec(&self.state).map_err(io::Error::other)?;
        write_atomically(&self.state_path, &text, false).map_err(io::Error::other)
    }

    fn remove_cgroup(&self, path: &str) {
        if let Err(e) = self.context.cgroups.remove(path) {
            eprintln!("remove control group {path}: {e}");
        }
    }
}

/// Reads a pipe until it is empty, or `reads_max` times; whether it is still open.
fn drain(fd: BorrowedFd<'_>, reads_max: usize, mut take: impl FnMut(&[u8])) -> bool {
    let mut buffer = [0; READ_BYTES];
    for _ in 0..reads_max {
        match rustix::io::read(fd, &mut buffer) {
            Ok(0) => return false,
            Ok(n) => take(&buffer[..n]),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return true,
            Err(_) => return false,
        }
    }
    true
}

/// The monotonic clock, in milliseconds since this was first asked.
fn clock() -> u64 {
    static START: OnceLock<base::time::Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(base::time::instant).elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It is our child and not reaped yet, so the number is its own; it may have ended already.
        rustix::process::kill_process(pid, signal).ok();
    }
}

/// Kills a command with what it has started and what is still in its group; every command leads one.
fn kill_group(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It is our child and not reaped yet, so the number is its own.
        rustix::process::kill_process_group(pid, Signal::KILL).ok();
    }
}

/// The signal of a name (`SIGINT`, `INT`) or number; SIGTERM for anything else.
fn stop_signal(text: &str) -> Signal {
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    let named = name.parse::<NixSignal>().ok();
    let number = text.parse().ok().and_then(|n: i32| NixSignal::try_from(n).ok());
    named.or(number).and_then(|s| Signal::from_named_raw(s as i32)).unwrap_or(Signal::TERM)
}

fn report(id: &ContainerId, result: io::Result<()>) {
    if let Err(e) = result {
        eprintln!("container {id}: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_by_name_and_number() {
        for (text, want) in [
            ("", Signal::TERM),
            ("SIGQUIT", Signal::QUIT),
            ("int", Signal::INT),
            ("9", Signal::KILL),
            ("x", Signal::TERM),
        ] {
            assert_eq!(stop_signal(text), want, "{text}");
        }
    }
}
