//! The gate: what it answers a proxy, where, and to whom.

use std::{
    fs,
    os::unix::{fs::FileTypeExt, net::UnixListener},
    path::PathBuf,
};

use axum::http::{HeaderMap, Method, StatusCode};
use reqwest::{Client, RequestBuilder};
use serde_json::json;

use crate::support::*;

const ANN: &str = "ann@example.com";
const ROUTES: [&str; 5] =
    ["/gate/forward", "/gate/nginx", "/gate/envoy", "/gate/envoy/", "/gate/envoy/orders//1?sort=date"];

fn socket(home: &Home) -> PathBuf {
    home.path().join("gate.sock")
}

/// A home whose server has a gate at a socket.
fn with_gate(settings: &str) -> Home {
    let home = Home::with(&format!("[gate]\naddr = \"SOCKET\"\n{settings}"));
    let file = home.path().join("Leptos.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("SOCKET", &format!("unix:{}", socket(&home).display()))).unwrap();
    home
}

/// A proxy that asks the gate.
struct Proxy(Client);

impl Proxy {
    fn of(home: &Home) -> Self {
        Self(Client::builder().unix_socket(socket(home)).build().unwrap())
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.0.request(method, format!("http://gate{path}"))
    }

    async fn ask_for(&self, path: &str, token: &str) -> StatusCode {
        status(self.ask(Method::GET, path).bearer_auth(token)).await
    }
}

#[tokio::test]
async fn live_token_is_admitted_until_its_session_ends() {
    let home = with_gate("");
    let (server, proxy) = (home.start().await, Proxy::of(&home));
    let pair = server.register(ANN).await;
    for path in ROUTES {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
            let method: Method = method.parse().unwrap();
            let response =
                proxy.ask(method, path).bearer_auth(&pair.access).body("body").send().await.unwrap();
            assert_eq!(response.status(), 200, "{path}");
            assert_eq!(response.headers()["cache-control"], "no-store");
            assert!(response.headers().keys().all(|name| !name.as_str().starts_with("hallpass")));
            assert_eq!(response.text().await.unwrap(), "");
        }
        let lower = proxy.ask(Method::GET, path).header("authorization", format!("bearer {}", pair.access));
        assert_eq!(status(lower).await, 200, "{path}");
    }
    assert_eq!(status(server.logout(&pair.access)).await, 200);
    for path in ROUTES {
        let response = proxy.ask(Method::GET, path).bearer_auth(&pair.access).send().await.unwrap();
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_invalid_token(&response, path);
    }
}

#[tokio::test]
async fn request_without_one_live_token_in_the_header_is_refused() {
    let home = with_gate("");
    let (server, proxy) = (home.start().await, Proxy::of(&home));
    let pair = server.register(ANN).await;
    let altered = pair.access.replacen('.', ".A", 1);
    for path in ROUTES {
        let refused = proxy.ask(Method::GET, path).send().await.unwrap();
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["www-authenticate"]),
            (401, &"Bearer".parse().unwrap())
        );
        for token in ["", "garbage", &pair.refresh, &altered, &"x".repeat(5000)] {
            assert_eq!(proxy.ask_for(path, token).await, 401, "{path} {token}");
        }
        let cookie =
            proxy.ask(Method::GET, path).header("cookie", format!("hallpass-refresh={}", pair.refresh));
        assert_eq!(status(cookie).await, 401, "{path}");
        let basic = proxy.ask(Method::GET, path).basic_auth(ANN, Some(PASSWORD));
        assert_eq!(status(basic).await, 401, "{path}");
        let twice = proxy.ask(Method::GET, path).bearer_auth(&pair.access).bearer_auth(&pair.access);
        // nginx knows no 400.
        assert_eq!(status(twice).await, if path == "/gate/nginx" { 401 } else { 400 }, "{path}");
    }
    let query = format!("/gate/forward?access_token={}", pair.access);
    assert_eq!(status(proxy.ask(Method::GET, &query)).await, 401);
}

#[tokio::test]
async fn role_that_is_asked_for_must_be_held() {
    let home = with_gate("");
    home.add_administrator("root@example.com");
    let (server, proxy) = (home.start().await, Proxy::of(&home));
    let (user, admin) = (server.register(ANN).await, server.login("root@example.com").await);
    for route in ["/gate/forward", "/gate/nginx", "/gate/envoy"] {
        for (query, of_user, of_admin) in [
            ("", 200, 200),
            ("?role=user", 200, 200),
            ("?role=admin", 403, 200),
            ("?role=admin&role=user", 403, 200),
            // What a client adds behind an Envoy that asks for `/gate/envoy?role=admin&path=`.
            ("?role=admin&path=/orders?role=user", 403, 200),
            ("?role=admin&path=/orders?sort=date&role=user&role=editor", 403, 200),
            ("?path=/orders?sort=date&role=admin", 200, 200),
            ("?role=editor", 403, 403),
            ("?role=", 403, 403),
            ("?role=ADMIN", 403, 403),
            ("?role=%ff", 403, 403),
        ] {
            let path = format!("{route}{query}");
            assert_eq!(proxy.ask_for(&path, &user.access).await, of_user, "{path}");
            assert_eq!(proxy.ask_for(&path, &admin.access).await, of_admin, "{path}");
            assert_eq!(status(proxy.ask(Method::GET, &path)).await, 401, "{path}");
        }
    }
    let of_client = "/gate/envoy/orders?role=admin";
    assert_eq!(proxy.ask_for(of_client, &user.access).await, 200, "the query is the client's");
    let refused =
        proxy.ask(Method::GET, "/gate/forward?role=admin").bearer_auth(&user.access).send().await.unwrap();
    assert_eq!(refused.headers()["www-authenticate"], "Bearer error=\"insufficient_scope\"");
}

