//! What the engine does by itself: deletes what expires, forgets history, rewrites the log without what is dead.
//!
//! A rewrite copies what the index still names of all sealed segments into one file, in the order of keys, and puts
//! it in their place by one rename; killed at any point, either they or it are there, each complete.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base::time::Instant;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::frame::{self, NewRecord, Payload};
use super::index::{BASE, Key, Place, Segment, Version, WALK_MAX};
use super::log::{self, REWRITE, base_name, io};
use super::writer::Command;
use super::{Options, Shared};
use crate::Result;
use crate::disk::Disk;

/// The most keys that expire in one revision.
const EXPIRE_MAX: usize = 128;
/// How many values a rewrite reads at a time.
const COPY_MAX: usize = 128;
/// How much a rewrite writes at a time, each time synced, so that it never delays the log's own syncs by more.
const COPY_BYTES: usize = 2 << 20;

async fn ask<T>(
    commands: &mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    commands.send(command(reply)).await.ok()?;
    answer.await.ok()
}

/// Deletes keys as their time comes, until the engine is closed.
pub async fn expire(shared: Arc<Shared>, commands: mpsc::Sender<Command>) {
    loop {
        let now = base::time::now().as_millisecond().max(0) as u64;
        let (due, next) = {
            let state = shared.state();
            let due: Vec<_> = state
                .expiries
                .iter()
                .take(EXPIRE_MAX)
                .take_while(|(at, ..)| *at <= now)
                .map(|(_, revision, key)| (Bytes::copy_from_slice(key), *revision))
                .collect();
            let next = state.expiries.first().map_or(u64::MAX, |(at, ..)| *at);
            shared.expiry_ms.store(next, Ordering::Relaxed);
            (due, next)
        };
        if !due.is_empty() {
            if ask(&commands, |done| Command::Expire(due, done)).await.is_none() {
                return;
            }
            continue;
        }
        let wait = async {
            match next {
                u64::MAX => std::future::pending().await,
                at => base::time::sleep(Duration::from_millis(at - now)).await,
            }
        };
        base::select! {
            () = shared.expiry.notified() => {}
            () = wait => {}
            () = commands.closed() => return,
        }
    }
}

/// The task that forgets and rewrites.
pub struct Upkeep {
    shared: Arc<Shared>,
    disk: Arc<dyn Disk>,
    options: Options,
    commands: mpsc::Sender<Command>,
    /// Which revision was current when.
    marks: VecDeque<(Instant, u64)>,
    /// The revision of the last mark, kept when the mark has served.
    marked: u64,
}

impl Upkeep {
    /// Upkeep of what `shared` holds.
    pub fn new(
        shared: Arc<Shared>,
        disk: Arc<dyn Disk>,
        options: Options,
        commands: mpsc::Sender<Command>,
    ) -> Upkeep {
        Upkeep { shared, disk, options, commands, marks: VecDeque::new(), marked: 0 }
    }

