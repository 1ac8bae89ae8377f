//! Server-sent events for pages. Each stream ends as soon as its session does.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Extension, Router,
    extract::State,
    http::request::Parts,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use futures::{FutureExt, Stream, StreamExt, stream};
use hallpass_allowlist::{ClusterSnapshot, CompletedRevocation, InstanceSnapshot};
use tokio::{
    sync::Mutex,
    time::{self, MissedTickBehavior},
};

use crate::{
    api::{
        CLUSTER_EVENTS, SESSION_EVENTS,
        error::ApiError,
        types::{
            ClusterView, EndReason, InstanceView, MemberKind, Presence, RecentRevocation, RefreshToken,
            SiteVersion,
        },
    },
    server::{
        AppState,
        client_info::ClientInfo,
        clock,
        http::{
            cookie::RefreshCookies,
            streams::{Place, Streams},
        },
        limits,
    },
};

/// The interval of the events about the instances.
const CLUSTER_EVERY: Duration = Duration::from_millis(500);

/// The maximum age of the view that a stream sends: all streams share one view, and each has a timer of its
/// own.
const VIEW_AGE: Duration = Duration::from_millis(400);

/// The interval of the checks for the end of a session that no event reports: it expired, or was revoked
/// while this instance did not receive events. Also the interval of keep-alives, so that proxies do not close
/// the connection.
const SESSION_EVERY: Duration = Duration::from_secs(15);

/// The routes of the streams.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route(SESSION_EVENTS, get(session))
        .route(CLUSTER_EVENTS, get(cluster))
        .layer(Extension(Arc::new(Streams::new(limits::open_files()))))
        .layer(Extension(Arc::<View>::default()))
}

/// Sends a page the version of the site that this instance serves, and the end of the session, with the reason, and with
/// the id of the session as that of the event: pages of a browser share a stream, and one may be of a newer session. A browser
/// cannot send the bearer with this request, so the cookie of the session is used instead, here and in [`cluster`].
///
/// # Errors
/// [`ApiError::MissingToken`], [`ApiError::InvalidToken`], [`ApiError::TooManyRequests`],
/// [`ApiError::Unavailable`].
async fn session(
    State(state): State<AppState>,
    Extension(streams): Extension<Arc<Streams>>,
    parts: Parts,
) -> Result<Response, ApiError> {
    let (token, session_id, place) = signed_in(&state, &streams, &parts).await?;
    let version = state.version.as_ref().map(SiteVersion::to_string).unwrap_or_default();
    let (end, first) = (ended(state.clone(), token), Event::default().event("live").data(version));
    let last = end.map(move |reason| {
        Event::default().event("ended").id(session_id).json_data(reason).unwrap_or_default()
    });
    let events = stream::once(async { first }).chain(last.into_stream());
    Ok(respond(&state, place, events))
}

/// Sends the state of the running instances twice a second, to any signed-in user, until their session ends.
///
/// # Errors
/// [`ApiError::MissingToken`], [`ApiError::InvalidToken`], [`ApiError::TooManyRequests`],
/// [`ApiError::Unavailable`].
async fn cluster(
    State(state): State<AppState>,
    Extension(streams): Extension<Arc<Streams>>,
    Extension(view): Extension<Arc<View>>,
    parts: Parts,
) -> Result<Response, ApiError> {
    let (token, _, place) = signed_in(&state, &streams, &parts).await?;
    let mut interval = time::interval(CLUSTER_EVERY);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let auth = Arc::clone(&state.auth);
    let views = stream::unfold((auth, view, interval), async |(auth, view, mut interval)| {
        interval.tick().await;
        let event = Event::default().data(view.current(async || view_of(auth.cluster().await)).await);
        Some((event, (auth, view, interval)))
    });
    Ok(respond(&state, place, views.take_until(Box::pin(ended(state.clone(), token)))))
}

