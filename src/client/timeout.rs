//! Timeouts for calls, and the clock for durations.

use futures::future::{Either, select};
use gloo_timers::future::TimeoutFuture;
use leptos::prelude::window;

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

/// Milliseconds by a monotonic clock, if the browser has one.
pub(super) fn now_ms() -> f64 {
    window().performance().map_or_else(js_sys::Date::now, |clock| clock.now())
}
