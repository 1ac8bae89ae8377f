//! How the primary of a partition is found: directly, through Sentinels, or in a Redis Cluster.
//!
//! A connection always leads directly to the one server that is the primary, and it never reconnects: a follower
//! has to notice when it may be connected to another one.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, ServerErrorKind, TlsCertificates, Value,
    aio::MultiplexedConnection,
    cmd, from_redis_value,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use secrecy::ExposeSecret;
use tokio::time;

use super::{
    connection::{Connection, info_field, key},
    error::{all_in_one, in_context, refused},
    options::RedisOptions,
};
use crate::bus::stream::{ANSWER_TIMEOUT, Partition};

/// The timeout for connecting. No longer than a lease, which has expired by then.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

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

/// The configuration by which the primary of a partition is found.
#[derive(Clone)]
pub struct Topology {
    kind: Kind,
    /// The addresses to start from. Any of them suffices.
    seeds: Vec<ConnectionInfo>,
    tls: Option<TlsCertificates>,
    nodes: usize,
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

impl Topology {
    /// Parses `redis://…`, `redis+sentinel://…/name` or `redis+cluster://…`, each also with `rediss`. Does
    /// not connect.
    ///
    /// # Errors
    /// The address cannot be parsed.
    pub fn new(options: &RedisOptions) -> Result<Self, RedisError> {
        let wrong = |what: &'static str| RedisError::from((ErrorKind::InvalidClientConfig, what));
        let url = options.url.expose_secret();
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("it has no scheme"))?;
        let (protocol, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        let (credentials, rest) = match rest.rsplit_once('@') {
            Some((credentials, rest)) => (format!("{credentials}@"), rest),
            None => (String::new(), rest),
        };
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let parse = |text: String| text.into_connection_info();
        let tls = options.ca.clone().map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem) });
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
                let login = match (&options.sentinel_username, &options.sentinel_password) {
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
        let routes = (0..options.partitions).map(|_| Mutex::default()).collect();
        Ok(Self { kind, seeds, tls, nodes: options.nodes, routes })
    }

    pub fn partitions(&self) -> u16 {
        self.routes.len().try_into().unwrap_or(u16::MAX)
    }

    pub fn nodes(&self) -> usize {
        self.nodes
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
                    return Ok(Connection::new(partition, inner));
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

    /// Opens another connection to the node that [`Topology::connect`] last connected to: when Sentinels
    /// disagree, the commands have to go to the node whose events are followed.
    ///
    /// # Errors
    /// The node does not answer, or is no longer a primary.
    pub async fn connect_beside(&self, partition: Partition) -> Result<Connection, RedisError> {
        let primary = self.route(partition).primary.clone();
        match primary {
            Some(primary) => Ok(Connection::new(partition, self.open_primary(&primary).await?)),
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
                match cmd("GET").arg(key(partition, "head")).exec_async(&mut node).await {
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

#[cfg(test)]
mod tests {
    use super::{
        super::error::{answer, is_final},
        *,
    };

    fn topology(url: &str) -> Topology {
        Topology::new(&RedisOptions { url: url.into(), nodes: 1, partitions: 1, ..RedisOptions::default() })
            .unwrap()
    }

    fn addresses(url: &str) -> Vec<String> {
        topology(url).seeds.iter().map(|seed| seed.addr().to_string()).collect()
    }

    #[test]
    fn redirects_name_a_host_or_mean_the_same() {
        let seed = &topology("redis+cluster://seed.example:7000").seeds[0];
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
        let secure = &topology("rediss+cluster://seed.example:7000").seeds[0];
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
