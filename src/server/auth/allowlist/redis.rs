//! The allowlist in Redis: the connections, the keys, the scripts. This is the only file that uses the
//! `redis` crate.
//!
//! Users are assigned to *partitions*. All keys of a partition have one hash tag, so that they are on one
//! node of a Redis Cluster, and one script can change them together:
//!
//! | key | type | holds |
//! |---|---|---|
//! | `{hp:N}:token:<jti>` | string | the session's id, for as long as the token lives: the allowlist |
//! | `{hp:N}:events` | stream | the issued tokens and revoked sessions of the last ten minutes, twice the longest life of a token |
//! | `{hp:N}:attempts:<hash>` | hash | a bucket of attempts, for `server/auth/throttle.rs` |
//! | `{hp:N}:identity` | string | the identity of this Redis: a random value made once. All instances follow the same |
//! | `{hp:N}:register` | hash | the membership: the report of each running instance, with its position; and `head`, the nonce of the newest event |
//!
//! The head of the chain is a field of the membership, so that neither can be lost without the other: no
//! revocation would wait for an instance that is missing there.
//!
//! A connection here always leads directly to the one node that is the primary of a partition, also with
//! Sentinels or in a Redis Cluster, and it never reconnects: a follower has to notice when it may be
//! connected to another node.

