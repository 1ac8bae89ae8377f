//! The clients: they log in, present tokens, refresh and log out, at any instance, and hold each answer against the
//! guarantee. A share of their calls is dropped at some await.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures::future::join_all;
use hallpass_allowlist::{Clock, MAX_TOKEN_LIFE, Revocation, SessionId, TokenId, TokenRecord, UserId, Whose};
use tokio::time;

use crate::{
    history::History,
    member::Member,
    network::{Gated, Random},
    store::{Tables, Unreachable},
};

/// The percentage of calls that the client drops.
const DROPPED: u8 = 15;

/// The number of users.
const USERS: usize = 8;

/// What all clients share.
pub struct Clients {
    pub members: Vec<Arc<Member>>,
    pub tables: Arc<Tables>,
    pub history: Arc<History>,
    pub random: Random,
    users: Vec<UserId>,
    tokens: Mutex<Vec<TokenRecord>>,
}

/// A future that is dropped when it has been polled this many times.
struct DropAfter<F> {
    polls: Option<u32>,
    inner: Pin<Box<F>>,
}

impl<F: Future> Future for DropAfter<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<F::Output>> {
        match &mut self.polls {
            Some(0) => return Poll::Ready(None),
            Some(polls) => *polls -= 1,
            None => {}
        }
        match self.inner.as_mut().poll(context) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending if self.polls == Some(0) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Clients {
    pub fn new(
        members: &[Arc<Member>],
        tables: &Arc<Tables>,
        history: &Arc<History>,
        random: &Random,
    ) -> Arc<Self> {
        Arc::new(Self {
            members: members.to_vec(),
            tables: Arc::clone(tables),
            history: Arc::clone(history),
            random: random.clone(),
            users: (0..USERS).map(|_| UserId::random()).collect(),
            tokens: Mutex::default(),
        })
    }

    /// The members that issue and revoke.
    pub fn instances(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.members.iter().filter(|member| !member.is_guard())
    }

    /// Makes calls, one after another, forever.
    pub async fn call_forever(self: Arc<Self>, longest_pause_ms: u64) {
        loop {
            time::sleep(self.random.milliseconds(1..longest_pause_ms)).await;
            let member = Arc::clone(&self.members[self.random.with(|rng| rng.usize(..self.members.len()))]);
            match self.random.with(|rng| rng.u8(..100)) {
                0..43 if member.is_guard() => self.check(&member).await,
                0..15 => self.log_in(&member).await,
                15..22 => self.refresh(&member).await,
                22..40 => self.log_out(&member).await,
                40..43 => self.log_out_everywhere(&member).await,
                43..50 => self.check_in_a_row(&member).await,
                _ => self.check(&member).await,
            }
        }
    }

    /// Runs a call in an instance, and drops it now and then.
    async fn call<T>(&self, member: &Member, call: impl Future<Output = T>) -> Option<T> {
        let polls = self.random.is(DROPPED).then(|| self.random.with(|rng| rng.u32(..12)));
        let answer = DropAfter { polls, inner: Box::pin(Gated::new(&member.pause, call)) }.await;
        if answer.is_none() {
            self.history.count("dropped calls");
        }
        answer
    }

    /// One of the newest tokens.
    fn token(&self) -> Option<TokenRecord> {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = tokens.len().min(40);
        let place = (newest > 0).then(|| tokens.len() - 1 - self.random.with(|rng| rng.usize(..newest)))?;
        Some(tokens[place])
    }

    fn new_token(&self, session_id: SessionId, user_id: UserId) -> TokenRecord {
        let life = self.random.with(|rng| rng.u64(60..=MAX_TOKEN_LIFE.as_secs()));
        let expires_at = self.tables.now() + life.cast_signed();
        TokenRecord { token_id: TokenId::random(), session_id, user_id, expires_at }
    }

    async fn log_in(&self, member: &Member) {
        let user_id = self.users[self.random.with(|rng| rng.usize(..USERS))];
        let token = self.new_token(SessionId::random(), user_id);
        self.issue(member, token, member.store().begin(token)).await;
    }

    async fn refresh(&self, member: &Member) {
        if let Some(token) = self.token() {
            let next = self.new_token(token.session_id, token.user_id);
            self.issue(member, next, member.store().refresh(next)).await;
        }
    }

    async fn issue(
        &self,
        member: &Member,
        token: TokenRecord,
        recording: impl Future<Output = Result<bool, Unreachable>>,
    ) {
        let Some(allowlist) = member.allowlist() else { return };
        let issuing = async {
            if let Ok(true) = recording.await {
                // From here on, the client may have it.
                self.tokens.lock().unwrap_or_else(PoisonError::into_inner).push(token);
                allowlist.allow(&token).await;
            }
        };
        self.call(member, issuing).await;
        self.history.count("logins and refreshes");
        self.history
            .note(|| format!("{} issued for {} at {}", token.token_id, token.session_id, member.number));
    }

    async fn check(&self, member: &Member) {
        if let Some(token) = self.token() {
            self.check_token(member, &token).await;
        }
    }

    /// Presents the newest token again and again, so that calls meet in one look-up of a token that is new there, and
    /// a revocation comes between them.
    async fn check_in_a_row(&self, member: &Member) {
        let Some(token) = self.newest(1).pop() else { return };
        for _ in 0..3 {
            let pause = self.random.milliseconds(0..3);
            let later = async {
                time::sleep(pause).await;
                self.check_token(member, &token).await
            };
            tokio::join!(self.check_token(member, &token), later);
        }
    }

    /// Presents a token, and returns whether it was accepted; `None` if that was not decided.
    pub async fn check_token(&self, member: &Member, token: &TokenRecord) -> Option<bool> {
        let allowlist = member.allowlist()?;
        let (began, asked) = (self.history.step(), self.tables.asked(token.token_id));
        let checking = async {
            if token.expires_at <= allowlist.shared_time(member.clock.now()) {
                return None;
            }
            Some(allowlist.check(token).await)
        };
        let answer = self.call(member, checking).await??;
        self.history.count("checks");
        let (number, session_id) = (member.number, token.session_id);
        self.history.note(|| format!("{} of {session_id} checked at {number}: {answer:?}", token.token_id));
        match answer {
            Ok(true) if self.history.was_acknowledged(session_id, began) => {
                self.history.violation(format!(
                    "accepted: instance {number} accepts {session_id} after its revocation"
                ));
            }
            // What the store says may be out of date when it arrives; the mirror must not be.
            Ok(true)
                if self.history.was_acknowledged(session_id, self.history.step())
                    && self.tables.asked(token.token_id) == asked =>
            {
                self.history.violation(format!(
                    "accepted: instance {number} takes {session_id} for live after its revocation"
                ));
            }
            Ok(false) if self.tables.is_revoked(session_id) == Some(false) => {
                self.history
                    .violation(format!("refused: instance {number} refuses {session_id}, which is live"));
            }
            _ => {}
        }
        answer.inspect_err(|_| self.history.count("undetermined")).ok()
    }

    async fn log_out(&self, member: &Member) {
        let Some(token) = self.token() else { return };
        if self.revoke(member, &token).await {
            join_all(self.members.iter().map(|member| self.check_after(member, &token))).await;
        }
    }

    /// Presents a token as soon as its revocation has been acknowledged, and a little later.
    async fn check_after(&self, member: &Member, token: &TokenRecord) {
        self.check_token(member, token).await;
        time::sleep(self.random.milliseconds(0..100)).await;
        self.check_token(member, token).await;
    }

    /// Revokes the session of a token, and returns whether that was acknowledged.
    pub async fn revoke(&self, member: &Member, token: &TokenRecord) -> bool {
        let Some(allowlist) = member.allowlist() else { return false };
        let (store, session_id) = (member.store(), token.session_id);
        let recording = async move { store.revoke(session_id).await };
        let user_id = self.random.is(50).then_some(token.user_id);
        let is_logout = self.random.is(50);
        let revoking = async {
            if is_logout {
                allowlist.logout(session_id, user_id, recording).await.map_err(|error| error.to_string())
            } else {
                let revoked = allowlist.revoke_session(session_id, user_id, recording).await;
                revoked.map_err(|error| error.to_string())
            }
        };
        let Some(answer) = self.call(member, revoking).await else { return false };
        self.history.note(|| format!("{session_id} revoked at {}: {answer:?}", member.number));
        let Ok(revocation) = answer else {
            self.history.count("unconfirmed");
            return false;
        };
        self.history.count("revocations");
        self.check_counts(&revocation);
        self.history.acknowledged([session_id]);
        if self.tables.is_revoked(session_id) == Some(false) {
            self.history.violation(format!("accepted: {session_id} is acknowledged and not recorded"));
        }
        true
    }

    /// The instance that answers counts itself, and has applied the revocation.
    fn check_counts(&self, revocation: &Revocation) {
        let Revocation { instances, acknowledged, .. } = *revocation;
        if acknowledged == 0 || acknowledged > instances {
            self.history.violation(format!("accepted: {acknowledged} of {instances} have acknowledged"));
        }
    }

    async fn log_out_everywhere(&self, member: &Member) {
        let Some(allowlist) = member.allowlist() else { return };
        let user_id = self.users[self.random.with(|rng| rng.usize(..USERS))];
        // Those whose token the client has seen before the call are meant.
        let meant: Vec<SessionId> = {
            let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
            let now = self.tables.now();
            let meant = tokens.iter().filter(|token| token.user_id == user_id && token.expires_at > now);
            meant.map(|token| token.session_id).collect()
        };
        let store = member.store();
        let recording = async move { store.revoke_all_of(user_id).await };
        let revoking = allowlist.revoke(Whose::User { user_id, except: None }, recording);
        let Some(answer) = self.call(member, revoking).await else { return };
        self.history.note(|| format!("all of {user_id} revoked at {}: {answer:?}", member.number));
        if let Ok(revocation) = answer {
            self.history.count("revocations");
            self.check_counts(&revocation);
            // Sessions that the store has lost are revoked as far as this instance knew them.
            let known = meant.into_iter().filter(|session_id| self.tables.is_revoked(*session_id).is_some());
            self.history.acknowledged(known);
        }
    }

    /// The newest tokens that have not expired.
    pub fn newest(&self, count: usize) -> Vec<TokenRecord> {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.tables.now();
        tokens.iter().rev().filter(|token| token.expires_at > now + 30).take(count).copied().collect()
    }
}
