//! Plays seeds: `sim --seeds 1000` (from `--from 0`) plays many, each twice; `sim --seed N` one, and tells all of it.
//! `--story api` plays API servers over one store in place of the demo.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, bail};
use sim::Story;

struct Args {
    story: Story,
    from: u64,
    seeds: u64,
    jobs: usize,
    one: Option<u64>,
}

fn args() -> anyhow::Result<Args> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut out = Args { story: Story::Demo, from: 0, seeds: 100, jobs: cores, one: None };
    let mut given = std::env::args().skip(1);
    while let Some(flag) = given.next() {
        let value = given.next().with_context(|| format!("{flag} needs a value"))?;
        if flag == "--story" {
            out.story = match &*value {
                "demo" => Story::Demo,
                "api" => Story::Api,
                _ => bail!("there is no story {value}; there are demo and api"),
            };
            continue;
        }
        let value: u64 = value.parse().with_context(|| format!("{flag} needs a number"))?;
        match flag.as_str() {
            "--seed" => out.one = Some(value),
            "--seeds" => out.seeds = value,
            "--from" => out.from = value,
            "--jobs" => out.jobs = usize::try_from(value)?.max(1),
            _ => bail!(
                "unknown flag {flag}; there are --story NAME, --seeds N, --from N, --jobs N and --seed N"
            ),
        }
    }
    Ok(out)
}

fn main() -> anyhow::Result<ExitCode> {
    let args = args()?;
    if let Some(seed) = args.one {
        return Ok(play_one(args.story, seed));
    }
    let (next, done) = (AtomicU64::new(args.from), AtomicU64::new(0));
    let failed = Mutex::new(BTreeMap::new());
    let faults = Mutex::new(BTreeMap::<&str, u32>::new());
    let saw = Mutex::new(BTreeMap::<&str, u64>::new());
    let writes = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= args.from + args.seeds {
                        return;
                    }
                    let outcome = sim::run_twice(args.story, seed);
                    writes.fetch_add(outcome.lines.len() as u64, Ordering::Relaxed);
                    for (name, count) in &outcome.faults {
                        *faults.lock().expect("nobody panics holding it").entry(name).or_default() += count;
                    }
                    for (name, count) in &outcome.saw {
                        *saw.lock().expect("nobody panics holding it").entry(name).or_default() += count;
                    }
                    if let Some(first) = outcome.broken.first() {
                        let line: String = first.chars().take(300).collect();
                        println!("seed {seed}: {line}");
                        failed.lock().expect("nobody panics holding it").insert(seed, line);
                    }
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if done.is_multiple_of(10) || done == args.seeds {
                        println!("{done} of {} seeds", args.seeds);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("nobody panics holding it");
    println!("{} writes; {:?}", writes.into_inner(), faults.into_inner().expect("nobody panics holding it"));
    println!("{:?}", saw.into_inner().expect("nobody panics holding it"));
    println!("{} of {} seeds failed: {:?}", failed.len(), args.seeds, failed.keys().collect::<Vec<_>>());
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn play_one(story: Story, seed: u64) -> ExitCode {
    let outcome = sim::run_twice(story, seed);
    for (revision, key, hash) in &outcome.lines {
        println!("{revision:>8} {hash:016x} {key}");
    }
    println!("{:?}; {:?}", outcome.faults, outcome.saw);
    for what in &outcome.broken {
        println!("{what}");
    }
    if outcome.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
