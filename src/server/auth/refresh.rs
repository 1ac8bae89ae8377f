//! Refresh: exchange a session's refresh token for the next pair (RFC 6749, 6; RFC 9700, 4.14.2).
//!
//! The counter of each refresh token is one higher than that of its predecessor, and only the current token
//! is exchanged for a new one:
//! - Its first use replaces it, in one transaction that locks the session's row and so excludes a
//!   concurrent logout.
//! - If it is presented again within the grace, the response to its first use was lost (or a second tab
//!   sent it at the same moment). It is answered with the *same* successor, so that a session never has two
//!   successions of tokens.
//! - If it is presented later, or if an even older token is presented, somebody holds a copy. The server
//!   cannot distinguish the thief from the user, so it revokes the session, and the user's next visit shows
//!   the reason.

use tracing::warn;

use super::{Auth, TokenPair, jwt::Subject, refresh_token, unavailable};
use crate::{
    api::{
        error::ApiError,
        types::{EndReason, RefreshToken},
    },
    server::{
        client_info::ClientInfo,
        clock::UnixSeconds,
        db::sessions::{Presented, RefreshDecision, RefreshState, Rotation},
        ids::TokenId,
    },
};

impl Auth {
    /// Issues the next pair of the session.
    ///
    /// # Errors
    /// [`ApiError::InvalidGrant`] when the token is forged or already used, or its session has ended;
    /// [`ApiError::TooManyRequests`], which does not depend on the state of the session;
    /// [`ApiError::Unavailable`].
    pub async fn refresh(
        &self,
        token: &RefreshToken,
        caller: &ClientInfo,
        clock: impl Fn() -> UnixSeconds,
    ) -> Result<TokenPair, ApiError> {
        let (session_id, counter) =
            refresh_token::verify(&self.ring().keys, token).ok_or_else(ApiError::dead_refresh_token)?;
        let charge = self.throttle.charge_refresh(session_id).await?;
        let presented =
            Presented { session_id, counter, token_id: TokenId::random(), device: caller.device() };
        let grace = self.config.refresh_grace_seconds;
        let decide = move |state, now| decide(state, counter, now, grace);
        let rotation = self.db.rotate(presented, &self.config, clock, decide).await;
        if rotation.is_err() {
            self.throttle.refund(charge).await;
        }
        match rotation.map_err(unavailable)? {
            Rotation::Done(next) => {
                let subject = Subject { email: &next.email, role: next.role, sign_in: Some(next.sign_in) };
                self.issue_pair(&next.entry, subject, next.counter, next.idle_at, next.now).await
            }
            Rotation::Reused(now) => {
                warn!(session.id = %session_id, "a used refresh token was presented again: revoked session {session_id}");
                self.end_session(session_id, None, EndReason::TokenReused, now).await?;
                Err(ApiError::InvalidGrant(EndReason::TokenReused.words().into()))
            }
            Rotation::Ended(reason) => Err(ApiError::InvalidGrant(reason.words().into())),
            Rotation::Unknown => Err(ApiError::dead_refresh_token()),
        }
    }
}

/// What a refresh token that counts `presented` is worth at `now`; with the grace in seconds.
fn decide(state: RefreshState, presented: i64, now: UnixSeconds, grace: i64) -> RefreshDecision {
    match state.counter.saturating_sub(presented) {
        ..0 => RefreshDecision::Unknown,
        0 => RefreshDecision::Advance,
        1 if now - state.rotated_at <= grace => RefreshDecision::Repeat,
        _ => RefreshDecision::Reused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_current_token_and_within_the_grace_the_one_before_are_good() {
        let state = RefreshState { counter: 5, rotated_at: 1000 };
        for (presented, now, decision) in [
            (5, 1000, RefreshDecision::Advance),
            (5, 9999, RefreshDecision::Advance),
            (4, 1000, RefreshDecision::Repeat),
            (4, 1010, RefreshDecision::Repeat),
            (4, 1011, RefreshDecision::Reused),
            (3, 1000, RefreshDecision::Reused),
            (i64::MIN, 1000, RefreshDecision::Reused),
            (6, 1000, RefreshDecision::Unknown),
            (i64::MAX, 1000, RefreshDecision::Unknown),
        ] {
            assert_eq!(decide(state, presented, now, 10), decision, "{presented} at {now}");
        }
    }
}
