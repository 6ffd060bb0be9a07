//! Rust source files as the tidy and size tasks see them: which are generated, what is code and what is text.
use anyhow::Result;
use std::path::{Path, PathBuf};

/// One source file of the tree.
pub struct Source {
    /// Relative to the root.
    pub path: PathBuf,
    pub text: String,
    /// The text with strings and comments blanked; same lines.
    pub code: String,
}

/// Every `.rs` file below `crates`, `xtask` and `tests` that is written by hand.
pub fn hand_written(root: &Path) -> Result<Vec<Source>> {
    let mut found = Vec::new();
    for folder in ["crates", "tests", "xtask"] {
        collect(root, &root.join(folder), &mut found)?;
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn collect(root: &Path, dir: &Path, found: &mut Vec<Source>) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|n| n != "target") {
                collect(root, &path, found)?;
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path)?;
            let path = path.strip_prefix(root)?.to_owned();
            if !text.starts_with("//! Generated ") {
                found.push(Source { path, code: blank(&text), text });
            }
        }
    }
    Ok(())
}

impl Source {
    /// Line (from 0) at which the file's tests begin; tests are last by custom.
    pub fn tests_at(&self) -> usize {
        if self.path.components().any(|c| c.as_os_str() == "tests" || c.as_os_str() == "tests.rs") {
            return 0;
        }
        let lines: Vec<&str> = self.code.lines().collect();
        let is_tests = |i: &usize| {
            lines[*i].trim() == "#[cfg(test)]"
                && lines.get(i + 1).is_some_and(|l| l.starts_with("mod ") && l.ends_with('{'))
        };
        (0..lines.len()).find(is_tests).unwrap_or(lines.len())
    }

    /// Functions before the tests, with their length in lines.
    pub fn functions(&self) -> Vec<(String, usize)> {
        let lines: Vec<&str> = self.code.lines().collect();
        let mut found = Vec::new();
        for (i, line) in lines.iter().enumerate().take(self.tests_at()) {
            let Some(name) = function_name(line) else { continue };
            let (mut depth, mut opened) = (0i32, false);
            for (j, line) in lines.iter().enumerate().skip(i) {
                for c in line.chars() {
                    match c {
                        '{' => (depth, opened) = (depth + 1, true),
                        '}' => depth -= 1,
                        _ => {}
                    }
                }
                let declared_only = !opened && line.trim_end().ends_with(';');
                if declared_only || opened && depth <= 0 {
                    found.push((name.to_owned(), j - i + 1));
                    break;
                }
            }
        }
        found
    }
}

fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    while let Some(shorter) = ["pub(crate) ", "pub(super) ", "pub ", "const ", "async ", "unsafe ", "extern "]
        .iter()
        .find_map(|word| rest.strip_prefix(word))
    {
        rest = shorter.trim_start();
    }
    let name = rest.strip_prefix("fn ")?;
    name.split(['(', '<']).next()
}

/// Replaces the inside of comments, strings and character literals by blanks. Lines stay as they are.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = opaque(bytes, at);
        if end == at {
            out.push(bytes[at]);
            at += 1;
            continue;
        }
        out.extend(bytes[at..end].iter().map(|b| if *b == b'\n' { b'\n' } else { b' ' }));
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The end of the comment or literal that begins here; `at` itself when none does.
fn opaque(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let until = |needle: &[u8], from: usize| {
        rest[from..]
            .windows(needle.len())
            .position(|w| w == needle)
            .map_or(bytes.len(), |p| at + from + p + needle.len())
    };
    match rest {
        [b'/', b'/', ..] => rest.iter().position(|b| *b == b'\n').map_or(bytes.len(), |p| at + p),
        [b'/', b'*', ..] => until(b"*/", 2),
        [b'r', b'"' | b'#', ..] if at == 0 || !is_word(bytes[at - 1]) || bytes[at - 1] == b'b' => {
            let hashes = rest[1..].iter().take_while(|b| **b == b'#').count();
            if rest.get(1 + hashes) != Some(&b'"') {
                return at;
            }
            let mut close = vec![b'"'];
            close.resize(1 + hashes, b'#');
            until(&close, 2 + hashes)
        }
        [b'"', ..] => quoted(bytes, at, b'"'),
        // A character, not a lifetime.
        [b'\'', b'\\', ..] => quoted(bytes, at, b'\''),
        [b'\'', ..] => {
            let len = std::str::from_utf8(&rest[1..rest.len().min(6)])
                .ok()
                .or(Some("x"))
                .and_then(|s| s.chars().next());
            let close = 1 + len.map_or(1, char::len_utf8);
            if rest.get(close) == Some(&b'\'') { at + close + 1 } else { at }
        }
        _ => at,
    }
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

fn quoted(bytes: &[u8], at: usize, quote: u8) -> usize {
    let mut i = at + 1;
    while i < bytes.len() && bytes[i] != quote {
        i += if bytes[i] == b'\\' { 2 } else { 1 };
    }
    (i + 1).min(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_measured_whatever_their_strings_hold() {
        let text = "/// fn a() {\nfn one() {\n    let x = \"}\";\n    let c = '{';\n    let r = r#\"} \" {\"#;\n}\n\
                    trait T { \n    fn declared(&self);\n}\npub(crate) async fn two<'a>(x: &'a str) -> u8 { 1 }\n\
                    #[cfg(test)]\nmod tests {\n    fn hidden() {}\n}\n";
        let source = Source { path: "x.rs".into(), text: text.into(), code: blank(text) };
        let want = [("one".to_owned(), 5), ("declared".to_owned(), 1), ("two".to_owned(), 1)];
        assert_eq!(source.functions(), want);
        assert_eq!(source.tests_at(), 10);
        let elsewhere = text.replace("mod tests {\n    fn hidden() {}\n}", "mod tests;\nfn three() {}");
        let source = Source { path: "x.rs".into(), code: blank(&elsewhere), text: elsewhere };
        assert_eq!((source.functions().len(), source.tests_at()), (4, 13), "they are in a file of their own");
        assert_eq!(Source { path: "x/tests.rs".into(), ..source }.tests_at(), 0);
    }
}
