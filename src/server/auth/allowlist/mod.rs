//! The allowlist: the set of live tokens.
//!
//! A token is valid only while its id is listed here. There are three tiers:
//!
//! | tier | what it is | read by |
//! |---|---|---|
//! | SQL | the source of truth | login, refresh, logout |
//! | Redis, with several instances | the shared list, and the events that keep the mirrors in step | lookups of tokens that the mirror does not hold |
//! | the mirror | this instance's memory | every protected request |
//!
//! Every change goes to SQL first, to the own mirror second, to the other instances third, and is answered
//! last ("truth first"). Reading order: [`lease`] (when a mirror may be used), [`mirror`] ("dead wins"),
//! [`event`] (the chain that reveals missing events), [`bus`] (how mirrors are kept in step), [`pending`]
//! (when a revocation may be answered), [`membership`] (which instances a revocation waits for),
//! [`agreement`] (what all instances have to agree on), [`redis`] (keys and scripts).
//!
//! Work that several callers wait for, or that must not stop halfway, runs in a task of its own: when a
//! client disconnects, its request is dropped at whichever await it has reached.
//!
//! `auth/` calls this module, which calls the database. It handles ids and no JWTs.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use metrics::{counter, histogram};
use tokio::{sync::Semaphore, time};
use tracing::{info, warn};

use self::{
    bus::Unconfirmed,
    membership::Recent,
    mirror::{Mirror, State},
    pending::Acknowledged,
};
use crate::{
    api::types::Revocation,
    server::{
        auth::keys::Keys,
        clock::{self, UnixSeconds},
        config::Config,
        db::{
            ChangeError, Db, DbError,
            access_tokens::TokenRecord,
            sessions::{Recorded, RevokedSession},
        },
        ids::{SessionId, TokenId, UserId},
        metrics as counters,
    },
};

mod agreement;
mod bus;
mod cluster;
mod event;
mod lease;
mod membership;
mod mirror;
mod notifier;
mod pending;
mod redis;
mod snapshot;

pub use cluster::{Cluster, check_settings};
pub use mirror::Whose;
pub use snapshot::{ClusterSnapshot, CompletedRevocation, InstanceSnapshot};

/// How long SQL may take to answer a request that the mirror could not.
const SQL_TIMEOUT: Duration = Duration::from_secs(2);

/// The number of requests that may read SQL at the same time because the mirror could not answer them:
/// fewer than there are connections, so that some remain for login and refresh.
const SQL_LOOK_UPS: usize = 4;

/// How long a confirmed revocation is remembered: as long as a tombstone.
const CONFIRMED_FOR: Duration = Duration::from_secs(600);

/// The maximum number of confirmed revocations that are remembered.
const MAX_CONFIRMED: usize = 100_000;

/// The live tokens as seen by this instance.
pub struct Allowlist {
    db: Db,
    mirror: Arc<Mirror>,
    /// The other instances. `None` if this instance runs alone and makes every change itself.
    cluster: Option<Cluster>,
    /// The revocations that were requested on this instance, the newest first.
    recent: Recent,
    /// Concurrent lookups of the same unknown token are one lookup.
    look_ups: Flights<TokenId, Result<bool, Undetermined>>,
    /// Concurrent logouts of the same session are one revocation.
    logouts: Flights<SessionId, Result<Revocation, Arc<RevokeError>>>,
    /// The sessions whose revocation is confirmed, and since when.
    confirmed: Arc<Mutex<HashMap<SessionId, Instant>>>,
    fallbacks: Semaphore,
}

/// The number of recent revocations that are kept. Each report to the membership contains them all.
const RECENT: usize = 5;

/// Neither the mirror nor SQL can answer: the token may be live or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undetermined;

/// Work in progress that several callers wait for, by key.
///
/// Each is a task of its own, so that it continues when all callers have been dropped: a future driven only
/// by its callers would stop where it was, holding its connection or its lock.
struct Flights<K, T>(Arc<Mutex<HashMap<K, Shared<BoxFuture<'static, T>>>>>);

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K, T> Flights<K, T>
where
    K: Hash + Eq + Copy + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Joins the work for `key` that is in progress, or starts it with `begin`. The result is `crashed` if
    /// it panics.
    fn join<F>(&self, key: K, crashed: T, begin: impl FnOnce() -> F) -> Shared<BoxFuture<'static, T>>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = || {
            let landing = Landing { flights: Arc::clone(&self.0), key };
            let work = begin();
            let task = tokio::spawn(async move {
                let _landing = landing;
                work.await
            });
            async move { task.await.unwrap_or(crashed) }.boxed().shared()
        };
        flights.entry(key).or_insert_with(begin).clone()
    }
}

