//! A server that wants client certificates.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use storage::{StoreError, suite};
use storage_etcd::{Config, ConfigError, Etcd, OpenError};

use crate::server::{START_MAX, Server, open_with, program, run};

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// An authority's file, and for each name those of a certificate and its key.
fn made(dir: &Path, names: &[&str]) -> (PathBuf, Vec<(PathBuf, PathBuf)>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let leaf = |name: &&str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let file = |ending: &str, text: String| write(dir, &format!("{name}.{ending}"), &text);
        (file("crt", certificate.pem()), file("key", key.serialize_pem()))
    };
    (write(dir, "ca.crt", &authority.pem()), names.iter().map(leaf).collect())
}

#[test]
fn client_certificates_are_shown_and_servers_checked() {
    let Some(etcd) = program() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (ca, pairs) = made(dir.path(), &["server", "client"]);
    let arguments = [
        ["--cert-file", pairs[0].0.to_str().unwrap()],
        ["--key-file", pairs[0].1.to_str().unwrap()],
        ["--trusted-ca-file", ca.to_str().unwrap()],
        ["--client-cert-auth", "--auto-compaction-mode=revision"],
    ];
    let servers = [Server::start(&etcd, dir.path(), "https", arguments.as_flattened())];
    let config = Config {
        endpoints: vec![servers[0].clients.clone()],
        ca: Some(ca),
        certificate: Some(pairs[1].0.clone()),
        key: Some(pairs[1].1.clone()),
    };
    run(async {
        let store = open_with(config.clone()).await;
        suite::put(&*store, "/a", "1").await;
        let none = std::time::Duration::ZERO;
        let refused = |config: Config| async move { Etcd::open_within(&config, none, START_MAX).await.err() };
        // The server is there now, so that one attempt tells.
        let nobody = Config { certificate: None, key: None, ..config.clone() };
        let (other, _) = made(&tempfile::tempdir().unwrap().keep(), &[]);
        for wrong in [nobody, Config { ca: Some(other), ..config.clone() }] {
            let error = refused(wrong).await;
            assert!(matches!(error, Some(OpenError::Store(StoreError::Io { .. }))), "{error:?}");
        }
        let half = refused(Config { key: None, ..config.clone() }).await;
        assert!(matches!(half, Some(OpenError::Config(ConfigError::HalfPair))), "{half:?}");
        let no_ca = refused(Config { ca: None, ..config }).await;
        assert!(matches!(no_ca, Some(OpenError::Config(ConfigError::NoAuthority(_)))), "{no_ca:?}");
    });
}
