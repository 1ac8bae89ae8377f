//! The authenticator app and recovery codes: the password alone lets in no longer, each code works once, and a change ends
//! all other sessions.

use futures::future::join_all;
use hallpass::api::{error::ApiError, types::EndReason};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::{mailbox::Mailbox, support::*, totp::code};

const ANN: &str = "ann@example.com";

/// A user with an authenticator app.
pub struct WithApp {
    pub pair: Pair,
    pub secret: String,
    pub recovery_codes: Vec<String>,
}

impl WithApp {
    pub async fn add(server: &impl Api, pair: Pair) -> Self {
        let (status, begun) = answer(server.call("/api/account/begin_totp", &pair.access, json!({}))).await;
        assert_eq!(status, 200, "{begun}");
        let secret = begun["secret"].as_str().unwrap().to_owned();
        let body = json!({ "code": code(&secret, 0) });
        let (status, added) = answer(server.call("/api/account/add_totp", &pair.access, body)).await;
        assert_eq!(status, 200, "{added}");
        let codes = added["codes"].as_array().unwrap();
        let recovery_codes = codes.iter().map(|code| code.as_str().unwrap().to_owned()).collect();
        Self { pair, secret, recovery_codes }
    }
}

pub fn login_with_code(server: &impl Api, email: &str, code: &str) -> RequestBuilder {
    let body = json!({ "email": email, "password": PASSWORD, "code": code, "delivery": "body" });
    server.post("/api/auth/login").json(&body)
}

async fn assert_wrong_code(request: RequestBuilder, case: &str) {
    let (status, refused) = answer(request).await;
    assert_eq!((status.as_u16(), &refused["error"]), (401, &json!("invalid_grant")), "{case}: {refused}");
    assert_eq!(refused["message"], ApiError::wrong_code().to_string(), "{case}");
}

async fn methods(server: &impl Api, access: &str) -> Value {
    let (status, methods) = answer(server.call("/api/account/sign_in_methods", access, json!({}))).await;
    assert_eq!(status, 200, "{methods}");
    methods
}

#[tokio::test]
async fn app_ends_all_other_sessions_and_the_password_alone_is_not_enough() {
    let home = Home::new();
    let server = home.start().await;
    let (one, other) = (server.register(ANN).await, server.login(ANN).await);
    let WithApp { pair, secret, recovery_codes } = WithApp::add(&server, one).await;
    assert_eq!(recovery_codes.len(), 10);
    assert_eq!(status(server.me(&pair.access)).await, 200, "the session that has added it continues");
    assert_invalid_token(&server.me(&other.access).send().await.unwrap(), "another session");
    let (refused, why) = answer(server.refresh(&other.refresh)).await;
    assert_eq!((refused.as_u16(), &why["message"]), (401, &json!(EndReason::FactorsChanged.words())));

    let (refused, why) = answer(server.try_login(ANN, PASSWORD)).await;
    assert_eq!((refused.as_u16(), &why["error"]), (403, &json!("second_factor_required")), "{why}");
    let (refused, why) = answer(server.try_login(ANN, "wrong horse battery")).await;
    assert_eq!(refused, 401, "only the right password shows the factor: {why}");
    let (accepted, tokens) = answer(login_with_code(&server, ANN, &code(&secret, 1))).await;
    assert_eq!(accepted, 200, "{tokens}");

    let (_, claims) = parts(&Pair::of(&tokens).access);
    assert_eq!((&claims["acr"], &claims["amr"]), (&json!("aal2"), &json!(["pwd", "otp", "mfa"])));
    assert_eq!(claims["auth_time"], claims["iat"]);
    let (_, refreshed) = answer(server.refresh(&Pair::of(&tokens).refresh)).await;
    let (_, later) = parts(&Pair::of(&refreshed).access);
    for claim in ["acr", "amr", "auth_time"] {
        assert_eq!(later[claim], claims[claim], "{claim} after a refresh");
    }
    let (_, before) = parts(&pair.access);
    assert_eq!((&before["acr"], &before["amr"]), (&json!("aal1"), &json!(["pwd"])));

    let events = server.events(&pair.access).await;
    assert!(events.contains(&json!("totp_added")), "{events:?}");
    let kept = rows(&home, "select secret || hash from totp, recovery_codes").await;
    assert!(kept.iter().all(|row| recovery_codes.iter().all(|code| !row.contains(code))), "codes are hashed");
}

#[tokio::test]
async fn each_code_works_once_also_for_many_at_once() {
    let home = Home::new();
    let server = home.start().await;
    let ann = server.register(ANN).await;
    let app = WithApp::add(&server, ann).await;
    for (case, code) in
        [("the app", code(&app.secret, 1)), ("a recovery code", app.recovery_codes[0].clone())]
    {
        let attempts = join_all((0..8).map(|_| status(login_with_code(&server, ANN, &code)))).await;
        let accepted = attempts.iter().filter(|status| **status == 200).count();
        assert_eq!(accepted, 1, "{case}: {attempts:?}");
        assert!(attempts.iter().all(|status| [200, 401].contains(&status.as_u16())), "{case}: {attempts:?}");
        assert_wrong_code(login_with_code(&server, ANN, &code), case).await;
    }
    // A code of a step before one that was used.
    assert_wrong_code(login_with_code(&server, ANN, &code(&app.secret, -1)), "an earlier code").await;
    assert_eq!(methods(&server, &app.pair.access).await["recovery_codes"], 9);
    let events = server.events(&app.pair.access).await;
    assert!(
        events.contains(&json!("recovery_code_used")) && events.contains(&json!("second_factor_missed")),
        "{events:?}"
    );
}

