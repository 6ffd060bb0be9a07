//! The demo's image: a real OCI image layout in a tar archive, made of this very binary, so that nothing is fetched.
//!
//! Upstream: github.com/opencontainers/image-spec (image-layout.md, manifest.md, config.md, layer.md).

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::app::PORT;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// So that the same binary makes the same image everywhere.
const CREATED: &str = "1970-01-01T00:00:00Z";
const PASSWD: &[u8] = b"root:x:0:0:root:/:/keelson\nnobody:x:65534:65534:nobody:/:/keelson\n";
const GROUP: &[u8] = b"root:x:0:\nnobody:x:65534:\n";
/// The type of an ELF program header that names the dynamic loader.
const PT_INTERP: u32 = 3;
/// The size of an ELF header of 64 bits, in bytes.
const ELF_HEADER_BYTES: usize = 64;

/// Writes to `out` an archive with one image called `name`, whose only program is the binary `exe`.
///
/// # Errors
/// When `exe` is no static program for Linux (nothing else runs in an image that is empty otherwise), or files cannot be
/// read or written.
pub fn write_image(out: &Path, exe: &Path, name: &str) -> anyhow::Result<()> {
    let mut program = File::open(exe).with_context(|| format!("open {}", exe.display()))?;
    check_static(&mut program).with_context(|| format!("make an image of {}", exe.display()))?;
    let full = if name.rsplit('/').next().is_some_and(|last| last.contains(':')) {
        name.into()
    } else {
        format!("{name}:latest")
    };
    let tag = full.rsplit(':').next().unwrap_or("latest");

    let mut measured = Measured { inner: io::sink(), hasher: Sha256::new(), bytes: 0 };
    write_layer(&mut program, &mut measured)?;
    let layer = measured.descriptor(LAYER);
    let config = config(tag, &layer["digest"]).to_string();
    let config_descriptor = describe(CONFIG, config.as_bytes());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config_descriptor, "layers": [layer],
    })
    .to_string();
    let index = index(&full, tag, describe(MANIFEST, manifest.as_bytes())).to_string();

    let file = File::create(out).with_context(|| format!("create {}", out.display()))?;
    let mut archive = tar::Builder::new(BufWriter::new(file));
    put(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    put(&mut archive, "index.json", index.as_bytes())?;
    put(&mut archive, &blob(&config_descriptor), config.as_bytes())?;
    put(&mut archive, &blob(&describe(MANIFEST, manifest.as_bytes())), manifest.as_bytes())?;
    put_layer(&mut archive, &mut program, &layer)?;
    let mut file =
        archive.into_inner().and_then(|w| w.into_inner().map_err(io::IntoInnerError::into_error))?;
    file.flush().with_context(|| format!("write {}", out.display()))
}

/// Refuses what is no static program: an image without a C library has no loader for others.
fn check_static(program: &mut File) -> anyhow::Result<()> {
    let mut head = [0; ELF_HEADER_BYTES];
    program.read_exact(&mut head).context("read its header")?;
    ensure!(head.starts_with(b"\x7fELF\x02\x01"), "it is no ELF program of 64 bits, little-endian");
    let u16_at = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let table = u64::from_le_bytes(head[0x20..0x28].try_into().expect("eight bytes"));
    let (entry_bytes, entries) = (u16_at(0x36), u16_at(0x38));
    ensure!(entry_bytes >= 4, "its program headers make no sense");
    let mut entry = vec![0; usize::from(entry_bytes)];
    program.seek(SeekFrom::Start(table)).context("seek its program headers")?;
    for _ in 0..entries {
        program.read_exact(&mut entry).context("read its program headers")?;
        let kind = u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]);
        if kind == PT_INTERP {
            bail!(
                "it is linked dynamically and cannot run in an empty image: build a static one with `cargo xtask build`"
            );
        }
    }
    Ok(())
}

fn write_layer(program: &mut File, out: impl Write) -> anyhow::Result<()> {
    let mut layer = tar::Builder::new(BufWriter::with_capacity(1 << 20, out));
    let bytes = program.seek(SeekFrom::End(0))?;
    program.seek(SeekFrom::Start(0))?;
    for (path, mode) in [("etc/", 0o755), ("proc/", 0o555), ("tmp/", 0o1777)] {
        let mut header = header(tar::EntryType::Directory, mode, 0);
        layer.append_data(&mut header, path, io::empty())?;
    }
    for (path, text) in [("etc/group", GROUP), ("etc/passwd", PASSWD)] {
        let mut header = header(tar::EntryType::Regular, 0o644, text.len() as u64);
        layer.append_data(&mut header, path, text)?;
    }
    let mut header = header(tar::EntryType::Regular, 0o755, bytes);
    layer.append_data(&mut header, "keelson", BufReader::with_capacity(1 << 20, program))?;
    layer.into_inner()?.flush().context("write the layer")
}

