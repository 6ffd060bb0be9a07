//! Control groups: which kind this machine has, and the operations that both kinds share.
//!
//! Paths are those of the caller (`/kubepods/burstable/pod…`), below a root prefix, so that several nodes fit on
//! one machine. Version 1 counts where the memory controller is mounted as version 1, whatever cgroup2 tree
//! lies beside it. Upstream: runc's libcontainer/cgroups.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::{cgroups_v1, cgroups_v2};
use crate::LinuxContainerResources;

/// How often a removal is tried again while the kernel still takes the last process away.
const REMOVE_TRIES_MAX: u32 = 200;

/// This machine's control groups, below one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroups {
    layout: Layout,
    root: PathBuf,
}

/// How control groups are mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Version 1: each tree with its controllers. Version 2 beside it, if any, has the name `unified`.
    V1(Vec<Hierarchy>),
    /// Version 2: where it is mounted.
    V2(PathBuf),
}

/// One tree of version 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its controllers, or `name=…`, or `unified`.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
}

/// Which hierarchies a group is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those that limit or kill containers.
    Container,
    /// All of them: for the shims, which must leave every group of the process that started them.
    Everything,
}

impl Cgroups {
    /// Finds out what this machine has.
    ///
    /// # Errors
    /// When no control groups are mounted, or `root` holds `..`.
    pub fn detect(root: &str) -> io::Result<Cgroups> {
        let layout = parse_mountinfo(&fs::read_to_string("/proc/self/mountinfo")?)
            .ok_or_else(|| io::Error::other("no control groups are mounted"))?;
        Ok(Cgroups { layout, root: relative(root)? })
    }

    /// How they are mounted.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Makes a group and its ancestors, with limits.
    ///
    /// # Errors
    /// When a directory cannot be made or a limit is refused.
    pub fn create(&self, path: &str, resources: &LinuxContainerResources, scope: Scope) -> io::Result<()> {
        let path = self.path(path)?;
        match &self.layout {
            Layout::V1(all) => cgroups_v1::create(all, &path, resources, scope),
            Layout::V2(mount) => cgroups_v2::create(mount, &path, resources),
        }
    }

