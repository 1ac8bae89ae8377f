//! A change of the password requires the current one, and ends every other session.

use hallpass::api::types::EndReason;
use reqwest::RequestBuilder;
use serde_json::json;

use crate::{mailbox::Mailbox, support::*};

const ANN: &str = "ann@example.com";
const NEW: &str = "staple battery horse";

fn change(server: &Server, pair: &Pair, current: &str, new: &str) -> RequestBuilder {
    server.call("/api/account/change_password", &pair.access, json!({ "current": current, "new": new }))
}

#[tokio::test]
async fn password_change_ends_every_other_session() {
    let home = Home::new();
    let server = home.start().await;
    let (mine, other, third) = (server.register(ANN).await, server.login(ANN).await, server.login(ANN).await);
    let stranger = server.register("bob@example.com").await;
    assert_eq!(status(change(&server, &mine, PASSWORD, NEW)).await, 200);
    for pair in [&other, &third] {
        assert_invalid_token(&server.me(&pair.access).send().await.unwrap(), "another session");
        let (refused, why) = answer(server.refresh(&pair.refresh)).await;
        assert_eq!(
            (refused.as_u16(), why["message"].as_str().unwrap()),
            (401, EndReason::PasswordChanged.words())
        );
    }
    assert_eq!(status(server.me(&mine.access)).await, 200);
    assert_eq!(status(server.refresh(&mine.refresh)).await, 200);
    assert_eq!(status(server.me(&stranger.access)).await, 200);
    assert_eq!(status(server.try_login(ANN, PASSWORD)).await, 401);
    assert_eq!(status(server.try_login(ANN, NEW)).await, 200);
    let events = server.events(&mine.access).await;
    assert!(events.contains(&json!("password_changed")), "{events:?}");
    let ended = events.iter().filter(|kind| kind["session_ended"] == "password_changed");
    assert_eq!(ended.count(), 2, "{events:?}");
}

#[tokio::test]
async fn breached_password_is_refused_wherever_one_is_chosen() {
    use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
    let folder = tempfile::tempdir().unwrap();
    let (list, filter) = (folder.path().join("list"), folder.path().join("filter"));
    let mut lines: Vec<String> = [NEW, "another known one"]
        .map(|password| {
            let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
            hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<String>() + ":7"
        })
        .into();
    lines.sort();
    std::fs::write(&list, lines.join("\n")).unwrap();
    let settings =
        format!("[password]\nmemory_kib = 64\niterations = 1\nbreached = \"{}\"\n", filter.display());
    let home = Home::with(&settings);
    let (refused, text) = run(&mut home.command());
    assert!(!refused.status.success() && text.contains("HALLPASS_BREACHED_PASSWORDS"), "{text}");
    let mut build = home.command();
    build.args(["passwords", "build-filter"]).arg(&list).arg("--output").arg(&filter);
    let (built, text) = run(&mut build);
    assert!(built.status.success() && text.contains("2 passwords"), "{text}");
    let (added, text) = run_with_input(home.command().args(["user", "add", "bob@example.com"]), NEW);
    assert!(!added && text.contains("known from a breach"), "{text}");

    let server = home.start().await;
    let register = json!({ "email": ANN, "password": NEW });
    let ann = server.register(ANN).await;
    let forgot = server.post("/api/auth/forgot_password").json(&json!({ "email": ANN }));
    assert_eq!(status(forgot).await, 200);
    let token = Mailbox::of(&home).wait_for(ANN, "Reset").await.token();
    let reset = |password: &str| {
        server.post("/api/auth/reset_password").json(&json!({ "token": token, "password": password }))
    };
    for (request, field) in [
        (server.post("/api/auth/register").json(&register), "password"),
        (change(&server, &ann, PASSWORD, NEW), "new"),
        (reset(NEW), "password"),
    ] {
        let (status, refused) = answer(request).await;
        let advice = refused["fields"][field].as_str().unwrap_or_default();
        assert!(status == 422 && advice.contains("known from a breach"), "{status}: {refused}");
    }
    // What was chosen before goes on: a login chooses no password.
    assert_eq!(status(reset("staple battery horsf")).await, 200);
}

