//! Settings: the compiled-in defaults, then Leptos.toml, then the environment, each of which overrides the
//! one before. An invalid setting stops the instance at start, with an error that names the setting and the
//! remedy.

use std::{collections::BTreeMap, env, ffi::OsString, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use leptos::config::LeptosOptions;
use lettre::message::Mailbox;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use utoipa::ToSchema;

use crate::server::{gate_listener::GateAddress, origin::PublicOrigins, trusted_proxies::TrustedProxies};

const DEFAULTS: &str = include_str!("../../Leptos.toml");

/// The environment variable of each key in Hallpass's own tables.
const OVERRIDES: &[(&str, &str)] = &[
    ("HALLPASS_HTTPS", "server.https"),
    ("HALLPASS_PUBLIC_URL", "server.public_url"),
    ("HALLPASS_TRUSTED_PROXIES", "server.trusted_proxies"),
    ("HALLPASS_REQUEST_TIMEOUT", "server.request_timeout_seconds"),
    ("HALLPASS_BODY_LIMIT", "server.body_limit_bytes"),
    ("HALLPASS_SHUTDOWN_GRACE", "server.shutdown_grace_seconds"),
    ("HALLPASS_STARTUP_WAIT", "server.startup_wait_seconds"),
    ("HALLPASS_ISSUER", "token.issuer"),
    ("HALLPASS_AUDIENCE", "token.audience"),
    ("HALLPASS_GATE_ADDR", "gate.addr"),
    ("HALLPASS_GATE_IDENTITY_HEADERS", "gate.identity_headers"),
    ("HALLPASS_ACCESS_TTL", "token.access_ttl_seconds"),
    ("HALLPASS_REFRESH_TTL", "token.refresh_ttl_seconds"),
    ("HALLPASS_IDLE_TTL", "token.idle_ttl_seconds"),
    ("HALLPASS_REFRESH_GRACE", "token.refresh_grace_seconds"),
    ("HALLPASS_KEYS", "token.keys"),
    ("HALLPASS_SIGNING_ALG", "token.signing_alg"),
    ("HALLPASS_SIGNING_KEY", "token.signing_key"),
    ("HALLPASS_PREVIOUS_SIGNING_KEY", "token.previous_signing_key"),
    ("DATABASE_URL", "database.url"),
    ("HALLPASS_DATABASE_CONNECTIONS", "database.max_connections"),
    ("REDIS_URL", "redis.url"),
    ("HALLPASS_REDIS_CA", "redis.ca_file"),
    ("HALLPASS_REDIS_NODES", "redis.nodes"),
    ("HALLPASS_REDIS_PARTITIONS", "redis.partitions"),
    ("HALLPASS_INSTANCE", "redis.instance"),
    ("HALLPASS_SENTINEL_USERNAME", "redis.sentinel_username"),
    ("HALLPASS_SENTINEL_PASSWORD", "redis.sentinel_password"),
    ("HALLPASS_ARGON2_MEMORY", "password.memory_kib"),
    ("HALLPASS_ARGON2_ITERATIONS", "password.iterations"),
    ("HALLPASS_ARGON2_PARALLELISM", "password.parallelism"),
    ("HALLPASS_PASSWORD_WORKERS", "password.workers"),
    ("HALLPASS_PASSWORD_QUEUE", "password.queue"),
    ("HALLPASS_BREACHED_PASSWORDS", "password.breached"),
    ("HALLPASS_LOGIN_ATTEMPTS_PER_ACCOUNT", "throttle.per_account"),
    ("HALLPASS_LOGIN_ATTEMPTS_PER_ADDRESS", "throttle.per_address"),
    ("HALLPASS_LOGIN_ATTEMPTS_PER_DEVICE", "throttle.per_device"),
    ("HALLPASS_REFRESHES_PER_SESSION", "throttle.refreshes_per_session"),
    ("HALLPASS_REQUIRE_VERIFIED", "account.require_verified"),
    ("HALLPASS_ADMIN_SECOND_FACTOR", "account.admin_second_factor"),
    ("HALLPASS_SMTP_URL", "mail.smtp_url"),
    ("HALLPASS_MAIL_FROM", "mail.from"),
    ("HALLPASS_MAIL_DIR", "mail.dir"),
    ("HALLPASS_MAIL_COLOR", "mail.color"),
    ("HALLPASS_MAIL_ON_SITE", "mail.on_site"),
    ("HALLPASS_DEMO_NOTES", "demo.notes"),
];

/// The variables of earlier versions, with their present names.
const RENAMED: &[(&str, &str)] = &[
    ("HALLPASS_TRIES_PER_ACCOUNT", "HALLPASS_LOGIN_ATTEMPTS_PER_ACCOUNT"),
    ("HALLPASS_TRIES_PER_ADDRESS", "HALLPASS_LOGIN_ATTEMPTS_PER_ADDRESS"),
    ("HALLPASS_TRIES_PER_DEVICE", "HALLPASS_LOGIN_ATTEMPTS_PER_DEVICE"),
    ("HALLPASS_KEY_FILE", "HALLPASS_KEYS"),
];

const MAX_REFRESH_TTL: i64 = 400 * 86_400;

const LEPTOS_TABLE: &str = "package.metadata.leptos";

/// The settings of an instance.
#[derive(Debug, Clone)]
pub struct Config {
    pub leptos: LeptosOptions,
    pub server: ServerConfig,
    pub gate: GateConfig,
    pub token: TokenConfig,
    pub database: DatabaseConfig,
    pub redis: RedisConfig,
    pub password: PasswordConfig,
    pub throttle: ThrottleConfig,
    pub account: AccountConfig,
    pub mail: MailConfig,
    pub demo: DemoConfig,
}

/// The tables of Leptos.toml. The table of Leptos is skipped here, because it is read as [`LeptosOptions`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    #[serde(rename = "package")]
    _leptos: IgnoredAny,
    server: ServerConfig,
    gate: GateConfig,
    token: TokenConfig,
    database: DatabaseConfig,
    redis: RedisConfig,
    password: PasswordConfig,
    throttle: ThrottleConfig,
    account: AccountConfig,
    mail: MailConfig,
    demo: DemoConfig,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    pub https: bool,
    pub public_url: PublicOrigins,
    pub trusted_proxies: TrustedProxies,
    pub request_timeout_seconds: u64,
    pub body_limit_bytes: usize,
    pub shutdown_grace_seconds: u64,
    pub startup_wait_seconds: u64,
}

