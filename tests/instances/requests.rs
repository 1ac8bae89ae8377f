//! A measurement: how many requests with an access token Hallpass serves, and how fast, compared with what a user would
//! write instead. Nothing is asserted; `make bench` prints the figures.
//!
//! The peers are an axum route that checks nothing, the same with a check of the token's signature, and the same with
//! a command to Redis for each request. All of them answer the same JSON, with the allocator of Hallpass, on as many
//! threads. wrk is the load generator, in rounds that alternate between all of them.

use std::{fs, net::Ipv4Addr, path::Path, process::Command, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use mimalloc::MiMalloc;
use redis::{AsyncCommands, Client, aio::MultiplexedConnection};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime};

use crate::{
    client::{Api, Pair},
    support::{
        instance::{KEY, prepare_folder},
        link::Link,
        process::{Process, free_port, run, wait_until},
        world::{Kind, World},
    },
};

/// The allocator of the peers is that of Hallpass.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The rounds of each server with each load.
pub const ROUNDS: usize = 3;

const SECONDS_OF_A_ROUND: u32 = 4;

/// The delay of the link to Redis, in each direction: less than that would be a fraction of a tick of the timer.
const DELAY: Duration = Duration::from_millis(1);

const ANN: &str = "ann@example.com";

#[test]
#[ignore = "a measurement"]
fn figures_of_requests_beside_peers() {
    let worlds = Runtime::new().unwrap();
    let mut world = worlds.block_on(World::for_figures(Kind::Single, &[]));
    let redis_port = world.redis().port;
    let link = worlds.block_on(Link::to(redis_port));
    let api = Api::of(&world);
    let clustered = worlds.block_on(api.register(0, ANN));
    let single = Single::start(&worlds);
    // The peers have a runtime of their own, as they would in a process of their own.
    let peers = Runtime::new().unwrap();
    let (token, secret) = peer_token();
    let start = |check| peers.block_on(peer(check, secret));
    let redis = |port| peers.block_on(connect(port, &token));
    let nearby = [
        ("axum, no check", start(Check::Nothing), token.clone()),
        ("axum + jsonwebtoken", start(Check::Signature), token.clone()),
        ("axum + jsonwebtoken + Redis EXISTS", start(Check::Redis(redis(redis_port))), token.clone()),
        ("Hallpass, one instance, SQLite", single.url.clone(), single.pair.access.clone()),
        (
            "Hallpass, one of three, Redis, PostgreSQL",
            world.instances[0].url.clone(),
            clustered.access.clone(),
        ),
    ];
    compare("all on this machine", &nearby, 2);

    link.set(|weather| weather.delay = DELAY);
    // From here on, this instance has the link between itself and Redis, too.
    let pair = worlds.block_on(async {
        let instance = &mut world.instances[0];
        instance.set("REDIS_URL", &format!("redis://127.0.0.1:{}", link.port));
        instance.kill();
        instance.start_again();
        instance.wait_until_ready().await;
        api.login(0, ANN).await
    });
    let distant = [
        ("axum + jsonwebtoken + Redis EXISTS", start(Check::Redis(redis(link.port))), token.clone()),
        ("Hallpass, one of three, Redis, PostgreSQL", world.instances[0].url.clone(), pair.access),
    ];
    compare(&format!("{DELAY:?} each way between servers and Redis"), &distant, 0);
}

/// Prints the figures of these servers, and their ratios to the one with number `base`.
fn compare(place: &str, servers: &[(&str, String, String)], base: usize) {
    for connections in [1, 32] {
        let mut figures = vec![Vec::new(); servers.len()];
        for _ in 0..ROUNDS {
            for ((_, url, token), figures) in servers.iter().zip(&mut figures) {
                let requests =
                    format!("wrk.method = 'POST'\nwrk.headers['authorization'] = 'Bearer {token}'\n");
                figures.push(Figures::of(&format!("{url}/api/account/me"), &requests, connections));
            }
        }
        let medians: Vec<_> = figures.iter().map(|figures| Figures::median(figures)).collect();
        println!(
            "\n{place}, {connections} connections, medians of {ROUNDS} rounds of {SECONDS_OF_A_ROUND} s"
        );
        println!("{:44}{:>10}{:>10}{:>10}   of each before: requests/s", "", "req/s", "p50 us", "p99 us");
        for ((name, _, _), median) in servers.iter().zip(&medians) {
            let ratios = medians.iter().map(|other| format!("{:5.2}", median.rate / other.rate));
            let ratios = ratios.collect::<Vec<_>>().join(" ");
            println!("{name:44}{:10.0}{:10.0}{:10.0}   {ratios}", median.rate, median.p50, median.p99);
        }
        let (ours, theirs) = (&medians[medians.len() - 1], &medians[base]);
        println!("p50 of {} / p50 of the last: {:.1}", servers[base].0, theirs.p50 / ours.p50);
    }
}

/// The result of one round.
#[derive(Debug, Clone)]
pub struct Figures {
    /// Requests per second.
    pub rate: f64,
    /// The median of the latency in microseconds.
    pub p50: f64,
    pub p99: f64,
}

