//! The calls of the front pages. These pages load little wasm, because the rest of the app is in a part of
//! its own, `app`, which is fetched when it is first needed, and kept. Each function here is an entry point
//! into that part: it fetches the part if necessary, and runs there.
//!
//! The part contains the code that only entry points reach: the app's pages, server functions, JSON. So a
//! front page must not make a call in any other way. The other entry points are
//! `start_app` in `lib.rs`, `follow_session` in `sse.rs` and `advise` in `app/components/field.rs`.

use std::pin::pin;

use futures::future::{Either, LocalBoxFuture, select};
use gloo_timers::future::TimeoutFuture;
use leptos::{
    prelude::document,
    wasm_split::{SplitLoaderError, wasm_split},
};

use super::{
    cookie,
    page_error::{self, PageError},
    passkeys,
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

/// When the ceremony of suggested passkeys is begun anew: the server accepts its answer for five minutes.
const CEREMONY_AGE_MS: u32 = 4 * 60 * 1_000;

type Answer<T> = LocalBoxFuture<'static, Result<T, ApiError>>;

impl From<SplitLoaderError> for ApiError {
    /// A failed fetch of the part is reported like any other unreachable server.
    fn from(_: SplitLoaderError) -> Self {
        Self::Transport
    }
}

/// How a session begins.
pub enum Beginning {
    Register {
        email: String,
        password: String,
    },
    Login {
        email: String,
        password: String,
        /// The code of a second factor; empty unless it was asked for.
        code: String,
    },
    /// With a passkey: one for which the browser asks in a dialog or, by autofill, one that it suggests in a field.
    Passkey {
        by_autofill: bool,
    },
}

/// Registers or logs in, and stores the token of the session. Returns whether there is one: without, the user has chosen
/// none of the passkeys that were suggested. One function, because each entry point adds to the front.
///
/// # Errors
/// The error of the call, or of the browser's dialog, in words for the user.
#[wasm_split(
    app, wasm_split_path = leptos::wasm_split, fallible,
    return_wrapper(let answer = _; { answer?.await } -> Result<bool, ApiError>)
)]
pub fn begin(how: Beginning) -> Result<Answer<bool>, ApiError> {
    Ok(Box::pin(async move {
        let answer = match how {
            Beginning::Register { email, password } => {
                api::auth::register(email, password, Delivery::Cookie).await
            }
            Beginning::Login { email, password, code } => {
                api::auth::login(email, password, code, Delivery::Cookie).await
            }
            Beginning::Passkey { by_autofill } => {
                let chosen =
                    if by_autofill { suggested_passkey().await } else { Some(asked_passkey().await?) };
                let Some((ceremony, credential)) = chosen else { return Ok(false) };
                api::auth::login_with_passkey(ceremony, credential, Delivery::Cookie).await
            }
        };
        keep(answer).await.map(|()| true)
    }))
}

/// The passkey that the user chooses in a dialog: the ceremony and the credential.
async fn asked_passkey() -> Result<(String, String), ApiError> {
    let begun = api::auth::begin_passkey_login().await?;
    let credential = passkeys::get(&begun.options).await?;
    Ok((begun.ceremony, credential))
}

/// The passkey that the user chooses among the suggestions in a field.
async fn suggested_passkey() -> Option<(String, String)> {
    while passkeys::has_autofill().await && !document().hidden() {
        let begun = api::auth::begin_passkey_login().await.ok()?;
        let chosen = pin!(passkeys::get_by_autofill(&begun.options));
        if let Either::Left((credential, _)) = select(chosen, TimeoutFuture::new(CEREMONY_AGE_MS)).await {
            return Some((begun.ceremony, credential.ok()?));
        }
    }
    passkeys::stop_autofill();
    None
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
