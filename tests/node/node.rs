//! A node for one test: namespaces, directories and a control group of its own, and the programs run in there.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::images;

/// How long anything may take before a test fails: machines may be slow and busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// The same, for kubectl's own waiting.
pub const TIMEOUT: &str = "--timeout=180s";
/// What must be free of a disk, in hundredths: with less, a kubelet lets no pod run.
const DISK_PERCENT_LEAST: u64 = 15;
/// Two pods of the demo's image that answer HTTP, and their Service, `web`.
pub const WEB: &str = include_str!("manifests/web.yaml");
/// The node's own address, and its way out.
const NETWORK: &[&str] = &[
    "link set lo up",
    "link add up0 type veth peer name up1",
    // Else the kernel takes its time to give them addresses.
    "link set up0 addrgenmode none",
    "link set up1 addrgenmode none",
    "address add 192.0.2.2/24 dev up0",
    "link set up0 up",
    "link set up1 up",
    "route add default via 192.0.2.1",
];

/// A place where a node can run. Dropping it takes everything away again.
pub struct Node {
    // Sockets' paths must be short, so it is right below /tmp.
    dir: tempfile::TempDir,
    binary: PathBuf,
    /// Keeps the namespaces for as long as the test runs.
    place: Child,
    /// The control group above those of all pods.
    pub cgroups: String,
    /// Further arguments of `keelson up`.
    pub flags: Vec<&'static str>,
    up: Option<Up>,
}

/// A running `keelson up`.
struct Up {
    child: Child,
    out: ChildStdout,
    said: String,
}

// === impl Node ===

