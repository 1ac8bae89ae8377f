//! Five proxies with the configurations of `deploy/gate`, each in front of a service that only live tokens may reach.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::Request,
    http::{Method, StatusCode, header},
    response::{IntoResponse, sse},
    routing::any,
};
use futures::{StreamExt, future::join_all, stream};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task};

use crate::{
    client::{Api, Pair},
    requests::{Check, Figures, ROUNDS, connect, peer, peer_token},
    support::{
        gate::{Address, Gate},
        process::{Process, free_port, wait_until},
        world::{Kind, World},
    },
};

const ANN: &str = "ann@example.com";

/// The ports in the configurations.
const GATE: &str = "127.0.0.1:4000";
const SERVICE: &str = "127.0.0.1:8080";

struct Proxy {
    name: &'static str,
    url: String,
    http: Client,
    _process: Process,
}

/// How to start a proxy.
struct Program {
    name: &'static str,
    /// In `deploy/gate`. The first one is named by the arguments.
    files: &'static [&'static str],
    arguments: &'static [&'static str],
    /// The address that it listens on, in its files.
    listens: &'static str,
    /// The address of the gate in its files, and what replaces it if the gate is at a socket.
    socket: Option<(&'static str, &'static str)>,
}

const PROGRAMS: [Program; 5] = [
    Program {
        name: "nginx",
        files: &["nginx.conf"],
        arguments: &["-e", "stderr", "-c"],
        listens: "listen 80;",
        socket: Some(("server 127.0.0.1:4000;", "server unix:SOCKET;")),
    },
    Program {
        name: "haproxy",
        files: &["haproxy.cfg", "hallpass.lua"],
        arguments: &["-db", "-f"],
        listens: "127.0.0.1:8000",
        socket: Some((GATE, "unix@SOCKET")),
    },
    Program {
        name: "caddy",
        files: &["Caddyfile"],
        arguments: &["run", "--adapter", "caddyfile", "--config"],
        listens: "http://:8000",
        socket: Some((GATE, "unix/SOCKET")),
    },
    Program {
        name: "traefik",
        files: &["traefik.yml", "traefik-routes.yml"],
        arguments: &["--configfile"],
        listens: "127.0.0.1:8000",
        socket: None,
    },
    Program {
        name: "envoy",
        files: &["envoy.yaml"],
        arguments: &["--use-dynamic-base-id", "--concurrency", "2", "-c"],
        listens: "port_value: 8000",
        socket: Some(("socket_address: { address: 127.0.0.1, port_value: 4000 }", "pipe: { path: SOCKET }")),
    },
];

impl Proxy {
    /// Starts a proxy, and waits until it asks the gate. Only the addresses in its configuration are changed.
    async fn start(program: &Program, folder: &Path, gate: &Address, service: u16) -> Self {
        let Program { name, files, arguments, listens, socket } = *program;
        let folder = folder.join(name);
        fs::create_dir_all(&folder).unwrap();
        let port = free_port();
        let inner = format!("127.0.0.1:{}", free_port());
        let own = listens
            .replace("8000", &port.to_string())
            .replace("listen 80;", &format!("listen 127.0.0.1:{port};"));
        for file in files {
            let text = fs::read_to_string(Path::new("deploy/gate").join(file)).unwrap();
            let text = match gate {
                // Envoy has addresses in two parts.
                Address::Port(gate) => text
                    .replace(GATE, &format!("127.0.0.1:{gate}"))
                    .replace("port_value: 4000", &format!("port_value: {gate}")),
                Address::Socket(path) => {
                    let (address, at_socket) = socket.unwrap();
                    text.replace(address, &at_socket.replace("SOCKET", path.to_str().unwrap()))
                }
            };
            let text = text
                .replace(SERVICE, &format!("127.0.0.1:{service}"))
                .replace("port_value: 8080", &format!("port_value: {service}"))
                .replace(listens, &own)
                .replace("127.0.0.1:8001", &inner)
                .replace("deploy/gate/", &format!("{}/", folder.display()));
            let text = if name == "nginx" { in_main_context(&text) } else { text };
            fs::write(folder.join(file), text).unwrap();
        }
        let mut process = Process::start(name, &folder, None, &path_of(name), |command| {
            command.args(arguments).arg(folder.join(files[0])).env("HOME", &folder);
        });
        let (url, http) = (format!("http://127.0.0.1:{port}"), Client::new());
        wait_until(&format!("{name} asks the gate"), async || {
            assert!(process.is_running(), "{name} has ended:\n{}", process.last_words());
            http.get(&url).send().await.is_ok_and(|answered| answered.status() == 401)
        })
        .await;
        Self { name, url, http, _process: process }
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    async fn get(&self, pair: &Pair) -> StatusCode {
        sent(self.ask(Method::GET, "/orders/1?sort=date").bearer_auth(&pair.access)).await.status()
    }
}

/// The file with what is around it on Debian. One process, because root's workers could not enter the folder.
fn in_main_context(file: &str) -> String {
    format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nevents {{ worker_connections 4096; }}\nhttp {{\naccess_log off;\n\
         client_body_temp_path body;\nproxy_temp_path proxy;\n{file}}}\n"
    )
}