use std::{
    collections::HashMap,
    error::Error,
    io,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use futures::{StreamExt, stream::FuturesUnordered};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    RedisConnectionInfo, Script, ServerErrorKind, TlsCertificates, Value,
    aio::MultiplexedConnection,
    cmd, from_redis_value,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use secrecy::ExposeSecret;
use tokio::time;

use super::event::{Event, Link, Nonce, Position};
use crate::server::{
    auth::rate_limit::{BucketKey, MAX_BACKOFF, RateLimit},
    clock::UnixSeconds,
    config::RedisConfig,
    db::access_tokens::TokenRecord,
    ids::{BusId, SessionId, TokenId, UserId},
};

pub use redis::RedisError;

/// The timeouts for connecting and for a response. No longer than a lease, which has expired by then.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to wait for one seed before the next is tried concurrently.
const NEXT_SEED_AFTER: Duration = Duration::from_millis(250);

/// How long a connection may be idle before the operating system probes the other end, and how often it
/// probes then.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(2);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(1);
const KEEPALIVE_PROBES: u32 = 3;
/// How long sent data may remain unacknowledged by the other end's TCP.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_TIMEOUT: Duration = Duration::from_secs(3);

/// The first major version whose scripts have flags: `#!lua flags=allow-oom`.
const MIN_MAJOR_VERSION: u32 = 7;

/// The port of a Sentinel whose address has none.
const SENTINEL_PORT: u16 = 26379;

/// How long replicas may take to confirm a write. Shorter than the timeout for a response.
const REPLICAS_TIMEOUT: Duration = Duration::from_millis(500);

/// The number of entries of the stream that are read at once.
pub const BATCH: usize = 1000;

/// How far the stream reaches back: twice the longest life of an access token, which is 300 s.
const RETENTION_MS: u64 = 600_000;

static JOIN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/join.lua")));
static RENEW: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/renew.lua")));
static ALLOW: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/allow.lua")));
static RECORD_ATTEMPT: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/record_attempt.lua")));
static REFUND_ATTEMPT: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/refund_attempt.lua")));
static REVOKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/revoke.lua")));

/// The configuration by which the primary of a partition is found.
#[derive(Clone)]
pub struct Servers {
    kind: Kind,
    /// The addresses to start from. Any of them suffices.
    seeds: Vec<ConnectionInfo>,
    tls: Option<TlsCertificates>,
    routes: Arc<[Mutex<Route>]>,
}

/// How the primary of a partition was last found.
#[derive(Default)]
struct Route {
    /// The index of the seed to begin with the next time.
    next_seed: usize,
    /// The address that a seed returned; `None` if the seed itself is the primary.
    primary: Option<ConnectionInfo>,
}

#[derive(Clone)]
enum Kind {
    /// The seed is the primary.
    Single,
    /// The seeds are Sentinels, which return the address of the primary with this name. `login` is only
    /// sent to Sentinels that require it; others would return an error.
    Sentinel { name: String, primary: Box<ConnectionInfo>, login: Box<RedisConnectionInfo> },
    /// The seeds are nodes, which redirect to the node that has the keys.
    Cluster,
}

impl Servers {
    /// Parses `redis://…`, `redis+sentinel://…/name` or `redis+cluster://…`, each also with `rediss`. Does
    /// not connect.
    ///
    /// # Errors
    /// The address cannot be parsed.
    pub fn new(config: &RedisConfig, ca: Option<Vec<u8>>) -> Result<Self, RedisError> {
        let wrong = |what: &'static str| RedisError::from((ErrorKind::InvalidClientConfig, what));
        let url = config.url.as_ref().map(ExposeSecret::expose_secret).unwrap_or_default();
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("it has no scheme"))?;
        let (protocol, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        let (credentials, rest) = match rest.rsplit_once('@') {
            Some((credentials, rest)) => (format!("{credentials}@"), rest),
            None => (String::new(), rest),
        };
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let parse = |text: String| text.into_connection_info();
        let tls = ca.map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem) });
        let each = |credentials: &str, default_port: Option<u16>| -> Result<Vec<_>, _> {
            let with_port = |host: &str| match default_port {
                // The colons within the brackets of an IPv6 address do not count.
                Some(port) if !host.rsplit(']').next().is_some_and(|end| end.contains(':')) => {
                    format!("{host}:{port}")
                }
                _ => host.to_owned(),
            };
            let address = |host| format!("{protocol}://{credentials}{}", with_port(host));
            hosts.split(',').map(|host| parse(address(host))).collect()
        };
        let (kind, seeds) = match kind {
            "" => (Kind::Single, vec![parse(url.to_owned())?]),
            "sentinel" if path.is_empty() => {
                return Err(wrong("the name of the primary is missing at its end"));
            }
            "sentinel" => {
                let primary = Box::new(parse(format!("{protocol}://{credentials}127.0.0.1"))?);
                let login = match (&config.sentinel_username, &config.sentinel_password) {
                    (None, None) => primary.redis_settings().clone(),
                    (Some(_), None) => return Err(wrong("HALLPASS_SENTINEL_PASSWORD is missing")),
                    (username, Some(password)) => {
                        let login = RedisConnectionInfo::default().set_password(password.expose_secret());
                        username.iter().fold(login, RedisConnectionInfo::set_username)
                    }
                };
                let kind = Kind::Sentinel { name: path.to_owned(), primary, login: Box::new(login) };
                (kind, each("", Some(SENTINEL_PORT))?)
            }
            "cluster" => (Kind::Cluster, each(&credentials, None)?),
            _ => return Err(wrong("its scheme is unknown")),
        };
        let routes = (0..config.partitions).map(|_| Mutex::default()).collect();
        Ok(Self { kind, seeds, tls, routes })
    }

    fn route(&self, partition: Partition) -> MutexGuard<'_, Route> {
        self.routes[partition.index()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a connection to the partition's primary. Each call begins with the seed after the one that the
    /// last call succeeded with, which may be cut off from the others and return an outdated address.
    ///
    /// # Errors
    /// None of the seeds led to the primary.
    pub async fn connect(&self, partition: Partition) -> Result<Connection, RedisError> {
        let count = self.seeds.len();
        let first = self.route(partition).next_seed;
        let mut seeds = (0..count).map(|place| (first + place) % count);
        let mut attempts = FuturesUnordered::new();
        let mut failures: Vec<(usize, RedisError)> = Vec::new();
        loop {
            let next = seeds.next();
            attempts
                .extend(next.map(|seed| async move { (seed, self.connect_through(seed, partition).await) }));
            let ended = match next {
                Some(_) => time::timeout(NEXT_SEED_AFTER, attempts.next()).await,
                None => Ok(attempts.next().await),
            };
            match ended {
                Ok(Some((seed, Ok((inner, primary))))) => {
                    *self.route(partition) = Route { next_seed: seed + 1, primary };
                    return Ok(Connection { partition, inner });
                }
                Ok(Some((seed, Err(error)))) => failures.push((seed, error)),
                Ok(None) => {
                    self.route(partition).next_seed = first + 1;
                    // In the same order wherever it began, so that an error that persists is logged only
                    // once.
                    failures.sort_by_key(|(seed, _)| *seed);
                    return Err(all_in_one(failures.into_iter().map(|(_, error)| error).collect()));
                }
                Err(_elapsed) => {}
            }
        }
    }

    /// Opens another connection to the node that [`Servers::connect`] last connected to: when Sentinels
    /// disagree, the commands have to go to the node whose events are followed.
    ///
    /// # Errors
    /// The node does not answer, or is no longer a primary.
    pub async fn connect_beside(&self, partition: Partition) -> Result<Connection, RedisError> {
        let primary = self.route(partition).primary.clone();
        match primary {
            Some(primary) => Ok(Connection { partition, inner: self.open_primary(&primary).await? }),
            // By the name in the address, which may resolve to several nodes.
            None => self.connect(partition).await,
        }
    }

    /// A connection to the primary, and the primary's address if it is not the seed.
    async fn connect_through(
        &self,
        seed: usize,
        partition: Partition,
    ) -> Result<(MultiplexedConnection, Option<ConnectionInfo>), RedisError> {
        let seed = &self.seeds[seed];
        let primary = match &self.kind {
            Kind::Single => return Ok((self.open_primary(seed).await?, None)),
            Kind::Sentinel { name, primary, login } => {
                let address = self.ask_sentinel(seed, name, login).await;
                let (host, port) = address.map_err(|error| {
                    let hint = match error.code() {
                        Some("NOAUTH" | "WRONGPASS" | "NOPERM") => {
                            " wants another user or password (HALLPASS_SENTINEL_USERNAME, HALLPASS_SENTINEL_PASSWORD)"
                        }
                        _ => "",
                    };
                    in_context(&format!("the Sentinel {}{hint}", seed.addr()), &error)
                })?;
                at(primary, host, port)
            }
            Kind::Cluster => {
                let mut node = self.open(seed).await?;
                match cmd("GET").arg(partition.key("head")).exec_async(&mut node).await {
                    Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::Moved) => {
                        let (host, port) = redirect(&error, seed)?;
                        at(seed, host, port)
                    }
                    // While a slot is being migrated to another node (ASK), it still belongs to this one.
                    Err(error) if error.kind() != ErrorKind::Server(ServerErrorKind::Ask) => {
                        return Err(error);
                    }
                    _ => {
                        About::ask(&mut node).await?.check()?;
                        return Ok((node, None));
                    }
                }
            }
        };
        let connection = self.open_primary(&primary).await;
        let connection =
            connection.map_err(|error| in_context(&format!("the Redis {}", primary.addr()), &error))?;
        Ok((connection, Some(primary)))
    }

    /// The address of the primary according to this Sentinel.
    async fn ask_sentinel(
        &self,
        seed: &ConnectionInfo,
        name: &str,
        login: &RedisConnectionInfo,
    ) -> Result<(String, u16), RedisError> {
        let mut sentinel = self.open(seed).await?;
        let mut question = cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        let mut answer: Result<Option<_>, RedisError> = question.query_async(&mut sentinel).await;
        if let Err(error) = &answer
            && matches!(error.code(), Some("NOAUTH" | "NOPERM"))
            && let Some(auth) = auth(login)
        {
            auth.exec_async(&mut sentinel).await?;
            answer = question.query_async(&mut sentinel).await;
        }
        answer?.ok_or_else(|| io::Error::other(format!("it knows no primary named {name}")).into())
    }

    /// Opens a connection to a node that must be a primary of a supported version.
    async fn open_primary(&self, info: &ConnectionInfo) -> Result<MultiplexedConnection, RedisError> {
        let mut connection = self.open(info).await?;
        About::ask(&mut connection).await?.check()?;
        Ok(connection)
    }

    async fn open(&self, info: &ConnectionInfo) -> Result<MultiplexedConnection, RedisError> {
        let info = info.clone().set_tcp_settings(tcp_settings());
        let client = match (&self.tls, info.addr()) {
            (Some(tls), ConnectionAddr::TcpTls { .. }) => Client::build_with_tls(info, tls.clone())?,
            _ => Client::open(info)?,
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        client.get_multiplexed_async_connection_with_config(&config).await
    }
}

