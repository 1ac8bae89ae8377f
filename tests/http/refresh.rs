//! The refresh token buys the next pair once; who uses an old one ends the session.

use std::collections::HashSet;

use axum::http::HeaderMap;
use hallpass::{
    api::{error::AuthError, types::EndReason},
    server::{
        auth::{keys::Keys, refresh_token},
        config::Config,
    },
};
use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn a_session_goes_on_with_the_next_pair() {
    let home = Home::new();
    let server = home.start().await;
    let first = server.register("ann@example.com").await;
    let (status_, next) = answer(server.refresh(&first.refresh)).await;
    assert_eq!(status_, 200);
    let next = Pair::of(&next);
    assert_eq!(next.session, first.session);
    assert_ne!(next.refresh, first.refresh);
    assert_ne!(next.access, first.access);
    for access in [&first.access, &next.access] {
        assert_eq!(status(server.me(access)).await, 200);
    }
}

#[tokio::test]
async fn a_browser_refreshes_with_its_cookie_and_gets_the_next_one() {
    let home = Home::new();
    let server = home.start().await;
    let browser = reqwest::Client::builder().cookie_store(true).build().unwrap();
    let post = |path: &str| browser.post(format!("{}{path}", server.url));
    let body = json!({ "email": "ann@example.com", "password": PASSWORD });
    assert_eq!(status(post("/api/auth/register").json(&body)).await, 200);
    let mut cookies = HashSet::new();
    for _ in 0..3 {
        let response = post("/api/auth/refresh").send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(cookies.insert(response.headers()["set-cookie"].to_str().unwrap().to_owned()));
        let answer: serde_json::Value = response.json().await.unwrap();
        assert!(answer.get("refresh_token").is_none());
        assert_eq!(status(server.me(answer["access_token"].as_str().unwrap())).await, 200);
    }
    let response = post("/api/auth/logout").send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(status(post("/api/auth/refresh")).await, 401);
}

