//! Which tokens are alive.
//!
//! A token is valid only while its id is here. There are three tiers:
//!
//! | tier | what it is | who asks it |
//! |---|---|---|
//! | SQL | the truth | log-in, refresh, log-out |
//! | Redis, where there are several instances | the list that they share, and the events that keep their mirrors in step | a miss |
//! | the mirror | this instance's memory | every protected request |
//!
//! Every change goes to SQL first, to this mirror second, to the others third, and is answered
//! last. To read how, in this order: [`lease`] (when a mirror may be trusted), [`mirror`] (dead
//! wins), [`event`] (the chain that shows what is missing), [`bus`] (how mirrors are kept in step),
//! [`pending`] (when a revocation may be answered), [`membership`] (who is waited for), [`agreement`] (what all
//! instances have to agree on), [`redis`] (keys and scripts).
//!
//! What several callers wait for, and what must not stop halfway, is a task of its own here: a client that hangs
//! up drops its request at whatever it waits for.
//!
//! `auth/` calls this; this calls the database. It knows ids and no JWT.

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
    api::types::{ClusterView, RecentRevocation, Revocation},
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

pub use cluster::Cluster;
pub use mirror::Whose;

/// How long SQL may take to answer a request that memory could not.
const SQL_TIMEOUT: Duration = Duration::from_secs(2);

/// How many requests that memory could not answer ask SQL at the same time: fewer than there are connections,
/// so that login and refresh get some, too.
const SQL_LOOK_UPS: usize = 4;

/// How long a revocation is remembered to be certain: as long as a tombstone.
const CONFIRMED_FOR: Duration = Duration::from_secs(600);

/// How many are, at most.
const MAX_CONFIRMED: usize = 100_000;

/// The live tokens, as this instance knows them.
pub struct Allowlist {
    db: Db,
    mirror: Arc<Mirror>,
    /// The other instances. Alone, this one hears of every change because it makes every change.
    cluster: Option<Cluster>,
    /// The revocations that were asked for here, the newest first.
    recent: Recent,
    /// Those who meet the same unknown token at the same time ask for it once.
    look_ups: Flights<TokenId, Result<bool, Undetermined>>,
    /// Logouts of the same session at the same time are one revocation.
    logouts: Flights<SessionId, Result<Revocation, Arc<RevokeError>>>,
    /// The sessions whose revocation is certain.
    confirmed: Arc<Mutex<HashMap<SessionId, Instant>>>,
    fallbacks: Semaphore,
}

/// How many of them are kept. Each report to the register carries them all.
const RECENT: usize = 5;

/// Nobody who knows can be asked: the token may be alive, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undetermined;

/// Work under way that several callers wait for, by what it is about.
///
/// Each is a task of its own, so that it goes on when all who wait for it have gone: a future that only they
/// drove would stay where it stopped, with the connection or the lock that it held.
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
    /// The result of the work about `key` that is under way, else of `begin`; `crashed` if it panics.
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

/// Takes a flight out of the map when it has ended, however it has.
struct Landing<K: Hash + Eq, T> {
    flights: Arc<Mutex<HashMap<K, Shared<BoxFuture<'static, T>>>>>,
    key: K,
}