fn tcp_settings() -> TcpSettings {
    // An idle connection must end soon, too, when the other end has disappeared.
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_PROBES);
    // Each command is waited for, so nothing is gained by delaying it.
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(UNACKNOWLEDGED_TIMEOUT);
    settings
}

/// The same connection settings with another address.
fn at(info: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let address = match info.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    info.clone().set_addr(address)
}

/// The host and port that a node redirects to. A node that has no address for the others returns no host,
/// or `?`, which stands for the host at which `asked` was reached.
fn redirect(moved: &RedisError, asked: &ConnectionInfo) -> Result<(String, u16), RedisError> {
    let address = moved.redirect_node().and_then(|(address, _)| {
        let (host, port) = address.rsplit_once(':')?;
        Some((host.trim_start_matches('[').trim_end_matches(']'), port.parse().ok()?))
    });
    match (address, asked.addr()) {
        (Some(("" | "?", port)), ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. }) => {
            Ok((host.clone(), port))
        }
        (Some((host, port)), _) => Ok((host.to_owned(), port)),
        (None, _) => Err(moved.clone()),
    }
}

fn auth(login: &RedisConnectionInfo) -> Option<Cmd> {
    let mut auth = cmd("AUTH");
    auth.arg(login.username()).arg(login.password()?);
    Some(auth)
}

