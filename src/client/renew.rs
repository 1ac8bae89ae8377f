//! A fresh access token for each call that needs one: fetched ahead of its end, and once for all
//! who ask at the same time, in whatever tab.

use std::{cell::Cell, future::Future, sync::LazyLock};

use bytes::Bytes;
use futures::{Sink, Stream, lock::Mutex};
use send_wrapper::SendWrapper;
use server_fn::{
    client::{Client, browser::BrowserClient},
    request::browser::BrowserRequest,
    response::browser::BrowserResponse,
};

use super::{
    bearer::{attach_token, send},
    patience::within,
    storage::{self, StoredToken, device_now},
    tabs::Turn,
};
use crate::api::{self, error::AuthError, types::AccessToken};

/// One refresh at a time in this tab: those who come during one wait, and find its result.
static RENEWING: LazyLock<Mutex<()>> = LazyLock::new(|| Mutex::new(()));

/// How long the others wait for a refresh that is not answered.
const REFRESH_PATIENCE_MS: u32 = 15_000;

/// Attaches a fresh access token, after a refresh if need be.
///
/// # Errors
/// What the refresh answered, when there is no token without it.
pub struct RenewingClient;

attach_token!(RenewingClient, Some(fresh_token().await?));

/// A token with life enough left: the stored one, or the next.
async fn fresh_token() -> Result<AccessToken, AuthError> {
    let _one_in_this_tab = RENEWING.lock().await;
    if let Some(token) = storage::load().filter(is_fresh) {
        return Ok(token.access_token);
    }
    let _one_in_this_browser = Turn::wait().await;
    // Another tab may have renewed it meanwhile.
    let stored = storage::load();
    if let Some(token) = stored.clone().filter(is_fresh) {
        return Ok(token.access_token);
    }
    if storage::is_logout_pending() {
        // The cookie may still be good, but its owner has left.
        return Err(AuthError::InvalidToken);
    }
    let tenure = Tenure::current();
    match within(REFRESH_PATIENCE_MS, api::auth::refresh(None)).await {
        // Logged out meanwhile: the server has ended this token as well.
        Ok(_) if tenure.is_over() => Err(AuthError::InvalidToken),
        Ok(response) => {
            let token = StoredToken::new(response, device_now());
            storage::save(&token);
            Ok(token.access_token)
        }
        // Nothing was decided about the session; what is left of the old token is still good.
        Err(error @ (AuthError::Unavailable | AuthError::TooManyRequests(_) | AuthError::Transport)) => {
            stored
                .filter(|token| token.seconds_left(device_now()) > 0.0)
                .map(|token| token.access_token)
                .ok_or(error)
        }
        Err(error) => Err(error),
    }
}

fn is_fresh(token: &StoredToken) -> bool {
    !token.is_due(device_now())
}

thread_local! {
    static TENURE: Cell<u32> = const { Cell::new(0) };
}

/// The time from one sign-in in this tab to its end. What began in one that is over (a refresh
/// under way during a log-out) must not take effect in the next.
#[derive(Clone, Copy)]
pub(super) struct Tenure(u32);

impl Tenure {
    pub(super) fn current() -> Self {
        Self(TENURE.get())
    }

    pub(super) fn is_over(self) -> bool {
        TENURE.get() != self.0
    }

    pub(super) fn end() {
        TENURE.set(TENURE.get() + 1);
    }
}
