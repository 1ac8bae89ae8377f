//! Followers, which keep the mirrors of all instances in step: one for each partition.
//!
//! A follower has its own connection, and each new connection starts an *epoch*:
//! 1. **Join**: read the end of the chain of events, and the identity of this Redis.
//! 2. **Agree**: check that no live instance follows another Redis ([`crate::agreement`]).
//! 3. **Reconcile**: read recently revoked sessions from the store. Sessions that are revoked from here on arrive
//!    as events.
//! 4. **Replay**: apply the revocations that the stream still holds from before the epoch.
//! 5. **Follow**, as long as the connection and the chain hold: report, wait for new events, apply them. A report
//!    renews the lease once all events are applied that had been published when Redis stored it.
//!
//! Only an unbroken chain renews the lease. When the connection is lost, the lease expires; when the chain
//! is broken, an event is unreadable or instances disagree, the follower ends it at once.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::maybe_done;
use tokio::{
    sync::{Notify, watch},
    time::{self, Instant},
};
#[cfg(feature = "redis")]
use tracing::error;
use tracing::{info, warn};

use crate::{
    agreement::{Agreement, Disagreement},
    bus::{
        Awaited, BATCH, Bus, BusError, Connection, Entry, Head, Partition, Read, Renewed, Report,
        event::{Event, Nonce, Position},
    },
    clock::{Clock, Uptime},
    id::InstanceId,
    lease::{LEASE, LEASE_EXPIRY_BOUND, Lease},
    membership::{Beats, Member, Members, Profile, Recent},
    metrics::counter,
    mirror::Mirror,
    pending::PendingRevocations,
    publisher::Publisher,
    snapshot::MemberKind,
    store::SessionStore,
};

/// How long an idle follower waits for the next event before it reports again.
const IDLE_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// How long a follower waits for the next event while a revocation waits for other instances. Redis wakes it when
/// they have reported; it looks again nevertheless, because their leases may expire.
const PENDING_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long a follower collects events after it has received several at once, with [`MANY`] members or more: each of
/// them reports after each read.
const COLLECT: Duration = Duration::from_millis(1);
const MANY: usize = 16;

/// How often an instance stores what it shows of itself, and how often at most if there is a new revocation.
const SHOW_INTERVAL: Duration = Duration::from_secs(1);
const SHOW_SPACING: Duration = Duration::from_millis(100);

/// How long after the last snapshot the membership is read at each renewal.
const WATCHED: Duration = Duration::from_secs(3);

/// How long the first snapshot in a while waits for the membership to be read.
const FIRST_READ_TIMEOUT: Duration = Duration::from_millis(500);

/// How long reconciling may take: a follower that waits longer for the store has no lease anyway.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(15);

/// How long after its last renewal a follower starts a new epoch: sooner than the other instances consider
/// its instance dead.
const STALLED: Duration = Duration::from_secs(3);

/// The state that all followers of an instance share.
pub struct Instance<S> {
    pub id: InstanceId,
    pub name: String,
    pub kind: MemberKind,
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
    members: Mutex<Members>,
    /// The [`Uptime`] at which the last report was answered, and that of the last snapshot.
    renewed: AtomicU64,
    watched: AtomicU64,
    /// Notified when the membership has been read.
    members_read: Notify,
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

/// The events in a batch of entries.
#[derive(Debug, Clone, Copy, Default)]
struct News {
    events: usize,
    /// An instance may be waiting for a revocation to be reported.
    has_revoked: bool,
}

/// The last link of the chain that was applied, and what that is good for.
struct Chain {
    /// The nonce with which the chain began.
    first: Nonce,
    position: Position,
    serial: u64,
    nonce: Nonce,
    /// The head when a report was stored, and when that was sent: once the chain has been applied up to it, the
    /// lease is renewed.
    owed: Option<(Head, Uptime)>,
}

impl Chain {
    /// Whether the chain is intact as far as it has been applied, given the head that was read with a report.
    fn agrees_with(&self, head: &Head) -> bool {
        head.serial > self.serial || (head.serial == self.serial && head.nonce == self.nonce)
    }
}

/// What the loop of an epoch carries from one report to the next.
struct Epoch {
    /// From here on, no other instance renews a lease from another Redis.
    since: Uptime,
    chain: Chain,
    /// The serial number of the last report.
    reported: Option<u64>,
    applied_by_all: u64,
    beats: Beats,
    /// The version of the membership that was read last.
    version: Option<u64>,
    /// When the last report was sent that renewed the lease, or the row was recorded in the store.
    renewed: Uptime,
    /// When this instance last stored what it shows of itself, and the number of the last revocation in that.
    shown: Option<(Uptime, u64)>,
    round_trip: Duration,
    /// Whether the last wait was ended by what an earlier chain has left.
    is_deaf: bool,
    /// Whether an instance with another number of partitions runs, so that there is no lease here.
    is_barred: bool,
    has_warned: bool,
    is_namesake_uncertain: bool,
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
            members: Mutex::default(),
            renewed: AtomicU64::default(),
            watched: AtomicU64::default(),
            members_read: Notify::default(),
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

