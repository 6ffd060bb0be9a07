//! What is measured of the server, under upstream's names, and `/metrics`.
//!
//! Upstream: k8s.io/apiserver/pkg/endpoints/metrics, pkg/storage/etcd3/metrics, k8s.io/component-base/metrics.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::call::{BoxFuture, Raw, RawBody};
use apimachinery::{Call, Reply};
use base::metrics::{Counter, Family, Gauge, Histogram, Metric, head, value};

use crate::{Api, PathHandler, version};

/// Upstream's bounds of request durations, in seconds.
const SECONDS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];
/// Clock ticks in a second, as the kernel counts processes' time for everybody.
const TICKS: f64 = 100.0;
/// Bytes in a page.
const PAGE: u64 = 4096;

/// A request, as it is measured.
#[derive(Debug)]
#[expect(missing_docs, reason = "upstream's labels")]
pub struct Asked<'a> {
    pub verb: &'static str,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub scope: &'a str,
    pub dry_run: bool,
    pub code: u16,
    pub took: Duration,
}

/// The server's own numbers.
pub struct Metrics {
    requests: Family<Counter>,
    seconds: Family<Histogram>,
    lasting: Family<Gauge>,
    reading: Gauge,
    mutating: Gauge,
    audited: Counter,
}

const OF: [&str; 7] = ["verb", "group", "version", "resource", "subresource", "scope", "component"];
const OF_REQUESTS: [&str; 9] =
    ["verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component", "code"];
const OF_SECONDS: [&str; 8] =
    ["verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component"];

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            requests: Family::new(
                "apiserver_request_total",
                "Requests, by what was asked for and how it ended.",
                &OF_REQUESTS,
                Counter::default,
            ),
            seconds: Family::new(
                "apiserver_request_duration_seconds",
                "How long requests took.",
                &OF_SECONDS,
                || Histogram::new(SECONDS),
            ),
            lasting: Family::new(
                "apiserver_longrunning_requests",
                "Requests that last and have not ended.",
                &OF,
                Gauge::default,
            ),
            reading: Gauge::default(),
            mutating: Gauge::default(),
            audited: Counter::default(),
        }
    }
}

impl Metrics {
    /// A request has come.
    pub fn begun(&self, mutating: bool) {
        if mutating { &self.mutating } else { &self.reading }.add(1);
    }

    /// It is over.
    pub fn ended(&self, asked: &Asked<'_>, mutating: bool) {
        if mutating { &self.mutating } else { &self.reading }.add(-1);
        let Asked { verb, group, version, resource, subresource, scope, .. } = *asked;
        let dry_run = if asked.dry_run { "All" } else { "" };
        let code = asked.code.to_string();
        self.requests
            .with(&[verb, dry_run, group, version, resource, subresource, scope, "apiserver", &code])
            .inc();
        self.seconds
            .with(&[verb, dry_run, group, version, resource, subresource, scope, "apiserver"])
            .observe(asked.took.as_secs_f64());
    }

    /// One more request that lasts, or one less.
    pub fn lasting(&self, asked: &Asked<'_>, by: i64) {
        let Asked { verb, group, version, resource, subresource, scope, .. } = *asked;
        // It holds no place among those that are soon over.
        self.reading.add(-by);
        self.lasting.with(&[verb, group, version, resource, subresource, scope, "apiserver"]).add(by);
    }

    /// Audit was told something.
    pub fn audited(&self) {
        self.audited.inc();
    }
}

/// `/metrics`.
pub struct Path;

impl PathHandler for Path {
    fn serves(&self, path: &str) -> bool {
        path.trim_end_matches('/') == "/metrics"
    }

    fn answer<'a>(&'a self, api: &'a Arc<Api>, _: &'a str, _: &'a Call) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            let mut out = String::with_capacity(64 * 1024);
            api.metrics.write(&mut out);
            objects(api, &mut out);
            build(&mut out);
            out.push_str(&base::task::blocking(process).await);
            Reply::Raw(Raw {
                code: 200,
                content_type: base::metrics::CONTENT_TYPE.into(),
                headers: Vec::new(),
                body: RawBody::Bytes(out.into()),
            })
        })
    }
}

