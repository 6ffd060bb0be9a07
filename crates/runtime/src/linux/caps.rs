//! Capabilities: names, the default set, and dropping the rest.
//!
//! Upstream: containerd's `oci.WithDefaultCapabilities`, capabilities(7).
#![allow(unsafe_code)]

use std::io;

/// Names by number, without `CAP_`.
const NAMES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container has unless told otherwise.
const DEFAULT: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A set of capabilities, a bit each.
pub type Set = u64;

/// The bit of a name, with or without `CAP_`, in any case.
pub fn bit(name: &str) -> Option<Set> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|n| *n == bare).map(|i| 1 << i)
}

/// The set for a container: drops from the default, then adds, as other engines do; `ALL` in either.
///
/// # Errors
/// With the name that is none.
pub fn effective(add: &[String], drop: &[String], privileged: bool) -> Result<Set, String> {
    if privileged {
        return Ok(all());
    }
    let is_all = |n: &String| n.eq_ignore_ascii_case("all");
    let bits = |names: &[String]| {
        names.iter().filter(|n| !is_all(n)).try_fold(0, |s, n| bit(n).map(|b| s | b).ok_or_else(|| n.clone()))
    };
    let (added, dropped) = (bits(add)?, bits(drop)?);
    let mut set = DEFAULT.iter().filter_map(|n| bit(n)).fold(0, |s, b| s | b);
    if add.iter().any(is_all) {
        set = all();
    }
    if drop.iter().any(is_all) {
        set = 0;
    }
    Ok((set & !dropped) | added)
}

fn all() -> Set {
    (1 << NAMES.len()) - 1
}

/// The calling process's bounding set.
pub fn bounding() -> Set {
    (0..NAMES.len())
        .filter(|i| {
            // SAFETY: reads one bit of the process's own state; no memory is passed.
            unsafe { libc::prctl(libc::PR_CAPBSET_READ, *i as libc::c_ulong, 0, 0, 0) == 1 }
        })
        .fold(0, |set, i| set | 1 << i)
}

/// Takes everything outside `set` out of the bounding set, so that no executed file gives it back.
///
/// # Errors
/// Without `CAP_SETPCAP`.
pub fn limit_bounding(set: Set) -> io::Result<()> {
    // Beyond the names too: a newer kernel may know more.
    for i in 0..64u32 {
        if set & (1u64 << i) != 0 {
            continue;
        }
        // SAFETY: changes one bit of the process's own state; no memory is passed.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(i), 0, 0, 0) } != 0 {
            let err = io::Error::last_os_error();
            // The first number that the kernel does not know ends the list.
            return if err.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(err) };
        }
    }
    Ok(())
}

/// Makes `set` the effective and permitted set, and the inheritable and ambient sets empty.
///
/// # Errors
/// When the process lacks one of them.
pub fn apply(set: Set) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    /// `_LINUX_CAPABILITY_VERSION_3`.
    const VERSION: u32 = 0x2008_0522;
    let header = Header { version: VERSION, pid: 0 };
    let half = |bits: u64| Data { effective: bits as u32, permitted: bits as u32, inheritable: 0 };
    let data = [half(set & 0xffff_ffff), half(set >> 32)];
    // SAFETY: both pointers are to live values of the layout that version 3 of the call prescribes.
    let r = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_then_adds() {
        let set = |add: &[&str], drop: &[&str]| {
            let own = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
            effective(&own(add), &own(drop), false)
        };
        let bits = |names: &[&str]| names.iter().map(|n| bit(n).expect("a name")).fold(0, |a, b| a | b);
        assert_eq!(set(&[], &[]), Ok(bits(DEFAULT)));
        assert_eq!(set(&["CAP_NET_ADMIN"], &["ALL"]), Ok(bits(&["NET_ADMIN"])));
        assert_eq!(set(&["all"], &["sys_admin"]), Ok(all() & !bits(&["SYS_ADMIN"])));
        assert_eq!(set(&[], &["NOPE"]), Err("NOPE".to_owned()));
        assert_eq!(bit("CHECKPOINT_RESTORE"), Some(1 << 40));
    }
}
