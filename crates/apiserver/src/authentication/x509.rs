//! Client certificates: the common name is the user, organisations are groups.
//!
//! The handshake has proven that the client holds the leaf's key; chain and dates are judged here, with base's
//! clock. Upstream: k8s.io/apiserver/pkg/authentication/request/x509.

use std::sync::{Arc, Mutex};

use apimachinery::call::{BoxFuture, User, Who};
use apimachinery::{Call, Status};
use base::hash::Map;
use bytes::Bytes;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};

use super::Authenticator;

/// How many certificates are remembered.
const REMEMBERED_MAX: usize = 4096;

/// Believes certificates that one authority signed.
pub struct X509 {
    verifier: Arc<dyn ClientCertVerifier>,
    // Invariant: only certificates whose chain was verified; dates are checked at every use.
    known: Mutex<Map<[u8; 32], Known>>,
}

impl Authenticator for X509 {
    fn authenticate<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Option<User>, Status>> {
        Box::pin(async move {
            let Who::Presented { certificates, .. } = &call.who else { return Ok(None) };
            Ok(self.user(certificates)?.map(|user| User::clone(&user)))
        })
    }
}

#[derive(Clone)]
struct Known {
    user: Arc<User>,
    from: i64,
    until: i64,
}

impl X509 {
    /// From the authority's certificates, PEM.
    ///
    /// # Errors
    /// When there is no usable certificate in it.
    pub fn new(ca_pem: &str) -> Result<X509, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            roots.add(
                certificate.map_err(|err| rustls::Error::General(format!("client authority: {err}")))?,
            )?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|err| rustls::Error::General(format!("client authority: {err}")))?;
        Ok(X509 { verifier, known: Mutex::default() })
    }

    /// Whose certificate it is.
    ///
    /// # Errors
    /// 401 when it is not trusted or not valid now.
    pub fn user(&self, chain: &[Bytes]) -> Result<Option<Arc<User>>, Status> {
        let Some((leaf, intermediates)) = chain.split_first() else { return Ok(None) };
        let now = base::time::now().as_second();
        let id: [u8; 32] = Sha256::digest(leaf).into();
        let known = self.known.lock().expect("nobody panics holding it").get(&id).cloned();
        let known = match known {
            Some(known) => known,
            None => {
                let known = self.verify(leaf, intermediates, now)?;
                let mut all = self.known.lock().expect("nobody panics holding it");
                if all.len() >= REMEMBERED_MAX {
                    all.clear();
                }
                all.insert(id, known.clone());
                known
            }
        };
        if now < known.from || now >= known.until {
            return Err(Status::unauthorized());
        }
        Ok(Some(known.user))
    }

    fn verify(&self, leaf: &Bytes, intermediates: &[Bytes], now: i64) -> Result<Known, Status> {
        let leaf_der = CertificateDer::from(leaf.as_ref());
        let others: Vec<CertificateDer<'_>> =
            intermediates.iter().map(|c| CertificateDer::from(c.as_ref())).collect();
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(now).unwrap_or(0)));
        if let Err(err) = self.verifier.verify_client_cert(&leaf_der, &others, at) {
            tracing::debug!(%err, "client certificate refused");
            return Err(Status::unauthorized());
        }
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|_| Status::unauthorized())?;
        let texts = |it: &mut dyn Iterator<Item = &x509_parser::x509::AttributeTypeAndValue<'_>>| {
            it.filter_map(|a| a.as_str().ok().map(str::to_owned)).collect::<Vec<_>>()
        };
        let name = texts(&mut parsed.subject().iter_common_name()).pop().unwrap_or_default();
        if name.is_empty() {
            return Err(Status::unauthorized());
        }
        let groups = texts(&mut parsed.subject().iter_organization());
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        let mut user = User::new(&name, &groups);
        let credential: String = Sha256::digest(leaf).iter().map(|b| format!("{b:02x}")).collect();
        user.extra.push((
            "authentication.kubernetes.io/credential-id".into(),
            vec![format!("X509SHA256={credential}")],
        ));
        let validity = parsed.validity();
        Ok(Known {
            user: Arc::new(user),
            from: validity.not_before.timestamp(),
            until: validity.not_after.timestamp(),
        })
    }
}
