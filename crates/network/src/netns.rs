//! Network namespaces: made, pinned to a path, entered, removed.
//!
//! Namespaces belong to threads, so each is made or entered on a thread that lives for one closure only; such
//! a thread must not start inside a simulation, which has no namespaces either.
#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::{Error, link};

/// Makes a network namespace with `lo` up and pins it at `path`: a file is made there when missing, its parents
/// must exist. A path that already holds a namespace is left alone.
pub fn create_netns(path: &Path) -> Result<(), Error> {
    let shown = path.display();
    if is_netns(path) {
        return Ok(());
    }
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|e| Error::system(format!("create {shown}"), e))?;
    on_own_thread(|| {
        // SAFETY: only this thread's network namespace changes, and the thread ends with the closure; no other
        // code in it holds descriptors or state that belong to the old one.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
            .map_err(|e| Error::system("unshare network namespace", e.into()))?;
        link::Links::open()?.set_up("lo")?;
        mount_bind("/proc/thread-self/ns/net", path)
            .map_err(|e| Error::system(format!("pin network namespace at {shown}"), e.into()))
    })
}

/// Unpins the namespace at `path` and removes the file; the namespace ends with its last process. A path that
/// is gone is no error.
pub fn remove_netns(path: &Path) -> Result<(), Error> {
    let shown = path.display();
    match unmount(path, UnmountFlags::DETACH) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
        Err(e) => return Err(Error::system(format!("unpin network namespace {shown}"), e.into())),
    }
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::system(format!("remove {shown}"), e)),
        _ => Ok(()),
    }
}

/// Runs `f` in the namespace at `netns` on a thread of its own, and waits for it; with none, runs it right here.
pub fn in_netns<T: Send>(netns: Option<&Path>, f: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let Some(path) = netns else { return Ok(f()) };
    let file = File::open(path).map_err(|e| Error::system(format!("open {}", path.display()), e))?;
    on_own_thread(move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|e| Error::system(format!("enter network namespace {}", path.display()), e.into()))?;
        Ok(f())
    })
}

/// Whether `path` holds a namespace: a pinned one answers with nsfs' magic number.
fn is_netns(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|s| s.f_type as u64 == NSFS_MAGIC)
}

/// Source: Linux `include/uapi/linux/magic.h`.
const NSFS_MAGIC: u64 = 0x6e73_6673;

fn on_own_thread<T: Send>(f: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    std::thread::scope(|scope| match scope.spawn(f).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
