//! The confirmation of addresses: of new accounts, of those that there are, and of changes.

use std::collections::BTreeSet;

use hallpass::api::{error::ApiError, types::EndReason};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::{mailbox::Mailbox, support::*};

const ANN: &str = "ann@example.com";
const NEW: &str = "ann@example.org";
const OTHER_PASSWORD: &str = "staple battery horse";
const FINISH: &str = "Finish creating";
const CONFIRM: &str = "Confirm your e-mail";
const MOVE: &str = "Confirm your new";
const MOVED: &str = "address of your";

fn try_register(server: &Server, email: &str, password: &str) -> RequestBuilder {
    let body = json!({ "email": email, "password": password, "delivery": "body" });
    server.post("/api/auth/register").json(&body)
}

fn verify(server: &Server, token: &str) -> RequestBuilder {
    server.post("/api/auth/verify_email").json(&json!({ "token": token }))
}

fn verify_with(server: &Server, token: &str, password: &str) -> RequestBuilder {
    server.post("/api/auth/verify_email").json(&json!({ "token": token, "password": password }))
}

async fn confirmed(server: &Server, token: &str) -> Value {
    let (status, answer) = answer(verify(server, token)).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

async fn profile(server: &Server, access: &str) -> Value {
    answer(server.call("/api/account/profile", access, json!({}))).await.1
}

fn change(server: &Server, access: &str, email: &str) -> RequestBuilder {
    server.call("/api/account/change_email", access, json!({ "email": email, "password": PASSWORD }))
}

fn requiring() -> Home {
    Home::with("[account]\nrequire_verified = true\n")
}

#[tokio::test]
async fn new_user_confirms_the_address_by_the_link() {
    let home = Home::new();
    let (server, mailbox) = (home.start().await, Mailbox::of(&home));
    let ann = server.register(ANN).await;
    assert_eq!(profile(&server, &ann.access).await["is_verified"], false);
    let token = mailbox.wait_for(ANN, CONFIRM).await.token();
    assert_eq!(confirmed(&server, &token).await, json!({ "confirmed": "verified" }));
    let profile = profile(&server, &ann.access).await;
    assert_eq!((&profile["is_verified"], &profile["email"]), (&json!(true), &json!(ANN)));
    let (status, refused) = answer(verify(&server, &token)).await;
    assert_eq!((status.as_u16(), &refused["error"]), (401, &json!("invalid_grant")), "once");
}

#[tokio::test]
async fn link_can_be_asked_for_again_three_times_a_day() {
    let home = Home::new();
    let (server, mailbox) = (home.start().await, Mailbox::of(&home));
    let ann = server.register(ANN).await;
    let again = || server.call("/api/account/send_verification", &ann.access, json!({}));
    for _ in 0..10 {
        assert_eq!(answer(again()).await, (reqwest::StatusCode::OK, json!({})));
    }
    let tokens = mailbox.wait(3, ANN, CONFIRM).await;
    assert_eq!(tokens.iter().map(|mail| mail.token()).collect::<BTreeSet<_>>().len(), 3);
    confirmed(&server, &tokens[2].token()).await;
    assert_eq!(answer(again()).await, (reqwest::StatusCode::OK, json!({})));
}

#[tokio::test]
async fn notices_are_sent_to_confirmed_addresses_only() {
    let home = Home::new();
    let (server, mailbox) = (home.start().await, Mailbox::of(&home));
    let (ann, bob) = (server.register(ANN).await, server.register("bob@example.com").await);
    confirmed(&server, &mailbox.wait_for(ANN, CONFIRM).await.token()).await;
    for (email, pair) in [("bob@example.com", &bob), (ANN, &ann)] {
        server.login(email).await;
        let change = json!({ "current": PASSWORD, "new": OTHER_PASSWORD });
        assert_eq!(status(server.call("/api/account/change_password", &pair.access, change)).await, 200);
    }
    let sign_in = mailbox.wait_for(ANN, "New sign-in").await;
    assert!(
        sign_in.text.contains("127.0.0.0/24") && sign_in.text.contains("Unknown device"),
        "{}",
        sign_in.text
    );
    mailbox.wait_for(ANN, "password was changed").await;
    assert_eq!(mailbox.to("bob@example.com", "").len(), 1, "the link to confirm the address");
}

#[tokio::test]
async fn sign_in_from_a_known_browser_sends_no_notice() {
    let home = Home::new();
    let (server, mailbox) = (home.start().await, Mailbox::of(&home));
    let browser = browser();
    let post = |path: &str| browser.post(format!("{}{path}", server.url));
    let body = json!({ "email": ANN, "password": PASSWORD });
    assert_eq!(status(post("/api/auth/register").json(&body)).await, 200);
    confirmed(&server, &mailbox.wait_for(ANN, CONFIRM).await.token()).await;
    assert_eq!(status(post("/api/auth/login").json(&body)).await, 200);
    // The next mail is that about another device, of which an account gets three in an hour.
    for _ in 0..6 {
        server.login(ANN).await;
    }
    server.post("/api/auth/forgot_password").json(&json!({ "email": ANN })).send().await.unwrap();
    mailbox.wait_for(ANN, "Reset").await;
    mailbox.wait(3, ANN, "New sign-in").await;
}

#[tokio::test]
async fn reused_refresh_token_is_reported() {
    let home = Home::with("[token]\nrefresh_grace_seconds = 0\n");
    let (server, mailbox) = (home.start().await, Mailbox::of(&home));
    let ann = server.register(ANN).await;
    confirmed(&server, &mailbox.wait_for(ANN, CONFIRM).await.token()).await;
    let next = Pair::of(&answer(server.refresh(&ann.refresh)).await.1);
    assert_eq!(status(server.refresh(&next.refresh)).await, 200);
    for _ in 0..3 {
        assert_eq!(status(server.refresh(&ann.refresh)).await, 401);
    }
    mailbox.wait_for(ANN, "session of yours was ended").await;
}

/// What an attacker sees of a registration does not depend on whether there is an account.
#[tokio::test]
async fn required_confirmation_does_not_show_who_is_registered() {
    let home = requiring();
    home.add_administrator(ANN);
    let (server, mailbox) = (home.start().await, Mailbox::of(&home));
    let mut answers = Vec::new();
    for email in [ANN, "new@example.com"] {
        let response = try_register(&server, email, OTHER_PASSWORD).send().await.unwrap();
        let headers: BTreeSet<_> = response.headers().keys().map(ToString::to_string).collect();
        answers.push((response.status(), headers, response.text().await.unwrap()));
    }
    assert_eq!(answers[0], answers[1]);
    let refused: Value = serde_json::from_str(&answers[0].2).unwrap();
    assert_eq!((answers[0].0.as_u16(), &refused["error"]), (403, &json!("verification_required")));
    mailbox.wait_for(ANN, "You already have").await;
    assert_eq!(status(server.try_login(ANN, OTHER_PASSWORD)).await, 401);
    assert_eq!(status(server.try_login(ANN, PASSWORD)).await, 200, "made on the command line");

    // Before the link is opened there is no account.
    assert_eq!(status(server.try_login("new@example.com", OTHER_PASSWORD)).await, 401);
    let token = mailbox.wait_for("new@example.com", FINISH).await.token();
    let made = answer(verify_with(&server, &token, OTHER_PASSWORD)).await;
    assert_eq!(made, (reqwest::StatusCode::OK, json!({ "confirmed": "registered" })));
    assert_eq!(status(server.try_login("new@example.com", OTHER_PASSWORD)).await, 200);
    assert_eq!(status(verify(&server, &token)).await, 401, "once");
}

/// A person who registers the address of another must not have a password of that account afterwards, whichever of the
/// mails the owner of the address opens.
#[tokio::test]
async fn link_of_another_persons_registration_gives_no_access() {
    let home = requiring();
    let (server, mailbox) = (home.start().await, Mailbox::of(&home));
    assert_eq!(status(try_register(&server, ANN, OTHER_PASSWORD)).await, 403);
    let of_attacker = mailbox.wait_for(ANN, FINISH).await;
    assert_eq!(status(try_register(&server, ANN, PASSWORD)).await, 403);
    let mails = mailbox.wait(2, ANN, FINISH).await;
    let mine = mails.iter().find(|mail| mail.id != of_attacker.id).unwrap();
    for password in ["", PASSWORD, "wrong password", &"x".repeat(10_000)] {
        let (refused, why) = answer(verify_with(&server, &of_attacker.token(), password)).await;
        assert_eq!((refused.as_u16(), why["fields"]["password"].is_string()), (422, true), "{why}");
    }
    assert_eq!(status(verify_with(&server, &mine.token(), PASSWORD)).await, 200);
    assert_eq!(status(verify_with(&server, &of_attacker.token(), OTHER_PASSWORD)).await, 401);
    assert_eq!(status(server.try_login(ANN, OTHER_PASSWORD)).await, 401);
    assert_eq!(status(server.try_login(ANN, PASSWORD)).await, 200);
    // A mailbox gets three such mails in a day.
    for _ in 0..5 {
        assert_eq!(status(try_register(&server, "bob@example.com", PASSWORD)).await, 403);
    }
    try_register(&server, "eve@example.com", PASSWORD).send().await.unwrap();
    mailbox.wait_for("eve@example.com", FINISH).await;
    mailbox.wait(3, "bob@example.com", FINISH).await;
}

#[tokio::test]
async fn user_of_before_the_requirement_confirms_at_the_next_login() {
    let home = Home::new();
    let server = home.start().await;
    server.register(ANN).await;
    server.stop().await;
    let settings = home.path().join("Leptos.toml");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, text.replace("[account]\n", "[account]\nrequire_verified = true\n")).unwrap();
    let (server, mailbox) = (home.start().await, Mailbox::of(&home));
    assert_eq!(status(server.try_login(ANN, OTHER_PASSWORD)).await, 401);
    let (refused, why) = answer(server.try_login(ANN, PASSWORD)).await;
    assert_eq!(
        (refused.as_u16(), &why["message"]),
        (403, &json!(ApiError::VerificationRequired.to_string()))
    );
    // That of the registration, and this one.
    let mails = mailbox.wait(2, ANN, CONFIRM).await;
    assert_eq!(
        status(verify(&server, &mails[0].token())).await,
        422,
        "another person may have made the account"
    );
    assert_eq!(status(verify_with(&server, &mails[0].token(), PASSWORD)).await, 200);
    assert_eq!(status(server.try_login(ANN, PASSWORD)).await, 200);
}

