//! The allowlist of this server: the one of `hallpass-allowlist`, over this database and these settings.

use std::{collections::BTreeMap, fs, sync::Arc};

use anyhow::{Context, Result, anyhow};
use hallpass_allowlist::{
    Bus, ClusterOptions, MemberKind, RedisOptions, SharedSettings, StartError, SystemClock,
};
use hallpass_guard::wire::Settings;

use crate::server::{
    auth::{key::Key, keys::Keys},
    clock::UnixSeconds,
    config::{Config, RedisConfig},
    db::{ChangeError, Db},
};

pub type Allowlist = hallpass_allowlist::Allowlist<Db>;
pub type RevokeError = hallpass_allowlist::RevokeError<ChangeError>;

/// Fills the allowlist from the database, and joins the other instances if Redis is configured.
///
/// # Errors
/// The database cannot be read; a running instance has different settings; or Redis cannot be followed within
/// the startup wait.
pub async fn load(
    config: &Config,
    kind: MemberKind,
    keys: &Keys,
    db: Db,
    now: UnixSeconds,
) -> Result<Allowlist> {
    let cluster = cluster_options(config, kind, keys)?;
    Allowlist::load(db, Arc::new(SystemClock), cluster, now).await.map_err(explain)
}

/// Joins the other instances, if Redis is configured, in order to revoke.
///
/// # Errors
/// A running instance has different settings, or Redis cannot be followed within the startup wait.
pub async fn join(config: &Config, keys: &Keys, db: Db) -> Result<Allowlist> {
    let mut cluster = cluster_options(config, MemberKind::Instance, keys)?;
    if let Some(options) = &mut cluster {
        // It issues no tokens, so no instance has to accept the key that it would sign with.
        options.shared.signs = None;
    }
    Allowlist::join(db, Arc::new(SystemClock), cluster).await.map_err(explain)
}

/// Checks the settings about Redis, without connecting to it.
///
/// # Errors
/// With the name of the variable that cannot be used.
pub fn check_settings(redis: &RedisConfig) -> Result<()> {
    bus(redis).map(|_| ())
}

fn cluster_options(config: &Config, kind: MemberKind, keys: &Keys) -> Result<Option<ClusterOptions>> {
    let Some(bus) = bus(&config.redis)? else { return Ok(None) };
    Ok(Some(ClusterOptions {
        bus,
        instance_name: config.instance_name(),
        kind,
        shared: SharedSettings {
            equal: equal_settings(config),
            signs: Some(keys.current().id().to_owned()),
            token_form: TOKEN_FORM,
            accepts: keys.all().map(|key: &Key| key.id().to_owned()).collect(),
            key_names: ["HALLPASS_SIGNING_KEY", "HALLPASS_PREVIOUS_SIGNING_KEY"],
        },
        startup_timeout: config.server.startup_wait(),
        own_thread: true,
    }))
}

/// The form of tokens that this version reads: 1 has the claims `auth_time`, `acr` and `amr`.
const TOKEN_FORM: u32 = 1;

/// Whether all running instances accept tokens that say how the user signed in, and ask for second factors.
pub fn all_know_factors(allowlist: &Allowlist) -> bool {
    allowlist.token_form().is_none_or(|form| form >= TOKEN_FORM)
}

/// The settings that all instances and guards must have in common.
fn equal_settings(config: &Config) -> BTreeMap<String, String> {
    let equal = [
        ("HALLPASS_REDIS_PARTITIONS", config.redis.partitions.to_string()),
        ("HALLPASS_REDIS_NODES", config.redis.nodes.to_string()),
        ("HALLPASS_ISSUER", config.token.issuer.clone()),
        ("HALLPASS_AUDIENCE", config.token.audience.clone()),
    ];
    BTreeMap::from(equal.map(|(name, value)| (name.to_owned(), value)))
}

/// What a guard has to know before it can join; `None` if there is no Redis to join at.
pub fn guard_settings(config: &Config) -> Option<Settings> {
    let RedisConfig { url, nodes, partitions, .. } = &config.redis;
    url.is_some().then(|| Settings {
        issuer: config.token.issuer.clone(),
        audience: config.token.audience.clone(),
        nodes: *nodes,
        partitions: *partitions,
        equal: equal_settings(config),
        keys: Vec::new(),
    })
}

fn bus(redis: &RedisConfig) -> Result<Option<Bus>> {
    let Some(url) = redis.url.clone() else { return Ok(None) };
    let ca = redis
        .ca_file
        .as_ref()
        .map(|file| fs::read(file).with_context(|| format!("HALLPASS_REDIS_CA: {file} cannot be read")));
    let options = RedisOptions {
        url,
        ca: ca.transpose()?,
        nodes: redis.nodes,
        partitions: redis.partitions,
        sentinel_username: redis.sentinel_username.clone(),
        sentinel_password: redis.sentinel_password.clone(),
    };
    Bus::redis(&options).map(Some).map_err(|error| anyhow!("REDIS_URL cannot be used: {error}"))
}

/// Names the setting that led to the error.
fn explain(error: StartError<ChangeError>) -> anyhow::Error {
    use hallpass_allowlist::JoinError;
    let is_bus = matches!(error, StartError::Join(JoinError::Bus(_)));
    let error = anyhow::Error::from(error);
    if is_bus { error.context("Redis (REDIS_URL) cannot be used") } else { error }
}
