//! Reads image archives: OCI layout and `docker save`, as tar, plain or compressed.
//!
//! Finds the images in an archive and hands out their layers as verified streams; what becomes of them is
//! the store's business. Upstream: image-spec image-layout.md; containerd's `images/archive/importer.go`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

use super::config::{Descriptor, DockerManifest, ImageConfig, Manifest, architecture};
use super::reference::is_digest;
use crate::Error;

/// The largest index, manifest or configuration, in bytes (containerd's limit is 8 MiB).
pub(crate) const DOCUMENT_BYTES_MAX: u64 = 8 << 20;
/// The most files in an archive.
const FILES_MAX: usize = 100_000;
/// How deep indexes may nest.
const INDEX_DEPTH_MAX: usize = 4;
/// The largest archive once decompressed.
const ARCHIVE_BYTES_MAX: u64 = 256 << 30;

/// An opened archive.
pub struct Archive(Place);

enum Place {
    /// A tar file: name to place of each regular file; links have been followed.
    Tar(File, BTreeMap<String, (u64, u64)>),
    /// An OCI layout as a directory of our own making.
    Directory(PathBuf),
}

/// One image found in an archive.
#[derive(Debug)]
pub struct Found {
    /// The digest of the configuration.
    pub id: String,
    /// The configuration.
    pub config: ImageConfig,
    /// Names as the archive says them.
    pub names: Vec<String>,
    /// The manifest's digest, if there is a manifest.
    pub manifest_digest: Option<String>,
    /// Where each layer is: its file in the archive and its own digest if one is claimed. Lowest first.
    pub layers: Vec<(String, Option<String>)>,
}

impl Archive {
    /// Opens an archive. A compressed one is first unpacked to a file in `scratch`.
    ///
    /// # Errors
    /// When it cannot be read or is no tar archive.
    pub fn open(path: &Path, scratch: &Path) -> Result<Archive, Error> {
        let mut file = File::open(path).map_err(Error::io(format!("open {}", path.display())))?;
        let fail = |e: io::Error| Error::archive(format!("{}: {e}", path.display()));
        let plain = scratch.join("archive.tar");
        if compression(&mut file).map_err(fail)? != Compression::None {
            let mut out =
                File::create_new(&plain).map_err(Error::io(format!("create {}", plain.display())))?;
            let copied = io::copy(&mut decompress(file).map_err(fail)?.take(ARCHIVE_BYTES_MAX), &mut out);
            if copied.map_err(fail)? == ARCHIVE_BYTES_MAX {
                return Err(Error::archive("archive is too large"));
            }
            file = File::open(&plain).map_err(Error::io(format!("open {}", plain.display())))?;
        }
        let files = list(&file).map_err(fail)?;
        Ok(Archive(Place::Tar(file, files)))
    }

    /// An OCI layout that this program has written.
    pub fn layout(dir: &Path) -> Archive {
        Archive(Place::Directory(dir.to_owned()))
    }

    fn has(&self, name: &str) -> bool {
        match &self.0 {
            Place::Tar(_, files) => files.contains_key(name),
            Place::Directory(dir) => dir.join(name).is_file(),
        }
    }

    /// All images in the archive that run on this machine.
    ///
    /// # Errors
    /// When documents are missing, too large, differ from their digests, or no image fits this machine.
    pub fn images(&self) -> Result<Vec<Found>, Error> {
        if self.has("index.json") {
            let index: Manifest = parse("index.json", &self.document("index.json")?)?;
            let mut found = Vec::new();
            for descriptor in index.manifests.unwrap_or_default() {
                let names = names_of(&descriptor);
                self.descend(&descriptor, &names, 0, &mut found)?;
            }
            if found.is_empty() {
                return Err(Error::archive(format!("no image for linux/{} in it", architecture())));
            }
            Ok(found)
        } else if self.has("manifest.json") {
            let all: Vec<DockerManifest> = parse("manifest.json", &self.document("manifest.json")?)?;
            all.into_iter().map(|m| self.docker_image(m)).collect()
        } else {
            Err(Error::archive("neither an OCI layout (index.json) nor a docker archive (manifest.json)"))
        }
    }

