//! Waiting for the server, and no longer than makes sense.

use futures::future::{Either, select};
use gloo_timers::future::TimeoutFuture;

use crate::api::error::AuthError;

/// What the call answers within `patience_ms` milliseconds.
///
/// # Errors
/// Its own, or [`AuthError::Transport`] when the time is up.
pub(super) async fn within<T>(
    patience_ms: u32,
    call: impl Future<Output = Result<T, AuthError>>,
) -> Result<T, AuthError> {
    match select(Box::pin(call), TimeoutFuture::new(patience_ms)).await {
        Either::Left((answer, _)) => answer,
        Either::Right(_) => Err(AuthError::Transport),
    }
}
