//! The cluster as `allowlist/mod.rs` uses it: finds the follower of each user's partition, joins at start,
//! and shows the running instances.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fs,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use futures::FutureExt;
use metrics::{counter, gauge};
use tokio::{
    task::JoinSet,
    time::{self, Instant},
};
use tracing::{debug, error, info, warn};

use super::{
    agreement::{Agreement, Facts},
    bus::{Follower, FollowerState, Instance, Unconfirmed},
    lease::{LEASE, Uptime},
    membership::Recent,
    mirror::Mirror,
    pending::Acknowledged,
    redis::{Partition, Servers},
    snapshot::{ClusterSnapshot, InstanceSnapshot},
};
use crate::server::{
    auth::{
        keys::Keys,
        rate_limit::{BucketKey, RateLimit},
    },
    clock::{self, UnixSeconds},
    config::{Config, RedisConfig},
    db::{Db, access_tokens::TokenRecord, sessions::RevokedSession},
    ids::{InstanceId, UserId},
};

/// How long a wait at startup may last before it is logged.
const PROGRESS_LOG_INTERVAL: Duration = Duration::from_secs(2);

/// How long a start waits for the others to follow the same Redis, as they do soon after it was replaced.
const DISAGREEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a task that has panicked waits before it is restarted.
const AFTER_A_PANIC: Duration = Duration::from_secs(1);

/// A handle to the cluster, cheap to clone. The followers stop when the last handle is dropped.
#[derive(Clone)]
pub struct Cluster {
    instance: Arc<Instance>,
    followers: Arc<[Arc<Follower>]>,
    tasks: Arc<Mutex<JoinSet<Infallible>>>,
}

impl Cluster {
    /// Starts to follow every partition, and returns when all are followed.
    ///
    /// # Errors
    /// The settings cannot be used, or conflict with those of a running instance; or a partition cannot be
    /// followed within the startup wait.
    pub async fn join(
        config: &Config,
        keys: &Keys,
        db: Db,
        mirror: Arc<Mirror>,
        recent: Recent,
        replays_issued: bool,
    ) -> Result<Self> {
        let redis = &config.redis;
        let servers = servers(redis)?;
        let (id, name) = (InstanceId::random(), config.instance_name());
        let agreement = Agreement::reach(db.clone(), id, name.clone(), Facts::of(config, keys)).await?;
        let instance = Arc::new(Instance {
            id,
            name,
            servers,
            partitions: redis.partitions,
            nodes: redis.nodes,
            db,
            mirror,
            recent,
            agreement,
            replays_issued,
        });
        let followers: Arc<[_]> = Partition::all(redis.partitions)
            .map(|partition| Arc::new(Follower::new(Arc::clone(&instance), partition)))
            .collect();
        let mut tasks = JoinSet::new();
        for follower in followers.iter() {
            let follower = Arc::clone(follower);
            tasks.spawn(restarted(async move || follower.follow().await));
        }
        let keeper = Arc::clone(&instance);
        tasks.spawn(restarted(async move || keeper.agreement.keep().await));
        let cluster = Self { instance, followers, tasks: Arc::new(Mutex::new(tasks)) };
        let limit = config.server.startup_wait();
        for follower in cluster.followers.iter() {
            let followed = time::timeout(limit, until_followed(follower))
                .await
                .map_err(|_| last_error(follower).context(format!("gave up after {limit:?}")))
                .flatten();
            if let Err(error) = followed {
                cluster.leave().await;
                return Err(error.context("Redis (REDIS_URL) cannot be used"));
            }
        }
        info!("instance {} has joined the cluster", cluster.instance.name);
        Ok(cluster)
    }

    fn follower(&self, user_id: UserId) -> &Arc<Follower> {
        &self.followers[Partition::of(user_id, self.instance.partitions).index()]
    }

    /// Whether the mirror may be used for this user's tokens.
    pub fn is_leased(&self, user_id: UserId) -> bool {
        self.follower(user_id).is_leased()
    }

    /// Whether the mirror may be used for the tokens of all users.
    pub fn is_ready(&self) -> bool {
        self.followers.iter().all(|follower| follower.is_leased())
    }

