//! watch: the changes after a revision, with selectors turning changes into comings and goings.
//! Upstream: k8s.io/apiserver/pkg/endpoints/handlers/watch.go, pkg/storage/cacher/cache_watcher.go.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::Status;
use apimachinery::call::{BoxStream, Reply, Watch, WatchEvent};
use base::time::{Alarm, Instant};

use super::{Request, list};
use crate::Api;
use crate::cacher::{Change, Collection, Receiver, Registration, Selection, TooOld};
use crate::registry::{render, store};

/// How long a watch lasts when the client does not say, at least; up to twice that, so that not all end together.
const LAST_MIN: Duration = Duration::from_secs(30 * 60);
/// How often progress is told.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long before a watch's end progress is told once more.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// How many events are told together at most.
const TOGETHER_MAX: usize = 64;

/// Answers with a stream of events.
///
/// # Errors
/// 400 for selectors and revisions that cannot be read. A revision that is gone, or does not come, is an event.
pub async fn watch(request: &Request) -> Result<Reply, Status> {
    let options = &request.options;
    let selection = list::selection(request)?;
    let collection = store::collection(request)?;
    let asked = store::parse_revision(options.resource_version.as_deref())?;
    let (registration, pending, after) = match begin(request, &collection, &selection, asked).await {
        Ok(begun) => begun,
        // Once a watch is allowed and understood, whatever else ends it is an event of it.
        Err(status) => {
            let events = futures_util::stream::once(std::future::ready(vec![WatchEvent::Error(status)]));
            return Ok(reply(request, Box::pin(events)));
        }
    };
    let end = base::time::instant() + duration(options.timeout_seconds);
    let mut watcher = Watcher {
        api: request.api.clone(),
        changes: registration.changes,
        seen: Seen { selection, pending, after, told: after },
        bookmarks: options.allow_watch_bookmarks,
        next_bookmark: base::time::instant() + BOOKMARK_EVERY,
        end,
        alarm: Alarm::at(end),
        ended: false,
        renderer: render::Renderer::of(request),
    };
    for change in &registration.backlog {
        watcher.seen.take(change);
    }
    let events =
        futures_util::stream::unfold(
            watcher,
            |mut watcher| async move { Some((watcher.next().await?, watcher)) },
        );
    Ok(reply(request, Box::pin(events)))
}

fn reply(request: &Request, events: BoxStream<Vec<WatchEvent>>) -> Reply {
    Reply::Watch(Watch { api_version: request.gv().to_string(), kind: request.kind.kind.to_string(), events })
}

/// The place from which changes are told, what is told before, and the revision that this comes to.
async fn begin(
    request: &Request,
    collection: &Collection,
    selection: &Selection,
    asked: Option<u64>,
) -> Result<(Registration, VecDeque<WatchEvent>, u64), Status> {
    let cacher = &request.api.cacher;
    let wants = request.options.send_initial_events;
    let initial = wants == Some(true);
    match asked {
        None => {
            cacher.catch_up().await?;
        }
        Some(revision) if initial => cacher.wait(revision).await?,
        Some(_) => {}
    }
    let from = match asked {
        Some(revision) if revision > 0 && !initial => Some(revision),
        // No initial events wanted, and no place to begin: from now on.
        _ if wants == Some(false) => Some(cacher.reached()),
        _ => None,
    };
    if let Some(revision) = from {
        let registration =
            collection.watch(selection, revision).map_err(|TooOld { floor }| too_old(revision, floor))?;
        return Ok((registration, VecDeque::new(), revision));
    }
    let (items, registration, revision) = collection.list_and_watch(selection, || cacher.reached());
    let mut pending: VecDeque<_> = items.iter().map(|i| WatchEvent::Added(i.clone())).collect();
    if initial {
        pending.push_back(WatchEvent::Bookmark { revision, initial: true });
    }
    Ok((registration, pending, revision))
}

fn too_old(revision: u64, floor: u64) -> Status {
    Status::expired(format!("too old resource version: {revision} ({floor})"))
}

fn duration(asked: Option<u64>) -> Duration {
    match asked {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds),
        _ => LAST_MIN.mul_f64(1.0 + base::rand::fraction()),
    }
}

struct Watcher {
    api: Arc<Api>,
    changes: Receiver,
    seen: Seen,
    bookmarks: bool,
    next_bookmark: Instant,
    end: Instant,
    alarm: Alarm,
    ended: bool,
    renderer: render::Renderer,
}

impl Watcher {
    async fn next(&mut self) -> Option<Vec<WatchEvent>> {
        loop {
            let pending = &mut self.seen.pending;
            if !pending.is_empty() {
                let some = pending.drain(..pending.len().min(TOGETHER_MAX));
                return Some(some.map(|event| self.renderer.event(event)).collect());
            }
            if self.ended {
                return None;
            }
            let wake = if self.bookmarks { self.next_bookmark.min(self.end) } else { self.end };
            self.alarm.set(wake);
            base::select! {
                change = self.changes.next() => match change {
                    Some(change) => {
                        self.seen.take(&change);
                        self.take_rest();
                    }
                    None => self.cut_off(),
                },
                () = self.alarm.rings() => {
                    if base::time::instant() >= self.end {
                        self.ended = true;
                    } else if self.bookmarks && self.seen.told < self.api.cacher.reached() {
                        self.tell_progress();
                    }
                    self.schedule();
                }
            }
        }
    }

    /// Too slow, or the cache began anew: what was missed cannot be told.
    fn cut_off(&mut self) {
        self.ended = true;
        let floor = self.api.cacher.reached();
        self.seen.pending.push_back(WatchEvent::Error(too_old(self.seen.told, floor)));
    }

    fn schedule(&mut self) {
        let now = base::time::instant();
        let before_end = self.end - BOOKMARK_BEFORE_END.min(self.end.saturating_duration_since(now));
        self.next_bookmark = now + BOOKMARK_EVERY;
        if now < before_end {
            self.next_bookmark = self.next_bookmark.min(before_end);
        }
    }

    /// Takes all changes that are there already.
    fn take_rest(&mut self) {
        self.changes.at_hand(|change| self.seen.take(change));
    }

    fn tell_progress(&mut self) {
        // Everything up to here had been handed over before the cache said that it reached it.
        let reached = self.api.cacher.reached();
        self.take_rest();
        self.seen.told = self.seen.told.max(reached);
        self.seen.pending.push_back(WatchEvent::Bookmark { revision: self.seen.told, initial: false });
    }
}

/// What a watcher is to be told, and how far it has come.
struct Seen {
    selection: Selection,
    pending: VecDeque<WatchEvent>,
    /// Changes up to this revision are not told: the client knows them.
    after: u64,
    /// The revision that the client knows.
    told: u64,
}

impl Seen {
    fn take(&mut self, change: &Change) {
        if change.revision <= self.after {
            return;
        }
        let was = change.old.as_ref().is_some_and(|i| self.selection.matches(i));
        let is = change.new.as_ref().filter(|i| self.selection.matches(i));
        let event = match (was, is) {
            (false, Some(new)) => WatchEvent::Added(new.clone()),
            (true, Some(new)) => WatchEvent::Modified(new.clone()),
            (true, None) => match change.gone() {
                Some(gone) => WatchEvent::Deleted(gone),
                None => return,
            },
            (false, None) => return,
        };
        self.told = change.revision;
        self.pending.push_back(event);
    }
}
