//! Foreign data in a request: cookies of other services on the same host, and headers that proxies write.

use std::fs;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::json;
use sqlx::{Connection, Executor, SqliteConnection};

use crate::support::*;

const ANN: &str = "ann@example.com";

/// Signs in as a browser and returns the cookie with the refresh token, and the token itself.
async fn signed_in(server: &Server, email: &str) -> (String, String) {
    let form = [("email", email), ("password", PASSWORD)];
    let mut response = server.post("/api/auth/login").form(&form).send().await.unwrap();
    if response.status() == 401 {
        response = server.post("/api/auth/register").form(&form).send().await.unwrap();
    }
    assert_eq!(response.status(), 200);
    let cookie =
        set_cookies(&response).into_iter().find(|cookie| cookie.contains("hallpass-refresh")).unwrap();
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let token = cookie.split_once('=').unwrap().1.to_owned();
    (cookie, token)
}

fn set_cookies(response: &Response) -> Vec<String> {
    let cookies = response.headers().get_all("set-cookie").iter();
    cookies.map(|value| value.to_str().unwrap().to_owned()).collect()
}

/// The names of the cookies that a response removes, without those of the ids of the sessions, which go with them.
fn cleared(response: &Response) -> Vec<String> {
    let cookies = set_cookies(response).into_iter().filter(|cookie| cookie.contains("Max-Age=0"));
    let names = cookies.map(|cookie| cookie.split('=').next().unwrap().to_owned());
    let (ids, names): (Vec<_>, Vec<_>) = names.partition(|name| name.contains("hallpass-session-id"));
    for name in names.iter().filter(|name| name.contains("hallpass-refresh")) {
        assert!(ids.contains(&name.replace("refresh", "session-id")), "{ids:?}");
    }
    names
}

fn with_cookies(request: RequestBuilder, cookies: &[&[u8]]) -> RequestBuilder {
    cookies.iter().fold(request, |request, value| {
        request.header("cookie", reqwest::header::HeaderValue::from_bytes(value).unwrap())
    })
}

async fn is_drawn_signed_in(server: &Server, cookies: &[&[u8]]) -> bool {
    let request = with_cookies(server.get("/").header("accept", "text/html"), cookies);
    let page = request.send().await.unwrap().text().await.unwrap();
    assert_ne!(page.contains(">Sign out<"), page.contains(">Create account<"), "{page}");
    page.contains(">Sign out<")
}

#[tokio::test]
async fn foreign_cookies_do_not_hide_the_refresh_cookie() {
    let home = Home::new();
    let server = home.start().await;
    signed_in(&server, ANN).await;
    let many = "a=b; ".repeat(300);
    let before: [&[u8]; 7] = [
        b"who=Ren\xc3\xa9e; ",
        b"\xff\xfe=\x80\xe9; ",
        b"noequals; =; ;; ",
        b"a=\"unclosed; ",
        b"hallpass-refresh=; ",
        b"hallpass-refresh=junk\xff; ",
        many.as_bytes(),
    ];
    for foreign in before {
        for name in ["", "hallpass-refresh="] {
            let (cookie, token) = signed_in(&server, ANN).await;
            // Under the current name, and under the name that earlier versions used.
            let ours = if name.is_empty() { cookie } else { format!("{name}{token}") };
            let one = [foreign, ours.as_bytes(), b"; x=\xe9"].concat();
            for cookies in [&[&one[..]][..], &[foreign, ours.as_bytes(), b"\xe9=\xe9"]] {
                let case = String::from_utf8_lossy(&cookies.concat()).into_owned();
                assert!(is_drawn_signed_in(&server, cookies).await, "{case}");
                let events = with_cookies(server.get("/api/session/events"), cookies).send().await.unwrap();
                assert_eq!(events.status(), 200, "{case}");
            }
            // The logout has nothing but the cookie to identify the session.
            let logout = with_cookies(server.post("/api/auth/logout"), &[&one]);
            assert_eq!(status(logout).await, 200, "{}", String::from_utf8_lossy(&one));
            assert_eq!(status(server.refresh(&token)).await, 401);
        }
        let (cookie, _) = signed_in(&server, ANN).await;
        let refresh = server.post("/api/auth/refresh");
        assert_eq!(status(with_cookies(refresh, &[foreign, cookie.as_bytes()])).await, 200);
    }
}

