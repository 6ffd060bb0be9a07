//! Mounts through the new mount API: each is made detached, given its attributes, and only then attached to a
//! place that was opened without leaving the new root.
//!
//! Upstream: mount_setattr(2), fsopen(2); securejoin and `rootfs_linux.go` of runc for what must not happen.
#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

/// `MOUNT_ATTR_RDONLY` and its kin, from linux/mount.h.
pub const READ_ONLY: u64 = 0x1;
/// Set-id bits mean nothing below it.
pub const NO_SUID: u64 = 0x2;
/// Device nodes cannot be opened below it.
pub const NO_DEVICES: u64 = 0x4;
/// Nothing can be executed below it.
pub const NO_EXEC: u64 = 0x8;

/// Neither way of propagation.
pub const PRIVATE: u64 = libc::MS_PRIVATE;
/// Propagation as it is.
pub const AS_IS: u64 = 0;

/// A file system of its own, detached. Options without a value are flags.
///
/// # Errors
/// When the kernel lacks it or refuses an option.
pub fn new_filesystem(kind: &str, options: &[(&str, &OsStr)], attributes: u64) -> io::Result<OwnedFd> {
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        let set = if value.is_empty() {
            fsconfig_set_flag(&fs, *key)
        } else {
            fsconfig_set_string(&fs, *key, *value)
        };
        set.map_err(|e| io::Error::other(format!("{kind}: option {key}={}: {e}", value.display())))?;
    }
    fsconfig_create(&fs).map_err(|e| io::Error::other(format!("{kind}: {e}")))?;
    let flags =
        MountAttrFlags::from_bits_retain(u32::try_from(attributes).expect("the attributes are small"));
    Ok(fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, flags)?)
}

/// A detached copy of the mount at `path` (with those below it if `recursive`), private to whoever attaches it.
/// `attributes` are added to it; below it only [`NO_DEVICES`] and [`NO_SUID`] are.
///
/// # Errors
/// When the path does not exist.
pub fn clone_path(at: impl AsFd, path: &Path, recursive: bool, attributes: u64) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = open_tree(at, path, flags)?;
    set_attributes(tree.as_fd(), recursive, attributes & (NO_DEVICES | NO_SUID), PRIVATE)?;
    set_attributes(tree.as_fd(), false, attributes, AS_IS)?;
    Ok(tree)
}

/// A detached copy of what is opened, with all mounts below it, that propagates as it did.
///
/// # Errors
/// When the kernel refuses.
pub fn clone_tree(at: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(open_tree(at, "", flags)?)
}

/// Whether the mount that something opened is on gives mounts to others, and takes them from others.
///
/// # Errors
/// When /proc cannot be read.
pub fn propagates(at: &OwnedFd) -> io::Result<(bool, bool)> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", at.as_raw_fd()))?;
    let id = info.lines().find_map(|l| l.strip_prefix("mnt_id:")).unwrap_or_default().trim();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let line = mounts.lines().find(|l| l.split(' ').next() == Some(id)).unwrap_or_default();
    let optional = || line.split(' ').skip(6).take_while(|field| *field != "-");
    Ok((optional().any(|f| f.starts_with("shared:")), optional().any(|f| f.starts_with("master:"))))
}

/// Adds attributes to a mount, and changes its propagation unless that is [`AS_IS`].
///
/// # Errors
/// When the kernel refuses.
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    recursive: bool,
    attributes: u64,
    propagation: u64,
) -> io::Result<()> {
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        userns_fd: u64,
    }
    let attr = MountAttr { set: attributes, clear: 0, propagation, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a static empty string, the structure is live and its size is given with it.
    let r = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Attaches a detached mount to an opened place.
///
/// # Errors
/// When one is a directory and the other is not.
pub fn attach(mount: &OwnedFd, place: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", place, "", flags)?)
}

/// Attaches a detached mount to a path of the caller's own.
///
/// # Errors
/// When the path does not exist.
pub fn attach_path(mount: &OwnedFd, path: &Path) -> io::Result<()> {
    Ok(move_mount(mount, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// What is to be at a place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A directory.
    Directory,
    /// Anything that is no directory.
    File,
}

/// Opens `path` as seen from `root` for attaching, making what is missing. Links are followed as if `root` were
/// the root, so nothing outside can be reached whatever the image holds.
///
/// # Errors
/// When something on the way is no directory, or the root is read-only and the place is missing.
pub fn place(root: &OwnedFd, path: &Path, kind: Place) -> io::Result<OwnedFd> {
    make(root, path, kind, ResolveFlags::IN_ROOT, &|parent, name| {
        Ok(rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?)
    })
}

/// Opens `path` below `base`, making directories that are missing with the permissions of `base`. A way that leads
/// out, by `..` or by a link, is an error.
///
/// # Errors
/// When it leads out, or what is there is neither.
pub fn beneath(base: &Path, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let base = rustix::fs::open(base, flags, Mode::empty())?;
    let mode = rustix::fs::fstat(&base)?.st_mode & 0o7777;
    make(&base, path, Place::Directory, ResolveFlags::BENEATH, &|parent, name| {
        rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(mode))?;
        // The umask took bits away. Only what was just opened is changed, whatever has its name by now.
        let made = open_at(parent, Path::new(name), flags | OFlags::NOFOLLOW, ResolveFlags::BENEATH)?;
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(format!("/proc/self/fd/{}", made.as_raw_fd()), permissions)
    })
}

fn make(
    root: &OwnedFd,
    path: &Path,
    kind: Place,
    resolve: ResolveFlags,
    make_dir: &dyn Fn(&OwnedFd, &OsStr) -> io::Result<()>,
) -> io::Result<OwnedFd> {
    match open_at(root, path, OFlags::PATH, resolve) {
        Err(rustix::io::Errno::NOENT) => {}
        other => return Ok(other?),
    }
    let names: Vec<&OsStr> = path
        .components()
        .filter_map(|c| if let Component::Normal(name) = c { Some(name) } else { None })
        .collect();
    let mut so_far = std::path::PathBuf::new();
    let mut parent = root.try_clone()?;
    for (i, name) in names.iter().enumerate() {
        so_far.push(name);
        let last = i + 1 == names.len();
        let next = match open_at(root, &so_far, OFlags::PATH, resolve) {
            Err(rustix::io::Errno::NOENT) => {
                if last && kind == Place::File {
                    let flags =
                        OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    drop(rustix::fs::openat(&parent, *name, flags, Mode::from_raw_mode(0o644))?);
                } else {
                    make_dir(&parent, name)?;
                }
                open_at(root, &so_far, OFlags::PATH, resolve)?
            }
            other => other?,
        };
        parent = next;
    }
    Ok(parent)
}

/// Opens `path` as seen from `root`.
///
/// # Errors
/// Those of openat2(2).
pub fn open_in(root: &OwnedFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    open_at(root, path, flags, ResolveFlags::IN_ROOT)
}

fn open_at(root: &OwnedFd, path: &Path, flags: OFlags, resolve: ResolveFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = resolve | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}
