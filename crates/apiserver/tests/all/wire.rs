//! Requests that make no sense, byte by byte through the listener: every one is answered with a `Status`, nothing is
//! stored, and the server goes on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::call::{BoxFuture, Reply};
use apimachinery::codec::{json, protobuf};
use apimachinery::{Call, Doc, doc, k};
use apiserver::authorization::{Attributes, Authorizer, Decision};
use apiserver::server::{self, BODY_BYTES_MAX, Handler, TlsFiles, server_config};
use apiserver::{Api, connect, handle, paths, tunnel};
use base::io::{AsyncReadExt, AsyncWriteExt};
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::security::tokens;
use harness::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const JSON: &str = "application/json";
const PATCHES: [&str; 3] =
    ["application/merge-patch+json", "application/json-patch+json", "application/strategic-merge-patch+json"];

struct Anything;

impl Authorizer for Anything {
    fn authorize(&self, _: &Attributes<'_>) -> Decision {
        Decision::Allow(String::new())
    }
}

struct Serve(Arc<Api>);

impl Handler for Serve {
    fn handle(&self, call: Box<Call>) -> BoxFuture<'_, Reply> {
        Box::pin(handle(&self.0, call))
    }
}

struct Wire {
    address: SocketAddr,
    tls: TlsConnector,
}

impl Wire {
    /// A server that allows everything to everybody, and the way to it.
    async fn start() -> (Wire, Server) {
        let Server { api, disk } = Server::start().await;
        let (store, cacher) = (api.store.clone(), api.cacher.clone());
        let rest = Arc::into_inner(api).expect("nobody else has it");
        let paths = paths::handlers(tokens(), tunnel::Tunnels::default(), String::new());
        let tunnels = tunnel::Tunnels::default();
        let connect: Vec<Box<dyn apiserver::Connect>> = vec![
            Box::new(connect::log::Log { tunnels: tunnels.clone() }),
            Box::new(connect::stream::Stream { tunnels }),
        ];
        let api =
            Arc::new(Api { store, cacher, authorization: vec![Box::new(Anything)], paths, connect, ..rest });
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let files = TlsFiles { certificate: dir.path().join("crt"), key: dir.path().join("key") };
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (end, drain) = tokio::sync::watch::channel(false);
        let serve = Arc::new(Serve(api.clone()));
        let server = server::Server::new(listener, server_config(&files).unwrap(), serve, drain);
        base::task::spawn(async move {
            let _kept = end;
            server.run(Duration::from_secs(1)).await.unwrap();
        })
        .detach();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        (Wire { address, tls: TlsConnector::from(Arc::new(config)) }, Server { api, disk })
    }

    /// Code and body of the answer to a request in HTTP/1.1; `head` is its first line and headers.
    async fn ask(&self, head: &str, body: &[u8]) -> (u16, String) {
        let tcp = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = self.tls.connect(name, tcp).await.unwrap();
        let head = format!("{head}\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        // The server may have answered and closed before it has read all.
        if stream.write_all(head.as_bytes()).await.is_ok() {
            drop(stream.write_all(body).await);
        }
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, body.to_owned())
    }

    async fn send(&self, method: &str, path: &str, media: &str, body: &[u8]) -> (u16, Doc) {
        let length = body.len();
        let media = if media.is_empty() { String::new() } else { format!("content-type: {media}\r\n") };
        let head = format!("{method} {path} HTTP/1.1\r\n{media}content-length: {length}");
        let (code, text) = self.ask(&head, body).await;
        let doc =
            json::parse(text.clone().into_bytes()).unwrap_or_else(|e| panic!("{method} {path}: {e}: {text}"));
        (code, doc.doc)
    }
}

fn check(what: &str, code: u16, status: &Doc, expected: (u16, &str, &str)) {
    let (reason, message) = (status.get(k::REASON).str(), status.get(k::MESSAGE).str());
    assert_eq!((code, reason), (expected.0, expected.1), "{what}: {message}");
    assert_eq!(status.get(k::KIND).str(), "Status", "{what}");
    assert_eq!(status.get(k::CODE).i64(), i64::from(code), "{what}");
    assert!(message.contains(expected.2), "{what}: {message}");
}

