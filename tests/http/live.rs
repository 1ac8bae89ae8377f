//! The event streams of a page: the end of its session, and the state of the instances.

use futures::{Stream, StreamExt};
use reqwest::{Client, Response};
use serde_json::{Value, json};

use crate::support::*;

const EVENTS: &str = "/api/cluster/events";
const SESSION: &str = "/api/session/events";

/// A browser that has signed in: it keeps its cookies.
async fn signed_in(server: &Server) -> (Client, Value) {
    let browser = Client::builder().cookie_store(true).build().unwrap();
    let body = json!({ "email": "ann@example.com", "password": PASSWORD });
    let (status, answer) =
        answer(browser.post(format!("{}/api/auth/register", server.url)).json(&body)).await;
    assert_eq!(status, 200, "{answer}");
    (browser, answer)
}

async fn page_of(server: &Server, refresh: &str, path: &str) -> Response {
    server.get(path).header("cookie", format!("hallpass-refresh={refresh}")).send().await.unwrap()
}

fn events(response: Response) -> impl Stream<Item = Value> + Unpin {
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    Box::pin(response.bytes_stream().flat_map(move |bytes| {
        text.push_str(str::from_utf8(&bytes.unwrap()).unwrap());
        let mut events = Vec::new();
        while let Some((event, rest)) = text.split_once("\n\n") {
            events.push(serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap());
            text = rest.to_owned();
        }
        futures::stream::iter(events)
    }))
}

#[tokio::test]
async fn cluster_events_are_streamed_until_the_session_ends() {
    let home = Home::new();
    let server = home.start().await;
    let (browser, tokens) = signed_in(&server).await;
    let response = browser.get(format!("{}{EVENTS}", server.url)).send().await.unwrap();
    assert_eq!(response.headers()["cache-control"], "no-store");
    let mut events = events(response);
    for _ in 0..2 {
        let view = events.next().await.unwrap();
        assert_eq!(view["is_shared"], false);
        assert_eq!(view["instances"][0]["is_leased"], true);
        assert_eq!(view["instances"][0]["sessions"], 1);
    }
    let access = tokens["access_token"].as_str().unwrap();
    assert_eq!(status(server.logout(access)).await, 200);
    while events.next().await.is_some() {}
    let refused = browser.get(format!("{}{EVENTS}", server.url)).send().await.unwrap();
    assert_eq!(refused.status(), 401);
}

/// The name and the data of each event.
fn named_events(response: Response) -> impl Stream<Item = (String, String)> + Unpin {
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-store");
    let mut text = String::new();
    Box::pin(response.bytes_stream().flat_map(move |bytes| {
        text.push_str(str::from_utf8(&bytes.unwrap()).unwrap());
        let mut events = Vec::new();
        while let Some((event, rest)) = text.split_once("\n\n") {
            let field = |name: &str| {
                let mut lines = event.lines().filter_map(|line| line.strip_prefix(name));
                lines.next().unwrap_or_default().trim().to_owned()
            };
            events.push((field("event:"), field("data:")));
            text = rest.to_owned();
        }
        // Lines that begin with a colon are comments, which keep the connection alive.
        events.retain(|(name, _)| !name.is_empty());
        futures::stream::iter(events)
    }))
}

