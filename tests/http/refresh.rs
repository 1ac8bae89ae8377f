//! Rotation of refresh tokens: each is exchanged once, and reuse ends the session.

use std::{collections::HashSet, fs, sync::Arc};

use axum::http::HeaderMap;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use hallpass::{
    api::{
        error::ApiError,
        types::{EndReason, EventKind, Presence},
    },
    server::{
        auth::{keys::Keys, refresh_token},
        clock,
        config::Config,
    },
};
use reqwest::cookie::Jar;
use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn refresh_continues_the_session_with_a_new_pair() {
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
async fn browser_refresh_replaces_the_cookie() {
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
async fn invalid_refresh_cookie_is_cleared() {
    let home = Home::new();
    let server = home.start().await;
    let response =
        server.post("/api/auth/refresh").header("cookie", "hallpass-refresh=forged").send().await.unwrap();
    assert_eq!(response.status(), 401);
    assert!(response.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
}

#[tokio::test]
async fn repeated_refresh_within_the_grace_returns_the_same_successor() {
    let home = Home::new();
    let auth = auth(&home, NOW).await;
    let first = auth.register("ann@example.com", PASSWORD.into(), &caller(), NOW).await.unwrap();
    let mut successors = HashSet::new();
    for again in [0, 1, 10] {
        let pair = auth.refresh(&first.refresh_token, &caller(), || NOW + again).await.unwrap();
        successors.insert(pair.refresh_token.expose().to_owned());
        assert!(auth.authorize(pair.access_token.expose(), NOW + again).await.is_ok());
    }
    assert_eq!(successors.len(), 1);
}

#[tokio::test]
async fn reuse_after_the_grace_ends_the_session() {
    let home = Home::new();
    let auth = auth(&home, NOW).await;
    let thief = auth.register("ann@example.com", PASSWORD.into(), &caller(), NOW).await.unwrap();
    let owner = auth.refresh(&thief.refresh_token, &caller(), || NOW).await.unwrap();
    let Err(ApiError::InvalidGrant(reason)) =
        auth.refresh(&thief.refresh_token, &caller(), || NOW + 11).await
    else {
        panic!("reuse passed");
    };
    assert!(reason.contains("two places"), "{reason}");
    for token in [&thief, &owner] {
        assert!(auth.authorize(token.access_token.expose(), NOW + 11).await.is_err());
        assert!(auth.refresh(&token.refresh_token, &caller(), || NOW + 11).await.is_err());
    }
}

#[tokio::test]
async fn reuse_of_a_token_two_rotations_old_ends_the_session_within_the_grace() {
    let home = Home::new();
    let auth = auth(&home, NOW).await;
    let first = auth.register("ann@example.com", PASSWORD.into(), &caller(), NOW).await.unwrap();
    let second = auth.refresh(&first.refresh_token, &caller(), || NOW).await.unwrap();
    let third = auth.refresh(&second.refresh_token, &caller(), || NOW).await.unwrap();
    assert!(auth.refresh(&first.refresh_token, &caller(), || NOW).await.is_err());
    assert!(auth.authorize(third.access_token.expose(), NOW).await.is_err());
}

#[tokio::test]
async fn refreshes_do_not_extend_the_absolute_session_lifetime() {
    let home = Home::new();
    let auth = auth(&home, NOW).await;
    let end = NOW + 1_209_600;
    let pair = auth.register("ann@example.com", PASSWORD.into(), &caller(), NOW).await.unwrap();
    let pair = auth.refresh(&pair.refresh_token, &caller(), || NOW + 604_799).await.unwrap();
    let pair = auth.refresh(&pair.refresh_token, &caller(), || end - 100).await.unwrap();
    assert_eq!((pair.expires_at, pair.refresh_expires_at), (end, end));
    assert!(auth.authorize(pair.access_token.expose(), end - 1).await.is_ok());
    assert!(auth.authorize(pair.access_token.expose(), end).await.is_err());
    assert!(auth.refresh(&pair.refresh_token, &caller(), || end).await.is_err());
}

#[tokio::test]
async fn concurrent_refreshes_with_one_token_return_one_successor() {
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
async fn malformed_refresh_tokens_are_rejected() {
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
async fn refreshed_tokens_do_not_survive_a_concurrent_logout() {
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
async fn signed_token_ahead_of_the_counter_is_refused_and_ends_nothing() {
    let home = Home::new();
    let auth = auth(&home, NOW).await;
    let pair = auth.register("ann@example.com", PASSWORD.into(), &caller(), NOW).await.unwrap();
    // Signed with the real key, for example before the database was restored from a backup.
    let config = Config::load(&home.path().join("Leptos.toml")).unwrap();
    let ahead = refresh_token::sign(&Keys::load(&config.token, NOW).unwrap(), pair.session_id, 5);
    assert_eq!(auth.refresh(&ahead, &caller(), || NOW).await.unwrap_err(), ApiError::dead_refresh_token());
    assert!(auth.refresh(&pair.refresh_token, &caller(), || NOW).await.is_ok());
}

#[tokio::test]
async fn presence_does_not_depend_on_live_access_tokens() {
    let home = Home::new();
    let auth = auth(&home, NOW).await;
    let pair = auth.register("ann@example.com", PASSWORD.into(), &caller(), NOW).await.unwrap();
    let later = NOW + 100_000;
    assert_eq!(auth.presence(&pair.refresh_token, later).await.unwrap(), Presence::SignedIn);
    assert_ne!(auth.presence(&pair.refresh_token, NOW + 1_209_600).await.unwrap(), Presence::SignedIn);
    auth.logout(&HeaderMap::new(), std::slice::from_ref(&pair.refresh_token), EndReason::SignedOut, later)
        .await
        .unwrap();
    assert_ne!(auth.presence(&pair.refresh_token, later).await.unwrap(), Presence::SignedIn);
}

#[tokio::test]
async fn temporarily_wrong_clock_ends_no_session() {
    let home = Home::new();
    let auth = auth(&home, NOW).await;
    let pair = auth.register("ann@example.com", PASSWORD.into(), &caller(), NOW).await.unwrap();
    auth.maintain(NOW + 3600).await;
    assert!(auth.authorize(pair.access_token.expose(), NOW + 1).await.is_ok());
    assert!(auth.refresh(&pair.refresh_token, &caller(), || NOW + 1).await.is_ok());
}

#[tokio::test]
async fn tabs_that_refresh_at_the_same_time_stay_signed_in() {
    let home = Home::new();
    let server = home.start().await;
    let browser = browser();
    let at = |path: &str| format!("{}{path}", server.url);
    let body = json!({ "email": "ann@example.com", "password": PASSWORD });
    assert_eq!(status(browser.post(at("/api/auth/register")).json(&body)).await, 200);
    let mut steps = HashSet::new();
    for round in 0..500 {
        // Both requests carry the same cookie, because neither has been answered yet.
        let tab = || browser.post(at("/api/auth/refresh")).send();
        let (one, two) = tokio::join!(tab(), tab());
        let [one, two] = [one, two].map(|response| {
            let response = response.unwrap();
            assert_eq!(response.status(), 200, "round {round}");
            let cookie = response.headers()["set-cookie"].to_str().unwrap();
            cookie.split(';').next().unwrap().to_owned()
        });
        assert_eq!(one, two, "round {round}: the chain forked");
        assert!(steps.insert(one), "round {round}: it did not go on");
    }
}

#[tokio::test]
async fn reuse_is_reported_to_both_holders_and_listed_as_an_event() {
    let home = Home::new();
    let auth = auth(&home, NOW).await;
    auth.register("ann@example.com", PASSWORD.into(), &caller(), NOW).await.unwrap();
    for _who_is_first in ["the thief", "the owner"] {
        let stolen =
            auth.login("ann@example.com", (PASSWORD.into(), ""), &caller(), None, NOW).await.unwrap();
        // From here on one of the two is the thief, and nobody can tell which.
        let first = auth.refresh(&stolen.refresh_token, &caller(), || NOW + 20).await.unwrap();
        let told = ApiError::InvalidGrant(EndReason::TokenReused.words().into());
        for token in [&stolen, &first, &stolen] {
            assert_eq!(auth.refresh(&token.refresh_token, &caller(), || NOW + 40).await.unwrap_err(), told);
            assert!(auth.authorize(token.access_token.expose(), NOW + 40).await.is_err());
            let presence = auth.presence(&token.refresh_token, NOW + 40).await;
            assert_eq!(presence, Ok(Presence::Ended(EndReason::TokenReused)));
        }
    }
    let back = auth.login("ann@example.com", (PASSWORD.into(), ""), &caller(), None, NOW + 50).await.unwrap();
    let ann = auth.authorize(back.access_token.expose(), NOW + 50).await.unwrap();
    let events = auth.security_events(&ann, NOW + 50).await.unwrap().events;
    let reused = events.iter().filter(|event| event.kind == EventKind::SessionEnded(EndReason::TokenReused));
    assert_eq!(reused.map(|event| event.at).collect::<Vec<_>>(), [NOW + 40; 2], "once for each session");
}

#[tokio::test]
async fn next_page_shows_the_end_reason_once() {
    let home = Home::new();
    let then = clock::now() - 100;
    let auth = auth(&home, then).await;
    let stolen = auth.register("ann@example.com", PASSWORD.into(), &caller(), then).await.unwrap();
    let owner = auth.refresh(&stolen.refresh_token, &caller(), || then + 20).await.unwrap();
    auth.refresh(&stolen.refresh_token, &caller(), || then + 40).await.unwrap_err();
    drop(auth);
    fs::write(home.path().join("site/robots.txt"), "").unwrap();
    let server = home.start().await;
    let jar = Arc::new(Jar::default());
    let cookie = format!("hallpass-refresh={}", owner.refresh_token.expose());
    jar.add_cookie_str(&cookie, &server.url.parse().unwrap());
    let browser = reqwest::Client::builder().cookie_provider(jar).build().unwrap();
    // A page for users redirects to the login page, which shows why the session has ended.
    let page = async || {
        let page = browser.get(format!("{}/account", server.url)).header("accept", "text/html").send();
        let page = page.await.unwrap();
        assert_eq!((page.status().as_u16(), page.url().path()), (200, "/login"));
        let cookies = page.headers().get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
        let is_cleared = cookies.into_iter().any(|cookie| cookie.starts_with("hallpass-refresh=;"));
        (is_cleared, page.text().await.unwrap().contains(EndReason::TokenReused.words()))
    };
    // A static file cannot show the reason, so it must not use up the message.
    let file = browser.get(format!("{}/robots.txt", server.url)).send().await.unwrap();
    assert_eq!((file.status().as_u16(), file.headers().get("set-cookie")), (200, None));
    assert_eq!(page().await, (true, true));
    assert_eq!(page().await, (false, false));
    assert_eq!(status(browser.post(format!("{}/api/auth/refresh", server.url))).await, 401);
}

#[tokio::test]
async fn refresh_tokens_are_refused_after_logout() {
    let home = Home::new();
    let server = home.start().await;
    let first = server.register("ann@example.com").await;
    let (_, second) = answer(server.refresh(&first.refresh)).await;
    let second = Pair::of(&second);
    assert_eq!(status(server.logout(&second.access)).await, 200);
    for pair in [&second, &first, &second] {
        let (refused, why) = answer(server.refresh(&pair.refresh)).await;
        assert_eq!((refused.as_u16(), why["message"].as_str()), (401, Some(EndReason::SignedOut.words())));
    }
}

#[tokio::test]
async fn tokens_of_a_retired_key_are_refused_and_end_no_session() {
    let home = Home::new();
    let settings = home.path().join("Leptos.toml");
    let text = fs::read_to_string(&settings).unwrap();
    let (old_key, new_key) = (BASE64.encode(KEY), BASE64.encode(OTHER_KEY));
    let change_keys = |keys: &str| {
        fs::write(&settings, text.replace(&format!("signing_key = \"{old_key}\""), keys)).unwrap();
    };
    let old = auth(&home, NOW).await;
    let first = old.register("ann@example.com", PASSWORD.into(), &caller(), NOW).await.unwrap();
    drop(old);
    change_keys(&format!("signing_key = \"{new_key}\"\nprevious_signing_key = \"{old_key}\""));
    let changing = auth(&home, NOW).await;
    let second = changing.refresh(&first.refresh_token, &caller(), || NOW).await.unwrap();
    drop(changing);
    change_keys(&format!("signing_key = \"{new_key}\""));
    let changed = auth(&home, NOW).await;
    let refused = changed.refresh(&first.refresh_token, &caller(), || NOW).await.unwrap_err();
    assert_eq!(refused, ApiError::dead_refresh_token());
    assert_eq!(changed.presence(&first.refresh_token, NOW).await, Ok(Presence::Anonymous));
    assert!(changed.refresh(&second.refresh_token, &caller(), || NOW).await.is_ok());
}

#[tokio::test]
async fn idle_session_expires() {
    let home = Home::new();
    let auth = auth(&home, NOW).await;
    let idle = auth.register("ann@example.com", PASSWORD.into(), &caller(), NOW).await.unwrap();
    let used = auth.login("ann@example.com", (PASSWORD.into(), ""), &caller(), None, NOW).await.unwrap();
    let end = NOW + 604_800;
    assert_eq!(idle.refresh_expires_at, end);
    let used = auth.refresh(&used.refresh_token, &caller(), || end - 1).await.unwrap();
    assert_eq!(auth.presence(&idle.refresh_token, end - 1).await.unwrap(), Presence::SignedIn);

    let presence = auth.presence(&idle.refresh_token, end).await;
    assert_eq!(presence, Ok(Presence::Ended(EndReason::Expired)));
    let told = ApiError::InvalidGrant(EndReason::Expired.words().into());
    assert_eq!(auth.refresh(&idle.refresh_token, &caller(), || end).await.unwrap_err(), told);
    let ann = auth.authorize(used.access_token.expose(), end).await.unwrap();
    let listed = auth.sessions(&ann, end).await.unwrap().sessions;
    assert_eq!(listed.iter().map(|session| session.is_current).collect::<Vec<_>>(), [true]);
}

#[tokio::test]
async fn repeated_refresh_from_another_device_is_listed_as_an_event() {
    const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
    let home = Home::new();
    let server = home.start().await;
    let pair = server.register("ann@example.com").await;
    assert_eq!(status(server.refresh(&pair.refresh)).await, 200);
    let elsewhere = async || {
        let (_, body) = answer(server.call("/api/account/events", &pair.access, json!({}))).await;
        let events = body["events"].as_array().unwrap().clone();
        events.into_iter().filter(|event| event["kind"] == "refreshed_elsewhere").collect::<Vec<_>>()
    };
    assert_eq!(status(server.refresh(&pair.refresh)).await, 200);
    assert!(elsewhere().await.is_empty(), "the same device has asked again");
    assert_eq!(status(server.refresh(&pair.refresh).header("user-agent", FIREFOX)).await, 200);
    let [event] = &elsewhere().await[..] else { panic!("there is one event") };
    assert_eq!((&event["device"], &event["address"]), (&json!("Firefox on Linux"), &json!("127.0.0.0/24")));
}
