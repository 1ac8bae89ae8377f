//! The guarantee: once a logout has been answered, every token of the session is dead.

use std::{
    io::Write,
    net::TcpStream,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use crate::support::*;
use serde_json::json;
use tokio::{sync::Notify, time::timeout};

#[tokio::test]
async fn copied_token_is_refused_after_logout() {
    let home = Home::new();
    let server = home.start().await;
    let pair = server.register("ann@example.com").await;
    assert_eq!(status(server.me(&pair.access)).await, 200);
    let (status_, answer_) = answer(server.logout(&pair.access)).await;
    assert_eq!(status_, 200);
    assert_eq!((&answer_["instances"], &answer_["acknowledged"]), (&json!(1), &json!(1)));
    assert!(answer_["elapsed_ms"].is_u64());
    assert_invalid_token(&server.me(&pair.access).send().await.unwrap(), "the copy");
    assert_eq!(status(server.refresh(&pair.refresh)).await, 401);
}

/// A thousand logouts, each with four concurrent readers that use the token all the time. A request that
/// *starts* after the logout has been answered never gets a 2xx.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_that_start_after_logout_are_refused() {
    const ROUNDS: usize = 1000;
    const READERS: u32 = 4;
    let home = Home::new();
    let server = Arc::new(home.start().await);
    server.register("ann@example.com").await;
    let mut late = 0;
    for round in 0..ROUNDS {
        let pair = server.login("ann@example.com").await;
        let answered: Arc<OnceLock<Instant>> = Arc::default();
        let (let_in, all_in) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                let (server, answered) = (server.clone(), answered.clone());
                let (let_in, all_in) = (let_in.clone(), all_in.clone());
                let access = pair.access.clone();
                tokio::spawn(async move {
                    let (mut first, mut refused) = (true, 0);
                    while refused < 3 {
                        let started = Instant::now();
                        let status = status(server.me(&access)).await;
                        let after_logout = answered.get().is_some_and(|answered| started > *answered);
                        match status.as_u16() {
                            200 => {
                                assert!(!after_logout, "round {round}: let in after the logout had answered");
                            }
                            401 => refused += u32::from(after_logout),
                            other => panic!("round {round}: {other}"),
                        }
                        if first && status == 200 {
                            first = false;
                            let_in.fetch_add(1, Ordering::Relaxed);
                            all_in.notify_one();
                        }
                    }
                    refused
                })
            })
            .collect();
        while let_in.load(Ordering::Relaxed) < READERS {
            all_in.notified().await;
        }
        assert_eq!(status(server.logout(&pair.access)).await, 200);
        answered.set(Instant::now()).unwrap();
        for reader in readers {
            late += reader.await.unwrap();
        }
    }
    assert_eq!(late, ROUNDS as u32 * READERS * 3);
}

#[tokio::test]
async fn logout_ends_all_tokens_of_its_session_and_no_other_session() {
    let home = Home::new();
    let server = home.start().await;
    let first = server.register("ann@example.com").await;
    let other = server.login("ann@example.com").await;
    let second = Pair::of(&answer(server.refresh(&first.refresh)).await.1);
    let third = Pair::of(&answer(server.refresh(&second.refresh)).await.1);
    assert_eq!(status(server.logout(&second.access)).await, 200);
    for pair in [&first, &second, &third] {
        assert_eq!(status(server.me(&pair.access)).await, 401);
        assert_eq!(status(server.refresh(&pair.refresh)).await, 401);
    }
    assert_eq!(status(server.me(&other.access)).await, 200);
}

