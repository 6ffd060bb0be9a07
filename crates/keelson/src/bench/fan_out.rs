//! Many watchers of one collection: how long a change takes from its write to each of them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Context as _, bail};
use base::time::Instant;
use memchr::memmem::Finder;
use tokio::sync::mpsc;

use super::load::{MARK, Objects, Seen, TIME_DIGITS};
use super::report::Measured;
use super::wire::{Link, Links, Request};
use super::{Api, bar, moving};

/// Connections that write.
const WRITERS: u32 = 8;
/// How long a mark is with the time behind it, in bytes.
const MARK_BYTES: usize = MARK.len() + TIME_DIGITS;
static FIND_MARK: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(MARK));
/// How long the last changes may take to arrive.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a watcher sees.
struct Watcher {
    begun: Instant,
    /// Bytes that may be the beginning of a mark.
    rest: Vec<u8>,
    seen: Seen,
}

impl Watcher {
    /// Takes a part of the stream in.
    fn take(&mut self, part: &[u8]) {
        let now = self.begun.elapsed();
        self.seen.bytes += part.len() as u64;
        // A mark that began before ends within so many bytes.
        let known = self.rest.len();
        let mut edge = std::mem::take(&mut self.rest);
        edge.extend_from_slice(&part[..part.len().min(MARK_BYTES)]);
        let end = self.marks(now, &edge);
        let mut left = &edge[end..];
        if part.len() > MARK_BYTES {
            let inside = &part[end.saturating_sub(known)..];
            left = &inside[self.marks(now, inside)..];
        }
        self.rest = left[left.len().saturating_sub(MARK_BYTES - 1)..].to_vec();
    }

    /// Notes the marks that are there as a whole; gives where the last of them ends.
    fn marks(&mut self, now: Duration, text: &[u8]) -> usize {
        let mut end = 0;
        for at in FIND_MARK.find_iter(text) {
            let digits = at + MARK.len();
            let Some(sent) = text.get(digits..digits + TIME_DIGITS) else { break };
            let sent = sent.iter().fold(0, |n, digit| n * 10 + u64::from(digit.wrapping_sub(b'0')));
            self.seen.took.add(now.saturating_sub(Duration::from_nanos(sent)));
            end = digits + TIME_DIGITS;
        }
        end
    }
}

/// Watches until `total` changes, told at the end, have been seen.
async fn watch(
    mut link: Link,
    request: Arc<Request>,
    begun: Instant,
    ready: mpsc::Sender<u16>,
    total: Arc<AtomicU64>,
) -> Seen {
    let mut watcher = Watcher { begun, rest: Vec::new(), seen: Seen::default() };
    let mut take = |status: u16, part: &[u8]| {
        if part.is_empty() {
            // Nobody waits for it any more only when the measurement has failed.
            ready.try_send(status).ok();
        } else {
            watcher.take(part);
        }
        status < 300 && watcher.seen.took.count < total.load(Ordering::Acquire)
    };
    let ended = link.stream(&request, &mut take).await;
    if let Err(err) = ended {
        watcher.seen.failed(|| format!("watch: {err:#}"));
    }
    watcher.seen
}

/// Measures.
///
/// # Errors
/// When not every watcher begins.
pub async fn measure(args: &Api, links: &Arc<Links>, objects: &Arc<Objects>) -> anyhow::Result<Measured> {
    let begun = base::time::instant();
    let many = usize::from(args.watchers);
    let (ready, mut begins) = mpsc::channel(many);
    let events = (f64::from(args.rate) * args.duration) as u64;
    // A change that could not be written is none that can be seen.
    let total = Arc::new(AtomicU64::new(events));
    let seconds = (args.duration + PATIENCE.as_secs_f64()) as u64 * 2 + 60;
    let request = Arc::new(Request::get(format!(
        "{}?watch=true&timeoutSeconds={seconds}&resourceVersion={}",
        objects.path,
        revision(links, objects).await?
    )));
    let bar = bar(args, "watch", Some(events));
    let tasks: Vec<_> = links
        .open(many)
        .await?
        .into_iter()
        .map(|link| base::task::spawn(watch(link, request.clone(), begun, ready.clone(), total.clone())))
        .collect();
    drop(ready);
    for _ in 0..many {
        let status = begins.recv().await.context("a watch ended before it began")?;
        if status >= 300 {
            bail!("a watch was answered {status}");
        }
    }
    let from = base::time::instant();
    let writers = WRITERS.min(args.rate);
    let written = Arc::new(AtomicU64::new(0));
    let writing: Vec<_> = links
        .open(writers as usize)
        .await?
        .into_iter()
        .zip(0..)
        .map(|(link, number)| {
            let pace = Pace { begun, from, rate: args.rate, number, step: writers, events };
            base::task::spawn(write(link, pace, objects.clone(), u64::from(args.objects), written.clone()))
        })
        .collect();
    let at = || Some(written.load(Ordering::Relaxed));
    let writes = moving(&bar, at, futures_util::future::join_all(writing)).await;
    let took = from.elapsed();
    let mut wrote = Seen::default();
    writes.into_iter().for_each(|one| wrote.merge(one));
    total.fetch_sub(wrote.errors, Ordering::Release);
    let seen = arrived(tasks, events - wrote.errors).await;
    bar.finish_and_clear();
    let mut measured = Measured::of("watch", many, &seen, took);
    measured.errors += wrote.errors;
    measured.first_error = wrote.first_error.or(measured.first_error);
    measured.writes = Some(wrote.took.count);
    Ok(measured)
}

