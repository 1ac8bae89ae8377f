//! The database: opening it, bringing its tables up to date and, for SQLite, making sure that this
//! process is the only one to serve it.
//!
//! Statements are written once for SQLite and PostgreSQL, in the file of the table they are about
//! (`users.rs`, `sessions.rs`, `access_tokens.rs`, `events.rs`). Those files and this one are the only ones to name `sqlx`.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use futures::future::BoxFuture;
use metrics::gauge;
use secrecy::ExposeSecret;
use sqlx::{
    Any, AnyConnection, AnyPool, AssertSqlSafe, Connection, Executor, Row,
    any::AnyPoolOptions,
    pool::{PoolConnection, PoolConnectionMetadata},
};
use tokio::time::{self, Instant};
use tracing::info;

use super::{clock::UnixSeconds, config::Config};

pub use sqlx::Error as DbError;

pub mod access_tokens;
pub mod decode;
pub mod events;
mod instances;
pub mod sessions;
pub mod users;

/// How long a request waits for a connection before it is answered 503.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long PostgreSQL may work on one statement, and keep a transaction open in which nothing happens.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a transaction of a request may take: longer than one statement that waits for a row.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(8);

/// How long a transaction may take that is about many rows.
pub(super) const MANY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection that is about to be used, or has been, may take to answer the check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the connections may take to close when the process stops.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Connections for what must get through while requests use up all of theirs: revocations, reconciling,
/// deleting what has expired. For PostgreSQL only: SQLite has one writer.
const RESERVED_CONNECTIONS: u32 = 4;

/// PostgreSQL's clock as [`UnixSeconds`], read when the expression is evaluated and not when the
/// transaction began.
const POSTGRES_CLOCK: &str = "extract(epoch from clock_timestamp())::bigint";

/// A handle to the database, cheap to clone.
#[derive(Clone)]
pub struct Db {
    pub(super) pool: AnyPool,
    reserved: AnyPool,
    instances: AnyPool,
    is_postgres: bool,
    /// Held by the one process that serves this database; released by the system when it ends,
    /// however it ends.
    _lock: Option<Arc<File>>,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error("the database: {0}")]
    Db(#[from] DbError),
    /// What was to be changed does not exist, or is no longer as the caller took it to be.
    #[error("there is nothing to change")]
    NotFound,
    /// The session on whose authority it was asked for has ended meanwhile.
    #[error("the session that asked for it has ended")]
    SessionEnded,
}

/// What the process will do with the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Serve it: what this process remembers must be all there is to know, so no other process
    /// may end sessions behind its back.
    Exclusive,
    /// Read it or add to it, beside a server.
    Shared,
}

impl Db {
    /// Opens the database and applies the migrations. An SQLite file and its folder are created
    /// where they are missing; for a PostgreSQL that is not up yet, it waits as long as the settings say.
    ///
    /// # Errors
    /// Another process has the exclusive access that was asked for; the database cannot be reached,
    /// is corrupt, or cannot be written.
    pub async fn open(config: &Config, access: Access) -> Result<Self> {
        let startup_wait = config.server.startup_wait();
        let config = &config.database;
        let (name, url, lock) = if config.is_shared() {
            let url = config.url.expose_secret().to_owned();
            (redact_credentials(&url), url, None)
        } else {
            let file = sqlite_file(config.url.expose_secret())?;
            let lock = match access {
                Access::Exclusive => Some(Arc::new(lock(&file)?)),
                Access::Shared => None,
            };
            (file.display().to_string(), format!("sqlite://{}?mode=rwc", file.display()), lock)
        };
        sqlx::any::install_default_drivers();
        // A pool would try again until its time limit, and not say what was wrong.
        let mut first = connect(&url, &name, startup_wait)
            .await
            .with_context(|| format!("the database {name} cannot be opened"))?;
        prepare(&mut first).await.with_context(|| format!("the database {name} cannot be used"))?;
        first.close().await?;
        let mut migrations = sqlx::migrate!();
        // A newer version may have added some: what it changes has to work with this one, too.
        migrations.set_ignore_missing(true);
        let migrating = AnyPoolOptions::new()
            .max_connections(1)
            .after_connect(|connection, _| Box::pin(prepare_to_migrate(connection)))
            .connect(&url)
            .await
            .with_context(|| format!("the database {name} cannot be opened"))?;
        migrations
            .run(&migrating)
            .await
            .with_context(|| format!("the migrations of the database {name} failed"))?;
        migrating.close().await;
        let silence = Arc::new(Silence::default());
        let open = async |max_connections| {
            pool_options(max_connections, Arc::clone(&silence))
                .connect(&url)
                .await
                .with_context(|| format!("the database {name} cannot be opened"))
        };
        let pool = open(config.max_connections).await?;
        let (reserved, instances) = if config.is_shared() {
            (open(RESERVED_CONNECTIONS).await?, open(1).await?)
        } else {
            (pool.clone(), pool.clone())
        };
        let db = Self { pool, reserved, instances, is_postgres: config.is_shared(), _lock: lock };
        // A file that cannot be written is found out now, and not by the first login.
        db.check_writable().await.with_context(|| format!("the database {name} cannot be written"))?;
        Ok(db)
    }

