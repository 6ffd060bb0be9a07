//! Starting a shim: from the engine's side a plain spawn of its own executable, in the child everything else.
//!
//! The first stage runs with whatever the big process left it; it takes a read-only view of its executable
//! (so that nothing a container does to `/proc/<pid>/exe` can change the file on the host, CVE-2019-5736),
//! leaves session and process group by forking twice, and executes that view. The second stage is the shim.

use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{CWD, MemfdFlags, SealFlags};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::Error;
use crate::linux::mounts;

/// The argument that marks the second stage.
const SECOND_STAGE: &str = "--detached";
/// What the shim says on its standard output when it listens; anything else there is an error.
const READY: &str = "ready";

/// Starts a shim for the sandbox in `dir` and waits until it listens. Blocking.
///
/// # Errors
/// [`Error::Shim`] with what the shim said before it died.
pub fn spawn(exe: &Path, args: &[OsString], dir: &Path) -> Result<(), Error> {
    let log = dir.join("shim.log");
    let stderr = File::create(&log).map_err(Error::io(format!("create {}", log.display())))?;
    let mut command = Command::new(exe);
    if exe == Path::new("/proc/self/exe") {
        // What lists of processes show.
        command.arg0("keelson");
    }
    let mut child = command
        .args(args)
        .arg(dir)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .map_err(Error::io(format!("start shim {}", exe.display())))?;
    let mut said = String::new();
    let mut stdout = child.stdout.take().expect("it was asked for");
    stdout.read_to_string(&mut said).map_err(Error::io("read from shim"))?;
    child.wait().map_err(Error::io("wait for shim"))?;
    if said.starts_with(READY) {
        return Ok(());
    }
    let log = fs::read_to_string(&log).unwrap_or_default();
    Err(Error::Shim { message: format!("it did not start: {} {}", said.trim(), log.trim()) })
}

/// The whole life of a shim process: call this first thing in `main`, before any thread exists, when the
/// executable was started as a shim. `args` are those after the ones that the engine was told to put first.
pub fn shim_main(args: impl IntoIterator<Item = OsString>) -> ! {
    let args: Vec<OsString> = args.into_iter().collect();
    let code = match args.as_slice() {
        [dir] => first_stage(Path::new(dir)),
        [marker, dir] if marker == SECOND_STAGE => {
            let ready = || {
                let mut out = io::stdout();
                let said = writeln!(out, "{READY}").and_then(|()| out.flush());
                // From here on the engine waits no more; it reads to the end of the pipe.
                said.and_then(|()| close_stdout())
            };
            super::server::run(Path::new(dir), ready)
        }
        _ => Err(io::Error::other("usage: shim <sandbox directory>")),
    };
    match code {
        Ok(()) => std::process::exit(0),
        Err(e) => {
            eprintln!("shim: {e}");
            println!("{e}");
            std::process::exit(1)
        }
    }
}

#[allow(unsafe_code)]
fn first_stage(dir: &Path) -> io::Result<()> {
    let exe = read_only_executable()?;
    // The arguments before the directory are the engine's to choose: repeat them as they came.
    let mut argv: Vec<OsString> = std::env::args_os().collect();
    argv.truncate(argv.len() - 1);
    argv.extend([SECOND_STAGE.into(), PathBuf::from(dir).into_os_string()]);
    let texts = argv.iter().map(|a| CString::new(a.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    let pointers: Vec<_> = texts.iter().map(|t| t.as_ptr()).chain([std::ptr::null()]).collect();
    // SAFETY: this process has one thread, so the child may do anything.
    match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        0 => {}
        child => {
            // The one in between; left alone it would stay a zombie of whoever adopts it.
            let child = rustix::process::Pid::from_raw(child);
            rustix::process::waitpid(child, rustix::process::WaitOptions::empty())?;
            return Ok(());
        }
    }
    rustix::process::setsid()?;
    // SAFETY: as above.
    match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        0 => {}
        // Not a session leader any more: no terminal can become this process's own.
        _ => std::process::exit(0),
    }
    // Nothing that the engine had open, beyond the three standard descriptors, is the shim's.
    // SAFETY: sets a flag that takes effect on exec; an empty environment and the texts live until the call.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
        let env = [c"PATH=/usr/sbin:/usr/bin:/sbin:/bin".as_ptr(), std::ptr::null()];
        libc::syscall(
            libc::SYS_execveat,
            exe.as_raw_fd(),
            c"".as_ptr(),
            pointers.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    Err(io::Error::last_os_error())
}

/// The running executable on a read-only mount of its own, or, where the kernel cannot do that, a sealed copy.
fn read_only_executable() -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let cloned = open_tree(CWD, "/proc/self/exe", flags).map_err(io::Error::from).and_then(|tree| {
        mounts::set_attributes(tree.as_fd(), false, mounts::READ_ONLY, mounts::PRIVATE)?;
        Ok(tree)
    });
    if let Ok(tree) = cloned {
        return Ok(tree);
    }
    let memory = rustix::fs::memfd_create("shim", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut copy = File::from(memory);
    io::copy(&mut File::open("/proc/self/exe")?, &mut copy)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    Ok(copy.into())
}

/// Ends the pipe to the engine.
fn close_stdout() -> io::Result<()> {
    let null = File::options().write(true).open("/dev/null")?;
    Ok(nix::unistd::dup2_stdout(null)?)
}
