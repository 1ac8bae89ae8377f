//! Measurements: the time of a logout compared with a bare `PING` of Redis, logouts at the limit of the database,
//! the effect of an attack on users who are signed in, and the cost of a million live tokens in an instance. Nothing
//! is asserted; `make bench` prints the figures.

use std::{
    fs,
    hint::black_box,
    ops::Range,
    path::PathBuf,
    pin::pin,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use ::redis::{Client, cmd};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures::{FutureExt, StreamExt, future::join_all, stream};
use hallpass::server::{
    auth::Auth,
    clock,
    config::Config,
    db::{Access, Db},
};
use hallpass_allowlist::MemberKind;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::{
    client::{Api, PASSWORD, Pair, answer},
    support::{
        instance::KEY,
        process::resident_bytes,
        world::{Kind, World},
    },
};

const ANN: &str = "ann@example.com";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn figures_of_logout_beside_ping() {
    const ROUNDS: usize = 2000;
    let world = World::for_figures(Kind::Single, &[]).await;
    let api = Api::of(&world);
    api.register(0, ANN).await;
    api.confirm_quickly(&world).await;
    let client = Client::open(world.redis_url()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let (mut pings, mut logouts, mut counted, mut acknowledged) = (Vec::new(), Vec::new(), 0, 0);
    for round in 0..ROUNDS {
        let pair = api.login(round, ANN).await;
        let begin = Instant::now();
        cmd("PING").exec_async(&mut redis).await.unwrap();
        pings.push(begin.elapsed());
        let begin = Instant::now();
        let (status, answer) = api.logout(round, &pair).await;
        logouts.push(begin.elapsed());
        assert_eq!(status, 200);
        counted += answer["instances"].as_u64().unwrap();
        acknowledged += answer["acknowledged"].as_u64().unwrap();
    }
    println!("{ROUNDS} log-outs with three instances, {acknowledged} of {counted} acknowledgements");
    for (name, times) in [("log-out", &mut logouts), ("PING", &mut pings)] {
        println!("{name:8} p50 {:8.1?}  p99 {:8.1?}", at(times, 0.5), at(times, 0.99));
    }
    let ratio =
        |share| at(&mut logouts.clone(), share).as_secs_f64() / at(&mut pings.clone(), share).as_secs_f64();
    println!("ratio    p50 {:8.1}  p99 {:8.1}", ratio(0.5), ratio(0.99));
}

/// Logouts one, 32 and 64 at a time; beside the updates of one row that pgbench makes on the same PostgreSQL; and on
/// one instance while another one is flooded with page views.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn figures_of_logouts_at_a_time() {
    const ROUNDS: usize = 3;
    let world = World::for_figures(Kind::Single, &[]).await;
    let api = Api::of(&world);
    for number in 0..64 {
        api.register(number, &user(number)).await;
    }
    api.register(0, ANN).await;
    api.confirm_quickly(&world).await;
    world.postgres.tell(
        "create table rows (id integer primary key, n integer not null default 0); \
         insert into rows select generate_series(1, 100000)",
    );
    for round in 1..=ROUNDS {
        println!("\nround {round}");
        for (at_a_time, count) in [(1, 500), (32, 4000), (64, 4000)] {
            logouts(&api, at_a_time, count, 0..3).await.print(&format!("{at_a_time} at a time"));
        }
        // As many as the instances reserve for revocations, and more.
        for connections in [12, 32] {
            let updates = world.postgres.updates_per_second(connections);
            println!("pgbench, {connections} connections    {updates:8.0} updates/s");
        }
        for connections in [64, 512] {
            let url = format!("{}/login", world.instances[0].url);
            let flood = Flood::start(&url, connections);
            let figures = logouts(&api, 1, 300, 1..3).await;
            drop(flood);
            figures.print(&format!("one at a time, {connections} connections flood another instance"));
        }
    }
}

fn user(number: usize) -> String {
    format!("user-{number}@example.com")
}

/// The figures of logouts.
struct Logouts {
    per_second: f64,
    times: Vec<Duration>,
}

impl Logouts {
    fn print(mut self, name: &str) {
        let (p50, p99) = (at(&mut self.times, 0.5), at(&mut self.times, 0.99));
        println!("{name:64}{:8.0} logouts/s  p50 {p50:8.1?}  p99 {p99:8.1?}", self.per_second);
    }
}

/// Ends `count` sessions, `at_a_time`, on these instances in turn.
async fn logouts(api: &Api, at_a_time: usize, count: usize, on: Range<usize>) -> Logouts {
    let instance = |number: usize| on.start + number % on.len();
    let logins =
        stream::iter(0..count).map(async |number| api.login(instance(number), &user(number % 64)).await);
    let pairs: Vec<_> = logins.buffered(16).collect().await;
    let begin = Instant::now();
    let ending = stream::iter(pairs.iter().enumerate()).map(async |(number, pair)| {
        let begin = Instant::now();
        let (status, answer) = api.logout(instance(number), pair).await;
        assert_eq!(status, 200, "{answer}");
        begin.elapsed()
    });
    let times: Vec<_> = ending.buffer_unordered(at_a_time).collect().await;
    Logouts { per_second: count as f64 / begin.elapsed().as_secs_f64(), times }
}

/// wrk, which asks for a page as often as it can, until this is dropped.
struct Flood(Child);

impl Flood {
    fn start(url: &str, connections: u32) -> Self {
        let arguments = ["-t", "1", "-c", &connections.to_string(), "-d", "1h", url];
        let child = Command::new("wrk").args(arguments).stdout(Stdio::null()).spawn().unwrap();
        Self(child)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The default settings.
const DEFAULTS: [(&str, &str); 7] = [
    ("HALLPASS_ARGON2_MEMORY", "19456"),
    ("HALLPASS_ARGON2_ITERATIONS", "2"),
    ("HALLPASS_PASSWORD_QUEUE", "64"),
    ("HALLPASS_LOGIN_ATTEMPTS_PER_ACCOUNT", "100"),
    ("HALLPASS_LOGIN_ATTEMPTS_PER_ADDRESS", "60"),
    ("HALLPASS_LOGIN_ATTEMPTS_PER_DEVICE", "10"),
    ("HALLPASS_REFRESHES_PER_SESSION", "30"),
];

/// All guesses go to one instance, the worst case for users who are signed in there.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn figures_of_an_attack() {
    const GUESSES: usize = 10_000;
    const ADDRESSES: usize = 100;
    const CALLERS: usize = 50;
    const PACE: Duration = Duration::from_millis(100);
    const REQUESTS_BEFORE: usize = 10_000;
    let settings = [&DEFAULTS[..], &[("HALLPASS_TRUSTED_PROXIES", "127.0.0.1")]].concat();
    let world = World::for_figures(Kind::Single, &settings).await;
    let api = Api::of(&world);
    // In a browser, so that the device is known to the account from here on.
    let body = json!({ "email": ANN, "password": PASSWORD });
    let registered = api.post(0, "/api/auth/register").json(&body).send().await.unwrap();
    let cookies = registered.headers().get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
    let known = cookies.into_iter().find(|cookie| cookie.starts_with("hallpass-device")).unwrap();
    let known = known.split(';').next().unwrap().to_owned();
    let bob = api.register(0, "bob@example.com").await;
    let request = async || {
        let begin = Instant::now();
        assert_eq!(api.me(0, &bob).await, 200);
        begin.elapsed()
    };
    let mut before = Vec::new();
    for _ in 0..REQUESTS_BEFORE {
        before.push(request().await);
    }

    let (begin, sent) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    let attack = (0..CALLERS).map(|caller| {
        let (api, sent) = (api.clone(), Arc::clone(&sent));
        tokio::spawn(async move {
            let mut statuses = Vec::new();
            // Spread over time: on a few cores a burst would measure the attackers' own work.
            let first = begin + PACE * caller as u32 / CALLERS as u32;
            let mut pace = tokio::time::interval_at(first.into(), PACE);
            loop {
                pace.tick().await;
                let number = sent.fetch_add(1, Relaxed);
                if number >= GUESSES {
                    return statuses;
                }
                let address = format!("198.51.100.{}", number % ADDRESSES);
                let guess = api.try_login(0, ANN, "wrong password").header("x-forwarded-for", address);
                statuses.push(answer(guess).await.0.as_u16());
            }
        })
    });
    let mut attack = pin!(join_all(attack.collect::<Vec<_>>()));
    let (mut during, mut owner) = (Vec::new(), None);
    let statuses = loop {
        tokio::select! {
            statuses = &mut attack => break statuses,
            elapsed = request() => during.push(elapsed),
        }
        if owner.is_none() && sent.load(Relaxed) >= GUESSES / 2 {
            let begin = Instant::now();
            let login = api.post(0, "/api/auth/login").json(&body);
            let login = login.header("x-forwarded-for", "203.0.113.9").header("cookie", &known);
            owner = Some((answer(login).await.0, begin.elapsed()));
        }
    };
    let elapsed = begin.elapsed();
    let statuses: Vec<u16> = statuses.into_iter().flat_map(Result::unwrap).collect();
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    let (refused, waiting, turned_away) = (count(401), count(429), count(503));
    println!("{GUESSES} guesses from {ADDRESSES} addresses in {elapsed:.1?}");
    println!("{refused} were looked at (401), {waiting} told to wait (429), {turned_away} turned away (503)");
    match owner {
        Some((status, elapsed)) => println!("the owner, on a known device: {status} after {elapsed:.1?}"),
        None => println!("the attack was over before the owner came"),
    }
    for (name, times) in [("before", &mut before), ("during", &mut during)] {
        let (p50, p99) = (at(times, 0.5), at(times, 0.99));
        println!("{name:8} p50 {p50:8.1?}  p99 {p99:8.1?}  ({} requests)", times.len());
    }
    let ratio =
        |share| at(&mut during.clone(), share).as_secs_f64() / at(&mut before.clone(), share).as_secs_f64();
    println!("ratio    p50 {:8.1}  p99 {:8.1}", ratio(0.5), ratio(0.99));
}

/// The time within which this share of the requests was answered.
fn at(times: &mut [Duration], share: f64) -> Duration {
    times.sort();
    times[(times.len() as f64 * share) as usize]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn figures_of_a_million_live_tokens() {
    const SESSIONS: usize = 1_000_000;
    const REQUESTS: u32 = 2_000_000;
    let mut world = World::for_figures(Kind::Single, &[]).await;
    let api = Api::of(&world);
    let pair = api.register(0, ANN).await;
    let few = world.instances[1].resident_bytes();
    let authorize_few = authorize(&world, &pair.access, REQUESTS).await;

    // A long lifetime: filling the tables takes longer than a token lives.
    let until = clock::now() + 100_000;
    world.postgres.tell(&format!(
        "insert into sessions (id, user_id, rotated_at, created_at, expires_at) \
         select 'S' || substr(translate(encode(sha256(n::text::bytea), 'base64'), '+/', '-_'), 1, 20) || 'A', \
         (select id from users), 0, 0, {until} from generate_series(1, {SESSIONS}) n"
    ));
    world.postgres.tell(&format!(
        "insert into access_tokens (id, session_id, expires_at) \
         select 'T' || substr(id, 2), id, {until} from sessions where id like 'S%A' and created_at = 0"
    ));
    world.postgres.tell("analyze");
    world.instances[1].kill();
    let begin = Instant::now();
    world.instances[1].start_again();
    world.instances[1].wait_until_ready().await;
    let ready = begin.elapsed();
    let many = world.instances[1].resident_bytes();
    let sessions = api.metric(1, "hallpass_mirror_sessions").await;
    let authorize_many = authorize(&world, &pair.access, REQUESTS).await;

    println!("{sessions} live sessions, each with a token");
    println!("ready after {ready:.1?}");
    println!("{} bytes of resident memory for each", (many - few) / SESSIONS as u64);
    println!(
        "authorize: {authorize_few:.1} ns with few, {authorize_many:.1} ns with all: ratio {:.3}",
        authorize_many / authorize_few
    );

    let tokens = tokens(&world, &pair, until);
    let empty = resident_bytes("self");
    let auth = auth(&world).await;
    let unused = resident_bytes("self");
    let now = clock::now();
    for token in &tokens {
        let claims = BASE64_URL_SAFE_NO_PAD.encode(token);
        let message = format!("{}.{claims}", pair.access.split('.').next().unwrap());
        let key = EncodingKey::from_secret(&BASE64_URL_SAFE_NO_PAD.decode(KEY).unwrap());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        auth.authorize(&format!("{message}.{signature}"), now).await.unwrap();
    }
    let used = resident_bytes("self");
    let each = |bytes: u64| bytes / tokens.len() as u64;
    println!(
        "{} tokens that were all used: {} bytes for each in the mirror, {} in all",
        tokens.len(),
        each(unused - empty),
        each(used - empty)
    );
    auth.leave().await;
}

/// The claims of the tokens that were put into the database.
fn tokens(world: &World, pair: &Pair, until: i64) -> Vec<String> {
    let claims = BASE64_URL_SAFE_NO_PAD.decode(pair.access.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let rows = "select id || ' ' || session_id from access_tokens where session_id like 'S%A'";
    let rows = world.postgres.query(rows).unwrap();
    let tokens = rows.lines().map(|row| {
        let (token, session) = row.split_once(' ').unwrap();
        let mut claims = claims.clone();
        claims["jti"] = token.into();
        claims["sid"] = session.into();
        claims["exp"] = until.into();
        claims["iat"] = (until - 300).into();
        claims.to_string()
    });
    tokens.collect()
}

/// The time of one authorization in nanoseconds, by an `Auth` in this process.
async fn authorize(world: &World, token: &str, times: u32) -> f64 {
    let (auth, now) = (auth(world).await, clock::now());
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let begin = Instant::now();
        for _ in 0..times / 5 {
            auth.authorize(black_box(token), now).now_or_never().unwrap().unwrap();
        }
        best = best.min(begin.elapsed().as_nanos() as f64 / f64::from(times / 5));
    }
    auth.leave().await;
    best
}

/// An `Auth` in this process, which joins the instances.
async fn auth(world: &World) -> Auth {
    let config = Config::load(&settings(world)).unwrap();
    Auth::load(
        &config,
        MemberKind::Instance,
        Db::open(&config, Access::Exclusive).await.unwrap(),
        clock::now(),
    )
    .await
    .unwrap()
}

/// Writes the settings of the instances to a file.
fn settings(world: &World) -> PathBuf {
    let file = world.folder().join("Leptos.toml");
    let text = format!(
        "[package.metadata.leptos]\noutput-name = \"hallpass\"\n[database]\nurl = \"{}\"\n[redis]\nurl = \"{}\"\n\
         [token]\nsigning_key = \"{}\"\n",
        world.postgres.url(world.postgres.port),
        world.redis_url(),
        KEY
    );
    fs::write(&file, text).unwrap();
    file
}