#[tokio::test]
async fn change_of_the_address_is_confirmed_at_the_new_one_and_can_be_undone_at_the_old_one() {
    let home = Home::new();
    let (server, mailbox) = (home.start().await, Mailbox::of(&home));
    let (ann, phone) = (server.register(ANN).await, server.login(ANN).await);
    confirmed(&server, &mailbox.wait_for(ANN, CONFIRM).await.token()).await;
    assert_eq!(answer(change(&server, &ann.access, NEW)).await, (reqwest::StatusCode::OK, json!({})));
    let token = mailbox.wait_for(NEW, MOVE).await.token();
    assert_eq!(status(server.try_login(NEW, PASSWORD)).await, 401, "not confirmed");
    assert_eq!(status(server.me(&ann.access)).await, 200);

    let answer_to_link = confirmed(&server, &token).await;
    assert_eq!(answer_to_link["confirmed"], "email_changed");
    assert_eq!(answer_to_link["revocation"]["acknowledged"], 1, "{answer_to_link}");
    for pair in [&ann, &phone] {
        assert_invalid_token(&server.me(&pair.access).send().await.unwrap(), "its token has the old address");
        let (_, why) = answer(server.refresh(&pair.refresh)).await;
        assert_eq!(why["message"].as_str().unwrap(), EndReason::EmailChanged.words());
    }
    assert_eq!(status(server.try_login(ANN, PASSWORD)).await, 401);
    let moved = server.login(NEW).await;
    assert_eq!(profile(&server, &moved.access).await["email"], NEW);

    let undo = mailbox.wait_for(ANN, MOVED).await.token();
    assert_eq!(confirmed(&server, &undo).await["confirmed"], "email_restored");
    assert_invalid_token(&server.me(&moved.access).send().await.unwrap(), "of the one who had changed it");
    for email in [ANN, NEW] {
        assert_eq!(status(server.try_login(email, PASSWORD)).await, 401, "the password is void");
    }
    mailbox.wait_for(ANN, "has this address again").await;
    server.post("/api/auth/forgot_password").json(&json!({ "email": ANN })).send().await.unwrap();
    let reset = mailbox.wait_for(ANN, "Reset").await.token();
    let body = json!({ "token": reset, "password": OTHER_PASSWORD });
    assert_eq!(status(server.post("/api/auth/reset_password").json(&body)).await, 200);
    assert_eq!(status(server.try_login(ANN, OTHER_PASSWORD)).await, 200);
}

