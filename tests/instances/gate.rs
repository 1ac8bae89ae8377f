//! `hallpass gate`: a process that only answers proxies, beside three instances.

use crate::{
    client::Api,
    support::{
        gate::{Address, Gate},
        process::wait_until,
        world::{Kind, World},
    },
};

const ANN: &str = "ann@example.com";

fn at_socket(world: &World) -> Address {
    Address::Socket(world.folder().join("gate.sock"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn gate_of_its_own_admits_nothing_that_a_logout_has_ended() {
    let world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let address = at_socket(&world);
    let mut gate = Gate::start(&world, address).await;
    let live = api.register(0, ANN).await;
    let mut ended = Vec::new();
    for round in 0..30 {
        let pair = api.login(round % 3, ANN).await;
        assert_eq!(gate.ask(&pair.access).await, 200);
        let (status, answer) = api.logout((round + 1) % 3, &pair).await;
        assert_eq!((status.as_u16(), &answer["acknowledged"]), (200, &4.into()), "{answer}");
        assert_eq!(gate.ask(&pair.access).await, 401);
        ended.push(pair);
    }

    // While it stands still and when it is killed, it is waited for until its lease has expired.
    let pair = api.login(0, ANN).await;
    assert_eq!(gate.ask(&pair.access).await, 200);
    gate.process.signal("STOP");
    assert_eq!(api.logout(1, &pair).await.0, 200);
    gate.process.signal("CONT");
    assert_eq!(gate.ask(&pair.access).await, 401);
    ended.push(pair);
    let pair = api.login(0, ANN).await;
    gate.process.kill();
    assert_eq!(api.logout(1, &pair).await.0, 200);
    assert_eq!(gate.ask(&pair.access).await, 0);
    ended.push(pair);

    gate.start_again();
    gate.wait_until_ready().await;
    assert_eq!(gate.ask(&live.access).await, 200);
    for pair in &ended {
        assert_eq!(gate.ask(&pair.access).await, 401);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn gate_that_is_cut_off_admits_nothing_that_it_cannot_check() {
    let world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let address = at_socket(&world);
    let gate = Gate::start(&world, address).await;
    let live = api.register(0, ANN).await;
    let pairs = [api.login(1, ANN).await, api.login(2, ANN).await, api.login(0, ANN).await];
    for pair in &pairs {
        assert_eq!(gate.ask(&pair.access).await, 200);
    }

    gate.redis().set(|weather| weather.cut = true);
    assert_eq!(api.logout(0, &pairs[0]).await.0, 200);
    assert_eq!(
        (gate.ask(&pairs[0].access).await, gate.ask(&live.access).await),
        (401, 200),
        "SQL answers without a lease"
    );
    gate.sql.set(|weather| weather.cut = true);
    assert_eq!(api.logout(0, &pairs[1]).await.0, 200);
    for pair in [&pairs[1], &pairs[2], &live] {
        assert_eq!(gate.ask(&pair.access).await, 503, "there is no one to ask");
    }
    gate.redis().heal();
    gate.sql.heal();
    wait_until("it admits again", async || {
        assert_ne!(gate.ask(&pairs[1].access).await, 200);
        gate.ask(&live.access).await == 200
    })
    .await;
    assert_eq!((gate.ask(&pairs[1].access).await, gate.ask(&pairs[2].access).await), (401, 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn gate_without_the_keys_of_the_instances_makes_none_and_does_not_start() {
    let world = World::start(Kind::Single).await;
    let keys = world.folder().join("no-keys");
    let mut command = world.instances[0].command();
    command.arg("gate").env_remove("HALLPASS_SIGNING_KEY").env("HALLPASS_KEYS", &keys);
    command.env("HALLPASS_GATE_ADDR", format!("unix:{}", world.folder().join("other.sock").display()));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("set HALLPASS_KEYS to the folder"), "{text}");
    assert!(!keys.exists());
}
