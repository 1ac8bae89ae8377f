//! Compares `/openapi.json` and `/docs` with the API itself.

use std::collections::BTreeSet;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

use crate::{
    authenticator::Passkey,
    factors::{self, WithApp},
    mailbox::Mailbox,
    passkeys,
    support::*,
    totp::code,
};

const ANN: &str = "ann@example.com";
const ROOT: &str = "root@example.com";

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// The errors that no single request provokes: they take many attempts, an old session, or a fault.
const TOLD_ONLY: [&str; 7] = [
    "second_factor_required",
    "verification_required",
    "conflict",
    "too_many_requests",
    "insufficient_user_authentication",
    "server_error",
    "temporarily_unavailable",
];

async fn description(server: &Server) -> Value {
    let (status, description) = answer(server.get("/openapi.json")).await;
    assert_eq!(status, 200);
    description
}

fn fields(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

/// One operation of the OpenAPI document.
struct Call<'a> {
    path: &'a str,
    method: &'a str,
    operation: &'a Value,
}

fn calls(description: &Value) -> Vec<Call<'_>> {
    let operations = fields(&description["paths"]).flat_map(|(path, item)| {
        fields(item).map(move |(method, operation)| Call { path, method, operation })
    });
    operations.collect()
}

impl Call<'_> {
    fn is_for_administrators(&self) -> bool {
        self.path.starts_with("/api/admin/")
    }

    fn is_for_clients(&self) -> bool {
        self.path.starts_with("/oauth/")
    }

    fn takes_only_a_form(&self) -> bool {
        let content = &self.operation["requestBody"]["content"];
        content.is_object() && content["application/json"].is_null()
    }

    /// A request with the credentials that the first security requirement lists, of this caller or of a client.
    fn request(&self, server: &Server, caller: &Pair, client: &(String, String)) -> RequestBuilder {
        let request = if self.method == "post" { server.post(self.path) } else { server.get(self.path) };
        let ways = &self.operation["security"][0];
        if ways.get("bearer").is_some() {
            request.bearer_auth(&caller.access)
        } else if ways.get("client").is_some() {
            request.basic_auth(&client.0, Some(&client.1))
        } else if self.method == "get" && ways.get("cookie").is_some() {
            request.header("cookie", format!("hallpass-refresh={}", caller.refresh))
        } else {
            request
        }
    }

    /// The media types of the request body (none, JSON, a form), with the example of each. A form is described only where
    /// it is the only one: generators of clients expect one body for each call.
    fn examples(&self) -> Vec<(Option<&str>, Value)> {
        let described: Vec<_> = fields(&self.operation["requestBody"]["content"]).collect();
        match described[..] {
            [] => vec![(None, Value::Null)],
            [(JSON, content)] if self.path.starts_with("/api/") => {
                [JSON, FORM].map(|media_type| (Some(media_type), content["example"].clone())).into()
            }
            [(media_type, content)] => vec![(Some(media_type), content["example"].clone())],
            _ => panic!("{}: {described:?}", self.path),
        }
    }
}

/// The value that a `$ref` points to, or the value itself.
fn resolved<'a>(description: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(path) => description.pointer(path.strip_prefix('#').unwrap()).unwrap(),
        None => value,
    }
}

/// The reason why the value does not match its schema, if there is one.
fn misfit(description: &Value, schema: &Value, value: &Value) -> Option<String> {
    let schema = resolved(description, schema);
    if let Some(schemas) = schema["oneOf"].as_array() {
        let fits = schemas.iter().any(|schema| misfit(description, schema, value).is_none());
        return (!fits).then(|| format!("{value} is none of {schemas:?}"));
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let is_of_type = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().any(|one| one == kind),
        Value::String(one) => one == kind,
        _ => value.is_null(),
    };
    if !is_of_type || schema["enum"].as_array().is_some_and(|values| !values.contains(value)) {
        return Some(format!("{value} is not as {schema} says"));
    }
    let missing = schema["required"].as_array().into_iter().flatten();
    let missing = missing.filter(|name| value.get(name.as_str().unwrap()).is_none());
    let missing = missing.map(|name| format!("{name} is missing in {value}"));
    let of_fields = fields(value).filter_map(|(name, value)| {
        match schema["properties"].get(name).or_else(|| schema.get("additionalProperties")) {
            Some(schema) => misfit(description, schema, value),
            None => Some(format!("{name} is not described")),
        }
    });
    let of_items = value.as_array().into_iter().flatten();
    let of_items = of_items.filter_map(|item| misfit(description, &schema["items"], item));
    missing.chain(of_fields).chain(of_items).next()
}

