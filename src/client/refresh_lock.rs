//! The lock by which only one tab of a browser renews the token at a time.

use futures::future::{Either, select};
use gloo_timers::future::TimeoutFuture;
use leptos::logging::warn;

use super::web_lock::WebLock;

const NAME: &str = "hallpass-renewal";

/// How long one tab waits for another. After that it renews without the lock: the other tab must be frozen,
/// because every renewal has ended by then.
pub(super) const TIMEOUT_MS: u32 = 25_000;

/// Acquires the lock. `None` in a browser without Web Locks, and when another tab does not release it.
pub async fn acquire() -> Option<WebLock> {
    let Ok(request) = WebLock::request(NAME) else {
        warn!("This browser has no Web Locks: tabs may renew their token at the same time.");
        return None;
    };
    match select(Box::pin(request), TimeoutFuture::new(TIMEOUT_MS)).await {
        Either::Left((lock, _)) => lock,
        Either::Right(_) => None,
    }
}
