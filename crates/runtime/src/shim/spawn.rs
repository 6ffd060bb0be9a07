//! Starts processes in containers: the first one, and commands beside it.
//!
//! The shim has one thread, so a plain fork may do anything afterwards. The PID namespace is set for the shim's
//! next child, which is then forked straight into it, and set back. A child reports a failure through a pipe
//! that closes by itself when it executes its program.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::pipe::PipeFlags;
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::protocol::{ContainerSpec, SandboxSpec};
use crate::linux::cgroups::{Cgroups, Layout, Scope};
use crate::linux::process::{self, Program};
use crate::linux::rootfs::{self, MASKED_PATHS, READONLY_PATHS, Rootfs};
use crate::linux::{caps, descriptors, namespaces, terminal};
use crate::{Mount, NamespaceMode};

/// How long a child may take until it executes its program; a mount from a dead server may hang for ever.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// What every start needs of the shim.
pub struct Context {
    /// The sandbox.
    pub sandbox: SandboxSpec,
    /// Control groups.
    pub cgroups: Cgroups,
    /// The shim's own PID namespace.
    pub own_pid_namespace: OwnedFd,
    /// The pod's first process and its PID namespace, where containers share one.
    pub pod_pids: Option<(i32, OwnedFd)>,
    /// Standard input of everything.
    pub null: OwnedFd,
}

/// A process that has executed its program.
pub struct Started {
    /// Its id, as the shim sees it.
    pub pid: i32,
    /// What its standard input takes, if that was wanted and it has no terminal.
    pub stdin: Option<OwnedFd>,
    /// Where its standard output arrives, or the master of its terminal.
    pub stdout: OwnedFd,
    /// Where its standard error arrives; `None` with a terminal.
    pub stderr: Option<OwnedFd>,
}

/// What a child is given.
struct Child<'a> {
    stdio: [&'a OwnedFd; 3],
    /// Where the master of its terminal goes, if it is to have one.
    console: Option<&'a OwnedFd>,
    gate: Gate,
}

/// Starts a container's first process. `target` is the first process of the container whose PID namespace it shares.
///
/// # Errors
/// In words for the user.
pub fn container(context: &Context, spec: &ContainerSpec, target: Option<i32>) -> Result<Started, String> {
    let text = |what: &'static str| move |e: io::Error| format!("{what}: {e}");
    let linux = &spec.config.linux;
    rootfs::prepare(&spec.dir).map_err(text("make the container's directories"))?;
    context
        .cgroups
        .create(&spec.cgroup, &linux.resources, Scope::Container)
        .map_err(text("make the control group"))?;
    if !linux.security_context.privileged {
        context.cgroups.restrict_devices(&spec.cgroup).map_err(text("restrict devices"))?;
    }
    if let Ok(set) = process::capabilities(&linux.security_context)
        && linux.security_context.privileged
        && set != caps::effective(&[], &[], true).unwrap_or(set)
    {
        eprintln!("container {}: privileged has only the capabilities of this host's bounding set", spec.id);
    }
    let pids = match (&context.pod_pids, target) {
        (_, Some(target)) => {
            let target = namespaces::open(target, "pid").map_err(text("open the target's namespace"))?;
            namespaces::enter(&target, LinkNameSpaceType::ProcessID)
        }
        (Some((_, pod)), None) => namespaces::enter(pod, LinkNameSpaceType::ProcessID),
        _ if context.sandbox.config.linux.namespace_options.pid == NamespaceMode::Node => Ok(()),
        _ => rustix_unshare(UnshareFlags::NEWPID),
    };
    pids.map_err(text("make a PID namespace"))?;
    let (stdin, tty) = (spec.config.stdin, spec.config.tty);
    fork(context, spec, stdin, tty, |child| {
        settle(spec, child.stdio)?;
        if matches!(context.cgroups.layout(), Layout::V2(_)) {
            // The new namespace begins where the process is: it must be in its group by now.
            child.gate.wait()?;
            rustix_unshare(UnshareFlags::NEWCGROUP).map_err(text("make a cgroup namespace"))?;
        }
        rustix_unshare(UnshareFlags::NEWNS).map_err(text("make a mount namespace"))?;
        enter_rootfs(context, spec).map_err(|e| e.to_string())?;
        child.take_terminal()?;
        child.gate.wait()?;
        Err(run_program(spec, &arguments(spec)?, tty))
    })
}

