//! Images from registries: the pull half of the OCI distribution specification (v1.1), into an OCI layout that the image
//! store then imports as it does archives. Every blob is checked against its digest and size while it comes.
//!
//! Upstream: opencontainers/distribution-spec; containerd's `core/remotes/docker` for what registries do besides.

mod credentials;
mod http;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Semaphore, mpsc};

use crate::image::archive::{DOCUMENT_BYTES_MAX, blob_path, digest_text, fits, sha256};
use crate::image::config::{Descriptor, ImageConfig, Manifest};
use crate::image::reference::{Reference, is_digest};
use crate::{Error, Result};

pub use credentials::Credential;
pub use http::Resolve;
use http::{Body, Http};

/// Layers that come at one time, as containerd's default.
const LAYERS_AT_ONCE: usize = 3;
/// Pieces of a layer between network and disk.
const PIECES_MAX: usize = 16;
/// The most layers of an image.
const LAYERS_MAX: usize = 1000;
/// How deep indexes may nest.
const INDEX_DEPTH_MAX: usize = 4;
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// Told how far a layer has come: its digest, its bytes so far, and all of them.
pub type Progress = Arc<dyn Fn(&str, u64, u64) + Send + Sync>;

/// The registries of the world. Cheap to clone.
#[derive(Clone)]
pub struct Registries {
    http: Arc<Http>,
    progress: Option<Progress>,
}

impl std::fmt::Debug for Registries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registries")
    }
}

/// One pull: who asks, for what, and what the registry let in.
struct Pull<'a> {
    registries: &'a Registries,
    image: &'a Reference,
    /// `https://host/v2/path`
    base: String,
    credential: Option<&'a Credential>,
    authorization: Mutex<Option<String>>,
}

/// What a registry has under a name.
pub(crate) struct Top {
    /// The digest of the manifest, or of the index above it.
    pub digest: String,
    document: Vec<u8>,
    credential: Option<Credential>,
}

#[derive(Deserialize)]
struct Token {
    #[serde(alias = "access_token")]
    token: String,
}

impl Registries {
    /// Registries whose hosts `resolve` finds.
    pub fn new(resolve: Resolve) -> Registries {
        Registries { http: Arc::new(Http::new(resolve)), progress: None }
    }

    /// The same, telling how far layers have come.
    pub fn with_progress(mut self, progress: Progress) -> Registries {
        self.progress = Some(progress);
        self
    }

    /// What the name stands for, tried with each credential that is meant for it, then with none.
    pub(crate) async fn top(&self, image: &Reference, credentials: &[Credential]) -> Result<Top> {
        let fitting = credentials.iter().filter(|c| c.fits(image)).map(Some);
        let mut last = None;
        for credential in fitting.chain([None]) {
            let pull = self.pull(image, credential);
            let wanted = image.digest.as_ref().or(image.tag.as_ref()).expect("a name has a tag or a digest");
            match pull.document("manifests", wanted).await {
                Ok(document) => {
                    let digest = sha256(&document);
                    if image.digest.as_ref().is_some_and(|d| *d != digest) {
                        return Err(failed(
                            image,
                            format!("the registry's manifest has the digest {digest}"),
                        ));
                    }
                    return Ok(Top { digest, document, credential: credential.cloned() });
                }
                // What was said to the first who asked counts: it was the one most likely to be let in.
                Err(err) => last = last.or(Some(err)),
            }
        }
        Err(last.expect("the last try is without a credential"))
    }

    /// Brings an image into `layout`, without the layers that `has` knows by their uncompressed digests.
    pub(crate) async fn fetch(
        &self,
        image: &Reference,
        top: &Top,
        layout: &Path,
        has: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<()> {
        let pull = self.pull(image, top.credential.as_ref());
        let write = |path: PathBuf, bytes: &[u8]| {
            std::fs::write(&path, bytes).map_err(Error::io(format!("write {}", path.display())))
        };
        let blobs = layout.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).map_err(Error::io(format!("create {}", blobs.display())))?;
        let index = json!({ "schemaVersion": 2, "manifests": [{ "digest": top.digest, "size": top.document.len() }] });
        write(layout.join("index.json"), index.to_string().as_bytes())?;
        write(layout.join(blob_path(&top.digest)?), &top.document)?;
        let mut manifest: Manifest = parse(image, &top.document)?;
        for _ in 0..INDEX_DEPTH_MAX {
            let Some(children) = &manifest.manifests else { break };
            let ours = |d: &&Descriptor| d.platform.as_ref().is_none_or(|p| fits(&p.os, &p.architecture));
            let none = || failed(image, "no match for platform in manifest: not found");
            let child = children.iter().find(ours).ok_or_else(none)?.digest.clone();
            let document = pull.blob_document("manifests", &child).await?;
            write(layout.join(blob_path(&child)?), &document)?;
            manifest = parse(image, &document)?;
        }
        let config_at =
            manifest.config.as_ref().ok_or_else(|| failed(image, "its manifest names no configuration"))?;
        let document = pull.blob_document("blobs", &config_at.digest).await?;
        write(layout.join(blob_path(&config_at.digest)?), &document)?;
        let config: ImageConfig = parse(image, &document)?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() || manifest.layers.len() > LAYERS_MAX {
            return Err(failed(
                image,
                format!("it has {} layers but names {}", manifest.layers.len(), config.rootfs.diff_ids.len()),
            ));
        }
        // The same layer may be there twice.
        let mut wanted = BTreeSet::new();
        let missing = manifest
            .layers
            .iter()
            .zip(&config.rootfs.diff_ids)
            .filter(|(_, diff)| !has(diff))
            .map(|(l, _)| l);
        let layers: Vec<&Descriptor> = missing.filter(|layer| wanted.insert(&layer.digest)).collect();
        pull.layers(&layers, layout).await
    }

