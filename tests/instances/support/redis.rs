//! A Redis server for one test, and what an administrator can do to it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::support::process::{Process, free_port, run, wait_until};

pub struct Redis {
    pub port: u16,
    /// The folder with the data, the configuration and the log.
    folder: PathBuf,
    process: Process,
}

impl Redis {
    /// Starts a Redis server with an append-only file, and with further lines of configuration.
    pub async fn start(folder: &Path, settings: &str) -> Self {
        Self::start_at(free_port(), folder, settings).await
    }

    pub async fn start_at(port: u16, folder: &Path, settings: &str) -> Self {
        let folder = folder.join(format!("redis-{port}"));
        fs::create_dir(&folder).unwrap();
        // A file instead of the command line, because a node that changes its role rewrites it.
        let basics =
            format!("port {port}\nbind 127.0.0.1\nsave \"\"\nappendonly yes\nmaxmemory-policy noeviction\n");
        fs::write(folder.join("redis.conf"), basics + settings).unwrap();
        let redis = Self { port, process: spawn(&folder), folder };
        redis.wait_until_up().await;
        redis
    }

    /// Kills the server (`kill -9`).
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Deletes the data of a killed server.
    pub fn lose_data(&self) {
        fs::remove_dir_all(self.folder.join("appendonlydir")).unwrap();
    }

    pub async fn start_again(&mut self) {
        self.start_loading();
        self.wait_until_up().await;
    }

    /// Restarts the server without waiting until it has loaded its data.
    pub fn start_loading(&mut self) {
        self.process = spawn(&self.folder);
    }

    pub fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// The response to a command, or the error. For a server that may not answer: it waits for two seconds.
    pub fn ask(&self, command: &[&str]) -> Result<String, String> {
        redis_cli(self.port, command)
    }

    /// Executes a command that has to succeed, however long it takes.
    pub fn tell(&self, command: &[&str]) {
        let told = run("redis-cli", &[&["-e", "-p", &self.port.to_string()][..], command].concat());
        told.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    }

    /// A field of `INFO replication`, for example `role` or `master_link_status`.
    pub fn info(&self, field: &str) -> Option<String> {
        let info = self.ask(&["INFO", "replication"]).ok()?;
        let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.map(|value| value.trim().to_owned())
    }

    async fn wait_until_up(&self) {
        wait_until("Redis is up", async || self.ask(&["PING"]).is_ok_and(|answer| answer == "PONG")).await;
    }
}

fn spawn(folder: &Path) -> Process {
    Process::start("redis", folder, None, Path::new("redis-server"), |command| {
        command.arg("redis.conf");
    })
}

/// Sends a command to the server at `port`. An error response is an `Err`.
pub fn redis_cli(port: u16, command: &[&str]) -> Result<String, String> {
    // A stopped server accepts connections, but does not answer.
    let port = port.to_string();
    run("timeout", &[&["2", "redis-cli", "-e", "-p", &port][..], command].concat())
}
