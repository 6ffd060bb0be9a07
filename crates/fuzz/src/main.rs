//! `fuzz TARGET --seeds N` (from `--from 0`, on `--jobs N` threads) plays many seeds; `fuzz TARGET --seed N` one. `all`
//! is every target in turn.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context, bail};
use fuzz::{TARGETS, Target, play};

fn main() -> anyhow::Result<ExitCode> {
    let mut given = std::env::args().skip(1);
    let names: Vec<&str> = TARGETS.iter().map(|t| t.name).collect();
    let name = given.next().with_context(|| format!("name a target: all, {}", names.join(", ")))?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut from, mut seeds, mut jobs) = (0, 1000, cores);
    while let Some(flag) = given.next() {
        let value = given.next().and_then(|v| v.parse::<u64>().ok());
        let value = value.with_context(|| format!("{flag} needs a number"))?;
        match flag.as_str() {
            "--seed" => (from, seeds, jobs) = (value, 1, 1),
            "--seeds" => seeds = value,
            "--from" => from = value,
            "--jobs" => jobs = usize::try_from(value)?.max(1),
            _ => bail!("unknown flag {flag}; there are --seeds N, --from N, --jobs N and --seed N"),
        }
    }
    let chosen: Vec<&Target> = TARGETS.iter().filter(|t| name == "all" || name == t.name).collect();
    if chosen.is_empty() {
        bail!("no target {name}; there are all, {}", names.join(", "));
    }
    let mut failed = false;
    for target in chosen {
        let step = (seeds / 100).max(1);
        let failures = play::seeds(target, from, seeds, jobs, |done, slowest| {
            if done.is_multiple_of(step) || done == seeds {
                print!("\r{}: {done} of {seeds} seeds, the slowest took {slowest:?}    ", target.name);
                drop(std::io::stdout().flush());
            }
        });
        println!("\n{}: {} of {seeds} seeds failed", target.name, failures.len());
        for failure in &failures {
            println!("seed {}: {}\n{}", failure.seed, failure.why, failure.input);
        }
        failed |= !failures.is_empty();
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
