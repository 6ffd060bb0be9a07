//! Control groups version 1: one tree per controller.
//!
//! Upstream: runc's libcontainer/cgroups/fs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::cgroups::{Hierarchy, Scope, children, named, set};
use crate::LinuxContainerResources;

/// The controllers that limit or kill containers. The others' groups stay those of the shims.
const CONTAINER_CONTROLLERS: &[&str] = &["cpu", "cpuacct", "memory", "devices", "freezer", "pids"];
/// How often a group's processes are listed and killed before the rest is left to the caller.
const KILL_ROUNDS_MAX: usize = 10;
/// What every container may use, besides making (not using) any node: null, zero, full, random, urandom, tty,
/// console, ptmx, pts. Source: runc's `AllowedDevices`.
const ALLOWED_DEVICES: &[&str] = &[
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// Whether a group of `scope` has a directory in this hierarchy.
pub fn in_scope(hierarchy: &Hierarchy, scope: Scope) -> bool {
    scope == Scope::Everything
        || hierarchy.controllers.iter().any(|c| CONTAINER_CONTROLLERS.contains(&c.as_str()))
}

/// The directory of `path` in the hierarchy of `controller`.
pub fn dir_of(all: &[Hierarchy], controller: &str, path: &Path) -> Option<PathBuf> {
    all.iter().find(|h| h.controllers.iter().any(|c| c == controller)).map(|h| h.mount.join(path))
}

/// Makes the group and its ancestors in every hierarchy of `scope`, with limits.
///
/// # Errors
/// When a directory cannot be made or a limit is refused.
pub fn create(
    all: &[Hierarchy],
    path: &Path,
    resources: &LinuxContainerResources,
    scope: Scope,
) -> io::Result<()> {
    for hierarchy in all.iter().filter(|h| in_scope(h, scope)) {
        let dir = hierarchy.mount.join(path);
        fs::create_dir_all(&dir).map_err(|e| named(e, &dir))?;
        if hierarchy.controllers.iter().any(|c| c == "cpuset") {
            fill_cpuset(&hierarchy.mount, path)?;
        }
    }
    for (controller, file, value) in render(resources) {
        let Some(dir) = dir_of(all, controller, path) else {
            return Err(io::Error::other(format!("this machine has no {controller} controller for {file}")));
        };
        match set(&dir.join(file), &value) {
            // Swap accounting is often not built in; without swap the limit of memory alone is the same.
            Err(e) if e.kind() == io::ErrorKind::NotFound && file.contains("memsw") => {}
            other => other?,
        }
    }
    Ok(())
}

/// The control files for `resources`: controller, file, value.
pub fn render(r: &LinuxContainerResources) -> Vec<(&'static str, &'static str, String)> {
    let mut out = Vec::new();
    if r.cpu_shares != 0 {
        out.push(("cpu", "cpu.shares", r.cpu_shares.clamp(2, 262_144).to_string()));
    }
    if r.cpu_quota > 0 {
        let period = if r.cpu_period == 0 { 100_000 } else { r.cpu_period };
        out.push(("cpu", "cpu.cfs_period_us", period.to_string()));
        out.push(("cpu", "cpu.cfs_quota_us", r.cpu_quota.to_string()));
    }
    if r.cpu_quota == -1 && r.cpu_period == 0 {
        out.push(("cpu", "cpu.cfs_quota_us", "-1".to_owned()));
    }
    if r.memory_limit_in_bytes != 0 {
        out.push(("memory", "memory.limit_in_bytes", r.memory_limit_in_bytes.to_string()));
        out.push(("memory", "memory.memsw.limit_in_bytes", r.memory_limit_in_bytes.to_string()));
    }
    if r.pids_limit > 0 {
        out.push(("pids", "pids.max", r.pids_limit.to_string()));
    }
    out
}

/// Denies all devices but those of every container.
///
/// # Errors
/// When a rule is refused.
pub fn restrict_devices(all: &[Hierarchy], path: &Path) -> io::Result<()> {
    let Some(dir) = dir_of(all, "devices", path) else { return Ok(()) };
    set(&dir.join("devices.deny"), "a")?;
    ALLOWED_DEVICES.iter().try_for_each(|rule| set(&dir.join("devices.allow"), rule))
}

/// Freezes the group, kills what is in it, thaws it: nothing can fork its way out between listing and killing.
///
/// # Errors
/// When the group exists and cannot be read.
pub fn kill(all: &[Hierarchy], path: &Path) -> io::Result<()> {
    let Some(dir) = dir_of(all, "freezer", path) else {
        return Err(io::Error::other("this machine has no freezer controller"));
    };
    if !dir.exists() {
        return Ok(());
    }
    set(&dir.join("freezer.state"), "FROZEN")?;
    let mut result = Ok(());
    for _ in 0..KILL_ROUNDS_MAX {
        match signal_tree(&dir) {
            Ok(0) => break,
            Ok(_) if fs::read_to_string(dir.join("freezer.state")).is_ok_and(|s| s.trim() == "FROZEN") => {
                break;
            }
            Ok(_) => {}
            Err(e) => {
                result = Err(e);
                break;
            }
        }
    }
    set(&dir.join("freezer.state"), "THAWED")?;
    result
}

/// Kills the processes listed in the group and below it, and says how many there were.
fn signal_tree(dir: &Path) -> io::Result<usize> {
    let mut count = 0;
    for child in children(dir)? {
        count += signal_tree(&child)?;
    }
    let file = dir.join("cgroup.procs");
    for line in fs::read_to_string(&file).map_err(|e| named(e, &file))?.lines() {
        let pid = line.parse::<i32>().ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            count += 1;
            match rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
    Ok(count)
}

/// A new cpuset group is empty, and no process may enter it: each takes its parent's, from the top.
fn fill_cpuset(mount: &Path, path: &Path) -> io::Result<()> {
    let mut at = mount.to_owned();
    for name in path {
        let parent = at.clone();
        at.push(name);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let own = fs::read_to_string(at.join(file)).map_err(|e| named(e, &at))?;
            if own.trim().is_empty() {
                let inherited = fs::read_to_string(parent.join(file)).map_err(|e| named(e, &parent))?;
                set(&at.join(file), inherited.trim())?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_files() {
        let r = LinuxContainerResources {
            cpu_shares: 1,
            cpu_quota: 50_000,
            memory_limit_in_bytes: 1 << 20,
            pids_limit: 10,
            ..Default::default()
        };
        let lines: Vec<_> = render(&r).into_iter().map(|(c, f, v)| format!("{c} {f}={v}")).collect();
        assert_eq!(
            lines,
            [
                "cpu cpu.shares=2",
                "cpu cpu.cfs_period_us=100000",
                "cpu cpu.cfs_quota_us=50000",
                "memory memory.limit_in_bytes=1048576",
                "memory memory.memsw.limit_in_bytes=1048576",
                "pids pids.max=10",
            ]
        );
        let none = LinuxContainerResources { cpu_quota: -1, memory_limit_in_bytes: -1, ..Default::default() };
        let lines: Vec<_> = render(&none).into_iter().map(|(_, f, v)| format!("{f}={v}")).collect();
        let want = ["cpu.cfs_quota_us=-1", "memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1"];
        assert_eq!(lines, want);
    }
}
