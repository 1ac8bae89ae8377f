//! Passkeys: a sign-in without an address and a password, by the passkey that was added, once for each ceremony. Whatever
//! else a browser answers is refused.

use futures::future::join_all;
use hallpass::api::{error::ApiError, types::EndReason};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::{
    authenticator::{BACKED_UP, Passkey, USER_VERIFIED},
    factors::{WithApp, login_with_code},
    mailbox::Mailbox,
    support::*,
};

const ANN: &str = "ann@example.com";

/// The origin of a browser on the same machine.
pub fn origin(server: &Server) -> String {
    server.url.replace("127.0.0.1", "localhost")
}

async fn ok(request: RequestBuilder) -> Value {
    let (status, answer) = answer(request).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

/// A ceremony: what is to be sent back, and the options for the browser.
pub async fn begin(request: RequestBuilder) -> (String, String) {
    let begun = ok(request).await;
    let text = |name: &str| begun[name].as_str().unwrap().to_owned();
    (text("ceremony"), text("options"))
}

pub fn begin_passkey(server: &Server, pair: &Pair) -> RequestBuilder {
    server.call("/api/account/begin_passkey", &pair.access, json!({}))
}

fn add(server: &Server, pair: &Pair, ceremony: &str, answer: &Value, name: &str) -> RequestBuilder {
    let body = json!({ "ceremony": ceremony, "credential": answer.to_string(), "name": name });
    server.call("/api/account/add_passkey", &pair.access, body)
}

/// Adds a passkey to the account of this session.
pub async fn add_passkey(server: &Server, pair: &Pair) -> Passkey {
    let (ceremony, options) = begin(begin_passkey(server, pair)).await;
    let (passkey, made) = Passkey::make(&options, &origin(server));
    ok(add(server, pair, &ceremony, &made, "laptop")).await;
    passkey
}

pub fn begin_login(server: &Server) -> RequestBuilder {
    server.post("/api/auth/begin_passkey_login").json(&json!({}))
}

fn login(server: &Server, ceremony: &str, answer: &Value) -> RequestBuilder {
    let body = json!({ "ceremony": ceremony, "credential": answer.to_string(), "delivery": "body" });
    server.post("/api/auth/login_with_passkey").json(&body)
}

async fn login_with(server: &Server, passkey: &mut Passkey) -> Pair {
    let (ceremony, options) = begin(begin_login(server)).await;
    Pair::of(&ok(login(server, &ceremony, &passkey.sign_in(&options))).await)
}

async fn assert_refused(request: RequestBuilder, case: &str) {
    let (status, refused) = answer(request).await;
    assert_eq!((status.as_u16(), &refused["error"]), (401, &json!("invalid_grant")), "{case}: {refused}");
    assert_eq!(refused["message"], ApiError::wrong_passkey().to_string(), "{case}");
}

async fn passkeys(server: &Server, pair: &Pair) -> Vec<Value> {
    let methods = ok(server.call("/api/account/sign_in_methods", &pair.access, json!({}))).await;
    methods["passkeys"].as_array().unwrap().clone()
}

#[tokio::test]
async fn passkey_signs_in_without_an_address_and_its_removal_ends_other_sessions() {
    let home = Home::new();
    let server = home.start().await;
    let (one, other) = (server.register(ANN).await, server.login(ANN).await);
    let mut passkey = add_passkey(&server, &one).await;
    assert_invalid_token(&server.me(&other.access).send().await.unwrap(), "another session");
    let (_, why) = answer(server.refresh(&other.refresh)).await;
    assert_eq!(why["message"], EndReason::FactorsChanged.words());

    let pair = login_with(&server, &mut passkey).await;
    let (_, claims) = parts(&pair.access);
    assert_eq!((&claims["acr"], &claims["amr"]), (&json!("aal2"), &json!(["pop", "user", "mfa"])));
    assert_eq!(claims["email"], ANN);
    let listed = passkeys(&server, &pair).await;
    assert_eq!(
        (listed.len(), &listed[0]["name"], &listed[0]["is_backed_up"]),
        (1, &json!("laptop"), &json!(true))
    );
    assert!(listed[0]["last_used_at"].is_i64());
    // A passkey is another way to sign in: without an authenticator app the password remains enough.
    let by_password = server.login(ANN).await;

    let id = &listed[0]["passkey_id"];
    let rename = |name: &str| {
        server.call("/api/account/rename_passkey", &pair.access, json!({ "passkey_id": id, "name": name }))
    };
    assert_eq!(status(rename(" work laptop ")).await, 200);
    assert_eq!(passkeys(&server, &pair).await[0]["name"], "work laptop");
    for name in ["", " ", "a\nb", &"x".repeat(65)] {
        assert_eq!(status(rename(name)).await, 422, "{name:?}");
    }

    let removed =
        ok(server.call("/api/account/remove_passkey", &pair.access, json!({ "passkey_id": id }))).await;
    assert_eq!(removed["acknowledged"], 1);
    assert_invalid_token(&server.me(&by_password.access).send().await.unwrap(), "another session");
    assert_eq!(status(server.me(&pair.access)).await, 200, "the session that has removed it");
    let (ceremony, options) = begin(begin_login(&server)).await;
    assert_refused(login(&server, &ceremony, &passkey.sign_in(&options)), "a removed passkey").await;
    let events = server.events(&pair.access).await;
    assert!(
        events.contains(&json!("passkey_added")) && events.contains(&json!("passkey_removed")),
        "{events:?}"
    );
}

#[tokio::test]
async fn ceremony_is_completed_once_also_by_many_at_once() {
    let home = Home::new();
    let server = home.start().await;
    let pair = server.register(ANN).await;
    let mut passkey = add_passkey(&server, &pair).await;
    let (ceremony, options) = begin(begin_login(&server)).await;
    let signed = passkey.sign_in(&options);
    let attempts = join_all((0..8).map(|_| status(login(&server, &ceremony, &signed)))).await;
    assert_eq!(attempts.iter().filter(|status| **status == 200).count(), 1, "{attempts:?}");
    assert!(attempts.iter().all(|status| [200, 401].contains(&status.as_u16())), "{attempts:?}");
    assert_refused(login(&server, &ceremony, &signed), "a replay").await;
    // A new answer to the same ceremony, too.
    assert_refused(login(&server, &ceremony, &passkey.sign_in(&options)), "again").await;

    let (ceremony, options) = begin(begin_passkey(&server, &pair)).await;
    let (_, made) = Passkey::make(&options, &origin(&server));
    let attempts = join_all((0..8).map(|_| status(add(&server, &pair, &ceremony, &made, "phone")))).await;
    assert_eq!(attempts.iter().filter(|status| **status == 200).count(), 1, "{attempts:?}");
    assert!(attempts.iter().all(|status| [200, 409].contains(&status.as_u16())), "{attempts:?}");
    assert_eq!(passkeys(&server, &pair).await.len(), 2);
}

#[tokio::test]
async fn wrong_answer_starts_no_session() {
    let home = Home::new();
    let server = home.start().await;
    let (ann, bob) = (server.register(ANN).await, server.register("bob@example.com").await);
    let mut passkey = add_passkey(&server, &ann).await;
    let of_bob = add_passkey(&server, &bob).await;
    type Lie = fn(&mut Passkey);
    let lies: [(&str, Lie); 5] = [
        ("another origin", |passkey| passkey.origin = "http://localhost.example.com".into()),
        ("another site", |passkey| passkey.relying_party = "example.com".into()),
        ("no verification of the user", |passkey| passkey.flags &= !USER_VERIFIED),
        ("no user was there", |passkey| passkey.flags &= !1),
        ("backed up, but not able to", |passkey| passkey.flags = 1 | USER_VERIFIED | BACKED_UP),
    ];
    for (case, lie) in lies {
        let (truth, flags) = ((passkey.origin.clone(), passkey.relying_party.clone()), passkey.flags);
        lie(&mut passkey);
        let (ceremony, options) = begin(begin_login(&server)).await;
        assert_refused(login(&server, &ceremony, &passkey.sign_in(&options)), case).await;
        (passkey.origin, passkey.relying_party, passkey.flags) = (truth.0, truth.1, flags);
    }
    // Another user's id.
    let own = std::mem::replace(&mut passkey.user_handle, of_bob.user_handle.clone());
    let (ceremony, options) = begin(begin_login(&server)).await;
    assert_refused(login(&server, &ceremony, &passkey.sign_in(&options)), "another user").await;
    passkey.user_handle = own;
    // An answer to another ceremony, to one of another kind, to one that we did not begin.
    let (other, _) = begin(begin_login(&server)).await;
    let (of_adding, _) = begin(begin_passkey(&server, &ann)).await;
    let signed = passkey.sign_in(&options);
    let (state, tag) = ceremony.split_once('.').unwrap();
    for (case, ceremony) in [
        ("another ceremony", other.clone()),
        ("a ceremony of another kind", of_adding),
        ("no ceremony", String::new()),
        ("a forged ceremony", format!("{}.{tag}", other.split_once('.').unwrap().0)),
        ("without a tag", state.to_owned()),
        ("a short tag", format!("{state}.{}", &tag[..42])),
    ] {
        assert_refused(login(&server, &ceremony, &signed), case).await;
    }
    // Bytes that are changed.
    for field in ["signature", "authenticatorData", "clientDataJSON", "userHandle"] {
        let mut changed = signed.clone();
        let text = changed["response"][field].as_str().unwrap().to_owned();
        let flipped = if text.ends_with('A') { 'Q' } else { 'A' };
        changed["response"][field] = format!("{}{flipped}", &text[..text.len() - 1]).into();
        assert_refused(login(&server, &ceremony, &changed), field).await;
    }
    for (case, text) in [("empty", ""), ("not JSON", "{"), ("a list", "[]"), ("nothing in it", "{}")] {
        let body = json!({ "ceremony": ceremony, "credential": text, "delivery": "body" });
        assert_refused(server.post("/api/auth/login_with_passkey").json(&body), case).await;
    }
    assert_eq!(status(login(&server, &ceremony, &signed)).await, 200, "the right answer");
}

#[tokio::test]
async fn passkey_is_added_by_the_session_that_has_begun_and_once() {
    let home = Home::new();
    let server = home.start().await;
    let (ann, bob) = (server.register(ANN).await, server.register("bob@example.com").await);
    let (ceremony, options) = begin(begin_passkey(&server, &ann)).await;
    let (mut passkey, made) = Passkey::make(&options, &origin(&server));
    let (refused, why) = answer(add(&server, &bob, &ceremony, &made, "phone")).await;
    assert_eq!((refused.as_u16(), why["fields"]["credential"].is_string()), (422, true), "{why}");
    let again = server.login(ANN).await;
    assert_eq!(status(add(&server, &again, &ceremony, &made, "phone")).await, 422, "another session");
    let challenge =
        serde_json::from_str::<Value>(&options).unwrap()["challenge"].as_str().unwrap().to_owned();
    passkey.flags &= !USER_VERIFIED;
    let unverified = passkey.register(&challenge);
    assert_eq!(status(add(&server, &ann, &ceremony, &unverified, "phone")).await, 422, "not verified");
    passkey.flags |= USER_VERIFIED;
    let here = std::mem::replace(&mut passkey.origin, "http://example.com".into());
    assert_eq!(
        status(add(&server, &ann, &ceremony, &passkey.register(&challenge), "x")).await,
        422,
        "origin"
    );
    passkey.origin = here;
    let (login_ceremony, _) = begin(begin_login(&server)).await;
    assert_eq!(status(add(&server, &ann, &login_ceremony, &made, "phone")).await, 422, "another kind");
    for name in ["", "a\0b", &"x".repeat(65)] {
        assert_eq!(status(add(&server, &ann, &ceremony, &made, name)).await, 422, "{name:?}");
    }
    assert_eq!(status(add(&server, &ann, &ceremony, &made, &"é".repeat(64))).await, 200);
    // The same passkey in another ceremony, of another user.
    let (ceremony, options) = begin(begin_passkey(&server, &bob)).await;
    let challenge =
        serde_json::from_str::<Value>(&options).unwrap()["challenge"].as_str().unwrap().to_owned();
    assert_eq!(status(add(&server, &bob, &ceremony, &passkey.register(&challenge), "phone")).await, 409);
    let id = &passkeys(&server, &ann).await[0]["passkey_id"];
    for path in ["/api/account/rename_passkey", "/api/account/remove_passkey"] {
        let body = json!({ "passkey_id": id, "name": "mine" });
        assert_eq!(status(server.call(path, &bob.access, body)).await, 404, "{path}: of another user");
    }
    assert_eq!(status(server.me(&login_with(&server, &mut passkey).await.access)).await, 200);
}

/// What was begun with fewer factors, or with another password, is not completed after the change.
#[tokio::test]
async fn ceremony_is_void_after_a_change_of_the_account() {
    let home = Home::new();
    let server = home.start().await;
    let ann = server.register(ANN).await;
    let (ceremony, options) = begin(begin_passkey(&server, &ann)).await;
    let (_, made) = Passkey::make(&options, &origin(&server));
    let change = json!({ "current": PASSWORD, "new": "staple battery horse" });
    ok(server.call("/api/account/change_password", &ann.access, change)).await;
    assert_eq!(status(add(&server, &ann, &ceremony, &made, "phone")).await, 409);
    let (ceremony, options) = begin(begin_passkey(&server, &ann)).await;
    let (_, made) = Passkey::make(&options, &origin(&server));
    let app = WithApp::add(&server, ann).await;
    assert_eq!(status(add(&server, &app.pair, &ceremony, &made, "phone")).await, 409);
    assert!(passkeys(&server, &app.pair).await.is_empty());
}

/// Another person may have registered the address, before its owner confirms it by a reset.
#[tokio::test]
async fn reset_at_an_address_that_was_not_confirmed_removes_the_factors() {
    let home = Home::new();
    let (server, mailbox) = (home.start().await, Mailbox::of(&home));
    let eve = server.register(ANN).await;
    let mut of_eve = add_passkey(&server, &eve).await;
    WithApp::add(&server, eve).await;
    for (password, is_first) in [("staple battery horse", true), ("horse staple battery", false)] {
        ok(server.post("/api/auth/forgot_password").json(&json!({ "email": ANN }))).await;
        let token = mailbox.wait(if is_first { 1 } else { 2 }, ANN, "Reset").await;
        let used = rows(&home, "select id from mail_tokens where purpose = 'reset'").await;
        let token =
            token.into_iter().map(|mail| mail.token()).find(|token| token.starts_with(&used[0])).unwrap();
        let body = json!({ "token": token, "password": password });
        ok(server.post("/api/auth/reset_password").json(&body)).await;
        let (status, tokens) = answer(server.try_login(ANN, password)).await;
        if is_first {
            let (ceremony, options) = begin(begin_login(&server)).await;
            assert_refused(login(&server, &ceremony, &of_eve.sign_in(&options)), "of another person").await;
            assert_eq!(status, 200, "{tokens}");
            WithApp::add(&server, Pair::of(&tokens)).await;
        } else {
            // The address is confirmed now: the mails are one factor, and not two.
            assert_eq!((status.as_u16(), &tokens["error"]), (403, &json!("second_factor_required")));
        }
    }
}

#[tokio::test]
async fn counter_that_does_not_grow_is_refused() {
    let home = Home::new();
    let server = home.start().await;
    let ann = server.register(ANN).await;
    let mut passkey = add_passkey(&server, &ann).await;
    assert_eq!(passkeys(&server, &ann).await[0]["signatures"], 0);
    passkey.signatures = 6;
    let pair = login_with(&server, &mut passkey).await;
    assert_eq!(passkeys(&server, &pair).await[0]["signatures"], 7);
    for signatures in [2, 6] {
        passkey.signatures = signatures;
        let (ceremony, options) = begin(begin_login(&server)).await;
        assert_refused(login(&server, &ceremony, &passkey.sign_in(&options)), "a copy").await;
    }
    // Two answers with the same count, at the same time.
    let mut answers = Vec::new();
    for _ in 0..2 {
        passkey.signatures = 9;
        let (ceremony, options) = begin(begin_login(&server)).await;
        answers.push((ceremony, passkey.sign_in(&options)));
    }
    let attempts =
        join_all(answers.iter().map(|(ceremony, signed)| status(login(&server, ceremony, signed)))).await;
    assert_eq!(attempts.iter().filter(|status| **status == 200).count(), 1, "{attempts:?}");
}

#[tokio::test]
async fn ceremony_has_an_end() {
    let home = Home::new();
    let auth = auth(&home, NOW).await;
    auth.register(ANN, PASSWORD.into(), &caller(), NOW).await.unwrap();
    let begun = auth.begin_passkey_login(NOW).unwrap();
    let refused = auth.login_with_passkey((&begun.ceremony, "{}"), &caller(), None, NOW).await;
    assert_eq!(refused.unwrap_err(), ApiError::wrong_passkey());
    let pair = auth.login(ANN, (PASSWORD.into(), ""), &caller(), None, NOW).await.unwrap();
    let ann = auth.authorize(pair.access_token.expose(), NOW).await.unwrap();
    for (then, is_accepted) in [(NOW + 299, true), (NOW + 300, false), (NOW + 10_000, false)] {
        let begun = auth.begin_passkey(&ann, NOW).await.unwrap();
        let (mut passkey, made) = Passkey::make(&begun.options, "http://localhost:3000");
        let added = auth.add_passkey(&ann, (&begun.ceremony, &made.to_string()), "phone", then).await;
        assert_eq!(added.is_ok(), is_accepted, "{then}: {added:?}");
        if is_accepted {
            let begun = auth.begin_passkey_login(NOW).unwrap();
            let signed = passkey.sign_in(&begun.options).to_string();
            for (then, is_accepted) in [(NOW + 300, false), (NOW + 299, true)] {
                let answer = (begun.ceremony.as_str(), signed.as_str());
                let begun = auth.login_with_passkey(answer, &caller(), None, then).await;
                assert_eq!(begun.is_ok(), is_accepted, "{then}");
            }
        }
    }
}

#[tokio::test]
async fn passkey_lets_no_disabled_or_unconfirmed_user_in_and_twenty_are_the_most() {
    let home = Home::new();
    home.add_administrator("root@example.com");
    let server = home.start().await;
    let root = server.login("root@example.com").await;
    let ann = server.register(ANN).await;
    let mut passkey = add_passkey(&server, &ann).await;
    for _ in 1..20 {
        add_passkey(&server, &ann).await;
    }
    let (full, why) = answer(begin_passkey(&server, &ann)).await;
    assert_eq!(full, 409, "{why}");
    let id = parts(&ann.access).1["sub"].clone();
    ok(server.call("/api/admin/disable_user", &root.access, json!({ "user_id": id }))).await;
    let (ceremony, options) = begin(begin_login(&server)).await;
    assert_refused(login(&server, &ceremony, &passkey.sign_in(&options)), "a disabled user").await;
    // An account that was deleted and made again does not know it.
    let bob = server.register("bob@example.com").await;
    let mut of_bob = add_passkey(&server, &bob).await;
    ok(server.call("/api/account/delete", &bob.access, json!({ "password": PASSWORD }))).await;
    server.register("bob@example.com").await;
    let (ceremony, options) = begin(begin_login(&server)).await;
    assert_refused(login(&server, &ceremony, &of_bob.sign_in(&options)), "of a deleted account").await;
    assert_eq!(rows(&home, "select name from passkeys where user_id <> ''").await.len(), 20, "those of Ann");
}

/// Who has taken an account over, and changed its address, may have added a factor.
#[tokio::test]
async fn undone_change_of_the_address_removes_the_factors_of_the_last_days() {
    let home = Home::new();
    let (server, mailbox) = (home.start().await, Mailbox::of(&home));
    let ann = server.register(ANN).await;
    let token_to = async |address: &str, subject: &str| mailbox.wait_for(address, subject).await.token();
    let follow = |token: String| server.post("/api/auth/verify_email").json(&json!({ "token": token }));
    ok(follow(token_to(ANN, "Confirm").await)).await;
    let mut of_ann = add_passkey(&server, &ann).await;
    assert_eq!(
        rows(&home, "update passkeys set created_at = created_at - 604800 returning id").await.len(),
        1
    );
    let mut of_eve = add_passkey(&server, &ann).await;
    let body = json!({ "email": "eve@example.com", "password": PASSWORD });
    ok(server.call("/api/account/change_email", &ann.access, body)).await;
    ok(follow(token_to("eve@example.com", "Confirm your new").await)).await;
    let eve = login_with(&server, &mut of_eve).await;
    WithApp::add(&server, eve).await;
    ok(follow(token_to(ANN, "was changed").await)).await;
    let (ceremony, options) = begin(begin_login(&server)).await;
    assert_refused(login(&server, &ceremony, &of_eve.sign_in(&options)), "added lately").await;
    let pair = login_with(&server, &mut of_ann).await;
    let methods = ok(server.call("/api/account/sign_in_methods", &pair.access, json!({}))).await;
    assert_eq!((&methods["totp_added_at"], &methods["recovery_codes"]), (&json!(null), &json!(0)));
}

#[tokio::test]
async fn passkey_of_a_user_with_an_app_needs_no_code() {
    let home = Home::new();
    let server = home.start().await;
    let ann = server.register(ANN).await;
    let mut passkey = add_passkey(&server, &ann).await;
    let app = WithApp::add(&server, ann).await;
    let pair = login_with(&server, &mut passkey).await;
    assert_eq!(status(server.call("/api/account/remove_totp", &pair.access, json!({}))).await, 200);
    assert_eq!(status(login_with_code(&server, ANN, "")).await, 200);
    drop(app);
}

#[tokio::test]
async fn site_at_an_ip_address_has_no_passkeys() {
    let home = Home::with("[server]\npublic_url = \"http://10.0.0.7:8080\"\n");
    let server = home.start().await;
    let (unavailable, why) = answer(begin_login(&server)).await;
    assert_eq!(unavailable, 503, "{why}");
}
