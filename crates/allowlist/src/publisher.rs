//! Publishing the events of this instance in one partition, and waiting until they are acknowledged. Also the
//! connection for all commands that are not following, which blocks its own.
//!
//! A request may be dropped at any await here. A command that was sent may then have had its effect or not, which
//! is the same as when its answer is lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Mutex,
    time::{self, Instant},
};

use crate::{
    bus::{Bus, BusError, Connection, Partition, event::Nonce},
    clock::Clock,
    id::{InstanceId, SessionId, TokenId},
    lease::{LEASE_EXPIRY_BOUND, Lease},
    pending::{Acknowledged, PendingRevocations},
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
    /// Whether a probe of the connection is in progress.
    is_probing: AtomicBool,
}

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
            let nonce = Nonce::random();
            let answer = self.pending.begin(nonce);
            let began = Instant::now();
            match self.publish_all(revoked, nonce).await {
                Ok(()) => {
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

    /// Publishes the sessions in as many events as necessary, the last of them with this nonce. An instance
    /// that has applied the last one has applied all, because it follows the chain link by link.
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
    ) -> Result<(), BusError> {
        let mut connection = self.connection().await?;
        self.drop_connection_if_broken(connection.revoke(nonce, sessions, tokens).await).await
    }

    /// Removes this instance from the membership, so that no revocation waits for it. The follower must
    /// have been stopped.
    pub async fn leave(&self, instance: InstanceId) {
        let leaving = async {
            if let Ok(mut connection) = self.connection().await {
                // If this fails, the others drop this instance when its lease has expired.
                let _ = connection.leave(instance.to_string().as_bytes()).await;
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