    /// The number of running instances; zero if that has not been known for a while.
    pub fn running(&self) -> usize {
        let is_known = self.since_renewal(self.now()) < LEASE_EXPIRY_BOUND;
        if is_known { self.members().count() } else { 0 }
    }

    /// The time since a report of this instance was answered.
    fn since_renewal(&self, now: Uptime) -> Duration {
        now.since(Uptime(self.renewed.load(Ordering::Relaxed)))
    }

    /// Keeps the membership up to date for a while. If it was not, this waits until it has been read, or half a
    /// second.
    pub async fn watch(&self) {
        let (read, now) = (self.members_read.notified(), self.now());
        let was_watched = self.is_watched(now);
        self.watched.store(now.0, Ordering::Relaxed);
        if !was_watched {
            let _ = time::timeout(FIRST_READ_TIMEOUT, read).await;
        }
    }

    /// The instances, including those that have recently departed: the id of each, what is known of it, and for how
    /// long it has been silent.
    pub fn instances(&self) -> Vec<(Vec<u8>, Member, Duration)> {
        let now = self.now();
        let unheard = self.since_renewal(now);
        let members = self.members();
        members
            .all(now)
            .map(|(id, member, silence)| (id.to_vec(), member.clone(), silence + unheard))
            .collect()
    }

    fn is_watched(&self, now: Uptime) -> bool {
        let watched = self.watched.load(Ordering::Relaxed);
        watched != 0 && now.since(Uptime(watched)) < WATCHED
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut connection = instance.bus.connect(self.partition).await?;
        let (position, head, identity) = connection.join().await?;
        // A majority of the nodes confirms the write of `join`, so that from here on no other Redis node
        // can get a write confirmed.
        connection.wait_for_replicas(self.replicas()).await?;
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

        let Head { chain: first, serial, nonce, .. } = head;
        let mut epoch = Epoch {
            since,
            chain: Chain { first, position, serial, nonce, owed: None },
            reported: None,
            applied_by_all: 0,
            beats: Beats::default(),
            version: None,
            renewed: recorded,
            shown: None,
            round_trip: Duration::ZERO,
            is_deaf: false,
            is_barred: false,
            has_warned: false,
            is_namesake_uncertain: false,
        };
        let mut pace = PollPacer::default();
        loop {
            let news = self.report_and_wait(&mut connection, &mut epoch).await?;
            // Applied revocations are reported at once: an instance may be waiting for them.
            if news.has_revoked {
                if news.events > 1 && self.members().count() >= MANY {
                    time::sleep(COLLECT).await;
                }
            } else if news.events > 0 {
                pace.after_batch().await;
            }
        }
    }

    /// The number of replicas that confirm each write.
    fn replicas(&self) -> usize {
        self.instance.bus.nodes() / 2
    }