/// Compares a response with its description: status, headers, media type, and the body unless it is a stream.
async fn assert_described(description: &Value, call: &Call<'_>, response: Response) {
    let path = call.path;
    let status = response.status();
    let described = resolved(description, &call.operation["responses"][status.as_str()]);
    assert!(described.is_object(), "{path}: {status} is not described");
    for (name, _) in fields(&described["headers"]) {
        assert!(response.headers().contains_key(name), "{path}: {status} has no {name}");
    }
    let Some((media_type, content)) = fields(&described["content"]).next() else {
        assert_eq!(response.text().await.unwrap(), "", "{path}");
        return;
    };
    let found = response.headers()["content-type"].to_str().unwrap();
    assert_eq!(found.split(';').next().unwrap(), media_type, "{path}");
    if media_type.ends_with("json") {
        let body = response.json().await.unwrap();
        assert_eq!(misfit(description, &content["schema"], &body), None, "{path}");
    }
}

#[tokio::test]
async fn openapi_paths_match_the_existing_routes() {
    let home = Home::new();
    let server = home.start().await;
    let description = description(&server).await;
    let calls = calls(&description);
    let others = [
        "/.well-known/jwks.json",
        "/.well-known/oauth-authorization-server",
        "/api/cluster/events",
        "/api/session/events",
        "/health/live",
        "/health/ready",
        "/metrics",
        "/oauth/global-token-revocation",
        "/oauth/introspect",
        "/oauth/revoke",
    ];
    let existing: BTreeSet<_> =
        server_fn::axum::server_fn_paths().map(|(path, _)| path).chain(others).collect();
    let described: BTreeSet<_> = calls.iter().map(|call| call.path).collect();
    assert_eq!(described, existing);
    for Call { path, method, operation } in calls {
        let request = if method == "post" { server.post(path) } else { server.get(path) };
        let status = status(request).await.as_u16();
        assert!(status != 404 && status != 405, "{method} {path}: {status}");
        let words = operation["description"].as_str().unwrap();
        assert!(words.contains(". ") || words.contains(".\n"), "{path} is not told of: {words}");
    }
}

#[tokio::test]
async fn every_example_matches_its_schema() {
    let home = Home::new();
    let server = home.start().await;
    let description = description(&server).await;
    let mut count = 0;
    for call in calls(&description) {
        let responses =
            fields(&call.operation["responses"]).map(|(_, answer)| resolved(&description, answer));
        for message in responses.chain([&call.operation["requestBody"]]) {
            for (_, content) in fields(&message["content"]) {
                let one = content.get("example").into_iter();
                for example in one.chain(fields(&content["examples"]).map(|(_, example)| &example["value"])) {
                    assert_eq!(misfit(&description, &content["schema"], example), None, "{}", call.path);
                    count += 1;
                }
            }
        }
    }
    assert!(count > 100, "{count}");
}

#[tokio::test]
async fn every_example_request_succeeds_with_the_described_response() {
    let home = Home::new();
    let description = description(&home.start().await).await;
    for call in calls(&description) {
        for (media_type, mut body) in call.examples() {
            let home = Home::new();
            if call.is_for_administrators() {
                home.add_administrator(ROOT);
            }
            let server = home.start().await;
            // The server chooses the ids, and there is no user before the first `register`.
            if call.path == "/api/auth/register" {
                assert_works(&description, &call, media_type, server.post(call.path), &body).await;
            } else {
                let ann = server.register(ANN).await;
                let (_, me) = answer(server.me(&ann.access)).await;
                for (name, value) in [
                    ("session_id", &json!(ann.session)),
                    ("user_id", &me["sub"]),
                    ("access_token", &json!(ann.access)),
                    ("refresh_token", &json!(ann.refresh)),
                    ("token", &json!(ann.access)),
                ] {
                    if let Some(field) = body.get_mut(name) {
                        *field = value.clone();
                    }
                }
                let mail = match call.path {
                    "/api/auth/verify_email" => Some("Confirm"),
                    "/api/auth/reset_password" => Some("Reset"),
                    _ => None,
                };
                if let Some(mail) = mail {
                    body["token"] = json!(token_of(&home, &server, mail).await);
                }
                let ann = prepare(&server, call.path, ann, &mut body).await;
                let caller = if call.is_for_administrators() { server.login(ROOT).await } else { ann };
                let client = home.add_client_with(&["notes", "--may-revoke-users"]);
                let request = call.request(&server, &caller, &client);
                assert_works(&description, &call, media_type, request, &body).await;
            }
        }
    }
}

