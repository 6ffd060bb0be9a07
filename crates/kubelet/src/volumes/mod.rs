//! A pod's volumes. Each kind is one file; what files show is computed purely (`Payload`), and the file system is a door.
//!
//! Upstream: pkg/volume/*, pkg/kubelet/volumemanager.

mod config_map;
mod downward_api;
mod empty_dir;
mod host_path;
mod projected;
mod secret;

use std::path::{Path, PathBuf};

use apimachinery::{Ref, k};

use crate::doors::{FileData, Files, Payload};
use crate::fields::Facts;
use crate::objects::{ObjectKind, Objects};

pub use projected::{Token, TokenRequest};

/// The mode of files for which none is said.
const MODE: u32 = 0o644;

/// What volumes are made from.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The pod, its addresses and its node.
    pub facts: Facts<'a>,
    /// ConfigMaps and Secrets.
    pub objects: &'a Objects,
    /// Tokens asked for before, by [`TokenRequest`].
    pub tokens: &'a [(TokenRequest, Token)],
}

/// Where a volume is on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumePath {
    /// The host's path.
    pub path: PathBuf,
    /// It can only be read, whatever the mount says.
    pub readonly: bool,
}

/// A pod's directory.
pub fn pod_dir(root: &Path, uid: &str) -> PathBuf {
    root.join("pods").join(uid)
}

/// Where each volume of a pod is.
pub fn paths(root: &Path, pod: Ref<'_>) -> Vec<(String, VolumePath)> {
    let uid = pod.get(k::METADATA).get(k::UID).str();
    let volumes = pod_dir(root, uid).join("volumes");
    let list = pod.get(k::SPEC).get(k::VOLUMES).items();
    list.map(|volume| {
        let name = volume.get(k::NAME).str();
        let under = |plugin: &str| volumes.join(format!("kubernetes.io~{plugin}")).join(name);
        let host = volume.get(k::HOST_PATH);
        let (path, readonly) = match plugin(volume) {
            _ if host.is_set() => (PathBuf::from(host.get(k::PATH).str()), false),
            "empty-dir" => (under("empty-dir"), false),
            plugin => (under(plugin), true),
        };
        (name.to_owned(), VolumePath { path, readonly })
    })
    .collect()
}

fn plugin(volume: Ref<'_>) -> &'static str {
    let kinds = [
        (k::CONFIG_MAP, "configmap"),
        (k::SECRET, "secret"),
        (k::PROJECTED, "projected"),
        (k::DOWNWARD_API, "downward-api"),
    ];
    kinds.into_iter().find(|(key, _)| volume.get(*key).is_set()).map_or("empty-dir", |(_, plugin)| plugin)
}

/// The ConfigMaps and Secrets that a pod's volumes refer to.
pub fn references(pod: Ref<'_>) -> Vec<(ObjectKind, String)> {
    let mut out = Vec::new();
    let mut note = |kind, name: Ref<'_>| {
        if name.is_set() {
            out.push((kind, name.str().to_owned()));
        }
    };
    for volume in pod.get(k::SPEC).get(k::VOLUMES).items() {
        note(ObjectKind::ConfigMap, volume.get(k::CONFIG_MAP).get(k::NAME));
        note(ObjectKind::Secret, volume.get(k::SECRET).get(k::SECRET_NAME));
        for source in volume.get(k::PROJECTED).get(k::SOURCES).items() {
            note(ObjectKind::ConfigMap, source.get(k::CONFIG_MAP).get(k::NAME));
            note(ObjectKind::Secret, source.get(k::SECRET).get(k::NAME));
        }
    }
    out
}

/// The tokens that a pod's volumes need.
pub fn token_requests(pod: Ref<'_>) -> Vec<TokenRequest> {
    projected::token_requests(pod)
}

