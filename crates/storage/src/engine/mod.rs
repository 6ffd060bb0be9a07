//! The embedded engine: a segmented append-only log with its index in memory, in one directory of one process.
//!
//! The way of a write: [`Engine::txn`] -> queue -> `writer` (drains what waits) -> `plan` (decides, encodes; no IO) ->
//! one write and one fdatasync -> `index` -> the callers and, pulling from the index, the watchers. `upkeep` forgets
//! old history and rewrites the log without it, and deletes what expires. Values stay in the log; whoever needs them
//! often (the API server's cache) keeps them.

mod frame;
mod index;
mod log;
mod plan;
mod upkeep;
mod watcher;
mod writer;

use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::task::Task;
use base::watch;
use bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot};

use self::frame::Payload;
use self::index::{Held, Segment, State};
use self::plan::{Decision, Position};
use self::writer::{Command, Writer};
use crate::disk::{Disk, File};
use crate::{BoxFuture, KeyValue, Range, RangeReply, Result, Store, StoreError, Txn, TxnReply, Watch};

/// What can be chosen when an engine is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long history is kept before it is compacted by itself.
    pub history: Duration,
    /// How many bytes of the log history may take before it is compacted earlier.
    pub history_bytes: u64,
    /// The size at which a segment gets a successor.
    pub segment_bytes: u64,
    /// How long lazy writes may stay unsynced.
    pub lazy_sync: Duration,
    /// How many revisions are reserved at a time.
    pub reserve: u64,
    /// How many bytes of the latest values are kept in memory for watchers.
    pub recent_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            history: Duration::from_secs(300),
            history_bytes: 256 << 20,
            segment_bytes: 32 << 20,
            lazy_sync: Duration::from_millis(500),
            reserve: 1 << 16,
            recent_bytes: 8 << 20,
        }
    }
}

/// What the engine's tasks and watchers share.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Wakes the task that compacts and rewrites.
    upkeep: Notify,
    /// Wakes the task that deletes what expires.
    expiry: Notify,
    /// Until when (milliseconds since 1970) that task sleeps.
    expiry_ms: AtomicU64,
    /// Whether `upkeep` wants to know of the next change.
    mark_wanted: AtomicBool,
    /// Whether the engine is being closed.
    closing: AtomicBool,
}

impl Shared {
    /// Never held across an await. A panic while it is held ends the process or, in tests, the engine's tasks.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes those whom a change of `state` concerns.
    fn notify(&self, state: &State, history_bytes: u64) {
        if self.mark_wanted.swap(false, Ordering::Relaxed) || state.history_bytes > history_bytes {
            self.upkeep.notify_one();
        }
        if state.expiries.first().is_some_and(|(at, ..)| *at < self.expiry_ms.load(Ordering::Relaxed)) {
            self.expiry.notify_one();
        }
    }

    fn closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }
}

/// An open store in a directory. Dropped without [`Engine::close`], it stops as if the process had been killed.
pub struct Engine {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    visible: watch::Receiver<u64>,
    upkeep: Mutex<Option<Task<()>>>,
    _tasks: [Task<()>; 2],
}

impl Engine {
    /// Opens the store on `disk`, or makes an empty one.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process has it, [`StoreError::Corrupt`] when it is damaged in a way that
    /// no crash explains, [`StoreError::Io`].
    pub async fn open(disk: Arc<dyn Disk>, options: Options) -> Result<Engine> {
        let lock = disk.lock().await?;
        let recovered = log::recover(&*disk, options.recent_bytes).await?;
        let (file, at, state) = start(&*disk, recovered, &options).await?;
        let (visible_in, visible) = watch::channel(state.visible);
        let (commands, queue) = mpsc::channel(writer::QUEUE_MAX);
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            upkeep: Notify::new(),
            expiry: Notify::new(),
            expiry_ms: AtomicU64::new(0),
            mark_wanted: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        });
        let writer = Writer {
            shared: shared.clone(),
            disk: disk.clone(),
            options: options.clone(),
            commands: queue,
            visible: visible_in,
            file,
            at,
            sync_by: None,
            _lock: lock,
        };
        let upkeep = upkeep::Upkeep::new(shared.clone(), disk, options, commands.clone());
        Ok(Engine {
            _tasks: [
                base::task::spawn(writer.run()),
                base::task::spawn(upkeep::expire(shared.clone(), commands.clone())),
            ],
            upkeep: Mutex::new(Some(base::task::spawn(upkeep.run()))),
            shared,
            commands,
            visible,
        })
    }

    /// Stops in order: all that was accepted is safe, and the directory free, when this returns.
    pub async fn close(&self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        self.shared.upkeep.notify_one();
        let upkeep = self.upkeep.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(upkeep) = upkeep {
            upkeep.await;
        }
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close(done)).await.is_ok() {
            // An error means that someone else closed it meanwhile.
            closed.await.ok();
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)
    }

    async fn walk(&self, range: &Range) -> Result<(Vec<Held>, RangeReply)> {
        let mut reply = RangeReply::default();
        let mut held = Vec::new();
        let mut from = Bound::Included(range.start.clone());
        let mut revision = None;
        loop {
            let next = {
                let state = self.shared.state();
                let at = match revision {
                    None => state.read_revision(range.revision)?,
                    // Compacted while the lock was given to others: read the state of now.
                    Some(at) if at < state.compacted && range.revision == 0 => {
                        (held, reply.count, from) = (Vec::new(), 0, Bound::Included(range.start.clone()));
                        state.visible
                    }
                    Some(at) => state.read_revision(at)?,
                };
                revision = Some(at);
                reply.revision = if range.revision == 0 { at } else { state.visible };
                state.walk(range, from, at, &mut held, &mut reply.count)
            };
            match next {
                Some(next) => from = next,
                None => break,
            }
            base::task::yield_now().await;
        }
        reply.more = range.limit > 0 && reply.count > held.len() as u64 && range.want != crate::Want::Count;
        Ok((held, reply))
    }
}

