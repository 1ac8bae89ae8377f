//! Login and registration: successful requests, and the errors of the others.

use std::time::Instant;

use crate::support::*;
use serde_json::{Value, json};

#[tokio::test]
async fn user_can_register_log_in_and_read_the_account() {
    let home = Home::new();
    let server = home.start().await;
    let registered = server.register("Ann@Example.com").await;
    let logged_in = server.login(" ann@example.COM ").await;
    assert_ne!(registered.session, logged_in.session);
    for pair in [&registered, &logged_in] {
        let (status, me) = answer(server.me(&pair.access)).await;
        assert_eq!(status, 200);
        assert_eq!(me["email"], "ann@example.com");
        assert_eq!(me["sid"], pair.session.as_str());
    }
    let (header, claims) = parts(&logged_in.access);
    let header: Value = serde_json::from_str(&header).unwrap();
    assert_eq!((&header["typ"], &header["alg"]), (&json!("at+jwt"), &json!("HS256")));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 300);
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!("hallpass"), &json!("hallpass")));
}

#[tokio::test]
async fn browser_gets_the_refresh_token_in_an_httponly_cookie() {
    for (settings, expected) in [
        ("", "hallpass-refresh-SERVICE=SECRET; HttpOnly; SameSite=Strict; Path=/; Max-Age=604800"),
        (
            "[server]\nhttps = true\n",
            "__Host-hallpass-refresh-SERVICE=SECRET; HttpOnly; SameSite=Strict; Secure; Path=/; Max-Age=604800",
        ),
    ] {
        let home = Home::with(settings);
        let server = home.start().await;
        let form = [("email", "ann@example.com"), ("password", PASSWORD)];
        let response = server.post("/api/auth/register").form(&form).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let cookie = response.headers()["set-cookie"].to_str().unwrap().to_owned();
        let (name, secret) = cookie.split(';').next().unwrap().split_once('=').unwrap();
        let (_, service) = name.split_once("refresh-").unwrap();
        assert_eq!(cookie.replace(secret, "SECRET").replace(service, "SERVICE"), expected);
        assert_eq!(response.headers()["cache-control"], "no-store");
        // By this one scripts see that the browser has kept the other.
        let session_id =
            response.headers().get_all("set-cookie").iter().nth(1).unwrap().to_str().unwrap().to_owned();
        let answer: Value = response.json().await.unwrap();
        let id = answer["session_id"].as_str().unwrap();
        let expected = expected.replace("refresh", "session-id").replace(" HttpOnly;", "");
        let expected = expected.replace("SECRET", id).replace("SameSite=Strict", "SameSite=Lax");
        assert_eq!(session_id.replace(service, "SERVICE"), expected);
        assert_eq!((&answer["token_type"], &answer["expires_in"]), (&json!("Bearer"), &json!(300)));
        assert!(answer.get("refresh_token").is_none());
        assert!(answer["server_time"].as_i64().unwrap() > 1_700_000_000);
    }
}

