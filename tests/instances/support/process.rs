//! A program in a process group of its own, with its output in a file. It is killed with all its children
//! when dropped, and also when the thread that started it ends in any other way.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use tokio::time;

/// The timeout of everything that has to happen: long enough for any machine.
pub const PATIENCE: Duration = Duration::from_mins(5);

/// The time within which an instance has to recover, or to end, on its own.
pub const RECOVERY: Duration = Duration::from_mins(1);

pub struct Process {
    pub name: String,
    pub log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `program` as `user`, or as the user that runs the test. Its output is appended to
    /// `folder/name.log`.
    ///
    /// The calling thread must outlive the process: the system kills the process when the thread ends, so
    /// that even a killed test leaves no server behind.
    pub fn start(
        name: &str,
        folder: &Path,
        user: Option<&str>,
        program: &Path,
        set: impl FnOnce(&mut Command),
    ) -> Self {
        let log = folder.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log).unwrap();
        let mut command = Command::new("setpriv");
        if let Some(user) = user {
            // A second `setpriv`, because changing the user clears the parent-death signal.
            command.args(["--reuid", user, "--regid", user, "--clear-groups", "--", "setpriv"]);
        }
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).current_dir(folder).process_group(0);
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        set(&mut command);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        Self { name: name.to_owned(), log, child }
    }

    /// Sends the process a signal, for example `STOP` or `CONT`.
    pub fn signal(&self, signal: &str) {
        self.signal_to(signal, &self.child.id().to_string());
    }

    /// Sends the process and its children a signal, in whatever process groups they are.
    pub fn signal_all(&self, signal: &str) {
        let id = self.child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        for child in children.split_whitespace() {
            // The child may have ended by now.
            let _ = Command::new("kill").args(["-s", signal, child]).stderr(Stdio::null()).status();
        }
        self.signal(signal);
    }

    /// Kills the process (`kill -9`) and waits until it has ended.
    pub fn kill(&mut self) {
        self.signal_to("KILL", &format!("-{}", self.child.id()));
        self.child.wait().unwrap();
    }

    fn signal_to(&self, signal: &str, whom: &str) {
        let sent = Command::new("kill").args(["-s", signal, "--", whom]).stderr(Stdio::null()).status();
        assert!(sent.unwrap().success(), "{} has ended by itself: {}", self.name, self.last_words());
    }

    /// The resident memory of the process, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        resident_bytes(&self.child.id().to_string())
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The number of entries in a folder of the process in /proc: `fd`, `task`.
    pub fn count(&self, folder: &str) -> usize {
        fs::read_dir(format!("/proc/{}/{folder}", self.child.id())).map_or(0, Iterator::count)
    }

    /// The output of the process.
    pub fn printed(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines of the output.
    pub fn last_words(&self) -> String {
        let text = self.printed();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let group = format!("-{}", self.child.id());
            let _ = Command::new("kill").args(["-s", "KILL", "--", &group]).status();
            let _ = self.child.wait();
        }
    }
}

/// The resident memory of a process, in bytes, by its entry in /proc.
pub fn resident_bytes(process: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes: u64 = line.trim_end_matches("kB").trim().parse().unwrap();
    kilobytes * 1024
}

/// Runs a program to its end. Returns its output, or the reason why it failed.
pub fn run(program: impl AsRef<Path>, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program.as_ref()).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{} cannot be run: {error}", program.as_ref().display()))?;
    let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!("{}: {text} {}", output.status, String::from_utf8_lossy(&output.stderr)))
    }
}

/// A port that nobody listens on, below the range that the system assigns to clients, so that it stays free
/// for a server that restarts. The port 10,000 above is free as well, for the bus of a Redis Cluster node.
pub fn free_port() -> u16 {
    const FIRST: u16 = 11_000;
    const COUNT: u16 = 10_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let offset = (process::id().wrapping_mul(97) % u32::from(COUNT)) as u16;
    let is_free = |port: &u16| {
        [*port, port + 10_000].iter().all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
    };
    let mut ports = (0..COUNT).map(|_| FIRST + (offset + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT);
    ports.find(is_free).expect("all ports are taken")
}

/// Polls until the condition is true. Returns false after the longest time that a recovery may take.
pub async fn comes_true(mut is_so: impl AsyncFnMut() -> bool) -> bool {
    let begin = Instant::now();
    while !is_so().await {
        if begin.elapsed() > RECOVERY {
            return false;
        }
        time::sleep(Duration::from_millis(20)).await;
    }
    true
}

/// Polls until the condition is true. `what` completes the sentence "waited in vain until".
pub async fn wait_until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !is_so().await {
        assert!(begin.elapsed() < PATIENCE, "waited in vain until {what}");
        time::sleep(Duration::from_millis(20)).await;
    }
}