#[tokio::test]
async fn wrong_codes_are_refused_and_told_to_the_user() {
    let home = Home::new();
    let (server, mailbox) = (home.start().await, Mailbox::of(&home));
    let ann = server.register(ANN).await;
    confirm(&server, &mailbox, ANN).await;
    let app = WithApp::add(&server, ann).await;
    let bob = server.register("bob@example.com").await;
    let of_bob = WithApp::add(&server, bob).await;
    let (good, other) = (code(&app.secret, 1), &app.recovery_codes[0]);
    let flipped = format!("{:06}", (good.parse::<u32>().unwrap() + 1) % 1_000_000);
    for (case, wrong) in [
        ("one more", flipped.as_str()),
        ("an old one", &code(&app.secret, -10)),
        ("an early one", &code(&app.secret, 10)),
        ("too short", &good[..5]),
        ("too long", &format!("{good}0")),
        ("part of a recovery code", &other[..28]),
        ("a recovery code of another user", &of_bob.recovery_codes[0]),
        ("a code of another user", &code(&of_bob.secret, 0)),
        ("digits of another script", "１２３４５６"),
        ("a zero byte", "12345\0"),
        ("very long", &"7".repeat(10_000)),
    ] {
        assert_wrong_code(login_with_code(&server, ANN, wrong), case).await;
    }
    // As many apps show it.
    let shown = format!(" {} {} ", &good[..3], &good[3..]);
    assert_eq!(status(login_with_code(&server, ANN, &shown)).await, 200);
    // A form that was sent twice is no attempt to guess a code.
    let failures = "select cast(failures as text) from totp where user_id = (select id from users where email = 'ann@example.com')";
    let before = rows(&home, failures).await;
    assert_wrong_code(login_with_code(&server, ANN, &good), "twice").await;
    assert_eq!(rows(&home, failures).await, before);
    assert_eq!(status(login_with_code(&server, ANN, &other.to_uppercase().replace('-', " "))).await, 200);
    // Three mails in an hour, not eleven.
    mailbox.wait(3, ANN, "was refused").await;
    mailbox.wait_for(ANN, "recovery code").await;
    mailbox.wait_for(ANN, "ways to sign in").await;
}

/// Confirms the address, because notices are sent to confirmed ones only.
async fn confirm(server: &Server, mailbox: &Mailbox, email: &str) {
    let token = mailbox.wait_for(email, "Confirm").await.token();
    assert_eq!(status(server.post("/api/auth/verify_email").json(&json!({ "token": token }))).await, 200);
}

#[tokio::test]
async fn refused_code_changes_nothing() {
    let home = Home::new();
    let server = home.start().await;
    let app = WithApp::add(&server, server.register(ANN).await).await;
    let last_login = "select coalesce(cast(last_login_at as text), 'never') from users";
    assert_eq!(rows(&home, last_login).await, ["never"]);
    assert_wrong_code(login_with_code(&server, ANN, "no recovery code"), "a wrong one").await;
    assert_eq!(rows(&home, last_login).await, ["never"]);
    assert_eq!(status(login_with_code(&server, ANN, &app.recovery_codes[0])).await, 200);
    assert_ne!(rows(&home, last_login).await, ["never"]);
}

/// The right password without a code costs as much to check as with one.
#[tokio::test]
async fn right_passwords_without_a_code_are_limited() {
    let home = Home::with(
        "[throttle]\nper_account = 100\nper_address = 100\nper_device = 100\nrefreshes_per_session = 100\n",
    );
    let server = home.start().await;
    WithApp::add(&server, server.register(ANN).await).await;
    let mut allowed = 0;
    while status(server.try_login(ANN, PASSWORD)).await == 403 {
        allowed += 1;
        assert!(allowed < 400, "no limit");
    }
    assert!(allowed > 290, "{allowed}");
}

#[tokio::test]
async fn secret_that_is_too_old_is_not_taken_into_use() {
    let home = Home::new();
    let server = home.start().await;
    let ann = server.register(ANN).await;
    let (_, begun) = answer(server.call("/api/account/begin_totp", &ann.access, json!({}))).await;
    assert_eq!(rows(&home, "update totp set begun_at = begun_at - 901 returning secret").await.len(), 1);
    let body = json!({ "code": code(begun["secret"].as_str().unwrap(), 0) });
    assert_eq!(status(server.call("/api/account/add_totp", &ann.access, body)).await, 409);
    assert_eq!(status(server.try_login(ANN, PASSWORD)).await, 200);
}

