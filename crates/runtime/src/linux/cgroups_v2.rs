//! Control groups version 2: one tree.
//!
//! Upstream: runc's libcontainer/cgroups/fs2.

use std::fs;
use std::io;
use std::path::Path;

use super::cgroups::{named, set};
use crate::LinuxContainerResources;

/// The controllers that limits need, switched on along the path where the machine has them.
const CONTROLLERS: &[&str] = &["cpu", "memory", "pids", "cpuset", "io"];

/// Makes the group and its ancestors, with controllers switched on down to it, and limits.
///
/// # Errors
/// When a directory cannot be made or a limit is refused.
pub fn create(mount: &Path, path: &Path, resources: &LinuxContainerResources) -> io::Result<()> {
    let mut at = mount.to_owned();
    for name in path {
        let available = fs::read_to_string(at.join("cgroup.controllers")).map_err(|e| named(e, &at))?;
        let switched = fs::read_to_string(at.join("cgroup.subtree_control")).map_err(|e| named(e, &at))?;
        let wanted = enable(&available, &switched);
        if !wanted.is_empty() {
            set(&at.join("cgroup.subtree_control"), &wanted)?;
        }
        at.push(name);
        match fs::create_dir(&at) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(named(e, &at)),
            _ => {}
        }
    }
    for (file, value) in render(resources) {
        match set(&at.join(file), &value) {
            // Without swap accounting there is no such file, and nothing to limit.
            Err(e) if e.kind() == io::ErrorKind::NotFound && file == "memory.swap.max" => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(io::Error::other(format!("this machine has no controller for {file}")));
            }
            other => other?,
        }
    }
    Ok(())
}

/// The control files for `resources`: file, value.
pub fn render(r: &LinuxContainerResources) -> Vec<(&'static str, String)> {
    let mut out = Vec::new();
    if r.cpu_shares != 0 {
        out.push(("cpu.weight", weight(r.cpu_shares).to_string()));
    }
    if r.cpu_quota > 0 {
        let period = if r.cpu_period == 0 { 100_000 } else { r.cpu_period };
        out.push(("cpu.max", format!("{} {period}", r.cpu_quota)));
    }
    if r.cpu_quota == -1 {
        out.push(("cpu.max", "max".to_owned()));
    }
    if r.memory_limit_in_bytes == -1 {
        out.push(("memory.max", "max".to_owned()));
    }
    if r.memory_limit_in_bytes > 0 {
        out.push(("memory.max", r.memory_limit_in_bytes.to_string()));
        out.push(("memory.swap.max", "0".to_owned()));
        // All of a container or none of it, as the kubelet asks for on version 2.
        out.push(("memory.oom.group", "1".to_owned()));
    }
    if r.pids_limit > 0 {
        out.push(("pids.max", r.pids_limit.to_string()));
    }
    out
}

/// Kills all processes in the group and below.
///
/// # Errors
/// When the kernel refuses; a group that does not exist is a success.
pub fn kill(mount: &Path, path: &Path) -> io::Result<()> {
    match set(&mount.join(path).join("cgroup.kill"), "1") {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Shares 2..262144 to weight 1..10000. Source: KEP-2254.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn enable(available: &str, switched: &str) -> String {
    let has = |list: &str, c: &str| list.split_whitespace().any(|x| x == c);
    let missing = CONTROLLERS.iter().filter(|c| has(available, c) && !has(switched, c));
    missing.map(|c| format!("+{c}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_files() {
        let r = LinuxContainerResources {
            cpu_shares: 1024,
            cpu_quota: 50_000,
            cpu_period: 200_000,
            memory_limit_in_bytes: 1 << 20,
            pids_limit: 10,
            ..Default::default()
        };
        let lines: Vec<_> = render(&r).into_iter().map(|(f, v)| format!("{f}={v}")).collect();
        assert_eq!(
            lines,
            [
                "cpu.weight=39",
                "cpu.max=50000 200000",
                "memory.max=1048576",
                "memory.swap.max=0",
                "memory.oom.group=1",
                "pids.max=10",
            ]
        );
        assert_eq!((weight(2), weight(262_144)), (1, 10_000));
    }

    #[test]
    fn only_missing_controllers_are_switched_on() {
        assert_eq!(enable("cpuset cpu memory pids misc", "memory"), "+cpu +pids +cpuset");
    }
}
