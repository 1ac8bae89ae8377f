//! Keeps the mirrors of all instances in step: one follower for each partition.
//!
//! A follower has a connection of its own, and each new connection starts an *epoch*:
//! 1. **Join**: find out where the chain of events stands, and which Redis this is.
//! 2. **Agree**: no live instance may follow another one ([`super::agreement`]).
//! 3. **Reconcile**: take over from SQL what has been revoked. What is revoked from here on will
//!    come as an event.
//! 4. **Follow**, for as long as the connection and the chain hold: report, apply what has
//!    happened, renew the lease; then wait for the next event.
//!
//! Only an unbroken chain renews the lease. When the connection is lost the lease lapses by
//! itself; when the chain is broken it ends at once.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use metrics::counter;
use tokio::{
    sync::{Mutex as AsyncMutex, watch},
    time::{self, Instant},
};
use tracing::{error, info, warn};

use super::{
    agreement::{Agreement, Disagreement},
    event::{Event, Nonce, Position},
    lease::{LEASE, LEASE_EXPIRY_BOUND, Lease, Uptime},
    membership::{Member, Members, Recent, RecentMembers, Report},
    mirror::Mirror,
    pending::{Acknowledged, PendingRevocations},
    redis::{self, BATCH, Connection, Entry, Partition, RedisError, Servers},
};
use crate::server::{
    auth::rate_limit::{BucketKey, RateLimit},
    clock,
    db::{Db, DbError, access_tokens::TokenRecord, sessions::RevokedSession},
    ids::{InstanceId, SessionId, TokenId},
};

/// How long a follower that has nothing to do waits for the next event before it reports again.
const IDLE_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// A revocation that is not confirmed by then is answered 503. Longer than a lease takes to expire
/// twice, so that a server that was just restarted does not cost an answer.
const REVOCATION_TIMEOUT: Duration = Duration::from_secs(3);

/// How much later that may be for a revocation that needs many events.
const PUBLISHING_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a request waits for Redis where it can do without: SQL can be asked instead.
const OPTIONAL_REDIS_TIMEOUT: Duration = Duration::from_millis(250);

/// How long an instance that stops waits for Redis to take it off the register.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long reconciling may take: a follower that waits for SQL any longer has no lease.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(15);

/// How long after its last renewal a follower starts anew: less than it takes to be taken for dead.
const STALLED: Duration = Duration::from_secs(3);

/// More would make one event too large for one script.
const SESSIONS_IN_AN_EVENT: usize = 500;

/// How many tokens one event takes off the list: Redis does nothing else meanwhile.
const TOKENS_IN_AN_EVENT: usize = 1000;

/// What all followers of an instance have in common.
pub struct Instance {
    pub id: InstanceId,
    pub name: String,
    pub servers: Servers,
    /// How many partitions there are.
    pub partitions: u16,
    /// A primary and its replicas, counted together.
    pub nodes: usize,
    pub db: Db,
    pub mirror: Arc<Mirror>,
    pub recent: Recent,
    /// What all instances have to agree on.
    pub agreement: Agreement,
    /// Tokens that were issued before it joined are remembered, too: by a process that is to end sessions
    /// which SQL may have lost. Others look a token up when they meet it.
    pub replays_issued: bool,
}

/// How a follower is doing.
#[derive(Debug, Clone, Default)]
pub enum FollowerState {
    #[default]
    Joining,
    Following,
    Lost {
        why: String,
        /// Trying again will not help: the settings are wrong.
        is_final: bool,
        /// A live instance contradicts this one. That passes if they are all about to find the same.
        is_disagreement: bool,
    },
}

/// Follows the events of one partition, and speaks for this instance there.
pub struct Follower {
    instance: Arc<Instance>,
    partition: Partition,
    lease: Lease,
    pending: PendingRevocations,
    reports: AtomicU64,
    recent: Mutex<RecentMembers>,
    state: watch::Sender<FollowerState>,
    /// For everything but following, which blocks its own.
    commands: AsyncMutex<Option<Connection>>,
    /// The connection for commands is being asked whether it still answers.
    is_probing: AtomicBool,
    /// By which Redis, and up to where, events have been applied.
    applied: Mutex<Option<(String, Position)>>,
}