    /// Reports what has been applied, settles what is confirmed by the answer, waits for the next events, and applies
    /// them.
    async fn report_and_wait(
        &self,
        connection: &mut Connection,
        epoch: &mut Epoch,
    ) -> Result<News, Lost<S::Error>> {
        self.show(connection, epoch).await?;
        let sent = self.now();
        // This process was stopped. Others may have considered it dead, so the store has to be read first. It was
        // not if its row has been compared since: reading the revoked sessions may take long.
        if sent.since(epoch.renewed.max(self.instance.agreement.compared_at())) > STALLED {
            return Err(Lost::Stalled);
        }
        let report = Report {
            instance: self.instance.id,
            partitions: self.instance.bus.partitions(),
            chain: epoch.chain.first,
            applied: epoch.chain.serial,
            reported: epoch.reported,
            lapsed_below: epoch.beats.lapsed_below(sent),
        };
        let awaited = self.awaited(epoch);
        let mut reader = connection.clone();
        let mut reading = pin!(maybe_done(reader.wait_for_entries(&awaited)));
        // The command that waits is sent along with the report, unless others have to be answered before it.
        let is_alone = self.replicas() > 0 || epoch.version.is_none() || self.reads_members(epoch, sent);
        let renewed = {
            let mut renewing = pin!(connection.renew(&report));
            poll_fn(|context| {
                let answer = renewing.as_mut().poll(context);
                if !is_alone {
                    let _ = reading.as_mut().poll(context);
                }
                answer
            })
            .await?
        };
        connection.wait_for_replicas(self.replicas()).await?;
        // The register was lost. Others may have been, too.
        let renewed = renewed.ok_or(Lost::BrokenChain)?;
        if !epoch.chain.agrees_with(&renewed.head) {
            return Err(Lost::BrokenChain);
        }
        let now = self.now();
        epoch.round_trip = now.since(sent);
        epoch.reported = Some(report.applied);
        epoch.beats.record(renewed.beat, now);
        self.renewed.store(now.0, Ordering::Relaxed);
        let must_read = epoch.version != Some(renewed.head.version) || self.pending.is_any_overdue(now);
        if must_read {
            if !is_alone {
                reading.as_mut().await;
            }
            self.read_members(connection, epoch, renewed.head).await?;
        }
        self.conclude(epoch, renewed, sent)?;
        // Afterwards, because on a slow connection the lease must not wait for what is only shown.
        if !must_read && is_alone && self.reads_members(epoch, now) {
            self.read_members(connection, epoch, renewed.head).await?;
        }

        reading.as_mut().await;
        let mut read = reading.as_mut().take_output().unwrap_or_else(|| Ok(Read::default()))?;
        // What an earlier chain has left, or members that are not known here, ends each wait at once: the next one does
        // without.
        epoch.is_deaf = read
            .applied_by_all
            .is_some_and(|all| all.chain != epoch.chain.first || Some(all.version) != epoch.version);
        if let Some(all) = read.applied_by_all {
            // A majority of the nodes confirms reports, and not what is read.
            if !epoch.is_deaf && self.replicas() == 0 {
                self.settle(epoch, all.serial, sent)?;
            }
            if read.entries.is_empty() && !self.pending.is_any_applied() {
                // What this instance has reported renews the lease for a while.
                let timeout = IDLE_POLL_INTERVAL.saturating_sub(self.now().since(sent));
                let rest = Awaited { after: epoch.chain.position, applied_by_all: None, timeout };
                read = connection.wait_for_entries(&rest).await?;
            }
        }
        let count = read.entries.len();
        let mut news = self.apply(read.entries, &mut epoch.chain)?;
        let is_behind = |chain: &Chain| chain.owed.is_some_and(|(head, _)| chain.serial < head.serial);
        if count < BATCH && is_behind(&epoch.chain) {
            // The events up to the head are missing, unless they were published after the stream was read.
            let rest = Awaited { after: epoch.chain.position, applied_by_all: None, timeout: Duration::ZERO };
            let more = self.apply(connection.wait_for_entries(&rest).await?.entries, &mut epoch.chain)?;
            news =
                News { events: news.events + more.events, has_revoked: news.has_revoked || more.has_revoked };
            if is_behind(&epoch.chain) {
                return Err(Lost::BrokenChain);
            }
        }
        if !is_behind(&epoch.chain)
            && let Some((_, sent)) = epoch.chain.owed.take()
        {
            self.check_answer(sent)?;
            self.renew_lease(epoch, sent);
        }
        Ok(news)
    }

