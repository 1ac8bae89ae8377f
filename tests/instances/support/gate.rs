//! `hallpass gate`: an instance without pages and login, beside an API.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use reqwest::{Client, RequestBuilder};

use crate::support::{
    link::Link,
    process::{Process, wait_until},
    world::World,
};

/// Where a gate listens.
#[derive(Clone)]
pub enum Address {
    Port(u16),
    Socket(PathBuf),
}

/// A process that only answers proxies, and its links to Redis and to PostgreSQL.
pub struct Gate {
    pub process: Process,
    address: Address,
    /// `None` if there is more than one server to connect to.
    redis: Option<Link>,
    pub sql: Link,
    folder: PathBuf,
    settings: Vec<(OsString, OsString)>,
}

impl Gate {
    /// Starts a gate with the settings of an instance, and waits until it is ready.
    pub async fn start(world: &World, address: Address) -> Self {
        let sql = Link::to(world.postgres.port).await;
        let (redis, redis_url) = world.store.linked().await;
        let command = world.instances[0].command();
        let folder = command.get_current_dir().unwrap().to_owned();
        let mut settings: Vec<(OsString, OsString)> =
            command.get_envs().filter_map(|(name, value)| Some((name.into(), value?.into()))).collect();
        let address_text = match &address {
            Address::Port(port) => format!("127.0.0.1:{port}"),
            Address::Socket(path) => format!("unix:{}", path.display()),
        };
        let own = [
            ("HALLPASS_GATE_ADDR", address_text),
            ("HALLPASS_INSTANCE", "gate".to_owned()),
            ("REDIS_URL", redis_url),
            ("DATABASE_URL", world.postgres.url(sql.port)),
        ];
        settings.extend(own.map(|(name, value)| (name.into(), value.into())));
        let process = spawn(&folder, &settings);
        let mut gate = Self { process, address, redis, sql, folder, settings };
        gate.wait_until_ready().await;
        gate
    }

    pub fn start_again(&mut self) {
        self.process = spawn(&self.folder, &self.settings);
    }

    /// The link to Redis, if there is exactly one server.
    pub fn redis(&self) -> &Link {
        self.redis.as_ref().expect("there are several servers")
    }

    /// The socket at which it listens, if it is one.
    pub fn socket(&self) -> Option<&Path> {
        match &self.address {
            Address::Socket(path) => Some(path),
            Address::Port(_) => None,
        }
    }

    /// All its links.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.redis.iter().chain([&self.sql])
    }

    /// The status for a request with this access token; 0 if the gate does not answer.
    pub async fn ask(&self, access: &str) -> u16 {
        let asked = self.get("/gate/forward").bearer_auth(access).send().await;
        asked.map_or(0, |answered| answered.status().as_u16())
    }

    /// A request on a connection of its own: a killed process leaves none that could be used.
    pub fn get(&self, path: &str) -> RequestBuilder {
        match &self.address {
            Address::Port(port) => Client::new().get(format!("http://127.0.0.1:{port}{path}")),
            Address::Socket(socket) => {
                let client = Client::builder().unix_socket(socket.clone()).build().unwrap();
                client.get(format!("http://gate{path}"))
            }
        }
    }

    pub async fn is_ready(&self) -> bool {
        let asked = self.get("/health/ready").send().await;
        asked.is_ok_and(|answered| answered.status() == 200)
    }

    pub async fn wait_until_ready(&mut self) {
        wait_until("the gate is ready", async || {
            assert!(self.process.is_running(), "it has ended:\n{}", self.process.last_words());
            self.is_ready().await
        })
        .await;
    }
}

fn spawn(folder: &Path, settings: &[(OsString, OsString)]) -> Process {
    Process::start("gate", folder, None, Path::new(env!("CARGO_BIN_EXE_hallpass")), |gate| {
        gate.arg("gate").envs(settings.iter().map(|(name, value)| (name, value)));
    })
}
