//! `tests/conformance.toml`: which rows of the conformance list our tests prove, and that none is lost again.
//!
//! The file is TOML, one row a line: a row's name, and `"open"` or a list of tests as `file::function`. Where upstream's
//! own list lies beside the checkout, the names are compared with it; the number of rows is checked everywhere.
use crate::source::{self, Source};
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

const FILE: &str = "tests/conformance.toml";
/// Rows of the list of 1.28.
const ROWS: usize = 380;
/// Upstream's list, in a checkout that has it beside it.
const LIST: &str = "../shared/upstream/conformance-1.28.yaml";

/// Name of a row to the tests that prove it; none for an open one.
type Rows = BTreeMap<String, Vec<String>>;

/// Says how many rows are proven, after all checks.
pub fn run(root: &Path) -> Result<()> {
    let rows = parse(&std::fs::read_to_string(root.join(FILE)).context(FILE)?)?;
    let mut problems = Vec::new();
    if rows.len() != ROWS {
        problems.push(format!("{FILE}: {} rows in place of {ROWS}", rows.len()));
    }
    names(root, &rows, &mut problems);
    let sources = source::hand_written(root)?;
    for (row, tests) in &rows {
        let lost = tests.iter().filter(|test| !exists(test, &sources));
        problems
            .extend(lost.map(|test| format!("{FILE}: there is no test {test}, which is to prove {row:?}")));
    }
    never_open_again(root, &rows, &mut problems)?;
    if problems.is_empty() {
        println!("{} of {ROWS} rows proven", rows.values().filter(|tests| !tests.is_empty()).count());
        return Ok(());
    }
    bail!("{} findings:\n{}", problems.len(), problems.join("\n"));
}

/// Names and values are TOML that is JSON, too, and stand on one line.
fn parse(text: &str) -> Result<Rows> {
    let mut rows = Rows::new();
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty() && !l.starts_with('#')) {
        let at = || format!("{FILE}:{}", i + 1);
        let (name, value) = line.split_once("\" = ").with_context(at)?;
        let name: String = serde_json::from_str(&format!("{name}\"")).with_context(at)?;
        let tests = match value.trim() {
            "\"open\"" => Vec::new(),
            list => serde_json::from_str::<Vec<String>>(list).with_context(at)?,
        };
        if tests.is_empty() != (value.trim() == "\"open\"") || rows.insert(name, tests).is_some() {
            bail!("{}: a row has tests or is \"open\", and stands here once", at());
        }
    }
    Ok(rows)
}

fn names(root: &Path, rows: &Rows, problems: &mut Vec<String>) {
    let Ok(list) = std::fs::read_to_string(root.join(LIST)) else {
        eprintln!(
            "SKIPPED: upstream's list is not beside this checkout; the names of the rows were not compared"
        );
        return;
    };
    // Its long names go over several lines: compare without spaces.
    let bare = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    let list = bare(&list.replace("''", "'"));
    let missing = rows.keys().filter(|row| !list.contains(&bare(row)));
    problems.extend(missing.map(|row| format!("{FILE}: upstream's list has no row {row:?}")));
}

/// Whether `file::function` is a test.
fn exists(test: &str, sources: &[Source]) -> bool {
    let Some((file, function)) = test.split_once("::") else { return false };
    let Some(source) = sources.iter().find(|s| s.path == Path::new(file)) else { return false };
    let lines: Vec<&str> = source.code.lines().map(str::trim).collect();
    let head = format!("fn {function}(");
    lines.iter().enumerate().any(|(i, line)| {
        line.starts_with(&head)
            && lines[..i].iter().rev().take_while(|l| l.starts_with("#[")).any(|l| *l == "#[test]")
    })
}

/// No row that an earlier commit calls proven may be open.
fn never_open_again(root: &Path, rows: &Rows, problems: &mut Vec<String>) -> Result<()> {
    let git = |args: &[&str]| -> Result<String> {
        let out = Command::new("git").current_dir(root).args(args).output().context("run git")?;
        anyhow::ensure!(
            out.status.success(),
            "git {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&out.stderr)
        );
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let Ok(commits) = git(&["log", "--format=%H", "--", FILE]) else {
        eprintln!("SKIPPED: there is no history here; whether a proven row is open again was not checked");
        return Ok(());
    };
    for commit in commits.lines() {
        let Ok(text) = git(&["show", &format!("{commit}:{FILE}")]) else { continue };
        for row in parse(&text)?.into_iter().filter(|(_, tests)| !tests.is_empty()).map(|(row, _)| row) {
            if rows.get(&row).is_none_or(Vec::is_empty) {
                problems.push(format!("{FILE}: {row:?} was proven in {} and is open again", &commit[..12]));
            }
        }
    }
    problems.sort();
    problems.dedup_by_key(|p| p.split(" was proven in ").next().unwrap_or_default().to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proven_rows_are_proven() {
        run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap();
    }

    #[test]
    fn a_row_has_tests_or_is_open() {
        let rows = parse("# x\n\"a \\\"b\\\"\" = \"open\"\n\n\"c\" = [\"f.rs::t\"]\n").unwrap();
        assert_eq!(rows["a \"b\""], Vec::<String>::new());
        assert_eq!(rows["c"], ["f.rs::t"]);
        for wrong in
            ["\"a\" = []", "\"a\" = \"closed\"", "\"a\" = \"open\"\n\"a\" = \"open\"", "a = \"open\""]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_tests_prove() {
        let text = "#[test]\nfn a() {}\nfn b() {}\n#[test]\n#[cfg(unix)]\nfn c() {}\n".to_owned();
        let sources = [Source { path: "tests/x.rs".into(), code: text.clone(), text }];
        let proves = |name: &str| exists(&format!("tests/x.rs::{name}"), &sources);
        assert!(proves("a") && !proves("b") && proves("c") && !proves("d"));
        assert!(!exists("tests/y.rs::a", &sources));
    }
}
