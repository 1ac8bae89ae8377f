//! Injects and heals each fault. Two faults may overlap: each locks the world only while it changes it.

use std::time::Duration;

use fastrand::Rng;
use tokio::{sync::Mutex, time::sleep};

use crate::{
    client::Api,
    faults::{failover, floods, kinds::Fault},
    support::{
        clock::Step,
        gate::Gate,
        link::{Link, Weather},
        process::comes_true,
        world::World,
    },
};

/// The duration of most faults: longer than a revocation waits for acknowledgements before it is answered
/// 503.
pub const WHILE: Duration = Duration::from_millis(3500);
/// The time for which a process is stopped.
pub const STOP: Duration = Duration::from_secs(3);
/// The time between the end of a process and its restart.
pub const DOWN: Duration = Duration::from_secs(2);
/// The time for which the load continues after an instantaneous fault.
const AFTER: Duration = Duration::from_secs(1);
/// A little longer than the maintenance interval of an instance.
const MAINTENANCE: Duration = Duration::from_secs(33);

const EVENTS: &str = "{hp:0}:events";

/// Injects a fault at the instance `one`, or at all instances, and returns when it has been healed. Returns
/// an error if a process did not behave as required.
pub async fn strike(fault: Fault, world: &Mutex<World>, one: usize, rng: &mut Rng) -> Result<(), String> {
    match fault {
        Fault::InstanceKilled => {
            world.lock().await.instances[one].kill();
            sleep(DOWN).await;
            world.lock().await.instances[one].start_again();
        }
        Fault::InstanceStopped => {
            world.lock().await.instances[one].signal("STOP");
            sleep(STOP).await;
            world.lock().await.instances[one].signal("CONT");
        }
        Fault::InstanceTold => return tell_to_stop(world, one).await,
        Fault::InstanceToldAtOnce => return tell_to_stop(world, WITHOUT_GRACE).await,
        Fault::RedisKilled | Fault::RedisLost => {
            world.lock().await.redis().kill();
            sleep(DOWN).await;
            let mut world = world.lock().await;
            if fault == Fault::RedisLost {
                world.redis().lose_data();
            }
            world.redis().start_again().await;
        }
        Fault::RedisStopped => {
            world.lock().await.redis().signal("STOP");
            sleep(STOP).await;
            world.lock().await.redis().signal("CONT");
        }
        Fault::PostgresKilled => {
            world.lock().await.postgres.kill();
            sleep(DOWN).await;
            world.lock().await.postgres.start_again().await;
        }
        Fault::PostgresStopped => {
            world.lock().await.postgres.signal_all("STOP");
            sleep(STOP).await;
            world.lock().await.postgres.signal_all("CONT");
        }
        Fault::NoRedisForOne => redis_of(one, world, cut).await,
        Fault::NoSqlForOne => sql_of(one, world, cut).await,
        Fault::RedisLinksReset => {
            for _ in 0..12 {
                world.lock().await.redis_links().for_each(Link::reset);
                sleep(WHILE / 12).await;
            }
        }
        Fault::BlackHoleToRedis => redis_of(one, world, |weather| weather.held_to_server = true).await,
        Fault::BlackHoleFromRedis => redis_of(one, world, |weather| weather.held_to_client = true).await,
        Fault::BlackHoleToSql => sql_of(one, world, |weather| weather.held_to_server = true).await,
        Fault::BlackHoleFromSql => sql_of(one, world, |weather| weather.held_to_client = true).await,
        Fault::SilentSqlForOne => {
            let silent = |weather: &mut Weather| {
                weather.held_to_server = true;
                weather.held_to_client = true;
            };
            sql_of(one, world, silent).await;
        }
        Fault::SlowSqlForOne => sql_of(one, world, |weather| weather.delay = Duration::from_millis(50)).await,
        Fault::SqlFrozen => {
            world.lock().await.instances[one].sql.freeze();
            sleep(WHILE).await;
        }
        Fault::RedisFrozen => {
            world.lock().await.instances[one].redis().freeze();
            sleep(WHILE).await;
        }
        Fault::SlowRedisForOne => redis_of(one, world, slow).await,
        Fault::SlowRedisForAll => disturb(world, |world| world.redis_links().collect(), slow).await,
        Fault::JitteryRedisForAll => {
            let jittery = |weather: &mut Weather| weather.jitter = Duration::from_millis(200);
            disturb(world, |world| world.redis_links().collect(), jittery).await;
        }
        Fault::SlowRedisFallsSilent => {
            // The last response arrives late, and describes the state at the time of the request.
            let very_slow = |weather: &mut Weather| weather.delay = Duration::from_millis(350);
            world.lock().await.instances[one].redis().set(very_slow);
            sleep(DOWN).await;
            redis_of(one, world, |weather| weather.held_to_server = true).await;
        }
        Fault::RedisClientsKilled => tell(world, &["CLIENT", "KILL", "TYPE", "normal"]).await,
        Fault::RedisFlushed => tell(world, &["FLUSHALL"]).await,
        Fault::ScriptsFlushed => tell(world, &["SCRIPT", "FLUSH"]).await,
        Fault::StreamTrimmed => tell(world, &["XTRIM", EVENTS, "MAXLEN", "0"]).await,
        // The slow follower finds that the events it has not read yet are gone.
        Fault::StreamTrimmedUnread => again_and_again(world, one, &["XTRIM", EVENTS, "MAXLEN", "0"]).await,
        Fault::RedisFlushedUnread => again_and_again(world, one, &["FLUSHALL"]).await,
        Fault::RedisFull => {
            world.lock().await.redis().tell(&["CONFIG", "SET", "maxmemory", "1mb"]);
            sleep(WHILE).await;
            world.lock().await.redis().tell(&["CONFIG", "SET", "maxmemory", "0"]);
        }
        Fault::RedisReplaced => {
            world.lock().await.replace_redis().await;
            sleep(WHILE).await;
        }
        Fault::ClockBehind => {
            world.lock().await.instances[one].set_clock(Step::Behind).await;
            sleep(WHILE).await;
            world.lock().await.instances[one].set_clock(Step::Right).await;
        }
        Fault::ClockAhead => {
            world.lock().await.instances[one].set_clock(Step::Ahead).await;
            // The events that the instance misses have to reach it nevertheless.
            redis_of(one, world, |weather| weather.cut = true).await;
            sleep(AFTER).await;
            world.lock().await.instances[one].set_clock(Step::Right).await;
        }
        Fault::ClockDaysAhead => {
            world.lock().await.instances[one].set_clock(Step::DaysAhead).await;
            sleep(MAINTENANCE).await;
            world.lock().await.instances[one].set_clock(Step::Right).await;
        }
        Fault::PostgresReadOnly => {
            world.lock().await.postgres.set_read_only(true);
            sleep(WHILE).await;
            world.lock().await.postgres.set_read_only(false);
        }
        Fault::StandbyForOne => {
            let standby = world.lock().await.standby(&["recovery_min_apply_delay=1h"]).await;
            let lead_to = async |port| {
                let world = world.lock().await;
                world.instances[one].sql.retarget(port);
                world.instances[one].sql.reset();
            };
            lead_to(standby.port).await;
            sleep(WHILE).await;
            let primary = world.lock().await.postgres.port;
            lead_to(primary).await;
        }
        Fault::PostgresReplaced => {
            world.lock().await.replace_postgres(one).await;
            sleep(WHILE).await;
        }
        Fault::FloodOfStreams => floods::streams(&api(world).await, one).await,
        Fault::FloodOfRefreshes => floods::refreshes(&api(world).await, one).await,
        Fault::FloodOfLogouts => floods::logouts(&api(world).await, one).await,
        Fault::FloodOfReadiness => floods::readiness(&api(world).await, one).await,
        Fault::PrimaryKilled => failover::kill_primary(world.lock().await.sentinel()).await,
        Fault::PrimaryStopped => failover::stop_primary(world.lock().await.sentinel()).await,
        Fault::ReplicasStopped => failover::stop_replicas(world.lock().await.sentinel()).await,
        Fault::StaleReplicaPromoted => failover::promote_stale_replica(world.lock().await.sentinel()).await,
        Fault::PrimaryIsolated => {
            let mut world = world.lock().await;
            world.instances[one].sentinels.iter().for_each(|link| link.set(|weather| weather.cut = true));
            failover::isolate_primary(world.sentinel(), one).await;
            world.instances[one].sentinels.iter().for_each(Link::heal);
            world.sentinel().wait_until_whole().await;
        }
        Fault::GuardKilled => {
            let guard = rng.usize(..world.lock().await.guards.len());
            world.lock().await.guards[guard].process.kill();
            sleep(DOWN).await;
            world.lock().await.guards[guard].start_again();
        }
        Fault::GuardStopped => {
            let guard = rng.usize(..world.lock().await.guards.len());
            world.lock().await.guards[guard].process.signal("STOP");
            sleep(STOP).await;
            world.lock().await.guards[guard].process.signal("CONT");
        }
        Fault::GuardCutOff => {
            let guard = rng.usize(..world.lock().await.guards.len());
            disturb(world, |world| world.guards[guard].links().collect(), cut).await;
        }
        Fault::GateKilled => {
            world.lock().await.gate.iter_mut().for_each(|gate| gate.process.kill());
            sleep(DOWN).await;
            world.lock().await.gate.iter_mut().for_each(Gate::start_again);
        }
        Fault::GateCutOff => {
            disturb(world, |world| world.gate.iter().flat_map(Gate::links).collect(), cut).await;
        }
        Fault::MasterKilled => failover::kill_master(world.lock().await.cluster(), rng).await,
        Fault::MasterStopped => failover::stop_master(world.lock().await.cluster(), rng).await,
    }
    Ok(())
}

