//! A container's file system: overlay, /proc, /sys, /dev, the caller's mounts, masks, and the change of root.
//!
//! Runs in the container's first process, in a mount namespace of its own: nothing that is mounted here is
//! ever seen outside, and all of it goes with the namespace. Upstream: runc's `rootfs_linux.go`; containerd's
//! CRI spec options for the list of mounts.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags};

use super::cgroups::{Cgroups, Layout, Scope};
use super::mounts::{
    AS_IS, NO_DEVICES, NO_EXEC, NO_SUID, PRIVATE, Place, READ_ONLY, attach, attach_path, beneath, clone_path,
    clone_tree, new_filesystem, place, propagates, set_attributes,
};
use crate::{Mount, MountPropagation};

/// Hidden from containers. Source: containerd's `oci.defaultUnixSpec` and Kubernetes' `defaultMaskedPaths`.
pub const MASKED_PATHS: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Only readable in containers.
pub const READONLY_PATHS: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

/// What a container's file system is made of.
pub struct Rootfs<'a> {
    /// Lower directories, topmost first.
    pub layers: &'a [PathBuf],
    /// The container's own directory: `upper`, `work` and `rootfs` are made in it.
    pub dir: &'a Path,
    /// Whether the root can only be read.
    pub readonly: bool,
    /// All devices, writable /sys, no masks.
    pub privileged: bool,
    /// The caller's mounts.
    pub mounts: &'a [Mount],
    /// Hidden paths.
    pub masked: &'a [String],
    /// Read-only paths.
    pub readonly_paths: &'a [String],
    /// What /dev/shm is.
    pub shm: &'a Path,
    /// Where the container's own groups are, for /sys/fs/cgroup.
    pub cgroups: &'a Cgroups,
    /// The container's group.
    pub cgroup: &'a str,
    /// Made if missing.
    pub working_dir: &'a str,
}

/// Makes the directories that the overlay needs. Before the container's process exists.
///
/// # Errors
/// When one cannot be made.
pub fn prepare(dir: &Path) -> io::Result<()> {
    ["upper", "work", "rootfs"].iter().try_for_each(|sub| fs::create_dir_all(dir.join(sub)))
}

