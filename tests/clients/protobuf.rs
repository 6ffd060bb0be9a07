//! A client in protobuf, as Go's are, of k8s-pb's types: over HTTP/1.1 and over HTTP/2. Go sends every scalar that is no
//! pointer, zeros too; so does this.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_pb::api::core::v1::{ConfigMap, ConfigMapList, Namespace};
use k8s_pb::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Status, WatchEvent};
use k8s_pb::apimachinery::pkg::runtime::{TypeMeta, Unknown};
use prost::Message;
use reqwest::{Certificate, Client, Identity, Method, Response, StatusCode, Version};

use crate::server::Server;

const MEDIA: &str = "application/vnd.kubernetes.protobuf";
/// What every message begins with.
const MAGIC: &[u8] = b"k8s\0";

struct Wire {
    client: Client,
    server: String,
    version: Version,
}

impl Wire {
    /// Reads a kubeconfig, which is YAML as the server writes it: one value a line.
    fn new(server: &Server, version: Version) -> Result<Wire> {
        let file = std::fs::read_to_string(server.kubeconfig())?;
        let value = |key: &str| {
            let found = file.lines().find_map(|l| l.trim().trim_start_matches("- ").strip_prefix(key));
            found
                .map(|v| v.trim().trim_matches('"').to_owned())
                .with_context(|| format!("no {key} in the kubeconfig"))
        };
        let decoded = |key: &str| -> Result<Vec<u8>> { Ok(base64(&value(key)?)) };
        let mut identity = decoded("client-certificate-data:")?;
        identity.extend(decoded("client-key-data:")?);
        let mut builder = Client::builder()
            .tls_certs_only([Certificate::from_pem(&decoded("certificate-authority-data:")?)?])
            .identity(Identity::from_pem(&identity)?);
        if version == Version::HTTP_11 {
            builder = builder.http1_only();
        }
        Ok(Wire { client: builder.build()?, server: value("server:")?, version })
    }

    async fn send(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Response> {
        let mut request =
            self.client.request(method, format!("{}{path}", self.server)).header("accept", MEDIA);
        if let Some(body) = body {
            request = request.header("content-type", MEDIA).body(body);
        }
        let response = request.send().await?;
        ensure!(response.version() == self.version, "{:?}", response.version());
        Ok(response)
    }

    async fn object<T: Message + Default>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        code: StatusCode,
    ) -> Result<T> {
        let response = self.send(method, path, body).await?;
        let (status, kind) = (response.status(), response.headers().get("content-type").cloned());
        let bytes = response.bytes().await?;
        ensure!(status == code, "{path}: {status}: {}", String::from_utf8_lossy(&bytes));
        ensure!(kind.is_some_and(|k| k == MEDIA), "{path}: no protobuf");
        Ok(T::decode(&*unknown(&bytes)?.raw.context("an object")?)?)
    }
}

fn base64(text: &str) -> Vec<u8> {
    let six = |c: u8| {
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".iter().position(|a| *a == c)
    };
    let bits: Vec<usize> = text.bytes().filter_map(six).collect();
    let group = |g: &[usize]| {
        let all = g.iter().fold(0, |sum, six| sum << 6 | six) << (6 * (4 - g.len()));
        [all >> 16, all >> 8, all].into_iter().take(g.len() - 1).map(|b| b as u8).collect::<Vec<_>>()
    };
    bits.chunks(4).flat_map(group).collect()
}

fn unknown(bytes: &[u8]) -> Result<Unknown> {
    Ok(Unknown::decode(bytes.strip_prefix(MAGIC).context("the magic bytes")?)?)
}

fn envelope(kind: &str, object: &impl Message) -> Vec<u8> {
    let type_meta = Some(TypeMeta { api_version: Some("v1".into()), kind: Some(kind.into()) });
    let wrapped = Unknown {
        type_meta,
        raw: Some(object.encode_to_vec()),
        content_encoding: Some(String::new()),
        content_type: Some(String::new()),
    };
    [MAGIC, &wrapped.encode_to_vec()].concat()
}

