//! Containers that reach for the host's own executable (CVE-2019-5736).

use std::fs;
use std::path::Path;

use runtime::*;

use crate::support::{Node, shell, shims};

#[tokio::test]
async fn the_hosts_executable_cannot_be_written_through_proc() {
    let Some((node, sandbox)) = Node::with_sandbox().await else { return };
    let (_, log) = node.run(&sandbox, shell("readlink /proc/1/exe; readlink /proc/self/exe")).await;
    assert!(log.lines().all(|l| l.ends_with("/busybox")), "{log}");
    // The entry point is the runtime itself, as the attack has it: it runs from a read-only view.
    let before = fs::read(env!("CARGO_BIN_EXE_runtime-shim")).expect("the executable");
    // What it is linked against comes from the host, so that it really runs.
    let libraries = ["/lib", "/lib64", "/usr/lib"].iter().filter(|l| Path::new(l).exists());
    let mounts = libraries
        .map(|l| Mount {
            container_path: l.into(),
            host_path: l.into(),
            readonly: true,
            ..Default::default()
        })
        .collect();
    let config = ContainerConfig { command: vec!["/proc/self/exe".into()], mounts, ..shell("") };
    let (status, log) = node.run(&sandbox, config).await;
    assert!(status.exit_code == 1 && log.contains("usage: shim"), "{status:?} {log}");
    assert!(before == fs::read(env!("CARGO_BIN_EXE_runtime-shim")).expect("the executable"));
    for pid in shims(node.dir.path().to_str().expect("text")) {
        let exe = rustix::fs::open(
            format!("/proc/{pid}/exe"),
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        );
        let flags = rustix::fs::fstatvfs(exe.expect("open")).expect("its mount").f_flag;
        let read_only = flags.contains(rustix::fs::StatVfsMountFlags::RDONLY);
        assert!(read_only, "its executable can be written once it has ended");
    }
    node.finish().await;
}
