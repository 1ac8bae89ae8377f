//! A database that loses rows, lags behind, is read-only, does not answer, or is used with a wrong clock:
//! everything that was answered 2xx stays true, and afterwards everything works again.

use std::{
    env,
    io::Write,
    process::{Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use sqlx::Executor;
use tokio::{task::JoinSet, time};

use crate::{
    client::{Api, PASSWORD, Pair, answer},
    support::{
        clock::{self, Step},
        health,
        notes::Credentials,
        postgres::Postgres,
        process::{comes_true, wait_until},
        world::{Kind, World},
    },
};

const ANN: &str = "ann@example.com";
const ROOT: &str = "root@example.com";
const NEW: &str = "staple battery horse";

/// Runs a command while the instances run. It runs in a thread of its own, because the links need the
/// runtime.
async fn hallpass(world: &World, arguments: &[&str], input: &str) -> Output {
    let mut command = world.instances[0].command();
    command.env("HALLPASS_INSTANCE", "command line").args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_owned();
    let run = move || {
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

async fn administrator(world: &World, api: &Api, email: &str) -> Pair {
    api.register(0, email).await;
    let output = hallpass(world, &["user", "role", email, "admin"], "").await;
    assert!(output.status.success(), "{output:?}");
    api.login(1, email).await
}

async fn user_id(api: &Api, root: &Pair, email: &str) -> Value {
    let (_, found) = api.call(0, "/api/admin/users", root, json!({ "search": email })).await;
    found["users"][0]["user_id"].clone()
}

/// Deletes a session, as a failover, a restored backup or a manual clean-up may do.
fn forget(world: &World, pair: &Pair) {
    let session = &pair.session;
    world.postgres.tell(&format!(
        "delete from access_tokens where session_id = '{session}'; delete from sessions where id = '{session}'"
    ));
}

async fn has_lease(api: &Api, number: usize) -> bool {
    api.metric(number, "hallpass_lease_held").await == 1.0
}

/// The session is still live in every mirror.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn session_lost_in_sql_can_still_be_revoked() {
    let mut world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let root = administrator(&world, &api, ROOT).await;
    let tool = Credentials::of_client_added_with(&world.instances[0], &["tool", "--may-revoke-users"]);
    let (mut in_vain, mut ended) = (Vec::new(), Vec::new());
    for (place, way) in [
        "logout by access token",
        "logout by refresh token",
        "logout_everywhere",
        "change_password",
        "admin/revoke_sessions",
        "admin/disable_user",
        "global token revocation",
        "set-password",
        "sessions revoke --user",
        "sessions revoke --session",
    ]
    .into_iter()
    .enumerate()
    {
        let email = format!("user-{place}@example.com");
        let (lost, kept) = (api.register(0, &email).await, api.login(1, &email).await);
        let user = json!({ "user_id": user_id(&api, &root, &email).await });
        assert_eq!(api.me_everywhere(&lost).await, [200; 3]);
        forget(&world, &lost);
        let call = |path: &str, pair: &Pair, body: Value| {
            api.post(place, &format!("/api/{path}")).bearer_auth(&pair.access).json(&body)
        };
        let (request, refresh) = (api.logout_request(place, &lost), json!({ "refresh_token": lost.refresh }));
        let command = async |arguments: &[&str], input: &str| hallpass(&world, arguments, input).await.status;
        let asked = async |request| answer(request).await.0 == 200;
        let succeeded = match way {
            "logout by access token" => asked(request).await,
            "logout by refresh token" => asked(api.post(place, "/api/auth/logout").json(&refresh)).await,
            "logout_everywhere" => {
                let body = json!({ "keep_current": true, "password": PASSWORD });
                asked(call("account/logout_everywhere", &kept, body)).await
            }
            "change_password" => {
                let body = json!({ "current": PASSWORD, "new": NEW });
                asked(call("account/change_password", &kept, body)).await
            }
            "global token revocation" => {
                let sub_id = json!({ "format": "email", "email": email });
                let request = api.post(place, "/oauth/global-token-revocation");
                let request = request.basic_auth(&tool.id, Some(&tool.secret));
                answer_of(&api, request.json(&json!({ "sub_id": sub_id }))).await == 204
            }
            "set-password" => command(&["user", "set-password", &email], &format!("{NEW}\n")).await.success(),
            "sessions revoke --user" => {
                command(&["sessions", "revoke", "--user", &email], "").await.success()
            }
            // The command fails because the database does not have the session, but ends it nevertheless.
            "sessions revoke --session" => {
                !command(&["sessions", "revoke", "--session", &lost.session], "").await.success()
            }
            _ => asked(call(way, &root, user)).await,
        };
        assert!(succeeded, "{way}");
        let statuses = api.me_everywhere(&lost).await;
        if statuses != [401; 3] {
            in_vain.push(format!("{way}: {statuses:?}"));
        }
        assert!(api.refresh(place, &lost).await.is_err(), "{way}");
        ended.push((way, lost));
    }
    // The same at an instance that was started later, and whose database does not have the session.
    world.instances[2].kill();
    world.instances[2].start_again();
    world.wait_until_ready().await;
    for (way, lost) in &ended {
        let status = api.me(2, lost).await;
        if status != 401 {
            in_vain.push(format!("{way}, at an instance that was started since: {status}"));
        }
    }
    assert!(in_vain.is_empty(), "succeeded, and the session lives: {in_vain:#?}");
}

/// The token rows are deleted before an instance that missed a logout is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn deleted_token_rows_do_not_revive_a_token() {
    let mut world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let (pair, other) = (api.register(0, ANN).await, api.register(0, "bob@example.com").await);
    assert_eq!(api.me_everywhere(&pair).await, [200; 3]);
    world.instances[1].redis().set(|weather| weather.cut = true);
    wait_until("its lease has lapsed", async || !has_lease(&api, 1).await).await;
    assert_eq!(api.logout(0, &pair).await.0, 200);
    world.postgres.tell(&format!("delete from access_tokens where session_id = '{}'", pair.session));
    world.instances[1].redis().heal();
    wait_until("it has a lease again", async || has_lease(&api, 1).await).await;
    let mut wrong = Vec::new();
    let statuses = api.me_everywhere(&pair).await;
    if statuses != [401; 3] {
        wrong.push(format!("after its logout a token is answered {statuses:?}"));
    }

    if !clock::can_be_stepped() {
        println!("the clock is left out, for want of libfaketime (apt-get install faketime)");
        assert!(wrong.is_empty(), "{wrong:#?}");
        return;
    }
    let rows = "select count(*) from access_tokens";
    let before = world.postgres.query(rows).unwrap();
    world.instances[2].kill();
    world.instances[2].clock.set(Step::DaysAhead);
    world.instances[2].start_again();
    // The instance may refuse to start. Otherwise it begins with a clean-up.
    let has_maintained = async || api.metric(2, "hallpass_reconciles_total").await >= 2.0;
    let mut runs = world.instances[2].is_running();
    wait_until("it has ended, or has cleaned up", async || {
        runs = world.instances[2].is_running();
        let answers = api.try_get(2, "/health/live").await == Some(200);
        !runs || answers && has_maintained().await
    })
    .await;
    if runs {
        // If this is too short, the test passes without testing anything.
        time::sleep(Duration::from_secs(1)).await;
    }
    let after = world.postgres.query(rows).unwrap();
    if after != before {
        wrong.push(format!("of {before} rows of tokens, a wrong clock has left {after}"));
    }
    assert_eq!(api.me(0, &other).await, 200);
    assert!(api.refresh(1, &other).await.is_ok());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The grace is measured by a single clock, that of the database.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn different_clocks_neither_end_a_session_nor_extend_the_grace() {
    if !clock::can_be_stepped() {
        println!("left out, for want of libfaketime (apt-get install faketime)");
        return;
    }
    let world = World::with(Kind::Single, &[("HALLPASS_REFRESH_GRACE", "10")]).await;
    let api = Api::of(&world);
    let pairs = [api.register(0, ANN).await, api.login(0, ANN).await, api.login(0, ANN).await];
    world.instances[1].set_clock(Step::Seconds(15)).await;
    world.instances[2].set_clock(Step::Seconds(-15)).await;

    let [pair, early, late] = pairs;
    let mut wrong = Vec::new();
    let (one, other) = tokio::join!(api.try_refresh(0, &pair), api.try_refresh(1, &pair));
    let statuses = [one, other].map(|answer| answer.map_or(0, |(status, _)| status));
    if statuses.iter().any(|status| ![200, 503].contains(status)) || !statuses.contains(&200) {
        wrong.push(format!("both at once: {statuses:?}"));
    }
    let next = api.refresh(0, &early).await.unwrap();
    let (status, _) = api.try_refresh(1, &early).await.unwrap();
    if ![200, 503].contains(&status) || api.refresh(0, &next).await.is_err() {
        wrong.push(format!("one after the other: {status}, and the session has ended"));
    }

    // Sets the rotation back to 12 s ago, by the clock of the database.
    api.refresh(0, &late).await.unwrap();
    let session = &late.session;
    world.postgres.tell(&format!("update sessions set rotated_at = rotated_at - 12 where id = '{session}'"));
    let (status, _) = api.try_refresh(2, &late).await.unwrap();
    if status == 200 {
        wrong.push("a used token was taken after the grace, by a clock that is slow".to_owned());
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The administrator of the database may have chosen this setting.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn logout_survives_a_database_crash_with_asynchronous_commit() {
    let settings = ["synchronous_commit=off", "wal_writer_delay=10000"];
    let mut world = World::with_postgres(&[], &settings).await;
    let api = Api::of(&world);
    let pairs = [api.register(0, ANN).await, api.login(1, ANN).await, api.login(2, ANN).await];
    // A checkpoint, so that these rows survive in any case.
    world.postgres.tell("checkpoint");
    let root = administrator(&world, &api, ROOT).await;
    world.postgres.tell("checkpoint");
    let ann = user_id(&api, &root, ANN).await;
    let [one, two, three] = &pairs;
    assert_eq!(api.logout(0, one).await.0, 200);
    assert_eq!(
        api.call(1, "/api/account/revoke_session", three, json!({ "session_id": two.session })).await.0,
        200
    );
    assert_eq!(api.call(2, "/api/admin/disable_user", &root, json!({ "user_id": ann })).await.0, 200);
    world.postgres.kill();
    world.postgres.start_again().await;
    world.wait_until_ready().await;
    let revoked = "select count(*) from sessions where revoked_at is not null \
                   and user_id = (select id from users where email = 'ann@example.com')";
    assert_eq!(world.postgres.query(revoked).unwrap(), "3", "what was answered 2xx is lost");
    for (number, pair) in pairs.iter().enumerate() {
        let (status, _) = api.try_refresh(number, pair).await.unwrap();
        assert_eq!(status, 401, "session {number}");
    }
}

/// A standby that lags, and a server that was the primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn standby_and_demoted_primary_are_not_used() {
    let mut world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let mut wrong = Vec::new();
    let (first, second) = (api.register(0, ANN).await, api.login(0, ANN).await);
    let standby = world.standby(&[]).await;
    for pair in [&first, &second] {
        assert_eq!(api.me_everywhere(pair).await, [200; 3]);
    }

    // A load balancer or a DNS name leads one instance to a standby that lags.
    standby.pause_replay(true);
    world.instances[2].sql.retarget(standby.port);
    world.instances[2].sql.reset();
    log_out_behind_its_back(&world, &api, &first, 2).await;
    let status = api.me(2, &first).await;
    if status == 200 {
        wrong.push("reads from a standby: a token is accepted after its logout".to_owned());
    }
    world.instances[2].sql.retarget(world.postgres.port);
    world.instances[2].sql.reset();
    world.wait_until_ready().await;

    // A failover that loses nothing. The connections of one instance stay at the old server.
    standby.pause_replay(false);
    standby.replace(&world.postgres).await;
    world.postgres.set_read_only(true);
    for (number, instance) in world.instances.iter().enumerate() {
        instance.sql.retarget(standby.port);
        if number != 1 {
            instance.sql.reset();
        }
    }
    for number in [0, 2] {
        world.instances[number].wait_until_ready().await;
    }
    log_out_behind_its_back(&world, &api, &second, 1).await;
    let status = api.me(1, &second).await;
    if status == 200 {
        wrong.push("reads from a demoted primary: a token is accepted after its logout".to_owned());
    }
    if !comes_true(async || api.try_get(1, "/health/ready").await == Some(200)).await {
        wrong.push("writes go to a demoted primary forever: not ready".to_owned());
    } else if let Err(what) = health::check_calls(&api, 1).await {
        wrong.push(format!("writes go to a demoted primary forever: {what}"));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Logs out at another instance while this one is cut off from Redis, and then heals the link.
async fn log_out_behind_its_back(world: &World, api: &Api, pair: &Pair, number: usize) {
    let link = world.instances[number].redis();
    link.set(|weather| weather.cut = true);
    wait_until("its lease has lapsed", async || !has_lease(api, number).await).await;
    let logs_out = comes_true(async || api.status(api.logout_request(0, pair)).await == Some(200)).await;
    assert!(logs_out, "no logout at another instance");
    link.heal();
    // The instance may also refuse to renew its lease, instead of using stale data.
    let _ = time::timeout(Duration::from_secs(5), async {
        while !has_lease(api, number).await {
            time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// All connections in use freeze, and new ones work.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn frozen_database_connections_are_replaced() {
    let world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let pair = api.register(0, ANN).await;
    assert_eq!(api.me_everywhere(&pair).await, [200; 3]);
    let mut lock = health::lock_sessions(&world.postgres).await;
    let mut calls = JoinSet::new();
    for number in 0..4 * health::CONNECTIONS {
        let api = api.clone();
        calls.spawn(async move {
            // Each registration has an account of its own, so that they do not wait for the lock of the same
            // row.
            api.status(api.register_request(1, &format!("user-{number}@example.com"))).await
        });
    }
    wait_until("all connections are in use", async || world.postgres.waiting(1) >= health::CONNECTIONS).await;
    world.instances[1].sql.freeze();
    lock.execute("rollback").await.unwrap();
    // The worst moment for the follower to reconnect.
    world.instances[1].redis().reset();
    calls.join_all().await;
    let is_ready = comes_true(async || api.try_get(1, "/health/ready").await == Some(200)).await;
    assert!(is_ready, "not ready; a live token is answered {:?}", api.status(api.me_request(1, &pair)).await);
    health::check_all(&world, &api, health::CONNECTIONS).await.unwrap();
    assert_eq!(api.me_everywhere(&pair).await, [200; 3]);
}

/// Connections fall silent in the moment in which they return to their pool.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn connections_that_freeze_on_their_return_are_replaced() {
    let world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let all = health::CONNECTIONS + health::RESERVED_CONNECTIONS + 1;
    let link = &world.instances[1].sql;
    link.set(|weather| weather.freezes_at_ping = true);
    api.register(0, ANN).await;
    wait_until("as many connections as the pools have are frozen", async || {
        let use_both_pools = (0..health::CONNECTIONS).map(async |_| {
            let pair = api.login(0, ANN).await;
            api.status(api.logout_request(1, &pair)).await;
            api.status(api.try_login(1, ANN, PASSWORD)).await
        });
        join_all(use_both_pools).await;
        link.frozen_at_ping() >= all as u64
    })
    .await;
    link.heal();
    health::check_all(&world, &api, health::CONNECTIONS).await.unwrap();
    let pools = vec![(1, health::CONNECTIONS)];
    health::check_pools(&world.postgres, &api, pools, health::RESERVED_CONNECTIONS).await.unwrap();
}

/// A call was authorized and waits for a lock while its session ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn waiting_change_is_refused_once_its_session_has_ended() {
    let world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let root = administrator(&world, &api, ROOT).await;
    let eve = administrator(&world, &api, "eve@example.com").await;
    let id = async |email| user_id(&api, &root, email).await;
    for email in ["puppet@example.com", ANN] {
        api.register(2, email).await;
    }
    let (puppet, demoted) = (id("puppet@example.com").await, id("eve@example.com").await);
    let ann = api.login(0, ANN).await;
    let mut deeds = Vec::new();

    let role = json!({ "user_id": puppet, "role": "admin" });
    let set_role = api.post(0, "/api/admin/set_role").bearer_auth(&eve.access).json(&role);
    let waiting = while_locked(&world.postgres, "puppet@example.com", set_role, async || {
        let (status, answer) =
            api.call(1, "/api/admin/set_role", &root, json!({ "user_id": demoted, "role": "user" })).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(api.me_everywhere(&eve).await, [401; 3]);
    });
    let status = waiting.await;
    let role = world.postgres.query("select role from users where email = 'puppet@example.com'").unwrap();
    if status == Some(200) || role == "admin" {
        deeds.push(format!("set_role of a demoted administrator: {status:?}, the role is {role}"));
    }

    let passwords = json!({ "current": PASSWORD, "new": NEW });
    let change = api.post(0, "/api/account/change_password").bearer_auth(&ann.access).json(&passwords);
    let waiting = while_locked(&world.postgres, ANN, change, async || {
        let body = json!({ "session_id": ann.session });
        assert_eq!(api.call(1, "/api/admin/revoke_session", &root, body).await.0, 200);
        assert_eq!(api.me_everywhere(&ann).await, [401; 3]);
    });
    let status = waiting.await;
    let logs_in = api.status(api.try_login(2, ANN, PASSWORD)).await;
    if status == Some(200) || logs_in != Some(200) {
        deeds.push(format!(
            "change_password of an ended session: {status:?}, the old one is answered {logs_in:?}"
        ));
    }
    assert!(deeds.is_empty(), "{deeds:#?}");
}

/// Makes a call that waits for the row of a user, runs `happens` while it waits, and returns its status.
async fn while_locked(
    postgres: &Postgres,
    email: &str,
    request: RequestBuilder,
    happens: impl AsyncFnOnce(),
) -> Option<u16> {
    let mut lock = postgres.connect().await;
    lock.execute("begin").await.unwrap();
    sqlx::query("update users set id = id where email = $1").bind(email).execute(&mut lock).await.unwrap();
    let call = tokio::spawn(async move { request.send().await.ok().map(|answer| answer.status().as_u16()) });
    let waits = async || call.is_finished() || postgres.waiting(0) > 0;
    wait_until("it waits for the row", waits).await;
    happens().await;
    lock.execute("rollback").await.unwrap();
    call.await.unwrap()
}

/// A browser that changes its account may present the tokens of several sessions.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn session_that_cannot_be_ended_keeps_no_other_alive() {
    let world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    api.register(0, ANN).await;
    for round in 0..4 {
        let (stuck, one, other) = (api.login(0, ANN).await, api.login(1, ANN).await, api.login(2, ANN).await);
        let mut lock = world.postgres.connect().await;
        lock.execute("begin").await.unwrap();
        let row = sqlx::query("update sessions set id = id where id = $1").bind(&stuck.session);
        assert_eq!(row.execute(&mut lock).await.unwrap().rows_affected(), 1);
        let logout = api.logout_request(round, &stuck).json(&json!({ "refresh_token": one.refresh }));
        let logout = logout.header("cookie", format!("hallpass-refresh={}", other.refresh));
        let logout = tokio::spawn(logout.send());
        wait_until("the other sessions have ended", async || {
            [api.me_everywhere(&one).await, api.me_everywhere(&other).await] == [[401; 3]; 2]
        })
        .await;
        assert_eq!(api.me_everywhere(&stuck).await, [200; 3]);
        lock.execute("rollback").await.unwrap();
        let status = logout.await.unwrap().unwrap().status();
        assert!(status == 200 || status == 503, "{status}");
    }
}

/// As many sessions as a malicious client can begin, each with the tokens of an hour.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn user_with_many_sessions_can_be_disabled() {
    const SESSIONS: usize = 100_000;
    let world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let root = administrator(&world, &api, ROOT).await;
    let pair = api.register(1, ANN).await;
    let ann = user_id(&api, &root, ANN).await;
    insert_sessions(&world.postgres, ANN, SESSIONS, 8);
    // On a slow machine the first call may end as 503, with the sessions recorded as revoked.
    wait_until("the user is disabled", async || {
        let user = json!({ "user_id": ann });
        let (status, answer) = api.call(0, "/api/admin/disable_user", &root, user).await;
        assert!(status == 200 || status == 503, "{answer}");
        status == 200
    })
    .await;
    let live = "select count(*) from sessions join users on users.id = user_id \
                where email = 'ann@example.com' and revoked_at is null";
    assert_eq!(world.postgres.query(live).unwrap(), "0");
    assert_eq!(api.me_everywhere(&pair).await, [401; 3]);
    assert_eq!(answer_of(&api, api.try_login(2, ANN, PASSWORD)).await, 401);
    health::check_all(&world, &api, health::CONNECTIONS).await.unwrap();
}

async fn answer_of(api: &Api, request: RequestBuilder) -> u16 {
    api.status(request).await.unwrap()
}

/// Revoking all sessions of a large installation, first by the call of the page, then by the command. SESSIONS (200,000) have
/// 16 tokens each, and a third of them have ended before. Prints how long it takes; `SESSIONS=1000000` takes four minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes minutes: `make faults` runs it"]
async fn everyone_is_signed_out_with_millions_of_tokens() {
    let sessions = env::var("SESSIONS").map_or(200_000, |number| number.parse().unwrap());
    let mut world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let root = administrator(&world, &api, ROOT).await;
    let pair = api.register(1, ANN).await;
    insert_sessions(&world.postgres, ANN, sessions, 16);
    world.postgres.tell(
        "update sessions set revoked_at = created_at where id like 'S0000000000%A' and substr(id, 2, 20)::bigint % 3 = 0",
    );
    world.postgres.tell("vacuum analyze");
    for instance in [1, 2] {
        world.instances[instance].kill();
        let begin = Instant::now();
        world.instances[instance].start_again();
        world.instances[instance].wait_until_ready().await;
        let held = api.metric(instance, "hallpass_mirror_sessions").await;
        assert!(held >= sessions as f64, "the tokens have expired: {held}");
        println!(
            "{sessions} sessions, a third of them revoked: an instance with {held} is ready after {:.1?}",
            begin.elapsed()
        );
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let longest = [0, 1].map(|instance| tokio::spawn(longest_wait(api.clone(), instance, is_over.clone())));
    let begin = Instant::now();
    let (status, answer) = api.call(0, "/api/admin/revoke_all_sessions", &root, json!({})).await;
    println!("the page: {status} after {:.1?}: {answer}", begin.elapsed());
    let begin = Instant::now();
    let output = hallpass(&world, &["sessions", "revoke", "--all"], "").await;
    assert!(output.status.success(), "{output:?}");
    let printed = [&output.stderr, &output.stdout].map(|text| String::from_utf8_lossy(text));
    println!("the command: after {:.1?}:\n{}", begin.elapsed(), printed.concat());
    is_over.store(true, Relaxed);
    for (instance, longest) in longest.into_iter().enumerate() {
        println!("meanwhile, a request to instance {instance} waited {:.1?} at most", longest.await.unwrap());
    }
    for pair in [&root, &pair] {
        assert_eq!(api.me_everywhere(pair).await, [401; 3]);
    }
    assert_eq!(world.postgres.query("select count(*) from sessions where revoked_at is null").unwrap(), "0");
    health::check_all(&world, &api, health::CONNECTIONS).await.unwrap();
}

/// The longest time that a request took until `is_over`. There is one at a time.
async fn longest_wait(api: Api, instance: usize, is_over: Arc<AtomicBool>) -> Duration {
    let mut longest = Duration::ZERO;
    while !is_over.load(Relaxed) {
        let begin = Instant::now();
        api.get(instance, "/health/live").await;
        longest = longest.max(begin.elapsed());
    }
    longest
}

/// Inserts live sessions of a user, each with this many tokens, one of which has not expired.
fn insert_sessions(postgres: &Postgres, email: &str, sessions: usize, tokens: usize) {
    postgres.tell(&format!(
        "insert into sessions (id, user_id, rotated_at, created_at, expires_at) \
         select 'S' || lpad(n::text, 20, '0') || 'A', (select id from users where email = '{email}'), seconds, 0, \
         seconds + 100000 \
         from generate_series(1, {sessions}) n, (select extract(epoch from now())::bigint as seconds) now"
    ));
    postgres.tell(&format!(
        "insert into access_tokens (id, session_id, expires_at) \
         select 'T' || lpad((n * {tokens} + token)::text, 20, '0') || 'A', 'S' || lpad(n::text, 20, '0') || 'A', \
         seconds + 300 - token * 240 \
         from generate_series(1, {sessions}) n, generate_series(0, {tokens} - 1) token, \
         (select extract(epoch from now())::bigint as seconds) now"
    ));
    postgres.tell("analyze");
}

/// More rows than can be deleted within the timeout of a statement.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn backlog_of_expired_rows_shrinks() {
    const ROWS: usize = 300_000;
    let mut world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    api.register(0, ANN).await;
    let old = [
        ("access_tokens", "expires_at = 1", "'X' || n, (select id from sessions limit 1), 1"),
        ("account_events", "at = 1", "'X' || n, (select id from users limit 1), 1, 'password_changed'"),
    ];
    // Slows down deletions, so that this number of rows takes as long as millions.
    world.postgres.tell(
        "create function slowly() returns trigger language plpgsql as $$ begin \
         for i in 1..4000 loop null; end loop; return old; end $$",
    );
    for (table, _, row) in old {
        world.postgres.tell(&format!("insert into {table} select {row} from generate_series(1, {ROWS}) n"));
        world.postgres.tell(&format!(
            "create trigger slowly before delete on {table} for each row execute function slowly()"
        ));
    }
    // Every instance cleans up when it starts.
    for instance in &mut world.instances {
        instance.kill();
        instance.start_again();
    }
    world.wait_until_ready().await;
    for (table, is_old, _) in old {
        let left = || world.postgres.query(&format!("select count(*) from {table} where {is_old}")).unwrap();
        let shrinks = comes_true(async || left().parse::<usize>().unwrap() < ROWS).await;
        assert!(shrinks, "not one of {ROWS} rows of {table} is deleted");
    }
}
