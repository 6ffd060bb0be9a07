//! `xtask size`: hand-written lines per crate against the budget, and how many packages a build takes.
//!
//! Counted are lines with something on them; a file's tests go to the tests' budget. Generated files are not counted.
use crate::source;
use anyhow::{Result, bail};
use std::path::Path;

/// Ceilings by group: crates, lines (section 3.4 of the project's style page).
const BUDGET: &[(&str, &[&str], usize)] = &[
    ("base, apimachinery, client", &["base", "apimachinery", "client"], 16_000),
    ("api", &["api"], 8_000),
    ("storage", &["storage", "storage-etcd"], 4_000),
    ("apiserver", &["apiserver"], 13_000),
    ("controllers", &["controllers"], 9_500),
    ("scheduler", &["scheduler"], 3_500),
    ("kubelet, runtime", &["kubelet", "runtime", "runtime-cri"], 14_000),
    ("network, proxy, dns, cloud", &["network", "proxy", "dns", "cloud"], 7_000),
    ("kubectl, bootstrap, keelson", &["kubectl", "bootstrap", "keelson"], 6_000),
];
const PRODUCTION_MAX: usize = 75_000;
const TESTS_MAX: usize = 20_000;
const PACKAGES_MAX: usize = 260;

/// Prints the table; fails when a ceiling is broken.
pub fn run(root: &Path) -> Result<()> {
    let mut counted = vec![0; BUDGET.len()];
    let mut tests = 0;
    for source in source::hand_written(root)? {
        let name = source.path.components().nth(1).map(|c| c.as_os_str().to_string_lossy().into_owned());
        let group =
            BUDGET.iter().position(|(_, crates, _)| name.as_deref().is_some_and(|n| crates.contains(&n)));
        let filled = |line: &&str| !line.trim().is_empty();
        let production = source.text.lines().take(source.tests_at()).filter(filled).count();
        let all = source.text.lines().filter(filled).count();
        match group.filter(|_| source.path.starts_with("crates")) {
            Some(group) => {
                counted[group] += production;
                tests += all - production;
            }
            None => tests += all,
        }
    }
    let lock = std::fs::read_to_string(root.join("Cargo.lock"))?;
    let packages = lock.lines().filter(|l| *l == "[[package]]").count();
    let mut rows: Vec<(&str, usize, usize)> =
        BUDGET.iter().zip(&counted).map(|((name, _, max), lines)| (*name, *lines, *max)).collect();
    rows.push(("production", counted.iter().sum(), PRODUCTION_MAX));
    rows.push(("tests, sim, xtask", tests, TESTS_MAX));
    rows.push(("packages", packages, PACKAGES_MAX));
    let mut over = Vec::new();
    for (name, found, max) in rows {
        println!("{name:<30} {found:>7} of {max:>6}  {:>3} %", found * 100 / max);
        if found > max {
            over.push(name);
        }
    }
    if !over.is_empty() {
        bail!("over budget: {}", over.join("; "));
    }
    Ok(())
}
