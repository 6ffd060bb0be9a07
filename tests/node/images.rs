//! Images for pods, made of Debian's packages, as archives that `docker load` would take.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

/// Debian's static busybox and nothing else.
pub const BUSYBOX: &str = "busybox:1";
/// The same with Debian's Python, and programs of ours: `lookup` asks the DNS, `fetch` an HTTP server; `health` answers
/// gRPC's health checks, `guestbook` is three servers that keep one book.
pub const PYTHON: &str = "python:3";
/// Where Debian's busybox-static has it.
pub const BUSYBOX_PROGRAM: &str = "/bin/busybox";

/// What Debian's Python needs.
const PACKAGES: &[&str] = &[
    "python3.11-minimal",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libc6",
    "libgcc-s1",
    "libexpat1",
    "zlib1g",
    "libssl3",
    "libffi8",
    "liblzma5",
    "libbz2-1.0",
    "libuuid1",
];

/// Writes the archive of busybox below `dir`.
pub fn busybox(dir: &Path) -> PathBuf {
    let root = dir.join("busybox-root");
    for sub in ["bin", "etc", "root", "tmp", "var", "home"] {
        std::fs::create_dir_all(root.join(sub)).expect("a directory");
    }
    std::fs::copy(BUSYBOX_PROGRAM, root.join("bin/busybox")).expect("copy busybox");
    write(&root, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
    write(&root, "etc/group", "root:x:0:\n");
    let applets = run(Command::new(BUSYBOX_PROGRAM).arg("--list"));
    for applet in applets.lines().filter(|name| *name != "busybox") {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).expect("a link");
    }
    let layer = dir.join("busybox-layer.tar");
    run(tar().arg("-C").arg(&root).arg("-cf").arg(&layer).arg("."));
    archive(dir, BUSYBOX, &[layer])
}

/// Writes the archive of Python below `dir`, which has that of busybox. `None` where Debian's Python is not installed.
/// `modules` is a directory of further modules.
pub fn python(dir: &Path, modules: Option<&Path>) -> Option<PathBuf> {
    let listed = Command::new("dpkg").arg("-L").args(PACKAGES).output().expect("dpkg");
    if !listed.status.success() {
        return None;
    }
    let listed = crate::node::text(&listed.stdout);
    let is_wanted = |path: &&str| !path.starts_with("/usr/share") && !Path::new(path).is_dir();
    let files: Vec<&str> =
        listed.lines().filter(is_wanted).map(|path| path.trim_start_matches('/')).collect();
    std::fs::write(dir.join("files"), files.join("\n")).expect("write");
    let layer = dir.join("python-layer.tar");
    run(tar().args(["-C", "/", "--no-recursion", "-T"]).arg(dir.join("files")).arg("-cf").arg(&layer));

    let root = dir.join("programs-root");
    std::fs::create_dir_all(root.join("usr/bin")).expect("a directory");
    std::os::unix::fs::symlink("python3.11", root.join("usr/bin/python3")).expect("a link");
    for (name, text) in [
        ("lookup", include_str!("programs/lookup.py")),
        ("fetch", include_str!("programs/fetch.py")),
        ("health", include_str!("programs/health.py")),
        ("guestbook", include_str!("programs/guestbook.py")),
    ] {
        write(&root, &format!("usr/bin/{name}"), text);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(root.join("usr/bin").join(name), mode).expect("a mode");
    }
    if let Some(modules) = modules {
        std::fs::create_dir_all(root.join("usr/lib/python3")).expect("a directory");
        run(Command::new("cp").arg("-a").arg(modules).arg(root.join("usr/lib/python3/dist-packages")));
    }
    let programs = dir.join("programs-layer.tar");
    run(tar().arg("-C").arg(&root).arg("-cf").arg(&programs).arg("."));
    Some(archive(dir, PYTHON, &[dir.join("busybox-layer.tar"), layer, programs]))
}

/// A directory of modules with Python's client, installed once; `None` where PyPI is out of reach.
pub fn python_client() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-client");
    if !dir.join("kubernetes").exists() {
        let mut pip = Command::new("python3");
        pip.args([
            "-m",
            "pip",
            "install",
            "-q",
            "--only-binary=:all:",
            "--python-version=3.11",
            "--no-compile",
        ]);
        pip.arg("--target");
        let out = pip.arg(&dir).arg("kubernetes").output().ok()?;
        if !out.status.success() {
            eprintln!("{}", crate::node::text(&out.stderr));
            return None;
        }
        // The half of it: another client, which nobody here uses.
        drop(std::fs::remove_dir_all(dir.join("kubernetes/aio")));
    }
    Some(dir)
}

/// An archive of these layers, the lowest first.
fn archive(dir: &Path, name: &str, layers: &[PathBuf]) -> PathBuf {
    let image = dir.join(name.replace(':', "-"));
    std::fs::create_dir_all(&image).expect("a directory");
    let digests = layers.iter().map(|layer| {
        let said = run(Command::new("sha256sum").arg(layer));
        format!("sha256:{}", said.split(' ').next().expect("a digest"))
    });
    let digests: Vec<String> = digests.collect();
    let names: Vec<String> = (0..layers.len()).map(|n| format!("layer-{n}.tar")).collect();
    for (layer, name) in layers.iter().zip(&names) {
        std::fs::hard_link(layer, image.join(name)).expect("a link");
    }
    let config = json!({
        "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }, "os": "linux",
        "config": { "Env": ["PATH=/bin:/usr/bin"], "Entrypoint": ["echo", "entrypoint"], "Cmd": ["and", "command"] },
        "rootfs": { "type": "layers", "diff_ids": digests },
    });
    write(&image, "config.json", &config.to_string());
    let manifest = json!([{ "Config": "config.json", "RepoTags": [name], "Layers": names }]);
    write(&image, "manifest.json", &manifest.to_string());
    let archive = dir.join(format!("{}.tar", name.replace(':', "-")));
    run(tar().arg("-C").arg(&image).arg("-cf").arg(&archive).arg("."));
    archive
}

fn tar() -> Command {
    let mut tar = Command::new("tar");
    tar.args(["--owner=0", "--group=0"]);
    tar
}

fn write(root: &Path, name: &str, text: &str) {
    std::fs::write(root.join(name), text).expect("write");
}

fn run(command: &mut Command) -> String {
    let out = command.output().expect("it can be run");
    assert!(out.status.success(), "{command:?}: {}", crate::node::text(&out.stderr));
    crate::node::text(&out.stdout)
}
