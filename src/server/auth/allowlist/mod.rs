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
//! [`watch`] (when a revocation may be answered), [`register`] (who is waited for), [`seen`] (who is
//! shown), [`redis`] (keys and scripts).
//!
//! `auth/` calls this; this calls the database. It knows ids and no JWT.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use metrics::{counter, histogram};
use tokio::time;
use tracing::{info, warn};

use self::{
    bus::Unconfirmed,
    mirror::{Mirror, State},
    watch::Acknowledged,
};
use crate::{
    api::types::{ClusterView, RecentRevocation, Revocation},
    server::{
        access_tokens::TokenEntry,
        clock::{self, UnixSeconds},
        config::Config,
        db::{Db, DbError},
        ids::{SessionId, TokenId, UserId},
        metrics as counters,
        sessions::RevokedSession,
    },
};

mod bus;
mod cluster;
mod event;
mod lease;
mod listeners;
mod mirror;
mod redis;
mod register;
mod seen;
mod watch;

pub use cluster::Cluster;

/// How long SQL may take to answer a request that memory could not.
const SQL_PATIENCE: Duration = Duration::from_secs(2);

/// The live tokens, as this instance knows them.
pub struct Allowlist {
    db: Db,
    mirror: Arc<Mirror>,
    /// The other instances. Alone, this one hears of every change because it makes every change.
    cluster: Option<Cluster>,
    /// The revocations that were asked for here, the newest first.
    recent: Recent,
    /// Those who meet the same unknown token at the same time ask for it once.
    look_ups: Arc<Mutex<HashMap<TokenId, LookUp>>>,
}

type LookUp = Shared<BoxFuture<'static, Result<bool, CannotTell>>>;

/// The last revocations, the newest first.
pub type Recent = Arc<Mutex<Vec<RecentRevocation>>>;

/// How many of them are kept. Each report to the register carries them all.
const RECENT: usize = 5;

/// Nobody who knows can be asked: the token may be alive, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CannotTell;

