//! A fresh access token for each call that needs one: renewed before it expires, and only once for all
//! concurrent callers, in all tabs of the browser.
//!
//! The answer to a refresh can be lost after the server has rotated the refresh token. Within the grace the
//! server gives the same answer again; later it treats the token as reused, and revokes the session. So a
//! refresh without an answer is soon sent again, while the first is still pending, and never later than the
//! grace allows. No request is aborted while it may still be answered, and until then no tab of this browser
//! starts another refresh: on a slow connection that one could arrive too late.

use std::{
    cell::{Cell, RefCell},
    future::Future,
};

use bytes::Bytes;
use futures::{
    FutureExt, Sink, Stream, StreamExt,
    future::{Either, LocalBoxFuture, Shared, select},
    stream::FuturesUnordered,
};
use gloo_timers::future::TimeoutFuture;
use leptos::task::spawn_local;
use send_wrapper::SendWrapper;
use server_fn::{
    client::{Client, browser::BrowserClient},
    request::browser::BrowserRequest,
    response::browser::BrowserResponse,
};

use super::{
    bearer::{attach_token, send},
    refresh_lock,
    storage::{self, StoredToken, device_now},
    timeout::{now_ms, with_timeout},
};
use crate::api::{
    self,
    error::ApiError,
    types::{AccessToken, TokenResponse},
};

/// How long an attempt may remain unanswered before the next one is sent.
const ATTEMPT_TIMEOUT_MS: u32 = 3_000;

/// The number of attempts of one renewal. The server's grace is longer than all of them together.
const ATTEMPTS: u32 = 3;

/// The pause before the next attempt when all earlier ones have failed.
const PAUSE_MS: u32 = 1_000;

/// The longest duration of a renewal, as a multiple of [`ATTEMPT_TIMEOUT_MS`]. The server answers within ten
/// seconds of receiving a request; the rest is for the network.
const LONGEST: u32 = 7;

/// The longest duration of a renewal, in milliseconds.
const LONGEST_MS: u32 = LONGEST * ATTEMPT_TIMEOUT_MS;

const _: () = assert!(LONGEST_MS < refresh_lock::TIMEOUT_MS);

/// How long a call without an unexpired token waits for a renewal.
const CALL_TIMEOUT_MS: u32 = ATTEMPTS * ATTEMPT_TIMEOUT_MS;

/// How long a call whose token is due for renewal, but not expired, waits for the new one.
const DUE_TIMEOUT_MS: u32 = 1_000;

/// The longest wait after a 429, even if the server asks for a longer one.
const LONGEST_WAIT_SECONDS: u64 = 60;

/// The HTTP client that attaches a fresh access token, after a refresh if necessary.
///
/// # Errors
/// The error of the refresh, if there is no usable token without it.
pub struct RefreshingClient;

attach_token!(RefreshingClient, Some(fresh_token().await?));

/// The stored token, or a new one if it is due for renewal.
async fn fresh_token() -> Result<AccessToken, ApiError> {
    let stored = storage::load();
    if let Some(token) = stored.clone().filter(is_fresh) {
        return Ok(token.access_token);
    }
    let is_good = |token: &StoredToken| token.seconds_left(device_now()) > 0.0;
    let timeout_ms = if stored.as_ref().is_some_and(is_good) { DUE_TIMEOUT_MS } else { CALL_TIMEOUT_MS };
    match with_timeout(timeout_ms, renewal()).await {
        // The session may still be live: the old token is used until it expires.
        Err(error) if !ends_session(&error) => {
            stored.filter(is_good).map(|token| token.access_token).ok_or(error)
        }
        answer => answer,
    }
}

fn is_fresh(token: &StoredToken) -> bool {
    !token.is_due(device_now())
}

/// Whether this error shows that the session has ended. After any other its state is undetermined.
pub(super) fn ends_session(error: &ApiError) -> bool {
    matches!(error, ApiError::MissingToken | ApiError::InvalidToken | ApiError::InvalidGrant(_))
}

type Renewal = Shared<LocalBoxFuture<'static, Result<AccessToken, ApiError>>>;

