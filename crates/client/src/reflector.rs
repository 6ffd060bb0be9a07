//! Keeps a cache fresh: a list, then a watch from its revision, resumed after every break and begun anew only when the
//! server no longer has that revision. Upstream: client-go tools/cache/reflector.go.

use std::time::Duration;

use apimachinery::call::{Options, WatchEvent};
use base::backoff::Backoff;
use futures_util::StreamExt;

use crate::api::{Error, Resource};
use crate::cache::{IndexFn, SharedCache};

/// The wait after the first failure, and the longest. Upstream: 800 ms and 30 s; an API server in the same process is
/// back sooner.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A watch that lasted this long was no failure.
const HEALTHY: Duration = Duration::from_secs(5);

/// Which objects to keep.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// A label selector; empty for all.
    pub labels: String,
    /// A field selector; empty for all.
    pub fields: String,
}

/// Starts a cache of `resource` and the task that keeps it fresh for as long as the task lives.
pub fn start(
    resource: Resource,
    selection: Selection,
    indexes: Vec<(&'static str, IndexFn)>,
) -> (SharedCache, base::task::Task<()>) {
    let cache = SharedCache::new(indexes);
    let task = base::task::spawn(run(resource, selection, cache.clone()));
    (cache, task)
}

/// Keeps `cache` fresh for ever.
pub async fn run(resource: Resource, selection: Selection, cache: SharedCache) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT).with_jitter(0.5);
    // The revision to resume from; none when a list is needed.
    let mut from: Option<u64> = None;
    loop {
        let begun = base::time::instant();
        match round(&resource, &selection, &cache, &mut from).await {
            // A watch that the server ends is resumed, at once if it lasted.
            Ok(()) => {}
            Err(err) if err.is_expired() => from = None,
            Err(err) => tracing::debug!(resource = %resource.gvr(), error = %err, "watch broke"),
        }
        if begun.elapsed() >= HEALTHY {
            backoff.reset();
            continue;
        }
        base::time::sleep(backoff.next_wait()).await;
    }
}

async fn round(
    resource: &Resource,
    selection: &Selection,
    cache: &SharedCache,
    from: &mut Option<u64>,
) -> Result<(), Error> {
    let mut options = Options {
        label_selector: selection.labels.clone(),
        field_selector: selection.fields.clone(),
        ..Options::default()
    };
    let start = match *from {
        Some(revision) => revision,
        None => {
            let list = resource.list(options.clone()).await?;
            cache.replace(list.items, list.revision);
            *from = Some(list.revision);
            list.revision
        }
    };
    options.resource_version = Some(start.to_string());
    options.allow_watch_bookmarks = true;
    let mut events = resource.watch(options).await?;
    while let Some(event) = events.next().await {
        match event? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                *from = Some(object.revision);
                cache.upsert(object);
            }
            WatchEvent::Deleted(object) => {
                *from = Some(object.revision);
                cache.remove(&object);
            }
            WatchEvent::Bookmark { revision, .. } => {
                *from = Some(revision);
                cache.progressed(revision, false);
            }
            WatchEvent::Error(status) => return Err(Error::Status(status)),
            WatchEvent::Rendered { .. } => unreachable!("a rendering comes only where one was asked for"),
        }
    }
    Ok(())
}
