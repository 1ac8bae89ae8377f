//! Foreign or unreadable entries in the stream, a trimmed stream, and a Redis that refuses commands.

use futures::future::join_all;
use serde_json::json;

use crate::{
    client::Api,
    support::{
        process::wait_until,
        world::{Kind, World},
    },
};

const EVENTS: &str = "{hp:0}:events";
const REGISTER: &str = "{hp:0}:members";
const ACKNOWLEDGEMENTS: &str = "{hp:0}:acks";

#[tokio::test]
async fn foreign_entries_are_skipped_and_counted() {
    let mut world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let pair = api.register(0, "ann@example.com").await;
    let lost = async || api.metric(1, "hallpass_followers_lost_total").await;
    let counted = async || api.metric(1, "hallpass_foreign_entries_total").await;
    // A machine that stands still for a second makes an instance lose the stream, too: then once more.
    wait_until("they are skipped without losing the stream", async || {
        let before = (lost().await, counted().await);
        for fields in [&["hello", "world"][..], &["n", "x", "p", "y", "e", "issued"], &["n", "1"]] {
            world.redis().tell(&[&["XADD", EVENTS, "*"], fields].concat());
        }
        world.redis().tell(&["XADD", EVENTS, "*", "\\xff\\xfe", "\\xff"]);
        wait_until("they are read", async || counted().await == before.1 + 4.0 || lost().await > before.0)
            .await;
        lost().await == before.0
    })
    .await;
    assert_eq!(api.logout(0, &pair).await.0, 200);
    assert_eq!(api.me_everywhere(&pair).await, [401; 3]);
}

/// An unreadable event may have been a revocation, so the instances reconcile with the database.
#[tokio::test]
async fn unreadable_event_makes_instances_reconcile() {
    let mut world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let (pair, other) = (api.register(0, "ann@example.com").await, api.login(1, "ann@example.com").await);
    let head = world.redis().ask(&["ZRANGE", REGISTER, "-1", "-1"]).unwrap();
    let [chain, serial, nonce, version] = head.split(' ').collect::<Vec<_>>()[..] else { panic!("{head}") };
    let next = format!("{chain} {} 7 {version}", serial.parse::<u64>().unwrap() + 1);
    let reconciles = api.metric(1, "hallpass_reconciles_total").await;
    world.redis().tell(&["XADD", EVENTS, "*", "n", "7", "p", nonce, "e", "gibberish"]);
    world.redis().tell(&["ZADD", REGISTER, "inf", &next]);
    world.redis().tell(&["ZREM", REGISTER, &head]);
    // An instance that loses its connection at this moment reconciles without having read the event.
    wait_until("it is counted", async || {
        let counted = (0..3).map(|number| api.metric(number, "hallpass_unreadable_entries_total"));
        join_all(counted).await.contains(&1.0)
    })
    .await;
    world.wait_until_ready().await;
    assert!(api.metric(1, "hallpass_reconciles_total").await > reconciles);
    assert_eq!(api.me_everywhere(&other).await, [200; 3]);
    assert_eq!(api.logout(2, &pair).await.0, 200);
    assert_eq!(api.me_everywhere(&pair).await, [401; 3]);
}

#[tokio::test]
async fn read_only_redis_confirms_no_logout() {
    let mut world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let pair = api.register(0, "ann@example.com").await;
    // A replica of a primary that does not exist: writes are answered `READONLY`.
    world.redis().tell(&["REPLICAOF", "127.0.0.1", "1"]);
    wait_until("the lease has lapsed", async || api.metric(0, "hallpass_lease_held").await == 0.0).await;
    assert_eq!(api.me(0, &pair).await, 200, "the database is asked");
    let (status, body) = api.logout(0, &pair).await;
    assert_eq!((status.as_u16(), &body["error"]), (503, &json!("temporarily_unavailable")));
    world.redis().tell(&["REPLICAOF", "NO", "ONE"]);
    world.wait_until_ready().await;
    assert_eq!(api.logout(0, &pair).await.0, 200);
    assert_eq!(api.me_everywhere(&pair).await, [401; 3]);
}

/// Revocations do not wait for an instance without a report, so that instance must not use its mirror.
#[tokio::test]
async fn instance_missing_from_the_register_joins_again() {
    let mut world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let pair = api.register(0, "ann@example.com").await;
    let reconciles = api.metric(1, "hallpass_reconciles_total").await;
    world.redis().tell(&["DEL", REGISTER]);
    wait_until("it has joined anew", async || api.metric(1, "hallpass_reconciles_total").await > reconciles)
        .await;
    world.wait_until_ready().await;
    assert_eq!(api.logout(0, &pair).await.0, 200);
    assert_eq!(api.me_everywhere(&pair).await, [401; 3]);
}

