//! The settings that all running instances must have in common: which Redis they follow, how users are
//! assigned to partitions, how long a lease lasts, which keys sign tokens.
//!
//! If two instances differed in one of these, a revocation that one of them confirms could be unknown to
//! the other. The store is what they are guaranteed to share: each instance keeps a row there
//! ([`InstanceRow`](crate::InstanceRow)) with its [`Facts`] and a beat.
//!
//! - A process that starts compares its facts with those of every live instance, and exits if they differ.
//!   Of two that start at the same time and differ, the one with the lower id continues.
//! - A follower that begins an epoch compares the Redis that it is connected to. It does not begin while a
//!   live instance follows another one, so no two instances renew leases from two different Redis: each
//!   records which one it follows before it reads the rows of the others, so that of two that begin at the
//!   same time at least one sees the other.
//! - Once a second each instance compares again. A follower that finds a disagreement (because its process
//!   was stopped for a while, for example) ends its lease.
//!
//! An instance whose beat has not changed for [`DEAD_AFTER`] reads in a row is considered dead. One that
//! follows another Redis and is cut off from the store at the same time cannot be distinguished from a dead one:
//! see README, "Limitations".
//!
//! Called by `cluster.rs` and `follower.rs`.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc, Mutex as StdMutex, PoisonError,
        atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::Mutex,
    time::{self, MissedTickBehavior},
};
use tracing::{info, warn};

use crate::{
    bus::{Bus, Partition},
    clock::{Clock, UnixSeconds, Uptime},
    id::InstanceId,
    lease::{LEASE, LEASE_EXPIRY_BOUND},
    store::SessionStore,
};

/// The tolerated difference between the wall clock of an instance and that of the database, in seconds.
const CLOCK_TOLERANCE: u64 = 5;

/// How often an instance updates its row and reads those of the others.
const BEAT: Duration = Duration::from_secs(1);

/// The number of reads in a row that find a beat unchanged after which the instance is considered dead.
const DEAD_AFTER: u32 = 5;

/// The number of such reads after which the row is deleted.
const DELETED_AFTER: u32 = 60;

/// The version of the protocol between instances. Instances of different versions cannot run together.
const PROTOCOL: u32 = 3;

/// The settings of the application that all of its instances must have in common.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedSettings {
    /// Settings whose values have to be equal, by the names that the application's users know.
    pub equal: BTreeMap<String, String>,
    /// The id of the key that signs new tokens; `None` for a process that signs none.
    pub signs: Option<String>,
    /// The ids of the keys whose tokens are accepted.
    pub accepts: Vec<String>,
    /// The newest form of tokens that the application reads. Instances that were built before there was a number have 0.
    #[serde(default)]
    pub token_form: u32,
    /// The names of the settings for the signing key, and for another key that is accepted.
    #[serde(skip)]
    pub key_names: [&'static str; 2],
}

/// The settings and state of an instance that the others must agree with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Whether the instance has finished its comparison without a conflict. Instances that have joined
    /// ignore the facts of a process that has not, which is the one to give way.
    has_joined: bool,
    protocol: u32,
    partitions: u16,
    nodes: usize,
    lease_ms: u128,
    lease_expiry_bound_ms: u128,
    #[serde(default)]
    shared: SharedSettings,
    /// The identity of the Redis that each partition follows; `None` while it follows none.
    buses: Vec<Option<String>>,
}

impl Facts {
    pub fn of(bus: &Bus, shared: SharedSettings) -> Self {
        Self {
            has_joined: false,
            protocol: PROTOCOL,
            partitions: bus.partitions(),
            nodes: bus.nodes(),
            lease_ms: LEASE.as_millis(),
            lease_expiry_bound_ms: LEASE_EXPIRY_BOUND.as_millis(),
            shared,
            buses: vec![None; bus.partitions().into()],
        }
    }

