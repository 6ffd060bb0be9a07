//! The one task that writes: drains what waits, decides it ([`super::plan`]), writes and syncs once, applies, answers.

use std::sync::Arc;

use base::time::Instant;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::frame::{self, Payload};
use super::index::Segment;
use super::log::{io, segment_name};
use super::plan::{Batch, Decision, Position};
use super::{Options, Shared};
use crate::disk::{Disk, File, Lock};
use crate::{Result, StoreError, Txn};

/// How many commands may wait before senders do.
pub const QUEUE_MAX: usize = 4096;
/// A batch takes no further command once it has this many bytes.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// What the writer is asked to do.
pub enum Command {
    Txn(Txn, oneshot::Sender<Decision>),
    /// Delete these keys if they are still at these revisions; answered when done.
    Expire(Vec<(Bytes, u64)>, oneshot::Sender<()>),
    Compact(u64, oneshot::Sender<Result<()>>),
    /// Seal the segment and begin the next.
    Rotate(oneshot::Sender<()>),
    /// Stop in order.
    Close(oneshot::Sender<()>),
}

enum Answer {
    Txn(Decision, oneshot::Sender<Decision>),
    Expire(oneshot::Sender<()>),
    Compact(Result<()>, oneshot::Sender<Result<()>>),
}

/// Whoever asked may have gone away meanwhile.
fn answer<T>(to: oneshot::Sender<T>, with: T) {
    drop(to.send(with));
}

/// The writer's own state.
pub struct Writer {
    pub shared: Arc<Shared>,
    pub disk: Arc<dyn Disk>,
    pub options: Options,
    pub commands: mpsc::Receiver<Command>,
    /// Tells watchers that the visible revision moved, and by its end that the store was closed.
    pub visible: base::watch::Sender<u64>,
    pub file: Arc<dyn File>,
    pub at: Position,
    /// When lazy writes must be synced.
    pub sync_by: Option<Instant>,
    /// Given back when the writer ends.
    pub _lock: Lock,
}

impl Writer {
    /// Works until asked to close.
    ///
    /// # Panics
    /// When the disk fails: what is safe is then unknown, and the only sound way on is to read the log again.
    pub async fn run(mut self) {
        loop {
            let command = base::select! {
                () = until(self.sync_by) => {
                    self.sync().await;
                    continue;
                }
                command = self.commands.recv() => command,
            };
            match command {
                None => return,
                Some(Command::Close(done)) => return self.close(done).await,
                Some(command) => {
                    // Whoever is about to ask, too, asks first: one write and one sync serve all of them.
                    base::task::yield_now().await;
                    if let Some(done) = self.batch(command).await {
                        return self.close(done).await;
                    }
                }
            }
        }
    }

    /// Performs `first` and what waits behind it; gives the request to close if it met one.
    async fn batch(&mut self, first: Command) -> Option<oneshot::Sender<()>> {
        let mut answers = Vec::new();
        let (mut close, mut rotate) = (None, None);
        let batch = {
            let state = self.shared.state();
            let now_ms = base::time::now().as_millisecond().max(0) as u64;
            let mut batch = Batch::new(self.at, state.visible);
            let mut next = Some(first);
            while let Some(command) = next {
                match command {
                    Command::Txn(txn, to) => {
                        answers.push(Answer::Txn(batch.decide(&state, &txn, now_ms), to))
                    }
                    Command::Expire(due, to) => {
                        batch.expire(&state, &due);
                        answers.push(Answer::Expire(to));
                    }
                    Command::Compact(revision, to) => {
                        let verdict =
                            check_compact(revision, batch.compact.unwrap_or(state.compacted), state.visible);
                        if verdict.is_ok() {
                            batch.compact(revision);
                        }
                        answers.push(Answer::Compact(verdict, to));
                    }
                    Command::Rotate(done) => rotate = Some(done),
                    Command::Close(done) => {
                        close = Some(done);
                        break;
                    }
                }
                next =
                    if batch.buffer.len() < BATCH_BYTES_MAX { self.commands.try_recv().ok() } else { None };
            }
            batch.finish(self.options.reserve);
            batch
        };
        self.write(batch).await;
        for one in answers {
            match one {
                Answer::Txn(decision, to) => answer(to, decision),
                Answer::Expire(to) => answer(to, ()),
                Answer::Compact(verdict, to) => answer(to, verdict),
            }
        }
        if rotate.is_some() || self.at.offset >= self.options.segment_bytes {
            self.rotate().await;
        }
        if let Some(done) = rotate {
            answer(done, ());
        }
        close
    }