#[test]
fn what_makes_no_sense_is_refused_and_nothing_is_stored() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (wire, server) = Wire::start().await;
        bodies(&wire).await;
        addresses(&wire).await;
        methods(&wire).await;
        options(&wire).await;
        forms(&wire).await;
        let maps = server.get(MAPS).await.ok();
        assert_eq!(maps.get(k::ITEMS).len(), 1, "{maps:?}");
        assert!(maps.get(k::ITEMS).item(0).get(k::DATA).is_empty(), "{maps:?}");
        assert_eq!(wire.ask("GET /readyz HTTP/1.1", b"").await, (200, "ok".to_owned()));
    });
}

async fn bodies(wire: &Wire) {
    let bad = (400, "BadRequest");
    let deep = "[".repeat(100_000);
    let deep_map = format!("{{\"data\":{}", "{\"a\":".repeat(20_000));
    let deep_yaml = "- ".repeat(20_000);
    let enveloped = [&b"k8s\0"[..], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2, 3]].concat();
    let yaml = "application/yaml";
    let cases: Vec<(&str, &str, &[u8], &str)> = vec![
        ("nothing", JSON, b"", "json parse error: unexpected end of JSON input (<empty>)"),
        ("half an object", "Application/JSON", b"{\"kind\":", " ({\"kind\":)"),
        ("no JSON", JSON, b"hello, hello, hello, hello, hello", "c6f2c206865 ...)"),
        ("not UTF-8", JSON, b"{\"data\":{\"a\":\"\xff\"}}", ""),
        ("a list", JSON, b"[]", ""),
        ("a number", JSON, b"5", ""),
        ("two objects", JSON, b"{}{}", ""),
        ("a number for a map", JSON, b"{\"data\":5}", "cannot be handled as a ConfigMap"),
        ("a list for an object", JSON, b"{\"metadata\":[]}", "cannot be handled as a ConfigMap"),
        ("a map for a string", JSON, b"{\"data\":{\"a\":{}}}", "cannot be handled as a ConfigMap"),
        ("no base64", JSON, b"{\"binaryData\":{\"a\":\"*\"}}", "cannot be handled as a ConfigMap"),
        (
            "another kind",
            JSON,
            b"{\"kind\":\"Secret\",\"apiVersion\":\"v1\"}",
            "cannot be handled as a ConfigMap",
        ),
        ("no kind at all", JSON, b"{\"kind\":5}", "json parse error"),
        ("a deep list", JSON, deep.as_bytes(), ""),
        ("a deep object", JSON, deep_map.as_bytes(), ""),
        ("no YAML", yaml, b"a: [", ""),
        ("tabs in YAML", yaml, b"a:\n\t- b", ""),
        ("a deep YAML list", yaml, deep_yaml.as_bytes(), ""),
        ("no protobuf", protobuf::MEDIA_TYPE, b"hello", "must be of type ConfigMap"),
        ("half a protobuf", protobuf::MEDIA_TYPE, &enveloped, "must be of type ConfigMap"),
    ];
    for (what, media, body, message) in cases {
        let (code, status) = wire.send("POST", MAPS, media, body).await;
        check(what, code, &status, (bad.0, bad.1, message));
    }
    let (code, made) = wire.send("POST", MAPS, JSON, b"{\"metadata\":{\"name\":\"a\"}}").await;
    assert_eq!(code, 201, "{made:?}");
    let one = format!("{MAPS}/a");
    for media in PATCHES {
        for body in [&b""[..], b"{", b"5", deep.as_bytes(), b"\"\""] {
            let (code, status) = wire.send("PATCH", &one, media, body).await;
            check(media, code, &status, (400, "BadRequest", ""));
        }
    }
    let (code, status) =
        wire.send("PATCH", &one, PATCHES[1], b"[{\"op\":\"test\",\"path\":\"/data\",\"value\":1}]").await;
    check(
        "a test that fails",
        code,
        &status,
        (422, "Invalid", "the server rejected our request due to an error in our request"),
    );
    let apply = format!("{one}?fieldManager=me&force=true");
    let (code, status) = wire.send("PATCH", &apply, "application/apply-patch+yaml", b"{}").await;
    check(
        "server-side apply",
        code,
        &status,
        (415, "UnsupportedMediaType", "server-side apply is not supported"),
    );
    let (code, status) = wire.send("PATCH", &one, PATCHES[0], b"{\"data\":5}").await;
    check(
        "a patch to what does not fit",
        code,
        &status,
        (422, "Invalid", "json: cannot unmarshal number into Go"),
    );
    let strict = format!("{one}?fieldValidation=Strict");
    for (media, patch, why) in [
        (PATCHES[0], "{\"datum\":1}", "strict decoding error: unknown field \"datum\""),
        (PATCHES[2], "{\"datum\":1}", "strict decoding error: unknown field \"datum\""),
        (
            PATCHES[1],
            "[{\"op\":\"add\",\"path\":\"/data\",\"value\":{},\"why\":1,\"op\":\"add\"}]",
            "strict decoding error: json patch duplicate field \"[0].op\", json patch unknown field \"[0].why\"",
        ),
    ] {
        let (code, status) = wire.send("PATCH", &strict, media, patch.as_bytes()).await;
        check(media, code, &status, (422, "Invalid", why));
    }
    let (code, status) = wire.send("DELETE", &one, JSON, b"{\"gracePeriodSeconds\":\"soon\"}").await;
    check("no DeleteOptions", code, &status, (400, "BadRequest", ""));
    for (version, expected) in [("v2", 400), ("meta.k8s.io/v1", 200), ("apps/v1", 200)] {
        let options =
            format!("{{\"kind\":\"DeleteOptions\",\"apiVersion\":\"{version}\",\"dryRun\":[\"All\"]}}");
        let (code, said) = wire.send("DELETE", &one, JSON, options.as_bytes()).await;
        assert_eq!(code, expected, "{version}: {said:?}");
    }
    let long = vec![b' '; BODY_BYTES_MAX + 1];
    let (code, status) = wire.send("POST", MAPS, JSON, &long).await;
    check(
        "too long",
        code,
        &status,
        (413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728"),
    );
    let chunked = [format!("{:x}\r\n", long.len()).as_bytes(), &long, b"\r\n0\r\n\r\n"].concat();
    let head = format!("POST {MAPS} HTTP/1.1\r\ncontent-type: {JSON}\r\ntransfer-encoding: chunked");
    assert_eq!(wire.ask(&head, &chunked).await.0, 413);
}