fn view_of(snapshot: ClusterSnapshot) -> ClusterView {
    let revocation = |done: CompletedRevocation| RecentRevocation {
        number: done.number,
        at: done.at,
        instances: done.instances,
        acknowledged: done.acknowledged,
        elapsed_us: done.elapsed_us,
    };
    let instance = |instance: InstanceSnapshot| InstanceView {
        name: instance.name,
        kind: match instance.kind {
            hallpass_allowlist::MemberKind::Instance => MemberKind::Instance,
            hallpass_allowlist::MemberKind::Gate => MemberKind::Gate,
            hallpass_allowlist::MemberKind::Guard => MemberKind::Guard,
        },
        is_this: instance.is_this,
        is_leased: instance.is_leased,
        renewed_ms: instance.renewed_ms,
        positions: instance.positions,
        sessions: instance.sessions,
        revocations: instance.revocations.into_iter().map(revocation).collect(),
    };
    ClusterView {
        is_shared: snapshot.is_shared,
        now: snapshot.now,
        instances: snapshot.instances.into_iter().map(instance).collect(),
    }
}

/// The state of the running instances as JSON, and when it was read.
#[derive(Default)]
struct View(Mutex<Option<(Instant, Arc<str>)>>);

impl View {
    async fn current(&self, look: impl AsyncFnOnce() -> ClusterView) -> Arc<str> {
        let mut view = self.0.lock().await;
        match &*view {
            Some((at, json)) if at.elapsed() < VIEW_AGE => Arc::clone(json),
            _ => {
                let json: Arc<str> = serde_json::to_string(&look().await).unwrap_or_default().into();
                *view = Some((Instant::now(), Arc::clone(&json)));
                json
            }
        }
    }
}

/// The place of a stream, and a future that resolves when the stream has to make room for another.
type Opened = (Place, futures::future::BoxFuture<'static, ()>);

async fn signed_in(
    state: &AppState,
    streams: &Arc<Streams>,
    parts: &Parts,
) -> Result<(RefreshToken, String, Opened), ApiError> {
    let server = &state.config.server;
    let token = match RefreshCookies::of(&parts.headers, state).presence(&state.auth, clock::now()).await? {
        Some((token, Presence::SignedIn)) => token,
        Some((_, Presence::Anonymous | Presence::Ended(_))) => return Err(ApiError::InvalidToken),
        None => return Err(ApiError::MissingToken),
    };
    // An old copy of a refresh token does not give access to the events of the session.
    let session_id = state.auth.session_of_recent(&token).await.ok_or(ApiError::InvalidToken)?;
    let site = ClientInfo::of(parts, &server.trusted_proxies).rate_limit_prefix();
    let (place, displaced) = streams.open(session_id, site)?;
    Ok((token, session_id.to_string(), (place, displaced.boxed())))
}

/// Resolves when the session has ended.
async fn ended(state: AppState, token: RefreshToken) -> EndReason {
    loop {
        let _ = time::timeout(SESSION_EVERY, state.auth.until_revoked(&token)).await;
        match state.auth.presence(&token, clock::now()).await {
            Ok(Presence::Ended(reason)) => return reason,
            Ok(Presence::Anonymous) => return EndReason::Expired,
            // The stream continues while the state is undetermined.
            Ok(Presence::SignedIn) | Err(_) => {}
        }
    }
}

fn respond(
    state: &AppState,
    (place, displaced): Opened,
    events: impl Stream<Item = Event> + Send + 'static,
) -> Response {
    let mut stopping = state.stopping.clone();
    let stopped = async move {
        let _ = stopping.wait_for(|is_stopping| *is_stopping).await;
    };
    let events = events.take_until(Box::pin(stopped)).take_until(displaced);
    let events = events.map(move |event| {
        let _held_as_long_as_the_stream = &place;
        Ok::<_, Infallible>(event)
    });
    // Without this, nginx buffers some kilobytes before it passes anything on.
    let headers = [("x-accel-buffering", "no")];
    (headers, Sse::new(events).keep_alive(KeepAlive::new().interval(SESSION_EVERY))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn streams_of_one_tick_share_one_view() {
        let (view, mut looks) = (View::default(), 0);
        let started = Instant::now();
        for _ in 0..1000 {
            let look = async || {
                looks += 1;
                ClusterView::default()
            };
            view.current(look).await;
        }
        let ticks = started.elapsed().as_millis() / VIEW_AGE.as_millis() + 1;
        assert!(looks <= ticks, "{looks} looks in {ticks} ticks");
    }
}
