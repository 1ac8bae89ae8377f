//! The database: opening it, bringing its tables up to date and, for SQLite, making sure that this
//! process is the only one to serve it.
//!
//! Statements are written once for SQLite and PostgreSQL, in the file of the table they are about
//! (`users.rs`, `sessions.rs`, `access_tokens.rs`, `events.rs`). Those files and this one are the only ones to name `sqlx`.

use std::{
    fs::{self, File, TryLockError},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use secrecy::ExposeSecret;
use sqlx::{AnyConnection, AnyPool, Connection, Executor, any::AnyPoolOptions};

use tokio::time::{self, Instant};
use tracing::info;

use super::config::Config;

pub use sqlx::Error as DbError;

/// How long a request waits for a connection before it is answered 503.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// A handle to the database, cheap to clone.
#[derive(Clone)]
pub struct Db {
    pub(super) pool: AnyPool,
    /// Held by the one process that serves this database; released by the system when it ends,
    /// however it ends.
    _lock: Option<Arc<File>>,
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
        let patience = config.server.startup_wait();
        let config = &config.database;
        let (name, url, lock) = if config.is_shared() {
            let url = config.url.expose_secret().to_owned();
            (nameable(&url), url, None)
        } else {
            let file = sqlite_file(config.url.expose_secret())?;
            let lock = match access {
                Access::Exclusive => Some(Arc::new(lock(&file)?)),
                Access::Shared => None,
            };
            (file.display().to_string(), format!("sqlite://{}?mode=rwc", file.display()), lock)
        };
        sqlx::any::install_default_drivers();
        // A pool would try again until its patience ends, and not say what was wrong.
        let mut first = connect(&url, &name, patience)
            .await
            .with_context(|| format!("the database {name} cannot be opened"))?;
        prepare(&mut first).await.with_context(|| format!("the database {name} cannot be used"))?;
        let pool = AnyPoolOptions::new()
            .max_connections(config.max_connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(|connection, _| Box::pin(prepare(connection)))
            .connect(&url)
            .await
            .with_context(|| format!("the database {name} cannot be opened"))?;
        sqlx::migrate!()
            .run(&pool)
            .await
            .with_context(|| format!("the database {name} cannot be brought up to date"))?;
        let db = Self { pool, _lock: lock };
        // A file that cannot be written is found out now, and not by the first log-in.
        db.check_writable().await.with_context(|| format!("the database {name} cannot be written"))?;
        Ok(db)
    }

    /// Makes sure that log-in, refresh and log-out can be recorded.
    pub async fn check_writable(&self) -> Result<(), DbError> {
        sqlx::query("update users set id = id where id = ''").execute(&self.pool).await?;
        Ok(())
    }

    /// A connection outside the pool, for a statement that may take longer than others.
    pub(super) async fn patient_connection(&self) -> Result<AnyConnection, DbError> {
        let mut connection = self.pool.acquire().await?.detach();
        if is_postgres(&connection) {
            connection.execute("set statement_timeout = 0").await?;
        }
        Ok(connection)
    }

    /// Ends all connections, after the statements under way.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Connects, trying again while the server is not up.
async fn connect(url: &str, name: &str, patience: Duration) -> Result<AnyConnection, DbError> {
    let deadline = Instant::now() + patience;
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

/// Sets what each connection has to be told.
async fn prepare(connection: &mut AnyConnection) -> Result<(), DbError> {
    let settings = if is_postgres(connection) {
        // A process that is stopped in the middle of a transaction must not hold its rows for ever.
        "set statement_timeout = '5s'; set idle_in_transaction_session_timeout = '5s'"
    } else {
        // `synchronous = full`: what was acknowledged survives a power cut.
        "pragma journal_mode = wal; pragma synchronous = full; \
         pragma foreign_keys = on; pragma busy_timeout = 5000"
    };
    connection.execute(settings).await?;
    Ok(())
}

fn is_postgres(connection: &AnyConnection) -> bool {
    connection.backend_name() == "PostgreSQL"
}

/// The address without user and password.
fn nameable(url: &str) -> String {
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
