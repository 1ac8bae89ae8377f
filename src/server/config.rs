//! Settings: the compiled-in defaults, then Leptos.toml, then the environment. A setting that
//! makes no sense stops the server at start, with its name and what to write instead.

use std::{collections::BTreeMap, env, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use leptos::config::{LeptosOptions, get_configuration};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::IgnoredAny};

use super::caller::TrustedProxies;

const DEFAULTS: &str = include_str!("../../Leptos.toml");

/// The environment variable of each key of our own tables.
const OVERRIDES: &[(&str, &str)] = &[
    ("HALLPASS_HTTPS", "server.https"),
    ("HALLPASS_TRUSTED_PROXIES", "server.trusted_proxies"),
    ("HALLPASS_REQUEST_TIMEOUT", "server.request_timeout_seconds"),
    ("HALLPASS_BODY_LIMIT", "server.body_limit_bytes"),
    ("HALLPASS_SHUTDOWN_GRACE", "server.shutdown_grace_seconds"),
    ("HALLPASS_STARTUP_WAIT", "server.startup_wait_seconds"),
    ("HALLPASS_ISSUER", "token.issuer"),
    ("HALLPASS_AUDIENCE", "token.audience"),
    ("HALLPASS_ACCESS_TTL", "token.access_ttl_seconds"),
    ("HALLPASS_REFRESH_TTL", "token.refresh_ttl_seconds"),
    ("HALLPASS_IDLE_TTL", "token.idle_ttl_seconds"),
    ("HALLPASS_REFRESH_GRACE", "token.refresh_grace_seconds"),
    ("HALLPASS_KEY_FILE", "token.key_file"),
    ("HALLPASS_SIGNING_KEY", "token.signing_key"),
    ("HALLPASS_PREVIOUS_SIGNING_KEY", "token.previous_signing_key"),
    ("DATABASE_URL", "database.url"),
    ("HALLPASS_DATABASE_CONNECTIONS", "database.max_connections"),
    ("REDIS_URL", "redis.url"),
    ("HALLPASS_REDIS_CA", "redis.ca_file"),
    ("HALLPASS_REDIS_NODES", "redis.nodes"),
    ("HALLPASS_REDIS_PARTITIONS", "redis.partitions"),
    ("HALLPASS_INSTANCE", "redis.instance"),
    ("HALLPASS_ARGON2_MEMORY", "password.memory_kib"),
    ("HALLPASS_ARGON2_ITERATIONS", "password.iterations"),
    ("HALLPASS_ARGON2_PARALLELISM", "password.parallelism"),
    ("HALLPASS_PASSWORD_WORKERS", "password.workers"),
    ("HALLPASS_PASSWORD_QUEUE", "password.queue"),
    ("HALLPASS_TRIES_PER_ACCOUNT", "throttle.per_account"),
    ("HALLPASS_TRIES_PER_ADDRESS", "throttle.per_address"),
    ("HALLPASS_TRIES_PER_DEVICE", "throttle.per_device"),
    ("HALLPASS_REFRESHES_PER_SESSION", "throttle.refreshes_per_session"),
];

const MAX_REFRESH_TTL: i64 = 400 * 86_400;

/// Everything a server needs to know before it starts.
#[derive(Debug, Clone)]
pub struct Config {
    pub leptos: LeptosOptions,
    pub server: ServerConfig,
    pub token: TokenConfig,
    pub database: DatabaseConfig,
    pub redis: RedisConfig,
    pub password: PasswordConfig,
    pub throttle: ThrottleConfig,
}

/// The tables of Leptos.toml that are ours. Leptos's own is read by Leptos.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    #[serde(rename = "package")]
    _leptos: IgnoredAny,
    server: ServerConfig,
    token: TokenConfig,
    database: DatabaseConfig,
    redis: RedisConfig,
    password: PasswordConfig,
    throttle: ThrottleConfig,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    pub https: bool,
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
pub struct TokenConfig {
    pub issuer: String,
    pub audience: String,
    pub access_ttl_seconds: i64,
    pub refresh_ttl_seconds: i64,
    pub idle_ttl_seconds: i64,
    pub refresh_grace_seconds: i64,
    pub key_file: String,
    pub signing_key: Option<SecretString>,
    pub previous_signing_key: Option<SecretString>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// May hold a password.
    pub url: SecretString,
    pub max_connections: u32,
}

