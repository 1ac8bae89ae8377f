//! Health checks: whether the process runs, and whether it can serve. Requests for them need no login and
//! have no limit.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, http::StatusCode, response::IntoResponse, routing::get};
use tokio::{sync::Mutex, time};

use crate::{api::error::ApiError, server::auth::Auth};

/// How long a result is reused: a flood of requests is one write to the database in this time.
const VALID: Duration = Duration::from_millis(500);

/// The timeout of a check. A database that takes longer is of no use to requests, either.
const TIMEOUT: Duration = Duration::from_secs(3);

/// `/health/live` and `/health/ready`.
pub fn routes<S: Clone + Send + Sync + 'static>(auth: Arc<Auth>) -> Router<S> {
    let readiness = Arc::new(Readiness::default());
    let ready = async move || {
        // The lease is checked at every request; only the check of the database is expensive.
        let is_ready = auth.is_authorizing_from_memory() && {
            let auth = Arc::clone(&auth);
            readiness.ask(async move { auth.can_record().await }).await
        };
        if is_ready && auth.is_authorizing_from_memory() {
            StatusCode::OK.into_response()
        } else {
            ApiError::Unavailable.into_response()
        }
    };
    Router::new().route("/health/live", get(StatusCode::OK)).route("/health/ready", get(ready))
}

/// The last result, and its time. The lock is held during a check, so that there is one check at a time.
#[derive(Default)]
struct Readiness(Mutex<Option<(Instant, bool)>>);

impl Readiness {
    async fn ask(self: &Arc<Self>, check: impl Future<Output = bool> + Send + 'static) -> bool {
        let readiness = Arc::clone(self);
        // The check is a task of its own, so that a client that disconnects does not interrupt it and cost a
        // connection.
        tokio::spawn(async move { readiness.look(check).await }).await.unwrap_or(false)
    }

    async fn look(&self, check: impl Future<Output = bool>) -> bool {
        let mut last = self.0.lock().await;
        if let Some((at, is_ready)) = *last
            && at.elapsed() < VALID
        {
            return is_ready;
        }
        let is_ready = time::timeout(TIMEOUT, check).await == Ok(true);
        *last = Some((Instant::now(), is_ready));
        is_ready
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn many_who_ask_at_the_same_time_share_one_check() {
        let (readiness, checks) = (Arc::new(Readiness::default()), Arc::new(AtomicUsize::new(0)));
        let started = Instant::now();
        let asking = (0..1000).map(|_| {
            let (readiness, checks) = (Arc::clone(&readiness), Arc::clone(&checks));
            async move {
                let check = async move {
                    checks.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    true
                };
                readiness.ask(check).await
            }
        });
        assert!(futures::future::join_all(asking).await.into_iter().all(|is_ready| is_ready));
        let periods = started.elapsed().as_millis() / VALID.as_millis() + 1;
        assert!(checks.load(Ordering::Relaxed) as u128 <= periods);
    }

    #[tokio::test]
    async fn client_disconnect_does_not_stop_a_check_or_block_others() {
        let readiness = Arc::new(Readiness::default());
        let (begun, has_begun) = oneshot::channel();
        let (finish, finished) = oneshot::channel::<()>();
        let check = async move {
            begun.send(()).unwrap();
            finished.await.is_ok()
        };
        let asking = {
            let readiness = Arc::clone(&readiness);
            tokio::spawn(async move { readiness.ask(check).await })
        };
        has_begun.await.unwrap();
        asking.abort();
        assert!(asking.await.unwrap_err().is_cancelled());
        // The check is still running: had it been dropped with the request, this would not be received.
        finish.send(()).unwrap();
        assert!(readiness.ask(async { true }).await);
    }

    #[tokio::test]
    async fn answer_is_forgotten_in_time() {
        let readiness = Arc::new(Readiness::default());
        assert!(!readiness.ask(async { false }).await);
        while !readiness.ask(async { true }).await {
            time::sleep(Duration::from_millis(10)).await;
        }
    }
}
