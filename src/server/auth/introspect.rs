//! Introspection: what a token says, for a service that asks about it (RFC 7662).

use serde::Serialize;
use utoipa::{
    ToSchema,
    openapi::{Object, ObjectBuilder, Type},
};

use super::{Auth, jwt::Claims};
use crate::{
    api::{
        error::ApiError,
        types::{Assurance, Role},
    },
    server::clock::UnixSeconds,
};

/// The answer about a token (RFC 7662, 2.2).
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Introspection {
    Live(Box<LiveToken>),
    /// Whatever is wrong with the token.
    Dead {
        #[schema(schema_with = only::<false>)]
        active: bool,
    },
}

/// The schema of a field that always has this value.
fn only<const VALUE: bool>() -> Object {
    ObjectBuilder::new().schema_type(Type::Boolean).enum_values(Some([VALUE])).build()
}

/// What a live token says.
#[derive(Debug, Serialize, ToSchema)]
pub struct LiveToken {
    #[schema(schema_with = only::<true>)]
    pub active: bool,
    /// `Bearer`.
    pub token_type: String,
    /// The e-mail address of the user.
    pub username: String,
    pub role: Role,
    pub iss: String,
    pub aud: String,
    /// The id of the user.
    pub sub: String,
    /// The id of the session.
    pub sid: String,
    /// The id of the token.
    pub jti: String,
    /// When the token was issued, in seconds since 1970.
    pub iat: UnixSeconds,
    /// When it expires, in seconds since 1970.
    pub exp: UnixSeconds,
    /// When the user signed in, in seconds since 1970 (RFC 9470, 6.2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_time: Option<UnixSeconds>,
    /// How surely the user was recognized.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acr: Option<Assurance>,
    /// How the user signed in: `pwd`, `otp`, `pop`, `user`, `mfa` (RFC 8176).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub amr: Vec<String>,
}

impl From<Claims> for LiveToken {
    fn from(claims: Claims) -> Self {
        let Claims { iss, aud, sub, sid, jti, email, role, iat, exp, auth_time, acr, amr } = claims;
        let [sub, sid, jti] = [sub.to_string(), sid.to_string(), jti.to_string()];
        let (active, token_type) = (true, "Bearer".into());
        let username = email;
        Self { active, token_type, username, role, iss, aud, sub, sid, jti, iat, exp, auth_time, acr, amr }
    }
}

impl Auth {
    /// What an access token says, if it is live. A refresh token is not: no service but this one accepts it.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] when it is undetermined whether the token is live.
    pub async fn introspect(&self, token: &str, now: UnixSeconds) -> Result<Introspection, ApiError> {
        match self.authorize(token, now).await {
            Ok(_) => {}
            Err(ApiError::InvalidToken) => return Ok(Introspection::Dead { active: false }),
            Err(error) => return Err(error),
        }
        // A key that was forgotten in this moment has signed nothing that has not expired.
        let claims = self.ring().jwt.verify(token);
        Ok(claims.map_or(Introspection::Dead { active: false }, |claims| {
            Introspection::Live(Box::new(claims.into()))
        }))
    }
}
