//! Services with a guard (`hallpass-guard`), as processes of their own beside three instances.

use std::{env, fs, path::Path};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use hallpass_allowlist::InstanceId;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    client::{Api, Pair, answer},
    keys::{published, signed_with},
    support::{
        certificate::{authority, certificate},
        clock::{Step, can_be_stepped},
        instance::make_key,
        notes::{Credentials, Notes},
        process::{Process, free_port, wait_until},
        redis::Redis,
        world::{Kind, World},
    },
};

const ANN: &str = "ann@example.com";

/// Three instances that sign with a key pair, and a client.
async fn world_with_client(keys: &Path) -> (World, Credentials) {
    make_key(keys);
    let settings = [("HALLPASS_SIGNING_KEY", ""), ("HALLPASS_KEYS", keys.to_str().unwrap())];
    let world = World::with(Kind::Single, &settings).await;
    let client = Credentials::of_new_client(&world.instances[0]);
    (world, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn guard_accepts_nothing_that_a_logout_has_ended() {
    let keys = TempDir::new().unwrap();
    let (world, client) = world_with_client(keys.path()).await;
    let api = Api::of(&world);
    let mut notes = Notes::start(&world, "notes", 0, &client).await;
    let live = api.register(0, ANN).await;
    let mut ended = Vec::new();
    for round in 0..30 {
        let pair = api.login(round % 3, ANN).await;
        assert_eq!(notes.ask(&pair.access).await, 200);
        let (status, answer) = api.logout((round + 1) % 3, &pair).await;
        assert_eq!((status.as_u16(), &answer["acknowledged"]), (200, &4.into()), "{answer}");
        assert_eq!(notes.ask(&pair.access).await, 401);
        ended.push(pair);
    }

    // While it stands still and when it is killed, it is waited for until its lease has expired.
    let pair = api.login(0, ANN).await;
    assert_eq!(notes.ask(&pair.access).await, 200);
    notes.process.signal("STOP");
    assert_eq!(api.logout(1, &pair).await.0, 200);
    notes.process.signal("CONT");
    assert_eq!(notes.ask(&pair.access).await, 401);
    ended.push(pair);
    let pair = api.login(0, ANN).await;
    assert_eq!(notes.ask(&pair.access).await, 200);
    notes.process.kill();
    assert_eq!(api.logout(1, &pair).await.0, 200);
    ended.push(pair);

    notes.start_again();
    notes.wait_until_ready().await;
    assert_eq!(notes.ask(&live.access).await, 200);
    for pair in &ended {
        assert_eq!(notes.ask(&pair.access).await, 401);
    }

    // One that stops as it should is not waited for.
    notes.process.signal("TERM");
    wait_until("it has ended", async || !notes.process.is_running()).await;
    let (status, answer) = api.logout(0, &live).await;
    assert_eq!((status.as_u16(), &answer["instances"]), (200, &3.into()), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn guard_that_is_cut_off_accepts_nothing_that_it_cannot_check() {
    let keys = TempDir::new().unwrap();
    let (world, client) = world_with_client(keys.path()).await;
    let api = Api::of(&world);
    let notes = Notes::start(&world, "notes", 0, &client).await;
    let live = api.register(0, ANN).await;
    let pairs =
        [api.login(1, ANN).await, api.login(2, ANN).await, api.login(0, ANN).await, api.login(1, ANN).await];
    for pair in &pairs {
        assert_eq!(notes.ask(&pair.access).await, 200);
    }

    // Without Hallpass, the events of Redis are enough for what it has met.
    notes.hallpass.set(|weather| weather.cut = true);
    assert_eq!(api.logout(0, &pairs[0]).await.0, 200);
    assert_eq!((notes.ask(&pairs[0].access).await, notes.ask(&live.access).await), (401, 200));
    let new = api.login(2, ANN).await;
    assert_eq!(notes.ask(&new.access).await, 200, "its event has arrived, or Redis has it");
    notes.hallpass.heal();

    // Without Redis, Hallpass answers.
    notes.redis().set(|weather| weather.cut = true);
    assert_eq!(api.logout(0, &pairs[1]).await.0, 200);
    assert_eq!((notes.ask(&pairs[1].access).await, notes.ask(&live.access).await), (401, 200));

    // Without both, nothing is known.
    notes.hallpass.set(|weather| weather.cut = true);
    assert_eq!(api.logout(0, &pairs[2]).await.0, 200);
    for pair in [&pairs[2], &pairs[3], &live] {
        let refused = notes.request(&pair.access).send().await.unwrap();
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["retry-after"]),
            (503, &"1".parse().unwrap())
        );
        assert_eq!(refused.json::<Value>().await.unwrap()["error"], "temporarily_unavailable");
    }
    assert_eq!(notes.get("/health/ready").send().await.unwrap().status(), 503);
    notes.redis().heal();
    notes.hallpass.heal();
    wait_until("it accepts again", async || {
        assert_ne!(notes.ask(&pairs[2].access).await, 200);
        notes.ask(&live.access).await == 200
    })
    .await;
    assert_eq!((notes.ask(&pairs[2].access).await, notes.ask(&pairs[3].access).await), (401, 200));
}

/// The public key as the secret of HS256, another key with our id, no signature, and others.
fn forgeries(pair: &Pair, jwk: &Value) -> Vec<String> {
    let parts: Vec<_> = pair.access.split('.').collect();
    let kid = jwk["kid"].as_str().unwrap();
    let encode = |header: &Value| BASE64_URL_SAFE_NO_PAD.encode(header.to_string());
    let claims: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    let header = |algorithm: Algorithm| Header {
        typ: Some("at+jwt".into()),
        kid: Some(kid.into()),
        ..Header::new(algorithm)
    };
    let public = jwk["x"].as_str().unwrap();
    let mut forged = Vec::new();
    for secret in
        [public.as_bytes(), &BASE64_URL_SAFE_NO_PAD.decode(public).unwrap(), jwk.to_string().as_bytes()]
    {
        let key = EncodingKey::from_secret(secret);
        forged.push(jsonwebtoken::encode(&header(Algorithm::HS256), &claims, &key).unwrap());
        let signed = forged.last().unwrap().rsplit_once('.').unwrap().1.to_owned();
        forged.push(format!("{}.{}.{signed}", parts[0], parts[1]));
    }
    forged.push(format!("{}.{}.", encode(&json!({ "alg": "none", "typ": "at+jwt" })), parts[1]));
    forged.push(format!("{}.{}.", parts[0], parts[1]));
    forged.push(format!(
        "{}.{}.{}",
        encode(&json!({ "typ": "JWT", "alg": "EdDSA", "kid": kid })),
        parts[1],
        parts[2]
    ));
    let mut later = claims.clone();
    later["exp"] = (claims["exp"].as_i64().unwrap() + 1).into();
    forged.push(format!("{}.{}.{}", parts[0], encode(&later), parts[2]));
    forged.extend([
        String::new(),
        ".".into(),
        "..".into(),
        "a.b.c".into(),
        "x".repeat(5000),
        pair.refresh.clone(),
    ]);
    forged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn guard_refuses_what_hallpass_has_not_signed_and_asks_for_unknown_keys_seldom() {
    let keys = TempDir::new().unwrap();
    let (world, client) = world_with_client(keys.path()).await;
    let api = Api::of(&world);
    let notes = Notes::start(&world, "notes", 0, &client).await;
    let pair = api.register(0, ANN).await;
    assert_eq!(notes.ask(&pair.access).await, 200);
    let (_, set) = api.answered(api.get_request(0, "/.well-known/jwks.json")).await.unwrap();
    for forged in forgeries(&pair, &set["keys"][0]) {
        let refused = notes.request(&forged).send().await.unwrap();
        assert_eq!(refused.status(), 401, "{forged}");
        assert!(refused.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    }
    let twice = notes.request(&pair.access).header("authorization", "Bearer other");
    assert_eq!(twice.send().await.unwrap().status(), 400);
    let cookie = notes.get("/notes").header("cookie", format!("hallpass_refresh={}", pair.refresh));
    assert_eq!(cookie.send().await.unwrap().status(), 401);
    let lower = notes.get("/notes").header("authorization", format!("bearer {}", pair.access));
    assert_eq!(lower.send().await.unwrap().status(), 200);
    assert_eq!(notes.get("/users").bearer_auth(&pair.access).send().await.unwrap().status(), 403);

    // Tokens of keys that do not exist: 401 each, while the keys that are known stay in use.
    let claims = pair.access.split('.').nth(1).unwrap();
    let unknown = |number: u32| {
        let header = format!(r#"{{"typ":"at+jwt","alg":"EdDSA","kid":"unknown-{number}"}}"#);
        format!("{}.{claims}.{}", BASE64_URL_SAFE_NO_PAD.encode(header), "A".repeat(86))
    };
    for number in 0..200 {
        assert_eq!(notes.ask(&unknown(number)).await, 401);
    }
    // When the keys cannot be read, it is not known whether such a token is ours.
    notes.hallpass.set(|weather| weather.cut = true);
    wait_until("the keys it has read are not the latest any more", async || {
        notes.ask(&unknown(0)).await == 503
    })
    .await;
    assert_eq!(notes.ask("garbage").await, 401);
    assert_eq!(notes.ask(&pair.access).await, 200);
    notes.hallpass.heal();
    wait_until("they can be read again", async || notes.ask(&unknown(0)).await == 401).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn new_key_waits_for_the_guard() {
    let keys = TempDir::new().unwrap();
    let (world, client) = world_with_client(keys.path()).await;
    let api = Api::of(&world);
    let mut notes = Notes::start(&world, "notes", 0, &client).await;
    let before = api.register(0, ANN).await;
    notes.hallpass.set(|weather| weather.cut = true);
    let second = make_key(keys.path());
    for number in 0..3 {
        wait_until("it accepts the new key", async || published(&api, number).await.contains(&second)).await;
    }
    // Two readings of the folder by an instance, which would let the key sign if it did not wait.
    let waits = || world.instances[1].printed().matches("waits for").count();
    let waited = waits();
    wait_until("it has tried", async || waits() >= waited + 2 || published(&api, 1).await[0] == second).await;
    assert_ne!(signed_with(&api.login(1, ANN).await), second, "the guard does not have the new key");
    notes.hallpass.heal();
    for number in 0..3 {
        wait_until("the new key signs", async || published(&api, number).await[0] == second).await;
    }
    let after = api.login(2, ANN).await;
    assert_eq!(signed_with(&after), second);
    assert_eq!((notes.ask(&before.access).await, notes.ask(&after.access).await), (200, 200));
    assert_eq!(api.logout(1, &after).await.0, 200);
    assert_eq!(notes.ask(&after.access).await, 401);

    // A guard that slept through a change of keys asks for the key that it does not know.
    notes.process.signal("STOP");
    let rows = || world.postgres.query("select count(*) from instances where client_id is not null").unwrap();
    wait_until("its row is gone", async || rows() == "0").await;
    let third = make_key(keys.path());
    for number in 0..3 {
        wait_until("the third key signs", async || published(&api, number).await[0] == third).await;
    }
    let pair = api.login(0, ANN).await;
    notes.process.signal("CONT");
    wait_until("it accepts the third key", async || {
        let status = notes.ask(&pair.access).await;
        assert!([200, 503].contains(&status), "{status}");
        status == 200
    })
    .await;
    notes.wait_until_ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn guard_whose_clock_is_wrong_goes_by_that_of_the_database() {
    if !can_be_stepped() {
        return;
    }
    let keys = TempDir::new().unwrap();
    let (world, client) = world_with_client(keys.path()).await;
    let api = Api::of(&world);
    let notes = Notes::start(&world, "notes", 0, &client).await;
    let pair = api.register(0, ANN).await;
    for step in [Step::Ahead, Step::Behind] {
        notes.clock.set(step);
        let new = api.login(1, ANN).await;
        for _ in 0..20 {
            assert_eq!((notes.ask(&pair.access).await, notes.ask(&new.access).await), (200, 200), "{step:?}");
        }
        assert_eq!(api.logout(2, &new).await.0, 200);
        assert_eq!(notes.ask(&new.access).await, 401);
    }
}

/// Starts the notes with these settings, and returns what they say when they end.
async fn refusal_to_start(world: &World, client: &Credentials, settings: &[(&'static str, &str)]) -> String {
    let mut notes = Notes::begin(world, &format!("notes-{}", free_port()), 0, client, settings).await;
    wait_until("it has ended", async || !notes.process.is_running()).await;
    notes.process.printed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn guard_that_could_not_keep_the_promise_does_not_start() {
    let keys = TempDir::new().unwrap();
    let (mut world, client) = world_with_client(keys.path()).await;
    let wrong = Credentials { secret: format!("{}x", client.secret), ..client.clone() };
    let said = refusal_to_start(&world, &wrong, &[]).await;
    assert!(said.contains("401") && !said.contains(&wrong.secret), "{said}");
    let said = refusal_to_start(&world, &client, &[("AUDIENCE", "other")]).await;
    assert!(said.contains("for the audience hallpass, not for other"), "{said}");
    let folder = TempDir::new().unwrap();
    let other = Redis::start(folder.path(), "").await;
    let url = format!("redis://127.0.0.1:{}", other.port);
    let said = refusal_to_start(&world, &client, &[("REDIS_URL", &url)]).await;
    assert!(said.contains("leads to another Redis"), "{said}");
    let nothing = format!("http://127.0.0.1:{}", free_port());
    let said =
        refusal_to_start(&world, &client, &[("HALLPASS_URL", &nothing), ("STARTUP_TIMEOUT", "2")]).await;
    assert!(said.contains("Hallpass cannot be reached"), "{said}");
    let said = refusal_to_start(&world, &client, &[("HALLPASS_URL", "id.example.com")]).await;
    assert!(said.contains(".issuer(..) cannot be used"), "{said}");

    // One that starts before Hallpass waits for it.
    for instance in &mut world.instances {
        assert!(instance.stop().await);
    }
    let mut notes = Notes::begin(&world, "early", 0, &client, &[]).await;
    wait_until("it waits", async || notes.process.printed().contains("trying again")).await;
    world.instances.iter_mut().for_each(|instance| instance.start_again());
    notes.wait_until_ready().await;

    // With another issuer it cannot judge tokens: it says so, and refuses none for good.
    for instance in &mut world.instances {
        assert!(instance.stop().await);
        instance.set("HALLPASS_ISSUER", "other");
    }
    world.instances.iter_mut().for_each(|instance| instance.start_again());
    world.wait_until_ready().await;
    let pair = Api::of(&world).register(0, ANN).await;
    wait_until("it has read the settings", async || notes.ask(&pair.access).await == 503).await;
    assert!(notes.process.printed().contains("start this service again"), "{}", notes.process.printed());

    let secrets = World::start(Kind::Single).await;
    let client = Credentials::of_new_client(&secrets.instances[0]);
    let said = refusal_to_start(&secrets, &client, &[]).await;
    assert!(said.contains("publishes no key"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn guard_asks_by_https_and_trusts_no_other_certificate() {
    let keys = TempDir::new().unwrap();
    let (world, client) = world_with_client(keys.path()).await;
    let (trusted, folder, port) = (authority(), world.folder(), free_port());
    let (certificate, key) = certificate(folder, "proxy", &trusted);
    let both = fs::read_to_string(&certificate).unwrap() + &fs::read_to_string(&key).unwrap();
    fs::write(folder.join("both.pem"), both).unwrap();
    let configuration = format!(
        "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
         listen proxy\n bind 127.0.0.1:{port} ssl crt both.pem\n server hallpass {}\n",
        world.instances[0].url.trim_start_matches("http://")
    );
    fs::write(folder.join("https.cfg"), configuration).unwrap();
    let _proxy = Process::start("https", folder, None, Path::new("haproxy"), |proxy| {
        proxy.args(["-f", "https.cfg"]).env("PATH", format!("{}:/usr/sbin", env::var("PATH").unwrap()));
    });
    let files = [("ca.pem", trusted.1), ("other-ca.pem", authority().1)].map(|(name, text)| {
        let file = folder.join(name);
        fs::write(&file, text).unwrap();
        file.display().to_string()
    });
    let url = format!("https://127.0.0.1:{port}");
    let settings = [("HALLPASS_URL", url.as_str()), ("HALLPASS_CA", files[0].as_str())];
    let mut notes = Notes::begin(&world, "notes", 0, &client, &settings).await;
    notes.wait_until_ready().await;
    let pair = Api::of(&world).register(0, ANN).await;
    assert_eq!(notes.ask(&pair.access).await, 200);
    let settings =
        [("HALLPASS_URL", url.as_str()), ("HALLPASS_CA", files[1].as_str()), ("STARTUP_TIMEOUT", "2")];
    let said = refusal_to_start(&world, &client, &settings).await;
    assert!(said.contains("Hallpass cannot be reached") && said.contains("certificate"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn client_can_disturb_no_instance_and_no_guard_of_another_client() {
    let keys = TempDir::new().unwrap();
    let (world, client) = world_with_client(keys.path()).await;
    let api = Api::of(&world);
    let other = Credentials::of_new_client(&world.instances[0]);
    let notes = Notes::start(&world, "notes", 0, &other).await;
    let http = Client::new();
    let request = |method: Method, path: &str, client: &Credentials| {
        http.request(method, format!("{}{path}", world.instances[0].url))
            .basic_auth(&client.id, Some(&client.secret))
    };
    let members = async || answer(request(Method::GET, "/guard/instances", &client)).await.1;
    let before = members().await;
    assert_eq!(before.as_array().unwrap().len(), 4, "{before}");
    for member in before.as_array().unwrap() {
        let path = format!("/guard/instances/{}", member["id"].as_str().unwrap());
        let facts = json!({ "name": "mine", "facts": member["facts"] });
        let (status, refused) = answer(request(Method::PUT, &path, &client).json(&facts)).await;
        assert_eq!((status.as_u16(), &refused["error"]), (409, &"conflict".into()), "{refused}");
        let deleted = request(Method::DELETE, &path, &client).send().await.unwrap();
        assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    }
    let ids = |members: &Value| -> Vec<Value> {
        members.as_array().unwrap().iter().map(|member| member["id"].clone()).collect()
    };
    assert_eq!(ids(&members().await).len(), ids(&before).len());

    // A guard that conflicts with the instances is not recorded. This one would not.
    let mine = format!("/guard/instances/{}", "A".repeat(22));
    let mut facts: Value = serde_json::from_str(before[0]["facts"].as_str().unwrap()).unwrap();
    facts["shared"]["signs"] = Value::Null;
    let put =
        |facts: &str| request(Method::PUT, &mine, &client).json(&json!({ "name": "mine", "facts": facts }));
    assert_eq!(answer(put(&facts.to_string())).await.0, StatusCode::OK);
    assert_eq!(
        request(Method::DELETE, &mine, &client).send().await.unwrap().status(),
        StatusCode::NO_CONTENT
    );
    let mut conflicting = Vec::new();
    for (pointer, value) in [
        ("/protocol", json!(99)),
        ("/partitions", json!(7)),
        ("/lease_ms", json!(1)),
        ("/shared/equal/HALLPASS_ISSUER", json!("other")),
        ("/shared/accepts", json!([])),
        ("/shared/equal", json!({})),
        ("/shared/signs", json!("a-key-of-mine")),
        ("/shared/signs", facts["shared"]["accepts"][0].clone()),
        ("/buses", json!([])),
        ("/buses/0", json!("another")),
    ] {
        let mut facts = facts.clone();
        *facts.pointer_mut(pointer).unwrap() = value;
        conflicting.push(facts.to_string());
    }
    conflicting.extend(["{}".to_owned(), "not JSON".to_owned()]);
    for facts in conflicting {
        let (status, refused) = answer(put(&facts)).await;
        assert_eq!((status.as_u16(), &refused["error"]), (409, &"conflict".into()), "{facts}: {refused}");
    }
    assert_eq!(ids(&members().await).len(), ids(&before).len());
    let pair = api.register(0, ANN).await;
    assert_eq!(
        (api.me_everywhere(&pair).await, notes.ask(&pair.access).await),
        (vec![StatusCode::OK; 3], 200)
    );

    // A client has a hundred guards at most, and facts have an end.
    let mut added = 0;
    let refused = loop {
        let path = format!("/guard/instances/{}", InstanceId::random());
        let put =
            request(Method::PUT, &path, &client).json(&json!({ "name": "mine", "facts": facts.to_string() }));
        let (status, refused) = answer(put).await;
        if status != 200 {
            break (status.as_u16(), refused["error"].clone());
        }
        added += 1;
    };
    assert_eq!((added, refused), (100, (409, "conflict".into())));
    let long = format!("{}{}", facts, " ".repeat(12_000));
    assert_eq!(answer(put(&long)).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(
        (api.me_everywhere(&pair).await, notes.ask(&pair.access).await),
        (vec![StatusCode::OK; 3], 200)
    );

    // Bad input, and clients that are none.
    for (path, body) in [
        ("/guard/instances/short", json!({ "name": "x", "facts": "{}" })),
        (&mine, json!({ "name": "two\nlines", "facts": before[0]["facts"] })),
        (&mine, json!({ "facts": 1 })),
    ] {
        let (status, refused) = answer(request(Method::PUT, path, &client).json(&body)).await;
        assert_eq!(
            (status.as_u16(), &refused["error"]),
            (400, &"invalid_request".into()),
            "{body}: {refused}"
        );
    }
    let wrong = Credentials { secret: other.secret.clone(), ..client.clone() };
    for (method, path) in [
        (Method::GET, "/guard/settings"),
        (Method::GET, "/guard/instances"),
        (Method::PUT, mine.as_str()),
        (Method::DELETE, mine.as_str()),
        (Method::POST, "/guard/token"),
        (Method::GET, "/guard/revoked_sessions"),
    ] {
        let refused = request(method.clone(), path, &wrong).send().await.unwrap();
        assert_eq!(refused.status(), 401, "{path}");
        let bare = http.request(method.clone(), format!("{}{path}", world.instances[0].url));
        assert_eq!(bare.bearer_auth(&pair.access).send().await.unwrap().status(), 401, "{path}");
    }
    fs::remove_dir_all(keys.path()).unwrap();
}
