//! `xtask tidy`: what must hold of the tree and no compiler checks.
//!
//! The direction of dependencies (design: layout), crates without IO, the length of functions and files, files that
//! nothing includes, and reminders without an issue. What is too long today stands in `tidy-allow.txt`, which may only
//! shrink: an entry that is higher than it needs to be is an error, and `--update` lowers it.
use crate::source::{self, Source};
use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 800;
const ALLOW: &str = "xtask/tidy-allow.txt";

/// Which of our crates each crate may depend on. `keelson` and `sim` wire everything together.
const DIRECTION: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("apimachinery", &["base"]),
    ("storage", &["base"]),
    ("storage-etcd", &["base", "storage"]),
    ("api", &["base", "apimachinery"]),
    ("client", &["base", "apimachinery"]),
    ("apiserver", &["base", "apimachinery", "api", "storage", "client"]),
    ("controllers", &["base", "apimachinery", "client"]),
    ("scheduler", &["base", "apimachinery", "client"]),
    ("runtime", &["base"]),
    ("runtime-cri", &["base", "runtime"]),
    ("network", &["base", "apimachinery", "client"]),
    ("kubelet", &["base", "apimachinery", "client", "runtime", "network"]),
    ("proxy", &["base", "apimachinery", "client", "network"]),
    ("dns", &["base", "apimachinery", "client"]),
    ("cloud", &["base", "apimachinery", "client"]),
    ("kubectl", &["base", "apimachinery", "client"]),
    ("bootstrap", &["base", "apimachinery", "client"]),
    ("harness", &["apimachinery", "api", "storage", "apiserver"]),
    ("fuzz", &["base", "apimachinery", "api", "apiserver", "harness"]),
    ("xtask", &[]),
    ("node-tests", &["base"]),
    ("conformance-tests", &[]),
];
/// Crates that do no IO, and what would let them.
const PURE: &[&str] = &["apimachinery", "api"];
const IO: &[&str] =
    &["hyper", "hyper-util", "libc", "nix", "rtnetlink", "rustix", "rustls", "tokio", "tokio-rustls"];
const IO_PATHS: &[&str] =
    &["std::fs", "std::net::Tcp", "std::net::Udp", "std::os::", "std::process::Command"];

/// Runs every check and reports all findings at once; with `update` lowers the allow-list first.
pub fn run(root: &Path, update: bool) -> Result<()> {
    let sources = source::hand_written(root)?;
    let mut problems = Vec::new();
    dependencies(root, &sources, &mut problems)?;
    lengths(root, &sources, update, &mut problems)?;
    for source in &sources {
        words(source, &mut problems);
        io(source, &mut problems);
        selects(source, &mut problems);
    }
    unreachable_files(root, &sources, &mut problems);
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{} findings:\n{}", problems.len(), problems.join("\n"));
}

fn dependencies(root: &Path, sources: &[Source], problems: &mut Vec<String>) -> Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let args = ["metadata", "--no-deps", "--offline", "--format-version", "1"];
    let out = Command::new(cargo).args(args).current_dir(root).output()?;
    ensure!(out.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&out.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout)?;
    let packages = metadata["packages"].as_array().context("packages")?;
    let ours: BTreeSet<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        unused(root, package, sources, problems);
        if ["keelson", "sim"].contains(&name) {
            continue;
        }
        let Some((_, allowed)) = DIRECTION.iter().find(|(n, _)| *n == name) else {
            problems.push(format!("crate {name}: say in {} what it may depend on", file!()));
            continue;
        };
        let normal = package["dependencies"].as_array().into_iter().flatten().filter(|d| d["kind"].is_null());
        for dependency in normal.filter_map(|d| d["name"].as_str()) {
            if ours.contains(dependency) && !allowed.contains(&dependency) {
                problems.push(format!("crate {name}: must not depend on {dependency}"));
            }
            if PURE.contains(&name) && IO.contains(&dependency) {
                problems.push(format!("crate {name}: does no IO, so it cannot use {dependency}"));
            }
        }
    }
    Ok(())
}

