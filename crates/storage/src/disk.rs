//! The door to the disk: what the engine needs of a directory and its files, and the real one.
//!
//! Knows names, bytes and when they are safe; not what they mean. The simulated one is [`crate::sim`].

use std::any::Any;
use std::fs;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use base::task::blocking;
use bytes::Bytes;

use crate::{BoxFuture, StoreError};

/// Holds the directory for one engine; gives it back when dropped.
pub type Lock = Arc<dyn Any + Send + Sync>;

/// One directory without subdirectories.
pub trait Disk: Send + Sync {
    /// Makes the directory if need be and takes it for the caller alone.
    fn lock(&self) -> BoxFuture<'_, crate::Result<Lock>>;
    /// The names of all files.
    fn list(&self) -> BoxFuture<'_, io::Result<Vec<String>>>;
    /// Makes an empty file, in place of one of that name. Safe only after [`Disk::sync`].
    fn create(&self, name: &str) -> BoxFuture<'_, io::Result<Arc<dyn File>>>;
    /// Opens a file to read and write.
    fn open(&self, name: &str) -> BoxFuture<'_, io::Result<Arc<dyn File>>>;
    /// Renames a file. Safe only after [`Disk::sync`].
    fn rename(&self, from: &str, to: &str) -> BoxFuture<'_, io::Result<()>>;
    /// Removes a name; whoever has the file open can go on reading it.
    fn remove(&self, name: &str) -> BoxFuture<'_, io::Result<()>>;
    /// Makes the names safe.
    fn sync(&self) -> BoxFuture<'_, io::Result<()>>;
}

/// One open file.
pub trait File: Send + Sync {
    /// The length in bytes.
    fn size(&self) -> BoxFuture<'_, io::Result<u64>>;
    /// For each span (offset, length) its bytes, fewer only where the file ends.
    fn read(&self, spans: Vec<(u64, usize)>) -> BoxFuture<'_, io::Result<Vec<Bytes>>>;
    /// Writes at `offset`; with `sync`, all that was written so far is safe when this returns.
    fn write(&self, offset: u64, data: Bytes, sync: bool) -> BoxFuture<'_, io::Result<()>>;
    /// Cuts the file to `len` bytes, safely.
    fn truncate(&self, len: u64) -> BoxFuture<'_, io::Result<()>>;
    /// Makes all that was written safe.
    fn sync(&self) -> BoxFuture<'_, io::Result<()>>;
}

/// A directory of this machine. Made with mode 0700; held by an flock on its file `LOCK`, which names the holder.
pub struct RealDisk {
    path: PathBuf,
    lock: Mutex<Weak<fs::File>>,
}

impl RealDisk {
    /// The directory at `path`, which is made when the engine opens it.
    pub fn new(path: impl Into<PathBuf>) -> RealDisk {
        RealDisk { path: path.into(), lock: Mutex::new(Weak::new()) }
    }

    /// Runs `work`, which changes the directory, unless the lock was given up.
    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let lock = held(&self.lock.lock().unwrap_or_else(PoisonError::into_inner))?;
        let path = self.path.clone();
        blocking(move || {
            let out = work(&path);
            drop(lock);
            out
        })
        .await
    }

    fn file(&self, file: fs::File) -> Arc<dyn File> {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Arc::new(RealFile { file: Arc::new(file), lock })
    }
}

/// The lock, for a call that writes: while such a call is under way no other engine may open the directory.
fn held(lock: &Weak<fs::File>) -> io::Result<Arc<fs::File>> {
    lock.upgrade().ok_or_else(|| io::Error::other("the lock on the data directory was given up"))
}

fn take_lock(path: &Path) -> crate::Result<fs::File> {
    let io = |what| move |source| StoreError::Io { what, source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io("make the data directory"))?;
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path.join("LOCK"))
        .map_err(io("open the data directory's lock"))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).map_err(io("read the data directory's lock"))?;
            return Err(StoreError::Locked {
                directory: path.display().to_string(),
                holder: if holder.is_empty() { "(unknown)".to_owned() } else { holder.trim().to_owned() },
            });
        }
        Err(err) => return Err(io("lock the data directory")(err.into())),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(io("write the data directory's lock"))?;
    Ok(file)
}

