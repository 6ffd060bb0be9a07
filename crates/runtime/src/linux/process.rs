//! The last steps of a process before it becomes the container's program: everything it inherited is put back
//! to what a program may expect, and everything it must not have is taken away.
//!
//! Runs in a child of the single-threaded shim. Upstream: runc's `standard_init_linux.go`, `setns_init_linux.go`.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit};

use super::user::{self, Identity};
use super::{caps, seccomp, seccomp_profile};
use crate::{LinuxContainerSecurityContext, LinuxContainerUser, SecurityProfile};

/// Where programs are looked for if the container's environment does not say.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Open files, soft and hard, where the host allows as many.
const OPEN_FILES: u64 = 1_048_576;
/// The largest passwd or group file that is read.
const USER_FILE_BYTES_MAX: u64 = 4 << 20;

/// What is executed, and as whom.
pub struct Program<'a> {
    /// Program and arguments; not empty.
    pub args: &'a [String],
    /// `NAME=value`, in order.
    pub env: &'a [String],
    /// Where it starts.
    pub working_dir: &'a str,
    /// The image's `user[:group]`.
    pub image_user: &'a str,
    /// Identity and confinement.
    pub context: &'a LinuxContainerSecurityContext,
    /// The text of a system call filter of its own.
    pub seccomp: Option<&'a str>,
}

/// Becomes the program. The root has been changed already. Returns only on failure, with words for the user.
pub fn become_program(program: &Program<'_>) -> String {
    match prepare(program) {
        Ok((path, env)) => {
            let e = execute(&path, program.args, &env);
            format!("exec: {:?}: {e}", program.args[0])
        }
        Err(e) => e,
    }
}

fn prepare(program: &Program<'_>) -> Result<(PathBuf, Vec<String>), String> {
    let context = program.context;
    let identity = user::resolve(program.image_user, context, &read("/etc/passwd"), &read("/etc/group"))?;
    give_stdio(identity.uid).map_err(|e| format!("give the standard descriptors to the user: {e}"))?;
    let mut env = program.env.to_vec();
    if !env.iter().any(|e| e.starts_with("PATH=")) {
        env.push(format!("PATH={DEFAULT_PATH}"));
    }
    if !env.iter().any(|e| e.starts_with("HOME=")) {
        env.push(format!("HOME={}", identity.home));
    }
    let set = capabilities(context)?;
    let fail = |what: &'static str| move |e: io::Error| format!("{what}: {e}");
    raise_limits().map_err(fail("set limits"))?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // No keyring of the host's; without the call there is none to share.
    // SAFETY: joins a new anonymous keyring; no memory is passed.
    unsafe {
        libc::syscall(libc::SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, 0)
    };
    if context.no_new_privs {
        rustix::thread::set_no_new_privs(true).map_err(|e| format!("set no_new_privs: {e}"))?;
    }
    caps::limit_bounding(set).map_err(fail("limit capabilities"))?;
    let filter = match &context.seccomp {
        SecurityProfile::RuntimeDefault if !context.privileged => {
            Some(seccomp::runtime_default(set).map_err(fail("make the seccomp filter"))?)
        }
        SecurityProfile::Localhost(_) if !context.privileged => {
            let text = program.seccomp.unwrap_or_default();
            Some(seccomp_profile::compile(text).map_err(fail("make the seccomp filter"))?)
        }
        _ => None,
    };
    // Without no_new_privs only a privileged process may do this, and it still is one.
    if let (Some(filter), false) = (&filter, context.no_new_privs) {
        seccomp::install(filter).map_err(fail("install the seccomp filter"))?;
    }
    switch_user(&identity, set).map_err(fail("change user"))?;
    let cwd = if program.working_dir.is_empty() { "/" } else { program.working_dir };
    std::env::set_current_dir(cwd)
        .map_err(|e| format!("chdir to cwd ({cwd:?}) set in config.json failed: {e}"))?;
    let path = find(&program.args[0], &env)?;
    if let (Some(filter), true) = (&filter, context.no_new_privs) {
        seccomp::install(filter).map_err(fail("install the seccomp filter"))?;
    }
    Ok((path, env))
}

/// The capabilities a container gets, as far as this machine has them.
///
/// # Errors
/// With the name that is none.
pub fn capabilities(context: &LinuxContainerSecurityContext) -> Result<caps::Set, String> {
    let c = &context.capabilities;
    caps::effective(&c.add_capabilities, &c.drop_capabilities, context.privileged)
        .map(|set| set & caps::bounding())
        .map_err(|name| format!("unknown capability {name:?}"))
}

/// Who a process is; nothing once it is gone.
pub fn user_of(pid: i32) -> Option<LinuxContainerUser> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let numbers = |name: &str| -> Option<Vec<i64>> {
        let line = status.lines().find_map(|l| l.strip_prefix(name))?;
        line.split_whitespace().map(|n| n.parse().ok()).collect()
    };
    let first = |name| numbers(name).and_then(|ids| ids.first().copied());
    let mut groups = numbers("Groups:")?;
    let gid = first("Gid:")?;
    // The group itself is always among them in what other engines tell.
    if !groups.contains(&gid) {
        groups.insert(0, gid);
    }
    Some(LinuxContainerUser { uid: first("Uid:")?, gid, supplemental_groups: groups })
}

