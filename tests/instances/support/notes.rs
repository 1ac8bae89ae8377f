//! The example of `hallpass-guard`: a service of its own that accepts the access tokens of the instances.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use reqwest::{Client, RequestBuilder};

use crate::support::{
    clock::Clock,
    instance::Instance,
    link::Link,
    process::{Process, free_port, run, wait_until},
    world::World,
};

/// The id and the secret of a client, which is made by the command line.
#[derive(Clone)]
pub struct Credentials {
    pub id: String,
    pub secret: String,
}

impl Credentials {
    pub fn of_new_client(instance: &Instance) -> Self {
        Self::of_client_added_with(instance, &["notes"])
    }

    pub fn of_client_added_with(instance: &Instance, arguments: &[&str]) -> Self {
        let output = instance.command().args(["client", "add"]).args(arguments).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_else(|| panic!("no {name} in {text:?}")).to_owned()
        };
        Self { id: value("client_id"), secret: value("client_secret") }
    }
}

/// A process with a guard, and its links to Redis and to an instance.
pub struct Notes {
    pub url: String,
    pub hallpass: Link,
    /// `None` if there is more than one server to connect to.
    redis: Option<Link>,
    pub clock: Clock,
    pub process: Process,
    folder: PathBuf,
    settings: Vec<(&'static str, String)>,
}

impl Notes {
    /// Starts it and waits until it is ready. `instance` is the one that it asks.
    pub async fn start(world: &World, name: &str, instance: usize, client: &Credentials) -> Self {
        let mut notes = Self::begin(world, name, instance, client, &[]).await;
        notes.wait_until_ready().await;
        notes
    }

    /// Starts it with further settings.
    pub async fn begin(
        world: &World,
        name: &str,
        instance: usize,
        client: &Credentials,
        settings: &[(&'static str, &str)],
    ) -> Self {
        let folder = world.folder().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let port = |url: &str| url.rsplit(':').next().unwrap().parse().unwrap();
        let hallpass = Link::to(port(&world.instances[instance].url)).await;
        let (redis, redis_url) = world.store.linked().await;
        let address = format!("127.0.0.1:{}", free_port());
        let mut all = vec![
            ("HALLPASS_URL", format!("http://127.0.0.1:{}", hallpass.port)),
            ("REDIS_URL", redis_url),
            ("CLIENT_ID", client.id.clone()),
            ("CLIENT_SECRET", client.secret.clone()),
            ("NAME", name.to_owned()),
            ("ADDRESS", address.clone()),
            ("RUST_LOG", "info".to_owned()),
        ];
        all.extend(settings.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let clock = Clock::new(&folder);
        let process = spawn(&folder, &all, &clock);
        Self { url: format!("http://{address}"), hallpass, redis, clock, process, folder, settings: all }
    }

    pub fn start_again(&mut self) {
        self.process = spawn(&self.folder, &self.settings, &self.clock);
    }

    /// The link to Redis, if there is exactly one server.
    pub fn redis(&self) -> &Link {
        self.redis.as_ref().expect("there are several servers")
    }

    /// All its links.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.redis.iter().chain([&self.hallpass])
    }

    /// A request with this access token.
    pub fn request(&self, access: &str) -> RequestBuilder {
        self.get("/notes").bearer_auth(access)
    }

    /// The status for a request with this access token; 0 if there is no answer.
    pub async fn ask(&self, access: &str) -> u16 {
        self.request(access).send().await.map_or(0, |answered| answered.status().as_u16())
    }

    /// A request on a connection of its own: a killed process leaves none that could be used.
    pub fn get(&self, path: &str) -> RequestBuilder {
        Client::new().get(format!("{}{path}", self.url))
    }

    pub async fn is_ready(&self) -> bool {
        let asked = self.get("/health/ready").send().await;
        asked.is_ok_and(|answered| answered.status() == 200)
    }

    pub async fn wait_until_ready(&mut self) {
        wait_until("the notes are ready", async || {
            assert!(self.process.is_running(), "it has ended:\n{}", self.process.last_words());
            self.is_ready().await
        })
        .await;
    }
}

fn spawn(folder: &Path, settings: &[(&str, String)], clock: &Clock) -> Process {
    Process::start("notes", folder, None, program(), |command: &mut Command| {
        command.envs(settings.iter().map(|(name, value)| (name, value)));
        clock.give_to(command);
    })
}

/// The program, built with the profile of the tests.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let mut arguments = vec!["build", "--quiet", "--package", "hallpass-guard", "--example", "notes"];
        if !cfg!(debug_assertions) {
            arguments.push("--release");
        }
        run(env!("CARGO"), &arguments).unwrap();
        let tests = env::current_exe().unwrap();
        tests.parent().and_then(Path::parent).unwrap().join("examples/notes")
    })
}
