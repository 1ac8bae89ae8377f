//! Ending sessions, disabling users and counting attempts through one instance takes effect on all instances.

use futures::{StreamExt, future::join_all};
use reqwest::{Client, Response};
use serde_json::{Value, json};

use crate::{
    client::{Api, PASSWORD, Pair, answer},
    support::{
        process::wait_until,
        world::{Kind, World},
    },
};

const ANN: &str = "ann@example.com";
const ROOT: &str = "root@example.com";
const NEW: &str = "staple battery horse";

/// Runs a command while the instances run, and returns its output. It runs in a thread of its own, because
/// the links need the runtime.
async fn hallpass(world: &World, arguments: &[&str]) -> String {
    let mut command = world.instances[0].command();
    command.env("HALLPASS_INSTANCE", "command line").args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {text}");
    text
}

async fn administrator(world: &World, api: &Api) -> Pair {
    let before = api.register(0, ROOT).await;
    hallpass(world, &["user", "role", ROOT, "admin"]).await;
    assert_eq!(api.me_everywhere(&before).await, [401; 3]);
    api.login(1, ROOT).await
}

async fn user_id(api: &Api, root: &Pair, email: &str) -> Value {
    let (_, found) = api.call(0, "/api/admin/users", root, json!({ "search": email })).await;
    found["users"][0]["user_id"].clone()
}

#[tokio::test]
async fn attempts_are_counted_across_instances() {
    tries_count_at_all(Kind::Single).await;
}

#[tokio::test]
async fn attempts_are_counted_across_instances_with_a_redis_cluster() {
    tries_count_at_all(Kind::Cluster).await;
}

async fn tries_count_at_all(kind: Kind) {
    const FREE: usize = 30;
    let world = World::with(kind, &[("HALLPASS_LOGIN_ATTEMPTS_PER_ACCOUNT", "30")]).await;
    let api = Api::of(&world);
    api.register(0, ANN).await;
    let mut attempts = 0;
    loop {
        match answer(api.try_login(attempts, ANN, "wrong password")).await.0.as_u16() {
            429 => break,
            other => assert_eq!(other, 401),
        }
        attempts += 1;
    }
    // Separate counts would add up to three times as many attempts.
    assert!((FREE..2 * FREE).contains(&attempts), "{attempts}");
    // Right passwords are not counted.
    api.register(0, "bob@example.com").await;
    for number in 0..2 * FREE {
        api.login(number, "bob@example.com").await;
    }
}

#[tokio::test]
async fn refreshes_are_counted_across_instances() {
    const FREE: usize = 30;
    let world = World::with(Kind::Single, &[("HALLPASS_REFRESHES_PER_SESSION", "30")]).await;
    let api = Api::of(&world);
    let mut pair = api.register(0, ANN).await;
    let mut refreshes = 0;
    loop {
        match api.refresh(refreshes, &pair).await {
            Ok(next) => pair = next,
            Err(status) => {
                assert_eq!(status, 429);
                break;
            }
        }
        refreshes += 1;
    }
    // Separate counts would add up to three times as many refreshes.
    assert!((FREE..2 * FREE).contains(&refreshes), "{refreshes}");
    assert_eq!(api.me_everywhere(&pair).await, [200; 3]);
    let other = api.login(1, ANN).await;
    assert!(api.refresh(2, &other).await.is_ok());
}

#[tokio::test]
async fn instances_count_attempts_alone_and_accept_logins_without_redis() {
    const FREE: usize = 5;
    let mut world = World::with(Kind::Single, &[("HALLPASS_LOGIN_ATTEMPTS_PER_ACCOUNT", "5")]).await;
    let api = Api::of(&world);
    api.register(0, ANN).await;
    world.redis().kill();
    let login = async |instance| {
        let pair = api.login(instance, ANN).await;
        assert_eq!(api.me(instance, &pair).await, 200);
    };
    for instance in 0..3 {
        login(instance).await;
    }
    wait_until("the leases have lapsed", async || {
        let mut held = 0.0;
        for instance in 0..3 {
            held += api.metric(instance, "hallpass_lease_held").await;
        }
        held == 0.0
    })
    .await;
    for instance in 0..3 {
        login(instance).await;
        let mut attempts = 0;
        while answer(api.try_login(instance, "bob@example.com", "wrong password")).await.0 != 429 {
            attempts += 1;
        }
        assert!(attempts >= FREE, "{attempts}");
        login(instance).await;
    }
    world.redis().start_again().await;
    world.wait_until_ready().await;
    login(1).await;
}