/// What a volume's files are; nothing for volumes that have none of their own.
///
/// # Errors
/// A message that names what is missing.
fn payload(volume: Ref<'_>, sources: Sources<'_>) -> Result<Option<Payload>, String> {
    let found = if volume.get(k::CONFIG_MAP).is_set() {
        config_map::payload(volume.get(k::CONFIG_MAP), sources)?
    } else if volume.get(k::SECRET).is_set() {
        secret::payload(volume.get(k::SECRET), sources)?
    } else if volume.get(k::DOWNWARD_API).is_set() {
        downward_api::payload(volume.get(k::DOWNWARD_API), sources)?
    } else if volume.get(k::PROJECTED).is_set() {
        projected::payload(volume.get(k::PROJECTED), sources)?
    } else {
        return Ok(None);
    };
    Ok(Some(found))
}

/// Makes (or brings up to date) all volumes of a pod. Blocks; repeatable.
///
/// # Errors
/// The event's message: which volume failed, and why.
pub fn mount_all(root: &Path, sources: Sources<'_>, files: &dyn Files) -> Result<(), String> {
    let pod = sources.facts.pod;
    let gid = pod.find("spec.securityContext.fsGroup").opt_i64().and_then(|g| u32::try_from(g).ok());
    for (volume, (name, at)) in pod.get(k::SPEC).get(k::VOLUMES).items().zip(paths(root, pod)) {
        let said = |why: String| format!("MountVolume.SetUp failed for volume {name:?} : {why}");
        if volume.get(k::HOST_PATH).is_set() {
            host_path::set_up(volume.get(k::HOST_PATH), files).map_err(said)?;
        } else if let Some(payload) = payload(volume, sources).map_err(said)? {
            let published =
                files.make_dir(&at.path, 0o777, gid).and_then(|()| files.publish(&at.path, &payload, gid));
            published.map_err(|err| said(err.to_string()))?;
        } else {
            let source = volume.get(k::EMPTY_DIR);
            empty_dir::set_up(source, &at.path, gid, sources.facts, files).map_err(said)?;
        }
    }
    Ok(())
}

/// The files of a ConfigMap or Secret: all keys, or those that `items` name.
fn project(
    kind: ObjectKind,
    source: Ref<'_>,
    name: &str,
    mode: u32,
    sources: Sources<'_>,
) -> Result<Payload, String> {
    let optional = source.get(k::OPTIONAL).bool();
    let namespace = sources.facts.pod.get(k::METADATA).get(k::NAMESPACE).str();
    let Some(object) = sources.objects.get(kind, namespace, name) else {
        return if optional { Ok(Payload::new()) } else { Err(kind.missing(name)) };
    };
    let data = kind.data(&object);
    let items = source.get(k::ITEMS);
    if items.is_empty() {
        return Ok(data.into_iter().map(|(key, bytes)| (key, FileData { bytes, mode, uid: None })).collect());
    }
    let mut out = Payload::new();
    for item in items.items() {
        let key = item.get(k::KEY).str();
        match data.get(key) {
            Some(bytes) => {
                let file =
                    FileData { bytes: bytes.clone(), mode: mode_of(item.get(k::MODE), mode), uid: None };
                out.insert(safe_path(item.get(k::PATH).str())?, file);
            }
            None if optional => {}
            None => {
                return Err(format!(
                    "{} references non-existent {} key: {key}",
                    reference(kind),
                    kind.word().to_lowercase()
                ));
            }
        }
    }
    Ok(out)
}

fn reference(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::ConfigMap => "configmap",
        ObjectKind::Secret => "secret",
    }
}

fn mode_of(given: Ref<'_>, default: u32) -> u32 {
    given.opt_i64().and_then(|m| u32::try_from(m).ok()).unwrap_or(default)
}