impl Metrics {
    fn write(&self, out: &mut String) {
        self.requests.write(out);
        self.seconds.write(out);
        self.lasting.write(out);
        let name = "apiserver_current_inflight_requests";
        head(out, name, "Requests under way that do not last.", Gauge::TYPE);
        value(out, name, &[("request_kind", "readOnly")], self.reading.get());
        value(out, name, &[("request_kind", "mutating")], self.mutating.get());
        let name = "apiserver_audit_event_total";
        head(out, name, "What audit was told.", Counter::TYPE);
        value(out, name, &[], self.audited.get());
    }
}

/// How many objects of each kind there are, and who watches them.
fn objects(api: &Api, out: &mut String) {
    let table = api.kinds.table();
    let all: Vec<_> = table.all().iter().filter_map(|kind| api.cacher.collection(&kind.storage)).collect();
    let name = "apiserver_storage_objects";
    head(out, name, "Stored objects, by kind.", Gauge::TYPE);
    for collection in &all {
        value(out, name, &[("resource", &collection.kind.storage.to_string())], collection.count());
    }
    let name = "apiserver_resource_objects";
    head(out, name, "Stored objects, by group and resource.", Gauge::TYPE);
    for collection in &all {
        let of = &collection.kind.storage;
        value(out, name, &[("group", &of.group), ("resource", &of.resource)], collection.count());
    }
    let name = "apiserver_registered_watchers";
    head(out, name, "Watches that have not ended, by kind.", Gauge::TYPE);
    for collection in &all {
        let gv = &collection.kind.storage_version().gv;
        let of = [("group", &*gv.group), ("version", &*gv.version), ("kind", &*collection.kind.kind)];
        value(out, name, &of, collection.watchers());
    }
}

fn build(out: &mut String) {
    let name = "kubernetes_build_info";
    head(out, name, "What runs.", Gauge::TYPE);
    let info = version::info();
    let of = |key: &'static str| info.get(key).str();
    let labels = [
        ("major", of("major")),
        ("minor", of("minor")),
        ("git_version", of("gitVersion")),
        ("git_commit", of("gitCommit")),
        ("git_tree_state", of("gitTreeState")),
        ("build_date", of("buildDate")),
        ("go_version", of("goVersion")),
        ("compiler", of("compiler")),
        ("platform", of("platform")),
    ];
    value(out, name, &labels, 1);
}

/// What the kernel says of this process; nothing where it says nothing. Source: proc(5).
fn process() -> String {
    let mut out = String::new();
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let stat = read("/proc/self/stat");
    // The name, in parentheses, may hold anything.
    let fields: Vec<f64> = stat.rsplit_once(')').map_or_else(Vec::new, |(_, rest)| {
        rest.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect()
    });
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0.0);
    let boot = read("/proc/stat");
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")).and_then(|b| b.trim().parse().ok());
    let limits = read("/proc/self/limits");
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let files = files.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let rows = [
        ("process_cpu_seconds_total", Counter::TYPE, (field(14) + field(15)) / TICKS),
        ("process_resident_memory_bytes", Gauge::TYPE, field(24) * PAGE as f64),
        ("process_virtual_memory_bytes", Gauge::TYPE, field(23)),
        ("process_start_time_seconds", Gauge::TYPE, boot.unwrap_or(0.0) + field(22) / TICKS),
        ("process_open_fds", Gauge::TYPE, open as f64),
        ("process_max_fds", Gauge::TYPE, files.unwrap_or(0.0)),
    ];
    for (name, kind, number) in rows {
        head(&mut out, name, "Of this process, as the kernel counts.", kind);
        value(&mut out, name, &[], number);
    }
    out
}
