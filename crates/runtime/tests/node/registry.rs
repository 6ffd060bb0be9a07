//! Pulls from a registry of the test's own: tokens, indexes, redirects, what is fetched again, and what is refused.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use base64::Engine as _;
use futures_util::FutureExt as _;
use runtime::*;
use tokio::sync::Semaphore;

use crate::support::{add, architecture, digest, gzip, possible};

/// A registry that wants a token, which it gives to `user:secret` only; blobs are elsewhere on the same host.
#[derive(Clone)]
struct Registry {
    at: SocketAddr,
    documents: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    /// Paths asked for with the token.
    asked: Arc<Mutex<Vec<String>>>,
    /// A permit for every request that has come.
    come: Arc<Semaphore>,
    /// Whether answers are held back.
    shut: Arc<(Mutex<bool>, Condvar)>,
}

impl Registry {
    fn start() -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = listener.local_addr().expect("an address");
        let (come, shut) = (Arc::new(Semaphore::new(0)), Arc::default());
        let registry = Registry { at, documents: Arc::default(), asked: Arc::default(), come, shut };
        let serving = registry.clone();
        // It ends with the test's process.
        let accepting = move || {
            for stream in listener.incoming() {
                let (stream, registry) = (stream.expect("a connection"), serving.clone());
                std::thread::Builder::new().spawn(move || registry.serve(stream)).expect("a thread");
            }
        };
        std::thread::Builder::new().spawn(accepting).expect("a thread");
        registry
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        let (mut head, mut line) = (String::new(), String::new());
        while reader.read_line(&mut line).expect("a line") > 2 {
            head.push_str(&std::mem::take(&mut line));
        }
        self.come.add_permits(1);
        let (shut, opened) = &*self.shut;
        drop(opened.wait_while(shut.lock().expect("nobody panics"), |shut| *shut).expect("nobody panics"));
        let path = head.split(' ').nth(1).expect("a path").to_owned();
        let has = |header: &str| head.to_lowercase().contains(&header.to_lowercase());
        let answer = |status: &str, headers: &str, body: &[u8]| {
            let head = format!(
                "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let mut stream = reader.get_ref();
            // A client that has seen enough goes.
            drop(stream.write_all(&[head.as_bytes(), body].concat()));
        };
        if path.starts_with("/token?") {
            let basic = base64::engine::general_purpose::STANDARD.encode("user:secret");
            return if has(&format!("authorization: Basic {basic}"))
                && path.contains("scope=repository:team/app:pull")
            {
                answer("200 OK", "", br#"{ "token": "let-me-in" }"#);
            } else {
                answer("401 Unauthorized", "", b"");
            };
        }
        let documents = self.documents.lock().expect("nobody panics");
        if let Some(blob) = path.strip_prefix("/elsewhere/") {
            return answer("200 OK", "", &documents[blob]);
        }
        if !has("authorization: Bearer let-me-in") {
            let challenge =
                format!("WWW-Authenticate: Bearer realm=\"http://{}/token\",service=\"here\"\r\n", self.at);
            return answer("401 Unauthorized", &challenge, b"");
        }
        self.asked.lock().expect("nobody panics").push(path.clone());
        let name = path.trim_start_matches("/v2/team/app/");
        match (documents.get(name), name.strip_prefix("blobs/")) {
            (Some(_), Some(blob)) => {
                answer("307 Temporary Redirect", &format!("Location: /elsewhere/blobs/{blob}\r\n"), b"");
            }
            (Some(document), None) => answer("200 OK", "", document),
            (None, _) => answer("404 Not Found", "", b"{}"),
        }
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        self.documents.lock().expect("nobody panics").insert(name.to_owned(), bytes.to_vec());
    }

    /// Pushes an image of these layers under a tag, behind an index that has another machine's, too. `lie` changes what
    /// is said of layers.
    fn push(&self, tag: &str, layers: &[&[u8]], lie: impl Fn(&mut String)) {
        let blobs: Vec<Vec<u8>> = layers.iter().map(|layer| gzip(layer)).collect();
        for blob in &blobs {
            self.put(&format!("blobs/{}", digest(blob)), blob);
        }
        let diffs: Vec<String> = layers.iter().map(|layer| format!("\"{}\"", digest(layer))).collect();
        let config = format!(
            r#"{{"architecture":"{}","os":"linux","rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            architecture(),
            diffs.join(",")
        );
        self.put(&format!("blobs/{}", digest(config.as_bytes())), config.as_bytes());
        let said = |blob: &Vec<u8>| format!(r#"{{"digest":"{}","size":{}}}"#, digest(blob), blob.len());
        let mut said: Vec<String> = blobs.iter().map(said).collect();
        said.iter_mut().for_each(lie);
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{}","size":{}}},"layers":[{}]}}"#,
            digest(config.as_bytes()),
            config.len(),
            said.join(",")
        );
        self.put(&format!("manifests/{}", digest(manifest.as_bytes())), manifest.as_bytes());
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"digest":"sha256:{}","size":1,"platform":{{"os":"plan9","architecture":"x"}}}},{{"digest":"{}","size":{},"platform":{{"os":"linux","architecture":"{}"}}}}]}}"#,
            "0".repeat(64),
            digest(manifest.as_bytes()),
            manifest.len(),
            architecture()
        );
        self.put(&format!("manifests/{tag}"), index.as_bytes());
        self.put(&format!("manifests/{}", digest(index.as_bytes())), index.as_bytes());
    }

    fn image(&self, tag: &str) -> String {
        format!("{}/team/app:{tag}", self.at)
    }

    fn credentials(&self) -> Vec<Credential> {
        let auth = base64::engine::general_purpose::STANDARD.encode("user:secret");
        let json = format!(r#"{{ "auths": {{ "http://{}/v2/": {{ "auth": "{auth}" }} }} }}"#, self.at);
        Credential::from_docker_config(json.as_bytes()).expect("it is JSON")
    }

    /// Holds answers back from now on, or no longer.
    fn shut(&self, shut: bool) {
        *self.shut.0.lock().expect("nobody panics") = shut;
        self.shut.1.notify_all();
    }

    /// How many requests with the token there were since the last time.
    fn requests(&self) -> usize {
        std::mem::take(&mut *self.asked.lock().expect("nobody panics")).len()
    }
}

