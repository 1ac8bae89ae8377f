//! What a verified access token says, as far as requests need it.

use hallpass_allowlist::TokenRecord;

use super::jwt::Claims;
use crate::{
    api::types::Role,
    server::{
        clock::UnixSeconds,
        ids::{SessionId, TokenId, UserId},
    },
};

/// The part of a verified token's claims that requests need.
#[derive(Debug)]
pub struct VerifiedClaims {
    pub user_id: UserId,
    pub session_id: SessionId,
    pub token_id: TokenId,
    pub email: Box<str>,
    pub role: Role,
    pub expires_at: UnixSeconds,
}

impl VerifiedClaims {
    /// The entry of the allowlist that must exist for the token to be live.
    pub fn record(&self) -> TokenRecord {
        let Self { user_id, session_id, token_id, expires_at, .. } = *self;
        TokenRecord { token_id, session_id, user_id, expires_at }
    }
}

impl From<Claims> for VerifiedClaims {
    fn from(claims: Claims) -> Self {
        let Claims { sub, sid, jti, email, role, exp, .. } = claims;
        Self {
            user_id: sub,
            session_id: sid,
            token_id: jti,
            email: email.into_boxed_str(),
            role,
            expires_at: exp,
        }
    }
}
