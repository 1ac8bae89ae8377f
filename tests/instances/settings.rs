//! A Redis that cannot be used, or not as intended: the error or warning at startup, and its remedy.

use std::{
    env,
    fs::{self, File},
    net::TcpStream,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::{
    client::Api,
    support::{
        certificate::{authority, certificate},
        cluster::Cluster,
        instance::prepare_folder,
        postgres::Postgres,
        process::{PATIENCE, Process, free_port, run, wait_until},
        redis::Redis,
        sentinel::Sentinel,
        world::{INSTANCES, Kind, Store, World},
    },
};

const SECRET: &str = "a-secret-of-redis";

const RUNNING: &str = "Hallpass is running";

/// A short wait for a Redis that will not come up.
const GIVES_UP_SOON: (&str, &str) = ("HALLPASS_STARTUP_WAIT", "2");

/// Starts the program with this database and this Redis; stops it when it is up. Blocks the thread: a test
/// with links needs a runtime with several threads.
fn start(folder: &Path, postgres: &Postgres, redis_url: &str, settings: &[(&str, &str)]) -> (bool, String) {
    start_until(RUNNING, folder, postgres, redis_url, settings)
}

/// Starts the program and stops it when it is up and has logged `words`, or waits until it ends on its own.
fn start_until(
    words: &str,
    folder: &Path,
    postgres: &Postgres,
    redis_url: &str,
    settings: &[(&str, &str)],
) -> (bool, String) {
    prepare_folder(folder);
    let log = folder.join("start.log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hallpass"));
    command
        .current_dir(folder)
        .env("LEPTOS_SITE_ADDR", format!("127.0.0.1:{}", free_port()))
        .env("DATABASE_URL", postgres.url(postgres.port))
        .env("REDIS_URL", redis_url)
        .env("HALLPASS_SIGNING_KEY", "KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio")
        .envs(settings.iter().copied())
        .stderr(File::create(&log).unwrap());
    let mut process = command.spawn().unwrap();
    let begin = Instant::now();
    let text = loop {
        let has_ended = process.try_wait().unwrap().is_some();
        let text = String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned();
        let runs = text.contains(RUNNING) && text.contains(words);
        if has_ended || runs || begin.elapsed() > PATIENCE {
            break text;
        }
        thread::sleep(Duration::from_millis(20));
    };
    let _ = process.kill();
    process.wait().unwrap();
    assert!(!text.contains("panicked"), "{text}");
    assert!(!text.contains(SECRET), "the password is in the log: {text}");
    (text.contains(RUNNING) && text.contains(words), text)
}

fn refuses(start: (bool, String), words: &[&str]) {
    let (runs, text) = start;
    assert!(!runs, "it started: {text}");
    assert!(words.iter().all(|words| text.contains(words)), "{words:?} in {text}");
}

/// The program ends without waiting for Redis.
fn refuses_at_once(start: (bool, String), words: &[&str]) {
    assert!(!start.1.contains("gave up"), "{}", start.1);
    refuses(start, words);
}

fn runs(start: (bool, String)) -> String {
    let (runs, text) = start;
    assert!(runs, "{text}");
    text
}

fn url(redis: &Redis) -> String {
    format!("redis://127.0.0.1:{}", redis.port)
}

#[tokio::test]
async fn wrong_redis_password_is_reported_and_minimal_permissions_suffice() {
    let folder = folder();
    let postgres = Postgres::start(folder.path()).await;
    let redis = Redis::start(folder.path(), "").await;
    // All permissions that an instance needs.
    redis.tell(&[
        "ACL",
        "SETUSER",
        "hallpass",
        "on",
        &format!(">{SECRET}"),
        "resetkeys",
        "~{hp:*",
        "resetchannels",
        "-@all",
        "+evalsha",
        "+script|load",
        "+get",
        "+set",
        "+del",
        "+hset",
        "+hdel",
        "+hgetall",
        "+hmget",
        "+hincrbyfloat",
        "+exists",
        "+pexpire",
        "+xadd",
        "+xrevrange",
        "+xread",
        "+zadd",
        "+zrange",
        "+zrem",
        "+time",
        "+info",
        "+wait",
    ]);
    redis.tell(&["ACL", "SETUSER", "default", "off"]);
    let at = |who: &str| format!("redis://{who}127.0.0.1:{}", redis.port);
    let wrong = format!("hallpass:{SECRET}-not@");
    refuses(start(folder.path(), &postgres, &at(&wrong), &[]), &["Redis (REDIS_URL) cannot be used"]);
    refuses(start(folder.path(), &postgres, &at(""), &[]), &["Redis (REDIS_URL) cannot be used", "NOAUTH"]);
    runs(start(folder.path(), &postgres, &at(&format!("hallpass:{SECRET}@")), &[]));
}