impl Rootfs<'_> {
    /// Builds it and makes it the calling process's root. The process must have its own mount namespace.
    ///
    /// # Errors
    /// Says which mount failed.
    pub fn enter(&self) -> io::Result<()> {
        let sources = self.sources()?;
        // What the host mounts later still comes; nothing goes there.
        let all = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", all).map_err(|e| step("make / a slave", &e.into()))?;
        let root = self.overlay().map_err(|e| step("mount the root file system", &e))?;
        self.proc_and_sys(&root).map_err(|e| step("mount /proc and /sys", &e))?;
        self.devices(&root).map_err(|e| step("set up /dev", &e))?;
        for (mount, source) in sources {
            self.bind(&root, mount, &source).map_err(|e| step(&words(mount), &e))?;
        }
        if !self.privileged {
            for path in self.readonly_paths {
                protect(&root, Path::new(path)).map_err(|e| step(&format!("make {path} read-only"), &e))?;
            }
            for path in self.masked {
                mask(&root, Path::new(path)).map_err(|e| step(&format!("mask {path}"), &e))?;
            }
        }
        if !self.working_dir.is_empty() {
            place(&root, Path::new(self.working_dir), Place::Directory)
                .map_err(|e| step(&format!("make the working directory {}", self.working_dir), &e))?;
        }
        if self.readonly {
            use std::os::fd::AsFd;
            set_attributes(root.as_fd(), false, READ_ONLY, AS_IS)
                .map_err(|e| step("make the root read-only", &e))?;
        }
        change_root(&root).map_err(|e| step("change root", &e))
    }

    fn overlay(&self) -> io::Result<OwnedFd> {
        let (upper, work) = (self.dir.join("upper"), self.dir.join("work"));
        let mut options: Vec<(&str, &OsStr)> =
            self.layers.iter().map(|l| ("lowerdir+", l.as_os_str())).collect();
        options.push(("upperdir", upper.as_os_str()));
        options.push(("workdir", work.as_os_str()));
        // Without devices: with version 2 of control groups this, not a device list, is what keeps a container
        // that may make nodes from using them.
        let attributes = if self.privileged { 0 } else { NO_DEVICES };
        let mount = new_filesystem("overlay", &options, attributes)?;
        let at = self.dir.join("rootfs");
        attach_path(&mount, &at)?;
        Ok(rustix::fs::open(&at, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
    }

    fn proc_and_sys(&self, root: &OwnedFd) -> io::Result<()> {
        let usual = NO_SUID | NO_DEVICES | NO_EXEC;
        let ro = if self.privileged { 0 } else { READ_ONLY };
        self.fresh(root, "/proc", "proc", &[], usual)?;
        self.fresh(root, "/sys", "sysfs", &[], usual | ro)?;
        match self.cgroups.layout() {
            Layout::V2(_) => self.fresh(root, "/sys/fs/cgroup", "cgroup2", &[], usual | ro),
            Layout::V1(all) => {
                self.fresh(root, "/sys/fs/cgroup", "tmpfs", &[("mode", OsStr::new("755"))], usual)?;
                let dirs = self.cgroups.dirs(self.cgroup, Scope::Container)?;
                for dir in dirs {
                    let Some(hierarchy) = all.iter().find(|h| dir.starts_with(&h.mount)) else { continue };
                    let Some(name) = hierarchy.mount.file_name() else { continue };
                    let at = place(root, &Path::new("/sys/fs/cgroup").join(name), Place::Directory)?;
                    attach(&clone_path(CWD, &dir, false, usual | ro)?, &at)?;
                }
                use std::os::fd::AsFd;
                let top = super::mounts::open_in(root, Path::new("/sys/fs/cgroup"), OFlags::PATH)?;
                set_attributes(top.as_fd(), false, usual | ro, AS_IS)
            }
        }
    }

    fn devices(&self, root: &OwnedFd) -> io::Result<()> {
        let option = |s| OsStr::new(s);
        let dev = [("mode", option("755")), ("size", option("65536k"))];
        self.fresh(root, "/dev", "tmpfs", &dev, NO_SUID | NO_EXEC)?;
        let pts = [
            ("newinstance", option("")),
            ("ptmxmode", option("0666")),
            ("mode", option("0620")),
            ("gid", option("5")),
        ];
        self.fresh(root, "/dev/pts", "devpts", &pts, NO_SUID | NO_EXEC)?;
        self.fresh(root, "/dev/mqueue", "mqueue", &[], NO_SUID | NO_DEVICES | NO_EXEC)?;
        let shm = place(root, Path::new("/dev/shm"), Place::Directory)?;
        attach(&clone_path(CWD, self.shm, false, NO_SUID | NO_DEVICES | NO_EXEC)?, &shm)?;
        if self.privileged {
            host_devices(root, Path::new("/dev"))?;
        } else {
            for name in DEVICES {
                let path = Path::new("/dev").join(name);
                let at = place(root, &path, Place::File)?;
                attach(&clone_path(CWD, &path, false, NO_SUID | NO_EXEC)?, &at)?;
            }
        }
        let dev = super::mounts::open_in(root, Path::new("/dev"), OFlags::PATH | OFlags::DIRECTORY)?;
        for (name, target) in [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("core", "/proc/kcore"),
            ("ptmx", "pts/ptmx"),
        ] {
            rustix::fs::symlinkat(target, &dev, name)?;
        }
        Ok(())
    }

    fn fresh(
        &self,
        root: &OwnedFd,
        at: &str,
        kind: &str,
        options: &[(&str, &OsStr)],
        attributes: u64,
    ) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        if let Ok(existing) = super::mounts::open_in(root, Path::new(at), flags)
            && FileType::from_raw_mode(rustix::fs::fstat(&existing)?.st_mode) != FileType::Directory
        {
            return Err(io::Error::other(format!("{at} is no directory in the image")));
        }
        let place = place(root, Path::new(at), Place::Directory)?;
        attach(&new_filesystem(kind, options, attributes)?, &place)
    }

    /// What the caller's mounts show, a mount inside another after that one, whatever the order asked for. Taken while
    /// this namespace still shares mounts with the host's: later nothing could go back there.
    fn sources(&self) -> io::Result<Vec<(&Mount, OwnedFd)>> {
        let mut mounts: Vec<&Mount> = self.mounts.iter().collect();
        mounts.sort_by_key(|m| m.container_path.components().count());
        let open = |mount: &Mount| -> io::Result<OwnedFd> {
            let source = if mount.sub_path.as_os_str().is_empty() {
                rustix::fs::open(&mount.host_path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?
            } else {
                beneath(&mount.host_path, &mount.sub_path)?
            };
            let (gives, takes) = match mount.propagation {
                MountPropagation::Private => return Ok(source),
                _ => propagates(&source)?,
            };
            match mount.propagation {
                MountPropagation::Bidirectional if !gives => {
                    Err(io::Error::other("it is not on a shared mount"))
                }
                MountPropagation::Bidirectional => clone_tree(&source),
                _ if !gives && !takes => Err(io::Error::other("it is not on a shared or slave mount")),
                _ => Ok(source),
            }
        };
        mounts.into_iter().map(|m| Ok((m, open(m).map_err(|e| step(&words(m), &e))?))).collect()
    }

    fn bind(&self, root: &OwnedFd, mount: &Mount, source: &OwnedFd) -> io::Result<()> {
        use std::os::fd::AsFd;
        let directory = FileType::from_raw_mode(rustix::fs::fstat(source)?.st_mode) == FileType::Directory;
        let kind = if directory { Place::Directory } else { Place::File };
        let at = place(root, &mount.container_path, kind)?;
        let copy;
        let (tree, propagation) = match mount.propagation {
            MountPropagation::Bidirectional => (source, AS_IS),
            other => {
                copy = clone_tree(source)?;
                (&copy, if other == MountPropagation::Private { PRIVATE } else { AS_IS })
            }
        };
        let devices = if self.privileged { 0 } else { NO_DEVICES };
        let all = if mount.recursive_read_only { READ_ONLY } else { 0 };
        set_attributes(tree.as_fd(), true, devices | all, propagation)?;
        set_attributes(tree.as_fd(), false, if mount.readonly { READ_ONLY } else { 0 }, AS_IS)?;
        attach(tree, &at)
    }
}

fn words(mount: &Mount) -> String {
    let from = mount.host_path.join(&mount.sub_path);
    format!("mount {} to {}", from.display(), mount.container_path.display())
}

/// Makes nodes for all of the host's devices, except terminals and what has a mount of its own.
fn host_devices(root: &OwnedFd, dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name();
        let meta = fs::symlink_metadata(&path)?;
        if meta.is_dir() {
            if !["pts", "shm", "mqueue", "fd"].iter().any(|skip| name == *skip) {
                host_devices(root, &path)?;
            }
            continue;
        }
        let kind = match meta.file_type() {
            t if t.is_char_device() => FileType::CharacterDevice,
            t if t.is_block_device() => FileType::BlockDevice,
            _ => continue,
        };
        if name == "ptmx" || name == "console" {
            continue;
        }
        let parent = place(root, dir, Place::Directory)?;
        rustix::fs::mknodat(&parent, &name, kind, Mode::from_raw_mode(meta.mode() & 0o777), meta.rdev())?;
    }
    Ok(())
}

