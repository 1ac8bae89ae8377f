//! A Redis that cannot be used, or not the way it was meant: said at start, in words that help.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::{
    client::Api,
    support::{
        postgres::Postgres,
        process::{free_port, run, wait_until},
        redis::Redis,
        world::{Kind, World},
    },
};

const SECRET: &str = "a-secret-of-redis";

/// The words of the log line that says that the program serves requests.
const RUNNING: &str = "Hallpass is running";

/// Starts the program against this database and this Redis, and ends it when it runs.
fn start(folder: &Path, postgres: &Postgres, redis_url: &str, settings: &[(&str, &str)]) -> (bool, String) {
    start_until(RUNNING, folder, postgres, redis_url, settings)
}

/// Starts the program and ends it when it has logged these words. Blocks: where links have to go on meanwhile,
/// the test needs more than one thread.
fn start_until(
    words: &str,
    folder: &Path,
    postgres: &Postgres,
    redis_url: &str,
    settings: &[(&str, &str)],
) -> (bool, String) {
    fs::create_dir_all(folder.join("site/pkg")).unwrap();
    let text = "[package.metadata.leptos]\noutput-name = \"hallpass\"\nsite-root = \"site\"\n";
    fs::write(folder.join("Leptos.toml"), text).unwrap();
    let mut child = Command::new("timeout")
        .args(["300", env!("CARGO_BIN_EXE_hallpass")])
        .current_dir(folder)
        .env("LEPTOS_SITE_ADDR", format!("127.0.0.1:{}", free_port()))
        .env("DATABASE_URL", postgres.url(postgres.port))
        .env("REDIS_URL", redis_url)
        .env("HALLPASS_SIGNING_KEY", "KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio")
        .env("HALLPASS_STARTUP_WAIT", "2")
        .envs(settings.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok) {
        if line.contains(words) {
            run("kill", &[&child.id().to_string()]).unwrap();
        }
        text = text + &line + "\n";
    }
    child.wait().unwrap();
    assert!(!text.contains("panicked"), "{text}");
    assert!(!text.contains(SECRET), "the password is in the log: {text}");
    (text.contains(RUNNING), text)
}

