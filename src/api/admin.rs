//! The calls that need a live access token of an administrator. Each answers 403 `insufficient_scope` to
//! everyone else. All fields are optional, so that the 403 comes before errors about the fields.

use leptos::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    error::ApiError,
    protocol::FormOrJson,
    types::{ClientList, Revocation, Role, SessionList, UserList},
};
use crate::{ToSchema, client::refresh::RefreshingClient};

/// Lists a page of users in the order of their addresses. `search` filters them, and the page starts after
/// the address `after`.
///
/// # Errors
/// 401, 403, 503.
#[server(
    prefix = "/api", endpoint = "admin/users", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn users(
    /// A part of the address. Without it, all users are listed.
    #[server(default)]
    search: String,
    /// The last address of the previous page. Without it, the first page is returned.
    #[server(default)]
    after: String,
) -> Result<UserList, ApiError> {
    crate::server::http::handlers::users(search, after).await
}

/// Lists the live sessions of a user.
///
/// # Errors
/// 401, 403, 404, 503.
#[server(
    prefix = "/api", endpoint = "admin/sessions", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn sessions(
    /// The id of a user from `/api/admin/users`.
    #[server(default)]
    user_id: String,
) -> Result<SessionList, ApiError> {
    crate::server::http::handlers::sessions_of_user(user_id).await
}

/// Lists the clients: other services that may ask about tokens and revoke them. They are added on the command line.
///
/// # Errors
/// 401, 403, 503.
#[server(
    prefix = "/api", endpoint = "admin/clients", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn clients() -> Result<ClientList, ApiError> {
    crate::server::http::handlers::clients().await
}

/// Disables a user. They can no longer log in, and when this succeeds, no instance accepts any token of
/// theirs.
///
/// # Errors
/// 401, 403, 404; 422 for the administrator's own account; 503 when the revocation cannot be confirmed.
#[server(
    prefix = "/api", endpoint = "admin/disable_user", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn disable_user(
    /// The id of a user from `/api/admin/users`.
    #[server(default)]
    user_id: String,
) -> Result<Revocation, ApiError> {
    crate::server::http::handlers::disable_user(user_id).await
}

/// Enables a disabled user, who can then log in again.
///
/// # Errors
/// 401, 403, 404; 422 for the administrator's own account; 503.
#[server(
    prefix = "/api", endpoint = "admin/enable_user", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn enable_user(
    /// The id of a user from `/api/admin/users`.
    #[server(default)]
    user_id: String,
) -> Result<(), ApiError> {
    crate::server::http::handlers::enable_user(user_id).await
}

/// Changes the role of a user. Revokes their sessions, so that no live token contains the previous role.
///
/// # Errors
/// 401, 403, 404; 422 for the administrator's own account or without a role; 503 when the revocation cannot
/// be confirmed.
#[server(
    prefix = "/api", endpoint = "admin/set_role", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn set_role(
    /// The id of a user from `/api/admin/users`.
    #[server(default)]
    user_id: String,
    /// The new role.
    #[server(default)]
    role: Option<Role>,
) -> Result<Revocation, ApiError> {
    crate::server::http::handlers::set_role(user_id, role).await
}

/// Revokes one session of any user.
///
/// # Errors
/// 401, 403, 404; 503 when the revocation cannot be confirmed.
#[server(
    prefix = "/api", endpoint = "admin/revoke_session", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn revoke_session(
    /// The id of a session from `/api/admin/sessions`.
    #[server(default)]
    session_id: String,
) -> Result<Revocation, ApiError> {
    crate::server::http::handlers::end_users_session(session_id).await
}

/// Revokes all sessions of a user.
///
/// # Errors
/// 401, 403, 404; 503 when the revocation cannot be confirmed.
#[server(
    prefix = "/api", endpoint = "admin/revoke_sessions", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn revoke_sessions(
    /// The id of a user from `/api/admin/users`.
    #[server(default)]
    user_id: String,
) -> Result<Revocation, ApiError> {
    crate::server::http::handlers::end_users_sessions(user_id).await
}

/// Revokes all sessions of all users, including the administrator's own.
///
/// # Errors
/// 401, 403; 503 when the revocation cannot be confirmed.
#[server(
    prefix = "/api", endpoint = "admin/revoke_all_sessions", protocol = FormOrJson, client = RefreshingClient,
    input_derive = (Serialize, Deserialize, ToSchema)
)]
pub async fn revoke_all_sessions() -> Result<Revocation, ApiError> {
    crate::server::http::handlers::end_all_sessions().await
}
