//! Rate limits: wrong passwords lead to growing waits, except on known devices. Neither right passwords nor
//! refreshes of one user can exhaust the server for the others.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::RequestBuilder;
use serde_json::{Value, json};
use sqlx::{Connection, Executor, SqliteConnection};
use tokio::time::{self, Instant};

use crate::{support::*, totp::code};

const ANN: &str = "ann@example.com";
const UNLIMITED: u32 = 1_000_000;
/// More attempts than any limit of these tests allows without a wait.
const MANY: u32 = 500;

struct Limits {
    account: u32,
    address: u32,
    device: u32,
}

const NO_LIMITS: Limits = Limits { account: UNLIMITED, address: UNLIMITED, device: UNLIMITED };

async fn server(proxies: &str, limits: Limits) -> (Home, Server) {
    let Limits { account, address, device } = limits;
    let home = Home::with(&format!(
        "[server]\ntrusted_proxies = \"{proxies}\"\n\
         [throttle]\nper_account = {account}\nper_address = {address}\nper_device = {device}\n"
    ));
    let server = home.start().await;
    (home, server)
}

/// A wrong password that comes through a proxy, from one address of many.
fn guess(server: &Server, email: &str, number: u32) -> RequestBuilder {
    server
        .try_login(email, "wrong password")
        .header("x-forwarded-for", Ipv4Addr::from(0xc612_0000 + number).to_string())
}