#[tokio::test]
async fn unknown_user_and_wrong_password_get_the_same_response() {
    let home = Home::new();
    let server = home.start().await;
    server.register("ann@example.com").await;
    let mut answers = Vec::new();
    for (email, password) in [
        ("ann@example.com", "wrong password"),
        ("bob@example.com", PASSWORD),
        ("ann@example.com", &"x".repeat(10_000)),
        ("bob@example.com", &"x".repeat(10_000)),
    ] {
        let response = server.try_login(email, password).send().await.unwrap();
        assert_eq!(response.status(), 401);
        let headers: Vec<_> = response
            .headers()
            .iter()
            .filter(|(name, _)| *name != "date")
            .map(|(name, value)| format!("{name}: {value:?}"))
            .collect();
        answers.push((headers, response.text().await.unwrap()));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    assert!(answers[0].1.contains("\"invalid_grant\""));
}

/// A hash takes about 20 ms here and everything else together less than 1 ms: without the hash, the times
/// would differ by much more than the factor that this test allows.
#[tokio::test]
async fn unknown_user_takes_as_long_as_a_wrong_password() {
    let home = Home::with("[password]\nworkers = 1\n");
    let server = home.start().await;
    server.register("ann@example.com").await;
    let mut shortest = [f64::INFINITY; 2];
    // The shortest times: other work on the machine can only make a request slower, and ends at some time.
    for round in 0..100 {
        for (shortest, email) in shortest.iter_mut().zip(["ann@example.com", "bob@example.com"]) {
            let start = Instant::now();
            assert_eq!(status(server.try_login(email, "wrong password")).await, 401);
            *shortest = start.elapsed().as_secs_f64().min(*shortest);
        }
        if round >= 10 && (0.5..2.0).contains(&(shortest[1] / shortest[0])) {
            return;
        }
    }
    panic!("seconds for a wrong password and for an unknown user: {shortest:?}");
}

#[tokio::test]
async fn invalid_fields_are_named() {
    let home = Home::new();
    let server = home.start().await;
    let long_email = format!("{}@example.com", "a".repeat(243));
    let cases = [
        ("", PASSWORD, "email"),
        ("", "short", "email"),
        ("", "short", "password"),
        ("not an address", PASSWORD, "email"),
        (&long_email, PASSWORD, "email"),
        (&"e".repeat(10_000), PASSWORD, "email"),
        ("ann@example.com", "", "password"),
        ("ann@example.com", "short", "password"),
        ("ann@example.com", "password1", "password"),
        ("ann@example.com", &"p".repeat(10_000), "password"),
    ];
    for (email, password, field) in cases {
        let body = json!({ "email": email, "password": password });
        let (status, answer) = answer(server.post("/api/auth/register").json(&body)).await;
        assert_eq!(status, 422, "{email} {password}: {answer}");
        assert_eq!(answer["error"], "invalid_fields");
        assert!(answer["fields"][field].is_string(), "{answer}");
    }
    for (email, password) in [("", PASSWORD), ("ann@example.com", ""), (&long_email, PASSWORD)] {
        assert_eq!(status(server.try_login(email, password)).await, 422);
    }
}

#[tokio::test]
async fn emails_are_compared_without_case_and_unicode_form() {
    let home = Home::new();
    let server = home.start().await;
    server.register("RENÉE@exämple.com").await;
    for same in ["renée@exämple.com", " Rene\u{301}e@EXÄMPLE.com "] {
        server.login(same).await;
        let body = json!({ "email": same, "password": PASSWORD });
        let (status, answer) = answer(server.post("/api/auth/register").json(&body)).await;
        assert_eq!((status.as_u16(), &answer["error"]), (409, &json!("email_taken")));
    }
}

#[tokio::test]
async fn concurrent_registrations_create_one_account() {
    let home = Home::new();
    let server = home.start().await;
    for round in 0..20 {
        let body = json!({ "email": format!("ann{round}@example.com"), "password": PASSWORD });
        let try_once = || status(server.post("/api/auth/register").json(&body));
        let (one, two) = tokio::join!(try_once(), try_once());
        let mut statuses = [one.as_u16(), two.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409]);
    }
}

