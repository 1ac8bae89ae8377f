//! A PostgreSQL of its own.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::support::process::{Process, free_port, run, wait_until};

pub struct Postgres {
    pub port: u16,
    folder: PathBuf,
    programs: PathBuf,
    process: Process,
}

impl Postgres {
    pub async fn start(folder: &Path) -> Self {
        let programs = newest_programs();
        let data = folder.join("postgres");
        fs::create_dir(&data).unwrap();
        let initdb = programs.join("initdb").display().to_string();
        let data_path = data.display().to_string();
        let arguments = [&initdb, "-D", &data_path, "-U", "hallpass", "-A", "trust", "-N", "-E", "UTF8"];
        if let Some(user) = other_user() {
            run("chown", &[user, &data_path]).unwrap();
            let switch = ["--reuid", user, "--regid", user, "--clear-groups", "--"];
            run("setpriv", &[&switch[..], &arguments[..]].concat()).unwrap();
        } else {
            run(&initdb, &arguments[1..]).unwrap();
        }
        let port = free_port();
        let process = spawn(&programs, folder, port);
        let postgres = Self { port, folder: folder.to_owned(), programs, process };
        postgres.wait_until_up().await;
        postgres
    }

    pub fn url(&self, port: u16) -> String {
        format!("postgres://hallpass:hallpass@127.0.0.1:{port}/postgres")
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Sends all of its processes a signal: `STOP`, `CONT`.
    pub fn signal_all(&self, signal: &str) {
        self.process.signal_all(signal);
    }

    /// Has it execute a statement.
    pub fn tell(&self, statement: &str) {
        self.psql(statement).unwrap();
    }

    pub async fn start_again(&mut self) {
        let (programs, folder, port) = (self.programs.clone(), self.folder.clone(), self.port);
        self.process = spawn(&programs, &folder, port);
        // It refuses to start while a child of the killed one is still about to end.
        wait_until("PostgreSQL is up again", async || {
            if !self.process.is_running() {
                self.process = spawn(&programs, &folder, port);
            }
            self.is_up()
        })
        .await;
    }

    fn is_up(&self) -> bool {
        self.psql("select 1").is_ok()
    }

    fn psql(&self, statement: &str) -> Result<String, String> {
        let port = self.port.to_string();
        let query = ["-h", "127.0.0.1", "-p", &port, "-U", "hallpass", "-d", "postgres", "-c", statement];
        run(self.programs.join("psql"), &query)
    }

    async fn wait_until_up(&self) {
        wait_until("PostgreSQL is up", async || self.is_up()).await;
    }
}

fn spawn(programs: &Path, folder: &Path, port: u16) -> Process {
    Process::start("postgres", folder, other_user(), &programs.join("postgres"), |command| {
        let data = folder.join("postgres");
        command.arg("-D").arg(&data).arg("-k").arg(&data).args(["-p", &port.to_string()]);
        // What a killed process has written is safe with the system: only a power cut needs fsync.
        command.args(["-h", "127.0.0.1", "-c", "fsync=off", "-c", "max_connections=100"]);
    })
}

/// PostgreSQL refuses to run as root.
fn other_user() -> Option<&'static str> {
    (fs::metadata("/proc/self").unwrap().uid() == 0).then_some("postgres")
}

/// Debian keeps the programs of each version in a folder that is not on the path.
fn newest_programs() -> PathBuf {
    let versions =
        fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is missing: apt-get install postgresql");
    let version = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let newest = versions.map(|entry| entry.unwrap().path()).max_by_key(version);
    newest.expect("PostgreSQL is missing: apt-get install postgresql").join("bin")
}