#[tokio::test]
async fn every_cookie_of_the_same_name_is_tried() {
    let home = Home::with("[token]\nrefresh_grace_seconds = 60\n");
    let server = home.start().await;
    let (dead, dead_token) = signed_in(&server, ANN).await;
    let logout = server.post("/api/auth/logout").header("cookie", &dead);
    assert_eq!(status(logout).await, 200);
    let (first, first_token) = signed_in(&server, ANN).await;
    let name = first.split('=').next().unwrap();
    let (_, next) = answer(server.refresh(&first_token)).await;
    let next = next["refresh_token"].as_str().unwrap();
    let (_, last) = answer(server.refresh(next)).await;
    let last = last["refresh_token"].as_str().unwrap();
    // A used token next to the latest one of the same session is a leftover, not a sign of theft.
    for cookies in [
        format!("{name}={dead_token}; {name}=junk; {name}={last}"),
        format!("{name}={first_token}; {name}={last}; {name}={next}"),
        format!("{name}={last}; hallpass-refresh={first_token}"),
    ] {
        assert!(is_drawn_signed_in(&server, &[cookies.as_bytes()]).await, "{cookies}");
        let response = server.post("/api/auth/refresh").header("cookie", &cookies).send().await.unwrap();
        assert_eq!(response.status(), 200, "{cookies}");
    }
    // Logout revokes the session of each cookie.
    let (other, other_token) = signed_in(&server, ANN).await;
    let both = format!("{name}={last}; {other}");
    assert_eq!(status(server.post("/api/auth/logout").header("cookie", both)).await, 200);
    for token in [last, &other_token] {
        assert_eq!(status(server.refresh(token)).await, 401);
    }
}

/// Browsers do not separate cookies by port.
#[tokio::test]
async fn services_on_the_same_host_do_not_touch_each_others_cookies() {
    let other_key = format!("[token]\nsigning_key = \"{}\"\n", BASE64.encode(OTHER_KEY));
    for https in ["", "[server]\nhttps = true\n"] {
        let homes = [Home::with(https), Home::with(&format!("{other_key}{https}"))];
        let servers = [homes[0].start().await, homes[1].start().await];
        let mut jar = Vec::new();
        for server in &servers {
            jar.push(signed_in(server, ANN).await.0);
        }
        let names: Vec<_> = jar.iter().map(|cookie| cookie.split('=').next().unwrap().to_owned()).collect();
        assert_ne!(names[0], names[1]);
        let all = jar.join("; ");
        for server in &servers {
            assert!(is_drawn_signed_in(server, &[all.as_bytes()]).await);
        }
        // The second service is logged out, then gets requests that still carry the first one's cookie.
        for path in ["/api/auth/logout", "/api/auth/refresh", "/api/auth/logout"] {
            let response = servers[1].post(path).header("cookie", &all).send().await.unwrap();
            assert!(!cleared(&response).contains(&names[0]), "{path}: {:?}", set_cookies(&response));
        }
        let alone = servers[1].post("/api/auth/refresh").header("cookie", &jar[0]).send().await.unwrap();
        assert_eq!((alone.status().as_u16(), set_cookies(&alone).len()), (401, 0));
        assert!(is_drawn_signed_in(&servers[0], &[all.as_bytes()]).await);
        let still = servers[0].post("/api/auth/refresh").header("cookie", &all);
        assert_eq!(status(still).await, 200);
    }
}

