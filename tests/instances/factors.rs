//! Factors, with several instances: what works once works once on all of them together, no session that was begun without
//! a new factor outlives its addition, and no factor is in use while an instance is running that would not ask for it.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::time;

use crate::{
    authenticator::Passkey,
    client::{Api, PASSWORD, Pair, answer},
    support::world::{Kind, World},
    totp::code,
};

const ROUNDS: usize = 12;
const ANN: &str = "ann@example.com";

async fn start() -> (World, Api) {
    let world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    api.register(0, ANN).await;
    api.confirm_quickly(&world).await;
    (world, api)
}

impl Api {
    async fn ok(&self, instance: usize, path: &str, pair: &Pair, body: Value) -> Value {
        let (status, answer) = self.call(instance, path, pair, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    async fn begin_totp(&self, instance: usize, pair: &Pair) -> String {
        let begun = self.ok(instance, "/api/account/begin_totp", pair, json!({})).await;
        begun["secret"].as_str().unwrap().to_owned()
    }

    /// Adds an authenticator app. Returns its secret and the recovery codes.
    async fn add_totp(&self, instance: usize, pair: &Pair) -> (String, Vec<String>) {
        let secret = self.begin_totp(instance, pair).await;
        let body = json!({ "code": code(&secret, 0) });
        let added = self.ok(instance + 1, "/api/account/add_totp", pair, body).await;
        let codes = added["codes"].as_array().unwrap().iter();
        (secret, codes.map(|code| code.as_str().unwrap().to_owned()).collect())
    }

    async fn login_with_code(&self, instance: usize, email: &str, code: &str) -> (StatusCode, Value) {
        let body = json!({ "email": email, "password": PASSWORD, "code": code, "delivery": "body" });
        answer(self.post(instance, "/api/auth/login").json(&body)).await
    }
}

fn times(statuses: &[StatusCode]) -> BTreeMap<u16, usize> {
    let mut times = BTreeMap::new();
    for status in statuses {
        *times.entry(status.as_u16()).or_default() += 1;
    }
    times
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn code_that_is_entered_at_all_instances_at_once_works_once() {
    let (_world, api) = start().await;
    for round in 0..ROUNDS {
        let email = format!("user{round}@example.com");
        let pair = api.register(round, &email).await;
        let (secret, recovery_codes) = api.add_totp(round, &pair).await;
        for code in [code(&secret, 1), recovery_codes[round % 10].clone()] {
            let attempts = (0..6).map(async |number| api.login_with_code(number, &email, &code).await.0);
            let statuses = join_all(attempts).await;
            assert_eq!(times(&statuses), BTreeMap::from([(200, 1), (401, 5)]), "{code}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn passkey_ceremony_is_completed_once_by_all_instances_together() {
    let (_world, api) = start().await;
    for round in 0..ROUNDS {
        let pair = api.register(round, &format!("user{round}@example.com")).await;
        let begun = api.ok(round, "/api/account/begin_passkey", &pair, json!({})).await;
        let (mut passkey, made) = Passkey::make(begun["options"].as_str().unwrap(), "http://localhost:3000");
        let body = json!({ "ceremony": begun["ceremony"], "credential": made.to_string(), "name": "phone" });
        let add = async |number| api.call(number, "/api/account/add_passkey", &pair, body.clone()).await.0;
        let statuses = join_all((0..6).map(add)).await;
        assert_eq!(times(&statuses), BTreeMap::from([(200, 1), (409, 5)]));

        let (_, begun) = answer(api.post(round, "/api/auth/begin_passkey_login").json(&json!({}))).await;
        let signed = passkey.sign_in(begun["options"].as_str().unwrap()).to_string();
        let body = json!({ "ceremony": begun["ceremony"], "credential": signed, "delivery": "body" });
        let login =
            async |number| answer(api.post(number, "/api/auth/login_with_passkey").json(&body)).await.0;
        let statuses = join_all((0..6).map(login)).await;
        assert_eq!(times(&statuses), BTreeMap::from([(200, 1), (401, 5)]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_session_without_the_new_factor_outlives_its_addition() {
    let (_world, api) = start().await;
    let mut raced = 0;
    for round in 0..ROUNDS {
        let email = format!("user{round}@example.com");
        let first = api.register(round, &email).await;
        let secret = api.begin_totp(round, &first).await;
        let logins = async |instance| {
            let mut begun = Vec::new();
            for _ in 0..4 {
                let (status, body) = api.login_with_code(instance, &email, "").await;
                assert!([200, 401, 403].contains(&status.as_u16()), "{status}: {body}");
                begun.extend((status == 200).then(|| Pair::of(&body)));
            }
            begun
        };
        let body = json!({ "code": code(&secret, 0) });
        let adding = api.call(round + 2, "/api/account/add_totp", &first, body);
        let (logins, (status, added)) = tokio::join!(join_all((0..3).map(logins)), adding);
        assert_eq!((status.as_u16(), &added["revocation"]["acknowledged"]), (200, &json!(3)), "{added}");
        let begun: Vec<_> = logins.into_iter().flatten().collect();
        raced += usize::from((1..12).contains(&begun.len()));
        for pair in &begun {
            assert_eq!(api.me_everywhere(pair).await, [401; 3], "begun with the password alone");
            assert_eq!(api.refresh(0, pair).await.unwrap_err(), 401);
        }
        assert_eq!(api.me_everywhere(&first).await, [200; 3], "the session that has added it");
        assert_eq!(api.login_with_code(round, &email, "").await.0, 403);
        assert_eq!(api.login_with_code(round, &email, &code(&secret, 1)).await.0, 200);
    }
    assert!(raced > 0, "the logins all came before the factor, or all after it: no race");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_session_of_a_removed_passkey_outlives_it() {
    let (_world, api) = start().await;
    let mut raced = 0;
    for round in 0..ROUNDS {
        let first = api.register(round, &format!("user{round}@example.com")).await;
        let begun = api.ok(round, "/api/account/begin_passkey", &first, json!({})).await;
        let (mut passkey, made) = Passkey::make(begun["options"].as_str().unwrap(), "http://localhost:3000");
        let body = json!({ "ceremony": begun["ceremony"], "credential": made.to_string(), "name": "phone" });
        api.ok(round, "/api/account/add_passkey", &first, body).await;
        let methods = api.ok(round, "/api/account/sign_in_methods", &first, json!({})).await;
        let mut answers = Vec::new();
        for _ in 0..12 {
            let (_, begun) = answer(api.post(0, "/api/auth/begin_passkey_login").json(&json!({}))).await;
            let signed = passkey.sign_in(begun["options"].as_str().unwrap()).to_string();
            answers.push(json!({ "ceremony": begun["ceremony"], "credential": signed, "delivery": "body" }));
        }
        let logins = async |instance: usize| {
            let mut begun = Vec::new();
            for body in answers.iter().skip(instance * 4).take(4) {
                let login = api.post(instance, "/api/auth/login_with_passkey").json(body);
                let (status, body) = answer(login).await;
                assert!([200, 401].contains(&status.as_u16()), "{status}: {body}");
                begun.extend((status == 200).then(|| Pair::of(&body)));
            }
            begun
        };
        let body = json!({ "passkey_id": methods["passkeys"][0]["passkey_id"] });
        let removing = api.call(round + 2, "/api/account/remove_passkey", &first, body);
        let (logins, (status, removed)) = tokio::join!(join_all((0..3).map(logins)), removing);
        assert_eq!((status.as_u16(), &removed["acknowledged"]), (200, &json!(3)), "{removed}");
        let begun: Vec<_> = logins.into_iter().flatten().collect();
        raced += usize::from((1..12).contains(&begun.len()));
        for pair in &begun {
            assert_eq!(api.me_everywhere(pair).await, [401; 3], "begun with the removed passkey");
            assert_eq!(api.refresh(0, pair).await.unwrap_err(), 401);
        }
        assert_eq!(api.me_everywhere(&first).await, [200; 3], "the session that has removed it");
    }
    assert!(raced > 0, "the logins all came before the removal, or all after it: no race");
}

/// The row of an instance of a version without factors, as the others see it.
const OLDER: &str = "insert into instances (id, name, facts) select 'AAAAAAAAAAAAAAAAAAAAAA', 'older', \
     (facts::jsonb #- '{shared,token_form}')::text from instances limit 1";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_factor_is_in_use_while_an_older_instance_is_running() {
    let (world, api) = start().await;
    let length_of_claims = |pair: &Pair| pair.access.split('.').nth(1).unwrap().len();
    let ann = api.login(0, ANN).await;
    let with_claims = length_of_claims(&ann);
    world.postgres.tell(OLDER);
    let is_known = async |is_known: bool| {
        let expected = if is_known { 200 } else { 503 };
        for instance in 0..3 {
            for path in ["/api/account/begin_totp", "/api/account/begin_passkey"] {
                while api.call(instance, path, &ann, json!({})).await.0 != expected {
                    time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    };
    is_known(false).await;
    // The older instance would refuse a token with claims that it does not know.
    for instance in 0..3 {
        let pair = api.login(instance, ANN).await;
        assert!(length_of_claims(&pair) < with_claims);
        let refreshed = api.refresh(instance, &pair).await.unwrap();
        assert!(length_of_claims(&refreshed) < with_claims);
    }
    world.postgres.tell("delete from instances where name = 'older'");
    is_known(true).await;
    assert_eq!(length_of_claims(&api.login(1, ANN).await), with_claims);
}
