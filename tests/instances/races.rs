//! Two concurrent calls at two instances: in whatever order they are carried out, all instances agree
//! afterwards, and every response stays true.

use std::sync::Arc;

use tokio::sync::Barrier;

use crate::{
    client::Api,
    support::world::{Kind, World},
};

const ROUNDS: usize = 150;
const ANN: &str = "ann@example.com";

async fn start() -> (World, Api) {
    let world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    api.register(0, ANN).await;
    api.confirm_quickly(&world).await;
    (world, api)
}

/// The event about a new token may arrive after the token itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn new_token_is_accepted_before_its_event_arrives() {
    let (_world, api) = start().await;
    for round in 0..ROUNDS {
        let pair = api.login(round, ANN).await;
        let (one, other) = tokio::join!(api.me(round + 1, &pair), api.me(round + 2, &pair));
        assert_eq!((one.as_u16(), other.as_u16()), (200, 200), "round {round}");
    }
}

/// A look-up that is in progress during the revocation must not bring the session back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn look_up_during_a_revocation_does_not_revive_the_token() {
    let (_world, api) = start().await;
    for round in 0..ROUNDS {
        let pair = api.login(round, ANN).await;
        let barrier = Arc::new(Barrier::new(5));
        let readers: Vec<_> = (0..4)
            .map(|reader| {
                let (api, pair, barrier) = (api.clone(), pair.clone(), barrier.clone());
                tokio::spawn(async move {
                    barrier.wait().await;
                    api.me(reader, &pair).await
                })
            })
            .collect();
        barrier.wait().await;
        assert_eq!(api.logout(round + 1, &pair).await.0, 200);
        assert_eq!(api.me_everywhere(&pair).await, [401; 3], "round {round}");
        for reader in readers {
            reader.await.unwrap();
        }
        assert_eq!(api.me_everywhere(&pair).await, [401; 3], "round {round}");
    }
}

/// In whatever order the two are carried out, the new pair is dead when the logout has been answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn refreshed_tokens_do_not_survive_a_logout_on_another_instance() {
    let (_world, api) = start().await;
    let mut refreshed = 0;
    for round in 0..ROUNDS {
        let pair = api.login(round, ANN).await;
        let (next, (status, _)) = tokio::join!(api.refresh(round, &pair), api.logout(round + 1, &pair));
        assert_eq!(status, 200);
        if let Ok(next) = next {
            refreshed += 1;
            assert_eq!(api.me_everywhere(&next).await, [401; 3], "round {round}");
            assert_eq!(api.refresh(round, &next).await.unwrap_err(), 401, "round {round}");
        }
        assert_eq!(api.me_everywhere(&pair).await, [401; 3], "round {round}");
    }
    assert!(refreshed > 0, "the log-out always came first: no race");
}

/// A concurrent login is revoked too, or comes after the logout; all instances agree which.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn instances_agree_on_a_login_concurrent_with_logout_everywhere() {
    let (_world, api) = start().await;
    for round in 0..ROUNDS {
        let pair = api.login(round, ANN).await;
        let (other, (status, _)) =
            tokio::join!(api.login(round + 1, ANN), api.logout_everywhere(round + 2, &pair, false));
        assert_eq!(status, 200);
        let statuses = api.me_everywhere(&other).await;
        assert!(statuses == [200; 3] || statuses == [401; 3], "round {round}: {statuses:?}");
        let refreshes = api.refresh(round, &other).await.is_ok();
        assert_eq!(refreshes, statuses == [200; 3], "round {round}");
        assert_eq!(api.me_everywhere(&pair).await, [401; 3], "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_instances_can_end_the_same_session_at_the_same_time() {
    let (_world, api) = start().await;
    for round in 0..ROUNDS {
        let pair = api.login(round, ANN).await;
        let (one, other) = tokio::join!(api.logout(round, &pair), api.logout(round + 1, &pair));
        assert_eq!((one.0.as_u16(), other.0.as_u16()), (200, 200), "round {round}");
        assert_eq!(api.me_everywhere(&pair).await, [401; 3], "round {round}");
    }
}
