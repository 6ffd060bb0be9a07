//! Who pulls: user names and passwords as Docker's files and image pull secrets hold them.
//!
//! Upstream: pkg/credentialprovider (keyring.go, config.go).

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use serde::Deserialize;

use crate::image::reference::Reference;

/// A user name and password for a registry, or for a part of one.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// `host[:port][/path]`; labels of the host may be `*`.
    place: String,
    user: String,
    password: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential for {}", self.place)
    }
}

#[derive(Deserialize)]
struct File {
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
}

impl Credential {
    /// Reads `~/.docker/config.json` and secrets of type `kubernetes.io/dockerconfigjson`. Entries without a password
    /// are left out.
    ///
    /// # Errors
    /// What is wrong with the JSON.
    pub fn from_docker_config(json: &[u8]) -> Result<Vec<Credential>, String> {
        serde_json::from_slice(json).map(|file: File| all(file.auths)).map_err(|e| e.to_string())
    }

    /// Reads secrets of the older type `kubernetes.io/dockercfg`.
    ///
    /// # Errors
    /// What is wrong with the JSON.
    pub fn from_dockercfg(json: &[u8]) -> Result<Vec<Credential>, String> {
        serde_json::from_slice(json).map(all).map_err(|e| e.to_string())
    }

    /// Those of this machine: `config.json` in `$DOCKER_CONFIG`, `~/.docker` and `/var/lib/kubelet`. Files that are not
    /// there say nothing, files that cannot be read are logged.
    pub fn of_this_machine() -> Vec<Credential> {
        let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
        let given = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
        let places = given.into_iter().chain([home.join(".docker"), PathBuf::from("/var/lib/kubelet")]);
        let mut out = Vec::new();
        for path in places.map(|dir| dir.join("config.json")) {
            match std::fs::read(&path) {
                Ok(text) => match Self::from_docker_config(&text) {
                    Ok(found) => out.extend(found),
                    Err(error) => tracing::warn!(path = %path.display(), %error, "credentials are not read"),
                },
                Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(path = %path.display(), %error, "credentials are not read"),
            }
        }
        out
    }

    /// The value of an `Authorization` header.
    pub(super) fn basic(&self) -> String {
        let text = format!("{}:{}", self.user, self.password);
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
    }

    /// Whether it is meant for this image.
    pub(super) fn fits(&self, image: &Reference) -> bool {
        let (host, path) = image.name.split_once('/').unwrap_or((&image.name, ""));
        let (place_host, place_path) = self.place.split_once('/').unwrap_or((&self.place, ""));
        let host_fits = match host {
            "docker.io" => matches!(place_host, "docker.io" | "index.docker.io" | "registry-1.docker.io"),
            _ => host_fits(place_host, host),
        };
        host_fits
            && path
                .strip_prefix(place_path)
                .is_some_and(|rest| place_path.is_empty() || rest.is_empty() || rest.starts_with('/'))
    }
}

fn host_fits(pattern: &str, host: &str) -> bool {
    let (mut wanted, mut got) = (pattern.split('.'), host.split('.'));
    loop {
        match (wanted.next(), got.next()) {
            (None, None) => return true,
            (Some(p), Some(label)) if p == label || (p == "*" && !label.contains(':')) => {}
            _ => return false,
        }
    }
}

fn all(entries: BTreeMap<String, Entry>) -> Vec<Credential> {
    entries.into_iter().filter_map(|(place, entry)| credential(&place, entry)).collect()
}

fn credential(place: &str, entry: Entry) -> Option<Credential> {
    let decoded = base64::engine::general_purpose::STANDARD.decode(entry.auth.trim_end_matches('\0')).ok();
    let pair = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    let (user, password) = match pair.as_deref().and_then(|text| text.split_once(':')) {
        Some((user, password)) => (user.to_owned(), password.to_owned()),
        None => (entry.username, entry.password),
    };
    let place = place.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let place = place.strip_suffix("/v1").or(place.strip_suffix("/v2")).unwrap_or(place);
    (!user.is_empty()).then(|| Credential { place: place.to_owned(), user, password })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_and_matched() {
        // "u:p" in base64.
        let json = br#"{ "auths": { "https://index.docker.io/v1/": { "auth": "dTpw" }, "*.example.org": { "username": "a", "password": "b" },
            "reg:5000/team": { "auth": "dTpw" }, "empty": {} }, "credsStore": "x" }"#;
        let found = Credential::from_docker_config(json).expect("it is JSON");
        let for_image = |name: &str| {
            let image = Reference::parse(name).expect("a name");
            found.iter().filter(|c| c.fits(&image)).map(|c| c.place.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(for_image("busybox"), ["index.docker.io"]);
        assert_eq!(for_image("a.example.org/x"), ["*.example.org"]);
        assert_eq!(for_image("a.b.example.org/x"), [""; 0]);
        assert_eq!(for_image("reg:5000/team/x:1"), ["reg:5000/team"]);
        assert_eq!(for_image("reg:5000/teams/x"), [""; 0]);
        assert_eq!(found[0].basic(), "Basic YTpi");
        assert_eq!(format!("{:?}", found[0]), "Credential for *.example.org");
        assert!(Credential::from_dockercfg(br#"{ "reg": { "auth": "dTpw" } }"#).is_ok_and(|c| c.len() == 1));
        assert!(Credential::from_docker_config(b"{").is_err());
    }
}
