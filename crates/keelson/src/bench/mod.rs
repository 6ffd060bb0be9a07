//! `keelson bench api`: what any Kubernetes API server does in a second, measured from outside through a kubeconfig.
//!
//! Everything happens in a namespace of its own, which is removed at the end. The objects are ConfigMaps: they have no
//! controller that would join in.

mod fan_out;
mod histogram;
mod load;
mod report;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use client::Kubeconfig;
use indicatif::{ProgressBar, ProgressStyle};

use self::load::Objects;
use self::report::Measured;
use self::wire::{Links, Request};
use crate::layout::Layout;

/// How often the progress bar moves.
const TICK: Duration = Duration::from_millis(100);

/// What to measure.
#[derive(Subcommand)]
pub enum Command {
    /// Measure an API server, this cluster's or any other.
    Api(Api),
}

impl Command {
    /// How many threads make the load.
    pub fn threads(&self) -> usize {
        let Command::Api(api) = self;
        api.threads
    }
}

/// What is done over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Create objects.
    Create,
    /// Get one object.
    Get,
    /// List all objects of the namespace.
    List,
    /// Replace objects.
    Update,
    /// Patch objects (merge patch).
    Patch,
    /// Watchers that all see every change; latency is from the write's beginning to the receipt.
    Watch,
    /// 70 % get, 10 % create, 10 % patch, 5 % update, 5 % lists of up to 100.
    Mixed,
}

/// How to measure.
#[derive(Args, Clone)]
pub struct Api {
    /// What to measure, in this order; all if none is given.
    #[arg(value_enum)]
    workloads: Vec<Workload>,
    /// How to reach the server; by default $KUBECONFIG, else this cluster's administrator's.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Connections, each with one request after the other.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// HTTP/2 with this many streams on each connection, --connections being the number of all streams.
    #[arg(long, value_name = "N", default_value_t = 0)]
    http2_streams: usize,
    /// How long to measure each, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    duration: f64,
    /// How many requests to measure, instead of a duration (not for watch).
    #[arg(long, value_name = "N", conflicts_with = "duration")]
    count: Option<u64>,
    /// The size of an object as it is sent, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    size: usize,
    /// How many objects there are to be read and changed.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    objects: u32,
    /// The namespace, which must not exist yet; by default one with a name of its own.
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// The query of lists, such as `limit=500` or `resourceVersion=0`.
    #[arg(long, value_name = "QUERY", default_value = "")]
    list_query: String,
    /// Watchers.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..))]
    watchers: u16,
    /// Changes that the watchers see, per second.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Threads that make the load.
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Leave namespace and objects behind.
    #[arg(long)]
    keep: bool,
    /// Where a local server writes: how long the disk takes there is printed beside the figures.
    #[arg(long, value_name = "DIR")]
    fsync_dir: Option<PathBuf>,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// How to print the result.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds is needed".to_owned())?;
    if seconds.is_finite() && seconds > 0.0 && seconds < 1e6 {
        Ok(seconds)
    } else {
        Err("out of range".into())
    }
}

/// Measures and prints.
///
/// # Errors
/// When the server cannot be reached or the namespace cannot be made or removed.
pub async fn run(layout: &Layout, command: Command) -> anyhow::Result<()> {
    let Command::Api(mut args) = command;
    if args.workloads.is_empty() {
        args.workloads = Workload::value_variants().to_vec();
    }
    let path = match args.kubeconfig.clone().or_else(|| std::env::var_os("KUBECONFIG").map(Into::into)) {
        Some(path) => path,
        None => layout.admin_kubeconfig(),
    };
    let config = Kubeconfig::load(&path).with_context(|| format!("kubeconfig {}", path.display()))?;
    let links = Arc::new(Links::new(&config, args.http2_streams)?);
    let disk = match args.fsync_dir.clone() {
        Some(dir) => Some(report::disk(dir).await?),
        None => None,
    };
    let namespace = args
        .namespace
        .clone()
        .unwrap_or_else(|| format!("keelson-bench-{:06x}", base::time::now().as_microsecond() & 0xff_ffff));
    let objects = Arc::new(Objects::new(&namespace, args.size)?);
    once(&links, &objects.namespace_made()).await.context("make the namespace")?;
    let measured = base::select! {
        measured = measure(&args, &links, &objects) => measured,
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Into::into).and_then(|()| bail!("interrupted")),
    };
    if !args.keep {
        let bar = bar(&args, "remove", None);
        let removed = async {
            once(&links, &objects.all_removed()).await.context("remove the objects")?;
            once(&links, &objects.namespace_removed()).await.context("remove the namespace")
        };
        let removed = moving(&bar, || None, removed).await;
        bar.finish_and_clear();
        removed?;
    }
    report::print(&measured?, disk, &config.server, &args)
}

async fn measure(args: &Api, links: &Arc<Links>, objects: &Arc<Objects>) -> anyhow::Result<Vec<Measured>> {
    let mut out = Vec::new();
    let mut seeded = false;
    for workload in &args.workloads {
        if !seeded && *workload != Workload::Create {
            load::seed(args, links, objects).await.context("make the objects")?;
            seeded = true;
        }
        out.push(match workload {
            Workload::Watch => fan_out::measure(args, links, objects).await.context("watch")?,
            other => load::measure(args, links, objects, *other).await?,
        });
    }
    Ok(out)
}

/// One request that must succeed.
async fn once(links: &Links, request: &Request) -> anyhow::Result<()> {
    let mut link = links.open(1).await?.pop().context("a link was asked for")?;
    let answer = link.exchange(request).await?;
    if answer.status >= 300 {
        bail!("{} {}: {}", request.method, request.path, failure(answer.status, &answer.body));
    }
    Ok(())
}

fn failure(status: u16, body: &[u8]) -> String {
    format!("{status}: {}", String::from_utf8_lossy(body).trim_end())
}

/// A progress bar, of so many steps or without an end; invisible where standard error is no terminal.
fn bar(args: &Api, what: &str, steps: Option<u64>) -> ProgressBar {
    if args.output == Output::Json {
        return ProgressBar::hidden();
    }
    let (bar, template) = match steps {
        Some(steps) => (ProgressBar::new(steps), "  {msg:<8} {wide_bar} {percent:>3} % {elapsed:>4}"),
        None => (ProgressBar::new_spinner(), "  {msg:<8} {spinner} {elapsed:>4}"),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("the template is valid"))
        .with_message(what.to_owned())
}

/// Moves the bar to where `at` says while `work` goes on.
async fn moving<T>(bar: &ProgressBar, at: impl Fn() -> Option<u64>, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        base::select! {
            done = work.as_mut() => return done,
            () = base::time::sleep(TICK) => match at() {
                Some(position) => bar.set_position(position),
                None => bar.tick(),
            },
        }
    }
}
