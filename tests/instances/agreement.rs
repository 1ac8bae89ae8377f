//! Facts that all instances must have in common: which Redis, how many partitions and nodes, which keys. An
//! instance that differs is refused, or does no harm. Also: connections to a server that has been replaced.

use std::{fs, time::Duration};

use crate::{
    client::{Api, PASSWORD, Pair},
    support::{
        instance::KEY,
        link::Which,
        process::{comes_true, wait_until},
        redis::Redis,
        world::{Kind, World},
    },
};

const ANN: &str = "ann@example.com";
/// The key that replaces `KEY`.
const NEXT_KEY: &str = "KysrKysrKysrKysrKysrKysrKysrKysrKysrKysrKys";

async fn another_redis(world: &World) -> Redis {
    let folder = world.folder().join("another");
    fs::create_dir_all(&folder).unwrap();
    Redis::start(&folder, "").await
}

fn url(redis: &Redis) -> String {
    format!("redis://127.0.0.1:{}", redis.port)
}

/// Starts an instance with settings that differ from the others'. Returns true if it runs; otherwise it must
/// name one of `settings`.
async fn starts_with(world: &mut World, number: usize, settings: &[(&'static str, &str)]) -> bool {
    let instance = &mut world.instances[number];
    if instance.is_running() {
        instance.kill();
    }
    for (name, value) in settings {
        instance.set(name, value);
    }
    instance.start_again();
    let runs = instance.settle().await;
    let said = instance.printed();
    let names_it = settings.iter().any(|(name, _)| said.contains(name));
    assert!(runs || names_it, "it does not say which setting is wrong: {said}");
    runs
}

/// Returns false if a logout at this instance is answered 200 although another instance accepts the token.
async fn log_out_is_true(api: &Api, number: usize, pair: &Pair) -> bool {
    api.status(api.logout_request(number, pair)).await != Some(200)
        || api.me_everywhere_that_answers(pair).await.iter().all(|status| *status == 401)
}

/// An instance, and a command, that use another Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn instance_and_command_line_with_another_redis_confirm_nothing_untrue() {
    let mut world = World::start(Kind::Single).await;
    let other = another_redis(&world).await;
    claims_nothing_by(&mut world, &other).await;
}

/// The other Redis is a promoted copy, as it is made to move a Redis: it holds the same data as the original.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn promoted_copy_of_redis_is_not_mistaken_for_the_original() {
    let mut world = World::start(Kind::Single).await;
    let other = another_redis(&world).await;
    let original = world.redis().port.to_string();
    other.tell(&["REPLICAOF", "127.0.0.1", &original]);
    wait_until("the copy is complete", async || other.info("master_link_status").as_deref() == Some("up"))
        .await;
    other.tell(&["REPLICAOF", "NO", "ONE"]);
    claims_nothing_by(&mut world, &other).await;
}

