//! The database: opens it, applies the migrations and, for SQLite, ensures that only this process serves it.
//!
//! Statements are written once for SQLite and PostgreSQL, in the file of the table they are about
//! (`users.rs`, `sessions.rs`, `access_tokens.rs`, `events.rs`, `instances.rs`). Outside this folder, only
//! `client_info.rs` names `sqlx`, for a derive.

use std::{
    fs::{self, File, TryLockError},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use futures::future::BoxFuture;
use metrics::gauge;
use secrecy::ExposeSecret;
use sqlx::{AnyConnection, AssertSqlSafe, Connection, Executor, any::AnyPoolOptions};
use tokio::time::{self, Instant};
use tracing::info;

use self::pool::{Pool, is_postgres, prepare};
use super::{clock::UnixSeconds, config::Config};

pub use sqlx::Error as DbError;

pub mod access_tokens;
pub mod clients;
mod confirmations;
pub mod decode;
pub mod events;
mod expired;
pub mod factors;
mod instances;
pub mod mail_tokens;
pub mod outbox;
mod pool;
pub mod sessions;
pub mod sign_ins;
pub mod site_files;
mod store;
pub mod user_changes;
pub mod users;

/// The timeout of a request's transaction: longer than that of one statement that waits for a row.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(8);

/// The timeout of a transaction that is about many rows.
pub(super) const MANY_TIMEOUT: Duration = Duration::from_secs(30);

/// The timeout for closing the connections at shutdown.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The number of connections for work that must proceed while requests use all of theirs: revocations,
/// reconciling, deleting expired rows. For PostgreSQL only: SQLite has one writer.
const RESERVED_CONNECTIONS: u32 = 4;

/// PostgreSQL's clock as [`UnixSeconds`], read when the expression is evaluated and not when the
/// transaction began.
const POSTGRES_CLOCK: &str = "extract(epoch from clock_timestamp())::bigint";

/// A handle to the database, cheap to clone.
#[derive(Clone)]
pub struct Db {
    pub(super) pool: Pool,
    reserved: Pool,
    instances: Pool,
    is_postgres: bool,
    /// The lock of the one process that serves an SQLite file. The system releases it when the process ends,
    /// for any reason.
    _lock: Option<Arc<File>>,
}

/// The reason why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error("the database: {0}")]
    Db(#[from] DbError),
    /// The row does not exist, or has changed since the caller read it.
    #[error("there is nothing to change")]
    NotFound,
    /// The session that authorized the change has ended.
    #[error("the session that asked for it has ended")]
    SessionEnded,
}

/// The kind of access that a process needs to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Serving it. The process answers from its mirror, so no other process may revoke sessions in an SQLite
    /// file.
    Exclusive,
    /// Reading it or adding to it, also while an instance is running.
    Shared,
}

impl Db {
    /// Opens the database and applies the migrations. An SQLite file and its folder are created if they are
    /// missing. If PostgreSQL is not up yet, this waits for it, for at most the configured time.
    ///
    /// # Errors
    /// Another process has exclusive access to the SQLite file; the database cannot be reached, is corrupt,
    /// or cannot be written.
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
        // A pool would retry until its timeout, and hide the error.
        let mut first = connect(&url, &name, startup_wait)
            .await
            .with_context(|| format!("the database {name} cannot be opened"))?;
        prepare(&mut first).await.with_context(|| format!("the database {name} cannot be used"))?;
        first.close().await?;
        let mut migrations = sqlx::migrate!();
        // A newer version may have applied further migrations, which have to be compatible with this version.
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
        let silence = Arc::default();
        let open = async |max_connections| {
            Pool::open(&url, max_connections, &silence)
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
        // Without this, a file that cannot be written would be found only by the first login.
        db.check_writable().await.with_context(|| format!("the database {name} cannot be written"))?;
        Ok(db)
    }

    /// Checks that the database can be written, as login, refresh and logout need.
    pub async fn check_writable(&self) -> Result<(), DbError> {
        sqlx::query("update users set id = id where id = ''")
            .execute(&mut *self.pool.acquire().await?)
            .await?;
        Ok(())
    }

