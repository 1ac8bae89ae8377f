//! What the front pages ask of the server. They are light because the rest of the app is not in their wasm
//! but in a part of its own, `app`, which is fetched when it is needed first, and kept. These functions are
//! doors into it: each fetches the part if need be, and goes on there.
//!
//! What is reached through doors alone goes into the part: the app's pages, server functions, JSON. So
//! nothing that a front page reaches otherwise may make a call. The other door is [`app::start`].
//!
//! [`app::start`]: crate::app::start

use std::{future::Future, pin::Pin};

use leptos::{
    prelude::Owner,
    wasm_split::{SplitLoaderError, wasm_split},
};

use super::{
    live,
    renew::Tenure,
    session::Session,
    storage::{self, StoredToken, device_now},
};
use crate::api::{
    self,
    error::AuthError,
    types::{Delivery, Revocation, TokenResponse},
};

type Answer<T> = Pin<Box<dyn Future<Output = Result<T, AuthError>>>>;

impl From<SplitLoaderError> for AuthError {
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
    return_wrapper(let answer = _; { answer?.await } -> Result<(), AuthError>)
)]
pub fn register(email: String, password: String) -> Result<Answer<()>, AuthError> {
    Ok(Box::pin(async move { api::auth::register(email, password, Delivery::Cookie).await.map(keep) }))
}

/// Logs in, and keeps the session's token.
///
/// # Errors
/// What the call answers.
#[wasm_split(
    app, wasm_split_path = leptos::wasm_split, fallible,
    return_wrapper(let answer = _; { answer?.await } -> Result<(), AuthError>)
)]
pub fn login(email: String, password: String) -> Result<Answer<()>, AuthError> {
    Ok(Box::pin(async move { api::auth::login(email, password, Delivery::Cookie).await.map(keep) }))
}

fn keep(response: TokenResponse) {
    Tenure::end();
    storage::set_logout_pending(false);
    storage::save(&StoredToken::new(response, device_now()));
}

/// Asks the server to end the session of this browser.
///
/// # Errors
/// What the call answers.
#[wasm_split(
    app, wasm_split_path = leptos::wasm_split, fallible,
    return_wrapper(let answer = _; { answer?.await } -> Result<Revocation, AuthError>)
)]
pub fn logout() -> Result<Answer<Revocation>, AuthError> {
    Ok(Box::pin(api::auth::logout(None)))
}

/// Hears of the end of the session for as long as `owner` lives.
///
/// # Errors
/// The part cannot be had.
#[wasm_split(app, wasm_split_path = leptos::wasm_split, fallible, preload(fetch))]
pub fn follow(session: Session, owner: Owner) -> Result<(), SplitLoaderError> {
    owner.with(|| live::follow_session(session));
    Ok(())
}