/// Readies the end of the log for writing and numbers what comes.
async fn start(
    disk: &dyn Disk,
    recovered: log::Recovered,
    options: &Options,
) -> Result<(Arc<dyn File>, Position, State)> {
    let log::Recovered { mut state, active, sealed, revision, reserved, clean } = recovered;
    let mut out = Vec::new();
    let revision = revision.max(1);
    state.visible = revision;
    if !clean && reserved > 0 {
        // Whatever was handed out and lost is at most `reserved`.
        let before = reserved.max(revision) + 1;
        state.gaps.push((revision, before));
        state.visible = before;
        frame::other(&mut out, 0, &Payload::Gap { after: revision, before });
    }
    state.reserved = state.visible + options.reserve;
    frame::other(&mut out, 0, &Payload::Reserve { to: state.reserved });
    let (number, file, offset) = match active {
        Some((number, len)) if len > 0 && !sealed => (number, state.segments[&number].file.clone(), len),
        Some((number, 0)) => {
            let file = state.segments[&number].file.clone();
            let len = writer::head(&*file, number, revision, state.compacted).await?;
            (number, file, len)
        }
        other => {
            let number = other.map_or(1, |(number, _)| number + 1);
            let (file, len) = writer::begin(disk, number, revision, state.compacted).await?;
            (number, file, len)
        }
    };
    let offset_after = offset + out.len() as u64;
    file.write(offset, out.into(), true).await.map_err(log::io("write the log"))?;
    // The directory's own entry for the segment may be as young as the segment.
    disk.sync().await.map_err(log::io("sync the data directory"))?;
    let name = log::segment_name(number);
    let segment =
        state.segments.entry(number).or_insert(Segment { file: file.clone(), name, bytes: 0, live: 0 });
    segment.bytes = offset_after;
    let at =
        Position { segment: number, offset: offset_after, synced: offset_after, reserved: state.reserved };
    Ok((file, at, state))
}

/// Reads the values of those that exist, keeping their positions.
async fn read_present(held: Vec<Option<Held>>) -> Result<Vec<Option<KeyValue>>> {
    let there: Vec<bool> = held.iter().map(Option::is_some).collect();
    let mut read = log::read(held.into_iter().flatten().collect()).await?.into_iter();
    Ok(there.into_iter().map(|t| if t { read.next() } else { None }).collect())
}

impl Store for Engine {
    fn is_shared(&self) -> bool {
        false
    }

    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnReply>> {
        Box::pin(async move {
            txn.check()?;
            Ok(match self.ask(|reply| Command::Txn(txn, reply)).await? {
                Decision::Done { revision, prev } => {
                    TxnReply::Done { revision, prev: read_present(prev).await? }
                }
                Decision::Conflict { revision, current } => {
                    TxnReply::Conflict { revision, current: read_present(current).await? }
                }
            })
        })
    }

    fn range(&self, range: Range) -> BoxFuture<'_, Result<RangeReply>> {
        Box::pin(async move {
            let (held, mut reply) = self.walk(&range).await?;
            reply.kvs = log::read(held).await?;
            Ok(reply)
        })
    }

    fn watch(&self, prefix: Bytes, from_revision: u64) -> BoxFuture<'_, Result<Watch>> {
        Box::pin(async move {
            let next = {
                let state = self.shared.state();
                let next = if from_revision == 0 { state.visible + 1 } else { from_revision };
                state.check_watch(next)?;
                next
            };
            Ok(Watch::new(watcher::Cursor::new(self.shared.clone(), prefix, next, self.visible.clone())))
        })
    }

    fn revision(&self) -> BoxFuture<'_, Result<u64>> {
        // Nothing is acknowledged before it is visible, so that what is visible is current.
        Box::pin(async move { Ok(self.shared.state().visible) })
    }

    fn compact(&self, revision: u64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.ask(|reply| Command::Compact(revision, reply)).await??;
            self.shared.upkeep.notify_one();
            Ok(())
        })
    }
}