/// Starts a command in a container whose first process is `init`.
///
/// # Errors
/// In words for the user.
pub fn command(
    context: &Context,
    spec: &ContainerSpec,
    init: i32,
    cmd: &[String],
    stdin: bool,
    tty: bool,
) -> Result<Started, String> {
    let text = |what: &'static str| move |e: io::Error| format!("{what}: {e}");
    let open = |name| namespaces::open(init, name).map_err(text("open the container's namespaces"));
    let (pids, mounts, groups) = (open("pid")?, open("mnt")?, open("cgroup")?);
    if context.sandbox.config.linux.namespace_options.pid != NamespaceMode::Node {
        namespaces::enter(&pids, LinkNameSpaceType::ProcessID).map_err(text("enter the PID namespace"))?;
    }
    fork(context, spec, stdin, tty, |child| {
        settle(spec, child.stdio)?;
        child.gate.wait()?;
        if matches!(context.cgroups.layout(), Layout::V2(_)) {
            namespaces::enter(&groups, LinkNameSpaceType::ControlGroup)
                .map_err(text("enter the cgroup namespace"))?;
        }
        namespaces::enter(&mounts, LinkNameSpaceType::Mount).map_err(text("enter the mount namespace"))?;
        child.take_terminal()?;
        Err(run_program(spec, cmd, tty))
    })
}

/// Program and arguments. Source: CRI's ContainerConfig: `command` replaces Entrypoint and drops Cmd, `args`
/// replaces Cmd.
///
/// # Errors
/// With upstream's words when nothing says what to run.
pub fn arguments(spec: &ContainerSpec) -> Result<Vec<String>, String> {
    let (config, image) = (&spec.config, &spec.image);
    let mut out;
    if config.command.is_empty() {
        out = image.entrypoint.clone();
        out.extend(if config.args.is_empty() { image.cmd.clone() } else { config.args.clone() });
    } else {
        out = config.command.clone();
        out.extend(config.args.iter().cloned());
    }
    if out.is_empty() { Err("no command specified".to_owned()) } else { Ok(out) }
}

/// The image's environment with the container's own over it; the later of one name wins.
pub fn environment(spec: &ContainerSpec) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let image = spec.image.env.iter().cloned();
    let own = spec.config.envs.iter().map(|e| format!("{}={}", e.key, e.value));
    for entry in image.chain(own) {
        let name = entry.split('=').next().unwrap_or_default();
        match out.iter_mut().find(|e| e.split('=').next() == Some(name)) {
            Some(old) => *old = entry,
            None => out.push(entry),
        }
    }
    out
}

/// The steps that come first in every child: its own session, its descriptors.
fn settle(spec: &ContainerSpec, stdio: [&OwnedFd; 3]) -> Result<(), String> {
    let text = |what: &'static str| move |e: io::Error| format!("{what}: {e}");
    process::reset_signals();
    rustix::process::setsid().map_err(|e| format!("setsid: {e}"))?;
    // Until the program is executed this is a copy of the shim: nobody in the container may look into it.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|e| format!("set dumpable: {e}"))?;
    let wanted = spec.config.linux.resources.oom_score_adj;
    if !process::set_oom_score_adj(wanted).map_err(text("set oom_score_adj"))? {
        eprintln!("container {}: this host does not allow oom_score_adj {wanted}", spec.id);
    }
    process::set_stdio(stdio[0], stdio[1], stdio[2]).map_err(text("set standard descriptors"))
}

fn enter_rootfs(context: &Context, spec: &ContainerSpec) -> io::Result<()> {
    let security = &spec.config.linux.security_context;
    let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let mut mounts = spec.config.mounts.clone();
    if let Some(host_path) = &context.sandbox.hostname_file
        && !mounts.iter().any(|m| m.container_path.as_os_str() == "/etc/hostname")
    {
        let (host_path, container_path) = (host_path.clone(), "/etc/hostname".into());
        mounts.push(Mount { host_path, container_path, ..Default::default() });
    }
    Rootfs {
        layers: &spec.layers,
        dir: &spec.dir,
        readonly: security.readonly_rootfs,
        privileged: security.privileged,
        mounts: &mounts,
        masked: &security.masked_paths.clone().unwrap_or_else(|| own(MASKED_PATHS)),
        readonly_paths: &security.readonly_paths.clone().unwrap_or_else(|| own(READONLY_PATHS)),
        shm: &context.sandbox.shm,
        cgroups: &context.cgroups,
        cgroup: &spec.cgroup,
        working_dir: working_dir(spec),
    }
    .enter()
}