impl<K: Hash + Eq, T> Drop for Landing<K, T> {
    fn drop(&mut self) {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// Nothing is certain: no answer may claim that the sessions have ended.
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
    /// Fills the mirror from the truth, so that a restart signs nobody out and brings nothing
    /// back; joins the other instances, where there are to be any.
    ///
    /// # Errors
    /// The database cannot be read, or Redis cannot be followed in the time that the settings give.
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

    /// Joins the other instances, where there are to be any. The mirror has what they have told each other in
    /// the last minutes, which is all that is needed to revoke.
    ///
    /// # Errors
    /// An instance that is running differs in what all have to agree on, or Redis cannot be followed in the
    /// time that the settings give.
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

    /// Lets in a token that SQL has recorded. If its session has been revoked meanwhile it stays
    /// out: revocation wins, in whatever order the two arrive.
    pub async fn allow(&self, entry: &TokenRecord) {
        self.mirror.insert(entry);
        if let Some(cluster) = &self.cluster {
            cluster.allow(entry).await;
        }
    }

    /// Whether this very token, of this session and user, is alive. That it has not expired is for
    /// the caller to check.
    ///
    /// Answered from memory, but for a live token that this instance has not met, and while its
    /// lease has lapsed.
    ///
    /// # Errors
    /// [`Undetermined`].
    pub async fn check(&self, entry: &TokenRecord) -> Result<bool, Undetermined> {
        match self.check_local(entry) {
            Some(answer) => Ok(answer),
            // In a box, so that those who need not ask carry no place for it about.
            None => Box::pin(self.check_remote(entry)).await,
        }
    }

    /// What memory says, if it may be trusted.
    fn check_local(&self, entry: &TokenRecord) -> Option<bool> {
        // The lease first: see there.
        let is_leased = self.is_leased(entry.user_id);
        match self.mirror.state(entry) {
            State::Live if is_leased => {
                counters::count_hit();
                Some(true)
            }
            // Without a lease, too: dead is for ever.
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
            // What was found may have been revoked since it was looked up: memory knows.
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

    /// Finds out whether the token was issued, and remembers it if so; one question for all who
    /// ask at the same time.
    async fn look_up(&self, entry: &TokenRecord) -> Result<bool, Undetermined> {
        let begin = || {
            let (entry, db) = (*entry, self.db.clone());
            let (mirror, cluster) = (Arc::clone(&self.mirror), self.cluster.clone());
            async move { look_up(&entry, &db, &mirror, cluster.as_ref()).await }
        };
        self.look_ups.join(entry.token_id, Err(Undetermined), begin).await
    }

    /// Whether the session holds, as far as this instance can tell without asking anyone.
    pub fn remembers_session(&self, session_id: SessionId, now: UnixSeconds) -> Option<bool> {
        match self.mirror.holder(session_id, now)? {
            Err(mirror::Dead) => Some(false),
            // The lease first, then the mirror (again): see `Lease::holds`.
            Ok(user_id) if self.is_leased(user_id) => Some(self.mirror.holder(session_id, now)?.is_ok()),
            Ok(_) => None,
        }
    }

    /// Resolves when this instance hears that the session has been revoked.
    pub async fn until_revoked(&self, session_id: SessionId) {
        self.mirror.until_dead(session_id).await;
    }

    /// Ends the sessions that `recording` records in SQL as revoked, and those that this instance remembers of
    /// the same user though SQL has lost them. Once this has returned `Ok`, none of their tokens is
    /// accepted again, here or anywhere, nor after a restart. Ending what has ended succeeds, and is
    /// made certain again.
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
        // A task of its own: a client that hangs up drops its request, but not half of this.
        let revoking = tokio::spawn(async move {
            let started = Instant::now();
            // Remembered before it is recorded: a session that begins after that is not meant.
            let remembered = tokio::task::spawn_blocking(move || mirror.live_sessions(whose)).await;
            let mut revoked = recording.await?;
            let recorded: HashSet<SessionId> = revoked.iter().map(|session| session.session_id).collect();
            let lost = remembered.unwrap_or_default().into_iter();
            revoked.extend(lost.filter(|session| !recorded.contains(&session.session_id)));
            propagation.propagate(&revoked, started).await
        });
        revoking.await.unwrap_or_else(|_| Err(RevokeError::crashed()))
    }

    /// Ends one session, as [`Allowlist::revoke`] does, by what `recording` records. One that SQL does not know
    /// ends all the same: it may have been lost there, and its tokens are in the memory of every
    /// instance. `user_id` is whose it is, where the token that was presented tells.
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

    /// The same for a logout, which proves by a token of its own that it may: several of the same session
    /// at the same time are one revocation.
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
            // What is certain stays certain, unless SQL had forgotten it: then its tokens may be, too.
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

    /// Ends sessions that SQL has recorded as revoked, and that nobody waits for: it is done when it is done.
    pub fn propagate_later(&self, revoked: Vec<RevokedSession>) {
        if revoked.is_empty() {
            return;
        }
        let propagation = self.propagation();
        tokio::spawn(async move {
            if let Err(error) = propagation.propagate(&revoked, Instant::now()).await {
                warn!(%error, "sessions that are recorded as revoked are left to be reconciled: {error}");
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

    /// Whether memory may be trusted with this user's tokens.
    fn is_leased(&self, user_id: UserId) -> bool {
        self.cluster.as_ref().is_none_or(|cluster| cluster.is_leased(user_id))
    }

    /// Whether memory may be trusted with everyone's tokens.
    pub fn is_ready(&self) -> bool {
        self.cluster.as_ref().is_none_or(Cluster::is_ready)
    }

    /// Drops what has expired, from SQL and from memory; hears of revocations that could be
    /// recorded but not spread.
    ///
    /// # Errors
    /// The database cannot be used; memory has been cleaned all the same.
    pub async fn maintain(&self, now: UnixSeconds) -> Result<(), DbError> {
        self.mirror.forget_expired(self.shared_time(now));
        self.forget_confirmed();
        // One that fails keeps none of the others from being done.
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

    /// Deletes by the clock of the database, and not at all where this process's is another: a clock that is
    /// wrong must not delete what others still need.
    async fn delete_expired(&self, own: UnixSeconds) -> Result<(), DbError> {
        if !self.is_clock_right() {
            return Ok(());
        }
        let now = self.db.clock(own).await?;
        let deleted = self.db.delete_expired(now).await;
        deleted.and(self.db.forget_old_events(now).await)
    }

    /// The running instances, as this one sees them.
    pub fn view(&self) -> ClusterView {
        match &self.cluster {
            Some(cluster) => cluster.view(),
            None => cluster::view_alone(self.mirror.session_count(), &self.recent),
        }
    }

    /// The other instances, where there may be any.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// Puts what is only known at the moment of asking into the metrics.
    pub fn measure(&self) {
        metrics::gauge!("hallpass_mirror_sessions").set(self.mirror.session_count() as f64);
        if let Some(cluster) = &self.cluster {
            cluster.measure();
        }
    }

    /// Whether this process's wall clock is that of the database, within [`CLOCK_TOLERANCE`].
    pub fn is_clock_right(&self) -> bool {
        self.cluster.as_ref().is_none_or(Cluster::is_clock_right)
    }

    /// The time by the clock that all instances share; alone, `own`, which is this process's.
    pub fn shared_time(&self, own: UnixSeconds) -> UnixSeconds {
        self.cluster.as_ref().map_or(own, Cluster::shared_time)
    }

    /// Stops trusting memory, and tells the others not to wait for this instance.
    pub async fn leave(&self) {
        if let Some(cluster) = &self.cluster {
            cluster.leave().await;
        }
    }
}

/// From the truth to everyone's memory.
struct Propagation {
    mirror: Arc<Mirror>,
    cluster: Option<Cluster>,
    recent: Recent,
}

impl Propagation {
    /// This mirror second, the others third.
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
        recent.insert(0, RecentRevocation { number, at: clock::now(), instances, acknowledged, elapsed_us });
        recent.truncate(RECENT);
        Ok(Revocation { instances, acknowledged, elapsed_ms: elapsed_us / 1000 })
    }
}

/// Redis first, which spares the truth. What it does not list may still be alive: it may have lost
/// its data, or not have been told.
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
            warn!("a token could be looked up nowhere: {error}");
            Undetermined
        }),
        Err(_) => Err(silent()),
    }
}

fn silent() -> Undetermined {
    warn!("a token could be looked up nowhere: the database does not answer");
    Undetermined
}
