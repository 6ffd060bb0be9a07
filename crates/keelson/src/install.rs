//! `keelson install`: a service of systemd's, so that the cluster comes back after a reboot.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use crate::cli::Cluster;
use crate::layout::Layout;

const UNIT: &str = "keelson.service";

/// What to install, and where.
#[derive(Args)]
pub struct Install {
    /// What the cluster is like.
    #[command(flatten)]
    pub cluster: Cluster,
    /// Print the unit, and install nothing.
    #[arg(long)]
    print: bool,
    /// Stop the service and take it away; pods and data stay.
    #[arg(long, conflicts_with = "print")]
    remove: bool,
    /// Where the program goes.
    #[arg(long, value_name = "DIR", default_value = "/usr/local/bin")]
    bin_dir: PathBuf,
    /// Where the unit goes.
    #[arg(long, value_name = "DIR", default_value = "/etc/systemd/system")]
    unit_dir: PathBuf,
}

/// Does it.
///
/// # Errors
/// Without root or systemd, and when a file cannot be written or systemd refuses.
pub fn run(layout: &Layout, install: &Install) -> anyhow::Result<()> {
    let program = install.bin_dir.join("keelson");
    let mut words = vec![program.display().to_string()];
    words.extend(layout.arguments().iter().map(|a| a.to_string_lossy().into_owned()));
    words.push("up".to_owned());
    words.extend(install.cluster.given().iter().map(|a| a.to_string_lossy().into_owned()));
    let unit = unit(&words);
    if install.print {
        print!("{unit}");
        return Ok(());
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "a service of the machine needs root: run `sudo keelson install`"
    );
    if !Path::new("/run/systemd/system").exists() {
        bail!("systemd does not run this machine: have its init system run `{}`", words.join(" "));
    }
    let path = install.unit_dir.join(UNIT);
    if install.remove {
        systemctl(&["disable", "--now", UNIT])?;
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        systemctl(&["daemon-reload"])?;
        println!("  ✓ removed {}\n\n  Pods go on running: `keelson down` stops them.", path.display());
        return Ok(());
    }
    place(&program)?;
    println!("  ✓ program        {}", program.display());
    fs::write(&path, unit).with_context(|| format!("write {}", path.display()))?;
    println!("  ✓ unit           {}", path.display());
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", "--now", UNIT])?;
    println!(
        "  ✓ service        runs, and will after a reboot\n\n    export KUBECONFIG={}\n    kubectl get nodes",
        layout.admin_kubeconfig().display()
    );
    Ok(())
}

/// Copies this program there, unless it is there. The old one goes in one step: it may be running.
fn place(program: &Path) -> anyhow::Result<()> {
    let own = std::env::current_exe().context("find this program")?;
    if fs::canonicalize(program).is_ok_and(|there| there == own) {
        return Ok(());
    }
    let new = program.with_extension("new");
    fs::copy(&own, &new).with_context(|| format!("write {}", new.display()))?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).context("make it executable")?;
    fs::rename(&new, program).with_context(|| format!("write {}", program.display()))
}

fn systemctl(arguments: &[&str]) -> anyhow::Result<()> {
    let out = Command::new("systemctl").args(arguments).output().context("run systemctl")?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "systemctl {}: {}", arguments.join(" "), said.trim());
    Ok(())
}

/// The unit. Only the first process is stopped: it ends its own, and the pods' go on, as after `Ctrl-C`.
fn unit(words: &[String]) -> String {
    let command: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!(
        "[Unit]\nDescription=Keelson, a complete Kubernetes\nWants=network-online.target\nAfter=network-online.target\n\n\
         [Service]\nType=notify\nExecStart={}\nKillMode=process\nDelegate=yes\nRestart=always\nRestartSec=2\n\
         TasksMax=infinity\nLimitNOFILE=1048576\nOOMScoreAdjust=-999\n\n[Install]\nWantedBy=multi-user.target\n",
        command.join(" ")
    )
}

/// A word as systemd reads it. Source: systemd.service(5), "Command lines"; systemd.unit(5), "Specifiers".
fn quoted(word: &str) -> String {
    let plain = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    if plain == word && !word.contains(char::is_whitespace) && !word.is_empty() {
        plain
    } else {
        format!("\"{plain}\"")
    }
}

/// Tells systemd that the cluster is ready, where it asked to be told. Source: sd_notify(3).
///
/// # Errors
/// When its socket cannot be reached.
pub fn notify_ready() -> std::io::Result<()> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let bytes = name.as_encoded_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_systemd() {
        for (word, want) in [
            ("--data-dir", "--data-dir"),
            ("/a b", "\"/a b\""),
            ("50%", "\"50%%\""),
            ("$x", "\"$$x\""),
            ("", "\"\""),
        ] {
            assert_eq!(quoted(word), want);
        }
        let unit = unit(&["/usr/local/bin/keelson".to_owned(), "up".to_owned()]);
        assert!(unit.contains("\nExecStart=/usr/local/bin/keelson up\n"), "{unit}");
    }
}