#[tokio::test]
async fn a_dead_cookie_is_taken_away() {
    let home = Home::new();
    let server = home.start().await;
    let response =
        server.post("/api/auth/refresh").header("cookie", "hallpass-refresh=forged").send().await.unwrap();
    assert_eq!(response.status(), 401);
    assert!(response.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
}

#[tokio::test]
async fn a_lost_answer_is_given_again_and_the_chain_never_forks() {
    let home = Home::new();
    let auth = auth(&home, NOW).await;
    let first = auth.register("ann@example.com", PASSWORD.into(), &caller(), NOW).await.unwrap();
    let mut successors = HashSet::new();
    for again in [0, 1, 10] {
        let pair = auth.refresh(&first.refresh_token, || NOW + again).await.unwrap();
        successors.insert(pair.refresh_token.expose().to_owned());
        assert!(auth.authorize(pair.access_token.expose(), NOW + again).await.is_ok());
    }
    assert_eq!(successors.len(), 1);
}

#[tokio::test]
async fn a_token_used_again_after_the_grace_ends_the_session() {
    let home = Home::new();
    let auth = auth(&home, NOW).await;
    let thief = auth.register("ann@example.com", PASSWORD.into(), &caller(), NOW).await.unwrap();
    let owner = auth.refresh(&thief.refresh_token, || NOW).await.unwrap();
    let Err(AuthError::InvalidGrant(reason)) = auth.refresh(&thief.refresh_token, || NOW + 11).await else {
        panic!("reuse passed");
    };
    assert!(reason.contains("two places"), "{reason}");
    for token in [&thief, &owner] {
        assert!(auth.authorize(token.access_token.expose(), NOW + 11).await.is_err());
        assert!(auth.refresh(&token.refresh_token, || NOW + 11).await.is_err());
    }
}

#[tokio::test]
async fn a_token_two_steps_old_ends_the_session_within_the_grace_too() {
    let home = Home::new();
    let auth = auth(&home, NOW).await;
    let first = auth.register("ann@example.com", PASSWORD.into(), &caller(), NOW).await.unwrap();
    let second = auth.refresh(&first.refresh_token, || NOW).await.unwrap();
    let third = auth.refresh(&second.refresh_token, || NOW).await.unwrap();
    assert!(auth.refresh(&first.refresh_token, || NOW).await.is_err());
    assert!(auth.authorize(third.access_token.expose(), NOW).await.is_err());
}

#[tokio::test]
async fn a_session_does_not_outlive_its_time_however_often_it_is_refreshed() {
    let home = Home::new();
    let auth = auth(&home, NOW).await;
    let end = NOW + 1_209_600;
    let pair = auth.register("ann@example.com", PASSWORD.into(), &caller(), NOW).await.unwrap();
    let pair = auth.refresh(&pair.refresh_token, || NOW + 604_799).await.unwrap();
    let pair = auth.refresh(&pair.refresh_token, || end - 100).await.unwrap();
    assert_eq!((pair.expires_at, pair.refresh_expires_at), (end, end));
    assert!(auth.authorize(pair.access_token.expose(), end - 1).await.is_ok());
    assert!(auth.authorize(pair.access_token.expose(), end).await.is_err());
    assert!(auth.refresh(&pair.refresh_token, || end).await.is_err());
}

#[tokio::test]
async fn many_at_once_with_the_same_token_make_one_step() {
    let home = Home::new();
    let server = home.start().await;
    let mut refresh = server.register("ann@example.com").await.refresh;
    for round in 0..30 {
        let answers = futures::future::join_all((0..8).map(|_| answer(server.refresh(&refresh)))).await;
        let successors: HashSet<_> = answers
            .iter()
            .map(|(status, answer)| {
                assert_eq!(*status, 200, "round {round}: {answer}");
                answer["refresh_token"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(successors.len(), 1, "round {round}: the chain forked");
        refresh = successors.into_iter().next().unwrap();
    }
}

#[tokio::test]
async fn what_is_no_refresh_token_buys_nothing() {
    let home = Home::new();
    let server = home.start().await;
    let pair = server.register("ann@example.com").await;
    let bob = server.register("bob@example.com").await;
    let tag = pair.refresh.rsplit('.').next().unwrap();
    let forged = [
        String::new(),
        "x".repeat(10_000),
        pair.access.clone(),
        format!("{}.1.{tag}", pair.session),
        format!("{}.18446744073709551616.{tag}", pair.session),
        format!("{}.0.{tag}", bob.session),
        pair.refresh[..pair.refresh.len() - 1].to_owned(),
    ];
    for token in forged {
        let (status, answer) = answer(server.refresh(&token)).await;
        assert_eq!((status.as_u16(), &answer["error"]), (401, &json!("invalid_grant")), "{token}");
    }
    assert_eq!(status(server.post("/api/auth/refresh").json(&json!({}))).await, 401);
    assert_eq!(status(server.refresh(&pair.refresh)).await, 200);
}

#[tokio::test]
async fn a_refresh_never_outlives_the_logout_beside_it() {
    let home = Home::new();
    let server = home.start().await;
    server.register("ann@example.com").await;
    for round in 0..200 {
        let pair = server.login("ann@example.com").await;
        let ((refreshed, next), logged_out) =
            tokio::join!(answer(server.refresh(&pair.refresh)), status(server.logout(&pair.access)));
        assert_eq!(logged_out, 200);
        if refreshed == 200 {
            let next = Pair::of(&next);
            assert_eq!(status(server.me(&next.access)).await, 401, "round {round}");
            assert_eq!(status(server.refresh(&next.refresh)).await, 401, "round {round}");
        }
        assert_eq!(status(server.me(&pair.access)).await, 401, "round {round}");
    }
}

#[tokio::test]
async fn a_token_that_was_never_handed_out_buys_nothing_and_ends_nothing() {
    let home = Home::new();
    let auth = auth(&home, NOW).await;
    let pair = auth.register("ann@example.com", PASSWORD.into(), &caller(), NOW).await.unwrap();
    // Signed with the real key: from a database that was set back, say.
    let config = Config::load(&home.path().join("Leptos.toml")).unwrap();
    let ahead = refresh_token::sign(&Keys::load(&config.token).unwrap(), pair.session_id, 5);
    assert_eq!(auth.refresh(&ahead, || NOW).await.unwrap_err(), AuthError::dead_refresh_token());
    assert!(auth.refresh(&pair.refresh_token, || NOW).await.is_ok());
}

#[tokio::test]
async fn a_page_knows_a_session_whose_access_tokens_have_all_expired() {
    let home = Home::new();
    let auth = auth(&home, NOW).await;
    let pair = auth.register("ann@example.com", PASSWORD.into(), &caller(), NOW).await.unwrap();
    let later = NOW + 100_000;
    assert!(auth.is_signed_in(&pair.refresh_token, later).await.unwrap());
    assert!(!auth.is_signed_in(&pair.refresh_token, NOW + 1_209_600).await.unwrap());
    auth.logout(&HeaderMap::new(), std::slice::from_ref(&pair.refresh_token), EndReason::SignedOut, later)
        .await
        .unwrap();
    assert!(!auth.is_signed_in(&pair.refresh_token, later).await.unwrap());
}

#[tokio::test]
async fn a_clock_that_is_wrong_for_a_while_costs_no_session() {
    let home = Home::new();
    let auth = auth(&home, NOW).await;
    let pair = auth.register("ann@example.com", PASSWORD.into(), &caller(), NOW).await.unwrap();
    auth.maintain(NOW + 3600).await;
    assert!(auth.authorize(pair.access_token.expose(), NOW + 1).await.is_ok());
    assert!(auth.refresh(&pair.refresh_token, || NOW + 1).await.is_ok());
}
