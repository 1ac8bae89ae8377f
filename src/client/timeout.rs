//! Waiting for the server, and no longer than makes sense.

use futures::future::{Either, select};
use gloo_timers::future::TimeoutFuture;

use crate::api::error::ApiError;

/// What the call answers within `timeout_ms` milliseconds.
///
/// # Errors
/// Its own, or [`ApiError::Transport`] when the time is up.
pub(super) async fn with_timeout<T>(
    timeout_ms: u32,
    call: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    match select(Box::pin(call), TimeoutFuture::new(timeout_ms)).await {
        Either::Left((answer, _)) => answer,
        Either::Right(_) => Err(ApiError::Transport),
    }
}
