//! Timeouts for calls.

use futures::future::{Either, select};
use gloo_timers::future::TimeoutFuture;

use crate::api::error::ApiError;

/// Awaits the call for at most `timeout_ms` milliseconds.
///
/// # Errors
/// The error of the call, or [`ApiError::Transport`] after the timeout.
pub(super) async fn with_timeout<T>(
    timeout_ms: u32,
    call: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    match select(Box::pin(call), TimeoutFuture::new(timeout_ms)).await {
        Either::Left((answer, _)) => answer,
        Either::Right(_) => Err(ApiError::Transport),
    }
}