/// Dependencies that no source of the package names.
fn unused(root: &Path, package: &serde_json::Value, sources: &[Source], problems: &mut Vec<String>) {
    let text = |of: &serde_json::Value, key: &str| of[key].as_str().unwrap_or_default().to_owned();
    let manifest = PathBuf::from(text(package, "manifest_path"));
    let dir = manifest.parent().and_then(|dir| dir.strip_prefix(root.canonicalize().ok()?).ok());
    let Some(dir) = dir else { return };
    let mut own: Vec<&Source> = sources.iter().filter(|s| s.path.starts_with(dir)).collect();
    // Tests may borrow another package's modules.
    let borrowed: Vec<PathBuf> =
        own.iter().flat_map(|source| modules(root, source)).map(|p| plain(&p)).collect();
    own.extend(sources.iter().filter(|s| !s.path.starts_with(dir) && borrowed.contains(&s.path)));
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        let name = Some(text(dependency, "rename")).filter(|n| !n.is_empty());
        let name = name.unwrap_or_else(|| text(dependency, "name"));
        if !own.iter().any(|source| names(&source.code, &name.replace('-', "_"))) {
            problems.push(format!("crate {}: declares {name} and never uses it", text(package, "name")));
        }
    }
}

/// A path without `..`.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(out.pop()),
            part => out.push(part),
        }
    }
    out
}

/// Whether code says `krate::…` or `use krate`.
fn names(code: &str, krate: &str) -> bool {
    code.match_indices(krate).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + krate.len()..]);
        let begins = !before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | ':'));
        let outer = before.ends_with("::") && !before.trim_end_matches("::").ends_with(char::is_alphanumeric);
        let used = before.ends_with("use ") && after.starts_with([';', ' ']);
        (begins || outer) && (after.starts_with("::") || used)
    })
}

fn io(source: &Source, problems: &mut Vec<String>) {
    // A module of tests in a file of its own is as free as one inside a file.
    let tests = source.path.ends_with("tests.rs");
    let pure = !tests && PURE.iter().any(|name| source.path.starts_with(format!("crates/{name}/src")));
    for (i, line) in source.code.lines().enumerate().take(source.tests_at()).filter(|_| pure) {
        for path in IO_PATHS.iter().filter(|p| line.contains(**p)) {
            problems.push(format!("{}:{}: {path} in a crate without IO", source.path.display(), i + 1));
        }
    }
}

/// tokio's `select!` polls in random order. No lint can forbid it: `base::select!` is made of it.
fn selects(source: &Source, problems: &mut Vec<String>) {
    let base = source.path.starts_with("crates/base");
    for (i, _) in source.code.lines().enumerate().filter(|(_, line)| !base && line.contains("tokio::select!"))
    {
        problems.push(format!(
            "{}:{}: use base::select!, which polls in order",
            source.path.display(),
            i + 1
        ));
    }
}

fn words(source: &Source, problems: &mut Vec<String>) {
    for (i, line) in source.text.lines().enumerate() {
        for word in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX:")] {
            let issue = |rest: &str| rest.trim_start_matches(['(', ':', ' ']).starts_with('#');
            if line.split(word).skip(1).any(|rest| !issue(rest)) {
                problems.push(format!("{}:{}: {word} without an issue number", source.path.display(), i + 1));
            }
        }
    }
}

/// Too long functions and files against the allow-list, whose lines are `<path>[::<function>] <lines>`.
fn lengths(root: &Path, sources: &[Source], update: bool, problems: &mut Vec<String>) -> Result<()> {
    let mut measured: BTreeMap<String, usize> = BTreeMap::new();
    for source in sources {
        let path = source.path.display();
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            measured.insert(path.to_string(), lines);
        }
        for (name, lines) in source.functions() {
            let longest = measured.entry(format!("{path}::{name}")).or_default();
            *longest = lines.max(*longest);
        }
    }
    measured
        .retain(|name, lines| *lines > if name.contains("::") { FUNCTION_LINES_MAX } else { FILE_LINES_MAX });
    let mut allowed: BTreeMap<String, usize> = BTreeMap::new();
    for line in std::fs::read_to_string(root.join(ALLOW)).unwrap_or_default().lines() {
        let (name, lines) = line.rsplit_once(' ').with_context(|| format!("{ALLOW}: {line}"))?;
        allowed.insert(name.to_owned(), lines.parse().with_context(|| format!("{ALLOW}: {line}"))?);
    }
    if update {
        allowed.retain(|name, _| measured.contains_key(name));
        for (name, lines) in &mut allowed {
            *lines = measured[name].min(*lines);
        }
        let text: String = allowed.iter().map(|(name, lines)| format!("{name} {lines}\n")).collect();
        std::fs::write(root.join(ALLOW), text)?;
    }
    for (name, lines) in &measured {
        match allowed.get(name) {
            None => problems.push(format!("{name}: {lines} lines")),
            Some(limit) if lines > limit => {
                problems.push(format!("{name}: {lines} lines, grown from {limit}"))
            }
            Some(_) => {}
        }
    }
    for (name, limit) in &allowed {
        if measured.get(name).is_none_or(|lines| lines < limit) {
            problems.push(format!("{ALLOW}: {name} is shorter than {limit} now: cargo xtask tidy --update"));
        }
    }
    Ok(())
}

