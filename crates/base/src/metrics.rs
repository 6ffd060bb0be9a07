//! Counters, gauges and histograms, and their text for Prometheus.
//!
//! Counting is one atomic addition; finding a series by its labels is a read lock, one hash and one comparison, so that
//! what is counted for every request may be found anew each time.
//! Source: the Prometheus text format, version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use crate::hash::Seeded;

/// The `Content-Type` of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Something with a value of its own for each set of labels.
pub trait Metric: Send + Sync {
    /// `counter`, `gauge` or `histogram`.
    const TYPE: &'static str;

    /// Adds its lines to `out`; `labels` is what stands between the braces, and may be empty.
    fn write(&self, name: &str, labels: &str, out: &mut String);
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// A number that comes and goes.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

/// How often values fell below each of some bounds.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One for each bound and one for what lies above all.
    counts: Box<[AtomicU64]>,
    /// The bits of a float.
    sum: AtomicU64,
}

/// One metric under one name, for each set of labels.
pub struct Family<M> {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    make: fn() -> M,
    hasher: OnceLock<Seeded>,
    // Invariant: sorted by hash.
    series: RwLock<Vec<Series<M>>>,
}

/// One metric of a family.
struct Series<M> {
    hash: u64,
    values: Vec<String>,
    metric: Arc<M>,
}

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Gauge {
    /// Adds to it.
    pub fn add(&self, by: i64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Histogram {
    /// None yet. `bounds` grow.
    pub fn new(bounds: &'static [f64]) -> Histogram {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, counts, sum: AtomicU64::new(0f64.to_bits()) }
    }

    /// One more value.
    pub fn observe(&self, value: f64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        let mut bits = self.sum.load(Ordering::Relaxed);
        let add = |bits| (f64::from_bits(bits) + value).to_bits();
        while let Err(now) =
            self.sum.compare_exchange_weak(bits, add(bits), Ordering::Relaxed, Ordering::Relaxed)
        {
            bits = now;
        }
    }
}

impl Metric for Counter {
    const TYPE: &'static str = "counter";

    fn write(&self, name: &str, labels: &str, out: &mut String) {
        line(out, name, labels, "", self.get());
    }
}

impl Metric for Gauge {
    const TYPE: &'static str = "gauge";

    fn write(&self, name: &str, labels: &str, out: &mut String) {
        line(out, name, labels, "", self.get());
    }
}

impl Metric for Histogram {
    const TYPE: &'static str = "histogram";

    fn write(&self, name: &str, labels: &str, out: &mut String) {
        let bucket = format!("{name}_bucket");
        let mut sum = 0;
        for (i, count) in self.counts.iter().enumerate() {
            sum += count.load(Ordering::Relaxed);
            let bound = self.bounds.get(i).map_or("+Inf".to_owned(), ToString::to_string);
            line(out, &bucket, labels, &format!("le=\"{bound}\""), sum);
        }
        line(out, &format!("{name}_sum"), labels, "", f64::from_bits(self.sum.load(Ordering::Relaxed)));
        line(out, &format!("{name}_count"), labels, "", sum);
    }
}

fn line(out: &mut String, name: &str, labels: &str, more: &str, value: impl std::fmt::Display) {
    let comma = if labels.is_empty() || more.is_empty() { "" } else { "," };
    let all = match labels.is_empty() && more.is_empty() {
        true => String::new(),
        false => format!("{{{labels}{comma}{more}}}"),
    };
    writeln!(out, "{name}{all} {value}").expect("writing to a string does not fail");
}

/// The two lines before a metric's values.
pub fn head(out: &mut String, name: &str, help: &str, kind: &str) {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("writing to a string does not fail");
}

/// A metric without memory: its value is known when it is asked for. `labels` and their values in pairs.
pub fn value(out: &mut String, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
    let mut text = String::new();
    for (label, value) in labels {
        pair(&mut text, label, value);
    }
    line(out, name, &text, "", value);
}

fn pair(text: &mut String, label: &str, value: &str) {
    if !text.is_empty() {
        text.push(',');
    }
    text.push_str(label);
    text.push_str("=\"");
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
    text.push('"');
}

impl<M: Metric> Family<M> {
    /// No series yet.
    pub const fn new(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        make: fn() -> M,
    ) -> Family<M> {
        Family { name, help, labels, make, hasher: OnceLock::new(), series: RwLock::new(Vec::new()) }
    }

    /// The series with these values of the labels, in their order.
    pub fn with(&self, values: &[&str]) -> Arc<M> {
        debug_assert_eq!(values.len(), self.labels.len(), "{}", self.name);
        let hash = self.hasher.get_or_init(Seeded::default).hash_one(values);
        let find = |series: &[Series<M>]| {
            let from = series.partition_point(|s| s.hash < hash);
            let mut same = series[from..].iter().take_while(|s| s.hash == hash);
            same.find(|s| s.values == values).map_or(Err(from), |s| Ok(s.metric.clone()))
        };
        if let Ok(found) = find(&self.series.read().unwrap_or_else(PoisonError::into_inner)) {
            return found;
        }
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        find(&series).unwrap_or_else(|at| {
            let metric = Arc::new((self.make)());
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            series.insert(at, Series { hash, values, metric: metric.clone() });
            metric
        })
    }

    /// Adds the whole family to `out`; nothing when it has no series.
    pub fn write(&self, out: &mut String) {
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        if series.is_empty() {
            return;
        }
        head(out, self.name, self.help, M::TYPE);
        let text = |one: &Series<M>| {
            let mut text = String::new();
            self.labels.iter().zip(&one.values).for_each(|(label, value)| pair(&mut text, label, value));
            text
        };
        let all: BTreeMap<String, &Series<M>> = series.iter().map(|one| (text(one), one)).collect();
        for (labels, one) in all {
            one.metric.write(self.name, &labels, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_written() {
        let asked = Family::new("asked_total", "How often.", &["who", "code"], Counter::default);
        asked.with(&["a\"b", "200"]).inc();
        asked.with(&["a\"b", "200"]).inc();
        let took = Family::new("took_seconds", "How long.", &[], || Histogram::new(&[0.5, 1.0]));
        for value in [0.25, 1.0, 8.0] {
            took.with(&[]).observe(value);
        }
        let mut out = String::new();
        asked.write(&mut out);
        took.write(&mut out);
        assert_eq!(
            out,
            "# HELP asked_total How often.\n# TYPE asked_total counter\nasked_total{who=\"a\\\"b\",code=\"200\"} 2\n\
             # HELP took_seconds How long.\n# TYPE took_seconds histogram\ntook_seconds_bucket{le=\"0.5\"} 1\n\
             took_seconds_bucket{le=\"1\"} 2\ntook_seconds_bucket{le=\"+Inf\"} 3\ntook_seconds_sum 9.25\ntook_seconds_count 3\n"
        );
    }
}