/// The events that the instance missed are not in the stream any more, but the database has their effects.
#[tokio::test]
async fn instance_behind_a_trimmed_stream_reconciles() {
    let mut world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let first = api.register(0, "ann@example.com").await;
    let (second, other) = (api.login(0, "ann@example.com").await, api.login(0, "ann@example.com").await);
    let reconciles = api.metric(2, "hallpass_reconciles_total").await;
    world.instances[2].signal("STOP");
    // The instance was blocked in `XREAD`, so Redis still sends it the first event, but not the second one.
    for pair in [&first, &second] {
        let (status, body) = api.logout(0, pair).await;
        assert!(status == 200 && body["acknowledged"].as_u64() < Some(3), "{status} {body}");
    }
    world.redis().tell(&["XTRIM", EVENTS, "MAXLEN", "0"]);
    world.instances[2].signal("CONT");
    assert_eq!(api.me_everywhere(&second).await, [401; 3]);
    world.wait_until_ready().await;
    for pair in [&first, &second] {
        assert_eq!(api.me_everywhere(pair).await, [401; 3]);
    }
    assert_eq!(api.me_everywhere(&other).await, [200; 3]);
    assert!(api.metric(2, "hallpass_reconciles_total").await > reconciles);
}

#[tokio::test]
async fn flushed_scripts_are_loaded_again() {
    let mut world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let pair = api.register(0, "ann@example.com").await;
    world.redis().tell(&["SCRIPT", "FLUSH"]);
    assert_eq!(api.logout(1, &pair).await.0, 200);
    assert_eq!(api.me_everywhere(&pair).await, [401; 3]);
}

/// Logins continue with the database; logouts continue because they free more memory than they take.
#[tokio::test]
async fn full_redis_stops_neither_login_nor_logout() {
    let mut world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let before = api.register(0, "ann@example.com").await;
    world.redis().tell(&["CONFIG", "SET", "maxmemory", "1mb"]);
    let during = api.login(1, "ann@example.com").await;
    assert!(api.metric(1, "hallpass_unlisted_total").await >= 1.0, "Redis was not full");
    assert_eq!(api.me_everywhere(&during).await, [200; 3]);
    for pair in [&before, &during] {
        assert_eq!(api.logout(2, pair).await.0, 200);
        assert_eq!(api.me_everywhere(pair).await, [401; 3]);
    }
}

/// An instance that was away must not take for silent those that joined after all others had left.
#[tokio::test]
async fn last_member_that_leaves_begins_a_new_chain() {
    let mut world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let chain = |world: &mut World| {
        let head = world.redis().ask(&["ZRANGE", REGISTER, "-1", "-1"]).unwrap();
        head.split(' ').next().unwrap().to_owned()
    };
    let before = chain(&mut world);
    for number in [0, 1] {
        assert!(world.instances[number].stop().await);
        assert_eq!(chain(&mut world), before);
    }
    assert!(world.instances[2].stop().await);
    assert_ne!(chain(&mut world), before);
    assert_eq!(world.redis().ask(&["ZCARD", REGISTER]).unwrap(), "1");
    world.instances.iter_mut().for_each(|instance| instance.start_again());
    world.wait_until_ready().await;
    let pair = api.register(0, "ann@example.com").await;
    let (status, answer) = api.logout(1, &pair).await;
    assert_eq!((status.as_u16(), &answer["instances"], &answer["acknowledged"]), (200, &json!(3), &json!(3)));
    assert_eq!(api.me_everywhere(&pair).await, [401; 3]);
}

/// The stream only wakes those who wait.
#[tokio::test]
async fn foreign_or_lost_acknowledgements_confirm_nothing() {
    let mut world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let away = api.register(0, "ann@example.com").await;
    let lost = api.login(0, "ann@example.com").await;
    world.instances[2].signal("STOP");
    world.redis().tell(&["XADD", ACKNOWLEDGEMENTS, "4000000000-1", "c", "1"]);
    let (status, answer) = api.logout(1, &away).await;
    assert_eq!((status.as_u16(), &answer["acknowledged"]), (200, &json!(2)));
    world.instances[2].signal("CONT");
    assert_eq!(api.me(2, &away).await, 401);
    world.wait_until_ready().await;
    world.redis().tell(&["DEL", ACKNOWLEDGEMENTS]);
    assert_eq!(api.logout(1, &lost).await.0, 200);
    assert_eq!(api.me_everywhere(&lost).await, [401; 3]);
}
