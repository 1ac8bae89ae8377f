//! The allowlist as the application uses it: it checks tokens, and propagates revocations.
//!
//! Work that several callers wait for, or that must not stop halfway, runs in a task of its own: when a
//! client disconnects, its request is dropped at whichever await it has reached.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    task::coop,
    time::{self, Instant},
};
use tracing::{info, warn};

use crate::{
    clock::{Clock, UnixSeconds},
    cluster::{self, Cluster, ClusterOptions, JoinError},
    follower::{self, ReconcileError},
    id::{SessionId, TokenId, UserId},
    membership::Recent,
    metrics::{count_hit, counter, gauge, histogram},
    mirror::{self, Mirror, State},
    pending::Acknowledged,
    publisher::Unconfirmed,
    record::{RETENTION, Recorded, Revocation, RevokedSession, TokenRecord, Whose},
    single_flight::Flights,
    snapshot::{ClusterSnapshot, CompletedRevocation},
    store::{LiveTokens, SessionStore},
};

/// How long the store may take to answer whether a token is live.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// The number of requests that may read the store at the same time while there is no lease: fewer than there are
/// connections, so that some remain for login and refresh. Look-ups of unknown tokens are not counted: requests with the
/// same token share one.
const STORE_FALLBACKS: usize = 4;

/// The maximum number of confirmed revocations that are remembered.
const MAX_CONFIRMED: usize = 100_000;

/// The result of a logout, which concurrent callers share.
type Logout<E> = Result<Revocation, Arc<RevokeError<E>>>;

/// The live tokens as seen by this instance.
pub struct Allowlist<S: SessionStore> {
    store: S,
    clock: Arc<dyn Clock>,
    mirror: Arc<Mirror>,
    /// The other instances. `None` if this instance runs alone and makes every change itself.
    cluster: Option<Cluster<S>>,
    /// The revocations that were requested on this instance, the newest first.
    recent: Recent,
    /// Concurrent lookups of the same unknown token are one lookup.
    look_ups: Flights<TokenId, Result<bool, Undetermined>>,
    /// Concurrent logouts of the same session are one revocation.
    logouts: Flights<SessionId, Logout<S::Error>>,
    /// The sessions whose revocation is confirmed, and since when.
    confirmed: Arc<Mutex<HashMap<SessionId, Instant>>>,
    /// The permits of [`STORE_FALLBACKS`].
    fallbacks: Semaphore,
}

/// The number of recent revocations that are kept. Each report to the membership contains them all.
const RECENT: usize = 5;

/// Neither the mirror nor the store can answer: the token may be live or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undetermined;