thread_local! {
    /// The last renewal of this tab, and the generation that it belongs to.
    static RENEWAL: RefCell<Option<(SessionGeneration, Renewal)>> = const { RefCell::new(None) };
    /// When the server may be asked again after a 429, by [`now_ms`].
    static RETRY_AT_MS: Cell<f64> = const { Cell::new(0.0) };
}

/// The pending renewal of this tab, or a new one. It continues even if no caller waits for it any more.
fn renewal() -> Renewal {
    let generation = SessionGeneration::current();
    RENEWAL.with_borrow_mut(|last| {
        if let Some((begun_in, renewal)) = last
            && *begun_in == generation
            && renewal.peek().is_none()
        {
            return renewal.clone();
        }
        let renewal = renew(generation).boxed_local().shared();
        spawn_local(renewal.clone().map(drop));
        *last = Some((generation, renewal.clone()));
        renewal
    })
}

async fn renew(generation: SessionGeneration) -> Result<AccessToken, ApiError> {
    let wait_ms = RETRY_AT_MS.get() - now_ms();
    if wait_ms > 0.0 {
        return Err(ApiError::TooManyRequests((wait_ms / 1000.0).ceil() as u64));
    }
    let _one_in_this_browser = refresh_lock::acquire().await;
    // Another tab may have renewed it while this one waited for the lock.
    if let Some(token) = storage::load().filter(is_fresh) {
        return Ok(token.access_token);
    }
    if storage::is_logout_pending() {
        // The cookie may still be valid, but the user has signed out.
        return Err(ApiError::InvalidToken);
    }
    let answer = ask(generation).await;
    if generation.is_over() {
        // The user logged out during the refresh: the server has revoked this token, too.
        return Err(ApiError::InvalidToken);
    }
    if let Err(ApiError::TooManyRequests(seconds)) = answer {
        RETRY_AT_MS.set(now_ms() + seconds.min(LONGEST_WAIT_SECONDS) as f64 * 1000.0);
    }
    let token = StoredToken::new(answer?, device_now());
    storage::save(&token);
    Ok(token.access_token)
}

/// The first conclusive answer to any of the attempts; otherwise the last error.
async fn ask(generation: SessionGeneration) -> Result<TokenResponse, ApiError> {
    let mut under_way = FuturesUnordered::new();
    let mut failure = ApiError::Transport;
    let begin = device_now();
    for number in 1..=LONGEST {
        // Timers stop while a page is suspended, so the clock is checked, too.
        let is_in_time = (device_now() - begin).abs() * 1000.0 < f64::from(CALL_TIMEOUT_MS);
        if number <= ATTEMPTS && is_in_time {
            under_way.push(api::auth::refresh(None));
        }
        let mut timeout = TimeoutFuture::new(ATTEMPT_TIMEOUT_MS);
        while let Either::Left((answer, _)) = select(under_way.next(), &mut timeout).await {
            match answer {
                Some(Err(error)) if !ends_session(&error) => failure = error,
                Some(answer) => return answer,
                None if number >= ATTEMPTS => return Err(failure),
                None if matches!(failure, ApiError::TooManyRequests(_)) => return Err(failure),
                None => {
                    select(TimeoutFuture::new(PAUSE_MS), &mut timeout).await;
                    break;
                }
            }
        }
        if generation.is_over() {
            break;
        }
    }
    Err(failure)
}

thread_local! {
    static GENERATION: Cell<u32> = const { Cell::new(0) };
}

/// The time from a login in this tab to the end of its session. Work that began in an earlier generation (a
/// refresh pending during a logout) must not take effect in the next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionGeneration(u32);

impl SessionGeneration {
    pub(super) fn current() -> Self {
        Self(GENERATION.get())
    }

    pub(super) fn is_over(self) -> bool {
        GENERATION.get() != self.0
    }

    pub(super) fn end() {
        GENERATION.set(GENERATION.get() + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_fit_into_the_grace_of_the_default_settings() {
        let defaults: toml::Table = include_str!("../../Leptos.toml").parse().unwrap();
        let grace = defaults["token"]["refresh_grace_seconds"].as_integer().unwrap();
        assert!(i64::from(ATTEMPTS * ATTEMPT_TIMEOUT_MS) < grace * 1000);
    }
}
