//! Introspection and revocation for other services, and the clients that may ask.

use axum::http::StatusCode;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::support::*;

const ANN: &str = "ann@example.com";
const INTROSPECT: &str = "/oauth/introspect";
const REVOKE: &str = "/oauth/revoke";

struct Client {
    id: String,
    secret: String,
}

impl Client {
    fn add(home: &Home, name: &str) -> Self {
        let (id, secret) = home.add_client(name);
        Self { id, secret }
    }

    /// A request about a token, with the secret in the header.
    fn ask(&self, server: &Server, path: &str, token: &str) -> RequestBuilder {
        server.post(path).basic_auth(&self.id, Some(&self.secret)).form(&[("token", token)])
    }

    /// The same with the secret in the body.
    fn ask_by_post(&self, server: &Server, path: &str, token: &str) -> RequestBuilder {
        let fields = [("token", token), ("client_id", &self.id), ("client_secret", &self.secret)];
        server.post(path).form(&fields)
    }
}

fn hallpass_client(home: &Home, arguments: &[&str]) -> String {
    let (output, text) = run(home.command().arg("client").args(arguments));
    assert!(output.status.success(), "{text}");
    String::from_utf8(output.stdout).unwrap()
}

async fn is_active(request: RequestBuilder) -> bool {
    let (status, answer) = answer(request).await;
    assert_eq!(status, 200, "{answer}");
    let is_active = answer["active"].as_bool().unwrap();
    assert!(is_active || answer == json!({ "active": false }), "{answer}");
    is_active
}

