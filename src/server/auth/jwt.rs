//! The text form of access tokens: claims, and signing (RFC 7519, RFC 9068); `hallpass-guard` verifies them. This file
//! does no I/O, reads no clock, and does not decide whether a token is live. It is the only file that signs.

use anyhow::Result;
use hallpass_allowlist::TokenRecord;
use hallpass_guard::{AccessClaims, NotOurs, Verifier, VerifyingKey};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde::{Deserialize, Serialize};

use super::{key::Key, keys::Keys};
use crate::{
    api::types::{AccessToken, Assurance, Role},
    server::{
        clock::UnixSeconds,
        config::{SigningAlgorithm, TokenConfig},
        db::sessions::SignIn,
        ids::{SessionId, TokenId, UserId},
    },
};

/// The claims of an access token: exactly these, each of exactly this type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
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
    /// When, how and how surely the user signed in (RFC 9068, 2.2.1); absent in tokens of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_time: Option<UnixSeconds>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acr: Option<Assurance>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub amr: Vec<String>,
}

/// What an access token says about its user and their sign-in.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    pub email: &'a str,
    pub role: Role,
    /// `None` while an instance is running that does not accept tokens which say it.
    pub sign_in: Option<SignIn>,
}

impl AccessClaims for Claims {
    fn issued_at(&self) -> UnixSeconds {
        self.iat
    }

    fn expires_at(&self) -> UnixSeconds {
        self.exp
    }
}

/// Signs with one key; verifies with that key and, during a key rotation, with the previous one.
pub struct Jwt {
    issuer: String,
    audience: String,
    header: Header,
    signing_key: EncodingKey,
    verifiers: Vec<Verifier>,
}

impl Jwt {
    pub fn new(config: &TokenConfig, keys: &Keys) -> Result<Self> {
        Ok(Self {
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            header: header(keys.current()),
            signing_key: signing_key(keys.current()),
            verifiers: keys.all().map(|key| verifier(config, key)).collect::<Result<_>>()?,
        })
    }

    /// Makes the access token for an allowlist entry.
    ///
    /// # Errors
    /// Never with the keys that [`Jwt::new`] accepted.
    pub fn sign(&self, entry: &TokenRecord, subject: &Subject<'_>, now: UnixSeconds) -> Result<AccessToken> {
        let Subject { email, role, sign_in } = *subject;
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: entry.user_id,
            sid: entry.session_id,
            jti: entry.token_id,
            email: email.to_owned(),
            role,
            iat: now,
            exp: entry.expires_at,
            auth_time: sign_in.map(|sign_in| sign_in.at),
            acr: sign_in.map(|sign_in| sign_in.method.assurance()),
            amr: sign_in.map_or_else(Vec::new, |sign_in| {
                sign_in.method.references().iter().map(ToString::to_string).collect()
            }),
        };
        Ok(AccessToken::new(encode(&self.header, &claims, &self.signing_key)?))
    }

    /// The claims of a token that we signed, expired or not.
    ///
    /// # Errors
    /// [`NotOurs`]: see [`Verifier::verify`]; or a claim is unknown.
    pub fn verify(&self, token: &str) -> Result<Claims, NotOurs> {
        self.verifiers.iter().find(|verifier| verifier.is_for(token)).ok_or(NotOurs)?.verify(token)
    }
}

fn verifier(config: &TokenConfig, key: &Key) -> Result<Verifier> {
    let verifying_key = match key.public() {
        Some(public) => match &public.y {
            Some(y) => VerifyingKey::P256 { x: &public.x, y },
            None => VerifyingKey::Ed25519 { x: &public.x },
        },
        None => VerifyingKey::Secret(key.private()),
    };
    Ok(Verifier::new(&config.issuer, &config.audience, key.id(), verifying_key)?)
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