async fn addresses(wire: &Wire) {
    let body = b"{\"metadata\":{\"name\":\"b\"}}";
    let unknown = (404, "NotFound", "the server could not find the requested resource");
    for (method, path) in [
        ("GET", "/nope"),
        ("GET", "/api/v2"),
        ("GET", "/api/v1/nothing"),
        ("POST", "/apis/none/v1/nothing"),
        ("GET", "/apis/apps/v9/deployments"),
        ("GET", "/api/v1/namespaces/default/nodes"),
        ("POST", "/api/v1/namespaces/default/nodes"),
        ("GET", "/api/v1/namespaces/default/configmaps/a/status"),
        ("GET", "/api/v1/configmaps/a"),
        ("GET", "/api/v1//configmaps"),
        ("GET", "/api/v1/namespaces/default/pods/a/status/more"),
        ("PUT", "/api/v1/namespaces/default/configmaps/a/scale"),
    ] {
        let (code, status) = wire.send(method, path, JSON, body).await;
        check(&format!("{method} {path}"), code, &status, unknown);
    }
    for path in [
        format!("{MAPS}/b"),
        format!("{PODS}/b/exec"),
        format!("{MAPS}/%zz"),
        format!("{MAPS}/a%2Fb"),
        format!("{MAPS}/%ff"),
    ] {
        let (code, status) = wire.send("GET", &path, "", b"").await;
        check(&path, code, &status, (404, "NotFound", "not found"));
    }
    let refused =
        (405, "MethodNotAllowed", "the server does not allow this method on the requested resource");
    for (method, path) in [
        ("POST", format!("{MAPS}/b")),
        ("PUT", MAPS.to_owned()),
        ("PATCH", MAPS.to_owned()),
        ("POST", "/api/v1/configmaps".to_owned()),
        ("DELETE", "/api/v1/namespaces".to_owned()),
        ("DELETE", format!("{PODS}/a/status")),
        ("GET", format!("{PODS}/a/binding")),
        ("TRACE", MAPS.to_owned()),
        ("PUT", format!("{PODS}/a/log")),
        ("POST", "/version".to_owned()),
        ("OPTIONS", "/api".to_owned()),
        ("PUT", "/api/v1".to_owned()),
        ("DELETE", "/apis/apps/v1".to_owned()),
        ("POST", "/openid/v1/jwks".to_owned()),
        ("BREW", format!("{MAPS}/a")),
    ] {
        let (code, status) = wire.send(method, &path, JSON, body).await;
        check(&format!("{method} {path}"), code, &status, refused);
    }
}

