//! Clients in other languages: installed by their own package managers into the target directory, then run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::server::Server;

/// Where packages are installed.
fn installed(name: &str) -> Result<PathBuf> {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// Whether a program ends well; what it says is shown.
fn runs(command: &mut Command) -> bool {
    command.status().is_ok_and(|status| status.success())
}

#[test]
fn python_lists_watches_and_writes() -> Result<()> {
    let dir = installed("python")?;
    let python = dir.join("bin/python");
    let has = |python: &Path| runs(Command::new(python).args(["-c", "import kubernetes"]));
    if !has(&python) {
        let made = runs(Command::new("python3").args(["-m", "venv"]).arg(&dir))
            && runs(Command::new(&python).args(["-m", "pip", "install", "-q", "kubernetes"]));
        if !made {
            eprintln!("SKIPPED: Python's package kubernetes cannot be installed here");
            return Ok(());
        }
    }
    let server = Server::start()?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/client.py");
    ensure!(runs(Command::new(python).arg(script).arg(server.kubeconfig())), "the client failed; see above");
    Ok(())
}

#[test]
fn javascript_lists_watches_and_writes() -> Result<()> {
    let dir = installed("javascript")?;
    // Node looks for packages beside the script.
    for file in ["package.json", "client.mjs"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("javascript").join(file);
        std::fs::copy(from, dir.join(file))?;
    }
    let npm = ["install", "--no-audit", "--no-fund", "--silent", "--prefer-offline"];
    if !runs(Command::new("npm").current_dir(&dir).args(npm)) {
        eprintln!("SKIPPED: npm's package @kubernetes/client-node cannot be installed here");
        return Ok(());
    }
    let server = Server::start()?;
    let mut node = Command::new("node");
    node.current_dir(&dir).arg("client.mjs").arg(server.kubeconfig());
    ensure!(runs(&mut node), "the client failed; see above");
    Ok(())
}
