//! Kubeconfig files and the service-account files of a pod: where the server is and who we are to it.
//!
//! A field that would change who we are or whom we trust and is not built here is refused by its name.
//! Upstream: client-go tools/clientcmd, rest.InClusterConfig.

use std::path::{Path, PathBuf};

use apimachinery::codec::yaml;
use apimachinery::{Doc, Ref};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Where the server is, whom to trust, and who we are.
#[derive(Clone, Debug, Default)]
pub struct Kubeconfig {
    /// `https://127.0.0.1:6443`
    pub server: String,
    /// PEM of the authorities that the server's certificate must come from.
    pub certificate_authority: Vec<u8>,
    /// The name that the server's certificate must bear, where it is not the address.
    pub tls_server_name: Option<String>,
    /// PEM of our certificate (leaf first) and key.
    pub client_certificate: Option<(Vec<u8>, Vec<u8>)>,
    /// The bearer token.
    pub token: Option<TokenSource>,
    /// The context's namespace; `default` when it names none.
    pub namespace: String,
}

/// Where the bearer token comes from.
#[derive(Clone, Debug)]
pub enum TokenSource {
    /// The token itself.
    Fixed(apimachinery::call::Secret),
    /// A file that is read again, as the kubelet renews a pod's token.
    File(PathBuf),
}

impl TokenSource {
    /// The token as it is now.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn read(&self) -> std::io::Result<String> {
        match self {
            TokenSource::Fixed(token) => Ok(token.0.clone()),
            TokenSource::File(path) => Ok(std::fs::read_to_string(path)?.trim().to_owned()),
        }
    }
}

/// Why a kubeconfig cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// A file cannot be read.
    #[error("reading {path:?}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not YAML.
    #[error("{path:?} is no kubeconfig: {why}")]
    Syntax {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A part is missing.
    #[error("the kubeconfig has no {what} named {name:?}")]
    Missing {
        /// `context`, `cluster` or `user`.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A field that is not understood yet.
    #[error("{0} is not supported in a kubeconfig; remove it or use a client certificate or a token")]
    Unsupported(&'static str),
    /// Base64 that is none.
    #[error("{0} is not valid base64")]
    Base64(&'static str),
    /// The address is no `https://host:port`.
    #[error("the server's address {0:?} is not of the form https://host:port")]
    Server(String),
    /// Certificates or keys that TLS does not take.
    #[error("{what}: {why}")]
    Tls {
        /// What is wrong with.
        what: &'static str,
        /// Why.
        why: String,
    },
}

const UNSUPPORTED_CLUSTER: [&str; 2] = ["insecure-skip-tls-verify", "proxy-url"];
const UNSUPPORTED_USER: [&str; 6] = ["exec", "auth-provider", "username", "password", "as", "as-groups"];

impl Kubeconfig {
    /// Reads the current context of a kubeconfig file; relative paths in it are relative to the file.
    ///
    /// # Errors
    /// [`KubeconfigError`]
    pub fn load(path: &Path) -> Result<Kubeconfig, KubeconfigError> {
        let text = read(path)?;
        Kubeconfig::parse(&text, path)
    }

    /// Reads a kubeconfig's text; `path` is where it lies.
    ///
    /// # Errors
    /// [`KubeconfigError`]
    pub fn parse(text: &[u8], path: &Path) -> Result<Kubeconfig, KubeconfigError> {
        let syntax =
            |err: yaml::YamlError| KubeconfigError::Syntax { path: path.into(), why: err.to_string() };
        let config: Doc = yaml::parse(text).map_err(syntax)?.doc;
        let dir = path.parent().unwrap_or(Path::new("."));
        let context = named(&config, "contexts", "context", config.get("current-context").str())?;
        let cluster = named(&config, "clusters", "cluster", context.get("cluster").str())?;
        let user = named(&config, "users", "user", context.get("user").str())?;
        refuse(cluster, &UNSUPPORTED_CLUSTER)?;
        refuse(user, &UNSUPPORTED_USER)?;
        let certificate = data(user, "client-certificate-data", "client-certificate", dir)?;
        let key = data(user, "client-key-data", "client-key", dir)?;
        let text = |at: Ref<'_>, name: &str| Some(at.get(name).str().to_owned()).filter(|s| !s.is_empty());
        Ok(Kubeconfig {
            server: cluster.get("server").str().to_owned(),
            certificate_authority: data(cluster, "certificate-authority-data", "certificate-authority", dir)?
                .unwrap_or_default(),
            tls_server_name: text(cluster, "tls-server-name"),
            client_certificate: certificate.zip(key),
            token: match (text(user, "tokenFile"), text(user, "token")) {
                (Some(file), _) => Some(TokenSource::File(dir.join(file))),
                (None, token) => token.map(|t| TokenSource::Fixed(apimachinery::call::Secret(t))),
            },
            namespace: text(context, "namespace").unwrap_or_else(|| "default".to_owned()),
        })
    }
}

fn named<'a>(
    config: &'a Doc,
    list: &str,
    what: &'static str,
    name: &str,
) -> Result<Ref<'a>, KubeconfigError> {
    let found = config.get(list).items().find(|entry| entry.get("name").str() == name);
    found.map(|e| e.get(what)).ok_or_else(|| KubeconfigError::Missing { what, name: name.to_owned() })
}

fn refuse(at: Ref<'_>, fields: &[&'static str]) -> Result<(), KubeconfigError> {
    let set = |f: &&&'static str| at.get(**f).is_set() && at.get(**f).opt_bool() != Some(false);
    fields.iter().find(set).map_or(Ok(()), |field| Err(KubeconfigError::Unsupported(field)))
}

/// Inline data wins over a file, as upstream.
fn data(
    at: Ref<'_>,
    inline: &'static str,
    file: &str,
    dir: &Path,
) -> Result<Option<Vec<u8>>, KubeconfigError> {
    match (at.get(inline).str(), at.get(file).str()) {
        ("", "") => Ok(None),
        ("", path) => read(&dir.join(path)).map(Some),
        (text, _) => STANDARD.decode(text).map(Some).map_err(|_| KubeconfigError::Base64(inline)),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, KubeconfigError> {
    std::fs::read(path).map_err(|source| KubeconfigError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: 'https://127.0.0.1:6443', certificate-authority-data: Y2E=}}]
users: [{name: u, user: {client-certificate-data: Y3J0, client-key-data: a2V5}}]
";

    #[test]
    fn reads_the_current_context_and_refuses_what_it_does_not_know() {
        let load = |text: &str| Kubeconfig::parse(text.as_bytes(), Path::new("/x/config"));
        let config = load(TEXT).expect("a kubeconfig");
        assert_eq!(config.server, "https://127.0.0.1:6443");
        assert_eq!(config.certificate_authority, b"ca");
        assert_eq!(config.client_certificate, Some((b"crt".to_vec(), b"key".to_vec())));
        assert_eq!(config.namespace, "default");
        let exec = TEXT.replace("client-key-data: a2V5", "exec: {command: aws}");
        assert!(matches!(load(&exec), Err(KubeconfigError::Unsupported("exec"))));
        let other = TEXT.replace("current-context: here", "current-context: there");
        assert!(matches!(load(&other), Err(KubeconfigError::Missing { what: "context", .. })));
    }
}