fn run_program(spec: &ContainerSpec, args: &[String], tty: bool) -> String {
    let mut env = environment(spec);
    if tty && !env.iter().any(|e| e.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    process::become_program(&Program {
        args,
        env: &env,
        working_dir: working_dir(spec),
        image_user: &spec.image.user,
        context: &spec.config.linux.security_context,
        seccomp: spec.seccomp.as_deref(),
    })
}

fn working_dir(spec: &ContainerSpec) -> &str {
    if spec.config.working_dir.is_empty() { &spec.image.working_dir } else { &spec.config.working_dir }
}

/// Where a child waits until the shim has put it into its control group. In version 1 that takes the kernel
/// longer than everything else together, so the child does the rest meanwhile.
struct Gate(OwnedFd);

/// What a child says that was not let through.
const GAVE_UP: &str = "the shim gave up";

impl Gate {
    /// Returns at once if it was passed before.
    fn wait(&self) -> Result<(), String> {
        let mut byte = [0];
        match rustix::io::read(&self.0, &mut byte) {
            // Open for good: the shim has written one byte for each of the two places that may ask.
            Ok(1) => Ok(()),
            Ok(_) => Err(GAVE_UP.to_owned()),
            Err(e) => Err(format!("wait for the control group: {e}")),
        }
    }
}

impl Child<'_> {
    /// Makes the child's terminal in the container's own devpts and sends its master to the shim.
    fn take_terminal(&self) -> Result<(), String> {
        let Some(console) = self.console else { return Ok(()) };
        let text = |e: io::Error| format!("make a terminal: {e}");
        let (master, slave) = terminal::open().map_err(text)?;
        terminal::take(&slave).map_err(text)?;
        process::set_stdio(&slave, &slave, &slave).map_err(text)?;
        descriptors::send(console.as_fd(), b"t", &[master.as_fd()]).map(drop).map_err(text)
    }
}

/// The descriptors that shim and child share, the shim's end first.
struct Pipes {
    stdin: (OwnedFd, OwnedFd),
    stdout: (OwnedFd, OwnedFd),
    stderr: (OwnedFd, OwnedFd),
    console: (OwnedFd, OwnedFd),
    status: (OwnedFd, OwnedFd),
    gate: (OwnedFd, OwnedFd),
}

impl Pipes {
    fn make() -> Result<Pipes, String> {
        let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| format!("make a pipe: {e}"));
        let reversed = |(read, write)| (write, read);
        Ok(Pipes {
            stdin: reversed(pipe()?),
            stdout: pipe()?,
            stderr: pipe()?,
            console: descriptors::pair().map_err(|e| format!("make a pair of sockets: {e}"))?,
            status: pipe()?,
            gate: reversed(pipe()?),
        })
    }
}

