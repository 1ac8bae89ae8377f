//! The store: a table of sessions and one of instances, which all instances share, each by a way of its own; a guard
//! by way of the instances.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::{Either, select};
use hallpass_allowlist::{
    InstanceId, InstanceRow, LiveTokens, Recorded, RevokedSession, SessionId, SessionStore, TokenId,
    TokenRecord, UnixSeconds, UserId,
};
use tokio::time::Instant;

use crate::{
    member::Member,
    network::{Random, Wire},
};

const TIMEOUT: Duration = Duration::from_secs(5);

/// The store's wall time at which a run begins.
const BEGIN_MS: i64 = 1_800_000_000_000;

/// The tables.
pub struct Tables {
    began: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_down: bool,
    sessions: BTreeMap<SessionId, Session>,
    instances: BTreeMap<String, InstanceRow>,
    /// How often it was asked whether a token is live.
    asked: BTreeMap<TokenId, u64>,
}

struct Session {
    user_id: UserId,
    tokens: Vec<TokenRecord>,
    is_revoked: bool,
}

impl Session {
    /// Whether some clock may still take a token of it for unexpired.
    fn may_have_tokens(&self, now: UnixSeconds) -> bool {
        self.tokens.iter().any(|token| token.expires_at > now - 10)
    }
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("the store cannot be reached")]
pub struct Unreachable;

impl Tables {
    pub fn begin() -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_down(&self, is_down: bool) {
        self.state().is_down = is_down;
    }

    /// Loses the row of a session, as a restore of a backup does.
    pub fn forget(&self, session_id: SessionId) {
        self.state().sessions.remove(&session_id);
    }

    pub fn now(&self) -> UnixSeconds {
        self.now_ms().div_euclid(1000)
    }

    fn now_ms(&self) -> i64 {
        BEGIN_MS + i64::try_from(self.began.elapsed().as_millis()).unwrap()
    }

    /// How often any instance has asked whether the token is live.
    pub fn asked(&self, token_id: TokenId) -> u64 {
        self.state().asked.get(&token_id).copied().unwrap_or_default()
    }

    /// Whether the session has been revoked; `None` if there is no such session.
    pub fn is_revoked(&self, session_id: SessionId) -> Option<bool> {
        self.state().sessions.get(&session_id).map(|session| session.is_revoked)
    }
}

/// The store as one instance reaches it.
#[derive(Clone)]
pub struct SimulatedStore {
    pub tables: Arc<Tables>,
    pub wire: Arc<Wire>,
    /// For a guard: the instances, any of which it asks in place of the store.
    pub by_way_of: Arc<[Arc<Member>]>,
    pub random: Random,
}

impl SimulatedStore {
    /// Runs a statement as one step. It runs even if the caller has gone once it has been sent.
    async fn call<T: Send + 'static>(
        &self,
        statement: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> Result<T, Unreachable> {
        let (tables, wire) = (Arc::clone(&self.tables), Arc::clone(&self.wire));
        let asked = (!self.by_way_of.is_empty())
            .then(|| Arc::clone(&self.by_way_of[self.random.with(|rng| rng.usize(..self.by_way_of.len()))]));
        let calling = tokio::spawn(async move {
            wire.cross().await.map_err(|_| Unreachable)?;
            if let Some(instance) = &asked {
                instance.allowlist().ok_or(Unreachable)?;
                instance.to_store.cross().await.map_err(|_| Unreachable)?;
            }
            let answer = {
                let mut state = tables.state();
                if state.is_down {
                    return Err(Unreachable);
                }
                statement(&mut state)
            };
            if let Some(instance) = &asked {
                instance.to_store.cross().await.map_err(|_| Unreachable)?;
                instance.allowlist().ok_or(Unreachable)?;
            }
            wire.cross().await.map_err(|_| Unreachable)?;
            Ok(answer)
        });
        match select(calling, self.wire.elapsed(TIMEOUT)).await {
            Either::Left((Ok(answer), _)) => answer,
            Either::Left((Err(_), _)) | Either::Right(_) => Err(Unreachable),
        }
    }

    /// Begins a session with this token.
    pub async fn begin(&self, token: TokenRecord) -> Result<bool, Unreachable> {
        self.call(move |state| {
            let session = Session { user_id: token.user_id, tokens: vec![token], is_revoked: false };
            state.sessions.insert(token.session_id, session).is_none()
        })
        .await
    }

