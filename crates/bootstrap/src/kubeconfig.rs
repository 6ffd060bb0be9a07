//! Kubeconfig files as kubectl reads them.

use std::path::Path;

use base64::Engine as _;

use crate::pki::{Pair, PkiError, write_file};

/// Writes a kubeconfig with everything in it (mode 0600): server, authority, the user's certificate and key.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, server: &str, ca: &str, user: &str, pair: &Pair) -> Result<(), PkiError> {
    let b64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let text = format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: keelson\n  cluster:\n    server: {server}\n    \
         certificate-authority-data: {ca}\ncontexts:\n- name: keelson\n  context:\n    cluster: keelson\n    user: {user}\n\
         current-context: keelson\nusers:\n- name: {user}\n  user:\n    client-certificate-data: {cert}\n    \
         client-key-data: {key}\n",
        ca = b64(ca),
        cert = b64(&pair.certificate),
        key = b64(&pair.key),
    );
    write_file(path, &text, 0o600)
}
