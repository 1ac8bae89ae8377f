//! Revoke: logout and the other ways to end a session, and what 2xx promises (RFC 7009).
//!
//! When a call here returns `Ok`, no instance accepts any token of the session from that moment on. When
//! the revocation cannot be confirmed, it returns [`ApiError::Unavailable`], and the client must assume
//! that the session is still live (RFC 7009, 2.2.1).

use std::collections::HashMap;

use axum::http::HeaderMap;
use futures::future::join_all;
use hallpass_allowlist::{RevokedSession, Whose};
use hallpass_guard::{Refusal, bearer};
use tracing::{error, info};

use super::{Auth, allowlist::RevokeError, authenticate::Authenticated, refresh_token, unavailable};
use crate::{
    api::{
        error::ApiError,
        types::{EndReason, RefreshToken, Revocation},
    },
    server::{
        clock::UnixSeconds,
        db::ChangeError,
        ids::{SessionId, UserId},
    },
};

impl Auth {
    /// Revokes the session of every token that was presented: the bearer of the request, expired or not,
    /// and refresh tokens, used or not. Repeated calls, and calls for sessions that have ended, succeed.
    ///
    /// # Errors
    /// [`ApiError::MissingToken`] when no token was presented; [`ApiError::InvalidToken`] when we issued
    /// none of them; [`ApiError::InvalidRequest`] when there is more than one `Authorization` header and no
    /// refresh token; [`ApiError::Unavailable`].
    pub async fn logout(
        &self,
        headers: &HeaderMap,
        refresh_tokens: &[RefreshToken],
        reason: EndReason,
        now: UnixSeconds,
    ) -> Result<Revocation, ApiError> {
        // The sessions and, if the bearer names them, their users: SQL may have lost the session.
        let mut sessions: HashMap<SessionId, Option<UserId>> = HashMap::new();
        let bearer = match bearer(headers) {
            Ok(token) => Some(token),
            Err(Refusal::MissingToken) => None,
            Err(_) if !refresh_tokens.is_empty() => None,
            Err(error) => return Err(error.into()),
        };
        for token in refresh_tokens {
            if let Some((session_id, _)) = refresh_token::verify(&self.ring().keys, token) {
                sessions.insert(session_id, None);
            }
        }
        if let Some(claims) = bearer.and_then(|token| self.ring().jwt.verify(token).ok()) {
            sessions.insert(claims.sid, Some(claims.sub));
        }
        if sessions.is_empty() {
            let nothing_presented = bearer.is_none() && refresh_tokens.is_empty();
            return Err(if nothing_presented { ApiError::MissingToken } else { ApiError::InvalidToken });
        }
        // A session that cannot be ended must not keep the others alive.
        let ending =
            sessions.into_iter().map(|(session_id, user_id)| self.log_out(session_id, user_id, reason, now));
        let ended: Vec<_> = join_all(ending).await.into_iter().collect::<Result<_, ApiError>>()?;
        Ok(Revocation {
            instances: ended.iter().map(|one| one.instances).max().unwrap_or_default(),
            acknowledged: ended.iter().map(|one| one.acknowledged).min().unwrap_or_default(),
            elapsed_ms: ended.iter().map(|one| one.elapsed_ms).max().unwrap_or_default(),
        })
    }

    /// Revokes the session of a token, an access token, expired or not, or a refresh token, used or not. `None` if we
    /// have not issued it.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`].
    pub async fn revoke_token(&self, token: &str, now: UnixSeconds) -> Result<Option<Revocation>, ApiError> {
        let (session_id, user_id) = match self.ring().jwt.verify(token) {
            Ok(claims) => (claims.sid, Some(claims.sub)),
            Err(_) => match refresh_token::verify(&self.ring().keys, &RefreshToken::new(token.to_owned())) {
                Some((session_id, _)) => (session_id, None),
                None => return Ok(None),
            },
        };
        self.log_out(session_id, user_id, EndReason::SignedOut, now).await.map(Some)
    }

    /// Ends a session that a token names. SQL may have lost it; then the token has to name the user as well.
    async fn log_out(
        &self,
        session_id: SessionId,
        user_id: Option<UserId>,
        reason: EndReason,
        now: UnixSeconds,
    ) -> Result<Revocation, ApiError> {
        let db = self.db.clone();
        let recording = async move { db.revoke_session(session_id, None, reason, now).await };
        let revocation = self.allowlist.logout(session_id, user_id, recording).await;
        let revocation = revocation.map_err(|error| unconfirmed(&error))?;
        log_end_of(session_id, reason);
        Ok(answer_of(revocation))
    }