/// The instance whose shutdown grace is 0.
pub const WITHOUT_GRACE: usize = 0;

/// Sends SIGTERM. The process has to end soon after its grace.
async fn tell_to_stop(world: &Mutex<World>, one: usize) -> Result<(), String> {
    world.lock().await.instances[one].signal("TERM");
    let has_ended = comes_true(async || !world.lock().await.instances[one].is_running()).await;
    let mut world = world.lock().await;
    if !has_ended {
        world.instances[one].kill();
    }
    world.instances[one].start_again();
    has_ended.then_some(()).ok_or_else(|| format!("instance {one} did not end on SIGTERM"))
}

async fn api(world: &Mutex<World>) -> Api {
    Api::of(&*world.lock().await)
}

fn cut(weather: &mut Weather) {
    weather.cut = true;
}

fn slow(weather: &mut Weather) {
    weather.delay = Duration::from_millis(200);
}

async fn redis_of(one: usize, world: &Mutex<World>, change: fn(&mut Weather)) {
    disturb(world, |world| vec![world.instances[one].redis()], change).await;
}

async fn sql_of(one: usize, world: &Mutex<World>, change: fn(&mut Weather)) {
    disturb(world, |world| vec![&world.instances[one].sql], change).await;
}

async fn disturb(world: &Mutex<World>, links: impl Fn(&World) -> Vec<&Link>, change: fn(&mut Weather)) {
    links(&*world.lock().await).into_iter().for_each(|link| link.set(change));
    sleep(WHILE).await;
    links(&*world.lock().await).into_iter().for_each(Link::heal);
}

async fn tell(world: &Mutex<World>, command: &[&str]) {
    world.lock().await.redis().tell(command);
    sleep(AFTER).await;
}

async fn again_and_again(world: &Mutex<World>, slow_one: usize, command: &[&str]) {
    world.lock().await.instances[slow_one].redis().set(slow);
    for _ in 0..12 {
        world.lock().await.redis().tell(command);
        sleep(WHILE / 12).await;
    }
    world.lock().await.instances[slow_one].redis().heal();
}
