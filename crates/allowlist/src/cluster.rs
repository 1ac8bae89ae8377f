//! The cluster as `allowlist.rs` uses it: finds the follower of each user's partition, joins at start,
//! and shows the running instances.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{FutureExt, future::join_all};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::JoinSet,
    time::{self, Instant},
};
use tracing::{debug, error, info, warn};

use crate::{
    agreement::{Agreement, Conflict, Facts, SharedSettings},
    bus::{Bus, Partition},
    clock::{Clock, UnixSeconds},
    follower::{Follower, FollowerState, Instance},
    id::{InstanceId, UserId},
    lease::LEASE,
    membership::Recent,
    metrics::{counter, gauge},
    mirror::Mirror,
    pending::Acknowledged,
    publisher::Unconfirmed,
    record::{RevokedSession, TokenRecord},
    snapshot::{ClusterSnapshot, InstanceSnapshot, MemberKind},
    store::SessionStore,
};

/// How long a wait at startup may last before it is logged.
const PROGRESS_LOG_INTERVAL: Duration = Duration::from_secs(2);

/// How long a start waits for the others to follow the same Redis, as they do soon after it was replaced.
const DISAGREEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a task that has panicked waits before it is restarted.
const AFTER_A_PANIC: Duration = Duration::from_secs(1);

/// A handle to the cluster, cheap to clone. The followers stop when the last handle is dropped.
pub struct Cluster<S> {
    instance: Arc<Instance<S>>,
    followers: Arc<[Arc<Follower<S>>]>,
    tasks: Arc<Mutex<JoinSet<Infallible>>>,
    /// Connections that were opened there work as long as it exists.
    runtime: Arc<OwnRuntime>,
}

// Derived, it would demand that the store can be cloned.
impl<S> Clone for Cluster<S> {
    fn clone(&self) -> Self {
        Self {
            instance: Arc::clone(&self.instance),
            followers: Arc::clone(&self.followers),
            tasks: Arc::clone(&self.tasks),
            runtime: Arc::clone(&self.runtime),
        }
    }
}

/// The options of an instance that shares its sessions with others.
#[derive(Clone)]
pub struct ClusterOptions {
    /// What carries events between the instances.
    pub bus: Bus,
    /// The name of this instance, for people: unique among those that run.
    pub instance_name: String,
    /// What it does, for people.
    pub kind: MemberKind,
    /// The settings that all instances must have in common.
    pub shared: SharedSettings,
    /// How long a start may wait for the bus.
    pub startup_timeout: Duration,
    /// Whether to follow the events on a thread of its own, so that acknowledgements do not wait behind the
    /// application's work. Otherwise the followers run on the runtime of the caller.
    pub own_thread: bool,
}

/// The runtime of the followers, if it is not that of the application.
struct OwnRuntime(Option<Runtime>);

impl OwnRuntime {
    fn start() -> io::Result<Self> {
        // A panic ends a task, not the thread, and is logged by `restarted`.
        let builder = &mut Builder::new_multi_thread();
        builder
            .worker_threads(1)
            .thread_name("followers")
            .enable_all()
            .build()
            .map(|runtime| Self(Some(runtime)))
    }

