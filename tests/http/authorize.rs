//! The tokens that are accepted: live ones, and nothing that merely looks like one.

use crate::support::*;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use serde_json::{Value, json};

#[tokio::test]
async fn every_call_except_the_open_ones_needs_a_token() {
    const OPEN: &[&str] = &[
        "/api/auth/register",
        "/api/auth/login",
        "/api/auth/begin_passkey_login",
        "/api/auth/login_with_passkey",
        "/api/auth/refresh",
        "/api/auth/logout",
        "/api/auth/forgot_password",
        "/api/auth/reset_password",
        "/api/auth/verify_email",
        "/api/token/check_statelessly",
    ];
    let home = Home::new();
    let server = home.start().await;
    let calls: Vec<_> = server_fn::axum::server_fn_paths().collect();
    assert!(calls.len() > OPEN.len(), "{calls:?}");
    for (path, method) in calls {
        assert_eq!(method, "POST", "{path}");
        if OPEN.contains(&path) {
            continue;
        }
        let response = server.post(path).json(&json!({})).send().await.unwrap();
        assert_eq!(response.status(), 401, "{path}");
        // RFC 6750, 3.1: no error code for a request without credentials.
        assert_eq!(response.headers()["www-authenticate"], "Bearer", "{path}");
        let response = server.post(path).bearer_auth("a.b.c").json(&json!({})).send().await.unwrap();
        assert_invalid_token(&response, path);
    }
}

#[tokio::test]
async fn authorization_header_is_parsed_as_in_rfc_6750() {
    let home = Home::new();
    let server = home.start().await;
    let token = server.register("ann@example.com").await.access;
    let me = || server.post("/api/account/me");
    for value in [format!("Bearer {token}"), format!("bearer {token}"), format!("BEARER   {token}")] {
        assert_eq!(status(me().header("authorization", &value)).await, 200, "{}", &value[..12]);
    }
    for value in ["", "Basic YTpi", "Digest x", "Bearerx", &token] {
        let response = me().header("authorization", value).send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.headers()["www-authenticate"].to_str().unwrap()),
            (401, "Bearer"),
            "{value}"
        );
    }
    let bad = [
        "Bearer".into(),
        "Bearer ".into(),
        format!("Bearer\t{token}"),
        format!("Bearer {token},Bearer {token}"),
        format!("Bearer \"{token}\""),
        format!("Bearer {}", "a".repeat(100_000)),
    ];
    for value in bad {
        let response = me().header("authorization", &value).send().await.unwrap();
        assert_eq!(response.status(), 401, "{}", &value[..7]);
    }
    let twice = me()
        .header("authorization", format!("Bearer {token}"))
        .header("authorization", format!("Bearer {token}"));
    assert_eq!(status(twice).await, 400);
    // Tokens in other places are ignored.
    for request in [
        server.post(&format!("/api/account/me?access_token={token}")),
        me().form(&[("access_token", &token)]),
        me().header("cookie", format!("access_token={token}")),
        me().header("x-authorization", format!("Bearer {token}")),
    ] {
        assert_eq!(status(request).await, 401);
    }
}

/// A server with one live token, and the means to forge similar tokens with the real key.
struct Forge {
    server: Server,
    header: String,
    claims: Value,
    token: String,
}

impl Forge {
    async fn new(home: &Home) -> Self {
        let server = home.start().await;
        let token = server.register("ann@example.com").await.access;
        let (header, claims) = parts(&token);
        assert_eq!(sign(header.as_bytes(), claims.to_string().as_bytes()).len(), token.len());
        Self { server, header, claims, token }
    }

    /// The live token's claims with some of them replaced, or removed where the value is null.
    fn with(&self, change: Value) -> Vec<u8> {
        let mut claims = self.claims.clone();
        for (key, value) in change.as_object().unwrap() {
            match value {
                Value::Null => claims.as_object_mut().unwrap().remove(key),
                value => claims.as_object_mut().unwrap().insert(key.clone(), value.clone()),
            };
        }
        claims.to_string().into_bytes()
    }

