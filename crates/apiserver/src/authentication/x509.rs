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
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Version};

use super::Authenticator;

/// How many certificates are remembered.
const REMEMBERED_MAX: usize = 4096;

/// Believes certificates that one authority signed.
pub struct X509 {
    verifier: Arc<dyn ClientCertVerifier>,
    authority: Vec<CertificateDer<'static>>,
    // Invariant: only certificates (the leaf) whose chain was verified; dates are checked at every use.
    known: Mutex<Map<Bytes, Known>>,
}

impl Authenticator for X509 {
    fn authenticate<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Result<Option<Arc<User>>, Status>> {
        Box::pin(async move {
            let Who::Presented { certificates, .. } = &call.who else { return Ok(None) };
            self.user(certificates)
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
        let authority = CertificateDer::pem_slice_iter(ca_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|err| rustls::Error::General(format!("client authority: {err}")))?;
        for certificate in &authority {
            roots.add(certificate.clone())?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|err| rustls::Error::General(format!("client authority: {err}")))?;
        Ok(X509 { verifier, authority, known: Mutex::default() })
    }

    /// Whose certificate it is.
    ///
    /// # Errors
    /// 401 when it is not trusted or not valid now.
    pub fn user(&self, chain: &[Bytes]) -> Result<Option<Arc<User>>, Status> {
        let Some((leaf, intermediates)) = chain.split_first() else { return Ok(None) };
        let now = base::time::now().as_second();
        let known = self.known.lock().expect("nobody panics holding it").get(leaf).cloned();
        let known = match known {
            Some(known) => known,
            None => {
                let known = self.verify(leaf, intermediates, now)?;
                let mut all = self.known.lock().expect("nobody panics holding it");
                if all.len() >= REMEMBERED_MAX {
                    all.clear();
                }
                all.insert(leaf.clone(), known.clone());
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
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| Status::unauthorized())?;
        if parsed.version() == X509Version::V1 {
            if !self.signed(&parsed) {
                return Err(Status::unauthorized());
            }
        } else if let Err(err) = self.verifier.verify_client_cert(&leaf_der, &others, at) {
            tracing::debug!(%err, "client certificate refused");
            return Err(Status::unauthorized());
        }
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

    /// Whether the authority itself signed a certificate of version 1, which the verifier does not read: `openssl
    /// x509 -req` makes them, and Go takes them. They have no extensions, so there is nothing else to verify.
    fn signed(&self, leaf: &X509Certificate<'_>) -> bool {
        let authorities = self.authority.iter().filter_map(|der| X509Certificate::from_der(der).ok());
        authorities.into_iter().any(|(_, authority)| {
            authority.subject().as_raw() == leaf.issuer().as_raw()
                && leaf.verify_signature(Some(authority.public_key())).is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made as tutorials do: `openssl x509 -req -in alice.csr -CA ca.crt -CAkey ca.key`, for a hundred years.
    const CA: &str = "-----BEGIN CERTIFICATE-----\n\
MIIBgjCCASegAwIBAgIUN44WPZ9RN2LOpOCvNCvk1aABuZYwCgYIKoZIzj0EAwIw\n\
FTETMBEGA1UEAwwKa3ViZXJuZXRlczAgFw0yNjExMjcxMDA3MzBaGA8yMTI2MTEw\n\
MzEwMDczMFowFTETMBEGA1UEAwwKa3ViZXJuZXRlczBZMBMGByqGSM49AgEGCCqG\n\
SM49AwEHA0IABBb4OGKJAyDpkKamdfcDhRiI0BlogotNessYSt27aw/creA6dQPh\n\
RmsFZRAmPL3JunrAHSgrkRBYN/+fR13jLKSjUzBRMB0GA1UdDgQWBBQsyYZzGYKH\n\
JZBythpaAVvUw2j4tDAfBgNVHSMEGDAWgBQsyYZzGYKHJZBythpaAVvUw2j4tDAP\n\
BgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0kAMEYCIQDRB5xmRqpTkoFvgsUg\n\
S61Ym3rXkQAdr6vRx49eQW20DgIhAIqsyeQfNHMADxf0ZQsb67DdoZ9mCk2ooTzM\n\
5zvc+4hL\n\
-----END CERTIFICATE-----";
    const NAMESAKE: &str = "-----BEGIN CERTIFICATE-----\n\
MIIBgTCCASegAwIBAgIUQ4Ove3+/dV6Ld2Lm003VJoQkhagwCgYIKoZIzj0EAwIw\n\
FTETMBEGA1UEAwwKa3ViZXJuZXRlczAgFw0yNjExMjcxMDA3MzFaGA8yMTI2MTEw\n\
MzEwMDczMVowFTETMBEGA1UEAwwKa3ViZXJuZXRlczBZMBMGByqGSM49AgEGCCqG\n\
SM49AwEHA0IABJhbBQHcgJ8thYjPy5sZ4YdBwz9/ygA3oFTSEIOzG8BF7d4BDrl9\n\
INMUCBfQhP60YBYNA83NEBCrUgQxUDh43X6jUzBRMB0GA1UdDgQWBBTbFRHH2pcy\n\
yti/Gb+j2JwlSGAGqTAfBgNVHSMEGDAWgBTbFRHH2pcyyti/Gb+j2JwlSGAGqTAP\n\
BgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIQCbJKlPdDLbTkS7lBW2\n\
xVentzAOiqWOEI60oEfLvsMDeAIgUEohDeOPqAlLYOgEQBZ4KrTCyYZRanTcubSB\n\
YOpWdIU=\n\
-----END CERTIFICATE-----";
    const ALICE: &str = "-----BEGIN CERTIFICATE-----\n\
MIIBLzCB1wIUJ/3JjWxfPEbkbgrVnfVpj6CBakIwCgYIKoZIzj0EAwIwFTETMBEG\n\
A1UEAwwKa3ViZXJuZXRlczAgFw0yNjExMjcxMDA3MzFaGA8yMTI2MTEwMzEwMDcz\n\
MVowHzENMAsGA1UECgwEZGV2czEOMAwGA1UEAwwFYWxpY2UwWTATBgcqhkjOPQIB\n\
BggqhkjOPQMBBwNCAARedwkQvCr7mK/w6kQBe6rUOfAnCx7Eo5+adwpsCWYWqvSv\n\
VJNlj566UR5A6p6nIOo8mR00it8dbbO8BhrKtzhNMAoGCCqGSM49BAMCA0cAMEQC\n\
IGTzA+r+jkqX0SeGa2qqgiyOCNq8KWTIPvm2GtbwCRGVAiBeC656RqAsuN94RMlt\n\
7UxT6avvuMMSV7ptQ/iweKXRgA==\n\
-----END CERTIFICATE-----";

    #[test]
    fn a_certificate_of_version_1_is_as_good() {
        let alice = CertificateDer::from_pem_slice(ALICE.as_bytes()).expect("PEM");
        let chain = [Bytes::from(alice.to_vec())];
        let user = X509::new(CA).expect("an authority").user(&chain).expect("believed").expect("somebody");
        assert_eq!((user.name.as_str(), user.groups[0].as_str()), ("alice", "devs"));
        let refused = X509::new(NAMESAKE).expect("an authority").user(&chain).expect_err("not its own");
        assert_eq!(refused.code, 401);
    }
}