impl Node {
    /// A place; `None`, and the reason on standard error, where these tests cannot run.
    pub fn new() -> Option<Node> {
        let skipped = |why: &str| {
            eprintln!("SKIPPED: {why}");
            None
        };
        if !nix::unistd::geteuid().is_root() {
            return skipped("nodes need root");
        }
        let Some(binary) = binary() else {
            return skipped("no binary: run `cargo xtask test`, or set KEELSON_BINARY");
        };
        for program in ["kubectl", "ip", "nft", "nsenter", "unshare"] {
            if !on_path(program) {
                return skipped(&format!("no {program} on the PATH"));
            }
        }
        room_on_the_disk();
        let dir = tempfile::Builder::new().prefix("kn").tempdir_in("/tmp").expect("a directory");
        let name = dir.path().file_name().expect("it has a name").to_string_lossy().into_owned();
        let mut place = Command::new("unshare")
            .args([
                "--net",
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                "echo here; exec sleep infinity",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut out = place.stdout.take().expect("it is piped");
        let node = Node { dir, binary, place, cgroups: format!("/{name}"), flags: Vec::new(), up: None };
        assert!(line(&mut out, &mut String::new()).is_some(), "no namespaces");
        for arguments in NETWORK {
            node.ok("ip", &arguments.split(' ').collect::<Vec<_>>());
        }
        Some(node)
    }

    /// A place with busybox's image; `None` also where there is no busybox.
    pub fn with_busybox() -> Option<Node> {
        if !Path::new(images::BUSYBOX_PROGRAM).exists() {
            eprintln!("SKIPPED: no {}: install busybox-static", images::BUSYBOX_PROGRAM);
            return None;
        }
        let node = Node::new()?;
        let dir = tempfile::tempdir().expect("a directory");
        node.keelson_ok(&["image", "import", &images::busybox(dir.path()).to_string_lossy()]);
        Some(node)
    }

    /// A path below the node's directory.
    pub fn path(&self, sub: &str) -> PathBuf {
        self.dir.path().join(sub)
    }

    /// The process that is in the namespaces and does nothing.
    pub fn place(&self) -> u32 {
        self.place.id()
    }

    /// Moves the calling thread into the node's network.
    pub fn enter_network(&self) {
        let net = File::open(format!("/proc/{}/ns/net", self.place.id())).expect("the namespace");
        nix::sched::setns(net, nix::sched::CloneFlags::CLONE_NEWNET).expect("enter the network namespace");
    }

    /// A command in the node's namespaces.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg("--target")
            .arg(self.place.id().to_string())
            .args(["--net", "--mount", "--"])
            .arg(program);
        command
            .env("PATH", path())
            .env("KUBECONFIG", self.path("data/admin.kubeconfig"))
            .env("HOME", self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs a program that must succeed; gives its output.
    pub fn ok(&self, program: &str, arguments: &[&str]) -> String {
        succeeded(program, arguments, &self.command(program).args(arguments).output().expect(program))
    }

    /// `keelson` with this node's places.
    pub fn keelson(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&self.binary);
        for (flag, sub) in
            [("--data-dir", "data"), ("--run-dir", "run"), ("--kubelet-dir", "kubelet"), ("--log-dir", "log")]
        {
            command.arg(flag).arg(self.path(sub));
        }
        command.args(["--cgroup-root", &self.cgroups]).args(arguments);
        command
    }

    /// `keelson` with these arguments, which must succeed.
    pub fn keelson_ok(&self, arguments: &[&str]) -> String {
        succeeded("keelson", arguments, &self.keelson(arguments).output().expect("keelson"))
    }

    /// `kubectl` with these arguments, whatever comes of it.
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        // It gives up by itself, long before a test's patience ends.
        let limit = ["--request-timeout", "120s"];
        self.command("kubectl").args(limit).args(arguments).output().expect("kubectl")
    }

    /// `kubectl` with these arguments, which must succeed.
    pub fn kubectl_ok(&self, arguments: &[&str]) -> String {
        succeeded("kubectl", arguments, &self.kubectl(arguments))
    }

    /// `kubectl` with these arguments, which must fail; gives what it says.
    pub fn kubectl_refused(&self, arguments: &[&str]) -> String {
        let out = self.kubectl(arguments);
        assert!(!out.status.success(), "kubectl {arguments:?} succeeded: {}", text(&out.stdout));
        text(&out.stderr)
    }

    /// Makes the objects of a manifest.
    pub fn create(&self, manifest: &str) {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        std::io::Write::write_all(&mut file, manifest.as_bytes()).expect("write");
        self.kubectl_ok(&["create", "-f", &file.path().to_string_lossy()]);
    }

    /// What `kubectl get … -o json` shows.
    pub fn get(&self, arguments: &[&str]) -> Value {
        let all = [&["get", "-o", "json"], arguments].concat();
        serde_json::from_str(&self.kubectl_ok(&all)).expect("JSON")
    }

    /// Watches with `kubectl get … --watch` until a line satisfies `test`; gives that line.
    pub fn watch(&self, arguments: &[&str], test: impl Fn(&str) -> bool) -> String {
        self.follow(&[&["get", "--watch", "--no-headers"], arguments].concat(), test)
    }

    /// Reads what a `kubectl` that does not end says until a line satisfies `test`; gives that line.
    pub fn follow(&self, all: &[&str], test: impl Fn(&str) -> bool) -> String {
        let mut child = self.command("kubectl").args(all).stdout(Stdio::piped()).spawn().expect("kubectl");
        let mut out = child.stdout.take().expect("it is piped");
        let mut said = String::new();
        let found = loop {
            match line(&mut out, &mut said) {
                Some(line) if test(&line) => break Some(line),
                Some(_) => {}
                None => break None,
            }
        };
        child.kill().expect("kill kubectl");
        child.wait().expect("wait for kubectl");
        found.unwrap_or_else(|| panic!("not seen by kubectl {all:?}:\n{said}\n{}", self.logs()))
    }

    /// Imports the demo's image under the seeds' name.
    pub fn import_image(&self) {
        let archive = self.path("image.tar");
        self.keelson_ok(&["demo-image", &archive.to_string_lossy()]);
        self.keelson_ok(&["image", "import", &archive.to_string_lossy(), "--name", "wardviaene/k8s-demo"]);
        std::fs::remove_file(archive).expect("remove the archive");
    }

    /// Starts `keelson up` and waits until it has said `what`.
    pub fn up_until(&mut self, what: &str) {
        assert!(self.up.is_none(), "it runs already");
        let mut command = self.keelson(&["up", "--node-name", "n1"]);
        let mut child = command.args(&self.flags).stdout(Stdio::piped()).spawn().expect("keelson up");
        let out = child.stdout.take().expect("it is piped");
        let mut up = Up { child, out, said: String::new() };
        let found = up.wait_for(what);
        let said = up.said.clone();
        self.up = Some(up);
        assert!(found, "`keelson up` never said {what:?}:\n{said}\n{}", self.logs());
    }

    /// Starts `keelson up` and waits until the node is Ready.
    pub fn up(&mut self) {
        self.up_until("Ready. ");
    }

    /// Kills one of the cluster's two processes, `server` or `node`; the other and `up` end with it.
    pub fn kill_one(&mut self, component: &str) {
        let mut up = self.up.take().expect("it runs");
        let all = children(up.child.id());
        let is_it = |process: &&u32| {
            let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|argument| argument == component.as_bytes())
        };
        kill_process(*all.iter().find(is_it).expect("it runs"));
        let status = up.child.wait().expect("wait for `keelson up`");
        assert!(!status.success(), "`keelson up` does not say that its {component} was killed");
        all.into_iter().for_each(wait_gone);
    }

    /// Kills everything but the pods, at once.
    pub fn kill(&mut self) {
        let mut up = self.up.take().expect("it runs");
        let id = up.child.id();
        // The supervisor first: nobody is to notice the end of the others.
        let mut all = vec![id];
        all.extend(children(id));
        all.iter().copied().for_each(kill_process);
        up.child.wait().expect("wait for `keelson up`");
        // The others are init's children now.
        for process in &all[1..] {
            wait_gone(*process);
        }
    }

