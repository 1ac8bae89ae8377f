//! Access tokens as text: claims, keys, sign, verify (RFC 7519, RFC 9068). No I/O, no clock, and
//! no opinion on whether a token is alive. The only file that names `jsonwebtoken`.

use anyhow::{Context, Result};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, encode};
use serde::{Deserialize, Serialize};

use super::keys::Keys;
use crate::{
    api::types::{AccessToken, Role},
    server::{
        clock::UnixSeconds,
        config::TokenConfig,
        db::access_tokens::TokenRecord,
        ids::{SessionId, TokenId, UserId},
    },
};

/// The most that an access token may live, whatever a signed `exp` says.
const MAX_TTL: i64 = 300;

/// What an access token says: these claims, each of exactly this type, and no others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessClaims {
    pub iss: String,
    pub aud: String,
    pub sub: UserId,
    pub sid: SessionId,
    pub jti: TokenId,
    pub email: String,
    /// Absent for those who may do nothing special.
    #[serde(default, skip_serializing_if = "Role::is_user")]
    pub role: Role,
    pub iat: UnixSeconds,
    pub exp: UnixSeconds,
}

impl AccessClaims {
    /// The entry of the allowlist that has to stand for this token to be alive.
    pub fn entry(&self) -> TokenRecord {
        TokenRecord { token_id: self.jti, session_id: self.sid, user_id: self.sub, expires_at: self.exp }
    }
}

/// Not a token that we signed, whatever the reason: the caller must not tell it apart.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an access token of ours")]
pub struct NotOurs;

/// Signs with one key; verifies with that and, while keys are being changed, the one before.
pub struct Jwt {
    issuer: String,
    audience: String,
    header: Header,
    signing_key: EncodingKey,
    verifiers: Vec<Verifier>,
    validation: Validation,
}

struct Verifier {
    /// The header of every token signed with this key, encoded, with its dot.
    prefix: String,
    key: DecodingKey,
}

impl Jwt {
    pub fn new(config: &TokenConfig, keys: &Keys) -> Result<Self> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_issuer(&[&config.issuer]);
        validation.set_audience(&[&config.audience]);
        // A claim of the wrong type counts as absent, and an absent one is not checked: require them.
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        // Expiry is checked here, to the second, against the caller's clock; the library lets
        // `exp == now` pass (RFC 7519, 4.1.4, refuses it) and adds 60 s of leeway by default.
        validation.validate_exp = false;
        validation.leeway = 0;
        let verifiers = keys
            .all()
            .map(|key| {
                let (header, signing_key) = (header(key.id()), EncodingKey::from_secret(key.secret()));
                let token = encode(&header, &(), &signing_key).context("a token cannot be signed")?;
                let end = token.find('.').context("a signed token has no header")?;
                Ok(Verifier { prefix: token[..=end].to_owned(), key: DecodingKey::from_secret(key.secret()) })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            header: header(keys.current().id()),
            signing_key: EncodingKey::from_secret(keys.current().secret()),
            verifiers,
            validation,
        })
    }

    /// The token of an entry of the allowlist.
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
    /// Only we mint, so its header must be, byte for byte, one that we write: that settles `alg`,
    /// `kid`, `typ`, `crit` and every other parameter (RFC 8725, 3.1, 3.10, 3.11) before anything
    /// of it is parsed.
    ///
    /// # Errors
    /// [`NotOurs`]: another header, a wrong signature, a claim that is missing, unknown, of the
    /// wrong type or for someone else, or a life longer than we give.
    pub fn verify_signature(&self, token: &str) -> Result<AccessClaims, NotOurs> {
        let verifier = self.verifiers.iter().find(|key| token.starts_with(&key.prefix)).ok_or(NotOurs)?;
        #[expect(clippy::disallowed_methods, reason = "the one place that decodes")]
        let decoded = jsonwebtoken::decode::<AccessClaims>(token, &verifier.key, &self.validation);
        let claims = decoded.map_err(|_| NotOurs)?.claims;
        let life = claims.exp.checked_sub(claims.iat).ok_or(NotOurs)?;
        if (1..=MAX_TTL).contains(&life) { Ok(claims) } else { Err(NotOurs) }
    }
}

fn header(key_id: &str) -> Header {
    let mut header = Header::new(Algorithm::HS256);
    // RFC 9068, 2.1: no other kind of JWT can be taken for an access token.
    header.typ = Some("at+jwt".into());
    header.kid = Some(key_id.into());
    header
}