fn meta(name: &str) -> ObjectMeta {
    let empty = || Some(String::new());
    ObjectMeta {
        name: Some(name.into()),
        generate_name: empty(),
        namespace: empty(),
        self_link: empty(),
        uid: empty(),
        resource_version: empty(),
        generation: Some(0),
        ..ObjectMeta::default()
    }
}

fn config_map(value: &str) -> ConfigMap {
    let data = BTreeMap::from([("n".to_owned(), value.to_owned())]);
    ConfigMap { metadata: Some(meta("a")), data, ..ConfigMap::default() }
}

#[tokio::test]
async fn protobuf_over_http_1() -> Result<()> {
    lists_watches_and_writes(Version::HTTP_11).await
}

#[tokio::test]
async fn protobuf_over_http_2() -> Result<()> {
    lists_watches_and_writes(Version::HTTP_2).await
}

async fn lists_watches_and_writes(version: Version) -> Result<()> {
    let server = Server::start()?;
    let wire = Wire::new(&server, version)?;
    let namespace = Namespace { metadata: Some(meta("pb")), ..Namespace::default() };
    let made: Namespace = wire
        .object(
            Method::POST,
            "/api/v1/namespaces",
            Some(envelope("Namespace", &namespace)),
            StatusCode::CREATED,
        )
        .await?;
    ensure!(
        made.status.is_some_and(|s| s.phase.as_deref() == Some("Active")),
        "a namespace is active at once"
    );

    let at = "/api/v1/namespaces/pb/configmaps";
    let list: ConfigMapList = wire.object(Method::GET, at, None, StatusCode::OK).await?;
    let begin = list.metadata.and_then(|m| m.resource_version).context("a revision")?;
    let one = format!("{at}/a");
    let made: ConfigMap = wire
        .object(Method::POST, at, Some(envelope("ConfigMap", &config_map("1"))), StatusCode::CREATED)
        .await?;
    let mut next = config_map("2");
    next.metadata = made.metadata;
    let body = envelope("ConfigMap", &next);
    let changed: ConfigMap = wire.object(Method::PUT, &one, Some(body.clone()), StatusCode::OK).await?;
    ensure!(changed.data == next.data, "{changed:?}");
    let stale: Status = wire.object(Method::PUT, &one, Some(body), StatusCode::CONFLICT).await?;
    ensure!(stale.reason.as_deref() == Some("Conflict"), "{stale:?}");
    let list: ConfigMapList = wire.object(Method::GET, at, None, StatusCode::OK).await?;
    ensure!(list.items.iter().filter(|c| c.data == next.data).count() == 1, "{list:?}");
    let gone: Status = wire.object(Method::DELETE, &one, None, StatusCode::OK).await?;
    ensure!(gone.status.as_deref() == Some("Success"), "{gone:?}");

    let path = format!("{at}?watch=true&resourceVersion={begin}&fieldSelector=metadata.name%3Da");
    let mut stream = Frames { response: wire.send(Method::GET, &path, None).await?, rest: Vec::new() };
    let expected = [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")];
    for (kind, value) in expected {
        let event = WatchEvent::decode(&*stream.next().await?)?;
        ensure!(event.r#type.as_deref() == Some(kind), "{event:?}");
        let object = unknown(&event.object.and_then(|o| o.raw).context("an object")?)?;
        let object = ConfigMap::decode(&*object.raw.context("its bytes")?)?;
        ensure!(object.data["n"] == value, "{object:?}");
    }
    Ok(())
}

/// Frames of a watch: each its length in four bytes, the highest first, and so many bytes.
struct Frames {
    response: Response,
    rest: Vec<u8>,
}

impl Frames {
    async fn next(&mut self) -> Result<Vec<u8>> {
        loop {
            let length = self.rest.first_chunk::<4>().map(|length| u32::from_be_bytes(*length) as usize);
            if let Some(length) = length.filter(|length| self.rest.len() >= 4 + length) {
                let frame = self.rest.drain(..4 + length).skip(4).collect();
                return Ok(frame);
            }
            let piece = tokio::time::timeout(Duration::from_secs(60), self.response.chunk()).await;
            self.rest.extend(piece.context("an event in time")??.context("the watch goes on")?);
        }
    }
}
