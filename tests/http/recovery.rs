//! A forgotten password: the link works once, for the one who gets the mail, and a reset ends every session.

use std::collections::BTreeSet;

use futures::future::join_all;
use hallpass::{
    api::{error::ApiError, types::EndReason},
    server::auth::Auth,
};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::{mailbox::Mailbox, support::*};

const ANN: &str = "ann@example.com";
const NEW: &str = "staple battery horse";
const RESET: &str = "Reset your";

fn forgot(server: &Server, email: &str) -> RequestBuilder {
    server.post("/api/auth/forgot_password").json(&json!({ "email": email }))
}

fn reset(server: &Server, token: &str, password: &str) -> RequestBuilder {
    server.post("/api/auth/reset_password").json(&json!({ "token": token, "password": password }))
}

/// Asks for a link, and returns its token.
async fn ask(server: &Server, mailbox: &Mailbox, email: &str) -> String {
    let before: BTreeSet<_> = mailbox.to(email, RESET).into_iter().map(|mail| mail.id).collect();
    assert_eq!(answer(forgot(server, email)).await, (reqwest::StatusCode::OK, json!({})));
    let mails = mailbox.wait(before.len() + 1, email, RESET).await;
    mails.into_iter().find(|mail| !before.contains(&mail.id)).unwrap().token()
}

async fn assert_dead(server: &Server, token: &str, case: &str) {
    let (status, refused) = answer(reset(server, token, NEW)).await;
    assert_eq!((status.as_u16(), &refused["error"]), (401, &json!("invalid_grant")), "{case}: {refused}");
    assert_eq!(refused["message"], ApiError::dead_mail_token().to_string(), "{case}");
}

#[tokio::test]
async fn reset_ends_every_session_before_it_answers() {
    let home = Home::new();
    let (server, mailbox) = (home.start().await, Mailbox::of(&home));
    let (one, other) = (server.register(ANN).await, server.login(ANN).await);
    let bob = server.register("bob@example.com").await;
    let token = ask(&server, &mailbox, ANN).await;
    let (status_of_reset, confirmed) = answer(reset(&server, &token, NEW)).await;
    assert_eq!(status_of_reset, 200, "{confirmed}");
    assert_eq!((&confirmed["instances"], &confirmed["acknowledged"]), (&json!(1), &json!(1)));
    assert!(confirmed.get("access_token").is_none(), "a reset starts no session: {confirmed}");
    for pair in [&one, &other] {
        assert_invalid_token(&server.me(&pair.access).send().await.unwrap(), "a session of before");
        let (refused, why) = answer(server.refresh(&pair.refresh)).await;
        assert_eq!(
            (refused.as_u16(), why["message"].as_str().unwrap()),
            (401, EndReason::PasswordReset.words())
        );
    }
    assert_eq!(status(server.me(&bob.access)).await, 200);
    assert_eq!(status(server.try_login(ANN, PASSWORD)).await, 401);
    let (_, again) = answer(server.try_login(ANN, NEW)).await;
    let events = server.events(&Pair::of(&again).access).await;
    assert!(events.contains(&json!("password_reset")), "{events:?}");
    // Who receives the link receives mail at the address.
    let profile = answer(server.call("/api/account/profile", &Pair::of(&again).access, json!({}))).await.1;
    assert_eq!(profile["is_verified"], true);
    mailbox.wait_for(ANN, "password was reset").await;
}

#[tokio::test]
async fn link_works_once_also_for_two_at_once() {
    let home = Home::new();
    let (server, mailbox) = (home.start().await, Mailbox::of(&home));
    server.register(ANN).await;
    let token = ask(&server, &mailbox, ANN).await;
    // What a mail program looks up, or a scanner of links, changes nothing.
    for path in ["/reset", "/verify"] {
        for method in [reqwest::Method::GET, reqwest::Method::HEAD] {
            let page = server.client.request(method, format!("{}{path}?token={token}", server.url));
            assert_eq!(status(page).await, 200);
        }
    }
    let passwords: Vec<_> = (0..8).map(|number| format!("{NEW} {number}")).collect();
    let resets = passwords.iter().map(|password| status(reset(&server, &token, password)));
    let statuses = join_all(resets).await;
    let winners: Vec<_> = (0..8).filter(|&index| statuses[index] == 200).collect();
    assert_eq!(winners.len(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status.as_u16(), 200 | 401)), "{statuses:?}");
    for (index, password) in passwords.iter().enumerate() {
        let expected = if index == winners[0] { 200 } else { 401 };
        assert_eq!(status(server.try_login(ANN, password)).await, expected, "{index}");
    }
    assert_dead(&server, &token, "used").await;
}

