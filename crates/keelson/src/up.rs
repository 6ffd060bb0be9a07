//! `keelson up`: supervises this machine's two processes, and tells people what they do.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::cli::Cluster;
use crate::layout::Layout;
use crate::steps::{self, Said};

/// How long a component may take to end before it is killed. Pods are not concerned: they have processes of
/// their own.
const END_MAX: Duration = Duration::from_secs(10);
/// How much of a failed component's log is shown, in bytes.
const LOG_TAIL_BYTES: u64 = 4096;

/// Starts the cluster and stays until it is told to end.
///
/// # Errors
/// When it runs already, a component fails to start, or one ends unasked.
pub async fn up(layout: &Layout, cluster: &Cluster) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("containers and networks need root: run `sudo keelson up`");
    }
    println!("keelson {}\n", apiserver::version::GIT_VERSION);
    let mut running = Running::start(layout, cluster, true).await?;
    println!(
        "\n  Ready. In another terminal:\n\n    export KUBECONFIG={}\n    kubectl get nodes\n\n  Ctrl-C stops the cluster and leaves its pods running; `keelson down` stops them too.",
        layout.admin_kubeconfig().display()
    );
    crate::install::notify_ready().context("tell systemd that the cluster is ready")?;
    running.until_asked().await
}

/// The running processes of this machine.
pub struct Running {
    server: Component,
    node: Component,
    // Held for as long as the cluster runs: a second `up` finds it locked.
    _lock: File,
}

struct Component {
    name: &'static str,
    child: Child,
    // Its end is how the component notices that we are gone; waiting for the child would close it if it were left there.
    _alive: ChildStdin,
    log: std::path::PathBuf,
}

impl Running {
    /// Starts both processes and waits until both are ready, showing each step if `show`.
    ///
    /// # Errors
    /// When another `up` runs, or a component ends before it is ready; its last words are in the error.
    pub async fn start(layout: &Layout, cluster: &Cluster, show: bool) -> anyhow::Result<Running> {
        let lock = lock(layout)?;
        let (mut server, said) = Component::spawn("server", layout, cluster)?;
        server.wait_ready(said, show).await?;
        let (mut node, said) = Component::spawn("node", layout, cluster)?;
        node.wait_ready(said, show).await?;
        Ok(Running { server, node, _lock: lock })
    }

    /// Waits for SIGINT or SIGTERM, then ends both processes; or for the end of one of them.
    ///
    /// # Errors
    /// When a process ends unasked.
    pub async fn until_asked(&mut self) -> anyhow::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let failed = base::select! {
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
            status = self.server.child.wait() => Some(self.server.last_words(status?)),
            status = self.node.child.wait() => Some(self.node.last_words(status?)),
        };
        self.end().await?;
        failed.map_or(Ok(()), Err)
    }

    /// Ends both processes, the node first. Pods go on.
    ///
    /// # Errors
    /// When a process cannot be signalled or waited for.
    pub async fn end(&mut self) -> anyhow::Result<()> {
        self.node.end().await?;
        self.server.end().await
    }
}

impl Component {
    fn spawn(
        name: &'static str,
        layout: &Layout,
        cluster: &Cluster,
    ) -> anyhow::Result<(Component, mpsc::Receiver<Said>)> {
        let log = layout.component_log(name);
        make_dir(log.parent().context("a log has a directory")?, 0o700)?;
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&log)
            .with_context(|| format!("open {}", log.display()))?;
        let exe = std::env::current_exe().context("find this program")?;
        let mut child = Command::new(exe)
            .args(layout.arguments())
            .arg(name)
            .args(cluster.arguments())
            .args((name == "server").then_some("--child"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start the {name} process"))?;
        let out = child.stdout.take().context("its output is piped")?;
        let alive = child.stdin.take().context("its input is piped")?;
        let (say, said) = mpsc::channel(64);
        base::task::spawn(async move {
            let mut lines = BufReader::new(out).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(said) = steps::parse(&line)
                    && say.send(said).await.is_err()
                {
                    // Nobody shows steps any more; go on reading so that the component never blocks.
                }
            }
        })
        .detach();
        Ok((Component { name, child, _alive: alive, log }, said))
    }

    async fn wait_ready(&mut self, mut said: mpsc::Receiver<Said>, show: bool) -> anyhow::Result<()> {
        loop {
            let next = base::select! {
                next = said.recv() => next,
                status = self.child.wait() => return Err(self.last_words(status?)),
            };
            match next {
                Some(Said::Step { after, name, what }) if show => steps::show(&name, &what, after),
                Some(Said::Step { .. }) => {}
                Some(Said::Ready) => return Ok(()),
                None => {
                    let status = self.child.wait().await?;
                    return Err(self.last_words(status));
                }
            }
        }
    }

    /// Why it ended, with the end of its log.
    fn last_words(&self, status: std::process::ExitStatus) -> anyhow::Error {
        let tail = tail(&self.log).unwrap_or_default();
        anyhow::anyhow!(
            "the {} process ended ({status}); the end of {}:\n{tail}",
            self.name,
            self.log.display()
        )
    }

    async fn end(&mut self) -> anyhow::Result<()> {
        let Some(id) = self.child.id() else { return Ok(()) };
        let pid = nix::unistd::Pid::from_raw(i32::try_from(id).context("a process id")?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)
            .with_context(|| format!("end the {} process", self.name))?;
        if let Ok(status) = base::time::timeout(END_MAX, self.child.wait()).await {
            status.with_context(|| format!("wait for the {} process", self.name))?;
            return Ok(());
        }
        tracing::warn!(process = self.name, "did not end in time and is killed");
        self.child.kill().await.with_context(|| format!("kill the {} process", self.name))
    }
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(std::io::SeekFrom::Start(len.saturating_sub(LOG_TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Makes a directory and those above it.
pub fn make_dir(path: &Path, mode: u32) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .with_context(|| format!("make {}", path.display()))
}

/// Takes the lock of this machine's cluster.
fn lock(layout: &Layout) -> anyhow::Result<File> {
    make_dir(&layout.run, 0o755)?;
    make_dir(&layout.data, 0o755)?;
    let path = layout.lock();
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    if file.try_lock().is_err() {
        let mut pid = String::new();
        file.read_to_string(&mut pid)?;
        bail!(
            "keelson is running already (process {}); `keelson status` shows it, `keelson down` stops it",
            pid.trim()
        );
    }
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

/// The process id of the running `up`, if there is one.
pub fn running(layout: &Layout) -> anyhow::Result<Option<i32>> {
    let Ok(mut file) = File::open(layout.lock()) else { return Ok(None) };
    if file.try_lock_shared().is_ok() {
        return Ok(None);
    }
    let mut pid = String::new();
    file.read_to_string(&mut pid)?;
    Ok(Some(pid.trim().parse().with_context(|| format!("{} holds no process id", layout.lock().display()))?))
}
