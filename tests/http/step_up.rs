//! Step-up: what needs a recent sign-in or a second factor is refused without, with the status that keeps "401 means that
//! the token is dead" true, and goes on after the user has signed in again.

use hallpass::{
    api::{
        error::ApiError,
        types::{Assurance, EndReason, StepUp},
    },
    server::auth::Auth,
};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::{
    factors::{WithApp, login_with_code},
    passkeys,
    support::*,
    totp::{code, code_at},
};

const ANN: &str = "ann@example.com";
const ROOT: &str = "root@example.com";

/// The settings with which administrators need a second factor, which is the default.
const DEFAULT: &str = "[account]\nrequire_verified = false\nadmin_second_factor = true\n";

fn reauthenticate(server: &Server, pair: &Pair, password: &str, code: &str) -> RequestBuilder {
    let body = json!({ "password": password, "code": code, "delivery": "body" });
    server.call("/api/account/reauthenticate", &pair.access, body)
}

async fn assert_needs(request: RequestBuilder, acr: &str, max_age: i64, case: &str) {
    let response = request.send().await.unwrap();
    let challenge = response.headers()["www-authenticate"].to_str().unwrap().to_owned();
    let (status, body) = (response.status(), response.json::<Value>().await.unwrap());
    assert_eq!(
        (status.as_u16(), &body["error"]),
        (403, &json!("insufficient_user_authentication")),
        "{case}"
    );
    assert_eq!((&body["acr_values"], &body["max_age"]), (&json!(acr), &json!(max_age)), "{case}: {body}");
    let expected = format!(
        "Bearer error=\"insufficient_user_authentication\", acr_values=\"{acr}\", max_age=\"{max_age}\""
    );
    assert_eq!(challenge, expected, "{case}");
}

#[tokio::test]
async fn administrators_need_a_second_factor_to_change_others() {
    let home = Home::with(DEFAULT);
    home.add_administrator(ROOT);
    let server = home.start().await;
    let ann = server.register(ANN).await;
    let root = server.login(ROOT).await;
    let (user_id, session_id) = (parts(&ann.access).1["sub"].clone(), &ann.session);
    let changes = [
        ("disable_user", json!({ "user_id": user_id })),
        ("enable_user", json!({ "user_id": user_id })),
        ("set_role", json!({ "user_id": user_id, "role": "admin" })),
        ("revoke_session", json!({ "session_id": session_id })),
        ("revoke_sessions", json!({ "user_id": user_id })),
        ("revoke_all_sessions", json!({})),
    ];
    for (call, body) in &changes {
        let request = server.call(&format!("/api/admin/{call}"), &root.access, body.clone());
        assert_needs(request, "aal2", 900, call).await;
    }
    assert_eq!(status(server.me(&ann.access)).await, 200, "nothing was changed");
    // To look is allowed, and others are refused as before.
    assert_eq!(status(server.call("/api/admin/users", &root.access, json!({}))).await, 200);
    for (call, body) in &changes {
        let request = server.call(&format!("/api/admin/{call}"), &ann.access, body.clone());
        let (status, refused) = answer(request).await;
        assert_eq!((status.as_u16(), &refused["error"]), (403, &json!("insufficient_scope")), "{call}");
    }
    // Adding the factor is not yet signing in with it.
    let app = WithApp::add(&server, root).await;
    let disable =
        |pair: &Pair| server.call("/api/admin/disable_user", &pair.access, json!({ "user_id": user_id }));
    assert_needs(disable(&app.pair), "aal2", 900, "before the code").await;
    let (accepted, tokens) =
        answer(reauthenticate(&server, &app.pair, PASSWORD, &code(&app.secret, 1))).await;
    assert_eq!(accepted, 200, "{tokens}");
    assert_eq!(status(disable(&Pair::of(&tokens))).await, 200);
    assert_eq!(status(server.me(&ann.access)).await, 401);
}

