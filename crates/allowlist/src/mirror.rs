//! The mirror: this instance's copy of the allowlist, in memory.
//!
//! The state of a session changes in one direction only: unknown, live, dead. Dead wins over anything that
//! arrives later, so that the result of a lookup that began before a revocation cannot undo it. A dead
//! session is kept as a tombstone until all of its tokens have expired.
//!
//! `allowlist.rs` and `follower.rs` call this.

use papaya::Operation;
use tokio::time::Instant;

use crate::{
    clock::UnixSeconds,
    id::{SessionId, TokenId, UserId},
    notifier::RevocationNotifier,
    record::{MAX_TOKEN_LIFE, RETENTION, RevokedSession, TokenRecord, Whose},
};

/// How long a token is kept after its expiry, in seconds: dropping a live token would cost a lookup.
const EXPIRY_MARGIN: i64 = 60;

/// The largest difference between the expiry times of two live tokens of a session, in seconds.
const MAX_TTL: i64 = MAX_TOKEN_LIFE.as_secs().cast_signed();

/// The maximum number of older tokens that are kept for a session. Clients use the newest one, and a
/// session that is refreshed in a loop must not make each further token cost more than the last. A token
/// that is not kept is unknown, and is looked up when it is presented.
const MAX_OLDER: usize = 16;

/// The state of a token in the mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The mirror has never held the token, or has dropped it.
    Unknown,
    Live,
    /// The session of the token has been revoked.
    Dead,
}

pub struct Mirror {
    /// Read by every protected request, so without a lock: readers never wait for a writer. A session is
    /// replaced as a whole when it changes.
    sessions: papaya::HashMap<SessionId, Session, foldhash::fast::RandomState>,
    subscribers: RevocationNotifier,
}

impl Default for Mirror {
    fn default() -> Self {
        // Incremental resizing would make reads ten times slower until it is complete, which may take until
        // further sessions are added.
        let map = papaya::HashMap::builder().resize_mode(papaya::ResizeMode::Blocking);
        let sessions = map.hasher(foldhash::fast::RandomState::default()).build();
        Self { sessions, subscribers: RevocationNotifier::default() }
    }
}

