//! Followers, which keep the mirrors of all instances in step: one for each partition.
//!
//! A follower has its own connection, and each new connection starts an *epoch*:
//! 1. **Join**: read the end of the chain of events, and the identity of this Redis.
//! 2. **Agree**: check that no live instance follows another Redis ([`crate::agreement`]).
//! 3. **Reconcile**: read recently revoked sessions from the store. Sessions that are revoked from here on arrive
//!    as events.
//! 4. **Replay**: apply the revocations that the stream still holds from before the epoch.
//! 5. **Follow**, as long as the connection and the chain hold: report, apply new events, renew the lease;
//!    then wait for the next event.
//!
//! Only an unbroken chain renews the lease. When the connection is lost, the lease expires; when the chain
//! is broken, an event is unreadable or instances disagree, the follower ends it at once.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{self, Instant},
};
#[cfg(feature = "redis")]
use tracing::error;
use tracing::{info, warn};

use crate::{
    agreement::{Agreement, Disagreement},
    bus::{
        BATCH, Bus, BusError, Connection, Entry, Partition,
        event::{Event, Nonce, Position},
    },
    clock::{Clock, Uptime},
    id::InstanceId,
    lease::{LEASE, Lease},
    membership::{Member, Members, Recent, RecentMembers, Report},
    metrics::counter,
    mirror::Mirror,
    pending::PendingRevocations,
    publisher::Publisher,
    store::SessionStore,
};

/// How long an idle follower waits for the next event before it reports again.
const IDLE_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// How long reconciling may take: a follower that waits longer for the store has no lease anyway.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(15);

/// How long after its last renewal a follower starts a new epoch: sooner than the other instances consider
/// its instance dead.
const STALLED: Duration = Duration::from_secs(3);

/// The state that all followers of an instance share.
pub struct Instance<S> {
    pub id: InstanceId,
    pub name: String,
    pub bus: Bus,
    pub store: S,
    pub clock: Arc<dyn Clock>,
    pub mirror: Arc<Mirror>,
    pub recent: Recent,
    /// The comparison with the settings of all other instances.
    pub agreement: Agreement<S>,
    /// Whether to replay tokens that were issued before this instance joined, too. A process needs them if
    /// it revokes sessions that the store may have lost. Other processes look a token up when it is presented.
    pub replays_issued: bool,
}

/// The state of a follower.
#[derive(Debug, Clone, Default)]
pub enum FollowerState {
    #[default]
    Joining,
    Following,
    Lost {
        why: String,
        /// Whether the settings are wrong, so that trying again will not help.
        is_final: bool,
        /// Whether a live instance follows another Redis. That passes once all instances have reached the
        /// same one.
        is_disagreement: bool,
    },
}

/// Follows the events of one partition.
pub struct Follower<S> {
    instance: Arc<Instance<S>>,
    partition: Partition,
    lease: Arc<Lease>,
    pending: Arc<PendingRevocations>,
    publisher: Arc<Publisher>,
    reports: AtomicU64,
    recent: Mutex<RecentMembers>,
    state: watch::Sender<FollowerState>,
    /// The identity of the Redis whose events have been applied, and the position of the last one.
    applied: Mutex<Option<(String, Position)>>,
}

/// The reason why an epoch ended.
#[derive(Debug, thiserror::Error)]
enum Lost<E> {
    #[error("Redis: {0}")]
    Bus(#[from] BusError),
    #[error("the revoked sessions cannot be read: {0}")]
    Store(#[from] ReconcileError<E>),
    #[error("this process stood still")]
    Stalled,
    #[error("events are missing from the stream")]
    BrokenChain,
    #[cfg(feature = "redis")]
    #[error("an event cannot be read")]
    Unreadable,
    #[error("{0}")]
    Disagreement(Disagreement<E>),
}

impl<E> Lost<E> {
    /// Whether the mirror may lack an event. Otherwise the lease expires by itself.
    fn ends_lease(&self) -> bool {
        match self {
            Self::BrokenChain | Self::Disagreement(_) => true,
            #[cfg(feature = "redis")]
            Self::Unreadable => true,
            Self::Bus(_) | Self::Store(_) | Self::Stalled => false,
        }
    }
}

/// The most important kind of event in a batch of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum BatchContent {
    Nothing,
    Issued,
    /// An instance may be waiting for this to be reported.
    Revoked,
}

/// The last link of the chain that was applied.
struct Chain {
    position: Position,
    nonce: Nonce,
}

impl<S: SessionStore> Follower<S> {
    pub fn new(instance: Arc<Instance<S>>, partition: Partition) -> Self {
        let (lease, pending) = (Arc::<Lease>::default(), Arc::<PendingRevocations>::default());
        let publisher = Publisher::new(
            instance.bus.clone(),
            partition,
            Arc::clone(&lease),
            Arc::clone(&pending),
            Arc::clone(&instance.clock),
        );
        Self {
            instance,
            partition,
            lease,
            pending,
            publisher: Arc::new(publisher),
            reports: AtomicU64::default(),
            recent: Mutex::default(),
            state: watch::Sender::default(),
            applied: Mutex::default(),
        }
    }

