//! A PostgreSQL server for one test.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use sqlx::{Connection, PgConnection};

use crate::support::process::{Process, free_port, run, wait_until};

pub struct Postgres {
    pub port: u16,
    /// The folder with the data and the log.
    folder: PathBuf,
    programs: PathBuf,
    /// The additional options of this server.
    options: Vec<String>,
    /// The number of warnings about nested transactions that have been counted.
    nested: AtomicUsize,
    process: Process,
}

impl Postgres {
    pub async fn start(folder: &Path) -> Self {
        Self::with(folder, &[]).await
    }

    /// Starts a server with further settings, for example `synchronous_commit=off`.
    pub async fn with(folder: &Path, settings: &[&str]) -> Self {
        let programs = newest_programs();
        let data = data_folder(folder);
        let arguments = ["-D", &data, "-U", "hallpass", "-A", "trust", "-N", "-E", "UTF8"];
        run_as_owner(&programs.join("initdb"), &arguments);
        Self::start_in(folder, programs, settings).await
    }

    /// Starts a hot standby of this server, in a folder of its own. Its replay is controlled by
    /// [`Postgres::pause_replay`] and by the setting `recovery_min_apply_delay`.
    pub async fn standby(&self, folder: &Path, settings: &[&str]) -> Self {
        let data = data_folder(folder);
        let port = self.port.to_string();
        let arguments = ["-D", &data, "-R", "-X", "stream", "-c", "fast", "-h", "127.0.0.1", "-p", &port];
        let arguments = [&arguments[..], &["-U", "hallpass", "-N"]].concat();
        run_as_owner(&self.programs.join("pg_basebackup"), &arguments);
        Self::start_in(folder, self.programs.clone(), settings).await
    }

    async fn start_in(folder: &Path, programs: PathBuf, settings: &[&str]) -> Self {
        let port = free_port();
        let options: Vec<_> = settings.iter().map(|text| (*text).to_owned()).collect();
        let process = spawn(&programs, folder, port, &options);
        let postgres =
            Self { port, folder: folder.to_owned(), programs, options, nested: AtomicUsize::new(0), process };
        postgres.wait_until_up().await;
        postgres
    }

    pub fn url(&self, port: u16) -> String {
        format!("postgres://hallpass:hallpass@127.0.0.1:{port}/postgres")
    }