    fn handle(&self) -> Option<&Handle> {
        self.0.as_ref().map(Runtime::handle)
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        // To wait for its thread, as dropping it does, is not allowed in a task.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// The reason why an instance cannot join the others.
#[derive(Debug, thiserror::Error)]
pub enum JoinError<E> {
    /// It cannot run beside the instances that are running.
    #[error("{0}")]
    Conflict(#[from] Conflict<E>),
    /// The bus cannot be followed.
    #[error("{0}")]
    Bus(String),
    /// The thread of the followers cannot be started.
    #[error("the thread of the followers cannot be started: {0}")]
    Thread(String),
}

impl<S: SessionStore> Cluster<S> {
    /// Starts to follow every partition, and returns when all are followed.
    ///
    /// # Errors
    /// The settings cannot be used, or conflict with those of a running instance; or a partition cannot be
    /// followed within the startup wait.
    pub async fn join(
        options: ClusterOptions,
        store: S,
        clock: Arc<dyn Clock>,
        mirror: Arc<Mirror>,
        recent: Recent,
        replays_issued: bool,
    ) -> Result<Self, JoinError<S::Error>> {
        let ClusterOptions { bus, instance_name: name, kind, shared, startup_timeout, own_thread } = options;
        let runtime = if own_thread {
            OwnRuntime::start().map_err(|error| JoinError::Thread(error.to_string()))?
        } else {
            OwnRuntime(None)
        };
        let handle = runtime.handle().cloned().unwrap_or_else(Handle::current);
        let id = InstanceId::random();
        let facts = Facts::of(&bus, shared);
        let agreement = Agreement::reach(store.clone(), Arc::clone(&clock), id, name.clone(), facts).await?;
        let instance = Arc::new(Instance {
            id,
            name,
            kind,
            bus,
            store,
            clock,
            mirror,
            recent,
            agreement,
            replays_issued,
        });
        let followers: Arc<[_]> = Partition::all(instance.bus.partitions())
            .map(|partition| Arc::new(Follower::new(Arc::clone(&instance), partition)))
            .collect();
        let mut tasks = JoinSet::new();
        for follower in followers.iter() {
            let follower = Arc::clone(follower);
            tasks.spawn_on(restarted(async move || follower.follow().await), &handle);
        }
        let keeper = Arc::clone(&instance);
        tasks.spawn_on(restarted(async move || keeper.agreement.keep().await), &handle);
        let (tasks, runtime) = (Arc::new(Mutex::new(tasks)), Arc::new(runtime));
        let cluster = Self { instance, followers, tasks, runtime };
        for follower in cluster.followers.iter() {
            let followed =
                time::timeout(startup_timeout, until_followed(follower)).await.unwrap_or_else(|_| {
                    Err(format!("gave up after {startup_timeout:?}: {}", last_error(follower)))
                });
            if let Err(error) = followed {
                cluster.leave().await;
                return Err(JoinError::Bus(error));
            }
        }
        info!("instance {} has joined the cluster", cluster.instance.name);
        Ok(cluster)
    }

    fn follower(&self, user_id: UserId) -> &Follower<S> {
        &self.followers[Partition::of(user_id, self.instance.bus.partitions()).index()]
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
        if let Err(error) = follower.publisher().allow(entry).await {
            counter!("hallpass_unlisted_total").increment(1);
            warn!(%error, "could not list a token in Redis: {error}");
        }
    }

    /// Whether Redis lists the token. Also false when Redis does not answer.
    pub async fn contains(&self, entry: &TokenRecord) -> bool {
        let answer = self.follower(entry.user_id).publisher().contains(entry).await;
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
                    let partition = Partition::of(user_id, self.instance.bus.partitions()).index();
                    partition..partition + 1
                }
                None => 0..self.followers.len(),
            };
            for partition in partitions {
                by_partition.entry(partition).or_default().push(session.clone());
            }
        }
        // Not `try_join_all`: a partition that is out of reach must not keep the sessions of others alive.
        let revoking = by_partition
            .iter()
            .map(|(partition, sessions)| self.followers[*partition].publisher().revoke(sessions));
        let outcomes = join_all(revoking).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let total = outcomes.into_iter().reduce(|total, one| Acknowledged {
            instances: total.instances.max(one.instances),
            acknowledged: total.acknowledged.min(one.acknowledged),
        });
        Ok(total.unwrap_or_else(|| {
            // This instance counts even if it has just rejoined and is not in the membership yet.
            let instances = self.followers[0].running().max(1).try_into().unwrap_or(u32::MAX);
            Acknowledged { instances, acknowledged: instances }
        }))
    }

    /// Runs a command on the Redis of the partition for these 16 bytes, which have to be random or a hash. The
    /// command gets the prefix of its keys. `None` while Redis is unreachable, or if the bus is another one.
    #[cfg(feature = "redis")]
    pub async fn with_redis<T>(
        &self,
        hash: &[u8; 16],
        command: impl AsyncFnOnce(&mut redis::aio::MultiplexedConnection, &str) -> Result<T, redis::RedisError>,
    ) -> Option<T> {
        let follower = &self.followers[Partition::by(hash, self.instance.bus.partitions()).index()];
        if !follower.is_leased() {
            return None;
        }
        let answer = follower.publisher().with_redis(command).await;
        answer
            .inspect_err(|error| warn!(%error, "a command of the application failed in Redis: {error}"))
            .ok()?
    }

