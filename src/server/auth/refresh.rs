//! Refresh: exchange a session's refresh token for the next pair (RFC 6749, 6; RFC 9700, 4.14.2).
//!
//! Each refresh token counts one more than the last, and only the current one buys the next:
//! - Presented once, it is used up, in one transaction that holds the session's row, and so
//!   excludes a log-out running beside it.
//! - Presented again within the grace, the answer to its first use was lost (or a second tab asked
//!   at the same moment): the *same* successor is given, so that no chain ever forks.
//! - Presented later than that, or older still, someone holds a copy. Nobody can tell who is the
//!   thief, so the session ends, and the next visit says why.

use tracing::warn;

use super::{Auth, TokenPair, refresh_token, unavailable};
use crate::{
    api::{
        error::ApiError,
        types::{EndReason, RefreshToken},
    },
    server::{client_info::ClientInfo, clock::UnixSeconds, db::sessions::Rotation, ids::TokenId},
};

impl Auth {
    /// The next pair of the session.
    ///
    /// # Errors
    /// [`ApiError::InvalidGrant`] when the token is forged or used up, or its session has ended;
    /// [`ApiError::TooManyRequests`], which says nothing of the session; [`ApiError::Unavailable`].
    pub async fn refresh(
        &self,
        token: &RefreshToken,
        caller: &ClientInfo,
        clock: impl Fn() -> UnixSeconds,
    ) -> Result<TokenPair, ApiError> {
        let (session_id, counter) =
            refresh_token::verify(&self.keys, token).ok_or_else(ApiError::dead_refresh_token)?;
        let charge = self.throttle.charge_refresh(session_id).await?;
        let (token_id, device) = (TokenId::random(), Some(caller.device()));
        let rotation = self.db.rotate(session_id, counter, token_id, device, &self.config, clock).await;
        if rotation.is_err() {
            self.throttle.refund(charge).await;
        }
        match rotation.map_err(unavailable)? {
            Rotation::Done(next) => {
                self.allow(&next.entry, &next.email, next.role, next.counter, next.idle_at, next.now).await
            }
            Rotation::Reused(now) => {
                warn!(session.id = %session_id, "a used refresh token came back: ended session {session_id}");
                self.end_session(session_id, None, EndReason::TokenReused, now).await?;
                Err(ApiError::InvalidGrant(EndReason::TokenReused.words().into()))
            }
            Rotation::Ended(reason) => Err(ApiError::InvalidGrant(reason.words().into())),
            Rotation::Unknown => Err(ApiError::dead_refresh_token()),
        }
    }
}
