//! A signing key. It yields the key that signs access tokens, the keys that authenticate refresh tokens, device
//! tokens, the tokens in mails and passkey ceremonies, and a public key id.

use anyhow::{Context, Result, ensure};
use aws_lc_rs::{
    digest, hmac,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::zeroize::Zeroizing;
use serde::Serialize;
use utoipa::ToSchema;

use crate::server::{clock::UnixSeconds, config::SigningAlgorithm};

/// RFC 7518, 3.2: a key must be at least as long as the hash.
pub const MIN_SECRET_BYTES: usize = 32;

/// How many bytes of its thumbprint identify a key pair.
const ID_BYTES: usize = 12;

/// A public key, as a member of a JSON Web Key Set (RFC 7517).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PublicJwk {
    pub kty: &'static str,
    pub crv: &'static str,
    /// The key itself, or the x coordinate of its point, as base64url.
    pub x: String,
    /// The y coordinate, as base64url, if the key needs one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub y: Option<String>,
    pub kid: String,
    pub alg: SigningAlgorithm,
    #[serde(rename = "use")]
    pub usage: &'static str,
}

impl PublicJwk {
    fn ed25519(public: &[u8]) -> Self {
        Self::identified(SigningAlgorithm::EdDsa, "OKP", "Ed25519", public, None)
    }

    /// `point` is uncompressed: 4, x, y (SEC 1, 2.3.3).
    fn p256(point: &[u8]) -> Result<Self> {
        ensure!(point.len() == 65 && point[0] == 4, "a P-256 key has an unknown form");
        let (x, y) = point[1..].split_at(32);
        Ok(Self::identified(SigningAlgorithm::Es256, "EC", "P-256", x, Some(y)))
    }

    /// The key with its id: the beginning of its thumbprint (RFC 7638, 3; RFC 8037, 2).
    fn identified(
        alg: SigningAlgorithm,
        kty: &'static str,
        crv: &'static str,
        x: &[u8],
        y: Option<&[u8]>,
    ) -> Self {
        let x = BASE64_URL_SAFE_NO_PAD.encode(x);
        let y = y.map(|y| BASE64_URL_SAFE_NO_PAD.encode(y));
        let of_y = y.as_ref().map(|y| format!(",\"y\":\"{y}\"")).unwrap_or_default();
        let required = format!("{{\"crv\":\"{crv}\",\"kty\":\"{kty}\",\"x\":\"{x}\"{of_y}}}");
        let thumbprint = digest::digest(&digest::SHA256, required.as_bytes());
        let kid = BASE64_URL_SAFE_NO_PAD.encode(&thumbprint.as_ref()[..ID_BYTES]);
        Self { kty, crv, x, y, kid, alg, usage: "sig" }
    }
}

/// A secret and the keys that are derived from it.
pub struct Key {
    id: String,
    algorithm: SigningAlgorithm,
    /// The secret of HS256, or the key pair as PKCS #8.
    private: Zeroizing<Vec<u8>>,
    public: Option<PublicJwk>,
    refresh: hmac::Key,
    device: hmac::Key,
    mail: hmac::Key,
    passkey: hmac::Key,
    /// When the key was made; 0 for one of the settings.
    made: UnixSeconds,
    /// Since when the key signs nothing any more.
    retired: Option<UnixSeconds>,
}

impl Key {
    /// The key of HS256 with this secret.
    ///
    /// # Errors
    /// The secret is too short, or all zeros.
    pub fn of_secret(secret: Zeroizing<Vec<u8>>) -> Result<Self> {
        ensure!(
            secret.len() >= MIN_SECRET_BYTES,
            "a signing key has {} bytes: it needs at least {MIN_SECRET_BYTES}",
            secret.len()
        );
        // HMAC pads an empty key with zeros (RFC 2104, 2), so a key of zeros is as good as none.
        ensure!(
            secret.iter().any(|byte| *byte != 0),
            "a signing key is all zeros: `openssl rand 32 | basenc --base64url` makes one"
        );
        let master = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let id = BASE64_URL_SAFE_NO_PAD.encode(&hmac::sign(&master, b"hallpass key id").as_ref()[..6]);
        Ok(Self::new(id, SigningAlgorithm::Hs256, &master, secret, None))
    }