#[tokio::test]
async fn link_is_void_after_any_change_of_password_or_address() {
    let home = Home::new();
    let (server, mailbox) = (home.start().await, Mailbox::of(&home));
    let (first, second) = {
        server.register(ANN).await;
        (ask(&server, &mailbox, ANN).await, ask(&server, &mailbox, ANN).await)
    };
    assert_eq!(status(reset(&server, &first, NEW)).await, 200);
    assert_dead(&server, &second, "after another reset").await;

    let third = ask(&server, &mailbox, ANN).await;
    let (_, tokens) = answer(server.try_login(ANN, NEW)).await;
    let access = Pair::of(&tokens).access;
    let change = json!({ "current": NEW, "new": PASSWORD });
    assert_eq!(status(server.call("/api/account/change_password", &access, change)).await, 200);
    assert_dead(&server, &third, "after a change of the password").await;

    let fourth = ask(&server, &mailbox, ANN).await;
    let change = json!({ "email": "ann@example.org", "password": PASSWORD });
    assert_eq!(status(server.call("/api/account/change_email", &access, change)).await, 200);
    let link = mailbox.wait_for("ann@example.org", "Confirm your new").await.token();
    let confirm = server.post("/api/auth/verify_email").json(&json!({ "token": link }));
    assert_eq!(status(confirm).await, 200);
    assert_dead(&server, &fourth, "after a change of the address").await;
    assert_eq!(status(server.try_login("ann@example.org", PASSWORD)).await, 200);
}

#[tokio::test]
async fn forged_truncated_or_foreign_token_is_refused() {
    let home = Home::new();
    let (server, mailbox) = (home.start().await, Mailbox::of(&home));
    let ann = server.register(ANN).await;
    server.register("bob@example.com").await;
    let (token, of_bob) =
        (ask(&server, &mailbox, ANN).await, ask(&server, &mailbox, "bob@example.com").await);
    let verify = mailbox.wait_for(ANN, "Confirm your e-mail").await.token();
    let (id, tag) = token.split_once('.').unwrap();
    let (id_of_bob, tag_of_bob) = of_bob.split_once('.').unwrap();
    for (forged, case) in [
        ("", "empty"),
        (&token[..token.len() - 1], "truncated"),
        (id, "without its tag"),
        (&format!("{id}.{tag_of_bob}"), "with the tag of another"),
        (&format!("{id_of_bob}.{tag}"), "with the id of another"),
        (&token.to_lowercase(), "in lower case"),
        (&"x".repeat(10_000), "long"),
        (&verify, "for another purpose"),
        (&ann.access, "an access token"),
        (&ann.refresh, "a refresh token"),
    ] {
        assert_dead(&server, forged, case).await;
    }
    let confirm = server.post("/api/auth/verify_email").json(&json!({ "token": token }));
    assert_eq!(status(confirm).await, 401, "a token for a reset confirms no address");
    // All of that used up neither of them.
    assert_eq!(status(reset(&server, &verify, NEW)).await, 401);
    assert_eq!(status(reset(&server, &format!(" {token} \n"), NEW)).await, 200, "as copied from a mail");
    assert_eq!(status(reset(&server, &of_bob, NEW)).await, 200);
}

#[tokio::test]
async fn unacceptable_password_does_not_use_up_the_link() {
    let home = Home::new();
    let (server, mailbox) = (home.start().await, Mailbox::of(&home));
    server.register(ANN).await;
    let token = ask(&server, &mailbox, ANN).await;
    for bad in ["", "short", "password1234", ANN, &"p".repeat(129)] {
        let (status, refused) = answer(reset(&server, &token, bad)).await;
        assert_eq!((status.as_u16(), refused["fields"]["password"].is_string()), (422, true), "{refused}");
    }
    assert_eq!(status(reset(&server, &token, NEW)).await, 200);
}

