//! The settings of a guard, and its start.

use std::{fmt::Display, sync::Arc, time::Duration};

use hallpass_allowlist::{
    Allowlist, Bus, ClusterOptions, InstanceId, MemberKind, RedisOptions, SharedSettings, StartError,
    SystemClock,
};
use reqwest::Url;
use secrecy::SecretString;
use tokio::time::{self, Instant};
use tracing::info;

use crate::{
    guard::Guard,
    hallpass::{Hallpass, HallpassError},
    public_keys::PublicKeys,
    wire::Settings,
};

/// The time between two attempts to reach Hallpass at the start.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// How many characters of a random id tell guards without a name apart.
const RANDOM_NAME_LENGTH: usize = 6;

/// Configures a [`Guard`]; made by [`Guard::builder`].
#[derive(Default)]
pub struct GuardBuilder {
    issuer: Option<String>,
    #[cfg(feature = "tls")]
    ca: Option<Vec<u8>>,
    audience: Option<String>,
    redis: Option<RedisOptions>,
    client: Option<(String, SecretString)>,
    name: Option<String>,
    startup_timeout: Option<Duration>,
}

/// The reason why a guard cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A setting is missing: the name of the builder's method.
    #[error("the guard needs .{0}(..)")]
    Missing(&'static str),
    /// The address of Hallpass, a certificate or the address of Redis cannot be used.
    #[error(".{setting}(..) cannot be used: {reason}")]
    Invalid {
        /// The name of the builder's method.
        setting: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Hallpass does not answer, or refuses the client.
    #[error("{0}")]
    Hallpass(#[from] HallpassError),
    /// Hallpass publishes no keys with which its tokens can be verified.
    #[error("{0}")]
    Keys(String),
    /// Hallpass issues tokens for another audience.
    #[error("Hallpass issues tokens for the audience {theirs}, not for {ours}")]
    Audience {
        /// The audience of the guard.
        ours: String,
        /// The audience of Hallpass.
        theirs: String,
    },
    /// The guard cannot join the instances of Hallpass.
    #[error("{0}")]
    Join(#[from] StartError<HallpassError>),
}

impl Guard {
    /// A guard, to be configured.
    pub fn builder() -> GuardBuilder {
        GuardBuilder::default()
    }
}

impl GuardBuilder {
    /// The address of Hallpass, such as `https://id.example.com`. Any of its instances may answer.
    pub fn issuer(self, url: impl Into<String>) -> Self {
        Self { issuer: Some(url.into()), ..self }
    }

    /// Certificates in PEM that are trusted beside those of the operating system when Hallpass is asked.
    #[cfg(feature = "tls")]
    pub fn issuer_ca(self, pem: impl Into<Vec<u8>>) -> Self {
        Self { ca: Some(pem.into()), ..self }
    }

    /// The `aud` that tokens must have; that of Hallpass unless it is set. The guard does not start if the two differ.
    pub fn audience(self, audience: impl Into<String>) -> Self {
        Self { audience: Some(audience.into()), ..self }
    }

    /// The Redis of Hallpass: `redis://…`, `redis+sentinel://…/name` or `redis+cluster://…`, each also with `rediss`.
    pub fn redis(self, url: impl Into<String>) -> Self {
        let url = url.into().into();
        self.redis_options(RedisOptions { url, ..RedisOptions::default() })
    }

    /// The Redis of Hallpass, with certificates or the password of its Sentinels. The numbers of nodes and partitions are
    /// those of Hallpass.
    pub fn redis_options(self, redis: RedisOptions) -> Self {
        Self { redis: Some(redis), ..self }
    }

    /// The id and the secret that `hallpass client add` has printed.
    pub fn client(self, id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { client: Some((id.into(), secret.into().into())), ..self }
    }

    /// The name by which people know this process, unique among those that run.
    pub fn name(self, name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// How long the start waits for Hallpass, and then for Redis: 30 seconds unless it is set.
    pub fn startup_timeout(self, timeout: Duration) -> Self {
        Self { startup_timeout: Some(timeout), ..self }
    }

    /// Asks Hallpass for its settings and keys, and joins its instances. Returns when tokens can be accepted.
    ///
    /// # Errors
    /// [`BuildError`].
    pub async fn build(self) -> Result<Guard, BuildError> {
        let issuer = self.issuer.ok_or(BuildError::Missing("issuer"))?;
        let (client_id, client_secret) = self.client.ok_or(BuildError::Missing("client"))?;
        let redis = self.redis.ok_or(BuildError::Missing("redis"))?;
        let startup_timeout = self.startup_timeout.unwrap_or(Duration::from_secs(30));
        let random_name = || format!("guard-{:.RANDOM_NAME_LENGTH$}", InstanceId::random().to_string());
        let instance_name = self.name.unwrap_or_else(random_name);

        let url = Url::parse(&issuer).map_err(|error| invalid("issuer", error))?;
        if !["http", "https"].contains(&url.scheme()) || !url.has_host() {
            return Err(invalid("issuer", "it has to begin with https:// or http://"));
        }
        let hallpass = Hallpass::new(
            &url,
            client_id,
            client_secret,
            #[cfg(feature = "tls")]
            self.ca.as_deref(),
        )
        .map_err(|error| invalid("issuer_ca", error))?;
        let settings = settings_of(&hallpass, Instant::now() + startup_timeout).await?;
        let theirs = settings.audience.clone();
        if let Some(ours) = self.audience.filter(|ours| *ours != theirs) {
            return Err(BuildError::Audience { ours, theirs });
        }
        let keys = PublicKeys::new(hallpass.clone(), settings.clone());
        let keys = keys.map_err(|error| BuildError::Keys(error.to_string()))?;

        let redis = RedisOptions { nodes: settings.nodes, partitions: settings.partitions, ..redis };
        let bus = Bus::redis(&redis).map_err(|error| invalid("redis", error))?;
        let accepts = keys.ids();
        let options = ClusterOptions {
            bus,
            instance_name,
            kind: MemberKind::Guard,
            shared: SharedSettings {
                equal: settings.equal,
                signs: None,
                accepts: accepts.clone(),
                token_form: 0,
                key_names: ["HALLPASS_SIGNING_KEY", "HALLPASS_PREVIOUS_SIGNING_KEY"],
            },
            startup_timeout,
            own_thread: true,
        };
        let allowlist = Allowlist::join(hallpass, Arc::new(SystemClock), Some(options)).await?;
        Ok(Guard::start(allowlist, keys, accepts))
    }
}

/// The settings of Hallpass. Tries again until that time while it is out of reach.
async fn settings_of(hallpass: &Hallpass, until: Instant) -> Result<Settings, HallpassError> {
    loop {
        match hallpass.settings().await {
            Err(error) if error.is_temporary() && Instant::now() + RETRY_EVERY < until => {
                info!("{error}; trying again");
                time::sleep(RETRY_EVERY).await;
            }
            outcome => return outcome,
        }
    }
}

fn invalid(setting: &'static str, reason: impl Display) -> BuildError {
    BuildError::Invalid { setting, reason: reason.to_string() }
}
