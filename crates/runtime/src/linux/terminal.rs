//! Terminals of a container's own: made in its devpts, by a child that is in its mount namespace already.
//!
//! Upstream: containerd/console; runc's `libcontainer/console_linux.go`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

/// The file system that terminals are in. Source: linux/magic.h.
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// A new terminal: master and slave. The container may have put anything in place of the device: only one that is in
/// a devpts is taken, and the slave is asked of the master, never looked up by its name.
///
/// # Errors
/// When there is no such device.
pub fn open() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let master = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty())?;
    if rustix::fs::fstatfs(&master)?.f_type != DEVPTS_SUPER_MAGIC {
        return Err(io::Error::other("/dev/pts/ptmx is not in a devpts"));
    }
    let unlocked: libc::c_int = 0;
    // SAFETY: the first call reads one integer that lives through it; the second takes flags by value and gives a
    // new descriptor, which nobody else owns.
    let slave = unsafe {
        if libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) != 0 {
            return Err(io::Error::last_os_error());
        }
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        match libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) {
            -1 => return Err(io::Error::last_os_error()),
            fd => OwnedFd::from_raw_fd(fd),
        }
    };
    Ok((master, slave))
}

/// Makes a slave the controlling terminal of the calling process, which leads a session.
///
/// # Errors
/// When the kernel refuses.
pub fn take(slave: &OwnedFd) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(slave)?)
}

/// Sets a terminal's size.
///
/// # Errors
/// When it is no terminal.
pub fn resize(master: &OwnedFd, columns: u16, rows: u16) -> io::Result<()> {
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(master, size)?)
}