    /// A file of the archive as a stream.
    pub fn stream(&self, name: &str) -> Result<Box<dyn Read + '_>, Error> {
        let missing = || Error::archive(format!("{name:?} is missing"));
        Ok(match &self.0 {
            Place::Tar(file, files) => {
                let &(offset, left) = files.get(name).ok_or_else(missing)?;
                Box::new(Section { file, offset, left }) as Box<dyn Read + '_>
            }
            Place::Directory(dir) => Box::new(File::open(dir.join(name)).map_err(|_| missing())?),
        })
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        let mut stream = self.stream(name)?.take(DOCUMENT_BYTES_MAX + 1);
        stream.read_to_end(&mut out).map_err(|e| Error::archive(format!("{name}: {e}")))?;
        if out.len() as u64 > DOCUMENT_BYTES_MAX {
            return Err(Error::archive(format!("{name} is too large")));
        }
        Ok(out)
    }

    fn blob(&self, digest: &str) -> Result<Vec<u8>, Error> {
        let bytes = self.document(&blob_path(digest)?)?;
        if sha256(&bytes) != digest {
            return Err(Error::archive(format!("blob {digest} differs from its digest")));
        }
        Ok(bytes)
    }

    fn descend(
        &self,
        descriptor: &Descriptor,
        names: &[String],
        depth: usize,
        out: &mut Vec<Found>,
    ) -> Result<(), Error> {
        if depth > INDEX_DEPTH_MAX {
            return Err(Error::archive("indexes nest too deep"));
        }
        if descriptor.platform.as_ref().is_some_and(|p| !fits(&p.os, &p.architecture)) {
            return Ok(());
        }
        let manifest: Manifest = parse(&descriptor.digest, &self.blob(&descriptor.digest)?)?;
        if let Some(children) = &manifest.manifests {
            for child in children {
                self.descend(child, names, depth + 1, out)?;
            }
            return Ok(());
        }
        let Some(config_at) = manifest.config else {
            return Err(Error::archive(format!("manifest {} has no configuration", descriptor.digest)));
        };
        let config: ImageConfig = parse(&config_at.digest, &self.blob(&config_at.digest)?)?;
        if !fits(&config.os, &config.architecture) {
            return Ok(());
        }
        let mut layers = Vec::new();
        for layer in &manifest.layers {
            layers.push((blob_path(&layer.digest)?, Some(layer.digest.clone())));
        }
        let found = Found {
            id: config_at.digest,
            config,
            names: names.to_vec(),
            manifest_digest: Some(descriptor.digest.clone()),
            layers,
        };
        out.push(checked(found)?);
        Ok(())
    }

    fn docker_image(&self, manifest: DockerManifest) -> Result<Found, Error> {
        let bytes = self.document(&manifest.config)?;
        let config: ImageConfig = parse(&manifest.config, &bytes)?;
        if !fits(&config.os, &config.architecture) {
            return Err(Error::archive(format!(
                "the image is for {}/{}, this machine is linux/{}",
                config.os,
                config.architecture,
                architecture()
            )));
        }
        checked(Found {
            id: sha256(&bytes),
            config,
            names: manifest.repo_tags.unwrap_or_default(),
            manifest_digest: None,
            layers: manifest.layers.into_iter().map(|l| (l, None)).collect(),
        })
    }
}

/// `sha256:` and the digest of `bytes`.
pub fn sha256(bytes: &[u8]) -> String {
    digest_text(Sha256::new_with_prefix(bytes))
}

/// The digest that `hasher` has come to.
pub fn digest_text(hasher: Sha256) -> String {
    let hex: String = hasher.finalize().iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

/// A reader that hashes all that passes.
pub struct Hashing<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Hashing<R> {
    /// Hashes what is read from `inner`.
    pub fn new(inner: R) -> Self {
        Hashing { inner, hasher: Sha256::new() }
    }

    /// Reads what is left and gives the digest of everything.
    ///
    /// # Errors
    /// Those of reading.
    pub fn finish(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(digest_text(self.hasher))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hasher.update(&buf[..n]);
        Ok(n)
    }
}

/// Undoes gzip or zstd, told by the first bytes; anything else passes as it is.
///
/// # Errors
/// Those of reading the first bytes.
pub fn decompress<'a>(mut inner: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut magic = [0; 4];
    let mut have = 0;
    while have < 4 {
        match inner.read(&mut magic[have..])? {
            0 => break,
            n => have += n,
        }
    }
    let whole = io::Cursor::new(magic).take(have as u64).chain(inner);
    Ok(match kind_of(&magic[..have]) {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(whole))),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(whole)?),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