#[tokio::test]
async fn to_sign_in_again_begins_a_session_and_ends_the_one_before() {
    let home = Home::new();
    let server = home.start().await;
    let ann = server.register(ANN).await;
    for (password, field) in [("wrong horse battery", "password"), ("", "password")] {
        let (refused, why) = answer(reauthenticate(&server, &ann, password, "")).await;
        assert_eq!((refused.as_u16(), why["fields"][field].is_string()), (422, true), "{password:?}: {why}");
    }
    assert_eq!(status(server.me(&ann.access)).await, 200, "a wrong password ends nothing");
    let (_, tokens) = answer(reauthenticate(&server, &ann, PASSWORD, "")).await;
    let new = Pair::of(&tokens);
    assert_ne!(new.session, ann.session);
    assert_invalid_token(&server.me(&ann.access).send().await.unwrap(), "the session before");
    let (_, why) = answer(server.refresh(&ann.refresh)).await;
    assert_eq!(why["message"], EndReason::Replaced.words());
    assert_eq!(status(server.me(&new.access)).await, 200);
    assert_eq!(status(server.refresh(&new.refresh)).await, 200);

    let app = WithApp::add(&server, server.login(ANN).await).await;
    let (refused, why) = answer(reauthenticate(&server, &app.pair, PASSWORD, "")).await;
    assert_eq!((refused.as_u16(), &why["error"]), (403, &json!("second_factor_required")), "{why}");
    let (refused, why) = answer(reauthenticate(&server, &app.pair, PASSWORD, &code(&app.secret, -5))).await;
    assert_eq!((refused.as_u16(), why["fields"]["code"].is_string()), (422, true), "{why}");
    assert_eq!(status(reauthenticate(&server, &app.pair, PASSWORD, &code(&app.secret, 1))).await, 200);
    // No token, or a dead one, is answered as everywhere.
    assert_eq!(status(server.post("/api/account/reauthenticate").json(&json!({}))).await, 401);
    assert_eq!(status(reauthenticate(&server, &app.pair, PASSWORD, "")).await, 401);
}

