//! What the server keeps telling a page: server-sent events, for as long as the session lives.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
};
use futures::{Stream, StreamExt, stream};
use tokio::time::{self, MissedTickBehavior};

use super::{AppState, clock, cookie};
use crate::api::{error::AuthError, types::RefreshToken};

/// How often the page of the servers is told how they are.
const EVERY: Duration = Duration::from_millis(500);

/// How the running instances are, again and again, to whoever is signed in. A browser cannot send
/// the bearer with this request, so the session's cookie stands for it; it is looked at each time
/// anew, and the stream ends with the session.
///
/// # Errors
/// [`AuthError::MissingToken`], [`AuthError::InvalidToken`], [`AuthError::Unavailable`].
pub async fn cluster(State(state): State<AppState>, headers: HeaderMap) -> Result<Response, AuthError> {
    let token = cookie::read(&headers, state.config.server.https).ok_or(AuthError::MissingToken)?;
    if !state.auth.is_signed_in(&token, clock::now()).await? {
        return Err(AuthError::InvalidToken);
    }
    let mut stopping = state.stopping.clone();
    let stopped = async move {
        let _ = stopping.wait_for(|is_stopping| *is_stopping).await;
    };
    Ok(Sse::new(views(state, token).take_until(Box::pin(stopped))).into_response())
}

fn views(state: AppState, token: RefreshToken) -> impl Stream<Item = Result<Event, Infallible>> {
    let mut interval = time::interval(EVERY);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    stream::unfold((state, token, interval), async |(state, token, mut interval)| {
        interval.tick().await;
        // While nobody can tell, the page hears nothing new.
        let event = match state.auth.is_signed_in(&token, clock::now()).await {
            Ok(false) => return None,
            Ok(true) => Event::default().json_data(state.auth.cluster()).unwrap_or_default(),
            Err(_) => Event::default().comment("cannot tell"),
        };
        Some((Ok(event), (state, token, interval)))
    })
}