#[tokio::test]
async fn foreign_token_under_the_old_cookie_name_is_kept_and_junk_is_cleared() {
    let other = Home::with(&format!("[token]\nsigning_key = \"{}\"\n", BASE64.encode(OTHER_KEY)));
    let other = other.start().await;
    let (_, foreign) = signed_in(&other, ANN).await;
    let home = Home::new();
    let server = home.start().await;
    let (cookie, token) = signed_in(&server, ANN).await;
    let name = cookie.split('=').next().unwrap();
    let ask = async |path: &str, cookie: &str| {
        let response = server.post(path).header("cookie", cookie).send().await.unwrap();
        (response.status().as_u16(), cleared(&response))
    };
    let old = "hallpass-refresh".to_owned();
    for path in ["/api/auth/logout", "/api/auth/refresh"] {
        assert_eq!(ask(path, &format!("{old}={foreign}")).await, (401, vec![]), "{path}");
        for junk in ["forged", "a.1.b", ""] {
            assert_eq!(ask(path, &format!("{old}={junk}")).await, (401, vec![old.clone()]), "{path} {junk}");
        }
        let tampered = format!("{}AAAA", &token[..token.len() - 4]);
        assert_eq!(ask(path, &format!("{name}={tampered}")).await, (401, vec![name.to_owned()]), "{path}");
        // The session of the own cookie has ended; the foreign cookie stays untouched.
        let (_, cleared) = ask(path, &format!("{old}={foreign}; {cookie}")).await;
        assert!(!cleared.contains(&old), "{path}: {cleared:?}");
    }
}

#[tokio::test]
async fn session_survives_the_new_cookie_name_after_an_upgrade_or_a_key_change() {
    let home = Home::new();
    let server = home.start().await;
    let (cookie, token) = signed_in(&server, ANN).await;
    let name = cookie.split('=').next().unwrap().to_owned();
    let old = format!("hallpass-refresh={token}");
    assert!(is_drawn_signed_in(&server, &[old.as_bytes()]).await);
    let response = server.post("/api/auth/refresh").header("cookie", old).send().await.unwrap();
    assert_eq!(cleared(&response), ["hallpass-refresh"]);
    let cookie = set_cookies(&response).into_iter().find(|cookie| cookie.starts_with(&name)).unwrap();
    let cookie = cookie.split(';').next().unwrap().to_owned();
    server.stop().await;

    let settings = home.path().join("Leptos.toml");
    let text = fs::read_to_string(&settings).unwrap();
    let keys = format!("signing_key = \"{}\"\nprevious_signing_key", BASE64.encode(OTHER_KEY));
    fs::write(&settings, text.replace("signing_key", &keys)).unwrap();
    let server = home.start().await;
    assert!(is_drawn_signed_in(&server, &[cookie.as_bytes()]).await);
    let pending = format!("{}=true", name.replace("refresh", "logout-pending"));
    assert!(!is_drawn_signed_in(&server, &[cookie.as_bytes(), pending.as_bytes()]).await);
    let response = server.post("/api/auth/refresh").header("cookie", cookie).send().await.unwrap();
    assert_eq!((response.status().as_u16(), cleared(&response)), (200, vec![name.clone()]));
    let next = set_cookies(&response).into_iter().find(|cookie| !cookie.contains("Max-Age=0")).unwrap();
    assert!(next.starts_with("hallpass-refresh-") && !next.starts_with(&name), "{next}");
}

#[tokio::test]
async fn pending_logout_cookie_is_honored_and_cleared_under_every_name() {
    for settings in ["", "[server]\nhttps = true\n"] {
        let home = Home::with(settings);
        let server = home.start().await;
        let (cookie, _) = signed_in(&server, ANN).await;
        let page =
            with_cookies(server.get("/"), &[cookie.as_bytes()]).send().await.unwrap().text().await.unwrap();
        // The script reads the names of the cookies from this attribute.
        let services = page.split("data-services=\"").nth(1).unwrap().split('"').next().unwrap();
        let service = services.split(' ').next().unwrap();
        assert!(cookie.contains(&format!("hallpass-refresh-{service}=")), "{services}");
        for service in services.split(' ') {
            for prefix in ["", "__Host-"] {
                let name = match service {
                    "" => format!("{prefix}hallpass-logout-pending"),
                    service => format!("{prefix}hallpass-logout-pending-{service}"),
                };
                let (cookie, _) = signed_in(&server, ANN).await;
                let cookies = format!("{name}=true; {cookie}");
                assert!(!is_drawn_signed_in(&server, &[cookies.as_bytes()]).await, "{name}");
                let response =
                    server.post("/api/auth/logout").header("cookie", cookies).send().await.unwrap();
                assert_eq!(response.status(), 200);
                let settled =
                    set_cookies(&response).into_iter().find(|cookie| cookie.starts_with(&name)).unwrap();
                assert!(settled.contains("Max-Age=0"), "{settled}");
                assert_eq!(settled.contains("Secure"), !prefix.is_empty(), "{settled}");
            }
        }
        // The cookie of another service has no effect.
        let (cookie, _) = signed_in(&server, ANN).await;
        let foreign = b"hallpass-logout-pending-AAAAAAAA=true";
        assert!(is_drawn_signed_in(&server, &[foreign, cookie.as_bytes()]).await);
    }
}

