//! The image store: a directory of unpacked layers, each once, and one record per image.
//!
//! ```text
//! <dir>/layers/<digest>/diff   a layer, unpacked, ready to be an overlay's lower directory
//! <dir>/layers/<digest>/size   its bytes
//! <dir>/images/<id>.json       a record: names, manifest digests, configuration
//! <dir>/pins/<container>       layers that a container stands on, one a line
//! <dir>/tmp/…                  work in progress; emptied when the lock is next held
//! <dir>/pulls/<random>/        what comes from a registry, locked for as long as it is wanted
//! ```
//! All truth is on disk and changes only under the lock file, so that several processes (a node and the command
//! that imports) may use one store. A record is written after its layers are complete and synced.
//! Upstream: containerd's metadata store and garbage collection.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::archive::{Archive, Found, Hashing, decompress};
use super::config::ImageConfig;
use super::reference::{Reference, is_digest, is_hex64};
use super::unpack::{Limits, unpack};
use crate::registry::{Credential, Registries, Top};
use crate::{BoxFuture, ContainerId, Disk, Error, Image, ImageStore, Result};

/// A store in a directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    dir: Arc<PathBuf>,
    limits: Limits,
    registries: Option<Registries>,
    /// One pull at a time, as the kubelet's `serializeImagePulls`; of each name the last that succeeded.
    pulling: Arc<tokio::sync::Mutex<BTreeMap<String, Pulled>>>,
}

/// A pull that succeeded: when it began, and with what.
#[derive(Debug)]
struct Pulled {
    began: base::time::Instant,
    credentials: Vec<Credential>,
}

/// What is kept of an image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The configuration's digest.
    pub id: String,
    /// Normalised names with tags.
    pub names: BTreeSet<String>,
    /// Normalised names with the manifest's digest.
    pub digests: BTreeSet<String>,
    /// Bytes of all layers.
    pub size: u64,
    /// How to run it, and its layers.
    pub config: ImageConfig,
    /// It was imported, not pulled: no registry is asked for newer ones of its names.
    #[serde(default)]
    pub imported: bool,
}