async fn refusal(request: RequestBuilder) -> (u16, String) {
    let (status, answer) = answer(request).await;
    (status.as_u16(), answer["error"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn live_token_is_described_until_its_session_ends() {
    let home = Home::new();
    let server = home.start().await;
    let client = Client::add(&home, "notes");
    let pair = server.register(ANN).await;
    let response = client.ask(&server, INTROSPECT, &pair.access).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["cache-control"]),
        (200, &"no-store".parse().unwrap())
    );
    let described: Value = response.json().await.unwrap();
    let (_, claims) = parts(&pair.access);
    for claim in ["iss", "aud", "sub", "sid", "jti", "iat", "exp"] {
        assert_eq!(described[claim], claims[claim], "{claim}");
    }
    assert_eq!(described["active"], true);
    assert_eq!(
        (&described["token_type"], &described["username"], &described["role"]),
        (&json!("Bearer"), &json!(ANN), &json!("user"))
    );
    assert!(is_active(client.ask_by_post(&server, INTROSPECT, &pair.access)).await);
    let hint = client
        .ask(&server, INTROSPECT, "")
        .form(&[("token", pair.access.as_str()), ("token_type_hint", "refresh_token")]);
    assert!(is_active(hint).await, "a hint is no more than a hint");

    assert_eq!(status(server.logout(&pair.access)).await, 200);
    assert!(!is_active(client.ask(&server, INTROSPECT, &pair.access)).await);
}

#[tokio::test]
async fn whatever_is_wrong_with_a_token_is_not_said() {
    let home = Home::new();
    let server = home.start().await;
    let client = Client::add(&home, "notes");
    let pair = server.register(ANN).await;
    let (header, claims) = parts(&pair.access);
    let mut expired = claims.clone();
    expired["iat"] = json!(1_000_000);
    expired["exp"] = json!(1_000_300);
    let mut foreign = claims.clone();
    foreign["iss"] = json!("https://other.example.com");
    let forged = |claims: &Value| sign(header.as_bytes(), claims.to_string().as_bytes());
    for (case, token) in [
        ("garbage", "garbage".to_owned()),
        ("a refresh token", pair.refresh.clone()),
        ("an altered token", pair.access.replacen('.', ".A", 1)),
        ("an expired token", forged(&expired)),
        ("a token of another issuer", forged(&foreign)),
        ("a token of another key", sign_with(&OTHER_KEY, header.as_bytes(), claims.to_string().as_bytes())),
        ("ten thousand bytes", "x".repeat(10_000)),
        ("spaces", "  ".to_owned()),
    ] {
        assert!(!is_active(client.ask(&server, INTROSPECT, &token)).await, "{case}");
        let (code, revocation) = answer(client.ask(&server, REVOKE, &token)).await;
        let is_issued = ["a refresh token", "an expired token"].contains(&case);
        assert_eq!((code.as_u16(), &revocation["instances"]), (200, &json!(u8::from(is_issued))), "{case}");
        if case == "a refresh token" {
            assert_eq!(status(server.me(&pair.access)).await, 401, "a refresh token ends its session");
        }
    }
}

#[tokio::test]
async fn malformed_request_is_refused_with_its_reason() {
    let home = Home::new();
    let server = home.start().await;
    let client = Client::add(&home, "notes");
    let pair = server.register(ANN).await;
    for path in [INTROSPECT, REVOKE] {
        let basic = || server.post(path).basic_auth(&client.id, Some(&client.secret));
        let malformed = (400, "invalid_request".to_owned());
        assert_eq!(
            refusal(basic().form(&[("token_type_hint", "access_token")])).await,
            malformed,
            "no token"
        );
        assert_eq!(refusal(basic().form(&[("token", "")])).await, malformed, "an empty token");
        assert_eq!(refusal(basic().form(&[("token", "a"), ("token", "b")])).await, malformed, "two tokens");
        let twice = basic().form(&[("token", "a"), ("client_secret", &client.secret)]);
        assert_eq!(refusal(twice).await, malformed, "two ways");
        let other = basic().form(&[("token", "a"), ("client_id", "hpc_other")]);
        assert_eq!(refusal(other).await, malformed, "two clients");
        let headers = basic().basic_auth(&client.id, Some(&client.secret)).form(&[("token", "a")]);
        assert_eq!(refusal(headers).await, malformed, "two headers");
        assert_eq!(
            refusal(basic().json(&json!({ "token": pair.access }))).await,
            (415, "unsupported_media_type".into())
        );
        assert_eq!(refusal(basic().form(&[("token", "x".repeat(1_000_000))])).await.0, 413);
        for method in ["GET", "PUT", "DELETE"] {
            let request = server.client.request(method.parse().unwrap(), format!("{}{path}", server.url));
            assert_eq!(refusal(request).await, (405, "method_not_allowed".into()), "{method}");
        }
        let page = client
            .ask(&server, path, &pair.access)
            .header("origin", "https://evil.example.com")
            .header("sec-fetch-site", "cross-site");
        assert_eq!(refusal(page).await, (403, "cross_site".into()));
    }
    assert_eq!(status(server.me(&pair.access)).await, 200, "nothing was revoked");
}

#[tokio::test]
async fn only_a_client_with_its_secret_may_ask() {
    let home = Home::new();
    let server = home.start().await;
    let (client, other) = (Client::add(&home, "notes"), Client::add(&home, "billing"));
    let pair = server.register(ANN).await;
    let form = [("token", pair.access.as_str())];
    for path in [INTROSPECT, REVOKE] {
        let basic = |id: &str, secret: &str| server.post(path).basic_auth(id, Some(secret)).form(&form);
        let posted = |id: &str, secret: &str| {
            server.post(path).form(&[form[0], ("client_id", id), ("client_secret", secret)])
        };
        for (case, request) in [
            ("nobody", server.post(path).form(&form)),
            ("a user", server.post(path).bearer_auth(&pair.access).form(&form)),
            ("an id alone", server.post(path).form(&[form[0], ("client_id", &client.id)])),
            ("an unknown client", basic("hpc_AAAAAAAAAAAAAAAAAAAAAA", &client.secret)),
            ("an id of another form", basic("notes", &client.secret)),
            ("the secret of another", basic(&client.id, &other.secret)),
            ("the secret of another, posted", posted(&client.id, &other.secret)),
            ("no secret", basic(&client.id, "")),
            ("half a secret", basic(&client.id, &client.secret[..20])),
            ("a long secret", basic(&client.id, &"x".repeat(5000))),
            ("no base64", server.post(path).header("authorization", "Basic ???").form(&form)),
            ("no colon", server.post(path).header("authorization", "Basic eHh4").form(&form)),
        ] {
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 401, "{path}: {case}");
            assert_eq!(response.headers()["www-authenticate"], "Basic realm=\"Hallpass\"", "{case}");
            assert_eq!(response.headers()["cache-control"], "no-store", "{case}");
            let body: Value = response.json().await.unwrap();
            assert_eq!(body["error"], "invalid_client", "{case}");
        }
    }
    assert_eq!(status(server.me(&pair.access)).await, 200, "nothing was revoked");
}

#[tokio::test]
async fn secret_can_be_replaced_and_its_client_removed() {
    let home = Home::new();
    let server = home.start().await;
    let (client, other) = (Client::add(&home, " billing API "), Client::add(&home, "notes"));
    let pair = server.register(ANN).await;
    let asks = async |client: &Client| status(client.ask(&server, INTROSPECT, &pair.access)).await;
    let listed = hallpass_client(&home, &["list"]);
    assert!(
        listed.contains(&client.id) && listed.contains("billing API\n") && listed.contains(&other.id),
        "{listed}"
    );
    assert!(!listed.contains("hps_"), "{listed}");

    let rotated = hallpass_client(&home, &["rotate-secret", &client.id]);
    let secret = rotated.trim().strip_prefix("client_secret=").unwrap().to_owned();
    assert_eq!(asks(&client).await, 401);
    let client = Client { secret, ..client };
    assert_eq!((asks(&client).await, asks(&other).await), (StatusCode::OK, StatusCode::OK));
    hallpass_client(&home, &["remove", &client.id]);
    assert_eq!((asks(&client).await, asks(&other).await), (StatusCode::UNAUTHORIZED, StatusCode::OK));
    for command in ["remove", "rotate-secret"] {
        let (output, text) = run(home.command().args(["client", command, &client.id]));
        assert!(!output.status.success() && text.contains("there is no client"), "{text}");
    }
    let (output, text) = run(home.command().args(["client", "add", " "]));
    assert!(!output.status.success() && text.contains("1 to 100 characters"), "{text}");

    server.stop().await;
    let database: Vec<u8> = std::fs::read(home.database()).unwrap();
    let holds = |text: &str| database.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(holds(&other.id) && !holds(&other.secret), "the secret itself is not kept");
}

