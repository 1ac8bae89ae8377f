//! The gate: it tells a proxy whether a request carries a live access token (forward-auth), from this instance's
//! memory. It has a listener of its own, so that the public cannot ask it; `server/mod.rs` serves it there.
//!
//! The status alone decides. Whatever is not 200 refuses the request, so the gate fails closed. Who the user is, the
//! service behind the proxy reads from the token, which it verifies itself; see [`GateConfig::identity_headers`].

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Query, Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use tower::ServiceBuilder;
use tower_http::{
    catch_panic::CatchPanicLayer,
    set_header::SetResponseHeaderLayer,
    timeout::TimeoutLayer,
    trace::{DefaultOnResponse, TraceLayer},
};
use tracing::{Level, info_span};

use crate::{
    api::{error::ApiError, types::Account},
    server::{
        auth::{Auth, authenticate::Authenticated},
        clock,
        config::{Config, GateConfig},
        http::{error_response, health},
    },
};

/// What each request needs.
struct Gate {
    auth: Arc<Auth>,
    config: GateConfig,
}

/// `/gate/forward` for Traefik, Caddy, HAProxy and APISIX, `/gate/nginx`, and `/gate/envoy` with anything below it;
/// and the health checks.
/// Each takes any method: what is asked about is the request that the proxy holds, and its headers are in this one.
pub fn routes(config: &Config, auth: Arc<Auth>) -> Router {
    let health = health::routes(Arc::clone(&auth));
    let gate = Arc::new(Gate { auth, config: config.gate.clone() });
    let span =
        |request: &Request| info_span!("gate", method = %request.method(), path = request.uri().path());
    let layers = ServiceBuilder::new()
        .map_response(|response: axum::http::Response<_>| response.map(Body::new))
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(span)
                .on_response(DefaultOnResponse::new().level(Level::DEBUG)),
        )
        .layer(SetResponseHeaderLayer::overriding(
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-store"),
        ))
        .layer(CatchPanicLayer::custom(error_response::panicked))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::SERVICE_UNAVAILABLE,
            config.server.request_timeout(),
        ));
    Router::new()
        .route("/gate/forward", any(answer))
        .route("/gate/nginx", any(answer_nginx))
        // Envoy appends the path of the request, and its query.
        .route("/gate/envoy", any(answer))
        .route("/gate/envoy/{*path}", any(answer))
        .merge(health)
        .fallback(async || ApiError::NotFound)
        .layer(layers)
        .with_state(gate)
}

async fn answer(State(gate): State<Arc<Gate>>, request: Request) -> Result<Response, ApiError> {
    let bearer = gate.admit(request).await?;
    Ok(gate.admitted(&bearer))
}

/// As [`answer`], in the statuses that nginx knows: every other one than 200, 401 and 403 becomes a 500 there.
async fn answer_nginx(State(gate): State<Arc<Gate>>, request: Request) -> Result<Response, ApiError> {
    let answered = gate.admit(request).await;
    let bearer = answered.map_err(|error| match error {
        ApiError::InvalidRequest(_) => ApiError::InvalidToken,
        error => error,
    })?;
    Ok(gate.admitted(&bearer))
}

impl Gate {
    /// # Errors
    /// Those of [`Auth::authenticate`]; [`ApiError::InsufficientScope`] if the query asks for a role that the bearer
    /// does not have. It may ask for several: a client can add to the query that Envoy appends, and must not win by it.
    async fn admit(&self, request: Request) -> Result<Authenticated, ApiError> {
        let (request, _) = request.into_parts();
        let bearer = self.auth.authenticate(&request.headers, clock::now()).await?;
        let asked: Query<Vec<(String, String)>> = Query::try_from_uri(&request.uri)
            .map_err(|_| ApiError::InvalidRequest("The query is malformed.".into()))?;
        let mut roles = asked.0.iter().filter(|(name, _)| name == "role");
        if roles.all(|(_, role)| bearer.has_role(role)) {
            Ok(bearer)
        } else {
            Err(ApiError::InsufficientScope)
        }
    }

    fn admitted(&self, bearer: &Authenticated) -> Response {
        let mut response = StatusCode::OK.into_response();
        if self.config.identity_headers {
            response.headers_mut().extend(identity(&bearer.account()));
        }
        response
    }
}

/// The headers that say who the bearer is: always all of them, so that none of a client's own is left where the proxy
/// copies them.
fn identity(account: &Account) -> [(HeaderName, HeaderValue); 4] {
    let values = [
        ("hallpass-user", account.sub.as_str()),
        ("hallpass-email", &account.email),
        ("hallpass-role", account.role.as_str()),
        ("hallpass-session", &account.sid),
    ];
    values.map(|(name, value)| {
        let value = HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""));
        (HeaderName::from_static(name), value)
    })
}
