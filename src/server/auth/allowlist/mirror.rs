//! This instance's copy of the allowlist, in memory.
//!
//! A session's state only moves one way: unknown, live, dead. All tokens of a session share one
//! flag, so that revoking it is one store, however many tokens it has; and a token inserted late,
//! by a refresh that ran beside the log-out, finds the flag already set. A dead session is
//! remembered (a tombstone) until every token it can have had has expired.
//!
//! Only `allowlist/mod.rs` calls this.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::server::{
    clock::UnixSeconds,
    ids::{SessionId, TokenId, UserId},
    sessions::TokenEntry,
};

/// Longer than any access token lives: 300 s is the most that the settings allow.
const TOMBSTONE_LIFE: Duration = Duration::from_secs(600);

/// How long an expired token is kept, in seconds.
const CLOCK_MARGIN: i64 = 3600;

#[derive(Default)]
pub struct Mirror {
    /// Read by every protected request, so without a lock: a reader never waits for a writer.
    tokens: papaya::HashMap<TokenId, Token, foldhash::fast::RandomState>,
    /// Read and written by log-in, refresh, log-out and the drawing of pages, never by a protected
    /// call. Its lock is not held across an `await`, and orders the changes of `tokens` too: two
    /// tokens of a session never hold different flags.
    sessions: Mutex<HashMap<SessionId, Session>>,
}

struct Token {
    session_id: SessionId,
    user_id: UserId,
    expires_at: UnixSeconds,
    /// The flag of its session.
    revoked: Arc<AtomicBool>,
}

#[derive(Default)]
struct Session {
    revoked: Arc<AtomicBool>,
    /// When the last of its tokens expires.
    live_until: UnixSeconds,
    /// By the clock that nobody can set: a tombstone must not go early.
    revoked_at: Option<Instant>,
}

impl Mirror {
    /// Adds a token. If its session is dead, the token is born dead: it gets the session's flag.
    pub fn insert(&self, entry: &TokenEntry) {
        let mut sessions = self.sessions();
        let session = sessions.entry(entry.session_id).or_default();
        session.live_until = session.live_until.max(entry.expires_at);
        let token = Token {
            session_id: entry.session_id,
            user_id: entry.user_id,
            expires_at: entry.expires_at,
            revoked: Arc::clone(&session.revoked),
        };
        self.tokens.pin().insert(entry.token_id, token);
    }

    /// Whether the mirror holds exactly this entry, and its session is not dead.
    pub fn is_active(&self, entry: &TokenEntry) -> bool {
        self.tokens.pin().get(&entry.token_id).is_some_and(|token| {
            token.session_id == entry.session_id
                && token.user_id == entry.user_id
                && token.expires_at == entry.expires_at
                // Pairs with the release in `revoke`: a request that starts after a log-out was
                // answered sees it.
                && !token.revoked.load(Ordering::Acquire)
        })
    }

    /// Whether a token of the session has not expired, and the session is not dead.
    pub fn has_live_token(&self, session_id: SessionId, now: UnixSeconds) -> bool {
        self.sessions()
            .get(&session_id)
            .is_some_and(|session| session.revoked_at.is_none() && session.live_until > now)
    }

    /// Marks the session dead, known or not.
    pub fn revoke(&self, session_id: SessionId) {
        let mut sessions = self.sessions();
        let session = sessions.entry(session_id).or_default();
        session.revoked.store(true, Ordering::Release);
        session.revoked_at.get_or_insert_with(Instant::now);
    }

    /// Drops dead and expired tokens, sessions without a live token, and tombstones that have
    /// done their work.
    pub fn forget_expired(&self, now: UnixSeconds) {
        // A clock that is set wrong for a while must not cost a live token.
        let now = now - CLOCK_MARGIN;
        let mut sessions = self.sessions();
        self.tokens.pin().retain(|_, token| token.expires_at > now && !token.revoked.load(Ordering::Acquire));
        sessions.retain(|_, session| match session.revoked_at {
            Some(at) => at.elapsed() < TOMBSTONE_LIFE,
            None => session.live_until > now,
        });
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<SessionId, Session>> {
        // Each critical section leaves the map whole at every step: a panic in one spoils nothing.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(session_id: SessionId, expires_at: UnixSeconds) -> TokenEntry {
        TokenEntry { token_id: TokenId::random(), session_id, user_id: UserId::random(), expires_at }
    }

    #[test]
    fn revoking_a_session_ends_all_of_its_tokens_and_no_others() {
        let mirror = Mirror::default();
        let session = SessionId::random();
        let (first, second) = (entry(session, 100), entry(session, 200));
        let other = entry(SessionId::random(), 100);
        for token in [&first, &second, &other] {
            mirror.insert(token);
            assert!(mirror.is_active(token));
        }
        mirror.revoke(session);
        assert!(!mirror.is_active(&first) && !mirror.is_active(&second));
        assert!(mirror.is_active(&other));
        assert!(!mirror.has_live_token(session, 0));
    }

    #[test]
    fn a_token_that_arrives_after_its_sessions_revocation_stays_out() {
        let mirror = Mirror::default();
        let session = SessionId::random();
        mirror.revoke(session);
        let late = entry(session, 100);
        mirror.insert(&late);
        assert!(!mirror.is_active(&late));
        mirror.forget_expired(1_000_000);
        mirror.insert(&late);
        assert!(!mirror.is_active(&late), "the tombstone went too early");
    }

    #[test]
    fn a_token_is_known_only_with_its_own_session_user_and_expiry() {
        let mirror = Mirror::default();
        let known = entry(SessionId::random(), 100);
        mirror.insert(&known);
        assert!(!mirror.is_active(&TokenEntry { session_id: SessionId::random(), ..known }));
        assert!(!mirror.is_active(&TokenEntry { user_id: UserId::random(), ..known }));
        assert!(!mirror.is_active(&TokenEntry { expires_at: 101, ..known }));
        assert!(!mirror.is_active(&TokenEntry { token_id: TokenId::random(), ..known }));
    }

    #[test]
    fn what_has_expired_is_forgotten_and_what_lives_is_not() {
        let mirror = Mirror::default();
        let session = SessionId::random();
        let (old, new) = (entry(session, 100), entry(session, 200));
        mirror.insert(&old);
        mirror.insert(&new);
        mirror.forget_expired(100 + CLOCK_MARGIN);
        assert!(!mirror.is_active(&old));
        assert!(mirror.is_active(&new) && mirror.has_live_token(session, 100));
        mirror.forget_expired(200 + CLOCK_MARGIN);
        assert_eq!((mirror.tokens.len(), mirror.sessions().len()), (0, 0));
    }
}
