//! The calls of the front pages. These pages load little wasm, because the rest of the app is in a part of
//! its own, `app`, which is fetched when it is first needed, and kept. Each function here is an entry point
//! into that part: it fetches the part if necessary, and runs there.
//!
//! The part contains the code that only entry points reach: the app's pages, server functions, JSON. So a
//! front page must not make a call in any other way. The other entry points are
//! `start_app` in `lib.rs` and `follow_session` in `sse.rs`.

use futures::future::LocalBoxFuture;
use gloo_timers::future::TimeoutFuture;
use leptos::wasm_split::{SplitLoaderError, wasm_split};

use super::{
    cookie,
    page_error::{self, PageError},
    refresh::{SessionGeneration, ends_session},
    storage::{self, StoredToken, device_now},
    timeout::with_timeout,
};
use crate::api::{
    self,
    error::ApiError,
    types::{Delivery, Revocation, TokenResponse},
};

/// The delay before a failed fetch of the part is repeated: the first and the longest, in milliseconds.
const FETCH_AGAIN_AFTER_MS: u32 = 2_000;
const FETCH_AGAIN_AT_MOST_MS: u32 = 60_000;

/// How long a logout of a session that this browser cannot keep may take.
const LOGOUT_TIMEOUT_MS: u32 = 5_000;

type Answer<T> = LocalBoxFuture<'static, Result<T, ApiError>>;

impl From<SplitLoaderError> for ApiError {
    /// A failed fetch of the part is reported like any other unreachable server.
    fn from(_: SplitLoaderError) -> Self {
        Self::Transport
    }
}

/// Registers a user, and stores the token of the new session.
///
/// # Errors
/// The error of the call.
#[wasm_split(
    app, wasm_split_path = leptos::wasm_split, fallible,
    return_wrapper(let answer = _; { answer?.await } -> Result<(), ApiError>)
)]
pub fn register(email: String, password: String) -> Result<Answer<()>, ApiError> {
    Ok(Box::pin(async move { keep(api::auth::register(email, password, Delivery::Cookie).await).await }))
}

/// Logs in, and stores the token of the session.
///
/// # Errors
/// The error of the call.
#[wasm_split(
    app, wasm_split_path = leptos::wasm_split, fallible,
    return_wrapper(let answer = _; { answer?.await } -> Result<(), ApiError>)
)]
pub fn login(email: String, password: String) -> Result<Answer<()>, ApiError> {
    Ok(Box::pin(async move { keep(api::auth::login(email, password, Delivery::Cookie).await).await }))
}

/// Stores the token of a new session, if the browser has kept its cookie.
async fn keep(answer: Result<TokenResponse, ApiError>) -> Result<(), ApiError> {
    let response = match answer {
        Err(ApiError::CrossSite) if cookie::needs_https() => return Err(ApiError::needs_https()),
        answer => answer?,
    };
    SessionGeneration::end();
    storage::set_logout_pending(false);
    if has_cookie_of(&response.session_id).await {
        storage::save(&StoredToken::new(response, device_now()));
        return Ok(());
    }
    // The token alone would last five minutes, and nothing here could end the session afterwards.
    storage::clear();
    storage::see(response.access_token);
    let _ = with_timeout(LOGOUT_TIMEOUT_MS, api::auth::logout(None)).await;
    storage::forget_last_seen();
    Err(if cookie::needs_https() { ApiError::needs_https() } else { ApiError::no_refresh_token() })
}

/// Whether this browser has kept the cookie of the session.
async fn has_cookie_of(session_id: &str) -> bool {
    if cookie::session_id().as_deref() == Some(session_id) {
        return true;
    }
    // An instance of an earlier version sets no cookie that scripts can read.
    match api::auth::refresh(None).await {
        Ok(next) => next.session_id == session_id,
        Err(error) => !ends_session(&error),
    }
}

/// Asks the server to revoke the session of this browser.
///
/// # Errors
/// The error of the call.
#[wasm_split(
    app, wasm_split_path = leptos::wasm_split, fallible, preload(fetch),
    return_wrapper(let answer = _; { answer?.await } -> Result<Revocation, ApiError>)
)]
pub fn logout() -> Result<Answer<Revocation>, ApiError> {
    Ok(Box::pin(api::auth::logout(None)))
}

/// Waits until the part is loaded, retrying with exponential backoff. From the second failure on the page says
/// so.
pub async fn fetched() {
    let mut pause = FETCH_AGAIN_AFTER_MS;
    while fetch().await.is_err() {
        if pause > FETCH_AGAIN_AFTER_MS {
            PageError::Part.show();
        }
        TimeoutFuture::new(pause).await;
        pause = (pause * 2).min(FETCH_AGAIN_AT_MOST_MS);
    }
    page_error::hide();
}
