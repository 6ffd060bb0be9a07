//! A disk in memory for simulations: it delays, tears writes when the process is killed, and over a power cut keeps
//! only what was synced plus, sector by sector, a random part of the rest. Seeded through [`base::rand`].
//!
//! Knows nothing of what is written. After [`SimDisk::kill`] or [`SimDisk::power_cut`] every call under way or made
//! through handles of before waits for ever, as the calls of a dead process do.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::disk::{Disk, File, Lock};
use crate::{BoxFuture, StoreError};

/// What a disk writes as a whole, in bytes.
const SECTOR: usize = 512;

/// A simulated directory. Clones share it; each belongs to the process that runs when it is made, so that an engine is
/// opened on a clone of its own: what is left of an engine of before a crash can touch nothing.
pub struct SimDisk {
    inner: Arc<Inner>,
    generation: u64,
}

impl Clone for SimDisk {
    fn clone(&self) -> Self {
        SimDisk { inner: self.inner.clone(), generation: self.state().generation }
    }
}

struct Inner {
    state: Mutex<State>,
    syncs: AtomicU64,
}

#[derive(Default)]
struct State {
    /// How often the process ended; handles of another generation are dead.
    generation: u64,
    locked: bool,
    delay_most: Duration,
    fail_sync: bool,
    files: Vec<Contents>,
    names: BTreeMap<String, usize>,
    safe_names: BTreeMap<String, usize>,
    renames: Vec<NameChange>,
}

#[derive(Clone)]
enum NameChange {
    Set(String, usize),
    Move(String, String),
    Remove(String),
}

#[derive(Default)]
struct Contents {
    now: Vec<u8>,
    safe: Vec<u8>,
    unsafe_writes: Vec<(usize, Vec<u8>)>,
}

impl Default for SimDisk {
    fn default() -> Self {
        SimDisk::new(Duration::ZERO)
    }
}

impl SimDisk {
    /// An empty disk whose calls take up to `delay_most` (virtual) time each.
    pub fn new(delay_most: Duration) -> SimDisk {
        let state = State { delay_most, ..State::default() };
        let inner = Inner { state: Mutex::new(state), syncs: AtomicU64::new(0) };
        SimDisk { inner: Arc::new(inner), generation: 0 }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process ends: all that was written stays; a write under way may be half done.
    pub fn kill(&self) {
        let mut s = self.state();
        s.generation += 1;
        s.locked = false;
    }

    /// The power fails: what was not synced is kept sector by sector at random, names one by one.
    pub fn power_cut(&self) {
        self.kill();
        let mut s = self.state();
        for file in &mut s.files {
            let mut data = std::mem::take(&mut file.safe);
            for (offset, bytes) in std::mem::take(&mut file.unsafe_writes) {
                tear(&mut data, offset, &bytes);
            }
            file.now.clone_from(&data);
            file.safe = data;
        }
        let mut names = std::mem::take(&mut s.safe_names);
        for change in std::mem::take(&mut s.renames) {
            if base::rand::below(2) == 0 {
                change.apply(&mut names);
            }
        }
        s.names.clone_from(&names);
        s.safe_names = names;
    }

    /// How long calls take at most from now on.
    pub fn set_delay(&self, most: Duration) {
        self.state().delay_most = most;
    }

    /// Lets the next sync of a file fail.
    pub fn fail_next_sync(&self) {
        self.state().fail_sync = true;
    }

    /// How many syncs of files have ended well.
    pub fn syncs(&self) -> u64 {
        self.inner.syncs.load(Ordering::Relaxed)
    }

    /// All files with their lengths.
    pub fn files(&self) -> Vec<(String, usize)> {
        let s = self.state();
        s.names.iter().map(|(name, &id)| (name.clone(), s.files[id].now.len())).collect()
    }

    /// Flips one bit of a file, as a failing disk would.
    ///
    /// # Panics
    /// When there is no such byte.
    pub fn flip_bit(&self, name: &str, offset: usize) {
        let mut s = self.state();
        let id = s.names[name];
        let file = &mut s.files[id];
        file.now[offset] ^= 1;
        file.safe[offset] ^= 1;
    }

    async fn turn(&self) {
        let most = self.state().delay_most;
        if !most.is_zero() {
            base::time::sleep(most.mul_f64(base::rand::fraction())).await;
        }
        if self.state().generation != self.generation {
            std::future::pending::<()>().await;
        }
    }

    fn handle(&self, id: usize) -> Arc<dyn File> {
        Arc::new(SimFile { disk: self.same(), id })
    }

    /// Another handle of the same process.
    fn same(&self) -> SimDisk {
        SimDisk { inner: self.inner.clone(), generation: self.generation }
    }

    fn change(&self, change: NameChange) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            self.turn().await;
            let mut s = self.state();
            change.clone().apply(&mut s.names);
            s.renames.push(change);
            Ok(())
        })
    }
}

