//! Revoke: log out, and what 2xx promises (RFC 7009).
//!
//! When a call here returns `Ok`, no instance accepts any token of the session from that moment
//! on. When that cannot be made certain it returns [`AuthError::Unavailable`], and the client must
//! take the session for alive (RFC 7009, 2.2.1).

use std::collections::HashSet;

use axum::http::HeaderMap;
use tracing::{error, info};

use super::{
    Auth,
    allowlist::{RevokeError, Whose},
    refresh_token,
    verify::{Authenticated, bearer},
};
use crate::{
    api::{
        error::AuthError,
        types::{RefreshToken, Revocation},
    },
    server::{clock::UnixSeconds, ids::SessionId},
};

impl Auth {
    /// Ends the session of every token that was presented: the bearer of the request, expired or
    /// not, and refresh tokens, used up or not. Ended sessions and repeated calls succeed again.
    ///
    /// # Errors
    /// [`AuthError::MissingToken`] when there is none; [`AuthError::InvalidToken`] when none of
    /// them was ever ours; [`AuthError::Unavailable`].
    pub async fn logout(
        &self,
        headers: &HeaderMap,
        refresh_tokens: &[RefreshToken],
        now: UnixSeconds,
    ) -> Result<Revocation, AuthError> {
        let mut sessions = HashSet::new();
        let bearer = match bearer(headers) {
            Ok(token) => Some(token),
            Err(AuthError::MissingToken) => None,
            Err(_) if !refresh_tokens.is_empty() => None,
            Err(error) => return Err(error),
        };
        sessions
            .extend(bearer.and_then(|token| self.jwt.verify_signature(token).ok()).map(|claims| claims.sid));
        sessions.extend(
            refresh_tokens
                .iter()
                .filter_map(|token| refresh_token::verify(&self.keys, token))
                .map(|(id, _)| id),
        );
        if sessions.is_empty() {
            let nothing_presented = bearer.is_none() && refresh_tokens.is_empty();
            return Err(if nothing_presented { AuthError::MissingToken } else { AuthError::InvalidToken });
        }
        let mut total = Revocation { instances: 0, acknowledged: u32::MAX, elapsed_ms: 0 };
        for session_id in sessions {
            let one = self.end_session(session_id, "log-out", now).await?;
            total.instances = total.instances.max(one.instances);
            total.acknowledged = total.acknowledged.min(one.acknowledged);
            total.elapsed_ms += one.elapsed_ms;
        }
        Ok(total)
    }

    /// Ends all sessions of the bearer; with `keep_current`, all but the one that asks.
    ///
    /// # Errors
    /// [`AuthError::Unavailable`].
    pub async fn logout_everywhere(
        &self,
        authenticated: &Authenticated,
        keep_current: bool,
        now: UnixSeconds,
    ) -> Result<Revocation, AuthError> {
        let user_id = authenticated.user_id();
        let except = keep_current.then(|| authenticated.session_id());
        let reason = "log-out everywhere";
        let revocation =
            self.allowlist.revoke(Whose::User(user_id, except), reason, now).await.map_err(unconfirmed)?;
        info!(user.id = %user_id, "ended the sessions of user {user_id}: {reason}");
        Ok(revocation)
    }

    /// Ends one session, for the reason given.
    pub(super) async fn end_session(
        &self,
        session_id: SessionId,
        reason: &'static str,
        now: UnixSeconds,
    ) -> Result<Revocation, AuthError> {
        let revocation =
            self.allowlist.revoke(Whose::Session(session_id), reason, now).await.map_err(unconfirmed)?;
        info!(session.id = %session_id, "ended session {session_id}: {reason}");
        Ok(revocation)
    }
}

/// Logged here, once, for the operator. The client learns that it may try again.
fn unconfirmed(error: RevokeError) -> AuthError {
    error!(%error, "a revocation could not be made certain: {error}");
    AuthError::Unavailable
}