    /// The connections for requests.
    pub(super) fn requests(&self) -> Lane<'_> {
        Lane { pool: &self.pool, timeout: TRANSACTION_TIMEOUT }
    }

    /// The connections that requests cannot use up, for a transaction of at most `timeout`.
    pub(super) fn reserved(&self, timeout: Duration) -> Lane<'_> {
        Lane { pool: &self.reserved, timeout }
    }

    /// The reserved connections, for the revocation of one session.
    pub(super) fn revocation(&self) -> Lane<'_> {
        self.reserved(TRANSACTION_TIMEOUT)
    }

    /// The reserved connections, for a revocation of many sessions, which may take long: see [`allow_time`].
    pub(super) fn revocation_of_many(&self) -> Lane<'_> {
        self.reserved(MANY_TIMEOUT)
    }

    /// The one connection for the table of instances. It is separate, because revocations that wait for rows
    /// must not make this instance look dead.
    pub(super) fn instances_pool(&self) -> &Pool {
        &self.instances
    }

    /// The reserved connections, for single statements. A caller that may be dropped uses a transaction
    /// instead.
    pub(super) fn reserved_pool(&self) -> &Pool {
        &self.reserved
    }

    pub(super) fn is_postgres(&self) -> bool {
        self.is_postgres
    }

    /// The SQL expression for the current time: PostgreSQL's clock, which all instances share. With SQLite
    /// there is one process, so its own clock, `own`, is used.
    pub(super) fn clock_expression(&self, own: UnixSeconds) -> String {
        if self.is_postgres { POSTGRES_CLOCK.to_owned() } else { own.to_string() }
    }

    /// The current time by the clock that all instances share: see [`Db::clock_expression`].
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn clock(&self, own: UnixSeconds) -> Result<UnixSeconds, DbError> {
        if !self.is_postgres {
            return Ok(own);
        }
        let select = format!("select {}", self.clock_expression(own));
        let reading = async {
            let connection = &mut *self.reserved.acquire().await?;
            sqlx::query_scalar(AssertSqlSafe(select)).fetch_one(connection).await
        };
        // A frozen connection must not stay in use, because few are reserved.
        time::timeout(TRANSACTION_TIMEOUT, reading).await.unwrap_or(Err(DbError::PoolTimedOut))
    }

    /// A connection outside the pools, for a statement without a timeout.
    pub(super) async fn unlimited_connection(&self) -> Result<AnyConnection, DbError> {
        let mut connection = self.reserved.acquire_detached().await?;
        if self.is_postgres {
            connection.execute("set statement_timeout = 0").await?;
        }
        Ok(connection)
    }

    /// Updates the metrics about connections.
    pub fn measure(&self) {
        let reserved = self.is_postgres.then_some(("reserved", &self.reserved));
        for (name, pool) in [("requests", &self.pool)].into_iter().chain(reserved) {
            gauge!("hallpass_database_connections", "pool" => name).set(pool.size());
            gauge!("hallpass_database_connections_idle", "pool" => name).set(pool.num_idle() as f64);
        }
    }

    /// Closes all connections after the statements in progress, or without waiting for them if they take too
    /// long.
    pub async fn close(&self) {
        let closing =
            async { tokio::join!(self.pool.close(), self.reserved.close(), self.instances.close()) };
        let _ = time::timeout(CLOSE_TIMEOUT, closing).await;
    }
}

/// The pool that a transaction takes its connection from, and the timeout of the transaction.
pub(super) struct Lane<'a> {
    pool: &'a Pool,
    timeout: Duration,
}

impl Lane<'_> {
    /// Runs `operation` in a transaction, which is committed if it returns `Ok`, and else rolled back. Once
    /// `Ok` is returned, the transaction is known to be committed.
    ///
    /// If the caller is dropped while it waits for a connection, nothing has happened. After that, the
    /// transaction is a task of its own, which runs to its end without the caller. If it is interrupted
    /// nevertheless (by its timeout, by a panic), its connection is closed. A connection that was returned to
    /// the pool in the middle of a statement could still be in a transaction, and the changes of its next
    /// user would not be committed (transact-rs/sqlx#4385).
    ///
    /// # Errors
    /// The errors of `operation`; there was no free connection, or the transaction timed out.
    pub async fn transaction<T, E>(
        self,
        operation: impl for<'c> FnOnce(&'c mut AnyConnection) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbError> + Send + 'static,
    {
        let mut connection = self.pool.acquire().await?;
        connection.close_on_drop(true);
        let running = async move {
            let mut transaction = connection.begin().await?;
            let result = operation(&mut transaction).await;
            match &result {
                Ok(_) => transaction.commit().await?,
                Err(_) => transaction.rollback().await?,
            }
            connection.close_on_drop(false);
            result
        };
        let limited = time::timeout(self.timeout, running);
        let task = tokio::spawn(async move { limited.await.unwrap_or(Err(DbError::PoolTimedOut.into())) });
        task.await.unwrap_or(Err(DbError::WorkerCrashed.into()))
    }
}

/// Raises the statement timeout of this transaction to `timeout`, for statements about many rows.
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

/// Connects, and retries while the server is not up.
async fn connect(url: &str, name: &str, startup_wait: Duration) -> Result<AnyConnection, DbError> {
    let deadline = Instant::now() + startup_wait;
    let mut said = false;
    loop {
        let error = match AnyConnection::connect(url).await {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        // 57P03: the server is starting up. Other errors that it reports do not go away by waiting.
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

/// Sets the options of a connection for migrations, without a statement timeout: an index on many rows takes
/// long, and so does the wait for another instance that is migrating.
async fn prepare_to_migrate(connection: &mut AnyConnection) -> Result<(), DbError> {
    prepare(connection).await?;
    if is_postgres(connection) {
        connection.execute("set statement_timeout = 0").await?;
    }
    Ok(())
}

/// The URL without user, password and parameters.
fn redact_credentials(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
    format!("{scheme}://{}", place.split('?').next().unwrap_or_default())
}

/// The path of the file in `sqlite://path`. The file is created if it is missing, readable by its owner only.
/// The path is canonical, because two names of one file must not give two locks.
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

/// Locks the database `file` by a lock file next to it: SQLite's own locks are not held all the time.
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
