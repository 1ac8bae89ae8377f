//! `hallpass gate`: a process that only answers proxies, beside three instances.

use std::path::{Path, PathBuf};

use reqwest::{Client, RequestBuilder};

use crate::{
    client::{Api, Pair},
    support::{
        link::Link,
        process::{Process, wait_until},
        world::{Kind, World},
    },
};

const ANN: &str = "ann@example.com";

/// Where a gate listens.
#[derive(Clone)]
pub enum Address {
    Port(u16),
    Socket(PathBuf),
}

pub struct Gate {
    pub process: Process,
    address: Address,
    pub redis: Link,
    pub sql: Link,
}

impl Gate {
    /// Starts a gate with the settings of an instance and links of its own, and waits until it is ready.
    pub async fn start(world: &mut World, address: Address) -> Self {
        let redis = Link::to(world.redis().port).await;
        let sql = Link::to(world.postgres.port).await;
        let process = Self::spawn(world, &address, &redis, &sql);
        let gate = Self { process, address, redis, sql };
        gate.wait_until_ready().await;
        gate
    }

    fn spawn(world: &World, address: &Address, redis: &Link, sql: &Link) -> Process {
        let command = world.instances[0].command();
        let folder = command.get_current_dir().unwrap().to_owned();
        let address = match address {
            Address::Port(port) => format!("127.0.0.1:{port}"),
            Address::Socket(path) => format!("unix:{}", path.display()),
        };
        Process::start("gate", &folder, None, Path::new(env!("CARGO_BIN_EXE_hallpass")), |gate| {
            gate.arg("gate").envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            gate.env("HALLPASS_GATE_ADDR", address).env_remove("HALLPASS_INSTANCE");
            gate.env("REDIS_URL", format!("redis://127.0.0.1:{}", redis.port));
            gate.env("DATABASE_URL", world.postgres.url(sql.port));
        })
    }

    /// The status for a request with this token; 0 if the gate does not answer.
    async fn ask(&self, pair: &Pair) -> u16 {
        let asked = self.get("/gate/forward").bearer_auth(&pair.access).send().await;
        asked.map_or(0, |answered| answered.status().as_u16())
    }

    /// A request on a connection of its own: a killed process leaves none that could be used.
    fn get(&self, path: &str) -> RequestBuilder {
        match &self.address {
            Address::Port(port) => Client::new().get(format!("http://127.0.0.1:{port}{path}")),
            Address::Socket(socket) => {
                let client = Client::builder().unix_socket(socket.clone()).build().unwrap();
                client.get(format!("http://gate{path}"))
            }
        }
    }

    async fn wait_until_ready(&self) {
        wait_until("the gate is ready", async || {
            let asked = self.get("/health/ready").send().await;
            asked.is_ok_and(|answered| answered.status() == 200)
        })
        .await;
    }
}

fn at_socket(world: &World) -> Address {
    Address::Socket(world.folder().join("gate.sock"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn gate_of_its_own_admits_nothing_that_a_logout_has_ended() {
    let mut world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let address = at_socket(&world);
    let mut gate = Gate::start(&mut world, address).await;
    let live = api.register(0, ANN).await;
    let mut ended = Vec::new();
    for round in 0..30 {
        let pair = api.login(round % 3, ANN).await;
        assert_eq!(gate.ask(&pair).await, 200);
        let (status, answer) = api.logout((round + 1) % 3, &pair).await;
        assert_eq!((status.as_u16(), &answer["acknowledged"]), (200, &4.into()), "{answer}");
        assert_eq!(gate.ask(&pair).await, 401);
        ended.push(pair);
    }

    // While it stands still and when it is killed, it is waited for until its lease has expired.
    let pair = api.login(0, ANN).await;
    assert_eq!(gate.ask(&pair).await, 200);
    gate.process.signal("STOP");
    assert_eq!(api.logout(1, &pair).await.0, 200);
    gate.process.signal("CONT");
    assert_eq!(gate.ask(&pair).await, 401);
    ended.push(pair);
    let pair = api.login(0, ANN).await;
    gate.process.kill();
    assert_eq!(api.logout(1, &pair).await.0, 200);
    assert_eq!(gate.ask(&pair).await, 0);
    ended.push(pair);

    gate.process = Gate::spawn(&world, &gate.address, &gate.redis, &gate.sql);
    gate.wait_until_ready().await;
    assert_eq!(gate.ask(&live).await, 200);
    for pair in &ended {
        assert_eq!(gate.ask(pair).await, 401);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn gate_that_is_cut_off_admits_nothing_that_it_cannot_check() {
    let mut world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let address = at_socket(&world);
    let gate = Gate::start(&mut world, address).await;
    let live = api.register(0, ANN).await;
    let pairs = [api.login(1, ANN).await, api.login(2, ANN).await, api.login(0, ANN).await];
    for pair in &pairs {
        assert_eq!(gate.ask(pair).await, 200);
    }

    gate.redis.set(|weather| weather.cut = true);
    assert_eq!(api.logout(0, &pairs[0]).await.0, 200);
    assert_eq!((gate.ask(&pairs[0]).await, gate.ask(&live).await), (401, 200), "SQL answers without a lease");
    gate.sql.set(|weather| weather.cut = true);
    assert_eq!(api.logout(0, &pairs[1]).await.0, 200);
    for pair in [&pairs[1], &pairs[2], &live] {
        assert_eq!(gate.ask(pair).await, 503, "nobody can be asked");
    }
    gate.redis.heal();
    gate.sql.heal();
    wait_until("it admits again", async || {
        assert_ne!(gate.ask(&pairs[1]).await, 200);
        gate.ask(&live).await == 200
    })
    .await;
    assert_eq!((gate.ask(&pairs[1]).await, gate.ask(&pairs[2]).await), (401, 200));
}