    async fn write(&mut self, mut batch: Batch) {
        if batch.buffer.is_empty() {
            return;
        }
        let data = Bytes::from(std::mem::take(&mut batch.buffer));
        let written = data.len() as u64;
        must(self.file.write(self.at.offset, data, batch.sync).await, "write the log");
        self.at.offset += written;
        self.at.reserved = batch.reserved;
        if batch.sync {
            self.at.synced = self.at.offset;
            self.sync_by = None;
        } else if self.sync_by.is_none() {
            self.sync_by = Some(base::time::instant() + self.options.lazy_sync);
        }
        let visible = batch.revision;
        let length = self.at.offset;
        {
            let mut state = self.shared.state();
            batch.apply(&mut state);
            if let Some(segment) = state.segments.get_mut(&self.at.segment) {
                segment.bytes = length;
            }
            self.shared.notify(&state, self.options.history_bytes);
        }
        self.visible.send(visible);
    }

    async fn sync(&mut self) {
        must(self.file.sync().await, "sync the log");
        self.at.synced = self.at.offset;
        self.sync_by = None;
    }

    async fn append(&mut self, payload: Payload<'_>) {
        let mut out = Vec::new();
        frame::other(&mut out, self.at.synced, &payload);
        let len = out.len() as u64;
        must(self.file.write(self.at.offset, out.into(), true).await, "write the log");
        self.at.offset += len;
        self.at.synced = self.at.offset;
        self.sync_by = None;
        if let Some(segment) = self.shared.state().segments.get_mut(&self.at.segment) {
            segment.bytes = self.at.offset;
        }
    }

    async fn rotate(&mut self) {
        self.append(Payload::Seal).await;
        let number = self.at.segment + 1;
        let (revision, compacted) = {
            let state = self.shared.state();
            (state.visible, state.compacted)
        };
        let (file, len) = must(begin(&*self.disk, number, revision, compacted).await, "begin a segment");
        let segment = Segment { file: file.clone(), name: segment_name(number), bytes: len, live: 0 };
        self.shared.state().segments.insert(number, segment);
        self.file = file;
        self.at = Position { segment: number, offset: len, synced: len, reserved: self.at.reserved };
        self.shared.upkeep.notify_one();
    }

    async fn close(mut self, done: oneshot::Sender<()>) {
        self.commands.close();
        if self.sync_by.is_some() {
            self.sync().await;
        }
        let revision = self.shared.state().visible;
        self.append(Payload::Clean { revision }).await;
        drop(self);
        answer(done, ());
    }
}

/// Waits until `at`, for ever without one.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => base::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Makes the file of segment `number` with its first frame, safely; gives it and its length.
pub async fn begin(
    disk: &dyn Disk,
    number: u32,
    revision: u64,
    compacted: u64,
) -> Result<(Arc<dyn File>, u64)> {
    let file = disk.create(&segment_name(number)).await.map_err(io("make a segment"))?;
    let len = head(&*file, number, revision, compacted).await?;
    disk.sync().await.map_err(io("sync the data directory"))?;
    Ok((file, len))
}

/// Writes a segment's first frame, safely; gives its length.
pub async fn head(file: &dyn File, number: u32, revision: u64, compacted: u64) -> Result<u64> {
    let mut out = Vec::new();
    frame::other(&mut out, 0, &Payload::Segment { number, revision, compacted });
    let len = out.len() as u64;
    file.write(0, out.into(), true).await.map_err(io("write a segment's first frame"))?;
    Ok(len)
}

fn must<T, E: std::fmt::Display>(result: std::result::Result<T, E>, what: &str) -> T {
    match result {
        Ok(value) => value,
        Err(err) => panic!("cannot {what}: {err}; what is safe on disk is unknown, so this process ends"),
    }
}

fn check_compact(revision: u64, compacted: u64, visible: u64) -> Result<()> {
    if revision > visible {
        return Err(StoreError::FutureRevision { requested: revision, current: visible });
    }
    if revision <= compacted {
        return Err(StoreError::Compacted { requested: revision, compacted });
    }
    Ok(())
}