    /// Revokes one session of the bearer's own user.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] when the user has no such session, even if another user has;
    /// [`ApiError::InvalidToken`] when the bearer's session has been revoked concurrently;
    /// [`ApiError::Unavailable`].
    pub async fn revoke_session(
        &self,
        authenticated: &Authenticated,
        session_id: &str,
        now: UnixSeconds,
    ) -> Result<Revocation, ApiError> {
        let session_id: SessionId = session_id.parse().map_err(|_| ApiError::NotFound)?;
        let owner = self.db.session_owner(session_id).await.map_err(unavailable)?;
        if owner != Some(authenticated.user_id()) {
            return Err(ApiError::NotFound);
        }
        let is_current = session_id == authenticated.session_id();
        let reason = if is_current { EndReason::SignedOut } else { EndReason::EndedElsewhere };
        self.end_session(session_id, Some(authenticated.session_id()), reason, now).await
    }

    /// Revokes the bearer's session, which another one of the same user has replaced.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`].
    pub async fn replace_session(
        &self,
        authenticated: &Authenticated,
        now: UnixSeconds,
    ) -> Result<Revocation, ApiError> {
        let (session_id, user_id) = (authenticated.session_id(), Some(authenticated.user_id()));
        self.log_out(session_id, user_id, EndReason::Replaced, now).await
    }

    /// Revokes all sessions of the bearer's user; with `keep_current`, all except the bearer's. The caller
    /// has already checked that the request comes from the user ([`Auth::require_recent`]).
    ///
    /// # Errors
    /// [`ApiError::InvalidToken`] when the bearer's session has been revoked concurrently;
    /// [`ApiError::Unavailable`].
    pub async fn logout_everywhere(
        &self,
        authenticated: &Authenticated,
        keep_current: bool,
        now: UnixSeconds,
    ) -> Result<Revocation, ApiError> {
        let except = keep_current.then(|| authenticated.session_id());
        let (user_id, by) = (authenticated.user_id(), Some(authenticated.session_id()));
        self.end_sessions_of(user_id, except, by, EndReason::SignedOutEverywhere, now).await
    }

    /// Revokes one session for the given reason; with `by`, on the authority of that session.
    pub(super) async fn end_session(
        &self,
        session_id: SessionId,
        by: Option<SessionId>,
        reason: EndReason,
        now: UnixSeconds,
    ) -> Result<Revocation, ApiError> {
        let db = self.db.clone();
        let recording = async move { db.revoke_session(session_id, by, reason, now).await };
        let revocation = self.allowlist.revoke_session(session_id, None, recording).await;
        let revocation = revocation.map_err(|error| unconfirmed(&error))?;
        log_end_of(session_id, reason);
        Ok(answer_of(revocation))
    }

    /// Revokes the sessions of a user, except one, for the given reason; with `by`, on the authority of that session.
    pub(super) async fn end_sessions_of(
        &self,
        user_id: UserId,
        except: Option<SessionId>,
        by: Option<SessionId>,
        reason: EndReason,
        now: UnixSeconds,
    ) -> Result<Revocation, ApiError> {
        let db = self.db.clone();
        let recording = async move { db.revoke_sessions_of(user_id, except, by, reason, now).await };
        let revocation = self.revoke(Whose::User { user_id, except }, recording).await?;
        let why = reason.as_str();
        info!(user.id = %user_id, "ended the sessions of user {user_id}: {why}");
        Ok(revocation)
    }

    /// Records a revocation with `recording`, propagates it and waits for its confirmation.
    ///
    /// # Errors
    /// [`ApiError::NotFound`] when `recording` finds nothing to change; [`ApiError::InvalidToken`] when the
    /// calling session has been revoked concurrently; [`ApiError::Unavailable`].
    pub(super) async fn revoke(
        &self,
        whose: Whose,
        recording: impl Future<Output = Result<Vec<RevokedSession>, ChangeError>> + Send + 'static,
    ) -> Result<Revocation, ApiError> {
        let revocation = self.allowlist.revoke(whose, recording).await;
        revocation.map(answer_of).map_err(|error| unconfirmed(&error))
    }
}

fn log_end_of(session_id: SessionId, reason: EndReason) {
    let why = reason.as_str();
    info!(session.id = %session_id, "ended session {session_id}: {why}");
}

fn answer_of(revocation: hallpass_allowlist::Revocation) -> Revocation {
    let hallpass_allowlist::Revocation { instances, acknowledged, elapsed } = revocation;
    Revocation { instances, acknowledged, elapsed_ms: elapsed.as_millis().try_into().unwrap_or(u64::MAX) }
}

/// Logs a revocation that is not confirmed and maps it to the error that invites the client to try again.
fn unconfirmed(error: &RevokeError) -> ApiError {
    match error {
        RevokeError::NotRecorded(ChangeError::NotFound) => ApiError::NotFound,
        RevokeError::NotRecorded(ChangeError::SessionEnded) => ApiError::InvalidToken,
        _ => {
            error!(%error, "revocation not confirmed: {error}");
            ApiError::Unavailable
        }
    }
}