    /// Adds a token to the list in Redis and publishes an event. A failure is only logged: other instances
    /// look the token up when it is presented.
    pub async fn allow(&self, entry: &TokenRecord) {
        let follower = self.follower(entry.user_id);
        if !follower.is_leased() {
            return;
        }
        if let Err(error) = follower.allow(entry).await {
            counter!("hallpass_unlisted_total").increment(1);
            warn!(%error, "could not list a token in Redis: {error}");
        }
    }

    /// Whether Redis lists the token. Also false when Redis does not answer.
    pub async fn contains(&self, entry: &TokenRecord) -> bool {
        let answer = self.follower(entry.user_id).contains(entry).await;
        let outcome = match &answer {
            Ok(true) => "listed",
            Ok(false) => "unlisted",
            Err(_) => "failed",
        };
        counter!("hallpass_redis_look_ups_total", "outcome" => outcome).increment(1);
        answer.inspect_err(|error| debug!(%error, "a token could not be looked up in Redis")).unwrap_or(false)
    }

    /// Publishes the revocation of these sessions, and returns once no instance accepts a token of theirs
    /// any more.
    ///
    /// # Errors
    /// [`Unconfirmed`].
    pub async fn revoke(&self, revoked: &[RevokedSession]) -> Result<Acknowledged, Unconfirmed> {
        let mut by_partition: BTreeMap<usize, Vec<RevokedSession>> = BTreeMap::new();
        for session in revoked {
            // A session whose user is unknown may belong to any partition.
            let partitions = match session.user_id {
                Some(user_id) => {
                    let partition = Partition::of(user_id, self.instance.partitions).index();
                    partition..partition + 1
                }
                None => 0..self.followers.len(),
            };
            for partition in partitions {
                by_partition.entry(partition).or_default().push(session.clone());
            }
        }
        let mut total: Option<Acknowledged> = None;
        for (partition, sessions) in by_partition {
            let one = self.followers[partition].revoke(&sessions).await?;
            let so_far = total.get_or_insert(one);
            so_far.instances = so_far.instances.max(one.instances);
            so_far.acknowledged = so_far.acknowledged.min(one.acknowledged);
        }
        Ok(total.unwrap_or_else(|| {
            // This instance counts even if it has just rejoined and is not in the membership yet.
            let instances = self.followers[0].running().max(1).try_into().unwrap_or(u32::MAX);
            Acknowledged { instances, acknowledged: instances }
        }))
    }

    /// Records an attempt for all instances and returns zero, or returns how long it has to wait. `None`
    /// while Redis is unreachable.
    pub async fn record_attempt(&self, bucket: BucketKey, limit: RateLimit) -> Option<Duration> {
        let follower = &self.followers[Partition::by(&bucket.0, self.instance.partitions).index()];
        if !follower.is_leased() {
            return None;
        }
        let wait = follower.record_attempt(bucket, limit).await;
        wait.inspect_err(|error| warn!(%error, "could not record a login attempt in Redis: {error}")).ok()
    }

    /// Takes back an attempt that was recorded.
    pub async fn refund_attempt(&self, bucket: BucketKey) {
        let follower = &self.followers[Partition::by(&bucket.0, self.instance.partitions).index()];
        if follower.is_leased()
            && let Err(error) = follower.refund_attempt(bucket).await
        {
            debug!(%error, "could not refund a login attempt in Redis");
        }
    }

    /// Whether the wall clock here agrees with the database's within the tolerance.
    pub fn is_clock_right(&self) -> bool {
        self.instance.agreement.clock_offset().is_none()
    }

    /// The time of the clock that all instances share.
    pub fn shared_time(&self) -> UnixSeconds {
        self.instance.agreement.database_time()
    }

    /// Ends the leases, and removes this instance from the membership. The followers are stopped first:
    /// they could otherwise renew a lease that no revocation waits for.
    pub async fn leave(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        for follower in self.followers.iter() {
            follower.leave().await;
        }
        self.instance.agreement.leave().await;
    }

