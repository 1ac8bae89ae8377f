//! Clients that disconnect: nothing of their requests stays behind.

use std::time::Duration;

use futures::future::join_all;
use reqwest::RequestBuilder;
use serde_json::json;
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{self, Instant},
};

use crate::{
    client::{Api, PASSWORD, Pair},
    support::{
        health::{self, CONNECTIONS},
        instance::Instance,
        link::{Link, Which},
        process::{comes_true, wait_until},
        world::{Kind, World},
    },
};

const ANN: &str = "ann@example.com";

/// Sends a request in a task of its own. Aborting the task closes the connection.
fn send(request: RequestBuilder) -> JoinHandle<Option<u16>> {
    tokio::spawn(async move { request.send().await.ok().map(|response| response.status().as_u16()) })
}

/// Logs in while the instance `by` is cut off from Redis, so that no other instance receives the tokens.
async fn unlisted(world: &World, api: &Api, by: usize, count: usize) -> Vec<Pair> {
    let link = world.instances[by].redis();
    link.set(|weather| weather.cut = true);
    wait_until("its lease has lapsed", async || api.metric(by, "hallpass_lease_held").await == 0.0).await;
    let mut pairs = Vec::new();
    for number in 0..count {
        pairs.push(api.register(by, &format!("unlisted-{by}-{number}@example.com")).await);
    }
    link.heal();
    wait_until("it has a lease again", async || api.metric(by, "hallpass_lease_held").await == 1.0).await;
    pairs
}

