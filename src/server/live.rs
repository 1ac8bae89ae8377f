//! What the server keeps telling a page: server-sent events. Each such response ends with the session,
//! at once.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{FutureExt, Stream, StreamExt, stream};
use tokio::time::{self, MissedTickBehavior};

use super::{AppState, clock, cookie::RefreshCookies};
use crate::api::{
    error::AuthError,
    types::{EndReason, Presence, RefreshToken},
};

/// How often the page of the servers is told how they are.
const CLUSTER_EVERY: Duration = Duration::from_millis(500);

/// How often the end of a session is asked for that nobody told of: it has expired, or was revoked
/// while this instance could not hear of it. Keeps proxies from closing the connection, too.
const SESSION_EVERY: Duration = Duration::from_secs(15);

/// Tells a page when its session has ended, and why. A browser cannot send the bearer with this
/// request, so the session's cookie stands for it, here and in [`cluster`].
///
/// # Errors
/// [`AuthError::MissingToken`], [`AuthError::InvalidToken`], [`AuthError::Unavailable`].
pub async fn session(State(state): State<AppState>, headers: HeaderMap) -> Result<Response, AuthError> {
    let token = signed_in(&state, &headers).await?;
    let (end, first) = (ended(state.clone(), token), Event::default().event("live").data(""));
    let last = end.map(|reason| Event::default().event("ended").json_data(reason).unwrap_or_default());
    let events = stream::once(async { first }).chain(last.into_stream());
    Ok(respond(&state, events))
}

/// How the running instances are, again and again, to whoever is signed in, until their session ends.
///
/// # Errors
/// [`AuthError::MissingToken`], [`AuthError::InvalidToken`], [`AuthError::Unavailable`].
pub async fn cluster(State(state): State<AppState>, headers: HeaderMap) -> Result<Response, AuthError> {
    let token = signed_in(&state, &headers).await?;
    let mut interval = time::interval(CLUSTER_EVERY);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let views = stream::unfold((state.clone(), interval), async |(state, mut interval)| {
        interval.tick().await;
        let event = Event::default().json_data(state.auth.cluster()).unwrap_or_default();
        Some((event, (state, interval)))
    });
    Ok(respond(&state, views.take_until(Box::pin(ended(state.clone(), token)))))
}

async fn signed_in(state: &AppState, headers: &HeaderMap) -> Result<RefreshToken, AuthError> {
    match RefreshCookies::of(headers, state).presence(&state.auth, clock::now()).await? {
        Some((token, Presence::SignedIn)) => Ok(token),
        Some((_, Presence::Anonymous | Presence::Ended(_))) => Err(AuthError::InvalidToken),
        None => Err(AuthError::MissingToken),
    }
}

/// Resolves when the session has ended.
async fn ended(state: AppState, token: RefreshToken) -> EndReason {
    loop {
        let _ = time::timeout(SESSION_EVERY, state.auth.until_revoked(&token)).await;
        match state.auth.presence(&token, clock::now()).await {
            Ok(Presence::Ended(reason)) => return reason,
            Ok(Presence::Anonymous) => return EndReason::Expired,
            // While nobody can tell, it goes on.
            Ok(Presence::SignedIn) | Err(_) => {}
        }
    }
}

fn respond(state: &AppState, events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let mut stopping = state.stopping.clone();
    let stopped = async move {
        let _ = stopping.wait_for(|is_stopping| *is_stopping).await;
    };
    let events = events.take_until(Box::pin(stopped)).map(Ok::<_, Infallible>);
    Sse::new(events).keep_alive(KeepAlive::new().interval(SESSION_EVERY)).into_response()
}