/// Why an epoch ended.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("Redis: {0}")]
    Redis(#[from] RedisError),
    #[error("the database: {0}")]
    Db(#[from] DbError),
    #[error("this process stood still")]
    Stalled,
    #[error("events are missing from the stream")]
    BrokenChain,
    #[error("an event cannot be read")]
    Unreadable,
    #[error("{0}")]
    Disagreement(#[from] Disagreement),
}

/// What a batch of entries has told, at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum BatchContent {
    Nothing,
    Issued,
    /// Someone waits until it is reported.
    Revoked,
}

/// The last link that was applied.
struct Chain {
    position: Position,
    nonce: Nonce,
}

/// Nothing is certain: no answer may claim it.
#[derive(Debug, thiserror::Error)]
pub enum Unconfirmed {
    #[error("Redis: {0}")]
    Redis(#[from] RedisError),
    #[error("not confirmed within {REVOCATION_TIMEOUT:?}")]
    TimedOut,
}

impl Follower {
    pub fn new(instance: Arc<Instance>, partition: Partition) -> Self {
        Self {
            instance,
            partition,
            lease: Lease::default(),
            pending: PendingRevocations::default(),
            reports: AtomicU64::default(),
            recent: Mutex::default(),
            state: watch::Sender::default(),
            commands: AsyncMutex::default(),
            is_probing: AtomicBool::default(),
            applied: Mutex::default(),
        }
    }

    /// Whether the mirror may be trusted with this partition's users. To be asked before the
    /// mirror is.
    pub fn is_leased(&self) -> bool {
        self.lease.holds(Uptime::now())
    }

    /// How old its lease is.
    pub fn lease_age(&self) -> Option<Duration> {
        self.lease.age(Uptime::now())
    }

    pub fn state(&self) -> watch::Receiver<FollowerState> {
        self.state.subscribe()
    }

    /// How many instances are running, as they reported last.
    pub fn running(&self) -> usize {
        self.recent().members().running(Uptime::now()).count()
    }

    /// The instances by their ids, those who have fallen silent, too.
    pub fn instances(&self) -> Vec<(Vec<u8>, Member)> {
        self.recent().all().map(|(instance, member)| (instance.to_vec(), member.clone())).collect()
    }

    fn recent(&self) -> MutexGuard<'_, RecentMembers> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the events, epoch after epoch, for ever.
    pub async fn follow(&self) -> Infallible {
        let mut pause = Duration::ZERO;
        loop {
            let Err(lost) = self.run_epoch().await;
            let partition = self.partition.index();
            if matches!(lost, Lost::BrokenChain | Lost::Unreadable | Lost::Disagreement(_)) {
                self.lease.end();
            }
            self.instance.agreement.unfollow(self.partition).await;
            let was = self.state.send_replace(FollowerState::Lost {
                why: lost.to_string(),
                is_final: matches!(&lost, Lost::Redis(error) if redis::is_final(error)),
                is_disagreement: matches!(&lost, Lost::Disagreement(Disagreement::Bus(_))),
            });
            if let FollowerState::Lost { why, .. } = &was
                && *why == lost.to_string()
            {
                pause = (pause * 2).clamp(Duration::from_millis(20), Duration::from_millis(500));
            } else {
                counter!("hallpass_followers_lost_total").increment(1);
                warn!(partition, error = %lost, "partition {partition} is not followed any more: {lost}");
                pause = Duration::from_millis(5);
            }
            time::sleep(pause).await;
        }
    }

    async fn run_epoch(&self) -> Result<Infallible, Lost> {
        let instance = &*self.instance;
        let own_id = instance.id.to_string();
        let replicas = instance.nodes / 2;
        let mut connection = instance.servers.connect(self.partition).await?;
        let (position, register, identity) = connection.join().await?;
        // From here on no other server can confirm a write to a majority.
        connection.wait_for_replicas(replicas).await?;
        // The other connection may still lead to a server that has been replaced since.
        self.discard_commands().await;
        instance.agreement.follow(self.partition, &identity).await?;
        // Only from here on is it certain that no other instance holds a lease by another Redis.
        let since = Uptime::now();
        self.pending.interrupt();
        reconcile(&instance.db, &instance.mirror).await?;
        self.replay(&mut connection, &identity, position).await?;
        self.warn_about_redis_config(&mut connection).await;

        let mut chain = Chain { position, nonce: register.head.ok_or(Lost::BrokenChain)? };
        let mut members = Members::default();
        let mut pace = PollPacer::default();
        let mut has_warned = false;
        let mut renewed = since;
        loop {
            let sent = Uptime::now();
            // This process stood still. Others may have taken it for dead: SQL has to be asked first.
            if sent.since(renewed) > STALLED {
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
                return Err(Disagreement::Bus(conflict).into());
            }
            let now = Uptime::now();
            members.observe(register.reports, now);
            if let Some(name) = members.with_other_partitions(instance.partitions, now) {
                // Until it has gone, or is known to have: it may be cut off from SQL, which would have told.
                if !has_warned {
                    has_warned = true;
                    warn!("no lease while {name} runs: its HALLPASS_REDIS_PARTITIONS differs");
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
            // What this has brought is reported first: someone may be waiting for that. And on a slow
            // connection there is no time to wait for more: the lease has to be renewed.
            let news = if news == BatchContent::Nothing && sent.elapsed() * 2 + IDLE_POLL_INTERVAL < LEASE {
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

    fn apply(&self, entries: Vec<Entry>, chain: &mut Chain) -> Result<BatchContent, Lost> {
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
                        self.pending.applied(link.nonce, link.position, Uptime::now());
                    }
                    news = news.max(one);
                }
                Entry::Foreign(position) => {
                    counter!("hallpass_foreign_entries_total").increment(1);
                    warn!("skipped entry {position} of the stream: it is not one of ours");
                    chain.position = position;
                }
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
            partitions: instance.partitions,
            sessions: instance.mirror.session_count(),
            revocations: instance.recent.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        serde_json::to_string(&report).unwrap_or_default()
    }

    fn mark_following(&self, since: Uptime) {
        self.state.send_if_modified(|state| {
            let is_new = !matches!(state, FollowerState::Following);
            if is_new {
                let (partition, joined) = (self.partition.index(), since.elapsed());
                info!(partition, "partition {partition} is followed: joined {joined:.0?} ago");
                *state = FollowerState::Following;
            }
            is_new
        });
    }

    async fn warn_about_redis_config(&self, connection: &mut Connection) {
        // An ACL may forbid it: then nobody is warned.
        for warning in connection.config_warnings(self.instance.nodes).await.unwrap_or_default() {
            warn!("{warning}");
        }
    }

    /// Lists a token, and tells the others.
    ///
    /// # Errors
    /// They may not have heard of it. They will ask when they meet it.
    pub async fn allow(self: &Arc<Self>, entry: &TokenRecord) -> Result<(), RedisError> {
        self.optional(async {
            let mut connection = self.command().await?;
            let allowed = self.drop_connection_if_broken(connection.allow(entry, clock::now()).await).await;
            match &allowed {
                // It was closed while it was idle. To list a token twice does no harm.
                Err(error) if error.is_unrecoverable_error() => {
                    let mut connection = self.command().await?;
                    self.drop_connection_if_broken(connection.allow(entry, clock::now()).await).await
                }
                _ => allowed,
            }
        })
        .await
    }

    /// Whether the token is on the list.
    ///
    /// # Errors
    /// Nobody can tell, in the time that there is.
    pub async fn contains(self: &Arc<Self>, entry: &TokenRecord) -> Result<bool, RedisError> {
        self.optional(async {
            let mut connection = self.command().await?;
            self.drop_connection_if_broken(connection.contains(entry).await).await
        })
        .await
    }

    /// Counts a try at a password, unless it has to wait: then for how long.
    ///
    /// # Errors
    /// Nobody can tell, in the time that there is.
    pub async fn record_attempt(
        self: &Arc<Self>,
        bucket: BucketKey,
        limit: RateLimit,
    ) -> Result<Duration, RedisError> {
        self.optional(async {
            let mut connection = self.command().await?;
            self.drop_connection_if_broken(connection.record_attempt(bucket, limit).await).await
        })
        .await
    }

    /// Takes back a try that was counted.
    ///
    /// # Errors
    /// It may still count.
    pub async fn refund_attempt(self: &Arc<Self>, bucket: BucketKey) -> Result<(), RedisError> {
        self.optional(async {
            let mut connection = self.command().await?;
            self.drop_connection_if_broken(connection.refund_attempt(bucket).await).await
        })
        .await
    }

    /// Tells the others that these sessions, which SQL has recorded as revoked, have ended; returns
    /// when none of them accepts a token of theirs any more.
    ///
    /// # Errors
    /// [`Unconfirmed`]: some may still accept them.
    pub async fn revoke(&self, revoked: &[RevokedSession]) -> Result<Acknowledged, Unconfirmed> {
        let mut deadline = Instant::now() + REVOCATION_TIMEOUT;
        let latest = deadline + PUBLISHING_TIMEOUT;
        loop {
            let nonce = Nonce::random();
            let answer = self.pending.begin(nonce);
            let began = Instant::now();
            match self.publish_all(revoked, nonce).await {
                Ok(()) => {
                    if revoked.len() > SESSIONS_IN_AN_EVENT {
                        // Many events take their time, and the last is waited for as long as the only one is.
                        deadline = (deadline + began.elapsed()).min(latest);
                    }
                    match time::timeout_at(deadline, answer).await {
                        Ok(Ok(Ok(acknowledged))) => return Ok(acknowledged),
                        Ok(_interrupted) => {}
                        Err(_) => return Err(Unconfirmed::TimedOut),
                    }
                }
                // Not even followed: no use in trying on.
                Err(error) if !self.is_leased() => return Err(error),
                Err(_) => time::sleep(Duration::from_millis(20)).await,
            }
            if Instant::now() >= deadline {
                return Err(Unconfirmed::TimedOut);
            }
        }
    }

    /// Publishes the sessions in as many events as they need, the last of them with this nonce: an instance
    /// that has applied that one has applied all, because each follows the chain link by link.
    async fn publish_all(&self, revoked: &[RevokedSession], last: Nonce) -> Result<(), Unconfirmed> {
        let mut events = revoked.chunks(SESSIONS_IN_AN_EVENT).peekable();
        while let Some(event) = events.next() {
            let sessions: Vec<_> = event.iter().map(|session| session.session_id).collect();
            let tokens = event.iter().flat_map(|session| &session.tokens).copied();
            let tokens: Vec<_> = tokens.take(TOKENS_IN_AN_EVENT).collect();
            let nonce = if events.peek().is_none() { last } else { Nonce::random() };
            let published = time::timeout(REVOCATION_TIMEOUT, self.publish(nonce, &sessions, &tokens)).await;
            published.map_err(|_| Unconfirmed::TimedOut)??;
        }
        Ok(())
    }

    async fn publish(
        &self,
        nonce: Nonce,
        sessions: &[SessionId],
        tokens: &[TokenId],
    ) -> Result<(), RedisError> {
        let mut connection = self.command().await?;
        self.drop_connection_if_broken(connection.revoke(nonce, sessions, tokens).await).await
    }

    /// Applies what the stream holds from before this epoch: all of it, or what has come since this follower
    /// was last here. It reaches back further than any token lives. SQL may have lost a session that was
    /// revoked in that time, and then reconciling does not tell.
    async fn replay(&self, connection: &mut Connection, identity: &str, to: Position) -> Result<(), Lost> {
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

    /// Takes this instance off the register, so that nobody waits for it. The follower has been stopped.
    pub async fn leave(&self) {
        self.lease.end();
        let leaving = async {
            if let Ok(mut connection) = self.command().await {
                // They find out by themselves, a little later.
                let _ = connection.leave(self.instance.id.to_string().as_bytes()).await;
            }
        };
        let _ = time::timeout(LEAVE_TIMEOUT, leaving).await;
    }

    async fn command(&self) -> Result<Connection, RedisError> {
        let mut connection = self.commands.lock().await;
        match &*connection {
            Some(connection) => Ok(connection.clone()),
            None => {
                Ok(connection.insert(self.instance.servers.connect_beside(self.partition).await?).clone())
            }
        }
    }

    /// Drops the connection for commands if this answer says that it is no good any more.
    async fn drop_connection_if_broken<T>(&self, answer: Result<T, RedisError>) -> Result<T, RedisError> {
        if let Err(error) = &answer
            && (error.is_unrecoverable_error() || error.is_timeout() || redis::is_elsewhere(error))
        {
            self.commands.lock().await.take();
        }
        answer
    }

    /// Gives up on what a request waits for and can do without.
    async fn optional<T>(
        self: &Arc<Self>,
        asking: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, RedisError> {
        match time::timeout(OPTIONAL_REDIS_TIMEOUT, asking).await {
            Ok(answer) => answer,
            Err(_) => {
                self.probe_commands();
                Err(RedisError::from(io::Error::from(io::ErrorKind::TimedOut)))
            }
        }
    }

    /// Finds out whether the connection for commands is slow or dead. A caller that gives up sooner than a
    /// response times out would not.
    fn probe_commands(self: &Arc<Self>) {
        if self.is_probing.swap(true, Ordering::AcqRel) {
            return;
        }
        let follower = Arc::clone(self);
        tokio::spawn(async move {
            if let Ok(mut connection) = follower.command().await {
                let _ = follower.drop_connection_if_broken(connection.ping().await).await;
            }
            follower.is_probing.store(false, Ordering::Release);
        });
    }

    /// Has the next command open a connection of its own.
    async fn discard_commands(&self) {
        self.commands.lock().await.take();
    }
}

/// Takes over from SQL what has been revoked.
///
/// # Errors
/// The database cannot be read.
pub async fn reconcile(db: &Db, mirror: &Arc<Mirror>) -> Result<(), DbError> {
    let mirror = Arc::clone(mirror);
    let reading = db.revoked_sessions(clock::now(), move |session_id| mirror.revoke(session_id));
    time::timeout(RECONCILE_TIMEOUT, reading).await.unwrap_or(Err(DbError::PoolTimedOut))?;
    counter!("hallpass_reconciles_total").increment(1);
    Ok(())
}

/// How fast a follower goes on, so that it neither keeps a revocation waiting nor Redis busy.
#[derive(Default)]
struct PollPacer {
    /// Into the register, since a revocation waits for the others.
    looks: u32,
    /// In the window that began then.
    batches: u32,
    window: Option<Instant>,
}

impl PollPacer {
    const WINDOW: Duration = Duration::from_millis(100);
    /// Batches in a window that are taken at once.
    const BURST: u32 = 50;

    /// Others mostly answer within a millisecond. If they do not, they may take a lease to lapse.
    async fn after_membership_read(&mut self) {
        self.looks += 1;
        match self.looks {
            0..20 => tokio::task::yield_now().await,
            looks => time::sleep(Duration::from_millis(u64::from(looks - 19).min(20))).await,
        }
    }

    /// When there is a lot of news, reading it in larger pieces costs Redis a tenth.
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

const _: () = assert!(REVOCATION_TIMEOUT.as_millis() > 2 * LEASE_EXPIRY_BOUND.as_millis());
