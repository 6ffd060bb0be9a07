//! The paths that are no resources, one ordered list.

use std::sync::Arc;

use apimachinery::call::{BoxFuture, Raw, RawBody};
use apimachinery::{Call, Doc, Reply, Status};

use crate::tokens::Tokens;
use crate::tunnel::{self, Tunnels};
use crate::{Api, PathHandler, discovery, metrics, openapi, version};

/// All of them. `external_url` is where clients outside reach this server, for token issuer discovery.
pub fn handlers(tokens: Arc<Tokens>, tunnels: Tunnels, external_url: String) -> Vec<Box<dyn PathHandler>> {
    vec![
        Box::new(Health),
        Box::new(Version),
        Box::new(metrics::Path),
        Box::new(discovery::Discovery),
        Box::new(openapi::OpenApi::default()),
        Box::new(Issuer { tokens, external_url }),
        Box::new(Tunnel { tunnels }),
        Box::new(Root),
    ]
}

fn text(code: u16, text: &str) -> Reply {
    let body = RawBody::Bytes(text.to_owned().into());
    let headers = vec![("x-content-type-options".to_owned(), "nosniff".to_owned())];
    Reply::Raw(Raw { code, content_type: "text/plain; charset=utf-8".into(), headers, body })
}

/// 405 in place of an answer to anything but GET, as upstream's routes have it. What stands in its mux takes any method.
pub(crate) fn gets(call: &Call, reply: Reply) -> Reply {
    if matches!(call.wire.method.as_str(), "" | "GET") {
        reply
    } else {
        Reply::Status(Status::method_not_allowed())
    }
}

fn json(doc: Doc) -> Reply {
    Reply::Doc { code: 200, doc: Box::new(doc), warnings: Vec::new() }
}

/// `/healthz`, `/livez`, `/readyz`: whether the store answers and the cache follows it.
struct Health;

impl PathHandler for Health {
    fn serves(&self, path: &str) -> bool {
        let first = path.trim_start_matches('/').split('/').next();
        matches!(first, Some("healthz" | "livez" | "readyz"))
    }

    fn answer<'a>(&'a self, api: &'a Arc<Api>, path: &'a str, call: &'a Call) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            let mut parts = path.trim_matches('/').split('/');
            let (endpoint, one) = (parts.next().unwrap_or_default(), parts.next());
            let storage = api.cacher.catch_up().await;
            let checks = [("ping", true), ("etcd", storage.is_ok()), ("informer-sync", storage.is_ok())];
            let chosen: Vec<_> = checks.iter().filter(|(name, _)| one.is_none_or(|o| o == *name)).collect();
            if chosen.is_empty() {
                return Reply::Status(Status::unknown_path());
            }
            let mut left_out: Vec<&str> = values(call, "exclude").collect();
            let left_out_here = |name: &str| values(call, "exclude").any(|other| other == name);
            left_out.retain(|name| !chosen.iter().any(|(check, _)| check == name));
            let good = chosen.iter().all(|(name, ok)| *ok || left_out_here(name));
            let verbose = call.options.query.iter().any(|(name, _)| name == "verbose");
            if good && !verbose {
                return text(200, "ok");
            }
            let mut out = String::new();
            for (name, ok) in chosen {
                out.push_str(&match ok {
                    _ if left_out_here(name) => format!("[+]{name} excluded: ok\n"),
                    true => format!("[+]{name} ok\n"),
                    false => format!("[-]{name} failed: reason withheld\n"),
                });
            }
            if !left_out.is_empty() {
                let names: Vec<String> = left_out.iter().map(|name| format!("{name:?}")).collect();
                let names = names.join(",");
                out.push_str(&format!(
                    "warn: some health checks cannot be excluded: no matches for {names}\n"
                ));
            }
            out.push_str(&format!("{endpoint} check {}\n", if good { "passed" } else { "failed" }));
            text(if good { 200 } else { 500 }, &out)
        })
    }
}