    fn pull<'a>(&'a self, image: &'a Reference, credential: Option<&'a Credential>) -> Pull<'a> {
        let (host, path) = image.name.split_once('/').unwrap_or((&image.name, ""));
        let host = if host == "docker.io" { "registry-1.docker.io" } else { host };
        let bare = match host.rsplit_once(':') {
            Some((bare, port)) if port.bytes().all(|b| b.is_ascii_digit()) => bare,
            _ => host,
        };
        let scheme = if http::is_local(bare) { "http" } else { "https" };
        let base = format!("{scheme}://{host}/v2/{path}");
        Pull { registries: self, image, base, credential, authorization: Mutex::default() }
    }
}

impl Pull<'_> {
    /// Asks for something, with a token where the registry wants one.
    async fn get(&self, what: &str, name: &str) -> Result<Body> {
        let url = format!("{}/{what}/{name}", self.base);
        let accept = if what == "manifests" { MANIFESTS } else { "*/*" };
        for asked_again in [false, true] {
            let authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let asked = self.registries.http.get(&url, accept, authorization.as_deref()).await;
            let (parts, body) = asked.map_err(|e| failed(self.image, format!("{url}: {e}")))?;
            match parts.status.as_u16() {
                200 => return Ok(body),
                401 if !asked_again => {
                    let header = parts.headers.get("www-authenticate").and_then(|h| h.to_str().ok());
                    let authorization = self.authorize(header.unwrap_or_default()).await?;
                    *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(authorization);
                }
                401 | 403 => {
                    let message =
                        "pull access denied, repository does not exist or may require authorization";
                    return Err(failed(self.image, message));
                }
                404 => return Err(failed(self.image, "not found")),
                status => return Err(failed(self.image, format!("{url}: unexpected status {status}"))),
            }
        }
        unreachable!("the second round returns")
    }

    /// What to say to a registry that wants to know who asks.
    async fn authorize(&self, challenge: &str) -> Result<String> {
        let basic = self.credential.map(Credential::basic);
        let (scheme, rest) = challenge.split_once(' ').unwrap_or((challenge, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return basic.ok_or_else(|| failed(self.image, "the registry wants a user name and password"));
        }
        let parameters = parameters(rest);
        let parameter =
            |name: &str| parameters.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        let (true, Some(realm)) = (scheme.eq_ignore_ascii_case("bearer"), parameter("realm")) else {
            return Err(failed(
                self.image,
                format!("the registry asks who we are in an unknown way: {challenge:?}"),
            ));
        };
        if !is_private(realm) {
            return Err(failed(
                self.image,
                format!("the registry wants its token asked for at {realm}, where anybody could listen"),
            ));
        }
        let path = self.image.name.split_once('/').map_or("", |(_, path)| path);
        let scope = parameter("scope").map_or_else(|| format!("repository:{path}:pull"), str::to_owned);
        let mut url =
            format!("{realm}{}scope={}", if realm.contains('?') { '&' } else { '?' }, encoded(&scope));
        if let Some(service) = parameter("service") {
            url.push_str(&format!("&service={}", encoded(service)));
        }
        let fail = |why: String| failed(self.image, format!("ask {realm} for a token: {why}"));
        let asked = self.registries.http.get(&url, "application/json", basic.as_deref()).await;
        let (parts, body) = asked.map_err(|e| fail(e.to_string()))?;
        if parts.status != 200 {
            return Err(fail(format!("it answers {}", parts.status)));
        }
        let body = body.all(DOCUMENT_BYTES_MAX).await.map_err(|e| fail(e.to_string()))?;
        let token: Token = serde_json::from_slice(&body).map_err(|e| fail(e.to_string()))?;
        Ok(format!("Bearer {}", token.token))
    }

    async fn document(&self, what: &str, name: &str) -> Result<Vec<u8>> {
        let body = self.get(what, name).await?;
        body.all(DOCUMENT_BYTES_MAX).await.map_err(|e| failed(self.image, format!("{what}/{name}: {e}")))
    }

    async fn blob_document(&self, what: &str, digest: &str) -> Result<Vec<u8>> {
        if !is_digest(digest) {
            return Err(failed(self.image, format!("digest {digest:?} is not sha256")));
        }
        let bytes = self.document(what, digest).await?;
        let actual = sha256(&bytes);
        if actual != digest {
            return Err(failed(self.image, format!("{digest} came with the digest {actual}")));
        }
        Ok(bytes)
    }

    /// A few at a time.
    async fn layers(&self, layers: &[&Descriptor], layout: &Path) -> Result<()> {
        let turns = Semaphore::new(LAYERS_AT_ONCE);
        let all = layers.iter().map(|layer| async {
            let _turn = turns.acquire().await.expect("nobody closes it");
            self.layer(layer, layout).await
        });
        futures_util::future::try_join_all(all).await.map(drop)
    }

    async fn layer(&self, layer: &Descriptor, layout: &Path) -> Result<()> {
        let (digest, size) = (&layer.digest, layer.size);
        let path = layout.join(blob_path(digest)?);
        let mut body = self.get("blobs", digest).await?;
        let fail = |e: io::Error| failed(self.image, format!("layer {digest}: {e}"));
        let mut file = File::create_new(&path).map_err(Error::io(format!("create {}", path.display())))?;
        // Hashing and writing are not for the threads that everything else runs on.
        let (sender, mut pieces) = mpsc::channel::<Bytes>(PIECES_MAX);
        let written = base::task::blocking(move || {
            let mut hasher = Sha256::new();
            while let Some(piece) = pieces.blocking_recv() {
                hasher.update(&piece);
                file.write_all(&piece)?;
            }
            Ok(digest_text(hasher))
        });
        let read = async move {
            let mut done = 0u64;
            while let Some(piece) = body.next().await.map_err(fail)? {
                done += piece.len() as u64;
                if done > size {
                    return Err(failed(
                        self.image,
                        format!("layer {digest} is larger than its {size} bytes"),
                    ));
                }
                if sender.send(piece).await.is_err() {
                    break;
                }
                if let Some(progress) = &self.registries.progress {
                    progress(digest, done, size);
                }
            }
            Ok(())
        };
        let (read, written) = futures_util::future::join(read, written).await;
        read?;
        let actual = written.map_err(fail)?;
        if actual != *digest {
            return Err(failed(self.image, format!("layer {digest} came with the digest {actual}")));
        }
        Ok(())
    }
}