    /// The first conflict between these facts and those of the instance called `name`, as an error message.
    fn conflict(&self, name: &str, other: &Self) -> Option<String> {
        let differ = |what: &str, ours: &dyn ToString, theirs: &dyn ToString| {
            let (ours, theirs) = (ours.to_string(), theirs.to_string());
            (ours != theirs).then(|| {
                format!(
                    "another instance ({name}) has {what}={theirs}, and this one {ours}: it has to be the same for all"
                )
            })
        };
        let differs = differ("version of the protocol", &self.protocol, &other.protocol)
            .or_else(|| {
                let (ours, theirs) = (&self.shared.equal, &other.shared.equal);
                let value = |settings: &BTreeMap<String, String>, name: &str| {
                    settings.get(name).map_or("not set", String::as_str).to_owned()
                };
                let mut names = ours.keys().chain(theirs.keys());
                names.find_map(|name| differ(name, &value(ours, name), &value(theirs, name)))
            })
            .or_else(|| differ("number of partitions", &self.partitions, &other.partitions))
            .or_else(|| differ("number of nodes", &self.nodes, &other.nodes))
            .or_else(|| differ("lease in milliseconds", &self.lease_ms, &other.lease_ms))
            .or_else(|| {
                let (ours, theirs) = (self.lease_expiry_bound_ms, other.lease_expiry_bound_ms);
                differ("bound of the lease in milliseconds", &ours, &theirs)
            });
        if differs.is_some() {
            return differs;
        }
        let [signing_key, accepted_key] = self.shared.key_names;
        let missing =
            |signs: &Option<String>, accepts: &[String]| signs.clone().filter(|key| !accepts.contains(key));
        if let Some(ours) = missing(&self.shared.signs, &other.shared.accepts) {
            return Some(format!(
                "{signing_key} is a key ({ours}) that the running instance {name} does not accept: first give it to \
                 every instance as {accepted_key}, and restart them one by one"
            ));
        }
        if let Some(theirs) = missing(&other.shared.signs, &self.shared.accepts) {
            let advice = match self.shared.signs {
                Some(_) => format!("set {accepted_key} to it"),
                None => "read the public keys again".to_owned(),
            };
            return Some(format!(
                "the running instance {name} signs with a key ({theirs}) that is not accepted here: {advice}"
            ));
        }
        (0..self.buses.len()).find_map(|partition| self.other_bus(partition, name, other))
    }

    /// The error message if the other instance follows another Redis in this partition.
    fn other_bus(&self, partition: usize, name: &str, other: &Self) -> Option<String> {
        let (ours, theirs) = (self.buses.get(partition)?.as_ref()?, other.buses.get(partition)?.as_ref()?);
        (ours != theirs).then(|| {
            format!(
                "REDIS_URL leads to another Redis ({ours}) than the one that the running instance {name} follows ({theirs}): \
                 it has to be the same for all"
            )
        })
    }
}

/// Another instance, as its row was last read.
#[derive(Debug)]
struct Other {
    name: String,
    beat: i64,
    /// The number of reads in a row that have found the beat unchanged.
    unchanged: u32,
    /// Whether the beat has been seen to change.
    is_alive: bool,
    /// The facts; `None` if they cannot be parsed, because the instance runs an unknown version.
    facts: Option<Facts>,
}

impl Other {
    fn may_live(&self) -> bool {
        self.unchanged < DEAD_AFTER
    }

    fn has_joined(&self) -> bool {
        self.facts.as_ref().is_none_or(|facts| facts.has_joined)
    }
}

/// The row of this instance, and the last known rows of the others.
pub struct Agreement<S> {
    store: S,
    clock: Arc<dyn Clock>,
    id: InstanceId,
    name: String,
    /// Locked while the table is written and read, by startup and background tasks, and by the requests of guards.
    state: Mutex<State>,
    /// The reason why no lease may be held, if there is one.
    conflict: StdMutex<Option<String>>,
    /// The seconds by which the wall clock here is ahead of the database's, when last measured.
    clock_offset: AtomicI64,
    /// The database's clock minus [`Uptime`] in milliseconds, when last measured.
    database_clock: AtomicI64,
    /// The newest form of tokens that all instances read, when last read.
    token_form: AtomicU32,
    /// The [`Uptime`] at which the last comparison that found no conflict began; zero before the first.
    compared_at: AtomicU64,
}

struct State {
    facts: Facts,
    /// The bus that each partition follows, or followed last.
    followed: Vec<Option<String>>,
    others: BTreeMap<String, Other>,
}

fn unknown_version(name: &str) -> String {
    format!("the running instance {name} is of a version whose settings cannot be read here")
}

/// The reason why an epoch cannot begin, or has to end.
#[derive(Debug, thiserror::Error)]
pub enum Disagreement<E> {
    #[error("{0}")]
    Bus(String),
    #[error("the table of instances cannot be used: {0}")]
    Store(E),
}