/// Does what has to come before a call about the ways to sign in, and puts into its body what that has given. Returns the
/// session that makes the call.
async fn prepare(server: &Server, path: &str, ann: Pair, body: &mut Value) -> Pair {
    match path {
        "/api/account/add_passkey" => {
            let (ceremony, options) = passkeys::begin(passkeys::begin_passkey(server, &ann)).await;
            let (_, made) = Passkey::make(&options, &passkeys::origin(server));
            (body["ceremony"], body["credential"]) = (json!(ceremony), json!(made.to_string()));
        }
        "/api/auth/login_with_passkey" | "/api/account/reauthenticate_with_passkey" => {
            let mut passkey = passkeys::add_passkey(server, &ann).await;
            let (ceremony, options) = passkeys::begin(passkeys::begin_login(server)).await;
            let signed = passkey.sign_in(&options);
            (body["ceremony"], body["credential"]) = (json!(ceremony), json!(signed.to_string()));
        }
        "/api/account/rename_passkey" | "/api/account/remove_passkey" => {
            passkeys::add_passkey(server, &ann).await;
            let methods = server.call("/api/account/sign_in_methods", &ann.access, json!({}));
            body["passkey_id"] = answer(methods).await.1["passkeys"][0]["passkey_id"].clone();
        }
        "/api/account/add_totp" => {
            let (_, begun) = answer(server.call("/api/account/begin_totp", &ann.access, json!({}))).await;
            body["code"] = json!(code(begun["secret"].as_str().unwrap(), 0));
        }
        "/api/account/remove_totp" | "/api/account/renew_recovery_codes" => {
            let app = WithApp::add(server, ann).await;
            let login = factors::login_with_code(server, ANN, &code(&app.secret, 1));
            return Pair::of(&answer(login).await.1);
        }
        _ => {}
    }
    ann
}

/// The token of the mail to the user with this subject.
async fn token_of(home: &Home, server: &Server, mail: &str) -> String {
    let forgot = server.post("/api/auth/forgot_password").json(&json!({ "email": ANN }));
    assert_eq!(status(forgot).await, 200);
    Mailbox::of(home).wait_for(ANN, mail).await.token()
}

async fn assert_works(
    description: &Value,
    call: &Call<'_>,
    media_type: Option<&str>,
    request: RequestBuilder,
    body: &Value,
) {
    let request = match media_type {
        None => request,
        Some(JSON) => request.json(body),
        Some(FORM) => request.form(body),
        Some(other) => panic!("{}: {other}", call.path),
    };
    let response = request.send().await.unwrap();
    let (success, _) = fields(&call.operation["responses"]).next().unwrap();
    assert_eq!(response.status().as_str(), success, "{} {media_type:?} {body}", call.path);
    assert_described(description, call, response).await;
}