/// The revocation is not confirmed: the response must not claim that the sessions have ended.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError<E> {
    /// The application has not recorded it.
    #[error("{0}")]
    NotRecorded(#[source] E),
    /// It is recorded, and some instances may still accept the tokens.
    #[error("recorded, but not confirmed by every instance: {0}")]
    Unconfirmed(#[from] Unconfirmed),
    /// Its task panicked. It may be recorded.
    #[error("the task of the revocation crashed")]
    Crashed,
}

/// The reason why an instance cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError<E> {
    /// It cannot join the other instances.
    #[error("{0}")]
    Join(#[from] JoinError<E>),
    /// The live tokens cannot be read from the store.
    #[error("the live tokens cannot be read: {0}")]
    Store(#[source] E),
}

impl<S: LiveTokens> Allowlist<S> {
    /// Fills the mirror from the store, so that a restart neither signs anyone out nor revives a revoked
    /// session; joins the other instances, if there is a `cluster`.
    ///
    /// # Errors
    /// The store cannot be read; a running instance has different settings; or the bus cannot be followed
    /// within the startup timeout.
    pub async fn load(
        store: S,
        clock: Arc<dyn Clock>,
        cluster: Option<ClusterOptions>,
        now: UnixSeconds,
    ) -> Result<Self, StartError<S::Error>> {
        let allowlist = Self::join_as(store, clock, cluster, false).await?;
        let mirror = &allowlist.mirror;
        let now = allowlist.shared_time(now);
        let live = allowlist.store.live_tokens(now, |entry| mirror.insert(&entry)).await;
        live.map_err(StartError::Store)?;
        let sessions = mirror.session_count();
        info!(sessions, "the allowlist holds {sessions} live sessions");
        Ok(allowlist)
    }
}

impl<S: SessionStore> Allowlist<S> {
    /// Joins the other instances, if there is a `cluster`, for a process that only revokes, or that looks up each token
    /// when it first meets it. The mirror then contains the events of the last minutes.
    ///
    /// # Errors
    /// A running instance has different settings, or the bus cannot be followed within the startup timeout.
    pub async fn join(
        store: S,
        clock: Arc<dyn Clock>,
        cluster: Option<ClusterOptions>,
    ) -> Result<Self, StartError<S::Error>> {
        Self::join_as(store, clock, cluster, true).await
    }

    async fn join_as(
        store: S,
        clock: Arc<dyn Clock>,
        cluster: Option<ClusterOptions>,
        replays_issued: bool,
    ) -> Result<Self, StartError<S::Error>> {
        let (mirror, recent) = (Arc::new(Mirror::default()), Recent::default());
        let cluster = match cluster {
            Some(options) => {
                let (mirror, recent) = (Arc::clone(&mirror), Arc::clone(&recent));
                let (store, clock) = (store.clone(), Arc::clone(&clock));
                Some(Cluster::join(options, store, clock, mirror, recent, replays_issued).await?)
            }
            None => None,
        };
        Ok(Self {
            store,
            clock,
            mirror,
            cluster,
            recent,
            look_ups: Flights::default(),
            logouts: Flights::default(),
            confirmed: Arc::default(),
            fallbacks: Semaphore::new(STORE_FALLBACKS),
        })
    }

    /// Adds a token that the store has recorded. It has no effect if the session has been revoked in the
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
    /// Answered from memory, except for a token that the mirror does not hold, and while there is no lease.
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
                count_hit();
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
            is_live_in_store(&self.store, entry).await
        };
        time::timeout(STORE_TIMEOUT, asking).await.unwrap_or_else(|_| Err(store_timed_out()))
    }

    /// Looks up whether the token was issued, and adds it to the mirror if so. Concurrent lookups of the
    /// same token share one.
    async fn look_up(&self, entry: &TokenRecord) -> Result<bool, Undetermined> {
        let begin = || {
            let (entry, store) = (*entry, self.store.clone());
            let (mirror, cluster) = (Arc::clone(&self.mirror), self.cluster.clone());
            async move { look_up(&entry, &store, &mirror, cluster.as_ref()).await }
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

    /// Revokes the sessions that `recording` records as revoked, and those of the same users that are in this
    /// mirror although the store has lost them. Once this has returned `Ok`, none of their tokens is
    /// accepted again by any instance, not even after a restart. Revoking an ended session succeeds, and is
    /// confirmed again.
    ///
    /// `recording` has to return the sessions that were revoked before, too, as long as a token of theirs may be
    /// live on some instance: an earlier call may have recorded them and not been confirmed.
    ///
    /// # Errors
    /// [`RevokeError`]: the caller must not claim success.
    pub async fn revoke(
        &self,
        whose: Whose,
        recording: impl Future<Output = Result<Vec<RevokedSession>, S::Error>> + Send + 'static,
    ) -> Result<Revocation, RevokeError<S::Error>> {
        let propagation = self.propagation();
        let mirror = Arc::clone(&self.mirror);
        // A task of its own: if the client disconnects, its request is dropped, but this completes.
        let revoking = tokio::spawn(async move {
            let started = Instant::now();
            // Read before recording, because sessions that start after that are not meant.
            let remembered = read_aside(move || mirror.live_sessions(whose)).await;
            let mut revoked = recording.await.map_err(RevokeError::NotRecorded)?;
            let recorded: HashSet<SessionId> = revoked.iter().map(|session| session.session_id).collect();
            let lost = remembered.into_iter();
            revoked.extend(lost.filter(|session| !recorded.contains(&session.session_id)));
            propagation.propagate(&revoked, started).await
        });
        revoking.await.unwrap_or_else(|_| Err(RevokeError::Crashed))
    }

    /// Revokes one session like [`Allowlist::revoke`], with what `recording` records. A session that is not
    /// in the store is revoked, too: it may have been lost there while its tokens are in the mirror of every
    /// instance. `user_id` is its user, if the presented token names one.
    ///
    /// # Errors
    /// [`RevokeError`]: the caller must not claim success.
    pub async fn revoke_session(
        &self,
        session_id: SessionId,
        user_id: Option<UserId>,
        recording: impl Future<Output = Result<Option<Recorded>, S::Error>> + Send + 'static,
    ) -> Result<Revocation, RevokeError<S::Error>> {
        let revoking = tokio::spawn(self.revoking_session(session_id, user_id, recording));
        revoking.await.unwrap_or_else(|_| Err(RevokeError::Crashed))
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
    ) -> Logout<S::Error>
    where
        F: Future<Output = Result<Option<Recorded>, S::Error>> + Send + 'static,
    {
        let begin = || {
            let revoking = self.revoking_session(session_id, user_id, recording);
            async move { revoking.await.map_err(Arc::new) }
        };
        self.logouts.join(session_id, Err(Arc::new(RevokeError::Crashed)), begin).await
    }

    fn revoking_session(
        &self,
        session_id: SessionId,
        user_id: Option<UserId>,
        recording: impl Future<Output = Result<Option<Recorded>, S::Error>> + Send + 'static,
    ) -> impl Future<Output = Result<Revocation, RevokeError<S::Error>>> + Send + 'static {
        let (propagation, confirmed) = (self.propagation(), Arc::clone(&self.confirmed));
        let remembered = match self.mirror.holder(session_id, UnixSeconds::MIN) {
            Some(Ok(user_id)) => Some(user_id),
            _ => None,
        };
        async move {
            let started = Instant::now();
            let lock = || confirmed.lock().unwrap_or_else(PoisonError::into_inner);
            let recorded = recording.await.map_err(RevokeError::NotRecorded)?;
            // A confirmed revocation stays confirmed, unless the store had lost it (the session was live there
            // until now): then other instances may have looked up its tokens as live.
            let is_certain = recorded.as_ref().is_some_and(|recorded| !recorded.is_new)
                && lock().contains_key(&session_id);
            let lost = || RevokedSession { session_id, user_id: user_id.or(remembered), tokens: Vec::new() };
            let session = recorded.map_or_else(lost, |recorded| recorded.session);
            let revoked = if is_certain { Vec::new() } else { vec![session] };
            let revocation = propagation.propagate(&revoked, started).await?;
            let mut known = lock();
            if known.len() < MAX_CONFIRMED {
                known.entry(session_id).or_insert_with(Instant::now);
            }
            Ok(revocation)
        }
    }

    /// Revokes, in the background, sessions that the store has recorded as revoked and that no request waits for.
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

    fn propagation(&self) -> Propagation<S> {
        Propagation {
            clock: Arc::clone(&self.clock),
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

    /// Drops expired entries from memory, and reconciles revocations that were recorded but not propagated. To be
    /// called every half minute.
    ///
    /// # Errors
    /// The store cannot be used; memory has been cleaned all the same.
    pub async fn maintain(&self, now: UnixSeconds) -> Result<(), ReconcileError<S::Error>> {
        self.mirror.forget_expired(self.shared_time(now));
        self.forget_confirmed();
        match self.cluster {
            Some(_) => follower::reconcile(&self.store, &self.mirror, &*self.clock).await,
            None => Ok(()),
        }
    }

    fn forget_confirmed(&self) {
        let mut confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        confirmed.retain(|_, since| since.elapsed() < RETENTION);
    }

    /// The newest form of tokens ([`SharedSettings::token_form`](crate::SharedSettings::token_form)) that all running
    /// instances read; `None` if this one runs alone.
    pub fn token_form(&self) -> Option<u32> {
        self.cluster.as_ref().map(Cluster::token_form)
    }

    /// Tells the other instances which keys this one accepts, and that it signs with `signs` from now on, if all of them
    /// accept that key. Returns whether it may; until then it has to sign with the key before. A process that signs
    /// nothing gives `None`.
    ///
    /// # Errors
    /// The store cannot be used: it has to sign with the key before.
    pub async fn change_keys(&self, signs: Option<&str>, accepts: &[String]) -> Result<bool, S::Error> {
        match &self.cluster {
            Some(cluster) => cluster.change_keys(signs, accepts).await,
            None => Ok(true),
        }
    }

    /// Why a process with these settings could not run beside this instance, if there is a reason. `facts` are what
    /// [`SessionStore::record_instance`] was given for it.
    pub async fn conflict_with(&self, name: &str, facts: &str) -> Option<String> {
        self.cluster.as_ref()?.conflict_with(name, facts).await
    }

    /// The running instances, as seen by this one. The first snapshot in a while waits for their reports, for half
    /// a second at most.
    pub async fn snapshot(&self) -> ClusterSnapshot {
        match &self.cluster {
            Some(cluster) => cluster.snapshot().await,
            None => cluster::snapshot_alone(self.mirror.session_count(), &self.recent, self.clock.now()),
        }
    }

    /// Runs a command on the Redis that carries the events, for other data of the application that all instances
    /// share. `hash` chooses the node, and has to be random or a hash; the command gets the prefix of its keys.
    ///
    /// `None` if this instance runs alone, or Redis is not its bus, does not answer within a quarter of a second,
    /// or answers with an error.
    #[cfg(feature = "redis")]
    pub async fn with_redis<T>(
        &self,
        hash: &[u8; 16],
        command: impl AsyncFnOnce(&mut redis::aio::MultiplexedConnection, &str) -> Result<T, redis::RedisError>,
    ) -> Option<T> {
        self.cluster.as_ref()?.with_redis(hash, command).await
    }

    /// Updates the gauges that are measured on demand.
    pub fn measure(&self) {
        gauge!("hallpass_mirror_sessions").set(self.mirror.session_count() as f64);
        if let Some(cluster) = &self.cluster {
            cluster.measure();
        }
    }

    /// Whether this process's wall clock agrees with that of the database, within the tolerance in
    /// `agreement.rs`.
    pub fn is_clock_right(&self) -> bool {
        self.cluster.as_ref().is_none_or(Cluster::is_clock_right)
    }

    /// The time of the clock that all instances share: the store's. Alone, it is `own`, that of this process's
    /// wall clock.
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

/// The propagation of a revocation from the store to the mirrors of all instances.
struct Propagation<S> {
    clock: Arc<dyn Clock>,
    mirror: Arc<Mirror>,
    cluster: Option<Cluster<S>>,
    recent: Recent,
}

impl<S: SessionStore> Propagation<S> {
    /// Revokes in the own mirror second, and on the other instances third ("truth first").
    async fn propagate(
        &self,
        revoked: &[RevokedSession],
        started: Instant,
    ) -> Result<Revocation, RevokeError<S::Error>> {
        // There may be a million sessions. Other tasks run in between.
        for some in revoked.chunks(64) {
            some.iter().for_each(|session| self.mirror.revoke(session.session_id));
            coop::consume_budget().await;
        }
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
        recent.insert(
            0,
            CompletedRevocation { number, at: self.clock.now(), instances, acknowledged, elapsed_us },
        );
        recent.truncate(RECENT);
        Ok(Revocation { instances, acknowledged, elapsed })
    }
}

/// Reads a mirror of any size without holding up other tasks. A simulation has one thread.
async fn read_aside<T: Default + Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> T {
    if cfg!(feature = "test-util") {
        return read();
    }
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

/// Looks the token up on the bus first, to reduce the load on the store. A token that the bus does not list may
/// still be live: the bus may have lost its data, or never have received the token.
async fn look_up<S: SessionStore>(
    entry: &TokenRecord,
    store: &S,
    mirror: &Mirror,
    cluster: Option<&Cluster<S>>,
) -> Result<bool, Undetermined> {
    if let Some(cluster) = cluster
        && cluster.contains(entry).await
    {
        mirror.insert(entry);
        return Ok(true);
    }
    let is_live = is_live_in_store(store, entry).await?;
    if is_live {
        mirror.insert(entry);
        if let Some(cluster) = cluster {
            cluster.allow(entry).await;
        }
    }
    Ok(is_live)
}

async fn is_live_in_store<S: SessionStore>(store: &S, entry: &TokenRecord) -> Result<bool, Undetermined> {
    match time::timeout(STORE_TIMEOUT, store.is_token_live(entry)).await {
        Ok(answer) => answer.map_err(|error| {
            warn!("whether a token is live is not known, the store failed: {error}");
            Undetermined
        }),
        Err(_) => Err(store_timed_out()),
    }
}

fn store_timed_out() -> Undetermined {
    warn!("whether a token is live is not known, the store did not answer within {STORE_TIMEOUT:?}");
    Undetermined
}