#[tokio::test]
async fn session_stream_sends_the_end_reason_and_closes() {
    let home = Home::new();
    home.add_administrator("root@example.com");
    let server = home.start().await;
    server.register("ann@example.com").await;
    let root = server.login("root@example.com").await;
    let (_, users) = answer(server.call("/api/admin/users", &root.access, json!({ "search": "ann@" }))).await;
    let ann = json!({ "user_id": users["users"][0]["user_id"] });
    for reason in [
        "signed_out",
        "ended_elsewhere",
        "signed_out_everywhere",
        "replaced",
        "ended_by_admin",
        "role_changed",
        "disabled",
    ] {
        let browser = browser();
        let at = |path: &str| format!("{}{path}", server.url);
        let body = json!({ "email": "ann@example.com", "password": PASSWORD });
        let (_, tokens) = answer(browser.post(at("/api/auth/login")).json(&body)).await;
        let (session, access) = (&tokens["session_id"], tokens["access_token"].as_str().unwrap());
        let mut events = named_events(browser.get(at(SESSION)).send().await.unwrap());
        let page = server.get("/").send().await.unwrap().text().await.unwrap();
        let version = page.split("data-version=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(events.next().await.unwrap(), ("live".to_owned(), version.to_owned()));
        let mut of_servers = self::events(browser.get(at(EVENTS)).send().await.unwrap());
        of_servers.next().await.unwrap();
        let other = server.login("ann@example.com").await;
        let ending = match reason {
            "signed_out" => server.logout(access),
            "ended_elsewhere" => {
                server.call("/api/account/revoke_session", &other.access, json!({ "session_id": session }))
            }
            "signed_out_everywhere" => {
                server.call("/api/account/logout_everywhere", &other.access, json!({ "keep_current": true }))
            }
            "replaced" => browser.post(at("/api/auth/login")).json(&body),
            "ended_by_admin" => server.call("/api/admin/revoke_sessions", &root.access, ann.clone()),
            "role_changed" => {
                let body = json!({ "user_id": ann["user_id"], "role": "user" });
                server.call("/api/admin/set_role", &root.access, body)
            }
            _ => server.call("/api/admin/disable_user", &root.access, ann.clone()),
        };
        assert_eq!(status(ending).await, 200, "{reason}");
        assert_eq!(events.next().await.unwrap(), ("ended".to_owned(), json!(reason).to_string()));
        assert_eq!(events.next().await, None, "{reason}");
        while of_servers.next().await.is_some() {}
        if reason != "replaced" {
            for path in [SESSION, EVENTS] {
                let refused = browser.get(at(path)).send().await.unwrap();
                assert_invalid_token(&refused, reason);
            }
        }
    }
}

#[tokio::test]
async fn session_stream_does_not_report_other_sessions() {
    let home = Home::new();
    let server = home.start().await;
    let (browser, tokens) = signed_in(&server).await;
    let mut events = named_events(browser.get(format!("{}{SESSION}", server.url)).send().await.unwrap());
    assert_eq!(events.next().await.unwrap().0, "live");
    let bob = server.register("bob@example.com").await;
    let other = server.login("ann@example.com").await;
    for access in [&bob.access, &other.access] {
        assert_eq!(status(server.logout(access)).await, 200);
    }
    // Events about other sessions would arrive before this one.
    assert_eq!(status(server.logout(tokens["access_token"].as_str().unwrap())).await, 200);
    assert_eq!(events.next().await.unwrap().1, "\"signed_out\"");
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn open_stream_does_not_delay_shutdown() {
    let home = Home::new();
    let server = home.start().await;
    let (browser, _) = signed_in(&server).await;
    let mut events = events(browser.get(format!("{}{EVENTS}", server.url)).send().await.unwrap());
    events.next().await.unwrap();
    server.stop().await;
    while events.next().await.is_some() {}
}

#[tokio::test]
async fn event_streams_turn_off_proxy_buffering() {
    let home = Home::new();
    let server = home.start().await;
    let (browser, _) = signed_in(&server).await;
    for path in [EVENTS, SESSION] {
        let response = browser.get(format!("{}{path}", server.url)).send().await.unwrap();
        assert_eq!(response.headers()["x-accel-buffering"], "no", "{path}");
    }
}

#[tokio::test]
async fn session_has_at_most_sixteen_streams_and_the_oldest_is_closed() {
    const MOST: usize = 16;
    let home = Home::new();
    let server = home.start().await;
    let pair = server.register("ann@example.com").await;
    let other = server.login("ann@example.com").await;
    let mut of_other = named_events(page_of(&server, &other.refresh, SESSION).await);
    assert_eq!(of_other.next().await.unwrap().0, "live");
    let mut streams = Vec::new();
    for _ in 0..MOST + 4 {
        let mut events = named_events(page_of(&server, &pair.refresh, SESSION).await);
        assert_eq!(events.next().await.unwrap().0, "live");
        streams.push(events);
    }
    let newest = streams.split_off(4);
    assert_eq!(status(server.logout(&pair.access)).await, 200);
    for mut events in streams {
        assert_eq!(events.next().await, None, "it has ended before the session has");
    }
    for mut events in newest {
        assert_eq!(events.next().await.unwrap().1, "\"signed_out\"");
    }
    assert_eq!(status(server.logout(&other.access)).await, 200);
    assert_eq!(of_other.next().await.unwrap().1, "\"signed_out\"");
}

#[tokio::test]
async fn only_the_current_and_the_previous_refresh_token_open_a_stream() {
    let home = Home::new();
    let server = home.start().await;
    let first = server.register("ann@example.com").await;
    let (_, second) = answer(server.refresh(&first.refresh)).await;
    let second = Pair::of(&second);
    for path in [EVENTS, SESSION] {
        // The response with the second token may have been lost.
        for current in [&first, &second] {
            assert_eq!(page_of(&server, &current.refresh, path).await.status(), 200);
        }
    }
    let (_, third) = answer(server.refresh(&second.refresh)).await;
    let third = Pair::of(&third);
    for path in [EVENTS, SESSION] {
        assert_invalid_token(&page_of(&server, &first.refresh, path).await, path);
        for current in [&second, &third] {
            assert_eq!(page_of(&server, &current.refresh, path).await.status(), 200);
        }
    }
    // The refused streams have not ended the session.
    assert_eq!(status(server.me(&third.access)).await, 200);
    assert_eq!(status(server.refresh(&third.refresh)).await, 200);
}

/// Event streams leave connections for other requests, even with a low limit of open files.
#[tokio::test]
async fn streams_of_many_sessions_leave_room_for_other_requests() {
    let home = Home::new();
    let server = home.spawn_limited("ulimit -n 256");
    let mut sessions = vec![server.register("ann@example.com").await];
    for _ in 0..10 {
        sessions.push(server.login("ann@example.com").await);
    }
    let (mut streams, mut refused) = (Vec::new(), 0);
    for pair in sessions.iter().cycle().take(160) {
        let cookie = format!("hallpass-refresh={}", pair.refresh);
        let response = server.get(SESSION).header("cookie", cookie).send().await.unwrap();
        match response.status().as_u16() {
            200 => streams.push(response),
            429 => {
                assert_eq!(response.headers()["retry-after"], "60");
                refused += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!((streams.len(), refused), (64, 96));
    let new_connection = || Client::builder().pool_max_idle_per_host(0).build().unwrap();
    for _ in 0..20 {
        let live = new_connection().get(format!("{}/health/live", server.url)).send().await.unwrap();
        assert_eq!(live.status(), 200);
    }
    assert_eq!(status(server.me(&sessions[0].access)).await, 200);
    // A closed stream makes room for another one.
    drop(streams);
    let cookie = format!("hallpass-refresh={}", sessions[0].refresh);
    while server.get(SESSION).header("cookie", &cookie).send().await.unwrap().status() != 200 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn event_streams_need_a_session() {
    let home = Home::new();
    let server = home.start().await;
    for path in [EVENTS, SESSION] {
        let refused = server.get(path).send().await.unwrap();
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["www-authenticate"]),
            (401, &"Bearer".parse().unwrap())
        );
        let forged = server.get(path).header("cookie", "hallpass-refresh=a.1.b").send().await.unwrap();
        assert_invalid_token(&forged, "a forged cookie");
    }
}

#[tokio::test]
async fn metrics_count_requests_and_revocations() {
    let home = Home::new();
    let server = home.start().await;
    let pair = server.register("ann@example.com").await;
    let count = async |name: &str| {
        let text = server.get("/metrics").send().await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse::<f64>().unwrap())
    };
    // Other tests in this process increase the same counters, so the values are lower bounds.
    let hits = count("hallpass_mirror_hits_total").await;
    for _ in 0..10 {
        assert_eq!(status(server.me(&pair.access)).await, 200);
    }
    assert!(count("hallpass_mirror_hits_total").await >= hits + 10.0);
    let ended = count("hallpass_revocation_seconds_count").await;
    assert_eq!(status(server.logout(&pair.access)).await, 200);
    assert!(count("hallpass_revocation_seconds_count").await >= ended + 1.0);
}