/// What upstream's mux serves, and not its routes, takes any method.
async fn methods(wire: &Wire) {
    for path in ["/", "/apis", "/apis/apps", "/openapi/v2", "/openapi/v3", "/healthz", "/metrics"] {
        for method in ["POST", "DELETE", "OPTIONS"] {
            let (code, body) =
                wire.ask(&format!("{method} {path} HTTP/1.1\r\ncontent-length: 2"), b"{}").await;
            assert_eq!(code, 200, "{method} {path}: {body}");
        }
    }
    for (path, code) in [("/version", 405), ("/healthz", 200), (MAPS, 405), (&format!("{PODS}/a/log"), 405)] {
        assert_eq!(wire.ask(&format!("HEAD {path} HTTP/1.1"), b"").await, (code, String::new()), "{path}");
    }
}

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn options(wire: &Wire) {
    let invalid = (422, "Invalid");
    let bad = (400, "BadRequest");
    for (method, query, (code, reason), message) in [
        ("GET", "limit=x", bad, "strconv.ParseInt: parsing \"x\": invalid syntax"),
        ("GET", "limit=", bad, "strconv.ParseInt: parsing \"\": invalid syntax"),
        (
            "POST",
            "timeout=abc",
            bad,
            "invalid timeout specified in the request URL - time: invalid duration \"abc\"",
        ),
        ("GET", "timeout=5", bad, "time: missing unit in duration \"5\""),
        ("DELETE", "timeout=5x", bad, "time: unknown unit \"x\" in duration \"5x\""),
        ("POST", "dryRun=", invalid, "dryRun: Unsupported value: [\"\"]: supported values: \"All\""),
        ("GET", "timeoutSeconds=99999999999999999999&watch", bad, "value out of range"),
        ("GET", "resourceVersion=x", bad, "Invalid value: \"x\""),
        ("GET", "resourceVersion=x&watch=1", bad, "Invalid value: \"x\""),
        (
            "GET",
            "fieldSelector=no.such%3Dfield",
            bad,
            "\"no.such\" is not a known field selector: only \"metadata.name\"",
        ),
        ("GET", "fieldSelector=nonsense", bad, "invalid selector"),
        ("GET", "labelSelector=a+in+(", bad, "unable to parse requirement"),
        ("GET", "labelSelector=-", bad, "unable to parse requirement"),
        ("GET", "continue=*", bad, "invalid continue token"),
        (
            "GET",
            "resourceVersionMatch=Exact",
            invalid,
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden",
        ),
        (
            "POST",
            "dryRun=Some",
            invalid,
            "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"Some\"]: supported values: \"All\"",
        ),
        (
            "POST",
            "fieldValidation=Maybe",
            invalid,
            "fieldValidation: Unsupported value: \"Maybe\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
        ),
        ("DELETE", "gracePeriodSeconds=soon", bad, "strconv.ParseInt: parsing \"soon\": invalid syntax"),
        ("DELETE", "propagationPolicy=Never", invalid, "propagationPolicy: Unsupported value: \"Never\""),
        (
            "DELETE",
            "propagationPolicy=Orphan&orphanDependents=true",
            invalid,
            "orphanDependents and deletionPropagation cannot be both set",
        ),
    ] {
        let (code_is, status) = wire.send(method, &format!("{MAPS}?{query}"), JSON, b"").await;
        check(query, code_is, &status, (code, reason, message));
    }
    for (query, (code, reason), message) in [
        (
            "sinceTime=x",
            bad,
            "parsing time \"x\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"x\" as \"2006\"",
        ),
        ("tailLines=x", bad, "strconv.ParseInt: parsing \"x\": invalid syntax"),
        ("tailLines=-1", invalid, "PodLogOptions \"a\" is invalid: tailLines: Invalid value: -1"),
        ("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z", invalid, "at most one of `sinceTime` or"),
    ] {
        let (code_is, status) = wire.send("GET", &format!("{PODS}/a/log?{query}"), "", b"").await;
        check(query, code_is, &status, (code, reason, message));
    }
}

