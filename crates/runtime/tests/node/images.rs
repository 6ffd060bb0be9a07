//! Archives, honest and hostile.

use std::fs;
use std::path::Path;

use runtime::*;

use crate::support::{add, architecture, busybox_layer, digest, docker_archive, gzip, possible};

/// A store in a directory of its own. Needs root for whiteouts and owners.
fn store() -> Option<(tempfile::TempDir, Store)> {
    if !possible() {
        return None;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path().join("images")).expect("a store");
    Some((dir, store))
}

async fn import(dir: &Path, store: &Store, archive: &[u8], name: Option<&str>) -> Result<Vec<Image>> {
    let path = dir.join("archive");
    fs::write(&path, archive).expect("write");
    store.import(&path, name).await
}

fn oci_layout(layer: &[u8], claimed: Option<&str>) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let blob = gzip(layer);
    let layer_digest = claimed.map_or_else(|| digest(&blob), str::to_owned);
    let config = format!(
        r#"{{"architecture":"{}","os":"linux","config":{{"User":"1000:1000"}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        architecture(),
        digest(layer)
    );
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"x","digest":"{}","size":{}}},"layers":[{{"mediaType":"y","digest":"{layer_digest}","size":{}}}]}}"#,
        digest(config.as_bytes()),
        config.len(),
        blob.len()
    );
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"z","digest":"{}","size":{},"annotations":{{"org.opencontainers.image.ref.name":"wardviaene/k8s-demo:v1"}}}}]}}"#,
        digest(manifest.as_bytes()),
        manifest.len()
    );
    add(&mut tar, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
    add(&mut tar, "index.json", 0o644, index.as_bytes());
    for bytes in [manifest.as_bytes(), config.as_bytes()] {
        add(&mut tar, &format!("blobs/sha256/{}", &digest(bytes)[7..]), 0o644, bytes);
    }
    add(&mut tar, &format!("blobs/sha256/{}", &layer_digest[7..]), 0o644, &blob);
    tar.into_inner().expect("an archive")
}

#[tokio::test]
async fn names_answer_pulls_and_layers_go_with_the_last_image() {
    let Some((dir, store)) = store() else { return };
    let layer = busybox_layer();
    let made = import(dir.path(), &store, &oci_layout(&layer, None), None).await.expect("import");
    assert_eq!(made[0].repo_tags, ["docker.io/wardviaene/k8s-demo:v1"]);
    assert!(made[0].repo_digests[0].starts_with("docker.io/wardviaene/k8s-demo@sha256:"));
    assert_eq!((made[0].uid, made[0].username.as_str()), (Some(1000), ""));
    let named = gzip(&docker_archive(&[&layer], "x/y:z", "{}"));
    import(dir.path(), &store, &named, Some("wardviaene/k8s-demo")).await.expect("import");
    let pulled = store.pull("docker.io/wardviaene/k8s-demo:latest", &[]).await.expect("pull");
    assert_eq!(pulled.repo_tags, ["docker.io/wardviaene/k8s-demo:latest"]);
    assert_eq!(store.status(&pulled.id).await.expect("status"), Some(pulled.clone()));
    assert_eq!(store.status(&made[0].repo_digests[0]).await.expect("status"), Some(made[0].clone()));
    let error = store.pull("nginx", &[]).await.expect_err("not there").to_string();
    assert!(
        error.contains("keelson image import") && error.contains("docker.io/library/nginx:latest"),
        "{error}"
    );

    let layers = || fs::read_dir(dir.path().join("images/layers")).expect("list").count();
    assert_eq!(layers(), 1, "one layer for both images");
    let container = ContainerId::random();
    store.pin("wardviaene/k8s-demo", &container).expect("pin");
    for image in store.list().await.expect("list") {
        store.remove(&image.id).await.expect("remove");
    }
    assert_eq!(layers(), 1, "a container stands on it");
    store.unpin(&container).expect("unpin");
    assert_eq!(layers(), 0);
}

#[tokio::test]
async fn whiteouts_become_overlays_own() {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let Some((dir, store)) = store() else { return };
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, "./etc/.wh.gone", 0o644, b"");
    add(&mut tar, "opaque/.wh..wh..opq", 0o644, b"");
    add(&mut tar, "etc/kept", 0o4755, b"kept");
    let layer = tar.into_inner().expect("a layer");
    import(dir.path(), &store, &docker_archive(&[&layer], "x", "{}"), None).await.expect("import");
    let at = dir.path().join(format!("images/layers/{}/diff", &digest(&layer)[7..]));
    let gone = fs::symlink_metadata(at.join("etc/gone")).expect("a whiteout");
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let mut value = [0; 8];
    let len = rustix::fs::getxattr(at.join("opaque"), "trusted.overlay.opaque", &mut value).expect("opaque");
    assert_eq!(&value[..len], b"y");
    assert_eq!(fs::metadata(at.join("etc/kept")).expect("kept").mode() & 0o7777, 0o4755);
}

