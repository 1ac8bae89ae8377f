//! The calls that need a live access token of an administrator. Each answers 403 `insufficient_scope`
//! to everyone else. All fields may be left out, so that who may not call is told that first.

use leptos::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    error::ApiError,
    protocol::FormOrJson,
    types::{Revocation, Role, SessionList, UserList},
};
use crate::{ToSchema, client::refresh::RefreshingClient};

/// A page of users, by address: those with `search` in it, from after the address `after` on.
///
/// # Errors
/// 401, 403, 503.
#[server(
    prefix = "/api", endpoint = "admin/users", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn users(
    /// A part of the address; all users without it.
    #[server(default)]
    search: String,
    /// The last address of the page before; the first page without it.
    #[server(default)]
    after: String,
) -> Result<UserList, ApiError> {
    crate::server::http::handlers::users(search, after).await
}

/// The live sessions of a user.
///
/// # Errors
/// 401, 403, 404, 503.
#[server(
    prefix = "/api", endpoint = "admin/sessions", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn sessions(#[server(default)] user_id: String) -> Result<SessionList, ApiError> {
    crate::server::http::handlers::sessions_of_user(user_id).await
}

/// Disables a user: they cannot sign in any more, and when this answers, no instance accepts any token
/// of theirs.
///
/// # Errors
/// 401, 403, 404; 422 for one's own account; 503 when it cannot be made certain.
#[server(
    prefix = "/api", endpoint = "admin/disable_user", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn disable_user(#[server(default)] user_id: String) -> Result<Revocation, ApiError> {
    crate::server::http::handlers::disable_user(user_id).await
}

/// Lets a disabled user sign in again.
///
/// # Errors
/// 401, 403, 404; 422 for one's own account; 503.
#[server(
    prefix = "/api", endpoint = "admin/enable_user", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn enable_user(#[server(default)] user_id: String) -> Result<(), ApiError> {
    crate::server::http::handlers::enable_user(user_id).await
}

/// Changes a user's role; ends their sessions, so that no token says what is no longer true.
///
/// # Errors
/// 401, 403, 404; 422 for one's own account or without a role; 503 when it cannot be made certain.
#[server(
    prefix = "/api", endpoint = "admin/set_role", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn set_role(
    #[server(default)] user_id: String,
    #[server(default)] role: Option<Role>,
) -> Result<Revocation, ApiError> {
    crate::server::http::handlers::set_role(user_id, role).await
}

/// Ends one session, whosever it is.
///
/// # Errors
/// 401, 403, 404; 503 when it cannot be made certain.
#[server(
    prefix = "/api", endpoint = "admin/revoke_session", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn revoke_session(#[server(default)] session_id: String) -> Result<Revocation, ApiError> {
    crate::server::http::handlers::end_users_session(session_id).await
}

/// Ends all sessions of a user.
///
/// # Errors
/// 401, 403, 404; 503 when it cannot be made certain.
#[server(
    prefix = "/api", endpoint = "admin/revoke_sessions", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn revoke_sessions(#[server(default)] user_id: String) -> Result<Revocation, ApiError> {
    crate::server::http::handlers::end_users_sessions(user_id).await
}

/// Ends all sessions of everyone, one's own included.
///
/// # Errors
/// 401, 403; 503 when it cannot be made certain.
#[server(
    prefix = "/api", endpoint = "admin/revoke_all_sessions", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn revoke_all_sessions() -> Result<Revocation, ApiError> {
    crate::server::http::handlers::end_all_sessions().await
}
