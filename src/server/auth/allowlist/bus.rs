//! Keeps the mirrors of all instances in step: one follower for each partition.
//!
//! A follower has a connection of its own, and each new connection starts a *tenure*:
//! 1. **Join**: find out where the chain of events stands.
//! 2. **Reconcile**: take over from SQL what has been revoked. What is revoked from here on will
//!    come as an event.
//! 3. **Follow**, for as long as the connection and the chain hold: report, apply what has
//!    happened, renew the lease; then wait for the next event.
//!
//! Only an unbroken chain renews the lease. When the connection is lost the lease lapses by
//! itself; when the chain is broken it ends at once.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
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
    Recent,
    event::{Event, Nonce, Position},
    lease::{LAPSE, LEASE, Lease, Uptime},
    mirror::Mirror,
    redis::{self, BATCH, Connection, Entry, Partition, RedisError, Register, Servers},
    register::{Peer, Peers, Report},
    seen::Seen,
    watch::{Acknowledged, Watches},
};
use crate::server::{
    access_tokens::TokenEntry,
    clock,
    db::{Db, DbError},
    ids::{InstanceId, SessionId, TokenId},
    sessions::RevokedSession,
    throttle::{Bucket, Limit},
};

/// How long a follower that has nothing to do waits for the next event before it reports again.
const IDLE: Duration = Duration::from_millis(200);

/// A revocation that is not confirmed by then is answered 503. Longer than a lease takes to lapse
/// twice, so that a server that was just restarted does not cost an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long a request waits for Redis where it can do without: SQL can be asked instead.
const DISPENSABLE: Duration = Duration::from_millis(250);

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
}

/// How a follower is doing.
#[derive(Debug, Clone, Default)]
pub enum Standing {
    #[default]
    Joining,
    Following,
    Lost {
        why: String,
        /// Trying again will not help: the settings are wrong.
        is_final: bool,
    },
}

/// Follows the events of one partition, and speaks for this instance there.
pub struct Follower {
    instance: Arc<Instance>,
    partition: Partition,
    lease: Lease,
    watches: Watches,
    reports: AtomicU64,
    seen: Mutex<Seen>,
    standing: watch::Sender<Standing>,
    /// For everything but following, which blocks its own.
    commands: AsyncMutex<Option<Connection>>,
}

/// Why a tenure ended.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("Redis: {0}")]
    Redis(#[from] RedisError),
    #[error("the database: {0}")]
    Db(#[from] DbError),
    #[error("events are missing from the stream")]
    BrokenChain,
    #[error("an event cannot be read")]
    Unreadable,
    #[error(
        "another instance has HALLPASS_REDIS_PARTITIONS={0}, and this one {1}: it has to be the same for all"
    )]
    Partitions(u16, u16),
}

/// What a batch of entries has told, at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum News {
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
    #[error("not confirmed within {PATIENCE:?}")]
    TimedOut,
}