/// The properties that a node reports about itself.
#[derive(Debug, Default)]
struct About {
    version: String,
    role: String,
    mode: String,
}

impl About {
    async fn ask(connection: &mut MultiplexedConnection) -> Result<Self, RedisError> {
        // An ACL cannot forbid `HELLO`.
        let hello: Result<HashMap<String, Value>, _> = cmd("HELLO").query_async(connection).await;
        match hello {
            Ok(mut fields) => {
                let mut text = |name| fields.remove(name).and_then(|value| from_redis_value(value).ok());
                Ok(Self {
                    version: text("version").unwrap_or_default(),
                    role: text("role").unwrap_or_default(),
                    mode: text("mode").unwrap_or_default(),
                })
            }
            // Redis before 6.0 has neither this command nor ACLs.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::ResponseError) => {
                // If this fails, too, the version is unknown, and the scripts will fail if it is
                // unsupported.
                let text: String = cmd("INFO").query_async(connection).await.unwrap_or_default();
                let text = |name| info_field(&text, name).to_owned();
                Ok(Self { version: text("redis_version"), role: text("role"), mode: text("redis_mode") })
            }
            Err(error) => Err(error),
        }
    }

    fn check(&self) -> Result<(), RedisError> {
        let Self { version, role, mode } = self;
        let major: Option<u32> = version.split('.').next().and_then(|major| major.parse().ok());
        if major.is_some_and(|major| major < MIN_MAJOR_VERSION) {
            return Err(refused(format!(
                "Redis {MIN_MAJOR_VERSION}.0 or newer is needed, and this server is version {version}"
            )));
        }
        match (mode.as_str(), role.as_str()) {
            ("sentinel", _) => Err(refused(
                "this is a Sentinel: write redis+sentinel:// and, at the end, the name of the primary".into(),
            )),
            (_, "replica" | "slave") => {
                Err(io::Error::other("it is a replica, and only a primary can be used").into())
            }
            _ => Ok(()),
        }
    }
}

/// The value of a field in the response to `INFO`.
fn info_field<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default()
}

/// The settings are wrong, so that no further attempt will succeed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

fn refused(text: String) -> RedisError {
    io::Error::other(Refused(text)).into()
}

/// Combines the errors of several nodes into one. It is final if all of them are.
fn all_in_one(mut errors: Vec<RedisError>) -> RedisError {
    let mut texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    texts.dedup();
    match (errors.pop(), texts.len()) {
        (None, _) => (ErrorKind::Io, "no server was named").into(),
        (Some(last), 1) => last,
        (Some(last), _) if is_final(&last) && errors.iter().all(is_final) => refused(texts.join("; ")),
        _ => io::Error::other(texts.join("; ")).into(),
    }
}

/// Adds the name of the node to the error. It stays final if it was.
fn in_context(server: &str, error: &RedisError) -> RedisError {
    let text = format!("{server}: {error}");
    if is_final(error) { refused(text) } else { io::Error::other(text).into() }
}

/// Whether the settings are wrong, so that trying again will not help.
pub fn is_final(error: &RedisError) -> bool {
    // A command that a script may not use, and Redis versions that lack script flags or scripts altogether.
    const LASTING: [&str; 5] = [
        "can't run this command",
        "ACL failure in script",
        "compiling script",
        "script shebang",
        "unknown command",
    ];
    // An `io::Error` within a `RedisError` is shared by its clones.
    let is_refused = error
        .source()
        .and_then(|source| source.downcast_ref::<Arc<dyn Error + Send + Sync>>())
        .and_then(|shared| shared.downcast_ref::<io::Error>()?.get_ref())
        .is_some_and(|inner| inner.is::<Refused>());
    is_refused
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED"))
        || matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig)
        || error.kind() == ErrorKind::Server(ServerErrorKind::ResponseError)
            && error.detail().is_some_and(|detail| LASTING.iter().any(|words| detail.contains(words)))
}

