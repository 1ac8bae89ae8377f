//! Publishing the events of this instance in one partition, and waiting until they are acknowledged. Revocations that
//! are requested while an event is being published share the next one. Also the connection for all commands that are
//! not following, which blocks its own.
//!
//! A request may be dropped at any await here. A command that was sent may then have had its effect or not, which
//! is the same as when its answer is lost.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{
        Arc, Mutex as StdMutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::{Either, select};
use tokio::{
    sync::{Mutex, oneshot},
    time::{self, Instant},
};

use crate::{
    bus::{Bus, BusError, Connection, Partition, event::Nonce},
    clock::Clock,
    id::{InstanceId, SessionId, TokenId},
    lease::{LEASE_EXPIRY_BOUND, Lease},
    pending::{Acknowledged, Answer, PendingRevocations},
    record::{RevokedSession, TokenRecord},
};

/// How long a revocation may take to be confirmed before it is answered 503. Longer than it takes a lease
/// to expire twice, so that the restart of a Redis node does not fail a revocation.
const REVOCATION_TIMEOUT: Duration = Duration::from_secs(3);

/// How much longer a revocation may take that needs many events.
const PUBLISHING_TIMEOUT: Duration = Duration::from_mins(1);

/// How long a request waits for Redis if it can use the store instead.
const OPTIONAL_REDIS_TIMEOUT: Duration = Duration::from_millis(250);

/// How long an instance that stops waits for Redis to remove it from the membership.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// The maximum number of sessions in one event: more would make it too large for one script.
const SESSIONS_IN_AN_EVENT: usize = 500;

/// The maximum number of tokens that one event removes from the list, because a script blocks Redis.
const TOKENS_IN_AN_EVENT: usize = 1000;

/// The revocation is not confirmed: the response must not claim it.
#[derive(Debug, thiserror::Error)]
pub enum Unconfirmed {
    /// The bus cannot be used.
    #[error("Redis: {0}")]
    Bus(#[from] BusError),
    /// The other instances have not acknowledged it in time.
    #[error("not confirmed within {REVOCATION_TIMEOUT:?}")]
    TimedOut,
}

/// Publishes the events of this instance in one partition.
pub struct Publisher {
    bus: Bus,
    partition: Partition,
    /// The lease of the follower of this partition.
    lease: Arc<Lease>,
    /// Shared with the follower, which settles what is pending.
    pending: Arc<PendingRevocations>,
    clock: Arc<dyn Clock>,
    connection: Mutex<Option<Connection>>,
    /// The revocations that wait for the next event, in order.
    queue: StdMutex<VecDeque<Queued>>,
    /// Locked while an event with revocations is being published.
    publishing: Mutex<()>,
    /// Whether a probe of the connection is in progress.
    is_probing: AtomicBool,
}

/// A revocation that waits for the next event.
struct Queued {
    sessions: Vec<SessionId>,
    tokens: Vec<TokenId>,
    published: oneshot::Sender<Published>,
}

/// What resolves when a published revocation is confirmed.
type Published = Result<oneshot::Receiver<Answer>, BusError>;

impl Publisher {
    pub fn new(
        bus: Bus,
        partition: Partition,
        lease: Arc<Lease>,
        pending: Arc<PendingRevocations>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            bus,
            partition,
            lease,
            pending,
            clock,
            connection: Mutex::default(),
            queue: StdMutex::default(),
            publishing: Mutex::default(),
            is_probing: AtomicBool::default(),
        }
    }

    /// Adds a token to the list and publishes an event.
    ///
    /// # Errors
    /// The event may not have been published. Other instances look the token up when it is presented.
    pub async fn allow(self: &Arc<Self>, entry: &TokenRecord) -> Result<(), BusError> {
        self.optional(async {
            let mut connection = self.connection().await?;
            let allowed =
                self.drop_connection_if_broken(connection.allow(entry, self.clock.now()).await).await;
            match &allowed {
                // The connection was closed while it was idle. Adding a token twice is harmless.
                Err(error) if error.is_closed() => {
                    let mut connection = self.connection().await?;
                    self.drop_connection_if_broken(connection.allow(entry, self.clock.now()).await).await
                }
                _ => allowed,
            }
        })
        .await
    }