fn kind_of(magic: &[u8]) -> Compression {
    match magic {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
        _ => Compression::None,
    }
}

fn compression(file: &mut File) -> io::Result<Compression> {
    let mut magic = Vec::new();
    file.by_ref().take(4).read_to_end(&mut magic)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(kind_of(&magic))
}

/// Where each regular file of a tar archive lies.
fn list(file: &File) -> io::Result<BTreeMap<String, (u64, u64)>> {
    let len = file.metadata()?.len();
    let mut archive = tar::Archive::new(BufReader::new(file));
    let mut files = BTreeMap::new();
    let mut links = Vec::new();
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        if files.len() >= FILES_MAX {
            return Err(io::Error::other("too many files in it"));
        }
        let Some(name) = lexical(&PathBuf::new(), &entry.path()?) else {
            return Err(io::Error::other(format!("{:?} leads out of it", entry.path()?)));
        };
        let (offset, size) = (entry.raw_file_position(), entry.size());
        match entry.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                if offset.checked_add(size).is_none_or(|end| end > len) {
                    return Err(io::Error::other(format!("it ends within {name:?}")));
                }
                files.insert(name, (offset, size));
            }
            // `docker save` of old writes a repeated layer as a link to the first.
            tar::EntryType::Symlink | tar::EntryType::Link => {
                let hard = entry.header().entry_type() == tar::EntryType::Link;
                let base = if hard { None } else { Path::new(&name).parent().map(Path::to_path_buf) };
                let target = entry.link_name()?.and_then(|t| lexical(&base.unwrap_or_default(), &t));
                links.extend(target.map(|t| (name, t)));
            }
            _ => {}
        }
    }
    for (name, target) in links {
        if let Some(&place) = files.get(&target) {
            files.insert(name, place);
        }
    }
    Ok(files)
}

/// `path` seen from `base`, with `.` and `..` worked out in the text; `None` where it leads out.
fn lexical(base: &Path, path: &Path) -> Option<String> {
    let mut parts: Vec<String> = base.iter().map(|p| p.to_string_lossy().into_owned()).collect();
    for component in path.components() {
        match component {
            Component::Normal(p) => parts.push(p.to_str()?.to_owned()),
            Component::ParentDir => drop(parts.pop()?),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(parts.join("/"))
}

struct Section<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let n = self.file.read_at(&mut buf[..most], self.offset)?;
        self.offset += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

/// Where an OCI layout has a blob.
///
/// # Errors
/// For a digest of another algorithm.
pub fn blob_path(digest: &str) -> Result<String, Error> {
    if !is_digest(digest) {
        return Err(Error::archive(format!("digest {digest:?} is not sha256")));
    }
    Ok(format!("blobs/sha256/{}", &digest["sha256:".len()..]))
}

fn parse<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|e| Error::archive(format!("{name}: {e}")))
}

/// Whether this machine runs what is for this system; an empty name says nothing.
pub fn fits(os: &str, arch: &str) -> bool {
    (os.is_empty() || os == "linux") && (arch.is_empty() || arch == architecture())
}

fn names_of(descriptor: &Descriptor) -> Vec<String> {
    let full = descriptor.annotations.get("io.containerd.image.name");
    // A bare tag ("latest"), as some tools write here, names no image.
    let reference =
        descriptor.annotations.get("org.opencontainers.image.ref.name").filter(|n| n.contains([':', '/']));
    full.or(reference).cloned().into_iter().collect()
}

fn checked(found: Found) -> Result<Found, Error> {
    let diff_ids = &found.config.rootfs.diff_ids;
    if diff_ids.len() != found.layers.len() {
        return Err(Error::archive(format!(
            "image {} has {} layers but names {}",
            found.id,
            found.layers.len(),
            diff_ids.len()
        )));
    }
    if let Some(bad) = diff_ids.iter().find(|d| !is_digest(d)) {
        return Err(Error::archive(format!("layer digest {bad:?} is not sha256")));
    }
    Ok(found)
}
