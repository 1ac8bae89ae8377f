//! The text form of access tokens: claims, keys, signing, verification (RFC 7519, RFC 9068). This file does
//! no I/O, reads no clock, and does not decide whether a token is live. It is the only file that uses
//! `jsonwebtoken`.

use anyhow::{Context, Result};
use hallpass_allowlist::{MAX_TOKEN_LIFE, TokenRecord};
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation, encode};
use serde::{Deserialize, Serialize};

use super::{key::Key, keys::Keys};
use crate::{
    api::types::{AccessToken, Role},
    server::{
        clock::UnixSeconds,
        config::{SigningAlgorithm, TokenConfig},
        ids::{SessionId, TokenId, UserId},
    },
};

/// The longest accepted lifetime of an access token in seconds, even if a signed `exp` is later.
const MAX_TTL: i64 = MAX_TOKEN_LIFE.as_secs().cast_signed();

/// The claims of an access token: exactly these, each of exactly this type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessClaims {
    pub iss: String,
    pub aud: String,
    pub sub: UserId,
    pub sid: SessionId,
    pub jti: TokenId,
    pub email: String,
    /// Absent for users without a special role.
    #[serde(default, skip_serializing_if = "Role::is_user")]
    pub role: Role,
    pub iat: UnixSeconds,
    pub exp: UnixSeconds,
}

/// The token was not signed by us, for whatever reason. Callers must not reveal which.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an access token of ours")]
pub struct NotOurs;

/// Signs with one key; verifies with that key and, during a key rotation, with the previous one.
pub struct Jwt {
    issuer: String,
    audience: String,
    header: Header,
    signing_key: EncodingKey,
    verifiers: Vec<Verifier>,
}

struct Verifier {
    /// The encoded header of every token signed with this key, including the dot after it.
    prefix: String,
    key: DecodingKey,
    validation: Validation,
}

impl Jwt {
    pub fn new(config: &TokenConfig, keys: &Keys) -> Result<Self> {
        Ok(Self {
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            header: header(keys.current()),
            signing_key: signing_key(keys.current()),
            verifiers: keys.all().map(|key| Verifier::new(config, key)).collect::<Result<_>>()?,
        })
    }

    /// Makes the access token for an allowlist entry.
    ///
    /// # Errors
    /// Never with the keys that [`Jwt::new`] accepted.
    pub fn sign(
        &self,
        entry: &TokenRecord,
        email: &str,
        role: Role,
        now: UnixSeconds,
    ) -> Result<AccessToken> {
        let claims = AccessClaims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: entry.user_id,
            sid: entry.session_id,
            jti: entry.token_id,
            email: email.to_owned(),
            role,
            iat: now,
            exp: entry.expires_at,
        };
        Ok(AccessToken::new(encode(&self.header, &claims, &self.signing_key)?))
    }

    /// The claims of a token that we signed, expired or not.
    ///
    /// Only Hallpass issues these tokens, so the header must be, byte for byte, one that it writes: that
    /// settles `alg`, `kid`, `typ`, `crit` and every other parameter (RFC 8725, 3.1, 3.10, 3.11) before any
    /// of the token is parsed.
    ///
    /// # Errors
    /// [`NotOurs`]: another header, a wrong signature, a claim that is missing, unknown, of the wrong type
    /// or for another issuer or audience, or a lifetime longer than the maximum.
    pub fn verify(&self, token: &str) -> Result<AccessClaims, NotOurs> {
        let verifier = self.verifiers.iter().find(|key| token.starts_with(&key.prefix)).ok_or(NotOurs)?;
        #[expect(clippy::disallowed_methods, reason = "the one place that decodes")]
        let decoded = jsonwebtoken::decode::<AccessClaims>(token, &verifier.key, &verifier.validation);
        let claims = decoded.map_err(|_| NotOurs)?.claims;
        let life = claims.exp.checked_sub(claims.iat).ok_or(NotOurs)?;
        if (1..=MAX_TTL).contains(&life) { Ok(claims) } else { Err(NotOurs) }
    }
}

impl Verifier {
    fn new(config: &TokenConfig, key: &Key) -> Result<Self> {
        let mut validation = Validation::new(algorithm(key));
        validation.set_issuer(&[&config.issuer]);
        validation.set_audience(&[&config.audience]);
        // The library treats a claim of the wrong type as absent, and does not check absent claims unless
        // they are required.
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        // Expiry is checked by the caller, to the second; the library accepts `exp == now` (which RFC 7519,
        // 4.1.4, rejects) and adds 60 s of leeway by default.
        validation.validate_exp = false;
        validation.leeway = 0;
        let token = encode(&header(key), &(), &signing_key(key)).context("a token cannot be signed")?;
        let end = token.find('.').context("a signed token has no header")?;
        let verifying_key = match key.public() {
            Some(public) => match &public.y {
                Some(y) => DecodingKey::from_ec_components(&public.x, y)?,
                None => DecodingKey::from_ed_components(&public.x)?,
            },
            None => DecodingKey::from_secret(key.private()),
        };
        Ok(Self { prefix: token[..=end].to_owned(), key: verifying_key, validation })
    }
}

fn signing_key(key: &Key) -> EncodingKey {
    match key.algorithm() {
        SigningAlgorithm::EdDsa => EncodingKey::from_ed_der(key.private()),
        SigningAlgorithm::Es256 => EncodingKey::from_ec_der(key.private()),
        SigningAlgorithm::Hs256 => EncodingKey::from_secret(key.private()),
    }
}

fn algorithm(key: &Key) -> jsonwebtoken::Algorithm {
    match key.algorithm() {
        SigningAlgorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        SigningAlgorithm::Es256 => jsonwebtoken::Algorithm::ES256,
        SigningAlgorithm::Hs256 => jsonwebtoken::Algorithm::HS256,
    }
}

fn header(key: &Key) -> Header {
    let mut header = Header::new(algorithm(key));
    // RFC 9068, 2.1: prevents other kinds of JWT from being accepted as access tokens.
    header.typ = Some("at+jwt".into());
    header.kid = Some(key.id().into());
    header
}
