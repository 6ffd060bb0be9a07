//! The log's files: their names, reading them back after a stop of any kind, reading values.
//!
//! `log-<number>` are the segments in order; `base-<number>` stands for all segments up to that number, rewritten
//! without what is dead; `rewrite` is a base not yet finished. All but the last segment end with a seal and must be
//! whole; the last may be torn behind the point up to which it was safe.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::frame::{self, Payload};
use super::index::{BASE, Held, Place, Segment, Source, State, Version};
use crate::disk::{Disk, File};
use crate::{KeyValue, Result, StoreError};

/// The unfinished base.
pub const REWRITE: &str = "rewrite";
/// How much is read at a time.
const CHUNK: usize = 1 << 20;

/// The name of segment `number`.
pub fn segment_name(number: u32) -> String {
    format!("log-{number:08}")
}

/// The name of the base that stands for the segments up to `number`.
pub fn base_name(number: u32) -> String {
    format!("base-{number:08}")
}

/// Makes a closure that turns an IO error into the store's, saying what was being done.
pub fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> StoreError {
    move |source| StoreError::Io { what, source }
}

/// What the files told when they were read back.
pub struct Recovered {
    pub state: State,
    /// The number and length of the segment to be continued; `None` in an empty directory.
    pub active: Option<(u32, u64)>,
    /// Whether that segment already ends with a seal, so that it needs a successor.
    pub sealed: bool,
    /// The highest revision found.
    pub revision: u64,
    /// Up to which revisions may have been handed out; 0 = none.
    pub reserved: u64,
    /// Whether the engine was closed in order.
    pub clean: bool,
}

/// Reads the whole log. Removes files that a finished rewrite left over and cuts a torn end.
///
/// # Errors
/// [`StoreError::Corrupt`] for damage that no crash explains.
pub async fn recover(disk: &dyn Disk, recent_bytes_max: usize) -> Result<Recovered> {
    let files = Files::sort(disk.list().await.map_err(io("list the data directory"))?)?;
    if !files.stale.is_empty() {
        // The process may have been killed between giving the base its name and making that safe; without it
        // what it stands for must not go.
        disk.sync().await.map_err(io("sync the data directory"))?;
    }
    for name in &files.stale {
        disk.remove(name).await.map_err(io("remove a file left over"))?;
    }
    let state = State::new(recent_bytes_max);
    let mut r = Recovered { state, active: None, sealed: false, revision: 0, reserved: 0, clean: false };
    if let Some(number) = files.base {
        load_file(disk, &mut r, number, base_name(number), true, false).await?;
        r.state.sort_changes();
    }
    let last = files.segments.last().copied();
    for number in files.segments {
        load_file(disk, &mut r, number, segment_name(number), false, Some(number) == last).await?;
    }
    if let (Some(base), None) = (files.base, last) {
        return Err(corrupt(&segment_name(base + 1), 0, "the segment is missing"));
    }
    while r.state.prune() {}
    Ok(r)
}

struct Files {
    base: Option<u32>,
    segments: Vec<u32>,
    stale: Vec<String>,
}

impl Files {
    fn sort(names: Vec<String>) -> Result<Files> {
        let number = |name: &str, kind: &str| name.strip_prefix(kind).and_then(|n| n.parse::<u32>().ok());
        let base = names.iter().filter_map(|n| number(n, "base-")).max();
        let mut segments = BTreeMap::new();
        let mut stale = Vec::new();
        for name in names {
            if let Some(n) = number(&name, "log-") {
                if base.is_some_and(|base| n <= base) {
                    stale.push(name);
                } else {
                    segments.insert(n, ());
                }
            } else if name == REWRITE || number(&name, "base-").is_some_and(|n| Some(n) != base) {
                stale.push(name);
            }
        }
        let segments: Vec<u32> = segments.into_keys().collect();
        let first = base.map_or(1, |b| b + 1);
        for (expected, &found) in (first..).zip(&segments) {
            if expected != found {
                return Err(corrupt(&segment_name(expected), 0, "the segment is missing"));
            }
        }
        Ok(Files { base, segments, stale })
    }
}

fn corrupt(file: &str, offset: u64, what: &'static str) -> StoreError {
    StoreError::Corrupt { file: file.to_owned(), offset, what }
}

async fn load_file(
    disk: &dyn Disk,
    r: &mut Recovered,
    number: u32,
    name: String,
    is_base: bool,
    is_last: bool,
) -> Result<()> {
    let file = disk.open(&name).await.map_err(io("open a segment"))?;
    let size = file.size().await.map_err(io("measure a segment"))?;
    let segment = Segment { file: file.clone(), name: name.clone(), bytes: size, live: 0 };
    let id = if is_base { number | BASE } else { number };
    r.state.segments.insert(id, segment);
    let mut scan = Scan { file, size, buffer: Bytes::new(), start: 0 };
    let (mut at, mut sealed) = (0, false);
    while at < size {
        let Some(bytes) = scan.frame(at).await? else { break };
        let Some((payload, _)) = frame::parse(&bytes) else { break };
        if (at == 0) != matches!(payload, Payload::Segment { .. }) {
            return Err(corrupt(&name, at, "a segment's first frame is not where it belongs"));
        }
        if matches!(payload, Payload::Segment { number: n, .. } if n != number) {
            return Err(corrupt(&name, at, "the file is another segment's"));
        }
        r.clean = false;
        sealed = payload == Payload::Seal;
        take(r, id, at, payload, is_base);
        at += bytes.len() as u64;
        if sealed {
            break;
        }
    }
    if !is_last {
        let whole = sealed && at == size;
        return if whole { Ok(()) } else { Err(corrupt(&name, at, "a sealed segment is damaged")) };
    }
    if at < size {
        scan.must_be_torn(&name, at).await?;
        tracing::warn!(file = name, offset = at, lost = size - at, "cut the torn end that a crash left");
        scan.file.truncate(at).await.map_err(io("cut a torn segment"))?;
    }
    // What was only in the page cache becomes safe before anyone sees it.
    scan.file.sync().await.map_err(io("sync a segment"))?;
    if let Some(segment) = r.state.segments.get_mut(&number) {
        segment.bytes = at;
    }
    r.active = Some((number, at));
    r.sealed = sealed;
    Ok(())
}

