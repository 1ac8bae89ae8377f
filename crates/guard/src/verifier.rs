//! Whether an access token was signed by Hallpass (RFC 7519, RFC 9068). This file does no I/O, reads no clock, and does
//! not decide whether a token is live. It is the only file that decodes tokens.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hallpass_allowlist::{MAX_TOKEN_LIFE, UnixSeconds};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::de::DeserializeOwned;

/// The longest accepted lifetime of an access token in seconds, even if a signed `exp` is later.
const MAX_TTL: i64 = MAX_TOKEN_LIFE.as_secs().cast_signed();

/// The claims of an access token, or those of them that a service needs.
pub trait AccessClaims: DeserializeOwned {
    /// The claim `iat`.
    fn issued_at(&self) -> UnixSeconds;

    /// The claim `exp`.
    fn expires_at(&self) -> UnixSeconds;
}

/// The token was not signed by Hallpass, for whatever reason. Callers must not reveal which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotOurs;

/// A key, as it verifies tokens. Coordinates are base64url (RFC 7518, 6.2; RFC 8037, 2).
#[derive(Clone, Copy)]
#[expect(missing_docs, reason = "the names are those of the RFCs")]
pub enum VerifyingKey<'a> {
    Ed25519 { x: &'a str },
    P256 { x: &'a str, y: &'a str },
    Secret(&'a [u8]),
}

impl VerifyingKey<'_> {
    fn algorithm(self) -> Algorithm {
        match self {
            Self::Ed25519 { .. } => Algorithm::EdDSA,
            Self::P256 { .. } => Algorithm::ES256,
            Self::Secret(_) => Algorithm::HS256,
        }
    }

    fn decoding_key(self) -> Result<DecodingKey, jsonwebtoken::errors::Error> {
        match self {
            Self::Ed25519 { x } => DecodingKey::from_ed_components(x),
            Self::P256 { x, y } => DecodingKey::from_ec_components(x, y),
            Self::Secret(secret) => Ok(DecodingKey::from_secret(secret)),
        }
    }
}

/// Verifies the tokens that one key has signed.
#[derive(Clone)]
pub struct Verifier {
    /// The encoded header of every token signed with this key, including the dot after it.
    prefix: String,
    key: DecodingKey,
    validation: Validation,
}

impl Verifier {
    /// The verifier of tokens of this issuer and for this audience, signed with the key of this id.
    ///
    /// # Errors
    /// The key cannot be read.
    pub fn new(
        issuer: &str,
        audience: &str,
        key_id: &str,
        key: VerifyingKey,
    ) -> Result<Self, jsonwebtoken::errors::Error> {
        let algorithm = key.algorithm();
        let mut validation = Validation::new(algorithm);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        // The library treats a claim of the wrong type as absent, and does not check absent claims unless
        // they are required.
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        // Expiry is checked by the caller, to the second; the library accepts `exp == now` (which RFC 7519,
        // 4.1.4, rejects) and adds 60 s of leeway by default.
        validation.validate_exp = false;
        validation.leeway = 0;
        // As the library writes it for `typ`, `alg` and `kid`, in this order.
        let header = format!(r#"{{"typ":"at+jwt","alg":"{algorithm:?}","kid":"{key_id}"}}"#);
        let prefix = BASE64_URL_SAFE_NO_PAD.encode(header) + ".";
        Ok(Self { prefix, key: key.decoding_key()?, validation })
    }

    /// Whether the token claims, by its header, to be signed with this key.
    ///
    /// Only Hallpass issues these tokens, so the header must be, byte for byte, the one that it writes: that
    /// settles `alg`, `kid`, `typ`, `crit` and every other parameter (RFC 8725, 3.1, 3.10, 3.11) before any
    /// of the token is parsed.
    pub fn is_for(&self, token: &str) -> bool {
        token.starts_with(&self.prefix)
    }

    /// The claims of a token that was signed with this key, expired or not.
    ///
    /// # Errors
    /// [`NotOurs`]: another header, a wrong signature, a claim that is missing, of the wrong type or for another
    /// issuer or audience, or a lifetime longer than the maximum.
    pub fn verify<C: AccessClaims>(&self, token: &str) -> Result<C, NotOurs> {
        if !self.is_for(token) {
            return Err(NotOurs);
        }
        #[expect(clippy::disallowed_methods, reason = "the one place that decodes")]
        let decoded = jsonwebtoken::decode::<C>(token, &self.key, &self.validation);
        let claims = decoded.map_err(|_| NotOurs)?.claims;
        let life = claims.expires_at().checked_sub(claims.issued_at()).ok_or(NotOurs)?;
        if (1..=MAX_TTL).contains(&life) { Ok(claims) } else { Err(NotOurs) }
    }
}