/// Files that no `mod` leads to are never compiled.
fn unreachable_files(root: &Path, sources: &[Source], problems: &mut Vec<String>) {
    let mut reached: BTreeSet<PathBuf> = BTreeSet::new();
    let by_path: BTreeMap<&Path, &Source> = sources.iter().map(|s| (s.path.as_path(), s)).collect();
    let mut open: Vec<PathBuf> = sources.iter().map(|s| s.path.clone()).filter(|p| is_root(p)).collect();
    while let Some(path) = open.pop() {
        let Some(source) = by_path.get(path.as_path()).filter(|_| !reached.contains(&path)) else { continue };
        open.extend(modules(root, source));
        reached.insert(path);
    }
    for source in sources.iter().filter(|s| !reached.contains(&s.path)) {
        problems.push(format!("{}: no `mod` leads to it", source.path.display()));
    }
}

fn is_root(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let parent = path.parent().and_then(Path::file_name).unwrap_or_default();
    let above = path.parent().and_then(Path::parent).and_then(Path::file_name).unwrap_or_default();
    text.ends_with("src/lib.rs")
        || text.ends_with("src/main.rs")
        || text.ends_with("/build.rs")
        || above == "tests" && path.ends_with("main.rs")
        || ["tests", "benches", "examples", "bin", "fuzz_targets"].iter().any(|f| parent == *f)
}

/// The files that a file's `mod` lines lead to.
fn modules(root: &Path, source: &Source) -> Vec<PathBuf> {
    let dir = source.path.parent().unwrap_or(Path::new(""));
    let own_folder = is_root(&source.path) || source.path.ends_with("mod.rs");
    let below = if own_folder { dir.to_owned() } else { source.path.with_extension("") };
    let mut found = Vec::new();
    let mut path_attribute = None;
    for (line, code) in source.text.lines().zip(source.code.lines()) {
        let line = line.trim();
        if let Some(path) = line.strip_prefix("#[path = \"").and_then(|l| l.strip_suffix("\"]")) {
            path_attribute = Some(dir.join(path));
            continue;
        }
        let visible = ["pub(crate) ", "pub(super) ", "pub "].iter().find_map(|p| code.trim().strip_prefix(p));
        let declared = visible.unwrap_or(code.trim()).strip_prefix("mod ").and_then(|l| l.strip_suffix(';'));
        if let Some(name) = declared {
            let plain = [below.join(format!("{name}.rs")), below.join(name).join("mod.rs")];
            let path = path_attribute.take().or_else(|| plain.into_iter().find(|p| root.join(p).is_file()));
            found.extend(path);
        } else if line.ends_with([';', '{', '}']) {
            // Whatever an attribute stood before; attributes may have several lines themselves.
            path_attribute = None;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        run(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), false).unwrap();
    }

    #[test]
    fn code_names_what_it_uses() {
        for (code, expected) in [
            ("use bytes::Bytes;", true),
            ("fn f(b: &::bytes::Bytes)", true),
            ("use bytes as b;", true),
            ("let n = text.bytes();", false),
            ("std::bytes::x", false),
            ("let bytes = 1;", false),
        ] {
            assert_eq!(names(code, "bytes"), expected, "{code}");
        }
    }

    #[test]
    fn reminders_need_an_issue() {
        let word = concat!("TO", "DO");
        let text = format!("// {word}(#12): later\n// {word} #3\n// {word}: never\n");
        let mut problems = Vec::new();
        words(&Source { path: "x.rs".into(), code: text.clone(), text }, &mut problems);
        assert_eq!(problems, [format!("x.rs:3: {word} without an issue number")]);
    }
}