fn refuses(start: (bool, String), words: &[&str]) {
    let (runs, text) = start;
    assert!(!runs, "it started: {text}");
    assert!(words.iter().all(|words| text.contains(words)), "{words:?} in {text}");
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
async fn a_wrong_password_is_said_at_once_and_the_right_one_is_enough() {
    let folder = folder();
    let postgres = Postgres::start(folder.path()).await;
    let redis = Redis::start(folder.path(), "").await;
    // What an instance may do, and nothing else.
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
        "+hget",
        "+hset",
        "+hdel",
        "+hgetall",
        "+hmget",
        "+hincrbyfloat",
        "+exists",
        "+pexpire",
        "+xadd",
        "+xrange",
        "+xrevrange",
        "+xread",
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
async fn tls_is_spoken_with_whom_the_private_authority_vouches_for() {
    let folder = folder();
    let postgres = Postgres::start(folder.path()).await;
    let authority = authority();
    let files = certificate(folder.path(), "redis", &authority);
    let tls_port = free_port();
    let redis = Redis::start(
        folder.path(),
        &format!("tls-port {tls_port}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\ntls-auth-clients no\n", files.0, files.1, files.0),
    )
    .await;
    let ca = folder.path().join("ca.pem");
    fs::write(&ca, authority.1).unwrap();
    let other = folder.path().join("other-ca.pem");
    fs::write(&other, self::authority().1).unwrap();
    let secure = format!("rediss://127.0.0.1:{tls_port}");
    let trusting = |ca: &Path| [("HALLPASS_REDIS_CA", ca.display().to_string())];
    let start = |redis_url: &str, ca: &Path| {
        let settings = trusting(ca);
        let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        start(folder.path(), &postgres, redis_url, &settings)
    };
    runs(start(&secure, &ca));
    refuses(start(&secure, &other), &["gave up after 2s", "certificate"]);
    refuses(start(&secure, Path::new("none.pem")), &["HALLPASS_REDIS_CA", "none.pem"]);
    // TLS to a plain port, and the reverse.
    refuses(start(&format!("rediss://127.0.0.1:{}", redis.port), &ca), &["gave up after 2s"]);
    refuses(start(&format!("redis://127.0.0.1:{tls_port}"), &ca), &["gave up after 2s"]);
}

#[tokio::test]
async fn settings_that_cannot_be_meant_are_refused() {
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
    refuses(try_with("redis://127.0.0.1:1", &[]), &["gave up after 2s", "refused"]);
    refuses(
        try_with(&url(&redis), &[("DATABASE_URL", "postgres://hallpass@127.0.0.1:1/postgres")]),
        &["postgres://127.0.0.1:1/postgres cannot be opened", "waiting for the database"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_would_deal_the_users_out_differently_is_refused() {
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
async fn what_would_surprise_its_owner_is_said_at_start() {
    let folder = folder();
    let postgres = Postgres::start(folder.path()).await;
    let redis = Redis::start(folder.path(), "maxmemory-policy allkeys-lru\n").await;
    let _replica =
        Redis::start(&sub(folder.path(), "replica"), &format!("replicaof 127.0.0.1 {}\n", redis.port)).await;
    wait_until("the replica follows", async || redis.info("connected_slaves").as_deref() == Some("1")).await;
    let text = runs(start(folder.path(), &postgres, &url(&redis), &[]));
    assert!(text.contains("maxmemory-policy allkeys-lru"), "{text}");
    assert!(text.contains("set HALLPASS_REDIS_NODES=2"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_used_twice_is_said_and_harms_nobody() {
    let world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let pair = api.register(0, "ann@example.com").await;
    let folder = folder();
    let text = runs(start_until(
        "another instance is called",
        folder.path(),
        &world.postgres,
        &world.redis_url(),
        &[("HALLPASS_INSTANCE", "instance-1")],
    ));
    assert!(text.contains("another instance is called instance-1, too"), "{text}");
    assert_eq!(api.logout(0, &pair).await.0, 200);
    assert_eq!(api.me_everywhere(&pair).await, [401; 3]);
}

/// A server that has a lot to read when it starts answers `LOADING` until it has.
#[tokio::test]
async fn a_redis_that_is_loading_is_waited_for() {
    let folder = folder();
    let postgres = Postgres::start(folder.path()).await;
    let slow = "key-load-delay 4000\nloading-process-events-interval-bytes 1024\n";
    let mut redis = Redis::start(folder.path(), slow).await;
    redis.tell(&["EVAL", "for i = 1, 300 do redis.call('SET', 'k' .. i, 'v') end", "0"]);
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
    let text = runs(start(folder.path(), &postgres, &url(&redis), &[("HALLPASS_STARTUP_WAIT", "30")]));
    assert!(text.contains("LOADING") || text.contains("loading"), "{text}");
}

fn folder() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::with_prefix("hallpass-settings-").unwrap();
    // For PostgreSQL, which may run as another user.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn sub(folder: &Path, name: &str) -> std::path::PathBuf {
    let folder = folder.join(name);
    fs::create_dir(&folder).unwrap();
    folder
}

/// A private authority, and its certificate.
fn authority() -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), certificate)
}

/// The files of a certificate for this machine, and of its key.
fn certificate(
    folder: &Path,
    name: &str,
    authority: &(Issuer<'static, KeyPair>, String),
) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority.0).unwrap();
    let write = |name: String, text: String| {
        let file = folder.join(name);
        fs::write(&file, text).unwrap();
        file.display().to_string()
    };
    (write(format!("{name}.pem"), certificate.pem()), write(format!("{name}.key"), key.serialize_pem()))
}