/// A stranger to whom a mistyped address belongs must not get the account.
#[tokio::test]
async fn address_that_was_never_confirmed_cannot_take_the_account_back() {
    let home = Home::new();
    let (server, mailbox) = (home.start().await, Mailbox::of(&home));
    let ann = server.register("mistyped@example.com").await;
    assert_eq!(status(change(&server, &ann.access, ANN)).await, 200);
    confirmed(&server, &mailbox.wait_for(ANN, MOVE).await.token()).await;
    server.post("/api/auth/forgot_password").json(&json!({ "email": ANN })).send().await.unwrap();
    mailbox.wait_for(ANN, "Reset").await;
    assert_eq!(mailbox.to("mistyped@example.com", MOVED).len(), 0);
    server.register("mistyped@example.com").await;
}

/// A user can send mails to other addresses, but not to many.
#[tokio::test]
async fn mails_that_a_user_asks_for_are_limited() {
    let home = Home::new();
    let server = home.start().await;
    let ann = server.register(ANN).await;
    let mut statuses = Vec::new();
    for number in 0..25 {
        statuses
            .push(status(change(&server, &ann.access, &format!("user{number}@example.com"))).await.as_u16());
    }
    assert!(statuses[..20] == [200; 20] && statuses.contains(&429), "{statuses:?}");
}

