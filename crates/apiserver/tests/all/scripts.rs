//! Runs `tests/api/*.txt`: requests with their full answers. `KEELSON_REWRITE=1` writes the answers anew.
//!
//! A request is a line `METHOD path`, header lines, an empty line and a body (both optional); a line `-> code` begins
//! the answer, which ends at the next request, comment or empty line before one. Lines that begin with `#` are comments.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use harness::Server;

const METHODS: [&str; 5] = ["GET ", "POST ", "PUT ", "PATCH ", "DELETE "];

struct Step {
    comments: String,
    request: String,
    headers: Vec<(String, String)>,
    body: String,
    expected: String,
}

fn parse(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut comments = String::new();
    let (mut in_body, mut in_answer) = (false, false);
    for line in text.lines() {
        if line.starts_with('#') {
            writeln!(comments, "{line}").unwrap();
        } else if METHODS.iter().any(|m| line.starts_with(m)) {
            steps.push(Step {
                comments: std::mem::take(&mut comments),
                request: line.to_owned(),
                headers: Vec::new(),
                body: String::new(),
                expected: String::new(),
            });
            (in_body, in_answer) = (false, false);
        } else if let Some(step) = steps.last_mut() {
            if line.starts_with("-> ") {
                in_answer = true;
            }
            if in_answer {
                step.expected.push_str(line);
                step.expected.push('\n');
            } else if in_body {
                step.body.push_str(line);
                step.body.push('\n');
            } else if let Some((name, value)) = line.split_once(": ") {
                step.headers.push((name.to_lowercase(), value.to_owned()));
            } else {
                in_body = true;
            }
        }
    }
    steps
}

async fn run(text: &str) -> String {
    let server = Server::start().await;
    let mut out = String::new();
    let mut token = String::new();
    for step in parse(text) {
        let (method, uri) = step.request.split_once(' ').unwrap();
        // The token of the last list's next page.
        let uri = uri.replace("$CONTINUE", &token);
        let mut headers: Vec<(&str, &str)> =
            step.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        if !step.body.trim_start().starts_with(['{', '['])
            && !headers.iter().any(|(n, _)| *n == "content-type")
        {
            headers.push(("content-type", "application/yaml"));
        }
        let answer = server.send(method, &uri, &headers, step.body.trim_end().to_owned().into()).await;
        let next = answer.doc.root().find("metadata.continue").str();
        if !next.is_empty() {
            token = next.to_owned();
        }
        writeln!(out, "{}{}", step.comments, step.request).unwrap();
        for (name, value) in &step.headers {
            writeln!(out, "{name}: {value}").unwrap();
        }
        if !step.body.trim().is_empty() {
            write!(out, "\n{}\n", step.body.trim_end()).unwrap();
        }
        writeln!(out, "-> {}", answer.code).unwrap();
        for warning in &answer.warnings {
            writeln!(out, "Warning: {warning}").unwrap();
        }
        writeln!(out, "{}\n", answer.pretty()).unwrap();
    }
    out
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/api")
}

#[test]
fn every_script_gets_its_answers() {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(directory()).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    let rewrite = std::env::var_os("KEELSON_REWRITE").is_some();
    let mut failed = Vec::new();
    for path in paths.iter().filter(|p| p.extension().is_some_and(|e| e == "txt")) {
        let text = std::fs::read_to_string(path).unwrap();
        let got = base::sim::run(1, run(&text));
        if got == text {
            continue;
        }
        if rewrite {
            std::fs::write(path, &got).unwrap();
            continue;
        }
        let at = got.lines().zip(text.lines()).position(|(a, b)| a != b).unwrap_or(0);
        let near = |t: &str| t.lines().skip(at.saturating_sub(8)).take(14).collect::<Vec<_>>().join("\n");
        failed.push(format!(
            "{} differs at line {}\n--- expected\n{}\n--- got\n{}",
            path.display(),
            at + 1,
            near(&text),
            near(&got)
        ));
    }
    assert!(failed.is_empty(), "{}\n(KEELSON_REWRITE=1 writes the answers anew)", failed.join("\n\n"));
}
