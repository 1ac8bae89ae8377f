//! The distributed copy: which server to ask, the keys, the scripts. The only file that names the
//! `redis` crate.
//!
//! Users are dealt out to *partitions*. All keys of a partition have one hash tag, so that they
//! are on one server of a Cluster, and one script can change them together:
//!
//! | key | type | holds |
//! |---|---|---|
//! | `{hp:N}:token:<jti>` | string | the session's id, for as long as the token lives: the allowlist |
//! | `{hp:N}:events` | stream | what was issued and revoked, as far back as twice the life of a token |
//! | `{hp:N}:tries:<hash>` | hash | how often a password was tried, for `server/throttle.rs` |
//! | `{hp:N}:identity` | string | which Redis this is: a random value made once. All instances follow the same |
//! | `{hp:N}:register` | hash | each running instance's report, with how far it has followed the events; and `head`, the nonce of the newest event |
//!
//! The end of the chain is a field of the register, so that neither can be lost without the other:
//! an instance that nobody remembers would be waited for by nobody.
//!
//! A connection here is always a plain one to the one server that is the primary of a partition,
//! also behind Sentinels or in a Cluster, and it never connects again by itself: who follows the
//! events has to know when the server may be another one.

use std::{collections::HashMap, sync::LazyLock, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, Script,
    ServerErrorKind, TlsCertificates, aio::MultiplexedConnection, cmd,
};
use secrecy::ExposeSecret;

use super::event::{Event, Link, Nonce, Position};
use crate::server::{
    access_tokens::TokenEntry,
    clock::UnixSeconds,
    config::RedisConfig,
    ids::{BusId, SessionId, TokenId, UserId},
    throttle::{Bucket, LONGEST_WAIT, Limit},
};

pub use redis::RedisError;

/// How long a connection may take, and an answer. No longer than a lease, which has lapsed by then.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// How long replicas may take to confirm a write. Less than any answer may.
const REPLICAS_TIMEOUT: Duration = Duration::from_millis(500);

/// How many entries of the stream are read at once.
pub const BATCH: usize = 1000;

/// The stream reaches back twice as long as any access token lives: 300 s is the most.
const RETENTION_MS: u64 = 600_000;

static JOIN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/join.lua")));
static RENEW: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/renew.lua")));
static ALLOW: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/allow.lua")));
static COUNT_TRY: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/count_try.lua")));
static GIVE_BACK_TRY: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/give_back_try.lua")));
static REVOKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/revoke.lua")));

/// Where the primary of a partition is to be found.
#[derive(Clone)]
pub struct Servers {
    kind: Kind,
    /// Any of them will do to ask.
    seeds: Vec<ConnectionInfo>,
    tls: Option<TlsCertificates>,
}

#[derive(Clone)]
enum Kind {
    /// The seed itself.
    Single,
    /// The seeds are Sentinels, which know where the primary of this name is.
    Sentinel { name: String, primary: Box<ConnectionInfo> },
    /// The seeds are nodes, which redirect to the one that has the keys.
    Cluster,
}

impl Servers {
    /// Reads `redis://…`, `redis+sentinel://…/name` or `redis+cluster://…`, each also with
    /// `rediss`. Connects to nothing.
    ///
    /// # Errors
    /// The address cannot be understood.
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
        let each = |credentials: &str| -> Result<Vec<_>, _> {
            hosts.split(',').map(|host| parse(format!("{protocol}://{credentials}{host}"))).collect()
        };
        let (kind, seeds) = match kind {
            "" => (Kind::Single, vec![parse(url.to_owned())?]),
            "sentinel" if path.is_empty() => {
                return Err(wrong("the name of the primary is missing at its end"));
            }
            "sentinel" => {
                let primary = Box::new(parse(format!("{protocol}://{credentials}127.0.0.1"))?);
                (Kind::Sentinel { name: path.to_owned(), primary }, each("")?)
            }
            "cluster" => (Kind::Cluster, each(&credentials)?),
            _ => return Err(wrong("its scheme is unknown")),
        };
        Ok(Self { kind, seeds, tls })
    }

    /// Opens a connection to the partition's primary.
    ///
    /// # Errors
    /// None of the servers that were asked answers, or says where it is.
    pub async fn connect(&self, partition: Partition) -> Result<Connection, RedisError> {
        let mut result = Err(RedisError::from((ErrorKind::Io, "no server was named")));
        for seed in &self.seeds {
            result = self.connect_through(seed, partition).await;
            if result.is_ok() {
                break;
            }
        }
        Ok(Connection { partition, inner: result? })
    }

    async fn connect_through(
        &self,
        seed: &ConnectionInfo,
        partition: Partition,
    ) -> Result<MultiplexedConnection, RedisError> {
        let mut connection = self.open(seed.clone()).await?;
        match &self.kind {
            Kind::Single => Ok(connection),
            Kind::Sentinel { name, primary } => {
                let (host, port): (String, u16) = cmd("SENTINEL")
                    .arg("GET-MASTER-ADDR-BY-NAME")
                    .arg(name)
                    .query_async(&mut connection)
                    .await?;
                self.open(at(primary, host, port)).await
            }
            Kind::Cluster => {
                let probe = cmd("GET").arg(partition.key("head")).exec_async(&mut connection).await;
                match probe.as_ref().err().and_then(RedisError::redirect_node) {
                    Some((address, _)) => {
                        let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
                        self.open(at(seed, host.to_owned(), port.parse().unwrap_or_default())).await
                    }
                    None => probe.map(|()| connection),
                }
            }
        }
    }

    async fn open(&self, info: ConnectionInfo) -> Result<MultiplexedConnection, RedisError> {
        // Each command is waited for: nothing is gained by holding it back.
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let info = info.set_tcp_settings(tcp);
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

/// The same way of connecting, to another server.
fn at(info: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let address = match info.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    info.clone().set_addr(address)
}

/// Whether trying again will not help: the settings are wrong.
pub fn is_final(error: &RedisError) -> bool {
    let refused = matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"));
    refused || matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig)
}

