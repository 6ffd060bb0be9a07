//! The parts of OCI image documents that are used here: index, manifest, configuration.
//!
//! Upstream: github.com/opencontainers/image-spec (config.md, manifest.md, image-index.md); Docker's
//! `manifest.json` of `docker save`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A descriptor: what a blob is and how to find it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Its digest.
    pub digest: String,
    /// Its bytes.
    #[serde(default)]
    pub size: u64,
    /// Names, for those of an index.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// What it runs on, for those of an index.
    pub platform: Option<Platform>,
}

/// What an image runs on.
#[derive(Clone, Debug, Deserialize)]
pub struct Platform {
    /// Go's name of the architecture.
    #[serde(default)]
    pub architecture: String,
    /// Go's name of the operating system.
    #[serde(default)]
    pub os: String,
}

/// An index or a manifest: the members say which.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Manifest {
    /// An index's manifests.
    pub manifests: Option<Vec<Descriptor>>,
    /// A manifest's configuration.
    pub config: Option<Descriptor>,
    /// A manifest's layers, lowest first.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
}

/// One image of a `docker save` archive.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DockerManifest {
    /// The configuration's path in the archive.
    pub config: String,
    /// Names with tags.
    pub repo_tags: Option<Vec<String>>,
    /// The layers' paths in the archive, lowest first.
    #[serde(default)]
    pub layers: Vec<String>,
}

/// An image's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// Go's name of the architecture.
    #[serde(default)]
    pub architecture: String,
    /// Go's name of the operating system.
    #[serde(default)]
    pub os: String,
    /// How to run it.
    #[serde(default)]
    pub config: RunConfig,
    /// Its layers.
    pub rootfs: RootFs,
}

/// How to run an image. Members that are absent or null are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    /// `user[:group]`, each a name or a number.
    #[serde(deserialize_with = "null_is_empty")]
    pub user: String,
    /// `NAME=value`.
    #[serde(deserialize_with = "null_is_empty")]
    pub env: Vec<String>,
    /// The program and its first arguments.
    #[serde(deserialize_with = "null_is_empty")]
    pub entrypoint: Vec<String>,
    /// Arguments, or the program where there is no Entrypoint.
    #[serde(deserialize_with = "null_is_empty")]
    pub cmd: Vec<String>,
    /// Where it starts.
    #[serde(deserialize_with = "null_is_empty")]
    pub working_dir: String,
    /// The signal that asks it to end.
    #[serde(deserialize_with = "null_is_empty")]
    pub stop_signal: String,
}

/// An image's layers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Digests of the uncompressed layers, lowest first.
    #[serde(default)]
    pub diff_ids: Vec<String>,
}

/// Go's name of this machine's architecture.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

fn null_is_empty<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    d: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(d)?.unwrap_or_default())
}
