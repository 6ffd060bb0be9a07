//! Service-account tokens: JWTs signed with ES256, bound to an account and, usually, a pod.
//!
//! Signatures, audiences and dates are judged here, with base's clock; whether account and pod still exist is the
//! authenticator's question. Source: RFC 7515, RFC 7519, KEP-1205. Upstream: pkg/serviceaccount.

use apimachinery::codec::json;
use apimachinery::{Doc, Ref, doc};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, EcdsaKeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

/// The largest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Before its end, a token that the kubelet renews is reported as stale after this long, in seconds.
const WARN_AFTER_SECONDS: i64 = 3_607;

/// Why a token cannot be signed or believed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The signing key's file holds something else.
    #[error("the service account signing key is no P-256 key in PKCS#8 PEM")]
    Key,
    /// The signature could not be made.
    #[error("sign token")]
    Sign,
    /// Not a JWT of ours.
    #[error("not a service account token of this cluster")]
    Foreign,
    /// The signature does not fit.
    #[error("the token's signature is wrong")]
    Signature,
    /// Too early or too late.
    #[error("the token has expired or is not valid yet")]
    Time,
    /// Meant for somebody else.
    #[error("token audiences {given:?} is invalid for the target audiences {wanted:?}")]
    Audience {
        /// The token's.
        given: Vec<String>,
        /// Those that would do.
        wanted: Vec<String>,
    },
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The account's namespace.
    pub namespace: String,
    /// The account.
    pub account: Bound,
    /// The pod that the token lives and dies with.
    pub pod: Option<Bound>,
    /// The pod's node.
    pub node: Option<Bound>,
    /// Whom it is meant for.
    pub audiences: Vec<String>,
    /// When it was issued, in seconds since 1970.
    pub issued: i64,
    /// When it ends, in seconds since 1970.
    pub expires: i64,
    /// The token's own id.
    pub id: String,
}

/// An object that a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl Bound {
    fn read(at: Ref<'_>) -> Option<Bound> {
        at.exists()
            .then(|| Bound { name: at.get("name").str().to_owned(), uid: at.get("uid").str().to_owned() })
    }

    fn write(&self) -> Doc {
        doc!({ "name": self.name, "uid": self.uid })
    }
}

/// The cluster's signing key with the name under which it issues.
pub struct Tokens {
    key: EcdsaKeyPair,
    key_id: String,
    /// `iss` of every token, an https URL.
    pub issuer: String,
    /// Audiences that the API server answers to; tokens issued for nobody in particular name these.
    pub audiences: Vec<String>,
}