/// What all watchers have seen; what one has not seen in time is an error each.
async fn arrived(tasks: Vec<base::task::Task<Seen>>, each: u64) -> Seen {
    let mut all = Seen::default();
    let end = base::time::instant() + PATIENCE;
    let mut tasks = VecDeque::from(tasks);
    while let Some(task) = tasks.pop_front() {
        let left = end.saturating_duration_since(base::time::instant());
        let seen = base::time::timeout(left, task).await;
        let seen = seen.unwrap_or_default();
        let missing = each.saturating_sub(seen.took.count);
        all.merge(seen);
        if missing > 0 {
            all.errors += missing;
            all.first_error.get_or_insert_with(|| format!("{missing} changes did not reach a watcher"));
        }
    }
    all
}

/// Which writes are whose, and when.
struct Pace {
    begun: Instant,
    from: Instant,
    rate: u32,
    number: u32,
    step: u32,
    events: u64,
}

async fn write(link: Link, pace: Pace, objects: Arc<Objects>, many: u64, written: Arc<AtomicU64>) -> Seen {
    let (mut seen, mut link) = (Seen::default(), Some(link));
    let mut n = u64::from(pace.number);
    while n < pace.events {
        let due = pace.from + Duration::from_secs_f64(n as f64 / f64::from(pace.rate));
        base::time::sleep_until(due).await;
        let Some(at_hand) = link.take() else {
            seen.failed(|| "a writer's connection broke".to_owned());
            n += u64::from(pace.step);
            continue;
        };
        let sent = pace.begun.elapsed().as_nanos() as u64;
        link = seen.send(at_hand, &objects.patched(n % many, sent)).await;
        written.fetch_add(1, Ordering::Relaxed);
        n += u64::from(pace.step);
    }
    seen
}

/// Where the watch begins.
async fn revision(links: &Links, objects: &Objects) -> anyhow::Result<u64> {
    let mut link = links.open(1).await?.pop().context("a link was asked for")?;
    let mut text = Vec::new();
    let request = Request::get(format!("{}?limit=1", objects.path));
    link.stream(&request, &mut |_, part| {
        text.extend_from_slice(part);
        true
    })
    .await?;
    let list: serde_json::Value = serde_json::from_slice(&text).context("read a list")?;
    let revision = list["metadata"]["resourceVersion"].as_str().and_then(|r| r.parse().ok());
    revision.with_context(|| format!("a list without resourceVersion: {}", String::from_utf8_lossy(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_wherever_the_stream_is_cut() {
        let text = br#"{"data":{"sent":"0000000000000007","text":"x"}}{"f:sent":{},"sent":"0000000000000009","a":"b"}"#;
        for cut in 0..text.len() {
            let mut watcher =
                Watcher { begun: base::time::instant(), rest: Vec::new(), seen: Seen::default() };
            watcher.take(&text[..cut]);
            watcher.take(&text[cut..]);
            assert_eq!(watcher.seen.took.count, 2, "cut at {cut}");
            text.chunks(cut + 1).for_each(|part| watcher.take(part));
            assert_eq!(watcher.seen.took.count, 4, "in pieces of {}", cut + 1);
        }
    }
}
