//! The first process of a PID namespace that all containers of a pod share: it takes in orphans and outlives them all.
//!
//! It executes no program: it is a copy of the shim that has let go of everything. Containers may look at it, so its
//! root is an empty directory, it holds no descriptor and no capability, and its arguments tell nothing of the host.
//! Upstream: build/pause/linux/pause.c.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::sys::signal::{SigSet, Signal as NixSignal};
use rustix::fs::{Mode, OFlags};
use rustix::mount::MountPropagationFlags;
use rustix::process::{DumpableBehavior, Signal, WaitOptions};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::linux::rootfs::change_root;
use crate::linux::{caps, mounts, namespaces};

/// What lists of processes show.
const NAME: &[u8] = b"/pause\0";

/// Starts it; gives its id as the shim sees it, and the namespace. `dir` is any directory of the sandbox's.
///
/// # Errors
/// Says which step failed.
pub fn start(own_pid_namespace: &OwnedFd, dir: &Path) -> io::Result<(i32, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // SAFETY: the PID namespace is for the next child; there is one thread.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID) }?;
    // SAFETY: there is one thread; the child may do anything.
    let pid = match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(read);
            let mut write = File::from(write);
            if let Err(e) = settle(&write, dir) {
                // Nobody is left to tell if this fails too.
                drop(write.write_all(e.to_string().as_bytes()));
                std::process::exit(1);
            }
            drop(write);
            reap_for_ever()
        }
        pid => Ok(pid),
    };
    namespaces::enter(own_pid_namespace, LinkNameSpaceType::ProcessID)?;
    let pid = pid?;
    drop(write);
    let mut why = String::new();
    File::from(read).read_to_string(&mut why)?;
    if !why.is_empty() {
        return Err(io::Error::other(format!("start the pod's first process: {why}")));
    }
    Ok((pid, namespaces::open(pid, "pid")?))
}

fn settle(keep: &File, dir: &Path) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::setsid()?;
    rustix::thread::set_name(c"pause")?;
    rename_arguments()?;
    let keep = keep.as_raw_fd() as libc::c_uint;
    // SAFETY: what the copied shim had open is used by nobody in this process any more.
    unsafe {
        libc::syscall(libc::SYS_close_range, 0, keep - 1, 0);
        libc::syscall(libc::SYS_close_range, keep + 1, libc::c_uint::MAX, 0);
        rustix::thread::unshare_unsafe(UnshareFlags::NEWNS)?;
    }
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let attributes = mounts::READ_ONLY | mounts::NO_SUID | mounts::NO_DEVICES | mounts::NO_EXEC;
    mounts::attach_path(&mounts::new_filesystem("tmpfs", &[], attributes)?, dir)?;
    let root = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    change_root(&root)?;
    caps::limit_bounding(0)?;
    caps::apply(0)
}

/// Writes over the arguments that /proc shows, in place.
fn rename_arguments() -> io::Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // Counted from after the name, which may hold anything. Source: proc_pid_stat(5).
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let field = |n: usize| fields.get(n - 3).and_then(|f| f.parse::<usize>().ok()).unwrap_or(0);
    let (start, end) = (field(48), field(49));
    if start == 0 || end < start + NAME.len() {
        return Err(io::Error::other("the kernel does not say where the arguments are"));
    }
    // SAFETY: the kernel has put the arguments there, in writable memory of this process, and nothing reads them any
    // more.
    unsafe {
        std::ptr::write_bytes(start as *mut u8, 0, end - start);
        std::ptr::copy_nonoverlapping(NAME.as_ptr(), start as *mut u8, NAME.len());
    }
    Ok(())
}

fn reap_for_ever() -> ! {
    let mut ended = SigSet::empty();
    ended.add(NixSignal::SIGCHLD);
    loop {
        // Blocked in the shim it was copied from, so none is lost in between.
        while matches!(rustix::process::wait(WaitOptions::NOHANG), Ok(Some(_))) {}
        if ended.wait().is_err() {
            std::process::exit(1);
        }
    }
}
