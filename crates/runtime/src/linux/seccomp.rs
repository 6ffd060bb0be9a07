//! The engine's own system call filter (`RuntimeDefault`).
//!
//! Denied is what Docker's and containerd's default profile denies by leaving it out of its list, and what has
//! come to the kernel since that sees or changes more than the process itself; some of it is allowed with the
//! capability it needs. Other personalities' calls (x32, 32 bit) are denied as a whole.
//! Upstream: containerd's `contrib/seccomp/seccomp_default.go`. We differ on purpose: a list of denials, so
//! that programs which probe for new calls get the kernel's own answer.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::caps;

/// Denied to everybody.
const NEVER: &[libc::c_long] = &[
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    libc::SYS_kexec_load,
    libc::SYS_nfsservctl,
    libc::SYS_userfaultfd,
    libc::SYS_vmsplice,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];
#[cfg(target_arch = "x86_64")]
const NEVER_HERE: &[libc::c_long] = &[
    libc::SYS_kexec_file_load,
    libc::SYS__sysctl,
    libc::SYS_sysfs,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_modify_ldt,
];
#[cfg(not(target_arch = "x86_64"))]
const NEVER_HERE: &[libc::c_long] = &[];
#[cfg(target_arch = "x86_64")]
const RAW_IO_HERE: &[libc::c_long] = &[libc::SYS_iopl, libc::SYS_ioperm];
#[cfg(not(target_arch = "x86_64"))]
const RAW_IO_HERE: &[libc::c_long] = &[];

/// Denied without a capability.
const GUARDED: &[(&str, &[libc::c_long])] = &[
    (
        "SYS_ADMIN",
        &[
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_swapon,
            libc::SYS_swapoff,
            libc::SYS_quotactl,
            libc::SYS_fsopen,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fspick,
            libc::SYS_move_mount,
            libc::SYS_open_tree,
            libc::SYS_mount_setattr,
            libc::SYS_fanotify_init,
            libc::SYS_lookup_dcookie,
            libc::SYS_setdomainname,
            libc::SYS_sethostname,
        ],
    ),
    ("SYS_BOOT", &[libc::SYS_reboot]),
    ("SYS_MODULE", &[libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module]),
    ("SYS_PACCT", &[libc::SYS_acct]),
    ("SYS_TIME", &[libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_clock_adjtime]),
    ("SYS_TTY_CONFIG", &[libc::SYS_vhangup]),
    ("SYS_PTRACE", &[libc::SYS_kcmp, libc::SYS_process_madvise]),
    ("SYS_NICE", &[libc::SYS_mbind, libc::SYS_set_mempolicy, libc::SYS_get_mempolicy]),
    ("SYSLOG", &[libc::SYS_syslog]),
    ("DAC_READ_SEARCH", &[libc::SYS_open_by_handle_at]),
    ("BPF", &[libc::SYS_bpf]),
    ("PERFMON", &[libc::SYS_perf_event_open]),
];

/// Flags of clone that make namespaces.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// The filter for a container with these capabilities.
///
/// # Errors
/// When this machine's architecture has none.
pub fn runtime_default(capabilities: caps::Set) -> io::Result<BpfProgram> {
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let has = |name: &str| caps::bit(name).is_some_and(|b| capabilities & b != 0);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut deny = |calls: &[libc::c_long]| rules.extend(calls.iter().map(|c| (*c, Vec::new())));
    deny(NEVER);
    deny(NEVER_HERE);
    if !has("SYS_RAWIO") {
        deny(RAW_IO_HERE);
    }
    for (capability, calls) in GUARDED {
        // What BPF and PERFMON allow, SYS_ADMIN has always allowed.
        let through_admin = matches!(*capability, "BPF" | "PERFMON") && has("SYS_ADMIN");
        if !(has(capability) || through_admin) {
            deny(calls);
        }
    }
    if !has("SYS_ADMIN") {
        let any_flag = |bit: u64| {
            let condition =
                SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(bit), bit);
            condition.and_then(|c| SeccompRule::new(vec![c])).map_err(io::Error::other)
        };
        let bits = (0..64).map(|i| 1u64 << i).filter(|b| NAMESPACE_FLAGS & b != 0);
        rules.insert(libc::SYS_clone, bits.map(any_flag).collect::<io::Result<_>>()?);
    }
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32), arch)
            .map_err(io::Error::other)?;
    let rest: BpfProgram = filter.try_into().map_err(io::Error::other)?;
    let mut program = not_implemented(capabilities);
    program.extend(rest);
    Ok(program)
}

/// Answers ENOSYS for x32's calls, and for clone3, whose flags a filter cannot see: libraries then use clone.
fn not_implemented(capabilities: caps::Set) -> BpfProgram {
    const LOAD: u16 = 0x20;
    const JUMP_EQUAL: u16 = 0x15;
    const JUMP_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    const ERRNO: u32 = 0x0005_0000;
    const X32: u32 = 0x4000_0000;
    let op = |code, jt, jf, k| seccompiler::sock_filter { code, jt, jf, k };
    let clone3 = match caps::bit("SYS_ADMIN") {
        // A number that no call has.
        Some(b) if capabilities & b != 0 => u32::MAX,
        _ => libc::SYS_clone3 as u32,
    };
    vec![
        op(LOAD, 0, 0, 0),
        op(JUMP_AT_LEAST, 1, 0, X32),
        op(JUMP_EQUAL, 0, 1, clone3),
        op(RETURN, 0, 0, ERRNO | libc::ENOSYS as u32),
    ]
}

/// Puts the filter on the calling process. Needs `CAP_SYS_ADMIN` or no-new-privileges.
///
/// # Errors
/// When the kernel refuses it.
pub fn install(program: &BpfProgram) -> io::Result<()> {
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: the program is live for the call and its length is given with it; the kernel copies it.
    let r = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter, 0, 0) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