/// The reason why an instance cannot start beside those that are running.
#[derive(Debug, thiserror::Error)]
pub enum Conflict<E> {
    /// A setting differs; the message has both values.
    #[error("{0}")]
    Settings(String),
    /// The table of instances cannot be used.
    #[error("the table of instances cannot be used: {0}")]
    Store(#[source] E),
}

impl<S: SessionStore> Agreement<S> {
    /// Records this instance and checks that no live one conflicts with it. If a conflicting instance has
    /// ended without deleting its row, this waits a few seconds until that instance is considered dead.
    ///
    /// # Errors
    /// A setting differs (the message has both values), or the database cannot be used.
    pub async fn reach(
        store: S,
        clock: Arc<dyn Clock>,
        id: InstanceId,
        name: String,
        facts: Facts,
    ) -> Result<Self, Conflict<S::Error>> {
        let agreement = Self {
            store,
            clock,
            id,
            name,
            state: Mutex::new(State { followed: facts.buses.clone(), facts, others: BTreeMap::new() }),
            conflict: StdMutex::default(),
            clock_offset: AtomicI64::default(),
            database_clock: AtomicI64::default(),
            token_form: AtomicU32::default(),
            compared_at: AtomicU64::default(),
        };
        let mut beat = time::interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            let mut state = agreement.state.lock().await;
            agreement.look(&mut state, true).await.map_err(Conflict::Store)?;
            if let Some(conflict) = state.lost_conflict(&id.to_string()) {
                drop(state);
                agreement.leave().await;
                return Err(Conflict::Settings(conflict));
            }
            if state.conflicts().next().is_some() {
                info!("waiting to find out whether an instance with different settings is still running");
            } else if state.facts.has_joined {
                break;
            } else {
                // Recorded before the others are read once more, so that of two that start at the same time
                // at least one sees the other.
                state.facts.has_joined = true;
                beat.reset_immediately();
            }
        }
        Ok(agreement)
    }

    /// Updates the row and reads the others, forever.
    pub async fn keep(&self) -> Infallible {
        let mut beat = time::interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut has_failed = false;
        loop {
            beat.tick().await;
            let mut state = self.state.lock().await;
            let began = self.clock.uptime();
            let looked = self.look(&mut state, true).await;
            let conflict = state.running_conflict();
            let is_none = conflict.is_none();
            // A known conflict remains until a successful look shows that it is over.
            if looked.is_ok() || !is_none {
                *self.conflict.lock().unwrap_or_else(PoisonError::into_inner) = conflict;
                if is_none {
                    self.compared_at.store(began.0, Ordering::Release);
                }
            }
            drop(state);
            if let (Err(error), false) = (&looked, has_failed) {
                warn!(%error, "the table of instances cannot be used: {error}");
            }
            has_failed = looked.is_err();
        }
    }

    /// Records that this instance follows the Redis with this identity, unless a live instance follows
    /// another one.
    ///
    /// # Errors
    /// [`Disagreement`].
    pub async fn follow(&self, partition: Partition, identity: &str) -> Result<(), Disagreement<S::Error>> {
        let index = partition.index();
        let mut state = self.state.lock().await;
        state.set_bus(index, Some(identity.to_owned()));
        // Checked before it is recorded: running instances would otherwise treat it as a conflict.
        let mut agreed = self.read(&mut state, false).await.map_err(Disagreement::Store);
        agreed = agreed.and_then(|()| state.other_bus(index).map_err(Disagreement::Bus));
        if agreed.is_ok() {
            let looked = self.look(&mut state, false).await.map_err(Disagreement::Store);
            agreed = looked.and_then(|()| state.other_bus(index).map_err(Disagreement::Bus));
        }
        if agreed.is_ok() {
            state.followed[index] = Some(identity.to_owned());
        } else {
            state.set_bus(index, None);
            // Written now, so that the others need not wait for the next beat.
            let _ = self.write(&state).await;
        }
        agreed
    }

