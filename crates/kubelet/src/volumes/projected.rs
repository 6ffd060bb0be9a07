//! Several sources in one directory; later ones win. Upstream: pkg/volume/projected.

use apimachinery::{Ref, k};

use super::{MODE, Sources, downward_api, mode_of, project, safe_path};
use crate::doors::{FileData, Payload};
use crate::objects::ObjectKind;

/// How long a token is good for where the pod does not say, in seconds.
const EXPIRATION: i64 = 3600;

/// A service-account token that a volume needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenRequest {
    /// For whom; empty for the API server.
    pub audience: String,
    /// How long it is to be good, in seconds.
    pub expiration_seconds: i64,
}

/// A service-account token. Never logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The token itself.
    pub value: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(secret)")
    }
}

impl TokenRequest {
    fn of(source: Ref<'_>) -> TokenRequest {
        TokenRequest {
            audience: source.get(k::AUDIENCE).str().to_owned(),
            expiration_seconds: source.get(k::EXPIRATION_SECONDS).opt_i64().unwrap_or(EXPIRATION),
        }
    }
}

pub(super) fn token_requests(pod: Ref<'_>) -> Vec<TokenRequest> {
    let volumes = pod.get(k::SPEC).get(k::VOLUMES).items();
    let sources = volumes.flat_map(|v| v.get(k::PROJECTED).get(k::SOURCES).items());
    let tokens = sources.map(|s| s.get(k::SERVICE_ACCOUNT_TOKEN)).filter(|t| t.is_set());
    let mut out: Vec<TokenRequest> = tokens.map(TokenRequest::of).collect();
    out.sort();
    out.dedup();
    out
}

pub(super) fn payload(volume: Ref<'_>, sources: Sources<'_>) -> Result<Payload, String> {
    let mode = mode_of(volume.get(k::DEFAULT_MODE), MODE);
    let mut out = Payload::new();
    for source in volume.get(k::SOURCES).items() {
        let (config_map, secret) = (source.get(k::CONFIG_MAP), source.get(k::SECRET));
        let (downward, token) = (source.get(k::DOWNWARD_API), source.get(k::SERVICE_ACCOUNT_TOKEN));
        if config_map.is_set() {
            out.extend(project(
                ObjectKind::ConfigMap,
                config_map,
                config_map.get(k::NAME).str(),
                mode,
                sources,
            )?);
        } else if secret.is_set() {
            out.extend(project(ObjectKind::Secret, secret, secret.get(k::NAME).str(), mode, sources)?);
        } else if downward.is_set() {
            out.extend(downward_api::files(downward.get(k::ITEMS), mode, sources)?);
        } else if token.is_set() {
            let wanted = TokenRequest::of(token);
            let found = sources.tokens.iter().find(|(request, _)| *request == wanted);
            let (_, found) = found.ok_or("the service account's token was not fetched")?;
            let (mode, uid) = token_access(mode, sources.facts.pod);
            let file = FileData { bytes: found.value.clone().into_bytes(), mode, uid };
            out.insert(safe_path(token.get(k::PATH).str())?, file);
        }
    }
    Ok(out)
}

/// A token is for the pod's user alone where there is one: by group, or as the one user of all containers.
fn token_access(mode: u32, pod: Ref<'_>) -> (u32, Option<u32>) {
    let context = pod.get(k::SPEC).get(k::SECURITY_CONTEXT);
    if context.get(k::FS_GROUP).is_set() {
        return (0o600, None);
    }
    let spec = pod.get(k::SPEC);
    let all = spec.get(k::INIT_CONTAINERS).items().chain(spec.get(k::CONTAINERS).items());
    let mut users = all.map(|c| {
        let own = c.get(k::SECURITY_CONTEXT).get(k::RUN_AS_USER).opt_i64();
        own.or_else(|| context.get(k::RUN_AS_USER).opt_i64())
    });
    match users.next() {
        Some(Some(first)) if users.all(|u| u == Some(first)) => (0o600, u32::try_from(first).ok()),
        _ => (mode, None),
    }
}