async fn claims_nothing_by(world: &mut World, other: &Redis) {
    let api = Api::of(world);
    let (one, two) = (api.register(0, ANN).await, api.login(1, ANN).await);
    for pair in [&one, &two] {
        assert_eq!(api.me_everywhere(pair).await, [200; 3]);
    }
    let mut wrong = Vec::new();
    let mut command = world.instances[0].command();
    command.env("REDIS_URL", url(other)).args(["sessions", "revoke", "--session", &one.session]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let statuses = api.me_everywhere(&one).await;
    if output.status.success() && statuses != [401; 3] {
        wrong.push(format!("the command line says that all is done: {statuses:?}"));
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() && !said.contains("REDIS_URL") {
        wrong.push(format!("the command line does not name REDIS_URL: {said}"));
    }
    // The instance may wait for the others to leave, which does not happen.
    world.instances[0].set("HALLPASS_STARTUP_WAIT", "5");
    if starts_with(world, 0, &[("REDIS_URL", &url(other))]).await && !log_out_is_true(&api, 0, &two).await {
        wrong.push("an instance of another Redis has answered 200, and others accept the token".to_owned());
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Crashed instances do not lock the setting.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn partitions_can_be_changed_after_all_instances_have_crashed() {
    let mut world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let pair = api.register(0, ANN).await;
    world.instances.iter_mut().for_each(|instance| instance.kill());
    for number in 0..3 {
        // A supervisor would restart an instance that ends, too.
        wait_until("it starts", async || starts_with(&mut world, number, &[(PARTITIONS, "4")]).await).await;
    }
    assert_eq!(api.me_everywhere(&pair).await, [200; 3]);
    assert_eq!(api.logout(1, &pair).await.0, 200);
    assert_eq!(api.me_everywhere(&pair).await, [401; 3]);
}

const PARTITIONS: &str = "HALLPASS_REDIS_PARTITIONS";

/// Both start at the same time, before either has read the facts of the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn instances_with_different_partition_counts_confirm_no_untrue_logout() {
    const ROUNDS: usize = 12;
    let mut world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let mut pairs = Vec::new();
    for number in 0..ROUNDS {
        pairs.push(api.register(0, &format!("user-{number}@example.com")).await);
    }
    world.instances.iter_mut().for_each(|instance| instance.kill());
    world.redis().tell(&["FLUSHALL"]);
    for link in world.redis_links() {
        link.set(|weather| weather.delay = Duration::from_millis(150));
    }
    world.instances[1].set(PARTITIONS, "4");
    for number in [0, 1] {
        world.instances[number].start_again();
    }
    let mut run = Vec::new();
    for number in [0, 1] {
        if world.instances[number].settle().await {
            run.push(number);
        } else {
            let said = world.instances[number].printed();
            assert!(said.contains(PARTITIONS), "it does not say which setting is wrong: {said}");
        }
    }
    let mut in_vain = 0;
    // The instance with more partitions has some that the other one does not follow.
    let number = *run.last().expect("one of them runs");
    for pair in &pairs {
        in_vain += u32::from(!log_out_is_true(&api, number, pair).await);
    }
    assert_eq!(in_vain, 0, "logouts of {ROUNDS} answered 200, and the other accepts the token");
}

/// An instance that counts fewer nodes would confirm events that no majority has.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn mismatched_node_counts_are_rejected() {
    let mut world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let replica_of = format!("replicaof 127.0.0.1 {}\n", world.redis().port);
    let folder = world.folder().join("replicas");
    fs::create_dir(&folder).unwrap();
    let _replicas = [Redis::start(&folder, &replica_of).await, Redis::start(&folder, &replica_of).await];
    wait_until("they follow", async || world.redis().info("connected_slaves").as_deref() == Some("2")).await;
    let pair = api.register(1, ANN).await;
    world.instances[0].set("HALLPASS_STARTUP_WAIT", "5");
    let runs = starts_with(&mut world, 0, &[("HALLPASS_REDIS_NODES", "3")]).await;
    assert!(!runs, "it runs with three nodes, beside two instances that count one");
    assert_eq!(api.logout(1, &pair).await.0, 200);
    let statuses = api.me_everywhere_that_answers(&pair).await;
    assert_eq!(statuses, [401; 2]);
}

/// The keys are changed one instance at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keys_can_be_changed_in_the_right_order_only() {
    const SIGNING: &str = "HALLPASS_SIGNING_KEY";
    const PREVIOUS: &str = "HALLPASS_PREVIOUS_SIGNING_KEY";
    let mut world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let old = api.register(0, ANN).await;
    world.instances[0].set("HALLPASS_STARTUP_WAIT", "5");
    // The other instances would refuse its tokens.
    if starts_with(&mut world, 0, &[(SIGNING, NEXT_KEY), (PREVIOUS, KEY)]).await {
        let new = api.login(0, ANN).await;
        let statuses = [api.me(1, &new).await, api.refresh(2, &new).await.err().unwrap_or_default()];
        panic!("it runs with a key that the others do not know: its tokens are answered {statuses:?}");
    }

    for step in [[(SIGNING, KEY), (PREVIOUS, NEXT_KEY)], [(SIGNING, NEXT_KEY), (PREVIOUS, KEY)]] {
        for number in 0..3 {
            // A rolling restart stops each instance with SIGTERM.
            if world.instances[number].is_running() {
                world.instances[number].stop().await;
            }
            world.instances[number].set("HALLPASS_STARTUP_WAIT", "60");
            let starts = starts_with(&mut world, number, &step).await;
            assert!(starts, "{}", world.instances[number].printed());
            let new = api.login(number, ANN).await;
            let running: Vec<_> = (0..3).filter(|one| world.instances[*one].is_running()).collect();
            for &one in &running {
                assert_eq!(
                    (api.me(one, &new).await, api.me(one, &old).await),
                    (200.try_into().unwrap(), 200.try_into().unwrap())
                );
            }
            let mut next = new;
            for &one in &running {
                next = api.refresh(one, &next).await.expect("nobody is signed out");
            }
        }
    }
    assert_eq!(api.logout(1, &old).await.0, 200);
    assert_eq!(api.me_everywhere(&old).await, [401; 3]);
}

/// A deposed primary still answers on existing connections; and one such connection freezes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn command_connection_is_replaced_with_the_follower_connection() {
    let mut world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let mut wrong = Vec::new();
    api.register(0, ANN).await;

    // Only the connection for commands freezes, without being closed.
    api.login(1, ANN).await;
    world.instances[1].redis().freeze_only(Which::Commands);
    let is_listed = async || {
        let unlisted = async || api.metric(1, "hallpass_unlisted_total").await;
        let before = unlisted().await;
        api.status(api.try_login(1, ANN, PASSWORD)).await == Some(200) && unlisted().await == before
    };
    if !comes_true(is_listed).await {
        wrong.push("each token stays unlisted while the connection for commands is silent");
    }

    // Redis is replaced behind its address.
    for number in 0..3 {
        let pair = api.login(number, ANN).await;
        assert_eq!(api.logout(number, &pair).await.0, 200);
    }
    world.replace_redis().await;
    world.wait_until_ready().await;
    for number in 0..3 {
        let pair = api.login(number, ANN).await;
        if !comes_true(async || api.status(api.logout_request(number, &pair)).await == Some(200)).await {
            wrong.push("every logout is sent to the primary that was");
            break;
        }
        assert_eq!(api.me_everywhere(&pair).await, [401; 3]);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

impl Api {
    /// The status at each instance that runs and can decide.
    pub async fn me_everywhere_that_answers(&self, pair: &Pair) -> Vec<u16> {
        let mut statuses = Vec::new();
        for instance in 0..self.count() {
            let status = self.status(self.me_request(instance, pair)).await;
            // 503 means undetermined: neither live nor dead.
            statuses.extend(status.filter(|status| *status != 503));
        }
        statuses
    }
}
