//! The list of faults. `strike.rs` and `failover.rs` inject them.

use crate::support::world::Kind;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    InstanceKilled,
    InstanceStopped,
    RedisKilled,
    RedisLost,
    RedisStopped,
    PostgresKilled,
    PostgresStopped,
    NoRedisForOne,
    NoSqlForOne,
    RedisLinksReset,
    BlackHoleToRedis,
    BlackHoleFromRedis,
    BlackHoleToSql,
    BlackHoleFromSql,
    SlowRedisForOne,
    SlowRedisForAll,
    JitteryRedisForAll,
    SlowRedisFallsSilent,
    RedisClientsKilled,
    RedisFlushed,
    ScriptsFlushed,
    StreamTrimmed,
    StreamTrimmedUnread,
    RedisFlushedUnread,
    RedisFull,
    ClockBehind,
    ClockAhead,
    ClockDaysAhead,
    InstanceTold,
    InstanceToldAtOnce,
    SlowSqlForOne,
    SilentSqlForOne,
    SqlFrozen,
    RedisFrozen,
    PostgresReadOnly,
    StandbyForOne,
    PostgresReplaced,
    RedisReplaced,
    FloodOfStreams,
    FloodOfRefreshes,
    FloodOfLogouts,
    FloodOfReadiness,
    PrimaryKilled,
    PrimaryStopped,
    ReplicasStopped,
    StaleReplicaPromoted,
    PrimaryIsolated,
    MasterKilled,
    MasterStopped,
    GuardKilled,
    GuardStopped,
    GuardCutOff,
    GateKilled,
    GateCutOff,
}

/// The part of the world that a fault affects. Two simultaneous faults must not undo each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The process of one instance, or its clock.
    Instance,
    RedisLink,
    SqlLink,
    /// All links to Redis.
    RedisLinks,
    Redis,
    Postgres,
    /// A guard with its links, or the gate with its own.
    Beside,
    /// No part of the world: the fault is a client that sends requests.
    Outside,
}

use Fault::*;

const SINGLE: &[Fault] = &[
    InstanceKilled,
    InstanceStopped,
    RedisKilled,
    RedisLost,
    RedisStopped,
    PostgresKilled,
    PostgresStopped,
    NoRedisForOne,
    NoSqlForOne,
    RedisLinksReset,
    BlackHoleToRedis,
    BlackHoleFromRedis,
    BlackHoleToSql,
    BlackHoleFromSql,
    SlowRedisForOne,
    SlowRedisForAll,
    JitteryRedisForAll,
    SlowRedisFallsSilent,
    RedisClientsKilled,
    RedisFlushed,
    ScriptsFlushed,
    StreamTrimmed,
    StreamTrimmedUnread,
    RedisFlushedUnread,
    RedisFull,
    ClockBehind,
    ClockAhead,
    ClockDaysAhead,
    InstanceTold,
    InstanceToldAtOnce,
    SlowSqlForOne,
    SilentSqlForOne,
    SqlFrozen,
    RedisFrozen,
    PostgresReadOnly,
    StandbyForOne,
    PostgresReplaced,
    RedisReplaced,
    FloodOfStreams,
    FloodOfRefreshes,
    FloodOfLogouts,
    FloodOfReadiness,
    GuardKilled,
    GuardStopped,
    GuardCutOff,
    GateKilled,
    GateCutOff,
];

/// The faults of a single Redis that are also possible in a world with any other kind of Redis.
const ANYWHERE: &[Fault] = &[
    InstanceKilled,
    InstanceStopped,
    PostgresKilled,
    PostgresStopped,
    NoSqlForOne,
    BlackHoleFromSql,
    InstanceTold,
    SlowSqlForOne,
    SqlFrozen,
    GuardKilled,
    GateKilled,
];