#[tokio::test]
async fn every_error_response_equals_its_example() {
    let home = Home::new();
    home.add_administrator(ROOT);
    let server = home.start().await;
    let (ann, root) = (server.register(ANN).await, server.login(ROOT).await);
    let (_, me) = answer(server.me(&root.access)).await;
    let description = description(&server).await;
    let reset = token_of(&home, &server, "Reset").await;
    let (client, other) =
        (home.add_client_with(&["notes", "--may-revoke-users"]), home.add_client("billing"));
    // The same body for all calls: unknown fields are ignored.
    let bad_fields = json!({
        "email": "ann", "password": "short", "current": "short", "new": "staple battery horse",
        "user_id": me["sub"], "role": "user", "token": reset, "code": "123",
    });
    let begun = server.call("/api/account/begin_totp", &ann.access, json!({}));
    assert_eq!(status(begun).await, 200);
    let mut provoked = BTreeSet::new();
    for call in calls(&description) {
        let caller = if call.is_for_administrators() { &root } else { &ann };
        let request = || call.request(&server, caller, &client);
        let stranger = || if call.method == "post" { server.post(call.path) } else { server.get(call.path) };
        let (_, example) = &call.examples()[0];
        for (status, response) in fields(&call.operation["responses"]) {
            let response = resolved(&description, response);
            for (code, told) in fields(&response["content"]["application/json"]["examples"]) {
                let request = match code {
                    "missing_token" => stranger(),
                    "invalid_token" if call.method == "get" => {
                        stranger().header("cookie", "hallpass-refresh=a.1.b")
                    }
                    "invalid_token" => stranger().bearer_auth("a.b.c"),
                    "insufficient_scope" => stranger().bearer_auth(&ann.access),
                    "invalid_client" if call.takes_only_a_form() => stranger().form(example),
                    "invalid_client" => stranger().json(example),
                    "unauthorized_client" => call.request(&server, caller, &other).json(example),
                    "not_found" if call.is_for_clients() => {
                        request().json(&json!({ "sub_id": { "format": "opaque", "id": "unknown" } }))
                    }
                    "invalid_request" if call.takes_only_a_form() => request().form(&[("tokens", "a")]),
                    "invalid_request" => request().header("content-type", "application/json").body("{"),
                    "unsupported_media_type" => request().header("content-type", "text/plain").body("x"),
                    "payload_too_large" => request().json(&"x".repeat(20_000)),
                    "cross_site" => request().header("sec-fetch-site", "cross-site"),
                    "email_taken" | "not_found" => request().json(example),
                    "invalid_fields" => request().json(&bad_fields),
                    "invalid_grant" => {
                        let mut wrong = example.clone();
                        wrong["password"] = json!("wrong password");
                        request().json(&wrong)
                    }
                    _ => {
                        assert!(TOLD_ONLY.contains(&code), "{}: {code}", call.path);
                        continue;
                    }
                };
                let found = request.send().await.unwrap();
                assert_eq!(found.status().as_str(), status, "{} {code}", call.path);
                for (name, header) in fields(&response["headers"]) {
                    let is_of_all = header["examples"].is_null();
                    assert!(!is_of_all || found.headers().contains_key(name), "{} {code}: {name}", call.path);
                    if let Some(value) = header["examples"][code]["value"].as_str() {
                        assert_eq!(found.headers()[name], value, "{} {code}", call.path);
                    }
                }
                assert_eq!(found.json::<Value>().await.unwrap(), told["value"], "{} {code}", call.path);
                provoked.insert(code.to_owned());
            }
        }
    }
    assert_eq!(provoked.len(), 13, "{provoked:?}");
}

#[tokio::test]
async fn openapi_document_and_docs_page_are_valid() {
    let home = Home::new();
    let server = home.start().await;
    let description = description(&server).await;
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1."), "{}", description["openapi"]);
    let ann = server.register(ANN).await;
    for (cookie, way) in [(String::new(), ">Create account<"), (ann.refresh, ">Sign out<")] {
        let request = server.get("/docs").header("cookie", format!("hallpass-refresh={cookie}"));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "text/html; charset=utf-8");
        assert_eq!(header("cache-control"), "private, no-store");
        assert_eq!(header("x-content-type-options"), "nosniff");
        let policy = header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        // Removes the markers that the renderer puts between texts, and where lines may break.
        let page = response.text().await.unwrap().replace("<!>", "").replace("<wbr>", "");
        // Nothing runs but the one script, by its hash.
        let [_, script] = page.split("<script>").collect::<Vec<_>>()[..] else { panic!("{page}") };
        let hash = digest(&SHA256, script.split("</script>").next().unwrap().as_bytes());
        assert!(policy.contains(&format!("script-src 'sha256-{}';", BASE64.encode(hash))), "{policy}");
        assert!(page.contains("<title>API · Hallpass</title>") && page.contains(way), "{page}");
        for absent in ["<script ", " style=", " onclick=", "://cdn"] {
            assert!(!page.contains(absent), "{absent}");
        }
        assert_eq!(page.matches("<h1").count(), 1);
        for Call { path, method, operation } in calls(&description) {
            let line = format!("{} {path}</code></h3>", method.to_uppercase());
            let link = format!("href=\"#{}\"", operation["operationId"].as_str().unwrap());
            for part in [&line, &link, &format!("$B{path}")] {
                assert!(page.contains(part), "{part}");
            }
        }
    }
    assert!(server.get("/").send().await.unwrap().text().await.unwrap().contains("href=\"/docs\""));
}