/// A share of the users, and their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition(u16);

impl Partition {
    pub fn all(count: u16) -> impl Iterator<Item = Self> {
        (0..count).map(Self)
    }

    /// The partition of a user, of `count`: the same on every instance.
    pub fn of(user_id: UserId, count: u16) -> Self {
        Self::by(user_id.as_bytes(), count)
    }

    /// The partition for 16 bytes that are already random.
    pub fn by(bytes: &[u8; 16], count: u16) -> Self {
        Self(u16::from_be_bytes([bytes[0], bytes[1]]) % count)
    }

    pub fn index(self) -> usize {
        self.0.into()
    }

    fn key(self, name: &str) -> String {
        format!("{{hp:{}}}:{name}", self.0)
    }

    fn token_key(self, token_id: TokenId) -> String {
        self.key(&format!("token:{token_id}"))
    }
}

/// The membership and the head of the chain.
pub struct Register {
    /// The nonce of the newest event; `None` if there is no chain.
    pub head: Option<Nonce>,
    /// The report of each instance, by instance id.
    pub reports: HashMap<Vec<u8>, Vec<u8>>,
}

impl Register {
    fn read(mut fields: HashMap<Vec<u8>, Vec<u8>>) -> Self {
        let head = fields.remove(b"head".as_slice());
        let head = head.and_then(|head| str::from_utf8(&head).ok()?.parse().ok());
        Self { head: head.map(Nonce), reports: fields }
    }
}

/// An entry of the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    Link(Link),
    /// Part of the chain, but its event cannot be parsed.
    Unreadable(Position),
    /// Not written by an instance.
    Foreign(Position),
}

type RawEntry = (String, Vec<Vec<u8>>);

impl Entry {
    fn read((id, fields): RawEntry) -> Result<Self, RedisError> {
        let position = id
            .parse()
            .map_err(|_| RedisError::from((ErrorKind::Parse, "the id of an entry cannot be read", id)))?;
        let fields: Vec<_> = fields.iter().map(|field| str::from_utf8(field).unwrap_or_default()).collect();
        let ["n", nonce, "p", before, "e", event] = fields[..] else {
            return Ok(Self::Foreign(position));
        };
        let Ok(nonce) = nonce.parse() else {
            return Ok(Self::Foreign(position));
        };
        Ok(match event.parse() {
            Ok(event) => Self::Link(Link {
                position,
                nonce: Nonce(nonce),
                before: before.parse().ok().map(Nonce),
                event,
            }),
            Err(_) => Self::Unreadable(position),
        })
    }
}

fn read_all(entries: Vec<RawEntry>) -> Result<Vec<Entry>, RedisError> {
    entries.into_iter().map(Entry::read).collect()
}

/// A connection to the primary of one partition. Clones share it.
#[derive(Clone)]
pub struct Connection {
    partition: Partition,
    inner: MultiplexedConnection,
}

impl Connection {
    /// Reads the position of the newest event, the membership, and the identity of this Redis. Creates the
    /// chain and the identity if they do not exist.
    pub async fn join(&mut self) -> Result<(Position, Register, String), RedisError> {
        let (position, fields, identity): (String, _, _) = JOIN
            .key(self.partition.key("register"))
            .key(self.partition.key("events"))
            .key(self.partition.key("identity"))
            .arg(Nonce::random().0)
            .arg(BusId::random().to_string())
            .invoke_async(&mut self.inner)
            .await?;
        Ok((position.parse().unwrap_or_default(), Register::read(fields), identity))
    }