#[tokio::test]
async fn revocation_ends_the_session_of_either_token() {
    let home = Home::new();
    let server = home.start().await;
    let client = Client::add(&home, "notes");
    server.register(ANN).await;
    for by_refresh_token in [false, true] {
        let (pair, other) = (server.login(ANN).await, server.login(ANN).await);
        let token = if by_refresh_token { &pair.refresh } else { &pair.access };
        let (code, told) = answer(client.ask(&server, REVOKE, token)).await;
        assert_eq!((code.as_u16(), &told["acknowledged"]), (200, &json!(1)), "{told}");
        assert_eq!(status(server.me(&pair.access)).await, 401);
        assert_eq!(status(server.refresh(&pair.refresh)).await, 401);
        assert_eq!(status(server.me(&other.access)).await, 200, "another session");
        assert_eq!(status(client.ask_by_post(&server, REVOKE, token)).await, 200, "again");
    }
}

#[tokio::test]
async fn metadata_names_every_endpoint() {
    for (settings, base, issuer) in [
        ("", None, "hallpass"),
        (
            "[server]\nrequest_timeout_seconds = 300\npublic_url = \"https://id.example.com\"\n[token]\nissuer = \"https://id.example.com\"\n",
            Some("https://id.example.com"),
            "https://id.example.com",
        ),
    ] {
        let home = Home::with(settings);
        let server = home.start().await;
        let response = server.get("/.well-known/oauth-authorization-server").send().await.unwrap();
        assert_eq!(response.headers()["cache-control"], "public, max-age=300");
        let metadata: Value = response.json().await.unwrap();
        assert_eq!(metadata["issuer"], issuer);
        for (name, path) in [
            ("jwks_uri", "/.well-known/jwks.json"),
            ("introspection_endpoint", INTROSPECT),
            ("revocation_endpoint", REVOKE),
        ] {
            let address = metadata[name].as_str().unwrap();
            let is_here = base.is_none_or(|base| address == format!("{base}{path}"));
            assert!(is_here && address.starts_with("http") && address.ends_with(path), "{address}");
            assert_ne!(status(server.get(path)).await, 404, "{path}");
        }
        assert_eq!(metadata["response_types_supported"], json!([]));
    }
}

#[tokio::test]
async fn guard_has_nothing_to_join_at_an_instance_that_runs_alone() {
    let home = Home::new();
    let server = home.start().await;
    let client = Client::add(&home, "notes");
    let asked = server.get("/guard/settings").basic_auth(&client.id, Some(&client.secret));
    let (status, refused) = answer(asked).await;
    assert_eq!((status.as_u16(), &refused["error"]), (409, &"conflict".into()));
    assert!(refused["message"].as_str().unwrap().contains("REDIS_URL"), "{refused}");
    let facts = json!({ "name": "notes", "facts": "{}" });
    let put = server.client.put(format!("{}/guard/instances/{}", server.url, "A".repeat(22))).json(&facts);
    let put = put.basic_auth(&client.id, Some(&client.secret));
    assert_eq!(refusal(put).await, (409, "conflict".into()));
    assert_eq!(refusal(server.get("/guard/settings")).await, (401, "invalid_client".into()));
    assert_eq!(refusal(server.get("/guard/other")).await, (404, "not_found".into()));
}

const REVOKE_USER: &str = "/oauth/global-token-revocation";

/// A client that may end all sessions of a user.
fn security_tool(home: &Home) -> Client {
    let (id, secret) = home.add_client_with(&["security tool", "--may-revoke-users"]);
    Client { id, secret }
}

impl Client {
    fn revoke_user(&self, server: &Server, sub_id: &Value) -> RequestBuilder {
        let request = server.post(REVOKE_USER).basic_auth(&self.id, Some(&self.secret));
        request.json(&json!({ "sub_id": sub_id }))
    }
}