#[tokio::test]
async fn malformed_requests_get_the_matching_4xx_status() {
    let home = Home::new();
    let server = home.start().await;
    let login = || server.post("/api/auth/login");
    let form = "application/x-www-form-urlencoded";
    let raw = |kind: &str, body: &[u8]| login().header("content-type", kind).body(body.to_vec());
    let cases = [
        ("empty JSON", raw("application/json", b""), 400),
        ("no fields", raw("application/json", b"{}"), 400),
        ("JSON list", raw("application/json", b"[]"), 400),
        ("field of another type", raw("application/json", br#"{"email":["a"],"password":{}}"#), 400),
        (
            "field twice in JSON",
            raw("application/json", br#"{"email":"a@b.c","email":"a@b.c","password":"x"}"#),
            400,
        ),
        ("field twice in a form", raw(form, b"email=a@b.c&email=a@b.c&password=x"), 400),
        (
            "bytes that are no UTF-8 in JSON",
            raw("application/json", b"{\"email\":\"\xff\",\"password\":\"x\"}"),
            400,
        ),
        ("bytes that are no UTF-8 in a form", raw(form, b"email=%ff%fe&password=x"), 400),
        ("trailing bytes", raw("application/json", br#"{"email":"a@b.c","password":"x"}}"#), 400),
        (
            "unknown delivery",
            raw("application/json", br#"{"email":"a@b.c","password":"x","delivery":"post"}"#),
            400,
        ),
        ("plain text", raw("text/plain", b"email=a@b.c&password=x"), 415),
        ("a file", raw("multipart/form-data; boundary=x", b"--x--"), 415),
        ("no content type", login().body("email=a@b.c&password=x"), 415),
        ("a body over the limit", raw(form, &[b'a'; 20_000]), 413),
        ("another method", server.get("/api/auth/login"), 405),
        ("no such call", server.post("/api/auth/nothing"), 404),
    ];
    for (case, request, expected) in cases {
        let (status, answer) = answer(request).await;
        assert_eq!(status, expected, "{case}: {answer}");
        assert!(answer["error"].is_string() && answer["message"].is_string(), "{case}: {answer}");
    }
    // A body over the limit, of unannounced length.
    let chunks = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'a'; 1000]));
    let body = reqwest::Body::wrap_stream(futures::StreamExt::take(chunks, 20));
    assert_eq!(status(login().header("content-type", form).body(body)).await, 413);
    // Unknown fields are ignored.
    let body = json!({ "email": "ann@example.com", "password": PASSWORD, "is_admin": true, "id": "x" });
    assert_eq!(status(server.post("/api/auth/register").json(&body)).await, 200);
}

#[tokio::test]
async fn cross_site_requests_are_refused() {
    let home = Home::new();
    let server = home.start().await;
    let pair = server.register("ann@example.com").await;
    let cookie = format!("hallpass-refresh={}", pair.refresh);
    for (path, _) in server_fn::axum::server_fn_paths() {
        for (name, value) in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("origin", "http://evil.test"),
            ("origin", "null"),
        ] {
            let request = || server.post(path).header("cookie", &cookie).header(name, value);
            // Both a plain form and a request that takes a script are refused, the latter even with a bearer.
            for request in [
                request().form(&[("email", "ann@example.com"), ("password", PASSWORD)]),
                request().bearer_auth(&pair.access).json(&json!({ "session_id": pair.session })),
            ] {
                let (status, answer) = answer(request).await;
                assert_eq!(
                    (status.as_u16(), &answer["error"]),
                    (403, &json!("cross_site")),
                    "{path} {name}: {value}"
                );
            }
        }
    }
    assert_eq!(status(server.me(&pair.access)).await, 200);
    let ours = server.post("/api/auth/refresh").header("cookie", cookie);
    assert_eq!(status(ours.header("sec-fetch-site", "same-origin")).await, 200);
}

#[tokio::test]
async fn new_session_in_a_browser_ends_the_previous_one() {
    let home = Home::new();
    let server = home.start().await;
    let old = server.register("ann@example.com").await;
    let cookie = format!("hallpass-refresh={}", old.refresh);
    let body = json!({ "email": "bob@example.com", "password": PASSWORD });
    assert_eq!(status(server.post("/api/auth/register").header("cookie", cookie).json(&body)).await, 200);
    assert_eq!(status(server.me(&old.access)).await, 401);
    assert_eq!(status(server.refresh(&old.refresh)).await, 401);
}

/// A refresh of the old session, by another tab, may arrive after the login that has replaced it.
#[tokio::test]
async fn late_refresh_of_a_replaced_session_leaves_the_cookies_of_the_new_one() {
    let home = Home::new();
    let server = home.start().await;
    let old = server.register("ann@example.com").await;
    let cookie = format!("hallpass-refresh={}", old.refresh);
    let with_cookie = |path: &str, body: Value| server.post(path).header("cookie", &cookie).json(&body);
    let credentials = json!({ "email": "ann@example.com", "password": PASSWORD });
    assert_eq!(status(with_cookie("/api/auth/login", credentials)).await, 200);
    let refused = with_cookie("/api/auth/refresh", json!({})).send().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers().get("set-cookie")), (401, None));
}

#[tokio::test]
async fn connect_requests_are_refused() {
    use std::io::{Read, Write};
    let home = Home::new();
    let server = home.spawn();
    let mut connection = std::net::TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
    connection
        .write_all(b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
}

#[tokio::test]
async fn too_many_attempts_get_429_with_retry_after() {
    let home = Home::with("[throttle]\nper_device = 3\nper_address = 8\n");
    let server = home.start().await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(status(server.try_login("ann@example.com", "wrong password")).await.as_u16());
    }
    assert_eq!(statuses, [401, 401, 401, 429, 429]);
    let response = server.try_login("ann@example.com", "wrong password").send().await.unwrap();
    let wait: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=20).contains(&wait));
    let answer: Value = response.json().await.unwrap();
    assert_eq!((&answer["error"], &answer["retry_after"]), (&json!("too_many_requests"), &json!(wait)));
    // Other accounts from the same address have attempts until the limit of the address is reached.
    let mut statuses = Vec::new();
    for user in 0..4 {
        statuses
            .push(status(server.try_login(&format!("{user}@example.com"), "wrong password")).await.as_u16());
    }
    assert_eq!(statuses, [401, 401, 429, 429]);
}

#[tokio::test]
async fn full_password_queue_answers_503() {
    let home = Home::with("[password]\nworkers = 1\nqueue = 2\n");
    let server = home.start().await;
    let pair = server.register("ann@example.com").await;
    let crowd = futures::future::join_all(
        (0..20).map(|_| status(server.try_login("bob@example.com", "wrong password"))),
    );
    let ((), statuses) = tokio::join!(
        async {
            assert_eq!(status(server.me(&pair.access)).await, 200);
        },
        crowd
    );
    let count = |wanted: u16| statuses.iter().filter(|status| status.as_u16() == wanted).count();
    assert_eq!(count(401) + count(503), 20, "{statuses:?}");
    assert!(count(503) > 0 && count(401) > 0, "{statuses:?}");
}
