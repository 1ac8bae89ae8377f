//! Authorize: turn the header of a request into an [`Authenticated`], or refuse it. Needs no I/O for a live
//! token that is in the mirror, while the lease holds.
//!
//! A valid signature is never enough: this file alone makes an [`Authenticated`], and only after the
//! allowlist has confirmed that the token is live.

use std::sync::Arc;

use axum::http::HeaderMap;
use hallpass_allowlist::Undetermined;
use hallpass_guard::{MAX_TOKEN_BYTES, Refusal, bearer};

use super::{Auth, verified_claims::VerifiedClaims};
use crate::{
    api::{
        error::ApiError,
        types::{AccessToken, Account, Role, StatelessCheck},
    },
    server::{
        clock::UnixSeconds,
        ids::{SessionId, UserId},
    },
};

/// The proof that the request carried a live access token. A function that takes one cannot be called
/// without that proof.
#[derive(Debug, Clone)]
pub struct Authenticated {
    claims: Arc<VerifiedClaims>,
}

impl Authenticated {
    pub fn user_id(&self) -> UserId {
        self.claims.user_id
    }

    pub fn session_id(&self) -> SessionId {
        self.claims.session_id
    }

    pub fn email(&self) -> &str {
        &self.claims.email
    }

    /// Whether the bearer has the role of this name. An administrator is also a user.
    pub fn has_role(&self, name: &str) -> bool {
        name == self.claims.role.as_str() || name == Role::User.as_str()
    }

    /// The proof that the bearer is an administrator.
    ///
    /// # Errors
    /// [`ApiError::InsufficientScope`].
    pub fn administrator(self) -> Result<Administrator, ApiError> {
        match self.claims.role {
            Role::Admin => Ok(Administrator(self)),
            Role::User => Err(ApiError::InsufficientScope),
        }
    }

    /// The account that the token's claims describe.
    pub fn account(&self) -> Account {
        Account {
            sub: self.claims.user_id.to_string(),
            email: self.claims.email.to_string(),
            sid: self.claims.session_id.to_string(),
            jti: self.claims.token_id.to_string(),
            exp: self.claims.expires_at,
            role: self.claims.role,
        }
    }
}

/// The proof that the request carried a live access token of an administrator. The role is a claim of the
/// token and needs no lookup, because changing a role revokes the user's sessions.
#[derive(Debug, Clone)]
pub struct Administrator(Authenticated);

impl Administrator {
    pub fn user_id(&self) -> UserId {
        self.0.user_id()
    }

    pub fn session_id(&self) -> SessionId {
        self.0.session_id()
    }
}

impl Auth {
    /// Authenticates a request by the access token in its `Authorization` header (RFC 6750, 2.1, and no
    /// other place).
    ///
    /// # Errors
    /// [`ApiError::MissingToken`], [`ApiError::InvalidToken`]; [`ApiError::InvalidRequest`] when there is
    /// more than one such header; [`ApiError::Unavailable`].
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        now: UnixSeconds,
    ) -> Result<Authenticated, ApiError> {
        self.authorize(bearer(headers)?, now).await
    }

    /// Accepts a live access token: signed by us, unexpired at `now`, and in the allowlist.
    ///
    /// # Errors
    /// [`ApiError::InvalidToken`], whatever is wrong with the token; [`ApiError::Unavailable`] when it is
    /// undetermined whether it is live.
    pub async fn authorize(&self, token: &str, now: UnixSeconds) -> Result<Authenticated, ApiError> {
        let seen = self.verified.get(token);
        let first_time = seen.is_none();
        let claims = match seen {
            Some(claims) => claims,
            None => Arc::new(self.ring().jwt.verify(token).map_err(|_| ApiError::InvalidToken)?.into()),
        };
        // RFC 7519, 4.1.4: the token is invalid on and after `exp`.
        let now = self.allowlist.shared_time(now);
        if now >= claims.expires_at {
            return Err(ApiError::InvalidToken);
        }
        match self.allowlist.check(&claims.record()).await {
            Ok(true) => {}
            Ok(false) => return Err(ApiError::InvalidToken),
            Err(Undetermined) => return Err(ApiError::Unavailable),
        }
        if first_time {
            self.verified.insert(token, Arc::clone(&claims));
        }
        Ok(Authenticated { claims })
    }

    /// The result of validating a token without the allowlist. It only demonstrates the difference, and
    /// must not authorize a request.
    pub fn check_statelessly(&self, token: &AccessToken, now: UnixSeconds) -> StatelessCheck {
        let is_short = token.expose().len() <= MAX_TOKEN_BYTES;
        let claims = is_short.then(|| self.ring().jwt.verify(token.expose()).ok()).flatten();
        let expires_in = claims.map_or(0, |claims| (claims.exp - now).max(0));
        StatelessCheck { is_valid: expires_in > 0, expires_in }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::InvalidRequest(message) => Self::InvalidRequest(message.to_owned()),
            Refusal::MissingToken => Self::MissingToken,
            Refusal::InvalidToken => Self::InvalidToken,
            Refusal::InsufficientScope => Self::InsufficientScope,
            Refusal::Unavailable => Self::Unavailable,
            Refusal::Internal => Self::Internal,
        }
    }
}
