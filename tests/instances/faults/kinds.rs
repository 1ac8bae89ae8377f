//! What can go wrong: the list. How each is done is in `strike.rs` and `failover.rs`.

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
    PrimaryKilled,
    PrimaryStopped,
    ReplicasStopped,
    StaleReplicaPromoted,
    MasterKilled,
    MasterStopped,
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
];

impl Fault {
    /// Those that a world with such a Redis can have.
    pub fn of(kind: Kind) -> &'static [Self] {
        match kind {
            Kind::Single => SINGLE,
            Kind::Sentinel => &[PrimaryKilled, PrimaryStopped, ReplicasStopped, StaleReplicaPromoted],
            Kind::Cluster => &[MasterKilled, MasterStopped],
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
            PrimaryKilled => "Sentinel: the primary is killed",
            PrimaryStopped => "Sentinel: the primary stands still until replaced",
            ReplicasStopped => "Sentinel: both replicas stand still for 3 s",
            StaleReplicaPromoted => "Sentinel: a stale replica is all that is left",
            MasterKilled => "Cluster: a master is killed",
            MasterStopped => "Cluster: a master stands still until replaced",
        }
    }

    pub fn needs_libfaketime(self) -> bool {
        matches!(self, ClockBehind | ClockAhead)
    }

    /// Whether log-ins and log-outs have to go on all the while.
    pub fn must_not_be_felt(self) -> bool {
        matches!(self, ScriptsFlushed | RedisFull)
    }
}