    /// See [`Agreement::token_form`].
    pub fn token_form(&self) -> u32 {
        self.instance.agreement.token_form()
    }

    /// See [`Agreement::change_keys`].
    pub async fn change_keys(&self, signs: Option<&str>, accepts: &[String]) -> Result<bool, S::Error> {
        self.instance.agreement.change_keys(signs, accepts).await
    }

    /// See [`Agreement::conflict_with`].
    pub async fn conflict_with(&self, name: &str, facts: &str) -> Option<String> {
        self.instance.agreement.conflict_with(name, facts).await
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

    /// The running instances. The first snapshot in a while waits for their reports, for half a second at most.
    pub async fn snapshot(&self) -> ClusterSnapshot {
        join_all(self.followers.iter().map(|follower| follower.watch())).await;
        let own_id = self.instance.id.to_string();
        let mut instances: BTreeMap<(String, Vec<u8>), InstanceSnapshot> = BTreeMap::new();
        for follower in self.followers.iter() {
            for (id, member, silence) in follower.instances() {
                let Some(profile) = member.profile else { continue };
                let is_this = id == own_id.as_bytes();
                let view = instances.entry((profile.name.clone(), id)).or_insert_with(|| InstanceSnapshot {
                    name: profile.name,
                    kind: profile.kind,
                    is_this,
                    is_leased: true,
                    renewed_ms: 0,
                    positions: Vec::new(),
                    sessions: profile.sessions,
                    revocations: profile.revocations,
                });
                // The own lease is exact; those of the others are inferred from their last reports.
                view.is_leased &= if is_this { follower.is_leased() } else { silence < LEASE };
                view.renewed_ms = view.renewed_ms.max(silence.as_millis().try_into().unwrap_or(u64::MAX));
                view.positions.push(member.reported.applied.to_string());
            }
        }
        ClusterSnapshot {
            is_shared: true,
            now: self.instance.clock.now(),
            instances: instances.into_values().collect(),
        }
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

/// Restarts an endless task that panics: an instance without one of its followers would look healthy, and
/// never hold a lease again.
async fn restarted(task: impl AsyncFn() -> Infallible) -> Infallible {
    loop {
        let Err(_) = AssertUnwindSafe(task()).catch_unwind().await;
        error!("a follower or heartbeat task panicked; restarting it");
        time::sleep(AFTER_A_PANIC).await;
    }
}

async fn until_followed<S: SessionStore>(follower: &Follower<S>) -> Result<(), String> {
    let mut state = follower.state();
    let mut disagrees_since: Option<Instant> = None;
    loop {
        match &*state.borrow_and_update() {
            FollowerState::Following => return Ok(()),
            FollowerState::Lost { why, is_final: true, .. } => return Err(why.clone()),
            FollowerState::Lost { why, is_disagreement: true, .. } => {
                let since = disagrees_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= DISAGREEMENT_TIMEOUT {
                    return Err(why.clone());
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

fn last_error<S: SessionStore>(follower: &Follower<S>) -> String {
    match &*follower.state().borrow() {
        FollowerState::Lost { why, .. } => why.clone(),
        FollowerState::Joining | FollowerState::Following => "it does not answer".to_owned(),
    }
}

/// The view of an instance that runs without a cluster.
pub fn snapshot_alone(sessions: usize, recent: &Recent, now: UnixSeconds) -> ClusterSnapshot {
    let this = InstanceSnapshot {
        name: "this server".into(),
        kind: MemberKind::Instance,
        is_this: true,
        is_leased: true,
        renewed_ms: 0,
        positions: Vec::new(),
        sessions,
        revocations: recent.lock().unwrap_or_else(PoisonError::into_inner).clone(),
    };
    ClusterSnapshot { is_shared: false, now, instances: vec![this] }
}
