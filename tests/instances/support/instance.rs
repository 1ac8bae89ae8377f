//! One `hallpass` process, with the same address in every run, and its links to other processes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use reqwest::Client;
use serde_json::{Value, json};

use crate::support::{
    clock::{Clock, Step},
    link::Link,
    postgres::Postgres,
    process::{Process, comes_true, free_port, run, wait_until},
    world::Store,
};

/// The signing key of all instances. Not zeros: HMAC treats a key of zeros as an empty one.
pub const KEY: &str = "KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio";

/// The grace in which a refresh can be repeated if its response was lost.
pub const GRACE: Duration = Duration::from_mins(1);

/// The socket of the gate of an instance, in its folder.
pub const GATE: &str = "gate.sock";

/// The timeout of one request.
const ANSWER: Duration = Duration::from_secs(20);

pub struct Instance {
    pub url: String,
    pub clock: Arc<Clock>,
    /// `None` if the instance connects to Redis without a link.
    redis: Option<Link>,
    /// The links to the Sentinels, if there are any.
    pub sentinels: Vec<Link>,
    pub sql: Link,
    folder: PathBuf,
    settings: Vec<(&'static str, String)>,
    process: Process,
    /// The length of the output of earlier runs.
    printed_before: usize,
    http: Client,
}

impl Instance {
    /// Starts an instance with these settings in addition to the usual ones. `FOLDER` in a value stands for the folder
    /// of the instance.
    pub async fn start(
        number: usize,
        folder: &Path,
        postgres: &Postgres,
        store: &Store,
        links: bool,
        more: &[(&'static str, &str)],
    ) -> Self {
        let folder = folder.join(format!("instance-{number}"));
        prepare_folder(&folder);

        let sql = Link::to(postgres.port).await;
        let redis = match store {
            Store::Single(redis) if links => Some(Link::to(redis.port).await),
            _ => None,
        };
        let mut sentinels = Vec::new();
        let redis_url = match (&redis, store) {
            (Some(link), _) => format!("redis://127.0.0.1:{}", link.port),
            (None, Store::Sentinel(sentinel)) if links => {
                for port in &sentinel.ports {
                    sentinels.push(Link::to(*port).await);
                }
                let ports: Vec<_> = sentinels.iter().map(|link| link.port).collect();
                sentinel.url_by("", &ports)
            }
            (None, _) => store.url(),
        };
        let address = format!("127.0.0.1:{}", free_port());
        let mut settings = vec![
            ("LEPTOS_SITE_ADDR", address.clone()),
            ("DATABASE_URL", postgres.url_of(if links { sql.port } else { postgres.port }, number)),
            ("REDIS_URL", redis_url),
            ("HALLPASS_INSTANCE", format!("instance-{number}")),
            ("HALLPASS_SIGNING_KEY", KEY.into()),
            ("HALLPASS_REFRESH_GRACE", GRACE.as_secs().to_string()),
            ("HALLPASS_ARGON2_MEMORY", "64".into()),
            ("HALLPASS_ARGON2_ITERATIONS", "1".into()),
            ("HALLPASS_PASSWORD_QUEUE", "100000".into()),
            ("HALLPASS_LOGIN_ATTEMPTS_PER_ACCOUNT", "1000000".into()),
            ("HALLPASS_LOGIN_ATTEMPTS_PER_ADDRESS", "1000000".into()),
            ("HALLPASS_LOGIN_ATTEMPTS_PER_DEVICE", "1000000".into()),
            ("HALLPASS_REFRESHES_PER_SESSION", "1000000".into()),
            ("HALLPASS_ADMIN_SECOND_FACTOR", "false".into()),
        ];
        settings.extend(store.settings());
        let own = |value: &str| value.replace("FOLDER", folder.to_str().unwrap());
        settings.extend(more.iter().map(|(name, value)| (*name, own(value))));
        let clock = Arc::new(if links { Clock::new(&folder) } else { Clock::of_the_system() });
        let process = spawn(&folder, &settings, &clock);
        Self {
            url: format!("http://{address}"),
            clock,
            redis,
            sentinels,
            sql,
            folder,
            settings,
            process,
            printed_before: 0,
            http: Client::new(),
        }
    }

    /// Kills the process (`kill -9`).
    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub fn start_again(&mut self) {
        self.printed_before = self.process.printed().len();
        self.process = spawn(&self.folder, &self.settings, &self.clock);
    }

    /// Changes a setting; it applies from the next start on.
    pub fn set(&mut self, name: &'static str, value: &str) {
        self.settings.push((name, value.to_owned()));
    }

    /// Puts a file into the built site; it applies from the next start on.
    pub fn build_site_file(&self, name: &str, contents: &[u8]) {
        fs::write(self.folder.join("site/pkg").join(name), contents).unwrap();
    }

    /// Sends SIGTERM and waits for the end of the process. Returns false if the process had to be killed
    /// because it did not end.
    pub async fn stop(&mut self) -> bool {
        self.process.signal("TERM");
        let has_ended = comes_true(async || !self.process.is_running()).await;
        if !has_ended {
            self.process.kill();
        }
        has_ended
    }

    /// Waits until the instance is ready or has ended. Returns whether it is ready.
    pub async fn settle(&mut self) -> bool {
        let url = format!("{}/health/ready", self.url);
        let mut is_ready = false;
        wait_until(&format!("{url} answers 200, or it has ended"), async || {
            let answer = self.http.get(&url).timeout(ANSWER).send().await;
            is_ready = answer.is_ok_and(|answer| answer.status() == 200);
            is_ready || !self.process.is_running()
        })
        .await;
        is_ready
    }

    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// The output since the last start.
    pub fn printed(&self) -> String {
        self.process.printed().get(self.printed_before..).unwrap_or_default().to_owned()
    }

    /// The numbers of open files and of threads.
    pub fn holds(&self) -> (usize, usize) {
        (self.process.count("fd"), self.process.count("task"))
    }

    pub fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// The program with the same settings, for commands.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
        command.current_dir(&self.folder).stdin(Stdio::null());
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The resident memory of the process, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.process.resident_bytes()
    }

    /// The socket of the gate, in a world for faults.
    pub fn gate(&self) -> PathBuf {
        self.folder.join(GATE)
    }

    /// The link to Redis, if there is exactly one.
    pub fn redis(&self) -> &Link {
        self.redis.as_ref().expect("the way to Redis is not ours")
    }

    /// Steps the wall clock, and waits until the instance uses the new time.
    pub async fn set_clock(&self, step: Step) {
        self.clock.set(step);
        // On a slow machine it takes some seconds to read both clocks.
        let tolerance = if step.seconds() == 0 { 60 } else { (step.seconds().abs() / 2).min(60) };
        wait_until("the wall clock has been stepped", async || {
            let here: i64 = run("date", &["+%s"]).unwrap().parse().unwrap();
            self.time().await.is_some_and(|there| (there - here - step.seconds()).abs() < tolerance)
        })
        .await;
    }

    /// The time by the wall clock of the instance, which is part of the response to a registration.
    async fn time(&self) -> Option<i64> {
        let email = format!("clock-{}@faults.example", fastrand::u64(..));
        let body = json!({ "email": email, "password": "correct horse battery" });
        let request = self.http.post(format!("{}/api/auth/register", self.url)).json(&body);
        let answer: Value = request.timeout(ANSWER).send().await.ok()?.json().await.ok()?;
        answer["server_time"].as_i64()
    }

    /// Waits until the instance has a lease and a database connection.
    pub async fn wait_until_ready(&mut self) {
        let url = format!("{}/health/ready", self.url);
        wait_until(&format!("{url} answers 200"), async || {
            assert!(self.process.is_running(), "{url} has ended:\n{}", self.process.last_words());
            let answer = self.http.get(&url).timeout(ANSWER).send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
    }
}

/// Makes a key in this folder, and returns its id.
pub fn make_key(folder: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
    let output = command.args(["keys", "new"]).env("HALLPASS_KEYS", folder).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Puts into a folder what the program needs in the one that it starts from: the settings and a site.
pub fn prepare_folder(folder: &Path) {
    fs::create_dir_all(folder.join("site/pkg")).unwrap();
    let text = "[package.metadata.leptos]\noutput-name = \"hallpass\"\nsite-root = \"site\"\n";
    fs::write(folder.join("Leptos.toml"), text).unwrap();
}

fn spawn(folder: &Path, settings: &[(&str, String)], clock: &Clock) -> Process {
    let program = Path::new(env!("CARGO_BIN_EXE_hallpass"));
    Process::start("hallpass", folder, None, program, |command| {
        command.envs(settings.iter().map(|(name, value)| (name, value)));
        clock.give_to(command);
    })
}