#[tokio::test]
async fn answer_is_the_same_for_those_who_have_no_account() {
    let home = Home::new();
    home.add_administrator("root@example.com");
    let (server, mailbox) = (home.start().await, Mailbox::of(&home));
    let root = server.login("root@example.com").await;
    server.register(ANN).await;
    let gone = server.register("gone@example.com").await;
    let (_, me) = answer(server.me(&gone.access)).await;
    let disable = server.call("/api/admin/disable_user", &root.access, json!({ "user_id": me["sub"] }));
    assert_eq!(status(disable).await, 200);
    let mut answers = Vec::new();
    for email in [ANN, "nobody@example.com", "gone@example.com"] {
        let response = forgot(&server, email).send().await.unwrap();
        let headers: BTreeSet<_> = response.headers().keys().map(ToString::to_string).collect();
        answers.push((response.status(), headers, response.text().await.unwrap()));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    assert_eq!((answers[0].0.as_u16(), &*answers[0].2), (200, "{}"));
    mailbox.wait_for(ANN, RESET).await;
    // Sent after the others.
    assert_eq!(status(forgot(&server, "root@example.com")).await, 200);
    mailbox.wait_for("root@example.com", RESET).await;
    assert_eq!(mailbox.to("nobody@example.com", "").len() + mailbox.to("gone@example.com", RESET).len(), 0);
    for malformed in ["", "ann", "ann@example.com\r\nBcc: eve@example.com", "a@b@c", &"a".repeat(300)] {
        assert_eq!(status(forgot(&server, malformed)).await, 422, "{malformed:?}");
    }
}

/// The mailbox of a user cannot be flooded, and the links that are in it stay valid.
#[tokio::test]
async fn mailbox_gets_three_links_at_a_time() {
    let home = Home::new();
    let (server, mailbox) = (home.start().await, Mailbox::of(&home));
    server.register(ANN).await;
    server.register("bob@example.com").await;
    let first = ask(&server, &mailbox, ANN).await;
    for spelling in [ANN, "Ann@Example.com", " ann@example.com "].iter().cycle().take(30) {
        assert_eq!(answer(forgot(&server, spelling)).await, (reqwest::StatusCode::OK, json!({})));
    }
    ask(&server, &mailbox, "bob@example.com").await;
    mailbox.wait(3, ANN, RESET).await;
    assert_eq!(status(reset(&server, &first, NEW)).await, 200);
}

#[tokio::test]
async fn requests_are_limited_by_the_address_of_the_client() {
    let home = Home::with("[throttle]\nper_address = 5\n");
    let server = home.start().await;
    let mut statuses = Vec::new();
    for number in 0..8 {
        statuses.push(status(forgot(&server, &format!("user{number}@example.com"))).await.as_u16());
    }
    assert_eq!(statuses[..5], [200; 5]);
    assert!(statuses.contains(&429), "{statuses:?}");
}

/// The user alone knows the password, from the first moment on.
#[tokio::test]
async fn invited_user_chooses_the_first_password() {
    let home = Home::new();
    let (server, mailbox) = (home.start().await, Mailbox::of(&home));
    let invite = || run(home.command().args(["user", "invite", ANN]));
    let (output, text) = invite();
    assert!(output.status.success(), "{text}");
    let printed = text.split_once("/reset?token=").unwrap().1.trim().to_owned();
    assert_eq!(mailbox.wait_for(ANN, "Your Hallpass account").await.token(), printed);
    for password in ["", PASSWORD, "x"] {
        assert!(matches!(status(server.try_login(ANN, password)).await.as_u16(), 401 | 422), "{password:?}");
    }
    let (output, text) = invite();
    assert!(!output.status.success() && text.contains("already exists"), "{text}");
    assert_eq!(status(reset(&server, &printed, PASSWORD)).await, 200);
    assert_dead(&server, &printed, "used").await;
    assert_eq!(status(server.try_login(ANN, PASSWORD)).await, 200);
}

/// Without HTTP, because the time is an argument.
#[tokio::test]
async fn link_works_for_twenty_minutes() {
    let home = Home::new();
    let auth = auth(&home, NOW).await;
    auth.register(ANN, PASSWORD.into(), &caller(), NOW).await.unwrap();
    let token = async |auth: &Auth| -> Value {
        auth.forgot_password(ANN, &caller(), NOW).await.unwrap();
        let ids = rows(&home, "select mail from outbox where mail like '%reset%'").await;
        serde_json::from_str(ids.last().unwrap()).unwrap()
    };
    let id = token(&auth).await["token"].as_str().unwrap().parse().unwrap();
    let token = auth.mail_token(id);
    let late = auth.reset_password(&token, NEW.into(), NOW + 20 * 60).await;
    assert_eq!(late.unwrap_err(), ApiError::dead_mail_token());
    auth.reset_password(&token, NEW.into(), NOW + 20 * 60 - 1).await.unwrap();
}