/// Clients disconnect during look-ups in SQL, and while the connection for commands to Redis opens.
/// Afterwards the instances work, and stop when asked to.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn client_disconnect_during_a_look_up_does_not_leak_a_connection() {
    let settings = [("HALLPASS_DATABASE_CONNECTIONS", "2"), ("HALLPASS_SHUTDOWN_GRACE", "0")];
    let mut world = World::with(Kind::Single, &settings).await;
    let api = Api::of(&world);
    let pairs = unlisted(&world, &api, 0, 8).await;
    let mut wrong = Vec::new();

    // Instance 1: as many clients as there are connections disconnect while SQL does not answer.
    let sql = &world.instances[1].sql;
    sql.set(|weather| weather.held_to_client = true);
    for pair in &pairs[..2] {
        hang_up_once_sent(sql, api.me_request(1, pair)).await;
    }
    sql.heal();
    let mut outcome = health::check_pools(&world.postgres, &api, vec![(1, 2)], 0).await;
    if outcome.is_ok() {
        outcome = health::check_calls(&api, 1).await;
    }
    wrong.extend(outcome.err().map(|what| format!("hang-ups while SQL is silent: {what}")));

    // Instance 2: its connection for commands has to be opened again.
    let redis = world.instances[2].redis();
    redis.set(|weather| (weather.held_to_client, weather.which) = (true, Which::Commands));
    redis.reset_only(Which::Commands);
    // This request finds the old connection closed, and is answered without Redis.
    api.me(2, &pairs[2]).await;
    for pair in &pairs[3..] {
        let before = redis.accepted();
        let asking = send(api.me_request(2, pair));
        comes_true(async || redis.accepted() > before || asking.is_finished()).await;
        asking.abort();
    }
    redis.heal();
    if let Err(what) = health::check_calls(&api, 2).await {
        wrong.push(format!("a hang-up while the connection for commands opens: {what}"));
    }

    for number in [1, 2] {
        if !world.instances[number].stop().await {
            wrong.push(format!("instance {number} does not end on SIGTERM"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Disconnects as soon as the request has caused a query, before the query is answered.
async fn hang_up_once_sent(link: &Link, request: RequestBuilder) {
    let before = link.pieces_to_server();
    let asking = send(request);
    wait_until("it is sent on", async || link.pieces_to_server() > before).await;
    asking.abort();
    // Gives the instance time to notice. If it is too short, the test passes without testing anything.
    time::sleep(Duration::from_millis(200)).await;
}

/// The only fault is a restart of Redis; one in five clients disconnects.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn client_disconnects_after_a_redis_restart_do_not_leak_connections() {
    const SESSIONS: usize = 200;
    const CALLS: usize = 600;
    let mut world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    for instance in &world.instances {
        instance.sql.set(|weather| weather.delay = Duration::from_millis(2));
    }
    let begin = (0..SESSIONS).map(|number| {
        let api = api.clone();
        async move { api.register(number, &format!("user-{number}@example.com")).await }
    });
    let begun = in_parallel(begin).await;
    world.redis().kill();
    wait_until("the leases have lapsed", async || {
        let mut held = 0.0;
        for number in 0..3 {
            held += api.metric(number, "hallpass_lease_held").await;
        }
        held == 0.0
    })
    .await;
    // The tokens are in no mirror, so that each needs a look-up.
    let refresh = begun.into_iter().enumerate().map(|(number, pair)| {
        let api = api.clone();
        async move { api.refresh(number, &pair).await.unwrap() }
    });
    let pairs = in_parallel(refresh).await;
    world.redis().lose_data();
    world.redis().start_again().await;
    wait_until("one has a lease", async || api.metric(0, "hallpass_lease_held").await == 1.0).await;
    let calls = (0..CALLS).map(|_| {
        let request = api.me_request(fastrand::usize(..3), fastrand::choice(&pairs).unwrap());
        async move {
            let asking = send(request);
            if fastrand::u8(..5) == 0 {
                time::sleep(Duration::from_millis(fastrand::u64(1..50))).await;
                asking.abort();
            }
            let _ = asking.await;
        }
    });
    in_parallel(calls).await;
    health::check_all(&world, &api, CONNECTIONS).await.unwrap();
}

/// Runs the calls with limited concurrency.
async fn in_parallel<T: Send + 'static>(
    calls: impl Iterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    const AT_A_TIME: usize = 24;
    let (mut tasks, mut results) = (JoinSet::new(), Vec::new());
    for call in calls {
        if tasks.len() >= AT_A_TIME {
            results.push(tasks.join_next().await.unwrap().unwrap());
        }
        tasks.spawn(call);
    }
    while let Some(result) = tasks.join_next().await {
        results.push(result.unwrap());
    }
    results
}

/// Gives the instance a single connection, so that the logout is the next to use it.
async fn with_one_connection(instance: &mut Instance) {
    instance.kill();
    instance.set("HALLPASS_DATABASE_CONNECTIONS", "1");
    instance.start_again();
    instance.wait_until_ready().await;
}

async fn is_revoked_in_sql(world: &World, session: &str) -> bool {
    let query = format!("select revoked_at is not null from sessions where id = '{session}'");
    world.postgres.query(&query).as_deref() == Ok("t")
}

/// The case of sqlx#4385: a client disconnects after BEGIN has been sent and before it is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn logout_is_committed_after_another_client_disconnects_during_begin() {
    let mut world = World::start(Kind::Single).await;
    with_one_connection(&mut world.instances[0]).await;
    let api = Api::of(&world);
    let sql = &world.instances[0].sql;
    let mut undone = Vec::new();
    for call in ["register", "login", "refresh"] {
        let email = format!("{call}@example.com");
        let (ann, bob) = (api.register(1, &email).await, api.register(1, &format!("bob-{email}")).await);
        sql.set(|weather| weather.held_after = Some("BEGIN"));
        let request = match call {
            "register" => api.register_request(0, "new@example.com"),
            "login" => api.try_login(0, &email, PASSWORD),
            _ => api.refresh_request(0, &bob),
        };
        let before = sql.held_after();
        let asking = send(request);
        wait_until("BEGIN has gone out", async || sql.held_after() > before).await;
        asking.abort();
        // Gives the instance time to notice. If it is too short, the test passes without testing anything.
        time::sleep(Duration::from_millis(200)).await;
        sql.heal();
        let mut acknowledged = false;
        let logs_out = comes_true(async || {
            acknowledged = api.status(api.logout_request(0, &ann)).await == Some(200);
            acknowledged
        });
        assert!(logs_out.await, "{call}: no logout is answered 200 any more");
        // Another connection sees only what is committed.
        if !is_revoked_in_sql(&world, &ann.session).await {
            undone.push(call);
        }
        if api.refresh(1, &ann).await.is_ok() {
            undone.push("... and its token is refreshed");
        }
    }
    assert!(undone.is_empty(), "answered 200 and not committed, after the hang-up of: {undone:?}");
    health::check_transactions(&world.postgres).await.unwrap();
}

/// The same at random: some clients disconnect at any moment while others log out.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn client_disconnects_do_not_roll_back_acknowledged_logouts() {
    const LOGOUTS: usize = 60;
    const AT_MOST: Duration = Duration::from_secs(20);
    let mut world = World::start(Kind::Single).await;
    with_one_connection(&mut world.instances[0]).await;
    let api = Api::of(&world);
    let (ann, bob) = (api.register(1, ANN).await, api.register(1, "bob@example.com").await);
    world.instances[0].sql.set(|weather| weather.delay = Duration::from_millis(5));
    let mut hanging_up = JoinSet::new();
    for (place, pair) in [ann, bob].into_iter().enumerate() {
        let api = api.clone();
        hanging_up.spawn(async move {
            for number in 0.. {
                let request = match number % 3 {
                    0 => api.register_request(0, &format!("new-{place}-{number}@example.com")),
                    1 => api.try_login(0, "bob@example.com", PASSWORD),
                    _ => api.refresh_request(0, &pair),
                };
                let asking = send(request);
                time::sleep(Duration::from_millis(fastrand::u64(..60))).await;
                asking.abort();
            }
        });
    }
    let (begin, mut ended) = (Instant::now(), Vec::new());
    while ended.len() < LOGOUTS && begin.elapsed() < AT_MOST {
        // The login is at another instance, so that only the logout has to get through.
        let pairs = join_all((0..2).map(|_| api.login(1, ANN))).await;
        for pair in pairs {
            if api.status(api.logout_request(0, &pair)).await == Some(200) {
                ended.push(pair.session);
            }
        }
    }
    hanging_up.shutdown().await;
    let list = json!(ended).to_string().replace('"', "'").replace(['[', ']'], "");
    let query = format!("select count(*) from sessions where id in ({list}) and revoked_at is null");
    let rolled_back = world.postgres.query(&query).unwrap();
    assert_eq!(rolled_back, "0", "of {} acknowledged logouts", ended.len());
    health::check_transactions(&world.postgres).await.unwrap();
}