    /// Whether the token is on the list.
    ///
    /// # Errors
    /// Redis did not answer in time, or not with a result.
    pub async fn contains(self: &Arc<Self>, entry: &TokenRecord) -> Result<bool, BusError> {
        self.optional(async {
            let mut connection = self.connection().await?;
            self.drop_connection_if_broken(connection.contains(entry).await).await
        })
        .await
    }

    /// Runs a command for other data of the application.
    ///
    /// # Errors
    /// Redis did not answer in time, or not with a result.
    #[cfg(feature = "redis")]
    pub async fn with_redis<T>(
        self: &Arc<Self>,
        command: impl AsyncFnOnce(&mut redis::aio::MultiplexedConnection, &str) -> Result<T, redis::RedisError>,
    ) -> Result<Option<T>, BusError> {
        self.optional(async {
            let Connection::Redis(mut connection) = self.connection().await? else { return Ok(None) };
            let (connection, prefix) = connection.parts();
            let answer = command(connection, &prefix).await.map(Some).map_err(BusError::from);
            self.drop_connection_if_broken(answer).await
        })
        .await
    }

    /// Publishes the revocation of sessions that the store has recorded as revoked, and returns once no instance
    /// accepts a token of theirs any more.
    ///
    /// # Errors
    /// [`Unconfirmed`]: some instances may still accept them.
    pub async fn revoke(&self, revoked: &[RevokedSession]) -> Result<Acknowledged, Unconfirmed> {
        let mut deadline = Instant::now() + REVOCATION_TIMEOUT;
        let latest = deadline + PUBLISHING_TIMEOUT;
        loop {
            let began = Instant::now();
            match self.publish_all(revoked).await {
                Ok(answer) => {
                    if revoked.len() > SESSIONS_IN_AN_EVENT {
                        // Publishing many events takes time. The last one is waited for as long as a single
                        // one would be.
                        deadline = (deadline + began.elapsed()).min(latest);
                    }
                    match time::timeout_at(deadline, answer).await {
                        Ok(Ok(Ok(acknowledged))) => return Ok(acknowledged),
                        Ok(_interrupted) => {}
                        Err(_) => return Err(Unconfirmed::TimedOut),
                    }
                }
                // The partition is not followed, so that another attempt would fail, too.
                Err(error) if !self.lease.holds(self.clock.uptime()) => return Err(error),
                Err(_) => time::sleep(Duration::from_millis(20)).await,
            }
            if Instant::now() >= deadline {
                return Err(Unconfirmed::TimedOut);
            }
        }
    }

    /// Publishes the sessions in as many events as necessary. An instance that has applied the last one has applied
    /// all, because it follows the chain link by link. Returns what resolves when the last one is confirmed.
    async fn publish_all(
        &self,
        revoked: &[RevokedSession],
    ) -> Result<oneshot::Receiver<Answer>, Unconfirmed> {
        let mut last = None;
        for event in revoked.chunks(SESSIONS_IN_AN_EVENT) {
            let sessions = event.iter().map(|session| session.session_id).collect();
            let tokens = event.iter().flat_map(|session| &session.tokens).copied();
            let tokens = tokens.take(TOKENS_IN_AN_EVENT).collect();
            let published =
                time::timeout(REVOCATION_TIMEOUT, self.publish_with_others(sessions, tokens)).await;
            last = Some(published.map_err(|_| Unconfirmed::TimedOut)??);
        }
        last.ok_or(Unconfirmed::TimedOut)
    }

    /// Publishes sessions in one event, together with those that others want to publish. If the task that publishes
    /// the event is dropped, the others in it receive an error, and try again.
    async fn publish_with_others(&self, sessions: Vec<SessionId>, tokens: Vec<TokenId>) -> Published {
        let (sender, mut published) = oneshot::channel();
        self.queue().push_back(Queued { sessions, tokens, published: sender });
        loop {
            match select(&mut published, pin!(self.publishing.lock())).await {
                Either::Left((published, _)) => {
                    return published.unwrap_or_else(|_| Err(BusError::timed_out()));
                }
                Either::Right((_turn, _)) => self.publish_next().await,
            }
        }
    }

