//! What a node leaves in the host: counted before and after.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::node::Node;

/// Settings beside the network's that kubelets change.
const SETTINGS: &[&str] = &[
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// What is there, by kind.
#[derive(Debug, PartialEq, Eq)]
pub struct Host {
    lists: BTreeMap<&'static str, BTreeSet<String>>,
    settings: BTreeMap<String, String>,
}

impl Host {
    /// Counts. Interfaces, addresses, routes, rules and settings are those of the node's network; mounts, control
    /// groups and processes of the whole machine count if they are the node's.
    pub fn count(node: &Node) -> Host {
        let lines = |program: &str, arguments: &[&str]| {
            node.ok(program, arguments).lines().map(str::to_owned).collect::<BTreeSet<_>>()
        };
        let lists = BTreeMap::from([
            ("interfaces", lines("ip", &["-o", "link"])),
            ("addresses", lines("ip", &["-o", "address"]).iter().map(|l| without_lifetimes(l)).collect()),
            ("routes", lines("ip", &["route", "show", "table", "all"])),
            ("IPv6 routes", lines("ip", &["-6", "route", "show", "table", "all"])),
            ("rules", lines("ip", &["rule"])),
            ("IPv6 rules", lines("ip", &["-6", "rule"])),
            ("nftables", lines("nft", &["list", "ruleset"])),
            ("mounts", mounts(node)),
            ("control groups", control_groups(node)),
            ("processes", processes(node)),
        ]);
        let settings = std::thread::scope(|scope| {
            let counting = || {
                node.enter_network();
                settings()
            };
            scope.spawn(counting).join().expect("it does not panic")
        });
        Host { lists, settings }
    }

    /// Fails unless everything is as it was `before`.
    pub fn assert_as(&self, before: &Host, when: &str) {
        let mut found = Vec::new();
        for (kind, was) in &before.lists {
            let is = &self.lists[kind];
            found.extend(is.difference(was).map(|l| format!("left of {kind}: {l}")));
            // The namespace's mounts began as a copy; those of another cluster on this machine go with it.
            let others = |l: &&String| *kind == "mounts" && l.contains("keelson");
            found.extend(was.difference(is).filter(|l| !others(l)).map(|l| format!("gone of {kind}: {l}")));
        }
        // A kernel module that was loaded meanwhile brings settings of its own.
        for (name, was) in &before.settings {
            let is = self.settings.get(name).map(String::as_str).unwrap_or_default();
            if is != was {
                found.push(format!("setting {name} was {was:?} and is {is:?}"));
            }
        }
        assert!(found.is_empty(), "{when}:\n{}", found.join("\n"));
    }

    /// How many there are of a kind.
    pub fn len(&self, kind: &str) -> usize {
        self.lists[kind].len()
    }

    /// The node's processes.
    pub fn process_ids(&self) -> Vec<u32> {
        let ids = self.lists["processes"].iter().filter_map(|p| p.split(' ').next()?.parse().ok());
        ids.collect()
    }

    /// How many pods' shims there are.
    pub fn shims(&self) -> usize {
        self.lists["processes"].iter().filter(|p| p.contains(" shim ")).count()
    }
}

/// Seconds that pass are no change.
fn without_lifetimes(line: &str) -> String {
    line.split(" valid_lft").next().unwrap_or_default().to_owned()
}

/// Mount points in the node's namespace, which began as a copy of the host's, and the node's in the host's own.
fn mounts(node: &Node) -> BTreeSet<String> {
    let table =
        |process: &str| fs::read_to_string(format!("/proc/{process}/mountinfo")).expect("a mount table");
    let point = |line: &str| {
        let (before, after) = line.split_once(" - ").expect("a separator");
        format!(
            "{} {}",
            before.split(' ').nth(4).unwrap_or_default(),
            after.split(' ').next().unwrap_or_default()
        )
    };
    let mut all: BTreeSet<String> = table(&node.place().to_string()).lines().map(point).collect();
    let own = node.path("").to_string_lossy().into_owned();
    all.extend(table("self").lines().map(point).filter(|p| p.contains(&own)).map(|p| format!("host: {p}")));
    all
}

fn control_groups(node: &Node) -> BTreeSet<String> {
    fn walk(dir: &Path, own: &str, out: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                let path = entry.path();
                if path.to_string_lossy().contains(own) {
                    out.insert(path.to_string_lossy().into_owned());
                }
                walk(&path, own, out);
            }
        }
    }
    let mut out = BTreeSet::new();
    walk(Path::new("/sys/fs/cgroup"), &node.cgroups, &mut out);
    out
}

/// Processes in the node's control groups, or with its directories in their arguments, or in its network.
fn processes(node: &Node) -> BTreeSet<String> {
    let own = node.path("").to_string_lossy().trim_end_matches('/').to_owned();
    let net = |id: &str| fs::read_link(format!("/proc/{id}/ns/net")).ok();
    let place = node.place().to_string();
    let here = net(&place);
    let mut out = BTreeSet::new();
    for entry in fs::read_dir("/proc").expect("processes").flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        if id == place || !id.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        let (groups, arguments) = (read("cgroup"), read("cmdline"));
        if arguments.is_empty() {
            // It has ended, and waits for the machine's init to take note.
            continue;
        }
        let (groups, arguments) = (String::from_utf8_lossy(&groups), String::from_utf8_lossy(&arguments));
        if groups.contains(&node.cgroups) || arguments.contains(&own) || (net(&id) == here && here.is_some())
        {
            out.insert(format!("{id} {}", arguments.replace('\0', " ")));
        }
    }
    out
}

/// The settings of the calling thread's network, and some of the kernel's.
fn settings() -> BTreeMap<String, String> {
    fn walk(dir: &Path, out: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                walk(&path, out);
            } else if let Ok(value) = fs::read_to_string(&path) {
                out.insert(path.to_string_lossy().into_owned(), value.trim().to_owned());
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(Path::new("/proc/sys/net"), &mut out);
    // Counters, not settings.
    out.retain(|name, _| !name.ends_with("/nf_conntrack_count"));
    for name in SETTINGS {
        let path = format!("/proc/sys/{name}");
        if let Ok(value) = fs::read_to_string(&path) {
            out.insert(path, value.trim().to_owned());
        }
    }
    out
}