fn header(kind: tar::EntryType, mode: u32, bytes: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(bytes);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn put(archive: &mut tar::Builder<impl Write>, path: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let mut header = header(tar::EntryType::Regular, 0o644, bytes.len() as u64);
    archive.append_data(&mut header, path, bytes).with_context(|| format!("write {path}"))
}

/// The layer a second time, after its size and digest are known, straight into the archive.
fn put_layer(
    archive: &mut tar::Builder<impl Write>,
    program: &mut File,
    layer: &Value,
) -> anyhow::Result<()> {
    let bytes = layer["size"].as_u64().expect("we wrote it");
    let mut header = header(tar::EntryType::Regular, 0o644, bytes);
    header.set_path(blob(layer))?;
    header.set_cksum();
    let out = archive.get_mut();
    out.write_all(header.as_bytes())?;
    let mut measured = Measured { inner: &mut *out, hasher: Sha256::new(), bytes: 0 };
    write_layer(program, &mut measured)?;
    ensure!(measured.descriptor(LAYER) == *layer, "the binary changed while it was read");
    // A tar archive consists of blocks of 512 bytes.
    let padding = usize::try_from(bytes.next_multiple_of(512) - bytes).expect("less than a block");
    out.write_all(&[0; 512][..padding])?;
    Ok(())
}

fn config(tag: &str, diff_id: &Value) -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let port = format!("{PORT}/tcp");
    json!({
        "created": CREATED, "architecture": architecture, "os": "linux",
        "config": {
            "Env": ["PATH=/", format!("VERSION={tag}")],
            "Entrypoint": ["/keelson", "demo-app", "serve"],
            "ExposedPorts": { port: {} },
            "WorkingDir": "/", "StopSignal": "SIGTERM",
        },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        "history": [{ "created": CREATED, "created_by": "keelson demo" }],
    })
}

fn index(full: &str, tag: &str, mut manifest: Value) -> Value {
    manifest["annotations"] = json!({
        "io.containerd.image.name": full, "org.opencontainers.image.ref.name": tag,
    });
    json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest] })
}

fn describe(media_type: &str, bytes: &[u8]) -> Value {
    let mut measured = Measured { inner: io::sink(), hasher: Sha256::new(), bytes: 0 };
    measured.write_all(bytes).expect("a sink takes everything");
    measured.descriptor(media_type)
}

fn blob(descriptor: &Value) -> String {
    let digest = descriptor["digest"].as_str().expect("we wrote it");
    format!("blobs/{}", digest.replace(':', "/"))
}

/// Counts and hashes what passes.
struct Measured<W> {
    inner: W,
    hasher: Sha256,
    bytes: u64,
}

impl<W> Measured<W> {
    fn descriptor(self, media_type: &str) -> Value {
        let hex: String = self.hasher.finalize().iter().map(|b| format!("{b:02x}")).collect();
        json!({ "mediaType": media_type, "digest": format!("sha256:{hex}"), "size": self.bytes })
    }
}

impl<W: Write> Write for Measured<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hasher.update(&buf[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use runtime::ImageStore as _;

    use super::*;

    /// The smallest thing that passes for a static program: a header, and one program header that loads.
    fn program(kind: u32) -> Vec<u8> {
        let mut out = vec![0; ELF_HEADER_BYTES + 56];
        out[..6].copy_from_slice(b"\x7fELF\x02\x01");
        out[0x20] = ELF_HEADER_BYTES as u8;
        out[0x36] = 56;
        out[0x38] = 1;
        out[ELF_HEADER_BYTES..][..4].copy_from_slice(&kind.to_le_bytes());
        out.extend(std::iter::repeat_n(7, 100_001));
        out
    }

    #[tokio::test]
    async fn the_store_takes_the_archive_and_finds_the_program_in_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let (exe, out) = (dir.path().join("exe"), dir.path().join("image.tar"));
        std::fs::write(&exe, program(1)).expect("write");
        write_image(&out, &exe, "wardviaene/k8s-demo").expect("an archive");
        let first = std::fs::read(&out).expect("read");
        write_image(&out, &exe, "wardviaene/k8s-demo").expect("an archive");
        assert!(first == std::fs::read(&out).expect("read"), "the same binary makes the same archive");

        let store = runtime::Store::open(dir.path().join("store")).expect("a store");
        let images = store.import(&out, None).await.expect("it can be imported");
        assert_eq!(images.len(), 1);
        let found = store.status("wardviaene/k8s-demo").await.expect("asked").expect("it is there");
        assert_eq!(found.id, images[0].id);
        let layers = dir.path().join("store/layers");
        let layer = std::fs::read_dir(layers).expect("layers").next().expect("one").expect("entry").path();
        let unpacked = layer.join("diff");
        assert_eq!(std::fs::read(unpacked.join("keelson")).expect("read"), program(1));
        let mode = |name: &str| {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::metadata(unpacked.join(name)).expect("metadata").permissions().mode() & 0o7777
        };
        assert_eq!((mode("keelson"), mode("tmp"), mode("etc/passwd")), (0o755, 0o1777, 0o644));
    }

    #[test]
    fn what_cannot_run_in_an_empty_image_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let (exe, out) = (dir.path().join("exe"), dir.path().join("image.tar"));
        for (bytes, why) in [(program(PT_INTERP), "cargo xtask build"), (vec![b'#'; 80], "no ELF program")] {
            std::fs::write(&exe, bytes).expect("write");
            let refused = format!("{:#}", write_image(&out, &exe, "x").expect_err("refused"));
            assert!(refused.contains(why), "{refused}");
        }
        assert!(!out.exists());
    }
}