#[tokio::test]
async fn password_change_needs_the_current_password_and_an_acceptable_new_one() {
    let home = Home::new();
    let server = home.start().await;
    let (mine, other) = (server.register(ANN).await, server.login(ANN).await);
    let long = "p".repeat(10_000);
    for (current, new, field) in [
        ("", NEW, "current"),
        ("wrong password", NEW, "current"),
        (NEW, NEW, "current"),
        (&long, NEW, "current"),
        (PASSWORD, "", "new"),
        (PASSWORD, "short", "new"),
        (PASSWORD, "password1", "new"),
        (PASSWORD, ANN, "new"),
        (PASSWORD, &long, "new"),
    ] {
        let (status, answer) = answer(change(&server, &mine, current, new)).await;
        assert_eq!((status.as_u16(), &answer["error"]), (422, &json!("invalid_fields")), "{current} {new}");
        let fields: Vec<_> = answer["fields"].as_object().unwrap().keys().collect();
        assert_eq!(fields, [field], "{current} {new}");
    }
    assert_eq!(status(server.post("/api/account/change_password").json(&json!({}))).await, 401);
    for pair in [&mine, &other] {
        assert_eq!(status(server.me(&pair.access)).await, 200, "nothing has ended");
    }
    server.login(ANN).await;
}

#[tokio::test]
async fn one_of_two_concurrent_password_changes_succeeds() {
    let home = Home::new();
    let server = home.start().await;
    let mut password = PASSWORD.to_owned();
    server.register(ANN).await;
    for round in 0..20 {
        let mut pairs = Vec::new();
        for _ in 0..2 {
            let (status, answer) = answer(server.try_login(ANN, &password)).await;
            assert_eq!(status, 200, "round {round}: {answer}");
            pairs.push(Pair::of(&answer));
        }
        // In turn from one session, and from two.
        let (one, two) = (&pairs[0], &pairs[round % 2]);
        let new = [format!("{NEW} {round} a"), format!("{NEW} {round} b")];
        let ((first, _), (second, why)) = tokio::join!(
            answer(change(&server, one, &password, &new[0])),
            answer(change(&server, two, &password, &new[1]))
        );
        let statuses = [first.as_u16(), second.as_u16()];
        let Some(winner) = statuses.iter().position(|status| *status == 200) else {
            panic!("round {round}: {statuses:?}")
        };
        // The loser comes too late: its password is not current any more, or its session has ended.
        let loser = statuses[1 - winner];
        assert!(loser == 422 || (loser == 401 && round % 2 == 1), "round {round}: {statuses:?} {why}");
        assert_eq!(status(server.try_login(ANN, &new[1 - winner])).await, 401, "round {round}");
        assert_eq!(status(server.try_login(ANN, &password)).await, 401, "round {round}");
        password = new[winner].clone();
    }
}

#[tokio::test]
async fn no_session_of_the_old_password_survives_its_change() {
    let home = Home::new();
    let server = home.start().await;
    let mine = server.register(ANN).await;
    let (mut current, mut next) = (PASSWORD, NEW);
    for round in 0..50 {
        let ((status_, pair), changed) = tokio::join!(
            answer(server.try_login(ANN, current)),
            status(change(&server, &mine, current, next))
        );
        assert_eq!(changed, 200, "round {round}");
        if status_ == 200 {
            let pair = Pair::of(&pair);
            assert_eq!(status(server.me(&pair.access)).await, 401, "round {round}");
            assert_eq!(status(server.refresh(&pair.refresh)).await, 401, "round {round}");
        }
        (current, next) = (next, current);
    }
}

#[tokio::test]
async fn guessing_the_current_password_is_throttled() {
    let home = Home::with("[throttle]\nper_device = 3\n");
    let server = home.start().await;
    let (mine, other) = (server.register(ANN).await, server.login(ANN).await);
    let mut attempts = 0;
    let refused = loop {
        let response = change(&server, &mine, "wrong password", NEW).send().await.unwrap();
        if response.status() == 429 {
            break response;
        }
        assert_eq!(response.status(), 422);
        attempts += 1;
    };
    assert!(attempts >= 3);
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(refused.json::<serde_json::Value>().await.unwrap()["error"], "too_many_requests");
    assert_eq!(status(server.me(&mine.access)).await, 200);
    // Neither the other session nor requests with the right password are slowed down.
    for (current, new) in [(PASSWORD, NEW), (NEW, PASSWORD)].repeat(5) {
        assert_eq!(status(change(&server, &other, current, new)).await, 200);
    }
}