/// A layer of one file.
fn layer(name: &str, size: usize) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, name, 0o644, &vec![b'x'; size]);
    tar.into_inner().expect("a layer")
}

fn store() -> Option<(tempfile::TempDir, Store)> {
    if !possible() {
        return None;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let registries = Registries::new(Arc::new(|host| {
        Box::pin(async move { host.parse().map(|address| vec![address]).map_err(std::io::Error::other) })
    }));
    let store = Store::open(dir.path().join("images")).expect("a store").with_registries(registries);
    Some((dir, store))
}

#[tokio::test]
async fn images_come_from_registries_and_only_what_is_new() {
    let Some((dir, store)) = store() else { return };
    let registry = Registry::start();
    let (base, one, two) = (layer("base", 3 << 20), layer("one", 10), layer("two", 20));
    registry.push("v1", &[&base, &one], |_| {});
    let (name, credentials) = (registry.image("v1"), registry.credentials());

    let refused = store.pull(&name, &[]).await.expect_err("nobody gave a password").to_string();
    assert!(refused.contains("token") && refused.contains("401"), "{refused}");
    let first = store.pull(&name, &credentials).await.expect("pull");
    assert_eq!(first.repo_tags, [name.as_str()]);
    assert_eq!(registry.requests(), 5, "index, manifest, configuration, two layers");
    assert_eq!(store.pull(&name, &credentials).await.expect("pull"), first);
    assert_eq!(registry.requests(), 1, "the index says that nothing is new");
    let by_digest = store.pull(&first.repo_digests[0], &credentials).await.expect("pull");
    assert_eq!(
        (by_digest.id.as_str(), registry.requests()),
        (first.id.as_str(), 0),
        "content that is there is asked for nowhere"
    );

    registry.push("v1", &[&base, &two], |_| {});
    let second = store.pull(&name, &credentials).await.expect("pull");
    assert_eq!(registry.requests(), 4, "of the layers only the new one");
    assert_ne!(second.id, first.id);
    assert_eq!(store.status(&name).await.expect("status"), Some(second));
    let missing =
        store.pull(&registry.image("v2"), &credentials).await.expect_err("there is none").to_string();
    assert!(missing.contains("not found"), "{missing}");
    assert_eq!(fs::read_dir(dir.path().join("images/pulls")).expect("list").count(), 0);
}

#[tokio::test]
async fn many_who_wait_for_one_image_ask_once() {
    let Some((_dir, store)) = store() else { return };
    let registry = Registry::start();
    registry.push("v0", &[&layer("other", 10)], |_| {});
    registry.push("v1", &[&layer("base", 10)], |_| {});
    let (other, name, credentials) = (registry.image("v0"), registry.image("v1"), registry.credentials());
    // One has its turn until all have asked.
    registry.shut(true);
    let first = base::task::spawn({
        let (store, credentials) = (store.clone(), credentials.clone());
        async move { store.pull(&other, &credentials).await }
    });
    registry.come.acquire().await.expect("it is open").forget();
    let pulls = (0..30).map(|_| store.pull(&name, &credentials));
    let mut pulls = std::pin::pin!(futures_util::future::try_join_all(pulls));
    assert!(pulls.as_mut().now_or_never().is_none());
    registry.shut(false);
    first.await.expect("pull");
    let images = pulls.await.expect("pull");
    assert_eq!(registry.requests(), 2 * 4, "index, manifest, configuration, layer");
    assert!(images.iter().all(|image| *image == images[0]));
    // Who comes later, or as somebody else, asks for itself.
    store.pull(&name, &credentials).await.expect("pull");
    assert_eq!(registry.requests(), 1);
    let (known, unknown) =
        futures_util::future::join(store.pull(&name, &credentials), store.pull(&name, &[])).await;
    known.expect("pull");
    unknown.expect_err("nobody gave a password");
}

#[tokio::test]
async fn what_is_not_what_it_says_is_refused() {
    let Some((dir, store)) = store() else { return };
    let registry = Registry::start();
    let (good, bad) = (layer("good", 10), layer("bad", 10));
    let other = digest(&gzip(&bad));
    let claimed = other.clone();
    registry.push("digest", &[&good], move |said| *said = said.replace(&said[11..82].to_owned(), &claimed));
    registry.put(&format!("blobs/{other}"), &gzip(&good));
    registry.push("size", &[&good], |said| {
        *said = format!("{}1}}", &said[..said.rfind(':').expect("a size") + 1])
    });
    registry.push("path", &[&good], |said| *said = r#"{"digest":"sha256:../../x","size":5}"#.to_owned());
    for (tag, why) in [
        ("digest", "came with the digest"),
        ("size", "is larger than its 1 bytes"),
        ("path", "is not sha256"),
    ] {
        let refused =
            store.pull(&registry.image(tag), &registry.credentials()).await.expect_err(tag).to_string();
        assert!(refused.contains(why), "{tag}: {refused}");
    }
    let index = registry.documents.lock().expect("nobody panics")["manifests/size"].clone();
    registry.put(&format!("manifests/{other}"), &index);
    let name = format!("{}/team/app@{other}", registry.at);
    let refused = store.pull(&name, &registry.credentials()).await.expect_err("another digest").to_string();
    assert!(refused.contains("the registry's manifest has the digest"), "{refused}");
    assert_eq!(store.list().await.expect("list"), []);
    assert_eq!(fs::read_dir(dir.path().join("images/layers")).expect("list").count(), 0);
}
