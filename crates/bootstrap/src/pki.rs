//! The cluster's own certificate authority and what it signs: P-256 throughout, because start-up must not wait
//! for RSA.
//!
//! Upstream: kubeadm's `/etc/kubernetes/pki`; the file names are its.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// How long the authority lives, in seconds (10 years).
const CA_SECONDS: i64 = 10 * 365 * 86_400;
/// How long what it signs lives, in seconds (1 year); renewed at a start with less than 30 days left.
const LEAF_SECONDS: i64 = 365 * 86_400;
const RENEW_BEFORE_SECONDS: i64 = 30 * 86_400;
/// Clocks of other machines may be this far behind, in seconds.
const BACKDATE_SECONDS: i64 = 300;

/// Why keys or certificates could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("{path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A key or certificate could not be made or understood.
    #[error("{what}")]
    Certificate {
        /// Which.
        what: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key, PKCS#8.
    pub key: String,
}

/// Who a client certificate stands for.
pub struct Identity<'a> {
    /// Base name of the files.
    pub file: &'a str,
    /// The user (common name).
    pub user: &'a str,
    /// The groups (organisations).
    pub groups: &'a [&'a str],
}

/// The certificates of one cluster, in a directory of their own (mode 0700).
pub struct Pki {
    dir: PathBuf,
    ca: Pair,
}

impl Pki {
    /// Opens the directory, making the authority and the service accounts' signing key if they are missing.
    ///
    /// # Errors
    /// [`PkiError`] when files cannot be read or written, or hold something else.
    pub fn open(dir: &Path) -> Result<Pki, PkiError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| PkiError::File { path: dir.to_owned(), source })?;
        let ca = match read_pair(dir, "ca")? {
            Some(pair) => pair,
            None => {
                let pair = new_ca()?;
                write_pair(dir, "ca", &pair)?;
                pair
            }
        };
        let pki = Pki { dir: dir.to_owned(), ca };
        if !pki.path("sa.key").exists() {
            let key = new_key("service account signing key")?;
            write_file(&pki.path("sa.pub"), &key.public_key_pem(), 0o644)?;
            write_file(&pki.path("sa.key"), &key.serialize_pem(), 0o600)?;
        }
        Ok(pki)
    }

    /// A file of the directory.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    /// The authority's certificate, PEM.
    pub fn ca_certificate(&self) -> &str {
        &self.ca.certificate
    }

    /// The service accounts' signing key, PKCS#8 PEM (ES256).
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn service_account_key(&self) -> Result<String, PkiError> {
        read_file(&self.path("sa.key"))
    }

    /// The API server's certificate for these names and addresses; made anew when one is missing in it or it
    /// ends within 30 days.
    ///
    /// # Errors
    /// [`PkiError`] when it cannot be read, made or kept.
    pub fn server(&self, names: &[String], addresses: &[IpAddr]) -> Result<Pair, PkiError> {
        let mut sans: Vec<SanType> = Vec::new();
        for name in names {
            let name = name
                .as_str()
                .try_into()
                .map_err(|source| PkiError::Certificate { what: format!("server name {name:?}"), source })?;
            sans.push(SanType::DnsName(name));
        }
        sans.extend(addresses.iter().map(|ip| SanType::IpAddress(*ip)));
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        params.subject_alt_names = sans;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.leaf("apiserver", params)
    }

    /// A client's certificate; made anew when it ends within 30 days.
    ///
    /// # Errors
    /// [`PkiError`] when it cannot be read, made or kept.
    pub fn client(&self, who: &Identity<'_>) -> Result<Pair, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, who.user);
        for group in who.groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.leaf(who.file, params)
    }

    fn leaf(&self, file: &str, mut params: CertificateParams) -> Result<Pair, PkiError> {
        if let Some(pair) = read_pair(&self.dir, file)?
            && still_good(&pair.certificate, &params)
        {
            return Ok(pair);
        }
        let failed = |source| PkiError::Certificate { what: format!("certificate {file}"), source };
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        validity(&mut params, LEAF_SECONDS);
        let ca_key = KeyPair::from_pem(&self.ca.key).map_err(failed)?;
        let issuer = Issuer::from_ca_cert_pem(&self.ca.certificate, ca_key).map_err(failed)?;
        let key = new_key(file)?;
        let certificate = params.signed_by(&key, &issuer).map_err(failed)?;
        let pair = Pair { certificate: certificate.pem(), key: key.serialize_pem() };
        write_pair(&self.dir, file, &pair)?;
        Ok(pair)
    }
}

