//! Pools of connections to the database, used by the files of this folder only.
//!
//! A connection is checked before and after each use. Everything that a pool waits for is bounded: a server that
//! vanishes without closing its connections costs each of them a timeout, and never its place in the pool.

use std::{
    io,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::{
    Any, AnyConnection, AssertSqlSafe, Error as DbError, Executor, Row,
    any::AnyPoolOptions,
    pool::{PoolConnection, PoolConnectionMetadata},
};
use tokio::{
    runtime::Handle,
    time::{self, Instant},
};

/// How long a request waits for a connection before it is answered 503.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// PostgreSQL's timeout for a statement, and for an idle transaction.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// The timeout of the check that a connection answers, which is made before and after its use.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// The timeout for returning a connection to its pool, which includes the check.
const RETURN_TIMEOUT: Duration = Duration::from_secs(2);

/// A pool of connections, cheap to clone.
#[derive(Clone)]
#[expect(clippy::disallowed_types, reason = "the one place that returns connections")]
pub struct Pool(sqlx::AnyPool);

impl Pool {
    /// Opens a pool of at most `max_connections`, and one of them. What one pool finds out about a server that has
    /// vanished holds for all pools with the same `silence`.
    ///
    /// # Errors
    /// The server cannot be reached, or is a standby.
    pub async fn open(url: &str, max_connections: u32, silence: &Arc<Silence>) -> Result<Self, DbError> {
        Ok(Self(options(max_connections, Arc::clone(silence)).connect(url).await?))
    }

    /// Waits for a connection that passes the check.
    ///
    /// # Errors
    /// There was none in time, or the server rejects it.
    pub async fn acquire(&self) -> Result<Connection, DbError> {
        Ok(Connection { pooled: self.0.acquire().await?, closes_on_drop: false })
    }

    /// Like [`Pool::acquire`], and takes the connection out of the pool, which may open another one in its place.
    ///
    /// # Errors
    /// See [`Pool::acquire`].
    pub async fn acquire_detached(&self) -> Result<AnyConnection, DbError> {
        Ok(self.0.acquire().await?.detach())
    }

    /// The number of connections.
    pub fn size(&self) -> u32 {
        self.0.size()
    }

    /// The number of connections that are not in use.
    pub fn num_idle(&self) -> usize {
        self.0.num_idle()
    }

    /// Closes the connections, and waits for those in use.
    pub async fn close(&self) {
        self.0.close().await;
    }
}

/// A connection of a pool. When it is dropped, it returns to the pool if it passes the check in time; otherwise
/// it is closed.
pub struct Connection {
    pooled: PoolConnection<Any>,
    closes_on_drop: bool,
}

impl Connection {
    /// Whether the connection is closed when it is dropped, instead of returned to the pool.
    pub fn close_on_drop(&mut self, closes: bool) {
        self.closes_on_drop = closes;
    }
}

impl Deref for Connection {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.pooled
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.pooled
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.closes_on_drop {
            return self.pooled.close_on_drop();
        }
        // SQLx does the same when a `PoolConnection` is dropped, but pings the server without a timeout: a
        // connection that falls silent in that moment would occupy its place in the pool forever
        // (transact-rs/sqlx#4349).
        let returning = self.pooled.return_to_pool();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(time::timeout(RETURN_TIMEOUT, returning));
        }
    }
}

/// The time at which a connection last did not answer its check. Connections that were opened before are
/// closed without a check: their server may have vanished, and each would cost a request the timeout.
#[derive(Default)]
pub struct Silence(Mutex<Option<Instant>>);

impl Silence {
    fn noticed(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn may_affect(&self, connection: &PoolConnectionMetadata) -> bool {
        let noticed = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noticed.is_some_and(|noticed| connection.age >= noticed.elapsed())
    }
}

fn options(max_connections: u32, silence: Arc<Silence>) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(|connection, _| Box::pin(prepare(connection)))
        // `before_acquire` checks more than this ping would, and has a timeout.
        .test_before_acquire(false)
        .before_acquire(move |connection, metadata| {
            let silence = Arc::clone(&silence);
            Box::pin(async move {
                if silence.may_affect(&metadata) {
                    return Err(unusable("it is as old as one that did not answer"));
                }
                let checked = check(connection).await;
                if matches!(&checked, Err(DbError::Io(error)) if error.kind() == io::ErrorKind::TimedOut) {
                    silence.noticed();
                }
                checked.map(|()| true)
            })
        })
        // A connection that is released in the middle of a long statement does not answer until the statement
        // ends. That means nothing for the others.
        .after_release(|connection, _| Box::pin(async move { check(connection).await.map(|()| true) }))
}

/// Checks that a connection answers, is in no transaction, and leads to a server that accepts writes: neither
/// a standby, nor a primary that was demoted since the connection was opened.
async fn check(connection: &mut AnyConnection) -> Result<(), DbError> {
    if !is_postgres(connection) {
        return Ok(());
    }
    // In a simple query, not a prepared one, these times are the same if the query is the first of its
    // transaction.
    const CHECK: &str = "select now() = statement_timestamp() as is_clean, \
        not pg_is_in_recovery() and current_setting('transaction_read_only') = 'off' as is_primary";
    let Ok(answer) = time::timeout(CHECK_TIMEOUT, connection.fetch_one(CHECK)).await else {
        return Err(DbError::Io(io::Error::new(io::ErrorKind::TimedOut, "it does not answer")));
    };
    let row = answer?;
    if !row.try_get::<bool, _>("is_clean")? {
        return Err(unusable("it was left in a transaction"));
    }
    if !row.try_get::<bool, _>("is_primary")? {
        return Err(unusable("the server takes no writes any more"));
    }
    Ok(())
}

fn unusable(why: &str) -> DbError {
    DbError::Io(io::Error::other(why.to_owned()))
}

/// Sets the options of a new connection, and rejects a server that is a standby.
pub async fn prepare(connection: &mut AnyConnection) -> Result<(), DbError> {
    if !is_postgres(connection) {
        // `synchronous = full`: acknowledged changes survive a power failure.
        connection
            .execute(
                "pragma journal_mode = wal; pragma synchronous = full; \
                 pragma foreign_keys = on; pragma busy_timeout = 5000",
            )
            .await?;
        return Ok(());
    }
    let limit = STATEMENT_TIMEOUT.as_millis();
    // An instance that is suspended in the middle of a transaction must not lock its rows forever. And
    // acknowledged changes have to survive a crash, whatever the default of the server is.
    let settings = format!(
        "set statement_timeout = {limit}; set idle_in_transaction_session_timeout = {limit}; \
         select set_config('synchronous_commit', 'on', false) \
         where current_setting('synchronous_commit') in ('off', 'local')"
    );
    connection.execute(AssertSqlSafe(settings)).await?;
    let is_standby: bool =
        connection.fetch_one("select pg_is_in_recovery() as is_standby").await?.try_get("is_standby")?;
    if is_standby {
        let why = "this PostgreSQL is a standby (in recovery): DATABASE_URL has to lead to the primary";
        return Err(DbError::Configuration(why.into()));
    }
    Ok(())
}

pub fn is_postgres(connection: &AnyConnection) -> bool {
    connection.backend_name() == "PostgreSQL"
}
