//! What the front pages ask of the server. They are light because the rest of the app is not in their wasm
//! but in a part of its own, `app`, which is fetched when it is needed first, and kept. These functions are
//! doors into it: each fetches the part if need be, and goes on there.
//!
//! What is reached through doors alone goes into the part: the app's pages, server functions, JSON. So
//! nothing that a front page reaches otherwise may make a call. The other door is `start_app` in `lib.rs`.

use futures::future::LocalBoxFuture;
use gloo_timers::future::TimeoutFuture;
use leptos::{
    prelude::Owner,
    wasm_split::{SplitLoaderError, wasm_split},
};

use super::{
    refresh::SessionGeneration,
    session::Session,
    sse,
    storage::{self, StoredToken, device_now},
};
use crate::api::{
    self,
    error::ApiError,
    types::{Delivery, Revocation, TokenResponse},
};

/// Between two tries to fetch the part: at first, and at the most, in milliseconds.
const FETCH_AGAIN_AFTER_MS: u32 = 2_000;
const FETCH_AGAIN_AT_MOST_MS: u32 = 60_000;

type Answer<T> = LocalBoxFuture<'static, Result<T, ApiError>>;

impl From<SplitLoaderError> for ApiError {
    /// The server that has the part could not be reached, like any other.
    fn from(_: SplitLoaderError) -> Self {
        Self::Transport
    }
}

/// Registers, and keeps the new session's token.
///
/// # Errors
/// What the call answers.
#[wasm_split(
    app, wasm_split_path = leptos::wasm_split, fallible,
    return_wrapper(let answer = _; { answer?.await } -> Result<(), ApiError>)
)]
pub fn register(email: String, password: String) -> Result<Answer<()>, ApiError> {
    Ok(Box::pin(async move { api::auth::register(email, password, Delivery::Cookie).await.map(keep) }))
}

/// Logs in, and keeps the session's token.
///
/// # Errors
/// What the call answers.
#[wasm_split(
    app, wasm_split_path = leptos::wasm_split, fallible,
    return_wrapper(let answer = _; { answer?.await } -> Result<(), ApiError>)
)]
pub fn login(email: String, password: String) -> Result<Answer<()>, ApiError> {
    Ok(Box::pin(async move { api::auth::login(email, password, Delivery::Cookie).await.map(keep) }))
}

fn keep(response: TokenResponse) {
    SessionGeneration::end();
    storage::set_logout_pending(false);
    storage::save(&StoredToken::new(response, device_now()));
}

/// Asks the server to end the session of this browser.
///
/// # Errors
/// What the call answers.
#[wasm_split(
    app, wasm_split_path = leptos::wasm_split, fallible,
    return_wrapper(let answer = _; { answer?.await } -> Result<Revocation, ApiError>)
)]
pub fn logout() -> Result<Answer<Revocation>, ApiError> {
    Ok(Box::pin(api::auth::logout(None)))
}

/// Waits until the part is there, asking for it again and again, ever more slowly.
pub async fn fetched() {
    let mut pause = FETCH_AGAIN_AFTER_MS;
    while fetch().await.is_err() {
        TimeoutFuture::new(pause).await;
        pause = (pause * 2).min(FETCH_AGAIN_AT_MOST_MS);
    }
}

/// Hears of the end of the session for as long as `owner` lives.
///
/// # Errors
/// The part cannot be had.
#[wasm_split(app, wasm_split_path = leptos::wasm_split, fallible, preload(fetch))]
pub fn follow(session: Session, owner: Owner) -> Result<(), SplitLoaderError> {
    owner.with(|| sse::follow_session(session));
    Ok(())
}