impl Figures {
    /// Sends requests to this URL for the time of a round. `requests` are lines of Lua that say what wrk sends.
    pub fn of(url: &str, requests: &str, connections: u32) -> Self {
        let folder = TempDir::new().unwrap();
        let script = folder.path().join("requests.lua");
        let text = format!(
            "{requests}done = function(summary, latency)\n\
             local e = summary.errors\n\
             print('figures', summary.requests / summary.duration * 1e6, latency:percentile(50), \
             latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout)\nend\n"
        );
        fs::write(&script, text).unwrap();
        let (connections, duration) = (connections.to_string(), format!("{SECONDS_OF_A_ROUND}s"));
        let script = script.display().to_string();
        let printed =
            run("wrk", &["-t", "1", "-c", &connections, "-d", &duration, "-s", &script, url]).unwrap();
        let line = printed.lines().find_map(|line| line.strip_prefix("figures")).unwrap();
        let numbers: Vec<f64> = line.split_whitespace().map(|number| number.parse().unwrap()).collect();
        let [rate, p50, p99, errors] = numbers[..] else { panic!("{line}") };
        assert_eq!(errors, 0.0, "{url}: {printed}");
        Self { rate, p50, p99 }
    }

    pub fn median(figures: &[Self]) -> Self {
        let median = |figure: fn(&Self) -> f64| {
            let mut sorted: Vec<_> = figures.iter().map(figure).collect();
            sorted.sort_by(f64::total_cmp);
            sorted[sorted.len() / 2]
        };
        Self { rate: median(|one| one.rate), p50: median(|one| one.p50), p99: median(|one| one.p99) }
    }
}

/// One instance that shares nothing, with SQLite.
struct Single {
    url: String,
    pair: Pair,
    _process: Process,
    _folder: TempDir,
}

impl Single {
    fn start(runtime: &Runtime) -> Self {
        let folder = TempDir::new().unwrap();
        prepare_folder(folder.path());
        let address = format!("127.0.0.1:{}", free_port());
        let program = Path::new(env!("CARGO_BIN_EXE_hallpass"));
        let settings = |command: &mut Command| {
            command.env("LEPTOS_SITE_ADDR", &address).env("HALLPASS_SIGNING_KEY", KEY);
            command.env("DATABASE_URL", "sqlite://hallpass.db");
        };
        let process = Process::start("hallpass", folder.path(), None, program, settings);
        let url = format!("http://{address}");
        let api = Api::at(&url);
        let pair = runtime.block_on(async {
            wait_until("the instance answers", async || api.is_ready(0).await).await;
            api.register(0, ANN).await
        });
        Self { url, pair, _process: process, _folder: folder }
    }
}

/// The check of each request by a peer.
#[derive(Clone)]
pub enum Check {
    Nothing,
    Signature,
    Redis(MultiplexedConnection),
}

struct Peer {
    check: Check,
    key: DecodingKey,
    validation: Validation,
}

#[derive(Clone, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    sid: String,
    jti: String,
    email: String,
    role: String,
    iat: i64,
    exp: i64,
}

/// The answer of all servers.
#[derive(Serialize)]
struct Account {
    sub: String,
    email: String,
    sid: String,
    jti: String,
    exp: i64,
    role: String,
}

impl From<Claims> for Account {
    fn from(Claims { sub, email, sid, jti, exp, role, .. }: Claims) -> Self {
        Self { sub, email, sid, jti, exp, role }
    }
}

fn claims() -> Claims {
    let now = hallpass::server::clock::now();
    let id = || "AAAAAAAAAAAAAAAAAAAAAA".to_owned();
    let (sub, sid, jti) = (id(), id(), id());
    let (iss, aud) = ("peer".to_owned(), "peer".to_owned());
    Claims { iss, aud, sub, sid, jti, email: ANN.into(), role: "user".into(), iat: now, exp: now + 3600 }
}

pub fn peer_token() -> (String, &'static [u8]) {
    let secret = b"0123456789abcdefghijklmnopqrstuv";
    let key = EncodingKey::from_secret(secret);
    (jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(), &key).unwrap(), secret)
}

pub async fn connect(port: u16, token: &str) -> MultiplexedConnection {
    let client = Client::open(format!("redis://127.0.0.1:{port}")).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let _: () = redis.set(format!("live:{}", claims().jti), token.len()).await.unwrap();
    redis
}

/// Starts a peer, which answers at every path. Returns its URL.
pub async fn peer(check: Check, secret: &[u8]) -> String {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_issuer(&["peer"]);
    validation.set_audience(&["peer"]);
    let peer = Arc::new(Peer { check, key: DecodingKey::from_secret(secret), validation });
    let app = Router::new().fallback(me).with_state(peer);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    url
}

async fn me(State(peer): State<Arc<Peer>>, headers: HeaderMap) -> Result<Json<Account>, StatusCode> {
    if matches!(peer.check, Check::Nothing) {
        return Ok(Json(claims().into()));
    }
    let bearer = headers.get("authorization").and_then(|value| value.to_str().ok());
    let token = bearer.and_then(|value| value.strip_prefix("Bearer ")).ok_or(StatusCode::UNAUTHORIZED)?;
    #[expect(clippy::disallowed_methods, reason = "a peer")]
    let decoded = jsonwebtoken::decode::<Claims>(token, &peer.key, &peer.validation);
    let claims = decoded.map_err(|_| StatusCode::UNAUTHORIZED)?.claims;
    if let Check::Redis(redis) = &peer.check {
        let exists: bool = redis.clone().exists(format!("live:{}", claims.jti)).await.unwrap();
        if !exists {
            return Err(StatusCode::UNAUTHORIZED);
        }
    }
    Ok(Json(claims.into()))
}