    /// Whether the mirror may be used for this partition's users. To be checked before the mirror is read
    /// ("lease first").
    pub fn is_leased(&self) -> bool {
        self.lease.holds(self.now())
    }

    /// The time since the lease was renewed.
    pub fn lease_age(&self) -> Option<Duration> {
        self.lease.age(self.now())
    }

    fn now(&self) -> Uptime {
        self.instance.clock.uptime()
    }

    /// Publishes the events of this instance in the same partition.
    pub fn publisher(&self) -> &Arc<Publisher> {
        &self.publisher
    }

    pub fn state(&self) -> watch::Receiver<FollowerState> {
        self.state.subscribe()
    }

    /// The number of running instances, by their last reports.
    pub fn running(&self) -> usize {
        self.recent().members().running(self.now()).count()
    }

    /// The instances by their ids, including those that have recently departed.
    pub fn instances(&self) -> Vec<(Vec<u8>, Member)> {
        self.recent().all().map(|(instance, member)| (instance.to_vec(), member.clone())).collect()
    }

    fn recent(&self) -> MutexGuard<'_, RecentMembers> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the events, one epoch after another, forever.
    pub async fn follow(&self) -> Infallible {
        let mut pause = Duration::ZERO;
        loop {
            let Err(lost) = self.run_epoch().await;
            let partition = self.partition.index();
            if lost.ends_lease() {
                self.lease.end();
            }
            self.instance.agreement.unfollow(self.partition).await;
            let was = self.state.send_replace(FollowerState::Lost {
                why: lost.to_string(),
                is_final: matches!(&lost, Lost::Bus(error) if error.is_final()),
                is_disagreement: matches!(&lost, Lost::Disagreement(Disagreement::Bus(_))),
            });
            if let FollowerState::Lost { why, .. } = &was
                && *why == lost.to_string()
            {
                pause = (pause * 2).clamp(Duration::from_millis(20), Duration::from_millis(500));
            } else {
                counter!("hallpass_followers_lost_total").increment(1);
                warn!(partition, error = %lost, "lost the event stream of partition {partition}: {lost}; reconnecting");
                pause = Duration::from_millis(5);
            }
            time::sleep(pause).await;
        }
    }

