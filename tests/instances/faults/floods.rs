//! Floods of requests that any user, or anybody, can send to one instance. Their own responses do not matter;
//! all other requests have to be served, and nothing may be left behind afterwards.

use std::{fs, time::Duration};

use futures::future::join_all;
use reqwest::RequestBuilder;
use tokio::{task::JoinSet, time};

use crate::{
    client::{Api, Pair},
    faults::strike::WHILE,
};

/// The number of concurrent clients.
const CALLERS: usize = 16;
/// The number of event streams: more than the soft limit of open files on most systems.
const STREAMS: usize = 1100;
/// The number of files that this process may need for anything else.
const OTHER_FILES: usize = 500;

async fn begin(api: &Api, one: usize) -> Option<Pair> {
    let email = format!("flood-{}@faults.example", fastrand::u64(..));
    let (status, body) = api.answered(api.register_request(one, &email)).await?;
    (status == 200).then(|| Pair::of(&body))
}

/// Opens event streams of one session and holds them.
pub async fn streams(api: &Api, one: usize) {
    let Some(pair) = begin(api, one).await else { return };
    let limit = open_files().saturating_sub(OTHER_FILES);
    let open = (0..STREAMS.min(limit)).map(|_| {
        let cookie = format!("hallpass-refresh={}", pair.refresh);
        api.get_request(one, "/api/session/events").header("cookie", cookie).send()
    });
    let held = time::timeout(WHILE, join_all(open)).await;
    time::sleep(WHILE / 2).await;
    drop(held);
}

/// Refreshes one session all the time, with the same token, within its grace.
pub async fn refreshes(api: &Api, one: usize) {
    let Some(pair) = begin(api, one).await else { return };
    flood(|| api.refresh_request(one, &pair)).await;
}

/// Logs out all the time with the token of a dead session.
pub async fn logouts(api: &Api, one: usize) {
    let Some(pair) = begin(api, one).await else { return };
    api.status(api.logout_request(one, &pair)).await;
    flood(|| api.logout_request(one, &pair)).await;
}

pub async fn readiness(api: &Api, one: usize) {
    flood(|| api.get_request(one, "/health/ready")).await;
}

async fn flood(request: impl Fn() -> RequestBuilder) {
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let request = request();
        callers.spawn(async move {
            while let Some(again) = request.try_clone() {
                if again.send().await.is_err() {
                    time::sleep(Duration::from_millis(10)).await;
                }
            }
        });
    }
    time::sleep(WHILE).await;
    callers.shutdown().await;
}

/// The soft limit of open files of this process.
fn open_files() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap_or_default();
    line.split_whitespace().next().and_then(|limit| limit.parse().ok()).unwrap_or(1024)
}