fn path_of(name: &str) -> PathBuf {
    let path = env::var("PATH").unwrap_or_default() + ":/usr/sbin";
    let found = env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing: `make services proxies` installs it"))
}

async fn sent(request: RequestBuilder) -> Response {
    request.send().await.unwrap()
}

/// The service: it says what has reached it, and sends events at `/events`.
async fn serve() -> u16 {
    let echo = async |request: Request| {
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_else(|_| Bytes::new());
        let headers: Vec<_> = head
            .headers
            .iter()
            .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
            .collect();
        Json(
            json!({ "method": head.method.as_str(), "uri": head.uri.to_string(), "headers": headers, "bytes": body.len() }),
        )
    };
    let events = async || {
        let event = stream::iter([Ok::<_, axum::Error>(sse::Event::default().data("first"))]);
        sse::Sse::new(event.chain(stream::pending())).into_response()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let routes = Router::new().route("/events", any(events)).fallback(echo);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    port
}

/// The values of the headers with this name that have reached the service, in any spelling that some service takes for
/// the same.
fn values<'a>(echo: &'a Value, name: &str) -> Vec<&'a str> {
    let headers = echo["headers"].as_array().unwrap().iter();
    let same = headers.filter(|header| {
        header[0].as_str().unwrap().to_ascii_lowercase().replace(['_', '.'], "-").starts_with(name)
    });
    same.map(|header| header[1].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_proxy_passes_on_what_a_live_token_accompanies_and_nothing_else() {
    let world = World::start(Kind::Single).await;
    let api = Api::of(&world);
    let service = serve().await;
    let address = Address::Port(free_port());
    let mut gate = Gate::start(&world, address.clone()).await;
    let mut proxies = Vec::new();
    for program in &PROGRAMS {
        proxies.push(Proxy::start(program, world.folder(), &address, service).await);
    }
    let live = api.register(0, ANN).await;
    for proxy in &proxies {
        passes_on_requests_unchanged(proxy, &live).await;
        refuses_what_has_no_live_token(proxy, &live).await;
        lets_no_identity_header_through(proxy, &live).await;
        lets_no_upgrade_through(proxy, &live).await;
        refuses_from_the_logout_on(proxy, &api).await;
        refuses_from_the_logout_on_in_a_flood(proxy, &api).await;
    }

    // Each time the gate cannot know, or is not there. The first token may have expired by now.
    let live = api.login(0, ANN).await;
    gate.redis().set(|weather| weather.cut = true);
    gate.sql.set(|weather| weather.cut = true);
    for proxy in &proxies {
        wait_until("the gate has no lease", async || proxy.get(&live).await != 200).await;
        is_unavailable(proxy, &live).await;
    }
    gate.redis().heal();
    gate.sql.heal();
    for proxy in &proxies {
        wait_until("it passes on again", async || proxy.get(&live).await == 200).await;
    }
    gate.process.signal("STOP");
    join_all(proxies.iter().map(|proxy| is_unavailable(proxy, &live))).await;
    gate.process.signal("CONT");
    gate.process.kill();
    for proxy in &proxies {
        is_unavailable(proxy, &live).await;
    }
}

async fn passes_on_requests_unchanged(proxy: &Proxy, live: &Pair) {
    let name = proxy.name;
    for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
        let request = proxy.ask(method.clone(), "/orders/1?sort=date&role=admin").bearer_auth(&live.access);
        let response = sent(request.body("{}")).await;
        assert_eq!(response.status(), 200, "{name} {method}");
        let echo: Value = response.json().await.unwrap();
        assert_eq!(
            (&echo["method"], &echo["uri"]),
            (&json!(method.as_str()), &json!("/orders/1?sort=date&role=admin")),
            "{name}"
        );
        assert_eq!(values(&echo, "authorization"), [format!("Bearer {}", live.access)], "{name}");
        assert_eq!(echo["bytes"], 2, "{name}");
    }
    let head = sent(proxy.ask(Method::HEAD, "/").bearer_auth(&live.access)).await;
    assert_eq!((head.status().as_u16(), head.text().await.unwrap()), (200, String::new()), "{name}");
    let lower = proxy.ask(Method::GET, "/").header("authorization", format!("bearer {}", live.access));
    assert_eq!(sent(lower).await.status(), 200, "{name}");

    let upload = proxy.ask(Method::POST, "/upload").bearer_auth(&live.access).body(vec![7; 10_000_000]);
    let echo: Value = sent(upload).await.json().await.unwrap();
    assert_eq!(echo["bytes"], 10_000_000, "{name}");

    let events = sent(proxy.ask(Method::GET, "/events").bearer_auth(&live.access)).await;
    assert_eq!(events.status(), 200, "{name}");
    // It arrives although the stream goes on.
    let first = events.bytes_stream().next().await.unwrap().unwrap();
    assert_eq!(first, "data: first\n\n", "{name}");

    let preflight = proxy.ask(Method::OPTIONS, "/orders/1").header("access-control-request-method", "PUT");
    assert_eq!(sent(preflight).await.status(), 200, "{name}: browsers ask without a token");
}