    /// Publishes the event with the revocations that have waited longest.
    async fn publish_next(&self) {
        let (mut sessions, mut tokens, mut published) = (Vec::new(), Vec::new(), Vec::new());
        {
            let mut queue = self.queue();
            while let Some(next) = queue.pop_front_if(|next| {
                published.is_empty()
                    || sessions.len() + next.sessions.len() <= SESSIONS_IN_AN_EVENT
                        && tokens.len() + next.tokens.len() <= TOKENS_IN_AN_EVENT
            }) {
                // A revocation whose request is gone is published nevertheless.
                sessions.extend(next.sessions);
                tokens.extend(next.tokens);
                published.push(next.published);
            }
        }
        if published.is_empty() {
            return;
        }
        let nonce = Nonce::random();
        // Before the event is published, so that it is recognized.
        let published: Vec<_> = published.into_iter().map(|one| (one, self.pending.begin(nonce))).collect();
        let outcome = self.publish(nonce, &sessions, &tokens).await;
        for (one, answer) in published {
            let _ = one.send(outcome.clone().map(|()| answer));
        }
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Queued>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn publish(
        &self,
        nonce: Nonce,
        sessions: &[SessionId],
        tokens: &[TokenId],
    ) -> Result<(), BusError> {
        let mut connection = self.connection().await?;
        self.drop_connection_if_broken(connection.revoke(nonce, sessions, tokens).await).await
    }

    /// Removes this instance from the membership, so that no revocation waits for it. The follower must
    /// have been stopped.
    pub async fn leave(&self, instance: InstanceId, partitions: u16) {
        let leaving = async {
            if let Ok(mut connection) = self.connection().await {
                // If this fails, the others drop this instance when its lease has expired.
                let _ = connection.leave(instance, partitions).await;
            }
        };
        let _ = time::timeout(LEAVE_TIMEOUT, leaving).await;
    }

    async fn connection(&self) -> Result<Connection, BusError> {
        let mut connection = self.connection.lock().await;
        match &*connection {
            Some(connection) => Ok(connection.clone()),
            None => Ok(connection.insert(self.bus.connect_beside(self.partition).await?).clone()),
        }
    }

    /// Drops the connection if the error shows that it is no longer usable.
    async fn drop_connection_if_broken<T>(&self, answer: Result<T, BusError>) -> Result<T, BusError> {
        if let Err(error) = &answer
            && error.is_connection_lost()
        {
            self.connection.lock().await.take();
        }
        answer
    }

    /// Applies the timeout for Redis calls that a request can do without.
    async fn optional<T>(
        self: &Arc<Self>,
        asking: impl Future<Output = Result<T, BusError>>,
    ) -> Result<T, BusError> {
        match time::timeout(OPTIONAL_REDIS_TIMEOUT, asking).await {
            Ok(answer) => answer,
            Err(_) => {
                self.probe_connection();
                Err(BusError::timed_out())
            }
        }
    }

    /// Pings Redis, to find out whether the connection is slow or dead. The callers cannot, because
    /// they time out before the connection's own response timeout.
    fn probe_connection(self: &Arc<Self>) {
        if self.is_probing.swap(true, Ordering::AcqRel) {
            return;
        }
        let publisher = Arc::clone(self);
        tokio::spawn(async move {
            if let Ok(mut connection) = publisher.connection().await {
                let _ = publisher.drop_connection_if_broken(connection.ping().await).await;
            }
            publisher.is_probing.store(false, Ordering::Release);
        });
    }

    /// Drops the connection, so that the next command opens a new one.
    pub async fn discard_connection(&self) {
        self.connection.lock().await.take();
    }
}

const _: () = assert!(REVOCATION_TIMEOUT.as_millis() > 2 * LEASE_EXPIRY_BOUND.as_millis());