/// An entry exactly as said, however wrong: the builder would refuse most of these.
fn raw(tar: &mut tar::Builder<Vec<u8>>, kind: tar::EntryType, name: &str, link: &str, data: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    let bytes = header.as_mut_bytes();
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    tar.append(&header, data).expect("append");
}

#[tokio::test]
async fn hostile_layers_are_refused() {
    use tar::EntryType::{Block, Char, Link, Regular, Symlink, XHeader};
    let Some((dir, store)) = store() else { return };
    let outside = dir.path().join("outside");
    fs::write(&outside, "untouched").expect("write");
    let outside_text = outside.to_str().expect("text");
    let pax = |record: &str| format!("{} {record}\n", record.len() + 4).into_bytes();
    type Entry<'a> = (tar::EntryType, &'a str, &'a str, Vec<u8>);
    let cases: Vec<(&str, Vec<Entry<'_>>)> = vec![
        ("..", vec![(Regular, "../../../../../outside", "", b"x".to_vec())]),
        ("..", vec![(Regular, "a/../../outside", "", b"x".to_vec())]),
        ("absolute", vec![(Regular, outside_text, "", b"x".to_vec())]),
        ("link", vec![(Symlink, "d", "/", vec![]), (Regular, "d/outside", "", b"x".to_vec())]),
        ("link", vec![(Symlink, "d", "../../../..", vec![]), (Regular, "d/outside", "", b"x".to_vec())]),
        ("..", vec![(Link, "hard", "../../../../outside", vec![])]),
        ("absolute", vec![(Link, "hard", outside_text, vec![])]),
        ("link", vec![(Symlink, "d", "/etc", vec![]), (Link, "hard", "d/passwd", vec![])]),
        ("devices", vec![(Block, "sda", "", vec![])]),
        ("devices", vec![(Char, "mem", "", vec![])]),
        ("whiteout", vec![(Regular, "a/.wh...", "", vec![])]),
        ("..", vec![(XHeader, "p", "", pax("path=../out")), (Regular, "a", "", vec![])]),
        (
            "attribute",
            vec![
                (XHeader, "p", "", pax("SCHILY.xattr.trusted.overlay.redirect=/etc")),
                (Regular, "a", "", vec![]),
            ],
        ),
        (
            "sizes differ",
            vec![(XHeader, "p", "", b"10 size=9\n".to_vec()), (Regular, "a", "", b"x".to_vec())],
        ),
    ];
    for (words, entries) in cases {
        let mut tar = tar::Builder::new(Vec::new());
        for (kind, name, link, data) in &entries {
            if matches!(kind, Block | Char) {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(*kind);
                header.set_size(0);
                header.set_mode(0o666);
                header.set_device_major(1).expect("major");
                header.set_device_minor(1).expect("minor");
                tar.append_data(&mut header, name, &[][..]).expect("append");
            } else {
                raw(&mut tar, *kind, name, link, data);
            }
        }
        let layer = tar.into_inner().expect("a layer");
        let archive = docker_archive(&[&layer], "x", "{}");
        let error = import(dir.path(), &store, &archive, None).await.expect_err(words).to_string();
        assert!(error.contains(words), "{words:?} is not in {error:?}");
        assert_eq!(fs::read_to_string(&outside).expect("read"), "untouched");
    }
    // A symbolic link out is a file like any other, and what replaces it does not go through it.
    let mut tar = tar::Builder::new(Vec::new());
    raw(&mut tar, Symlink, "f", outside_text, b"");
    raw(&mut tar, Regular, "f", "", b"own");
    let layer = tar.into_inner().expect("a layer");
    import(dir.path(), &store, &docker_archive(&[&layer], "x", "{}"), None).await.expect("import");
    assert_eq!(fs::read_to_string(&outside).expect("read"), "untouched");
}

#[tokio::test]
async fn damaged_and_oversized_archives_are_refused() {
    let Some((dir, store)) = store() else { return };
    let layer = busybox_layer();
    let wrong = format!("sha256:{}", "0".repeat(64));
    let error =
        import(dir.path(), &store, &oci_layout(&layer, Some(&wrong)), None).await.expect_err("wrong digest");
    assert!(error.to_string().contains("differs from its digest"), "{error}");
    let whole = docker_archive(&[&layer], "x", "{}");
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    assert!(import(dir.path(), &store, &damaged, None).await.is_err());
    assert!(import(dir.path(), &store, &whole[..whole.len() / 2], None).await.is_err());
    assert!(import(dir.path(), &store, b"no archive at all", None).await.is_err());
    let small = store.clone().with_limits(UnpackLimits { bytes_max: 1 << 10, entries_max: 1000 });
    let error = import(dir.path(), &small, &whole, None).await.expect_err("too large");
    assert!(error.to_string().contains("larger than"), "{error}");
    let few = store.clone().with_limits(UnpackLimits { bytes_max: 1 << 30, entries_max: 3 });
    assert!(import(dir.path(), &few, &whole, None).await.is_err());
    assert!(store.list().await.expect("list").is_empty(), "a refused archive left an image");
}
