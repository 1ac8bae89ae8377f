//! What the server keeps telling a page: the state of the servers, for as long as the session lives.

use futures::{Stream, StreamExt};
use reqwest::{Client, Response};
use serde_json::{Value, json};

use crate::support::*;

const EVENTS: &str = "/api/cluster/events";

/// A browser that has signed in: it keeps the cookie.
async fn signed_in(server: &Server) -> (Client, Value) {
    let browser = Client::builder().cookie_store(true).build().unwrap();
    let body = json!({ "email": "ann@example.com", "password": PASSWORD });
    let (status, answer) =
        answer(browser.post(format!("{}/api/auth/register", server.url)).json(&body)).await;
    assert_eq!(status, 200, "{answer}");
    (browser, answer)
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
async fn the_servers_are_told_of_until_the_session_ends() {
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

#[tokio::test]
async fn a_stream_does_not_keep_the_server_from_stopping() {
    let home = Home::new();
    let server = home.start().await;
    let (browser, _) = signed_in(&server).await;
    let mut events = events(browser.get(format!("{}{EVENTS}", server.url)).send().await.unwrap());
    events.next().await.unwrap();
    server.stop().await;
    while events.next().await.is_some() {}
}

#[tokio::test]
async fn nobody_is_told_without_a_session() {
    let home = Home::new();
    let server = home.start().await;
    let refused = server.get(EVENTS).send().await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["www-authenticate"]),
        (401, &"Bearer".parse().unwrap())
    );
    let forged = server.get(EVENTS).header("cookie", "hallpass-refresh=a.1.b").send().await.unwrap();
    assert_invalid_token(&forged, "a forged cookie");
}

#[tokio::test]
async fn what_happens_is_counted() {
    let home = Home::new();
    let server = home.start().await;
    let pair = server.register("ann@example.com").await;
    let count = async |name: &str| {
        let text = server.get("/metrics").send().await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse::<f64>().unwrap())
    };
    // Others in this process count there too: so at least as many.
    let hits = count("hallpass_mirror_hits_total").await;
    for _ in 0..10 {
        assert_eq!(status(server.me(&pair.access)).await, 200);
    }
    assert!(count("hallpass_mirror_hits_total").await >= hits + 10.0);
    let ended = count("hallpass_revocation_seconds_count").await;
    assert_eq!(status(server.logout(&pair.access)).await, 200);
    assert!(count("hallpass_revocation_seconds_count").await >= ended + 1.0);
}