    pub fn snapshot(&self) -> ClusterSnapshot {
        let now = Uptime::now();
        let own_id = self.instance.id.to_string();
        let mut instances: BTreeMap<(String, Vec<u8>), InstanceSnapshot> = BTreeMap::new();
        for follower in self.followers.iter() {
            for (id, member) in follower.instances() {
                let silence = member.silence(now);
                let Some(report) = member.report else { continue };
                let is_this = id == own_id.as_bytes();
                let view = instances.entry((report.name.clone(), id)).or_insert_with(|| InstanceSnapshot {
                    name: report.name,
                    is_this,
                    is_leased: true,
                    renewed_ms: 0,
                    positions: Vec::new(),
                    sessions: report.sessions,
                    revocations: report.revocations,
                });
                // The own lease is exact; those of the others are inferred from their last reports.
                view.is_leased &= if is_this { follower.is_leased() } else { silence < LEASE };
                view.renewed_ms = view.renewed_ms.max(silence.as_millis().try_into().unwrap_or(u64::MAX));
                view.positions.push(report.position);
            }
        }
        ClusterSnapshot { is_shared: true, now: clock::now(), instances: instances.into_values().collect() }
    }

    /// Updates the gauges for the age of the leases and the number of running instances.
    pub fn measure(&self) {
        for (partition, follower) in self.followers.iter().enumerate() {
            let partition = partition.to_string();
            let age = follower.lease_age().map_or(f64::INFINITY, |age| age.as_secs_f64());
            gauge!("hallpass_lease_age_seconds", "partition" => partition.clone()).set(age);
            let held = if follower.is_leased() { 1.0 } else { 0.0 };
            gauge!("hallpass_lease_held", "partition" => partition.clone()).set(held);
            gauge!("hallpass_instances", "partition" => partition).set(follower.running() as f64);
        }
    }
}

/// Checks the settings about Redis, without connecting to it.
///
/// # Errors
/// With the name of the variable that cannot be used.
pub fn check_settings(redis: &RedisConfig) -> Result<()> {
    servers(redis).map(|_| ())
}

fn servers(redis: &RedisConfig) -> Result<Servers> {
    let ca = redis
        .ca_file
        .as_ref()
        .map(|file| fs::read(file).with_context(|| format!("HALLPASS_REDIS_CA: {file} cannot be read")));
    Servers::new(redis, ca.transpose()?).map_err(|error| anyhow!("REDIS_URL cannot be used: {error}"))
}

/// Restarts an endless task that panics: an instance without one of its followers would look healthy, and
/// never hold a lease again.
async fn restarted(task: impl AsyncFn() -> Infallible) -> Infallible {
    loop {
        let Err(_) = AssertUnwindSafe(task()).catch_unwind().await;
        error!("a follower or heartbeat task panicked; restarting it");
        time::sleep(AFTER_A_PANIC).await;
    }
}

async fn until_followed(follower: &Follower) -> Result<()> {
    let mut state = follower.state();
    let mut disagrees_since: Option<Instant> = None;
    loop {
        match &*state.borrow_and_update() {
            FollowerState::Following => return Ok(()),
            FollowerState::Lost { why, is_final: true, .. } => bail!("{why}"),
            FollowerState::Lost { why, is_disagreement: true, .. } => {
                let since = disagrees_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= DISAGREEMENT_TIMEOUT {
                    bail!("{why}");
                }
            }
            FollowerState::Lost { .. } | FollowerState::Joining => {}
        }
        let changed = time::timeout(PROGRESS_LOG_INTERVAL, state.changed()).await;
        if changed.is_err() {
            info!("waiting for Redis: {}", last_error(follower));
        }
    }
}

fn last_error(follower: &Follower) -> anyhow::Error {
    match &*follower.state().borrow() {
        FollowerState::Lost { why, .. } => anyhow!("{why}"),
        FollowerState::Joining | FollowerState::Following => anyhow!("it does not answer"),
    }
}

/// The view of an instance that runs without a cluster.
pub fn snapshot_alone(sessions: usize, recent: &Recent) -> ClusterSnapshot {
    let this = InstanceSnapshot {
        name: "this server".into(),
        is_this: true,
        is_leased: true,
        renewed_ms: 0,
        positions: Vec::new(),
        sessions,
        revocations: recent.lock().unwrap_or_else(PoisonError::into_inner).clone(),
    };
    ClusterSnapshot { is_shared: false, now: clock::now(), instances: vec![this] }
}