#[tokio::test]
async fn logout_works_with_any_token_of_the_session() {
    let home = Home::new();
    let server = home.start().await;
    server.register("ann@example.com").await;
    let logout = || server.post("/api/auth/logout");
    for way in 0..5 {
        let pair = server.login("ann@example.com").await;
        let request = match way {
            0 => logout().bearer_auth(&pair.access),
            1 => logout().json(&json!({ "refresh_token": pair.refresh })),
            2 => logout().header("cookie", format!("hallpass-refresh={}", pair.refresh)),
            3 => logout().form(&[("refresh_token", &pair.refresh)]),
            _ => {
                logout().bearer_auth("forged").header("cookie", format!("hallpass-refresh={}", pair.refresh))
            }
        };
        assert_eq!(status(request).await, 200, "way {way}");
        assert_eq!(status(server.me(&pair.access)).await, 401, "way {way}");
    }
    // With the tokens of two sessions, both sessions end.
    let (one, two) = (server.login("ann@example.com").await, server.login("ann@example.com").await);
    assert_eq!(
        status(logout().bearer_auth(&one.access).json(&json!({ "refresh_token": two.refresh }))).await,
        200
    );
    for pair in [one, two] {
        assert_eq!(status(server.me(&pair.access)).await, 401);
    }
}

#[tokio::test]
async fn logging_out_twice_succeeds() {
    let home = Home::new();
    let server = home.start().await;
    let pair = server.register("ann@example.com").await;
    for _ in 0..3 {
        assert_eq!(status(server.logout(&pair.access)).await, 200);
    }
    let (one, two) = tokio::join!(status(server.logout(&pair.access)), status(server.logout(&pair.access)));
    assert_eq!((one.as_u16(), two.as_u16()), (200, 200));
}

#[tokio::test]
async fn expired_token_still_ends_its_session() {
    let home = Home::new();
    let server = home.start().await;
    let pair = server.register("ann@example.com").await;
    let (header, mut claims) = parts(&pair.access);
    for (key, by) in [("iat", 1000), ("exp", 1000)] {
        claims[key] = json!(claims[key].as_i64().unwrap() - by);
    }
    let expired = sign(header.as_bytes(), claims.to_string().as_bytes());
    assert_eq!(status(server.me(&expired)).await, 401);
    assert_eq!(status(server.logout(&expired)).await, 200);
    assert_eq!(status(server.me(&pair.access)).await, 401);
    assert_eq!(status(server.refresh(&pair.refresh)).await, 401);
}

#[tokio::test]
async fn logout_without_a_valid_token_ends_nothing() {
    let home = Home::new();
    let server = home.start().await;
    let pair = server.register("ann@example.com").await;
    let response = server.post("/api/auth/logout").send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.headers()["www-authenticate"].to_str().unwrap()),
        (401, "Bearer")
    );
    let (header, claims) = parts(&pair.access);
    for forged in [
        "a.b.c".into(),
        sign_with(&[1; 32], header.as_bytes(), claims.to_string().as_bytes()),
        pair.access[..pair.access.len() - 2].to_owned(),
    ] {
        assert_invalid_token(&server.logout(&forged).send().await.unwrap(), &forged);
    }
    assert_eq!(
        status(server.post("/api/auth/logout").json(&json!({ "refresh_token": "forged" }))).await,
        401
    );
    assert_eq!(status(server.me(&pair.access)).await, 200);
}

#[tokio::test]
async fn client_disconnect_does_not_interrupt_a_logout() {
    // Longer than the wait below: within the grace the refresh token can be presented again.
    let home = Home::with("[token]\nrefresh_grace_seconds = 60\n");
    let server = home.start().await;
    server.register("ann@example.com").await;
    let address = server.url.strip_prefix("http://").unwrap();
    for _ in 0..50 {
        let pair = server.login("ann@example.com").await;
        let request = format!(
            "POST /api/auth/logout HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nContent-Length: 0\r\n\r\n",
            pair.access
        );
        let hang_up = || {
            let mut connection = TcpStream::connect(address).unwrap();
            connection.write_all(request.as_bytes()).unwrap();
        };
        hang_up();
        // The session ends in SQL, which a refresh reads, and in memory, which `me` reads. The server may notice that the
        // client has gone before it has begun.
        let both_end = async {
            while status(server.refresh(&pair.refresh)).await != 401 {
                hang_up();
            }
            while status(server.me(&pair.access)).await != 401 {}
        };
        timeout(Duration::from_secs(50), both_end).await.expect("a log-out stopped halfway");
    }
}
