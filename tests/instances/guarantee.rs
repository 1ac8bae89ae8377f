//! The guarantee with several instances: a session is dead everywhere once the logout has been answered, live
//! everywhere once the login has been answered, and requests in between query neither SQL nor Redis.

use futures::future::join_all;
use serde_json::json;

use crate::{
    client::Api,
    support::{
        notes::Credentials,
        process::wait_until,
        world::{Kind, World},
    },
};

#[tokio::test]
async fn login_and_logout_take_effect_on_all_instances_before_they_answer() {
    let world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let email = "ann@example.com";
    let other = api.register(0, email).await;
    api.confirm_quickly(&world).await;
    let mut by_all = 0;
    for round in 0..100 {
        let pair = api.login(round, email).await;
        assert_eq!(api.me_everywhere(&pair).await, [200; 3], "round {round}");
        let next = api.refresh(round + 1, &pair).await.unwrap();
        assert_eq!(api.me_everywhere(&next).await, [200; 3], "round {round}");

        let (status, answer) = api.logout(round + 2, &pair).await;
        assert_eq!(status, 200);
        by_all += u32::from(answer["instances"] == 3 && answer["acknowledged"] == 3);
        assert_eq!(api.me_everywhere(&pair).await, [401; 3], "round {round}");
        assert_eq!(api.me_everywhere(&next).await, [401; 3], "round {round}");
        for instance in 0..3 {
            assert_eq!(api.refresh(instance, &next).await.unwrap_err(), 401);
        }
    }
    assert_eq!(api.me_everywhere(&other).await, [200; 3]);
    // An instance that gets no processor time for a second has no lease either: correct, but it must be rare.
    assert!(by_all >= 90, "{by_all} of 100 were acknowledged by all three");
}

#[tokio::test]
async fn logout_everywhere_takes_effect_on_all_instances() {
    let world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let stranger = api.register(0, "bob@example.com").await;
    let first = api.register(0, "ann@example.com").await;
    let (second, third) = (api.login(1, "ann@example.com").await, api.login(2, "ann@example.com").await);
    assert_eq!(api.logout_everywhere(1, &first, true).await.0, 200);
    assert_eq!(api.me_everywhere(&first).await, [200; 3]);
    for pair in [&second, &third] {
        assert_eq!(api.me_everywhere(pair).await, [401; 3]);
    }
    assert_eq!(api.logout_everywhere(2, &first, false).await.0, 200);
    assert_eq!(api.me_everywhere(&first).await, [401; 3]);
    assert_eq!(api.refresh(0, &first).await.unwrap_err(), 401);
    assert_eq!(api.me_everywhere(&stranger).await, [200; 3]);
}

/// Twenty thousand requests are answered while the database is stopped: a request that queried it could not be.
/// Counters show that Redis was not queried either.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn live_sessions_are_authorized_without_redis_or_sql() {
    // No more than a slow machine can ask before the token expires.
    const ROUNDS: usize = 4;
    const REQUESTS: usize = 5_000;
    const CALLERS: usize = 16;
    let world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let pair = api.register(0, "ann@example.com").await;
    assert_eq!(api.me(1, &pair).await, 200);
    let count = async || {
        let mut counts = [0.0; 4];
        let names = ["mirror_hits", "mirror_misses", "redis_look_ups", "fallbacks"];
        for (count, name) in counts.iter_mut().zip(names) {
            *count = api.metric(1, &format!("hallpass_{name}_total")).await;
        }
        counts
    };
    world.postgres.signal_all("STOP");
    let mut undisturbed = 0;
    wait_until("the lease is held through all rounds", async || {
        let before = count().await;
        let callers = (0..CALLERS).map(|_| {
            let (api, pair) = (api.clone(), pair.clone());
            tokio::spawn(async move {
                let mut answered = 0;
                for _ in 0..REQUESTS / CALLERS {
                    match api.me(1, &pair).await.as_u16() {
                        200 => answered += 1,
                        // An instance that gets no processor for a second has no lease.
                        503 => {}
                        other => panic!("a live token is answered {other}"),
                    }
                }
                answered
            })
        });
        let answered: usize = join_all(callers).await.into_iter().map(Result::unwrap).sum();
        let after = count().await;
        let [hits, misses, look_ups, fallbacks] = std::array::from_fn(|index| after[index] - before[index]);
        assert_eq!(hits, answered as f64, "each answer is one from memory");
        if answered == REQUESTS / CALLERS * CALLERS {
            assert_eq!((misses, look_ups, fallbacks), (0.0, 0.0, 0.0));
            undisturbed += 1;
        }
        undisturbed == ROUNDS
    })
    .await;
    world.postgres.signal_all("CONT");
}