impl Store {
    /// Opens the store in `dir`, making it if missing.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Store> {
        let dir = dir.into();
        for sub in ["layers", "images", "pins", "tmp", "pulls"] {
            let path = dir.join(sub);
            fs::create_dir_all(&path).map_err(Error::io(format!("create {}", path.display())))?;
        }
        let pulling = Arc::default();
        Ok(Store { dir: Arc::new(dir), limits: Limits::default(), registries: None, pulling })
    }

    /// The same store, which pulls what it does not have.
    pub fn with_registries(mut self, registries: Registries) -> Store {
        self.registries = Some(registries);
        self
    }

    /// The same store with other limits for what it imports.
    pub fn with_limits(mut self, limits: Limits) -> Store {
        self.limits = limits;
        self
    }

    /// The record that `name` (a reference or an id) stands for. Blocking.
    ///
    /// # Errors
    /// For text that is no name, and when the store cannot be read.
    pub fn resolve(&self, name: &str) -> Result<Option<Record>> {
        if is_digest(name) || is_hex64(name) {
            let hex = name.strip_prefix("sha256:").unwrap_or(name);
            return read_record(&self.record_path(hex));
        }
        let reference = Reference::parse(name)?;
        let found = match &reference.digest {
            Some(digest) => {
                let full = format!("{}@{digest}", reference.name);
                self.records()?.into_iter().find(|r| r.digests.contains(&full))
            }
            None => {
                let full = reference.to_string();
                self.records()?.into_iter().find(|r| r.names.contains(&full))
            }
        };
        Ok(found)
    }

    /// Keeps the layers of `image` for as long as `container` exists, and gives their directories, topmost
    /// first. Blocking.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the image is not in the store.
    pub fn pin(&self, image: &str, container: &ContainerId) -> Result<(Record, Vec<PathBuf>)> {
        let _lock = self.lock()?;
        let record =
            self.resolve(image)?.ok_or_else(|| Error::NotFound { kind: "image", id: image.to_owned() })?;
        let pin = self.pin_path(container);
        fs::write(&pin, record.config.rootfs.diff_ids.join("\n"))
            .map_err(Error::io(format!("write {}", pin.display())))?;
        let layers =
            record.config.rootfs.diff_ids.iter().rev().map(|d| self.layer_path(d).join("diff")).collect();
        Ok((record, layers))
    }

    /// Ends [`Store::pin`]. Blocking.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn unpin(&self, container: &ContainerId) -> Result<()> {
        let _lock = self.lock()?;
        let pin = self.pin_path(container);
        match fs::remove_file(&pin) {
            Ok(()) => self.collect_garbage(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(Error::io(format!("remove {}", pin.display()))(e)),
        }
    }

    fn records(&self) -> Result<Vec<Record>> {
        let mut out = Vec::new();
        for name in names_in(&self.dir.join("images"))? {
            if name.ends_with(".json") {
                out.extend(read_record(&self.dir.join("images").join(name))?);
            }
        }
        Ok(out)
    }

    fn import_blocking(&self, archive: &Path, name: Option<&str>) -> Result<Vec<Image>> {
        let given = name.map(Reference::parse).transpose()?;
        let _lock = self.lock()?;
        let scratch = self.scratch()?;
        let archive = Archive::open(archive, &scratch)?;
        self.take_in(&archive, given.as_ref(), &scratch, true)
    }

    /// Takes in what an archive holds. Under the lock.
    fn take_in(
        &self,
        archive: &Archive,
        given: Option<&Reference>,
        scratch: &Path,
        imported: bool,
    ) -> Result<Vec<Image>> {
        let found = archive.images()?;
        if given.is_some() && found.len() != 1 {
            return Err(Error::archive(format!(
                "it holds {} images, which cannot all have one name",
                found.len()
            )));
        }
        let mut records = Vec::new();
        for image in &found {
            let record = self.import_one(archive, image, given, scratch)?;
            records.push(Record { imported, ..record });
        }
        fs::remove_dir_all(scratch).map_err(Error::io(format!("remove {}", scratch.display())))?;
        // All layers are complete: now the names move, which is what others see.
        for record in &mut records {
            self.add_record(record)?;
        }
        self.collect_garbage()?;
        Ok(records.iter().map(Record::image).collect())
    }

    fn import_one(
        &self,
        archive: &Archive,
        image: &Found,
        given: Option<&Reference>,
        scratch: &Path,
    ) -> Result<Record> {
        let mut names = BTreeSet::new();
        let mut digests = BTreeSet::new();
        let parsed: Vec<Reference> = match given {
            Some(reference) => vec![reference.clone()],
            None => image.names.iter().map(|n| Reference::parse(n)).collect::<Result<_>>()?,
        };
        for reference in parsed {
            if let Some(digest) = reference.digest.as_ref().or(image.manifest_digest.as_ref()) {
                digests.insert(format!("{}@{digest}", reference.name));
            }
            if reference.tag.is_some() {
                names.insert(Reference { digest: None, ..reference }.to_string());
            }
        }
        let mut size = 0u64;
        for (diff_id, (file, digest)) in image.config.rootfs.diff_ids.iter().zip(&image.layers) {
            size =
                size.saturating_add(self.import_layer(archive, file, digest.as_deref(), diff_id, scratch)?);
        }
        let config = image.config.clone();
        Ok(Record { id: image.id.clone(), names, digests, size, config, imported: false })
    }

    /// Unpacks a layer unless the store has it, and gives its size.
    fn import_layer(
        &self,
        archive: &Archive,
        file: &str,
        digest: Option<&str>,
        diff_id: &str,
        scratch: &Path,
    ) -> Result<u64> {
        let layer = self.layer_path(diff_id);
        if let Ok(size) = fs::read_to_string(layer.join("size")) {
            return size.parse().map_err(|_| Error::archive(format!("layer {diff_id}: damaged size")));
        }
        let fail = |e: std::io::Error| Error::archive(format!("layer {diff_id}: {e}"));
        let work = scratch.join(&diff_id["sha256:".len()..]);
        let diff = work.join("diff");
        fs::create_dir_all(&diff).map_err(Error::io(format!("create {}", diff.display())))?;
        let top = open_directory(&diff)?;
        let mut compressed = Hashing::new(archive.stream(file)?);
        let mut plain = Hashing::new(decompress(&mut compressed).map_err(fail)?);
        let size = unpack(&mut plain, &top, self.limits)?;
        let actual = plain.finish().map_err(fail)?;
        if actual != diff_id {
            return Err(Error::archive(format!("layer {diff_id} differs from its digest ({actual})")));
        }
        let actual = compressed.finish().map_err(fail)?;
        if digest.is_some_and(|d| d != actual) {
            return Err(Error::archive(format!("blob of layer {diff_id} differs from its digest")));
        }
        let at = work.join("size");
        fs::write(&at, size.to_string()).map_err(Error::io(format!("write {}", at.display())))?;
        // Before the name: after a power cut a layer that is there is whole.
        rustix::fs::syncfs(&top).map_err(Error::io("sync layer"))?;
        fs::rename(&work, &layer).map_err(Error::io(format!("rename {}", work.display())))?;
        Ok(size)
    }

    /// Takes in what a pull has brought.
    fn take_pulled(&self, layout: &Path, image: &Reference, digest: &str) -> Result<Image> {
        let named = Reference { digest: Some(digest.to_owned()), ..image.clone() };
        let _lock = self.lock()?;
        let scratch = self.scratch()?;
        let taken = self.take_in(&Archive::layout(layout), Some(&named), &scratch, false)?;
        Ok(taken.into_iter().next().expect("a name is for one image"))
    }

    /// A directory for a pull, locked while the file is open; those that nobody holds any more go.
    fn pull_dir(&self) -> Result<(PathBuf, File)> {
        let pulls = self.dir.join("pulls");
        for old in names_in(&pulls)? {
            let path = pulls.join(old);
            let Ok(held) = File::open(&path) else { continue };
            if rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive).is_ok() {
                fs::remove_dir_all(&path).map_err(Error::io(format!("remove {}", path.display())))?;
            }
        }
        let path = pulls.join(format!("{:016x}", base::rand::u64()));
        fs::create_dir(&path).map_err(Error::io(format!("create {}", path.display())))?;
        let held = File::open(&path).map_err(Error::io(format!("open {}", path.display())))?;
        rustix::fs::flock(&held, FlockOperation::LockExclusive).map_err(Error::io("lock a pull"))?;
        Ok((path, held))
    }

    async fn pull_one(&self, name: &str, credentials: &[Credential]) -> Result<Image> {
        let asked = base::time::instant();
        let image = Reference::parse(name)?;
        let is_enough = |r: &Record| r.imported || image.digest.is_some();
        if let Some(record) = self.look_up(name).await?.filter(is_enough) {
            return Ok(record.image());
        }
        let Some(registries) = &self.registries else {
            let name = image.to_string();
            let message = format!(
                "no registry is asked: import it with `keelson image import <archive> --name {name}`"
            );
            return Err(Error::Pull { name, message });
        };
        let mut pulled = self.pulling.lock().await;
        let have = self.look_up(name).await?;
        // Another with the same credentials began while this one waited for its turn: it asked what this one would.
        let fresh = pulled.get(name).is_some_and(|p| p.began >= asked && p.credentials == credentials);
        if let Some(record) = have.as_ref().filter(|r| fresh || is_enough(r)) {
            return Ok(record.image());
        }
        let began = base::time::instant();
        let mut all = credentials.to_vec();
        all.extend(base::task::blocking(Credential::of_this_machine).await);
        let top = registries.top(&image, &all).await?;
        let current = format!("{}@{}", image.name, top.digest);
        let taken = match have.filter(|r| r.digests.contains(&current)) {
            Some(record) => record.image(),
            None => self.bring(registries, image, top).await?,
        };
        pulled.insert(name.to_owned(), Pulled { began, credentials: credentials.to_vec() });
        Ok(taken)
    }

    async fn look_up(&self, name: &str) -> Result<Option<Record>> {
        let name = name.to_owned();
        self.run(move |s| s.resolve(&name)).await
    }

    /// Brings what a registry has under a name into the store.
    async fn bring(&self, registries: &Registries, image: Reference, top: Top) -> Result<Image> {
        let (layout, held) = self.run(Store::pull_dir).await?;
        registries
            .fetch(&image, &top, &layout, &|diff| is_digest(diff) && self.layer_path(diff).exists())
            .await?;
        self.run(move |s| {
            let taken = s.take_pulled(&layout, &image, &top.digest);
            fs::remove_dir_all(&layout).map_err(Error::io(format!("remove {}", layout.display())))?;
            drop(held);
            taken
        })
        .await
    }

    fn add_record(&self, record: &mut Record) -> Result<()> {
        for mut other in self.records()? {
            if other.id == record.id {
                record.names.append(&mut other.names);
                record.digests.append(&mut other.digests);
            } else if other.names.iter().any(|n| record.names.contains(n)) {
                other.names.retain(|n| !record.names.contains(n));
                self.write_record(&other)?;
            }
        }
        self.write_record(record)
    }

    fn write_record(&self, record: &Record) -> Result<()> {
        let path = self.record_path(&record.id["sha256:".len()..]);
        let text = serde_json::to_vec(record).expect("a record has only text keys");
        crate::linux::write_atomically(&path, &text, true)
    }

    fn remove_blocking(&self, name: &str) -> Result<()> {
        let _lock = self.lock()?;
        let Some(mut record) = self.resolve(name)? else { return Ok(()) };
        if let Ok(reference) = Reference::parse(name)
            && !is_digest(name)
            && !is_hex64(name)
        {
            record.names.remove(&reference.to_string());
            record.digests.retain(|d| reference.digest.is_none() || *d != reference.to_string());
            if !record.names.is_empty() {
                return self.write_record(&record);
            }
        }
        let path = self.record_path(&record.id["sha256:".len()..]);
        fs::remove_file(&path).map_err(Error::io(format!("remove {}", path.display())))?;
        self.collect_garbage()
    }

    /// Removes layers that neither an image nor a container uses. Under the lock.
    fn collect_garbage(&self) -> Result<()> {
        let mut used: BTreeSet<String> = BTreeSet::new();
        for record in self.records()? {
            used.extend(record.config.rootfs.diff_ids);
        }
        let pins = self.dir.join("pins");
        for pin in names_in(&pins)? {
            let path = pins.join(pin);
            let text = fs::read_to_string(&path).map_err(Error::io(format!("read {}", path.display())))?;
            used.extend(text.lines().map(str::to_owned));
        }
        let layers = self.dir.join("layers");
        for layer in names_in(&layers)? {
            if !used.contains(&format!("sha256:{layer}")) {
                let path = layers.join(layer);
                fs::remove_dir_all(&path).map_err(Error::io(format!("remove {}", path.display())))?;
            }
        }
        Ok(())
    }

    /// An empty directory for work in progress; what a crash left there goes. Under the lock.
    fn scratch(&self) -> Result<PathBuf> {
        let tmp = self.dir.join("tmp");
        for old in names_in(&tmp)? {
            let path = tmp.join(old);
            fs::remove_dir_all(&path).map_err(Error::io(format!("remove {}", path.display())))?;
        }
        let scratch = tmp.join(format!("{:016x}", base::rand::u64()));
        fs::create_dir(&scratch).map_err(Error::io(format!("create {}", scratch.display())))?;
        Ok(scratch)
    }

    fn lock(&self) -> Result<File> {
        let path = self.dir.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(Error::io(format!("open {}", path.display())))?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(Error::io("lock the image store"))?;
        Ok(file)
    }

    fn record_path(&self, hex: &str) -> PathBuf {
        self.dir.join("images").join(format!("{hex}.json"))
    }

    fn layer_path(&self, diff_id: &str) -> PathBuf {
        self.dir.join("layers").join(&diff_id["sha256:".len()..])
    }

    fn pin_path(&self, container: &ContainerId) -> PathBuf {
        self.dir.join("pins").join(container.as_str())
    }

    async fn run<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.clone();
        base::task::blocking(move || f(&store)).await
    }
}