/// Every way to end a session ends it at all instances before the call is answered.
#[tokio::test(flavor = "multi_thread")]
async fn session_ended_through_one_instance_is_dead_on_all() {
    const ROUNDS: usize = 5;
    let world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let mine = api.register(0, ANN).await;
    api.confirm_quickly(&world).await;
    let root = administrator(&world, &api).await;
    let ann = user_id(&api, &root, ANN).await;
    let (mut by_all, mut asked, mut current, mut new) = (0, 0, PASSWORD, NEW);
    assert_eq!(api.logout(0, &mine).await.0, 200);
    for round in 0..ROUNDS {
        for way in [
            "account/revoke_session",
            "account/logout_everywhere",
            "account/change_password",
            "admin/revoke_session",
            "admin/revoke_sessions",
            "admin/set_role",
            "admin/disable_user",
        ] {
            let begin = async |instance| {
                let (status, answer) = answer(api.try_login(instance, ANN, current)).await;
                assert_eq!(status, 200, "{answer}");
                Pair::of(&answer)
            };
            let (pair, other) = (begin(round).await, begin(round + 1).await);
            assert_eq!(api.me_everywhere(&pair).await, [200; 3], "{way}");
            let (by, body) = match way {
                "account/revoke_session" => (&other, json!({ "session_id": pair.session })),
                "account/logout_everywhere" => (&other, json!({ "keep_current": true })),
                "account/change_password" => (&other, json!({ "current": current, "new": new })),
                "admin/revoke_session" => (&root, json!({ "session_id": pair.session })),
                "admin/set_role" => (&root, json!({ "user_id": ann, "role": "user" })),
                _ => (&root, json!({ "user_id": ann })),
            };
            let (status, answer) = api.call(round, &format!("/api/{way}"), by, body).await;
            assert_eq!(status, 200, "{way}: {answer}");
            asked += 1;
            by_all += u32::from(answer["instances"] == 3 && answer["acknowledged"] == 3);
            assert_eq!(api.me_everywhere(&pair).await, [401; 3], "{way}");
            for instance in 0..3 {
                assert_eq!(api.refresh(instance, &pair).await.unwrap_err(), 401, "{way}");
            }
            match way {
                "account/change_password" => (current, new) = (new, current),
                "admin/disable_user" => {
                    let (status, _) =
                        api.call(round + 1, "/api/admin/enable_user", &root, json!({ "user_id": ann })).await;
                    assert_eq!(status, 200);
                }
                _ => {}
            }
        }
        assert_eq!(api.me_everywhere(&root).await, [200; 3]);
    }
    // An instance that gets no processor time for a second has no lease either: correct, but it must be rare.
    assert!(by_all * 10 >= asked * 9, "{by_all} of {asked} were acknowledged by all three");
}

/// The event stream of a session at one instance: `live`, then `ended` with the reason.
struct Page(Response, String);

impl Page {
    async fn open(url: &str, pair: &Pair) -> Self {
        let cookie = format!("hallpass-refresh={}", pair.refresh);
        let request = Client::new().get(format!("{url}/api/session/events")).header("cookie", cookie);
        let mut page = Self(request.send().await.unwrap(), String::new());
        assert_eq!(page.0.status(), 200);
        while !page.1.contains("\n\n") {
            page.1 += str::from_utf8(&page.0.chunk().await.unwrap().unwrap()).unwrap();
        }
        assert!(page.1.starts_with("event: live\n"), "{}", page.1);
        page
    }

    /// The events from here on, up to the end of the stream.
    async fn rest(self) -> String {
        let chunks: Vec<_> = self.0.bytes_stream().map(Result::unwrap).collect().await;
        String::from_utf8(chunks.concat()).unwrap()
    }
}