    /// Makes sure that login, refresh and logout can be recorded.
    pub async fn check_writable(&self) -> Result<(), DbError> {
        sqlx::query("update users set id = id where id = ''").execute(&self.pool).await?;
        Ok(())
    }

    /// The connections of requests.
    pub(super) fn requests(&self) -> Lane<'_> {
        Lane { pool: &self.pool, timeout: TRANSACTION_TIMEOUT }
    }

    /// The connections that requests cannot use up, for a transaction of at most `timeout`.
    pub(super) fn reserved(&self, timeout: Duration) -> Lane<'_> {
        Lane { pool: &self.reserved, timeout }
    }

    /// The same for the revocation of one session.
    pub(super) fn revocation(&self) -> Lane<'_> {
        self.reserved(TRANSACTION_TIMEOUT)
    }

    /// The same for a revocation that takes as long as the sessions it ends are many: see [`allow_time`].
    pub(super) fn revocation_of_many(&self) -> Lane<'_> {
        self.reserved(MANY_TIMEOUT)
    }

    /// The one connection for the table of instances: revocations that wait for rows must not make this
    /// instance look dead.
    pub(super) fn instances_pool(&self) -> &AnyPool {
        &self.instances
    }

    /// A reserved connection for single statements. A caller that may be dropped uses a transaction instead.
    pub(super) fn reserved_pool(&self) -> &AnyPool {
        &self.reserved
    }

    pub(super) fn is_postgres(&self) -> bool {
        self.is_postgres
    }

    /// The expression for the time in a statement: PostgreSQL's clock, which all instances share. SQLite has
    /// one process, whose clock, `own`, is as good.
    pub(super) fn clock_expression(&self, own: UnixSeconds) -> String {
        if self.is_postgres { POSTGRES_CLOCK.to_owned() } else { own.to_string() }
    }

    /// The time by the clock that all instances share: see [`Db::clock_expression`].
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn clock(&self, own: UnixSeconds) -> Result<UnixSeconds, DbError> {
        if !self.is_postgres {
            return Ok(own);
        }
        let select = format!("select {}", self.clock_expression(own));
        sqlx::query_scalar(AssertSqlSafe(select)).fetch_one(&self.reserved).await
    }

    /// A connection outside the pools, for a statement that may take longer than others.
    pub(super) async fn unlimited_connection(&self) -> Result<AnyConnection, DbError> {
        let mut connection = self.reserved.acquire().await?.detach();
        if self.is_postgres {
            connection.execute("set statement_timeout = 0").await?;
        }
        Ok(connection)
    }

    /// Puts how many connections there are into the metrics.
    pub fn measure(&self) {
        let reserved = self.is_postgres.then_some(("reserved", &self.reserved));
        for (name, pool) in [("requests", &self.pool)].into_iter().chain(reserved) {
            gauge!("hallpass_database_connections", "pool" => name).set(pool.size());
            gauge!("hallpass_database_connections_idle", "pool" => name).set(pool.num_idle() as f64);
        }
    }

    /// Ends all connections, after the statements under way, if these end in time.
    pub async fn close(&self) {
        let closing =
            async { tokio::join!(self.pool.close(), self.reserved.close(), self.instances.close()) };
        let _ = time::timeout(CLOSE_TIMEOUT, closing).await;
    }
}

/// Where a transaction gets its connection, and how long it may take.
pub(super) struct Lane<'a> {
    pool: &'a AnyPool,
    timeout: Duration,
}

impl Lane<'_> {
    /// Runs `operation` in a transaction: committed if it returns `Ok`, else rolled back. Once `Ok` is
    /// returned it is known to be committed.
    ///
    /// A caller that is dropped while it waits for a connection leaves nothing behind. After that the
    /// transaction is a task of its own, which goes on to its end; one that is interrupted all the same (by
    /// its timeout, by a panic) closes its connection. A connection that was given back in the middle of a
    /// statement could still be in a transaction, and what its next user changes would not be
    /// committed (transact-rs/sqlx#4385).
    ///
    /// # Errors
    /// Those of `operation`; no connection was to be had, or it took too long.
    pub async fn transaction<T, E>(
        self,
        operation: impl for<'c> FnOnce(&'c mut AnyConnection) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbError> + Send + 'static,
    {
        let mut connection = Checkout(Some(self.pool.acquire().await?));
        let running = async move {
            let mut transaction = connection.get()?.begin().await?;
            let result = operation(&mut transaction).await;
            match &result {
                Ok(_) => transaction.commit().await?,
                Err(_) => transaction.rollback().await?,
            }
            connection.put_back();
            result
        };
        let limited = time::timeout(self.timeout, running);
        let task = tokio::spawn(async move { limited.await.unwrap_or(Err(DbError::PoolTimedOut.into())) });
        task.await.unwrap_or(Err(DbError::WorkerCrashed.into()))
    }
}