    /// Records that this instance accepts the keys `accepts`, and signs with `signs` from now on, if all others accept
    /// that. Returns whether they do; otherwise it goes on signing with the key before. `None` signs nothing.
    ///
    /// An instance that starts at the same time either is seen here, or finds the new key recorded and does not start
    /// without it.
    ///
    /// # Errors
    /// The table of instances cannot be used. What this instance signs with has not changed.
    pub async fn change_keys(&self, signs: Option<&str>, accepts: &[String]) -> Result<bool, S::Error> {
        let mut state = self.state.lock().await;
        state.facts.shared.accepts = accepts.to_vec();
        self.look(&mut state, false).await?;
        let Some(signs) = signs else { return Ok(true) };
        if let Some(name) = state.first_without(signs) {
            info!("the key {signs} waits for {name}, which does not accept it yet");
            return Ok(false);
        }
        let before = state.facts.shared.signs.replace(signs.to_owned());
        let looked = self.look(&mut state, false).await;
        let may_sign = looked.is_ok() && state.first_without(signs).is_none();
        if !may_sign {
            state.facts.shared.signs = before;
            let _ = self.write(&state).await;
        }
        looked.map(|()| may_sign)
    }

    /// Why the facts of a process that signs nothing, called `name`, must not be recorded, if there is a reason: it
    /// conflicts with this instance, signs, or follows another bus than this instance does or did last. Every instance
    /// that is running trusts its mirror only while there is no conflict, so what is recorded must not make one.
    pub async fn conflict_with(&self, name: &str, facts: &str) -> Option<String> {
        let state = self.state.lock().await;
        let (ours, followed) = (state.facts.clone(), state.followed.clone());
        drop(state);
        let Ok(theirs) = serde_json::from_str::<Facts>(facts) else { return Some(unknown_version(name)) };
        if theirs.shared.signs.is_some() || theirs.buses.len() != ours.buses.len() {
            return Some("a guard signs nothing, and has as many partitions as the instances".to_owned());
        }
        let ours = Facts { buses: followed, ..ours };
        let strays =
            theirs.buses.iter().zip(&ours.buses).any(|(theirs, ours)| theirs.is_some() && theirs != ours);
        theirs.conflict(&self.name, &ours).or_else(|| {
            strays.then(|| format!("the running instance {} does not follow this Redis yet", self.name))
        })
    }

    /// The reason why no lease may be held, if there is one.
    pub fn conflict(&self) -> Option<String> {
        self.conflict.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When the last comparison began that found no conflict: at that time, no instance that was considered alive
    /// followed another Redis, and the beat of this one was about to be written.
    pub fn compared_at(&self) -> Uptime {
        Uptime(self.compared_at.load(Ordering::Acquire))
    }

    /// Records that the partition is no longer followed. The next beat publishes it.
    pub async fn unfollow(&self, partition: Partition) {
        self.state.lock().await.set_bus(partition.index(), None);
    }

    /// The newest form of tokens that all read which have a row. Guards, which sign nothing, are not counted: they ignore
    /// what they do not know.
    pub fn token_form(&self) -> u32 {
        self.token_form.load(Ordering::Relaxed)
    }

    /// The seconds by which the wall clock here is ahead of the database's, if that exceeds the tolerance.
    pub fn clock_offset(&self) -> Option<i64> {
        let offset = self.clock_offset.load(Ordering::Relaxed);
        (offset.unsigned_abs() > CLOCK_TOLERANCE).then_some(offset)
    }

    /// The time of the database's clock: its last reading, advanced by a clock that cannot be set. A step
    /// of the wall clock has no effect on it.
    pub fn database_time(&self) -> UnixSeconds {
        (self.database_clock.load(Ordering::Relaxed) + self.clock.uptime().milliseconds()).div_euclid(1000)
    }

    /// Deletes the row of this instance.
    pub async fn leave(&self) {
        // If this fails, the others consider this instance dead some seconds later.
        let _ = self.store.delete_instance(&self.id.to_string(), None).await;
    }

    /// Writes the row of this instance, then reads the others, also if the store has refused the row: it may
    /// be for a conflict with one of them. With `counts`, an unchanged beat counts toward [`DEAD_AFTER`].
    async fn look(&self, state: &mut State, counts: bool) -> Result<(), S::Error> {
        let written = self.write(state).await;
        self.read(state, counts).await?;
        written
    }

    async fn write(&self, state: &State) -> Result<(), S::Error> {
        let facts = serde_json::to_string(&state.facts).unwrap_or_default();
        let before = self.clock.now();
        let database_ms = self.store.record_instance(self.id, &self.name, &facts).await?;
        self.database_clock.store(database_ms - self.clock.uptime().milliseconds(), Ordering::Relaxed);
        self.compare_clocks(before, database_ms.div_euclid(1000), self.clock.now());
        Ok(())
    }

    async fn read(&self, state: &mut State, counts: bool) -> Result<(), S::Error> {
        let rows = self.store.other_instances(self.id).await?;
        state.others.retain(|id, _| rows.iter().any(|row| row.id == *id));
        for row in rows {
            match state.others.get_mut(&row.id) {
                Some(other) if other.beat == row.beat => other.unchanged += u32::from(counts),
                known => {
                    let other = Other {
                        name: row.name,
                        beat: row.beat,
                        unchanged: 0,
                        is_alive: known.is_some(),
                        facts: serde_json::from_str(&row.facts).ok(),
                    };
                    state.others.insert(row.id, other);
                }
            }
        }
        self.token_form.store(state.token_form(), Ordering::Relaxed);
        for (id, other) in state.others.iter().filter(|(_, other)| other.unchanged >= DELETED_AFTER) {
            self.store.delete_instance(id, Some(other.beat)).await?;
        }
        Ok(())
    }

    /// Compares the wall clock here, read before and after, with the database's. The time that the query
    /// took is counted in favor of the wall clock.
    fn compare_clocks(&self, before: UnixSeconds, database: UnixSeconds, after: UnixSeconds) {
        let offset = (before - database).max(0) + (after - database).min(0);
        let was = self.clock_offset();
        self.clock_offset.store(offset, Ordering::Relaxed);
        match (was, self.clock_offset()) {
            (None, Some(_)) => warn!(
                "the wall clock here is {offset} s ahead of the database's (negative: behind): this instance is not ready, and \
                 deletes nothing, until they agree within {CLOCK_TOLERANCE} s"
            ),
            (Some(_), None) => info!("the wall clock here and the database's agree again"),
            _ => {}
        }
    }
}

impl State {
    fn set_bus(&mut self, partition: usize, identity: Option<String>) {
        if let Some(bus) = self.facts.buses.get_mut(partition) {
            *bus = identity;
        }
    }