fn new_key(what: &str) -> Result<KeyPair, PkiError> {
    KeyPair::generate().map_err(|source| PkiError::Certificate { what: format!("key for {what}"), source })
}

fn new_ca() -> Result<Pair, PkiError> {
    let key = new_key("the authority")?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "kubernetes");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::KeyEncipherment,
    ];
    validity(&mut params, CA_SECONDS);
    let certificate = params
        .self_signed(&key)
        .map_err(|source| PkiError::Certificate { what: "the authority".into(), source })?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn validity(params: &mut CertificateParams, seconds: i64) {
    let date = |second: i64| {
        let d = jiff::Timestamp::from_second(second)
            .expect("a date of this century")
            .to_zoned(jiff::tz::TimeZone::UTC);
        let part = |n: i8| u8::try_from(n).expect("months and days are small and positive");
        rcgen::date_time_ymd(i32::from(d.year()), part(d.month()), part(d.day()))
            + std::time::Duration::from_secs(
                u64::try_from(second.rem_euclid(86_400)).expect("a rest is positive"),
            )
    };
    let now = base::time::now().as_second();
    params.not_before = date(now - BACKDATE_SECONDS);
    params.not_after = date(now + seconds);
}

/// Whether a kept certificate has all the names wanted and some life left.
fn still_good(pem: &str, wanted: &CertificateParams) -> bool {
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(pem.as_bytes()) else { return false };
    let Ok(cert) = pem.parse_x509() else { return false };
    if cert.validity().not_after.timestamp() < base::time::now().as_second() + RENEW_BEFORE_SECONDS {
        return false;
    }
    let names = match cert.subject_alternative_name() {
        Ok(Some(san)) => san.value.general_names.clone(),
        _ => Vec::new(),
    };
    wanted.subject_alt_names.iter().all(|want| {
        names.iter().any(|have| match (want, have) {
            (SanType::DnsName(a), x509_parser::extensions::GeneralName::DNSName(b)) => a.as_str() == *b,
            (SanType::IpAddress(IpAddr::V4(a)), x509_parser::extensions::GeneralName::IPAddress(b)) => {
                a.octets() == **b
            }
            (SanType::IpAddress(IpAddr::V6(a)), x509_parser::extensions::GeneralName::IPAddress(b)) => {
                a.octets() == **b
            }
            _ => false,
        })
    })
}

/// When a certificate ends.
pub fn not_after(pem: &str) -> Option<jiff::Timestamp> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    let end = pem.parse_x509().ok()?.validity().not_after.timestamp();
    jiff::Timestamp::from_second(end).ok()
}

fn read_file(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|source| PkiError::File { path: path.to_owned(), source })
}

fn read_pair(dir: &Path, file: &str) -> Result<Option<Pair>, PkiError> {
    let (certificate, key) = (dir.join(format!("{file}.crt")), dir.join(format!("{file}.key")));
    if !certificate.exists() || !key.exists() {
        return Ok(None);
    }
    Ok(Some(Pair { certificate: read_file(&certificate)?, key: read_file(&key)? }))
}

fn write_pair(dir: &Path, file: &str, pair: &Pair) -> Result<(), PkiError> {
    write_file(&dir.join(format!("{file}.key")), &pair.key, 0o600)?;
    write_file(&dir.join(format!("{file}.crt")), &pair.certificate, 0o644)
}

/// Writes a file whole or not at all: readers never see half a key.
pub(crate) fn write_file(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let part = path.with_extension("part");
    let write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&part)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    write().map_err(|source| PkiError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exists_is_kept_and_a_new_name_renews() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let pki = Pki::open(dir.path()).expect("made");
        let names = ["kubernetes".to_owned()];
        let first = pki.server(&names, &[]).expect("made");
        let again = Pki::open(dir.path()).expect("opened").server(&names, &[]).expect("kept");
        assert_eq!(first.certificate, again.certificate);
        let more = pki.server(&names, &["10.96.0.1".parse().expect("an address")]).expect("renewed");
        assert_ne!(first.certificate, more.certificate);
    }

    #[test]
    fn keys_are_for_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let pki = Pki::open(dir.path()).expect("made");
        for file in ["ca.key", "sa.key"] {
            let mode = fs::metadata(pki.path(file)).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }
}