    async fn refuses(&self, case: &str, token: &str) {
        let response = self.server.me(token).send().await.unwrap();
        assert_invalid_token(&response, case);
        // The body does not reveal what was wrong.
        let answer: Value = response.json().await.unwrap();
        assert_eq!(
            answer,
            json!({ "error": "invalid_token", "message": "You are signed out. Sign in again." }),
            "{case}"
        );
    }
}

#[tokio::test]
async fn token_forge_makes_valid_tokens() {
    let home = Home::new();
    let forge = Forge::new(&home).await;
    let copy = sign(forge.header.as_bytes(), &forge.with(json!({})));
    assert_eq!(status(forge.server.me(&copy)).await, 200);
}

#[tokio::test]
async fn altered_token_header_is_refused() {
    let home = Home::new();
    let forge = Forge::new(&home).await;
    let claims = forge.with(json!({}));
    let kid = serde_json::from_str::<Value>(&forge.header).unwrap()["kid"].clone();
    let good = json!({ "typ": "at+jwt", "alg": "HS256", "kid": kid });
    let with = |key: &str, value: Value| {
        let mut header = good.clone();
        header[key] = value;
        header.to_string()
    };
    let without = |key: &str| {
        let mut header = good.clone();
        header.as_object_mut().unwrap().remove(key);
        header.to_string()
    };
    let headers = [
        with("alg", json!("none")),
        with("alg", json!("None")),
        with("alg", json!("")),
        with("alg", json!(256)),
        with("alg", json!(["HS256"])),
        with("alg", json!("HS384")),
        with("alg", json!("RS256")),
        with("alg", json!("ES256")),
        with("alg", json!("EdDSA")),
        without("alg"),
        with("typ", json!("JWT")),
        with("typ", json!("refresh+jwt")),
        with("typ", json!("AT+JWT")),
        with("typ", json!("application/at+jwt")),
        without("typ"),
        with("kid", json!("../../../dev/null")),
        with("kid", json!("' union select 'x")),
        with("kid", json!("\u{0}\r\n")),
        with("kid", json!("other")),
        with("kid", json!(1)),
        without("kid"),
        with("jku", json!("https://evil.test/keys")),
        with("x5u", json!("https://evil.test/x")),
        with("jwk", json!({ "kty": "oct", "k": "AAAA" })),
        with("x5c", json!(["AAAA"])),
        with("crit", json!(["exp"])),
        with("crit", json!([])),
        with("b64", json!(false)),
        with("zip", json!("DEF")),
        with("cty", json!("JWT")),
        format!("{{\"alg\":\"HS256\",{}", &forge.header[1..]),
        format!("\u{feff}{}", forge.header),
        format!("{} ", forge.header),
        "[]".into(),
        "null".into(),
        "{}".into(),
        String::new(),
    ];
    for header in headers {
        forge.refuses(&header, &sign(header.as_bytes(), &claims)).await;
    }
    let unsigned = format!("{}.{}.", BASE64.encode(with("alg", json!("none"))), BASE64.encode(&claims));
    forge.refuses("alg none, unsigned", &unsigned).await;
    forge.refuses("another key", &sign_with(&[1; 32], forge.header.as_bytes(), &claims)).await;
    forge.refuses("an empty key", &sign_with(&[], forge.header.as_bytes(), &claims)).await;
}