fn values<'c>(call: &'c Call, name: &'c str) -> impl Iterator<Item = &'c str> {
    call.options.query.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
}

/// `/version`.
struct Version;

impl PathHandler for Version {
    fn serves(&self, path: &str) -> bool {
        path.trim_end_matches('/') == "/version"
    }

    fn answer<'a>(&'a self, _: &'a Arc<Api>, _: &'a str, call: &'a Call) -> BoxFuture<'a, Reply> {
        Box::pin(async { gets(call, json(version::info())) })
    }
}

/// How others verify service-account tokens. Source: OpenID Connect Discovery 1.0.
struct Issuer {
    tokens: Arc<Tokens>,
    external_url: String,
}

impl PathHandler for Issuer {
    fn serves(&self, path: &str) -> bool {
        matches!(path.trim_end_matches('/'), "/.well-known/openid-configuration" | "/openid/v1/jwks")
    }

    fn answer<'a>(&'a self, _: &'a Arc<Api>, path: &'a str, call: &'a Call) -> BoxFuture<'a, Reply> {
        let (doc, content_type) = if path.contains("jwks") {
            (self.tokens.key_set(), "application/jwk-set+json")
        } else {
            (self.tokens.discovery(&format!("{}/openid/v1/jwks", self.external_url)), "application/json")
        };
        let headers = vec![("cache-control".to_owned(), "public, max-age=3600".to_owned())];
        let body = RawBody::Bytes(doc.to_json().into());
        let raw = Raw { code: 200, content_type: content_type.into(), headers, body };
        Box::pin(async { gets(call, Reply::Raw(raw)) })
    }
}

/// `/keelson/v1/nodes/<name>/tunnel`: who may open it, the Node authorizer has said.
struct Tunnel {
    tunnels: Tunnels,
}

fn tunnel_node(path: &str) -> Option<&str> {
    path.strip_prefix("/keelson/v1/nodes/")?
        .strip_suffix("/tunnel")
        .filter(|name| !name.is_empty() && !name.contains('/'))
}

impl PathHandler for Tunnel {
    fn serves(&self, path: &str) -> bool {
        tunnel_node(path).is_some()
    }

    fn answer<'a>(&'a self, _: &'a Arc<Api>, path: &'a str, call: &'a Call) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            let asked = call.wire.upgrade.as_ref().is_some_and(|u| u.protocol() == tunnel::PROTOCOL);
            match tunnel_node(path) {
                Some(node) if asked => Reply::Upgrade(self.tunnels.accept(node)),
                _ => Reply::Status(Status::bad_request(format!(
                    "this path is for kubelets: it needs Upgrade: {}",
                    tunnel::PROTOCOL
                ))),
            }
        })
    }
}

/// `/`: the paths there are.
struct Root;

impl PathHandler for Root {
    fn serves(&self, path: &str) -> bool {
        matches!(path, "/" | "/index.html")
    }

    fn answer<'a>(&'a self, api: &'a Arc<Api>, _: &'a str, _: &'a Call) -> BoxFuture<'a, Reply> {
        Box::pin(async move {
            let mut paths: Vec<String> = vec![
                "/.well-known/openid-configuration".into(),
                "/api".into(),
                "/api/v1".into(),
                "/apis".into(),
            ];
            for (group, versions) in
                discovery::groups(&api.kinds.table()).into_iter().filter(|(g, _)| !g.is_empty())
            {
                paths.push(format!("/apis/{group}"));
                paths.extend(versions.iter().map(|v| format!("/apis/{group}/{v}")));
            }
            for fixed in [
                "/healthz",
                "/livez",
                "/metrics",
                "/openapi/v2",
                "/openapi/v3",
                "/openid/v1/jwks",
                "/readyz",
                "/version",
            ] {
                paths.push(fixed.into());
            }
            paths.sort_unstable();
            let mut out = Doc::object();
            out.edit().set("paths", paths);
            json(out)
        })
    }
}
