//! Unpacks one layer's tar into a directory, trusting nothing in it.
//!
//! Every name is opened beneath the directory without following any link, so a layer can only ever touch its
//! own tree. Whiteouts become overlayfs' own (character device 0/0, `trusted.overlay.opaque`). Refused: `..`,
//! absolute names, names that lead through a link, devices, sparse files, attributes that overlayfs acts upon,
//! and more than the limits.
//!
//! Upstream: image-spec layer.md; containerd's `archive.Apply`. We differ on purpose: an entry whose parent
//! is a link in the same layer is refused, not followed.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, Dev, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use tar::EntryType;

use crate::Error;

/// The largest extended header or long name, in bytes: paths and attributes, never file contents.
const HEADER_BYTES_MAX: u64 = 1 << 20;
/// The deepest path, in components.
const DEPTH_MAX: usize = 256;

/// What a layer may hold at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all files.
    pub bytes_max: u64,
    /// Entries.
    pub entries_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { bytes_max: 64 << 30, entries_max: 4_000_000 }
    }
}

/// Unpacks `tar` into the empty directory `root` and gives the bytes of all files.
///
/// # Errors
/// [`Error::Archive`] names the entry that was refused; what was unpacked before it stays, for the caller to
/// remove.
pub fn unpack(tar: impl Read, root: &OwnedFd, limits: Limits) -> Result<u64, Error> {
    let mut archive = tar::Archive::new(tar);
    let mut layer = Layer { root, bytes: 0, limits };
    let mut extended = Extended::default();
    let entries = archive.entries().map_err(|e| Error::archive(format!("layer: {e}")))?.raw(true);
    for (count, entry) in entries.enumerate() {
        if count as u64 >= limits.entries_max {
            return Err(Error::archive(format!("layer has more than {} entries", limits.entries_max)));
        }
        let mut entry = entry.map_err(|e| Error::archive(format!("layer: {e}")))?;
        match entry.header().entry_type() {
            EntryType::XHeader => extended.read_pax(&read_header(&mut entry)?)?,
            // Global headers carry comments (git archive); members that matter come in local ones.
            EntryType::XGlobalHeader => drop(read_header(&mut entry)?),
            EntryType::GNULongName => extended.path = Some(trim_nul(read_header(&mut entry)?)),
            EntryType::GNULongLink => extended.link = Some(trim_nul(read_header(&mut entry)?)),
            _ => layer.entry(&mut entry, std::mem::take(&mut extended))?,
        }
    }
    Ok(layer.bytes)
}