#[tokio::test]
async fn redis_tls_certificate_is_verified_with_the_private_ca() {
    let folder = folder();
    let postgres = Postgres::start(folder.path()).await;
    let trusted = authority();
    let files = certificate(folder.path(), "redis", &trusted);
    let tls_port = free_port();
    let redis = Redis::start(
        folder.path(),
        &format!("tls-port {tls_port}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\ntls-auth-clients no\n", files.0, files.1, files.0),
    )
    .await;
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, trusted.1).unwrap();
    let other = folder.path().join("other-ca.pem");
    fs::write(&other, authority().1).unwrap();
    let secure = format!("rediss://127.0.0.1:{tls_port}");
    let trusting = |redis_url: &str, ca: &Path, wait: &str| {
        let settings = [("HALLPASS_REDIS_CA", ca.to_str().unwrap()), ("HALLPASS_STARTUP_WAIT", wait)];
        start(folder.path(), &postgres, redis_url, &settings)
    };
    runs(trusting(&secure, &ca, "60"));
    let start = |redis_url: &str, ca: &Path| trusting(redis_url, ca, GIVES_UP_SOON.1);
    refuses(start(&secure, &other), &["gave up after 2s", "certificate"]);
    refuses(start(&secure, Path::new("none.pem")), &["HALLPASS_REDIS_CA", "none.pem"]);
    // TLS to a plain port, and plain text to a TLS port.
    refuses(start(&format!("rediss://127.0.0.1:{}", redis.port), &ca), &["gave up after 2s"]);
    refuses(start(&format!("redis://127.0.0.1:{tls_port}"), &ca), &["gave up after 2s"]);
}