/// Makes a path read-only, if it exists.
fn protect(root: &OwnedFd, path: &Path) -> io::Result<()> {
    let at = match super::mounts::open_in(root, path, OFlags::PATH) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(()),
        other => other?,
    };
    attach(&clone_fd(&at, READ_ONLY | NO_SUID | NO_DEVICES | NO_EXEC)?, &at)
}

/// Hides a path, if it exists: a file behind /dev/null, a directory behind an empty one.
fn mask(root: &OwnedFd, path: &Path) -> io::Result<()> {
    let at = match super::mounts::open_in(root, path, OFlags::PATH) {
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(()),
        other => other?,
    };
    let stat = rustix::fs::fstat(&at)?;
    let cover = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        new_filesystem(
            "tmpfs",
            &[("size", OsStr::new("0")), ("nr_inodes", OsStr::new("1"))],
            READ_ONLY | NO_DEVICES,
        )?
    } else {
        clone_path(CWD, Path::new("/dev/null"), false, NO_SUID | NO_EXEC)?
    };
    attach(&cover, &at)
}

fn clone_fd(at: &OwnedFd, attributes: u64) -> io::Result<OwnedFd> {
    use rustix::mount::{OpenTreeFlags, open_tree};
    use std::os::fd::AsFd;
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(at, "", flags)?;
    set_attributes(tree.as_fd(), false, attributes, PRIVATE)?;
    Ok(tree)
}

/// Makes what is opened the calling process's root, and lets go of the old one. The mount namespace must be its own.
///
/// # Errors
/// When it is no mount point.
pub fn change_root(root: &OwnedFd) -> io::Result<()> {
    let old = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::process::fchdir(root)?;
    // The same place twice stacks the old root on top of the new one, from where it is taken off.
    rustix::process::pivot_root(".", ".")?;
    rustix::process::fchdir(&old)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}

fn step(what: &str, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{what}: {e}"))
}