impl ServerConfig {
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_seconds)
    }

    pub fn shutdown_grace(&self) -> Duration {
        Duration::from_secs(self.shutdown_grace_seconds)
    }

    pub fn startup_wait(&self) -> Duration {
        Duration::from_secs(self.startup_wait_seconds)
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DemoConfig {
    /// The path on this site at which a proxy serves the example service; `None`: it does not run.
    pub notes: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateConfig {
    /// Where the gate listens; `None`: there is none.
    pub addr: Option<GateAddress>,
    /// Whether its answers also say who the bearer is. A proxy that copies such headers must replace those of the
    /// client, in every spelling that the service behind it takes for the same.
    pub identity_headers: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenConfig {
    pub issuer: String,
    pub audience: String,
    pub access_ttl_seconds: i64,
    pub refresh_ttl_seconds: i64,
    pub idle_ttl_seconds: i64,
    pub refresh_grace_seconds: i64,
    /// The folder of signing keys, if none is set here.
    pub keys: String,
    /// The algorithm of keys that are made.
    pub signing_alg: SigningAlgorithm,
    pub signing_key: Option<SecretString>,
    pub previous_signing_key: Option<SecretString>,
}

/// How access tokens are signed (RFC 7518, 3.1; RFC 8037, 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, ValueEnum)]
pub enum SigningAlgorithm {
    /// Ed25519: the public key verifies.
    #[serde(rename = "EdDSA")]
    #[value(name = "EdDSA")]
    EdDsa,
    /// ECDSA with P-256 and SHA-256: the public key verifies.
    #[serde(rename = "ES256")]
    #[value(name = "ES256")]
    Es256,
    /// HMAC with SHA-256: the key that verifies also signs.
    #[serde(rename = "HS256")]
    #[value(name = "HS256")]
    Hs256,
}

impl SigningAlgorithm {
    /// The name in the header of a token (`alg`).
    pub fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Hs256 => "HS256",
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// The URL of the database, which may contain a password.
    pub url: SecretString,
    pub max_connections: u32,
}

impl DatabaseConfig {
    /// Whether several instances may share this database: PostgreSQL only.
    pub fn is_shared(&self) -> bool {
        let url = self.url.expose_secret();
        url.starts_with("postgres://") || url.starts_with("postgresql://")
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// The URL of Redis, which may contain a password. `None` for a single instance.
    pub url: Option<SecretString>,
    pub ca_file: Option<String>,
    #[serde(default = "single_node")]
    pub nodes: usize,
    pub partitions: u16,
    pub instance: Option<String>,
    pub sentinel_username: Option<String>,
    pub sentinel_password: Option<SecretString>,
}

fn single_node() -> usize {
    1
}

impl RedisConfig {
    /// Rejects Sentinels with one Redis node, and a Redis Cluster whose number of nodes is not set: with one
    /// node, a revocation could be confirmed by a primary alone and be lost with it in a failover.
    fn check_nodes(&self, is_set: bool) -> Result<()> {
        let url = self.url.as_ref().map(|url| url.expose_secret().trim().to_ascii_lowercase());
        let scheme = url.as_deref().and_then(|url| url.split("://").next()).unwrap_or_default();
        let kind = if scheme.ends_with("+sentinel") && self.nodes == 1 {
            "Sentinels"
        } else if scheme.ends_with("+cluster") && !is_set {
            "a Cluster"
        } else {
            return Ok(());
        };
        bail!(
            "REDIS_URL cannot be used: it names {kind}. Set HALLPASS_REDIS_NODES to the number of Redis nodes that hold the same data, a primary and \
             its replicas counted together (3 for a primary and two replicas). A majority of them confirms each revocation; \
             of 2 nodes that is both"
        )
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PasswordConfig {
    pub memory_kib: u32,
    pub iterations: u32,
    pub parallelism: u32,
    pub workers: usize,
    pub queue: usize,
    /// The file of passwords that are known from breaches.
    pub breached: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThrottleConfig {
    pub per_account: u32,
    pub per_address: u32,
    pub per_device: u32,
    pub refreshes_per_session: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountConfig {
    /// Whether a user has to open the link in a mail before they can log in. Otherwise an unconfirmed address
    /// only gets no notices.
    pub require_verified: bool,
    /// Whether administrators need a second factor, entered in the last 15 minutes, to change other users.
    pub admin_second_factor: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailConfig {
    /// The mail server, with a password possibly; `None`: mails are written to `dir`.
    pub smtp_url: Option<SecretString>,
    /// The sender, `Name <address>`. The name is also that of the site.
    pub from: Mailbox,
    /// The folder for mails if there is no mail server.
    pub dir: String,
    /// The color of the button in mails.
    pub color: HexColor,
    /// Whether the page `/dev/mail` shows the mails in `dir`.
    pub on_site: bool,
}

/// A color as CSS writes it, `#rrggbb`.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct HexColor(pub String);

impl TryFrom<String> for HexColor {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6);
        match digits {
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => Ok(Self(text)),
            _ => Err(format!("HALLPASS_MAIL_COLOR is {text:?}: it has to be like #2f4bd8")),
        }
    }
}

impl Config {
    /// Reads the settings from `file`, then from the environment.
    ///
    /// # Errors
    /// The file is missing or cannot be read, a key is unknown or has the wrong type, or a value is invalid.
    pub fn load(file: &Path) -> Result<Self> {
        let name = file.display();
        ensure!(
            file.is_file(),
            "there is no settings file {name}: start from the folder that holds Leptos.toml, or name one with --config"
        );
        let text = std::fs::read_to_string(file).with_context(|| format!("{name} cannot be read"))?;
        environment()
            .and_then(|environment| Self::from_parts(&text, &environment))
            .with_context(|| format!("the settings ({name} and the environment) cannot be used"))
    }

    fn from_parts(text: &str, environment: &BTreeMap<String, String>) -> Result<Self> {
        let toml = |text| config::File::from_str(text, config::FileFormat::Toml);
        let mut builder = config::Config::builder().add_source(toml(DEFAULTS)).add_source(toml(text));
        for (variable, value) in environment {
            let key = match OVERRIDES.iter().find(|(name, _)| name == variable) {
                Some((_, key)) => (*key).to_owned(),
                None => match variable.strip_prefix("LEPTOS_") {
                    Some(name) => format!("{LEPTOS_TABLE}.{}", name.to_ascii_lowercase().replace('_', "-")),
                    None => continue,
                },
            };
            builder = builder.set_override(key, value.as_str())?;
        }
        let settings = builder.build()?;
        let mut leptos: LeptosOptions = settings
            .get(LEPTOS_TABLE)
            .with_context(|| format!("the [{LEPTOS_TABLE}] table cannot be read"))?;
        // The path of the files contains their version instead (`http/assets.rs`).
        leptos.hash_files = false;
        let nodes_are_set = settings.get::<usize>("redis.nodes").is_ok();
        let Tables { server, gate, token, database, redis, password, throttle, account, mail, demo, .. } =
            settings.try_deserialize()?;
        let config =
            Self { leptos, server, gate, token, database, redis, password, throttle, account, mail, demo };
        config.check()?;
        config.redis.check_nodes(nodes_are_set)?;
        Ok(config)
    }

    /// The name of this instance: the configured one, or the host name and the port.
    pub fn instance_name(&self) -> String {
        let by_address = || format!("{}:{}", host_name(), self.leptos.site_addr.port());
        self.redis.instance.clone().unwrap_or_else(by_address)
    }

    fn check(&self) -> Result<()> {
        let access_ttl = self.token.access_ttl_seconds;
        ensure!(
            (1..=300).contains(&access_ttl),
            "HALLPASS_ACCESS_TTL is {access_ttl}: an access token lives 1 to 300 seconds"
        );
        let refresh_ttl = self.token.refresh_ttl_seconds;
        ensure!(
            refresh_ttl >= access_ttl,
            "HALLPASS_REFRESH_TTL is {refresh_ttl}: a session cannot be shorter than its access tokens ({access_ttl} seconds)"
        );
        ensure!(
            refresh_ttl <= MAX_REFRESH_TTL,
            "HALLPASS_REFRESH_TTL is {refresh_ttl}: no browser keeps a cookie for more than {MAX_REFRESH_TTL} seconds (400 days)"
        );
        let idle_ttl = self.token.idle_ttl_seconds;
        ensure!(
            idle_ttl >= access_ttl,
            "HALLPASS_IDLE_TTL is {idle_ttl}: a session cannot be shorter than its access tokens ({access_ttl} seconds)"
        );
        let grace = self.token.refresh_grace_seconds;
        ensure!(
            (0..=60).contains(&grace),
            "HALLPASS_REFRESH_GRACE is {grace}: it must be between 0 and 60 seconds"
        );
        let is_shared = self.database.is_shared();
        if !is_shared && !self.database.url.expose_secret().starts_with("sqlite://") {
            bail!("DATABASE_URL has to start with sqlite:// and name a file, or with postgres://");
        }
        match (&self.redis.url, is_shared) {
            (Some(_), false) => bail!(
                "REDIS_URL is set, for several instances, but DATABASE_URL is an SQLite file, which they cannot share: set \
                 DATABASE_URL to a postgres:// database, or leave REDIS_URL out"
            ),
            (None, true) => bail!(
                "DATABASE_URL is a PostgreSQL database, which several instances may share: set REDIS_URL, through which they \
                 exchange events, or use an SQLite file"
            ),
            _ => {}
        }
        ensure!(
            (1..=1024).contains(&self.redis.partitions),
            "HALLPASS_REDIS_PARTITIONS is {}: it must be between 1 and 1024",
            self.redis.partitions
        );
        let notes = self.demo.notes.as_deref().unwrap_or("/");
        ensure!(
            notes.starts_with('/') && !notes.starts_with("//"),
            "HALLPASS_DEMO_NOTES is {notes}: it must be a path on this site, such as /notes"
        );
        self.check_mail()?;
        let counts = [
            ("HALLPASS_REQUEST_TIMEOUT", self.server.request_timeout_seconds),
            ("HALLPASS_BODY_LIMIT", self.server.body_limit_bytes as u64),
            ("HALLPASS_DATABASE_CONNECTIONS", self.database.max_connections.into()),
            ("HALLPASS_STARTUP_WAIT", self.server.startup_wait_seconds),
            ("HALLPASS_REDIS_NODES", self.redis.nodes as u64),
            ("HALLPASS_LOGIN_ATTEMPTS_PER_ACCOUNT", self.throttle.per_account.into()),
            ("HALLPASS_LOGIN_ATTEMPTS_PER_ADDRESS", self.throttle.per_address.into()),
            ("HALLPASS_LOGIN_ATTEMPTS_PER_DEVICE", self.throttle.per_device.into()),
            ("HALLPASS_REFRESHES_PER_SESSION", self.throttle.refreshes_per_session.into()),
        ];
        for (variable, count) in counts {
            ensure!(count > 0, "{variable} is 0: it has to be at least 1");
        }
        Ok(())
    }

    fn check_mail(&self) -> Result<()> {
        let address = self.leptos.site_addr;
        ensure!(
            self.mail.smtp_url.is_none() || !self.server.public_url.0.is_empty(),
            "HALLPASS_SMTP_URL is set, but HALLPASS_PUBLIC_URL is not: set it to the address of this site, which is in the links of mails"
        );
        ensure!(
            !self.mail.on_site
                || (address.ip().is_loopback() && !self.server.https && self.mail.smtp_url.is_none()),
            "HALLPASS_MAIL_ON_SITE is true, which shows every mail, with its links, to every visitor: it is for development, without HALLPASS_HTTPS and HALLPASS_SMTP_URL, on a loopback address ({address} is open)"
        );
        Ok(())
    }

    /// The name of the site: that of the sender of its mails.
    pub fn site_name(&self) -> &str {
        let from = &self.mail.from;
        from.name.as_deref().unwrap_or_else(|| from.email.domain())
    }

    /// The address of the site in mails, such as `https://id.example.com`: the configured one, or that of the listener. Never
    /// taken from a request, whose `Host` anyone can choose.
    pub fn site_url(&self, listener: SocketAddr) -> String {
        let configured = self.server.public_url.0.first();
        configured.map_or_else(|| format!("http://{listener}"), ToString::to_string)
    }
}

/// The environment variables that hold settings, of Hallpass and of Leptos. Empty ones count as unset,
/// because Compose and Helm pass `NAME=` for a value that is not set.
fn environment() -> Result<BTreeMap<String, String>> {
    settings_in(env::vars_os().map(|(name, value)| (name.to_string_lossy().into_owned(), value)))
}

/// The variables among these that hold settings, with their values trimmed.
///
/// # Errors
/// A setting is not Unicode, or a variable has the prefix `HALLPASS_` and is not a setting: a misspelled one
/// would be silently ignored.
fn settings_in(variables: impl Iterator<Item = (String, OsString)>) -> Result<BTreeMap<String, String>> {
    let mut settings = BTreeMap::new();
    for (name, value) in variables {
        let is_leptos = name
            .strip_prefix("LEPTOS_")
            .is_some_and(|name| name.starts_with(|c: char| c.is_ascii_uppercase()));
        let is_known = is_leptos || OVERRIDES.iter().any(|(variable, _)| *variable == name);
        if !is_known {
            let is_refused =
                name.starts_with("HALLPASS_") && !is_of_kubernetes(&name, &value.to_string_lossy());
            if let Some((_, new)) = RENAMED.iter().find(|(old, _)| *old == name && !value.is_empty()) {
                bail!("{name} is now called {new}: see CHANGELOG.md");
            }
            ensure!(!is_refused, "there is no setting {name}: see Leptos.toml");
            continue;
        }
        let value = value.into_string().ok().with_context(|| format!("{name} is not text"))?;
        let value = value.trim();
        if !value.is_empty() {
            settings.insert(name, value.to_owned());
        }
    }
    Ok(settings)
}

/// Whether Kubernetes sets this variable in each pod for a Service whose name begins with `hallpass`:
/// <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT") {
        return true;
    }
    if name.contains("_SERVICE_PORT_") {
        return is_number(value);
    }
    if name.ends_with("_PORT") && is_url {
        return true;
    }
    // `HALLPASS_PORT_80_TCP`, alone or followed by `_PROTO`, `_PORT` or `_ADDR`.
    let parts = ["_PROTO", "_PORT", "_ADDR"];
    let port = parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
    let port = ["_TCP", "_UDP", "_SCTP"].iter().find_map(|protocol| port.strip_suffix(protocol));
    port.and_then(|port| port.rsplit_once("_PORT_")).is_some_and(|(_, number)| is_number(number))
}

/// The name of this host.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Whether `make dev` started this process, and changes the site's files while it runs.
pub fn is_watched() -> bool {
    env::var_os("LEPTOS_WATCH").is_some_and(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn load(environment: &[(&str, &str)]) -> Result<Config> {
        let environment = environment.iter().map(|(name, value)| (name.to_string(), value.into()));
        Config::from_parts(DEFAULTS, &settings_in(environment)?)
    }

    #[test]
    fn an_empty_variable_counts_as_unset_and_space_around_a_value_is_ignored() {
        let names = OVERRIDES.iter().map(|(name, _)| *name);
        for name in names.chain(["LEPTOS_SITE_ADDR", "LEPTOS_SITE_ROOT", "LEPTOS_RELOAD_PORT", "LEPTOS_ENV"])
        {
            for empty in ["", " ", "\t\n"] {
                let config = load(&[(name, empty)]).unwrap_or_else(|error| panic!("{name}: {error:#}"));
                assert_eq!(format!("{config:?}"), format!("{:?}", load(&[]).unwrap()), "{name}");
            }
        }
        let config = load(&[
            ("HALLPASS_ACCESS_TTL", " 60\n"),
            ("HALLPASS_HTTPS", "true "),
            ("LEPTOS_SITE_ADDR", " [::1]:4000 "),
        ])
        .unwrap();
        assert_eq!((config.token.access_ttl_seconds, config.server.https), (60, true));
        assert_eq!(config.leptos.site_addr.to_string(), "[::1]:4000");
    }

    #[test]
    fn kubernetes_variables_are_no_settings_and_misspelt_ones_are_refused() {
        for service in ["HALLPASS", "HALLPASS_WEB", "HALLPASS_REDIS_1"] {
            for (name, value) in [
                ("SERVICE_HOST", "10.0.0.7"),
                ("SERVICE_HOST", "fd00::7"),
                ("SERVICE_PORT", "80"),
                ("SERVICE_PORT_HTTP", "80"),
                ("SERVICE_PORT_HTTP_2", "8080"),
                ("PORT", "tcp://10.0.0.7:80"),
                ("PORT", "udp://10.0.0.7:53"),
                ("PORT_80_TCP", "tcp://10.0.0.7:80"),
                ("PORT_80_TCP_ADDR", "10.0.0.7"),
                ("PORT_80_TCP_PORT", "80"),
                ("PORT_80_TCP_PROTO", "tcp"),
                ("PORT_65535_UDP_ADDR", "10.0.0.7"),
                ("PORT_3868_SCTP", "sctp://10.0.0.7:3868"),
                ("PORT_3868_SCTP_PROTO", "sctp"),
            ] {
                let name = format!("{service}_{name}");
                assert!(load(&[(&name, value)]).is_ok(), "{name}={value}");
            }
        }
        for (name, value) in [
            ("HALLPASS_ACCES_TTL", "60"),
            ("HALLPASS_PORT", "8080"),
            ("HALLPASS_REDIS_PORT", "6379"),
            ("HALLPASS_PORT_TCP", "tcp"),
            ("HALLPASS_PORT_X_TCP", "tcp"),
            ("HALLPASS_SERVICE", "x"),
            ("HALLPASS_HTTP", "true"),
            ("HALLPASS_", "x"),
        ] {
            let error = load(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name), "{name}={value}: {error}");
        }
    }

    #[test]
    fn sentinels_and_a_cluster_need_the_number_of_nodes() {
        let nodes = |url: &str, nodes: Option<&str>| {
            let mut environment = vec![("DATABASE_URL", "postgres://localhost/x"), ("REDIS_URL", url)];
            environment.extend(nodes.map(|nodes| ("HALLPASS_REDIS_NODES", nodes)));
            load(&environment).map(|config| config.redis.nodes).map_err(|error| error.to_string())
        };
        for tls in ["redis", "rediss"] {
            let (single, sentinel, cluster) =
                (format!("{tls}://a"), format!("{tls}+sentinel://a,b/name"), format!("{tls}+cluster://a,b"));
            assert_eq!(nodes(&single, None), Ok(1));
            assert_eq!(nodes(&single, Some("2")), Ok(2));
            for (url, count) in
                [(&sentinel, None), (&sentinel, Some("")), (&sentinel, Some("1")), (&cluster, None)]
            {
                let error = nodes(url, count).unwrap_err();
                assert!(
                    error.contains("HALLPASS_REDIS_NODES") && error.contains("REDIS_URL"),
                    "{url}: {error}"
                );
            }
            assert_eq!(nodes(&sentinel, Some("3")), Ok(3));
            assert_eq!(nodes(&cluster, Some("1")), Ok(1));
            assert_eq!(nodes(&cluster, Some("2")), Ok(2));
        }
    }

    #[test]
    fn the_shipped_settings_are_accepted() {
        let config = load(&[]).unwrap();
        assert_eq!(config.token.access_ttl_seconds, 300);
        assert_eq!(config.database.url.expose_secret(), "sqlite://data/hallpass.db");
    }

    #[test]
    fn the_environment_wins() {
        let config = load(&[("HALLPASS_ACCESS_TTL", "60"), ("HALLPASS_HTTPS", "true")]).unwrap();
        assert_eq!(config.token.access_ttl_seconds, 60);
        assert!(config.server.https);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (variable, value) in [
            ("HALLPASS_ACCESS_TTL", "301"),
            ("HALLPASS_ACCESS_TTL", "0"),
            ("HALLPASS_REFRESH_TTL", "10"),
            ("HALLPASS_REFRESH_TTL", "9223372036854775807"),
            ("HALLPASS_REFRESH_GRACE", "-1"),
            ("HALLPASS_IDLE_TTL", "299"),
            ("DATABASE_URL", "mysql://localhost/x"),
            ("DATABASE_URL", "postgres://localhost/x"),
            ("REDIS_URL", "redis://localhost"),
            ("HALLPASS_REDIS_NODES", "0"),
            ("HALLPASS_REDIS_PARTITIONS", "0"),
            ("HALLPASS_STARTUP_WAIT", "0"),
            ("HALLPASS_LOGIN_ATTEMPTS_PER_ACCOUNT", "0"),
            ("HALLPASS_REFRESHES_PER_SESSION", "0"),
        ] {
            let error = load(&[(variable, value)]).unwrap_err().to_string();
            assert!(error.contains(variable), "{variable}={value}: {error}");
        }
        assert!(load(&[("HALLPASS_ACCESS_TTL", "five minutes")]).is_err());
        assert!(load(&[("HALLPASS_TRUSTED_PROXIES", "everyone")]).is_err());
    }

    #[test]
    fn every_key_has_its_variable_and_stands_in_the_file_with_it() {
        for (variable, key) in OVERRIDES {
            let name = key.split('.').next_back().unwrap();
            let documents = |line: &str| {
                let (setting, words) = line.trim_start_matches("# ").split_once(" # ").unwrap_or_default();
                setting.trim().split([' ', '=']).next() == Some(name)
                    && words.split_whitespace().next() == Some(*variable)
            };
            assert!(DEFAULTS.lines().any(documents), "{key} with {variable} is not in Leptos.toml");
        }
        let file: toml::Table = DEFAULTS.parse().unwrap();
        let overridable: BTreeSet<&str> = OVERRIDES.iter().map(|(_, key)| *key).collect();
        for (table, keys) in file.iter().filter(|(table, _)| *table != "package") {
            for key in keys.as_table().unwrap().keys() {
                assert!(
                    overridable.contains(format!("{table}.{key}").as_str()),
                    "{table}.{key} has no variable"
                );
            }
        }
    }

    #[test]
    fn leptos_toml_and_cargo_toml_agree() {
        let table = |text: &str| {
            let file: toml::Table = text.parse().unwrap();
            file["package"]["metadata"]["leptos"].as_table().unwrap().clone()
        };
        let cargo = table(include_str!("../../Cargo.toml"));
        for (key, value) in table(DEFAULTS) {
            assert_eq!(cargo.get(&key), Some(&value), "{key}");
        }
    }
}