impl Disk for RealDisk {
    fn lock(&self) -> BoxFuture<'_, crate::Result<Lock>> {
        let path = self.path.clone();
        Box::pin(async move {
            let file = Arc::new(blocking(move || take_lock(&path)).await?);
            *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&file);
            Ok(file as Lock)
        })
    }

    fn list(&self) -> BoxFuture<'_, io::Result<Vec<String>>> {
        let path = self.path.clone();
        Box::pin(blocking(move || {
            fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
        }))
    }

    fn create(&self, name: &str) -> BoxFuture<'_, io::Result<Arc<dyn File>>> {
        let name = name.to_owned();
        Box::pin(async move {
            let mut options = fs::OpenOptions::new();
            options.read(true).write(true).create(true).truncate(true).mode(0o600);
            Ok(self.file(self.change(move |dir| options.open(dir.join(name))).await?))
        })
    }

    fn open(&self, name: &str) -> BoxFuture<'_, io::Result<Arc<dyn File>>> {
        let path = self.path.join(name);
        Box::pin(async move {
            let open = move || fs::OpenOptions::new().read(true).write(true).open(path);
            Ok(self.file(blocking(open).await?))
        })
    }

    fn rename(&self, from: &str, to: &str) -> BoxFuture<'_, io::Result<()>> {
        let (from, to) = (from.to_owned(), to.to_owned());
        Box::pin(self.change(move |dir| fs::rename(dir.join(from), dir.join(to))))
    }

    fn remove(&self, name: &str) -> BoxFuture<'_, io::Result<()>> {
        let name = name.to_owned();
        Box::pin(self.change(move |dir| fs::remove_file(dir.join(name))))
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.change(|dir| fs::File::open(dir)?.sync_all()))
    }
}

struct RealFile {
    file: Arc<fs::File>,
    lock: Weak<fs::File>,
}

/// Reads of at most this many spans are first tried from the page cache, without a change of thread.
const INLINE_SPANS_MAX: usize = 16;

impl RealFile {
    /// Runs `work`, which writes, unless the lock was given up.
    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&fs::File) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (file, lock) = (self.file.clone(), held(&self.lock)?);
        blocking(move || {
            let out = work(&file);
            drop(lock);
            out
        })
        .await
    }
}

/// Reads from the page cache; `None` when some of it would have to come from the disk.
fn read_cached(file: &fs::File, spans: &[(u64, usize)]) -> Option<Vec<Bytes>> {
    let mut out = Vec::with_capacity(spans.len());
    for &(offset, len) in spans {
        let mut bytes = vec![0; len];
        let flags = rustix::io::ReadWriteFlags::NOWAIT;
        match rustix::io::preadv2(file, &mut [io::IoSliceMut::new(&mut bytes)], offset, flags) {
            Ok(n) if n == len => out.push(bytes.into()),
            _ => return None,
        }
    }
    Some(out)
}

fn read_span(file: &fs::File, (offset, len): (u64, usize)) -> io::Result<Bytes> {
    let mut bytes = vec![0; len];
    let mut done = 0;
    while done < len {
        match file.read_at(&mut bytes[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    bytes.truncate(done);
    Ok(bytes.into())
}

impl File for RealFile {
    fn size(&self) -> BoxFuture<'_, io::Result<u64>> {
        let file = self.file.clone();
        Box::pin(blocking(move || Ok(file.metadata()?.len())))
    }

    fn read(&self, spans: Vec<(u64, usize)>) -> BoxFuture<'_, io::Result<Vec<Bytes>>> {
        Box::pin(async move {
            if spans.len() <= INLINE_SPANS_MAX
                && let Some(out) = read_cached(&self.file, &spans)
            {
                return Ok(out);
            }
            let file = self.file.clone();
            blocking(move || spans.into_iter().map(|span| read_span(&file, span)).collect()).await
        })
    }

    fn write(&self, offset: u64, data: Bytes, sync: bool) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.change(move |f| {
            f.write_all_at(&data, offset)?;
            if sync { f.sync_data() } else { Ok(()) }
        }))
    }

    fn truncate(&self, len: u64) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.change(move |f| {
            f.set_len(len)?;
            f.sync_all()
        }))
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(self.change(fs::File::sync_data))
    }
}
