//! One `hallpass` process, reached at the same address whenever it runs, and its links to the rest
//! of the world.

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
    process::{Process, free_port, run, wait_until},
    world::Store,
};

/// The same for all instances. Not zeros: HMAC takes those for an empty key.
const KEY: &str = "KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio";

/// How long a refresh whose answer was lost may be tried again.
pub const GRACE: Duration = Duration::from_secs(60);

/// How long one question may take.
const ANSWER: Duration = Duration::from_secs(2);

pub struct Instance {
    pub url: String,
    pub clock: Arc<Clock>,
    /// None where the instance finds its way to Redis by itself.
    redis: Option<Link>,
    pub sql: Link,
    folder: PathBuf,
    settings: Vec<(&'static str, String)>,
    process: Process,
    http: Client,
}

impl Instance {
    pub async fn start(
        number: usize,
        folder: &Path,
        postgres: &Postgres,
        store: &Store,
        links: bool,
        more: &[(&'static str, &str)],
    ) -> Self {
        let folder = folder.join(format!("instance-{number}"));
        fs::create_dir_all(folder.join("site/pkg")).unwrap();
        let text = "[package.metadata.leptos]\noutput-name = \"hallpass\"\nsite-root = \"site\"\n";
        fs::write(folder.join("Leptos.toml"), text).unwrap();

        let sql = Link::to(postgres.port).await;
        let redis = match store {
            Store::Single(redis) if links => Some(Link::to(redis.port).await),
            _ => None,
        };
        let redis_url = match &redis {
            Some(link) => format!("redis://127.0.0.1:{}", link.port),
            None => store.url(),
        };
        let address = format!("127.0.0.1:{}", free_port());
        let mut settings = vec![
            ("LEPTOS_SITE_ADDR", address.clone()),
            ("DATABASE_URL", postgres.url(if links { sql.port } else { postgres.port })),
            ("REDIS_URL", redis_url),
            ("HALLPASS_INSTANCE", format!("instance-{number}")),
            ("HALLPASS_SIGNING_KEY", KEY.into()),
            ("HALLPASS_REFRESH_GRACE", GRACE.as_secs().to_string()),
            ("HALLPASS_ARGON2_MEMORY", "64".into()),
            ("HALLPASS_ARGON2_ITERATIONS", "1".into()),
            ("HALLPASS_PASSWORD_QUEUE", "100000".into()),
            ("HALLPASS_TRIES_PER_ACCOUNT", "1000000".into()),
            ("HALLPASS_TRIES_PER_ADDRESS", "1000000".into()),
            ("HALLPASS_TRIES_PER_DEVICE", "1000000".into()),
            ("HALLPASS_REFRESHES_PER_SESSION", "1000000".into()),
        ];
        settings.extend(store.settings());
        settings.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let clock = Arc::new(Clock::new(&folder));
        let process = spawn(&folder, &settings, &clock);
        Self {
            url: format!("http://{address}"),
            clock,
            redis,
            sql,
            folder,
            settings,
            process,
            http: Client::new(),
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub fn start_again(&mut self) {
        self.process = spawn(&self.folder, &self.settings, &self.clock);
    }

    pub fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// The program with the same settings, for its command line.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
        command.current_dir(&self.folder).stdin(Stdio::null());
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }

    /// How much memory it takes.
    pub fn resident_bytes(&self) -> u64 {
        self.process.resident_bytes()
    }

    /// Its way to Redis, where there is only one.
    pub fn redis(&self) -> &Link {
        self.redis.as_ref().expect("the way to Redis is not ours")
    }

    /// Sets its wall clock, and waits until it shows.
    pub async fn set_clock(&self, step: Step) {
        self.clock.set(step);
        wait_until("the wall clock has been stepped", async || {
            let here: i64 = run("date", &["+%s"]).unwrap().parse().unwrap();
            self.time().await.is_some_and(|there| (there - here - step.seconds()).abs() < 60)
        })
        .await;
    }

    /// What its wall clock shows. It tells whoever registers.
    async fn time(&self) -> Option<i64> {
        let email = format!("clock-{}@faults.example", fastrand::u64(..));
        let body = json!({ "email": email, "password": "correct horse battery" });
        let request = self.http.post(format!("{}/api/auth/register", self.url)).json(&body);
        let answer: Value = request.timeout(ANSWER).send().await.ok()?.json().await.ok()?;
        answer["server_time"].as_i64()
    }

    /// Waits until it has a lease and a database.
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

fn spawn(folder: &Path, settings: &[(&str, String)], clock: &Clock) -> Process {
    let program = Path::new(env!("CARGO_BIN_EXE_hallpass"));
    Process::start("hallpass", folder, None, program, |command| {
        command.envs(settings.iter().map(|(name, value)| (name, value)));
        clock.give_to(command);
    })
}