fn take(r: &mut Recovered, segment: u32, at: u64, payload: Payload<'_>, is_base: bool) {
    match payload {
        Payload::Segment { revision, compacted, .. } => {
            r.revision = r.revision.max(revision);
            r.state.compacted = r.state.compacted.max(compacted);
        }
        Payload::Txn { revision, records } => {
            for record in records {
                let place =
                    Place { segment, offset: at + record.value_at as u64, len: record.value_len as u32 };
                let (create, version, expiry_ms) = (record.create, record.version, record.expiry_ms);
                let version = Version { revision, create, version, expiry_ms, place };
                if is_base {
                    r.state.load(record.key, version);
                } else {
                    r.state.apply(&Bytes::copy_from_slice(record.key), version, None);
                }
            }
            r.revision = r.revision.max(revision);
        }
        Payload::Reserve { to } => r.reserved = r.reserved.max(to),
        Payload::Gap { after, before } => {
            r.revision = r.revision.max(before);
            if !r.state.gaps.contains(&(after, before)) {
                r.state.gaps.push((after, before));
            }
        }
        Payload::Compact { revision } => {
            r.state.compacted = r.state.compacted.max(revision);
            while r.state.prune() {}
        }
        Payload::Seal => {}
        Payload::Clean { revision } => {
            r.revision = r.revision.max(revision);
            r.clean = true;
        }
    }
}

/// Reads a file front to back through a buffer.
struct Scan {
    file: Arc<dyn File>,
    size: u64,
    buffer: Bytes,
    start: u64,
}

impl Scan {
    async fn bytes(&mut self, at: u64, len: usize) -> Result<Option<Bytes>> {
        if at + len as u64 > self.size {
            return Ok(None);
        }
        let inside = at.checked_sub(self.start).is_some_and(|o| o as usize + len <= self.buffer.len());
        if !inside {
            let mut got = self.file.read(vec![(at, len.max(CHUNK))]).await.map_err(io("read a segment"))?;
            self.buffer = got.pop().unwrap_or_default();
            self.start = at;
        }
        let offset = (at - self.start) as usize;
        Ok((self.buffer.len() >= offset + len).then(|| self.buffer.slice(offset..offset + len)))
    }

    async fn frame(&mut self, at: u64) -> Result<Option<Bytes>> {
        let Some(head) = self.bytes(at, frame::HEADER).await? else { return Ok(None) };
        let Some(len) = frame::length(&head) else { return Ok(None) };
        if at + len > self.size {
            return Ok(None);
        }
        self.bytes(at, len as usize).await
    }

    /// Looks behind the bad frame at `bad` for proof that it was once safe: then no crash explains it.
    async fn must_be_torn(&mut self, name: &str, bad: u64) -> Result<()> {
        let mut at = bad + 1;
        while let Some(head) = self.bytes(at, frame::HEADER).await? {
            if frame::length(&head).is_some()
                && let Some(bytes) = self.frame(at).await?
                && let Some((_, synced)) = frame::parse(&bytes)
            {
                if synced > bad {
                    return Err(corrupt(name, bad, "a record that was safe on disk is damaged"));
                }
                at += bytes.len() as u64;
            } else {
                at += 1;
            }
        }
        Ok(())
    }
}

/// What to read of one file, and which values they are.
struct Reads {
    file: Arc<dyn File>,
    name: Arc<str>,
    at: Vec<usize>,
    spans: Vec<(u64, usize)>,
}

/// Reads the values of `held`, in its order.
///
/// # Errors
/// [`StoreError::Corrupt`] when a value is not what was written.
pub async fn read(held: Vec<Held>) -> Result<Vec<KeyValue>> {
    let mut out: Vec<KeyValue> = Vec::with_capacity(held.len());
    // One read per file, and one file is all that most reads touch.
    let mut files: Vec<Reads> = Vec::new();
    for (i, Held { key, version, source }) in held.into_iter().enumerate() {
        let value = match source {
            Source::Memory(value) => value,
            Source::File(file, name) => {
                let span = (version.place.offset, version.place.len as usize + 4);
                match files.iter_mut().find(|f| f.name == name) {
                    Some(reads) => {
                        reads.at.push(i);
                        reads.spans.push(span);
                    }
                    None => files.push(Reads { file, name, at: vec![i], spans: vec![span] }),
                }
                Bytes::new()
            }
        };
        out.push(version.key_value(key, value));
    }
    for Reads { file, name, at, spans } in files {
        let stored = file.read(spans.clone()).await.map_err(io("read values"))?;
        for ((i, stored), (offset, len)) in at.into_iter().zip(stored).zip(spans) {
            if !frame::value_is_whole(&stored, len - 4) {
                return Err(corrupt(&name, offset, "a value is damaged"));
            }
            out[i].value = stored.slice(4..);
        }
    }
    Ok(out)
}