/// Forks; the child runs `body`, which returns only on failure. The shim's children are in its own PID
/// namespace again afterwards, whatever came of it.
fn fork(
    context: &Context,
    spec: &ContainerSpec,
    stdin: bool,
    tty: bool,
    body: impl FnOnce(&Child<'_>) -> Result<(), String>,
) -> Result<Started, String> {
    let forked = Pipes::make().and_then(|pipes| {
        // SAFETY: this process has one thread; the child may allocate and lock as it likes.
        match unsafe { libc::fork() } {
            -1 => Err(format!("fork: {}", io::Error::last_os_error())),
            pid => Ok((pid, pipes)),
        }
    });
    if let Ok((0, Pipes { stdin: (_, input), stdout: (_, out), stderr: (_, err), console, status, gate })) =
        forked
    {
        drop((gate.0, status.0, console.0));
        let null = &context.null;
        let stdio = if tty { [null; 3] } else { [if stdin { &input } else { null }, &out, &err] };
        let child = Child { stdio, console: tty.then_some(&console.1), gate: Gate(gate.1) };
        let message = body(&child).err().unwrap_or_default();
        // Nobody is left to tell if this fails too; the shim then sees an exit without a program.
        drop(File::from(status.1).write_all(message.as_bytes()));
        // SAFETY: ends the child without running what the shim registered for its own end.
        unsafe { libc::_exit(128) };
    }
    let back = namespaces::enter(&context.own_pid_namespace, LinkNameSpaceType::ProcessID);
    let (pid, pipes) = forked?;
    drop((pipes.stdin.1, pipes.stdout.1, pipes.stderr.1, pipes.console.1, pipes.status.1, pipes.gate.1));
    let (status, gate) = (pipes.status.0, pipes.gate.0);
    let outcome = back.map_err(|e| format!("return to the own PID namespace: {e}")).and_then(|()| {
        let joined = context.cgroups.add(&spec.cgroup, Scope::Container, pid);
        let opened = joined.and_then(|()| Ok(rustix::io::write(&gate, b"..").map(drop)?));
        // Closed before waiting for the child: if it was not moved, this is what tells it.
        drop(gate);
        match (executed(status), opened) {
            // A child that failed meanwhile cannot be moved; its own words say more.
            (Ok(message), _) if !message.is_empty() && message != GAVE_UP => Err(message),
            (_, Err(e)) => Err(format!("join the control group: {e}")),
            (Ok(_), Ok(())) => Ok(()),
            (Err(e), Ok(())) => Err(format!("wait for the program to start: {e}")),
        }
    });
    let started = outcome.and_then(|()| {
        let (stdout, stderr) = match tty {
            true => (descriptors::receive(pipes.console.0.as_fd())?, None),
            false => (pipes.stdout.0, Some(pipes.stderr.0)),
        };
        let started = Started { pid, stdin: (stdin && !tty).then_some(pipes.stdin.0), stdout, stderr };
        for fd in started.stdin.iter().chain(&started.stderr).chain([&started.stdout]) {
            rustix::io::ioctl_fionbio(fd, true).map_err(|e| format!("set a pipe non-blocking: {e}"))?;
        }
        Ok(started)
    });
    if started.is_err() {
        reap(pid);
    }
    started
}

/// Reads to the end of the status pipe, for as long as a start may take.
fn executed(status: OwnedFd) -> io::Result<String> {
    let mut out = Vec::new();
    let mut file = File::from(status);
    let limit = Timespec { tv_sec: START_TIME_MAX.as_secs() as i64, tv_nsec: 0 };
    loop {
        let mut fds = [PollFd::new(&file, PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&limit)) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::TimedOut)),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        }
        let mut buffer = [0; 4096];
        match file.read(&mut buffer)? {
            0 => return Ok(String::from_utf8_lossy(&out).into_owned()),
            n => out.extend_from_slice(&buffer[..n]),
        }
    }
}

/// Kills and waits for a child that has not become anything.
fn reap(pid: i32) {
    let Some(pid) = Pid::from_raw(pid) else { return };
    // Both fail only if it is gone already.
    rustix::process::kill_process(pid, Signal::KILL).ok();
    rustix::process::waitpid(Some(pid), WaitOptions::empty()).ok();
}

fn rustix_unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: none of the namespaces asked for here is about memory or descriptors, and there is one thread.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// A set of descriptors that can be polled needs them borrowed alike.
pub fn poll_fd<'a>(fd: &'a impl AsFd, flags: PollFlags) -> PollFd<'a> {
    PollFd::from_borrowed_fd(fd.as_fd(), flags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::config::RunConfig;
    use crate::{ContainerConfig, KeyValue};

    fn spec(image: RunConfig, config: ContainerConfig) -> ContainerSpec {
        ContainerSpec {
            id: "c".into(),
            config,
            image,
            image_ref: String::new(),
            layers: Vec::new(),
            dir: "/".into(),
            cgroup: String::new(),
            log_path: None,
            seccomp: None,
            created_at: 0,
        }
    }

    #[test]
    fn command_and_args_follow_the_rules_of_cri() {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for (entrypoint, cmd, command, args, want) in [
            ("e", "c", "", "", "e c"),
            ("e", "c", "", "a", "e a"),
            ("e", "c", "x", "", "x"),
            ("e", "c", "x", "a", "x a"),
            ("", "c d", "", "", "c d"),
        ] {
            let image = RunConfig { entrypoint: list(entrypoint), cmd: list(cmd), ..Default::default() };
            let config = ContainerConfig { command: list(command), args: list(args), ..Default::default() };
            assert_eq!(arguments(&spec(image, config)), Ok(list(want)));
        }
        assert!(arguments(&spec(RunConfig::default(), ContainerConfig::default())).is_err());
    }

    #[test]
    fn own_environment_wins() {
        let image = RunConfig { env: vec!["A=1".into(), "B=2".into()], ..Default::default() };
        let envs = vec![
            KeyValue { key: "B".into(), value: "3=4".into() },
            KeyValue { key: "C".into(), value: "".into() },
        ];
        let got = environment(&spec(image, ContainerConfig { envs, ..Default::default() }));
        assert_eq!(got, ["A=1", "B=3=4", "C="]);
    }
}