    /// The conflict with a live instance to which this one, with this id, has to give way before it has
    /// started: because the other is running or, of two that start at the same time, has the lower id.
    fn lost_conflict(&self, id: &str) -> Option<String> {
        let wins = |other_id: &str, other: &Other| {
            let is_first = !self.facts.has_joined && other_id < id;
            other.is_alive && (other.has_joined() || is_first)
        };
        self.conflicts().find(|(other_id, other, _)| wins(other_id, other)).map(|(_, _, conflict)| conflict)
    }

    /// The conflicts with instances that may be live, with these instances and their ids.
    fn conflicts(&self) -> impl Iterator<Item = (&str, &Other, String)> {
        self.others.iter().filter(|(_, other)| other.may_live()).filter_map(|(id, other)| {
            let conflict = match &other.facts {
                Some(facts) => self.facts.conflict(&other.name, facts)?,
                None => unknown_version(&other.name),
            };
            Some((id.as_str(), other, conflict))
        })
    }

    /// The conflict with an instance that is running, if there is one.
    fn running_conflict(&self) -> Option<String> {
        self.conflicts().find(|(_, other, _)| other.has_joined()).map(|(_, _, conflict)| conflict)
    }

    /// The name of an instance that has a row and does not accept this key, if there is one. One whose row stands still
    /// may be cut off from the database and answer from its mirror; when it is dead, its row goes.
    fn first_without(&self, key: &str) -> Option<&str> {
        let accepts = |facts: &Facts| facts.shared.accepts.iter().any(|accepted| accepted == key);
        let without = self.others.values().find(|other| !other.facts.as_ref().is_some_and(accepts));
        without.map(|other| other.name.as_str())
    }

    fn token_form(&self) -> u32 {
        let theirs = self.others.values().filter_map(|other| other.facts.as_ref()).map(|facts| &facts.shared);
        let signing = theirs.filter(|shared| shared.signs.is_some()).map(|shared| shared.token_form);
        signing.fold(self.facts.shared.token_form, u32::min)
    }

    /// Returns an error if a live instance follows another Redis in this partition.
    fn other_bus(&self, partition: usize) -> Result<(), String> {
        let others = self.others.values().filter(|other| other.may_live());
        let conflict = others
            .filter_map(|other| self.facts.other_bus(partition, &other.name, other.facts.as_ref()?))
            .next();
        conflict.map_or(Ok(()), Err)
    }
}
