//! Documents at addresses that standards fix (RFC 8615).

use axum::{Json, Router, extract::State, http::header, response::IntoResponse, routing::get};
use serde_json::json;

use crate::server::{AppState, clock};

/// How long others may use the keys without asking again, in seconds. Whoever meets an unknown `kid` asks anyway.
const CACHING: &str = "public, max-age=300";

/// `/.well-known/jwks.json`.
pub fn routes() -> Router<AppState> {
    Router::new().route("/.well-known/jwks.json", get(jwks))
}

/// The public keys with which others can verify access tokens (RFC 7517, 5): of every key that may have signed one that
/// has not expired, and of those that will sign.
async fn jwks(State(state): State<AppState>) -> impl IntoResponse {
    let keys = state.auth.public_keys(clock::now());
    let headers = [(header::CONTENT_TYPE, "application/jwk-set+json"), (header::CACHE_CONTROL, CACHING)];
    (headers, Json(json!({ "keys": keys })).into_response().into_body())
}
