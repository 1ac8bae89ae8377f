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
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
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
        auth::Auth,
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
        // Envoy appends the path of the request, and its query, which are the client's.
        .route("/gate/envoy", any(answer))
        .route("/gate/envoy/", any(answer_envoy))
        .route("/gate/envoy/{*path}", any(answer_envoy))
        .merge(health)
        .fallback(async || ApiError::NotFound)
        .layer(layers)
        .with_state(gate)
}

/// The names and values of a query, in order.
type Asked = Vec<(String, String)>;

async fn answer(
    State(gate): State<Arc<Gate>>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    gate.admit(&headers, &asked).await
}

/// As [`answer`]; the query is the client's and asks for nothing.
async fn answer_envoy(State(gate): State<Arc<Gate>>, headers: HeaderMap) -> Result<Response, ApiError> {
    gate.admit(&headers, &[]).await
}

/// As [`answer`], in the statuses that nginx knows: every other one than 200, 401 and 403 becomes a 500 there.
async fn answer_nginx(
    State(gate): State<Arc<Gate>>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    gate.admit(&headers, &asked).await.map_err(|error| match error {
        ApiError::InvalidRequest(_) => ApiError::InvalidToken,
        error => error,
    })
}

impl Gate {
    /// # Errors
    /// Those of [`Auth::authenticate`]; [`ApiError::InsufficientScope`] if the query asks for a role that the bearer
    /// does not have.
    async fn admit(&self, headers: &HeaderMap, asked: &[(String, String)]) -> Result<Response, ApiError> {
        let bearer = self.auth.authenticate(headers, clock::now()).await?;
        // What Envoy appends to `?role=admin&path=` is the client's.
        let asked = asked.iter().take_while(|(name, _)| name != "path");
        let mut roles = asked.filter(|(name, _)| name == "role");
        if !roles.all(|(_, role)| bearer.has_role(role)) {
            return Err(ApiError::InsufficientScope);
        }
        let mut response = StatusCode::OK.into_response();
        if self.config.identity_headers {
            response.headers_mut().extend(identity(&bearer.account()));
        }
        Ok(response)
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