async fn login_with(server: &Process, headers: &[(&str, &str)]) -> Response {
    let headers =
        headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    server.try_login(ANN, PASSWORD).headers(headers).send().await.unwrap()
}

#[tokio::test]
async fn cross_origin_refusal_logs_both_origins_and_the_setting_to_change() {
    let home = Home::new();
    let server = home.spawn();
    server.register(ANN).await;
    let refused =
        login_with(&server, &[("origin", "https://id.example.com"), ("host", "upstream:8000")]).await;
    assert_eq!(refused.status(), 403);
    let line = server.wait_for_log("refused a request");
    for part in ["https://id.example.com", "upstream:8000", "HALLPASS_PUBLIC_URL"] {
        assert!(line.contains(part), "{line}");
    }
    let default_port = [("origin", "https://id.example.com"), ("host", "id.example.com:443")];
    assert_eq!(login_with(&server, &default_port).await.status(), 200);
    drop(server);
    let server = Process::start(home.command().env("HALLPASS_PUBLIC_URL", "https://id.example.com"));
    let rewritten = [("origin", "https://id.example.com"), ("host", "upstream:8000")];
    assert_eq!(login_with(&server, &rewritten).await.status(), 200);
    assert_eq!(
        login_with(&server, &[("origin", "https://evil.test"), ("host", "upstream:8000")]).await.status(),
        403
    );
}

#[tokio::test]
async fn missing_https_or_proxy_setting_is_warned_about_once() {
    let home = Home::new();
    for headers in [
        &[("x-forwarded-proto", "https")][..],
        &[("origin", "https://id.example.com"), ("host", "id.example.com")],
    ] {
        let mut server = home.spawn();
        for _ in 0..3 {
            login_with(&server, headers).await;
        }
        server.wait_for_log("set HALLPASS_HTTPS=true");
        server.signal("TERM");
        let rest = server.rest_of_log();
        assert!(!rest.contains("HALLPASS_HTTPS"), "{rest}");
    }
    let mut server = home.spawn();
    login_with(&server, &[("x-forwarded-proto", "http"), ("origin", &server.url)]).await;
    server.signal("TERM");
    let rest = server.rest_of_log();
    assert!(!rest.contains("HALLPASS_HTTPS"), "{rest}");

    let server = Process::start(home.command().env("HALLPASS_HTTPS", "true"));
    login_with(&server, &[("origin", "http://id.example.com"), ("host", "id.example.com")]).await;
    server.wait_for_log("HALLPASS_HTTPS is true, but a browser came by plain http");
    drop(server);

    let mut server = home.spawn();
    for _ in 0..3 {
        login_with(&server, &[("x-forwarded-for", "198.51.100.7")]).await;
    }
    assert!(
        server.wait_for_log("ignored X-Forwarded-For from 127.0.0.1").contains("HALLPASS_TRUSTED_PROXIES")
    );
    server.signal("TERM");
    assert!(!server.rest_of_log().contains("X-Forwarded-For"));
}

#[tokio::test]
async fn forwarded_addresses_are_parsed_in_every_common_form() {
    let home = Home::with("[server]\ntrusted_proxies = \"127.0.0.1\"\n");
    let server = home.start().await;
    server.register(ANN).await;
    for (forwarded, network) in [
        ("198.51.100.7:51234", "198.51.100.0/24"),
        ("[2001:db8:1::9]:443", "2001:db8:1::/48"),
        ("\"[2001:db8:1::9]\"", "2001:db8:1::/48"),
        ("8.8.8.8, ::ffff:198.51.100.7 ,", "198.51.100.0/24"),
        ("8.8.8.8, unknown", "127.0.0.0/24"),
    ] {
        let login = server.try_login(ANN, PASSWORD).header("x-forwarded-for", forwarded);
        let (_, pair) = answer(login).await;
        let access = Pair::of(&pair).access;
        let sessions = server.sessions(&access).await;
        let current = sessions.iter().find(|session| session["is_current"] == true).unwrap();
        assert_eq!(current["address"], network, "{current}");
    }
}

