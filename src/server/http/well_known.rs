//! Documents at addresses that standards fix (RFC 8615).

use axum::{
    Json, Router,
    extract::State,
    http::header,
    response::{IntoResponse, Redirect},
    routing::get,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::server::{AppState, auth::key::PublicJwk, clock, http::oauth};

/// How long others may use the documents without asking again, in seconds. Verifiers ask again when they meet an unknown `kid`.
const CACHING: &str = "public, max-age=300";

pub const KEYS: &str = "/.well-known/jwks.json";
pub const METADATA: &str = "/.well-known/oauth-authorization-server";

pub fn routes() -> Router<AppState> {
    // For password managers: <https://www.w3.org/TR/change-password-url/>.
    let change_password = get(async || Redirect::to("/password"));
    Router::new()
        .route(KEYS, get(jwks))
        .route(METADATA, get(metadata))
        .route("/.well-known/change-password", change_password)
}

/// Public keys (RFC 7517, 5).
#[derive(Debug, Serialize, ToSchema)]
pub struct KeySet {
    pub keys: Vec<PublicJwk>,
}

/// The public keys with which others can verify access tokens: of every key that may have signed one that has not
/// expired, and of those that will sign.
async fn jwks(State(state): State<AppState>) -> impl IntoResponse {
    let keys = state.auth.public_keys(clock::now());
    let headers = [(header::CONTENT_TYPE, "application/jwk-set+json"), (header::CACHE_CONTROL, CACHING)];
    (headers, Json(KeySet { keys }).into_response().into_body())
}

/// Where everything is (RFC 8414, 2). No response types and grants: users log in here, not at a client.
#[derive(Debug, Serialize, ToSchema)]
pub struct Metadata {
    /// The `iss` of access tokens.
    issuer: String,
    jwks_uri: String,
    introspection_endpoint: String,
    introspection_endpoint_auth_methods_supported: [&'static str; 2],
    revocation_endpoint: String,
    revocation_endpoint_auth_methods_supported: [&'static str; 2],
    global_token_revocation_endpoint: String,
    global_token_revocation_endpoint_auth_methods_supported: [&'static str; 1],
    response_types_supported: [&'static str; 0],
    grant_types_supported: [&'static str; 0],
    service_documentation: String,
}

impl Metadata {
    /// The metadata of the site at this address.
    pub fn of(issuer: &str, site: &str) -> Self {
        let at = |path: &str| format!("{site}{path}");
        let methods = ["client_secret_basic", "client_secret_post"];
        Self {
            issuer: issuer.to_owned(),
            jwks_uri: at(KEYS),
            introspection_endpoint: at(oauth::INTROSPECT),
            introspection_endpoint_auth_methods_supported: methods,
            revocation_endpoint: at(oauth::REVOKE),
            revocation_endpoint_auth_methods_supported: methods,
            global_token_revocation_endpoint: at(oauth::REVOKE_USER),
            global_token_revocation_endpoint_auth_methods_supported: ["client_secret_basic"],
            response_types_supported: [],
            grant_types_supported: [],
            service_documentation: at("/docs"),
        }
    }
}

/// The addresses come from the settings, not from the `Host` header: a cache may give this answer to
/// other clients.
async fn metadata(State(state): State<AppState>) -> impl IntoResponse {
    let site = match state.config.server.public_url.0.first() {
        Some(origin) => origin.to_string(),
        None => format!("http://{}", state.leptos.site_addr),
    };
    let metadata = Metadata::of(&state.config.token.issuer, &site);
    ([(header::CACHE_CONTROL, CACHING)], Json(metadata))
}