/// The API server has refused these too; a path that leaves the volume must never be written.
fn safe_path(path: &str) -> Result<String, String> {
    let bad = path.is_empty()
        || path.starts_with('/')
        || path.starts_with("..")
        || path.split('/').any(|part| part == "..");
    if bad { Err(format!("invalid path: {path:?}")) } else { Ok(path.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::{Doc, doc};

    fn show(volume: &Doc) -> Result<Vec<String>, String> {
        let pod = doc!({ "metadata": { "name": "p", "namespace": "n", "labels": { "a": "1" } },
            "spec": { "serviceAccountName": "sa", "volumes": [volume_value(volume)] } });
        let mut objects = Objects::default();
        objects.put(
            ObjectKind::ConfigMap,
            "n",
            "m",
            doc!({ "data": { "k": "v", "l": "w" }, "binaryData": { "b": "AAE=" } }),
        );
        objects.put(ObjectKind::Secret, "n", "s", doc!({ "data": { "pw": "eA==" } }));
        let request = TokenRequest { audience: String::new(), expiration_seconds: 3607 };
        let tokens = [(request, Token { value: "tok".into() })];
        let none = Default::default();
        let facts = Facts { pod: pod.root(), ips: &[], host_ips: &[], allocatable: &none };
        let got = payload(volume.root(), Sources { facts, objects: &objects, tokens: &tokens })?;
        let line = |(path, f): (String, FileData)| {
            format!("{path}={} {:o}", String::from_utf8_lossy(&f.bytes).escape_debug(), f.mode)
        };
        Ok(got.unwrap_or_default().into_iter().map(line).collect())
    }

    fn volume_value(volume: &Doc) -> apimachinery::__serde_json::Value {
        apimachinery::__serde_json::from_slice(&volume.to_json()).unwrap()
    }

    #[test]
    fn what_files_show() {
        for (volume, want) in [
            (doc!({ "configMap": { "name": "m" } }), "b=\\0\\u{1} 644, k=v 644, l=w 644"),
            (
                doc!({ "configMap": { "name": "m", "defaultMode": 256, "items": [{ "key": "k", "path": "d/x", "mode": 420 }, { "key": "l", "path": "y" }] } }),
                "d/x=v 644, y=w 400",
            ),
            (doc!({ "configMap": { "name": "none" } }), "configmap \"none\" not found"),
            (doc!({ "configMap": { "name": "none", "optional": true } }), ""),
            (
                doc!({ "configMap": { "name": "m", "items": [{ "key": "q", "path": "x" }] } }),
                "configmap references non-existent configmap key: q",
            ),
            (
                doc!({ "configMap": { "name": "m", "items": [{ "key": "k", "path": "../x" }] } }),
                "invalid path: \"../x\"",
            ),
            (doc!({ "secret": { "secretName": "s" } }), "pw=x 644"),
            (
                doc!({ "downwardAPI": { "items": [{ "path": "l", "fieldRef": { "fieldPath": "metadata.labels" } }] } }),
                "l=a=\\\"1\\\" 644",
            ),
            (
                doc!({ "projected": { "sources": [{ "serviceAccountToken": { "expirationSeconds": 3607, "path": "token" } },
                { "configMap": { "name": "m", "items": [{ "key": "k", "path": "ca.crt" }] } },
                { "downwardAPI": { "items": [{ "path": "namespace", "fieldRef": { "fieldPath": "metadata.namespace" } }] } }] } }),
                "ca.crt=v 644, namespace=n 644, token=tok 644",
            ),
            (doc!({ "emptyDir": {} }), ""),
        ] {
            let got = show(&volume).map_or_else(|e| e, |lines| lines.join(", "));
            assert_eq!(got, want, "{:?}", volume.root());
        }
    }

    #[test]
    fn canonical_places() {
        let pod = doc!({ "metadata": { "uid": "u" }, "spec": { "volumes": [{ "name": "a", "emptyDir": {} }, { "name": "b", "projected": {} },
            { "name": "c", "hostPath": { "path": "/x" } }, { "name": "d" }] } });
        let got: Vec<String> = paths(Path::new("/var/lib/kubelet"), pod.root())
            .into_iter()
            .map(|(_, v)| v.path.display().to_string())
            .collect();
        let base = "/var/lib/kubelet/pods/u/volumes/kubernetes.io~";
        assert_eq!(
            got,
            [
                format!("{base}empty-dir/a"),
                format!("{base}projected/b"),
                "/x".into(),
                format!("{base}empty-dir/d")
            ]
        );
    }
}
