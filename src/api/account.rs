//! The calls that need a live access token.

use leptos::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    error::ApiError,
    protocol::FormOrJson,
    types::{Account, Revocation, SecurityEvents, SessionList},
};
use crate::{ToSchema, client::refresh::RefreshingClient};

/// What the bearer's own token says. Answered from memory: no database, no network.
///
/// # Errors
/// 401 without a token, or when it is malformed, expired or revoked.
#[server(
    prefix = "/api", endpoint = "account/me", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn me() -> Result<Account, ApiError> {
    crate::server::http::handlers::me().await
}

/// The live sessions of the bearer's user.
///
/// # Errors
/// 401 without a live token; 503.
#[server(
    prefix = "/api", endpoint = "account/sessions", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn sessions() -> Result<SessionList, ApiError> {
    crate::server::http::handlers::sessions().await
}

/// What happened to the account lately: who signed in and out, from which device.
///
/// # Errors
/// 401 without a live token; 503.
#[server(
    prefix = "/api", endpoint = "account/events", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn events() -> Result<SecurityEvents, ApiError> {
    crate::server::http::handlers::events().await
}

/// Ends one session of the bearer's user; when this answers, no instance accepts any token of it.
///
/// # Errors
/// 401 without a live token; 404 when they have no such session; 503 when the revocation cannot be
/// made certain.
#[server(
    prefix = "/api", endpoint = "account/revoke_session", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn revoke_session(
    /// One of those that `/api/account/sessions` tells.
    #[server(default)]
    session_id: String,
) -> Result<Revocation, ApiError> {
    crate::server::http::handlers::revoke_session(session_id).await
}

/// Ends all sessions of the bearer's user; with `keep_current`, all but the bearer's own. Whoever has
/// not signed in within the last five minutes shows the password again (ASVS 5.0, 7.5.2).
///
/// When this answers, no instance accepts any token of theirs.
///
/// # Errors
/// 401 without a live token; 403 `insufficient_user_authentication` when the password is missing; 422
/// when it is wrong; 429 when it was tried too often; 503 when the revocation cannot be made certain:
/// assume that the sessions are alive.
#[server(
    prefix = "/api", endpoint = "account/logout_everywhere", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn logout_everywhere(
    /// The session that asks lives on.
    #[server(default)]
    keep_current: bool,
    /// Not needed within five minutes of signing in.
    #[server(default)]
    password: String,
) -> Result<Revocation, ApiError> {
    crate::server::http::handlers::logout_everywhere(keep_current, password).await
}

/// Changes the password of the bearer's user, and ends all of their other sessions with it.
///
/// # Errors
/// 401 without a live token; 422 with the fields when the current password is wrong or the new one
/// cannot be accepted; 429 when it was tried too often; 503 when it cannot be made certain that the
/// other sessions have ended.
#[server(
    prefix = "/api", endpoint = "account/change_password", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn change_password(
    /// The password as it is.
    #[server(default)]
    current: String,
    /// As it shall be.
    #[server(default)]
    new: String,
) -> Result<Revocation, ApiError> {
    crate::server::http::handlers::change_password(current, new).await
}