/// Ann's account gets the address of a thief, and then another one.
async fn steal(server: &Server, mailbox: &Mailbox) {
    let mut pair = server.register(ANN).await;
    confirmed(server, &mailbox.wait_for(ANN, CONFIRM).await.token()).await;
    for next in ["eve@example.com", "mallory@example.com"] {
        assert_eq!(status(change(server, &pair.access, next)).await, 200);
        confirmed(server, &mailbox.wait_for(next, MOVE).await.token()).await;
        pair = server.login(next).await;
    }
}

/// A thief who moves an account on, again and again, must not win over its owner.
#[tokio::test]
async fn owner_of_the_first_address_wins_over_those_of_later_ones() {
    let home = Home::new();
    let (server, mailbox) = (home.start().await, Mailbox::of(&home));
    steal(&server, &mailbox).await;
    let of_owner = mailbox.wait_for(ANN, MOVED).await.token();
    let of_thief = mailbox.wait_for("eve@example.com", MOVED).await.token();
    // The address of the owner cannot be registered meanwhile, which would prevent that they have it back.
    assert_eq!(status(try_register(&server, ANN, PASSWORD)).await, 409);
    let other = server.register("bob@example.com").await;
    assert_eq!(status(change(&server, &other.access, ANN)).await, 200);
    let moved = mailbox.wait_for(ANN, MOVE).await.token();
    assert_eq!(status(verify(&server, &moved)).await, 401);

    confirmed(&server, &of_owner).await;
    assert_eq!(status(verify(&server, &of_thief)).await, 401);
    server.post("/api/auth/forgot_password").json(&json!({ "email": ANN })).send().await.unwrap();
    mailbox.wait_for(ANN, "Reset").await;
}

