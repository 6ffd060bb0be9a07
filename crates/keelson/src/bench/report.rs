//! What was measured, for people and for programs.

use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use super::histogram::Histogram;
use super::load::Seen;
use super::{Api, Output};

/// How much is written between two fsyncs when the disk is measured, in bytes, and how often.
const SYNC_BYTES: usize = 32 * 1024;
const SYNCS: u64 = 200;

/// The figures of one workload. Times are in milliseconds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Measured {
    workload: String,
    /// Links, or watchers.
    connections: usize,
    /// Good answers, or changes received.
    count: u64,
    seconds: f64,
    per_second: f64,
    /// Of bodies that were received.
    megabytes_per_second: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
    /// Requests that failed, or changes that were not received.
    pub errors: u64,
    /// The first of them, in full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_error: Option<String>,
    /// Of a fan-out: how many changes were written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writes: Option<u64>,
}

/// How long the disk takes to write 32 KiB safely, in milliseconds.
#[derive(Serialize)]
pub struct Disk {
    directory: PathBuf,
    p50: f64,
    p99: f64,
}

fn ms(duration: Duration) -> f64 {
    // Three places are as much as there is.
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

impl Measured {
    /// What was seen in so much time.
    pub fn of(workload: &str, connections: usize, seen: &Seen, took: Duration) -> Measured {
        let seconds = took.as_secs_f64();
        let at = |part| ms(seen.took.percentile(part));
        Measured {
            workload: workload.to_owned(),
            connections,
            count: seen.took.count,
            seconds,
            per_second: seen.took.count as f64 / seconds,
            megabytes_per_second: seen.bytes as f64 / 1e6 / seconds,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: at(1.0),
            errors: seen.errors,
            first_error: seen.first_error.clone(),
            writes: None,
        }
    }
}

/// Measures the disk of `directory`.
///
/// # Errors
/// When nothing can be written there.
pub async fn disk(directory: PathBuf) -> anyhow::Result<Disk> {
    let measure = move || {
        let path = directory.join(format!("keelson-bench-{}", std::process::id()));
        let file = std::fs::File::create_new(&path)?;
        let data = vec![b'x'; SYNC_BYTES];
        let mut took = Histogram::default();
        let written: std::io::Result<()> = (0..SYNCS).try_for_each(|n| {
            let begun = base::time::instant();
            file.write_all_at(&data, n * SYNC_BYTES as u64)?;
            file.sync_data()?;
            took.add(begun.elapsed());
            Ok(())
        });
        std::fs::remove_file(&path)?;
        let disk = Disk { directory, p50: ms(took.percentile(0.5)), p99: ms(took.percentile(0.99)) };
        written.map(|()| disk)
    };
    base::task::blocking(measure).await.context("measure the disk (--fsync-dir)")
}

/// Prints everything.
///
/// # Errors
/// When standard output is closed.
pub fn print(all: &[Measured], disk: Option<Disk>, server: &str, args: &Api) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if args.output == Output::Json {
        let size = args.size;
        let result =
            serde_json::json!({ "server": server, "objectBytes": size, "disk": disk, "results": all });
        writeln!(out, "{}", serde_json::to_string_pretty(&result)?)?;
        return Ok(());
    }
    writeln!(out, "{server}, objects of {} bytes", args.size)?;
    if let Some(Disk { directory, p50, p99 }) = &disk {
        writeln!(out, "disk of {}: 32 KiB are safe after {p50} ms (p99 {p99} ms)", directory.display())?;
    }
    writeln!(
        out,
        "\n{:<9} {:>5} {:>9} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7}",
        "WORKLOAD", "CONNS", "COUNT", "PER SECOND", "MB/S", "P50 MS", "P90 MS", "P99 MS", "MAX MS", "ERRORS"
    )?;
    for m in all {
        writeln!(
            out,
            "{:<9} {:>5} {:>9} {:>10.1} {:>9.1} {:>9.3} {:>9.3} {:>9.3} {:>9.3} {:>7}",
            m.workload,
            m.connections,
            m.count,
            m.per_second,
            m.megabytes_per_second,
            m.p50,
            m.p90,
            m.p99,
            m.max,
            m.errors
        )?;
    }
    for m in all {
        if let Some(error) = &m.first_error {
            writeln!(out, "\nthe first error of {}: {error}", m.workload)?;
        }
    }
    Ok(())
}
