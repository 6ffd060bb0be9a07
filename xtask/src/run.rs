//! Building, showing and testing the product.
//!
//! Everything is linked statically, since the binary runs as a program inside containers too. That needs a target to
//! be named, so that compile-time plugins stay dynamic.
use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What tests need from Debian besides the toolchain: programs to look for, and their packages.
const PROGRAMS: &[(&str, &str)] = &[("/bin/busybox", "busybox-static")];

/// Builds the static binary in this profile; gives its path.
pub fn build(root: &Path, profile: &str) -> Result<PathBuf> {
    let triple = host()?;
    let status = cargo(root, &triple)
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
    command.args(args).args(["--target", &triple]).env("KEELSON_BINARY", binary);
    ensure!(command.status()?.success(), "tests failed");
    Ok(())
}

/// Installs what is missing, where that is possible; tests say themselves what they skip without it.
fn install() {
    let missing: Vec<&str> =
        PROGRAMS.iter().filter(|(path, _)| !Path::new(path).exists()).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return;
    }
    let apt = |args: &[&str]| as_root(Path::new("apt-get")).args(args).status().is_ok_and(|s| s.success());
    println!("installing {}", missing.join(" "));
    let mut install = vec!["install", "-y", "--no-install-recommends"];
    install.extend(&missing);
    if !(apt(&["update", "-q"]) && apt(&install)) {
        eprintln!("could not install {}: tests that need it say what they skip", missing.join(" "));
    }
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
    let root = std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    if root {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    command
}