/// Lets the statements of this transaction take as long as `timeout`: they are about many rows.
///
/// # Errors
/// The database cannot be used.
pub(super) async fn allow_time(connection: &mut AnyConnection, timeout: Duration) -> Result<(), DbError> {
    if is_postgres(connection) {
        let statement = format!("set local statement_timeout = {}", timeout.as_millis());
        connection.execute(AssertSqlSafe(statement)).await?;
    }
    Ok(())
}

/// A connection of a pool that is closed, and not given back, unless its user says that it may be.
struct Checkout(Option<PoolConnection<Any>>);

impl Checkout {
    fn get(&mut self) -> Result<&mut AnyConnection, DbError> {
        self.0.as_deref_mut().ok_or(DbError::PoolClosed)
    }

    fn put_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        if let Some(connection) = &mut self.0 {
            connection.close_on_drop();
        }
    }
}

/// When a connection was last found not to answer. Those that are older are not asked any more: the
/// server that they lead to may have vanished, and each would cost somebody the timeout.
#[derive(Default)]
struct Silence(Mutex<Option<Instant>>);

impl Silence {
    fn noticed(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn may_affect(&self, connection: &PoolConnectionMetadata) -> bool {
        let noticed = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noticed.is_some_and(|noticed| connection.age >= noticed.elapsed())
    }
}

fn pool_options(max_connections: u32, silence: Arc<Silence>) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(|connection, _| Box::pin(prepare(connection)))
        // `before_acquire` asks more than the ping that this would send, and not without a timeout.
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
        // One that is given back in the middle of a long statement is silent until the statement ends: that
        // says nothing of the others.
        .after_release(|connection, _| Box::pin(async move { check(connection).await.map(|()| true) }))
}

/// Makes sure that a connection answers, is in no transaction, and leads to a server that takes writes: not
/// to a standby, nor to a primary that has been demoted under it.
async fn check(connection: &mut AnyConnection) -> Result<(), DbError> {
    if !is_postgres(connection) {
        return Ok(());
    }
    // As a simple query, not a prepared one, these times are the same where the query is the first of
    // its transaction.
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

/// Connects, trying again while the server is not up.
async fn connect(url: &str, name: &str, startup_wait: Duration) -> Result<AnyConnection, DbError> {
    let deadline = Instant::now() + startup_wait;
    let mut said = false;
    loop {
        let error = match AnyConnection::connect(url).await {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        // 57P03: it is starting up. Anything else it says will not change by waiting.
        let is_coming_up = match &error {
            DbError::Database(error) => error.code().is_some_and(|code| code == "57P03"),
            DbError::Io(_) => true,
            _ => false,
        };
        if !is_coming_up || Instant::now() >= deadline {
            return Err(error);
        }
        if !said {
            said = true;
            info!("waiting for the database {name}: {error}");
        }
        time::sleep(Duration::from_millis(200)).await;
    }
}

/// Sets what each connection has to be told; refuses a server that is a standby.
async fn prepare(connection: &mut AnyConnection) -> Result<(), DbError> {
    if !is_postgres(connection) {
        // `synchronous = full`: what was acknowledged survives a power cut.
        connection
            .execute(
                "pragma journal_mode = wal; pragma synchronous = full; \
                 pragma foreign_keys = on; pragma busy_timeout = 5000",
            )
            .await?;
        return Ok(());
    }
    let limit = STATEMENT_TIMEOUT.as_millis();
    // A process that is stopped in the middle of a transaction must not hold its rows forever. And what was
    // acknowledged survives a crash, whatever the server is set to.
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

/// An index on many rows takes its time, and so may another instance that is at it.
async fn prepare_to_migrate(connection: &mut AnyConnection) -> Result<(), DbError> {
    prepare(connection).await?;
    if is_postgres(connection) {
        connection.execute("set statement_timeout = 0").await?;
    }
    Ok(())
}

pub(super) fn is_postgres(connection: &AnyConnection) -> bool {
    connection.backend_name() == "PostgreSQL"
}

/// The address without user and password.
fn redact_credentials(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    format!("{scheme}://{}", place.split('?').next().unwrap_or_default())
}

/// The file in `sqlite://path`, created if it is missing, for its owner alone. By its one true
/// path: two names of a file must not give two locks.
fn sqlite_file(url: &str) -> Result<PathBuf> {
    let path = url.strip_prefix("sqlite://").unwrap_or_default();
    ensure!(
        !path.is_empty() && !path.contains([':', '?', '#', '%']),
        "DATABASE_URL has to look like sqlite://data/hallpass.db"
    );
    let file = Path::new(path);
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("the folder of the database {path} cannot be created"))?;
    }
    if !file.exists() {
        let created = File::options().create_new(true).write(true).mode(0o600).open(file);
        created.with_context(|| format!("the database {path} cannot be created"))?;
    }
    file.canonicalize().with_context(|| format!("the database {path} cannot be opened"))
}

/// Takes the lock of the database `file`, in a file beside it: SQLite's own locks come and go.
fn lock(file: &Path) -> Result<File> {
    let mut path = file.as_os_str().to_owned();
    path.push(".lock");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("{} cannot be written", Path::new(&path).display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => bail!(
            "another Hallpass is running on the database {}: one process serves an SQLite file",
            file.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("{} cannot be locked", Path::new(&path).display()))
        }
    }
}
