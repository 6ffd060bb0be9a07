//! Namespaces of a pod: made in the shim, pinned to files by the process that started it.
//!
//! Upstream: runc's libcontainer/nsenter; containerd's `netns` package for pinning.
#![allow(unsafe_code)]

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::mounts;
use crate::{LinuxPodSandboxConfig, NamespaceMode};

/// Gives the calling process the pod's namespaces, host name, loopback and sysctls. It must have one thread.
///
/// # Errors
/// Says which step failed.
pub fn enter_new(config: &LinuxPodSandboxConfig, hostname: &str) -> io::Result<()> {
    let options = &config.namespace_options;
    let own_network = options.network == NamespaceMode::Pod;
    let mut flags = UnshareFlags::empty();
    flags.set(UnshareFlags::NEWNET | UnshareFlags::NEWUTS, own_network);
    flags.set(UnshareFlags::NEWIPC, options.ipc == NamespaceMode::Pod);
    // SAFETY: none of these namespaces is about memory or descriptors; the caller has one thread.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(|e| context("make namespaces", &e.into()))?;
    if own_network {
        rustix::system::sethostname(hostname.as_bytes())
            .map_err(|e| context("set the host name", &e.into()))?;
        loopback_up().map_err(|e| context("bring up lo", &e))?;
    }
    for (name, value) in &config.sysctls {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        fs::write(&path, value).map_err(|e| context(&format!("set sysctl {name}"), &e))?;
    }
    Ok(())
}

/// Whether a sysctl belongs to a namespace that the pod has of its own; others would change the host.
pub fn sysctl_is_namespaced(name: &str, config: &LinuxPodSandboxConfig) -> bool {
    if name.split('.').any(|part| part.is_empty() || part.contains('/')) {
        return false;
    }
    let options = &config.namespace_options;
    let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|p| name.starts_with(p))
        || name == "kernel.sem";
    (ipc && options.ipc == NamespaceMode::Pod)
        || (name.starts_with("net.") && options.network == NamespaceMode::Pod)
}

/// Makes `path` keep the network namespace of `pid` alive and enterable, if it does not already.
///
/// # Errors
/// When the file cannot be made or the mount is refused.
pub fn pin_network(pid: i32, path: &Path) -> io::Result<()> {
    let namespace = format!("/proc/{pid}/ns/net");
    let identity = |m: fs::Metadata| (m.dev(), m.ino());
    let wanted = identity(fs::metadata(&namespace)?);
    if fs::metadata(path).is_ok_and(|m| identity(m) == wanted) {
        return Ok(());
    }
    unmount_all(path)?;
    drop(fs::File::create(path)?);
    Ok(rustix::mount::mount_bind(namespace, path)?)
}

/// Mounts the memory that a pod's containers share, of `size` bytes.
///
/// # Errors
/// When the kernel refuses.
pub fn mount_shm(path: &Path, size: u64) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let size = size.to_string();
    let options = [("mode", OsStr::new("1777")), ("size", OsStr::new(&size))];
    let attributes = mounts::NO_SUID | mounts::NO_DEVICES | mounts::NO_EXEC;
    mounts::attach_path(&mounts::new_filesystem("tmpfs", &options, attributes)?, path)
}

/// Takes all mounts off `path`, in use or not. What is not mounted or not there is a success.
///
/// # Errors
/// When the kernel refuses.
pub fn unmount_all(path: &Path) -> io::Result<()> {
    use rustix::mount::UnmountFlags;
    loop {
        match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}

/// A namespace of a process.
///
/// # Errors
/// When the process is gone.
pub fn open(pid: i32, name: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(format!("/proc/{pid}/ns/{name}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Enters a namespace. For a PID namespace: children of the caller will be in it.
///
/// # Errors
/// When the kernel refuses.
pub fn enter(namespace: &OwnedFd, kind: LinkNameSpaceType) -> io::Result<()> {
    Ok(rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(kind))?)
}

fn loopback_up() -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    // SAFETY: an all-zero ifreq is a valid value of this plain structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the descriptor is a live socket and the request a live structure of the kind the call reads.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn context(what: &str, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{what}: {e}"))
}