/// Removes a flight from the map when it has ended, even by a panic.
struct Landing<K: Hash + Eq, T> {
    flights: Arc<Mutex<HashMap<K, Shared<BoxFuture<'static, T>>>>>,
    key: K,
}

impl<K: Hash + Eq, T> Drop for Landing<K, T> {
    fn drop(&mut self) {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// The revocation is not confirmed: the response must not claim that the sessions have ended.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    #[error("{0}")]
    NotRecorded(#[from] ChangeError),
    #[error("recorded, but some instances may not know of it: {0}")]
    Unconfirmed(#[from] Unconfirmed),
}

impl RevokeError {
    fn crashed() -> Self {
        Self::NotRecorded(ChangeError::Db(DbError::WorkerCrashed))
    }
}

impl Allowlist {
    /// Fills the mirror from SQL, so that a restart neither signs anyone out nor revives a revoked session;
    /// joins the other instances, if Redis is configured.
    ///
    /// # Errors
    /// The database cannot be read; a running instance has different settings; or Redis cannot be followed
    /// within the startup wait.
    pub async fn load(config: &Config, keys: &Keys, db: Db, now: UnixSeconds) -> Result<Self> {
        let allowlist = Self::join_as(config, keys, db, false).await?;
        let mirror = &allowlist.mirror;
        let now = allowlist.shared_time(now);
        let live = allowlist.db.live_tokens(now, |entry| mirror.insert(&entry)).await;
        live.context("the live tokens cannot be read")?;
        let sessions = mirror.session_count();
        info!(sessions, "the allowlist holds {sessions} live sessions");
        Ok(allowlist)
    }

    /// Joins the other instances, if Redis is configured. The mirror then contains the events of the last
    /// minutes, which suffices to revoke.
    ///
    /// # Errors
    /// A running instance has different settings, or Redis cannot be followed within the startup wait.
    pub async fn join(config: &Config, keys: &Keys, db: Db) -> Result<Self> {
        Self::join_as(config, keys, db, true).await
    }

    async fn join_as(config: &Config, keys: &Keys, db: Db, replays_issued: bool) -> Result<Self> {
        let (mirror, recent) = (Arc::new(Mirror::default()), Recent::default());
        let cluster = match &config.redis.url {
            Some(_) => {
                let (mirror, recent) = (Arc::clone(&mirror), Arc::clone(&recent));
                Some(Cluster::join(config, keys, db.clone(), mirror, recent, replays_issued).await?)
            }
            None => None,
        };
        Ok(Self {
            db,
            mirror,
            cluster,
            recent,
            look_ups: Flights::default(),
            logouts: Flights::default(),
            confirmed: Arc::default(),
            fallbacks: Semaphore::new(SQL_LOOK_UPS),
        })
    }

    /// Adds a token that SQL has recorded. It has no effect if the session has been revoked in the
    /// meantime: dead wins, in whatever order the two arrive.
    pub async fn allow(&self, entry: &TokenRecord) {
        self.mirror.insert(entry);
        if let Some(cluster) = &self.cluster {
            cluster.allow(entry).await;
        }
    }

    /// Whether exactly this token, of this session and user, is live. The caller checks that it has not
    /// expired.
    ///
    /// Answered from memory, except for a live token that is not in the mirror, and while there is no
    /// lease.
    ///
    /// # Errors
    /// [`Undetermined`].
    pub async fn check(&self, entry: &TokenRecord) -> Result<bool, Undetermined> {
        match self.check_local(entry) {
            Some(answer) => Ok(answer),
            // Boxed, to keep the future small for requests that are answered from memory.
            None => Box::pin(self.check_remote(entry)).await,
        }
    }

    /// The answer of the mirror; `None` if it has none or may not be used.
    fn check_local(&self, entry: &TokenRecord) -> Option<bool> {
        // The lease first, then the mirror: see `Lease::holds`.
        let is_leased = self.is_leased(entry.user_id);
        match self.mirror.state(entry) {
            State::Live if is_leased => {
                counters::count_hit();
                Some(true)
            }
            // Valid even without a lease, because a dead session never becomes live again.
            State::Dead => Some(false),
            State::Live | State::Unknown => None,
        }
    }

    async fn check_remote(&self, entry: &TokenRecord) -> Result<bool, Undetermined> {
        if self.is_leased(entry.user_id) {
            counter!("hallpass_mirror_misses_total").increment(1);
            if !self.look_up(entry).await? {
                return Ok(false);
            }
            // The session may have been revoked during the lookup; the mirror has the latest state.
            if let Some(answer) = self.check_local(entry) {
                return Ok(answer);
            }
        }
        counter!("hallpass_fallbacks_total").increment(1);
        let asking = async {
            let _permit = self.fallbacks.acquire().await;
            is_live_in_sql(&self.db, entry).await
        };
        time::timeout(SQL_TIMEOUT, asking).await.unwrap_or_else(|_| Err(silent()))
    }

    /// Looks up whether the token was issued, and adds it to the mirror if so. Concurrent lookups of the
    /// same token share one.
    async fn look_up(&self, entry: &TokenRecord) -> Result<bool, Undetermined> {
        let begin = || {
            let (entry, db) = (*entry, self.db.clone());
            let (mirror, cluster) = (Arc::clone(&self.mirror), self.cluster.clone());
            async move { look_up(&entry, &db, &mirror, cluster.as_ref()).await }
        };
        self.look_ups.join(entry.token_id, Err(Undetermined), begin).await
    }

    /// Whether the session is live, as far as the mirror can answer.
    pub fn remembers_session(&self, session_id: SessionId, now: UnixSeconds) -> Option<bool> {
        match self.mirror.holder(session_id, now)? {
            Err(mirror::Dead) => Some(false),
            // The lease first, then the mirror (again): see `Lease::holds`.
            Ok(user_id) if self.is_leased(user_id) => Some(self.mirror.holder(session_id, now)?.is_ok()),
            Ok(_) => None,
        }
    }

    /// Resolves when this instance learns that the session has been revoked.
    pub async fn until_revoked(&self, session_id: SessionId) {
        self.mirror.until_dead(session_id).await;
    }

    /// Revokes the sessions that `recording` records in SQL as revoked, and those of the same users that
    /// are in this mirror although SQL has lost them. Once this has returned `Ok`, none of their tokens is
    /// accepted again by any instance, not even after a restart. Revoking an ended session succeeds, and is
    /// confirmed again.
    ///
    /// # Errors
    /// [`RevokeError`]: the caller must not claim success.
    pub async fn revoke(
        &self,
        whose: Whose,
        recording: impl Future<Output = Result<Vec<RevokedSession>, ChangeError>> + Send + 'static,
    ) -> Result<Revocation, RevokeError> {
        let propagation = self.propagation();
        let mirror = Arc::clone(&self.mirror);
        // A task of its own: if the client disconnects, its request is dropped, but this completes.
        let revoking = tokio::spawn(async move {
            let started = Instant::now();
            // Read before recording, because sessions that start after that are not meant.
            let remembered = tokio::task::spawn_blocking(move || mirror.live_sessions(whose)).await;
            let mut revoked = recording.await?;
            let recorded: HashSet<SessionId> = revoked.iter().map(|session| session.session_id).collect();
            let lost = remembered.unwrap_or_default().into_iter();
            revoked.extend(lost.filter(|session| !recorded.contains(&session.session_id)));
            propagation.propagate(&revoked, started).await
        });
        revoking.await.unwrap_or_else(|_| Err(RevokeError::crashed()))
    }

    /// Revokes one session like [`Allowlist::revoke`], with what `recording` records. A session that is not
    /// in SQL is revoked, too: it may have been lost there while its tokens are in the mirror of every
    /// instance. `user_id` is its user, if the presented token names one.
    ///
    /// # Errors
    /// [`RevokeError`]: the caller must not claim success.
    pub async fn revoke_session(
        &self,
        session_id: SessionId,
        user_id: Option<UserId>,
        recording: impl Future<Output = Result<Option<Recorded>, ChangeError>> + Send + 'static,
    ) -> Result<Revocation, RevokeError> {
        let revoking = tokio::spawn(self.revoking_session(session_id, user_id, recording));
        revoking.await.unwrap_or_else(|_| Err(RevokeError::crashed()))
    }

    /// Revokes one session like [`Allowlist::revoke_session`], for a logout, which a token of the session
    /// itself authorizes: concurrent logouts of the same session are one revocation.
    ///
    /// # Errors
    /// [`RevokeError`]: the caller must not claim success.
    pub async fn logout<F>(
        &self,
        session_id: SessionId,
        user_id: Option<UserId>,
        recording: F,
    ) -> Result<Revocation, Arc<RevokeError>>
    where
        F: Future<Output = Result<Option<Recorded>, ChangeError>> + Send + 'static,
    {
        let begin = || {
            let revoking = self.revoking_session(session_id, user_id, recording);
            async move { revoking.await.map_err(Arc::new) }
        };
        self.logouts.join(session_id, Err(Arc::new(RevokeError::crashed())), begin).await
    }

    fn revoking_session(
        &self,
        session_id: SessionId,
        user_id: Option<UserId>,
        recording: impl Future<Output = Result<Option<Recorded>, ChangeError>> + Send + 'static,
    ) -> impl Future<Output = Result<Revocation, RevokeError>> + Send + 'static {
        let (propagation, confirmed) = (self.propagation(), Arc::clone(&self.confirmed));
        let remembered = match self.mirror.holder(session_id, UnixSeconds::MIN) {
            Some(Ok(user_id)) => Some(user_id),
            _ => None,
        };
        async move {
            let started = Instant::now();
            let confirmed = || confirmed.lock().unwrap_or_else(PoisonError::into_inner);
            let recorded = recording.await?;
            // A confirmed revocation stays confirmed, unless SQL had lost it (the session was live there
            // until now): then other instances may have looked up its tokens as live.
            let is_certain = recorded.as_ref().is_some_and(|recorded| !recorded.is_new)
                && confirmed().contains_key(&session_id);
            let unknown =
                || RevokedSession { session_id, user_id: user_id.or(remembered), tokens: Vec::new() };
            let session = recorded.map_or_else(unknown, |recorded| recorded.session);
            let revoked = if is_certain { Vec::new() } else { vec![session] };
            let revocation = propagation.propagate(&revoked, started).await?;
            let mut confirmed = confirmed();
            if confirmed.len() < MAX_CONFIRMED {
                confirmed.entry(session_id).or_insert_with(Instant::now);
            }
            Ok(revocation)
        }
    }

    /// Revokes, in the background, sessions that SQL has recorded as revoked and that no request waits for.
    pub fn propagate_later(&self, revoked: Vec<RevokedSession>) {
        if revoked.is_empty() {
            return;
        }
        let propagation = self.propagation();
        tokio::spawn(async move {
            if let Err(error) = propagation.propagate(&revoked, Instant::now()).await {
                warn!(%error, "could not propagate recorded revocations; reconciling will: {error}");
            }
        });
    }

    fn propagation(&self) -> Propagation {
        Propagation {
            mirror: Arc::clone(&self.mirror),
            cluster: self.cluster.clone(),
            recent: Arc::clone(&self.recent),
        }
    }

    /// Whether the mirror may be used for this user's tokens.
    fn is_leased(&self, user_id: UserId) -> bool {
        self.cluster.as_ref().is_none_or(|cluster| cluster.is_leased(user_id))
    }

    /// Whether the mirror may be used for the tokens of all users.
    pub fn is_ready(&self) -> bool {
        self.cluster.as_ref().is_none_or(Cluster::is_ready)
    }

    /// Drops expired entries from SQL and from memory, and reconciles revocations that were recorded but
    /// not propagated.
    ///
    /// # Errors
    /// The database cannot be used; memory has been cleaned all the same.
    pub async fn maintain(&self, now: UnixSeconds) -> Result<(), DbError> {
        self.mirror.forget_expired(self.shared_time(now));
        self.forget_confirmed();
        // A failure in one step does not skip the others.
        let reconciled = match self.cluster {
            Some(_) => bus::reconcile(&self.db, &self.mirror).await,
            None => Ok(()),
        };
        reconciled.and(self.delete_expired(now).await)
    }

    fn forget_confirmed(&self) {
        let mut confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        confirmed.retain(|_, since| since.elapsed() < CONFIRMED_FOR);
    }

    /// Deletes by the clock of the database, and not at all if this process's clock differs: a wrong clock
    /// must not delete what other instances still need.
    async fn delete_expired(&self, own: UnixSeconds) -> Result<(), DbError> {
        if !self.is_clock_right() {
            return Ok(());
        }
        let now = self.db.clock(own).await?;
        let deleted = self.db.delete_expired(now).await;
        deleted.and(self.db.forget_old_events(now).await)
    }

    /// The running instances, as seen by this one.
    pub fn snapshot(&self) -> ClusterSnapshot {
        match &self.cluster {
            Some(cluster) => cluster.snapshot(),
            None => cluster::snapshot_alone(self.mirror.session_count(), &self.recent),
        }
    }

    /// The other instances; `None` if this instance runs alone.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// Updates the gauges that are measured on demand.
    pub fn measure(&self) {
        metrics::gauge!("hallpass_mirror_sessions").set(self.mirror.session_count() as f64);
        if let Some(cluster) = &self.cluster {
            cluster.measure();
        }
    }

    /// Whether this process's wall clock agrees with that of the database, within the tolerance in
    /// `agreement.rs`.
    pub fn is_clock_right(&self) -> bool {
        self.cluster.as_ref().is_none_or(Cluster::is_clock_right)
    }

    /// The time of the clock that all instances share; alone, `own`, the time of this process's clock.
    pub fn shared_time(&self, own: UnixSeconds) -> UnixSeconds {
        self.cluster.as_ref().map_or(own, Cluster::shared_time)
    }

    /// Ends the leases and leaves the cluster, so that the other instances need not wait for this one.
    pub async fn leave(&self) {
        if let Some(cluster) = &self.cluster {
            cluster.leave().await;
        }
    }
}

/// The propagation of a revocation from SQL to the mirrors of all instances.
struct Propagation {
    mirror: Arc<Mirror>,
    cluster: Option<Cluster>,
    recent: Recent,
}

impl Propagation {
    /// Revokes in the own mirror second, and on the other instances third ("truth first").
    async fn propagate(
        &self,
        revoked: &[RevokedSession],
        started: Instant,
    ) -> Result<Revocation, RevokeError> {
        revoked.iter().for_each(|session| self.mirror.revoke(session.session_id));
        let outcome = match &self.cluster {
            Some(cluster) => cluster.revoke(revoked).await,
            None => Ok(Acknowledged { instances: 1, acknowledged: 1 }),
        };
        let elapsed = started.elapsed();
        histogram!("hallpass_revocation_seconds").record(elapsed);
        let Acknowledged { instances, acknowledged } = outcome.inspect_err(|_| {
            counter!("hallpass_revocations_total", "outcome" => "unconfirmed").increment(1);
        })?;
        let outcome = if acknowledged == instances { "acknowledged" } else { "lapsed" };
        counter!("hallpass_revocations_total", "outcome" => outcome).increment(1);
        counter!("hallpass_acknowledgements_total").increment(acknowledged.into());
        let elapsed_us = elapsed.as_micros().try_into().unwrap_or(u64::MAX);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let number = recent.first().map_or(0, |last| last.number) + 1;
        recent
            .insert(0, CompletedRevocation { number, at: clock::now(), instances, acknowledged, elapsed_us });
        recent.truncate(RECENT);
        Ok(Revocation { instances, acknowledged, elapsed_ms: elapsed_us / 1000 })
    }
}

/// Looks the token up in Redis first, to reduce the load on SQL. A token that Redis does not list may still
/// be live: Redis may have lost its data, or never have received the token.
async fn look_up(
    entry: &TokenRecord,
    db: &Db,
    mirror: &Mirror,
    cluster: Option<&Cluster>,
) -> Result<bool, Undetermined> {
    if let Some(cluster) = cluster
        && cluster.contains(entry).await
    {
        mirror.insert(entry);
        return Ok(true);
    }
    let is_live = is_live_in_sql(db, entry).await?;
    if is_live {
        mirror.insert(entry);
        if let Some(cluster) = cluster {
            cluster.allow(entry).await;
        }
    }
    Ok(is_live)
}

async fn is_live_in_sql(db: &Db, entry: &TokenRecord) -> Result<bool, Undetermined> {
    match time::timeout(SQL_TIMEOUT, db.is_token_live(entry)).await {
        Ok(answer) => answer.map_err(|error| {
            warn!("token lookup failed, neither Redis nor the database answered: {error}");
            Undetermined
        }),
        Err(_) => Err(silent()),
    }
}

fn silent() -> Undetermined {
    warn!("token lookup failed, neither Redis nor the database answered");
    Undetermined
}
