//! Containers that reach for the host's own executable (CVE-2019-5736).

use std::fs;
use std::io::ErrorKind;

use runtime::*;

use crate::support::{Node, possible, shell, shims};

#[tokio::test]
async fn the_hosts_executable_cannot_be_written_through_proc() {
    if !possible() {
        return;
    }
    let node = Node::new().await;
    let sandbox = node.sandbox().await;
    let (_, log) = node.run(&sandbox, shell("readlink /proc/1/exe; readlink /proc/self/exe")).await;
    assert!(log.lines().all(|l| l.ends_with("/busybox")), "{log}");
    // The entry point is the runtime itself, as the attack has it: it runs from a read-only view.
    let before = fs::read(env!("CARGO_BIN_EXE_runtime-shim")).expect("the executable");
    let config = ContainerConfig { command: vec!["/proc/self/exe".into()], ..shell("") };
    node.run(&sandbox, config).await;
    assert!(before == fs::read(env!("CARGO_BIN_EXE_runtime-shim")).expect("the executable"));
    for pid in shims(node.dir.path().to_str().expect("text")) {
        let error =
            fs::File::options().write(true).open(format!("/proc/{pid}/exe")).expect_err("it can be written");
        assert_eq!(
            error.kind(),
            ErrorKind::ReadOnlyFilesystem,
            "busy is not enough: it ends with the process"
        );
    }
    node.finish().await;
}