#[tokio::test]
async fn altered_claims_are_refused() {
    let home = Home::new();
    let forge = Forge::new(&home).await;
    let now = forge.claims["iat"].as_i64().unwrap();
    let somebody = "AAAAAAAAAAAAAAAAAAAAAA";
    let changes = [
        json!({ "exp": null }),
        json!({ "exp": "9999999999" }),
        json!({ "exp": 1e30 }),
        json!({ "exp": -1 }),
        json!({ "exp": u64::MAX }),
        json!({ "exp": now as f64 + 100.5 }),
        json!({ "exp": [now + 100] }),
        json!({ "exp": now - 1, "iat": now - 301 }),
        json!({ "exp": now + 301 }),
        json!({ "exp": now + 315_360_000 }),
        json!({ "exp": now + 200 }),
        json!({ "iat": null }),
        json!({ "iat": "now" }),
        json!({ "iat": now + 1000 }),
        json!({ "iat": i64::MIN }),
        json!({ "nbf": now + 1000 }),
        json!({ "nbf": "0" }),
        json!({ "iss": null }),
        json!({ "iss": "evil" }),
        json!({ "iss": ["hallpass"] }),
        json!({ "iss": 1 }),
        json!({ "iss": "" }),
        json!({ "aud": null }),
        json!({ "aud": "evil" }),
        json!({ "aud": [] }),
        json!({ "aud": ["hallpass"] }),
        json!({ "aud": [["hallpass"]] }),
        json!({ "aud": ["hallpass", "evil"] }),
        json!({ "aud": 1 }),
        json!({ "aud": { "hallpass": 1 } }),
        json!({ "sub": null }),
        json!({ "sub": somebody }),
        json!({ "sub": "" }),
        json!({ "sub": 1 }),
        json!({ "sub": "x".repeat(2_000) }),
        json!({ "sid": null }),
        json!({ "sid": somebody }),
        json!({ "sid": 1 }),
        json!({ "jti": null }),
        json!({ "jti": somebody }),
        json!({ "jti": 1 }),
        json!({ "jti": "*" }),
        json!({ "jti": "{hp:0}" }),
        json!({ "email": null }),
        json!({ "email": 1 }),
        json!({ "scope": "admin" }),
        json!({ "role": "root" }),
    ];
    for change in changes {
        forge.refuses(&change.to_string(), &sign(forge.header.as_bytes(), &forge.with(change.clone()))).await;
    }
    // The id of another live user, session or token in the caller's own token.
    let bob = parts(&forge.server.register("bob@example.com").await.access).1;
    for key in ["sub", "sid", "jti"] {
        let change = json!({ key: bob[key] });
        forge.refuses(key, &sign(forge.header.as_bytes(), &forge.with(change))).await;
    }
    let text = forge.claims.to_string();
    for payload in [
        format!("{{\"exp\":{},{}", now + 100, &text[1..]),
        format!("{{\"jti\":{},{}", bob["jti"], &text[1..]),
        format!("{text}x"),
        format!("{text}{text}"),
        "[".repeat(2_000),
        "[]".into(),
        "null".into(),
        String::new(),
        text.replace("ann@", "\\ud800@"),
    ] {
        forge.refuses(&payload, &sign(forge.header.as_bytes(), payload.as_bytes())).await;
    }
    forge.refuses("no UTF-8", &sign(forge.header.as_bytes(), b"{\"iss\":\"\xff\"}")).await;
}