enum Session {
    Live {
        user_id: UserId,
        /// The token that expires last.
        newest: Token,
        /// The other tokens that may still be live, the one that expires last first: usually none, and at
        /// most [`MAX_OLDER`].
        older: Box<[Token]>,
    },
    Dead {
        /// When the session was revoked, by a clock that cannot be set: a tombstone must not be dropped
        /// early.
        since: Instant,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Token {
    id: TokenId,
    expires_at: UnixSeconds,
}

impl Mirror {
    /// Adds a token, unless its session is dead, or already has [`MAX_OLDER`] older tokens that expire
    /// later.
    pub fn insert(&self, entry: &TokenRecord) {
        let token = Token { id: entry.token_id, expires_at: entry.expires_at };
        self.sessions.pin().compute(entry.session_id, |known| match known {
            None => Operation::Insert(Session::Live {
                user_id: entry.user_id,
                newest: token,
                older: Box::default(),
            }),
            Some((_, Session::Live { user_id, newest, older })) => {
                if *newest == token || older.contains(&token) {
                    return Operation::Abort(());
                }
                let (newest, other) =
                    if token.expires_at < newest.expires_at { (*newest, token) } else { (token, *newest) };
                let place = older.partition_point(|known| known.expires_at > other.expires_at);
                if place >= MAX_OLDER && other == token {
                    return Operation::Abort(());
                }
                let (later, earlier) = older.split_at(place);
                let may_live =
                    |older: &&Token| older.expires_at > newest.expires_at - MAX_TTL - EXPIRY_MARGIN;
                let kept = later.iter().chain([&other]).chain(earlier).filter(may_live).take(MAX_OLDER);
                let older = kept.copied().collect();
                Operation::Insert(Session::Live { user_id: *user_id, newest, older })
            }
            Some((_, Session::Dead { .. })) => Operation::Abort(()),
        });
    }

    /// The state of exactly this token, of this session and user.
    pub fn state(&self, entry: &TokenRecord) -> State {
        match self.sessions.pin().get(&entry.session_id) {
            None => State::Unknown,
            Some(Session::Dead { .. }) => State::Dead,
            Some(Session::Live { user_id, newest, older }) => {
                let token = Token { id: entry.token_id, expires_at: entry.expires_at };
                let known = *newest == token || older.contains(&token);
                if known && *user_id == entry.user_id { State::Live } else { State::Unknown }
            }
        }
    }

    /// The user of a session that has an unexpired token; `Err` if the session is dead, `None` if the
    /// mirror holds no such token.
    pub fn holder(&self, session_id: SessionId, now: UnixSeconds) -> Option<Result<UserId, Dead>> {
        match self.sessions.pin().get(&session_id)? {
            Session::Dead { .. } => Some(Err(Dead)),
            Session::Live { user_id, newest, .. } => (newest.expires_at > now).then_some(Ok(*user_id)),
        }
    }

    /// The live sessions of these users that the mirror holds.
    pub fn live_sessions(&self, whose: Whose) -> Vec<RevokedSession> {
        let sessions = self.sessions.pin();
        let live = sessions.iter().filter_map(|(session_id, session)| match session {
            Session::Live { user_id, .. } => Some((*session_id, *user_id)),
            Session::Dead { .. } => None,
        });
        live.filter(|(session_id, holder)| match whose {
            Whose::User { user_id, except } => *holder == user_id && except != Some(*session_id),
            Whose::Everyone => true,
        })
        .map(|(session_id, user_id)| RevokedSession {
            session_id,
            user_id: Some(user_id),
            tokens: Vec::new(),
        })
        .collect()
    }

    /// Marks a session as dead, even if it is unknown.
    pub fn revoke(&self, session_id: SessionId) {
        self.sessions.pin().compute(session_id, |known| match known {
            Some((_, Session::Dead { .. })) => Operation::Abort(()),
            _ => Operation::Insert(Session::Dead { since: Instant::now() }),
        });
        self.subscribers.tell(session_id);
    }

    /// Resolves when the session is dead in the mirror, at once if it already is.
    pub async fn until_dead(&self, session_id: SessionId) {
        // Subscribe first and check afterwards, so that a revocation in between is not missed.
        let ending = self.subscribers.wait(session_id);
        if !matches!(self.sessions.pin().get(&session_id), Some(Session::Dead { .. })) {
            ending.await;
        }
    }

    /// Drops sessions without a live token, and tombstones that are no longer needed.
    pub fn forget_expired(&self, now: UnixSeconds) {
        self.sessions.pin().retain(|_, session| match session {
            Session::Live { newest, .. } => newest.expires_at > now - EXPIRY_MARGIN,
            Session::Dead { since } => since.elapsed() < RETENTION,
        });
        self.subscribers.forget_gone();
    }

    /// The number of sessions in the mirror, including dead ones.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }
}

/// The session has been revoked.
#[derive(Debug, PartialEq, Eq)]
pub struct Dead;

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn entry(session_id: SessionId, expires_at: UnixSeconds) -> TokenRecord {
        TokenRecord { token_id: TokenId::random(), session_id, user_id: UserId::random(), expires_at }
    }

    fn next(entry: &TokenRecord, expires_at: UnixSeconds) -> TokenRecord {
        TokenRecord { token_id: TokenId::random(), expires_at, ..*entry }
    }

    #[test]
    fn revoking_a_session_ends_all_of_its_tokens_and_no_others() {
        let mirror = Mirror::default();
        let first = entry(SessionId::random(), 100);
        let second = next(&first, 200);
        let other = entry(SessionId::random(), 100);
        for token in [&first, &second, &other] {
            assert_eq!(mirror.state(token), State::Unknown);
            mirror.insert(token);
            assert_eq!(mirror.state(token), State::Live);
        }
        mirror.revoke(first.session_id);
        assert_eq!((mirror.state(&first), mirror.state(&second)), (State::Dead, State::Dead));
        assert_eq!(mirror.state(&other), State::Live);
        assert_eq!(mirror.holder(first.session_id, 0), Some(Err(Dead)));
        assert_eq!(mirror.holder(other.session_id, 0), Some(Ok(other.user_id)));
    }

    #[test]
    fn a_token_that_arrives_after_its_sessions_revocation_stays_out() {
        let mirror = Mirror::default();
        let late = entry(SessionId::random(), 100);
        mirror.revoke(late.session_id);
        mirror.insert(&late);
        assert_eq!(mirror.state(&late), State::Dead);
        mirror.forget_expired(1_000_000);
        mirror.insert(&late);
        assert_eq!(mirror.state(&late), State::Dead, "the tombstone went too early");
    }

    #[test]
    fn dead_wins_whatever_is_inserted_at_the_same_time() {
        let mirror = Mirror::default();
        let token = entry(SessionId::random(), 100);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|at| mirror.insert(&next(&token, at))));
            }
            scope.spawn(|| mirror.revoke(token.session_id));
        });
        assert_eq!(mirror.state(&token), State::Dead);
    }

    #[test]
    fn a_token_is_known_only_with_its_own_session_user_and_expiry() {
        let mirror = Mirror::default();
        let known = entry(SessionId::random(), 100);
        mirror.insert(&known);
        for other in [
            TokenRecord { session_id: SessionId::random(), ..known },
            TokenRecord { user_id: UserId::random(), ..known },
            TokenRecord { expires_at: 101, ..known },
            TokenRecord { token_id: TokenId::random(), ..known },
        ] {
            assert_eq!(mirror.state(&other), State::Unknown);
        }
    }

    fn older_count(mirror: &Mirror, session_id: SessionId) -> usize {
        match mirror.sessions.pin().get(&session_id) {
            Some(Session::Live { older, .. }) => older.len(),
            _ => panic!("the session is not live"),
        }
    }

    /// If each insert copied all earlier tokens, this would take minutes.
    #[test]
    fn session_that_refreshes_in_a_loop_keeps_a_bounded_number_of_tokens() {
        type Order = fn(i64) -> i64;
        let orders: [(Order, State); 3] = [
            (|_| 1000, State::Live),
            (|number| 1000 + number / 1000, State::Live),
            (|number| 1300 - number / 1000, State::Unknown),
        ];
        for (expires_at, state_of_the_last) in orders {
            let mirror = Mirror::default();
            let mut last = entry(SessionId::random(), 1000);
            for number in 0..100_000 {
                last = next(&last, expires_at(number));
                mirror.insert(&last);
                assert!(older_count(&mirror, last.session_id) <= MAX_OLDER);
            }
            assert_eq!(mirror.state(&last), state_of_the_last);
        }
    }

    #[test]
    fn newest_tokens_are_kept_and_a_look_up_of_an_old_one_pushes_none_of_them_out() {
        let mirror = Mirror::default();
        let first = entry(SessionId::random(), 1000);
        let tokens: Vec<_> = (0..100).map(|number| next(&first, 1000 + number)).collect();
        tokens.iter().for_each(|token| mirror.insert(token));
        let (dropped, kept) = tokens.split_at(tokens.len() - MAX_OLDER - 1);
        // An old token is unknown, so it is looked up, found to be live, and inserted again.
        for token in dropped.iter().chain(kept) {
            mirror.insert(token);
        }
        assert!(dropped.iter().all(|token| mirror.state(token) == State::Unknown));
        assert!(kept.iter().all(|token| mirror.state(token) == State::Live));
        mirror.revoke(first.session_id);
        assert!(tokens.iter().all(|token| mirror.state(token) == State::Dead));
    }

    #[test]
    fn what_has_expired_is_forgotten_and_what_lives_is_not() {
        let mirror = Mirror::default();
        let old = entry(SessionId::random(), 1000);
        let new = next(&old, 1300);
        let newer = next(&old, 1361);
        for token in [&old, &new] {
            mirror.insert(token);
        }
        mirror.forget_expired(1000 + EXPIRY_MARGIN);
        assert_eq!((mirror.state(&old), mirror.state(&new)), (State::Live, State::Live));
        mirror.insert(&newer);
        assert_eq!((mirror.state(&old), mirror.state(&new)), (State::Unknown, State::Live));
        assert_eq!(mirror.holder(old.session_id, 1361), None);
        mirror.forget_expired(1361 + EXPIRY_MARGIN);
        assert_eq!(mirror.session_count(), 0);
    }
}
