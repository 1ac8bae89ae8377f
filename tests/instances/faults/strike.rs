//! How each fault is struck, for how long, and how it is healed.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::sleep;

use crate::{
    faults::{failover, kinds::Fault},
    support::{
        clock::Step,
        link::{Link, Weather},
        world::{INSTANCES, World},
    },
};

/// Longer than a revocation waits for its acknowledgements before it is answered 503.
const WHILE: Duration = Duration::from_millis(3500);
/// How long what is stopped stands still.
pub const STOP: Duration = Duration::from_secs(3);
/// How long what is killed stays away.
pub const DOWN: Duration = Duration::from_secs(2);
/// How long a load goes on after something that happens in an instant.
const AFTER: Duration = Duration::from_secs(1);

const EVENTS: &str = "{hp:0}:events";

/// Lets it happen to an instance that chance chooses, or to all, and returns when it is healed.
pub async fn strike(fault: Fault, world: &mut World, rng: &mut Rng) {
    let one = rng.usize(..INSTANCES);
    match fault {
        Fault::InstanceKilled => {
            world.instances[one].kill();
            sleep(DOWN).await;
            world.instances[one].start_again();
        }
        Fault::InstanceStopped => {
            world.instances[one].signal("STOP");
            sleep(STOP).await;
            world.instances[one].signal("CONT");
        }
        Fault::RedisKilled | Fault::RedisLost => {
            world.redis().kill();
            sleep(DOWN).await;
            if fault == Fault::RedisLost {
                world.redis().lose_data();
            }
            world.redis().start_again().await;
        }
        Fault::RedisStopped => {
            world.redis().signal("STOP");
            sleep(STOP).await;
            world.redis().signal("CONT");
        }
        Fault::PostgresKilled => {
            world.postgres.kill();
            sleep(DOWN).await;
            world.postgres.start_again().await;
        }
        Fault::PostgresStopped => {
            world.postgres.signal_all("STOP");
            sleep(STOP).await;
            world.postgres.signal_all("CONT");
        }
        Fault::NoRedisForOne => disturb([world.instances[one].redis()], |weather| weather.cut = true).await,
        Fault::NoSqlForOne => disturb([&world.instances[one].sql], |weather| weather.cut = true).await,
        Fault::RedisLinksReset => {
            for _ in 0..12 {
                world.redis_links().for_each(Link::reset);
                sleep(WHILE / 12).await;
            }
        }
        Fault::BlackHoleToRedis => {
            disturb([world.instances[one].redis()], |weather| weather.held_to_server = true).await;
        }
        Fault::BlackHoleFromRedis => {
            disturb([world.instances[one].redis()], |weather| weather.held_to_client = true).await;
        }
        Fault::BlackHoleToSql => {
            disturb([&world.instances[one].sql], |weather| weather.held_to_server = true).await;
        }
        Fault::BlackHoleFromSql => {
            disturb([&world.instances[one].sql], |weather| weather.held_to_client = true).await;
        }
        Fault::SlowRedisForOne => disturb([world.instances[one].redis()], slow).await,
        Fault::SlowRedisForAll => disturb(world.redis_links(), slow).await,
        Fault::JitteryRedisForAll => {
            disturb(world.redis_links(), |weather| weather.jitter = Duration::from_millis(200)).await;
        }
        Fault::SlowRedisFallsSilent => {
            let link = world.instances[one].redis();
            // The last answer arrives late: it says what was true when it was asked for.
            link.set(|weather| weather.delay = Duration::from_millis(350));
            sleep(DOWN).await;
            disturb([link], |weather| weather.held_to_server = true).await;
        }
        Fault::RedisClientsKilled => tell(world, &["CLIENT", "KILL", "TYPE", "normal"]).await,
        Fault::RedisFlushed => tell(world, &["FLUSHALL"]).await,
        Fault::ScriptsFlushed => tell(world, &["SCRIPT", "FLUSH"]).await,
        Fault::StreamTrimmed => tell(world, &["XTRIM", EVENTS, "MAXLEN", "0"]).await,
        // What the slow one had still to read is gone when it asks.
        Fault::StreamTrimmedUnread => again_and_again(world, one, &["XTRIM", EVENTS, "MAXLEN", "0"]).await,
        Fault::RedisFlushedUnread => again_and_again(world, one, &["FLUSHALL"]).await,
        Fault::RedisFull => {
            world.redis().tell(&["CONFIG", "SET", "maxmemory", "1mb"]);
            sleep(WHILE).await;
            world.redis().tell(&["CONFIG", "SET", "maxmemory", "0"]);
        }
        Fault::ClockBehind => {
            world.instances[one].set_clock(Step::Behind).await;
            sleep(WHILE).await;
            world.instances[one].set_clock(Step::Right).await;
        }
        Fault::ClockAhead => {
            let instance = &world.instances[one];
            instance.set_clock(Step::Ahead).await;
            // What it missed meanwhile it has to learn all the same.
            disturb([instance.redis()], |weather| weather.cut = true).await;
            sleep(AFTER).await;
            instance.set_clock(Step::Right).await;
        }
        Fault::PrimaryKilled => failover::kill_primary(world.sentinel()).await,
        Fault::PrimaryStopped => failover::stop_primary(world.sentinel()).await,
        Fault::ReplicasStopped => failover::stop_replicas(world.sentinel()).await,
        Fault::StaleReplicaPromoted => failover::promote_stale_replica(world.sentinel()).await,
        Fault::MasterKilled => failover::kill_master(world.cluster(), rng).await,
        Fault::MasterStopped => failover::stop_master(world.cluster(), rng).await,
    }
}

fn slow(weather: &mut Weather) {
    weather.delay = Duration::from_millis(200);
}

async fn disturb<'a>(links: impl IntoIterator<Item = &'a Link>, change: fn(&mut Weather)) {
    let links: Vec<_> = links.into_iter().collect();
    links.iter().for_each(|link| link.set(change));
    sleep(WHILE).await;
    links.iter().for_each(|link| link.heal());
}

async fn tell(world: &mut World, command: &[&str]) {
    world.redis().tell(command);
    sleep(AFTER).await;
}

async fn again_and_again(world: &mut World, slow_one: usize, command: &[&str]) {
    world.instances[slow_one].redis().set(slow);
    for _ in 0..12 {
        world.redis().tell(command);
        sleep(WHILE / 12).await;
    }
    world.instances[slow_one].redis().heal();
}