#[tokio::test]
async fn event_streams_at_all_instances_report_the_end_of_a_session() {
    let world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let mine = api.register(0, ANN).await;
    for instance in 0..3 {
        let pair = api.login(instance, ANN).await;
        let mut pages = Vec::new();
        for one in &world.instances {
            pages.push(Page::open(&one.url, &pair).await);
        }
        let body = json!({ "session_id": pair.session });
        let (status, answer) = api.call(instance, "/api/account/revoke_session", &mine, body).await;
        assert_eq!(status, 200, "{answer}");
        for page in pages {
            let said = page.rest().await;
            assert_eq!(said.matches("event: ended").count(), 1, "{said}");
            assert!(said.contains("data: \"ended_elsewhere\"\n\n"), "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn command_line_ends_sessions_on_running_instances() {
    let world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let pairs =
        [api.register(0, ANN).await, api.login(1, ANN).await, api.register(2, "bob@example.com").await];
    let [one, two, bob] = &pairs;
    for pair in &pairs {
        assert_eq!(api.me_everywhere(pair).await, [200; 3]);
    }
    let listed = hallpass(&world, &["sessions", "list", "--user", ANN]).await;
    assert!(listed.contains(&one.session) && listed.contains(&two.session), "{listed}");

    hallpass(&world, &["sessions", "revoke", "--session", &one.session]).await;
    assert_eq!(api.me_everywhere(one).await, [401; 3]);
    assert_eq!(api.me_everywhere(two).await, [200; 3]);
    hallpass(&world, &["sessions", "revoke", "--user", ANN]).await;
    assert_eq!(api.me_everywhere(two).await, [401; 3]);
    assert_eq!(api.me_everywhere(bob).await, [200; 3]);
    let page = Page::open(&world.instances[2].url, bob).await;
    hallpass(&world, &["sessions", "revoke", "--all"]).await;
    assert_eq!(api.me_everywhere(bob).await, [401; 3]);
    assert!(page.rest().await.contains("\"ended_by_admin\""));

    let ann = api.login(0, ANN).await;
    hallpass(&world, &["user", "disable", ANN]).await;
    assert_eq!(api.me_everywhere(&ann).await, [401; 3]);
    assert_eq!(answer(api.try_login(1, ANN, PASSWORD)).await.0, 401);
    hallpass(&world, &["user", "enable", ANN]).await;
    let back = api.login(2, ANN).await;
    assert_eq!(api.me_everywhere(&back).await, [200; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_sessions_can_be_ended_at_once() {
    const SESSIONS: usize = 20_000;
    let mut world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let root = administrator(&world, &api).await;
    let ann = api.register(2, ANN).await;
    world.postgres.tell(&format!(
        "insert into sessions (id, user_id, rotated_at, created_at, expires_at) \
         select 'S' || lpad(n::text, 20, '0') || 'A', (select min(id) from users), seconds, 0, seconds + 100000 \
         from generate_series(1, {SESSIONS}) n, (select extract(epoch from now())::bigint as seconds) now"
    ));
    world.postgres.tell(
        "insert into access_tokens (id, session_id, expires_at) \
         select 'T' || substr(id, 2), id, rotated_at + 300 from sessions where created_at = 0",
    );
    // One instance has all sessions in its mirror, and has to mark all of them dead.
    world.instances[1].kill();
    world.instances[1].start_again();
    world.instances[1].wait_until_ready().await;
    assert!(api.metric(1, "hallpass_mirror_sessions").await >= SESSIONS as f64);
    let (status, answer) = api.call(0, "/api/admin/revoke_all_sessions", &root, json!({})).await;
    assert_eq!((status.as_u16(), &answer["instances"]), (200, &json!(3)), "{answer}");
    for pair in [&root, &ann] {
        assert_eq!(api.me_everywhere(pair).await, [401; 3]);
    }
    let back = api.login(1, ANN).await;
    assert_eq!(api.me_everywhere(&back).await, [200; 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn partition_out_of_reach_keeps_no_session_of_the_others_alive() {
    let mut world = World::with(Kind::Single, &[("HALLPASS_REDIS_PARTITIONS", "2")]).await;
    let api = Api::of(&world);
    let root = administrator(&world, &api).await;
    let mut users = Vec::new();
    for number in 0..16 {
        let pair = api.register(0, &format!("user-{number}@example.com")).await;
        assert_eq!(api.me_everywhere(&pair).await, [200; 3]);
        users.push(pair);
    }
    world.redis().tell(&["ACL", "SETUSER", "default", "resetkeys", "~{hp:1}:*"]);
    let (status, answer) = api.call(0, "/api/admin/revoke_all_sessions", &root, json!({})).await;
    assert_eq!(status, 503, "{answer}");
    wait_until("no instance has all leases", async || {
        join_all((0..3).map(|number| api.try_get(number, "/health/ready"))).await == [Some(503); 3]
    })
    .await;
    for pair in &users {
        assert_eq!(api.me_everywhere(pair).await, [401; 3]);
    }
}

/// PostgreSQL cannot store U+0000, SQLite can. Such an input is not a failure of the database.
#[tokio::test(flavor = "multi_thread")]
async fn nul_characters_are_refused_and_emails_are_normalized_with_postgres() {
    let world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let root = administrator(&world, &api).await;
    for (path, field, expected) in [
        ("admin/users", "search", 422),
        ("admin/users", "after", 422),
        ("admin/sessions", "user_id", 404),
        ("admin/disable_user", "user_id", 404),
        ("account/revoke_session", "session_id", 404),
    ] {
        let (status, answer) = api.call(0, &format!("/api/{path}"), &root, json!({ field: "a\0b" })).await;
        assert_eq!(status, expected, "{path} {field}: {answer}");
    }
    assert_eq!(answer(api.try_login(0, "a\0@example.com", PASSWORD)).await.0, 422);

    // The address as an earlier version stored it.
    api.register(0, "ann@b\u{fc}cher.example").await;
    world.postgres.tell("update users set email = 'ann@xn--bcher-kva.example' where email like 'ann@%'");
    for spelling in ["ann@b\u{fc}cher.example", "ANN@XN--BCHER-KVA.example"] {
        api.login(0, spelling).await;
    }
}