impl Tokens {
    /// From the signing key, PKCS#8 PEM.
    ///
    /// # Errors
    /// [`TokenError::Key`] when it is something else.
    pub fn new(key_pem: &str, issuer: &str) -> Result<Tokens, TokenError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| TokenError::Key)?;
        let key =
            EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der())
                .map_err(|_| TokenError::Key)?;
        let key_id = URL_SAFE_NO_PAD.encode(Sha256::digest(key.public_key().as_ref()));
        Ok(Tokens { key, key_id, issuer: issuer.to_owned(), audiences: vec![issuer.to_owned()] })
    }

    /// The token that says `claims`.
    ///
    /// # Errors
    /// [`TokenError::Sign`] when the cryptographic library fails.
    pub fn sign(&self, claims: &Claims) -> Result<String, TokenError> {
        let head = doc!({ "alg": "ES256", "kid": self.key_id });
        let mut bound = doc!({ "namespace": claims.namespace });
        bound.edit().set("serviceaccount", claims.account.write());
        bound.edit().set_opt("pod", claims.pod.as_ref().map(Bound::write));
        bound.edit().set_opt("node", claims.node.as_ref().map(Bound::write));
        if claims.pod.is_some() {
            bound.edit().set("warnafter", claims.issued + WARN_AFTER_SECONDS);
        }
        let mut body = doc!({ "aud": claims.audiences, "exp": claims.expires, "iat": claims.issued, "iss": self.issuer,
            "jti": claims.id, "nbf": claims.issued,
            "sub": format!("system:serviceaccount:{}:{}", claims.namespace, claims.account.name) });
        body.edit().set("kubernetes.io", bound);
        let text =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(head.to_json()), URL_SAFE_NO_PAD.encode(body.to_json()));
        let signed = self.key.sign(&SystemRandom::new(), text.as_bytes()).map_err(|_| TokenError::Sign)?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signed.as_ref())))
    }

    /// What a token says, once its signature, issuer, dates and audience have been judged. With no `audiences`,
    /// the API server's own count.
    ///
    /// # Errors
    /// [`TokenError`]: `Foreign` for what another authenticator may know.
    pub fn verify(&self, token: &str, audiences: &[String]) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Foreign);
        }
        let (text, signed) = token.rsplit_once('.').ok_or(TokenError::Foreign)?;
        let (head, body) = text.split_once('.').ok_or(TokenError::Foreign)?;
        let (head, body) = (part(head)?, part(body)?);
        let body = body.root();
        if head.get("alg").str() != "ES256" || body.get("iss").str() != self.issuer {
            return Err(TokenError::Foreign);
        }
        let signed = URL_SAFE_NO_PAD.decode(signed).map_err(|_| TokenError::Foreign)?;
        UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref())
            .verify(text.as_bytes(), &signed)
            .map_err(|_| TokenError::Signature)?;
        let claims = self.claims(body)?;
        let now = base::time::now().as_second();
        if now >= claims.expires || now < body.get("nbf").i64() {
            return Err(TokenError::Time);
        }
        let wanted = if audiences.is_empty() { &self.audiences } else { audiences };
        if !claims.audiences.iter().any(|a| wanted.contains(a)) {
            return Err(TokenError::Audience { given: claims.audiences, wanted: wanted.to_vec() });
        }
        Ok(claims)
    }

    fn claims(&self, body: Ref<'_>) -> Result<Claims, TokenError> {
        let bound = body.get("kubernetes.io");
        let audiences = match body.get("aud").opt_str() {
            Some(one) => vec![one.to_owned()],
            None => body.get("aud").items().map(|a| a.str().to_owned()).collect(),
        };
        Ok(Claims {
            namespace: bound.get("namespace").str().to_owned(),
            account: Bound::read(bound.get("serviceaccount")).ok_or(TokenError::Foreign)?,
            pod: Bound::read(bound.get("pod")),
            node: Bound::read(bound.get("node")),
            audiences,
            issued: body.get("iat").i64(),
            expires: body.get("exp").i64(),
            id: body.get("jti").str().to_owned(),
        })
    }

    /// `/.well-known/openid-configuration`. Source: OpenID Connect Discovery 1.0.
    pub fn discovery(&self, jwks_uri: &str) -> Doc {
        doc!({ "issuer": self.issuer, "jwks_uri": jwks_uri, "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"] })
    }

    /// `/openid/v1/jwks`. Source: RFC 7517.
    pub fn key_set(&self) -> Doc {
        // An uncompressed point: 4, then both coordinates.
        let point = self.key.public_key().as_ref();
        let (x, y) = point[1..].split_at((point.len() - 1) / 2);
        doc!({ "keys": [{ "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y) }] })
    }
}

fn part(text: &str) -> Result<Doc, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Foreign)?;
    Ok(json::parse(bytes).map_err(|_| TokenError::Foreign)?.doc)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        let key = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let der = key.to_pkcs8v1().expect("PKCS#8");
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            base64::engine::general_purpose::STANDARD.encode(der.as_ref())
        );
        Tokens::new(&pem, "https://kubernetes.default.svc.cluster.local").expect("a signer")
    }

    fn claims(t: &Tokens) -> Claims {
        let now = base::time::now().as_second();
        let bound = |name: &str| Bound { name: name.into(), uid: format!("{name}-uid") };
        Claims {
            namespace: "a".into(),
            account: bound("default"),
            pod: Some(bound("web")),
            node: None,
            audiences: t.audiences.clone(),
            issued: now,
            expires: now + 600,
            id: "1".into(),
        }
    }

    #[test]
    fn what_is_signed_is_believed_until_it_ends() {
        let t = tokens();
        let good = claims(&t);
        assert_eq!(t.verify(&t.sign(&good).expect("signed"), &[]).expect("believed"), good);
        let late = Claims { expires: good.issued, ..good.clone() };
        assert!(matches!(t.verify(&t.sign(&late).expect("signed"), &[]), Err(TokenError::Time)));
        let other = Claims { audiences: vec!["vault".into()], ..good };
        let token = t.sign(&other).expect("signed");
        assert!(matches!(t.verify(&token, &[]), Err(TokenError::Audience { .. })));
        assert!(t.verify(&token, &["vault".to_owned()]).is_ok());
    }

    #[test]
    fn a_changed_or_foreign_token_is_refused() {
        let (t, other) = (tokens(), tokens());
        let token = t.sign(&claims(&t)).expect("signed");
        assert!(matches!(other.verify(&token, &[]), Err(TokenError::Signature)));
        let (head, rest) = token.split_once('.').expect("a JWT");
        let unsigned = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#));
        assert!(matches!(t.verify(&unsigned, &[]), Err(TokenError::Foreign)));
        assert!(matches!(t.verify(head, &[]), Err(TokenError::Foreign)));
        assert!(matches!(t.verify("", &[]), Err(TokenError::Foreign)));
    }
}