#[tokio::test]
async fn changes_of_factors_are_limited() {
    let home = Home::new();
    let server = home.start().await;
    let app = WithApp::add(&server, server.register(ANN).await).await;
    let (_, tokens) = answer(login_with_code(&server, ANN, &code(&app.secret, 1))).await;
    let pair = Pair::of(&tokens);
    let mut renewed = 0;
    while status(server.call("/api/account/renew_recovery_codes", &pair.access, json!({}))).await == 200 {
        renewed += 1;
        assert!(renewed < 100, "no limit");
    }
    assert!(renewed > 50, "{renewed}");
}

#[tokio::test]
async fn after_a_hundred_wrong_codes_only_a_recovery_code_lets_in() {
    let home = Home::new();
    let server = home.start().await;
    let ann = server.register(ANN).await;
    let app = WithApp::add(&server, ann).await;
    let wrong = code(&app.secret, -10);
    for _ in 0..100 {
        assert_eq!(status(login_with_code(&server, ANN, &wrong)).await, 401);
    }
    assert_wrong_code(login_with_code(&server, ANN, &code(&app.secret, 1)), "a right code").await;
    assert_eq!(status(login_with_code(&server, ANN, &app.recovery_codes[3])).await, 200);
    assert_eq!(status(login_with_code(&server, ANN, &code(&app.secret, 1))).await, 200);
}

#[tokio::test]
async fn app_is_in_use_once_a_code_was_entered() {
    let home = Home::new();
    let server = home.start().await;
    let ann = server.register(ANN).await;
    let call = |path: &str, body: Value| server.call(path, &ann.access, body);
    assert_eq!(
        status(call("/api/account/add_totp", json!({ "code": "123456" }))).await,
        409,
        "nothing begun"
    );
    let (_, first) = answer(call("/api/account/begin_totp", json!({}))).await;
    let (_, second) = answer(call("/api/account/begin_totp", json!({}))).await;
    let [first, second] = [&first, &second].map(|begun| begun["secret"].as_str().unwrap());
    assert_ne!(first, second);
    assert_eq!(status(server.try_login(ANN, PASSWORD)).await, 200, "not in use yet");
    let wrong = call("/api/account/add_totp", json!({ "code": code(first, 0) }));
    let (refused, why) = answer(wrong).await;
    assert_eq!((refused.as_u16(), why["fields"]["code"].is_string()), (422, true), "{why}");
    assert_eq!(status(call("/api/account/add_totp", json!({ "code": code(second, 0) }))).await, 200);
    let (_, tokens) = answer(login_with_code(&server, ANN, &code(second, 1))).await;
    for path in ["/api/account/begin_totp", "/api/account/add_totp"] {
        let body = json!({ "code": code(second, 1) });
        assert_eq!(status(server.call(path, &Pair::of(&tokens).access, body)).await, 409, "{path}");
    }
}

#[tokio::test]
async fn removed_app_is_not_asked_for_and_new_recovery_codes_end_the_old_ones() {
    let home = Home::new();
    let server = home.start().await;
    let ann = server.register(ANN).await;
    let app = WithApp::add(&server, ann).await;
    // The session that has added the app began without it.
    for path in ["/api/account/remove_totp", "/api/account/renew_recovery_codes"] {
        let (refused, why) =
            answer(server.call(path, &app.pair.access, json!({ "password": PASSWORD }))).await;
        assert_eq!((refused.as_u16(), &why["acr_values"]), (403, &json!("aal2")), "{path}: {why}");
    }
    let (_, tokens) = answer(login_with_code(&server, ANN, &code(&app.secret, 1))).await;
    let pair = Pair::of(&tokens);
    let (renewed, new) =
        answer(server.call("/api/account/renew_recovery_codes", &pair.access, json!({}))).await;
    assert_eq!((renewed.as_u16(), new["codes"].as_array().unwrap().len()), (200, 10));
    assert_wrong_code(login_with_code(&server, ANN, &app.recovery_codes[1]), "an old recovery code").await;
    let (removed, figures) = answer(server.call("/api/account/remove_totp", &pair.access, json!({}))).await;
    assert_eq!((removed.as_u16(), &figures["acknowledged"]), (200, &json!(1)), "{figures}");
    assert_eq!(status(server.me(&app.pair.access)).await, 401, "all other sessions end");
    assert_eq!(status(server.me(&pair.access)).await, 200);
    assert_eq!(status(server.try_login(ANN, PASSWORD)).await, 200);
    assert_eq!(status(server.call("/api/account/remove_totp", &pair.access, json!({}))).await, 404);
    assert_eq!(methods(&server, &pair.access).await["recovery_codes"], 0);
}

#[tokio::test]
async fn operator_can_remove_lost_factors() {
    let home = Home::new();
    let server = home.start().await;
    let ann = server.register(ANN).await;
    let app = WithApp::add(&server, ann).await;
    server.stop().await;
    home.wait_until_unlocked().await;
    let (output, text) = run(home.command().args(["user", "remove-factors", ANN]));
    assert!(output.status.success(), "{text}");
    let server = home.start().await;
    assert_eq!(status(server.me(&app.pair.access)).await, 401);
    let pair = server.login(ANN).await;
    assert!(server.events(&pair.access).await.contains(&json!("factors_removed")));
}
