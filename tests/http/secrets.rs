//! Secrets do not appear in the log, in responses, or in the database.

use std::fs;

use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn secrets_are_not_logged_or_stored() {
    let home = Home::new();
    let mut server = Process::start(home.command().env("RUST_LOG", "trace"));
    let mut secrets = vec![PASSWORD.to_owned(), "a wrong password".to_owned()];
    let first = server.register("ann@example.com").await;
    let second = Pair::of(&answer(server.refresh(&first.refresh)).await.1);
    for pair in [&first, &second] {
        secrets.extend([pair.access.clone(), pair.refresh.clone()]);
        secrets
            .extend([&pair.access, &pair.refresh].map(|token| token.rsplit('.').next().unwrap().to_owned()));
    }
    assert_eq!(status(server.me(&first.access)).await, 200);
    assert_eq!(status(server.try_login("ann@example.com", "a wrong password")).await, 401);
    assert_eq!(status(server.post(&format!("/api/account/me?access_token={}", first.access))).await, 401);
    let with_cookie =
        |path| server.get(path).header("cookie", format!("hallpass-refresh={}", second.refresh));
    assert_eq!(status(with_cookie("/account")).await, 200);
    assert_eq!(status(with_cookie("/health/ready")).await, 200);
    assert_eq!(status(server.refresh("forged")).await, 401);
    assert_eq!(
        status(server.post("/api/auth/logout").json(&json!({ "refresh_token": second.refresh }))).await,
        200
    );
    assert_eq!(status(server.me(&second.access)).await, 401);

    server.signal("TERM");
    let log = server.rest_of_log();
    assert!(log.contains("request{method=POST path=\"/api/account/me\"}"), "nothing was logged: {log}");
    let database: Vec<u8> = fs::read_dir(home.path().join("data"))
        .unwrap()
        .flat_map(|file| fs::read(file.unwrap().path()).unwrap())
        .collect();
    let database = String::from_utf8_lossy(&database);
    assert!(database.contains("$argon2id$") && database.contains("ann@example.com"));
    for secret in secrets {
        assert!(!log.contains(&secret), "in the log: {secret}");
        assert!(!database.contains(&secret), "in the database: {secret}");
    }
    assert!(!log.contains("$argon2id$"), "a hash is in the log");
}

#[tokio::test]
async fn line_break_in_a_field_cannot_forge_a_log_line() {
    let home = Home::new();
    let mut server = Process::start(home.command().env("RUST_LOG", "trace"));
    let forged = "ann@example.com\n2026-01-01T00:00:00Z ERROR hallpass: forged";
    assert_eq!(status(server.try_login(forged, "a wrong password")).await, 422);
    server.signal("TERM");
    let log = server.rest_of_log();
    assert!(!log.lines().any(|line| line.starts_with("2026-01-01")), "{log}");
}