    /// Works until the engine is closed.
    pub async fn run(mut self) {
        while !self.shared.closing() {
            let wake = self.mark();
            if let Some(to) = self.compaction()
                && ask(&self.commands, |done| Command::Compact(to, done)).await.is_none()
            {
                return;
            }
            while self.shared.state().prune() {
                base::task::yield_now().await;
            }
            if self.wants_rewrite() {
                if let Err(err) = self.rewrite().await {
                    tracing::warn!(error = %err, "could not rewrite the log; it stays as it was");
                } else {
                    continue;
                }
            }
            let wait = async {
                match wake {
                    Some(at) => base::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            base::select! {
                () = self.shared.upkeep.notified() => {}
                () = wait => {}
                () = self.commands.closed() => return,
            }
        }
    }

    /// Notes the revision of now, at most ten times per length of history; gives when to look again.
    fn mark(&mut self) -> Option<Instant> {
        let now = base::time::instant();
        let grain = self.options.history / 10;
        let visible = self.shared.state().visible;
        let next = self.marks.back().map(|(at, _)| *at + grain).filter(|at| *at > now);
        if visible > self.marked && next.is_none() {
            self.marks.push_back((now, visible));
            self.marked = visible;
            return Some(now + grain);
        }
        if next.is_none() {
            // Nothing changed since: sleep until something does or a mark is due.
            self.shared.mark_wanted.store(true, Ordering::Relaxed);
            if self.shared.state().visible > self.marked {
                self.shared.upkeep.notify_one();
            }
        }
        let due = self.marks.front().map(|(at, _)| *at + self.options.history);
        [next, due].into_iter().flatten().min()
    }

    /// Up to which revision history should be forgotten now.
    fn compaction(&mut self) -> Option<u64> {
        let now = base::time::instant();
        let mut to = 0;
        while let Some(&(at, revision)) = self.marks.front()
            && at + self.options.history <= now
        {
            to = revision;
            self.marks.pop_front();
        }
        let state = self.shared.state();
        if state.history_bytes > self.options.history_bytes {
            // Down to three quarters, so that it is not done for every write.
            let share = (state.changes.len() / 4).max(1);
            to = to.max(state.changes.get(share - 1).map_or(0, |c| c.revision));
        }
        (to > state.compacted).then_some(to)
    }

    fn wants_rewrite(&self) -> bool {
        let state = self.shared.state();
        let Some(active) = active(state.segments.keys()) else { return false };
        let sealed = || state.segments.iter().filter(|(id, _)| **id != active).map(|(_, s)| s);
        let bytes: u64 = sealed().map(|s| s.bytes).sum();
        let live: u64 = sealed().map(|s| s.live).sum();
        let dead = bytes.saturating_sub(live);
        dead > live && dead >= self.options.segment_bytes / 2
    }

    async fn rewrite(&self) -> Result<()> {
        let mut ids = self.sealed();
        if ids.iter().all(|id| id & BASE != 0) {
            // The new base needs a number of its own.
            if ask(&self.commands, Command::Rotate).await.is_none() {
                return Ok(());
            }
            ids = self.sealed();
        }
        let Some(number) = ids.iter().copied().filter(|id| id & BASE == 0).max() else { return Ok(()) };
        let copies = self.collect(&ids).await;
        let Some((places, segment)) = self.copy(number, &copies).await? else { return Ok(()) };
        self.shared.state().segments.insert(number | BASE, segment);
        for (copies, places) in copies.chunks(WALK_MAX).zip(places.chunks(WALK_MAX)) {
            {
                let mut state = self.shared.state();
                for ((key, version), place) in copies.iter().zip(places) {
                    state.moved(key, version.revision, *place);
                }
            }
            base::task::yield_now().await;
        }
        let old: Vec<String> = {
            let mut state = self.shared.state();
            ids.iter().filter_map(|id| state.segments.remove(id)).map(|s| s.name).collect()
        };
        for name in old {
            self.disk.remove(&name).await.map_err(io("remove a rewritten segment"))?;
        }
        Ok(())
    }

    fn sealed(&self) -> Vec<u32> {
        let state = self.shared.state();
        let active = active(state.segments.keys());
        state.segments.keys().copied().filter(|id| Some(*id) != active).collect()
    }

    /// All versions that lie in the segments `ids`, in the order of keys. What dies meanwhile is copied in vain.
    async fn collect(&self, ids: &[u32]) -> Vec<(Key, Version)> {
        let mut out = Vec::new();
        let mut from = Bound::Unbounded;
        loop {
            let (mut walked, mut last) = (0, None);
            {
                let state = self.shared.state();
                for (key, history) in state.keys.range((from, Bound::Unbounded)).take(WALK_MAX) {
                    let all = history.older().iter().chain(std::iter::once(&history.latest));
                    out.extend(all.filter(|v| ids.contains(&v.place.segment)).map(|v| (key.clone(), *v)));
                    walked += 1;
                    last = Some(key.clone());
                }
            }
            match last {
                Some(last) if walked == WALK_MAX => from = Bound::Excluded(last),
                _ => return out,
            }
            base::task::yield_now().await;
        }
    }

    /// Writes the base and gives it its name; gives the places of `copies` in it, or nothing if the engine is closing.
    async fn copy(&self, number: u32, copies: &[(Key, Version)]) -> Result<Option<(Vec<Place>, Segment)>> {
        let file = self.disk.create(REWRITE).await.map_err(io("make the rewritten log"))?;
        let mut out = Vec::new();
        let (mut offset, mut places) = (0, Vec::with_capacity(copies.len()));
        let gaps = {
            let state = self.shared.state();
            // Not the current revision, which may be a lazy one that a power cut takes; the segment that follows
            // knows the last one of those that are copied here.
            let head = Payload::Segment { number, revision: 0, compacted: state.compacted };
            frame::other(&mut out, 0, &head);
            frame::other(&mut out, 0, &Payload::Reserve { to: state.reserved });
            state.gaps.clone()
        };
        for (after, before) in gaps {
            frame::other(&mut out, 0, &Payload::Gap { after, before });
        }
        for part in copies.chunks(COPY_MAX) {
            let held = {
                let state = self.shared.state();
                part.iter().map(|(key, version)| state.held(key, *version)).collect()
            };
            for (kv, (key, v)) in log::read(held).await?.into_iter().zip(part) {
                let (create, version, expiry_ms, value) = (v.create, v.version, v.expiry_ms, &kv.value[..]);
                let record = NewRecord { key, create, version, expiry_ms, value };
                let at = frame::txn(&mut out, 0, v.revision, &[record]);
                places.push(Place {
                    segment: number | BASE,
                    offset: offset + at[0] as u64,
                    len: v.place.len,
                });
            }
            if out.len() >= COPY_BYTES {
                if self.shared.closing() {
                    return Ok(None);
                }
                let part = std::mem::take(&mut out);
                let len = part.len() as u64;
                file.write(offset, part.into(), true).await.map_err(io("write the rewritten log"))?;
                offset += len;
            }
        }
        frame::other(&mut out, 0, &Payload::Seal);
        let bytes = offset + out.len() as u64;
        file.write(offset, out.into(), true).await.map_err(io("write the rewritten log"))?;
        let name = base_name(number);
        self.disk.rename(REWRITE, &name).await.map_err(io("name the rewritten log"))?;
        self.disk.sync().await.map_err(io("sync the data directory"))?;
        Ok(Some((places, Segment { file, name, bytes, live: 0 })))
    }
}

/// The segment that is being written: the highest that is not a base.
fn active<'a>(ids: impl Iterator<Item = &'a u32>) -> Option<u32> {
    ids.copied().filter(|id| id & BASE == 0).max()
}
