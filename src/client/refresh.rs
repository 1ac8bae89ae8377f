//! A fresh access token for each call that needs one: fetched ahead of its end, and once for all
//! who ask at the same time, in whatever tab.
//!
//! The answer to a refresh can be lost after the server has used up the refresh token. Within the grace the
//! server answers the same token alike; later it takes it for a stolen one, and ends the session. So a refresh
//! that is not answered soon is sent again beside the first, and never later than the grace allows. None is
//! aborted as long as it may still be answered, and until then no tab of this browser sends another: on a
//! slow connection that would be the one that comes too late.

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
    refresh_lock::{self, Turn},
    storage::{self, StoredToken, device_now},
    timeout::with_timeout,
    token::now_ms,
};
use crate::api::{
    self,
    error::ApiError,
    types::{AccessToken, TokenResponse},
};

/// The time after which an attempt that is not answered is followed by the next.
const ATTEMPT_TIMEOUT_MS: u32 = 3_000;

/// The attempts of one renewal. The server's grace outlasts all of them.
const ATTEMPTS: u32 = 3;

/// The pause before the next attempt when all before it have failed.
const PAUSE_MS: u32 = 1_000;

/// How many times [`ATTEMPT_TIMEOUT_MS`] a renewal takes at most. The server answers within ten seconds of
/// receiving a request; the rest is for the way there and back.
const LONGEST: u32 = 7;

/// The time that a renewal takes at most.
const LONGEST_MS: u32 = LONGEST * ATTEMPT_TIMEOUT_MS;

const _: () = assert!(LONGEST_MS < refresh_lock::TIMEOUT_MS);

/// The time that a call without a living token waits for a renewal.
const CALL_TIMEOUT_MS: u32 = ATTEMPTS * ATTEMPT_TIMEOUT_MS;

/// The time that a call whose token is due, but still good, waits for a renewal.
const DUE_TIMEOUT_MS: u32 = 1_000;

/// The longest time for which a server that answers 429 is not asked again.
const LONGEST_WAIT_SECONDS: u64 = 60;

/// Attaches a fresh access token, after a refresh if need be.
///
/// # Errors
/// What the refresh answered, when there is no token without it.
pub struct RefreshingClient;

attach_token!(RefreshingClient, Some(fresh_token().await?));

/// A token with life enough left: the stored one, or the next.
async fn fresh_token() -> Result<AccessToken, ApiError> {
    let stored = storage::load();
    if let Some(token) = stored.clone().filter(is_fresh) {
        return Ok(token.access_token);
    }
    let is_good = |token: &StoredToken| token.seconds_left(device_now()) > 0.0;
    let timeout_ms = if stored.as_ref().is_some_and(is_good) { DUE_TIMEOUT_MS } else { CALL_TIMEOUT_MS };
    match with_timeout(timeout_ms, renewal()).await {
        // Nothing is decided: what is left of the old token is still good.
        Err(error) if !ends_session(&error) => {
            stored.filter(is_good).map(|token| token.access_token).ok_or(error)
        }
        answer => answer,
    }
}

fn is_fresh(token: &StoredToken) -> bool {
    !token.is_due(device_now())
}

/// Whether this answer says that the session has ended. Any other leaves it undetermined.
pub(super) fn ends_session(error: &ApiError) -> bool {
    matches!(error, ApiError::MissingToken | ApiError::InvalidToken | ApiError::InvalidGrant(_))
}

type Renewal = Shared<LocalBoxFuture<'static, Result<AccessToken, ApiError>>>;

thread_local! {
    /// The last renewal of this tab, and the generation that it is for.
    static RENEWAL: RefCell<Option<(SessionGeneration, Renewal)>> = const { RefCell::new(None) };
    /// When the server may be asked again, after a 429; by [`now_ms`].
    static RETRY_AT_MS: Cell<f64> = const { Cell::new(0.0) };
}

/// The renewal that is under way in this tab, or a new one. It goes on when nobody waits for it any more.
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
    let _one_in_this_browser = Turn::wait().await;
    // Another tab may have renewed it meanwhile.
    if let Some(token) = storage::load().filter(is_fresh) {
        return Ok(token.access_token);
    }
    if storage::is_logout_pending() {
        // The cookie may still be good, but its owner has left.
        return Err(ApiError::InvalidToken);
    }
    let answer = ask(generation).await;
    if generation.is_over() {
        // Logged out meanwhile: the server has ended this token as well.
        return Err(ApiError::InvalidToken);
    }
    if let Err(ApiError::TooManyRequests(seconds)) = answer {
        RETRY_AT_MS.set(now_ms() + seconds.min(LONGEST_WAIT_SECONDS) as f64 * 1000.0);
    }
    let token = StoredToken::new(answer?, device_now());
    storage::save(&token);
    Ok(token.access_token)
}

/// The first answer that decides, to any of the attempts; else the last failure.
async fn ask(generation: SessionGeneration) -> Result<TokenResponse, ApiError> {
    let mut under_way = FuturesUnordered::new();
    let mut failure = ApiError::Transport;
    let begin = device_now();
    for number in 1..=LONGEST {
        // The timers of a page that sleeps do so, too.
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

/// The time from one sign-in in this tab to its end. What began in one that is over (a refresh
/// under way during a log-out) must not take effect in the next.
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