    /// Reads the membership, of which the register had this head before.
    async fn read_members(
        &self,
        connection: &mut Connection,
        epoch: &mut Epoch,
        head: Head,
    ) -> Result<(), Lost<S::Error>> {
        let register = connection.register().await?;
        let read = self.now();
        // The register has been lost since this instance reported, and others may be missing from it, too.
        if !register.reports.contains_key(self.instance.id.to_string().as_bytes()) {
            return Err(Lost::BrokenChain);
        }
        self.members().observe(register, &epoch.beats, read);
        epoch.version = Some(head.version);
        self.members_read.notify_waiters();
        self.warn_about_namesake(epoch);
        Ok(())
    }

    /// What to wait for after the next report.
    fn awaited(&self, epoch: &Epoch) -> Awaited {
        let is_waiting = self.pending.is_any_applied();
        let mut awaited = Awaited {
            after: epoch.chain.position,
            applied_by_all: self.pending.next_above(epoch.applied_by_all),
            timeout: if is_waiting { PENDING_POLL_INTERVAL } else { IDLE_POLL_INTERVAL },
        };
        // Alone, it is the last that reports.
        if epoch.is_deaf || self.members().count() == 1 {
            awaited.applied_by_all = None;
        }
        // On a slow connection there is no time to wait, because the lease has to be renewed.
        if epoch.round_trip * 2 + awaited.timeout >= LEASE {
            awaited.timeout = Duration::ZERO;
        }
        awaited
    }

    /// Whether the membership is read although it has not changed.
    fn reads_members(&self, epoch: &Epoch, now: Uptime) -> bool {
        epoch.is_namesake_uncertain || self.is_watched(now)
    }

    /// Draws the conclusions from the answer to a report that was sent at `sent`.
    fn conclude(&self, epoch: &mut Epoch, renewed: Renewed, sent: Uptime) -> Result<(), Lost<S::Error>> {
        let other = self.members().with_other_partitions(self.instance.bus.partitions());
        epoch.is_barred = other.is_some();
        if let Some(name) = other {
            // This lasts until that instance has departed, or is known to be dead: it may be cut off
            // from the store, where the conflict would otherwise have been found.
            if !epoch.has_warned {
                epoch.has_warned = true;
                warn!("no lease while instance {name} runs: its HALLPASS_REDIS_PARTITIONS differs");
            }
            self.lease.end();
            epoch.chain.owed = None;
        } else if renewed.head.serial == epoch.chain.serial {
            epoch.chain.owed = None;
            self.check_answer(sent)?;
            self.renew_lease(epoch, sent);
        } else {
            epoch.chain.owed = Some((renewed.head, sent));
        }
        self.settle(epoch, renewed.applied_by_all, sent)
    }

    /// Settles what is confirmed by an answer to what was sent at `sent`: all members have reported this serial number.
    fn settle(&self, epoch: &mut Epoch, applied_by_all: u64, sent: Uptime) -> Result<(), Lost<S::Error>> {
        let now = self.check_answer(sent)?;
        epoch.applied_by_all = applied_by_all;
        if !epoch.is_barred {
            self.pending.settle(applied_by_all, &self.members(), epoch.since, now);
        }
        Ok(())
    }

    /// Whether the answer to what was sent at `sent` counts. Returns the time.
    fn check_answer(&self, sent: Uptime) -> Result<Uptime, Lost<S::Error>> {
        let now = self.now();
        // This process was stopped while the response was under way. It may lack the report of an instance
        // that considered this one dead and follows another Redis.
        if now.since(sent) > STALLED {
            return Err(Lost::Stalled);
        }
        match self.instance.agreement.conflict() {
            Some(conflict) => Err(Lost::Disagreement(Disagreement::Bus(conflict))),
            None => Ok(now),
        }
    }

