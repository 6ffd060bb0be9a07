//! Requests one after the other on every link, for a time or up to a number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::time::Instant;

use super::histogram::Histogram;
use super::report::Measured;
use super::wire::{Link, Links, Request};
use super::{Api, Workload, bar, failure, moving};

const JSON: &str = "application/json";
/// The key under which an object says when it was written; [`MARK`] is how it stands in JSON.
const FIRST: &str = r#""data":{"sent":""#;
/// What stands before the time of a write, which is [`TIME_DIGITS`] long.
pub const MARK: &[u8] = b"\"sent\":\"";
/// Nanoseconds since the measurement began, in decimal.
pub const TIME_DIGITS: usize = 16;

/// The objects that are written and read.
pub struct Objects {
    namespace: String,
    /// The path of the collection.
    pub path: String,
    padding: String,
}

impl Objects {
    /// Objects whose text is `size` bytes long, in a namespace.
    ///
    /// # Errors
    /// When no object is as small as that.
    pub fn new(namespace: &str, size: usize) -> anyhow::Result<Objects> {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps");
        let mut out = Objects { namespace: namespace.to_owned(), path, padding: String::new() };
        let bare = out.text("c-00-00000000", 0).len();
        let padding = size.checked_sub(bare);
        let padding = padding.ok_or_else(|| anyhow::anyhow!("--size must be at least {bare}"))?;
        out.padding = "x".repeat(padding);
        Ok(out)
    }