    async fn run_epoch(&self) -> Result<Infallible, Lost<S::Error>> {
        let instance = &*self.instance;
        let own_id = instance.id.to_string();
        let replicas = instance.bus.nodes() / 2;
        let mut connection = instance.bus.connect(self.partition).await?;
        let (position, register, identity) = connection.join().await?;
        // A majority of the nodes confirms the write of `join`, so that from here on no other Redis node
        // can get a write confirmed.
        connection.wait_for_replicas(replicas).await?;
        // The command connection may still lead to a Redis node that has been replaced.
        self.publisher.discard_connection().await;
        // If this process is stopped after it has been recorded, the others may consider it dead.
        let recorded = self.now();
        instance.agreement.follow(self.partition, &identity).await.map_err(Lost::Disagreement)?;
        // From here on, no other instance renews a lease from another Redis. Such leases from before expire
        // within [`LEASE_EXPIRY_BOUND`], which `settle` waits for.
        let since = self.now();
        self.pending.interrupt();
        reconcile(&instance.store, &instance.mirror, &*instance.clock).await?;
        self.replay(&mut connection, &identity, position).await?;
        self.warn_about_redis_config(&mut connection).await;

        let mut chain = Chain { position, nonce: register.head.ok_or(Lost::BrokenChain)? };
        let mut members = Members::default();
        let mut pace = PollPacer::default();
        let mut has_warned = false;
        let mut renewed = recorded;
        loop {
            let sent = self.now();
            // This process was stopped. Others may have considered it dead, so the store has to be read first. It was
            // not if its row has been compared since: reading the revoked sessions may take long.
            if sent.since(renewed.max(instance.agreement.compared_at())) > STALLED {
                return Err(Lost::Stalled);
            }
            let report = self.report(chain.position);
            let lapsed = members.lapsed(sent);
            let (entries, register) =
                connection.renew(own_id.as_bytes(), &report, chain.position, &lapsed).await?;
            connection.wait_for_replicas(replicas).await?;
            let is_all = entries.len() < BATCH;
            let news = self.apply(entries, &mut chain)?;
            if !is_all {
                continue;
            }
            if register.head != Some(chain.nonce) {
                return Err(Lost::BrokenChain);
            }
            if let Some((_, applied)) = &mut *self.applied.lock().unwrap_or_else(PoisonError::into_inner) {
                *applied = chain.position;
            }
            if let Some(conflict) = instance.agreement.conflict() {
                return Err(Lost::Disagreement(Disagreement::Bus(conflict)));
            }
            let now = self.now();
            // This process was stopped while the response was under way. It may lack the report of an instance
            // that considered this one dead and follows another Redis.
            if now.since(sent) > STALLED {
                return Err(Lost::Stalled);
            }
            members.observe(register.reports, now);
            if let Some(name) = members.with_other_partitions(instance.bus.partitions(), now) {
                // This lasts until that instance has departed, or is known to be dead: it may be cut off
                // from the store, where the conflict would otherwise have been found.
                if !has_warned {
                    has_warned = true;
                    warn!("no lease while instance {name} runs: its HALLPASS_REDIS_PARTITIONS differs");
                }
                self.lease.end();
                let entries = connection.wait_for_entries(chain.position, IDLE_POLL_INTERVAL).await?;
                self.apply(entries, &mut chain)?;
                continue;
            }
            self.lease.renew(sent);
            renewed = sent;
            self.pending.settle(&members, since, now);
            self.mark_following(since);
            if !has_warned && members.has_namesake(instance.id, &instance.name) {
                has_warned = true;
                let name = &instance.name;
                warn!("another instance is called {name}, too: give each its own HALLPASS_INSTANCE");
            }
            self.recent().observe(&members, now);

            if self.pending.is_any_applied() {
                pace.after_membership_read().await;
                continue;
            }
            pace.looks = 0;
            // Report applied events before waiting for more: an instance may be waiting for them. On a slow
            // connection there is no time to wait, because the lease has to be renewed.
            let news =
                if news == BatchContent::Nothing && self.now().since(sent) * 2 + IDLE_POLL_INTERVAL < LEASE {
                    let entries = connection.wait_for_entries(chain.position, IDLE_POLL_INTERVAL).await?;
                    self.apply(entries, &mut chain)?
                } else {
                    news
                };
            if news == BatchContent::Issued {
                pace.after_batch().await;
            }
        }
    }

    fn apply(&self, entries: Vec<Entry>, chain: &mut Chain) -> Result<BatchContent, Lost<S::Error>> {
        let mut news = BatchContent::Nothing;
        for entry in entries {
            match entry {
                Entry::Link(link) => {
                    if link.before != Some(chain.nonce) {
                        return Err(Lost::BrokenChain);
                    }
                    *chain = Chain { position: link.position, nonce: link.nonce };
                    let one = self.remember(link.event);
                    if one == BatchContent::Revoked {
                        self.pending.applied(link.nonce, link.position, self.now());
                    }
                    news = news.max(one);
                }
                #[cfg(feature = "redis")]
                Entry::Foreign(position) => {
                    counter!("hallpass_foreign_entries_total").increment(1);
                    warn!("skipped entry {position} of the stream: it was not written by Hallpass");
                    chain.position = position;
                }
                #[cfg(feature = "redis")]
                Entry::Unreadable(position) => {
                    counter!("hallpass_unreadable_entries_total").increment(1);
                    error!("entry {position} of the stream cannot be read: starting again from the database");
                    return Err(Lost::Unreadable);
                }
            }
        }
        Ok(news)
    }

