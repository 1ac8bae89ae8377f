//! The session list, ending one or all sessions, and the activity list of an account.

use axum::http::HeaderMap;
use hallpass::{
    api::{
        error::ApiError,
        types::{EndReason, EventKind},
    },
    server::{client_info::ClientInfo, clock},
};
use serde_json::{Value, json};

use crate::support::*;

const REVOKE: &str = "/api/account/revoke_session";
const EVERYWHERE: &str = "/api/account/logout_everywhere";
const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0";

/// Logs in with this user agent.
async fn login_as(server: &Server, user_agent: &[u8]) -> Pair {
    let request = server.try_login("ann@example.com", PASSWORD).header("user-agent", user_agent);
    let (status, answer) = answer(request).await;
    assert_eq!(status, 200, "{answer}");
    Pair::of(&answer)
}

#[tokio::test]
async fn session_list_has_all_live_sessions_with_the_current_one_first() {
    let home = Home::new();
    let server = home.start().await;
    let dead = server.register("ann@example.com").await;
    let (program, browser) =
        (login_as(&server, b"curl/8.5.0").await, login_as(&server, FIREFOX.as_bytes()).await);
    server.register("bob@example.com").await;
    assert_eq!(status(server.logout(&dead.access)).await, 200);
    for (current, other, device) in
        [(&program, &browser, "A program"), (&browser, &program, "Firefox on Linux")]
    {
        let (status, answer) = answer(server.call("/api/account/sessions", &current.access, json!({}))).await;
        assert_eq!(status, 200);
        let [first, second] = answer["sessions"].as_array().unwrap().as_slice() else { panic!("{answer}") };
        assert_eq!((&first["session_id"], &first["is_current"]), (&json!(current.session), &json!(true)));
        assert_eq!((&second["session_id"], &second["is_current"]), (&json!(other.session), &json!(false)));
        assert_eq!((&first["device"], &first["address"]), (&json!(device), &json!("127.0.0.0/24")));
        let time = |name: &str| first[name].as_i64().unwrap();
        assert!(time("created_at") <= time("last_seen_at"), "{answer}");
        assert!(time("last_seen_at") <= answer["now"].as_i64().unwrap(), "{answer}");
        // Rounded to minutes: the exact time would show a thief when a copied refresh token works unnoticed.
        assert_eq!((time("created_at") % 60, time("last_seen_at") % 60), (0, 0));
    }
}

#[tokio::test]
async fn session_can_be_ended_from_another_session() {
    let home = Home::new();
    let server = home.start().await;
    let mine = server.register("ann@example.com").await;
    let (other, third) = (server.login("ann@example.com").await, server.login("ann@example.com").await);
    let revoke = || server.call(REVOKE, &mine.access, json!({ "session_id": other.session }));
    let response = revoke().send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.headers().get("set-cookie").is_none(), "the cookie is the current session's");
    assert_invalid_token(&server.me(&other.access).send().await.unwrap(), "the one that was ended");
    let (refused, why) = answer(server.refresh(&other.refresh)).await;
    assert_eq!((refused.as_u16(), &why["message"]), (401, &json!(EndReason::EndedElsewhere.words())));
    for pair in [&mine, &third] {
        assert_eq!(status(server.me(&pair.access)).await, 200);
    }
    assert_eq!(server.sessions(&mine.access).await.len(), 2);
    assert_eq!(status(revoke()).await, 200, "again");
}