async fn execute(home: &Home, statement: &'static str) {
    let url = format!("sqlite://{}", home.database().display());
    let mut database = SqliteConnection::connect(&url).await.unwrap();
    database.execute(statement).await.unwrap();
}

#[tokio::test]
async fn email_with_an_international_domain_is_one_account_in_every_spelling() {
    const UNICODE: &str = "ann@b\u{fc}cher.example";
    const ASCII: &str = "ann@xn--bcher-kva.example";
    let home = Home::new();
    let server = home.start().await;
    let register = async |email: &str| {
        let body = json!({ "email": email, "password": PASSWORD });
        status(server.post("/api/auth/register").json(&body)).await.as_u16()
    };
    for (one, other) in [(ASCII, UNICODE), ("bob@b\u{fc}cher.example", "BOB@XN--BCHER-KVA.example")] {
        server.register(one).await;
        server.login(other).await;
        assert_eq!(register(other).await, 409);
    }
    // The lower-case j with a caron has a composed form, the upper-case one has none.
    server.register("J\u{30c}an@example.com").await;
    assert_eq!(register("\u{1f0}an@example.com").await, 409);
    server.stop().await;

    // The address as an earlier version stored it.
    execute(&home, "update users set email = 'ann@xn--bcher-kva.example' where email like 'ann@%'").await;
    let server = home.start().await;
    server.login(UNICODE).await;
    server.login(ASCII).await;
    let body = json!({ "email": ASCII, "password": PASSWORD });
    assert_eq!(status(server.post("/api/auth/register").json(&body)).await, 409);
    server.stop().await;
    for spelling in [UNICODE, ASCII] {
        let (output, text) = run(home.command().args(["user", "disable", spelling]));
        assert!(output.status.success(), "{text}");
    }
    // Earlier versions allowed two accounts here; each is found by its own spelling.
    execute(
        &home,
        "insert into users (id, email, password_hash, created_at) values ('AAAAAAAAAAAAAAAAAAAAAA', 'ann@b\u{fc}cher.example', 'x', 0)",
    )
    .await;
    for spelling in [UNICODE, ASCII] {
        let (_, text) = run(home.command().args(["user", "enable", spelling]));
        assert!(text.contains(&format!("enabled {spelling}")), "{text}");
    }
}

#[tokio::test]
async fn nul_characters_are_refused_with_the_name_of_the_field() {
    let home = Home::new();
    home.add_administrator("root@example.com");
    let server = home.start().await;
    let root = server.login("root@example.com").await;
    let nul = "a\0b";
    for (path, field, expected) in [
        ("/api/admin/users", "search", 422),
        ("/api/admin/users", "after", 422),
        ("/api/admin/sessions", "user_id", 404),
        ("/api/admin/disable_user", "user_id", 404),
        ("/api/account/revoke_session", "session_id", 404),
        ("/api/auth/refresh", "refresh_token", 401),
    ] {
        let (found, answer) = answer(server.call(path, &root.access, json!({ field: nul }))).await;
        assert_eq!(found, expected, "{path} {field}: {answer}");
        if expected == 422 {
            assert!(answer["fields"][field].is_string(), "{answer}");
        }
    }
    for path in ["/api/auth/login", "/api/auth/register"] {
        for (email, password, expected) in [("a\0@example.com", PASSWORD, 422), (ANN, "wrong\0password", 0)] {
            let found = status(server.post(path).form(&[("email", email), ("password", password)])).await;
            assert!(found != 503 && (expected == 0 || found == expected), "{path} {email:?}: {found}");
        }
    }
    let client =
        Client::builder().user_agent(reqwest::header::HeaderValue::from_bytes(b"\xff\xfe\xe9").unwrap());
    let client = client.build().unwrap();
    let login = json!({ "email": "root@example.com", "password": PASSWORD });
    assert_eq!(status(client.post(format!("{}/api/auth/login", server.url)).json(&login)).await, 200);
}