#[tokio::test]
async fn public_listener_has_no_gate_and_the_gate_nothing_else() {
    let home = with_gate("");
    let (server, proxy) = (home.start().await, Proxy::of(&home));
    let pair = server.register(ANN).await;
    for path in ROUTES {
        for request in [server.get(path), server.post(path)] {
            let answered = status(request.bearer_auth(&pair.access)).await;
            assert!([404, 405].contains(&answered.as_u16()), "{path}: {answered}");
        }
    }
    for path in
        ["/", "/login", "/api/account/me", "/metrics", "/openapi.json", "/gate", "/gate/", "/gate/other"]
    {
        assert_eq!(proxy.ask_for(path, &pair.access).await, 404, "{path}");
    }
    assert_eq!(status(proxy.ask(Method::GET, "/health/ready")).await, 200);
}

#[tokio::test]
async fn identity_headers_are_all_set_if_they_are_wanted() {
    let home = with_gate("identity_headers = true\n");
    let (server, proxy) = (home.start().await, Proxy::of(&home));
    let pair = server.register(ANN).await;
    let account = answer(server.me(&pair.access)).await.1;
    let shown = |headers: &HeaderMap| {
        ["hallpass-user", "hallpass-email", "hallpass-role", "hallpass-session"]
            .map(|name| headers.get(name).map(|value| value.to_str().unwrap().to_owned()))
    };
    for path in ROUTES {
        let response = proxy.ask(Method::GET, path).bearer_auth(&pair.access).send().await.unwrap();
        let text = |key: &str| account[key].as_str().map(str::to_owned);
        assert_eq!(shown(response.headers()), [text("sub"), text("email"), Some("user".into()), text("sid")]);
        let refused = proxy.ask(Method::GET, path).header("hallpass-user", "mallory").send().await.unwrap();
        assert_eq!(shown(refused.headers()), [const { None }; 4]);
    }
    assert_eq!(account["email"], json!(ANN));
}

#[tokio::test]
async fn socket_is_replaced_only_if_nobody_listens_there() {
    let home = with_gate("");
    // Left behind by a killed process.
    drop(UnixListener::bind(socket(&home)).unwrap());
    let server = home.start().await;
    let pair = server.register(ANN).await;
    assert_eq!(Proxy::of(&home).ask_for("/gate/forward", &pair.access).await, 200);
    server.stop().await;
    assert!(!socket(&home).exists(), "the file of the socket is left");

    // The successor of a process that is finishing its requests has replaced the socket.
    let server = home.start().await;
    fs::remove_file(socket(&home)).unwrap();
    let successor = UnixListener::bind(socket(&home)).unwrap();
    server.stop().await;
    assert!(socket(&home).exists(), "the socket of another process is deleted");
    drop(successor);
    fs::remove_file(socket(&home)).unwrap();

    let refuses = |words: &str| {
        let (output, text) = run(&mut home.command());
        assert!(!output.status.success() && text.contains(words), "{text}");
        assert!(text.contains("HALLPASS_GATE_ADDR"), "{text}");
    };
    let other = UnixListener::bind(socket(&home)).unwrap();
    refuses("another process listens there");
    assert!(fs::metadata(socket(&home)).unwrap().file_type().is_socket());
    drop(other);
    fs::remove_file(socket(&home)).unwrap();
    fs::write(socket(&home), "of somebody else").unwrap();
    refuses("no socket");
    assert_eq!(fs::read(socket(&home)).unwrap(), b"of somebody else");
}

#[test]
fn gate_that_cannot_be_served_is_named() {
    let home = Home::new();
    for (address, words) in [
        ("4000", "neither 127.0.0.1:4000 nor unix:"),
        ("unix:gate.sock", "begins with /"),
        ("unix:/no/such/folder/gate.sock", "cannot listen at /no/such/folder/gate.sock"),
        ("192.0.2.1:4000", "cannot listen on 192.0.2.1:4000"),
    ] {
        let (output, text) = run(home.command().env("HALLPASS_GATE_ADDR", address));
        assert!(!output.status.success() && text.contains(words), "{address}: {text}");
    }
    let gate = |address: &str| run(home.command().arg("gate").env("HALLPASS_GATE_ADDR", address));
    for (address, words) in
        [("", "HALLPASS_GATE_ADDR is not set"), ("127.0.0.1:0", "SQLite file is for one process")]
    {
        let (output, text) = gate(address);
        assert!(!output.status.success() && text.contains(words), "{address}: {text}");
    }
}