#[tokio::test]
async fn contradictory_settings_are_rejected() {
    let folder = folder();
    let postgres = Postgres::start(folder.path()).await;
    let redis = Redis::start(folder.path(), "").await;
    let try_with =
        |redis_url: &str, settings: &[(&str, &str)]| start(folder.path(), &postgres, redis_url, settings);
    refuses(
        try_with(&url(&redis), &[("DATABASE_URL", "sqlite://data/x.db")]),
        &["REDIS_URL is set", "SQLite"],
    );
    for wrong in ["redis", "http://127.0.0.1", "redis+sentinel://127.0.0.1", "redis+ring://127.0.0.1"] {
        refuses(try_with(wrong, &[]), &["REDIS_URL cannot be used"]);
    }
    refuses(try_with("redis://127.0.0.1:1", &[GIVES_UP_SOON]), &["gave up after 2s", "refused"]);
    refuses(
        try_with(
            &url(&redis),
            &[("DATABASE_URL", "postgres://hallpass@127.0.0.1:1/postgres"), GIVES_UP_SOON],
        ),
        &["postgres://127.0.0.1:1/postgres cannot be opened", "waiting for the database"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn mismatched_partition_counts_are_rejected() {
    let world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let pair = api.register(0, "ann@example.com").await;
    let folder = folder();
    refuses(
        start(folder.path(), &world.postgres, &world.redis_url(), &[("HALLPASS_REDIS_PARTITIONS", "4")]),
        &["HALLPASS_REDIS_PARTITIONS=1", "and this one 4"],
    );
    assert_eq!(api.me_everywhere(&pair).await, [200; 3]);
    assert_eq!(api.logout(0, &pair).await.0, 200);
}

#[tokio::test]
async fn risky_redis_settings_are_logged_at_startup() {
    let folder = folder();
    let postgres = Postgres::start(folder.path()).await;
    let redis = Redis::start(folder.path(), "maxmemory-policy allkeys-lru\n").await;
    let _replica =
        Redis::start(&sub(folder.path(), "replica"), &format!("replicaof 127.0.0.1 {}\n", redis.port)).await;
    wait_until("the replica follows", async || redis.info("connected_slaves").as_deref() == Some("1")).await;
    let text = runs(start(folder.path(), &postgres, &url(&redis), &[]));
    assert!(text.contains("maxmemory-policy allkeys-lru"), "{text}");
    assert!(text.contains("set HALLPASS_REDIS_NODES=2"), "{text}");
    assert!(text.contains("two replicas, and HALLPASS_REDIS_NODES=3"), "{text}");
    let _second =
        Redis::start(&sub(folder.path(), "second"), &format!("replicaof 127.0.0.1 {}\n", redis.port)).await;
    wait_until("both replicas follow", async || redis.info("connected_slaves").as_deref() == Some("2")).await;
    let text = runs(start(folder.path(), &postgres, &url(&redis), &[]));
    assert!(text.contains("set HALLPASS_REDIS_NODES=3"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicate_instance_name_is_logged_and_harmless() {
    let world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let pair = api.register(0, "ann@example.com").await;
    let folder = folder();
    runs(start_until(
        "another instance is called instance-1, too",
        folder.path(),
        &world.postgres,
        &world.redis_url(),
        &[("HALLPASS_INSTANCE", "instance-1")],
    ));
    assert_eq!(api.logout(0, &pair).await.0, 200);
    assert_eq!(api.me_everywhere(&pair).await, [401; 3]);
}

/// A Redis node that loads a lot of data at its start answers `LOADING` until it is done.
#[tokio::test]
async fn startup_waits_for_a_loading_redis() {
    let folder = folder();
    let postgres = Postgres::start(folder.path()).await;
    // Loading takes two minutes, until the delay is removed.
    let slow = "key-load-delay 4000\nloading-process-events-interval-bytes 1024\n";
    let mut redis = Redis::start(folder.path(), slow).await;
    redis.tell(&["EVAL", "for i = 1, 30000 do redis.call('SET', 'k' .. i, 'v') end", "0"]);
    redis.tell(&["BGREWRITEAOF"]);
    wait_until("the data is in a file that is loaded key by key", async || {
        redis.ask(&["INFO", "persistence"]).is_ok_and(|info| info.contains("aof_rewrite_in_progress:0"))
    })
    .await;
    redis.kill();
    redis.start_loading();
    wait_until("Redis is loading", async || {
        redis.ask(&["GET", "k1"]).is_err_and(|error| error.contains("LOADING"))
    })
    .await;
    let log = folder.path().join("start.log");
    thread::scope(|scope| {
        let started = scope.spawn(|| start(folder.path(), &postgres, &url(&redis), &[]));
        let says_so = |text: &str| text.contains("lost the event stream") && text.contains("oading");
        while !started.is_finished() && !fs::read_to_string(&log).is_ok_and(|text| says_so(&text)) {
            thread::sleep(Duration::from_millis(20));
        }
        redis.tell(&["CONFIG", "SET", "key-load-delay", "0"]);
        assert!(says_so(&runs(started.join().unwrap())));
    });
}

/// The permission is missing only for scripts, which shows when the first script runs.
#[tokio::test]
async fn missing_redis_permission_fails_startup_at_once() {
    let folder = folder();
    let postgres = Postgres::start(folder.path()).await;
    let redis = Redis::start(folder.path(), "").await;
    let password = format!(">{SECRET}");
    let at = format!("redis://hallpass:{SECRET}@127.0.0.1:{}", redis.port);
    for (forbidden, words) in [
        ("-zadd", "run this command"),
        ("-hset", "no permissions to run"),
        ("-evalsha", "no permissions to run"),
    ] {
        redis.tell(&["ACL", "SETUSER", "hallpass", "reset", "on", &password, "~*", "+@all", forbidden]);
        let words = ["Redis (REDIS_URL) cannot be used", words];
        refuses_at_once(start(folder.path(), &postgres, &at, &[]), &words);
    }
}

#[tokio::test]
async fn wrong_kind_of_redis_node_is_named() {
    let folder = folder();
    let postgres = Postgres::start(folder.path()).await;
    let sentinel = Sentinel::start(folder.path()).await;
    let start =
        |redis_url: &str, settings: &[(&str, &str)]| start(folder.path(), &postgres, redis_url, settings);
    let at = |port: u16| format!("redis://127.0.0.1:{port}");
    refuses_at_once(start(&at(sentinel.ports[0]), &[]), &["this is a Sentinel: write redis+sentinel://"]);
    let node = sentinel.nodes[0].port;
    let node = start(&sentinel.url_by("", &[node]), &[("HALLPASS_REDIS_NODES", "3")]);
    refuses_at_once(node, &["the Sentinel 127.0.0.1", "unknown command 'SENTINEL'"]);
    // A replica may be promoted, so the program waits.
    let replica = (sentinel.primary().unwrap() + 1) % sentinel.nodes.len();
    let replica = sentinel.nodes[replica].port;
    refuses(start(&at(replica), &[GIVES_UP_SOON]), &["gave up after 2s", "it is a replica"]);
    let unknown = sentinel.url().replace("/hallpass", "/another");
    let settings = [("HALLPASS_REDIS_NODES", "3"), GIVES_UP_SOON];
    refuses(start(&unknown, &settings), &["the Sentinel 127.0.0.1", "it knows no primary named another"]);
}

#[tokio::test]
async fn startup_waits_for_a_redis_without_free_connections() {
    let folder = folder();
    let postgres = Postgres::start(folder.path()).await;
    let redis = Redis::start(folder.path(), "").await;
    redis.tell(&["ACL", "SETUSER", "hallpass", "on", &format!(">{SECRET}"), "~*", "+@all"]);
    let held = TcpStream::connect(("127.0.0.1", redis.port)).unwrap();
    redis.tell(&["CONFIG", "SET", "maxclients", "1"]);
    wait_until("nobody else is let in", async || {
        redis.ask(&["PING"]).is_err_and(|error| error.contains("max number of clients"))
    })
    .await;
    let at = format!("redis://hallpass:{SECRET}@127.0.0.1:{}", redis.port);
    refuses(start(folder.path(), &postgres, &at, &[GIVES_UP_SOON]), &["gave up after 2s"]);
    drop(held);
}

/// Needs a Redis server older than version 7, which few machines have: `OLD_REDIS_SERVER` names its program.
#[tokio::test]
async fn redis_before_7_is_rejected_with_both_versions() {
    let Ok(program) = env::var("OLD_REDIS_SERVER") else {
        eprintln!("not tried with a real one: OLD_REDIS_SERVER names no redis-server older than 7");
        return;
    };
    let folder = folder();
    let postgres = Postgres::start(folder.path()).await;
    let port = free_port().to_string();
    let _redis = Process::start("old-redis", folder.path(), None, Path::new(&program), |command| {
        command.args(["--port", &port, "--bind", "127.0.0.1", "--save", ""]);
    });
    wait_until("it is up", async || {
        run("redis-cli", &["-p", &port, "PING"]).is_ok_and(|pong| pong == "PONG")
    })
    .await;
    let version = run("redis-cli", &["-p", &port, "INFO", "server"]).unwrap();
    let version = version.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap().trim();
    let words = format!("Redis 7.0 or newer is needed, and this server is version {version}");
    refuses_at_once(start(folder.path(), &postgres, &format!("redis://127.0.0.1:{port}"), &[]), &[&words]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_can_have_credentials_of_their_own() {
    let folder = folder();
    let postgres = Postgres::start(folder.path()).await;
    let sentinel = Sentinel::start(folder.path()).await;
    let password = format!(">{SECRET}");
    for node in &sentinel.nodes {
        node.tell(&["ACL", "SETUSER", "hallpass", "on", &password, "~*", "&*", "+@all"]);
    }
    let start = |credentials: &str, settings: &[(&str, &str)]| {
        let settings = [&[("HALLPASS_REDIS_NODES", "3")], settings].concat();
        start(folder.path(), &postgres, &sentinel.url_by(credentials, &sentinel.ports), &settings)
    };
    let credentials = format!("hallpass:{SECRET}@");
    let other = format!("{SECRET}-of-sentinels");
    let user = ("HALLPASS_SENTINEL_USERNAME", "watcher");
    let own = ("HALLPASS_SENTINEL_PASSWORD", other.as_str());

    // The Sentinels require no password, and would refuse one.
    runs(start(&credentials, &[]));
    runs(start(&credentials, &[own]));
    // The user of REDIS_URL exists at the Sentinels as well.
    sentinel.tell_all(&["ACL", "SETUSER", "hallpass", "on", &password, "allchannels", "+@all"]);
    sentinel.tell_all(&["ACL", "SETUSER", "watcher", "on", &format!(">{other}"), "allchannels", "+@all"]);
    // This equals `requirepass`.
    sentinel.tell_all(&["ACL", "SETUSER", "default", "resetpass", &format!(">{other}")]);
    runs(start(&credentials, &[]));
    runs(start(&credentials, &[own]));
    runs(start(&credentials, &[user, own]));
    for wrong in [
        start("", &[]),
        start(&credentials, &[("HALLPASS_SENTINEL_PASSWORD", "wrong")]),
        start(&credentials, &[("HALLPASS_SENTINEL_USERNAME", "nobody"), own]),
    ] {
        refuses_at_once(wrong, &["the Sentinel 127.0.0.1", "HALLPASS_SENTINEL_PASSWORD"]);
    }
    refuses_at_once(start(&credentials, &[user]), &["HALLPASS_SENTINEL_PASSWORD is missing"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn outdated_or_unreachable_sentinels_do_not_hide_the_primary() {
    let folder = folder();
    let postgres = Postgres::start(folder.path()).await;
    let sentinel = Sentinel::start(folder.path()).await;
    let start = |first: u16| {
        let ports = [&[first], sentinel.ports.as_slice()].concat();
        let settings = [("HALLPASS_REDIS_NODES", "3")];
        start(folder.path(), &postgres, &sentinel.url_by("", &ports), &settings)
    };
    // One Sentinel names a node that is not the primary any more.
    let replica = (sentinel.primary().unwrap() + 1) % sentinel.nodes.len();
    let (port, _knows_a_replica) = Sentinel::stray(folder.path(), sentinel.nodes[replica].port).await;
    runs(start(port));
    // One Sentinel names a node that considers itself the primary, but has lost its replicas.
    let alone = Redis::start(&sub(folder.path(), "alone"), "").await;
    let (port, _knows_what_was) = Sentinel::stray(folder.path(), alone.port).await;
    runs(start(port));
    // One Sentinel names a node that accepts connections, but does not answer.
    alone.signal("STOP");
    runs(start(port));
    // One Sentinel does not answer.
    let (port, silent) = Sentinel::stray(folder.path(), sentinel.nodes[replica].port).await;
    silent.signal("STOP");
    runs(start(port));
    // One Sentinel does not exist.
    runs(start(free_port()));
}

#[tokio::test]
async fn cluster_redirects_of_every_form_are_followed() {
    let folder = folder();
    let postgres = Postgres::start(folder.path()).await;
    let cluster = Cluster::start(folder.path()).await;
    let start = |node: usize| {
        let settings = [("HALLPASS_REDIS_NODES", "2")];
        start(folder.path(), &postgres, &cluster.url_by(node), &settings)
    };
    let master = cluster.master_of("{hp:0}", 0).unwrap();
    let other = (master + 1) % cluster.nodes.len();
    let moved = || cluster.nodes[other].ask(&["GET", "{hp:0}"]).unwrap_err();
    let tell_all = |command: &[&str]| cluster.nodes.iter().for_each(|node| node.tell(command));
    let port = cluster.nodes[master].port;

    assert!(moved().contains(&format!(" 127.0.0.1:{port}")), "{}", moved());
    runs(start(other));
    tell_all(&["CONFIG", "SET", "cluster-preferred-endpoint-type", "unknown-endpoint"]);
    assert!(moved().contains(&format!(" :{port}")), "{}", moved());
    runs(start(other));
    tell_all(&["CONFIG", "SET", "cluster-preferred-endpoint-type", "hostname"]);
    assert!(moved().contains(&format!(" ?:{port}")), "{}", moved());
    runs(start(other));
    tell_all(&["CONFIG", "SET", "cluster-announce-hostname", "localhost"]);
    wait_until("the host's name is announced", async || moved().contains(&format!(" localhost:{port}")))
        .await;
    runs(start(other));

    // While a slot migrates to another node, keys that have not moved are served here; only requests for
    // other keys are redirected, once each (`ASK`).
    cluster.nodes[master].tell(&["XADD", "{hp:0}:events", "*", "foreign", "entry"]);
    let target = (0..cluster.nodes.len())
        .find(|node| *node != master && cluster.nodes[*node].info("role").as_deref() == Some("master"));
    let id = |node: usize| cluster.nodes[node].ask(&["CLUSTER", "MYID"]).unwrap();
    let (target, slot) =
        (target.unwrap(), cluster.nodes[master].ask(&["CLUSTER", "KEYSLOT", "{hp:0}"]).unwrap());
    cluster.nodes[target].tell(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(master)]);
    cluster.nodes[master].tell(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(target)]);
    runs(start(other));
    runs(start(master));
}

/// There are two primaries, one of them without replicas and known to one Sentinel only: events have to be
/// published to the one that the instances follow.
#[tokio::test(flavor = "multi_thread")]
async fn commands_are_sent_to_the_followed_primary() {
    let mut world = World::start(Kind::Sentinel).await;
    let api = Api::of(&world);
    let folder = folder();
    let alone = Redis::start(folder.path(), "").await;
    let (stray, _process) = Sentinel::stray(folder.path(), alone.port).await;
    // In both orders, so that neither gives the right result by chance.
    let honest = world.sentinel().ports[0];
    for (email, ports) in [("ann@example.com", [stray, honest]), ("ben@example.com", [honest, stray])] {
        let pair = api.register(0, email).await;
        assert_eq!(api.me_everywhere(&pair).await, [200; 3]);
        let mut command = world.instances[0].command();
        command.env("REDIS_URL", world.sentinel().url_by("", &ports));
        command.args(["sessions", "revoke", "--session", &pair.session]);
        let output = spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        assert_eq!(api.me_everywhere(&pair).await, [401; 3]);
    }
}

/// The ids of a stream never decrease: after a clock that was fast they stay in the future.
#[tokio::test]
async fn stream_is_trimmed_after_the_clock_of_redis_was_fast() {
    const REVOKE: &str = concat!(
        include_str!("../../crates/allowlist/src/bus/redis/scripts/register.lua"),
        include_str!("../../crates/allowlist/src/bus/redis/scripts/revoke.lua"),
    );
    const ALLOW: &str = concat!(
        include_str!("../../crates/allowlist/src/bus/redis/scripts/register.lua"),
        include_str!("../../crates/allowlist/src/bus/redis/scripts/allow.lua"),
    );
    let folder = folder();
    let redis = Redis::start(folder.path(), "").await;
    let fill = "local ms = redis.call('TIME')[1] * 1000 + 86400000 \
                for i = 1, 105000 do redis.call('XADD', 'events', string.format('%d-%d', ms, i), 'a', 'b') end";
    let length = || redis.ask(&["XLEN", "events"]).unwrap().parse::<u32>().unwrap();
    let revoke = ["EVAL", REVOKE, "2", "register", "events", "1", "event", "600000"];
    let allow = ["EVAL", ALLOW, "3", "register", "events", "token", "2", "event", "600000", "session", "300"];
    for command in [&revoke[..], &allow] {
        redis.tell(&["EVAL", fill, "1", "events"]);
        assert_eq!(length(), 105_000);
        redis.tell(command);
        assert!((100_000..101_000).contains(&length()), "{}", length());
        redis.tell(&["DEL", "events"]);
    }
    // With the right time, entries are trimmed by age only.
    redis.tell(&["EVAL", &fill.replace("+ 86400000", ""), "1", "events"]);
    redis.tell(&revoke);
    assert_eq!(length(), 105_001);
}

/// Without keepalive, an idle connection would not notice that the other end is gone.
#[tokio::test]
async fn idle_redis_connections_use_tcp_keepalive() {
    let world = World::without_links(Kind::Single).await;
    let Store::Single(redis) = &world.store else { panic!("there are several") };
    let api = Api::of(&world);
    // Opens the connections for commands.
    for instance in 0..INSTANCES {
        api.register(instance, &format!("ann-{instance}@example.com")).await;
    }
    wait_until("each instance has a connection that waits for nothing but its keepalive", async || {
        // sl local remote state queues timer:when ...
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let to_redis = format!(":{:04X} 01 ", redis.port);
        let timers = table.lines().filter_map(|line| line.split_once(&to_redis)?.1.split(' ').nth(1));
        timers.filter(|timer| timer.starts_with("02:")).count() >= INSTANCES
    })
    .await;
}

fn folder() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::with_prefix("hallpass-settings-").unwrap();
    // PostgreSQL may run as another user.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn sub(folder: &Path, name: &str) -> std::path::PathBuf {
    let folder = folder.join(name);
    fs::create_dir(&folder).unwrap();
    folder
}

#[tokio::test]
async fn instance_that_waits_at_start_ends_when_it_is_asked_to() {
    let mut world = World::without_links(Kind::Single).await;
    for (store, words) in [("Redis", "lost the event stream"), ("the database", "waiting for the database")] {
        assert!(world.instances[0].stop().await);
        match store {
            "Redis" => world.redis().kill(),
            _ => world.postgres.kill(),
        }
        let instance = &mut world.instances[0];
        // It would not give up while the test runs.
        instance.set("HALLPASS_STARTUP_WAIT", "100000");
        instance.start_again();
        wait_until("it waits", async || instance.printed().contains(words)).await;
        assert!(instance.stop().await, "{store}: {}", instance.printed());
        match store {
            "Redis" => world.redis().start_again().await,
            _ => world.postgres.start_again().await,
        }
        world.instances[0].start_again();
        world.wait_until_ready().await;
    }
}