async fn forms(wire: &Wire) {
    let (code, status) = wire.send("POST", &format!("{PODS}/a/portforward?ports=1,x"), "", b"").await;
    let why = "cannot convert to []int32: strconv.ParseUint: parsing \"x\": invalid syntax";
    check("ports", code, &status, (400, "BadRequest", why));
    for (path, accept, starts) in [
        ("/api", "application/yaml", "kind: APIVersions\n"),
        ("/api", protobuf::MEDIA_TYPE, "k8s\0"),
        ("/apis", "application/yaml", "apiVersion: v1\ngroups:\n- name: "),
        ("/apis/apps", "text/plain, application/yaml;q=0.5", "apiVersion: v1\nkind: APIGroup\n"),
        ("/apis/apps/v1", "application/yaml", "apiVersion: v1\ngroupVersion: apps/v1\n"),
        (
            "/apis",
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            "{\"kind\":\"APIGroupDiscoveryList\"",
        ),
        ("/apis/apps/v1", protobuf::MEDIA_TYPE, "k8s\0"),
        ("/apis/apps/v1", JSON, "{\"kind\":\"APIResourceList\""),
        ("/version", "application/yaml", "{\"major\":\"1\""),
    ] {
        let (code, body) = wire.ask(&format!("GET {path} HTTP/1.1\r\naccept: {accept}"), b"").await;
        assert!(code == 200 && body.starts_with(starts), "{path} {accept}: {code} {body}");
    }
    let (code, body) = wire.ask("GET /apis HTTP/1.1\r\naccept: text/plain", b"").await;
    assert!(code == 406 && body.contains("NotAcceptable"), "{body}");
    for (pretty, shown) in [("true", "{\n"), ("T", "{\n"), ("yes", "{\""), ("0", "{\""), ("", "{\"")] {
        let (_, body) = wire.ask(&format!("GET /version?pretty={pretty} HTTP/1.1"), b"").await;
        assert!(body.starts_with(shown), "{pretty}: {body}");
    }
    let object = doc!({ "metadata": { "name": "b" } }).to_json();
    for (method, media, accepted) in [
        ("POST", "text/plain", "application/json, application/yaml, application/vnd.kubernetes.protobuf"),
        ("POST", "application/x-www-form-urlencoded", "application/json"),
        ("PATCH", "application/json", "application/json-patch+json, application/merge-patch+json"),
        ("PATCH", "", "application/strategic-merge-patch+json"),
    ] {
        let path = if method == "PATCH" { format!("{MAPS}/a") } else { MAPS.to_owned() };
        let (code, status) = wire.send(method, &path, media, &object).await;
        check(media, code, &status, (415, "UnsupportedMediaType", accepted));
    }
    let (code, body) = wire.ask(&format!("GET {MAPS} HTTP/1.1\r\naccept: image/png, text/html"), b"").await;
    let status = json::parse(body.into_bytes()).unwrap().doc;
    check(
        "accept",
        code,
        &status,
        (406, "NotAcceptable", "only the following media types are accepted: application/json"),
    );
    let (code, body) = wire.ask(&format!("GET {MAPS} HTTP/1.1\r\naccept: application/yaml"), b"").await;
    assert_eq!(code, 200, "{body}");
    assert!(
        body.starts_with("apiVersion: v1\nitems:\n- metadata:\n") && body.contains("\nkind: ConfigMapList\n"),
        "{body}"
    );
    let table = format!(
        "GET {MAPS}?includeObject=All HTTP/1.1\r\naccept: application/json;as=Table;v=v1;g=meta.k8s.io"
    );
    let (code, body) = wire.ask(&table, b"").await;
    assert!(code == 400 && body.contains("Unable to convert to Table as requested: includeObject"), "{body}");
    let watch = format!("GET {MAPS}?watch=true HTTP/1.1\r\naccept: application/yaml");
    let (code, body) = wire.ask(&watch, b"").await;
    assert!(code == 406 && body.contains("are accepted: application/json;stream=watch"), "{body}");
}