#[tokio::test]
async fn browser_that_signs_in_again_has_one_session() {
    let home = Home::new();
    let server = home.start().await;
    let browser = browser();
    let post = |path: &str, body: Value, bearer: Option<&str>| {
        let request = browser.post(format!("{}{path}", server.url)).json(&body);
        match bearer {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    };
    let credentials = json!({ "email": ANN, "password": PASSWORD });
    let (_, first) = answer(post("/api/auth/register", credentials, None)).await;
    let bearer = first["access_token"].as_str().unwrap();
    let again = post("/api/account/reauthenticate", json!({ "password": PASSWORD }), Some(bearer));
    let (status, second) = answer(again).await;
    assert_eq!((status.as_u16(), second.get("refresh_token")), (200, None), "{second}");
    let (status, third) = answer(post("/api/auth/refresh", json!({}), None)).await;
    assert_eq!(status, 200, "{third}");
    assert_eq!(third["session_id"], second["session_id"]);
    assert_eq!(server.sessions(third["access_token"].as_str().unwrap()).await.len(), 1);
}

#[tokio::test]
async fn change_of_the_own_account_needs_all_factors_lately() {
    let home = Home::with(DEFAULT);
    let auth = auth(&home, NOW).await;
    let pair = auth.register(ANN, PASSWORD.into(), &caller(), NOW).await.unwrap();
    let ann = auth.authorize(pair.access_token.expose(), NOW).await.unwrap();
    let needs = |acr| Err(ApiError::ReauthenticationRequired(StepUp { acr, max_age: 300 }));
    assert_eq!(auth.require_recent(&ann, "".into(), NOW + 300).await, Ok(()));
    assert_eq!(auth.require_recent(&ann, "".into(), NOW + 301).await, needs(Assurance::Aal1));
    assert_eq!(auth.require_recent(&ann, PASSWORD.into(), NOW + 301).await, Ok(()));
    let secret = add_app(&auth, &ann).await;
    // The password is not enough any more, and neither is the session that began with it.
    assert_eq!(auth.require_recent(&ann, "".into(), NOW).await, needs(Assurance::Aal2));
    assert_eq!(auth.require_recent(&ann, PASSWORD.into(), NOW).await, needs(Assurance::Aal2));
    let at = NOW + 60;
    let proof = (PASSWORD.into(), &*code_at(&secret, at));
    let pair = auth.reauthenticate(&ann, proof, &caller(), None, at).await.unwrap();
    let ann = auth.authorize(pair.access_token.expose(), at).await.unwrap();
    assert_eq!(auth.require_recent(&ann, "".into(), at + 300).await, Ok(()));
    assert_eq!(auth.require_recent(&ann, "".into(), at + 301).await, needs(Assurance::Aal2));
    assert_eq!(auth.require_recent(&ann, PASSWORD.into(), at + 301).await, needs(Assurance::Aal2));
}

/// Otherwise the password would be enough to add another passkey, and the passkey worth no more than the password.
#[tokio::test]
async fn administrator_with_a_passkey_needs_it_to_change_factors() {
    let home = Home::with(DEFAULT);
    home.add_administrator(ROOT);
    let server = home.start().await;
    let root = server.login(ROOT).await;
    // The first one: the password is all there is.
    let mut passkey = passkeys::add_passkey(&server, &root).await;
    let by_password = server.login(ROOT).await;
    for (call, body) in [
        ("begin_passkey", json!({ "password": PASSWORD })),
        ("begin_totp", json!({ "password": PASSWORD })),
        ("remove_passkey", json!({ "password": PASSWORD, "passkey_id": "AAAAAAAAAAAAAAAAAAAAAA" })),
    ] {
        let request = server.call(&format!("/api/account/{call}"), &by_password.access, body);
        assert_needs(request, "aal2", 300, call).await;
    }
    let (ceremony, options) = passkeys::begin(passkeys::begin_login(&server)).await;
    let body = json!({
        "ceremony": ceremony, "credential": passkey.sign_in(&options).to_string(), "delivery": "body",
    });
    let again = server.call("/api/account/reauthenticate_with_passkey", &by_password.access, body);
    let (accepted, tokens) = answer(again).await;
    assert_eq!(accepted, 200, "{tokens}");
    let confirmed = Pair::of(&tokens);
    assert_eq!(status(server.call("/api/account/begin_totp", &confirmed.access, json!({}))).await, 200);
    let disable = server.call("/api/admin/disable_user", &confirmed.access, json!({ "user_id": "x" }));
    assert_eq!(status(disable).await, 404, "confirmed, and there is no such user");
    assert_invalid_token(&server.me(&by_password.access).send().await.unwrap(), "the session before");
}

#[tokio::test]
async fn passkey_of_another_user_does_not_sign_in_again() {
    let home = Home::new();
    let server = home.start().await;
    let (ann, bob) = (server.register(ANN).await, server.register("bob@example.com").await);
    let mut of_bob = passkeys::add_passkey(&server, &bob).await;
    let (ceremony, options) = passkeys::begin(passkeys::begin_login(&server)).await;
    let body = json!({ "ceremony": ceremony, "credential": of_bob.sign_in(&options).to_string() });
    let (refused, why) =
        answer(server.call("/api/account/reauthenticate_with_passkey", &ann.access, body)).await;
    assert_eq!((refused.as_u16(), why["fields"]["credential"].is_string()), (422, true), "{why}");
    assert_eq!(status(server.me(&ann.access)).await, 200);
}

/// A new password needs the second factor, too: the present one is not enough for somebody at the user's desk.
#[tokio::test]
async fn new_password_needs_the_second_factor_lately() {
    let home = Home::new();
    let server = home.start().await;
    let app = WithApp::add(&server, server.register(ANN).await).await;
    let body = json!({ "current": PASSWORD, "new": "staple battery horse" });
    let change = |pair: &Pair| server.call("/api/account/change_password", &pair.access, body.clone());
    assert_needs(change(&app.pair), "aal2", 300, "the session that has added the app").await;
    let (_, tokens) = answer(login_with_code(&server, ANN, &code(&app.secret, 1))).await;
    assert_eq!(status(change(&Pair::of(&tokens))).await, 200);
    // The factor stays with the new password.
    let (refused, why) = answer(server.try_login(ANN, "staple battery horse")).await;
    assert_eq!((refused.as_u16(), &why["error"]), (403, &json!("second_factor_required")), "{why}");
}

async fn add_app(auth: &Auth, user: &hallpass::server::auth::authenticate::Authenticated) -> String {
    let made = auth.begin_totp(user, NOW).await.unwrap();
    auth.add_totp(user, &code_at(&made.secret, NOW), NOW).await.unwrap();
    made.secret
}

#[tokio::test]
async fn administrator_counts_as_confirmed_for_exactly_fifteen_minutes() {
    let home = Home::with(DEFAULT);
    home.add_administrator(ROOT);
    let auth = auth(&home, NOW).await;
    let pair = auth.login(ROOT, (PASSWORD.into(), ""), &caller(), None, NOW).await.unwrap();
    let root = auth.authorize(pair.access_token.expose(), NOW).await.unwrap();
    let secret = add_app(&auth, &root).await;
    let at = NOW + 60;
    let pair = auth.login(ROOT, (PASSWORD.into(), &code_at(&secret, at)), &caller(), None, at).await.unwrap();
    let root = auth.authorize(pair.access_token.expose(), at).await.unwrap().administrator().unwrap();
    assert!(auth.confirm(root.clone(), at + 900).await.is_ok());
    let refused = auth.confirm(root, at + 901).await.unwrap_err();
    assert_eq!(refused, ApiError::ReauthenticationRequired(StepUp { acr: Assurance::Aal2, max_age: 900 }));
}

#[tokio::test]
async fn token_of_an_earlier_version_says_nothing_about_the_sign_in_and_is_accepted() {
    let home = Home::new();
    let server = home.start().await;
    let ann = server.register(ANN).await;
    let (header, mut claims) = parts(&ann.access);
    for claim in ["acr", "amr", "auth_time"] {
        claims.as_object_mut().unwrap().remove(claim).unwrap();
    }
    let older = sign(header.as_bytes(), claims.to_string().as_bytes());
    assert_eq!(status(server.me(&older)).await, 200);
    // Without an authenticator app, a code means nothing.
    assert_eq!(status(login_with_code(&server, ANN, "123456")).await, 200);
}