#[tokio::test]
async fn document_states_the_limits_of_fields_and_the_license() {
    let home = Home::new();
    let server = home.start().await;
    let description = description(&server).await;
    let field = |path: &str, field: &str| {
        description["paths"][path]["post"]["requestBody"]["content"][JSON]["schema"]["properties"][field]
            .clone()
    };
    let limits =
        |path, name| (field(path, name)["minLength"].clone(), field(path, name)["maxLength"].clone());
    for path in ["/api/auth/register", "/api/auth/login"] {
        assert_eq!(field(path, "email")["format"], "idn-email");
        assert_eq!(limits(path, "email"), (json!(3), json!(254)));
    }
    let password = (json!(8), json!(128));
    assert_eq!(limits("/api/auth/register", "password"), password);
    assert_eq!(limits("/api/account/change_password", "new"), password);
    for (length, expected) in [(7, 422), (8, 200), (128, 200), (129, 422)] {
        let body = json!({ "email": format!("a{length}@example.com"), "password": "é".repeat(length) });
        assert_eq!(status(server.post("/api/auth/register").json(&body)).await, expected, "{length}");
    }
    assert_eq!(description["info"]["license"]["identifier"], env!("CARGO_PKG_LICENSE"));
}

#[tokio::test]
async fn commands_on_the_docs_page_use_the_address_of_the_request() {
    for (public, host, address) in [
        ("", "hallpass.test:8080", "http://hallpass.test:8080"),
        ("https://id.example.com", "upstream", "https://id.example.com"),
        // No browser sends this, but it must not become markup.
        ("", "a&amp;b.test", "http://a&amp;amp;b.test"),
    ] {
        let home = Home::with(&format!("[server]\npublic_url = \"{public}\"\n"));
        let server = home.start().await;
        let page = server.get("/docs").header("host", host).send().await.unwrap().text().await.unwrap();
        assert!(page.contains(&format!(">B={address}\n")), "{host}: {page}");
        assert!(!page.contains(&server.url), "{host}");
    }
}

#[tokio::test]
async fn only_a_body_with_required_fields_is_required() {
    let home = Home::new();
    home.add_administrator(ROOT);
    let server = home.start().await;
    let description = description(&server).await;
    let mut found = BTreeSet::new();
    for call in calls(&description).iter().filter(|call| call.path.starts_with("/api/")) {
        let body = &call.operation["requestBody"];
        if body.is_null() {
            continue;
        }
        let root = server.login(ROOT).await;
        let is_required = body["required"] == true;
        for request in [server.post(call.path), server.post(call.path).header("content-type", JSON)] {
            let status = status(request.bearer_auth(&root.access)).await;
            assert_eq!(is_required, status == 400, "{}: {status}", call.path);
        }
        let fields = body["content"][JSON]["schema"]["required"].as_array();
        assert_eq!(is_required, fields.is_some_and(|fields| !fields.is_empty()), "{}", call.path);
        found.insert(is_required);
    }
    assert_eq!(found.len(), 2);
}

#[tokio::test]
async fn calls_without_json_errors_describe_their_405() {
    let home = Home::new();
    let server = home.start().await;
    let description = description(&server).await;
    let mut count = 0;
    for call in calls(&description).iter().filter(|call| call.operation["responses"].get("405").is_some()) {
        let response = server.post(call.path).send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["allow"]),
            (405, &"GET,HEAD".parse().unwrap())
        );
        assert_described(&description, call, response).await;
        count += 1;
    }
    assert_eq!(count, 5);
}

#[tokio::test]
async fn unknown_fields_of_a_form_are_ignored_whatever_their_names() {
    let home = Home::new();
    let server = home.start().await;
    server.register(ANN).await;
    let form = format!("email={}&password={}", ANN.replace('@', "%40"), PASSWORD.replace(' ', "+"));
    for extra in ["=null", "=", "=a&=b", "[]=a", "[", "a[b]=c", "a[b", "0=a", "x", "%5B%5D=a&%5B%5D=b", "é=a"]
    {
        for body in [format!("{form}&{extra}"), format!("{extra}&{form}")] {
            let request = server.post("/api/auth/login").header("content-type", FORM).body(body.clone());
            assert_eq!(status(request).await, 200, "{body}");
        }
    }
    let twice = server.post("/api/auth/login").header("content-type", FORM).body(format!("{form}&email=a"));
    assert_eq!(status(twice).await, 400);
}