    /// Changes the limits of a group that exists.
    ///
    /// # Errors
    /// When a limit is refused, as one of memory is that is below what is used.
    pub fn update(&self, path: &str, resources: &LinuxContainerResources) -> io::Result<()> {
        let path = self.path(path)?;
        let files: Vec<(PathBuf, String)> = match &self.layout {
            Layout::V1(all) => cgroups_v1::render(resources)
                .into_iter()
                .filter_map(|(controller, file, value)| {
                    Some((cgroups_v1::dir_of(all, controller, &path)?.join(file), value))
                })
                .collect(),
            Layout::V2(mount) => cgroups_v2::render(resources)
                .into_iter()
                .map(|(f, v)| (mount.join(&path).join(f), v))
                .collect(),
        };
        // Version 1 wants memory below memory and swap at every moment: what is refused is tried after the others.
        let refused: Vec<_> = files.iter().filter(|(file, value)| set(file, value).is_err()).collect();
        for (file, value) in refused {
            match set(file, value) {
                Err(e) if e.kind() == io::ErrorKind::NotFound && is_swap(file) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Bytes of memory in use that are not only a copy of files not used lately. Source: cadvisor's working set.
    pub fn working_set(&self, path: &str) -> u64 {
        let Ok(path) = self.path(path) else { return 0 };
        let (dir, usage, inactive) = match &self.layout {
            Layout::V1(all) => match cgroups_v1::dir_of(all, "memory", &path) {
                Some(dir) => (dir, "memory.usage_in_bytes", "total_inactive_file"),
                None => return 0,
            },
            Layout::V2(mount) => (mount.join(path), "memory.current", "inactive_file"),
        };
        let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
        let used: u64 = read(usage).trim().parse().unwrap_or(0);
        used.saturating_sub(flat_key(&read("memory.stat"), inactive).unwrap_or(0))
    }

    /// Lets the group use only the devices that every container has.
    ///
    /// # Errors
    /// When the kernel refuses a rule. Version 2 has no such file: there mounts without devices do it alone.
    pub fn restrict_devices(&self, path: &str) -> io::Result<()> {
        match &self.layout {
            Layout::V1(all) => cgroups_v1::restrict_devices(all, &self.path(path)?),
            Layout::V2(_) => Ok(()),
        }
    }

    /// Moves a process into a group; 0 is the calling one.
    ///
    /// # Errors
    /// When the group does not exist or is full, or the process is gone.
    pub fn add(&self, path: &str, scope: Scope, pid: i32) -> io::Result<()> {
        self.dirs(path, scope)?.iter().try_for_each(|dir| set(&dir.join("cgroup.procs"), &pid.to_string()))
    }

    /// Kills every process in the group and below it. What is being started there dies too.
    ///
    /// # Errors
    /// When the group cannot be read; one that does not exist is a success.
    pub fn kill(&self, path: &str) -> io::Result<()> {
        let path = self.path(path)?;
        match &self.layout {
            Layout::V1(all) => cgroups_v1::kill(all, &path),
            Layout::V2(mount) => cgroups_v2::kill(mount, &path),
        }
    }

    /// Removes the group and everything below it, in every hierarchy. All processes must be gone or going.
    ///
    /// # Errors
    /// When a process stays in it.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        for dir in self.dirs(path, Scope::Everything)? {
            remove_tree(&dir)?;
        }
        Ok(())
    }

    /// Removes every empty group below the prefix, and the prefix itself if there is one.
    ///
    /// # Errors
    /// When a process stays in one.
    pub fn remove_root(&self) -> io::Result<()> {
        if self.root.as_os_str().is_empty() {
            // Without a prefix only what this engine makes by name is its own.
            return self.remove("/shims").and_then(|()| self.remove("/kubepods"));
        }
        // The prefix, seen from itself, is the empty path.
        self.remove("/")
    }

    /// How many processes of the group the kernel has killed for want of memory.
    pub fn oom_kills(&self, path: &str) -> u64 {
        let Ok(path) = self.path(path) else { return 0 };
        let (file, key) = match &self.layout {
            Layout::V1(all) => match cgroups_v1::dir_of(all, "memory", &path) {
                Some(dir) => (dir.join("memory.oom_control"), "oom_kill"),
                None => return 0,
            },
            Layout::V2(mount) => (mount.join(path).join("memory.events"), "oom_kill"),
        };
        flat_key(&fs::read_to_string(file).unwrap_or_default(), key).unwrap_or(0)
    }

    /// The group's directory in each hierarchy of `scope`.
    ///
    /// # Errors
    /// When `path` holds `..`.
    pub fn dirs(&self, path: &str, scope: Scope) -> io::Result<Vec<PathBuf>> {
        let path = self.path(path)?;
        Ok(match &self.layout {
            Layout::V1(all) => {
                all.iter().filter(|h| cgroups_v1::in_scope(h, scope)).map(|h| h.mount.join(&path)).collect()
            }
            Layout::V2(mount) => vec![mount.join(&path)],
        })
    }

    fn path(&self, path: &str) -> io::Result<PathBuf> {
        Ok(self.root.join(relative(path)?))
    }
}

/// An error with the file it is about.
pub(super) fn named(e: io::Error, path: &Path) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {e}", path.display()))
}

/// Writes one control file, which must exist: asked to make one, the kernel would say "permission denied".
pub(super) fn set(file: &Path, value: &str) -> io::Result<()> {
    use std::io::Write;
    let written = fs::File::options().write(true).open(file).and_then(|mut f| f.write_all(value.as_bytes()));
    written.map_err(|e| io::Error::new(e.kind(), format!("write {value:?} to {}: {e}", file.display())))
}