    /// Stores the report of `instance`, and returns the entries after `position` and the membership.
    /// Removes the `lapsed` members that have not reported again.
    pub async fn renew(
        &mut self,
        instance: &[u8],
        report: &str,
        position: Position,
        lapsed: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<(Vec<Entry>, Register), RedisError> {
        let mut renew = RENEW.prepare_invoke();
        renew
            .key(self.partition.key("register"))
            .key(self.partition.key("events"))
            .arg(instance)
            .arg(report)
            .arg(position.to_string())
            .arg(BATCH);
        for (instance, report) in lapsed {
            renew.arg(instance).arg(report);
        }
        let (entries, fields): (Vec<RawEntry>, _) = renew.invoke_async(&mut self.inner).await?;
        Ok((read_all(entries)?, Register::read(fields)))
    }

    /// Waits until `replicas` replicas have received everything that was written on this connection.
    ///
    /// # Errors
    /// Fewer replicas have, within the timeout.
    pub async fn wait_for_replicas(&mut self, replicas: usize) -> Result<(), RedisError> {
        if replicas == 0 {
            return Ok(());
        }
        let confirmed: usize =
            cmd("WAIT").arg(replicas).arg(REPLICAS_TIMEOUT.as_millis()).query_async(&mut self.inner).await?;
        if confirmed < replicas {
            return Err((ErrorKind::Io, "too few replicas confirm what is written").into());
        }
        Ok(())
    }

    /// Waits for entries after `position`, for at most `timeout`.
    pub async fn wait_for_entries(
        &mut self,
        position: Position,
        timeout: Duration,
    ) -> Result<Vec<Entry>, RedisError> {
        let streams: Option<Vec<(String, Vec<RawEntry>)>> = cmd("XREAD")
            .arg("COUNT")
            .arg(BATCH)
            .arg("BLOCK")
            .arg(timeout.as_millis().max(1))
            .arg("STREAMS")
            .arg(self.partition.key("events"))
            .arg(position.to_string())
            .query_async(&mut self.inner)
            .await?;
        read_all(streams.into_iter().flatten().flat_map(|(_, entries)| entries).collect())
    }

    /// Checks that the node responds.
    pub async fn ping(&mut self) -> Result<(), RedisError> {
        cmd("PING").exec_async(&mut self.inner).await
    }

    /// Removes an instance that stops from the membership.
    pub async fn leave(&mut self, instance: &[u8]) -> Result<(), RedisError> {
        cmd("HDEL").arg(self.partition.key("register")).arg(instance).exec_async(&mut self.inner).await
    }

    /// Adds a token to the list and publishes an event.
    pub async fn allow(&mut self, entry: &TokenRecord, now: UnixSeconds) -> Result<(), RedisError> {
        ALLOW
            .key(self.partition.key("register"))
            .key(self.partition.key("events"))
            .key(self.partition.token_key(entry.token_id))
            .arg(Nonce::random().0)
            .arg(Event::Issued(*entry).to_string())
            .arg(RETENTION_MS)
            .arg(entry.session_id.to_string())
            .arg((entry.expires_at - now).max(1))
            .invoke_async(&mut self.inner)
            .await
    }

    /// Removes tokens from the list, and publishes the revocation of these sessions in an event with this
    /// nonce.
    pub async fn revoke(
        &mut self,
        nonce: Nonce,
        sessions: &[SessionId],
        tokens: &[TokenId],
    ) -> Result<(), RedisError> {
        let mut revoke = REVOKE.prepare_invoke();
        revoke.key(self.partition.key("register")).key(self.partition.key("events"));
        for token_id in tokens {
            revoke.key(self.partition.token_key(*token_id));
        }
        revoke
            .arg(nonce.0)
            .arg(Event::Revoked(sessions.to_vec()).to_string())
            .arg(RETENTION_MS)
            .invoke_async(&mut self.inner)
            .await
    }

    /// Whether the token is on the list.
    pub async fn contains(&mut self, entry: &TokenRecord) -> Result<bool, RedisError> {
        let session: Option<Vec<u8>> =
            cmd("GET").arg(self.partition.token_key(entry.token_id)).query_async(&mut self.inner).await?;
        Ok(session.is_some_and(|session| session == entry.session_id.to_string().as_bytes()))
    }

    /// Records an attempt and returns zero, or returns how long it has to wait.
    pub async fn record_attempt(
        &mut self,
        bucket: BucketKey,
        limit: RateLimit,
    ) -> Result<Duration, RedisError> {
        let wait: u64 = RECORD_ATTEMPT
            .key(self.attempts_key(bucket))
            .arg(limit.burst)
            .arg(limit.refill_interval.as_millis().max(1))
            .arg(MAX_BACKOFF.as_millis())
            .invoke_async(&mut self.inner)
            .await?;
        Ok(Duration::from_millis(wait))
    }

    /// Takes back an attempt that was recorded.
    pub async fn refund_attempt(&mut self, bucket: BucketKey) -> Result<(), RedisError> {
        REFUND_ATTEMPT.key(self.attempts_key(bucket)).invoke_async(&mut self.inner).await
    }

    fn attempts_key(&self, bucket: BucketKey) -> String {
        self.partition.key(&format!("attempts:{}", BASE64_URL_SAFE_NO_PAD.encode(bucket.0)))
    }

    /// The warnings about settings of this Redis that put its data or confirmed revocations at risk.
    pub async fn config_warnings(&mut self, nodes: usize) -> Result<Vec<String>, RedisError> {
        let text: String = cmd("INFO").query_async(&mut self.inner).await?;
        let mut config_warnings = Vec::new();
        let policy = info_field(&text, "maxmemory_policy");
        if policy != "noeviction" {
            config_warnings
                .push(format!("Redis may evict keys (maxmemory-policy {policy}): set it to noeviction"));
        }
        let replicas: usize = info_field(&text, "connected_slaves").parse().unwrap_or_default();
        if replicas + 1 > nodes {
            config_warnings.push(match replicas {
                1 => "this Redis has one replica: set HALLPASS_REDIS_NODES=2, so that no failover undoes a \
                      revocation. Both nodes then confirm each one, so after a failover none is confirmed until \
                      the second node is back; to go on meanwhile takes two replicas, and HALLPASS_REDIS_NODES=3"
                    .into(),
                _ => format!(
                    "this Redis has {replicas} replicas: set HALLPASS_REDIS_NODES={}, so that a majority confirms \
                     each revocation and no failover undoes it",
                    replicas + 1
                ),
            });
        }
        Ok(config_warnings)
    }
}

/// Whether this node is not, or no longer, the right one for the command: a replica, another node of the
/// Redis Cluster, a primary that has lost its replicas, or a node that is still loading.
pub fn is_elsewhere(error: &RedisError) -> bool {
    use ServerErrorKind::{Ask, BusyLoading, ClusterDown, MasterDown, Moved, ReadOnly, TryAgain};
    matches!(
        error.kind(),
        ErrorKind::Server(ReadOnly | Moved | Ask | TryAgain | MasterDown | ClusterDown | BusyLoading)
    ) || error.code() == Some("NOREPLICAS")
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;

    use super::*;

    /// The error that a node's response is converted to.
    fn answer(text: &str) -> RedisError {
        let value = parse_redis_value(format!("-{text}\r\n").as_bytes()).unwrap();
        value.extract_error().unwrap_err()
    }

    fn servers(url: &str) -> Servers {
        let settings = serde_json::json!({ "url": url, "nodes": 1, "partitions": 1 });
        let config: RedisConfig = serde_json::from_value(settings).unwrap();
        Servers::new(&config, None).unwrap()
    }

    fn addresses(url: &str) -> Vec<String> {
        servers(url).seeds.iter().map(|seed| seed.addr().to_string()).collect()
    }

    #[test]
    fn errors_are_final_or_tried_again_here_or_elsewhere() {
        #[derive(Debug, PartialEq)]
        enum Next {
            /// Startup fails.
            GiveUp,
            /// Try again on the same connection.
            TryAgain,
            /// Try again on a connection to the current primary.
            LookElsewhere,
        }
        use Next::{GiveUp, LookElsewhere, TryAgain};
        for (text, next) in [
            ("LOADING Redis is loading the dataset in memory", LookElsewhere),
            (
                "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
                LookElsewhere,
            ),
            ("READONLY You can't write against a read only replica.", LookElsewhere),
            ("CLUSTERDOWN The cluster is down", LookElsewhere),
            ("MOVED 6164 127.0.0.1:7001", LookElsewhere),
            ("ASK 6164 127.0.0.1:7001", LookElsewhere),
            ("TRYAGAIN Multiple keys request during rehashing of slot", LookElsewhere),
            ("NOREPLICAS Not enough good replicas to write.", LookElsewhere),
            ("MISCONF Redis is configured to save RDB snapshots, but it's currently unable to", TryAgain),
            ("BUSY Redis is busy running a script. You can only call SCRIPT KILL", TryAgain),
            ("OOM command not allowed when used memory > 'maxmemory'.", TryAgain),
            ("ERR max number of clients reached", TryAgain),
            ("ERR something else", TryAgain),
            ("NOAUTH Authentication required.", GiveUp),
            ("WRONGPASS invalid username-password pair or user is disabled.", GiveUp),
            ("NOPERM this user has no permissions to run the 'evalsha' command", GiveUp),
            ("DENIED Redis is running in protected mode", GiveUp),
            // Redis 7.0, and 7.2 or newer.
            ("ERR The user executing the script can't run this command or subcommand script: 0", GiveUp),
            ("ERR ACL failure in script: User h has no permissions to run the 'hset' command", GiveUp),
            // Redis 6.2, and implementations with other flags.
            ("ERR Error compiling script (new function): user_script:1: unexpected symbol near '#'", GiveUp),
            ("ERR Unexpected flag in script shebang: allow-oom", GiveUp),
            ("ERR unknown command 'EVALSHA', with args beginning with: ", GiveUp),
        ] {
            let error = answer(text);
            let found = match (is_final(&error), is_elsewhere(&error)) {
                (true, false) => GiveUp,
                (false, true) => LookElsewhere,
                (false, false) => TryAgain,
                (true, true) => panic!("both: {text}"),
            };
            assert_eq!(found, next, "{text}");
        }
        assert!(!is_final(&io::Error::from(io::ErrorKind::ConnectionRefused).into()));
        assert!(is_final(&refused("for a reason".into())));
    }

    #[test]
    fn several_errors_are_final_only_together() {
        let (wrong, other) = (|| answer("WRONGPASS wrong"), || answer("CLUSTERDOWN down"));
        assert!(is_final(&all_in_one(vec![wrong(), answer("NOAUTH none")])));
        for mixed in [vec![wrong(), other()], vec![other(), wrong()]] {
            let error = all_in_one(mixed);
            assert!(!is_final(&error));
            assert!(error.to_string().contains("wrong") && error.to_string().contains("down"), "{error}");
        }
        assert_eq!(all_in_one(vec![other(), other()]).to_string(), other().to_string());
        assert!(is_final(&in_context("a server", &wrong())) && !is_final(&in_context("a server", &other())));
    }

    #[test]
    fn redirects_name_a_host_or_mean_the_same() {
        let seed = &servers("redis+cluster://seed.example:7000").seeds[0];
        for (address, host, port) in [
            ("10.0.0.1:7001", "10.0.0.1", 7001),
            ("node.example:7001", "node.example", 7001),
            (":7001", "seed.example", 7001),
            ("?:7001", "seed.example", 7001),
            ("::1:7001", "::1", 7001),
            ("[2001:db8::1]:7001", "2001:db8::1", 7001),
        ] {
            for code in ["MOVED", "ASK"] {
                let found = redirect(&answer(&format!("{code} 6164 {address}")), seed).unwrap();
                assert_eq!(found, (host.to_owned(), port), "{code} {address}");
            }
        }
        for address in ["", "7001", "host:", "host:x", "host:70000"] {
            assert!(redirect(&answer(&format!("MOVED 6164 {address}")), seed).is_err(), "{address}");
        }
        let secure = &servers("rediss+cluster://seed.example:7000").seeds[0];
        let moved = redirect(&answer("MOVED 6164 :7001"), secure).unwrap();
        assert_eq!(moved, ("seed.example".to_owned(), 7001));
    }

    #[test]
    fn addresses_have_the_port_that_is_usual_for_their_kind() {
        assert_eq!(
            addresses("redis+sentinel://user:p%40ss@a,b:1,[::1],[::1]:2/name"),
            ["a:26379", "b:1", "::1:26379", "::1:2"]
        );
        assert_eq!(addresses("redis+cluster://a,b:1,[::1]"), ["a:6379", "b:1", "::1:6379"]);
        assert_eq!(addresses("redis://a"), ["a:6379"]);
    }

    #[test]
    fn servers_that_cannot_be_used_are_refused_by_what_they_say() {
        let check = |version: &str, role: &str, mode: &str| {
            About { version: version.into(), role: role.into(), mode: mode.into() }.check()
        };
        for old in ["2.8.4", "5.0.14", "6.2.14", "6.3.4"] {
            let error = check(old, "master", "standalone").unwrap_err();
            assert!(is_final(&error));
            let text = format!("Redis 7.0 or newer is needed, and this server is version {old}");
            assert_eq!(error.to_string(), text);
        }
        for new in ["7.0.0", "7.2.4-rc1", "8.0.1", "10.0", "255.255.255", "", "unheard of"] {
            assert!(check(new, "master", "standalone").is_ok(), "{new}");
        }
        assert!(check("", "", "").is_ok(), "nothing is known");
        for role in ["replica", "slave"] {
            assert!(!is_final(&check("7.0.15", role, "cluster").unwrap_err()));
        }
        assert!(is_final(&check("7.0.15", "", "sentinel").unwrap_err()));
    }
}