    /// Renews the lease by a report that was sent at `sent`: all events have been applied that had been published
    /// when it was stored.
    fn renew_lease(&self, epoch: &mut Epoch, sent: Uptime) {
        if let Some((_, applied)) = &mut *self.applied.lock().unwrap_or_else(PoisonError::into_inner) {
            *applied = epoch.chain.position;
        }
        self.lease.renew(sent);
        epoch.renewed = sent;
        self.mark_following(epoch.since);
    }

    fn apply(&self, entries: Vec<Entry>, chain: &mut Chain) -> Result<News, Lost<S::Error>> {
        let mut news = News::default();
        for entry in entries {
            match entry {
                Entry::Link(link) => {
                    if link.before != Some(chain.nonce) {
                        return Err(Lost::BrokenChain);
                    }
                    (chain.position, chain.serial, chain.nonce) =
                        (link.position, chain.serial + 1, link.nonce);
                    if chain
                        .owed
                        .is_some_and(|(head, _)| !chain.agrees_with(&head) && head.serial == chain.serial)
                    {
                        return Err(Lost::BrokenChain);
                    }
                    let is_revoked = matches!(link.event, Event::Revoked(_));
                    self.remember(link.event);
                    if is_revoked {
                        self.pending.applied(link.nonce, chain.serial, self.now());
                    }
                    news.events += 1;
                    news.has_revoked |= is_revoked;
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

    /// Stores what pages show of this instance, now and then, and soon after a revocation.
    async fn show(&self, connection: &mut Connection, epoch: &mut Epoch) -> Result<(), BusError> {
        let (instance, now) = (&self.instance, self.now());
        let recent = || instance.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let last = recent().first().map_or(0, |revocation| revocation.number);
        if let Some((shown, number)) = epoch.shown {
            let interval = if number == last { SHOW_INTERVAL } else { SHOW_SPACING };
            if now.since(shown) < interval {
                return Ok(());
            }
        }
        epoch.shown = Some((now, last));
        let profile = Profile {
            name: instance.name.clone(),
            kind: instance.kind,
            sessions: instance.mirror.session_count(),
            revocations: recent().clone(),
        };
        let profile = serde_json::to_string(&profile).unwrap_or_default();
        let forgotten = self.members().forget_departed(now);
        connection.show(instance.id, &profile, &forgotten).await
    }

    fn warn_about_namesake(&self, epoch: &mut Epoch) {
        let name = &self.instance.name;
        let has_namesake = self.members().has_namesake(self.instance.id, name);
        epoch.is_namesake_uncertain = has_namesake.is_none() && !epoch.has_warned;
        if has_namesake == Some(true) && !epoch.has_warned {
            epoch.has_warned = true;
            warn!("another instance is called {name}, too: give each its own HALLPASS_INSTANCE");
        }
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
            let awaited = Awaited { after: position, applied_by_all: None, timeout: Duration::ZERO };
            let entries = connection.wait_for_entries(&awaited).await?.entries;
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

    fn remember(&self, event: Event) {
        let mirror = &self.instance.mirror;
        match event {
            Event::Issued(entry) => mirror.insert(&entry),
            Event::Revoked(sessions) => sessions.into_iter().for_each(|session_id| mirror.revoke(session_id)),
        }
    }

    /// Ends the lease, and removes this instance from the membership, so that no revocation waits for it. The
    /// follower must have been stopped.
    pub async fn leave(&self) {
        self.lease.end();
        self.publisher.leave(self.instance.id, self.instance.bus.partitions()).await;
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
    /// The number of batches in the current window.
    batches: u32,
    window: Option<Instant>,
}

impl PollPacer {
    const WINDOW: Duration = Duration::from_millis(100);
    /// The number of batches in a window that are read without a pause.
    const BURST: u32 = 50;

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