impl DatabaseConfig {
    /// Whether several processes may serve it.
    pub fn is_shared(&self) -> bool {
        let url = self.url.expose_secret();
        url.starts_with("postgres://") || url.starts_with("postgresql://")
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// None: this instance is alone. May hold a password.
    pub url: Option<SecretString>,
    pub ca_file: Option<String>,
    pub nodes: usize,
    pub partitions: u16,
    pub instance: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PasswordConfig {
    pub memory_kib: u32,
    pub iterations: u32,
    pub parallelism: u32,
    pub workers: usize,
    pub queue: usize,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThrottleConfig {
    pub per_account: u32,
    pub per_address: u32,
    pub per_device: u32,
    pub refreshes_per_session: u32,
}

impl Config {
    /// Reads `file`, then the environment.
    ///
    /// # Errors
    /// The file is missing or cannot be read, a key is unknown or has the wrong type, or a value
    /// makes no sense.
    pub fn load(file: &Path) -> Result<Self> {
        let name = file.display();
        ensure!(
            file.is_file(),
            "there is no settings file {name}: start from the folder that holds Leptos.toml, or name one with --config"
        );
        let mut leptos = get_configuration(file.to_str())
            .with_context(|| format!("the [package.metadata.leptos] table of {name} cannot be read"))?
            .leptos_options;
        // Their version is in the path of all of the files instead (`site.rs`).
        leptos.hash_files = false;
        let text = std::fs::read_to_string(file).with_context(|| format!("{name} cannot be read"))?;
        Self::from_parts(leptos, &text, &our_environment()?)
            .with_context(|| format!("the settings ({name} and the environment) cannot be used"))
    }

    fn from_parts(leptos: LeptosOptions, text: &str, environment: &BTreeMap<String, String>) -> Result<Self> {
        let toml = |text| config::File::from_str(text, config::FileFormat::Toml);
        let mut builder = config::Config::builder().add_source(toml(DEFAULTS)).add_source(toml(text));
        for (variable, key) in OVERRIDES {
            builder = builder.set_override_option(*key, environment.get(*variable).cloned())?;
        }
        let Tables { server, token, database, redis, password, throttle, .. } =
            builder.build()?.try_deserialize()?;
        let config = Self { leptos, server, token, database, redis, password, throttle };
        config.check()?;
        Ok(config)
    }

    /// What this instance is called where there are several.
    pub fn instance_name(&self) -> String {
        self.redis.instance.clone().unwrap_or_else(|| {
            let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
            format!("{host}:{}", self.leptos.site_addr.port())
        })
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
        ensure!((0..=60).contains(&grace), "HALLPASS_REFRESH_GRACE is {grace}: 0 to 60 seconds make sense");
        let is_shared = self.database.is_shared();
        if !is_shared && !self.database.url.expose_secret().starts_with("sqlite://") {
            bail!("DATABASE_URL has to start with sqlite:// and name a file, or with postgres://");
        }
        match (&self.redis.url, is_shared) {
            (Some(_), false) => bail!(
                "REDIS_URL is set, so there may be several instances, but DATABASE_URL is an SQLite file, which each would \
                 have to itself: set DATABASE_URL to a postgres:// database that they share, or leave REDIS_URL out"
            ),
            (None, true) => bail!(
                "DATABASE_URL is a PostgreSQL, which other instances could serve, too: set REDIS_URL, by which they hear of each \
                 other, or use an SQLite file"
            ),
            _ => {}
        }
        ensure!(
            (1..=1024).contains(&self.redis.partitions),
            "HALLPASS_REDIS_PARTITIONS is {}: 1 to 1024 make sense",
            self.redis.partitions
        );
        let counts = [
            ("HALLPASS_REQUEST_TIMEOUT", self.server.request_timeout_seconds),
            ("HALLPASS_BODY_LIMIT", self.server.body_limit_bytes as u64),
            ("HALLPASS_DATABASE_CONNECTIONS", self.database.max_connections.into()),
            ("HALLPASS_STARTUP_WAIT", self.server.startup_wait_seconds),
            ("HALLPASS_REDIS_NODES", self.redis.nodes as u64),
            ("HALLPASS_TRIES_PER_ACCOUNT", self.throttle.per_account.into()),
            ("HALLPASS_TRIES_PER_ADDRESS", self.throttle.per_address.into()),
            ("HALLPASS_TRIES_PER_DEVICE", self.throttle.per_device.into()),
            ("HALLPASS_REFRESHES_PER_SESSION", self.throttle.refreshes_per_session.into()),
        ];
        for (variable, count) in counts {
            ensure!(count > 0, "{variable} is 0: it has to be at least 1");
        }
        Ok(())
    }
}

/// Our variables. One that is misspelt would be ignored in silence, so it is refused.
fn our_environment() -> Result<BTreeMap<String, String>> {
    let mut ours = BTreeMap::new();
    for (name, value) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let known = OVERRIDES.iter().any(|(variable, _)| *variable == name);
        ensure!(known || !name.starts_with("HALLPASS_"), "there is no setting {name}: see Leptos.toml");
        if known {
            let value = value.into_string().ok().with_context(|| format!("{name} is not text"))?;
            ours.insert(name, value);
        }
    }
    Ok(ours)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn load(environment: &[(&str, &str)]) -> Result<Config> {
        let leptos = LeptosOptions::builder().output_name("hallpass").build();
        let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        Config::from_parts(leptos, DEFAULTS, &environment.collect())
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
            ("HALLPASS_TRIES_PER_ACCOUNT", "0"),
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