async fn refuses_what_has_no_live_token(proxy: &Proxy, live: &Pair) {
    let name = proxy.name;
    let get = || proxy.ask(Method::GET, "/");
    let forged = live.access.replacen('.', ".A", 1);
    for (request, case) in [
        (get(), "no token"),
        (get().bearer_auth("garbage"), "garbage"),
        (get().bearer_auth(&live.refresh), "a refresh token"),
        (get().bearer_auth(forged), "an altered token"),
        (get().basic_auth("ann", Some("password")), "a password"),
        (get().header("cookie", format!("hallpass-refresh={}", live.refresh)), "a cookie"),
        (get().header("access-control-request-method", "GET"), "no preflight"),
        (proxy.ask(Method::OPTIONS, "/"), "no preflight"),
        (proxy.ask(Method::POST, "/").body("{}"), "a body"),
        (proxy.ask(Method::GET, &format!("/?access_token={}", live.access)), "a token in the address"),
        (proxy.ask(Method::GET, "/hallpass-gate"), "the location of nginx"),
    ] {
        let response = sent(request).await;
        // What nginx calls `internal` is not there for others.
        let is_hidden = name == "nginx" && case == "the location of nginx";
        assert_eq!(response.status(), if is_hidden { 404 } else { 401 }, "{name}: {case}");
        if !is_hidden {
            let challenge =
                response.headers()[header::WWW_AUTHENTICATE.as_str()].to_str().unwrap().to_owned();
            assert!(challenge.starts_with("Bearer"), "{name}: {case}: {challenge}");
        }
    }
    let twice = sent(get().bearer_auth(&live.access).bearer_auth(&live.access)).await;
    assert!([400, 401].contains(&twice.status().as_u16()), "{name}: {}", twice.status());
}

async fn lets_no_identity_header_through(proxy: &Proxy, live: &Pair) {
    for forged in [
        "hallpass-user",
        "Hallpass-Email",
        "HALLPASS-ROLE",
        "hallpass-session",
        "hallpass_user",
        "Hallpass_Role",
        "hallpass.user",
        "Hallpass.Role",
        "hallpass_role",
    ] {
        let request = proxy.ask(Method::GET, "/").bearer_auth(&live.access);
        let response = sent(request.header(forged, "admin").header(forged, "root")).await;
        assert_eq!(response.status(), 200, "{}: {forged}", proxy.name);
        let echo: Value = response.json().await.unwrap();
        assert_eq!(values(&echo, "hallpass"), [""; 0], "{}: {forged}", proxy.name);
    }
}

/// An upgraded connection is a tunnel, in which the proxy sees no requests any more.
async fn lets_no_upgrade_through(proxy: &Proxy, live: &Pair) {
    for protocol in ["h2c", "websocket"] {
        let preflight = proxy.ask(Method::OPTIONS, "/").header("access-control-request-method", "GET");
        let with_token = proxy.ask(Method::GET, "/").bearer_auth(&live.access);
        for request in [preflight, with_token] {
            let request = request.header("connection", "Upgrade, HTTP2-Settings");
            let response =
                sent(request.header("upgrade", protocol).header("http2-settings", "AAMAAABk")).await;
            // Envoy refuses it, and HAProxy what is incomplete.
            if response.status() == 200 {
                let echo: Value = response.json().await.unwrap();
                assert_eq!(values(&echo, "upgrade"), [""; 0], "{}: {protocol}", proxy.name);
            } else {
                assert!([400, 403].contains(&response.status().as_u16()), "{}: {protocol}", proxy.name);
            }
        }
    }
}

async fn refuses_from_the_logout_on(proxy: &Proxy, api: &Api) {
    for round in 0..10 {
        let pair = api.login(round % 3, ANN).await;
        assert_eq!(proxy.get(&pair).await, 200, "{}", proxy.name);
        assert_eq!(api.logout((round + 1) % 3, &pair).await.0, 200);
        let refused = sent(proxy.ask(Method::GET, "/").bearer_auth(&pair.access)).await;
        assert_eq!(refused.status(), 401, "{}", proxy.name);
        assert_eq!(refused.headers()["www-authenticate"], "Bearer error=\"invalid_token\"", "{}", proxy.name);
    }
}