impl Follower {
    pub fn new(instance: Arc<Instance>, partition: Partition) -> Self {
        Self {
            instance,
            partition,
            lease: Lease::default(),
            watches: Watches::default(),
            reports: AtomicU64::default(),
            seen: Mutex::default(),
            standing: watch::Sender::default(),
            commands: AsyncMutex::default(),
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

    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// How many instances are running, as they reported last.
    pub fn running(&self) -> usize {
        self.seen().peers().running(Uptime::now()).count()
    }

    /// The instances by their ids, those who have fallen silent, too.
    pub fn instances(&self) -> Vec<(Vec<u8>, Peer)> {
        self.seen().all().map(|(instance, peer)| (instance.to_vec(), peer.clone())).collect()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the events, tenure after tenure, for ever.
    pub async fn follow(&self) -> Infallible {
        let mut pause = Duration::ZERO;
        loop {
            let Err(lost) = self.tenure().await;
            let partition = self.partition.index();
            if matches!(lost, Lost::BrokenChain | Lost::Unreadable) {
                self.lease.end();
            }
            let was = self.standing.send_replace(Standing::Lost {
                why: lost.to_string(),
                is_final: match &lost {
                    Lost::Redis(error) => redis::is_final(error),
                    Lost::Partitions(..) => true,
                    _ => false,
                },
            });
            if let Standing::Lost { why, .. } = &was
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

    async fn tenure(&self) -> Result<Infallible, Lost> {
        let instance = &*self.instance;
        let own_id = instance.id.to_string();
        let replicas = instance.nodes / 2;
        let mut connection = instance.servers.connect(self.partition).await?;
        let (position, register) = connection.join().await?;
        // From here on no other server can confirm a write to a majority.
        connection.wait_for_replicas(replicas).await?;
        let since = Uptime::now();
        self.check_partitions(&register)?;
        self.watches.interrupt();
        reconcile(&instance.db, &instance.mirror).await?;
        self.say_misgivings(&mut connection).await;

        let mut chain = Chain { position, nonce: register.head.ok_or(Lost::BrokenChain)? };
        let mut peers = Peers::default();
        let mut pace = Pace::default();
        let mut has_warned = false;
        loop {
            let sent = Uptime::now();
            let report = self.report(chain.position);
            let lapsed = peers.lapsed(sent);
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
            self.lease.renew(sent);
            let now = Uptime::now();
            peers.observe(register.reports, now);
            self.watches.settle(&peers, since, now);
            self.say_following(since);
            if !has_warned && peers.has_namesake(instance.id, &instance.name) {
                has_warned = true;
                let name = &instance.name;
                warn!("another instance is called {name}, too: give each its own HALLPASS_INSTANCE");
            }
            self.seen().observe(&peers, now);

            if self.watches.is_any_applied() {
                pace.between_looks().await;
                continue;
            }
            pace.looks = 0;
            // What this has brought is reported first: someone may be waiting for that. And on a slow
            // connection there is no time to wait for more: the lease has to be renewed.
            let news = if news == News::Nothing && sent.elapsed() * 2 + IDLE < LEASE {
                let entries = connection.wait_for_entries(chain.position, IDLE).await?;
                self.apply(entries, &mut chain)?
            } else {
                news
            };
            if news == News::Issued {
                pace.between_batches().await;
            }
        }
    }

    fn apply(&self, entries: Vec<Entry>, chain: &mut Chain) -> Result<News, Lost> {
        let mut news = News::Nothing;
        for entry in entries {
            match entry {
                Entry::Link(link) => {
                    if link.before != Some(chain.nonce) {
                        return Err(Lost::BrokenChain);
                    }
                    *chain = Chain { position: link.position, nonce: link.nonce };
                    match link.event {
                        Event::Issued(entry) => {
                            self.instance.mirror.insert(&entry);
                            news = news.max(News::Issued);
                        }
                        Event::Revoked(sessions) => {
                            news = News::Revoked;
                            sessions
                                .into_iter()
                                .for_each(|session_id| self.instance.mirror.revoke(session_id));
                            self.watches.applied(link.nonce, link.position, Uptime::now());
                        }
                    }
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

    /// Two counts would deal the users out differently.
    fn check_partitions(&self, register: &Register) -> Result<(), Lost> {
        let own = self.instance.partitions;
        let mut reports =
            register.reports.values().filter_map(|report| serde_json::from_slice::<Report>(report).ok());
        match reports.find(|report| report.partitions != own) {
            Some(other) => Err(Lost::Partitions(other.partitions, own)),
            None => Ok(()),
        }
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

    fn say_following(&self, since: Uptime) {
        self.standing.send_if_modified(|standing| {
            let is_new = !matches!(standing, Standing::Following);
            if is_new {
                let (partition, joined) = (self.partition.index(), since.elapsed());
                info!(partition, "partition {partition} is followed: joined {joined:.0?} ago");
                *standing = Standing::Following;
            }
            is_new
        });
    }

    async fn say_misgivings(&self, connection: &mut Connection) {
        // An ACL may forbid it: then nobody is warned.
        for misgiving in connection.misgivings(self.instance.nodes).await.unwrap_or_default() {
            warn!("{misgiving}");
        }
    }

    /// Lists a token, and tells the others.
    ///
    /// # Errors
    /// They may not have heard of it. They will ask when they meet it.
    pub async fn allow(&self, entry: &TokenEntry) -> Result<(), RedisError> {
        in_time(async {
            let mut connection = self.command().await?;
            self.kept(connection.allow(entry, clock::now()).await).await
        })
        .await
    }

    /// Whether the token is on the list.
    ///
    /// # Errors
    /// Nobody can tell, in the time that there is.
    pub async fn is_listed(&self, entry: &TokenEntry) -> Result<bool, RedisError> {
        in_time(async {
            let mut connection = self.command().await?;
            self.kept(connection.is_listed(entry).await).await
        })
        .await
    }

    /// Counts a try at a password, unless it has to wait: then for how long.
    ///
    /// # Errors
    /// Nobody can tell, in the time that there is.
    pub async fn count_try(&self, bucket: Bucket, limit: Limit) -> Result<Duration, RedisError> {
        in_time(async {
            let mut connection = self.command().await?;
            self.kept(connection.count_try(bucket, limit).await).await
        })
        .await
    }

    /// Takes back a try that was counted.
    ///
    /// # Errors
    /// It may still count.
    pub async fn give_back_try(&self, bucket: Bucket) -> Result<(), RedisError> {
        in_time(async {
            let mut connection = self.command().await?;
            self.kept(connection.give_back_try(bucket).await).await
        })
        .await
    }

    /// Tells the others that these sessions, which SQL has recorded as revoked, have ended; returns
    /// when none of them accepts a token of theirs any more.
    ///
    /// # Errors
    /// [`Unconfirmed`]: some may still accept them.
    pub async fn revoke(&self, revoked: &[RevokedSession]) -> Result<Acknowledged, Unconfirmed> {
        let sessions: Vec<SessionId> = revoked.iter().map(|session| session.session_id).collect();
        let tokens: Vec<TokenId> = revoked.iter().flat_map(|session| session.tokens.clone()).collect();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let nonce = Nonce::random();
            let answer = self.watches.begin(nonce);
            let published = time::timeout_at(deadline, self.publish(nonce, &sessions, &tokens)).await;
            match published.map_err(|_| Unconfirmed::TimedOut)? {
                Ok(()) => match time::timeout_at(deadline, answer).await {
                    Ok(Ok(Ok(acknowledged))) => return Ok(acknowledged),
                    Ok(_interrupted) => {}
                    Err(_) => return Err(Unconfirmed::TimedOut),
                },
                // Not even followed: no use in trying on.
                Err(error) if !self.is_leased() => return Err(error.into()),
                Err(_) => time::sleep(Duration::from_millis(20)).await,
            }
            if Instant::now() >= deadline {
                return Err(Unconfirmed::TimedOut);
            }
        }
    }

    async fn publish(
        &self,
        nonce: Nonce,
        sessions: &[SessionId],
        tokens: &[TokenId],
    ) -> Result<(), RedisError> {
        let mut connection = self.command().await?;
        self.kept(connection.revoke(nonce, sessions, tokens).await).await
    }

    /// Takes this instance off the register, so that nobody waits for it.
    pub async fn leave(&self) {
        self.lease.end();
        if let Ok(mut connection) = self.command().await {
            // They find out by themselves, a little later.
            let _ = connection.leave(self.instance.id.to_string().as_bytes()).await;
        }
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
    async fn kept<T>(&self, answer: Result<T, RedisError>) -> Result<T, RedisError> {
        if let Err(error) = &answer
            && (error.is_unrecoverable_error() || error.is_timeout() || redis::is_elsewhere(error))
        {
            self.commands.lock().await.take();
        }
        answer
    }
}

/// Gives up on what a request waits for and can do without.
async fn in_time<T>(asking: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisError> {
    let timed_out = |_| RedisError::from(io::Error::from(io::ErrorKind::TimedOut));
    time::timeout(DISPENSABLE, asking).await.map_err(timed_out).flatten()
}

/// Takes over from SQL what has been revoked.
///
/// # Errors
/// The database cannot be read.
pub async fn reconcile(db: &Db, mirror: &Mirror) -> Result<(), DbError> {
    let revoked = db.revoked_sessions(clock::now()).await?;
    revoked.into_iter().for_each(|session_id| mirror.revoke(session_id));
    counter!("hallpass_reconciles_total").increment(1);
    Ok(())
}

/// How fast a follower goes on, so that it neither keeps a revocation waiting nor Redis busy.
#[derive(Default)]
struct Pace {
    /// Into the register, since a revocation waits for the others.
    looks: u32,
    /// In the window that began then.
    batches: u32,
    window: Option<Instant>,
}

impl Pace {
    const WINDOW: Duration = Duration::from_millis(100);
    /// Batches in a window that are taken at once.
    const BURST: u32 = 50;

    /// Others mostly answer within a millisecond. If they do not, they may take a lease to lapse.
    async fn between_looks(&mut self) {
        self.looks += 1;
        match self.looks {
            0..20 => tokio::task::yield_now().await,
            looks => time::sleep(Duration::from_millis(u64::from(looks - 19).min(20))).await,
        }
    }

    /// When there is a lot of news, reading it in larger pieces costs Redis a tenth.
    async fn between_batches(&mut self) {
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

const _: () = assert!(PATIENCE.as_millis() > 2 * LAPSE.as_millis());