fn failed(image: &Reference, message: impl Into<String>) -> Error {
    Error::Pull { name: image.to_string(), message: message.into() }
}

fn parse<T: serde::de::DeserializeOwned>(image: &Reference, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| failed(image, format!("its manifest or configuration: {e}")))
}

/// Whether what is sent to a token server stays between it and us: over TLS, or on this machine.
fn is_private(realm: &str) -> bool {
    let uri = realm.parse::<hyper::Uri>().ok();
    uri.is_some_and(|uri| uri.scheme_str() == Some("https") || uri.host().is_some_and(http::is_local))
}

/// `name="value", …` of a challenge (RFC 9110 section 11.2).
fn parameters(text: &str) -> Vec<(String, String)> {
    let (mut out, mut rest) = (Vec::new(), text);
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([',', ' ']).to_ascii_lowercase();
        let (value, then) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        out.push((name, value.to_owned()));
        rest = then;
    }
    out
}

/// Percent-encoding of what a query cannot hold.
fn encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/,".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let got = parameters(
            "realm=\"https://auth.example/token\",service=\"reg\", scope=\"repository:a/b:pull,push\"",
        );
        let want = [
            ("realm", "https://auth.example/token"),
            ("service", "reg"),
            ("scope", "repository:a/b:pull,push"),
        ];
        assert_eq!(got, want.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!(parameters("realm=x,y=z"), [("realm".into(), "x".into()), ("y".into(), "z".into())]);
        assert_eq!(encoded("a b&c:d/e"), "a%20b%26c:d/e");
    }

    #[tokio::test]
    async fn passwords_are_sent_where_nobody_listens() {
        let registries = Registries::new(Arc::new(|_| Box::pin(async { Ok(Vec::new()) })));
        let image = Reference::parse("registry.example/a/b").expect("a name");
        for (realm, is_asked) in [
            ("http://auth.example/token", false),
            ("auth.example/token", false),
            ("ftp://127.0.0.1.example/token", false),
            ("https://auth.example/token", true),
            ("http://127.0.0.1:5000/token", true),
            ("http://[::1]/token", true),
        ] {
            let challenge = format!("Bearer realm=\"{realm}\"");
            // The hosts have no addresses: more than to be asked they cannot.
            let said =
                registries.pull(&image, None).authorize(&challenge).await.expect_err(realm).to_string();
            assert_eq!(said.contains("has no address"), is_asked, "{said}");
            assert_eq!(said.contains("anybody could listen"), !is_asked, "{said}");
        }
    }
}