/// Of 200 requests at a time, none that begins after the response to the logout is passed on.
async fn refuses_from_the_logout_on_in_a_flood(proxy: &Proxy, api: &Api) {
    let pair = api.login(0, ANN).await;
    let is_ended = Arc::new(AtomicBool::new(false));
    let flood = join_all((0..200).map(async |_| {
        let (mut before, mut after) = (0, 0);
        while after < 3 {
            let begins_after = is_ended.load(Ordering::SeqCst);
            let status = proxy.get(&pair).await;
            // A gate that is too busy to hold its lease may say so.
            assert!([200, 401, 503].contains(&status.as_u16()), "{}: {status}", proxy.name);
            if begins_after {
                assert_ne!(status, 200, "{}", proxy.name);
                after += 1;
            } else {
                before += u32::from(status == 200);
            }
        }
        before
    }));
    let logout = async {
        wait_until("the flood has begun", async || proxy.get(&pair).await == 200).await;
        assert_eq!(api.logout(1, &pair).await.0, 200);
        is_ended.store(true, Ordering::SeqCst);
    };
    let (before, ()) = tokio::join!(flood, logout);
    assert!(before.iter().sum::<u32>() > 0, "{}", proxy.name);
}

async fn is_unavailable(proxy: &Proxy, live: &Pair) {
    let response = sent(proxy.ask(Method::GET, "/").bearer_auth(&live.access)).await;
    assert_eq!(response.status(), 503, "{}", proxy.name);
    let retry_after = response.headers().get("retry-after").map(|value| value.to_str().unwrap());
    // Traefik cannot add it to what it answers itself.
    let is_missing = proxy.name == "traefik" && retry_after.is_none();
    assert!(is_missing || retry_after == Some("1"), "{}: {retry_after:?}", proxy.name);
}

/// What the gate costs each proxy, at an address and at a socket, beside a service that does what is done without
/// Hallpass: it verifies the signature and asks a Redis. A preflight goes past the gate, so it shows the proxy alone.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn figures_of_proxies_with_and_without_the_gate() {
    let mut world = World::without_links(Kind::Single).await;
    let pair = Api::of(&world).register(0, ANN).await;
    let service = serve().await;
    let (port, socket) = (free_port(), world.folder().join("gate.sock"));
    let addresses = [Address::Port(port), Address::Socket(socket)];
    let _gates =
        (Gate::start(&world, addresses[0].clone()).await, Gate::start(&world, addresses[1].clone()).await);
    let (token, secret) = peer_token();
    let redis = connect(world.redis().port, &token).await;
    let peer = peer(Check::Redis(redis), secret).await;
    let peer = Address::Port(peer.rsplit(':').next().unwrap().parse().unwrap());

    println!("{:44}{:>10}{:>10}{:>10}{:>14}", "32 connections", "req/s", "p50 us", "p99 us", "of no gate");
    for program in &PROGRAMS {
        let bearer = |token: &str| format!("wrk.headers['authorization'] = 'Bearer {token}'\n");
        let preflight = "wrk.method = 'OPTIONS'\nwrk.headers['access-control-request-method'] = 'GET'\n";
        let mut rows = vec![
            ("without a gate", &addresses[0], preflight.to_owned()),
            ("with the gate", &addresses[0], bearer(&pair.access)),
            ("with the gate at a socket", &addresses[1], bearer(&pair.access)),
            ("with a service that asks Redis", &peer, bearer(&token)),
        ];
        rows.retain(|(_, gate, _)| program.socket.is_some() || matches!(gate, Address::Port(_)));
        let mut proxies = Vec::new();
        for (number, (_, gate, _)) in rows.iter().enumerate() {
            let folder = world.folder().join(format!("row-{number}"));
            proxies.push(Proxy::start(program, &folder, gate, service).await);
        }
        let mut figures = vec![Vec::new(); rows.len()];
        for _ in 0..ROUNDS {
            for ((proxy, (_, _, script)), figures) in proxies.iter().zip(&rows).zip(&mut figures) {
                figures.push(task::block_in_place(|| Figures::of(&proxy.url, script, 32)));
            }
        }
        let medians: Vec<_> = figures.iter().map(|figures| Figures::median(figures)).collect();
        for ((what, _, _), median) in rows.iter().zip(&medians) {
            let Figures { rate, p50, p99 } = median;
            let name = format!("{} {what}", program.name);
            println!("{name:44}{rate:10.0}{p50:10.0}{p99:10.0}{:14.2}", rate / medians[0].rate);
        }
    }
}
