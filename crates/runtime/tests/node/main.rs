//! The embedded engine on this machine's kernel: real shims, real containers. Needs root; without it, or
//! without a static busybox to make an image of, the tests say so and pass.

mod containers;
mod hostile;
mod images;
mod recovery;
mod registry;
mod streams;
mod support;

/// Where control groups are version 1, the same tests once more with a tree of version 2 in its place, in a
/// mount namespace that ends with them. What limits needs controllers, which version 1 has taken.
#[test]
fn the_same_on_version_2_of_control_groups() {
    const SCRIPT: &str = "\
        while umount /sys/fs/cgroup/* 2>/dev/null; do :; done; umount /sys/fs/cgroup 2>/dev/null
        mount -t cgroup2 none /sys/fs/cgroup && exec \"$0\" containers:: recovery:: streams:: --skip memory_limit";
    let version_1 = std::path::Path::new("/sys/fs/cgroup/memory").exists();
    if !support::possible() || !version_1 {
        return;
    }
    let own = std::env::current_exe().expect("a path");
    let run = std::process::Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT])
        .arg(own)
        .output()
        .expect("unshare");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("commands_in_a_container ... ok"), "{said}");
}