/// Every signal as it is by default, none blocked.
pub fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: the default disposition runs no code of ours; numbers that are none are refused harmlessly.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an emptied set on the stack is passed to the kernel, which copies it.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// Makes the three standard descriptors these, and every other one close on exec.
///
/// # Errors
/// When a descriptor cannot be copied.
pub fn set_stdio(stdin: &OwnedFd, stdout: &OwnedFd, stderr: &OwnedFd) -> io::Result<()> {
    for (from, to) in [(stdin, 0), (stdout, 1), (stderr, 2)] {
        // SAFETY: the source is a live descriptor. The targets belong to nobody in this child: Rust's own
        // standard streams are handles without ownership.
        if unsafe { libc::dup2(from.as_raw_fd(), to) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: only sets a flag that takes effect on exec; no descriptor is closed under its owner.
    let r = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets how willingly the kernel kills this process for memory. Lower than now needs `CAP_SYS_RESOURCE`: without
/// it the value stays, and that is told by `Ok(false)`.
///
/// # Errors
/// When /proc cannot be written for another reason.
pub fn set_oom_score_adj(value: i32) -> io::Result<bool> {
    match fs::write("/proc/self/oom_score_adj", value.clamp(-1000, 1000).to_string()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        Err(e) => Err(e),
    }
}

/// Raises the number of open files to [`OPEN_FILES`], or as far as the host allows.
///
/// # Errors
/// When not even the soft limit can be moved.
pub fn raise_limits() -> io::Result<()> {
    let both = Rlimit { current: Some(OPEN_FILES), maximum: Some(OPEN_FILES) };
    if rustix::process::setrlimit(Resource::Nofile, both).is_ok() {
        return Ok(());
    }
    let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
    Ok(rustix::process::setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard })?)
}

/// Makes pipes and terminals the user's own, who may want to open them again by `/dev/stdout`.
fn give_stdio(uid: u32) -> io::Result<()> {
    let null = fs::metadata("/dev/null").ok().map(|m| m.rdev());
    for fd in 0..3 {
        // SAFETY: the three standard descriptors are open until the program is executed.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let stat = rustix::fs::fstat(fd)?;
        if stat.st_uid != uid && Some(stat.st_rdev) != null {
            rustix::fs::fchown(fd, Some(rustix::fs::Uid::from_raw(uid)), None)?;
        }
    }
    Ok(())
}

fn switch_user(identity: &Identity, set: caps::Set) -> io::Result<()> {
    let check = |r: libc::c_int| if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: the pointer and length describe a live slice; the other two calls take plain numbers. The process
    // has one thread, so that changing its identity needs no agreement among threads.
    unsafe {
        check(libc::setgroups(identity.groups.len(), identity.groups.as_ptr()))?;
        check(libc::setresgid(identity.gid, identity.gid, identity.gid))?;
        check(libc::setresuid(identity.uid, identity.uid, identity.uid))?;
    }
    // Any other user has lost them with the change.
    caps::apply(if identity.uid == 0 { set } else { 0 })
}

/// The file to execute, as a shell would find it; with upstream's words where there is none.
fn find(name: &str, env: &[String]) -> Result<PathBuf, String> {
    if name.contains('/') {
        let path = PathBuf::from(name);
        return match fs::metadata(&path) {
            Ok(m) if m.is_dir() => Err(format!("exec: {name:?}: is a directory")),
            Ok(m) if m.permissions().mode() & 0o111 == 0 => Err(format!("exec: {name:?}: permission denied")),
            Ok(_) => Ok(path),
            Err(e) => Err(format!("exec: {name:?}: stat {name}: {}", words(&e))),
        };
    }
    let path = env.iter().rev().find_map(|e| e.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    for dir in path.split(':').filter(|d| !d.is_empty()) {
        let file = Path::new(dir).join(name);
        if fs::metadata(&file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0) {
            return Ok(file);
        }
    }
    Err(format!("exec: {name:?}: executable file not found in $PATH"))
}

fn words(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => e.to_string(),
    }
}

fn execute(path: &Path, args: &[String], env: &[String]) -> io::Error {
    let texts =
        |list: &[String]| list.iter().map(|s| CString::new(s.as_str())).collect::<Result<Vec<_>, _>>();
    let (Ok(path), Ok(args), Ok(env)) = (CString::new(path.as_os_str().as_bytes()), texts(args), texts(env))
    else {
        return io::Error::other("a NUL byte in the program, an argument or the environment");
    };
    let pointers = |list: &[CString]| {
        list.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect::<Vec<_>>()
    };
    // SAFETY: all pointers are to NUL-terminated texts that live until the call, in arrays that end with null.
    unsafe { libc::execve(path.as_ptr(), pointers(&args).as_ptr(), pointers(&env).as_ptr()) };
    io::Error::last_os_error()
}

/// A file of the image's, as text; empty where it is missing, too large or no text.
fn read(path: &str) -> String {
    match fs::metadata(path) {
        Ok(m) if m.is_file() && m.len() <= USER_FILE_BYTES_MAX => {
            fs::read_to_string(path).unwrap_or_default()
        }
        _ => String::new(),
    }
}