    fn report(&self, position: Position) -> String {
        let instance = &self.instance;
        let report = Report {
            name: instance.name.clone(),
            position: position.to_string(),
            count: self.reports.fetch_add(1, Ordering::Relaxed),
            partitions: instance.bus.partitions(),
            sessions: instance.mirror.session_count(),
            revocations: instance.recent.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        serde_json::to_string(&report).unwrap_or_default()
    }

    fn mark_following(&self, since: Uptime) {
        self.state.send_if_modified(|state| {
            let is_new = !matches!(state, FollowerState::Following);
            if is_new {
                let (partition, joined) = (self.partition.index(), self.now().since(since));
                info!(partition, "following partition {partition} (joined {joined:.0?} ago)");
                *state = FollowerState::Following;
            }
            is_new
        });
    }

    async fn warn_about_redis_config(&self, connection: &mut Connection) {
        // An ACL may forbid `INFO`; then there are no warnings.
        for warning in connection.config_warnings(self.instance.bus.nodes()).await.unwrap_or_default() {
            warn!("{warning}");
        }
    }

    /// Applies the events that the stream holds from before this epoch: all of them, or those since this
    /// follower last applied any. The stream reaches back further than any token lives. It covers sessions
    /// that were revoked in that time and that the store has lost since, which reconciling cannot find.
    async fn replay(
        &self,
        connection: &mut Connection,
        identity: &str,
        to: Position,
    ) -> Result<(), BusError> {
        let applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut position = match applied {
            Some((known, position)) if known == identity => position,
            _ => Position::default(),
        };
        while position < to {
            let entries = connection.wait_for_entries(position, Duration::ZERO).await?;
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                position = match entry {
                    Entry::Link(link) => {
                        if self.instance.replays_issued || matches!(link.event, Event::Revoked(_)) {
                            self.remember(link.event);
                        }
                        link.position
                    }
                    #[cfg(feature = "redis")]
                    Entry::Foreign(position) | Entry::Unreadable(position) => position,
                };
            }
        }
        *self.applied.lock().unwrap_or_else(PoisonError::into_inner) = Some((identity.to_owned(), to));
        Ok(())
    }

    fn remember(&self, event: Event) -> BatchContent {
        let mirror = &self.instance.mirror;
        match event {
            Event::Issued(entry) => {
                mirror.insert(&entry);
                BatchContent::Issued
            }
            Event::Revoked(sessions) => {
                sessions.into_iter().for_each(|session_id| mirror.revoke(session_id));
                BatchContent::Revoked
            }
        }
    }

    /// Ends the lease, and removes this instance from the membership, so that no revocation waits for it. The
    /// follower must have been stopped.
    pub async fn leave(&self) {
        self.lease.end();
        self.publisher.leave(self.instance.id).await;
    }
}

/// The reason why the revocations could not be read from the store.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError<E> {
    /// The store cannot be used.
    #[error("{0}")]
    Store(E),
    /// The store did not answer in time.
    #[error("it did not answer within {RECONCILE_TIMEOUT:?}")]
    TimedOut,
}

/// Reads recently revoked sessions from the store into the mirror.
///
/// # Errors
/// The store cannot be read.
pub async fn reconcile<S: SessionStore>(
    store: &S,
    mirror: &Arc<Mirror>,
    clock: &dyn Clock,
) -> Result<(), ReconcileError<S::Error>> {
    let mirror = Arc::clone(mirror);
    let reading = store.revoked_sessions(clock.now(), move |session_id| mirror.revoke(session_id));
    let read = time::timeout(RECONCILE_TIMEOUT, reading).await.map_err(|_| ReconcileError::TimedOut)?;
    read.map_err(ReconcileError::Store)?;
    counter!("hallpass_reconciles_total").increment(1);
    Ok(())
}

/// Paces the loop of a follower, to neither delay revocations nor keep Redis busy.
#[derive(Default)]
struct PollPacer {
    /// The number of membership reads since a revocation began to wait for the others.
    looks: u32,
    /// The number of batches in the current window.
    batches: u32,
    window: Option<Instant>,
}

impl PollPacer {
    const WINDOW: Duration = Duration::from_millis(100);
    /// The number of batches in a window that are read without a pause.
    const BURST: u32 = 50;

    /// Other instances mostly report within a millisecond. If they do not, it may take until their leases
    /// expire.
    async fn after_membership_read(&mut self) {
        self.looks += 1;
        match self.looks {
            0..20 => tokio::task::yield_now().await,
            looks => time::sleep(Duration::from_millis(u64::from(looks - 19).min(20))).await,
        }
    }

    /// When there are many events, reading larger batches reduces the load on Redis to a tenth.
    async fn after_batch(&mut self) {
        let now = Instant::now();
        if self.window.is_none_or(|began| now - began >= Self::WINDOW) {
            (self.window, self.batches) = (Some(now), 0);
        }
        self.batches += 1;
        if self.batches > Self::BURST {
            time::sleep(Duration::from_millis(5)).await;
        }
    }
}