impl Record {
    /// The image as callers see it.
    pub fn image(&self) -> Image {
        let user = self.config.config.user.split(':').next().unwrap_or_default();
        let uid = user.parse().ok();
        Image {
            id: self.id.clone(),
            repo_tags: self.names.iter().cloned().collect(),
            repo_digests: self.digests.iter().cloned().collect(),
            size: self.size,
            pinned: self.imported,
            username: if uid.is_none() { user.to_owned() } else { String::new() },
            uid,
        }
    }
}

impl ImageStore for Store {
    fn list(&self) -> BoxFuture<'_, Result<Vec<Image>>> {
        Box::pin(self.run(|s| Ok(s.records()?.iter().map(Record::image).collect())))
    }

    fn disk(&self) -> BoxFuture<'_, Result<Disk>> {
        Box::pin(self.run(|s| {
            let disk = rustix::fs::statvfs(&*s.dir).map_err(Error::io("look at the images' disk"))?;
            Ok(Disk { capacity: disk.f_blocks * disk.f_frsize, available: disk.f_bavail * disk.f_frsize })
        }))
    }

    fn status<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Image>>> {
        let name = name.to_owned();
        Box::pin(self.run(move |s| Ok(s.resolve(&name)?.map(|r| r.image()))))
    }

    fn pull<'a>(&'a self, name: &'a str, credentials: &'a [Credential]) -> BoxFuture<'a, Result<Image>> {
        Box::pin(self.pull_one(name, credentials))
    }

    fn import<'a>(&'a self, archive: &'a Path, name: Option<&'a str>) -> BoxFuture<'a, Result<Vec<Image>>> {
        let (archive, name) = (archive.to_owned(), name.map(str::to_owned));
        Box::pin(self.run(move |s| s.import_blocking(&archive, name.as_deref())))
    }

    fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        let name = name.to_owned();
        Box::pin(self.run(move |s| s.remove_blocking(&name)))
    }
}

fn read_record(path: &Path) -> Result<Option<Record>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(format!("read {}", path.display()))(e)),
    };
    let record = serde_json::from_slice(&bytes).map_err(Error::io(format!("parse {}", path.display())))?;
    Ok(Some(record))
}

/// The names in a directory, sorted.
fn names_in(dir: &Path) -> Result<BTreeSet<String>> {
    let mut out = BTreeSet::new();
    for entry in fs::read_dir(dir).map_err(Error::io(format!("list {}", dir.display())))? {
        let entry = entry.map_err(Error::io(format!("list {}", dir.display())))?;
        out.extend(entry.file_name().into_string());
    }
    Ok(out)
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(Error::io(format!("open {}", path.display())))
}
