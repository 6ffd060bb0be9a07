//! Facts of this machine, from /proc and /etc. Upstream: github.com/google/cadvisor/machine.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::PathBuf;

use apimachinery::quantity::{Format, Quantity};

use crate::doors::{Machine, MachineInfo, Short};

/// Upstream's hard eviction thresholds: bytes of memory, and hundredths of disk and inodes.
const MEMORY_LEAST: i64 = 100 << 20;
const DISK_PERCENT_LEAST: u64 = 10;
const INODES_PERCENT_LEAST: u64 = 5;

/// This machine, or the part of it that flags give to a node.
#[derive(Clone, Debug, Default)]
pub struct HostMachine {
    /// The kubelet's directory, whose file system counts as the node's.
    pub root_dir: PathBuf,
    /// Thousandths of a CPU, where not all are the node's.
    pub cpu_milli: Option<i64>,
    /// Bytes, where not all are the node's.
    pub memory: Option<i64>,
}

fn line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// A member of /proc/meminfo, in bytes.
fn memory(name: &str) -> i64 {
    let text = line("/proc/meminfo");
    let found = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    let kib: i64 = found.and_then(|v| v.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    kib << 10
}

/// The address from which this machine would speak to the world; no packet is sent.
fn address(local: IpAddr, remote: IpAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind((local, 0)).ok()?;
    socket.connect((remote, 53)).ok()?;
    let found = socket.local_addr().ok()?.ip();
    (!found.is_unspecified()).then_some(found)
}

fn addresses() -> Vec<IpAddr> {
    // Addresses reserved for documentation (RFC 5737, RFC 3849): they follow the default route.
    let v4 = address(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(203, 0, 113, 1).into());
    let v6 = address(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into());
    let found: Vec<IpAddr> = v4.into_iter().chain(v6).collect();
    if found.is_empty() { vec![Ipv4Addr::LOCALHOST.into()] } else { found }
}

impl Machine for HostMachine {
    fn info(&self) -> MachineInfo {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let disk = rustix::fs::statvfs(&self.root_dir).ok();
        let release = line("/etc/os-release");
        let pretty = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
        MachineInfo {
            cpu_milli: self.cpu_milli.unwrap_or(i64::try_from(cpus).unwrap_or(1) * 1000),
            memory: self.memory.unwrap_or_else(|| memory("MemTotal")),
            storage: disk.map_or(0, |d| i64::try_from(d.f_blocks * d.f_frsize).unwrap_or(i64::MAX)),
            addresses: addresses(),
            hostname: line("/proc/sys/kernel/hostname"),
            machine_id: line("/etc/machine-id"),
            system_uuid: line("/sys/class/dmi/id/product_uuid"),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            kernel_version: line("/proc/sys/kernel/osrelease"),
            os_image: pretty.unwrap_or("Linux").trim_matches('"').to_owned(),
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            }
            .to_owned(),
        }
    }

    fn short(&self) -> Vec<Short> {
        let (mut out, available) = (Vec::new(), memory("MemAvailable"));
        let bytes = |n: i64| Quantity::from_value(n, Format::BinarySi).to_string();
        if available < MEMORY_LEAST {
            let (threshold, available) = (bytes(MEMORY_LEAST), bytes(available));
            out.push(Short { resource: "memory", threshold, available });
        }
        let low = |free: u64, all: u64, percent: u64| all > 0 && free * 100 < all * percent;
        let mut disk = |threshold: String, available: String| {
            out.push(Short { resource: "ephemeral-storage", threshold, available });
        };
        match rustix::fs::statvfs(&self.root_dir) {
            Ok(d) if low(d.f_bavail, d.f_blocks, DISK_PERCENT_LEAST) => {
                let of = |blocks: u64| bytes(i64::try_from(blocks * d.f_frsize).unwrap_or(i64::MAX));
                disk(of(d.f_blocks * DISK_PERCENT_LEAST / 100), of(d.f_bavail));
            }
            Ok(d) if low(d.f_favail, d.f_files, INODES_PERCENT_LEAST) => {
                disk((d.f_files * INODES_PERCENT_LEAST / 100).to_string(), d.f_favail.to_string());
            }
            _ => {}
        }
        out
    }

    fn resolv_conf(&self) -> String {
        // systemd's own file names the real servers; the usual one may point at a loopback stub.
        let stub = fs::read_link("/etc/resolv.conf").is_ok_and(|to| to.ends_with("stub-resolv.conf"));
        fs::read_to_string(if stub { "/run/systemd/resolve/resolv.conf" } else { "/etc/resolv.conf" })
            .unwrap_or_default()
    }

    fn hosts(&self) -> String {
        fs::read_to_string("/etc/hosts").unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_what_any_has() {
        let machine = HostMachine { root_dir: "/".into(), memory: Some(5), ..HostMachine::default() };
        let info = machine.info();
        assert!(info.cpu_milli >= 1000 && info.storage > 0 && !info.kernel_version.is_empty());
        assert_eq!(info.memory, 5);
        assert!(memory("MemTotal") > 0 && !info.addresses.is_empty());
    }
}