impl Fault {
    /// The faults that are possible with this kind of Redis.
    pub fn of(kind: Kind) -> &'static [Self] {
        match kind {
            Kind::Single => SINGLE,
            Kind::Sentinel => {
                &[PrimaryKilled, PrimaryStopped, ReplicasStopped, StaleReplicaPromoted, PrimaryIsolated]
            }
            Kind::Cluster => &[MasterKilled, MasterStopped],
        }
    }

    /// Whether the short run skips the fault, because it takes too long or resembles another one.
    pub fn is_left_to_long_runs(self) -> bool {
        matches!(
            self,
            BlackHoleFromRedis
                | BlackHoleFromSql
                | SlowRedisForAll
                | SlowRedisForOne
                | StreamTrimmed
                | RedisFlushed
                | RedisLinksReset
                | PostgresStopped
                | RedisKilled
                | ClockDaysAhead
                | PrimaryStopped
                | ReplicasStopped
                | StaleReplicaPromoted
                | MasterStopped
        )
    }

    /// All pairs of faults that can happen at the same time with this kind of Redis.
    pub fn pairs_of(kind: Kind) -> Vec<(Self, Self)> {
        let own = Self::of(kind);
        let others = if kind == Kind::Single { own } else { ANYWHERE };
        let pairs = own.iter().enumerate().flat_map(|(place, one)| {
            let from = if kind == Kind::Single { place + 1 } else { 0 };
            others[from..].iter().map(|other| (*one, *other))
        });
        pairs.filter(|(one, other)| one.goes_with(*other)).collect()
    }

    fn goes_with(self, other: Self) -> bool {
        if [self, other].contains(&ClockDaysAhead) {
            return false;
        }
        // A client that connects at that moment would stay with the old Redis unnoticed, which no real
        // failover allows.
        if [self, other].contains(&RedisReplaced) {
            return self.places() == [Place::Outside] || other.places() == [Place::Outside];
        }
        let clash = |one: &Place, other: &Place| match (one, other) {
            // The two faults affect different instances.
            (Place::Instance, Place::Instance) => false,
            (Place::RedisLink, Place::RedisLink) | (Place::SqlLink, Place::SqlLink) => false,
            (Place::RedisLinks, Place::RedisLink) | (Place::RedisLink, Place::RedisLinks) => true,
            (Place::Outside, Place::Outside) => false,
            (one, other) => one == other,
        };
        !self.places().iter().any(|one| other.places().iter().any(|other| clash(one, other)))
    }

    fn places(self) -> &'static [Place] {
        match self {
            InstanceKilled | InstanceStopped | InstanceTold | InstanceToldAtOnce => &[Place::Instance],
            // Setting the clock involves a registration, which needs PostgreSQL.
            ClockBehind | ClockDaysAhead => &[Place::Instance, Place::Postgres],
            ClockAhead => &[Place::Instance, Place::RedisLink, Place::Postgres],
            NoRedisForOne | BlackHoleToRedis | BlackHoleFromRedis | SlowRedisForOne
            | SlowRedisFallsSilent | RedisFrozen => &[Place::RedisLink],
            RedisLinksReset | SlowRedisForAll | JitteryRedisForAll => &[Place::RedisLinks],
            NoSqlForOne | BlackHoleToSql | BlackHoleFromSql | SlowSqlForOne | SilentSqlForOne | SqlFrozen => {
                &[Place::SqlLink]
            }
            RedisKilled | RedisLost | RedisStopped | RedisClientsKilled | RedisFlushed | ScriptsFlushed
            | StreamTrimmed | RedisFull => &[Place::Redis],
            StreamTrimmedUnread | RedisFlushedUnread => &[Place::Redis, Place::RedisLink],
            RedisReplaced => &[Place::Redis],
            PostgresKilled | PostgresStopped | PostgresReadOnly => &[Place::Postgres],
            StandbyForOne | PostgresReplaced => &[Place::Postgres, Place::SqlLink],
            FloodOfStreams | FloodOfRefreshes | FloodOfLogouts | FloodOfReadiness => &[Place::Outside],
            PrimaryKilled | PrimaryStopped | ReplicasStopped | StaleReplicaPromoted | PrimaryIsolated
            | MasterKilled | MasterStopped => &[Place::Redis],
            GuardKilled | GuardStopped | GateKilled => &[Place::Beside],
            GuardCutOff => &[Place::Beside, Place::RedisLink],
            GateCutOff => &[Place::Beside, Place::RedisLink, Place::Postgres],
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            InstanceKilled => "an instance is killed and started again",
            InstanceStopped => "an instance stands still for 3 s",
            RedisKilled => "Redis is killed and started again",
            RedisLost => "Redis is killed and has lost its data",
            RedisStopped => "Redis stands still for 3 s",
            PostgresKilled => "PostgreSQL is killed and started again",
            PostgresStopped => "PostgreSQL stands still for 3 s",
            NoRedisForOne => "an instance is cut off from Redis",
            NoSqlForOne => "an instance is cut off from PostgreSQL",
            RedisLinksReset => "all links to Redis are reset, again and again",
            BlackHoleToRedis => "black hole from an instance to Redis",
            BlackHoleFromRedis => "black hole from Redis to an instance",
            BlackHoleToSql => "black hole from an instance to PostgreSQL",
            BlackHoleFromSql => "black hole from PostgreSQL to an instance",
            SlowRedisForOne => "200 ms each way between an instance and Redis",
            SlowRedisForAll => "200 ms each way between all and Redis",
            JitteryRedisForAll => "0 to 200 ms each way between all and Redis",
            SlowRedisFallsSilent => "a slow link to Redis becomes a black hole",
            RedisClientsKilled => "CLIENT KILL TYPE normal",
            RedisFlushed => "FLUSHALL",
            ScriptsFlushed => "SCRIPT FLUSH",
            StreamTrimmed => "the stream is trimmed to nothing",
            StreamTrimmedUnread => "... again and again, and one link is slow",
            RedisFlushedUnread => "FLUSHALL again and again, and one link is slow",
            RedisFull => "Redis's memory is full",
            ClockBehind => "an instance's wall clock is an hour slow",
            ClockAhead => "... an hour fast, through a reconnect",
            ClockDaysAhead => "... two days fast, through a maintenance",
            InstanceTold => "an instance is told to stop, and started again",
            InstanceToldAtOnce => "... without a grace",
            SlowSqlForOne => "50 ms each way between an instance and PostgreSQL",
            SilentSqlForOne => "nothing passes between an instance and PostgreSQL",
            SqlFrozen => "connections to PostgreSQL freeze, new ones pass",
            RedisFrozen => "connections to Redis freeze, new ones pass",
            PostgresReadOnly => "PostgreSQL is read-only",
            StandbyForOne => "an instance is led to a standby that lags",
            PostgresReplaced => "PostgreSQL fails over, one instance stays behind",
            RedisReplaced => "Redis fails over behind its address, the old one lives",
            FloodOfStreams => "a flood of event streams of a session",
            FloodOfRefreshes => "a flood of refreshes of a session",
            FloodOfLogouts => "a flood of logouts with a dead token",
            FloodOfReadiness => "a flood of /health/ready",
            PrimaryKilled => "Sentinel: the primary is killed",
            PrimaryStopped => "Sentinel: the primary stands still until replaced",
            ReplicasStopped => "Sentinel: both replicas stand still for 3 s",
            StaleReplicaPromoted => "Sentinel: a stale replica is all that is left",
            PrimaryIsolated => "Sentinel: the primary is isolated with an instance",
            MasterKilled => "Cluster: a master is killed",
            MasterStopped => "Cluster: a master stands still until replaced",
            GuardKilled => "a guard is killed and started again",
            GuardStopped => "a guard stands still for 3 s",
            GuardCutOff => "a guard is cut off from Redis and from Hallpass",
            GateKilled => "the gate is killed and started again",
            GateCutOff => "the gate is cut off from Redis and from PostgreSQL",
        }
    }

    /// Whether the fault ends the process of an instance.
    pub fn ends_instance(self) -> bool {
        matches!(self, InstanceKilled | InstanceTold | InstanceToldAtOnce)
    }

    pub fn needs_libfaketime(self) -> bool {
        matches!(self, ClockBehind | ClockAhead | ClockDaysAhead)
    }

    /// Whether logins and logouts have to succeed during the fault.
    pub fn must_not_be_felt(self) -> bool {
        matches!(self, ScriptsFlushed | RedisFull)
    }
}