/// Writes a random choice of the sectors of `bytes`; the file grows in any case, with zeros where nothing came.
fn tear(data: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if base::rand::below(4) == 0 {
        return;
    }
    let all = base::rand::below(3) == 0;
    let mut at = offset;
    while at < offset + bytes.len() {
        let end = (at / SECTOR * SECTOR + SECTOR).min(offset + bytes.len());
        if all || base::rand::below(2) == 0 {
            put(data, at, &bytes[at - offset..end - offset]);
        }
        at = end;
    }
}

fn put(data: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if data.len() < offset + bytes.len() {
        data.resize(offset + bytes.len(), 0);
    }
    data[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Set(name, id) => {
                names.insert(name, id);
            }
            NameChange::Move(from, to) => {
                if let Some(id) = names.remove(&from) {
                    names.insert(to, id);
                }
            }
            NameChange::Remove(name) => {
                names.remove(&name);
            }
        }
    }
}

struct Held(SimDisk);

impl Drop for Held {
    fn drop(&mut self) {
        let mut s = self.0.state();
        if s.generation == self.0.generation {
            s.locked = false;
        }
    }
}

impl Disk for SimDisk {
    fn lock(&self) -> BoxFuture<'_, crate::Result<Lock>> {
        Box::pin(async move {
            self.turn().await;
            let mut s = self.state();
            if s.locked {
                return Err(StoreError::Locked {
                    directory: "(simulated)".to_owned(),
                    holder: "(simulated)".to_owned(),
                });
            }
            s.locked = true;
            Ok(Arc::new(Held(self.same())) as Lock)
        })
    }

    fn list(&self) -> BoxFuture<'_, io::Result<Vec<String>>> {
        Box::pin(async move {
            self.turn().await;
            Ok(self.state().names.keys().cloned().collect())
        })
    }

    fn create(&self, name: &str) -> BoxFuture<'_, io::Result<Arc<dyn File>>> {
        let name = name.to_owned();
        Box::pin(async move {
            self.turn().await;
            let mut s = self.state();
            let id = s.files.len();
            s.files.push(Contents::default());
            s.names.insert(name.clone(), id);
            s.renames.push(NameChange::Set(name, id));
            drop(s);
            Ok(self.handle(id))
        })
    }

    fn open(&self, name: &str) -> BoxFuture<'_, io::Result<Arc<dyn File>>> {
        let name = name.to_owned();
        Box::pin(async move {
            self.turn().await;
            let id = self.state().names.get(&name).copied().ok_or(io::ErrorKind::NotFound)?;
            Ok(self.handle(id))
        })
    }

    fn rename(&self, from: &str, to: &str) -> BoxFuture<'_, io::Result<()>> {
        self.change(NameChange::Move(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> BoxFuture<'_, io::Result<()>> {
        self.change(NameChange::Remove(name.to_owned()))
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            self.turn().await;
            let mut s = self.state();
            s.renames.clear();
            s.safe_names = s.names.clone();
            Ok(())
        })
    }
}

struct SimFile {
    disk: SimDisk,
    id: usize,
}

impl SimFile {
    fn put(&self, offset: usize, bytes: &[u8]) {
        let mut s = self.disk.state();
        let file = &mut s.files[self.id];
        put(&mut file.now, offset, bytes);
        file.unsafe_writes.push((offset, bytes.to_vec()));
    }

    async fn make_safe(&self) -> io::Result<()> {
        self.disk.turn().await;
        let mut s = self.disk.state();
        if std::mem::take(&mut s.fail_sync) {
            return Err(io::Error::other("simulated failure of fsync"));
        }
        let file = &mut s.files[self.id];
        for (offset, bytes) in std::mem::take(&mut file.unsafe_writes) {
            put(&mut file.safe, offset, &bytes);
        }
        self.disk.inner.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl File for SimFile {
    fn size(&self) -> BoxFuture<'_, io::Result<u64>> {
        Box::pin(async move {
            self.disk.turn().await;
            Ok(self.disk.state().files[self.id].now.len() as u64)
        })
    }

    fn read(&self, spans: Vec<(u64, usize)>) -> BoxFuture<'_, io::Result<Vec<Bytes>>> {
        Box::pin(async move {
            self.disk.turn().await;
            let s = self.disk.state();
            let data = &s.files[self.id].now;
            let clip = |n: usize| n.min(data.len());
            Ok(spans
                .into_iter()
                .map(|(offset, len)| {
                    Bytes::copy_from_slice(&data[clip(offset as usize)..clip(offset as usize + len)])
                })
                .collect())
        })
    }

    fn write(&self, offset: u64, data: Bytes, sync: bool) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            if self.disk.state().generation != self.disk.generation {
                std::future::pending::<()>().await;
            }
            // Whoever is killed in between leaves the first part only.
            let cut = base::rand::below(data.len() as u64 + 1) as usize;
            self.put(offset as usize, &data[..cut]);
            self.disk.turn().await;
            self.put(offset as usize + cut, &data[cut..]);
            if sync { self.make_safe().await } else { Ok(()) }
        })
    }

    fn truncate(&self, len: u64) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            self.make_safe().await?;
            let mut s = self.disk.state();
            let file = &mut s.files[self.id];
            file.now.truncate(len as usize);
            file.safe.truncate(len as usize);
            Ok(())
        })
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.make_safe())
    }
}
