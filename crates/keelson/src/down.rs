//! `keelson down` and `keelson reset`: the host as it was before.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime::{Embedded, Runtime as _};

use crate::layout::Layout;
use crate::{node, steps, up};

/// How long the running cluster may take to end.
const END_MAX: Duration = Duration::from_secs(30);
/// How long each pod's containers may take to end.
const POD_GRACE: Duration = Duration::from_secs(5);

/// Stops the cluster and its pods, and takes away interfaces, rules, mounts and control groups.
///
/// # Errors
/// The first failure; the rest has been tried.
pub async fn down(layout: &Layout) -> anyhow::Result<()> {
    let begun = base::time::instant();
    if let Some(pid) = up::running(layout)? {
        end(pid).await.context("end the running cluster")?;
        steps::show("processes", &format!("ended `keelson up` ({pid})"), begun.elapsed());
    }
    take_away(layout, true).await
}

/// Takes away what the node made on this machine; nothing of the cluster runs.
///
/// # Errors
/// The first failure; the rest has been tried.
pub async fn take_away(layout: &Layout, show: bool) -> anyhow::Result<()> {
    let tell = |name: &str, what: &str, since: base::time::Instant| {
        if show {
            steps::show(name, what, since.elapsed());
        }
    };
    let begun = base::time::instant();
    let pods = if layout.runtime().exists() { pods(layout).await } else { Ok(0) };
    tell("pods", &format!("{} stopped", pods.as_ref().map_or(0, |n| *n)), begun);
    let begun = base::time::instant();
    let network = node::network::take_away(layout).await;
    tell("network", "interfaces, rules and settings", begun);
    let begun = base::time::instant();
    let mounts = unmount_below(&[&layout.run, &layout.kubelet, &layout.data]);
    let files = remove_dirs(&[&layout.run, &layout.kubelet.join("pods")]);
    let logs = remove_logs(layout);
    // What others keep there stays.
    let kubelet = remove_if_empty(&layout.kubelet);
    tell("files", "mounts, sockets and pods' volumes", begun);
    pods.map(|_| ()).and(network).and(mounts).and(files).and(logs).and(kubelet)
}

/// `down`, then the data goes too.
///
/// # Errors
/// Without `--yes`, or when something cannot be removed.
pub async fn reset(layout: &Layout, yes: bool) -> anyhow::Result<()> {
    if !yes {
        bail!(
            "this removes the whole cluster in {}: say `keelson reset --yes` if that is meant",
            layout.data.display()
        );
    }
    down(layout).await?;
    let begun = base::time::instant();
    remove_dirs(&[&layout.data])?;
    steps::show("data", &format!("removed {}", layout.data.display()), begun.elapsed());
    Ok(())
}

async fn end(pid: i32) -> anyhow::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{PidfdFlags, pidfd_open};
    let process = rustix::process::Pid::from_raw(pid).context("a process id")?;
    let exit = match pidfd_open(process, PidfdFlags::empty()) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(err) => return Err(err.into()),
    };
    kill(Pid::from_raw(pid), Signal::SIGTERM)?;
    // Readable once the process has ended.
    let ended = base::task::blocking(move || {
        let mut fds = [PollFd::new(&exit, PollFlags::IN)];
        let limit = Timespec::try_from(END_MAX).expect("seconds fit");
        poll(&mut fds, Some(&limit))
    });
    if ended.await? == 0 {
        bail!("process {pid} does not end; `kill -9 {pid}` and try again");
    }
    Ok(())
}

async fn pods(layout: &Layout) -> anyhow::Result<usize> {
    let runtime = Embedded::open(layout.runtime(), layout.run.join("runtime"), node::runtime_options(layout))
        .await
        .context("open the container engine")?;
    let containers = runtime.list_containers().await?;
    let mut stopping = Vec::new();
    for container in containers {
        let (runtime, id) = (runtime.clone(), container.id.clone());
        stopping.push(base::task::spawn(async move { runtime.stop_container(&id, POD_GRACE).await }));
    }
    for task in stopping {
        if let Err(err) = task.await {
            tracing::warn!(%err, "stop container");
        }
    }
    let pods = runtime.list_pod_sandboxes().await?.len();
    runtime.tear_down().await.context("remove pods")?;
    Ok(pods)
}

/// Unmounts everything below these directories, the deepest first.
fn unmount_below(dirs: &[&Path]) -> anyhow::Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("read the mount table")?;
    let mut points: Vec<String> =
        table.lines().filter_map(|line| line.split(' ').nth(4).map(unescape)).collect();
    points.retain(|point| dirs.iter().any(|dir| Path::new(point).starts_with(dir)));
    points.reverse();
    let mut result = Ok(());
    for point in points {
        let unmounted = nix::mount::umount2(Path::new(&point), nix::mount::MntFlags::MNT_DETACH);
        result = result.and(unmounted.with_context(|| format!("unmount {point}")));
    }
    result
}

/// The kernel writes blanks and the like in mount points as `\040`.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|d| u8::from_str_radix(d, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out + rest
}

fn remove_dirs(dirs: &[&Path]) -> anyhow::Result<()> {
    let mut result = Ok(());
    for dir in dirs {
        match fs::remove_dir_all(dir) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                result = result.and(Err(err).with_context(|| format!("remove {}", dir.display())));
            }
            _ => {}
        }
    }
    result
}

/// Removes the pods' logs, and the directories if they are empty then: others may log there too.
fn remove_logs(layout: &Layout) -> anyhow::Result<()> {
    let (pods, containers) = (layout.log.join("pods"), layout.log.join("containers"));
    remove_dirs(&[&pods])?;
    let Ok(links) = fs::read_dir(&containers) else { return Ok(()) };
    for link in links.flatten() {
        let ours = fs::read_link(link.path()).is_ok_and(|target| target.starts_with(&pods));
        if ours {
            fs::remove_file(link.path()).with_context(|| format!("remove {}", link.path().display()))?;
        }
    }
    remove_if_empty(&containers)
}

fn remove_if_empty(dir: &Path) -> anyhow::Result<()> {
    use std::io::ErrorKind::{DirectoryNotEmpty, NotFound};
    match fs::remove_dir(dir) {
        Err(err) if !matches!(err.kind(), DirectoryNotEmpty | NotFound) => {
            Err(err).with_context(|| format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(super::unescape(r"/a\040b\134c"), r"/a b\c");
    }
}