    /// The key pair in this PKCS #8 document, of Ed25519 or P-256.
    ///
    /// # Errors
    /// It is none of them.
    pub fn of_pkcs8(pkcs8: Zeroizing<Vec<u8>>) -> Result<Self> {
        // The seed, not the document: the same key pair can be written in two ways.
        let (public, seed) = if let Ok(pair) = Ed25519KeyPair::from_pkcs8(&pkcs8) {
            let seed = pair.seed().context("the seed of an Ed25519 key cannot be read")?;
            let seed = aws_lc_rs::encoding::AsBigEndian::as_be_bytes(&seed)?;
            (PublicJwk::ed25519(pair.public_key().as_ref()), Zeroizing::new(seed.as_ref().to_vec()))
        } else {
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8);
            let pair = pair.ok().context("a signing key is neither of Ed25519 nor of P-256 (PKCS #8)")?;
            let seed = aws_lc_rs::encoding::AsBigEndian::as_be_bytes(&pair.private_key())?;
            (PublicJwk::p256(pair.public_key().as_ref())?, Zeroizing::new(seed.as_ref().to_vec()))
        };
        let master = hmac::Key::new(hmac::HMAC_SHA256, &seed);
        Ok(Self::new(public.kid.clone(), public.alg, &master, pkcs8, Some(public)))
    }

    fn new(
        id: String,
        algorithm: SigningAlgorithm,
        master: &hmac::Key,
        private: Zeroizing<Vec<u8>>,
        public: Option<PublicJwk>,
    ) -> Self {
        let derive = |purpose: &str| {
            hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(master, purpose.as_bytes()).as_ref())
        };
        let (refresh, device) = (derive("hallpass refresh token"), derive("hallpass device"));
        let (mail, passkey) = (derive("hallpass mail token"), derive("hallpass passkey ceremony"));
        Self { id, algorithm, private, public, refresh, device, mail, passkey, made: 0, retired: None }
    }

    /// The same key, made at this time, which has signed nothing since it was retired.
    pub fn dated(self, made: UnixSeconds, retired: Option<UnixSeconds>) -> Self {
        Self { made, retired, ..self }
    }

    /// When the key was made; 0 for one of the settings.
    pub fn made(&self) -> UnixSeconds {
        self.made
    }

    /// The `kid`, which identifies the key and reveals nothing about its secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn algorithm(&self) -> SigningAlgorithm {
        self.algorithm
    }

    /// The key that signs access tokens: the secret of HS256, or the key pair as PKCS #8.
    pub fn private(&self) -> &[u8] {
        &self.private
    }

    /// The key that verifies access tokens; `None` with HS256, where it would also sign.
    pub fn public(&self) -> Option<&PublicJwk> {
        self.public.as_ref()
    }

    /// The key that authenticates refresh tokens. It is derived, so that neither kind of token reveals
    /// anything about the key of the other.
    pub fn refresh(&self) -> &hmac::Key {
        &self.refresh
    }

    /// The key that authenticates device tokens ([`device_cookie`](super::device_cookie)).
    pub fn device(&self) -> &hmac::Key {
        &self.device
    }

    /// The key that authenticates the tokens in mails ([`mail_token`](super::mail_token)).
    pub fn mail(&self) -> &hmac::Key {
        &self.mail
    }

    /// The key that authenticates the state of passkey ceremonies ([`passkeys`](super::passkeys)).
    pub fn passkey(&self) -> &hmac::Key {
        &self.passkey
    }

    /// Since when the key signs nothing any more; `None` if it may sign.
    pub fn retired(&self) -> Option<UnixSeconds> {
        self.retired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_that_is_too_short_or_all_zeros_is_refused() {
        let key = |secret: &[u8]| {
            Key::of_secret(Zeroizing::new(secret.to_vec())).map(drop).map_err(|error| error.to_string())
        };
        for zeros in [32, 33, 64, 100] {
            assert!(key(&vec![0; zeros]).unwrap_err().contains("all zeros"), "{zeros}");
        }
        assert!(key(&[1; 31]).unwrap_err().contains("at least 32"));
        assert_eq!(key(&[1; 32]), Ok(()));
    }

    /// The example of RFC 8037, A.2 and A.3.
    #[test]
    fn key_id_is_the_beginning_of_the_thumbprint() {
        let x = BASE64_URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        let jwk = PublicJwk::ed25519(&x);
        assert!("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k".starts_with(&jwk.kid), "{}", jwk.kid);
        assert_eq!(jwk.kid.len(), 16);
    }
}