    /// An object's text.
    fn text(&self, name: &str, sent: u64) -> Vec<u8> {
        let (namespace, padding) = (&self.namespace, &self.padding);
        format!(
            r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"{name}","namespace":"{namespace}"}},{FIRST}{sent:016}","text":"{padding}"}}}}"#
        )
        .into_bytes()
    }

    /// Makes an object.
    pub fn created(&self, name: &str) -> Request {
        let (path, body) = (self.path.clone(), self.text(name, 0));
        Request { method: "POST", path, content_type: JSON, body }
    }

    fn one(&self, n: u64) -> (String, String) {
        let name = format!("s-{n}");
        (format!("{}/{name}", self.path), name)
    }

    fn read(&self, n: u64) -> Request {
        Request::get(self.one(n).0)
    }

    fn replaced(&self, n: u64, sent: u64) -> Request {
        let (path, name) = self.one(n);
        Request { method: "PUT", path, content_type: JSON, body: self.text(&name, sent) }
    }

    /// Patches object `n` so that it says when.
    pub fn patched(&self, n: u64, sent: u64) -> Request {
        let body = format!(r#"{{{FIRST}{sent:016}"}}}}"#).into_bytes();
        Request { method: "PATCH", path: self.one(n).0, content_type: "application/merge-patch+json", body }
    }

    fn listed(&self, query: &str) -> Request {
        let query = if query.is_empty() { String::new() } else { format!("?{query}") };
        Request::get(format!("{}{query}", self.path))
    }

    /// Makes the namespace.
    pub fn namespace_made(&self) -> Request {
        let body =
            format!(r#"{{"kind":"Namespace","apiVersion":"v1","metadata":{{"name":"{}"}}}}"#, self.namespace);
        let path = "/api/v1/namespaces".to_owned();
        Request { method: "POST", path, content_type: JSON, body: body.into_bytes() }
    }

    /// Removes all objects.
    pub fn all_removed(&self) -> Request {
        Request { method: "DELETE", ..Request::get(self.path.clone()) }
    }

    /// Removes the namespace.
    pub fn namespace_removed(&self) -> Request {
        let path = format!("/api/v1/namespaces/{}", self.namespace);
        Request { method: "DELETE", ..Request::get(path) }
    }
}

/// What one link has seen.
#[derive(Default)]
pub struct Seen {
    /// How long good answers took.
    pub took: Histogram,
    /// The bytes of their bodies.
    pub bytes: u64,
    /// Failures.
    pub errors: u64,
    /// The first of them, in full.
    pub first_error: Option<String>,
}

impl Seen {
    /// Notes a failure.
    pub fn failed(&mut self, why: impl FnOnce() -> String) {
        self.errors += 1;
        if self.first_error.is_none() {
            self.first_error = Some(why());
        }
    }

    /// Adds what another has seen.
    pub fn merge(&mut self, other: Seen) {
        self.took.merge(&other.took);
        self.bytes += other.bytes;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    /// Sends a request and notes how that went; the link comes back if it is still good.
    pub async fn send(&mut self, mut link: Link, request: &Request) -> Option<Link> {
        let begun = base::time::instant();
        match link.exchange(request).await {
            Ok(answer) if answer.status < 300 => {
                self.took.add(begun.elapsed());
                self.bytes += answer.bytes;
            }
            Ok(answer) => self.failed(|| {
                format!("{} {}: {}", request.method, request.path, failure(answer.status, &answer.body))
            }),
            Err(err) => {
                self.failed(|| format!("{} {}: {err:#}", request.method, request.path));
                return None;
            }
        }
        Some(link)
    }
}

/// When to end.
#[derive(Clone, Copy)]
enum Until {
    Time(Duration),
    Count(u64),
}

/// When to end, and who takes which turn.
struct Turns {
    next: AtomicU64,
    count: u64,
    end: Option<Instant>,
}

impl Turns {
    fn begin(until: Until) -> Turns {
        let (count, end) = match until {
            Until::Time(duration) => (u64::MAX, Some(base::time::instant() + duration)),
            Until::Count(count) => (count, None),
        };
        Turns { next: AtomicU64::new(0), count, end }
    }

    fn take(&self) -> Option<u64> {
        if self.end.is_some_and(|end| base::time::instant() >= end) {
            return None;
        }
        Some(self.next.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < self.count)
    }
}

/// Takes turns on every link; a link that breaks is replaced. What all have seen, and how long it took.
async fn drive(
    args: &Api,
    links: &Arc<Links>,
    until: Until,
    what: &str,
    request: impl Fn(u64) -> Request + Send + Sync + 'static,
) -> anyhow::Result<(Seen, Duration)> {
    let open = links.open(usize::from(args.connections)).await?;
    let begun = base::time::instant();
    let turns = Arc::new(Turns::begin(until));
    let request = Arc::new(request);
    let tasks: Vec<_> = open
        .into_iter()
        .map(|link| {
            let (links, turns, request) = (links.clone(), turns.clone(), request.clone());
            base::task::spawn(async move {
                let (mut seen, mut link) = (Seen::default(), Some(link));
                while let Some(n) = turns.take() {
                    let at_hand = match link.take() {
                        Some(link) => link,
                        None => match links.open(1).await {
                            Ok(mut new) => new.pop().expect("one was asked for"),
                            Err(err) => {
                                seen.failed(|| format!("{err:#}"));
                                break;
                            }
                        },
                    };
                    link = seen.send(at_hand, &request(n)).await;
                }
                seen
            })
        })
        .collect();
    let steps = match until {
        Until::Time(duration) => duration.as_millis() as u64,
        Until::Count(count) => count,
    };
    let bar = bar(args, what, Some(steps));
    let at = || match until {
        Until::Time(_) => Some(begun.elapsed().as_millis() as u64),
        Until::Count(_) => Some(turns.next.load(Ordering::Relaxed)),
    };
    let all = moving(&bar, at, futures_util::future::join_all(tasks)).await;
    let took = begun.elapsed();
    bar.finish_and_clear();
    let mut seen = Seen::default();
    all.into_iter().for_each(|one| seen.merge(one));
    Ok((seen, took))
}

/// Makes the objects that are to be read and changed.
///
/// # Errors
/// When one cannot be made.
pub async fn seed(args: &Api, links: &Arc<Links>, objects: &Arc<Objects>) -> anyhow::Result<()> {
    let until = Until::Count(u64::from(args.objects));
    let own = objects.clone();
    let (seen, _) = drive(args, links, until, "prepare", move |n| own.created(&format!("s-{n}"))).await?;
    match seen.first_error {
        Some(error) => Err(anyhow::anyhow!(error)),
        None => Ok(()),
    }
}

/// Measures one workload.
///
/// # Errors
/// When the server cannot be reached; failed requests are counted.
pub async fn measure(
    args: &Api,
    links: &Arc<Links>,
    objects: &Arc<Objects>,
    workload: Workload,
) -> anyhow::Result<Measured> {
    let until = args.count.map_or(Until::Time(Duration::from_secs_f64(args.duration)), Until::Count);
    let (many, query, own) = (u64::from(args.objects), args.list_query.clone(), objects.clone());
    // Names of other workloads of the same run must not be met again.
    let tag = format!("{workload:?}").to_lowercase();
    let name = tag.clone();
    let request = move |n: u64| match (workload, n % 20) {
        (Workload::Create, _) | (Workload::Mixed, 0 | 10) => own.created(&format!("{name}-{n}")),
        (Workload::Update, _) | (Workload::Mixed, 5) => own.replaced(n % many, n),
        (Workload::Patch, _) | (Workload::Mixed, 7 | 17) => own.patched(n % many, n),
        (Workload::List, _) => own.listed(&query),
        (Workload::Mixed, 15) => own.listed("limit=100"),
        _ => own.read(n % many),
    };
    let (seen, took) = drive(args, links, until, &tag, request).await?;
    Ok(Measured::of(&tag, usize::from(args.connections), &seen, took))
}