    /// The URL for this instance, whose connections carry its name.
    pub fn url_of(&self, port: u16, instance: usize) -> String {
        format!("{}?application_name=instance-{instance}", self.url(port))
    }

    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url(self.port)).await.unwrap()
    }

    /// Pauses or resumes the replay of a standby.
    pub fn pause_replay(&self, is_paused: bool) {
        let what = if is_paused { "pause" } else { "resume" };
        self.tell(&format!("select pg_wal_replay_{what}()"));
    }

    /// Waits until a standby has replayed everything of its primary, and promotes it.
    pub async fn replace(&self, primary: &Self) {
        let end = primary.query("select pg_current_wal_lsn()").unwrap();
        wait_until("the standby has replayed everything", async || {
            self.query(&format!("select pg_last_wal_replay_lsn() >= '{end}'")).as_deref() == Ok("t")
        })
        .await;
        self.tell("select pg_promote()");
        wait_until("the standby is a primary", async || {
            self.query("select pg_is_in_recovery()").as_deref() == Ok("f")
        })
        .await;
    }

    /// Makes every transaction read-only from here on, on existing connections too; or ends this.
    pub fn set_read_only(&self, is_read_only: bool) {
        let value = if is_read_only { "on" } else { "off" };
        self.tell(&format!("alter system set default_transaction_read_only = {value}"));
        self.tell("select pg_reload_conf()");
    }

    /// The number of connections of an instance that wait for a lock.
    pub fn waiting(&self, instance: usize) -> usize {
        let query = format!(
            "select count(*) from pg_stat_activity \
             where application_name = 'instance-{instance}' and wait_event_type = 'Lock'"
        );
        self.query(&query).map_or(0, |count| count.parse().unwrap())
    }

    /// The number of nested transactions since the last call. They occur when a connection returns to the
    /// pool with an open transaction.
    pub fn nested_transactions(&self) -> usize {
        let nested = self.process.printed().matches("already a transaction in progress").count();
        nested - self.nested.swap(nested, Relaxed)
    }

    /// Kills the server (`kill -9`).
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Sends all processes of the server a signal, for example `STOP` or `CONT`.
    pub fn signal_all(&self, signal: &str) {
        self.process.signal_all(signal);
    }

    /// Executes a statement.
    pub fn tell(&self, statement: &str) {
        self.psql(statement).unwrap();
    }

    pub async fn start_again(&mut self) {
        let (programs, folder, port) = (self.programs.clone(), self.folder.clone(), self.port);
        let options = self.options.clone();
        self.process = spawn(&programs, &folder, port, &options);
        // PostgreSQL refuses to start while a child of the killed server is still ending.
        wait_until("PostgreSQL is up again", async || {
            if !self.process.is_running() {
                self.process = spawn(&programs, &folder, port, &options);
            }
            self.is_up()
        })
        .await;
    }

    fn is_up(&self) -> bool {
        self.psql("select 1").is_ok()
    }

    /// The result of a query: the columns of each row, separated by bars.
    pub fn query(&self, statement: &str) -> Result<String, String> {
        self.psql(statement)
    }

    /// The number of updates a second that pgbench makes on this many connections, each of one row of `rows` in a
    /// transaction of its own, for five seconds.
    pub fn updates_per_second(&self, connections: u32) -> f64 {
        let script = self.folder.join("update.sql");
        fs::write(&script, "\\set id random(1, 100000)\nupdate rows set n = n + 1 where id = :id;\n")
            .unwrap();
        let (port, connections) = (self.port.to_string(), connections.to_string());
        let server = ["-h", "127.0.0.1", "-p", &port, "-U", "hallpass", "postgres"];
        let load = ["-n", "-M", "prepared", "-c", &connections, "-T", "5", "-f", script.to_str().unwrap()];
        let printed = run(self.programs.join("pgbench"), &[&load[..], &server[..]].concat()).unwrap();
        let rate = printed.lines().find_map(|line| line.strip_prefix("tps = ")).unwrap();
        rate.split(' ').next().unwrap().parse().unwrap()
    }

    fn psql(&self, statement: &str) -> Result<String, String> {
        let port = self.port.to_string();
        let server = ["-h", "127.0.0.1", "-p", &port, "-U", "hallpass", "-d", "postgres"];
        let query = [&server[..], &["-A", "-t", "-q", "-c", statement]].concat();
        run(self.programs.join("psql"), &query)
    }

    async fn wait_until_up(&self) {
        wait_until("PostgreSQL is up", async || self.is_up()).await;
    }
}

fn spawn(programs: &Path, folder: &Path, port: u16, options: &[String]) -> Process {
    Process::start("postgres", folder, other_user(), &programs.join("postgres"), |command| {
        let data = folder.join("postgres");
        command.arg("-D").arg(&data).arg("-k").arg(&data).args(["-p", &port.to_string()]);
        // Data that a killed process has written survives in the page cache; only a power failure needs
        // fsync.
        command.args(["-h", "127.0.0.1", "-c", "fsync=off", "-c", "max_connections=100"]);
        command.args(options.iter().flat_map(|option| ["-c", option]));
    })
}

/// Creates a folder for the data, owned by the user that PostgreSQL runs as.
fn data_folder(folder: &Path) -> String {
    let data = folder.join("postgres");
    fs::create_dir_all(&data).unwrap();
    let data = data.display().to_string();
    if let Some(user) = other_user() {
        run("chown", &[user, &data]).unwrap();
        run("chmod", &["700", &data]).unwrap();
    }
    data
}

fn run_as_owner(program: &Path, arguments: &[&str]) {
    let program = program.display().to_string();
    if let Some(user) = other_user() {
        let switch = ["--reuid", user, "--regid", user, "--clear-groups", "--", &program];
        run("setpriv", &[&switch[..], arguments].concat()).unwrap();
    } else {
        run(&program, arguments).unwrap();
    }
}

/// The user to run as when the tests run as root, which PostgreSQL refuses.
fn other_user() -> Option<&'static str> {
    (fs::metadata("/proc/self").unwrap().uid() == 0).then_some("postgres")
}

/// The newest PostgreSQL programs: Debian keeps each version in a folder that is not in the path.
fn newest_programs() -> PathBuf {
    let versions =
        fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is missing: apt-get install postgresql");
    let version = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let newest = versions.map(|entry| entry.unwrap().path()).max_by_key(version);
    newest.expect("PostgreSQL is missing: apt-get install postgresql").join("bin")
}