/// An instance whose mirror lacks a token looks it up once, however many requests present it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_requests_with_an_unknown_token_share_one_look_up() {
    let world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let pair = api.register(0, "ann@example.com").await;
    let mut world = world;
    // The restarted instance does not load the token, because it has expired according to SQL.
    world.instances[1].kill();
    world.postgres.tell("update access_tokens set expires_at = expires_at - 1000");
    world.instances[1].start_again();
    world.instances[1].wait_until_ready().await;
    world.postgres.tell("update access_tokens set expires_at = expires_at + 1000");
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let (api, pair) = (api.clone(), pair.clone());
            tokio::spawn(async move { api.me(1, &pair).await })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), 200);
    }
    let look_ups = api.metric(1, "hallpass_redis_look_ups_total").await;
    assert!((1.0..=3.0).contains(&look_ups), "{look_ups} look-ups");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn global_token_revocation_answers_204_only_when_every_instance_refuses() {
    let mut world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let tool = Credentials::of_client_added_with(&world.instances[0], &["tool", "--may-revoke-users"]);
    let email = "ann@example.com";
    let sessions = [api.register(0, email).await, api.login(1, email).await, api.login(2, email).await];
    let revoke = async |number: usize| {
        let request = api.post(number, "/oauth/global-token-revocation");
        let request = request.basic_auth(&tool.id, Some(&tool.secret));
        let subject = json!({ "sub_id": { "format": "email", "email": email } });
        request.json(&subject).send().await.unwrap()
    };
    world.redis().kill();
    wait_until("the lease has lapsed", async || api.metric(0, "hallpass_lease_held").await == 0.0).await;
    let refused = revoke(0).await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    world.redis().start_again().await;
    world.wait_until_ready().await;
    // An instance that is cut off when the answer comes refuses as well.
    let other = api.login(2, email).await;
    world.instances[2].redis().set(|link| link.cut = true);
    assert_eq!(revoke(1).await.status(), 204);
    for pair in sessions.iter().chain([&other]) {
        assert_eq!(api.me_everywhere(pair).await, [401; 3]);
    }
    world.instances[2].redis().heal();
}

/// Without Redis and without the database a token is undetermined: it is neither refused nor revoked.
#[tokio::test]
async fn undecidable_requests_get_503() {
    let mut world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let pair = api.register(0, "ann@example.com").await;
    let (other, dead) = (api.login(0, "ann@example.com").await, api.login(0, "ann@example.com").await);
    assert_eq!(api.logout(0, &dead).await.0, 200);
    world.redis().kill();
    wait_until("the lease has lapsed", async || api.metric(0, "hallpass_lease_held").await == 0.0).await;
    // Requests fall back to the database.
    assert_eq!(
        (api.me(0, &pair).await, api.me(0, &dead).await),
        (200.try_into().unwrap(), 401.try_into().unwrap())
    );
    assert!(api.metric(0, "hallpass_fallbacks_total").await >= 1.0);
    assert_eq!(api.get(0, "/health/ready").await.0, 503);
    let (status, body) = api.logout(0, &pair).await;
    assert_eq!((status.as_u16(), &body["error"]), (503, &json!("temporarily_unavailable")));

    world.postgres.kill();
    let refused = api.post(0, "/api/account/me").bearer_auth(&other.access).send().await.unwrap();
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    assert_eq!(api.me(0, &dead).await, 401, "dead is for ever");

    world.postgres.start_again().await;
    world.redis().start_again().await;
    world.wait_until_ready().await;
    assert_eq!(api.me_everywhere(&other).await, [200; 3]);
    // The unconfirmed logout was recorded, so the session is dead now.
    assert_eq!(api.me_everywhere(&pair).await, [401; 3]);
    assert_eq!(api.logout(1, &pair).await.0, 200);
}

impl Api {
    /// Waits until every instance has followed Redis for longer than a lease: before that, a logout takes as
    /// long as a lease.
    pub async fn confirm_quickly(&self, world: &World) {
        let pair = self.login(0, "ann@example.com").await;
        for instance in 0..world.instances.len() {
            assert_eq!(self.logout(instance, &pair).await.0, 200);
        }
    }
}