#[tokio::test]
async fn sessions_of_other_users_cannot_be_ended_or_probed() {
    let home = Home::new();
    let server = home.start().await;
    let (ann, bob) = (server.register("ann@example.com").await, server.register("bob@example.com").await);
    let unknown = "AAAAAAAAAAAAAAAAAAAAAA";
    let mut answers = Vec::new();
    for id in [
        unknown,
        &bob.session,
        "",
        "x",
        "%",
        "' or 1=1 --",
        &ann.session[..21],
        &format!("{}=", ann.session),
        &format!(" {}", ann.session),
        &"x".repeat(10_000),
    ] {
        let response = server.call(REVOKE, &ann.access, json!({ "session_id": id })).send().await.unwrap();
        assert_eq!(response.status(), 404, "{id}");
        assert!(response.headers().get("set-cookie").is_none(), "{id}");
        answers.push(response.text().await.unwrap());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    assert_eq!(status(server.call(REVOKE, &ann.access, json!({}))).await, 404);
    for pair in [&ann, &bob] {
        assert_eq!(status(server.me(&pair.access)).await, 200);
        assert_eq!(status(server.refresh(&pair.refresh)).await, 200);
    }
}

#[tokio::test]
async fn ending_the_current_session_clears_its_cookie() {
    let home = Home::new();
    let server = home.start().await;
    let (browser, at) = (browser(), |path: &str| format!("{}{path}", server.url));
    let body = json!({ "email": "ann@example.com", "password": PASSWORD });
    let (_, tokens) = answer(browser.post(at("/api/auth/register")).json(&body)).await;
    let access = tokens["access_token"].as_str().unwrap();
    let body = json!({ "session_id": tokens["session_id"] });
    let ended = browser.post(at(REVOKE)).bearer_auth(access).json(&body).send().await.unwrap();
    assert_eq!(ended.status(), 200);
    let cookie = ended.headers()["set-cookie"].to_str().unwrap();
    assert!(
        cookie.starts_with("hallpass-refresh-") && cookie.contains("=;") && cookie.contains("Max-Age=0"),
        "{cookie}"
    );
    assert_invalid_token(&server.me(access).send().await.unwrap(), "the current one");
    let (refused, why) = answer(browser.post(at("/api/auth/refresh"))).await;
    assert_eq!((refused.as_u16(), &why["message"]), (401, &json!(ApiError::no_refresh_token().to_string())));
}

#[tokio::test]
async fn logout_everywhere_ends_all_sessions_or_all_others() {
    let home = Home::new();
    let server = home.start().await;
    let stranger = server.register("bob@example.com").await;
    let current = server.register("ann@example.com").await;
    let (one, two) = (server.login("ann@example.com").await, server.login("ann@example.com").await);
    let kept =
        server.call(EVERYWHERE, &current.access, json!({ "keep_current": true })).send().await.unwrap();
    assert_eq!(kept.status(), 200);
    assert!(kept.headers().get("set-cookie").is_none());
    for pair in [&one, &two] {
        assert_eq!(status(server.me(&pair.access)).await, 401);
        let (_, why) = answer(server.refresh(&pair.refresh)).await;
        assert_eq!(why["message"], EndReason::SignedOutEverywhere.words());
    }
    assert_eq!(status(server.me(&current.access)).await, 200);
    let ended = server.call(EVERYWHERE, &current.access, json!({})).send().await.unwrap();
    assert_eq!(ended.status(), 200);
    assert!(ended.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(status(server.me(&current.access)).await, 401);
    assert_eq!(status(server.refresh(&current.refresh)).await, 401);
    assert_eq!(status(server.me(&stranger.access)).await, 200);
}

#[tokio::test]
async fn logout_everywhere_needs_the_password_or_a_recent_sign_in() {
    let home = Home::new();
    // Signed in a little more than five minutes ago.
    let then = clock::now() - 301;
    let auth = auth(&home, then).await;
    let old = auth.register("ann@example.com", PASSWORD.into(), &caller(), then).await.unwrap();
    drop(auth);
    let server = home.start().await;
    // A refresh does not count as a sign-in.
    let (_, next) = answer(server.refresh(old.refresh_token.expose())).await;
    let current = Pair::of(&next);
    let other = server.login("ann@example.com").await;
    let everywhere = |body: Value| server.call(EVERYWHERE, &current.access, body);
    for body in [json!({}), json!({ "keep_current": true }), json!({ "password": "" })] {
        let refused = everywhere(body).send().await.unwrap();
        assert_eq!(refused.status(), 403);
        assert_eq!(
            refused.headers()["www-authenticate"],
            "Bearer error=\"insufficient_user_authentication\", acr_values=\"aal1\", max_age=\"300\""
        );
        assert_eq!(refused.json::<Value>().await.unwrap()["error"], "insufficient_user_authentication");
    }
    for wrong in ["wrong password", &"x".repeat(10_000)] {
        let (status, answer) = answer(everywhere(json!({ "password": wrong }))).await;
        assert_eq!(status, 422, "{answer}");
        assert!(answer["fields"]["password"].is_string(), "{answer}");
    }
    for pair in [&current, &other] {
        assert_eq!(status(server.me(&pair.access)).await, 200, "nothing has ended");
    }
    assert_eq!(status(everywhere(json!({ "keep_current": true, "password": PASSWORD }))).await, 200);
    assert_eq!(status(server.me(&other.access)).await, 401);
    assert_eq!(status(server.me(&current.access)).await, 200);
}

#[tokio::test]
async fn thousand_sessions_can_be_listed_and_ended() {
    let home = Home::new();
    let auth = auth(&home, NOW).await;
    let now = clock::now();
    auth.register("ann@example.com", PASSWORD.into(), &caller(), now - 2000).await.unwrap();
    let mut pairs = Vec::new();
    for second in 0..1000 {
        let then = now - 1000 + second;
        pairs
            .push(auth.login("ann@example.com", (PASSWORD.into(), ""), &caller(), None, then).await.unwrap());
    }
    drop(auth);
    let server = home.start().await;
    // The current session is the one that was used longest ago, and is in the list nevertheless.
    let current = &pairs[0];
    let (_, next) = answer(server.refresh(current.refresh_token.expose())).await;
    let current = Pair::of(&next);
    let sessions = server.sessions(&current.access).await;
    assert_eq!(sessions.len(), 1000);
    assert_eq!(sessions[0]["session_id"], current.session.as_str());
    let seen: Vec<_> = sessions[1..].iter().map(|session| session["last_seen_at"].as_i64()).collect();
    assert!(seen.is_sorted_by(|newer, older| newer >= older), "{seen:?}");
    let body = json!({ "password": PASSWORD });
    assert_eq!(status(server.call(EVERYWHERE, &current.access, body)).await, 200);
    assert_eq!(status(server.me(&current.access)).await, 401);
    for pair in [&pairs[1], &pairs[500], &pairs[999]] {
        assert_eq!(status(server.refresh(pair.refresh_token.expose())).await, 401);
    }
}

#[tokio::test]
async fn hostile_user_agents_are_harmless() {
    let home = Home::new();
    let server = home.start().await;
    let current = server.register("ann@example.com").await;
    for user_agent in [
        &[b'x'; 10_000][..],
        b"<script>alert(1)</script>",
        b"Mozilla/5.0 (<img src=x onerror=alert(1)>) Firefox/<b>1</b>",
        b"\"; drop table sessions; --",
        b"\xff\xfe\xfd",
        "Лиса 🦊".as_bytes(),
        b"",
    ] {
        login_as(&server, user_agent).await;
    }
    let sessions = server.sessions(&current.access).await;
    assert_eq!(sessions.len(), 8);
    for session in sessions {
        let device = session["device"].as_str().unwrap();
        assert!((1..100).contains(&device.len()) && !device.contains(['<', '"']), "{device}");
    }
}

#[tokio::test]
async fn activity_list_has_all_events_newest_first() {
    let home = Home::new();
    let auth = auth(&home, NOW).await;
    let login =
        async |now| auth.login("ann@example.com", (PASSWORD.into(), ""), &caller(), None, now).await.unwrap();
    let first = auth.register("ann@example.com", PASSWORD.into(), &caller(), NOW).await.unwrap();
    auth.register("bob@example.com", PASSWORD.into(), &caller(), NOW).await.unwrap();
    let second = login(NOW + 10).await;
    let second = [second.refresh_token];
    auth.logout(&HeaderMap::new(), &second, EndReason::SignedOut, NOW + 20).await.unwrap();
    let stolen = login(NOW + 30).await;
    auth.refresh(&stolen.refresh_token, &caller(), || NOW + 40).await.unwrap();
    auth.refresh(&stolen.refresh_token, &caller(), || NOW + 60).await.unwrap_err();
    let firefox = ClientInfo { user_agent: FIREFOX.into(), ..caller() };
    auth.login("ann@example.com", (PASSWORD.into(), ""), &firefox, None, NOW + 70).await.unwrap();
    let ann = auth.authorize(first.access_token.expose(), NOW + 80).await.unwrap();
    auth.change_password(&ann, PASSWORD.into(), "another good one".into(), NOW + 80).await.unwrap();

    let told = auth.security_events(&ann, NOW + 90).await.unwrap();
    assert_eq!(told.now, NOW + 90);
    let events: Vec<_> = told.events.iter().map(|event| (event.at - NOW, event.kind)).collect();
    assert_eq!(
        events,
        [
            (80, EventKind::SessionEnded(EndReason::PasswordChanged)),
            (80, EventKind::PasswordChanged),
            (70, EventKind::SignedIn),
            (60, EventKind::SessionEnded(EndReason::TokenReused)),
            (30, EventKind::SignedIn),
            (20, EventKind::SessionEnded(EndReason::SignedOut)),
            (10, EventKind::SignedIn),
            (0, EventKind::SignedIn),
        ]
    );
    let devices: Vec<_> = told.events[..4].iter().map(|event| event.device.as_str()).collect();
    assert_eq!(devices, ["Firefox on Linux", "", "Firefox on Linux", "Unknown device"]);
}

#[tokio::test]
async fn event_kinds_have_the_documented_names() {
    let home = Home::new();
    let server = home.start().await;
    let (pair, other) = (server.register("ann@example.com").await, server.login("ann@example.com").await);
    assert_eq!(status(server.logout(&other.access)).await, 200);
    // Events within the same second have no defined order, so the end of the session is sorted first.
    let mut events = server.events(&pair.access).await;
    events.sort_by_key(|kind| kind.is_string());
    assert_eq!(events, [json!({ "session_ended": "signed_out" }), json!("signed_in"), json!("signed_in")]);
}