#[tokio::test]
async fn altered_token_text_is_refused() {
    let home = Home::new();
    let forge = Forge::new(&home).await;
    let token = &forge.token;
    let parts: Vec<&str> = token.split('.').collect();
    let bob = forge.server.register("bob@example.com").await;
    let bobs_signature = bob.access.rsplit('.').next().unwrap();
    let mut spellings = vec![
        parts[0].into(),
        format!("{}.{}", parts[0], parts[1]),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.x"),
        format!("{token}.x.y"),
        "..".into(),
        ".".repeat(3000),
        format!("{}..{}", parts[0], parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{token}="),
        format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
        format!("{}.{}.{}", parts[0], parts[1], &parts[2][..parts[2].len() - 1]),
        format!("{}.{}.{bobs_signature}", parts[0], parts[1]),
        json!({ "payload": parts[1], "signatures": [{ "protected": parts[0], "signature": parts[2] }] })
            .to_string(),
        bob.refresh.clone(),
    ];
    // The last character of an HMAC-SHA256 holds four of its bits, and two bits that must be zero.
    let last = token.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    spellings.extend(
        alphabet
            .chars()
            .filter(|other| *other != last)
            .map(|other| format!("{}{other}", &token[..token.len() - 1])),
    );
    for spelling in spellings {
        forge.refuses(&spelling, &spelling).await;
    }
    for place in 0..token.len() * 8 {
        let mut flipped = token.clone().into_bytes();
        flipped[place / 8] ^= 1 << (place % 8);
        // Bytes that a header cannot carry do not reach the server.
        if let Ok(text) = String::from_utf8(flipped)
            && text.bytes().all(|byte| byte.is_ascii_graphic())
        {
            forge.refuses(&format!("bit {place}"), &text).await;
        }
    }
    assert_eq!(status(forge.server.me(token)).await, 200);
}

#[tokio::test]
async fn a_token_expires_to_the_second() {
    use hallpass::server::{
        auth::Auth,
        config::Config,
        db::{Access, Db},
    };
    use hallpass_allowlist::MemberKind;
    let home = Home::new();
    let config = Config::load(&home.path().join("Leptos.toml")).unwrap();
    let db = Db::open(&config, Access::Exclusive).await.unwrap();
    let now = 1_000_000;
    let auth = Auth::load(&config, MemberKind::Instance, db, now).await.unwrap();
    let pair = auth.register("ann@example.com", PASSWORD.into(), &caller(), now).await.unwrap();
    let token = pair.access_token.expose();
    for (seconds, alive) in
        [(0, true), (299, true), (300, false), (301, false), (100_000, false), (299, true)]
    {
        assert_eq!(auth.authorize(token, now + seconds).await.is_ok(), alive, "after {seconds} s");
    }
    auth.maintain(now + 300).await;
    assert!(auth.authorize(token, now + 300).await.is_err());
}

#[tokio::test]
async fn tokens_of_both_keys_are_accepted_during_a_key_change() {
    let (old, new) = (BASE64.encode(KEY), BASE64.encode(OTHER_KEY));
    let home = Home::with(&format!("[token]\nsigning_key = \"{old}\"\n"));
    let server = home.start().await;
    let pair = server.register("ann@example.com").await;
    server.stop().await;
    let settings = home.path().join("Leptos.toml");
    let text = std::fs::read_to_string(&settings).unwrap();
    let signing = format!("signing_key = \"{old}\"");

    std::fs::write(
        &settings,
        text.replace(&signing, &format!("signing_key = \"{new}\"\nprevious_{signing}")),
    )
    .unwrap();
    let server = home.start().await;
    assert_eq!(status(server.me(&pair.access)).await, 200);
    let (refreshed, next) = answer(server.refresh(&pair.refresh)).await;
    assert_eq!(refreshed, 200);
    server.stop().await;

    std::fs::write(&settings, text.replace(&signing, &format!("signing_key = \"{new}\""))).unwrap();
    let server = home.start().await;
    assert_eq!(status(server.me(&pair.access)).await, 401);
    assert_eq!(status(server.me(next["access_token"].as_str().unwrap())).await, 200);
}

#[tokio::test]
async fn stateless_check_still_accepts_a_revoked_token() {
    let home = Home::new();
    let server = home.start().await;
    let token = server.register("ann@example.com").await.access;
    let check = async |token: &str| {
        let (status, answer) =
            answer(server.post("/api/token/check_statelessly").json(&json!({ "access_token": token }))).await;
        assert_eq!(status, 200, "{answer}");
        (answer["is_valid"].as_bool().unwrap(), answer["expires_in"].as_i64().unwrap())
    };
    assert_eq!(status(server.logout(&token)).await, 200);
    let (is_valid, expires_in) = check(&token).await;
    assert!(is_valid && (1..=300).contains(&expires_in), "{expires_in}");
    let refused = server.me(&token).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert!(!refused.headers()["hallpass-instance"].is_empty());

    let forged = format!("{}AAAA", &token[..token.len() - 4]);
    for bad in ["", "a.b.c", &forged, &"a".repeat(10_000)] {
        assert_eq!(check(bad).await, (false, 0));
    }
    assert_eq!(status(server.post("/api/token/check_statelessly").json(&json!({}))).await, 400);
}