#[tokio::test]
async fn owner_wins_also_after_the_thief_has_moved_the_account_back() {
    let home = Home::new();
    let (server, mailbox) = (home.start().await, Mailbox::of(&home));
    steal(&server, &mailbox).await;
    confirmed(&server, &mailbox.wait_for("eve@example.com", MOVED).await.token()).await;
    confirmed(&server, &mailbox.wait_for(ANN, MOVED).await.token()).await;
    server.post("/api/auth/forgot_password").json(&json!({ "email": ANN })).send().await.unwrap();
    mailbox.wait_for(ANN, "Reset").await;
}

#[tokio::test]
async fn address_of_another_account_is_not_shown_to_be_taken() {
    let home = Home::new();
    let (server, mailbox) = (home.start().await, Mailbox::of(&home));
    let (ann, _) = (server.register(ANN).await, server.register("bob@example.com").await);
    let (free, taken) = (
        answer(change(&server, &ann.access, "new@example.com")).await,
        answer(change(&server, &ann.access, "bob@example.com")).await,
    );
    assert_eq!(free, taken);
    let note = mailbox.wait_for("bob@example.com", "has this address already").await;
    assert!(!note.text.contains("token="), "{}", note.text);
    // Two accounts ask for the same free address: the first one to confirm gets it.
    let carl = server.register("carl@example.com").await;
    assert_eq!(status(change(&server, &carl.access, "new@example.com")).await, 200);
    let links = mailbox.wait(2, "new@example.com", MOVE).await;
    confirmed(&server, &links[0].token()).await;
    assert_eq!(status(verify(&server, &links[1].token())).await, 401);
}

#[tokio::test]
async fn change_of_the_address_needs_the_password_and_an_acceptable_address() {
    let home = Home::new();
    let (server, mailbox) = (home.start().await, Mailbox::of(&home));
    let ann = server.register(ANN).await;
    let call = |body: Value| answer(server.call("/api/account/change_email", &ann.access, body));
    for (email, password, field) in [
        (NEW, "wrong password", "password"),
        ("", PASSWORD, "email"),
        ("ann", PASSWORD, "email"),
        ("ann@example.org\r\nBcc: eve@example.com", PASSWORD, "email"),
        (ANN, PASSWORD, "email"),
        (" Ann@Example.com ", PASSWORD, "email"),
    ] {
        let (status, refused) = call(json!({ "email": email, "password": password })).await;
        assert_eq!(
            (status.as_u16(), refused["fields"][field].is_string()),
            (422, true),
            "{email:?}: {refused}"
        );
    }
    let (status, _) = answer(server.post("/api/account/change_email").json(&json!({ "email": NEW }))).await;
    assert_eq!(status, 401);
    // Within five minutes of the login.
    assert_eq!(call(json!({ "email": "jos\u{e9}@b\u{fc}cher.example" })).await.0, 200);
    let mail = mailbox.wait_for("jos\u{e9}@xn--bcher-kva.example", MOVE).await;
    confirmed(&server, &mail.token()).await;
    assert_eq!(status_of_login(&server, "jos\u{e9}@b\u{fc}cher.example").await, 200);
}

async fn status_of_login(server: &Server, email: &str) -> reqwest::StatusCode {
    status(server.try_login(email, PASSWORD)).await
}