    /// Adds a token to its session. False if the session does not exist or has been revoked.
    pub async fn refresh(&self, token: TokenRecord) -> Result<bool, Unreachable> {
        self.call(move |state| {
            let session = state.sessions.get_mut(&token.session_id);
            session.filter(|session| !session.is_revoked).map(|session| session.tokens.push(token)).is_some()
        })
        .await
    }

    pub async fn revoke(&self, session_id: SessionId) -> Result<Option<Recorded>, Unreachable> {
        self.call(move |state| {
            let session = state.sessions.get_mut(&session_id)?;
            let is_new = !std::mem::replace(&mut session.is_revoked, true);
            Some(Recorded { session: revoked(session_id, session), is_new })
        })
        .await
    }

    /// Revokes the sessions of a user. Returns those that were revoked before, too: that may not be confirmed.
    pub async fn revoke_all_of(&self, user_id: UserId) -> Result<Vec<RevokedSession>, Unreachable> {
        let now = self.tables.now();
        self.call(move |state| {
            let sessions = state.sessions.iter_mut().filter(|(_, session)| session.user_id == user_id);
            let sessions =
                sessions.filter(|(_, session)| !session.is_revoked || session.may_have_tokens(now));
            sessions
                .map(|(session_id, session)| {
                    session.is_revoked = true;
                    revoked(*session_id, session)
                })
                .collect()
        })
        .await
    }
}

fn revoked(session_id: SessionId, session: &Session) -> RevokedSession {
    let tokens: Vec<TokenId> = session.tokens.iter().map(|token| token.token_id).collect();
    RevokedSession { session_id, user_id: Some(session.user_id), tokens }
}

impl SessionStore for SimulatedStore {
    type Error = Unreachable;

    async fn is_token_live(&self, token: &TokenRecord) -> Result<bool, Unreachable> {
        let token = *token;
        self.call(move |state| {
            *state.asked.entry(token.token_id).or_default() += 1;
            let session = state.sessions.get(&token.session_id);
            session.is_some_and(|session| !session.is_revoked && session.tokens.contains(&token))
        })
        .await
    }

    async fn revoked_sessions(
        &self,
        _: UnixSeconds,
        each: impl FnMut(SessionId) + Send + 'static,
    ) -> Result<(), Unreachable> {
        let now = self.tables.now();
        let read = self.call(move |state| {
            let revoked = state.sessions.iter().filter(|(_, session)| session.is_revoked);
            revoked
                .filter(|(_, session)| session.may_have_tokens(now))
                .map(|(session_id, _)| *session_id)
                .collect::<Vec<_>>()
        });
        read.await?.into_iter().for_each(each);
        Ok(())
    }

    async fn record_instance(&self, id: InstanceId, name: &str, facts: &str) -> Result<i64, Unreachable> {
        let (id, name, facts) = (id.to_string(), name.to_owned(), facts.to_owned());
        let tables = Arc::clone(&self.tables);
        self.call(move |state| {
            let beat = state.instances.get(&id).map_or(0, |row| row.beat + 1);
            state.instances.insert(id.clone(), InstanceRow { id, name, beat, facts });
            tables.now_ms()
        })
        .await
    }

    async fn other_instances(&self, id: InstanceId) -> Result<Vec<InstanceRow>, Unreachable> {
        let id = id.to_string();
        self.call(move |state| state.instances.values().filter(|row| row.id != id).cloned().collect()).await
    }

    async fn delete_instance(&self, id: &str, beat: Option<i64>) -> Result<(), Unreachable> {
        let id = id.to_owned();
        self.call(move |state| {
            if state.instances.get(&id).is_some_and(|row| beat.is_none_or(|beat| beat == row.beat)) {
                state.instances.remove(&id);
            }
        })
        .await
    }
}

impl LiveTokens for SimulatedStore {
    async fn live_tokens(
        &self,
        now: UnixSeconds,
        mut each: impl FnMut(TokenRecord) + Send,
    ) -> Result<(), Unreachable> {
        let live: Vec<TokenRecord> = self
            .call(move |state| {
                let live = state.sessions.values().filter(|session| !session.is_revoked);
                live.flat_map(|session| session.tokens.clone())
                    .filter(|token| token.expires_at > now)
                    .collect()
            })
            .await?;
        live.into_iter().for_each(&mut each);
        Ok(())
    }
}