    /// `keelson down`.
    pub fn down(&mut self) -> String {
        let said = self.keelson_ok(&["down"]);
        if let Some(mut up) = self.up.take() {
            let status = up.child.wait().expect("wait for `keelson up`");
            assert!(status.success(), "`keelson up` ended badly: {status}");
        }
        said
    }

    /// The ends of the components' logs.
    pub fn logs(&self) -> String {
        let tail = |name: &str| {
            let log = std::fs::read_to_string(self.path(&format!("data/log/{name}.log"))).unwrap_or_default();
            let from = log.lines().count().saturating_sub(40);
            let lines: Vec<&str> = log.lines().skip(from).collect();
            format!("--- {name}\n{}\n", lines.join("\n"))
        };
        format!("{}{}", tail("server"), tail("node"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        if self.up.is_some() {
            self.kill();
        }
        let gone = self.keelson(&["down"]).output();
        if !gone.as_ref().is_ok_and(|out| out.status.success()) {
            eprintln!("`keelson down` did not succeed: {gone:?}");
        }
        if let Err(err) = self.place.kill().and_then(|()| self.place.wait()) {
            eprintln!("the test's namespaces stay: {err}");
        }
    }
}

// === impl Up ===

impl Up {
    /// Reads on until `what` was said; `false` if it ended or took too long.
    fn wait_for(&mut self, what: &str) -> bool {
        while let Some(line) = line(&mut self.out, &mut self.said) {
            if line.contains(what) {
                return true;
            }
        }
        false
    }
}

/// One line, without its end; `None` when there will be none, or none comes in time. `said` collects them.
pub fn line(out: &mut ChildStdout, said: &mut String) -> Option<String> {
    let mut line = Vec::new();
    loop {
        let mut fds = [PollFd::new(out.as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(PATIENCE).expect("minutes fit");
        if poll(&mut fds, limit).expect("poll") == 0 {
            return None;
        }
        let mut byte = [0];
        match nix::unistd::read(out.as_fd(), &mut byte).expect("read") {
            0 => return None,
            _ if byte[0] == b'\n' => break,
            _ => line.push(byte[0]),
        }
    }
    let line = text(&line);
    said.push_str(&line);
    said.push('\n');
    Some(line)
}

/// Fails where there is not enough of it.
fn room_on_the_disk() {
    let disk = nix::sys::statvfs::statvfs("/tmp").expect("a file system");
    let free = disk.blocks_available() * 100 / disk.blocks().max(1);
    assert!(
        free >= DISK_PERCENT_LEAST,
        "NO ROOM ON THE DISK: {free} % of /tmp's is free, and {DISK_PERCENT_LEAST} % must be: with less, nodes are under \
         disk pressure and take no pods. Nothing is wrong with what is tested."
    );
}

/// The binary under test.
fn binary() -> Option<PathBuf> {
    if let Some(given) = std::env::var_os("KEELSON_BINARY") {
        return Some(given.into());
    }
    // target/<triple>/debug/deps/node-…
    let own = std::env::current_exe().ok()?;
    let built = own.parent()?.parent()?.join("keelson");
    built.exists().then_some(built)
}

/// Where programs are looked for: what root needs is not on every user's path.
fn path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

fn on_path(program: &str) -> bool {
    std::env::split_paths(&path()).any(|dir| dir.join(program).exists())
}

/// What a process has started.
pub fn children(process: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    children.unwrap_or_default().split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

/// `kill -9`.
pub fn kill_process(process: u32) {
    let end = kill(Pid::from_raw(i32::try_from(process).expect("an id")), Signal::SIGKILL);
    assert!(matches!(end, Ok(()) | Err(nix::Error::ESRCH)), "kill {process}: {end:?}");
}

/// Waits for the end of a process that is no child of ours; whether init takes note of it does not matter. Its first
/// thread may have ended while others still hold its files and locks.
pub fn wait_gone(process: u32) {
    let until = base::time::instant() + PATIENCE;
    let ended = |stat: String| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X']));
    let threads = || std::fs::read_dir(format!("/proc/{process}/task")).map_or(0, Iterator::count);
    while std::fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|s| !ended(s)) || threads() > 1 {
        assert!(base::time::instant() < until, "process {process} stays");
        std::thread::yield_now();
    }
}

fn succeeded(program: &str, arguments: &[&str], out: &Output) -> String {
    assert!(
        out.status.success(),
        "{program} {arguments:?}: {}\n{}{}",
        out.status,
        text(&out.stdout),
        text(&out.stderr)
    );
    text(&out.stdout)
}

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
