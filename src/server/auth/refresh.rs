//! Refresh: exchange a session's refresh token for the next pair (RFC 6749, 6; RFC 9700, 4.14.2).
//!
//! Each refresh token counts one more than the last, and only the current one buys the next:
//! - Presented once, it is used up, by one compare-and-set in SQL that also excludes a log-out
//!   running beside it.
//! - Presented again within the grace, the answer to its first use was lost (or a second tab asked
//!   at the same moment): the *same* successor is given, so that no chain ever forks.
//! - Presented later than that, or older still, someone holds a copy. Nobody can tell who is the
//!   thief, so the session ends, and the next visit says why.

use tracing::warn;

use super::{Auth, TokenPair, refresh_token, unavailable};
use crate::{
    api::{error::AuthError, types::RefreshToken},
    server::{
        clock::UnixSeconds,
        ids::TokenId,
        sessions::{Rotation, TokenEntry},
    },
};

impl Auth {
    /// The next pair of the session.
    ///
    /// # Errors
    /// [`AuthError::InvalidGrant`] when the token is forged or used up, or its session has ended;
    /// [`AuthError::Unavailable`].
    pub async fn refresh(&self, token: &RefreshToken, now: UnixSeconds) -> Result<TokenPair, AuthError> {
        let (session_id, counter) =
            refresh_token::verify(&self.keys, token).ok_or_else(AuthError::dead_refresh_token)?;
        let token_id = TokenId::random();
        let (ttl, grace) = (self.config.access_ttl_seconds, self.config.refresh_grace_seconds);
        let rotation = self.db.rotate(session_id, counter, token_id, ttl, grace, now).await;
        match rotation.map_err(unavailable)? {
            Rotation::Done(session) => {
                let expires_at = session.expires_at.min(now + ttl);
                let entry = TokenEntry { token_id, session_id, user_id: session.user_id, expires_at };
                self.allow(&entry, &session.email, session.counter, session.expires_at, now)
            }
            Rotation::Reused => {
                warn!(session.id = %session_id, "a used refresh token came back: ended session {session_id}");
                self.end_session(session_id, "refresh token reuse", now).await?;
                Err(AuthError::InvalidGrant(
                    "This session was used from two places, so it was ended. Sign in again.".into(),
                ))
            }
            Rotation::Unknown => Err(AuthError::dead_refresh_token()),
        }
    }
}