#[tokio::test]
async fn global_token_revocation_ends_all_sessions_of_one_user() {
    let home = Home::new();
    let server = home.start().await;
    let tool = security_tool(&home);
    let bob = server.register("bob@example.com").await;
    let first = server.register(ANN).await;
    let (_, claims) = parts(&first.access);
    for subject in [
        json!({ "format": "email", "email": ANN }),
        json!({ "format": "email", "email": " Ann@EXAMPLE.com " }),
        json!({ "format": "opaque", "id": claims["sub"] }),
        json!({ "format": "iss_sub", "iss": claims["iss"], "sub": claims["sub"] }),
    ] {
        let sessions = [server.login(ANN).await, server.login(ANN).await];
        let response = tool.revoke_user(&server, &subject).send().await.unwrap();
        assert_eq!(response.status(), 204, "{subject}");
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.text().await.unwrap(), "");
        for pair in sessions.iter().chain([&first]) {
            assert_eq!(
                status(server.me(&pair.access)).await,
                401,
                "{subject}: access tokens are dead at once"
            );
            let (status, answer) = answer(server.refresh(&pair.refresh)).await;
            assert_eq!((status.as_u16(), &answer["error"]), (401, &json!("invalid_grant")), "{subject}");
        }
        assert_eq!(status(server.me(&bob.access)).await, 200, "another user is not affected");
    }
    // A user without a session is found, too, and can log in again.
    let subject = json!({ "format": "email", "email": ANN });
    assert_eq!(status(tool.revoke_user(&server, &subject)).await, 204);
    assert_eq!(status(server.me(&server.login(ANN).await.access)).await, 200);
}

#[tokio::test]
async fn global_token_revocation_says_why_it_revoked_nothing() {
    let home = Home::new();
    let server = home.start().await;
    let tool = security_tool(&home);
    let pair = server.register(ANN).await;
    let (_, claims) = parts(&pair.access);
    for (subject, expected) in [
        (json!({ "format": "email", "email": "unknown@example.com" }), (404, "not_found")),
        (json!({ "format": "opaque", "id": "AAAAAAAAAAAAAAAAAAAAAA" }), (404, "not_found")),
        (json!({ "format": "opaque", "id": ANN }), (404, "not_found")),
        (
            json!({ "format": "iss_sub", "iss": "https://other.example", "sub": claims["sub"] }),
            (404, "not_found"),
        ),
        (json!({ "format": "email", "email": "ann" }), (400, "invalid_request")),
        (json!({ "format": "email" }), (400, "invalid_request")),
        (json!({ "format": "email", "email": [ANN] }), (400, "invalid_request")),
        (json!({ "format": "phone_number", "phone_number": "+12065550100" }), (400, "invalid_request")),
        (json!({ "email": ANN }), (400, "invalid_request")),
        (json!(ANN), (400, "invalid_request")),
        (json!(null), (400, "invalid_request")),
    ] {
        let (status, code) = refusal(tool.revoke_user(&server, &subject)).await;
        assert_eq!((status, code.as_str()), expected, "{subject}");
    }
    let request = || server.post(REVOKE_USER).basic_auth(&tool.id, Some(&tool.secret));
    let json = |body: &str| request().header("content-type", "application/json").body(body.to_owned());
    for (body, expected) in [("", 400), ("{", 400), ("{}", 400), ("[]", 400)] {
        assert_eq!(refusal(json(body)).await.0, expected, "{body}");
    }
    assert_eq!(refusal(json(&"x".repeat(1_000_000))).await.0, 413);
    assert_eq!(refusal(request().form(&[("sub_id", ANN)])).await.0, 415);
    assert_eq!(refusal(request()).await.0, 415);

    let subject = json!({ "format": "email", "email": ANN });
    let plain = Client::add(&home, "notes");
    let refused = plain.revoke_user(&server, &subject).send().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers().get("www-authenticate")), (403, None));
    assert_eq!(refused.json::<Value>().await.unwrap()["error"], "unauthorized_client");
    let unknown = Client { id: tool.id.clone(), secret: plain.secret.clone() };
    assert_eq!(refusal(unknown.revoke_user(&server, &subject)).await, (401, "invalid_client".into()));
    let bearer = server.post(REVOKE_USER).bearer_auth(&pair.access).json(&json!({ "sub_id": subject }));
    assert_eq!(refusal(bearer).await, (401, "invalid_client".into()), "the user is no client");
    let page = tool.revoke_user(&server, &subject).header("sec-fetch-site", "cross-site");
    assert_eq!(refusal(page).await, (403, "cross_site".into()));
    assert_eq!(status(server.me(&pair.access)).await, 200, "nothing was revoked");

    let list = hallpass_client(&home, &["list"]);
    let line = |id: &str| list.lines().find(|line| line.starts_with(id)).unwrap();
    assert!(
        line(&tool.id).contains("security tool") && line(&tool.id).ends_with("may revoke users"),
        "{list}"
    );
    assert!(!line(&plain.id).contains("may revoke"), "{list}");
}