/// What extended headers said of the entry that follows them.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<i64>,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Extended {
    fn read_pax(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let bad = |what: &str| Error::archive(format!("extended header: bad {what}"));
        for record in tar::PaxExtensions::new(bytes) {
            let record = record.map_err(|e| Error::archive(format!("extended header: {e}")))?;
            let key = record.key().map_err(|_| bad("key"))?;
            let value = record.value_bytes();
            let number = || std::str::from_utf8(value).ok().and_then(|v| v.parse::<u64>().ok());
            match key {
                "path" => self.path = Some(value.to_vec()),
                "linkpath" => self.link = Some(value.to_vec()),
                "size" => self.size = Some(number().ok_or_else(|| bad("size"))?),
                "uid" => self.uid = Some(number().ok_or_else(|| bad("uid"))?),
                "gid" => self.gid = Some(number().ok_or_else(|| bad("gid"))?),
                "mtime" => {
                    let text = std::str::from_utf8(value).unwrap_or_default();
                    let whole = text.split('.').next().unwrap_or_default();
                    self.mtime = Some(whole.parse().map_err(|_| bad("mtime"))?);
                }
                _ if key.starts_with("GNU.sparse.") => {
                    return Err(Error::archive("sparse files are not supported"));
                }
                _ => {
                    if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                        self.xattrs.push((name.to_owned(), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }
}

struct Layer<'a> {
    root: &'a OwnedFd,
    bytes: u64,
    limits: Limits,
}

/// Owner, mode and time of an entry.
struct Attributes {
    uid: Uid,
    gid: Gid,
    mode: Mode,
    mtime: i64,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Layer<'_> {
    fn entry(&mut self, entry: &mut tar::Entry<'_, impl Read>, ext: Extended) -> Result<(), Error> {
        let path = ext.path.unwrap_or_else(|| entry.path_bytes().into_owned());
        let shown = String::from_utf8_lossy(&path).into_owned();
        let fail = |e: &dyn std::fmt::Display| Error::archive(format!("layer entry {shown:?}: {e}"));
        let header_size = entry.header().entry_size().map_err(|e| fail(&e))?;
        if ext.size.is_some_and(|s| s != header_size) {
            return Err(fail(&"its two sizes differ"));
        }
        let components = components(&path).map_err(|m| fail(&m))?;
        let kind = entry.header().entry_type();
        let h = entry.header();
        let old = h.as_old();
        let attributes = Attributes {
            uid: id(ext.uid, number(&old.uid, h.uid())).map(Uid::from_raw).map_err(|e| fail(&e))?,
            gid: id(ext.gid, number(&old.gid, h.gid())).map(Gid::from_raw).map_err(|e| fail(&e))?,
            mode: Mode::from_raw_mode(number(&old.mode, h.mode()).map_err(|e| fail(&e))? & 0o7777),
            mtime: match ext.mtime {
                Some(t) => t,
                None => i64::try_from(number(&old.mtime, h.mtime()).map_err(|e| fail(&e))?).unwrap_or(0),
            },
            xattrs: ext.xattrs,
        };
        let Some((name, parents)) = components.split_last() else {
            // The layer's own top: only a directory may be named so.
            if kind != EntryType::Directory {
                return Err(fail(&"the top is no directory"));
            }
            return attributes.apply_fd(self.root).map_err(|e| fail(&e));
        };
        let parent = self.parent(parents).map_err(|e| fail(&e))?;
        if let Some(hidden) = name.as_bytes().strip_prefix(b".wh.") {
            return whiteout(&parent, OsStr::from_bytes(hidden)).map_err(|e| fail(&e));
        }
        match kind {
            EntryType::Directory => directory(&parent, name, &attributes).map_err(|e| fail(&e)),
            EntryType::Regular | EntryType::Continuous => {
                self.file(&parent, name, &attributes, entry, header_size).map_err(|e| fail(&e))
            }
            EntryType::Symlink => {
                let target = ext.link.or_else(|| entry.link_name_bytes().map(|l| l.into_owned()));
                let target = target.ok_or_else(|| fail(&"a link to nothing"))?;
                clear(&parent, name).map_err(|e| fail(&e))?;
                rustix::fs::symlinkat(OsStr::from_bytes(&target), &parent, *name).map_err(|e| fail(&e))?;
                attributes.apply_link(&parent, name).map_err(|e| fail(&e))
            }
            EntryType::Link => {
                let target = ext.link.or_else(|| entry.link_name_bytes().map(|l| l.into_owned()));
                let target = target.ok_or_else(|| fail(&"a link to nothing"))?;
                self.hard_link(&parent, name, &target).map_err(|e| fail(&e))
            }
            EntryType::Fifo => {
                clear(&parent, name).map_err(|e| fail(&e))?;
                rustix::fs::mknodat(&parent, *name, FileType::Fifo, attributes.mode, 0)
                    .map_err(|e| fail(&e))?;
                attributes.apply_link(&parent, name).map_err(|e| fail(&e))
            }
            EntryType::Char if is_whiteout_header(entry.header()) => {
                whiteout(&parent, name).map_err(|e| fail(&e))
            }
            EntryType::Char | EntryType::Block => Err(fail(&"devices are not allowed in images")),
            other => Err(fail(&format!("entries of type {other:?} are not supported"))),
        }
    }

    /// The directory `path`, made where missing, opened without following a link.
    fn parent(&self, path: &[&OsStr]) -> io::Result<OwnedFd> {
        if path.is_empty() {
            return self.root.try_clone();
        }
        match open_beneath(self.root, &path.iter().collect::<PathBuf>(), OFlags::RDONLY | OFlags::DIRECTORY) {
            Err(e) if e == rustix::io::Errno::NOENT => {}
            other => return other.map_err(through_link),
        }
        let mut at = self.root.try_clone()?;
        for name in path {
            let made = match rustix::fs::mkdirat(&at, *name, Mode::from_raw_mode(0o755)) {
                Ok(()) => true,
                Err(rustix::io::Errno::EXIST) => false,
                Err(e) => return Err(e.into()),
            };
            at = open_beneath(&at, Path::new(name), OFlags::RDONLY | OFlags::DIRECTORY)
                .map_err(through_link)?;
            if made {
                // Whatever this process's umask.
                rustix::fs::fchmod(&at, Mode::from_raw_mode(0o755))?;
            }
        }
        Ok(at)
    }

    fn file(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        attributes: &Attributes,
        data: &mut impl Read,
        size: u64,
    ) -> io::Result<()> {
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.limits.bytes_max {
            return Err(io::Error::other(format!("layer is larger than {} bytes", self.limits.bytes_max)));
        }
        clear(parent, name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?;
        let mut file = std::fs::File::from(fd);
        if io::copy(data, &mut file)? != size {
            return Err(io::Error::other("the archive ends within it"));
        }
        attributes.apply_fd(file.as_fd())
    }

    fn hard_link(&self, parent: &OwnedFd, name: &OsStr, target: &[u8]) -> io::Result<()> {
        let components = components(target).map_err(io::Error::other)?;
        let Some((last, parents)) = components.split_last() else {
            return Err(io::Error::other("a hard link to the top"));
        };
        let from = if parents.is_empty() {
            self.root.try_clone()?
        } else {
            let path: PathBuf = parents.iter().collect();
            open_beneath(self.root, &path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(through_link)?
        };
        let stat = rustix::fs::statat(&from, *last, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(io::Error::other("a hard link to a directory"));
        }
        // A link to itself would be removed before it is made.
        let same = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|s| s.st_ino == stat.st_ino && s.st_dev == stat.st_dev);
        if same {
            return Ok(());
        }
        clear(parent, name)?;
        rustix::fs::linkat(&from, *last, parent, name, AtFlags::empty())?;
        Ok(())
    }
}

impl Attributes {
    fn apply_fd(&self, fd: impl AsFd) -> io::Result<()> {
        let fd = fd.as_fd();
        rustix::fs::fchown(fd, Some(self.uid), Some(self.gid))?;
        // After the owner: changing it clears the set-id bits.
        rustix::fs::fchmod(fd, self.mode)?;
        for (name, value) in &self.xattrs {
            match name.as_str() {
                "security.capability" => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty())?,
                n if n.starts_with("user.") && !n.starts_with("user.overlay.") => {
                    rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty())?;
                }
                // Labels of the builder's own policy mean nothing here; containerd skips them likewise.
                n if n.starts_with("security.selinux")
                    || n.starts_with("system.")
                    || n.starts_with("com.apple.") => {}
                n => return Err(io::Error::other(format!("extended attribute {n:?} is not allowed"))),
            }
        }
        rustix::fs::futimens(fd, &self.times())?;
        Ok(())
    }

    fn apply_link(&self, parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
        rustix::fs::chownat(parent, name, Some(self.uid), Some(self.gid), AtFlags::SYMLINK_NOFOLLOW)?;
        rustix::fs::utimensat(parent, name, &self.times(), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    fn times(&self) -> Timestamps {
        let at = Timespec { tv_sec: self.mtime, tv_nsec: 0 };
        Timestamps { last_access: at, last_modification: at }
    }
}

fn directory(parent: &OwnedFd, name: &OsStr, attributes: &Attributes) -> io::Result<()> {
    let existing = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
    let mut hides_lower = false;
    let is_directory = match &existing {
        Ok(stat) => {
            hides_lower = is_whiteout(stat);
            FileType::from_raw_mode(stat.st_mode) == FileType::Directory
        }
        Err(_) => false,
    };
    if !is_directory {
        clear(parent, name)?;
        rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
    }
    let fd =
        open_beneath(parent, Path::new(name), OFlags::RDONLY | OFlags::DIRECTORY).map_err(through_link)?;
    if hides_lower {
        set_opaque(&fd)?;
    }
    attributes.apply_fd(&fd)
}

/// Hides `name` of the layers below. What this layer itself has of that name stays.
fn whiteout(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    if name == ".wh..opq" {
        return set_opaque(parent);
    }
    if name.as_bytes().starts_with(b".wh.") {
        // Bookkeeping of aufs, which other engines skip too.
        return Ok(());
    }
    if name.is_empty() || name == "." || name == ".." {
        return Err(io::Error::other("a whiteout of nothing"));
    }
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            let fd = open_beneath(parent, Path::new(name), OFlags::RDONLY | OFlags::DIRECTORY)
                .map_err(through_link)?;
            set_opaque(&fd)
        }
        Ok(_) => Ok(()),
        Err(rustix::io::Errno::NOENT) => {
            Ok(rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0 as Dev)?)
        }
        Err(e) => Err(e.into()),
    }
}

fn set_opaque(directory: &OwnedFd) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(directory, "trusted.overlay.opaque", b"y", XattrFlags::empty())?)
}

fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn is_whiteout_header(header: &tar::Header) -> bool {
    matches!((header.device_major(), header.device_minor()), (Ok(Some(0)), Ok(Some(0))))
}

/// Removes what is at `name`, so that nothing is ever written through an existing entry.
fn clear(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(rustix::io::Errno::ISDIR) => {
            use std::os::fd::AsRawFd;
            // std's removal follows no link, wherever it is below this descriptor.
            let path = Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(name);
            std::fs::remove_dir_all(path)
        }
        Err(e) => Err(e.into()),
    }
}

fn open_beneath(root: &OwnedFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

fn through_link(e: rustix::io::Errno) -> io::Error {
    match e {
        rustix::io::Errno::LOOP => io::Error::other("its path leads through a link"),
        rustix::io::Errno::NOTDIR => {
            io::Error::other("its path leads through something that is no directory")
        }
        e => e.into(),
    }
}

/// The parts of a name; empty for the top itself.
fn components(path: &[u8]) -> Result<Vec<&OsStr>, &'static str> {
    if path.contains(&0) {
        return Err("its name holds a NUL byte");
    }
    let mut out = Vec::new();
    for component in Path::new(OsStr::from_bytes(path)).components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::CurDir => {}
            Component::ParentDir => return Err("its name holds .."),
            Component::RootDir | Component::Prefix(_) => return Err("its name is absolute"),
        }
    }
    if out.len() > DEPTH_MAX { Err("its name is too deep") } else { Ok(out) }
}

/// A header's number; a field left empty is 0, as Go's reader has it.
fn number<T: Default>(field: &[u8], parsed: io::Result<T>) -> io::Result<T> {
    if field.iter().all(|b| matches!(b, 0 | b' ')) { Ok(T::default()) } else { parsed }
}

fn id(extended: Option<u64>, header: io::Result<u64>) -> Result<u32, String> {
    let id = match extended {
        Some(id) => id,
        None => header.map_err(|e| e.to_string())?,
    };
    match u32::try_from(id) {
        // The last one means "unchanged" to the kernel.
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(format!("owner {id} is out of range")),
    }
}

fn read_header(entry: &mut tar::Entry<'_, impl Read>) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    entry
        .take(HEADER_BYTES_MAX + 1)
        .read_to_end(&mut out)
        .map_err(|e| Error::archive(format!("extended header: {e}")))?;
    if out.len() as u64 > HEADER_BYTES_MAX {
        return Err(Error::archive("extended header is too large"));
    }
    Ok(out)
}

fn trim_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes
}