/// Nothing is certain: no answer may claim that the sessions have ended.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    #[error("the database: {0}")]
    Db(#[from] DbError),
    #[error("recorded, but some instances may not know of it: {0}")]
    Unconfirmed(#[from] Unconfirmed),
}

impl Allowlist {
    /// Fills the mirror from the truth, so that a restart signs nobody out and brings nothing
    /// back; joins the other instances, where there are to be any.
    ///
    /// # Errors
    /// The database cannot be read, or Redis cannot be followed in the time that the settings give.
    pub async fn load(config: &Config, db: Db, now: UnixSeconds) -> Result<Self> {
        let mirror = Arc::new(Mirror::default());
        let live = db.live_tokens(now, |entry| mirror.insert(&entry)).await;
        live.context("the live tokens cannot be read")?;
        let sessions = mirror.session_count();
        info!(sessions, "the allowlist holds {sessions} live sessions");
        let recent = Recent::default();
        let cluster = match &config.redis.url {
            Some(_) => {
                Some(Cluster::join(config, db.clone(), Arc::clone(&mirror), Arc::clone(&recent)).await?)
            }
            None => None,
        };
        Ok(Self { db, mirror, cluster, recent, look_ups: Arc::default() })
    }

    /// Lets in a token that SQL has recorded. If its session has been revoked meanwhile it stays
    /// out: revocation wins, in whatever order the two arrive.
    pub async fn allow(&self, entry: &TokenEntry) {
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
    /// [`CannotTell`].
    pub async fn is_active(&self, entry: &TokenEntry) -> Result<bool, CannotTell> {
        match self.remembered(entry) {
            Some(answer) => Ok(answer),
            // In a box, so that those who need not ask carry no place for it about.
            None => Box::pin(self.ask(entry)).await,
        }
    }

    /// What memory says, if it may be trusted.
    fn remembered(&self, entry: &TokenEntry) -> Option<bool> {
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

    async fn ask(&self, entry: &TokenEntry) -> Result<bool, CannotTell> {
        if self.is_leased(entry.user_id) {
            counter!("hallpass_mirror_misses_total").increment(1);
            if !self.look_up(entry).await? {
                return Ok(false);
            }
            // What was found may have been revoked since it was looked up: memory knows.
            if let Some(answer) = self.remembered(entry) {
                return Ok(answer);
            }
        }
        counter!("hallpass_fallbacks_total").increment(1);
        is_live_in_sql(&self.db, entry).await
    }

    /// Finds out whether the token was issued, and remembers it if so; one question for all who
    /// ask at the same time.
    async fn look_up(&self, entry: &TokenEntry) -> Result<bool, CannotTell> {
        let look_up = {
            let mut look_ups = self.look_ups.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || {
                let (entry, db, mirror) = (*entry, self.db.clone(), Arc::clone(&self.mirror));
                let (cluster, look_ups) = (self.cluster.clone(), Arc::clone(&self.look_ups));
                let looking_up = async move {
                    let answer = look_up(&entry, &db, &mirror, cluster.as_ref()).await;
                    look_ups.lock().unwrap_or_else(PoisonError::into_inner).remove(&entry.token_id);
                    answer
                };
                looking_up.boxed().shared()
            };
            look_ups.entry(entry.token_id).or_insert_with(new).clone()
        };
        look_up.await
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

    /// Ends the sessions that `recording` has recorded in SQL as revoked. Once this has returned
    /// `Ok`, none of their tokens is accepted again, here or anywhere, nor after a restart. Ending
    /// what has ended succeeds, and is made certain again.
    ///
    /// # Errors
    /// [`RevokeError`]: the caller must not claim success.
    pub async fn revoke(
        &self,
        recording: impl Future<Output = Result<Vec<RevokedSession>, DbError>> + Send + 'static,
    ) -> Result<Revocation, RevokeError> {
        let spreading = self.spreading();
        // A task of its own: a client that hangs up drops its request, but not half of this.
        let revoking = tokio::spawn(async move {
            let started = Instant::now();
            let revoked = recording.await?;
            spreading.spread(&revoked, started).await
        });
        revoking.await.unwrap_or(Err(RevokeError::Db(DbError::WorkerCrashed)))
    }

    /// Ends sessions that SQL has recorded as revoked, as [`Allowlist::revoke`] does.
    ///
    /// # Errors
    /// [`RevokeError`].
    pub async fn spread(&self, revoked: &[RevokedSession]) -> Result<Revocation, RevokeError> {
        self.spreading().spread(revoked, Instant::now()).await
    }

    fn spreading(&self) -> Spreading {
        Spreading {
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
        self.mirror.forget_expired(now);
        if self.cluster.is_some() {
            bus::reconcile(&self.db, &self.mirror).await?;
        }
        self.db.forget_expired(now).await?;
        self.db.forget_old_events(now).await
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

    /// Stops trusting memory, and tells the others not to wait for this instance.
    pub async fn leave(&self) {
        if let Some(cluster) = &self.cluster {
            cluster.leave().await;
        }
    }
}

/// From the truth to everyone's memory.
struct Spreading {
    mirror: Arc<Mirror>,
    cluster: Option<Cluster>,
    recent: Recent,
}

impl Spreading {
    /// This mirror second, the others third.
    async fn spread(&self, revoked: &[RevokedSession], started: Instant) -> Result<Revocation, RevokeError> {
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
    entry: &TokenEntry,
    db: &Db,
    mirror: &Mirror,
    cluster: Option<&Cluster>,
) -> Result<bool, CannotTell> {
    if let Some(cluster) = cluster
        && cluster.is_listed(entry).await
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

async fn is_live_in_sql(db: &Db, entry: &TokenEntry) -> Result<bool, CannotTell> {
    let failed = |why: &dyn std::fmt::Display| {
        warn!("a token could be looked up nowhere: {why}");
        CannotTell
    };
    match time::timeout(SQL_PATIENCE, db.is_token_live(entry)).await {
        Ok(answer) => answer.map_err(|error| failed(&error)),
        Err(_) => Err(failed(&"the database does not answer")),
    }
}