/// A share of the users, and their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition(u16);

impl Partition {
    pub fn all(count: u16) -> impl Iterator<Item = Self> {
        (0..count).map(Self)
    }

    /// Where this user belongs, among `count`: the same on every instance.
    pub fn of(user_id: UserId, count: u16) -> Self {
        Self::by(user_id.as_bytes(), count)
    }

    /// Where these 16 bytes, which are random already, belong.
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

/// Who is there, and where the chain ends.
pub struct Register {
    /// `None` when there is no chain.
    pub head: Option<Nonce>,
    /// What each instance has reported, by the instance's id.
    pub reports: HashMap<Vec<u8>, Vec<u8>>,
}

impl Register {
    fn read(mut fields: HashMap<Vec<u8>, Vec<u8>>) -> Self {
        let head = fields.remove(b"head".as_slice());
        let head = head.and_then(|head| str::from_utf8(&head).ok()?.parse().ok());
        Self { head: head.map(Nonce), reports: fields }
    }
}

/// What is in the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    Link(Link),
    /// Part of the chain, yet its event cannot be read.
    Unreadable(Position),
    /// Not written by any of us.
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
    /// Finds out where the chain stands, and which Redis this is; begins a chain, and gives it an identity,
    /// where there is none.
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

    /// Reports for `instance`; what follows `position` comes back, and the register. `lapsed` are
    /// dropped from the register if they have not reported again.
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

    /// Makes sure that `replicas` have got everything that was written on this connection.
    ///
    /// # Errors
    /// Fewer have, in the time that there is.
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

    /// Waits for entries after `position`, for `patience` at the most.
    pub async fn wait_for_entries(
        &mut self,
        position: Position,
        patience: Duration,
    ) -> Result<Vec<Entry>, RedisError> {
        let streams: Option<Vec<(String, Vec<RawEntry>)>> = cmd("XREAD")
            .arg("COUNT")
            .arg(BATCH)
            .arg("BLOCK")
            .arg(patience.as_millis().max(1))
            .arg("STREAMS")
            .arg(self.partition.key("events"))
            .arg(position.to_string())
            .query_async(&mut self.inner)
            .await?;
        read_all(streams.into_iter().flatten().flat_map(|(_, entries)| entries).collect())
    }

    /// Makes sure that the server answers.
    pub async fn ping(&mut self) -> Result<(), RedisError> {
        cmd("PING").exec_async(&mut self.inner).await
    }

    /// Takes an instance that stops off the register.
    pub async fn leave(&mut self, instance: &[u8]) -> Result<(), RedisError> {
        cmd("HDEL").arg(self.partition.key("register")).arg(instance).exec_async(&mut self.inner).await
    }

    /// Lists a token, and tells the others.
    pub async fn allow(&mut self, entry: &TokenEntry, now: UnixSeconds) -> Result<(), RedisError> {
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

    /// Takes tokens off the list, and tells the others that these sessions have ended, in an
    /// entry with this nonce.
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
    pub async fn is_listed(&mut self, entry: &TokenEntry) -> Result<bool, RedisError> {
        let session: Option<Vec<u8>> =
            cmd("GET").arg(self.partition.token_key(entry.token_id)).query_async(&mut self.inner).await?;
        Ok(session.is_some_and(|session| session == entry.session_id.to_string().as_bytes()))
    }

    /// Counts a try at a password, unless it has to wait: then for how long.
    pub async fn count_try(&mut self, bucket: Bucket, limit: Limit) -> Result<Duration, RedisError> {
        let wait: u64 = COUNT_TRY
            .key(self.tries_key(bucket))
            .arg(limit.free)
            .arg(limit.forgets_every.as_millis().max(1))
            .arg(LONGEST_WAIT.as_millis())
            .invoke_async(&mut self.inner)
            .await?;
        Ok(Duration::from_millis(wait))
    }

    /// Takes back a try that was counted.
    pub async fn give_back_try(&mut self, bucket: Bucket) -> Result<(), RedisError> {
        GIVE_BACK_TRY.key(self.tries_key(bucket)).invoke_async(&mut self.inner).await
    }

    fn tries_key(&self, bucket: Bucket) -> String {
        self.partition.key(&format!("tries:{}", BASE64_URL_SAFE_NO_PAD.encode(bucket.0)))
    }

    /// What in the settings of this server would surprise its owner.
    pub async fn misgivings(&mut self, nodes: usize) -> Result<Vec<String>, RedisError> {
        let text: String = cmd("INFO").query_async(&mut self.inner).await?;
        let value = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default()
        };
        let mut misgivings = Vec::new();
        let policy = value("maxmemory_policy");
        if policy != "noeviction" {
            misgivings.push(format!(
                "this Redis may throw away what it holds (maxmemory-policy {policy}): set it to noeviction"
            ));
        }
        let replicas: usize = value("connected_slaves").parse().unwrap_or_default();
        if replicas + 1 > nodes {
            misgivings.push(format!(
                "this Redis has {replicas} replicas: set HALLPASS_REDIS_NODES={} so that a fail-over is survived",
                replicas + 1
            ));
        }
        Ok(misgivings)
    }
}

/// Whether the server is not, or no longer, the one to ask: a replica, or another node of the Cluster.
pub fn is_elsewhere(error: &RedisError) -> bool {
    use ServerErrorKind::{Ask, ClusterDown, MasterDown, Moved, ReadOnly};
    matches!(error.kind(), ErrorKind::Server(ReadOnly | Moved | Ask | MasterDown | ClusterDown))
}