/// The cookie of a device on which this user has signed in.
async fn known_device(server: &Server, path: &str, email: &str) -> String {
    let body = json!({ "email": email, "password": PASSWORD });
    let response = server.post(path).json(&body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let cookies = response.headers().get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
    let cookie = cookies.into_iter().find(|cookie| cookie.starts_with("hallpass-device-")).unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

/// Makes attempts until one has to wait, and returns how many did not.
async fn refused_after(mut attempt: impl FnMut(u32) -> RequestBuilder) -> u32 {
    for number in 0..MANY {
        match status(attempt(number)).await.as_u16() {
            429 => return number,
            other => assert_eq!(other, 401),
        }
    }
    panic!("none of {MANY} attempts had to wait")
}

#[tokio::test]
async fn attempt_after_the_wait_is_allowed_and_the_next_wait_is_twice_as_long() {
    let (_home, server) = server("", Limits { account: 3, ..NO_LIMITS }).await;
    let (mut let_in, mut was_told_to_wait) = (Vec::new(), false);
    while let_in.len() < 6 {
        let sent = Instant::now();
        let response = server.try_login(ANN, "wrong password").send().await.unwrap();
        if response.status() == 401 {
            let_in.push((sent, Instant::now()));
            was_told_to_wait = false;
            continue;
        }
        assert_eq!(response.status(), 429);
        assert!(!was_told_to_wait, "it came back when it was told");
        was_told_to_wait = true;
        let seconds = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        let answer: Value = response.json().await.unwrap();
        assert_eq!(
            (&answer["error"], &answer["retry_after"]),
            (&json!("too_many_requests"), &json!(seconds))
        );
        time::sleep(Duration::from_secs(seconds)).await;
    }
    // Measured from before one attempt was counted until after the next one was.
    for (attempts, wait) in let_in[2..].windows(2).zip([1, 2, 4]) {
        let apart = attempts[1].1 - attempts[0].0;
        assert!(apart >= Duration::from_secs(wait), "{apart:?} apart instead of {wait} s");
    }
}

#[tokio::test]
async fn right_passwords_are_refunded() {
    let (_home, server) = server("", Limits { account: 3, address: 3, device: 3 }).await;
    server.register(ANN).await;
    for _ in 0..20 {
        server.login(ANN).await;
    }
    let cookie = known_device(&server, "/api/auth/login", ANN).await;
    for _ in 0..20 {
        assert_eq!(status(server.try_login(ANN, PASSWORD).header("cookie", &cookie)).await, 200);
    }
}

#[tokio::test]
async fn infrastructure_errors_do_not_consume_attempts() {
    let (home, server) = server("", Limits { account: 3, address: 3, device: 3 }).await;
    let pair = server.register(ANN).await;
    let cookie = known_device(&server, "/api/auth/login", ANN).await;
    let rename = async |from: &str, to: &str| {
        let url = format!("sqlite://{}", home.database().display());
        let mut database = SqliteConnection::connect(&url).await.unwrap();
        let rename = format!("alter table {from} rename to {to}");
        database.execute(sqlx::AssertSqlSafe(rename)).await.unwrap();
    };
    rename("users", "missing").await;
    let change = json!({ "current": PASSWORD, "new": "another good one" });
    let change = || server.call("/api/account/change_password", &pair.access, change.clone());
    let login = || server.try_login(ANN, PASSWORD);
    for _ in 0..10 {
        for request in [login(), login().header("cookie", &cookie), change()] {
            assert_eq!(status(request).await, 503);
        }
    }
    rename("missing", "users").await;
    for request in [login(), login().header("cookie", &cookie), change()] {
        assert_eq!(status(request).await, 200);
    }
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_have_separate_limits() {
    let (_home, server) = server("127.0.0.1", Limits { address: 3, device: 3, ..NO_LIMITS }).await;
    for number in 0..50 {
        assert_eq!(status(guess(&server, ANN, number)).await, 401);
    }
    // The addresses that a client claims come before the one that the proxy adds.
    let claim = |number: u32| {
        let claimed = format!("{}, 203.0.113.9", Ipv4Addr::from(number));
        server
            .try_login(&format!("{number}@example.com"), "wrong password")
            .header("x-forwarded-for", claimed)
    };
    assert!(refused_after(claim).await >= 3);
}

#[tokio::test]
async fn x_forwarded_for_from_untrusted_peers_is_ignored() {
    for proxies in ["", "10.0.0.0/8"] {
        let (_home, server) = server(proxies, Limits { address: 3, ..NO_LIMITS }).await;
        let attempts = refused_after(|number| guess(&server, &format!("{number}@example.com"), number)).await;
        assert!(attempts >= 3);
    }
    // Nor is the header's address shown to the account's user.
    let (_home, server) = server("", NO_LIMITS).await;
    let pair = server.register(ANN).await;
    let request = server.try_login(ANN, PASSWORD).header("x-forwarded-for", "203.0.113.9");
    assert_eq!(status(request).await, 200);
    for session in server.sessions(&pair.access).await {
        assert_eq!(session["address"], "127.0.0.0/24");
    }
}

#[tokio::test]
async fn attack_on_one_account_from_many_addresses_is_slowed_down() {
    let (_home, server) = server("127.0.0.1", Limits { account: 5, ..NO_LIMITS }).await;
    server.register(ANN).await;
    server.register("bob@example.com").await;
    // The limit is the same whether the account exists or not.
    for email in [ANN, "nobody@example.com"] {
        assert!(refused_after(|number| guess(&server, email, number)).await >= 5, "{email}");
    }
    server.login("bob@example.com").await;
}

#[tokio::test]
async fn owner_can_log_in_on_a_known_device_during_an_attack() {
    let (_home, server) = server("127.0.0.1", Limits { account: 2, device: 3, ..NO_LIMITS }).await;
    let registered = known_device(&server, "/api/auth/register", ANN).await;
    let logged_in = known_device(&server, "/api/auth/login", ANN).await;
    let mut number = 0;
    for cookie in [&registered, &logged_in].repeat(3) {
        // Unknown devices have to wait now.
        refused_after(|_| {
            number += 1;
            guess(&server, ANN, number)
        })
        .await;
        assert_eq!(status(server.try_login(ANN, PASSWORD).header("cookie", cookie)).await, 200);
        assert_eq!(
            status(server.try_login(" Ann@Example.COM ", PASSWORD).header("cookie", cookie)).await,
            200
        );
    }
}

#[tokio::test]
async fn invalid_device_cookies_give_no_extra_attempts() {
    let (_home, server) = server("127.0.0.1", Limits { account: 2, ..NO_LIMITS }).await;
    let anns = known_device(&server, "/api/auth/register", ANN).await;
    let bobs = known_device(&server, "/api/auth/register", "bob@example.com").await;
    let (id, tag) = anns.split_once('.').unwrap();
    let (other_id, other_tag) = bobs.split_once('.').unwrap();
    for cookie in [
        bobs.clone(),
        format!("{id}.{other_tag}"),
        format!("{other_id}.{tag}"),
        id.to_owned(),
        format!("{id}."),
        format!("{id}.{}", &tag[..tag.len() - 2]),
        format!("{anns}."),
        format!("hallpass-device={}", "x".repeat(5000)),
        "hallpass-device=".to_owned(),
    ] {
        let attempts = refused_after(|number| guess(&server, ANN, number).header("cookie", &cookie)).await;
        // A known device would have 100 attempts.
        assert!(attempts < 50, "{cookie}: {attempts}");
    }
}

#[tokio::test]
async fn stolen_device_cookie_does_not_slow_down_other_devices() {
    let (_home, server) = server("", Limits { account: 2, device: 3, ..NO_LIMITS }).await;
    let stolen = known_device(&server, "/api/auth/register", ANN).await;
    let other = known_device(&server, "/api/auth/login", ANN).await;
    let attempts = refused_after(|_| server.try_login(ANN, "wrong password").header("cookie", &stolen)).await;
    assert!(attempts >= 3);
    assert_eq!(status(server.try_login(ANN, PASSWORD).header("cookie", &other)).await, 200);
    // Devices without a cookie are not slowed down either.
    assert_eq!(status(server.try_login(ANN, PASSWORD)).await, 200);
}

/// A browser in which a factor was added stays known, although a new factor counts as a change of the password.
#[tokio::test]
async fn browser_in_which_a_factor_was_added_stays_known() {
    let (_home, server) = server("", Limits { account: 2, device: 3, ..NO_LIMITS }).await;
    let browser = browser();
    let post = |path: &str, body: Value| browser.post(format!("{}{path}", server.url)).json(&body);
    let credentials = json!({ "email": ANN, "password": PASSWORD });
    let (_, tokens) = answer(post("/api/auth/register", credentials.clone())).await;
    let bearer = tokens["access_token"].as_str().unwrap();
    let (_, begun) = answer(post("/api/account/begin_totp", json!({})).bearer_auth(bearer)).await;
    let secret = begun["secret"].as_str().unwrap();
    let body = json!({ "code": code(secret, 0) });
    assert_eq!(status(post("/api/account/add_totp", body).bearer_auth(bearer)).await, 200);
    while status(server.try_login(ANN, "wrong password")).await != 429 {}
    assert_eq!(status(post("/api/auth/login", credentials)).await, 403, "the code is asked for, and no wait");
}

#[tokio::test]
async fn device_cookie_is_httponly_and_only_for_browsers() {
    let (_home, server) = server("", NO_LIMITS).await;
    let body = json!({ "email": ANN, "password": PASSWORD });
    let response = server.post("/api/auth/register").json(&body).send().await.unwrap();
    let mut cookies = response.headers().get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
    let cookie = cookies.find(|cookie| cookie.starts_with("hallpass-device-")).unwrap();
    let (name, secret) = cookie.split(';').next().unwrap().split_once('=').unwrap();
    let (_, service) = name.split_once("device-").unwrap();
    assert_eq!(
        cookie.replace(secret, "SECRET").replace(service, "SERVICE"),
        "hallpass-device-SERVICE=SECRET; HttpOnly; SameSite=Strict; Path=/; Max-Age=15552000"
    );
    let program = server.try_login(ANN, PASSWORD).send().await.unwrap();
    assert!(program.headers().get("set-cookie").is_none());
    // The device cookie is not a credential.
    let cookie = format!("hallpass-device={secret}");
    for path in ["/api/account/me", "/api/auth/refresh", "/api/auth/logout"] {
        assert_eq!(status(server.post(path).header("cookie", &cookie)).await, 401, "{path}");
    }
    let wrong = server.try_login(ANN, "wrong password").header("cookie", cookie);
    assert_eq!(status(wrong).await, 401);
}

/// The value of the device cookie that the response sets.
fn device_cookie(response: &reqwest::Response) -> String {
    let cookies = response.headers().get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
    let cookie = cookies.into_iter().find(|cookie| cookie.starts_with("hallpass-device-")).unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn known_device_does_not_wait_for_wrong_attempts_from_its_address() {
    let (_home, server) = server("", Limits { address: 3, ..NO_LIMITS }).await;
    let known = known_device(&server, "/api/auth/register", ANN).await;
    for round in 0..3 {
        let others = refused_after(|number| {
            server.try_login(&format!("{round}-{number}@example.com"), "wrong password")
        });
        others.await;
        assert_eq!(status(server.try_login(ANN, PASSWORD).header("cookie", &known)).await, 200);
    }
}

#[tokio::test]
async fn shared_browser_is_known_to_each_account() {
    let (_home, server) = server("127.0.0.1", Limits { account: 2, ..NO_LIMITS }).await;
    let browser = browser();
    let people: Vec<_> = (0..5).map(|number| format!("user{number}@example.com")).collect();
    let post = async |path: &str, email: &str| {
        let body = json!({ "email": email, "password": PASSWORD });
        status(browser.post(format!("{}{path}", server.url)).json(&body)).await
    };
    for email in &people {
        assert_eq!(post("/api/auth/register", email).await, 200);
    }
    for _ in 0..2 {
        for email in &people {
            // Unknown devices have to wait now.
            refused_after(|number| guess(&server, email, number)).await;
            assert_eq!(post("/api/auth/login", email).await, 200, "{email}");
        }
    }
}

#[tokio::test]
async fn password_change_invalidates_the_device_cookies_of_other_browsers() {
    const NEW: &str = "staple battery horse";
    let (_home, server) = server("127.0.0.1", Limits { account: 2, ..NO_LIMITS }).await;
    let mine = known_device(&server, "/api/auth/register", ANN).await;
    let mut old = Vec::new();
    for _ in 0..5 {
        old.push(known_device(&server, "/api/auth/login", ANN).await);
    }
    let pair = server.login(ANN).await;
    let change = json!({ "current": PASSWORD, "new": NEW });
    let change = server.call("/api/account/change_password", &pair.access, change).header("cookie", &mine);
    let changed = change.send().await.unwrap();
    assert_eq!(changed.status(), 200);
    let new = device_cookie(&changed);
    for cookie in old.iter().chain([&mine]) {
        // The old cookies give no attempts of their own, only those of unknown devices.
        refused_after(|number| guess(&server, ANN, number)).await;
        let attempts = refused_after(|number| guess(&server, ANN, number).header("cookie", cookie)).await;
        assert!(attempts < 50, "{attempts}");
        assert_eq!(status(server.try_login(ANN, NEW).header("cookie", &new)).await, 200);
    }
}

#[tokio::test]
async fn session_that_refreshes_in_a_loop_gets_429_and_keeps_its_cookie() {
    let (_home, server) = server("", NO_LIMITS).await;
    let browser = browser();
    let post = |path: &str| browser.post(format!("{}{path}", server.url));
    let body = json!({ "email": ANN, "password": PASSWORD });
    let (_, tokens) = answer(post("/api/auth/register").json(&body)).await;
    let mut access = tokens["access_token"].as_str().unwrap().to_owned();
    let mut allowed = 0;
    let refused = loop {
        let response = post("/api/auth/refresh").send().await.unwrap();
        if response.status() == 429 {
            break response;
        }
        assert_eq!(response.status(), 200);
        let tokens: Value = response.json().await.unwrap();
        access = tokens["access_token"].as_str().unwrap().to_owned();
        allowed += 1;
        assert!(allowed < 10_000, "no refresh had to wait");
    };
    assert!(allowed >= 30, "{allowed}");
    assert!(refused.headers().get("set-cookie").is_none(), "the cookie is kept");
    let wait = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(refused.json::<Value>().await.unwrap()["error"], "too_many_requests");
    // The session is still live, and other sessions do not wait.
    assert_eq!(status(server.me(&access)).await, 200);
    let other = server.login(ANN).await;
    assert_eq!(status(server.refresh(&other.refresh)).await, 200);
    time::sleep(Duration::from_secs(wait)).await;
    assert_eq!(status(post("/api/auth/refresh")).await, 200);
}

/// A browser with many tabs refreshes concurrently, and again because the responses were lost.
#[tokio::test]
async fn concurrent_and_repeated_refreshes_are_not_limited() {
    let (_home, server) = server("", NO_LIMITS).await;
    let pair = server.register(ANN).await;
    for _again in 0..2 {
        let tabs = (0..10).map(|_| status(server.refresh(&pair.refresh)));
        for status in futures::future::join_all(tabs).await {
            assert_eq!(status, 200);
        }
    }
}

#[tokio::test]
async fn right_logins_of_one_account_are_limited_without_delaying_others() {
    let home = Home::with("[throttle]\nper_account = 100\n");
    let auth = auth(&home, NOW).await;
    for email in [ANN, "bob@example.com"] {
        auth.register(email, PASSWORD.into(), &caller(), NOW).await.unwrap();
    }
    let login = async |email| auth.login(email, (PASSWORD.into(), ""), &caller(), None, NOW).await;
    let mut allowed = 0;
    while login(ANN).await.is_ok() {
        allowed += 1;
        assert!(allowed < 10_000, "no login had to wait");
    }
    assert!(allowed >= 300, "{allowed}");
    assert!(login("bob@example.com").await.is_ok());
}

/// A few users with valid passwords log in all the time from two addresses, and fill the password queue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flood_of_right_logins_does_not_starve_other_users() {
    // Hashing has to take longer than all else that a login does: only then is the queue full. On a busy machine
    // that may be long.
    let home = Home::with(
        "[server]\ntrusted_proxies = \"127.0.0.1\"\nrequest_timeout_seconds = 600\n\
         [password]\nmemory_kib = 65536\niterations = 1\nworkers = 1\nqueue = 4\n",
    );
    let server = Arc::new(home.start().await);
    let attackers: Vec<_> = (0..4).map(|number| format!("mallory{number}@example.com")).collect();
    for email in attackers.iter().map(String::as_str).chain([ANN]) {
        server.register(email).await;
    }
    let (refused, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let crowd: Vec<_> = (0..32)
        .map(|number| {
            let (server, email) = (Arc::clone(&server), attackers[number % 4].clone());
            let (refused, is_over) = (Arc::clone(&refused), Arc::clone(&is_over));
            tokio::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    let address = format!("192.0.2.{}", number / 4 % 2);
                    let login = server.try_login(&email, PASSWORD).header("x-forwarded-for", address);
                    if status(login).await == 503 {
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    for round in 1..=10 {
        while refused.load(Ordering::Relaxed) < round * 10 {
            time::sleep(Duration::from_millis(10)).await;
        }
        let login = server.try_login(ANN, PASSWORD).header("x-forwarded-for", "198.51.100.1");
        assert_eq!(status(login).await, 200, "round {round}");
    }
    is_over.store(true, Ordering::Relaxed);
    for caller in crowd {
        caller.await.unwrap();
    }
}