fn is_swap(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name == "memory.swap.max" || name == "memory.memsw.limit_in_bytes")
}

/// The directories below `dir`.
pub(super) fn children(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(out),
        Err(e) => return Err(named(e, dir)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| named(e, dir))?;
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            out.push(entry.path());
        }
    }
    Ok(out)
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for child in children(dir)? {
        remove_tree(&child)?;
    }
    let mut tries = 0;
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            // A killed process leaves its group a moment after it was reaped, and version 1 tells nobody when.
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && tries < REMOVE_TRIES_MAX => {
                tries += 1;
                std::thread::sleep(std::time::Duration::from_millis(u64::from(tries.min(10))));
            }
            Err(e) => return Err(named(e, dir)),
        }
    }
}

fn relative(path: &str) -> io::Result<PathBuf> {
    let mut out = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::RootDir | Component::CurDir => {}
            _ => return Err(io::Error::other(format!("control group path {path:?} holds .."))),
        }
    }
    Ok(out)
}

/// The value of `key` in lines of `key value`.
fn flat_key(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

fn parse_mountinfo(text: &str) -> Option<Layout> {
    let mut v1: Vec<Hierarchy> = Vec::new();
    let mut v2 = None;
    for line in text.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let Some(mount) = before.split(' ').nth(4) else { continue };
        let mount = PathBuf::from(mount.replace("\\040", " "));
        let mut after = after.split(' ');
        match after.next() {
            Some("cgroup2") if v2.is_none() => v2 = Some(mount),
            Some("cgroup") => {
                let controllers: Vec<String> = after
                    .nth(1)
                    .unwrap_or_default()
                    .split(',')
                    .filter(|o| CONTROLLERS.contains(o) || o.starts_with("name="))
                    .map(str::to_owned)
                    .collect();
                // The same tree may be mounted twice; the first is as good.
                if !controllers.is_empty() && !v1.iter().any(|h| h.controllers == controllers) {
                    v1.push(Hierarchy { controllers, mount });
                }
            }
            _ => {}
        }
    }
    if v1.iter().any(|h| h.controllers.iter().any(|c| c == "memory")) {
        v1.extend(v2.map(|mount| Hierarchy { controllers: vec!["unified".to_owned()], mount }));
        return Some(Layout::V1(v1));
    }
    v2.map(Layout::V2)
}

const CONTROLLERS: &[&str] = &[
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "net_cls",
    "net_prio",
    "perf_event",
    "hugetlb",
    "rdma",
    "misc",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_tell_the_layout() {
        let v2 = "25 1 0:23 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(parse_mountinfo(v2), Some(Layout::V2("/sys/fs/cgroup".into())));
        let hybrid = "\
30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
32 25 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
33 25 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let Some(Layout::V1(all)) = parse_mountinfo(hybrid) else { panic!("not seen as version 1") };
        let names: Vec<_> = all.iter().map(|h| h.controllers.join(",")).collect();
        assert_eq!(names, ["cpu,cpuacct", "memory", "name=systemd", "unified"]);
        assert_eq!(parse_mountinfo("20 1 8:1 / / rw - ext4 /dev/sda rw\n"), None);
    }

    #[test]
    fn paths_stay_below_the_root() {
        let groups =
            Cgroups { layout: Layout::V2("/c".into()), root: relative("/node").expect("a plain path") };
        assert_eq!(
            groups.dirs("/kubepods/p", Scope::Container).expect("plain"),
            [PathBuf::from("/c/node/kubepods/p")]
        );
        assert!(groups.dirs("/kubepods/../../x", Scope::Container).is_err());
    }

    #[test]
    fn counters_are_found_by_their_whole_name() {
        assert_eq!(flat_key("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"), Some(3));
        assert_eq!(flat_key("oom 7\noom_group_kill 1\n", "oom_kill"), None);
    }
}
